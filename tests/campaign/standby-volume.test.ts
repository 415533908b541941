import { spawn, spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { ended, hashes, Home, killHard } from "./home";

/** The standby's volume by scripts/backup/standby.sh with the sandbox's restic, on this machine's own disk. */

jest.setTimeout(600_000);
/** How often a cut is repeated. */
const TIMES = Number(process.env.STANDBY_TIMES ?? 10);
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
let home: Home;
let volume: string;
beforeEach(async () => {
  home = await Home.make();
  volume = path.join(home.root, "standby");
  fs.mkdirSync(volume);
});
afterEach(() => home.remove());

const saved = async (): Promise<string> => {
  const { code, output } = await home.nightly();
  if (code !== 0) throw new Error(output);
  return home.result().snapshot;
};
const RESULT = () => path.join(home.work, "standby.json");
const standby = (command: string[] = ["standby"], env: NodeJS.ProcessEnv = {}) => home.run([command[0], volume, ...command.slice(1)], { STATUS_DIR: home.status, RESULT_FILE: RESULT(), ...env });
const told = () => JSON.parse(fs.readFileSync(RESULT(), "utf8")) as Record<string, string | number>;
const marked = () => fs.readFileSync(path.join(volume, ".standby"), "utf8").trim();
/** What is there for a Jenkins: without what the standby keeps of itself. */
const content = (folder: string) => new Map([...hashes(folder)].filter(([name]) => !/^\.(standby|home-fence|restore-inventory)/.test(name)));
/** And what it told is published, as report.sh does it. */
const followed = async () => {
  const { code, output } = await standby();
  if (code !== 0) throw new Error(output);
  fs.copyFileSync(RESULT(), path.join(home.status, "last-good-standby"));
};

test("it follows each snapshot, writes what changed alone, and keeps the keys", async () => {
  for (let i = 1; i <= 50; i++) home.build("job", i);
  home.build("folder/jobs/inner", 1);
  expect((await standby()).output).toBe("");
  const first = await saved();
  await followed();
  expect(content(volume)).toEqual(content(home.home));
  expect(marked()).toMatch(new RegExp(`^whole ${first} \\S+ \\S+$`));
  expect(told()).toMatchObject({ status: "ok", snapshot: first, builds: 51 });

  const untouched = fs.statSync(path.join(volume, "jobs/job/builds/7/log"));
  home.build("job", 51);
  home.write("jobs/folder/jobs/inner/builds/1/log", "changed, and longer than before\n");
  fs.rmSync(path.join(home.home, "jobs/job/builds/3"), { recursive: true });
  const second = await saved();
  await followed();
  expect(content(volume)).toEqual(content(home.home));
  expect(told()).toMatchObject({ status: "ok", snapshot: second, deleted: 3 });
  // The new build's two files, nextBuildNumber and the log.
  expect(told().bytes).toBe(["jobs/job/builds/51/log", "jobs/job/builds/51/build.xml", "jobs/job/nextBuildNumber", "jobs/folder/jobs/inner/builds/1/log"].map((name) => fs.statSync(path.join(home.home, name)).size).reduce((a, b) => a + b));
  const after = fs.statSync(path.join(volume, "jobs/job/builds/7/log"));
  expect([after.ino, after.mtimeMs]).toEqual([untouched.ino, untouched.mtimeMs]);
  // Nothing new: nothing is said, and nothing is done.
  fs.rmSync(RESULT());
  expect(await standby()).toEqual({ code: 0, output: "" });
  expect(fs.existsSync(RESULT())).toBe(false);
});

test("what changed without a new time is found after the next upkeep", async () => {
  home.build("job", 1);
  await saved();
  await followed();
  const file = path.join(volume, "jobs/job/builds/1/log");
  fs.writeFileSync(file, fs.readFileSync(file, "utf8").replace("log", "lag"));
  spawnSync("touch", ["-r", path.join(home.home, "jobs/job/builds/1/log"), file]);
  home.build("job", 2);
  await saved();
  await followed();
  expect(content(volume)).not.toEqual(content(home.home));
  // The upkeep's time is in seconds.
  await sleep(1100);
  await home.nightly({ UPKEEP: "1" });
  await followed();
  expect(content(volume)).toEqual(content(home.home));
});

test("an update that is killed at any moment is no home, and is finished by the next one, or by the failover", async () => {
  for (let i = 1; i <= 300; i++) home.build(`job${i % 7}`, i, "x".repeat(20_000));
  await saved();
  await followed();
  let inTheMiddle = 0;
  for (let i = 1; i <= TIMES; i++) {
    for (let n = 0; n < 40; n++) home.build(`job${n % 7}`, 1000 * i + n, `${i}`.repeat(30_000));
    fs.rmSync(path.join(home.home, `jobs/job${i % 7}/builds/${i}`), { recursive: true, force: true });
    const snapshot = await saved();
    const child = home.start(["standby", volume], { STATUS_DIR: home.status, RESULT_FILE: RESULT() });
    const end = ended(child);
    await sleep(200 + ((i * 397) % 1600));
    killHard(child);
    await end;
    const cut = marked();
    expect(cut).toMatch(/^(whole|updating) [0-9a-f]{8} /);
    if (cut.startsWith("updating")) inTheMiddle++;
    if (i % 2 === 0) {
      const taken = await standby(["standby-take", snapshot, `id${i}`]);
      expect([taken.code, taken.output]).toEqual([0, expect.stringMatching(`snapshot ${snapshot} of .* is the home now`)]);
      expect(content(volume)).toEqual(content(home.home));
      expect((await standby(["standby-renew"])).code).toBe(0);
    }
    await followed();
    expect(content(volume)).toEqual(content(home.home));
  }
  expect(inTheMiddle).toBeGreaterThan(0);
});

test("a home is never written to: not the one that a failover made, and not the one that it left", async () => {
  home.build("job", 1);
  const snapshot = await saved();
  await followed();
  expect((await standby(["standby-take", snapshot, "a1b2c3"])).code).toBe(0);
  expect(fs.readFileSync(path.join(volume, ".restore-inventory"), "utf8")).toMatch(/^build\tjobs\/job\t1$/m);
  // Jenkins builds on; the one on the other side has another build of that number, which was never saved.
  fs.mkdirSync(path.join(volume, "jobs/job/builds/2"));
  fs.writeFileSync(path.join(volume, "jobs/job/builds/2/build.xml"), "<build>of its own</build>");
  home.build("job", 2);
  const later = await saved();
  const before = content(volume);
  const refused = await standby();
  expect(refused.code).toBe(1);
  expect(told()).toMatchObject({ status: "former", message: expect.stringMatching(/former home, which is kept as it was; .*--renew/) });
  expect(content(volume)).toEqual(before);
  // Told once, not every few seconds.
  fs.rmSync(RESULT());
  await standby();
  expect(fs.existsSync(RESULT())).toBe(false);
  // The same failover finds it done, another one does not take it for a standby.
  expect((await standby(["standby-take", later, "a1b2c3"])).output).toMatch(/is a home already/);
  expect(await standby(["standby-take", later, "d4e5f6"])).toMatchObject({ code: 1, output: expect.stringMatching(/holds the former home/) });
  expect((await standby(["standby-take", later, "d4e5f6", "home"])).code).toBe(0);
  expect(content(volume)).toEqual(before);
  // Given up by a person it follows again.
  expect((await standby(["standby-renew"])).code).toBe(0);
  await followed();
  expect(content(volume)).toEqual(content(home.home));
});

test("a home whose snapshot was just taken becomes the standby without a byte being written", async () => {
  for (let i = 1; i <= 3; i++) home.build("job", i);
  const snapshot = await saved();
  await followed();
  await standby(["standby-take", snapshot, "a1b2c3"]);
  expect((await standby(["standby-give", snapshot, "2026-01-01T00:00:00Z"])).code).toBe(0);
  expect(marked()).toBe(`whole ${snapshot} 2026-01-01T00:00:00Z never`);
  expect(await standby()).toEqual({ code: 0, output: "" });
  // Again, as a failover that was killed does it.
  expect((await standby(["standby-give", snapshot, "2026-01-01T00:00:00Z"])).code).toBe(0);
  expect((await standby(["standby-take", snapshot, "d4e5f6"])).code).toBe(0);
});

test("where the repository is gone a whole standby is taken as it is, and one in the middle of an update is not", async () => {
  home.build("job", 1);
  const snapshot = await saved();
  await followed();
  home.build("job", 2);
  const later = await saved();
  fs.renameSync(home.repository, `${home.repository}.away`);
  expect((await standby()).code).toBe(1);
  expect(told()).toMatchObject({ status: "failed", message: expect.stringMatching(/could not be brought to snapshot/) });
  expect(marked()).toMatch(`whole ${snapshot}`);
  const whole = fs.readFileSync(path.join(volume, ".standby"), "utf8");
  fs.writeFileSync(path.join(volume, ".standby"), whole.replace("whole", "updating"));
  expect(await standby(["standby-take", later, "a1b2c3"])).toMatchObject({ code: 1, output: expect.stringMatching(/in the middle of an update, and the repository cannot be reached/) });
  fs.renameSync(`${home.repository}.away`, home.repository);
  await followed();
  home.build("job", 3);
  const last = await saved();
  fs.renameSync(home.repository, `${home.repository}.away`);
  expect(await standby(["standby-take", last, "a1b2c3"])).toMatchObject({ code: 0, output: expect.stringMatching(`warning: the repository cannot be reached .* as snapshot ${later}`) });
  expect(snapshot).not.toBe(later);
});

test("whoever holds the volume's lock is waited for, and its end sets the lock free, however it ends", async () => {
  home.build("job", 1);
  await saved();
  const holder = spawn("sh", ["-c", `exec 9>>"${volume}/.home-fence"; flock 9; sleep 600`], { detached: true, stdio: "ignore" });
  const free = () => spawnSync("flock", ["-n", path.join(volume, ".home-fence"), "true"]).status === 0;
  while (free()) await sleep(50);
  expect(await standby(["standby"], { LOCK_SECONDS: "2" })).toMatchObject({ code: 1, output: expect.stringMatching(/still writes to this volume/) });
  expect(content(volume).size).toBe(0);
  killHard(holder);
  await followed();
  expect(content(volume)).toEqual(content(home.home));
});
