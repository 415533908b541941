import { randomBytes } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { existingNodes, removeNode, stopNode } from "../../sandbox/cluster/nodes";
import { REPO } from "../../sandbox/paths";
import { run } from "../../sandbox/shell";
import { Bed } from "../backup-bed/bed";
import { RestServer } from "../backup-bed/servers";
import { hashes, Home } from "../campaign/home";
import { ENV } from "../e2e/sandbox";
import { saveBench, seconds } from "./table";

/**
 * home.sh beside `tar | tar` on one home on this machine's disk; then how long Jenkins is away, and what is lost, when
 * its pod, its node or all of its cluster goes. BENCH_HOME_MIB sets the size of the home (default 512).
 */
const SIZE = Number(process.env.BENCH_HOME_MIB ?? 512);
/** Size of a build: a log of which text and noise are half each, as logs compress to some half. */
const BUILD = 64 * 1024;

const log = () => Buffer.concat([randomBytes(BUILD / 2), Buffer.from("[INFO] compiling the next of many classes\n".repeat(BUILD / 2 / 42))]);

async function script(home: Home, ...args: string[]): Promise<void> {
  const { code, output } = await home.run(args, { CHECK_PARTS: "14" });
  if (code !== 0) throw new Error(output);
  await run("sync", ["-f", home.root]);
}

/** The usual way: the whole folder through a pipe to another one. */
async function copy(from: string, to: string): Promise<void> {
  fs.mkdirSync(to);
  await run("sh", ["-c", 'tar -C "$0" -cf - . | tar -C "$1" -xf -', from, to]);
  await run("sync", ["-f", to]);
}

async function onDisk() {
  const home = new Home();
  try {
    const builds = Math.round((SIZE * 2 ** 20) / BUILD);
    for (let i = 1; i <= builds; i++) home.build(`job${i % 50}`, i, log());
    const at = (name: string) => path.join(home.root, name);
    const first: [number, number] = [await seconds(() => script(home, "backup")), await seconds(() => copy(home.home, at("copy-1")))];
    const files = home.result().files;
    for (let i = 1; i <= builds / 100; i++) home.build(`job${i % 50}`, builds + i, log());
    const second: [number, number] = [await seconds(() => script(home, "backup")), await seconds(() => copy(home.home, at("copy-2")))];
    const { added } = home.result();
    fs.mkdirSync(at("restored"));
    const restore: [number, number] = [await seconds(() => script(home, "restore", "latest", at("restored"))), await seconds(() => copy(at("copy-2"), at("copy-3")))];
    const [was, is] = [hashes(home.home), hashes(at("restored"))];
    if (was.size !== is.size || [...was].some(([name, hash]) => is.get(name) !== hash)) throw new Error("the restored home is not the one that was saved");
    const sizeOf = async (name: string) => Number((await run("du", ["-sm", at(name)])).stdout.split("\t")[0]);
    return { first, second, restore, files, added, mib: await sizeOf("home"), stored: await sizeOf("repository") };
  } finally {
    home.remove();
  }
}

/** Seconds without Jenkins after each loss, with a home of a few jobs. Every build is asked for again before the clock stops. */
async function losses() {
  const WORKER = "worker-1";
  const sandbox = (...args: string[]) => run("npx", ["tsx", "sandbox/cli.ts", ...args], { cwd: REPO, env: ENV });
  if (!existingNodes().some(({ name }) => name === WORKER)) await sandbox("add-node", WORKER);
  const bed = new Bed("bench-backup", new RestServer(8007));
  const elsewhere = bed.twin("bench-backup-elsewhere", { startFrom: "latest" });
  try {
    await bed.upOnPlatform();
    for (const job of ["one", "two"]) {
      await bed.job(job, 3_000_000);
      await bed.build(job, 3);
    }
    await bed.moveTo(WORKER);
    const backup = await seconds(() => bed.cli(["backup"]));
    const before = JSON.stringify(await bed.builds());
    const back = async (which: Bed) => {
      await which.answers();
      const now = JSON.stringify(await which.builds());
      if (now !== before) throw new Error(`builds were ${before} and are ${now}`);
    };
    const pod = await seconds(async () => {
      await bed.kubectl(["delete", "pod", "-l", "app.kubernetes.io/component=controller", "--force", "--grace-period=0"]);
      await back(bed);
    });
    const cluster = await seconds(async () => {
      await elsewhere.up();
      await back(elsewhere);
    });
    await stopNode({ name: WORKER });
    const node = await seconds(async () => {
      await bed.cli(["restore", "--snapshot", "latest", "--yes"]);
      await back(bed);
    });
    await bed.cli(["restore", "--confirm"]);
    return { backup, pod, node, cluster };
  } finally {
    // The node first: nothing on it ends by itself any more.
    await run("kubectl", ["delete", "node", WORKER, "--ignore-not-found"], { env: ENV });
    await removeNode({ name: WORKER });
    await elsewhere.down();
    await bed.down();
  }
}

async function main(): Promise<void> {
  const disk = await onDisk();
  const lost = await losses();
  const rate = (time: number) => `${(disk.mib / time).toFixed(0)} MiB/s`;
  saveBench(
    "backup",
    {
      title: "Backup and restore of jenkins_home: home.sh (restic) beside tar to tar",
      ways: ["home.sh", "tar to tar"],
      rows: [
        { what: "first backup", seconds: disk.first },
        { what: "backup after 1 % changed", seconds: disk.second },
        { what: "restore", seconds: disk.restore },
      ],
      notes: [
        `A home of ${disk.mib} MiB in ${disk.files} files; both ways write to the same disk and end with sync. The repository takes ${disk.stored} MiB after both backups, two copies ${disk.mib * 2} MiB.`,
        "home.sh encrypts, compresses where restic can, examines the snapshot, reads a fourteenth of the repository back, and reads every restored byte back; tar does none of it.",
        `First backup ${rate(disk.first[0])}, tar ${rate(disk.first[1])}; restore ${rate(disk.restore[0])}, tar ${rate(disk.restore[1])}.`,
        `After 1 % changed: ${(disk.second[0] / disk.first[0]).toFixed(2)} of the first backup's time, ${(disk.added / 2 ** 20).toFixed(1)} MiB new; target at most 0.1.`,
        `Restore: ${(disk.restore[0] / disk.restore[1]).toFixed(2)} times a plain copy; target at most 1.5.`,
        `Without Jenkins (RTO), until it lists every build again: pod killed ${lost.pod.toFixed(0)} s (target under 30 s); node's power cut ${lost.node.toFixed(0)} s by one \`npm run restore\`, the cluster's own wait for the node included; environment lost ${lost.cluster.toFixed(0)} s by one \`pulumi up\` with backup.startFrom.`,
        `Lost (RPO): with the pod nothing but builds that ran; with node or cluster what came after the last backup, so the schedule's interval; one backup in the cluster took ${lost.backup.toFixed(0)} s.`,
      ],
    },
    { disk, lost },
  );
}

main().catch((error: Error) => {
  process.stderr.write(`bench: ${error.message}\n`);
  process.exitCode = 1;
});
