import { randomBytes } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import * as readline from "node:readline";
import type { V1Pod } from "@kubernetes/client-node";
import { parse, stringify } from "yaml";
import { Jenkins } from "../../../cli/jenkins";
import { kindOf, renderStack, type Rendered } from "../../../cli/offline";
import { REPO } from "../../../sandbox/paths";
import { run, waitFor } from "../../../sandbox/shell";
import { quantityMillis } from "../../../components/quantity";
import type { Cluster } from "./cluster";
import { freePort, type Processes, usage } from "./processes";

/** Where the real parts lie, as the person who runs the bench says. */
export interface Parts {
  war: string;
  plugins: string;
  java: (program: string) => string;
}

/** @throws in words for people where something is missing */
export function givenParts({ BENCH_JENKINS: folder, JAVA_HOME: home }: NodeJS.ProcessEnv): Parts {
  const missing = [
    ...(folder && fs.existsSync(path.join(folder, "jenkins.war")) && fs.existsSync(path.join(folder, "plugins")) ? [] : ["BENCH_JENKINS: a folder with the real jenkins.war and the folder plugins of .jpi files; the controller image has them as /usr/share/jenkins/jenkins.war and /usr/share/jenkins/ref/plugins"]),
    ...(home && fs.existsSync(path.join(home, "bin/javac")) ? [] : ["JAVA_HOME: a JDK 21"]),
  ];
  if (missing.length > 0) throw new Error(`this bench takes Jenkins itself, and needs\n  ${missing.join("\n  ")}`);
  return { war: path.join(folder!, "jenkins.war"), plugins: path.join(folder!, "plugins"), java: (program) => path.join(home!, "bin", program) };
}

/** What the platform makes for a stack with so many agents of its default kind and these settings: the defaults, but for what is given. */
export const platform = (cap: number, over: Record<string, unknown>): Promise<Rendered[]> =>
  renderStack("sandbox", REPO, {
    "build-platform:agents": [{ name: "maven", image: "maven-dind", caches: ["maven"], cap }],
    "build-platform:agentCap": cap,
    "build-platform:controller": {},
    ...over,
  }, () => undefined);

/** What of the platform the API server must know: accounts, rights, and what it judges agents' pods by. */
const KINDS = ["Namespace", "ServiceAccount", "Role", "RoleBinding", "PriorityClass", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"];

const objects = (rendered: Rendered[]) => rendered.filter(({ type }) => type.startsWith("kubernetes:")).map(({ type, props }) => ({ kind: kindOf(type), props }));

export async function applyPlatform(cluster: Cluster, rendered: Rendered[]): Promise<void> {
  const chosen = objects(rendered).filter(({ kind }) => KINDS.includes(kind)).sort((a, b) => KINDS.indexOf(a.kind) - KINDS.indexOf(b.kind));
  await cluster.apply(chosen.map(({ props }) => props));
}

/** The environment and the memory limit of container jenkins. */
function controllerOf(rendered: Rendered[]): { javaOpts: string[]; memory: number } {
  // `any`: a Deployment as the program registers it.
  const deployment = objects(rendered).find(({ kind, props }) => kind === "Deployment" && props.metadata.name === "jenkins")!.props as any;
  const container = deployment.spec.template.spec.containers.find(({ name }: { name: string }) => name === "jenkins");
  const { value } = container.env.find(({ name }: { name: string }) => name === "JAVA_OPTS");
  return { javaOpts: value.split(" "), memory: Number(quantityMillis(container.resources.limits.memory) / 1000n) };
}

/** The rendered document with addresses of this machine in it, and nothing else changed. */
function configuration(rendered: Rendered[], address: { api: string; http: number; agents: number }): string {
  const map = objects(rendered).find(({ kind, props }) => kind === "ConfigMap" && props.metadata.name === "jenkins-casc")!.props;
  // `any`: JCasC, whose schema is Jenkins' own.
  const document = parse((map as any).data["jenkins.yaml"]) as any;
  document.jenkins.slaveAgentPort = address.agents;
  Object.assign(document.jenkins.clouds[0].kubernetes, { serverUrl: address.api, jenkinsUrl: `http://127.0.0.1:${address.http}/`, jenkinsTunnel: `127.0.0.1:${address.agents}` });
  return stringify(document, { lineWidth: 0, aliasDuplicateObjects: false, compat: "yaml-1.1" });
}

/** How one build went, as Jenkins says. */
export interface Build {
  job: string;
  number: number;
  result: string | null;
  /** Milliseconds since the epoch; 0 where it goes on. */
  ended: number;
}

/** The real Jenkins as a process of this machine. */
export class Controller {
  private constructor(readonly client: Jenkins, readonly pid: number, private readonly parts: Parts, private readonly log: string) {}

  /** @param jobs pipelines that are there at its start, by name */
  static async start(processes: Processes, cluster: Cluster, rendered: Rendered[], parts: Parts, jobs: Record<string, string>): Promise<Controller> {
    const { root } = processes;
    const folder = (name: string) => {
      fs.mkdirSync(path.join(root, name), { recursive: true });
      return path.join(root, name);
    };
    const [home, secrets] = [folder("home"), folder("secrets")];
    fs.cpSync(parts.plugins, folder("home/plugins"), { recursive: true, dereference: true, filter: (file) => !/\.[a-z]+$/.test(file) || file.endsWith(".jpi") });
    for (const [name, xml] of Object.entries(jobs)) fs.writeFileSync(path.join(folder(`home/jobs/${name}`), "config.xml"), xml);
    const password = randomBytes(12).toString("hex");
    fs.writeFileSync(path.join(secrets, "admin-user"), "admin");
    fs.writeFileSync(path.join(secrets, "admin-password"), password, { mode: 0o600 });
    const [http, agents] = [await freePort(), await freePort()];
    fs.writeFileSync(path.join(folder("casc"), "jenkins.yaml"), configuration(rendered, { api: cluster.url, http, agents }));
    const { javaOpts, memory } = controllerOf(rendered);
    const env = { PATH: process.env.PATH, JENKINS_HOME: home, CASC_JENKINS_CONFIG: path.join(root, "casc"), SECRETS: secrets, KUBECONFIG: await cluster.controllerConfig(root) };
    const log = path.join(root, "gc.log");
    // Out of a container, the JVM is told what its limit would be.
    const jvm = [...javaOpts, `-XX:MaxRAM=${memory}`, `-Xlog:gc:file=${log}`, `-Djava.io.tmpdir=${folder("tmp")}`, `-Djenkins.model.Jenkins.slaveAgentPort=${agents}`, "-Dhudson.model.UpdateCenter.never=true"];
    const child = processes.start("jenkins", parts.java("java"), [...jvm, "-jar", parts.war, `--webroot=${path.join(root, "war")}`, `--httpPort=${http}`, "--httpListenAddress=127.0.0.1"], env);
    const client = new Jenkins({ port: http }, `admin:${password}`);
    await waitFor("Jenkins", 300, async () => {
      processes.assertRunning();
      return (await client.get("/api/json")).includes("\"jobs\"");
    });
    return new Controller(client, child.pid!, parts, log);
  }

  /** What a Groovy script in Jenkins prints. */
  async script(text: string): Promise<string> {
    return this.client.post("/scriptText", new URLSearchParams({ script: text }).toString(), "application/x-www-form-urlencoded");
  }

  async builds(): Promise<Build[]> {
    return JSON.parse(await this.script("println groovy.json.JsonOutput.toJson(jenkins.model.Jenkins.get().getAllItems(hudson.model.Job).collectMany { job -> job.builds.collect { [job: job.name, number: it.number, result: it.building ? null : it.result as String, ended: it.building ? 0 : it.startTimeInMillis + it.duration] } })")) as Build[];
  }

  /** Names of the agents that Jenkins still has, and what waits in its queue. */
  async left(): Promise<string[]> {
    return JSON.parse(await this.script("def j = jenkins.model.Jenkins.get(); println groovy.json.JsonOutput.toJson(j.nodes*.nodeName + j.queue.items.collect { it.task.name })")) as string[];
  }

  usage = () => usage(this.pid);

  /** MiB of the heap that lived on, after each collection so far. */
  livedOn(): number[] {
    return [...fs.readFileSync(this.log, "utf8").matchAll(/Pause \S.* \d+M->(\d+)M\(/g)].map(([, after]) => Number(after));
  }

  /** MiB that a whole collection leaves. */
  async collected(): Promise<number> {
    await run(this.parts.java("jcmd"), [String(this.pid), "GC.run"]);
    return this.livedOn().at(-1)!;
  }
}

/** What the kubelet and the agent image would do: each pod that runs gets an agent, which lives until its controller or its pod goes. */
export class Agents {
  /** Every pod that ever was, and the time at which its agent connected. */
  readonly pods = new Map<string, number | undefined>();
  readonly alive = new Set<string>();
  readonly errors: string[] = [];
  /** Most pods, and most connected agents, at one moment. */
  mostPods = 0;
  mostConnected = 0;
  present = new Set<string>();
  private readonly connected = new Set<string>();

  /** Stops looking at the pods. */
  unfollow: () => void = () => undefined;

  private constructor(private readonly tell: (line: string) => void, readonly pid: number, private readonly jarsOnNode: boolean) {}

  static async start(processes: Processes, cluster: Cluster, parts: Parts, namespace: string, jarsOnNode: boolean): Promise<Agents> {
    const { root } = processes;
    const jar = path.join(root, "agent.jar");
    // The one that this Jenkins hands out.
    await run("sh", ["-c", 'set -e; cd "$1"; unzip -q -o -j "$2" "WEB-INF/lib/remoting-*.jar"; mv remoting-*.jar agent.jar', "sh", root, parts.war]);
    await run(parts.java("javac"), ["-cp", jar, "-d", root, path.join(__dirname, "Agents.java")]);
    // All agents have the folder /home/jenkins/agent, as in their pods: below a /home of their own.
    const [home, caches] = ["agents-home", "agents-caches"].map((name) => path.join(root, name));
    for (const folder of [path.join(home, "jenkins/agent"), caches]) fs.mkdirSync(folder, { recursive: true });
    const script = 'mount --bind "$1" /home && shift && exec "$@"';
    const child = processes.start("agents", "unshare", ["--mount", "--propagation", "private", "sh", "-c", script, "sh", home, parts.java("java"), "-Xmx4g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", `${jar}:${root}`, "Agents", caches], process.env, true);
    const agents = new Agents((line) => child.stdin!.write(`${line}\n`), child.pid!, jarsOnNode);
    readline.createInterface({ input: child.stdout! }).on("line", (line) => agents.said(line, cluster, namespace));
    agents.unfollow = cluster.followPods(namespace, (pods) => agents.found(pods));
    return agents;
  }

  private said(line: string, cluster: Cluster, namespace: string): void {
    const [what, name] = line.split(" ");
    if (what === "connected") {
      this.pods.set(name, Date.now());
      this.connected.add(name);
      this.mostConnected = Math.max(this.mostConnected, this.connected.size);
    }
    if (what === "error") this.errors.push(line);
    if (what === "ended") {
      this.alive.delete(name);
      this.connected.delete(name);
      // The container has ended; of a pod that is gone there is nothing to say.
      if (this.present.has(name)) void cluster.kubectl(["-n", namespace, "patch", "pod", name, "--subresource=status", "--type=merge", "-p", '{"status":{"phase":"Succeeded"}}']).catch(() => undefined);
    }
  }

  private found(pods: V1Pod[]): void {
    const names = new Set(pods.map(({ metadata }) => metadata!.name!));
    for (const name of this.present) if (!names.has(name) && this.alive.has(name)) this.tell(`stop ${name}`);
    this.present = names;
    this.mostPods = Math.max(this.mostPods, names.size);
    pods.forEach((pod) => this.started(pod));
  }

  private started({ metadata, spec, status }: V1Pod): void {
    const name = metadata!.name!;
    if (this.pods.has(name) || status?.phase !== "Running" || metadata!.deletionTimestamp) return;
    this.pods.set(name, undefined);
    this.alive.add(name);
    const env = Object.fromEntries(spec!.containers.find((container) => container.name === "jnlp")!.env!.map((each) => [each.name, each.value]));
    // Of which folder remoting takes jars: one of the node's that agents find filled, or an empty one of the pod's own.
    this.tell(`start ${this.jarsOnNode ? spec!.nodeName : name} ${env.JENKINS_AGENT_NAME} ${env.JENKINS_URL} ${env.JENKINS_SECRET} ${env.JENKINS_TUNNEL}`);
  }
}
