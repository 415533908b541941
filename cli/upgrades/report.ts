import { age } from "../backup/plan";
import { htmlFrame } from "../html";
import { columns } from "../terminal";
import type { Trial } from "./copy";
import type { Facts } from "./facts";

/** What a trial means for people: in the terminal, as markdown for a pull request, and as one HTML file. */

/** `stop`: what the running Jenkins has would be lost, or Jenkins would not come up. `look`: people may want to know. */
export interface Finding {
  level: "stop" | "look";
  what: string;
  words: string[];
}

/** Most lines of a finding that are shown. */
const shown = 20;

/** Those of the snapshot that the copy lacks, without those that the running Jenkins lacks as well: these the change has not to answer for. */
function missing(wanted: Set<string>, copy: Set<string>, running: Set<string> | undefined): { lost: string[]; before: string[] } {
  const lacking = [...wanted].filter((each) => !copy.has(each)).sort();
  return { lost: lacking.filter((each) => !running || running.has(each)), before: lacking.filter((each) => running && !running.has(each)) };
}

const beside = <T>(all: Iterable<T>, former: { has(each: T): boolean } | undefined): T[] => [...all].filter((each) => !former?.has(each));

/** What is to be said of a trial, the worst first. */
export function findings({ problems, notes, inventory, copy, running, notAsked }: Trial): Finding[] {
  const found: Finding[] = problems.map(({ what, words, todo }) => ({ level: "stop", what, words: [...words, `-> ${todo}`] }));
  const say = (level: Finding["level"], what: string, words: string[], since = "") => words.length > 0 && found.push({ level, what: `${words.length} ${what}${since}`, words });
  const sinceThen = running ? "" : " (the running Jenkins could not be asked whether it has them)";
  if (!copy && found.length === 0) found.push({ level: "stop", what: "Jenkins does not answer", words: [] });
  if (copy) {
    const items = missing(inventory.items, copy.items, running?.items);
    // A job that is not there has no builds either; they are counted with it.
    const builds = missing(inventory.builds, copy.builds, running?.builds);
    const ofThere = (all: string[]) => all.filter((build) => copy.items.has(build.replace(/ #\d+$/, "")));
    say("stop", "jobs or folders of the snapshot are not loaded", items.lost.map((item) => { const gone = builds.lost.filter((build) => build.replace(/ #\d+$/, "") === item).length; return gone > 0 ? `${item}, with ${gone} builds` : item; }), sinceThen);
    say("stop", "builds of the snapshot are not loaded", ofThere(builds.lost), sinceThen);
    const failed = [...copy.failed].filter(([name]) => !running?.failed.has(name));
    say("stop", "plugins failed that the running Jenkins loads", failed.map(([name, why]) => `${name}: ${why}`));
    const gone = [...(running?.plugins ?? [])].filter(([name, { active }]) => active && !copy.plugins.get(name)?.active && !copy.failed.has(name));
    say("stop", "plugins are in use now and would not be any more", gone.map(([name, { version }]) => `${name} ${version}`));
    say("stop", "jobs or builds have data that would not be understood any more", [...copy.unreadable].filter(([whose]) => !running?.unreadable.has(whose)).map(([whose, why]) => `${whose}: ${why}`));
    say("look", "jobs or folders are not loaded by the running Jenkins either", items.before);
    say("look", "builds are not loaded by the running Jenkins either", ofThere(builds.before));
    say("look", "files are in an older form, which Jenkins reads and would write anew when they change", running ? beside(copy.old, running.old) : []);
    say("look", "remarks of Jenkins for its administrators would be new", running ? beside(copy.monitors, running.monitors) : []);
    say("look", "things could not be asked", copy.trouble);
    const { memory, startSeconds } = copy;
    if (memory && memory.used > 0.85 * memory.most) found.push({ level: "look", what: `${share(memory)} of the heap are in use right after the start`, words: ["-> Raise controller.resources.limits.memory."] });
    if (startSeconds !== undefined && running?.startSeconds !== undefined && startSeconds > 2 * running.startSeconds + 10) found.push({ level: "look", what: `it took ${Math.round(startSeconds)} s to come up, the running one ${Math.round(running.startSeconds)} s`, words: [] });
  }
  say("look", "remarks of configuration as code", notes);
  if (notAsked !== undefined) found.push({ level: "look", what: "the running Jenkins could not be asked, so nothing is compared with it", words: [notAsked] });
  return found.sort((a, b) => (a.level === b.level ? 0 : a.level === "stop" ? -1 : 1));
}

/** Whether the change may go on. */
export const passes = (trial: Trial): boolean => findings(trial).every(({ level }) => level !== "stop");

const share = ({ used, most }: { used: number; most: number }): string => `${Math.round(used / 2 ** 20)} of ${Math.round(most / 2 ** 20)} MiB`;

/** Such as "2.568.2, 68 plugins", beside the running Jenkins. */
function table({ inventory, copy, running, image, runningImage }: Trial): string[][] {
  const of = (facts: Facts | undefined, read: (facts: Facts) => string | undefined): string => (facts ? (read(facts) ?? "-") : "not known");
  const row = (name: string, read: (facts: Facts) => string | undefined, wanted = "") => [name, of(running, read), of(copy, read), wanted];
  return [
    ["", "running", "tried", "in the snapshot"],
    ["image", tail(runningImage), tail(image), ""],
    row("version", ({ version }) => version),
    row("plugins", ({ plugins, failed }) => `${[...plugins.values()].filter(({ active }) => active).length}${failed.size > 0 ? `, ${failed.size} failed` : ""}`),
    row("jobs and folders", ({ items }) => String(items.size), String(inventory.items.size || "-")),
    row("builds", ({ builds }) => String(builds.size), copy ? String(inventory.builds.size) : "-"),
    row("heap in use", ({ memory }) => memory && share(memory)),
    row("start", ({ startSeconds }) => (startSeconds === undefined ? undefined : `${Math.round(startSeconds)} s`)),
  ];
}

/** An image's name and the beginning of its digest: what tells two of a stack apart. */
const tail = (image: string): string => image.replace(/^.*\//, "").replace(/(@sha256:[0-9a-f]{12})[0-9a-f]+$/, "$1");

/** Versions that differ, for the list of what would change: plugin, running, tried. */
export function changedPlugins({ copy, running }: Pick<Trial, "copy" | "running">): [name: string, from: string, to: string][] {
  if (!copy || !running) return [];
  const names = [...new Set([...running.plugins.keys(), ...copy.plugins.keys()])].sort();
  return names.flatMap((name): [string, string, string][] => {
    const [from, to] = [running.plugins.get(name)?.version ?? "none", copy.plugins.get(name)?.version ?? "none"];
    return from === to ? [] : [[name, from, to]];
  });
}

const verdict = (trial: Trial): string => (passes(trial) ? "Jenkins comes up with all that it has" : "not as it is");
const basis = ({ snapshot, time }: Trial): string => `on a copy of snapshot ${snapshot.id} of ${snapshot.time.toISOString()} (${age(snapshot.time, time)}); the running Jenkins was not touched`;
const limited = (words: string[]): string[] => (words.length > shown ? [...words.slice(0, shown), `... and ${words.length - shown} more`] : words);

export function terminalReport(trial: Trial): string {
  const plugins = changedPlugins(trial);
  const parts = [
    `${trial.stack}: ${verdict(trial)}, tried ${basis(trial)}`,
    columns(table(trial)),
    ...findings(trial).map(({ level, what, words }) => [`${level === "stop" ? "!" : " "} ${what}`, ...limited(words).map((line) => `    ${line}`)].join("\n")),
    ...(plugins.length > 0 ? [`  plugins that change\n${columns(plugins.map(([name, from, to]) => [`    ${name}`, from, `-> ${to}`]))}`] : []),
  ];
  return `${parts.join("\n\n")}\n`;
}

const cell = (text: string): string => text.replace(/[|\\]/g, "\\$&").replace(/</g, "&lt;");

export function markdownReport(trial: Trial): string {
  const [head, ...rows] = table(trial);
  const plugins = changedPlugins(trial);
  const line = (cells: string[]) => `| ${cells.map(cell).join(" | ")} |`;
  const parts = [
    `### Rehearsal of ${trial.stack}: ${passes(trial) ? "✅" : "❌"} ${verdict(trial)}`,
    `Tried ${basis(trial)}.`,
    [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n"),
    ...findings(trial).map(({ level, what, words }) => `**${level === "stop" ? "❌" : "ℹ️"} ${cell(what)}**${words.length > 0 ? `\n\n\`\`\`\`\n${limited(words).join("\n")}\n\`\`\`\`` : ""}`),
    ...(plugins.length > 0 ? [`<details><summary>${plugins.length} plugins change</summary>\n\n${[line(["plugin", "from", "to"]), "| --- | --- | --- |", ...plugins.map(line)].join("\n")}\n\n</details>`] : []),
  ];
  return `${parts.join("\n\n")}\n`;
}

export function htmlReport(trial: Trial): string {
  const good = passes(trial);
  const [head, ...rows] = table(trial);
  return htmlFrame(`Rehearsal of ${trial.stack}`, { text: verdict(trial), good }, (escaped) => {
    const tableOf = (first: string[], rest: string[][]) => `<div class="wide"><table><thead><tr>${first.map((each) => `<th scope="col">${escaped(each)}</th>`).join("")}</tr></thead>\n<tbody>${rest.map((row) => `<tr>${row.map((each) => `<td>${escaped(each)}</td>`).join("")}</tr>`).join("\n")}</tbody></table></div>`;
    const plugins = changedPlugins(trial);
    return [
      `<p>Tried ${escaped(basis(trial))}.</p>`,
      tableOf(head, rows),
      ...findings(trial).map(({ level, what, words }) => `<h2 class="${level === "stop" ? "bad" : ""}">${escaped(what)}</h2>\n<ul>${words.map((word) => `<li>${escaped(word)}</li>`).join("")}</ul>`),
      ...(plugins.length > 0 ? [`<h2>Plugins that change</h2>\n${tableOf(["plugin", "from", "to"], plugins)}`] : []),
    ].join("\n");
  });
}
