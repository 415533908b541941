/**
 * What must answer before the stack is touched, at preview as at up: the cluster and the registry. Without these checks a
 * preview against an unreachable cluster is green and proves nothing.
 */
import * as fs from "node:fs";
import * as http from "node:http";
import * as https from "node:https";
import * as os from "node:os";
import * as path from "node:path";
import * as tls from "node:tls";
import type { KubeConfig } from "@kubernetes/client-node";
import { changeAnnotation, heldName, type RunningController } from "../components/jenkins-master/save-first";
import { isQuantity, quantityMillis } from "../components/quantity";
import { goesDirect, type Surroundings } from "../components/surroundings";
import { heldPorts, type PlatformConfig, type Problem } from "../config";
import { gatewayProblems, readGateway, type GatewayFacts } from "./gateway";
import { issuerRemark, issuerStops, readIssuer, type IssuerFacts } from "./issuer";
import { certificateRemarks, certificateSecrets, type Certificate, type Certificates, ingressRemarks, remarkLine } from "./ingress";
import { versionRemark } from "./kubernetes";
import { controlPlaneAddresses, neighbourPaths, neighbourProblems, nodeArchitectures, type Neighbourhood } from "./neighbours";
import { nodePortFindings, readNodePorts, type NodePortFacts } from "./node-ports";
import { failoverProblem, readStandby, type StandbyFacts, standbyNodeProblems } from "./standby";
import { completed, forbidden, type NetworkFacts, ProxyError, proxyProblem, proxyProblems, readable, readNetwork, reason, through } from "./surroundings";

/** How often and for how long one answer is awaited. */
export interface Patience {
  timeoutMs: number;
  attempts: number;
  pauseMs: number;
}

const patience: Patience = { timeoutMs: 5000, attempts: 3, pauseMs: 1000 };

/** The answer to a GET, or why there is none, with Node's code for it, and what to do where it is the proxy that keeps it. */
export type Answer = { status: number; body: string; location?: string } | { failure: string; code?: string; atProxy?: Required<Problem> };

async function ask(url: string, options: https.RequestOptions, { timeoutMs }: Patience): Promise<Answer> {
  return new Promise((resolve) => {
    const get = url.startsWith("https:") ? https.get : http.get;
    const request = get(url, { ...options, timeout: timeoutMs, agent: options.agent ?? false }, (answer) => {
      let body = "";
      answer.setEncoding("utf8").on("data", (chunk: string) => (body += chunk));
      answer.on("end", () => resolve({ status: answer.statusCode ?? 0, body, ...(answer.headers.location !== undefined && { location: answer.headers.location }) }));
      answer.on("error", (error) => resolve({ failure: reason(error) }));
    });
    request.on("timeout", () => request.destroy(new Error(`no answer within ${timeoutMs / 1000} s`)));
    request.on("error", (error: NodeJS.ErrnoException) => resolve({ failure: reason(error), ...(error.code && { code: error.code }) }));
  });
}

/** Asks as everything else does in these surroundings: through the proxy, and with the certificates beside those that Node and this machine trust. */
export async function askOutside(url: string, options: https.RequestOptions, wait: Patience, { caBundle, proxy }: Surroundings): Promise<Answer> {
  const at = new URL(url);
  // Node 22.15 and later know what $NODE_EXTRA_CA_CERTS names, too.
  const { getCACertificates } = tls as { getCACertificates?: () => string[] };
  const trust = caBundle === undefined ? {} : { ca: [...(getCACertificates?.() ?? tls.rootCertificates), caBundle] };
  if (!proxy || goesDirect(proxy, at.hostname)) return ask(url, { ...options, ...trust }, wait);
  const scheme = at.protocol === "https:" ? "https" : "http";
  try {
    const answer = await ask(url, { ...options, ...trust, ...(await through(proxy[scheme], proxy.login, at, wait.timeoutMs)) }, wait);
    // For http: the one connection that is made is that to the proxy.
    if (scheme === "http" && "code" in answer && noConnection.includes(answer.code ?? "")) throw new ProxyError(proxy.http, `: ${words(answer)}`, false);
    return answer;
  } catch (error) {
    const atProxy = proxyProblem(error, proxy, scheme);
    return { failure: reason(error as Error), ...(atProxy && { atProxy }) };
  }
}

/** Node's codes for a connection that does not come about. */
const noConnection = ["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH", "ETIMEDOUT"];

/** Node's codes for a certificate that nobody it trusts has signed. */
const unknownIssuer = ["UNABLE_TO_VERIFY_LEAF_SIGNATURE", "UNABLE_TO_GET_ISSUER_CERT", "UNABLE_TO_GET_ISSUER_CERT_LOCALLY", "SELF_SIGNED_CERT_IN_CHAIN", "DEPTH_ZERO_SELF_SIGNED_CERT"];

/** The answer in words, for a message. */
function words(answer: Answer): string {
  return "failure" in answer ? answer.failure : `status ${answer.status}`;
}

/** Whether the registry speaks its API: 200, or 401 where it wants a login first. */
export async function registryProblem(registry: PlatformConfig["registry"], wait: Patience = patience, surroundings: Surroundings = {}): Promise<Problem | undefined> {
  const tries: [string, https.RequestOptions][] = registry.insecure
    ? [
        [`http://${registry.host}/v2/`, {}],
        [`https://${registry.host}/v2/`, { rejectUnauthorized: false }],
      ]
    : [[`https://${registry.host}/v2/`, {}]];
  const seen: string[] = [];
  let stranger = false;
  let atProxy: Required<Problem> | undefined;
  for (const [url, options] of tries) {
    const answer = await askOutside(url, options, wait, surroundings);
    if ("status" in answer && (answer.status === 200 || answer.status === 401)) return undefined;
    stranger ||= "code" in answer && unknownIssuer.includes(answer.code ?? "");
    if ("failure" in answer) atProxy ??= answer.atProxy;
    seen.push(`${url}: ${words(answer)}`);
  }
  if (atProxy) return { ...atProxy, found: seen.join("; "), fix: `${atProxy.fix}; or add ${registry.host} to proxy.noProxy where it is reached without the proxy` };
  if (stranger)
    return {
      key: "registry.host",
      found: `${seen.join("; ")}: the certificate is of an unknown issuer`,
      expected: `a certificate of a public authority, or of one that the stack is told of`,
      fix: surroundings.caBundle === undefined ? "pulumi config set --path 'trust.caBundleFile' <file>, with the certificate of the authority that signed the registry's own" : "add the certificate of the authority that signed the registry's own to those of trust",
    };
  const proxied = surroundings.proxy && !goesDirect(surroundings.proxy, new URL(`https://${registry.host}`).hostname);
  return {
    key: "registry.host",
    found: seen.join("; "),
    expected: `an image registry that answers at ${registry.host}`,
    fix: registry.insecure
      ? "start the registry, or correct the name: pulumi config set --path 'registry.host' <host:port>"
      : `start the registry, correct registry.host, ${proxied ? "add it to proxy.noProxy where it is reached without the proxy, " : ""}or set registry.insecure: true for one that speaks plain HTTP`,
  };
}

/** Files the kubeconfig is read from: the config's own, else $KUBECONFIG, else ~/.kube/config. */
export function kubeconfigFiles(kubeconfig: string | undefined, environment: NodeJS.ProcessEnv): string[] {
  if (kubeconfig) return [kubeconfig];
  const listed = (environment.KUBECONFIG ?? "").split(path.delimiter).filter((file) => file !== "");
  return listed.length > 0 ? listed : [path.join(os.homedir(), ".kube", "config")];
}

async function loadKubeconfig(files: string[]): Promise<KubeConfig> {
  const { KubeConfig } = await import("@kubernetes/client-node");
  const merged = new KubeConfig();
  merged.loadFromOptions({ clusters: [], users: [], contexts: [], currentContext: "" });
  for (const file of files) {
    const part = new KubeConfig();
    part.loadFromFile(file);
    // Of two entries with one name the first counts, as with kubectl; the library would refuse the second.
    const fresh = <T extends { name: string }>(entries: T[], known: T[]) => entries.filter((entry) => !known.some(({ name }) => name === entry.name));
    merged.loadFromOptions({
      clusters: [...merged.clusters, ...fresh(part.clusters, merged.clusters)],
      users: [...merged.users, ...fresh(part.users, merged.users)],
      contexts: [...merged.contexts, ...fresh(part.contexts, merged.contexts)],
      currentContext: part.currentContext,
    });
  }
  return merged;
}

/** What a healthy cluster said of itself. */
export interface ClusterFacts {
  /** Addresses on which pods reach the API server: its Service's, its endpoints' and its nodes', sorted. */
  apiServerAddresses: string[];
  /** The server's version, "v1.37.2"; absent where it does not say. */
  version?: string;
  /** Result of the last good backup as JSON, once there was one. */
  lastGoodBackup?: string;
  /** Architecture of each node; absent where they may not be read. */
  nodeArchitectures?: string[];
  /** Documents that Jenkins has now, by key of their ConfigMap. */
  documents?: Record<string, string>;
  /** Image that a rollback holds the controller at, since when, and the one that it took it from. */
  holding?: { image: string; since: string; from: string };
  /** The controller's image, and the mark of its last change; absent where there is no controller. */
  running?: RunningController;
  /** Size and StorageClass that the home's claim asks for, where there is one. */
  homeSize?: string;
  homeClass?: string;
  /** Keys of the Secrets that the controller's pod needs, null for one that is not there; absent before the controller's first start. */
  secrets?: Record<string, string[] | null>;
  /** The certificates that people get; absent without HTTPS. */
  certificates?: Certificates;
  /** What other environments and others have in the cluster. */
  neighbours: Neighbourhood;
  /** What objects of the cluster say of the network around; absent where nothing asks for it. */
  network?: NetworkFacts;
  /** What is there of the Gateway; absent where none is wanted. */
  gateway?: GatewayFacts;
  /** Who makes the certificate; absent where nobody is asked to. */
  issuer?: IssuerFacts;
  /** What there is of a standby and of a failover; absent without backups. */
  standby?: StandbyFacts;
  /** What decides about the ports of the nodes, and the API server's address in the kubeconfig; absent where nobody asked. */
  nodePorts?: NodePortFacts & { server: string };
}

/** Checks that the named context exists and that its API server is ready and accepts its credentials. */
export async function inspectCluster(
  { cluster, namespaces, domain, ingress, backup, surroundings, surroundingsIn }: Pick<PlatformConfig, "cluster" | "namespaces"> & Partial<Pick<PlatformConfig, "domain" | "ingress" | "backup" | "surroundings" | "surroundingsIn">>,
  environment: NodeJS.ProcessEnv = process.env,
  wait: Patience = patience,
  wantedSecrets: string[] = [],
  aboutNodePorts = false,
): Promise<ClusterFacts | Problem> {
  const files = kubeconfigFiles(cluster.kubeconfig, environment);
  const present = files.filter((file) => fs.existsSync(file));
  const key = cluster.kubeconfig ? "kubeconfig" : "kubeContext";
  if (present.length === 0)
    return { key, found: `no file ${files.join(" or ")}`, expected: "a kubeconfig file", fix: "pulumi config set kubeconfig <path>, or export KUBECONFIG=<path>" };
  let kubeconfig: KubeConfig;
  try {
    kubeconfig = await loadKubeconfig(present);
  } catch (error) {
    return { key, found: `${present.join(", ")}: ${reason(error as Error)}`, expected: "a kubeconfig file", fix: "compare it with what kubectl config view prints" };
  }
  const context = kubeconfig.getContextObject(cluster.context);
  if (!context) {
    const names = kubeconfig.getContexts().map((known) => known.name);
    return {
      key: "kubeContext",
      found: cluster.context,
      expected: `a context of ${present.join(", ")}: ${names.join(", ") || "it has none"}`,
      fix: names.length === 1 ? `pulumi config set kubeContext ${names[0]}` : "pulumi config set kubeContext <name>",
    };
  }
  kubeconfig.setCurrentContext(cluster.context);
  const server = kubeconfig.getCurrentCluster()?.server.replace(/\/$/, "");
  if (!server) return { key: "kubeContext", found: `context ${cluster.context} without a cluster`, expected: "a context whose cluster has a server", fix: "compare it with what kubectl config view prints" };

  const get = async (target: string): Promise<Answer> => {
    try {
      const options: https.RequestOptions = {};
      await kubeconfig.applyToHTTPSOptions(options);
      return await ask(server + target, options, wait);
    } catch (error) {
      // Such as a credential plugin that cannot be started.
      return { failure: reason(error as Error) };
    }
  };
  const down = (answer: Answer) => "failure" in answer || answer.status >= 500;
  let ready = await get("/readyz");
  for (let attempt = 1; attempt < wait.attempts && down(ready); attempt++) {
    await new Promise((resolve) => setTimeout(resolve, wait.pauseMs));
    ready = await get("/readyz");
  }
  if (down(ready))
    return {
      key: "kubeContext",
      found: `${server}/readyz: ${words(ready)}`,
      expected: `an API server that is ready in context ${cluster.context}`,
      fix: `check the address, the network and the cluster; kubectl --context ${cluster.context} get --raw /readyz must print ok`,
    };

  // Also the proof that the credentials are good: /readyz answers strangers as well.
  const answers = await Promise.all(["/api/v1/namespaces/default/services/kubernetes", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes"].map(get));
  const refused = answers.find((answer) => "failure" in answer || answer.status !== 200);
  if (refused)
    return {
      key: "kubeContext",
      found: `${server} refuses user ${context.user}: ${words(refused)}`,
      expected: `credentials that may administer the cluster of context ${cluster.context}`,
      fix: `renew user ${context.user} in ${present.join(", ")}; kubectl --context ${cluster.context} -n default get service kubernetes must work`,
    };
  const [service, slice] = answers.map((answer) => JSON.parse("body" in answer ? answer.body : "")) as [{ spec: { clusterIPs: string[] } }, { endpoints: { addresses: string[] }[] | null }];
  const addresses = [...service.spec.clusterIPs, ...(slice.endpoints ?? []).flatMap((endpoint) => endpoint.addresses)];
  const look = async <T>(target: string): Promise<T | typeof forbidden | undefined> => {
    const answer = await get(target);
    if (!("body" in answer) || (answer.status !== 200 && answer.status !== 403)) return undefined;
    return answer.status === 403 ? forbidden : (JSON.parse(answer.body) as T);
  };
  /** What is there and may be read; undefined otherwise. */
  const found = async <T>(target: string): Promise<T | undefined> => readable(await look<T>(target));
  const here = `/api/v1/namespaces/${namespaces.jenkins}`;
  const [controller, backups, casc, holding, claim, ...lists] = await Promise.all([
    found<{ metadata?: { annotations?: Record<string, string> }; spec?: { template: { spec: { containers: { name: string; image: string }[] } } } }>(`/apis/apps/v1/namespaces/${namespaces.jenkins}/deployments/jenkins`),
    found<{ data?: Record<string, string> }>(`${here}/configmaps/jenkins-backup-status`),
    found<{ data?: Record<string, string> }>(`${here}/configmaps/jenkins-casc`),
    found<{ data?: { image: string; since: string; from: string } }>(`${here}/configmaps/${heldName}`),
    found<{ spec: { resources: { requests: { storage: string } }; storageClassName?: string } }>(`${here}/persistentvolumeclaims/jenkins-home`),
    ...Object.entries(neighbourPaths).map(async ([what, target]) => [what, (await found<{ items?: unknown[] }>(target))?.items] as const),
  ]);
  const running = wantedSecrets.length > 0 && controller !== undefined;
  const [image, change] = [controller?.spec?.template.spec.containers.find(({ name }) => name === "jenkins")?.image, controller?.metadata?.annotations?.[changeAnnotation]];
  const secrets = await Promise.all(
    (running ? wantedSecrets : []).map(async (name): Promise<[string, string[] | null][]> => {
      const answer = await get(`${here}/secrets/${name}`);
      if (!("body" in answer) || (answer.status !== 200 && answer.status !== 404)) return [];
      return [[name, answer.status === 200 ? Object.keys((JSON.parse(answer.body) as { data?: object }).data ?? {}) : null]];
    }),
  );
  const certificates: Certificates = Object.fromEntries(await Promise.all((domain !== undefined && ingress ? certificateSecrets({ domain, ingress }) : []).map(async (name) => [name, await get(`${here}/secrets/${name}`).then((answer) => certificateIn("status" in answer ? answer : undefined))] as const)));
  const version = (await found<{ gitVersion: string }>("/version"))?.gitVersion;
  const network = surroundings && surroundingsIn && (await readNetwork(look, surroundings, surroundingsIn));
  const orNull = async (target: string) => {
    const answer = await get(target);
    return !("body" in answer) ? undefined : answer.status === 404 ? null : answer.status === 200 ? (JSON.parse(answer.body) as unknown) : undefined;
  };
  const [gateway, issuer] = ingress ? await Promise.all([readGateway({ ingress, namespaces }, orNull), readIssuer({ ingress }, orNull)]) : [];
  const standby = backup && (await readStandby({ namespaces }, found));
  const nodePorts = aboutNodePorts && { ...(await readNodePorts(found)), server };
  const lastGoodBackup = backups?.data?.["last-good-backup"];
  const homeSize = claim?.spec.resources.requests.storage;
  const homeClass = claim?.spec.storageClassName;
  const neighbours: Neighbourhood = Object.fromEntries(lists);
  const architectures = nodeArchitectures(neighbours);
  return { apiServerAddresses: [...new Set([...addresses, ...controlPlaneAddresses(neighbours)])].sort(), ...(version !== undefined && { version }), ...(architectures.length > 0 && { nodeArchitectures: architectures }), ...(lastGoodBackup && { lastGoodBackup }), ...(casc?.data && { documents: casc.data }), ...(holding?.data?.image && { holding: holding.data }), ...(image && { running: { image, ...(change && { change }) } }), ...(homeSize && { homeSize }), ...(homeClass && { homeClass }), ...(Object.keys(certificates).length > 0 && { certificates }), ...(running && { secrets: Object.fromEntries(secrets.flat()) }), neighbours, ...(network && { network }), ...(nodePorts && { nodePorts }), ...(gateway && { gateway }), ...(issuer && { issuer }), ...(standby && { standby }) };
}

/** The certificate of a Secret as the API server answers: null where there is no Secret; undefined where it may not be read. */
const certificateIn = (answer: { status: number; body: string } | undefined): Certificate =>
  answer?.status === 404 ? null : answer?.status === 200 ? Buffer.from((JSON.parse(answer.body) as { data?: Record<string, string> }).data?.["tls.crt"] ?? "", "base64").toString() : undefined;

/** Why the home's claim cannot have another size than it has; undefined where it keeps it or there is none yet. */
export function storageSizeProblem(wanted: string, there: string | undefined): Problem | undefined {
  if (there === undefined || !isQuantity(there) || quantityMillis(wanted) === quantityMillis(there)) return undefined;
  const key = "storageSize";
  const keep = `pulumi config set storageSize ${there}`;
  const found = `${wanted}, but claim jenkins-home asks for ${there}`;
  if (quantityMillis(wanted) < quantityMillis(there))
    return { key, found, expected: "the size it has: Kubernetes shrinks no volume", fix: `${keep}, or move the home into a volume of the new size first: npm run restore -- --snapshot now --size ${wanted}` };
  return {
    key, found, expected: "the size it has: a hostpath volume cannot be resized, and nothing but its disk keeps it to its size",
    fix: `${keep}, or move the home into a volume of the new size first: npm run restore -- --snapshot now --size ${wanted}`,
  };
}

/** Why the home's claim cannot have another StorageClass than it has; undefined where it keeps it or there is none yet. */
export function storageClassProblem(wanted: string, there: string | undefined): Problem | undefined {
  if (there === undefined || wanted === there) return undefined;
  return {
    key: "storageClass", found: `${wanted}, but claim jenkins-home has ${there}`,
    expected: "the class it has: a claim of another class is another claim, without the data",
    fix: `pulumi config set storageClass ${there}; or take it all down with a backup, and restore into what the next up makes (docs/backup.md)`,
  };
}

type SecretUse = Pick<PlatformConfig, "namespaces" | "secretFiles" | "admin" | "controller">;

/** Secrets of others that the controller's pod mounts, or takes its environment from. */
const usedSecrets = ({ secretFiles, admin, controller }: SecretUse): string[] => [...new Set([...secretFiles.map(({ secret }) => secret), ...(admin.existingSecret ? [admin.existingSecret] : []), ...controller.envFrom])];

/** What the controller's next pod would wait for: the one that runs ends before it starts, so that Jenkins would be away until somebody made it. */
export function secretProblems({ namespaces, secretFiles, admin, controller }: SecretUse, secrets: Record<string, string[] | null> = {}): Problem[] {
  const wanted = [
    ...secretFiles.map(({ secret, key }, i) => ({ at: `secretFiles[${i}]`, name: secret, keys: [key], parts: true })),
    ...(admin.existingSecret ? [{ at: "adminExistingSecret", name: admin.existingSecret, keys: ["admin-user", "admin-password"], parts: false }] : []),
    ...controller.envFrom.map((name, i) => ({ at: `controller.envFrom[${i}]`, name, keys: [], parts: false })),
  ];
  return wanted.flatMap(({ at, name, keys, parts }) => {
    const there = secrets[name];
    const gone = there === null;
    const missing = there ? keys.filter((key) => !there.includes(key)) : [];
    if (!gone && missing.length === 0) return [];
    return [{
      key: parts ? `${at}.${gone ? "secret" : "key"}` : at,
      found: gone ? `no Secret ${name} in namespace ${namespaces.jenkins}` : `Secret ${name} of namespace ${namespaces.jenkins} has no key ${missing.join(", ")}`,
      expected: `a Secret${keys.length > 0 ? ` with key ${keys.join(" and ")}` : ""}: Jenkins would be away until there is one`,
      fix: gone ? `kubectl -n ${namespaces.jenkins} create secret generic ${name} ${keys.length > 0 ? keys.map((key) => `--from-file=${key}=<file>`).join(" ") : "--from-literal=<NAME>=<value>"}` : `kubectl -n ${namespaces.jenkins} edit secret ${name}, or correct the key`,
    }];
  });
}

/** Whether this machine has to reach the registry itself: neither where only the cluster does, nor the stack's own, to which the API server leads. */
export const asksRegistry = ({ imageBuild, imageRegistry }: Pick<PlatformConfig, "imageBuild" | "imageRegistry">): boolean => imageBuild.builder !== "in-cluster" && imageRegistry === undefined;

/**
 * Asks cluster and registry at the same time; `problems` holds everything that does not answer, and what of the cluster is
 * another environment's; `warnings` what an environment that is there may live with. A registry that this machine does not reach itself is asked by the build.
 */
export async function preflight(
  config: PlatformConfig,
  stack: string,
  environment: NodeJS.ProcessEnv = process.env,
  wait: Patience = patience,
): Promise<Omit<ClusterFacts, "neighbours" | "nodePorts" | "network" | "certificates" | "gateway" | "issuer" | "standby" | "holding"> & { held?: string; problems: Problem[]; warnings: string[]; surroundings: Surroundings }> {
  const inspected = inspectCluster(config, environment, wait, usedSecrets(config), heldPorts(config).length > 0);
  const { surroundings, surroundingsIn } = config;
  const known = inspected.then((facts) => completed(surroundings, "key" in facts ? {} : facts));
  const [cluster, network, proxies, registry] = await Promise.all([
    inspected,
    known,
    known.then((each) => proxyProblems(each, wait.timeoutMs)),
    // Which certificates are trusted, and what goes round the proxy, the cluster may have to say first.
    !asksRegistry(config) ? undefined : (surroundings.proxy || surroundingsIn.caBundle ? known : Promise.resolve(surroundings)).then((each) => registryProblem(config.registry, wait, each)),
  ]);
  const home = "key" in cluster ? [] : [storageSizeProblem(config.storage.size, cluster.homeSize), storageClassProblem(config.storage.className, cluster.homeClass)];
  const neighbours = "key" in cluster ? [] : neighbourProblems(config, stack, cluster.neighbours);
  const ports = "key" in cluster || !cluster.nodePorts ? [] : nodePortFindings(config, cluster.nodePorts, cluster.neighbours, cluster.nodePorts.server);
  const remark = "key" in cluster || cluster.version === undefined ? "" : versionRemark(cluster.version);
  // cert-manager makes its own once there is an Ingress.
  const seenCertificates = "key" in cluster ? {} : Object.fromEntries(Object.entries(cluster.certificates ?? {}).filter(([, pem]) => pem !== null || config.ingress.tls?.clusterIssuer === undefined));
  const certificates = certificateRemarks(config, seenCertificates, new Date());
  const waysIn = ingressRemarks(config, "key" in cluster ? undefined : cluster.neighbours.nodes?.length);
  const unmade = "key" in cluster || !cluster.issuer ? undefined : issuerRemark(config, cluster.issuer);
  const noIssuer = unmade && !("key" in cluster) && cluster.issuer && issuerStops(config, cluster.issuer);
  const gateway = "key" in cluster || !cluster.gateway ? [] : gatewayProblems(config, cluster.gateway);
  const standbyNode = "key" in cluster || !cluster.standby ? [] : standbyNodeProblems(config, cluster.standby, cluster.neighbours);
  const underway = "key" in cluster || !cluster.standby ? [] : failoverProblem(cluster.standby, stack);
  // One that is made already waits for its node, which may be gone: the rest of the platform does not.
  const standbyDoubts = "key" in cluster || !cluster.standby?.made ? [] : standbyNode;
  // From here is not from the nodes: what stops this machine at the registry is a mistake, the rest a doubt.
  const proxyDoubts = proxies.filter(({ key }) => key !== registry?.key);
  const warnings = [...(remark === "" ? [] : [`kubeContext: ${remark}`]), ...[...ports.filter(({ level }) => level === "warn"), ...gateway.filter(({ maybe }) => maybe), ...waysIn, ...(unmade && !noIssuer ? [unmade] : []), ...certificates, ...standbyDoubts, ...proxyDoubts].map(remarkLine)];
  const holding = "key" in cluster ? undefined : cluster.holding;
  if (holding) warnings.push(`controller: held at ${holding.image} since the rollback of ${holding.since}, whatever images/controller makes; npm run rollback -- ${stack} --release lets the next update go forward`);
  const stops = ports.filter(({ level }) => level === "stop").map(({ key, found, expected, fix }): Problem => ({ key, found, expected, fix }));
  const problems = [...("key" in cluster ? [cluster] : []), ...(registry ? [registry] : []), ...home.filter((problem) => problem !== undefined), ...("key" in cluster ? [] : [...secretProblems(config, cluster.secrets), ...(cluster.network?.problems ?? []), ...gateway.filter(({ maybe }) => !maybe), ...(noIssuer ? [unmade] : [])]), ...neighbours, ...stops, ...underway, ...(standbyDoubts.length > 0 ? [] : standbyNode)];
  return { ...("key" in cluster ? { apiServerAddresses: [] } : cluster), ...(holding && { held: holding.image }), problems, warnings, surroundings: network };
}
