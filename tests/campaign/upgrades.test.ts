import * as fs from "node:fs";
import * as http from "node:http";
import * as os from "node:os";
import * as path from "node:path";
import { parse, stringify } from "yaml";
import { NETWORK, REGISTRY, REPO } from "../../sandbox/paths";
import { run, waitFor } from "../../sandbox/shell";
import { RestServer } from "../backup-bed/servers";
import { deleteVolumes, ENV, ensurePlatform, kubectl, kubectlJson, onNode, pulumi, STACK } from "../e2e/sandbox";

/**
 * Two versions of the stand-in beside its own: one whose Jenkins lacks the class of a kind of job, and one without a plugin. Each is
 * tried on a copy, where nothing is touched; the first is then brought up nevertheless, and rolled back.
 */
jest.setTimeout(3_600_000);

const NAME = "upgrades";
const stackFile = path.join(REPO, `Pulumi.${NAME}.yaml`);
const repositories = new RestServer(8018);
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "upgrades-"));
const firstFile = fs.readFileSync(path.join(REPO, `Pulumi.${STACK}.yaml`), "utf8");
type Config = Record<string, unknown>;
let base: Config;
let own: string;

/** One of the operator's commands, and all that it said. */
async function script(name: string, ...args: string[]): Promise<{ code: number; said: string }> {
  const { code, stdout, stderr } = await run(process.execPath, ["--import", "tsx", `cli/${name}.ts`, ...args], { cwd: REPO, env: ENV, allowFailure: true });
  return { code, said: stdout + stderr };
}
const backup = (command: string, ...args: string[]) => script("backup/index", command, "--stack", NAME, ...args);
function config(change: Config = {}): void {
  const plain = { ...base, ...change };
  fs.writeFileSync(stackFile, stringify({ encryptionsalt: (parse(firstFile) as { encryptionsalt: string }).encryptionsalt, config: Object.fromEntries(Object.entries(plain).filter(([, value]) => value !== undefined).map(([key, value]) => [`build-platform:${key}`, value])) }));
}
/** Brings it up, and returns what was said. */
async function up(...extra: string[]): Promise<string> {
  const { stdout, stderr } = await pulumi(["up", "--stack", NAME, "--yes", "--skip-preview", ...extra]);
  return stdout + stderr;
}
const deployment = () => kubectl(["-n", NAME, "get", "deployment", "jenkins", "-o", "jsonpath={.metadata.generation} {.spec.template.spec.containers[0].image}"]);
const controller = async () => (await deployment()).split(" ")[1];
/** Runs a script beside Jenkins, in which `ask` is curl as the administrator. */
const inController = (text: string) => kubectl(["-n", NAME, "exec", "-i", "deployment/jenkins", "-c", "jenkins", "--", "sh", "-c", `ask() { curl -sf -u "$(cat /run/secrets/jenkins/admin-user):$(cat /run/secrets/jenkins/admin-password)" "$@"; }\n${text}`]);
const job = (name: string, xml: string) => inController(`ask -H 'Content-Type: application/xml' --data-binary '${xml}' 'http://localhost:8080/createItem?name=${name}'`);
const answers = () => waitFor("Jenkins", 600, async () => (await inController("ask -o /dev/null http://localhost:8080/api/json && echo yes").catch(() => "")).includes("yes"));
/** Hash of each file of the jobs, read on the disk of the volume's node. */
async function jobFiles(): Promise<string> {
  const { spec } = await kubectlJson<{ spec: { volumeName: string } }>(["-n", NAME, "get", "pvc", "jenkins-home"]);
  return (await onNode(["sh", "-c", `cd /var/openebs/${NAME}/${spec.volumeName}/jobs && find . -type f -exec sha256sum {} + | sort -k 2`])).stdout;
}
/** The stand-in without a part of Hudson, in the sandbox's registry; its reference by digest. */
async function variant(name: string, command: string): Promise<string> {
  const context = path.join(folder, name);
  fs.mkdirSync(context);
  fs.writeFileSync(path.join(context, "Dockerfile"), `FROM ${own}\nUSER root\nRUN ${command}\nUSER 1000:1000\n`);
  return (await run(path.join(REPO, "scripts/images/build-image.sh"), ["--repository", `${REGISTRY}/upgrades/${name}`, "--context", context, "--insecure"], { env: ENV })).stdout.trim();
}
const core = "/usr/share/jenkins/hudson/WEB-INF";
let withoutKind: string;
let withoutPlugin: string;

beforeAll(async () => {
  await ensurePlatform();
  await repositories.start();
  const first = (parse(firstFile) as { config: Config }).config;
  base = Object.fromEntries(Object.entries(first).map(([key, value]) => [key.replace(/^build-platform:/, ""), value]));
  Object.assign(base, {
    domain: `${NAME}.sandbox.test`, namespace: NAME, storageClass: `${NAME}-hostpath`, storageInstall: "class", storageBasePath: `/var/openebs/${NAME}`, nodePortRange: "none", ingress: { controller: "none" }, controlPlane: undefined,
    controller: { ...(base.controller as object), nodeSelector: { "kubernetes.io/hostname": "control-plane-1" } },
  });
  config();
  // What a run that was cut off left.
  await remove("--preserve-config");
  await pulumi(["stack", "init", NAME, "--no-select"]);
  await up();
  await answers();
  await job("plain", "<project><builders><hudson.tasks.Shell><command>echo of the copy</command></hudson.tasks.Shell></builders><publishers/><buildWrappers/></project>");
  await job("outside", "<hudson.model.ExternalJob/>");
  own = await controller();
  // The class of a kind of job, as when the plugin that brought it is gone: under another name, of the same length, in the archive.
  withoutKind = await variant("without-kind", `perl -pi -e 's#hudson/model/ExternalJob[.]class#hudson/model/ExternalJob.clasz#g' ${core}/lib/hudson-core-1.395.jar`);
  withoutPlugin = await variant("without-plugin", `rm -f ${core}/plugins/ssh-slaves.hpi && sed -i '2a rm -rf /var/jenkins_home/plugins/ssh-slaves*' /usr/local/bin/jenkins.sh`);
});

async function remove(...further: string[]): Promise<void> {
  await pulumi(["destroy", "--stack", NAME, "--yes", "--skip-preview"], { allowFailure: true });
  await pulumi(["stack", "rm", NAME, "--yes", "--force", ...further], { allowFailure: true });
  // A rollback keeps both volumes, whatever becomes of their claims.
  await deleteVolumes(NAME);
}

afterAll(async () => {
  await remove();
  fs.rmSync(stackFile, { force: true });
  fs.rmSync(folder, { recursive: true });
  repositories.remove();
});

test("without a backup, each command says what is missing and changes nothing", async () => {
  const before = await deployment();
  for (const [command, ...args] of [["rehearse", NAME], ["rollback", NAME, "--yes"], ["upgrade", NAME]]) {
    const { code, said } = await script(command, ...args);
    expect([command, code, said]).toEqual([command, 2, expect.stringMatching(/stack upgrades has no backup.*set config key backup/)]);
  }
  expect(await deployment()).toBe(before);
});

test("with a backup the working tree's own image is found good on a copy, of which nothing is left", async () => {
  base.backup = { repository: repositories.address("jenkins"), keysRepository: repositories.address("jenkins-keys") };
  config();
  for (const key of ["password", "keysPassword"]) await pulumi(["config", "set", "--stack", NAME, "--secret", "--path", `backup.${key}`, `${key} of the campaign`]);
  base = Object.fromEntries(Object.entries((parse(fs.readFileSync(stackFile, "utf8")) as { config: Config }).config).map(([key, value]) => [key.replace(/^build-platform:/, ""), value]));
  await up();
  await answers();
  // The first backup makes the repository.
  expect((await script("rehearse", NAME)).said).toMatch(/where no backup was made yet, npm run backup makes it/);
  expect(await backup("backup")).toMatchObject({ code: 0, said: expect.stringMatching(/2 jobs and folders/) });
  const before = await deployment();
  const html = path.join(folder, "r.html");
  const { code, said } = await script("rehearse", NAME, "--html", html);
  expect(said).toMatch(/upgrades: Jenkins comes up with all that it has/);
  expect(said).toMatch(/^jobs and folders +2 +2 +2$/m);
  expect(code).toBe(0);
  expect(fs.readFileSync(html, "utf8")).toContain("Rehearsal of upgrades");
  expect(await deployment()).toBe(before);
  expect(await kubectl(["-n", NAME, "get", "jobs,configmaps,secrets,networkpolicies", "-l", "app.kubernetes.io/component=rehearsal", "-o", "name"])).toBe("");
});

test.each([
  ["a job's file is refused", () => withoutKind, /! 1 jobs or folders of the snapshot are not loaded\n +jobs\/outside/],
  ["a plugin is gone", () => withoutPlugin, /! 1 plugins are in use now and would not be any more\n +ssh-slaves/],
])("%s: the rehearsal says so and fails, and the running Jenkins is as it was", async (_, image, words) => {
  const before = [await deployment(), await jobFiles()];
  config({ controller: { ...(base.controller as object), image: image() } });
  const { code, said } = await script("rehearse", NAME);
  expect(said).toMatch(words);
  expect(code).toBe(1);
  expect([await deployment(), await jobFiles()]).toEqual(before);
});

test("brought up nevertheless, the home is saved first; a rollback brings image and home back byte for byte, and up keeps both", async () => {
  const home = await jobFiles();
  config({ controller: { ...(base.controller as object), image: withoutKind } });
  expect(await up()).toMatch(/snapshot [0-9a-f]{8} holds the home as .* leaves it/);
  expect(await controller()).toBe(withoutKind);
  await answers();
  await job("later", "<project><builders/><publishers/><buildWrappers/></project>");
  expect(await script("rollback", NAME, "--yes")).toEqual({ code: 0, said: expect.stringMatching(/held at/) });
  expect(await controller()).toBe(own);
  expect(await jobFiles()).toBe(home);
  // The home as it was after the upgrade is a snapshot of its own.
  const listed = (await backup("list")).said;
  expect(listed).toMatch(/3 jobs and folders .*as without-kind@sha256:[0-9a-f]{12} was left/);
  expect(listed).toMatch(/2 jobs and folders .*as controller@sha256:[0-9a-f]{12} was left/);
  // Whatever the working tree says, the next update keeps it, and says so.
  expect(await up()).toMatch(/held at .* npm run rollback -- upgrades --release/);
  expect(await controller()).toBe(own);
  await up("--expect-no-changes");
  expect(await backup("restore", "--confirm")).toMatchObject({ code: 0 });
  expect(await script("rollback", NAME, "--release")).toMatchObject({ code: 0 });
  await up();
  expect(await controller()).toBe(withoutKind);
});

test("an upgrade asks a served update centre, and leaves the files as they were where the image or the rehearsal fails", async () => {
  const document = { core: { version: "2.600.1" }, plugins: Object.fromEntries(fs.readFileSync(path.join(REPO, "images/controller/plugins.txt"), "utf8").split("\n").filter((line) => /^\w/.test(line)).map((line) => [line.split(":")[0], { version: "99999", dependencies: [] }])) };
  const asked: string[] = [];
  const server = http.createServer((request, response) => {
    asked.push(request.url!);
    // As the real one, it leads on.
    if (request.url!.startsWith("/stable/")) return void response.writeHead(302, { location: "/there/update-center.actual.json" }).end();
    response.end(JSON.stringify(document));
  });
  await new Promise<void>((resolve) => server.listen(8019, NETWORK.gateway, resolve));
  try {
    config({ mirrors: { jenkinsUpdates: `http://${NETWORK.gateway}:8019` } });
    const files = ["images/controller/plugins.txt", "images/upstream.json", `Pulumi.${NAME}.yaml`].map((file) => path.join(REPO, file));
    const texts = () => files.map((file) => fs.readFileSync(file, "utf8"));
    const before = texts();
    const dry = await script("upgrade", NAME, "--dry-run");
    expect(dry.said).toMatch(/^jenkins +2\.568\.2 +-> 2\.600\.1 +https:\/\/www\.jenkins\.io\/changelog-stable\/#v2\.600\.1/m);
    expect(dry.said).toMatch(/^git +5\.10\.1 +-> 99999 +https:\/\/plugins\.jenkins\.io\/git\/releases\/$/m);
    expect(dry.code).toBe(0);
    expect(asked).toEqual(["/stable/update-center.actual.json", "/there/update-center.actual.json", "/update-center.actual.json?version=2.600.1"]);
    // No such image is in the registry.
    const { code, said } = await script("upgrade", NAME);
    expect(code).toBe(1);
    expect(said).toMatch(/2\.600\.1-jdk21 could not be looked up, so nothing was changed/);
    expect(texts()).toEqual(before);
    // The plugins' site has no such plugin: the image cannot be built.
    expect(await script("upgrade", NAME, "--lts", "2.568.2")).toMatchObject({ code: 1, said: expect.stringMatching(/the working tree's controller cannot be made/) });
    expect(texts()).toEqual(before);
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
});
