import { initOf, inNode, stopNode } from "../../sandbox/cluster/nodes";
import { waitFor } from "../../sandbox/shell";
import { Bed } from "../backup-bed/bed";
import { RestServer } from "../backup-bed/servers";
import { addWorker, clearUp, expectBack, isReady, link, record, sandbox, WORKER } from "../backup-bed/worker";
import { volumesLookedAt } from "../e2e/sandbox";

/** The standby of the home: followed, failed over to when a node loses its power or its network, and failed back from, byte for byte; and the command killed at each of its steps. */

jest.setTimeout(7_200_000);
/** How often each step of the command is killed. */
const TIMES = Number(process.env.STANDBY_TIMES ?? 10);
/** Size of the home that loses its node. */
const MIB = Number(process.env.STANDBY_MIB ?? 1024);
const FIRST = "control-plane-1";
const bed = new Bed("backup-standby", new RestServer(8005));

interface PodItem { metadata: { name: string }; spec: { nodeName: string } }
const controllers = async (): Promise<PodItem[]> => (await bed.json(["get", "pods", "-l", "app.kubernetes.io/component=controller"])).items;
const nodeOf = async () => (await controllers())[0].spec.nodeName;
/** Ids of the containers of Jenkins that run on the worker, whatever the cluster knows of them. */
async function onWorker(): Promise<string> {
  const script = `ids=$(ctr -n k8s.io containers ls -q 'labels."io.kubernetes.pod.namespace"==${bed.namespace},labels."io.kubernetes.container.name"==jenkins'); ctr -n k8s.io tasks ls | grep RUNNING | grep -F "\${ids:-none}" || true`;
  return (await inNode({ name: WORKER }, ["sh", "-c", script])).stdout.trim();
}
const volumeOf = async (claim: string): Promise<string> => (await bed.json(["get", "pvc", claim])).spec.volumeName;
const standbyVolume = () => volumeOf("jenkins-home-standby");

interface Told { status: string; snapshot?: string; message?: string; bytes?: number }
async function told(): Promise<{ last?: Told; backup: Told }> {
  const { data = {} } = await bed.json(["get", "configmap", "jenkins-backup-status"]);
  const read = (key: string) => (data[key] ? JSON.parse(data[key]) : undefined) as Told | undefined;
  return { last: read("last-standby"), backup: read("last-good-backup")! };
}

/** Waits until the standby is as the last backup. */
async function caughtUp(): Promise<void> {
  await waitFor("the standby to follow", 360, async () => {
    await volumesLookedAt(bed.namespace, "app.kubernetes.io/component=standby", { allowFailure: true });
    const { last, backup } = await told();
    if (last?.status === "ok" && last.snapshot === backup.snapshot) return true;
    // Whoever asks all the time takes the processor from those that are asked about.
    await new Promise((resolve) => setTimeout(resolve, 2000));
    return false;
  });
}

/** Fails over, and says how long that took from `began` on, and what of it each step. */
async function timed(what: string, began: number): Promise<void> {
  const { stderr } = await bed.failover(["--yes"]);
  const steps = [...stderr.matchAll(/^ ✓ (.*) \(([\d.]+) s\)$/gm)].map(([, title, seconds]) => `${title.split(" ").slice(0, 3).join(" ")} ${seconds}`);
  console.log(`${what}: ${((Date.now() - began) / 1000).toFixed(0)} s (${steps.join(", ")})`);
}

beforeAll(async () => {
  await addWorker();
  await bed.upOnPlatform();
  await bed.job("built", 5000);
  await bed.build("built", 3);
  if ((await nodeOf()) !== WORKER) {
    await bed.cli(["backup"]);
    await bed.moveTo(WORKER);
  }
  // The key comes to a stack that is there.
  const home = await bed.volume();
  await bed.pulumi(["config", "set", "standby", FIRST]);
  await bed.pulumi(["up", "--yes", "--skip-preview"]);
  await bed.answers();
  expect(await bed.volume()).toBe(home);
});
/** Each part finds both nodes there and a standby that follows, also after one that failed. */
beforeEach(async () => {
  await link("up");
  if (initOf({ name: WORKER }) === undefined) await sandbox("start-node", WORKER);
  await waitFor("the node to be ready", 180, isReady);
  if ((await bed.kubectl(["get", "configmap", "jenkins-failover"], true)).code === 0) await bed.failover(["--yes"]);
  const { last } = await told();
  if (last === undefined || last.status === "ok") return;
  if (last.status === "former") await bed.failover(["--renew", "--yes"]);
  await bed.cli(["backup"]);
  await caughtUp();
});
afterAll(() => clearUp(bed));

test("the standby follows a backup onto the other node, to the byte, and Pulumi sees no change", async () => {
  await bed.cli(["backup"]);
  await caughtUp();
  const [home, standby] = [await bed.hashes(await bed.volume()), await bed.hashes(await standbyVolume())];
  expect(standby).toEqual(home);
  await bed.build("built");
  await bed.cli(["backup"]);
  await caughtUp();
  expect(await bed.hashes(await standbyVolume())).toEqual(await bed.hashes(await bed.volume()));
  await bed.unchanged();
});

test("a node that lost its power: Jenkins comes back with every build of the last snapshot; back again, nothing of the former home starts or changes; failing back is the same command", async () => {
  await bed.build("built", 2);
  // Not below jobs, whose every file is compared afterwards.
  const large = "/var/jenkins_home/userContent/large";
  await bed.inController(`mkdir -p /var/jenkins_home/userContent && head -c ${MIB}M /dev/urandom >${large}`);
  await bed.cli(["backup"]);
  await caughtUp();
  const before = await record(bed);
  const left = await bed.volume();
  // What was not saved is lost, and is on the former volume.
  await bed.build("built");
  const former = await bed.hashes(left);
  const cut = Date.now();
  await stopNode({ name: WORKER });
  await timed(`failover at the moment of a power cut, of a home of ${MIB} MiB`, cut);
  expect(await nodeOf()).toBe(FIRST);
  expect((await bed.inController(`wc -c <${large}`)).stdout.trim()).toBe(String(MIB * 2 ** 20));
  await expectBack(bed, before);
  await bed.unchanged();
  expect((await bed.json(["get", "pv", left])).spec.persistentVolumeReclaimPolicy).toBe("Retain");
  // Nobody goes back to a node that does not answer; the failover need not have waited until the cluster noticed.
  await waitFor("the cluster to notice", 120, async () => !(await isReady()));
  expect(await bed.failover(["--yes"], true)).toMatchObject({ code: 2, stderr: expect.stringMatching(/node worker-1, which has the standby, does not answer; Jenkins is on control-plane-1/) });
  await bed.inController(`rm ${large}`);
  await bed.build("built");
  const newest = await record(bed);

  await sandbox("start-node", WORKER);
  await waitFor("the node to be ready again", 180, isReady);
  // In the pod's own words: the command has said the same of it before.
  await waitFor("the standby's pod to look at what is there", 240, async () => /volume of the standby holds the former home, which is kept as it was/.test((await told()).last?.message ?? ""));
  expect(await onWorker()).toBe("");
  expect(await bed.hashes(left)).toEqual(former);
  expect(await bed.failover(["--yes"], true)).toMatchObject({ code: 2, stderr: expect.stringMatching(/holds the former home, which is kept as it was/) });
  expect(await standbyVolume()).toBe(left);

  await bed.failover(["--renew", "--yes"]);
  await bed.cli(["backup"]);
  await caughtUp();
  expect(await bed.hashes(left)).toEqual(newest.files);
  await timed("failing back, both nodes there", Date.now());
  expect(await nodeOf()).toBe(WORKER);
  await expectBack(bed, newest);
  await bed.unchanged();
  await caughtUp();
  // Where it is already, nothing happens.
  expect((await bed.failover(["--to", WORKER, "--yes"])).stderr).toMatch(/is on worker-1 already/);
});

test("a node that is cut off: its Jenkins goes on alone on its own volume, and ends before anybody else writes there", async () => {
  await bed.failover(["--to", WORKER, "--yes"]);
  await bed.build("built");
  await bed.cli(["backup"]);
  await caughtUp();
  const before = await record(bed);
  const left = await bed.volume();
  await link("down");
  await timed("failover from a node that is cut off", Date.now());
  expect(await nodeOf()).toBe(FIRST);
  await expectBack(bed, before);
  // Both are alive, each on its own volume.
  expect(await onWorker()).not.toBe("");
  await bed.build("built");
  const newest = await record(bed);
  await link("up");
  await waitFor("the node to be ready again", 180, isReady);
  // At once: it waits for the lock that the old controller holds until it has ended.
  await bed.failover(["--renew", "--yes"]);
  await waitFor("the old controller to end", 180, async () => (await onWorker()) === "");
  await bed.cli(["backup"]);
  await caughtUp();
  expect(await bed.hashes(left)).toEqual(newest.files);
  await bed.failover(["--yes"]);
  await expectBack(bed, newest);
});

test("the node that a failover goes to loses its power on the way: it turns around, and nothing is lost", async () => {
  await bed.failover(["--to", FIRST, "--yes"]);
  await caughtUp();
  await bed.build("built");
  const before = await record(bed);
  await bed.startCli(["--yes"], (line, child) => {
    if (/✓ save the home/.test(line)) child.kill("SIGKILL");
  }, "failover");
  await stopNode({ name: WORKER });
  // Before that the command goes on towards it, and fails once the cluster has noticed.
  await waitFor("the cluster to notice", 120, async () => !(await isReady()));
  const { stderr } = await bed.failover(["--yes"]);
  expect(stderr).toMatch(/it turns around, to control-plane-1/);
  expect(await nodeOf()).toBe(FIRST);
  await expectBack(bed, before);
  await bed.unchanged();
  await sandbox("start-node", WORKER);
  await waitFor("the node to be ready again", 180, isReady);
  await bed.failover(["--renew", "--yes"]);
  await bed.cli(["backup"]);
  await caughtUp();
});

const kills = ["• end Jenkins", "✓ end Jenkins", "• save the home", "✓ save the home", "• give volume", "✓ give volume", "• make the standby", "✓ make the standby", "• start Jenkins", "✓ start Jenkins", "• ask Jenkins"];
test.each(kills.flatMap((words) => Array.from({ length: TIMES }, (_, i) => [words, i] as const)))("killed at \"%s\" (%i), the command goes on, with every build and one controller", async (words, i) => {
  const goal = (await nodeOf()) === WORKER ? FIRST : WORKER;
  await bed.build("built");
  const before = await record(bed);
  let seen = false;
  await bed.startCli(["--to", goal, "--yes"], (line, child) => {
    if (!line.includes(words) || seen) return;
    seen = true;
    setTimeout(() => child.kill("SIGKILL"), (i * 1500) / TIMES);
  }, "failover");
  expect(seen).toBe(true);
  expect((await controllers()).length).toBeLessThan(2);
  // Nobody else holds it: the killed one need not be waited for. It may have come to its end.
  await bed.kubectl(["annotate", "configmap", "jenkins-failover", "build-platform/holder-"], true);
  await bed.failover(["--to", goal, "--yes"]);
  expect((await controllers()).map(({ spec }) => spec.nodeName)).toEqual([goal]);
  await expectBack(bed, before);
  await bed.unchanged();
  await caughtUp();
});
