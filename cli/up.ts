import { createInterface } from "node:readline/promises";
import { LocalWorkspace, Stack, type EngineEvent, type UpdateSummary } from "@pulumi/pulumi/automation";
import { root } from "./repository";
import { frontDoors, judgeDoors } from "./front-door";
import { readStack, stackNames } from "./stack";
import { readWords, runCommand, UsageError } from "./terminal";

const HELP = `npm run up -- STACK [--yes] [--refresh]    preview, a question, and the update with its phases and the time left

Does what \`pulumi up\` does. While it runs, a line says how far each part of the platform is and how long it may still take;
the estimate is the stack's own former update that changed most nearly as much. --yes asks nothing; --refresh reads the
cluster first, so that drift is mended. After an update that was cut off it does so by itself: the state lags behind then.
At the end it asks every node for the login page, and says what came.

Exit code 0: done. 1: preview or update failed, or the answer was no. 2: bad arguments.
`;

/** Parts of the platform, by the component type in a resource's URN, in the order in which they begin. */
const PHASES: [type: string, name: string][] = [
  ["build-platform:cluster:NodePortRange", "node ports"],
  ["build-platform:registry:ImageRegistry", "registry"],
  ["build-platform:registry:ImageCache", "registry"],
  ["build-platform:images:AgentImages", "images"],
  ["build-platform:ingress:IngressNginx", "ingress"],
  ["build-platform:ingress:IngressTraefik", "ingress"],
  ["build-platform:storage:OpenEbsStorage", "storage"],
  ["build-platform:jenkins:JenkinsMaster", "Jenkins"],
  ["build-platform:jenkins:JenkinsBackup", "backup"],
];

/** The part that a resource belongs to. */
export function phaseOf(urn: string): string {
  const types = urn.split("::")[2]?.split("$") ?? [];
  return PHASES.find(([type]) => types.includes(type))?.[1] ?? "other";
}

/** What an update has to do and has done, in steps by part. */
export class Progress {
  private readonly planned = new Map<string, Set<string>>();
  private readonly done = new Map<string, Set<string>>();

  private static note(steps: Map<string, Set<string>>, urn: string): void {
    const phase = phaseOf(urn);
    steps.set(phase, (steps.get(phase) ?? new Set()).add(urn));
  }

  /** Takes note of what the preview means to do. */
  plan({ resourcePreEvent }: EngineEvent): void {
    const { op, urn } = resourcePreEvent?.metadata ?? {};
    if (op !== undefined && urn !== undefined && changes(op)) Progress.note(this.planned, urn);
  }

  /** Takes note of what the update did; whether that was a step. */
  finish({ resOutputsEvent }: EngineEvent): boolean {
    const { op, urn } = resOutputsEvent?.metadata ?? {};
    if (op === undefined || urn === undefined || !changes(op)) return false;
    Progress.note(this.done, urn);
    return true;
  }

  /** How many resources are to be changed. */
  get steps(): number {
    return [...this.planned.values()].reduce((sum, urns) => sum + urns.size, 0);
  }

  /** Such as "images 2/3, Jenkins 0/19"; parts that are complete are left out unless all are. */
  line(): string {
    const rows = [...new Set(PHASES.map(([, name]) => name)), "other"].flatMap((name) => {
      const of = this.planned.get(name)?.size ?? 0;
      const done = [...(this.done.get(name) ?? [])].filter((urn) => this.planned.get(name)?.has(urn)).length;
      return of === 0 ? [] : [{ name, of, done }];
    });
    const open = rows.filter(({ of, done }) => done < of);
    return open.length > 0 ? open.map(({ name, of, done }) => `${name} ${done}/${of}`).join(", ") : "all parts are done";
  }
}

/** Whether a step changes something; reads, and what stays, do not. */
function changes(op: string): boolean {
  return !["same", "read", "refresh", "read-replacement"].includes(op);
}

const changed = (counts: Partial<Record<string, number>> = {}): number => Object.entries(counts).reduce((sum, [op, count]) => sum + (changes(op) ? (count ?? 0) : 0), 0);

/** Seconds that an update of so many steps may take: those of the successful one that changed most nearly as much, the newest first. */
export function expectedSeconds(history: Pick<UpdateSummary, "kind" | "result" | "startTime" | "endTime" | "resourceChanges">[], steps: number): number | undefined {
  const good = history.filter(({ kind, result, endTime }) => kind === "update" && result === "succeeded" && endTime !== undefined);
  const distance = (update: (typeof good)[number]) => Math.abs(changed(update.resourceChanges) - steps);
  const nearest = good.reduce<(typeof good)[number] | undefined>((best, update) => (best === undefined || distance(update) < distance(best) ? update : best), undefined);
  return nearest && (nearest.endTime!.getTime() - nearest.startTime.getTime()) / 1000;
}

/** "about 40 s left", in steps that do not pretend to know more. */
export function timeLeft(expected: number | undefined, elapsed: number): string {
  if (expected === undefined) return `${Math.round(elapsed)} s so far; no former update to compare with`;
  const left = expected - elapsed;
  if (left < 5) return left < -10 ? `${Math.round(elapsed)} s so far, longer than the former update's ${Math.round(expected)} s` : "nearly done";
  return left < 90 ? `about ${Math.ceil(left / 5) * 5} s left` : `about ${Math.ceil(left / 60)} min left`;
}

/** What a former update was at work on when it was cut off, as its state still says: "updating jenkins-controller". */
export function cutOff(deployment: { pending_operations?: { type: string; resource: { urn: string } }[] | null } | undefined): string[] {
  return (deployment?.pending_operations ?? []).map(({ type, resource }) => `${type} ${resource.urn.split("::").pop()}`);
}

async function agreed(): Promise<boolean> {
  if (!process.stdin.isTTY) throw new UsageError("nobody can be asked here; --yes updates without a question");
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await terminal.question("Perform this update? [y/N] ");
  terminal.close();
  return /^y(es)?$/i.test(answer.trim());
}

/** Asks for the login page until it is there; of a controller that writes no address into the Ingress nobody else would know whether people get in. */
async function askForLogin(name: string, seconds: number): Promise<string> {
  const stack = await readStack(name);
  for (const end = Date.now() + seconds * 1000; ; await new Promise((resolve) => setTimeout(resolve, 2000))) {
    const { good, text } = judgeDoors(await frontDoors(stack), stack.config);
    if (good || Date.now() > end) return text;
  }
}

async function main(args: string[]): Promise<void> {
  const { values, positionals } = readWords(args, { yes: { type: "boolean" }, refresh: { type: "boolean" } }, 1);
  const [name] = positionals;
  if (name === undefined) throw new UsageError(`name one stack: ${stackNames().join(", ")}`);
  if (!stackNames().includes(name)) throw new UsageError(`there is no Pulumi.${name}.yaml; npm run new-env ${name} makes one`);

  const say = (text: string) => process.stderr.write(`${text}\n`);
  // Its own words have been shown already, and it ends with them.
  const failed = () => void (process.exitCode = 1);

  const workspace = await LocalWorkspace.create({ workDir: root });
  // Every command names its stack. Selected or made here, it would be what a later `pulumi destroy` without a name takes.
  workspace.selectStack = async () => undefined;
  const stack = await Stack.select(name, workspace);
  const lost = cutOff((await stack.exportStack()).deployment);
  if (lost.length > 0) say(`--- a former update was cut off while ${lost.join(", ")}: what it did is not in the state, so the cluster is read first`);
  const shown = {
    color: process.stdout.isTTY ? ("always" as const) : ("never" as const),
    onOutput: (text: string) => void process.stdout.write(text),
    onError: (text: string) => void process.stderr.write(text),
    refresh: values.refresh === true || lost.length > 0,
  };
  const progress = new Progress();
  const previewed = await stack.preview({ ...shown, diff: false, onEvent: (event) => progress.plan(event) }).catch(failed);
  if (!previewed) return;
  if (!values.yes && !(await agreed())) return failed();

  const expected = expectedSeconds(await stack.history(20), progress.steps);
  const started = Date.now();
  let told = "";
  const tell = (always: boolean) => {
    const line = progress.line();
    if (always || line !== told) say(`--- ${(told = line)}; ${timeLeft(expected, (Date.now() - started) / 1000)}`);
  };
  tell(true);
  let since = Date.now();
  const timer = setInterval(() => tell(true), 15_000);
  try {
    await stack.up({
      ...shown,
      onEvent: (event) => {
        if (!progress.finish(event) || Date.now() - since < 5000) return;
        since = Date.now();
        tell(false);
      },
    });
    say(`--- done in ${Math.round((Date.now() - started) / 1000)} s`);
    // The nodes may be out of this machine's reach: what is seen from here is said, and no more.
    say(`--- login page: ${await askForLogin(name, 30).catch((error: Error) => `not asked for: ${error.message.trim().split("\n").pop()}`)}`);
  } catch {
    failed();
  } finally {
    clearInterval(timer);
  }
}

if (require.main === module) void runCommand("up", HELP, main);
