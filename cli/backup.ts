import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { createInterface } from "node:readline/promises";
import {
  age, ahead, BACKUP_CRON, boundClaim, claimAsWritten, DEPLOYMENT, emptyClaim, freshClaim, HELP, HOME_CLAIM, hostsOf, INVENTORY_FILE, jobFromCron, JOURNAL, type Journal, type KubernetesObject,
  MANAGER, mounts, type Options, parseArguments, parseSnapshots, type Phase, pickSnapshot, type Placement, pulumiManager, quote, resticJob, review, SAVER_SELECTOR, type Snapshot, standing, STATUS, UsageError, VERIFY_CRON,
} from "./backup-plan";
import { readStack } from "./stack";

/**
 * Backup, list and restore by an operator's hand; see docs/backup.md. Talks to the cluster through kubectl, whose
 * context and login are the operator's own. A restore keeps its progress in the cluster: whatever ends it, running
 * `npm run restore` again goes on where it stopped.
 */

let options: Options;
const say = (text: string) => process.stderr.write(`${text}\n`);
const sleep = (seconds: number) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

interface Ended {
  code: number;
  out: string;
  err: string;
}

function run(program: string, args: string[], input: string | NodeJS.ReadableStream = ""): Promise<Ended> {
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

const target = () => [...(options.kubeconfig ? ["--kubeconfig", options.kubeconfig] : []), ...(options.context ? ["--context", options.context] : []), "--namespace", options.namespace];

/** Runs kubectl. A cluster that is out of reach for a moment is asked again; other failures carry kubectl's words. */
async function kubectl(args: string[], input?: string): Promise<string> {
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

async function get(kind: string, name: string): Promise<KubernetesObject | undefined> {
  const text = await kubectl(["get", kind, name, "--ignore-not-found", "--show-managed-fields", "-o", "json"]);
  return text.trim() === "" ? undefined : JSON.parse(text);
}

const list = async (kind: string, selector: string): Promise<KubernetesObject[]> => JSON.parse(await kubectl(["get", kind, "-l", selector, "-o", "json"])).items;
const patch = (kind: string, name: string, change: unknown) => kubectl(["patch", kind, name, "--type", "merge", "-p", JSON.stringify(change)]);
const remove = (kind: string, name: string, ...further: string[]) => kubectl(["delete", kind, name, "--ignore-not-found", ...further]);

async function theCron(name: string): Promise<KubernetesObject> {
  const cron = await get("cronjob", name);
  if (!cron) throw new Error(`namespace ${options.namespace} has no CronJob ${name}: set the stack's config key backup (repository, passwords) and run pulumi up first`);
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
async function hindrance(pod: KubernetesObject): Promise<string | undefined> {
  const found = obstacle(pod);
  if (found) return found;
  const statuses = [...(pod.status.initContainerStatuses ?? []), ...(pod.status.containerStatuses ?? [])] as KubernetesObject[];
  if (statuses.some((status) => status.state?.running || status.state?.terminated)) return undefined;
  const { items } = JSON.parse(await kubectl(["get", "events", "--field-selector", `involvedObject.uid=${pod.metadata.uid},type=Warning`, "-o", "json"]));
  const last = (items as KubernetesObject[]).filter(({ reason }) => reason !== "FailedScheduling").pop();
  return last && `${last.reason} on node ${pod.spec.nodeName}: ${last.message}`;
}

/** Creates a job, or takes the one of that name that an earlier run left, and waits for its end. Returns the container's log. */
async function runJob(job: KubernetesObject, container: string): Promise<{ ok: boolean; log: string; pod?: KubernetesObject }> {
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
    // A node is trusted for some 50 s after its end: a pod may have been given to one that is gone, and waits there for ever.
    if (waited % 5 === 4 && pod?.spec.nodeName && (await lostNodes())(pod.spec.nodeName)) {
      if (mounts(pod, HOME_CLAIM)) throw new Error(`node ${pod.spec.nodeName}, which has the home, does not answer; from the last backup: npm run restore -- --snapshot latest`);
      say(`   node ${pod.spec.nodeName} does not answer; ${name} begins again on another one`);
      await remove("pod", pod.metadata.name, "--force", "--grace-period=0", "--wait=false");
      await remove("job", name, "--wait=true", "--cascade=foreground");
      await kubectl(["create", "-f", "-"], JSON.stringify(job));
    }
    const problem = pod && (await hindrance(pod));
    if (problem && problem !== told) say(`   waiting: ${(told = problem)}`);
    await sleep(1);
  }
}

const random = () => randomBytes(3).toString("hex");

/** Runs home.sh for its output; the job is removed afterwards. */
async function askRestic(shell: string): Promise<string> {
  const name = `jenkins-backup-ask-${random()}`;
  try {
    const { ok, log } = await runJob(resticJob(await theCron(BACKUP_CRON), name, shell), "restic");
    if (!ok) throw new Error(log.trim().split("\n").slice(-3).join("\n"));
    return log;
  } finally {
    await remove("job", name, "--wait=false");
  }
}

const snapshots = async (): Promise<Snapshot[]> => parseSnapshots(await askRestic("exec sh /scripts/home.sh snapshots"));

/** Result as report.sh left it in the pod. */
function resultOf(pod: KubernetesObject | undefined): Record<string, string | number> | undefined {
  const message = pod?.status.containerStatuses?.find((s: KubernetesObject) => s.name === "report")?.state?.terminated?.message;
  return message ? JSON.parse(message) : undefined;
}

async function runBackup(): Promise<Record<string, string | number>> {
  const cron = await theCron(BACKUP_CRON);
  const active = (await list("jobs", SAVER_SELECTOR)).filter((job) => job.status?.active);
  if (active.length > 0) say(`   ${active[0].metadata.name} is running; this one follows it`);
  const { ok, log, pod } = await runJob(jobFromCron(cron, `jenkins-backup-by-hand-${random()}`, options.acceptShrink ? { ACCEPT_SHRINK: "1" } : {}), "report");
  const result = resultOf(pod);
  if (!ok || !result) throw new Error(`the backup failed: ${result?.message ?? log.trim().split("\n").slice(-5).join("\n")}`);
  return result;
}

async function backup(): Promise<void> {
  const r = await runBackup();
  say(`snapshot ${r.snapshot}: ${r.items} jobs and folders, ${r.builds} builds, ${mebibytes(r.bytes)} (${mebibytes(r.added)} of it new) in ${r.seconds} s; part ${r.checked} of the repository read back${r.message ? `\n${r.message}` : ""}`);
}

const mebibytes = (bytes: string | number) => `${(Number(bytes) / 2 ** 20).toFixed(1)} MiB`;

async function showList(): Promise<void> {
  const status = (await get("configmap", STATUS))?.data ?? {};
  const found = await snapshots();
  const now = new Date();
  for (const s of found) process.stdout.write(`${s.id}  ${s.time.toISOString().slice(0, 19)}Z  ${age(s.time, now).padEnd(12)}  ${String(s.items).padStart(5)} jobs and folders  ${String(s.builds).padStart(7)} builds${s.suspect ? "  SUSPECT, see docs/backup.md" : ""}\n`);
  if (found.length === 0) process.stdout.write("no snapshot yet; npm run backup makes one\n");
  for (const kind of ["backup", "verify"]) {
    const last = status[`last-${kind}`] && JSON.parse(status[`last-${kind}`]);
    if (last) process.stdout.write(`last ${kind === "backup" ? "backup" : "verification"}: ${last.status} ${last.time}${last.message ? `, ${last.message}` : ""}\n`);
  }
}

async function verify(): Promise<void> {
  const job = jobFromCron(await theCron(VERIFY_CRON), `jenkins-backup-verify-by-hand-${random()}`, options.snapshot && options.snapshot !== "latest" ? { SNAPSHOT: options.snapshot } : {});
  say("restoring a copy and booting the controller on it, apart from the running one ...");
  const { ok, log, pod } = await runJob(job, "report");
  const result = resultOf(pod);
  if (!ok || !result) throw new Error(`the snapshot is not proven: ${result?.message ?? log.trim().split("\n").slice(-5).join("\n")}`);
  say(`snapshot ${result.snapshot} boots: ${result.message} (${result.seconds} s)`);
}

// ---------------------------------------------------------------------------------------------------- restore

async function loadJournal(): Promise<Journal | undefined> {
  const map = await get("configmap", JOURNAL);
  return map && (JSON.parse(map.data.state) as Journal);
}

async function saveJournal(journal: Journal): Promise<void> {
  const map = { apiVersion: "v1", kind: "ConfigMap", metadata: { name: JOURNAL, labels: { "app.kubernetes.io/part-of": "build-platform" } }, data: { state: JSON.stringify(journal) } };
  await kubectl(["apply", "--server-side", "--force-conflicts", "--field-manager", MANAGER, "-f", "-"], JSON.stringify(map));
}

/** Takes the restore for this process; another one that is at work has beaten within the last half minute. */
async function hold(): Promise<NodeJS.Timeout> {
  const me = `${process.pid}-${random()}`;
  const held = (await get("configmap", JOURNAL))?.metadata.annotations?.["build-platform/holder"]?.split(" ");
  if (held && Date.now() - Date.parse(held[1]) < 30_000) {
    say("   another process held this restore a moment ago; waiting 30 s to see whether it is still at work ...");
    await sleep(31);
    const again = (await get("configmap", JOURNAL))?.metadata.annotations?.["build-platform/holder"]?.split(" ");
    if (again && Date.now() - Date.parse(again[1]) < 30_000) throw new UsageError("this restore is being run by somebody else right now");
  }
  const beat = () => patch("configmap", JOURNAL, { metadata: { annotations: { "build-platform/holder": `${me} ${new Date().toISOString()}` } } });
  await beat();
  const timer = setInterval(() => void beat().catch(() => undefined), 10_000);
  timer.unref();
  return timer;
}

/** Whoever runs it again need not wait to see whether this process is still at work. */
const letGo = () => run("kubectl", [...target(), "annotate", "configmap", JOURNAL, "build-platform/holder-"]);

/** Does what must not happen beside a restore that is at work, with the journal as it is then. */
async function alone(work: (journal: Journal) => Promise<void>): Promise<void> {
  const beat = await hold();
  try {
    const journal = await loadJournal();
    if (!journal) throw new UsageError("no restore is under way any more");
    await work(journal);
  } finally {
    clearInterval(beat);
    await letGo();
  }
}

/** Nodes that are gone or do not answer: what they run will not say goodbye. */
async function lostNodes(): Promise<(node: string) => boolean> {
  const nodes = JSON.parse(await kubectl(["get", "nodes", "-o", "json"])).items as KubernetesObject[];
  const ready = new Set(nodes.filter((n) => n.status.conditions.some((c: KubernetesObject) => c.type === "Ready" && c.status === "True")).map((n) => n.metadata.name as string));
  return (node) => !ready.has(node);
}

async function stop(): Promise<void> {
  for (const name of [BACKUP_CRON, VERIFY_CRON]) if (await get("cronjob", name)) await patch("cronjob", name, { spec: { suspend: true } });
  const deployment = await get("deployment", DEPLOYMENT);
  if (!deployment) throw new Error(`namespace ${options.namespace} has no Deployment ${DEPLOYMENT}: run pulumi up first`);
  await kubectl(["scale", "deployment", DEPLOYMENT, "--replicas=0"]);
  // A backup that is under way is of a home that is about to go; a fresh one is made where the journal says so.
  for (const job of await list("jobs", SAVER_SELECTOR)) if (job.status?.active) await remove("job", job.metadata.name, "--wait=true", "--cascade=foreground", "--timeout=60s");
  const selector = Object.entries(deployment.spec.selector.matchLabels as Record<string, string>).map(([k, v]) => `${k}=${v}`).join(",");
  for (let waited = 0; ; waited++) {
    const pods = await list("pods", selector);
    if (pods.length === 0) return;
    const lost = await lostNodes();
    for (const pod of pods) {
      if (pod.spec.nodeName && !lost(pod.spec.nodeName)) continue;
      say(`   node ${pod.spec.nodeName ?? "(none)"} does not answer; pod ${pod.metadata.name} is given up`);
      await remove("pod", pod.metadata.name, "--force", "--grace-period=0", "--wait=false");
    }
    if (waited > 300) throw new Error(`pod ${pods[0].metadata.name} does not stop; look at it with kubectl describe, then run npm run restore again`);
    await sleep(1);
  }
}

async function placement(journal: Journal): Promise<Placement> {
  const spec = (await get("deployment", DEPLOYMENT))!.spec.template.spec;
  const nodeSelector = { ...spec.nodeSelector, ...(journal.node && { "kubernetes.io/hostname": journal.node }) };
  return { ...(Object.keys(nodeSelector).length > 0 && { nodeSelector }), ...(spec.tolerations && { tolerations: spec.tolerations }) };
}

const INVENTORY = `sh /scripts/home.sh inventory /target >/scratch/inventory && mv /scratch/inventory /target/${INVENTORY_FILE}`;

async function fill(journal: Journal): Promise<void> {
  const cron = await theCron(BACKUP_CRON);
  const jobName = `jenkins-restore-${journal.id}`;
  if (journal.kind === "job") {
    // Only the job's own lines are compared afterwards.
    const folder = `jobs/${journal.job!.split("/").join("/jobs/")}`;
    const only = `sh /scripts/home.sh inventory /target | awk -F '\\t' -v job=${quote(folder)} '$2 == job' >/scratch/inventory && mv /scratch/inventory /target/${INVENTORY_FILE}`;
    const { ok, log } = await runJob(resticJob(cron, jobName, `sh /scripts/home.sh restore-job ${journal.snapshot} ${quote(journal.job!)} /target && ${only}`, HOME_CLAIM), "restic");
    if (!ok) throw new Error(log.trim().split("\n").slice(-3).join("\n"));
    return;
  }
  if (!(await get("pvc", freshClaim(journal.id)))) await kubectl(["create", "-f", "-"], JSON.stringify(emptyClaim(journal)));
  const where = await placement(journal);
  if (journal.folder !== undefined) return importFolder(journal, cron, jobName, where);
  // A second run finds the folder partly filled; it is emptied, so that nothing of the first is taken for the snapshot's.
  const shell = `find /target -mindepth 1 -maxdepth 1 ! -name lost+found -exec rm -rf {} + && sh /scripts/home.sh restore ${journal.snapshot} /target && ${INVENTORY}`;
  const { ok, log } = await runJob(resticJob(cron, jobName, shell, freshClaim(journal.id), where), "restic");
  if (!ok) throw new Error(`${log.trim().split("\n").slice(-3).join("\n")}\nThe home is untouched. For another snapshot roll back first.`);
  for (const line of log.trim().split("\n").filter((text, i, all) => text.includes("warning: ") || i === all.length - 1)) say(`   ${line}`);
}

async function importFolder(journal: Journal, cron: KubernetesObject, jobName: string, where: Placement): Promise<void> {
  const folder = path.resolve(journal.folder!);
  if (!fs.existsSync(path.join(folder, "config.xml")) && !fs.existsSync(path.join(folder, "jobs"))) throw new UsageError(`${folder} holds no jenkins_home (neither config.xml nor jobs)`);
  await remove("job", jobName, "--wait=true", "--cascade=foreground");
  // Waits for the folder, then for the word that all of it came.
  const shell = `find /target -mindepth 1 -maxdepth 1 ! -name lost+found -exec rm -rf {} +; : >/scratch/ready; while [ ! -e /scratch/done ]; do sleep 1; done; sh /scripts/home.sh examine /target && ${INVENTORY}`;
  const job = resticJob(cron, jobName, shell, freshClaim(journal.id), where);
  await kubectl(["create", "-f", "-"], JSON.stringify(job));
  let pod = "";
  for (let told = ""; pod === ""; await sleep(1)) {
    const [found] = await list("pods", `job-name=${jobName}`);
    const problem = found && (await hindrance(found));
    if (problem && problem !== told) say(`   waiting: ${(told = problem)}`);
    if (found?.status.phase === "Running" && (await run("kubectl", [...target(), "exec", found.metadata.name, "--", "test", "-e", "/scratch/ready"])).code === 0) pod = found.metadata.name;
  }
  const excludes = fs.readFileSync(path.join(__dirname, "../scripts/backup/excludes.txt"), "utf8").split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  // By its entries, not as ".": the volume's own folder belongs to root, and its mode and time are not ours to set.
  const entries = fs.readdirSync(folder).map((name) => `./${name}`);
  const tar = spawn("tar", ["-C", folder, "--anchored", "--wildcards", ...excludes.map((line) => `--exclude=./${line.replace("/**/", "/*/")}`), "--owner=1000", "--group=1000", "-cf", "-", ...entries], { stdio: ["ignore", "pipe", "inherit"] });
  const tarEnded = new Promise<number>((resolve) => tar.on("close", (code) => resolve(code ?? 128)));
  const copied = await run("kubectl", [...target(), "exec", "-i", pod, "--", "tar", "-C", "/target", "-xf", "-"], tar.stdout);
  if (copied.code !== 0 || (await tarEnded) !== 0) throw new Error(`the folder could not be copied: ${copied.err.trim().split("\n").slice(-3).join("\n")}`);
  await kubectl(["exec", pod, "--", "touch", "/scratch/done"]);
  const { ok, log } = await runJob(job, "restic");
  if (!ok) throw new Error(log.trim().split("\n").slice(-3).join("\n"));
  say(`   ${log.trim().split("\n").pop()}`);
}

/** Deletes finished pods that mount a claim: while they are listed, the cluster does not let go of it. A running one is an error. */
async function release(claim: string): Promise<void> {
  const pods = (JSON.parse(await kubectl(["get", "pods", "-o", "json"])).items as KubernetesObject[]).filter((pod) => mounts(pod, claim));
  const lost = await lostNodes();
  for (const pod of pods) {
    const { name } = pod.metadata;
    if (pod.spec.nodeName && lost(pod.spec.nodeName)) await remove("pod", name, "--force", "--grace-period=0", "--wait=false");
    else if (/^(Succeeded|Failed)$/.test(pod.status.phase) || pod.metadata.deletionTimestamp) await remove("pod", name, "--wait=true", "--timeout=60s");
    else throw new Error(`pod ${name} uses claim ${claim}; stop it, then run npm run restore again`);
  }
}

/** Binds the home's claim to `volume`, whatever it is bound to now. The claim keeps its name, labels and Pulumi's ownership. */
async function bindHome(journal: Journal, volume: string): Promise<void> {
  const other = volume === journal.newVolume ? journal.oldVolume : journal.newVolume;
  // First of all neither volume may go when its claim does.
  for (const name of [volume, other]) if (name && (await get("pv", name))) await patch("pv", name, { spec: { persistentVolumeReclaimPolicy: "Retain" } });
  if (!(await get("pv", volume))) throw new Error(`volume ${volume} is gone`);
  const present = await get("pvc", HOME_CLAIM);
  if (present && present.spec.volumeName !== volume) {
    await release(HOME_CLAIM);
    await remove("pvc", HOME_CLAIM, "--wait=true", "--timeout=120s");
  }
  await release(freshClaim(journal.id));
  await remove("pvc", freshClaim(journal.id), "--wait=true", "--timeout=120s");
  if (other && (await get("pv", other))) await patch("pv", other, { metadata: { annotations: { "build-platform/kept-by-restore": journal.id } } });
  if (!(await get("pvc", HOME_CLAIM))) {
    // A volume remembers its former claim by uid; only by name it waits for the new one, and for no other.
    await patch("pv", volume, { spec: { claimRef: { namespace: options.namespace, name: HOME_CLAIM, uid: null, resourceVersion: null } } });
    const claim = boundClaim(journal, volume);
    const apply = (manager: string, object: unknown) => kubectl(["apply", "--server-side", "--force-conflicts", "--field-manager", manager, "-f", "-"], JSON.stringify(object));
    await apply(MANAGER, claim);
    if (journal.manager) {
      // Pulumi owns what it wrote, as before; the choice of the volume stays with the restore.
      await apply(journal.manager, claimAsWritten(claim));
      await apply(MANAGER, { apiVersion: "v1", kind: "PersistentVolumeClaim", metadata: { name: HOME_CLAIM }, spec: { volumeName: volume } });
    }
  }
  for (let waited = 0; (await get("pvc", HOME_CLAIM))?.status?.phase !== "Bound"; waited++) {
    if (waited > 120) throw new Error(`claim ${HOME_CLAIM} is not bound to volume ${volume}; see kubectl -n ${options.namespace} describe pvc ${HOME_CLAIM}`);
    await sleep(1);
  }
}

async function start(journal: Journal): Promise<void> {
  await kubectl(["scale", "deployment", DEPLOYMENT, `--replicas=${journal.replicas}`]);
  const ended = await run("kubectl", [...target(), "rollout", "status", `deployment/${DEPLOYMENT}`, "--timeout=20m"]);
  if (ended.code !== 0) throw new Error(`Jenkins does not come up: ${ended.err.trim()}\nSee kubectl -n ${options.namespace} logs deployment/${DEPLOYMENT}`);
}

async function check(journal: Journal): Promise<void> {
  const inventory = `/var/jenkins_home/${INVENTORY_FILE}`;
  const exec = (...command: string[]) => [...target(), "exec", "-i", `deployment/${DEPLOYMENT}`, "-c", "jenkins", "--", ...command];
  // One that a restore left which was accepted as it was says nothing about a way back.
  if (journal.kind === "rollback") await run("kubectl", exec("rm", "-f", inventory));
  else if ((await run("kubectl", exec("test", "-e", inventory))).code === 0) {
    const ended = await run("kubectl", exec("sh", "-s", "--", inventory, "600"), fs.readFileSync(path.join(__dirname, "../scripts/backup/controller-check.sh"), "utf8"));
    if (ended.code !== 0) throw new Error((ended.out + ended.err).trim());
    say(`   ${ended.out.trim()}`);
    await run("kubectl", exec("rm", "-f", inventory));
  }
  for (const [name, suspend] of Object.entries(journal.suspended)) await patch("cronjob", name, { spec: { suspend } });
}

/** The steps, each of which may be run again at any time. */
async function proceed(journal: Journal): Promise<void> {
  const step = async (phase: Phase, title: string, work: () => Promise<void>) => {
    if (!ahead(journal, phase)) return;
    say(` • ${title} ...`);
    const began = Date.now();
    await work();
    journal.phase = phase;
    await saveJournal(journal);
    say(` ✓ ${title} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
  };
  const beat = await hold();
  const interrupted = () => {
    say(`\ninterrupted. ${standing(journal)}`);
    void letGo().finally(() => process.exit(130));
  };
  process.once("SIGINT", interrupted);
  try {
    await step("stopped", "stop Jenkins and pause its backups", stop);
    if (journal.kind !== "rollback")
      await step("saved", journal.snapshot === "now" ? "save the home as it is now" : "take the snapshot that was chosen", async () => {
        if (journal.snapshot === "now") journal.snapshot = String((await runBackup()).snapshot);
      });
    if (journal.kind !== "rollback")
      await step("filled", journal.kind === "job" ? `put job ${journal.job} back` : "fill a fresh volume and check it", async () => {
        await fill(journal);
        if (journal.kind === "home") journal.newVolume = (await get("pvc", freshClaim(journal.id)))!.spec.volumeName;
      });
    if (journal.kind !== "job") {
      const volume = journal.kind === "rollback" ? journal.oldVolume : journal.newVolume;
      await step("swapped", `give volume ${volume} to claim ${HOME_CLAIM}`, () => bindHome(journal, volume!));
    }
    await step("started", "start Jenkins", () => start(journal));
    await step("checked", "ask Jenkins for its jobs and builds", () => check(journal));
  } catch (error) {
    throw new Error(`${(error as Error).message}\n${standing(journal)}`);
  } finally {
    clearInterval(beat);
    process.off("SIGINT", interrupted);
    await letGo();
  }
  await settle(journal);
}

async function settle(journal: Journal): Promise<void> {
  if (journal.kind !== "home") {
    if (journal.kind === "rollback" && journal.newVolume) say(`The volume of the restore, ${journal.newVolume}, is kept. To delete it with its files:\n  kubectl patch pv ${journal.newVolume} -p '{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}'`);
    await remove("configmap", JOURNAL);
    say(journal.kind === "job" ? "Done." : "Jenkins is back on its former volume.");
    return;
  }
  if (!journal.oldVolume) {
    await remove("configmap", JOURNAL);
    say("Done; there was no former volume.");
    return;
  }
  say(`Done. Look at Jenkins, then:\n  npm run restore -- --confirm    accept it; the former volume ${journal.oldVolume} is deleted\n  npm run restore -- --rollback   back to the former volume`);
}

async function confirm(journal: Journal): Promise<void> {
  if (ahead(journal, "started")) throw new UsageError(`this restore has not come to its end\n${standing(journal)}`);
  for (const [name, suspend] of Object.entries(journal.suspended)) if (await get("cronjob", name)) await patch("cronjob", name, { spec: { suspend } });
  const old = journal.kind === "home" && journal.oldVolume && (await get("pv", journal.oldVolume));
  if (old && old.status?.phase !== "Bound") {
    const hosts = hostsOf(old);
    const lost = await lostNodes();
    if (hosts.length > 0 && hosts.every(lost)) {
      await remove("pv", old.metadata.name, "--wait=false");
      say(`Volume ${old.metadata.name} is forgotten; its node ${hosts.join(", ")} does not answer, so what lies on that disk stays there.`);
    } else {
      await patch("pv", old.metadata.name, { spec: { persistentVolumeReclaimPolicy: "Delete" } });
      say(`Volume ${old.metadata.name} is being deleted.`);
    }
  }
  await remove("configmap", JOURNAL);
  say("The restore is confirmed.");
}

/** Turns a restore into its way back, whose steps are then taken as a restore's are. */
async function turnBack(journal: Journal): Promise<void> {
  if (journal.kind === "rollback") return;
  const swapped = journal.newVolume !== undefined && (await get("pvc", HOME_CLAIM))?.spec.volumeName !== journal.oldVolume;
  if (journal.kind === "job" && !ahead(journal, "filled")) throw new UsageError(`the job is back already\n${standing(journal)}`);
  await remove("job", `jenkins-restore-${journal.id}`, "--wait=true", "--cascade=foreground");
  if (swapped && !journal.oldVolume) throw new UsageError("there was no volume before this restore, so there is no way back");
  if (!swapped) {
    const fresh = await get("pvc", freshClaim(journal.id));
    if (fresh?.spec.volumeName) await patch("pv", fresh.spec.volumeName, { spec: { persistentVolumeReclaimPolicy: "Delete" } });
    await release(freshClaim(journal.id));
    await remove("pvc", freshClaim(journal.id), "--wait=true", "--timeout=120s");
  }
  Object.assign(journal, { kind: "rollback", phase: swapped ? "planned" : "swapped", ...(swapped ? {} : { newVolume: undefined }) });
  await saveJournal(journal);
}

async function plan(): Promise<Journal> {
  const [claim, deployment] = [await get("pvc", HOME_CLAIM), await get("deployment", DEPLOYMENT)];
  if (!claim || !deployment) throw new Error(`namespace ${options.namespace} has no ${claim ? `Deployment ${DEPLOYMENT}` : `claim ${HOME_CLAIM}`}: run pulumi up first, then restore into what it made`);
  await theCron(BACKUP_CRON);
  if (options.node && !(await get("node", options.node))) throw new UsageError(`there is no node ${options.node}`);
  // What is on a node that is gone can be neither saved nor changed; only an earlier snapshot of the whole home helps.
  const lost = await lostNodes();
  const home = claim.spec.volumeName && (await get("pv", claim.spec.volumeName));
  const host = home ? hostsOf(home).find(lost) : undefined;
  if (host && (options.snapshot === "now" || options.job !== undefined)) throw new UsageError(`node ${host}, which has the home, does not answer; from the last backup: npm run restore -- --snapshot latest`);
  const suspended: Record<string, boolean> = {};
  for (const name of [BACKUP_CRON, VERIFY_CRON]) {
    const cron = await get("cronjob", name);
    if (cron) suspended[name] = cron.spec.suspend ?? false;
  }
  const chosen = options.folder === undefined && options.snapshot !== "now" ? pickSnapshot(await snapshots(), options.snapshot ?? "latest") : undefined;
  if (chosen && options.job !== undefined) await askRestic(`exec sh /scripts/home.sh has-job ${chosen.id} ${quote(options.job)}`);
  const manager = pulumiManager(claim);
  const journal: Journal = {
    id: random(),
    phase: "planned",
    kind: options.job === undefined ? "home" : "job",
    ...(options.folder === undefined && { snapshot: chosen?.id ?? "now" }),
    ...(options.job !== undefined && { job: options.job }),
    ...(options.folder !== undefined && { folder: path.resolve(options.folder) }),
    ...(options.node && { node: options.node }),
    ...(options.size && { size: options.size }),
    replicas: Math.max(1, deployment.spec.replicas ?? 1),
    suspended,
    claim: claimAsWritten(claim),
    ...(manager && { manager }),
    ...(claim.spec.volumeName && { oldVolume: claim.spec.volumeName }),
    startedAt: new Date().toISOString(),
  };
  const status = (await get("configmap", STATUS))?.data?.["last-good-backup"];
  say(review(journal, chosen, { pods: deployment.status?.readyReplicas ?? 0, lastBackup: status && JSON.parse(status).time }, new Date()));
  if (!options.yes) {
    if (!process.stdin.isTTY) throw new UsageError("nobody is there to say yes; add --yes where that is meant");
    const asking = createInterface({ input: process.stdin, output: process.stderr });
    const answer = await asking.question('Type "restore" to go on: ');
    asking.close();
    if (answer.trim() !== "restore") throw new UsageError("nothing was changed");
  }
  await saveJournal(journal);
  return journal;
}

async function restore(): Promise<void> {
  const under = await loadJournal();
  const asked = options.snapshot ?? options.folder;
  if (under && asked !== undefined) {
    const same = (options.snapshot === undefined || options.snapshot === under.snapshot || (options.snapshot === "latest" && under.kind !== "rollback")) && (options.folder === undefined || path.resolve(options.folder) === under.folder) && options.job === under.job;
    if (!same || under.phase === "checked") throw new UsageError(`a restore of ${under.folder ?? under.snapshot} begun at ${under.startedAt} is ${under.phase === "checked" ? "done but neither confirmed nor rolled back" : `under way (${under.phase})`}; npm run restore -- --status, --confirm or --rollback`);
  }
  if (!under && asked === undefined) throw new UsageError(`no restore is under way; which snapshot?\n${HELP}`);
  if (under) say(`going on with the restore of ${under.folder ?? under.snapshot} begun at ${under.startedAt}; last step done: ${under.phase}`);
  await proceed(under ?? (await plan()));
}

async function main(): Promise<void> {
  if (process.argv.slice(2).some((word) => word === "--help" || word === "-h")) return void process.stdout.write(HELP);
  const contexts = (await run("kubectl", ["config", "get-contexts", "-o", "name"])).out.split("\n").filter(Boolean);
  options = parseArguments(process.argv.slice(2), contexts);
  if (options.stack !== undefined) {
    const { config: { cluster, namespaces } } = await readStack(options.stack).catch((error: Error) => Promise.reject(new UsageError(error.message)));
    options = { ...options, ...cluster, namespace: namespaces.jenkins };
  }
  switch (options.command) {
    case "backup": return backup();
    case "list": return showList();
    case "diff": return void process.stdout.write(await askRestic(`exec sh /scripts/home.sh diff ${options.snapshot} ${options.other}`));
    case "verify": return verify();
    case "restore": return restore();
  }
  const journal = await loadJournal();
  if (!journal) throw new UsageError("no restore is under way");
  if (options.command === "confirm") return alone(confirm);
  if (options.command === "rollback") {
    await alone(turnBack);
    return proceed((await loadJournal())!);
  }
  say(`restore of ${journal.folder ?? journal.snapshot}${journal.job ? `, job ${journal.job}` : ""}, begun ${journal.startedAt}; last step done: ${journal.phase}${journal.kind === "rollback" ? " of the way back" : ""}\n${standing(journal)}`);
  return undefined;
}

main().catch((error: Error) => {
  say(`${error instanceof UsageError ? "" : "failed: "}${error.message}`);
  process.exitCode = error instanceof UsageError ? 2 : 1;
});
