import { spawn, type ChildProcess } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as http from "node:http";
import * as os from "node:os";
import * as path from "node:path";
import { CACHE, NETWORK } from "../../sandbox/paths";
import { run, waitFor } from "../../sandbox/shell";

/** Servers beside the sandbox's cluster, on its bridge, that keep what they are sent in a folder of their own: what is lost with a node is not lost with it. */

/** A program of a pinned Go module in a folder beside this file, built once into the cache, keyed by its pins. */
async function built(module: string, program: string): Promise<string> {
  const folder = path.join(__dirname, module);
  const pins = createHash("sha256").update(fs.readFileSync(path.join(folder, "go.mod"))).update(fs.readFileSync(path.join(folder, "go.sum"))).digest("hex").slice(0, 16);
  const binary = path.join(CACHE, "bin", `${module}-${pins}`);
  // Renamed when whole: a build that was interrupted is no program.
  if (!fs.existsSync(binary)) {
    await run("go", ["build", "-C", folder, "-o", `${binary}.part`, program]);
    fs.renameSync(`${binary}.part`, binary);
  }
  return binary;
}

/** A server that is started, stopped as a power cut would, started again with what it had, and removed. */
abstract class Server {
  readonly folder = fs.mkdtempSync(path.join(os.tmpdir(), "build-platform-server-"));
  protected child?: ChildProcess;

  constructor(
    readonly port: number,
    readonly host: string = NETWORK.gateway,
  ) {}

  /** Program, arguments and environment. */
  protected abstract command(): Promise<{ program: string; args: string[]; env?: NodeJS.ProcessEnv }>;
  /** Address of a restic repository that it keeps. */
  abstract address(name: string): string;

  async start(): Promise<void> {
    const { program, args, env } = await this.command();
    const child = spawn(program, args, { stdio: "ignore", env: { ...process.env, ...env } });
    this.child = child;
    await waitFor(`${path.basename(program)} on port ${this.port}`, 20, () => new Promise<boolean>((resolve, reject) => {
      if (child.exitCode !== null) return reject(new Error(`it ended with exit code ${child.exitCode}`));
      http.get(`http://${this.host}:${this.port}/`, (answer) => resolve(answer.resume() !== undefined)).on("error", () => resolve(false));
    }));
  }

  stop(): void {
    this.child?.kill("SIGKILL");
    this.child = undefined;
  }

  remove(): void {
    this.stop();
    fs.rmSync(this.folder, { recursive: true, force: true });
  }
}

/** restic's own REST server. */
export class RestServer extends Server {
  protected async command() {
    return { program: await built("rest-server", "github.com/restic/rest-server/cmd/rest-server"), args: ["--no-auth", "--listen", `${this.host}:${this.port}`, "--path", this.folder] };
  }

  address(name: string): string {
    return `rest:http://${this.host}:${this.port}/${name}/`;
  }
}

/** An S3 server (Versity's gateway over a folder), plain HTTP, with one account. A folder below `folder` is a bucket. */
export class S3Server extends Server {
  /** What a client needs in its environment; region us-east-1. */
  readonly credentials = { AWS_ACCESS_KEY_ID: "sandbox", AWS_SECRET_ACCESS_KEY: "secret-of-the-sandbox" } as const;
  readonly endpoint = `http://${this.host}:${this.port}`;

  protected async command() {
    return {
      program: await built("s3-server", "github.com/versity/versitygw/cmd/versitygw"),
      args: ["--port", `${this.host}:${this.port}`, "--quiet", "posix", this.folder],
      env: { ROOT_ACCESS_KEY: this.credentials.AWS_ACCESS_KEY_ID, ROOT_SECRET_KEY: this.credentials.AWS_SECRET_ACCESS_KEY },
    };
  }

  /** Makes a bucket, for clients that do not make their own. */
  bucket(name: string): void {
    fs.mkdirSync(path.join(this.folder, name), { recursive: true });
  }

  address(name: string): string {
    return `s3:${this.endpoint}/${name}`;
  }
}
