import { columns } from "../terminal";
import { askRestic, get, homeIsAway, list, lostHome, random, runJob, say, sleep, theCron } from "./cluster";
import type { Options } from "./arguments";
import { BACKUP_CRON, DEPLOYMENT, HOME_CLAIM, jobFromCron, type KubernetesObject, SAVER_SELECTOR, STATUS, VERIFY_CRON } from "./objects";
import { age, parseSnapshots, type Snapshot } from "./plan";

export const snapshots = async (): Promise<Snapshot[]> => parseSnapshots(await askRestic("exec sh /scripts/home.sh snapshots"));

/** Result as report.sh left it in the pod. */
function resultOf(pod: KubernetesObject | undefined): Record<string, string | number> | undefined {
  const message = pod?.status.containerStatuses?.find((s: KubernetesObject) => s.name === "report")?.state?.terminated?.message;
  return message ? JSON.parse(message) : undefined;
}

/** Image of the controller, by digest where the cluster knows it; undefined where there is none. */
export async function controllerImage(): Promise<{ given: string; exact: string } | undefined> {
  const deployment = await get("deployment", DEPLOYMENT);
  if (!deployment) return undefined;
  const image = (containers: KubernetesObject[] | undefined, field: string) => containers?.find(({ name }) => name === "jenkins")?.[field] as string | undefined;
  const given = image(deployment.spec.template.spec.containers, "image")!;
  if (given.includes("@sha256:")) return { given, exact: given };
  const pods = await list("pods", Object.entries(deployment.spec.selector.matchLabels as Record<string, string>).map(([key, value]) => `${key}=${value}`).join(","));
  const pulled = pods.map((pod) => image(pod.status.containerStatuses, "imageID")).find((id) => id?.includes("@sha256:"));
  return { given, exact: pulled?.replace(/^.*:\/\//, "") ?? given };
}

/**
 * Saves the home where the controller is about to get another image than it has. Called by `pulumi up`, before anything of Jenkins changes.
 * @param patience seconds for the backup's CronJob, which the same update makes where the backup is new
 */
export async function backupBefore(image: string, patience = 300): Promise<void> {
  const [running, claim] = [await controllerImage(), await get("pvc", HOME_CLAIM)];
  if (!running || !claim?.spec.volumeName) return void say("no home is there yet: nothing to save");
  if (running.given === image) return void say(`the controller has ${image} already: nothing to save`);
  try {
    for (let waited = 0; !(await get("cronjob", BACKUP_CRON)); waited++) {
      if (waited === 0) say(`   waiting for CronJob ${BACKUP_CRON}, which this update makes`);
      if (waited >= patience) throw new Error(`CronJob ${BACKUP_CRON} is not there; where backup is a new key, give the controller its new image with a later update`);
      await sleep(1);
    }
    const { snapshot, seconds } = await runBackup({ acceptShrink: true, upkeep: false, leaving: running.exact });
    say(`snapshot ${snapshot} holds the home as ${running.exact} leaves it (${seconds} s); npm run rollback brings both back`);
  } catch (error) {
    const { message } = error as Error;
    // A home that never was one has nothing to lose.
    if (/is being filled from a snapshot|holds no jenkins_home/.test(message)) return void say(`nothing to save: ${message}`);
    throw new Error(`${message}\nJenkins was not touched: its image changes only once its home is saved. Mend the backup, or set backup.beforeUpgrade to false.`);
  }
}

/** Saves the home now; with `leaving`, as the controller leaves that image. */
export async function runBackup(options: Pick<Options, "acceptShrink" | "upkeep"> & { leaving?: string }): Promise<Record<string, string | number>> {
  const cron = await theCron(BACKUP_CRON);
  const host = await lostHome();
  if (host) throw new Error(homeIsAway(host));
  const active = (await list("jobs", SAVER_SELECTOR)).filter((job) => job.status?.active);
  if (active.length > 0) say(`   ${active[0].metadata.name} is running; this one follows it`);
  const { ok, log, pod } = await runJob(jobFromCron(cron, `jenkins-backup-by-hand-${random()}`, { ...(options.acceptShrink && { ACCEPT_SHRINK: "1" }), ...(options.upkeep && { UPKEEP: "1" }), ...(options.leaving && { LEAVING_IMAGE: options.leaving }) }), "report");
  const result = resultOf(pod);
  if (!ok || !result) throw new Error(`the backup failed: ${result?.message ?? log.trim().split("\n").slice(-5).join("\n")}`);
  return result;
}

export async function backup(options: Options): Promise<void> {
  const r = await runBackup(options);
  say(`snapshot ${r.snapshot}: ${r.items} jobs and folders, ${r.builds} builds, ${mebibytes(r.bytes)} (${mebibytes(r.added)} of it new) in ${r.seconds} s${r.message ? `\n${r.message}` : ""}\n${lastUpkeep(r, new Date())}`);
}

/** When the repository was last checked and pruned, by the result of a backup; for people. */
export function lastUpkeep({ upkeep, checked }: { upkeep?: string | number; checked?: string | number }, now: Date): string {
  return upkeep ? `last upkeep of the repository: ${upkeep}, ${age(new Date(upkeep), now)}; part ${checked} of it read back` : "no upkeep of the repository yet; npm run backup -- --upkeep makes one";
}

const mebibytes = (bytes: string | number) => `${(Number(bytes) / 2 ** 20).toFixed(1)} MiB`;

export async function showList(): Promise<void> {
  const status = (await get("configmap", STATUS))?.data ?? {};
  const found = await snapshots();
  const now = new Date();
  const rows = found.map((s) => [s.id, `${s.time.toISOString().slice(0, 19)}Z`, age(s.time, now), `${s.items} jobs and folders`, `${s.builds} builds`, s.suspect ? "SUSPECT, see docs/backup.md" : s.leaving ? `as ${s.leaving.replace(/^.*\/|(?<=sha256:.{12}).*$/g, "")} was left` : ""]);
  process.stdout.write(found.length === 0 ? "no snapshot yet; npm run backup makes one\n" : `${columns(rows)}\n`);
  for (const kind of ["backup", "verify"]) {
    const last = status[`last-${kind}`] && JSON.parse(status[`last-${kind}`]);
    if (last) process.stdout.write(`last ${kind === "backup" ? "backup" : "verification"}: ${last.status} ${last.time}${last.message ? `, ${last.message}` : ""}\n`);
  }
  const good = status["last-good-backup"];
  if (good) process.stdout.write(`${lastUpkeep(JSON.parse(good), now)}\n`);
}

export async function verify(options: Options): Promise<void> {
  const job = jobFromCron(await theCron(VERIFY_CRON), `jenkins-backup-verify-by-hand-${random()}`, options.snapshot && options.snapshot !== "latest" ? { SNAPSHOT: options.snapshot } : {});
  say("restoring a copy and booting the controller on it, apart from the running one ...");
  const { ok, log, pod } = await runJob(job, "report");
  const result = resultOf(pod);
  if (!ok || !result) throw new Error(`the snapshot is not proven: ${result?.message ?? log.trim().split("\n").slice(-5).join("\n")}`);
  say(`snapshot ${result.snapshot} boots: ${result.message} (${result.seconds} s)`);
}
