import * as fs from "node:fs";
import * as path from "node:path";
import type * as k8s from "@pulumi/kubernetes";
import { canonicalResources, scratch } from "../quantity";
import { goMounts, goTrust, networkVolumes } from "../surroundings";
import { type JenkinsBackupArgs, type ResticArgs, sftpCommand, usualResources } from "./args";
import { names } from "./names";

type Container = k8s.types.input.core.v1.Container;
type Volume = k8s.types.input.core.v1.Volume;
type VolumeMount = k8s.types.input.core.v1.VolumeMount;

const isFolder = (repository: string) => repository.startsWith("/");

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
    ...(args.downloadLimit && { DOWNLOAD_LIMIT: String(args.downloadLimit) }),
    HOME: "/scratch",
    ...goTrust(args.surroundings),
    ...Object.fromEntries(Object.entries(commands).filter(([, value]) => value !== undefined)),
  };
  return {
    name: "restic",
    image: args.image,
    command,
    env: Object.entries(env).map(([name, value]) => ({ name, value })),
    envFrom: [{ secretRef: { name: `${names.backup}-environment` } }],
    resources: canonicalResources(args.resources ?? usualResources),
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
      ...goMounts(args.surroundings),
    ],
  };
}

/** Repositories that are folders of the nodes, and the volumes they are. */
export function folderRepositories(args: Pick<JenkinsBackupArgs, "repository" | "keysRepository">): { volume: string; folder: string }[] {
  return [
    { volume: "repository", folder: args.repository },
    { volume: "keys-repository", folder: args.keysRepository },
  ].filter(({ folder }) => isFolder(folder));
}

/** What restic's container mounts. */
export function resticVolumes(args: ResticArgs): Volume[] {
  return [
    { name: "secrets", secret: { secretName: names.backup, defaultMode: 0o440 } },
    { name: "scripts", configMap: { name: names.scripts } },
    { name: "status", configMap: { name: names.status, optional: true } },
    // restic's cache, but for the saver's: the metadata of all snapshots, of a repository of terabytes some GiB.
    { name: "work", ...scratch("50Gi") },
    { name: "tmp", ...scratch("20Gi") },
    ...folderRepositories(args).map(({ volume }) => ({ name: volume, persistentVolumeClaim: { claimName: `${names.backup}-${volume}` } })),
    ...(args.ssh ? [{ name: "ssh", secret: { secretName: `${names.backup}-ssh`, defaultMode: 0o440 } }] : []),
    ...networkVolumes(args.surroundings, false),
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

const scriptFiles = ["home.sh", "standby.sh", "report.sh", "controller-check.sh", "excludes.txt"];
const scriptsFolder = path.resolve(__dirname, "../../scripts/backup");

/** The files of scripts/backup that run in pods, with the line ends of Unix; `excludes` are added to the list of patterns left out. */
export function scripts(excludes: string[]): Record<string, string> {
  const files = Object.fromEntries(scriptFiles.map((file) => [file, fs.readFileSync(path.join(scriptsFolder, file), "utf8").replace(/\r\n/g, "\n")]));
  // What follows that line nobody makes again: standby.sh looks for it.
  if (excludes.length > 0) files["excludes.txt"] += ["# backup.excludes", ...excludes].map((line) => `${line}\n`).join("");
  files.passwd = "root:x:0:0:root:/root:/bin/sh\njenkins:x:1000:1000:jenkins:/scratch:/bin/sh\n";
  return files;
}
