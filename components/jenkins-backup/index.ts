// Who calls whom. The CronJobs made here run scripts/backup/home.sh in restic's image and then report.sh, which publishes the
// result; the verification boots the controller on a restored copy and runs controller-check.sh. `npm run backup`, `backups`
// and `restore` (cli/backup/) make jobs of the same CronJobs: they know the cluster's objects by the names in names.ts.
//   args.ts    what the component is told, and what is wrong with that
//   restic.ts  restic's container: its secrets, volumes and scripts; how an empty home starts from a snapshot
//   pods.ts    the pod that saves the home, and the one that proves a snapshot
//   standby.ts the second volume, the pod that follows the snapshots in it, and what keeps two from writing to one home
import { createHash } from "node:crypto";
import type { V1PodSpec } from "@kubernetes/client-node";
import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { secretData } from "../encoding";
import { ownLabels } from "../ownership";
import { pullingWith } from "../pull-secrets";
import { proxyTexts } from "../surroundings";
import { transformed } from "../transform";
import { type JenkinsBackupArgs, jenkinsBackupProblems } from "./args";
import { labels, names, saverLabels, verifierLabels } from "./names";
import { saverPod, verifierPod } from "./pods";
import { folderRepositories, scripts } from "./restic";
import { makeStandby } from "./standby";

export { type JenkinsBackupArgs, jenkinsBackupProblems, type ResticArgs, type Retention, sftpCommand } from "./args";
export { names, saverLabels, selectedNode } from "./names";
export { saverPod, verifierPod } from "./pods";
export { resticContainer, scripts, startFrom } from "./restic";
export { homeFence, standbyPod } from "./standby";

type PodSpec = k8s.types.input.core.v1.PodSpec;

/** A date that never comes; the CronJob is suspended as well and only serves as the model of jobs by hand. */
const never = "0 0 31 2 *";

/** What the report may do: publish results, nothing else. */
export const reportRules = [
  { apiGroups: [""], resources: ["configmaps"], resourceNames: [names.status], verbs: ["get", "patch"] },
  { apiGroups: ["batch"], resources: ["cronjobs"], resourceNames: [names.backup, names.verify], verbs: ["get"] },
  { apiGroups: [""], resources: ["events"], verbs: ["create"] },
];

/**
 * Backups of jenkins_home: a CronJob that saves it with restic, one that boots a restored copy, and their status.
 *
 * Names others may rely on, all in the controller's namespace: CronJobs `jenkins-backup` and `jenkins-backup-verify`,
 * ConfigMap `jenkins-backup-status` (keys last-backup, last-good-backup, last-verify, last-good-verify, snapshot), with a standby
 * Deployment `jenkins-standby`, PersistentVolumeClaim `jenkins-home-standby` and keys last-standby and last-good-standby.
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
      new k8s.core.v1.Secret(`${name}-${part}`, { metadata: metadata(objectName), data: pulumi.secret(pulumi.output(data).apply(secretData)) }, parent);

    const account = new k8s.core.v1.ServiceAccount(`${name}-account`, { metadata: metadata(names.backup), automountServiceAccountToken: false, ...pullingWith(args.pullSecrets ?? []) }, parent);
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
    const environment = secret("environment", `${names.backup}-environment`, pulumi.output(args.environment ?? {}).apply((given) => ({ TZ: "UTC", ...proxyTexts(args.surroundings), ...given })));
    const ssh = args.ssh ? [secret("ssh", `${names.backup}-ssh`, { id: args.ssh.privateKey, known_hosts: args.ssh.knownHosts })] : [];
    const script = new k8s.core.v1.ConfigMap(`${name}-scripts`, { metadata: metadata(names.scripts), data: scripts(args.excludes ?? []) }, parent);
    // Its content belongs to the backups.
    const status = new k8s.core.v1.ConfigMap(`${name}-status`, { metadata: metadata(names.status) }, { ...parent, ignoreChanges: ["data"] });

    const folders = folderRepositories(args).map(({ volume, folder }) => {
      const claim = `${names.backup}-${volume}`;
      const pv = new k8s.core.v1.PersistentVolume(
        `${name}-${volume}-volume`,
        {
          // Volumes are the cluster's: each environment has its own. Another folder is another volume, made before the former
          // one goes: under one name the former would have to go first, and waits for ever for the claim that still holds it.
          metadata: { name: pulumi.interpolate`${args.namespace}-backup-${volume}-${createHash("sha256").update(folder).digest("hex").slice(0, 8)}`, labels: { ...labels, ...ownLabels() } },
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

    const cronJob = (objectName: string, schedule: string | undefined, podLabels: Record<string, string>, podSpec: pulumi.Input<PodSpec>, further: { ttlSecondsAfterFinished?: number } = {}) =>
      new k8s.batch.v1.CronJob(...transformed<k8s.batch.v1.CronJobArgs>(
        args.transform?.[objectName === names.backup ? "backup" : "verify"],
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
              spec: { backoffLimit: 2, activeDeadlineSeconds: 43200, ...further, template: { metadata: { labels: podLabels }, spec: podSpec } },
            },
          },
        },
        { ...parent, dependsOn: [binding, secrets, environment, script, status, ...ssh, ...folders] },
      ));
    const controllerPod = pulumi.output(args.controllerPod as PodSpec);
    cronJob(names.backup, args.schedule, saverLabels, saverPod(args, controllerPod.apply((pod) => (pod as unknown as V1PodSpec).containers.find((each) => each.name === "jenkins")!.image!)));
    cronJob(names.verify, args.verifySchedule, verifierLabels, controllerPod.apply((pod) => verifierPod(args, pod as unknown as V1PodSpec)),
      // A claim of the pod's own is there for as long as the pod is listed.
      args.verifyVolume?.storageClassName === undefined ? {} : { ttlSecondsAfterFinished: 600 });

    if (args.standby) makeStandby(name, args, args.standby, controllerPod, { ...parent, dependsOn: [binding, secrets, environment, script, status, ...ssh, ...folders] });

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
