import * as fs from "node:fs";
import * as path from "node:path";
import { parse, stringify } from "yaml";
import * as z from "zod";
import { renderStack } from "../cli/offline";
import { root } from "../cli/repository";
import { readWords, runCommand } from "../cli/terminal";
import { about, keyOf, type About, type Key } from "../config/fields";
import { areas, schema } from "../config/schema";
import { architecture } from "./architecture";

/**
 * `npm run docs`: writes what is made from the program: the README's picture from the resources it registers, and from the
 * config's schema the `config:` block of Pulumi.yaml, the JSON schema that editors check stack files against, and the tables
 * of keys in README.md and docs/config.md.
 */

const HELP = `npm run docs    writes the generated parts of README.md, Pulumi.yaml and docs/

Exit code 0: written. 1: it could not be. 2: bad arguments.
`;

export const schemaFile = "docs/config.schema.json";
/** First line of a stack file, from which editors know the schema. */
export const schemaComment = `# yaml-language-server: $schema=${schemaFile}`;
export const keysFile = "docs/config.md";

const read = (file: string): string => fs.readFileSync(path.join(root, file), "utf8");
const project = () => (parse(read("Pulumi.yaml")) as { name: string }).name;

const engineTypes: Record<Key["kind"], string> = { text: "string", choice: "string", integer: "integer", boolean: "boolean", list: "array", object: "object", named: "object", anything: "object" };
/** What the engine hands over where a key is not given: always something, so that one that is missing is reported with all other mistakes. */
const engineDefault = ({ kind, about: told }: Key): unknown => told.default ?? (kind === "text" || kind === "choice" ? "" : {});
const described = ({ meaning, required }: About): string => `${meaning}${required ? " Required." : ""}`;

/** The `config:` block of Pulumi.yaml. */
export function projectConfig(): string {
  const keys = Object.entries(keyOf(schema).keys!).map(([name, key]) => [
    name,
    { type: engineTypes[key.kind], ...(key.kind === "list" && { items: { type: engineTypes[key.item!.kind] } }), default: engineDefault(key), description: described(key.about) },
  ]);
  return stringify({ config: Object.fromEntries(keys) }, { lineWidth: 120 });
}

/** Pulumi.yaml with its `config:` block brought up to date. */
export function withConfig(document: string): string {
  const comment = "# Made by `npm run docs` from config/schema.ts, which also has the keys inside objects and lists.\n";
  return `${document.split(/^(?:# Made by .*\n)?config:/m)[0]}${comment}${projectConfig()}`;
}

/** One row of a table of keys. */
export interface Row {
  key: string;
  type: string;
  default: string;
  meaning: string;
}

function defaultText({ about: told, kind }: Key, inherited: unknown): string {
  const value = inherited ?? told.default;
  if (told.required) return "required";
  if (told.defaultText) return told.defaultText;
  if (value === undefined || value === "" || ["{}", "[]"].includes(JSON.stringify(value))) return "none";
  return kind === "object" ? "as below" : `\`${typeof value === "object" ? stringify(value, { collectionStyle: "flow", lineWidth: 0 }).trim() : String(value)}\``;
}

function typeText({ kind, about: told, words, bounds, item }: Key): string {
  if (kind === "integer") return `integer, ${bounds!.least} to ${bounds!.most}`;
  if (kind === "choice") return words!.map((word) => `\`${word}\``).join(", ");
  if (kind === "list") return item!.kind === "object" ? `${told.alone ? "object, or " : ""}list of objects` : `list of ${item!.words ? typeText(item!) : "strings"}`;
  if (kind === "named") return item!.kind === "object" ? "objects by name" : `strings by name${told.secret ? ", secret" : ""}`;
  return `${kind === "text" ? "string" : kind === "anything" ? "object" : kind}${told.secret ? ", secret" : ""}`;
}

/** A key and everything inside it, one row each. */
function rowsOf(name: string, key: Key, inherited?: unknown): Row[] {
  const row: Row = { key: name, type: typeText(key), default: defaultText(key, inherited), meaning: key.about.meaning };
  const inside = (inner: Key, at: string, usual: unknown) => Object.entries(inner.keys ?? {}).flatMap(([each, below]) => rowsOf(`${at}.${each}`, below, (usual as Record<string, unknown> | undefined)?.[each]));
  if (key.kind === "object") return [row, ...inside(key, name, inherited ?? key.about.default)];
  return [row, ...(key.item?.kind === "object" ? inside(key.item, key.kind === "list" ? `${name}[]` : `${name}.<name>`, undefined) : [])];
}

/** Rows as a table. */
export function table(rows: Row[]): string {
  const cell = (text: string) => text.replaceAll("|", "\\|");
  return ["| key | type | default | meaning |", "| --- | --- | --- | --- |", ...rows.map((row) => `| \`${row.key}\` | ${cell(row.type)} | ${cell(row.default)} | ${cell(row.meaning)} |`)].join("\n");
}

const keysOfAreas = () => Object.entries(areas).map(([area, shape]) => ({ area, keys: Object.entries(shape).map(([name, field]): [string, Key] => [name, keyOf(field)]) }));

/** The README's tables: the keys at the top, by area. */
export function topTables(): string {
  const row = ([name, key]: [string, Key]): Row => ({ ...rowsOf(name, key)[0], type: engineTypes[key.kind], ...(key.kind === "object" && !key.about.required && { default: "none" }) });
  return keysOfAreas().map(({ area, keys }) => `### ${area}\n\n${table(keys.map(row))}`).join("\n\n");
}

/** docs/config.md: every key, also inside objects and lists. */
export function keysPage(): string {
  const head = `# Every key of a stack's config

Made by \`npm run docs\` from config/schema.ts. \`pulumi config set KEY VALUE\` sets one, with \`--path\` also inside an object or a list: \`pulumi config set --path 'controlPlane.nodes[0].host' 192.0.2.10\`. What is secret is set with \`--secret\`. "as below" means the defaults of the keys that follow; given in part, such an object has what is given alone.`;
  const parts = keysOfAreas().map(({ area, keys }) => `## ${area}\n\n${table(keys.flatMap(([name, key]) => rowsOf(name, key)))}`);
  return `${[head, ...parts].join("\n\n")}\n`;
}

const markers = /(<!-- config-table:start -->\n)[\s\S]*?(<!-- config-table:end -->)/;

/** A document with the table between its markers brought up to date. */
export function withTable(document: string, text: string): string {
  if (!markers.test(document)) throw new Error("README.md has no lines <!-- config-table:start --> and <!-- config-table:end -->; put them where the table belongs");
  return document.replace(markers, (_, start: string, end: string) => `${start}${text}\n${end}`);
}

type Schema = Record<string, unknown>;

const encrypted = { $ref: "#/definitions/encrypted" };

/** What a stack file may hold at a key beside what the schema reads it as: numbers and truth values as text, encrypted texts. */
function inFile(key: Key, field: z.core.$ZodType, made: Schema): Schema {
  const takes = (text: string) => z.safeParse(field, text).success;
  switch (key.kind) {
    case "text":
      return { anyOf: [{ type: ["string", ...(takes("5") ? ["integer"] : []), ...(takes("true") ? ["boolean"] : [])], ...(made.pattern !== undefined && { pattern: made.pattern }) }, encrypted] };
    case "integer":
      return { anyOf: [{ type: "integer", minimum: made.minimum, maximum: made.maximum }, { type: "string", pattern: "^[0-9]+$" }] };
    case "boolean":
      return { enum: [true, false, "true", "false"] };
    case "named":
      return key.item!.kind === "text" ? { type: "object", additionalProperties: { anyOf: [{ type: ["string", "integer", "boolean"] }, encrypted] } } : made;
    case "list":
      return key.about.alone ? { anyOf: [{ type: "array", items: made.items }, key.item!.kind === "object" ? made.items : { type: "string" }] } : made;
    default:
      return made;
  }
}

/** JSON schema (draft 7, which editors know) of stack files. */
export function stackSchema(name: string): Schema {
  const { properties } = z.toJSONSchema(schema, {
    target: "draft-7",
    override: ({ zodSchema, jsonSchema }) => {
      const made = jsonSchema as Schema;
      // Every key may be missing: it has a default, or its absence is reported with what helps.
      delete made.required;
      const told = about.get(zodSchema);
      if (!told) return;
      const shown = inFile(keyOf(zodSchema), zodSchema, { ...made });
      for (const each of Object.keys(made)) delete made[each];
      const example = told.example === undefined || told.secret ? {} : { examples: [told.example] };
      Object.assign(made, { description: described(told), ...shown, ...(told.default !== undefined && told.default !== "" && { default: told.default }), ...example });
    },
  });
  return {
    $schema: "http://json-schema.org/draft-07/schema#",
    title: "Stack file of the build platform",
    description: "Made by `npm run docs` from config/schema.ts.",
    type: "object",
    additionalProperties: false,
    properties: {
      secretsprovider: { type: "string" },
      encryptedkey: { type: "string" },
      encryptionsalt: { type: "string" },
      environment: {},
      config: {
        type: "object",
        properties: Object.fromEntries(Object.entries(properties!).map(([key, value]) => [`${name}:${key}`, value])),
        // Keys of other packages, such as kubernetes:..., are theirs.
        additionalProperties: false,
        patternProperties: { [`^(?!${name}:)[^:]+:`]: {} },
      },
    },
    definitions: {
      encrypted: { type: "object", description: "A value set with --secret.", properties: { secure: { type: "string" } }, required: ["secure"], additionalProperties: false },
    },
  };
}

export const architectureFile = "docs/architecture.svg";

/** A whole platform: the production example, with the backup that it leaves to be set up. */
const pictured = {
  stack: "prod",
  over: { backup: { repository: "s3:https://s3.example.com/jenkins", keysRepository: "s3:https://s3.example.com/jenkins-keys", password: { secure: "" }, keysPassword: { secure: "" } } },
};

/** Each generated file with the text it should have. */
export async function generated(): Promise<Record<string, string>> {
  return {
    "Pulumi.yaml": withConfig(read("Pulumi.yaml")),
    "README.md": withTable(read("README.md"), topTables()),
    [keysFile]: keysPage(),
    [schemaFile]: `${JSON.stringify(stackSchema(project()), null, 2)}\n`,
    [architectureFile]: architecture(await renderStack(pictured.stack, root, pictured.over)),
  };
}

if (require.main === module) {
  void runCommand("docs", HELP, async (args) => {
    readWords(args, {}, 0);
    for (const [file, text] of Object.entries(await generated())) fs.writeFileSync(path.join(root, file), text);
  });
}
