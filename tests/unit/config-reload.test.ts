import { ChildProcess, spawn, spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as http from "node:http";
import type { AddressInfo } from "node:net";
import * as os from "node:os";
import * as path from "node:path";
import * as fc from "fast-check";
import { cascKey, configReloadScript, configurationScript } from "../../components/jenkins-master/reload";

jest.setTimeout(60_000);

let folder: string;
let server: http.Server;
let script: ChildProcess;
let printed: string;
let asked: string[];
/** The documents at each request. */
let seen: Record<string, string>[];
let answer: [number, string];

/** Files as the kubelet mounts them: links into a dated folder behind ..data, which is swapped as a whole. */
function mount(text: string, further: Record<string, string> = {}): void {
  const casc = path.join(folder, "casc");
  const version = fs.mkdtempSync(path.join(casc, "..2026_"));
  const documents: Record<string, string> = { "jenkins.yaml": text, ...further };
  for (const [key, content] of Object.entries(documents)) fs.writeFileSync(path.join(version, key), content);
  fs.symlinkSync(path.basename(version), path.join(casc, "..tmp"));
  fs.renameSync(path.join(casc, "..tmp"), path.join(casc, "..data"));
  for (const name of fs.readdirSync(casc).filter((each) => !each.startsWith(".."))) fs.rmSync(path.join(casc, name));
  for (const key of Object.keys(documents)) fs.symlinkSync(`..data/${key}`, path.join(casc, key));
}

/** What Jenkins would read: every entry that is no folder, through links and hidden names. */
function live(): Record<string, string> {
  const entries = fs.readdirSync(path.join(folder, "live"), { recursive: true, withFileTypes: true }).filter((entry) => !entry.isDirectory());
  expect(entries.filter((entry) => !entry.isFile() || entry.name.startsWith("."))).toEqual([]);
  const files = entries.map((entry) => path.join(entry.parentPath, entry.name));
  try {
    return Object.fromEntries(files.map((file) => [path.relative(path.join(folder, "live"), file), fs.readFileSync(file, "utf8")]));
  } catch (error) {
    // The script has just put another set in this one's place.
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return live();
    throw error;
  }
}

const environment = (port = 0) => ({
  PATH: process.env.PATH, CASC: `${folder}/casc`, LIVE: `${folder}/live`, FOLDERS: `${folder}/casc ${folder}/secrets`, STATE: `${folder}/state`,
  PORT: String(port), INTERVAL: "0.1", CASC_RELOAD_TOKEN: "the-token",
});

/** As the pod's start does. */
function initialise(): void {
  const { status, stderr } = spawnSync("bash", ["-c", configurationScript], { env: environment(), encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
}

function startSidecar(prefix?: string): void {
  script = spawn("bash", ["-c", configReloadScript(prefix)], { stdio: ["ignore", "pipe", "pipe"], env: environment((server.address() as AddressInfo).port) });
  script.stdout?.on("data", (chunk: Buffer) => (printed += chunk.toString()));
  script.stderr?.on("data", (chunk: Buffer) => (printed += chunk.toString()));
}

async function endSidecar(): Promise<void> {
  if (script.exitCode !== null || script.signalCode !== null) return;
  const ended = new Promise((resolve) => script.on("exit", resolve));
  script.kill("SIGKILL");
  await ended;
}

async function until(what: () => boolean): Promise<void> {
  const end = Date.now() + 20_000;
  while (!what()) {
    if (Date.now() > end) throw new Error(`not within 20 s; asked ${JSON.stringify(asked)}, printed ${printed}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

beforeEach(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "config-reload-"));
  for (const name of ["casc", "secrets", "state", "live"]) fs.mkdirSync(path.join(folder, name));
  mount("first");
  fs.writeFileSync(path.join(folder, "secrets", "admin-password"), "first");
  [printed, asked, seen, answer] = ["", [], [], [200, "reloaded"]];
  server = http.createServer((request, response) => {
    asked.push(`${request.method} ${request.url}`);
    seen.push(live());
    response.writeHead(answer[0]).end(answer[1]);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  initialise();
  startSidecar();
});

afterEach(async () => {
  await endSidecar();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  fs.rmSync(folder, { recursive: true });
});

test("what Jenkins started with is not read again", async () => {
  await pause(1000);
  expect(asked).toEqual([]);
  expect(live()).toEqual({ "jenkins.yaml": "first" });
});

test("documents are plain files in their folders, whatever lies beside them, and those that are gone go", async () => {
  mount("second", { [cascKey("teams/a.yaml")]: "a", [cascKey("teams/x/seed.groovy")]: "b" });
  await until(() => printed.includes("in force"));
  expect(seen).toEqual([{ "jenkins.yaml": "second", "teams/a.yaml": "a", "teams/x/seed.groovy": "b" }]);
  mount("third");
  await until(() => asked.length === 2);
  expect(live()).toEqual({ "jenkins.yaml": "third" });
});

test("a key of the ConfigMap is one, and gives its file's path again", () => {
  const name = fc.stringMatching(/^[A-Za-z0-9]([-.A-Za-z0-9]{0,8}[A-Za-z0-9])?$/);
  fc.assert(fc.property(fc.array(name, { minLength: 1, maxLength: 4 }), (parts) => {
    expect(cascKey(parts.join("/"))).toMatch(/^[-._a-zA-Z0-9]+$/);
    expect(cascKey(parts.join("/")).replaceAll("__", "/")).toBe(parts.join("/"));
  }));
});

test("a changed document and a changed secret are each read once", async () => {
  mount("second");
  await until(() => printed.includes("in force"));
  await pause(500);
  expect(asked).toEqual(["POST /reload-configuration-as-code/?casc-reload-token=the-token"]);
  fs.writeFileSync(path.join(folder, "secrets", "admin-password"), "second");
  await until(() => asked.length === 2);
  await pause(500);
  expect(asked).toHaveLength(2);
  expect(printed).not.toContain("the-token");
});

test("below a path Jenkins is asked there", async () => {
  await endSidecar();
  startSidecar("/jenkins");
  mount("second");
  await until(() => printed.includes("in force"));
  expect(asked).toEqual(["POST /jenkins/reload-configuration-as-code/?casc-reload-token=the-token"]);
});

test("a refused document is complained of once and asked for until it is mended", async () => {
  answer = [500, "unclassified.mail: no such key"];
  mount("broken");
  await until(() => asked.length >= 2);
  expect(printed.match(/refuses/g)).toHaveLength(1);
  const refused = path.join(folder, "state", "refused");
  expect(fs.readFileSync(refused, "utf8")).toContain("unclassified.mail: no such key");
  expect(printed).toContain("stays in force: unclassified.mail: no such key");
  // A container that starts again in this pod finds what was in force.
  expect(seen[0]).toEqual({ "jenkins.yaml": "broken" });
  await until(() => live()["jenkins.yaml"] === "first");
  // Seldom: Jenkins logs a stack trace each time.
  await pause(1000);
  expect(asked.length).toBeLessThan(5);
  answer = [200, "reloaded"];
  mount("mended");
  await until(() => printed.includes("is in force"));
  expect(fs.existsSync(refused)).toBe(false);
});

test("a refused document that is taken back is no longer complained of", async () => {
  answer = [500, "no such key"];
  const refused = path.join(folder, "state", "refused");
  mount("broken");
  await until(() => fs.existsSync(refused));
  mount("first");
  await until(() => !fs.existsSync(refused));
  expect(printed).not.toContain("is in force");
});

test("a refusal that the plugin answers with status 200 is none the less one", async () => {
  // As TokenReloadAction of configuration-as-code 2115 does, https://github.com/jenkinsci/configuration-as-code-plugin/blob/master/plugin/src/main/java/io/jenkins/plugins/casc/TokenReloadAction.java
  answer = [200, JSON.stringify({ status: "error", message: 'Failed to reload configuration: Failed to configure "unclassified"\nmail: no such key' })];
  mount("broken");
  await until(() => printed.includes("refuses"));
  expect(printed).not.toContain("in force\n");
  expect(printed).toBe('Jenkins refuses the changed configuration (error); the former one stays in force: Failed to reload configuration: Failed to configure "unclassified" mail: no such key\n');
  expect(live()).toEqual({ "jenkins.yaml": "first" });
});

test("an error page is named, not shown", async () => {
  answer = [500, `<!DOCTYPE html><html><head><title>Oops! - Jenkins</title></head>\n<body>${"<div>A problem occurred</div>\n".repeat(500)}</body></html>`];
  mount("a: [");
  await until(() => printed.includes("refuses"));
  expect(printed).toMatch(/^Jenkins refuses the changed configuration \(500\); .*broken YAML.*log of container jenkins has it\n$/);
  expect(printed.length).toBeLessThan(300);
});

test("a try that was cut off was none: the former files are back, at the sidecar's start as at the pod's", async () => {
  answer = [0, ""];
  server.removeAllListeners("request").on("request", () => asked.push("held"));
  for (const again of [startSidecar, initialise]) {
    mount("untried");
    await until(() => asked.length > 0 && live()["jenkins.yaml"] === "untried");
    await endSidecar();
    server.closeAllConnections();
    mount("first");
    again();
    await until(() => live()["jenkins.yaml"] === "first" && !fs.existsSync(path.join(folder, "state", "former")));
    if (again === initialise) startSidecar();
    asked = [];
  }
});

test("what was refused stays out when the pod starts again on its node", async () => {
  answer = [500, "no such key"];
  mount("broken");
  await until(() => printed.includes("refuses") && live()["jenkins.yaml"] === "first");
  await endSidecar();
  initialise();
  expect(live()).toEqual({ "jenkins.yaml": "first" });
  printed = "";
  startSidecar();
  await until(() => printed.includes("refuses"));
});

test("a refused document that is taken back leaves nothing to complain of, and is complained of when it comes again", async () => {
  answer = [500, "no such key"];
  mount("broken");
  await until(() => printed.includes("refuses"));
  mount("first");
  await until(() => printed.trim().endsWith("the configuration is the one in force again"));
  mount("broken");
  await until(() => printed.match(/refuses/g)?.length === 2);
});

test("a Jenkins that is starting is asked until it answers", async () => {
  answer = [503, "starting"];
  mount("second");
  await until(() => asked.length >= 2);
  expect(printed).toBe("");
  await until(() => live()["jenkins.yaml"] === "first");
  answer = [200, "reloaded"];
  await until(() => printed.includes("in force"));
});

test("it ends when the pod does", async () => {
  mount("second");
  await until(() => printed.includes("in force"));
  const ended = new Promise((resolve) => script.on("exit", resolve));
  script.kill("SIGTERM");
  expect(await ended).toBe(0);
});
