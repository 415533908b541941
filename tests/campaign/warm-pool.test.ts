import * as fs from "node:fs";
import * as path from "node:path";
import { parse, stringify } from "yaml";
import { REPO } from "../../sandbox/paths";
import { AGENTS_NAMESPACE, createJob, deleteJob, ensurePlatform, finishedBuild, jenkins, jenkinsAnswers, jobXml, kubectl, kubectlJson, NAMESPACE, realJenkins, STACK, startBuild, up, waitFor } from "../e2e/sandbox";

/** Agents that wait for builds, on the real Jenkins: what keeps them there is a script that only it runs. */

jest.setTimeout(900_000);

const stackFile = path.join(REPO, `Pulumi.${STACK}.yaml`);
const given = fs.readFileSync(stackFile, "utf8");
const jobs = ["warm-a", "warm-b", "other-a", "other-b", "other-c", "other-short"];

/** The stack with two kinds of agents more, of which one has agents that wait. */
async function configured(warm: Record<string, unknown>, agentCap = 3): Promise<void> {
  const document = parse(given) as { config: Record<string, unknown> };
  const agents = document.config["build-platform:agents"] as { image: string; minIdle?: number }[];
  const kind = { image: agents[0].image, docker: "none", resources: { requests: { cpu: "10m", memory: "64Mi" }, limits: { memory: "512Mi" } } };
  document.config["build-platform:agents"] = [...agents.map(({ minIdle: _, ...agent }) => agent), { ...kind, name: "other" }, { ...kind, name: "warm", ...warm }];
  document.config["build-platform:agentCap"] = agentCap;
  fs.writeFileSync(stackFile, stringify(document));
  await up();
  await jenkinsAnswers(300);
}

interface Computer { displayName: string; description: string; idle: boolean; offline: boolean }
/** Agents of the kind `warm`. */
const agents = async () => (JSON.parse(await jenkins("GET", "/computer/api/json?tree=computer[displayName,description,idle,offline]")) as { computer: Computer[] }).computer.filter(({ displayName }) => displayName.startsWith("warm-"));
const names = (list: Computer[]) => list.map(({ displayName }) => displayName).sort();
const pods = async (kind = "warm") => (await kubectlJson<{ items: { metadata: { name: string; deletionTimestamp?: string } }[] }>(["-n", AGENTS_NAMESPACE, "get", "pods", "-l", `build-platform/template=${kind}`])).items.filter(({ metadata }) => !metadata.deletionTimestamp).map(({ metadata }) => metadata.name).sort();
/** Waits until so many agents are connected, idle and without a build, and no other is there. */
const waiting = (count: number, seconds = 240) =>
  waitFor(`${count} agents that wait`, seconds, async () => {
    const found = await agents();
    return found.length === count && found.every(({ idle, offline, description }) => idle && !offline && description.startsWith("Ready")) && (await pods()).length === count && names(found);
  });
const logSince = (time: string) => kubectl(["-n", NAMESPACE, "logs", "deployment/jenkins", "-c", "jenkins", `--since-time=${time}`]);
/** Agents of a kind that were made since then. */
const created = async (kind: string, time: string) => [...(await logSince(time)).matchAll(/Created Pod: \S+ \S+\/(\w+)-(\w+)/g)].filter(([, of]) => of === kind).map(([, of, end]) => `${of}-${end}`).sort();
const pause = (seconds: number) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
const restart = async () => {
  await kubectl(["-n", NAMESPACE, "delete", "pod", "-l", "app.kubernetes.io/name=jenkins,app.kubernetes.io/component=controller"]);
  await kubectl(["-n", NAMESPACE, "rollout", "status", "deployment/jenkins", "--timeout=300s"]);
  await jenkinsAnswers(300);
};

beforeAll(async () => {
  if (!realJenkins) throw new Error("The stand-in runs no Groovy, so that it keeps no agents ready: bring the sandbox up with the real Jenkins (CONTRIBUTING.md) and set E2E_JENKINS=real.");
  await ensurePlatform();
  await configured({ minIdle: 2 });
  for (const job of jobs) {
    await deleteJob(job);
    await createJob(job, jobXml(job.split("-")[0], job === "other-short" ? "true" : "echo built; sleep 10"));
  }
});

afterAll(async () => {
  fs.writeFileSync(stackFile, given);
  if (!realJenkins) return;
  for (const job of jobs) await deleteJob(job);
  await up();
});

test("agents are connected before any build, each has one, and another takes its place", async () => {
  const [first, begun] = [await waiting(2), new Date().toISOString()];
  const built = await Promise.all(["warm-a", "warm-b"].map(async (job) => finishedBuild(job, await startBuild(job))));
  expect(built.map(({ result }) => result)).toEqual(["SUCCESS", "SUCCESS"]);
  expect(built.map(({ builtOn }) => builtOn).sort()).toEqual(first);
  const second = await waiting(2);
  expect(second.filter((name) => first.includes(name))).toEqual([]);
  // None was made for builds that had theirs at once.
  expect(await created("warm", begun)).toEqual(second);
});

test("where the cap leaves no room for others' builds, agents that only wait go, and come back", async () => {
  await waiting(2);
  const numbers = await Promise.all(["other-a", "other-b", "other-c"].map(async (job) => [job, await startBuild(job)] as const));
  // The cap is three: all three can run at once only where none waits.
  await waitFor("three builds at once", 180, async () => (await pods("other")).length === 3);
  expect(await pods()).toEqual([]);
  for (const [job, number] of numbers) expect((await finishedBuild(job, number)).result).toBe("SUCCESS");
  await waiting(2);
});

test("they outlive a restart of the controller, and none is made beside them", async () => {
  const before = await waiting(2);
  await restart();
  const seen = new Set<string>();
  const until = Date.now() + 60_000;
  while (Date.now() < until) {
    for (const name of await pods()) seen.add(name);
    await pause(1);
  }
  expect([...seen].sort()).toEqual(before);
  expect(await waiting(2)).toEqual(before);
});

test("in quiet mode none is made", async () => {
  const [gone, stays] = await waiting(2);
  await jenkins("POST", "/quietDown");
  await kubectl(["-n", AGENTS_NAMESPACE, "delete", "pod", gone, "--grace-period=1"]);
  await waitFor("the deleted agent to be gone", 60, async () => names(await agents()).join() === stays);
  await pause(15);
  expect(names(await agents())).toEqual([stays]);
  await jenkins("POST", "/cancelQuietDown");
  expect(await waiting(2)).toContain(stays);
});

test("a changed template has agents of its own, and none of the former is left", async () => {
  const before = await waiting(2);
  await configured({ minIdle: 2, env: { CHANGED: "yes" } });
  const after = await waitFor("agents of the changed template", 300, async () => {
    const found = await waiting(2);
    return !found.some((name) => before.includes(name)) && found;
  });
  for (const name of after) expect((await kubectl(["-n", AGENTS_NAMESPACE, "get", "pod", name, "-o", "jsonpath={.spec.containers[*].env[*].name}"])).split(" ")).toContain("CHANGED");
});

test("builds that end before the launcher has looked have an agent each, which goes in order", async () => {
  const [on, begun]: [(string | undefined)[], string] = [[], new Date().toISOString()];
  for (let i = 0; i < 12; i++) {
    const { result, builtOn } = await finishedBuild("other-short", await startBuild("other-short"));
    expect(result).toBe("SUCCESS");
    on.push(builtOn);
  }
  expect(new Set(on).size).toBe(12);
  await waitFor("their pods to be gone", 60, async () => (await pods("other")).length === 0);
  const log = await logSince(begun);
  expect(log.split("\n").filter((line) => /Error in provisioning|Failed to launch|below zero|is let in by/.test(line))).toEqual([]);
  // None was made that no build had.
  expect(await created("other", begun)).toEqual([...on].sort());
});

test("only within its times, and with another number none is renewed", async () => {
  const [minute, hour] = [new Date(Date.now() + 30 * 60_000).getUTCMinutes(), new Date(Date.now() + 30 * 60_000).getUTCHours()];
  const before = await waiting(2);
  await configured({ minIdle: 1, env: { CHANGED: "yes" } });
  expect(before).toContain((await waiting(1))[0]);
  await configured({ minIdle: 1, minIdleTimes: `${minute} ${hour} * * *`, env: { CHANGED: "yes" } });
  await waiting(0);
});

test("without minIdle none waits, and the script leaves nothing in the home", async () => {
  await configured({ minIdle: 1 });
  await waiting(1);
  await configured({});
  await waiting(0);
  expect(await kubectl(["-n", NAMESPACE, "exec", "deployment/jenkins", "-c", "jenkins", "--", "find", "/var/jenkins_home/init.groovy.d", "-name", "build-platform*"])).toBe("");
});
