/** What keeps people from the ports of the ingress, or the ingress from the API server's, as the cluster tells it. */
import { nodePortFindings, readNodePorts, throughKubectl, type NodePortFacts } from "../../checks/node-ports";
import { partOf } from "../../components/ownership";
import { parseConfig } from "../../config";
import { environment, stackConfig } from "./mocks";

const { config } = parseConfig(stackConfig("sandbox"), environment);
const wants = (ingress: Partial<typeof config.ingress> = {}, nodePorts = config.nodePorts, controller: { agentNodePort?: number } = {}) => ({ nodePorts, controller, namespaces: config.namespaces, ingress: { ...config.ingress, ...ingress } });
const node = (name: string, ...addresses: string[]) => ({ metadata: { name }, status: { addresses: addresses.map((address) => ({ type: "InternalIP", address })) } });
const nodes = [node("a", "10.0.0.1", "2001:db8::1"), node("b", "10.0.0.2")];
const apiServer = (...flags: string[]) => ({ metadata: { name: "kube-apiserver-a" }, spec: { nodeName: "a", containers: [{ command: ["kube-apiserver", ...flags] }] } });
const service = { metadata: { name: "controller", namespace: config.ingress.namespace }, spec: { ports: [{ nodePort: 80 }, { nodePort: 443 }] } };
const look = (facts: NodePortFacts, seen: Parameters<typeof nodePortFindings>[2] = {}, server?: string, ingress = {}) => nodePortFindings(wants(ingress), facts, { nodes, ...seen }, server);

test("a kubeadm cluster with kube-proxy has nothing to say, and neither has one that says nothing", () => {
  const kubeadm = { data: { ClusterConfiguration: "controlPlaneEndpoint: api.example.com:443\n" } };
  const kubeProxy = { data: { "config.conf": "mode: \"\"\nnodePortAddresses: null\n" } };
  expect(look({ kubeadm, kubeProxy }, { apiServers: [apiServer("--secure-port=6443")], services: [service] }, "https://api.example.com")).toEqual([]);
  expect(nodePortFindings(wants(), {}, {})).toEqual([]);
  expect(look({ kubeadm: { data: { ClusterConfiguration: ": no\n- yaml" } }, kubeProxy: { data: {} } })).toEqual([]);
});

describe("the API server's port", () => {
  test.each<[string, NodePortFacts, Parameters<typeof nodePortFindings>[2], string | undefined, string]>([
    ["its flag", {}, { apiServers: [apiServer("--secure-port=443")] }, undefined, "443, the API server's own on a (--secure-port)"],
    ["the kubeconfig, on a node", {}, {}, "https://10.0.0.1", "443, where the kubeconfig reaches"],
    ["the kubeconfig, on a node by IPv6", {}, {}, "https://[2001:db8::1]:443/", "443, where the kubeconfig reaches"],
    ["kubeadm-config, on a node", { kubeadm: { data: { ClusterConfiguration: "controlPlaneEndpoint: b:443\n" } } }, {}, undefined, "443, where kubeadm-config (controlPlaneEndpoint)"],
  ])("by %s is no port of the ingress, also where a Service holds it", (_, facts, seen, server, found) => {
    for (const services of [[], [service]])
      expect(look(facts, { ...seen, services }, server)).toEqual([expect.objectContaining({ key: "ingress.httpsNodePort", level: "stop", found: expect.stringContaining(found), fix: expect.stringContaining("ingress.httpsNodePort") })]);
  });

  test("without the flag or the port is Kubernetes' own", () => {
    expect(look({}, { apiServers: [apiServer()] }, undefined, { httpsNodePort: 6443 })).toEqual([expect.objectContaining({ key: "ingress.httpsNodePort" })]);
    expect(look({ kubeadm: { data: { ClusterConfiguration: "controlPlaneEndpoint: 10.0.0.2\n" } } }, {}, undefined, { httpNodePort: 6443 })).toEqual([expect.objectContaining({ key: "ingress.httpNodePort" })]);
  });

  test("is nobody's concern where another ingress serves", () => {
    expect(look({}, { apiServers: [apiServer("--secure-port=443")] }, "https://10.0.0.1", { install: false })).toEqual([]);
  });
});

describe("pods with a port of the host", () => {
  const workload = (name: string, hostPort: number, over: object = {}, labels = {}) => ({ metadata: { name, namespace: name, labels }, spec: { template: { spec: { containers: [{ ports: [{ hostPort, ...over }] }] } } } });

  test("stop a new platform; one that is there is warned", () => {
    const facts = { daemonSets: { items: [workload("edge", 80)] }, deployments: { items: [workload("web", 443)] } };
    expect(look(facts).map(({ key, found, level }) => [key, found, level])).toEqual([
      ["ingress.httpNodePort", "80, which pods of DaemonSet edge/edge have as hostPort", "stop"], ["ingress.httpsNodePort", "443, which pods of Deployment web/web have as hostPort", "stop"],
    ]);
    expect(look(facts, { services: [service] }).map(({ level }) => level)).toEqual(["warn", "warn"]);
  });

  test("do not count with another port or protocol, without pods, in the ingress' own namespace or of the platform", () => {
    const idle = workload("idle", 80);
    const items = [workload("a", 8080), workload("b", 443, { protocol: "UDP" }), workload(config.ingress.namespace, 80), workload("c", 80, {}, partOf), { ...idle, spec: { ...idle.spec, replicas: 0 } }];
    expect(look({ deployments: { items } })).toEqual([]);
  });
});

test("the port of agents is looked at as those of the ingress, also without an ingress of the platform's own", () => {
  const facts = { cilium: { data: { "kube-proxy-replacement": "true" } }, daemonSets: { items: [{ metadata: { name: "edge", namespace: "edge" }, spec: { template: { spec: { containers: [{ ports: [{ hostPort: 2000 }] }] } } } }] } };
  const look = (services: (typeof service)[] = []) => nodePortFindings(wants({ install: false }, config.nodePorts, { agentNodePort: 2000 }), facts, { nodes, services });
  expect(look().map(({ key, found, level }) => [key, found, level])).toEqual([
    ["controller.agentNodePort", "2000, which pods of DaemonSet edge/edge have as hostPort", "stop"],
    ["nodePortRange", expect.stringContaining("without 2000 of the platform"), "stop"],
  ]);
  const own = { metadata: { name: "jenkins-agent", namespace: config.namespaces.jenkins }, spec: { ports: [{ nodePort: 2000 }] } };
  expect(look([own]).map(({ level }) => level)).toEqual(["warn", "warn"]);
});

describe("the network's own range", () => {
  test.each<[string, NodePortFacts, string, string]>([
    ["Cilium's default", { cilium: { data: { "kube-proxy-replacement": "true" } } }, "30000-32767, without 80 and 443", 'node-port-range: "80,32767"'],
    ["Cilium's own", { cilium: { data: { "kube-proxy-replacement": "strict", "node-port-range": "100,32767" } } }, "100-32767, without 80", "--set nodePort.range='80\\,32767'"],
    ["Calico's default", { calico: { spec: { bpfEnabled: true } } }, "30000-32767, without 80 and 443", '{"spec":{"kubeNodePortRanges":["80:32767"]}}'],
    ["Calico's own", { calico: { spec: { bpfEnabled: true, kubeNodePortRanges: [80, "30000:32767"] } } }, "80-80, 30000-32767, without 443", "kubectl patch felixconfiguration default"],
  ])("%s is said with what to set", (_, facts, found, fix) => {
    expect(look(facts)).toEqual([expect.objectContaining({ key: "nodePortRange", level: "stop", found: expect.stringContaining(found), fix: expect.stringContaining(fix) })]);
    expect(look(facts, { services: [service] })).toEqual([expect.objectContaining({ level: "warn" })]);
  });

  test.each<[string, NodePortFacts]>([
    ["Cilium beside kube-proxy", { cilium: { data: { "kube-proxy-replacement": "false" } } }],
    ["Cilium with the range", { cilium: { data: { "kube-proxy-replacement": "true", "node-port-range": "80,32767" } } }],
    ["Calico without eBPF", { calico: { spec: { bpfEnabled: false } } }],
    ["Calico with the range", { calico: { spec: { bpfEnabled: true, kubeNodePortRanges: ["80:32767"] } } }],
    ["kube-proxy's addresses where Cilium serves", { cilium: { data: { "kube-proxy-replacement": "true", "node-port-range": "80,32767" } }, kubeProxy: { data: { "config.conf": "mode: nftables\n" } } }],
  ])("%s is in order", (_, facts) => expect(look(facts)).toEqual([]));
});

describe("kube-proxy's addresses", () => {
  const proxy = (text: string) => look({ kubeProxy: { data: { "config.conf": text } } });

  test.each([["primary", "mode: iptables\nnodePortAddresses: [primary]\n"], ["nftables' default", "mode: nftables\n"]])("%s: only one address of each node answers", (_, text) => {
    expect(proxy(text)).toEqual([expect.objectContaining({ level: "note", found: expect.stringMatching(/kube-proxy \(mode (iptables|nftables)\).*primary address of each node only/) })]);
  });

  test("without those of nodes are named; without all of them they stop a new platform", () => {
    expect(proxy("nodePortAddresses: [10.0.0.1/32]\n")).toEqual([expect.objectContaining({ level: "warn", found: expect.stringMatching(/10\.0\.0\.1\/32 only, without the addresses of b$/) })]);
    expect(proxy("nodePortAddresses: [127.0.0.0/8]\n")).toEqual([expect.objectContaining({ level: "stop", fix: expect.stringContaining("[0.0.0.0/0, ::/0]") })]);
    expect(proxy("nodePortAddresses: [10.0.0.0/24, '2001:db8::/64']\n")).toEqual([]);
  });
});

test("is read through kubectl, and what is not there is undefined", async () => {
  const asked: string[] = [];
  const facts = await readNodePorts(throughKubectl(async (...args) => {
    asked.push(args.join(" "));
    return args[2].endsWith("cilium-config") ? '{"data":{"a":"b"}}' : Promise.reject(new Error("NotFound"));
  }));
  expect(facts.cilium).toEqual({ data: { a: "b" } });
  expect(facts.kubeProxy).toBeUndefined();
  expect(asked).toContain("get --raw /apis/crd.projectcalico.org/v1/felixconfigurations/default");
});
