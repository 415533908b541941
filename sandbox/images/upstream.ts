/** Takes the sandbox's images from where they are published; the stand-ins are for those that cannot be had from here. */
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { run } from "../shell";
import type { BuiltImage } from "./index";

/** Where the images come from: each that can be pulled and stand-ins for the rest, upstream alone, or stand-ins alone. */
export const imageSources = ["auto", "upstream", "stand-ins"] as const;
export type ImageSource = (typeof imageSources)[number];

/** Debian packages that pulling takes. */
export const PULL_PACKAGES = ["ca-certificates", "curl", "skopeo"];

/** An image of images/upstream.json. */
export interface Pin {
  image: string;
  tag: string;
  digest?: string;
}

/** An image that may be pulled. */
export interface Wanted {
  /** Folder name of its stand-in below sandbox/images. */
  name: string;
  pin: Pin;
  /** Another one of these that speaks a protocol of its own with it: both are upstream's, or neither. */
  pair?: string;
  /** An address without which it is of no use. */
  needs?: string;
}

/** What a part of the sandbox is; `why` says why it is a stand-in. */
export interface Origin {
  part: string;
  upstream: string;
  why?: string;
}

/** Its name where the registry does not matter, and with its tag. */
export const repositoryOf = ({ image }: Pin): string => image.replace(/^[^/]+\//, "");
export const tagged = ({ image, tag }: Pin): string => `${image}:${tag}`;

const reference = ({ image, tag, digest }: Pin): string => (digest ? `${image}@${digest}` : tagged({ image, tag }));

/** What of an error a person needs, in one line: programs that pull put it last. */
export const lastWords = (error: unknown): string =>
  (error instanceof Error ? error.message : String(error)).trim().split("\n").at(-1)!.replace(/^.*level=fatal msg="?|^ *error: /, "").replace(/"$/, "").trim();

/** Reasons by image name, with those of images whose pair cannot be had. */
export function withPairs(wanted: Wanted[], reasons: Record<string, string>): Record<string, string> {
  const all = { ...reasons };
  for (const { name, pair } of wanted) {
    if (pair === undefined) continue;
    for (const [one, other] of [[name, pair], [pair, name]]) if (reasons[other] !== undefined) all[one] ??= `goes with ${other}, which is a stand-in`;
  }
  return all;
}

/**
 * Pulls each image into a folder of its own in the cache, two at a time; one that is there is not asked for again.
 * @param folder of the cache
 * @returns those that were had, ready to be pushed, and where every one comes from
 */
export async function pullUpstream(wanted: Wanted[], folder: string, log: (line: string) => void): Promise<{ images: BuiltImage[]; origins: Origin[] }> {
  const found: Record<string, BuiltImage> = {};
  const reasons: Record<string, string> = {};
  const waiting = [...wanted];
  const worker = async (): Promise<void> => {
    for (let next = waiting.shift(); next; next = waiting.shift()) {
      try {
        if (next.needs) await run("curl", ["-sSfL", "--max-time", "20", "-o", "/dev/null", next.needs]);
        found[next.name] = await pull(next, folder, log);
      } catch (error) {
        reasons[next.name] = lastWords(error);
      }
    }
  };
  await Promise.all([worker(), worker()]);
  const all = withPairs(wanted, reasons);
  return {
    images: wanted.flatMap(({ name }) => (all[name] === undefined ? [found[name]] : [])),
    origins: wanted.map(({ name, pin }) => ({ part: name, upstream: tagged(pin), ...(all[name] !== undefined && { why: all[name] }) })),
  };
}

async function pull({ name, pin }: Wanted, folder: string, log: (line: string) => void): Promise<BuiltImage> {
  const source = reference(pin);
  const layout = path.join(folder, createHash("sha256").update(source).digest("hex").slice(0, 16));
  if (!fs.existsSync(layout)) {
    // Asked first with a bound: a registry that nothing leads to may leave a connection hanging.
    await run("skopeo", ["--command-timeout", "20s", "inspect", "--raw", `docker://${source}`]);
    const started = Date.now();
    log(`${name}: pulling ${source}`);
    fs.rmSync(`${layout}.part`, { recursive: true, force: true });
    fs.mkdirSync(folder, { recursive: true });
    await run("skopeo", ["copy", "--quiet", "--retry-times", "3", `docker://${source}`, `oci:${layout}.part`]);
    fs.renameSync(`${layout}.part`, layout);
    log(`${name}: pulled in ${((Date.now() - started) / 1000).toFixed(1)} s`);
  }
  const index = JSON.parse(fs.readFileSync(path.join(layout, "index.json"), "utf8")) as { manifests: { digest: string; size: number }[] };
  const [{ digest, size }] = index.manifests;
  return { name, repository: repositoryOf(pin), tag: pin.tag, digest, bytes: size, layout };
}

/** The table of what is real, for people. */
export function originTable(origins: Origin[]): string {
  const width = Math.max(...origins.map(({ part }) => part.length));
  return origins.map(({ part, upstream, why }) => `${part.padEnd(width)}  ${why === undefined ? upstream : `stand-in for ${upstream}: ${why}`}\n`).join("");
}
