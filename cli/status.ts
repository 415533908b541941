import * as fs from "node:fs";
import { imageCacheName } from "../components/image-cache";
import { registryName, registryNodeName } from "../components/image-registry";
import { jenkinsUrl } from "../components/jenkins-master";
import { addressOf } from "../config";
import { reloadState } from "../components/jenkins-master/reload";
import { servedRange, type CommandPod } from "../checks/neighbours";
import { adminAuth, Jenkins, withJenkins } from "./jenkins";
import { certificateTrouble, frontDoors, judgeDoors } from "./front-door";
import { awayWith, type KubernetesObject, nodesOf } from "./backup/objects";
import type { StandbyResult } from "./failover/plan";
import { escaped, htmlFrame } from "./html";
import { readStack, type Stack } from "./stack";
import { columns, readWords, runCommand } from "./terminal";

const HELP = `npm run status -- [STACK] [--html FILE]    how the platform is, in the terminal and as one HTML file

Exit code 0: all is well. 1: something needs a person. 2: bad arguments.
`;

/** What the platform said of itself. A part that could not be read is undefined, and `trouble` says why. */
export interface Facts {
  stack: string;
  url: string;
  /** When it was looked at. */
  time: Date;
  controller?: { ready: boolean; state: string; image: string; node: string; restarts: number; since?: Date };
  /** What the login page answered through the ingress. */
  door?: { good: boolean; text: string };
  /** What is wrong with the certificate; "" where nothing is, undefined without HTTPS. */
  certificate?: string;
  /** What Jenkins says of a changed configuration that it refused; empty where the present one is in force. */
  refused?: string;
  agents?: { name: string; template: string; phase: string; node: string; since?: Date }[];
  /** Builds that wait for an agent, longest first; undefined where Jenkins does not answer. */
  queue?: { job: string; why: string; since: Date }[];
  volume?: { phase: string; storageClass: string; node: string; requested: string; usedKib?: number };
  /** The stack's own registry, and on how many nodes it answers. */
  registry?: { ready: boolean; nodes: number; of: number };
  /** The cache of public registries; undefined where the stack has none. */
  imageCache?: { ready: boolean };
  /** "off" where the stack has no backup. */
  backup?: "off" | { last?: BackupResult; lastGood?: BackupResult; lastVerified?: BackupResult };
  /** The standby, and how often it is to follow, in minutes; undefined where the stack has none. */
  standby?: { node: string; answers: boolean; last?: StandbyResult; good?: StandbyResult; everyMinutes?: number };
  /** Range that each API server was started with. */
  nodePorts?: { node: string; range: string }[];
  trouble: string[];
}

/** What scripts/backup/report.sh keeps of a backup in ConfigMap jenkins-backup-status. */
export interface BackupResult {
  status: string;
  time: string;
  snapshot?: string;
  bytes?: number;
  message?: string;
  /** When the repository was last checked and pruned, and which part was read back, such as 1/2. */
  upkeep?: string;
  checked?: string;
}

/** A line of the page: what, how it is, and whether that is well. */
export interface Row {
  what: string;
  text: string;
  good: boolean;
}

/** "3 min", "2 h", "5 d" between two moments. */
export function age(since: Date, now: Date): string {
  const seconds = Math.max(0, Math.round((now.getTime() - since.getTime()) / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

const size = (kib: number): string => (kib < 2 ** 10 ? `${kib} KiB` : kib < 2 ** 20 ? `${(kib / 2 ** 10).toFixed(1)} MiB` : `${(kib / 2 ** 20).toFixed(1)} GiB`);

/** Days after which a backup is no longer a recent one. */
const stale = 2;

/** How far a standby is behind, in time and snapshot. */
export function standbyRow({ standby, backup, time, volume }: Pick<Facts, "standby" | "backup" | "time" | "volume">): Row[] {
  if (!standby) return [];
  const { node, answers, last, good, everyMinutes } = standby;
  const newest = typeof backup === "object" ? backup.lastGood : undefined;
  const ago = (moment: string) => `${age(new Date(moment), time)} ago`;
  const minutes = (moment: string) => (time.getTime() - Date.parse(moment)) / 60_000;
  const holds = good?.snapshot && good.taken && `as snapshot ${good.snapshot.slice(0, 8)}, taken ${ago(good.taken)}`;
  const current = good?.snapshot !== undefined && good.snapshot === newest?.snapshot;
  // A snapshot reaches the standby within some minutes; none may be older than the schedule allows.
  const inTime = (current || (newest !== undefined && minutes(newest.time) < 10)) && (everyMinutes === undefined || (good?.taken !== undefined && minutes(good.taken) < Math.max(15, 3 * everyMinutes)));
  const apart = node !== "" && node !== volume?.node;
  return [{
    what: "standby",
    good: answers && apart && last?.status === "ok" && inTime,
    text: [
      `${node ? `on ${node}` : "no volume yet"}${node && !apart ? ", the home's own node" : ""}${node && !answers ? ", which does not answer" : ""}`,
      ...(last?.status === "former" ? [last.message ?? "holds the former home"] : [holds || "never brought up to date"]),
      ...(holds && last?.status !== "former" ? [current ? "nothing behind" : newest ? `behind snapshot ${newest.snapshot?.slice(0, 8)} of ${ago(newest.time)}` : "behind"] : []),
      ...(last?.status === "failed" ? [`the latest update failed: ${last.message}`] : []),
    ].join("; "),
  }];
}

/** The summary, one row for each part of the platform. */
export function summary(facts: Facts): Row[] {
  const { controller, door, certificate, refused, agents, queue, volume, registry, imageCache, backup, nodePorts, time } = facts;
  const unknown = (what: string): Row => ({ what, text: "could not be read", good: false });
  const running = agents?.filter(({ phase }) => phase === "Running").length;
  const ranges = new Set(nodePorts?.map(({ range }) => range));
  const rows: Row[] = [
    controller
      ? {
          what: "controller", good: controller.ready,
          text: `${controller.state}${controller.since ? ` for ${age(controller.since, time)}` : ""} on ${controller.node || "no node yet"}${controller.restarts > 0 ? `, ${controller.restarts} restarts` : ""}`,
        }
      : unknown("controller"),
    ...(door ? [{ what: "login page", ...door }] : []),
    ...(certificate === undefined ? [] : [{ what: "certificate", good: certificate === "", text: certificate || "in force" }]),
    refused === undefined
      ? unknown("configuration")
      : { what: "configuration", text: refused || "in force", good: refused === "" },
    agents ? { what: "agents", text: `${running} running, ${agents.length - running!} on their way`, good: true } : unknown("agents"),
    queue ? { what: "queue", text: queue.length === 0 ? "empty" : `${queue.length} waiting, the first for ${age(queue[0].since, time)}`, good: true } : unknown("queue"),
    volume
      ? {
          what: "home volume", good: volume.phase === "Bound",
          text: `${volume.phase}, ${volume.usedKib === undefined ? "use unknown" : `${size(volume.usedKib)} used`} of ${volume.requested} asked for, ${volume.storageClass}${volume.node ? ` on ${volume.node}` : ""}`,
        }
      : unknown("home volume"),
    ...(registry ? [{ what: "registry", good: registry.ready && registry.nodes === registry.of, text: `${registry.ready ? "ready" : "not ready"}, answers on ${registry.nodes} of ${registry.of} nodes` }] : []),
    ...(imageCache ? [{ what: "image cache", good: imageCache.ready, text: imageCache.ready ? "ready" : "not ready: agents pull from the registries themselves" }] : []),
  ];
  if (backup === undefined) rows.push(unknown("last backup"));
  else if (backup === "off") rows.push({ what: "last backup", text: "none: the stack has no backup", good: false });
  else {
    const { last, lastGood, lastVerified } = backup;
    const recent = lastGood !== undefined && time.getTime() - Date.parse(lastGood.time) < stale * 86_400_000;
    rows.push({
      what: "last backup",
      good: recent && last?.status === "ok",
      text: [
        lastGood ? `good ${age(new Date(lastGood.time), time)} ago (${lastGood.time}${lastGood.bytes === undefined ? "" : `, ${size(Math.round(lastGood.bytes / 1024))}`}${lastGood.snapshot ? `, snapshot ${lastGood.snapshot.slice(0, 8)}` : ""})` : "no good one yet",
        ...(last && last.status !== "ok" ? [`the latest failed: ${last.message ?? last.status}`] : []),
        lastGood?.upkeep ? `repository checked ${age(new Date(lastGood.upkeep), time)} ago` : "repository never checked",
        lastVerified ? `restored on trial ${age(new Date(lastVerified.time), time)} ago` : "never restored on trial",
      ].join("; "),
    });
  }
  rows.push(
    ...standbyRow(facts),
    nodePorts && nodePorts.length > 0
      ? { what: "node-port range", text: ranges.size === 1 ? `${[...ranges][0]} on ${nodePorts.length} control-plane node${nodePorts.length === 1 ? "" : "s"}` : nodePorts.map(({ node, range }) => `${range} on ${node}`).join(", "), good: ranges.size === 1 }
      : unknown("node-port range"),
  );
  return rows;
}

/** Whether anything needs a person. */
export const allWell = (facts: Facts): boolean => facts.trouble.length === 0 && summary(facts).every(({ good }) => good);

function details(facts: Facts): { title: string; head: string[]; rows: string[][] }[] {
  const at = (since: Date | undefined) => (since ? age(since, facts.time) : "");
  return [
    { title: "Agents", head: ["pod", "template", "state", "node", "for"], rows: (facts.agents ?? []).map((agent) => [agent.name, agent.template, agent.phase, agent.node, at(agent.since)]) },
    { title: "Queue", head: ["job", "waits for", "for"], rows: (facts.queue ?? []).map((item) => [item.job, item.why, at(item.since)]) },
  ].filter(({ rows }) => rows.length > 0);
}

/** The page for a terminal. */
export function terminalPage(facts: Facts): string {
  const parts = [
    `${facts.stack}: ${allWell(facts) ? "all is well" : "something needs you"}, ${facts.time.toISOString()}`,
    facts.url,
    columns(summary(facts).map(({ what, text, good }) => [good ? " " : "!", what, text])),
    ...details(facts).map(({ title, head, rows }) => `${title}\n${columns([head, ...rows])}`),
    ...(facts.trouble.length > 0 ? [facts.trouble.map((text) => `! ${text}`).join("\n")] : []),
  ];
  return `${parts.join("\n\n")}\n`;
}

/** The page as one HTML file that loads nothing and runs nothing. */
export function htmlPage(facts: Facts): string {
  const well = allWell(facts);
  const cells = (row: string[]) => row.map((cell) => `<td>${escaped(cell)}</td>`).join("");
  const tables = details(facts).map(
    ({ title, head, rows }) => `<h2>${title}</h2>
<div class="wide"><table><thead><tr>${head.map((cell) => `<th scope="col">${cell}</th>`).join("")}</tr></thead>
<tbody>${rows.map((row) => `<tr>${cells(row)}</tr>`).join("\n")}</tbody></table></div>`,
  );
  return htmlFrame(facts.stack, { text: well ? "all is well" : "something needs you", good: well }, () => `<p><a href="${escaped(facts.url)}">${escaped(facts.url)}</a>, as of <time datetime="${facts.time.toISOString()}">${facts.time.toISOString()}</time></p>
<table><tbody>
${summary(facts).map(({ what, text, good }) => `<tr><th scope="row">${what}</th><td class="${good ? "good" : "bad"}">${good ? "ok" : "look"}</td><td>${escaped(text)}</td></tr>`).join("\n")}
</tbody></table>
${tables.join("\n")}
${facts.trouble.length > 0 ? `<h2>Trouble</h2>\n<ul>${facts.trouble.map((text) => `<li class="bad">${escaped(text)}</li>`).join("")}</ul>` : ""}`, `Build platform ${facts.stack}`);
}

interface PodItem {
  metadata: { name: string; labels?: Record<string, string> };
  spec: { nodeName?: string; containers: { name: string; image: string; command?: string[]; args?: string[] }[] };
  status: { phase: string; startTime?: string; containerStatuses?: { name: string; ready: boolean; restartCount: number; state: { running?: { startedAt: string }; waiting?: { reason: string; message?: string }; terminated?: { reason: string; message?: string } }; lastState?: { terminated?: { message?: string } } }[] };
}

/** The range that a kube-apiserver serves. */
export const rangeOf = (pod: Pick<CommandPod, "spec">): string => servedRange(pod) ?? "30000-32767 (Kubernetes' default)";

/** Asks the cluster and Jenkins. What cannot be read goes to `trouble`. */
export async function collect(stack: Stack): Promise<Facts> {
  const { config, kubectl } = stack;
  const { namespaces: { jenkins, agents } } = config;
  const facts: Facts = { stack: stack.name, url: jenkinsUrl(addressOf(config)), time: new Date(), trouble: [] };
  const json = async <T>(...args: string[]): Promise<T> => JSON.parse(await kubectl(...args, "-o", "json")) as T;
  const list = async (...args: string[]) => (await json<{ items: PodItem[] }>("get", "pods", ...args)).items;
  const nodes = async () => (await json<{ items: KubernetesObject[] }>("get", "nodes")).items;
  const volumeOf = (name: string) => json<KubernetesObject>("get", "pv", name);
  const attempt = async (what: string, work: () => Promise<void>) =>
    work().catch((error: Error) => void facts.trouble.push(`${what}: ${error.message.trim().split("\n").pop()}`));

  await Promise.all([
    attempt("controller", async () => {
      const [pod] = await list("-n", jenkins, "-l", "app.kubernetes.io/name=jenkins,app.kubernetes.io/component=controller", "--sort-by=.metadata.creationTimestamp").then((pods) => pods.slice(-1));
      if (!pod) throw new Error(`there is no pod of Jenkins; run pulumi up, or kubectl -n ${jenkins} describe deployment jenkins`);
      const container = pod.status.containerStatuses?.find(({ name }) => name === "jenkins");
      const { running, waiting, terminated } = container?.state ?? {};
      facts.controller = {
        ready: container?.ready ?? false,
        state: container?.ready ? "ready" : (waiting?.reason ?? terminated?.reason ?? (running ? "starting" : pod.status.phase)),
        image: pod.spec.containers[0].image,
        node: pod.spec.nodeName ?? "",
        restarts: container?.restartCount ?? 0,
        ...(running && { since: new Date(running.startedAt) }),
      };
      if (!container?.ready && waiting?.message) facts.trouble.push(`controller: ${waiting.message}`);
      const said = terminated?.message ?? container?.lastState?.terminated?.message;
      if (!container?.ready && said) facts.trouble.push(`controller: before it ended it said: ${said.trim().split("\n").slice(-5).join("; ")}`);
    }),
    attempt("login page", async () => {
      facts.door = judgeDoors(await frontDoors(stack), config);
    }),
    attempt("certificate", async () => {
      facts.certificate = await certificateTrouble(stack, facts.time);
    }),
    attempt("configuration", async () => {
      const kept = await kubectl("-n", jenkins, "exec", "deployment/jenkins", "-c", "config-reload", "--", "sh", "-c", `if [ -e ${reloadState}/refused ]; then cat ${reloadState}/refused; fi`);
      facts.refused = kept.trim().replace(/\s+/g, " ");
    }),
    attempt("agents", async () => {
      facts.agents = (await list("-n", agents, "-l", "jenkins=agent")).map(({ metadata, spec, status }) => ({
        name: metadata.name,
        template: metadata.labels?.["build-platform/template"] ?? "",
        phase: status.containerStatuses?.find(({ state }) => state.waiting)?.state.waiting?.reason ?? status.phase,
        node: spec.nodeName ?? "",
        ...(status.startTime && { since: new Date(status.startTime) }),
      }));
    }),
    attempt("queue", async () => {
      const auth = await adminAuth(stack);
      interface Item { task: { name: string }; why: string | null; inQueueSince: number }
      const { items } = await withJenkins(stack, (at) => new Jenkins(at, auth).json<{ items: Item[] }>("/queue/api/json"));
      facts.queue = items.map(({ task, why, inQueueSince }) => ({ job: task.name, why: why ?? "", since: new Date(inQueueSince) })).sort((a, b) => a.since.getTime() - b.since.getTime());
    }),
    attempt("home volume", async () => {
      interface Claim { spec: { storageClassName: string; volumeName?: string; resources: { requests: { storage: string } } }; status: { phase: string } }
      const claim = await json<Claim>("-n", jenkins, "get", "pvc", "jenkins-home");
      facts.volume = {
        phase: claim.status.phase, storageClass: claim.spec.storageClassName, requested: claim.spec.resources.requests.storage,
        node: "",
      };
      // The claim's own annotation names the scheduler's choice, which a restored volume never was.
      if (claim.spec.volumeName) facts.volume.node = nodesOf(await volumeOf(claim.spec.volumeName), await nodes()).join(", ");
      const measured = await kubectl("-n", jenkins, "exec", "deployment/jenkins", "-c", "jenkins", "--", "du", "-sk", "/var/jenkins_home").catch(() => "");
      const used = /^(\d+)/.exec(measured)?.[1];
      if (used) facts.volume.usedKib = Number(used);
    }),
    attempt("image cache", async () => {
      if (!config.imageCache) return;
      const { status } = await json<{ status: { readyReplicas?: number } }>("-n", config.imageCache.namespace, "get", "deployment", imageCacheName);
      facts.imageCache = { ready: (status.readyReplicas ?? 0) > 0 };
    }),
    attempt("registry", async () => {
      if (!config.imageRegistry) return;
      const { namespace, nodesNamespace } = config.imageRegistry;
      const [deployment, nodes] = await Promise.all([
        json<{ status: { readyReplicas?: number } }>("-n", namespace, "get", "deployment", registryName),
        json<{ status: { desiredNumberScheduled: number; numberReady: number } }>("-n", nodesNamespace, "get", "daemonset", registryNodeName),
      ]);
      facts.registry = { ready: (deployment.status.readyReplicas ?? 0) > 0, nodes: nodes.status.numberReady, of: nodes.status.desiredNumberScheduled };
    }),
    attempt("last backup", async () => {
      if (!config.backup) return void (facts.backup = "off");
      const { data = {} } = await json<{ data?: Record<string, string> }>("-n", jenkins, "get", "configmap", "jenkins-backup-status");
      const result = (key: string) => (data[key] ? (JSON.parse(data[key]) as BackupResult) : undefined);
      facts.backup = { last: result("last-backup"), lastGood: result("last-good-backup"), lastVerified: result("last-good-verify") };
    }),
    attempt("standby", async () => {
      if (!config.backup?.standby) return;
      const claim = await json<{ spec: { volumeName?: string } }>("-n", jenkins, "get", "pvc", "jenkins-home-standby");
      const volume = claim.spec.volumeName ? await volumeOf(claim.spec.volumeName) : undefined;
      const there = await nodes();
      const node = volume ? nodesOf(volume, there).join(", ") : "";
      const { data = {} } = await json<{ data?: Record<string, string> }>("-n", jenkins, "get", "configmap", "jenkins-backup-status");
      const result = (key: string) => (data[key] ? (JSON.parse(data[key]) as StandbyResult) : undefined);
      const { everyMinutes } = config.backup.standby;
      facts.standby = { node, answers: volume !== undefined && node !== "" && !awayWith(volume, there), last: result("last-standby"), good: result("last-good-standby"), ...(everyMinutes && { everyMinutes }) };
      const under = await kubectl("-n", jenkins, "get", "configmap", "jenkins-failover", "--ignore-not-found", "-o", "name");
      if (under.trim() !== "") facts.trouble.push("a failover has not come to its end: npm run failover goes on with it");
    }),
    attempt("node-port range", async () => {
      facts.nodePorts = (await list("-n", "kube-system", "-l", "component=kube-apiserver")).map((pod) => ({ node: pod.spec.nodeName ?? pod.metadata.name, range: rangeOf(pod) }));
    }),
  ]);
  return facts;
}

async function main(args: string[]): Promise<void> {
  const { values, positionals } = readWords(args, { html: { type: "string" } }, 1);
  const stack = await readStack(positionals[0]);
  const facts = await collect(stack);
  process.stdout.write(terminalPage(facts));
  if (values.html) {
    fs.writeFileSync(`${values.html}.new`, htmlPage(facts));
    fs.renameSync(`${values.html}.new`, values.html);
  }
  process.exitCode = allWell(facts) ? 0 : 1;
}

if (require.main === module) void runCommand("status", HELP, main);
