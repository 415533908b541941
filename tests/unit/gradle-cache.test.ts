import { ChildProcess, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import fc from "fast-check";
import { cacheKeeperScript, gradleAgentScript, gradleKeeperScript } from "../../components/jenkins-master/cache";

jest.setTimeout(180_000);

let root: string;
let cache: string;
let offers: string;
let running: ChildProcess[];

beforeEach(() => {
  root = fs.mkdtempSync(path.join(os.tmpdir(), "gradle-cache-"));
  [cache, offers] = [path.join(root, "gradle"), path.join(root, "gradle-offers")];
  for (const folder of [path.join(cache, "generations"), offers]) fs.mkdirSync(folder, { recursive: true });
  running = [];
});
afterEach(async () => {
  await Promise.all(running.map((child) => stop(child, "SIGKILL")));
  fs.rmSync(root, { recursive: true, force: true });
});

function start(script: string, env: Record<string, string>): ChildProcess {
  // A group of its own: what the script waits in goes with it.
  const child = spawn("bash", ["-c", script], { stdio: ["ignore", "pipe", "inherit"], detached: true, env: { PATH: process.env.PATH, CACHE: cache, OFFERS: offers, ...env } });
  running.push(child);
  return child;
}

async function stop(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  const ended = child.exitCode !== null || child.signalCode !== null ? undefined : new Promise((resolve) => child.on("exit", resolve));
  try {
    if (signal === "SIGKILL") process.kill(-child.pid!, signal);
    else child.kill(signal);
  } catch {
    // It has ended, and all its children.
  }
  await ended;
}

async function until(what: string, probe: () => boolean): Promise<void> {
  const end = Date.now() + 60_000;
  while (!probe()) {
    if (Date.now() > end) throw new Error(`not within a minute: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const keeper = () => start(gradleKeeperScript, { INTERVAL: "0.1" });
const home = (pod: string) => path.join(root, "homes", pod);
const modules = (pod: string) => path.join(home(pod), "caches/modules-2");
const current = () => path.join(cache, "current/modules-2");
const exists = (file: string) => fs.lstatSync(file, { throwIfNoEntry: false }) !== undefined;

/** An agent's sidecar, started and with the home filled. */
async function agent(pod: string): Promise<ChildProcess> {
  fs.mkdirSync(home(pod), { recursive: true });
  const child = start(gradleAgentScript, { GRADLE_USER_HOME: home(pod), POD: pod });
  await until(`the home of ${pod}`, () => exists(path.join(home(pod), ".filled")));
  return child;
}

function write(file: string, text: string): void {
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, text);
}

const sha1 = (text: string) => createHash("sha1").update(text).digest("hex");
/** The place that Gradle gives an artifact: its checksum without leading zeros. */
const place = (module: string, text: string) => `files-2.1/org.example/${module}/1.0/${sha1(text).replace(/^0+/, "")}/${module}-1.0.jar`;

/** What Gradle does in a build that downloads one artifact. */
function download(pod: string, module: string, text: string): string {
  const file = place(module, text);
  write(path.join(modules(pod), file), text);
  write(path.join(modules(pod), "modules-2.lock"), "locked");
  const metadata = path.join(modules(pod), "metadata-2.106/module-artifact.bin");
  write(metadata, `${exists(metadata) ? fs.readFileSync(metadata, "utf8") : ""}${module};`);
  return file;
}

async function offered(child: ChildProcess, pod: string): Promise<void> {
  await stop(child, "SIGTERM");
  await until(`the offer of ${pod} to be taken`, () => fs.readdirSync(offers).length === 0);
}

test("what one agent downloads, the next one has, as links, with the metadata as files of its own", async () => {
  keeper();
  const first = await agent("first");
  expect(fs.readdirSync(modules("first"))).toEqual([]);
  const file = download("first", "a", "content of a");
  await offered(first, "first");
  expect(fs.readFileSync(path.join(current(), file), "utf8")).toBe("content of a");
  expect(exists(path.join(current(), "modules-2.lock"))).toBe(false);

  const second = await agent("second");
  expect(fs.lstatSync(path.join(modules("second"), file)).isSymbolicLink()).toBe(true);
  expect(fs.readFileSync(path.join(modules("second"), file), "utf8")).toBe("content of a");
  expect(fs.lstatSync(path.join(modules("second"), "metadata-2.106/module-artifact.bin")).isFile()).toBe(true);
  const other = download("second", "b", "content of b");
  // Its own metadata changed, the shared one did not.
  expect(fs.readFileSync(path.join(current(), "metadata-2.106/module-artifact.bin"), "utf8")).toBe("a;");
  await offered(second, "second");
  for (const each of [file, other]) expect(exists(path.join(current(), each))).toBe(true);
  expect(fs.readFileSync(path.join(current(), "metadata-2.106/module-artifact.bin"), "utf8")).toBe("a;b;");
});

test("two agents at once: both artifacts stay, and the metadata are one agent's, whole", async () => {
  keeper();
  const [first, second] = [await agent("first"), await agent("second")];
  const files = [download("first", "a", "a"), download("second", "b", "b")];
  await Promise.all([offered(first, "first"), offered(second, "second")]);
  for (const file of files) expect(exists(path.join(current(), file))).toBe(true);
  expect(["a;", "b;"]).toContain(fs.readFileSync(path.join(current(), "metadata-2.106/module-artifact.bin"), "utf8"));
});

test("an agent keeps the generation it began with until it ends, however it ends; then that goes", async () => {
  keeper();
  const first = await agent("first");
  const file = download("first", "a", "a");
  await offered(first, "first");
  const reader = await agent("reader");
  const target = fs.readlinkSync(path.join(modules("reader"), file));
  for (const module of ["b", "c"]) {
    const writer = await agent(`writer-${module}`);
    download(`writer-${module}`, module, module);
    await offered(writer, `writer-${module}`);
  }
  expect(fs.readlinkSync(path.join(cache, "current"))).not.toBe(path.relative(cache, target).split("/").slice(0, 2).join("/"));
  await new Promise((resolve) => setTimeout(resolve, 1000));
  expect(fs.readFileSync(target, "utf8")).toBe("a");
  await stop(reader, "SIGKILL");
  await until("all generations but the newest to go", () => fs.readdirSync(path.join(cache, "generations")).length === 1);
});

test("an agent that brought nothing offers nothing", async () => {
  keeper();
  const first = await agent("first");
  download("first", "a", "a");
  await offered(first, "first");
  const generation = fs.readlinkSync(path.join(cache, "current"));
  const second = await agent("second");
  await stop(second, "SIGTERM");
  await new Promise((resolve) => setTimeout(resolve, 500));
  expect(fs.readlinkSync(path.join(cache, "current"))).toBe(generation);
});

test("an agent without a cache starts with an empty home, and a keeper that is killed in its work goes on with whole generations", async () => {
  const first = await agent("first");
  for (let i = 0; i < 50; i++) download("first", `m${i}`, `content ${i}`);
  await stop(first, "SIGTERM");
  expect(fs.readdirSync(offers)).toEqual(["first"]);
  const killed = keeper();
  await until("a generation to be begun", () => fs.readdirSync(path.join(cache, "generations")).length > 0);
  await stop(killed, "SIGKILL");
  const whole = () => exists(path.join(cache, "current")) && fs.readdirSync(path.join(current(), "files-2.1/org.example")).length;
  // Either not yet in force, or whole.
  expect([false, 50]).toContain(whole());
  keeper();
  await until("the offer to be taken", () => fs.readdirSync(offers).length === 0);
  expect(whole()).toBe(50);
});

test("whatever an agent's build left, only artifacts that are what their folder says get into the cache, and nothing gets out of it", async () => {
  const names = fc.oneof(fc.constantFrom("..", "-rf", "$(touch pwned)", "a b", " ", "\n", "*", "'", '"', "\\"), fc.stringMatching(/^[a-z.]{1,6}$/)).filter((name) => name !== ".." && name !== ".");
  const entry = fc.record({
    path: fc.array(names, { minLength: 1, maxLength: 5 }),
    kind: fc.constantFrom("file", "good", "link", "folder-link", "fifo"),
    text: fc.string({ maxLength: 20 }),
    top: fc.constantFrom("files-2.1", "metadata-2.106", "elsewhere", "."),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(entry, { minLength: 1, maxLength: 8 }), async (entries) => {
      fs.rmSync(root, { recursive: true, force: true });
      for (const folder of [path.join(cache, "generations"), path.join(offers, "hostile")]) fs.mkdirSync(folder, { recursive: true });
      const outside = path.join(root, "outside");
      write(path.join(outside, "secret"), "secret");
      let goods = 0;
      for (const { path: parts, kind, text, top } of entries) {
        const file = kind === "good" ? path.join(offers, "hostile", place(`m${goods++}`, text)) : path.join(offers, "hostile", top, ...parts);
        // What lies behind a folder's link is not of the offer: the test itself would write outside.
        if (parts.some((_, i) => fs.lstatSync(path.join(offers, "hostile", top, ...parts.slice(0, i)), { throwIfNoEntry: false })?.isSymbolicLink())) continue;
        try {
          fs.mkdirSync(path.dirname(file), { recursive: true });
          if (kind === "file" || kind === "good") fs.writeFileSync(file, text);
          else if (kind === "fifo") spawnSync("mkfifo", ["--", file]);
          else fs.symlinkSync(kind === "link" ? path.join(outside, "secret") : outside, file);
        } catch {
          // Two entries in each other's way.
          if (kind === "good") goods--;
        }
      }
      const child = keeper();
      await until("the offer to be taken", () => fs.readdirSync(offers).length === 0 && exists(path.join(cache, "current")));
      await stop(child, "SIGKILL");
      const found: string[] = [];
      const walk = (folder: string) => {
        for (const each of fs.readdirSync(folder, { withFileTypes: true })) {
          const at = path.join(folder, each.name);
          if (each.isDirectory()) walk(at);
          else {
            expect(each.isFile()).toBe(true);
            found.push(path.relative(current(), at));
          }
        }
      };
      walk(fs.realpathSync(current()));
      const real = fs.realpathSync(current());
      for (const file of found.map((each) => path.relative(real, path.resolve(current(), each)))) {
        if (!file.startsWith("files-2.1/")) expect(file).toMatch(/^metadata-/);
        else expect(sha1(fs.readFileSync(path.join(real, file), "latin1") && fs.readFileSync(path.join(real, file), "utf8")).replace(/^0+/, "")).toBe(path.basename(path.dirname(file)).replace(/^0+/, ""));
        expect(fs.readFileSync(path.join(real, file), "utf8")).not.toBe("secret");
      }
      expect(fs.readdirSync(outside)).toEqual(["secret"]);
      expect(fs.readFileSync(path.join(outside, "secret"), "utf8")).toBe("secret");
      expect(fs.readdirSync(root).sort()).toEqual(["gradle", "gradle-offers", "outside"]);
    }),
    { numRuns: 25 },
  );
});

test("where the folder of the caches is a disk that holds other things as well, the keeper counts and deletes its own alone", async () => {
  const old = (file: string, kib: number) => {
    fs.mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
    fs.writeFileSync(path.join(root, file), Buffer.alloc(kib * 1024, 1));
    fs.utimesSync(path.join(root, file), new Date(0), new Date(0));
  };
  for (const [file, kib] of [["lost/photos.tar", 4000], ["maven/repository/a/a.jar", 10], ["maven/repository/b/b.jar", 10]] as const) old(file, kib);
  const keep = (maxKib: number) => start(cacheKeeperScript(), { CACHE: root, MAX_KIB: String(maxKib), OWNER: String(process.getuid!()) });
  const small = keep(2000);
  await until("the keeper waits", () => spawnSync("pgrep", ["-P", String(small.pid), "sleep"]).status === 0);
  expect(exists(path.join(root, "maven/repository/a/a.jar"))).toBe(true);
  await stop(small, "SIGKILL");
  keep(1);
  await until("the artifacts are deleted", () => !exists(path.join(root, "maven/repository/b")));
  expect(exists(path.join(root, "lost/photos.tar"))).toBe(true);
});
