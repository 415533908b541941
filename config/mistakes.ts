import { closest, distance } from "fastest-levenshtein";
import type * as z from "zod";
import { fromJson, keyOf, type Key } from "./fields";
import { isObject } from "./pieces";
import { schema, type Settings } from "./schema";

/** Reads a stack's keys by the schema, and says each mistake so that a person can mend it. */

/** One mistake in the stack config, for a person to mend. */
export interface Problem {
  /** Path of the key, such as controlPlane.nodes[0].host */
  key: string;
  /** What is there; a whole sentence with the remedy where `expected` and `fix` are left out. */
  found: string;
  expected?: string;
  fix?: string;
}

type Path = readonly PropertyKey[];

/** The schema as people see it. */
export const root = keyOf(schema);

// Both as `pulumi config set --path` has them: a name that would be taken for a path stands in brackets and quotes.
const written = (path: Path): string => path.reduce<string>((before, part) => (typeof part === "number" ? `${before}[${part}]` : before === "" ? String(part) : /[.[\]"]/.test(String(part)) ? `${before}["${String(part).replace(/["\\]/g, "\\$&")}"]` : `${before}.${String(part)}`), "");
const read = (key: string): Path => (key.match(/\["(?:[^"\\]|\\.)*"\]|\[\d+\]|[^.[]+/g) ?? [key]).map((part) => (part.startsWith('["') ? part.slice(2, -2).replace(/\\(.)/g, "$1") : part.startsWith("[") ? Number(part.slice(1, -1)) : part));

const valueAt = (value: unknown, path: Path): unknown => path.reduce((outer, part) => (typeof outer === "object" || typeof outer === "string" ? (fromJson(outer) as Record<PropertyKey, unknown> | undefined | null)?.[part] : undefined), value);

/** A path as the stack file has it: without the index where what may be a list is a single object. */
function asGiven(raw: unknown, path: Path): Path {
  let at = raw;
  return path.filter((part) => {
    const value = fromJson(at);
    if (typeof part === "number" && isObject(value)) return false;
    at = isObject(value) || Array.isArray(value) ? (value as Record<PropertyKey, unknown>)[part] : undefined;
    return true;
  });
}

/** The name of a key as the stack file has it. */
export const nameAsGiven = (raw: Record<string, unknown>, key: string): string => written(asGiven(raw, read(key)));

/** The key of the schema at each step of a path, as far as there is one. */
function keysAlong(path: Path): Key[] {
  const keys = [root];
  for (const part of path) {
    const end = keys[keys.length - 1];
    const last = end.about.alone && typeof part !== "number" && end.item ? end.item : end;
    const next = last.keys ? (Object.hasOwn(last.keys, part) ? last.keys[String(part)] : undefined) : last.item;
    if (!next) break;
    keys.push(next);
  }
  return keys;
}

/** Whether a key, or anything inside it, is one that is stored encrypted. */
export const holdsSecret = (key: Key): boolean => key.about.secret === true || Object.values(key.keys ?? {}).some(holdsSecret) || (key.item !== undefined && holdsSecret(key.item));

/** A command's argument as a shell takes it. */
const quoted = (text: string): string => (/^[\w./:@=,+~-]+$/.test(text) ? text : `'${text}'`);

/** The command that sets a key right. */
export function fixOf(key: string): string {
  const path = read(key);
  const keys = keysAlong(path);
  const { about, kind } = keys.length === path.length + 1 ? keys[path.length] : { about: { meaning: "" }, kind: "anything" as const };
  if (about.fix) return about.fix;
  const top = String(path[0]);
  const where = key === top ? key : `--path '${key}'`;
  if (about.secret) return `pulumi config set --secret ${where} ${String(about.example).startsWith("-----BEGIN") ? "< key-file" : "<value>"}`;
  const example = kind !== "text" || about.example === undefined ? "<value>" : quoted(String(about.example));
  return key === top ? `pulumi config set ${key} ${example}` : `pulumi config set ${where} ${example}, or edit ${top} in the stack's file`;
}

/** A mistake at a key. Nothing that is secret, or that may hold a secret, is shown. */
function mistake(path: Path, found: unknown, expected: string, fix?: string): Problem {
  const keys = keysAlong(path);
  const secret = found !== undefined && found !== "" && (keys.some(({ about }) => about.secret) || (keys.length === path.length + 1 && holdsSecret(keys[path.length])));
  const shown = secret ? "(not shown)" : found === undefined || found === "" ? "nothing" : typeof found === "string" ? found : JSON.stringify(found);
  const key = written(path);
  return { key, found: shown, expected, fix: fix ?? fixOf(key) };
}

/**
 * A mistake by the name of its key, as rules and files have it. Where something is there that is good by itself, the usual command
 * with the schema's example would not mend it: then there is only the fix that the caller knows.
 */
export function mistakeAt(key: string, found: unknown, expected: string, fix?: string): Problem {
  const problem = mistake(read(key), found, expected, fix);
  if (fix === undefined && problem.found !== "nothing") delete problem.fix;
  return problem;
}

/** What is wrong with a patch that leaves every object that it is for as it is. */
export const idlePatch = (kind: string, names: string[]): [found: string, expected: string, fix: string] => [
  `nothing that ${kind} ${[...new Set(names)].sort().join(", ")} ${names.length > 1 ? "have" : "has"} not already`,
  "a change of an object that target is for",
  "correct it, such as the name in an entry of a list, or remove the patch",
];

/** A key that nobody knows: most often a slip of the pen. */
function unknownKey(path: Path, name: string): Problem {
  const end = keysAlong(path)[path.length];
  const known = Object.keys((end?.about.alone ? end.item?.keys : end?.keys) ?? {});
  const near = known.find((each) => each.toLowerCase() === name.toLowerCase()) ?? closest(name, known);
  const slip = near.toLowerCase() === name.toLowerCase() || distance(name, near) <= 2;
  return mistake([...path, name], "a key that does not exist", `one of ${[...known].sort().join(", ")}`, slip ? `rename it to ${near}` : "remove it from the stack's file");
}

function problemsOf({ path: whole, ...issue }: z.core.$ZodIssue, raw: unknown): Problem[] {
  const at = asGiven(raw, whole);
  if (issue.code === "unrecognized_keys") return issue.keys.map((name) => unknownKey(at, name));
  if (issue.code === "invalid_key") return [mistake(at, at[at.length - 1], issue.issues[0].message)];
  // Refinements that compare keys bring their own; the schema's example is good by itself and may be as wrong beside the others.
  if (issue.code === "custom" && issue.params?.fix) return [mistake(at, valueAt(raw, at), issue.message, String(issue.params.fix))];
  const list = keysAlong(at).findIndex(({ about }) => about.entries !== undefined);
  const path = list < 0 ? at : at.slice(0, list);
  return [mistake(path, valueAt(raw, path), list < 0 ? issue.message : keysAlong(path)[list].about.entries!, typeof path[path.length - 1] === "number" ? `edit ${String(path[0])} in the stack's file` : undefined)];
}

/** A copy without what stands at the paths; a key that the schema knows stays, as one that is left empty. */
function without(value: unknown, paths: Path[], key?: Key): unknown {
  const inner = fromJson(value);
  const kept = (part: PropertyKey, item: unknown): unknown[] => {
    const rest = paths.filter(([first]) => first === part).map(([, ...further]) => further);
    const known = key?.keys && Object.hasOwn(key.keys, part) ? key.keys[String(part)] : undefined;
    if (rest.some((path) => path.length === 0)) return known ? [""] : [];
    return [rest.length > 0 ? without(item, rest, known ?? key?.item) : item];
  };
  if (Array.isArray(inner)) {
    const each = inner.map((item, i) => kept(i, item));
    // An object of a list leaves an empty one, so that those behind it keep the place by which they are named.
    return key?.item?.keys ? each.map(([item = {}]) => item) : each.flat();
  }
  return isObject(inner) ? Object.fromEntries(Object.entries(inner).flatMap(([name, item]) => kept(name, item).map((each) => [name, each]))) : value;
}

/** Without the keys that have no value. */
function compact<T>(value: T): T {
  if (Array.isArray(value)) return value.map(compact) as T;
  if (!isObject(value)) return value;
  return Object.fromEntries(Object.entries(value).flatMap(([key, inner]) => (inner === undefined ? [] : [[key, compact(inner)]]))) as T;
}

/** What a stack's keys say, and every mistake in single ones. Where one is wrong, its default stands in for what is asked further. */
export function readSettings(raw: Record<string, unknown>): { settings: Settings; problems: Problem[] } {
  const first = schema.safeParse(raw);
  if (first.success) return { settings: compact(first.data), problems: [] };
  const told = first.error.issues.flatMap((issue) => problemsOf(issue, raw));
  const problems = told.filter((problem, i) => told.findIndex(({ key, expected }) => key === problem.key && expected === problem.expected) === i);
  // What is wrong only beside its neighbours is not healed by its absence: then the object that holds it goes as well.
  let good = raw;
  for (let result: z.ZodSafeParseResult<Settings> = first, up = 0; ; up++) {
    if (result.success) return { settings: compact(result.data), problems };
    const paths = result.error.issues.flatMap((issue) => (issue.code === "unrecognized_keys" ? issue.keys.map((name) => [...asGiven(good, issue.path), name]) : [asGiven(good, issue.path)]));
    const shortened = paths.map((path) => path.slice(0, Math.max(1, path.length - up)));
    good = without(good, shortened, root) as Record<string, unknown>;
    result = schema.safeParse(good);
  }
}

/** Asks `visit` of every key with its path and its value, as far as the objects that hold it are there. */
export function visitKeys(value: unknown, visit: (key: Key, path: string, value: unknown) => void, key = root, path: Path = []): void {
  const inner = key.kind === "text" ? value : fromJson(value);
  if (path.length > 0) visit(key, written(path), inner);
  if (key.about.alone && key.item && isObject(inner)) return visitKeys(inner, visit, { ...key.item, about: { meaning: "" } }, path);
  if (key.keys && isObject(inner)) for (const [name, each] of Object.entries(key.keys)) visitKeys(inner[name], visit, each, [...path, name]);
  if (key.item && isObject(inner)) for (const [name, each] of Object.entries(inner)) visitKeys(each, visit, key.item, [...path, name]);
  if (key.item && Array.isArray(inner)) inner.forEach((each, i) => visitKeys(each, visit, key.item, [...path, i]));
}

/** What `npm run new-env` asks for a key: the question, the usual answer, and what is expected instead of one that will not do. */
export function questionOf(key: string): { question: string; usual?: string; wrong: (answer: string) => string | undefined } {
  const path = read(key);
  const { about } = keysAlong(path)[path.length];
  const alone = (answer: string) => path.reduceRight<unknown>((inner, part) => ({ [part]: inner }), answer) as Record<string, unknown>;
  return {
    question: about.ask!,
    ...(about.default !== undefined && { usual: String(about.default) }),
    wrong: (answer) => readSettings(alone(answer)).problems.find((problem) => problem.key === key)?.expected,
  };
}

/** Whether anything stands at a key. */
export function isGiven(raw: Record<string, unknown>, key: string): boolean {
  const value = valueAt(raw, asGiven(raw, read(key)));
  return value !== undefined && value !== "" && !["{}", "[]"].includes(typeof value === "string" ? value : JSON.stringify(value));
}
