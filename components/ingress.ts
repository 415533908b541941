import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { externalTrafficPolicies, fits, httpNodePort, httpsNodePort, ingressReplicas, networkAddress, usual, within } from "../config/pieces";
import { ownLabels, partOf } from "./ownership";
import { makePullSecret, type ImagePulls } from "./pull-secrets";
import type { Resources } from "./quantity";
import { type Transform, transformed } from "./transform";

/** What every ingress controller of the platform is told. */
export interface IngressArgs {
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
  /** Port in the HTTPS addresses that people use, where something before the nodes makes it another. Default httpsNodePort. */
  httpsPort?: number;
  /** Addresses and CIDRs of proxies before the nodes, which are believed about where a request is from. Default none. */
  trustedProxies?: string[];
  /** Whether these say it by PROXY protocol, and not by X-Forwarded-*. Default false. */
  proxyProtocol?: boolean;
  /** Whether every node answers and hides people's addresses behind its own (Cluster), or only nodes with a pod of the controller, which see them (Local). Default Cluster. */
  externalTrafficPolicy?: (typeof externalTrafficPolicies)[number];
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

/** A GatewayClass, and the ports that listeners of its Gateways have to have. */
export interface GatewayClass {
  name: pulumi.Input<string>;
  http: number;
  https: number;
}

/** What sets one controller apart. */
interface Kind {
  /** Value of app.kubernetes.io/name, and name of the ServiceAccount. */
  app: string;
  /** Pod Security level that its pods keep to. */
  podSecurity: "baseline" | "restricted";
}

/** API group of Gateways and their routes. */
export const gatewayGroup = "gateway.networking.k8s.io";

/** Types of the components. What they share keeps its place in the state when one follows another. */
const types = ["build-platform:ingress:IngressNginx", "build-platform:ingress:IngressTraefik"] as const;

const ports = { httpNodePort, httpsNodePort };
/**
 * Of the Service whichever controller it leads to, as are the names of the namespace and of the class: a Service of another name
 * would have to wait until this one is gone and its ports are free, and nobody would answer meanwhile.
 */
export const ingressServiceName = "ingress-nginx-controller";
/** When a pod that does not answer is started again: at once, for the requests under way that a replaced one waits for are lost with it. */
export const liveness = { periodSeconds: 10, failureThreshold: 5, initialDelaySeconds: 10, terminationGracePeriodSeconds: 30 };
/** Seconds for the news that a pod comes or goes to reach every node; a pod answers so much longer than it is listed. */
export const graceSeconds = 5;

/** Mistakes in the arguments, one detail per field. */
export function ingressProblems(args: IngressArgs): { propertyPath: string; reason: string }[] {
  const problems: { propertyPath: string; reason: string }[] = [];
  const { httpNodePort: http = ports.httpNodePort.usual, httpsNodePort: https = ports.httpsNodePort.usual, replicas = ingressReplicas.usual } = args;
  for (const [propertyPath, port] of [["httpNodePort", http], ["httpsNodePort", https]] as const) {
    if (!within(ports[propertyPath], port)) problems.push({ propertyPath, reason: `${port} is no port between 1 and 65535` });
  }
  (args.trustedProxies ?? []).forEach((each, i) => {
    if (!fits(networkAddress, each)) problems.push({ propertyPath: `trustedProxies[${i}]`, reason: `"${each}" is not ${networkAddress.expected}` });
  });
  if (args.proxyProtocol && !args.trustedProxies?.length) problems.push({ propertyPath: "trustedProxies", reason: "are missing: nobody would be believed about PROXY protocol" });
  if (http === https) problems.push({ propertyPath: "httpsNodePort", reason: `${https} is the port of httpNodePort as well` });
  if (!within(ingressReplicas, replicas)) problems.push({ propertyPath: "replicas", reason: `${replicas} is no whole number from ${ingressReplicas.least} to ${ingressReplicas.most}` });
  return problems;
}

/** Port in people's HTTPS addresses, to which plain HTTP is sent on. */
export const publicHttpsPort = ({ httpsPort, httpsNodePort: port = httpsNodePort.usual }: Pick<IngressArgs, "httpsPort" | "httpsNodePort">): number => httpsPort ?? port;

/** What of a controller's room its own objects are made with. */
interface Room {
  parent: pulumi.CustomResourceOptions;
  namespaceName: string;
  /** The same, once the namespace is there. */
  here: pulumi.Output<string>;
  labels: Record<string, string>;
  controllerLabels: Record<string, string>;
  /** Which Ingresses are this controller's: those of classes that name it. */
  controllerClass: string;
  /** What a pod says of its pull secrets. */
  pulling: ReturnType<typeof makePullSecret>;
  account: k8s.core.v1.ServiceAccount;
  subjects: { kind: string; name: pulumi.Output<string>; namespace: pulumi.Output<string> }[];
}

/**
 * What ingress controllers have in common: a namespace, an account, an IngressClass, and a NodePort Service on 80 and 443. These stay
 * the same objects when one controller follows another, so that the ports lead to the one until the other is ready.
 *
 * Names others may rely on: namespace `ingress-nginx`, Service `ingress-nginx-controller` in it, IngressClass `nginx`. What is
 * the cluster's is named after the namespace, so that controllers of several environments do not meet.
 */
export abstract class IngressController extends pulumi.ComponentResource {
  readonly ingressClassName: pulumi.Output<string>;
  /** Namespace of the controller, from which requests to the backends come. */
  readonly namespace: pulumi.Output<string>;
  /** The class for Gateways; undefined where the controller serves none. */
  gatewayClass?: GatewayClass;
  protected readonly room: Room;

  /** @throws InputPropertiesError listing every bad argument, before any resource is made */
  protected constructor(type: (typeof types)[number], { app, podSecurity }: Kind, name: string, args: IngressArgs, opts?: pulumi.ComponentResourceOptions) {
    super(type, name, {}, pulumi.mergeOptions(opts, { aliases: types.filter((other) => other !== type).map((other) => ({ type: other })) }));
    const problems = ingressProblems(args);
    if (problems.length > 0) throw new pulumi.InputPropertiesError({ message: `${type.split(":").pop()} "${name}" cannot be made`, errors: problems });
    const parent = { parent: this };
    const labels = { "app.kubernetes.io/name": app, ...partOf };
    const controllerLabels = { ...labels, "app.kubernetes.io/component": "controller" };
    const namespaceName = args.namespace ?? usual.ingressNamespace;
    const controllerClass = `k8s.io/${namespaceName}`;

    const namespace = new k8s.core.v1.Namespace(
      `${name}-namespace`,
      { metadata: { name: namespaceName, labels: { ...labels, ...ownLabels(), "pod-security.kubernetes.io/enforce": podSecurity } } },
      parent,
    );
    const here = namespace.metadata.name;
    const pulling = makePullSecret(`${name}-registry`, { namespace: here, labels }, args.pulls, parent);
    // One that followed the other's would replace it, and after an update that failed halfway neither could be made again.
    const account = new k8s.core.v1.ServiceAccount(`${name}-${app === "ingress-nginx" ? "" : `${app}-`}account`, { metadata: { name: app, namespace: here, labels }, ...pulling }, parent);
    const ingressClass = new k8s.networking.v1.IngressClass(
      `${name}-class`,
      { metadata: { name: args.ingressClassName ?? usual.ingressClass, labels: { ...controllerLabels, ...ownLabels() } }, spec: { controller: controllerClass } },
      parent,
    );
    this.room = { parent, namespaceName, here, labels, controllerLabels, controllerClass, pulling, account, subjects: [{ kind: "ServiceAccount", name: account.metadata.name, namespace: here }] };
    this.ingressClassName = ingressClass.metadata.name;
    this.namespace = here;
  }

  /** The Service on the nodes' ports; it comes after the pods that it leads to. */
  protected makeService(name: string, args: IngressArgs, deployment: k8s.apps.v1.Deployment): void {
    const { here, controllerLabels, parent } = this.room;
    const service = new k8s.core.v1.Service(...transformed<k8s.core.v1.ServiceArgs>(
      args.transform?.service,
      `${name}-service`,
      {
        metadata: { name: ingressServiceName, namespace: here, labels: controllerLabels },
        spec: {
          type: "NodePort",
          ...(args.externalTrafficPolicy === "Local" && { externalTrafficPolicy: args.externalTrafficPolicy }),
          // On a cluster of both address families the ports answer on both; elsewhere it says nothing.
          ipFamilyPolicy: "PreferDualStack",
          selector: controllerLabels,
          ports: [
            { name: "http", port: 80, targetPort: "http", protocol: "TCP", appProtocol: "http", nodePort: args.httpNodePort ?? httpNodePort.usual },
            { name: "https", port: 443, targetPort: "https", protocol: "TCP", appProtocol: "https", nodePort: args.httpsNodePort ?? httpsNodePort.usual },
          ],
        },
      },
      { ...parent, dependsOn: [deployment] },
    ));
    this.registerOutputs({ ingressClassName: this.ingressClassName, namespace: this.namespace, service: service.metadata.name });
  }
}

/**
 * Pods of the controller on different nodes where there are several. Those of a former state of the Deployment, which are about to go, do not count: with
 * them a rollout would end with two new ones on one node and none on the other, which with externalTrafficPolicy Local then answers nobody.
 */
export const spread = (controllerLabels: Record<string, string>) => ({
  topologySpreadConstraints: [{ maxSkew: 1, topologyKey: "kubernetes.io/hostname", whenUnsatisfiable: "ScheduleAnyway", labelSelector: { matchLabels: controllerLabels }, matchLabelKeys: ["pod-template-hash"] }],
});
