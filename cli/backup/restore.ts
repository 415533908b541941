import * as path from "node:path";
import { heldName } from "../../components/jenkins-master/save-first";
import { approve, UsageError } from "../terminal";
import type { Options } from "./arguments";
import { askRestic, get, homeIsAway, listNodes, lostHome, patch, random, remove, say, theCron, where } from "./cluster";
import { Book } from "./journal";
import { awayWith, BACKUP_CRON, claimAsWritten, DEPLOYMENT, FAILOVER_JOURNAL, freshClaim, HOME_CLAIM, JOURNAL, pulumiManager, quote, STATUS, VERIFY_CRON } from "./objects";
import { ahead, type Hold, type Journal, PHASES, pickSnapshot, review, standing } from "./plan";
import { runBackup, snapshots } from "./snapshots";
import { bindHome, check, fill, release, start, stop } from "./steps";

/**
 * A restore from its plan to its confirmation. It keeps its progress in the cluster (the journal): whatever ends it, running
 * `npm run restore` again goes on where it stopped.
 */

const book = new Book<Journal>(JOURNAL, "restore");
export const loadJournal = () => book.load();
const saveJournal = (journal: Journal) => book.save(journal);

/** Does what must not happen beside a restore that is at work, with the journal as it is then. */
export const alone = (work: (journal: Journal) => Promise<void>): Promise<void> =>
  book.alone(async () => {
    const journal = await loadJournal();
    if (!journal) throw new UsageError("no restore is under way any more");
    await work(journal);
  });

/** Takes the steps that are still ahead. */
export async function proceed(journal: Journal): Promise<void> {
  await book.proceed(journal, PHASES, standing, async (step) => {
    await step("stopped", "stop Jenkins and pause its backups", stop);
    if (journal.kind !== "rollback")
      await step("saved", journal.snapshot === "now" || journal.images ? "save the home as it is now" : "take the snapshot that was chosen", async () => {
        if (journal.images) {
          journal.aside = String((await runBackup({ acceptShrink: true, upkeep: false, leaving: journal.images.exact ?? journal.images.from })).snapshot);
          say(`   the home as it is now is snapshot ${journal.aside}`);
        }
        if (journal.snapshot === "now") journal.snapshot = String((await runBackup({ acceptShrink: false, upkeep: false })).snapshot);
      });
    if (journal.kind !== "rollback")
      await step("filled", journal.kind === "job" ? `put job ${journal.job} back` : "fill a fresh volume and check it", async () => {
        await fill(journal);
        if (journal.kind === "home") journal.newVolume = (await get("pvc", freshClaim(journal.id)))!.spec.volumeName;
      });
    if (journal.kind !== "job") {
      const volume = journal.kind === "rollback" ? journal.oldVolume : journal.newVolume;
      await step("swapped", `give volume ${volume} to claim ${HOME_CLAIM}`, () => bindHome(journal, volume!));
    }
    await step("started", `start Jenkins${journal.images ? ` of image ${journal.kind === "rollback" ? journal.images.from : journal.images.to}` : ""}`, () => start(journal));
    await step("checked", "ask Jenkins for its jobs and builds", () => check(journal));
  });
  await settle(journal);
}

async function settle(journal: Journal): Promise<void> {
  if (journal.kind !== "home") {
    if (journal.kind === "rollback" && journal.newVolume) say(`The volume of the restore, ${journal.newVolume}, is kept. To delete it with its files:\n  kubectl patch pv ${journal.newVolume} -p '{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}'`);
    await remove("configmap", JOURNAL);
    say(journal.kind === "job" ? "Done." : "Jenkins is back on its former volume.");
    return;
  }
  if (!journal.oldVolume) {
    await remove("configmap", JOURNAL);
    say("Done; there was no former volume.");
    return;
  }
  say(`Done. Look at Jenkins, then:\n  npm run restore -- --confirm    accept it; the former volume ${journal.oldVolume} is deleted\n  npm run restore -- --rollback   back to the former volume`);
}

export async function confirm(journal: Journal): Promise<void> {
  if (ahead(journal, "started")) throw new UsageError(`this restore has not come to its end\n${standing(journal)}`);
  for (const [name, suspend] of Object.entries(journal.suspended)) if (await get("cronjob", name)) await patch("cronjob", name, { spec: { suspend } });
  const old = journal.kind === "home" && journal.oldVolume && (await get("pv", journal.oldVolume));
  if (old && old.status?.phase !== "Bound") {
    const away = awayWith(old, await listNodes());
    if (away !== undefined) {
      await remove("pv", old.metadata.name, "--wait=false");
      say(`Volume ${old.metadata.name} is forgotten; its node ${away} does not answer, so what lies on that disk stays there.`);
    } else {
      await patch("pv", old.metadata.name, { spec: { persistentVolumeReclaimPolicy: "Delete" } });
      say(`Volume ${old.metadata.name} is being deleted.`);
    }
  }
  await remove("configmap", JOURNAL);
  say("The restore is confirmed.");
}

/** Turns a restore into its way back, whose steps are then taken as a restore's are. */
export async function turnBack(journal: Journal): Promise<void> {
  if (journal.kind === "rollback") return;
  const swapped = journal.newVolume !== undefined && (await get("pvc", HOME_CLAIM))?.spec.volumeName !== journal.oldVolume;
  if (journal.kind === "job" && !ahead(journal, "filled")) throw new UsageError(`the job is back already\n${standing(journal)}`);
  await remove("job", `jenkins-restore-${journal.id}`, "--wait=true", "--cascade=foreground");
  if (swapped && !journal.oldVolume) throw new UsageError("there was no volume before this restore, so there is no way back");
  if (!swapped) {
    const fresh = await get("pvc", freshClaim(journal.id));
    if (fresh?.spec.volumeName) await patch("pv", fresh.spec.volumeName, { spec: { persistentVolumeReclaimPolicy: "Delete" } });
    await release(freshClaim(journal.id));
    await remove("pvc", freshClaim(journal.id), "--wait=true", "--timeout=120s");
  }
  Object.assign(journal, { kind: "rollback", phase: swapped ? "planned" : "swapped", ...(swapped ? {} : { newVolume: undefined }) });
  await saveJournal(journal);
}

async function plan(options: Options & Pick<Journal, "images">): Promise<Journal> {
  const [claim, deployment] = [await get("pvc", HOME_CLAIM), await get("deployment", DEPLOYMENT)];
  if (!claim || !deployment) throw new Error(`namespace ${where.namespace} has no ${claim ? `Deployment ${DEPLOYMENT}` : `claim ${HOME_CLAIM}`}: run pulumi up first, then restore into what it made`);
  await theCron(BACKUP_CRON);
  if (await get("configmap", FAILOVER_JOURNAL)) throw new UsageError("a failover has not come to its end: npm run failover goes on with it");
  if (options.node && !(await get("node", options.node))) throw new UsageError(`there is no node ${options.node}`);
  // What is on a node that is gone can be neither saved nor changed; only an earlier snapshot of the whole home helps.
  const host = await lostHome();
  if (host && (options.snapshot === "now" || options.job !== undefined || options.images)) throw new UsageError(homeIsAway(host));
  const suspended: Record<string, boolean> = {};
  for (const name of [BACKUP_CRON, VERIFY_CRON]) {
    const cron = await get("cronjob", name);
    if (cron) suspended[name] = cron.spec.suspend ?? false;
  }
  const chosen = options.folder === undefined && options.snapshot !== "now" ? pickSnapshot(await snapshots(), options.snapshot ?? "latest") : undefined;
  if (chosen && options.job !== undefined) await askRestic(`exec sh /scripts/home.sh has-job ${chosen.id} ${quote(options.job)}`);
  const manager = pulumiManager(claim);
  const formerHold = options.images && ((await get("configmap", heldName))?.data as Hold | undefined);
  const journal: Journal = {
    id: random(),
    phase: "planned",
    kind: options.job === undefined ? "home" : "job",
    ...(options.folder === undefined && { snapshot: chosen?.id ?? "now" }),
    ...(options.job !== undefined && { job: options.job }),
    ...(options.folder !== undefined && { folder: path.resolve(options.folder) }),
    ...(options.images && { images: options.images }),
    ...(formerHold && { formerHold }),
    ...(options.node && { node: options.node }),
    ...(options.size && { size: options.size }),
    replicas: Math.max(1, deployment.spec.replicas ?? 1),
    suspended,
    claim: claimAsWritten(claim),
    ...(manager && { manager }),
    ...(claim.spec.volumeName && { oldVolume: claim.spec.volumeName }),
    startedAt: new Date().toISOString(),
  };
  const status = (await get("configmap", STATUS))?.data?.["last-good-backup"];
  say(review(journal, chosen, { pods: deployment.status?.readyReplicas ?? 0, lastBackup: status && JSON.parse(status).time }, new Date()));
  await approve("restore", options.yes);
  await saveJournal(journal);
  return journal;
}

/** @param options with `images` the controller's image goes back with the home */
export async function restore(options: Options & Pick<Journal, "images">): Promise<void> {
  const under = await loadJournal();
  const asked = options.snapshot ?? options.folder;
  if (under && asked !== undefined) {
    const same = (options.snapshot === undefined || options.snapshot === under.snapshot || (options.snapshot === "latest" && under.kind !== "rollback")) && (options.folder === undefined || path.resolve(options.folder) === under.folder) && options.job === under.job;
    if (!same || under.phase === "checked") throw new UsageError(`a restore of ${under.folder ?? under.snapshot} begun at ${under.startedAt} is ${under.phase === "checked" ? "done but neither confirmed nor rolled back" : `under way (${under.phase})`}; npm run restore -- --status, --confirm or --rollback`);
  }
  if (!under && asked === undefined) throw new UsageError(`no restore is under way; which snapshot? --help lists the ways`);
  if (under) say(`going on with the restore of ${under.folder ?? under.snapshot} begun at ${under.startedAt}; last step done: ${under.phase}`);
  await proceed(under ?? (await plan(options)));
}
