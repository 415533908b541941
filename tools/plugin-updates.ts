import * as fs from "node:fs";
import * as path from "node:path";
import { parseArgs } from "node:util";
import upstream from "../images/upstream.json";

const HELP = `npm run plugin-updates -- [options]    says which of the controller's plugins have updates or warnings

Compares plugins.txt and optional-plugins.txt of images/controller with what Jenkins' update center offers for the controller's version of Jenkins.

  --plugins FILE      default: both; may be given several times
  --jenkins VERSION   default: the version of the image "jenkins" in images/upstream.json
  --url URL           update center, as URL or file; default https://updates.jenkins.io/update-center.actual.json
                      (a mirror: its update-center.actual.json; ?version=VERSION is added to a URL without a query)
  --write             write the offered versions into the files; then build: pulumi up
  --help              this text

Exit: 0 nothing to do, 1 there are updates or warnings (after --write: warnings that no update ends), 2 it could not be told.
`;

/** A line `name:version` of plugins.txt. */
export interface Pin {
  name: string;
  version: string;
}

/** What is used of an update center's document, https://github.com/jenkins-infra/update-center2/blob/master/site/LAYOUT.md */
export interface UpdateCenter {
  plugins: Record<string, { version: string; requiredCore?: string }>;
  warnings?: { type: string; name: string; message: string; url: string; versions?: { pattern: string }[] }[];
  deprecations?: Record<string, { url: string }>;
}

/** What there is to say of one plugin. */
export interface Finding extends Pin {
  /** The version on offer; undefined if the update center does not have the plugin. */
  offered?: string;
  update: boolean;
  /** Security warnings of the pinned version, deprecation, a plugin that is not offered. */
  warnings: string[];
  /** True if the offered version is free of the security warnings of the pinned one. */
  mended: boolean;
}

/** The pins of a plugins.txt. Throws with every line that is not `name:version`. */
export function parsePins(text: string): Pin[] {
  const wrong: string[] = [];
  const pins = text.split(/\r?\n/).flatMap((line, i) => {
    const pin = line.replace(/#.*/, "").trim();
    if (pin === "") return [];
    const [, name, version] = /^([A-Za-z0-9][A-Za-z0-9._-]*):([A-Za-z0-9][A-Za-z0-9._+-]*)$/.exec(pin) ?? [];
    if (name === undefined || version === "latest" || version === "experimental") wrong.push(`line ${i + 1}: "${pin}" is no name:version`);
    return [{ name, version }];
  });
  if (wrong.length > 0) throw new Error(`${wrong.join("\n")}\nPin every plugin to one version.`);
  return pins;
}

/** Orders versions of Jenkins plugins: numbers as numbers, the rest as text, part by part. Negative: a is older. */
export function compareVersions(a: string, b: string): number {
  const parts = (v: string): string[] => v.split(/[.\-_]/);
  const [left, right] = [parts(a), parts(b)];
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const [x, y] = [left[i] ?? "0", right[i] ?? "0"];
    const numeric = /^\d+$/.test(x) && /^\d+$/.test(y);
    const order = numeric ? Number(x) - Number(y) : x < y ? -1 : x > y ? 1 : 0;
    if (order !== 0) return order;
  }
  return 0;
}

/** Compares pins with an update center. */
export function findings(pins: Pin[], center: UpdateCenter): Finding[] {
  return pins.map((pin) => {
    const offered = center.plugins[pin.name]?.version;
    const security = (version: string): string[] =>
      (center.warnings ?? [])
        .filter((w) => w.type === "plugin" && w.name === pin.name && (w.versions ?? []).some((v) => new RegExp(`^(?:${v.pattern})$`).test(version)))
        .map((w) => `security: ${w.message} (${w.url})`);
    const deprecation = center.deprecations?.[pin.name];
    const warnings = security(pin.version);
    return {
      ...pin,
      offered,
      update: offered !== undefined && compareVersions(pin.version, offered) < 0,
      warnings: [...warnings, ...(deprecation ? [`deprecated (${deprecation.url})`] : []), ...(offered === undefined ? ["not offered for this version of Jenkins"] : [])],
      mended: warnings.length > 0 && offered !== undefined && security(offered).length === 0,
    };
  });
}

/** plugins.txt with the offered versions in place of older ones; everything else as it was. */
export function updatedText(text: string, found: Finding[]): string {
  const offered = new Map(found.filter((f) => f.update).map((f) => [f.name, f.offered]));
  return text.replace(/^([ \t]*)([A-Za-z0-9][A-Za-z0-9._-]*):([A-Za-z0-9][A-Za-z0-9._+-]*)/gm, (line, indent: string, name: string) => (offered.has(name) ? `${indent}${name}:${offered.get(name)}` : line));
}

/** The document at a URL or in a file; `update-center.json` wraps it in a JavaScript call. */
export async function loadUpdateCenter(source: string, jenkins: string): Promise<UpdateCenter> {
  let text: string;
  if (/^https?:/.test(source)) {
    const url = new URL(source);
    if (url.search === "") url.searchParams.set("version", jenkins);
    const answer = await fetch(url, { signal: AbortSignal.timeout(60_000) }).catch((error: Error & { cause?: Error }) => {
      throw new Error(`${url} cannot be reached: ${error.cause?.message ?? error.message}; give a mirror or a downloaded file with --url`);
    });
    if (!answer.ok) throw new Error(`${url} answers ${answer.status}; give a mirror or a downloaded file with --url`);
    text = await answer.text();
  } else {
    text = fs.readFileSync(source, "utf8");
  }
  try {
    const center = JSON.parse(text.trim().replace(/^updateCenter\.post\(\s*|\s*\);$/g, "")) as UpdateCenter;
    if (typeof center.plugins !== "object" || center.plugins === null) throw new Error("it has no plugins");
    return center;
  } catch (error) {
    throw new Error(`${source} is no update center document: ${(error as Error).message}`);
  }
}

/** Runs the command; returns its exit code. */
export async function main(argv: string[], write: (text: string) => void = (text) => void process.stdout.write(text)): Promise<number> {
  const { values } = parseArgs({
    args: argv,
    options: {
      plugins: { type: "string", multiple: true, default: ["plugins.txt", "optional-plugins.txt"].map((file) => path.resolve(__dirname, "../images/controller", file)) },
      jenkins: { type: "string", default: upstream.jenkins.tag.replace(/-.*/, "") },
      url: { type: "string", default: "https://updates.jenkins.io/update-center.actual.json" },
      write: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    write(HELP);
    return 0;
  }
  const center = await loadUpdateCenter(values.url, values.jenkins);
  const files = values.plugins.map((file) => {
    const text = fs.readFileSync(file, "utf8");
    return { file, text, found: findings(parsePins(text), center) };
  });
  const found = files.flatMap((each) => each.found);
  const wide = Math.max(6, ...found.map((f) => f.name.length));
  const middle = Math.max(6, ...found.map((f) => f.version.length));
  write(`${"PLUGIN".padEnd(wide)}  ${"PINNED".padEnd(middle)}  OFFERED FOR JENKINS ${values.jenkins}\n`);
  for (const f of found) {
    write(`${f.name.padEnd(wide)}  ${f.version.padEnd(middle)}  ${f.update ? f.offered : f.offered === undefined ? "-" : "up to date"}\n`);
    for (const warning of f.warnings) write(`${"".padEnd(wide)}  ${warning}${f.mended && warning.startsWith("security") ? `, mended in ${f.offered}` : ""}\n`);
  }
  if (!values.write || !found.some((f) => f.update)) return found.some((f) => f.update || f.warnings.length > 0) ? 1 : 0;
  for (const { file, text, found: here } of files) {
    const updates = here.filter((f) => f.update).length;
    if (updates === 0) continue;
    const partial = `${file}.${process.pid}.new`;
    fs.writeFileSync(partial, updatedText(text, here), { mode: fs.statSync(file).mode });
    fs.renameSync(partial, file);
    write(`${updates} version${updates === 1 ? "" : "s"} written to ${file}\n`);
  }
  return found.some((f) => f.warnings.length > 0 && !f.mended) ? 1 : 0;
}

if (require.main === module) {
  main(process.argv.slice(2)).then(
    (code) => (process.exitCode = code),
    (error: Error) => {
      process.stderr.write(`plugin-updates: ${error.message}\n`);
      process.exitCode = 2;
    },
  );
}
