import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import type { V1Container, V1Pod, V1Volume } from "@kubernetes/client-node";
import { loginPath } from "../../components/boot";
import { onCopy, type RehearsalInput } from "../../components/jenkins-master/rehearsal";
import { discreet, jenkinsProblems, namedSecrets, type Problem } from "../../scripts/rehearsal/judge";
import { get, say, sleep, theCron, where } from "../backup/cluster";
import { Book } from "../backup/journal";
import { VERIFY_CRON } from "../backup/objects";
import { pickSnapshot, type Snapshot } from "../backup/plan";
import { snapshots } from "../backup/snapshots";
import { adminAuth, Jenkins, withJenkins } from "../jenkins";
import { root } from "../repository";
import type { Stack } from "../stack";
import { UsageError } from "../terminal";
import { factsOf, type Facts, readFacts } from "./facts";

/** Tries a controller on a restored copy of a snapshot, by the rollout's own rehearsal. */

const checkScript = path.join(root, "scripts/backup/controller-check.sh");

/** What a trial found out. */
export interface Trial {
  stack: string;
  time: Date;
  snapshot: Snapshot;
  /** Image of the controller that was tried, and of the running one. */
  image: string;
  runningImage: string;
  /** Why Jenkins did not come up, or what it could not load; in its own words. */
  problems: Problem[];
  notes: string[];
  /** Jobs and builds of the snapshot. */
  inventory: Facts;
  /** What the copy said; undefined where it did not come up. */
  copy?: Facts;
  /** What the running Jenkins said; undefined where it could not be asked, and then why. */
  running?: Facts;
  notAsked?: string;
}

/** Points the backup's commands at a stack. @throws {UsageError} where it has no backup, with what to do */
export function ofStack({ name, config: { backup, cluster, namespaces } }: Stack): void {
  if (!backup) throw new UsageError(`stack ${name} has no backup, and a copy comes from one: set config key backup (docs/backup.md), then npm run up -- ${name} and npm run backup -- --stack ${name}`);
  Object.assign(where, cluster, { namespace: namespaces.jenkins });
}

const turns = new Book<object>("jenkins-rehearsal-copy", "environment's rehearsal on a copy", true);

/** Tries something on a copy while nobody else does: each begins with removing what a former one left. */
export const inTurn = <T>(work: () => Promise<T>): Promise<T> => turns.alone(work);

/** The snapshot to try on. @throws {UsageError} where there is none, with what to do */
export async function chosenSnapshot(stack: Stack, wanted = "latest"): Promise<Snapshot> {
  ofStack(stack);
  await theCron(VERIFY_CRON);
  const found = await snapshots();
  if (found.length === 0) throw new UsageError(`there is no snapshot to make a copy of yet: npm run backup -- --stack ${stack.name} makes one`);
  return pickSnapshot(found, wanted);
}

/** Seconds from a container's start to its pod's readiness; undefined where it was not ready within an hour, or has not stayed so. */
export function startSeconds({ status }: Pick<V1Pod, "status">): number | undefined {
  const started = status?.containerStatuses?.find(({ name }) => name === "jenkins")?.state?.running?.startedAt;
  const ready = status?.conditions?.find(({ type, status: state }) => type === "Ready" && state === "True")?.lastTransitionTime;
  if (!started || !ready) return undefined;
  const seconds = (new Date(ready).getTime() - new Date(started).getTime()) / 1000;
  return seconds >= 0 && seconds < 3600 ? seconds : undefined;
}

/** Asks again where the way through the API server broke. */
async function runningFacts(stack: Stack, tries = 3): Promise<Facts> {
  try {
    return await askRunning(stack);
  } catch (error) {
    if (tries <= 1) throw error;
    await sleep(5);
    return runningFacts(stack, tries - 1);
  }
}

async function askRunning(stack: Stack): Promise<Facts> {
  const { kubectl, config: { namespaces } } = stack;
  const { items } = JSON.parse(await kubectl("-n", namespaces.jenkins, "get", "pods", "-l", "app.kubernetes.io/name=jenkins,app.kubernetes.io/component=controller", "-o", "json")) as { items: V1Pod[] };
  const auth = await adminAuth(stack);
  const script = /<<'GROOVY'\n([\s\S]*?)\nGROOVY/.exec(fs.readFileSync(checkScript, "utf8"))![1];
  const text = await withJenkins(stack, (at) => new Jenkins(at, auth).post("/scriptText", `script=${encodeURIComponent(script)}`, "application/x-www-form-urlencoded"));
  const seconds = items[0] && startSeconds(items[0]);
  return { ...factsOf(text), ...(seconds !== undefined && { startSeconds: seconds }) };
}

/**
 * Boots `input` on a copy of a snapshot and asks it what it has, and the running Jenkins the same. Whatever it made goes again.
 * @throws where it could not be tried
 */
export async function tryOnCopy(stack: Stack, input: RehearsalInput, snapshot: Snapshot, running: { pod: { containers: V1Container[] } }): Promise<Trial> {
  const cron = await theCron(VERIFY_CRON);
  const spec = cron.spec.jobTemplate.spec.template.spec as { initContainers: V1Container[]; volumes: V1Volume[] };
  const restic = spec.initContainers.find(({ name }) => name === "restic")!;
  const mounted = new Set([...(restic.volumeMounts ?? []).map(({ name }) => name), "home", "work"]);
  const objects = onCopy(input.objects, { restic, volumes: spec.volumes.filter(({ name }) => mounted.has(name)), snapshot: snapshot.id });
  const whole: RehearsalInput = { ...input, objects };
  const [candidate] = objects.job.spec!.template.spec!.containers;

  // Where they are needed: the client is no module that everything which reads a report can load.
  const [{ KubeConfig }, { rehearse, Stage }] = await Promise.all([import("@kubernetes/client-node"), import("../../scripts/rehearsal/rehearse")]);
  const kubeconfig = new KubeConfig();
  if (input.kubeconfig) kubeconfig.loadFromFile(input.kubeconfig.replace(/^~(?=\/)/, os.homedir()));
  else kubeconfig.loadFromDefault();
  kubeconfig.setCurrentContext(input.context);
  const stage = new Stage(kubeconfig, whole);
  const interrupted = new AbortController();
  const stop = () => interrupted.abort();
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(name, stop);
  try {
    const hide = discreet([...objects.secrets, ...(await stage.contents(namedSecrets(whole)))]);
    const asking = runningFacts(stack).then((facts) => ({ running: facts }), (error: Error) => ({ notAsked: hide(error.message.trim().split("\n")[0]) }));
    const ended = await rehearse(stage, whole, (line) => say(`   ${hide(line)}`), interrupted.signal);
    const trial: Trial = {
      stack: stack.name, time: new Date(), snapshot, image: candidate.image!, runningImage: running.pod.containers.find(({ name }) => name === "jenkins")!.image!,
      problems: ended.problems.map(({ what, words, todo }) => ({ what, words: words.map(hide), todo })), notes: ended.good ? ended.lines.slice(1).map(hide) : [], inventory: readFacts(""),
      ...(await asking),
    };
    const { pod } = ended;
    if (!pod) return trial;
    const name = pod.metadata!.name!;
    const prefix = loginPath(candidate).replace(/\/login$/, "");
    const script = fs.readFileSync(checkScript, "utf8");
    const listed = await stage.inside(name, "jenkins", ["env", `JENKINS_URL_LOCAL=http://127.0.0.1:8080${prefix}`, "sh", "-c", script, "controller-check.sh", "--list", "120"]);
    if (listed.code !== 0) throw new Error(`the copy came up, and could not be asked what it has: ${hide(listed.out.trim())}`);
    const inventory = await stage.inside(name, "jenkins", ["cat", "/scratch/inventory"]);
    if (inventory.code !== 0) throw new Error(`the list of what the copy is to have cannot be read: ${inventory.out}`);
    // What failed after it answered is in the log by now.
    const log = (await stage.look().catch(() => ended)).log || ended.log;
    const known = new Set(trial.problems.map(({ what }) => what));
    const further = jenkinsProblems(log).filter(({ what }) => !known.has(what)).map(({ what, words, todo }) => ({ what, words: words.map(hide), todo }));
    const seconds = startSeconds(pod);
    return { ...trial, problems: [...trial.problems, ...further], inventory: readFacts(inventory.out), copy: { ...factsOf(hide(listed.out)), ...(seconds !== undefined && { startSeconds: seconds }) } };
  } finally {
    for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.off(name, stop);
    await stage.clear().catch((error: Error) => say(`What the rehearsal made could not be removed now (${error.message}); the next one removes it`));
  }
}

/** The pod of the running controller, as its Deployment has it. @throws where there is none */
export async function runningPod(stack: Stack): Promise<{ pod: NonNullable<V1Pod["spec"]> }> {
  const deployment = await get("deployment", "jenkins");
  if (!deployment) throw new UsageError(`namespace ${where.namespace} has no Deployment jenkins: npm run up -- ${stack.name} makes it`);
  return { pod: deployment.spec.template.spec };
}
