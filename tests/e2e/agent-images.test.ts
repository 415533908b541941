import { randomBytes } from "node:crypto";
import { spawn, type ChildProcess } from "node:child_process";
import * as fs from "node:fs";
import * as net from "node:net";
import * as os from "node:os";
import * as path from "node:path";
import { buildTestTool } from "../../sandbox/cluster/binaries";
import { installPackages } from "../../sandbox/cluster/packages";
import { KUBECONFIG, REGISTRY, REPO } from "../../sandbox/paths";
import { run, waitFor, type Result, type RunOptions } from "../../sandbox/shell";
import type { AgentImagesArgs, ImageSpec } from "../../components/agent-images";
import { ensureBuildkitImage } from "./buildkit";
import { ENV, kubectl, kubectlJson } from "./sandbox";

jest.setTimeout(20 * 60_000);

const script = path.join(REPO, "scripts/build-image.sh");
let folder: string;
let registry: Registry;

/** Debian's real registry on loopback, with data that a test may take away. */
class Registry {
  host = "";
  private process?: ChildProcess;
  constructor(private readonly home: string) {}

  private get log(): string {
    return path.join(this.home, "access.log");
  }

  /** With a password it lets in `me` only. */
  async start(password: boolean): Promise<void> {
    fs.mkdirSync(path.join(this.home, "data"), { recursive: true });
    if (this.host === "") this.host = `127.0.0.1:${await freePort()}`;
    // "e2e-s3cret" hashed with bcrypt.
    fs.writeFileSync(path.join(this.home, "htpasswd"), "me:$2b$04$Q74ssm0uqj6jrpBHyNHgc.GNqKdRC3tddBS0qhYWmfWl1KRWogOD.\n");
    const auth = password ? `auth: {htpasswd: {realm: test, path: ${path.join(this.home, "htpasswd")}}}\n` : "";
    const config = path.join(this.home, "config.yml");
    fs.writeFileSync(config, `version: 0.1\nlog: {level: error}\nstorage:\n  filesystem: {rootdirectory: ${path.join(this.home, "data")}}\n  delete: {enabled: true}\nhttp: {addr: "${this.host}"}\n${auth}`);
    const log = fs.openSync(this.log, "a");
    this.process = spawn("docker-registry", ["serve", config], { stdio: ["ignore", log, log] });
    fs.closeSync(log);
    await waitFor("the test's registry", 30, () => fetch(`http://${this.host}/v2/`).then((answer) => answer.status === 200 || answer.status === 401, () => false));
  }

  async stop(): Promise<void> {
    const ended = new Promise((resolve) => this.process?.once("exit", resolve));
    this.process?.kill();
    await ended;
  }

  async wipe(): Promise<void> {
    await this.stop();
    fs.rmSync(path.join(this.home, "data"), { recursive: true });
    await this.start(false);
  }

  /** Requests so far that wrote something. */
  writes(): number {
    return (fs.readFileSync(this.log, "utf8").match(/"(?:PUT|POST|PATCH|DELETE) /g) ?? []).length;
  }

  async status(repository: string, reference: string): Promise<number> {
    const types = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";
    return (await fetch(`http://${this.host}/v2/${repository}/manifests/${reference}`, { headers: { Accept: types } })).status;
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = net.createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address() as net.AddressInfo;
      server.close(() => resolve(port));
    });
  });
}

beforeAll(() => installPackages(["buildah", "docker-registry", "curl"]));
beforeEach(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "agent-images-e2e-"));
  registry = new Registry(path.join(folder, "registry"));
  await registry.start(false);
});
afterEach(async () => {
  await registry.stop();
  // buildah's overlay storage leaves a mount of itself.
  await run("umount", ["-l", ...fs.readFileSync("/proc/mounts", "utf8").split("\n").map((line) => line.split(" ")[1] ?? "").filter((at) => at.startsWith(folder))], { allowFailure: true });
  fs.rmSync(folder, { recursive: true });
});

/** Writes a build context from scratch, so that no base image is needed. */
function context(name: string, files: Record<string, string | Buffer>): string {
  const root = path.join(folder, name);
  for (const [file, text] of Object.entries(files)) {
    fs.mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
    fs.writeFileSync(path.join(root, file), text);
  }
  return root;
}

const storage = (name = "storage"): NodeJS.ProcessEnv => ({ ...ENV, BUILD_IMAGE_STORAGE: path.join(folder, name) });
const build = (name: string, contextFolder: string, args: string[] = [], options: RunOptions = {}): Promise<Result> =>
  run(script, ["--repository", `${registry.host}/e2e/${name}`, "--tag", `${name}-0123456789ab`, "--context", contextFolder, "--insecure", "--force", ...args], { env: storage(), ...options });

const plainContext = { Dockerfile: "FROM scratch\nARG WORD=one\nLABEL word=${WORD}\nCOPY files /files\n", "files/a.txt": "a\n", "files/run.sh": "#!/bin/sh\n" };

describe("through the Pulumi engine", () => {
  let project: string;
  let images: Record<string, ImageSpec>;

  beforeEach(async () => {
    images = {};
    project = path.join(folder, "project");
    fs.mkdirSync(path.join(project, ".state"), { recursive: true });
    for (const link of ["scripts", "node_modules"]) fs.symlinkSync(path.join(REPO, link), path.join(project, link));
    fs.writeFileSync(path.join(project, "package.json"), "{}");
    fs.writeFileSync(path.join(project, "Pulumi.yaml"), "name: images\nruntime: {name: nodejs, options: {typescript: true, tsconfig: tsconfig.json}}\n");
    fs.writeFileSync(path.join(project, "tsconfig.json"), JSON.stringify({ extends: path.join(REPO, "tsconfig.json"), compilerOptions: { noCheck: true, noEmit: false }, files: ["index.ts"] }));
    fs.writeFileSync(
      path.join(project, "index.ts"),
      `import * as pulumi from "@pulumi/pulumi";
import { AgentImages, prepareImages } from ${JSON.stringify(path.join(REPO, "components/agent-images"))};
export = async () => {
  const config = new pulumi.Config();
  const args = config.requireObject<any>("args");
  const password = config.get("password");
  const registry = password ? { ...args.registry, username: "me", password: config.requireSecret("password") } : args.registry;
  const prepared = await prepareImages({ ...args, registry }, { username: "me", password });
  return { references: new AgentImages("images", prepared).references };
};
`,
    );
    for (const name of ["one", "two"]) {
      images[name] = { context: `images/${name}`, args: { WORD: name } };
      fs.mkdirSync(path.join(project, "images", name), { recursive: true });
      for (const [file, text] of Object.entries(plainContext)) {
        fs.mkdirSync(path.dirname(path.join(project, "images", name, file)), { recursive: true });
        fs.writeFileSync(path.join(project, "images", name, file), text);
      }
    }
    await pulumi("stack", "init", "dev");
  });

  const pulumi = (...args: string[]): Promise<Result> =>
    run("pulumi", [...args, "--non-interactive", "--color", "never"], {
      cwd: project,
      env: { ...storage(), PULUMI_BACKEND_URL: `file://${project}/.state`, PULUMI_CONFIG_PASSPHRASE: "e2e" },
      allowFailure: true,
    });
  async function configure(over: Partial<AgentImagesArgs> = {}): Promise<void> {
    const args: AgentImagesArgs = { registry: { host: registry.host, prefix: "e2e", insecure: true }, builder: "buildah", images, ...over };
    await pulumi("config", "set", "args", JSON.stringify(args));
  }
  async function up(): Promise<Record<string, string>> {
    const ended = await pulumi("up", "--yes", "--skip-preview");
    if (ended.code !== 0) throw new Error(ended.stdout + ended.stderr);
    return references();
  }
  const references = async (): Promise<Record<string, string>> => (JSON.parse((await pulumi("stack", "output", "--json")).stdout) as { references: Record<string, string> }).references;

  test("an image is built when its content changes, and only then; a failed build leaves the former one", async () => {
    await configure();
    await pulumi("preview");
    expect(registry.writes()).toBe(0);
    const first = await up();
    for (const name of ["one", "two"]) {
      expect(first[name]).toMatch(new RegExp(`^${registry.host}/e2e/${name}@sha256:[0-9a-f]{64}$`));
      expect(await registry.status(`e2e/${name}`, first[name].split("@")[1])).toBe(200);
    }

    const written = registry.writes();
    const unchanged = await pulumi("up", "--yes", "--skip-preview");
    expect(unchanged.stdout).toMatch(/4 unchanged/);
    expect(registry.writes()).toBe(written);

    fs.writeFileSync(path.join(project, "images/one/files/a.txt"), "b\n");
    images.one.args = { WORD: "changed" };
    await configure();
    const preview = await pulumi("preview", "--diff");
    expect(preview.stdout).toMatch(/~ files\/a\.txt *: "644 [0-9a-f]{12}" => "644 [0-9a-f]{12}"/);
    expect(preview.stdout).toMatch(/IMAGE_ARGS +: "WORD=one" => "WORD=changed"/);
    expect(preview.stdout).toMatch(/~ 1 to update\s+3 unchanged/);
    expect(preview.stdout).not.toContain("images-two");
    expect(registry.writes()).toBe(written);
    const second = await up();
    expect(second.one).not.toBe(first.one);
    expect(second.two).toBe(first.two);

    const dockerfile = path.join(project, "images/one/Dockerfile");
    fs.appendFileSync(dockerfile, "COPY nothing-here /\n");
    const failed = await pulumi("up", "--yes", "--skip-preview");
    expect(failed.code).not.toBe(0);
    expect(failed.stdout + failed.stderr).toMatch(/one: \| .*nothing-here/);
    expect(failed.stdout + failed.stderr).toMatch(/one: build failed/);
    expect(await references()).toEqual(second);
    expect(await registry.status("e2e/one", second.one.split("@")[1])).toBe(200);

    fs.writeFileSync(dockerfile, plainContext.Dockerfile);
    expect(await up()).toEqual(second);
  });

  test("a registry that was wiped gets the same images again from a plain up", async () => {
    await configure();
    const before = await up();
    await registry.wipe();
    expect(await registry.status("e2e/one", before.one.split("@")[1])).toBe(404);
    const preview = await pulumi("preview", "--diff");
    expect(preview.stdout).toMatch(/IMAGE_MISSING: .*not in the registry/);
    expect(preview.stdout).toMatch(/~ 2 to update/);
    expect(await up()).toEqual(before);
    for (const name of ["one", "two"]) expect(await registry.status(`e2e/${name}`, before[name].split("@")[1])).toBe(200);
    expect((await pulumi("up", "--yes", "--skip-preview")).stdout).toMatch(/4 unchanged/);
  });

  test("destroy leaves the registry alone, unless config says otherwise", async () => {
    await configure();
    const references = await up();
    expect((await pulumi("destroy", "--yes", "--skip-preview")).code).toBe(0);
    expect(await registry.status("e2e/one", references.one.split("@")[1])).toBe(200);

    await configure({ deleteOnDestroy: true });
    expect(await up()).toEqual(references);
    expect((await pulumi("destroy", "--yes", "--skip-preview")).code).toBe(0);
    for (const name of ["one", "two"]) expect(await registry.status(`e2e/${name}`, references[name].split("@")[1])).toBe(404);
  });

  test("a registry with a password: pushed with a secret that no log, argument or state shows", async () => {
    await registry.stop();
    await registry.start(true);
    await configure();
    await pulumi("config", "set", "--secret", "password", "wrong-s3cret");
    const refused = await pulumi("up", "--yes", "--skip-preview");
    expect(refused.code).not.toBe(0);
    expect(refused.stdout + refused.stderr).toMatch(/refused the log-in: check registry\.username/);

    await pulumi("config", "set", "--secret", "password", "e2e-s3cret");
    const seen: string[] = [];
    const watch = setInterval(() => {
      for (const pid of fs.readdirSync("/proc").filter((name) => /^\d+$/.test(name) && name !== String(process.pid))) {
        try {
          seen.push(fs.readFileSync(`/proc/${pid}/cmdline`, "utf8"));
        } catch {
          // ended meanwhile
        }
      }
    }, 20);
    const ended = await pulumi("up", "--yes", "--skip-preview").finally(() => clearInterval(watch));
    expect(ended.code).toBe(0);
    expect(Object.keys(await references())).toEqual(["one", "two"]);
    expect(seen.some((line) => line.includes("buildah"))).toBe(true);
    const state = await run("grep", ["-rlE", "(e2e|wrong)-s3cret", project, os.tmpdir() + "/build-image."], { allowFailure: true });
    expect(state.stdout).toBe("");
    for (const text of [ended.stdout, ended.stderr, refused.stdout, refused.stderr, ...seen]) expect(text).not.toMatch(/(e2e|wrong)-s3cret/);
  });
});

describe("buildah", () => {
  test("the same content from two clones with other times, modes of the umask and storage gives the same digest", async () => {
    const digests = [];
    for (const [n, mode] of [["a", 0o644], ["b", 0o600]] as const) {
      const root = context(`clone-${n}`, plainContext);
      for (const file of ["Dockerfile", "files/a.txt", "files/run.sh"]) {
        fs.chmodSync(path.join(root, file), file.endsWith(".sh") ? mode | 0o100 : mode);
        fs.utimesSync(path.join(root, file), 1, n === "a" ? 1 : 1_700_000_000);
      }
      digests.push((await build("same", root, [], { env: storage(`storage-${n}`) })).stdout);
    }
    expect(digests[1]).toBe(digests[0]);
    expect(digests[0]).toMatch(/@sha256:[0-9a-f]{64}\n$/);
    const other = context("clone-c", { ...plainContext, "files/a.txt": "b\n" });
    expect((await build("same", other)).stdout).not.toBe(digests[0]);
  });

  test("two platforms become one index", async () => {
    const { stdout } = await build("multi", context("multi", plainContext), ["--platforms", "linux/amd64,linux/arm64"]);
    const answer = await fetch(`http://${registry.host}/v2/e2e/multi/manifests/${stdout.trim().split("@")[1]}`, { headers: { Accept: "application/vnd.oci.image.index.v1+json" } });
    const index = (await answer.json()) as { manifests: { platform: { architecture: string } }[] };
    expect(index.manifests.map((m) => m.platform.architecture).sort()).toEqual(["amd64", "arm64"]);
  });

  test("a push that is killed leaves no tag, and the next one succeeds", async () => {
    const root = context("large", { Dockerfile: "FROM scratch\nCOPY blob /\n", blob: randomBytes(150_000_000) });
    const child = spawn(script, ["--repository", `${registry.host}/e2e/large`, "--tag", "large-0123456789ab", "--context", root, "--insecure"], { env: storage(), stdio: ["ignore", "pipe", "pipe"] });
    const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
    // Killed when the first bytes have reached the registry, and the last ones have not.
    await waitFor("the upload to begin", 120, async () => registry.writes() > 0);
    expect(await registry.status("e2e/large", "large-0123456789ab")).toBe(404);
    child.kill("SIGTERM");
    expect(await ended).toBe(143);
    expect(await registry.status("e2e/large", "large-0123456789ab")).toBe(404);
    expect((await run("pgrep", ["-f", root], { allowFailure: true })).stdout).toBe("");

    const { stdout } = await build("large", root);
    expect(await registry.status("e2e/large", stdout.trim().split("@")[1])).toBe(200);
  });

  test("a full disk is named as such", async () => {
    const small = path.join(folder, "small");
    fs.mkdirSync(small);
    await run("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", small]);
    const root = context("big", { Dockerfile: "FROM scratch\nCOPY blob /\n", blob: randomBytes(8_000_000) });
    const ended = await build("big", root, [], { env: storage("small"), allowFailure: true });
    expect(ended).toMatchObject({ code: 1, stdout: "" });
    expect(ended.stderr).toMatch(/big: build failed .*the disk is full: free some space/);
    expect(await registry.status("e2e/big", "big-0123456789ab")).toBe(404);
  });
});

describe("BuildKit", () => {
  /** What is not yet to be pruned away is unused: each run starts from an empty cache. */
  async function withBuildkitd<T>(work: (env: NodeJS.ProcessEnv) => Promise<T>): Promise<T> {
    const binaries = await buildTestTool("buildkit");
    const home = path.join(folder, `buildkitd-${randomBytes(3).toString("hex")}`);
    fs.mkdirSync(home);
    fs.writeFileSync(path.join(home, "config.toml"), [registry.host, REGISTRY].map((host) => `[registry."${host}"]\n  http = true\n`).join(""));
    const socket = `unix://${home}/sock`;
    const daemon = spawn(path.join(binaries, "buildkitd"), ["--config", path.join(home, "config.toml"), "--addr", socket, "--root", path.join(home, "root")], { stdio: "ignore" });
    const ended = new Promise((resolve) => daemon.once("exit", resolve));
    const env = { ...ENV, PATH: `${binaries}:${ENV.PATH}`, BUILDX_CONFIG: path.join(home, "buildx"), BUILDX_BUILDER: "e2e", DOCKER_CONFIG: path.join(home, "docker") };
    try {
      await waitFor("buildkitd", 60, () => run(path.join(binaries, "buildctl"), ["--addr", socket, "debug", "workers"], { allowFailure: true }).then((r) => r.code === 0));
      await run("buildx", ["create", "--name", "e2e", "--driver", "remote", socket], { env });
      return await work(env);
    } finally {
      daemon.kill();
      await ended;
    }
  }

  test("buildx: the same content from two empty caches gives the same digest, for two platforms at once", async () => {
    const digests: string[] = [];
    for (const n of ["a", "b"]) {
      const root = context(`clone-${n}`, plainContext);
      fs.utimesSync(path.join(root, "files/a.txt"), 1, n === "a" ? 1 : 1_700_000_000);
      await withBuildkitd(async (env) => {
        digests.push((await build("same", root, ["--builder", "buildx"], { env })).stdout);
        digests.push((await build("both", root, ["--builder", "buildx", "--platforms", "linux/amd64,linux/arm64"], { env })).stdout);
      });
    }
    expect(digests.slice(2)).toEqual(digests.slice(0, 2));
    expect(digests[0]).toMatch(/@sha256:[0-9a-f]{64}\n$/);
    expect(digests[1]).not.toContain(digests[0].split("@")[1]);
  });

  test("buildx: a cache in the registry or in a folder spares a new builder the work", async () => {
    const root = context("cached", { ...plainContext, Dockerfile: `FROM ${REGISTRY}/library/debian:bookworm-slim\nRUN cat /proc/sys/kernel/random/uuid >/random\nCOPY files /files\n` });
    for (const cache of ["registry", path.join(folder, "cache")]) {
      const digests: string[] = [];
      // Only a cache makes a step with a random result give the same image again.
      for (let i = 0; i < 2; i++) digests.push(await withBuildkitd(async (env) => (await build("cached", root, ["--builder", "buildx", "--cache", cache], { env })).stdout));
      expect(digests[1]).toBe(digests[0]);
    }
  });

  test("the shipped Dockerfiles pass BuildKit's own checks", async () => {
    await withBuildkitd(async (env) => {
      for (const name of fs.readdirSync(path.join(REPO, "images")).filter((n) => fs.existsSync(path.join(REPO, "images", n, "Dockerfile")))) {
        const base = `${REGISTRY}/library/debian:bookworm-slim`;
        const args = ["BASE_IMAGE", "MAVEN_IMAGE", "GRADLE_IMAGE", "DOCKER_IMAGE", "JENKINS_IMAGE"].flatMap((key) => ["--build-arg", `${key}=${base}`]);
        const checked = await run("buildx", ["build", "--check", ...args, path.join(REPO, "images", name)], { env });
        expect(checked.stderr + checked.stdout).toContain("Check complete, no warnings found.");
      }
      // The check can fail.
      const bad = context("bad", { Dockerfile: "FROM scratch\nmaintainer me\nENV a b\n" });
      expect((await run("buildx", ["build", "--check", bad], { env, allowFailure: true })).code).not.toBe(0);
    });
  });

  test("in the cluster, rootless: the same digest twice, and nothing stays behind", async () => {
    const image = await ensureBuildkitImage();
    const namespace = `image-builds-${randomBytes(3).toString("hex")}`;
    await kubectl(["create", "namespace", namespace]);
    try {
      await kubectl(["label", "namespace", namespace, "pod-security.kubernetes.io/enforce=privileged"]);
      const root = context("in-cluster", { ...plainContext, Dockerfile: `FROM ${REGISTRY}/library/debian:bookworm-slim\nCOPY files /files\nRUN cat /files/a.txt >/b.txt\n` });
      const repository = `${REGISTRY}/e2e-${randomBytes(3).toString("hex")}/in-cluster`;
      const args = ["--repository", repository, "--tag", "in-cluster-0123456789ab", "--context", root, "--insecure", "--force", "--builder", "in-cluster", "--namespace", namespace, "--buildkit-image", image];
      const env = { ...ENV, KUBECONFIG, REGISTRY_USERNAME: "me", REGISTRY_PASSWORD: "e2e-s3cret" };
      const digests = [];
      for (let i = 0; i < 2; i++) digests.push((await run(script, args, { env })).stdout);
      expect(digests[1]).toBe(digests[0]);
      expect(digests[0]).toMatch(/@sha256:[0-9a-f]{64}\n$/);
      // Neither the job nor the log-in: it never was an object of the cluster.
      await waitFor("the build's jobs and pods to go", 120, async () => (await kubectl(["-n", namespace, "get", "jobs,pods", "-o", "name"])) === "");
      const secrets = await kubectlJson<{ items: unknown[] }>(["-n", namespace, "get", "secrets"]);
      expect(secrets.items).toEqual([]);
      await run(script, ["--delete", "--repository", repository, "--tag", "in-cluster-0123456789ab", "--insecure"], { env: ENV });
    } finally {
      await kubectl(["delete", "namespace", namespace, "--wait=false"]);
    }
  });
});

test("syft lists what is in an image, and the list is stored beside it", async () => {
  const env = { ...storage(), PATH: `${await buildTestTool("syft")}:${ENV.PATH}` };
  const root = context("listed", { Dockerfile: "FROM scratch\nCOPY status /var/lib/dpkg/status\nCOPY os-release /etc/os-release\n", "os-release": "ID=debian\nVERSION_ID=12\n", status: "Package: hello\nStatus: install ok installed\nVersion: 2.10-3\nArchitecture: amd64\nMaintainer: nobody <n@example.org>\nDescription: x\n" });
  const { stdout } = await build("listed", root, ["--sbom", path.join(folder, "sbom")], { env });
  const sbom = JSON.parse(fs.readFileSync(path.join(folder, "sbom/listed-0123456789ab.spdx.json"), "utf8")) as { spdxVersion: string; packages: { name: string; versionInfo: string }[] };
  expect(sbom.spdxVersion).toMatch(/^SPDX-2/);
  expect(sbom.packages).toContainEqual(expect.objectContaining({ name: "hello", versionInfo: "2.10-3" }));
  expect(await registry.status("e2e/listed", stdout.trim().split("@")[1].replace(":", "-"))).toBe(200);
});
