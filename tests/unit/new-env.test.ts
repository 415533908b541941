import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import Ajv from "ajv";
import { parse } from "yaml";
import { configProblems, fingerprint, nameProblem, stackConfig, type Answers } from "../../cli/new-env";
import { schemaComment, schemaFile } from "../../tools/docs";
import { root } from "../../cli/repository";

jest.setTimeout(120_000);

const hostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAID0FkgLfwsVeMvwmoBSaRh3QKEaRbUmKS+aOnOX/gLw5";
const project = parse(fs.readFileSync(path.join(root, "Pulumi.yaml"), "utf8"));

let folder: string;
let key: string;
beforeEach(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "new-env-"));
  key = path.join(folder, "id");
  // Only its form is looked at; it opens nothing.
  fs.writeFileSync(key, "-----BEGIN OPENSSH PRIVATE KEY-----\n-----END OPENSSH PRIVATE KEY-----\n");
});
afterEach(() => fs.rmSync(folder, { recursive: true }));

const run = (args: string[], input = "") =>
  spawnSync(process.execPath, ["--require", require.resolve("tsx/cjs"), path.join(root, "cli/new-env.ts"), ...args], { cwd: folder, input, encoding: "utf8" });
const written = (name: string) => fs.readFileSync(path.join(folder, `Pulumi.${name}.yaml`), "utf8");
const options = () => [
  "--domain", "ci.example.com", "--context", "admin@prod", "--registry", "registry.example.com:5000", "--storage-size", "50Gi", "--tls-issuer", "letsencrypt",
  "--node", "cp-1=192.0.2.1", "--node", "cp-2=192.0.2.2", "--host-key", `cp-1=${hostKey} root@cp-1`, "--host-key", `cp-2=${hostKey}`, "--key", key,
];

test("writes a stack file that config/ and the editors' schema accept", () => {
  const ended = run(["staging", ...options(), "--yes"]);
  expect(ended.stderr).toBe("");
  expect(ended.status).toBe(0);
  expect(ended.stdout).toContain("npm run doctor -- staging");
  expect(written("staging").split("\n")[0]).toBe(schemaComment);
  const { config } = parse(written("staging"));
  expect(configProblems(project.name, project.config, config)).toEqual([]);
  expect(config["build-platform:controlPlane"].nodes).toEqual([
    { name: "cp-1", host: "192.0.2.1", hostKey },
    { name: "cp-2", host: "192.0.2.2", hostKey },
  ]);
  expect(config["build-platform:storageSize"]).toBe("50Gi");
  expect(config["build-platform:ingress"]).toEqual({ controller: "traefik", clusterIssuer: "letsencrypt" });
  expect(written("staging")).not.toContain("PRIVATE KEY");
  const validate = new Ajv({ allowUnionTypes: true }).compile(JSON.parse(fs.readFileSync(path.join(root, schemaFile), "utf8")));
  expect(validate({ config })).toBe(true);
});

test("a registry is not asked for where none is named: the stack brings its own", () => {
  expect(run(["staging", "--local", "--yes"]).stderr).not.toContain("registry");
  expect(run(["staging", "--local"], `${["ci.example.com", "admin@prod", "-", "", "-", "cp-1"].join("\n")}\n`).status).toBe(0);
  expect(parse(written("staging")).config).not.toHaveProperty("build-platform:registry");
  expect(run(["other", "--insecure-registry", "--yes"]).stderr).toContain("--insecure-registry is about a --registry");
});

test("asks for what options leave open, with defaults", () => {
  const answers = ["ci.example.com", "admin@prod", "registry.example.com", "", "-", "cp-1"];
  const ended = run(["staging", "--local"], `${answers.join("\n")}\n`);
  expect(ended.stderr).toContain("Size of jenkins_home [20Gi]");
  expect(ended.status).toBe(0);
  expect(ended.stdout).toContain("plain HTTP");
  expect(parse(written("staging")).config).toMatchObject({ "build-platform:storageSize": "20Gi", "build-platform:ingress": { controller: "traefik" }, "build-platform:controlPlane": { access: "local", nodes: [{ name: "cp-1" }] } });
});

test.each([["asked", [], "yes"], ["told", ["--beside"], undefined]])("beside another environment, as %s, every name is its own and no node is named", (_, options, answer) => {
  const answers = ["b.example.com", "admin@prod", "registry.example.com", "", "letsencrypt", ...(answer ? [answer] : [])];
  const ended = run(["team-b", ...options], `${answers.join("\n")}\n`);
  expect(ended.status).toBe(0);
  const { config } = parse(written("team-b"));
  expect(configProblems(project.name, project.config, config)).toEqual([]);
  expect(config).toMatchObject({
    "build-platform:namespace": "jenkins-team-b", "build-platform:storageClass": "openebs-team-b", "build-platform:storageInstall": "class", "build-platform:nodePortRange": "none",
    "build-platform:ingress": { controller: "none", clusterIssuer: "letsencrypt" },
  });
  expect(config).not.toHaveProperty("build-platform:controlPlane");
});

test.each([["y", true], ["Yes", true], ["N", false]])("%s is an answer to a question of yes or no", (answer, beside) => {
  const ended = run(["team-b"], `${["b.example.com", "admin@prod", "registry.example.com", "", "-", "perhaps", answer].join("\n")}\n`);
  expect(ended.stderr).toContain("yes or no");
  if (beside) expect(parse(written("team-b")).config).toMatchObject({ "build-platform:nodePortRange": "none" });
  else expect(ended.stderr).toContain("A control-plane node");
});

test("a wrong answer is asked for again at once, with what is expected", () => {
  const answers = ["https://ci.exämple.com/", "ci.example.com", "admin@prod", "registry.example.com:99999", "registry.example.com", "20", "", "-", "cp-1"];
  const ended = run(["staging", "--local"], `${answers.join("\n")}\n`);
  expect(ended.status).toBe(0);
  expect(ended.stderr).toMatch(/https:\/\/ci\.exämple\.com\/ will not do: the host name people will use/);
  expect(ended.stderr).toContain("20 will not do: a size with its unit");
  expect(parse(written("staging")).config).toMatchObject({ "build-platform:domain": "ci.example.com", "build-platform:registry": { host: "registry.example.com" } });
});

test.each([
  [["--local", "--node", "cp-1=a", "--node", "cp-2=b"], "--local takes one node"],
  [["--node", "cp-1=192.0.2.1", "--host-key", `cp-2=${hostKey}`], "--host-key cp-2: no --node has that name"],
  [["--beside", "--tls-issuer", "a", "--tls-secret", "b"], "either --tls-issuer or --tls-secret"],
])("%j: no option is passed over in silence", (further, said) => {
  const ended = run(["staging", "--domain", "ci.example.com", "--context", "c", "--registry", "r.example.com", "--key", key, "--yes", ...further]);
  expect(ended).toMatchObject({ status: 1, stderr: expect.stringContaining(said) });
  expect(fs.readdirSync(folder)).toEqual(["id"]);
});

test("beside another environment no node can be named", () => {
  const ended = run(["staging", ...options(), "--beside", "--yes"]);
  expect(ended.status).toBe(1);
  expect(ended.stderr).toContain("leave out --local and --node");
});

test("reports every mistake at once and writes nothing", () => {
  const ended = run(["staging", ...options(), "--domain", "not a host", "--storage-size", "50", "--yes"]);
  expect(ended.status).toBe(1);
  expect(ended.stderr).toMatch(/domain\n[\s\S]*storageSize\n/);
  expect(fs.readdirSync(folder)).toEqual(["id"]);
});

test("without a host key, --yes does not trust what a scan finds", () => {
  const ended = run(["staging", "--domain", "ci.example.com", "--context", "c", "--registry", "r.example.com", "--key", key, "--node", "cp-1=192.0.2.1", "--yes"]);
  expect(ended.status).toBe(1);
  expect(ended.stderr).toMatch(/controlPlane\.nodes\[0\]\.hostKey/);
});

test("answers that end early write nothing", () => {
  const ended = run(["staging"], "ci.example.com\n");
  expect(ended.status).toBe(1);
  expect(ended.stderr).toContain("ended early");
  expect(fs.existsSync(path.join(folder, "Pulumi.staging.yaml"))).toBe(false);
});

test("never overwrites a stack file", () => {
  fs.writeFileSync(path.join(folder, "Pulumi.staging.yaml"), "config: {}\n");
  const ended = run(["staging", ...options(), "--yes"]);
  expect(ended.status).toBe(1);
  expect(ended.stderr).toContain("Pulumi.staging.yaml exists");
  expect(written("staging")).toBe("config: {}\n");
});

test.each(["staging", "team-a-2", "x"])("%s is a name", (name) => expect(nameProblem(name)).toBeUndefined());
test.each(["", "A", "a_b", "-a", "a/b", "../x", "a".repeat(41)])("%j is no name", (name) => expect(nameProblem(name)).toContain("no name"));

test("a fingerprint is what ssh-keygen shows", () => {
  // ssh-keygen -lf of this key.
  expect(fingerprint(hostKey)).toBe("SHA256:7TZR21zTQwMNZTfP7iSpm8PzkVDMsD5x8ecjXl4Xqao");
});

test("keys that were not answered are left out", () => {
  const answers: Answers = { domain: "d.example.com", context: "c", registry: "r", insecureRegistry: false, storageSize: "1Gi", access: { kind: "local", node: "a" } };
  expect(Object.keys(stackConfig("p", "staging", answers))).toEqual(["p:domain", "p:kubeContext", "p:controlPlane", "p:registry", "p:storageSize", "p:ingress"]);
  expect(stackConfig("p", "staging", answers)["p:ingress"]).toEqual({ controller: "traefik" });
  expect(stackConfig("p", "staging", answers)["p:registry"]).toEqual({ host: "r" });
});

test("a second name is asked about instead of being passed over", () => {
  const ended = run(["staging", "production", ...options(), "--yes"]);
  expect(ended.status).toBe(2);
  expect(ended.stderr).toContain('what is "production"?');
  expect(fs.existsSync(path.join(folder, "Pulumi.staging.yaml"))).toBe(false);
});
