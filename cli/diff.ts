import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { commitOf } from "../tools/releases";
import { kindOf, objectPath, renderStack, resourceText, type Rendered } from "./offline";
import { atCommit, root, run } from "./repository";
import { stackNames } from "./stack";
import { readWords, runCommand, UsageError } from "./terminal";

const HELP = `npm run diff -- STACK [BASE [HEAD]]    what a change does to a stack's objects, without a cluster

  STACK  name of a stack file, Pulumi.STACK.yaml
  BASE   git commit, branch, or version of CHANGELOG.md to compare with (default: main)
  HEAD   git commit or branch to compare (default: the files as they are now)

npm run diff -- --guard FILE             stop where FILE, made by \`pulumi preview --json\`, deletes or replaces data

Nothing is changed and no cluster, registry or secret is asked. What only a cluster knows (objects changed by hand, the
state of nodes, whether an image is built already) is not in it: \`pulumi preview\` tells.

Exit code 0: compared, or nothing with data goes. 1: it could not be compared, or data would go. 2: bad arguments.
`;

/** Kinds whose deletion takes people's data along. */
const dataKinds = ["PersistentVolumeClaim", "PersistentVolume", "Namespace"];
/** Sentences on objects that hold data and would be deleted, replaced or left unprotected. */
export function dataRisks(before: Rendered[], after: Rendered[]): string[] {
  const now = new Map(after.map((resource) => [objectPath(resource), resource]));
  return before.filter(({ type }) => dataKinds.includes(kindOf(type))).flatMap((old) => {
    const at = objectPath(old);
    const found = now.get(at);
    if (!found) return [`${at} would be deleted${old.protect ? " (it is protected: the update would stop)" : ""}`];
    const risks: string[] = [];
    if (old.protect && !found.protect) risks.push(`${at} would lose its protection`);
    if (kindOf(old.type) === "PersistentVolumeClaim") {
      for (const key of ["storageClassName", "accessModes", "volumeName", "volumeMode", "selector"]) {
        const [was, is] = [old, found].map(({ props }) => JSON.stringify(props.spec?.[key]));
        if (was !== is) risks.push(`${at} would be replaced, and its data lost: ${key} ${was ?? "unset"} -> ${is ?? "unset"}`);
      }
      const [was, is] = [old, found].map(({ props }) => props.spec?.resources?.requests?.storage);
      if (was !== is) risks.push(`${at} cannot be resized where it is (${was} -> ${is}): a hostpath volume needs a backup and a restore`);
    }
    return risks;
  });
}

/** What differs between two renderings of a stack: a summary for people, then a unified diff. "" where nothing does. */
export async function compare(before: Rendered[], after: Rendered[], labels: [string, string], colour = false): Promise<string> {
  const texts = (resources: Rendered[]) => new Map(resources.map((resource) => [objectPath(resource), resourceText(resource)]));
  const [old, now] = [texts(before), texts(after)];
  const changes = [...new Set([...old.keys(), ...now.keys()])].sort().flatMap((at) => {
    if (old.get(at) === now.get(at)) return [];
    return [{ at, sign: !old.has(at) ? "+" : !now.has(at) ? "-" : "~" }];
  });
  if (changes.length === 0) return "";
  const count = (sign: string) => changes.filter((change) => change.sign === sign).length;
  const risks = dataRisks(before, after);
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "build-platform-diff-"));
  try {
    for (const [side, list] of [["a", old], ["b", now]] as const) {
      fs.mkdirSync(path.join(folder, side));
      for (const { at } of changes) {
        const text = list.get(at);
        if (text === undefined) continue;
        const file = path.join(folder, side, `${at}.yaml`);
        fs.mkdirSync(path.dirname(file), { recursive: true });
        fs.writeFileSync(file, text);
      }
    }
    // The context holds the line that says which container or rule a change is in.
    const args = ["diff", "--no-index", "--no-prefix", "--unified=5", `--color=${colour ? "always" : "never"}`, "a", "b"];
    const diff = await run("git", args, { cwd: folder, codes: [0, 1], env: { ...process.env, GIT_CONFIG_NOSYSTEM: "1", GIT_CONFIG_GLOBAL: "/dev/null" } });
    return [
      `${count("~")} changed, ${count("+")} new, ${count("-")} gone, ${now.size - count("~") - count("+")} as before (${labels[0]} -> ${labels[1]})`,
      ...changes.map(({ at, sign }) => `  ${sign} ${at}`),
      ...(risks.length > 0 ? ["", "DATA AT RISK", ...risks.map((risk) => `  ! ${risk}`)] : []),
      "",
      diff.replace(/^index .*\n/gm, ""),
    ].join("\n");
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

/** A step of `pulumi preview --json`. */
interface PreviewStep {
  op: string;
  urn: string;
  replaceReasons?: string[] | null;
}

/** Why a file is no preview to judge by; undefined where it is one. */
export function previewProblem(preview: { steps?: unknown; changeSummary?: unknown; diagnostics?: { severity: string; message: string }[] } | object): string | undefined {
  if (!("steps" in preview) && !("changeSummary" in preview)) return "it is not what pulumi preview --json writes";
  const error = "diagnostics" in preview ? preview.diagnostics?.find(({ severity }) => severity === "error") : undefined;
  return error && `the preview failed, so it does not tell what goes: ${error.message.trim().split("\n")[0]}`;
}

/** Steps of a preview that would delete or replace an object with data in it. */
export function dataSteps(preview: { steps?: PreviewStep[] }): string[] {
  return (preview.steps ?? []).flatMap(({ op, urn, replaceReasons }) => {
    const type = urn.split("::")[2].split("$").pop() ?? "";
    if (!type.startsWith("kubernetes:") || !dataKinds.includes(kindOf(type)) || !/delete|replace/.test(op) || op === "create-replacement") return [];
    const because = replaceReasons?.length ? ` because of ${replaceReasons.join(", ")}` : "";
    return [`${op} of ${kindOf(type)} ${urn.split("::").slice(3).join("::")}${because}`];
  });
}

function parsedPreview(file: string): object {
  try {
    const preview: unknown = JSON.parse(fs.readFileSync(file, "utf8"));
    return typeof preview === "object" && preview !== null ? preview : {};
  } catch (error) {
    throw new Error(`${file} cannot be read as the output of pulumi preview --json: ${(error as Error).message}`);
  }
}

async function main(args: string[]): Promise<void> {
  const { values: { guard }, positionals } = readWords(args, { guard: { type: "string" } }, 3);
  if (guard !== undefined) {
    const preview = parsedPreview(guard);
    const problem = previewProblem(preview);
    if (problem !== undefined) throw new Error(`${guard}: ${problem}`);
    const steps = dataSteps(preview);
    if (steps.length === 0) return void process.stdout.write("no object with data in it is deleted or replaced\n");
    throw new Error(`this update would lose data:\n${steps.map((step) => `  ${step}`).join("\n")}\nMove the data first (docs/operations.md), or run pulumi up by hand.`);
  }
  const [stack, base = "main", head] = positionals;
  if (stack === undefined) throw new UsageError(`which stack? One of ${stackNames().join(", ")}; --help says more`);
  const at = async (ref: string): Promise<Rendered[]> =>
    atCommit(commitOf(ref), async (folder) => {
      // A stack that is new has nothing before it.
      if (!fs.existsSync(path.join(folder, `Pulumi.${stack}.yaml`)) && fs.existsSync(path.join(root, `Pulumi.${stack}.yaml`))) return [];
      // What a former version warned of is past.
      return renderStack(stack, folder, {}, () => undefined);
    });
  const [before, after] = await Promise.all([at(base), head === undefined ? renderStack(stack) : at(head)]);
  const text = await compare(before, after, [base, head ?? "files as they are"], process.stdout.isTTY);
  process.stdout.write(text === "" ? `stack ${stack}: no object differs between ${base} and ${head ?? "the files as they are"}\n` : `stack ${stack}: ${text}`);
}

if (require.main === module) void runCommand("diff", HELP, main);
