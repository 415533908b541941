import * as fs from "node:fs";
import * as path from "node:path";
import { parse, stringify } from "yaml";
import { parseConfig } from "../config";
import { architecture } from "./architecture";
import { renderStack } from "../cli/offline";
import { root } from "../cli/repository";

/**
 * `npm run docs`: writes what is made from the program: the README's picture from the resources it registers, the README's
 * table and the JSON schema that editors check stack files against from the config schema. Top-level keys come from Pulumi.yaml; what may stand inside an object comes from config.ts, which
 * is asked by handing it wrong values and reading its answers.
 */

/** One key of the `config:` part of Pulumi.yaml. */
export interface ConfigKey {
  type: string;
  description: string;
  default: unknown;
  items?: { type: string };
  secret?: boolean;
}

export const schemaFile = "docs/config.schema.json";
/** First line of a stack file, from which editors know the schema. */
export const schemaComment = `# yaml-language-server: $schema=${schemaFile}`;

const project = () => parse(fs.readFileSync(path.join(root, "Pulumi.yaml"), "utf8")) as { name: string; config: Record<string, ConfigKey> };

function defaultText({ default: value, description }: ConfigKey): string {
  if (value === "" || JSON.stringify(value) === "{}") return /\bRequired\b/.test(description) ? "required" : "none";
  if (typeof value === "object") return `\`${stringify(value, { collectionStyle: "flow", lineWidth: 0 }).trim()}\``;
  return `\`${String(value)}\``;
}

/** The README's table, one row for each key. */
export function configTable(keys: Record<string, ConfigKey>): string {
  const rows = Object.entries(keys).map(([key, schema]) => {
    const meaning = schema.description.replace(/\s+/g, " ").replace(/ ?\bRequired\b(, so|\.)/, (_, rest) => (rest === "." ? "" : " Required, so")).replaceAll("|", "\\|").trim();
    return `| \`${key}\` | ${schema.type}${schema.secret ? ", secret" : ""} | ${defaultText(schema)} | ${meaning} |`;
  });
  return ["| key | type | default | meaning |", "| --- | --- | --- | --- |", ...rows].join("\n");
}

const markers = /(<!-- config-table:start -->\n)[\s\S]*?(<!-- config-table:end -->)/;

/** A document with the table between its markers brought up to date. */
export function withTable(document: string, table: string): string {
  if (!markers.test(document)) throw new Error("README.md has no lines <!-- config-table:start --> and <!-- config-table:end -->; put them where the table belongs");
  return document.replace(markers, (_, start: string, end: string) => `${start}${table}\n${end}`);
}

type Schema = Record<string, unknown>;

const encrypted = { $ref: "#/definitions/encrypted" };
/** A key that nobody would give. */
const probe = "?";

/** What config.ts says of a value: the text it expects at `at`, or undefined where it finds nothing wrong there. */
function expectedAt(at: string, raw: Record<string, unknown>): string | undefined {
  const environment = { readFile: () => "", homeDirectory: "/", isSecret: () => true };
  return parseConfig(raw, environment).problems.find((problem) => problem.key === at)?.expected;
}

/** What config.ts accepts at a path, as JSON schema. `put` makes a whole config with a value at that path. */
function schemaAt(at: string, put: (value: unknown) => Record<string, unknown>): Schema {
  const keysOf = (expected: string | undefined) => /^one of (.*)$/.exec(expected ?? "")?.[1].split(", ");
  const object = (names: string[], from: string, wrap: (value: unknown) => unknown): Schema => ({
    type: "object",
    additionalProperties: false,
    properties: Object.fromEntries(names.map((name) => [name, schemaAt(`${from}.${name}`, (value) => put(wrap({ [name]: value })))])),
  });

  const keys = keysOf(expectedAt(`${at}.${probe}`, put({ [probe]: 0 })));
  if (keys) return object(keys, at, (value) => value);
  const itemKeys = keysOf(expectedAt(`${at}[0].${probe}`, put([{ [probe]: 0 }])));
  if (itemKeys) return { type: "array", items: object(itemKeys, `${at}[0]`, (value) => [value]) };
  const namedKeys = keysOf(expectedAt(`${at}.name.${probe}`, put({ name: { [probe]: 0 } })));
  if (namedKeys) return { type: "object", additionalProperties: object(namedKeys, `${at}.name`, (value) => ({ name: value })) };

  const expected = expectedAt(at, put([[]])) ?? expectedAt(at, put({ [probe]: [] })) ?? "";
  const range = /^a whole number from (\d+) to (\d+)/.exec(expected);
  if (range) return { description: expected, anyOf: [{ type: "integer", minimum: Number(range[1]), maximum: Number(range[2]) }, { type: "string", pattern: "^[0-9]+$" }] };
  if (expected === "true or false") return { description: expected, enum: [true, false, "true", "false"] };
  const choices = keysOf(expected);
  if (choices) return { description: expected, enum: choices };
  if (expected.startsWith("an object of texts")) return { description: expected, type: "object", additionalProperties: { anyOf: [{ type: ["string", "integer", "boolean"] }, encrypted] } };
  if (expected.startsWith("a list")) return { description: expected, type: "array" };
  const text = expectedAt(at, put(2)) === undefined ? ["string", "number"] : "string";
  return { ...(expected && { description: expected }), anyOf: [{ type: text }, encrypted] };
}

/** JSON schema (draft 7, which editors know) of stack files. */
export function stackSchema(name: string, keys: Record<string, ConfigKey>): Schema {
  const properties = Object.fromEntries(
    Object.entries(keys).map(([key, { description, default: fallback, type }]) => {
      const shape = schemaAt(key, (value) => ({ [key]: value }));
      const typed = type === "boolean" ? { enum: [true, false, "true", "false"] } : shape;
      return [`${name}:${key}`, { ...typed, description: description.replace(/\s+/g, " ").trim(), ...(fallback !== "" && { default: fallback }) }];
    }),
  );
  return {
    $schema: "http://json-schema.org/draft-07/schema#",
    title: "Stack file of the build platform",
    description: "Made by `npm run docs` from Pulumi.yaml and config.ts.",
    type: "object",
    additionalProperties: false,
    properties: {
      secretsprovider: { type: "string" },
      encryptedkey: { type: "string" },
      encryptionsalt: { type: "string" },
      environment: {},
      config: {
        type: "object",
        properties,
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
  const { name, config } = project();
  return {
    "README.md": withTable(fs.readFileSync(path.join(root, "README.md"), "utf8"), configTable(config)),
    [schemaFile]: `${JSON.stringify(stackSchema(name, config), null, 2)}\n`,
    [architectureFile]: architecture(await renderStack(pictured.stack, root, pictured.over)),
  };
}

if (require.main === module) {
  void generated().then((files) => {
    for (const [file, text] of Object.entries(files)) fs.writeFileSync(path.join(root, file), text);
  });
}
