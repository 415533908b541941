/**
 * The Gateway that leads to Jenkins: whether it is there and lets our route in. The API server takes a route to a Gateway that is not
 * there, or refuses it, without a word.
 */
import { gatewayGroup, hostsOf } from "../components/jenkins-master";
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

/** What the cluster says of it. */
export interface GatewayFacts {
  /** Whether the API server has HTTPRoutes of v1. */
  routes: boolean;
  /** Undefined where there is none. */
  gateway?: { spec: { listeners: Listener[] } };
  /** Labels of the controller's namespace; undefined where it is not there yet. */
  labels?: Record<string, string>;
}

type Wants = Pick<PlatformConfig, "ingress" | "domain" | "namespaces">;

/** Asks for all of it; `get` answers undefined for what is not there. Undefined where no Gateway is wanted. */
export async function readGateway({ ingress: { gateway }, namespaces }: Pick<Wants, "ingress" | "namespaces">, get: (path: string) => Promise<unknown>): Promise<GatewayFacts | undefined> {
  if (!gateway) return undefined;
  const api = `/apis/${gatewayGroup}/v1`;
  const [list, found, namespace] = await Promise.all([get(api), get(`${api}/namespaces/${gateway.namespace}/gateways/${gateway.name}`), get(`/api/v1/namespaces/${namespaces.jenkins}`)]);
  const labels = (namespace as { metadata?: { labels?: Record<string, string> } } | undefined)?.metadata?.labels;
  return {
    routes: (list as { resources?: { name: string }[] } | undefined)?.resources?.some(({ name }) => name === "httproutes") ?? false,
    ...(found !== undefined && { gateway: found as NonNullable<GatewayFacts["gateway"]> }),
    ...(labels && { labels }),
  };
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

/** Why a listener takes no route of ours; undefined where it does. */
function refusalOf(listener: Listener, hosts: string[], own: { namespace: string; labels: Record<string, string> }, gatewayNamespace: string): string | undefined {
  const { name, protocol, allowedRoutes: { kinds = [], namespaces: { from = "Same", selector = {} } = {} } = {} } = listener;
  if (!["HTTP", "HTTPS"].includes(protocol)) return `${name} speaks ${protocol}`;
  if (kinds.length > 0 && !kinds.some(({ kind, group = gatewayGroup }) => kind === "HTTPRoute" && group === gatewayGroup)) return `${name} takes ${kinds.map(({ kind }) => kind).join(", ")} alone`;
  if (from === "Same" && own.namespace !== gatewayNamespace) return `${name} takes routes of namespace ${gatewayNamespace} alone`;
  if (from === "None") return `${name} takes no routes`;
  if (from === "Selector" && !selects(selector, own.labels)) return `${name} takes routes of namespaces with ${JSON.stringify(selector)} alone`;
  const foreign = hosts.filter((host) => !serves(listener, host));
  return foreign.length === 0 ? undefined : `${name} serves ${listener.hostname}, not ${foreign.join(", ")}`;
}

/** What keeps people from Jenkins by way of the Gateway. */
export function gatewayProblems({ ingress: { gateway, hosts }, domain, namespaces: { jenkins } }: Wants, { routes, gateway: found, labels }: GatewayFacts): Problem[] {
  if (!gateway) return [];
  const { name, namespace, sectionName } = gateway;
  if (!routes)
    return [{ key: "ingress.controller", found: `gateway, while the cluster knows no HTTPRoute of ${gatewayGroup}/v1`, expected: "the Gateway API's standard channel in the cluster, and a controller of it", fix: "install both; or pulumi config set --path 'ingress.controller' traefik" }];
  if (!found) return [{ key: "ingress.gateway.name", found: `no Gateway ${name} in namespace ${namespace}`, expected: "a Gateway that is there", fix: "correct name or namespace (kubectl get gateways -A lists them), or make it first" }];
  const listeners = found.spec.listeners.filter((each) => sectionName === undefined || each.name === sectionName);
  if (listeners.length === 0) return [{ key: "ingress.gateway.sectionName", found: sectionName ?? "no listener", expected: `a listener of Gateway ${namespace}/${name}: ${found.spec.listeners.map((each) => each.name).join(", ")}`, fix: "correct or remove it" }];
  const own = { namespace: jenkins, labels: { ...partOf, ...labels, "kubernetes.io/metadata.name": jenkins } };
  // Each host needs one; a route may have several listeners.
  return hostsOf({ domain, hosts }).flatMap(({ name: host }, i): Problem[] => {
    const refusals = listeners.map((listener) => refusalOf(listener, [host], own, namespace));
    if (refusals.includes(undefined)) return [];
    return [{ key: i === 0 ? "domain" : `ingress.hosts[${i - 1}].name`, found: `${host}, for which Gateway ${namespace}/${name} takes no route of namespace ${jenkins}: ${refusals.join("; ")}`, expected: "a listener that serves the host and takes routes of that namespace (allowedRoutes)", fix: `kubectl -n ${namespace} edit gateway ${name}` }];
  });
}
