import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { parse, stringify } from "yaml";
import { REPO } from "../../sandbox/paths";
import { createJob, deleteJob, ensurePlatform, jenkins, jobXml, kubectl, kubectlJson, pulumi, request, STACK, startBuild, waitFor } from "./sandbox";

/** What Jenkins would refuse never reaches the running one: the same platform is asked for with one mistake each, while a build runs. */
jest.setTimeout(900_000);

type Config = Record<string, unknown>;
const job = "e2e-rehearsal";
let folder: string;
let file: string;
let build: number;

/** Writes the stack's config with a change, as a file of its own: the stack keeps its own. */
function config(change: (config: Config) => void): void {
  const document = parse(fs.readFileSync(path.join(REPO, `Pulumi.${STACK}.yaml`), "utf8")) as { config: Config };
  const plain = Object.fromEntries(Object.entries(document.config).map(([key, value]) => [key.replace(/^build-platform:/, ""), value]));
  change(plain);
  document.config = Object.fromEntries(Object.entries(plain).map(([key, value]) => [`build-platform:${key}`, value]));
  fs.writeFileSync(file, stringify(document));
}
const controller = (further: Config) => (config: Config) => void (config.controller = { ...(config.controller as Config), ...further });
const patch = (container: Config) => (config: Config) => void (config.patches = [{ target: { kind: "Deployment", name: "jenkins" }, patch: { spec: { template: { spec: { containers: [{ name: "jenkins", ...container }] } } } } }]);
/** The site's own document. */
const document = (text: string) => (config: Config) => {
  fs.mkdirSync(path.join(folder, "casc"), { recursive: true });
  fs.writeFileSync(path.join(folder, "casc", "site.yaml"), text);
  config.cascFolder = path.join(folder, "casc");
};
async function run(verb: "up" | "preview", ...extra: string[]) {
  const { code, stdout, stderr } = await pulumi([verb, "--stack", STACK, "--config-file", file, ...(verb === "up" ? ["--yes", "--skip-preview"] : []), ...extra], { allowFailure: true });
  return { code, said: stdout + stderr };
}

interface Live {
  metadata: { generation: number; resourceVersion: string; uid: string };
  status: { containerStatuses: { restartCount: number }[] };
}
/** What a running Jenkins would notice: byte for byte. */
async function touched() {
  const get = (kind: string, name: string, fields: string) => kubectl(["-n", "jenkins", "get", kind, name, "-o", `jsonpath=${fields}`]);
  const { items } = await kubectlJson<{ items: Live[] }>(["-n", "jenkins", "get", "pods", "-l", "app.kubernetes.io/component=controller"]);
  return {
    deployment: await get("deployment", "jenkins", "{.metadata.generation} {.spec}"),
    configuration: await get("configmap", "jenkins-casc", "{.metadata.resourceVersion} {.data}"),
    secret: await get("secret", "jenkins-admin", "{.metadata.resourceVersion} {.data}"),
    pods: items.map(({ metadata, status }) => [metadata.uid, ...status.containerStatuses.map(({ restartCount }) => restartCount)].join(" ")),
    building: (JSON.parse(await jenkins("GET", `/job/${job}/${build}/api/json`)) as { building: boolean }).building,
  };
}
/** Everything that a rehearsal makes. */
const left = () => kubectl(["-n", "jenkins", "get", "jobs,pods,configmaps,secrets,networkpolicies", "-l", "app.kubernetes.io/component=rehearsal", "-o", "name"]);

/** Waits for the end of all that: its pod may take the grace period that every pod has. */
const gone = () => waitFor("the rehearsal to be gone", 60, async () => (await left()) === "");

/** The system message; null where there is none. */
const message = async () => (JSON.parse(await jenkins("GET", "/api/json?tree=description")) as { description?: string | null }).description || null;

/** Asks for the login page every 200 ms until stopped. */
function watchLogin() {
  const missed: string[] = [];
  let [stopped, asked] = [false, 0];
  const ended = (async () => {
    while (!stopped) {
      const status = await request("GET", "/login", { timeout: 5000 }).then((answer) => answer.status, (error: Error) => error.message);
      asked++;
      if (status !== 200) missed.push(`${new Date().toISOString()} ${status}`);
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    return { missed, asked };
  })();
  return () => ((stopped = true), ended);
}

beforeAll(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "rehearsal-"));
  file = path.join(folder, "Pulumi.yaml");
  await ensurePlatform();
  await deleteJob(job);
  await createJob(job, jobXml("maven", "sleep 3600"));
  build = await startBuild(job);
  await waitFor("the build to run", 180, async () => (JSON.parse(await jenkins("GET", `/job/${job}/${build}/api/json`).catch(() => "{}")) as { building?: boolean }).building === true);
});
afterAll(async () => {
  await jenkins("POST", `/job/${job}/${build}/stop`).catch(() => undefined);
  await ensurePlatform();
  await deleteJob(job);
  fs.rmSync(folder, { recursive: true, force: true });
});

test.each<[string, (config: Config) => void, reason: RegExp, where?: RegExp]>([
  ["a key that Jenkins does not know", document("unclassified:\n  noSuchThing:\n    a: 1\n"), /noSuchThing/],
  ["a root whose plugin is not there", document("noSuchPlugin:\n  url: https://example.com\n"), /noSuchPlugin/],
  ["a Secret that is not there", controller({ envFrom: ["no-such-secret"] }), /no-such-secret/, /nothing was changed/],
  ["a Secret of a patch that is not there", patch({ envFrom: [{ secretRef: { name: "no-such-secret" } }] }), /no-such-secret/],
  ["an image that is not there", controller({ image: `10.88.0.1:5000/build-platform/none@sha256:${"0".repeat(64)}` }), /build-platform\/none/],
  ["an option that Java does not know", controller({ javaOpts: "-XX:+NoSuchOption" }), /NoSuchOption/],
])("%s: up fails with the reason, and nobody notices", async (_, change, reason, where = /The running one was not touched/) => {
  config(change);
  const before = await touched();
  expect(before.building).toBe(true);
  const stop = watchLogin();
  const started = Date.now();
  const { code, said } = await run("up");
  const { missed, asked } = await stop();
  expect(code).not.toBe(0);
  expect(said).toMatch(reason);
  expect(said).toMatch(where);
  expect(Date.now() - started).toBeLessThan(300_000);
  expect(missed).toEqual([]);
  expect(asked).toBeGreaterThan(10);
  expect(await touched()).toEqual(before);
  await gone();
});

test("a change that Jenkins takes: preview says that it would be rehearsed and why, up does it, and a second one does nothing", async () => {
  config(document("jenkins:\n  systemMessage: rehearsed\n"));
  const preview = await run("preview", "--diff");
  expect(preview.said).toMatch(/jenkins-rehearsal/);
  expect(preview.said).toMatch(/CONFIGURATION.*site\.yaml [0-9a-f]{12}/);
  const stop = watchLogin();
  const first = await run("up");
  const { missed } = await stop();
  expect(first).toMatchObject({ code: 0 });
  expect(first.said).toMatch(/jenkins-rehearsal/);
  expect(missed).toEqual([]);
  expect((await touched()).building).toBe(true);
  await gone();
  const second = await run("preview", "--expect-no-changes");
  expect(second).toMatchObject({ code: 0 });
  await waitFor("the message to be in force", 180, async () => (await message()) === "rehearsed");
});

test("a key that no document sets any more is set back, said once, and stays so", async () => {
  config(document("jenkins:\n  systemMessage: rehearsed\n"));
  await run("up");
  config(() => undefined);
  expect((await run("up")).said).toMatch(/no longer set by any document, set back to what a new Jenkins has: jenkins\.systemMessage ""/);
  await waitFor("the message to be gone", 180, async () => (await message()) === null);
  const second = await run("preview", "--expect-no-changes");
  expect(second).toMatchObject({ code: 0 });
  expect(second.said).not.toMatch(/no longer set/);
});

test("off: there is no such resource", async () => {
  config((plain) => void (plain.rehearsal = { enabled: false }));
  expect((await run("up")).code).toBe(0);
  const { stdout } = await pulumi(["stack", "export", "--stack", STACK]);
  expect(stdout).toContain("jenkins-casc");
  expect(stdout).not.toContain("jenkins-rehearsal");
});
