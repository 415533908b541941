import { spawn } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { parseAllDocuments } from "yaml";
import { objectPath, renderStack, secretPlaceholder } from "../../cli/offline";
import { yamlStream } from "../../cli/render";
import { root } from "../../cli/repository";
import { columns, readWords, runCommand, UsageError } from "../../cli/terminal";

/** What people type: all commands alike. Each is a process that loads Pulumi. */
jest.setTimeout(120_000);

const { scripts } = JSON.parse(fs.readFileSync(path.join(root, "package.json"), "utf8")) as { scripts: Record<string, string> };
const commands = Object.entries(scripts).filter(([, script]) => /^tsx cli\//.test(script));

/** A command as npm runs it, with nothing of this machine's clusters and stacks. */
function command(script: string, ...words: string[]): Promise<{ code: number | null; out: string; err: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ["--require", require.resolve("tsx/cjs"), ...script.split(" ").slice(1), ...words], { cwd: root, env: { PATH: process.env.PATH, HOME: os.tmpdir() }, stdio: ["ignore", "pipe", "pipe"] });
    let [out, err] = ["", ""];
    child.stdout.on("data", (text) => (out += text));
    child.stderr.on("data", (text) => (err += text));
    child.on("error", reject).on("close", (code) => resolve({ code, out, err }));
  });
}

test("every script of npm that operators type is a command", () => {
  expect(commands.map(([name]) => name).sort()).toEqual(["backup", "backups", "bundle", "diff", "doctor", "failover", "new-env", "rehearse", "render", "restore", "rollback", "smoke", "status", "up", "upgrade"]);
});

/** One script for each file: some are one command under several names. */
const files = commands.filter(([, script], i) => commands.findIndex(([, other]) => other.split(" ")[1] === script.split(" ")[1]) === i);

test.each([...files, ["docs", scripts.docs]])("npm run %s has help, and refuses an option that it does not know", async (name, script) => {
  const [help, wrong] = await Promise.all([command(script, "--help"), command(script, "--no-such-option")]);
  expect(help).toMatchObject({ code: 0, err: "" });
  expect(help.out).toMatch(new RegExp(`^npm run ${name}( |$)`, "m"));
  expect(wrong).toMatchObject({ code: 2, out: "" });
  expect(wrong.err).toMatch(/^\w[\w-]*: Unknown option '--no-such-option'; --help lists the options\n$/);
});

describe("words of a command line", () => {
  const declared = { yes: { type: "boolean" }, size: { type: "string", default: "1" } } as const;
  test("are read, defaults filled in", () => {
    expect(readWords(["dev", "--yes"], declared, 1)).toMatchObject({ values: { yes: true, size: "1" }, positionals: ["dev"] });
  });
  test.each([
    [["--sise", "1"], "Unknown option '--sise'"],
    [["--size"], "Option '--size <value>' argument missing"],
    [["--yes=no"], "Option '--yes' does not take an argument"],
    [["a", "b", "c"], 'what is "b c"? One word is expected here'],
  ])("%j is refused", (args, said) => {
    const read = () => readWords(args, declared, 1);
    expect(read).toThrow(UsageError);
    expect(read).toThrow(said);
  });
});

describe("how a command ends", () => {
  const before = process.exitCode;
  let said: string;
  beforeEach(() => {
    said = "";
    process.exitCode = undefined;
    for (const stream of [process.stdout, process.stderr]) jest.spyOn(stream, "write").mockImplementation((text) => Boolean((said += String(text))));
  });
  afterEach(() => {
    jest.restoreAllMocks();
    process.exitCode = before;
  });
  test.each([
    ["a mistake in the command line", new UsageError("no such stack"), 2],
    ["anything else that goes wrong", new Error("no such stack"), 1],
  ])("%s", async (_, error, code) => {
    await runCommand("name", "help\n", () => Promise.reject(error), []);
    const got = process.exitCode;
    expect([got, said]).toEqual([code, "name: no such stack\n"]);
  });
  test("well, or as the command itself says", async () => {
    await runCommand("name", "help\n", async () => undefined, []);
    expect(process.exitCode).toBeUndefined();
    await runCommand("name", "help\n", async () => void (process.exitCode = 7), []);
    expect(process.exitCode).toBe(7);
  });
});

test("columns are as wide as their widest cell, without blanks at the end", () => {
  expect(columns([["a", "bb", "c"], ["ddd", "", ""]])).toBe("a    bb  c\nddd");
  expect(columns([])).toBe("");
});

describe("npm run render", () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "render-"));
  afterAll(() => fs.rmSync(folder, { recursive: true }));

  test("prints each object of a stack as a document that kubectl can read, the rest as comments, no secret", async () => {
    const resources = await renderStack("prod");
    const objects = resources.filter(({ type }) => type.startsWith("kubernetes:"));
    const text = yamlStream(resources);
    const documents = parseAllDocuments(text).map((document) => document.toJS() as Record<string, any> | null).filter((each) => each !== null);
    expect(documents.map(({ kind, metadata }) => `${kind} ${metadata.name}`)).toEqual(objects.map(({ props }) => `${props.kind} ${props.metadata.name}`));
    for (const resource of resources) expect(text).toContain(`---\n# ${objectPath(resource)}\n`);
    const secrets = documents.filter(({ kind }) => kind === "Secret");
    expect(secrets).not.toEqual([]);
    for (const { data } of secrets) expect(data).toBe(secretPlaceholder);
  });

  test("--out makes a file of each, and leaves alone a folder that holds something", async () => {
    const out = path.join(folder, "out");
    const made = await command("tsx cli/render.ts", "dev", "--out", out);
    expect(made).toMatchObject({ code: 0, err: "", out: expect.stringMatching(/^\d+ objects and \d+ other resources in /) });
    expect(fs.readFileSync(path.join(out, "jenkins/Deployment/jenkins.yaml"), "utf8")).toMatch(/^apiVersion: apps\/v1\nkind: Deployment\n/);
    expect(fs.readdirSync(path.join(out, "pulumi")).some((name) => name.startsWith("agent-images-"))).toBe(true);
    expect(await command("tsx cli/render.ts", "dev", "--out", out)).toMatchObject({ code: 2, out: "", err: expect.stringContaining("not an empty folder") });
    expect(await command("tsx cli/render.ts", "nosuch")).toMatchObject({ code: 2, out: "", err: expect.stringContaining("there is no Pulumi.nosuch.yaml") });
  });
});
