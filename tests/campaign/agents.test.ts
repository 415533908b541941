import { pipelineXml } from "../../cli/jenkins";
import { waitFor } from "../../sandbox/shell";
import { createJob, deleteJob, ensurePlatform, finishedBuild, firstAgentImage, jenkins, jenkinsAnswers, jenkinsVersion, jobXml, kubectl, kubectlJson, plainTemplate, realJenkins, sandbox, setCloud, startBuild } from "../e2e/sandbox";

/** Agents on several nodes: nodes that come, go in order and go without a word while builds wait and run; a controller that dies. */

jest.setTimeout(1_500_000);

interface Pod {
  metadata: { name: string };
  spec: { nodeName?: string };
}
interface JobBuilds {
  builds: { number: number; result: string | null; builtOn: string; building: boolean }[];
}

const WORKER = "worker-1";
const FIRST = "control-plane-1";
const agentPods = async () => (await kubectlJson<{ items: Pod[] }>(["-n", "jenkins-agents", "get", "pods", "-l", "jenkins=agent"])).items;
const noAgents = (seconds = 180) => waitFor("all agents' pods to be gone", seconds, async () => (await agentPods()).length === 0);
const workerJoined = async () => (await kubectl(["get", "nodes", "-o", "name"])).includes(`node/${WORKER}`);

async function removeWorker(): Promise<void> {
  if (await workerJoined()) await sandbox("remove-node", WORKER);
}

/** Jobs with one build each, started at once; each build says where it ran. */
class Load {
  readonly jobs: string[];
  /** Node of every agent pod that was seen. */
  readonly nodes = new Map<string, string>();

  constructor(name: string, count: number) {
    this.jobs = Array.from({ length: count }, (_, i) => `${name}-${i + 1}`);
  }

  async start(seconds: number): Promise<void> {
    for (const job of this.jobs) await createJob(job, jobXml("maven", `echo begun; sleep ${seconds}; echo ended`));
    for (const job of this.jobs) await startBuild(job);
  }

  async look(): Promise<void> {
    for (const { metadata, spec } of await agentPods()) if (spec.nodeName) this.nodes.set(metadata.name, spec.nodeName);
  }

  /** How many builds run on agents of a node. */
  async running(node: string): Promise<string[]> {
    await this.look();
    const builds = await this.builds();
    return this.jobs.filter((job) => builds[job].some(({ building, builtOn }) => building && this.nodes.get(builtOn) === node));
  }

  async builds(): Promise<Record<string, JobBuilds["builds"]>> {
    const { jobs } = JSON.parse(await jenkins("GET", "/api/json?depth=2")) as { jobs: ({ name: string } & JobBuilds)[] };
    return Object.fromEntries(this.jobs.map((job) => [job, jobs.find(({ name }) => name === job)?.builds ?? []]));
  }

  /** Waits until every job has its `count`th build behind it and nothing waits or runs. */
  async drained(count: number, seconds: number): Promise<void> {
    await waitFor("the queue to be drained", seconds, async () => {
      await this.look();
      return Object.values(await this.builds()).every((builds) => builds.length >= count && builds.every(({ building }) => !building));
    });
  }

  /** Nodes on which the builds ran. */
  async places(): Promise<string[]> {
    return [...new Set(Object.values(await this.builds()).flat().map(({ builtOn }) => this.nodes.get(builtOn) ?? `unseen ${builtOn}`))].sort();
  }

  async remove(): Promise<void> {
    for (const job of this.jobs) await deleteJob(job);
  }
}

/** Exactly one build for each job, all good, each on an agent of its own. */
async function builtOnce(load: Load): Promise<void> {
  const builds = await load.builds();
  const told = async (job: string, { number, result, builtOn }: JobBuilds["builds"][number]) =>
    result === "SUCCESS" ? result : `${result} on ${load.nodes.get(builtOn) ?? builtOn}: ${await jenkins("GET", `/job/${job}/${number}/consoleText`)}`;
  const results = await Promise.all(load.jobs.map(async (job) => [job, await Promise.all(builds[job].map((build) => told(job, build)))]));
  expect(results).toEqual(load.jobs.map((job) => [job, ["SUCCESS"]]));
  const agents = Object.values(builds).flat().map(({ builtOn }) => builtOn);
  expect(new Set(agents).size).toBe(agents.length);
}

beforeAll(async () => {
  await ensurePlatform();
  await removeWorker();
});
afterAll(removeWorker);

test("a node that joins while builds wait takes its share, and every build runs exactly once", async () => {
  const load = new Load("campaign-grow", 16);
  try {
    await load.start(40);
    await waitFor("the first agents", 120, async () => (await load.running(FIRST)).length > 0);
    await sandbox("add-node", WORKER);
    await load.drained(1, 900);
    await builtOnce(load);
    expect(await load.places()).toEqual([FIRST, WORKER]);
  } finally {
    await load.remove();
    await noAgents();
  }
});

test("a node that is cordoned and drained under load goes when its builds have ended: none is lost, none runs twice", async () => {
  if (!(await workerJoined())) await sandbox("add-node", WORKER);
  const load = new Load("campaign-shrink", 12);
  try {
    await load.start(60);
    const there = await waitFor(`builds on ${WORKER}`, 240, async () => {
      const running = await load.running(WORKER);
      return running.length >= 2 && running;
    });
    await kubectl(["cordon", WORKER]);
    await kubectl(["drain", WORKER, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=600s"]);
    // The drain came back only after these had ended by themselves.
    const builds = await load.builds();
    for (const job of there) expect([job, builds[job].map(({ result }) => result)]).toEqual([job, ["SUCCESS"]]);
    await removeWorker();
    await load.drained(1, 600);
    await builtOnce(load);
  } finally {
    await load.remove();
    await noAgents();
  }
});

test("a node that loses its power takes only the builds that ran on it: they end as failed, and built again all are good", async () => {
  if (!(await workerJoined())) await sandbox("add-node", WORKER);
  const load = new Load("campaign-power", 8);
  try {
    await load.start(90);
    await waitFor(`builds on ${WORKER}`, 240, async () => (await load.running(WORKER)).length >= 2);
    await sandbox("stop-node", WORKER);
    // What an operator does with a machine that will not come back. Its pods go with it, and Jenkins hears of that.
    await kubectl(["delete", "node", WORKER]);
    await load.drained(1, 600);
    const builds = await load.builds();
    const lost = load.jobs.filter((job) => load.nodes.get(builds[job][0].builtOn) === WORKER);
    expect(lost.length).toBeGreaterThanOrEqual(2);
    for (const job of load.jobs) {
      expect([job, builds[job].length]).toEqual([job, 1]);
      if (lost.includes(job)) expect(["FAILURE", "ABORTED"]).toContain(builds[job][0].result);
      else expect([job, builds[job][0].result]).toEqual([job, "SUCCESS"]);
    }
    // What a pipeline's retry does by itself.
    for (const job of lost) expect((await finishedBuild(job, await startBuild(job))).result).toBe("SUCCESS");
  } finally {
    await load.remove();
    await sandbox("remove-node", WORKER).catch(() => undefined);
    await noAgents();
  }
});

test("an agent whose controller was killed in its build goes once the garbage collection's five minutes are over", async () => {
  await createJob("campaign-orphan", jobXml("maven", "sleep 900"));
  try {
    await startBuild("campaign-orphan");
    const pod = await waitFor("the agent to build", 180, async () => {
      const [builds] = (JSON.parse(await jenkins("GET", "/job/campaign-orphan/api/json?depth=1")) as JobBuilds).builds;
      return builds?.building && (await agentPods()).find(({ metadata }) => metadata.name === builds.builtOn)?.metadata.name;
    });
    await kubectl(["-n", "jenkins", "delete", "pod", "-l", "app.kubernetes.io/name=jenkins,app.kubernetes.io/component=controller", "--grace-period=0", "--force"]);
    const killed = Date.now();
    await jenkinsAnswers(300);
    // The real one finds the agent among the nodes of its home, lets it connect again, and takes it away as idle: it is no orphan there.
    const orphan = (await jenkinsVersion()) === undefined;
    // The controller that came up did not take a pod for its own, or away, at once: a pipeline could have gone on in it.
    expect((await agentPods()).map(({ metadata }) => metadata.name)).toContain(pod);
    await waitFor("the orphan to be gone", 600, async () => !(await agentPods()).some(({ metadata }) => metadata.name === pod));
    if (orphan) {
      expect((Date.now() - killed) / 1000).toBeGreaterThan(200);
      const log = await kubectl(["-n", "jenkins", "logs", "deployment/jenkins", "-c", "jenkins"]);
      expect(log).toContain(`pod jenkins-agents/${pod} belongs to no agent of this controller`);
    }
    // The next build gets a fresh agent.
    await jenkins("POST", "/job/campaign-orphan/config.xml", jobXml("maven", "true"), "application/xml");
    expect((await finishedBuild("campaign-orphan", await startBuild("campaign-orphan"))).result).toBe("SUCCESS");
  } finally {
    await deleteJob("campaign-orphan");
    await noAgents(420);
  }
});

test("a build that fills its Docker disk is evicted alone, and its log says so", async () => {
  const [full, other] = ["campaign-full", "campaign-beside"];
  const shell = "dd if=/dev/zero of=big bs=1M count=700 status=none\necho 'FROM scratch' > Dockerfile\necho 'COPY big /big' >> Dockerfile\ndocker build -q -t full .\nsleep 120";
  const dindImage = await firstAgentImage("dind");
  const controller = () => kubectl(["-n", "jenkins", "get", "pods", "-l", "app.kubernetes.io/component=controller", "-o", "jsonpath={.items[*].metadata.uid} {.items[*].status.containerStatuses[*].restartCount}"]);
  const before = await controller();
  await setCloud(full, { ...(await plainTemplate(full)), docker: "dind", dockerSize: "500Mi" }, { dindImage, buildkitImage: "", insecureRegistries: [] });
  try {
    await createJob(other, jobXml("maven", "sleep 90; echo ended"));
    // Only pods that a pipeline asks for itself know the build whose log the kubernetes plugin may write to.
    await createJob(full, realJenkins ? pipelineXml(`podTemplate(cloud: '${full}', inheritFrom: '${full}') { node(POD_LABEL) { sh '''${shell}''' } }`) : jobXml(full, shell));
    const beside = await startBuild(other);
    const filled = await startBuild(full);
    const evicted = await waitFor("the eviction", 300, async () => {
      const { items } = await kubectlJson<{ items: { message: string; involvedObject: { name: string } }[] }>(["-n", "jenkins-agents", "get", "events", "--field-selector", "reason=Evicted"]);
      return items.find(({ involvedObject }) => involvedObject.name.startsWith(full));
    });
    expect(evicted.message).toMatch(/EmptyDir volume "docker-data" exceeds the limit "500Mi"/);
    const { result, console } = await finishedBuild(full, filled);
    expect(result).not.toBe("SUCCESS");
    if (realJenkins) expect(console).toMatch(/Evicted[\s\S]*docker-data/);
    expect((await finishedBuild(other, beside)).result).toBe("SUCCESS");
    expect(await controller()).toBe(before);
  } finally {
    for (const job of [full, other]) await deleteJob(job);
    await setCloud(full);
    await noAgents();
  }
});
