import { heldName } from "../components/jenkins-master/save-first";
import { get, homeIsAway, lostHome, remove, say } from "./backup/cluster";
import type { Snapshot } from "./backup/plan";
import { loadJournal, restore } from "./backup/restore";
import { controllerImage, snapshots } from "./backup/snapshots";
import { readStack } from "./stack";
import { readWords, runCommand, UsageError } from "./terminal";
import { runningWith } from "./upgrades/candidate";
import { inTurn, ofStack, runningPod, tryOnCopy } from "./upgrades/copy";
import { passes, terminalReport } from "./upgrades/report";

const HELP = `npm run rollback -- [STACK] [options]    the controller's former image, with the home as that image left it

Each update that changes the controller's image saves the home first. This takes the newest such snapshot of another image than the
running one: it is tried on a copy, the home as it is now is saved, and image and home go back together. \`up\` keeps the former image
from then on, and says so, until

  npm run rollback -- STACK --release    the next \`up\` takes the image of the working tree again

  --snapshot ID      another of the snapshots that \`npm run backups\` lists as left by an image
  --untried          do not try it on a copy first, which takes about as long as a restore
  --yes              no question

\`npm run restore -- --stack STACK --confirm\` deletes the volume that it replaced, \`--rollback\` goes back to it and to its image.

Exit code 0: done. 1: it failed; what to do stands there. 2: bad arguments.
`;

/** What a rollback goes to: of the snapshots that an image left, the newest of another one than runs, or the one that was named. @throws {UsageError} where there is none */
export function goal(found: Snapshot[], running: string, wanted?: string): Snapshot & { leaving: string } {
  const left = found.filter((each): each is Snapshot & { leaving: string } => each.leaving !== undefined && !each.suspect);
  if (wanted !== undefined) {
    const named = left.find(({ id }) => id.startsWith(wanted) || wanted.startsWith(id));
    if (!named) throw new UsageError(`${wanted} is no snapshot that an image left; those are ${left.map(({ id }) => id).join(", ") || "none"}. A snapshot without its image: npm run restore`);
    return named;
  }
  const last = left.filter(({ leaving }) => leaving !== running).pop();
  if (!last) throw new UsageError("no snapshot is there of a home as another image left it: one is made by each update that changes the controller's image, where a backup is set up and backup.beforeUpgrade is true");
  return last;
}

async function main(args: string[]): Promise<void> {
  const flag = { type: "boolean" } as const;
  const { values, positionals } = readWords(args, { snapshot: { type: "string" }, untried: flag, yes: flag, release: flag }, 1);
  const stack = await readStack(positionals[0]);
  ofStack(stack);
  if (values.release) {
    const held = await get("configmap", heldName);
    if (!held) return void say("the controller is not held at any image");
    await remove("configmap", heldName);
    return void say(`the controller was held at ${held.data.image}; npm run up -- ${stack.name} takes the working tree's again, and saves the home first where backup.beforeUpgrade is true`);
  }
  const under = await loadJournal();
  if (under) throw new UsageError(`a restore begun at ${under.startedAt} is there; npm run restore -- --stack ${stack.name} --status says what of it`);
  const image = await controllerImage();
  const { pod } = await runningPod(stack);
  const away = await lostHome();
  if (away) throw new UsageError(`${homeIsAway(away)}; a rollback saves the home as it is now first`);
  const snapshot = goal(await snapshots(), image!.exact, values.snapshot);
  if (!values.untried) {
    say(` • try ${snapshot.leaving} with the present configuration on a copy of snapshot ${snapshot.id} ...`);
    const { leaving } = snapshot;
    const trial = await inTurn(() => tryOnCopy(stack, runningWith(stack, pod, leaving), snapshot, { pod }));
    // What only the newer Jenkins has is what a rollback gives up.
    const alone = { ...trial, running: undefined };
    if (!passes(alone)) throw new Error(`the former image does not come up with that home and the present configuration, and nothing was changed:\n${terminalReport(alone)}Where the configuration is too new for it, go back to the former commit first: npm run up -- ${stack.name}`);
    say(`   it comes up: ${trial.copy!.items.size} jobs and folders, ${trial.copy!.builds.size} builds`);
  }
  await restore({ command: "restore", ofStack: true, namespace: stack.config.namespaces.jenkins, snapshot: snapshot.id, acceptShrink: false, upkeep: false, yes: values.yes ?? false, images: { from: image!.given, exact: image!.exact, to: snapshot.leaving } });
  say(`\nThe controller is held at ${snapshot.leaving}: npm run up keeps it until npm run rollback -- ${stack.name} --release.`);
}

if (require.main === module) void runCommand("rollback", HELP, main);
