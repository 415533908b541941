import * as path from "node:path";
import { quantityMillis } from "../components/quantity";
import { ownMounts, ownSecretNames, ownVariables, portOf, secretFileName, tlsEndsBefore } from "../components/jenkins-master";
import { defaultsTemplate } from "../components/jenkins-master/casc";
import { roles } from "../components/jenkins-master/login";
import { upstreamOf } from "../components/mirrors";
import { controllerBuild, ownBuilds } from "./builds";
import { mirrorsOf } from "./mirrors";
import { fits, imageReference, isObject, networkAddress, portRange, rangeEnds, usual, usualRegistryPort } from "./pieces";
import type { Settings } from "./schema";

/** What holds between keys. Each rule is asked with the keys that are good by themselves; what is not has been reported. */

/** Reports a mistake: where, what is there (undefined for nothing), what is expected, and what helps if not the usual command. */
export type Say = (key: string, found: unknown, expected: string, fix?: string) => void;

type Rule = (settings: Settings, say: Say, given: (key: string) => boolean) => void;

/** What is wrong with a node-port range, or nothing. The ports of the ingress, and that of agents where there is one, must lie inside. @param listens whether the stack brings the ingress */
export function rangeProblem(text: string, ports: number[] = [80, 443], listens = true): string | undefined {
  const ends = rangeEnds(text);
  if (!ends || !fits(portRange, text)) return portRange.expected;
  const [low, high] = ends;
  const [http, https, agents] = ports;
  if (ports.some((port) => port < low || port > high)) return listens || agents === undefined
    ? `a range that holds ${http} and ${https}, where the ingress listens${agents === undefined ? "" : `, and ${agents} of controller.agentNodePort`}`
    : `a range that holds ${agents} of controller.agentNodePort, beside ${http} and ${https}, ingress.httpNodePort and httpsNodePort`;
  return undefined;
}

const ingressPortsDiffer: Rule = ({ ingress, registry, namespace, controller: { agentNodePort } }, say, given) => {
  if (agentNodePort !== undefined && hasOwnRegistry(registry, given("registry.host")) && agentNodePort === (registry.port ?? usualRegistryPort(namespace))) say("controller.agentNodePort", agentNodePort, "another port than that of the registry on every node (registry.port)", "choose another for one of the two");
  if (agentNodePort !== undefined && bringsIngress(ingress) && [ingress.httpNodePort, ingress.httpsNodePort].includes(agentNodePort)) say("controller.agentNodePort", agentNodePort, "another port than those of the ingress", "choose another, or remove it: by WebSocket agents come in through the ingress");
  if (ingress.httpNodePort === ingress.httpsNodePort) say("ingress.httpsNodePort", ingress.httpsNodePort, "another port than httpNodePort", "choose another for one of the two");
};

/** The ingress controller that the stack brings; ingress-nginx where nothing is said of one. */
export const ingressController = ({ controller, install }: Settings["ingress"]): NonNullable<Settings["ingress"]["controller"]> => (install ? (controller ?? "nginx") : "none");

/** Whether the stack brings it. With gateway that is Traefik, where no other Gateway is named. */
export const bringsIngress = (ingress: Settings["ingress"]): boolean => ["nginx", "traefik"].includes(ingressController(ingress)) || (ingressController(ingress) === "gateway" && ingress.gateway === undefined);

const oneWordAboutIngress: Rule = ({ ingress: { controller, install } }, say) => {
  if (!install && controller !== undefined && controller !== "none") say("ingress.install", false, `nothing beside ingress.controller: ${controller}`, "pulumi config rm --path 'ingress.install'");
};

/** What a Gateway does itself, or what only an Ingress has. */
const gatewayIsWhole: Rule = ({ domain, ingress }, say, given) => {
  const wanted = ingressController(ingress) === "gateway";
  if (!wanted && ingress.gateway) say("ingress.gateway", ingress.gateway.name, "nothing without ingress.controller: gateway", "pulumi config set --path 'ingress.controller' gateway, or remove it");
  if (!wanted) return;
  const { externalUrl } = ingress;
  const host = externalUrl === undefined ? undefined : new URL(externalUrl).hostname;
  const others = ingress.gateway !== undefined || given("ingress.gateway");
  if (host !== undefined && domain !== "" && host !== domain && !ingress.hosts.some(({ name }) => name === host)) say("ingress.externalUrl", externalUrl, `an address of host ${domain}, or of one of ingress.hosts: the route takes no other, and people would get 404`, `pulumi config set domain ${host}, or add it to ingress.hosts`);
  for (const key of ["annotations", "maxBodySize"].filter((each) => !others && given(`ingress.${each}`))) say(`ingress.${key}`, "a setting of an Ingress", "nothing beside ingress.controller: gateway, whose HTTPRoute has none", `pulumi config rm --path 'ingress.${key}'`);
  const theirs = ["className", "tlsSecret", "clusterIssuer", "annotations", "maxBodySize", "hstsSeconds", "replicas", "externalTrafficPolicy", "httpNodePort", "httpsNodePort"];
  for (const key of theirs.filter((each) => others && given(`ingress.${each}`))) say(`ingress.${key}`, "a setting of an Ingress or its controller", "nothing beside ingress.gateway: ports, certificates and limits are the Gateway's", `pulumi config rm --path 'ingress.${key}'; ingress.externalUrl says the address, with https`);
};

/** Kinds of annotations that let whoever writes an Ingress run code in the controller. */
const isSnippet = (annotation: string) => /^nginx\.ingress\.kubernetes\.io\/.*-snippet$/.test(annotation);

/** What the policy pack goes by is the platform's own to say. */
const ownAnnotations: Rule = ({ ingress, patches }, say) => {
  const refuse = (at: string, names: string[]) => names.filter((each) => each.startsWith("build-platform/")).forEach((each) => say(`${at}["${each}"]`, "an annotation of the platform's own", "none that begins with build-platform/: policies go by what the platform says there", "remove it; ingress.externalUrl says an address where TLS ends before the ingress"));
  refuse("ingress.annotations", Object.keys(ingress.annotations));
  patches.forEach(({ target, patch: { metadata } }, i) => {
    if (["Ingress", "HTTPRoute"].includes(target.kind) && isObject(metadata) && isObject(metadata.annotations)) refuse(`patches[${i}].patch.metadata.annotations`, Object.keys(metadata.annotations));
  });
};

/** Annotations that are lists of addresses. */
const isSourceList = (annotation: string) => /^nginx\.ingress\.kubernetes\.io\/(whitelist|allowlist|denylist)-source-range$/.test(annotation);

/** ingress-nginx leaves such an Ingress out from its next start on, Traefik at once: the API server takes it all the same. */
const ingressIsTaken: Rule = ({ ingress, patches }, say) => {
  if (!bringsIngress(ingress)) return;
  const nginx = ingressController(ingress) === "nginx";
  const data = (patch: Record<string, unknown>) => (isObject(patch.data) ? patch.data : {});
  const snippets = nginx && patches.some(({ target, patch }) => target.kind === "ConfigMap" && data(patch)["allow-snippet-annotations"] === "true" && data(patch)["annotations-risk-level"] === "Critical");
  const places: [string, unknown][] = [["ingress", ingress], ...patches.map(({ target, patch }, i): [string, unknown] => [`patches[${i}].patch.metadata`, target.kind === "Ingress" && patch.metadata])];
  for (const [at, place] of places)
    for (const [name, value] of Object.entries(isObject(place) && isObject(place.annotations) ? place.annotations : {})) {
      const key = `${at}.annotations["${name}"]`;
      if (isSnippet(name) && value !== null && !snippets)
        say(key, "a snippet for nginx' own configuration", `no annotation of that kind: ${nginx ? "ingress-nginx as the platform sets it up" : "Traefik"} refuses an Ingress that has one, and nobody would reach Jenkins`, "remove it; most snippets have an annotation of their own");
      if (isSourceList(name) && typeof value === "string")
        for (const each of value.split(",").map((text) => text.trim()).filter((text) => !fits(networkAddress, text)))
          say(key, each, `${networkAddress.expected}, several of them with commas between: the controller leaves out an Ingress with anything else, and nobody would reach Jenkins`, "correct it");
    }
};

/** What stands before the nodes: TLS ends in one place, and who ends it before the ingress is believed to have done so. */
const outsideFits: Rule = ({ ingress }, say, given) => {
  const { externalUrl, trustedProxies, proxyProtocol, tlsSecret, clusterIssuer, externalTrafficPolicy } = ingress;
  const traefik = ["traefik", "gateway"].includes(ingressController(ingress));
  const tls = tlsSecret ?? clusterIssuer;
  const before = tlsEndsBefore({ ...(tls && { tls: {} }), ...(externalUrl && { externalUrl }) });
  if (externalUrl?.startsWith("http:") && tls !== undefined)
    say("ingress.externalUrl", externalUrl, `an address with https: the ingress has certificate ${tls}`, `pulumi config set --path 'ingress.externalUrl' ${externalUrl.replace("http:", "https:")}; or remove ingress.${tlsSecret === undefined ? "clusterIssuer" : "tlsSecret"}`);
  if (!bringsIngress(ingress)) {
    for (const key of ["trustedProxies", "proxyProtocol"].filter((each) => given(`ingress.${each}`)))
      say(`ingress.${key}`, "a setting of the ingress controller", "nothing where the controller is somebody else's, who has to be told there", `pulumi config rm --path 'ingress.${key}'`);
    return;
  }
  if (trustedProxies.length === 0 && !given("ingress.trustedProxies")) {
    if (before) say("ingress.trustedProxies", undefined, `the addresses of who ends TLS for ${externalUrl} before the nodes: Jenkins would take every request for plain HTTP`, "pulumi config set --path 'ingress.trustedProxies[0]' <address or CIDR>; or let TLS end at the ingress: ingress.tlsSecret or ingress.clusterIssuer");
    if (proxyProtocol) say("ingress.trustedProxies", undefined, "the addresses of who speaks PROXY protocol", "pulumi config set --path 'ingress.trustedProxies[0]' <address or CIDR>");
    return;
  }
  trustedProxies.forEach((each, i) => {
    if (/\/0+$/.test(each)) say(`ingress.trustedProxies[${i}]`, each, "the addresses of the proxies alone: everybody would be believed about who they are", "name each proxy, or its network");
  });
  if (proxyProtocol && before) say("ingress.proxyProtocol", true, `a proxy that sends X-Forwarded-Proto, as TLS for ${externalUrl} ends there: PROXY protocol does not tell of https`, "set it to false and have the proxy send X-Forwarded-*; or let it pass TLS on, and set ingress.tlsSecret or ingress.clusterIssuer");
  // A Gateway's route takes it.
  if (ingressController(ingress) === "traefik" && !proxyProtocol && tls !== undefined && (externalUrl ? portOf(new URL(externalUrl)) : ingress.httpsNodePort) !== 443)
    say("ingress.trustedProxies", trustedProxies.join(", "), "nothing beside a certificate and another HTTPS port than 443 with Traefik: what a proxy marks as https on port 80 would lead nowhere", "pulumi config rm --path 'ingress.trustedProxies'; or let TLS end at the proxy alone, or people come by 443");
  // It looks at who a packet is from, where nginx believes the header of everybody.
  if (traefik && externalTrafficPolicy === "Cluster")
    say("ingress.externalTrafficPolicy", externalTrafficPolicy, "Local beside ingress.trustedProxies: with Cluster Traefik sees a node's address in place of the proxy's, and does not believe it", "pulumi config set --path 'ingress.externalTrafficPolicy' Local, with ingress.replicas for every node that the proxy leads to");
};

const hostsDiffer: Rule = ({ domain, ingress: { hosts, externalUrl, tlsSecret, clusterIssuer } }, say, given) => {
  const tls = tlsSecret ?? clusterIssuer;
  const shown = hosts.findIndex(({ resources }) => resources);
  hosts.forEach(({ name, tlsSecret: own, resources }, i) => {
    const at = `ingress.hosts[${i}]`;
    if (name !== "" && (name === domain || hosts.findIndex((other) => other.name === name) < i)) say(`${at}.name`, name, "a host name that is not served already");
    if (own !== undefined && tls === undefined && !given("ingress.tlsSecret") && !given("ingress.clusterIssuer")) say(`${at}.tlsSecret`, own, "nothing without ingress.tlsSecret or ingress.clusterIssuer: the domain itself has no HTTPS here", "remove it, or set one of the two");
    if (own !== undefined && clusterIssuer !== undefined) say(`${at}.tlsSecret`, own, `nothing beside ingress.clusterIssuer ${clusterIssuer}: cert-manager would take that Secret over; it makes ${name}-tls for this host`, `remove it; or remove ingress.clusterIssuer, and set ingress.tlsSecret`);
    if (resources && i > shown) say(`${at}.resources`, true, "one host for resources", "remove it from one of the two");
    if (resources && externalUrl !== undefined && /^https?:\/\/([^/:]+)/.exec(externalUrl)?.[1] === name) say(`${at}.resources`, true, `another host than that of ingress.externalUrl, ${name}: what is shown there must not be Jenkins' own page`, "name another host");
  });
};

const namespaceIsJenkinsAlone: Rule = ({ namespace, ingress }, say) => {
  const taken = ["default", "openebs", ...(bringsIngress(ingress) ? [ingress.namespace] : [])];
  if (taken.includes(namespace) || taken.includes(`${namespace}-agents`) || namespace.startsWith("kube-"))
    say("namespace", namespace, "a namespace for Jenkins alone, which the stack makes and deletes", "pulumi config set namespace jenkins");
};

const folderIsTheClassesOwn: Rule = ({ storageInstall, storageBasePath }, say) => {
  if (storageInstall === "none" && storageBasePath !== usual.basePath) say("storageBasePath", storageBasePath, "nothing beside storageInstall: none, where the class decides", "pulumi config rm storageBasePath");
};

const rangeHoldsIngress: Rule = ({ nodePortRange, ingress, controller: { agentNodePort } }, say) => {
  const wrong = nodePortRange === "none" ? undefined : rangeProblem(nodePortRange, [ingress.httpNodePort, ingress.httpsNodePort, ...(agentNodePort === undefined ? [] : [agentNodePort])], bringsIngress(ingress));
  if (wrong) say("nodePortRange", nodePortRange, `${wrong}, or none where it is left as it is`, nodePortRange === usual.nodePortRange ? "choose ports within it, of ingress.httpNodePort, ingress.httpsNodePort and controller.agentNodePort" : `pulumi config set nodePortRange ${usual.nodePortRange}`);
};

const nodesAreLeftAlone: Rule = ({ nodePortRange }, say, given) => {
  if (nodePortRange === "none" && given("controlPlane")) say("controlPlane", "access to control-plane nodes", "nothing beside nodePortRange: none, which changes no node", "pulumi config rm controlPlane");
};

const everyNodeOnce: Rule = ({ nodePortRange, controlPlane: { access, nodes } }, say) => {
  if (nodePortRange === "none") return;
  if (nodes.length === 0) say("controlPlane.nodes", undefined, "every control-plane node of the cluster", "list them under controlPlane.nodes in the stack's file: name, host and hostKey of each");
  nodes.forEach(({ name }, i) => {
    if (name !== "" && nodes.findIndex((other) => other.name === name) < i) say(`controlPlane.nodes[${i}].name`, name, "a name no other node of the list has");
  });
  if (access === "local" && nodes.length > 1) say("controlPlane.nodes", nodes.map(({ name }) => name).join(", "), "one node with access: local, the machine pulumi runs on", "set access: ssh");
};

const localNeedsNoLogin: Rule = ({ nodePortRange, controlPlane: { access, nodes } }, say, given) => {
  if (nodePortRange === "none" || access !== "local") return;
  const settings = ["user", "port", "privateKey", "privateKeyFile", "certificate", "certificateFile", "agentSocket", "proxy", ...nodes.flatMap((_, i) => ["host", "hostKey", "hostKeyFile"].map((key) => `nodes[${i}].${key}`))];
  for (const key of settings.map((each) => `controlPlane.${each}`)) if (given(key)) say(key, "an SSH setting", "nothing beside access: local", "remove it, or set access: ssh");
};

const sshNeedsLogin: Rule = ({ nodePortRange, controlPlane: { access, nodes, proxy, ...login } }, say, given) => {
  if (nodePortRange === "none" || access !== "ssh") return;
  const hostKeyAt = (at: string) => {
    if (given(`${at}.hostKey`) && given(`${at}.hostKeyFile`)) say(`${at}.hostKeyFile`, "a file beside hostKey", "only one of the two", "remove one of them");
    if (!given(`${at}.hostKey`) && !given(`${at}.hostKeyFile`))
      say(`${at}.hostKey`, undefined, "the node's SSH host key, so that nobody can pose as it", "take it from /etc/ssh/ssh_host_ed25519_key.pub on the node itself, or name that file as hostKeyFile");
  };
  nodes.forEach((_, i) => {
    const at = `controlPlane.nodes[${i}]`;
    if (!given(`${at}.host`)) say(`${at}.host`, undefined, "a host name or address");
    hostKeyAt(at);
  });
  const hops = proxy.map((_, i) => `controlPlane.proxy[${i}]`);
  hops.forEach(hostKeyAt);
  for (const at of ["controlPlane", ...hops])
    for (const key of ["privateKey", "certificate"])
      if (given(`${at}.${key}`) && given(`${at}.${key}File`)) say(`${at}.${key}File`, `a file beside ${key}`, "only one of the two", "remove one of them");
  if (!login.agentSocket && !given("controlPlane.agentSocket") && !given("controlPlane.privateKey") && !given("controlPlane.privateKeyFile"))
    say("controlPlane.privateKey", undefined, "a way to log in: privateKey, privateKeyFile or agentSocket", "pulumi config set --path 'controlPlane.privateKeyFile' ~/.ssh/id_ed25519");
};

const oneBundle: Rule = ({ trust: { caBundleFile, caBundleConfigMap } }, say) => {
  if (caBundleFile !== undefined && caBundleConfigMap) say("trust.caBundleConfigMap", `a ConfigMap beside the file ${caBundleFile}`, "one of caBundleFile and caBundleConfigMap", "remove one of them");
};

const proxyIsWhole: Rule = ({ proxy: { http, https, noProxy, username, loginSecret } }, say, given) => {
  const password = given("proxy.password");
  if (http === undefined && https === undefined && !given("proxy.http") && !given("proxy.https") && (noProxy.length > 0 || username !== undefined || password || loginSecret)) say("proxy.https", undefined, "the address of the proxy, such as http://proxy.example.com:3128");
  if ((username !== undefined) !== password) say(username === undefined ? "proxy.username" : "proxy.password", undefined, "both username and password, or neither");
  if (loginSecret && (username !== undefined || password)) say("proxy.loginSecret", "a Secret beside username and password", "one of the two", "remove one of them");
};

const registryLoginIsWhole: Rule = ({ registry: { username, password } }, say) => {
  if ((username === undefined) !== (password === undefined)) say(username === undefined ? "registry.username" : "registry.password", undefined, "both username and password, or neither");
};

const pullSecretsAreWhole: Rule = ({ pullSecrets, registry }, say, given) => {
  const login = ["registry", "username", "password"] as const;
  // Of the registry's own there is one, for pushes and pulls alike.
  const taken = new Set([registry.host]);
  pullSecrets.forEach((entry, i) => {
    const at = `pullSecrets[${i}]`;
    for (const key of login) {
      if (entry.existing !== undefined && given(`${at}.${key}`)) say(`${at}.${key}`, entry[key], "nothing beside existing, a Secret that has its own log-ins", "make two entries of it, or remove one of the two");
      if (entry.existing === undefined && !given(`${at}.existing`) && !given(`${at}.${key}`)) say(`${at}.${key}`, undefined, "registry, username and password, or existing in place of the three");
    }
    if (entry.registry !== undefined && taken.has(entry.registry)) say(`${at}.registry`, entry.registry, "another registry: each has one log-in, that of registry.host by registry.username and registry.password", "remove this one");
    if (entry.registry !== undefined) taken.add(entry.registry);
  });
};

const cacheHasItsUpstream: Rule = (settings, say, given) => {
  const { registries } = settings.imageCache;
  const mirrors = mirrorsOf(settings);
  registries.forEach((registry, i) => {
    const at = `imageCache.registries[${i}]`;
    if (registries.indexOf(registry) < i) say(at, registry, "each registry once", "remove one of them");
    if (upstreamOf(registry, mirrors) === undefined) say(at, `${registry}, whose mirror ${mirrors.registries[registry]} has a path`, "a registry that a cache can ask as a whole, at a root address", registry === "docker.io" ? "set mirrors.dockerd to a root address of the mirror, or remove it here" : "remove it here, or from mirrors.registries");
  });
  if (registries.length > 0 || given("imageCache.registries")) return;
  for (const key of ["size", "keepDays", "open"].filter((each) => given(`imageCache.${each}`))) say(`imageCache.${key}`, "a setting of the cache", "nothing without imageCache.registries, which name what it keeps", "pulumi config set --path 'imageCache.registries[0]' docker.io");
};

/** Whether the stack brings its own registry: also where nothing is said of one. */
export const hasOwnRegistry = ({ builtIn }: Settings["registry"], givenHost: boolean): boolean => builtIn ?? !givenHost;

const oneRegistry: Rule = ({ registry }, say, given) => {
  const givenOf = (...keys: string[]) => keys.map((key) => `registry.${key}`).filter(given);
  const foreign = givenOf("host", "insecure", "username", "password");
  if (registry.builtIn) for (const key of foreign) say(key, "a setting of another registry", "nothing beside registry.builtIn: true, which needs neither address nor login", `pulumi config rm --path '${key}', or registry.builtIn to use that registry`);
  else if (!given("registry.host") && (registry.builtIn === false || foreign.length > 0)) say("registry.host", undefined, `the registry's address, because of ${foreign[0] ?? "registry.builtIn: false"}; without that the stack brings a registry of its own`);
  if (hasOwnRegistry(registry, given("registry.host"))) return;
  for (const key of givenOf("port", "size", "jobsSize")) say(key, "a setting of the built-in registry", "nothing beside registry.host", `pulumi config rm --path '${key}'`);
};

const cacheReachesRegistry: Rule = ({ registry, imageBuild: { builder = "in-cluster", cache } }, say, given) => {
  if (builder !== "in-cluster" && cache === "registry" && hasOwnRegistry(registry, given("registry.host")))
    say("imageBuild.cache", cache, `a folder of this machine with builder ${builder}, which does not reach the built-in registry`, "pulumi config set --path 'imageBuild.cache' <folder>");
};

const upstreamArgsAreKnown: Rule = ({ agentImages, images }, say) => {
  for (const [name, { args }] of Object.entries(agentImages))
    for (const [arg, text] of Object.entries(args))
      if (text.startsWith("upstream:") && !Object.hasOwn(images, text.slice("upstream:".length))) say(`agentImages.${name}.args.${arg}`, text, `upstream: and one of ${Object.keys(images).join(", ")}`);
};

const agentsAreSomeAndDiffer: Rule = ({ agents }, say) => {
  if (agents.length === 0) say("agents", undefined, "at least one agent template; the controller itself builds nothing", "remove the key to get the maven and gradle agents");
  agents.forEach(({ name }, i) => {
    if (name === defaultsTemplate) say(`agents[${i}].name`, name, "another name: the template that all pods start from is called that", "rename it");
    if (name !== "" && agents.findIndex((other) => other.name === name) < i) say(`agents[${i}].name`, name, "a name no other agent has");
  });
};

const agentImagesAreKnown: Rule = ({ agents, agentImages, images }, say) => {
  const builds = Object.keys({ ...ownBuilds(images), ...agentImages });
  agents.forEach(({ image }, i) => {
    if (image !== "" && !builds.includes(image) && !fits(imageReference, image))
      say(`agents[${i}].image`, image, `the name of a built image (${builds.filter((build) => build !== controllerBuild).join(", ")}) or a full image reference`);
  });
};

const agentVolumesAreOfOneThing: Rule = ({ agents, namespace }, say) => {
  agents.forEach(({ volumes }, i) =>
    volumes.forEach((volume, j) => {
      const kinds = (["configMap", "secret", "claim"] as const).filter((kind) => volume[kind] !== undefined);
      if (kinds.length !== 1) say(`agents[${i}].volumes[${j}].${kinds[1] ?? "configMap"}`, kinds.length === 0 ? undefined : kinds.join(" and "), `one of configMap, secret or claim, with the name of one in namespace ${namespace}-agents`);
    }),
  );
};

const agentVolumesHaveTheirPlaces: Rule = ({ agents }, say) => {
  agents.forEach(({ volumes }, i) => {
    const taken = new Set(ownMounts);
    volumes.forEach(({ mountPath }, j) => {
      const place = path.posix.normalize(`${mountPath}/`).slice(0, -1);
      if (mountPath !== "" && taken.has(place)) say(`agents[${i}].volumes[${j}].mountPath`, mountPath, ownMounts.includes(place) ? "another folder: the platform mounts its own there" : "a folder that no other volume of the agent has");
      taken.add(place);
    });
  });
};

const dockerIsKeptForDockerd: Rule = ({ agents }, say, given) => {
  agents.forEach(({ docker, caches }, i) => {
    if (caches.includes("docker") && docker !== "dind") say(`agents[${i}].caches`, `docker beside docker: ${docker}`, "docker only beside docker: dind, whose daemon's data they are", "remove it from caches, or set docker: dind");
    if (given(`agents[${i}].cacheGroup`) && caches.every((tool) => tool === "maven" || tool === "gradle")) say(`agents[${i}].cacheGroup`, agents[i].cacheGroup, "nothing where caches has only maven and gradle, which all agents of a node share", "add another tool to caches, or remove it");
  });
};

/** Agents that wait have one build each, and their place within the caps: a kind without a cap of its own may have as many as agentCap. */
const idleAgentsFit: Rule = ({ agents, agentCap }, say) => {
  agents.forEach(({ minIdle, minIdleTimes, idleMinutes, cap }, i) => {
    if (minIdle > 0 && idleMinutes > 0) say(`agents[${i}].minIdle`, `${minIdle} beside idleMinutes: ${idleMinutes}`, "agents that wait for their one build, so idleMinutes: 0", "remove one of both");
    if (cap !== undefined && minIdle > cap) say(`agents[${i}].minIdle`, minIdle, `at most ${cap}, the cap of this kind`, "raise cap, or lower it");
    if (minIdle === 0 && minIdleTimes) say(`agents[${i}].minIdleTimes`, minIdleTimes, "nothing where minIdle is 0", "set minIdle, or remove it");
  });
  const all = agents.reduce((sum, { minIdle }) => sum + minIdle, 0);
  if (all > agentCap) say("agentCap", agentCap, `at least ${all}, the sum of minIdle over all agents`, "raise it, or lower agents[].minIdle");
};

/** The API server hears of an agent's tolerations only when a build wants one, and then refuses its pod. */
const tolerationsAreWhole: Rule = ({ agents, controller }, say, given) => {
  const lists = [...agents.map(({ tolerations }, i) => ({ at: `agents[${i}].tolerations`, tolerations })), { at: "controller.tolerations", tolerations: controller.tolerations }];
  for (const { at, tolerations } of lists)
    tolerations.forEach(({ key, operator, value }, i) => {
      if (operator === "Exists" && value !== undefined) say(`${at}[${i}].value`, value, "nothing beside operator: Exists, which takes any value");
      if (operator !== "Exists" && key === undefined && !given(`${at}[${i}].key`)) say(`${at}[${i}].key`, undefined, "a taint's key, or operator: Exists without one, which accepts every taint");
    });
};

const heapHasRoom: Rule = ({ controller: { resources } }, say, given) => {
  const memory = resources.limits.memory;
  if (memory === undefined && given("controller.resources.limits.memory")) return; // What is wrong with it is said already.
  if (memory === undefined || quantityMillis(memory) < quantityMillis("512Mi")) say("controller.resources.limits.memory", memory, "at least 512Mi; the JVM's heap is a share of it");
};

const pluginsAreBuiltIn: Rule = ({ controller: { image, plugins } }, say) => {
  if (image !== undefined && plugins.length > 0) say("controller.plugins", plugins, "nothing beside controller.image, into which the stack bakes nothing", "remove one of them");
};

const ownVariablesAreLeftAlone: Rule = ({ controller: { env } }, say) => {
  for (const name of Object.keys(env).filter((each) => ownVariables.includes(each)))
    say(`controller.env.${name}`, env[name], "another variable: the platform sets this one itself", name === "JAVA_OPTS" ? "move what is in it to controller.javaOpts" : "remove it; what no key can change, patches can");
};

const onePassword: Rule = ({ adminPassword, adminExistingSecret, adminPasswordVersion, adminUser }, say) => {
  if (adminPassword && adminExistingSecret) say("adminExistingSecret", adminExistingSecret, "nothing beside adminPassword", "pulumi config rm adminPassword");
  if (adminPasswordVersion !== 1 && (adminPassword || adminExistingSecret))
    say("adminPasswordVersion", adminPasswordVersion, `nothing beside ${adminPassword ? "adminPassword: a new password is a new value of it" : "adminExistingSecret: a new password is a change of that Secret"}`, "pulumi config rm adminPasswordVersion");
  if (adminExistingSecret && adminUser !== "admin") say("adminUser", adminUser, "nothing beside adminExistingSecret, whose key admin-user has the name", "pulumi config rm adminUser");
};

const oneLogin: Rule = ({ login: { oidc, ldap } }, say) => {
  if (oidc && ldap) say("login.ldap", "a directory beside login.oidc", "one way to log in", "remove one of them");
};

const directoryIsWhole: Rule = ({ login: { ldap } }, say, given) => {
  if (!ldap) return;
  const [manager, password] = [ldap.managerDN !== "", given("login.ldap.managerPassword")];
  if (manager !== password)
    say(manager ? "login.ldap.managerPassword" : "login.ldap.managerDN", undefined, "both managerDN and managerPassword, or neither for anonymous searches", manager ? "pulumi config set --secret --path 'login.ldap.managerPassword' <value>" : undefined);
  if (ldap.groupMembershipAttribute !== "" && ldap.groupMembershipFilter !== "") say("login.ldap.groupMembershipFilter", ldap.groupMembershipFilter, "nothing beside groupMembershipAttribute", "remove one of them");
};

/** Whom a login lets in has some rights, and somebody has them all. */
const loginHasRights: Rule = ({ login: { oidc, ldap }, rights }, say) => {
  if (!oidc && !ldap) return;
  const example = "pulumi config set --path 'rights.admin.groups[0]' <group>";
  if (roles.every((role) => rights[role] === undefined))
    return say("rights", undefined, "who may do what: admin, developer and reader, each with groups and users; a login without rights would let everybody it knows do anything", example);
  const localIsOut = oidc === undefined || !oidc.escapeHatch;
  if (localIsOut && (rights.admin?.groups.length ?? 0) + (rights.admin?.users.length ?? 0) === 0)
    say("rights.admin", undefined, "at least one group or user: with this login the local administrator cannot log in", example);
  const groups = roles.flatMap((role) => rights[role]?.groups ?? []).filter((group) => group !== "authenticated");
  if (oidc && oidc.groupsField === "" && groups.length > 0)
    say("login.oidc.groupsField", undefined, `the claim that lists a person's groups, because rights name ${groups.join(", ")}`, "pulumi config set --path 'login.oidc.groupsField' groups");
};

const monitoringHasPrometheus: Rule = ({ serviceMonitor, serviceMonitorLabels, dashboard }, say, given) => {
  if ((serviceMonitor || dashboard) && !given("prometheusNamespace")) say("prometheusNamespace", undefined, `the namespace of the Prometheus that a ${serviceMonitor ? "ServiceMonitor" : "dashboard"} is for`);
  if (!serviceMonitor && Object.keys(serviceMonitorLabels).length > 0) say("serviceMonitorLabels", serviceMonitorLabels, "nothing without serviceMonitor: true", "pulumi config set serviceMonitor true");
};

const secretFilesDiffer: Rule = ({ secretFiles }, say) => {
  const taken = new Set(ownSecretNames);
  secretFiles.forEach((file, i) => {
    const name = secretFileName(file);
    if (taken.has(name)) say(`secretFiles[${i}].key`, file.key, `another one: documents know ${name} already`, "remove the entry, or give the Secret another name");
    taken.add(name);
  });
};

const keysLieApart: Rule = ({ backup }, say) => {
  if (!backup) return;
  for (const key of ["repository", "keysRepository"] as const)
    if (backup[key].startsWith("sftp:") && !backup.ssh) say("backup.ssh", undefined, "privateKey (secret) and knownHosts, because a repository is reached over SFTP");
  if (backup.repository !== "" && backup.repository === backup.keysRepository)
    say("backup.keysRepository", backup.keysRepository, "another repository than the backup's own: the master key must not lie beside what it opens");
};

/** Also said by checks/neighbours.ts of a class that the stack does not make. */
export const keepsCopies = { expected: "a class that deletes its volumes: each copy would stay on the disk", fix: "name a class with reclaimPolicy Delete, or none" };

const copiesGo: Rule = ({ backup, storageClass, storageInstall, protectHome }, say) => {
  if (backup?.verifyVolume.storageClass === storageClass && storageInstall !== "none" && protectHome)
    say("backup.verifyVolume.storageClass", `${storageClass}, whose reclaimPolicy is Retain while protectHome is true`, keepsCopies.expected, keepsCopies.fix);
};

/** A standby follows snapshots: something must make them, and one key says when. */
const standbyIsFollowed: Rule = ({ backup }, say, given) => {
  if (!backup?.standby) return;
  const { everyMinutes } = backup.standby;
  if (everyMinutes !== undefined && backup.schedule !== "") say("backup.schedule", backup.schedule, "nothing beside backup.standby.everyMinutes, which says when", "pulumi config rm --path backup.schedule, or backup.standby.everyMinutes");
  if (!given("backup.standby.everyMinutes") && backup.schedule === "") say("backup.standby.everyMinutes", undefined, "minutes between two snapshots, such as 5, since backup.schedule says nothing");
};

const patchesChangeSomething: Rule = ({ patches, agents, namespace }, say, given) => {
  const names = [...agents.map(({ name }) => name), defaultsTemplate];
  patches.forEach(({ target, patch }, i) => {
    const at = `patches[${i}]`;
    if (!given(`${at}.patch`)) say(`${at}.patch`, undefined, "what is to change, such as {spec: {template: {spec: {priorityClassName: high}}}}");
    const metadata = isObject(patch.metadata) ? patch.metadata : {};
    for (const key of [...["apiVersion", "kind"].filter((each) => each in patch), ...["name", "namespace"].filter((each) => each in metadata).map((each) => `metadata.${each}`)])
      say(`${at}.patch.${key}`, "a change of what an object is", "nothing: others find it by that", "remove it; target says which objects are changed");
    if (target.kind !== "Pod") return;
    if (target.name !== undefined && !names.includes(target.name)) say(`${at}.target.name`, target.name, `the name of an agent template: ${names.join(", ")}`);
    if (target.namespace !== undefined && target.namespace !== `${namespace}-agents`) say(`${at}.target.namespace`, target.namespace, `${namespace}-agents, where agents run, or nothing`);
  });
};

/** Every rule, in the order in which mistakes are told. */
export const rules: Rule[] = [
  ingressPortsDiffer, oneWordAboutIngress, gatewayIsWhole, ownAnnotations, ingressIsTaken, outsideFits, hostsDiffer, namespaceIsJenkinsAlone, folderIsTheClassesOwn, rangeHoldsIngress, nodesAreLeftAlone, everyNodeOnce, localNeedsNoLogin, sshNeedsLogin,
  oneBundle, proxyIsWhole, oneRegistry, cacheReachesRegistry, registryLoginIsWhole, pullSecretsAreWhole, cacheHasItsUpstream, upstreamArgsAreKnown, agentsAreSomeAndDiffer, agentImagesAreKnown, agentVolumesAreOfOneThing, agentVolumesHaveTheirPlaces, dockerIsKeptForDockerd, idleAgentsFit, tolerationsAreWhole,
  heapHasRoom, pluginsAreBuiltIn, ownVariablesAreLeftAlone, onePassword, oneLogin, directoryIsWhole, loginHasRights, monitoringHasPrometheus, secretFilesDiffer, keysLieApart, copiesGo, standbyIsFollowed, patchesChangeSomething,
];
