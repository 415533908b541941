import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { stringify } from "yaml";
import { hstsSeconds, httpsNodePort } from "../config/pieces";
import { gatewayGroup, graceSeconds, IngressController, liveness, publicHttpsPort, spread, type IngressArgs } from "./ingress";
import { ownLabels } from "./ownership";
import { canonicalResources } from "./quantity";
import { transformed } from "./transform";

/** What Traefik is told. */
export interface IngressTraefikArgs extends IngressArgs {
  /** Hosts whose plain HTTP is sent on to httpsPort where that is not 443, or Gateways are served: an Ingress with TLS sends it to 443 by itself. Default none. */
  redirectHosts?: string[];
  /** Whether it serves Gateways beside Ingresses, of a GatewayClass of its own. Needs the Gateway API in the cluster. Default false. */
  gateways?: boolean;
}

/** Where its pods listen, as an ordinary user: people on the first two, probes and Prometheus on the third. */
const listen = { http: 8080, https: 8443, internal: 9100 };
const settingsFolder = "/etc/traefik/dynamic";
/** Label by which it knows its own GatewayClass; its value is the controller's namespace. */
const classLabel = "build-platform/ingress";
/** Kinds of the Gateway API that it has to see before it serves any, by version: all of the standard channel since 1.5. */
export const gatewayKinds = { v1: ["gatewayclasses", "gateways", "httproutes", "grpcroutes", "tlsroutes", "backendtlspolicies"], v1beta1: ["referencegrants"] };
/** Seconds that a request under way, such as a download or a console, is waited for. As ingress-nginx' worker-shutdown-timeout. */
const drainSeconds = 240;
/** Seconds that it may take to read the cluster's Ingresses and certificates, before it is started again. */
const startSeconds = 90;
/** Seconds that an upload may take; without a bound a client that sends nothing would be waited for, and Traefik's own is a minute. */
const uploadSeconds = 3600;

/** What Traefik is told in a file, which it reads again when it changes: what neither an Ingress' annotations nor its command line say. */
export function traefikSettings({ hstsSeconds: age = hstsSeconds.usual, redirectHosts = [], gateways = false, ...args }: Pick<IngressTraefikArgs, "hstsSeconds" | "httpsNodePort" | "httpsPort" | "redirectHosts" | "gateways">): string {
  const port = publicHttpsPort(args);
  // A Gateway sends nothing on by itself, whatever the port.
  const hosts = port === httpsNodePort.usual && !gateways ? [] : redirectHosts;
  return stringify({
    http: {
      middlewares: {
        hsts: { headers: { stsSeconds: age } },
        ...(hosts.length > 0 && { "to-https": { redirectScheme: { scheme: "https", port: String(port), permanent: true } } }),
      },
      ...(hosts.length > 0 && {
        routers: {
          // A certificate's issuer asks on plain HTTP; what came to a trusted proxy by TLS would not be sent on, and end at noop: Traefik takes the header from
          // no other. Above every router of an Ingress, whose priority is its rule's length.
          "to-https": { entryPoints: ["http"], rule: `(${hosts.map((host) => `Host(\`${host}\`)`).join(" || ")}) && !HeaderRegexp(\`X-Forwarded-Proto\`, \`(?i)^(https|wss)$\`) && !PathPrefix(\`/.well-known/acme-challenge/\`)`, priority: 100_000, middlewares: ["to-https"], service: "noop@internal" },
        },
      }),
    },
  });
}

/** Traefik's command line. */
export function traefikArguments(controllerClass: string, { trustedProxies = [], proxyProtocol = false, gateways = false }: Pick<IngressTraefikArgs, "trustedProxies" | "proxyProtocol" | "gateways"> = {}): string[] {
  const entryPoint = (name: keyof typeof listen) => `--entrypoints.${name}`;
  const provider = "--providers.kubernetesingressnginx";
  return [
    "--global.checknewversion=false",
    "--global.sendanonymoususage=false",
    // Without --api it serves no dashboard.
    ...(["http", "https", "internal"] as const).map((name) => `${entryPoint(name)}.address=:${listen[name]}`),
    ...(["http", "https"] as const).flatMap((name) => [
      `${entryPoint(name)}.transport.lifecycle.requestacceptgracetimeout=${graceSeconds}s`,
      `${entryPoint(name)}.transport.lifecycle.gracetimeout=${drainSeconds}s`,
      `${entryPoint(name)}.transport.respondingtimeouts.readtimeout=${uploadSeconds}s`,
    ]),
    ...(trustedProxies.length === 0 ? [] : (["http", "https"] as const).map((name) => `${entryPoint(name)}.${proxyProtocol ? "proxyprotocol" : "forwardedheaders"}.trustedips=${trustedProxies.join(",")}`)),
    `${entryPoint("https")}.http.middlewares=hsts@file`,
    "--ping=true",
    "--ping.entrypoint=internal",
    "--metrics.prometheus=true",
    "--metrics.prometheus.entrypoint=internal",
    "--accesslog=true",
    `--providers.file.directory=${settingsFolder}`,
    // Reads ingress-nginx' annotations: those that the platform and people set mean the same with both. Snippets it refuses, as ours there.
    `${provider}=true`,
    `${provider}.controllerclass=${controllerClass}`,
    `${provider}.httpentrypoint=http`,
    `${provider}.httpsentrypoint=https`,
    // It takes every GatewayClass for its own that another Traefik has, too.
    ...(gateways ? ["--providers.kubernetesgateway=true", `--providers.kubernetesgateway.labelselector=${classLabel}=${controllerClass.replace(/^.*\//, "")}`] : []),
  ];
}

/**
 * Traefik behind a NodePort Service on 80 and 443, reading Ingresses as ingress-nginx does. It writes no address into them. It may serve
 * Gateways as well.
 *
 * The names that others may rely on are those of IngressController; its Deployment is called `traefik`.
 *
 * @throws InputPropertiesError listing every bad argument, before any resource is made
 */
export class IngressTraefik extends IngressController {
  constructor(name: string, args: IngressTraefikArgs, opts?: pulumi.ComponentResourceOptions) {
    super("build-platform:ingress:IngressTraefik", { app: "traefik", podSecurity: "restricted" }, name, args, opts);
    const { parent, namespaceName, here, labels, controllerLabels, controllerClass, pulling, account, subjects } = this.room;
    const metadata = { name: `${namespaceName}-traefik`, labels: { ...labels, ...ownLabels() } };

    const role = new k8s.rbac.v1.ClusterRole(
      `${name}-traefik-role`,
      {
        metadata,
        rules: [
          // It does not start before it has seen all of these, ConfigMaps included. Of Secrets it needs certificates, in any namespace.
          { apiGroups: [""], resources: ["services", "secrets", "configmaps"], verbs: ["list", "watch"] },
          { apiGroups: ["discovery.k8s.io"], resources: ["endpointslices"], verbs: ["list", "watch"] },
          { apiGroups: ["networking.k8s.io"], resources: ["ingresses", "ingressclasses"], verbs: ["list", "watch"] },
          ...(args.gateways
            ? [
                { apiGroups: [""], resources: ["namespaces"], verbs: ["list", "watch"] },
                { apiGroups: [gatewayGroup], resources: [...gatewayKinds.v1, ...gatewayKinds.v1beta1], verbs: ["list", "watch"] },
                // It says there what it made of them.
                { apiGroups: [gatewayGroup], resources: gatewayKinds.v1.map((kind) => `${kind}/status`), verbs: ["update"] },
              ]
            : []),
        ],
      },
      parent,
    );
    const binding = new k8s.rbac.v1.ClusterRoleBinding(`${name}-traefik-role-binding`, { metadata, roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: role.metadata.name }, subjects }, parent);
    if (args.gateways) {
      const gatewayClass = new k8s.apiextensions.CustomResource(
        `${name}-gateway-class`,
        { apiVersion: `${gatewayGroup}/v1`, kind: "GatewayClass", metadata: { name: metadata.name, labels: { ...metadata.labels, [classLabel]: namespaceName } }, spec: { controllerName: "traefik.io/gateway-controller" } },
        parent,
      );
      this.gatewayClass = { name: gatewayClass.metadata.name, http: listen.http, https: listen.https };
    }
    const settings = new k8s.core.v1.ConfigMap(...transformed<k8s.core.v1.ConfigMapArgs>(
      args.transform?.configMap,
      `${name}-traefik-settings`,
      { metadata: { name: "traefik", namespace: here, labels }, data: { "settings.yml": traefikSettings(args) } },
      parent,
    ));

    // The way from a pod's port for people, by an Ingress, to itself: it answers before it has read any, and where a list of them is refused at its
    // start, as by an API server that has not read its roles again, it goes on without for good.
    const proof = { host: `ready.${namespaceName}.internal`, path: "/ping", name: "traefik-ready" };
    // Neither gets what Pulumi would wait for: an address, a pod that is ready already.
    const untended = { "pulumi.com/skipAwait": "true" };
    const proofService = new k8s.core.v1.Service(
      `${name}-traefik-ready`,
      { metadata: { name: proof.name, namespace: here, labels, annotations: untended }, spec: { selector: controllerLabels, publishNotReadyAddresses: true, ports: [{ name: "internal", port: listen.internal, targetPort: "internal", protocol: "TCP" }] } },
      parent,
    );
    new k8s.networking.v1.Ingress(
      `${name}-traefik-ready`,
      {
        metadata: {
          name: proof.name,
          namespace: here,
          labels,
          // By the Service's address: of its pods Traefik leaves out those that are not ready yet.
          annotations: { ...untended, "build-platform/asked-by": "kubelet", "nginx.ingress.kubernetes.io/service-upstream": "true" },
        },
        spec: { ingressClassName: this.ingressClassName, rules: [{ host: proof.host, http: { paths: [{ path: proof.path, pathType: "Exact", backend: { service: { name: proofService.metadata.name, port: { number: listen.internal } } } }] } }] },
      },
      parent,
    );
    const probe = { httpGet: { path: "/ping", port: "internal" }, timeoutSeconds: 5 };
    const deployment = new k8s.apps.v1.Deployment(...transformed<k8s.apps.v1.DeploymentArgs>(
      args.transform?.deployment,
      `${name}-traefik`,
      {
        metadata: { name: "traefik", namespace: here, labels: controllerLabels },
        spec: {
          replicas: args.replicas ?? 1,
          selector: { matchLabels: controllerLabels },
          template: {
            metadata: { labels: controllerLabels, annotations: { "prometheus.io/scrape": "true", "prometheus.io/port": String(listen.internal), "prometheus.io/path": "/metrics" } },
            spec: {
              serviceAccountName: account.metadata.name,
              enableServiceLinks: false,
              terminationGracePeriodSeconds: 300,
              ...pulling,
              securityContext: { runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, seccompProfile: { type: "RuntimeDefault" } },
              ...spread(controllerLabels),
              containers: [
                {
                  name: "traefik",
                  image: args.image,
                  // Else it serves Ingresses that name the class nginx in the older way, by annotation, whatever its own is called.
                  args: [...traefikArguments(controllerClass, args), pulumi.interpolate`--providers.kubernetesingressnginx.ingressclass=${this.ingressClassName}`],
                  livenessProbe: { ...probe, ...liveness },
                  startupProbe: { httpGet: { path: proof.path, port: "http", httpHeaders: [{ name: "Host", value: proof.host }] }, timeoutSeconds: 5, periodSeconds: 1, failureThreshold: startSeconds },
                  readinessProbe: { ...probe, periodSeconds: 2, failureThreshold: 3 },
                  ports: (["http", "https", "internal"] as const).map((port) => ({ name: port, containerPort: listen[port], protocol: "TCP" })),
                  resources: canonicalResources(args.resources ?? { requests: { cpu: "100m", memory: "90Mi" }, limits: { memory: "1Gi" } }),
                  securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] }, readOnlyRootFilesystem: true },
                  volumeMounts: [
                    { name: "settings", mountPath: settingsFolder, readOnly: true },
                    { name: "tmp", mountPath: "/tmp" },
                  ],
                },
              ],
              volumes: [
                { name: "settings", configMap: { name: settings.metadata.name } },
                // For bodies that an annotation asks to be buffered.
                { name: "tmp", emptyDir: { sizeLimit: "1Gi" } },
              ],
            },
          },
        },
      },
      { ...parent, dependsOn: [binding] },
    ));

    this.makeService(name, args, deployment);
  }
}
