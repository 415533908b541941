/**
 * Whether the nodes answer on the ports of the ingress, and nobody else does: the API server's own port, pods with a port of
 * the host, and the network's data plane, which has a range of node ports of its own beside the API server's.
 */
import * as net from "node:net";
import { parse } from "yaml";
import { partOf } from "../components/ownership";
import { heldPorts, rangeEnds, type PlatformConfig, type Problem } from "../config";
import { isObject } from "../config/pieces";
import { flagOf, type ClusterObject, type Neighbourhood } from "./neighbours";

type ConfigMap = { data?: Record<string, string> };
type Workload = ClusterObject & {
  spec?: { replicas?: number; template?: { spec?: { containers?: { ports?: { hostPort?: number; protocol?: string }[] }[] } } };
};

/** What the cluster says of it; what is not there or cannot be read is undefined, and is not judged. */
export interface NodePortFacts {
  cilium?: ConfigMap;
  calico?: { spec?: { bpfEnabled?: boolean; kubeNodePortRanges?: (string | number)[] } };
  kubeProxy?: ConfigMap;
  kubeadm?: ConfigMap;
  daemonSets?: { items?: Workload[] };
  deployments?: { items?: Workload[] };
}

const paths: Record<keyof NodePortFacts, string> = {
  cilium: "/api/v1/namespaces/kube-system/configmaps/cilium-config",
  calico: "/apis/crd.projectcalico.org/v1/felixconfigurations/default",
  kubeProxy: "/api/v1/namespaces/kube-system/configmaps/kube-proxy",
  kubeadm: "/api/v1/namespaces/kube-system/configmaps/kubeadm-config",
  daemonSets: "/apis/apps/v1/daemonsets",
  deployments: "/apis/apps/v1/deployments",
};

/** Answers of the API server by way of kubectl; undefined for what is not there. */
export const throughKubectl = (kubectl: (...args: string[]) => Promise<string>) => (path: string): Promise<unknown> =>
  kubectl("get", "--raw", path).then((text) => JSON.parse(text) as unknown, () => undefined);

/** Asks for all of it; `get` answers undefined for what is not there. */
export async function readNodePorts(get: (path: string) => Promise<unknown>): Promise<NodePortFacts> {
  return Object.fromEntries(await Promise.all(Object.entries(paths).map(async ([what, path]) => [what, await get(path)]))) as NodePortFacts;
}

/** A problem of a node port. It stops an update where Jenkins could not be reached, or the API server no longer; a note is meant as it is in most clusters. */
export type Finding = Required<Problem> & { level: "stop" | "warn" | "note" };

type Wants = Pick<PlatformConfig, "ingress" | "nodePorts" | "namespaces"> & { controller: Pick<PlatformConfig["controller"], "agentNodePort"> };
type Seen = Pick<Neighbourhood, "apiServers" | "nodes" | "services">;

const listed = (items: readonly (string | number)[]) => items.join(" and ");
const yaml = (text: string | undefined): Record<string, unknown> => {
  try {
    const value: unknown = parse(text ?? "");
    return isObject(value) ? value : {};
  } catch {
    return {};
  }
};

/** Host and port of an address such as https://10.0.0.2:6443 or [2001:db8::1]:6443. */
function endpoint(text: unknown): { host: string; port: number } | undefined {
  if (typeof text !== "string" || text === "") return undefined;
  const [scheme, rest] = /^(\w+):\/\/(.*)$/.exec(text)?.slice(1) ?? ["https", text];
  const match = /^\[?([^\]/]+?)\]?(?::(\d+))?(?:\/|$)/.exec(rest);
  // kubeadm's own default where an endpoint has no port.
  return match ? { host: match[1], port: Number(match[2] ?? (rest === text ? 6443 : scheme === "http" ? 80 : 443)) } : undefined;
}

/** Where the API server answers on nodes of the cluster. A load balancer elsewhere may have any port. */
function apiPorts({ kubeadm }: NodePortFacts, { apiServers = [], nodes = [] }: Seen, server: string | undefined): Map<number, string> {
  const ports = new Map<number, string>();
  const local = new Set(nodes.flatMap(({ metadata, status }) => [metadata.name, ...(status?.addresses ?? []).map(({ address }) => address)]));
  const outside: [unknown, string][] = [[server, "where the kubeconfig reaches the API server on a node"], [yaml(kubeadm?.data?.ClusterConfiguration).controlPlaneEndpoint, "where kubeadm-config (controlPlaneEndpoint) has the API server on a node"]];
  for (const [text, words] of outside) {
    const at = endpoint(text);
    if (at && local.has(at.host)) ports.set(at.port, words);
  }
  for (const pod of apiServers) ports.set(Number(flagOf(pod, "secure-port") ?? 6443), `the API server's own on ${pod.spec.nodeName ?? "a node"} (--secure-port)`);
  return ports;
}

/** Pods of others that have the ports of the host. */
function hostPorts({ daemonSets, deployments }: NodePortFacts, namespace: string, port: number): string[] {
  const of = (kind: string, items: Workload[] = []) =>
    items
      .filter(({ metadata, spec }) => metadata.namespace !== namespace && spec?.replicas !== 0 && !Object.entries(partOf).every(([key, value]) => metadata.labels?.[key] === value))
      .filter(({ spec }) => spec?.template?.spec?.containers?.some(({ ports }) => ports?.some(({ hostPort, protocol }) => hostPort === port && (protocol ?? "TCP") === "TCP")))
      .map(({ metadata }) => `${kind} ${metadata.namespace}/${metadata.name}`);
  return [...of("DaemonSet", daemonSets?.items), ...of("Deployment", deployments?.items)];
}

/** What serves node ports in place of kube-proxy, with the ranges that it serves. */
function dataPlane({ cilium, calico }: NodePortFacts, wanted: [low: number, high: number]): { name: string; ranges: [low: number, high: number][]; fix: string } | undefined {
  const settings = cilium?.data ?? {};
  if (["true", "strict"].includes(settings["kube-proxy-replacement"] ?? "") || settings["enable-node-port"] === "true") {
    const [low, high] = (settings["node-port-range"] ?? "30000,32767").split(",").map(Number);
    return {
      name: "Cilium (node-port-range in ConfigMap kube-system/cilium-config)",
      ranges: [[low, high]],
      fix: `set node-port-range: "${wanted.join(",")}" there (Helm: --set nodePort.range='${wanted.join("\\,")}'), then kubectl -n kube-system rollout restart daemonset/cilium`,
    };
  }
  if (calico?.spec?.bpfEnabled !== true) return undefined;
  return {
    name: "Calico's eBPF (kubeNodePortRanges of FelixConfiguration default)",
    ranges: (calico.spec.kubeNodePortRanges ?? ["30000:32767"]).map((each) => {
      const [low, high = low] = String(each).split(":").map(Number);
      return [low, high];
    }),
    fix: `kubectl patch felixconfiguration default --type merge -p '{"spec":{"kubeNodePortRanges":["${wanted.join(":")}"]}}'`,
  };
}

/** Whether an address lies in one of a list of networks. */
function within(address: string, networks: string[]): boolean {
  const list = new net.BlockList();
  for (const network of networks) {
    const [base, bits] = network.split("/");
    if (net.isIP(base) !== 0) list.addSubnet(base, Number(bits), net.isIPv6(base) ? "ipv6" : "ipv4");
  }
  return list.check(address, net.isIPv6(address) ? "ipv6" : "ipv4");
}

/** What kube-proxy's nodePortAddresses leave out. */
function proxyFindings({ kubeProxy }: NodePortFacts, { nodes = [] }: Seen): { found: string; silent: "none" | "some" | "all" }[] {
  const { mode, nodePortAddresses } = yaml(kubeProxy?.data?.["config.conf"]);
  const given = Array.isArray(nodePortAddresses) ? nodePortAddresses.map(String) : [];
  // What nftables takes where none are given.
  const networks = given.length === 0 && mode === "nftables" ? ["primary"] : given;
  if (networks.length === 0) return [];
  if (networks.includes("primary"))
    return [{ found: `kube-proxy (mode ${typeof mode === "string" && mode !== "" ? mode : "iptables"}) answers node ports on the primary address of each node only`, silent: "none" }];
  const addressed = nodes.map(({ metadata, status }) => ({ name: metadata.name, addresses: (status?.addresses ?? []).map(({ address }) => address).filter((address) => net.isIP(address) !== 0) }));
  const silent = addressed.filter(({ addresses }) => addresses.length > 0 && !addresses.some((address) => within(address, networks)));
  if (silent.length === 0) return [];
  return [{ found: `kube-proxy answers node ports in ${networks.join(", ")} only, without the addresses of ${silent.map(({ name }) => name).join(", ")}`, silent: silent.length === addressed.length ? "all" : "some" }];
}

/**
 * Everything that keeps people from the ports of the ingress, or the ingress from the API server's. What an ingress that is
 * there has already never stops: it may be reached in a way that nobody here knows of.
 * @param server the API server's address in the kubeconfig
 */
export function nodePortFindings(config: Wants, facts: NodePortFacts, seen: Seen, server?: string): Finding[] {
  const { nodePorts } = config;
  const wanted = heldPorts(config);
  if (wanted.length === 0) return [];
  const findings: Finding[] = [];
  const ports = wanted.map(({ port }) => port);
  const ofIngress = wanted.every(({ key }) => key.startsWith("ingress.")) ? "of the ingress" : "of the platform";
  const held = (port: number) => seen.services?.some(({ metadata, spec }) => wanted.some((each) => each.port === port && each.namespace === metadata.namespace) && spec?.ports?.some(({ nodePort }) => nodePort === port)) ?? false;
  const api = apiPorts(facts, seen, server);
  for (const { key, port, namespace } of wanted) {
    const words = api.get(port);
    if (words !== undefined)
      findings.push({ key, found: `${port}, ${words}`, expected: "another port than the API server's: as a node port it would cut the API off", fix: `pulumi config set --path ${key} <port>`, level: "stop" });
    const others = hostPorts(facts, namespace, port);
    if (others.length > 0)
      findings.push({
        key, found: `${port}, which pods of ${listed(others)} have as hostPort`, expected: "a port that nothing else of the nodes has",
        fix: `${key.startsWith("ingress.") ? "share that controller: pulumi config set --path ingress.controller none; or " : ""}take the port from it, or choose another ${key}`, level: held(port) ? "warn" : "stop",
      });
  }

  const plane = dataPlane(facts, (nodePorts && rangeEnds(nodePorts.range)) ?? [Math.min(30000, ...ports), Math.max(32767, ...ports)]);
  const outside = ports.filter((port) => plane && !plane.ranges.some(([from, to]) => port >= from && port <= to));
  if (plane && outside.length > 0)
    findings.push({
      key: "nodePortRange", found: `${plane.name} serves node ports ${plane.ranges.map((range) => range.join("-")).join(", ")}, without ${listed(outside)} ${ofIngress}`,
      expected: "a range of its own that holds them, beside the API server's", fix: plane.fix, level: outside.every(held) ? "warn" : "stop",
    });
  if (!plane)
    for (const { found, silent } of proxyFindings(facts, seen))
      findings.push({
        key: "nodePortRange", found, expected: "all addresses that people come by",
        fix: "nothing where people come by others; else set nodePortAddresses in ConfigMap kube-system/kube-proxy ([0.0.0.0/0, ::/0] for all), then kubectl -n kube-system rollout restart daemonset/kube-proxy", level: silent === "none" ? "note" : silent === "all" && !ports.every(held) ? "stop" : "warn",
      });
  return findings;
}
