import * as fs from "node:fs";
import * as http from "node:http";
import type { AddressInfo } from "node:net";
import * as os from "node:os";
import * as path from "node:path";
import fc from "fast-check";
import { compareVersions, findings, loadUpdateCenter, main, parsePins, updatedText, type UpdateCenter } from "../../tools/plugin-updates";

const center: UpdateCenter = {
  plugins: { git: { version: "5.11.0" }, kubernetes: { version: "4540.v612369217f87" }, old: { version: "1.9" } },
  warnings: [
    { type: "plugin", name: "git", message: "Command injection", url: "https://www.jenkins.io/security/1", versions: [{ pattern: "5[.]10([.].*)?" }] },
    { type: "core", name: "core", message: "Another", url: "https://www.jenkins.io/security/2", versions: [{ pattern: ".*" }] },
  ],
  deprecations: { old: { url: "https://www.jenkins.io/deprecations/old/" } },
};
const text = "# Plugins\ngit:5.10.1 # pinned\nkubernetes:4540.v612369217f87\n  old:1.10\ngone:2\n";

let folder: string;
beforeEach(() => (folder = fs.mkdtempSync(path.join(os.tmpdir(), "plugin-updates-"))));
afterEach(() => fs.rmSync(folder, { recursive: true }));

async function run(...args: string[]): Promise<{ code: number; out: string }> {
  let out = "";
  const code = await main(args, (chunk) => (out += chunk));
  return { code, out };
}

test.each(["plugins.txt", "optional-plugins.txt"])("the shipped %s is pinned throughout and sorted", (file) => {
  const shipped = parsePins(fs.readFileSync(path.resolve(__dirname, "../../images/controller", file), "utf8"));
  expect(shipped.length).toBeGreaterThan(3);
  expect(shipped.map((pin) => pin.name)).toEqual(shipped.map((pin) => pin.name).sort());
});

test("names every line that pins nothing", () => {
  expect(() => parsePins("git\nkubernetes:latest\nok:1\na:b:c\n")).toThrow(/line 1: "git".*\n.*line 2: "kubernetes:latest".*\n.*line 4: "a:b:c"/);
});

test("finds updates, security warnings of the pinned version, deprecations and what is not offered", () => {
  const [git, kubernetes, old, gone] = findings(parsePins(text), center);
  expect(git).toMatchObject({ offered: "5.11.0", update: true, mended: true, warnings: [expect.stringContaining("Command injection")] });
  expect(kubernetes).toMatchObject({ update: false, warnings: [] });
  expect(old).toMatchObject({ offered: "1.9", update: false, warnings: [expect.stringContaining("deprecated")] });
  expect(gone).toMatchObject({ offered: undefined, update: false, warnings: [expect.stringContaining("not offered")] });
});

test("writes offered versions and leaves every other character alone", () => {
  expect(updatedText(text, findings(parsePins(text), center))).toBe(text.replace("git:5.10.1", "git:5.11.0"));
});

test("compares versions by number", () => {
  expect(compareVersions("1.10", "1.9")).toBeGreaterThan(0);
  expect(compareVersions("608.v67378e9d3db_1", "1400.v7fd111b_ec82f")).toBeLessThan(0);
  expect(compareVersions("2.0", "2")).toBe(0);
  fc.assert(
    fc.property(fc.array(fc.nat(), { minLength: 1, maxLength: 4 }), fc.array(fc.nat(), { minLength: 1, maxLength: 4 }), (a, b) => {
      expect(Math.sign(compareVersions(a.join("."), b.join(".")))).toBe(-Math.sign(compareVersions(b.join("."), a.join("."))) + 0);
    }),
  );
});

test("the command reads a file, tells by its exit code, and writes on request only", async () => {
  const plugins = path.join(folder, "plugins.txt");
  const url = path.join(folder, "uc.json");
  fs.writeFileSync(plugins, text);
  fs.writeFileSync(url, JSON.stringify(center));
  const shown = await run("--plugins", plugins, "--url", url, "--jenkins", "2.1");
  expect(shown).toMatchObject({ code: 1, out: expect.stringMatching(/^git +5\.10\.1 +5\.11\.0$/m) });
  expect(shown.out).toContain("mended in 5.11.0");
  expect(fs.readFileSync(plugins, "utf8")).toBe(text);

  fs.writeFileSync(plugins, "git:5.10.1\n");
  expect((await run("--plugins", plugins, "--url", url, "--write")).code).toBe(0);
  expect(fs.readFileSync(plugins, "utf8")).toBe("git:5.11.0\n");
  expect((await run("--plugins", plugins, "--url", url)).code).toBe(0);
  expect(fs.readdirSync(folder).sort()).toEqual(["plugins.txt", "uc.json"]);
  expect((await run("--help")).out).toContain("--url");
});

test("asks a server for the controller's version, and says what to do if there is none", async () => {
  const asked: string[] = [];
  const server = http.createServer((request, response) => {
    asked.push(request.url ?? "");
    if (request.url?.startsWith("/down")) response.writeHead(503).end();
    else if (request.url?.startsWith("/html")) response.end("<html>");
    else response.end(`updateCenter.post(\n${JSON.stringify(center)}\n);`);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  try {
    expect(await loadUpdateCenter(`${base}/update-center.json`, "2.568.2")).toEqual(center);
    expect(asked).toEqual(["/update-center.json?version=2.568.2"]);
    await expect(loadUpdateCenter(`${base}/down`, "1")).rejects.toThrow(/503; give a mirror/);
    await expect(loadUpdateCenter(`${base}/html`, "1")).rejects.toThrow(/no update center document/);
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
  await expect(loadUpdateCenter(`${base}/`, "1")).rejects.toThrow(/cannot be reached: .*--url/);
});
