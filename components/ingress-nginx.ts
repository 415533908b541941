import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { hstsSeconds, httpsNodePort } from "../config/pieces";
import { graceSeconds, IngressController, ingressServiceName, liveness, publicHttpsPort, spread, type IngressArgs } from "./ingress";
import { ownLabels } from "./ownership";
import { canonicalResources } from "./quantity";
import { transformed } from "./transform";

/** What ingress-nginx is told. */
export type IngressNginxArgs = IngressArgs;

const electionId = "ingress-nginx-leader";

const read = ["get", "list", "watch"];

/** Ports of a pod that the controller listens on for itself. */
const ownPorts = [80, 442, 8181, 10245, 10246, 10247, 10254];

/** The port for HTTPS that nginx itself listens on where it is not 443: redirects name it, so it is the one that people use. */
function redirectPort(args: Pick<IngressNginxArgs, "httpsNodePort" | "httpsPort">): number | undefined {
  const port = publicHttpsPort(args);
  return port === httpsNodePort.usual || ownPorts.includes(port) ? undefined : port;
}

/** The controller's settings, the data of its ConfigMap. https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/configmap/ */
export function controllerSettings(args: Pick<IngressNginxArgs, "hstsSeconds" | "httpsNodePort" | "httpsPort" | "trustedProxies" | "proxyProtocol">): Record<string, string> {
  return {
    // Snippets let whoever writes an Ingress run code in the controller.
    "allow-snippet-annotations": "false",
    "annotations-risk-level": "High",
    hsts: "true",
    "hsts-include-subdomains": "false",
    "hsts-max-age": String(args.hstsSeconds ?? hstsSeconds.usual),
    "server-tokens": "false",
    // Plain HTTP is sent to the scheme's own port else, where nobody answers.
    ...(redirectPort(args) && { "use-port-in-redirects": "true" }),
    // Whose word counts about people's addresses; X-Forwarded-Proto it then takes from everybody.
    ...(args.trustedProxies?.length && { [args.proxyProtocol ? "use-proxy-protocol" : "use-forwarded-headers"]: "true", "proxy-real-ip-cidr": args.trustedProxies.join(",") }),
  };
}

/**
 * ingress-nginx behind a NodePort Service on 80 and 443, without its admission webhook (CVE-2025-1974) and without
 * snippets. Everything that knows ingress-nginx is in this file: another controller's class can be given to JenkinsMaster.
 *
 * The names that others may rely on are those of IngressController.
 *
 * @throws InputPropertiesError listing every bad argument, before any resource is made
 */
export class IngressNginx extends IngressController {
  constructor(name: string, args: IngressNginxArgs, opts?: pulumi.ComponentResourceOptions) {
    super("build-platform:ingress:IngressNginx", { app: "ingress-nginx", podSecurity: "baseline" }, name, args, opts);
    const { parent, namespaceName, here, labels, controllerLabels, controllerClass, pulling, account, subjects } = this.room;
    const clusterLabels = { ...labels, ...ownLabels() };

    // Rules as in deploy/static/provider/baremetal/deploy.yaml of release controller-v1.15.1.
    const clusterRole = new k8s.rbac.v1.ClusterRole(
      `${name}-cluster-role`,
      {
        metadata: { name: namespaceName, labels: clusterLabels },
        rules: [
          { apiGroups: [""], resources: ["configmaps", "endpoints", "nodes", "pods", "secrets", "namespaces"], verbs: ["list", "watch"] },
          { apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["list", "watch"] },
          { apiGroups: [""], resources: ["nodes"], verbs: ["get"] },
          { apiGroups: [""], resources: ["services"], verbs: read },
          { apiGroups: ["networking.k8s.io"], resources: ["ingresses"], verbs: read },
          { apiGroups: [""], resources: ["events"], verbs: ["create", "patch"] },
          { apiGroups: ["networking.k8s.io"], resources: ["ingresses/status"], verbs: ["update"] },
          { apiGroups: ["networking.k8s.io"], resources: ["ingressclasses"], verbs: read },
          { apiGroups: ["discovery.k8s.io"], resources: ["endpointslices"], verbs: read },
        ],
      },
      parent,
    );
    const clusterBinding = new k8s.rbac.v1.ClusterRoleBinding(
      `${name}-cluster-role-binding`,
      {
        metadata: { name: namespaceName, labels: clusterLabels },
        roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: clusterRole.metadata.name },
        subjects,
      },
      parent,
    );
    const role = new k8s.rbac.v1.Role(
      `${name}-role`,
      {
        metadata: { name: "ingress-nginx", namespace: here, labels },
        rules: [
          { apiGroups: [""], resources: ["namespaces"], verbs: ["get"] },
          { apiGroups: [""], resources: ["configmaps", "pods", "secrets", "endpoints"], verbs: read },
          { apiGroups: [""], resources: ["services"], verbs: read },
          { apiGroups: ["coordination.k8s.io"], resources: ["leases"], resourceNames: [electionId], verbs: ["get", "update"] },
          { apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["create"] },
          { apiGroups: [""], resources: ["events"], verbs: ["create", "patch"] },
          { apiGroups: ["discovery.k8s.io"], resources: ["endpointslices"], verbs: read },
        ],
      },
      parent,
    );
    const binding = new k8s.rbac.v1.RoleBinding(
      `${name}-role-binding`,
      {
        metadata: { name: "ingress-nginx", namespace: here, labels },
        roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "Role", name: role.metadata.name },
        subjects,
      },
      parent,
    );

    const configMap = new k8s.core.v1.ConfigMap(...transformed<k8s.core.v1.ConfigMapArgs>(
      args.transform?.configMap,
      `${name}-settings`,
      { metadata: { name: ingressServiceName, namespace: here, labels }, data: controllerSettings(args) },
      parent,
    ));
    const port = redirectPort(args);
    const probe = { httpGet: { path: "/healthz", port: 10254 }, timeoutSeconds: 5 };
    const deployment = new k8s.apps.v1.Deployment(...transformed<k8s.apps.v1.DeploymentArgs>(
      args.transform?.deployment,
      `${name}-controller`,
      {
        metadata: { name: ingressServiceName, namespace: here, labels: controllerLabels },
        spec: {
          replicas: args.replicas ?? 1,
          selector: { matchLabels: controllerLabels },
          template: {
            metadata: { labels: controllerLabels },
            spec: {
              serviceAccountName: account.metadata.name,
              enableServiceLinks: false,
              terminationGracePeriodSeconds: 300,
              ...pulling,
              securityContext: {
                // Lets nginx bind 80 and 443 as an ordinary user whatever the container runtime does with capabilities.
                sysctls: [{ name: "net.ipv4.ip_unprivileged_port_start", value: "0" }],
                seccompProfile: { type: "RuntimeDefault" },
              },
              ...spread(controllerLabels),
              containers: [
                {
                  name: "controller",
                  image: args.image,
                  args: [
                    "/nginx-ingress-controller",
                    `--election-id=${electionId}`,
                    `--controller-class=${controllerClass}`,
                    pulumi.interpolate`--ingress-class=${this.ingressClassName}`,
                    pulumi.interpolate`--configmap=$(POD_NAMESPACE)/${configMap.metadata.name}`,
                    // On a NodePort the addresses of the controllers' nodes are where Ingresses are reached.
                    "--report-node-internal-ip-address",
                    // Ten seconds instead of a minute: `pulumi up` waits until an Ingress has its address.
                    "--status-update-interval=10",
                    `--shutdown-grace-period=${graceSeconds}`,
                    ...(port ? [`--https-port=${port}`] : []),
                  ],
                  env: [
                    { name: "POD_NAME", valueFrom: { fieldRef: { apiVersion: "v1", fieldPath: "metadata.name" } } },
                    { name: "POD_NAMESPACE", valueFrom: { fieldRef: { apiVersion: "v1", fieldPath: "metadata.namespace" } } },
                    { name: "LD_PRELOAD", value: "/usr/local/lib/libmimalloc.so" },
                  ],
                  lifecycle: { preStop: { exec: { command: ["/wait-shutdown"] } } },
                  livenessProbe: { ...probe, ...liveness },
                  // It says that it is ready before it knows an Ingress.
                  readinessProbe: { ...probe, periodSeconds: 2, failureThreshold: 3, initialDelaySeconds: graceSeconds },
                  ports: [
                    { name: "http", containerPort: 80, protocol: "TCP" },
                    { name: "https", containerPort: port ?? 443, protocol: "TCP" },
                  ],
                  resources: canonicalResources(args.resources ?? { requests: { cpu: "100m", memory: "90Mi" }, limits: { memory: "1Gi" } }),
                  securityContext: {
                    allowPrivilegeEscalation: false,
                    // Not used to bind, but without it in the bounding set the kernel refuses to start the image's nginx.
                    capabilities: { add: ["NET_BIND_SERVICE"], drop: ["ALL"] },
                    runAsUser: 101,
                    runAsGroup: 82,
                    runAsNonRoot: true,
                  },
                },
              ],
            },
          },
        },
      },
      { ...parent, dependsOn: [clusterBinding, binding] },
    ));

    this.makeService(name, args, deployment);
  }
}
