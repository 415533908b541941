import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { parse, stringify } from "yaml";
import { KUBECONFIG, REPO } from "../../sandbox/paths";
import { kubectl, pulumi } from "./sandbox";

jest.setTimeout(240_000);

type Config = Record<string, unknown>;
const STACK = "bad-input";
let folder: string;

const stackFile = path.join(REPO, `Pulumi.${STACK}.yaml`);
const sandboxFile = fs.readFileSync(path.join(REPO, "Pulumi.sandbox.yaml"), "utf8");

beforeAll(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "bad-input-"));
  fs.writeFileSync(stackFile, sandboxFile);
  await pulumi(["stack", "rm", STACK, "--yes", "--force", "--preserve-config"], { allowFailure: true });
  await pulumi(["stack", "init", STACK, "--no-select"]);
});

afterAll(async () => {
  await pulumi(["stack", "rm", STACK, "--yes", "--force"], { allowFailure: true });
  fs.rmSync(stackFile, { force: true });
  fs.rmSync(folder, { recursive: true, force: true });
});

function writeConfig(change: (config: Config) => void): void {
  const document = parse(sandboxFile) as { config: Config };
  const config = Object.fromEntries(Object.entries(document.config).map(([key, value]) => [key.replace(/^build-platform:/, ""), value]));
  change(config);
  document.config = Object.fromEntries(Object.entries(config).map(([key, value]) => [`build-platform:${key}`, value]));
  fs.writeFileSync(stackFile, stringify(document));
}

/** A kubeconfig whose context names an address where nothing listens. */
function unreachable(config: Config): void {
  const file = path.join(folder, "kubeconfig");
  fs.writeFileSync(file, fs.readFileSync(KUBECONFIG, "utf8").replace(/10\.88\.0\.2:6443/, "127.0.0.1:9"), { mode: 0o600 });
  config.kubeconfig = file;
}

/** Runs `pulumi up` with the sandbox's config, changed, on a stack of its own; it must fail and make nothing. */
async function refused(change: (config: Config) => void): Promise<string> {
  writeConfig(change);
  const before = await kubectl(["get", "namespaces", "-o", "name"]);
  const ended = await pulumi(["up", "--stack", STACK, "--yes", "--skip-preview"], { allowFailure: true });
  expect(ended.code).not.toBe(0);
  const state = JSON.parse((await pulumi(["stack", "export", "--stack", STACK])).stdout) as { deployment: { resources?: { type: string }[] } };
  expect((state.deployment.resources ?? []).map(({ type }) => type).filter((type) => type !== "pulumi:pulumi:Stack")).toEqual([]);
  expect(await kubectl(["get", "namespaces", "-o", "name"])).toBe(before);
  return ended.stdout + ended.stderr;
}

test("every mistake is reported at once, by key, with what was found", async () => {
  const said = await refused((config) => {
    config.domain = "not_a_domain";
    config.storageSize = "20";
    config.nodePortRange = "1000-2000";
  });
  for (const words of ["domain", "not_a_domain", "storageSize", "nodePortRange", "1000-2000", "80 and 443"]) expect(said).toContain(words);
});

test("a key of a cloud that the kubernetes plugin does not know is named, with its file", async () => {
  const casc = path.join(folder, "casc");
  fs.mkdirSync(casc);
  fs.writeFileSync(path.join(casc, "clouds.yaml"), "jenkins:\n  clouds:\n    - kubernetes:\n        name: other\n        templates: [{ name: t, contaners: [] }]\n");
  const said = await refused((config) => (config.cascFolder = casc));
  for (const words of ["clouds.yaml", "jenkins.clouds[0].kubernetes.templates[0].contaners", "containers"]) expect(said).toContain(words);
});

test("a context that the kubeconfig does not have is answered with those it has", async () => {
  const said = await refused((config) => (config.kubeContext = "production"));
  for (const words of ["kubeContext", "production", "kubernetes-admin@sandbox"]) expect(said).toContain(words);
});

test("an unreachable cluster fails the run and says where it was looked for", async () => {
  const said = await refused(unreachable);
  for (const words of ["127.0.0.1:9", "kubectl --context kubernetes-admin@sandbox get --raw /readyz"]) expect(said).toContain(words);
});

test("a preview against an unreachable cluster fails as well", async () => {
  writeConfig(unreachable);
  const ended = await pulumi(["preview", "--stack", STACK], { allowFailure: true });
  expect(ended.code).not.toBe(0);
  expect(ended.stdout + ended.stderr).toContain("127.0.0.1:9");
});

test("a registry that does not answer is named", async () => {
  const said = await refused((config) => (config.registry = { host: "127.0.0.1:9", insecure: true }));
  for (const words of ["registry.host", "127.0.0.1:9"]) expect(said).toContain(words);
});
