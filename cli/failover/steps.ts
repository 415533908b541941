import { names, selectedNode } from "../../components/jenkins-backup/names";
import { answers, get, kubectl, list, listNodes, lostNodes, patch, random, remove, runJob, say, sleep, theCron } from "../backup/cluster";
import { Book } from "../backup/journal";
import { BACKUP_CRON, boundTo, claimAsWritten, HOME_CLAIM, type KubernetesObject, pulumiManager, RENEW_JOURNAL, resticJob, STATUS } from "../backup/objects";
import { runBackup } from "../backup/snapshots";
import { bind, check, keepVolumes, start, stop, unbind } from "../backup/steps";
import { UsageError } from "../terminal";
import { anyNode, type Claim, freshStandby, type Journal, leavesHome, nodeOf, type Place, type StandbyResult } from "./plan";

/** What a failover does to the cluster, step by step. Each may be run again at any time. */

/** Which nodes the cluster has noticed to be gone, and the kubelets' leases. */
const readNodes = async () => ({ noticed: await lostNodes(), leases: JSON.parse(await kubectl(["get", "leases", "-n", "kube-node-lease", "-o", "json"])).items as KubernetesObject[] });

/** So many leases, one every 10 s, another kubelet renews before one that says nothing is taken for gone. */
const SILENT = 3;

/**
 * Tells nodes that are gone: those that the cluster has noticed, which takes it 40 to 60 s, and those whose kubelet says nothing while
 * another one does. A node that is given up too early harms nobody: the volumes are two, and whoever writes to one holds its lock.
 */
export function watchNodes(look = readNodes): () => Promise<(node: string) => boolean> {
  /** Of each node its lease, how often that was seen to change, and how often those of all nodes had changed then. */
  const heard = new Map<string, { renewed: string; times: number; then: Map<string, number> }>();
  return async () => {
    const { noticed, leases } = await look();
    for (const { metadata: { name }, spec: { renewTime } } of leases) {
      const known = heard.get(name);
      if (known?.renewed !== renewTime) heard.set(name, { renewed: renewTime, times: (known?.times ?? -1) + 1, then: new Map([...heard].map(([other, { times }]) => [other, times])) });
    }
    const silent = (node: string) => [...heard].some(([other, { times }]) => other !== node && times - (heard.get(node)?.then.get(other) ?? 0) >= SILENT);
    return (node) => noticed(node) || silent(node);
  };
}

/** The volume of a claim and its node, "" where several can mount it. */
export async function placeOf(claim: KubernetesObject | undefined): Promise<(Place & { capacity: string }) | undefined> {
  const volume = claim?.spec.volumeName && (await get("pv", claim.spec.volumeName));
  return volume && { volume: volume.metadata.name, node: nodeOf(volume, await listNodes()), capacity: volume.spec.capacity.storage };
}

/** A claim as the stack wrote it, also its choice of a node. */
export function asWritten(live: KubernetesObject): Claim {
  const written = claimAsWritten(live);
  const node = live.metadata.annotations?.[selectedNode];
  const manager = pulumiManager(live);
  if (node && live.metadata.name === names.standbyClaim) written.metadata.annotations = { ...written.metadata.annotations, [selectedNode]: node };
  return { written, ...(manager && { manager }) };
}

/** Last result of the standby, and its last good one. */
export async function standbyResults(): Promise<{ last?: StandbyResult; good?: StandbyResult; backup?: { snapshot: string; time: string } }> {
  const data = (await get("configmap", STATUS))?.data ?? {};
  const read = (key: string) => (data[key] ? JSON.parse(data[key]) : undefined);
  return { last: read("last-standby"), good: read("last-good-standby"), backup: read("last-good-backup") };
}

/** Runs home.sh on a claim's volume; returns what it said. */
async function onVolume(name: string, claim: string, words: string[]): Promise<string> {
  const { ok, log } = await runJob(resticJob(await theCron(BACKUP_CRON), name, `sh /scripts/home.sh ${words.join(" ")}`, claim), "restic", (node) => `node ${node} does not answer any more; the same command again goes on, to the other node where that one answers`);
  const lines = log.trim().split("\n");
  if (!ok) throw new Error(lines.filter((line) => !/^\d\d:/.test(line)).slice(-3).join("\n"));
  for (const line of lines.filter((text, i) => text.includes("warning: ") || i === lines.length - 1)) say(`   ${line}`);
  return log;
}

export const fence = (lost: () => Promise<(node: string) => boolean>) => stop([names.standby], lost);

/**
 * Saves the home, once nobody writes to it any more, and makes a standby of it, unless it has what backups leave out. Where its node is
 * lost meanwhile, that is noted instead.
 */
export async function save(journal: Journal, noted: (journal: Journal) => Promise<void>, lost: () => Promise<(node: string) => boolean>): Promise<void> {
  // One that is silent may be slow, and what it has is saved: it is given up once it leaves two questions in a row unanswered as well, or the cluster has noticed.
  const gone = async (): Promise<boolean> => {
    for (let unanswered = 0; !(await lostNodes())(journal.from.node); ) {
      if (!(await lost())(journal.from.node)) return false;
      unanswered = (await answers(journal.from.node)) === false ? unanswered + 1 : 0;
      if (unanswered === 2) return true;
      await sleep(1);
    }
    return true;
  };
  if (!journal.lost && !(await gone())) {
    try {
      // A pod that was given up while its node was silent is gone for the cluster, and its Jenkins may still write.
      await onVolume(jobName(journal, `wait-${random()}`), HOME_CLAIM, ["standby-wait", "/target"]);
      const { snapshot, time } = await runBackup({ acceptShrink: false, upkeep: false });
      Object.assign(journal, { snapshot, taken: time });
      await noted(journal);
      const said = await onVolume(jobName(journal, "give"), HOME_CLAIM, ["standby-give", "/target", journal.snapshot, journal.taken]);
      journal.kept = said.includes("this home is kept as it is");
      return await noted(journal);
    } catch (error) {
      if (!(await gone())) throw error;
    }
  }
  if (journal.lost) return;
  journal.lost = true;
  say(`   node ${journal.from.node} does not answer: what was built since snapshot ${journal.snapshot} is not in the standby`);
  await noted(journal);
}

const jobName = ({ id, turns }: Journal, what: string) => `jenkins-failover-${id}-${what}-${turns}`;

/** Ends when both have ended, also where one failed: nothing of it goes on behind the back of whoever runs the command again. */
async function both(...works: Promise<void>[]): Promise<void> {
  for (const ended of await Promise.allSettled(works)) if (ended.status === "rejected") throw ended.reason as Error;
}

/** Gives each of the two claims the other's volume. */
export async function swap({ home, standby, from, to }: Journal): Promise<void> {
  await keepVolumes(from.volume, to.volume);
  for (const { volume } of [from, to]) if (!(await get("pv", volume))) throw new Error(`volume ${volume} is gone`);
  // Both at once, for Jenkins is away meanwhile; neither claim is made before both are gone.
  await both(unbind(HOME_CLAIM, to.volume), unbind(names.standbyClaim, from.volume));
  await both(bind(boundTo(home.written, to.volume), to.volume, home.manager), bind(boundTo(standby.written, from.volume), from.volume, standby.manager));
}

/** Makes a home of the standby, which has the home's claim now. */
export async function take(journal: Journal): Promise<void> {
  await onVolume(jobName(journal, "take"), HOME_CLAIM, ["standby-take", "/target", journal.snapshot, journal.id, ...(journal.turns > 0 ? ["home"] : journal.lost ? [] : ["exact"])]);
}

export async function startBoth(journal: Journal): Promise<void> {
  await start(journal);
  await kubectl(["scale", "deployment", names.standby, "--replicas=1"]);
}

/** Asks Jenkins for its jobs and builds, lets backups go on, and says what the volume that was left is now. */
export async function finish(journal: Journal): Promise<void> {
  await check({ suspended: journal.suspended });
  const { from, snapshot, taken } = journal;
  const time = new Date().toISOString();
  const left: StandbyResult = leavesHome(journal) ? { status: "former", time, message: `the volume on ${from.node} holds the former home, which is kept as it was; npm run failover -- STACK --renew makes it the standby again` } : { status: "ok", time, snapshot, taken };
  const text = JSON.stringify(left);
  await patch("configmap", STATUS, { data: { "last-standby": text, ...(left.status === "ok" && { "last-good-standby": text }) } });
}

/** The standby's claim, while it is taken away from its volume and not made anew yet. */
const claims = new Book<Claim>(RENEW_JOURNAL, "renewal");

/**
 * Makes a standby of the volume that a failover left, or, where its node is gone, or on `fresh`, of a new one on the node that the stack names.
 * Whatever it has that no snapshot has is given up; a volume that is left for a new one stays.
 */
export async function renew(fresh: boolean): Promise<void> {
  const [home, live, begun] = [await get("pvc", HOME_CLAIM), await get("pvc", names.standbyClaim), await claims.load()];
  if (!home || !(live ?? begun)) throw new UsageError("the stack has no standby: set backup.standby and run pulumi up");
  const [here, there, { last }] = [await placeOf(home), await placeOf(live), await standbyResults()];
  const lost = await lostNodes();
  // Without a live one an earlier run was cut off before it had made the new one.
  const { written, manager } = live ? asWritten(live) : begun!;
  const wanted = written.metadata.annotations?.[selectedNode] as string;
  // Before anything follows a snapshot again, whose own result is not to be written over.
  const filling = () => patch("configmap", STATUS, { data: { "last-standby": JSON.stringify({ status: "failed", time: new Date().toISOString(), message: "is being filled" }), "last-good-standby": null } });
  if (there && there.node === "" && !fresh) throw new UsageError(anyNode(there.volume));
  if (there && !fresh && !lost(there.node) && there.node !== here?.node) {
    // One that followed until now is a standby already, and stays one.
    if (last?.status !== "ok") await filling();
    await onVolume(`jenkins-failover-renew-${Date.now().toString(36)}`, names.standbyClaim, ["standby-renew", "/target"]);
    return;
  }
  if (wanted === here?.node) throw new UsageError(`Jenkins is on node ${wanted}, which backup.standby.node names: set that to another node, run pulumi up, then this again`);
  if (lost(wanted)) throw new UsageError(`node ${wanted}, which backup.standby.node names, does not answer: set that to another node, run pulumi up, then this again`);
  await kubectl(["scale", "deployment", names.standby, "--replicas=0"]);
  for (const pod of await list("pods", "app.kubernetes.io/name=jenkins-backup,app.kubernetes.io/component=standby")) await remove("pod", pod.metadata.name, ...(pod.spec.nodeName && !lost(pod.spec.nodeName) ? ["--wait=true"] : ["--force", "--grace-period=0", "--wait=false"]));
  await keepVolumes(there?.volume);
  await claims.save({ written, ...(manager && { manager }) });
  await unbind(names.standbyClaim);
  await filling();
  const claim = freshStandby(written, wanted, home.spec.resources.requests.storage, selectedNode);
  await kubectl(["apply", "--server-side", "--force-conflicts", "--field-manager", manager ?? "jenkins-restore", "-f", "-"], JSON.stringify(claim));
  await kubectl(["scale", "deployment", names.standby, "--replicas=1"]);
  await remove("configmap", RENEW_JOURNAL);
  say(`   the standby begins in a fresh volume on ${wanted}${there ? `; volume ${there.volume} on ${there.node} is kept, kubectl delete pv ${there.volume} forgets it` : ""}`);
}
