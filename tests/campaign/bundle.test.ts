import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { parse, stringify } from "yaml";
import { manifestTypes } from "../../cli/bundle/registry";
import { REPO } from "../../sandbox/paths";
import { run, type Result } from "../../sandbox/shell";
import { Registry } from "../e2e/agent-images-bed";
import { ENV, ensurePlatform, pulumi, STACK } from "../e2e/sandbox";

/** A bundle of the running platform, and what another stack makes of it that has a registry with a password. */
jest.setTimeout(900_000);

const SITE = "bundle-site";
const stackFile = path.join(REPO, `Pulumi.${SITE}.yaml`);
let folder: string;
let archive: string;
let registry: Registry;
let document: { config: Record<string, unknown> };

const bundle = (args: string[], allowFailure = false): Promise<Result> => run(process.execPath, ["--require", require.resolve("tsx/cjs"), path.join(REPO, "cli/bundle/index.ts"), ...args], { cwd: REPO, env: ENV, allowFailure });
const load = (allowFailure = false) => bundle(["load", archive, SITE], allowFailure);
const set = (key: string, value: unknown) => {
  document.config[`build-platform:${key}`] = value;
  fs.writeFileSync(stackFile, stringify(document));
};
const images = () => (parse(fs.readFileSync(stackFile, "utf8")) as typeof document).config["build-platform:images"] as Record<string, string> | undefined;

beforeAll(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "bundle-e2e-"));
  archive = path.join(folder, "site.tar");
  registry = new Registry(path.join(folder, "registry"));
  await ensurePlatform();
  await registry.start(true);
  document = parse(fs.readFileSync(path.join(REPO, `Pulumi.${STACK}.yaml`), "utf8")) as typeof document;
  for (const key of ["images", "imageBuild", "controlPlane"]) delete document.config[`build-platform:${key}`];
  // An environment beside the running one, for preview.
  const own = { domain: "bundle.sandbox.test", namespace: SITE, storageClass: SITE, storageInstall: "class", storageBasePath: `/var/openebs/${SITE}`, nodePortRange: "none", ingress: { install: false } };
  for (const [key, value] of Object.entries(own)) document.config[`build-platform:${key}`] = value;
  set("registry", { host: registry.host, insecure: true, prefix: "site" });
  await pulumi(["stack", "rm", SITE, "--yes", "--force", "--preserve-config"], { allowFailure: true });
  await pulumi(["stack", "init", SITE, "--no-select"]);
  document = parse(fs.readFileSync(stackFile, "utf8")) as typeof document;
});

afterAll(async () => {
  await registry.stop();
  await pulumi(["stack", "rm", SITE, "--yes", "--force"], { allowFailure: true });
  fs.rmSync(stackFile, { force: true });
  fs.rmSync(folder, { recursive: true, force: true });
});

test("the archive has every image by digest, and goes on where it was cut off", async () => {
  const { stderr } = await bundle([STACK, "--out", archive]);
  expect(stderr).toMatch(/\d+ upstream images and 3 of the stack's own for linux\//);
  const whole = fs.readFileSync(archive);
  fs.renameSync(archive, `${archive}.part`);
  fs.truncateSync(`${archive}.part`, Math.floor(whole.length / 2));
  await bundle([STACK, "--out", archive]);
  expect(fs.readFileSync(archive).equals(whole)).toBe(true);
  const names = (await run("tar", ["-tf", archive])).stdout.split("\n");
  expect(names).toEqual(expect.arrayContaining(["index.json", "oci-layout", "bundle.json"]));
});

test("who may not push is told so, and with the log-in every upstream image is there by digest", async () => {
  expect(await load(true)).toMatchObject({ code: 1, stderr: expect.stringMatching(/answers 401 .*registry\.username/) });
  await pulumi(["config", "set", "--stack", SITE, "--path", "registry.username", "me"]);
  await pulumi(["config", "set", "--stack", SITE, "--secret", "--path", "registry.password", "e2e-s3cret"]);
  const { stdout, stderr } = await load();
  expect(stderr).toMatch(new RegExp(`images are in ${registry.host}`));
  expect(stdout + stderr).not.toContain("e2e-s3cret");
  expect(fs.readFileSync(archive).includes("e2e-s3cret")).toBe(false);
  const references = Object.values(images()!);
  expect(references.length).toBeGreaterThan(8);
  const basic = { Authorization: `Basic ${Buffer.from("me:e2e-s3cret").toString("base64")}`, Accept: "application/vnd.oci.image.manifest.v1+json" };
  for (const reference of references) {
    const [, repository, digest] = /^[^/]+\/(.+):[^:@]+@(sha256:[0-9a-f]{64})$/.exec(reference)!;
    expect([reference, (await fetch(`http://${registry.host}/v2/${repository}/manifests/${digest}`, { headers: basic })).status]).toEqual([reference, 200]);
  }
});

test("done again, nothing is written", async () => {
  const before = { file: fs.readFileSync(stackFile, "utf8"), writes: registry.writes() };
  expect((await load()).stderr).toContain("are set already");
  expect(fs.readFileSync(stackFile, "utf8")).toBe(before.file);
  expect(registry.writes()).toBe(before.writes);
});

test("the stack's own images are there under the tags that up asks for", async () => {
  // Without a log-in, beside which preview shows nothing of a build.
  await registry.stop();
  await registry.start(false);
  for (const key of ["username", "password"]) await pulumi(["config", "rm", "--stack", SITE, "--path", `registry.${key}`]);
  const { stdout } = await pulumi(["preview", "--stack", SITE, "--diff"], { allowFailure: true });
  const asked = [...stdout.matchAll(/\bIMAGE_REPOSITORY *: "([^"]+)"[^]*?\bIMAGE_TAG *: "([^"]+)"/g)].map(([, repository, tag]) => [repository.replace(/^[^/]+\//, ""), tag]);
  expect(asked.map(([repository]) => repository).sort()).toEqual(["site/controller", "site/gradle-dind", "site/maven-dind"]);
  for (const [repository, tag] of asked) expect([repository, tag, (await fetch(`http://${registry.host}/v2/${repository}/manifests/${tag}`, { headers: { Accept: manifestTypes.join(", ") } })).status]).toEqual([repository, tag, 200]);
});

test("a stack that is made of something else is refused with what differs, and is not changed", async () => {
  document = parse(fs.readFileSync(stackFile, "utf8")) as typeof document;
  set("controller", { plugins: ["ldap:725.v3cb_b_711b_1a_ef"] });
  const before = fs.readFileSync(stackFile, "utf8");
  expect(await load(true)).toMatchObject({ code: 1, stderr: expect.stringMatching(/image controller: argument FURTHER_PLUGINS is not there in the bundle and "ldap:/) });
  expect(fs.readFileSync(stackFile, "utf8")).toBe(before);
});
