import * as cluster from "../../cli/backup/cluster";
import * as snapshots from "../../cli/backup/snapshots";
import type { KubernetesObject } from "../../cli/backup/objects";
import type { Journal } from "../../cli/failover/plan";
import { asWritten, renew, save, swap, take } from "../../cli/failover/steps";

/** In which order the steps of a failover ask for what; the cluster is a list of objects. */

jest.mock("../../cli/backup/cluster");
jest.mock("../../cli/backup/snapshots");

const objects = new Map<string, KubernetesObject>();
let done: string[];
let log: string;
let dies: string | undefined;
const did = (what: string) => {
  done.push(what);
  if (dies && what.startsWith(dies)) throw new Error("cut off");
};
const claim = (name: string, volumeName?: string) => ({ metadata: { name, namespace: "jenkins", annotations: { "volume.kubernetes.io/selected-node": "n2" } }, spec: { accessModes: ["ReadWriteOnce"], resources: { requests: { storage: "20Gi" } }, volumeName } });
const volume = (name: string, node: string) => ({ metadata: { name }, spec: { capacity: { storage: "20Gi" }, nodeAffinity: { required: { nodeSelectorTerms: [{ matchExpressions: [{ key: "kubernetes.io/hostname", operator: "In", values: [node] }] }] } } } });
const journal = (): Journal => ({ id: "a1b2c3", phase: "fenced", from: { volume: "pvc-1", node: "n1" }, to: { volume: "pvc-2", node: "n2" }, lost: false, turns: 0, home: { written: {} }, standby: { written: {} }, snapshot: "old", taken: "t", replicas: 1, suspended: {}, startedAt: "t" });
const none = () => Promise.resolve(() => false);

beforeEach(() => {
  done = [];
  log = "10:00:00 done";
  dies = undefined;
  objects.clear();
  objects.set("pvc/jenkins-home", claim("jenkins-home", "pvc-1")).set("pvc/jenkins-home-standby", claim("jenkins-home-standby", "pvc-2")).set("pv/pvc-1", volume("pvc-1", "n1")).set("pv/pvc-2", volume("pvc-2", "n2"));
  jest.mocked(cluster.lostNodes).mockImplementation(none);
  jest.mocked(cluster.random).mockReturnValue("ffffff");
  jest.mocked(cluster.get).mockImplementation((kind, name) => Promise.resolve(objects.get(`${kind}/${name}`)));
  jest.mocked(cluster.list).mockResolvedValue([]);
  jest.mocked(cluster.listNodes).mockResolvedValue([]);
  jest.mocked(cluster.theCron).mockResolvedValue({ metadata: { name: "jenkins-backup", uid: "u" }, spec: { jobTemplate: { spec: { template: { spec: { initContainers: [{ name: "restic", volumeMounts: [] }], containers: [], volumes: [] } } } } } });
  jest.mocked(cluster.runJob).mockImplementation((job) => {
    did(job.spec.template.spec.containers[0].command[2].replace("sh /scripts/home.sh ", ""));
    return Promise.resolve({ ok: true, log });
  });
  jest.mocked(cluster.patch).mockImplementation((kind, name, change) => Promise.resolve(void did(`patch ${kind} ${name} ${JSON.stringify(change)}`)).then(() => ""));
  jest.mocked(cluster.remove).mockImplementation((kind, name) => Promise.resolve(objects.delete(`${kind}/${name}`)).then(() => (did(`remove ${kind} ${name}`), "")));
  jest.mocked(cluster.kubectl).mockImplementation((args, input) => {
    if (args[1] === "pods") return Promise.resolve('{"items":[]}');
    did(args.slice(0, 3).join(" "));
    if (args[0] === "apply") {
      const object = JSON.parse(input!) as KubernetesObject;
      objects.set(`${object.kind === "ConfigMap" ? "configmap" : "pvc"}/${object.metadata.name}`, { ...object, status: { phase: "Bound" } });
    }
    return Promise.resolve("");
  });
  jest.mocked(snapshots.runBackup).mockImplementation(() => Promise.resolve({ snapshot: "new", time: "t2" }).then((result) => (did("backup"), result)));
});

test("a home is saved once nobody writes to it, then made a standby, and an older snapshot will not do", async () => {
  const now = journal();
  await save(now, () => Promise.resolve(), none);
  await take(now);
  expect(done).toEqual(["standby-wait /target", "backup", "standby-give /target new t2", "standby-take /target new a1b2c3 exact"]);
  expect(now.kept).toBe(false);
});

test("one that has what backups leave out is noted as kept", async () => {
  log = "10:00:00 warning: this home is kept as it is, for it has what backups leave out: .replaced";
  const now = journal();
  await save(now, () => Promise.resolve(), none);
  expect(now.kept).toBe(true);
});

const silent: [string, boolean | undefined, string][] = [
  ["answers nothing is left at once", false, "left"],
  ["answers is left once the cluster has noticed", true, "waited for"],
  ["cannot be asked is left once the cluster has noticed", undefined, "waited for"],
];
test.each(silent)("a silent node that %s", async (_, answer, expected) => {
  const now = journal();
  let looks = 0;
  jest.mocked(cluster.lostNodes).mockImplementation(() => Promise.resolve(() => ++looks > 5));
  jest.mocked(cluster.answers).mockResolvedValue(answer);
  await save(now, () => Promise.resolve(), () => Promise.resolve(() => true));
  expect([now.lost, done]).toEqual([true, []]);
  expect(looks > 5 ? "waited for" : "left").toBe(expected);
});

test("the two claims change volumes, and all that Pulumi wrote of them is Pulumi's again, the standby's node included", async () => {
  const [home, standby] = ["jenkins-home", "jenkins-home-standby"].map((name) => asWritten({ ...objects.get(`pvc/${name}`), metadata: { ...objects.get(`pvc/${name}`)!.metadata, managedFields: [{ manager: "pulumi-1" }] } }));
  await swap({ ...journal(), home, standby });
  const applied = jest.mocked(cluster.kubectl).mock.calls.filter(([[verb]]) => verb === "apply").map(([args, input]) => [args[args.indexOf("--field-manager") + 1], JSON.parse(input!) as KubernetesObject] as const);
  for (const [name, other] of [["jenkins-home", "pvc-2"], ["jenkins-home-standby", "pvc-1"]]) expect(applied.filter(([, { metadata }]) => metadata.name === name).map(([manager, { spec }]) => [manager, spec.volumeName])).toEqual([["jenkins-restore", other], ["pulumi-1", undefined], ["jenkins-restore", other]]);
  // Neither is made before both are gone, and before nobody deletes a volume with its claim.
  expect(done.slice(0, 4).sort()).toEqual([expect.stringMatching(/^patch pv pvc-1 .*Retain/), expect.stringMatching(/^patch pv pvc-2 .*Retain/), "remove pvc jenkins-home", "remove pvc jenkins-home-standby"]);
  const of = (name: string) => applied.filter(([manager, { metadata }]) => manager === "pulumi-1" && metadata.name === name).map(([, object]) => object);
  expect(of("jenkins-home-standby")).toEqual([standby.written]);
  expect(of("jenkins-home")).toEqual([home.written]);
  expect(standby.written.metadata.annotations).toEqual({ "volume.kubernetes.io/selected-node": "n2" });
});

test("a renewal writes the status before the volume is a standby again, and not where it is one", async () => {
  objects.set("configmap/jenkins-backup-status", { data: { "last-standby": '{"status":"former"}' } });
  await renew(false);
  expect(done).toEqual([expect.stringMatching(/^patch configmap jenkins-backup-status .*"last-good-standby":null/), "standby-renew /target"]);
  done = [];
  objects.set("configmap/jenkins-backup-status", { data: { "last-standby": '{"status":"ok"}' } });
  await renew(false);
  expect(done).toEqual(["standby-renew /target"]);
});

test("a renewal that was cut off without a claim goes on", async () => {
  dies = "patch configmap";
  await expect(renew(true)).rejects.toThrow("cut off");
  expect(objects.has("pvc/jenkins-home-standby")).toBe(false);
  dies = undefined;
  await renew(false);
  expect(objects.get("pvc/jenkins-home-standby")).toMatchObject({ metadata: { annotations: { "volume.kubernetes.io/selected-node": "n2" } }, spec: { resources: { requests: { storage: "20Gi" } } } });
  expect(objects.has("configmap/jenkins-failover-renew")).toBe(false);
});
