import { execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import * as fs from "node:fs";
import * as http from "node:http";
import type { AddressInfo } from "node:net";
import * as os from "node:os";
import * as path from "node:path";
import { parse, stringify } from "yaml";
import { NETWORK, REGISTRY, REPO } from "../../sandbox/paths";
import { run } from "../../sandbox/shell";
import { createJob, deleteJob, ensurePlatform, finishedBuild, jobXml, kubectl, kubectlJson, onNode, STACK, startBuild, up, waitFor } from "../e2e/sandbox";

/** What agents of a stack find of what earlier ones fetched: sources by the real git, packages by the real npm, and their image before the first of them. */

jest.setTimeout(900_000);

const stackFile = path.join(REPO, `Pulumi.${STACK}.yaml`);
const former = fs.readFileSync(stackFile, "utf8");
const cachePath = "/var/cache/agent-caches-campaign";
const image = `${REGISTRY}/campaign/web:${randomBytes(4).toString("hex")}`;
const job = "campaign-agent-caches";
let folder: string;
const at = (...rest: string[]) => path.join(folder, ...rest);

/** Bytes of each answer, by address. */
const answered: { url: string; bytes: number }[] = [];
const bytes = (what: RegExp, since = 0) => answered.slice(since).filter(({ url }) => what.test(url)).reduce((sum, each) => sum + each.bytes, 0);

/** A registry of one package, and a git server (git's own, as CGI). */
const server = http.createServer((request, response) => {
  const entry = { url: request.url!, bytes: 0 };
  answered.push(entry);
  const { pathname, search } = new URL(request.url!, "http://x");
  const send = (type: string, body: Buffer | string) => {
    entry.bytes = body.length;
    response.writeHead(200, { "content-type": type }).end(body);
  };
  if (pathname === "/web") return send("application/json", fs.readFileSync(at("packument.json")));
  if (pathname.endsWith(".tgz")) return send("application/octet-stream", fs.readFileSync(at("web-1.0.0.tgz")));
  if (!pathname.startsWith("/repo.git/")) return void response.writeHead(404).end();
  const cgi = spawn("git", ["http-backend"], {
    env: { PATH: process.env.PATH, GIT_PROJECT_ROOT: folder, GIT_HTTP_EXPORT_ALL: "1", PATH_INFO: pathname, QUERY_STRING: search.slice(1), REQUEST_METHOD: request.method, CONTENT_TYPE: request.headers["content-type"], HTTP_CONTENT_ENCODING: request.headers["content-encoding"], GIT_PROTOCOL: request.headers["git-protocol"] as string | undefined },
    stdio: ["pipe", "pipe", "inherit"],
  });
  request.pipe(cgi.stdin);
  const parts: Buffer[] = [];
  cgi.stdout.on("data", (part: Buffer) => parts.push(part));
  cgi.on("close", () => {
    const whole = Buffer.concat(parts);
    const end = whole.indexOf("\r\n\r\n");
    const type = /^content-type: (.*?)\r?$/im.exec(whole.subarray(0, end).toString())?.[1];
    send(type ?? "text/plain", whole.subarray(end + 4));
  });
});
const address = () => `http://${NETWORK.gateway}:${(server.address() as AddressInfo).port}`;

const shell = (script: string) => execFileSync("bash", ["-euc", script], { cwd: folder, encoding: "utf8", env: { ...process.env, GIT_AUTHOR_NAME: "a", GIT_AUTHOR_EMAIL: "a@b", GIT_COMMITTER_NAME: "a", GIT_COMMITTER_EMAIL: "a@b" } }).trim();
const onFirstNode = (command: string) => onNode(["sh", "-c", command]).then(({ stdout }) => stdout.trim());
/** The keeper may be writing where this deletes. */
const deletion = `until rm -rf ${cachePath}/git/*/mirrors/* ${cachePath}/tools/*/npm/_cacache/*; do sleep 1; done`;
const mirrored = () => waitFor("the mirror", 120, async () => (await onFirstNode(`ls ${cachePath}/git/*/mirrors/*/current/packed-refs 2>/dev/null || :`)) !== "");
const gone = () => waitFor("the agents to be gone", 120, async () => (await kubectl(["-n", "jenkins-agents", "get", "pods", "-l", "jenkins=agent", "-o", "name"])).trim() === "");

beforeAll(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "agent-caches-"));
  await new Promise<void>((resolve) => server.listen(0, NETWORK.gateway, resolve));
  shell(`mkdir work package; cd work; git init -qb main; head -c 5000000 /dev/urandom >large; git add .; git commit -qm one; cd ..; git clone -q --bare work repo.git
echo '{"name":"web","version":"1.0.0"}' >package/package.json; head -c 3000000 /dev/urandom >package/large.bin; tar -czf web-1.0.0.tgz package`);
  const integrity = `sha512-${shell("openssl dgst -sha512 -binary web-1.0.0.tgz | base64 -w0")}`;
  fs.writeFileSync(at("packument.json"), JSON.stringify({ name: "web", "dist-tags": { latest: "1.0.0" }, versions: { "1.0.0": { name: "web", version: "1.0.0", dist: { integrity, tarball: `${address()}/web-1.0.0.tgz` } } } }));

  // The machine's own node and npm over the platform's agent.
  const npm = path.dirname(path.dirname(fs.realpathSync(execFileSync("which", ["npm"], { encoding: "utf8" }).trim())));
  fs.mkdirSync(at("image"));
  fs.copyFileSync(process.execPath, at("image/node"));
  fs.cpSync(npm, at("image/npm"), { recursive: true });
  const { "build-platform:images": { inboundAgent } } = (parse(former) as { config: Record<string, Record<string, string>> }).config;
  fs.writeFileSync(at("image/Dockerfile"), `FROM ${inboundAgent}\nUSER root\nCOPY node /usr/local/bin/node\nCOPY npm /usr/local/lib/npm\nRUN ln -s ../lib/npm/bin/npm-cli.js /usr/local/bin/npm && node --version && npm --version\nUSER jenkins\n`);
  const [, repository, tag] = /^[^/]+\/(.+):([^:]+)$/.exec(image)!;
  await run(path.join(REPO, "scripts/images/build-image.sh"), ["--repository", `${REGISTRY}/${repository}`, "--tag", tag, "--context", at("image"), "--insecure"], { env: { ...process.env, BUILD_IMAGE_STORAGE: at("storage") } });

  const document = parse(former) as { config: Record<string, unknown> };
  (document.config["build-platform:agents"] as object[]).push({ name: "web", image, docker: "none", caches: ["git", "npm"], prepull: true });
  document.config["build-platform:agentCache"] = { path: cachePath };
  fs.writeFileSync(stackFile, stringify(document));
  await ensurePlatform();
  await createJob(job, jobXml("web", [
    "set -e",
    `git clone -q ${address()}/repo.git cloned`, "sha256sum cloned/large cloned/small 2>/dev/null || :", "git -C cloned fsck --full", "test ! -e cloned/.git/objects/info/alternates",
    `echo '{}' >package.json`, `npm install --no-audit --no-fund --no-update-notifier --registry ${address()} web`, "sha256sum node_modules/web/large.bin",
  ].join("\n")));
});

afterAll(async () => {
  await deleteJob(job);
  fs.writeFileSync(stackFile, former);
  await up();
  await onFirstNode(`rm -rf ${cachePath}`);
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  fs.rmSync(folder, { recursive: true, force: true });
});

const build = async () => {
  const done = await finishedBuild(job, await startBuild(job), 400);
  expect(done).toMatchObject({ result: "SUCCESS" });
  await gone();
  return done.console;
};
const sum = (file: string) => shell(`sha256sum <${file}`).split(" ")[0];

test("the agents' image is on the node before anybody builds", async () => {
  await waitFor("the pods that hold the images", 180, async () => {
    const { status } = await kubectlJson<{ status: { numberReady: number; desiredNumberScheduled: number } }>(["-n", "jenkins-agents", "get", "daemonset", "agent-images-web"]);
    return status.desiredNumberScheduled > 0 && status.numberReady === status.desiredNumberScheduled;
  });
  const { items } = await kubectlJson<{ items: { status: { containerStatuses: { image: string; imageID: string }[] } }[] }>(["-n", "jenkins-agents", "get", "pods", "-l", "app.kubernetes.io/name=agent-images"]);
  expect(items.flatMap(({ status }) => status.containerStatuses.map((each) => [each.image, each.imageID.includes("sha256:")]))).toContainEqual([image, true]);
});

test("the first agent fetches, the second only what is new, whole both times; a deleted mirror and a deleted cache harm nobody", async () => {
  let since = answered.length;
  expect(await build()).toContain(sum("package/large.bin"));
  expect(bytes(/repo\.git/, since)).toBeGreaterThan(5_000_000);
  expect(bytes(/\.tgz/, since)).toBeGreaterThan(3_000_000);
  await mirrored();

  shell("cd work; echo two >small; git add .; git commit -qm two; git push -q ../repo.git main");
  since = answered.length;
  const second = await build();
  for (const file of ["work/large", "work/small", "package/large.bin"]) expect(second).toContain(sum(file));
  expect(bytes(/repo\.git/, since)).toBeGreaterThan(0);
  expect(bytes(/repo\.git/, since)).toBeLessThan(50_000);
  expect(bytes(/\.tgz/, since)).toBe(0);

  // Deleted under the keeper, which runs, and before the agent, which does not find them.
  await onFirstNode(deletion);
  since = answered.length;
  expect(await build()).toContain(sum("work/large"));
  expect(bytes(/repo\.git/, since)).toBeGreaterThan(5_000_000);
});

test("a mirror that goes while agents clone from it harms no clone", async () => {
  await build();
  await mirrored();
  const number = await startBuild(job);
  let deleted = 0;
  await waitFor("the build to end", 400, async () => {
    deleted += Number(await onFirstNode(`ls -d ${cachePath}/git/*/mirrors/* 2>/dev/null | wc -l; ${deletion}`));
    return (await finishedBuild(job, number, 1).catch(() => undefined))?.building === false;
  });
  expect(deleted).toBeGreaterThan(0);
  const { result, console } = await finishedBuild(job, number);
  expect([result, console.includes(sum("work/large"))]).toEqual(["SUCCESS", true]);
});

test("a second up changes nothing", async () => expect(await up("--expect-no-changes")).toMatch(/\d+ unchanged/));
