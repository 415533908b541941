import { type KubernetesObject, meets, nodesOf, type Term } from "../backup/objects";
import { age } from "../backup/plan";
import { UsageError } from "../terminal";
import { quantityMillis } from "../../components/quantity";

/** What a failover decides and says, without a cluster. */

/** Steps in their order; the journal holds the last one that was done. */
export const PHASES = ["planned", "fenced", "saved", "swapped", "taken", "started", "checked"] as const;
type Phase = (typeof PHASES)[number];

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
  /** The former home has what backups leave out, so it was not made a standby. */
  kept?: boolean;
  /** When the home's claim got its volume, where that came after the snapshot: by a restore, mostly. */
  since?: string;
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

/** Whether the volume that is left stays a former home until a person gives it up. */
export const leavesHome = ({ lost, turns, kept = false }: Pick<Journal, "lost" | "turns" | "kept">): boolean => lost || turns > 0 || kept;

/** The node that a volume lies on; "" where several can mount it. */
export function nodeOf(volume: KubernetesObject, nodes: KubernetesObject[]): string {
  const found = nodesOf(volume, nodes);
  return found.length === 1 ? found[0] : "";
}

/** Why the controller's pod would not be put on a node, by its labels; undefined where it would, as far as labels say. */
export function misfit({ nodeSelector = {}, affinity }: KubernetesObject, node: KubernetesObject): string | undefined {
  const missing = Object.entries(nodeSelector as Record<string, string>).filter(([key, value]) => node.metadata.labels?.[key] !== value);
  if (missing.length > 0) return `it lacks label ${missing.map(([key, value]) => `${key}=${value}`).join(", ")} of controller.nodeSelector`;
  const terms = (affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms ?? []) as Term[];
  if (terms.length > 0 && !terms.some((term) => meets(node, term))) return `it has none of the labels that the controller's pod requires: ${terms.flatMap(({ matchExpressions = [] }) => matchExpressions.map(({ key, values = [] }) => `${key} ${values.join(" or ")}`)).join(", ")}`;
  return undefined;
}

/** Said of a volume that lies on no node in particular. */
export const anyNode = (volume: string): string => `volume ${volume} can be mounted on several nodes, or says nothing of nodes: a standby is for volumes that lie on one node's disk; a home that does not follows Jenkins by itself`;

/** What the cluster says before a failover. */
export interface Facts {
  home: { place?: Place; request: string };
  standby?: { place?: Place; capacity?: string };
  /** Last result of the standby, and its last good one. */
  last?: StandbyResult;
  good?: StandbyResult;
  lost: (node: string) => boolean;
  /** Why Jenkins would not be put on the standby's node. */
  misfit?: string;
  /** Node that was asked for. */
  to?: string;
}

/** What keeps a failover from being begun, for people; undefined where nothing does. */
export function obstacle({ home, standby, last, good, lost, misfit: unfit, to }: Facts): string | undefined {
  const renew = "npm run failover -- STACK --renew";
  if (!standby) return "the stack has no standby: set backup.standby (node, everyMinutes) and run pulumi up; from the last backup: npm run restore -- --snapshot latest";
  if (!home.place) return "the home's claim has no volume yet: run pulumi up first";
  if (!standby.place) return "the standby's volume was never made: is its node there? kubectl describe pvc jenkins-home-standby";
  for (const { node, volume } of [home.place, standby.place]) if (node === "") return anyNode(volume);
  const [here, there] = [home.place.node, standby.place.node];
  if (to !== undefined && to !== there) return `the standby is on node ${there}, not on ${to}`;
  if (here === there) return `home and standby are on the same node ${here}: set backup.standby.node to another one, run pulumi up, then ${renew}`;
  if (lost(there)) return `node ${there}, which has the standby, does not answer${lost(here) ? `, and neither does ${here}, which has the home; with a third node: npm run restore -- --snapshot latest` : `; Jenkins is on ${here}`}`;
  if (unfit) return `Jenkins would not be started on node ${there}, which has the standby: ${unfit}; change the node's labels, or the config and run pulumi up`;
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
export function review({ from, to, lost, snapshot, taken, since }: Pick<Journal, "from" | "to" | "lost" | "snapshot" | "taken" | "since">, now: Date): string {
  const when = taken ? ` of ${taken} (${age(new Date(taken), now)})` : "";
  return lost
    ? [
        `Node ${from.node} does not answer. Starts Jenkins on the standby on node ${to.node}, as snapshot ${snapshot}${when}:`,
        "what was built since is not in it.",
        ...(since ? [`The home got its volume at ${since}, after that snapshot: where that was a restore of an older one, Jenkins is again as that snapshot has it,`, "and not as the restore left it. For that one in place of the standby: npm run restore -- --snapshot ID."] : []),
        `The home on ${from.node} stays as it is, for as long as nobody gives it up. Should that node be alive and only cut off, its Jenkins goes on`,
        "with its own builds on its own volume until the node is heard of again, then ends: switch it off where you can.",
      ].join("\n")
    : [
        `Node ${from.node} answers: Jenkins is stopped there, saved, and started on the standby on node ${to.node} with all that backups save.`,
        "Not with it: workspaces, caches and whatever else backups leave out (scripts/backup/excludes.txt, backup.excludes).",
        `The volume on ${from.node} is the standby from then on, and loses these; where it has anything that backup.excludes leaves out, or that a`,
        "restore put aside in .replaced, it stays as it is until npm run failover -- STACK --renew gives it up.",
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
