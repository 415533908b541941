import { spawn, type SpawnOptions } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { STATE } from "./paths";

/** How a finished program ended, with what it printed. */
export interface Result {
  code: number;
  stdout: string;
  stderr: string;
}

export interface RunOptions extends Pick<SpawnOptions, "cwd" | "env"> {
  input?: string;
  /** Return a non-zero exit code instead of throwing. */
  allowFailure?: boolean;
  /** Called with each line as it is printed, for long work. */
  onLine?: (line: string) => void;
}

/** Runs a program to its end. A failure names the program and carries the last lines it printed. */
export function run(program: string, args: string[], options: RunOptions = {}): Promise<Result> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: options.cwd, env: options.env ?? process.env, stdio: ["pipe", "pipe", "pipe"] });
    const result: Result = { code: -1, stdout: "", stderr: "" };
    const collect = (stream: "stdout" | "stderr") => (chunk: Buffer) => {
      const text = chunk.toString();
      result[stream] += text;
      if (options.onLine) text.split("\n").filter(Boolean).forEach(options.onLine);
    };
    child.stdout.on("data", collect("stdout"));
    child.stderr.on("data", collect("stderr"));
    child.stdin.on("error", () => undefined);
    child.stdin.end(options.input ?? "");
    child.on("error", (error) => reject(new Error(`${program} could not be started: ${error.message}`)));
    child.on("close", (code, signal) => {
      result.code = code ?? 128;
      if (result.code === 0 || options.allowFailure) return resolve(result);
      // Of each stream its own last lines: a long output must not hide what was said on the other.
      const tail = [result.stdout, result.stderr].flatMap((text) => text.trim().split("\n").slice(-40)).filter(Boolean).join("\n  ");
      reject(new Error(`${[program, ...args].join(" ").slice(0, 300)} ended with ${signal ?? `exit code ${code}`}:\n  ${tail}`));
    });
  });
}

/** Starts a program that outlives this one; its output goes to STATE/logs/NAME.log. Returns its process id. */
export function startDetached(name: string, program: string, args: string[]): number {
  const logs = path.join(STATE, "logs");
  fs.mkdirSync(logs, { recursive: true });
  const log = fs.openSync(path.join(logs, `${name}.log`), "a");
  const child = spawn(program, args, { detached: true, stdio: ["ignore", log, log], cwd: "/" });
  child.unref();
  fs.closeSync(log);
  if (child.pid === undefined) throw new Error(`${program} could not be started`);
  return child.pid;
}

/** Polls until `probe` returns something other than undefined or false; otherwise fails naming `what`. */
export async function waitFor<T>(what: string, seconds: number, probe: () => Promise<T | undefined | false>): Promise<T> {
  const deadline = Date.now() + seconds * 1000;
  let last = "";
  for (;;) {
    try {
      const value = await probe();
      if (value !== undefined && value !== false) return value;
    } catch (error) {
      last = error instanceof Error ? error.message : String(error);
    }
    if (Date.now() > deadline) throw new Error(`waited ${seconds} s for ${what}${last ? `; last error: ${last}` : ""}`);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

/** Prints one status line for a named action, with its time, and a tick each half minute for long ones. */
export async function action<T>(title: string, work: () => Promise<T>): Promise<T> {
  const started = Date.now();
  const seconds = () => ((Date.now() - started) / 1000).toFixed(1);
  process.stderr.write(` • ${title} ...\n`);
  const tick = setInterval(() => process.stderr.write(`   ${title}: ${seconds()} s so far\n`), 30_000);
  try {
    const value = await work();
    process.stderr.write(` ✓ ${title} (${seconds()} s)\n`);
    return value;
  } catch (error) {
    process.stderr.write(` ✗ ${title} (${seconds()} s)\n`);
    throw error;
  } finally {
    clearInterval(tick);
  }
}
