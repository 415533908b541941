import * as z from "zod";
import { type Piece, type Range } from "./pieces";

/** The kinds of keys that the schema has. Every one takes what is meant also as text: the engine hands values over as such. */

/** What people are told about a key beyond its type and bounds. */
export interface About {
  /** One plain sentence. */
  meaning: string;
  /** What is said to be expected where there is nothing or something else. */
  expected?: string;
  /** A value that is good, as the stack file has it. */
  example?: unknown;
  /** The value where none is given, as the stack file would have it. */
  default?: unknown;
  /** The same in words, where it depends on other keys. */
  defaultText?: string;
  /** It has to be given where the object that holds it is. */
  required?: boolean;
  /** Stored encrypted, and never shown. */
  secret?: boolean;
  /** What `npm run new-env` asks. */
  ask?: string;
  /** What helps, where the usual command does not. */
  fix?: string;
  /** Of a list of texts: what is expected of it as a whole, since its single entries have no names. */
  entries?: string;
  /** Of a list: a single text or object is a list of it. */
  alone?: boolean;
}

/** What is known about each key of the schema. */
export const about = z.registry<About>();

/** The engine hands objects and lists over as JSON text. */
export function fromJson(value: unknown): unknown {
  if (typeof value !== "string") return value;
  if (value === "") return undefined;
  try {
    return JSON.parse(value);
  } catch {
    return value;
  }
}

const none = (value: unknown) => (value === "" ? undefined : value);
/** `pulumi config set --path` makes numbers and truth values of texts that look like them. */
const asText = (value: unknown) => (typeof value === "boolean" || Number.isSafeInteger(value) ? String(value) : none(value));
const asNumber = (value: unknown) => (typeof value === "string" && /^-?\d+$/.test(value) ? Number(value) : none(value));
const asFlag = (value: unknown) => (value === "true" ? true : value === "false" ? false : none(value));

function string({ expected, pattern, also }: Piece): z.ZodString {
  let schema = z.string({ error: (issue) => (typeof issue.input === "number" ? `${expected}: put it in quotes` : expected) });
  if (pattern) schema = schema.regex(pattern, { error: expected });
  return also ? schema.refine(also, { error: expected }) : schema;
}

interface TextOptions extends Omit<About, "meaning" | "default" | "example"> {
  is: Piece;
  example: string;
}
type Text<Held extends z.ZodType> = z.ZodPreprocess<Held, unknown>;

/** A text; where it has neither a default nor to be given, it may be absent. */
export function text(meaning: string, options: TextOptions & { required: true }): Text<z.ZodDefault<z.ZodString>>;
export function text(meaning: string, options: TextOptions & { default: string }): Text<z.ZodDefault<z.ZodString>>;
export function text(meaning: string, options: TextOptions): Text<z.ZodOptional<z.ZodString>>;
export function text(meaning: string, { is, ...told }: TextOptions & { default?: string }): Text<z.ZodDefault<z.ZodString> | z.ZodOptional<z.ZodString>> {
  const fallback = told.required ? "" : told.default;
  return z.preprocess(asText, fallback === undefined ? string(is).optional() : string(is).default(fallback)).register(about, { meaning, expected: is.expected, ...told });
}

function whole({ least, most }: Range) {
  const error = `a whole number from ${least} to ${most}`;
  return z.int({ error }).min(least, { error }).max(most, { error });
}

/** A whole number. */
export function integer(meaning: string, range: Range, defaultText?: string) {
  const { usual } = range;
  return z.preprocess(asNumber, whole(range).default(usual)).register(about, { meaning, example: usual, default: usual, ...(defaultText && { defaultText }) });
}

/** A whole number, with a default that depends on other keys. */
export function maybeInteger(meaning: string, range: Range, defaultText: string) {
  return z.preprocess(asNumber, whole(range).optional()).register(about, { meaning, example: range.usual, defaultText });
}

/** True or false. */
export function flag(meaning: string, usual: boolean) {
  return z.preprocess(asFlag, z.boolean({ error: "true or false" }).default(usual)).register(about, { meaning, example: !usual, default: usual });
}

/** True or false, with a default that depends on other keys. */
export function maybeFlag(meaning: string, defaultText: string) {
  return z.preprocess(asFlag, z.boolean({ error: "true or false" }).optional()).register(about, { meaning, example: true, defaultText });
}

/** One of a few words. */
export function choice<const Words extends readonly [string, ...string[]]>(meaning: string, words: Words, usual: Words[number]) {
  const schema = z.enum(words, { error: `one of ${words.join(", ")}` });
  return z.preprocess(none, schema.default(usual as z.output<typeof schema>)).register(about, { meaning, example: words[words.length - 1], default: usual });
}

/** One of a few words, or absent. */
export function maybeChoice<const Words extends readonly [string, ...string[]]>(meaning: string, words: Words, defaultText?: string) {
  return z.preprocess(none, z.enum(words, { error: `one of ${words.join(", ")}` }).optional()).register(about, { meaning, example: words[0], ...(defaultText && { defaultText }) });
}

/** A list of texts; a mistake in one is told of the whole list. */
export function words(meaning: string, { is, example, entries, ...told }: { is: Piece; example: string } & Required<Pick<About, "entries">> & Pick<About, "defaultText" | "alone">) {
  const read = (value: unknown) => {
    const list = fromJson(value);
    return told.alone && typeof list === "string" ? [list] : list;
  };
  return z.preprocess(read, z.array(z.preprocess(asText, string(is)).register(about, { meaning, example }), { error: entries }).default([])).register(about, { meaning, entries, default: [], ...told });
}

/** A list of some of a few words. */
export function choices<const Words extends readonly [string, ...string[]]>(meaning: string, known: Words) {
  const entries = `a list of ${known.join(" and ")}`;
  return z.preprocess(fromJson, z.array(z.enum(known, { error: entries }).register(about, { meaning, example: known[0] }), { error: entries }).default([])).register(about, { meaning, entries, default: [] });
}

const objectError = { error: "an object" };

/** An object of its own, in which every key may be absent. */
export function section<Shape extends z.ZodRawShape>(meaning: string, shape: Shape) {
  return z.preprocess(fromJson, z.strictObject(shape, objectError).prefault({} as never)).register(about, { meaning, default: {} });
}

/** An object that may be absent as a whole, also where it is left empty. */
export function maybe<Shape extends z.ZodRawShape>(meaning: string, shape: Shape, { emptyIsNone = false } = {}) {
  const read = (value: unknown) => {
    const object = fromJson(value);
    return emptyIsNone && JSON.stringify(object) === "{}" ? undefined : object;
  };
  return z.preprocess(read, z.strictObject(shape, objectError).optional()).register(about, { meaning, default: {} });
}

/** A list of objects. */
export function list<Shape extends z.ZodRawShape>(meaning: string, shape: Shape, usual: object[] = []) {
  return z.preprocess(fromJson, z.array(z.strictObject(shape, objectError), { error: "a list" }).prefault(usual as never)).register(about, { meaning, default: usual });
}

/** An object, or a list of such. */
export function oneOrMore<Shape extends z.ZodRawShape>(meaning: string, shape: Shape) {
  const read = (value: unknown) => {
    const given = fromJson(value);
    if (Array.isArray(given) || typeof given !== "object" || given === null) return given;
    return Object.keys(given).length === 0 ? [] : [given];
  };
  return z.preprocess(read, z.array(z.strictObject(shape, objectError), { error: "an object or a list" }).prefault([] as never)).register(about, { meaning, alone: true, default: [] });
}

/** Objects by name. */
export function named<Shape extends z.ZodRawShape>(meaning: string, key: Piece, expected: string, shape: Shape) {
  return z.preprocess(fromJson, z.record(string(key), z.strictObject(shape, objectError), { error: expected }).default({})).register(about, { meaning, default: {} });
}

/** Texts by name. */
export function texts(meaning: string, options: { key?: Piece; is?: Piece; example: Record<string, string>; secret?: true }) {
  const { key = anyText, is = anyText, ...told } = options;
  // "" is a text like any other here.
  const value = z.preprocess((given) => (given === "" ? given : asText(given)), string(is));
  return z.preprocess(fromJson, z.record(string(key), value, { error: "an object of texts" }).default({})).register(about, { meaning, default: {}, ...told });
}

/** Any object: what it may hold is for somebody else to judge. */
export function anything(meaning: string, example: object) {
  return z.preprocess(fromJson, z.record(z.string(), z.unknown(), objectError).default({})).register(about, { meaning, default: {}, example });
}

export const anyText: Piece = { expected: "a text" };

/** One key of the schema with what stands inside it. */
export interface Key {
  kind: "object" | "list" | "named" | "text" | "integer" | "boolean" | "choice" | "anything";
  about: About;
  /** Of an object its keys. */
  keys?: Record<string, Key>;
  /** Of a list or of things by name what each of them is. */
  item?: Key;
  words?: readonly string[];
  bounds?: { least: number; most: number };
}

/** The schema as people see it: without the steps that read it. */
export function keyOf(schema: z.core.$ZodType, told?: About): Key {
  const known = told ?? about.get(schema);
  if (schema instanceof z.ZodPipe) return keyOf(schema.out, known);
  if (schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault || schema instanceof z.ZodOptional) return keyOf(schema.unwrap(), known);
  const key = { about: known ?? { meaning: "" } };
  if (schema instanceof z.ZodObject) return { ...key, kind: "object", keys: Object.fromEntries(Object.entries(schema.shape).map(([name, inner]) => [name, keyOf(inner as z.ZodType)])) };
  if (schema instanceof z.ZodArray) return { ...key, kind: "list", item: keyOf(schema.element) };
  if (schema instanceof z.ZodRecord) return { ...key, kind: "named", item: keyOf(schema.valueType) };
  if (schema instanceof z.ZodNumber) return { ...key, kind: "integer", bounds: { least: schema.minValue!, most: schema.maxValue! } };
  if (schema instanceof z.ZodBoolean) return { ...key, kind: "boolean" };
  if (schema instanceof z.ZodEnum) return { ...key, kind: "choice", words: schema.options as string[] };
  return { ...key, kind: schema instanceof z.ZodString ? "text" : "anything" };
}
