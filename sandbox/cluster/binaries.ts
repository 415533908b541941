import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { newestMinor, type SupportedMinor } from "../../checks/kubernetes";
import { CACHE, REPO } from "../paths";
import { action, run } from "../shell";
import { installPackages } from "./packages";

const GO = path.join(REPO, "sandbox", "go");

/** A folder of sandbox/go: pinned by its go.mod and go.sum, it builds `packages` into one cache entry. */
interface Tool {
  name: string;
  /** Binary name -> Go package. */
  packages: Record<string, string>;
  /** The file of pins where the folder holds several releases; its sums lie beside it. */
  modfile?: string;
  ldflags?: (version: (module: string) => string) => string[];
  /** Modules that cannot be built as they are: the folder of the tool's own whose files are laid over each. */
  mended?: Record<string, string>;
  /** For a program that is partly C: build tags, and the Debian packages that compiling it takes. */
  cgo?: { tags: string; packages: string[] };
}

const KUBE_PROGRAMS = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl", "kubeadm"];

const restic: Tool = { name: "restic", packages: { restic: "github.com/restic/restic/cmd/restic" } };
const registry: Tool = { name: "registry", packages: { registry: "github.com/distribution/distribution/v3/cmd/registry" } };

/** Pins of a release of Kubernetes; the newest one's are go.mod. */
const kubernetesPins = (minor: SupportedMinor): string => (minor === newestMinor ? "go.mod" : `${minor}.mod`);

/** The exact version of Kubernetes that the sandbox has of a minor, "v1.37.2". */
export const kubernetesVersion = (minor: SupportedMinor): string => pinnedVersion("kubernetes", "k8s.io/kubernetes", kubernetesPins(minor));

/** What a sandbox is made of. */
const toolsOf = (minor: SupportedMinor): Tool[] => [
  { name: "pause", packages: { pause: "." } },
  {
    name: "pulumi",
    packages: { pulumi: "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi" },
    ldflags: (version) => [`-X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=${version("github.com/pulumi/pulumi/pkg/v3")}`],
  },
  {
    name: "kubernetes",
    modfile: kubernetesPins(minor),
    packages: Object.fromEntries(KUBE_PROGRAMS.map((program) => [program, `k8s.io/kubernetes/cmd/${program}`])),
    ldflags: (version) => {
      const gitVersion = version("k8s.io/kubernetes");
      const [major, minor] = gitVersion.slice(1).split(".");
      const values = { gitVersion, gitMajor: major, gitMinor: minor, gitTreeState: "clean" };
      return Object.entries(values).map(([key, value]) => `-X k8s.io/component-base/version.${key}=${value}`);
    },
  },
  // kubeadm took etcd 3.6 up to Kubernetes 1.36 (cmd/kubeadm/app/constants of each).
  { name: "etcd", modfile: minor === newestMinor ? "go.mod" : "3.6.mod", packages: { etcd: "go.etcd.io/etcd/server/v3", etcdctl: "go.etcd.io/etcd/etcdctl/v3" } },
  { name: "coredns", packages: { coredns: "." } },
  {
    name: "containerd",
    packages: Object.fromEntries(["containerd", "containerd-shim-runc-v2", "ctr"].map((program) => [program, `github.com/containerd/containerd/v2/cmd/${program}`])),
    ldflags: (version) => [`-X github.com/containerd/containerd/v2/version.Version=${version("github.com/containerd/containerd/v2")}`],
  },
  // Without libseccomp it refuses each pod whose profile is RuntimeDefault.
  { name: "runc", packages: { runc: "github.com/opencontainers/runc" }, cgo: { tags: "seccomp", packages: ["gcc", "libc6-dev", "libseccomp-dev", "pkg-config"] } },
  registry,
  { name: "ingress-nginx", packages: { "nginx-ingress-controller": "k8s.io/ingress-nginx/cmd/nginx" } },
  restic,
];

/** Tools that `up` does not build by itself: they are for tests, or for an image that stands in for one that cannot be had. */
const TEST_TOOLS = {
  registry,
  restic,
  buildkit: {
    name: "buildkit",
    packages: {
      buildkitd: "github.com/moby/buildkit/cmd/buildkitd",
      buildctl: "github.com/moby/buildkit/cmd/buildctl",
      buildx: "github.com/docker/buildx/cmd/buildx",
    },
    ldflags: (version) => [`-X github.com/moby/buildkit/version.Version=${version("github.com/moby/buildkit")}`, `-X github.com/docker/buildx/version.Version=${version("github.com/docker/buildx")}`],
  },
  kwok: { name: "kwok", packages: { kwok: "sigs.k8s.io/kwok/cmd/kwok" } },
  "cert-manager": {
    name: "cert-manager",
    packages: { controller: "./controller", acmesolver: "./acmesolver" },
    ldflags: (version) => [`-X github.com/cert-manager/cert-manager/pkg/util.AppVersion=${version("github.com/cert-manager/cert-manager")}`],
  },
  pebble: { name: "pebble", packages: Object.fromEntries(["pebble", "pebble-challtestsrv"].map((program) => [program, `github.com/letsencrypt/pebble/v2/cmd/${program}`])) },
  "network-policies": { name: "network-policies", packages: { "kube-network-policies": "sigs.k8s.io/kube-network-policies/cmd" } },
  traefik: {
    name: "traefik",
    packages: { traefik: "github.com/traefik/traefik/v3/cmd/traefik" },
    ldflags: (version) => [`-X github.com/traefik/traefik/v3/pkg/version.Version=${version("github.com/traefik/traefik/v3").slice(1)}`],
    // Its SDKs of DNS providers and its fork of go-http-auth are not to be had as Go modules.
    mended: { "github.com/go-acme/lego/v5": "lego", "github.com/abbot/go-http-auth": "go-http-auth" },
  },
  syft: {
    name: "syft",
    packages: { syft: "github.com/anchore/syft/cmd/syft" },
    ldflags: (version) => [`-X main.version=${version("github.com/anchore/syft").slice(1)}`],
  },
} satisfies Record<string, Tool>;

/** The version of `module` that sandbox/go/TOOL/go.mod, or another file of pins there, requires. */
export function pinnedVersion(tool: string, module: string, modfile = "go.mod"): string {
  const text = fs.readFileSync(path.join(GO, tool, modfile), "utf8");
  const match = text.match(new RegExp(`^(?:require)?\\s*${module.replace(/[.]/g, "\\.")} (v\\S+)`, "m"));
  if (!match) throw new Error(`sandbox/go/${tool}/${modfile} does not require ${module}`);
  return match[1];
}

/** Hash of everything that decides what a folder of sandbox/go builds. */
function pinsOf({ name, packages, modfile = "go.mod", cgo }: Tool): string {
  const hash = createHash("sha256").update(JSON.stringify(packages)).update(JSON.stringify(cgo) ?? "");
  const pins = [modfile, modfile.replace(/mod$/, "sum")];
  const files = fs.readdirSync(path.join(GO, name), { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile()).map(({ parentPath, name: file }) => path.relative(path.join(GO, name), path.join(parentPath, file)));
  for (const file of files.sort().filter((each) => !/^[^/]*\.(mod|sum)$/.test(each) || pins.includes(each))) {
    hash.update(file).update(fs.readFileSync(path.join(GO, name, file)));
  }
  return hash.digest("hex").slice(0, 16);
}

/** Builds what the cache lacks for a release of Kubernetes and returns the folder of each tool's binaries by the tool's name. */
export async function buildBinaries(minor: SupportedMinor): Promise<Record<string, string>> {
  const folders: Record<string, string> = {};
  for (const tool of toolsOf(minor)) folders[tool.name] = await buildTool(tool);
  return folders;
}

export type TestTool = keyof typeof TEST_TOOLS;

/** Builds one of those that `up` does not wait for, unless the cache has it, and returns the folder of its binaries. */
export const buildTestTool = (name: TestTool): Promise<string> => buildTool(TEST_TOOLS[name]);

/** What decides its binaries, without building them. */
export const testToolPins = (name: TestTool): string => pinsOf(TEST_TOOLS[name]);

/** Folder of a module's files, as a tool of sandbox/go requires it: what it has beside programs, such as definitions of objects. */
export async function moduleFolder(tool: string, module: string): Promise<string> {
  const { stdout } = await run("go", ["mod", "download", "-json", `${module}@${pinnedVersion(tool, module)}`], { cwd: path.join(GO, tool) });
  return (JSON.parse(stdout) as { Dir: string }).Dir;
}

/** Copies the modules that have to be mended into a folder, with the tool's own files over them, and writes pins there that lead to the copies. */
async function mend({ name, mended = {} }: Tool, folder: string): Promise<string> {
  const own = path.join(GO, name);
  fs.rmSync(folder, { recursive: true, force: true });
  fs.mkdirSync(folder, { recursive: true });
  const replaced: string[] = [];
  for (const [module, files] of Object.entries(mended)) {
    const copy = path.join(folder, files);
    await run("cp", ["-r", "--no-preserve=mode", await moduleFolder(name, module), copy]);
    await run("cp", ["-r", `${path.join(own, files)}/.`, copy]);
    replaced.push(`replace ${module} => ${copy}\n`);
  }
  fs.writeFileSync(path.join(folder, "go.mod"), [fs.readFileSync(path.join(own, "go.mod"), "utf8"), ...replaced].join("\n"));
  fs.copyFileSync(path.join(own, "go.sum"), path.join(folder, "go.sum"));
  return path.join(folder, "go.mod");
}

async function buildTool(tool: Tool): Promise<string> {
  const folder = path.join(CACHE, "bin", `${tool.name}-${pinsOf(tool)}`);
  if (fs.existsSync(folder)) return folder;
  await action(`build ${tool.name} from its pinned Go module (first start only)`, async () => {
    const partial = `${folder}.part`;
    fs.rmSync(partial, { recursive: true, force: true });
    fs.mkdirSync(partial, { recursive: true });
    const ldflags = ["-s", "-w", ...(tool.ldflags?.((module) => pinnedVersion(tool.name, module, tool.modfile)) ?? [])].join(" ");
    if (tool.cgo) await installPackages(tool.cgo.packages);
    const modfile = tool.mended ? await mend(tool, `${folder}.mended`) : (tool.modfile ?? "go.mod");
    const flags = ["build", `-modfile=${modfile}`, "-tags", tool.cgo?.tags ?? "", "-ldflags", ldflags];
    const env = { ...process.env, CGO_ENABLED: tool.cgo ? "1" : "0", GOFLAGS: "-mod=readonly -trimpath -buildvcs=false", GOTOOLCHAIN: "local" };
    const cwd = path.join(GO, tool.name);
    const named = Object.entries(tool.packages);
    if (named.length > 2) {
      // One invocation shares the compile of common packages; Go names each binary after its package.
      await run("go", [...flags, "-o", `${partial}/`, ...named.map(([, pkg]) => pkg)], { cwd, env });
    } else {
      for (const [binary, pkg] of named) await run("go", [...flags, "-o", path.join(partial, binary), pkg], { cwd, env });
    }
    fs.renameSync(partial, folder);
    fs.rmSync(`${folder}.mended`, { recursive: true, force: true });
  });
  return folder;
}
