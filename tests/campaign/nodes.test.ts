import { inNode, stopNode } from "../../sandbox/cluster/nodes";
import { waitFor } from "../../sandbox/shell";
import { Bed } from "../backup-bed/bed";
import { RestServer } from "../backup-bed/servers";
import { addWorker, clearUp, expectBack, isReady, link, record, sandbox, type Saved, WORKER } from "../backup-bed/worker";

/** The home on a node that is retired, cut off and lost: jobs and builds come back on another one, byte for byte. */

jest.setTimeout(1_800_000);
const bed = new Bed("backup-nodes", new RestServer(8003));

const nodeOf = async () => (await bed.json(["get", "pods", "-l", "app.kubernetes.io/component=controller"])).items[0].spec.nodeName as string;

/** Runs a few builds, saves them, and returns what must come back. */
async function saved(job: string): Promise<Saved> {
  await bed.job(job, 5000);
  await bed.build(job, 3);
  const before = await record(bed);
  await bed.cli(["backup"]);
  return before;
}

const onWorker = (...command: string[]) => inNode({ name: WORKER }, command, { allowFailure: true });

/** Whether the worker's kubelet still keeps a pod. */
const keeps = async (uid: string): Promise<boolean> => (await onWorker("test", "-e", `/var/lib/kubelet/pods/${uid}/volumes`)).code === 0;

beforeAll(async () => {
  // The home is made before there is another node to make it on.
  await bed.upOnPlatform();
});
/** Each part finds both nodes and no restore under way, also after one that failed. */
beforeEach(async () => {
  await addWorker();
  if ((await bed.kubectl(["get", "configmap", "jenkins-restore"], true)).code !== 0) return;
  await bed.cli(["restore"]);
  await bed.cli(["restore", "--confirm"]);
});
afterAll(() => clearUp(bed));

test("the home moves to another node and back; the left volume's files go with its confirmation", async () => {
  const before = await saved("moved");
  for (const node of [WORKER, "control-plane-1"]) {
    const left = await bed.volume();
    const folder = (await bed.json(["get", "pv", left])).spec.local.path as string;
    const at = await nodeOf();
    await bed.cli(["restore", "--snapshot", "now", "--node", node, "--yes"]);
    expect(await nodeOf()).toBe(node);
    await expectBack(bed, before);
    await bed.unchanged();
    await bed.cli(["restore", "--confirm"]);
    await waitFor(`the files of ${left} to go`, 240, async () => (await inNode({ name: at }, ["test", "-e", folder], { allowFailure: true })).code !== 0);
  }
  await bed.build("moved");
  expect((await bed.builds()).moved).toEqual([4, 3, 2, 1]);
});

test("a node that is cut off: Jenkins comes back elsewhere, and the old one ends when the node is heard of again", async () => {
  await bed.moveTo(WORKER);
  const before = await saved("cut off");
  const left = await bed.volume();
  const stale = (await bed.json(["get", "pods", "-l", "app.kubernetes.io/component=controller"])).items[0].metadata.uid as string;
  expect(await keeps(stale)).toBe(true);
  await link("down");
  const cut = Date.now();
  await waitFor("the cluster to notice", 120, async () => !(await isReady()));
  const noticed = Date.now();
  await bed.cli(["restore", "--snapshot", "latest", "--yes"]);
  console.log(`node cut off: noticed after ${((noticed - cut) / 1000).toFixed(0)} s, Jenkins back ${((Date.now() - noticed) / 1000).toFixed(0)} s later`);
  expect(await nodeOf()).toBe("control-plane-1");
  await expectBack(bed, before);
  await bed.build("cut off");
  await link("up");
  await waitFor("the node to be ready again", 180, isReady);
  // The kubelet finds that its pod is no longer wanted.
  await waitFor("the old controller to end", 180, async () => !(await keeps(stale)));
  expect((await bed.builds())["cut off"]).toEqual([4, 3, 2, 1]);
  await bed.unchanged();
  await bed.cli(["restore", "--confirm"]);
  await waitFor("the former volume to go", 240, async () => (await bed.kubectl(["get", "pv", left], true)).code !== 0);
});

test.each(["stopped for good", "stopped and deleted from the cluster"])("a node %s: one command brings Jenkins back on another one from the last backup", async (how) => {
  await bed.moveTo(WORKER);
  expect(await nodeOf()).toBe(WORKER);
  const before = await saved(`lost ${how.length}`);
  const left = await bed.volume();
  await stopNode({ name: WORKER });
  if (how.includes("deleted")) await bed.kubectl(["delete", "node", WORKER]);
  const lost = Date.now();
  await bed.cli(["restore", "--snapshot", "latest", "--yes"]);
  console.log(`node ${how}: Jenkins back after ${((Date.now() - lost) / 1000).toFixed(0)} s`);
  expect(await nodeOf()).toBe("control-plane-1");
  await expectBack(bed, before);
  await bed.unchanged();
  expect((await bed.cli(["restore", "--confirm"])).stderr).toMatch(/is forgotten; its node worker-1 does not answer/);
  await waitFor("the former volume to be forgotten", 60, async () => (await bed.kubectl(["get", "pv", left], true)).code !== 0);
  if (how.includes("deleted")) return;
  // A node that comes back after all starts nothing of what it had.
  await sandbox("start-node", WORKER);
  await waitFor("the node to be ready again", 180, isReady);
  expect(await nodeOf()).toBe("control-plane-1");
  await expectBack(bed, before);
});
