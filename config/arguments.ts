import * as pulumi from "@pulumi/pulumi";
import { type AgentImagesArgs, pathBelow } from "../components/agent-images";
import type { CachedRegistry, ImageCacheArgs } from "../components/image-cache";
import { type ImageRegistryArgs, pushPort, registryAddress, registryName } from "../components/image-registry";
import type { GatewayClass } from "../components/ingress";
import type { IngressTraefikArgs } from "../components/ingress-traefik";
import { homeFence, type JenkinsBackupArgs, startFrom } from "../components/jenkins-backup";
import { keepsGradleBuilds } from "../components/jenkins-master/build-cache";
import { type AddressArgs, hostsOf, type JenkinsMasterArgs, portOf, sentOn } from "../components/jenkins-master";
import type { OpenEbsStorageArgs } from "../components/openebs-storage";
import { upstreamOf } from "../components/mirrors";
import { nodePortsLabel } from "../components/ownership";
import type { Missed } from "../components/patches";
import { pullSecretNames } from "../components/pull-secrets";
import type { Surroundings } from "../components/surroundings";
import { addressOf, agentSettings, imagePulls, type PlatformConfig, type Problem } from ".";
import { architectures, ownBuilds } from "./builds";
import { idlePatch, mistakeAt } from "./mistakes";
import { singleAddress } from "./pieces";

/** What each component is told, as far as the config knows it. */

/** The cluster as a command is told of it, whose inputs are in the state: the same for every operator, wherever home is. */
const clusterAnywhere = ({ cluster: { context }, kubeconfigAsGiven }: PlatformConfig) => ({ context, ...(kubeconfigAsGiven && { kubeconfig: kubeconfigAsGiven }) });

/** @param surroundings the network around, with what the cluster says of it */
export function imageArgs(config: PlatformConfig, surroundings: Surroundings = config.surroundings): AgentImagesArgs {
  const { registry: { host, prefix, insecure, username, password }, imageRegistry: own, imageBuild: { platforms, ...build }, mirrors, pullSecrets: { logins } } = config;
  const others = logins.length > 0 && { others: logins };
  return {
    ...build,
    registry: own
      ? { host: registryAddress(registryName, own.namespace, pushPort), prefix, insecure: true, pulledFrom: host, ...others }
      : { host, prefix, insecure, ...(username && password && { username, password: pulumi.secret(password) }), ...others },
    images: config.builds,
    surroundings,
    ...(platforms.length > 0 && { platforms }),
    mirrors,
    ...(build.builder === "in-cluster" && { inCluster: { image: config.images.buildkit, namespace: config.namespaces.builds }, ...imagePulls(config) }),
    ...((own || build.builder === "in-cluster") && { cluster: own ? clusterAnywhere(config) : { context: config.cluster.context } }),
  };
}

/** Undefined where the registry is somebody else's. */
export function registryArgs(config: PlatformConfig, storageClassName: pulumi.Input<string>): ImageRegistryArgs | undefined {
  const { imageRegistry, images, registry: { host, prefix }, builds: used, namespaces, networkPolicies } = config;
  // With those of the repository that are not used now, so that what is left of them can be deleted; each with its build cache.
  const built = Object.keys({ ...ownBuilds(images), ...used }).flatMap((name) => [name, `${name}-cache`]).map((name) => pathBelow(prefix, name));
  // Copies of upstream images that the config looks for there, as `npm run bundle -- load` has it.
  const copies = imageRegistry ? [...JSON.stringify(config).matchAll(new RegExp(`(?<![\\w.-])${host}/([a-z0-9._/-]+)`, "g"))].map(([, repository]) => repository) : [];
  const repositories = [...built, ...copies];
  return imageRegistry && { ...imageRegistry, repositories, image: images.registry, storageClassName, buildsNamespace: namespaces.builds, agentsNamespace: namespaces.agents, networkPolicies, ...imagePulls(config) };
}

/** Undefined where nothing is kept. A mirror is asked with its own login. */
export function cacheArgs(config: PlatformConfig, storageClassName: pulumi.Input<string>, surroundings: Surroundings): ImageCacheArgs | undefined {
  const { imageCache, images, mirrors, pullSecrets: { logins }, namespaces, networkPolicies } = config;
  const cached = (registry: string): CachedRegistry => {
    const upstream = upstreamOf(registry, mirrors)!;
    const asked = upstream === upstreamOf(registry, { registries: {}, insecure: [] }) ? registry : new URL(upstream).host;
    const login = logins.find((each) => each.registry === asked);
    return { registry, upstream, ...(login && { login: pulumi.secret({ username: login.username, password: login.password }) }) };
  };
  return imageCache && { ...imageCache, registries: imageCache.registries.map(cached), image: images.registry, storageClassName, agentsNamespace: namespaces.agents, networkPolicies, surroundings, ...imagePulls(config) };
}

/** What the backup is told but for Jenkins' own names; undefined where there is none. */
export function backupArgs(config: PlatformConfig, surroundings: Surroundings, storageClassName: pulumi.Input<string>): Omit<JenkinsBackupArgs, "namespace" | "homeClaim" | "controllerPod"> | undefined {
  if (!config.backup) return undefined;
  const { standby, ...backup } = config.backup;
  return { ...backup, ...(standby && { standby: { ...standby, storageClassName } }), image: config.images.restic, pullSecrets: pullSecretNames(imagePulls(config).pulls), surroundings };
}

/** Whether somebody before the ingress is believed to have ended TLS. */
const believed = ({ ingress: { trustedProxies, proxyProtocol } }: PlatformConfig): Pick<AddressArgs, "forwardedProto"> => (trustedProxies.length > 0 && !proxyProtocol ? { forwardedProto: true } : {});

/** What either controller is told; ingress-nginx asks for no hosts to redirect. */
export function ingressArgs(config: PlatformConfig): IngressTraefikArgs {
  const { controller, className, namespace, httpNodePort, httpsNodePort, externalTrafficPolicy, replicas, hstsSeconds, tls, externalUrl, trustedProxies, proxyProtocol } = config.ingress;
  const image = controller === "nginx" ? config.images.ingressNginx : config.images.traefik;
  // Also where TLS ends before: who comes by plain HTTP is sent on to it.
  const outer = externalUrl?.startsWith("https:") ? { httpsPort: portOf(new URL(externalUrl)) } : {};
  const address = addressOf(config);
  // Where TLS ends before, an Ingress has an annotation for it.
  const redirects = tls !== undefined || (controller === "gateway" && sentOn({ ...address, ...believed(config) }));
  return { image, ...outer, ...(trustedProxies.length > 0 && { trustedProxies, proxyProtocol }), ingressClassName: className, namespace, httpNodePort, httpsNodePort, externalTrafficPolicy, replicas, hstsSeconds, ...(controller === "gateway" && { gateways: true }), redirectHosts: redirects ? hostsOf(address).map(({ name }) => name) : [], ...imagePulls(config) };
}

/** Undefined where the StorageClass is somebody else's. */
export function storageArgs(config: PlatformConfig): OpenEbsStorageArgs | undefined {
  const { className, install, basePath, protectHome } = config.storage;
  if (install === "none") return undefined;
  return {
    storageClassName: className,
    install,
    basePath,
    provisionerImage: config.images.openebsProvisioner,
    helperImage: config.images.openebsLinuxUtils,
    // What the home's claim leaves behind, by a restore or by mistake, stays on the disk.
    reclaimPolicy: protectHome ? "Retain" : "Delete",
    ...imagePulls(config),
  };
}

/** What only the other components and the cluster know. */
export interface Made {
  storageClassName: pulumi.Input<string>;
  ingressClassName: pulumi.Input<string>;
  ingressNamespace: pulumi.Input<string>;
  /** GatewayClass of a Gateway that the stack makes; undefined where it makes none. */
  gatewayClass?: GatewayClass;
  /** Digest references of the built images, by name. */
  references: Record<string, pulumi.Output<string>>;
  apiServerAddresses: string[];
  /** Architecture of each node; undefined where they are not known. */
  nodeArchitectures?: string[];
  /** The running Jenkins' documents; undefined where none is there yet. */
  documents?: Record<string, string>;
  /** The network around, with what the cluster says of it. */
  surroundings: Surroundings;
  /** Image that the controller is held at, see cli/rollback.ts. */
  held?: string;
  /** The controller that the cluster has; undefined where there is none. */
  running?: JenkinsMasterArgs["running"];
}

export function jenkinsArgs(config: PlatformConfig, made: Made): JenkinsMasterArgs {
  const { ingress, storage, controller, agents, agentCap, agentCache, cloud, images, admin, login, rights, networkPolicies, backup, rehearsal } = config;
  const { storageClassName, ingressClassName, ingressNamespace, gatewayClass, references, apiServerAddresses, nodeArchitectures, documents, surroundings, held, running } = made;
  const builtFor = architectures(config.imageBuild, nodeArchitectures);
  const { prometheusNamespace, serviceMonitor, serviceMonitorLabels, dashboard, cascFragments, secretFiles } = config;
  /** A build's digest reference, or the reference that config gives. */
  const image = (name: string): pulumi.Input<string> => references[name] ?? name;
  return {
    address: { ...addressOf(config), ingressClassName, ingressNamespace, ...believed(config), annotations: ingress.annotations, maxBodySize: ingress.maxBodySize, ...(ingress.gateway && { gateway: ingress.gateway }), ...(gatewayClass && { gatewayClass }), awaited: ingress.controller === "nginx" },
    home: { storageClassName, size: storage.size, protect: storage.protectHome },
    controller: { ...controller, image: held ?? image(controller.image), ...(controller.image in references && builtFor && { architectures: builtFor }), ...(backup?.startFrom && { beforeStart: startFrom({ ...backup, image: images.restic, surroundings }, backup.startFrom) }), ...(backup?.standby && { fence: homeFence(held ?? image(controller.image)) }) },
    agents: {
      templates: agents.map((agent) => ({ ...agent, image: image(agent.image), built: agent.image in references })),
      cap: agentCap,
      settings: { ...agentSettings(config), ...(builtFor && { architectures: builtFor }) },
      cloud,
      ...(agentCache && { cache: { keeperImage: images.inboundAgent, maxGi: agentCache.maxGi, dockerGi: agentCache.dockerGi } }),
      ...(agentCache && agents.some(keepsGradleBuilds) && { buildCache: { image: images.nginx, storageClassName, size: agentCache.gradleBuildSize } }),
    },
    access: {
      adminUser: admin.user,
      ...(admin.password && { adminPassword: admin.password }),
      adminPasswordVersion: admin.passwordVersion,
      ...(admin.existingSecret && { adminExistingSecret: admin.existingSecret }),
      ...(login && { login }),
      ...(rights && { rights }),
      networkPolicies,
      apiServerCidrs: apiServerAddresses.map(singleAddress),
      ...imagePulls(config),
    },
    configuration: { fragments: cascFragments, secretFiles, ...(documents && { live: documents }), ...(config.mirrors.jenkinsUpdates && { updateSite: config.mirrors.jenkinsUpdates }) },
    monitoring: { ...(prometheusNamespace && { prometheusNamespace }), serviceMonitor, serviceMonitorLabels, dashboard },
    ...(rehearsal.enabled && { rehearsal: { ...clusterAnywhere(config), ...rehearsal } }),
    ...(backup?.beforeUpgrade && { saveFirst: clusterAnywhere(config) }),
    ...(running && { running }),
    patches: config.patches,
    surroundings,
    namespace: config.namespaces.jenkins,
    agentsNamespace: config.namespaces.agents,
    ...(config.nodePorts && { namespaceLabels: { [nodePortsLabel]: "owner" } }),
  };
}

/** Patches that change no object, as mistakes for people. */
export const patchProblems = ({ patches }: PlatformConfig, missed: Missed[]): Problem[] =>
  missed.map(({ index, seen, left }) => {
    const { kind, name, namespace } = patches[index].target;
    if (left.length > 0) return mistakeAt(`patches[${index}].patch`, ...idlePatch(kind, left));
    const there = seen.length > 0 ? `an object that the stack makes; of kind ${kind} these: ${[...new Set(seen)].sort().join(", ")}` : "a kind of object that the stack makes";
    return mistakeAt(`patches[${index}].target`, [kind, name, namespace && `in namespace ${namespace}`].filter(Boolean).join(" "), there, "correct the target, or remove the patch");
  });
