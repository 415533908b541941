import * as fs from "node:fs";
import { renderStack } from "../offline";
import { UsageError } from "../terminal";
import { Archive, ArchiveWriter, partsOf, type Descriptor } from "./archive";
import { imagesOf, loadPlan, originsOf, placed, recipeDifferences, recipeOf, repositoryOf, tagOf, tagOfBuild, type Contents } from "./plan";
import type { Registry } from "./registry";
import { bringUpRegistry, buildsOf, pushable, readySite, say, seed, seedings, withImages, withRegistry, writeImages, type Seeding } from "./site";
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
const byHand = ({ node }: Seeding, file: string): string => `  ${node}: ssh root@${node} ctr -n k8s.io images import - <${file}`;

async function seedNodes(nodes: Seeding[], file: string, seeded: boolean): Promise<void> {
  for (const each of nodes) {
    if (each.command === undefined) continue;
    await seed({ node: each.node, command: each.command }, file);
    say(`node ${each.node} has the registry's own images`);
  }
  const open = nodes.filter(({ command }) => command === undefined);
  if (open.length === 0 || seeded) return void fs.rmSync(file);
  throw new Error(`these nodes are not reached from here, or run another container runtime than containerd. Give --node NAME=USER@HOST, or put ${file} on each of them yourself, with CRI-O by its own means, and go on with --seeded:\n${open.map((each) => byHand(each, file)).join("\n")}`);
}

/** Puts an archive into the registry of a stack, and leads the stack to it. */
export async function load(file: string, name: string, { yes, seeded, nodes }: { yes: boolean; seeded: boolean; nodes: Record<string, string> }): Promise<void> {
  const archive = new Archive(file);
  try {
    archive.verify(meter(archive.size, "checked"));
    const contents = archive.json("bundle.json") as Contents;
    if (contents.version !== 1) throw new Error(`${file} is of a newer version of this repository; use that one here as well`);
    say(`${file} is sound: ${contents.images.length} upstream images and ${contents.built.length} of stack ${contents.stack}'s own for ${contents.platforms.join(", ")}, ${megabytes(archive.size)}`);

    const { registry: { host, prefix } } = (await readySite(name)).stack.config;
    const places = contents.images.map((image) => ({ ...image, name: placed(image, host, prefix) }));
    const images = Object.fromEntries(places.flatMap(({ key, name: place }) => (key === undefined ? [] : [[key, place]])));
    const over = { images: withImages(name, images) };
    const { stack, surroundings } = await readySite(name, over);
    const named = imagesOf(await renderStack(name, undefined, over), stack.config);
    const { problems } = loadPlan(contents, named, { host, prefix });
    const builds = await buildsOf(stack, surroundings);
    const built = Object.entries(builds.images).flatMap(([image, spec]): Push[] => {
      const found = contents.built.find((each) => each.name === image);
      const differences = found ? recipeDifferences(found.recipe, recipeOf(spec, originsOf(contents))) : [`it is not in the bundle: let stack ${contents.stack} build it as well`];
      problems.push(...differences.map((each) => `image ${image}: ${each}`));
      return found ? [{ repository: repositoryOf(`${host}/${image}`, prefix), tag: tagOfBuild(image, spec, builds), carried: found.carried }] : [];
    });
    if (problems.length > 0) throw new Error(`stack ${name} is not what stack ${contents.stack} was when ${file} was made; nothing was changed:\n${problems.map((line) => `  - ${line}`).join("\n")}`);
    const all: Push[] = [...places.map(({ reference, carried }) => ({ repository: repositoryOf(reference, prefix), tag: tagOf(reference, carried.digest), carried })), ...built];

    const setImages = () => {
      const changed = writeImages(name, images);
      say(changed > 0 ? `${changed} keys of images are set in Pulumi.${name}.yaml` : `images of Pulumi.${name}.yaml are set already`);
    };
    if (stack.config.imageRegistry) {
      // It takes the copies that the config names, and runs from one of them.
      setImages();
      const here = await seedings(stack, nodes);
      const seeds = places.filter((place) => named.seeds.includes(place.name));
      await writeSeeds(archive, seeds, `${file}.seeds.tar`);
      await seedNodes(here, `${file}.seeds.tar`, seeded);
      const taken = await pushable(stack);
      if (all.some(({ repository }) => !taken.includes(repository))) {
        if (!yes && !process.stdin.isTTY) throw new UsageError("the registry comes up first, and nobody can be asked here; --yes does so without a question");
        await bringUpRegistry(name, yes);
      }
    }
    const tell = meter(archive.size, "pushed");
    const sent = new Map<string, string>();
    await withRegistry(stack, surroundings, "push", async (registry) => {
      for (const each of all) await push(archive, registry, each, sent, tell);
    });
    if (!stack.config.imageRegistry) setImages();
    say(`${all.length} images are in ${host}. Now: npm run up -- ${name}`);
  } finally {
    archive.close();
  }
}
