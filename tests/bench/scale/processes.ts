import { spawn, type ChildProcess } from "node:child_process";
import * as fs from "node:fs";
import * as net from "node:net";
import * as path from "node:path";

/** A port of this machine that nobody listens on. */
export const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = net.createServer().on("error", reject).listen(0, "127.0.0.1", () => {
      const { port } = server.address() as net.AddressInfo;
      server.close(() => resolve(port));
    });
  });

/** Programs that one run of the bench starts, and ends. */
export class Processes {
  private readonly children: { name: string; child: ChildProcess }[] = [];

  /** @param root folder that gets NAME.log of each */
  constructor(readonly root: string) {}

  /** Starts a program; its words go to NAME.log, but for standard output where `piped`. */
  start(name: string, program: string, args: string[], env: NodeJS.ProcessEnv = process.env, piped = false): ChildProcess {
    const log = fs.openSync(path.join(this.root, `${name}.log`), "a");
    const child = spawn(program, args, { env, cwd: this.root, stdio: [piped ? "pipe" : "ignore", piped ? "pipe" : log, log] });
    fs.closeSync(log);
    this.children.push({ name, child });
    return child;
  }

  /** @throws naming the first that has ended by itself, with its last words */
  assertRunning(): void {
    const dead = this.children.find(({ child }) => child.exitCode !== null || child.signalCode !== null);
    if (dead) throw new Error(`${dead.name} has ended (${dead.child.exitCode ?? dead.child.signalCode}):\n${fs.readFileSync(path.join(this.root, `${dead.name}.log`), "utf8").split("\n").slice(-15).join("\n")}`);
  }

  /** Ends all, the last started first. */
  async stop(): Promise<void> {
    for (const { child } of this.children.reverse()) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGTERM");
      const hard = setTimeout(() => child.kill("SIGKILL"), 10_000);
      await ended;
      clearTimeout(hard);
    }
    this.children.length = 0;
  }
}

/** Seconds of processor that a process has had, and its memory in MiB. */
export function usage(pid: number): { cpu: number; rss: number } {
  const stat = fs.readFileSync(`/proc/${pid}/stat`, "utf8").replace(/^.*\) /, "").split(" ");
  // Fields 14 and 15 of the whole line, in hundredths of a second.
  const cpu = (Number(stat[11]) + Number(stat[12])) / 100;
  return { cpu, rss: Number(/VmRSS:\s+(\d+)/.exec(fs.readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) / 1024 };
}
