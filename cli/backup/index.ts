import * as os from "node:os";
import { readStack } from "../stack";
import { runCommand, UsageError } from "../terminal";
import { HELP, parseArguments } from "./arguments";
import { askRestic, run, say, where } from "./cluster";
import { standing } from "./plan";
import { alone, confirm, loadJournal, proceed, restore, turnBack } from "./restore";
import { backup, backupBefore, showList, verify } from "./snapshots";

/**
 * Who calls whom: `npm run backup`, `backups` and `restore` end here, whose words arguments.ts reads. snapshots.ts makes and lists
 * snapshots, restore.ts brings one back by the steps in steps.ts; plan.ts and objects.ts decide and render without a cluster, and
 * cluster.ts is kubectl. What runs in pods are jobs made of the CronJobs of components/jenkins-backup, and in them
 * scripts/backup/home.sh. See docs/backup.md.
 */

async function main(args: string[]): Promise<void> {
  // Asked for only where a word may be one of them.
  const contexts = args.some((word) => /^--to(=|$)/.test(word)) ? (await run("kubectl", ["config", "get-contexts", "-o", "name"])).out.split("\n").filter(Boolean) : [];
  const options = parseArguments(args, contexts);
  Object.assign(where, { context: options.context, namespace: options.namespace, kubeconfig: options.kubeconfig?.replace(/^~(?=\/)/, os.homedir()) });
  // The cluster that kubectl happens to have selected is nobody's choice.
  if (options.ofStack) {
    const { config: { cluster, namespaces } } = await readStack(options.stack);
    Object.assign(where, cluster, { namespace: namespaces.jenkins });
  }
  switch (options.command) {
    case "backup": return options.before === undefined ? backup(options) : backupBefore(options.before);
    case "list": return showList();
    case "diff": return void process.stdout.write(await askRestic(`exec sh /scripts/home.sh diff ${options.snapshot} ${options.other}`));
    case "verify": return verify(options);
    case "restore": return restore(options);
  }
  const journal = await loadJournal();
  if (!journal) throw new UsageError("no restore is under way");
  if (options.command === "confirm") return alone(confirm);
  if (options.command === "rollback") {
    await alone(turnBack);
    return proceed((await loadJournal())!);
  }
  say(`restore of ${journal.folder ?? journal.snapshot}${journal.job ? `, job ${journal.job}` : ""}, begun ${journal.startedAt}; last step done: ${journal.phase}${journal.kind === "rollback" ? " of the way back" : ""}\n${standing(journal)}`);
  return undefined;
}

void runCommand(process.argv[2] ?? "backup", HELP, main);
