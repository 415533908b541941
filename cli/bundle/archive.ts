import { createHash } from "node:crypto";
import * as fs from "node:fs";

/**
 * An OCI image layout in one tar file, written so that it can be taken up again where it was cut off, and checked when it is read:
 * blobs by their digests, and the file by what stands at its end. Nothing here knows what the images are for.
 */

/** Where one file of an archive lies. */
interface Place {
  name: string;
  offset: number;
  size: number;
}

/** What names a blob or a manifest, as the OCI image specification has it. */
export interface Descriptor {
  mediaType: string;
  digest: string;
  size: number;
  platform?: { os: string; architecture: string; variant?: string };
  annotations?: Record<string, string>;
}

const block = 512;
const padded = (size: number): number => Math.ceil(size / block) * block;
const blobName = (digest: string): string => `blobs/${digest.replace(":", "/")}`;
const digestOf = (name: string): string | undefined => (/^blobs\/sha256\/[0-9a-f]{64}$/.test(name) ? `sha256:${name.slice(-64)}` : undefined);
/** The digests of the files that are no blobs, as sha256sum has them. */
const sumsName = "SHA256SUMS";
/** The largest file whose size a tar header has room for. */
const most = 8 ** 11 - 1;

/** A header of the format ustar. The same file has the same one: no time, owner or machine stands in it. */
function header(name: string, size: number): Buffer {
  const bytes = Buffer.alloc(block);
  const put = (text: string, at: number) => void bytes.write(text, at, "latin1");
  [[name, 0], ["0000644\0", 100], ["0000000\0", 108], ["0000000\0", 116], [`${size.toString(8).padStart(11, "0")}\0`, 124], ["00000000000\0", 136], ["        ", 148], ["0", 156], ["ustar\x0000", 257]].forEach(([text, at]) => put(text as string, at as number));
  put(`${bytes.reduce((sum, byte) => sum + byte, 0).toString(8).padStart(6, "0")}\0 `, 148);
  return bytes;
}

/** The name and size that a header gives; undefined where it is none. */
function parsed(bytes: Buffer): { name: string; size: number } | undefined {
  const text = (at: number, length: number) => bytes.toString("latin1", at, at + length).replace(/\0.*$/s, "");
  const sum = bytes.reduce((all, byte, at) => all + (at >= 148 && at < 156 ? 32 : byte), 0);
  return text(257, 5) === "ustar" && parseInt(text(148, 8), 8) === sum ? { name: text(0, 100), size: parseInt(text(124, 12), 8) } : undefined;
}

/** The files of a tar as far as they are whole, where the last one ends, and whether the tar's own end follows. */
function scan(fd: number): { places: Place[]; end: number; complete: boolean } {
  const places: Place[] = [];
  const length = fs.fstatSync(fd).size;
  const bytes = Buffer.alloc(block);
  let at = 0;
  for (;;) {
    if (at + block > length || fs.readSync(fd, bytes, 0, block, at) < block) return { places, end: at, complete: false };
    if (bytes.every((byte) => byte === 0)) return { places, end: at, complete: at + 2 * block <= length };
    const found = parsed(bytes);
    if (found === undefined || at + block + padded(found.size) > length) return { places, end: at, complete: false };
    places.push({ ...found, offset: at + block });
    at += block + padded(found.size);
  }
}

/** The bytes of a file of an archive, piece by piece. */
function* pieces(fd: number, { offset, size }: Place): Generator<Buffer> {
  for (let done = 0; done < size; ) {
    const piece = Buffer.alloc(Math.min(1 << 20, size - done));
    const read = fs.readSync(fd, piece, 0, piece.length, offset + done);
    if (read === 0) return;
    yield piece.subarray(0, read);
    done += read;
  }
}

/** The digest of bytes. */
export function hashOf(data: Iterable<Buffer>): string {
  const hash = createHash("sha256");
  for (const piece of data) hash.update(piece);
  return `sha256:${hash.digest("hex")}`;
}

/** Writes an archive under its name with .part behind it, and gives it its own name when it is whole. What a former run wrote there and is sound, stays. */
export class ArchiveWriter {
  private readonly fd: number;
  private readonly part: string;
  private readonly had = new Set<string>();
  private end = 0;
  private open = true;

  /** @param wanted which blobs of a former run are kept */
  constructor(private readonly file: string, wanted: (digest: string) => boolean = () => true) {
    this.part = `${file}.part`;
    this.fd = fs.openSync(this.part, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o644);
    for (const place of scan(this.fd).places) {
      // What is no blob is written at the end, anew.
      const digest = digestOf(place.name);
      if (digest === undefined || hashOf(pieces(this.fd, place)) !== digest) break;
      if (!wanted(digest)) continue;
      this.moveUp(place);
      this.had.add(digest);
    }
    fs.ftruncateSync(this.fd, this.end);
  }

  /** Whether the archive has a blob already. */
  has = (digest: string): boolean => this.had.has(digest);

  /** Adds a blob, each once. @throws where its bytes are not those that its digest names; the archive is then as before */
  async blob({ digest, size }: Pick<Descriptor, "digest" | "size">, data: AsyncIterable<Buffer> | Iterable<Buffer>): Promise<void> {
    if (this.has(digest)) return;
    if (digestOf(blobName(digest)) === undefined) throw new Error(`${digest} is no digest of SHA-256, the only kind that an archive takes`);
    const hash = createHash("sha256");
    await this.write(blobName(digest), size, data, (piece) => hash.update(piece));
    const found = `sha256:${hash.digest("hex")}`;
    if (found !== digest) {
      fs.ftruncateSync(this.fd, (this.end -= block + padded(size)));
      throw new Error(`what was sent for blob ${digest} has the digest ${found}`);
    }
    this.had.add(digest);
  }

  /** Ends the archive: the manifests that it is asked for by, and further files. */
  async finish(manifests: Descriptor[], files: Record<string, unknown> = {}): Promise<void> {
    const index = { schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", manifests };
    let sums = "";
    for (const [name, content] of Object.entries({ "oci-layout": { imageLayoutVersion: "1.0.0" }, "index.json": index, ...files })) {
      const bytes = Buffer.from(JSON.stringify(content));
      await this.write(name, bytes.length, [bytes]);
      sums += `${hashOf([bytes]).slice(7)}  ${name}\n`;
    }
    // Blobs have theirs in their names.
    await this.write(sumsName, sums.length, [Buffer.from(sums)]);
    fs.writeSync(this.fd, Buffer.alloc(2 * block), 0, 2 * block, this.end);
    fs.fsyncSync(this.fd);
    this.close();
    fs.renameSync(this.part, this.file);
  }

  close(): void {
    if (this.open) fs.closeSync(this.fd);
    this.open = false;
  }

  /** Puts a blob of a former run where the one before it ends; cut off in that, it is no sound one next time. */
  private moveUp(place: Place): void {
    let at = this.end;
    const put = (bytes: Buffer) => void (at += fs.writeSync(this.fd, bytes, 0, bytes.length, at));
    this.end += block + padded(place.size);
    if (at + block === place.offset) return;
    put(header(place.name, place.size));
    for (const piece of pieces(this.fd, place)) put(piece);
    put(Buffer.alloc(this.end - at));
  }

  private async write(name: string, size: number, data: AsyncIterable<Buffer> | Iterable<Buffer>, see: (piece: Buffer) => void = () => undefined): Promise<void> {
    if (size > most) throw new Error(`${name} has ${size} bytes, more than a tar file takes`);
    let at = this.end;
    const put = (bytes: Buffer) => void (at += fs.writeSync(this.fd, bytes, 0, bytes.length, at));
    try {
      put(header(name, size));
      for await (const piece of data) {
        see(piece);
        put(piece);
      }
      const written = at - this.end - block;
      if (written !== size) throw new Error(`${name} came with ${written} bytes instead of ${size}`);
      put(Buffer.alloc(padded(size) - size));
    } catch (error) {
      fs.ftruncateSync(this.fd, this.end);
      throw error;
    }
    this.end = at;
  }
}

const copyAgain = "Copy it again, and compare its sha256sum with the original's";

/** An archive that is whole. */
export class Archive {
  private readonly fd: number;
  private readonly places: Map<string, Place>;

  /** @throws where the file is none, or ends early */
  constructor(readonly file: string) {
    this.fd = fs.openSync(file, "r");
    const { places, complete } = scan(this.fd);
    this.places = new Map(places.map((place) => [place.name, place]));
    if (!complete || !this.places.has(sumsName)) throw new Error(`${file} is no whole archive of images: ${places.length === 0 ? "it does not begin as one" : `it is cut off or damaged behind ${places.at(-1)!.name}`}. ${copyAgain}`);
  }

  close(): void {
    fs.closeSync(this.fd);
  }

  /** Reads every file. @throws naming the blob or file where one is not what it should be */
  verify(tell: (bytes: number) => void = () => undefined): void {
    const sums = new Map([...Buffer.concat([...pieces(this.fd, this.place(sumsName))]).toString().matchAll(/^([0-9a-f]{64}) {2}(.+)$/gm)].map(([, sum, name]) => [name, `sha256:${sum}`]));
    for (const place of this.places.values()) {
      const digest = digestOf(place.name) ?? sums.get(place.name);
      if (place.name === sumsName) continue;
      const found = hashOf(pieces(this.fd, place));
      if (found !== digest) throw new Error(`${this.file} is damaged: its ${digestOf(place.name) === undefined ? `file ${place.name}` : `blob ${digest}`} has the digest ${found}; nothing of it was used. ${copyAgain}`);
      tell(place.size);
    }
  }

  /** All blobs' bytes together. */
  get size(): number {
    return [...this.places.values()].reduce((sum, { size }) => sum + size, 0);
  }

  /** A blob's bytes. @throws where it has none of that digest */
  *blob(digest: string): Generator<Buffer> {
    yield* pieces(this.fd, this.place(blobName(digest)));
  }

  /** A file as the object that it holds in JSON. */
  json(name: string): unknown {
    return JSON.parse(Buffer.concat([...pieces(this.fd, this.place(name))]).toString("utf8"));
  }

  /** A manifest's bytes as they are. */
  manifest(digest: string): Buffer {
    return Buffer.concat([...this.blob(digest)]);
  }

  private place(name: string): Place {
    const place = this.places.get(name);
    if (place === undefined) throw new Error(`${this.file} has no ${name}; make it anew`);
    return place;
  }
}

/** What an index or an image's manifest holds, as far as it says where its parts are. */
export interface Manifest {
  mediaType?: string;
  manifests?: Descriptor[];
  config?: Descriptor;
  layers?: Descriptor[];
}

/** The manifests of an image and its further blobs, each before what names it. */
export function partsOf(manifest: (digest: string) => Buffer, descriptor: Descriptor): { manifests: Descriptor[]; blobs: Descriptor[] } {
  const { manifests = [], config, layers = [] } = JSON.parse(manifest(descriptor.digest).toString("utf8")) as Manifest;
  const below = manifests.map((each) => partsOf(manifest, each));
  return { manifests: [...below.flatMap((each) => each.manifests), descriptor], blobs: [...below.flatMap((each) => each.blobs), ...(config ? [config] : []), ...layers] };
}
