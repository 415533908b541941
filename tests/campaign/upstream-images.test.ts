import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import * as fs from "node:fs";
import * as http from "node:http";
import type { AddressInfo } from "node:net";
import * as os from "node:os";
import * as path from "node:path";
import { newestMinor } from "../../checks/kubernetes";
import { buildBinaries, buildTestTool } from "../../sandbox/cluster/binaries";
import { buildImages, upstreamImages, type BuiltImage } from "../../sandbox/images/index";
import { push } from "../../sandbox/images/registry";
import { bundlePlugins } from "../../sandbox/plugins/bundle";
import { CACHE, REGISTRY } from "../../sandbox/paths";
import { createJob, deleteJob, ensurePlatform, ENV, finishedBuild, jobXml, sandbox, startBuild, waitFor } from "../e2e/sandbox";

/**
 * The sandbox with images and plugins from where they are published: a registry and a download site of the test's own serve the
 * upstream names, as mirrors of them do. What they serve are the stand-ins, by digests of their own; all that fetches is real.
 */

jest.setTimeout(1_800_000);

const MIRROR = "127.0.0.1:5055";
const { PATH } = ENV;
let folder: string;
let registry: ChildProcess;
let site: http.Server;
let built: BuiltImage[];
const kept = ["upstream", "pulumi-plugins"].map((name) => path.join(CACHE, name));

beforeAll(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "upstream-"));
  built = await buildImages({ cacheDir: CACHE, binaries: await buildBinaries(newestMinor), log: () => undefined });
  const config = path.join(folder, "registry.yml");
  fs.writeFileSync(config, `version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: ${folder}/registry}}\nhttp: {addr: "${MIRROR}"}\n`);
  registry = spawn(path.join(await buildTestTool("registry"), "registry"), ["serve", config], { stdio: "ignore" });
  await waitFor("the mirror", 20, () => fetch(`http://${MIRROR}/v2/`).then(({ ok }) => ok, () => false));
  for (const image of built) await push(image, MIRROR);
  fs.writeFileSync(path.join(folder, "registries.conf"), ["docker.io", "registry.k8s.io"].map((name) => `[[registry]]\nprefix = "${name}"\nlocation = "${MIRROR}"\ninsecure = true\n`).join(""));

  // Debian 12's skopeo knows no variable for that file.
  fs.mkdirSync(path.join(folder, "bin"));
  fs.writeFileSync(path.join(folder, "bin/skopeo"), `#!/bin/sh\nexec /usr/bin/skopeo --registries-conf ${folder}/registries.conf "$@"\n`, { mode: 0o755 });

  // Pulumi's site has an archive for each provider, with the executable in it, and the language host in that of the release.
  const plugins = await bundlePlugins(path.join(folder, "plugins"));
  site = http.createServer((asked, answer) => {
    const name = /\/(pulumi-resource-\w+)-v/.exec(asked.url ?? "")?.[1] ?? (asked.url?.startsWith("/pulumi-v") ? "pulumi-language-nodejs" : undefined);
    const file = plugins.find((each) => path.basename(each) === name);
    if (file) answer.end(execFileSync("tar", ["-cz", "-C", path.dirname(file), ...(name === "pulumi-language-nodejs" ? ["--transform", "s:^:pulumi/:"] : []), path.basename(file)], { maxBuffer: 1 << 28 }));
    else answer.writeHead(asked.url?.includes("update-center") ? 200 : 404).end("{}");
  });
  await new Promise<void>((resolve) => site.listen(0, "127.0.0.1", resolve));
  const address = `http://127.0.0.1:${(site.address() as AddressInfo).port}`;
  Object.assign(ENV, { PATH: `${folder}/bin:${PATH}`, JENKINS_UC: address, PULUMI_RELEASES: address, PULUMI_PLUGIN_DOWNLOAD_URL_OVERRIDES: `.*=${address}` });
  // What was pulled for good stays for later: the test has its own.
  for (const each of kept) if (fs.existsSync(each)) fs.renameSync(each, `${each}.kept`);
});

afterAll(async () => {
  registry?.kill();
  site?.close();
  fs.rmSync(folder, { recursive: true, force: true });
  for (const each of kept) {
    fs.rmSync(each, { recursive: true, force: true });
    if (fs.existsSync(`${each}.kept`)) fs.renameSync(`${each}.kept`, each);
  }
  ENV.PATH = PATH;
  for (const name of ["JENKINS_UC", "PULUMI_RELEASES", "PULUMI_PLUGIN_DOWNLOAD_URL_OVERRIDES"]) delete ENV[name];
  await sandbox("down");
  await sandbox("up");
});

/** A file of pins by the digests that the mirror serves, but for images that it is not to have. */
async function pins(...missing: string[]): Promise<string> {
  const keys = JSON.parse(fs.readFileSync(path.join(__dirname, "../../images/upstream.json"), "utf8")) as Record<string, { image: string; tag: string }>;
  const entries = Object.entries(keys).flatMap(([key, { image, tag }]) => {
    const name = upstreamImages().find(({ pin }) => pin.image === image && pin.tag === tag)?.name;
    const image_ = built.find((each) => each.name === name);
    return image_ ? [[key, { image, tag, digest: missing.includes(name!) ? `sha256:${"0".repeat(64)}` : image_.digest }]] : [];
  });
  const file = path.join(folder, `pins-${missing.length}.json`);
  fs.writeFileSync(file, JSON.stringify(Object.fromEntries(entries)));
  return file;
}

const origins = async () => (await sandbox("origins")).stdout.trim().split("\n");
const standIns = async () => (await origins()).filter((line) => line.includes("stand-in for")).map((line) => line.split(" ")[0]);

test("upstream says all that cannot be had, and makes nothing in its place", async () => {
  await sandbox("down");
  await expect(sandbox("up", "--images", "upstream", "--pins", await pins("jenkins", "restic"))).rejects.toThrow(
    /not to be had from here[\s\S]*jenkins, docker[.]io\/jenkins\/jenkins:[\s\S]*agent, [^\n]*goes with jenkins[\s\S]*restic, docker[.]io\/restic\/restic:/,
  );
  expect(await fetch(`http://${REGISTRY}/v2/jenkins/jenkins/tags/list`).then(({ status }) => status)).toBe(404);
});

test("with every one to be had there is no stand-in: the platform comes up on what was pulled, and builds", async () => {
  await sandbox("up", "--images", "upstream", "--pins", await pins());
  expect(await standIns()).toEqual([]);
  for (const image of built) {
    const answer = await fetch(`http://${REGISTRY}/v2/${image.repository}/manifests/${image.tag}`, { headers: { accept: "application/vnd.oci.image.manifest.v1+json" } });
    expect([image.name, answer.headers.get("docker-content-digest")]).toEqual([image.name, image.digest]);
  }
  await ensurePlatform();
  const job = "campaign-upstream";
  await deleteJob(job);
  await createJob(job, jobXml("maven", "mvn -v"));
  expect((await finishedBuild(job, await startBuild(job))).result).toBe("SUCCESS");
  await deleteJob(job);
});

test("auto takes stand-ins for those that are missing and for those that go with them, and says so", async () => {
  await sandbox("up", "--images", "auto", "--pins", await pins("jenkins", "restic"));
  expect((await standIns()).sort()).toEqual(["agent", "jenkins", "restic"]);
  expect(await origins()).toContainEqual(expect.stringMatching(/^agent +stand-in for docker[.]io\/jenkins\/inbound-agent:\S+: goes with jenkins, which is a stand-in$/));
});
