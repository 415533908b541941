import { pathBelow } from "../../components/agent-images";
import type { Rendered } from "../offline";
import { UsageError } from "../terminal";
import { ArchiveWriter, hashOf, partsOf, type Descriptor } from "./archive";
import { cut, imagesOf, partsOfReference, recipeOf, tagOfBuild, type BuiltImage, type CarriedImage, type Contents } from "./plan";
import { Registry } from "./registry";
import { buildsOf, nodePlatforms, outside, readySite, release, say, withRegistry } from "./site";

export const megabytes = (bytes: number): string => `${Math.round(bytes / 1e6)} MB`;

/** Says now and then how far it is. */
export function meter(all: number, what: string): (bytes: number) => void {
  let [done, since] = [0, Date.now()];
  return (bytes) => {
    done += bytes;
    if (Date.now() - since < 5000) return;
    since = Date.now();
    say(`${what} ${megabytes(done)} of ${megabytes(all)}`);
  };
}

/** A part of an image and where it is fetched. */
interface Source {
  registry: Registry;
  repository: string;
}

/** Gathers what is to be in an archive: manifests at once, blobs by name. */
class Gathering {
  readonly manifests = new Map<string, Buffer>();
  readonly blobs = new Map<string, { descriptor: Descriptor; source: Source }>();

  /** An image and all that it names, for some platforms. */
  async image(name: string, source: Source, reference: string, platforms: string[]): Promise<{ origin: string; carried: Descriptor } | undefined> {
    const found = await source.registry.manifest(source.repository, reference);
    if (found === undefined) return undefined;
    const { descriptor, bytes = found.bytes } = cut(name, { ...found.descriptor, bytes: found.bytes }, platforms);
    const { mediaType, size } = descriptor;
    const carried: Descriptor = { mediaType, digest: bytes === found.bytes ? descriptor.digest : hashOf([bytes]), size };
    if (carried.digest === found.descriptor.digest || bytes !== found.bytes) this.manifests.set(carried.digest, bytes);
    await this.below(source, carried);
    return { origin: found.descriptor.digest, carried };
  }

  private async below(source: Source, descriptor: Descriptor): Promise<void> {
    if (!this.manifests.has(descriptor.digest)) {
      const found = await source.registry.manifest(source.repository, descriptor.digest);
      if (found === undefined) throw new Error(`${source.registry.host} has no ${source.repository}@${descriptor.digest}, which an index of it names`);
      this.manifests.set(descriptor.digest, found.bytes);
    }
    const { manifests = [] } = JSON.parse(this.manifests.get(descriptor.digest)!.toString("utf8")) as { manifests?: Descriptor[] };
    for (const each of manifests) await this.below(source, each);
    if (manifests.length > 0) return;
    for (const blob of partsOf((digest) => this.manifests.get(digest)!, descriptor).blobs) if (!this.blobs.has(blob.digest)) this.blobs.set(blob.digest, { descriptor: blob, source });
  }
}

/** Fetches a blob into the archive; a connection that breaks is tried again. */
async function fetchBlob(archive: ArchiveWriter, descriptor: Descriptor, { registry, repository }: Source): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await archive.blob(descriptor, await registry.blob(repository, descriptor.digest));
    } catch (error) {
      if (attempt >= 3) throw new Error(`blob ${descriptor.digest} of ${registry.host}/${repository}: ${(error as Error).message}`);
    }
  }
}

/**
 * Writes the archive of a stack's images.
 * @param also keys of images that are carried though this stack does not use them
 * @param plainHttp hosts of registries that may be spoken to over plain HTTP
 * @param rendered the resources that its program registers
 */
export async function bundle(name: string, { file, platforms: asked, also, plainHttp, rendered }: { file: string; platforms: string[]; also: string[]; plainHttp: string[]; rendered: Rendered[] }): Promise<void> {
  const { stack, surroundings } = await readySite(name);
  const { config } = stack;
  const unknown = also.filter((key) => !(key in config.images));
  if (unknown.length > 0) throw new UsageError(`--with ${unknown[0]} is no key of images; one of ${Object.keys(config.images).join(", ")}`);
  const { keys: used, further } = imagesOf(rendered, config);
  // A stack behind the gap may have a registry of its own where this one is told of another.
  const keys = [...new Set([...used, ...also, "registry"])].sort();
  const builds = await buildsOf(stack, surroundings);
  const platforms = asked.length > 0 ? asked : await nodePlatforms(stack);
  const registries = new Map<string, Registry>();
  const registryAt = (host: string) => registries.get(host) ?? registries.set(host, outside(stack, surroundings, host, plainHttp)).get(host)!;
  const wanted = [...keys.map((key) => ({ key, reference: config.images[key as keyof typeof config.images] })), ...further.map((reference) => ({ reference }))];
  const hosts = [...new Set(wanted.map(({ reference }) => partsOfReference(reference).host))];
  const idle = plainHttp.filter((host) => !hosts.includes(host));
  if (idle.length > 0) throw new UsageError(`--plain-http ${idle[0]}: no image of the stack is there, only at ${hosts.join(", ")}`);
  const gathering = new Gathering();
  const missing: string[] = [];
  await withRegistry(stack, surroundings, "pull", async (own) => {
    const images: CarriedImage[] = [];
    for (const each of wanted) {
      const { host, path, tag = "latest", digest } = partsOfReference(each.reference);
      // What nodes pull from their own loopback is the stack's own registry.
      const found = await gathering.image(each.reference, { registry: config.imageRegistry && host === config.registry.host ? own : registryAt(host), repository: path }, digest ?? tag, platforms).catch((error: Error) => {
        throw new Error(`${"key" in each ? `images.${each.key} (${each.reference})` : each.reference}: ${error.message}`);
      });
      if (found) images.push({ ...each, ...found });
      else missing.push(`${each.reference} is not there; correct ${"key" in each ? `images.${each.key}` : "what names it"}`);
    }
    const built: BuiltImage[] = [];
    for (const [image, spec] of Object.entries(builds.images)) {
      const tag = tagOfBuild(image, spec, builds);
      const found = await gathering.image(image, { registry: own, repository: pathBelow(config.registry.prefix, image) }, tag, []);
      if (found) built.push({ name: image, carried: found.carried, recipe: recipeOf(spec) });
      else missing.push(`image ${image} of this content (tag ${tag}) is not in the registry; npm run up -- ${name} builds it`);
    }
    if (missing.length > 0) throw new Error(`there is no bundle of stack ${name} yet:\n${missing.map((line) => `  - ${line}`).join("\n")}`);
    const archive = new ArchiveWriter(file, (digest) => gathering.blobs.has(digest) || gathering.manifests.has(digest));
    try {
      const blobs = [...gathering.blobs.values()];
      const all = blobs.reduce((sum, { descriptor: { size } }) => sum + size, 0);
      say(`${images.length} upstream images and ${built.length} of the stack's own for ${platforms.join(", ")}: ${blobs.length} blobs, ${megabytes(all)}`);
      const tell = meter(all, "fetched");
      for (const { descriptor, source } of blobs) {
        await fetchBlob(archive, descriptor, source);
        tell(descriptor.size);
      }
      for (const [digest, bytes] of gathering.manifests) await archive.blob({ digest, size: bytes.length }, [bytes]);
      const contents: Contents = { version: 1, release: release(), stack: name, platforms, images, built };
      const refName = (text: string) => ({ "org.opencontainers.image.ref.name": text });
      await archive.finish([...images.map(({ reference, carried }) => ({ ...carried, annotations: refName(reference) })), ...built.map((each) => ({ ...each.carried, annotations: refName(each.name) }))], { "bundle.json": contents });
    } catch (error) {
      archive.close();
      throw new Error(`${(error as Error).message}\nWhat was fetched stays in ${file}.part; the same command goes on from there`);
    }
  });
  say(`${file} is whole. Behind the gap: npm run bundle -- load ${file} STACK`);
}
