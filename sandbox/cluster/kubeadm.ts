import * as fs from "node:fs";
import * as path from "node:path";
import { stringify } from "yaml";
import { KUBECONFIG, NETWORK } from "../paths";
import { run, waitFor } from "../shell";
import { dualStack } from "./network";
import { addressesOf, addressOf, folderOf, initOf, inNode, type Node } from "./nodes";

const API = "kubeadm.k8s.io/v1beta4";
const CLUSTER_DNS = "10.96.0.10";

/** A range of each family that the sandbox has. */
const families = (v4: string, v6: string): string => (dualStack() ? `${v4},${v6}` : v4);

const argument = (name: string, value: string) => ({ name, value });

/** kubeadm's nodeRegistration for one sandbox node. */
function registration(node: Node): object {
  return {
    name: node.name,
    criSocket: "unix:///run/containerd/containerd.sock",
    imagePullPolicy: "IfNotPresent",
    taints: [], // a small cluster: everything may run on the control plane
    ignorePreflightErrors: ["all"], // the host's kernel modules and swap are not the node's to judge
    kubeletExtraArgs: [
      argument("node-ip", addressesOf(node).join(",")),
      // Two kubelets below one cgroup root end each other's pods.
      argument("cgroup-root", `/bp-${node.name}`),
    ],
  };
}

/** The documents of the first node's `kubeadm init --config`. */
export function initConfig(node: Node, kubernetesVersion: string): string {
  const documents = [
    {
      apiVersion: API,
      kind: "InitConfiguration",
      localAPIEndpoint: { advertiseAddress: addressOf(node), bindPort: 6443 },
      nodeRegistration: registration(node),
    },
    {
      apiVersion: API,
      kind: "ClusterConfiguration",
      clusterName: "sandbox",
      kubernetesVersion,
      controlPlaneEndpoint: `${addressOf(node)}:6443`,
      networking: { podSubnet: families(NETWORK.pods, NETWORK.v6.pods), serviceSubnet: families(NETWORK.services, NETWORK.v6.services) },
      // Each node's pod subnet is in its CNI configuration.
      controllerManager: { extraArgs: [argument("allocate-node-cidrs", "false")] },
    },
    {
      apiVersion: "kubelet.config.k8s.io/v1beta1",
      kind: "KubeletConfiguration",
      cgroupDriver: "cgroupfs",
      failSwapOn: false,
      failCgroupV1: false,
      clusterDNS: [CLUSTER_DNS],
      serializeImagePulls: false,
      // Without a leader's lease the controller manager ends itself whenever the API server restarts. Tests restart it many
      // times in ten minutes: the kubelet's default would keep the controller manager down for up to five of them.
      featureGates: { KubeletCrashLoopBackOffMax: true },
      crashLoopBackOff: { maxContainerRestartPeriod: "10s" },
      // The disk is the host's: how full it is says nothing about this node.
      imageGCHighThresholdPercent: 100,
      evictionHard: { "memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
    },
    {
      apiVersion: "kubeproxy.config.k8s.io/v1alpha1",
      kind: "KubeProxyConfiguration",
      mode: "iptables",
      clusterCIDR: families(NETWORK.pods, NETWORK.v6.pods),
      conntrack: { maxPerCore: 0 }, // the limit is the host's, not a namespace's to set
    },
  ];
  return documents.map((document) => stringify(document)).join("---\n");
}

/** kubectl against the sandbox with the administrator's rights. */
export function kubectl(tools: string, args: string[], input?: string) {
  return run(path.join(tools, "bin", "kubectl"), ["--kubeconfig", KUBECONFIG, ...args], { input });
}

/** Loads image archives into a node's containerd; those it has already are not read again. */
export async function importImages(node: Node, tools: string, archives: { archive: string; reference: string }[]): Promise<void> {
  const socket = `/proc/${initOf(node)}/root/run/containerd/containerd.sock`;
  const ctr = path.join(tools, "bin", "ctr");
  const known = new Set((await run(ctr, ["-a", socket, "-n", "k8s.io", "images", "ls", "-q"])).stdout.split("\n"));
  for (const { archive } of archives.filter(({ reference }) => !known.has(reference))) {
    await run(ctr, ["-a", socket, "-n", "k8s.io", "images", "import", archive]);
  }
}

/** `kubeadm init` on the first control-plane node; nothing when it was done before. */
export async function initCluster(node: Node, kubernetesVersion: string): Promise<void> {
  const admin = path.join(folderOf(node), "etc/kubernetes/admin.conf");
  if (!fs.existsSync(path.join(folderOf(node), "etc/sandbox-initialised"))) {
    fs.writeFileSync(path.join(folderOf(node), "etc/kubeadm.yaml"), initConfig(node, kubernetesVersion));
    await inNode(node, ["kubeadm", "reset", "--force"], { allowFailure: true }); // an earlier try may have been cut short
    await inNode(node, ["kubeadm", "init", "--config", "/etc/kubeadm.yaml", "--upload-certs"]);
    fs.writeFileSync(path.join(folderOf(node), "etc/sandbox-initialised"), "");
  }
  fs.copyFileSync(admin, KUBECONFIG);
  fs.chmodSync(KUBECONFIG, 0o600);
}

/** `kubeadm join` of a further node, as a worker or with a stacked control plane. */
export async function joinCluster(first: Node, node: Node): Promise<void> {
  const done = path.join(folderOf(node), "etc/sandbox-initialised");
  if (fs.existsSync(done)) return;
  const token = (await inNode(first, ["kubeadm", "token", "create", "--ttl", "1h"])).stdout.trim();
  const hash = (await inNode(first, ["sh", "-c", "openssl x509 -pubkey -in /etc/kubernetes/pki/ca.crt | openssl pkey -pubin -outform der | openssl dgst -sha256 -hex"])).stdout;
  const join: Record<string, unknown> = {
    apiVersion: API,
    kind: "JoinConfiguration",
    discovery: { bootstrapToken: { apiServerEndpoint: `${addressOf(first)}:6443`, token, caCertHashes: [`sha256:${hash.trim().split(/\s+/).pop()}`] } },
    nodeRegistration: registration(node),
  };
  if (node.role === "control-plane") {
    const uploaded = await inNode(first, ["kubeadm", "init", "phase", "upload-certs", "--upload-certs"]);
    const certificateKey = uploaded.stdout.trim().split("\n").pop();
    join.controlPlane = { localAPIEndpoint: { advertiseAddress: addressOf(node), bindPort: 6443 }, certificateKey };
  }
  fs.writeFileSync(path.join(folderOf(node), "etc/kubeadm.yaml"), stringify(join), { mode: 0o600 });
  await inNode(node, ["kubeadm", "reset", "--force"], { allowFailure: true });
  await inNode(node, ["kubeadm", "join", "--config", "/etc/kubeadm.yaml"]);
  fs.writeFileSync(done, "");
}

/** Waits until a node is Ready and the cluster's DNS serves. */
export async function waitReady(node: Node, tools: string): Promise<void> {
  await waitFor(`node ${node.name} to be Ready`, 120, async () => {
    const status = await kubectl(tools, ["get", "node", node.name, "-o", 'jsonpath={.status.conditions[?(@.type=="Ready")].status}']);
    return status.stdout === "True";
  });
}

/** Puts programs of another release on a node, as its distribution's packages would: the old file serves whoever runs it. */
function installPrograms(node: Node, binaries: string, programs: string[]): void {
  const bin = `/proc/${initOf(node)}/root/usr/bin`;
  for (const program of programs) {
    fs.copyFileSync(path.join(binaries, program), path.join(bin, `${program}.new`));
    fs.renameSync(path.join(bin, `${program}.new`), path.join(bin, program));
  }
}

/**
 * `kubeadm upgrade` of one node in the documented order: kubeadm, the control plane (or the node's settings), drain, kubelet,
 * uncordon. `binaries` are the new release's programs; its images are on the node.
 */
export async function upgradeNode(node: Node, first: boolean, tools: string, binaries: string, kubernetesVersion: string): Promise<void> {
  installPrograms(node, binaries, ["kubeadm"]);
  // What kubeadm looks at before is the host's kernel and disk, as at init.
  await inNode(node, ["kubeadm", "upgrade", ...(first ? ["apply", kubernetesVersion, "--yes"] : ["node"]), "--ignore-preflight-errors=all"]);
  await kubectl(tools, ["drain", node.name, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=300s"]);
  installPrograms(node, binaries, ["kubelet", "kubectl"]);
  await inNode(node, ["pkill", "-x", "kubelet"]); // started again at once, as by systemd
  await waitFor(`kubelet ${kubernetesVersion} on ${node.name}`, 180, async () => {
    const { stdout } = await kubectl(tools, ["get", "node", node.name, "-o", 'jsonpath={.status.nodeInfo.kubeletVersion} {.status.conditions[?(@.type=="Ready")].status}']);
    return stdout === `${kubernetesVersion} True`;
  });
  // The new kubelet makes the static pods anew, the API server's among them: it is asked until it stays.
  let good = 0;
  await waitFor(`the API server to stay after the new kubelet of ${node.name}`, 300, async () => {
    good = await kubectl(tools, ["get", "--raw", "/readyz"]).then(() => good + 1, () => 0);
    return good === 60;
  });
  await kubectl(tools, ["uncordon", node.name]);
}
