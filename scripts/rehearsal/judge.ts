import type { CoreV1Event, V1ContainerStatus, V1Pod, V1PodSpec, V1Secret } from "@kubernetes/client-node";
import type { RehearsalInput } from "../../components/jenkins-master/rehearsal";

/** Why a Jenkins does not come up: for people, in its own words, with what to do. */
export interface Problem {
  what: string;
  words: string[];
  todo: string;
}

/** What is known of a rehearsal's pod at one moment. */
export interface Observation {
  /** Log of the container that `containerToRead` names. */
  log: string;
  /** Absent until the cluster has made it. */
  pod?: V1Pod;
  /** Events of the pod and of its Job. */
  events: CoreV1Event[];
}

export type Judgement =
  /** It came up; `notes` are what Jenkins accepts and people may want to know. */
  | { state: "good"; notes: string[] }
  | { state: "bad"; problems: Problem[] }
  /** A suspicion that stays for so many seconds is a problem. */
  | { state: "waiting"; doing: string; suspicion?: Suspicion };

export interface Suspicion {
  problem: Problem;
  seconds: number;
  /** Jenkins may come up without what failed, and then tell more. */
  mayComeUp?: true;
}

/** Container whose log matters: the one that failed, else Jenkins. */
export function containerToRead(pod: V1Pod): string {
  return statuses(pod).find(failed)?.name ?? "jenkins";
}

const statuses = (pod: V1Pod): V1ContainerStatus[] => [...(pod.status?.initContainerStatuses ?? []), ...(pod.status?.containerStatuses ?? [])];
const failed = ({ state, name }: V1ContainerStatus): boolean => state?.terminated !== undefined && (state.terminated.exitCode !== 0 || name === "jenkins");

/** When an event was last seen, as a number. */
const seen = ({ lastTimestamp, eventTime }: CoreV1Event): number => new Date(lastTimestamp ?? eventTime ?? 0).getTime();

/** What is to be thought of a pod, its log and its events. */
export function judge({ log, pod, events }: Observation): Judgement {
  const ordered = [...events].sort((a, b) => seen(a) - seen(b));
  const last = (...reasons: string[]) => ordered.filter(({ reason }) => reasons.includes(reason ?? "")).pop()?.message ?? "";
  if (!pod) {
    const refused = last("FailedCreate");
    const problem = { what: "The cluster does not take the pod", words: [refused], todo: "Look at the quotas, limit ranges and admission policies of the namespace." };
    return { state: "waiting", doing: "waiting for the pod", ...(refused && { suspicion: { problem, seconds: 10 } }) };
  }
  const all = statuses(pod);
  const ended = all.find(failed);
  if (ended) return { state: "bad", problems: endProblems(ended, log) };

  for (const { state, name, image } of all) {
    const { reason = "", message = "" } = state?.waiting ?? {};
    if (/^(CreateContainerConfigError|CreateContainerError|RunContainerError|StartError)$/.test(reason))
      return { state: "waiting", doing: `${name} cannot be started`, suspicion: { problem: { what: `Container ${name} cannot be started (${reason})`, words: [message], todo: secretTodo(message) }, seconds: 5 } };
    if (reason === "InvalidImageName") return { state: "bad", problems: [imageProblem(image, message)] };
    if (reason === "ErrImagePull" || reason === "ImagePullBackOff") {
      const problem = imageProblem(image, [message, last("Failed")].find((text) => text && !/^Back-off/.test(text)) ?? message);
      const final = /not found|manifest unknown|denied|unauthorized|authoriz|forbidden|no match for platform|invalid reference/i.test(problem.words.join(" "));
      return final ? { state: "bad", problems: [problem] } : { state: "waiting", doing: "waiting for the image", suspicion: { problem, seconds: 40 } };
    }
  }

  const unplaced = pod.status?.conditions?.find(({ type, status, reason }) => type === "PodScheduled" && status === "False" && reason === "Unschedulable");
  if (unplaced) {
    const problem = { what: "No node takes the pod", words: [unplaced.message ?? ""], todo: "Make room, lower rehearsal.resources, or correct controller.nodeSelector and controller.tolerations." };
    return { state: "waiting", doing: "waiting for a node with room", suspicion: { problem, seconds: 120 } };
  }
  const started = pod.status?.containerStatuses?.some(({ state }) => state?.running);
  // A mount that failed and was followed by something else has succeeded since.
  const { reason: newest = "", message: unmounted = "" } = ordered.at(-1) ?? {};
  if (!started && /^Failed(Mount|AttachVolume)$/.test(newest)) {
    const problem = { what: "What the pod mounts is not there", words: [unmounted], todo: secretTodo(unmounted) };
    return { state: "waiting", doing: "waiting for its volumes", suspicion: { problem, seconds: /not found|non-existent/.test(unmounted) ? 10 : 60 } };
  }
  const first = pod.status?.initContainerStatuses?.find(({ state }) => state?.running)?.name;
  if (!started) return { state: "waiting", doing: first === "restic" ? "a copy of the home is being restored" : first ? "its configuration is being laid out" : "waiting for the image and the volumes" };

  const ready = pod.status?.conditions?.some(({ type, status }) => type === "Ready" && status === "True");
  const problems = jenkinsProblems(log);
  if (problems.length > 0) {
    // A plugin that failed often makes a document fail: both are told.
    if (ready || /Failed to initialize Jenkins/.test(log)) return { state: "bad", problems };
    return { state: "waiting", doing: "Jenkins has failed, and is being read to the end", suspicion: { problem: problems[0], seconds: 30, mayComeUp: true } };
  }
  if (ready) return { state: "good", notes: unresolved(log) };
  if (last("Unhealthy").includes("statuscode: 500")) {
    const problem = { what: "Jenkins answers 500 at /login", words: tail(log), todo: "Read its log above." };
    return { state: "waiting", doing: "Jenkins answers 500", suspicion: { problem, seconds: 20 } };
  }
  return { state: "waiting", doing: milestone(log) };
}

function secretTodo(message: string): string {
  return /secret/i.test(message)
    ? "Create that Secret or key in the controller's namespace, or correct secretFiles, controller.envFrom or adminExistingSecret."
    : "Compare it with what the stack's config says of the controller.";
}

const imageProblem = (image: string, message: string): Problem => ({
  what: `The image cannot be pulled${image ? `: ${image}` : ""}`,
  words: [message],
  todo: "Correct controller.image, or see that the node reaches its registry with the login that the stack has.",
});

function endProblems({ name, state, lastState }: V1ContainerStatus, log: string): Problem[] {
  const { exitCode = 0, reason, message } = state?.terminated ?? lastState?.terminated ?? {};
  if (reason === "OOMKilled") return [{ what: "Jenkins needs more memory than its limit", words: tail(log, 3), todo: "Raise controller.resources.limits.memory, or lower controller.maxRamPercentage." }];
  const known = jenkinsProblems(log);
  if (known.length > 0) return known;
  const words = tail(log || (message ?? ""));
  return [{ what: name === "jenkins" ? `Jenkins ended with code ${exitCode}` : `Container ${name} ended with code ${exitCode}`, words, todo: "Correct what it complains about." }];
}

/** The last lines of a log without stack frames. */
export function tail(log: string, lines = 15): string[] {
  return log.split(/\r?\n/).filter((line) => line.trim() !== "" && !frame.test(line)).slice(-lines);
}

const frame = /^\s*\t(at |\.\.\. \d+ )|^\s+at [\w.$/@]+\([^)]*\)$/;

interface Entry {
  level: string;
  message: string;
  /** What follows the first line: an exception, mostly. */
  rest: string[];
}

/** A log as Jenkins writes it: `2026-11-25 18:00:00.000+0000 [id=33]<tab>SEVERE<tab>class#method: message`, exceptions below. */
function entries(log: string): Entry[] {
  const all: Entry[] = [];
  for (const line of log.split(/\r?\n/)) {
    const head = /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+[+-]\d{4} \[id=\d+\]\t(\S+)\t(?:[^:\s]*: ?)?(.*)$/.exec(line);
    if (head) all.push({ level: head[1], message: head[2], rest: [] });
    else all.at(-1)?.rest.push(line);
  }
  return all;
}

/** The messages of a chain of exceptions, the deepest cause first, without frames, class names and repetitions. */
function exceptionWords(lines: string[]): string[] {
  const words: string[] = [];
  for (const line of lines) {
    if (line.trim() === "" || frame.test(line)) continue;
    let text = line.replace(/^\s*(Caused|Caused by|Also): +/, "");
    const wrapper = /^(java\.lang\.reflect\.InvocationTargetException|java\.lang\.Error|org\.jvnet\.hudson\.reactor\.ReactorException|[\w.]+BootFailure|hudson\.util\.HudsonFailedToLoad)\b/;
    if (wrapper.test(text)) text = text.replace(/^[\w.$]+:? ?/, "");
    while (/^(\w+\.)+(casc\.[\w$]+Exception|[\w$]*BootFailure|ReactorException|Error): /.test(text)) text = text.replace(/^[\w.$]+: /, "");
    if (text.trim() !== "" && !words.includes(text)) words.push(text);
  }
  return words.slice(0, 12);
}

/** What Jenkins itself says is wrong: plugins that were not loaded, a configuration that it refuses, anything else that kept it from starting. */
export function jenkinsProblems(log: string): Problem[] {
  const all = entries(log);
  const plugins = new Map<string, string[]>();
  for (const { message, rest } of all) {
    const name = /^Failed (?:Loading|Initializing|Inspecting) plugin (.+)$/.exec(message)?.[1];
    const missing = /^Failed to install (\S+): (.+)$/.exec(message);
    const cycle = /^found cycle in plugin dependencies.*$/.exec(message)?.[0];
    if (name) plugins.set(name, exceptionWords(rest).map((line) => line.replace(/^java\.io\.IOException: /, "")));
    else if (missing) plugins.set(missing[1], [missing[2], ...exceptionWords(rest)]);
    else if (cycle) plugins.set(cycle, []);
  }
  const problems: Problem[] = [];
  if (plugins.size > 0)
    problems.push({
      what: plugins.size === 1 ? "A plugin is not loaded" : `${plugins.size} plugins are not loaded`,
      words: [...plugins].flatMap(([name, words]) => [name, ...words.map((line) => `  ${line}`)]),
      todo: "Give each plugin what it asks for: a newer Jenkins, or the named plugin in that version (images/controller/plugins.txt, controller.plugins).",
    });
  // Of the same failure's two entries the first is complete.
  const boot = all.find(({ message, rest }) => /^Failed (ConfigurationAsCode\.init|to initialize Jenkins)/.test(message) && rest.some((line) => /casc\.[\w$]*Exception/.test(line)));
  if (boot) problems.push({ what: "Jenkins refuses the configuration", words: exceptionWords(boot.rest), todo: "Correct the document or key; a root or symbol that Jenkins does not know needs its plugin (controller.plugins)." });
  else {
    const other = all.find(({ message }) => /^Failed to initialize Jenkins/.test(message));
    if (other) problems.push({ what: "Jenkins does not start", words: exceptionWords(other.rest), todo: "Correct what it complains about." });
  }
  return problems;
}

/** Names in documents that nothing defines: Jenkins takes an empty text for them. */
function unresolved(log: string): string[] {
  const names = [...log.matchAll(/Found unresolved variable '([^']*)'/g)].map(([, name]) => name);
  return [...new Set(names)].map((name) => `nothing defines \${${name}}: Jenkins takes an empty text for it`);
}

/** What Jenkins was last heard doing. */
function milestone(log: string): string {
  const reached = log.match(/(Started initialization|Listed all plugins|Prepared all plugins|Started all plugins|Augmented all extensions|System config loaded|System config adapted|Loaded all jobs|Configuration for all jobs updated|Completed initialization)/g);
  return reached ? `Jenkins starts: ${reached.at(-1)!.toLowerCase()}` : "Jenkins starts";
}

/** Names of the Secrets of the site's own that the candidate's pod reads. */
export function namedSecrets({ objects: { job, secrets } }: Pick<RehearsalInput, "objects">): string[] {
  const { containers = [], initContainers = [], volumes = [] }: Partial<V1PodSpec> = job.spec?.template.spec ?? {};
  const names = [
    ...[...containers, ...initContainers].flatMap(({ envFrom = [], env = [] }) => [...envFrom.map(({ secretRef }) => secretRef?.name), ...env.map(({ valueFrom }) => valueFrom?.secretKeyRef?.name)]),
    ...volumes.flatMap(({ secret, projected }) => [secret?.secretName, ...(projected?.sources ?? []).map((source) => source.secret?.name)]),
  ];
  const ours = secrets.map(({ metadata }) => metadata?.name);
  return [...new Set(names)].filter((name) => name !== undefined).filter((name) => !ours.includes(name));
}

/** Takes the content of secrets out of what is said: Jenkins or a plugin may repeat it in a complaint, also one line of it. */
export function discreet(secrets: Pick<V1Secret, "data">[]): (text: string) => string {
  const texts = secrets.flatMap(({ data = {} }) => Object.values(data)).map((value) => Buffer.from(value, "base64").toString().trim());
  const values = [...new Set(texts.flatMap((text) => [text, ...text.split(/\r?\n/).map((line) => line.trim())]))].filter((value) => value.length >= 6).sort((a, b) => b.length - a.length);
  return (text) => values.reduce((left, value) => left.split(value).join("[secret]"), text);
}
