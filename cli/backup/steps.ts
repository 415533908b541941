import { spawn } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import type { V1PodSpec } from "@kubernetes/client-node";
import { heldName } from "../../components/jenkins-master/save-first";
import { UsageError } from "../terminal";
import { withImage } from "../upgrades/image";
import { get, hindrance, kubectl, list, lostNodes, patch, remove, run, runJob, say, sleep, target, theCron, where } from "./cluster";
import {
  BACKUP_CRON, boundClaim, DEPLOYMENT, emptyClaim, freshClaim, HOME_CLAIM, hostSelector, INVENTORY_FILE, type KubernetesObject, MANAGER, mounts, type Placement, quote, resticJob, SAVER_SELECTOR,
  VERIFY_CRON,
} from "./objects";
import type { Hold, Journal } from "./plan";

/** What a restore does to the cluster, step by step. Each may be run again at any time. */

const scripts = path.join(__dirname, "../../scripts/backup");

const selectorOf = (deployment: KubernetesObject) => Object.entries(deployment.spec.selector.matchLabels as Record<string, string>).map(([k, v]) => `${k}=${v}`).join(",");

/**
 * Stops Jenkins, its backups and further Deployments, and waits for the end of their pods; those of nodes that do not answer are given up.
 * @param lost tells such nodes
 */
export async function stop(further: string[] = [], lost: () => Promise<(node: string) => boolean> = lostNodes): Promise<void> {
  for (const name of [BACKUP_CRON, VERIFY_CRON]) if (await get("cronjob", name)) await patch("cronjob", name, { spec: { suspend: true } });
  const deployments = await Promise.all([DEPLOYMENT, ...further].map(async (name) => ({ name, deployment: await get("deployment", name) })));
  for (const { name, deployment } of deployments) {
    if (!deployment) throw new Error(`namespace ${where.namespace} has no Deployment ${name}: run pulumi up first`);
    await kubectl(["scale", "deployment", name, "--replicas=0"]);
  }
  // A backup that is under way is of a home that is about to go; a fresh one is made where the journal says so.
  for (const job of await list("jobs", SAVER_SELECTOR)) if (job.status?.active) await remove("job", job.metadata.name, "--wait=false");
  const selectors = [...deployments.map(({ deployment }) => selectorOf(deployment!)), `${SAVER_SELECTOR},job-name`];
  for (let waited = 0; ; waited++) {
    const pods = (await Promise.all(selectors.map((selector) => list("pods", selector)))).flat().filter(({ status }) => !/^(Succeeded|Failed)$/.test(status.phase));
    if (pods.length === 0) return;
    const gone = await lost();
    for (const pod of pods) {
      if (pod.spec.nodeName && !gone(pod.spec.nodeName)) continue;
      say(`   node ${pod.spec.nodeName ?? "(none)"} does not answer; pod ${pod.metadata.name} is given up`);
      await remove("pod", pod.metadata.name, "--force", "--grace-period=0", "--wait=false");
    }
    if (waited > 300) throw new Error(`pod ${pods[0].metadata.name} does not stop; look at it with kubectl describe, then run the command again`);
    await sleep(1);
  }
}

async function placement(journal: Journal): Promise<Placement> {
  const spec = (await get("deployment", DEPLOYMENT))!.spec.template.spec;
  const nodeSelector = { ...spec.nodeSelector, ...(journal.node && hostSelector(journal.node, await get("node", journal.node))) };
  return { ...(Object.keys(nodeSelector).length > 0 && { nodeSelector }), ...(spec.tolerations && { tolerations: spec.tolerations }), ...(spec.affinity?.nodeAffinity && { affinity: { nodeAffinity: spec.affinity.nodeAffinity } }) };
}

const INVENTORY = `sh /scripts/home.sh inventory /target >/scratch/inventory && mv /scratch/inventory /target/${INVENTORY_FILE}`;

export async function fill(journal: Journal): Promise<void> {
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
  const place = await placement(journal);
  if (journal.folder !== undefined) return importFolder(journal, cron, jobName, place);
  // A second run finds the folder partly filled; it is emptied, so that nothing of the first is taken for the snapshot's.
  const shell = `find /target -mindepth 1 -maxdepth 1 ! -name lost+found -exec rm -rf {} + && sh /scripts/home.sh restore ${journal.snapshot} /target && ${INVENTORY}`;
  const { ok, log } = await runJob(resticJob(cron, jobName, shell, freshClaim(journal.id), place), "restic");
  if (!ok) throw new Error(`${log.trim().split("\n").slice(-3).join("\n")}\nThe home is untouched. For another snapshot roll back first.`);
  for (const line of log.trim().split("\n").filter((text, i, all) => text.includes("warning: ") || i === all.length - 1)) say(`   ${line}`);
}

async function importFolder(journal: Journal, cron: KubernetesObject, jobName: string, place: Placement): Promise<void> {
  const folder = path.resolve(journal.folder!);
  if (!fs.existsSync(path.join(folder, "config.xml")) && !fs.existsSync(path.join(folder, "jobs"))) throw new UsageError(`${folder} holds no jenkins_home (neither config.xml nor jobs)`);
  await remove("job", jobName, "--wait=true", "--cascade=foreground");
  // Waits for the folder, then for the word that all of it came.
  const shell = `find /target -mindepth 1 -maxdepth 1 ! -name lost+found -exec rm -rf {} +; : >/scratch/ready; while [ ! -e /scratch/done ]; do sleep 1; done; sh /scripts/home.sh examine /target && ${INVENTORY}`;
  const job = resticJob(cron, jobName, shell, freshClaim(journal.id), place);
  await kubectl(["create", "-f", "-"], JSON.stringify(job));
  let pod = "";
  for (let told = ""; pod === ""; await sleep(1)) {
    const [found] = await list("pods", `job-name=${jobName}`);
    const problem = found && (await hindrance(found));
    if (problem && problem !== told) say(`   waiting: ${(told = problem)}`);
    if (found?.status.phase === "Running" && (await run("kubectl", [...target(), "exec", found.metadata.name, "--", "test", "-e", "/scratch/ready"])).code === 0) pod = found.metadata.name;
  }
  const excludes = fs.readFileSync(path.join(scripts, "excludes.txt"), "utf8").split("\n").filter((line) => line !== "" && !line.startsWith("#"));
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
export async function release(claim: string): Promise<void> {
  const pods = (JSON.parse(await kubectl(["get", "pods", "-o", "json"])).items as KubernetesObject[]).filter((pod) => mounts(pod, claim));
  const lost = await lostNodes();
  for (const pod of pods) {
    const { name } = pod.metadata;
    if (pod.spec.nodeName && lost(pod.spec.nodeName)) await remove("pod", name, "--force", "--grace-period=0", "--wait=false");
    else if (/^(Succeeded|Failed)$/.test(pod.status.phase) || pod.metadata.deletionTimestamp) await remove("pod", name, "--wait=true", "--timeout=60s");
    else throw new Error(`pod ${name} uses claim ${claim}; stop it, then run the same command again`);
  }
}

const apply = (manager: string, object: unknown) => kubectl(["apply", "--server-side", "--force-conflicts", "--field-manager", manager, "-f", "-"], JSON.stringify(object));

/** Takes a claim away from any other volume than `volume`, which stays. */
export async function unbind(claim: string, volume?: string): Promise<void> {
  const present = await get("pvc", claim);
  if (!present || (volume !== undefined && present.spec.volumeName === volume)) return;
  await release(claim);
  await remove("pvc", claim, "--wait=true", "--timeout=120s");
}

/** Makes a claim that is bound to a volume, unless it is there. It keeps its name, labels and Pulumi's ownership; the volume may have been another claim's, which is gone. */
export async function bind(claim: KubernetesObject, volume: string, manager?: string): Promise<void> {
  const { name } = claim.metadata;
  if (!(await get("pvc", name))) {
    // A volume remembers its former claim by uid; only by name it waits for the new one, and for no other.
    await patch("pv", volume, { spec: { claimRef: { namespace: where.namespace, name, uid: null, resourceVersion: null } } });
    await apply(MANAGER, claim);
    if (manager) {
      // Pulumi owns all that it wrote, as before: what the restore alone applied goes with its next apply, which keeps the choice of the volume.
      await apply(manager, { ...claim, spec: { ...claim.spec, volumeName: undefined } });
      await apply(MANAGER, { apiVersion: "v1", kind: "PersistentVolumeClaim", metadata: { name }, spec: { volumeName: volume } });
    }
  }
  for (let waited = 0; (await get("pvc", name))?.status?.phase !== "Bound"; waited++) {
    if (waited > 120) throw new Error(`claim ${name} is not bound to volume ${volume}; see kubectl -n ${where.namespace} describe pvc ${name}`);
    await sleep(1);
  }
}

/** Neither volume may go when its claim does. */
export async function keepVolumes(...names: (string | undefined)[]): Promise<void> {
  for (const name of names) if (name && (await get("pv", name))) await patch("pv", name, { spec: { persistentVolumeReclaimPolicy: "Retain" } });
}

/** Binds the home's claim to `volume`, whatever it is bound to now. */
export async function bindHome(journal: Journal, volume: string): Promise<void> {
  const other = volume === journal.newVolume ? journal.oldVolume : journal.newVolume;
  await keepVolumes(volume, other);
  if (!(await get("pv", volume))) throw new Error(`volume ${volume} is gone`);
  await unbind(HOME_CLAIM, volume);
  await unbind(freshClaim(journal.id));
  if (other && (await get("pv", other))) await patch("pv", other, { metadata: { annotations: { "build-platform/kept-by-restore": journal.id } } });
  await bind(boundClaim(journal, volume), volume, journal.manager);
}

/** Who owns an object's fields, without what a restore that was cut off took: what nobody owns Pulumi takes back. */
export const ownersBut = (fields: KubernetesObject[] = []): KubernetesObject[] => fields.filter(({ manager }) => manager !== MANAGER);

/**
 * Gives the controller's pod the image that goes with the home, and says so to the program, which keeps it (components/jenkins-master/save-first.ts).
 * Who owns the Deployment's fields stays as it was: Pulumi would else find its own field to be another's.
 * @param hold what the program is to hold the controller at from then on; undefined for nothing
 */
async function setImage(to: string, hold?: Hold): Promise<void> {
  // First, so that no update between the two goes to the image that is left.
  if (!hold) await remove("configmap", heldName);
  else await apply(MANAGER, { apiVersion: "v1", kind: "ConfigMap", metadata: { name: heldName, labels: { "app.kubernetes.io/part-of": "build-platform" } }, data: hold });
  const deployment = (await get("deployment", DEPLOYMENT))!;
  const spec = withImage(deployment.spec.template.spec as V1PodSpec, to);
  await kubectl(["patch", "deployment", DEPLOYMENT, "--type", "json", "--field-manager", MANAGER, "-p", JSON.stringify([{ op: "replace", path: "/spec/template/spec", value: spec }])]);
  await kubectl(["patch", "deployment", DEPLOYMENT, "--type", "json", "-p", JSON.stringify([{ op: "replace", path: "/metadata/managedFields", value: ownersBut(deployment.metadata.managedFields) }])]);
}

/** The image that the controller gets with the home, and what holds it there afterwards. */
export function imageAfter({ images, kind, formerHold }: Partial<Pick<Journal, "images" | "kind" | "formerHold">>, now = new Date()): { to: string; hold?: Hold } | undefined {
  if (!images) return undefined;
  if (kind !== "rollback") return { to: images.to, hold: { image: images.to, from: images.from, since: now.toISOString() } };
  return { to: images.from, ...(formerHold && { hold: formerHold }) };
}

export async function start(journal: Pick<Journal, "replicas"> & Partial<Pick<Journal, "images" | "kind" | "formerHold">>): Promise<void> {
  const image = imageAfter(journal);
  if (image) await setImage(image.to, image.hold);
  await kubectl(["scale", "deployment", DEPLOYMENT, `--replicas=${journal.replicas}`]);
  const ended = await run("kubectl", [...target(), "rollout", "status", `deployment/${DEPLOYMENT}`, "--timeout=20m"]);
  if (ended.code !== 0) throw new Error(`Jenkins does not come up: ${ended.err.trim()}\nSee kubectl -n ${where.namespace} logs deployment/${DEPLOYMENT}`);
}

export async function check(journal: { kind?: Journal["kind"]; suspended: Journal["suspended"] }): Promise<void> {
  const inventory = `/var/jenkins_home/${INVENTORY_FILE}`;
  const exec = (...command: string[]) => [...target(), "exec", "-i", `deployment/${DEPLOYMENT}`, "-c", "jenkins", "--", ...command];
  // One that a restore left which was accepted as it was says nothing about a way back.
  if (journal.kind === "rollback") await run("kubectl", exec("rm", "-f", inventory));
  else if ((await run("kubectl", exec("test", "-e", inventory))).code === 0) {
    const ended = await run("kubectl", exec("sh", "-s", "--", inventory, "600"), fs.readFileSync(path.join(scripts, "controller-check.sh"), "utf8"));
    if (ended.code !== 0) throw new Error((ended.out + ended.err).trim());
    say(`   ${ended.out.trim()}`);
    await run("kubectl", exec("rm", "-f", inventory));
  }
  for (const [name, suspend] of Object.entries(journal.suspended)) await patch("cronjob", name, { spec: { suspend } });
}
