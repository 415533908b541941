/**
 * Stands in for the configuration-as-code plugin: reads the documents, resolves ${variables}, checks every key,
 * and gives the settings that Hudson can be brought to. A key the real plugin would refuse is refused here.
 */
import * as fs from "node:fs";
import * as path from "node:path";
import { parseDocument } from "yaml";
import { check, CLOUD, cloudProblems, isObject, type Keys, type Kind, type Value } from "../../../../components/jenkins-master/casc-schema";

export type { Keys, Value } from "../../../../components/jenkins-master/casc-schema";

/** Keys below `jenkins` that change nothing here: Hudson lacks the feature, or they are about looks. */
const JENKINS_ACCEPTED = [
  "agentProtocols", "crumbIssuer", "disableRememberMe", "disabledAdministrativeMonitors", "globalNodeProperties", "labelAtoms", "labelString", "log",
  "markupFormatter", "myViewsTabBar", "nodeMonitors", "nodes", "noUsageStatistics", "primaryView", "projectNamingStrategy", "proxy", "rawBuildsDir",
  "remotingSecurity", "scmCheckoutRetryCount", "updateCenter", "views", "viewsTabBar",
];

const MATRIX: Kind = { object: { permissions: { list: "string" }, entries: { list: { symbol: { user: { object: { name: "string", permissions: { list: "string" } } }, group: { object: { name: "string", permissions: { list: "string" } } } } } } } };

const DOCUMENT: Kind = {
  object: {
    jenkins: {
      object: {
        systemMessage: "string", numExecutors: "int", mode: "string", quietPeriod: "int", slaveAgentPort: "int",
        securityRealm: { symbol: { local: { object: { allowsSignup: "bool", enableCaptcha: "bool", users: { list: { object: { id: "string", name: "string", password: "string", description: "string", properties: "any" } } } } } } },
        authorizationStrategy: { symbol: { unsecured: { object: {} }, loggedInUsersCanDoAnything: { object: { allowAnonymousRead: "bool" } }, globalMatrix: MATRIX } },
        clouds: { list: { symbol: { kubernetes: CLOUD } } },
        ...Object.fromEntries(JENKINS_ACCEPTED.map((key) => [key, "any" as const])),
      },
    },
    unclassified: "any", security: "any", tool: "any", credentials: "any", appearance: "any", jobs: "any", groovy: "any", support: "any", "configuration-as-code": "any",
  },
};

/** What the documents ask for, in Hudson's terms. */
export interface Settings {
  systemMessage: string;
  numExecutors: number;
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

/** Thrown with all problems of the documents, one per line. */
export class BrokenDocument extends Error {
  constructor(readonly problems: string[]) {
    super(problems.join("\n"));
  }
}

/** The documents named by CASC_JENKINS_CONFIG: files, or folders of .yaml and .yml files, separated by commas. */
export function findDocuments(setting: string): string[] {
  return setting.split(",").map((part) => part.trim()).filter(Boolean).flatMap((place) => {
    if (!fs.existsSync(place)) throw new BrokenDocument([`CASC_JENKINS_CONFIG names ${place}, which does not exist`]);
    if (!fs.statSync(place).isDirectory()) return [place];
    // A ConfigMap volume keeps its files behind links; its own bookkeeping starts with "..".
    return fs.readdirSync(place).filter((name) => /^[^.].*\.ya?ml$/.test(name)).sort().map((name) => path.join(place, name));
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
 * Replaces ${name}, ${name:-default} and the function forms ${readFile:/path}, ${base64:text}, ${decodeBase64:text},
 * ${trim:text}; ^${name} is a literal ${name}. An unknown name becomes an empty text, as in the plugin.
 */
export function resolve(text: string, lookup: (name: string) => string | undefined, unknown: (name: string) => void): string {
  let out = "";
  for (let i = 0; i < text.length; ) {
    if (text.startsWith("^${", i)) {
      out += "${";
      i += 3;
      continue;
    }
    if (!text.startsWith("${", i)) {
      out += text[i++];
      continue;
    }
    let depth = 1;
    let end = i + 2;
    for (; end < text.length && depth > 0; end++) {
      if (text.startsWith("${", end)) depth++;
      else if (text[end] === "}") depth--;
    }
    if (depth > 0) {
      out += text.slice(i);
      break;
    }
    out += expand(resolve(text.slice(i + 2, end - 1), lookup, unknown), lookup, unknown);
    i = end;
  }
  return out;
}

function expand(body: string, lookup: (name: string) => string | undefined, unknown: (name: string) => void): string {
  const call = /^(readFile|base64|decodeBase64|trim):(?!-)([^]*)$/.exec(body);
  if (call) {
    const [, name, argument] = call;
    if (name === "readFile") return fs.readFileSync(argument, "utf8");
    if (name === "base64") return Buffer.from(argument).toString("base64");
    if (name === "decodeBase64") return Buffer.from(argument, "base64").toString();
    return argument.trim();
  }
  const split = body.indexOf(":-");
  const value = lookup(split < 0 ? body : body.slice(0, split));
  if (value !== undefined) return value;
  if (split >= 0) return body.slice(split + 2);
  unknown(body);
  return "";
}

/**
 * Parses, merges, resolves and checks documents.
 * @param warn receives what is odd but not wrong
 * @throws BrokenDocument with every problem found
 */
export function readSettings(documents: { name: string; text: string }[], lookup: (name: string) => string | undefined, warn: (line: string) => void): Settings {
  const problems: string[] = [];
  let merged: Value = {};
  for (const { name, text } of documents) {
    const parsed = parseDocument(text, { uniqueKeys: true });
    if (parsed.errors.length > 0) {
      problems.push(...parsed.errors.map((e) => `${name}: ${e.message.split("\n")[0]}`));
      continue;
    }
    const value = (parsed.toJS() ?? {}) as Value;
    if (!isObject(value)) problems.push(`${name}: a map is expected at the top`);
    else merged = merge(merged, value, "", name, problems);
  }
  const fetched = mapText(merged, (text, at) => {
    try {
      return resolve(text, lookup, (name) => warn(`${at}: variable ${name} is not known and becomes empty`));
    } catch (e) {
      problems.push(`${at}: ${(e as Error).message}`);
      return "";
    }
  });
  const checked = check(fetched, DOCUMENT, "", problems) as Keys;
  const settings = problems.length === 0 ? toSettings(checked, problems) : undefined;
  if (!settings || problems.length > 0) throw new BrokenDocument(problems);
  return settings;
}

function toSettings(document: Keys, problems: string[]): Settings {
  const jenkins = (document.jenkins ?? {}) as Keys;
  const local = ((jenkins.securityRealm ?? {}) as Keys).local as Keys | undefined;
  const users = ((local?.users ?? []) as Keys[]).map((user, i) => {
    const at = `jenkins.securityRealm.local.users[${i}]`;
    if (!user.id) problems.push(`${at}.id: is empty`);
    if (!user.password) problems.push(`${at}.password: is empty; is the Secret mounted where SECRETS points to?`);
    return { id: user.id as string, ...(user.name ? { name: user.name as string } : {}), password: user.password as string };
  });
  const unclassified = isObject(document.unclassified ?? null) ? (document.unclassified as Keys) : {};
  const location = (unclassified.location ?? {}) as Keys;
  if (jenkins.mode !== undefined && !["NORMAL", "EXCLUSIVE"].includes(jenkins.mode as string)) problems.push(`jenkins.mode: ${String(jenkins.mode)}; NORMAL or EXCLUSIVE is expected`);
  const clouds = ((jenkins.clouds ?? []) as Keys[]).map((cloud) => cloud.kubernetes as Keys);
  clouds.forEach((cloud, i) => {
    const at = `jenkins.clouds[${i}].kubernetes`;
    problems.push(...cloudProblems(cloud, at), ...beyondHudson(cloud, at));
  });
  return {
    systemMessage: (jenkins.systemMessage ?? "") as string,
    numExecutors: (jenkins.numExecutors ?? 2) as number,
    ...(jenkins.mode === undefined ? {} : { mode: jenkins.mode as string }),
    ...(jenkins.quietPeriod === undefined ? {} : { quietPeriod: jenkins.quietPeriod as number }),
    ...(jenkins.slaveAgentPort === undefined ? {} : { slaveAgentPort: jenkins.slaveAgentPort as number }),
    ...(location.url ? { url: String(location.url) } : {}),
    allowsSignup: (local?.allowsSignup ?? true) as boolean,
    users,
    permissions: permissions((jenkins.authorizationStrategy ?? {}) as Keys, problems),
    clouds,
    ignored: [
      ...Object.keys(jenkins).filter((key) => JENKINS_ACCEPTED.includes(key)).map((key) => `jenkins.${key}`),
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
    const who = (entry.user ?? entry.group) as Keys;
    return ((who.permissions ?? []) as string[]).map((permission) => `${permission}:${String(who.name)}`);
  });
  // The flat form is "Overall/Read:who", with an optional USER: or GROUP: before it.
  const flat = ((matrix.permissions ?? []) as string[]).map((text) => text.replace(/^(USER|GROUP):/, ""));
  for (const text of flat) if (!/^[^/:]+\/[^/:]+:.+$/.test(text)) problems.push(`jenkins.authorizationStrategy.globalMatrix.permissions: "${text}" is not Group/Name:who`);
  return [...entries, ...flat];
}

/** What the plugin can do and Hudson cannot. */
function beyondHudson(cloud: Keys, at: string): string[] {
  const injected = ((cloud.templates ?? []) as Keys[]).flatMap((template, i) => (template.agentInjection ? [`${at}.templates[${i}].agentInjection: not known here; the jnlp image must hold the agent`] : []));
  return [...(cloud.webSocket ? [`${at}.webSocket: Hudson knows no WebSocket agents; use the TCP port`] : []), ...injected];
}

/** Merges as the plugin's default strategy does: maps grow together, anything else must not be set twice. */
function merge(a: Value, b: Value, at: string, file: string, problems: string[]): Value {
  if (isObject(a) && isObject(b)) {
    const out = { ...a };
    for (const [key, value] of Object.entries(b)) out[key] = key in out ? merge(out[key], value, at ? `${at}.${key}` : key, file, problems) : value;
    return out;
  }
  if (Array.isArray(a) && Array.isArray(b)) return [...a, ...b];
  if (JSON.stringify(a) !== JSON.stringify(b)) problems.push(`${file}: ${at} is set differently in another document`);
  return a;
}

function mapText(value: Value, change: (text: string, at: string) => string, at = ""): Value {
  if (typeof value === "string") return change(value, at);
  if (Array.isArray(value)) return value.map((item, i) => mapText(item, change, `${at}[${i}]`));
  if (isObject(value)) return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, mapText(item, change, at ? `${at}.${key}` : key)]));
  return value;
}

