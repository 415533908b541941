import { randomBytes } from "node:crypto";
import { spawn, type ChildProcess } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { boundedServe, nodeConfig, pushKeys, pushToken, storeConfig } from "../../components/image-registry";
import { buildTestTool } from "../../sandbox/cluster/binaries";
import { enforcePolicies, releasePolicies } from "../../sandbox/cluster/policies";
import { REGISTRY, REPO } from "../../sandbox/paths";
import { run, waitFor } from "../../sandbox/shell";
import { digestOf } from "../unit/agent-images-registry";
import { freePort } from "./agent-images-bed";
import { BUILDKIT_IMAGE, ENV, kubectl, onNode, pulumi } from "./sandbox";

/** ImageRegistry with the real registry: its configurations as processes of this machine, and the component on the cluster, without a Jenkins. */
jest.setTimeout(900_000);

const manifestType = "application/vnd.oci.image.manifest.v1+json";

describe("the configurations, on the real program", () => {
  let folder: string;
  const running: Record<string, ChildProcess> = {};
  const at: Record<string, string> = {};
  const token = { Authorization: `Bearer ${pushToken("s3cret", ["platform/app"])}` };

  async function serve(name: string, config: string, environment: Record<string, string> = {}): Promise<void> {
    at[name] ??= `127.0.0.1:${await freePort()}`;
    fs.writeFileSync(path.join(folder, `${name}.yml`), config);
    const root = path.join(folder, name === "node" ? "node" : "store");
    const env = { ...process.env, OTEL_TRACES_EXPORTER: "none", REGISTRY_HTTP_ADDR: at[name], REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY: root, ...environment };
    running[name] = spawn(path.join(await buildTestTool("registry"), "registry"), ["serve", path.join(folder, `${name}.yml`)], { env, stdio: "ignore" });
    await waitFor(`the registry ${name}`, 60, () => fetch(`http://${at[name]}/v2/`).then(() => true, () => false));
  }
  const end = (name: string) => new Promise<void>((resolve) => void (running[name].once("exit", () => resolve()), running[name].kill()));
  const start = {
    push: () => serve("push", storeConfig(1, "token"), { REGISTRY_AUTH_TOKEN_JWKS: path.join(folder, "keys.json") }),
    pull: () => serve("pull", storeConfig(1, "read")),
    node: () => serve("node", nodeConfig(1, at.pull)),
  };
  const ask = async (name: string, method: string, target: string, headers: Record<string, string> = {}, body?: string) => fetch(`http://${at[name]}/v2/${target}`, { method, headers, ...(body !== undefined && { body }) });
  const statusOf = async (...args: Parameters<typeof ask>) => (await ask(...args)).status;

  const layer = "a layer";
  const manifest = JSON.stringify({ schemaVersion: 2, mediaType: manifestType, config: { mediaType: "application/vnd.oci.image.config.v1+json", digest: digestOf(layer), size: layer.length }, layers: [] });
  const upload = async (name: string, repository: string, headers: Record<string, string>): Promise<number> => {
    const begun = await ask(name, "POST", `${repository}/blobs/uploads/`, headers);
    if (begun.status !== 202) return begun.status;
    const place = begun.headers.get("location")!.replace(/^.*\/v2\//, "");
    await ask(name, "PUT", `${place}&digest=${digestOf(layer)}`, { ...headers, "Content-Type": "application/octet-stream" }, layer);
    return statusOf(name, "PUT", `${repository}/manifests/1`, { ...headers, "Content-Type": manifestType }, manifest);
  };
  const pulled = async () => [await statusOf("node", "GET", `platform/app/manifests/${digestOf(manifest)}`, { Accept: manifestType }), await statusOf("node", "GET", `platform/app/blobs/${digestOf(layer)}`)];

  beforeAll(async () => {
    folder = fs.mkdtempSync(path.join(os.tmpdir(), "image-registry-"));
    fs.writeFileSync(path.join(folder, "keys.json"), pushKeys("s3cret"));
    at.pull = `127.0.0.1:${await freePort()}`;
    // Before what it leads to: after a power cut nobody keeps an order.
    await start.node();
    await start.push();
    await start.pull();
  });
  afterAll(async () => {
    for (const name of Object.keys(running)) await end(name);
    fs.rmSync(folder, { recursive: true });
  });

  test("the token pushes, to its repositories alone, and nobody else does", async () => {
    expect(await upload("push", "platform/app", {})).toBe(401);
    expect(await upload("push", "platform/app", { Authorization: `Bearer ${pushToken("guessed", ["platform/app"])}` })).toBe(401);
    expect(await upload("push", "platform/other", token)).toBe(401);
    expect(await upload("push", "platform/app", token)).toBe(201);
  });

  test("the port that everybody reaches serves, and takes nothing, not even with the token", async () => {
    expect(await statusOf("pull", "GET", "platform/app/tags/list")).toBe(200);
    for (const name of ["pull", "node"]) {
      expect([name, await upload(name, "platform/app", token)]).toEqual([name, 405]);
      expect([name, await statusOf(name, "PUT", "platform/app/manifests/1", { ...token, "Content-Type": manifestType }, manifest)]).toEqual([name, 405]);
      expect([name, await statusOf(name, "DELETE", `platform/app/manifests/${digestOf(manifest)}`, token)]).toEqual([name, 405]);
    }
  });

  test("a node serves what it has had while the registry is away, also after a start of its own", async () => {
    expect(await pulled()).toEqual([200, 200]);
    await waitFor("the layer to be kept", 30, async () => fs.readdirSync(path.join(folder, "node"), { recursive: true }).some((file) => String(file).includes(digestOf(layer).slice(7)) && String(file).endsWith("data")));
    await end("pull");
    expect(await pulled()).toEqual([200, 200]);
    await end("node");
    await start.node();
    expect(await pulled()).toEqual([200, 200]);
    await start.pull();
  });
});

describe("the jobs' registry, on the real program", () => {
  let folder: string;
  let host: string;
  let child: ChildProcess | undefined;
  const log = () => fs.readFileSync(path.join(folder, "log"), "utf8");

  async function start(size: string): Promise<void> {
    const out = fs.openSync(path.join(folder, "log"), "a");
    const env = { ...process.env, PATH: `${await buildTestTool("registry")}:${process.env.PATH}`, OTEL_TRACES_EXPORTER: "none", INTERVAL: "1", REGISTRY_HTTP_ADDR: host, REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY: path.join(folder, "data") };
    child = spawn("sh", ["-c", boundedServe(path.join(folder, "push.yml"), size)], { env, stdio: ["ignore", out, out] });
    fs.closeSync(out);
    await waitFor("the jobs' registry", 60, () => fetch(`http://${host}/v2/`).then(() => true, () => false));
  }
  const stop = async () => {
    const ended = new Promise((resolve) => child?.once("exit", resolve));
    child?.kill();
    await ended;
    child = undefined;
  };
  /** Pushes an image of a mebibyte, by a tag or by its digest alone. */
  async function push(repository: string, tag?: string): Promise<string> {
    const layer = randomBytes(1 << 20);
    const digest = digestOf(layer);
    const begun = await fetch(`http://${host}/v2/${repository}/blobs/uploads/`, { method: "POST" });
    expect((await fetch(`http://${host}/v2/${begun.headers.get("location")!.replace(/^.*\/v2\//, "")}&digest=${digest}`, { method: "PUT", headers: { "Content-Type": "application/octet-stream" }, body: layer })).status).toBe(201);
    const manifest = JSON.stringify({ schemaVersion: 2, mediaType: manifestType, config: { mediaType: "application/vnd.oci.image.config.v1+json", digest, size: layer.length }, layers: [] });
    expect((await fetch(`http://${host}/v2/${repository}/manifests/${tag ?? digestOf(manifest)}`, { method: "PUT", headers: { "Content-Type": manifestType }, body: manifest })).status).toBe(201);
    return digestOf(manifest);
  }
  const has = async (repository: string, reference: string) => (await fetch(`http://${host}/v2/${repository}/manifests/${reference}`, { headers: { Accept: manifestType } }).catch(() => undefined))?.status;

  beforeAll(async () => {
    folder = fs.mkdtempSync(path.join(os.tmpdir(), "jobs-registry-"));
    host = `127.0.0.1:${await freePort()}`;
    fs.mkdirSync(path.join(folder, "data"));
    fs.writeFileSync(path.join(folder, "push.yml"), storeConfig(1, "open"));
  });
  afterAll(async () => {
    if (child) await stop();
    fs.rmSync(folder, { recursive: true });
  });

  test("within its size it keeps everything, above it first what has no tag goes, then the oldest tags, and it serves on", async () => {
    await start("100Mi");
    const untagged = await push("team/app");
    for (const tag of ["1", "2"]) {
      await push("team/app", tag);
      await new Promise((resolve) => setTimeout(resolve, 1100));
    }
    await push("other", "3");
    await stop();
    await start("100Mi");
    expect([await has("team/app", untagged), await has("team/app", "1"), await has("other", "3")]).toEqual([200, 200, 200]);
    await stop();
    // Room for three of the four.
    await start("4Mi");
    await waitFor("the one without tag to go", 30, async () => (await has("team/app", untagged)) === 404);
    expect([await has("team/app", "1"), await has("team/app", "2"), await has("other", "3")]).toEqual([200, 200, 200]);
    expect(log()).not.toContain("the oldest tags go");
    await new Promise((resolve) => setTimeout(resolve, 1100));
    await push("team/app", "4");
    await waitFor("the oldest tag to go", 60, async () => (await has("team/app", "1")) === 404 && (await has("team/app", "4")) === 200);
    expect([await has("team/app", "2"), await has("other", "3")]).toEqual([200, 200]);
    expect(log()).toContain("the oldest tags go");
  });
});

describe("on the cluster", () => {
  const id = randomBytes(3).toString("hex");
  const stack = `registry-${id}`;
  const names = { namespace: `e2e-${id}-registry`, nodesNamespace: `e2e-${id}-pulls`, buildsNamespace: `e2e-${id}-builds`, agentsNamespace: `e2e-${id}-agents` };
  const port = 62000 + (parseInt(id, 16) % 1000);
  const address = (service: string, at: number) => `${service}.${names.namespace}.svc:${at}`;
  let folder: string;
  let env: NodeJS.ProcessEnv;
  const program = (args: string[], allowFailure = false) => pulumi([...args, "--stack", stack], { cwd: folder, env, allowFailure });
  const reference = async () => (JSON.parse((await program(["stack", "output", "references", "--json"])).stdout) as { app: string }).app;
  const write = (file: string, text: string) => {
    fs.mkdirSync(path.dirname(path.join(folder, file)), { recursive: true });
    fs.writeFileSync(path.join(folder, file), text);
  };

  beforeAll(async () => {
    folder = fs.mkdtempSync(path.join(os.tmpdir(), "image-registry-e2e-"));
    for (const link of ["scripts", "node_modules"]) fs.symlinkSync(path.join(REPO, link), path.join(folder, link));
    write("registries.conf", `[[registry]]\nlocation = "${REGISTRY}"\ninsecure = true\n`);
    env = { ...ENV, CONTAINERS_REGISTRIES_CONF: path.join(folder, "registries.conf"), BUILD_IMAGE_STORAGE: path.join(folder, "storage"), TMPDIR: path.join(folder, "tmp") };
    fs.mkdirSync(path.join(folder, "tmp"));
    const base = await fetch(`http://${REGISTRY}/v2/library/debian/manifests/bookworm-slim`, { method: "HEAD", headers: { Accept: manifestType } });
    write("images/app/Dockerfile", "ARG BASE\nFROM ${BASE}\nCOPY word /word\n");
    write("images/app/word", "one\n");
    write("package.json", "{}");
    write("Pulumi.yaml", "name: registry\nruntime: {name: nodejs, options: {typescript: true, tsconfig: tsconfig.json}}\n");
    write("tsconfig.json", JSON.stringify({ extends: path.join(REPO, "tsconfig.json"), compilerOptions: { noCheck: true, noEmit: false }, files: ["index.ts"] }));
    const registry = { ...names, port, size: "1Gi", jobsSize: "1Gi", repositories: ["e2e/app"], storageClassName: stack, image: `${REGISTRY}/library/registry:3.1.2` };
    const images = {
      builder: "in-cluster", images: { app: { context: "images/app", args: { BASE: `${REGISTRY}/library/debian:bookworm-slim@${base.headers.get("docker-content-digest")}` } } },
      registry: { host: address("image-registry", 5001), prefix: "e2e", insecure: true, pulledFrom: `localhost:${port}` }, inCluster: { image: BUILDKIT_IMAGE, namespace: names.buildsNamespace },
    };
    write("index.ts", `import { AgentImages, prepareImages } from ${JSON.stringify(path.join(REPO, "components/agent-images"))};
import { ImageRegistry } from ${JSON.stringify(path.join(REPO, "components/image-registry"))};
export = async () => {
  const args = { ...${JSON.stringify(images)}, builder: process.env.BUILDER ?? "in-cluster" };
  const prepared = await prepareImages(args);
  const registry = new ImageRegistry("registry", ${JSON.stringify(registry)});
  return { references: new AgentImages("images", { ...prepared, registry: { ...prepared.registry, volume: registry.volume } }, { dependsOn: [registry] }).references };
};
`);
    // Folders of the node, as many as claims are made in these tests.
    const volume = (i: number) => ({ apiVersion: "v1", kind: "PersistentVolume", metadata: { name: `${stack}-${i}` }, spec: { storageClassName: stack, capacity: { storage: "1Gi" }, accessModes: ["ReadWriteOnce"], hostPath: { path: `/var/openebs/${stack}/${i}`, type: "DirectoryOrCreate" } } });
    const storageClass = { apiVersion: "storage.k8s.io/v1", kind: "StorageClass", metadata: { name: stack }, provisioner: "kubernetes.io/no-provisioner", volumeBindingMode: "WaitForFirstConsumer" };
    await onNode(["sh", "-c", `mkdir -p -m 0777 ${[0, 1, 2].map((i) => `/var/openebs/${stack}/${i}`).join(" ")} && chmod 0777 /var/openebs/${stack}/*`]);
    const agents = { apiVersion: "v1", kind: "Namespace", metadata: { name: names.agentsNamespace } };
    await kubectl(["apply", "-f", "-"], { input: JSON.stringify({ apiVersion: "v1", kind: "List", items: [storageClass, ...[0, 1, 2].map(volume), agents] }) });
    await pulumi(["stack", "init", stack], { cwd: folder, env });
  });
  afterAll(async () => {
    await program(["destroy", "--yes", "--skip-preview"], true);
    await program(["stack", "rm", "--yes", "--force"], true);
    await kubectl(["delete", "namespace", names.agentsNamespace], { allowFailure: true });
    await kubectl(["delete", "storageclass", stack], { allowFailure: true });
    await kubectl(["delete", "persistentvolume", ...[0, 1, 2].map((i) => `${stack}-${i}`), "--wait=false"], { allowFailure: true });
    await onNode(["rm", "-rf", `/var/openebs/${stack}`], { allowFailure: true });
    fs.rmSync(folder, { recursive: true, force: true });
  });

  test("an image is built into it, a pod has it from the node's loopback, and a second up changes nothing", async () => {
    await program(["up", "--yes", "--skip-preview"]);
    expect(await reference()).toMatch(new RegExp(`^localhost:${port}/e2e/app@sha256:[0-9a-f]{64}$`));
    const pod = { apiVersion: "v1", kind: "Pod", metadata: { name: "agent", namespace: names.agentsNamespace }, spec: { terminationGracePeriodSeconds: 0, containers: [{ name: "main", image: await reference(), command: ["sleep", "3600"] }] } };
    await kubectl(["apply", "-f", "-"], { input: JSON.stringify(pod) });
    await kubectl(["-n", names.agentsNamespace, "wait", "--for=condition=Ready", "pod/agent", "--timeout=180s"]);
    expect(await kubectl(["-n", names.agentsNamespace, "exec", "agent", "--", "cat", "/word"])).toBe("one\n");
    expect((await program(["up", "--yes", "--skip-preview", "--expect-no-changes"])).stdout).toMatch(/\d+ unchanged/);
  });

  /** Status of a request of the pod, by bash alone; 000 where no connection comes about. */
  async function status(method: string, host: string, target: string): Promise<string> {
    const [name, at] = host.split(":");
    const text = `${method} ${target} HTTP/1.1\\r\\nHost: ${host}\\r\\nAccept: ${manifestType}\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n`;
    const script = `(timeout 5 bash -c 'exec 3<>/dev/tcp/${name}/${at} && printf "${text}" >&3 && head -n 1 <&3' 2>/dev/null || true) | cut -d " " -f 2 | grep . || echo 000`;
    return (await kubectl(["-n", names.agentsNamespace, "exec", "agent", "--", "bash", "-c", script])).trim();
  }
  const curl = async (...args: string[]) => (await onNode(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", ...args])).stdout;

  test("an agent reads, and cannot overwrite, whether policies are enforced or not; its jobs have a registry of their own", async () => {
    const start = "/v2/e2e/app/blobs/uploads/";
    expect(await status("GET", address("image-registry", 5000), "/v2/e2e/app/tags/list")).toBe("200");
    expect(await status("POST", address("image-registry", 5000), start)).toBe("405");
    expect(await status("POST", address("image-registry", 5001), start)).toBe("401");
    // A node's loopback is not a pod's; whoever is on the node cannot write there either.
    expect(await status("GET", `127.0.0.1:${port}`, "/v2/")).toBe("000");
    expect(await curl("-X", "POST", `http://localhost:${port}${start}`)).toBe("405");
    expect(await status("POST", address("jobs-registry", 5000), "/v2/jobs/app/blobs/uploads/")).toBe("202");
    expect(await status("GET", address("jobs-registry", 5000), "/v2/e2e/app/tags/list")).toBe("404");
    await enforcePolicies();
    try {
      await waitFor("the policy to be in force", 60, async () => (await status("POST", address("image-registry", 5001), start)) === "000");
      expect(await status("GET", address("image-registry", 5000), "/v2/e2e/app/tags/list")).toBe("200");
      expect(await status("POST", address("jobs-registry", 5000), "/v2/jobs/app/blobs/uploads/")).toBe("202");
      expect(await curl(`http://localhost:${port}/v2/e2e/app/tags/list`)).toBe("200");
    } finally {
      await releasePolicies();
    }
  });

  test("what is unused goes, its space with it, and what runs stays", async () => {
    const used = async () => Number((await onNode(["sh", "-c", `du -sk /var/openebs/${stack} | cut -f 1`])).stdout);
    const former = await reference();
    write("images/app/word", randomBytes(3 << 20).toString("hex"));
    await program(["up", "--yes", "--skip-preview"]);
    const unused = await reference();
    write("images/app/word", "two\n");
    await program(["up", "--yes", "--skip-preview"]);
    const before = await used();
    const { stdout } = await run(path.join(REPO, "scripts/images/clean-images.sh"), ["--built-in", `${names.namespace}/e2e`, "--keep", "1", "app"], { env });
    expect(stdout.trim().split("\n")).toEqual([`${address("image-registry", 5001)}/e2e/app@${unused.split("@")[1]}`]);
    expect(before - (await used())).toBeGreaterThan(2 << 10);
    const has = async (image: string) => (await status("GET", address("image-registry", 5000), `/v2/e2e/app/manifests/${image.split("@")[1]}`)) === "200";
    expect([await has(former), await has(unused), await has(await reference())]).toEqual([true, false, true]);
  });

  test("with the volume gone, up builds into the new one what it had built before", async () => {
    const labels = ["-l", "app.kubernetes.io/name=image-registry"];
    await kubectl(["-n", names.namespace, "delete", "pvc", ...labels, "--wait=false"]);
    await kubectl(["-n", names.namespace, "delete", "pod", ...labels]);
    await waitFor("the claim to be gone", 60, async () => (await kubectl(["-n", names.namespace, "get", "pvc", ...labels, "-o", "name"])) === "");
    await program(["up", "--yes", "--skip-preview", "--refresh"]);
    const { tags } = JSON.parse(await kubectl(["get", "--raw", `/api/v1/namespaces/${names.namespace}/services/image-registry:pull/proxy/v2/e2e/app/tags/list`])) as { tags: string[] };
    expect(tags).toContainEqual(expect.stringMatching(/^app-[0-9a-f]{12}$/));
  });

  test("a local buildah pushes to it through the API server: nodes pull by the same name, nobody sees the token, and nothing is left behind", async () => {
    const token = Buffer.from(await kubectl(["-n", names.namespace, "get", "secret", "image-registry-push", "-o", "jsonpath={.data.token}"]), "base64").toString();
    expect(token).toMatch(/^ey/);
    const former = await reference();
    const seen = new Set<string>();
    const watch = setInterval(() => {
      for (const pid of fs.readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
        try {
          seen.add(fs.readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " "));
        } catch {
          // ended meanwhile
        }
      }
    }, 20);
    env.BUILDER = "buildah";
    write("images/app/word", "three\n");
    const ended = await program(["up", "--yes", "--skip-preview"]).finally(() => clearInterval(watch));
    const forwards = () => [...seen].filter((line) => line.includes(`--namespace ${names.namespace}`) && line.includes("port-forward"));
    expect(forwards()).not.toEqual([]);
    for (const text of [ended.stdout, ended.stderr, ...seen]) expect(text).not.toContain(token);
    expect((await run("grep", ["-rlF", token, folder], { allowFailure: true })).stdout).toBe("");
    expect(fs.readdirSync(path.join(folder, "tmp")).filter((name) => name.startsWith("build-image."))).toEqual([]);
    expect((await run("pgrep", ["-f", `${names.namespace} .*port-forward`], { allowFailure: true })).stdout).toBe("");
    expect(await reference()).toMatch(new RegExp(`^localhost:${port}/e2e/app@sha256:[0-9a-f]{64}$`));
    expect(await reference()).not.toBe(former);
    const pod = { apiVersion: "v1", kind: "Pod", metadata: { name: "pushed", namespace: names.agentsNamespace }, spec: { terminationGracePeriodSeconds: 0, containers: [{ name: "main", image: await reference(), command: ["sleep", "3600"] }] } };
    await kubectl(["apply", "-f", "-"], { input: JSON.stringify(pod) });
    await kubectl(["-n", names.agentsNamespace, "wait", "--for=condition=Ready", "pod/pushed", "--timeout=180s"]);
    expect(await kubectl(["-n", names.agentsNamespace, "exec", "pushed", "--", "cat", "/word"])).toBe("three\n");
    expect((await program(["up", "--yes", "--skip-preview", "--expect-no-changes"])).stdout).toMatch(/\d+ unchanged/);
  });

  test("another key is made where the old one may be known: its token is of no more use, and what is built afterwards is pushed with the new one", async () => {
    const token = async () => Buffer.from(await kubectl(["-n", names.namespace, "get", "secret", "image-registry-push", "-o", "jsonpath={.data.token}"]), "base64").toString();
    const former = await token();
    const { stdout: urns } = await program(["stack", "--show-urns"]);
    write("images/app/word", "four\n");
    await program(["up", "--yes", "--skip-preview", "--replace", /urn:\S+::registry-push-key/.exec(urns)![0]]);
    expect(await token()).not.toBe(former);
    const answer = (with_: string) => kubectl(["-n", names.agentsNamespace, "exec", "pushed", "--", "bash", "-c", `exec 3<>/dev/tcp/image-registry.${names.namespace}.svc/5001; printf 'GET /v2/e2e/app/tags/list HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\nAuthorization: Bearer ${with_}\\r\\n\\r\\n' >&3; head -n 1 <&3`]);
    expect([await answer(former), await answer(await token())]).toEqual([expect.stringContaining(" 401 "), expect.stringContaining(" 200 ")]);
    expect((await program(["up", "--yes", "--skip-preview", "--expect-no-changes"])).stdout).toMatch(/\d+ unchanged/);
  });
});
