import { spawn } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { base64 } from "../encoding";
import { inFull, mirrorArgs, mirrored, serverOf } from "../mirrors";
import type { RegistryLogin } from "../pull-secrets";
import { refusal } from "../refusal";
import { goesDirect, proxyTexts, type Surroundings } from "../surroundings";
import type { AgentImagesArgs, ImageSpec, ImageState, RegistryArgs } from "./args";
import { byText, type ImageContent, imageContent, imageTag } from "./content";
import { baseImages, declaredArgs } from "./dockerfile";
import { argProblems } from "./problems";

/** Path of an image below a registry's prefix, which may be "". */
export const pathBelow = (prefix: string, name: string): string => (prefix === "" ? name : `${prefix}/${name}`);

/** host/prefix/name, without tag. */
const repository = ({ host, prefix }: RegistryArgs, name: string): string => `${host}/${pathBelow(prefix, name)}`;

/** Namespace of the build jobs where none is given. */
export const buildNamespace = "image-builds";

/** The script that the command resources run, relative to the project (the folder in which Pulumi starts the provider). */
export const script = "scripts/images/build-image.sh";

/** A registry log-in in plain text, for what the program itself asks a registry. */
export interface Login {
  username?: string;
  password?: string;
  /** Those for other registries. */
  others?: RegistryLogin[];
}

/**
 * What a program does before it makes AgentImages: pins each base image that is given by tag to the digest the tag has now,
 * so that a new base is a change, and looks which images the registry lacks. Asks registries, a few at once; changes nothing.
 * Throws if a base image without digest cannot be found, with every such image and the fix.
 */
export async function prepareImages(args: AgentImagesArgs, login: Login = {}): Promise<AgentImagesArgs> {
  if (argProblems(args).length > 0) return args;
  const led = { ...args, images: Object.fromEntries(Object.entries(args.images).map(([name, spec]) => [name, withMirrors(spec, args)])) };
  const pinned = { ...led, images: await pinBaseImages(led, login) };
  return { ...pinned, found: await inspectImages(pinned, login) };
}

const dockerfileText = ({ context, dockerfile = "Dockerfile" }: ImageSpec): string => fs.readFileSync(path.join(context, dockerfile), "utf8");

/** The image with its base images led to the mirrors, as far as arguments name them, and with what its Dockerfile asks of the mirrors. */
function withMirrors(spec: ImageSpec, { mirrors }: AgentImagesArgs): ImageSpec {
  if (mirrors === undefined) return spec;
  const text = dockerfileText(spec);
  const declared = declaredArgs(text);
  const asked = Object.entries(mirrorArgs(mirrors)).filter(([arg]) => declared.has(arg));
  const led = baseImages(text, spec.args).flatMap(({ arg, reference }): [string, string][] => {
    const there = reference === undefined ? reference : mirrored(reference, mirrors.registries);
    return arg === undefined || there === undefined || there === reference ? [] : [[arg, there]];
  });
  return asked.length + led.length === 0 ? spec : { ...spec, args: { ...Object.fromEntries(asked), ...spec.args, ...Object.fromEntries(led) } };
}

/** The keys of the config by which an image's registry is asked, for a message; nothing where it is asked itself. */
function wayTo(reference: string, { mirrors, surroundings }: AgentImagesArgs): string {
  const [host] = inFull(reference);
  const mirror = Object.entries(mirrors?.registries ?? {}).find(([registry, place]) => place !== registry && reference.startsWith(`${place}/`));
  const proxied = surroundings?.proxy && !goesDirect(surroundings.proxy, new URL(`https://${serverOf(host)}`).hostname);
  return `${mirror ? `, at the mirror of mirrors.registries["${mirror[0]}"]` : ""}${proxied ? ", through proxy.https" : ""}`;
}

const askDigest = (name: string, reference: string, args: AgentImagesArgs, login: Login): Promise<Answer> =>
  run(script, ["--resolve", reference], { IMAGE_NAME: name, IMAGE_REPOSITORY: repository(args.registry, name), REGISTRY_INSECURE: String(args.registry.insecure), ...(args.surroundings?.caBundle !== undefined && { REGISTRY_CA: "-" }), ...loginEnvironment(login) }, args.surroundings);

/** The digest that a registry has for a reference now. @throws where there is none, with the registry's words */
export async function resolveDigest(reference: string, args: AgentImagesArgs, login: Login = {}): Promise<string> {
  const answer = await askDigest("controller", reference, args, login);
  if (!answer.ok) throw new Error(`${reference} could not be looked up, so nothing was changed: ${answer.error}`);
  return answer.out;
}

/** The images with every base image given by digest. */
async function pinBaseImages(args: AgentImagesArgs, login: Login): Promise<Record<string, ImageSpec>> {
  const digests = new Map<string, Promise<Answer>>();
  const missing: string[] = [];
  const pinned = Object.entries(args.images).map(async ([name, spec]): Promise<[string, ImageSpec]> => {
    const bases = baseImages(dockerfileText(spec), spec.args);
    const open = new Map(bases.flatMap(({ arg, reference }) => (arg === undefined || reference === undefined || reference.includes("@") ? [] : [[arg, reference] as const])));
    const pairs = [...open].map(async ([key, value]): Promise<[string, string]> => {
      const asked = digests.get(value) ?? askDigest(name, value, args, login);
      digests.set(value, asked);
      const answer = await asked;
      if (answer.ok) return [key, `${value}@${answer.out}`];
      missing.push(`image ${name}, argument ${key}: ${value} has no digest and could not be looked up (${answer.error})${wayTo(value, args)}; give it as ${value}@sha256:..., or make its registry reachable from here`);
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
    const { out } = await run(script, ["--inspect"], { ...environment, ...loginEnvironment(login) }, args.surroundings);
    return [name, out === "present" || out === "missing" ? out : "unknown"];
  });
  return Object.fromEntries(await Promise.all(states));
}

const loginEnvironment = ({ username, password, others }: Login): Record<string, string> => ({
  ...(username !== undefined && password !== undefined && { REGISTRY_USERNAME: username, REGISTRY_PASSWORD: password }),
  ...otherLogins(others),
});

/** Log-ins for other registries as scripts/images/build-image.sh reads them; no variable where there are none. */
export const otherLogins = (logins: RegistryLogin[] = []): { REGISTRY_LOGINS?: string } =>
  logins.length === 0 ? {} : { REGISTRY_LOGINS: logins.map(({ registry, username, password }) => `${registry} ${base64(`${username}:${password}`)}`).join("\n") };

/** What a program printed: all of its standard output, the last line of its error output. */
interface Answer {
  ok: boolean;
  out: string;
  error: string;
}

function run(file: string, args: string[], environment: Record<string, string>, surroundings: Surroundings = {}): Promise<Answer> {
  return new Promise((resolve) => {
    const child = spawn(file, args, { env: { ...process.env, ...environment, ...proxyTexts(surroundings) }, stdio: ["pipe", "pipe", "pipe"] });
    // A program that ends before it has read all of it says why by itself.
    child.stdin.on("error", () => {}).end(surroundings.caBundle ?? "");
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
    ...(args.mirrors && Object.keys(args.mirrors.registries).length > 0 && { IMAGE_MIRRORS: Object.entries(args.mirrors.registries).map((pair) => pair.join("=")).join("\n") }),
    ...(args.surroundings?.caBundle === undefined ? {} : { REGISTRY_CA: "-" }),
    ...(args.registry.pulledFrom === undefined ? {} : { REGISTRY_PULLED_FROM: args.registry.pulledFrom }),
    ...(args.builder === "in-cluster" && args.inCluster && { BUILDKIT_IMAGE: args.inCluster.image, BUILDKIT_NAMESPACE: args.inCluster.namespace ?? buildNamespace }),
    ...((args.builder === "in-cluster" || args.registry.pulledFrom !== undefined) && { BUILDKIT_CONTEXT: args.cluster?.context ?? "", ...(args.cluster?.kubeconfig !== undefined && { KUBECONFIG: args.cluster.kubeconfig }) }),
  };
}

/** The reference that the build script printed. Throws if that is no reference by digest: better no deployment than one of an unknown image. */
export function checkedReference(image: string, stdout: string): string {
  const reference = stdout.trim();
  if (!/^\S+@sha256:[0-9a-f]{64}$/.test(reference)) {
    throw new Error(`image ${image}: ${script} printed "${reference}" where a reference by digest (host/name@sha256:...) was expected; run it by hand with --help to see its contract`);
  }
  return reference;
}
