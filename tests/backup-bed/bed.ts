import { spawn, type ChildProcess } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { REGISTRY, REPO } from "../../sandbox/paths";
import { run, waitFor, type Result } from "../../sandbox/shell";
import { deleteVolumes, ENV, ensurePlatform, kubectl } from "../e2e/sandbox";
import upstream from "../../images/upstream.json";
import type { Repositories } from "./servers";

/**
 * A controller with its backup in a namespace of the sandbox's cluster, and repositories beside the cluster.
 */
const BED = __dirname;
const image = (key: "jenkins" | "restic") => `${REGISTRY}/${upstream[key].image.replace(/^[^/]+\//, "")}:${upstream[key].tag}`;

/** An object as kubectl prints it. */
// `any`: fields of many kinds are looked at.
type Live = Record<string, any>;

const post = `post() {
  jar=$(mktemp)
  crumb=$(curl -s -c "$jar" http://localhost:8080/crumbIssuer/api/json | sed -n 's/.*"crumb":"\\([^"]*\\)".*"crumbRequestField":"\\([^"]*\\)".*/\\2: \\1/p')
  code=0
  curl -sf -b "$jar" \${crumb:+-H "$crumb"} -X POST "$@" || code=$?
  rm -f "$jar"
  return $code
}`;

/** Makes the platform where its storage class is missing. */
export async function platformFirst(): Promise<void> {
  if (!(await kubectl(["get", "storageclass", "openebs-hostpath", "--ignore-not-found"]))) await ensurePlatform();
}

export class Bed {
  /** Whether the repositories go with this bed. */
  private owner = true;

  constructor(
    readonly namespace: string,
    readonly repositories: Repositories,
    private readonly config: Record<string, string> = {},
  ) {}

  /** Another bed that backs up to the same repositories, as another cluster or environment would after a move. */
  twin(namespace: string, config: Record<string, string> = {}): Bed {
    const bed = new Bed(namespace, this.repositories, config);
    bed.owner = false;
    return bed;
  }

  pulumi(args: string[], allowFailure = false): Promise<Result> {
    // Words after "--" are values, whatever they begin with.
    const end = args.includes("--") ? args.indexOf("--") : args.length;
    return run("pulumi", [...args.slice(0, end), "--stack", this.namespace, "--non-interactive", "--color", "never", ...args.slice(end)], { cwd: BED, env: ENV, allowFailure });
  }

  async up(): Promise<void> {
    await this.repositories.start();
    await run("pulumi", ["stack", "select", "--create", this.namespace, "--non-interactive"], { cwd: BED, env: ENV });
    const values = { namespace: this.namespace, controllerImage: image("jenkins"), resticImage: image("restic"), repository: this.repositories.address("jenkins"), keysRepository: this.repositories.address("jenkins-keys"), ...this.repositories.config, ...this.config };
    for (const [key, value] of Object.entries(values)) await this.pulumi(["config", "set", key, "--", value]);
    await this.pulumi(["up", "--yes", "--skip-preview"]);
    await this.answers();
  }

  private get file(): string {
    return path.join(BED, `Pulumi.${this.namespace}.yaml`);
  }

  /** Takes the stack away with all that it made, in whatever state it is. */
  private async clear(): Promise<void> {
    await this.kubectl(["delete", "configmap", "jenkins-restore", "jenkins-failover", "--ignore-not-found"], true);
    await this.pulumi(["config", "set", "protect", "false"], true);
    await this.pulumi(["up", "--yes", "--skip-preview"], true);
    await this.pulumi(["destroy", "--yes", "--skip-preview"], true);
    await this.pulumi(["stack", "rm", "--yes", "--force"], true);
    fs.rmSync(this.file, { force: true });
    await deleteVolumes(this.namespace);
  }

  async down(): Promise<void> {
    await this.clear();
    if (this.owner) await this.repositories.remove();
  }

  kubectl(args: string[], allowFailure = false, input?: string): Promise<Result> {
    return run("kubectl", ["-n", this.namespace, ...args], { env: ENV, allowFailure, input });
  }

  async json(args: string[]): Promise<Live> {
    return JSON.parse((await this.kubectl([...args, "-o", "json"])).stdout);
  }

  /** Runs one of the operator's commands, as `npm run backup`, `backups` and `restore` do. */
  cli(args: string[], allowFailure = false): Promise<Result> {
    return run("npx", ["tsx", "cli/backup/index.ts", ...args, "--namespace", this.namespace], { cwd: REPO, env: ENV, allowFailure });
  }

  /** Runs `npm run failover`. */
  failover(args: string[], allowFailure = false): Promise<Result> {
    return run("npx", ["tsx", "cli/failover/index.ts", ...args, "--namespace", this.namespace], { cwd: REPO, env: ENV, allowFailure });
  }

  /** Starts a command for being killed; `seen` is called with each line. */
  startCli(args: string[], seen: (line: string, child: ChildProcess) => void, command = "backup"): Promise<number | null> {
    const child = spawn(process.execPath, ["--import", "tsx", `cli/${command}/index.ts`, ...args, "--namespace", this.namespace], { cwd: REPO, env: ENV, stdio: ["ignore", "ignore", "pipe"] });
    child.stderr!.on("data", (chunk: Buffer) => chunk.toString().split("\n").filter(Boolean).forEach((line) => seen(line, child)));
    return new Promise((resolve) => child.on("close", resolve));
  }

  /** Runs a script beside the controller, in which `post` is curl with what a Jenkins that guards against forged requests wants. */
  inController(script: string, allowFailure = false, input?: string): Promise<Result> {
    return run("kubectl", ["-n", this.namespace, "exec", "-i", "deployment/jenkins", "-c", "jenkins", "--", "sh", "-c", `${post}\n${script}`], { env: ENV, allowFailure, input });
  }

  answers(): Promise<unknown> {
    return waitFor("the bed's controller", 300, async () => (await this.inController("curl -sf -o /dev/null http://localhost:8080/api/json", true)).code === 0);
  }

  /** Makes a job whose build takes about `seconds` and prints `bytes` of noise. */
  async job(name: string, bytes = 2000, seconds = 0): Promise<void> {
    const xml = `<?xml version='1.0' encoding='UTF-8'?><project><concurrentBuild>true</concurrentBuild><builders><hudson.tasks.Shell><command>echo build $BUILD_NUMBER; head -c ${bytes} /dev/urandom | base64; sleep ${seconds}</command></hudson.tasks.Shell></builders><publishers/><buildWrappers/></project>`;
    await this.inController(`post -H 'Content-Type: application/xml' --data-binary @- 'http://localhost:8080/createItem?name=${encodeURIComponent(name)}'`, false, xml);
  }

  /** Runs so many builds of a job one after the other and waits for the last. */
  async build(name: string, times = 1): Promise<void> {
    for (let i = 0; i < times; i++) {
      const before = (await this.builds())[name]?.length ?? 0;
      await this.inController(`post -o /dev/null 'http://localhost:8080/job/${encodeURIComponent(name)}/build?delay=0sec'`);
      await waitFor(`build ${before + 1} of ${name}`, 120, async () => ((await this.builds())[name]?.length ?? 0) > before);
    }
  }

  /** Numbers of the finished builds of every job, newest first, as the running controller lists them. */
  async builds(): Promise<Record<string, number[]>> {
    const script = "hudson.model.Hudson.instance.getAllItems(hudson.model.Job).each { job -> println job.fullName + '\\t' + job.builds.findAll { !it.isBuilding() }*.number.join(',') }; null";
    const { stdout } = await this.inController("post --data-urlencode script@- http://localhost:8080/scriptText", false, script);
    return Object.fromEntries(stdout.split("\n").filter(Boolean).map((line) => line.split("\t")).map(([name, numbers]) => [name, (numbers ?? "").split(",").filter(Boolean).map(Number)]));
  }

  /** Sets the bed up anew, and before it the platform. */
  async upOnPlatform(): Promise<void> {
    await platformFirst();
    await this.anew();
    await this.up();
  }

  /** Takes away what a run that was killed has left: it speaks of repositories that went with that run. */
  async anew(): Promise<void> {
    if (fs.existsSync(this.file) || (await kubectl(["get", "namespace", this.namespace, "--ignore-not-found"]))) await this.clear();
  }

  /** Moves the home to another node, for good. */
  async moveTo(node: string): Promise<void> {
    await this.cli(["restore", "--snapshot", "now", "--node", node, "--yes"]);
    await this.cli(["restore", "--confirm"]);
  }

  /** The snapshot of the last good backup. */
  async newest(): Promise<string> {
    return JSON.parse((await this.json(["get", "configmap", "jenkins-backup-status"])).data["last-good-backup"]).snapshot;
  }

  /** Fails if Pulumi sees any difference between its state, the program and the cluster. */
  async unchanged(): Promise<void> {
    await this.pulumi(["refresh", "--yes", "--skip-preview", "--expect-no-changes"]);
    await this.pulumi(["preview", "--expect-no-changes"]);
  }

  /** The volume that the home's claim is bound to. */
  async volume(): Promise<string> {
    return (await this.json(["get", "pvc", "jenkins-home"])).spec.volumeName;
  }

  /** Hash of each file of a volume, read on its node's disk; `./jobs/...` as keys. */
  async hashes(volume: string, below = "jobs"): Promise<Map<string, string>> {
    const { spec } = await this.json(["get", "pv", volume]);
    const node = spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].values[0];
    const folder = spec.local?.path ?? spec.hostPath.path;
    const { stdout } = await run("npx", ["tsx", "sandbox/cli.ts", "exec", node, "--", "sh", "-c", `cd ${folder} && find ./${below} -type f -exec sha256sum {} +`], { cwd: REPO, env: ENV });
    return new Map(stdout.split("\n").filter(Boolean).map((line) => [line.slice(66), line.slice(0, 64)]));
  }
}
