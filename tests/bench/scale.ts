import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { pipelineXml } from "../../cli/jenkins";
import { waitFor } from "../../sandbox/shell";
import { Cluster, NODE, type Request } from "./scale/cluster";
import { Agents, applyPlatform, Controller, givenParts, type Parts, platform } from "./scale/jenkins";
import { Processes, usage } from "./scale/processes";
import { middle, saveBench } from "./table";

/**
 * A queue of builds on 1, 4 and 16 nodes: the real Jenkins, kubernetes plugin and remoting with the configuration that the platform
 * renders, a real control plane, nodes that kwok plays, and one JVM that holds the agents of all pods.
 * BENCH_SIZES=1:200 makes a short trial of it, 200 builds on one node; BENCH_CONFIG is JSON of stack settings to try,
 * {"build-platform:cloud": {"maxRequestsPerHostStr": "64"}}; with BENCH_JARS=pod agents fetch remoting's jars from the controller.
 */
const SIZES = (process.env.BENCH_SIZES ?? "1,4,16").split(",").map((size) => size.split(":").map(Number)).map(([nodes, builds = 1000]) => ({ nodes, builds }));
/** Whether agents find remoting's jars on their node, or fetch them from the controller each. */
const JARS = process.env.BENCH_JARS ?? "node";
const MOST_AGENTS = 200;
const NAMESPACE = "jenkins-agents";
/** What an agent of the platform's defaults asks for, its Docker daemon included: 750m and 1.5 GiB. */
const perNode = Math.floor(Math.min(NODE.cpu / 0.75, NODE.memoryGi / 1.5));

interface Figures {
  nodes: number;
  queued: number;
  cap: number;
  /** Seconds from the first trigger to the last build's end, and until the last pod is gone. */
  drained: number;
  gone: number;
  /** Seconds from the trigger to a build's first line: median and longest. */
  wait: { median: number; longest: number };
  /** Processor seconds of the controller, of the agents' JVM, and of the API server. */
  cpu: { controller: number; agents: number };
  /** MiB of the controller: most resident, most heap that lived on after a collection, and what a whole collection leaves at the end. */
  memory: { resident: number; livedOn: number; left: number };
  most: { pods: number; connected: number };
  requests: Record<string, number>;
  refused: number;
  pods: number;
  lost: string[];
  twice: string[];
  unused: string[];
  leftOver: string[];
  load: number;
}

const count = (requests: Request[]): Record<string, number> => {
  const counts: Record<string, number> = {};
  for (const { verb, resource } of requests) counts[`${verb} ${resource}`] = (counts[`${verb} ${resource}`] ?? 0) + 1;
  return counts;
};

/** One run on a cluster, a controller and agents of its own. */
async function measure(parts: Parts, { nodes, builds: queued }: (typeof SIZES)[number], over: Record<string, unknown>): Promise<Figures> {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "bench-scale-"));
  const processes = new Processes(root);
  const interrupted = () => void processes.stop().then(() => process.exit(130));
  process.once("SIGINT", interrupted).once("SIGTERM", interrupted);
  let unfollow = (): void => undefined;
  try {
    const cap = Math.min(MOST_AGENTS, nodes * perNode);
    const rendered = await platform(cap, over);
    const cluster = await Cluster.start(processes, nodes);
    await applyPlatform(cluster, rendered);
    const lines = path.join(root, "lines");
    fs.writeFileSync(lines, "");
    const jobs = Array.from({ length: queued }, (_, i) => `job-${i + 1}`);
    const pipeline = pipelineXml(`node('maven') { sh 'echo "$JOB_NAME $BUILD_NUMBER $NODE_NAME $(date +%s%3N)" >>${lines}' }`);
    const controller = await Controller.start(processes, cluster, rendered, parts, Object.fromEntries(jobs.map((job) => [job, pipeline])));
    const agents = await Agents.start(processes, cluster, parts, NAMESPACE, JARS === "node");
    unfollow = agents.unfollow;

    const before = { controller: controller.usage().cpu, agents: usage(agents.pid).cpu, requests: cluster.requests().length, collections: controller.livedOn().length };
    const began = Date.now();
    await controller.script("Thread.start { hudson.security.ACL.impersonate2(hudson.security.ACL.SYSTEM2, { jenkins.model.Jenkins.get().getAllItems(hudson.model.Job).each { it.scheduleBuild2(0) } } as Runnable) }");
    const said = () => fs.readFileSync(lines, "utf8").split("\n").filter(Boolean).map((line) => line.split(" "));
    let [resident, seen, moved] = [0, -1, Date.now()];
    while (seen < queued) {
      processes.assertRunning();
      const now = said().length;
      if (now !== seen) moved = Date.now();
      // No more comes: what is missing is counted as lost.
      if (Date.now() - moved > 900_000) break;
      if (Math.floor(now / 100) !== Math.floor(seen / 100)) process.stderr.write(`   ${nodes} nodes: ${now} builds began after ${((Date.now() - began) / 1000).toFixed(0)} s, ${agents.alive.size} agents, controller ${(controller.usage().cpu - before.controller).toFixed(0)} s of processor\n`);
      seen = now;
      resident = Math.max(resident, controller.usage().rss);
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
    const builds = await waitFor("all builds to end", 300, async () => {
      const all = await controller.builds();
      return all.every(({ ended }) => ended > 0) && all;
    });
    await waitFor("the agents' pods to go", 300, async () => agents.present.size === 0);
    const gone = (Date.now() - began) / 1000;
    const after = { controller: controller.usage().cpu, agents: usage(agents.pid).cpu, load: os.loadavg()[0] };
    const requests = cluster.requests().slice(before.requests);
    const livedOn = Math.max(0, ...controller.livedOn().slice(before.collections));
    const left = await controller.collected();

    const starts = said();
    const waits = starts.map(([, , , at]) => (Number(at) - began) / 1000);
    const ran = (job: string) => starts.filter(([name]) => name === job).length;
    const used = new Set(starts.map(([, , agent]) => agent));
    const pods = (await cluster.kubectl(["-n", NAMESPACE, "get", "pods", "-o", "name"])).split("\n").filter(Boolean);
    return {
      nodes, queued, cap, gone,
      drained: (Math.max(...builds.map(({ ended }) => ended)) - began) / 1000,
      wait: { median: middle(waits), longest: Math.max(...waits) },
      cpu: { controller: after.controller - before.controller, agents: after.agents - before.agents },
      memory: { resident, livedOn, left },
      most: { pods: agents.mostPods, connected: agents.mostConnected },
      requests: count(requests),
      refused: requests.filter(({ code }) => code >= 400 && code !== 404).length,
      pods: agents.pods.size,
      lost: jobs.filter((job) => ran(job) === 0 || !builds.some((build) => build.job === job && build.result === "SUCCESS")),
      twice: jobs.filter((job) => ran(job) > 1 || builds.filter((build) => build.job === job).length > 1),
      unused: [...agents.pods.keys()].filter((name) => !used.has(name)),
      leftOver: [...pods, ...(await waitFor("Jenkins' list of agents", 120, () => controller.left())), ...agents.alive],
      load: after.load,
    };
  } finally {
    unfollow();
    await processes.stop();
    process.removeListener("SIGINT", interrupted).removeListener("SIGTERM", interrupted);
    if (process.env.BENCH_KEEP) process.stderr.write(`kept: ${root}\n`);
    else fs.rmSync(root, { recursive: true, force: true });
  }
}

/** Requests of a verb for each agent, whatever they are for. */
const each = ({ requests, pods }: Figures, wanted: (what: string) => boolean): number => Object.entries(requests).reduce((sum, [what, times]) => sum + (wanted(what) ? times : 0), 0) / Math.max(1, pods);
const VERBS = ["create", "get", "list", "watch", "delete"];

export function save(all: Figures[]): void {
  const row = (what: string, value: (figures: Figures) => number) => ({ what, values: all.map(value) });
  const kinds = [...new Set(all.flatMap(({ requests }) => Object.keys(requests)))].sort();
  saveBench("scale", {
    title: "A queue of builds",
    across: "nodes",
    sizes: all.map(({ nodes }) => nodes),
    rows: [
      row("builds queued at once", ({ queued }) => queued),
      row("agents at once, allowed", ({ cap }) => cap),
      row("agents at once, connected", ({ most }) => most.connected),
      row("time to drain, s", ({ drained }) => drained),
      row("builds per minute", ({ queued, drained }) => (queued * 60) / drained),
      row("wait for the first line, median, s", ({ wait }) => wait.median),
      row("wait for the first line, longest, s", ({ wait }) => wait.longest),
      row("controller, processor s per build", ({ cpu, queued }) => cpu.controller / queued),
      row("controller, processors in use", ({ cpu, drained }) => cpu.controller / drained),
      row("controller, resident MiB", ({ memory }) => memory.resident),
      row("heap after a collection, at most, MiB", ({ memory }) => memory.livedOn),
      row("heap left at the end, MiB", ({ memory }) => memory.left),
      row("API requests per agent", (figures) => each(figures, () => true)),
      ...VERBS.map((verb) => row(`of these ${verb}`, (figures) => each(figures, (what) => what.startsWith(`${verb} `)))),
    ],
    notes: [
      `Pipelines with one short shell step, all queued at once, on the default agent (with its Docker daemon) that the platform renders; a node has ${NODE.cpu} processors and ${NODE.memoryGi} GiB and so holds ${perNode}; agentCap is what the nodes hold, ${MOST_AGENTS} at most. Everything else has the platform's defaults.`,
      `Real: Jenkins, the kubernetes plugin, remoting, API server, etcd, scheduler. Not in these figures: what an agent costs its node. Nodes are kwok's, whose pods run and end at once, and all agents are engines of remoting in one JVM (with remoting's jars ${JARS === "node" ? "on the node, not fetched by each" : "fetched by each from the controller"}): no image, no container, no JVM start.`,
      `Jenkins, control plane and agents shared this one machine: the agents' JVM took ${all.map(({ cpu, queued }) => (cpu.agents / queued).toFixed(2)).join(", ")} s of processor per build beside it; load at the end of each run ${all.map(({ load }) => load.toFixed(1)).join(", ")}. Times are an upper bound; processor seconds, memory and requests are the controller's own.`,
      `API requests by kind, per agent: ${kinds.map((kind) => `${kind} ${all.map((figures) => each(figures, (what) => what === kind).toFixed(2)).join(" / ")}`).join("; ")}; answered with an error other than 404: ${all.map(({ refused }) => refused).join(", ")}.`,
      `${all.reduce((total, { queued }) => total + queued, 0)} builds: ${sum(all, "lost")} lost, ${sum(all, "twice")} run twice; ${sum(all, "unused")} pods that no build used; ${sum(all, "leftOver")} agents, pods or queue items left over, by their names in Jenkins and in the API server.`,
    ],
  }, { all });
}
const sum = (all: Figures[], what: "lost" | "twice" | "unused" | "leftOver"): number => all.reduce((total, figures) => total + figures[what].length, 0);

async function main(): Promise<void> {
  const parts = givenParts(process.env);
  const all: Figures[] = [];
  for (const size of SIZES) {
    const figures = await measure(parts, size, JSON.parse(process.env.BENCH_CONFIG ?? "{}") as Record<string, unknown>);
    process.stdout.write(`${JSON.stringify(figures)}\n`);
    all.push(figures);
  }
  // A trial, or one with other settings, is printed and not published.
  if (SIZES.length > 1 && !process.env.BENCH_CONFIG) save(all);
  const wrong = all.flatMap(({ nodes, lost, twice, leftOver }) => Object.entries({ lost, twice, leftOver }).filter(([, names]) => names.length > 0).map(([what, names]) => `${nodes} nodes, ${what}: ${names.join(", ")}`));
  if (wrong.length > 0) throw new Error(wrong.join("\n"));
}

if (require.main === module) {
  main().catch((error: Error) => {
    process.stderr.write(`bench: ${error.message}\n`);
    process.exitCode = 1;
  });
}
