import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { parse, stringify } from "yaml";
import { ArchiveWriter, type Descriptor } from "../../cli/bundle/archive";
import { load } from "../../cli/bundle/load";
import { placesOf, recipeOf, repositoryOf, type CarriedImage, type Contents } from "../../cli/bundle/plan";
import { buildsOf, release } from "../../cli/bundle/site";
import { bundle } from "../../cli/bundle/write";
import { readStack } from "../../cli/stack";
import { pushToken } from "../../components/image-registry";
import { registryArgs } from "../../config/arguments";
import { RegistryStandIn } from "./agent-images-registry";

/** All of a load, into a stack's own registry that takes the repositories of its token and no others; kubectl, pulumi and ssh are stand-ins on PATH. */

const here = path.resolve(__dirname, "../..");
const project = fs.mkdtempSync(path.join(os.tmpdir(), "bundle-load-"));
jest.mock("../../cli/repository", () => ({ ...jest.requireActual<object>("../../cli/repository"), get root() { return project; } }));
jest.mock("../../components/agent-images", () => ({ ...jest.requireActual<object>("../../components/agent-images"), prepareImages: async (args: unknown) => args }));
// The program is a process of its own, and says the same every time.
const rendered = new Map<string, Promise<unknown>>();
jest.mock("../../cli/offline", () => {
  const { renderStack, ...rest } = jest.requireActual<{ renderStack: (...args: unknown[]) => Promise<unknown> }>("../../cli/offline");
  return { ...rest, renderStack: (stack: string, _folder: undefined, over: object) => rendered.get(JSON.stringify(over)) ?? rendered.set(JSON.stringify(over), renderStack(stack, project, over)).get(JSON.stringify(over)) };
});
jest.setTimeout(120_000);

const digestOf = (bytes: Buffer | string): string => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
const kind = "application/vnd.oci.image.manifest.v1+json";
const stand = new RegistryStandIn();
const cluster = path.join(project, "cluster");
const file = path.join(project, "read-only", "site.bundle.tar");
const stackFile = path.join(project, "Pulumi.site.yaml");
const casc = path.join(project, "casc");
const terminal = process.stdin.isTTY;
let contents: Contents;
let said: string;

/** Puts an answer of the cluster there, at once or when pulumi has run. */
const answers = (when: "now" | "up", of: Record<string, string>): void => Object.entries(of).forEach(([name, text]) => fs.writeFileSync(path.join(cluster, when, name), text));
const node = (name: string, runtime = "containerd://2.1.0", architecture = "amd64") => ({ metadata: { name }, status: { nodeInfo: { operatingSystem: "linux", architecture, containerRuntimeVersion: runtime } } });
const pods = (...nodes: string[]): string => JSON.stringify({ items: nodes.map((nodeName) => ({ spec: { nodeName }, status: { conditions: [{ type: "Ready", status: "True" }] } })) });
const nodes = (...items: object[]): string => JSON.stringify({ items });
/** What was done so far: pulumi's words, and nodes that took an archive. */
const done = (): string[] => fs.readFileSync(path.join(cluster, "done"), "utf8").split("\n").filter((line) => line !== "");
const run = (options: object = {}) => load(file, "site", { yes: true, seeded: false, nodes: { "worker-1": "me@192.0.2.7" }, ...options });
const writeBundle = async (of: Partial<Contents> = {}): Promise<void> => {
  const writer = new ArchiveWriter(file);
  for (const text of Object.values(texts)) for (const blob of text) await writer.blob({ digest: digestOf(blob), size: blob.length }, [blob]);
  await writer.finish([], { "bundle.json": { ...contents, ...of } });
};

/** The blobs of each image, its manifest behind them. */
const texts: Record<string, Buffer[]> = {};
function imageOf(name: string): Descriptor {
  const [layer, size] = [Buffer.from(`layer of ${name}`), Buffer.byteLength(`layer of ${name}`)];
  const manifest = Buffer.from(JSON.stringify({ mediaType: kind, config: { mediaType: "c", digest: digestOf(layer), size }, layers: [] }));
  texts[name] = [layer, manifest];
  return { mediaType: kind, digest: digestOf(manifest), size: manifest.length };
}
const carriedAs = (reference: string, key?: string): CarriedImage => {
  const carried = imageOf(reference);
  return { ...(key !== undefined && { key }), reference, origin: carried.digest, carried };
};

beforeAll(async () => {
  for (const name of fs.readdirSync(here)) if (!/^(\.git|Pulumi\..+\.yaml)$/.test(name)) fs.symlinkSync(path.join(here, name), path.join(project, name));
  // Else it is one of another folder to whoever looks where it is.
  fs.rmSync(path.join(project, "index.ts"));
  fs.copyFileSync(path.join(here, "index.ts"), path.join(project, "index.ts"));
  for (const each of ["read-only", "casc", "bin", "cluster/now", "cluster/up"]) fs.mkdirSync(path.join(project, each), { recursive: true });
  const program = (name: string, text: string) => fs.writeFileSync(path.join(project, "bin", name), `#!/bin/sh\ncd ${cluster}\n${text}`, { mode: 0o755 });
  program("kubectl", 'case "$*" in\n*" port-forward "*) echo "Forwarding from 127.0.0.1:$(cat now/port) -> 5001"; exec sleep 60 ;;\n*" get nodes "*) cat now/nodes ;;\n*" get secret "*) cat now/token ;;\n*" get deployment "*) cat now/available ;;\n*" get pods "*) cat now/pods ;;\n*) echo "what is $*?" >&2; exit 1 ;;\nesac\n');
  program("pulumi", 'echo "pulumi $*" >>done; cp up/* now/\n');
  program("ssh", 'for word; do case $word in *@*) target=$word ;; esac; done\ncat >seed.tar; echo "seed ${target:-control-plane-1}" >>done\n');
  process.env.PATH = `${path.join(project, "bin")}:${process.env.PATH}`;
  await stand.start();
  jest.spyOn(process.stderr, "write").mockImplementation((text) => (said += String(text), true));
});
afterAll(async () => {
  await stand.stop();
  fs.rmSync(project, { recursive: true, force: true });
  Object.assign(process.stdin, { isTTY: terminal });
});

beforeEach(async () => {
  for (const name of Object.keys(texts)) delete texts[name];
  stand.clear();
  stand.options = { scopes: true };
  said = "";
  fs.writeFileSync(path.join(cluster, "done"), "");
  const config = { domain: "ci.example.com", kubeContext: "site", nodePortRange: "none", ingress: { install: false }, cascFolder: casc };
  fs.writeFileSync(stackFile, stringify({ config: Object.fromEntries(Object.entries(config).map(([key, value]) => [`build-platform:${key}`, value])) }));
  const tool = carriedAs("quay.io/team/tool:1");
  const [place] = placesOf([tool], { host: "localhost:61500", prefix: "build-platform" });
  fs.writeFileSync(path.join(casc, "tool.yaml"), stringify({ jenkins: { clouds: [{ kubernetes: { name: "other", templates: [{ name: "tool", label: "tool", containers: [{ name: "tool", image: place.name }] }] } }] } }));
  const { images } = (await readStack("site")).config;
  const copies = [...Object.entries(images).map(([key, reference]) => carriedAs(reference, key)), tool, carriedAs("quay.io/team/foreign:1")];
  const over = { images: Object.fromEntries(placesOf(copies, { host: "localhost:61500", prefix: "build-platform" }).flatMap(({ key, name }) => (key === undefined ? [] : [[key, name]]))) };
  const site = await readStack("site", over);
  expect(site.problems).toEqual([]);
  const built = Object.entries((await buildsOf(site, {})).images).map(([name, spec]) => ({ name, carried: imageOf(name), recipe: recipeOf(spec) }));
  contents = { version: 1, release: release(), stack: "staging", platforms: ["linux/amd64"], images: copies, built };
  fs.rmSync(file, { force: true });
  await writeBundle();
  answers("now", { nodes: nodes(node("control-plane-1"), node("worker-1")), token: "", available: "", pods: pods(), port: stand.host.split(":")[1] });
  answers("up", { token: Buffer.from(pushToken("s3cret", registryArgs(site.config, "disk")!.repositories)).toString("base64"), available: "1", pods: pods("control-plane-1", "worker-1") });
});
const both = { "control-plane-1": "me@192.0.2.6", "worker-1": "me@192.0.2.7" };

test("nodes get the seeds, the registry comes up, and takes all that the stack names and nothing else; done again, nothing is done", async () => {
  await run({ nodes: both });
  expect(done()).toEqual(["seed me@192.0.2.6", "seed me@192.0.2.7", expect.stringMatching(/^pulumi up --stack site --target .*ImageRegistry\*\* --refresh --yes --skip-preview$/)]);
  const named = [...contents.images.filter(({ reference }) => reference !== "quay.io/team/foreign:1").map(({ reference }) => repositoryOf(reference, "build-platform")), ...contents.built.map(({ name }) => `build-platform/${name}`)];
  expect([...stand.tags.keys()].sort()).toEqual([...new Set(named)].sort());
  expect(stand.tagsOf("build-platform/team/tool")).toEqual(["1"]);
  expect(fs.readdirSync(path.dirname(file))).toEqual(["site.bundle.tar"]);

  const before = { stack: fs.readFileSync(stackFile, "utf8"), done: done() };
  expect(before.stack).toContain("localhost:61500/build-platform/");
  stand.requests.length = 0;
  // Without the ways to the nodes: they have what they need.
  await run({ nodes: {}, yes: false });
  expect({ stack: fs.readFileSync(stackFile, "utf8"), done: done() }).toEqual(before);
  expect(stand.requests.filter((each) => !/^(GET|HEAD) /.test(each))).toEqual([]);
  expect(said).toContain("are set already");

  // The volume is lost: the pod waits for a claim. And a node joins.
  answers("now", { available: "" });
  await run({ nodes: both });
  expect(done().slice(before.done.length)).toEqual(["seed me@192.0.2.6", "seed me@192.0.2.7", expect.stringContaining(" --refresh ")]);
  answers("now", { nodes: nodes(node("control-plane-1"), node("worker-1"), node("worker-2", "cri-o://1.35.0")) });
  const error = await run({ nodes: {} }).catch((each: Error) => each.message);
  const [, seeds] = /put (\S+) on each of them/.exec(String(error))!;
  expect(error).toContain("\n  worker-2: by the means of cri-o://1.35.0");
  expect(error).not.toMatch(/ctr|worker-1/);
  expect(fs.existsSync(seeds)).toBe(true);
  fs.rmSync(path.dirname(seeds), { recursive: true });
  await run({ nodes: {}, seeded: true });
});

test("a registry that does not take a repository yet comes up anew, without looking at what is left, and cut off before it is brought up once more", async () => {
  answers("now", { token: Buffer.from(pushToken("s3cret", [])).toString("base64"), available: "1", pods: pods("control-plane-1", "worker-1") });
  await run({ nodes: both });
  expect(done().at(-1)).toMatch(/^pulumi up (?!.*--refresh)/);
  answers("now", { pods: pods() });
  await run({ nodes: both });
  expect(done().filter((each) => each.startsWith("pulumi"))).toHaveLength(2);
});

test("nothing is done where nobody can be asked, where platform or version are others, or where a node is not reached", async () => {
  const before = fs.readFileSync(stackFile, "utf8");
  Object.assign(process.stdin, { isTTY: false });
  await expect(run({ yes: false, nodes: both })).rejects.toThrow("the registry does not run, and comes up first; nobody can be asked here, and --yes does so without a question");
  const stopped = fs.readFileSync(path.join(cluster, "now/token"), "utf8");
  answers("now", { token: Buffer.from(pushToken("s3cret", [])).toString("base64"), available: "1", pods: pods("control-plane-1", "worker-1") });
  await expect(run({ yes: false, nodes: both })).rejects.toThrow("the registry runs, and its push token is not for all of the images: it is renewed first; nobody can be asked here, and --yes does so");
  answers("now", { token: stopped, available: "", pods: pods() });
  answers("now", { nodes: nodes(node("control-plane-1"), node("worker-1", undefined, "arm64")) });
  await expect(run({ nodes: both })).rejects.toThrow(/nothing was changed:\n {2}- it is for linux\/amd64, and not for linux\/arm64/);
  await writeBundle({ release: "0.0.1" });
  await expect(run({ nodes: both })).rejects.toThrow("it is of version 0.0.1 of this repository");
  expect([done(), fs.readFileSync(stackFile, "utf8"), stand.requests]).toEqual([[], before, []]);

  answers("now", { nodes: nodes(node("control-plane-1"), node("worker-1")) });
  await writeBundle();
  const error = await run().catch((each: Error) => each.message);
  const [, seeds] = /put (\S+) on each of them/.exec(String(error))!;
  expect(error).toContain(`\n  control-plane-1: ssh root@control-plane-1 ctr -n k8s.io images import - <${seeds}`);
  fs.rmSync(path.dirname(seeds), { recursive: true });
  expect([done(), fs.readFileSync(stackFile, "utf8")]).toEqual([["seed me@192.0.2.7"], before]);
});

test("a bundle of an image at a registry of plain HTTP says which key leads there, and goes on with the option; a host that no image has is refused", async () => {
  const images = Object.fromEntries(Object.keys((await readStack("site")).config.images).map((key) => [key, `${stand.host}/some/image:${key}`]));
  const { config } = parse(fs.readFileSync(stackFile, "utf8")) as { config: object };
  fs.writeFileSync(stackFile, stringify({ config: { ...config, "build-platform:images": images } }));
  stand.options = {};
  const write = (...plainHttp: string[]) => bundle("site", { file: path.join(project, "read-only", "out.tar"), platforms: ["linux/amd64"], also: [], plainHttp, rendered: [] });
  await expect(write()).rejects.toThrow(new RegExp(`^images\\.(\\w+) \\(${stand.host}/some/image:\\1\\): ${stand.host} cannot be asked .*: it speaks plain HTTP, and not TLS; if you trust the network to it, give --plain-http ${stand.host} to npm run bundle`));
  await expect(write(stand.host)).rejects.toThrow(`${images.registry} is not there; correct images.registry`);
  await expect(write("192.0.2.9:5000")).rejects.toThrow(`--plain-http 192.0.2.9:5000: no image of the stack is there, only at ${stand.host}`);
});
