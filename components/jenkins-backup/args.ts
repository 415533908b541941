import type * as k8s from "@pulumi/kubernetes";
import type * as pulumi from "@pulumi/pulumi";
import type { Resources } from "../quantity";
import type { Surroundings } from "../surroundings";
import type { Transform } from "../transform";

type PodSpec = k8s.types.input.core.v1.PodSpec;

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
  /** Image of restic with a POSIX shell, such as docker.io/restic/restic; 0.17 or later. */
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
  /**
   * Where a restored copy lies until it has been checked: a claim of this class and size, or without a class so much at most of the
   * disk that the kubelet uses. Default: that disk, without a bound. A class that keeps volumes would keep each copy.
   */
  verifyVolume?: { storageClassName?: pulumi.Input<string>; size: string };
  keep: Retention;
  /** A second volume on another node that follows the snapshots, of this class and size. Default none. */
  standby?: { node: string; storageClassName: pulumi.Input<string>; size: string };
  /** Patterns below jenkins_home to leave out beyond scripts/backup/excludes.txt. Default none. */
  excludes?: string[];
  /** Most KiB/s sent to the repository; 0 for no limit. Default 0. */
  uploadLimit?: number;
  /** Most KiB/s fetched from it, also by a restore; 0 for no limit. Default 0. */
  downloadLimit?: number;
  /**
   * Days between two upkeeps: the repository's check, all build numbers of the snapshot read back, retention and pruning, by the
   * backup that finds one due. 0: each of them. Default 7.
   */
  upkeepDays?: number;
  /** An upkeep each day reads one of so many parts of the repository back, the next one each time; one every third day three of them. Default 14: all of it in two weeks. */
  checkParts?: number;
  /** Requests and limits of restic, whose memory keeps below its limit where it can. Default 100m/256Mi, at most one processor and 1Gi. */
  resources?: Resources;
  /** Names of the pull secrets of the namespace. Default none. */
  pullSecrets?: string[];
  /** The network around, with the certificates in the ConfigMap that JenkinsMaster makes of them: its proxy, and who is trusted. Default none. */
  surroundings?: Surroundings;
  /** Last changes to the CronJobs, see components/transform.ts. */
  transform?: {
    backup?: Transform<k8s.batch.v1.CronJobArgs>;
    verify?: Transform<k8s.batch.v1.CronJobArgs>;
  };
}

/** What restic's container needs to know. */
export type ResticArgs = Omit<JenkinsBackupArgs, "namespace" | "homeClaim" | "controllerPod" | "pullSecrets" | "transform" | "standby">;

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

/** restic's container where nothing was said: 1 GiB is some four times what it took for a home of 1.5 GB (docs/bench.md). */
export const usualResources: Resources = { requests: { cpu: "100m", memory: "256Mi" }, limits: { cpu: "1", memory: "1Gi" } };
/** Days between two upkeeps where nothing was said. */
export const usualUpkeepDays = 7;

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
