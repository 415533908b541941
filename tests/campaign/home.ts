import { spawn, type ChildProcess } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { buildTestTool } from "../../sandbox/cluster/binaries";

/** A jenkins_home in a folder of this machine, two repositories, and home.sh between them. */

const SCRIPTS = path.resolve(__dirname, "../../scripts/backup");

export interface Ended {
  code: number | null;
  output: string;
}

export class Home {
  readonly root = fs.mkdtempSync(path.join(os.tmpdir(), "jenkins-backup-"));
  readonly home = path.join(this.root, "home");
  readonly repository = path.join(this.root, "repository");
  readonly work = path.join(this.root, "work");
  readonly status = path.join(this.root, "status");
  readonly env: NodeJS.ProcessEnv;

  /** One with the restic that the sandbox has. */
  static async make(): Promise<Home> {
    return new Home(await buildTestTool("restic"));
  }

  /** @param tools folder of restic */
  private constructor(tools: string) {
    for (const folder of [this.home, this.work]) fs.mkdirSync(folder);
    const file = (name: string, text: string) => {
      fs.writeFileSync(path.join(this.root, name), text);
      return path.join(this.root, name);
    };
    this.env = {
      PATH: `${tools}:${process.env.PATH}`,
      HOME: this.root,
      RESTIC_REPOSITORY_FILE: file("repository-file", this.repository),
      RESTIC_PASSWORD_FILE: file("password", "home"),
      KEY_REPOSITORY_FILE: file("keys-repository-file", path.join(this.root, "keys")),
      KEY_PASSWORD_FILE: file("keys-password", "keys"),
      HOME_DIR: this.home,
      WORK_DIR: this.work,
      EXCLUDES_FILE: path.join(SCRIPTS, "excludes.txt"),
      CHECK_PARTS: "1",
      UPKEEP_DAYS: "0",
      KEEP_LAST: "100",
      // At ordinary priority: beside other work on this machine the lowest one takes for ever. The cluster's tests run it as it is.
      HOME_SH_GENTLE: "1",
    };
    this.write("config.xml", "<hudson/>");
    this.write("secrets/master.key", "the key");
    this.write("secret.key", "the other key");
  }

  write(name: string, content: string | Buffer): void {
    const file = path.join(this.home, name);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, content);
  }

  /** A finished build as Jenkins leaves it, and the next number. */
  build(job: string, number: number, log: string | Buffer = `log of ${job} ${number}\n`): void {
    this.write(`jobs/${job}/config.xml`, "<project/>");
    this.write(`jobs/${job}/nextBuildNumber`, `${number + 1}\n`);
    this.write(`jobs/${job}/builds/${number}/log`, log);
    this.write(`jobs/${job}/builds/${number}/build.xml`, `<build><number>${number}</number></build>`);
  }

  /** Starts home.sh in its own process group. */
  start(args: string[], env: NodeJS.ProcessEnv = {}): ChildProcess {
    return spawn("sh", [path.join(SCRIPTS, "home.sh"), ...args], { env: { ...this.env, ...env }, detached: true, stdio: ["ignore", "pipe", "pipe"] });
  }

  run(args: string[], env: NodeJS.ProcessEnv = {}): Promise<Ended> {
    return ended(this.start(args, env));
  }

  /**
   * A backup as the CronJob makes it from day to day: it finds the results of the last ones, which are published as report.sh does
   * it, and has its upkeep once a week.
   */
  async nightly(env: NodeJS.ProcessEnv = {}): Promise<Ended> {
    const ended = await this.run(["backup"], { STATUS_DIR: this.status, UPKEEP_DAYS: "7", ...env });
    this.publish();
    return ended;
  }

  /** What report.sh writes into the ConfigMap, as the pod of the next backup finds it. */
  publish(): void {
    fs.mkdirSync(this.status, { recursive: true });
    const { status, snapshot } = this.result();
    if (status !== "ok") return;
    fs.copyFileSync(path.join(this.work, "result.json"), path.join(this.status, "last-good-backup"));
    fs.writeFileSync(path.join(this.status, "snapshot"), snapshot);
  }

  /** The result that the last backup left. */
  result(): { status: string; snapshot: string; message: string; items: number; builds: number; files: number; passes: number; added: number; upkeep: string; checked: string } {
    return JSON.parse(fs.readFileSync(path.join(this.work, "result.json"), "utf8"));
  }

  /** Restores a snapshot into an empty folder and returns it. */
  async restore(snapshot = "latest"): Promise<string> {
    const target = fs.mkdtempSync(path.join(this.root, "restored-"));
    const { code, output } = await this.run(["restore", snapshot, target]);
    if (code !== 0) throw new Error(output);
    return target;
  }

  remove(): void {
    fs.rmSync(this.root, { recursive: true, force: true });
  }
}

export function ended(child: ChildProcess): Promise<Ended> {
  return new Promise((resolve) => {
    let output = "";
    child.stdout!.on("data", (chunk: Buffer) => (output += chunk.toString()));
    child.stderr!.on("data", (chunk: Buffer) => (output += chunk.toString()));
    child.on("close", (code) => resolve({ code, output }));
  });
}

/** Kills a process started by `Home.start` and all that it started, as a power cut would. */
export function killHard(child: ChildProcess): void {
  try {
    process.kill(-child.pid!, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

/** Every file below a folder with its content's hash, every symlink with its target. */
export function hashes(folder: string): Map<string, string> {
  const found = new Map<string, string>();
  const walk = (at: string) => {
    for (const entry of fs.readdirSync(path.join(folder, at), { withFileTypes: true })) {
      const name = path.join(at, entry.name);
      if (entry.isDirectory()) walk(name);
      else if (entry.isSymbolicLink()) found.set(name, `-> ${fs.readlinkSync(path.join(folder, name))}`);
      else found.set(name, hashOf(path.join(folder, name)));
    }
  };
  walk("");
  return found;
}

function hashOf(file: string): string {
  const hash = createHash("sha256");
  const buffer = Buffer.alloc(1 << 20);
  const handle = fs.openSync(file, "r");
  for (let read = 1; read > 0; ) {
    read = fs.readSync(handle, buffer);
    hash.update(buffer.subarray(0, read));
  }
  fs.closeSync(handle);
  return hash.digest("hex");
}
