import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as http from "node:http";
import type { AddressInfo } from "node:net";
import * as os from "node:os";
import * as path from "node:path";
import { agentPod, cacheMount, type AgentTemplate, type CachedTool } from "../../components/jenkins-master/agents";
import { toolFolders, type DownloadTool } from "../../components/jenkins-master/tool-cache";
import { installPackages } from "../../sandbox/cluster/packages";
import { run } from "../../sandbox/shell";

/** Caches that agents share, with the real tools and their registries: each agent with the environment and the mounts of its pod. */

jest.setTimeout(1_800_000);

interface Spec {
  containers: { env: { name: string; value: string }[]; volumeMounts: { name: string; mountPath: string; subPath?: string }[] }[];
  volumes: { name: string; hostPath?: { path: string } }[];
}

/** The build container and the volumes of an agent that caches what one tool downloads. */
function podOf(tool: CachedTool, cachePath: string): Spec {
  const template: AgentTemplate = {
    name: "a", label: "a", image: "agent", docker: "none", caches: [tool], resources: {}, dockerResources: {}, cap: 1, idleMinutes: 0, podRetention: "never",
    connectTimeoutSeconds: 60, activeDeadlineSeconds: 0, nodeSelector: {}, tolerations: [], spread: false, unlabelled: true, env: {}, volumes: [],
  };
  return (agentPod(template, { dindImage: "", buildkitImage: "", insecureRegistries: [], cachePath }) as { spec: Spec }).spec;
}

const root = fs.mkdtempSync(path.join(os.tmpdir(), "tool-caches-"));
const jars = path.join(root, "jars");

/** An index of one wheel that says of its answers, as PyPI does and not every mirror, how long they hold: else pip keeps none. */
const wheel = "networkx-3.2.1-py3-none-any.whl";
const index = http.createServer((request, response) => {
  const content = fs.readFileSync(path.join(root, wheel));
  if (request.url === `/${wheel}`) response.writeHead(200, { "content-type": "application/octet-stream", "cache-control": "max-age=365000000, immutable, public" }).end(content);
  else response.writeHead(200, { "content-type": "text/html", "cache-control": "max-age=600, public", etag: '"1"' }).end(`<a href="/${wheel}#sha256=${createHash("sha256").update(content).digest("hex")}">${wheel}</a>`);
});
afterAll(() => {
  index.close();
  index.closeAllConnections();
  fs.rmSync(root, { recursive: true, force: true });
});

/** A build in the namespace of mounts that its container would have. */
function agent(name: string, tool: DownloadTool, node: string, script: string): ChildProcess {
  const home = path.join(root, "agents", name);
  const { containers: [{ env, volumeMounts }], volumes } = podOf(tool, node);
  const mounts = volumeMounts.filter(({ mountPath }) => mountPath.startsWith(cacheMount)).map(({ name: volume, mountPath, subPath = "" }) => {
    const from = volumes.find((each) => each.name === volume)!.hostPath?.path ?? path.join(home, volume, subPath);
    return `mkdir -p ${from} ${mountPath} && mount --bind ${from} ${mountPath}`;
  });
  fs.mkdirSync(path.join(home, "workspace"), { recursive: true });
  const setUp = [`mkdir -p ${cacheMount}`, `mount -t tmpfs none ${cacheMount}`, ...mounts, `cd ${home}/workspace`, "set -e", script].join("\n");
  const variables = Object.fromEntries(env.filter(({ name: variable }) => variable !== "JENKINS_JAVA_OPTS").map(({ name: variable, value }) => [variable, value]));
  return spawn("unshare", ["--mount", "--propagation", "private", "sh", "-c", setUp], { detached: true, stdio: ["ignore", "ignore", "pipe"], env: { ...process.env, HOME: home, GOFLAGS: "", GOTOOLCHAIN: "local", INDEX: `http://127.0.0.1:${(index.address() as AddressInfo).port}/simple`, ...variables } });
}

async function ended(child: ChildProcess): Promise<void> {
  let said = "";
  child.stderr!.on("data", (chunk: Buffer) => (said += chunk.toString()));
  const code = await new Promise((resolve) => child.once("close", resolve));
  if (code !== 0) throw new Error(`ended with ${String(code)}: ${said}`);
}

function kill(child: ChildProcess): Promise<unknown> {
  const closed = new Promise((resolve) => child.once("close", resolve));
  process.kill(-child.pid!, "SIGKILL");
  return closed;
}

const filesOf = (folder: string): string[] => fs.readdirSync(folder, { recursive: true, withFileTypes: true }).flatMap((each) => (each.isFile() ? [path.join(each.parentPath, each.name)] : []));

/** Files below a folder, by their content. */
const contents = (folder: string): Record<string, string> =>
  Object.fromEntries(filesOf(folder).sort().map((file) => [path.relative(folder, file), createHash("sha256").update(fs.readFileSync(file)).digest("hex")]));

const output = (name: string) => contents(path.join(root, "agents", name, "workspace/out"));

interface Kind {
  /** A build that leaves what it was given in `out`. */
  build: string;
  /** Files of the cache that the keeper may delete. */
  loses: RegExp;
  /** Those that a hostile build changes, how, and whether what it wrote reaches the next one; else it is noticed. */
  hostile: { files: RegExp; change: (file: string) => void; reaches: boolean };
}

/** Changes a byte and nothing that a tool might look at first: neither the size nor the times. */
function flip(file: string): void {
  const [content, { atime, mtime }] = [fs.readFileSync(file), fs.statSync(file)];
  content[Math.floor(content.length / 2)] ^= 1;
  fs.chmodSync(file, 0o644);
  fs.writeFileSync(file, content);
  fs.utimesSync(file, atime, mtime);
}

/** Adds a comment to every file of Go in a zip. */
const rewriteZip = (file: string) =>
  execFileSync("python3", ["-c", "import sys, zipfile\nold = zipfile.ZipFile(sys.argv[1])\nparts = [(i, old.read(i)) for i in old.infolist()]\nnew = zipfile.ZipFile(sys.argv[1], 'w')\nfor i, content in parts: new.writestr(i, content + (b'// hostile\\n' if i.filename.endswith('.go') else b''))\nnew.close()", file]);

// Of Jenkins' own program builds see nothing; tests/bench/agents.ts has it.
const kinds: Record<Exclude<DownloadTool, "remoting">, Kind> = {
  npm: { build: "echo '{}' >package.json; npm install --no-audit --no-fund lodash@4.17.21; cp -r node_modules/lodash out", loses: /_cacache\/content/, hostile: { files: /_cacache\/content/, change: flip, reaches: false } },
  // Each of the two kinds of store: with an index of files, and with one of SQLite's.
  pnpm: {
    build: `mkdir out; for version in 10 12; do mkdir $version; (cd $version; echo '{}' >package.json; ${root}/pnpm/$version/node_modules/.bin/pnpm add lodash@4.17.21; cp -rL node_modules/lodash ../out/$version); done`,
    loses: /pnpm\/.*files/,
    hostile: { files: /pnpm\/.*files\/..\/[^.]+$/, change: flip, reaches: true },
  },
  pip: { build: `${root}/venv/bin/pip download --index-url "$INDEX" --trusted-host 127.0.0.1 --no-deps -d out networkx==3.2.1`, loses: /http-v2/, hostile: { files: /http-v2.*\.body$/, change: flip, reaches: false } },
  go: {
    build: `printf 'module m\\ngo 1.21\\n' >go.mod
printf 'package m\\nimport "golang.org/x/exp/constraints"\\nfunc F[T constraints.Ordered](a T) T { return a }\\n' >m.go
go get golang.org/x/exp@v0.0.0-20240222234643-814bf88cf225
go build ./...
cp -r "$(go list -m -f '{{.Dir}}' golang.org/x/exp)" out; cp go.sum out/built.sum`,
    loses: /download\/.*\.(zip|mod|info|ziphash)$|build\/..\/.*-[ad]$/,
    hostile: { files: /x\/exp\/@v\/.*\.zip$/, change: rewriteZip, reaches: true },
  },
  sbt: { build: `mkdir out; java -XX:TieredStopAtLevel=1 -cp '${jars}/*:${jars}' Fetch | while read -r jar; do cp "$jar" out/; done; [ "$(ls out)" ]`, loses: /\.(jar|pom)$/, hostile: { files: /\.jar$/, change: flip, reaches: true } },
};

const fetcher = `public class Fetch {
  public static void main(String[] words) throws Exception {
    for (java.io.File file : coursierapi.Fetch.create().addDependencies(coursierapi.Dependency.of("org.apache.commons", "commons-lang3", "3.12.0")).fetch()) System.out.println(file);
  }
}
`;

beforeAll(async () => {
  await installPackages(["maven", "default-jdk-headless", "python3-venv", "util-linux"]);
  for (const version of ["10", "12"]) {
    const cwd = path.join(root, "pnpm", version);
    fs.mkdirSync(cwd, { recursive: true });
    fs.writeFileSync(path.join(cwd, "package.json"), "{}");
    await run("npm", ["install", "--no-audit", "--no-fund", `pnpm@${version}`], { cwd });
  }
  await run("python3", ["-m", "venv", path.join(root, "venv")]);
  await run(path.join(root, "venv/bin/pip"), ["install", "pip==24.3.1"]);
  await run(path.join(root, "venv/bin/pip"), ["download", "--no-deps", "-d", root, "networkx==3.2.1"]);
  await new Promise<void>((resolve) => index.listen(0, "127.0.0.1", resolve));
  for (const artifact of ["io.get-coursier:interface:1.0.28", "org.slf4j:slf4j-api:1.7.36", "org.apache.ivy:ivy:2.5.3"])
    await run("mvn", ["-q", "-B", "dependency:copy", `-Dartifact=${artifact}`, `-DoutputDirectory=${jars}`]);
  fs.writeFileSync(path.join(jars, "Fetch.java"), fetcher);
  await run("javac", ["-cp", path.join(jars, "interface-1.0.28.jar"), "-d", jars, path.join(jars, "Fetch.java")]);
});

describe.each(Object.entries(kinds) as [DownloadTool, Kind][])("%s", (tool, { build, loses, hostile }) => {
  const node = path.join(root, tool);
  const folders = toolFolders([{ caches: [tool] }]).map((folder) => path.join(node, folder));
  const files = () => folders.filter((folder) => fs.existsSync(folder)).flatMap((folder) => filesOf(folder));
  let alone: Record<string, string>;

  beforeAll(async () => {
    // What a machine of one's own gives.
    await ended(agent(`${tool}-alone`, tool, path.join(root, `${tool}-alone`), build));
    alone = output(`${tool}-alone`);
    expect(Object.keys(alone)).not.toEqual([]);
  });

  test("one is killed as it writes, and three at once have what a machine of their own gives, byte for byte", async () => {
    const victim = agent(`${tool}-killed`, tool, node, build);
    while (files().length === 0 && victim.exitCode === null) await new Promise((resolve) => setTimeout(resolve, 2));
    expect(victim.exitCode).toBeNull();
    await kill(victim);
    const names = ["first", "second", "third"].map((each) => `${tool}-${each}`);
    await Promise.all(names.map((name) => ended(agent(name, tool, node, build))));
    for (const name of names) expect(output(name)).toEqual(alone);
  });

  test("the next one has them without a download, and whatever the keeper deletes is downloaded anew", async () => {
    const before = files();
    const lost = before.filter((file) => loses.test(file));
    expect(lost).not.toEqual([]);
    await ended(agent(`${tool}-next`, tool, node, build));
    expect(output(`${tool}-next`)).toEqual(alone);
    // Every other one, so that what names a file may be there without it.
    for (const file of lost.filter((_, i) => i % 2 === 0)) fs.rmSync(file);
    await ended(agent(`${tool}-after`, tool, node, build));
    expect(output(`${tool}-after`)).toEqual(alone);
  });

  test(`what a hostile build wrote ${hostile.reaches ? "reaches the next one" : "is noticed"}, as the documentation says`, async () => {
    const changed = files().filter((file) => hostile.files.test(file));
    expect(changed).not.toEqual([]);
    changed.forEach(hostile.change);
    const victim = ended(agent(`${tool}-victim`, tool, node, build)).then(() => output(`${tool}-victim`));
    if (hostile.reaches) expect(await victim).not.toEqual(alone);
    else expect(await victim.catch((error: Error) => (/hash|integrity/i.test(error.message) ? alone : error))).toEqual(alone);
  });
});

test("Ivy takes a half written file for a whole one, which is why it has no cache", async () => {
  const fetch = (into: string) => run("java", ["-XX:TieredStopAtLevel=1", "-jar", path.join(jars, "ivy-2.5.3.jar"), "-cache", path.join(root, "ivy"), "-dependency", "aopalliance", "aopalliance", "1.0", "-retrieve", path.join(root, into, "[artifact]-[type].[ext]")]);
  await fetch("whole");
  const [jar] = filesOf(path.join(root, "ivy")).filter((file) => file.endsWith("aopalliance-1.0.jar"));
  fs.truncateSync(jar, 1000);
  await fetch("half");
  expect(fs.statSync(path.join(root, "half/aopalliance-jar.jar")).size).toBe(1000);
});
