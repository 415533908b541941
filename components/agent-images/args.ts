import type * as kubernetes from "@pulumi/kubernetes";
import type * as pulumi from "@pulumi/pulumi";
import type { Mirrors } from "../mirrors";
import type { ImagePulls, RegistryLogin } from "../pull-secrets";
import type { Surroundings } from "../surroundings";
import type { Transform } from "../transform";

/** What builds the images: a local buildah, a local `docker buildx`, or a BuildKit pod in the cluster (needs kubectl only). */
export type Builder = "buildah" | "buildx" | "in-cluster";

export const builders: readonly Builder[] = ["buildah", "buildx", "in-cluster"];

/** Where the images are pushed, and what may be needed for that. */
export interface RegistryArgs {
  /** Host with optional port and no scheme: `registry.example.org`, `10.0.0.5:5000`. */
  host: string;
  /** Path between host and image name, e.g. `build-platform`; "" for none. */
  prefix: string;
  /** True: this one host is spoken to over plain HTTP or with an unverified certificate. Every other host stays verified. */
  insecure: boolean;
  /** User to push with. Without it the builder's own log-ins (`docker login`, `buildah login`) are used. */
  username?: pulumi.Input<string>;
  /** Where nodes pull from, as host or host:port, if `host` is a Service of the cluster as `<service>.<namespace>.svc:<port>`: this machine then reaches it through the API server of `cluster`, with kubectl's port-forward, and pushes so what a local builder makes. Default: `host`. */
  pulledFrom?: string;
  /** What changes when the registry's volume is another one, into which every image is built again. */
  volume?: pulumi.Input<string>;
  /** Password or token of `username`. Reaches the builder in a credentials file of mode 600, never a command line. */
  password?: pulumi.Input<string>;
  /** Log-ins for other registries, for base images; they reach the builder in the same file. Default none. */
  others?: RegistryLogin[];
}

/** One image to build. */
export interface ImageSpec {
  /** Folder that is sent to the builder, relative to the project. */
  context: string;
  /** Dockerfile inside the context. Default `Dockerfile`. */
  dockerfile?: string;
  /** Build arguments. Each must be declared by an `ARG` of the Dockerfile. Plain values: never put a secret here, it would end in the image's history. */
  args?: Record<string, string>;
}

/** What a registry said of one image: there, not there, or not to be found out (unreachable, refused). */
export type ImageState = "present" | "missing" | "unknown";

/** How BuildKit runs in the cluster. */
export interface InClusterArgs {
  /** BuildKit's image. A tag that ends in `-rootless` runs as user 1000, any other as a privileged container. */
  image: string;
  /** Namespace of the build jobs; AgentImages makes it. It admits what BuildKit needs, so nothing else should run there. Default `image-builds`. */
  namespace?: string;
}

/** How kubectl finds the cluster. */
export interface ClusterArgs {
  /** Context of the kubeconfig. Default: its current one. */
  context?: string;
  /** The kubeconfig's file, with ~ for whoever runs the build. Default: as kubectl finds it. */
  kubeconfig?: string;
}

/** Arguments of AgentImages. */
export interface AgentImagesArgs {
  registry: RegistryArgs;
  builder: Builder;
  /** The images by name; the name is the last part of the repository. */
  images: Record<string, ImageSpec>;
  /** Platforms such as `linux/amd64`. Default: the builder's own. */
  platforms?: string[];
  /** Build cache: a folder of the machine that builds, or `registry` (beside the image, as `<name>-cache`). Default: the builder's own layer cache only. */
  cache?: string;
  /** Folder for a bill of materials (SPDX JSON) of each image, which is also stored beside the image in the registry. Needs syft on PATH. Default: none is made. */
  sbom?: string;
  /** Where base images and what builds download come from instead, see components/mirrors.ts. Default: from where they are. */
  mirrors?: Mirrors;
  /** What the builder `in-cluster` is pulled with. Default nothing. */
  pulls?: ImagePulls;
  /** What the builder `in-cluster` needs; of no use to the others. */
  inCluster?: InClusterArgs;
  /** The cluster of the builder `in-cluster`, and of a registry with `pulledFrom`. */
  cluster?: ClusterArgs;
  /** True: `pulumi destroy` deletes the images of this stack's last build from the registry. Default false. */
  deleteOnDestroy?: boolean;
  /** What the registry said just now, by image name, see `prepareImages`. An image that is missing is built again though its content is unchanged. Default: nothing is known. */
  found?: Record<string, ImageState>;
  /** The network around: its proxy, and whose certificates are trusted beside this machine's own. Default none. */
  surroundings?: Surroundings;
  /** Last changes to the namespace of builder `in-cluster`, see components/transform.ts. */
  transform?: {
    namespace?: Transform<kubernetes.core.v1.NamespaceArgs>;
  };
}
