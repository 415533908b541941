/**
 * Holds documents against what the real Jenkins was recorded to take (contracts/). The component checks a site's documents and its
 * own with it before anything is created, the sandbox's stand-in for Jenkins before it takes them.
 */
import { parseDocument, visit, type YAMLError } from "yaml";
import { contracts, type Contracts } from "./contracts";

/** A value of a YAML document. */
export type Value = string | number | boolean | null | Value[] | { [key: string]: Value };
/** A map of a document; after the check with names as Jenkins writes them. */
export type Keys = { [key: string]: Value };

/** Something in a document that Jenkins refuses, or takes for something else than it says. */
export interface Finding {
  /** Where, such as jenkins.clouds[0].kubernetes.name */
  at: string;
  /** An attribute or a symbol that the class does not have, a root, a value of another kind, or a text that is taken as 0 or false without a word. */
  kind: "attribute" | "symbol" | "root" | "type" | "silent";
  /** In words, without the place. */
  problem: string;
  /** What was found where another name belongs. */
  name?: string;
  /** The class, or the root, that refuses it. */
  owner: string;
  /** What it would take. */
  known: string[];
}

/** Whether a value is a map. */
export function isObject(value: unknown): value is Keys {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Place and problem in one line. */
export const say = ({ at, problem }: Finding): string => `${at}: ${problem}`;

/** A name as the recording writes it: Jenkins does not mind upper and lower case. */
function spelled(name: string, known: object): string | undefined {
  if (Object.hasOwn(known, name)) return name;
  return Object.keys(known).find((each) => each.toLowerCase() === name.toLowerCase());
}

const article = (value: Value): string => (value === null ? "nothing" : Array.isArray(value) ? "a list" : typeof value === "object" ? "a map" : `"${String(value)}"`);
const join = (at: string, key: string): string => (at === "" ? key : `${at}.${key}`);

/** The symbol whose class a word names, whole or without the extension point's name: Jenkins takes both in a symbol's place. */
function ofClass(word: string, known: Record<string, string>, point: string): string | undefined {
  const simple = (name: string) => name.replace(/^.*[.$]/, "").toLowerCase();
  return Object.keys(known).find((symbol) => [simple(known[symbol]), simple(known[symbol]).replace(new RegExp(`${simple(point)}$`), "")].includes(word.toLowerCase()));
}

/** Reads documents against one recording, and collects what is wrong with them. */
export class Check {
  readonly findings: Finding[] = [];

  /**
   * @param recording what to hold against
   * @param references whether a text with a reference such as ${name} stands for a scalar of any kind, having its value only in Jenkins
   */
  constructor(private readonly recording: Contracts = contracts, private readonly references = true) {}

  private find(at: string, kind: Finding["kind"], owner: string, problem: string, known: string[] = [], name?: string): void {
    this.findings.push({ at, kind, owner, problem, known, ...(name !== undefined && { name }) });
  }

  /** A whole document. Roots that begin with x- hold anchors and are nobody's. */
  document(document: Keys): Keys {
    const { roots } = this.recording;
    return Object.fromEntries(
      Object.entries(document).flatMap(([key, value]) => {
        if (key.startsWith("x-")) return [];
        const root = spelled(key, roots);
        if (root === undefined) {
          this.find(key, "root", "", `no configurator found for the root element ${key}; known are ${Object.keys(roots).join(", ")}`, Object.keys(roots), key);
          return [[key, value]];
        }
        const kind = roots[root];
        // What a root holds are symbols: any plugin may add some.
        if (typeof kind === "string") return [[root, this.value(value, kind, key)]];
        // Of a root of which nothing is recorded not even the kind is known.
        return [[root, "*" in kind && !isObject(value) ? value : this.attributes(value, kind, key, root, "symbol")]];
      }),
    );
  }

  /** A value where the recording has `type`. */
  value(value: Value, type: string, at: string, owner = ""): Value {
    if (value === null || type === "object") return value;
    if (this.references && typeof value === "string" && value.includes("${")) return value;
    const other = (expected: string): Value => {
      this.find(at, "type", owner, `${expected} is expected, found ${article(value)}`);
      return value;
    };
    if (type.startsWith("list of ")) return Array.isArray(value) ? value.map((item, i) => this.value(item, type.slice("list of ".length), `${at}[${i}]`, owner)) : other("a list");
    if (type in this.recording.symbols) return this.symbol(value, type, at);
    if (type in this.recording.attributes) {
      const own = this.recording.attributes[type];
      // A class without attributes may be a text that it makes something of.
      return !isObject(value) && !Array.isArray(value) && Object.keys(own).length === 0 ? value : this.attributes(value, own, at, type, "attribute");
    }
    if (type === "string") return typeof value === "object" ? other("a text") : String(value);
    if (type === "integer") return this.number(value, at, owner, other);
    if (type === "boolean") return this.truth(value, at, owner, other);
    if (type.includes("|")) return type.split("|").includes(String(value)) ? value : other(`one of ${type.split("|").join(", ")}`);
    // A class that is not recorded.
    return value;
  }

  private number(value: Value, at: string, owner: string, other: (expected: string) => Value): Value {
    if (typeof value === "object") return other("a whole number");
    if (/^-?\d+$/.test(String(value).trim())) return Number(value);
    this.find(at, "silent", owner, `a whole number is expected, found "${String(value)}": Jenkins would take it as 0`);
    return 0;
  }

  private truth(value: Value, at: string, owner: string, other: (expected: string) => Value): Value {
    if (typeof value === "object") return other("true or false");
    const word = String(value).toLowerCase();
    if (/^(true|yes|y|on|1)$/.test(word)) return true;
    if (!/^(false|no|n|off|0|)$/.test(word)) this.find(at, "silent", owner, `true or false is expected, found "${String(value)}": Jenkins would take it as false`);
    return false;
  }

  private symbol(value: Value, type: string, at: string): Value {
    const known = this.recording.symbols[type];
    const given = typeof value === "object" ? value : { [String(value)]: null };
    if (!isObject(given) || Object.keys(given).length !== 1) {
      this.find(at, "type", type, `one of ${Object.keys(known).join(", ")} is expected, found ${isObject(given) ? `a map of ${Object.keys(given).length}` : article(value)}`);
      return value;
    }
    const [word] = Object.keys(given);
    const name = spelled(word, known) ?? ofClass(word, known, type);
    if (name === undefined) {
      this.find(join(at, word), "symbol", type, `not known; known are ${Object.keys(known).join(", ")}`, Object.keys(known), word);
      return given;
    }
    return { [name]: this.value(given[word] ?? {}, known[name], join(at, word), type) };
  }

  private attributes(value: Value, known: Record<string, string>, at: string, owner: string, kind: "attribute" | "symbol"): Value {
    if (value === null) return {};
    if (!isObject(value)) {
      this.find(at, "type", owner, `a map is expected, found ${article(value)}`);
      return value;
    }
    const { "*": open, ...named } = known;
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => {
        const name = spelled(key, named);
        if (name !== undefined) return [name, this.value(item, named[name], join(at, key), owner)];
        const names = Object.keys(named);
        this.find(join(at, key), kind, owner, open ? "not recorded" : names.length > 0 ? `not known; known are ${names.join(", ")}` : "not known; it has no settings", open ? [] : names, key);
        return [key, item];
      }),
    );
  }
}

/** The kubernetes plugin's class of a cloud. */
export const CLOUD = "org.csanchez.jenkins.plugins.kubernetes.KubernetesCloud";

/** What is wrong with a text that is no YAML, or more than one document of it; the parser's own advice is for programs. */
export const yamlProblem = ({ code, message }: Pick<YAMLError, "code" | "message">, reader: string): string =>
  code === "MULTIPLE_DOCS" ? `holds several YAML documents, parted by ---, and ${reader}` : `is no YAML: ${message.split("\n")[0]}`;

/** Mistakes in a pod of a template that configuration-as-code passes on unread: broken YAML, and aliases, which the plugin's own reader does not know. */
export function podYamlProblems(text: string): string[] {
  const parsed = parseDocument(text);
  if (parsed.errors.length > 0) return [yamlProblem(parsed.errors[0], "the kubernetes plugin reads the first alone: leave one")];
  let alias: string | undefined;
  visit(parsed, { Alias: (_, node) => ((alias = node.source), visit.BREAK) });
  return alias === undefined ? [] : [`holds the YAML alias *${alias}, which the kubernetes plugin's reader does not know: it would never ask for such a pod, and builds would wait; write it out`];
}

/**
 * What is wrong with a cloud of the kubernetes plugin that configuration-as-code takes: templates without name, unknown parents, pods
 * that the plugin cannot read, a tunnel without port.
 * @param others names of templates that are in the cloud besides
 */
export function cloudProblems(cloud: Keys, at: string, others: string[] = []): string[] {
  const problems: string[] = [];
  const templates = (Array.isArray(cloud.templates) ? cloud.templates : []).filter(isObject);
  const names = new Set<Value>([...templates.map((t) => t.name), ...others]);
  const tunnel = cloud.jenkinsTunnel;
  if (typeof tunnel === "string" && tunnel !== "" && !tunnel.includes("${") && !/^[^/:]*:\d+$/.test(tunnel)) problems.push(`${join(at, "jenkinsTunnel")}: "${tunnel}" is not host:port; Jenkins would take it, and no agent would connect`);
  templates.forEach((template, i) => {
    const here = join(at, `templates[${i}]`);
    if (!template.name) problems.push(`${here}.name: is missing`);
    const parents = typeof template.inheritFrom === "string" && !template.inheritFrom.includes("${") ? template.inheritFrom.split(/\s+/).filter(Boolean) : [];
    for (const parent of parents) if (!names.has(parent)) problems.push(`${here}.inheritFrom: there is no template ${parent}`);
    (Array.isArray(template.containers) ? template.containers : []).forEach((container, j) => {
      if (isObject(container) && !container.name) problems.push(`${here}.containers[${j}].name: is missing`);
    });
    const pods: [string, Value][] = [["yaml", template.yaml ?? null], ...(Array.isArray(template.yamls) ? template.yamls : []).map((text, j): [string, Value] => [`yamls[${j}]`, text])];
    for (const [key, text] of pods) if (typeof text === "string") podYamlProblems(text).forEach((problem) => problems.push(`${here}.${key}: ${problem}`));
  });
  return problems;
}
