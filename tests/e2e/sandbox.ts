import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import * as http from "node:http";
import * as path from "node:path";
import { parse } from "yaml";
import { Jenkins, JenkinsError } from "../../cli/jenkins";
import type { AgentSettings, AgentTemplate } from "../../components/jenkins-master/agents";
import { cascConfig, type CascInput } from "../../components/jenkins-master/casc";
import { inNode } from "../../sandbox/cluster/nodes";
import { environment } from "../../sandbox/environment";
import { KUBECONFIG, REPO } from "../../sandbox/paths";
import { run, waitFor, type Result, type RunOptions } from "../../sandbox/shell";

export { jobXml } from "../../cli/jenkins";
export { waitFor } from "../../sandbox/shell";

/** Another cluster than the sandbox's may be tested, such as kind's in .github/workflows/kind-e2e.yml: E2E_STACK names its stack. */
const elsewhere = process.env.E2E_STACK !== undefined;
/** Whether the cluster is the sandbox's, whose nodes and network the tests may change. */
export const onSandbox = !elsewhere;
/** Address and port at which Jenkins answers to the host name: those of the first node's ingress, or of a Service that can be reached. */
export const NODE = process.env.E2E_NODE ?? "10.88.0.2";
const PORT = Number(process.env.E2E_PORT ?? 80);
/** Namespaces of the controller and of the agents of that stack. */
export const NAMESPACE = process.env.E2E_NAMESPACE ?? "jenkins";
export const AGENTS_NAMESPACE = `${NAMESPACE}-agents`;
/** The host name in the stack's file. */
export const DOMAIN = process.env.E2E_DOMAIN ?? "jenkins.sandbox.test";
export const STACK = process.env.E2E_STACK ?? "sandbox";
/** Whether the platform's Jenkins is the real one, as E2E_JENKINS=real says, or the sandbox's stand-in. */
export const realJenkins = process.env.E2E_JENKINS === "real";
/** BuildKit's image as the sandbox's stack has it. */
export const BUILDKIT_IMAGE = (parse(fs.readFileSync(path.join(REPO, "Pulumi.sandbox.yaml"), "utf8")) as { config: Record<string, Record<string, string>> }).config["build-platform:images"].buildkit;
/** The file that kubeadm was given on the first node. */
export const KUBEADM_CONFIG = process.env.E2E_KUBEADM_CONFIG ?? "/etc/kubeadm.yaml";

const exported = environment();
/** The variables that `npm run sandbox -- env` exports, as programs started by the tests need them. */
export const ENV: NodeJS.ProcessEnv = elsewhere ? process.env : { ...process.env, ...exported, PATH: exported.PATH.replace("$PATH", process.env.PATH ?? "") };

/** Runs a program on the first control-plane node; E2E_NODE_EXEC is the command that does so elsewhere, such as `docker exec NAME`. */
export function onNode(args: string[], options: RunOptions = {}): Promise<Result> {
  const [program, ...before] = (process.env.E2E_NODE_EXEC ?? "").split(" ");
  return elsewhere ? run(program, [...before, ...args], options) : inNode({ name: "control-plane-1" }, args, options);
}

/** Runs a command of the sandbox's own, such as `add-node`. */
export const sandbox = (...args: string[]): Promise<Result> => run("npm", ["run", "-s", "sandbox", "--", ...args], { cwd: REPO, env: ENV });

/** Runs the real pulumi CLI in the project's folder (or `cwd`), without questions or colours. */
export function pulumi(args: string[], options: RunOptions = {}): Promise<Result> {
  return run("pulumi", [...args, "--non-interactive", "--color", "never"], { cwd: REPO, env: ENV, ...options });
}

/** Runs kubectl as the cluster's administrator and returns what it printed. */
export async function kubectl(args: string[], options: RunOptions = {}): Promise<string> {
  return (await run("kubectl", [...(elsewhere ? [] : ["--kubeconfig", KUBECONFIG]), ...args], { env: ENV, ...options })).stdout;
}

/** Objects as parsed JSON. */
export async function kubectlJson<T>(args: string[]): Promise<T> {
  return JSON.parse(await kubectl([...args, "-o", "json"])) as T;
}

/** Counts of a `pulumi up/preview/refresh/destroy --json`-like summary, read from the CLI's own words. */
export async function up(...extra: string[]): Promise<string> {
  await pulumi(["stack", "select", "--create", STACK]);
  return (await pulumi(["up", "--stack", STACK, "--yes", "--skip-preview", ...extra])).stdout;
}

/** Brings the platform up unless it is: each test file may run alone or after any other. */
export async function ensurePlatform(): Promise<void> {
  await up();
  await jenkinsAnswers();
}

/** Has the volumes that a namespace has left deleted with their files; those whose node is gone are forgotten after a minute. */
export async function deleteVolumes(namespace: string): Promise<void> {
  interface Volume { metadata: { name: string }; spec: { claimRef?: { namespace: string } } }
  const left = async () => (await kubectlJson<{ items: Volume[] }>(["get", "pv"])).items.filter(({ spec }) => spec.claimRef?.namespace === namespace).map(({ metadata }) => metadata.name);
  for (const name of await left()) await kubectl(["patch", "pv", name, "-p", '{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}'], { allowFailure: true });
  await waitFor(`the volumes of ${namespace} to go`, 60, async () => (await left()).length === 0).catch(async () => {
    for (const name of await left()) await kubectl(["delete", "pv", name, "--wait=false"], { allowFailure: true });
  });
}

export interface Answer {
  status: number;
  headers: http.IncomingHttpHeaders;
  body: string;
}

/** One request to port 80 of the node with the platform's Host header. */
export function request(method: string, target: string, options: { body?: string; type?: string; auth?: string; host?: string; headers?: Record<string, string>; timeout?: number } = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const headers: Record<string, string> = { Host: options.host ?? DOMAIN, ...options.headers };
    if (options.type) headers["Content-Type"] = options.type;
    const sent = http.request({ host: NODE, port: PORT, method, path: target, headers, auth: options.auth, timeout: options.timeout ?? 20_000 }, (answer) => {
      let body = "";
      answer.setEncoding("utf8").on("data", (chunk: string) => (body += chunk));
      answer.on("end", () => resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body }));
    });
    sent.on("timeout", () => sent.destroy(new Error(`${method} ${target} timed out`)));
    sent.on("error", reject);
    sent.end(options.body);
  });
}

/** Waits for Jenkins' login page through ingress and node port. */
export function jenkinsAnswers(seconds = 120): Promise<Answer> {
  return waitFor("200 from /login", seconds, async () => {
    const answer = await request("GET", "/login");
    return answer.status === 200 && answer;
  });
}

/** Version of the Jenkins that answers; undefined where the sandbox's stand-in does. */
export async function jenkinsVersion(): Promise<string | undefined> {
  const version = (await request("GET", "/login")).headers["x-jenkins"];
  return version === undefined ? undefined : String(version);
}

/** The administrator's name and password, as they stand in the Secret. */
export async function adminAuth(): Promise<string> {
  const value = (key: string) => kubectlJson<{ data: Record<string, string> }>(["-n", NAMESPACE, "get", "secret", "jenkins-admin"]).then((secret) => Buffer.from(secret.data[key], "base64").toString());
  return `${await value("admin-user")}:${await value("admin-password")}`;
}

/** Jenkins' REST interface through the node's port, as the administrator; one for each password, for a crumb lasts as long as its session. */
export async function jenkinsClient(): Promise<Jenkins> {
  const auth = await adminAuth();
  const known = clients.get(auth) ?? new Jenkins({ host: NODE, port: PORT, headers: { Host: DOMAIN } }, auth);
  clients.set(auth, known);
  return known;
}
const clients = new Map<string, Jenkins>();

/** One request to Jenkins as the administrator. A status of 400 or more is an error with the answer's first words. */
export async function jenkins(method: "GET" | "POST", target: string, body?: string, type?: string): Promise<string> {
  const client = await jenkinsClient();
  return method === "GET" ? client.get(target) : client.post(target, body, type);
}

/** Makes a job of a name that is free. */
export async function createJob(name: string, xml: string): Promise<void> {
  await jenkins("POST", `/createItem?name=${name}`, xml, "application/xml");
}

export async function deleteJob(name: string): Promise<void> {
  await jenkins("POST", `/job/${name}/doDelete`).catch((error: unknown) => {
    // Tests tidy up what they may not have made.
    if (!(error instanceof JenkinsError)) throw error;
  });
}

export interface Build {
  number: number;
  result: string | null;
  building: boolean;
  builtOn: string;
}

/** Starts a build of a job and returns its number once it has one. */
export async function startBuild(name: string): Promise<number> {
  const { nextBuildNumber } = JSON.parse(await jenkins("GET", `/job/${name}/api/json`)) as { nextBuildNumber: number };
  await jenkins("POST", `/job/${name}/build?delay=0sec`);
  return nextBuildNumber;
}

/** Waits for a build to end; its record and console. */
export async function finishedBuild(name: string, number: number, seconds = 300): Promise<Build & { console: string }> {
  const build = await waitFor(`build ${number} of ${name} to end`, seconds, async () => {
    const answer = await request("GET", `/job/${name}/${number}/api/json`, { auth: await adminAuth() });
    if (answer.status !== 200) return undefined; // still queued
    const record = JSON.parse(answer.body) as Build;
    return !record.building && record;
  });
  return { ...build, console: await jenkins("GET", `/job/${name}/${number}/consoleText`) };
}

/** Shell lines that unpack a folder of tests/fixtures into the workspace. */
export function unpack(fixture: string): string {
  const archive = execFileSync("tar", ["-C", path.join(REPO, "tests/fixtures", fixture), "-cz", "."]).toString("base64");
  return `rm -rf src build target && echo ${archive} | base64 -d | tar -xz`;
}

interface Cloud {
  namespace: string;
  templates: { yaml: string }[];
}

/** The platform's own cloud, as it stands in the ConfigMap. */
export async function ownCloud(): Promise<Cloud> {
  const { data } = await kubectlJson<{ data: Record<string, string> }>(["-n", NAMESPACE, "get", "configmap", "jenkins-casc"]);
  return (parse(data["jenkins.yaml"]) as { jenkins: { clouds: { kubernetes: Cloud }[] } }).jenkins.clouds[0].kubernetes;
}

/** Image of a container of the first agent's pod. */
export async function firstAgentImage(container: string): Promise<string> {
  const { spec } = parse((await ownCloud()).templates[0].yaml) as { spec: { containers: { name: string; image: string }[] } };
  return spec.containers.find(({ name }) => name === container)!.image;
}

/** A template with the first agent's image and nothing else: no docker daemon, no caches. Its label is its name. */
export async function plainTemplate(name: string): Promise<AgentTemplate> {
  return {
    name, label: name, image: await firstAgentImage("jnlp"), docker: "none", caches: [],
    resources: { requests: { cpu: "50m", memory: "128Mi" }, limits: { memory: "1Gi" } }, dockerResources: {}, cap: 10, idleMinutes: 0, podRetention: "never",
    connectTimeoutSeconds: 300, activeDeadlineSeconds: 0, nodeSelector: {}, tolerations: [], spread: false, unlabelled: false, volumes: [], env: {},
  };
}

/** Has the kubelet look at the volumes of pods: it does so when a pod changes, else about once a minute. */
export const volumesLookedAt = (namespace: string, labels: string, options: RunOptions = {}): Promise<string> =>
  kubectl(["-n", namespace, "annotate", "pod", "-l", labels, "--overwrite", `build-platform/looked-at=${Date.now()}`], options);

/** Puts a cloud with one template, rendered as the platform's own, beside the platform's by configuration as code; without a template takes it away. */
export async function setCloud(name: string, template?: AgentTemplate, settings?: AgentSettings): Promise<void> {
  const { namespace } = await ownCloud();
  let document: string | null = null;
  if (template && settings) {
    const input: CascInput = { url: "", namespace: NAMESPACE, agentsNamespace: namespace, containerCap: template.cap, templates: [template], settings };
    const { clouds } = (cascConfig(input) as { jenkins: { clouds: { kubernetes: object }[] } }).jenkins;
    document = JSON.stringify({ jenkins: { clouds: clouds.map(({ kubernetes }) => ({ kubernetes: { ...kubernetes, name } })) } });
  }
  // A run that was killed may have left the same document: nothing would be read again then, and nobody would say so.
  const { data } = await kubectlJson<{ data: Record<string, string> }>(["-n", NAMESPACE, "get", "configmap", "jenkins-casc"]);
  if ((data[`${name}.yaml`] ?? null) === document) return;
  const applied = async () => (await kubectl(["-n", NAMESPACE, "logs", "deployment/jenkins", "-c", "config-reload"])).split("is in force").length;
  const before = await applied();
  await kubectl(["-n", NAMESPACE, "patch", "configmap", "jenkins-casc", "--type=merge", "-p", JSON.stringify({ data: { [`${name}.yaml`]: document } })]);
  await volumesLookedAt(NAMESPACE, "app.kubernetes.io/name=jenkins,app.kubernetes.io/component=controller");
  await waitFor(`the cloud ${name} to be ${template ? "in force" : "gone"}`, 180, async () => (await applied()) > before);
}
