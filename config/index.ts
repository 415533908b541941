import { X509Certificate } from "node:crypto";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import * as pulumi from "@pulumi/pulumi";
import type { Builder, ImageSpec } from "../components/agent-images";
import { imageCacheAddresses, imageCacheName } from "../components/image-cache";
import { ingressServiceName } from "../components/ingress";
import { jobsRegistryName, pullPort, registryAddress } from "../components/image-registry";
import { agentServiceName, jenkinsUrl, ownPriorities, resourceUrl, secretNames, type AgentTemplate, type FurtherHost, type IngressTls } from "../components/jenkins-master";
import { agentPod, type AgentSettings } from "../components/jenkins-master/agents";
import { keepsDocker, slotGroup } from "../components/jenkins-master/docker";
import { buildCacheAddress, keepsGradleBuilds } from "../components/jenkins-master/build-cache";
import { cloudSettingsProblems, defaultsPod, defaultsTemplate, type CascInput } from "../components/jenkins-master/casc";
import { isDocument } from "../components/jenkins-master/documents";
import { fragmentProblems, readCascFolder } from "../components/jenkins-master/fragments";
import type { Login, Rights } from "../components/jenkins-master/login";
import type { ControlPlaneAccess, SshProxy } from "../components/node-port-range";
import { mirrored, throughCache, type Mirrors } from "../components/mirrors";
import { changes, type Patch } from "../components/patches";
import { dockerConfigJson, loginHost, pullSecretNames, type ImagePulls, type RegistryLogin } from "../components/pull-secrets";
import { refusal } from "../components/refusal";
import { alwaysDirect, certificatesOf, type Surroundings } from "../components/surroundings";
import { bakedIn, builds, controllerBuild, ownBuilds } from "./builds";
import { mirrorsOf } from "./mirrors";
import { fixOf, holdsSecret, idlePatch, isGiven, mistakeAt, nameAsGiven, readSettings, root, visitKeys, type Problem } from "./mistakes";
import { agentCap as agentCapRange, bareHost, certificate, fits, hostKey, type ingressControllers, plugin, privateKey, usual, usualRegistryPort, withoutComment } from "./pieces";
import { bringsIngress, hasOwnRegistry, ingressController, rules, type Say } from "./rules";
import type { Settings } from "./schema";

export { controllerBuild } from "./builds";
export type { Problem } from "./mistakes";
export { rangeEnds } from "./pieces";
export { rangeProblem } from "./rules";
export type { ImageKey } from "./schema";

/** A port of every node that the stack is going to hold. */
export interface HeldPort {
  /** The key that says which. */
  key: "ingress.httpNodePort" | "ingress.httpsNodePort" | "controller.agentNodePort";
  port: number;
  /** Namespace and name of its Service. */
  namespace: string;
  service: string;
}

export function heldPorts({ ingress, controller: { agentNodePort }, namespaces }: { ingress: Pick<PlatformConfig["ingress"], "install" | "namespace" | "httpNodePort" | "httpsNodePort">; controller: Pick<Settings["controller"], "agentNodePort"> } & Pick<PlatformConfig, "namespaces">): HeldPort[] {
  const ofIngress = (["httpNodePort", "httpsNodePort"] as const).map((key): HeldPort => ({ key: `ingress.${key}`, port: ingress[key], namespace: ingress.namespace, service: ingressServiceName }));
  return [...(ingress.install ? ofIngress : []), ...(agentNodePort === undefined ? [] : [{ key: "controller.agentNodePort" as const, port: agentNodePort, namespace: namespaces.jenkins, service: agentServiceName }])];
}

/** Everything the stack is told, checked and complete: the keys of the schema, grouped as they are used, with what files say. */
export interface PlatformConfig
  extends Pick<Settings, "domain" | "images" | "agentCap" | "agentPods" | "cloud" | "rehearsal" | "networkPolicies" | "prometheusNamespace" | "serviceMonitor" | "serviceMonitorLabels" | "dashboard" | "secretFiles" | "patches"> {
  /** The context is always named, so that a stack never reaches the cluster that happens to be selected. */
  cluster: { kubeconfig?: string; context: string };
  /** The kubeconfig's file with ~ where the config has it. */
  kubeconfigAsGiven?: string;
  /** Namespaces of the controller, of the agents and of image builds in the cluster. */
  namespaces: { jenkins: string; agents: string; builds: string };
  storage: { className: string; install: Settings["storageInstall"]; basePath: string; size: string; protectHome: boolean };
  /** The API servers' range; undefined where it is left as it is, another environment's or Kubernetes' own. */
  nodePorts?: { range: string; reserveLocalPorts: boolean; access: ControlPlaneAccess; ports: number[] };
  /** Where what lies on the internet is fetched from instead; images are references by it already. */
  mirrors: Mirrors;
  /** Log-ins beyond the registry's own, and Secrets of log-ins that are in each namespace already. */
  pullSecrets: { logins: RegistryLogin[]; existing: string[] };
  /** Where built images are pulled from. */
  registry: Pick<Settings["registry"], "prefix" | "insecure" | "username" | "password"> & { host: string };
  /** The stack's own registry; undefined where it is another. */
  imageRegistry?: { namespace: string; nodesNamespace: string; port: number; size: string; jobsSize: string };
  /** The cache of public registries; undefined for none. */
  imageCache?: Settings["imageCache"] & { namespace: string };
  imageBuild: Omit<Settings["imageBuild"], "builder"> & { builder: Builder };
  /** Images the stack builds, by name. */
  builds: Record<string, ImageSpec>;
  /** `image` is the name of a build or a full reference. */
  controller: Omit<Settings["controller"], "image" | "plugins"> & { image: string };
  /** `image` is the name of a build or a full reference. */
  agents: AgentTemplate[];
  /** Shared dependency caches on the nodes; undefined for none. */
  agentCache?: { path: string; maxGi: number; dockerGi: number; gradleBuildSize: string };
  /** `install` says whether the stack brings a controller, `controller` which. */
  ingress: Omit<Settings["ingress"], "controller" | "tlsSecret" | "clusterIssuer" | "hosts"> & { controller: (typeof ingressControllers)[number]; tls?: IngressTls; hosts: FurtherHost[] };
  admin: { user: string; password?: pulumi.Output<string>; passwordVersion: number; existingSecret?: string };
  /** Where people log in; undefined for the local administrator alone. */
  login?: Login;
  /** Who may do what; undefined for whoever is logged in may do anything. */
  rights?: Rights;
  /** The site's own JCasC documents, by file name. */
  cascFragments: Record<string, string>;
  backup?: BackupConfig;
  /** The network around, as far as the config alone says it. */
  surroundings: Surroundings;
  /** What of it an object in the cluster holds. */
  surroundingsIn: { caBundle?: { namespace: string; name: string; key: string }; proxyLogin?: { namespace: string; name: string } };
}

/** Where and how often jenkins_home is backed up. */
export type BackupConfig = Omit<NonNullable<Settings["backup"]>, "password" | "keysPassword" | "environment" | "ssh" | "verifyVolume" | "standby"> & {
  /** A volume on another node; `everyMinutes` is undefined where schedule says when. */
  standby?: { node: string; everyMinutes?: number; size: string };
  verifyVolume: { storageClassName?: string; size: string };
  password: pulumi.Output<string>;
  keysPassword: pulumi.Output<string>;
  environment: pulumi.Output<Record<string, string>>;
  ssh?: { privateKey: pulumi.Output<string>; knownHosts: string };
};

/** What parseConfig asks of the world around it. */
export interface Environment {
  /** Reads a file named in config; ~ is already expanded. */
  readFile(file: string): string;
  /** Names in a folder named in config, those of folders with a "/" behind them; without it folders are not looked into. */
  listFolder?(folder: string): string[];
  homeDirectory: string;
  /** Whether a top-level key is stored encrypted. */
  isSecret(key: string): boolean;
}

/** Port of the nodes on which people reach Jenkins. */
export const publicPort = ({ tls, httpNodePort, httpsNodePort }: Pick<PlatformConfig["ingress"], "tls" | "httpNodePort" | "httpsNodePort">): number => (tls ? httpsNodePort : httpNodePort);

/** What people's address is made of, and Jenkins' root URL with it. */
export const addressOf = ({ domain, ingress }: Pick<PlatformConfig, "domain"> & { ingress: Pick<PlatformConfig["ingress"], "tls" | "httpNodePort" | "httpsNodePort" | "externalUrl" | "hosts"> }) => ({
  domain, port: publicPort(ingress), hosts: ingress.hosts, ...(ingress.tls && { tls: ingress.tls }), ...(ingress.externalUrl && { externalUrl: ingress.externalUrl }),
});

/** Files that keys name, with the home directory where they say so. */
const expanded = (name: string, env: Environment): string => (name === "~" || name.startsWith("~/") ? path.join(env.homeDirectory, name.slice(1)) : name);

function fileAt(key: string, name: string, env: Environment, say: Say, other?: { expected: string; fix: string }): string | undefined {
  try {
    return env.readFile(expanded(name, env));
  } catch (error) {
    say(key, name, other?.expected ?? "a file that can be read", `${other ? `${other.fix}; as a file: ` : ""}${(error as Error).message}; correct the path or its permissions`);
    return undefined;
  }
}

/** A private key as such or from its file; undefined where neither is named, or where it cannot be read. */
function privateKeyAt(at: string, given: { privateKey?: string; privateKeyFile?: string }, env: Environment, say: Say): pulumi.Output<string> | undefined {
  const text = given.privateKey ?? (given.privateKeyFile && fileAt(`${at}.privateKeyFile`, given.privateKeyFile, env, say));
  if (text === undefined) return undefined;
  if (!fits(privateKey, text)) say(`${at}.${given.privateKey === undefined ? "privateKeyFile" : "privateKey"}`, "text that is no private key", privateKey.expected, "name the key without .pub");
  return pulumi.secret(text);
}

/** A certificate as such or from its file, without its comment; undefined where neither is named, or where it cannot be read. */
function certificateAt(at: string, given: { certificate?: string; certificateFile?: string }, env: Environment, say: Say): string | undefined {
  const text = given.certificate ?? (given.certificateFile && fileAt(`${at}.certificateFile`, given.certificateFile, env, say));
  if (text === undefined) return undefined;
  const plain = withoutComment(text);
  if (!fits(certificate, plain)) say(`${at}.${given.certificate === undefined ? "certificateFile" : "certificate"}`, plain.slice(0, 40), certificate.expected, "name the file that ssh-keygen -s wrote, whose name ends with -cert.pub");
  return plain;
}

/** A host key as such or from its file, without its comment. */
function hostKeyAt(at: string, given: { hostKey?: string; hostKeyFile?: string }, env: Environment, say: Say): string {
  const text = given.hostKey ?? (given.hostKeyFile && fileAt(`${at}.hostKeyFile`, given.hostKeyFile, env, say));
  if (text === undefined) return "";
  const [from, key] = [`${at}.${given.hostKey === undefined ? "hostKeyFile" : "hostKey"}`, withoutComment(text)];
  if (key.startsWith("ssh-rsa "))
    say(from, "an RSA host key", "the machine's Ed25519 or ECDSA host key: Pulumi's SSH client cannot check RSA ones", "take it from /etc/ssh/ssh_host_ed25519_key.pub on that machine");
  else if (!fits(hostKey, key)) say(from, key.slice(0, 40), hostKey.expected);
  return key;
}

function controlPlaneAccess({ access, nodes, proxy, user = "root", port, agentSocket, ...login }: Settings["controlPlane"], env: Environment, say: Say): ControlPlaneAccess {
  if (access === "local") return { kind: "local", nodes: nodes.map(({ name }) => ({ name })) };
  const key = privateKeyAt("controlPlane", login, env, say);
  const ownCertificate = certificateAt("controlPlane", login, env, say);
  // Each jump host with the one before it.
  const last = proxy.reduce<SshProxy | undefined>((before, hop, i) => {
    const at = `controlPlane.proxy[${i}]`;
    const [hopKey, hopCertificate] = [privateKeyAt(at, hop, env, say), certificateAt(at, hop, env, say)];
    return {
      host: hop.host, port: hop.port, user: hop.user ?? user, hostKey: hostKeyAt(at, hop, env, say),
      ...(hopKey && { privateKey: hopKey }), ...(hopCertificate && { certificate: hopCertificate }), ...(before && { proxy: before }),
    };
  }, undefined);
  return {
    kind: "ssh",
    user,
    port,
    nodes: nodes.map((node, i) => ({ name: node.name, host: node.host ?? "", hostKey: hostKeyAt(`controlPlane.nodes[${i}]`, node, env, say) })),
    ...(key && { privateKey: key }),
    ...(agentSocket && { agentSocketPath: agentSocket }),
    ...(ownCertificate && { certificate: ownCertificate }),
    ...(last && { proxy: last }),
  };
}

/** The plugins of a list, files in it replaced by the plugins that they name. */
function pluginsOf(entries: string[], env: Environment, say: Say): string[] {
  const plugins = entries.flatMap((entry, i) => {
    if (fits(plugin, entry)) return [entry];
    const key = `controller.plugins[${i}]`;
    // What looks like no path is most often a plugin without its version.
    const other = entry.includes("/") ? undefined : { expected: "a plugin with its version such as slack:1.0, or a file that can be read", fix: "as a plugin: add its version" };
    const lines = (fileAt(key, entry, env, say, other) ?? "").split("\n").map((line) => line.replace(/#.*/, "").trim()).filter((line) => line !== "");
    for (const line of lines) if (!fits(plugin, line)) say(key, line, plugin.expected, `edit ${entry}`);
    return lines.filter((line) => fits(plugin, line));
  });
  const names = plugins.map((each) => each.split(":")[0]);
  const twice = names.find((name, i) => names.indexOf(name) < i);
  if (twice !== undefined) say("controller.plugins", `${twice} twice`, "one version of each plugin", "remove one of them");
  return plugins;
}

/** The patches of the pod of a template. The defaults, which reach pods of pipelines as well, are patched by their name alone. */
const podPatches = (patches: Patch[], template: string): Patch["patch"][] =>
  patches.filter(({ target }) => target.kind === "Pod" && (target.name === template || (target.name === undefined && template !== defaultsTemplate))).map(({ patch }) => patch);

function agentTemplates({ agents, agentCap, patches }: Pick<Settings, "agents" | "agentCap" | "patches">): AgentTemplate[] {
  return agents.map((agent, i) => ({
    ...agent,
    // Else a kind would stay at ten whatever agentCap says. Below ten nothing hangs on it.
    cap: agent.cap ?? Math.max(agentCapRange.usual, agentCap),
    label: agent.label ?? agent.name,
    // A build without label would else wait for ever: the controller takes none.
    unlabelled: agent.unlabelled ?? i === 0,
    ...(podPatches(patches, agent.name).length > 0 && { patches: podPatches(patches, agent.name) }),
    volumes: agent.volumes.map(({ configMap, secret, claim, mountPath, key, readOnly }) => ({
      kind: claim !== undefined ? "claim" : secret !== undefined ? "secret" : "configMap",
      name: claim ?? secret ?? configMap ?? "",
      mountPath,
      ...(key && { key }),
      readOnly: readOnly ?? claim === undefined,
    })),
  }));
}

/** What every pod's image is pulled with: the log-in for the registry of the images, and the others; nothing where there is none. */
export function imagePulls({ registry: { host, username, password }, pullSecrets: { logins, existing } }: Pick<PlatformConfig, "registry" | "pullSecrets">): { pulls?: ImagePulls } {
  const all = [...(username && password ? [{ registry: host, username, password }] : []), ...logins.map((login) => ({ ...login, registry: loginHost(login.registry) }))];
  if (all.length + existing.length === 0) return {};
  return { pulls: { ...(all.length > 0 && { dockerConfigJson: pulumi.secret(dockerConfigJson(all)) }), ...(existing.length > 0 && { existing }) } };
}

/** What all agent pods share. */
export const agentSettings = ({ images, registry, imageRegistry, mirrors, imageCache, agents, agentCache, agentPods, patches, namespaces }: Pick<PlatformConfig, "images" | "registry" | "imageRegistry" | "mirrors" | "imageCache" | "agentCache" | "agentPods" | "patches" | "namespaces"> & { agents: Pick<AgentTemplate, "docker" | "caches" | "cacheGroup" | "userNamespace">[] }): AgentSettings => ({
  priorityClassName: ownPriorities({ controller: namespaces.jenkins, agents: namespaces.agents }).agents,
  agentImage: images.inboundAgent,
  dindImage: images.dockerDind,
  buildkitImage: images.buildkit,
  insecureRegistries: imageRegistry ? [registryAddress(jobsRegistryName, imageRegistry.namespace, pullPort)] : registry.insecure ? [registry.host] : [],
  mirrors: imageCache ? throughCache(mirrors, imageCacheAddresses(imageCache.registries, imageCache.namespace)) : mirrors,
  ...(agentCache && agents.some(keepsGradleBuilds) && { gradleBuildCache: buildCacheAddress(namespaces.agents) }),
  ...(agentCache && { cachePath: agentCache.path, dockerGroupKib: Math.floor((agentCache.dockerGi * 2 ** 20) / Math.max(1, new Set(agents.filter(keepsDocker).map(slotGroup)).size)) }),
  ...(podPatches(patches, defaultsTemplate).length > 0 && { defaultsPatches: podPatches(patches, defaultsTemplate) }),
  pods: agentPods,
});

/** Patches of the agents' pods that change none of them, each made after those before it. */
function agentPatchProblems(config: Parameters<typeof agentSettings>[0] & Pick<Settings, "agents" | "agentCap"> & Pick<PlatformConfig, "pullSecrets">, say: Say): void {
  const pullSecrets = pullSecretNames(imagePulls(config).pulls);
  config.patches.forEach(({ target, patch }, i) => {
    if (target.kind !== "Pod" || Object.keys(patch).length === 0) return;
    const earlier = { ...config, patches: config.patches.slice(0, i) };
    const [settings, templates] = [agentSettings(earlier), agentTemplates(earlier)];
    const pods: Record<string, object> = { ...Object.fromEntries(templates.map((template) => [template.name, agentPod(template, settings)])), [defaultsTemplate]: defaultsPod({ settings, templates, pullSecrets }) };
    const hit = Object.keys(pods).filter((name) => podPatches([config.patches[i]], name).length > 0);
    if (hit.length > 0 && !hit.some((name) => changes(pods[name], patch))) say(`patches[${i}].patch`, ...idlePatch("Pod", hit));
  });
}

/** The registry of the images, and what the stack makes of its own. */
function registryOf(settings: Settings): Pick<PlatformConfig, "registry" | "imageRegistry" | "imageBuild"> {
  const { imageBuild, namespace, registry: { host, port, size, jobsSize, prefix, insecure, username, password } } = settings;
  const registry = { prefix, insecure, ...(username !== undefined && { username }), ...(password !== undefined && { password }) };
  const own = hasOwnRegistry(settings.registry, host !== undefined);
  const build = { imageBuild: { ...imageBuild, builder: imageBuild.builder ?? (own ? ("in-cluster" as const) : ("buildx" as const)) } };
  if (!own) return { registry: { host: host ?? "", ...registry }, ...build };
  const [main, nodes] = namespace === usual.namespace ? ["image-registry", "image-pulls"] : [`${namespace}-registry`, `${namespace}-image-pulls`];
  const made = { namespace: main, nodesNamespace: nodes, port: port ?? usualRegistryPort(namespace), size, jobsSize };
  return { registry: { ...registry, host: `localhost:${made.port}` }, imageRegistry: made, ...build };
}

function loginOf({ oidc, ldap }: Settings["login"]): Login | undefined {
  if (oidc) return { kind: "oidc", oidc: { ...oidc, clientSecret: pulumi.secret(oidc.clientSecret) } };
  if (!ldap) return undefined;
  const { managerPassword, ...rest } = ldap;
  return { kind: "ldap", ldap: { ...rest, ...(managerPassword && { managerPassword: pulumi.secret(managerPassword) }) } };
}

function backupOf({ ssh, standby, verifyVolume: { storageClass, size }, ...backup }: NonNullable<Settings["backup"]>, homeSize: string): BackupConfig {
  // Nothing but its disk keeps a home of hostpath to its size: a larger one is checked as well.
  const twice = homeSize.replace(/^[\d.]+/, (number) => String(Number(number) * 2));
  return {
    ...backup,
    ...(standby && { standby: { ...standby, size: homeSize } }),
    // Every so many minutes, and at each full hour: never later.
    ...(standby?.everyMinutes && { schedule: standby.everyMinutes === 60 ? "0 * * * *" : `*/${standby.everyMinutes} * * * *` }),
    password: pulumi.secret(backup.password),
    keysPassword: pulumi.secret(backup.keysPassword),
    environment: pulumi.secret(backup.environment),
    verifyVolume: storageClass === undefined ? { size: size ?? twice } : { storageClassName: storageClass, size: size ?? homeSize },
    ...(ssh && { ssh: { privateKey: pulumi.secret(ssh.privateKey), knownHosts: ssh.knownHosts } }),
  };
}

/** What keeps a text from being trusted, in a message's words of what is there; undefined for certificates in PEM. */
export function bundleProblem(pem: string): string | undefined {
  if (/-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(pem)) return "a private key, which is nobody else's to have";
  const certificates = certificatesOf(pem);
  const broken = certificates.findIndex((certificate) => {
    try {
      void new X509Certificate(certificate);
      return false;
    } catch {
      return true;
    }
  });
  if (broken >= 0) return `a text whose certificate ${broken + 1} cannot be read`;
  return certificates.length === 0 ? "a text without a certificate" : undefined;
}

/** What a bundle of certificates has to be. */
export const bundleExpected = { expected: "the certificates of authorities in PEM, -----BEGIN CERTIFICATE----- and so on", fix: "openssl x509 -in <file> -noout -subject must name each of them" };

/** An address that no proxy outside can reach: of the private ranges of RFC 1918 and RFC 4193, or the machine's own. */
const isPrivate = (host: string): boolean => /^(10\.|192\.168\.|172\.(1[6-9]|2\d|3[01])\.|127\.)[\d.]+$/.test(host) || /^f[cd][0-9a-f]*:/i.test(host);

/** The network as the keys have it. */
function surroundingsOf({ trust, proxy, domain, ingress, registry, namespace }: Settings, env: Environment, say: Say): Pick<PlatformConfig, "surroundings" | "surroundingsIn"> {
  const { caBundleFile, caBundleConfigMap } = trust;
  const bundle = caBundleFile && fileAt("trust.caBundleFile", caBundleFile, env, say);
  const wrong = bundle === undefined ? undefined : bundleProblem(bundle);
  if (wrong) say("trust.caBundleFile", `${caBundleFile}: ${wrong}`, bundleExpected.expected, bundleExpected.fix);
  const { http = proxy.https, https = proxy.http, username, password, loginSecret } = proxy;
  const host = bareHost((registry.host ?? "").replace(/:\d+$/, ""));
  const noProxy = [...new Set([...alwaysDirect, domain, ...(ingress.externalUrl ? [new URL(ingress.externalUrl).hostname] : []), ...ingress.hosts.map(({ name }) => name), ...(isPrivate(host) ? [host] : []), ...proxy.noProxy.map((each) => each.replace(/^\*(?=\.)/, ""))])].filter((each) => each !== "");
  return {
    surroundings: {
      ...(bundle && !wrong && { caBundle: bundle }),
      ...(http !== undefined && https !== undefined && { proxy: { http, https, noProxy, ...(username && password && { login: { username, password } }) } }),
    },
    surroundingsIn: { ...(caBundleConfigMap && { caBundle: { ...caBundleConfigMap, namespace: caBundleConfigMap.namespace ?? namespace } }), ...(loginSecret && { proxyLogin: { ...loginSecret, namespace: loginSecret.namespace ?? namespace } }) },
  };
}

/** The documents of a folder and its subfolders, by path; each mistake in them with its file and key, and what only Jenkins can judge. */
function readFragments(folder: string, env: Environment, say: Say, warn: (line: string) => void, taken: Omit<CascInput, "fragments" | "templates" | "settings">, surroundings: Surroundings): Record<string, string> {
  if (folder === "" || !env.listFolder) return {};
  const at = expanded(folder, env);
  const list = env.listFolder;
  try {
    const fragments = readCascFolder((below) => list(path.join(at, below)), (file) => env.readFile(path.join(at, file)));
    // Scripts alone do nothing: a document has to name them.
    if (!Object.keys(fragments).some(isDocument)) say("cascFolder", folder, "a folder with files that end in .yaml or .yml");
    // Which keys the platform's own document sets does not depend on these.
    const own = { templates: [], settings: { dindImage: "", buildkitImage: "", insecureRegistries: [], surroundings } };
    for (const { file, problem, severity } of fragmentProblems({ ...own, ...taken, fragments })) {
      if (severity === "error") say("cascFolder", `${file}: ${problem}`, "documents that Jenkins takes", `edit ${path.join(folder, file)}`);
      else warn(`cascFolder: ${path.join(folder, file)} ${problem}`);
    }
    return fragments;
  } catch (error) {
    say("cascFolder", folder, "a folder that can be read", `${(error as Error).message}; correct the path or its permissions`);
    return {};
  }
}

/** Names in a folder, as an Environment gives them. */
export const namesIn = (folder: string): string[] => fs.readdirSync(folder).map((name) => (fs.statSync(path.join(folder, name)).isDirectory() ? `${name}/` : name));

/** What the keys mean together, with what the files say that they name. */
function resolve(settings: Settings, mirrors: Mirrors, env: Environment, say: Say, warn: (line: string) => void, given: (key: string) => boolean): PlatformConfig {
  const { nodePortRange, reserveLocalPorts, namespace, agentCache, kubeconfig, adminPassword, adminExistingSecret, secretFiles, backup } = settings;
  const { tlsSecret, clusterIssuer, hosts: further, ...ingress } = settings.ingress;
  const { image = controllerBuild, plugins, ...controller } = settings.controller;
  const login = loginOf(settings.login);
  const rights = Object.keys(settings.rights).length > 0 ? settings.rights : undefined;
  const furtherPlugins = pluginsOf(plugins, env, say);
  const surroundings = surroundingsOf(settings, env, say);
  const built = builds(settings, login, rights, furtherPlugins, surroundings.surroundings.proxy);
  const hub = mirrors.registries["docker.io"];
  const cached = settings.imageCache.registries.length > 0 && { imageCache: { ...settings.imageCache, namespace: namespace === usual.namespace ? imageCacheName : `${namespace}-${imageCacheName}` } };
  if (hub !== undefined && mirrors.dockerd === undefined && settings.agents.some(({ docker }) => docker === "dind"))
    warn(`mirrors.registries["docker.io"]: ${hub} has a path, with which the Docker daemons of agents can ask no mirror: docker pull and docker build on agents go to Docker Hub. Set mirrors.dockerd to a root address of the mirror, if it has one, or the agents' docker to rootless.`);
  const pullSecrets = { logins: settings.pullSecrets.flatMap(({ registry, username, password }) => (registry && username && password ? [{ registry, username, password }] : [])), existing: settings.pullSecrets.flatMap(({ existing }) => existing ?? []) };
  const agents = agentTemplates(settings);
  for (const { path: at, problem } of cloudSettingsProblems({ cloud: settings.cloud, templates: agents })) say(`cloud.${at}`, problem, "a setting that the kubernetes plugin takes");
  const tls = (tlsSecret ?? clusterIssuer) && { secretName: tlsSecret ?? "jenkins-tls", ...(clusterIssuer && { clusterIssuer }) };
  const kind = ingressController(settings.ingress);
  // Of an issuer each host has its own: one that no longer leads here keeps no other from being renewed.
  const hosts = further.map(({ name, tlsSecret: own, resources }): FurtherHost => ({ name, resources, ...(tls && { secretName: clusterIssuer === undefined ? (own ?? tls.secretName) : `${name}-tls` }) }));
  const address = { ...ingress, controller: kind, install: bringsIngress(settings.ingress), hosts, ...(kind === "gateway" && ingress.gateway && !given("ingress.namespace") && { namespace: ingress.gateway.namespace }), ...(tls && { tls }) };
  const ofItsOwn = namespace === usual.namespace ? "" : `-${namespace}`;
  const { domain, images, agentCap, agentPods, cloud, rehearsal, networkPolicies, prometheusNamespace, serviceMonitor, serviceMonitorLabels, dashboard, patches } = settings;
  // Two environments that shared one folder could put artifacts into each other's builds.
  const cache = agentCache.enabled && { agentCache: { path: agentCache.path ?? `${usual.agentCachePath}${ofItsOwn}`, maxGi: agentCache.maxGi, dockerGi: agentCache.dockerGi, gradleBuildSize: agentCache.gradleBuildSize } };
  const namespaces = { jenkins: namespace, agents: `${namespace}-agents`, builds: ofItsOwn === "" ? "image-builds" : `${namespace}-image-builds` };
  const registries = registryOf(settings);
  agentPatchProblems({ agents: settings.agents, agentCap, images, ...registries, mirrors, ...cached, pullSecrets, agentPods, patches, namespaces, ...cache }, say);
  const { priorityClassName = ownPriorities({ controller: namespace, agents: namespaces.agents }).controller } = controller;
  return {
    domain, images, ...registries, mirrors, ...cached, pullSecrets, agentCap, agentPods, cloud, rehearsal, networkPolicies, serviceMonitor, serviceMonitorLabels, dashboard, secretFiles, patches,
    ...(prometheusNamespace && { prometheusNamespace }),
    ...(kubeconfig && { kubeconfigAsGiven: kubeconfig }),
    cluster: { ...(kubeconfig && { kubeconfig: expanded(kubeconfig, env) }), context: settings.kubeContext },
    namespaces,
    storage: { className: settings.storageClass, install: settings.storageInstall, basePath: settings.storageBasePath, size: settings.storageSize, protectHome: settings.protectHome },
    ...(nodePortRange !== "none" && { nodePorts: { range: nodePortRange, reserveLocalPorts, access: controlPlaneAccess(settings.controlPlane, env, say), ports: heldPorts({ ingress: address, controller, namespaces }).map(({ port }) => port) } }),
    builds: built,
    controller: { ...controller, image, priorityClassName },
    agents,
    ...cache,
    ingress: address,
    admin: {
      user: settings.adminUser,
      ...(adminPassword && { password: pulumi.secret(adminPassword) }),
      passwordVersion: settings.adminPasswordVersion,
      ...(adminExistingSecret && { existingSecret: adminExistingSecret }),
    },
    ...(login && { login }),
    ...(rights && { rights }),
    cascFragments: readFragments(settings.cascFolder, env, say, warn, {
      // Without a domain, which has been reported, there is no address to compare with.
      url: domain === "" ? "" : jenkinsUrl(addressOf({ domain, ingress: address })),
      ...(domain !== "" && { resourceUrl: resourceUrl(addressOf({ domain, ingress: address })) }),
      login, rights, namespace, agentsNamespace: `${namespace}-agents`, containerCap: agentCap, env: Object.keys(controller.env), envFrom: controller.envFrom,
      plugins: bakedIn(built, ownBuilds(images)),
      secretNames: secretNames({ secretFiles, ...(adminExistingSecret && { adminExistingSecret }) }),
    }, surroundings.surroundings),
    ...(backup && { backup: backupOf(backup, settings.storageSize) }),
    ...surroundings,
  };
}

/**
 * Checks the whole stack config.
 * @param raw the stack's keys without namespace; objects as such or as JSON text
 * @returns every mistake; the config is fit for use only if there is none. Warnings are about what only Jenkins can judge
 */
export function parseConfig(raw: Record<string, unknown>, env: Environment): { config: PlatformConfig; problems: Problem[]; warnings: string[] } {
  const warnings: string[] = [];
  const problems: Problem[] = [];
  const say: Say = (key, ...told) => void problems.push(mistakeAt(nameAsGiven(raw, key), ...told));
  visitKeys(raw, ({ about }, key) => {
    if (about.secret && isGiven(raw, key) && !env.isSecret(key.split(/[.[]/)[0])) say(key, "a value in plain text", "an encrypted value", fixOf(key));
  });
  // What is encrypted where nothing is kept secret would stand in plain text in the cluster and in the state.
  const exposed = Object.keys(raw).filter((key) => Object.hasOwn(root.keys!, key) && !holdsSecret(root.keys![key]) && isGiven(raw, key) && env.isSecret(key));
  const { settings, problems: single } = readSettings(raw);
  problems.push(...single);
  visitKeys(settings, ({ about }, key, value) => {
    if (about.required && (value === undefined || value === "") && !single.some((problem) => problem.key === key) && !isGiven(raw, key)) say(key, undefined, about.expected!);
  });
  for (const rule of rules) rule(settings, say, (key) => isGiven(raw, key));
  const mirrors = mirrorsOf(settings);
  const images = Object.fromEntries(Object.entries(settings.images).map(([key, image]) => [key, isGiven(raw, `images.${key}`) ? image : mirrored(image, mirrors.registries)])) as Settings["images"];
  const config = resolve({ ...settings, images }, mirrors, env, say, (line) => void warnings.push(line), (key) => isGiven(raw, key));
  // Of such a key nothing else is said, it would be shown; nor of what an object lacks that is none.
  const rest = problems.filter(({ key }) => !exposed.includes(key.split(/[.[]/)[0]) && !single.some((problem) => key.startsWith(`${problem.key}.`)));
  const refused = exposed.map((key) => mistakeAt(key, "an encrypted value", "plain text: what this key holds stands unencrypted in the cluster", "give secrets by secretFiles or controller.envFrom, and set the key without --secret"));
  return { config, problems: [...refused, ...rest], warnings };
}

/** All mistakes as one text for people. */
export function explain(problems: Problem[], stack: string): string {
  const part = (name: string, text: string | undefined) => (text === undefined ? "" : `\n    ${name.padEnd(8)}  ${text}`);
  const lines = problems.map((p) => `  ${p.key}${part("found", p.found)}${part("expected", p.expected)}${part("fix", p.fix)}`);
  return `Stack ${stack} cannot be brought up as configured; nothing was changed. To mend:\n${lines.join("\n")}`;
}

/**
 * The config of the selected stack.
 * @throws RunError with every mistake, before any resource exists
 */
export function loadConfig(): PlatformConfig {
  const prefix = `${pulumi.getProject()}:`;
  const raw = Object.fromEntries(
    Object.entries(pulumi.runtime.allConfig()).flatMap(([key, value]) => (key.startsWith(prefix) ? [[key.slice(prefix.length), value]] : [])),
  );
  // The SDK exports it for its own Config class without a declaration.
  const { isConfigSecret } = pulumi.runtime as unknown as { isConfigSecret(key: string): boolean };
  const { config, problems, warnings } = parseConfig(raw, {
    readFile: (file) => fs.readFileSync(file, "utf8"),
    listFolder: namesIn,
    homeDirectory: os.homedir(),
    isSecret: (key) => isConfigSecret(prefix + key),
  });
  warnings.forEach((line) => void pulumi.log.warn(line));
  if (problems.length > 0) throw refusal(explain(problems, pulumi.getStack()));
  return config;
}
