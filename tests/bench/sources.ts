import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { gitFolders, gitKeeperScript, gitScript } from "../../components/jenkins-master/git-cache";
import { run, waitFor } from "../../sandbox/shell";
import { middle, saveBench, seconds } from "./table";

/**
 * Sources of a fresh agent on a node that has a mirror of them, beside a clone of a repository on this machine's disk: by `git clone`,
 * and as Jenkins' git plugin does (init, fetch, checkout). With the script and the keeper that agents and nodes have, and git's own
 * server. BENCH_ROUNDS and BENCH_MIB make a short trial of it.
 */
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 5);
const MIB = Number(process.env.BENCH_MIB ?? 1024);
/** Bytes of each file: a repository of binaries would have fewer and larger ones, one of sources more and smaller. */
const FILE = 64 * 1024;
const PORT = 19418;

async function main(): Promise<void> {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "bench-sources-"));
  const at = (...rest: string[]) => path.join(root, ...rest);
  const children: ChildProcess[] = [];
  const start = (program: string, args: string[], env: NodeJS.ProcessEnv = {}) => children.push(spawn(program, args, { detached: true, stdio: "ignore", env: { PATH: process.env.PATH, ...env } }));
  try {
    // Content that no compression and no delta makes smaller, so that the size is the size.
    await run("git", ["init", "-q", "--bare", "-b", "main", at("repo.git")]);
    const importer = spawn("git", ["-C", at("repo.git"), "fast-import", "--quiet"], { stdio: ["pipe", "inherit", "inherit"] });
    const imported = new Promise((resolve) => importer.once("close", resolve));
    const write = async (part: string | Buffer) => void (importer.stdin.write(part) || (await new Promise((resolve) => importer.stdin.once("drain", resolve))));
    await write("commit refs/heads/main\ncommitter a <a@b> 1700000000 +0000\ndata 3\none\n");
    for (let i = 0; i < (MIB * 2 ** 20) / FILE; i++) {
      await write(`M 644 inline ${i % 100}/${i}\ndata ${FILE}\n`);
      await write(randomBytes(FILE));
      await write("\n");
    }
    importer.stdin.end();
    if ((await imported) !== 0) throw new Error("git fast-import did not take the repository");
    const tip = (await run("git", ["-C", at("repo.git"), "rev-parse", "main"])).stdout.trim();

    fs.mkdirSync(at("sbin"));
    fs.writeFileSync(at("sbin/git"), gitScript, { mode: 0o755 });
    for (const folder of gitFolders([{ caches: ["git"] }])) fs.mkdirSync(at(folder), { recursive: true });
    const [mirrors, offers] = ["mirrors", "offers"].map((each) => at("git/agents", each));
    start("git", ["daemon", "--export-all", "--listen=127.0.0.1", `--port=${PORT}`, `--base-path=${root}`]);
    start("bash", ["-c", gitKeeperScript], { CACHE: at("git"), MAX_KIB: String(MIB * 4096), INTERVAL: "0.5" });
    const url = `git://127.0.0.1:${PORT}/repo.git`;
    const mirrored = { GIT_MIRRORS: mirrors, GIT_MIRROR_OFFERS: offers, PATH: `${at("sbin")}:${process.env.PATH}` };
    const workspace = at("workspace");
    const git = (env: NodeJS.ProcessEnv, cwd: string, ...words: string[]) => run("git", words, { cwd, env: { ...process.env, ...env } });
    const clone = (env: NodeJS.ProcessEnv, from: string, ...further: string[]) => git(env, root, "clone", "-q", ...further, from, workspace);
    const plugin = async (env: NodeJS.ProcessEnv, from: string) => {
      await git(env, root, "init", "-q", workspace);
      // As the plugin does, in the workspace: with -C the script hands all on.
      for (const words of [["fetch", "--tags", "--force", "--progress", "--", from, "+refs/heads/*:refs/remotes/origin/*"], ["config", "remote.origin.url", from], ["checkout", "-q", "-f", tip]]) await git(env, workspace, ...words);
    };
    /** One fresh workspace; what is written counts when it is on the disk. */
    const measured = async (work: () => Promise<unknown>): Promise<number> => {
      await run("sync", []);
      const took = await seconds(async () => {
        await work();
        await run("sync", ["-f", workspace]);
      });
      const { stdout } = await run("git", ["-C", workspace, "rev-parse", "HEAD"]);
      const files = (await run("git", ["-C", workspace, "ls-files"])).stdout.trim().split("\n").length;
      if (stdout.trim() !== tip || files !== (MIB * 2 ** 20) / FILE || fs.existsSync(path.join(workspace, ".git/objects/info/alternates"))) throw new Error("the workspace is not whole");
      fs.rmSync(workspace, { recursive: true });
      return took;
    };
    await waitFor("git's server", 30, async () => (await run("git", ["ls-remote", url], { allowFailure: true })).code === 0);
    const first = await measured(() => clone(mirrored, url));
    await waitFor("the mirror", 600, async () => fs.readdirSync(mirrors).some((name) => fs.existsSync(path.join(mirrors, name, "current"))) && fs.readdirSync(offers).length === 0);

    const ways: Record<string, () => Promise<unknown>> = {
      "git clone": () => clone(mirrored, url),
      plugin: () => plugin(mirrored, url),
      copied: () => clone({}, at("repo.git"), "--no-hardlinks"),
      linked: () => clone({}, at("repo.git")),
      server: () => clone({}, url),
    };
    const figures: Record<string, number[]> = Object.fromEntries(Object.keys(ways).map((way) => [way, []]));
    for (let round = 0; round < ROUNDS; round++) for (const [way, work] of Object.entries(ways)) figures[way].push(await measured(work));
    const [fresh, byPlugin, copied, linked, server] = Object.values(figures).map(middle);
    saveBench("sources", {
      title: "Sources of a fresh agent beside a local clone",
      ways: ["fresh agent, mirror on its node", "the other way"],
      rows: [
        { what: "git clone; local clone that copies", seconds: [fresh, copied] },
        { what: "the git plugin's checkout; local clone that copies", seconds: [byPlugin, copied] },
        { what: "git clone; from a server on this machine", seconds: [fresh, server] },
      ],
      notes: [
        `${MIB} MiB in ${(MIB * 2 ** 20) / FILE} files that no delta makes smaller, ${ROUNDS} rounds in turns, medians; each ends when its files are on the disk. Target: at most 1.2 times a local clone.`,
        `A local clone with hard links, which no pod can make between two mounts, took ${linked.toFixed(1)} s. The first clone on the node, which the mirror is made of, took ${first.toFixed(1)} s.`,
        "The server is git's own on the loopback: it costs processor here and no network. With a real network the mirror gains what it does not send.",
      ],
    }, figures);
  } finally {
    for (const child of children) process.kill(-child.pid!, "SIGKILL");
    fs.rmSync(root, { recursive: true, force: true });
  }
}

main().catch((error: Error) => {
  process.stderr.write(`bench: ${error.message}\n`);
  process.exitCode = 1;
});
