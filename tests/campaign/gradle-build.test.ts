import { type ChildProcess, spawn } from "node:child_process";
import * as fs from "node:fs";
import * as net from "node:net";
import * as os from "node:os";
import * as path from "node:path";
import { buildCache, buildCacheConfig, buildCacheInit, buildCacheKeeper } from "../../components/jenkins-master/build-cache";
import { installPackages } from "../../sandbox/cluster/packages";
import { run, waitFor } from "../../sandbox/shell";
import { freePort } from "../e2e/agent-images-bed";

/** Gradle's build cache with the real nginx and the real Gradle, on this machine alone. */

jest.setTimeout(900_000);

let root: string;
let nginx: ChildProcess;
let port: number;
const at = (...rest: string[]) => path.join(root, ...rest);
const entries = () => fs.readdirSync(at("cache"), { recursive: true, withFileTypes: true }).filter((each) => each.isFile()).map((each) => path.join(each.parentPath, each.name));

beforeAll(async () => {
  await installPackages(["gradle", "default-jdk-headless", "nginx-light"]);
  root = fs.mkdtempSync(path.join(os.tmpdir(), "gradle-build-"));
  fs.mkdirSync(at("cache"));
  // nginx' workers are nobody's: in a pod all of it is one user's.
  fs.chmodSync(root, 0o755);
  fs.chmodSync(at("cache"), 0o777);
  port = await freePort();
  fs.writeFileSync(at("nginx.conf"), buildCacheConfig(at("cache"), `127.0.0.1:${port}`, root));
  nginx = spawn("nginx", ["-c", at("nginx.conf"), "-g", "daemon off;"], { stdio: "inherit" });
  await waitFor("nginx", 30, () => fetch(`http://127.0.0.1:${port}/`).then(({ status }) => status === 204, () => false));
});
afterAll(async () => {
  const ended = new Promise((resolve) => nginx.once("exit", resolve));
  nginx.kill();
  await ended;
  fs.rmSync(root, { recursive: true, force: true });
});

/** A build in a workspace and a home of its own, as each agent has; what Gradle says of its tasks. */
async function build(name: string, further: { source?: string; env?: Record<string, string>; files?: Record<string, string>; args?: string[]; from?: string } = {}): Promise<string> {
  const workspace = at(name, "workspace");
  fs.mkdirSync(path.join(workspace, "src/main/java"), { recursive: true });
  fs.mkdirSync(at(name, "home/init.d"), { recursive: true });
  fs.writeFileSync(at(name, "home/init.d/build-cache.gradle"), buildCacheInit);
  fs.writeFileSync(path.join(workspace, "settings.gradle"), "rootProject.name = 'app'\n");
  fs.writeFileSync(path.join(workspace, "build.gradle"), "apply plugin: 'java'\n");
  fs.writeFileSync(path.join(workspace, "src/main/java/App.java"), further.source ?? "public class App { public static int answer() { return 42; } }\n");
  for (const [file, text] of Object.entries(further.files ?? {})) {
    fs.mkdirSync(path.dirname(at(name, file)), { recursive: true });
    fs.writeFileSync(at(name, file), text);
  }
  const { env } = buildCache({ caches: ["gradle-build"], cacheGroup: "release" }, `http://127.0.0.1:${port}`, at(name, "home"));
  const { stdout } = await run("gradle", ["--no-daemon", "--console=plain", ...(further.args ?? []), "classes"], { cwd: path.join(workspace, further.from ?? ""), env: { ...process.env, ...env, ...further.env } });
  expect(fs.existsSync(path.join(workspace, "build/classes/java/main/App.class"))).toBe(true);
  return stdout;
}

test("what one agent compiled the next one has, byte for byte, and what has other sources is compiled", async () => {
  expect(await build("first")).not.toMatch(/FROM-CACHE/);
  expect(entries().map((file) => path.relative(at("cache"), file))).toEqual([expect.stringMatching(/^release\/[0-9a-f]{32}$/)]);
  expect(await build("second")).toMatch(/compileJava FROM-CACHE/);
  const compiled = (name: string) => fs.readFileSync(at(name, "workspace/build/classes/java/main/App.class"));
  expect(compiled("second").equals(compiled("first"))).toBe(true);
  expect(await build("other", { source: "public class App { public static int answer() { return 43; } }\n" })).not.toMatch(/FROM-CACHE/);
});

test("an empty GRADLE_BUILD_CACHE shuts it off, and a cache that is away stops no build", async () => {
  const before = entries().length;
  expect(await build("off", { env: { GRADLE_BUILD_CACHE: "" } })).not.toMatch(/FROM-CACHE/);
  expect(entries()).toHaveLength(before);
  expect(await build("away", { env: { GRADLE_BUILD_CACHE: `http://127.0.0.1:${await freePort()}/release/` } })).not.toMatch(/FROM-CACHE/);
});

test.each<[string, Parameters<typeof build>[1]]>([
  ["the project says", { files: { "workspace/gradle.properties": "org.gradle.caching=false\n" } }],
  ["the root project says, to a build that begins below it,", { files: { "workspace/gradle.properties": "org.gradle.caching = False\n", "workspace/settings.gradle": "rootProject.name = 'app'\ninclude 'sub'\n", "workspace/build.gradle": "allprojects { apply plugin: 'java' }\n", "workspace/sub/build.gradle": "" }, from: "sub", args: [":classes"] }],
  ["the project that the command names says", { files: { "workspace/gradle.properties": "org.gradle.caching=false\n" }, from: "..", args: ["-p", "workspace"] }],
  ["Gradle's home says, whatever the project does", { files: { "workspace/gradle.properties": "org.gradle.caching=true\n", "home/gradle.properties": "org.gradle.caching=false\n" } }],
  ["the command says, whatever the project does", { files: { "workspace/gradle.properties": "org.gradle.caching=true\n" }, args: ["-Dorg.gradle.caching=false"] }],
])("%s org.gradle.caching=false: nothing is taken and nothing is kept", async (said, further) => {
  const before = entries().length;
  expect(await build(said.replace(/\W+/g, "-"), further)).not.toMatch(/FROM-CACHE/);
  expect(entries()).toHaveLength(before);
});

test("with org.gradle.caching=true it is on as well", async () => {
  expect(await build("on", { files: { "workspace/gradle.properties": "org.gradle.caching=true\n" } })).toMatch(/compileJava FROM-CACHE/);
});

test("a project's own remote cache stays, and has what the build made", async () => {
  const before = entries();
  const settings = `rootProject.name = 'app'\nbuildCache { remote(HttpBuildCache) { url = 'http://127.0.0.1:${port}/own/'; push = true } }\n`;
  expect(await build("own", { files: { "workspace/settings.gradle": settings } })).not.toMatch(/FROM-CACHE/);
  expect(entries().filter((file) => !before.includes(file)).map((file) => path.relative(at("cache"), file))).toEqual([expect.stringMatching(/^own\/[0-9a-f]{32}$/)]);
});

test("half an entry is nobody's, and nothing but entries can be written or read", async () => {
  const key = "f".repeat(32);
  const before = entries().length;
  await new Promise<void>((resolve) => {
    const socket = net.connect(port, "127.0.0.1", () => {
      socket.write(`PUT /agents/${key} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n${"x".repeat(200_000)}`);
      setTimeout(() => (socket.destroy(), resolve()), 500);
    });
  });
  expect((await fetch(`http://127.0.0.1:${port}/agents/${key}`)).status).toBe(404);
  await waitFor("the half to be gone", 30, async () => entries().length === before);
  const status = (method: string, target: string, body?: string) => fetch(`http://127.0.0.1:${port}${target}`, { method, ...(body && { body }) }).then((answer) => answer.status);
  for (const target of ["/etc/passwd", "/agents/name", `/Agents/${key}`, `/.parts/${key}`, `/agents/${key}/x`]) expect([target, await status("PUT", target, "x")]).toEqual([target, 404]);
  expect(await status("DELETE", `/agents/${key}`)).toBe(405);
  expect(entries()).toHaveLength(before);
});

test("above its size the entries go that were read longest ago", async () => {
  for (const [i, name] of ["a", "b", "c"].entries()) {
    expect((await fetch(`http://127.0.0.1:${port}/agents/${name.repeat(32)}`, { method: "PUT", body: Buffer.alloc(1_000_000, i) })).status).toBe(201);
    const past = new Date(Date.now() - (i === 1 ? 1000 : 100) * 1000);
    fs.utimesSync(at("cache/agents", name.repeat(32)), past, past);
  }
  const keeper = spawn("sh", ["-c", buildCacheKeeper], { env: { ...process.env, FOLDER: at("cache"), MAX_KIB: "2500", INTERVAL: "1" }, stdio: "ignore" });
  try {
    await waitFor("the one read longest ago to go", 30, async () => !fs.existsSync(at("cache/agents", "b".repeat(32))));
    await new Promise((resolve) => setTimeout(resolve, 2500));
    for (const name of ["a", "c"]) expect(fs.existsSync(at("cache/agents", name.repeat(32)))).toBe(true);
  } finally {
    keeper.kill("SIGKILL");
  }
});
