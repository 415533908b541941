import { randomBytes } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { MIRRORED, NETWORK, PREFIX, REGISTRY, SSH_KEY, STATE } from "../paths";
import { run, startDetached, waitFor, type Result, type RunOptions } from "../shell";
import { nodeResolvers } from "./host";
import { dualStack, joinNetwork } from "./network";
import { mirrorHosts } from "./registry";

/** One machine of the sandbox: namespaces, a root file system and a cgroup of its own. */
export interface Node {
  name: string;
  role: "control-plane" | "worker";
  /** Decides the address and the pod subnet; unique among nodes. */
  index: number;
}

const NODES = path.join(STATE, "nodes");

export const addressOf = (node: Node): string => `10.88.0.${node.index}`;
/** Its addresses of both families, where the sandbox has both. */
export const addressesOf = (node: Node): string[] => [addressOf(node), ...(dualStack() ? [`${NETWORK.v6.prefix}${node.index}`] : [])];
const podSubnetV6Of = (node: Node): string => `fd00:244:${node.index}::/64`;
export const podSubnetOf = (node: Node): string => `10.244.${node.index}.0/24`;
export const folderOf = (node: Pick<Node, "name">): string => path.join(NODES, node.name);
const namespaceOf = (node: Pick<Node, "name">): string => PREFIX + node.name;
const cgroupOf = (node: Pick<Node, "name">): string => PREFIX + node.name;

/** First control plane at .2, further ones at .3 to .9, workers from .11. */
export function nodeNamed(name: string): Node {
  const match = name.match(/^(control-plane|worker)-([1-9]\d?)$/);
  if (!match) throw new Error(`a sandbox node is called control-plane-N or worker-N, not ${JSON.stringify(name)}`);
  const [, role, number] = match;
  const index = (role === "worker" ? 10 : 1) + Number(number);
  if (role === "control-plane" && index > 9) throw new Error("the sandbox holds at most 8 control-plane nodes");
  return { name, role: role as Node["role"], index };
}

/** The nodes that exist on disk, running or not. */
export function existingNodes(): Node[] {
  return fs.existsSync(NODES) ? fs.readdirSync(NODES).sort().map(nodeNamed) : [];
}

/** Where this machine's cgroup trees are mounted, read from the text of /proc/self/mounts: the v1 hierarchies and the v2 tree. */
export function cgroupRoots(mounts: string): { v1: string[]; v2: string[] } {
  const ofType = (wanted: string) => mounts.split("\n").map((line) => line.split(" ")).filter(([, , type]) => type === wanted).map(([, target]) => target);
  return { v1: ofType("cgroup"), v2: ofType("cgroup2") };
}

/**
 * The v2 trees whose controllers a node's cgroup is given: none where there are v1 hierarchies, for kubelet and runc then use
 * those alone, and the kernel refuses a controller below a v2 cgroup that holds processes, as a container's own does.
 */
export const delegatingRoots = ({ v1, v2 }: ReturnType<typeof cgroupRoots>): string[] => (v1.length > 0 ? [] : v2);

const mountedRoots = () => cgroupRoots(fs.readFileSync("/proc/self/mounts", "utf8"));

/** Folders of the cgroup tree that a node's kubelet needs: one in each v1 hierarchy and in the v2 tree. */
function cgroupFolders(node: Pick<Node, "name">): string[] {
  const { v1, v2 } = mountedRoots();
  return [...v1, ...v2].map((root) => path.join(root, cgroupOf(node)));
}

function makeCgroups(node: Node): void {
  const delegating = delegatingRoots(mountedRoots());
  for (const folder of cgroupFolders(node)) {
    fs.mkdirSync(folder, { recursive: true });
    const parent = path.dirname(folder);
    for (const file of ["cpuset.cpus", "cpuset.mems"]) {
      const target = path.join(folder, file);
      // v1: a cpuset is unusable until filled in; v2 inherits, so an empty one is right there.
      if (!fs.existsSync(path.join(parent, "cgroup.controllers")) && fs.existsSync(target)) {
        fs.writeFileSync(target, fs.readFileSync(path.join(parent, file)));
      }
    }
    if (delegating.includes(parent)) {
      for (const name of fs.readFileSync(path.join(parent, "cgroup.controllers"), "utf8").trim().split(" ").filter(Boolean)) {
        fs.writeFileSync(path.join(parent, "cgroup.subtree_control"), `+${name}`);
        fs.writeFileSync(path.join(folder, "cgroup.subtree_control"), `+${name}`);
      }
    }
  }
}

/** Removes a cgroup and all below it; the processes in it have ended. */
function removeCgroup(folder: string): void {
  if (!fs.existsSync(folder)) return;
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    if (entry.isDirectory()) removeCgroup(path.join(folder, entry.name));
  }
  fs.rmdirSync(folder);
}

/** containerd's own settings on a node. */
const containerdConfig = (pause: string): string => [
  "version = 3",
  "oom_score = 0",
  "[plugins.'io.containerd.cri.v1.images'.pinned_images]",
  `  sandbox = "${pause}"`,
  "[plugins.'io.containerd.cri.v1.images'.registry]",
  '  config_path = "/etc/containerd/certs.d"',
  "[plugins.'io.containerd.cri.v1.runtime']",
  "  disable_apparmor = true",
  "  restrict_oom_score_adj = true",
  "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]",
  '  runtime_type = "io.containerd.runc.v2"',
  "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]",
  "  SystemdCgroup = false",
  '  BinaryName = "/usr/bin/runc"', // the host's own may stand in /usr/sbin, which comes first
  "[plugins.'io.containerd.cri.v1.runtime'.cni]",
  '  bin_dirs = ["/usr/lib/cni"]',
  '  conf_dir = "/etc/cni/net.d"',
  "",
].join("\n");

/** Writes the files a machine's owner would have put on it before kubeadm: runtime, CNI, sshd, host name. */
function writeNodeFiles(node: Node, pause: string): void {
  const etc = path.join(folderOf(node), "etc");
  const write = (file: string, text: string, mode = 0o644) => {
    const target = path.join(etc, file);
    fs.mkdirSync(path.dirname(target), { recursive: true });
    fs.writeFileSync(target, text, { mode });
  };
  write("hostname", `${node.name}\n`);
  write("hosts", `127.0.0.1 localhost\n${addressOf(node)} ${node.name}\n`);
  const [host, resolved] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"].map((file) => (fs.existsSync(file) ? fs.readFileSync(file, "utf8") : undefined));
  const resolvers = nodeResolvers(host ?? "", resolved);
  if (resolvers !== undefined) write("resolv.conf", resolvers);
  write("machine-id", `${randomBytes(16).toString("hex")}\n`);
  write("crictl.yaml", "runtime-endpoint: unix:///run/containerd/containerd.sock\n");
  write("containerd/sandbox.toml", containerdConfig(pause));
  for (const upstream of MIRRORED) write(`containerd/certs.d/${upstream}/hosts.toml`, mirrorHosts(upstream));
  write(`containerd/certs.d/${REGISTRY}/hosts.toml`, `server = "http://${REGISTRY}"\n[host."http://${REGISTRY}"]\n  capabilities = ["pull", "resolve"]\n`);
  const cni = {
    cniVersion: "0.4.0",
    name: "sandbox",
    plugins: [
      {
        type: "bridge", bridge: "cni0", isGateway: true, ipMasq: true, hairpinMode: true, mtu: NETWORK.podMtu,
        ipam: { type: "host-local", ranges: [podSubnetOf(node), ...(dualStack() ? [podSubnetV6Of(node)] : [])].map((subnet) => [{ subnet }]), routes: [{ dst: "0.0.0.0/0" }, ...(dualStack() ? [{ dst: "::/0" }] : [])] },
      },
      { type: "portmap", capabilities: { portMappings: true } },
    ],
  };
  write("cni/net.d/10-sandbox.conflist", JSON.stringify(cni, null, 2));
  write("ssh/sandbox_host_ed25519", fs.readFileSync(path.join(folderOf(node), "host_ed25519"), "utf8"), 0o600);
  write("ssh/sandbox_authorized_keys", fs.readFileSync(`${SSH_KEY}.pub`, "utf8"));
  write("ssh/sandbox_sshd_config", [
    "Port 22",
    `ListenAddress ${addressOf(node)}`,
    "HostKey /etc/ssh/sandbox_host_ed25519",
    "AuthorizedKeysFile /etc/ssh/sandbox_authorized_keys",
    "PermitRootLogin prohibit-password",
    "PasswordAuthentication no",
    "KbdInteractiveAuthentication no",
    "UsePAM no",
    "PidFile none",
    "Subsystem sftp internal-sftp",
    "",
  ].join("\n"));
}

async function makeKeys(node: Node): Promise<void> {
  const folder = folderOf(node);
  fs.mkdirSync(folder, { recursive: true, mode: 0o755 });
  fs.mkdirSync(path.dirname(SSH_KEY), { recursive: true, mode: 0o700 });
  const keygen = (file: string, comment: string) => run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", file]);
  if (!fs.existsSync(SSH_KEY)) await keygen(SSH_KEY, "sandbox operator");
  const hostKey = path.join(folder, "host_ed25519");
  if (!fs.existsSync(hostKey)) await keygen(hostKey, node.name);
  const [type, key] = fs.readFileSync(`${hostKey}.pub`, "utf8").split(" ");
  fs.writeFileSync(path.join(path.dirname(SSH_KEY), `${node.name}.hostkey.pub`), `${type} ${key}\n`);
}

/** Process id of the node's init as the host sees it, or undefined when the node is not running. */
export function initOf(node: Pick<Node, "name">): number | undefined {
  const file = path.join(folderOf(node), "pid");
  if (!fs.existsSync(file)) return undefined;
  const parent = Number(fs.readFileSync(file, "utf8"));
  try {
    // The recorded process is the unshare that made the namespaces; its one child is the node's init.
    const commandLine = fs.readFileSync(`/proc/${parent}/cmdline`, "utf8");
    if (!commandLine.includes(folderOf(node))) return undefined;
    const child = fs.readFileSync(`/proc/${parent}/task/${parent}/children`, "utf8").trim();
    return child ? Number(child) : undefined;
  } catch {
    return undefined;
  }
}

/** Boots a node: from nothing, with the `pause` image that kubeadm wants, or again with the disk it had. `tools` is a folder with bin/ of Kubernetes programs. */
export async function startNode(node: Node, tools: string, pause = ""): Promise<void> {
  if (initOf(node) !== undefined) return;
  await makeKeys(node);
  if (!fs.existsSync(path.join(folderOf(node), "etc"))) writeNodeFiles(node, pause);
  makeCgroups(node);
  await joinNetwork(namespaceOf(node), node.index, addressOf(node));
  const script = path.join(__dirname, "node-init.sh");
  const namespaces = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"];
  const pid = startDetached(node.name, "nsenter", [
    `--net=/run/netns/${namespaceOf(node)}`, ...namespaces, "bash", script, "build", folderOf(node), node.name, tools,
  ]);
  fs.writeFileSync(path.join(folderOf(node), "pid"), String(pid));
  await waitFor(`containerd on ${node.name} (see ${STATE}/logs/${node.name}.log)`, 90, async () => {
    const probe = await inNode(node, ["ctr", "version"], { allowFailure: true });
    return probe.code === 0;
  });
}

/** Runs a program inside a node, as a login on that machine would. */
export function inNode(node: Pick<Node, "name">, command: string[], options: RunOptions = {}): Promise<Result> {
  const pid = initOf(node);
  if (pid === undefined) return Promise.reject(new Error(`sandbox node ${node.name} is not running`));
  const env = { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", HOME: "/root", LANG: "C.UTF-8" };
  return run("nsenter", ["-t", String(pid), "-m", "-u", "-i", "-n", "-p", "-r", "-w", "--", ...command], { ...options, env });
}

/** Ends every process of a node at once, as a power cut would; its disk stays. */
export async function stopNode(node: Pick<Node, "name">): Promise<void> {
  const namespace = namespaceOf(node);
  if (fs.existsSync(`/run/netns/${namespace}`)) {
    // The node's first process lives in the node's network namespace, and the kernel ends its PID namespace with it.
    const pids = (await run("ip", ["netns", "pids", namespace], { allowFailure: true })).stdout.split("\n").filter(Boolean);
    for (const pid of pids) {
      try {
        process.kill(Number(pid), "SIGKILL");
      } catch {
        // already gone
      }
    }
    await waitFor(`the processes of ${node.name} to end`, 20, async () => {
      return (await run("ip", ["netns", "pids", namespace], { allowFailure: true })).stdout.trim() === "";
    });
  }
  fs.rmSync(path.join(folderOf(node), "pid"), { force: true });
  await waitFor(`the cgroups of ${node.name} to empty`, 20, async () => {
    cgroupFolders(node).forEach(removeCgroup);
    return true;
  });
}

/** Removes a node and its disk. Safe on one that is half made or half removed. */
export async function removeNode(node: Pick<Node, "name">): Promise<void> {
  await stopNode(node);
  if (fs.existsSync(`/run/netns/${namespaceOf(node)}`)) await run("ip", ["netns", "del", namespaceOf(node)]);
  const left = fs.readFileSync("/proc/self/mounts", "utf8").split("\n").map((line) => line.split(" ")[1] ?? "").filter((target) => target.startsWith(`${folderOf(node)}/`));
  for (const target of left.reverse()) await run("umount", ["-l", target], { allowFailure: true });
  await run("rm", ["-rf", "--one-file-system", folderOf(node)]);
  fs.rmSync(path.join(path.dirname(SSH_KEY), `${node.name}.hostkey.pub`), { force: true });
}

/** Names of nodes that left anything behind: folder, network namespace or cgroup. */
export function traces(): string[] {
  const found = new Set(existingNodes().map((node) => node.name));
  const scan = (folder: string) => {
    if (!fs.existsSync(folder)) return;
    for (const name of fs.readdirSync(folder)) if (name.startsWith(PREFIX)) found.add(name.slice(PREFIX.length));
  };
  scan("/run/netns");
  cgroupFolders({ name: "" }).forEach((folder) => scan(path.dirname(folder)));
  return [...found].sort();
}

const podRoutes = (node: Node): [string, string][] => addressesOf(node).map((via, i) => [[podSubnetOf(node), podSubnetV6Of(node)][i], via]);

/** Routes between the pod subnets of all nodes, in every node and on the host. */
export async function routePods(nodes: Node[]): Promise<void> {
  for (const node of nodes) {
    for (const other of nodes.filter((candidate) => candidate.name !== node.name)) {
      for (const [subnet, via] of podRoutes(other)) await run("ip", ["-n", namespaceOf(node), "route", "replace", subnet, "via", via]);
    }
    for (const [subnet, via] of podRoutes(node)) await run("ip", ["route", "replace", subnet, "via", via, "dev", NETWORK.bridge]);
  }
}
