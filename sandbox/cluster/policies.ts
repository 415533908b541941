import { NETWORK, TOOLS } from "../paths";
import { buildTestTool } from "./binaries";
import { importImages, kubectl } from "./kubeadm";
import { dualStack } from "./network";
import { existingNodes, initOf, inNode, type Node } from "./nodes";
import { toolImage } from "./system-images";

const name = "kube-network-policies";
/** Number of the netfilter queue between kernel and engine. */
const queue = 100;
const metadata = { name, namespace: "kube-system", labels: { app: name } };

/** What the project's own install.yaml makes, and nothing more: https://github.com/kubernetes-sigs/kube-network-policies */
function objects(image: string): object[] {
  return [
    { apiVersion: "v1", kind: "ServiceAccount", metadata },
    {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "ClusterRole",
      metadata: { name },
      rules: [
        { apiGroups: [""], resources: ["pods", "namespaces"], verbs: ["list", "watch"] },
        { apiGroups: ["networking.k8s.io"], resources: ["networkpolicies"], verbs: ["list", "watch"] },
      ],
    },
    {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "ClusterRoleBinding",
      metadata: { name },
      roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name },
      subjects: [{ kind: "ServiceAccount", name, namespace: "kube-system" }],
    },
    {
      apiVersion: "apps/v1",
      kind: "DaemonSet",
      metadata,
      spec: {
        selector: { matchLabels: { app: name } },
        template: {
          metadata: { labels: { app: name } },
          spec: {
            hostNetwork: true,
            serviceAccountName: name,
            tolerations: [{ operator: "Exists", effect: "NoSchedule" }],
            containers: [
              {
                name: "engine",
                image,
                imagePullPolicy: "IfNotPresent",
                // Debian's containerd has no NRI: pods' addresses come from the API server.
                args: ["--hostname-override=$(NODE_NAME)", "--disable-nri", `--nfqueue-id=${queue}`, "--netfilter-bug-1766-fix=false"],
                env: [{ name: "NODE_NAME", valueFrom: { fieldRef: { fieldPath: "spec.nodeName" } } }],
                securityContext: { privileged: true },
                readinessProbe: { httpGet: { path: "/metrics", port: 9080 }, periodSeconds: 2, timeoutSeconds: 5 },
              },
            ],
          },
        },
      },
    },
  ];
}

const chain = "bp-policies";
/**
 * Which packets are put before the engine: the first of each connection from or to a pod, after services' addresses were replaced,
 * but not what the node's own root sends, such as the kubelet's probes. The engine has the same rules for nftables, which need
 * CONFIG_NFT_QUEUE; kernels without it have the older target. Without a listener packets pass.
 */
const rules = (pods: string): string[][] => [
  ["-m", "owner", "--uid-owner", "0", "-j", "RETURN"],
  ["-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "RETURN"],
  ...["-s", "-d"].map((side) => [side, pods, "-j", "NFQUEUE", "--queue-num", String(queue), "--queue-bypass"]),
];
/** Those of each family that the sandbox has, by the program that sets them; with IPv6 nobody finds a neighbour without its ICMP. */
const families = (): [program: string, rules: string[][]][] => [
  ["iptables", rules(NETWORK.pods)],
  ...(dualStack() ? [["ip6tables", [["-p", "ipv6-icmp", "-j", "RETURN"], ...rules(NETWORK.v6.pods)]] as [string, string[][]]] : []),
];

const runningNodes = () => existingNodes().filter((node) => initOf(node) !== undefined);
const mangle = (node: Node, program: string, args: string[], allowFailure = false) => inNode(node, [program, "-w", "-t", "mangle", ...args], { allowFailure });

async function removeRules(node: Node): Promise<void> {
  for (const [program] of families()) for (const args of [["-D", "POSTROUTING", "-j", chain], ["-F", chain], ["-X", chain]]) await mangle(node, program, args, true);
}

/** Has NetworkPolicies enforced on every node there is, the bridge CNI plugin itself knowing none. Running it again changes nothing. */
export async function enforcePolicies(): Promise<void> {
  const image = await toolImage(name, await buildTestTool("network-policies"));
  for (const node of runningNodes()) await importImages(node, TOOLS, [image]);
  await kubectl(TOOLS, ["apply", "-f", "-"], JSON.stringify({ apiVersion: "v1", kind: "List", items: objects(image.reference) }));
  await kubectl(TOOLS, ["-n", "kube-system", "rollout", "status", `daemonset/${name}`, "--timeout=300s"]);
  for (const node of runningNodes()) {
    await removeRules(node);
    for (const [program, each] of families()) {
      await mangle(node, program, ["-N", chain]);
      for (const rule of each) await mangle(node, program, ["-A", chain, ...rule]);
      await mangle(node, program, ["-A", "POSTROUTING", "-j", chain]);
    }
  }
}

/** Ends the enforcement. */
export async function releasePolicies(): Promise<void> {
  for (const node of runningNodes()) await removeRules(node);
  await kubectl(TOOLS, ["-n", "kube-system", "delete", `daemonset/${name}`, `serviceaccount/${name}`, `clusterrole/${name}`, `clusterrolebinding/${name}`, "--ignore-not-found"]);
  // Where the engine could make rules of its own, it leaves them behind when it is ended.
  for (const node of runningNodes()) await inNode(node, ["nft", "delete", "table", "inet", name], { allowFailure: true });
}
