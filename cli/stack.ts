import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { neighbourPaths, type Neighbourhood } from "../checks/neighbours";
import { completed, forbidden, readable, readNetwork } from "../checks/surroundings";
import type { Surroundings } from "../components/surroundings";
import { namesIn, parseConfig, type PlatformConfig, type Problem } from "../config";
import { readYaml, root, run } from "./repository";
import { UsageError } from "./terminal";

/** A stack's config and the means to look at its cluster, for commands that run beside Pulumi. */
export interface Stack {
  name: string;
  config: PlatformConfig;
  problems: Problem[];
  /** What only Jenkins can judge, and what people may want to know. */
  warnings: string[];
  /** The private keys for the control-plane nodes and their jump hosts, the first one first, where config holds or names one. */
  keys: { node?: string; hops?: (string | undefined)[] };
  /** kubectl with the stack's own kubeconfig and context; its standard output. */
  kubectl(...args: string[]): Promise<string>;
  /** Arguments that make kubectl reach the stack's cluster. */
  kubectlArgs: string[];
}

/** Stacks that have a file. */
export const stackNames = (): string[] => fs.readdirSync(root).flatMap((name) => /^Pulumi\.(.+)\.yaml$/.exec(name)?.[1] ?? []);

/**
 * What a stack's file says, decrypted in memory only, and which of its keys are secret. Only a file with encrypted values needs the pulumi CLI
 * and the passphrase.
 * @throws where its secrets cannot be decrypted
 */
export async function givenConfig(name: string): Promise<{ given: Record<string, unknown>; secret: Set<string> }> {
  const file = path.join(root, `Pulumi.${name}.yaml`);
  const given: Record<string, unknown> = (readYaml(file) as { config?: Record<string, unknown> } | null)?.config ?? {};
  if (!/^\s*secure:|\{\s*secure:/m.test(fs.readFileSync(file, "utf8"))) return { given, secret: new Set() };
  // The CLI prints to this process and to nobody else.
  const printed = await run("pulumi", ["config", "--stack", name, "--show-secrets", "--json", "--non-interactive"]).catch((error: Error) => {
    throw new Error(`the secrets of stack ${name} cannot be read: ${error.message.trim().split("\n")[0]}\nLog in to the backend and set PULUMI_CONFIG_PASSPHRASE, as for pulumi up.`);
  });
  const values = Object.entries(JSON.parse(printed) as Record<string, { value?: string; objectValue?: unknown; secret: boolean }>);
  return {
    given: Object.fromEntries(values.map(([key, value]) => [key, value.objectValue ?? value.value])),
    secret: new Set(values.filter(([, value]) => value.secret).map(([key]) => key.slice(key.indexOf(":") + 1))),
  };
}

/**
 * Reads the file of a stack, or of the selected one, the defaults of Pulumi.yaml filled in. Only a file with encrypted values needs the pulumi CLI and
 * the passphrase.
 * @param over keys that take the place of the file's
 * @throws where the file is missing or its secrets cannot be decrypted
 */
export async function readStack(named: string | undefined, over: Record<string, unknown> = {}): Promise<Stack> {
  const choice = `Name one of ${stackNames().join(", ")}.`;
  const name = named ?? (await run("pulumi", ["stack", "--show-name", "--non-interactive"]).then((text) => text.trim(), () => ""));
  if (name === "") throw new UsageError(`which stack? None is selected. ${choice}`);
  const file = path.join(root, `Pulumi.${name}.yaml`);
  if (!fs.existsSync(file)) throw new UsageError(`there is no Pulumi.${name}.yaml. ${choice} \`npm run new-env ${name}\` makes one.`);
  const project = readYaml(path.join(root, "Pulumi.yaml")) as { name: string; config: Record<string, { default?: unknown }> };
  const { given, secret } = await givenConfig(name);
  const raw: Record<string, unknown> = Object.fromEntries(Object.entries(project.config).map(([key, schema]) => [key, schema.default]));
  for (const [key, value] of Object.entries(given)) {
    if (!key.includes(":") || key.startsWith(`${project.name}:`)) raw[key.slice(key.indexOf(":") + 1)] = value;
  }
  Object.assign(raw, over);
  const { config, problems, warnings } = parseConfig(raw, { readFile: (wanted) => fs.readFileSync(wanted, "utf8"), listFolder: namesIn, homeDirectory: os.homedir(), isSecret: (key) => secret.has(key) });

  interface Login { privateKey?: string; privateKeyFile?: string }
  const controlPlane = (raw.controlPlane ?? {}) as Login & { proxy?: Login | Login[] };
  const keyOf = ({ privateKey, privateKeyFile }: Login): string | undefined => {
    const expanded = privateKeyFile?.replace(/^~(?=\/|$)/, os.homedir());
    return privateKey ?? (expanded && fs.existsSync(expanded) ? fs.readFileSync(expanded, "utf8") : undefined);
  };
  const kubectlArgs = [...(config.cluster.kubeconfig ? ["--kubeconfig", config.cluster.kubeconfig] : []), "--context", config.cluster.context, "--request-timeout=15s"];
  return {
    name, config, problems, warnings, kubectlArgs,
    keys: { node: keyOf(controlPlane), hops: [controlPlane.proxy ?? []].flat().map(keyOf) },
    kubectl: (...args) => run("kubectl", [...kubectlArgs, ...args]),
  };
}

/** The network around a stack as `up` has it, with what the cluster says of it, and what of that is wrong. */
export async function aroundStack({ config: { surroundings, surroundingsIn }, kubectl }: Stack): Promise<{ surroundings: Surroundings; problems: Problem[] }> {
  const look = <T>(target: string): Promise<T | typeof forbidden | undefined> => kubectl("get", "--raw", target).then((text) => JSON.parse(text) as T, (error: Error) => (error.message.includes("(Forbidden)") ? forbidden : undefined));
  const [network, answer] = await Promise.all([readNetwork(look, surroundings, surroundingsIn), surroundings.proxy && look<{ items: Neighbourhood["nodes"] }>(neighbourPaths.nodes)]);
  const nodes = readable(answer);
  return { surroundings: completed(surroundings, { network, neighbours: nodes ? { nodes: nodes.items } : {} }), problems: network.problems };
}
