import * as fs from "node:fs";
import * as path from "node:path";
import { parse, stringify } from "yaml";
import { REPO } from "../../sandbox/paths";
import { run } from "../../sandbox/shell";
import { createJob, deleteJob, DOMAIN, ENV, ensurePlatform, finishedBuild, jenkinsAnswers, jobXml, kubectl, kubectlJson, onNode, pulumi, request, STACK, startBuild, up, waitFor } from "./sandbox";

jest.setTimeout(900_000);

/** A second environment on the cluster of the first: a stack file of its own, gone after the tests. */
const SECOND = "second";
const HOST = "second.sandbox.test";
const BASE = "/var/openebs/second";
const JOB = "e2e-of-the-first";
const stackFile = path.join(REPO, `Pulumi.${SECOND}.yaml`);
const firstFile = fs.readFileSync(path.join(REPO, `Pulumi.${STACK}.yaml`), "utf8");

interface Kept {
  kind: string;
  metadata: { name: string; namespace?: string; uid: string; resourceVersion: string; generation?: number };
  spec?: { claimRef?: { namespace: string }; storageClassName?: string; volumeName?: string };
}
const list = async (...args: string[]) => (await kubectlJson<{ items: Kept[] }>(["get", ...args])).items;
const home = (namespace: string) => kubectlJson<Kept>(["-n", namespace, "get", "pvc", "jenkins-home"]);

function writeConfig(further: Record<string, unknown>, without: string[] = []): void {
  const document = parse(firstFile) as { config: Record<string, unknown> };
  for (const key of without) delete document.config[`build-platform:${key}`];
  for (const [key, value] of Object.entries(further)) document.config[`build-platform:${key}`] = value;
  fs.writeFileSync(stackFile, stringify(document));
}

/** Which object is which, and in which version: of what holds data or is the cluster's to the last write, of the rest to the last change of what it asks for. */
async function firstObjects(): Promise<Record<string, string>> {
  const labelled = ["-l", "app.kubernetes.io/part-of=build-platform", "--all-namespaces"];
  const still = await list("namespaces,persistentvolumeclaims,storageclasses,ingressclasses,clusterroles,clusterrolebindings,secrets,configmaps,serviceaccounts,roles,rolebindings", ...labelled);
  const volumes = (await list("persistentvolumes")).filter(({ spec }) => spec?.claimRef?.namespace === "jenkins");
  const busy = await list("deployments,daemonsets,ingresses,services,networkpolicies,poddisruptionbudgets", ...labelled);
  const at = ({ kind, metadata }: Kept) => `${kind} ${metadata.namespace ?? "-"}/${metadata.name}`;
  return Object.fromEntries([
    ...[...still, ...volumes].map((object) => [at(object), `${object.metadata.uid} version ${object.metadata.resourceVersion}`]),
    ...busy.map((object) => [at(object), `${object.metadata.uid} generation ${object.metadata.generation}`]),
  ]);
}

/** Hash of each file of a job of the first environment. */
async function jobFiles(): Promise<string> {
  const folder = `/var/openebs/local/${(await home("jenkins")).spec!.volumeName}/jobs/${JOB}`;
  return (await onNode(["sh", "-c", `cd ${folder} && find . -type f -exec sha256sum {} + | sort -k 2`])).stdout;
}

const script = (name: string, ...args: string[]) =>
  run(process.execPath, ["--require", require.resolve("tsx/cjs"), path.join(REPO, "cli", `${name}.ts`), ...args], { cwd: REPO, env: ENV, allowFailure: true });
const images = async (stack: string) => JSON.parse((await pulumi(["stack", "output", "agentImages", "--stack", stack, "--json"])).stdout) as Record<string, string>;

let before: Record<string, string>;
let files: string;

beforeAll(async () => {
  await ensurePlatform();
  writeConfig({});
  await pulumi(["stack", "rm", SECOND, "--yes", "--force", "--preserve-config"], { allowFailure: true });
  await pulumi(["stack", "init", SECOND, "--no-select"]);
  await createJob(JOB, jobXml("maven", "echo of the first"));
  expect((await finishedBuild(JOB, await startBuild(JOB))).result).toBe("SUCCESS");
  await waitFor("the agent's pod to be gone", 120, async () => (await list("pods", "-n", "jenkins-agents", "-l", "jenkins=agent")).length === 0);
  before = await firstObjects();
  files = await jobFiles();
  expect(Object.keys(before)).toEqual(expect.arrayContaining(["Namespace -/jenkins", "PersistentVolumeClaim jenkins/jenkins-home", "Secret jenkins/jenkins-admin", "StorageClass -/openebs-hostpath", "Deployment jenkins/jenkins"]));
  expect(files).toMatch(/\.\/config\.xml\n[\s\S]*\.\/nextBuildNumber/);
});

afterAll(async () => {
  await pulumi(["destroy", "--stack", SECOND, "--yes", "--skip-preview"], { allowFailure: true });
  await pulumi(["stack", "rm", SECOND, "--yes", "--force"], { allowFailure: true });
  fs.rmSync(stackFile, { force: true });
  await deleteJob(JOB);
});

test("with the first one's names it is refused key by key, and nothing is made or taken over", async () => {
  const ended = await pulumi(["up", "--stack", SECOND, "--yes", "--skip-preview"], { allowFailure: true });
  expect(ended.code).not.toBe(0);
  const said = ended.stdout + ended.stderr;
  for (const words of [`Namespace jenkins of stack ${STACK}, Namespace jenkins-agents of stack ${STACK}`, "config set storageInstall class", "config set storageClass openebs-second", "config set --path ingress.controller none", "config set nodePortRange none"])
    expect(said).toContain(words);
  const state = JSON.parse((await pulumi(["stack", "export", "--stack", SECOND])).stdout) as { deployment: { resources?: { type: string }[] } };
  expect((state.deployment.resources ?? []).map(({ type }) => type).filter((type) => type !== "pulumi:pulumi:Stack")).toEqual([]);
  expect(await firstObjects()).toEqual(before);
});

test("with names of its own it comes up beside the first, which shares its ingress and provisioner with it, and both answer", async () => {
  writeConfig({ domain: HOST, namespace: "second", storageClass: "second-hostpath", storageInstall: "class", storageBasePath: BASE, nodePortRange: "none", ingress: { install: false } }, ["controlPlane"]);
  await pulumi(["up", "--stack", SECOND, "--yes", "--skip-preview"]);
  const login = await waitFor(`200 from /login of ${HOST}`, 120, async () => {
    const answer = await request("GET", "/login", { host: HOST });
    return answer.status === 200 && answer;
  });
  expect(login.body).toMatch(/j_username/);
  expect((await jenkinsAnswers()).body).toMatch(/j_username/);
  const [ours, theirs] = [await home("second"), await home("jenkins")];
  expect([ours.spec?.storageClassName, theirs.spec?.storageClassName]).toEqual(["second-hostpath", "openebs-hostpath"]);
  await onNode(["test", "-f", `${BASE}/${ours.spec?.volumeName}/config.xml`]);
  // The same content is the same image: nothing was built for the second one.
  expect(await images(SECOND)).toEqual(await images(STACK));
});

test("both build at the same time, each on agents in its own namespace, and neither knows the other's jobs", async () => {
  const seen = new Map<string, string>();
  let done = false;
  const watch = (async () => {
    while (!done) {
      for (const { metadata } of await list("pods", "--all-namespaces", "-l", "jenkins=agent")) seen.set(metadata.name, metadata.namespace!);
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
  })();
  const ended = await Promise.all([script("smoke", STACK), script("smoke", SECOND)]).finally(() => (done = true));
  await watch;
  for (const [i, stack] of [STACK, SECOND].entries()) {
    expect(ended[i].stdout).toMatch(new RegExp(`^${stack} builds$`, "m"));
    expect(ended[i].stdout.match(/^ok /gm)).toHaveLength(6);
  }
  expect([...seen.values()].sort()).toEqual(["jenkins-agents", "second-agents"]);
  const secret = await kubectlJson<{ data: Record<string, string> }>(["-n", "second", "get", "secret", "jenkins-admin"]);
  const auth = ["admin-user", "admin-password"].map((key) => Buffer.from(secret.data[key], "base64").toString()).join(":");
  const jobs = await request("GET", "/api/json", { host: HOST, auth });
  expect(jobs.status).toBe(200);
  expect(jobs.body).not.toContain(JOB);
  // Nor does one's password open the other.
  expect((await request("GET", "/api/json", { host: DOMAIN, auth })).status).toBe(401);
});

test("a second up of each changes nothing, and doctor finds both in order", async () => {
  expect(await up("--expect-no-changes")).toMatch(/\d+ unchanged/);
  expect((await pulumi(["up", "--stack", SECOND, "--yes", "--skip-preview", "--expect-no-changes"])).stdout).toMatch(/\d+ unchanged/);
  for (const stack of [STACK, SECOND]) expect((await script("doctor", stack)).stdout).toMatch(/^ok +names are free/m);
});

test("destroy of the second takes its data along and leaves the first as it was, to the byte", async () => {
  await pulumi(["destroy", "--stack", SECOND, "--yes", "--skip-preview"]);
  const left = (await kubectl(["get", "namespaces,storageclasses,persistentvolumes", "-o", "name"])).split("\n").filter((name) => name.includes("second"));
  expect(left).toEqual([]);
  expect((await list("persistentvolumes")).map(({ spec }) => spec?.claimRef?.namespace)).toEqual(["jenkins"]);
  expect((await onNode(["find", BASE, "-mindepth", "1"])).stdout).toBe("");
  expect(await firstObjects()).toEqual(before);
  expect(await jobFiles()).toBe(files);
  expect((await jenkinsAnswers()).status).toBe(200);
  expect((await request("GET", "/login", { host: HOST })).status).toBe(404);
});
