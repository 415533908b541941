import { spawn, type ChildProcess } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { agentPod, type AgentTemplate } from "../../components/jenkins-master/agents";
import { buildTestTool } from "../../sandbox/cluster/binaries";
import { installPackages } from "../../sandbox/cluster/packages";
import { run, waitFor, type Result } from "../../sandbox/shell";

/** The script of the docker sidecar that keeps its data, with the real dockerd: each daemon in namespaces of its own, as in a pod. */

const template: AgentTemplate = {
  name: "a", label: "a", image: "agent", docker: "dind", caches: ["docker"], resources: {}, dockerResources: {}, cap: 1, idleMinutes: 0, podRetention: "never",
  connectTimeoutSeconds: 60, activeDeadlineSeconds: 0, nodeSelector: {}, tolerations: [], spread: false, unlabelled: true, env: {}, volumes: [],
};

/** The command of the sidecar in an agent's pod, with or without what it keeps. */
function sidecarScript(caches: AgentTemplate["caches"]): string {
  const { spec } = agentPod({ ...template, caches }, { dindImage: "dind", buildkitImage: "", insecureRegistries: [], cachePath: "/c" }) as { spec: { containers: { name: string; command: string[] }[] } };
  return spec.containers.find(({ name }) => name === "dind")!.command[2];
}

/** A daemon as a pod has it. */
export class Daemon {
  private readonly process: ChildProcess;
  log = "";
  readonly ended: Promise<number | null>;

  constructor(private readonly bed: DockerBed, private readonly name: string, caches: AgentTemplate["caches"], further: NodeJS.ProcessEnv) {
    const home = path.join(bed.folder, name);
    for (const each of ["data", "run"]) fs.mkdirSync(path.join(home, each), { recursive: true });
    fs.writeFileSync(path.join(home, "script"), sidecarScript(caches));
    const args = ["dockerd", "--host=unix:///var/run/docker.sock", `--host=unix://${this.socket}`, "--tls=false", ...bed.options];
    const setUp = `mkdir -p /var/lib/docker && mount -o bind ${home}/data /var/lib/docker && mount -t tmpfs none /run && ip link set lo up && exec ${bed.shell} -c "$(cat ${home}/script)" dockerd-entrypoint.sh "$@"`;
    const network = bed.network ? ["nsenter", `--net=${bed.network}`] : [];
    const [program, ...rest] = [...network, "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private", ...(bed.network ? [] : ["--net"]), "sh", "-c", setUp, "sh", ...args];
    this.process = spawn(program, rest, { env: { ...process.env, PATH: `${bed.folder}/bin:${process.env.PATH}`, SLOTS: bed.slots, ...further }, stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.process.stdout!, this.process.stderr!]) stream.on("data", (chunk: Buffer) => (this.log += chunk.toString()));
    this.ended = new Promise((resolve) => this.process.once("exit", resolve));
  }

  private get socket(): string {
    return path.join(this.bed.folder, this.name, "docker.sock");
  }

  /** Runs the client of the build. */
  docker(args: string[], options: { allowFailure?: boolean; env?: NodeJS.ProcessEnv } = {}): Promise<Result> {
    return run("docker", args, { allowFailure: options.allowFailure, env: { ...process.env, DOCKER_HOST: `unix://${this.socket}`, DOCKER_CONFIG: path.join(this.bed.folder, "client"), ...options.env } });
  }

  async ready(): Promise<this> {
    await waitFor(`dockerd ${this.name}`, 120, () => this.docker(["version"], { allowFailure: true }).then(({ code }) => code === 0));
    return this;
  }

  /** As the kubelet ends a container: the first process is told, and the rest goes with it. */
  async end(signal: "TERM" | "KILL" = "TERM"): Promise<number | null> {
    const first = (await run("pgrep", ["-P", String(this.process.pid)])).stdout.trim();
    await run("kill", [`-${signal}`, first], { allowFailure: true });
    return this.ended;
  }

  /** What the script said of the slot. */
  said(): string[] {
    return this.log.split("\n").flatMap((line) => /^docker cache: (.*)/.exec(line)?.[1] ?? []);
  }
}

/** A folder with slots, and the daemons that use them. */
export class DockerBed {
  readonly folder = fs.mkdtempSync(path.join(os.tmpdir(), "docker-bed-"));
  readonly slots = path.join(this.folder, "slots");
  readonly daemons: Daemon[] = [];
  /** Network namespace of the daemons, as a path; none for one of each of them's own. */
  network?: string;
  /** What runs the script: the real image has BusyBox. */
  shell = "dash";

  constructor(readonly options: string[]) {}

  async setUp(): Promise<void> {
    await installPackages(["docker.io", "tini", "procps", "util-linux", "busybox-static"]);
    for (const each of ["slots", "bin", "client/cli-plugins"]) fs.mkdirSync(path.join(this.folder, each), { recursive: true });
    fs.writeFileSync(path.join(this.folder, "bin/dockerd-entrypoint.sh"), '#!/bin/sh\nexec tini -s -- "$@"\n', { mode: 0o755 });
    fs.symlinkSync(path.join(await buildTestTool("buildkit"), "buildx"), path.join(this.folder, "client/cli-plugins/docker-buildx"));
  }

  async start(name: string, { caches = ["docker"], env = {} }: { caches?: AgentTemplate["caches"]; env?: NodeJS.ProcessEnv } = {}): Promise<Daemon> {
    const daemon = new Daemon(this, name, caches, env);
    this.daemons.push(daemon);
    return daemon.ready();
  }

  /** Writes a build context. */
  context(name: string, files: Record<string, string | Buffer>): string {
    const root = path.join(this.folder, name);
    fs.mkdirSync(root, { recursive: true });
    for (const [file, text] of Object.entries(files)) fs.writeFileSync(path.join(root, file), text);
    return root;
  }

  async remove(): Promise<void> {
    for (const daemon of this.daemons) await daemon.end("KILL").catch(() => undefined);
    fs.rmSync(this.folder, { recursive: true, force: true });
  }
}
