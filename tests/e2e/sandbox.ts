import { execFileSync } from "node:child_process";
import * as http from "node:http";
import * as path from "node:path";
import { environment } from "../../sandbox/environment";
import { KUBECONFIG, REPO } from "../../sandbox/paths";
import { run, waitFor, type Result, type RunOptions } from "../../sandbox/shell";

export { waitFor } from "../../sandbox/shell";

/** Address at which the node ports of the sandbox's first node answer. */
export const NODE = "10.88.0.2";
/** The host name in Pulumi.sandbox.yaml. */
export const DOMAIN = "jenkins.sandbox.test";
export const STACK = "sandbox";

const exported = environment();
/** The variables that `npm run sandbox -- env` exports, as programs started by the tests need them. */
export const ENV: NodeJS.ProcessEnv = { ...process.env, ...exported, PATH: exported.PATH.replace("$PATH", process.env.PATH ?? "") };

/** Runs the real pulumi CLI in the project's folder (or `cwd`), without questions or colours. */
export function pulumi(args: string[], options: RunOptions = {}): Promise<Result> {
  return run("pulumi", [...args, "--non-interactive", "--color", "never"], { cwd: REPO, env: ENV, ...options });
}

/** Runs kubectl as the cluster's administrator and returns what it printed. */
export async function kubectl(args: string[], options: RunOptions = {}): Promise<string> {
  return (await run("kubectl", ["--kubeconfig", KUBECONFIG, ...args], { env: ENV, ...options })).stdout;
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

export interface Answer {
  status: number;
  headers: http.IncomingHttpHeaders;
  body: string;
}

/** One request to port 80 of the node with the platform's Host header. */
export function request(method: string, target: string, options: { body?: string; type?: string; auth?: string; host?: string } = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const headers: Record<string, string> = { Host: options.host ?? DOMAIN };
    if (options.type) headers["Content-Type"] = options.type;
    const sent = http.request({ host: NODE, port: 80, method, path: target, headers, auth: options.auth, timeout: 20_000 }, (answer) => {
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
  return waitFor("200 from /login on node port 80", seconds, async () => {
    const answer = await request("GET", "/login");
    return answer.status === 200 && answer;
  });
}

/** The administrator's name and password, as the stack's own output says to read them. */
export async function adminAuth(): Promise<string> {
  const value = (key: string) => kubectlJson<{ data: Record<string, string> }>(["-n", "jenkins", "get", "secret", "jenkins-admin"]).then((secret) => Buffer.from(secret.data[key], "base64").toString());
  return `${await value("admin-user")}:${await value("admin-password")}`;
}

/** Jenkins' REST interface as the administrator. A status of 400 or more is an error with the answer's first words. */
export async function jenkins(method: string, target: string, body?: string, type?: string): Promise<string> {
  const answer = await request(method, target, { body, type, auth: await adminAuth() });
  if (answer.status >= 400) throw new Error(`${method} ${target}: ${answer.status} ${answer.body.replace(/<[^>]*>/g, " ").replace(/\s+/g, " ").slice(0, 300)}`);
  return answer.body;
}

/** A freestyle job that runs `shell` on an agent with `label`. */
export function jobXml(label: string, shell: string): string {
  const escape = (text: string) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  return `<?xml version='1.0' encoding='UTF-8'?><project><assignedNode>${escape(label)}</assignedNode><canRoam>false</canRoam><concurrentBuild>true</concurrentBuild><builders><hudson.tasks.Shell><command>${escape(shell)}</command></hudson.tasks.Shell></builders><publishers/><buildWrappers/></project>`;
}

/** Makes a job, or gives an existing one this content. */
export async function createJob(name: string, xml: string): Promise<void> {
  await jenkins("POST", `/createItem?name=${name}`, xml, "application/xml");
}

export async function deleteJob(name: string): Promise<void> {
  await request("POST", `/job/${name}/doDelete`, { auth: await adminAuth() });
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
