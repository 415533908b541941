/**
 * The Gateway that leads to Jenkins: whether it is there and lets our route in, or can be made. The API server takes a route to a Gateway that is not
 * there, or refuses it, without a word.
 */
import { gatewayGroup } from "../components/ingress";
import { gatewayKinds } from "../components/ingress-traefik";
import { hostsOf, prefixOf } from "../components/jenkins-master";
import { partOf } from "../components/ownership";
import type { PlatformConfig, Problem } from "../config";

/** Which namespaces a listener takes routes of. */
export interface Selector {
  matchLabels?: Record<string, string>;
  matchExpressions?: { key: string; operator: string; values?: string[] }[];
}

/** A listener of a Gateway, as far as it is looked at. */
export interface Listener {
  name: string;
  protocol: string;
  hostname?: string;
  allowedRoutes?: { namespaces?: { from?: string; selector?: Selector }; kinds?: { group?: string; kind: string }[] };
}

/** A route of anybody's, as far as it is looked at. */
export interface Route {
  metadata: { name: string; namespace: string };
  spec: { parentRefs?: { name: string; namespace?: string; sectionName?: string }[]; hostnames?: string[]; rules?: { matches?: { path?: { value?: string } }[]; backendRefs?: unknown[] }[] };
}

/** What the cluster says of it. */
export interface GatewayFacts {
  /** Whether the API server has HTTPRoutes of v1; undefined where it does not say. */
  routes?: boolean;
  /** Kinds that a controller of the stack's own has to see and the API server does not have; undefined where it does not say, or the Gateway is another's. */
  missing?: string[];
  /** Null where there is none; undefined where it may not be read or does not come. */
  gateway?: { spec: { listeners: Listener[] }; status?: { conditions?: { type: string; status: string; reason?: string; message?: string }[] } } | null;
  /** Version of the API's definitions, such as v1.2.1; undefined where it is not known. */
  version?: string;
  /** Everybody's routes; undefined where they may not be read. */
  others?: Route[];
  /** Labels of the controller's namespace; undefined where it is not there yet. */
  labels?: Record<string, string>;
}

/** What is wrong with the Gateway. */
export interface GatewayProblem extends Required<Problem> {
  /** Whether it can still come right: labels of a namespace may come with the same up. */
  maybe?: true;
}

type Wants = Pick<PlatformConfig, "ingress" | "domain" | "namespaces">;

/** Asks for all of it; `get` answers null for what is not there, and undefined for what is not known. Undefined where no Gateway is wanted. */
export async function readGateway({ ingress: { controller, install, gateway }, namespaces }: Pick<Wants, "ingress" | "namespaces">, get: (path: string) => Promise<unknown>): Promise<GatewayFacts | undefined> {
  if (controller === "gateway" && install) return readOwn(namespaces.jenkins, get);
  if (!gateway) return undefined;
  const api = `/apis/${gatewayGroup}/v1`;
  const [list, found, definition, routes, namespace] = await Promise.all([get(api), get(`${api}/namespaces/${gateway.namespace}/gateways/${gateway.name}`), get(`/apis/apiextensions.k8s.io/v1/customresourcedefinitions/httproutes.${gatewayGroup}`), get(`${api}/httproutes`), get(`/api/v1/namespaces/${namespaces.jenkins}`)]);
  type Meta = { metadata?: { labels?: Record<string, string>; annotations?: Record<string, string> } } | null | undefined;
  const labels = (namespace as Meta)?.metadata?.labels;
  const version = (definition as Meta)?.metadata?.annotations?.[`${gatewayGroup}/bundle-version`];
  return {
    ...(list !== undefined && { routes: (list as { resources?: { name: string }[] } | null)?.resources?.some(({ name }) => name === "httproutes") ?? false }),
    ...(version !== undefined && { version }),
    ...(routes !== undefined && routes !== null && { others: (routes as { items?: Route[] }).items ?? [] }),
    ...(found !== undefined && { gateway: found as NonNullable<GatewayFacts["gateway"]> }),
    ...(labels && { labels }),
  };
}

/** For a Gateway of the stack's own. */
async function readOwn(namespace: string, get: (path: string) => Promise<unknown>): Promise<GatewayFacts> {
  const [found, ...missing] = await Promise.all([
    get(`/apis/${gatewayGroup}/v1/namespaces/${namespace}/gateways/jenkins`),
    ...Object.entries(gatewayKinds).map(async ([version, kinds]) => {
      const list = (await get(`/apis/${gatewayGroup}/${version}`)) as { resources?: { name: string }[] } | null | undefined;
      return list === undefined ? undefined : kinds.filter((kind) => !list?.resources?.some(({ name }) => name === kind));
    }),
  ]);
  return { ...(missing.includes(undefined) ? {} : { missing: missing.flatMap((kinds) => kinds ?? []) }), ...(found ? { gateway: found as NonNullable<GatewayFacts["gateway"]> } : {}) };
}

function selects({ matchLabels = {}, matchExpressions = [] }: Selector, labels: Record<string, string>): boolean {
  const holds = ({ key, operator, values = [] }: NonNullable<Selector["matchExpressions"]>[number]) => {
    const there = Object.hasOwn(labels, key);
    return { In: there && values.includes(labels[key]), NotIn: !there || !values.includes(labels[key]), Exists: there, DoesNotExist: !there }[operator] ?? false;
  };
  return Object.entries(matchLabels).every(([key, value]) => labels[key] === value) && matchExpressions.every(holds);
}

/** Whether a listener serves a host: `*` stands for one label or more. */
const serves = ({ hostname }: Listener, host: string): boolean => hostname === undefined || hostname === host || (hostname.startsWith("*.") && host.endsWith(hostname.slice(1)));

/** Why a listener takes no route of ours; undefined where it does. @param labels undefined where they are left out of it */
function refusalOf(listener: Listener, hosts: string[], own: { namespace: string; labels?: Record<string, string> }, gatewayNamespace: string): string | undefined {
  const { name, protocol, allowedRoutes: { kinds = [], namespaces: { from = "Same", selector = {} } = {} } = {} } = listener;
  if (!["HTTP", "HTTPS"].includes(protocol)) return `${name} speaks ${protocol}`;
  if (kinds.length > 0 && !kinds.some(({ kind, group = gatewayGroup }) => kind === "HTTPRoute" && group === gatewayGroup)) return `${name} takes ${kinds.map(({ kind }) => kind).join(", ")} alone`;
  if (from === "Same" && own.namespace !== gatewayNamespace) return `${name} takes routes of namespace ${gatewayNamespace} alone`;
  if (from === "None") return `${name} takes no routes`;
  if (from === "Selector" && own.labels && !selects(selector, own.labels)) return `${name} takes routes of namespaces with ${JSON.stringify(selector)} alone`;
  const foreign = hosts.filter((host) => !serves(listener, host));
  return foreign.length === 0 ? undefined : `${name} serves ${listener.hostname}, not ${foreign.join(", ")}`;
}

/** Whether a route has a host and path of the Gateway, and leads somewhere: one that redirects alone goes beside ours. */
function holds({ metadata, spec: { parentRefs = [], hostnames = [], rules = [] } }: Route, gateway: NonNullable<Wants["ingress"]["gateway"]>, host: string, path: string): boolean {
  const there = parentRefs.some(({ name, namespace = metadata.namespace, sectionName }) => name === gateway.name && namespace === gateway.namespace && (sectionName === undefined || gateway.sectionName === undefined || sectionName === gateway.sectionName));
  return there && hostnames.includes(host) && rules.some(({ matches = [{}], backendRefs = [] }) => backendRefs.length > 0 && matches.some((match) => (match.path?.value ?? "/") === path));
}

/** What keeps people from Jenkins by way of the Gateway. */
export function gatewayProblems({ ingress: { gateway, hosts, externalUrl }, domain, namespaces: { jenkins } }: Wants, { routes, missing = [], gateway: found, labels, version, others = [] }: GatewayFacts): GatewayProblem[] {
  if (missing.length > 0)
    return [{ key: "ingress.controller", found: `gateway, while the cluster has no ${missing.join(", ")} of ${gatewayGroup}`, expected: "the Gateway API's standard channel, 1.5 or newer, without which Traefik serves no Gateway", fix: "kubectl apply --server-side -f https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.6.1/standard-install.yaml; or pulumi config set --path 'ingress.controller' traefik" }];
  if (!gateway) return [];
  const { name, namespace, sectionName } = gateway;
  if (routes === false)
    return [{ key: "ingress.controller", found: `gateway, while the cluster knows no HTTPRoute of ${gatewayGroup}/v1`, expected: "the Gateway API's standard channel in the cluster, and a controller of it", fix: "install both; or pulumi config set --path 'ingress.controller' traefik" }];
  const [, major, minor] = /^v(\d+)\.(\d+)/.exec(version ?? "") ?? [];
  if (major === "0" || (major === "1" && Number(minor) < 2))
    return [{ key: "ingress.controller", found: `gateway, while the cluster has the Gateway API ${version}`, expected: "1.2 or newer: an older standard channel knows no timeouts of an HTTPRoute, and consoles would be cut", fix: "install a newer standard channel, as the Gateway's controller allows it" }];
  if (found === undefined) return [];
  if (found === null) return [{ key: "ingress.gateway.name", found: `no Gateway ${name} in namespace ${namespace}`, expected: "a Gateway that is there", fix: "correct name or namespace (kubectl get gateways -A lists them), or make it first" }];
  const listeners = found.spec.listeners.filter((each) => sectionName === undefined || each.name === sectionName);
  if (listeners.length === 0) return [{ key: "ingress.gateway.sectionName", found: sectionName ?? "no listener", expected: `a listener of Gateway ${namespace}/${name}: ${found.spec.listeners.map((each) => each.name).join(", ")}`, fix: "correct or remove it" }];
  const own = { namespace: jenkins, labels: { ...partOf, ...labels, "kubernetes.io/metadata.name": jenkins } };
  // Each host needs one; a route may have several listeners.
  return hostsOf({ domain, hosts }).flatMap(({ name: host }, i): GatewayProblem[] => {
    const key = i === 0 ? "domain" : `ingress.hosts[${i - 1}].name`;
    const holder = others.find((route) => (route.metadata.namespace !== jenkins || route.metadata.name !== "jenkins") && holds(route, gateway, host, prefixOf(externalUrl) || "/"));
    if (holder) return [{ key, found: `${host}, which HTTPRoute ${holder.metadata.namespace}/${holder.metadata.name} serves already on Gateway ${namespace}/${name}`, expected: "a host name, or a path of it, of this environment's own", fix: "name another host, or a path by ingress.externalUrl; or remove it there" }];
    const refusals = listeners.map((listener) => refusalOf(listener, [host], own, namespace));
    if (refusals.includes(undefined)) return [];
    const maybe = listeners.some((listener) => refusalOf(listener, [host], { namespace: jenkins }, namespace) === undefined);
    return [{ ...(maybe && { maybe }), key, found: `${host}, for which Gateway ${namespace}/${name} takes no route of namespace ${jenkins}: ${refusals.join("; ")}`, expected: "a listener that serves the host and takes routes of that namespace (allowedRoutes)", fix: `kubectl -n ${namespace} edit gateway ${name}` }];
  });
}
