import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { agentPod, type AgentSettings, type AgentTemplate } from "../../components/jenkins-master/agents";
import { cacheKeeperScript } from "../../components/jenkins-master/cache";
import { gitFolders, gitKeeperScript, gitScript } from "../../components/jenkins-master/git-cache";

/** Mirrors of git on a node, with the real git. */

jest.setTimeout(300_000);

let root: string;
let keeping: ChildProcess | undefined;
const at = (...rest: string[]) => path.join(root, ...rest);
const mirrors = () => at("git/agents/mirrors");
const offers = () => at("git/agents/offers");

interface Ran {
  code: number | null;
  out: string;
  err: string;
}
function run(program: string, args: string[], { cwd = root, env = {} }: { cwd?: string; env?: Record<string, string> } = {}): Ran {
  const plain = { PATH: process.env.PATH!, HOME: at("home"), GIT_CONFIG_NOSYSTEM: "1" };
  const { status, stdout, stderr } = spawnSync(program, args, { cwd, env: { ...plain, ...env }, encoding: "utf8" });
  return { code: status, out: stdout, err: stderr };
}
function ok(result: Ran): string {
  if (result.code !== 0) throw new Error(`${result.code}: ${result.err}`);
  return result.out.trim();
}
/** The image's git. */
const git = (cwd: string, ...args: string[]) => ok(run("git", args, { cwd: at(cwd) }));
/** The git that a build finds. */
const build = (cwd: string, args: string[], env: Record<string, string> = {}) =>
  run("git", args, { cwd: at(cwd), env: { PATH: `${at("sbin")}:${process.env.PATH}`, GIT_MIRRORS: mirrors(), GIT_MIRROR_OFFERS: offers(), ...env } });

async function until(what: string, probe: () => boolean): Promise<void> {
  const end = Date.now() + 120_000;
  while (!probe()) {
    if (Date.now() > end) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function keeper(maxKib = 1_000_000): void {
  keeping = spawn("bash", ["-c", gitKeeperScript], { detached: true, stdio: ["ignore", "ignore", "inherit"], env: { PATH: process.env.PATH, CACHE: at("git"), MAX_KIB: String(maxKib), INTERVAL: "0.1" } });
}
async function endKeeper(): Promise<void> {
  if (keeping?.pid === undefined) return;
  const ended = new Promise((resolve) => keeping!.once("exit", resolve));
  process.kill(-keeping.pid, "SIGKILL");
  await ended;
  keeping = undefined;
}
const generations = () => (fs.existsSync(mirrors()) ? fs.readdirSync(mirrors()) : []).map((name) => path.join(mirrors(), name, "current")).filter((current) => fs.existsSync(current)).map((current) => fs.readlinkSync(current, "utf8"));
/** What builds offered is in the mirrors: a new generation beyond those that were there. */
const taken = (before: string[] = []) => until("a new generation", () => fs.readdirSync(offers()).length === 0 && generations().some((each) => !before.includes(each)));

function commit(repository: string, file: string, text: string): void {
  fs.writeFileSync(at(repository, file), text);
  git(repository, "add", ".");
  git(repository, "commit", "-qm", file);
}

const url = "https://git.example.com/team/app.git";
const withLogin = "https://me:s3cret@git.example.com/team/app";

beforeEach(() => {
  root = fs.mkdtempSync(path.join(os.tmpdir(), "git-cache-"));
  for (const folder of ["home", "sbin", "team", "git/agents/mirrors", "git/agents/offers", "git/agents/work"]) fs.mkdirSync(at(folder), { recursive: true });
  fs.writeFileSync(at("sbin/git"), gitScript, { mode: 0o755 });
  const lead = (from: string) => `[url "file://${root}/team/"]\n\tinsteadOf = ${from}\n`;
  fs.writeFileSync(at("home/.gitconfig"), `[user]\n\tname = a\n\temail = a@example.com\n[init]\n\tdefaultBranch = main\n[protocol "file"]\n\tallow = always\n${lead("https://git.example.com/team/")}${lead("https://me:s3cret@git.example.com/team/")}`);
  git("", "init", "-q", "source");
  for (let i = 0; i < 5; i++) commit("source", `file-${i}`, `content ${i}`.repeat(100));
  git("", "clone", "-q", "--bare", "source", "team/app.git");
  git("source", "remote", "add", "origin", at("team/app.git"));
});
afterEach(async () => {
  await endKeeper();
  fs.rmSync(root, { recursive: true, force: true });
});

/** The mirror has what was there; the server has a commit more. */
async function oneCommitBehind(): Promise<void> {
  keeper();
  ok(build("", ["clone", "-q", withLogin, "first"]));
  await taken();
  commit("source", "new", "new");
  git("source", "tag", "v1");
  git("source", "push", "-q", "origin", "main", "v1");
}
/** Objects that the server sent. */
const received = (err: string) => /remote: Total (\d+) /.exec(err)?.[1];
/** The repository is whole, with all of the server's commits, and without any of the node's folder. */
async function wholeWithoutMirror(repository: string): Promise<void> {
  await endKeeper();
  fs.rmSync(at("git"), { recursive: true });
  git(repository, "fsck", "--full", "--strict");
  expect(fs.existsSync(at(repository, ".git/objects/info/alternates"))).toBe(false);
  expect(git(repository, "rev-list", "--count", "origin/main")).toBe("6");
  expect(fs.readFileSync(at(repository, "new"), "utf8")).toBe("new");
}

test("a clone takes from the server what the mirror has not, and is whole without it", async () => {
  await oneCommitBehind();
  const { code, err } = build("", ["clone", "--progress", url, "second"]);
  expect([code, received(err)]).toEqual([0, "3"]);
  expect(git("second", "config", "remote.origin.url")).toBe(url);
  await wholeWithoutMirror("second");
});

test("so does Jenkins' git plugin", async () => {
  await oneCommitBehind();
  git("", "init", "-q", "workspace");
  const { code, err } = build("workspace", ["fetch", "--tags", "--force", "--progress", "--", url, "+refs/heads/*:refs/remotes/origin/*"]);
  expect([code, received(err)]).toEqual([0, "3"]);
  git("workspace", "checkout", "-qf", git("workspace", "rev-parse", "origin/main"));
  expect(git("workspace", "describe", "--tags")).toBe("v1");
  await wholeWithoutMirror("workspace");
});

test("no log-in of an address is kept, and what one fetched is found under the same address without it", async () => {
  await oneCommitBehind();
  expect(fs.readdirSync(mirrors())).toHaveLength(1);
  expect(run("grep", ["-r", "s3cret", at("git")])).toMatchObject({ code: 1, out: "" });
  const before = generations();
  ok(build("", ["clone", "-q", url, "second"]));
  await taken(before);
  expect(fs.readdirSync(mirrors())).toHaveLength(1);
});

test("what a build did not fetch, or has for itself, is not offered, and nothing new makes no generation", async () => {
  await oneCommitBehind();
  const before = generations();
  ok(build("", ["clone", "-q", url, "second"]));
  await taken(before);
  commit("second", "secret", "of this build");
  const now = generations();
  ok(build("second", ["fetch", "-q"]));
  ok(build("", ["clone", "-q", url, "third"]));
  await until("the offers to be gone", () => fs.readdirSync(offers()).length === 0);
  expect(generations()).toEqual(now);
  const [name] = fs.readdirSync(mirrors());
  expect(run("git", ["--git-dir", path.join(mirrors(), name, "repo.git"), "cat-file", "-e", git("second", "rev-parse", "HEAD")]).code).not.toBe(0);
});

test("shallow, partial and bare clones, submodules, pushes and mistakes are as without a mirror", async () => {
  await oneCommitBehind();
  ok(build("", ["clone", "-q", "--depth=1", url, "shallow"]));
  expect(git("shallow", "rev-list", "--count", "HEAD")).toBe("1");
  ok(build("", ["clone", "-q", "--bare", url, "bare"]));
  expect(run("git", ["-C", at("bare"), "rev-list", "--count", "main"]).out.trim()).toBe("6");
  git("", "init", "-q", "outer");
  ok(build("outer", ["submodule", "--quiet", "add", url, "inner"]));
  git("outer", "commit", "-qm", "inner");
  git("", "clone", "-q", "--bare", "outer", "team/outer.git");
  ok(build("", ["clone", "-q", "--recurse-submodules", "https://git.example.com/team/outer.git", "both"]));
  expect(fs.readFileSync(at("both/inner/new"), "utf8")).toBe("new");
  ok(build("", ["clone", "-q", url, "pusher"]));
  commit("pusher", "pushed", "pushed");
  ok(build("pusher", ["push", "-q", "origin", "HEAD"]));
  expect(git("team/app.git", "rev-list", "--count", "main")).toBe("7");
  const wrong = ["clone", "-q", "https://git.example.com/team/none.git", "none"];
  const [ours, plain] = [build("", wrong), run("git", wrong)];
  expect(ours).toEqual(plain);
  expect(ours.code).toBe(128);
  for (const words of [["--version"], ["-c", "a.b=c", "config", "a.b"], ["nonsense"], []]) expect(build("source", words)).toEqual(run("git", words, { cwd: at("source") }));
});

test.each([["clone", ["clone", "-q", url, "second"]], ["fetch", ["fetch", "-q", "--", url, "+refs/heads/*:refs/remotes/origin/*"]]])("a mirror that is deleted as git begins to %s does no harm", async (what, args) => {
  await oneCommitBehind();
  await endKeeper();
  fs.mkdirSync(at("image"));
  // The image's git, which comes second in PATH: the mirror goes before it starts what it is asked for.
  fs.writeFileSync(at("image/git"), `#!/bin/sh\nif [ "$1" = ${what} ]; then rm -rf ${mirrors()}; fi\nexec ${run("which", ["git"]).out.trim()} "$@"\n`, { mode: 0o755 });
  if (what === "fetch") git("", "init", "-q", "second");
  ok(build(what === "fetch" ? "second" : "", args, { PATH: `${at("sbin")}:${at("image")}:${process.env.PATH}` }));
  expect(fs.existsSync(mirrors())).toBe(false);
  git("second", "checkout", "-q", "origin/main");
  await wholeWithoutMirror("second");
});

test("of hostile offers nothing is taken, and nothing outside is touched", async () => {
  await oneCommitBehind();
  await endKeeper();
  const [name] = fs.readdirSync(mirrors());
  const now = generations();
  fs.writeFileSync(at("outside"), "outside");
  git("source", "bundle", "create", at("good"), "--remotes=origin");
  const bytes = fs.readFileSync(at("good"));
  // An object with other content than its name says: git computes the name of what it unpacks, and the commits ask for another.
  const changed = Buffer.from(bytes);
  changed[changed.length - 100] ^= 1;
  fs.writeFileSync(path.join(offers(), `${name}-changed`), changed);
  fs.writeFileSync(path.join(offers(), `${name}-junk`), "junk");
  fs.writeFileSync(path.join(offers(), "x-name"), bytes);
  // Another group's mirror, which git would follow.
  git("", "clone", "-q", "--mirror", "source", "git/others.git");
  fs.writeFileSync(path.join(offers(), `${"a".repeat(40)}-gitfile`), `gitdir: ${at("git/others.git")}\n`);
  fs.symlinkSync(at("outside"), path.join(offers(), `${name}-link`));
  fs.mkdirSync(path.join(offers(), `${name}-folder/shut`), { recursive: true });
  fs.writeFileSync(path.join(offers(), `${name}-folder/shut/file`), "");
  fs.chmodSync(path.join(offers(), `${name}-folder/shut`), 0);
  keeper();
  await until("the offers to be gone", () => fs.readdirSync(offers()).length === 0);
  expect(generations()).toEqual(now);
  expect(fs.readdirSync(path.join(mirrors(), name, "repo.git/objects/pack")).filter((file) => /^\.?tmp/.test(file))).toEqual([]);
  expect(fs.readFileSync(at("outside"), "utf8")).toBe("outside");
  expect(fs.readdirSync(mirrors())).toEqual([name]);
});

test("above the bound the mirror goes that was used longest ago, but not under a clone that began", async () => {
  await oneCommitBehind();
  await endKeeper();
  const [name] = fs.readdirSync(mirrors());
  const held = spawn("flock", ["-s", path.join(mirrors(), name, "current/.in-use"), "sleep", "100"], { detached: true });
  keeper(1);
  await new Promise((resolve) => setTimeout(resolve, 1500));
  expect(fs.readdirSync(mirrors())).toEqual([name]);
  process.kill(-held.pid!, "SIGKILL");
  await until("the mirror to go", () => fs.readdirSync(mirrors()).length === 0);
});

/** Another repository with mirror of its own. */
const other = "https://git.example.com/team/other.git";
function otherRepository(): void {
  git("", "init", "-q", "source-2");
  for (let i = 0; i < 3; i++) commit("source-2", `other-${i}`, `other ${i}`);
  git("", "clone", "-q", "--bare", "source-2", "team/other.git");
}
const refs = (mirror: string) => git("", "--git-dir", path.join(mirrors(), mirror, "repo.git"), "for-each-ref", "--format=%(refname)").split("\n");

test("a branch that was deleted and became a folder, and a folder that became a branch, do not stop the mirror", async () => {
  await oneCommitBehind();
  const [name] = fs.readdirSync(mirrors());
  const offered = async (branch: string, deleted?: string) => {
    const file = `${branch}-${deleted}`.replaceAll("/", "-");
    if (deleted) git("source", "push", "-q", "origin", "--delete", deleted);
    commit("source", file, file);
    git("source", "push", "-q", "origin", `HEAD:refs/heads/${branch}`);
    const before = generations();
    ok(build("", ["clone", "-q", url, `clone-${file}`]));
    await taken(before);
    return refs(name).filter((ref) => ref.includes("feature"));
  };
  expect(await offered("feature")).toEqual(["refs/remotes/origin/feature"]);
  expect(await offered("feature/x/y", "feature")).toEqual(["refs/remotes/origin/feature/x/y"]);
  expect(await offered("feature", "feature/x/y")).toEqual(["refs/remotes/origin/feature"]);
  expect(refs(name)).toContain("refs/remotes/origin/main");
});

test.each<[string, (repository: string) => void]>([
  ["its head", (repository) => fs.rmSync(path.join(repository, "HEAD"))],
  ["its objects", (repository) => fs.rmSync(path.join(repository, "objects/pack"), { recursive: true })],
])("a mirror of which %s was deleted as the keeper wrote is begun anew", async (_, breakIt) => {
  await oneCommitBehind();
  breakIt(path.join(mirrors(), fs.readdirSync(mirrors())[0], "repo.git"));
  const whole = async (name: string) => {
    ok(build("", ["clone", "-q", url, name]));
    await until("the offer to be taken", () => fs.readdirSync(offers()).filter((each) => !each.endsWith("-used")).length === 0);
    git(name, "fsck", "--full", "--strict");
  };
  // Its offer lies upon what the mirror had; the next one is all of it.
  await whole("second");
  await until("the broken mirror to be gone", () => generations().length === 0);
  await whole("third");
  await until("a mirror", () => generations().length === 1);
  const { err } = build("", ["clone", "--progress", url, "fourth"]);
  expect(received(err)).toBeUndefined();
});

test("above the bound the one stays that a clone began with last, though it is the older one", async () => {
  otherRepository();
  await oneCommitBehind();
  const [first] = fs.readdirSync(mirrors());
  const before = generations();
  ok(build("", ["clone", "-q", other, "other"]));
  await taken(before);
  await endKeeper();
  const second = fs.readdirSync(mirrors()).find((each) => each !== first)!;
  // As long ago as may be: reading from a read-only mount moves no time, so that the agents' word alone counts.
  for (const [each, seconds] of [[first, 1000], [second, 2000]] as const) fs.utimesSync(path.join(mirrors(), each, "current/.in-use"), seconds, seconds);
  ok(build("", ["clone", "-q", url, "third"]));
  await until("the word that it is used", () => fs.existsSync(path.join(offers(), `${first}-used`)));
  await until("the offer", () => fs.readdirSync(offers()).every((each) => !each.startsWith(".")));
  const kib = Number(ok(run("du", ["-skc", ...fs.readdirSync(mirrors()).map((each) => path.join(mirrors(), each))])).split("\n").pop()!.split("\t")[0]);
  fs.rmSync(offers(), { recursive: true });
  fs.mkdirSync(path.join(offers(), `${first}-used`), { recursive: true });
  keeper(kib - 8);
  await until("a mirror to go", () => fs.readdirSync(mirrors()).length === 1);
  expect(fs.readdirSync(mirrors())).toEqual([first]);
});

test("a proxy's address with a log-in, said by -c, is no repository's", async () => {
  otherRepository();
  await oneCommitBehind();
  for (const [i, address] of [url, other].entries()) {
    const before = generations();
    ok(build("", ["-c", "http.proxy=http://u:p@proxy.example.com:3128", "clone", "-q", "-c", "a.b=u:p@proxy.example.com:x", address, `proxied-${i}`]));
    await taken(before);
  }
  const names = [url, other].map((address) => createHash("sha256").update(address.replace(/\.git$/, "")).digest("hex").slice(0, 40));
  expect(fs.readdirSync(mirrors()).sort()).toEqual(names.sort());
});

test("offers hold neither a build's own tags nor what came from another address", async () => {
  otherRepository();
  await oneCommitBehind();
  const before = generations();
  ok(build("", ["clone", "-q", url, "second"]));
  await taken(before);
  const [name] = fs.readdirSync(mirrors());
  expect(refs(name)).toContain("refs/tags/v1");
  commit("second", "own", "own");
  git("second", "tag", "own");
  ok(build("second", ["fetch", "-q", other, "+refs/heads/*:refs/remotes/origin/of-other/*"]));
  commit("source", "newer", "newer");
  git("source", "push", "-q", "origin", "main");
  const now = generations();
  git("second", "update-ref", "-d", "refs/remotes/origin/of-other/main");
  ok(build("second", ["fetch", "-q"]));
  await taken(now);
  expect(fs.readdirSync(mirrors())).toEqual([name]);
  expect(refs(name).filter((ref) => /own|other/.test(ref))).toEqual([]);
});

test("who ends the script ends git", async () => {
  await oneCommitBehind();
  fs.mkdirSync(at("image"));
  const real = run("which", ["git"]).out.trim();
  fs.writeFileSync(at("image/git"), `#!/bin/sh\nif [ "$1" = clone ]; then echo $$ >${at("pid")}; exec sleep 100; fi\nexec ${real} "$@"\n`, { mode: 0o755 });
  const child = spawn(at("sbin/git"), ["clone", "-q", url, "second"], { cwd: root, stdio: "ignore", env: { HOME: at("home"), PATH: `${at("sbin")}:${at("image")}:${process.env.PATH}`, GIT_MIRRORS: mirrors(), GIT_MIRROR_OFFERS: offers() } });
  await until("git", () => fs.existsSync(at("pid")) && fs.readFileSync(at("pid"), "utf8").endsWith("\n"));
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  expect(await ended).toBe(143);
  expect(() => process.kill(Number(fs.readFileSync(at("pid"), "utf8")), 0)).toThrow("ESRCH");
});

test("the scripts are shell, and agents have them where git is in their caches alone", () => {
  for (const [shell, script] of [["sh", gitScript], ["bash", gitKeeperScript], ["sh", cacheKeeperScript([], ["git/agents/work"])]]) expect(spawnSync(shell, ["-n", "-c", script])).toMatchObject({ status: 0 });
  const template: AgentTemplate = {
    name: "a", label: "a", image: "i", docker: "none", caches: ["git"], cacheGroup: "team", resources: {}, dockerResources: {}, cap: 1, idleMinutes: 0, podRetention: "never",
    connectTimeoutSeconds: 60, activeDeadlineSeconds: 0, nodeSelector: {}, tolerations: [], spread: false, unlabelled: true, env: {}, volumes: [],
  };
  const settings: AgentSettings = { dindImage: "", buildkitImage: "", insecureRegistries: [], cachePath: "/cache" };
  interface Spec { containers: { volumeMounts: { mountPath: string; readOnly?: boolean }[] }[]; volumes: object[] }
  const spec = (caches: AgentTemplate["caches"]) => (agentPod({ ...template, caches }, settings) as { spec: Spec }).spec;
  const [{ volumeMounts }] = spec(["git"]).containers;
  expect(volumeMounts.filter(({ readOnly }) => readOnly).map(({ mountPath }) => mountPath)).toEqual(["/var/cache/build-platform/git", "/usr/local/sbin/git"]);
  expect(spec(["git"]).volumes).toContainEqual({ name: "cache-git", hostPath: { path: "/cache/git/team/mirrors", type: "DirectoryOrCreate" } });
  expect(JSON.stringify(spec([]))).not.toContain("git");
  expect(gitFolders([template, { caches: ["maven"] }])).toEqual(["git/team/mirrors", "git/team/offers", "git/team/work"]);
});
