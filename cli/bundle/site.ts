import { spawn, type ChildProcess } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { parseDocument } from "yaml";
import { prepareImages, type AgentImagesArgs } from "../../components/agent-images";
import { pullPort, pushPort, pushSecretName, registryName, registryNodeName } from "../../components/image-registry";
import { sshEnvironment, sshScript, type SshNode } from "../../components/node-port-range";
import type { Surroundings } from "../../components/surroundings";
import { explain } from "../../config";
import { imageArgs } from "../../config/arguments";
import { isObject } from "../../config/pieces";
import { forwarded } from "../port-forward";
import { readYaml, root } from "../repository";
import { aroundStack, readStack, type Stack } from "../stack";
import { Registry } from "./registry";

/** A stack's surroundings, registry, nodes and file, as far as bundles have to do with them. */

export const say = (text: string): void => void process.stderr.write(`${text}\n`);

/** The project's name, which stands before keys in stack files. */
const project = (): string => (readYaml(path.join(root, "Pulumi.yaml")) as { name: string }).name;

/** The repository's version. */
export const release = (): string => (JSON.parse(fs.readFileSync(path.join(root, "package.json"), "utf8")) as { version: string }).version;

/** A stack whose config holds. @throws with every mistake in it */
export async function soundStack(name: string, over: Record<string, unknown> = {}): Promise<Stack> {
  const stack = await readStack(name, over);
  if (stack.problems.length > 0) throw new Error(explain(stack.problems, name));
  return stack;
}

/** The same, with the network around it. @throws with every mistake in either */
export async function readySite(name: string, over: Record<string, unknown> = {}): Promise<{ stack: Stack; surroundings: Surroundings }> {
  const stack = await soundStack(name, over);
  const { surroundings, problems } = await aroundStack(stack);
  if (problems.length > 0) throw new Error(explain(problems, name));
  return { stack, surroundings };
}

/** What the stack's program builds, every base image by digest. */
export const buildsOf = ({ config }: Stack, surroundings: Surroundings): Promise<AgentImagesArgs> => prepareImages(imageArgs(config, surroundings), { ...config.registry, others: config.pullSecrets.logins });

/** Platforms of the cluster's nodes. */
export async function nodePlatforms(stack: Stack): Promise<string[]> {
  const { items } = await nodesOf(stack);
  return [...new Set(items.map(({ status: { nodeInfo } }) => `${nodeInfo.operatingSystem}/${nodeInfo.architecture}`))].sort();
}

interface NodeList {
  items: { metadata: { name: string }; status: { nodeInfo: { operatingSystem: string; architecture: string; containerRuntimeVersion: string } } }[];
}
const nodesOf = async (stack: Stack): Promise<NodeList> => JSON.parse(await stack.kubectl("get", "nodes", "-o", "json")) as NodeList;

/**
 * The registry of a host as this stack speaks to it.
 * @param plainHttp further hosts that may speak plain HTTP
 */
export function outside({ config: { registry, mirrors, pullSecrets } }: Pick<Stack, "config">, surroundings: Surroundings, host: string, plainHttp: string[] = []): Registry {
  const own = host === registry.host && registry.username !== undefined && registry.password !== undefined ? { username: registry.username, password: registry.password } : undefined;
  const plainHttpFix = host === registry.host ? "if you trust the network to it, set registry.insecure to true" : `if you trust the network to it, give --plain-http ${host} to npm run bundle -- STACK, or name the image by a registry with TLS`;
  const login = own ?? pullSecrets.logins.find((each) => each.registry === host);
  return new Registry(host, { insecure: (host === registry.host && registry.insecure) || mirrors.insecure.includes(host) || plainHttp.includes(host), surroundings, ...(login && { login }), plainHttpFix });
}

/** Does something with the stack's registry: the given one, or its own by a port-forward through the API server. */
export async function withRegistry<T>(stack: Stack, surroundings: Surroundings, to: "pull" | "push", work: (registry: Registry) => Promise<T>): Promise<T> {
  const { registry, imageRegistry: own } = stack.config;
  if (!own) return work(outside(stack, surroundings, registry.host));
  const token = to === "push" ? await pushTokenOf(stack) : undefined;
  let opened = false;
  return forwarded(stack, { namespace: own.namespace, service: registryName, port: to === "push" ? pushPort : pullPort }, (port) => {
    opened = true;
    return work(new Registry(`127.0.0.1:${port}`, { insecure: true, ...(token !== undefined && { token }) }));
  }).catch((error: Error) => {
    throw opened ? error : new Error(`Service ${registryName} of namespace ${own.namespace} is not reached through the API server: ${error.message.split("\n").at(-1)}. kubectl -n ${own.namespace} get pods tells whether it runs`);
  });
}

/** The token for pushes; undefined where the registry is not there. */
async function pushTokenOf({ kubectl, config: { imageRegistry } }: Stack): Promise<string | undefined> {
  const text = await kubectl("-n", imageRegistry!.namespace, "get", "secret", pushSecretName, "--ignore-not-found", "-o", "jsonpath={.data.token}");
  return text === "" ? undefined : Buffer.from(text, "base64").toString();
}

/** What there is of a stack's own registry. */
export interface Running {
  /** Whether it serves, and leads to itself on nodes. */
  serves: boolean;
  /** Nodes that reach it. */
  nodes: string[];
  /** Repositories that it takes pushes to. */
  repositories: string[];
}

/** Looks for the stack's own registry in the cluster. */
export async function runningRegistry(stack: Stack): Promise<Running> {
  const { kubectl, config: { imageRegistry } } = stack;
  const { namespace, nodesNamespace } = imageRegistry!;
  const [token, available, pods] = await Promise.all([
    pushTokenOf(stack),
    kubectl("-n", namespace, "get", "deployment", registryName, "--ignore-not-found", "-o", "jsonpath={.status.availableReplicas}"),
    kubectl("-n", nodesNamespace, "get", "pods", "-l", `app.kubernetes.io/name=${registryNodeName}`, "-o", "json"),
  ]);
  const { items } = JSON.parse(pods) as { items: { spec: { nodeName?: string }; status?: { conditions?: { type: string; status: string }[] } }[] };
  return {
    serves: token !== undefined && Number(available) > 0 && items.length > 0,
    nodes: items.flatMap(({ spec: { nodeName }, status }) => (nodeName !== undefined && status?.conditions?.some(({ type, status: is }) => type === "Ready" && is === "True") ? [nodeName] : [])),
    repositories: token === undefined ? [] : (JSON.parse(Buffer.from(token.split(".")[1], "base64url").toString()) as { access: { name: string }[] }).access.map(({ name }) => name),
  };
}

const ended = (child: ChildProcess): Promise<number | null> => new Promise((resolve, reject) => child.on("error", reject).on("close", resolve));

/**
 * Brings up the stack's own registry and what it stands on, before anything that would pull from it.
 * @param refresh looks first what is left of it in the cluster
 */
export async function bringUpRegistry(stack: string, { yes, refresh }: { yes: boolean; refresh: boolean }): Promise<void> {
  const urn = (rest: string) => ["--target", `urn:pulumi:${stack}::${project()}::${rest}`];
  const targets = ["pulumi:providers:kubernetes::cluster", ...["cluster:NodePortRange", "storage:OpenEbsStorage", "registry:ImageRegistry"].map((type) => `build-platform:${type}**`)].flatMap(urn);
  const child = spawn("pulumi", ["up", "--stack", stack, ...targets, ...(refresh ? ["--refresh"] : []), ...(yes ? ["--yes", "--skip-preview"] : [])], { cwd: root, env: process.env, stdio: "inherit" });
  const code = await ended(child);
  if (code !== 0) throw new Error("the registry did not come up, see above; what is done already stays, and the same command goes on from there");
}

/** Puts an archive of images into the container runtime; standard input is the archive. */
const importing = `sudo=; [ "$(id -u)" = 0 ] || sudo="sudo -n"; $sudo ctr -n k8s.io images import -`;

/** A node on which images have to be before the registry runs, and the command that puts them there; none where this machine has no way. */
export interface Seeding {
  node: string;
  /** Its container runtime and version, as the kubelet has it. */
  runtime: string;
  command?: { program: string; args: string[]; env: NodeJS.ProcessEnv };
}

/** Whether a node's images go in by `ctr`. */
export const ofContainerd = ({ runtime }: Pick<Seeding, "runtime">): boolean => runtime.startsWith("containerd:");

/**
 * The ways to the cluster's nodes: that of the config for control-plane nodes, and those given.
 * @param given by node USER@HOST, reached as the operator's own ssh does
 */
export async function seedings(stack: Stack, given: Record<string, string>): Promise<Seeding[]> {
  const { items } = await nodesOf(stack);
  const access = stack.config.nodePorts?.access;
  const unknown = Object.keys(given).filter((node) => !items.some(({ metadata }) => metadata.name === node));
  if (unknown.length > 0) throw new Error(`--node ${unknown.join(", ")}: the cluster has no such node, only ${items.map(({ metadata }) => metadata.name).join(", ")}`);
  return items.map(({ metadata: { name: node }, status: { nodeInfo: { containerRuntimeVersion: runtime } } }) => {
    const known = access?.nodes.find((each) => each.name === node);
    // Other runtimes have other programs for it.
    if (!ofContainerd({ runtime })) return { node, runtime };
    if (given[node] !== undefined) return { node, runtime, command: { program: "ssh", args: ["-o", "BatchMode=yes", given[node], importing], env: process.env } };
    if (known === undefined || access === undefined) return { node, runtime };
    return { node, runtime, command: access.kind === "local" ? { program: "sh", args: ["-c", importing], env: process.env } : { program: "sh", args: ["-c", sshScript], env: { ...process.env, ...sshEnvironment(known as SshNode, access, stack.keys), NODE_COMMAND: importing } } };
  });
}

/** Puts an archive on a node. @throws with the node's words */
export async function seed({ node, command }: Pick<Seeding, "node"> & Required<Pick<Seeding, "command">>, archive: string): Promise<void> {
  const input = fs.openSync(archive, "r");
  try {
    const child = spawn(command.program, command.args, { env: command.env, stdio: [input, "pipe", "pipe"] });
    let said = "";
    for (const stream of [child.stdout, child.stderr]) stream?.on("data", (chunk) => (said += chunk));
    const code = await ended(child);
    if (code !== 0) throw new Error(`node ${node} did not take the registry's own images: ${said.trim().split("\n").slice(-3).join("\n") || `exit code ${code}`}\nIt needs containerd with its program ctr, and root or sudo without a password`);
  } finally {
    fs.closeSync(input);
  }
}

/** The key `images` in a stack's file, as it is written there. */
function imagesIn(name: string) {
  const file = path.join(root, `Pulumi.${name}.yaml`);
  const text = fs.readFileSync(file, "utf8");
  const document = parseDocument(text);
  const keys = [`${project()}:images`, "images"];
  const key = keys.find((each) => document.hasIn(["config", each])) ?? keys[0];
  const value = (document.toJS() as { config?: Record<string, unknown> } | null)?.config?.[key];
  const images = typeof value === "string" ? (JSON.parse(value) as unknown) : value;
  return { file, text, document, key, images: isObject(images) ? images : {} };
}

/** What `images` of a stack's file is with these set. */
export const withImages = (name: string, images: Record<string, string>): Record<string, unknown> => ({ ...imagesIn(name).images, ...images });

const changed = (before: Record<string, unknown>, images: Record<string, string>): string[] => Object.keys(images).filter((key) => before[key] !== images[key]);

/** Keys of `images` that are another in a stack's file. */
export const changedImages = (name: string, images: Record<string, string>): string[] => changed(imagesIn(name).images, images);

/** Sets keys of `images` in a stack's file, the rest of which stays as it is; how many were another before. */
export function writeImages(name: string, images: Record<string, string>): number {
  const { file, text, document, key, images: before } = imagesIn(name);
  const others = changed(before, images);
  if (others.length === 0) return 0;
  if (!isObject((document.toJS() as { config?: Record<string, unknown> })?.config?.[key])) document.setIn(["config", key], document.createNode(before));
  for (const image of others) document.setIn(["config", key, image], images[image]);
  fs.writeFileSync(`${file}.new`, document.toString({ lineWidth: 0, flowCollectionPadding: !/[[{][\w"']/.test(text) }));
  fs.renameSync(`${file}.new`, file);
  return others.length;
}
