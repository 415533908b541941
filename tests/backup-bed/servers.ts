import { spawn, type ChildProcess } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as net from "node:net";
import * as os from "node:os";
import * as path from "node:path";
import { existingNodes, inNode } from "../../sandbox/cluster/nodes";
import { CACHE, NETWORK } from "../../sandbox/paths";
import { run, waitFor } from "../../sandbox/shell";
import { kubectl } from "../e2e/sandbox";

/** Servers beside the sandbox's cluster, on its bridge, that keep what they are sent in a folder of their own: what is lost with a node is not lost with it. */

const FIRST = { name: "control-plane-1" };

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

/** Where a bed keeps its repositories. */
export interface Repositories {
  start(): Promise<void>;
  /** Ends it as a power cut would; what it was sent stays. */
  stop(): void;
  remove(): void | Promise<unknown>;
  /** Address of a restic repository. */
  address(name: string): string;
  /** What the bed's stack config needs beside the addresses. */
  readonly config: Record<string, string>;
}

/** A server that is started, stopped as a power cut would, started again with what it had, and removed. */
abstract class Server implements Repositories {
  readonly config: Record<string, string> = {};
  readonly folder = fs.mkdtempSync(path.join(os.tmpdir(), "build-platform-server-"));
  protected child?: ChildProcess;

  constructor(
    readonly port: number,
    readonly host: string = NETWORK.gateway,
  ) {}

  /** Program, arguments and environment. */
  protected abstract command(): Promise<{ program: string; args: string[]; env?: NodeJS.ProcessEnv }>;
  abstract address(name: string): string;

  async start(): Promise<void> {
    if (this.child) return;
    if (await this.answers()) throw new Error(`something answers on port ${this.port} already: end the server that a run before has left`);
    const { program, args, env } = await this.command();
    const child = spawn(program, args, { stdio: "ignore", env: { ...process.env, ...env } });
    this.child = child;
    await waitFor(`${path.basename(program)} on port ${this.port}`, 60, () => {
      if (child.exitCode !== null) throw new Error(`it ended with exit code ${child.exitCode}`);
      return this.answers();
    });
  }

  private answers(): Promise<boolean> {
    return new Promise((resolve) => {
      const socket = net.connect(this.port, this.host, () => resolve(socket.destroy() !== undefined)).on("error", () => resolve(false));
    });
  }

  stop(): void {
    this.child?.kill("SIGKILL");
    this.child = undefined;
  }

  /** Makes it hang, as an overloaded machine does, until `resume`. */
  pause(): void {
    this.child?.kill("SIGSTOP");
  }

  resume(): void {
    this.child?.kill("SIGCONT");
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
  override readonly config = { environment: JSON.stringify(this.credentials) };
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

/** A real sshd with its own host key and one login key; root writes, as the sandbox knows no other user. */
export class SftpServer extends Server {
  override readonly config: Record<string, string> = {};

  protected async command() {
    const at = (name: string) => path.join(this.folder, name);
    for (const key of ["host", "login"]) if (!fs.existsSync(at(key))) await run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", at(key)]);
    this.config.sshKey = fs.readFileSync(at("login"), "utf8");
    this.config.knownHosts = `[${this.host}]:${this.port} ${fs.readFileSync(at("host.pub"), "utf8")}`;
    // Where sshd keeps its unprivileged half.
    fs.mkdirSync("/run/sshd", { recursive: true, mode: 0o755 });
    const settings = [`ListenAddress ${this.host}:${this.port}`, `HostKey ${at("host")}`, `AuthorizedKeysFile ${at("login.pub")}`, "StrictModes no", "PasswordAuthentication no", "KbdInteractiveAuthentication no", "UsePAM no", "PidFile none", "Subsystem sftp internal-sftp"];
    return { program: "/usr/sbin/sshd", args: ["-D", "-f", "/dev/null", ...settings.flatMap((line) => ["-o", line.replace(" ", "=")])] };
  }

  address(name: string): string {
    return `sftp://root@${this.host}:${this.port}/${this.folder}/${name}`;
  }
}

/** A folder of the sandbox's first node, which stands for a share that every node mounts: the other nodes, which have none, take no pods meanwhile. */
export class NodeFolder implements Repositories {
  readonly config = {};

  constructor(private readonly folder: string) {}

  private async others(verb: "cordon" | "uncordon"): Promise<void> {
    for (const { name } of existingNodes()) if (name !== FIRST.name) await kubectl([verb, name], { allowFailure: true });
  }

  async start(): Promise<void> {
    await this.others("cordon");
    await inNode(FIRST, ["install", "-d", "-o", "1000", "-g", "1000", "-m", "700", this.address("jenkins"), this.address("jenkins-keys")]);
  }

  stop(): void {
    // A folder does not stop.
  }

  async remove(): Promise<void> {
    await this.others("uncordon");
    await inNode(FIRST, ["rm", "-rf", this.folder]);
  }

  address(name: string): string {
    return path.join(this.folder, name);
  }
}
