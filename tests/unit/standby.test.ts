import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import * as fc from "fast-check";
import { continued, type Facts, freshStandby, type Journal, leavesHome, misfit, obstacle, PHASES, review, standing, turned } from "../../cli/failover/plan";
import { asWritten, watchNodes } from "../../cli/failover/steps";
import { homeFence, JenkinsBackup, type JenkinsBackupArgs, scripts, selectedNode, standbyPod } from "../../components/jenkins-backup";
import { all, settled, the, useMocks } from "./mocks";

// Waits for processes on whatever machine this is.
jest.setTimeout(120_000);

const controllerPod = { tolerations: [{ key: "ci", operator: "Exists" }], containers: [{ name: "first", image: "f" }, { name: "jenkins", image: "registry.test/controller@sha256:1" }], volumes: [] };
const args: JenkinsBackupArgs = {
  namespace: "jenkins", homeClaim: "jenkins-home", image: "registry.test/restic:1", controllerPod, repository: "s3:https://s3.test/home", password: "home password", keysRepository: "s3:https://s3.test/keys", keysPassword: "keys password",
  keep: { last: 3, daily: 7, weekly: 4, monthly: 6 },
};
const standby = { node: "worker-2", storageClassName: "openebs-hostpath", size: "20Gi" };

describe("the stack", () => {
  beforeEach(() => useMocks());
  const names = () => all("PersistentVolumeClaim").concat(all("Deployment")).map(({ inputs }) => inputs.metadata.name);

  test("makes nothing of a standby where none was asked for", async () => {
    new JenkinsBackup("backup", args);
    await settled();
    expect(names()).toEqual([]);
  });

  test("makes a second volume on the node that was named, and a pod beside it that follows; nothing waits for that node", async () => {
    new JenkinsBackup("backup", { ...args, standby });
    await settled();
    const claim = the("PersistentVolumeClaim", "jenkins-home-standby").inputs;
    expect(claim).toMatchObject({ metadata: { annotations: { [selectedNode]: "worker-2", "pulumi.com/skipAwait": "true" } }, spec: { accessModes: ["ReadWriteOnce"], storageClassName: "openebs-hostpath", resources: { requests: { storage: "20Gi" } } } });
    const deployment = the("Deployment", "jenkins-standby").inputs;
    expect(deployment).toMatchObject({ metadata: { annotations: { "pulumi.com/skipAwait": "true" } }, spec: { replicas: 1, strategy: { type: "Recreate" } } });
    const pod = deployment.spec.template.spec;
    expect(pod).toMatchObject({ restartPolicy: "Always", tolerations: controllerPod.tolerations });
    expect(pod.volumes.flatMap((volume: { persistentVolumeClaim?: object }) => volume.persistentVolumeClaim ?? [])).toEqual([{ claimName: "jenkins-home-standby" }]);
    const [restic, report] = pod.containers;
    expect(restic.volumeMounts).toContainEqual({ name: "standby", mountPath: "/standby" });
    expect(restic.command[2]).toContain("home.sh standby /standby");
    // The one with the token does not see the home's copy, and is the controller's image for its curl.
    expect(report).toMatchObject({ name: "report", image: "registry.test/controller@sha256:1" });
    expect(report.volumeMounts.map(({ name }: { name: string }) => name)).not.toContain("standby");
    // Neither is found by what finds the controller.
    expect(deployment.spec.template.metadata.labels).toMatchObject({ "app.kubernetes.io/component": "standby", "app.kubernetes.io/name": "jenkins-backup" });
    expect(scripts([])["standby.sh"]).toContain("standby_take");
  });

  test("takes a result for told once it was published, and tells it again else", () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "told-"));
    const report = (standbyPod(args, { image: "i" }).containers as { command: string[] }[])[1].command[2];
    const once = /while :; do\n([\s\S]*)\nsleep 5/.exec(report)![1].replace(/\/(scratch|tmp|scripts)\//g, `${folder}/`);
    fs.writeFileSync(path.join(folder, "result.json"), "{}");
    const told = (code: number) => {
      fs.writeFileSync(path.join(folder, "report.sh"), `echo told\nexit ${code}\n`);
      return spawnSync("sh", ["-c", once], { encoding: "utf8" }).stdout;
    };
    expect([told(1), told(0), told(0)]).toEqual(["told\n", "told\n", ""]);
    fs.rmSync(folder, { recursive: true });
  });

  test("holds the standby's pod to Pod Security level restricted", () => {
    for (const container of [...(standbyPod(args, { image: "i" }).containers as object[]), homeFence("i")]) expect(container).toMatchObject({ securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } } });
  });
});

describe("the fence beside Jenkins", () => {
  let home: string;
  beforeEach(() => (home = fs.mkdtempSync(path.join(os.tmpdir(), "fence-"))));
  const started: ChildProcess[] = [];
  afterEach(() => {
    // Each its own group, with what it started.
    for (const { pid } of started.splice(0)) {
      try {
        process.kill(-pid!, "SIGKILL");
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
      }
    }
    fs.rmSync(home, { recursive: true });
  });
  const script = () => (homeFence("i").command as string[])[2].replaceAll("/var/jenkins_home", home).replaceAll("/tmp/.home-fence", `${home}/started`);
  const until = async (true_: () => boolean) => {
    while (!true_()) await new Promise((resolve) => setTimeout(resolve, 20));
  };
  const free = () => spawnSync("flock", ["-n", path.join(home, ".home-fence"), "true"]).status === 0;
  const start = () => {
    const child = spawn("/bin/bash", ["-c", script()], { stdio: ["ignore", "pipe", "pipe"], detached: true });
    expect(child.pid).toBeGreaterThan(1);
    started.push(child);
    return child;
  };

  test("is a container that starts before and ends after Jenkins", () => expect(homeFence("i")).toMatchObject({ restartPolicy: "Always", startupProbe: { exec: { command: ["test", "-e", "/tmp/.home-fence"] } } }));

  test("lets a second controller wait until the first has ended, and gives the lock back when it is told to end", async () => {
    const first = start();
    await until(() => fs.existsSync(`${home}/started`));
    expect(free()).toBe(false);
    fs.rmSync(`${home}/started`);
    const second = start();
    let said = "";
    second.stdout.on("data", (chunk: Buffer) => (said += chunk.toString()));
    await until(() => said.includes("still written to"));
    expect(fs.existsSync(`${home}/started`)).toBe(false);
    first.kill("SIGKILL");
    await until(() => fs.existsSync(`${home}/started`));
    const ended = new Promise((resolve) => second.on("exit", resolve));
    second.kill("SIGTERM");
    expect(await ended).toBe(0);
    await until(free);
  });

  test("does not start Jenkins on a standby", () => {
    fs.writeFileSync(path.join(home, ".standby"), "whole 0a1b2c3d 2026-01-01T00:00:00Z never\n");
    const { status, stderr } = spawnSync("/bin/bash", ["-c", script()], { encoding: "utf8" });
    expect([status, stderr]).toEqual([1, expect.stringMatching(/is a standby, not the home/)]);
    expect(fs.existsSync(`${home}/started`)).toBe(false);
  });
});

const journal: Journal = {
  id: "a1b2c3", phase: "planned", from: { volume: "pvc-1", node: "n1" }, to: { volume: "pvc-2", node: "n2" }, lost: false, turns: 0, home: { written: {} }, standby: { written: {} }, snapshot: "0a1b2c3d", taken: "2026-01-01T00:00:00Z",
  replicas: 1, suspended: {}, startedAt: "2026-01-01T00:05:00Z",
};
const lostAre = (...nodes: string[]) => (node: string) => nodes.includes(node);

describe("a failover", () => {
  const ok = { status: "ok" as const, time: "2026-01-01T00:00:00Z", snapshot: "0a1b2c3d" };
  const facts: Facts = { home: { place: { volume: "pvc-1", node: "n1" }, request: "20Gi" }, standby: { place: { volume: "pvc-2", node: "n2" }, capacity: "20Gi" }, last: ok, good: ok, lost: () => false };

  test("is possible from a node that is there, and from one that is not", () => {
    expect(obstacle(facts)).toBeUndefined();
    expect(obstacle({ ...facts, lost: lostAre("n1"), to: "n2" })).toBeUndefined();
  });

  test.each<[string, Partial<Facts>, RegExp]>([
    ["without a standby", { standby: undefined }, /set backup\.standby .*--snapshot latest/],
    ["without a volume of it", { standby: {} }, /never made/],
    ["on the same node", { standby: { place: { volume: "pvc-2", node: "n1" } } }, /both|same node n1/],
    ["to a node that is not the standby's", { to: "n3" }, /is on node n2, not on n3/],
    ["to a node that does not answer", { lost: lostAre("n2") }, /n2, which has the standby, does not answer; Jenkins is on n1/],
    ["where neither answers", { lost: lostAre("n1", "n2") }, /neither does n1.*npm run restore -- --snapshot latest/],
    ["onto the former home", { last: { status: "former", time: "" } }, /former home, which is kept.*--renew/],
    ["onto one that was never filled", { good: undefined, last: { status: "failed", time: "", message: "wrong password" } }, /never brought up to date: wrong password/],
    ["from a volume that several nodes can mount", { home: { place: { volume: "pvc-1", node: "" }, request: "20Gi" } }, /pvc-1 can be mounted on several nodes/],
    ["onto a node that Jenkins is not put on", { misfit: "it lacks label disk=ssd" }, /not be started on node n2.*lacks label disk=ssd/],
    ["onto a smaller volume", { standby: { place: { volume: "pvc-2", node: "n2" }, capacity: "10Gi" } }, /has 10Gi, the home asks for 20Gi/],
  ])("%s is not begun", (_, over, why) => expect(obstacle({ ...facts, ...over })).toMatch(why));

  test("goes on as it was planned while its node is there, and turns around where only the other one is", () => {
    expect(continued(journal, lostAre())).toBe(journal);
    expect(continued(journal, lostAre("n1"))).toBe(journal);
    expect(continued({ ...journal, phase: "swapped" }, lostAre("n2"))).toMatchObject({ from: { node: "n2" }, to: { node: "n1" }, phase: "planned", lost: true, turns: 1 });
    expect(continued(journal, lostAre(), "n1")).toEqual(turned(journal));
    expect(() => continued(journal, lostAre("n1", "n2"))).toThrow(/n2 does not answer, and neither does n1/);
    expect(() => continued(journal, lostAre("n1"), "n1")).toThrow(/n1 does not answer/);
    expect(() => continued(journal, lostAre(), "n3")).toThrow(/from n1 to n2/);
  });

  test("always goes to one of the two nodes, one that answers, however often it is turned", () => {
    const node = fc.constantFrom("n1", "n2");
    fc.assert(fc.property(fc.constantFrom(...PHASES), fc.array(fc.record({ lost: fc.uniqueArray(node), to: fc.option(node, { nil: undefined }) })), (phase, events) => {
      let now: Journal = { ...journal, phase };
      for (const { lost, to } of events) {
        try {
          now = continued(now, lostAre(...lost), to);
        } catch {
          continue;
        }
        expect(lost).not.toContain(now.to.node);
        expect([now.from.volume, now.to.volume].sort()).toEqual(["pvc-1", "pvc-2"]);
        // The way back of a planned one never saves again what may be older.
        expect(now.turns === 0 || now.lost).toBe(true);
      }
    }));
  });

  test("is told to people before and in the middle", () => {
    expect(review({ ...journal, lost: true }, new Date("2026-01-01T00:05:00Z"))).toMatch(/n1 does not answer[\s\S]*n2, as snapshot 0a1b2c3d of 2026-01-01T00:00:00Z \(5 min ago\)[\s\S]*stays as it is/);
    expect(review(journal, new Date())).toMatch(/n1 answers: Jenkins is stopped there, saved, and started on the standby on node n2 with all that backups save.\nNot with it: workspaces[\s\S]*\.replaced/);
    expect(review({ ...journal, lost: true }, new Date())).not.toMatch(/restore/);
    expect(review({ ...journal, lost: true, since: "2026-01-01T00:03:00Z" }, new Date())).toMatch(/got its volume at 2026-01-01T00:03:00Z, after that snapshot/);
    expect(standing({ ...journal, phase: "swapped" })).toMatch(/last step done: swapped[\s\S]*--to n1/);
  });
});

test("a claim keeps Pulumi's words, and the standby's its choice of a node", () => {
  const live = (name: string) => ({
    metadata: { name, namespace: "jenkins", labels: { a: "b" }, annotations: { [selectedNode]: "n2", "pulumi.com/skipAwait": "true", "pv.kubernetes.io/bind-completed": "yes" }, managedFields: [{ manager: "pulumi-kubernetes-1" }] },
    spec: { accessModes: ["ReadWriteOnce"], resources: { requests: { storage: "20Gi" } }, storageClassName: "c", volumeName: "pvc-2", volumeMode: "Filesystem" },
  });
  expect(asWritten(live("jenkins-home-standby"))).toMatchObject({ manager: "pulumi-kubernetes-1", written: { metadata: { annotations: { [selectedNode]: "n2", "pulumi.com/skipAwait": "true" } } } });
  expect(asWritten(live("jenkins-home")).written.metadata.annotations).toEqual({ "pulumi.com/skipAwait": "true" });
  expect(asWritten(live("jenkins-home-standby")).written.spec).not.toHaveProperty("volumeName");
  expect(freshStandby(asWritten(live("jenkins-home-standby")).written, "n3", "50Gi", selectedNode)).toMatchObject({ metadata: { annotations: { [selectedNode]: "n3" } }, spec: { resources: { requests: { storage: "50Gi" } } } });
});

test("a node whose kubelet is silent while another one speaks three times is lost, and none is while nobody speaks", async () => {
  const leases = { n1: 0, n2: 0 };
  const watch = watchNodes(async () => ({ noticed: (node) => node === "n3", leases: Object.entries(leases).map(([name, renewed]) => ({ metadata: { name }, spec: { renewTime: String(renewed) } })) }));
  const lost = async () => {
    const is = await watch();
    return ["n1", "n2", "n3"].filter(is);
  };
  // The API server was away for however long: nobody was heard.
  for (let i = 0; i < 50; i++) expect(await lost()).toEqual(["n3"]);
  for (const expected of [[], [], ["n1"]]) {
    leases.n2++;
    expect(await lost()).toEqual([...expected, "n3"]);
    expect(await lost()).toEqual([...expected, "n3"]);
  }
  leases.n1++;
  expect(await lost()).toEqual(["n3"]);
  leases.n2++;
  expect(await lost()).toEqual(["n3"]);
});

test("the volume that is left is a former home where its node was lost, on the way back, and where it has what no backup has", () => {
  expect([journal, { ...journal, lost: true }, turned(journal), { ...journal, kept: true }].map(leavesHome)).toEqual([false, true, true, true]);
});

test("a node that the controller's pod does not fit is told by its labels", () => {
  const node = { metadata: { labels: { disk: "ssd", "kubernetes.io/arch": "arm64" } } };
  const on = (...values: string[]) => ({ affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [{ matchExpressions: [{ key: "kubernetes.io/arch", operator: "In", values }] }] } } } });
  expect([misfit({}, node), misfit({ nodeSelector: { disk: "ssd" }, ...on("amd64", "arm64") }, node)]).toEqual([undefined, undefined]);
  expect(misfit({ nodeSelector: { disk: "hdd" } }, node)).toMatch(/lacks label disk=hdd/);
  expect(misfit(on("amd64"), node)).toMatch(/kubernetes.io\/arch amd64/);
});
