// Stand-in for the registry.k8s.io images that kubeadm needs: the same programs under the same names, one layer each.
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { CACHE } from "../paths";
import { run } from "../shell";

interface SystemImage {
  /** Binary that becomes /NAME in the image, from the folder of a tool of sandbox/go. */
  binary: string;
  tool: string;
  reference: string;
  /** kubeadm's manifests give the command of most; these two are started by their entrypoint. */
  entrypoint?: string[];
  /** Host programs that the binary calls, copied with their libraries. */
  programs?: string[];
  everyNode: boolean;
}

/** The images of `kubeadm config images list`, from the binaries' pinned versions. */
export function systemImages(kubeadmList: string[]): SystemImage[] {
  const named = (name: string) => {
    const reference = kubeadmList.find((line) => line.includes(`/${name}:`));
    if (!reference) throw new Error(`kubeadm config images list names no ${name}: ${kubeadmList.join(", ")}`);
    return reference;
  };
  const kube = (binary: string): SystemImage => ({ binary, tool: "kubernetes", reference: named(binary), everyNode: false });
  return [
    kube("kube-apiserver"),
    kube("kube-controller-manager"),
    kube("kube-scheduler"),
    { ...kube("kube-proxy"), binary: "kube-proxy", everyNode: true, programs: ["iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore", "conntrack", "ipset", "nft"] },
    { binary: "etcd", tool: "etcd", reference: named("etcd"), everyNode: false },
    { binary: "coredns", tool: "coredns", reference: named("coredns"), entrypoint: ["/coredns"], everyNode: true },
    { binary: "pause", tool: "pause", reference: named("pause"), entrypoint: ["/pause"], everyNode: true },
  ];
}

/** Shared libraries of host programs, by asking the loader. */
async function librariesOf(files: string[]): Promise<string[]> {
  const listed = await run("ldd", files, { allowFailure: true });
  return [...new Set([...listed.stdout.matchAll(/(\/[^\s:]+\.so[^\s:]*) \(0x/g)].map((match) => match[1]))];
}

/** Lays out the root file system of one image in `root`. */
async function layOut(image: SystemImage, binaries: string, root: string): Promise<void> {
  fs.mkdirSync(path.join(root, "usr/local/bin"), { recursive: true });
  // The file servers of etcd and the apiserver look their program up in PATH; upstream has it in /usr/local/bin too.
  const target = image.entrypoint ? path.join(root, image.binary) : path.join(root, "usr/local/bin", image.binary);
  fs.copyFileSync(path.join(binaries, image.binary), target);
  fs.chmodSync(target, 0o755);
  if (!image.programs) return;
  for (const folder of ["bin", "sbin", "lib", "lib64"]) {
    fs.mkdirSync(path.join(root, "usr", folder), { recursive: true });
    fs.symlinkSync(`usr/${folder}`, path.join(root, folder));
  }
  fs.mkdirSync(path.join(root, "run"), { recursive: true });
  const found = await run("which", image.programs, { allowFailure: true });
  const programs = found.stdout.split("\n").filter(Boolean);
  const modules = (await run("find", ["/usr/lib", "-path", "*/xtables/*.so"], { allowFailure: true })).stdout.split("\n").filter(Boolean);
  const files = [...programs, ...modules, ...(await librariesOf([...programs, ...modules]))];
  for (const file of new Set(files)) {
    const place = path.join(root, file.replace(/^\/(bin|sbin|lib|lib64)\//, "/usr/$1/"));
    fs.mkdirSync(path.dirname(place), { recursive: true });
    fs.copyFileSync(fs.realpathSync(file), place);
  }
}

/** One image archive in the cache; workers need only those of `everyNode`. */
export interface SystemArchive {
  archive: string;
  reference: string;
  everyNode: boolean;
}

/** The archive of one image, made where the cache lacks it. `binaries` is the folder that holds its program. */
async function archiveOf(image: SystemImage, binaries: string): Promise<string> {
  const key = createHash("sha256").update(JSON.stringify(image)).update(binaries).update(fs.readFileSync(__filename)).digest("hex").slice(0, 16);
  const archive = path.join(CACHE, "system-images", `${image.binary}-${key}.tar`);
  if (fs.existsSync(archive)) return archive;
  const work = `${archive}.part`;
  fs.rmSync(work, { recursive: true, force: true });
  fs.mkdirSync(path.join(work, "root"), { recursive: true });
  await layOut(image, binaries, path.join(work, "root"));
  await run("tar", ["-C", path.join(work, "root"), "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "-cf", path.join(work, "layer.tar"), "."]);
  const digest = (await run("sha256sum", [path.join(work, "layer.tar")])).stdout.split(" ")[0];
  const config = { architecture: "amd64", os: "linux", config: { Entrypoint: image.entrypoint, Env: ["PATH=/usr/local/bin:/usr/sbin:/usr/bin"] }, rootfs: { type: "layers", diff_ids: [`sha256:${digest}`] } };
  fs.writeFileSync(path.join(work, "config.json"), JSON.stringify(config));
  fs.writeFileSync(path.join(work, "manifest.json"), JSON.stringify([{ Config: "config.json", RepoTags: [image.reference], Layers: ["layer.tar"] }]));
  await run("tar", ["-C", work, "-cf", `${archive}.tmp`, "manifest.json", "config.json", "layer.tar"]);
  fs.renameSync(`${archive}.tmp`, archive);
  fs.rmSync(work, { recursive: true });
  return archive;
}

/** Those that a node of a role needs. */
export const imagesFor = (role: "control-plane" | "worker", archives: SystemArchive[]): SystemArchive[] => archives.filter(({ everyNode }) => everyNode || role === "control-plane");

/** The pause image among them. */
export const pauseOf = (archives: SystemArchive[]): string => archives.find(({ reference }) => reference.includes("/pause:"))!.reference;

/** An image that holds one program of a folder of sandbox/go and starts it. */
export async function toolImage(binary: string, binaries: string): Promise<Pick<SystemArchive, "archive" | "reference">> {
  const reference = `localhost/${binary}:sandbox`;
  return { archive: await archiveOf({ binary, tool: "", reference, entrypoint: [`/${binary}`], everyNode: false }, binaries), reference };
}

/** Makes the image archives that the cache lacks and returns them all. `binaries` is buildBinaries' result for that release. */
export async function buildSystemImages(binaries: Record<string, string>, kubernetesVersion: string): Promise<SystemArchive[]> {
  const kubeadm = path.join(binaries.kubernetes, "kubeadm");
  const listed = await run(kubeadm, ["config", "images", "list", "--kubernetes-version", kubernetesVersion]);
  const archives: SystemArchive[] = [];
  for (const image of systemImages(listed.stdout.split("\n").filter(Boolean)))
    archives.push({ archive: await archiveOf(image, binaries[image.tool]), reference: image.reference, everyNode: image.everyNode });
  return archives;
}
