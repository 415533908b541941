/**
 * What `npm run backup`, `backups` and `restore` decide and render, as pure functions over Kubernetes objects.
 */

/** A Kubernetes object as kubectl prints it. */
// `any`: fields are read from many kinds, and written back as they came.
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type KubernetesObject = Record<string, any>;

export const HOME_CLAIM = "jenkins-home";
export const DEPLOYMENT = "jenkins";
export const BACKUP_CRON = "jenkins-backup";
export const VERIFY_CRON = "jenkins-backup-verify";
export const STATUS = "jenkins-backup-status";
/** ConfigMap in which a restore keeps what it has done, so that it can be run again. */
export const JOURNAL = "jenkins-restore";
export const SAVER_SELECTOR = "app.kubernetes.io/name=jenkins-backup,app.kubernetes.io/component=saver";
/** Left in a restored home for the check after its start. */
export const INVENTORY_FILE = ".restore-inventory";
/** Field manager of what a restore writes for good. */
export const MANAGER = "jenkins-restore";

/** A mistake of the person at the keyboard; ends with exit code 2. */
export class UsageError extends Error {}

export interface Options {
  command: "backup" | "list" | "diff" | "verify" | "restore" | "confirm" | "rollback" | "status";
  /** Stack whose file says where it is: kubeconfig, context and namespace. */
  stack?: string;
  kubeconfig?: string;
  context?: string;
  /** Namespace of the controller. Default jenkins. */
  namespace: string;
  snapshot?: string;
  /** Second snapshot of a diff. */
  other?: string;
  job?: string;
  folder?: string;
  node?: string;
  size?: string;
  acceptShrink: boolean;
  yes: boolean;
}

export const HELP = `npm run backup  [-- --accept-shrink]        save jenkins_home now
npm run backups                             list the snapshots
npm run backups -- diff SNAPSHOT SNAPSHOT   what changed between two of them
npm run backups -- verify [--snapshot ID]   boot a restored copy and compare its jobs and builds
npm run restore -- --snapshot latest|ID     put a snapshot in the place of jenkins_home
npm run restore -- --snapshot now --node N  move jenkins_home to another node: stop, save, restore there, start
npm run restore -- --snapshot ID --job NAME put back one job (FOLDER/NAME for a job in a folder)
npm run restore -- --folder DIR             take over a plain jenkins_home folder of this machine
npm run restore                             go on with a restore that was interrupted
npm run restore -- --status                 how far it is
npm run restore -- --confirm                accept it: the former volume is deleted
npm run restore -- --rollback               undo it: back to the former volume
Options: --stack NAME (where its file says), or --to CONTEXT|NAMESPACE, --context C, --namespace N (default jenkins); --node NAME, --size 20Gi, --yes (no question)
`;

/**
 * Reads the command line.
 * @param contexts names of the kubeconfig's contexts, to tell them from namespaces after --to
 * @throws UsageError naming the argument
 */
export function parseArguments([command, ...rest]: string[], contexts: string[]): Options {
  const options: Options = { command: "list", namespace: "jenkins", acceptShrink: false, yes: false };
  const words: string[] = [];
  const value = (name: string): string => {
    const text = rest.shift();
    if (text === undefined || text.startsWith("--")) throw new UsageError(`${name} needs a value`);
    return text;
  };
  let mode: Options["command"] | undefined;
  while (rest.length > 0) {
    const word = rest.shift()!;
    switch (word) {
      case "--snapshot": options.snapshot = value(word); break;
      case "--job": options.job = value(word); break;
      case "--folder": options.folder = value(word); break;
      case "--node": options.node = value(word); break;
      case "--size": options.size = value(word); break;
      case "--stack": options.stack = value(word); break;
      case "--context": options.context = value(word); break;
      case "--namespace": options.namespace = value(word); break;
      case "--to": {
        const target = value(word);
        if (contexts.includes(target)) options.context = target;
        else options.namespace = target;
        break;
      }
      case "--accept-shrink": options.acceptShrink = true; break;
      case "--yes": options.yes = true; break;
      case "--confirm": case "--rollback": case "--status":
        if (mode) throw new UsageError(`${word} and --${mode} cannot be given together`);
        mode = word.slice(2) as Options["command"];
        break;
      default:
        if (word.startsWith("-")) throw new UsageError(`${word} is no option; --help lists them`);
        words.push(word);
    }
  }
  if (options.stack !== undefined && (options.context !== undefined || options.namespace !== "jenkins")) throw new UsageError("--stack says where the home is; --to, --context and --namespace do not go with it");
  if (command === "restore") {
    options.command = mode ?? "restore";
    if (words.length > 0) throw new UsageError(`"${words[0]}" is no option; did you mean --snapshot ${words[0]}?`);
    const sources = [options.snapshot, options.folder].filter(Boolean).length;
    if (mode && sources > 0) throw new UsageError(`--${mode} is about the restore under way and takes no --snapshot or --folder`);
    if (sources > 1) throw new UsageError("--snapshot and --folder cannot be given together");
    if (options.job !== undefined && options.snapshot === undefined) throw new UsageError("--job needs --snapshot: which one is it taken from?");
    if (options.job !== undefined && (options.node ?? options.size)) throw new UsageError("--job puts a job back into the home where it is; --node and --size do not go with it");
    if (options.job !== undefined && !options.job.split("/").every((part) => !/^(|\.|\.\.)$/.test(part))) throw new UsageError(`"${options.job}" is no job name; a job in a folder is written FOLDER/NAME`);
    if (options.job !== undefined && options.snapshot === "now") throw new UsageError("--snapshot now holds the job as it is; name an earlier snapshot (npm run backups)");
  } else if (command === "backup" || command === "list") {
    const [verb, ...names] = words;
    options.command = command === "backup" ? "backup" : verb === "diff" || verb === "verify" ? verb : "list";
    if (options.command === "diff") {
      if (names.length !== 2) throw new UsageError("diff needs two snapshots; npm run backups lists them");
      [options.snapshot, options.other] = names;
    } else if (options.command === "list" && verb !== undefined) throw new UsageError(`"${verb}" is neither diff nor verify`);
  } else throw new UsageError("no such command");
  for (const snapshot of [options.snapshot, options.other])
    if (snapshot !== undefined && !/^(latest|now|[0-9a-f]{6,64})$/.test(snapshot)) throw new UsageError(`"${snapshot}" is neither latest, now nor the id of a snapshot; npm run backups lists them`);
  return options;
}

export interface Snapshot {
  id: string;
  time: Date;
  /** Jobs and folders, and complete builds. */
  items: number;
  builds: number;
  /** Did not pass its examination; never taken for "latest". */
  suspect: boolean;
}

/** Reads `restic snapshots --json` out of a pod's log, newest last. */
export function parseSnapshots(log: string): Snapshot[] {
  const line = log.split("\n").find((text) => text.startsWith("[") || text === "null");
  if (line === undefined) throw new Error(`restic printed no list of snapshots:\n${log.trim().slice(-500)}`);
  // `any`: restic's own JSON, whose fields differ between versions.
  const found = ((JSON.parse(line) as any[] | null) ?? []).map((s): Snapshot => {
    const tags = (s.tags ?? []) as string[];
    const count = (name: string) => Number(tags.find((tag) => tag.startsWith(`${name}=`))?.slice(name.length + 1) ?? 0);
    return { id: s.short_id, time: new Date(s.time), items: count("items"), builds: count("builds"), suspect: tags.includes("suspect") };
  });
  return found.sort((a, b) => a.time.getTime() - b.time.getTime());
}

/**
 * The snapshot that `latest` or an id stands for. One from the future was made while a clock was wrong: it is latest
 * only where there is no other.
 * @throws UsageError where there is none
 */
export function pickSnapshot(snapshots: Snapshot[], wanted: string, now = new Date()): Snapshot {
  const sound = snapshots.filter((s) => !s.suspect);
  const past = sound.filter((s) => s.time.getTime() <= now.getTime() + 300_000);
  const good = past.length > 0 ? past : sound;
  const found = wanted === "latest" ? good[good.length - 1] : snapshots.find((s) => wanted.startsWith(s.id) || s.id.startsWith(wanted));
  if (!found) throw new UsageError(wanted === "latest" ? "there is no good snapshot in the repository" : `there is no snapshot ${wanted}; there are ${snapshots.map((s) => s.id).join(", ") || "none"}`);
  return found;
}

/** "3 h ago", for people. */
export function age(then: Date, now: Date): string {
  const minutes = Math.round((now.getTime() - then.getTime()) / 60000);
  if (minutes < 0) return "in the future: a clock is wrong";
  if (minutes < 120) return `${minutes} min ago`;
  return minutes < 48 * 60 ? `${Math.round(minutes / 60)} h ago` : `${Math.round(minutes / 60 / 24)} days ago`;
}

/** A job made from a CronJob's template, run once and not repeated by itself: somebody is looking at it. */
export function jobFromCron(cron: KubernetesObject, name: string, env: Record<string, string> = {}): KubernetesObject {
  const template = structuredClone(cron.spec.jobTemplate) as KubernetesObject;
  const containers = [...(template.spec.template.spec.initContainers ?? []), ...template.spec.template.spec.containers];
  const restic = containers.find((container) => container.name === "restic");
  restic.env = [...(restic.env ?? []).filter((e: { name: string }) => !(e.name in env)), ...Object.entries(env).map(([key, value]) => ({ name: key, value }))];
  return {
    apiVersion: "batch/v1",
    kind: "Job",
    metadata: {
      name,
      namespace: cron.metadata.namespace,
      labels: template.metadata?.labels ?? {},
      // Goes with the CronJob: a finished pod that is still listed would keep the home's claim from being deleted.
      ownerReferences: [{ apiVersion: "batch/v1", kind: "CronJob", name: cron.metadata.name, uid: cron.metadata.uid }],
    },
    spec: { ...template.spec, backoffLimit: 0, ttlSecondsAfterFinished: 86400 },
  };
}

/** Where a volume may be made: what the controller's own pod asks for, and a node where one was named. */
export interface Placement {
  nodeSelector?: Record<string, string>;
  tolerations?: unknown[];
}

/** A job that runs `home.sh` with other arguments, without the home; `claim` is mounted at /target. */
export function resticJob(cron: KubernetesObject, name: string, shell: string, claim?: string, placement: Placement = {}): KubernetesObject {
  const job = jobFromCron(cron, name);
  const labels = { ...job.metadata.labels, "app.kubernetes.io/component": "operator" };
  const spec = job.spec.template.spec;
  const own = new Set(["home", "token"]);
  const restic = (spec.initContainers as KubernetesObject[]).find((container) => container.name === "restic")!;
  const target = claim === undefined ? [] : [{ name: "target", mountPath: "/target" }];
  return {
    ...job,
    metadata: { ...job.metadata, labels },
    spec: {
      ...job.spec,
      template: {
        metadata: { labels },
        spec: {
          ...spec,
          affinity: undefined,
          initContainers: undefined,
          ...placement,
          containers: [{ ...restic, command: ["/bin/sh", "-c", shell], volumeMounts: [...restic.volumeMounts.filter((m: { name: string }) => !own.has(m.name)), ...target] }],
          volumes: [...spec.volumes.filter((v: { name: string }) => !own.has(v.name)), ...(claim === undefined ? [] : [{ name: "target", persistentVolumeClaim: { claimName: claim } }])],
        },
      },
    },
  };
}

/** Quotes a word for a shell. */
export function quote(word: string): string {
  return `'${word.replace(/'/g, `'\\''`)}'`;
}

/** Steps of a restore in their order; the journal holds the last one that was done. */
export const PHASES = ["planned", "stopped", "saved", "filled", "swapped", "started", "checked"] as const;
export type Phase = (typeof PHASES)[number];

/** What a restore knows about itself. Kept as JSON in the ConfigMap JOURNAL. */
export interface Journal {
  id: string;
  /** Last step that was done. */
  phase: Phase;
  /** A restore of the whole home, of one job, or the way back from the former. */
  kind: "home" | "job" | "rollback";
  snapshot?: string;
  job?: string;
  folder?: string;
  node?: string;
  size?: string;
  /** Replicas to start again. */
  replicas: number;
  /** Whether the CronJobs were suspended before. */
  suspended: Record<string, boolean>;
  /** The home's claim as it was. */
  claim: KubernetesObject;
  /** Field manager under which Pulumi wrote the claim. */
  manager?: string;
  /** Volume before the restore; absent where the claim was never bound. */
  oldVolume?: string;
  /** Volume that the snapshot was restored into. */
  newVolume?: string;
  startedAt: string;
}

/** Whether a restore has `phase` still before it. */
export function ahead(journal: Journal, phase: Phase): boolean {
  return PHASES.indexOf(journal.phase) < PHASES.indexOf(phase);
}

/** Name of the claim that a restore fills. */
export const freshClaim = (id: string): string => `${HOME_CLAIM}-${id}`;

const ownAnnotation = (key: string) => !/^(pv\.kubernetes\.io|volume\.(beta\.)?kubernetes\.io|kubectl\.kubernetes\.io)\//.test(key);

/** A claim as somebody wrote it, without what the cluster added when it was bound. */
export function claimAsWritten(live: KubernetesObject): KubernetesObject {
  const annotations = Object.fromEntries(Object.entries(live.metadata.annotations ?? {}).filter(([key]) => ownAnnotation(key)));
  const { accessModes, resources, storageClassName, volumeMode } = live.spec;
  return {
    apiVersion: "v1",
    kind: "PersistentVolumeClaim",
    metadata: {
      name: live.metadata.name,
      namespace: live.metadata.namespace,
      ...(live.metadata.labels && { labels: live.metadata.labels }),
      ...(Object.keys(annotations).length > 0 && { annotations }),
    },
    spec: { accessModes, resources, storageClassName, ...(volumeMode === "Block" && { volumeMode }) },
  };
}

/** The field manager under which Pulumi wrote an object, if it did; a new object under it stays Pulumi's own. */
export function pulumiManager(live: KubernetesObject): string | undefined {
  return (live.metadata.managedFields as { manager: string }[] | undefined)?.find(({ manager }) => manager.startsWith("pulumi-"))?.manager;
}

/** The claim that a restore fills: like the home's, under another name. */
export function emptyClaim(journal: Journal): KubernetesObject {
  const { spec, metadata } = journal.claim;
  return {
    apiVersion: "v1",
    kind: "PersistentVolumeClaim",
    metadata: { name: freshClaim(journal.id), namespace: metadata.namespace, labels: { "app.kubernetes.io/name": "jenkins-restore", "app.kubernetes.io/part-of": "build-platform" } },
    spec: { ...spec, ...(journal.size && { resources: { requests: { storage: journal.size } } }) },
  };
}

/** The home's claim, bound to a certain volume. */
export function boundClaim(journal: Journal, volume: string): KubernetesObject {
  return { ...journal.claim, spec: { ...journal.claim.spec, ...(journal.size && { resources: { requests: { storage: journal.size } } }), volumeName: volume } };
}

/** Whether a pod mounts a claim. */
export function mounts(pod: KubernetesObject, claim: string): boolean {
  return ((pod.spec.volumes ?? []) as KubernetesObject[]).some((volume) => volume.persistentVolumeClaim?.claimName === claim);
}

/** Nodes that a volume can be mounted on; none where it can be on any. */
export function hostsOf(volume: KubernetesObject): string[] {
  return ((volume.spec.nodeAffinity?.required?.nodeSelectorTerms ?? []) as KubernetesObject[]).flatMap((term) => term.matchExpressions ?? []).flatMap((expression: KubernetesObject) => expression.values ?? []) as string[];
}

/** Where a restore stands, and what a person can do now. Said by --status and wherever one ends before its end. */
export function standing(journal: Journal): string {
  const { kind, phase } = journal;
  const state = phase === "planned" ? "Jenkins is being stopped." : ahead(journal, "started") ? "Jenkins is stopped and its backups are paused." : phase === "started" ? "Jenkins has been started, its backups are paused." : "It is done.";
  const ways = phase === "checked" ? [] : ["  npm run restore                 go on, from the step that was not done"];
  if (!ahead(journal, "started")) ways.push(`  npm run restore -- --confirm    accept it${phase === "started" ? " as it is" : ""}${kind === "home" ? "; the former volume is deleted" : ""}`);
  if (kind === "home" || (kind === "job" && ahead(journal, "filled"))) ways.push("  npm run restore -- --rollback   undo it: Jenkins starts as it was before");
  if (kind === "job" && !ahead(journal, "filled")) ways.push("The job's former folder is in jenkins_home/.replaced.");
  return [state, ...ways].join("\n");
}

/** What a person approves before a restore. */
export function review(journal: Journal, snapshot: Snapshot | undefined, running: { pods: number; lastBackup?: string }, now: Date): string {
  const what =
    journal.folder !== undefined
      ? `folder ${journal.folder}`
      : snapshot
        ? `snapshot ${snapshot.id} of ${snapshot.time.toISOString()} (${age(snapshot.time, now)}), ${snapshot.items} jobs and folders, ${snapshot.builds} builds${snapshot.suspect ? "; IT DID NOT PASS ITS EXAMINATION" : ""}`
        : "a snapshot that is taken once Jenkins has stopped";
  const lines =
    journal.kind === "job"
      ? [`Puts job ${journal.job} back from ${what}.`, "Jenkins is stopped meanwhile; the job as it is now is kept in jenkins_home/.replaced."]
      : [
          `Puts ${what} in the place of jenkins_home in namespace ${journal.claim.metadata.namespace}.`,
          `  1. Jenkins stops (${running.pods} running now); builds and changes since the snapshot are not in it`,
          `  2. the snapshot goes to a fresh volume${journal.node ? ` on node ${journal.node}` : ""} and is checked`,
          `  3. claim ${HOME_CLAIM} changes from volume ${journal.oldVolume ?? "(none yet)"} to the fresh one`,
          "  4. Jenkins starts and lists its jobs and builds",
          "The former volume is kept until: npm run restore -- --confirm",
        ];
  return [...lines, `Newest good backup: ${running.lastBackup ?? "none known"}`].join("\n");
}
