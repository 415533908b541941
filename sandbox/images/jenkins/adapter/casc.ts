/**
 * Stands in for the configuration-as-code plugin: reads the documents, resolves ${variables}, holds every key against what the real
 * Jenkins was recorded to take, and gives the settings that Hudson can be brought to. What the real one refuses is refused here, in
 * its words; what it takes without a word is taken.
 */
import * as fs from "node:fs";
import * as path from "node:path";
import { parseDocument } from "yaml";
import { Check, isObject, type Finding, type Keys, type Value } from "../../../../components/jenkins-master/casc-schema";
import { contracts } from "../../../../components/jenkins-master/contracts";
import { bakedPlugins, optionalPlugins, pluginOf, recordingFor } from "../../../../components/jenkins-master/plugins";
import { referenceParts, substitute } from "../../../../components/jenkins-master/references";

export type { Keys, Value } from "../../../../components/jenkins-master/casc-schema";

/** Keys below `jenkins` that Hudson is brought to; the others are accepted without effect. */
const IN_FORCE = ["systemMessage", "numExecutors", "mode", "quietPeriod", "slaveAgentPort", "securityRealm", "authorizationStrategy", "clouds"];

/** What the documents ask for, in Hudson's terms; what they do not say is undefined. */
export interface Settings {
  systemMessage?: string;
  numExecutors?: number;
  mode?: string;
  quietPeriod?: number;
  slaveAgentPort?: number;
  url?: string;
  allowsSignup: boolean;
  users: { id: string; name?: string; password: string }[];
  /** "Group/Name:who"; empty when anybody may do anything. */
  permissions: string[];
  clouds: Keys[];
  /** Keys that were accepted and have no effect here. */
  ignored: string[];
}

/** The documents are refused, in the words of the plugin's exceptions. */
export class BrokenDocument extends Error {
  /** @param unreadable whether a document is no YAML, which the plugin answers otherwise than one that it refuses */
  constructor(readonly problems: string[], readonly unreadable = false) {
    super(problems.join("\n"));
  }
}

/**
 * The documents named by CASC_JENKINS_CONFIG: files, or folders with all .yaml and .yml files below them, separated by commas. As the
 * plugin does since version 2113, through links and hidden names: a mounted ConfigMap holds each document three times.
 */
export function findDocuments(setting: string): string[] {
  return setting.split(",").map((part) => part.trim()).filter(Boolean).flatMap((place) => {
    if (!fs.existsSync(place)) throw new BrokenDocument([`Source '${place}' is not supported by any registered configuration fetcher or does not exist.`]);
    return fs.statSync(place).isDirectory() ? below(place) : [place];
  });
}

function below(folder: string): string[] {
  return fs.readdirSync(folder).sort().flatMap((name) => {
    const file = path.join(folder, name);
    if (fs.statSync(file).isDirectory()) return below(file);
    return /\.(yml|yaml|YML|YAML)$/.test(name) ? [file] : [];
  });
}

/** Variables as the plugin finds them: files below SECRETS first, then the environment; `undefined` when unknown. */
export function variables(env: NodeJS.ProcessEnv): (name: string) => string | undefined {
  const folder = env.SECRETS ?? "/run/secrets";
  return (name) => {
    const file = path.join(folder, name);
    if (!name.includes("/") && name !== "" && !name.startsWith(".") && fs.existsSync(file) && fs.statSync(file).isFile()) return fs.readFileSync(file, "utf8").trim();
    return env[name];
  };
}

/**
 * Replaces ${name}, ${name:-default} and functions such as ${readFile:/path}; ^${name} is a literal ${name}. An unknown name
 * becomes an empty text, as in the plugin.
 */
export function resolve(text: string, lookup: (name: string) => string | undefined, unknown: (name: string) => void): string {
  return substitute(text, (body) => {
    const parts = referenceParts(body);
    if ("lookup" in parts) return call(parts.lookup, parts.argument, unknown);
    const value = lookup(parts.name) ?? parts.fallback;
    if (value === undefined) unknown(parts.name);
    return value ?? "";
  });
}

function call(name: string, argument: string, unknown: (name: string) => void): string {
  const file = () => {
    if (fs.existsSync(argument)) return fs.readFileSync(argument);
    unknown(`${name}:${argument}`);
    return Buffer.alloc(0);
  };
  switch (name) {
    case "file":
    case "readFile":
      return file().toString("utf8");
    case "fileBase64":
    case "readFileBase64":
      return file().toString("base64");
    case "base64":
      return Buffer.from(argument).toString("base64");
    case "decodeBase64":
      return Buffer.from(argument, "base64").toString();
    case "json": {
      const [key, ...json] = argument.split(":");
      const value = (JSON.parse(json.join(":")) as Record<string, unknown>)[key];
      if (value === undefined) unknown(`json:${key}`);
      return value === undefined ? "" : String(value);
    }
    case "trim":
      return argument.trimEnd();
    default:
      // A property of Java's, which this program does not see.
      unknown(`${name}:${argument}`);
      return "";
  }
}

/** A finding in the words of the plugin's exceptions; undefined for what it takes without a word. */
export function refusal({ at, kind, owner, name, known, problem }: Finding): string | undefined {
  if (kind === "silent") return undefined;
  if (kind === "root")
    return `io.jenkins.plugins.casc.UnknownConfiguratorException: No configurator found for the following root element: ${name}. This may indicate that the required plugin is not installed or failed to load. Verify that the plugin is installed and check the Jenkins startup logs for plugin loading errors.`;
  if (kind === "type") return `io.jenkins.plugins.casc.ConfiguratorException: Failed to configure '${at}': ${problem}`;
  const words = owner in contracts.symbols ? `No ${owner} implementation found for ${name}` : `Invalid configuration elements for type: ${owner in contracts.roots ? `root ${owner}` : `class ${owner}`} : ${name}.`;
  return `io.jenkins.plugins.casc.UnknownAttributesException: ${words}\nAvailable ${owner in contracts.symbols ? "implementations" : "attributes"} : ${known.join(", ")} (at ${at})`;
}

/**
 * Parses, merges, resolves and checks documents.
 * @param warn receives what is odd but not wrong
 * @param plugins names of the plugins that are there
 * @throws BrokenDocument with every problem found
 */
export function readSettings(documents: { name: string; text: string }[], lookup: (name: string) => string | undefined, warn: (line: string) => void, plugins = bakedPlugins(optionalPlugins)): Settings {
  const problems: string[] = [];
  let merged: Value = {};
  for (const { name, text } of documents) {
    const parsed = parseDocument(text, { merge: true, uniqueKeys: false });
    if (parsed.errors.length > 0) throw new BrokenDocument(parsed.errors.map((e) => `org.yaml.snakeyaml.error.YAMLException: ${name}: ${e.message.split("\n")[0]}`), true);
    const value = (parsed.toJS() ?? {}) as Value;
    if (!isObject(value)) problems.push(`io.jenkins.plugins.casc.ConfiguratorException: Found incompatible configuration elements ${name}`);
    else merged = merge(merged, value, "", name, problems);
  }
  if (problems.length > 0) throw new BrokenDocument(problems);
  const fetched = mapText(merged, (text, at) => {
    if (at.startsWith("x-")) return text;
    try {
      return resolve(text, lookup, (name) => warn(`Configuration import: Found unresolved variable '${name}'. Will default to empty string (at ${at})`));
    } catch (e) {
      problems.push(`io.jenkins.plugins.casc.ConfiguratorException: ${at}: ${(e as Error).message}`);
      return "";
    }
  }) as Keys;
  const check = new Check(recordingFor(plugins), false);
  const checked = check.document(fetched);
  // What a plugin brings that is there, and of which nothing is recorded.
  const unrecorded = ({ kind, owner, name }: Finding) => {
    const plugin = (kind === "symbol" || kind === "root") && name !== undefined ? pluginOf(owner, name) : undefined;
    return plugin === "core" || (plugin !== undefined && plugins.has(plugin));
  };
  problems.push(...check.findings.filter((finding) => !unrecorded(finding)).map(refusal).filter((words) => words !== undefined));
  const settings = problems.length === 0 ? toSettings(checked, problems) : undefined;
  if (!settings || problems.length > 0) throw new BrokenDocument(problems);
  return settings;
}

/** What is in force after a reload: what a document no longer says keeps its value until the next start. */
export function afterReload(before: Settings | undefined, next: Settings): Settings {
  const kept = Object.fromEntries(Object.entries(before ?? {}).filter(([key]) => ["systemMessage", "numExecutors", "mode", "quietPeriod", "url"].includes(key)));
  return { ...kept, ...next };
}

function toSettings(document: Keys, problems: string[]): Settings {
  const jenkins = (document.jenkins ?? {}) as Keys;
  const realm = (jenkins.securityRealm ?? {}) as Keys;
  const local = realm.local as Keys | undefined;
  for (const other of Object.keys(realm)) if (other !== "local") problems.push(`jenkins.securityRealm.${other}: Hudson stands in for Jenkins here, and knows local users only`);
  const users = ((local?.users ?? []) as Keys[]).map((user, i) => {
    const at = `jenkins.securityRealm.local.users[${i}]`;
    if (!user.id) problems.push(`${at}.id: is empty`);
    if (!user.password) problems.push(`${at}.password: is empty; is the Secret mounted where SECRETS points to?`);
    return { id: user.id as string, ...(user.name ? { name: user.name as string } : {}), password: user.password as string };
  });
  const unclassified = isObject(document.unclassified ?? null) ? (document.unclassified as Keys) : {};
  const location = (unclassified.location ?? {}) as Keys;
  const clouds = ((jenkins.clouds ?? []) as Keys[]).flatMap((cloud) => (cloud.kubernetes ? [cloud.kubernetes as Keys] : []));
  clouds.forEach((cloud, i) => problems.push(...beyondHudson(cloud, `jenkins.clouds[${i}].kubernetes`)));
  const set = <T>(key: string): Record<string, T> => (jenkins[key] === undefined || jenkins[key] === null ? {} : { [key]: jenkins[key] as T });
  return {
    ...set<string>("systemMessage"), ...set<number>("numExecutors"), ...set<string>("mode"), ...set<number>("quietPeriod"), ...set<number>("slaveAgentPort"),
    ...(location.url ? { url: String(location.url) } : {}),
    allowsSignup: (local?.allowsSignup ?? true) as boolean,
    users,
    permissions: permissions((jenkins.authorizationStrategy ?? {}) as Keys, problems),
    clouds,
    ignored: [
      ...Object.keys(jenkins).filter((key) => !IN_FORCE.includes(key)).map((key) => `jenkins.${key}`),
      ...Object.keys(unclassified).filter((key) => key !== "location").map((key) => `unclassified.${key}`),
      ...Object.keys(document).filter((key) => key !== "jenkins" && key !== "unclassified"),
    ],
  };
}

function permissions(strategy: Keys, problems: string[]): string[] {
  if (strategy.loggedInUsersCanDoAnything) {
    const anonymous = (strategy.loggedInUsersCanDoAnything as Keys).allowAnonymousRead !== false;
    return ["Overall/Administer:authenticated", ...(anonymous ? ["Overall/Read:anonymous", "Job/Read:anonymous"] : [])];
  }
  if (!strategy.globalMatrix) return [];
  const matrix = strategy.globalMatrix as Keys;
  const entries = ((matrix.entries ?? []) as Keys[]).flatMap((entry) => {
    const who = (entry.user ?? entry.group ?? entry.userOrGroup) as Keys;
    return ((who.permissions ?? []) as string[]).map((permission) => `${permission}:${String(who.name)}`);
  });
  // The flat form is "Overall/Read:who", with an optional USER: or GROUP: before it.
  const flat = ((matrix.permissions ?? []) as string[]).map((text) => text.replace(/^(USER|GROUP|EITHER):/, ""));
  for (const text of flat) if (!/^[^/:]+\/[^/:]+:.+$/.test(text)) problems.push(`jenkins.authorizationStrategy.globalMatrix.permissions: "${text}" is not Group/Name:who`);
  return [...entries, ...flat];
}

/** What the plugin can do and Hudson cannot. */
function beyondHudson(cloud: Keys, at: string): string[] {
  const injected = ((cloud.templates ?? []) as Keys[]).flatMap((template, i) => (template.agentInjection ? [`${at}.templates[${i}].agentInjection: not known here; the jnlp image must hold the agent`] : []));
  return [...(cloud.webSocket ? [`${at}.webSocket: Hudson knows no WebSocket agents; use the TCP port`] : []), ...injected];
}

/** Merges as the plugin's default strategy does: maps and lists grow together, anything else must not be set twice, not even to the same value. */
function merge(a: Value, b: Value, at: string, file: string, problems: string[]): Value {
  if (isObject(a) && isObject(b)) {
    const out = { ...a };
    for (const [key, value] of Object.entries(b)) out[key] = key in out ? merge(out[key], value, at ? `${at}.${key}` : key, file, problems) : value;
    return out;
  }
  if (Array.isArray(a) && Array.isArray(b)) return [...a, ...b];
  const words = isObject(a) || isObject(b) || Array.isArray(a) || Array.isArray(b) ? "Found incompatible configuration elements" : "Found conflicting configuration at";
  problems.push(`io.jenkins.plugins.casc.ConfiguratorConflictException: ${words} ${file}, ${at}`);
  return a;
}

function mapText(value: Value, change: (text: string, at: string) => string, at = ""): Value {
  if (typeof value === "string") return change(value, at);
  if (Array.isArray(value)) return value.map((item, i) => mapText(item, change, `${at}[${i}]`));
  if (isObject(value)) return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, mapText(item, change, at ? `${at}.${key}` : key)]));
  return value;
}
