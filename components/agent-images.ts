import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import * as command from "@pulumi/command";
import * as kubernetes from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { ownLabels, partOf } from "./ownership";
import { refusal } from "./refusal";

/** What builds the images: a local buildah, a local `docker buildx`, or a BuildKit pod in the cluster (needs kubectl only). */
export type Builder = "buildah" | "buildx" | "in-cluster";

const builders: readonly Builder[] = ["buildah", "buildx", "in-cluster"];

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
  /** Password or token of `username`. Reaches the builder in a credentials file of mode 600, never a command line. */
  password?: pulumi.Input<string>;
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
  /** Context of the kubeconfig. Default: its current one. */
  context?: string;
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
  /** What the builder `in-cluster` needs; of no use to the others. */
  inCluster?: InClusterArgs;
  /** True: `pulumi destroy` deletes the images of this stack's last build from the registry. Default false. */
  deleteOnDestroy?: boolean;
  /** What the registry said just now, by image name, see `prepareImages`. An image that is missing is built again though its content is unchanged. Default: nothing is known. */
  found?: Record<string, ImageState>;
}

/** Goes into every content hash: raise it when scripts/images/build-image.sh makes a different image of the same content. */
const recipe = 1;

/** Above this many files a preview names folders instead of files. */
const listedFiles = 100;

/** One entry of a build context as the builder sees it. */
interface ContextEntry {
  path: string;
  /** `644` or `755` for a file (build-image.sh normalises modes, as git does), `link`, or `dir` for an empty folder. */
  kind: "644" | "755" | "link" | "dir";
}

const sha256 = (data: string | Buffer): string => createHash("sha256").update(data).digest("hex");
const byText = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

/**
 * A .dockerignore as a function of a path inside the context (slashes, no leading one): true if the builder leaves the
 * path out. Rules as in github.com/moby/patternmatcher: the last matching line wins, `!` takes back, `**` spans folders,
 * a matching folder takes what is in it along.
 */
export function dockerIgnore(text: string): (file: string) => boolean {
  const rules = text
    .replace(/^\uFEFF/, "")
    .split(/\r?\n/)
    .filter((line) => !line.startsWith("#"))
    .map((line) => line.trim())
    .filter((line) => line !== "" && line !== "!")
    .map((line) => {
      const keep = line.startsWith("!");
      const pattern = path.posix.normalize((keep ? line.slice(1) : line).trim()).replace(/^\/+|\/+$/g, "");
      return { keep, regexp: ignorePattern(pattern) };
    });
  return (file) => {
    const parts = file.split("/");
    const candidates = parts.map((_, i) => parts.slice(0, i + 1).join("/"));
    return rules.reduce((ignored, rule) => (candidates.some((c) => rule.regexp.test(c)) ? !rule.keep : ignored), false);
  };
}

function ignorePattern(pattern: string): RegExp {
  if (pattern === "." || pattern === "") return /(?!)/;
  let out = "";
  for (let i = 0; i < pattern.length; i++) {
    const rest = pattern.slice(i);
    const charClass = /^\[(\^?)((?:\\.|[^\]\\])+)\]/.exec(rest);
    if (rest.startsWith("**/")) {
      out += "(?:.*/)?";
      i += 2;
    } else if (rest.startsWith("**")) {
      out += ".*";
      i += 1;
    } else if (pattern[i] === "*") {
      out += "[^/]*";
    } else if (pattern[i] === "?") {
      out += "[^/]";
    } else if (charClass) {
      out += `[${charClass[1]}${charClass[2].replace(/\[/g, "\\[")}]`;
      i += charClass[0].length - 1;
    } else {
      const literal = pattern[i] === "\\" && i + 1 < pattern.length ? pattern[++i] : pattern[i];
      out += literal.replace(/[.*+?^${}()|[\]\\/-]/g, "\\$&");
    }
  }
  return new RegExp(`^${out}$`, "s");
}

/** The ignore file that counts: `<Dockerfile>.dockerignore` beside the Dockerfile before the context's own, as BuildKit does. */
function ignoreFile(context: string, dockerfile: string): string | undefined {
  return [`${dockerfile}.dockerignore`, ".dockerignore"].find((file) => fs.existsSync(path.join(context, file)));
}

/**
 * Every entry of a build context that reaches the builder, sorted by path; the Dockerfile and the ignore file always count.
 * Times, owners and the order in which the disk lists a folder play no part; neither does a file's mode beyond "executable".
 * Reads no file's bytes. Throws on a socket, pipe or device, and on a name that is no text.
 */
function contextEntries(context: string, dockerfile: string): ContextEntry[] {
  const ignore = ignoreFile(context, dockerfile);
  const always = new Set([dockerfile, ignore]);
  const ignored = dockerIgnore(ignore ? fs.readFileSync(path.join(context, ignore), "utf8") : "");
  const entries: ContextEntry[] = [];

  const walk = (folder: string): void => {
    const children = fs.readdirSync(path.join(context, folder), { withFileTypes: true });
    if (children.length === 0 && folder !== "" && !ignored(folder)) entries.push({ path: folder, kind: "dir" });
    for (const child of children) {
      const name = folder === "" ? child.name : `${folder}/${child.name}`;
      const full = path.join(context, name);
      // What is no UTF-8 comes as U+FFFD, under which there is no such file.
      if (child.name.includes("\uFFFD") && !ignored(name) && !fs.lstatSync(full, { throwIfNoEntry: false })) throw new Error(`a name in ${path.join(context, folder)} is no UTF-8 (${child.name}); rename that file`);
      if (child.isDirectory()) {
        walk(name);
      } else if (ignored(name) && !always.has(name)) {
        continue;
      } else if (child.isSymbolicLink() && !always.has(name)) {
        entries.push({ path: name, kind: "link" });
      } else if (child.isFile() || always.has(name)) {
        entries.push({ path: name, kind: fs.statSync(full).mode & 0o111 ? "755" : "644" });
      } else {
        throw new Error(`${full} is a socket, pipe or device, which no image can hold; remove it or name it in .dockerignore`);
      }
    }
  };
  walk("");
  return entries.sort((a, b) => byText(a.path, b.path));
}

/** SHA-256 of what an entry holds: a file's bytes, a link's target, nothing for a folder. Reads a file piece by piece: it may be larger than a buffer can be. */
function entryHash(context: string, entry: ContextEntry): string {
  const full = path.join(context, entry.path);
  if (entry.kind === "dir") return sha256("");
  if (entry.kind === "link") return sha256(fs.readlinkSync(full));
  const hash = createHash("sha256");
  const piece = Buffer.alloc(1 << 20);
  const file = fs.openSync(full, "r");
  try {
    for (let bytes = fs.readSync(file, piece); bytes > 0; bytes = fs.readSync(file, piece)) hash.update(piece.subarray(0, bytes));
  } finally {
    fs.closeSync(file);
  }
  return hash.digest("hex");
}

/** The content of an image to be. */
export interface ImageContent {
  /** SHA-256 over all that decides what the image holds, 64 hex digits. */
  hash: string;
  /** For people who read a preview: mode and short hash by file (by top folder in a context of more than 100 files). */
  files: Record<string, string>;
}

/**
 * The content hash of an image: each file's path, executable bit and bytes, the Dockerfile's path, the build arguments (which
 * hold the base images), the builder and the platforms. Never a time. Reads the context synchronously.
 */
export function imageContent(spec: ImageSpec, builder: Builder, platforms: readonly string[] = []): ImageContent {
  const dockerfile = path.posix.normalize(spec.dockerfile ?? "Dockerfile");
  const entries = contextEntries(spec.context, dockerfile).map((entry) => ({ ...entry, sha256: entryHash(spec.context, entry) }));
  const args = Object.entries(spec.args ?? {}).sort(([a], [b]) => byText(a, b));
  const hash = sha256(JSON.stringify([recipe, entries.map((e) => [e.path, e.kind, e.sha256]), dockerfile, args, builder, [...platforms].sort()]));

  const files: Record<string, string> = {};
  if (entries.length <= listedFiles) {
    for (const e of entries) files[e.path] = `${e.kind} ${e.sha256.slice(0, 12)}`;
  } else {
    const top = (e: { path: string }): string => (e.path.includes("/") ? `${e.path.split("/")[0]}/` : e.path);
    for (const folder of new Set(entries.map(top))) {
      const inside = entries.filter((e) => top(e) === folder);
      files[folder] = `${inside.length} ${sha256(JSON.stringify(inside)).slice(0, 12)}`;
    }
  }
  return { hash, files };
}

/** The image's tag: a readable name and the content hash, cut to 12 digits as git and Docker do for people. */
export const imageTag = (name: string, content: ImageContent): string => `${name}-${content.hash.slice(0, 12)}`;

/** A Dockerfile with each instruction on one line; comments between continued lines are left out, as builders do. */
const joinedLines = (dockerfile: string): string => dockerfile.replace(/\\[ \t]*\r?\n(?:[ \t]*#.*\r?\n)*/g, " ");

/** The names that `ARG` instructions of a Dockerfile declare, in all stages. */
export function declaredArgs(dockerfile: string): Set<string> {
  const names = new Set<string>();
  for (const [, list] of joinedLines(dockerfile).matchAll(/^[ \t]*ARG[ \t]+(.*)$/gim)) {
    for (const [, name] of list.matchAll(/(?:^|\s)([A-Za-z_][A-Za-z0-9_]*)(?:=(?:"[^"]*"|'[^']*'|\S)*)?/g)) names.add(name);
  }
  return names;
}

/** An image of others that a Dockerfile takes something from. */
export interface BaseImage {
  /** The instruction's words, for messages: `FROM ${BASE_IMAGE}`, `COPY --from=debian:12`. */
  instruction: string;
  /** The image with build arguments filled in; undefined where an argument has no value. */
  reference?: string;
  /** The build argument that alone names the image, where there is one: setting it pins the image. */
  arg?: string;
}

/** The images of others in a Dockerfile's FROM, COPY and RUN --mount, with `args` before the defaults of its ARGs. */
export function baseImages(dockerfile: string, args: Record<string, string> = {}): BaseImage[] {
  const found: BaseImage[] = [];
  const values = new Map<string, string>();
  const stages = new Set<string>();
  const fill = (text: string): string | undefined => {
    let known = true;
    const filled = text.replace(/\$(?:\{(\w+)\}|(\w+))/g, (_, braced: string | undefined, bare: string) => {
      const value = values.get(braced ?? bare);
      if (value === undefined) known = false;
      return value ?? "";
    });
    return known && !filled.includes("$") ? filled : undefined;
  };
  const take = (instruction: string, image: string): void => {
    const reference = fill(image);
    if (reference === "scratch" || stages.has((reference ?? "").toLowerCase())) return;
    const [, braced, bare] = /^\$(?:\{(\w+)\}|(\w+))$/.exec(image) ?? [];
    found.push({ instruction, reference, ...((braced ?? bare) && { arg: braced ?? bare }) });
  };

  let heredoc = "";
  let inStage = false;
  for (const line of joinedLines(dockerfile).split(/\r?\n/)) {
    if (heredoc !== "") {
      if (line.trim() === heredoc) heredoc = "";
      continue;
    }
    const [, word = "", rest = ""] = /^\s*([A-Za-z]+)\s+(.*)$/.exec(line) ?? [];
    const instruction = word.toUpperCase();
    if (instruction === "ARG" && !inStage) {
      for (const [, name, value] of rest.matchAll(/(?:^|\s)([A-Za-z_]\w*)(?:=("[^"]*"|'[^']*'|\S*))?/g)) {
        const given = args[name] ?? (value === undefined ? undefined : fill(value.replace(/^(["'])(.*)\1$/, "$2")));
        if (given !== undefined) values.set(name, given);
      }
    } else if (instruction === "FROM") {
      inStage = true;
      const [image = "", as, stage] = rest.split(/\s+/).filter((part) => !part.startsWith("--"));
      take(`FROM ${image}`, image);
      if (as?.toUpperCase() === "AS" && stage) stages.add(stage.toLowerCase());
    } else if (instruction === "COPY" || instruction === "RUN") {
      const flags = /^(?:\s*--\S+)*/.exec(rest)?.[0] ?? "";
      for (const [, image] of flags.matchAll(instruction === "COPY" ? /--from=(\S+)/g : /--mount=(?:\S*,)?from=([^\s,]+)/g)) {
        // A number is a stage, and builders fill in no argument here.
        if (!/^\d+$/.test(image) && !image.includes("$")) take(`${instruction} ${instruction === "COPY" ? "--from=" : "--mount=from="}${image}`, image);
      }
    }
    if (/^(?:COPY|RUN|ADD)$/.test(instruction)) heredoc = /<<-?(["']?)(\w+)\1/.exec(rest)?.[2] ?? "";
  }
  return found;
}

/** Build arguments that every builder knows without an ARG instruction. */
const predefinedArgs = new Set(["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"].flatMap((n) => [n, n.toLowerCase()]));

// Grammar of repository names: https://github.com/distribution/reference, "reference.go".
const pathComponent = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*";
const repositoryName = new RegExp(`^${pathComponent}$`);
const repositoryPath = new RegExp(`^(?:${pathComponent}(?:/${pathComponent})*)?$`);
const registryHost = /^(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?$/;
const platformName = /^linux\/[a-z0-9]+(?:\/[a-z0-9]+)?$/;

type Problem = pulumi.InputPropertyErrorDetails;

/** Everything that is wrong with the args, each with the field, what was found and the fix. Empty: nothing is. */
export function argProblems(args: AgentImagesArgs): Problem[] {
  const problems: Problem[] = [];
  const say = (propertyPath: string, reason: string): void => void problems.push({ propertyPath, reason });
  const { registry } = args;

  if (!registryHost.test(registry.host)) {
    say("registry.host", `"${registry.host}" is no registry host; give host or host:port without scheme and path, for example registry.example.org or 10.0.0.5:5000`);
  }
  if (!repositoryPath.test(registry.prefix)) {
    say("registry.prefix", `"${registry.prefix}" is no repository path; use lower-case letters, digits and single . _ - inside parts divided by /, for example team/build-platform`);
  }
  if ((registry.username === undefined) !== (registry.password === undefined)) {
    say(registry.username === undefined ? "registry.username" : "registry.password", "is missing; a registry log-in needs both username and password, or neither");
  }
  if (!builders.includes(args.builder)) say("builder", `"${args.builder}" is unknown; use one of ${builders.join(", ")}`);
  for (const platform of args.platforms ?? []) {
    if (!platformName.test(platform)) say("platforms", `"${platform}" is no platform; write it as linux/amd64 or linux/arm64`);
  }
  if (args.builder === "in-cluster" && args.inCluster === undefined) say("inCluster", "is missing; the builder in-cluster needs at least inCluster.image, a BuildKit image that the cluster can pull");
  if (args.builder === "in-cluster" && args.cache !== undefined && args.cache !== "registry") say("cache", `"${args.cache}" is of no use to the builder in-cluster, which keeps nothing between builds; use "registry", or leave it out`);
  for (const [name, spec] of Object.entries(args.images)) problems.push(...imageProblems(name, spec));
  return problems;
}

function imageProblems(name: string, spec: ImageSpec): Problem[] {
  const problems: Problem[] = [];
  const say = (field: string, reason: string): void => void problems.push({ propertyPath: `images.${name}${field}`, reason: `image ${name}: ${reason}` });

  if (!repositoryName.test(name) || name.length > 100) {
    say("", `"${name}" is no image name; use at most 100 lower-case letters and digits with single . _ - between them, for example maven-dind`);
  }
  if (!fs.statSync(spec.context, { throwIfNoEntry: false })?.isDirectory()) {
    say(".context", `there is no folder ${spec.context}; create it with a Dockerfile in it, or correct the path (relative to the folder of Pulumi.yaml)`);
    return problems;
  }
  const dockerfile = path.posix.normalize(spec.dockerfile ?? "Dockerfile");
  const full = path.join(spec.context, dockerfile);
  if (path.isAbsolute(dockerfile) || dockerfile.split("/")[0] === ".." || outside(spec.context, full)) {
    say(".dockerfile", `${spec.dockerfile} is outside the context ${spec.context}; move it inside and give its path relative to the context`);
    return problems;
  }
  if (!fs.statSync(full, { throwIfNoEntry: false })?.isFile()) {
    say(".dockerfile", `there is no file ${full}; write one, or name the right one (relative to the context)`);
    return problems;
  }

  const text = fs.readFileSync(full, "utf8");
  for (const { instruction, reference, arg } of baseImages(text, spec.args)) {
    // An argument's value is pinned by prepareImages.
    if (arg === undefined && !reference?.includes("@")) say(".dockerfile", `"${instruction}" in ${full} is not a fixed image; give it by digest (NAME:TAG@sha256:...), or write ARG BASE_IMAGE=NAME:TAG above the first FROM and FROM \${BASE_IMAGE}, whose digest is then looked up`);
  }
  const declared = declaredArgs(text);
  for (const [key, value] of Object.entries(spec.args ?? {})) {
    if (!declared.has(key) && !predefinedArgs.has(key)) {
      say(`.args.${key}`, `${full} declares no ARG ${key}; it declares ${[...declared].join(", ") || "none"}; correct the name or add the ARG`);
    }
    if (/[\r\n\0]/.test(value)) say(`.args.${key}`, "the value holds a line break; give it on one line");
  }
  try {
    contextEntries(spec.context, dockerfile);
  } catch (error) {
    say(".context", (error as Error).message);
  }
  return problems;
}

/** True if a file's real place (symbolic links followed) is not below the context. */
function outside(context: string, file: string): boolean {
  if (!fs.existsSync(file)) return false;
  const relative = path.relative(fs.realpathSync(context), fs.realpathSync(file));
  return relative === ".." || relative.startsWith(`..${path.sep}`) || path.isAbsolute(relative);
}

/** host/prefix/name, without tag. */
const repository = (registry: RegistryArgs, name: string): string => [registry.host, registry.prefix, name].filter((part) => part !== "").join("/");

/** Namespace of the build jobs where none is given. */
const buildNamespace = "image-builds";

/** The script that the command resources run, relative to the project (the folder in which Pulumi starts the provider). */
const script = "scripts/images/build-image.sh";

/** A registry log-in in plain text, for what the program itself asks a registry. */
export interface Login {
  username?: string;
  password?: string;
}

/**
 * What a program does before it makes AgentImages: pins each base image that is given by tag to the digest the tag has now,
 * so that a new base is a change, and looks which images the registry lacks. Asks registries, a few at once; changes nothing.
 * Throws if a base image without digest cannot be found, with every such image and the fix.
 */
export async function prepareImages(args: AgentImagesArgs, login: Login = {}): Promise<AgentImagesArgs> {
  if (argProblems(args).length > 0) return args;
  const pinned = { ...args, images: await pinBaseImages(args, login) };
  return { ...pinned, found: await inspectImages(pinned, login) };
}

/** The images with every base image given by digest. */
async function pinBaseImages(args: AgentImagesArgs, login: Login): Promise<Record<string, ImageSpec>> {
  const digests = new Map<string, Promise<Answer>>();
  const missing: string[] = [];
  const pinned = Object.entries(args.images).map(async ([name, spec]): Promise<[string, ImageSpec]> => {
    const bases = baseImages(fs.readFileSync(path.join(spec.context, spec.dockerfile ?? "Dockerfile"), "utf8"), spec.args);
    const open = new Map(bases.flatMap(({ arg, reference }) => (arg === undefined || reference === undefined || reference.includes("@") ? [] : [[arg, reference] as const])));
    const pairs = [...open].map(async ([key, value]): Promise<[string, string]> => {
      const environment = { IMAGE_NAME: name, IMAGE_REPOSITORY: repository(args.registry, name), REGISTRY_INSECURE: String(args.registry.insecure), ...loginEnvironment(login) };
      const asked = digests.get(value) ?? run(script, ["--resolve", value], environment);
      digests.set(value, asked);
      const answer = await asked;
      if (answer.ok) return [key, `${value}@${answer.out}`];
      missing.push(`image ${name}, argument ${key}: ${value} has no digest and could not be looked up (${answer.error}); give it as ${value}@sha256:..., or make its registry reachable from here`);
      return [key, value];
    });
    const found = await Promise.all(pairs);
    return [name, found.length === 0 ? spec : { ...spec, args: { ...spec.args, ...Object.fromEntries(found) } }];
  });
  const images = Object.fromEntries(await Promise.all(pinned));
  if (missing.length > 0) throw refusal(`Base images that are not pinned:\n${missing.sort().map((line) => `  - ${line}`).join("\n")}`);
  return images;
}

/**
 * Asks the registry for each image by its content tag; a few milliseconds each, all at once, nothing is changed. Its answer
 * is what lets a plain `up` notice that a registry was wiped. Never throws: what cannot be found out is `unknown`, and
 * changes nothing.
 */
export async function inspectImages(args: AgentImagesArgs, login: Login = {}): Promise<Record<string, ImageState>> {
  if (argProblems(args).length > 0) return {};
  const states = Object.entries(args.images).map(async ([name, spec]): Promise<[string, ImageState]> => {
    const environment = imageEnvironment(name, imageContent(spec, args.builder, args.platforms), args);
    const { out } = await run(script, ["--inspect"], { ...environment, ...loginEnvironment(login) });
    return [name, out === "present" || out === "missing" ? out : "unknown"];
  });
  return Object.fromEntries(await Promise.all(states));
}

const loginEnvironment = ({ username, password }: Login): Record<string, string> =>
  username !== undefined && password !== undefined ? { REGISTRY_USERNAME: username, REGISTRY_PASSWORD: password } : {};

/** What a program printed: all of its standard output, the last line of its error output. */
interface Answer {
  ok: boolean;
  out: string;
  error: string;
}

function run(file: string, args: string[], environment: Record<string, string>): Promise<Answer> {
  return new Promise((resolve) => {
    const child = spawn(file, args, { env: { ...process.env, ...environment }, stdio: ["ignore", "pipe", "pipe"] });
    let out = "";
    let error = "";
    child.stdout.on("data", (chunk) => (out += chunk));
    child.stderr.on("data", (chunk) => (error += chunk));
    child.on("error", (failure) => resolve({ ok: false, out: "", error: failure.message }));
    child.on("close", (code) => resolve({ ok: code === 0, out: out.trim(), error: error.trim().split("\n").pop() ?? "" }));
  });
}

/** The environment that scripts/images/build-image.sh reads, without credentials. Everything in it decides whether the image is built again. */
export function imageEnvironment(name: string, content: ImageContent, args: AgentImagesArgs): Record<string, string> {
  const spec = args.images[name];
  return {
    IMAGE_NAME: name,
    IMAGE_REPOSITORY: repository(args.registry, name),
    IMAGE_TAG: imageTag(name, content),
    IMAGE_CONTEXT: spec.context,
    IMAGE_DOCKERFILE: spec.dockerfile ?? "Dockerfile",
    IMAGE_ARGS: Object.entries(spec.args ?? {}).sort(([a], [b]) => byText(a, b)).map(([key, value]) => `${key}=${value}`).join("\n"),
    IMAGE_BUILDER: args.builder,
    IMAGE_PLATFORMS: (args.platforms ?? []).join(","),
    IMAGE_CACHE: args.cache ?? "",
    IMAGE_SBOM: args.sbom ?? "",
    IMAGE_FILES: JSON.stringify(content.files),
    REGISTRY_INSECURE: String(args.registry.insecure),
    ...(args.builder !== "in-cluster" || args.inCluster === undefined
      ? {}
      : { BUILDKIT_IMAGE: args.inCluster.image, BUILDKIT_NAMESPACE: args.inCluster.namespace ?? buildNamespace, BUILDKIT_CONTEXT: args.inCluster.context ?? "" }),
  };
}

/**
 * Builds the platform's own images and pushes them. One command resource per image, so they build side by side; an image is
 * built when its content changed or the registry lost it, and at no other time. `pulumi preview --diff` shows the changed
 * file or argument in the resource's environment. A failed build leaves the former reference in the state and in use.
 */
export class AgentImages extends pulumi.ComponentResource {
  /** By image name: `host/prefix/name@sha256:...`, the digest as the registry returned it. */
  readonly references: Record<string, pulumi.Output<string>>;

  constructor(name: string, args: AgentImagesArgs, opts?: pulumi.ComponentResourceOptions) {
    super("build-platform:images:AgentImages", name, {}, opts);
    const problems = argProblems(args);
    if (problems.length > 0) throw new pulumi.InputPropertiesError({ message: "The agent images cannot be built as configured:", errors: problems });

    const { registry } = args;
    const before: pulumi.Resource[] = [];
    if (args.builder === "in-cluster") {
      const labels = { "pod-security.kubernetes.io/enforce": "privileged", ...partOf, ...ownLabels() };
      before.push(new kubernetes.core.v1.Namespace(`${name}-builds`, { metadata: { name: args.inCluster?.namespace ?? buildNamespace, labels } }, { parent: this }));
    }
    this.references = {};
    for (const [image, spec] of Object.entries(args.images)) {
      const missing = args.found?.[image] === "missing";
      const built = new command.local.Command(
        `${name}-${image}`,
        {
          create: script,
          delete: args.deleteOnDestroy ? `${script} --delete` : undefined,
          environment: {
            ...imageEnvironment(image, imageContent(spec, args.builder, args.platforms), args),
            IMAGE_STACK: pulumi.getStack(),
            // Any new value makes the command run. Only what the registry lacks gets one; see ignoreChanges below.
            IMAGE_MISSING: missing ? `not in the registry at ${new Date().toISOString()}` : "",
            ...(registry.username === undefined ? {} : { REGISTRY_USERNAME: registry.username }),
            ...(registry.password === undefined ? {} : { REGISTRY_PASSWORD: pulumi.secret(registry.password) }),
          },
          logging: command.local.Logging.Stderr,
        },
        {
          parent: this,
          dependsOn: before,
          // What the state says of an earlier loss is no reason to build an image that is there.
          ignoreChanges: missing ? [] : ["environment.IMAGE_MISSING"],
        },
      );
      // Not secret, though the command's inputs hold the password: the script prints the reference and nothing else.
      this.references[image] = pulumi.unsecret(built.stdout).apply((stdout) => checkedReference(image, stdout));
    }
    this.registerOutputs({ references: this.references });
  }
}

/** The reference that the build script printed. Throws if that is no reference by digest: better no deployment than one of an unknown image. */
export function checkedReference(image: string, stdout: string): string {
  const reference = stdout.trim();
  if (!/^\S+@sha256:[0-9a-f]{64}$/.test(reference)) {
    throw new Error(`image ${image}: ${script} printed "${reference}" where a reference by digest (host/name@sha256:...) was expected; run it by hand with --help to see its contract`);
  }
  return reference;
}
