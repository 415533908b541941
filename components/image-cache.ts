import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { stringify } from "yaml";
import { fits, name as namePiece, size as sizePiece } from "../config/pieces";
import { secretData } from "./encoding";
import { configMark, type Container, folder, imagesClaim, keptKib, onePod, program, registryAddress } from "./image-registry";
import { ownLabels, partOf } from "./ownership";
import { makePullSecret, type ImagePulls } from "./pull-secrets";
import { caAnnotation, caContent, caName, goEnvironment, goMounts, networkVolumes, proxyName, proxySecret, type Surroundings, withoutNodes } from "./surroundings";
import { type Transform, transformed } from "./transform";

/** A registry whose images are kept in the cluster. */
export interface CachedRegistry {
  /** Its name in references of images, such as docker.io. */
  registry: string;
  /** Root address that the images come from: its own, or that of a mirror. */
  upstream: string;
  /** What it is asked with: whoever reaches the cache can pull what this login can. Default nobody's. */
  login?: pulumi.Input<{ username: string; password: string }>;
}

export interface ImageCacheArgs {
  /** Image of the distribution registry. */
  image: pulumi.Input<string>;
  /** The registries; the position of each decides its port. */
  registries: CachedRegistry[];
  /** StorageClass of the claim. */
  storageClassName: pulumi.Input<string>;
  /** Room for what is kept, with its unit: what was not pulled for longest goes when it is used up. */
  size: string;
  /** Days after which an image is fetched anew. */
  keepDays: number;
  /** Whether others than agents reach it, such as the container runtimes of nodes. */
  open: boolean;
  /** Namespace of the cache; the component makes it. */
  namespace: string;
  /** The namespace whose pods reach it. */
  agentsNamespace: string;
  /** Whether a NetworkPolicy keeps others out where it is not open. Default true. */
  networkPolicies?: boolean;
  /** What the program's own image is pulled with. Default nothing. */
  pulls?: ImagePulls;
  /** The network around. Default none. */
  surroundings?: Surroundings;
  /** Last changes to the main object, see components/transform.ts. */
  transform?: { deployment?: Transform<k8s.apps.v1.DeploymentArgs> };
}

/** Name of the Deployment, its Service and its policy. */
export const imageCacheName = "image-cache";
const firstPort = 5000;
const loginFolder = "/etc/image-cache";
const component = "app.kubernetes.io/name";

/** A hyphen of its own is doubled, so that no two registries get the same one. */
const partName = (registry: string): string => registry.toLowerCase().replace(/[^a-z0-9]/g, (each) => (each === "-" ? "--" : "-"));

/** Addresses of the caches inside the cluster, by registry. */
export const imageCacheAddresses = (registries: string[], namespace: string): Record<string, string> => Object.fromEntries(registries.map((registry, i) => [registry, registryAddress(imageCacheName, namespace, firstPort + i)]));

/** Configuration of the cache of one registry. */
export function cacheConfig({ registry, upstream, login }: CachedRegistry, port: number, keepDays: number): string {
  return stringify({
    version: 0.1,
    log: { level: "warn", accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: `${folder}/${partName(registry)}` }, delete: { enabled: true } },
    // A helper for log-ins, asked anew so that a changed one is noticed, or one that knows none: with neither the program ends where the registry does not answer at its start.
    proxy: { remoteurl: upstream, ttl: `${keepDays * 24}h`, exec: login === undefined ? { command: "false" } : { command: `${loginFolder}/${partName(registry)}`, lifetime: "5m" } },
    http: { addr: `:${port}`, relativeurls: true },
  });
}

/** A program that tells a login as Docker's credential helpers do. */
export const loginHelper = ({ username, password }: { username: string; password: string }): string => `#!/bin/sh\ncat <<'END-OF-LOGIN'\n${JSON.stringify({ Username: username, Secret: password })}\nEND-OF-LOGIN\n`;

/**
 * Keeps a volume below MAX_KIB: what was read longest ago goes first, and is fetched or made anew where somebody asks for it after all.
 * POSIX shell as in BusyBox; environment FOLDER, MAX_KIB, INTERVAL (seconds).
 * @param files what may go, as find is told
 * @param before a command that each round begins with
 */
export const keeperScript = (files: string, before?: string): string => `set -u
trap 'exit 0' TERM INT
while :; do
${before === undefined ? "" : `  ${before}\n`}  used=$(du -sk "$FOLDER" | cut -f1)
  if [ "$used" -gt "$MAX_KIB" ]; then
    echo "$used KiB of $MAX_KIB: deleting what was not read for longest"
    find ${files} -exec stat -c '%X %b %n' {} + | sort -n | while read -r _ blocks file && [ "$used" -gt "$MAX_KIB" ]; do
      rm -f "$file"
      used=$((used - blocks / 2))
    done
  fi
  sleep "$INTERVAL" & wait $!
done
`;

/** The keeper of images. */
export const cacheKeeperScript = keeperScript('"$FOLDER"/*/docker/registry/v2/blobs -type f -name data');

/** Everything that is wrong with the args, each with the field, what was found and what is expected. */
function imageCacheProblems({ size, namespace, agentsNamespace, registries, keepDays }: ImageCacheArgs): pulumi.InputPropertyErrorDetails[] {
  const names = Object.entries({ namespace, agentsNamespace }).flatMap(([propertyPath, text]) => (fits(namePiece(""), text) ? [] : [{ propertyPath, reason: `"${text}" is not the name of a namespace` }]));
  return [
    ...(fits(sizePiece, size) ? [] : [{ propertyPath: "size", reason: `"${size}" is not ${sizePiece.expected}` }]),
    ...names,
    ...(registries.length > 0 ? [] : [{ propertyPath: "registries", reason: "is empty: without one there is nothing to keep" }]),
    ...(keepDays >= 1 ? [] : [{ propertyPath: "keepDays", reason: `${keepDays} is not at least 1` }]),
  ];
}

/**
 * Keeps images of public registries in the cluster: one pod with a pull-through registry for each, on one volume. What it has it
 * serves also while the registry itself refuses or does not answer; what a tag is it asks anew whenever it can.
 *
 * Names others may rely on: in `namespace` Deployment and Service `image-cache`, one port for each registry.
 *
 * @throws InputPropertiesError listing every bad argument, before any resource is made
 */
export class ImageCache extends pulumi.ComponentResource {
  constructor(name: string, args: ImageCacheArgs, opts?: pulumi.ComponentResourceOptions) {
    super("build-platform:registry:ImageCache", name, {}, opts);
    const errors = imageCacheProblems(args);
    if (errors.length > 0) throw new pulumi.InputPropertiesError({ message: `ImageCache "${name}" cannot be made`, errors });
    const parent = { parent: this };
    const labels = { [component]: imageCacheName, ...partOf };
    const { metadata: { name: namespace } } = new k8s.core.v1.Namespace(`${name}-namespace`, { metadata: { name: args.namespace, labels: { ...partOf, ...ownLabels(), "pod-security.kubernetes.io/enforce": "restricted" } } }, parent);
    const metadata = { name: imageCacheName, namespace, labels };
    const pulling = makePullSecret(`${name}-login`, { namespace, labels }, args.pulls, parent);
    const config = Object.fromEntries(args.registries.map((each, i) => [`${partName(each.registry)}.yml`, cacheConfig(each, firstPort + i, args.keepDays)]));
    new k8s.core.v1.ConfigMap(`${name}-config`, { metadata, data: config }, parent);
    const logins = args.registries.flatMap(({ registry, login }) => (login === undefined ? [] : [[partName(registry), pulumi.secret(pulumi.output(login).apply(loginHelper))] as const]));
    if (logins.length > 0) new k8s.core.v1.Secret(`${name}-upstream-logins`, { metadata: { ...metadata, name: `${imageCacheName}-logins` }, data: pulumi.secret(pulumi.all(Object.fromEntries(logins)).apply(secretData)) }, parent);
    const network = this.network(name, namespace, labels, args.surroundings);
    const claim = imagesClaim(name, { namespace, labels }, args.storageClassName, args.size, parent);
    const caches = args.registries.map(({ registry }, i) => this.cache(partName(registry), firstPort + i, args, logins.length > 0));
    const deployment: k8s.apps.v1.DeploymentArgs = {
      metadata,
      spec: onePod(labels, { ...configMark(config), ...network }, {
        ...pulling,
        containers: [...caches, this.keeper(args)],
        volumes: [
          { name: "config", configMap: { name: imageCacheName } },
          { name: "images", persistentVolumeClaim: { claimName: claim.metadata.name } },
          ...(logins.length > 0 ? [{ name: "logins", secret: { secretName: `${imageCacheName}-logins`, defaultMode: 0o550 } }] : []),
          ...networkVolumes(args.surroundings, false),
        ],
      }),
    };
    new k8s.apps.v1.Deployment(...transformed<k8s.apps.v1.DeploymentArgs>(args.transform?.deployment, `${name}-deployment`, deployment, parent));
    const ports = args.registries.map((_, i) => firstPort + i);
    new k8s.core.v1.Service(`${name}-service`, { metadata, spec: { selector: labels, ports: ports.map((port) => ({ name: `p${port}`, port, targetPort: `p${port}` })) } }, parent);
    const from = args.open ? {} : { from: [{ namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": args.agentsNamespace } } }] };
    if (args.networkPolicies ?? true) new k8s.networking.v1.NetworkPolicy(`${name}-policy`, { metadata, spec: { podSelector: { matchLabels: labels }, policyTypes: ["Ingress"], ingress: [{ ...from, ports: ports.map((port) => ({ port, protocol: "TCP" })) }] } }, parent);
    this.registerOutputs({});
  }

  /** What its pod reads of the network around, and the annotations by which a change of it starts the pod anew. */
  private network(name: string, namespace: pulumi.Output<string>, labels: Record<string, string>, surroundings: Surroundings = {}): Record<string, pulumi.Input<string>> {
    const login = proxySecret(surroundings);
    if (surroundings.caBundle !== undefined) new k8s.core.v1.ConfigMap(`${name}-company-ca`, { metadata: { name: caName, namespace, labels }, data: caContent(surroundings.caBundle) }, { parent: this });
    const secret = login && new k8s.core.v1.Secret(`${name}-company-proxy`, { metadata: { name: proxyName, namespace, labels }, data: pulumi.secret(secretData(login)) }, { parent: this });
    // The object's version, since even a digest of a login would say something of it.
    return { ...caAnnotation(surroundings), ...(secret && { "build-platform/company-proxy": secret.metadata.resourceVersion }) };
  }

  /** The program for one registry. */
  private cache(part: string, port: number, { image, surroundings }: ImageCacheArgs, logins: boolean): Container {
    const container = program(part, image, `${part}.yml`, port);
    return {
      ...container,
      ports: [{ name: `p${port}`, containerPort: port }],
      env: [...(container.env as object[]), ...goEnvironment(withoutNodes(surroundings))] as Container["env"],
      volumeMounts: [...(container.volumeMounts as object[]), ...(logins ? [{ name: "logins", mountPath: loginFolder, readOnly: true }] : []), ...goMounts(surroundings)] as Container["volumeMounts"],
    };
  }

  private keeper({ image, size }: ImageCacheArgs): Container {
    return {
      name: "keeper",
      image,
      command: ["/bin/sh", "-c", cacheKeeperScript],
      env: [{ name: "FOLDER", value: folder }, { name: "MAX_KIB", value: String(keptKib(size)) }, { name: "INTERVAL", value: "60" }],
      resources: { requests: { cpu: "5m", memory: "16Mi" }, limits: { memory: "128Mi" } },
      securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } },
      volumeMounts: [{ name: "images", mountPath: folder }],
    };
  }
}
