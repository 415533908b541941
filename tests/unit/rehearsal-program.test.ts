import { spawn } from "node:child_process";
import * as path from "node:path";
import type { RehearsalInput } from "../../components/jenkins-master/rehearsal";
import { rehearsalLabels, rehearsalObjects } from "../../components/jenkins-master/rehearsal";
import { fakeApi, type Play } from "./rehearsal-api";

jest.setTimeout(60_000);

const root = path.resolve(__dirname, "../..");
const password = "correct-horse";
const pod = { serviceAccountName: "jenkins", containers: [{ name: "jenkins", image: "registry.test/controller:1", volumeMounts: [{ name: "admin", mountPath: "/run/secrets/jenkins" }] }], volumes: [{ name: "admin", secret: { secretName: "jenkins-admin" } }] };
const candidate = { namespace: "jenkins", pod, configMaps: { "jenkins-casc": { "jenkins.yaml": "jenkins: {}" } }, secrets: { "jenkins-admin": { "admin-password": Buffer.from(password).toString("base64") } } };

const running = { name: "jenkins", image: "", state: { running: {} } };
const up = { conditions: [{ type: "Ready", status: "True" }], containerStatuses: [running] };
const starting = { conditions: [{ type: "Ready", status: "False" }], containerStatuses: [running] };
const refusedLog = [
  "2026-11-25 18:00:01.000+0000 [id=33]\tSEVERE\tjenkins.InitReactorRunner$1#onTaskFailed: Failed ConfigurationAsCode.init",
  `io.jenkins.plugins.casc.UnknownAttributesException: jenkins: Invalid configuration elements for type: class jenkins.model.Jenkins : sytemMessage. It saw ${password}.`,
  "\tat io.jenkins.plugins.casc.BaseConfigurator.handleUnknown(BaseConfigurator.java:506)",
  "2026-11-25 18:00:01.100+0000 [id=25]\tSEVERE\thudson.util.BootFailure#publish: Failed to initialize Jenkins",
].join("\n");

/** Starts the program as the stack does: below a shell. */
function start(kubeconfig: string, timeoutSeconds = 30) {
  const input: RehearsalInput = { kubeconfig, context: "here", timeoutSeconds, namespace: "jenkins", objects: rehearsalObjects(candidate, { timeoutSeconds, resources: {} }) };
  const shell = spawn("/bin/sh", ["-c", "node --import tsx scripts/rehearsal/rehearse.ts; exit $?"], { cwd: root, stdio: ["pipe", "pipe", "pipe"] });
  let said = "";
  for (const stream of [shell.stdout, shell.stderr]) stream.on("data", (chunk: Buffer) => (said += chunk.toString()));
  shell.stdin.end(JSON.stringify(input));
  // Closed when the program has ended too, not the shell alone.
  const ended = new Promise<{ code: number | null; said: string }>((resolve) => shell.on("close", (code) => resolve({ code, said })));
  return { shell, ended, said: () => said };
}

async function run(play: Play, timeoutSeconds?: number) {
  const api = await fakeApi(play);
  api.leave({ kind: "Job", metadata: { name: "jenkins-rehearsal", labels: rehearsalLabels } });
  api.leave({ kind: "Secret", metadata: { name: "jenkins-admin", labels: { "app.kubernetes.io/name": "jenkins" } } });
  const { code, said } = await start(api.kubeconfig, timeoutSeconds).ended;
  await api.close();
  return { code, said, left: api.objects().map(({ kind, metadata }) => `${kind} ${metadata.name}`), before: api.before(), changes: api.changes };
}

test("a Jenkins that comes up: everything is there before its pod starts, and nothing afterwards but what others have", async () => {
  const { code, said, left, before } = await run({ status: (asked) => (asked < 2 ? starting : up), log: "Jenkins is fully up and running" });
  expect({ code, said }).toEqual({ code: 0, said: expect.stringMatching(/Jenkins came up with this image and configuration in \d+ s\n$/) });
  expect(before.sort()).toEqual(["ConfigMap rehearsal-hooks", "ConfigMap rehearsal-jenkins-casc", "Job jenkins-rehearsal", "NetworkPolicy jenkins-rehearsal", "Secret jenkins-admin", "Secret rehearsal-jenkins-admin"]);
  expect(left).toEqual(["Secret jenkins-admin"]);
});

test("a refused document: Jenkins' own words without the password, and the status of failure", async () => {
  const { code, said, left } = await run({ status: () => starting, log: refusedLog });
  expect(code).toBe(1);
  expect(said).toContain("jenkins: Invalid configuration elements for type: class jenkins.model.Jenkins : sytemMessage. It saw [secret].");
  expect(said).toContain("The running one was not touched");
  expect(said).not.toContain(password);
  expect(said).not.toContain("BaseConfigurator.java");
  expect(left).toEqual(["Secret jenkins-admin"]);
});

test("a Secret that is missing is told after some seconds, without waiting for the end", async () => {
  const message = 'MountVolume.SetUp failed for volume "admin" : references non-existent secret key: token';
  const { code, said, left } = await run({ status: () => ({ containerStatuses: [{ name: "jenkins", image: "", state: { waiting: { reason: "ContainerCreating" } } }] }), events: [{ reason: "FailedMount", message }] });
  expect(code).toBe(1);
  expect(said).toContain(message);
  expect(said).toContain("secretFiles");
  expect(left).toEqual(["Secret jenkins-admin"]);
});

test("a Jenkins that takes too long", async () => {
  const { code, said, left } = await run({ status: () => starting, log: "the last thing it said" }, 3);
  expect(code).toBe(1);
  expect(said).toMatch(/has not come up after 3 s.*\n {2}the last thing it said\n.*rehearsal.timeoutSeconds/);
  expect(left).toEqual(["Secret jenkins-admin"]);
});

test.each<[string, (shell: ReturnType<typeof start>["shell"]) => void]>([
  ["its shell is killed, as Pulumi's provider does", (shell) => shell.kill("SIGKILL")],
  ["its shell's group is interrupted", (shell) => process.kill(childOf(shell.pid!), "SIGINT")],
])("interrupted, %s: nothing is left", async (_, interrupt) => {
  const api = await fakeApi({ status: () => starting, log: "" });
  const { shell, ended, said } = start(api.kubeconfig);
  for (let tries = 0; tries < 300 && !said().includes("Jenkins starts"); tries++) await new Promise((resolve) => setTimeout(resolve, 100));
  expect(api.objects().map(({ kind }) => kind)).toContain("Pod");
  interrupt(shell);
  await ended;
  await api.close();
  expect(said()).toContain("could not be tried, and the running one was not touched: interrupted");
  expect(api.objects()).toEqual([]);
});

test("whose Job another rehearsal has replaced: it ends at once, and leaves the other's alone", async () => {
  const api = await fakeApi({ status: () => starting, log: "" });
  const { ended, said } = start(api.kubeconfig);
  for (let tries = 0; tries < 300 && !said().includes("Jenkins starts"); tries++) await new Promise((resolve) => setTimeout(resolve, 100));
  api.drop("Job");
  api.leave({ kind: "Job", metadata: { name: "jenkins-rehearsal", labels: rehearsalLabels } });
  const { code } = await ended;
  await api.close();
  expect(code).toBe(2);
  expect(said()).toContain("could not be tried, and the running one was not touched: its Job was removed, by another rehearsal of this environment or by hand");
  expect(api.objects().map(({ kind }) => kind)).toEqual(["Job"]);
});

/** The program that a shell started. */
function childOf(pid: number): number {
  const { readFileSync } = jest.requireActual<typeof import("node:fs")>("node:fs");
  return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ")[0]);
}
