import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import dockerignore from "@balena/dockerignore";
import type { Builder, ImageSpec } from "./args";

/** Goes into every content hash: raise it when scripts/images/build-image.sh makes a different image of the same content. */
const recipe = 1;

/** Above this many files a preview names folders instead of files. */
const listedFiles = 100;
/** The names travel in one variable of the environment, of which Linux takes 128 KiB. */
const listedBytes = 100_000;

/** One entry of a build context as the builder sees it. */
interface ContextEntry {
  path: string;
  /** `644` or `755` for a file (build-image.sh normalises modes, as git does), `link`, or `dir` for an empty folder. */
  kind: "644" | "755" | "link" | "dir";
}

const sha256 = (data: string | Buffer): string => createHash("sha256").update(data).digest("hex");
/** Order that no locale changes. */
export const byText = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

/**
 * A .dockerignore as a function of a path inside the context (slashes, no leading one): true if the builder leaves the path out.
 * The library follows an older Docker: since then . and $ are not the only letters that mean nothing but themselves.
 */
export function dockerIgnore(text: string): (file: string) => boolean {
  const plain = text.replace(/^\uFEFF/, "").replace(/\\.|\[\^|[+(){}|^]/g, (found) => (found.length > 1 ? found : `\\${found}`));
  const rules = dockerignore({ ignorecase: false }).add(plain);
  return (file) => rules.ignores(file);
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
export function contextEntries(context: string, dockerfile: string): ContextEntry[] {
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

/** Above this many bytes a file is hashed piece by piece, and is no script. */
const wholeBytes = 1 << 20;

/** A file as build-image.sh puts it into the image: a script with the line ends of Windows, which Linux could not start, gets its own. */
function asBuilt(data: Buffer): Buffer {
  if (data.indexOf("#!") !== 0 || data[data.indexOf("\n") - 1] !== 13 || data.includes(0)) return data;
  return Buffer.from(data.toString("latin1").replace(/\r\n/g, "\n").replace(/\r$/, ""), "latin1");
}

/** SHA-256 of what an entry holds: a file's bytes, a link's target, nothing for a folder. Reads a file piece by piece: it may be larger than a buffer can be. */
function entryHash(context: string, entry: ContextEntry): string {
  const full = path.join(context, entry.path);
  if (entry.kind === "dir") return sha256("");
  if (entry.kind === "link") return sha256(fs.readlinkSync(full));
  if (fs.statSync(full).size <= wholeBytes) return sha256(asBuilt(fs.readFileSync(full)));
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
  /** For people who read a preview: mode and short hash by file (by top folder in a context of more than 100 files, as one where those are thousands). */
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
    const inside = new Map<string, typeof entries>();
    for (const e of entries) {
      const those = inside.get(top(e));
      if (those) those.push(e);
      else inside.set(top(e), [e]);
    }
    for (const [folder, those] of inside) {
      files[folder] = `${those.length} ${sha256(JSON.stringify(those)).slice(0, 12)}`;
    }
  }
  if (Buffer.byteLength(JSON.stringify(files)) <= listedBytes) return { hash, files };
  return { hash, files: { [`${entries.length} files`]: sha256(JSON.stringify(entries)).slice(0, 12) } };
}

/** The image's tag: a readable name and the content hash, cut to 12 digits as git and Docker do for people. */
export const imageTag = (name: string, content: ImageContent): string => `${name}-${content.hash.slice(0, 12)}`;
