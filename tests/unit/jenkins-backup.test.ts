import * as pulumi from "@pulumi/pulumi";
import { describe as describeResult, JenkinsBackup, type JenkinsBackupArgs, jenkinsBackupProblems, names, reportRules, saverLabels, sftpCommand, startFrom } from "../../components/jenkins-backup";
import { afterFirst } from "../../components/jenkins-master";
import { parseConfig } from "../../config";
import { all, environment, objects, settled, stackConfig, the, useMocks } from "./mocks";

const controllerPod = {
  serviceAccountName: "jenkins",
  containers: [
    {
      name: "jenkins",
      image: "registry.test/controller@sha256:1",
      readinessProbe: { httpGet: { path: "/login", port: "http" } },
      livenessProbe: { httpGet: { path: "/login", port: "http" } },
      volumeMounts: [{ name: "home", mountPath: "/var/jenkins_home" }],
    },
  ],
  volumes: [
    { name: "home", persistentVolumeClaim: { claimName: "jenkins-home" } },
    { name: "admin", secret: { secretName: "jenkins-admin" } },
    { name: "tmp", emptyDir: {} },
  ],
};
const args: JenkinsBackupArgs = {
  namespace: "jenkins",
  homeClaim: "jenkins-home",
  image: "registry.test/restic:1",
  controllerPod,
  repository: "s3:https://s3.test/home",
  password: "home password",
  keysRepository: "s3:https://s3.test/keys",
  keysPassword: "keys password",
  keep: { last: 3, daily: 7, weekly: 4, monthly: 6 },
};

async function make(further: Partial<JenkinsBackupArgs> = {}): Promise<JenkinsBackup> {
  const backup = new JenkinsBackup("backup", { ...args, ...further });
  await settled();
  return backup;
}
const podOf = (cron: string) => the("CronJob", cron).inputs.spec.jobTemplate.spec.template.spec;
// `any`: containers as registered.
const containersOf = (pod: any): any[] => [...(pod.initContainers ?? []), ...pod.containers];

beforeEach(() => useMocks());

test("the verifier has what the controller's pod says of the whole pod, but neither its rights nor its priority", async () => {
  const whole = { hostAliases: [{ ip: "192.0.2.1", hostnames: ["git.test"] }], dnsConfig: { nameservers: ["192.0.2.53"] }, nodeSelector: { disk: "ssd" }, tolerations: [{ key: "ci", operator: "Exists" }], affinity: { nodeAffinity: {} }, securityContext: { runAsUser: 1001 } };
  const beside = { name: "beside", image: "i", restartPolicy: "Always" };
  await make({ controllerPod: { ...controllerPod, ...whole, priorityClassName: "high", terminationGracePeriodSeconds: 90, automountServiceAccountToken: true, restartPolicy: "Always", initContainers: [beside], containers: [{ name: "first", image: "f" }, ...controllerPod.containers] } });
  const pod = podOf(names.verify);
  expect(pod).toMatchObject({ ...whole, serviceAccountName: names.backup, automountServiceAccountToken: false, restartPolicy: "Never", terminationGracePeriodSeconds: 10 });
  expect(pod).not.toHaveProperty("priorityClassName");
  expect(containersOf(pod).map(({ name }) => name)).toEqual(["restic", "jenkins", "report"]);
});

test("the saver mounts the home read-only, never twice at once, and reports after restic", async () => {
  await make({ schedule: "17 2 * * *" });
  const { spec } = the("CronJob", names.backup).inputs;
  expect(spec).toMatchObject({ schedule: "17 2 * * *", timeZone: "Etc/UTC", suspend: false, concurrencyPolicy: "Forbid" });
  const pod = podOf(names.backup);
  expect(pod.initContainers.map((c: { name: string }) => c.name)).toEqual(["restic"]);
  expect(pod.containers.map((c: { name: string }) => c.name)).toEqual(["report"]);
  expect(pod.initContainers[0].volumeMounts).toContainEqual({ name: "home", mountPath: "/var/jenkins_home", readOnly: true });
  expect(pod.volumes).toContainEqual({ name: "home", persistentVolumeClaim: { claimName: "jenkins-home", readOnly: true } });
  const [term] = pod.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution;
  expect(term).toEqual({ topologyKey: "kubernetes.io/hostname", labelSelector: { matchLabels: saverLabels } });
  expect(the("CronJob", names.backup).inputs.spec.jobTemplate.spec.template.metadata.labels).toEqual(saverLabels);
});

test("a claim stands in the saver's pod once, to be read: for writing beside that it could not be mounted", async () => {
  await make();
  const claims = (podOf(names.backup).volumes as { persistentVolumeClaim?: object }[]).flatMap(({ persistentVolumeClaim }) => persistentVolumeClaim ?? []);
  expect(claims).toEqual([{ claimName: "jenkins-home", readOnly: true }]);
});

test("restic is told its memory, when the upkeep is due, and bandwidths where they are limited", async () => {
  const env = (cron: string) => podOf(cron).initContainers[0].env as { name: string; value?: string }[];
  const value = (cron: string, wanted: string) => env(cron).find(({ name }) => name === wanted)?.value;
  await make();
  for (const cron of [names.backup, names.verify]) {
    expect(env(cron)).toContainEqual({ name: "MEMORY_LIMIT", valueFrom: { resourceFieldRef: { resource: "limits.memory", divisor: "0" } } });
    expect(value(cron, "DOWNLOAD_LIMIT")).toBeUndefined();
  }
  expect(value(names.backup, "UPKEEP_DAYS")).toBe("7");
  await useMocks();
  await make({ upkeepDays: 0, uploadLimit: 5000, downloadLimit: 9000 });
  expect(value(names.backup, "UPKEEP_DAYS")).toBe("0");
  for (const cron of [names.backup, names.verify]) expect([value(cron, "UPLOAD_LIMIT"), value(cron, "DOWNLOAD_LIMIT")]).toEqual(["5000", "9000"]);
});

test("the controller of a stack that starts from a snapshot is not restarted for the backup's new settings", () => {
  const env = startFrom(args, "latest").container.env as { name: string; value: string }[];
  expect(env.map(({ name }) => name).filter((name) => /UPKEEP|CACHE|MEMORY|DOWNLOAD/.test(name))).toEqual([]);
  expect(env).toContainEqual({ name: "CHECK_PARTS", value: "14" });
});

test("without a schedule the CronJob is there for jobs by hand, and suspended", async () => {
  await make();
  expect(the("CronJob", names.backup).inputs.spec.suspend).toBe(true);
  expect(the("CronJob", names.verify).inputs.spec.suspend).toBe(true);
  await useMocks();
  await make({ verifySchedule: "3 4 * * 0" });
  expect(the("CronJob", names.verify).inputs.spec).toMatchObject({ schedule: "3 4 * * 0", suspend: false });
});

test("every own container is held to level restricted and to a memory limit", async () => {
  await make();
  for (const cron of [names.backup, names.verify]) {
    const pod = podOf(cron);
    expect(pod.securityContext).toMatchObject({ runAsNonRoot: true, runAsUser: 1000, seccompProfile: { type: "RuntimeDefault" } });
    expect(pod.automountServiceAccountToken).toBe(false);
    expect(pod.hostPath).toBeUndefined();
    for (const container of containersOf(pod).filter((c) => c.name !== "jenkins")) {
      expect(container.securityContext).toEqual({ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } });
      expect(container.resources.limits.memory).toBeDefined();
    }
    expect(pod.volumes.filter((v: object) => "hostPath" in v)).toEqual([]);
  }
});

test("only the report holds a token, and may do nothing but publish", async () => {
  await make();
  for (const cron of [names.backup, names.verify])
    for (const container of containersOf(podOf(cron)))
      expect((container.volumeMounts ?? []).some((m: { name: string }) => m.name === "token")).toBe(container.name === "report");
  expect(the("Role").inputs.rules).toEqual(reportRules);
  expect(reportRules.flatMap((rule) => rule.verbs).sort()).toEqual(["create", "get", "get", "patch"]);
  expect(all("ClusterRole")).toEqual([]);
});

test("passwords, addresses and credentials are secrets in files or a Secret's environment, never arguments", async () => {
  await make({ environment: { AWS_SECRET_ACCESS_KEY: "s3 credential" } });
  const decoded = the("Secret", names.backup).inputs.data;
  const data = decoded.value ?? decoded;
  expect(Buffer.from(data.password, "base64").toString()).toBe("home password");
  expect(Buffer.from(data["keys-password"], "base64").toString()).toBe("keys password");
  for (const object of objects().filter((r) => !r.type.endsWith(":Secret"))) {
    const text = JSON.stringify(object.inputs);
    for (const secret of ["home password", "keys password", "s3 credential", "s3.test"]) expect(text).not.toContain(secret);
  }
});

test("a restored copy lies on the node's disk within bounds, or in a claim that goes with its pod", async () => {
  const home = () => podOf(names.verify).volumes.find(({ name }: { name: string }) => name === "home");
  const job = () => the("CronJob", names.verify).inputs.spec.jobTemplate.spec;
  await make({ verifyVolume: { size: "40Gi" } });
  expect(home()).toEqual({ name: "home", emptyDir: { sizeLimit: "40Gi" } });
  expect(job()).not.toHaveProperty("ttlSecondsAfterFinished");
  await useMocks();
  await make({ verifyVolume: { storageClassName: "scratch", size: "20480Mi" } });
  expect(home()).toEqual({ name: "home", ephemeral: { volumeClaimTemplate: { metadata: { labels: expect.objectContaining({ "app.kubernetes.io/part-of": "build-platform" }) }, spec: { accessModes: ["ReadWriteOnce"], storageClassName: "scratch", resources: { requests: { storage: "20Gi" } } } } } });
  // The claim is there as long as the pod is listed: not with the last six jobs. The saver has none.
  expect(job().ttlSecondsAfterFinished).toBe(600);
  expect(the("CronJob", names.backup).inputs.spec.jobTemplate.spec).not.toHaveProperty("ttlSecondsAfterFinished");
});

test("the verifier boots the controller's own pod on scratch space: not the home, no account, no probes that would restart it", async () => {
  await make();
  const pod = podOf(names.verify);
  expect(pod.volumes).toContainEqual({ name: "home", emptyDir: {} });
  expect(JSON.stringify(pod.volumes)).not.toContain("jenkins-home");
  const controller = pod.initContainers[1];
  expect(controller).toMatchObject({ name: "jenkins", image: "registry.test/controller@sha256:1", restartPolicy: "Always" });
  expect(controller.livenessProbe ?? controller.readinessProbe ?? controller.startupProbe).toBeUndefined();
  expect(pod.serviceAccountName).toBe("jenkins-backup");
  expect(pod.volumes.map((v: { name: string }) => v.name).sort()).toEqual([...new Set(pod.volumes.map((v: { name: string }) => v.name))].sort());
  // Not behind the controller's Service.
  expect(the("CronJob", names.verify).inputs.spec.jobTemplate.spec.template.metadata.labels["app.kubernetes.io/name"]).not.toBe("jenkins");
});

test("what prepares the controller's pod prepares the copy as well, after the restore", async () => {
  const own = { name: "configuration", image: "i" };
  await make({ controllerPod: { ...(args.controllerPod as object), initContainers: [own] } as never });
  expect(podOf(names.verify).initContainers.map((c: { name: string }) => c.name)).toEqual(["restic", "configuration", "jenkins"]);
});

test("a folder of the nodes becomes a retained volume that must exist; other repositories make none", async () => {
  await make({ repository: "/mnt/share/home", keysRepository: "/mnt/other/keys" });
  expect(the("PersistentVolume", "backup-repository-volume").inputs.spec).toMatchObject({ persistentVolumeReclaimPolicy: "Retain", hostPath: { path: "/mnt/share/home", type: "Directory" } });
  expect(podOf(names.backup).initContainers[0].volumeMounts).toContainEqual({ name: "keys-repository", mountPath: "/mnt/other/keys" });
  await useMocks();
  await make();
  expect(all("PersistentVolume")).toEqual([]);
});

test("another folder is another volume, and its claim goes with it: none waits for the other", async () => {
  const names = async (repository: string) => {
    await useMocks();
    await make({ repository });
    const volume = the("PersistentVolume", "backup-repository-volume").inputs.metadata.name;
    expect(all("PersistentVolumeClaim").find(({ inputs }) => inputs.metadata.name === "jenkins-backup-repository")?.inputs.spec.volumeName).toBe(volume);
    return volume;
  };
  const first = await names("/mnt/share/home");
  expect(await names("/mnt/share/home")).toBe(first);
  expect(await names("/mnt/other/home")).not.toBe(first);
});

test("the status belongs to the backups: its content is not the stack's", async () => {
  await make();
  expect(the("ConfigMap", names.status).inputs.data).toBeUndefined();
});

test("further patterns are left out beside the usual ones", async () => {
  await make({ excludes: ["jobs/**/htmlreports"] });
  const lines = the("ConfigMap", names.scripts).inputs.data["excludes.txt"].split("\n");
  expect(lines).toEqual(expect.arrayContaining(["war", "workspace", "plugins/*/*", "jobs/**/htmlreports"]));
  expect(lines).not.toContain("jobs");
});

test.each([
  ["sftp:jenkins@backup.test:/srv/home", "jenkins@backup.test", undefined],
  ["sftp://jenkins@backup.test:2222//srv/home", "jenkins@backup.test", "2222"],
  ["sftp://backup.test//srv/home", "backup.test", undefined],
])("%s is reached by ssh with a pinned host key", (repository, host, port) => {
  const command = sftpCommand(repository)!;
  expect(command).toMatch(new RegExp(`${port ? ` -p ${port}` : ""} ${host} -s sftp$`));
  expect(command).toContain("StrictHostKeyChecking=yes");
  if (!port) expect(command).not.toContain(" -p ");
});

test("other repositories need no ssh", () => {
  for (const repository of ["s3:https://s3.test/a", "rest:http://rest.test/a", "/folder"]) expect(sftpCommand(repository)).toBeUndefined();
});

test("all mistakes are reported together, before anything is made", async () => {
  const wrong = { ...args, repository: "sftp:host", keysRepository: "sftp:host/keys", keep: { last: 0, daily: 0, weekly: 0, monthly: 0 }, checkParts: 0 };
  expect(jenkinsBackupProblems(wrong).map((p) => p.propertyPath)).toEqual(expect.arrayContaining(["keysRepository", "keep", "repository", "checkParts"]));
  expect(() => new JenkinsBackup("wrong", wrong)).toThrow(pulumi.InputPropertiesError);
  await settled();
  expect(objects()).toEqual([]);
  expect(jenkinsBackupProblems(args)).toEqual([]);
});

test("a result is told in one line", () => {
  expect(describeResult(undefined)).toBe("none yet");
  expect(describeResult('{"time":"2026-01-02T03:04:05Z","snapshot":"0a1b2c3d","bytes":1048576,"items":2,"builds":5}')).toBe("2026-01-02T03:04:05Z, snapshot 0a1b2c3d, 1.0 MiB, 2 jobs and folders, 5 builds");
});

describe("config", () => {
  const backup = { repository: "s3:https://s3.test/home", password: "a", keysRepository: "s3:https://s3.test/keys", keysPassword: "b" };
  const read = (value: object) => parseConfig({ ...stackConfig("sandbox"), backup: JSON.stringify(value) }, { ...environment, isSecret: (key) => key === "backup" });
  const keys = (value: object) => read(value).problems.map((p) => p.key);

  test("nothing under backup means no backup", () => expect(read({}).config.backup).toBeUndefined());
  test("where a restored copy lies: twice the home's size at most on the node, or a claim of its size", () => {
    const volume = (further: object) => read({ ...backup, ...further }).config.backup?.verifyVolume;
    expect(volume({})).toEqual({ size: "4Gi" });
    expect(volume({ verifyVolume: { size: "100Gi" } })).toEqual({ size: "100Gi" });
    expect(volume({ verifyVolume: { storageClass: "scratch" } })).toEqual({ storageClassName: "scratch", size: "2Gi" });
    expect(volume({ verifyVolume: { storageClass: "scratch", size: "50Gi" } })).toEqual({ storageClassName: "scratch", size: "50Gi" });
  });

  test("a class that keeps what its claims leave behind is refused: each copy would stay", () => {
    const keys = (further: object) => parseConfig({ ...stackConfig("sandbox"), backup: { ...backup, verifyVolume: { storageClass: "openebs-hostpath" } }, ...further }, { ...environment, isSecret: (key) => key === "backup" }).problems.map(({ key }) => key);
    expect(keys({ protectHome: true })).toEqual(["backup.verifyVolume.storageClass"]);
    expect(keys({ protectHome: false })).toEqual([]);
    expect(keys({ protectHome: true, storageInstall: "none" })).toEqual([]);
  });

  test("defaults", () => expect(read(backup).config.backup).toMatchObject({ schedule: "", verifySchedule: "", keep: { last: 3, daily: 7, weekly: 4, monthly: 6 }, excludes: [], uploadLimit: 0, downloadLimit: 0, upkeepDays: 7, resources: { requests: { cpu: "100m", memory: "256Mi" }, limits: { cpu: "1", memory: "1Gi" } } }));
  test("a good section has no mistakes", () => expect(keys({ ...backup, schedule: "0 2 * * *", excludes: ["jobs/**/reports"] })).toEqual([]));
  test.each([
    [{ ...backup, schedule: "nightly" }, "backup.schedule"],
    [{ ...backup, verifySchedule: "0 2" }, "backup.verifySchedule"],
    [{ ...backup, excludes: ["/absolute"] }, "backup.excludes"],
    [{ ...backup, keysRepository: backup.repository }, "backup.keysRepository"],
    [{ ...backup, repository: "sftp:a@b:/c" }, "backup.ssh"],
    [{ ...backup, uploadLimit: -1 }, "backup.uploadLimit"],
    [{ ...backup, downloadLimit: "fast" }, "backup.downloadLimit"],
    [{ ...backup, upkeepDays: 365 }, "backup.upkeepDays"],
    [{ ...backup, resources: { limits: { memory: "1 GB" } } }, "backup.resources.limits.memory"],
    [{ ...backup, shedule: "0 2 * * *" }, "backup.shedule"],
  ])("%j is refused", (value, key) => expect(keys(value)).toEqual([key]));
});

describe("starting from a snapshot", () => {
  test("restic comes first with the home to write to, and the controller's own volumes stay as they are", () => {
    const pod = afterFirst(controllerPod, startFrom({ ...args, repository: "/share/home" }, "latest"));
    expect(pod.containers).toBe(controllerPod.containers);
    const [first] = containersOf(pod);
    expect(first).toMatchObject({ name: "start-from-snapshot", image: args.image, command: ["/bin/sh", "/scripts/home.sh", "start-from", "latest", "/var/jenkins_home"], terminationMessagePolicy: "FallbackToLogsOnError" });
    expect(first.securityContext).toMatchObject({ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true });
    const volumes = pod.volumes as { name: string }[];
    expect(new Set(volumes.map(({ name }) => name)).size).toBe(volumes.length);
    for (const { name } of first.volumeMounts as { name: string }[]) expect(volumes.map((volume) => volume.name)).toContain(name);
    expect(volumes.slice(0, 3)).toEqual(controllerPod.volumes);
    expect(first.volumeMounts).toContainEqual({ name: "home", mountPath: "/var/jenkins_home" });
    expect(volumes).toContainEqual({ name: "repository", persistentVolumeClaim: { claimName: "jenkins-backup-repository" } });
  });

  test("backup.startFrom is latest or the id of a snapshot", () => {
    const parse = (startFrom: string) => {
      const backup = { repository: "s3:https://s3.test/home", password: "p", keysRepository: "s3:https://s3.test/keys", keysPassword: "q", startFrom };
      return parseConfig({ ...stackConfig("sandbox"), backup: JSON.stringify(backup) }, { ...environment, isSecret: (key) => key === "backup" });
    };
    expect(parse("latest").config.backup?.startFrom).toBe("latest");
    expect(parse("0123abcd").problems).toEqual([]);
    expect(parse("yesterday").problems.map(({ key }) => key)).toEqual(["backup.startFrom"]);
  });
});
