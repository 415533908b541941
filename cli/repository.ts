import { spawn } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { parse } from "yaml";

/** This repository and its history, and the programs that commands run. */

/** The folder of Pulumi.yaml. */
export const root = path.resolve(__dirname, "..");

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

/** What a YAML file of people's hands holds. @throws naming the file where it is none */
export function readYaml(file: string): unknown {
  try {
    return parse(fs.readFileSync(file, "utf8"));
  } catch (error) {
    throw new Error(`${path.basename(file)} cannot be read: ${(error as Error).message.trim()}`);
  }
}

const git = (args: string[]): Promise<string> => run("git", args);

/** Sees to it that a commit is at hand: a shallow clone is asked for the rest of its history. What is still missing is git's to say. */
export async function haveCommit(ref: string): Promise<void> {
  if ((await git(["rev-parse", "--is-shallow-repository"])).trim() !== "true") return;
  const known = await git(["cat-file", "-e", `${ref}^{commit}`]).then(() => true, () => false);
  if (!known) await git(["fetch", "--quiet", "--unshallow"]);
}
