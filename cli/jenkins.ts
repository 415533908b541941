import * as http from "node:http";
import { adminSecretName, prefixOf } from "../components/jenkins-master";
import { forwarded } from "./port-forward";
import type { Stack } from "./stack";

/**
 * Runs `work` while a port of this machine leads to Jenkins, past ingress and DNS. With `tidiesUp` the way stays open after Ctrl-C in the
 * terminal, for a caller that handles it and has something to take away.
 */
export const withJenkins = <T>(stack: Pick<Stack, "kubectlArgs" | "config">, work: (at: JenkinsAt) => Promise<T>, tidiesUp = false): Promise<T> =>
  forwarded(stack, { namespace: stack.config.namespaces.jenkins, service: "jenkins", port: 8080, seconds: 15, tidiesUp }, (port) => work({ port, prefix: prefixOf(stack.config.ingress.externalUrl) }));

/** Jenkins refused a request, or failed at it. */
export class JenkinsError extends Error {
  constructor(readonly status: number, message: string) {
    super(message);
  }
}

interface Answer {
  status: number;
  headers: http.IncomingHttpHeaders;
  body: string;
}

/** Where Jenkins answers: a local port, or another machine's with the headers that lead on from there. */
export interface JenkinsAt {
  host?: string;
  port: number;
  /** Path below which Jenkins answers. Default none. */
  prefix?: string;
  headers?: Record<string, string>;
}

/** Jenkins' REST interface, as one user. The password stays in this process and the request's header. */
export class Jenkins {
  /** What a Jenkins that guards against forged requests wants with a POST: a crumb and the session it belongs to. Undefined until asked for. */
  private guard?: Record<string, string>;

  constructor(private readonly at: JenkinsAt, private readonly auth: string) {}

  private send(method: string, target: string, headers: Record<string, string> = {}, body?: string): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const request = http.request({ host: this.at.host ?? "127.0.0.1", port: this.at.port, method, path: `${this.at.prefix ?? ""}${target}`, auth: this.auth, headers: { ...this.at.headers, ...headers }, timeout: 15_000 }, (answer) => {
        let text = "";
        answer.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
        answer.on("error", reject).on("end", () => resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body: text }));
      });
      request.on("timeout", () => request.destroy(new Error("Jenkins does not answer within 15 s"))).on("error", reject);
      request.end(body);
    });
  }

  private static checked(method: string, target: string, { status, body }: Answer): string {
    const words = body.replace(/<[^>]*>/g, " ").replace(/\s+/g, " ").trim().slice(0, 200);
    if (status >= 400) throw new JenkinsError(status, `Jenkins answered ${status} to ${method} ${target.split("?")[0]}${words && `: ${words}`}`);
    return body;
  }

  /** @throws {JenkinsError} for a status of 400 or more */
  async get(target: string): Promise<string> {
    return Jenkins.checked("GET", target, await this.send("GET", target));
  }

  /** @throws {JenkinsError} and where the answer is no JSON */
  async json<T>(target: string): Promise<T> {
    const text = await this.get(target);
    try {
      return JSON.parse(text) as T;
    } catch {
      throw new Error(`Jenkins' answer to ${target.split("?")[0]} is no JSON`);
    }
  }

  private async crumb(): Promise<Record<string, string> | undefined> {
    const { status, headers, body } = await this.send("GET", "/crumbIssuer/api/json");
    if (status === 404) return {}; // It has no such guard.
    if (status !== 200) return undefined; // Whether it has is not known yet.
    const { crumbRequestField, crumb } = JSON.parse(body) as { crumbRequestField: string; crumb: string };
    return { [crumbRequestField]: crumb, Cookie: (headers["set-cookie"] ?? []).map((cookie) => cookie.split(";")[0]).join("; ") };
  }

  /** @throws {JenkinsError} for a status of 400 or more */
  async post(target: string, body?: string, type?: string): Promise<string> {
    const once = async () => this.send("POST", target, { ...(this.guard ??= await this.crumb()), ...(type && { "Content-Type": type }) }, body);
    let answer = await once();
    if (answer.status === 403 && Object.keys(this.guard ?? {}).length > 0) {
      // A crumb is as old as its session, which ends with a restart.
      this.guard = undefined;
      answer = await once();
    }
    return Jenkins.checked("POST", target, answer);
  }
}

/** Who the scripts are in Jenkins, as "name:password": $JENKINS_USER with $JENKINS_TOKEN, else the administrator of the stack's Secret. */
export async function adminAuth({ config, kubectl }: Pick<Stack, "config" | "kubectl">, environment: NodeJS.ProcessEnv = process.env): Promise<string> {
  const { JENKINS_USER, JENKINS_TOKEN } = environment;
  if (JENKINS_USER && JENKINS_TOKEN) return `${JENKINS_USER}:${JENKINS_TOKEN}`;
  const secret = config.admin.existingSecret ?? adminSecretName;
  const { data = {} } = JSON.parse(await kubectl("-n", config.namespaces.jenkins, "get", "secret", secret, "-o", "json")) as { data?: Record<string, string> };
  const keys = ["admin-user", "admin-password"];
  const missing = keys.filter((key) => !data[key]);
  if (missing.length > 0) throw new Error(`Secret ${secret} of namespace ${config.namespaces.jenkins} has no key ${missing.join(", ")}`);
  // Jenkins, too, reads them without the line feed that `echo` leaves behind.
  return keys.map((key) => Buffer.from(data[key], "base64").toString().trim()).join(":");
}

const escape = (text: string) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

/** A freestyle job that runs `shell` on an agent with `label`. */
export function jobXml(label: string, shell: string): string {
  return `<?xml version='1.0' encoding='UTF-8'?><project><assignedNode>${escape(label)}</assignedNode><canRoam>false</canRoam><concurrentBuild>true</concurrentBuild><builders><hudson.tasks.Shell><command>${escape(shell)}</command></hudson.tasks.Shell></builders><publishers/><buildWrappers/></project>`;
}

/** A pipeline job with a script in Groovy's sandbox, and texts for what the script calls parameters. Needs the plugin workflow-job. */
export function pipelineXml(script: string, parameters: Record<string, string> = {}): string {
  const definitions = Object.entries(parameters).map(([name, value]) => `<hudson.model.StringParameterDefinition><name>${escape(name)}</name><defaultValue>${escape(value)}</defaultValue></hudson.model.StringParameterDefinition>`);
  const properties = definitions.length > 0 ? `<hudson.model.ParametersDefinitionProperty><parameterDefinitions>${definitions.join("")}</parameterDefinitions></hudson.model.ParametersDefinitionProperty>` : "";
  return `<?xml version='1.0' encoding='UTF-8'?><flow-definition plugin="workflow-job"><properties>${properties}</properties><definition class="org.jenkinsci.plugins.workflow.cps.CpsFlowDefinition" plugin="workflow-cps"><script>${escape(script)}</script><sandbox>true</sandbox></definition></flow-definition>`;
}
