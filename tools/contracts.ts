/** Records what the Jenkins of a running platform takes and answers, for the tests and stand-ins to be held against. */
import * as fs from "node:fs";
import * as path from "node:path";
import { parse, parseAllDocuments, stringify } from "yaml";
import { adminAuth, Jenkins, withJenkins, type JenkinsAt } from "../cli/jenkins";
import { root } from "../cli/repository";
import { readStack, type Stack } from "../cli/stack";
import { readWords, runCommand, UsageError } from "../cli/terminal";
import { contracts, formatContracts, type Contracts } from "../components/jenkins-master/contracts";
import { isObject } from "../config/pieces";
import upstream from "../images/upstream.json";
import { parsePins, type Pin } from "./plugin-updates";

const HELP = `npm run contracts -- [STACK] [options]    records what the stack's Jenkins takes and answers

Asks its schema of configuration as code, its plugins and its reload (with the token and with a wrong one: what is in force stays), looks at its agent
pods, and writes components/jenkins-master/contracts/casc.json and tests/fixtures/contracts/. Run it whenever a pin of Jenkins or of a plugin moves, on a
platform with every plugin of optional-plugins.txt baked in; nothing secret is written. Needs a user that administers: as for npm run smoke.

  --pods SECONDS   how long to look for agent pods; run npm run smoke for each label meanwhile. Default 0: those that are there
  --fresh PORT     records nothing of a stack, but what a new Jenkins has, of one that answers without login on this port of this machine:
                   the controller's image on an empty home, with JAVA_OPTS=-Djenkins.install.runSetupWizard=false
  --help           this text

Exit: 0 written, 2 it could not be asked.
`;

const cascFile = path.join(root, "components/jenkins-master/contracts/casc.json");
const freshFile = path.join(root, "components/jenkins-master/contracts/fresh.json");
const fixtures = path.join(root, "tests/fixtures/contracts");

/** A node of the JSON schema that configuration-as-code writes. */
export interface SchemaNode {
  type?: string;
  enum?: string[];
  $ref?: string;
  properties?: Record<string, SchemaNode>;
  items?: SchemaNode;
  minProperties?: number;
  maxProperties?: number;
  definitions?: Record<string, SchemaNode>;
}

const target = (node: SchemaNode): string | undefined => node.$ref?.replace("#/definitions/", "");
/** An extension point: one symbol of several. */
const isPoint = (node: SchemaNode | undefined): boolean => node?.minProperties === 1 && node.maxProperties === 1;
const sameKeys = (a: object, b: object): boolean => Object.keys(a).length === Object.keys(b).length && Object.keys(a).every((key) => Object.hasOwn(b, key));

/** What the schema's endpoint says, in the recording's terms. */
export function parseSchema(schema: SchemaNode): Pick<Contracts, "roots" | "symbols" | "attributes"> {
  const definitions = schema.definitions ?? {};
  const found: Pick<Contracts, "roots" | "symbols" | "attributes"> = { roots: {}, symbols: {}, attributes: {} };
  // What has no name cannot be asked for.
  const sorted = (of: Record<string, SchemaNode>, type: (key: string, node: SchemaNode) => string) => Object.fromEntries(Object.keys(of).filter(Boolean).sort().map((key) => [key, type(key, of[key])]));

  /** The class of an inline node: the definition with the same attributes. */
  const classOf = (node: SchemaNode): string | undefined => {
    const own = node.properties ?? {};
    if (Object.keys(own).length === 0) return undefined;
    if (isPoint(node)) {
      // In a list, the extension point itself stands among its symbols.
      const self = Object.values(own).map(target).find((name) => name !== undefined && isPoint(definitions[name]) && Object.keys(definitions[name].properties ?? {}).every((key) => Object.hasOwn(own, key)));
      return self ?? Object.keys(definitions).find((name) => isPoint(definitions[name]) && sameKeys(definitions[name].properties ?? {}, own));
    }
    const candidates = Object.keys(definitions).filter((name) => !isPoint(definitions[name]) && sameKeys(definitions[name].properties ?? {}, own));
    return candidates.find((name) => JSON.stringify(definitions[name].properties) === JSON.stringify(own)) ?? candidates[0];
  };
  const typeOf = (node: SchemaNode): string => {
    if (node.type === "array") {
      const item = node.items ?? {};
      return `list of ${item.type === "string" ? typeOf(item) : (classOf(item) ?? "object")}`;
    }
    const name = target(node);
    if (name !== undefined) return name in definitions ? name : "object";
    if (node.enum && node.enum.length > 1) return [...node.enum].sort().join("|");
    return node.type === "string" || node.type === "integer" || node.type === "boolean" ? node.type : (classOf(node) ?? "object");
  };
  for (const [name, node] of Object.entries(definitions)) {
    if (isPoint(node)) found.symbols[name] = sorted(node.properties ?? {}, (_, each) => target(each) ?? "object");
    else found.attributes[name] = sorted(node.properties ?? {}, (_, each) => typeOf(each));
  }
  // Below a root the schema lists also what lies deeper, in the place of a descriptor of the same name: such an entry says that the name is known, and no more.
  const deeper = new Set([...Object.keys(found.symbols), ...Object.values(found.symbols).flatMap((entries) => Object.values(entries))]);
  const ofRoot = (node: SchemaNode): string => {
    const type = typeOf(node);
    const descriptor = `${type}$DescriptorImpl`;
    return descriptor in found.attributes ? descriptor : deeper.has(type) ? "object" : type;
  };
  for (const [name, node] of Object.entries(schema.properties ?? {})) found.roots[name] = Object.keys(node.properties ?? {}).length > 0 ? sorted(node.properties!, (_, each) => ofRoot(each)) : { "*": "object" };
  if ("jenkins" in found.roots && "jenkins.model.Jenkins" in found.attributes) found.roots.jenkins = "jenkins.model.Jenkins";
  return found;
}

/** Said with each recording that has such lists. */
const listsAreFormer = "What lists hold: the schema says it of few; the others as they were read from the sources once, \"list of object\" where not known.";

/** The attributes, with the former recording's word on what lists hold: the schema names no class there, and several have the same attributes. */
export function withFormerLists(attributes: Contracts["attributes"], former: Contracts["attributes"], symbols: Contracts["symbols"]): Contracts["attributes"] {
  const known = (type: string | undefined) => type?.startsWith("list of ") && [attributes, symbols].some((each) => Object.hasOwn(each, type.slice("list of ".length)));
  return Object.fromEntries(Object.entries(attributes).map(([owner, own]) => [owner, Object.fromEntries(Object.entries(own).map(([key, type]) => {
    const before = former[owner]?.[key];
    return [key, type.startsWith("list of ") && before !== undefined && (known(before) || before === "list of string") ? before : type];
  }))]));
}

/** Pins whose version is not the recorded one, each as name, pinned and recorded version. */
export function differing(of: Pick<Contracts, "jenkins" | "plugins">, jenkinsTag: string, pins: Pin[]): { name: string; pinned: string; recorded: string }[] {
  return [
    ...(jenkinsTag === of.jenkins || jenkinsTag.startsWith(`${of.jenkins}-`) ? [] : [{ name: "jenkins", pinned: jenkinsTag, recorded: of.jenkins }]),
    ...pins.filter(({ name, version }) => of.plugins[name] !== version).map(({ name, version }) => ({ name, pinned: version, recorded: of.plugins[name] ?? "none" })),
  ];
}

/** The pins of this repository. */
export function pins(): { jenkinsTag: string; plugins: Pin[] } {
  const read = (name: string) => parsePins(fs.readFileSync(path.join(root, "images/controller", name), "utf8"));
  return { jenkinsTag: upstream.jenkins.tag, plugins: [...read("plugins.txt"), ...read("optional-plugins.txt")] };
}

const today = () => new Date().toISOString().slice(0, 10);

/** What the API server fills in, and what is another at each start: no part of what the plugin sends. */
const filledIn = ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "uid", "resourceVersion", "generation", "managedFields", "status", "terminationMessagePath", "terminationMessagePolicy", "dnsPolicy", "schedulerName", "terminationGracePeriodSeconds", "nodeName", "priority", "preemptionPolicy", "imagePullPolicy", "serviceAccount"];
const secretEnvironment = ["JENKINS_SECRET", "JENKINS_AGENT_NAME", "JENKINS_NAME"];

/** A pod as the plugin sent it, without names, secrets and what the API server adds. */
export function bare(value: unknown): unknown {
  if (Array.isArray(value)) return value.filter((item) => !secretEnvironment.includes((item as { name?: string } | null)?.name ?? "") && !String((item as { key?: string } | null)?.key ?? "").startsWith("node.kubernetes.io/")).map(bare);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).flatMap(([key, item]): [string, unknown][] => {
      if (filledIn.includes(key)) return [];
      if (key === "kubernetes.jenkins.io/last-refresh") return [[key, "..."]];
      const left = bare(item);
      return key === "tolerations" && Array.isArray(left) && left.length === 0 ? [] : [[key, left]];
    }),
  );
}

interface Pod {
  metadata: { name: string; labels?: Record<string, string> };
}

const templateOf = ({ metadata }: Pod): string => metadata.labels?.["build-platform/template"] ?? metadata.name.replace(/-[^-]+$/, "");

/** The recorded pods with new ones in the place of those of the same template. */
export function withPods(text: string, pods: Pod[]): string {
  const known = parseAllDocuments(text).map((document) => document.toJS() as Pod).filter((pod) => pod !== null);
  const all = new Map([...known, ...pods.map((pod) => bare(pod) as Pod)].map((pod) => [templateOf(pod), pod]));
  return [...all.values()].map((pod) => `---\n${stringify(pod, { lineWidth: 0 })}`).join("");
}

/** One recorded answer. */
interface Recorded {
  status: number;
  body?: string;
}

const urlOf = ({ port, prefix = "" }: JenkinsAt): string => `http://127.0.0.1:${port}${prefix}`;

async function versionAt(at: JenkinsAt): Promise<string> {
  const version = (await fetch(`${urlOf(at)}/login`)).headers.get("x-jenkins");
  if (!version) throw new Error("what answers is no Jenkins: it does not say its version");
  return version;
}

async function record(stack: Stack, seconds: number): Promise<void> {
  const auth = await adminAuth(stack);
  const say = (line: string) => process.stdout.write(`${line}\n`);
  const { jenkins, agents } = stack.config.namespaces;
  const found = await withJenkins(stack, async (at) => {
    const client = new Jenkins(at, auth);
    const schema = parseSchema(await client.json<SchemaNode>("/configuration-as-code/schema"));
    const { plugins } = await client.json<{ plugins: { shortName: string; version: string; active: boolean }[] }>("/pluginManager/api/json?depth=1");
    const version = await versionAt(at);
    const [uid] = (await stack.kubectl("-n", jenkins, "get", "pod", "-l", "app.kubernetes.io/component=controller", "-o", "jsonpath={.items[*].metadata.uid}")).split(" ");
    const reload = async (token: string): Promise<Recorded> => {
      const answer = await fetch(`${urlOf(at)}/reload-configuration-as-code/?casc-reload-token=${token}`, { method: "POST" });
      const body = await answer.text();
      return { status: answer.status, ...(body.length < 200 && { body }) };
    };
    const wrong = await reload("not-the-token");
    return { schema, version, plugins: Object.fromEntries(plugins.filter(({ active }) => active).map((each) => [each.shortName, each.version]).sort()), answers: { wrongToken: { status: wrong.status }, good: await reload(uid) } };
  });
  const { jenkinsTag, plugins: pinned } = pins();
  const others = differing({ jenkins: found.version, plugins: found.plugins }, jenkinsTag, pinned);
  const recording: Contracts = {
    jenkins: found.version,
    recorded: today(),
    plugins: found.plugins,
    otherThanPinned: Object.fromEntries(others.map(({ name }) => [name, contracts.otherThanPinned[name] ?? ""])),
    notRecorded: [listsAreFormer],
    ...found.schema,
    attributes: withFormerLists(found.schema.attributes, contracts.attributes, found.schema.symbols),
  };
  fs.writeFileSync(cascFile, formatContracts(recording));
  say(`${path.relative(root, cascFile)}: Jenkins ${found.version}, ${Object.keys(found.plugins).length} plugins, ${Object.keys(recording.attributes).length} classes`);
  for (const { name, pinned: pin, recorded } of others) say(`  ${name} is pinned to ${pin} and was recorded as ${recorded}: say why under otherThanPinned, or record again`);

  const answersFile = path.join(fixtures, "answers.json");
  const before = JSON.parse(fs.readFileSync(answersFile, "utf8")) as { reloadByToken: Record<string, Recorded> };
  const after = { ...before, recorded: { jenkins: found.version, "configuration-as-code": found.plugins["configuration-as-code"], on: today() }, reloadByToken: { ...before.reloadByToken, ...found.answers } };
  fs.writeFileSync(answersFile, `${JSON.stringify(after, undefined, 2)}\n`);
  say(`${path.relative(root, answersFile)}: reload with the token ${found.answers.good.status}, with a wrong one ${found.answers.wrongToken.status}; the others are asked by hand`);

  const pods = new Map<string, Pod>();
  const until = Date.now() + seconds * 1000;
  for (;;) {
    const { items } = JSON.parse(await stack.kubectl("-n", agents, "get", "pods", "-l", "kubernetes.jenkins.io/controller", "-o", "json")) as { items: Pod[] };
    items.forEach((pod) => pods.set(templateOf(pod), pod));
    if (Date.now() >= until || stack.config.agents.every(({ name }) => pods.has(name))) break;
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  const podsFile = path.join(fixtures, "agent-pods.yaml");
  if (pods.size > 0) fs.writeFileSync(podsFile, withPods(fs.readFileSync(podsFile, "utf8"), [...pods.values()]));
  const unseen = stack.config.agents.map(({ name }) => name).filter((name) => !pods.has(name));
  say(`${path.relative(root, podsFile)}: pods of ${[...pods.keys()].join(", ") || "no template"}${unseen.length > 0 ? `; none was there of ${unseen.join(", ")}: --pods 300, and npm run smoke -- ${stack.name} --label ... meanwhile` : ""}`);
}

/** The values of an export by their paths, a list as a whole. */
export const exportedValues = (value: unknown, path: string[] = []): [string, unknown][] =>
  isObject(value) ? Object.entries(value).flatMap(([key, inner]) => exportedValues(inner, [...path, key])) : [[path.join("."), value]];

async function recordFresh(port: number): Promise<void> {
  const version = await versionAt({ port });
  const values = exportedValues(parse(await new Jenkins({ port }, "").post("/configuration-as-code/export"))).filter(([key]) => /^(appearance|jenkins|security|tool|unclassified)\./.test(key));
  fs.writeFileSync(freshFile, `${JSON.stringify({ jenkins: version, recorded: today(), values: Object.fromEntries(values) }, undefined, 2)}\n`);
  process.stdout.write(`${path.relative(root, freshFile)}: Jenkins ${version}, ${values.length} values\n`);
}

async function main(args: string[]): Promise<void> {
  const { values, positionals } = readWords(args, { pods: { type: "string", default: "0" }, fresh: { type: "string" } }, 1);
  if (!/^\d+$/.test(values.pods)) throw new UsageError(`--pods is ${values.pods}; expected whole seconds, such as 300`);
  if (values.fresh !== undefined) {
    if (positionals.length > 0) throw new UsageError(`--fresh asks no stack; found ${positionals[0]}`);
    if (!/^\d+$/.test(values.fresh)) throw new UsageError(`--fresh is ${values.fresh}; expected a port, such as 8080`);
    return recordFresh(Number(values.fresh));
  }
  await record(await readStack(positionals[0]), Number(values.pods));
}

if (require.main === module) void runCommand("contracts", HELP, main);
