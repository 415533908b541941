/**
 * Environments side by side on one cluster: what of the cluster another stack, or somebody else, holds already. The cluster
 * would refuse most of it half way through an update, and some not at all; here it is said before anything is made.
 */
import { registryNodeName } from "../components/image-registry";
import { hostsOf, ownPriorities, prefixOf } from "../components/jenkins-master";
import { nodePortsLabel, ownerLabel, partOf, stackLabel } from "../components/ownership";
import { architectures } from "../config/builds";
import { keepsCopies } from "../config/rules";
import { heldPorts, rangeEnds, type PlatformConfig, type Problem } from "../config";

/** An object as far as it is looked at. */
export interface ClusterObject {
  metadata: { name: string; namespace?: string; labels?: Record<string, string>; annotations?: Record<string, string>; deletionTimestamp?: string };
}

/** A pod, as far as its command line goes. */
export interface CommandPod extends ClusterObject {
  spec: { nodeName?: string; containers: { command?: string[]; args?: string[] }[] };
  status?: { conditions?: { type: string; status: string }[] };
}

/** What stands in the cluster; a list that could not be read is undefined, and is not judged. */
export interface Neighbourhood {
  namespaces?: ClusterObject[];
  storageClasses?: (ClusterObject & { provisioner?: string; reclaimPolicy?: string })[];
  priorityClasses?: ClusterObject[];
  ingressClasses?: ClusterObject[];
  ingresses?: (ClusterObject & { spec?: { rules?: { host?: string; http?: { paths?: { path?: string }[] } }[] } })[];
  /** Services of everybody: a node port is taken whoever has it. */
  services?: (ClusterObject & { spec?: { ports?: { nodePort?: number }[] } })[];
  /** The keepers of the agents' caches, of every environment. */
  caches?: (ClusterObject & { spec?: { template?: { spec?: { volumes?: { hostPath?: { path: string } }[] } } } })[];
  /** What leads to an environment's own registry on the nodes, of every environment. */
  registries?: (ClusterObject & { spec?: { template?: { spec?: { containers?: { ports?: { hostPort?: number }[] }[] } } }; status?: { desiredNumberScheduled?: number; numberReady?: number } })[];
  /** Volumes of the platform's backups, of every environment. */
  volumes?: (ClusterObject & { spec?: { hostPath?: { path: string }; claimRef?: { namespace?: string } } })[];
  nodes?: (ClusterObject & { status?: { nodeInfo?: { architecture: string }; addresses?: { type: string; address: string }[] } })[];
  apiServers?: CommandPod[];
}

const labelled = (label: string) => `?labelSelector=${encodeURIComponent(label)}`;
const ours = labelled(Object.entries(partOf)[0].join("="));

/** Where the API server lists each of them. */
export const neighbourPaths: Record<keyof Neighbourhood, string> = {
  namespaces: "/api/v1/namespaces",
  storageClasses: "/apis/storage.k8s.io/v1/storageclasses",
  priorityClasses: "/apis/scheduling.k8s.io/v1/priorityclasses",
  ingressClasses: "/apis/networking.k8s.io/v1/ingressclasses",
  ingresses: "/apis/networking.k8s.io/v1/ingresses",
  services: "/api/v1/services",
  caches: `/apis/apps/v1/daemonsets${labelled("app.kubernetes.io/name=agent-cache")}`,
  registries: `/apis/apps/v1/daemonsets${labelled(`app.kubernetes.io/name=${registryNodeName}`)}`,
  volumes: `/api/v1/persistentvolumes${ours}`,
  nodes: "/api/v1/nodes",
  apiServers: `/api/v1/namespaces/kube-system/pods${labelled("component=kube-apiserver")}`,
};

/** Kubernetes' own range of node ports. */
const defaultRange = "30000-32767";

/** The value of a flag in a pod's command line; undefined where it is not there. Of one that stands twice the last counts. */
export function flagOf({ spec }: Pick<CommandPod, "spec">, flag: string): string | undefined {
  const words = spec.containers.flatMap(({ command = [], args = [] }) => [...command, ...args]);
  return words.filter((word) => word.startsWith(`--${flag}=`)).pop()?.split("=")[1];
}

/** The node-port range in a kube-apiserver's command line; undefined where it has none and serves Kubernetes' own. */
export const servedRange = (pod: Pick<CommandPod, "spec">): string | undefined => flagOf(pod, "service-node-port-range");

type Wants = Pick<PlatformConfig, "domain" | "namespaces" | "storage" | "nodePorts" | "ingress" | "imageBuild" | "imageRegistry" | "imageCache" | "builds" | "controller" | "agentCache" | "backup">;

/** What the checks work on. */
interface View {
  config: Wants;
  /** This stack's name as a label. */
  own: string;
  seen: Neighbourhood;
  /** Whose an object is: undefined for this stack's. */
  foreignOwner(object: ClusterObject): string | undefined;
}

const isOurs = ({ metadata }: ClusterObject) => Object.entries(partOf).every(([key, value]) => metadata.labels?.[key] === value);
const named = ({ metadata }: ClusterObject) => `${metadata.namespace}/${metadata.name}`;
const elsewhere = <T extends ClusterObject>(objects: T[] | undefined, namespace: string): T[] => (objects ?? []).filter(({ metadata }) => metadata.namespace !== namespace);

/** Everything that another environment or somebody else has and this one means to make. */
export function neighbourProblems(config: Wants, stack: string, seen: Neighbourhood): Problem[] {
  const own = stackLabel(stack);
  const home = seen.namespaces?.find(({ metadata }) => metadata.name === config.namespaces.jenkins);
  // Objects of the platform from before they bore a stack's name belong to the environment whose namespace is there.
  const adopts = home !== undefined && isOurs(home) && [undefined, own].includes(home.metadata.labels?.[ownerLabel]);
  const foreignOwner = (object: ClusterObject): string | undefined => {
    const label = object.metadata.labels?.[ownerLabel];
    if (label !== undefined) return label === own ? undefined : `stack ${label}`;
    if (isOurs(object)) return adopts ? undefined : "another environment";
    return "somebody else";
  };
  const view: View = { config, own, seen, foreignOwner };
  return [nameProblems, homeProblems, nodePortProblems, storageProblems, ingressProblems, sharedProblems, architectureProblems].flatMap((check) => check(view));
}

/** Names of the cluster that are another's. */
function nameProblems({ config: { namespaces, storage, ingress, imageBuild, imageRegistry, imageCache, controller }, own, seen, foreignOwner }: View): Problem[] {
  const problems: Problem[] = [];
  /** Reports objects that are there and not this stack's, all of one key together. */
  const taken = (key: string, wanted: [kind: string, objects: ClusterObject[] | undefined, name: string][], fix: string) => {
    const found = wanted.flatMap(([kind, objects, name]) => {
      const object = objects?.find(({ metadata }) => metadata.name === name);
      const owner = object && foreignOwner(object);
      return owner ? [{ what: `${kind} ${name}`, path: `${kind.toLowerCase()}/${name}`, owner, label: object.metadata.labels?.[ownerLabel] }] : [];
    });
    if (found.length === 0) return;
    const labelled = found.filter(({ label }) => label !== undefined);
    const keep = labelled.map(({ path }) => `kubectl label ${path} ${ownerLabel}=${own} --overwrite`).join(" && ");
    problems.push({
      key,
      found: found.map(({ what, owner }) => `${what} of ${owner}`).join(", "),
      expected: "a name that is free, or an object of this stack",
      fix: fix + (labelled.length > 0 ? `; if it is this stack that was called ${labelled[0].label} before: ${keep}` : ""),
    });
  };
  const suffix = own.toLowerCase();
  const builds = [...(imageBuild.builder === "in-cluster" ? [namespaces.builds] : []), ...(imageRegistry ? [imageRegistry.namespace, imageRegistry.nodesNamespace] : []), ...(imageCache ? [imageCache.namespace] : [])];
  const { controller: first, agents: last } = ownPriorities({ controller: namespaces.jenkins, agents: namespaces.agents });
  const priorities = [...(controller.priorityClassName === first ? [first] : []), last];
  const strange = seen.priorityClasses?.find(({ metadata: { name, labels } }) => priorities.includes(name) && labels?.[ownerLabel] === undefined);
  // Another namespace is no remedy where a home lies in this one.
  const kept = strange ? `; or, as for a Jenkins that is there, make that PriorityClass anew under another name for its pods, then kubectl delete priorityclass ${strange.metadata.name}` : "";
  const those = (kind: string, objects: ClusterObject[] | undefined, names: string[]) => names.map((name): [string, ClusterObject[] | undefined, string] => [kind, objects, name]);
  taken("namespace", [...those("Namespace", seen.namespaces, [namespaces.jenkins, namespaces.agents, ...builds]), ...those("PriorityClass", seen.priorityClasses, priorities)], `pulumi config set namespace jenkins-${suffix}${kept}`);
  if (storage.install === "provisioner")
    taken("storageInstall", [["Namespace", seen.namespaces, "openebs"]], "use the provisioner that is there: pulumi config set storageInstall class (and a storageClass of this stack's own)");
  if (storage.install !== "none")
    taken("storageClass", [["StorageClass", seen.storageClasses, storage.className]], `pulumi config set storageClass openebs-${suffix}, or storageInstall none to use the one that is there`);
  if (ingress.install) {
    const share = "share the one that is there: pulumi config set --path ingress.controller none";
    taken("ingress.controller", [["Namespace", seen.namespaces, ingress.namespace]], `${share}; or give this stack its own ingress.namespace, className, httpNodePort and httpsNodePort`);
    taken("ingress.className", [["IngressClass", seen.ingressClasses, ingress.className]], `${share}; or choose another ingress.className`);
  }
  return problems;
}

/** A namespace in config that is not the one in which this stack's home is. */
function homeProblems({ config: { namespaces }, own, seen }: View): Problem[] {
  const former = seen.namespaces?.find(
    ({ metadata: { name, labels, deletionTimestamp } }) =>
      labels?.[ownerLabel] === own && labels["app.kubernetes.io/name"] === "jenkins" && deletionTimestamp === undefined && ![namespaces.jenkins, namespaces.agents].includes(name),
  );
  if (!former) return [];
  return [
    {
      key: "namespace",
      found: `${namespaces.jenkins}, while namespace ${former.metadata.name} is this stack's`,
      expected: "the namespace it has: a home does not move with it",
      fix: `pulumi config set namespace ${former.metadata.name.replace(/-agents$/, "")}; to move, take a backup, pulumi destroy, and restore into what the next up makes (docs/backup.md)`,
    },
  ];
}

/** Node ports that another's Service holds, and a range that is another's or does not hold them. */
function nodePortProblems({ config: { namespaces, ingress, controller, nodePorts }, seen, foreignOwner }: View): Problem[] {
  const problems: Problem[] = [];
  const ownerOf = ({ metadata }: ClusterObject): string | undefined => {
    const namespace = seen.namespaces?.find((each) => each.metadata.name === metadata.namespace);
    return namespace && foreignOwner(namespace);
  };
  const fixOf = (key: string, service: ClusterObject): string => {
    if (key === "controller.agentNodePort") return `pulumi config set --path ${key} <port>`;
    // To share a controller that goes with this very update would be nobody's way in.
    return ownerOf(service) === undefined ? `pulumi config set --path ingress.namespace ${service.metadata.namespace}, where it is now, or another ${key}` : `pulumi config set --path ingress.controller none to share that controller, or another ${key}`;
  };
  const ports = heldPorts({ ingress, controller, namespaces });
  const keys = ports.map(({ key }) => key);
  const ofIngress = keys.includes("controller.agentNodePort") ? "of the platform" : "of the ingress";
  if (ports.length > 0)
    for (const { key, port, namespace } of ports)
      for (const service of elsewhere(seen.services, namespace).filter(({ spec }) => spec?.ports?.some(({ nodePort }) => nodePort === port)))
        problems.push({
          key,
          found: `${port}, which Service ${named(service)} of ${ownerOf(service) ?? "this stack"} holds`,
          expected: "a node port that is free",
          fix: fixOf(key, service),
        });

  const owners = (seen.namespaces ?? []).filter(({ metadata }) => metadata.labels?.[nodePortsLabel] !== undefined);
  const other = owners.find((namespace) => foreignOwner(namespace) !== undefined);
  if (nodePorts && other)
    problems.push({
      key: "nodePortRange",
      found: `${nodePorts.range}, while ${foreignOwner(other)} (namespace ${other.metadata.name}) sets the range of this cluster`,
      expected: "none: one environment of a cluster sets the range",
      fix: "pulumi config set nodePortRange none && pulumi config rm controlPlane",
    });
  // A node that is down keeps nobody from going on with the others.
  const ready = ({ status }: CommandPod) => status?.conditions?.some(({ type, status: value }) => type === "Ready" && value === "True") ?? false;
  const serving = [...new Set((seen.apiServers ?? []).filter(ready).flatMap(({ spec }) => spec.nodeName ?? []))].sort();
  const known = nodePorts?.access.nodes ?? [];
  if (nodePorts && serving.length > known.length)
    problems.push({
      key: "controlPlane.nodes",
      found: `${known.map(({ name }) => name).join(", ")}, while API servers run on ${serving.join(", ")}`,
      expected: "every control-plane node: an API server with another range refuses the Services that the others allow",
      fix: "add the missing ones to controlPlane.nodes, with host and hostKey",
    });
  if (nodePorts || ports.length === 0) return problems;

  // Who set the range so far takes it along.
  const givesUp = owners.some(({ metadata }) => metadata.name === namespaces.jenkins);
  for (const pod of seen.apiServers ?? []) {
    const range = (givesUp ? undefined : servedRange(pod)) ?? defaultRange;
    const [low, high] = rangeEnds(range) ?? [0, 65535];
    const outside = ports.map(({ port }) => port).filter((port) => port < low || port > high);
    if (outside.length === 0) continue;
    problems.push({
      key: "nodePortRange",
      found: `none, while the API server${pod.spec.nodeName ? ` on ${pod.spec.nodeName}` : ""} ${givesUp ? "goes back to" : "allows"} ${range}, without ${outside.join(" and ")} ${ofIngress}`,
      expected: `a range in force that holds ${ofIngress === "of the ingress" ? "both ports of the ingress" : "them"}`,
      fix: `bring up the environment that sets the range first; or set ${ofIngress === "of the ingress" ? "ingress.httpNodePort and httpsNodePort" : keys.join(", ")} within ${range}, ingress.controller none, or nodePortRange 80-32767 here`,
    });
  }
  return problems;
}

/** A StorageClass or a provisioner that config takes to be there. */
function storageProblems({ config: { storage, backup }, seen: { storageClasses } }: View): Problem[] {
  if (!storageClasses) return [];
  const copies = storageClasses.find(({ metadata, reclaimPolicy }) => reclaimPolicy === "Retain" && metadata.name === backup?.verifyVolume.storageClassName);
  // Of the stack's own class the config tells what it will be.
  if (copies && (storage.install === "none" || copies.metadata.name !== storage.className)) return [{ key: "backup.verifyVolume.storageClass", found: `${copies.metadata.name}, whose reclaimPolicy is Retain`, ...keepsCopies }];
  const names = storageClasses.map(({ metadata }) => metadata.name);
  const served = storageClasses.filter(({ metadata, provisioner }) => provisioner === "openebs.io/local" && metadata.name !== storage.className);
  if (storage.install === "none" && !names.includes(storage.className))
    return [
      {
        key: "storageClass", found: storage.className, expected: `a StorageClass that is there (${names.join(", ") || "there is none"}), since storageInstall is none`,
        fix: `correct the name, or pulumi config set storageInstall ${served.length > 0 ? "class" : "provisioner"}`,
      },
    ];
  if (storage.install === "class" && served.length === 0)
    return [
      {
        key: "storageInstall", found: "class, and no other StorageClass of openebs.io/local in the cluster", expected: "a provisioner that another environment runs; without one no volume is ever made",
        fix: "pulumi config set storageInstall provisioner, or bring up the environment that runs it first",
      },
    ];
  return [];
}

/** A class that nobody serves, or nobody any more: the Ingress would be made, and Jenkins would answer nowhere. */
function ingressProblems({ config: { ingress }, seen: { ingressClasses }, foreignOwner }: View): Problem[] {
  const names = ingressClasses?.filter((each) => foreignOwner(each) !== undefined).map(({ metadata }) => metadata.name);
  if (ingress.install || ingress.controller === "gateway" || !names || names.includes(ingress.className)) return [];
  return [
    {
      key: "ingress.className", found: ingressClasses?.some(({ metadata }) => metadata.name === ingress.className) ? `${ingress.className}, this stack's own, which goes with its controller` : ingress.className, expected: `an IngressClass that is there (${names.join(", ") || "there is none"}), since ingress.controller is none`,
      fix: "correct the name, bring up the controller that serves it first, or pulumi config set --path ingress.controller traefik (in place of ingress.install, where that is said)",
    },
  ];
}

/** Architecture of each node. */
export const nodeArchitectures = ({ nodes = [] }: Neighbourhood): string[] => nodes.flatMap(({ status }) => status?.nodeInfo?.architecture ?? []);

/** Addresses of the control-plane nodes: an API server listens on all of its node's, those of the other family included. */
export const controlPlaneAddresses = ({ nodes = [] }: Neighbourhood): string[] =>
  nodes.filter(({ metadata }) => metadata.labels && "node-role.kubernetes.io/control-plane" in metadata.labels).flatMap(({ status }) => (status?.addresses ?? []).filter(({ type }) => type === "InternalIP").map(({ address }) => address));

/** Images that run on none of the nodes, or of which nobody can say where they will. */
function architectureProblems({ config: { imageBuild, builds }, seen }: View): Problem[] {
  const there = [...new Set(nodeArchitectures(seen))].sort();
  const builtFor = architectures(imageBuild, there);
  if (there.length === 0 || Object.keys(builds).length === 0 || builtFor?.some((each) => there.includes(each))) return [];
  return [
    {
      key: "imageBuild.platforms", found: `${builtFor ? `images for ${builtFor.join(" and ")}` : "none"}, while the nodes are ${there.join(" and ")}`,
      expected: builtFor ? "the platform of some nodes" : "the platforms to build for, since a pod may build on either kind of node", fix: `pulumi config set --path 'imageBuild.platforms[0]' linux/${there[0]}`,
    },
  ];
}

/** What the cluster would let two environments share or fight for without a word: a host name, a folder of caches, a port of the nodes' loopback, a folder of backups. */
function sharedProblems({ config: { domain, ingress, namespaces, agentCache, imageRegistry, backup }, seen }: View): Problem[] {
  const problems: Problem[] = [];
  const path = prefixOf(ingress.externalUrl) || "/";
  const names = hostsOf({ domain, hosts: ingress.hosts }).map(({ name }, i) => ({ name, key: i === 0 ? "domain" : `ingress.hosts[${i - 1}].name` }));
  for (const { name, key } of names)
    for (const found of elsewhere(seen.ingresses, namespaces.jenkins).filter(({ spec }) => spec?.rules?.some(({ host, http }) => host === name && (http?.paths ?? [{ path: "/" }]).some((each) => (each.path ?? "/") === path))))
      problems.push({ key, found: `${name}, which Ingress ${named(found)} serves already`, expected: "a host name of this environment's own", fix: key === "domain" ? "pulumi config set domain <name>" : "name another host, or remove it there" });
  const folders = ({ spec }: NonNullable<Neighbourhood["caches"]>[number]) => (spec?.template?.spec?.volumes ?? []).map(({ hostPath }) => hostPath?.path);
  for (const found of elsewhere(seen.caches, namespaces.agents).filter((cache) => agentCache && folders(cache).includes(agentCache.path)))
    problems.push({
      key: "agentCache.path", found: `${agentCache?.path}, which DaemonSet ${named(found)} keeps`, expected: "a folder of this environment's own, so that no build takes what another's put there",
      fix: "pulumi config set --path agentCache.path <folder>",
    });
  const { port, nodesNamespace } = imageRegistry ?? {};
  for (const found of elsewhere(port === undefined ? [] : seen.registries, nodesNamespace ?? "").filter(({ spec }) => spec?.template?.spec?.containers?.some(({ ports }) => ports?.some(({ hostPort }) => hostPort === port))))
    problems.push({ key: "registry.port", found: `${port}, which DaemonSet ${named(found)} has on every node`, expected: "a port of this environment's own", fix: `pulumi config set --path registry.port ${port! < 65535 ? port! + 1 : port! - 1}` });
  const plain = (folder: string | undefined) => folder?.replace(/\/+$/, "");
  for (const key of ["repository", "keysRepository"] as const)
    for (const { spec } of seen.volumes ?? []) {
      if (!backup || !spec?.hostPath || spec.claimRef?.namespace === namespaces.jenkins || plain(spec.hostPath.path) !== plain(backup[key])) continue;
      problems.push({
        key: `backup.${key}`, found: `${backup[key]}, where namespace ${spec.claimRef?.namespace} keeps its backups`, expected: "a repository of this environment's own",
        fix: `pulumi config set --path backup.${key} <folder>`,
      });
    }
  return problems;
}
