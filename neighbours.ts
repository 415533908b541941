/**
 * Environments side by side on one cluster: what of the cluster another stack, or somebody else, holds already. The cluster
 * would refuse most of it half way through an update, and some not at all; here it is said before anything is made.
 */
import { nodePortsLabel, ownerLabel, partOf, stackLabel } from "./components/ownership";
import { rangeEnds, type PlatformConfig, type Problem } from "./config";

/** An object as far as it is looked at. */
export interface ClusterObject {
  metadata: { name: string; namespace?: string; labels?: Record<string, string>; annotations?: Record<string, string>; deletionTimestamp?: string };
}

/** A pod, as far as its command line goes. */
export interface CommandPod extends ClusterObject {
  spec: { nodeName?: string; containers: { command?: string[]; args?: string[] }[] };
}

/** What stands in the cluster; a list that could not be read is undefined, and is not judged. */
export interface Neighbourhood {
  namespaces?: ClusterObject[];
  storageClasses?: (ClusterObject & { provisioner?: string })[];
  ingressClasses?: ClusterObject[];
  ingresses?: (ClusterObject & { spec?: { rules?: { host?: string }[] } })[];
  /** Services of the platform, of every environment. */
  services?: (ClusterObject & { spec?: { ports?: { nodePort?: number }[] } })[];
  /** The keepers of the agents' caches, of every environment. */
  caches?: (ClusterObject & { spec?: { template?: { spec?: { volumes?: { hostPath?: { path: string } }[] } } } })[];
  /** Volumes of the platform's backups, of every environment. */
  volumes?: (ClusterObject & { spec?: { hostPath?: { path: string }; claimRef?: { namespace?: string } } })[];
  apiServers?: CommandPod[];
}

const labelled = (label: string) => `?labelSelector=${encodeURIComponent(label)}`;
const ours = labelled(Object.entries(partOf)[0].join("="));

/** Where the API server lists each of them. */
export const neighbourPaths: Record<keyof Neighbourhood, string> = {
  namespaces: "/api/v1/namespaces",
  storageClasses: "/apis/storage.k8s.io/v1/storageclasses",
  ingressClasses: "/apis/networking.k8s.io/v1/ingressclasses",
  ingresses: "/apis/networking.k8s.io/v1/ingresses",
  services: `/api/v1/services${ours}`,
  caches: `/apis/apps/v1/daemonsets${labelled("app.kubernetes.io/name=agent-cache")}`,
  volumes: `/api/v1/persistentvolumes${ours}`,
  apiServers: `/api/v1/namespaces/kube-system/pods${labelled("component=kube-apiserver")}`,
};

/** Kubernetes' own range of node ports. */
const defaultRange = "30000-32767";

/** The node-port range in a kube-apiserver's command line; undefined where it has none and serves Kubernetes' own. */
export function servedRange({ spec }: Pick<CommandPod, "spec">): string | undefined {
  const words = spec.containers.flatMap(({ command = [], args = [] }) => [...command, ...args]);
  // Of a flag that stands twice the last counts.
  return words.filter((word) => word.startsWith("--service-node-port-range=")).pop()?.split("=")[1];
}

type Wants = Pick<PlatformConfig, "domain" | "namespaces" | "storage" | "nodePorts" | "ingress" | "imageBuild" | "agentCache" | "backup">;

/** Everything that another environment or somebody else has and this one means to make. */
export function neighbourProblems(config: Wants, stack: string, seen: Neighbourhood): Problem[] {
  const own = stackLabel(stack);
  const isOurs = ({ metadata }: ClusterObject) => Object.entries(partOf).every(([key, value]) => metadata.labels?.[key] === value);
  const home = seen.namespaces?.find(({ metadata }) => metadata.name === config.namespaces.jenkins);
  // Objects of the platform from before they bore a stack's name belong to the environment whose namespace is there.
  const adopts = home !== undefined && isOurs(home) && [undefined, own].includes(home.metadata.labels?.[ownerLabel]);
  /** Whose an object is: undefined for this stack's. */
  const foreignOwner = (object: ClusterObject): string | undefined => {
    const label = object.metadata.labels?.[ownerLabel];
    if (label !== undefined) return label === own ? undefined : `stack ${label}`;
    if (isOurs(object)) return adopts ? undefined : "another environment";
    return "somebody else";
  };

  const problems: Problem[] = [];
  /** Reports objects that are there and not this stack's, all of one key together. */
  const taken = (key: string, wanted: [kind: string, objects: ClusterObject[] | undefined, name: string][], fix: string) => {
    const found = wanted.flatMap(([kind, objects, name]) => {
      const object = objects?.find(({ metadata }) => metadata.name === name);
      const owner = object && foreignOwner(object);
      return owner ? [{ what: `${kind} ${name}`, path: `${kind.toLowerCase()}/${name}`, owner, label: object.metadata.labels?.[ownerLabel] }] : [];
    });
    if (found.length === 0) return;
    const renamed = found.filter(({ label }) => label !== undefined);
    problems.push({
      key,
      found: found.map(({ what, owner }) => `${what} of ${owner}`).join(", "),
      expected: "a name that is free, or an object of this stack",
      fix: fix + (renamed.length > 0 ? `; if it is this stack that was called ${renamed[0].label} before: ${renamed.map(({ path }) => `kubectl label ${path} ${ownerLabel}=${own} --overwrite`).join(" && ")}` : ""),
    });
  };

  const { namespaces, storage, ingress } = config;
  const builds = config.imageBuild.builder === "in-cluster" ? [namespaces.builds] : [];
  taken("namespace", [namespaces.jenkins, namespaces.agents, ...builds].map((name) => ["Namespace", seen.namespaces, name]), `pulumi config set namespace jenkins-${own.toLowerCase()}`);
  if (storage.install === "provisioner")
    taken("storageInstall", [["Namespace", seen.namespaces, "openebs"]], "use the provisioner that is there: pulumi config set storageInstall class (and a storageClass of this stack's own)");
  if (storage.install !== "none")
    taken("storageClass", [["StorageClass", seen.storageClasses, storage.className]], `pulumi config set storageClass openebs-${own.toLowerCase()}, or storageInstall none to use the one that is there`);
  if (ingress.install) {
    const share = "share the one that is there: pulumi config set --path ingress.install false";
    taken("ingress.install", [["Namespace", seen.namespaces, ingress.namespace]], `${share}; or give this stack its own ingress.namespace, className, httpNodePort and httpsNodePort`);
    taken("ingress.className", [["IngressClass", seen.ingressClasses, ingress.className]], `${share}; or choose another ingress.className`);
  }

  const say = (key: string, found: string, expected: string, fix: string) => void problems.push({ key, found, expected, fix });
  const named = ({ metadata }: ClusterObject) => `${metadata.namespace}/${metadata.name}`;
  const ownerOfPart = ({ metadata }: ClusterObject): string => {
    const namespace = seen.namespaces?.find((each) => each.metadata.name === metadata.namespace);
    return (namespace && foreignOwner(namespace)) ?? "this stack";
  };
  const elsewhere = <T extends ClusterObject>(objects: T[] | undefined, namespace: string): T[] => (objects ?? []).filter(({ metadata }) => metadata.namespace !== namespace);

  const former = seen.namespaces?.find(
    ({ metadata: { name, labels, deletionTimestamp } }) =>
      labels?.[ownerLabel] === own && labels["app.kubernetes.io/name"] === "jenkins" && deletionTimestamp === undefined && ![namespaces.jenkins, namespaces.agents].includes(name),
  );
  if (former)
    say("namespace", `${namespaces.jenkins}, while namespace ${former.metadata.name} is this stack's`, "the namespace it has: its home would stay behind, or go with it", `pulumi config set namespace ${former.metadata.name.replace(/-agents$/, "")}; to move, take a backup, pulumi destroy, and restore into what the next up makes (docs/backup.md)`);

  if (ingress.install)
    for (const key of ["httpNodePort", "httpsNodePort"] as const)
      for (const service of elsewhere(seen.services, ingress.namespace).filter(({ spec }) => spec?.ports?.some(({ nodePort }) => nodePort === ingress[key])))
        say(`ingress.${key}`, `${ingress[key]}, which Service ${named(service)} of ${ownerOfPart(service)} holds`, "a node port that is free", `pulumi config set --path ingress.install false to share that controller, or another ingress.${key}`);

  const owner = seen.namespaces?.find((namespace) => namespace.metadata.labels?.[nodePortsLabel] !== undefined && foreignOwner(namespace) !== undefined);
  if (config.nodePorts && owner)
    say("nodePortRange", `${config.nodePorts.range}, while ${foreignOwner(owner)} (namespace ${owner.metadata.name}) sets the range of this cluster`, "none: one environment of a cluster sets the range", "pulumi config set nodePortRange none && pulumi config rm controlPlane");
  if (!config.nodePorts && ingress.install)
    for (const pod of seen.apiServers ?? []) {
      const served = servedRange(pod) ?? defaultRange;
      const [low, high] = rangeEnds(served) ?? [0, 65535];
      const outside = [ingress.httpNodePort, ingress.httpsNodePort].filter((port) => port < low || port > high);
      if (outside.length > 0)
        say("nodePortRange", `none, while the API server${pod.spec.nodeName ? ` on ${pod.spec.nodeName}` : ""} allows ${served}, without ${outside.join(" and ")} of the ingress`, "a range in force that holds both ports of the ingress",
          `bring up the environment that sets the range first; or set ingress.httpNodePort and httpsNodePort within ${served}, ingress.install false, or nodePortRange 80-32767 here`);
    }

  if (storage.install === "none" && seen.storageClasses && !seen.storageClasses.some(({ metadata }) => metadata.name === storage.className))
    say("storageClass", storage.className, `a StorageClass that is there (${seen.storageClasses.map(({ metadata }) => metadata.name).join(", ") || "there is none"}), since storageInstall is none`, "correct the name, or pulumi config set storageInstall provisioner");
  if (storage.install === "class" && seen.storageClasses && !seen.storageClasses.some(({ metadata, provisioner }) => provisioner === "openebs.io/local" && metadata.name !== storage.className))
    say("storageInstall", "class, and no other StorageClass of openebs.io/local in the cluster", "a provisioner that another environment runs; without one no volume is ever made", "pulumi config set storageInstall provisioner, or bring up the environment that runs it first");

  for (const found of elsewhere(seen.ingresses, namespaces.jenkins).filter(({ spec }) => spec?.rules?.some(({ host }) => host === config.domain)))
    say("domain", `${config.domain}, which Ingress ${named(found)} serves already`, "a host name of this environment's own", "pulumi config set domain <name>");
  for (const found of elsewhere(seen.caches, namespaces.agents).filter(({ spec }) => spec?.template?.spec?.volumes?.some(({ hostPath }) => hostPath?.path === config.agentCache?.path && hostPath !== undefined)))
    say("agentCache.path", `${config.agentCache?.path}, which DaemonSet ${named(found)} keeps`, "a folder of this environment's own, so that no build takes what another's put there", "pulumi config set --path agentCache.path <folder>");
  const folder = (text: string | undefined) => text?.replace(/\/+$/, "");
  for (const key of ["repository", "keysRepository"] as const)
    for (const volume of (seen.volumes ?? []).filter(({ spec }) => spec?.hostPath && spec.claimRef?.namespace !== namespaces.jenkins && folder(spec.hostPath.path) === folder(config.backup?.[key])))
      say(`backup.${key}`, `${config.backup?.[key]}, where namespace ${volume.spec?.claimRef?.namespace} keeps its backups`, "a repository of this environment's own", `pulumi config set --path backup.${key} <folder>`);
  return problems;
}
