import { spawn, spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { scripts } from "../../components/jenkins-backup";

/** What scripts/backup/standby.sh does where something is away or cut off, by a stand-in of restic; tests/campaign/standby-volume has the real one. */

jest.setTimeout(60_000);

/** Snapshots are folders of REPOSITORY. As the real one: exit 10 without a repository, 1 without the snapshot, an unknown id is not listed. */
const RESTIC = `#!/bin/sh
case "$RESTIC_REPOSITORY_FILE" in *keys*) repository=$REPOSITORY/keys ;; *) repository=$REPOSITORY/home ;; esac
[ -d "$repository" ] || { echo "Fatal: repository does not exist" >&2; exit 10; }
word= id= target=
while [ $# -gt 0 ]; do case "$1" in
  --limit-*|--host|--tag|--overwrite|--exclude) shift ;;
  --target) target=$2; shift ;;
  -*) ;;
  *) [ -n "$word" ] && id=$1 || word=$1 ;;
esac; shift; done
[ "$word" != restore ] || [ ! -e "$REPOSITORY/goes-away" ] || { mv "$repository" "$repository.away"; echo "Fatal: repository does not exist" >&2; exit 10; }
case "$word" in
snapshots) if [ -z "$id" ] || [ -d "$repository/$id" ]; then echo '[{"short_id":"'"$id"'"}]'; else echo '[]'; fi ;;
restore)
  [ -d "$repository/$id" ] || { echo "Fatal: failed to find snapshot: no matching ID found" >&2; exit 1; }
  find "$target" -mindepth 1 -maxdepth 1 ! -name '.standby*' ! -name .home-fence ! -name .start-from-unfinished -exec rm -rf {} +
  cp -a "$repository/$id/." "$target"
  echo '{"message_type":"summary","total_files":'$(find "$repository/$id" -mindepth 1 ! -path '*/secrets/master.key' | wc -l)',"bytes_restored":1}' ;;
*) exit 64 ;;
esac
`;

let root: string;
let volume: string;
let env: NodeJS.ProcessEnv;
const write = (name: string, text: string, mode = 0o644) => {
  fs.mkdirSync(path.dirname(path.join(root, name)), { recursive: true });
  fs.writeFileSync(path.join(root, name), text, { mode });
  return path.join(root, name);
};
const saved = (id: string) => {
  write(`repository/home/${id}/jobs/a/config.xml`, "<project/>");
  write(`repository/home/${id}/jobs/a/builds/${id.length}/build.xml`, id);
  write("status/last-good-backup", JSON.stringify({ status: "ok", time: "2026-01-01T00:00:00Z", snapshot: id, keys: "", upkeep: "u1" }));
};
const shell = (file: string, ...args: string[]) => {
  const { status, stdout, stderr } = spawnSync("sh", [path.join(root, "scripts", file), ...args], { env, encoding: "utf8" });
  return { code: status, output: stdout + stderr };
};
const run = (command: string, ...args: string[]) => shell("home.sh", command, volume, ...args);
const mark = () => fs.readFileSync(path.join(volume, ".standby"), "utf8").split(" ").slice(0, 2).join(" ");
const told = () => JSON.parse(fs.readFileSync(path.join(root, "work/result.json"), "utf8")) as Record<string, string | number>;
const there = (name: string) => fs.existsSync(path.join(volume, name));
const away = () => fs.renameSync(path.join(root, "repository/home"), path.join(root, "repository/home.away"));
const back = () => fs.renameSync(path.join(root, "repository/home.away"), path.join(root, "repository/home"));

beforeEach(() => {
  root = fs.mkdtempSync(path.join(os.tmpdir(), "standby-volume-"));
  volume = path.join(root, "volume");
  fs.mkdirSync(volume);
  fs.mkdirSync(path.join(root, "work"));
  fs.mkdirSync(path.join(root, "repository/keys/latest"), { recursive: true });
  write("bin/restic", RESTIC, 0o755);
  for (const [name, text] of Object.entries(scripts(["jobs/**/reports"]))) write(`scripts/${name}`, text);
  env = { PATH: `${root}/bin:${process.env.PATH}`, HOME_SH_GENTLE: "1", WORK_DIR: `${root}/work`, STATUS_DIR: `${root}/status`, EXCLUDES_FILE: `${root}/scripts/excludes.txt`, REPOSITORY: `${root}/repository`, RESTIC_REPOSITORY_FILE: "home", RESTIC_PASSWORD_FILE: "p", KEY_REPOSITORY_FILE: "keys", KEY_PASSWORD_FILE: "p", LOCK_SECONDS: "1" };
  saved("one");
  expect(run("standby")).toMatchObject({ code: 0 });
  expect(mark()).toBe("whole one");
});
afterEach(() => fs.rmSync(root, { recursive: true }));

describe("a whole standby stays whole, and is taken as it is,", () => {
  beforeEach(() => saved("three"));
  const isTaken = () => {
    expect(mark()).toBe("whole one");
    expect(run("standby-take", "three", "a1b2c3")).toMatchObject({ code: 0, output: expect.stringMatching(/warning: .*cannot be reached[\s\S]*as snapshot one of .* is the home now/) });
  };
  test("where the repository is gone", () => {
    away();
    expect(run("standby").code).toBe(1);
    expect(told()).toMatchObject({ status: "failed", snapshot: "one", message: expect.stringMatching(/could not be brought to snapshot three: .*does not exist.*stays as it is/) });
    isTaken();
  });
  test("where it goes between being opened and being read", () => {
    write("repository/goes-away", "");
    expect(run("standby").code).toBe(1);
    isTaken();
  });
  test("where the repository of the keys is gone, which it needs", () => {
    fs.rmSync(path.join(root, "repository/keys"), { recursive: true });
    expect(run("standby").code).toBe(1);
    isTaken();
  });
  test("where the snapshot is gone", () => {
    fs.rmSync(path.join(root, "repository/home/three"), { recursive: true });
    expect(run("standby").code).toBe(1);
    isTaken();
  });
  test("but not by a failover that saved the home first, which would lose what is in that snapshot", () => {
    away();
    expect(run("standby-take", "three", "a1b2c3", "exact")).toMatchObject({ code: 1, output: expect.stringMatching(/snapshot three, with which Jenkins was stopped, cannot be read/) });
    back();
    expect(run("standby-take", "three", "a1b2c3", "exact")).toMatchObject({ code: 0, output: expect.stringMatching(/as snapshot three of/) });
  });
});

test("a standby that was cut off in the middle of becoming a home becomes it when that is run again", () => {
  // mv, the last but one of its steps, ends; nothing after it comes about.
  write("bin/mv", `#!/bin/sh\n/bin/mv "$@" && case "$*" in *.restore-inventory) kill -KILL $PPID ;; esac\n`, 0o755);
  expect(run("standby-take", "one", "a1b2c3").code).toBeNull();
  expect([there(".standby"), there(".standby-inventory"), there(".restore-inventory")]).toEqual([true, false, true]);
  fs.rmSync(path.join(root, "bin/mv"));
  expect(run("standby-take", "one", "a1b2c3")).toMatchObject({ code: 0, output: expect.stringMatching(/is the home now/) });
  expect([there(".standby"), there(".restore-inventory")]).toEqual([false, true]);
});

test("a home is not saved before a Jenkins that was given up has ended", async () => {
  run("standby-take", "one", "a1b2c3");
  const jenkins = spawn("flock", [path.join(volume, ".home-fence"), "-c", "echo held; exec sleep 600"], { stdio: ["ignore", "pipe", "ignore"], detached: true });
  expect(jenkins.pid).toBeGreaterThan(1);
  try {
    await new Promise((resolve) => jenkins.stdout.once("data", resolve));
    expect(run("standby-wait")).toMatchObject({ code: 1, output: expect.stringMatching(/still writes to this volume/) });
  } finally {
    // Its own group, with what it started.
    process.kill(-jenkins.pid!, "SIGKILL");
  }
  expect(run("standby-wait")).toMatchObject({ code: 0, output: expect.stringMatching(/nobody writes/) });
});

test.each(["jobs/a/reports/index.html", "jobs/reports/index.html", ".replaced/20260101T000000Z/jobs/a/config.xml"])("a home with %s, which no snapshot has, is not made a standby", (name) => {
  run("standby-take", "one", "a1b2c3");
  write(`volume/${name}`, "");
  expect(run("standby-give", "one", "t")).toMatchObject({ code: 0, output: expect.stringMatching(/warning: this home is kept as it is/) });
  expect(there(".standby")).toBe(false);
});

test("a home with what is made again alone is made a standby", () => {
  run("standby-take", "one", "a1b2c3");
  write("volume/jobs/a/workspace/file", "");
  expect(run("standby-give", "one", "t").code).toBe(0);
  expect(mark()).toBe("whole one");
});

test("what a standby is, is told again where the published status says something else, and not where it says the same", () => {
  const result = path.join(root, "work/result.json");
  const older = () => fs.utimesSync(result, new Date(Date.now() - 600_000), new Date(Date.now() - 600_000));
  fs.writeFileSync(result, "");
  run("standby");
  expect(fs.readFileSync(result, "utf8")).toBe("");
  older();
  run("standby");
  expect(told()).toMatchObject({ status: "ok", snapshot: "one", items: 1, builds: 1 });
  write("status/last-good-standby", JSON.stringify(told()));
  fs.writeFileSync(result, "");
  older();
  run("standby");
  expect(fs.readFileSync(result, "utf8")).toBe("");
});

test("a fresh volume with the lock of the container beside Jenkins is filled from a snapshot", () => {
  const fresh = path.join(root, "fresh");
  write("fresh/.home-fence", "");
  shell("home.sh", "start-from", "one", fresh);
  // The stand-in prints no summary in words, with which restoring ends; that it was begun is what counts here.
  expect(fs.existsSync(path.join(fresh, ".start-from-unfinished"))).toBe(true);
  expect(fs.existsSync(path.join(fresh, ".home-fence"))).toBe(true);
});
