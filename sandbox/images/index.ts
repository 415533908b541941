/**
 * Builds the images that the sandbox cannot pull, and pushes them to its registry.
 *
 * Each folder beside this file holds one image: a Containerfile and what goes into it; RECIPES below says
 * what they are built on and which upstream image each stands in for. Finished images lie in one OCI layout
 * in the cache, compressed once; a record per image holds the hash of its inputs, so that nothing is built twice.
 */
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { PassThrough } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";
import { build as bundle } from "esbuild";
import { buildTestTool, testToolPins } from "../cluster/binaries";
import { knownPlugins } from "./jenkins/adapter/plugins";
import { blobPath, blobsOf, push, readManifest, type Descriptor, type Manifest } from "./registry";
import { repositoryOf, type Pin, type Wanted } from "./upstream";

/** Debian packages that building the images needs on this machine. */
export const DEBIAN_PACKAGES = ["buildah", "debian-archive-keyring", "mmdebstrap"];

/** An image that lies finished in the cache. */
export interface BuiltImage {
  /** Folder name below sandbox/images. */
  name: string;
  /** Repository and tag in the sandbox's registry, such as "jenkins/jenkins" and "2.568.2-jdk21". */
  repository: string;
  tag: string;
  /** Digest of the image manifest, "sha256:...". */
  digest: string;
  /** Compressed size of configuration and layers in bytes. */
  bytes: number;
  /** Folder of the OCI layout that holds the blobs. */
  layout: string;
}

export interface BuildOptions {
  /** Folder outside the repository that survives `down`. */
  cacheDir: string;
  /** Receives one line for each step. */
  log: (line: string) => void;
  /** Build only these (folder names) and what they are built on. */
  only?: string[];
  /** Folders of the programs that are built from Go modules, by tool. */
  binaries: Record<string, string>;
}

interface Recipe {
  /** Images this one is built on; each reaches the Containerfile as an argument of its name in capitals. */
  on: string[];
  /** Key in images/upstream.json, or a full reference, of what it stands in for; absent for inner layers. */
  upstream?: string;
  /** The upstream image goes with this one's alone: they speak a protocol that the stand-ins have their own of. */
  pair?: string;
  /** An address without which the upstream image is of no use. */
  needs?: string;
  /** What else decides the content, besides the folder. */
  inputs?: (o: BuildOptions) => (string | Buffer)[];
  /** Puts what the Containerfile needs beyond its folder into the build context. */
  prepare?: (context: string, o: BuildOptions) => Promise<void>;
}

const HERE = __dirname;
const UPSTREAM = path.join(HERE, "../../images/upstream.json");
/** The Debian release of the base image. */
const DEBIAN = "bookworm";
/** The base image's sources by what apt says of this machine's own: a mirror of Debian has every release. None on another distribution: mmdebstrap has its own then. */
export const debianSources = (targets: string): string[] =>
  [...new Set([...targets.matchAll(/^Debian (deb \S+) [a-z]+((?:-updates|-security)? main)$/gm)].map(([, site, parts]) => `${site} ${DEBIAN}${parts}`))];
let machineSources: string[] | undefined;
/** Mirrors that this machine installs from, asked for once. */
const ownSources = (): string[] =>
  (machineSources ??= debianSources(spawnSync("apt-get", ["indextargets", "--format", "$(ORIGIN) deb $(SITE) $(RELEASE) $(COMPONENT)", "Created-By: Packages"], { encoding: "utf8" }).stdout ?? ""));
/** What a container has no use for; copyright files stay. */
const DEBIAN_LEAN = [
  "path-exclude=/usr/share/man/*",
  "path-exclude=/usr/share/locale/*",
  "path-exclude=/usr/share/doc/*",
  "path-include=/usr/share/doc/*/copyright",
];
/** Certificate authorities that the administrator added to this machine: the images trust whom the machine trusts. */
const LOCAL_AUTHORITIES = "/usr/local/share/ca-certificates";

const RECIPES: Record<string, Recipe> = {
  base: { on: [], upstream: "docker.io/library/debian:bookworm-slim", inputs: () => [...ownSources(), ...DEBIAN_LEAN, ...localAuthorities().map((f) => fs.readFileSync(f))], prepare: debianRoot },
  java: { on: ["base"] },
  jdk: { on: ["java"] },
  maven: { on: ["jdk"], upstream: "maven" },
  hudson: { on: ["maven"] },
  jenkins: { on: ["java", "jdk", "hudson"], upstream: "jenkins", needs: `${process.env.JENKINS_UC ?? "https://updates.jenkins.io"}/update-center.actual.json`, inputs: () => adapterSources().map((f) => fs.readFileSync(f)), prepare: bundleAdapter },
  agent: { on: ["jdk"], upstream: "inboundAgent", pair: "jenkins" },
  gradle: { on: ["jdk"], upstream: "gradle" },
  dind: { on: ["base"], upstream: "dockerDind" },
  "docker-cli": { on: ["base"], upstream: "dockerCli" },
  "ingress-nginx": { on: ["base"], upstream: "ingressNginx", ...program("ingress-nginx", "nginx-ingress-controller") },
  "openebs-provisioner": { on: ["base"], upstream: "openebsProvisioner", prepare: goBinary("provisioner-localpv") },
  "openebs-linux-utils": { on: ["base"], upstream: "openebsLinuxUtils", pair: "openebs-provisioner" },
  "image-registry": { on: ["base"], upstream: "registry", ...program("registry", "registry") },
  restic: { on: ["base"], upstream: "restic", ...program("restic", "restic") },
  buildkit: { on: ["base"], upstream: "buildkit", inputs: () => [testToolPins("buildkit")], prepare: buildkitPrograms },
};

/**
 * Builds every image whose inputs changed since it was last built into this cache.
 * @throws when a tool is missing or a build fails; the message holds the failing step's last lines
 */
export async function buildImages(o: BuildOptions): Promise<BuiltImage[]> {
  const unknown = (o.only ?? []).filter((name) => !RECIPES[name]);
  if (unknown.length > 0) throw new Error(`no such image: ${unknown.join(", ")}; there are ${Object.keys(RECIPES).join(", ")}`);
  const wanted = o.only ?? Object.keys(RECIPES);
  const keys = new Map<string, string>();
  const keyOf = (name: string): string => {
    if (!keys.has(name)) keys.set(name, inputHash(name, RECIPES[name].on.map(keyOf), o));
    return keys.get(name)!;
  };
  const store = new Store(path.join(o.cacheDir, "images"));
  if (wanted.some((name) => !store.find(name, keyOf(name)))) {
    await store.locked(async () => {
      const pending = new Map<string, Promise<void>>();
      const slots = new Slots(2);
      const make = (name: string): Promise<void> => {
        const running = pending.get(name);
        if (running) return running;
        const promise = (async () => {
          const { on } = RECIPES[name];
          if (store.find(name, keyOf(name))) return;
          // An inner image that is recorded but gone from the builder's own storage is made again.
          await Promise.all(on.filter((parent) => !store.holds(parent, keyOf(parent))).map((parent) => { store.forget(parent); return make(parent); }));
          await slots.run(async () => {
            const started = Date.now();
            o.log(`${name}: building`);
            const bytes = await buildOne(name, keyOf, store, o);
            const size = bytes > 0 ? `, ${(bytes / 1e6).toFixed(0)} MB compressed` : "";
            o.log(`${name}: built in ${((Date.now() - started) / 1000).toFixed(1)} s${size}`);
          });
        })();
        pending.set(name, promise);
        return promise;
      };
      const results = await Promise.allSettled(wanted.map(make));
      const failed = results.flatMap((r) => (r.status === "rejected" ? [r.reason as Error] : []));
      if (failed.length > 0) throw new Error([...new Set(failed.map((e) => e.message))].join("\n"));
      await store.collectGarbage();
    });
  }
  return wanted
    .filter((name) => RECIPES[name].upstream !== undefined)
    .map((name) => ({ name, ...target(name), ...store.find(name, keyOf(name))!, layout: store.layout }));
}

/**
 * Pushes images to a plain HTTP registry; what it has already is left alone.
 * @param registry host and port, such as "10.88.0.1:5000"
 */
export async function pushImages(images: BuiltImage[], registry: string, log: (line: string) => void = () => undefined): Promise<void> {
  for (const image of images) {
    const sent = await push(image, registry);
    if (sent > 0) log(`${image.repository}:${image.tag}: pushed ${(sent / 1e6).toFixed(0)} MB`);
  }
}

/** The upstream image that a folder stands in for, as `pins` (images/upstream.json) have it. */
function pinOf(name: string, pins: Record<string, Pin>): Pin {
  const upstream = RECIPES[name].upstream!;
  if (upstream.includes("/")) {
    const [, image, tag] = /^(.+):([^:/]+)$/.exec(upstream)!;
    return { image, tag };
  }
  if (!pins[upstream]) throw new Error(`images/upstream.json has no entry ${upstream}, which sandbox/images/${name} stands in for`);
  return pins[upstream];
}

const readPins = (file: string): Record<string, Pin> => JSON.parse(fs.readFileSync(file, "utf8")) as Record<string, Pin>;

/** Every upstream image of the sandbox. @param pins a file in place of images/upstream.json; images that it does not name are as there */
export function upstreamImages(pins?: string): Wanted[] {
  const known = { ...readPins(UPSTREAM), ...(pins !== undefined && readPins(pins)) };
  return Object.entries(RECIPES).flatMap(([name, { upstream, pair, needs }]) => (upstream === undefined ? [] : [{ name, pin: pinOf(name, known), ...(pair && { pair }), ...(needs && { needs }) }]));
}

/** What a stack on the sandbox says of the images that are stand-ins, as paths of its config with their values. */
export function standInConfig(images: Pick<BuiltImage, "name" | "repository" | "tag" | "digest">[], registry: string): string[] {
  const own = images.flatMap(({ name, repository, tag, digest }) => (RECIPES[name].upstream?.includes("/") ? [] : [`images.${RECIPES[name].upstream}=${registry}/${repository}:${tag}@${digest}`]));
  // Debian's Gradle is an older one.
  return [...own, ...(images.some(({ name }) => name === "gradle") ? ["agentImages.gradle-dind.args.GRADLE_VERSION=any"] : [])];
}

/** Repository and tag of an image: the upstream name without its host. */
function target(name: string): { repository: string; tag: string } {
  const pin = pinOf(name, readPins(UPSTREAM));
  return { repository: repositoryOf(pin), tag: pin.tag };
}

/** Hash of everything that decides an image's content. */
function inputHash(name: string, parents: string[], o: BuildOptions): string {
  const hash = createHash("sha256");
  const add = (part: string | Buffer) => hash.update(`${part.length}:`).update(part);
  parents.forEach(add);
  const folder = path.join(HERE, name);
  for (const file of filesBelow(folder)) {
    add(path.relative(folder, file));
    add(String(fs.statSync(file).mode & 0o111));
    add(fs.readFileSync(file));
  }
  (RECIPES[name].inputs?.(o) ?? []).forEach(add);
  return hash.digest("hex").slice(0, 16);
}

function filesBelow(folder: string): string[] {
  return fs
    .readdirSync(folder, { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => (entry.isDirectory() ? filesBelow(path.join(folder, entry.name)) : [path.join(folder, entry.name)]));
}

async function buildOne(name: string, keyOf: (name: string) => string, store: Store, o: BuildOptions): Promise<number> {
  const recipe = RECIPES[name];
  const context = fs.mkdtempSync(path.join(store.scratch, `${name}-`));
  try {
    fs.cpSync(path.join(HERE, name), context, { recursive: true });
    await recipe.prepare?.(context, o);
    const local = `localhost/${name}:${keyOf(name)}`;
    const args = recipe.on.flatMap((parent) => ["--build-arg", `${parent.toUpperCase().replace(/-/g, "_")}=localhost/${parent}:${keyOf(parent)}`]);
    await run(["buildah", ...store.buildah, "bud", "--isolation", "chroot", "--timestamp", "0", "--pull-never", "--network", "host", ...args, "-t", local, "-f", path.join(context, "Containerfile"), context], `image ${name}`);
    if (recipe.upstream === undefined) {
      store.record(name, { key: keyOf(name), digest: "", bytes: 0 });
      return 0;
    }
    const exported = path.join(store.scratch, `${path.basename(context)}-oci`);
    await run(["buildah", ...store.buildah, "push", "--quiet", "--format", "oci", "--disable-compression", local, `oci:${exported}`], `image ${name}`);
    return await store.adopt(name, keyOf(name), exported);
  } finally {
    fs.rmSync(context, { recursive: true, force: true });
    fs.rmSync(`${context}-oci`, { recursive: true, force: true });
  }
}

/** The base image's files: a minimal Debian that trusts whom this machine trusts. */
async function debianRoot(context: string): Promise<void> {
  const authorities = localAuthorities();
  const hooks = authorities.length > 0 ? [`--customize-hook=copy-in ${authorities.join(" ")} ${LOCAL_AUTHORITIES}`, `--customize-hook=chroot "$1" update-ca-certificates`] : [];
  await run(
    ["mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates", '--aptopt=APT::Install-Recommends "false"', ...DEBIAN_LEAN.map((opt) => `--dpkgopt=${opt}`), ...hooks, DEBIAN, path.join(context, "rootfs.tar"), ...ownSources()],
    "image base",
    { SOURCE_DATE_EPOCH: "0" },
  );
}

function localAuthorities(): string[] {
  return fs.existsSync(LOCAL_AUTHORITIES) ? filesBelow(LOCAL_AUTHORITIES).filter((f) => f.endsWith(".crt")) : [];
}

const pinFiles = ["plugins.txt", "optional-plugins.txt"].map((name) => path.join(HERE, "../../images/controller", name));

function adapterSources(): string[] {
  return [...pinFiles, require.resolve("yaml/package.json"), require.resolve("esbuild/package.json"), ...["casc-schema.ts", "contracts/casc.json", "contracts/index.ts", "plugins.ts", "references.ts"].map((file) => path.join(HERE, "../../components/jenkins-master", file))];
}

async function bundleAdapter(context: string): Promise<void> {
  await bundle({ entryPoints: [path.join(HERE, "jenkins/adapter/main.ts")], outfile: path.join(context, "adapter.js"), bundle: true, platform: "node", target: "node18", legalComments: "none", logLevel: "silent" });
  fs.writeFileSync(path.join(context, "known-plugins"), knownPlugins(pinFiles.map((file) => fs.readFileSync(file, "utf8"))));
}

/** For an image that holds a program which ../cluster/binaries.ts has built. */
function program(tool: string, binary: string): Required<Pick<Recipe, "inputs" | "prepare">> {
  const file = (o: BuildOptions) => path.join(o.binaries[tool], binary);
  return { inputs: (o) => [fs.readFileSync(file(o))], prepare: async (context, o) => fs.copyFileSync(file(o), path.join(context, binary)) };
}

async function buildkitPrograms(context: string): Promise<void> {
  const folder = await buildTestTool("buildkit");
  for (const binary of ["buildkitd", "buildctl"]) fs.copyFileSync(path.join(folder, binary), path.join(context, binary));
}

function goBinary(output: string): NonNullable<Recipe["prepare"]> {
  return (context) => run(["go", "build", "-C", context, "-trimpath", "-ldflags", "-s -w", "-o", output, "."], `image ${path.basename(context)}`, { CGO_ENABLED: "0", GOFLAGS: "-mod=readonly", GOTOOLCHAIN: "local" });
}

interface Entry {
  key: string;
  digest: string;
  bytes: number;
}

function isGzip(file: string): boolean {
  const start = Buffer.alloc(2);
  const handle = fs.openSync(file, "r");
  fs.readSync(handle, start, 0, 2, 0);
  fs.closeSync(handle);
  return start[0] === 0x1f && start[1] === 0x8b;
}

/** The cache folder: buildah's own storage, the OCI layout with the finished blobs, a record per image. */
export class Store {
  readonly layout: string;
  readonly scratch: string;
  readonly buildah: string[];
  private readonly records: string;
  private readonly layers: string;

  constructor(private readonly dir: string) {
    this.layout = path.join(dir, "oci");
    this.scratch = path.join(dir, "scratch");
    this.records = path.join(dir, "records");
    this.layers = path.join(dir, "layers");
    this.buildah = ["--root", path.join(dir, "storage"), "--runroot", path.join(dir, "run"), "--storage-driver", "overlay"];
  }

  /** The finished image of this key, if all of it is there. */
  find(name: string, key: string): Entry | undefined {
    try {
      const entry = JSON.parse(fs.readFileSync(path.join(this.records, `${name}.json`), "utf8")) as Entry;
      if (entry.key !== key) return undefined;
      return entry.digest === "" || fs.existsSync(blobPath(this.layout, entry.digest)) ? entry : undefined;
    } catch {
      return undefined;
    }
  }

  /** Whether buildah can build on this image. */
  holds(name: string, key: string): boolean {
    return this.find(name, key) !== undefined && this.builderImages().includes(`localhost/${name}:${key}`);
  }

  record(name: string, entry: Entry): void {
    const file = path.join(this.records, `${name}.json`);
    fs.writeFileSync(`${file}.new`, JSON.stringify(entry));
    fs.renameSync(`${file}.new`, file);
  }

  forget(name: string): void {
    fs.rmSync(path.join(this.records, `${name}.json`), { force: true });
  }

  /** Takes an exported image into the layout, each layer compressed once for all images, and records it; returns its size. */
  async adopt(name: string, key: string, exported: string): Promise<number> {
    const index = JSON.parse(fs.readFileSync(path.join(exported, "index.json"), "utf8")) as { manifests: { digest: string }[] };
    const manifest = JSON.parse(fs.readFileSync(blobPath(exported, index.manifests[0].digest), "utf8")) as Manifest;
    fs.copyFileSync(blobPath(exported, manifest.config.digest), blobPath(this.layout, manifest.config.digest));
    for (const layer of manifest.layers) Object.assign(layer, await this.compressed(layer.digest, exported));
    const text = JSON.stringify(manifest);
    const digest = `sha256:${createHash("sha256").update(text).digest("hex")}`;
    fs.writeFileSync(blobPath(this.layout, digest), text);
    const bytes = blobsOf(manifest).reduce((sum, blob) => sum + blob.size, 0);
    this.record(name, { key, digest, bytes });
    return bytes;
  }

  /** The compressed form of a layer, made at its first use. */
  private async compressed(digest: string, exported: string): Promise<Descriptor> {
    const known = path.join(this.layers, digest.replace(":", "-"));
    if (fs.existsSync(known)) {
      const descriptor = JSON.parse(fs.readFileSync(known, "utf8")) as Descriptor;
      if (fs.existsSync(blobPath(this.layout, descriptor.digest))) return descriptor;
    }
    const hash = createHash("sha256");
    let size = 0;
    const count = async function* (chunks: AsyncIterable<Buffer>) {
      for await (const chunk of chunks) {
        hash.update(chunk);
        size += chunk.length;
        yield chunk;
      }
    };
    const source = blobPath(exported, digest);
    const file = `${source}.gz`;
    // buildah leaves its constant empty layer compressed, whatever it was asked for.
    await pipeline(fs.createReadStream(source), isGzip(source) ? new PassThrough() : createGzip(), count, fs.createWriteStream(file));
    const descriptor = { mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", digest: `sha256:${hash.digest("hex")}`, size };
    fs.renameSync(file, blobPath(this.layout, descriptor.digest));
    fs.writeFileSync(known, JSON.stringify(descriptor));
    return descriptor;
  }

  /** Drops what no record refers to any more: blobs, and images in buildah's storage. */
  async collectGarbage(): Promise<void> {
    const entries = fs.readdirSync(this.records).filter((f) => f.endsWith(".json")).map((f) => [f.slice(0, -5), JSON.parse(fs.readFileSync(path.join(this.records, f), "utf8")) as Entry] as const);
    const used = new Set(entries.flatMap(([, { digest }]) => (digest === "" ? [] : [digest, ...blobsOf(readManifest(this.layout, digest)).map((blob) => blob.digest)])));
    for (const blob of fs.readdirSync(path.join(this.layout, "blobs/sha256"))) {
      if (!used.has(`sha256:${blob}`)) fs.rmSync(path.join(this.layout, "blobs/sha256", blob));
    }
    const current = new Set(entries.map(([name, { key }]) => `localhost/${name}:${key}`));
    const stale = this.builderImages().filter((reference) => !current.has(reference));
    if (stale.length > 0) await run(["buildah", ...this.buildah, "rmi", "--force", ...stale], "clean-up of old images");
  }

  /** Names of the images in buildah's storage. */
  private builderImages(): string[] {
    try {
      const images = JSON.parse(fs.readFileSync(path.join(this.dir, "storage/overlay-images/images.json"), "utf8")) as { names?: string[] }[];
      return images.flatMap((image) => image.names ?? []);
    } catch {
      return [];
    }
  }

  /** Runs an action that no other process runs on this cache at the same time. */
  async locked(action: () => Promise<void>): Promise<void> {
    for (const dir of [this.records, this.layers, this.scratch, path.join(this.layout, "blobs/sha256")]) fs.mkdirSync(dir, { recursive: true });
    const lock = path.join(this.dir, "lock");
    for (;;) {
      try {
        fs.writeFileSync(lock, String(process.pid), { flag: "wx" });
        break;
      } catch (e) {
        if ((e as NodeJS.ErrnoException).code !== "EEXIST") throw e;
        // The holder may finish, and take its file away, at any moment.
        const holder = Number(readIfThere(lock) ?? 0);
        if (holder > 0 && !fs.existsSync(`/proc/${holder}`)) fs.rmSync(lock, { force: true });
        else await new Promise((resolve) => setTimeout(resolve, 500));
      }
    }
    try {
      await action();
    } finally {
      fs.rmSync(lock, { force: true });
    }
  }
}


function readIfThere(file: string): string | undefined {
  try {
    return fs.readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}

/** Lets at most `free` actions run at once. */
class Slots {
  private readonly waiting: (() => void)[] = [];
  constructor(private free: number) {}

  async run<T>(action: () => Promise<T>): Promise<T> {
    if (this.free > 0) this.free--;
    else await new Promise<void>((resolve) => this.waiting.push(resolve));
    try {
      return await action();
    } finally {
      const next = this.waiting.shift();
      if (next) next();
      else this.free++;
    }
  }
}

/** Runs a command quietly; when it fails, the error carries its last lines. */
function run(argv: string[], what: string, env: Record<string, string> = {}): Promise<void> {
  return new Promise((resolve, reject) => {
    let tail = "";
    const child = spawn(argv[0], argv.slice(1), { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...env } });
    const keep = (chunk: Buffer) => (tail = (tail + chunk.toString()).slice(-8000));
    child.stdout.on("data", keep);
    child.stderr.on("data", keep);
    child.on("error", (e: NodeJS.ErrnoException) =>
      reject(new Error(e.code === "ENOENT" ? `${what}: ${argv[0]} is not installed; apt-get install ${DEBIAN_PACKAGES.join(" ")}, and Go for the binaries` : `${what}: ${e.message}`)),
    );
    child.on("close", (code) => (code === 0 ? resolve() : reject(new Error(`${what}: ${argv[0]} ended with code ${code}:\n${tail.trim().split("\n").slice(-20).join("\n")}`))));
  });
}
