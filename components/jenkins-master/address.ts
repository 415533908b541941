import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { usual } from "../../config/pieces";
import { gatewayGroup, type GatewayClass } from "../ingress";
import { transformed } from "../transform";
import type { AddressArgs, ControllerArgs, FurtherHost, GatewayRef, JenkinsMasterArgs } from "./args";
import { controllerLabels, labels, Place } from "./place";

/** The address people use, with a slash at its end. */
export function jenkinsUrl({ domain, tls, port, externalUrl }: Pick<AddressArgs, "domain" | "tls" | "port" | "externalUrl">): string {
  if (externalUrl !== undefined) return new URL(externalUrl.replace(/\/*$/, "/")).href;
  return `${tls ? "https" : "http"}://${domain}${port === undefined || port === (tls ? 443 : 80) ? "" : `:${port}`}/`;
}

/** Jenkins' resource root URL: the address that people use, on another host; undefined where none is for it. */
export function resourceUrl(address: Pick<AddressArgs, "domain" | "tls" | "port" | "externalUrl" | "hosts">): string | undefined {
  const host = address.hosts?.find(({ resources }) => resources);
  return host && jenkinsUrl(address).replace(/^(https?:\/\/)[^/:]+/, `$1${host.name}`);
}

/** Every host that the Ingress serves, with the Secret of its certificate: the domain first. */
export const hostsOf = ({ domain, tls, hosts = [] }: Pick<AddressArgs, "domain" | "tls" | "hosts">): FurtherHost[] => [{ name: domain, ...(tls && { secretName: tls.secretName }) }, ...hosts];

/** Path below which Jenkins answers, without a slash at its end: "" at the root. @param address the one that people use; none is one at the root */
export const prefixOf = (address = ""): string => address.replace(/^https?:\/\/[^/]*/, "").replace(/\/+$/, "");

/** Port of an address, also where it is the usual one and not said. */
export const portOf = ({ protocol, port }: URL): number => Number(port || (protocol === "https:" ? 443 : 80));

/** Whether TLS ends at a proxy before the ingress. */
export const tlsEndsBefore = ({ tls, externalUrl }: { tls?: object; externalUrl?: string }): boolean => tls === undefined && (externalUrl?.startsWith("https:") ?? false);

/** Whether plain HTTP can be told from what came to such a proxy over TLS, and be sent on to the address that people use: by nginx' annotation only to the same host, on 443. */
export function sentOn({ domain, ...args }: Pick<AddressArgs, "domain" | "tls" | "externalUrl" | "forwardedProto">): boolean {
  return tlsEndsBefore(args) && args.forwardedProto === true && new URL(args.externalUrl!).host === domain;
}

const outerAnnotation = "build-platform/external-url";
/** For the policy pack, which asks for HTTPS: where TLS ends before what serves the host. */
const outerMark = (args: Pick<AddressArgs, "tls" | "externalUrl">): Record<string, string> => (tlsEndsBefore(args) ? { [outerAnnotation]: args.externalUrl! } : {});

/** Annotations that make ingress-nginx fit Jenkins, and Traefik as the platform sets it up; another controller ignores them. */
export function ingressAnnotations(args: Pick<AddressArgs, "domain" | "tls" | "externalUrl" | "forwardedProto" | "maxBodySize" | "annotations" | "awaited">): Record<string, string> {
  return {
    "nginx.ingress.kubernetes.io/proxy-body-size": args.maxBodySize ?? usual.maxBodySize,
    // Console output is streamed; a long silence in a build must not cut it.
    "nginx.ingress.kubernetes.io/proxy-read-timeout": "600",
    "nginx.ingress.kubernetes.io/proxy-request-buffering": "off",
    "nginx.ingress.kubernetes.io/ssl-redirect": args.tls ? "true" : "false",
    ...outerMark(args),
    ...(sentOn(args) && { "nginx.ingress.kubernetes.io/force-ssl-redirect": "true" }),
    ...(args.tls?.clusterIssuer && { "cert-manager.io/cluster-issuer": args.tls.clusterIssuer }),
    ...(args.awaited === false && { "pulumi.com/skipAwait": "true" }),
    ...args.annotations,
  };
}

const httpPort = 8080;
/** Name of the Service for agents. */
export const agentServiceName = "jenkins-agent";

/** The Services by which the Ingress and the agents find the controller; their names. */
export function makeServices({ name, parent, here }: Place, { agentNodePort }: Pick<ControllerArgs, "agentNodePort">): { http: pulumi.Output<string>; agent: pulumi.Output<string> } {
  const service = (part: string, objectName: string, port: number, nodePort?: number) =>
    new k8s.core.v1.Service(
      `${name}-${part}`,
      { metadata: { name: objectName, namespace: here, labels }, spec: { ...(nodePort && { type: "NodePort" }), selector: controllerLabels, ports: [{ name: part, port, targetPort: part, protocol: "TCP", ...(nodePort && { nodePort }) }] } },
      parent,
    ).metadata.name;
  return { http: service("http", "jenkins", httpPort), agent: service("agent", agentServiceName, 50000, agentNodePort) };
}

/**
 * A Gateway of the class for Jenkins alone, beside its certificates; cert-manager is asked for these by name, for not everybody's looks at Gateways.
 * They are not called after their Secrets: so cert-manager calls those that it makes for an Ingress, which are there until the Ingress is gone and have
 * to be free for the way back. Meanwhile two name one Secret: it leaves that to the first, and looks at the other again after three minutes.
 */
function makeGateway({ name, parent, here }: Place, address: AddressArgs, { name: gatewayClassName, http, https }: GatewayClass): GatewayRef {
  const hosts = hostsOf(address);
  const issuer = address.tls?.clusterIssuer;
  if (issuer !== undefined)
    for (const { name: host, secretName } of hosts)
      new k8s.apiextensions.CustomResource(
        `${name}-certificate${host === address.domain ? "" : `-${host}`}`,
        { apiVersion: "cert-manager.io/v1", kind: "Certificate", metadata: { name: `jenkins-gateway-${host}`, namespace: here, labels }, spec: { secretName, dnsNames: [host], issuerRef: { group: "cert-manager.io", kind: "ClusterIssuer", name: issuer } } },
        parent,
      );
  const allowedRoutes = { namespaces: { from: "Same" } };
  const secure = hosts.flatMap(({ name: host, secretName }, i) =>
    secretName === undefined ? [] : [{ name: i === 0 ? "https" : `https-${i}`, protocol: "HTTPS", port: https, hostname: host, allowedRoutes, tls: { mode: "Terminate", certificateRefs: [{ group: "", kind: "Secret", name: secretName }] } }]);
  new k8s.apiextensions.CustomResource(
    `${name}-gateway`,
    { apiVersion: `${gatewayGroup}/v1`, kind: "Gateway", metadata: { name: "jenkins", namespace: here, labels }, spec: { gatewayClassName, listeners: [{ name: "http", protocol: "HTTP", port: http, allowedRoutes }, ...secure] } },
    parent,
  );
  return { name: "jenkins" };
}

/** The way in for people from a Gateway. */
function makeRoute({ name, parent, here }: Place, address: AddressArgs, gateway: GatewayRef, service: pulumi.Output<string>): void {
  const mark = address.tls ? { [outerAnnotation]: jenkinsUrl(address) } : outerMark(address);
  new k8s.apiextensions.CustomResource(
    `${name}-route`,
    {
      apiVersion: `${gatewayGroup}/v1`,
      kind: "HTTPRoute",
      metadata: { name: "jenkins", namespace: here, labels, ...(Object.keys(mark).length > 0 && { annotations: mark }) },
      spec: {
        parentRefs: [{ group: gatewayGroup, kind: "Gateway", ...gateway }],
        hostnames: hostsOf(address).map(({ name: host }) => host),
        rules: [{
          matches: [{ path: { type: "PathPrefix", value: prefixOf(address.externalUrl) || "/" } }],
          backendRefs: [{ group: "", kind: "Service", name: service, port: httpPort, weight: 1 }],
          // Consoles are streamed for as long as a build runs; some have fifteen seconds else.
          timeouts: { request: "0s" },
        }],
      },
    },
    parent,
  );
}

/** The way in for people. */
export function makeIngress(place: Place, { address, transform }: JenkinsMasterArgs, service: pulumi.Output<string>): void {
  const gateway = address.gatewayClass ? makeGateway(place, address, address.gatewayClass) : address.gateway;
  if (gateway) return makeRoute(place, address, gateway, service);
  const { name, parent, here } = place;
  const hosts = hostsOf(address);
  const secrets = [...new Set(hosts.flatMap(({ secretName }) => secretName ?? []))];
  const http = { paths: [{ path: prefixOf(address.externalUrl) || "/", pathType: "Prefix", backend: { service: { name: service, port: { name: "http" } } } }] };
  const content = {
    metadata: { name: "jenkins", namespace: here, labels, annotations: ingressAnnotations(address) },
    spec: {
      ingressClassName: address.ingressClassName,
      // One entry for each certificate: cert-manager makes one for each.
      ...(address.tls && { tls: secrets.map((secretName) => ({ hosts: hosts.filter((each) => each.secretName === secretName).map(({ name: host }) => host), secretName })) }),
      rules: hosts.map(({ name: host }) => ({ host, http })),
    },
  };
  new k8s.networking.v1.Ingress(...transformed(transform?.ingress, `${name}-ingress`, content, { ...parent, customTimeouts: { create: "20m", update: "20m" } }));
}
