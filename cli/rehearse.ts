import * as fs from "node:fs";
import { say } from "./backup/cluster";
import { workingTree } from "./upgrades/candidate";
import { chosenSnapshot, inTurn, runningPod, tryOnCopy, type Trial } from "./upgrades/copy";
import { htmlReport, markdownReport, passes, terminalReport } from "./upgrades/report";
import { readStack, type Stack } from "./stack";
import { readWords, runCommand } from "./terminal";

const HELP = `npm run rehearse -- [STACK] [options]    tries this working tree's Jenkins on a restored copy of the newest backup

The controller's image is built, and with the stack's configuration started on the copy: without agents, clouds, queue, builds and a way
out. What it loads is compared with the snapshot and with the running Jenkins, which is not touched. Needs a backup (docs/backup.md).

  --snapshot ID      another snapshot than the latest; npm run backups lists them
  --html FILE        the report as one HTML file
  --markdown FILE    the report as markdown, for a pull request

Exit code 0: it comes up with all that the running one has. 1: it does not, or could not be tried. 2: bad arguments.
`;

/**
 * Tries the working tree's controller of a stack on a copy.
 * @param signal ends it early; what it made is gone by then
 * @throws the signal's reason
 */
export async function rehearseWorkingTree(stack: Stack, wanted?: string, signal?: AbortSignal): Promise<Trial> {
  const snapshot = await chosenSnapshot(stack, wanted);
  signal?.throwIfAborted();
  const running = await runningPod(stack);
  return inTurn(async () => {
    say(" • make the controller of this working tree ...");
    const input = await workingTree(stack, (text) => say(text.replace(/^/gm, "   ")));
    signal?.throwIfAborted();
    say(` • try it on a copy of snapshot ${snapshot.id} ...`);
    const trial = await tryOnCopy(stack, input, snapshot, running);
    signal?.throwIfAborted();
    return trial;
  });
}

/** Writes a report where it was asked for, whole or not at all. */
export function writeReport(file: string | undefined, text: string): void {
  if (file === undefined) return;
  fs.writeFileSync(`${file}.new`, text);
  fs.renameSync(`${file}.new`, file);
}

async function main(args: string[]): Promise<void> {
  const text = { type: "string" } as const;
  const { values, positionals } = readWords(args, { snapshot: text, html: text, markdown: text }, 1);
  const trial = await rehearseWorkingTree(await readStack(positionals[0]), values.snapshot);
  process.stdout.write(terminalReport(trial));
  writeReport(values.html, htmlReport(trial));
  writeReport(values.markdown, markdownReport(trial));
  process.exitCode = passes(trial) ? 0 : 1;
}

if (require.main === module) void runCommand("rehearse", HELP, main);
