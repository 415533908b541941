import * as fc from "fast-check";
import { parseArguments } from "../../cli/backup/arguments";
import { boundClaim, claimAsWritten, emptyClaim, freshClaim, jobFromCron, type KubernetesObject, mounts, pulumiManager, quote, resticJob } from "../../cli/backup/objects";
import { age, ahead, type Journal, parseSnapshots, PHASES, pickSnapshot, review, standing } from "../../cli/backup/plan";
import { lastUpkeep } from "../../cli/backup/snapshots";
import { UsageError } from "../../cli/terminal";
import { spawnSync } from "node:child_process";

test.each([
  [{ upkeep: "2026-01-01T02:00:00Z", checked: "1/2" }, "last upkeep of the repository: 2026-01-01T02:00:00Z, 3 days ago; part 1/2 of it read back"],
  // A result of a script from before.
  [{ checked: "5/14" }, "no upkeep of the repository yet; npm run backup -- --upkeep makes one"],
])("of %j is said when the repository was last checked", (result, line) => expect(lastUpkeep(result, new Date("2026-01-04T03:00:00Z"))).toBe(line));

describe("command line", () => {
  const parse = (...words: string[]) => parseArguments(words, ["prod", "dev"]);
  test("the plain commands", () => {
    expect(parse("backup")).toMatchObject({ command: "backup", namespace: "jenkins", upkeep: false });
    expect(parse("backup", "--upkeep")).toMatchObject({ command: "backup", upkeep: true });
    expect(parse("list")).toMatchObject({ command: "list" });
    expect(parse("list", "diff", "0a1b2c", "3d4e5f")).toMatchObject({ command: "diff", snapshot: "0a1b2c", other: "3d4e5f" });
    expect(parse("restore", "--snapshot", "latest", "--job", "a/b", "--yes")).toMatchObject({ command: "restore", snapshot: "latest", job: "a/b", yes: true });
    expect(parse("restore", "--confirm").command).toBe("confirm");
  });
  test("--to takes a context where there is one of that name, else a namespace", () => {
    expect(parse("restore", "--snapshot", "latest", "--to", "prod")).toMatchObject({ context: "prod", namespace: "jenkins" });
    expect(parse("restore", "--snapshot", "latest", "--to", "other")).toMatchObject({ namespace: "other" });
  });
  test("a stack says where it is, alone", () => {
    expect(parse("backup", "--stack", "prod")).toMatchObject({ stack: "prod" });
    for (const further of [["--namespace", "other"], ["--context", "dev"], ["--to", "dev"]]) expect(() => parse("backup", "--stack", "prod", ...further)).toThrow(/--stack says where/);
  });
  test("where nothing is said, the selected stack says where it is, and not the context that kubectl has selected", () => {
    expect(parse("backup", "--stack", "prod").ofStack).toBe(true);
    expect(parse("restore", "--snapshot", "latest")).toMatchObject({ ofStack: true });
    for (const place of ["--to", "--context", "--namespace"]) expect(parse("restore", "--snapshot", "latest", place, "dev")).toMatchObject({ ofStack: false });
  });
  test.each([
    ["restore", "latest"],
    ["restore", "--snapshot"],
    ["restore", "--snapshot", "yesterday"],
    ["restore", "--snapshot", "latest; rm -rf /"],
    ["restore", "--snapshot", "latest", "--folder", "/x"],
    ["restore", "--job", "a"],
    ["restore", "--snapshot", "latest", "--job", "../a/"],
    ["restore", "--snapshot", "now", "--job", "a"],
    ["restore", "--snapshot", "latest", "--job", "a/.."],
    ["restore", "--snapshot", "latest", "--job", "a", "--node", "n"],
    ["restore", "--confirm", "--rollback"],
    ["restore", "--confirm", "--snapshot", "latest"],
    ["list", "diff", "0a1b2c"],
    ["list", "everything"],
    ["backup", "--frobnicate"],
    ["destroy"],
  ])("%s %s %s is refused", (...words) => {
    expect(() => parse(...words.filter((w) => w !== undefined))).toThrow(UsageError);
  });
});

test("quoted words reach a shell as they are", () => {
  fc.assert(
    fc.property(fc.string().filter((s) => !s.includes("\0")), (word) => {
      expect(spawnSync("sh", ["-c", `printf %s ${quote(word)}`]).stdout.toString()).toBe(word);
    }),
    { numRuns: 50 },
  );
});

describe("snapshots", () => {
  const line = (...snapshots: object[]) => `log line\n${JSON.stringify(snapshots)}\n`;
  const a = { time: "2026-01-01T00:00:00.5Z", short_id: "aaaaaaaa", tags: ["home", "items=3", "builds=12"] };
  const b = { time: "2026-01-02T00:00:00Z", short_id: "bbbbbbbb", tags: ["suspect", "items=0", "builds=0"] };

  test("are read with their counts, the newest last", () => {
    expect(parseSnapshots(line(b, a))).toMatchObject([{ id: "aaaaaaaa", items: 3, builds: 12, suspect: false }, { id: "bbbbbbbb", suspect: true }]);
    expect(parseSnapshots("null\n")).toEqual([]);
    expect(() => parseSnapshots("Fatal: no")).toThrow(/Fatal: no/);
  });
  test("latest is the newest good one; a suspect one has to be named", () => {
    const found = parseSnapshots(line(a, b));
    expect(pickSnapshot(found, "latest").id).toBe("aaaaaaaa");
    expect(pickSnapshot(found, "bbbbbb").id).toBe("bbbbbbbb");
    expect(() => pickSnapshot(found, "cccccc")).toThrow(/aaaaaaaa, bbbbbbbb/);
    expect(() => pickSnapshot([], "latest")).toThrow(UsageError);
  });
  test("latest is none of a clock that was ahead, unless there is no other", () => {
    const found = parseSnapshots(line(a, { ...a, short_id: "ffffffff", time: "2031-01-01T00:00:00Z" }));
    expect(pickSnapshot(found, "latest", new Date("2026-01-03T00:00:00Z")).id).toBe("aaaaaaaa");
    expect(pickSnapshot(found.slice(1), "latest", new Date("2026-01-03T00:00:00Z")).id).toBe("ffffffff");
  });
  test("their age is told in a unit that fits, and a wrong clock is noticed", () => {
    const now = new Date("2026-01-10T00:00:00Z");
    expect(age(new Date("2026-01-09T23:30:00Z"), now)).toBe("30 min ago");
    expect(age(new Date("2026-01-09T12:00:00Z"), now)).toBe("12 h ago");
    expect(age(new Date("2026-01-01T00:00:00Z"), now)).toBe("9 days ago");
    expect(age(new Date("2026-01-11T00:00:00Z"), now)).toMatch(/clock/);
  });
});

const cron: KubernetesObject = {
  metadata: { name: "jenkins-backup", namespace: "jenkins", uid: "cron-uid" },
  spec: {
    jobTemplate: {
      metadata: { labels: { "app.kubernetes.io/name": "jenkins-backup", "app.kubernetes.io/component": "saver" } },
      spec: {
        backoffLimit: 2,
        template: {
          metadata: { labels: { "app.kubernetes.io/component": "saver" } },
          spec: {
            affinity: { podAntiAffinity: {} },
            initContainers: [{ name: "restic", env: [{ name: "ACCEPT_SHRINK", value: "0" }], volumeMounts: [{ name: "home", mountPath: "/h" }, { name: "secrets", mountPath: "/s" }] }],
            containers: [{ name: "report" }],
            volumes: [{ name: "home" }, { name: "secrets" }, { name: "token" }],
          },
        },
      },
    },
  },
};

describe("jobs", () => {
  test("a job by hand is the CronJob's, not repeated, with what was asked for", () => {
    const job = jobFromCron(cron, "by-hand", { ACCEPT_SHRINK: "1" });
    expect(job).toMatchObject({ kind: "Job", metadata: { name: "by-hand", namespace: "jenkins" }, spec: { backoffLimit: 0 } });
    expect(job.metadata.ownerReferences).toEqual([{ apiVersion: "batch/v1", kind: "CronJob", name: "jenkins-backup", uid: "cron-uid" }]);
    expect(job.spec.template.spec.initContainers[0].env).toEqual([{ name: "ACCEPT_SHRINK", value: "1" }]);
    expect(cron.spec.jobTemplate.spec.backoffLimit).toBe(2);
  });
  test("a restic job touches neither the home nor a token, and does not wait for savers", () => {
    const { spec } = resticJob(cron, "ask", "true").spec.template;
    expect(spec.volumes).toEqual([{ name: "secrets" }]);
    expect(spec.containers).toHaveLength(1);
    expect(spec.containers[0]).toMatchObject({ env: [{ name: "ACCEPT_SHRINK", value: "0" }], volumeMounts: [{ name: "secrets", mountPath: "/s" }] });
    expect(spec.affinity).toBeUndefined();
    expect(resticJob(cron, "ask", "true").spec.template.metadata.labels["app.kubernetes.io/component"]).toBe("operator");
  });
  test("a restic job with a claim has it at /target, where the controller may run", () => {
    const { spec } = resticJob(cron, "fill", "true", "fresh", { nodeSelector: { disk: "fast" } }).spec.template;
    expect(spec.nodeSelector).toEqual({ disk: "fast" });
    expect(spec.volumes).toContainEqual({ name: "target", persistentVolumeClaim: { claimName: "fresh" } });
  });
});

const live: KubernetesObject = {
  metadata: {
    name: "jenkins-home",
    namespace: "jenkins",
    uid: "1",
    resourceVersion: "2",
    labels: { a: "b" },
    annotations: { "pv.kubernetes.io/bind-completed": "yes", "volume.kubernetes.io/selected-node": "n", mine: "yes" },
    managedFields: [{ manager: "kube-controller-manager" }, { manager: "pulumi-kubernetes-1a2b" }],
  },
  spec: { accessModes: ["ReadWriteOnce"], resources: { requests: { storage: "2Gi" } }, storageClassName: "openebs-hostpath", volumeMode: "Filesystem", volumeName: "old" },
};
const journal: Journal = { id: "0a0b0c", phase: "planned", kind: "home", snapshot: "aaaaaaaa", replicas: 1, suspended: {}, claim: claimAsWritten(live), oldVolume: "old", startedAt: "2026-01-01T00:00:00Z" };

describe("claims", () => {
  test("what the cluster added is not carried over, what people wrote is", () => {
    expect(claimAsWritten(live)).toEqual({
      apiVersion: "v1",
      kind: "PersistentVolumeClaim",
      metadata: { name: "jenkins-home", namespace: "jenkins", labels: { a: "b" }, annotations: { mine: "yes" } },
      spec: { accessModes: ["ReadWriteOnce"], resources: { requests: { storage: "2Gi" } }, storageClassName: "openebs-hostpath" },
    });
    expect(pulumiManager(live)).toBe("pulumi-kubernetes-1a2b");
    expect(pulumiManager({ metadata: {} })).toBeUndefined();
  });
  test("the fresh claim has another name and no volume yet; the home's is bound to the one that was chosen", () => {
    expect(emptyClaim(journal)).toMatchObject({ metadata: { name: freshClaim("0a0b0c") }, spec: { storageClassName: "openebs-hostpath" } });
    expect(emptyClaim(journal).spec.volumeName).toBeUndefined();
    expect(boundClaim(journal, "new").spec.volumeName).toBe("new");
    expect(emptyClaim({ ...journal, size: "9Gi" }).spec.resources.requests.storage).toBe("9Gi");
  });
  test("a pod holds a claim only if it mounts it", () => {
    expect(mounts({ spec: { volumes: [{ name: "x", persistentVolumeClaim: { claimName: "a" } }] } }, "a")).toBe(true);
    expect(mounts({ spec: { volumes: [{ name: "a", emptyDir: {} }] } }, "a")).toBe(false);
    expect(mounts({ spec: {} }, "a")).toBe(false);
  });
});

test("a step lies ahead exactly until it is done", () => {
  PHASES.forEach((done, i) => PHASES.forEach((phase, j) => expect(ahead({ ...journal, phase: done }, phase)).toBe(i < j)));
});

test("the review says what is lost, what is kept, and warns of a suspect snapshot", () => {
  const snapshot = { id: "aaaaaaaa", time: new Date("2026-01-01T00:00:00Z"), items: 3, builds: 12, suspect: true };
  const text = review(journal, snapshot, { pods: 1 }, new Date("2026-01-01T05:00:00Z"));
  expect(text).toMatch(/aaaaaaaa .*5 h ago.*3 jobs and folders, 12 builds; IT DID NOT PASS/);
  expect(text).toMatch(/volume old/);
  expect(text).toMatch(/--confirm/);
  expect(review({ ...journal, kind: "job", job: "a/b" }, { ...snapshot, suspect: false }, { pods: 1 }, new Date())).not.toMatch(/DID NOT PASS|fresh volume/);
});

test("wherever a restore stands, it says whether Jenkins runs and how to go on or back", () => {
  const at = (phase: Journal["phase"], kind: Journal["kind"] = "home") => standing({ ...journal, phase, kind });
  for (const phase of ["stopped", "saved", "filled", "swapped"] as const) expect(at(phase)).toMatch(/Jenkins is stopped and its backups are paused[^]*npm run restore +go on[^]*--rollback/);
  expect(at("saved", "job")).toMatch(/is stopped[^]*--rollback/);
  // Its folder has changed place: there is no way back but forward.
  expect(at("filled", "job")).not.toMatch(/--rollback/);
  expect(at("started")).toMatch(/Jenkins has been started, its backups are paused[^]*--confirm[^]*--rollback/);
  expect(at("started", "job")).toMatch(/--confirm[^]*\.replaced/);
  expect(at("started", "rollback")).toMatch(/--confirm/);
  expect(at("checked")).toMatch(/--confirm[^]*--rollback/);
  for (const phase of PHASES) expect(at(phase)).toMatch(/npm run restore/);
});
