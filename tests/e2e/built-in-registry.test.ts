import * as fs from "node:fs";
import * as path from "node:path";
import { parse, stringify } from "yaml";
import { REGISTRY, REPO } from "../../sandbox/paths";
import { run, type RunOptions } from "../../sandbox/shell";
import { ENV, ensurePlatform, kubectl, kubectlJson, pulumi, request, STACK, waitFor } from "./sandbox";

/** A second environment that is told of no registry: it brings its own, builds into it in the cluster, and pulls from it by the node's loopback. */
jest.setTimeout(1_800_000);

const SECOND = "own-registry";
const HOST = "own-registry.sandbox.test";
const stackFile = path.join(REPO, `Pulumi.${SECOND}.yaml`);

/** The same images by digest: of a registry that speaks plain HTTP nobody but the stack's own registry is asked for one. */
async function pinned(images: Record<string, string>): Promise<Record<string, string>> {
  const pairs = Object.entries(images).map(async ([key, reference]) => {
    const [, repository, tag] = /^[^/]+\/(.+):([^:]+)$/.exec(reference) ?? [];
    const answer = await fetch(`http://${REGISTRY}/v2/${repository}/manifests/${tag}`, { method: "HEAD", headers: { Accept: "application/vnd.oci.image.manifest.v1+json" } });
    const digest = answer.headers.get("docker-content-digest");
    return [key, digest === null ? reference : `${reference}@${digest}`];
  });
  return Object.fromEntries(await Promise.all(pairs)) as Record<string, string>;
}

const second = (args: string[], further: RunOptions = {}) => pulumi([...args, "--stack", SECOND], further);
const references = async () => JSON.parse((await second(["stack", "output", "agentImages", "--json"])).stdout) as Record<string, string>;
const login = () =>
  waitFor(`200 from /login of ${HOST}`, 300, async () => {
    const answer = await request("GET", "/login", { host: HOST });
    return answer.status === 200 && answer;
  });

beforeAll(async () => {
  await ensurePlatform();
  const document = parse(fs.readFileSync(path.join(REPO, `Pulumi.${STACK}.yaml`), "utf8")) as { config: Record<string, unknown> };
  for (const key of ["registry", "imageBuild", "controlPlane", "agentImages"]) delete document.config[`build-platform:${key}`];
  const [agent] = document.config["build-platform:agents"] as object[];
  const own = {
    domain: HOST, namespace: SECOND, storageClass: SECOND, storageInstall: "class", storageBasePath: `/var/openebs/${SECOND}`, nodePortRange: "none", ingress: { install: false },
    images: await pinned(document.config["build-platform:images"] as Record<string, string>), agents: [agent],
  };
  for (const [key, value] of Object.entries(own)) document.config[`build-platform:${key}`] = value;
  fs.writeFileSync(stackFile, stringify(document));
  await pulumi(["stack", "rm", SECOND, "--yes", "--force", "--preserve-config"], { allowFailure: true });
  await pulumi(["stack", "init", SECOND, "--no-select"]);
});

afterAll(async () => {
  await second(["destroy", "--yes", "--skip-preview"], { allowFailure: true });
  await pulumi(["stack", "rm", SECOND, "--yes", "--force"], { allowFailure: true });
  fs.rmSync(stackFile, { force: true });
});

test("it comes up: images are built in the cluster, and the node pulls them from its own loopback", async () => {
  await second(["up", "--yes", "--skip-preview"]);
  await login();
  for (const [name, reference] of Object.entries(await references())) expect(reference).toMatch(new RegExp(`^localhost:\\d+/build-platform/${name}@sha256:[0-9a-f]{64}$`));
  const { items } = await kubectlJson<{ items: { spec: { containers: { name: string; image: string }[] } }[] }>(["-n", SECOND, "get", "pods"]);
  expect(items.flatMap(({ spec }) => spec.containers.map(({ image }) => image))).toContain((await references()).controller);
});

test("a build runs on an agent whose image is pulled the same way", async () => {
  const smoke = await run(process.execPath, ["--require", require.resolve("tsx/cjs"), path.join(REPO, "cli/smoke.ts"), SECOND], { cwd: REPO, env: ENV });
  expect(smoke.stdout).toMatch(new RegExp(`^${SECOND} builds$`, "m"));
});

test("a second up changes nothing", async () => {
  expect((await second(["up", "--yes", "--skip-preview", "--expect-no-changes"])).stdout).toMatch(/\d+ unchanged/);
});

test("destroy leaves nothing of it on the cluster", async () => {
  await second(["destroy", "--yes", "--skip-preview"]);
  expect((await kubectl(["get", "namespaces", "-o", "name"])).split("\n").filter((name) => name.includes(SECOND))).toEqual([]);
});
