/**
 * Stands in for the kubernetes plugin's PodTemplateBuilder: makes the agent pod from a pod template, with the
 * plugin's rules for the jnlp container, the workspace volume, labels and merged YAML.
 */
import { createHash } from "node:crypto";
import { parse } from "yaml";
import { podYamlProblems } from "../../../../components/jenkins-master/casc-schema";
import type { Keys, Value } from "./casc";

/** The parts of a pod that this program writes or merges; anything else is passed through. */
// A pod is an open structure from users' YAML: its unknown parts have no type here.
export type Pod = Record<string, any>;

/** What is known only when an agent is made. */
export interface AgentIdentity {
  name: string;
  secret: string;
  /** Value of the label by which this controller finds its own pods. */
  controller: string;
}

/** Folder of the agent in all containers unless the template says otherwise. */
export const WORKING_DIR = "/home/jenkins/agent";
export const CONTROLLER_LABEL = "kubernetes.jenkins.io/controller";
export const RETENTION_ANNOTATION = "kubernetes.jenkins.io/pod-retention";
/** When the controller last vouched for a pod, in milliseconds since the epoch. */
export const REFRESHED_ANNOTATION = "kubernetes.jenkins.io/last-refresh";

/**
 * Template with what it inherits, from the cloud's defaults first and then from the templates it names: containers, volumes and lists
 * are joined, texts and numbers replaced.
 */
export function inherit(template: Keys, all: Keys[], defaults = "", seen: string[] = []): Keys {
  const parents = [defaults, ...String(template.inheritFrom ?? "").split(/\s+/)].filter((name) => name !== "" && name !== template.name && !seen.includes(name)).map((name) => all.find((t) => t.name === name)).filter((t) => t !== undefined);
  if (parents.length === 0) return template;
  const parent = parents.map((each) => inherit(each, all, "", [...seen, String(template.name)])).reduce((below, above) => over(below, above));
  return over(parent, template);
}

/** One template over another, as the plugin combines them. */
function over(parent: Keys, template: Keys): Keys {
  const { id, label, podRetention, yamlMergeStrategy, yaml, ...inherited } = parent;
  void [id, label, podRetention, yaml];
  const out: Keys = {
    ...inherited,
    ...(parent.inheritYamlMergeStrategy && yamlMergeStrategy !== undefined ? { yamlMergeStrategy } : {}),
    ...Object.fromEntries(Object.entries(template).filter(([, v]) => v !== "" && v !== null)),
  };
  for (const key of ["volumes", "envVars", "annotations", "imagePullSecrets"]) {
    out[key] = [...((parent[key] ?? []) as Value[]), ...((template[key] ?? []) as Value[])];
  }
  out.containers = byName((parent.containers ?? []) as Keys[], (template.containers ?? []) as Keys[], (a, b) => ({ ...a, ...b })) as Value[];
  out.yamls = [...yamlsOf(parent), ...yamlsOf(template)];
  delete out.yaml;
  return out;
}

function yamlsOf(template: Keys): string[] {
  return [...((template.yamls ?? []) as string[]), ...(template.yaml ? [template.yaml as string] : [])];
}

/** The YAML that counts: the last one, or all of them where the template says so. */
function mergedYamls(template: Keys): string[] {
  const strategy = template.yamlMergeStrategy ?? "override";
  const name = typeof strategy === "string" ? strategy : Object.keys(strategy as Keys)[0];
  return name === "merge" ? yamlsOf(template) : yamlsOf(template).slice(-1);
}

/** One pod's YAML, read as the plugin reads it. */
function readPod(text: string): Pod {
  const [problem] = podYamlProblems(text);
  if (problem) throw new Error(`its YAML ${problem}`);
  return (parse(text) ?? {}) as Pod;
}

/** A name for a new agent, as the plugin makes it: the template's name and five random letters. */
export function agentName(template: Keys, random: () => number = Math.random): string {
  const letters = "bcdfghjklmnpqrstvwxz0123456789";
  const suffix = Array.from({ length: 5 }, () => letters[Math.floor(random() * letters.length)]).join("");
  const base = String(template.name).toLowerCase().replace(/[^a-z0-9.-]+/g, "-").replace(/^[^a-z0-9]+|[^a-z0-9]+$/g, "").slice(0, 57);
  return `${base || "agent"}-${suffix}`;
}

/** A text as the value of a Kubernetes label. */
export function labelValue(text: string): string {
  return text.replace(/[^A-Za-z0-9_.-]+/g, "_").slice(0, 63).replace(/^[^A-Za-z0-9]+|[^A-Za-z0-9]+$/g, "");
}

/** A controller's own label value: its address, with an x where a label may not begin or end. */
export function controllerLabel(cloud: Keys): string {
  return String(cloud.jenkinsUrl ?? "jenkins").replace(/[^A-Za-z0-9]/g, "_").slice(0, 63).replace(/^[^A-Za-z0-9]|[^A-Za-z0-9]$/g, "x");
}

/** Splits a command line into words; single and double quotes hold words together. */
export function words(text: string): string[] {
  return [...text.matchAll(/(?:[^\s"']+|"[^"]*"|'[^']*')+/g)].map(([word]) => word.replace(/"([^"]*)"|'([^']*)'/g, "$1$2"));
}

/** The pod of one agent. */
export function renderPod(cloud: Keys, template: Keys, agent: AgentIdentity): Pod {
  const pod = mergedYamls(template).map(readPod).reduce(combine, {});
  return finish(combine(pod, fromFields(cloud, template, agent)), cloud, template, agent);
}

function fromFields(cloud: Keys, template: Keys, agent: AgentIdentity): Pod {
  const label = (template.label ?? "") as string;
  const labels = (cloud.podLabels ?? [{ key: "jenkins", value: "slave" }]) as { key: string; value: string }[];
  const volumes: Pod[] = [];
  const mounts: Pod[] = [];
  ((template.volumes ?? []) as Keys[]).forEach((volume, i) => {
    const [kind, settings] = Object.entries(volume)[0] as [string, Keys];
    const name = `volume-${i}`;
    volumes.push({ name, ...volumeSource(kind, settings) });
    mounts.push({ name, mountPath: settings.mountPath, ...(settings.readOnly ? { readOnly: true } : {}), ...(settings.subPath ? { subPath: settings.subPath } : {}) });
  });
  const spec: Pod = {
    containers: ((template.containers ?? []) as Keys[]).map((c) => container(c, template, mounts, agent)),
    volumes,
    ...(template.serviceAccount ? { serviceAccountName: template.serviceAccount } : {}),
    ...(template.nodeSelector ? { nodeSelector: Object.fromEntries(String(template.nodeSelector).split(",").map((pair) => pair.trim().split("=", 2))) } : {}),
    ...(template.hostNetwork ? { hostNetwork: true } : {}),
    ...(template.schedulerName ? { schedulerName: template.schedulerName } : {}),
    ...(activeDeadline(template) > 0 ? { activeDeadlineSeconds: activeDeadline(template) } : {}),
    ...(((template.imagePullSecrets ?? []) as Keys[]).length > 0 ? { imagePullSecrets: template.imagePullSecrets } : {}),
  };
  const security = {
    ...(template.runAsUser ? { runAsUser: Number(template.runAsUser) } : {}),
    ...(template.runAsGroup ? { runAsGroup: Number(template.runAsGroup) } : {}),
    ...(template.supplementalGroups ? { supplementalGroups: String(template.supplementalGroups).split(",").map(Number) } : {}),
  };
  if (Object.keys(security).length > 0) spec.securityContext = security;
  return {
    metadata: {
      name: agent.name,
      labels: {
        ...Object.fromEntries(labels.map(({ key, value }) => [key, value])),
        "jenkins/label": labelValue(label),
        "jenkins/label-digest": createHash("sha1").update(label).digest("hex"),
        [CONTROLLER_LABEL]: agent.controller,
      },
      annotations: {
        ...Object.fromEntries(((template.annotations ?? []) as { key: string; value: string }[]).map(({ key, value }) => [key, value])),
        [RETENTION_ANNOTATION]: retention(cloud, template),
      },
    },
    spec,
  };
}

/** Which pods stay after their agent: never, always, onFailure. */
export function retention(cloud: Keys, template: Keys): string {
  const own = template.podRetention ? Object.keys(template.podRetention as Keys)[0] : "default";
  return own !== "default" ? own : cloud.podRetention ? Object.keys(cloud.podRetention as Keys)[0] : "never";
}

function activeDeadline(template: Keys): number {
  return Number(template.activeDeadlineSeconds ?? template.activeDeadlineSecondsStr ?? 0);
}

function volumeSource(kind: string, s: Keys): Pod {
  switch (kind) {
    case "hostPathVolume":
      return { hostPath: { path: s.hostPath } };
    case "emptyDirVolume":
      return { emptyDir: s.memory ? { medium: "Memory" } : {} };
    case "persistentVolumeClaim":
      return { persistentVolumeClaim: { claimName: s.claimName, readOnly: s.readOnly ?? false } };
    case "secretVolume":
      return { secret: { secretName: s.secretName, optional: s.optional ?? false, ...(s.defaultMode ? { defaultMode: parseInt(s.defaultMode as string, 8) } : {}) } };
    case "configMapVolume":
      return { configMap: { name: s.configMapName, optional: s.optional ?? false } };
    case "nfsVolume":
      return { nfs: { server: s.serverAddress, path: s.serverPath, readOnly: s.readOnly ?? false } };
    default:
      return claim(s);
  }
}

/** A claim that lives as long as the pod; of the plugin's two kinds, dynamicPVC makes the same by itself. */
function claim(s: Keys): Pod {
  return {
    ephemeral: {
      volumeClaimTemplate: {
        spec: {
          accessModes: [s.accessModes || "ReadWriteOnce"],
          resources: { requests: { storage: s.requestsSize || "10Gi" } },
          ...(s.storageClassName ? { storageClassName: s.storageClassName } : {}),
        },
      },
    },
  };
}

function workspaceSource(volume: Keys | undefined): Pod {
  const [kind, s] = Object.entries(volume ?? { emptyDirWorkspaceVolume: {} })[0] as [string, Keys];
  switch (kind) {
    case "hostPathWorkspaceVolume":
      return { hostPath: { path: s.hostPath } };
    case "persistentVolumeClaimWorkspaceVolume":
      return { persistentVolumeClaim: { claimName: s.claimName, readOnly: s.readOnly ?? false } };
    case "nfsWorkspaceVolume":
      return { nfs: { server: s.serverAddress, path: s.serverPath, readOnly: s.readOnly ?? false } };
    case "dynamicPVC":
    case "genericEphemeralVolume":
      return claim(s);
    default:
      return { emptyDir: { medium: s.memory ? "Memory" : "", ...(s.sizeLimit ? { sizeLimit: s.sizeLimit } : {}) } };
  }
}

function environment(vars: Keys[]): Pod[] {
  return vars.map((entry) => {
    const plain = (entry.envVar ?? entry.containerEnvVar ?? entry.podEnvVar) as Keys | undefined;
    const secret = entry.secretEnvVar as Keys | undefined;
    return plain
      ? { name: plain.key, value: plain.value ?? "" }
      : { name: secret!.key, valueFrom: { secretKeyRef: { name: secret!.secretName, key: secret!.secretKey, optional: secret!.optional ?? false } } };
  });
}

function container(c: Keys, template: Keys, mounts: Pod[], agent: AgentIdentity): Pod {
  const resource = (what: "Request" | "Limit") => {
    const entries = [["cpu", c[`resource${what}Cpu`]], ["memory", c[`resource${what}Memory`]], ["ephemeral-storage", c[`resource${what}EphemeralStorage`]]];
    return Object.fromEntries(entries.filter(([, value]) => value));
  };
  const security = { ...(c.privileged ? { privileged: true } : {}), ...(c.runAsUser ? { runAsUser: Number(c.runAsUser) } : {}), ...(c.runAsGroup ? { runAsGroup: Number(c.runAsGroup) } : {}) };
  // The plugin lets the arguments name the agent's secret and name.
  const args = String(c.args ?? "").replace(/\^?\$\{computer\.(jnlpmac|name)\}/g, (_, key: string) => (key === "name" ? agent.name : agent.secret));
  return {
    name: c.name,
    image: c.image,
    imagePullPolicy: c.alwaysPullImage ? "Always" : "IfNotPresent",
    ...(c.command ? { command: words(c.command as string) } : {}),
    ...(args ? { args: words(args) } : {}),
    ...(c.workingDir ? { workingDir: c.workingDir } : {}),
    ...(c.ttyEnabled ? { tty: true } : {}),
    env: [...environment((template.envVars ?? []) as Keys[]), ...environment((c.envVars ?? []) as Keys[])],
    ...(((c.ports ?? []) as Keys[]).length > 0 ? { ports: c.ports } : {}),
    ...(Object.keys(security).length > 0 ? { securityContext: security } : {}),
    resources: { requests: resource("Request"), limits: resource("Limit") },
    volumeMounts: mounts,
  };
}

/** What the plugin adds whatever the template says: the agent container, its environment, the workspace. */
function finish(pod: Pod, cloud: Keys, template: Keys, agent: AgentIdentity): Pod {
  const spec = pod.spec as Pod;
  const agentContainer = (template.agentContainer as string) || "jnlp";
  if (!(spec.containers as Pod[]).some((c) => c.name === agentContainer)) {
    spec.containers = [{ name: agentContainer, image: "docker.io/jenkins/inbound-agent:latest", resources: { requests: { cpu: "100m", memory: "256Mi" } } }, ...spec.containers];
  }
  for (const c of spec.containers as Pod[]) {
    const mounts = (c.volumeMounts ?? []) as Pod[];
    const workingDir = (c.workingDir as string) || WORKING_DIR;
    if (!mounts.some((m) => m.mountPath === workingDir)) mounts.push({ name: "workspace-volume", mountPath: workingDir, readOnly: false });
    c.volumeMounts = mounts;
    c.workingDir = workingDir;
    if (c.name !== agentContainer) continue;
    const given = {
      JENKINS_SECRET: agent.secret,
      ...(cloud.jenkinsTunnel ? { JENKINS_TUNNEL: cloud.jenkinsTunnel } : {}),
      JENKINS_AGENT_NAME: agent.name,
      JENKINS_NAME: agent.name,
      JENKINS_AGENT_WORKDIR: workingDir,
      JENKINS_URL: cloud.jenkinsUrl,
      REMOTING_OPTS: "-noReconnectAfter 1d",
    };
    c.env = byName((c.env ?? []) as Pod[], Object.entries(given).map(([name, value]) => ({ name, value })), (_, ours) => ours);
    if (cloud.restrictedPssSecurityContext) {
      c.securityContext = { ...c.securityContext, allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] }, runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } };
    }
  }
  const volumes = (spec.volumes ?? []) as Pod[];
  if (!volumes.some((v) => v.name === "workspace-volume")) volumes.push({ name: "workspace-volume", ...workspaceSource(template.workspaceVolume as Keys | undefined) });
  spec.volumes = volumes;
  spec.restartPolicy ??= "Never";
  spec.nodeSelector ??= { "kubernetes.io/os": "linux" };
  return { apiVersion: "v1", kind: "Pod", ...pod };
}

/** Lists of these names are joined by a key of their items; other lists are replaced. */
const JOINED: Record<string, string> = { containers: "name", initContainers: "name", env: "name", volumes: "name", imagePullSecrets: "name", volumeMounts: "mountPath" };

/** What the plugin's merge takes over from the pod above, from a container whose name is there already, and from their security contexts. */
const OF_POD = ["nodeSelector", "serviceAccount", "serviceAccountName", "schedulerName", "activeDeadlineSeconds", "hostNetwork", "shareProcessNamespace", "containers", "initContainers", "volumes", "tolerations", "imagePullSecrets", "securityContext"];
const OF_CONTAINER = ["name", "image", "imagePullPolicy", "command", "args", "workingDir", "tty", "env", "envFrom", "resources", "volumeMounts", "securityContext"];
const OF_SECURITY = ["privileged", "runAsUser", "runAsGroup", "capabilities"];

/** Lays one pod over another as the plugin's merge does: the second wins in what it takes over, anything else of it is lost. */
export function combine(below: Pod, above: Pod): Pod {
  if (Object.keys(below).length === 0) return above;
  const taken = (of: Pod, keys: string[]): Pod => Object.fromEntries(Object.entries(of).filter(([key]) => keys.includes(key)).map(([key, value]) => [key, key === "securityContext" && isMap(value) ? taken(value, OF_SECURITY) : value]));
  const [under, spec] = [below.spec ?? {}, taken((above.spec ?? {}) as Pod, OF_POD)] as Record<string, Pod[] | undefined>[];
  for (const list of ["containers", "initContainers"]) {
    const here = new Set((under[list] ?? []).map(({ name }) => name));
    if (spec[list]) spec[list] = spec[list].map((each) => (here.has(each.name) ? taken(each, OF_CONTAINER) : each));
  }
  return lay(below, { ...(above.metadata ? { metadata: above.metadata } : {}), spec });
}

/** The second wins; maps and the lists above are joined. */
function lay(below: Pod, above: Pod): Pod {
  const out: Pod = { ...below };
  for (const [key, value] of Object.entries(above)) {
    const old: unknown = below[key];
    if (key === "tolerations" && Array.isArray(old)) out[key] = [...old, ...(value as Pod[])];
    else if (JOINED[key] && Array.isArray(old)) out[key] = byName(old as Pod[], value as Pod[], lay, JOINED[key]);
    else if (isMap(old) && isMap(value)) out[key] = lay(old, value);
    else if (value !== "" && value !== undefined && value !== null) out[key] = value;
  }
  return out;
}

function isMap(value: unknown): value is Pod {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function byName<T extends Record<string, unknown>>(below: T[], above: T[], join: (a: T, b: T) => T, key = "name"): T[] {
  const out = [...below];
  for (const item of above) {
    const at = out.findIndex((other) => other[key] === item[key]);
    if (at < 0) out.push(item);
    else out[at] = join(out[at], item);
  }
  return out;
}
