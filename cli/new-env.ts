import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import * as readline from "node:readline";
import { parse, stringify } from "yaml";
import { explain, parseConfig, type Problem } from "../config";
import { questionOf } from "../config/mistakes";
import { schemaComment } from "../tools/docs";
import { root } from "./repository";
import { readWords, runCommand, UsageError } from "./terminal";

const HELP = `npm run new-env -- NAME [options]    writes Pulumi.NAME.yaml for a new environment

Asks for what the options leave open.

  --domain HOST              host name people will use
  --context NAME             context of the cluster in the kubeconfig
  --kubeconfig FILE          default: $KUBECONFIG, or ~/.kube/config
  --registry HOST[:PORT]     registry that built images go to and nodes pull from; without it the stack brings its own
  --insecure-registry        the registry speaks plain HTTP
  --storage-size SIZE        size of jenkins_home, with unit (20Gi)
  --tls-issuer NAME          cert-manager ClusterIssuer for HTTPS
  --tls-secret NAME          Secret with a certificate for HTTPS
  --beside                   another environment runs on this cluster already: its ingress, its provisioner and its node-port
                             range are shared, everything else is this one's own; no node is asked for
  --node NAME=HOST           a control-plane node; once for each of them
  --host-key NAME=KEY        its SSH host key ("ssh-ed25519 AAAA...", or a file that holds it)
  --user NAME                SSH user, root or one who may sudo (root)
  --key FILE                 private SSH key (~/.ssh/id_ed25519)
  --local                    pulumi runs on the only control-plane node itself: no SSH
  --yes                      ask nothing: an option that is missing is a mistake

A host key that is not given is fetched from the node and shown for you to compare; with --yes it must be given.
`;

/** What decides a stack file. */
export interface Answers {
  domain: string;
  context: string;
  kubeconfig?: string;
  /** None for the stack's own. */
  registry?: string;
  insecureRegistry: boolean;
  storageSize: string;
  tlsIssuer?: string;
  tlsSecret?: string;
  access:
    | { kind: "beside" }
    | { kind: "local"; node: string }
    | { kind: "ssh"; user: string; key: string; nodes: { name: string; host: string; hostKey: string }[] };
}

/** Name of a new stack that Pulumi and a file name can both bear. */
export function nameProblem(name: string): string | undefined {
  return /^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$/.test(name) ? undefined : `"${name}" is no name for an environment; use at most 40 small letters, digits and hyphens, such as staging`;
}

/** Keys of a control plane that the stack changes, or of one that it shares with the environment before it. */
function clusterConfig(name: string, access: Answers["access"]): Record<string, unknown> {
  switch (access.kind) {
    case "beside":
      return { namespace: `jenkins-${name}`, storageClass: `openebs-${name}`, storageInstall: "class", storageBasePath: `/var/openebs/${name}`, nodePortRange: "none" };
    case "local":
      return { controlPlane: { access: "local", nodes: [{ name: access.node }] } };
    case "ssh":
      return { controlPlane: { user: access.user, privateKeyFile: access.key, nodes: access.nodes } };
  }
}

/** The stack file's config, keys with the project's name. */
export function stackConfig(project: string, name: string, answers: Answers): Record<string, unknown> {
  const { access } = answers;
  const ingress = {
    // Beside another environment that one's controller serves both. Config's own default is ingress-nginx, which stacks that say nothing keep.
    controller: access.kind === "beside" ? "none" : "traefik",
    ...(answers.tlsIssuer && { clusterIssuer: answers.tlsIssuer }),
    ...(answers.tlsSecret && { tlsSecret: answers.tlsSecret }),
  };
  const config: Record<string, unknown> = {
    domain: answers.domain,
    ...(answers.kubeconfig && { kubeconfig: answers.kubeconfig }),
    kubeContext: answers.context,
    ...clusterConfig(name, access),
    ...(answers.registry && { registry: { host: answers.registry, ...(answers.insecureRegistry && { insecure: true }) } }),
    storageSize: answers.storageSize,
    ingress,
  };
  return Object.fromEntries(Object.entries(config).map(([key, value]) => [`${project}:${key}`, value]));
}

/** What config/ finds wrong with a stack file's config, the defaults of Pulumi.yaml filled in. */
export function configProblems(project: string, defaults: Record<string, { default?: unknown }>, config: Record<string, unknown>): Problem[] {
  const raw: Record<string, unknown> = Object.fromEntries(Object.entries(defaults).map(([key, schema]) => [key, schema.default]));
  for (const [key, value] of Object.entries(config)) raw[key.slice(project.length + 1)] = value;
  return parseConfig(raw, { readFile: (file) => fs.readFileSync(file, "utf8"), homeDirectory: os.homedir(), isSecret: () => false }).problems;
}

/** A key as OpenSSH shows it to people: SHA256:... of its bytes. */
export function fingerprint(hostKey: string): string {
  return `SHA256:${createHash("sha256").update(Buffer.from(hostKey.split(/\s+/)[1] ?? "", "base64")).digest("base64").replace(/=+$/, "")}`;
}

/** Type and key of a line as ssh-keyscan or a .pub file has it. */
const bareKey = (line: string): string => /\b((?:ssh|ecdsa)-\S+ AAAA\S+)/.exec(line)?.[1] ?? line.trim();

function scanHostKey(host: string): string {
  const found = spawnSync("ssh-keyscan", ["-T", "10", "-t", "ed25519,ecdsa", host], { encoding: "utf8" });
  const lines = (found.stdout ?? "").split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  const line = lines.find((each) => each.includes("ssh-ed25519")) ?? lines[0];
  if (line === undefined) throw new Error(`no SSH server answers at ${host} with an Ed25519 or ECDSA host key; start it, correct the host, or give the key with --host-key`);
  return bareKey(line);
}

function pairs(option: string, values: string[] = []): Map<string, string> {
  return new Map(
    values.map((value) => {
      const at = value.indexOf("=");
      if (at < 1 || at === value.length - 1) throw new Error(`--${option} ${value}: expected NAME=${option === "node" ? "HOST" : "KEY"}`);
      return [value.slice(0, at), value.slice(at + 1)];
    }),
  );
}

/** Asks a person, or reads the answers of a pipe line by line. */
function prompter() {
  const source = readline.createInterface({ input: process.stdin });
  const lines = source[Symbol.asyncIterator]();
  /** @param wrong what is expected instead of an answer; undefined where it will do */
  const ask = async (question: string, fallback?: string, wrong: (answer: string) => string | undefined = () => undefined): Promise<string> => {
    for (;;) {
      process.stderr.write(`${question}${fallback === undefined ? "" : ` [${fallback}]`}: `);
      const line = await lines.next();
      if (line.done) throw new Error("the answers ended early; nothing was written");
      const answer = line.value.trim() || fallback;
      if (!answer) continue;
      const expected = wrong(answer);
      if (expected === undefined) return answer;
      process.stderr.write(`${answer} will not do: ${expected}\n`);
    }
  };
  return {
    ask,
    agrees: async (question: string, fallback?: "yes" | "no"): Promise<boolean> =>
      /^y/i.test(await ask(`${question} (yes/no)`, fallback, (answer) => (/^(y|yes|n|no)$/i.test(answer) ? undefined : "yes or no is expected"))),
    close: () => source.close(),
  };
}

async function main(args: string[]): Promise<void> {
  const { values, positionals } = readWords(
    args,
    {
      domain: { type: "string" }, context: { type: "string" }, kubeconfig: { type: "string" }, registry: { type: "string" },
      "insecure-registry": { type: "boolean" }, "storage-size": { type: "string" }, "tls-issuer": { type: "string" }, "tls-secret": { type: "string" },
      node: { type: "string", multiple: true }, "host-key": { type: "string", multiple: true }, user: { type: "string" }, key: { type: "string" },
      local: { type: "boolean" }, beside: { type: "boolean" }, yes: { type: "boolean" },
    },
    1,
  );
  const [name] = positionals;
  if (name === undefined) throw new UsageError("which name is the environment to have? --help says more");
  const badName = nameProblem(name);
  if (badName) throw new UsageError(badName);
  // npm runs scripts in the project's folder.
  const file = path.resolve(`Pulumi.${name}.yaml`);
  if (fs.existsSync(file)) throw new Error(`Pulumi.${name}.yaml exists; edit it, or choose another name`);

  const nodes = pairs("node", values.node);
  const hostKeys = pairs("host-key", values["host-key"]);
  const stray = [...hostKeys.keys()].find((node) => nodes.size > 0 && !nodes.has(node));
  if (values.beside && (values.local || nodes.size > 0)) throw new Error("--beside changes no node; leave out --local and --node");
  if (values.local && nodes.size > 1) throw new Error(`--local takes one node, the one pulumi runs on; there are ${[...nodes.keys()].join(", ")}`);
  if (stray !== undefined) throw new Error(`--host-key ${stray}: no --node has that name (${[...nodes.keys()].join(", ")})`);
  if (values["tls-issuer"] !== undefined && values["tls-secret"] !== undefined) throw new Error("either --tls-issuer or --tls-secret: cert-manager makes the certificate, or a Secret has it");

  if (values["insecure-registry"] && values.yes && values.registry === undefined) throw new Error("--insecure-registry is about a --registry, and there is none");

  const prompt = values.yes ? undefined : prompter();
  try {
    const project = parse(fs.readFileSync(path.join(root, "Pulumi.yaml"), "utf8")) as { name: string; config: Record<string, { default?: unknown }> };
    const ask = async (option: keyof typeof values, key: string, fallback?: string): Promise<string> => {
      const given = values[option];
      if (typeof given === "string") return given;
      const { question, usual = fallback, wrong } = questionOf(key);
      // What is missing is reported by the check of the whole config below, all at once.
      return prompt ? prompt.ask(question, usual, (answer) => (answer === "-" && usual === "-" ? undefined : wrong(answer))) : (usual ?? "");
    };
    const domain = await ask("domain", "domain");
    const context = await ask("context", "kubeContext");
    const registry = await ask("registry", "registry.host", "-");
    const storageSize = await ask("storage-size", "storageSize");
    const tlsIssuer = values["tls-secret"] === undefined ? await ask("tls-issuer", "ingress.clusterIssuer", "-") : "-";

    // Who names nodes has answered this.
    const unanswered = prompt !== undefined && values.beside === undefined && !values.local && nodes.size === 0;
    const beside = values.beside ?? (unanswered && (await prompt.agrees("Does another environment of this platform run on this cluster?", "no")));
    if (prompt && nodes.size === 0 && !beside) {
      while (nodes.size === 0 || !values.local) {
        const node = await prompt.ask(`${nodes.size === 0 ? "A" : "Another"} control-plane node as kubectl get nodes names it${nodes.size === 0 ? "" : ", - for no more"}`, nodes.size === 0 ? undefined : "-");
        if (node === "-") break;
        nodes.set(node, values.local ? "" : await prompt.ask(`SSH host of ${node}`, node));
      }
    }
    const access = beside ? { kind: "beside" as const } : values.local ? { kind: "local" as const, node: [...nodes.keys()][0] ?? "" } : await sshAccess(nodes, hostKeys);

    async function sshAccess(wanted: Map<string, string>, keys: Map<string, string>): Promise<Answers["access"]> {
      const user = await ask("user", "controlPlane.user", "root");
      const key = await ask("key", "controlPlane.privateKeyFile", "~/.ssh/id_ed25519");
      const list = [];
      for (const [node, host] of wanted) {
        const given = keys.get(node);
        let hostKey = given && bareKey(fs.existsSync(given) ? fs.readFileSync(given, "utf8") : given);
        if (hostKey === undefined && prompt) {
          hostKey = scanHostKey(host);
          const same = await prompt.agrees(`${host} shows the host key ${fingerprint(hostKey)}.\nCompare it with "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub" on the node's console. Is it the same?`);
          if (!same) throw new Error(`the host key of ${node} was not confirmed; nothing was written`);
        }
        list.push({ name: node, host, hostKey: hostKey ?? "" });
      }
      return { kind: "ssh", user, key, nodes: list };
    }

    const answers: Answers = {
      domain, context, storageSize, access,
      ...(registry !== "-" && registry !== "" && { registry }),
      ...(values.kubeconfig && { kubeconfig: values.kubeconfig }),
      insecureRegistry: values["insecure-registry"] ?? false,
      ...(tlsIssuer !== "-" && tlsIssuer !== "" && { tlsIssuer }),
      ...(values["tls-secret"] && { tlsSecret: values["tls-secret"] }),
    };
    const config = stackConfig(project.name, name, answers);
    const problems = configProblems(project.name, project.config, config);
    if (problems.length > 0) throw new Error(`${explain(problems, name)}\nPulumi.${name}.yaml was not written.`);
    // Refuses a file that came into being meanwhile.
    fs.writeFileSync(file, `${schemaComment}\n${stringify({ config }, { lineWidth: 0 })}`, { flag: "wx" });
    const plain = answers.tlsIssuer || answers.tlsSecret ? "" : "It serves plain HTTP, which the policy refuses: set ingress.tlsSecret or ingress.clusterIssuer before people use it.\n";
    process.stdout.write(`Pulumi.${name}.yaml written. ${plain}Next: pulumi stack init ${name}; npm run doctor -- ${name}; pulumi preview -s ${name}\n`);
  } finally {
    prompt?.close();
  }
}

if (require.main === module) void runCommand("new-env", HELP, main);
