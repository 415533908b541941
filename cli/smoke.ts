import * as fs from "node:fs";
import * as path from "node:path";
import { neighbourPaths, type Neighbourhood } from "../checks/neighbours";
import { nodePortFindings, readNodePorts, throughKubectl } from "../checks/node-ports";
import { prefixOf } from "../components/jenkins-master";
import type { PlatformConfig } from "../config";
import { awaitCertificates, doorsTrouble, frontDoors } from "./front-door";
import { adminAuth, Jenkins, JenkinsError, jobXml, pipelineXml, withJenkins } from "./jenkins";
import { root } from "./repository";
import { readStack, type Stack } from "./stack";
import { readWords, runCommand, UsageError } from "./terminal";

const HELP = `npm run smoke -- [STACK] [--label LABEL] [--timeout SECONDS]    builds one real job end to end on a running platform
npm run smoke -- [STACK] --pipeline [FILE] [--parameter NAME=VALUE]... [--timeout SECONDS]    the same with a pipeline

Asks for the login page on the nodes' ingress ports (80, or 443 with TLS, by default), logs in as the administrator, makes a job, builds it on an
agent of --label (the first agent template's), builds a container image inside where the agent has docker, reads the
console, and takes the job away again. --timeout (300) is how long a certificate that ingress.clusterIssuer makes, the agent
and the build may take, each.

With --pipeline the job is the Jenkinsfile FILE (docs/pipelines/own-pod.Jenkinsfile), as an inline script in Groovy's sandbox; --parameter gives a
value to what it calls a parameter, and --timeout is for all of it. Jenkins must have the plugin workflow-job.

Exit code 0: it works. 1: it does not; the last lines say where and what to do. 2: bad arguments.
`;

/** A pod of an agent, as far as it says why a build does not start. */
export interface AgentPod {
  metadata: { name: string; labels?: Record<string, string> };
  status: {
    phase: string;
    conditions?: { type: string; status: string; reason?: string; message?: string }[];
    containerStatuses?: {
      name: string; image: string;
      state: { waiting?: { reason: string; message?: string }; terminated?: { exitCode: number; reason?: string }; running?: object };
    }[];
  };
}

/** Why a container of a pod waits, where it is not on its way: no image, no Secret that it names, an end right after each start. */
const hold = ({ state: { waiting } }: NonNullable<AgentPod["status"]["containerStatuses"]>[0]) => (waiting && waiting.reason !== "ContainerCreating" && waiting.reason !== "PodInitializing" ? waiting : undefined);

/** Whether a pod waits for what does not come by itself. */
export const isStuck = ({ status }: AgentPod): boolean => (status.containerStatuses ?? []).some(hold);

/**
 * Why no agent took the build, from its pods and from what the queue says; and what to do.
 * @param all pods of agents, those that came to grief and are gone included
 * @param known templates of the config that have the label, and that do not; agents that are connected, and so have builds of their own
 */
export function agentTrouble(
  all: AgentPod[],
  queued: string | undefined,
  label: string,
  namespaces: Pick<PlatformConfig["namespaces"], "jenkins" | "agents">,
  known: { templates: string[]; others: string[]; online: string[] },
): string {
  const ofLabel = all.filter(({ metadata }) => !known.others.includes(metadata.labels?.["build-platform/template"] ?? ""));
  const pods = ofLabel.filter(({ metadata }) => !known.online.includes(metadata.name));
  const says = queued ? ` (the queue says: ${queued})` : "";
  for (const { metadata: { name }, status } of pods) {
    const unscheduled = status.conditions?.find(({ type, status: holds }) => type === "PodScheduled" && holds === "False");
    if (unscheduled) return `no node takes agent pod ${name}: ${unscheduled.message ?? unscheduled.reason}. Add a node, or change the template's requests, nodeSelector or tolerations (config agents)`;
    for (const each of status.containerStatuses ?? []) {
      const { name: container, image, state: { terminated } } = each;
      const waiting = hold(each);
      if (waiting && /Image/.test(waiting.reason)) {
        return `agent pod ${name} cannot have image ${image} of container ${container} (${waiting.reason}): ${waiting.message ?? ""} Can the nodes reach the registry (npm run doctor)?`;
      }
      if (waiting) return `container ${container} of agent pod ${name} does not start: ${waiting.reason} ${waiting.message ?? ""}`.trim();
      if (terminated && terminated.exitCode !== 0) return `container ${container} of agent pod ${name} ended with exit code ${terminated.exitCode}: kubectl -n ${namespaces.agents} logs ${name} -c ${container}`;
    }
    if (status.phase === "Running") return `agent pod ${name} runs, but does not reach Jenkins: kubectl -n ${namespaces.agents} logs ${name} -c jnlp; service jenkins-agent:50000 and the NetworkPolicies are on its way`;
    return `agent pod ${name} is still ${status.phase}: kubectl -n ${namespaces.agents} describe pod ${name}`;
  }
  if (ofLabel.length > 0)
    return `${ofLabel.length} agent${ofLabel.length === 1 ? ` of label ${label} has a build of its` : `s of label ${label} have builds of their`} own, and no further pod was made${says}: wait for them, or raise agentCap or cap of the template (config agents)`;
  if (known.templates.length === 0) return `no agent pod was made for label ${label}${says}, which no template has (config agents); a document of cascFolder may have it`;
  return `no agent pod was made for label ${label}${says}: kubectl -n ${namespaces.jenkins} logs deployment/jenkins -c jenkins says why, for one the agents' quota or Jenkins' rights in ${namespaces.agents}`;
}

/** Why Jenkins does not let the scripts in, and what to do. */
export function loginTrouble({ login, namespaces }: Pick<PlatformConfig, "login" | "namespaces">): string {
  if (login?.kind === "ldap" || login?.oidc.escapeHatch === false) return "Jenkins refuses the local administrator, whom the login of the stack config does not know: export JENKINS_USER and JENKINS_TOKEN of somebody it does";
  return `Jenkins refuses the password in its Secret: a changed one is in force about a minute later, without a restart; kubectl -n ${namespaces.jenkins} logs deployment/jenkins -c config-reload says whether Jenkins took it`;
}

/**
 * What the job runs: says who it is, and where docker is at hand builds an image without a base, in which a shell that is taken from
 * the agent downloads from Jenkins. Downloads from outside wait for ever where the networks of builds have a larger MTU than the
 * pod's; nearer servers know it, so that the MTUs are compared.
 */
export const smokeScript = (token: string, namespace: string, prefix = ""): string => [
  "set -eu",
  `echo smoke-${token}`,
  "uname -srm",
  'if command -v docker >/dev/null && [ -n "${DOCKER_HOST-}" ]; then',
  // A daemon elsewhere has a network of its own.
  "  case $DOCKER_HOST in",
  "    *localhost* | *127.0.0.1*) pod=$(cat /sys/class/net/eth0/mtu 2>/dev/null || echo 1500) ;;",
  "    *) pod=65536 ;;",
  "  esac",
  "  bridge=$(docker network inspect --format '{{index .Options \"com.docker.network.driver.mtu\"}}' bridge)",
  '  if [ "${bridge:-1500}" -gt "$pod" ]; then echo "the network of docker builds has an MTU of ${bridge:-1500}, the pod\'s has $pod: downloads inside builds hang"; exit 1; fi',
  `  mkdir -p smoke/root && cd smoke && echo ${token} > root/token`,
  "  printf 'FROM scratch\\nCOPY root /\\n' > Dockerfile",
  "  if command -v bash >/dev/null && command -v ldd >/dev/null; then",
  "    for tool in bash wc cat; do",
  "      program=$(command -v $tool)",
  "      for file in $program $(ldd $program | grep -o '/[^ ]*'); do mkdir -p root$(dirname $file) && cp -L $file root$file; done",
  "    done",
  "    cat > root/download <<'END'",
  "for jar in agent.jar slave.jar; do",
  `  exec 3<>/dev/tcp/jenkins.${namespace}.svc/8080`,
  `  printf 'GET ${prefix}/jnlpJars/%s HTTP/1.0\\r\\nHost: jenkins.${namespace}.svc\\r\\n\\r\\n' $jar >&3`,
  "  bytes=$(cat <&3 | wc -c)",
  '  if [ "$bytes" -gt 100000 ]; then echo "downloaded $bytes bytes inside a build"; exit 0; fi',
  "done",
  'echo "Jenkins answered $bytes bytes to a build, more than 100000 were expected"; exit 1',
  "END",
  `    printf 'RUN ["%s", "/download"]\\n' "$(command -v bash)" >> Dockerfile`,
  "  fi",
  `  timeout 120 docker build --no-cache -t smoke:${token} . || { echo "docker build failed, or did not end within 120 s: can pods behind this node's docker network reach Jenkins and DNS?"; exit 1; }`,
  `  docker image rm smoke:${token} >/dev/null && echo image-${token}`,
  "fi",
].join("\n");

/** The last lines of a console, below a message; without a pipeline's own marks, behind which the cause is out of sight. */
const tail = (console: string) => console.trim().split("\n").filter((line) => !/^\[Pipeline\] |^Stage ".*" skipped due to earlier/.test(line)).slice(-12).join("\n    ");

/** What is wrong with an ended build; undefined where it did all it was asked for. A pipeline of somebody's own prints no token. */
export function buildTrouble(build: { result: string | null; console: string }, token?: string): string | undefined {
  const last = tail(build.console);
  if (build.result !== "SUCCESS") return `the build ended with ${build.result}; its last lines:\n    ${last}`;
  if (token !== undefined && !build.console.includes(`smoke-${token}\n`)) return `the build's console does not hold what the job printed; its last lines:\n    ${last}`;
  return undefined;
}

/** What in the cluster may keep node ports from answering, each with what to do. */
async function nodePortSuspects({ config, kubectl }: Stack): Promise<string[]> {
  const raw = throughKubectl(kubectl);
  const list = async <What extends "apiServers" | "nodes">(what: What): Promise<Neighbourhood[What]> => ((await raw(neighbourPaths[what])) as { items?: Neighbourhood[What] } | undefined)?.items;
  const [facts, apiServers, nodes] = await Promise.all([readNodePorts(raw), list("apiServers"), list("nodes")]);
  return nodePortFindings(config, facts, { ...(apiServers && { apiServers }), ...(nodes && { nodes }) }).map(({ found, fix }) => `${found} -> ${fix}`);
}

const pause = () => new Promise((resolve) => setTimeout(resolve, 1000));

/** Of what is asked again and again: an answer that does not come, or not yet, is waited for within the step's own time. */
const poll = <T>(answer: Promise<T>): Promise<T | undefined> =>
  answer.catch((error: Error) => {
    if (error instanceof JenkinsError && error.status < 500 && error.status !== 404) throw error;
    return undefined;
  });

/** Takes something away that Jenkins may still be writing to: a deletion that fails half way, or is not answered, is tried again for half a minute. */
async function gone(take: () => Promise<unknown>): Promise<void> {
  const end = Date.now() + 30_000;
  for (;;) {
    const error: unknown = await take().then(() => undefined, (reason: unknown) => reason);
    if (error === undefined || (error instanceof JenkinsError && error.status === 404)) return;
    if ((error instanceof JenkinsError && error.status < 500) || Date.now() > end) throw error;
    await pause();
  }
}

/** Says each step and how long it took. */
async function step<T>(what: string, work: () => Promise<T>): Promise<T> {
  const started = Date.now();
  const said = (mark: string) => process.stdout.write(`${mark} ${what} (${((Date.now() - started) / 1000).toFixed(1)} s)\n`);
  try {
    const value = await work();
    said("ok  ");
    return value;
  } catch (error) {
    said("FAIL");
    throw error;
  }
}

/** What is built: a job of smoke's own on an agent of a label, or somebody's pipeline. */
export type Work = { label: string } | { pipeline: string; script: string; parameters: Record<string, string> };

/** Why Jenkins cannot take a pipeline; undefined where it can. */
export function pluginTrouble(plugins: { shortName: string; active: boolean }[]): string | undefined {
  if (plugins.some(({ shortName, active }) => shortName === "workflow-job" && active)) return undefined;
  return "this Jenkins has no pipelines: the plugin workflow-job is not active in it. workflow-aggregator of images/controller/plugins.txt brings it along; the sandbox's stand-in for Jenkins never has it";
}

/** @throws with what is wrong and what to do */
export async function smoke(stack: Stack, work: Work, timeout: number, stopped: AbortSignal): Promise<void> {
  const { config, kubectl } = stack;
  const { ingress, namespaces } = config;
  const within = () => {
    const end = Date.now() + timeout * 1000;
    return () => {
      stopped.throwIfAborted();
      return Date.now() < end;
    };
  };

  await step(`the login page of ${config.domain} on the nodes`, async () => {
    const doors = await frontDoors(stack);
    const suspects = doors.every(({ status }) => status === undefined) ? await nodePortSuspects(stack) : [];
    const trouble = doorsTrouble(doors, config, suspects);
    if (trouble !== undefined) throw new Error(trouble);
  });

  if (ingress.tls) {
    await step("the certificate is in force", async () => {
      const trouble = await awaitCertificates(stack, within(), pause);
      if (trouble !== "") throw new Error(trouble);
    });
  }

  await withJenkins(stack, async (at) => {
    const auth = await adminAuth(stack);
    const jenkins = new Jenkins(at, auth);
    await step(`log in as ${auth.split(":")[0]}`, () =>
      jenkins.get("/api/json").catch((error: Error) => {
        if (error instanceof JenkinsError && error.status === 401) throw new Error(loginTrouble(config));
        throw error;
      }));

    const token = Date.now().toString(36);
    const job = `smoke-${token}`;
    const build = `/job/${job}/1`;
    interface Queue { items: { id: number; task: { name?: string }; why: string | null }[] }
    // A pipeline's step waits as "part of JOB #1".
    const inQueue = ({ items }: Queue) => items.filter(({ task: { name = "" } }) => name === job || name.split(" ").includes(job));
    // Jenkins takes a pod that cannot start away again: what was wrong with it is seen while it is there.
    const stuck = new Map<string, AgentPod>();
    const agentPods = async (): Promise<AgentPod[]> => {
      const { items } = JSON.parse(await kubectl("-n", namespaces.agents, "get", "pods", "-l", "jenkins=agent", "-o", "json")) as { items: AgentPod[] };
      for (const pod of items) if (isStuck(pod)) stuck.set(pod.metadata.name, pod);
      return [...stuck.values(), ...items.filter(({ metadata }) => !stuck.has(metadata.name))];
    };

    const agentComes = async (label: string) => {
      await jenkins.post(`/job/${job}/build?delay=0sec`);
      const more = within();
      let queued: string | undefined;
      for (let look = 1; more(); look++) {
        if (look % 3 === 0) await agentPods();
        if ((await poll(jenkins.json<{ builtOn?: string }>(`${build}/api/json`)))?.builtOn) return;
        const queue = await poll(jenkins.json<Queue>("/queue/api/json"));
        if (queue) queued = inQueue(queue)[0]?.why ?? undefined;
        await pause();
      }
      const pods = await agentPods();
      const hasLabel = (agent: { label: string }) => agent.label.split(" ").includes(label);
      const { computer } = await jenkins.json<{ computer: { displayName: string; offline: boolean }[] }>("/computer/api/json");
      const known = {
        templates: config.agents.filter(hasLabel).map(({ name }) => name),
        others: config.agents.filter((agent) => !hasLabel(agent)).map(({ name }) => name),
        online: computer.filter(({ offline }) => !offline).map(({ displayName }) => displayName),
      };
      throw new Error(`not within ${timeout} s: ${agentTrouble(pods, queued, label, namespaces, known)}`);
    };

    const endsWell = async (printed?: string) => {
      const more = within();
      while (more()) {
        const state = await poll(jenkins.json<{ building: boolean; result: string | null }>(`${build}/api/json`));
        if (state && !state.building && state.result !== null) {
          const trouble = buildTrouble({ result: state.result, console: await jenkins.get(`${build}/consoleText`) }, printed);
          if (trouble) throw new Error(trouble);
          return;
        }
        await pause();
      }
      const why = (await poll(jenkins.json<Queue>("/queue/api/json").then(inQueue)))?.[0]?.why;
      throw new Error(`it was still running after ${timeout} s${why ? ` (the queue says: ${why})` : ""}; its console:\n    ${tail((await poll(jenkins.get(`${build}/consoleText`))) ?? "not there yet")}`);
    };

    if ("pipeline" in work) {
      await step("Jenkins has pipelines", async () => {
        const { plugins = [] } = (await poll(jenkins.json<{ plugins?: { shortName: string; active: boolean }[] }>("/pluginManager/api/json?tree=plugins[shortName,active]"))) ?? {};
        const trouble = pluginTrouble(plugins);
        if (trouble) throw new Error(trouble);
      });
    }
    const xml = "pipeline" in work ? pipelineXml(work.script, work.parameters) : jobXml(work.label, smokeScript(token, namespaces.jenkins, prefixOf(ingress.externalUrl)));
    await step(`make job ${job}`, () => jenkins.post(`/createItem?name=${job}`, xml, "application/xml"));
    let failure: unknown;
    try {
      if ("pipeline" in work) {
        await step(`pipeline ${work.pipeline} ends well`, async () => {
          await jenkins.post(`/job/${job}/${Object.keys(work.parameters).length > 0 ? "buildWithParameters" : "build"}?delay=0sec`);
          await endsWell();
        });
      } else {
        await step(`an agent of label ${work.label} takes its build`, () => agentComes(work.label));
        await step("the build ends well", () => endsWell(token));
      }
    } catch (error) {
      failure = error;
    }
    await step(`take job ${job} away`, async () => {
      // A build that waits or runs must not stay behind without its job.
      if ("pipeline" in work && failure !== undefined) await jenkins.post(`${build}/stop`).catch(() => undefined);
      for (const { id } of inQueue(await jenkins.json<Queue>("/queue/api/json"))) await jenkins.post(`/queue/cancelItem?id=${id}`).catch(() => undefined);
      await gone(() => jenkins.post(`/job/${job}/doDelete`));
    }).catch((error: Error) => {
      // What went wrong first matters more; that the job is still there has been said above.
      failure ??= new Error(`job ${job} is still there: ${error.message}`);
    });
    if (failure !== undefined) throw failure;
  }, true);
}

/** The pipeline where --pipeline names none. */
const usualPipeline = "docs/pipelines/own-pod.Jenkinsfile";

/** What --pipeline and its parameters ask for. @throws for a file that is not there and a parameter without a name */
export function pipelineWork(file: string, given: string[]): Work {
  const place = [path.resolve(file), path.resolve(root, file)].find((each) => fs.existsSync(each));
  if (place === undefined) throw new UsageError(`--pipeline is ${file}, which does not exist; expected a Jenkinsfile, such as ${usualPipeline}`);
  const parameters = given.map((text) => {
    const [, name, value] = /^([A-Za-z_]\w*)=(.*)$/s.exec(text) ?? [];
    if (name === undefined) throw new UsageError(`--parameter is ${text}; expected NAME=VALUE`);
    return [name, value];
  });
  return { pipeline: file, script: fs.readFileSync(place, "utf8"), parameters: Object.fromEntries(parameters) as Record<string, string> };
}

/** Arguments in which --pipeline has its file: it may be left out. */
export function withUsualPipeline(args: string[]): string[] {
  const at = args.indexOf("--pipeline");
  return at < 0 || (args[at + 1] !== undefined && !args[at + 1].startsWith("-")) ? args : args.toSpliced(at + 1, 0, usualPipeline);
}

async function main(args: string[]): Promise<void> {
  const text = { type: "string" } as const;
  const { values, positionals } = readWords(withUsualPipeline(args), { label: text, timeout: { ...text, default: "300" }, pipeline: text, parameter: { ...text, multiple: true } }, 1);
  const timeout = Number(values.timeout);
  if (!Number.isInteger(timeout) || timeout < 1) throw new UsageError(`--timeout is ${values.timeout}; expected whole seconds, such as 300`);
  if (values.pipeline !== undefined && values.label !== undefined) throw new UsageError("--label does not go with --pipeline: a pipeline names its agents itself");
  if (values.pipeline === undefined && values.parameter !== undefined) throw new UsageError("--parameter goes with --pipeline only");
  const pipeline = values.pipeline === undefined ? undefined : pipelineWork(values.pipeline, values.parameter ?? []);
  const stack = await readStack(positionals[0]);
  const label = values.label ?? stack.config.agents[0]?.label.split(/\s+/)[0];
  if (!pipeline && !label) throw new Error(`stack ${stack.name} has no agent template (config agents); name a label of an agent with --label`);
  // The job goes on Ctrl-C, too.
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stop.abort(new Error(`stopped by ${signal}`)));
  await smoke(stack, pipeline ?? { label }, timeout, stop.signal);
  process.stdout.write(`${stack.name} builds\n`);
}

if (require.main === module) void runCommand("smoke", HELP, main);
