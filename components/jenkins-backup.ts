import * as fs from "node:fs";
import * as path from "node:path";
import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { ownLabels, partOf } from "./ownership";
import { canonicalResources, type Resources } from "./quantity";

type PodSpec = k8s.types.input.core.v1.PodSpec;
type Container = k8s.types.input.core.v1.Container;
type Volume = k8s.types.input.core.v1.Volume;
type VolumeMount = k8s.types.input.core.v1.VolumeMount;

/** How many snapshots restic keeps: the newest ones, and one for each day, week and month. */
export interface Retention {
  last: number;
  daily: number;
  weekly: number;
  monthly: number;
}

export interface JenkinsBackupArgs {
  /** Namespace of the controller. */
  namespace: pulumi.Input<string>;
  /** Claim that holds jenkins_home. */
  homeClaim: pulumi.Input<string>;
  /** Image of restic with a POSIX shell, such as docker.io/restic/restic; 0.14 or later. */
  image: pulumi.Input<string>;
  /** The controller's pod: a restored copy boots from the same one, and its image's curl publishes results. */
  controllerPod: pulumi.Input<PodSpec>;
  /** restic repository of the home, such as s3:https://host/bucket, or a folder that every node mounts at this path. */
  repository: string;
  /** Password of that repository; kept secret. Whoever loses it loses the backups. */
  password: pulumi.Input<string>;
  /** Repository of the home's encryption keys alone, at another place than the other. */
  keysRepository: string;
  /** Its own password; kept secret. */
  keysPassword: pulumi.Input<string>;
  /** Environment that restic needs, such as AWS_ACCESS_KEY_ID; kept secret. Default none. */
  environment?: pulumi.Input<Record<string, pulumi.Input<string>>>;
  /** Login at SFTP repositories. */
  ssh?: {
    /** Private key without passphrase; kept secret. */
    privateKey: pulumi.Input<string>;
    /** Lines of a known_hosts file; no other host is trusted. */
    knownHosts: string;
  };
  /** When, as a cron line in UTC. Default: by hand only. */
  schedule?: string;
  /** When a restored copy is booted, as a cron line in UTC. Default: by hand only. */
  verifySchedule?: string;
  keep: Retention;
  /** Patterns below jenkins_home to leave out beyond scripts/backup/excludes.txt. Default none. */
  excludes?: string[];
  /** Most KiB/s sent to the repository; 0 for no limit. Default 0. */
  uploadLimit?: number;
  /** Each backup reads one of so many parts of the repository back, another one each day. Default 14: all of it in two weeks. */
  checkParts?: number;
  /** Requests and limits of restic. Default 100m/256Mi, at most one processor and 1Gi. */
  resources?: Resources;
}

/** What restic's container needs to know. */
export type ResticArgs = Omit<JenkinsBackupArgs, "namespace" | "homeClaim" | "controllerPod">;

/** Names that `npm run backup`, `backups` and `restore` rely on. */
export const names = {
  backup: "jenkins-backup",
  verify: "jenkins-backup-verify",
  status: "jenkins-backup-status",
  scripts: "jenkins-backup-scripts",
} as const;

const labels = { "app.kubernetes.io/name": names.backup, ...partOf };
/** Of the pods that save the home: no two of them run at once, whoever started them. */
export const saverLabels = { ...labels, "app.kubernetes.io/component": "saver" };
const verifierLabels = { ...labels, "app.kubernetes.io/component": "verifier" };

/** A date that never comes; the CronJob is suspended as well and only serves as the model of jobs by hand. */
const never = "0 0 31 2 *";
const defaultResources: Resources = { requests: { cpu: "100m", memory: "256Mi" }, limits: { cpu: "1", memory: "1Gi" } };
const scriptFiles = ["home.sh", "report.sh", "controller-check.sh", "excludes.txt"];
const scriptsFolder = path.resolve(__dirname, "../scripts/backup");

const base64 = (text: string) => Buffer.from(text).toString("base64");
const isFolder = (repository: string) => repository.startsWith("/");

/**
 * The ssh command for an SFTP repository, for restic's option sftp.command; undefined for any other repository.
 * `sftp:user@host:/folder` and `sftp://user@host:port//folder` are the two forms restic knows.
 */
export function sftpCommand(repository: string): string | undefined {
  const url = /^sftp:\/\/([^/]+?)(?::(\d+))?\//.exec(repository);
  const scp = /^sftp:([^/:]+):/.exec(repository);
  const target = url?.[1] ?? scp?.[1];
  if (target === undefined) return undefined;
  const options = "-i /run/secrets/ssh/id -o UserKnownHostsFile=/run/secrets/ssh/known_hosts -o StrictHostKeyChecking=yes -o BatchMode=yes -o ServerAliveInterval=30";
  return `ssh ${options}${url?.[2] ? ` -p ${url[2]}` : ""} ${target} -s sftp`;
}

/** Mistakes in the arguments, one detail per field. */
export function jenkinsBackupProblems(args: JenkinsBackupArgs): { propertyPath: string; reason: string }[] {
  const problems: { propertyPath: string; reason: string }[] = [];
  const folders = (repository: string) => repository.replace(/\/+$/, "");
  const [home, keys] = [folders(args.repository), folders(args.keysRepository)];
  if (home === keys || keys.startsWith(`${home}/`) || home.startsWith(`${keys}/`))
    problems.push({ propertyPath: "keysRepository", reason: `"${args.keysRepository}" is at the same place as the repository of the home; who finds one would have both` });
  if (Object.values(args.keep).every((count) => count === 0)) problems.push({ propertyPath: "keep", reason: "keeps no snapshot at all; raise one of last, daily, weekly, monthly" });
  for (const [field, repository] of [["repository", args.repository], ["keysRepository", args.keysRepository]])
    if (repository.startsWith("sftp:") && (!sftpCommand(repository) || !args.ssh))
      problems.push({ propertyPath: field, reason: sftpCommand(repository) ? "is reached over SFTP: ssh with privateKey and knownHosts is needed" : `"${repository}" is neither sftp:user@host:/folder nor sftp://user@host:port//folder` });
  const parts = args.checkParts ?? 14;
  if (!Number.isInteger(parts) || parts < 1 || parts > 256) problems.push({ propertyPath: "checkParts", reason: `${parts} is not between 1 and 256` });
  return problems;
}

/** restic's container, with what it needs to reach both repositories. It runs scripts/backup/home.sh. */
export function resticContainer(args: ResticArgs, command: string[]): Container {
  const commands = { SFTP_COMMAND: sftpCommand(args.repository), KEY_SFTP_COMMAND: sftpCommand(args.keysRepository) };
  const env = {
    RESTIC_REPOSITORY_FILE: "/run/secrets/backup/repository",
    RESTIC_PASSWORD_FILE: "/run/secrets/backup/password",
    KEY_REPOSITORY_FILE: "/run/secrets/backup/keys-repository",
    KEY_PASSWORD_FILE: "/run/secrets/backup/keys-password",
    HOME_DIR: "/var/jenkins_home",
    WORK_DIR: "/scratch",
    STATUS_DIR: "/run/backup-status",
    EXCLUDES_FILE: "/scripts/excludes.txt",
    KEEP_LAST: String(args.keep.last),
    KEEP_DAILY: String(args.keep.daily),
    KEEP_WEEKLY: String(args.keep.weekly),
    KEEP_MONTHLY: String(args.keep.monthly),
    CHECK_PARTS: String(args.checkParts ?? 14),
    UPLOAD_LIMIT: String(args.uploadLimit ?? 0),
    HOME: "/scratch",
    ...Object.fromEntries(Object.entries(commands).filter(([, value]) => value !== undefined)),
  };
  return {
    name: "restic",
    image: args.image,
    command,
    env: Object.entries(env).map(([name, value]) => ({ name, value })),
    envFrom: [{ secretRef: { name: `${names.backup}-environment` } }],
    resources: canonicalResources(args.resources ?? defaultResources),
    securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } },
    volumeMounts: [
      { name: "secrets", mountPath: "/run/secrets/backup", readOnly: true },
      { name: "scripts", mountPath: "/scripts", readOnly: true },
      { name: "status", mountPath: "/run/backup-status", readOnly: true },
      { name: "work", mountPath: "/scratch" },
      { name: "tmp", mountPath: "/tmp" },
      ...folderRepositories(args).map(({ volume, folder }) => ({ name: volume, mountPath: folder })),
      ...(args.ssh
        ? [
            { name: "ssh", mountPath: "/run/secrets/ssh", readOnly: true },
            // ssh refuses to run as a user that has no name.
            { name: "scripts", mountPath: "/etc/passwd", subPath: "passwd", readOnly: true },
          ]
        : []),
    ],
  };
}

function folderRepositories(args: Pick<JenkinsBackupArgs, "repository" | "keysRepository">): { volume: string; folder: string }[] {
  return [
    { volume: "repository", folder: args.repository },
    { volume: "keys-repository", folder: args.keysRepository },
  ].filter(({ folder }) => isFolder(folder));
}

/** What restic's container mounts. */
function resticVolumes(args: ResticArgs): Volume[] {
  return [
    { name: "secrets", secret: { secretName: names.backup, defaultMode: 0o440 } },
    { name: "scripts", configMap: { name: names.scripts } },
    { name: "status", configMap: { name: names.status, optional: true } },
    { name: "work", emptyDir: {} },
    { name: "tmp", emptyDir: {} },
    ...folderRepositories(args).map(({ volume }) => ({ name: volume, persistentVolumeClaim: { claimName: `${names.backup}-${volume}` } })),
    ...(args.ssh ? [{ name: "ssh", secret: { secretName: `${names.backup}-ssh`, defaultMode: 0o440 } }] : []),
  ];
}

/**
 * What fills an empty home from a snapshot before the controller starts: a container to run first, with the volumes it
 * needs. It runs at each start and leaves a home that holds anything alone.
 */
export function startFrom(args: ResticArgs, snapshot: string): { container: Container; volumes: Volume[] } {
  const restic = resticContainer(args, ["/bin/sh", "/scripts/home.sh", "start-from", snapshot, "/var/jenkins_home"]);
  return {
    container: {
      ...restic,
      name: "start-from-snapshot",
      volumeMounts: [...(restic.volumeMounts as VolumeMount[]), { name: "home", mountPath: "/var/jenkins_home" }],
      // Why it cannot go on is to be seen in `kubectl describe pod`.
      terminationMessagePolicy: "FallbackToLogsOnError",
    },
    volumes: resticVolumes(args),
  };
}

/** What every pod of the backup has, held to Pod Security level `restricted`. */
function basePod(args: ResticArgs): Omit<PodSpec, "volumes"> & { volumes: Volume[] } {
  return {
    restartPolicy: "Never",
    serviceAccountName: names.backup,
    automountServiceAccountToken: false,
    enableServiceLinks: false,
    terminationGracePeriodSeconds: 10,
    securityContext: {
      runAsUser: 1000,
      runAsGroup: 1000,
      runAsNonRoot: true,
      fsGroup: 1000,
      fsGroupChangePolicy: "OnRootMismatch",
      seccompProfile: { type: "RuntimeDefault" },
    },
    containers: [],
    volumes: resticVolumes(args),
  };
}

/** The container that publishes a result; it alone holds a token. */
function reportContainer(image: pulumi.Input<string>, command: string, further: VolumeMount[] = []): Container {
  return {
    name: "report",
    image,
    command: ["/bin/sh", "-c", command],
    env: [{ name: "RESULT_FILE", value: "/scratch/result.json" }],
    resources: { requests: { cpu: "10m", memory: "32Mi" }, limits: { memory: "128Mi" } },
    securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } },
    volumeMounts: [
      { name: "scripts", mountPath: "/scripts", readOnly: true },
      { name: "work", mountPath: "/scratch" },
      { name: "tmp", mountPath: "/tmp" },
      { name: "token", mountPath: "/var/run/secrets/kubernetes.io/serviceaccount", readOnly: true },
      ...further,
    ],
  };
}

const tokenVolume: Volume = {
  name: "token",
  projected: {
    defaultMode: 0o440,
    sources: [
      { serviceAccountToken: { path: "token", expirationSeconds: 3600 } },
      { configMap: { name: "kube-root-ca.crt", items: [{ key: "ca.crt", path: "ca.crt" }] } },
      { downwardAPI: { items: [{ path: "namespace", fieldRef: { apiVersion: "v1", fieldPath: "metadata.namespace" } }] } },
    ],
  },
};

/** The pod that saves the home: restic first, then the report, which ends with the result's exit code. */
export function saverPod(args: Omit<JenkinsBackupArgs, "controllerPod">, controllerImage: pulumi.Input<string>): PodSpec {
  const pod = basePod(args);
  // A failed backup is a result too: it is the report that fails the job, once people can see why.
  const restic = resticContainer(args, ["/bin/sh", "-c", "sh /scripts/home.sh backup || true"]);
  return {
    ...pod,
    // The volume is on one node, and so is every pod that saves it: the second one waits until the first is done.
    affinity: {
      podAntiAffinity: {
        requiredDuringSchedulingIgnoredDuringExecution: [{ topologyKey: "kubernetes.io/hostname", labelSelector: { matchLabels: saverLabels } }],
      },
    },
    initContainers: [{ ...restic, volumeMounts: [...(restic.volumeMounts as VolumeMount[]), { name: "home", mountPath: "/var/jenkins_home", readOnly: true }] }],
    containers: [reportContainer(controllerImage, "exec sh /scripts/report.sh backup")],
    volumes: [...pod.volumes, tokenVolume, { name: "home", persistentVolumeClaim: { claimName: args.homeClaim, readOnly: true } }],
  };
}

/**
 * What a booted copy runs, in Groovy without single quotes. Nothing starts. Where people log in through another realm than Jenkins'
 * own, such as LDAP, the copy has the local administrator instead: the check needs one, and no directory is asked.
 */
const verificationHook = [
  "def jenkins = hudson.model.Hudson.instance",
  "jenkins.doQuietDown()",
  "if (!(jenkins.securityRealm instanceof hudson.security.HudsonPrivateSecurityRealm)) {",
  '  def secret = { new File("/run/secrets/jenkins/" + it).text.trim() }',
  "  def realm = new hudson.security.HudsonPrivateSecurityRealm(false)",
  '  realm.createAccount(secret("admin-user"), secret("admin-password"))',
  "  def strategy = new hudson.security.FullControlOnceLoggedInAuthorizationStrategy()",
  "  strategy.allowAnonymousRead = false",
  "  jenkins.securityRealm = realm",
  "  jenkins.authorizationStrategy = strategy",
  "}",
].join("\n");

/**
 * The pod that proves a snapshot: restored into scratch space, the controller itself boots on the copy, and a third
 * container compares what it lists with what is on the disk. The copy starts nothing: it is in quiet mode, has no
 * queue, and the cluster's API does not know it.
 */
export function verifierPod(args: Omit<JenkinsBackupArgs, "controllerPod">, controllerPod: PodSpec): PodSpec {
  const pod = basePod(args);
  const [controller] = controllerPod.containers as Container[];
  const controllerVolumes = (controllerPod.volumes ?? []) as Volume[];
  const restic = resticContainer(args, [
    "/bin/sh",
    "-c",
    [
      "started=$(date +%s)",
      'if sh /scripts/home.sh restore "${SNAPSHOT:-latest}" /var/jenkins_home >/scratch/log 2>&1; then',
      "  sh /scripts/home.sh inventory /var/jenkins_home >/scratch/inventory; echo ok >/scratch/restored",
      "  rm -f /var/jenkins_home/queue.xml; mkdir -p /var/jenkins_home/init.groovy.d",
      `  echo '${verificationHook}' >/var/jenkins_home/init.groovy.d/00-backup-verification.groovy`,
      "fi; cat /scratch/log; echo $started >/scratch/started",
    ].join("\n"),
  ]);
  const check = [
    "set -u; state=failed; items=$(grep -c '^item' /scratch/inventory 2>/dev/null); builds=$(grep -c '^build' /scratch/inventory 2>/dev/null)",
    'if [ ! -e /scratch/restored ]; then message=$(tail -n 2 /scratch/log | tr \'\\n\' \' \'); elif message=$(sh /scripts/controller-check.sh /scratch/inventory 900 2>&1); then state=ok; fi',
    'message=$(printf %s "$message" | tr -d \'"\\\\\' | tr \'\\n\\t\' \'  \' | cut -c 1-600)',
    'printf \'{"status":"%s","time":"%s","seconds":%d,"snapshot":"%s","items":%d,"builds":%d,"message":"%s"}\\n\' $state "$(date -u +%Y-%m-%dT%H:%M:%SZ)" $(($(date +%s) - $(cat /scratch/started))) "$(sed -n \'s/.*restoring snapshot //p\' /scratch/log)" "${items:-0}" "${builds:-0}" "$message" >/scratch/result.json',
    "exec sh /scripts/report.sh verify",
  ].join("\n");
  return {
    ...pod,
    initContainers: [
      { ...restic, volumeMounts: [...(restic.volumeMounts as VolumeMount[]), { name: "home", mountPath: "/var/jenkins_home" }] },
      // A sidecar: it ends when the check has ended. A copy that does not boot is the check's finding, not a crash loop.
      { ...controller, restartPolicy: "Always", startupProbe: undefined, livenessProbe: undefined, readinessProbe: undefined },
    ],
    containers: [reportContainer(controller.image as pulumi.Input<string>, check, [{ name: "admin", mountPath: "/run/secrets/jenkins", readOnly: true }])],
    volumes: [
      ...pod.volumes.filter((volume) => !controllerVolumes.some(({ name }) => name === volume.name)),
      tokenVolume,
      ...controllerVolumes.filter((volume) => volume.name !== "home"),
      { name: "home", emptyDir: {} },
    ],
  };
}

/** What the report may do: publish results, nothing else. */
export const reportRules = [
  { apiGroups: [""], resources: ["configmaps"], resourceNames: [names.status], verbs: ["get", "patch"] },
  { apiGroups: ["batch"], resources: ["cronjobs"], resourceNames: [names.backup, names.verify], verbs: ["get"] },
  { apiGroups: [""], resources: ["events"], verbs: ["create"] },
];

/** The files of scripts/backup that run in pods; `excludes` are added to the list of patterns left out. */
export function scripts(excludes: string[]): Record<string, string> {
  const files = Object.fromEntries(scriptFiles.map((file) => [file, fs.readFileSync(path.join(scriptsFolder, file), "utf8")]));
  files["excludes.txt"] += excludes.map((line) => `${line}\n`).join("");
  files.passwd = "root:x:0:0:root:/root:/bin/sh\njenkins:x:1000:1000:jenkins:/scratch:/bin/sh\n";
  return files;
}

/**
 * Backups of jenkins_home: a CronJob that saves it with restic, one that boots a restored copy, and their status.
 *
 * Names others may rely on, all in the controller's namespace: CronJobs `jenkins-backup` and `jenkins-backup-verify`,
 * ConfigMap `jenkins-backup-status` (keys last-backup, last-good-backup, last-verify, last-good-verify, snapshot).
 * The repositories themselves are never deleted: not by destroy, not by a replacement.
 *
 * @throws InputPropertiesError listing every bad argument, before any resource is made
 */
export class JenkinsBackup extends pulumi.ComponentResource {
  /** The schedule in UTC, or "by hand". */
  readonly schedule: pulumi.Output<string>;

  constructor(name: string, args: JenkinsBackupArgs, opts?: pulumi.ComponentResourceOptions) {
    super("build-platform:jenkins:JenkinsBackup", name, {}, opts);
    const problems = jenkinsBackupProblems(args);
    if (problems.length > 0) throw new pulumi.InputPropertiesError({ message: `JenkinsBackup "${name}" cannot be made`, errors: problems });

    const parent = { parent: this };
    const metadata = (objectName: string) => ({ name: objectName, namespace: args.namespace, labels });
    const secret = (part: string, objectName: string, data: pulumi.Input<Record<string, pulumi.Input<string>>>) =>
      new k8s.core.v1.Secret(`${name}-${part}`, { metadata: metadata(objectName), data: pulumi.secret(pulumi.output(data).apply((d) => Object.fromEntries(Object.entries(d).map(([k, v]) => [k, base64(v)])))) }, parent);

    const account = new k8s.core.v1.ServiceAccount(`${name}-account`, { metadata: metadata(names.backup), automountServiceAccountToken: false }, parent);
    const role = new k8s.rbac.v1.Role(`${name}-role`, { metadata: metadata(names.backup), rules: reportRules }, parent);
    const binding = new k8s.rbac.v1.RoleBinding(
      `${name}-role-binding`,
      {
        metadata: metadata(names.backup),
        roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "Role", name: role.metadata.name },
        subjects: [{ kind: "ServiceAccount", name: account.metadata.name, namespace: args.namespace }],
      },
      parent,
    );
    // Addresses may carry a password, so they are secrets as well.
    const secrets = secret("secret", names.backup, { repository: args.repository, password: args.password, "keys-repository": args.keysRepository, "keys-password": args.keysPassword });
    const environment = secret("environment", `${names.backup}-environment`, pulumi.output(args.environment ?? {}).apply((given) => ({ TZ: "UTC", ...given })));
    const ssh = args.ssh ? [secret("ssh", `${names.backup}-ssh`, { id: args.ssh.privateKey, known_hosts: args.ssh.knownHosts })] : [];
    const script = new k8s.core.v1.ConfigMap(`${name}-scripts`, { metadata: metadata(names.scripts), data: scripts(args.excludes ?? []) }, parent);
    // Its content belongs to the backups.
    const status = new k8s.core.v1.ConfigMap(`${name}-status`, { metadata: metadata(names.status) }, { ...parent, ignoreChanges: ["data"] });

    const folders = folderRepositories(args).map(({ volume, folder }) => {
      const claim = `${names.backup}-${volume}`;
      const pv = new k8s.core.v1.PersistentVolume(
        `${name}-${volume}-volume`,
        {
          // Volumes are the cluster's: each environment has its own.
          metadata: { name: pulumi.interpolate`${args.namespace}-backup-${volume}`, labels: { ...labels, ...ownLabels() } },
          spec: {
            // A number that the API asks for and nobody enforces.
            capacity: { storage: "1Ti" },
            accessModes: ["ReadWriteMany"],
            persistentVolumeReclaimPolicy: "Retain",
            storageClassName: "",
            claimRef: { namespace: args.namespace, name: claim },
            // Not made where it is missing: a share that is not mounted would be taken for an empty folder.
            hostPath: { path: folder, type: "Directory" },
          },
        },
        parent,
      );
      return new k8s.core.v1.PersistentVolumeClaim(
        `${name}-${volume}`,
        { metadata: metadata(claim), spec: { accessModes: ["ReadWriteMany"], storageClassName: "", volumeName: pv.metadata.name, resources: { requests: { storage: "1Ti" } } } },
        parent,
      );
    });

    const cronJob = (objectName: string, schedule: string | undefined, podLabels: Record<string, string>, podSpec: pulumi.Input<PodSpec>) =>
      new k8s.batch.v1.CronJob(
        `${name}-${objectName === names.backup ? "job" : "verify-job"}`,
        {
          metadata: metadata(objectName),
          spec: {
            schedule: schedule || never,
            timeZone: "Etc/UTC",
            suspend: !schedule,
            concurrencyPolicy: "Forbid",
            // A controller that was down at the hour makes up for it within the next two.
            startingDeadlineSeconds: 7200,
            successfulJobsHistoryLimit: 3,
            failedJobsHistoryLimit: 3,
            jobTemplate: {
              metadata: { labels: podLabels },
              // A pod that was killed is started again, and restic goes on from what it had stored. Half a day is more
              // than any home took; a target that hangs must not stop backups for ever.
              spec: { backoffLimit: 2, activeDeadlineSeconds: 43200, template: { metadata: { labels: podLabels }, spec: podSpec } },
            },
          },
        },
        { ...parent, dependsOn: [binding, secrets, environment, script, status, ...ssh, ...folders] },
      );
    const controllerPod = pulumi.output(args.controllerPod as PodSpec);
    cronJob(names.backup, args.schedule, saverLabels, saverPod(args, controllerPod.apply((pod) => pod.containers[0].image as string)));
    cronJob(names.verify, args.verifySchedule, verifierLabels, controllerPod.apply((pod) => verifierPod(args, pod as PodSpec)));

    this.schedule = pulumi.output(args.schedule || "by hand");
    this.registerOutputs({ schedule: this.schedule });
  }
}

/** One line for people about a result that report.sh published. */
export function describe(result: string | undefined): string {
  if (!result) return "none yet";
  const { time, snapshot, bytes, items, builds } = JSON.parse(result) as Record<string, string | number>;
  return `${time}, snapshot ${snapshot}, ${(Number(bytes) / 2 ** 20).toFixed(1)} MiB, ${items} jobs and folders, ${builds} builds`;
}
