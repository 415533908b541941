import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { usual } from "../../config/pieces";
import { transformed } from "../transform";
import type { AddressArgs, JenkinsMasterArgs } from "./args";
import { controllerLabels, labels, Place } from "./place";

/** The address people use. */
export function jenkinsUrl(domain: string, tls: boolean, port?: number): string {
  return `${tls ? "https" : "http"}://${domain}${port === undefined || port === (tls ? 443 : 80) ? "" : `:${port}`}/`;
}

/** Annotations that make ingress-nginx fit Jenkins, and Traefik as the platform sets it up; another controller ignores them. */
export function ingressAnnotations(args: Pick<AddressArgs, "tls" | "maxBodySize" | "annotations" | "awaited">): Record<string, string> {
  return {
    "nginx.ingress.kubernetes.io/proxy-body-size": args.maxBodySize ?? usual.maxBodySize,
    // Console output is streamed; a long silence in a build must not cut it.
    "nginx.ingress.kubernetes.io/proxy-read-timeout": "600",
    "nginx.ingress.kubernetes.io/proxy-request-buffering": "off",
    "nginx.ingress.kubernetes.io/ssl-redirect": args.tls ? "true" : "false",
    ...(args.tls?.clusterIssuer && { "cert-manager.io/cluster-issuer": args.tls.clusterIssuer }),
    ...(args.awaited === false && { "pulumi.com/skipAwait": "true" }),
    ...args.annotations,
  };
}

/** The Services by which the Ingress and the agents find the controller; their names. */
export function makeServices({ name, parent, here }: Place): { http: pulumi.Output<string>; agent: pulumi.Output<string> } {
  const service = (part: string, objectName: string, port: number) =>
    new k8s.core.v1.Service(
      `${name}-${part}`,
      { metadata: { name: objectName, namespace: here, labels }, spec: { selector: controllerLabels, ports: [{ name: part, port, targetPort: part, protocol: "TCP" }] } },
      parent,
    ).metadata.name;
  return { http: service("http", "jenkins", 8080), agent: service("agent", "jenkins-agent", 50000) };
}

/** The way in for people. */
export function makeIngress({ name, parent, here }: Place, { address, transform }: JenkinsMasterArgs, service: pulumi.Output<string>): void {
  const content = {
    metadata: { name: "jenkins", namespace: here, labels, annotations: ingressAnnotations(address) },
    spec: {
      ingressClassName: address.ingressClassName,
      ...(address.tls && { tls: [{ hosts: [address.domain], secretName: address.tls.secretName }] }),
      rules: [{ host: address.domain, http: { paths: [{ path: "/", pathType: "Prefix", backend: { service: { name: service, port: { name: "http" } } } }] } }],
    },
  };
  new k8s.networking.v1.Ingress(...transformed(transform?.ingress, `${name}-ingress`, content, { ...parent, customTimeouts: { create: "20m", update: "20m" } }));
}
