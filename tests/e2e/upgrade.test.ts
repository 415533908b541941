import * as fs from "node:fs";
import * as path from "node:path";
import { CACHE, REGISTRY } from "../../sandbox/paths";
import { run } from "../../sandbox/shell";
import { releases } from "../../tools/releases";
import { atCommit } from "../../cli/repository";
import { adminAuth, createJob, deleteJob, ensurePlatform, finishedBuild, jenkins, jenkinsAnswers, jobXml, kubectl, kubectlJson, pulumi, request, STACK, startBuild, up } from "./sandbox";

/**
 * The way from the former release to this one: its whole program makes the platform from nothing, people use it, and this
 * program takes it over. What may be seen of that is one restart of the controller, where its image or its pod changed.
 */
jest.setTimeout(900_000);

const [, former] = releases();

/**
 * The former version in a folder gets the stand-in for Jenkins that it was made with: later ones refuse what later Jenkins refuse,
 * the former version's own document among it.
 */
async function giveItsOwnJenkins(folder: string): Promise<void> {
  const build = `const { buildImages, pushImages } = require("./sandbox/images/index");
    buildImages({ cacheDir: ${JSON.stringify(CACHE)}, only: ["jenkins"], binaries: "", log: console.error })
      .then((images) => pushImages(images.filter(({ name }) => name === "jenkins").map((image) => ({ ...image, tag: "${former.version}" })), "${REGISTRY}"))
      .catch((error) => { console.error(error.message); process.exitCode = 1; });`;
  await run(process.execPath, ["--require", require.resolve("tsx/cjs"), "-e", build], { cwd: folder });
  const file = path.join(folder, `Pulumi.${STACK}.yaml`);
  const given = fs.readFileSync(file, "utf8");
  const changed = given.replace(/(jenkins\/jenkins):\S+/, `$1:${former.version}`);
  expect(changed).not.toBe(given);
  fs.writeFileSync(file, changed);
}

/** Objects that hold what nobody can make again, by kind and name. */
const stateful = [
  "persistentvolumeclaim/jenkins-home", "secret/jenkins-admin", "namespace/jenkins", "namespace/jenkins-agents", "namespace/openebs", "namespace/ingress-nginx", "storageclass/openebs-hostpath",
];
const identities = async () => Object.fromEntries(await Promise.all(stateful.map(async (object) => [object, await kubectl(["-n", "jenkins", "get", object, "-o", "jsonpath={.metadata.uid}"])])));
const volumes = () => kubectl(["get", "pv", "-o", "jsonpath={.items[*].metadata.uid}"]);

interface Step {
  op: string;
  urn: string;
}
const typeOf = ({ urn }: Step) => urn.split("::")[2].split("$").pop()!;

/** Asks for the login page every half second until stopped; the times without an answer, in seconds. */
function watchLogin() {
  const gaps: number[] = [];
  let [stopped, asked, down] = [false, 0, undefined as number | undefined];
  const ended = (async () => {
    // Once more after the end, so that a gap's end is seen.
    for (let last = false; !last; ) {
      last = stopped;
      const at = Date.now();
      const good = await request("GET", "/login", { timeout: 5000 }).then(({ status }) => status === 200, () => false);
      asked++;
      if (!good) down ??= at;
      else if (down !== undefined) {
        gaps.push((Date.now() - down) / 1000);
        down = undefined;
      }
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
    if (down !== undefined) gaps.push(Infinity);
    return { gaps, asked };
  })();
  return { stop: () => ((stopped = true), ended) };
}

interface Deployment {
  metadata: { annotations: Record<string, string> };
  spec: { template: unknown };
}
const controller = () => kubectlJson<Deployment>(["-n", "jenkins", "get", "deployment", "jenkins"]);
const wayIn = () => kubectlJson<Deployment>(["-n", "ingress-nginx", "get", "deployment", "ingress-nginx-controller"]);
const differs = (then: Deployment, now: Deployment) => JSON.stringify(now.spec.template) !== JSON.stringify(then.spec.template);
const revision = ({ metadata }: Deployment) => Number(metadata.annotations["deployment.kubernetes.io/revision"]);
const restarts = () => kubectl(["-n", "jenkins", "get", "pods", "-l", "app.kubernetes.io/name=jenkins,app.kubernetes.io/component=controller", "-o", "jsonpath={.items[*].status.containerStatuses[*].restartCount}"]);

describe(`from ${former.version} to this version`, () => {
  const job = "e2e-upgrade";
  const jobs = () => jenkins("GET", "/api/json?tree=jobs[name]");
  /** Hudson keeps the seconds of a build's start only. */
  const history = async () => (await jenkins("GET", `/job/${job}/api/json?tree=nextBuildNumber,builds[number,result,timestamp,duration]`)).replace(/("timestamp":\d+)\d{3}/g, "$1");

  beforeAll(async () => {
    await pulumi(["stack", "select", "--create", STACK]);
    await pulumi(["destroy", "--stack", STACK, "--yes", "--skip-preview"]);
    await atCommit(former.commit!, async (folder) => {
      await giveItsOwnJenkins(folder);
      await pulumi(["up", "--stack", STACK, "--yes", "--skip-preview"], { cwd: folder });
    });
    await jenkinsAnswers();
    await createJob(job, jobXml("maven", "echo made by the former version"));
    expect((await finishedBuild(job, await startBuild(job))).result).toBe("SUCCESS");
  });
  // Whatever failed above, the next file finds this version's platform.
  afterAll(async () => {
    await ensurePlatform();
    await deleteJob(job);
  });

  test("preview replaces and deletes nothing that holds data", async () => {
    interface Preview { steps: Step[]; changeSummary: Record<string, number> }
    const { steps, changeSummary } = JSON.parse((await pulumi(["preview", "--stack", STACK, "--json"])).stdout) as Preview;
    const changed = steps.filter(({ op }) => op !== "same");
    console.info(`from ${former.version}: ${changed.map((step) => `${step.op} ${typeOf(step)} ${step.urn.split("::").pop()}`).join("; ") || "nothing changes"}; ${changeSummary.same} the same`);
    const held = /:(PersistentVolumeClaim|PersistentVolume|Namespace|Secret|StorageClass)$|^command:/;
    expect(steps.filter((step) => held.test(typeOf(step)) && /replace|delete/.test(step.op))).toEqual([]);
    // It knew the former version's objects: all that hold data are as they were.
    expect(changeSummary.same).toBeGreaterThan(stateful.length);
  });

  test("up keeps password, jobs, builds and every object that holds data; people miss Jenkins once at most, but for the moment in which a way in of the former kind ends, and a second up changes nothing", async () => {
    const before = { auth: await adminAuth(), jobs: await jobs(), history: await history(), identities: await identities(), volumes: await volumes() };
    const [then, wayInThen] = [await controller(), await wayIn()];
    const watch = watchLogin();
    try {
      await up();
      await jenkinsAnswers();
    } finally {
      await watch.stop();
    }
    const { gaps, asked } = await watch.stop();

    const now = await controller();
    const restarted = differs(then, now);
    const rolled = differs(wayInThen, await wayIn());
    console.info(`from ${former.version}: ${restarted ? "the controller started anew" : "the controller ran on"}; asked ${asked} times, without an answer: ${gaps.map((seconds) => `${seconds.toFixed(1)} s`).join(", ") || "never"}`);
    // Pods of ingress-nginx as former versions made them end before the nodes know that they do.
    expect(gaps.filter((seconds) => seconds > 2).length).toBeLessThanOrEqual(restarted ? 1 : 0);
    expect(gaps.length).toBeLessThanOrEqual((restarted ? 1 : 0) + (rolled ? 1 : 0));
    expect(gaps).not.toContain(Infinity);
    expect(revision(now) - revision(then)).toBe(restarted ? 1 : 0);
    // A pod that has ended may still be listed.
    expect((await restarts()).split(" ").filter((count) => count !== "0")).toEqual([]);

    expect(await adminAuth()).toBe(before.auth);
    expect((await request("GET", "/api/json", { auth: before.auth })).status).toBe(200);
    expect({ jobs: await jobs(), history: await history(), identities: await identities(), volumes: await volumes() }).toEqual({ jobs: before.jobs, history: before.history, identities: before.identities, volumes: before.volumes });

    expect(await up("--expect-no-changes")).toMatch(/\d+ unchanged/);
    // The former version's job builds on this version's agents.
    const next = await finishedBuild(job, await startBuild(job));
    expect(next).toMatchObject({ number: 2, result: "SUCCESS" });
  });
});
