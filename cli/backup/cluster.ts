import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { awayWith, BACKUP_CRON, HOME_CLAIM, type KubernetesObject, lostAmong, mounts, resticJob } from "./objects";

/** The cluster through kubectl, whose context and login are the operator's own; jobs in it, and why they do not get on. */

/** Where the platform is. Set once, when the command line has been read. */
export const where: { kubeconfig?: string; context?: string; namespace: string } = { namespace: "jenkins" };

export const say = (text: string) => process.stderr.write(`${text}\n`);
export const sleep = (seconds: number) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

interface Ended {
  code: number;
  out: string;
  err: string;
}

export function run(program: string, args: string[], input: string | NodeJS.ReadableStream = ""): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"] });
    const ended: Ended = { code: -1, out: "", err: "" };
    child.stdout.on("data", (chunk: Buffer) => (ended.out += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (ended.err += chunk.toString()));
    child.stdin.on("error", () => undefined);
    if (typeof input === "string") child.stdin.end(input);
    else input.pipe(child.stdin);
    child.on("error", (error) => reject(new Error(`${program} could not be started: ${error.message}`)));
    child.on("close", (code) => resolve({ ...ended, code: code ?? 128 }));
  });
}

export const target = () => [...(where.kubeconfig ? ["--kubeconfig", where.kubeconfig] : []), ...(where.context ? ["--context", where.context] : []), "--namespace", where.namespace];

/** Runs kubectl. A cluster that is out of reach for a moment is asked again; other failures carry kubectl's words. */
export async function kubectl(args: string[], input?: string): Promise<string> {
  for (let attempt = 1; ; attempt++) {
    const ended = await run("kubectl", [...target(), ...args], input);
    if (ended.code === 0) return ended.out;
    if (attempt < 10 && /connection refused|i\/o timeout|TLS handshake|EOF|etcdserver|ServiceUnavailable|the object has been modified/i.test(ended.err)) {
      await sleep(3);
      continue;
    }
    throw new Error(`kubectl ${args.slice(0, 4).join(" ")}: ${ended.err.trim().split("\n").slice(-3).join("\n")}`);
  }
}

export async function get(kind: string, name: string): Promise<KubernetesObject | undefined> {
  const text = await kubectl(["get", kind, name, "--ignore-not-found", "--show-managed-fields", "-o", "json"]);
  return text.trim() === "" ? undefined : JSON.parse(text);
}

export const list = async (kind: string, selector: string): Promise<KubernetesObject[]> => JSON.parse(await kubectl(["get", kind, "-l", selector, "-o", "json"])).items;
export const patch = (kind: string, name: string, change: unknown) => kubectl(["patch", kind, name, "--type", "merge", "-p", JSON.stringify(change)]);
export const remove = (kind: string, name: string, ...further: string[]) => kubectl(["delete", kind, name, "--ignore-not-found", ...further]);

export async function theCron(name: string): Promise<KubernetesObject> {
  const cron = await get("cronjob", name);
  if (!cron) throw new Error(`namespace ${where.namespace} has no CronJob ${name}: set the stack's config key backup (repository, passwords) and run pulumi up first`);
  return cron;
}

/** Why a pod does not run, or nothing. */
function obstacle(pod: KubernetesObject): string | undefined {
  const statuses = [...(pod.status.initContainerStatuses ?? []), ...(pod.status.containerStatuses ?? [])];
  for (const status of statuses) {
    const waiting = status.state?.waiting;
    if (waiting && !/^(PodInitializing|ContainerCreating)$/.test(waiting.reason)) return `${status.name}: ${waiting.reason} ${waiting.message ?? ""}`.trim();
  }
  const unscheduled = (pod.status.conditions ?? []).find((c: KubernetesObject) => c.type === "PodScheduled" && c.status === "False");
  return unscheduled ? `not scheduled: ${unscheduled.message}` : undefined;
}

/** The same, and what the cluster has warned of while nothing of the pod has started yet, such as a folder that its node does not have. */
export async function hindrance(pod: KubernetesObject): Promise<string | undefined> {
  const found = obstacle(pod);
  if (found) return found;
  const statuses = [...(pod.status.initContainerStatuses ?? []), ...(pod.status.containerStatuses ?? [])] as KubernetesObject[];
  if (statuses.some((status) => status.state?.running || status.state?.terminated)) return undefined;
  const { items } = JSON.parse(await kubectl(["get", "events", "--field-selector", `involvedObject.uid=${pod.metadata.uid},type=Warning`, "-o", "json"]));
  const last = (items as KubernetesObject[]).filter(({ reason }) => reason !== "FailedScheduling").pop();
  return last && `${last.reason} on node ${pod.spec.nodeName}: ${last.message}`;
}

export const listNodes = async (): Promise<KubernetesObject[]> => JSON.parse(await kubectl(["get", "nodes", "-o", "json"])).items;
export const lostNodes = async (): Promise<(node: string) => boolean> => lostAmong(await listNodes());

/**
 * Whether a node's kubelet answers when the API server passes a question on to it; undefined where that cannot be told, as without the
 * right to ask (nodes/proxy).
 */
export async function answers(node: string): Promise<boolean | undefined> {
  const { code, err } = await run("kubectl", [...target(), "get", "--raw", `/api/v1/nodes/${node}/proxy/healthz`, "--request-timeout=5s"]);
  if (code === 0) return true;
  // An API server that answers others at once has had no answer itself.
  return /error trying to reach service: .*(no route to host|connection refused|timeout|timed out|reset by peer|EOF)|Client\.Timeout|deadline exceeded/.test(err) ? false : undefined;
}

/** The node that has the home and does not answer; undefined where the home can be reached. */
export async function lostHome(): Promise<string | undefined> {
  const volume = (await get("pvc", HOME_CLAIM))?.spec.volumeName as string | undefined;
  const home = volume && (await get("pv", volume));
  return home ? awayWith(home, await listNodes()) : undefined;
}

export const homeIsAway = (host: string) => `node ${host}, which has the home, does not answer; from the last backup: npm run restore -- --snapshot latest`;

/**
 * Creates a job, or takes the one of that name that an earlier run left, and waits for its end. Returns the container's log.
 * @param away what is said where the node with the home does not answer
 */
export async function runJob(job: KubernetesObject, container: string, away = homeIsAway): Promise<{ ok: boolean; log: string; pod?: KubernetesObject }> {
  const name = job.metadata.name;
  const former = await get("job", name);
  if (former?.status?.failed) await remove("job", name, "--wait=true", "--cascade=foreground");
  if (!former || former.status?.failed) await kubectl(["create", "-f", "-"], JSON.stringify(job));
  let told = "";
  for (let waited = 0; ; waited++) {
    const [state, pods] = [await get("job", name), await list("pods", `job-name=${name}`)];
    if (!state) throw new Error(`job ${name} was deleted by somebody`);
    const pod = pods[pods.length - 1];
    const ended = (state.status?.conditions ?? []).find((c: KubernetesObject) => c.status === "True" && /^(Complete|Failed)$/.test(c.type));
    if (ended) {
      const log = pod ? (await run("kubectl", [...target(), "logs", pod.metadata.name, "-c", container])).out : "";
      return { ok: ended.type === "Complete", log: log || (ended.message ?? ""), pod };
    }
    // A node is trusted for some 50 s after its end: a pod may have been given to one that is gone, and waits there for ever; one that wants the home, for any node.
    const lost = waited % 5 === 4 && pod && mounts(pod, HOME_CLAIM) ? await lostHome() : undefined;
    if (lost) {
      await remove("job", name, "--wait=false");
      throw new Error(away(lost));
    }
    if (waited % 5 === 4 && pod?.spec.nodeName && (await lostNodes())(pod.spec.nodeName)) {
      if (mounts(pod, HOME_CLAIM)) throw new Error(away(pod.spec.nodeName));
      say(`   node ${pod.spec.nodeName} does not answer; ${name} begins again on another one`);
      await remove("pod", pod.metadata.name, "--force", "--grace-period=0", "--wait=false");
      await remove("job", name, "--wait=true", "--cascade=foreground");
      await kubectl(["create", "-f", "-"], JSON.stringify(job));
    }
    const problem = pod && ((await hindrance(pod)) ?? (waited % 60 === 59 ? await trying(pod) : undefined));
    if (problem && problem !== told) say(`   waiting: ${(told = problem)}`);
    await sleep(1);
  }
}

/** What a pod's restic says last where that is that it tries again. */
async function trying(pod: KubernetesObject): Promise<string | undefined> {
  const { out } = await run("kubectl", [...target(), "logs", pod.metadata.name, "-c", "restic", "--tail=1"]);
  return /restic still tries: .*/.exec(out)?.[0];
}

export const random = () => randomBytes(3).toString("hex");

/** Runs home.sh for its output; the job is removed afterwards. */
export async function askRestic(shell: string): Promise<string> {
  const name = `jenkins-backup-ask-${random()}`;
  try {
    const { ok, log } = await runJob(resticJob(await theCron(BACKUP_CRON), name, shell), "restic");
    if (!ok) throw new Error(log.trim().split("\n").slice(-3).join("\n"));
    return log;
  } finally {
    await remove("job", name, "--wait=false");
  }
}
