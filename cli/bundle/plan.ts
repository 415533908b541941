import { imageContent, imageTag, pathBelow, type AgentImagesArgs, type ImageSpec } from "../../components/agent-images";
import { inFull } from "../../components/mirrors";
import type { PlatformConfig } from "../../config";
import { kindOf, type Rendered } from "../offline";
import type { Descriptor, Manifest } from "./archive";

/** What belongs into a bundle, and what becomes of it behind the gap: decided without registry, cluster or file. */

/** An upstream image in a bundle. */
export interface CarriedImage {
  /** Its key in `images`; without one it stands somewhere else in the config. */
  key?: string;
  /** As the stack names it that the bundle is of. */
  reference: string;
  /** What its reference or its tag led to, and what of it is in the bundle: less where it was for further platforms. */
  origin: string;
  carried: Descriptor;
}

/** An image of the platform's own in a bundle, with all that its content is made of. */
export interface BuiltImage {
  name: string;
  carried: Descriptor;
  recipe: Recipe;
}

/** bundle.json: what an archive holds. */
export interface Contents {
  version: 1;
  /** Version of the repository that made it. */
  release: string;
  stack: string;
  platforms: string[];
  images: CarriedImage[];
  built: BuiltImage[];
}

/** What an image is made of, wherever its base images come from and whatever builds it. */
export interface Recipe {
  /** Of each build argument the text, of a base image its digest. */
  args: Record<string, string>;
  files: Record<string, string>;
  hash: string;
}

/** The images that a program refers to. */
export interface Named {
  /** Keys of `images`. */
  keys: string[];
  /** Those of them that only a build would need. */
  spare: string[];
  /** Full references that are none of them and are not built. */
  further: string[];
  /** References that pods need before the stack's own registry runs. */
  seeds: string[];
}

/** Components that stand before the stack's own registry, and itself. */
const before = ["NodePortRange", "OpenEbsStorage", "ImageRegistry"];

/** All texts of a value, with those that an `image` field holds told apart. */
function texts(value: unknown, see: (text: string, isImage: boolean) => void, key = ""): void {
  if (typeof value === "string") see(value, key === "image");
  else if (typeof value === "object" && value !== null) for (const [name, inner] of Object.entries(value)) texts(inner, see, Array.isArray(value) ? key : name);
}

const word = (text: string): RegExp => new RegExp(`(?<![\\w./:@-])${text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}(?![\\w./:@-])`);

/**
 * The images that the objects of a program refer to, by a field `image` or in a text (a pod template of Jenkins, a variable), and
 * those that its own are built from: commands say nothing where they hold a log-in.
 */
export function imagesOf(resources: Rendered[], { images, builds, registry: { host, prefix }, imageBuild: { builder } }: Pick<PlatformConfig, "images" | "builds" | "registry" | "imageBuild">): Named {
  const known = Object.entries(images).map(([key, reference]) => ({ key, reference, pattern: word(reference) }));
  const hitsOf = (text: string) => known.filter(({ pattern }) => pattern.test(text));
  const repositories = Object.keys(builds).map((name) => `${host}/${pathBelow(prefix, name)}`);
  const bases = Object.values(builds).flatMap(({ args = {} }) => Object.values(args)).flatMap((text) => hitsOf(text).map(({ key }) => key));
  const [keys, further, seeds] = [new Set(bases), new Set<string>(), new Set<string>()];
  for (const { type, props, component } of resources) {
    // A policy judges pods, and runs none.
    if (!type.startsWith("kubernetes:") || kindOf(type) === "ValidatingAdmissionPolicy") continue;
    texts(props, (text, isImage) => {
      const hits = hitsOf(text);
      for (const { key } of hits) keys.add(key);
      const named = isImage ? [text] : [...text.matchAll(/(?:^|[\s{,-])"?image"?:\s*["']?([^\s"',}]+)/g)].map(([, reference]) => reference);
      for (const reference of named) {
        if (!/^[a-z0-9[]/.test(reference) || Object.values(images).includes(reference) || repositories.some((repository) => reference.startsWith(`${repository}@`))) continue;
        further.add(reference);
      }
      if (component && before.includes(component.name)) [...hits.map(({ reference }) => reference), ...(isImage ? [text] : [])].forEach((reference) => seeds.add(reference));
    });
  }
  const spare = builder === "in-cluster" && !keys.has("buildkit") ? ["buildkit"] : [];
  return { keys: [...keys, ...spare].sort(), spare, further: [...further].sort(), seeds: [...seeds].sort() };
}

/** A reference in its parts, Docker's short forms in full. */
export function partsOfReference(reference: string): { host: string; path: string; tag?: string; digest?: string } {
  const [, name, tag, digest] = /^(.+?)(?::([\w][\w.-]{0,127}))?(?:@(sha256:[0-9a-f]{64}))?$/.exec(reference) ?? [];
  if (name === undefined) throw new Error(`"${reference}" is no reference of an image, such as docker.io/library/maven:3.9`);
  const [host, path] = inFull(name);
  return { host, path, ...(tag !== undefined && { tag }), ...(digest !== undefined && { digest }) };
}

/** The repository of an image in the registry behind the gap, without the host: the same for whichever registry it comes from. */
export const repositoryOf = (reference: string, prefix: string): string => pathBelow(prefix, partsOfReference(reference).path);

const digestTag = (digest: string): string => `sha256-${digest.slice(7, 19)}`;

/** Its tag there: its own, or one that keeps it from being taken for unused. */
const tagOf = (reference: string, digest: string): string => partsOfReference(reference).tag ?? digestTag(digest);

/** An image and its place in the registry behind the gap. */
export interface Place extends CarriedImage {
  repository: string;
  tag: string;
  /** How pods name it there. */
  name: string;
}

/** Where images go. Where one tag would be two images', of registries with the same paths, both have their digests for it. @param host where nodes pull from */
export function placesOf(images: CarriedImage[], { host, prefix }: { host: string; prefix: string }): Place[] {
  const places = images.map((image) => ({ ...image, repository: repositoryOf(image.reference, prefix), tag: tagOf(image.reference, image.carried.digest) }));
  return places.map((place) => {
    const { repository, carried: { digest } } = place;
    const shared = places.some((other) => other.repository === repository && other.tag === place.tag && other.carried.digest !== digest);
    const tag = shared ? digestTag(digest) : place.tag;
    return { ...place, tag, name: `${host}/${repository}:${tag}@${digest}` };
  });
}

const platformText = ({ os, architecture, variant }: NonNullable<Descriptor["platform"]>): string => [os, architecture, ...(variant ? [variant] : [])].join("/");

/**
 * What is carried of an index: its manifests for some platforms. Registries refuse an index of which a part is missing, so that of
 * several an index of its own is made, and of a single one that manifest alone.
 * @returns the descriptor itself where nothing is left out, else the one manifest or the new index's text
 * @throws where a platform is missing
 */
export function cut(reference: string, index: Descriptor & { bytes: Buffer }, platforms: string[]): { descriptor: Descriptor; bytes?: Buffer } {
  const { manifests = [], ...rest } = JSON.parse(index.bytes.toString("utf8")) as Manifest & Record<string, unknown>;
  const { bytes: _, ...descriptor } = index;
  const real = manifests.filter(({ platform }) => platform !== undefined && platform.os !== "unknown");
  if (manifests.length === 0 || platforms.length === 0) return { descriptor };
  const wanted = platforms.map((platform) => ({ platform, found: real.filter((each) => platformText(each.platform!) === platform || platformText(each.platform!).startsWith(`${platform}/`)) }));
  const missing = wanted.filter(({ found }) => found.length === 0).map(({ platform }) => platform);
  if (missing.length > 0) throw new Error(`${reference} has nothing for ${missing.join(", ")}, only for ${[...new Set(real.map(({ platform }) => platformText(platform!)))].join(", ")}; name other platforms with --platform`);
  const kept = real.filter((each) => wanted.some(({ found }) => found.includes(each)));
  if (kept.length === manifests.length) return { descriptor };
  if (kept.length === 1) return { descriptor: kept[0] };
  const bytes = Buffer.from(JSON.stringify({ ...rest, manifests: kept }));
  return { descriptor: { ...descriptor, size: bytes.length }, bytes };
}

/** A base image that an argument names, by its digest; any other text as it is. */
const digestIn = (text: string, origins: Map<string, string>): string => {
  const digest = /^\S+@(sha256:[0-9a-f]{64})$/.exec(text)?.[1];
  return digest === undefined ? text : (origins.get(digest) ?? digest);
};

/** Arguments that say where something comes from, and nothing of what it is. */
const isWay = (arg: string): boolean => /^MIRROR_/.test(arg) || arg === "JAVA_TOOL_OPTIONS";

/**
 * What an image is made of, the same in front of the gap and behind it: without mirrors, proxy, builder and platforms.
 * @param origins the digest that a base image has where it comes from, by the one that it has behind the gap
 */
export function recipeOf(spec: ImageSpec, origins = new Map<string, string>()): Recipe {
  const args = Object.fromEntries(Object.entries(spec.args ?? {}).filter(([arg]) => !isWay(arg)).map(([arg, text]) => [arg, digestIn(text, origins)]));
  const { hash, files } = imageContent({ ...spec, args }, "buildah");
  return { args, files, hash };
}

/** What tells two recipes apart, in words; nothing where they are the same. */
export function recipeDifferences(bundle: Recipe, stack: Recipe): string[] {
  if (bundle.hash === stack.hash) return [];
  const differ = (what: string, a: Record<string, string>, b: Record<string, string>) =>
    [...new Set([...Object.keys(a), ...Object.keys(b)])].filter((key) => a[key] !== b[key]).sort().map((key) => `${what} ${key} is ${a[key] === undefined ? "not there" : `"${a[key]}"`} in the bundle and ${b[key] === undefined ? "not there" : `"${b[key]}"`} in the stack`);
  const all = [...differ("argument", bundle.args, stack.args), ...differ("file", bundle.files, stack.files)];
  return all.length > 0 ? all : ["its Dockerfile has another name"];
}

/**
 * What keeps a stack behind the gap from using a bundle, but for what it builds.
 * @param places the bundle's images
 * @param named what the stack's program refers to with these images
 * @param here version of this repository, and the platforms of the cluster's nodes and of its builds
 */
export function loadProblems({ stack: origin, release, platforms }: Contents, places: Place[], named: Named, here: { release: string; platforms: string[] }): string[] {
  const keys = new Set(places.map(({ key }) => key));
  const alone = [...new Set(here.platforms)].sort().filter((platform) => !platforms.some((each) => each === platform || each.startsWith(`${platform}/`)));
  return [
    ...(release === here.release ? [] : [`it is of version ${release} of this repository, and this is ${here.release}: use the same one on both sides`]),
    ...(alone.length > 0 ? [`it is for ${platforms.join(", ")}, and not for ${alone.join(", ")}, which the nodes or imageBuild.platforms are: make it again with ${[...platforms, ...alone].map((platform) => `--platform ${platform}`).join(" ")}`] : []),
    ...named.keys.filter((key) => !keys.has(key) && !named.spare.includes(key)).map((key) => `images.${key} is used, and not in the bundle: set in stack ${origin} what asks for it here (such as backup), and make the bundle again`),
    ...named.further.filter((reference) => !places.some(({ name }) => name === reference)).map((reference) => {
      const there = places.find((image) => image.reference === reference);
      return there ? `${reference} lies outside: write ${there.name} in its place` : `${reference} lies outside, and is not in the bundle: use it in stack ${origin} as well, and make the bundle again`;
    }),
  ];
}

/** The tag that a stack's program asks its registry for. */
export const tagOfBuild = (name: string, spec: ImageSpec, { builder, platforms }: Pick<AgentImagesArgs, "builder" | "platforms">): string => imageTag(name, imageContent(spec, builder, platforms));

/** The digest that base images have where they come from, by the one that they have in a bundle. */
export const originsOf = ({ images }: Pick<Contents, "images">): Map<string, string> => new Map(images.map(({ origin, carried }) => [carried.digest, origin]));
