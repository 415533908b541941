import { names } from "../../components/jenkins-backup/names";
import { get, random, remove, say, theCron, where } from "../backup/cluster";
import { Book } from "../backup/journal";
import { BACKUP_CRON, DEPLOYMENT, FAILOVER_JOURNAL, HOME_CLAIM, JOURNAL, VERIFY_CRON } from "../backup/objects";
import { readStack } from "../stack";
import { approve, readWords, runCommand, UsageError } from "../terminal";
import { ahead, type Journal as Restore } from "../backup/plan";
import { continued, type Journal, leavesHome, misfit, obstacle, PHASES, review, standing } from "./plan";
import { asWritten, fence, finish, placeOf, renew, save, standbyResults, startBoth, swap, take, watchNodes } from "./steps";

/**
 * Jenkins on the standby: the command from its plan to its end. plan.ts decides and says without a cluster, steps.ts changes the
 * cluster, and scripts/backup/standby.sh the volumes. What it did stands in a journal in the cluster: whatever ends it, the same
 * command goes on. See docs/backup.md.
 */

const HELP = `npm run failover -- [STACK]            start Jenkins on the standby; run again it goes on where it stopped, and later goes back
npm run failover -- [STACK] --to NODE  the same, and nothing where Jenkins is on that node already
npm run failover -- [STACK] --renew    make a standby of the home that a failover left; where its node is gone, of a fresh volume on backup.standby.node
npm run failover -- [STACK] --status   how far one is that was begun
Options: --yes (no question), --fresh (with --renew: a fresh volume anyway), --context C and --namespace N in place of STACK
`;

const book = new Book<Journal>(FAILOVER_JOURNAL, "failover");

async function plan(to: string | undefined, yes: boolean, lost: (node: string) => boolean): Promise<Journal | undefined> {
  const [home, standby, deployment] = [await get("pvc", HOME_CLAIM), await get("pvc", names.standbyClaim), await get("deployment", DEPLOYMENT)];
  if (!home || !deployment) throw new Error(`namespace ${where.namespace} has no ${home ? `Deployment ${DEPLOYMENT}` : `claim ${HOME_CLAIM}`}: run pulumi up first`);
  const restore = await new Book<Restore>(JOURNAL, "restore").load();
  if (restore) throw new UsageError(ahead(restore, "checked") ? "a restore has not come to its end: npm run restore -- --status tells it" : "a restore is done and nobody has accepted it: look at Jenkins, then npm run restore -- --confirm, or --rollback; then this again");
  await theCron(BACKUP_CRON);
  const [from, goal, { last, good, backup }] = [await placeOf(home), await placeOf(standby), await standbyResults()];
  if (to !== undefined && to === from?.node) return void say(`Jenkins' home is on ${to} already; nothing to do.`);
  const node = goal?.node ? await get("node", goal.node) : undefined;
  const unfit = node && misfit(deployment.spec.template.spec, node);
  const found = obstacle({ home: { request: home.spec.resources.requests.storage, ...(from && { place: from }) }, ...(standby && { standby: { ...(goal && { place: goal, capacity: goal.capacity }) } }), last, good, lost, ...(unfit && { misfit: unfit }), ...(to && { to }) });
  if (found) throw new UsageError(found);
  const suspended: Record<string, boolean> = {};
  for (const name of [BACKUP_CRON, VERIFY_CRON]) suspended[name] = (await get("cronjob", name))?.spec.suspend ?? false;
  const at = ({ volume, node }: { volume: string; node: string }) => ({ volume, node });
  const [taken, since] = [backup?.time ?? good!.taken ?? "", home.metadata.creationTimestamp as string];
  const journal: Journal = {
    id: random(), phase: "planned", from: at(from!), to: at(goal!), lost: lost(from!.node), turns: 0, home: asWritten(home), standby: asWritten(standby!),
    snapshot: backup?.snapshot ?? good!.snapshot!, taken, ...(Date.parse(since) > Date.parse(taken) && { since }), replicas: Math.max(1, deployment.spec.replicas ?? 1), suspended, startedAt: new Date().toISOString(),
  };
  say(review(journal, new Date()));
  await approve("failover", yes);
  await book.save(journal);
  return journal;
}

async function proceed(journal: Journal, lost: ReturnType<typeof watchNodes>): Promise<void> {
  const began = Date.now();
  await book.proceed(journal, PHASES, standing, async (step) => {
    await step("fenced", `end Jenkins on ${journal.from.node} and pause its backups`, () => fence(lost));
    await step("saved", journal.lost ? `leave the home on ${journal.from.node} as it is` : "save the home as it is now", () => save(journal, (now) => book.save(now), lost));
    await step("swapped", `give volume ${journal.to.volume} on ${journal.to.node} to claim ${HOME_CLAIM}`, () => swap(journal));
    await step("taken", "make the standby the home", () => take(journal));
    await step("started", `start Jenkins on ${journal.to.node}`, () => startBoth(journal));
    await step("checked", "ask Jenkins for its jobs and builds", () => finish(journal));
  });
  await remove("configmap", FAILOVER_JOURNAL);
  say(`Jenkins is on ${journal.to.node} (${((Date.now() - began) / 1000).toFixed(0)} s).`);
  if (leavesHome(journal)) say(`The home that was left on ${journal.from.node} is kept, and there is no standby until that is given up, which makes it the standby again:\n  npm run failover -- STACK --renew`);
  else say(`The volume on ${journal.from.node} is the standby now. Back again: the same command.`);
}

async function main(args: string[]): Promise<void> {
  const [text, flag] = [{ type: "string" } as const, { type: "boolean" } as const];
  const { values, positionals: [stack] } = readWords(args, { to: text, namespace: text, context: text, renew: flag, fresh: flag, status: flag, yes: flag }, 1);
  const { to, namespace, context, yes = false } = values;
  if (stack !== undefined && (namespace ?? context) !== undefined) throw new UsageError("STACK says where Jenkins is; --namespace and --context do not go with it");
  if (values.fresh && !values.renew) throw new UsageError("--fresh goes with --renew");
  if ((namespace ?? context) !== undefined) Object.assign(where, { context, namespace: namespace ?? "jenkins" });
  else {
    const { config: { cluster, namespaces } } = await readStack(stack);
    Object.assign(where, cluster, { namespace: namespaces.jenkins });
  }
  const under = await book.load();
  if (values.status) return void say(under ? standing(under) : "no failover is under way");
  if (values.renew) {
    if (under) throw new UsageError(standing(under));
    const { last } = await standbyResults();
    say(`Whatever the standby's volume holds that no snapshot has is given up.${last ? ` It is: ${last.message || last.status}.` : ""}`);
    await approve("failover", yes);
    await renew(values.fresh ?? false);
    return void say("The standby is brought up to date by itself; npm run status says how far it is.");
  }
  const watch = watchNodes();
  const lost = await watch();
  const journal = under ? continued(under, lost, to) : await plan(to, yes, lost);
  if (!journal) return;
  if (under) {
    say(`going on with the failover to ${under.to.node} begun at ${under.startedAt}; last step done: ${under.phase}${journal === under ? "" : `; it turns around, to ${journal.to.node}`}`);
    if (journal !== under) await book.save(journal);
  }
  await proceed(journal, watch);
}

void runCommand("failover", HELP, main);
