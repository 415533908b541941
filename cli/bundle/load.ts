import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { pathBelow } from "../../components/agent-images";
import { renderStack } from "../offline";
import { UsageError } from "../terminal";
import { Archive, ArchiveWriter, partsOf, type Descriptor } from "./archive";
import { imagesOf, loadProblems, originsOf, placesOf, recipeDifferences, recipeOf, tagOfBuild, type Contents, type Place } from "./plan";
import { RegistryError, type Registry } from "./registry";
import { bringUpRegistry, buildsOf, changedImages, nodePlatforms, ofContainerd, readySite, release, runningRegistry, say, seed, seedings, soundStack, withImages, withRegistry, writeImages, type Seeding } from "./site";
import { megabytes, meter } from "./write";

/** An image to push, by its manifest. */
export interface Push {
  repository: string;
  tag: string;
  carried: Descriptor;
}

/** Puts an image there with everything that it names, each part once; a tag comes behind all that it stands for, so that one that is there says that all of it is. */
export async function push(archive: Archive, registry: Registry, { repository, tag, carried }: Push, sent: Map<string, string>, tell: (bytes: number) => void): Promise<void> {
  if ((await registry.manifest(repository, tag))?.descriptor.digest === carried.digest) return;
  const { manifests, blobs } = partsOf((digest) => archive.manifest(digest), carried);
  for (const blob of blobs) {
    const from = sent.get(blob.digest);
    if (from === repository) continue;
    if (await registry.putBlob(repository, blob, () => archive.blob(blob.digest), from)) tell(blob.size);
    sent.set(blob.digest, from ?? repository);
  }
  for (const { digest, mediaType } of manifests) await registry.putManifest(repository, digest === carried.digest ? tag : digest, mediaType, archive.manifest(digest));
}

/**
 * Pushes all of them; where the way to the registry breaks, or the registry has a weak moment, goes on with the same image by a new way.
 * @param withNew does something with the registry by a way of its own
 */
export async function pushAll(archive: Archive, all: Push[], withNew: (work: (registry: Registry) => Promise<void>) => Promise<void>): Promise<void> {
  const [open, sent, tell] = [[...all], new Map<string, string>(), meter(archive.size, "pushed")];
  for (let attempt = 1; open.length > 0; attempt++) {
    try {
      await withNew(async (registry) => {
        for (; open.length > 0; open.shift()) {
          await push(archive, registry, open[0], sent, tell);
          attempt = 1;
        }
      });
    } catch (error) {
      if (attempt >= 3 || (error instanceof RegistryError && error.status < 500)) throw error;
      await pause(attempt * 1000);
    }
  }
}

/** The archive of what has to be on the nodes before the registry runs, each image by the names that pods have for it. */
export async function writeSeeds(archive: Archive, images: { name: string; carried: Descriptor }[], file: string): Promise<void> {
  const writer = new ArchiveWriter(file);
  for (const { carried } of images) {
    const { manifests, blobs } = partsOf((digest) => archive.manifest(digest), carried);
    for (const { digest, size } of [...blobs, ...manifests]) await writer.blob({ digest, size }, archive.blob(digest));
  }
  // The container runtime looks for what has tag and digest by the digest.
  const names = (name: string) => [name.replace(/@.*/, ""), name.replace(/:[\w][\w.-]*@/, "@")];
  await writer.finish(images.flatMap(({ name, carried }) => names(name).map((each) => ({ ...carried, annotations: { "io.containerd.image.name": each, "org.opencontainers.image.ref.name": each } }))));
}

/** What a person does for a node that this machine has no way to. */
const byHand = (seeding: Seeding, file: string): string => `  ${seeding.node}: ${ofContainerd(seeding) ? `ssh root@${seeding.node} ctr -n k8s.io images import - <${file}` : `by the means of ${seeding.runtime}`}`;

/** Puts what has to be there before the registry runs on nodes. @throws with what is left for a person to do, unless that is done */
async function seedNodes(archive: Archive, seeds: Place[], nodes: Seeding[], seeded: boolean): Promise<void> {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "seeds-"));
  const file = path.join(folder, "seeds.tar");
  const open = seeded ? [] : nodes.filter(({ command }) => command === undefined);
  let kept = false;
  try {
    await writeSeeds(archive, seeds, file);
    for (const { node, command } of nodes) {
      if (command === undefined) continue;
      await seed({ node, command }, file);
      say(`node ${node} has the registry's own images`);
    }
    kept = open.length > 0;
    if (kept) throw new Error(`these nodes are not reached from here, or run another container runtime than containerd. Give --node NAME=USER@HOST, or put ${file} on each of them yourself, and go on with --seeded:\n${open.map((each) => byHand(each, file)).join("\n")}`);
  } finally {
    if (!kept) fs.rmSync(folder, { recursive: true });
  }
}

/** Puts an archive into the registry of a stack, and leads the stack to it. */
export async function load(file: string, name: string, { yes, seeded, nodes }: { yes: boolean; seeded: boolean; nodes: Record<string, string> }): Promise<void> {
  const archive = new Archive(file);
  try {
    archive.verify(meter(archive.size, "checked"));
    const contents = archive.json("bundle.json") as Contents;
    if (contents.version !== 1) throw new Error(`${file} is of a newer version of this repository; use that one here as well`);
    say(`${file} is sound: ${contents.images.length} upstream images and ${contents.built.length} of stack ${contents.stack}'s own for ${contents.platforms.join(", ")}, ${megabytes(archive.size)}`);

    const at = (await soundStack(name)).config.registry;
    const places = placesOf(contents.images, at);
    const images = Object.fromEntries(places.flatMap(({ key, name: place }) => (key === undefined ? [] : [[key, place]])));
    const over = { images: withImages(name, images) };
    const { stack, surroundings } = await readySite(name, over);
    const { config } = stack;
    const named = imagesOf(await renderStack(name, undefined, over), config);
    const problems = loadProblems(contents, places, named, { release: release(), platforms: [...(await nodePlatforms(stack)), ...config.imageBuild.platforms] });
    const builds = await buildsOf(stack, surroundings);
    const built = Object.entries(builds.images).flatMap(([image, spec]): Push[] => {
      const found = contents.built.find((each) => each.name === image);
      const differences = found ? recipeDifferences(found.recipe, recipeOf(spec, originsOf(contents))) : [`it is not in the bundle: let stack ${contents.stack} build it as well`];
      problems.push(...differences.map((each) => `image ${image}: ${each}`));
      return found ? [{ repository: pathBelow(at.prefix, image), tag: tagOfBuild(image, spec, builds), carried: found.carried }] : [];
    });
    if (problems.length > 0) throw new Error(`stack ${name} cannot use ${file}, made of stack ${contents.stack}; nothing was changed:\n${problems.map((line) => `  - ${line}`).join("\n")}`);
    // What this stack does not name its registry would not take.
    const all: Push[] = [...places.filter(({ key, name: place }) => key !== undefined || named.further.includes(place)), ...built];

    const setImages = () => {
      const changed = writeImages(name, images);
      say(changed > 0 ? `${changed} keys of images are set in Pulumi.${name}.yaml` : `images of Pulumi.${name}.yaml are set already`);
    };
    if (config.imageRegistry) {
      const there = await runningRegistry(stack);
      const comes = !there.serves || all.some(({ repository }) => !there.repositories.includes(repository));
      if (comes && !yes && !process.stdin.isTTY) throw new UsageError(`${there.serves ? "the registry runs, and its push token is not for all of the images: it is renewed first" : "the registry does not run, and comes up first"}; nobody can be asked here, and --yes does so without a question`);
      const seeds = places.filter((place) => named.seeds.includes(place.name));
      const changed = changedImages(name, images);
      const fresh = !there.serves || seeds.some(({ key }) => key !== undefined && changed.includes(key));
      const bare = (await seedings(stack, nodes)).filter(({ node }) => fresh || !there.nodes.includes(node));
      if (bare.length > 0) await seedNodes(archive, seeds, bare, seeded);
      // It takes the copies that the config names, and runs from one of them. Set behind the seeds, so that a run that was cut off is taken up with them.
      setImages();
      if (comes) await bringUpRegistry(name, { yes, refresh: !there.serves });
    }
    await pushAll(archive, all, (work) => withRegistry(stack, surroundings, "push", work));
    if (!config.imageRegistry) setImages();
    say(`${all.length} images are in ${at.host}. Now: npm run up -- ${name}`);
  } finally {
    archive.close();
  }
}
