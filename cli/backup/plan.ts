import { UsageError } from "../terminal";
import { HOME_CLAIM, type KubernetesObject } from "./objects";

export interface Snapshot {
  id: string;
  time: Date;
  /** Jobs and folders, and complete builds. */
  items: number;
  builds: number;
  /** Did not pass its examination; never taken for "latest". */
  suspect: boolean;
  /** Image of the controller that was about to be left. */
  leaving?: string;
}

/** Reads `restic snapshots --json` out of a pod's log, newest last. */
export function parseSnapshots(log: string): Snapshot[] {
  const line = log.split("\n").find((text) => text.startsWith("[") || text === "null");
  if (line === undefined) throw new Error(`restic printed no list of snapshots:\n${log.trim().slice(-500)}`);
  // `any`: restic's own JSON, whose fields differ between versions.
  const found = ((JSON.parse(line) as any[] | null) ?? []).map((s): Snapshot => {
    const tags = (s.tags ?? []) as string[];
    const count = (name: string) => Number(tags.find((tag) => tag.startsWith(`${name}=`))?.slice(name.length + 1) ?? 0);
    const leaving = tags.find((tag) => tag.startsWith("image="))?.slice("image=".length);
    return { ...(leaving && { leaving }), id: s.short_id, time: new Date(s.time), items: count("items"), builds: count("builds"), suspect: tags.includes("suspect") };
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

/** Steps of a restore in their order; the journal holds the last one that was done. */
export const PHASES = ["planned", "stopped", "saved", "filled", "swapped", "started", "checked"] as const;
export type Phase = (typeof PHASES)[number];

/** What holds the controller at an image, as in ConfigMap jenkins-held. */
export interface Hold extends Record<string, string> {
  image: string;
  /** The image that it took it from. */
  from: string;
  since: string;
}

/** What a restore knows about itself. Kept as JSON in the ConfigMap JOURNAL. */
export interface Journal {
  id: string;
  /** Last step that was done. */
  phase: Phase;
  /** A restore of the whole home, of one job, or the way back from the former. */
  kind: "home" | "job" | "rollback";
  /** Images of the controller, where the home goes back together with its image: the one that goes, by digest too where the cluster knows it, and the one that comes. */
  images?: { from: string; exact?: string; to: string };
  /** What held the controller before, which the way back puts there again. */
  formerHold?: Hold;
  /** Snapshot of the home as it was when Jenkins had stopped. */
  aside?: string;
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
          `  1. Jenkins stops (${running.pods} running now); builds and changes since the snapshot are not in it${journal.images ? ", and are saved as a last snapshot" : ""}`,
          `  2. the snapshot goes to a fresh volume${journal.node ? ` on node ${journal.node}` : ""} and is checked`,
          `  3. claim ${HOME_CLAIM} changes from volume ${journal.oldVolume ?? "(none yet)"} to the fresh one`,
          `  4. Jenkins starts${journal.images ? ` with image ${journal.images.to} in place of ${journal.images.from}` : ""} and lists its jobs and builds`,
          "The former volume is kept until: npm run restore -- --confirm",
        ];
  return [...lines, `Newest good backup: ${running.lastBackup ?? "none known"}`].join("\n");
}
