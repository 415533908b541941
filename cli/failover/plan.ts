import { type KubernetesObject } from "../backup/objects";
import { age } from "../backup/plan";
import { UsageError } from "../terminal";
import { quantityMillis } from "../../components/quantity";

/** What a failover decides and says, without a cluster. */

/** Steps in their order; the journal holds the last one that was done. */
export const PHASES = ["planned", "fenced", "saved", "swapped", "taken", "started", "checked"] as const;
export type Phase = (typeof PHASES)[number];

/** A volume and the node that it lies on. */
export interface Place {
  volume: string;
  node: string;
}

/** A claim as somebody wrote it, and the field manager under which Pulumi did. */
export interface Claim {
  written: KubernetesObject;
  manager?: string;
}

/** What a failover knows about itself. Kept as JSON in the ConfigMap FAILOVER_JOURNAL. */
export interface Journal {
  id: string;
  phase: Phase;
  /** Where the home was, and the standby that becomes the home. */
  from: Place;
  to: Place;
  /** The home's node did not answer: the standby is taken as the newest snapshot has it. Else Jenkins is stopped and saved first. */
  lost: boolean;
  /** How often it was turned around, because the node that it went to was lost, or by a person. */
  turns: number;
  home: Claim;
  standby: Claim;
  /** What the standby is to hold, and when that was taken. */
  snapshot: string;
  taken: string;
  replicas: number;
  /** Whether the CronJobs were suspended before. */
  suspended: Record<string, boolean>;
  startedAt: string;
}

/** What ConfigMap jenkins-backup-status keeps of a standby's updates. */
export interface StandbyResult {
  status: "ok" | "failed" | "former";
  time: string;
  snapshot?: string;
  /** When that snapshot was taken. */
  taken?: string;
  message?: string;
}

export const ahead = (journal: Journal, phase: Phase): boolean => PHASES.indexOf(journal.phase) < PHASES.indexOf(phase);

/** What the cluster says before a failover. */
export interface Facts {
  home: { place?: Place; request: string };
  standby?: { place?: Place; capacity?: string };
  /** Last result of the standby, and its last good one. */
  last?: StandbyResult;
  good?: StandbyResult;
  lost: (node: string) => boolean;
  /** Node that was asked for. */
  to?: string;
}

/** What keeps a failover from being begun, for people; undefined where nothing does. */
export function obstacle({ home, standby, last, good, lost, to }: Facts): string | undefined {
  const renew = "npm run failover -- STACK --renew";
  if (!standby) return "the stack has no standby: set backup.standby (node, everyMinutes) and run pulumi up; from the last backup: npm run restore -- --snapshot latest";
  if (!home.place) return "the home's claim has no volume yet: run pulumi up first";
  if (!standby.place) return "the standby's volume was never made: is its node there? kubectl describe pvc jenkins-home-standby";
  const [here, there] = [home.place.node, standby.place.node];
  if (to !== undefined && to !== there) return `the standby is on node ${there}, not on ${to}`;
  if (here === there) return `home and standby are on the same node ${here}: set backup.standby.node to another one, run pulumi up, then ${renew}`;
  if (lost(there)) return `node ${there}, which has the standby, does not answer${lost(here) ? `, and neither does ${here}, which has the home; with a third node: npm run restore -- --snapshot latest` : `; Jenkins is on ${here}`}`;
  if (last?.status === "former") return `the standby's volume on ${there} holds the former home, which is kept as it was; once nothing of it is needed any more: ${renew}`;
  if (!good) return `the standby was never brought up to date${last?.message ? `: ${last.message}` : ""}`;
  if (standby.capacity && quantityMillis(standby.capacity) < quantityMillis(home.request)) return `the standby's volume has ${standby.capacity}, the home asks for ${home.request}: ${renew} --fresh makes another one`;
  return undefined;
}

/** The way back of a failover under way: to where the home was. */
export function turned(journal: Journal): Journal {
  return { ...journal, from: journal.to, to: journal.from, phase: "planned", lost: true, turns: journal.turns + 1 };
}

/**
 * The failover to go on with: the one under way, or turned around, where the node that it goes to is lost and the other is not, or where a person wants that.
 * @throws UsageError where neither node answers, or another one was asked for
 */
export function continued(journal: Journal, lost: (node: string) => boolean, to?: string): Journal {
  const { from, to: goal } = journal;
  if (to !== undefined && to !== from.node && to !== goal.node) throw new UsageError(`the failover under way is from ${from.node} to ${goal.node}`);
  const wanted = to ?? (lost(goal.node) && !lost(from.node) ? from.node : goal.node);
  if (lost(wanted)) throw new UsageError(`node ${wanted} does not answer${to === undefined ? `, and neither does ${from.node}` : ""}; run the command again when one of them does`);
  return wanted === goal.node ? journal : turned(journal);
}

/** What a person approves. */
export function review({ from, to, lost, snapshot, taken }: Pick<Journal, "from" | "to" | "lost" | "snapshot" | "taken">, now: Date): string {
  const when = taken ? ` of ${taken} (${age(new Date(taken), now)})` : "";
  return lost
    ? [
        `Node ${from.node} does not answer. Starts Jenkins on the standby on node ${to.node}, as snapshot ${snapshot}${when}:`,
        "what was built since is not in it.",
        `The home on ${from.node} stays as it is, for as long as nobody gives it up. Should that node be alive and only cut off, its Jenkins goes on`,
        "with its own builds on its own volume until the node is heard of again, then ends: switch it off where you can.",
      ].join("\n")
    : [
        `Node ${from.node} answers: Jenkins is stopped there, saved, and started on the standby on node ${to.node} with all that it has.`,
        `The volume on ${from.node} is the standby from then on.`,
      ].join("\n");
}

/** Said where a failover ends before its end. */
export function standing({ phase, to, from }: Journal): string {
  return [
    `The failover to ${to.node} has not come to its end (last step done: ${phase}).`,
    "  npm run failover -- STACK                    go on, from the step that was not done",
    `  npm run failover -- STACK --to ${from.node}   back to where the home was`,
  ].join("\n");
}

/** How a claim of a standby that begins anew is written: without its former volume, on a node of its own. */
export function freshStandby(written: KubernetesObject, node: string, size: string, annotation: string): KubernetesObject {
  return { ...written, metadata: { ...written.metadata, annotations: { ...written.metadata.annotations, [annotation]: node } }, spec: { ...written.spec, resources: { requests: { storage: size } } } };
}
