import { randomBytes } from "node:crypto";
import { spawn } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { installPackages } from "../../sandbox/cluster/packages";
import { REPO } from "../../sandbox/paths";
import { run, waitFor, type Result } from "../../sandbox/shell";
import type { AgentImagesArgs, ImageSpec } from "../../components/agent-images";
import { Bed, plainContext, script, type Registry } from "./agent-images-bed";

/** AgentImages through the real engine, and its script with real buildah and a real registry. BuildKit: see tests/campaign. */
jest.setTimeout(10 * 60_000);

let folder: string;
let registry: Registry;
let bed: Bed;

beforeAll(() => installPackages(["buildah", "curl"]));
beforeEach(async () => {
  bed = new Bed();
  ({ folder, registry } = bed);
  await registry.start(false);
});
afterEach(() => bed.remove());

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
      env: { ...bed.storage(), PULUMI_BACKEND_URL: `file://${project}/.state`, PULUMI_CONFIG_PASSPHRASE: "e2e" },
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
      const root = bed.context(`clone-${n}`, plainContext);
      for (const file of ["Dockerfile", "files/a.txt", "files/run.sh"]) {
        fs.chmodSync(path.join(root, file), file.endsWith(".sh") ? mode | 0o100 : mode);
        fs.utimesSync(path.join(root, file), 1, n === "a" ? 1 : 1_700_000_000);
      }
      digests.push((await bed.build("same", root, [], { env: bed.storage(`storage-${n}`) })).stdout);
    }
    expect(digests[1]).toBe(digests[0]);
    expect(digests[0]).toMatch(/@sha256:[0-9a-f]{64}\n$/);
    const other = bed.context("clone-c", { ...plainContext, "files/a.txt": "b\n" });
    expect((await bed.build("same", other)).stdout).not.toBe(digests[0]);
  });

  test("two platforms become one index", async () => {
    const { stdout } = await bed.build("multi", bed.context("multi", plainContext), ["--platforms", "linux/amd64,linux/arm64"]);
    const answer = await fetch(`http://${registry.host}/v2/e2e/multi/manifests/${stdout.trim().split("@")[1]}`, { headers: { Accept: "application/vnd.oci.image.index.v1+json" } });
    const index = (await answer.json()) as { manifests: { platform: { architecture: string } }[] };
    expect(index.manifests.map((m) => m.platform.architecture).sort()).toEqual(["amd64", "arm64"]);
  });

  test("a push that is killed leaves no tag, and the next one succeeds", async () => {
    const root = bed.context("large", { Dockerfile: "FROM scratch\nCOPY blob /\n", blob: randomBytes(150_000_000) });
    const child = spawn(script, ["--repository", `${registry.host}/e2e/large`, "--tag", "large-0123456789ab", "--context", root, "--insecure"], { env: bed.storage(), stdio: ["ignore", "pipe", "pipe"] });
    const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
    // Killed when the first bytes have reached the registry, and the last ones have not.
    await waitFor("the upload to begin", 120, async () => registry.writes() > 0);
    expect(await registry.status("e2e/large", "large-0123456789ab")).toBe(404);
    child.kill("SIGTERM");
    expect(await ended).toBe(143);
    expect(await registry.status("e2e/large", "large-0123456789ab")).toBe(404);
    expect((await run("pgrep", ["-f", root], { allowFailure: true })).stdout).toBe("");

    const { stdout } = await bed.build("large", root);
    expect(await registry.status("e2e/large", stdout.trim().split("@")[1])).toBe(200);
  });

  test("a full disk is named as such", async () => {
    const small = path.join(folder, "small");
    fs.mkdirSync(small);
    await run("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", small]);
    const root = bed.context("big", { Dockerfile: "FROM scratch\nCOPY blob /\n", blob: randomBytes(8_000_000) });
    const ended = await bed.build("big", root, [], { env: bed.storage("small"), allowFailure: true });
    expect(ended).toMatchObject({ code: 1, stdout: "" });
    expect(ended.stderr).toMatch(/big: build failed .*the disk is full: free some space/);
    expect(await registry.status("e2e/big", "big-0123456789ab")).toBe(404);
  });
});
