import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { parse } from "yaml";
import { root } from "../../cli/repository";

/**
 * sandbox/kind.sh, and sandbox/demo.sh with the sandbox itself, against a docker, kind, npm and pulumi that note each call and refuse
 * any other than these: as far as it gets without Docker Hub and a cluster. new-env is the real one.
 */
const HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAID0FkgLfwsVeMvwmoBSaRh3QKEaRbUmKS+aOnOX/gLw5";
const FAKE = `#!/bin/bash
call="$(basename "$0") $*"
printf '%s\\n' "$call" >> "$CALLS"
case $call in
  "docker info" | "pulumi stack select --create kind" | "pulumi config set --stack kind "* | "pulumi up --stack kind --yes --skip-preview") ;;
  "kind get clusters") cat "$CLUSTERS" 2>/dev/null || echo "No kind clusters found." >&2 ;;
  "kind create cluster --name build-platform --wait 180s --config -") cat > "$CONFIG"; echo build-platform > "$CLUSTERS" ;;
  "kind delete cluster --name build-platform") rm -f "$CLUSTERS" ;;
  "docker exec --interactive build-platform-control-plane cat /etc/ssh/ssh_host_ed25519_key.pub") echo "${HOST_KEY}" ;;
  "docker exec --interactive build-platform-control-plane sh -c install "*) cat > "$AUTHORIZED" ;;
  "docker exec --interactive build-platform-control-plane sh -c command -v sshd "*) ;;
  "pulumi stack output adminPasswordCommand --stack kind") echo "kubectl get secret" ;;
  "curl "*" -H Host: jenkins.kind.test http://127.0.0.1:8080/login") printf 200 ;;
  "id -u") echo 0 ;;
  "npm run -s sandbox -- up --images auto" | "pulumi config set-all --stack demo --path "* | "pulumi up --stack demo --yes --skip-preview") ;;
  "npm run -s sandbox -- down") rm -f "$STACKS" ;;
  "npm run -s sandbox -- env") echo "export KUBECONFIG=$STATE/kubeconfig" ;;
  "npm run -s sandbox -- stand-ins") cat "$STAND_INS" ;;
  "npm run -s sandbox -- origins") echo "restic  docker.io/restic/restic:1" ;;
  "npm run -s new-env -- "*) exec "$NPM" "$@" ;;
  "pulumi stack select demo") [[ -e $STACKS ]] ;;
  "pulumi stack init demo") [[ -e Pulumi.demo.yaml ]] && : >"$STACKS" ;;
  "pulumi stack output adminPasswordCommand --stack demo") echo "kubectl get secret" ;;
  "curl "*" -H Host: jenkins.demo.test http://10.88.0.2/login") printf 200 ;;
  *) echo "no such call: $call" >&2; exit 97 ;;
esac
`;

let folder: string;
let repository: string;
const file = (name: string) => path.join(folder, name);
const calls = () => fs.readFileSync(file("calls"), "utf8").trim().split("\n");
const kind = (command: string, programs = ["docker", "kind", "pulumi", "kubectl", "curl"]) => started("sandbox/kind.sh", command, programs);
const demo = (command?: string) => started("sandbox/demo.sh", command, ["id", "npm", "pulumi", "curl"]);
const started = (script: string, command: string | undefined, programs: string[]) => {
  const bin = file("bin");
  fs.rmSync(bin, { recursive: true, force: true });
  fs.mkdirSync(bin);
  for (const program of programs) fs.writeFileSync(path.join(bin, program), FAKE, { mode: 0o755 });
  for (const program of ["bash", "basename", "cat", "dirname", "env", "grep", "mkdir", "node", "npm", "rm", "sed", "seq", "sh", "sleep", "ssh-keygen", "uname"]) {
    const real = spawnSync("sh", ["-c", `command -v ${program}`], { encoding: "utf8" }).stdout.trim();
    if (real !== "" && !programs.includes(program)) fs.symlinkSync(real, path.join(bin, program));
  }
  const { status, stdout, stderr } = spawnSync("bash", [script, ...(command === undefined ? [] : [command])], {
    cwd: repository, encoding: "utf8",
    env: { NPM: spawnSync("sh", ["-c", "command -v npm"], { encoding: "utf8" }).stdout.trim(), STATE: folder, STACKS: file("stacks"), STAND_INS: file("stand-ins"), PATH: bin, HOME: folder, BUILD_PLATFORM_CACHE: file("cache"), CALLS: file("calls"), CLUSTERS: file("clusters"), CONFIG: file("config"), AUTHORIZED: file("authorized") },
  });
  return { status, stdout, stderr };
};

beforeEach(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "kind-"));
  repository = file("repository");
  fs.mkdirSync(repository);
  // new-env writes beside the program: a copy of its own, so that nothing is left in this one.
  for (const entry of fs.readdirSync(root)) if (![".git", "node_modules", "tests"].includes(entry)) fs.cpSync(path.join(root, entry), path.join(repository, entry), { recursive: true });
  fs.symlinkSync(fs.realpathSync(path.join(root, "node_modules")), path.join(repository, "node_modules"));
});
afterEach(() => fs.rmSync(folder, { recursive: true, force: true }));

jest.setTimeout(120_000);

test("makes a cluster whose node answers on this machine's loopback, a stack for it, and brings it up; a second time makes neither again", () => {
  expect(kind("up")).toMatchObject({ status: 0, stdout: expect.stringContaining("http://jenkins.kind.test:8080") });
  const [mappings] = (parse(fs.readFileSync(file("config"), "utf8")) as { nodes: { extraPortMappings: object[] }[] }).nodes.map(({ extraPortMappings }) => extraPortMappings);
  expect(mappings).toEqual([{ containerPort: 80, hostPort: 8080, listenAddress: "127.0.0.1" }, { containerPort: 22, hostPort: 2222, listenAddress: "127.0.0.1" }]);
  expect(fs.readFileSync(file("authorized"), "utf8")).toBe(fs.readFileSync(file("cache/kind/id_ed25519.pub"), "utf8"));
  const { config } = parse(fs.readFileSync(path.join(repository, "Pulumi.kind.yaml"), "utf8")) as { config: Record<string, unknown> };
  expect(config).toMatchObject({
    "build-platform:kubeContext": "kind-build-platform",
    "build-platform:kubeconfig": file("cache/kind/kubeconfig"),
    "build-platform:ingress": { controller: "traefik" },
    "build-platform:controlPlane": { nodes: [{ name: "build-platform-control-plane", host: "127.0.0.1", hostKey: HOST_KEY }] },
  });
  expect(config).not.toHaveProperty("build-platform:registry");
  expect(calls()).toContain("pulumi config set --stack kind --path controlPlane.port 2222");
  expect(calls().indexOf("pulumi up --stack kind --yes --skip-preview")).toBeGreaterThan(calls().indexOf("pulumi stack select --create kind"));

  fs.rmSync(file("calls"));
  expect(kind("up").status).toBe(0);
  expect(calls().filter((call) => /create cluster|cat .etc.ssh/.test(call))).toEqual([]);

  expect(kind("down").status).toBe(0);
  expect([fs.existsSync(file("clusters")), fs.existsSync(file("cache/kind")), fs.existsSync(path.join(repository, "Pulumi.kind.yaml"))]).toEqual([false, false, false]);
});

test("programs that are missing are named together, before anything is made", () => {
  const { status, stderr } = kind("up", ["docker"]);
  expect(status).toBe(1);
  expect(stderr).toContain("not on PATH: kind kubectl pulumi;");
  expect(fs.existsSync(file("calls"))).toBe(false);
});

test("anything else shows what there is", () => {
  expect(kind("--help")).toMatchObject({ status: 2, stderr: expect.stringContaining("kind.sh down") });
});

test("as root the demo is a stack of a new user's on the sandbox, with an image for each stand-in and no word of a registry; down takes its file along", () => {
  fs.mkdirSync(file("ssh"));
  spawnSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", file("ssh/id_ed25519")]);
  fs.writeFileSync(file("ssh/control-plane-1.hostkey.pub"), `${HOST_KEY} root@somewhere\n`);
  fs.writeFileSync(file("stand-ins"), "images.jenkins=10.88.0.1:5000/jenkins/jenkins:1@sha256:0\nimages.maven=10.88.0.1:5000/library/maven:3@sha256:1\n");
  const stack = path.join(repository, "Pulumi.demo.yaml");
  const ours = "config:\n  build-platform:kubeContext: kubernetes-admin@sandbox\n";
  fs.writeFileSync(stack, ours.replace("sandbox", "staging"));
  expect(demo()).toMatchObject({ status: 1, stderr: expect.stringContaining("Pulumi.demo.yaml is another cluster's") });
  expect(demo("down").status).toBe(0);
  expect(fs.existsSync(stack)).toBe(true);
  fs.writeFileSync(stack, ours);
  const first = demo();
  expect(first).toMatchObject({ status: 0, stdout: expect.stringContaining("restic  docker.io/restic/restic:1") });
  expect(first.stdout).toContain("npm run bundle -- demo --plain-http 10.88.0.1:5000\n");
  const { config } = parse(fs.readFileSync(stack, "utf8")) as { config: Record<string, unknown> };
  expect(Object.keys(config)).toEqual(["domain", "kubeconfig", "kubeContext", "controlPlane", "storageSize", "ingress"].map((key) => `build-platform:${key}`));
  expect(config["build-platform:controlPlane"]).toMatchObject({ nodes: [{ name: "control-plane-1", host: "10.88.0.2", hostKey: HOST_KEY }] });
  const [set] = calls().filter((call) => call.includes("set-all"));
  expect(set).toContain("--plaintext=ingress.controller=nginx ");
  expect(set).toContain("--plaintext=images.jenkins=10.88.0.1:5000/jenkins/jenkins:1@sha256:0 --plaintext=images.maven=");
  expect(set).not.toMatch(/registry|imageBuild/);

  fs.rmSync(file("calls"));
  fs.writeFileSync(file("stand-ins"), "");
  expect(demo()).toMatchObject({ status: 0, stdout: expect.stringContaining("npm run bundle -- demo\n") });
  expect(calls().filter((call) => /new-env|stack init|images\./.test(call))).toEqual([]);

  expect(demo("down").status).toBe(0);
  expect(fs.existsSync(stack)).toBe(false);
});
