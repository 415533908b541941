import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { parse, stringify } from "yaml";
import { NETWORK, PREFIX, REPO, REGISTRY } from "../../sandbox/paths";
import { run, waitFor, type Result } from "../../sandbox/shell";
import { createJob, ENV, ensurePlatform, finishedBuild, jenkinsAnswers, jobXml, kubectlJson, onNode, pulumi, STACK, startBuild, unpack } from "../e2e/sandbox";
import { CentralMirror } from "./central-mirror";

/**
 * A cluster whose nodes have no way out, also not to the registry that everything else of the sandbox is pulled from: the platform
 * comes up from a bundle, into a registry of its own, and builds with Maven from a mirror. The packets that want out are counted.
 */
jest.setTimeout(1_800_000);

const SITE = "air-gap";
const stackFile = path.join(REPO, `Pulumi.${SITE}.yaml`);
let folder: string;
let archive: string;

/** What leaves the nodes and their pods for anywhere but each other and this machine, and for this machine's registry. */
const gap = [
  ["FORWARD", "-i", NETWORK.bridge, "-d", "10.88.0.0/24,10.244.0.0/16", "-j", "RETURN"],
  ["FORWARD", "-i", NETWORK.bridge, "-j", "DROP"],
  ["INPUT", "-i", NETWORK.bridge, "-p", "tcp", "--dport", REGISTRY.split(":")[1], "-j", "DROP"],
];
const comment = `${PREFIX}air-gap`;
const rule = (operation: string, [chain, ...match]: string[]) => run("iptables", ["-w", operation, chain, ...match.slice(0, -2), "-m", "comment", "--comment", comment, ...match.slice(-2)], { allowFailure: true });

/** Packets that were dropped at the gap since it was closed. */
async function dropped(): Promise<number> {
  const { stdout } = await run("iptables-save", ["-c"]);
  return stdout.split("\n").filter((line) => line.includes(comment) && line.includes("-j DROP")).reduce((sum, line) => sum + Number(/^\[(\d+):/.exec(line)![1]), 0);
}

async function open(): Promise<void> {
  for (const each of gap) while ((await rule("-D", each)).code === 0);
}
async function close(): Promise<void> {
  // Each is put before the former.
  for (const each of [...gap].reverse()) expect((await rule("-I", each)).code).toBe(0);
}

/** A mirror of Maven Central inside the gap: this machine fetches what it is asked for. */
const central = new CentralMirror();

const site = (args: string[]) => pulumi([...args, "--stack", SITE]);
const bundle = (...args: string[]): Promise<Result> => run(process.execPath, ["--require", require.resolve("tsx/cjs"), path.join(REPO, "cli/bundle/index.ts"), ...args], { cwd: REPO, env: ENV });
const load = () => bundle("load", archive, SITE, "--yes");
const imagesOnNode = async () => (await onNode(["ctr", "-n", "k8s.io", "images", "ls", "-q"])).stdout.split("\n").filter((name) => name !== "");

beforeAll(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "air-gap-"));
  archive = path.join(folder, "site.bundle.tar");
  await ensurePlatform();
  await bundle(STACK, "--out", archive);
  await pulumi(["destroy", "--stack", STACK, "--yes", "--skip-preview"]);
  // All but the node's own, by all their names: of one that is left the layers stay, and a registry without them would do.
  const { stdout } = await onNode(["ctr", "-n", "k8s.io", "images", "ls"]);
  const onDisk = stdout.split("\n").slice(1).filter((line) => line.trim() !== "").map((line) => line.split(/\s+/)).map(([name, , digest]) => ({ name, digest }));
  const { items: system } = await kubectlJson<{ items: { spec: { containers: { image: string }[]; initContainers?: { image: string }[] } }[] }>(["get", "pods", "-n", "kube-system"]);
  const needed = [/\/pause[:@]/, ...system.flatMap(({ spec }) => [...spec.containers, ...(spec.initContainers ?? [])].map(({ image }) => image))];
  const kept = new Set(onDisk.filter(({ name }) => needed.some((each) => (typeof each === "string" ? each === name : each.test(name)))).map(({ digest }) => digest));
  expect(kept.size).toBeGreaterThan(3);
  const rest = onDisk.filter(({ digest }) => !kept.has(digest)).map(({ name }) => name);
  expect(rest.some((name) => name.startsWith(`${REGISTRY}/`))).toBe(true);
  await onNode(["ctr", "-n", "k8s.io", "images", "rm", "--sync", ...rest]);
  // The kubelet asks again for an image that it pulled by another name, and forgets none while the disk has room: its memory goes as well.
  await onNode(["sh", "-c", "rm -rf /var/lib/kubelet/image_manager/pulled && pkill -x kubelet"]);
  await waitFor("the node's kubelet", 60, async () => (await onNode(["curl", "-fsS", "http://127.0.0.1:10248/healthz"], { allowFailure: true })).stdout === "ok");

  await central.start(NETWORK.gateway);
  const document = parse(fs.readFileSync(path.join(REPO, `Pulumi.${STACK}.yaml`), "utf8")) as { config: Record<string, unknown> };
  for (const key of ["registry", "imageBuild", "images"]) delete document.config[`build-platform:${key}`];
  document.config["build-platform:mirrors"] = { maven: central.address };
  fs.writeFileSync(stackFile, stringify(document));
  await pulumi(["stack", "rm", SITE, "--yes", "--force", "--preserve-config"], { allowFailure: true });
  await pulumi(["stack", "init", SITE, "--no-select"]);
  await open();
  await close();
});

afterAll(async () => {
  await open();
  await pulumi(["destroy", "--stack", SITE, "--yes", "--skip-preview"], { allowFailure: true });
  await pulumi(["stack", "rm", SITE, "--yes", "--force"], { allowFailure: true });
  await central.stop();
  fs.rmSync(stackFile, { force: true });
  fs.rmSync(folder, { recursive: true, force: true });
});

test("the gap is one: what wants out, and to the sandbox's registry, is dropped and counted", async () => {
  const before = await dropped();
  for (const [host, port] of [["192.0.2.1", "443"], REGISTRY.split(":")]) expect((await onNode(["timeout", "3", "bash", "-c", `: </dev/tcp/${host}/${port}`], { allowFailure: true })).code).not.toBe(0);
  expect(await dropped()).toBeGreaterThanOrEqual(before + 2);
  // Counted from nothing again.
  await open();
  await close();
  expect(await dropped()).toBe(0);
});

test("load puts the registry's own images on the node, brings the registry up, and fills it", async () => {
  const { stderr } = await load();
  expect(stderr).toContain("node control-plane-1 has the registry's own images");
  expect(stderr).toMatch(/\d+ images are in localhost:61500/);
  const { config } = parse(fs.readFileSync(stackFile, "utf8")) as { config: Record<string, Record<string, string>> };
  expect(config["build-platform:images"].registry).toMatch(/^localhost:61500\/build-platform\/library\/registry:3\.1\.2@sha256:[0-9a-f]{64}$/);
});

test("up builds nothing, and every pod's image comes from the cluster's own registry", async () => {
  const { stdout } = await site(["up", "--yes", "--skip-preview"]);
  expect(stdout).toContain("is in the registry already; not built again");
  expect(stdout).not.toContain("building with");
  await jenkinsAnswers(300);
  const { items } = await kubectlJson<{ items: { metadata: { namespace: string }; spec: { containers: { image: string }[] } }[] }>(["get", "pods", "--all-namespaces"]);
  const images = items.filter(({ metadata }) => metadata.namespace !== "kube-system").flatMap(({ spec }) => spec.containers.map(({ image }) => image));
  expect(images.length).toBeGreaterThan(6);
  expect(images.filter((image) => !image.startsWith("localhost:61500/"))).toEqual([]);
  expect((await imagesOnNode()).filter((name) => name.startsWith(`${REGISTRY}/`))).toEqual([]);
});

test("a Maven job is built on an agent, with what it needs from the mirror", async () => {
  await createJob("air-gap", jobXml("maven", ["set -eu", unpack("maven-app"), "mvn -B package", "ls target/app-1.0.jar"].join("\n")));
  const build = await finishedBuild("air-gap", await startBuild("air-gap"), 600);
  expect(build).toMatchObject({ result: "SUCCESS", builtOn: expect.stringMatching(/^maven-/) });
  expect(build.console).not.toContain("Downloading from central:");
  expect(central.asked.length).toBeGreaterThan(10);
});

test("done again, load and up change nothing", async () => {
  const before = fs.readFileSync(stackFile, "utf8");
  const { stderr, stdout } = await load();
  expect(stderr).toContain("are set already");
  expect(stdout).not.toContain("Updating");
  expect(fs.readFileSync(stackFile, "utf8")).toBe(before);
  await site(["up", "--yes", "--skip-preview", "--expect-no-changes"]);
});

test("in all of that no packet wanted out", async () => {
  expect(await dropped()).toBe(0);
});
