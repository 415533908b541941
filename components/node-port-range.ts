import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import * as command from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import { fits, hostKey as publicKey, portRange, sshUser, withoutComment } from "../config/pieces";
import { refusal } from "./refusal";

/** A control-plane node reached over SSH. */
export interface SshNode {
  /** Name of the node in messages and in resource names; usually its Kubernetes name. */
  name: string;
  /** Host name or address of its SSH server. */
  host: string;
  /**
   * Public Ed25519 or ECDSA host key as `ssh-keyscan` prints it, without the host: "ssh-ed25519 AAAA...". Any other key is refused.
   * "@cert-authority ssh-ed25519 AAAA..." is the key of who certifies host keys.
   */
  hostKey: string;
}

/** A jump host between the machine that runs Pulumi and the nodes. */
export interface SshProxy {
  host: string;
  port: number;
  user: string;
  /** Private key in PEM form; without it the agent's keys are used. */
  privateKey?: pulumi.Output<string>;
  /** Certificate of that key, or of one of the agent's. */
  certificate?: string;
  /** Public host key of the jump host, or of who certifies it. */
  hostKey: string;
  /** The jump host by which this one is reached. */
  proxy?: SshProxy;
}

/** How the control-plane nodes are reached. The user must be root or be allowed `sudo -n`. */
export type ControlPlaneAccess =
  | { kind: "local"; nodes: { name: string }[] }
  | {
      kind: "ssh";
      user: string;
      port: number;
      /** Private key in PEM form; a secret. */
      privateKey?: pulumi.Output<string>;
      /** Certificate of that key, or of one of the agent's. */
      certificate?: string;
      /** Socket of an SSH agent, instead of or beside the private key. */
      agentSocketPath?: string;
      /** The jump host next to the nodes. */
      proxy?: SshProxy;
      /** All control-plane nodes, in the order in which they are changed. */
      nodes: SshNode[];
    };

export interface NodePortRangeArgs {
  /** Ports that Services of type NodePort may hold, "MIN-MAX" within 1-65535. Kubernetes' own default is 30000-32767. */
  range: string;
  access: ControlPlaneAccess;
  /**
   * Also keep the range out of the nodes' local port allocation (net.ipv4.ip_local_reserved_ports, over reboots).
   * @default false
   */
  reserveLocalPorts?: boolean;
  /** Node ports that the ingress is going to have: a node on which one of them is the API server's own or a program's is refused. */
  ports?: number[];
}

/** What `node-port-range.sh show --json` found on one node, before anything is changed. */
export interface Inspection {
  manifest: string;
  /** Value of the flag in the manifest; null where it is absent. */
  flag: string | null;
  /** Value the running kube-apiserver serves, "absent", or null where none runs. */
  serving: string | null;
  /** Value in the kubeadm-config ConfigMap, "absent", or null where there is none to be read. */
  kubeadmConfig: string | null;
  inForce: boolean;
  /** Names the last change as long as it is in force, and is new as soon as it is not. */
  mark: string;
  /** Why the range is not in force. */
  reasons: string[];
  warnings: string[];
  /** Why the range, or the ports of the ingress, cannot be had on this node; nothing may be changed then. */
  refusals: string[];
  /** What would change in the manifest, as a unified diff. */
  diff: string;
}

/** State of one node: at preview what would change, after an update what is in force. */
export interface NodeState {
  name: string;
  state: string;
}

/** A folder's node-port-range.sh with its parts in one text, with the line ends of Unix also where the folder has others. */
export function bundled(folder: string): string {
  const bundle = path.join(folder, "bundle.sh");
  return execFileSync("sh", ["-c", fs.readFileSync(bundle, "utf8").replace(/\r\n/g, "\n"), bundle], { encoding: "utf8" });
}

/** What a node's shell gets, on standard input: its size is beyond what an argument may have on some systems. */
export const nodeScript = bundled(path.join(__dirname, "..", "scripts/node-port-range"));

/** Beyond the script's own time-outs: 300 s for the change and 300 s for putting it back. */
const timeout = "15m";

/** Runs the script as root; it comes on standard input, so that nothing is left on the node. */
const runScript = (args: string) => `[ "$(id -u)" = 0 ] || exec sudo -n sh -s -- ${args}; exec sh -s -- ${args}`;

/** Gives a shell text a folder $dir that is gone when it ends. */
const inFolder = (body: string) => `umask 077
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
${body}`;

/** Ends with 0 whatever happens: what went wrong is printed behind "error ", for parseInspection. */
const reportErrors = (body: string) => inFolder(`(${body}) 2>"$dir/err" || { printf 'error '; cat "$dir/err"; }`);

/**
 * Runs $NODE_COMMAND on a node by the OpenSSH client, with nothing taken from the user's own SSH
 * configuration. Keys come by the environment and lie in files only while it runs.
 */
const overSsh = `
common="-F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=yes -o GlobalKnownHostsFile=/dev/null -o ConnectTimeout=15 -o LogLevel=ERROR"
# Who a machine must be. A host certificate names the host itself, for which an alias would stand.
identity() {
  case $2 in
    @cert-authority\\ *)
      printf '@cert-authority * %s\n' "\${2#* }" >"$dir/authority_$1"
      printf ' -o UserKnownHostsFile=%s' "$dir/authority_$1" ;;
    *)
      printf '%s %s\n' "$1" "$2" >>"$dir/known_hosts"
      printf ' -o HostKeyAlias=%s -o UserKnownHostsFile=%s' "$1" "$dir/known_hosts" ;;
  esac
}
login() {
  if [ -n "$3" ]; then
    printf '%s\n' "$3" >"$dir/$1-cert.pub"
    printf ' -o CertificateFile=%s' "$dir/$1-cert.pub"
  fi
  if [ -z "$2" ]; then return; fi
  printf '%s\n' "$2" >"$dir/$1"
  printf ' -i %s' "$dir/$1"
  if [ -z "$AGENT_SOCKET" ]; then printf ' -o IdentitiesOnly=yes -o IdentityAgent=none'; fi
}
if [ -n "$AGENT_SOCKET" ]; then export SSH_AUTH_SOCK="$AGENT_SOCKET"; fi
node="$common$(identity node "$NODE_HOST_KEY")$(login node_key "$NODE_KEY" "$NODE_CERTIFICATE")"
# The jump hosts before the last, from here on: each is a script that the next one's ssh runs.
hop=0 before=''
while [ "$hop" -lt "\${HOPS:-0}" ]; do
  hop=$((hop + 1))
  eval "host=\\$HOP\${hop}_HOST port=\\$HOP\${hop}_PORT user=\\$HOP\${hop}_USER host_key=\\$HOP\${hop}_HOST_KEY key=\\$HOP\${hop}_KEY certificate=\\$HOP\${hop}_CERTIFICATE"
  printf "exec ssh %s%s -p %s -W \\"[\\$1]:\\$2\\" '%s'\n" "$common$(identity "hop$hop" "$host_key")$(login "hop\${hop}_key" "$key" "$certificate")" "\${before:+ -o 'ProxyCommand=$before %h %p'}" "$port" "$user@$host" >"$dir/hop$hop"
  before="sh $dir/hop$hop"
  unset key "HOP\${hop}_KEY"
done
if [ -n "$PROXY_HOST" ]; then
  # A shell reads it: a directory's names have backslashes and dollars.
  there=$(printf '%s' "$PROXY_USER@$PROXY_HOST" | sed 's/[\\\\$]/\\\\&/g')
  set -- -o "ProxyCommand=ssh $common$(identity proxy "$PROXY_HOST_KEY")$(login proxy_key "$PROXY_KEY" "$PROXY_CERTIFICATE")\${before:+ -o 'ProxyCommand=$before %%h %%p'} -p $PROXY_PORT -W [%h]:%p $there"
fi
unset NODE_KEY PROXY_KEY
ssh $node "$@" -p "$NODE_PORT" "$NODE_USER@$NODE_HOST" "$NODE_COMMAND"
`;

/** Runs a command on a node as the inspection does; its input, output and exit code are the node's. The environment is sshEnvironment's. */
export const sshScript = inFolder(overSsh);
const sshCommand = (nodeCommand: string) => `NODE_COMMAND='${nodeCommand.replace(/'/g, `'\\''`)}'\n${sshScript}`;

/** What the client of Pulumi's Command provider does not know: certificates, and jump hosts behind jump hosts. */
const needsOpenSsh = ({ hostKey }: { hostKey: string }, { certificate, proxy }: { certificate?: string; proxy?: SshProxy }): boolean =>
  certificate !== undefined || hostKey.startsWith("@") || (proxy !== undefined && (proxy.proxy !== undefined || needsOpenSsh(proxy, { certificate: proxy.certificate })));

/** What helps where sudo refuses on a node; "" for any other message. */
export function sudoFix(message: string): string {
  if (!/sudo/.test(message)) return "";
  if (/must have a tty/.test(message)) return "sudo wants a terminal there: put a line \"Defaults:<user> !requiretty\" into a file below /etc/sudoers.d, or set controlPlane.user to root";
  if (/not found/.test(message)) return "install sudo there, or set controlPlane.user to root";
  return "put a line \"<user> ALL=(ALL) NOPASSWD: ALL\" into a file below /etc/sudoers.d there (visudo -f), or set controlPlane.user to root";
}

/** All mistakes in the arguments; empty where they are good. */
export function nodePortRangeProblems(args: NodePortRangeArgs): { propertyPath: string; reason: string }[] {
  const problems: { propertyPath: string; reason: string }[] = [];
  if (!fits(portRange, args.range))
    problems.push({ propertyPath: "range", reason: `found "${args.range}", expected MIN-MAX with 1 <= MIN <= MAX <= 65535, such as "80-32767"` });
  const { access } = args;
  if (access.nodes.length === 0) problems.push({ propertyPath: "access.nodes", reason: "found no node, expected every control-plane node of the cluster" });
  if (access.kind === "local" && access.nodes.length > 1)
    problems.push({ propertyPath: "access.nodes", reason: `found ${access.nodes.length} nodes, expected one: "local" reaches only the machine Pulumi runs on; use "ssh"` });
  const hostKey = (propertyPath: string, key: string) => {
    if (!fits(publicKey, withoutComment(key)))
      problems.push({ propertyPath, reason: `found "${key}", expected a public Ed25519 or ECDSA host key such as "ssh-ed25519 AAAA..." (ssh-keyscan prints it)` });
  };
  const names = new Set<string>();
  access.nodes.forEach((node: { name: string } | SshNode, i) => {
    if (names.has(node.name)) problems.push({ propertyPath: `access.nodes[${i}].name`, reason: `"${node.name}" stands twice, expected each node once` });
    names.add(node.name);
    if ("hostKey" in node) hostKey(`access.nodes[${i}].hostKey`, node.hostKey);
  });
  if (access.kind === "ssh") {
    if (!access.privateKey && !access.agentSocketPath)
      problems.push({ propertyPath: "access.privateKey", reason: "found neither a private key nor an agent's socket, expected one of them" });
    const user = (propertyPath: string, name: string) => {
      if (!fits(sshUser, name)) problems.push({ propertyPath, reason: `found "${name}", expected ${sshUser.expected}` });
    };
    user("access.user", access.user);
    for (let [at, proxy] = ["access.proxy", access.proxy]; proxy; [at, proxy] = [`${at}.proxy`, proxy.proxy]) {
      hostKey(`${at}.hostKey`, proxy.hostKey);
      user(`${at}.user`, proxy.user);
    }
  }
  return problems;
}

/** The result of an inspection as the script printed it; throws with the node's name where it failed. */
export function parseInspection(node: string, printed: string): Inspection {
  if (!printed.startsWith("{")) {
    const words = printed.replace(/^error /, "").trim();
    throw new Error([`control-plane node ${node} cannot be inspected: ${words || "it printed nothing"}`, ...(sudoFix(words) ? [sudoFix(words)] : [])].join("\n"));
  }
  const found = JSON.parse(printed) as Inspection;
  // The mark becomes part of a command line.
  if (!/^[A-Za-z0-9._-]+$/.test(found.mark)) throw new Error(`control-plane node ${node} names its last change "${found.mark}", expected letters, digits, dots, dashes and underscores only`);
  return found;
}

/** The inspections of all nodes, in their order; throws with every reason where one of them refuses: then none is changed. */
export function allowed(nodes: { name: string }[], inspections: Inspection[]): Inspection[] {
  const lines = inspections.flatMap(({ refusals }, i) => refusals.map((each) => `  ${nodes[i].name}: ${each}`));
  if (lines.length === 0) return inspections;
  const ports = lines.some((line) => line.includes("of the ingress")) ? "\nA Service takes its node port away from whatever listens there: give ingress.httpNodePort, ingress.httpsNodePort or controller.agentNodePort, whichever says that one, another port, or move that program to another." : "";
  throw refusal(`The node-port range cannot be set; no control-plane node was changed:\n${lines.join("\n")}${ports}`);
}

/** One sentence on a node, for previews and stack outputs. */
export function describeInspection(range: string, found: Inspection): string {
  if (found.inForce) return inForce(range);
  const restart = found.diff === "" ? "kube-apiserver is not restarted" : "kube-apiserver restarts once";
  return `would change to ${range} (${restart}), because ${found.reasons.join("; ")}`;
}

const inForce = (range: string) => `${range} in force`;

/**
 * Sets the API server's node-port range on every control-plane node, one node after the other, by
 * scripts/node-port-range/node-port-range.sh; destroying it puts back what each node had before.
 *
 * Each run of the program inspects the nodes (read-only, also at preview). A node on which the range is
 * not in force, whoever changed it, has a new mark, which makes its command resource due for an update.
 */
export class NodePortRange extends pulumi.ComponentResource {
  /** The range in force; known only after every node serves it. */
  readonly range: pulumi.Output<string>;
  /** What was found, and what would change or is in force, node by node. */
  readonly nodes: pulumi.Output<NodeState[]>;

  constructor(name: string, args: NodePortRangeArgs, opts?: pulumi.ComponentResourceOptions) {
    super("build-platform:cluster:NodePortRange", name, {}, opts);
    const errors = nodePortRangeProblems(args);
    if (errors.length > 0) throw new pulumi.InputPropertiesError({ message: `${name}: the node-port range cannot be set`, errors });

    const { range, access } = args;
    const options = `--range ${range}${args.reserveLocalPorts ? " --reserve-local-ports" : ""}`;
    const commands: (command.local.Command | command.remote.Command)[] = [];
    const states: pulumi.Output<NodeState>[] = [];

    const ports = args.ports && args.ports.length > 0 ? ` --ports ${args.ports.join(",")}` : "";
    const inspections = access.nodes.map((node) => this.inspect(node, access, `show --json ${options}${ports}`));
    const all = pulumi.all(inspections).apply((each) => allowed(access.nodes, each));

    for (const [i, node] of access.nodes.entries()) {
      const found = all.apply((each) => each[i]);
      // A node under a new name, or reached another way, is a new resource; the old one's deletion must not undo what that has done.
      const ssh = access.kind === "ssh" ? access : undefined;
      const openSsh = ssh && needsOpenSsh(node as SshNode, ssh) ? ssh : undefined;
      const owner = `${openSsh ? "openssh" : access.kind}-${node.name}`.replace(/[^A-Za-z0-9._-]/g, "_");
      const change = found.apply(({ mark }) => runScript(`apply ${options} --mark ${mark} --owner ${owner}`));
      const restore = runScript(`restore --owner ${owner}`);
      const inputs = { create: change, update: change, delete: restore, stdin: nodeScript, addPreviousOutputInEnv: false };
      const resourceOptions: pulumi.CustomResourceOptions = {
        parent: this,
        dependsOn: commands.slice(-1),
        customTimeouts: { create: timeout, update: timeout, delete: timeout },
      };
      const resource =
        ssh && !openSsh
          ? new command.remote.Command(`${name}-${node.name}`, { ...inputs, connection: connectionTo(node as SshNode, ssh) }, resourceOptions)
          : new command.local.Command(
              `${name}-${node.name}`,
              openSsh ? { ...inputs, create: change.apply(sshCommand), update: change.apply(sshCommand), delete: sshCommand(restore), environment: sshEnvironment(node as SshNode, openSsh, keysOf(openSsh)) } : inputs,
              resourceOptions,
            );
      commands.push(resource);
      states.push(
        found
          .apply((inspection) =>
            pulumi.runtime.isDryRun() || inspection.inForce ? pulumi.output(describeInspection(range, inspection)) : resource.stdout.apply(() => inForce(range)),
          )
          .apply((state) => ({ name: node.name, state })),
      );
    }

    this.range = pulumi.all(commands.map((each) => each.stdout)).apply(() => range);
    this.nodes = pulumi.all(states);
    this.registerOutputs({ range: this.range, nodes: this.nodes });
  }

  /** Looks at one node without changing it; at preview says what would change there. */
  private inspect(node: { name: string } | SshNode, access: ControlPlaneAccess, args: string): pulumi.Output<Inspection> {
    const result = command.local.runOutput(
      {
        command: reportErrors(access.kind === "local" ? runScript(args) : overSsh),
        environment: access.kind === "local" ? {} : { ...sshEnvironment(node as SshNode, access, keysOf(access)), NODE_COMMAND: runScript(args) },
        stdin: nodeScript,
        logging: command.types.enums.local.Logging.None,
        addPreviousOutputInEnv: false,
      },
      { parent: this },
    );
    // The inspection prints no secret; the result is marked as one because the keys are among its arguments.
    return pulumi.unsecret(result.stdout).apply(async (printed) => {
      const found = parseInspection(node.name, printed);
      if (pulumi.runtime.isDryRun()) {
        for (const warning of found.warnings) await pulumi.log.warn(`${node.name}: ${warning}`, this);
        if (found.diff) await pulumi.log.info(`${node.name}, ${found.manifest} would change:\n${found.diff}`, this);
      }
      return found;
    });
  }
}

type SshAccess = Extract<ControlPlaneAccess, { kind: "ssh" }>;

/** The jump hosts, the first one first. */
const hopsOf = (proxy: SshProxy | undefined): SshProxy[] => (proxy ? [...hopsOf(proxy.proxy), proxy] : []);
const secretOf = (key: pulumi.Output<string> | undefined) => key && pulumi.secret(key);
const keysOf = ({ privateKey, proxy }: SshAccess) => ({ node: secretOf(privateKey), hops: hopsOf(proxy).map((hop) => secretOf(hop.privateKey)) });

function connectionTo(node: SshNode, access: SshAccess): command.types.input.remote.ConnectionArgs {
  return {
    host: node.host,
    hostKey: node.hostKey,
    user: access.user,
    port: access.port,
    privateKey: secretOf(access.privateKey),
    agentSocketPath: access.agentSocketPath,
    // An SSH server that refuses is not asked ten times, the provider's default.
    dialErrorLimit: 3,
    proxy: access.proxy && { ...access.proxy, privateKey: secretOf(access.proxy.privateKey), agentSocketPath: access.agentSocketPath, dialErrorLimit: 3 },
  };
}

/**
 * What sshScript is told of the way to a node.
 * @param keys private keys for the node and for the jump hosts, the first one first, as far as there are any
 */
export function sshEnvironment<Text extends pulumi.Input<string>>(node: SshNode, access: SshAccess, keys: { node?: Text; hops?: (Text | undefined)[] }): Record<string, Text | string> {
  const machine = (prefix: string, { host, port, user, hostKey, certificate }: Pick<SshProxy, "host" | "port" | "user" | "hostKey" | "certificate">, key: Text | undefined): Record<string, Text | string> => ({
    [`${prefix}_HOST`]: host, [`${prefix}_PORT`]: `${port}`, [`${prefix}_USER`]: user, [`${prefix}_HOST_KEY`]: hostKey, [`${prefix}_KEY`]: key ?? "", [`${prefix}_CERTIFICATE`]: certificate ?? "",
  });
  const hops = hopsOf(access.proxy);
  const last = hops.length - 1;
  return {
    ...machine("NODE", { ...access, ...node }, keys.node),
    AGENT_SOCKET: access.agentSocketPath ?? "",
    PROXY_HOST: "",
    ...Object.assign({}, ...hops.map((hop, i) => machine(i === last ? "PROXY" : `HOP${i + 1}`, hop, keys.hops?.[i]))),
    ...(last > 0 && { HOPS: `${last}` }),
  };
}
