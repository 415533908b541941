import { spawn, type ChildProcess } from "node:child_process";
import * as fs from "node:fs";
import * as net from "node:net";
import * as os from "node:os";
import * as path from "node:path";
import { buildTestTool } from "../../sandbox/cluster/binaries";
import { REPO } from "../../sandbox/paths";
import { run, waitFor, type Result, type RunOptions } from "../../sandbox/shell";
import { ENV } from "./sandbox";

export const script = path.join(REPO, "scripts/images/build-image.sh");

/** The real registry on loopback, with data that a test may take away. */
export class Registry {
  host = "";
  private process?: ChildProcess;
  constructor(private readonly home: string) {}

  private get log(): string {
    return path.join(this.home, "access.log");
  }

  /** With a password it lets in `me` only. */
  async start(password: boolean): Promise<void> {
    fs.mkdirSync(path.join(this.home, "data"), { recursive: true });
    if (this.host === "") this.host = `127.0.0.1:${await freePort()}`;
    // "e2e-s3cret" hashed with bcrypt.
    fs.writeFileSync(path.join(this.home, "htpasswd"), "me:$2b$04$Q74ssm0uqj6jrpBHyNHgc.GNqKdRC3tddBS0qhYWmfWl1KRWogOD.\n");
    const auth = password ? `auth: {htpasswd: {realm: test, path: ${path.join(this.home, "htpasswd")}}}\n` : "";
    const config = path.join(this.home, "config.yml");
    fs.writeFileSync(config, `version: 0.1\nlog: {level: error}\nstorage:\n  filesystem: {rootdirectory: ${path.join(this.home, "data")}}\n  delete: {enabled: true}\nhttp: {addr: "${this.host}"}\n${auth}`);
    const program = await buildTestTool("registry");
    const log = fs.openSync(this.log, "a");
    this.process = spawn(path.join(program, "registry"), ["serve", config], { stdio: ["ignore", log, log] });
    fs.closeSync(log);
    await waitFor("the test's registry", 30, () => fetch(`http://${this.host}/v2/`).then((answer) => answer.status === 200 || answer.status === 401, () => false));
  }

  async stop(): Promise<void> {
    const ended = new Promise((resolve) => this.process?.once("exit", resolve));
    this.process?.kill();
    await ended;
  }

  async wipe(): Promise<void> {
    await this.stop();
    fs.rmSync(path.join(this.home, "data"), { recursive: true });
    await this.start(false);
  }

  /** Requests so far that wrote something. */
  writes(): number {
    return (fs.readFileSync(this.log, "utf8").match(/"(?:PUT|POST|PATCH|DELETE) /g) ?? []).length;
  }

  async status(repository: string, reference: string): Promise<number> {
    const types = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";
    return (await fetch(`http://${this.host}/v2/${repository}/manifests/${reference}`, { headers: { Accept: types } })).status;
  }
}

/** A port of this machine that nobody listens on. */
export function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = net.createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address() as net.AddressInfo;
      server.close(() => resolve(port));
    });
  });
}

/** A folder of this machine with a registry of its own, build contexts, and storage for buildah; gone after each test. */
export class Bed {
  readonly folder = fs.mkdtempSync(path.join(os.tmpdir(), "agent-images-e2e-"));
  readonly registry = new Registry(path.join(this.folder, "registry"));

  /** Writes a build context; made from scratch, it needs no base image. */
  context(name: string, files: Record<string, string | Buffer>): string {
    const root = path.join(this.folder, name);
    for (const [file, text] of Object.entries(files)) {
      fs.mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
      fs.writeFileSync(path.join(root, file), text);
    }
    return root;
  }

  storage(name = "storage"): NodeJS.ProcessEnv {
    return { ...ENV, BUILD_IMAGE_STORAGE: path.join(this.folder, name) };
  }

  /** Runs the script by hand, as `e2e/NAME:NAME-0123456789ab`. */
  build(name: string, context: string, args: string[] = [], options: RunOptions = {}): Promise<Result> {
    return run(script, ["--repository", `${this.registry.host}/e2e/${name}`, "--tag", `${name}-0123456789ab`, "--context", context, "--insecure", "--force", ...args], { env: this.storage(), ...options });
  }

  async remove(): Promise<void> {
    await this.registry.stop();
    // buildah's overlay storage leaves a mount of itself.
    const mounts = fs.readFileSync("/proc/mounts", "utf8").split("\n").map((line) => line.split(" ")[1] ?? "").filter((at) => at.startsWith(this.folder));
    if (mounts.length > 0) await run("umount", ["-l", ...mounts]);
    fs.rmSync(this.folder, { recursive: true });
  }
}

export const plainContext = { Dockerfile: "FROM scratch\nARG WORD=one\nLABEL word=${WORD}\nCOPY files /files\n", "files/a.txt": "a\n", "files/run.sh": "#!/bin/sh\n" };
