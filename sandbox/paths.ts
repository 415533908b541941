import * as os from "node:os";
import * as path from "node:path";

/** Everything a running sandbox keeps; `down` removes it whole. One sandbox per machine. */
export const STATE = "/var/lib/build-platform-sandbox";

/** What is slow to make and worth keeping after `down`; entries are keyed by a hash of their pins. */
export const CACHE = process.env.BUILD_PLATFORM_CACHE ?? path.join(os.homedir(), ".cache", "build-platform");

export const REPO = path.resolve(__dirname, "..");
export const KUBECONFIG = path.join(STATE, "kubeconfig");
export const PLUGINS = path.join(STATE, "plugins");
/** Names the minor version of Kubernetes that runs. */
export const RELEASE = path.join(STATE, "kubernetes");
/** There where the sandbox has IPv6 beside IPv4. */
export const DUAL_STACK = path.join(STATE, "dual-stack");
/** Says of each image and plugin whether it is real. */
export const ORIGINS = path.join(STATE, "origins.json");
/** What a stack's config says of the images that are stand-ins. */
export const STAND_INS = path.join(STATE, "stand-ins");
/** BuildKit's configuration of the sandbox's registry, for builds in the cluster. */
export const BUILDKITD_CONFIG = path.join(STATE, "buildkitd.toml");
/** Laid over /usr of every node; its bin/ also holds the operator's pulumi and kubectl. */
export const TOOLS = path.join(STATE, "tools");
export const SSH_KEY = path.join(STATE, "ssh", "id_ed25519");

/** Addresses of the sandbox's own network; nothing outside the machine ever sees them. */
export const NETWORK = {
  bridge: "bp0",
  gateway: "10.88.0.1",
  subnet: "10.88.0.0/24",
  pods: "10.244.0.0/16",
  services: "10.96.0.0/12",
  /** What a sandbox of both address families has besides: nodes, pods of a node N in fd00:244:N::/64, Services. */
  v6: { prefix: "fd00:88::", pods: "fd00:244::/32", services: "fd00:96::/112" },
  /** Less than Ethernet's 1500, as on every network that wraps packets (Flannel's and Calico's VXLAN have 1450). */
  podMtu: 1400,
} as const;

/** `host:port` of the local image registry as nodes, pods and the operator's machine reach it. */
export const REGISTRY = `${NETWORK.gateway}:5000`;

/** Registries of upstream images of which the sandbox's registry has copies. */
export const MIRRORED = ["docker.io", "registry.k8s.io"];

/** Every network namespace, link and iptables comment of the sandbox starts so, and only those are ever removed. */
export const PREFIX = "bp-";
