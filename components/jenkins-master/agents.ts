import { patched, same } from "../patches";
import { pullingWith } from "../pull-secrets";
import type { Mirrors } from "../mirrors";
import { canonicalResources, Resources, scratch } from "../quantity";
import { javaEnvironment, mavenFlags, networkMounts, networkVolumes, type Surroundings, toolEnvironment, toolMounts, trustContainers } from "../surroundings";
import { buildCache, keepsGradleBuilds } from "./build-cache";
import { gradleAgentScript } from "./cache";
import { buildkitTools, type DockerMode, dockerParts } from "./docker";
import { onArchitectures } from "../boot";
import { gitCache, gitMountPaths } from "./git-cache";
import { archiveFlags, type CacheMount, type CacheVolume, toolCaches, toolMountPaths, type DownloadTool } from "./tool-cache";
import { agentMirrorsName, buildkitMounts, mirrorEnv, mirrorMounts, mirrorVolume } from "./mirrors";

/** Build tools whose dependency caches a template's agents share on their node. */
type SharedTool = "maven" | "gradle";
/** What a template's agents keep on their node: of Docker each agent has data of its own while it runs, which the next takes over. */
export type CachedTool = SharedTool | DownloadTool | "git" | "docker" | "gradle-build";

/** One key, operator, effect entry as in a Pod's `tolerations`. */
export interface Toleration {
  key?: string;
  operator?: "Exists" | "Equal";
  value?: string;
  effect?: "NoSchedule" | "PreferNoSchedule" | "NoExecute";
}

/** Something of the agents' namespace that the build container finds in its file system, such as Maven's settings. */
export interface AgentVolume {
  kind: "configMap" | "secret" | "claim";
  /** Name of the ConfigMap, Secret or PersistentVolumeClaim. */
  name: string;
  mountPath: string;
  /** One file of it, mounted as `mountPath` itself; undefined for the whole folder. */
  key?: string;
  readOnly: boolean;
}

/** What an agent pod of one kind is made of. Every field is filled in: defaults come from config. */
export interface AgentTemplate {
  /** Name of the pod template; agent pods are called `<name>-<random>`. */
  name: string;
  /** Jenkins labels, separated by blanks, that jobs ask for. */
  label: string;
  /** Full reference of the image that runs the build, with the agent inside. */
  image: string;
  /** Whether the image is one of those that the settings' architectures are about. */
  built?: boolean;
  /** Docker in a privileged sidecar, BuildKit in an unprivileged one, or neither. */
  docker: DockerMode;
  /** Tools whose caches on the node are mounted. */
  caches: CachedTool[];
  /** Agents of one name share, on a node, what `caches` has beside Maven's and Gradle's. Default that of all agents of the environment. */
  cacheGroup?: string;
  /** Requests and limits of the build container. */
  resources: Resources;
  /** Requests and limits of the docker or BuildKit sidecar. */
  dockerResources: Resources;
  /** Most room of the workspace on the node's disk, and of Gradle's home; the pod that passes it is evicted. Default no bound. */
  workspaceSize?: string;
  /** Most room of what Docker or BuildKit keeps: images, containers, layers. Default no bound. */
  dockerSize?: string;
  /** Most agents of this template at once. */
  cap: number;
  /** Minutes an idle agent is kept for the next build; 0 gives every build a fresh pod. */
  idleMinutes: number;
  /** Agents that are connected and idle before a build comes, within the caps; each has one build. Needs idleMinutes 0. Default none. */
  minIdle?: number;
  /** Minutes in which minIdle holds, as five fields of cron in UTC. Default always. */
  minIdleTimes?: string;
  /** What happens to the pod after the build. */
  podRetention: "never" | "onFailure" | "always" | "evicted";
  /** Seconds for the pod to be scheduled, pull its images and connect. */
  connectTimeoutSeconds: number;
  /** Seconds after which the pod is ended whatever it does; 0 for no bound. */
  activeDeadlineSeconds: number;
  /** Node labels the pod needs. */
  nodeSelector: Record<string, string>;
  /** Taints the pod accepts. */
  tolerations: Toleration[];
  /** Whether agents are spread over the nodes as evenly as room allows. */
  spread: boolean;
  /** Whether builds that ask for no label run here. */
  unlabelled: boolean;
  /** Further environment of the build container. Maven's options come behind the platform's own, anything else replaces them. */
  env: Record<string, string>;
  /** Further volumes of the build container. */
  volumes: AgentVolume[];
  /** Whether the pod has a user namespace of its own, so that its root is nobody on the node. Default false. */
  userNamespace?: boolean;
  /** Whether every node that may get such an agent has its images before the first build. Default false. */
  prepull?: boolean;
  /** Merge patches over the pod, made last. Default none. */
  patches?: Record<string, unknown>[];
}

/** Which pods the agents' namespace takes beside those that are like the platform's own agents. */
export interface PodRules {
  /** Whether others are refused, or only warned of; none for no rules at all. */
  action: "deny" | "warn" | "none";
  /** Images, as full references, whose containers may be privileged. */
  privilegedImages: string[];
  /** Folders of the nodes that may be mounted. */
  hostPaths: { path: string; readOnly: boolean }[];
  /** Further ServiceAccounts of the namespace. */
  serviceAccounts: string[];
}

/** What all agent pods share. */
export interface AgentSettings {
  /** Image of the agent alone, for pods that pipelines describe themselves; undefined for the kubernetes plugin's own of Docker Hub. */
  agentImage?: string;
  /** Image of the privileged docker daemon, for templates with docker mode dind. */
  dindImage: string;
  /** Image of rootless BuildKit, for templates with docker mode rootless. */
  buildkitImage: string;
  /** Registries (host:port) that speak plain HTTP, which dockerd must be told. */
  insecureRegistries: string[];
  /** Where builds fetch from instead, see mirrors.ts. Default: from where things are. */
  mirrors?: Mirrors;
  /** Architectures that built images are for, such as amd64. Default any. */
  architectures?: string[];
  /** PriorityClass of all agents; that of `ownPriorities` is made. Default none. */
  priorityClassName?: string;
  /** Folder on the nodes that holds the shared caches, or undefined for none. */
  cachePath?: string;
  /** Root address of Gradle's build cache, for templates that ask for it. Default none. */
  gradleBuildCache?: string;
  /** Most KiB that agents of one group leave of Docker's data on a node. Default no bound but the keeper's. */
  dockerGroupKib?: number;
  /** Merge patches over the pod that all pods start from, made last. Default none. */
  defaultsPatches?: Record<string, unknown>[];
  /** What pods of pipelines may have beyond the agents. Default: nothing, and others are refused. */
  pods?: PodRules;
  /** The network around: its proxy, and whose certificates are trusted. Default none. */
  surroundings?: Surroundings;
}

type Pod = Record<string, unknown>;

/** Where the caches' folder appears in agents. */
export const cacheMount = "/var/cache/build-platform";

const workspace = "/home/jenkins/agent";
/** The id of the user `jenkins` in the inbound-agent image. */
export const agentUser = 1000;

/** Gradle's home in an agent: the same in all, since old Gradle versions note whole paths in their metadata. */
const gradleHome = "/home/jenkins/.gradle";

/** Folders of the build container that are the platform's own to mount. */
export const ownMounts = [workspace, gradleHome, buildkitTools, `${cacheMount}/maven`, `${cacheMount}/gradle`, ...toolMountPaths(cacheMount), ...gitMountPaths(cacheMount), ...networkMounts];

const sharedCaches: Record<SharedTool, { readOnly: boolean; env: Record<string, string> }> = {
  // Many agents write one local repository: Maven Resolver's file locks make that safe between processes.
  // https://maven.apache.org/resolver/local-repository.html
  maven: {
    readOnly: false,
    env: {
      MAVEN_OPTS: [
        `-Dmaven.repo.local=${cacheMount}/maven/repository`,
        "-Daether.syncContext.named.factory=file-lock",
        "-Daether.syncContext.named.nameMapper=file-gav",
      ].join(" "),
    },
  },
  // Gradle's own locks do not work between pods (they talk over loopback): each has a home, and the shared part is read-only.
  gradle: { readOnly: true, env: { GRADLE_USER_HOME: gradleHome } },
};

const unprivileged = {
  allowPrivilegeEscalation: false,
  capabilities: { drop: ["ALL"] },
};

/** The kubernetes plugin calls those that a pipeline adds to a template volume-0, volume-1...; of two of one name it drops one. */
const furtherVolume = (i: number) => `further-${i}`;

/** The source of a volume as a Pod names it. */
function volumeSource({ kind, name }: AgentVolume): object {
  if (kind === "configMap") return { configMap: { name } };
  return kind === "secret" ? { secret: { secretName: name } } : { persistentVolumeClaim: { claimName: name } };
}

/**
 * Waits for the folders that agents write together: where the kubelet was first (a node that is new, a cache that was just named), they
 * are root's until the keeper has been there. POSIX shell; arguments are the seconds it may take and the folders.
 */
export const cachesScript = `left=$1
shift
for folder; do
  until [ -w "$folder" ]; do
    if [ "$left" -le 0 ]; then echo "caches: $folder belongs to somebody else still, so tools cannot write there. Is a pod of DaemonSet agent-cache ready on this node?"; break; fi
    left=$((left - 1))
    sleep 1
  done
done
`;

/** Init container of an agent with caches that all write; none where nothing is mounted for writing. */
function cachesContainer(image: string, mounts: CacheMount[], volumes: CacheVolume[]): object[] {
  const shared = mounts.filter(({ name, readOnly }) => !readOnly && volumes.some((volume) => volume.name === name && volume.hostPath?.type === "DirectoryOrCreate"));
  if (shared.length === 0) return [];
  return [
    {
      name: "caches",
      image,
      command: ["/bin/sh", "-c", cachesScript, "caches", "60", ...shared.map(({ mountPath }) => mountPath)],
      resources: { requests: { cpu: "5m", memory: "16Mi" }, limits: { memory: "64Mi" } },
      securityContext: { ...unprivileged, readOnlyRootFilesystem: true },
      volumeMounts: shared,
    },
  ];
}

/** Fills the agent's Gradle home from the node's cache before the build, and offers what the build brought afterwards. */
function gradleSidecar(image: string): object {
  return {
    name: "gradle-cache",
    image,
    command: ["/bin/bash", "-c", gradleAgentScript],
    env: [
      { name: "CACHE", value: `${cacheMount}/gradle` },
      { name: "OFFERS", value: `${cacheMount}/gradle-offers` },
      { name: "GRADLE_USER_HOME", value: gradleHome },
      { name: "POD", valueFrom: { fieldRef: { apiVersion: "v1", fieldPath: "metadata.name" } } },
    ],
    resources: { requests: { cpu: "5m", memory: "16Mi" }, limits: { memory: "256Mi" } },
    securityContext: { ...unprivileged, readOnlyRootFilesystem: true },
    // The kubernetes plugin gives an agent work only when its whole pod is ready: no build meets a half-filled home.
    readinessProbe: { exec: { command: ["test", "-e", `${gradleHome}/.filled`] }, periodSeconds: 1 },
    volumeMounts: [
      { name: "gradle-home", mountPath: gradleHome },
      { name: "cache-gradle", mountPath: `${cacheMount}/gradle`, readOnly: true },
      { name: "gradle-offers", mountPath: `${cacheMount}/gradle-offers` },
    ],
  };
}

/**
 * A flag of the agent's own JVM, which lives as long as one build: time goes to what would be compiled for hours of work. It contradicts
 * no other flag, as a second collector would: what pipelines and images add is not known here. Nothing where the finished pod says
 * something of its own, or may by `envFrom`: JENKINS_JAVA_OPTS stands in the place of JAVA_OPTS.
 * https://github.com/jenkinsci/docker-agent/blob/master/jenkins-agent
 */
function withQuickJvm(pod: Pod, further: string[] = []): Pod {
  const spec = pod.spec as Pod & { containers?: (Pod & { name: string; env?: { name: string }[] })[] };
  const quick = { name: "JENKINS_JAVA_OPTS", value: ["-XX:TieredStopAtLevel=1", ...further].join(" ") };
  const containers = spec.containers?.map((container) => {
    const { name, env = [], envFrom } = container;
    const says = envFrom !== undefined || env.some((each) => each.name === quick.name || each.name === "JAVA_OPTS");
    return name === "jnlp" && !says ? { ...container, env: [quick, ...env] } : container;
  });
  return { ...pod, spec: { ...spec, ...(containers && { containers }) } };
}

/** Environment of a build container: of what the network asks for, a template's own word counts, but flags of a JVM come behind the platform's. Of two settings of one option Java takes the last. */
function buildEnvironment(given: Record<string, string>, network?: Surroundings, own: Record<string, string> = {}): { name: string; value?: unknown; valueFrom?: unknown }[] {
  const maven = [own.MAVEN_OPTS, ...mavenFlags(network)].filter(Boolean).join(" ");
  const flags: Record<string, string> = { ...(maven && { MAVEN_OPTS: maven }), ...javaEnvironment(network) };
  const joined = Object.fromEntries(["MAVEN_OPTS", "MAVEN_ARGS", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS"].flatMap((name) => (name in given ? [[name, [flags[name], given[name]].filter(Boolean).join(" ")]] : [])));
  const texts = { ...own, ...flags, ...given, ...joined };
  return [...Object.entries(texts).map(([name, value]) => ({ name, value })), ...toolEnvironment(network).filter(({ name }) => !((name as string) in texts)) as { name: string }[]];
}

/** What every agent's pod has, whoever describes it. */
const podBase = ({ architectures = [], priorityClassName }: AgentSettings) => ({
  // The plugin's merge keeps the first word on affinity: all pods say the same. One architecture is a matter of nodeSelector, which it joins.
  ...(architectures.length > 1 && { affinity: onArchitectures(architectures) }),
  ...(priorityClassName && { priorityClassName }),
  serviceAccountName: "jenkins-agent",
  automountServiceAccountToken: false,
  enableServiceLinks: false,
  restartPolicy: "Never",
  securityContext: {
    runAsUser: agentUser,
    runAsGroup: agentUser,
    runAsNonRoot: true,
    fsGroup: agentUser,
    seccompProfile: { type: "RuntimeDefault" },
  },
});

const overNodes = {
  topologySpreadConstraints: [
    {
      maxSkew: 1,
      topologyKey: "kubernetes.io/hostname",
      whenUnsatisfiable: "ScheduleAnyway",
      labelSelector: { matchLabels: { jenkins: "agent" } },
    },
  ],
};

/**
 * What the kubernetes plugin starts every pod from, those that pipelines describe themselves included. Where it merges the YAML of a
 * template over this, it takes over nodeSelector, tolerations, volumes, containers by name, initContainers, accounts, pull secrets,
 * runAsUser and runAsGroup, hostNetwork, labels and annotations; of anything else, what is said here stays (PodTemplateUtils.combine).
 */
export function podDefaults(settings: AgentSettings, spread: boolean, pullSecrets: string[] = []): Pod {
  const network = settings.agentImage === undefined ? undefined : settings.surroundings;
  const [env, volumeMounts, volumes] = [buildEnvironment({}, network), toolMounts(network), networkVolumes(network)];
  const pod = {
    apiVersion: "v1",
    kind: "Pod",
    spec: {
      ...podBase(settings),
      ...pullingWith(pullSecrets),
      ...(spread && overNodes),
      containers: [
        {
          name: "jnlp",
          ...(settings.agentImage && { image: settings.agentImage }),
          workingDir: workspace,
          // The requests are those that the plugin gives an agent of its own making.
          resources: { requests: { cpu: "100m", memory: "256Mi" }, limits: { memory: "1Gi" } },
          securityContext: unprivileged,
          ...(env.length > 0 && { env }),
          ...(volumeMounts.length > 0 && { volumeMounts }),
        },
      ],
      ...(network?.caBundle !== undefined && { initContainers: trustContainers(network, settings.agentImage!) }),
      ...(volumes.length > 0 && { volumes }),
    },
  };
  return patchedPod(pod, settings.defaultsPatches);
}

const patchedPod = (pod: Pod, patches: Pod[] = []): Pod => patches.reduce((before, patch) => patched(before, patch) as Pod, pod);

/** What the plugin's merge takes over from a pod, and from a container of a name that is there. */
const mergedOfPod = ["nodeSelector", "serviceAccountName", "activeDeadlineSeconds", "hostNetwork", "containers", "initContainers", "volumes", "tolerations", "imagePullSecrets"];
const mergedOfContainer = ["name", "image", "imagePullPolicy", "command", "args", "workingDir", "tty", "env", "envFrom", "resources", "volumeMounts"];

/** Whether a pod comes out of the plugin's merge over another as it is: what the merge does not take over is the same in both. */
export function outlivesMerge(pod: Pod, over: Pod): boolean {
  const rest = (of: Pod, merged: string[]) => Object.fromEntries(Object.entries(of).filter(([key]) => !merged.includes(key)));
  const [spec, below] = [pod.spec ?? {}, over.spec ?? {}] as (Pod & { containers?: Pod[] })[];
  const pairs = (spec.containers ?? []).flatMap((own) => (below.containers ?? []).filter(({ name }) => name === own.name).map((other) => [own, other]));
  return same(rest(spec, mergedOfPod), rest(below, mergedOfPod)) && pairs.every(([own, other]) => same(rest(own, mergedOfContainer), rest(other, mergedOfContainer)));
}

/**
 * The pod of an agent. The container that connects to the controller is called `jnlp` and has neither command nor
 * args, whatever the template says, so that the image's own entry point connects with what Jenkins puts in the
 * environment.
 */
export function agentPod(template: AgentTemplate, settings: AgentSettings): Pod {
  const caches = settings.cachePath === undefined ? [] : template.caches.filter((tool) => tool in sharedCaches) as SharedTool[];
  const { cachePath } = settings;
  const together = cachePath === undefined ? [] : [toolCaches(template, cacheMount, cachePath, scratch(template.workspaceSize)), gitCache(template, cacheMount, cachePath)];
  const waiting = cachesContainer(template.image, together.flatMap(({ volumeMounts }) => volumeMounts), together.flatMap(({ volumes }) => volumes));
  const workspaceMount = { name: "workspace-volume", mountPath: workspace };
  const docker = dockerParts(template, settings, workspaceMount, cacheMount, agentUser);
  const gradle = caches.includes("gradle");
  const built = buildCache(template, settings.gradleBuildCache, gradleHome);
  // A home of the pod's own: a file that is mounted into the image's would leave its folders to root.
  const home = gradle || (settings.gradleBuildCache !== undefined && keepsGradleBuilds(template));
  const own: Record<string, string> = { ...mirrorEnv(settings.mirrors), ...docker.env, ...Object.assign({}, ...caches.map((tool) => sharedCaches[tool].env), ...together.map(({ env }) => env), built.env) };
  const network = settings.surroundings;
  const labels = { jenkins: "agent", "build-platform/template": template.name };
  const files = mirrorMounts(settings.mirrors, home ? gradleHome : undefined, template.volumes.map(({ mountPath }) => mountPath));
  const needsFiles = files.length > 0 || (template.docker === "rootless" && buildkitMounts(settings.mirrors).length > 0);
  const [architecture, ...others] = (template.built && settings.architectures) || [];
  // A pod that has a nodeSelector is not kept to Linux by the plugin any more.
  const nodeSelector = { ...(architecture && others.length === 0 && { "kubernetes.io/os": "linux", "kubernetes.io/arch": architecture }), ...template.nodeSelector };
  const pod = {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { labels },
    spec: {
      ...podBase(settings),
      ...(Object.keys(nodeSelector).length > 0 && { nodeSelector }),
      ...(template.tolerations.length > 0 && { tolerations: template.tolerations }),
      ...(template.spread && overNodes),
      ...(template.userNamespace && { hostUsers: false }),
      ...((network?.caBundle !== undefined || waiting.length > 0) && { initContainers: [...(network?.caBundle !== undefined ? trustContainers(network, template.image) : []), ...waiting] }),
      containers: [
        {
          name: "jnlp",
          image: template.image,
          workingDir: workspace,
          // Settings of the site's own would be hidden by those with the proxy's login.
          env: buildEnvironment(template.env, network, own).filter(({ name }) => name !== "MAVEN_ARGS" || !network?.proxy?.login || name in template.env || !template.volumes.some(({ mountPath }) => mountPath.endsWith("/settings.xml"))),
          resources: canonicalResources(template.resources),
          securityContext: unprivileged,
          volumeMounts: [
            workspaceMount,
            ...caches.map((tool) => ({
              name: `cache-${tool}`,
              mountPath: `${cacheMount}/${tool}`,
              readOnly: sharedCaches[tool].readOnly,
            })),
            ...(home ? [{ name: "gradle-home", mountPath: gradleHome }] : []),
            ...[...together, built].flatMap(({ volumeMounts }) => volumeMounts),
            ...docker.volumeMounts,
            ...files,
            ...template.volumes.map((volume, i) => ({ name: furtherVolume(i), mountPath: volume.mountPath, ...(volume.key && { subPath: volume.key }), readOnly: volume.readOnly })),
            ...toolMounts(network),
          ],
        },
        ...docker.containers,
        ...(gradle ? [gradleSidecar(template.image)] : []),
      ],
      volumes: [
        { name: "workspace-volume", ...scratch(template.workspaceSize) },
        ...docker.volumes,
        ...caches.map((tool) => ({
          name: `cache-${tool}`,
          hostPath: { path: `${settings.cachePath}/${tool}`, type: "DirectoryOrCreate" },
        })),
        ...[...together, built].flatMap(({ volumes }) => volumes),
        ...docker.slots,
        ...(home ? [{ name: "gradle-home", ...scratch(template.workspaceSize) }] : []),
        ...(gradle ? [{ name: "gradle-offers", hostPath: { path: `${settings.cachePath}/gradle-offers`, type: "DirectoryOrCreate" } }] : []),
        ...(needsFiles ? [{ name: mirrorVolume, configMap: { name: agentMirrorsName } }] : []),
        ...template.volumes.map((volume, i) => ({ name: furtherVolume(i), ...volumeSource(volume) })),
        ...networkVolumes(network),
      ],
    },
  };
  return withQuickJvm(patchedPod(pod, template.patches), cachePath !== undefined && template.caches.includes("remoting") ? archiveFlags(cacheMount, template.name) : []);
}
