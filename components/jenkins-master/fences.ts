import * as net from "node:net";
import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { bareHost, singleAddress, usual } from "../../config/pieces";
import type { JenkinsMasterArgs } from "./args";
import { ownLabels } from "../ownership";
import type { Proxy } from "../surroundings";
import { buildCacheLabels } from "./build-cache";
import { agentLabels, controllerLabels, labels, namespacesOf, ownPriorities, Place } from "./place";

/** Who goes first where a node runs short: of the PriorityClasses that the pods ask for, those of the component's own. */
export function makePriorities({ name, parent }: Place, args: JenkinsMasterArgs): k8s.scheduling.v1.PriorityClass[] {
  const own = ownPriorities(namespacesOf(args));
  const priority = (part: string, objectName: string, wanted: string | undefined, content: Omit<k8s.scheduling.v1.PriorityClassArgs, "metadata">) =>
    wanted !== objectName
      ? []
      : [new k8s.scheduling.v1.PriorityClass(`${name}-${part}-priority`, { metadata: { name: objectName, labels: { ...labels, ...ownLabels() } }, ...content }, { ...parent, replaceOnChanges: ["value", "preemptionPolicy"], deleteBeforeReplace: true })];
  return [
    ...priority("controller", own.controller, args.controller.priorityClassName, { value: 1_000_000, description: "Jenkins' controller: evicted last, and other pods make room for it" }),
    // Below the 0 of pods without a class, and not below the -10 under which a cluster autoscaler adds no node for a pod.
    ...priority("agents", own.agents, args.agents.settings.priorityClassName, { value: -1, preemptionPolicy: "Never", description: "Jenkins' agents: evicted first, and no pod makes room for them" }),
  ];
}

/** Nobody ends a running build: no drain and no autoscaler evicts the controller or an agent. */
export function makeDisruptionBudgets({ name, parent, here, there }: Place): void {
  new k8s.policy.v1.PodDisruptionBudget(
    `${name}-disruption-budget`,
    {
      metadata: { name: "jenkins", namespace: here, labels },
      // One replica: a drain waits until a person moves the controller, instead of ending it under running builds.
      spec: { minAvailable: 1, selector: { matchLabels: controllerLabels } },
    },
    parent,
  );
  new k8s.policy.v1.PodDisruptionBudget(
    `${name}-agents-disruption-budget`,
    {
      metadata: { name: "jenkins-agents", namespace: there, labels },
      // More than there can ever be: no running agent may be evicted, so that a drain waits for its build. Agents are pods
      // without a controller, for which Kubernetes takes a whole minAvailable only.
      spec: { minAvailable: 1_000_000, selector: { matchLabels: agentLabels } },
    },
    parent,
  );
}

/** Every address of both families but some: a block takes exceptions of its own family alone. */
const worldWithout = (cidrs: string[]) =>
  ["0.0.0.0/0", "::/0"].map((cidr) => {
    const except = cidrs.filter((each) => each.includes(":") === cidr.includes(":"));
    return { ipBlock: { cidr, ...(except.length > 0 && { except }) } };
  });

/** The way to a proxy that the world's addresses may not stand for: on a node of the API server, or in the cluster behind a Service, whose pods may listen on another port. */
function proxyRules(proxy: Proxy | undefined): k8s.types.input.networking.v1.NetworkPolicyEgressRule[] {
  const urls = proxy ? [...new Set([proxy.http, proxy.https])].map((url) => new URL(url)) : [];
  return urls.flatMap(({ hostname, port }): k8s.types.input.networking.v1.NetworkPolicyEgressRule[] => {
    const address = bareHost(hostname);
    const [, namespace] = /^[^.]+\.([^.]+)\.svc(\.|$)/.exec(hostname) ?? [];
    if (namespace !== undefined) return [{ to: [{ namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": namespace } } }] }];
    return net.isIP(address) ? [{ to: [{ ipBlock: { cidr: singleAddress(address) } }], ports: [{ port: Number(port || 80), protocol: "TCP" }] }] : [];
  });
}

/** Who may connect to the controller, and to whom agents may. */
export function makeNetworkPolicies({ name, parent, here, there }: Place, { address, access, agents, controller, monitoring, surroundings }: JenkinsMasterArgs): void {
  if (!(access.networkPolicies ?? true)) return;
  const from = (namespace: pulumi.Input<string>) => ({ namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": namespace } } });
  const tcp = (...ports: number[]) => ports.map((port) => ({ port, protocol: "TCP" }));
  new k8s.networking.v1.NetworkPolicy(
    `${name}-controller-policy`,
    {
      metadata: { name: "jenkins", namespace: here, labels },
      spec: {
        podSelector: { matchLabels: controllerLabels },
        policyTypes: ["Ingress"],
        ingress: [
          { from: [from(address.ingressNamespace ?? usual.ingressNamespace)], ports: tcp(8080) },
          { from: [{ ...from(there), podSelector: { matchLabels: agentLabels } }], ports: tcp(8080, 50000) },
          // Agents outside come from anywhere, and mostly with a node's address.
          ...(controller.agentNodePort ? [{ ports: tcp(50000) }] : []),
          ...(monitoring?.prometheusNamespace ? [{ from: [from(monitoring.prometheusNamespace)], ports: tcp(8080) }] : []),
        ],
      },
    },
    parent,
  );
  new k8s.networking.v1.NetworkPolicy(
    `${name}-agents-policy`,
    {
      metadata: { name: "jenkins-agents", namespace: there, labels },
      spec: {
        // Every pod of the namespace: nobody connects to an agent, and no agent connects to the API server.
        podSelector: {},
        policyTypes: ["Ingress", "Egress"],
        egress: [
          { to: [{ ...from("kube-system"), podSelector: { matchLabels: { "k8s-app": "kube-dns" } } }], ports: [{ port: 53, protocol: "UDP" }, ...tcp(53)] },
          { to: [{ ...from(here), podSelector: { matchLabels: controllerLabels } }], ports: tcp(8080, 50000) },
          // Where the network plugin takes no pod for an address of the world.
          ...(agents.buildCache ? [{ to: [{ podSelector: { matchLabels: buildCacheLabels } }], ports: tcp(8080) }] : []),
          { to: pulumi.output(access.apiServerCidrs ?? []).apply(worldWithout) },
          ...proxyRules(surroundings?.proxy),
        ],
      },
    },
    parent,
  );
}
