import { createHash, createPrivateKey, createPublicKey, hkdfSync, type KeyObject, sign } from "node:crypto";
import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { stringify } from "yaml";
import { fits, name as namePiece, registryPort, size as sizePiece, within } from "../config/pieces";
import { base64 } from "./encoding";
import { ownLabels, partOf } from "./ownership";
import { makePullSecret, type ImagePulls } from "./pull-secrets";
import { canonicalQuantity, quantityMillis } from "./quantity";
import { randomText } from "./random";
import { type Transform, transformed } from "./transform";

export interface ImageRegistryArgs {
  /** Image of the distribution registry. */
  image: pulumi.Input<string>;
  /** StorageClass of both claims. */
  storageClassName: pulumi.Input<string>;
  /** Room for the platform's own images, with its unit. Another size is another, empty volume, into which the images are built again. */
  size: string;
  /** Room for the images that jobs push, with its unit. Where they need more, what has no tag goes, then the oldest tags. */
  jobsSize: string;
  /** Repositories that images are pushed to, without the registry's name. */
  repositories: string[];
  /** Port of every node's loopback on which its container runtime finds the registry; each environment of a cluster has its own. */
  port: number;
  /** Namespace of the registries; the component makes it. */
  namespace: string;
  /** Namespace of what runs on the nodes' network, which only the level `privileged` admits; the component makes it, and nothing else should run there. */
  nodesNamespace: string;
  /** The one namespace whose pods may push the platform's images. */
  buildsNamespace: string;
  /** The one namespace whose pods reach the jobs' registry. */
  agentsNamespace: string;
  /** Whether NetworkPolicies keep others from the ports for pushes. Default true. */
  networkPolicies?: boolean;
  /** What the program's own image is pulled with. Default nothing. */
  pulls?: ImagePulls;
  /** Last changes to the main objects, see components/transform.ts. */
  transform?: {
    deployment?: Transform<k8s.apps.v1.DeploymentArgs>;
    daemonSet?: Transform<k8s.apps.v1.DaemonSetArgs>;
  };
}

/** Name of the Deployment and Service of the registry for the platform's images. */
export const registryName = "image-registry";
/** Name of the Deployment and Service of the registry for jobs' own images. */
export const jobsRegistryName = "jobs-registry";
/** Port on which anybody in the cluster may pull, and nobody push; of the jobs' registry the one for both. */
export const pullPort = 5000;
/** Port for pushes and deletions. */
export const pushPort = 5001;

/** Address of one of the registries inside the cluster. */
export const registryAddress = (service: string, namespace: string, port: number): string => `${service}.${namespace}.svc:${port}`;

/** DaemonSet that leads nodes to it, by that name and label. */
export const registryNodeName = `${registryName}-node`;

/** Secret with the token for pushes, under the key token. */
export const pushSecretName = `${registryName}-push`;

/** Where the program has its images. */
export const folder = "/var/lib/registry";
const configFolder = "/etc/image-registry";
const component = "app.kubernetes.io/name";
/** Nobody on the nodes. */
const user = 65532;

const [issuer, keyName] = ["build-platform", "push"];

/** The key that pushes are signed with, of a text that nobody else knows: Ed25519, its 32 bytes behind the frame of RFC 8410. */
function pushKey(secret: string): KeyObject {
  const seed = Buffer.from(hkdfSync("sha256", secret, "", `${registryName} ${keyName}`, 32));
  return createPrivateKey({ key: Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), seed]), format: "der", type: "pkcs8" });
}

/** What the registry knows a token for pushes by: public keys as a JWK set. */
export const pushKeys = (secret: string): string => JSON.stringify({ keys: [{ ...createPublicKey(pushKey(secret)).export({ format: "jwk" }), kid: keyName, alg: "EdDSA", use: "sig" }] });

/** The token that pushes to some repositories, and deletes there, with what the registry's token authentication asks for. It holds as long as the key does. */
export function pushToken(secret: string, repositories: string[]): string {
  const access = [...new Set(repositories)].sort().map((name) => ({ type: "repository", name, actions: ["pull", "push", "delete"] }));
  const claims = { iss: issuer, aud: registryName, sub: keyName, jti: keyName, iat: 0, nbf: 0, exp: Date.UTC(2100, 0) / 1000, access };
  const text = [{ alg: "EdDSA", typ: "JWT", kid: keyName }, claims].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
  return `${text}.${sign(null, Buffer.from(text), pushKey(secret)).toString("base64url")}`;
}

/** Configuration of a registry over the claim: one that only reads, one that takes tokens alone, or one open to whoever reaches it. */
export function storeConfig(port: number, access: "read" | "token" | "open"): string {
  const readOnly = access === "read";
  return stringify({
    version: 0.1,
    log: { level: "warn", accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: folder }, delete: { enabled: !readOnly }, maintenance: readOnly ? { readonly: { enabled: true }, uploadpurging: { enabled: false } } : { uploadpurging: { enabled: true, age: "24h", interval: "6h", dryrun: false } } },
    // What it answers holds behind a port-forward as well.
    http: { addr: `:${port}`, relativeurls: true },
    // Nobody hands out tokens: the place to ask for one is a name that never is one.
    ...(access === "token" && { auth: { token: { realm: `http://${registryName}.invalid/`, service: registryName, issuer, jwks: `${configFolder}/keys.json`, signingalgorithms: ["EdDSA"] } } }),
  });
}

/** Configuration of the registry on a node: one that keeps what it passes on for an hour, so that the layers of a pull that is tried again are there, and no longer: the container runtime has them then. */
export function nodeConfig(port: number, from: string): string {
  return stringify({
    version: 0.1,
    log: { level: "warn", accesslog: { disabled: true } },
    // Without leave to delete, what is past its time would stay; clients of a registry of this kind delete nothing all the same.
    storage: { filesystem: { rootdirectory: folder }, delete: { enabled: true } },
    // A helper for log-ins that is never asked, since nobody asks for one: without it the program ends where the other registry does not answer at its start.
    proxy: { remoteurl: `http://${from}`, ttl: "1h", exec: { command: "false" } },
    http: { addr: `127.0.0.1:${port}` },
  });
}

/** What a registry keeps of a size, in KiB: a tenth is for what comes meanwhile. */
export const keptKib = (size: string): bigint => (quantityMillis(size) * 9n) / 10_240_000n;

/**
 * Serves a registry that everybody may push to, and keeps it to nine tenths of its size, since many a volume does not: looked at every
 * minute, where that is passed the program ends for as long as it takes to remove manifests without tag, then a quarter of the tags, oldest first, and so on.
 * For any sh; the folder may be told to it as it may to the program.
 */
export const boundedServe = (config: string, size: string): string => `root=\${REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY:-${folder}}
over() { [ "$(du -sk "$root" | cut -f 1)" -gt ${keptKib(size)} ]; }
collect() { registry garbage-collect --quiet --delete-untagged ${config} || echo "nothing was removed"; }
trap 'kill "$served" && wait "$served"; exit 0' TERM
while :; do
  if over; then collect; fi
  while over && links=$(find "$root" -path '*/_manifests/tags/*/current/link' -exec ls -tr {} +) && [ -n "$links" ]; do
    echo "more than ${size}: the oldest tags go"
    echo "$links" | head -n $((($(echo "$links" | wc -l) + 3) / 4)) | while read -r link; do rm -rf "\${link%/current/link}"; done
    collect
  done
  registry serve ${config} &
  served=$!
  while
    sleep "\${INTERVAL:-60}" &
    wait $!
    kill -0 "$served" && ! over
  do :; done
  kill "$served" || exit 1
  wait "$served"
done`;

/** Everything that is wrong with the args, each with the field, what was found and what is expected. */
function imageRegistryProblems({ size, jobsSize, port, ...names }: ImageRegistryArgs): pulumi.InputPropertyErrorDetails[] {
  const sizes = Object.entries({ size, jobsSize }).flatMap(([propertyPath, text]) => (fits(sizePiece, text) ? [] : [{ propertyPath, reason: `"${text}" is not ${sizePiece.expected}` }]));
  const namespaces = (["namespace", "nodesNamespace", "buildsNamespace", "agentsNamespace"] as const).flatMap((propertyPath) => (fits(namePiece(""), names[propertyPath]) ? [] : [{ propertyPath, reason: `"${names[propertyPath]}" is not the name of a namespace` }]));
  return [...sizes, ...namespaces, ...(within(registryPort, port) ? [] : [{ propertyPath: "port", reason: `${port} is not a port from ${registryPort.least} to ${registryPort.most}` }])];
}

export type Container = k8s.types.input.core.v1.Container;

/** The program with one of the configurations of its ConfigMap, which it is given as a key's name. */
export function program(name: string, image: pulumi.Input<string>, key: string, port: number, host?: string): Container {
  const probe = { httpGet: { path: "/v2/", port, ...(host !== undefined && { host }) } };
  return {
    name,
    image,
    command: ["registry", "serve", `${configFolder}/${key}`],
    // The program would else send traces to a collector beside it.
    env: [{ name: "OTEL_TRACES_EXPORTER", value: "none" }],
    ports: [{ name, containerPort: port, ...(host !== undefined && { hostPort: port, hostIP: host }) }],
    readinessProbe: { ...probe, periodSeconds: 2 },
    livenessProbe: { ...probe, initialDelaySeconds: 10, periodSeconds: 20, timeoutSeconds: 5 },
    resources: { requests: { cpu: "10m", memory: "32Mi" }, limits: { memory: "512Mi" } },
    securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } },
    volumeMounts: [{ name: "config", mountPath: configFolder, readOnly: true }, { name: "images", mountPath: folder }],
  };
}

/** What the pods of all registries have: no right on node or API. */
const pod = {
  automountServiceAccountToken: false,
  // Its variables for a Service called registry are the program's configuration.
  enableServiceLinks: false,
  securityContext: { runAsNonRoot: true, runAsUser: user, runAsGroup: user, fsGroup: user, fsGroupChangePolicy: "OnRootMismatch", seccompProfile: { type: "RuntimeDefault" } },
};

/** Pods start anew with another configuration. */
export const configMark = (data: Record<string, pulumi.Input<string>>) => ({ "build-platform/config": pulumi.output(data).apply((texts) => createHash("sha256").update(JSON.stringify(texts)).digest("hex").slice(0, 12)) });

/** The claim of a registry's images. Without a fixed name: one of another size or class comes beside it, and is filled before it goes. */
export const imagesClaim = (name: string, { namespace, labels }: { namespace: pulumi.Output<string>; labels: Record<string, string> }, storageClassName: pulumi.Input<string>, size: string, parent: pulumi.CustomResourceOptions): k8s.core.v1.PersistentVolumeClaim =>
  new k8s.core.v1.PersistentVolumeClaim(
    `${name}-images`,
    { metadata: { namespace, labels }, spec: { accessModes: ["ReadWriteOnce"], storageClassName, resources: { requests: { storage: canonicalQuantity(size) } } } },
    { ...parent, replaceOnChanges: ["spec.resources", "spec.storageClassName"] },
  );

/** The one pod over such a claim: never two programs that write, and a rolling update waits for ever on a volume of one node. */
export const onePod = (labels: Record<string, string>, annotations: Record<string, pulumi.Input<string>>, spec: k8s.types.input.core.v1.PodSpec): k8s.types.input.apps.v1.DeploymentSpec => ({
  replicas: 1,
  strategy: { type: "Recreate" },
  selector: { matchLabels: labels },
  template: { metadata: { labels, annotations }, spec: { ...pod, ...spec } },
});

/**
 * The cluster's own image registry. Built images are pushed to it inside the cluster; nodes pull them as `localhost:PORT/...`,
 * which container runtimes speak plain HTTP to without being told, through a process of the DaemonSet on each node's loopback.
 *
 * Two processes serve the platform's images from one volume: one that only reads, for everybody in the cluster, and one that
 * writes, for who has the token, and by NetworkPolicy, where there are any, for pods of the builds' namespace alone. What jobs push lies in a registry
 * of its own, on a volume of its own.
 *
 * Names others may rely on: in `namespace` Deployments and Services `image-registry` and `jobs-registry`, and Secret
 * `image-registry-push`; in `nodesNamespace` DaemonSet `image-registry-node`.
 *
 * @throws InputPropertiesError listing every bad argument, before any resource is made
 */
export class ImageRegistry extends pulumi.ComponentResource {
  /** What tells the volume of the platform's images from any other: a new one is empty. */
  readonly volume: pulumi.Output<string>;

  constructor(name: string, args: ImageRegistryArgs, opts?: pulumi.ComponentResourceOptions) {
    super("build-platform:registry:ImageRegistry", name, {}, opts);
    const errors = imageRegistryProblems(args);
    if (errors.length > 0) throw new pulumi.InputPropertiesError({ message: `ImageRegistry "${name}" cannot be made`, errors });
    const from = (namespace: string) => [{ namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": namespace } } }];
    const tcp = (port: number) => [{ port, protocol: "TCP" }];

    const namespace = this.namespace(`${name}-namespace`, args.namespace, "restricted");
    const pulling = makePullSecret(`${name}-login`, { namespace, labels: { [component]: registryName, ...partOf } }, args.pulls, { parent: this });
    const secret = randomText(`${name}-push-key`, { parent: this });
    // The public half is none: with it the whole ConfigMap would be.
    const config = { "push.yml": storeConfig(pushPort, "token"), "pull.yml": storeConfig(pullPort, "read"), "keys.json": pulumi.unsecret(secret.apply(pushKeys)) };
    new k8s.core.v1.Secret(
      `${name}-push`,
      { metadata: { name: pushSecretName, namespace, labels: { [component]: registryName, ...partOf } }, data: { token: pulumi.secret(secret.apply((text) => base64(pushToken(text, args.repositories)))) } },
      { parent: this },
    );
    const [writer, reader] = [program("push", args.image, "push.yml", pushPort), program("pull", args.image, "pull.yml", pullPort)];
    const open = { tcpSocket: { port: pushPort } };
    const platform = this.store(`${name}-platform`, registryName, namespace, { ...args, pulling }, args.size, config, [
      // Whoever has no token is told so, which is no answer to a probe.
      { ...writer, readinessProbe: { ...open, periodSeconds: 2 }, livenessProbe: { ...open, initialDelaySeconds: 10, periodSeconds: 20, timeoutSeconds: 5 } },
      { ...reader, volumeMounts: [{ name: "config", mountPath: configFolder, readOnly: true }, { name: "images", mountPath: folder, readOnly: true }] },
    // Whoever pulls comes from a node's own network, whose addresses no policy can name on every network plugin.
    ], [{ ports: tcp(pullPort) }, { from: from(args.buildsNamespace), ports: tcp(pushPort) }]);
    const toJobs = program("push", args.image, "push.yml", pullPort);
    const bounded = { ...toJobs, command: ["sh", "-c", boundedServe(`${configFolder}/push.yml`, args.jobsSize)], livenessProbe: { ...toJobs.livenessProbe, failureThreshold: 30 } };
    const jobs = this.store(`${name}-jobs`, jobsRegistryName, namespace, { ...args, pulling }, args.jobsSize, { "push.yml": storeConfig(pullPort, "open") }, [bounded], [{ from: from(args.agentsNamespace), ports: tcp(pullPort) }]);
    this.nodes(`${name}-node`, args, [platform.deployment, jobs.deployment]);

    this.volume = platform.claim.metadata.uid;
    this.registerOutputs({ volume: this.volume });
  }

  private namespace(name: string, namespace: string, level: "restricted" | "privileged"): pulumi.Output<string> {
    return new k8s.core.v1.Namespace(name, { metadata: { name: namespace, labels: { ...partOf, ...ownLabels(), "pod-security.kubernetes.io/enforce": level } } }, { parent: this }).metadata.name;
  }

  /** A registry on a claim of its own: one pod, so that what is unused is removed at its start, when nothing can be uploaded. */
  private store(name: string, called: string, namespace: pulumi.Output<string>, args: ImageRegistryArgs & { pulling: ReturnType<typeof makePullSecret> }, size: string, config: Record<string, pulumi.Input<string>>, containers: Container[], ingress: k8s.types.input.networking.v1.NetworkPolicyIngressRule[]) {
    const parent = { parent: this };
    const labels = { [component]: called, ...partOf };
    const metadata = { name: called, namespace, labels };
    const claim = imagesClaim(name, { namespace, labels }, args.storageClassName, size, parent);
    const configMap = new k8s.core.v1.ConfigMap(`${name}-config`, { metadata, data: config }, parent);
    const [first] = containers;
    const collect: Container = {
      name: "remove-unused",
      image: args.image,
      // A fault of it is no reason to serve nothing; an empty volume is one to it.
      command: ["sh", "-c", `registry garbage-collect --quiet ${configFolder}/push.yml || echo "nothing was removed"`],
      ...Object.fromEntries((["env", "resources", "securityContext", "volumeMounts"] as const).map((key) => [key, first[key]])),
    };
    const deployment = new k8s.apps.v1.Deployment(...transformed<k8s.apps.v1.DeploymentArgs>(
      args.transform?.deployment,
      `${name}-deployment`,
      {
        metadata,
        spec: onePod(labels, configMark(config), { ...args.pulling, initContainers: [collect], containers, volumes: [{ name: "config", configMap: { name: configMap.metadata.name } }, { name: "images", persistentVolumeClaim: { claimName: claim.metadata.name } }] }),
      },
      parent,
    ));
    new k8s.core.v1.Service(`${name}-service`, { metadata, spec: { selector: labels, ports: containers.map(({ name: port, ports }) => ({ name: port, port: (ports as { containerPort: number }[])[0].containerPort, targetPort: port })) } }, parent);
    // Nothing it does needs a connection of its own.
    if (args.networkPolicies ?? true) new k8s.networking.v1.NetworkPolicy(`${name}-policy`, { metadata, spec: { podSelector: { matchLabels: labels }, policyTypes: ["Ingress", "Egress"], ingress } }, parent);
    return { claim, deployment };
  }

  /** The process on each node's loopback. Whoever is on that network may connect to it, and can only read. */
  private nodes(name: string, args: ImageRegistryArgs, dependsOn: pulumi.Resource[]): void {
    const parent = { parent: this };
    const namespace = this.namespace(`${name}s-namespace`, args.nodesNamespace, "privileged");
    const labels = { [component]: registryNodeName, ...partOf };
    const metadata = { name: registryNodeName, namespace, labels };
    const pulling = makePullSecret(`${name}s-login`, { namespace, labels }, args.pulls, parent);
    const config = { "node.yml": nodeConfig(args.port, registryAddress(registryName, args.namespace, pullPort)) };
    const configMap = new k8s.core.v1.ConfigMap(`${name}-config`, { metadata, data: config }, parent);
    new k8s.apps.v1.DaemonSet(...transformed<k8s.apps.v1.DaemonSetArgs>(
      args.transform?.daemonSet,
      `${name}-daemon-set`,
      {
        metadata: { ...metadata, labels: { ...labels, ...ownLabels() } },
        spec: {
          selector: { matchLabels: labels },
          updateStrategy: { type: "RollingUpdate", rollingUpdate: { maxUnavailable: "25%" } },
          template: {
            metadata: { labels, annotations: configMark(config) },
            spec: {
              ...pod,
              ...pulling,
              // A process of the node's network, as every kind of kube-proxy and what stands in its place lets it through.
              hostNetwork: true,
              dnsPolicy: "ClusterFirstWithHostNet",
              // Without it the node pulls none of the platform's images.
              priorityClassName: "system-node-critical",
              tolerations: [{ operator: "Exists" }],
              containers: [program("node", args.image, "node.yml", args.port, "127.0.0.1")],
              volumes: [{ name: "config", configMap: { name: configMap.metadata.name } }, { name: "images", emptyDir: {} }],
            },
          },
        },
      },
      { ...parent, dependsOn },
    ));
  }
}
