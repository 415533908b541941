import { spawn } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { parse, stringify } from "yaml";
import { cacheConfig, cacheKeeperScript, loginHelper } from "../../components/image-cache";
import { dockerKeeperScript } from "../../components/jenkins-master/docker-cache";
import { buildTestTool } from "../../sandbox/cluster/binaries";
import { REGISTRY, REPO } from "../../sandbox/paths";
import { run, waitFor } from "../../sandbox/shell";
import { Bed, freePort, script } from "../e2e/agent-images-bed";
import { LimitedHub } from "../e2e/limited-hub";
import { createJob, deleteJob, ensurePlatform, finishedBuild, jobXml, kubectl, STACK, startBuild, up } from "../e2e/sandbox";
import { DockerBed } from "./docker-bed";

/** What Docker keeps between builds, with the real dockerd, and what the cluster keeps of public registries, with the real registry. */

jest.setTimeout(900_000);

describe("a slot of Docker's data", () => {
  // The daemons have no network: what they are asked for is there, or it is not.
  let bed: DockerBed;
  beforeEach(async () => {
    bed = new DockerBed(["--bridge=none", "--iptables=false"]);
    await bed.setUp();
  });
  afterEach(() => bed.remove());
  const slot = (...rest: string[]) => path.join(bed.slots, "slot-0", ...rest);
  const context = () => bed.context("scratch", { Dockerfile: "FROM scratch\nCOPY a /a\nCOPY b /b\n", a: "a", b: "b" });
  const built = async (...args: Parameters<DockerBed["start"]>) => {
    const daemon = await bed.start(...args);
    return { daemon, log: (await daemon.docker(["build", "--progress=plain", "-t", "maven:3", context()])).stderr };
  };

  test.each(["dash", "busybox sh"])("content stays for the next agent, and no name: no tag, no container, no volume, no network (%s)", async (shell) => {
    bed.shell = shell;
    const first = await built("first");
    expect(first.log).not.toContain("CACHED");
    await first.daemon.docker(["volume", "create", "theirs"]);
    await first.daemon.docker(["network", "create", "--driver=null", "theirs"], { allowFailure: true });
    await first.daemon.docker(["create", "--restart=always", "--name=theirs", "maven:3", "/a"]);
    expect(await first.daemon.end()).toBe(0);

    const second = await bed.start("second");
    expect(second.said()).toEqual(["slot-0, as the last agent left it"]);
    expect((await second.docker(["image", "ls", "-a", "--format", "{{.Repository}}:{{.Tag}}"])).stdout.trim()).toBe("<none>:<none>");
    for (const what of [["ps", "-aq"], ["volume", "ls", "-q"]]) expect((await second.docker(what)).stdout).toBe("");
    expect((await second.docker(["network", "ls", "--format", "{{.Name}}"])).stdout.trim().split("\n").sort()).toEqual(["host", "none"]);
    // Nobody serves the name, so that it can only come from what the first one left.
    expect(await second.docker(["run", "--rm", "--pull=never", "maven:3", "/a"], { allowFailure: true })).toMatchObject({ code: 125 });
    expect((await second.docker(["build", "--progress=plain", "-t", "app", context()])).stderr.match(/CACHED/g)).toHaveLength(2);
    expect(await second.end()).toBe(0);
  });

  test("without docker in caches an agent begins with nothing and leaves nothing", async () => {
    const { daemon } = await built("first", { caches: [] });
    await daemon.end();
    expect(fs.readdirSync(bed.slots)).toEqual([]);
    expect((await built("second", { caches: [] })).log).not.toContain("CACHED");
  });

  test("two at once have a slot each, and a third takes over from whichever ended", async () => {
    const [one, other] = [await bed.start("one"), await bed.start("other")];
    expect(fs.readdirSync(bed.slots).sort()).toEqual(["slot-0", "slot-0.lock", "slot-1", "slot-1.lock"]);
    await one.docker(["build", context()]);
    await one.end();
    const { daemon, log } = await built("third");
    expect(daemon.said()).toEqual(["slot-0, as the last agent left it"]);
    expect(log).toContain("CACHED");
    expect(await other.end()).toBe(0);
  });

  test("a slot whose agent was killed is thrown away, and the next has a working daemon at once", async () => {
    const first = await built("first");
    await first.daemon.end("KILL");
    await waitFor("the lock to be free", 10, async () => (await run("flock", ["-n", `${slot()}.lock`, "true"], { allowFailure: true })).code === 0);
    const second = await built("second");
    expect(second.daemon.said()).toEqual(["slot-0 was not left in order, or is another version's: begun anew"]);
    expect(second.log).not.toContain("CACHED");
    expect(await second.daemon.end()).toBe(0);
  });

  test.each<[string, () => void, string[]]>([
    ["BuildKit's data", () => fs.writeFileSync(slot("data/buildkit/metadata_v2.db"), Buffer.alloc(9000, 7)), ["slot-0, as the last agent left it", "dockerd does not start with slot-0: begun anew"]],
    ["the data folder", () => (fs.rmSync(slot("data"), { recursive: true }), fs.writeFileSync(slot("data"), "")), ["slot-0 was not left in order, or is another version's: begun anew"]],
    ["a crash of the node before it was written", () => fs.writeFileSync(slot("clean"), fs.readFileSync(slot("clean"), "utf8").replace("synced", "11111111-2222-3333-4444-555555555555")), ["slot-0 was not left in order, or is another version's: begun anew"]],
    ["another version of dockerd", () => fs.writeFileSync(slot("clean"), "Docker version 1.0 synced\n"), ["slot-0 was not left in order, or is another version's: begun anew"]],
  ])("broken by %s: begun anew, never an error", async (_, breakIt, said) => {
    await (await built("first")).daemon.end();
    breakIt();
    const second = await built("second");
    expect(second.daemon.said()).toEqual(said);
    expect(await second.daemon.end()).toBe(0);
    expect((await built("third")).log).toContain("CACHED");
  });

  test("a container that was half removed takes nobody else's layers along", async () => {
    await (await built("first")).daemon.end();
    const mounts = slot("data/image/overlay2/layerdb/mounts/c1");
    fs.mkdirSync(mounts, { recursive: true });
    fs.writeFileSync(path.join(mounts, "mount-id"), "gone");
    const links = fs.readdirSync(slot("data/overlay2/l"));
    expect(links.length).toBeGreaterThan(0);
    const { daemon, log } = await built("second");
    expect(daemon.said()).toEqual(["slot-0, as the last agent left it"]);
    expect(log).toContain("CACHED");
    expect(fs.readdirSync(slot("data/overlay2/l"))).toEqual(expect.arrayContaining(links));
    expect(fs.existsSync(mounts)).toBe(false);
  });

  test("dockerSize is about what the build itself needs, beside what was there", async () => {
    const first = await bed.start("first");
    await first.docker(["build", "-q", "-t", "x", bed.context("large", { Dockerfile: "FROM scratch\nCOPY big /\n", big: Buffer.alloc(20_000_000, 5) })]);
    await first.end();
    const second = await bed.start("second", { env: { MAX_KIB: "10000", WATCH_SECONDS: "1" } });
    await new Promise((resolve) => setTimeout(resolve, 3000));
    expect((await second.docker(["version"])).code).toBe(0);
    expect(await second.end()).toBe(0);
  });

  test("where no slot can be had, the daemon serves on the pod's own volume", async () => {
    fs.rmSync(bed.slots, { recursive: true });
    const { daemon } = await built("first");
    expect(daemon.said()).toEqual([expect.stringMatching(/^no slot in .* can be had: nothing is kept/)]);
    expect(await daemon.end()).toBe(0);
  });

  test("an agent leaves no more than its share, the image that was named longest ago first", async () => {
    const daemon = await bed.start("first", { env: { KEPT_KIB: "30000" } });
    for (const name of ["old", "new"]) {
      // Not BuildKit's, whose cache would hold the layers as well.
      const folder = bed.context(name, { Dockerfile: "FROM scratch\nCOPY big /\n", big: Buffer.alloc(20_000_000, name) });
      await daemon.docker(["build", "-q", "-t", name, folder], { env: { DOCKER_BUILDKIT: "0" } });
    }
    const [old, recent] = (await daemon.docker(["image", "inspect", "-f", "{{.Id}}", "old", "new"])).stdout.trim().split("\n");
    fs.writeFileSync(slot("used"), "40000\n");
    expect(await daemon.end()).toBe(0);
    const left = (await (await bed.start("second")).docker(["image", "ls", "-aq", "--no-trunc"])).stdout;
    expect(left).toContain(recent);
    expect(left).not.toContain(old);
  });

  test("a build that passes dockerSize loses its daemon, and the slot is thrown away", async () => {
    const daemon = await bed.start("first", { env: { MAX_KIB: "10000", WATCH_SECONDS: "1" } });
    await new Promise((resolve) => setTimeout(resolve, 3000));
    await daemon.docker(["build", "-q", bed.context("large", { Dockerfile: "FROM scratch\nCOPY big /\n", big: Buffer.alloc(20_000_000, 5) })], { allowFailure: true });
    expect(await daemon.ended).toBe(1);
    expect(daemon.said()).toContainEqual(expect.stringMatching(/^\d+ KiB of images, containers and layers are more than dockerSize, 10000 KiB: the daemon ends$/));
    expect((await bed.start("second")).said()).toEqual(["slot-0 was not left in order, or is another version's: begun anew"]);
  });

  test("the keeper throws away the slot that was taken longest ago, and none that is held", async () => {
    for (const [i, seconds] of [[0, 100], [1, 300], [2, 200]]) {
      fs.mkdirSync(path.join(bed.folder, "docker/agents", `slot-${i}/data`), { recursive: true });
      fs.writeFileSync(path.join(bed.folder, "docker/agents", `slot-${i}/data/layer`), Buffer.alloc(1_000_000, 1));
      fs.writeFileSync(path.join(bed.folder, "docker/agents", `slot-${i}.lock`), "");
      fs.utimesSync(path.join(bed.folder, "docker/agents", `slot-${i}.lock`), new Date(), new Date(Date.now() - seconds * 1000));
    }
    const outside = path.join(bed.folder, "outside");
    fs.mkdirSync(outside);
    fs.writeFileSync(path.join(outside, "kept"), "kept");
    fs.symlinkSync(outside, path.join(bed.folder, "docker/agents/.trash-link"));
    const slots = () => fs.readdirSync(path.join(bed.folder, "docker/agents")).filter((name) => !name.endsWith(".lock")).sort();
    // The oldest is in use.
    const holder = spawn("flock", [path.join(bed.folder, "docker/agents/slot-1.lock"), "sleep", "60"], { detached: true });
    await waitFor("the lock to be held", 10, async () => (await run("flock", ["-n", path.join(bed.folder, "docker/agents/slot-1.lock"), "true"], { allowFailure: true })).code === 1);
    const keeper = spawn("bash", ["-c", dockerKeeperScript], { env: { ...process.env, CACHE: bed.folder, MAX_KIB: "2500", INTERVAL: "1" } });
    try {
      await waitFor("the second oldest to go", 30, async () => slots().join() === "slot-0,slot-1");
      await new Promise((resolve) => setTimeout(resolve, 2500));
      expect(slots()).toEqual(["slot-0", "slot-1"]);
      expect(fs.readdirSync(outside)).toEqual(["kept"]);
    } finally {
      keeper.kill("SIGKILL");
      process.kill(-holder.pid!);
    }
  });
});

describe("the cache of a public registry", () => {
  let bed: Bed, hub: LimitedHub, folder: string;
  const stops: (() => Promise<void>)[] = [];
  beforeEach(async () => {
    bed = new Bed();
    await bed.registry.start(true);
    hub = new LimitedHub(bed.registry.host);
    await hub.start();
    folder = path.join(bed.folder, "cache");
  });
  afterEach(async () => {
    for (const stop of stops.splice(0)) await stop();
    await hub.stop();
    await bed.remove();
  });

  async function seed(repository: string): Promise<void> {
    const context = bed.context("seed", { Dockerfile: "FROM scratch\nCOPY a /a\n", a: Buffer.alloc(200_000, 3) });
    await run(script, ["--repository", `${hub.host}/${repository}`, "--context", context, "--tag", "1", "--insecure"], { env: { ...bed.storage(), REGISTRY_USERNAME: "me", REGISTRY_PASSWORD: "e2e-s3cret" } });
  }

  /** The program with the component's own configuration, its folders and port this test's. */
  async function cache(login: boolean): Promise<string> {
    const port = await freePort();
    fs.mkdirSync(path.join(folder, "login"), { recursive: true });
    fs.writeFileSync(path.join(folder, "login/docker-io"), loginHelper({ username: "me", password: "e2e-s3cret" }), { mode: 0o755 });
    const text = cacheConfig({ registry: "docker.io", upstream: `http://${hub.host}`, ...(login && { login: { username: "me", password: "e2e-s3cret" } }) }, port, 30);
    expect(text).not.toContain("e2e-s3cret");
    fs.writeFileSync(path.join(folder, "config.yml"), text.replace("/var/lib/registry", `${folder}/images`).replace("/etc/image-cache", `${folder}/login`).replace(`:${port}`, `127.0.0.1:${port}`));
    const child = spawn(path.join(await buildTestTool("registry"), "registry"), ["serve", path.join(folder, "config.yml")], { env: { ...process.env, OTEL_TRACES_EXPORTER: "none" }, stdio: "ignore" });
    const ended = new Promise((resolve) => child.once("exit", resolve));
    stops.push(async () => void (child.kill(), await ended));
    await waitFor("the cache", 30, () => fetch(`http://127.0.0.1:${port}/v2/`).then(({ ok }) => ok, () => false));
    return `http://127.0.0.1:${port}`;
  }

  const types = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json";
  /** Pulls as a client does: the tag's manifest, then every blob of it. */
  async function pull(address: string, repository: string): Promise<number> {
    const answer = await fetch(`${address}/v2/${repository}/manifests/1`, { headers: { Accept: types } });
    if (!answer.ok) return answer.status;
    const { config, layers } = (await answer.json()) as { config: { digest: string }; layers: { digest: string }[] };
    for (const { digest } of [config, ...layers]) {
      const blob = await fetch(`${address}/v2/${repository}/blobs/${digest}`);
      if (!blob.ok) return blob.status;
      await blob.arrayBuffer();
    }
    return 200;
  }
  const blobs = async () => (await run("find", [folder, "-path", "*/blobs/*", "-name", "data"])).stdout.split("\n").filter(Boolean);

  test("what was pulled once is served while the registry refuses (429) and while it is gone; what was not is refused", async () => {
    await seed("library/base");
    await seed("library/other");
    const address = await cache(true);
    expect(await pull(address, "library/base")).toBe(200);
    await waitFor("the content to be kept", 10, async () => (await blobs()).length === 3);
    const served = hub.served.filter((each) => each.includes("/blobs/")).length;
    expect(await pull(address, "library/base")).toBe(200);
    expect(hub.served.filter((each) => each.includes("/blobs/")).length).toBe(served);

    // The same volume without the login: the hub answers 429 to everything.
    for (const stop of stops.splice(0)) await stop();
    const refusing = await cache(false);
    const refused = hub.refused;
    expect(await pull(refusing, "library/base")).toBe(200);
    expect(hub.refused).toBeGreaterThan(refused);
    expect(await pull(refusing, "library/other")).toBeGreaterThanOrEqual(400);

    await hub.stop();
    expect(await pull(refusing, "library/base")).toBe(200);
    // It also starts while nobody answers.
    for (const stop of stops.splice(0)) await stop();
    expect(await pull(await cache(false), "library/base")).toBe(200);
  });

  test("the keeper deletes what was pulled longest ago, and it is fetched anew when somebody asks", async () => {
    await seed("library/base");
    const address = await cache(true);
    expect(await pull(address, "library/base")).toBe(200);
    await waitFor("the content to be kept", 10, async () => (await blobs()).length === 3);
    const keep = (kib: number) => spawn("sh", ["-c", cacheKeeperScript], { env: { ...process.env, FOLDER: path.join(folder, "images"), MAX_KIB: String(kib), INTERVAL: "1" } });
    const within = keep(1_000_000);
    await new Promise((resolve) => setTimeout(resolve, 1500));
    within.kill("SIGKILL");
    expect(await blobs()).toHaveLength(3);
    const beyond = keep(1);
    await waitFor("everything to be deleted", 30, async () => (await blobs()).length === 0);
    beyond.kill("SIGKILL");
    expect(await pull(address, "library/base")).toBe(200);
  });
});

describe("on agents of a stack that has both", () => {
  const stackFile = path.join(REPO, `Pulumi.${STACK}.yaml`);
  const former = fs.readFileSync(stackFile, "utf8");
  const job = "campaign-docker";
  beforeAll(async () => {
    const document = parse(former) as { config: Record<string, unknown> };
    const agents = document.config["build-platform:agents"] as { caches: string[] }[];
    agents[0].caches.push("docker");
    Object.assign(document.config, { "build-platform:imageCache": { registries: ["docker.io"], size: "2Gi" }, "build-platform:mirrors": { registries: { "docker.io": REGISTRY } } });
    fs.writeFileSync(stackFile, stringify(document));
    await ensurePlatform();
    const lines = ["set -e", "docker image ls -a --format 'found {{.Repository}}:{{.Tag}}'", String.raw`printf 'FROM debian:bookworm-slim\nRUN echo 1 >/1\nRUN echo 2 >/2\n' >Dockerfile`, "docker build -t maven:3 .", "docker run --rm maven:3 cat /2"];
    await createJob(job, jobXml("maven", lines.join("\n")));
  });
  afterAll(async () => {
    await deleteJob(job);
    fs.writeFileSync(stackFile, former);
    await up();
  });

  test("the second build's agent has the first one's layers and none of its tags; Docker Hub's name came by the cluster's cache", async () => {
    const build = async () => finishedBuild(job, await startBuild(job), 400);
    const first = await build();
    expect(first).toMatchObject({ result: "SUCCESS", console: expect.stringContaining("Pull complete") });
    await waitFor("the first agent to be gone", 120, async () => (await kubectl(["-n", "jenkins-agents", "get", "pods", "-l", "jenkins=agent", "-o", "name"])).trim() === "");
    const second = await build();
    expect(second.result).toBe("SUCCESS");
    expect(second.console).not.toContain("Pull complete");
    expect(second.console.match(/Using cache/g)).toHaveLength(2);
    expect(second.console.match(/^found .*/gm)!.every((line) => line === "found <none>:<none>")).toBe(true);
    expect(Number(await kubectl(["-n", "image-cache", "exec", "deployment/image-cache", "-c", "keeper", "--", "sh", "-c", "find /var/lib/registry/docker-io -name data | wc -l"]))).toBeGreaterThanOrEqual(3);
  });

  test("a second up changes nothing", async () => expect(await up("--expect-no-changes")).toMatch(/\d+ unchanged/));
});
