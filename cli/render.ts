import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { parse } from "yaml";
import type { PolicyResource } from "../policy/rules";

/** A resource as the program registers it, secrets replaced by a placeholder. */
export interface Rendered extends PolicyResource {
  /** The component that makes it: its class, its own name, and the classes of the components whose resources this one waits for. */
  component?: { name: string; instance: string; after: string[] };
}

/** Stands wherever the program put a secret. */
export const secretPlaceholder = "[secret]";

/** Takes the place of encrypted config values: long enough for every password rule, and no secret. */
const encryptedPlaceholder = "[encrypted value]";
const keyPlaceholder = "-----BEGIN PRIVATE KEY-----\n[encrypted value]\n-----END PRIVATE KEY-----\n";

export const root = path.resolve(__dirname, "..");

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * A stack's config as the engine hands it to the program, without anything that only the operator's machine has:
 * encrypted values and files named in config become placeholders that differ when the file's name does.
 */
export function offlineConfig(project: string, declared: Record<string, unknown>, given: Record<string, unknown>): { config: Record<string, string>; secretKeys: string[] } {
  const secretKeys = new Set<string>();
  const offline = (top: string, key: string, value: unknown): unknown => {
    if (Array.isArray(value)) return value.map((item) => offline(top, key, item));
    if (!isObject(value)) return value;
    if (Object.keys(value).length === 1 && typeof value.secure === "string") {
      secretKeys.add(top);
      return /privateKey$/i.test(key) ? keyPlaceholder : encryptedPlaceholder;
    }
    return Object.fromEntries(
      Object.entries(value).map(([inner, item]) => {
        if (inner === "privateKeyFile") {
          secretKeys.add(top);
          return ["privateKey", keyPlaceholder];
        }
        if (inner === "hostKeyFile") return ["hostKey", `ssh-ed25519 AAAA${createHash("sha256").update(String(item)).digest("base64").replace(/=+$/, "")}`];
        return [inner, offline(top, inner, item)];
      }),
    );
  };
  const text = (value: unknown): string => (typeof value === "string" ? value : JSON.stringify(value));
  const config: Record<string, string> = {};
  for (const [key, schema] of Object.entries(declared)) {
    if (isObject(schema) && schema.default !== undefined) config[`${project}:${key}`] = text(schema.default);
  }
  for (const [key, value] of Object.entries(given)) {
    const full = key.includes(":") ? key : `${project}:${key}`;
    config[full] = text(offline(full, full, value));
  }
  return { config, secretKeys: [...secretKeys] };
}

/**
 * The resources that the program in `folder` registers for a stack. Nothing is asked of a cluster, registry or node, and
 * nothing is changed.
 * @param over config that takes the place of the file's
 * @throws with the program's own words where it refuses the config
 */
export async function renderStack(stack: string, folder = root, over: Record<string, unknown> = {}): Promise<Rendered[]> {
  const read = (file: string) => parse(fs.readFileSync(path.join(folder, file), "utf8"));
  const file = `Pulumi.${stack}.yaml`;
  if (!fs.existsSync(path.join(folder, file))) {
    const known = fs.readdirSync(folder).flatMap((name) => /^Pulumi\.(.+)\.yaml$/.exec(name)?.[1] ?? []);
    throw new Error(`there is no ${file}; stacks with a file: ${known.join(", ") || "none"}`);
  }
  const project = read("Pulumi.yaml");
  const input = offlineConfig(project.name, project.config ?? {}, { ...read(file)?.config, ...over });
  const child = spawn(process.execPath, ["--require", require.resolve("tsx/cjs"), path.join(__dirname, "render-program.ts"), stack, project.name], {
    cwd: folder,
    // Without $KUBECONFIG, passphrase or access token the program cannot get at anything even by accident.
    env: { PATH: process.env.PATH, HOME: process.env.HOME, TMPDIR: process.env.TMPDIR },
    stdio: ["pipe", "pipe", "pipe"],
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (chunk) => (stdout += chunk));
  child.stderr.on("data", (chunk) => (stderr += chunk));
  child.stdin.end(JSON.stringify(input));
  const code = await new Promise((resolve, reject) => child.on("error", reject).on("close", resolve));
  if (code !== 0) throw new Error(`stack ${stack} cannot be rendered:\n${stderr.trim().slice(-4000)}`);
  return JSON.parse(stdout) as Rendered[];
}

/** Runs `work` on the files of a git commit in a folder of its own, with this work tree's node_modules. */
export async function atCommit<T>(ref: string, work: (folder: string) => Promise<T>): Promise<T> {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "build-platform-"));
  try {
    await haveCommit(ref);
    await git(["archive", "--format=tar", `--output=${folder}.tar`, "--end-of-options", ref]);
    await run("tar", ["-xf", `${folder}.tar`, "-C", folder]);
    fs.symlinkSync(path.join(root, "node_modules"), path.join(folder, "node_modules"));
    return await work(folder);
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
    fs.rmSync(`${folder}.tar`, { force: true });
  }
}

/** What a program printed on standard output. A failure carries what it said on standard error. */
export function run(program: string, args: string[], options: { cwd?: string; env?: NodeJS.ProcessEnv; input?: string; codes?: number[] } = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: options.cwd ?? root, env: options.env ?? process.env, stdio: ["pipe", "pipe", "pipe"] });
    let [stdout, stderr] = ["", ""];
    child.stdout.on("data", (chunk) => (stdout += chunk));
    child.stderr.on("data", (chunk) => (stderr += chunk));
    child.stdin.on("error", () => undefined);
    child.stdin.end(options.input ?? "");
    child.on("error", (error) => reject(new Error(`${program} could not be started: ${error.message}`)));
    child.on("close", (code) => ((options.codes ?? [0]).includes(code ?? -1) ? resolve(stdout) : reject(new Error(stderr.trim() || `${program} ended with exit code ${code}`))));
  });
}

const git = (args: string[]): Promise<string> => run("git", args);

/** Sees to it that a commit is at hand: a shallow clone is asked for the rest of its history. What is still missing is git's to say. */
export async function haveCommit(ref: string): Promise<void> {
  if ((await git(["rev-parse", "--is-shallow-repository"])).trim() !== "true") return;
  const known = await git(["cat-file", "-e", `${ref}^{commit}`]).then(() => true, () => false);
  if (!known) await git(["fetch", "--quiet", "--unshallow"]);
}
