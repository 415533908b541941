import { spawn } from "node:child_process";
import * as dns from "node:dns/promises";
import * as net from "node:net";
import { sshEnvironment, sshScript, sudoFix, type ControlPlaneAccess, type SshNode } from "../components/node-port-range";
import { gatewayGroup } from "../components/ingress";
import { quantityMillis } from "../components/quantity";
import { heldPorts, type PlatformConfig, type Problem } from "../config";
import { neighbourPaths, neighbourProblems, nodeArchitectures, type Neighbourhood } from "../checks/neighbours";
import { gatewayProblems, readGateway, type GatewayFacts } from "../checks/gateway";
import { certificateRemarks, type Certificates, ingressRemarks } from "../checks/ingress";
import { issuerRemark, issuerStops, readIssuer, type IssuerFacts } from "../checks/issuer";
import { versionRemark } from "../checks/kubernetes";
import { nodePortFindings, readNodePorts, throughKubectl, type Finding } from "../checks/node-ports";
import { architectures } from "../config/builds";
import { asksRegistry, registryProblem } from "../checks/preflight";
import { proxyProblems } from "../checks/surroundings";
import { certificatesOf, frontDoors, judgeDoors, type FrontDoor } from "./front-door";
import { run } from "./repository";
import { aroundStack, readStack, type Stack } from "./stack";
import { columns, readWords, runCommand } from "./terminal";

const HELP = `npm run doctor -- [STACK]    looks at the cluster, its nodes and this machine before the first \`up\`; changes nothing

Exit code 0: nothing has to be mended. 1: something has. 2: bad arguments.
`;

export type State = "ok" | "warn" | "fail";

/** One line of the table. */
export interface Line {
  state: State;
  check: string;
  where: string;
  found: string;
  /** What to do; "" where nothing is to be done. */
  fix: string;
}

const line = (state: State, check: string, where: string, found: string, fix = ""): Line => ({ state, check, where, found, fix });

/** The server's version, "v1.37.2". */
export function judgeVersion(version: string): Line {
  const remark = versionRemark(version);
  return line(remark === "" ? "ok" : "warn", "Kubernetes version", "cluster", version, remark);
}

export interface NodeFacts {
  name: string;
  address: string;
  ready: boolean;
  /** Seconds since the kubelet last renewed its lease, by the kubelet's clock; undefined where there is no lease. */
  leaseAge?: number;
  /** Free bytes of the kubelet's file system; undefined where the kubelet does not say. */
  freeBytes?: number;
  /** What a TCP connection to the ports of the ingress met. */
  ports: Record<number, "open" | "closed" | "silent">;
}

/** Seconds a node's clock may be ahead. */
const ahead = 2;
/** A kubelet renews its lease every 10 s and is given up after 40 s: an older lease of a node that is Ready means a slow clock. */
const behind = 30;

/**
 * @param holders Service that holds a node port, by port
 * @param ownServices the platform's own Services for these ports
 * @param wanted bytes that jenkins_home may come to need
 */
export function judgeNode(node: NodeFacts, holders: Map<number, string>, ownServices: string[], wanted: number, basePath: string): Line[] {
  const lines = [node.ready ? line("ok", "node is Ready", node.name, "Ready") : line("fail", "node is Ready", node.name, "not Ready", `kubectl describe node ${node.name}`)];

  for (const [port, answer] of Object.entries(node.ports)) {
    const holder = holders.get(Number(port));
    const check = `port ${port} is free`;
    if (holder !== undefined && ownServices.includes(holder)) lines.push(line("ok", check, node.name, "served by this platform"));
    else if (holder !== undefined) lines.push(line("fail", check, node.name, `held by Service ${holder}`, `give that Service another nodePort, or delete it`));
    else if (answer === "open") lines.push(line("fail", check, node.name, "a program of the node listens there", `on ${node.name}: ss -ltnp 'sport = :${port}' shows it; stop or move it`));
    else if (answer === "closed") lines.push(line("ok", check, node.name, "free"));
    else lines.push(line("warn", check, node.name, "no answer: a firewall drops it", `open port ${port} of ${node.address} to the people who use Jenkins`));
  }

  if (node.freeBytes === undefined) lines.push(line("warn", "disk", node.name, "the kubelet does not say", `on ${node.name}: df -h ${basePath}`));
  else {
    const [free, need] = [node.freeBytes, wanted].map((bytes) => `${(bytes / 2 ** 30).toFixed(1)} GiB`);
    const enough = node.freeBytes >= wanted;
    // A hostpath volume lies on one node: the scheduler does not look at the room there.
    lines.push(line(enough ? "ok" : "warn", "disk", node.name, `${free} free, storageSize is ${need}`, enough ? "" : `free some room below ${basePath}, or lower storageSize; the volume does not enforce its size`));
  }

  if (node.leaseAge === undefined) lines.push(line("warn", "clock", node.name, "no lease of the kubelet", "see whether the node is Ready"));
  else if (node.leaseAge < -ahead) lines.push(line("fail", "clock", node.name, `${(-node.leaseAge).toFixed(0)} s ahead of this machine`, "run an NTP client (chrony, systemd-timesyncd) on both"));
  else if (node.leaseAge > behind && node.ready) lines.push(line("fail", "clock", node.name, `at least ${(node.leaseAge - 10).toFixed(0)} s behind this machine`, "run an NTP client (chrony, systemd-timesyncd) on both"));
  else lines.push(line("ok", "clock", node.name, "agrees with this machine"));
  return lines;
}

/** What other environments and others have would make `pulumi up` stop. */
export function judgeNames(problems: Problem[]): Line[] {
  if (problems.length === 0) return [line("ok", "names are free", "cluster", "free, or this stack's own")];
  return problems.map(({ key, found, expected, fix }) => line("fail", "names are free", key, `${found}; expected ${expected}`, fix));
}

/** What keeps people from the ports of the ingress, or the API server from its own. */
export function judgeNodePorts(findings: Finding[]): Line[] {
  if (findings.length === 0) return [line("ok", "node ports", "cluster", "free, and served by the network")];
  return findings.map(({ key, found, expected, fix, level }) => line(level === "stop" ? "fail" : "warn", "node ports", key, `${found}; expected ${expected}`, fix));
}

/** How people come in: what is to be said of the controller and the certificate, and whether the login page is to be had. @param doors undefined before the first up @param issuer undefined where nobody is asked for certificates */
export function judgeIngress(config: Pick<PlatformConfig, "domain" | "namespaces" | "ingress">, nodes: number, certificates: Certificates, doors: FrontDoor[] | undefined, now: Date, issuer?: IssuerFacts): Line[] {
  const unmade = issuer && issuerRemark(config, issuer);
  const remarks = [...ingressRemarks(config, nodes), ...(unmade ? [unmade] : []), ...certificateRemarks(config, certificates, now)];
  const lines = remarks.map((remark) => line(issuer && remark === unmade && issuerStops(config, issuer) ? "fail" : "warn", "ingress", remark.key, `${remark.found}; expected ${remark.expected}`, remark.fix));
  if (!doors) return lines;
  const { good, reached, text } = judgeDoors(doors, config);
  return [...lines, line(reached === false ? "warn" : good ? "ok" : "fail", "login page", config.domain, text, good ? "" : "npm run status says how Jenkins itself is")];
}

/** Of a Gateway with which nothing is wrong: that it can be made or takes the route, or that nobody knows. */
function gatewayLine({ ingress: { gateway }, namespaces }: Pick<PlatformConfig, "namespaces" | "ingress">, { missing, routes, gateway: found }: GatewayFacts): Line {
  const { name, namespace } = gateway ?? { name: "jenkins", namespace: namespaces.jenkins };
  const look = `kubectl -n ${namespace} describe gateway ${name}`;
  // As its controller says; one that nobody serves is never accepted.
  const refusal = found?.status?.conditions?.find(({ type, status }) => ["Accepted", "Programmed"].includes(type) && status !== "True");
  if (refusal) return line("warn", "Gateway", name, `is there, but not ${refusal.type}: ${[refusal.reason, refusal.message].filter(Boolean).join(", ")}`, look);
  if (gateway) return found && routes !== undefined ? line("ok", "Gateway", name, "is there, and takes the route") : line("warn", "Gateway", name, "not known whether it is there and takes the route: it cannot be read", look);
  return missing ? line("ok", "Gateway", name, found ? "is there" : "can be made") : line("warn", "Gateway", name, `not known whether it can be made: the kinds of ${gatewayGroup} cannot be read`, `kubectl api-resources --api-group ${gatewayGroup}`);
}

/** Whether the Gateway leads to Jenkins. */
export function judgeGateway(config: Pick<PlatformConfig, "domain" | "namespaces" | "ingress">, facts: GatewayFacts): Line[] {
  const problems = gatewayProblems(config, facts);
  if (problems.length === 0) return [gatewayLine(config, facts)];
  return problems.map(({ key, found, expected, fix = "", maybe }) => line(maybe ? "warn" : "fail", "Gateway", key, `${found}; expected ${expected}`, fix));
}

/** @param builtFor architectures of the built images; undefined where only the build will tell */
export function judgeArchitectures(nodes: { name: string; architecture: string }[], builtFor: string[] | undefined): Line[] {
  return [...new Set(nodes.map(({ architecture }) => architecture))].sort().map((each) => {
    const there = nodes.filter(({ architecture }) => architecture === each).map(({ name }) => name).join(", ");
    if (builtFor?.includes(each) ?? true) return line("ok", "architecture", each, there);
    return line("warn", "architecture", each, `${there}: no image is built for it, so neither agents nor the controller run there`, `add linux/${each} to imageBuild.platforms, or leave it at that`);
  });
}

/** Container runtimes of the nodes, for whoever reads on: containerd and CRI-O label what pods write alike. */
export function judgeRuntimes(nodes: { name: string; runtime: string }[]): Line[] {
  return [...new Set(nodes.map(({ runtime }) => runtime))].sort().map((each) => line("ok", "container runtime", each, nodes.filter(({ runtime }) => runtime === each).map(({ name }) => name).join(", ")));
}

/** The stack's own registry as the nodes find it, and whether their runtimes take it: containerd speaks plain HTTP to its own machine, CRI-O where it is told to. */
export function judgeRegistry({ port, nodesNamespace }: NonNullable<PlatformConfig["imageRegistry"]>, sets: NonNullable<Neighbourhood["registries"]>, runtimes: string[]): Line[] {
  const check = `registry localhost:${port}`;
  const set = sets.find(({ metadata }) => metadata.namespace === nodesNamespace);
  const { desiredNumberScheduled: wanted = 0, numberReady: ready = 0 } = set?.status ?? {};
  const lines = [
    !set ? line("ok", check, "cluster", "not there yet; the first up brings it")
    : ready < wanted ? line("fail", check, "cluster", `answers on ${ready} of ${wanted} nodes`, `kubectl -n ${nodesNamespace} get pods -o wide shows where not; its log tells of a port that a program of the node has: set another registry.port`)
    : line("ok", check, "cluster", `answers on all ${wanted} nodes`),
  ];
  return runtimes.some((runtime) => runtime.startsWith("cri-o")) ? [...lines, line("warn", check, "cluster", "nodes run CRI-O, which asks it for a certificate", `on each, /etc/containers/registries.conf.d/build-platform.conf: [[registry]] location = "localhost:${port}" insecure = true`)] : lines;
}

/** StorageClasses that claims without a class get. More than one and the choice is the newest's. */
export function judgeDefaultClass(defaults: string[]): Line {
  if (defaults.length > 1) return line("warn", "default StorageClass", "cluster", defaults.join(", "), "take the annotation storageclass.kubernetes.io/is-default-class from all but one");
  return line("ok", "default StorageClass", "cluster", defaults[0] ?? "none; the platform names its own");
}

/** What one control-plane node said over SSH, or why it did not. */
export type Visit = { name: string; error: string } | { name: string; facts: Record<string, string> };

/** What will overrule the node-port range at the next upgrade: files of a node by their name, with the range in them or "absent". */
function judgeUpgrade(files: Record<string, string>, where: string, range: string): Line[] {
  return Object.entries(files).filter(([, has]) => has !== range).map(([file, has]) =>
    line("warn", "range after an upgrade", where, has === "absent" ? `${file} leaves the flag out` : `${file} has ${has}`, file.endsWith(`/${kubeadmFile}`)
      ? `kubespray: set kube_apiserver_node_port_range: "${range}" in group_vars/k8s_cluster/k8s-cluster.yml of the inventory; without kubespray set service-node-port-range under apiServer.extraArgs in that file`
      : `set --service-node-port-range=${range} in that file on every control-plane node: kubeadm upgrade --patches puts what it has into the manifest`));
}

/**
 * @param registry that is not the stack's own
 * @param ports of the ingress, where the stack installs one
 * @param range that the stack sets
 * @param shared folders of the nodes that pods share
 */
export function judgeVisit(visit: Visit, basePath: string, registry: string | undefined, ports: number[], range?: string, shared: string[] = []): Line[] {
  const where = visit.name;
  if ("error" in visit) {
    const text = visit.error.trim().split("\n").pop() ?? "";
    const fix = /verification failed|REMOTE HOST IDENTIFICATION/i.test(visit.error)
      ? `the node shows another host key than config; compare on its console: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`
      : /Permission denied/i.test(visit.error)
        ? "add the public key to ~/.ssh/authorized_keys of that user, or correct controlPlane.user and privateKeyFile"
        : "correct controlPlane.nodes in the stack's file, or open the SSH port to this machine";
    return [line("fail", "SSH access", where, text, fix)];
  }
  const { facts } = visit;
  const lines = [line("ok", "SSH access", where, "host key and login are right")];
  if (facts.root !== "yes") lines.push(line("fail", "root rights", where, facts.sudo || "neither root nor sudo without a password", sudoFix(`sudo ${facts.sudo ?? ""}`)));
  else lines.push(line("ok", "root rights", where, "yes"));
  if (facts.manifest === "yes") lines.push(line("ok", "kube-apiserver manifest", where, "found"));
  else lines.push(line("fail", "kube-apiserver manifest", where, "none in the kubelet's folder", "list only control-plane nodes made by kubeadm under controlPlane.nodes"));
  for (const port of ports) {
    if (facts[`listen${port}`] === "yes") lines.push(line("fail", `port ${port} is free`, where, "a program of the node listens there", `on ${where}: ss -ltnp 'sport = :${port}' shows it; stop or move it`));
  }
  const upgrade = Object.entries(facts).flatMap(([key, value]) => (key.startsWith("upgrade:") ? [[key.slice("upgrade:".length), value] as const] : []));
  if (range !== undefined) lines.push(...judgeUpgrade(Object.fromEntries(upgrade), where, range));
  const free = Number(facts.freeKib) * 1024;
  if (Number.isFinite(free)) lines.push(line(free > 2 ** 30 ? "ok" : "fail", `disk below ${basePath}`, where, `${(free / 2 ** 30).toFixed(1)} GiB free`, free > 2 ** 30 ? "" : "make room, or choose another storageBasePath"));
  else lines.push(line("warn", `disk below ${basePath}`, where, "df says nothing", `on ${where}: df -h ${basePath}`));
  lines.push(...judgeFolders(facts, where, basePath, shared));
  if (registry === undefined) return lines;
  if (facts.registry === "yes") lines.push(line("ok", `registry ${registry}`, where, "reachable"));
  else if (facts.registry === "no") lines.push(line("fail", `registry ${registry}`, where, "cannot be reached from the node", `on ${where}: curl -v http(s)://${registry}/v2/ tells why; correct registry.host, DNS or the firewall`));
  else lines.push(line("warn", `registry ${registry}`, where, "the node has neither curl nor wget nor bash", `try it by hand from ${where}`));
  return lines;
}

/** ClusterConfiguration that kubespray, and others, hand to kubeadm at each upgrade. */
const kubeadmFile = "kubeadm-config.yaml";

/**
 * POSIX shell, without single quotes, that prints which files will decide about the range at the next upgrade, as upgrade:FILE=RANGE: what
 * kubeadm is given in place of the cluster's own configuration, and patches of the manifest. Of a list a patch leaves nothing over.
 */
export const upgradeScript = (folder = "/etc/kubernetes"): string => `
say() {
  range=$(grep -A 1 "service[-_]node[-_]port[-_]range" "$1" | grep -oE "[0-9]+-[0-9]+" | head -n 1)
  if [ -n "$range" ] || [ "$2" = whole ] || grep -qE "^[^#]*command.? *:" "$1"; then echo "upgrade:$1=\${range:-absent}"; fi
}
config=${folder}/${kubeadmFile}
patches=
if [ -f "$config" ]; then
  if grep -q "kind: *ClusterConfiguration" "$config"; then say "$config" whole; fi
  patches=$(sed -n "/^patches:/,/^[^ ]/s/^ *directory: *//p" "$config" | tr -d "\\"" | sort -u)
fi
for each in $(printf "%s\n" ${folder}/patches $patches | sort -u); do
  for file in "$each"/kube-apiserver*; do if [ -f "$file" ]; then say "$file" part; fi; done
done`;

/** The disk of the volumes as it is mounted, and as SELinux has it the folders that pods share. */
function judgeFolders(facts: Record<string, string>, where: string, basePath: string, shared: string[]): Line[] {
  const { mount, mountOptions = "", selinux } = facts;
  const lines: Line[] = [];
  const options = mountOptions.split(",");
  const remount = (option: string) => `on ${where}: sudo mount -o remount,${option} ${mount}, and the same in /etc/fstab; or choose another storageBasePath`;
  if (options.includes("ro")) lines.push(line("fail", `mount of ${basePath}`, where, `${mount} is mounted read-only`, remount("rw")));
  else if (options.includes("noexec")) lines.push(line("warn", `mount of ${basePath}`, where, `${mount} is mounted noexec: no program in a volume can be run`, remount("exec")));
  if (selinux !== "Enforcing") return lines;
  // The runtime labels a volume of storageBasePath for its pod, and the privileged helper that makes it is not confined. What is mounted
  // as hostPath keeps the label that it has (SELinuxRelabel in the kubelet's pkg/volume/local and hostpath).
  for (const folder of shared) {
    const type = facts[`label:${folder}`]?.split(":")[2];
    if (type === "container_file_t") lines.push(line("ok", `SELinux of ${folder}`, where, `enforcing; ${type}`));
    else
      lines.push(line("warn", `SELinux of ${folder}`, where, `enforcing, and the folder has ${type ?? "no label"}: pods may not write there`, `on each node: sudo semanage fcontext -a -t container_file_t '${folder}(/.*)?' && sudo mkdir -p ${folder} && sudo restorecon -R ${folder}; without semanage: sudo chcon -R -t container_file_t ${folder}`));
  }
  return lines;
}

/** POSIX shell that prints whether a registry is reached. */
function registryScript(registry: { host: string; insecure: boolean }): string {
  const urls = registry.insecure ? [`http://${registry.host}/v2/`, `https://${registry.host}/v2/`] : [`https://${registry.host}/v2/`];
  const [, host, port] = /^\[?(.*?)\]?(?::(\d+))?$/.exec(registry.host) ?? [];
  const bare = `timeout 5 bash -c ': <"/dev/tcp/${host}/${port ?? (registry.insecure ? 80 : 443)}"' 2>/dev/null`;
  const insecure = registry.insecure ? "k" : "";
  return `if command -v curl >/dev/null; then
  answer=no
  for url in ${urls.join(" ")}; do case $(curl -s${insecure} -o /dev/null -w '%{http_code}' --max-time 5 "$url") in 200|401) answer=yes;; esac; done
elif command -v bash >/dev/null; then
  if ${bare}; then answer=yes; else answer=no; fi
else answer=unknown; fi
echo "registry=$answer"
`;
}

/** POSIX shell that prints what judgeVisit wants, one key=value per line. Reads only. */
export function visitScript(basePath: string, registry: { host: string; insecure: boolean } | undefined, ports: number[], shared: string[] = []): string {
  return `sudo=
if [ "$(id -u)" = 0 ]; then echo root=yes; elif why=$(sudo -n true 2>&1); then echo root=yes; sudo="sudo -n"; else echo root=no; echo "sudo=$(printf '%s\\n' "$why" | head -n 1)"; fi
folder=$(sed -n 's/^staticPodPath: *//p' /var/lib/kubelet/config.yaml 2>/dev/null | tr -d '"')
$sudo sh -c "ls \${folder:-/etc/kubernetes/manifests}/kube-apiserver.*" >/dev/null 2>&1 && echo manifest=yes || echo manifest=no
$sudo sh -c '${upgradeScript()}'
listens() { cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v port="$1" '$4 == "0A" && $2 ~ (":" port "$") { found = 1 } END { exit !found }'; }
${ports.map((port) => `listens ${port.toString(16).toUpperCase().padStart(4, "0")} && echo listen${port}=yes`).join("\n")}
d='${basePath}'
while [ ! -d "$d" ]; do d=\${d%/*}; [ -n "$d" ] || d=/; done
findmnt -nro TARGET,OPTIONS -T "$d" 2>/dev/null | { read -r target options && echo "mount=$target" && echo "mountOptions=$options"; }
echo "selinux=$(getenforce 2>/dev/null)"
${shared.map((folder) => `label=$(stat -c %C '${folder}' 2>/dev/null) && echo "label:${folder}=$label"`).join("\n")}
echo "freeKib=$(df -Pk "$d" | awk 'NR == 2 { print $4 }')"
${registry ? registryScript(registry) : ""}`;
}

/** Runs a script on a control-plane node, by the OpenSSH client and with nothing of the user's own SSH configuration but the key. */
async function visit(stack: Stack, access: ControlPlaneAccess, node: { name: string }, script: string): Promise<Visit> {
  try {
    const env = access.kind === "ssh" ? { ...process.env, ...sshEnvironment(node as SshNode, access, stack.keys), NODE_COMMAND: "sh -s" } : process.env;
    const printed = await run("sh", access.kind === "ssh" ? ["-c", sshScript] : ["-s"], { env, input: script });
    return { name: node.name, facts: Object.fromEntries(printed.split("\n").filter((each) => each.includes("=")).map((each) => [each.slice(0, each.indexOf("=")), each.slice(each.indexOf("=") + 1)])) };
  } catch (error) {
    return { name: node.name, error: (error as Error).message };
  }
}

function knock(host: string, port: number): Promise<"open" | "closed" | "silent"> {
  return new Promise((resolve) => {
    const socket = net.connect({ host, port, timeout: 3000 });
    const end = (answer: "open" | "closed" | "silent") => {
      socket.destroy();
      resolve(answer);
    };
    socket.once("connect", () => end("open"));
    socket.once("timeout", () => end("silent"));
    socket.once("error", (error: NodeJS.ErrnoException) => end(error.code === "ECONNREFUSED" ? "closed" : "silent"));
  });
}

const succeeds = (program: string, ...args: string[]): Promise<boolean> =>
  new Promise((resolve) => {
    spawn(program, args, { stdio: "ignore" }).on("error", () => resolve(false)).on("close", (code) => resolve(code === 0));
  });

/** This machine: the programs that `pulumi up` starts, and the registry as preview asks it. */
async function machine(stack: Stack): Promise<Line[]> {
  const { config } = stack;
  const tools: [string, boolean, string][] = [["pulumi", await succeeds("pulumi", "version"), "install it: https://www.pulumi.com/docs/install/"]];
  if (config.nodePorts?.access.kind === "ssh") tools.push(["ssh", await succeeds("ssh", "-V"), "install the OpenSSH client"]);
  const { builder } = config.imageBuild;
  if (builder === "in-cluster" || config.imageRegistry) tools.push(["kubectl", await succeeds("kubectl", "version", "--client"), "install it: images are built in the cluster, and the stack's own registry is reached, with it"]);
  if (builder === "buildah") tools.push(["buildah", await succeeds("buildah", "--version"), "install buildah, or set imageBuild.builder to buildx or in-cluster"]);
  if (builder === "buildx") tools.push(["docker buildx", await succeeds("docker", "buildx", "version"), "install Docker with buildx, or set imageBuild.builder to buildah or in-cluster"]);
  const lines = tools.map(([tool, there, fix]) => (there ? line("ok", tool, "this machine", "found") : line("fail", tool, "this machine", "not found on PATH", fix)));
  const { surroundings, problems } = await aroundStack(stack);
  lines.push(...problems.map(({ key, found, fix }) => line("fail", key, "cluster", found, fix)));
  if (surroundings.proxy) {
    const found = await proxyProblems(surroundings);
    lines.push(...found.map((each) => line("fail", each.key, "this machine", each.found, each.fix)), ...(found.length === 0 ? [line("ok", "proxy", "this machine", "takes connections")] : []));
  }
  if (!asksRegistry(config)) return lines;
  const [check, problem] = [`registry ${config.registry.host}`, await registryProblem(config.registry, undefined, surroundings)];
  return [...lines, problem ? line("fail", check, "this machine", problem.found, problem.fix) : line("ok", check, "this machine", "reachable")];
}

async function cluster({ name: stack, config, kubectl }: Stack): Promise<Line[]> {
  interface Item {
    metadata: { name: string; namespace?: string; labels?: Record<string, string>; annotations?: Record<string, string> };
  }
  const list = async <T extends Item>(...what: string[]): Promise<T[]> => JSON.parse(await kubectl("get", ...what, "-o", "json")).items;
  const version = JSON.parse(await kubectl("version", "-o", "json")).serverVersion.gitVersion as string;
  const lines = [judgeVersion(version)];

  const allowed = await kubectl("auth", "can-i", "*", "*", "--all-namespaces").then(() => true, () => false);
  lines.push(allowed ? line("ok", "administrator's rights", "cluster", "yes") : line("fail", "administrator's rights", "cluster", "no", "use a context of cluster-admin, such as /etc/kubernetes/admin.conf"));

  interface NodeItem extends Item {
    status: { addresses: { type: string; address: string }[]; conditions: { type: string; status: string }[]; nodeInfo: { architecture: string; containerRuntimeVersion: string } };
  }
  const orNull = (target: string) => kubectl("get", "--raw", target).then((text): unknown => JSON.parse(text), (error: Error) => (/NotFound|could not find/.test(error.message) ? null : undefined));
  const [gateway, issuer, leases, network, server, seen] = await Promise.all([
    readGateway(config, orNull),
    readIssuer(config, orNull),
    list<Item & { spec: { renewTime?: string } }>("leases", "-n", "kube-node-lease"),
    readNodePorts(throughKubectl(kubectl)), kubectl("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}").catch(() => undefined),
    Promise.all(Object.entries(neighbourPaths).map(async ([what, target]) => [what, JSON.parse(await kubectl("get", "--raw", target)).items])).then((lists) => Object.fromEntries(lists) as Required<Neighbourhood>),
  ]);
  const nodes = seen.nodes as NodeItem[];
  const holders = new Map(seen.services.flatMap(({ metadata, spec }) => (spec?.ports ?? []).flatMap(({ nodePort }) => (nodePort ? [[nodePort, `${metadata.namespace}/${metadata.name}`] as const] : []))));
  const wanted = Number(quantityMillis(config.storage.size) / 1000n);
  const held = heldPorts(config);

  lines.push(
    ...judgeNames(neighbourProblems(config, stack, seen)),
    ...(gateway ? judgeGateway(config, gateway) : []),
    ...(held.length > 0 ? judgeNodePorts(nodePortFindings(config, network, seen, server)) : []),
    judgeDefaultClass(seen.storageClasses.filter(({ metadata }) => metadata.annotations?.["storageclass.kubernetes.io/is-default-class"] === "true").map(({ metadata }) => metadata.name)),
  );

  lines.push(...judgeRuntimes(nodes.map(({ metadata, status }) => ({ name: metadata.name, runtime: status.nodeInfo.containerRuntimeVersion }))));
  if (config.imageRegistry) lines.push(...judgeRegistry(config.imageRegistry, seen.registries, nodes.map(({ status }) => status.nodeInfo.containerRuntimeVersion)));
  lines.push(...judgeArchitectures(nodes.map(({ metadata, status }) => ({ name: metadata.name, architecture: status.nodeInfo.architecture })), architectures(config.imageBuild, nodeArchitectures(seen))));

  const perNode = await Promise.all(
    nodes.map(async ({ metadata: { name }, status }): Promise<Line[]> => {
      const address = status.addresses.find(({ type }) => type === "InternalIP")?.address ?? name;
      const stats = await kubectl("get", "--raw", `/api/v1/nodes/${name}/proxy/stats/summary`).then((text) => JSON.parse(text), () => undefined);
      const renewed = leases.find(({ metadata }) => metadata.name === name)?.spec.renewTime;
      const ports: NodeFacts["ports"] = Object.fromEntries(await Promise.all(held.map(async ({ port }) => [port, await knock(address, port)])));
      const facts: NodeFacts = {
        name, address, ports,
        ready: status.conditions.some(({ type, status: value }) => type === "Ready" && value === "True"),
        ...(renewed && { leaseAge: (Date.now() - Date.parse(renewed)) / 1000 }),
        ...(stats?.node?.fs?.availableBytes !== undefined && { freeBytes: stats.node.fs.availableBytes }),
      };
      return judgeNode(facts, holders, held.map(({ namespace, service }) => `${namespace}/${service}`), wanted, config.storage.basePath);
    }),
  );
  lines.push(...perNode.flat());

  const there = seen.ingresses.some(({ metadata }) => metadata.namespace === config.namespaces.jenkins && metadata.name === "jenkins") || (gateway !== undefined && seen.services.some(({ metadata }) => metadata.namespace === config.namespaces.jenkins && metadata.name === "jenkins"));
  const [certificates, doors] = await Promise.all([certificatesOf({ config, kubectl }).catch(() => ({})), there ? frontDoors({ config, kubectl }) : undefined]);
  lines.push(...judgeIngress(config, nodes.length, certificates, doors, new Date(), issuer));

  const addresses = nodes.flatMap(({ status }) => status.addresses.map(({ address }) => address));
  const { externalUrl } = config.ingress;
  for (const name of [externalUrl === undefined ? config.domain : new URL(externalUrl).hostname, ...config.ingress.hosts.map((host) => host.name)]) {
    const resolved = await dns.lookup(name, { all: true }).then((found) => found.map(({ address }) => address), () => []);
    // With an address of its own it leads to what stands before the nodes.
    if (resolved.some((address) => externalUrl !== undefined || addresses.includes(address))) lines.push(line("ok", "DNS", name, resolved.join(", ")));
    else lines.push(line("warn", "DNS", name, resolved.length > 0 ? `${resolved.join(", ")}, no node of this cluster` : "does not resolve here", `point it at ${addresses.filter((address) => net.isIP(address)).join(" or ")}, or at a load balancer before them`));
  }
  return lines;
}

/** Every check; those that cannot be made say why. */
export async function examine(stack: Stack): Promise<Line[]> {
  const { config, problems, warnings } = stack;
  const doubts = warnings.map((text) => line("warn", "stack config", stack.name, text));
  if (problems.length > 0) return [...doubts, ...problems.map(({ key, found, expected, fix }) => line("fail", "stack config", key, `${found}; expected ${expected}`, fix))];
  const ports = heldPorts(config).map(({ port }) => port);
  const { agentCache, backup } = config;
  const shared = [agentCache?.path, backup?.repository, backup?.keysRepository].filter((each) => each?.startsWith("/")) as string[];
  const registry = config.imageRegistry ? undefined : config.registry;
  const script = visitScript(config.storage.basePath, registry, ports, shared);
  const access = config.nodePorts?.access;
  const [here, there, ...visits] = await Promise.all([
    machine(stack),
    cluster(stack).catch((error: Error) => [line("fail", "cluster", config.cluster.context, error.message.trim().split("\n").pop() ?? "", "start the cluster, or correct kubeContext and kubeconfig; kubectl must be on PATH")]),
    ...(access ? access.nodes.map((node) => visit(stack, access, node, script)) : []),
  ]);
  return [...doubts, ...here, ...there, ...visits.flatMap((each) => judgeVisit(each, config.storage.basePath, registry?.host, ports, config.nodePorts?.range, shared))];
}

const signs: Record<State, string> = { ok: "ok", warn: "WARN", fail: "FAIL" };

/** The table for people, worst last so that it stays in sight, and one line of totals. */
export function report(lines: Line[]): string {
  const order: State[] = ["ok", "warn", "fail"];
  const rows = order.flatMap((state) => lines.filter((each) => each.state === state)).map(({ state, check, where, found, fix }) => [signs[state], check, where, fix === "" ? found : `${found} -> ${fix}`]);
  const count = (state: State) => lines.filter((each) => each.state === state).length;
  return `${columns([["", "check", "where", "found -> what to do"], ...rows])}\n\n${count("ok")} ok, ${count("warn")} to look at, ${count("fail")} to mend\n`;
}

async function main(args: string[]): Promise<void> {
  const { positionals } = readWords(args, {}, 1);
  const lines = await examine(await readStack(positionals[0]));
  process.stdout.write(report(lines));
  process.exitCode = lines.some(({ state }) => state === "fail") ? 1 : 0;
}

if (require.main === module) void runCommand("doctor", HELP, main);
