import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import { debianSources, Store } from "../../sandbox/images/index";

const sha256 = (bytes: Buffer) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
let folder: string;

beforeEach(() => (folder = fs.mkdtempSync(path.join(os.tmpdir(), "store-"))));
afterEach(() => fs.rmSync(folder, { recursive: true, force: true }));

test("every layer in the cache is compressed exactly once, also one that the builder had compressed", async () => {
  const exported = path.join(folder, "exported");
  const blobs = path.join(exported, "blobs/sha256");
  fs.mkdirSync(blobs, { recursive: true });
  const put = (bytes: Buffer) => {
    fs.writeFileSync(path.join(blobs, sha256(bytes).slice(7)), bytes);
    return { digest: sha256(bytes), size: bytes.length };
  };
  const [plain, empty] = [Buffer.from("a layer as tar"), Buffer.alloc(1024)];
  const layers = [
    { mediaType: "application/vnd.oci.image.layer.v1.tar", ...put(plain) },
    { mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", ...put(gzipSync(empty)) },
  ];
  const config = { mediaType: "application/vnd.oci.image.config.v1+json", ...put(Buffer.from("{}")) };
  const manifest = put(Buffer.from(JSON.stringify({ schemaVersion: 2, config, layers })));
  fs.writeFileSync(path.join(exported, "index.json"), JSON.stringify({ manifests: [manifest] }));

  const store = new Store(path.join(folder, "cache"));
  await store.locked(async () => void (await store.adopt("image", "key", exported)));

  const entry = store.find("image", "key");
  const blob = (digest: string) => fs.readFileSync(path.join(store.layout, "blobs/sha256", digest.slice(7)));
  const adopted = JSON.parse(blob(entry?.digest ?? "").toString()) as { layers: { digest: string; size: number }[] };
  expect(adopted.layers.map(({ digest }) => gunzipSync(blob(digest)).equals(plain) || gunzipSync(blob(digest)).equals(empty))).toEqual([true, true]);
  for (const { digest, size } of adopted.layers) expect([sha256(blob(digest)), blob(digest).length]).toEqual([digest, size]);
});

test("Debian comes from where this machine has it, and from nobody else's repositories", () => {
  const targets = [
    "Debian deb http://mirror.example.org/debian bookworm main",
    "Debian deb http://mirror.example.org/debian bookworm main",
    "Debian deb http://mirror.example.org/debian-security bookworm-security main",
    "Debian deb http://mirror.example.org/debian bookworm contrib",
    "Debian Backports deb http://mirror.example.org/debian bookworm-backports main",
    "Somebody deb https://apt.example.com bookworm main",
  ];
  expect(debianSources(targets.join("\n"))).toEqual(["deb http://mirror.example.org/debian bookworm main", "deb http://mirror.example.org/debian-security bookworm-security main"]);
  expect(debianSources("Debian deb http://mirror.example.org/debian trixie main\nDebian deb http://mirror.example.org/debian-security trixie-security main\nUbuntu deb http://archive.example.org/ubuntu noble main")).toEqual(["deb http://mirror.example.org/debian bookworm main", "deb http://mirror.example.org/debian-security bookworm-security main"]);
  expect(debianSources("")).toEqual([]);
});
