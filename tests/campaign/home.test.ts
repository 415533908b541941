import { randomBytes } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { spawn, spawnSync } from "node:child_process";
import { installPackages } from "../../sandbox/cluster/packages";
import { releases } from "../../tools/releases";
import { ended, hashes, Home, killHard } from "./home";

/** Faults against home.sh and the sandbox's restic, on this machine's own disk. Needs root. */

jest.setTimeout(1_200_000);
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
let home: Home;
beforeEach(async () => {
  home = await Home.make();
});
afterEach(() => home.remove());

const backup = async (env: NodeJS.ProcessEnv = {}) => {
  const { code, output } = await home.run(["backup"], env);
  return { code, output, result: home.result() };
};
const good = async () => {
  const { code, output, result } = await backup();
  if (code !== 0) throw new Error(output);
  return result;
};
const night = async (env: NodeJS.ProcessEnv = {}) => {
  const { code, output } = await home.nightly(env);
  if (code !== 0) throw new Error(output);
  return home.result();
};
/** Ways to make a backup: each with its upkeep, or as from day to day. */
const ways = [["with its upkeep", () => good()], ["from day to day", () => night()]] as const;
/** Puts words before restic, which sees "$@" and reaches the real one as "$RESTIC"; returns the environment that uses them. */
const before = (words: string): NodeJS.ProcessEnv => {
  const bin = path.join(home.root, "before");
  fs.mkdirSync(bin, { recursive: true });
  const real = spawnSync("sh", ["-c", "command -v restic"], { env: home.env as NodeJS.ProcessEnv, encoding: "utf8" }).stdout.trim();
  fs.writeFileSync(path.join(bin, "restic"), `#!/bin/sh\n${words}\nexec "$RESTIC" "$@"\n`, { mode: 0o755 });
  return { RESTIC: real, PATH: `${bin}:${home.env.PATH}` };
};
/** What is to be called counts its calls there. */
const calls = () => {
  const file = path.join(home.root, "calls");
  const lines = fs.existsSync(file) ? fs.readFileSync(file, "utf8").trim().split("\n") : [];
  fs.rmSync(file, { force: true });
  return lines.map((line) => / (backup|snapshots|ls|restore|check|forget|init|tag|unlock) /.exec(`${line} `)?.[1]);
};
const restic = (...args: string[]) => spawnSync("restic", args, { env: home.env as NodeJS.ProcessEnv, encoding: "utf8" });

test("every file, name, link and hole comes back as it was", async () => {
  home.build("plain", 1);
  home.build("构建 项目", 3);
  home.build("two  words 'and' $more;", 2);
  home.build("folder/jobs/inner", 7);
  fs.symlinkSync("3", path.join(home.home, "jobs/构建 项目/builds/lastStableBuild"));
  fs.symlinkSync("nowhere", path.join(home.home, "dangling"));
  home.write("empty", "");
  fs.mkdirSync(path.join(home.home, "userContent"));
  const sparse = fs.openSync(path.join(home.home, "jobs/plain/sparse"), "w");
  fs.writeSync(sparse, "end", 64 * 1024 * 1024);
  fs.closeSync(sparse);
  for (const left of ["war/w.jar", "cache/c", "workspace/x/y", "jobs/plain/workspace/z", "plugins/git/WEB-INF/a.jar"]) home.write(left, "made again");
  home.write("plugins/git.jpi", "a plugin");
  fs.chmodSync(path.join(home.home, "secrets"), 0o700);

  const result = await good();
  expect(result).toMatchObject({ status: "ok", builds: 4 });
  const restored = await home.restore();
  const expected = new Map([...hashes(home.home)].filter(([name]) => !/^(war|cache|workspace)\/|\/workspace\/|^plugins\/git\//.test(name)));
  expect(hashes(restored)).toEqual(expected);
  expect(fs.existsSync(path.join(restored, "userContent"))).toBe(true);
  expect(fs.statSync(path.join(restored, "secrets")).mode & 0o777).toBe(0o700);
});

test("the keys are in the other repository only, under the other password", async () => {
  home.build("a", 1);
  await good();
  const listing = restic("ls", "latest").stdout;
  expect(listing).toContain("/config.xml");
  expect(listing).not.toMatch(/master\.key|secret\.key/);
  const keys = spawnSync("restic", ["-r", path.join(home.root, "keys"), "ls", "latest"], { env: { ...home.env, RESTIC_REPOSITORY_FILE: undefined, RESTIC_PASSWORD_FILE: path.join(home.root, "keys-password") }, encoding: "utf8" }).stdout;
  expect(keys).toMatch(/master\.key/);
  expect(keys).not.toContain("config.xml");
});

test("each snapshot comes back with the keys that it was written under, also after another Jenkins was saved since", async () => {
  home.build("a", 1);
  const first = await good();
  // An empty volume got a new Jenkins, with keys of its own, and the nightly backup ran before anybody noticed.
  home.write("secrets/master.key", "the key of another Jenkins");
  home.write("secret.key", "its other key");
  fs.rmSync(path.join(home.home, "jobs"), { recursive: true });
  expect((await backup()).code).toBe(1);
  for (const wanted of ["latest", first.snapshot]) {
    const restored = await home.restore(wanted);
    expect(fs.readFileSync(path.join(restored, "secrets/master.key"), "utf8")).toBe("the key");
    expect(fs.readFileSync(path.join(restored, "secret.key"), "utf8")).toBe("the other key");
  }
  const accepted = await backup({ ACCEPT_SHRINK: "1" });
  expect(accepted.code).toBe(0);
  expect(fs.readFileSync(path.join(await home.restore(accepted.result.snapshot), "secrets/master.key"), "utf8")).toBe("the key of another Jenkins");
  expect(fs.readFileSync(path.join(await home.restore(first.snapshot), "secrets/master.key"), "utf8")).toBe("the key");
  // Where they are lost, that is said, and everything else comes back.
  fs.rmSync(path.join(home.root, "keys"), { recursive: true });
  await good();
  const without = await home.run(["restore", first.snapshot, fs.mkdtempSync(path.join(home.root, "restored-"))]);
  expect(without).toMatchObject({ code: 0, output: expect.stringMatching(/warning: .*keys of snapshot \w+ are not in the key repository/) });
});

test("fifty thousand small files, and one of two gigabytes", async () => {
  for (let i = 1; i <= 16_600; i++) {
    const folder = path.join(home.home, `jobs/job${i % 200}/builds/${i}`);
    fs.mkdirSync(folder, { recursive: true });
    fs.writeFileSync(path.join(folder, "build.xml"), `<build>${i}</build>`);
    fs.writeFileSync(path.join(folder, "log"), `log ${i} ${"x".repeat(i % 300)}`);
    fs.writeFileSync(path.join(folder, "changelog.xml"), "<log/>");
  }
  for (let i = 0; i < 200; i++) {
    home.write(`jobs/job${i}/config.xml`, "<project/>");
    home.write(`jobs/job${i}/nextBuildNumber`, "16601\n");
  }
  const block = randomBytes(1 << 20);
  const big = fs.openSync(path.join(home.home, "jobs/job0/big"), "w");
  for (let i = 0; i < 2048; i++) fs.writeSync(big, block);
  fs.closeSync(big);
  const result = await good();
  expect(result.builds).toBe(16_600);
  expect(result.files).toBeGreaterThan(50_000);
  expect(hashes(await home.restore())).toEqual(hashes(home.home));
});

test.each(ways)("%s, killed at ten random moments, the next backup is whole and earlier snapshots are as they were", async (_, saved) => {
  for (let i = 1; i <= 40; i++) home.build(`job${i % 5}`, i, randomBytes(200_000));
  const first = await saved();
  const before = hashes(await home.restore(first.snapshot));
  let usual = (await (async () => { const t = Date.now(); await saved(); return Date.now() - t; })());
  let killed = 0;
  for (let i = 0; i < 10; i++) {
    home.build("job1", 100 + i, randomBytes(500_000));
    const child = home.start(["backup"], saved === ways[1][1] ? { STATUS_DIR: home.status, UPKEEP_DAYS: "7" } : {});
    const began = Date.now();
    // One that came to its end beforehand says how long they take now.
    const done = ended(child).then(({ code }) => {
      if (code === null) killed++;
      else usual = Math.min(usual, Date.now() - began);
    });
    await sleep(Math.random() * usual);
    killHard(child);
    await done;
  }
  expect(killed).toBeGreaterThan(5);
  await saved();
  expect(hashes(await home.restore())).toEqual(hashes(home.home));
  expect(hashes(await home.restore(first.snapshot))).toEqual(before);
});

test("locks of a killed run delay the retention, never the backup", async () => {
  home.build("a", 1, randomBytes(30_000_000));
  const child = home.start(["backup"], { UPLOAD_LIMIT: "500" });
  const done = ended(child);
  while (!fs.existsSync(path.join(home.repository, "locks")) || fs.readdirSync(path.join(home.repository, "locks")).length === 0) await sleep(50);
  killHard(child);
  await done;
  expect(fs.readdirSync(path.join(home.repository, "locks"))).not.toEqual([]);
  expect((await good()).status).toBe("ok");
});

test.each(ways)("%s, a writer in the manner of Jenkins never gets a number given twice, and finished builds are whole", async (_, saved) => {
  const jobs = Array.from({ length: 12 }, (_, i) => `load${i}`);
  jobs.forEach((job) => home.build(job, 1));
  let running = true;
  const finished = new Set<string>();
  // As Jenkins does it: the number first, by rename; then the build's folder and log; build.xml last, by rename.
  const writer = (async () => {
    for (let n = 2; running; n++)
      for (const job of jobs) {
        const at = path.join(home.home, "jobs", job);
        fs.writeFileSync(path.join(at, "atomic1.tmp"), `${n + 1}\n`);
        fs.renameSync(path.join(at, "atomic1.tmp"), path.join(at, "nextBuildNumber"));
        fs.mkdirSync(path.join(at, `builds/${n}`));
        fs.writeFileSync(path.join(at, `builds/${n}/log`), `log ${n}`);
        await sleep(1);
        fs.writeFileSync(path.join(at, `builds/${n}/atomic2.tmp`), `<build><number>${n}</number></build>`);
        fs.renameSync(path.join(at, `builds/${n}/atomic2.tmp`), path.join(at, `builds/${n}/build.xml`));
        finished.add(`jobs/${job}/builds/${n}`);
        // Old builds go while they may be being read.
        if (n > 40) {
          fs.renameSync(path.join(at, `builds/${n - 39}`), path.join(at, `builds/.${n - 39}`));
          fs.rmSync(path.join(at, `builds/.${n - 39}`), { recursive: true });
          finished.delete(`jobs/${job}/builds/${n - 39}`);
        }
      }
  })();
  try {
    for (let round = 0; round < 5; round++) {
      const whole = new Set(finished);
      const result = await saved();
      const restored = await home.restore(result.snapshot);
      for (const job of jobs) {
        const builds = path.join(restored, "jobs", job, "builds");
        const numbers = fs.readdirSync(builds).filter((name) => /^\d+$/.test(name)).map(Number);
        const next = Number(fs.readFileSync(path.join(restored, "jobs", job, "nextBuildNumber"), "utf8"));
        expect(next).toBeGreaterThan(Math.max(...numbers));
        for (const number of numbers.filter((n) => whole.has(`jobs/${job}/builds/${n}`) && finished.has(`jobs/${job}/builds/${n}`))) {
          expect(fs.readFileSync(path.join(builds, `${number}/build.xml`), "utf8")).toBe(`<build><number>${number}</number></build>`);
          expect(fs.readFileSync(path.join(builds, `${number}/log`), "utf8")).toBe(`log ${number}`);
        }
        // Finished before the backup and still there after it: in the snapshot.
        for (const name of whole) if (finished.has(name) && name.startsWith(`jobs/${job}/`)) expect(fs.existsSync(path.join(restored, name, "build.xml"))).toBe(true);
      }
    }
  } finally {
    running = false;
    await writer;
  }
});

test("a home whose numbers are behind fails, is named, and does not become the latest", async () => {
  home.build("sound", 4);
  const before = await good();
  home.build("behind", 9);
  home.write("jobs/behind/nextBuildNumber", "5\n");
  const { code, result } = await backup();
  expect(code).toBe(1);
  expect(result.message).toMatch(/\/jobs\/behind: nextBuildNumber 5, newest build 9/);
  expect((JSON.parse((await home.run(["snapshots"])).output.split("\n").find((l) => l.startsWith("["))!) as { short_id: string; tags: string[] }[]).filter((s) => s.tags.includes("home")).map((s) => s.short_id)).toEqual([before.snapshot]);
});

test("such a snapshot does not become the latest either while somebody else reads the repository", async () => {
  home.build("sound", 4);
  const before = await good();
  home.build("behind", 9);
  home.write("jobs/behind/nextBuildNumber", "5\n");
  // Holds a lock until its input ends.
  const reader = spawn("restic", ["backup", "--stdin", "--host", "elsewhere"], { env: { ...home.env, RESTIC_CACHE_DIR: path.join(home.root, "other-cache") }, stdio: "pipe" });
  const gone = ended(reader);
  while (!fs.existsSync(path.join(home.repository, "locks")) || fs.readdirSync(path.join(home.repository, "locks")).length === 0) await sleep(50);
  const failing = backup({ LOCK_PAUSE: "1" });
  await sleep(8000);
  reader.stdin.end();
  await gone;
  expect((await failing).result.message).not.toMatch(/could not be marked/);
  expect((JSON.parse((await home.run(["snapshots"])).output.split("\n").find((l) => l.startsWith("["))!) as { short_id: string; tags?: string[] }[]).filter((s) => s.tags?.includes("home")).map((s) => s.short_id)).toEqual([before.snapshot]);
});

test("an empty volume is not saved, and a home that lost most of its jobs pushes nothing out", async () => {
  for (let i = 0; i < 6; i++) home.build(`job${i}`, 1);
  await good();
  fs.rmSync(path.join(home.home, "jobs"), { recursive: true });
  const shrunk = await backup();
  expect(shrunk.code).toBe(1);
  expect(shrunk.result.message).toMatch(/more than half of the jobs are gone: 0 now, 6 in the snapshot before/);
  const accepted = await backup({ ACCEPT_SHRINK: "1" });
  expect(accepted.code).toBe(0);
  fs.rmSync(path.join(home.home, "config.xml"));
  const empty = await backup();
  expect(empty.code).toBe(1);
  expect(empty.result.message).toMatch(/holds no jenkins_home/);
});

test("from day to day restic is started once, and keys and numbers that changed are seen all the same", async () => {
  const env = before('echo "$@" >>"$HOME/calls"');
  home.build("plain", 1);
  home.build("构建 [x] 'y' $z #", 3);
  const first = await night(env);
  expect(calls()).toEqual(["snapshots", "init", "backup", "restore", "ls", "snapshots", "init", "backup", "check", "forget"]);
  expect(first).toMatchObject({ checked: "1/1", upkeep: expect.stringMatching(/^20.*Z$/) });

  home.build("构建 [x] 'y' $z #", 4);
  home.build("another", 1);
  expect(await night(env)).toMatchObject({ builds: 4, upkeep: first.upkeep, checked: first.checked, passes: 1 });
  expect(calls()).toEqual(["backup"]);
  expect(hashes(await home.restore())).toEqual(hashes(home.home));

  home.write("secret.key", "another key");
  await night(env);
  expect(calls()).toEqual(["backup", "snapshots", "backup"]);
  expect(fs.readFileSync(path.join(await home.restore(), "secret.key"), "utf8")).toBe("another key");

  // The last good one, the parent of the next, was taken away by hand.
  expect(restic("forget", home.result().snapshot).status).toBe(0);
  const without = await night(env);
  expect(calls()).toEqual(["backup", "snapshots", "backup", "restore", "ls"]);
  expect(hashes(await home.restore(without.snapshot))).toEqual(hashes(home.home));

  // Another place for the keys gets them at once, although they are as they were.
  fs.writeFileSync(path.join(home.root, "keys-repository-file"), path.join(home.root, "other-keys"));
  fs.rmSync(home.status, { recursive: true });
  await night(env);
  expect(calls()).toContain("init");
});

test("a build that begins between the look at the home and restic's is read back, whatever its job is called", async () => {
  for (const job of ["plain", "构建 [x] 'y' $z *", "#hash"]) home.build(job, 3);
  await night();
  // After the walk, before restic opens anything: the number first, as Jenkins does it.
  const env = before(`echo "$@" >>"$HOME/calls"; case " $* " in *" backup "*) for job in "$HOME_DIR"/jobs/*; do echo 5 >"$job/n"; mv "$job/n" "$job/nextBuildNumber"; mkdir -p "$job/builds/4"; echo l >"$job/builds/4/log"; done ;; esac`);
  expect(await night(env)).toMatchObject({ status: "ok", passes: 1 });
  expect(calls()).toEqual(["backup", "restore"]);
  const restored = await home.restore();
  expect(hashes(restored)).toEqual(hashes(home.home));
  // A job that JSON has to escape costs the long way.
  home.build('quo"ted', 2);
  expect(await night(env)).toMatchObject({ status: "ok" });
  expect(calls()).toEqual(expect.arrayContaining(["backup", "restore", "ls"]));
});

test("from day to day, too, a job whose number is behind fails and is named, with a new build or a lowered number", async () => {
  home.build("sound", 4);
  const { snapshot } = await night();
  home.build("behind", 9);
  home.write("jobs/behind/nextBuildNumber", "5\n");
  expect((await home.nightly()).code).toBe(1);
  expect(home.result().message).toMatch(/\/jobs\/behind: nextBuildNumber 5, newest build 9/);
  // The suspect one is the parent of the next, in which nothing changed.
  expect((await home.nightly()).code).toBe(1);
  expect(home.result().message).toMatch(/\/jobs\/behind/);
  home.write("jobs/behind/nextBuildNumber", "10\n");
  home.write("jobs/sound/nextBuildNumber", "2\n");
  expect((await home.nightly()).code).toBe(1);
  expect(home.result().message).toMatch(/\/jobs\/sound: nextBuildNumber 2, newest build 4/);
  expect((JSON.parse((await home.run(["snapshots"])).output.split("\n").find((l) => l.startsWith("["))!) as { short_id: string; tags: string[] }[]).filter((s) => s.tags.includes("home")).map((s) => s.short_id)).toEqual([snapshot]);
});

test("a number that restic took over from the parent although the home has another is found", async () => {
  // The same file, size and times: restic sees no change, and saves the number from before the new build.
  const raise = (next: number) => {
    const number = path.join(home.home, "jobs/job/nextBuildNumber");
    fs.writeFileSync(number, `${next}\n`);
    fs.utimesSync(number, 1e9, 1e9);
  };
  const env = before('case " $* " in *" backup "*) set -- "$@" --ignore-ctime ;; esac');
  home.build("job", 14);
  raise(15);
  await night(env);
  home.build("job", 15);
  raise(16);
  expect((await home.nightly(env)).code).toBe(1);
  expect(home.result().message).toMatch(/\/jobs\/job: nextBuildNumber 15, newest build 15/);
});

test("the upkeep comes when it is due, when the clock or what was remembered is in doubt, and when it is asked for", async () => {
  for (let i = 0; i < 3; i++) home.build("a", i + 1);
  const strict = { KEEP_LAST: "1", CHECK_PARTS: "21" };
  const listed = async () => (JSON.parse((await home.run(["snapshots"])).output) as object[]).length;
  const remembered = (upkeep: string) => {
    const file = path.join(home.status, "last-good-backup");
    fs.writeFileSync(file, fs.readFileSync(file, "utf8").replace(/"upkeep":"[^"]*"/, `"upkeep":"${upkeep}"`));
  };
  const ago = (days: number) => new Date(Date.now() - days * 86_400_000).toISOString().replace(/\.\d+/, "");
  expect(await night(strict)).toMatchObject({ checked: "1/3" });
  for (let i = 0; i < 2; i++) expect(await night(strict)).toMatchObject({ checked: "1/3" });
  expect(await listed()).toBe(3);
  remembered(ago(6));
  expect(await night(strict)).toMatchObject({ checked: "1/3" });
  remembered(ago(7));
  const due = await night(strict);
  expect(due).toMatchObject({ checked: "2/3" });
  expect(Date.now() - Date.parse(due.upkeep)).toBeLessThan(120_000);
  expect(await listed()).toBe(1);
  remembered(ago(-1));
  expect(await night(strict)).toMatchObject({ checked: "3/3" });
  expect(await night({ ...strict, UPKEEP: "1" })).toMatchObject({ checked: "1/3" });
  // Of other repositories nothing is remembered.
  fs.writeFileSync(path.join(home.root, "keys-repository-file"), path.join(home.root, "keys/"));
  expect(await night(strict)).toMatchObject({ checked: "1/3" });
});

test("with busybox alone, as in restic's image: from day to day, an upkeep that is due, a build while restic reads, and back", async () => {
  await installPackages(["busybox"]);
  const tools = path.join(home.root, "busybox");
  fs.mkdirSync(tools);
  for (const tool of spawnSync("busybox", ["--list"], { encoding: "utf8" }).stdout.trim().split("\n")) fs.symlinkSync("/bin/busybox", path.join(tools, tool));
  const real = path.dirname(spawnSync("sh", ["-c", "command -v restic"], { env: home.env as NodeJS.ProcessEnv, encoding: "utf8" }).stdout.trim());
  const only = { PATH: `${tools}:${real}`, MEMORY_LIMIT: String(2 ** 30) };
  home.build("构建 [x] 'y' $z", 3);
  home.build("folder/jobs/inner", 1);
  const first = await night(only);
  home.build("构建 [x] 'y' $z", 4);
  expect(await night(only)).toMatchObject({ upkeep: first.upkeep, builds: 3 });
  home.build("folder/jobs/inner", 2);
  // In doubt, as the number is not ahead of the build when it is looked at.
  home.write("jobs/folder/jobs/inner/nextBuildNumber", "2\n");
  expect((await home.nightly(only)).code).toBe(1);
  expect(home.result().message).toMatch(/jobs\/folder\/jobs\/inner: nextBuildNumber 2, newest build 2/);
  home.write("jobs/folder/jobs/inner/nextBuildNumber", "3\n");
  expect((await night({ ...only, UPKEEP_DAYS: "0" })).upkeep).not.toBe(first.upkeep);
  const target = path.join(home.root, "target");
  fs.mkdirSync(target);
  expect(await home.run(["restore", "latest", target], only)).toMatchObject({ code: 0 });
  expect(hashes(target)).toEqual(hashes(home.home));
});

test("repositories of the last release's script are restored from, and gone on with", async () => {
  const commit = releases().find((release) => release.commit !== undefined)!.commit!;
  const former = path.join(home.root, "former.sh");
  const shown = spawnSync("git", ["show", `${commit}:scripts/backup/home.sh`], { cwd: __dirname, encoding: "utf8" });
  expect(shown.status).toBe(0);
  fs.writeFileSync(former, shown.stdout);
  home.build("a", 1);
  home.build("folder/jobs/b", 2);
  const made = spawnSync("sh", [former, "backup"], { env: home.env as NodeJS.ProcessEnv, encoding: "utf8" });
  expect([made.status, made.stderr]).toEqual([0, ""]);
  home.publish();
  const { snapshot } = home.result();
  const was = hashes(home.home);
  expect(hashes(await home.restore(snapshot))).toEqual(was);
  home.build("a", 2);
  // Its result says nothing of an upkeep: that comes at once.
  expect(await night()).toMatchObject({ builds: 3, upkeep: expect.stringMatching(/^20/) });
  expect(hashes(await home.restore())).toEqual(hashes(home.home));
  expect(hashes(await home.restore(snapshot))).toEqual(was);
});

test("a shrunk home, a missing and a wrong repository are seen from day to day as well", async () => {
  for (let i = 0; i < 6; i++) home.build(`job${i}`, 1);
  const { snapshot } = await night();
  for (let i = 1; i < 6; i++) fs.rmSync(path.join(home.home, `jobs/job${i}`), { recursive: true });
  expect((await home.nightly()).code).toBe(1);
  expect(home.result().message).toMatch(/more than half of the jobs are gone: 1 now, 6 in the snapshot before/);
  expect((await home.nightly({ ACCEPT_SHRINK: "1" })).code).toBe(0);
  fs.writeFileSync(path.join(home.root, "password"), "another");
  expect((await home.nightly()).code).toBe(1);
  expect(home.result().message).toMatch(/wrong password for the home repository/);
  fs.writeFileSync(path.join(home.root, "password"), "home");
  fs.renameSync(home.repository, `${home.repository}-away`);
  expect((await home.nightly()).code).toBe(1);
  expect(home.result().message).toMatch(/home repository is gone, or cannot be reached/);
  expect(fs.existsSync(home.repository)).toBe(false);
  fs.renameSync(`${home.repository}-away`, home.repository);
  expect(await night()).toMatchObject({ items: 1 });
  expect(hashes(await home.restore(snapshot)).size).toBeGreaterThan(hashes(home.home).size);
});

test("a wrong password is said to be one, and nothing is touched", async () => {
  home.build("a", 1);
  await good();
  const before = hashes(home.repository);
  fs.writeFileSync(path.join(home.root, "password"), "another");
  const { code, result } = await backup();
  expect(code).toBe(1);
  expect(result.message).toMatch(/wrong password for the home repository/);
  expect(hashes(home.repository)).toEqual(before);
  const restored = await home.run(["restore", "latest", home.work]);
  expect(restored.code).toBe(1);
  expect(restored.output).toMatch(/password/);
  expect(await home.run(["snapshots"])).toMatchObject({ code: 1, output: expect.stringMatching(/wrong password for the home repository\n.*pulumi config set/) });
});

test("a target that does not answer is told of while restic still tries, and with restic's words at the end", async () => {
  home.build("a", 1);
  await night();
  const env = before('case " $* " in *" backup "*) echo "Stat(<config/0000000000>) returned error, retrying after 720ms: connect: connection refused" >&2; sleep 4; echo "Fatal: unable to open config file: connection refused" >&2; exit 1 ;; esac');
  expect(await home.nightly({ ...env, TRIES_PAUSE: "1" })).toMatchObject({ code: 1, output: expect.stringMatching(/^\S+ restic still tries: Stat\(.*connection refused$/m) });
  expect(home.result().message).toMatch(/home repository is gone, or cannot be reached: Fatal: unable to open config file/);
});

test("a list asked for before the first backup says what makes it", async () => {
  expect(await home.run(["snapshots"])).toMatchObject({ code: 1, output: expect.stringMatching(/home repository cannot be opened.*\n.*npm run backup/) });
});

test("a damaged pack is found and named, and what does not need it can still be restored", async () => {
  home.build("a", 1, randomBytes(3_000_000));
  const first = await good();
  const packs = (): string[] => [...hashes(path.join(home.repository, "data")).keys()];
  const old = new Set(packs());
  home.build("b", 1, randomBytes(3_000_000));
  await good();
  const added = packs().filter((name) => !old.has(name));
  const victim = added.map((name) => path.join(home.repository, "data", name)).sort((x, y) => fs.statSync(y).size - fs.statSync(x).size)[0];
  fs.chmodSync(victim, 0o600);
  const handle = fs.openSync(victim, "r+");
  fs.writeSync(handle, randomBytes(64), 0, 64, 1000);
  fs.closeSync(handle);
  const { code, result } = await backup();
  expect(code).toBe(1);
  expect(result.message).toMatch(/repository is damaged/);
  expect(result.message).toContain(path.basename(victim).slice(0, 8));
  expect(fs.existsSync(path.join(await home.restore(first.snapshot), "jobs/a/builds/1/log"))).toBe(true);
});

test("a full target fails with its own words, the earlier snapshot stays, and with room again the next backup is good", async () => {
  fs.mkdirSync(home.repository);
  expect(spawnSync("mount", ["-t", "tmpfs", "-o", "size=12m", "tmpfs", home.repository]).status).toBe(0);
  try {
    home.build("a", 1, randomBytes(1_000_000));
    const first = await good();
    home.build("b", 1, randomBytes(30_000_000));
    const { code, result } = await backup();
    expect(code).toBe(1);
    expect(result.message).toMatch(/no space left|could not make the snapshot/i);
    expect(result.message).toMatch(/earlier snapshots are as they were/);
    expect(fs.existsSync(path.join(await home.restore(first.snapshot), "jobs/a/builds/1/log"))).toBe(true);
    expect(spawnSync("mount", ["-o", "remount,size=200m", home.repository]).status).toBe(0);
    await good();
    expect(hashes(await home.restore())).toEqual(hashes(home.home));
  } finally {
    spawnSync("umount", [home.repository]);
  }
});

test("a repository that was there before and is gone is an error, not a new beginning", async () => {
  home.build("a", 1);
  const { snapshot } = await good();
  const status = path.join(home.root, "status");
  fs.mkdirSync(status);
  fs.writeFileSync(path.join(status, "snapshot"), snapshot);
  fs.renameSync(home.repository, `${home.repository}-away`);
  const { code, result } = await backup({ STATUS_DIR: status });
  expect(code).toBe(1);
  expect(result.message).toMatch(/repository is gone, or cannot be reached/);
  expect(fs.existsSync(home.repository)).toBe(false);
});

test("a restore killed at random moments and run again is whole", async () => {
  for (let i = 1; i <= 30; i++) home.build(`job${i % 3}`, i, randomBytes(700_000));
  await good();
  const target = path.join(home.root, "target");
  fs.mkdirSync(target);
  for (let i = 0; i < 5; i++) {
    const child = home.start(["restore", "latest", target]);
    const done = ended(child);
    await sleep(100 + Math.random() * 1500);
    killHard(child);
    await done;
  }
  expect((await home.run(["restore", "latest", target])).code).toBe(0);
  expect(hashes(target)).toEqual(hashes(home.home));
});

test("one job comes back with its builds; numbers used since are not given again, the former folder is kept", async () => {
  home.build("a", 1);
  home.build("folder/jobs/b", 2);
  await good();
  home.build("folder/jobs/b", 3);
  fs.rmSync(path.join(home.home, "jobs/folder/jobs/b/builds/2"), { recursive: true });
  const others = hashes(path.join(home.home, "jobs/a"));
  expect((await home.run(["restore-job", "latest", "folder/b", home.home])).code).toBe(0);
  const job = path.join(home.home, "jobs/folder/jobs/b");
  expect(fs.readdirSync(path.join(job, "builds"))).toEqual(["2"]);
  expect(fs.readFileSync(path.join(job, "nextBuildNumber"), "utf8")).toBe("4\n");
  expect(hashes(path.join(home.home, "jobs/a"))).toEqual(others);
  expect([...hashes(path.join(home.home, ".replaced")).keys()].some((name) => name.endsWith("jobs/folder/jobs/b/builds/3/log"))).toBe(true);
  // As if killed between the two renames of a second run.
  fs.renameSync(job, path.join(fs.mkdtempSync(path.join(home.home, ".replaced", "20260101T000000Z")), "b"));
  const [kept] = fs.readdirSync(path.join(home.home, ".replaced")).filter((name) => name.startsWith("20260101"));
  fs.mkdirSync(path.join(home.home, ".replaced", kept, "jobs/folder/jobs"), { recursive: true });
  fs.renameSync(path.join(home.home, ".replaced", kept, "b"), path.join(home.home, ".replaced", kept, "jobs/folder/jobs/b"));
  expect((await home.run(["restore-job", "latest", "folder/b", home.home])).code).toBe(0);
  expect(fs.readFileSync(path.join(job, "nextBuildNumber"), "utf8")).toBe("4\n");
  expect((await home.run(["restore-job", "latest", "nobody", home.home])).output).toMatch(/has no job nobody/);
  for (const [name, code] of [["a", 0], ["folder/b", 0], ["b", 1], ["folder", 1], ["-n", 1]] as const) expect([name, (await home.run(["has-job", "latest", name])).code]).toEqual([name, code]);
});

test("an empty home starts from a snapshot, however often that is interrupted; one in use is left as it is", async () => {
  for (let i = 1; i <= 30; i++) home.build(`job${i % 3}`, i, randomBytes(700_000));
  const { snapshot } = await good();
  const saved = hashes(home.home);
  const target = path.join(home.root, "target");
  fs.mkdirSync(path.join(target, "lost+found"), { recursive: true });
  let killed = 0;
  for (let i = 0; i < 5; i++) {
    const child = home.start(["start-from", "latest", target]);
    const done = ended(child);
    await sleep(100 + Math.random() * 800);
    killHard(child);
    if ((await done).code === null) killed++;
  }
  expect(killed).toBeGreaterThan(1);
  const half = await home.run(["backup"], { HOME_DIR: target });
  expect(half.output).toMatch(/is being filled from a snapshot/);
  expect(await home.run(["start-from", snapshot, target])).toMatchObject({ code: 0 });
  expect(hashes(target)).toEqual(saved);
  fs.rmSync(path.join(target, "jobs"), { recursive: true });
  const left = hashes(target);
  expect((await home.run(["start-from", "latest", target])).output).toMatch(/holds data and is left as it is/);
  expect(hashes(target)).toEqual(left);
});

test("where there is no snapshot to start from, it says so and leaves nothing that looks like a home", async () => {
  const target = fs.mkdtempSync(path.join(home.root, "target-"));
  const without = await home.run(["start-from", "latest", target]);
  expect(without.code).toBe(1);
  expect(without.output).toMatch(/the home repository cannot be opened/);
  home.build("a", 1);
  await good();
  expect((await home.run(["start-from", "0123abcd", target])).code).toBe(1);
  expect(fs.readdirSync(target)).toEqual([".start-from-unfinished"]);
  // Begun again, with a snapshot that there is.
  expect((await home.run(["start-from", "latest", target])).code).toBe(0);
  expect(hashes(target)).toEqual(hashes(home.home));
});

test("a clock that jumps: no snapshot is lost to the retention, and the latest is the one made last by the right clock", async () => {
  // Both programs that read the clock, as they would with another one.
  const shims = path.join(home.root, "bin");
  fs.mkdirSync(shims);
  const shim = (name: string, text: string) => fs.writeFileSync(path.join(shims, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  shim("date", 'case "${CLOCK:+set} $*" in *-d*|" "*) exec /usr/bin/date "$@" ;; esac\nexec /usr/bin/date -d "@$CLOCK" "$@"');
  const real = spawnSync("sh", ["-c", "command -v restic"], { env: home.env as NodeJS.ProcessEnv, encoding: "utf8" }).stdout.trim();
  shim("restic", `[ -z "$CLOCK" ] || case " $* " in *" backup "*) set -- "$@" --time "$(/usr/bin/date -u -d "@$CLOCK" "+%Y-%m-%d %H:%M:%S")" ;; esac\nexec ${real} "$@"`);
  const strict = { PATH: `${shims}:${home.env.PATH}`, KEEP_LAST: "1", KEEP_DAILY: "0", KEEP_WEEKLY: "0", KEEP_MONTHLY: "0" };
  const at = async (clock: string) => {
    const { code, output, result } = await backup({ ...strict, CLOCK: clock });
    if (code !== 0) throw new Error(output);
    return result;
  };
  const listed = async () => (JSON.parse((await home.run(["snapshots"])).output) as { short_id: string }[]).map((s) => s.short_id).sort();

  home.build("a", 1);
  const first = await at("");
  home.build("a", 2);
  const future = await at(String(Date.UTC(2040, 1, 1) / 1000));
  // The wrong clock itself sees no fault: its own retention keeps the newest only.
  expect(await listed()).toEqual([future.snapshot]);
  home.build("a", 3);
  const back = await at("");
  expect(back.message).toMatch(new RegExp(`retention postponed: snapshot ${future.snapshot} is dated 2040-02-01.*later than now`));
  home.build("a", 4);
  const past = await at(String(Date.UTC(2001, 1, 1) / 1000));
  expect(past.message).toMatch(/retention postponed/);
  expect(await listed()).toEqual([future.snapshot, back.snapshot, past.snapshot].sort());
  expect(await listed()).not.toContain(first.snapshot);
  expect(fs.readdirSync(path.join(await home.restore("latest"), "jobs/a/builds")).sort()).toEqual(["1", "2", "3"]);
  expect(fs.readdirSync(path.join(await home.restore(past.snapshot), "jobs/a/builds")).sort()).toEqual(["1", "2", "3", "4"]);
});
