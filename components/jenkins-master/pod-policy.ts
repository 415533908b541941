/**
 * What pods of the agents' namespace may ask of their node, whoever makes them: a pipeline describes pods of its own. Pod Security
 * cannot say it, since the platform's own agents need the open level for docker and caches. So the API server compares each pod
 * with those that the platform renders: what one of them has, others may have too, and nothing beyond but what config allows.
 */
import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { ownLabels } from "../ownership";
import { agentPod, PodRules } from "./agents";
import type { JenkinsMasterArgs } from "./args";
import { defaultsPod } from "./casc";
import { cascInput } from "./configuration";
import { labels, Place } from "./place";

interface Toleration { key?: string }
interface Term { matchExpressions?: { key: string; operator: string }[] }
/** A question that the kubelet asks, by default of the pod itself. */
interface Probe { httpGet?: { host?: string }; tcpSocket?: { host?: string } }
interface Container {
  image?: string;
  livenessProbe?: Probe;
  readinessProbe?: Probe;
  startupProbe?: Probe;
  lifecycle?: { postStart?: Probe; preStop?: Probe };
  ports?: { hostPort?: number }[];
  securityContext?: { privileged?: boolean; procMount?: string; capabilities?: { add?: string[] }; seccompProfile?: { type?: string }; appArmorProfile?: { type?: string }; seLinuxOptions?: object };
  volumeMounts?: { name: string; readOnly?: boolean }[];
}
/** A pod's spec, as far as the rules look at it. */
export interface PodSpec {
  containers?: Container[];
  initContainers?: Container[];
  volumes?: { name: string; hostPath?: { path: string } }[];
  serviceAccountName?: string;
  priorityClassName?: string;
  nodeName?: string;
  nodeSelector?: Record<string, string>;
  tolerations?: Toleration[];
  affinity?: { nodeAffinity?: { requiredDuringSchedulingIgnoredDuringExecution?: { nodeSelectorTerms: Term[] }; preferredDuringSchedulingIgnoredDuringExecution?: { preference: Term }[] } };
  securityContext?: { seLinuxOptions?: object };
  hostUsers?: boolean;
  hostNetwork?: boolean;
  hostPID?: boolean;
  hostIPC?: boolean;
}

/** What is allowed, as the rules ask for it. */
export interface Allowed {
  privilegedImages: string[];
  /** Images that are privileged only in pods with a user namespace of their own (hostUsers: false): root there is nobody on the node. */
  namespacedImages: string[];
  /** Images whose containers may go without seccomp and AppArmor. */
  unconfinedImages: string[];
  /** hostNetwork, hostPID and hostIPC, as far as they are. */
  host: string[];
  hostPorts: number[];
  /** Hosts other than the pod that probes and hooks may name: the kubelet asks them from the node, where no NetworkPolicy reaches. */
  probedHosts: string[];
  writablePaths: string[];
  readOnlyPaths: string[];
  /** Folders that only what the DaemonSet controller makes may mount: nothing in Jenkins can make DaemonSets. */
  keeperPaths: string[];
  serviceAccounts: string[];
  /** PriorityClasses that no pod may have: Kubernetes' own and the controller's push out pods of any other. */
  refusedPriorities: string[];
  nodeNames: string[];
  /** Whether pods may choose control-plane nodes, or accept their taints. */
  controlPlane: boolean;
}

const noExceptions: PodRules = { action: "deny", privilegedImages: [], hostPaths: [], serviceAccounts: [] };
const hostNamespaces = ["hostNetwork", "hostPID", "hostIPC"] as const;
const controlPlaneKeys = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
/** What Pod Security's level baseline lets be added: https://kubernetes.io/docs/concepts/security/pod-security-standards/#baseline */
const usualCapabilities = ["AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"];
const systemPriorities = ["system-node-critical", "system-cluster-critical"];
/** Where a container has probes and hooks that can name a host. */
const probePaths = ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle.postStart", "lifecycle.preStop"].flatMap((probe) => ["httpGet", "tcpSocket"].map((kind) => `${probe}.${kind}.host`));
const usualSeLinuxTypes = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

const unique = <T>(list: (T | undefined)[]): T[] => [...new Set(list.filter((each) => each !== undefined))];
const containersOf = ({ initContainers = [], containers = [] }: PodSpec): Container[] => [...initContainers, ...containers];
const hostPaths = (pods: PodSpec[]) => pods.flatMap((pod) => (pod.volumes ?? []).flatMap(({ name, hostPath }) => (hostPath ? [{ path: hostPath.path, readOnly: containersOf(pod).every(({ volumeMounts = [] }) => volumeMounts.every((mount) => mount.name !== name || mount.readOnly)) }] : [])));
const at = (of: unknown, path: string): unknown => path.split(".").reduce((outer, part) => (outer as Record<string, unknown> | undefined)?.[part], of);

/** Whether a pod goes to control-plane nodes by its own will. */
function choosesControlPlane({ nodeSelector = {}, tolerations = [], affinity: { nodeAffinity = {} } = {} }: PodSpec): boolean {
  const terms = [...(nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms ?? []), ...(nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution ?? []).map(({ preference }) => preference)];
  const keys = [...Object.keys(nodeSelector), ...terms.flatMap(({ matchExpressions = [] }) => matchExpressions.map(({ key }) => key))];
  return keys.some((key) => controlPlaneKeys.includes(key)) || tolerations.some(({ key }) => !key || controlPlaneKeys.includes(key));
}

/**
 * What the platform's own pods have, those of agents and those of keepers, and what config allows beside it. BuildKit's image may go
 * without seccomp whether or not a template has it: pipelines and other clouds have pods of their own with it, none of them privileged.
 */
export function allowed(agents: PodSpec[], keepers: PodSpec[], rules: Omit<PodRules, "action">, buildkitImage?: string, controllerPriority?: string): Allowed {
  const pods = [...agents, ...keepers];
  const containers = pods.flatMap(containersOf);
  const paths = [...hostPaths(agents), ...rules.hostPaths];
  const imagesOf = (some: PodSpec[]) => some.flatMap(containersOf).filter(isPrivileged).map(({ image }) => image);
  const isPrivileged = ({ securityContext: { privileged, procMount = "Default", capabilities, seLinuxOptions } = {} }: Container) =>
    privileged || procMount !== "Default" || seLinuxOptions !== undefined || (capabilities?.add ?? []).some((each) => !usualCapabilities.includes(each));
  return {
    privilegedImages: unique([...imagesOf(pods.filter(({ hostUsers }) => hostUsers !== false)), ...rules.privilegedImages]),
    namespacedImages: unique(imagesOf(pods)),
    unconfinedImages: unique(containers.filter(({ securityContext: { seccompProfile, appArmorProfile } = {} }) => [seccompProfile?.type, appArmorProfile?.type].includes("Unconfined")).map(({ image }) => image).concat(buildkitImage)),
    host: hostNamespaces.filter((key) => pods.some((pod) => pod[key])),
    hostPorts: unique(containers.flatMap(({ ports = [] }) => ports.map(({ hostPort }) => hostPort))),
    probedHosts: unique(containers.flatMap((container) => probePaths.map((path) => at(container, path) as string | undefined))),
    writablePaths: unique(paths.filter(({ readOnly }) => !readOnly).map(({ path }) => path)),
    readOnlyPaths: unique(paths.map(({ path }) => path)),
    keeperPaths: unique(hostPaths(keepers).map(({ path }) => path)),
    serviceAccounts: unique(["default", ...pods.map(({ serviceAccountName }) => serviceAccountName), ...rules.serviceAccounts]),
    refusedPriorities: unique([...systemPriorities, controllerPriority]).filter((name) => pods.every(({ priorityClassName }) => priorityClassName !== name)),
    nodeNames: unique(pods.map(({ nodeName }) => nodeName)),
    controlPlane: pods.some(choosesControlPlane),
  };
}

/** A value as CEL writes it: JSON's strings, numbers and lists are CEL's. */
const cel = (value: unknown): string => JSON.stringify(value);
/** A test of a field of which neither itself nor what holds it need be there. */
function where(path: string, test: (value: string) => string): string {
  const parts = path.split(".");
  return `(${parts.slice(1).map((_, i) => `has(${parts.slice(0, i + 2).join(".")})`).join(" && ")} && ${test(path)})`;
}

/** What a container or the pod itself says of SELinux beyond Pod Security's baseline. */
const seLinux = (of: string): string =>
  where(`${of}.securityContext.seLinuxOptions`, (o) => `((has(${o}.type) && !(${o}.type in ${cel(usualSeLinuxTypes)})) || (has(${o}.user) && ${o}.user != "") || (has(${o}.role) && ${o}.role != ""))`);

interface Expression { name: string; expression: string }
/** What the spec of a ValidatingAdmissionPolicy has of rules. */
export interface PodValidations {
  matchConditions: Expression[];
  variables: Expression[];
  validations: { expression: string; message: string; messageExpression: string }[];
}

/**
 * The rules as a ValidatingAdmissionPolicy has them: variables that hold what a pod has and may not, and for each that it is
 * nothing. CEL, see https://kubernetes.io/docs/reference/using-api/cel/
 */
export function podValidations(allow: Allowed, namespace: string): PodValidations {
  const { privilegedImages, namespacedImages, unconfinedImages, host, hostPorts, probedHosts, writablePaths, readOnlyPaths, keeperPaths, serviceAccounts, refusedPriorities, nodeNames, controlPlane } = allow;
  const readOnlyMounts = `variables.containers.all(c, !has(c.volumeMounts) || c.volumeMounts.all(m, m.name != v.name || (has(m.readOnly) && m.readOnly)))`;
  const key = (t: string) => `(has(${t}.key) ? ${t}.key : "")`;
  const chosen = (term: string) => where(`${term}.matchExpressions`, (list) => `${list}.exists(e, e.key in ${cel(controlPlaneKeys)} && !(e.operator in ["NotIn", "DoesNotExist"]))`);
  const affinity = "object.spec.affinity.nodeAffinity";
  const when = (condition: string, what: string) => `(${condition} ? [${cel(what)}] : [])`;
  const own = "may have it beyond the platform's own agents";
  const rules: Record<string, { found: string; message: string }> = {
    privileged: {
      found: `variables.containers.filter(c, !(c.image in ${cel(privilegedImages)}) && !(variables.ownUsers && c.image in ${cel(namespacedImages)}) && (${[
        where("c.securityContext.privileged", (value) => value),
        where("c.securityContext.procMount", (value) => `!(${value} in ["", "Default"])`),
        where("c.securityContext.capabilities.add", (list) => `${list}.exists(a, !(a in ${cel(usualCapabilities)}))`),
        seLinux("c"),
      ].join(" || ")})).map(c, "container " + c.name) + ${when(seLinux("object.spec"), "the pod's SELinux options")}`,
      message: `is privileged, adds capabilities, unmasks /proc or changes its SELinux context; only the image of the agents' docker daemon may (with hostUsers: false where all agents with it have that), and those in agentPods.privilegedImages of the stack config`,
    },
    unconfined: {
      found: `variables.containers.filter(c, !(c.image in ${cel([...new Set([...unconfinedImages, ...privilegedImages, ...namespacedImages])])}) && (${["seccompProfile", "appArmorProfile"]
        .flatMap((profile) => ["object.spec", "c"].map((of) => where(`${of}.securityContext.${profile}.type`, (type) => `${type} == "Unconfined"`)))
        .join(" || ")})).map(c, "container " + c.name)`,
      message: "is without seccomp or AppArmor; only the image of the agents' BuildKit may, and those in agentPods.privilegedImages of the stack config",
    },
    host: {
      found: `${hostNamespaces.filter((name) => !host.includes(name)).map((name) => when(where(`object.spec.${name}`, (value) => value), name)).concat("[]").join(" + ")} + variables.containers.filter(c, ${where("c.ports", (list) => `${list}.exists(p, has(p.hostPort) && !(p.hostPort in ${cel([0, ...hostPorts])}))`)}).map(c, "hostPort of container " + c.name) + variables.containers.filter(c, ${probePaths.map((path) => where(`c.${path}`, (value) => `!(${value} in ${cel(["", ...probedHosts])})`)).join(" || ")}).map(c, "host in a probe or hook of container " + c.name)`,
      message: `is the node's own, or asked by the node itself; no pod of this namespace ${own}. A patch of an agent's pod (patches of the stack config, kind Pod) allows it`,
    },
    volumes: {
      found: `variables.volumes.filter(v, has(v.gitRepo) || (has(v.hostPath) && !(v.hostPath.path in ${cel(writablePaths)}) && !(v.hostPath.path in ${cel(readOnlyPaths)} && ${readOnlyMounts}) && !(variables.byDaemonSet && v.hostPath.path in ${cel(keeperPaths)}))).map(v, "volume " + v.name + (has(v.hostPath) ? " (" + v.hostPath.path + ")" : ""))`,
      message: "is a folder of the node (or of type gitRepo, which runs git there as root); only the agents' caches may be mounted as the agents do, and folders in agentPods.hostPaths of the stack config",
    },
    account: {
      found: when(where("object.spec.serviceAccountName", (name) => `!(${name} in ${cel(["", ...serviceAccounts])})`), "serviceAccountName"),
      message: `is not one of ${serviceAccounts.join(", ")}; others are named in agentPods.serviceAccounts of the stack config`,
    },
    priority: {
      found: when(where("object.spec.priorityClassName", (name) => `${name} in ${cel(refusedPriorities)}`), "priorityClassName"),
      message: `is the controller's or one of Kubernetes' own, for which other pods are pushed out; no pod of this namespace ${own}. A patch of an agent's pod (patches of the stack config, kind Pod) allows it`,
    },
    node: {
      found: [
        when(`request.operation == "CREATE" && ${where("object.spec.nodeName", (name) => `!(${name} in ${cel(["", ...nodeNames])})`)}`, "nodeName"),
        ...(controlPlane
          ? []
          : [
              `${cel(controlPlaneKeys)}.filter(k, ${where("object.spec.nodeSelector", (labels) => `k in ${labels}`)}).map(k, "nodeSelector " + k)`,
              when(`${where(`${affinity}.requiredDuringSchedulingIgnoredDuringExecution`, (required) => `${required}.nodeSelectorTerms.exists(t, ${chosen("t")})`)} || ${where(`${affinity}.preferredDuringSchedulingIgnoredDuringExecution`, (list) => `${list}.exists(p, ${chosen("p.preference")})`)}`, "affinity to control-plane nodes"),
              `variables.tolerations.filter(t, ${key("t")} in ${cel(["", ...controlPlaneKeys])}).map(t, "toleration of " + (${key("t")} == "" ? "every taint" : ${key("t")}))`,
            ]),
      ].join(" + "),
      message: "picks the node past the scheduler, or goes to control-plane nodes; an agent with such nodeSelector or tolerations (agents of the stack config) allows the latter",
    },
  };
  const orNone = (field: string) => `(has(object.spec.${field}) ? dyn(object.spec.${field}) : dyn([]))`;
  return {
    // A pod that was there before the rules can still be labelled, annotated and taken away.
    matchConditions: [{ name: "new-or-changed", expression: 'request.operation == "CREATE" || object.spec != oldObject.spec' }],
    variables: [
      { name: "containers", expression: ["containers", "initContainers", "ephemeralContainers"].map(orNone).join(" + ") },
      { name: "volumes", expression: orNone("volumes") },
      { name: "tolerations", expression: orNone("tolerations") },
      { name: "ownUsers", expression: where("object.spec.hostUsers", (value) => `!${value}`) },
      { name: "byDaemonSet", expression: 'request.userInfo.username in ["system:serviceaccount:kube-system:daemon-set-controller", "system:kube-controller-manager"]' },
      // Names of their own: a variable that is called like one in it has the API server evaluate it without end.
      ...Object.entries(rules).map(([name, { found }]) => ({ name: `${name}Found`, expression: found })),
    ],
    validations: Object.entries(rules).map(([name, { message }]) => ({
      expression: `size(variables.${name}Found) == 0`,
      message: `${name} ${message}`,
      messageExpression: `variables.${name}Found.join(", ") + ${cel(` ${message} (rule ${name} of namespace ${namespace})`)}`,
    })),
  };
}

/** Name of the policy and its binding: the cluster's, and so with the namespace in it. */
export const podPolicyName = (agentsNamespace: string): string => `build-platform-${agentsNamespace}`;

/** Has the API server refuse pods of the agents' namespace that ask more of their node than the platform's own. */
export function makePodPolicy({ name, parent, there }: Place, args: JenkinsMasterArgs, keeper: k8s.apps.v1.DaemonSetArgs | undefined): void {
  const { templates, settings } = args.agents;
  const rules = settings.pods ?? noExceptions;
  if (rules.action === "none") return;
  // An image that may not be built yet matters only where a patch may let it do more.
  const images = pulumi.all(templates.map(({ image, patches }) => pulumi.output(patches ? image : "")));
  const spec = pulumi.all([images, pulumi.output(keeper?.spec), there]).apply(([known, keeping, namespace]) => {
    const input = cascInput(args, known);
    const agents = [...input.templates.map((template) => agentPod(template, settings)), defaultsPod(input)].map((pod) => pod.spec as PodSpec);
    return podValidations(allowed(agents, keeping ? [keeping.template.spec as PodSpec] : [], rules, settings.buildkitImage, args.controller.priorityClassName), namespace);
  });
  const metadata = { name: there.apply(podPolicyName), labels: { ...labels, ...ownLabels() } };
  const policy = new k8s.admissionregistration.v1.ValidatingAdmissionPolicy(
    `${name}-agents-pod-policy`,
    {
      metadata,
      spec: {
        failurePolicy: "Fail",
        matchConstraints: { resourceRules: [{ apiGroups: [""], apiVersions: ["v1"], operations: ["CREATE", "UPDATE"], resources: ["pods", "pods/ephemeralcontainers"] }] },
        matchConditions: spec.matchConditions,
        variables: spec.variables,
        validations: spec.validations,
      },
    },
    parent,
  );
  new k8s.admissionregistration.v1.ValidatingAdmissionPolicyBinding(
    `${name}-agents-pod-policy-binding`,
    {
      metadata,
      spec: {
        policyName: policy.metadata.name,
        validationActions: rules.action === "warn" ? ["Warn", "Audit"] : ["Deny"],
        matchResources: { namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": there } } },
      },
    },
    parent,
  );
}
