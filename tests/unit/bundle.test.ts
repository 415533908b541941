import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as http from "node:http";
import type { AddressInfo } from "node:net";
import * as os from "node:os";
import * as path from "node:path";
import * as fc from "fast-check";
import { Archive, ArchiveWriter, type Descriptor } from "../../cli/bundle/archive";
import { main } from "../../cli/bundle";
import { push, pushAll, writeSeeds } from "../../cli/bundle/load";
import { cut, imagesOf, loadProblems, originsOf, partsOfReference, placesOf, recipeDifferences, recipeOf, tagOfBuild, type Contents } from "../../cli/bundle/plan";
import { Registry } from "../../cli/bundle/registry";
import { outside, seedings } from "../../cli/bundle/site";
import type { Rendered } from "../../cli/offline";
import { root } from "../../cli/repository";
import type { Stack } from "../../cli/stack";
import { UsageError } from "../../cli/terminal";
import { parseConfig } from "../../config";
import { registryArgs } from "../../config/arguments";
import { RegistryStandIn } from "./agent-images-registry";
import { environment, stackConfig } from "./mocks";

const digestOf = (bytes: Buffer | string): string => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
const image = "application/vnd.oci.image.manifest.v1+json";

let folder: string;
let file: string;
beforeEach(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "bundle-"));
  file = path.join(folder, "a.tar");
});
afterEach(() => fs.rmSync(folder, { recursive: true }));

async function write(blobs: Buffer[], files: Record<string, unknown> = {}): Promise<void> {
  const writer = new ArchiveWriter(file);
  for (const blob of blobs) await writer.blob({ digest: digestOf(blob), size: blob.length }, [blob]);
  await writer.finish([], files);
}
/** What reading all of an archive says; undefined where it is sound. */
function trouble(): string | undefined {
  try {
    const archive = new Archive(file);
    try {
      archive.verify();
    } finally {
      archive.close();
    }
  } catch (error) {
    return (error as Error).message;
  }
  return undefined;
}

describe("the archive", () => {
  const bytes = fc.uint8Array({ minLength: 0, maxLength: 3000 }).map((array) => Buffer.from(array));
  const blobs = fc.uniqueArray(bytes, { minLength: 1, maxLength: 5, selector: digestOf });

  test("what is written is read, and tar reads it too", async () => {
    await fc.assert(
      fc.asyncProperty(blobs, fc.dictionary(fc.string({ minLength: 1 }), fc.string()), async (all, words) => {
        await write([...all, all[0]], { "bundle.json": words });
        expect(trouble()).toBeUndefined();
        const archive = new Archive(file);
        for (const blob of all) expect(archive.manifest(digestOf(blob))).toEqual(blob);
        expect(archive.json("bundle.json")).toEqual(JSON.parse(JSON.stringify(words)));
        archive.close();
        expect(fs.existsSync(`${file}.part`)).toBe(false);
      }),
      { numRuns: 30 },
    );
    expect(spawnSync("tar", ["-tf", file], { encoding: "utf8" })).toMatchObject({ status: 0, stdout: expect.stringMatching(/^blobs\/sha256\/[0-9a-f]{64}\n[^]*^oci-layout\nindex\.json\nbundle\.json\nSHA256SUMS\n$/m) });
  });

  test("a byte that is another is refused, with the blob and the file", async () => {
    await fc.assert(
      fc.asyncProperty(blobs.filter((all) => all.every(({ length }) => length > 0)), fc.nat(), fc.nat(), fc.integer({ min: 1, max: 255 }), async (all, which, at, by) => {
        await write(all, { "bundle.json": { a: 1 } });
        const text = fs.readFileSync(file);
        const blob = all[which % all.length];
        const begin = text.indexOf(digestOf(blob).slice(7)) - "blobs/sha256/".length + 512;
        text[begin + (at % blob.length)] ^= by;
        fs.writeFileSync(file, text);
        expect(trouble()).toMatch(new RegExp(`^${file} is damaged: its blob ${digestOf(blob)} has the digest sha256:`));
      }),
      { numRuns: 30 },
    );
  });

  test("so is one of the list of what it holds, and one of a header", async () => {
    await write([Buffer.from("a")], { "bundle.json": { word: "here" } });
    const sound = fs.readFileSync(file);
    const flip = (at: number) => {
      const text = Buffer.from(sound);
      text[at] ^= 1;
      fs.writeFileSync(file, text);
      return trouble();
    };
    expect(flip(sound.indexOf('"here"') + 1)).toContain("its file bundle.json has the digest");
    expect(flip(sound.indexOf(`  bundle.json\n`) - 1)).toContain("its file bundle.json has the digest");
    expect(flip(sound.indexOf("ustar") - 150)).toMatch(/no whole archive of images/);
  });

  test("one that is cut off anywhere is refused, with the file", async () => {
    await write([Buffer.from("abc"), Buffer.alloc(700, 1)]);
    const whole = fs.readFileSync(file);
    fc.assert(
      fc.property(fc.nat({ max: whole.length - 1 }), (length) => {
        fs.writeFileSync(file, whole.subarray(0, length));
        expect(trouble()).toMatch(new RegExp(`^${file} is no whole archive of images`));
      }),
    );
    fs.writeFileSync(file, whole);
    expect(trouble()).toBeUndefined();
  });

  test("cut off while it is written it has no name yet, and goes on where it was, but for what is not sound", async () => {
    const [first, second, third] = ["first", "second", "third"].map((text) => Buffer.from(text.repeat(100)));
    const add = (writer: ArchiveWriter, blob: Buffer, sent = blob) => writer.blob({ digest: digestOf(blob), size: blob.length }, [sent]);
    const writer = new ArchiveWriter(file);
    await add(writer, first);
    await add(writer, second);
    writer.close();
    expect(fs.existsSync(file)).toBe(false);

    fs.appendFileSync(`${file}.part`, Buffer.alloc(100, 7));
    const again = new ArchiveWriter(file);
    expect([first, second, third].map((blob) => again.has(digestOf(blob)))).toEqual([true, true, false]);
    await expect(add(again, third, Buffer.from("other".repeat(100)))).rejects.toThrow(/has the digest sha256:/);
    await expect(add(again, third, Buffer.from("short"))).rejects.toThrow("came with 5 bytes instead of 500");
    again.close();

    const text = fs.readFileSync(`${file}.part`);
    text[text.indexOf("second")] ^= 1;
    fs.writeFileSync(`${file}.part`, text);
    const last = new ArchiveWriter(file);
    expect([first, second].map((blob) => last.has(digestOf(blob)))).toEqual([true, false]);
    for (const blob of [first, second, third]) await add(last, blob);
    await last.finish([]);
    expect(trouble()).toBeUndefined();
  });
});

test("what a former run wrote and nobody wants any more is not in the archive", async () => {
  const blobs = fc.uniqueArray(fc.tuple(fc.uint8Array({ maxLength: 3000 }).map((array) => Buffer.from(array)), fc.boolean()), { minLength: 1, maxLength: 6, selector: ([blob]) => digestOf(blob) });
  await fc.assert(
    fc.asyncProperty(blobs, async (all) => {
      const former = new ArchiveWriter(file);
      for (const [blob] of all) await former.blob({ digest: digestOf(blob), size: blob.length }, [blob]);
      former.close();
      const wanted = all.flatMap(([blob, is]) => (is ? [blob] : []));
      const writer = new ArchiveWriter(file, (digest) => wanted.some((blob) => digestOf(blob) === digest));
      expect(all.map(([blob]) => writer.has(digestOf(blob)))).toEqual(all.map(([, is]) => is));
      await writer.finish([]);
      const resumed = fs.readFileSync(file);
      await write(wanted);
      expect(resumed.equals(fs.readFileSync(file))).toBe(true);
      expect(trouble()).toBeUndefined();
    }),
    { numRuns: 30 },
  );
});

test("an archive that cannot have its name says why", async () => {
  const writer = new ArchiveWriter(file);
  fs.mkdirSync(path.join(file, "in-the-way"), { recursive: true });
  await expect(writer.finish([])).rejects.toThrow(/EISDIR|ENOTEMPTY|EEXIST/);
  writer.close();
});

describe("which images a program refers to", () => {
  const images = { jenkins: "docker.io/jenkins/jenkins:2", restic: "docker.io/restic/restic:0.18", dind: "docker.io/library/docker:28", maven: "docker.io/library/maven:3", registry: "docker.io/library/registry:3", buildkit: "docker.io/moby/buildkit:1" };
  const object = (component: string, props: object): Rendered => ({ type: "kubernetes:apps/v1:Deployment", name: "x", props, protect: false, component: { name: component, instance: "x", after: [] } });
  const pod = (...names: string[]) => ({ spec: { containers: names.map((each) => ({ image: each })) } });
  const config = (over: object = {}) => ({ images, builds: { "maven-dind": { context: "x", args: { MAVEN_IMAGE: images.maven } } }, registry: { host: "localhost:61500", prefix: "p", insecure: false }, imageBuild: { builder: "in-cluster", platforms: [] }, ...over }) as unknown as Parameters<typeof imagesOf>[1];
  const command = { type: "command:local:Command", name: "build", protect: false, props: { environment: "[secret]" } } as Rendered;

  test("in pods, in texts of configurations, in what is built of them; what nobody names is not there", () => {
    const named = imagesOf([object("ImageRegistry", pod(images.registry)), object("JenkinsMaster", { data: { "jenkins.yaml": `templates:\n- yaml: |\n    containers:\n    - image: ${images.dind}\n    - name: jnlp\n      image: localhost:61500/p/maven-dind@sha256:0\n    - image: "quay.io/team/tool:1"\n` } }), command], config());
    expect(named).toEqual({ keys: ["buildkit", "dind", "maven", "registry"], spare: ["buildkit"], further: ["quay.io/team/tool:1"], seeds: [images.registry] });
  });

  test("a policy for pods runs none", () => {
    expect(imagesOf([{ ...object("X", { spec: { validations: [{ expression: `c.image in ["${images.buildkit}"]` }] } }), type: "kubernetes:admissionregistration.k8s.io/v1:ValidatingAdmissionPolicy" }], config({ builds: {}, imageBuild: { builder: "buildah" } })).keys).toEqual([]);
  });

  test("a longer name is another image, and a backup brings restic", () => {
    const plain = config({ builds: {}, imageBuild: { builder: "buildah" } });
    expect(imagesOf([object("X", pod(`${images.jenkins}.1`))], plain)).toMatchObject({ keys: [], further: ["docker.io/jenkins/jenkins:2.1"] });
    expect(imagesOf([object("JenkinsBackup", pod(images.restic))], plain)).toEqual({ keys: ["restic"], spare: [], further: [], seeds: [] });
  });
});

describe("names behind the gap", () => {
  const digest = `sha256:${"a".repeat(64)}`;
  const carried: Descriptor = { mediaType: image, digest, size: 1 };

  test.each([
    ["docker.io/jenkins/jenkins:2", "localhost:61500/p/jenkins/jenkins:2@"],
    ["maven:3.9", "localhost:61500/p/library/maven:3.9@"],
    [`10.88.0.1:5000/restic/restic:0.18@sha256:${"b".repeat(64)}`, "localhost:61500/p/restic/restic:0.18@"],
    [`quay.io/x/y@sha256:${"b".repeat(64)}`, "localhost:61500/p/x/y:sha256-aaaaaaaaaaaa@"],
  ])("%s", (reference, expected) => expect(placesOf([{ reference, origin: "", carried }], { host: "localhost:61500", prefix: "p" })[0].name).toBe(`${expected}${digest}`));

  test("two images that one tag would be, of registries with the same paths, have tags of their own", () => {
    const other = `sha256:${"b".repeat(64)}`;
    const of = (reference: string, is: string) => ({ reference, origin: "", carried: { ...carried, digest: is } });
    const tags = (...images: ReturnType<typeof of>[]) => placesOf(images, { host: "localhost:61500", prefix: "" }).map(({ repository, tag }) => `${repository}:${tag}`);
    expect(tags(of("docker.io/team/tool:1", digest), of("quay.io/team/tool:1", other), of("quay.io/team/tool:2", other))).toEqual(["team/tool:sha256-aaaaaaaaaaaa", "team/tool:sha256-bbbbbbbbbbbb", "team/tool:2"]);
    expect(tags(of("docker.io/team/tool:1", digest), of("quay.io/team/tool:1", digest))).toEqual(["team/tool:1", "team/tool:1"]);
  });

  test("a reference comes apart into what it was made of", () => {
    const part = fc.stringMatching(/^[a-z][a-z0-9]{0,6}$/);
    fc.assert(
      fc.property(fc.constantFrom("docker.io", "r.test:5000", "localhost:61500"), fc.array(part, { minLength: 2, maxLength: 4 }), fc.option(fc.stringMatching(/^[a-z0-9][a-z0-9._-]{0,8}$/), { nil: undefined }), fc.boolean(), (host, names, tag, pinned) => {
        expect(partsOfReference(`${host}/${names.join("/")}${tag === undefined ? "" : `:${tag}`}${pinned ? `@${digest}` : ""}`)).toEqual({ host, path: names.join("/"), ...(tag !== undefined && { tag }), ...(pinned && { digest }) });
      }),
    );
  });

  test("the stack's own registry takes copies that the config looks for there, and no others", () => {
    const repositories = (further: Record<string, unknown>) => {
      const fragment = `jenkins:\n  clouds:\n  - kubernetes:\n      name: other\n      templates:\n      - name: tool\n        label: tool\n        yaml: |\n          spec:\n            containers:\n            - name: tool\n              image: localhost:61500/build-platform/team/tool@${digest}\n`;
      const { config, problems } = parseConfig({ ...stackConfig("sandbox"), registry: {}, imageBuild: {}, ...further }, { ...environment, listFolder: () => ["tool.yaml"], readFile: (name) => (name.endsWith("tool.yaml") ? fragment : environment.readFile(name)) });
      expect(problems).toEqual([]);
      return registryArgs(config, "disk")!.repositories.filter((name) => !/(controller|dind)(-cache)?$/.test(name));
    };
    expect(repositories({})).toEqual([]);
    expect(repositories({ images: { ...(stackConfig("sandbox").images as object), restic: `localhost:61500/build-platform/restic/restic:0.18@${digest}`, jenkins: "other.localhost:61500/x/y:1" } })).toEqual(["build-platform/restic/restic"]);
    expect(repositories({ cascFolder: "casc" })).toEqual(["build-platform/team/tool"]);
  });
});

describe("what is carried of an index", () => {
  const of = (architecture: string, os = "linux", variant?: string): Descriptor => ({ mediaType: image, digest: digestOf(`${os}${architecture}`), size: 9, platform: { os, architecture, ...(variant && { variant }) } });
  const all = [of("amd64"), of("arm64", "linux", "v8"), of("s390x"), of("unknown", "unknown")];
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", manifests: all }));
  const index = { mediaType: "application/vnd.oci.image.index.v1+json", digest: digestOf(bytes), size: bytes.length, bytes };
  const { bytes: _, ...whole } = index;

  test("one platform's manifest, or an index of those that are wanted, without what belongs to the others", () => {
    expect(cut("x", index, ["linux/amd64"])).toEqual({ descriptor: all[0] });
    const two = cut("x", index, ["linux/amd64", "linux/arm64"]);
    expect(JSON.parse(two.bytes!.toString())).toMatchObject({ schemaVersion: 2, manifests: [all[0], all[1]] });
    expect(two.descriptor.size).toBe(two.bytes!.length);
  });

  test("all of it where no platform is named; an image of one platform is what it is", () => {
    expect(cut("x", index, [])).toEqual({ descriptor: whole });
    const single = Buffer.from(JSON.stringify({ config: {}, layers: [] }));
    expect(cut("x", { mediaType: image, digest: "sha256:1", size: 2, bytes: single }, ["linux/arm64"])).toEqual({ descriptor: { mediaType: image, digest: "sha256:1", size: 2 } });
  });

  test("a platform that is not there is said, with those that are", () => {
    expect(() => cut("docker.io/x/y:1", index, ["linux/ppc64le"])).toThrow("docker.io/x/y:1 has nothing for linux/ppc64le, only for linux/amd64, linux/arm64/v8, linux/s390x");
  });
});

describe("built images behind the gap", () => {
  const base = `sha256:${"b".repeat(64)}`;
  const copy = `sha256:${"c".repeat(64)}`;
  const spec = (args: Record<string, string>) => ({ context: path.join(root, "images/controller"), args });
  const here = spec({ JENKINS_IMAGE: `docker.io/jenkins/jenkins:2@${base}`, FURTHER_PLUGINS: "ldap:1" });

  test("are the same wherever base images and plugins come from and whoever builds them, though their tags differ", () => {
    const there = spec({ JENKINS_IMAGE: `localhost:61500/p/jenkins/jenkins:2@${copy}`, FURTHER_PLUGINS: "ldap:1", MIRROR_JENKINS_UPDATES: "https://m.test/x" });
    const origins = originsOf({ images: [{ reference: "docker.io/jenkins/jenkins:2", origin: base, carried: { mediaType: image, digest: copy, size: 1 } }] });
    expect(recipeDifferences(recipeOf(here), recipeOf(there, origins))).toEqual([]);
    expect(tagOfBuild("controller", here, { builder: "buildx" })).not.toBe(tagOfBuild("controller", there, { builder: "in-cluster" }));
    expect(recipeDifferences(recipeOf(here), recipeOf(there))).toEqual([`argument JENKINS_IMAGE is "${base}" in the bundle and "${copy}" in the stack`]);
  });

  test("are refused with the argument or the file that differs", () => {
    expect(recipeDifferences(recipeOf(here), recipeOf(spec({ JENKINS_IMAGE: `x@${base}` })))).toEqual(['argument FURTHER_PLUGINS is "ldap:1" in the bundle and not there in the stack']);
    expect(recipeDifferences({ ...recipeOf(here), hash: "", files: {} }, recipeOf(here))[0]).toMatch(/^file .* is not there in the bundle and "644 /);
  });
});

describe("the plan of a load", () => {
  const carried: Descriptor = { mediaType: image, digest: `sha256:${"c".repeat(64)}`, size: 1 };
  const contents: Contents = { version: 1, release: "1.0.0", stack: "staging", platforms: ["linux/amd64"], built: [], images: [{ key: "jenkins", reference: "docker.io/jenkins/jenkins:2", origin: "", carried }, { reference: "quay.io/team/tool:1", origin: "", carried }] };
  const place = (name: string) => `localhost:61500/p/${name}@${carried.digest}`;
  const nothing = { keys: ["jenkins"], spare: [], further: [], seeds: [] };
  const problems = (named: object, here: object = {}, of: object = {}) => loadProblems({ ...contents, ...of }, placesOf(contents.images, { host: "localhost:61500", prefix: "p" }), { ...nothing, ...named }, { release: "1.0.0", platforms: ["linux/amd64"], ...here });

  test("is refused for an image that the stack needs and the bundle has not; what only a build needs may be missing", () => {
    expect(problems({})).toEqual([]);
    expect(problems({ keys: ["buildkit", "jenkins", "restic"], spare: ["buildkit"] })).toEqual([expect.stringMatching(/^images\.restic is used, and not in the bundle: .*stack staging/)]);
  });

  test("says by what name to use an image that is no key's", () => {
    expect(problems({ further: ["quay.io/team/tool:1"] })).toEqual([`quay.io/team/tool:1 lies outside: write ${place("team/tool:1")} in its place`]);
    expect(problems({ further: [place("team/tool:1")] })).toEqual([]);
    expect(problems({ further: ["quay.io/other:1"] })[0]).toContain("is not in the bundle");
  });

  test("is refused for a platform of the nodes that the bundle is not for, and for another version", () => {
    expect(problems({}, { platforms: ["linux/amd64", "linux/arm64", "linux/arm64"] })).toEqual(["it is for linux/amd64, and not for linux/arm64, which the nodes or imageBuild.platforms are: make it again with --platform linux/amd64 --platform linux/arm64"]);
    expect(problems({}, { platforms: ["linux/arm64"] }, { platforms: ["linux/arm64/v8"] })).toEqual([]);
    expect(problems({}, { release: "1.1.0" })).toEqual(["it is of version 1.0.0 of this repository, and this is 1.1.0: use the same one on both sides"]);
  });
});

describe("what has to be on the nodes before the registry runs", () => {
  const node = (name: string, runtime = "containerd://1.7.2") => ({ metadata: { name }, status: { nodeInfo: { operatingSystem: "linux", architecture: "amd64", containerRuntimeVersion: runtime } } });
  const stack = (...items: object[]) => ({ config: parseConfig(stackConfig("sandbox"), environment).config, keys: { node: "a key" }, kubectl: async () => JSON.stringify({ items }) }) as unknown as Stack;

  test("goes to control-plane nodes by the config's way, to others by the one that is given, and to none by a way that is not there", async () => {
    const all = await seedings(stack(node("control-plane-1"), node("worker-1"), node("worker-2"), node("worker-3", "cri-o://1.33.0")), { "worker-1": "me@192.0.2.7", "worker-3": "me@192.0.2.9" });
    expect(all.map(({ node: name, command }) => [name, command?.program])).toEqual([["control-plane-1", "sh"], ["worker-1", "ssh"], ["worker-2", undefined], ["worker-3", undefined]]);
    expect(all[0].command).toMatchObject({ env: { NODE_KEY: "a key", NODE_COMMAND: expect.stringContaining("ctr -n k8s.io images import -") } });
    expect(JSON.stringify(all[0].command!.args)).not.toContain("a key");
    expect(all[1].command!.args).toContain("me@192.0.2.7");
  });

  test("a node that the cluster has not is said", async () => {
    await expect(seedings(stack(node("control-plane-1")), { elsewhere: "me@192.0.2.7" })).rejects.toThrow("--node elsewhere: the cluster has no such node, only control-plane-1");
  });

  test("has the names that the container runtime looks for: by tag, and by digest", async () => {
    const manifest = Buffer.from(JSON.stringify({ config: { mediaType: "c", digest: digestOf("c"), size: 1 } }));
    await write([Buffer.from("c"), manifest]);
    const archive = new Archive(file);
    const carried = { mediaType: image, digest: digestOf(manifest), size: manifest.length };
    await writeSeeds(archive, [{ name: `localhost:61500/p/library/registry:3@${carried.digest}`, carried }], `${file}.seeds`);
    archive.close();
    const seeds = new Archive(`${file}.seeds`);
    const { manifests } = seeds.json("index.json") as { manifests: Descriptor[] };
    expect(manifests.map(({ annotations }) => annotations!["io.containerd.image.name"])).toEqual(["localhost:61500/p/library/registry:3", `localhost:61500/p/library/registry@${carried.digest}`]);
    expect(seeds.manifest(digestOf("c")).toString()).toBe("c");
    seeds.close();
  });
});

describe("registries", () => {
  const stand = new RegistryStandIn();
  beforeAll(() => stand.start());
  afterAll(() => stand.stop());
  afterEach(() => stand.clear());
  const login = { username: "me", password: "s3cret" };
  const insecure = { insecure: true };

  /** An archive with an index of one image. */
  async function archiveOf(): Promise<{ archive: Archive; carried: Descriptor }> {
    const layer = Buffer.from("layer");
    const manifest = Buffer.from(JSON.stringify({ mediaType: image, config: { mediaType: "c", digest: digestOf(layer), size: layer.length }, layers: [{ mediaType: "l", digest: digestOf(layer), size: layer.length }] }));
    const index = Buffer.from(JSON.stringify({ manifests: [{ mediaType: image, digest: digestOf(manifest), size: manifest.length }] }));
    await write([layer, manifest, index]);
    return { archive: new Archive(file), carried: { mediaType: "application/vnd.oci.image.index.v1+json", digest: digestOf(index), size: index.length } };
  }

  test.each([[false], [true]])("an image is pushed with all its parts, once, and is there by tag and digest (tokens: %s)", async (tokens) => {
    stand.options = { login, tokens };
    const { archive, carried } = await archiveOf();
    let bytes = 0;
    const load = () => push(archive, new Registry(stand.host, { ...insecure, login }), { repository: "p/x", tag: "1", carried }, new Map(), (size) => void (bytes += size));
    await load();
    expect(stand.tags.get("p/x")?.get("1")).toBe(carried.digest);
    expect(bytes).toBe(5);
    await load();
    expect(bytes).toBe(5);
    archive.close();

    const registry = new Registry(stand.host, { ...insecure, login });
    expect((await registry.manifest("p/x", "1"))?.descriptor).toEqual(carried);
    expect(await registry.manifest("p/x", "2")).toBeUndefined();
    const pieces: Buffer[] = [];
    for await (const piece of await registry.blob("p/x", digestOf("layer"))) pieces.push(piece);
    expect(Buffer.concat(pieces).toString()).toBe("layer");
  });

  test("who is not let in is told what to do, and the log-in is in no message", async () => {
    stand.options = { login };
    const error = await new Registry(stand.host, { ...insecure, login: { ...login, password: "wr0ng" } }).manifest("p/x", "1").catch((each: Error) => each.message);
    expect(error).toMatch(/answers 401 to GET \/v2\/p\/x\/manifests\/1; give a log-in in registry\.username or pullSecrets/);
    expect(error).not.toContain("wr0ng");
  });

  test("a weak moment is waited for, and another manifest than the digest names is refused", async () => {
    const digest = stand.seed("p/x", "content", "1");
    stand.options = { busy: 1 };
    const registry = new Registry(stand.host, insecure);
    expect((await registry.manifest("p/x", "1"))?.descriptor.digest).toBe(digest);
    stand.manifests.set(digest, { type: image, body: "{}" });
    await expect(registry.manifest("p/x", digest)).rejects.toThrow(`gives another manifest than p/x@${digest}`);
  });

  test("a weak moment and a log-in after it are both waited for", async () => {
    stand.seed("p/x", "content", "1");
    stand.options = { busy: 1, login, tokens: true };
    expect(await new Registry(stand.host, { ...insecure, login }).manifest("p/x", "1")).toBeDefined();
  });

  test("an upload that fails begins anew by a new way, and the last failure is said as it is", async () => {
    const { archive, carried } = await archiveOf();
    let ways = 0;
    const all = () => pushAll(archive, [{ repository: "p/x", tag: "1", carried }], (work) => (ways++, work(new Registry(stand.host, insecure))));
    stand.options = { failing: 2 };
    await all();
    expect([ways, stand.tagsOf("p/x")]).toEqual([3, ["1"]]);
    expect(stand.requests.filter((each) => each.startsWith("POST "))).toHaveLength(3);
    stand.clear();
    stand.options = { failing: 9 };
    await expect(all()).rejects.toThrow(/answers 500 to PUT .*\/blobs\/uploads\//);
    archive.close();
  }, 30_000);

  describe("that lead elsewhere", () => {
    const other = new RegistryStandIn();
    const [seen, redirect] = [[] as (string | undefined)[], { place: "" }];
    /** A registry that asks for a log-in, and leads uploads and questions somewhere. */
    const leading = http.createServer((request, response) => {
      request.resume();
      seen.push(request.headers.authorization);
      if (request.headers.authorization === undefined) return void response.writeHead(401, { "WWW-Authenticate": "Basic realm=x" }).end();
      if (request.method === "HEAD") return void response.writeHead(404).end();
      if (request.method === "PUT") return void response.writeHead(201).end();
      response.writeHead(request.method === "POST" ? 202 : 307, { Location: `${redirect.place}${request.url!}` }).end();
    });
    let host: string;
    beforeAll(async () => {
      await other.start();
      await new Promise<void>((resolve) => leading.listen(0, "127.0.0.1", resolve));
      host = `127.0.0.1:${(leading.address() as AddressInfo).port}`;
    });
    afterAll(async () => {
      leading.closeAllConnections();
      await new Promise((resolve) => leading.close(resolve));
      await other.stop();
    });
    beforeEach(() => void (seen.length = 0));
    const blob = { digest: digestOf("layer"), size: 5 };
    const registry = () => new Registry(host, { ...insecure, login });

    test("are followed for a manifest and for none, with what was asked for and without the log-in", async () => {
      const [digest, asked] = [other.seed("p/x", "content", "1"), other.heard];
      redirect.place = `http://${other.host}`;
      expect((await registry().manifest("p/x", "1"))?.descriptor.digest).toBe(digest);
      expect(asked.at(-1)).toMatchObject({ accept: expect.stringContaining(image) });
      expect(asked.at(-1)).not.toHaveProperty("authorization");
      expect(await registry().manifest("p/x", "2")).toBeUndefined();
      await expect(registry().blob("p/x", blob.digest)).rejects.toThrow(`${other.host} answers 404`);
    });

    test("in a circle are an error", async () => {
      redirect.place = `http://${host}`;
      await expect(registry().manifest("p/x", "1")).rejects.toThrow(`${host} answers 307`);
    });

    test("get the log-in at an upload only themselves, by the scheme and port that they are spoken to by", async () => {
      redirect.place = "https://127.0.0.1:1";
      expect(await registry().putBlob("p/x", blob, () => [Buffer.from("layer")])).toBe(true);
      expect(seen.at(-1)).toMatch(/^Basic /);
      other.heard.length = 0;
      redirect.place = `http://localhost:${other.host.split(":")[1]}`;
      await registry().putBlob("p/x", blob, () => [Buffer.from("layer")]);
      expect(other.heard).toHaveLength(1);
      expect(other.heard[0]).not.toHaveProperty("authorization");
    });
  });

  test("plain HTTP is spoken only where that is allowed", async () => {
    stand.seed("p/x", "content", "1");
    await expect(new Registry(stand.host).manifest("p/x", "1")).rejects.toThrow(/cannot be asked .*: it speaks plain HTTP, and not TLS$/);
  });

  test("one that is no stack's own is spoken to over plain HTTP where the command line names it, and else the option is said", async () => {
    stand.seed("p/x", "content", "1");
    const { config } = parseConfig(stackConfig("sandbox"), environment);
    const ask = (over: object, plainHttp: string[] = []) => outside({ config: { ...config, ...over } }, {}, stand.host, plainHttp).manifest("p/x", "1");
    await expect(ask({})).rejects.toThrow(`it speaks plain HTTP, and not TLS; if you trust the network to it, give --plain-http ${stand.host} to npm run bundle -- STACK`);
    await expect(ask({ registry: { ...config.registry, host: stand.host, insecure: false } })).rejects.toThrow("it speaks plain HTTP, and not TLS; if you trust the network to it, set registry.insecure to true");
    expect(await ask({}, [stand.host])).toBeDefined();
    await expect(ask({}, ["127.0.0.1:1"])).rejects.toThrow("--plain-http");
  });
});

test("a wrong command line says what to do, and a file that is no archive is refused before anything is asked", async () => {
  for (const [args, words] of [
    [[], "which stack?"],
    [["none"], "npm run new-env none makes one"],
    [["sandbox", "--yes"], "--yes is nothing that writing a bundle knows"],
    [["sandbox", "--platform", "arm64"], "give OS/ARCH such as linux/arm64"],
    [["sandbox", "--plain-http", "http://192.0.2.10:5000"], "--plain-http http://192.0.2.10:5000 is no host"],
    [["sandbox", "--out", "/nope/y.tar"], "--out /nope/y.tar: there is no folder /nope"],
    [["sandbox", "--out", `${__filename}/y.tar`], `there is no folder ${__filename}`],
    [["sandbox", "--out", __dirname], `--out ${__dirname} is a folder`],
    [["load", __dirname, "sandbox"], `${__dirname} is a folder`],
    [["load"], "which archive?"],
    [["load", __filename, "sandbox", "--plain-http", "x"], "--plain-http is nothing that load knows"],
    [["load", "missing.tar", "sandbox"], "there is no file missing.tar"],
    [["load", __filename, "sandbox", "--out", "x"], "--out is nothing that load knows"],
    [["load", __filename, "sandbox", "--node", "a"], "--node a is no NAME=USER@HOST"],
  ] as const) await expect(main([...args])).rejects.toMatchObject({ constructor: UsageError, message: expect.stringContaining(words) });
  await expect(main(["load", __filename, "sandbox"])).rejects.toThrow(/no whole archive of images: it does not begin as one/);
});
