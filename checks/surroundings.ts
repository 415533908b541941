/** The network around as the cluster and this machine see it: what objects of the cluster say of it, and the way out. */
import * as http from "node:http";
import * as https from "node:https";
import * as net from "node:net";
import * as tls from "node:tls";
import { parse } from "yaml";
import { base64 } from "../components/encoding";
import type { Proxy, ProxyLogin, Surroundings } from "../components/surroundings";
import { bundleExpected, bundleProblem, type PlatformConfig, type Problem } from "../config";
import { bareHost } from "../config/pieces";
import type { Neighbourhood } from "./neighbours";

/** Why a request failed, in words. */
export function reason(error: Error): string {
  // Node gives a failed connection to several addresses as one error without a message of its own.
  const first = (error as AggregateError).errors?.[0] as Error | undefined;
  return error.message || first?.message || ((error as NodeJS.ErrnoException).code ?? error.name);
}

/** What keeps a request at the proxy itself. */
export class ProxyError extends Error {
  /**
   * @param reached whether it took the connection
   * @param status what it answers in place of a way to the host
   */
  constructor(address: string, words: string, readonly reached: boolean, readonly status?: number) {
    super(`the proxy ${address}${words}`);
  }
}

/** A connection to host:port that a proxy makes. @throws {ProxyError} where the proxy does not */
function tunnel(address: string, login: ProxyLogin | undefined, to: string, timeoutMs: number): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    let reached = false;
    const request = http.request({ ...placeOf(address), method: "CONNECT", path: to, timeout: timeoutMs, agent: false, headers: { Host: to, ...loginHeader(login) } });
    request.on("socket", (socket) => socket.once("connect", () => (reached = true)));
    request.on("connect", ({ statusCode = 0 }, connection: net.Socket) => {
      if (statusCode === 200) return resolve(connection);
      connection.destroy();
      reject(new ProxyError(address, ` answers ${statusCode}${statusCode === 407 ? (login ? ", it refuses the login" : ", it asks for a login") : ""}`, true, statusCode));
    });
    request.on("timeout", () => request.destroy(new Error(`no answer within ${timeoutMs / 1000} s`)));
    request.on("error", (error) => reject(new ProxyError(address, `: ${reason(error)}`, reached))).end();
  });
}

const placeOf = (address: string): { host: string; port: string | number } => {
  const { hostname, port } = new URL(address);
  return { host: bareHost(hostname), port: port || 80 };
};

const loginHeader = (login: ProxyLogin | undefined): http.OutgoingHttpHeaders | undefined => login && { "Proxy-Authorization": `Basic ${base64(`${login.username}:${login.password}`)}` };

/** A host that every stack needs, to ask a proxy for: where Jenkins' plugins come from. */
const askedFor = "updates.jenkins.io:443";

/** What to do about a proxy that keeps this machine's requests; undefined where it is the host behind it that is not reached. */
export function proxyProblem(error: unknown, proxy: Proxy, scheme: "http" | "https"): Required<Problem> | undefined {
  if (!(error instanceof ProxyError)) return undefined;
  // Where both are the same one of them may not be written.
  const key = scheme === "http" && proxy.http !== proxy.https ? "proxy.http" : "proxy.https";
  if (!error.reached) return { key, found: `${error.message}: it takes no connection from here`, expected: "a proxy that takes connections, from here and from the nodes, which may see it otherwise", fix: `start the proxy, or correct ${key}: pulumi config set --path ${key} http://<host:port>` };
  if (error.status !== 407) return undefined;
  return { key: "proxy.username", found: error.message, expected: "the login that the proxy asks for", fix: "set proxy.username and proxy.password, or correct them, or the Secret of proxy.loginSecret" };
}

/** Where the proxy takes no connection from this machine, or does not take the login. What it says of the host that it is asked for is not judged. */
export async function proxyProblems({ proxy }: Surroundings, timeoutMs = 5000): Promise<Required<Problem>[]> {
  if (!proxy) return [];
  const schemes = proxy.http === proxy.https ? (["https"] as const) : (["https", "http"] as const);
  const found = await Promise.all(schemes.map((scheme) => tunnel(proxy[scheme], proxy.login, askedFor, timeoutMs).then((socket) => void socket.destroy(), (error) => proxyProblem(error, proxy, scheme))));
  return found.filter((each) => each !== undefined);
}

/** What a request needs to go through a proxy: for https: a connection that it makes to the host, for http: the proxy in the host's place. */
export async function through(address: string, login: ProxyLogin | undefined, url: URL, timeoutMs: number): Promise<https.RequestOptions> {
  if (url.protocol === "http:") return { ...placeOf(address), path: url.href, headers: { Host: url.host, ...loginHeader(login) } };
  const socket = await tunnel(address, login, `${url.hostname}:${url.port || 443}`, timeoutMs);
  const name = bareHost(url.hostname);
  return { agent: Object.assign(new https.Agent(), { createConnection: (options: tls.ConnectionOptions) => tls.connect({ ...options, socket, ...(!net.isIP(name) && { servername: name }) }) }) };
}

/** What objects of the cluster hold of the network around. */
export interface NetworkFacts {
  /** The certificates of trust.caBundleConfigMap. */
  caBundle?: string;
  /** The login of proxy.loginSecret. */
  login?: ProxyLogin;
  /** Ranges of Services and pods, and the cluster's own domain. */
  inside: string[];
  problems: Problem[];
}

/** In place of an object that is not to be read. */
export const forbidden = Symbol("forbidden");

/** An object that may be read; undefined for one that may not. */
export const readable = <T>(answer: T | typeof forbidden | undefined): T | undefined => (answer === forbidden ? undefined : (answer as T | undefined));

/** Reads what the config names of it, and with a proxy what is not to go through it: the ranges as kubeadm was told them, else as the API server and the nodes have them. */
export async function readNetwork(look: <T>(target: string) => Promise<T | typeof forbidden | undefined>, { proxy }: Surroundings, { caBundle: bundleIn, proxyLogin: loginIn }: PlatformConfig["surroundingsIn"]): Promise<NetworkFacts> {
  type Content = { data?: Record<string, string> };
  const json = async <T>(target: string): Promise<T | undefined> => readable(await look<T>(target));
  const [bundle, login] = await Promise.all([
    bundleIn && look<Content>(`/api/v1/namespaces/${bundleIn.namespace}/configmaps/${bundleIn.name}`),
    loginIn && look<Content>(`/api/v1/namespaces/${loginIn.namespace}/secrets/${loginIn.name}`),
  ]);
  const facts: NetworkFacts = { inside: [], problems: [] };
  /** Keys of an object, or a mistake where one of them is not there. */
  const taken = (key: string, kind: string, where: { namespace: string; name: string }, object: Content | typeof forbidden | undefined, keys: string[]): string[] => {
    const expected = `a ${kind} with key ${keys.join(" and ")}`;
    if (object === forbidden) {
      facts.problems.push({ key, found: `${kind} ${where.name} of namespace ${where.namespace}, which may not be read: forbidden`, expected, fix: `give the user of kubeContext the right: kubectl -n ${where.namespace} auth can-i get ${kind.toLowerCase()}s/${where.name} must say yes` });
      return [];
    }
    const missing = keys.filter((each) => !object?.data?.[each]);
    const make = `kubectl -n ${where.namespace} create ${kind === "Secret" ? "secret generic" : "configmap"} ${where.name} ${keys.map((each) => `--from-file=${each}=<file>`).join(" ")}`;
    if (missing.length > 0) facts.problems.push({ key, found: object ? `${kind} ${where.name} of namespace ${where.namespace} without key ${missing.join(", ")}` : `no ${kind} ${where.name} in namespace ${where.namespace}`, expected, fix: object ? "correct it, or its name and keys" : `${make}; or set its namespace to one that is there already` });
    return missing.length > 0 ? [] : keys.map((each) => object!.data![each]);
  };
  if (bundleIn) {
    const [pem] = taken("trust.caBundleConfigMap", "ConfigMap", bundleIn, bundle, [bundleIn.key]);
    const wrong = pem === undefined ? undefined : bundleProblem(pem);
    if (wrong) facts.problems.push({ key: "trust.caBundleConfigMap", found: `${bundleIn.key} of ConfigMap ${bundleIn.name}: ${wrong}`, ...bundleExpected });
    else if (pem !== undefined) facts.caBundle = pem;
  }
  if (loginIn) {
    const [username, password] = taken("proxy.loginSecret", "Secret", loginIn, login, ["username", "password"]).map((text) => Buffer.from(text, "base64").toString().replace(/\r?\n$/, ""));
    if (username !== undefined) facts.login = { username, password };
  }
  if (proxy) {
    const kubeadm = await json<Content>("/api/v1/namespaces/kube-system/configmaps/kubeadm-config");
    const { networking = {} } = (parse(kubeadm?.data?.ClusterConfiguration ?? "") ?? {}) as { networking?: { serviceSubnet?: string; podSubnet?: string; dnsDomain?: string } };
    const [services, nodes] = await Promise.all([
      networking.serviceSubnet ?? json<{ items: { spec: { cidrs: string[] } }[] }>("/apis/networking.k8s.io/v1/servicecidrs").then((list) => list?.items.flatMap(({ spec }) => spec.cidrs).join() ?? ""),
      networking.podSubnet ?? json<{ items: { spec: { podCIDRs?: string[] } }[] }>("/api/v1/nodes").then((list) => list?.items.flatMap(({ spec }) => spec.podCIDRs ?? []).join() ?? ""),
    ]);
    facts.inside = [...`${services},${nodes}`.split(","), ...(networking.dnsDomain ? [`.${networking.dnsDomain}`] : [])].filter((each) => each !== "");
  }
  return facts;
}

/** The network around with what the cluster says of it. */
export function completed({ caBundle, proxy }: Surroundings, { network, neighbours }: { network?: NetworkFacts; neighbours?: Neighbourhood } = {}): Surroundings {
  const bundle = caBundle ?? network?.caBundle;
  const login = proxy?.login ?? network?.login;
  const nodes = (neighbours?.nodes ?? []).flatMap(({ status }) => (status?.addresses ?? []).map(({ address }) => address)).sort();
  return { ...(bundle !== undefined && { caBundle: bundle }), ...(proxy && { proxy: { ...proxy, noProxy: [...new Set([...proxy.noProxy, ...(network?.inside ?? [])])], nodes: [...new Set(nodes)], ...(login && { login }) } }) };
}
