import * as fs from "node:fs";
import * as path from "node:path";
import { askOutside } from "../checks/preflight";
import { resolveDigest } from "../components/agent-images";
import { mirrored } from "../components/mirrors";
import type { Surroundings } from "../components/surroundings";
import { imageArgs } from "../config/arguments";
import { compareVersions, parsePins, type Pin } from "../tools/plugin-updates";
import { say } from "./backup/cluster";
import { rehearseWorkingTree, writeReport } from "./rehearse";
import { root } from "./repository";
import { aroundStack, readStack, type Stack } from "./stack";
import { columns, readWords, runCommand } from "./terminal";
import { type Center, type Change, propose, type Proposal, releaseNotes, withPins, withReference } from "./upgrades/center";
import { ofStack } from "./upgrades/copy";
import { htmlReport, markdownReport, passes, terminalReport } from "./upgrades/report";

const HELP = `npm run upgrade -- [STACK] [options]    the newest LTS of Jenkins and plugins that fit it, pinned and rehearsed

Asks the update centre (mirrors.jenkinsUpdates where the stack has it), writes the pins of images/ and of the stack's file, and tries the
result on a copy of the newest backup. Where that finds anything, or anything fails, the files are as they were. The commit is yours.

  --lts VERSION      another Jenkins than the newest LTS; the present one for plugins alone
  --dry-run          say what would change, and write nothing
  --html FILE, --markdown FILE    the rehearsal's report, see npm run rehearse

Exit code 0: pinned and rehearsed, or nothing is newer. 1: it failed, or the rehearsal found something. 2: bad arguments.
`;

const updateSite = "https://updates.jenkins.io";

/** A document of the update centre, past the redirections that its mirrors are reached by. */
async function fetched(url: string, surroundings: Surroundings): Promise<Center> {
  for (let [at, hops] = [url, 0]; hops < 6; hops++) {
    const answer = await askOutside(at, {}, { timeoutMs: 60_000, attempts: 1, pauseMs: 0 }, surroundings);
    if ("failure" in answer) throw new Error(`${at} cannot be reached: ${answer.failure}; a mirror is mirrors.jenkinsUpdates, a proxy is proxy`);
    if (answer.location !== undefined && answer.status >= 300 && answer.status < 400) at = new URL(answer.location, at).href;
    else if (answer.status !== 200) throw new Error(`${at} answers ${answer.status}; where it is asked, mirrors.jenkinsUpdates says`);
    else {
      const center = JSON.parse(answer.body.trim().replace(/^updateCenter\.post\(\s*|\s*\);$/g, "")) as Center;
      if (typeof center.plugins !== "object" || center.plugins === null) throw new Error(`${at} is no document of an update centre: it has no plugins`);
      return center;
    }
  }
  throw new Error(`${url} leads in a circle`);
}

/** Files that are changed together, or not at all. */
export class Files {
  private readonly former = new Map<string, string>();

  read(file: string): string {
    return fs.readFileSync(file, "utf8");
  }

  /** Changes each file for which there is another text. */
  write(texts: Map<string, string>): string[] {
    const changed = [...texts].filter(([file, text]) => this.read(file) !== text);
    try {
      for (const [file, text] of changed) fs.writeFileSync(`${file}.new`, text, { mode: fs.statSync(file).mode });
      for (const [file] of changed) {
        const was = this.read(file);
        fs.renameSync(`${file}.new`, file);
        this.former.set(file, was);
      }
    } catch (error) {
      this.undo();
      throw error;
    } finally {
      for (const [file] of changed) fs.rmSync(`${file}.new`, { recursive: true, force: true });
    }
    return changed.map(([file]) => file);
  }

  /** As they were before. */
  undo(): void {
    for (const [file, text] of this.former) fs.writeFileSync(file, text);
    this.former.clear();
  }
}

async function look(stack: Stack, wanted: string | undefined): Promise<{ proposal: Proposal; files: string[]; image: string; tag: string }> {
  const { config } = stack;
  const { surroundings, problems } = await aroundStack(stack);
  if (problems.length > 0) throw new Error(`the network around is not as the stack says; npm run doctor -- ${stack.name}`);
  const site = (config.mirrors.jenkinsUpdates ?? updateSite).replace(/\/$/, "");
  const [, image, tag] = /^(.+?):([^:@/]+)(?:@.*)?$/.exec(config.images.jenkins)!;
  const from = tag.replace(/-.*/, "");
  const newest = wanted ?? (await fetched(`${site}/stable/update-center.actual.json`, surroundings)).core?.version;
  if (newest === undefined) throw new Error(`${site}/stable/update-center.actual.json does not say which LTS is the newest; --lts names one`);
  const core: Change = { name: "jenkins", from, to: wanted !== undefined || compareVersions(from, newest) < 0 ? newest : from };
  const center = await fetched(`${site}/update-center.actual.json?version=${core.to}`, surroundings);
  const files = ["images/controller/plugins.txt", "images/controller/optional-plugins.txt", "images/controller/Dockerfile", "images/upstream.json", `Pulumi.${stack.name}.yaml`].map((file) => path.join(root, file));
  const pins = new Map<string, Pin>();
  for (const file of files.slice(0, 2)) for (const pin of parsePins(fs.readFileSync(file, "utf8"))) pins.set(pin.name, pin);
  for (const pin of parsePins((config.builds.controller?.args?.FURTHER_PLUGINS ?? "").split(/\s+/).join("\n"))) pins.set(pin.name, pin);
  return { proposal: propose([...pins.values()], center, core), files, image, tag };
}

async function main(args: string[]): Promise<void> {
  const text = { type: "string" } as const;
  const { values, positionals } = readWords(args, { lts: text, html: text, markdown: text, "dry-run": { type: "boolean" } }, 1);
  const stack = await readStack(positionals[0]);
  if (!values["dry-run"]) ofStack(stack);
  const { proposal, files, image, tag } = await look(stack, values.lts);
  const { core, plugins, dependencies, remarks } = proposal;
  const changes = [...(core.from === core.to ? [] : [core]), ...plugins];
  if (changes.length > 0) process.stdout.write(`${columns(changes.map((change) => [change.name, change.from, `-> ${change.to}`, releaseNotes(change)]))}\n`);
  process.stdout.write(`${changes.length === 0 ? `Jenkins ${core.to} and its plugins are the newest\n` : ""}${dependencies.size} further plugins are needed by these\n${remarks.map((line) => `! ${line}\n`).join("")}`);
  if (changes.length === 0 || values["dry-run"]) return;

  const to = tag.replace(core.from, core.to);
  const { registry, mirrors, pullSecrets } = stack.config;
  const { surroundings } = await aroundStack(stack);
  const digest = core.from === core.to ? "" : await resolveDigest(mirrored(`${image}:${to}`, mirrors.registries) ?? `${image}:${to}`, imageArgs(stack.config, surroundings), { ...registry, others: pullSecrets.logins });
  const work = new Files();
  const changed = work.write(new Map(files.map((file) => {
    const pinned = withPins(work.read(file), plugins);
    return [file, digest === "" ? pinned : withReference(pinned, image, tag, to, digest)];
  })));
  // The rehearsal takes away what it made first, and only then the files go back.
  const interrupted = new AbortController();
  const stop = () => interrupted.abort(new Error("interrupted; the files are as they were"));
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const name of signals) process.on(name, stop);
  try {
    say(`pinned in ${changed.map((file) => path.relative(root, file)).join(", ")}`);
    const trial = await rehearseWorkingTree(await readStack(stack.name), undefined, interrupted.signal);
    process.stdout.write(`\n${terminalReport(trial)}`);
    writeReport(values.html, htmlReport(trial));
    writeReport(values.markdown, markdownReport(trial));
    if (!passes(trial)) throw new Error("the rehearsal found what stands above; the files are as they were");
  } catch (error) {
    work.undo();
    throw error;
  } finally {
    for (const name of signals) process.off(name, stop);
  }
  process.stdout.write(`\nRehearsed. git diff shows the pins; commit them, then npm run up -- ${stack.name}. With a new Jenkins: npm run contracts (CONTRIBUTING.md).\n`);
}

if (require.main === module) void runCommand("upgrade", HELP, main);
