import { readWords, UsageError } from "../terminal";

export interface Options {
  command: "backup" | "list" | "diff" | "verify" | "restore" | "confirm" | "rollback" | "status";
  /** Stack whose file says where it is: kubeconfig, context and namespace. */
  stack?: string;
  /** Whether a stack says where it is: the named one, or the selected one where nothing else was said. */
  ofStack: boolean;
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
  /** With the upkeep, due or not. */
  upkeep: boolean;
  /** Image that the controller is about to get: it is saved only where it runs another. */
  before?: string;
  yes: boolean;
}

export const HELP = `npm run backup  [-- --accept-shrink]        save jenkins_home now
npm run backup  -- --upkeep                 and check and prune the repository, due or not
npm run backup  -- --before IMAGE           only where the controller runs another image; the snapshot names that one
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
Options: --stack NAME (where its file says; without any of these the selected stack), or --to CONTEXT|NAMESPACE, --context C, --namespace N (default jenkins), --kubeconfig FILE; --node NAME, --size 20Gi, --yes (no question)
`;

/**
 * Reads the command line.
 * @param contexts names of the kubeconfig's contexts, to tell them from namespaces after --to
 * @throws UsageError naming the argument
 */
export function parseArguments([command, ...rest]: string[], contexts: string[]): Options {
  const text = { type: "string" } as const;
  const flag = { type: "boolean" } as const;
  const { values, positionals: words } = readWords(rest, {
    kubeconfig: text, before: text, snapshot: text, job: text, folder: text, node: text, size: text, stack: text, context: text, namespace: text, to: text, "accept-shrink": flag, upkeep: flag, yes: flag, confirm: flag, rollback: flag, status: flag,
  });
  const { "accept-shrink": acceptShrink = false, upkeep = false, yes = false, confirm, rollback, status, to, ...given } = values;
  const options: Options = { command: "list", namespace: "jenkins", ...given, ofStack: given.stack !== undefined || (to ?? given.context ?? given.namespace) === undefined, acceptShrink, upkeep, yes };
  if (to !== undefined) options[contexts.includes(to) ? "context" : "namespace"] = to;
  if (options.before !== undefined && command !== "backup") throw new UsageError("--before is about a backup");
  const [mode, second] = Object.entries({ confirm, rollback, status }).flatMap(([name, wanted]) => (wanted ? [name as Options["command"]] : []));
  if (second !== undefined) throw new UsageError(`--${mode} and --${second} cannot be given together`);
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
