import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { hstsSeconds, httpNodePort, httpsNodePort, ingressReplicas, usual, within } from "../config/pieces";
import { ownLabels, partOf } from "./ownership";
import { makePullSecret, type ImagePulls } from "./pull-secrets";
import { canonicalResources, Resources } from "./quantity";
import { type Transform, transformed } from "./transform";

export interface IngressNginxArgs {
  /** Image of the controller. */
  image: pulumi.Input<string>;
  /** Name of the IngressClass. Default `nginx`. */
  ingressClassName?: string;
  /** Namespace of the controller; a second one on a cluster has another. Default `ingress-nginx`. */
  namespace?: string;
  /** Port on every node for HTTP. Default 80: inside the API server's node-port range only where NodePortRange widened it. */
  httpNodePort?: number;
  /** Port on every node for HTTPS. Default 443. */
  httpsNodePort?: number;
  /** Controllers at once. Default 1. */
  replicas?: number;
  /** Seconds clients are told to use HTTPS only, on hosts with TLS. Default 31536000, a year, as nginx' own. */
  hstsSeconds?: number;
  /** Requests and limits. Default: what the upstream manifest requests, with a bound on memory. */
  resources?: Resources;
  /** What images are pulled with. Default nothing. */
  pulls?: ImagePulls;
  /** Last changes to the main objects, see components/transform.ts. */
  transform?: {
    deployment?: Transform<k8s.apps.v1.DeploymentArgs>;
    service?: Transform<k8s.core.v1.ServiceArgs>;
    configMap?: Transform<k8s.core.v1.ConfigMapArgs>;
  };
}

const ports = { httpNodePort, httpsNodePort };
const controllerName = "ingress-nginx-controller";
const electionId = "ingress-nginx-leader";
const labels = { "app.kubernetes.io/name": "ingress-nginx", ...partOf };
const controllerLabels = { ...labels, "app.kubernetes.io/component": "controller" };

const read = ["get", "list", "watch"];

/** Mistakes in the arguments, one detail per field. */
export function ingressNginxProblems(args: IngressNginxArgs): { propertyPath: string; reason: string }[] {
  const problems: { propertyPath: string; reason: string }[] = [];
  const { httpNodePort: http = ports.httpNodePort.usual, httpsNodePort: https = ports.httpsNodePort.usual, replicas = ingressReplicas.usual } = args;
  for (const [propertyPath, port] of [["httpNodePort", http], ["httpsNodePort", https]] as const) {
    if (!within(ports[propertyPath], port)) problems.push({ propertyPath, reason: `${port} is no port between 1 and 65535` });
  }
  if (http === https) problems.push({ propertyPath: "httpsNodePort", reason: `${https} is the port of httpNodePort as well` });
  if (!within(ingressReplicas, replicas)) problems.push({ propertyPath: "replicas", reason: `${replicas} is no whole number from ${ingressReplicas.least} to ${ingressReplicas.most}` });
  return problems;
}

/** The controller's settings, the data of its ConfigMap. https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/configmap/ */
export function controllerSettings(args: Pick<IngressNginxArgs, "hstsSeconds">): Record<string, string> {
  return {
    // Snippets let whoever writes an Ingress run code in the controller.
    "allow-snippet-annotations": "false",
    "annotations-risk-level": "High",
    hsts: "true",
    "hsts-include-subdomains": "false",
    "hsts-max-age": String(args.hstsSeconds ?? hstsSeconds.usual),
    "server-tokens": "false",
  };
}

/**
 * ingress-nginx behind a NodePort Service on 80 and 443, without its admission webhook (CVE-2025-1974) and without
 * snippets. Everything that knows ingress-nginx is in this file: another controller's class can be given to JenkinsMaster.
 *
 * Names others may rely on: namespace `ingress-nginx`, Service `ingress-nginx-controller` in it, IngressClass `nginx`. What is
 * the cluster's is named after the namespace, so that controllers of several environments do not meet.
 *
 * @throws InputPropertiesError listing every bad argument, before any resource is made
 */
export class IngressNginx extends pulumi.ComponentResource {
  readonly ingressClassName: pulumi.Output<string>;
  /** Namespace of the controller, from which requests to the backends come. */
  readonly namespace: pulumi.Output<string>;

  constructor(name: string, args: IngressNginxArgs, opts?: pulumi.ComponentResourceOptions) {
    super("build-platform:ingress:IngressNginx", name, {}, opts);
    const problems = ingressNginxProblems(args);
    if (problems.length > 0) throw new pulumi.InputPropertiesError({ message: `IngressNginx "${name}" cannot be made`, errors: problems });
    const parent = { parent: this };
    const namespaceName = args.namespace ?? usual.ingressNamespace;
    /** Which Ingresses are this controller's: those of classes that name it. */
    const controllerClass = `k8s.io/${namespaceName}`;
    const clusterLabels = { ...labels, ...ownLabels() };

    const namespace = new k8s.core.v1.Namespace(
      `${name}-namespace`,
      { metadata: { name: namespaceName, labels: { ...clusterLabels, "pod-security.kubernetes.io/enforce": "baseline" } } },
      parent,
    );
    const here = namespace.metadata.name;
    const pulling = makePullSecret(`${name}-registry`, { namespace: here, labels }, args.pulls, parent);
    const account = new k8s.core.v1.ServiceAccount(`${name}-account`, { metadata: { name: "ingress-nginx", namespace: here, labels }, ...pulling }, parent);
    const subjects = [{ kind: "ServiceAccount", name: account.metadata.name, namespace: here }];

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
      { metadata: { name: controllerName, namespace: here, labels }, data: controllerSettings(args) },
      parent,
    ));
    const ingressClass = new k8s.networking.v1.IngressClass(
      `${name}-class`,
      { metadata: { name: args.ingressClassName ?? usual.ingressClass, labels: { ...controllerLabels, ...ownLabels() } }, spec: { controller: controllerClass } },
      parent,
    );

    const probe = { httpGet: { path: "/healthz", port: 10254 }, timeoutSeconds: 5 };
    new k8s.apps.v1.Deployment(...transformed<k8s.apps.v1.DeploymentArgs>(
      args.transform?.deployment,
      `${name}-controller`,
      {
        metadata: { name: controllerName, namespace: here, labels: controllerLabels },
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
              topologySpreadConstraints: [
                { maxSkew: 1, topologyKey: "kubernetes.io/hostname", whenUnsatisfiable: "ScheduleAnyway", labelSelector: { matchLabels: controllerLabels } },
              ],
              containers: [
                {
                  name: "controller",
                  image: args.image,
                  args: [
                    "/nginx-ingress-controller",
                    `--election-id=${electionId}`,
                    `--controller-class=${controllerClass}`,
                    pulumi.interpolate`--ingress-class=${ingressClass.metadata.name}`,
                    pulumi.interpolate`--configmap=$(POD_NAMESPACE)/${configMap.metadata.name}`,
                    // On a NodePort the addresses of the controllers' nodes are where Ingresses are reached.
                    "--report-node-internal-ip-address",
                    // Ten seconds instead of a minute: `pulumi up` waits until an Ingress has its address.
                    "--status-update-interval=10",
                  ],
                  env: [
                    { name: "POD_NAME", valueFrom: { fieldRef: { apiVersion: "v1", fieldPath: "metadata.name" } } },
                    { name: "POD_NAMESPACE", valueFrom: { fieldRef: { apiVersion: "v1", fieldPath: "metadata.namespace" } } },
                    { name: "LD_PRELOAD", value: "/usr/local/lib/libmimalloc.so" },
                  ],
                  lifecycle: { preStop: { exec: { command: ["/wait-shutdown"] } } },
                  livenessProbe: { ...probe, periodSeconds: 10, failureThreshold: 5, initialDelaySeconds: 10 },
                  readinessProbe: { ...probe, periodSeconds: 2, failureThreshold: 3 },
                  ports: [
                    { name: "http", containerPort: 80, protocol: "TCP" },
                    { name: "https", containerPort: 443, protocol: "TCP" },
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

    const service = new k8s.core.v1.Service(...transformed<k8s.core.v1.ServiceArgs>(
      args.transform?.service,
      `${name}-service`,
      {
        metadata: { name: controllerName, namespace: here, labels: controllerLabels },
        spec: {
          type: "NodePort",
          // On a cluster of both address families the ports answer on both; elsewhere it says nothing.
          ipFamilyPolicy: "PreferDualStack",
          selector: controllerLabels,
          ports: [
            { name: "http", port: 80, targetPort: "http", protocol: "TCP", appProtocol: "http", nodePort: args.httpNodePort ?? httpNodePort.usual },
            { name: "https", port: 443, targetPort: "https", protocol: "TCP", appProtocol: "https", nodePort: args.httpsNodePort ?? httpsNodePort.usual },
          ],
        },
      },
      parent,
    ));

    this.ingressClassName = ingressClass.metadata.name;
    this.namespace = here;
    this.registerOutputs({ ingressClassName: this.ingressClassName, namespace: this.namespace, service: service.metadata.name });
  }
}
