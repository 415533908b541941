import { randomBytes } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { stopNode } from "../../sandbox/cluster/nodes";
import { REPO } from "../../sandbox/paths";
import { run } from "../../sandbox/shell";
import { Bed } from "../backup-bed/bed";
import { RestServer } from "../backup-bed/servers";
import { addWorker, removeWorker, WORKER } from "../backup-bed/worker";
import { hashes, Home } from "../campaign/home";
import { DOCUMENT, middle, saveBench, seconds } from "./table";

/**
 * home.sh beside restic alone, on one home on this machine's disk, in turns: the same change saved by both, each into a repository of
 * its own, and the same snapshot restored by both. Then how long Jenkins is away, and what is lost, when its pod, its node or
 * all of its cluster goes; that needs the sandbox, and BENCH_LOSSES=0 leaves it out.
 */
const LOSSES = process.env.BENCH_LOSSES !== "0";
/** Sizes of the homes as builds of two files; 4,000 are 0.3 GB in 8,000 files. */
const SIZES = (process.env.BENCH_BUILDS ?? "4000,20000").split(",").map(Number);
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 5);
/** Size of a build's log, of which text and noise are half each, as logs compress to some half. */
const BUILD = 75_000;

const log = () => Buffer.concat([randomBytes(BUILD / 2), Buffer.from("[INFO] compiling the next of many classes\n".repeat(BUILD / 2 / 42))]);

/** A restic before the real one that writes down each call: seconds, processor seconds and most memory in KiB. */
const WRAPPER = `#!/bin/sh
"$RESTIC" "$@" &
started=$(date +%s%N)
while memory=$(sed -n 's/^VmHWM:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/$!/status 2>/dev/null) && [ -n "$memory" ]; do most=$memory; sleep 0.1; done
wait $!
code=$?
echo "$(($(date +%s%N) - started)) \${most:-0} $*" >>"$CALLS"
exit $code
`;

interface Call {
  seconds: number;
  kib: number;
  command: string;
}

/** One way of doing a thing: how long it took, of the wall clock and of processors. */
interface Taken {
  seconds: number;
  processor: number;
}

/** Runs a command and says what it took with all that it started. */
async function taken(command: string[], env: NodeJS.ProcessEnv): Promise<Taken> {
  const script = '"$@" >"$TAKEN.log" 2>&1 || { cat "$TAKEN.log" >&2; exit 1; }; times >"$TAKEN"';
  const file = path.join(env.HOME!, "taken");
  const elapsed = await seconds(() => run("bash", ["-c", script, "-", ...command], { env: { ...env, TAKEN: file } }));
  // Second line: minutes and seconds, user and system, of children.
  const processor = fs.readFileSync(file, "utf8").split("\n")[1].split(" ").map((text) => /(\d+)m([\d.]+)s/.exec(text)!).reduce((sum, [, minutes, rest]) => sum + Number(minutes) * 60 + Number(rest), 0);
  return { seconds: elapsed, processor };
}

const median = (all: Taken[]): Taken => ({ seconds: middle(all.map((each) => each.seconds)), processor: middle(all.map((each) => each.processor)) });

async function onDisk(builds: number) {
  const home = await Home.make();
  const at = (name: string) => path.join(home.root, name);
  try {
    const real = (await run("sh", ["-c", "command -v restic"], { env: home.env })).stdout.trim();
    fs.mkdirSync(at("wrapped"));
    fs.writeFileSync(at("wrapped/restic"), WRAPPER, { mode: 0o755 });
    const calls = (): Call[] => {
      const lines = fs.existsSync(at("calls")) ? fs.readFileSync(at("calls"), "utf8").trim().split("\n") : [];
      fs.rmSync(at("calls"), { force: true });
      return lines.map((line) => {
        const [nanoseconds, kib] = line.split(" ");
        return { seconds: Number(nanoseconds) / 1e9, kib: Number(kib), command: / (backup|snapshots|ls|restore|check|forget|init) /.exec(`${line} `)?.[1] ?? "other" };
      });
    };
    const script = path.join(REPO, "scripts/backup/home.sh");
    const plain = { ...home.env, STATUS_DIR: home.status, UPKEEP_DAYS: "7", CHECK_PARTS: "14", CACHE_DIR: home.work };
    const traced = { ...plain, PATH: `${at("wrapped")}:${home.env.PATH}`, RESTIC: real, CALLS: at("calls") };
    const ours = async (env: NodeJS.ProcessEnv = plain) => {
      const time = await taken(["sh", script, "backup"], env);
      home.publish();
      return time;
    };
    fs.writeFileSync(at("bare-file"), at("bare"));
    const alone = { ...home.env, RESTIC_REPOSITORY_FILE: at("bare-file"), RESTIC_CACHE_DIR: at("bare-cache") };
    const excludes = path.join(home.work, "excludes");
    const bare = () => taken(["sh", "-c", `cd "$HOME_DIR" && restic backup --quiet --host jenkins --exclude-file ${excludes} .`], alone);
    let built = 0;
    const build = (count: number) => {
      for (const last = built + count; built < last; ) home.build(`job${built % (builds / 20)}`, ++built, log());
    };

    build(builds);
    await run("sync", ["-f", home.root]);
    const first: [Taken, Taken] = [await ours(traced), await (async () => { await taken(["restic", "init"], alone); return bare(); })()];
    const firstCalls = calls();
    const changed: [Taken[], Taken[]] = [[], []];
    for (let round = 0; round < ROUNDS; round++) {
      build(builds / 100);
      // Whoever comes second finds the folders in memory.
      for (const way of round % 2 === 0 ? [0, 1] : [1, 0]) changed[way].push(way === 0 ? await ours() : await bare());
    }
    build(builds / 100);
    const files = home.result().files;
    await ours(traced);
    const nightly = calls();
    const upkeep = await ours({ ...traced, UPKEEP: "1" });
    const upkeepCalls = calls();
    const { snapshot } = home.result();
    const back: [Taken[], Taken[]] = [[], []];
    for (let round = 0; round < ROUNDS; round++)
      for (const way of round % 2 === 0 ? [0, 1] : [1, 0]) {
        fs.rmSync(at("restored"), { recursive: true, force: true });
        fs.mkdirSync(at("restored"));
        const command = way === 0 ? ["sh", script, "restore", snapshot, at("restored")] : ["restic", "restore", snapshot, "--target", at("restored"), "--verify"];
        back[way].push(await taken(command, plain));
        if (way === 1) continue;
        const [was, is] = [hashes(home.home), hashes(at("restored"))];
        if (was.size !== is.size || [...was].some(([name, hash]) => is.get(name) !== hash)) throw new Error("the restored home is not the one that was saved");
      }
    fs.rmSync(at("restored"), { recursive: true });
    fs.mkdirSync(at("restored"));
    await taken(["sh", script, "restore", snapshot, at("restored")], traced);
    const restoreCalls = calls();
    const sizeOf = async (name: string) => Number((await run("du", ["-sm", at(name)])).stdout.split("\t")[0]);
    const told = (which: Call[]) => which.map(({ command, seconds: took }) => `${command} ${took.toFixed(1)}`).join(", ");
    return {
      files, first, changed: changed.map(median) as [Taken, Taken], restore: back.map(median) as [Taken, Taken], upkeep,
      calls: { first: told(firstCalls), nightly: told(nightly), upkeep: told(upkeepCalls), restore: told(restoreCalls) },
      memory: Math.max(...[firstCalls, nightly, upkeepCalls, restoreCalls].flat().map(({ kib }) => kib)) / 1024,
      mib: await sizeOf("home"), cache: await sizeOf("work"), rounds: { changed, back },
    };
  } finally {
    home.remove();
  }
}

/** Seconds without Jenkins after each loss, with a home of a few jobs. Every build is asked for again before the clock stops. */
async function losses() {
  const bed = new Bed("bench-backup", new RestServer(8007));
  const elsewhere = bed.twin("bench-backup-elsewhere", { startFrom: "latest" });
  try {
    await bed.upOnPlatform();
    await elsewhere.anew();
    await addWorker();
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
    await removeWorker();
    await elsewhere.down();
    await bed.down();
  }
}

async function main(): Promise<void> {
  const disks = [];
  for (const builds of SIZES) disks.push(await onDisk(builds));
  const lost = LOSSES ? await losses() : undefined;
  const ratio = ([a, b]: [Taken, Taken], of: keyof Taken) => (a[of] / b[of]).toFixed(2);
  const named = (files: number) => `${Math.round(files / 1000)},000 files`;
  const pair = ([a, b]: [Taken, Taken]): [number, number] => [a.seconds, b.seconds];
  saveBench(
    "backup",
    {
      title: "Backup and restore of jenkins_home: home.sh beside restic alone",
      ways: ["home.sh", "restic alone"],
      rows: disks.flatMap(({ files, first, changed, restore }) => [
        { what: `${named(files)}: first backup`, seconds: pair(first) },
        { what: `${named(files)}: after 1 % changed`, seconds: pair(changed) },
        { what: `${named(files)}: restore`, seconds: pair(restore) },
      ]),
      notes: [
        `Medians of ${ROUNDS} rounds in turns, the first backup once and with its upkeep; restic alone is \`restic backup\` of the same change into a repository of its own, and \`restic restore --verify\` of the same snapshot. Every file that home.sh restored is compared with the home's.`,
        ...disks.flatMap(({ files, mib, first, changed, restore, upkeep, calls, memory, cache }) => [
          `${named(files)}, ${mib} MiB: after 1 % changed ${ratio(changed, "seconds")} of restic alone (target at most 1.3), in processor seconds ${changed[0].processor.toFixed(1)} and ${changed[1].processor.toFixed(1)}, ${ratio(changed, "processor")}; ${(changed[0].seconds / first[0].seconds).toFixed(2)} of the first backup. Restore ${ratio(restore, "seconds")} (target at most 1.15), in processor seconds ${restore[0].processor.toFixed(1)} and ${restore[1].processor.toFixed(1)}, ${ratio(restore, "processor")}.`,
          `${named(files)}, call by call in seconds: ${calls.nightly} from day to day; ${calls.upkeep} with the upkeep (${upkeep.seconds.toFixed(1)} s in all, half of the repository read back); ${calls.restore} of a restore, the first two of which run beside the third.`,
          `${named(files)}: no restic took more than ${memory.toFixed(0)} MiB of memory; the cache and scratch folder hold ${cache} MiB.`,
        ]),
        ...(lost
          ? [
              `Without Jenkins (RTO), until it lists every build again: pod killed ${lost.pod.toFixed(0)} s (target under 30 s); node's power cut ${lost.node.toFixed(0)} s by one \`npm run restore\`, the cluster's own wait for the node included; environment lost ${lost.cluster.toFixed(0)} s by one \`pulumi up\` with backup.startFrom. Measured ${new Date().toISOString().slice(0, 10)}.`,
              `Lost (RPO): with the pod nothing but builds that ran; with node or cluster what came after the last backup, so the schedule's interval; one backup in the cluster took ${lost.backup.toFixed(0)} s.`,
            ]
          : // Of the last run that had the sandbox.
            (fs.readFileSync(DOCUMENT, "utf8").match(/^- (Without Jenkins|Lost) \(.*$/gm) ?? []).map((line) => line.slice(2))),
      ],
    },
    { disks, lost },
  );
}

main().catch((error: Error) => {
  process.stderr.write(`bench: ${error.message}\n`);
  process.exitCode = 1;
});
