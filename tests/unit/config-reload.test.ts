import { ChildProcess, spawn } from "node:child_process";
import * as fs from "node:fs";
import * as http from "node:http";
import type { AddressInfo } from "node:net";
import * as os from "node:os";
import * as path from "node:path";
import { configReloadScript } from "../../components/jenkins-master/reload";

jest.setTimeout(60_000);

let folder: string;
let server: http.Server;
let script: ChildProcess;
let printed: string;
let asked: string[];
let answer: [number, string];

/** Files as the kubelet mounts them: links into a dated folder behind ..data, which is swapped as a whole. */
function mount(text: string): void {
  const version = fs.mkdtempSync(path.join(folder, "casc", "..2026_"));
  fs.writeFileSync(path.join(version, "jenkins.yaml"), text);
  fs.symlinkSync(path.basename(version), path.join(folder, "casc", "..tmp"));
  fs.renameSync(path.join(folder, "casc", "..tmp"), path.join(folder, "casc", "..data"));
  fs.rmSync(path.join(folder, "casc", "jenkins.yaml"), { force: true });
  fs.symlinkSync("..data/jenkins.yaml", path.join(folder, "casc", "jenkins.yaml"));
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
  for (const name of ["casc", "secrets", "state"]) fs.mkdirSync(path.join(folder, name));
  mount("first");
  fs.writeFileSync(path.join(folder, "secrets", "admin-password"), "first");
  [printed, asked, answer] = ["", [], [200, "reloaded"]];
  server = http.createServer((request, response) => {
    asked.push(`${request.method} ${request.url}`);
    response.writeHead(answer[0]).end(answer[1]);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  script = spawn("bash", ["-c", configReloadScript], {
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      PATH: process.env.PATH,
      FOLDERS: `${folder}/casc ${folder}/secrets`,
      STATE: `${folder}/state`,
      PORT: String((server.address() as AddressInfo).port),
      INTERVAL: "0.1",
      CASC_RELOAD_TOKEN: "the-token",
    },
  });
  script.stdout?.on("data", (chunk: Buffer) => (printed += chunk.toString()));
  script.stderr?.on("data", (chunk: Buffer) => (printed += chunk.toString()));
  await until(() => fs.existsSync(path.join(folder, "state", "config-applied")) && fs.readFileSync(path.join(folder, "state", "config-applied"), "utf8") !== "");
});

afterEach(async () => {
  if (script.exitCode === null && script.signalCode === null) {
    const ended = new Promise((resolve) => script.on("exit", resolve));
    script.kill("SIGKILL");
    await ended;
  }
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  fs.rmSync(folder, { recursive: true });
});

test("what Jenkins started with is not read again", async () => {
  await pause(1000);
  expect(asked).toEqual([]);
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

test("a refused document is complained of once and asked for until it is mended", async () => {
  answer = [500, "unclassified.mail: no such key"];
  mount("broken");
  await until(() => asked.length >= 2);
  expect(printed.match(/refuses/g)).toHaveLength(1);
  const refused = path.join(folder, "state", "refused");
  expect(fs.readFileSync(refused, "utf8")).toContain("unclassified.mail: no such key");
  expect(printed).toContain("stays in force: unclassified.mail: no such key");
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
  answer = [200, JSON.stringify({ status: "error", message: "Failed to reload configuration: unclassified.mail: no such key" })];
  mount("broken");
  await until(() => asked.length >= 2);
  expect(printed).not.toContain("in force\n");
  expect(printed).toContain("stays in force: Failed to reload configuration: unclassified.mail: no such key\n");
  expect(printed.match(/refuses/g)).toHaveLength(1);
  expect(printed).toContain("unclassified.mail: no such key");
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
  answer = [200, "reloaded"];
  await until(() => printed.includes("in force"));
});

test("it ends when the pod does", async () => {
  const ended = new Promise((resolve) => script.on("exit", resolve));
  script.kill("SIGTERM");
  expect(await ended).toBe(0);
});
