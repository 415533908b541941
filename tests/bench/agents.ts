import { spawn } from "node:child_process";
import * as http from "node:http";
import * as os from "node:os";
import type { AddressInfo } from "node:net";
import { agentPod, type AgentTemplate } from "../../components/jenkins-master/agents";
import { NETWORK } from "../../sandbox/paths";
import { run } from "../../sandbox/shell";
import { AGENTS_NAMESPACE, createJob, deleteJob, ENV, ensurePlatform, finishedBuild, jenkins, jenkinsAnswers, jenkinsClient, jenkinsVersion, jobXml, kubectl, NAMESPACE, plainTemplate, setCloud, waitFor } from "../e2e/sandbox";
import { saveBench } from "./table";

/**
 * From the trigger of a job to the first line of its build, beside `kubectl run` of the same pod: one at a time, twenty at once, from
 * an agent that waits, and first after a start of the controller, in one run. Both say that they began with the same request to this
 * process. The real Jenkins (E2E_JENKINS=real, CONTRIBUTING.md) has a table of its own; the stand-in's is a regression check. Agents
 * with jars on the node need a stack in which some kind has remoting in caches. BENCH_ONE and BENCH_ROUNDS make a short trial of it.
 */
const ONE = Number(process.env.BENCH_ONE ?? 60);
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 7);
const AT_ONCE = 20;
const STARTS = 3;
const LABEL = "bench";
const WARM = "bench-warm";
const KEPT = "bench-kept";
const namespace = AGENTS_NAMESPACE;

/** The value below which `share` of all values lie, by nearest rank. */
const quantile = (values: number[], share: number): number => [...values].sort((a, b) => a - b)[Math.max(0, Math.ceil(share * values.length) - 1)];
const both = (values: number[]): string => `${quantile(values, 0.5).toFixed(2)} / ${quantile(values, 0.99).toFixed(2)} s`;

interface Signal {
  /** Milliseconds since the epoch. */
  at: number;
  /** Seconds since the container's first process started. */
  age: number;
  /** Name of the pod. */
  pod: string;
}

/** Listens for the signals, which name what began; a name that comes twice is kept twice. */
class Listener {
  readonly signals = new Map<string, Signal[]>();
  private readonly server = http.createServer((req, res) => {
    const url = new URL(req.url ?? "/", "http://bench");
    const name = url.pathname.slice(1);
    this.signals.set(name, [...(this.signals.get(name) ?? []), { at: Date.now(), age: Number(url.searchParams.get("age")), pod: url.searchParams.get("pod") ?? "" }]);
    res.end();
  });

  async start(): Promise<void> {
    await new Promise<void>((resolve) => this.server.listen(0, NETWORK.gateway, resolve));
  }

  stop(): void {
    this.server.close();
    this.server.closeAllConnections();
  }

  /** Where the signal called `name` goes. */
  url(name: string): string {
    return `http://${NETWORK.gateway}:${(this.server.address() as AddressInfo).port}/${name}`;
  }

  /** Shell that sends the signal called `name`. */
  shell(name: string): string {
    // Field 22 of a process' stat is when it started, in hundredths of a second since the machine's own start.
    return `age=$(awk 'NR==1{up=$1} NR==2{sub(/.*\\) /,""); printf "%.2f", up-$20/100}' /proc/uptime /proc/1/stat); curl -sf "${this.url(name)}?age=$age&pod=$HOSTNAME"`;
  }

  async first(name: string, seconds = 180): Promise<Signal> {
    return waitFor(`the first line of ${name}`, seconds, async () => this.signals.get(name)?.[0]);
  }
}

/** The lightest agent the platform renders: no docker daemon, no caches. */
const lightTemplate = async (): Promise<AgentTemplate> => ({
  ...(await plainTemplate(LABEL)), cap: 50, resources: { requests: { cpu: "10m", memory: "64Mi" }, limits: { memory: "512Mi" } },
});
const settings = { dindImage: "", buildkitImage: "", insecureRegistries: [] };

const benchPods = async () => (await kubectl(["-n", namespace, "get", "pods", "-l", `build-platform/template in (${LABEL},${KEPT})`, "-o", "name"])).split("\n").filter(Boolean);
const noPods = () => waitFor("the pods to be gone", 180, async () => (await benchPods()).length === 0);

/** Every pod of the bench that ever was, as the API server tells while it runs. */
function watchPods(): { seen: Set<string>; stop: () => void } {
  const seen = new Set<string>();
  const child = spawn("kubectl", ["-n", namespace, "get", "pods", "-l", `build-platform/template=${LABEL},jenkins=agent`, "--watch-only", "-o", "name"], { env: ENV, stdio: ["ignore", "pipe", "ignore"] });
  child.stdout.on("data", (chunk: Buffer) => chunk.toString().split("\n").filter(Boolean).forEach((line) => seen.add(line)));
  return { seen, stop: () => void child.kill() };
}

/** An agent of the kind that waits, which no build had, other than `former`. */
const ready = (former: string) =>
  waitFor("an agent that waits", 180, async () => {
    const { computer } = JSON.parse(await jenkins("GET", "/computer/api/json?tree=computer[displayName,description,offline,idle]")) as { computer: { displayName: string; description: string; offline: boolean; idle: boolean }[] };
    return computer.find(({ displayName, description, offline, idle }) => displayName.startsWith(`${WARM}-`) && displayName !== former && description.startsWith("Ready") && !offline && idle)?.displayName;
  });

interface Sample {
  /** Seconds from the trigger to the first line. */
  seconds: number;
  /** Of these, seconds since the container started. */
  age: number;
}

async function main(): Promise<void> {
  await ensurePlatform();
  const listener = new Listener();
  await listener.start();
  const template = await lightTemplate();
  const pod = agentPod(template, settings);
  const real = await jenkinsVersion();
  await setCloud(LABEL, template, settings);
  const keeper = await kubectl(["-n", namespace, "get", "daemonset", "agent-cache", "--ignore-not-found", "-o", "jsonpath={.spec.template.spec.containers[0].command}{'\\n'}{.spec.template.spec.volumes[0].hostPath.path}"]);
  const keepsJars = real !== undefined && keeper.includes("/agents/remoting");
  if (keepsJars) await setCloud(KEPT, { ...template, name: KEPT, label: KEPT, caches: ["remoting"] }, { ...settings, cachePath: keeper.trim().split("\n").pop()! });
  const client = await jenkinsClient();
  const jobs = Array.from({ length: AT_ONCE }, (_, i) => `bench-${i}`);
  const keptJobs = keepsJars ? jobs.map((job) => `${job}-kept`) : [];
  const watch = watchPods();
  const builds: { job: string; number: number; name: string }[] = [];
  try {
    for (const job of [...jobs, ...keptJobs]) await createJob(job, jobXml(keptJobs.includes(job) ? KEPT : LABEL, `name=$JOB_NAME-$BUILD_NUMBER; ${listener.shell("$name")}`));

    /** One build of a job, from the trigger on. */
    const build = async (job: string): Promise<Sample> => {
      const number = builds.filter((each) => each.job === job).length + 1;
      const name = `${job}-${number}`;
      builds.push({ job, number, name });
      const started = Date.now();
      await client.post(`/job/${job}/build?delay=0sec`);
      const { at, age } = await listener.first(name);
      return { seconds: (at - started) / 1000, age };
    };
    let bares = 0;
    const bareSpec = (shell: string) => {
      const object = structuredClone(pod) as { metadata: { labels: Record<string, string> }; spec: { containers: { command?: string[] }[] } };
      object.metadata.labels.jenkins = "bare";
      object.spec.containers[0].command = ["sh", "-c", `${shell}; exec sleep 600`];
      return object;
    };
    /** The same pod without Jenkins. */
    const bare = async (shell = ""): Promise<Sample> => {
      const name = `bench-bare-${++bares}`;
      const object = bareSpec(`${listener.shell(name)}; ${shell || ":"}`);
      const started = Date.now();
      const image = (object.spec.containers[0] as { image?: string }).image!;
      await run("kubectl", ["-n", namespace, "run", name, `--image=${image}`, "--restart=Never", `--overrides=${JSON.stringify(object)}`], { env: ENV });
      const { at, age } = await listener.first(name);
      return { seconds: (at - started) / 1000, age };
    };
    const clear = () => kubectl(["-n", namespace, "delete", "pods", "-l", `build-platform/template=${LABEL},jenkins=bare`, "--grace-period=0", "--force", "--ignore-not-found"]);

    // Images and caches warm, unmeasured.
    await build(jobs[0]);
    if (keepsJars) await build(keptJobs[0]);
    await bare();
    await clear();
    await noPods();

    const loads: string[] = [];
    const load = (part: string) => {
      loads.push(`${part} ${os.loadavg()[0].toFixed(1)}`);
      process.stderr.write(`${part}: load ${os.loadavg()[0].toFixed(1)} ...\n`);
    };
    const seconds = (samples: Sample[]) => samples.map((sample) => sample.seconds);
    const tell = (what: string, samples: Sample[]) => void (samples.length > 0 && process.stderr.write(`   ${what}: ${both(seconds(samples))} (${samples.length})\n`));
    load("one at a time");
    const one: [Sample[], Sample[]] = [[], []];
    const kept: Sample[] = [];
    for (let i = 0; i < ONE; i++) {
      one[0].push(await build(jobs[i % jobs.length]));
      await noPods();
      if (keepsJars) kept.push(await build(keptJobs[i % keptJobs.length]));
      await noPods();
      one[1].push(await bare());
      await clear();
      await noPods();
    }
    tell("builds", one[0]);
    tell("builds, jars kept", kept);
    tell("bare pods", one[1]);
    load("20 at once");
    const many: [Sample[], Sample[]] = [[], []];
    const manyKept: Sample[] = [];
    for (let i = 0; i < ROUNDS; i++) {
      many[0].push(...(await Promise.all(jobs.map(build))));
      await noPods();
      manyKept.push(...(await Promise.all(keptJobs.map(build))));
      await noPods();
      many[1].push(...(await Promise.all(jobs.map(() => bare()))));
      await clear();
      await noPods();
    }
    tell("builds", many[0]);
    tell("builds, jars kept", manyKept);
    tell("bare pods", many[1]);

    // From agents that wait. The moment is that in which it runs what builds begin with.
    const warm: Sample[] = [];
    if (real) {
      load("an agent waits");
      await setCloud(WARM, { ...template, name: WARM, label: WARM, minIdle: 1 }, settings);
      await createJob(WARM, jobXml(WARM, `name=$JOB_NAME-$BUILD_NUMBER; ${listener.shell("$name")}`));
      for (let i = 0, agent = ""; i < ONE; i++) {
        agent = await ready(agent);
        await new Promise((resolve) => setTimeout(resolve, 5000));
        warm.push(await build(WARM));
      }
      tell("builds", warm);
    }

    // The first agent of a controller that has just started, from its first answer on.
    load("starts");
    const starts: number[] = [];
    for (let i = 0; real !== undefined && i < STARTS; i++) {
      await kubectl(["-n", NAMESPACE, "delete", "pod", "-l", "app.kubernetes.io/name=jenkins,app.kubernetes.io/component=controller"]);
      await jenkinsAnswers(600);
      starts.push((await build(jobs[0])).seconds);
      await noPods();
    }

    // What the agent's program costs by itself: its JVM up to the first class of the agent, in the same pod.
    const programs: number[] = [];
    for (let i = 0; i < 5; i++) {
      const agent = `curl -sf -o /tmp/agent.jar http://jenkins.${NAMESPACE}.svc:8080/jnlpJars/agent.jar || curl -sf -o /tmp/agent.jar http://jenkins.${NAMESPACE}.svc:8080/jnlpJars/slave.jar; java -XX:TieredStopAtLevel=1 -cp /tmp/agent.jar hudson.remoting.jnlp.Main >/dev/null 2>&1 || :`;
      await bare(`began=$(date +%s%3N); ${agent}; curl -sf "${listener.url(`program-${i}`)}?age=$(( $(date +%s%3N) - began ))"`);
      programs.push((await listener.first(`program-${i}`)).age / 1000);
      await clear();
      await noPods();
    }

    // Every build ended well, began exactly once, and had an agent of its own.
    let lost = 0;
    let duplicated = 0;
    for (const { job, number, name } of builds) {
      const { result } = await finishedBuild(job, number);
      const began = listener.signals.get(name) ?? [];
      if (result !== "SUCCESS" || began.length === 0) lost++;
      if (began.length > 1) duplicated++;
    }
    for (const job of [...jobs, ...keptJobs, ...(real ? [WARM] : [])]) {
      const made = (JSON.parse(await jenkins("GET", `/job/${job}/api/json`)) as { builds: unknown[] }).builds.length;
      duplicated += Math.max(0, made - builds.filter((each) => each.job === job).length);
    }
    const agents = new Set(builds.filter(({ job }) => jobs.includes(job)).map(({ name }) => listener.signals.get(name)?.[0].pod));
    const surplus = watch.seen.size - agents.size;

    const overhead = quantile(seconds(one[0]), 0.99) - quantile(seconds(one[1]), 0.99);
    const ratio = (samples: Sample[]) => (quantile(seconds(samples), 0.99) / quantile(seconds(many[1]), 0.99)).toFixed(2);
    const inside = one[0].map(({ age }) => age);
    const row = (what: string, pair: [Sample[], Sample[]], share: number) => ({ what, seconds: [quantile(seconds(pair[0]), share), quantile(seconds(pair[1]), share)] as [number, number] });
    const versions = JSON.parse(await kubectl(["version", "-o", "json"])) as { serverVersion: { gitVersion: string } };
    const java = (await run("kubectl", ["-n", NAMESPACE, "exec", "deployment/jenkins", "-c", "jenkins", "--", "java", "-version"], { env: ENV })).stderr.split("\n")[0].replace(/"/g, "");
    saveBench(
      real ? "agents" : "agents-stand-in",
      {
        title: `A build's first line beside the start of a bare pod${real ? "" : ", on the stand-in: only a regression check"}`,
        ways: ["job triggered to first line", "kubectl run of the same pod"],
        rows: [row("one at a time, p50", one, 0.5), row("one at a time, p99", one, 0.99), ...(keepsJars ? [row("one at a time with caches: [remoting], p50", [kept, one[1]], 0.5), row("one at a time with caches: [remoting], p99", [kept, one[1]], 0.99)] : []), row("20 at once, p50", many, 0.5), row("20 at once, p99", many, 0.99), ...(keepsJars ? [row("20 at once with caches: [remoting], p50", [manyKept, many[1]], 0.5), row("20 at once with caches: [remoting], p99", [manyKept, many[1]], 0.99)] : []), ...(warm.length > 0 ? [row("an agent waits, p50", [warm, one[1]], 0.5), row("an agent waits, p99", [warm, one[1]], 0.99)] : [])],
        notes: [
          `${one[0].length} builds one at a time and ${ROUNDS} rounds of ${AT_ONCE}, in turns with as many bare pods; the lightest agent that the platform renders (no docker daemon, no cache), its image on the node.`,
          `Overhead of Jenkins over the bare pod, one at a time: p50 ${(quantile(seconds(one[0]), 0.5) - quantile(seconds(one[1]), 0.5)).toFixed(2)} s, p99 ${overhead.toFixed(2)} s${keepsJars ? `; with caches: [remoting] p99 ${(quantile(seconds(kept), 0.99) - quantile(seconds(one[1]), 0.99)).toFixed(2)} s` : ""}; target p99 under 1.5 s.`,
          `20 at once, p99: ${ratio(many[0])} times the bare pods${keepsJars ? `, ${ratio(manyKept)} times with caches: [remoting]` : ""}; target at most 5.${warm.length > 0 ? ` From an agent that waits: p50 ${quantile(seconds(warm), 0.5).toFixed(2)} s, p99 ${quantile(seconds(warm), 0.99).toFixed(2)} s; target under 0.5 s.` : ""}`,
          `Of a build's time before its first line, its container ran for ${both(inside)} (p50 / p99): agent program, connection, acceptance, the build's own start. The agent program alone (fetching its jar, JVM up to its first class) took ${both(programs)} in the bare pod.`,
          ...(starts.length > 0 ? [`First agent of a controller that has just started, from its first answer to the build's first line: ${starts.map((each) => each.toFixed(1)).join(", ")} s; target 10 s.`] : []),
          `Load of the machine over a minute as each part began: ${loads.join(", ")}.`,
          `${builds.length} builds: ${lost} lost, ${duplicated} run twice, ${surplus} agents made that no build used.`,
          `Kubernetes ${versions.serverVersion.gitVersion}, ${java}; ${real ? `Jenkins ${real} and its kubernetes plugin` : "Hudson 1.395 and the sandbox's adapter stand in for Jenkins and its kubernetes plugin"}.`,
        ],
      },
      { one, kept, many, manyKept, warm, starts, programs },
    );
    if (lost + duplicated + surplus > 0) throw new Error(`${lost} builds lost, ${duplicated} run twice, ${surplus} agents too many`);
  } finally {
    watch.stop();
    listener.stop();
    for (const job of [...jobs, ...keptJobs, WARM]) await deleteJob(job);
    await setCloud(LABEL);
    if (keepsJars) await setCloud(KEPT);
    if (real) await setCloud(WARM);
    await kubectl(["-n", namespace, "delete", "pods", "-l", `build-platform/template=${LABEL}`, "--grace-period=0", "--force", "--ignore-not-found"]);
  }
}

main().catch((error: Error) => {
  process.stderr.write(`bench: ${error.message}\n`);
  process.exitCode = 1;
});
