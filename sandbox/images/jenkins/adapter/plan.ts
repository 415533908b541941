/**
 * Stands in for the kubernetes plugin's provisioning, retention and reaper: decides from what is seen which agents
 * to make and which to remove. Pure: the clock and everything seen come in as arguments.
 */
import type { Keys } from "./casc";
import { CONTROLLER_LABEL, REFRESHED_ANNOTATION, RETENTION_ANNOTATION, type Pod } from "./pod";

/** What the bridge inside Hudson reports. */
export interface HudsonState {
  configured: boolean;
  quietingDown: boolean;
  /** How many builds were given to an agent that has not begun them yet. */
  pending: number;
  /** Builds that wait for an executor, oldest first, with the templates (by place) that can serve them. */
  queue: { id: number; task: string; label: string; templates: number[] }[];
  agents: { name: string; online: boolean; wasOnline: boolean; used: boolean; idle: boolean; idleSince: number }[];
}

/** A pod template with its cloud, inheritance resolved. */
export interface Source {
  cloud: Keys;
  template: Keys;
}

/** An agent this process made and still looks after. */
export interface Agent {
  name: string;
  source: Source;
  /** Milliseconds since the epoch. */
  made: number;
  /** Since when it may take builds, being connected with its whole pod ready; 0 while it may not. */
  accepting: number;
  /** Since when it takes no more, having found none for too long; 0 before that. */
  retired: number;
  /** When it was first seen offline after having been online; 0 while all is well. */
  lostSince: number;
}

export interface Removal {
  name: string;
  /** For the log; undefined when the agent simply did its work. */
  trouble?: string;
}

/** How long an agent that was online may be away while its pod still runs, in milliseconds. */
const RECONNECT_MS = 60_000;
/** An agent that got no build is given up after this time, the plugin's shortest check interval, in milliseconds. */
const UNUSED_MS = 60_000;
/** Time between an agent's last chance of a build and its removal, in milliseconds: a build that was given to it has begun by then. */
const RETIRED_MS = 1_000;
/** The plugin's default slaveConnectTimeout in seconds. */
const CONNECT_TIMEOUT_S = 1000;
/** Reasons for which a container that waits will wait forever. */
const HOPELESS = ["ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError"];

export function idleMinutes(template: Keys): number {
  return Number(template.idleMinutes ?? template.idleMinutesStr ?? 0);
}

/** Cap of a template or cloud; 0 and absence mean none. */
function cap(...values: unknown[]): number {
  const value = Number(values.find((v) => v !== undefined && v !== "") ?? 0);
  return value > 0 ? value : Infinity;
}

/**
 * Which templates get a new agent, one entry per agent. Each waiting build is served by an agent under way,
 * else by the first matching template whose caps leave room and that is not paused after a failure.
 */
export function agentsToMake(state: HudsonState, agents: Agent[], sources: Source[], paused: (source: Source) => boolean): Source[] {
  if (state.quietingDown) return [];
  const seen = new Map(state.agents.map((a) => [a.name, a]));
  const free = agents.filter((agent) => {
    const node = seen.get(agent.name);
    return !node || (!node.used && agent.lostSince === 0 && agent.retired === 0) || (node.online && node.idle && idleMinutes(agent.source.template) > 0);
  });
  const made: Source[] = [];
  for (const item of state.queue) {
    const matching = item.templates.map((place) => sources[place]).filter((source) => source !== undefined);
    const underWay = free.findIndex((agent) => matching.includes(agent.source));
    if (underWay >= 0) {
      free.splice(underWay, 1);
      continue;
    }
    const all = [...agents.map((agent) => agent.source), ...made];
    const source = matching.find(
      (s) =>
        !paused(s) &&
        all.filter((other) => other === s).length < cap(s.template.instanceCap, s.template.instanceCapStr) &&
        all.filter((other) => other.cloud === s.cloud).length < cap(s.cloud.containerCap, s.cloud.containerCapStr),
    );
    if (source) made.push(source);
  }
  return made;
}

/** Which agents are to go: done, idle too long, never connected, or their pod is gone or cannot start. */
export function agentsToRemove(state: HudsonState, agents: Agent[], pods: Map<string, Pod>, now: number): Removal[] {
  const seen = new Map(state.agents.map((a) => [a.name, a]));
  return agents.flatMap((agent): Removal[] => {
    const node = seen.get(agent.name);
    const pod = pods.get(agent.name);
    const limit = idleMinutes(agent.source.template);
    const gone = (trouble?: string): Removal[] => [{ name: agent.name, ...(trouble ? { trouble } : {}) }];
    if (!node) return gone("its node was removed in the controller");
    // Whatever the connection looks like: a node that lost its power never closes it.
    if (!pod) return gone(podTrouble(pod));
    if (node.idle && node.used && limit === 0) return gone();
    if (agent.retired > 0 && node.idle && state.pending === 0 && now - agent.retired > RETIRED_MS) return gone();
    if (node.online && agent.accepting > 0) return [];
    const trouble = podTrouble(pod);
    if (trouble) return gone(trouble);
    if (agent.lostSince > 0) return now - agent.lostSince > RECONNECT_MS ? gone("its connection was lost and did not come back") : [];
    const timeout = Number(agent.source.template.slaveConnectTimeout ?? agent.source.template.slaveConnectTimeoutStr ?? CONNECT_TIMEOUT_S) || CONNECT_TIMEOUT_S;
    if (now - agent.made > timeout * 1000) return gone(`it was not connected and ready within ${timeout} s (pod: ${podSummary(pod)})`);
    return [];
  });
}

/**
 * Which agents are to take no more builds, having had none for too long since they could. They go a moment later if none had been
 * given to them by then: taken away at once, one that was just being given would be lost.
 */
export function agentsToRetire(state: HudsonState, agents: Agent[], now: number): Agent[] {
  const seen = new Map(state.agents.map((a) => [a.name, a]));
  return agents.filter((agent) => {
    const node = seen.get(agent.name);
    if (!node?.idle || !node.online || agent.accepting === 0 || agent.retired > 0) return false;
    return now - Math.max(node.idleSince, agent.accepting) > Math.max(idleMinutes(agent.source.template) * 60_000, node.used ? 0 : UNUSED_MS);
  });
}

/** Which connected agents may take builds from now on: those whose containers are all ready, as in the plugin. */
export function agentsToAccept(state: HudsonState, agents: Agent[], pods: Map<string, Pod>): Agent[] {
  const online = new Set(state.agents.filter((a) => a.online).map((a) => a.name));
  return agents.filter((agent) => {
    const conditions = (pods.get(agent.name)?.status?.conditions ?? []) as Pod[];
    return agent.accepting === 0 && online.has(agent.name) && conditions.some((c) => c.type === "ContainersReady" && c.status === "True");
  });
}

/** Why a pod will never (again) carry an agent; undefined while it may. */
export function podTrouble(pod: Pod | undefined): string | undefined {
  if (!pod) return "its pod is gone";
  if (pod.metadata?.deletionTimestamp) return "its pod is being deleted";
  const status = (pod.status ?? {}) as Pod;
  if (status.phase === "Failed" || status.phase === "Succeeded") return `its pod ended: ${podSummary(pod)}`;
  const statuses = [...((status.initContainerStatuses ?? []) as Pod[]), ...((status.containerStatuses ?? []) as Pod[])];
  for (const c of statuses) {
    const waiting = c.state?.waiting as Pod | undefined;
    if (waiting && HOPELESS.includes(waiting.reason as string)) return `container ${String(c.name)} cannot start: ${String(waiting.reason)}: ${String(waiting.message ?? c.image)}`;
    const ended = c.state?.terminated as Pod | undefined;
    if (ended && c.name === "jnlp") return `container jnlp ended with code ${String(ended.exitCode)} (${String(ended.reason)})`;
  }
  return undefined;
}

/** One line on where a pod stands. */
export function podSummary(pod: Pod | undefined): string {
  if (!pod) return "not there";
  const status = (pod.status ?? {}) as Pod;
  const conditions = ((status.conditions ?? []) as Pod[]).filter((c) => c.status === "False" && c.message).map((c) => String(c.message));
  const waiting = ((status.containerStatuses ?? []) as Pod[]).flatMap((c) => (c.state?.waiting?.reason ? [`${String(c.name)}: ${String(c.state.waiting.reason)}`] : []));
  return [status.phase ?? "Pending", status.reason, status.message, ...conditions, ...waiting].filter(Boolean).join("; ");
}

/** Whether a pod stays when its agent goes. */
export function isRetained(pod: Pod): boolean {
  const retention = pod.metadata?.annotations?.[RETENTION_ANNOTATION] as string | undefined;
  return retention === "always" || ((retention === "onFailure" || retention === "evicted") && pod.status?.phase === "Failed");
}

/**
 * Pods of this controller that no agent stands behind, such as those of a controller that was killed, and that nobody
 * has vouched for within the cloud's garbage collection timeout.
 */
export function orphans(pods: Pod[], controller: string, agents: { has(name: string): boolean }, now: number, timeoutMs: number): string[] {
  const refreshed = (pod: Pod) => Number(pod.metadata.annotations?.[REFRESHED_ANNOTATION] ?? 0);
  return pods
    .filter((pod) => pod.metadata.labels?.[CONTROLLER_LABEL] === controller && !pod.metadata.deletionTimestamp && !agents.has(pod.metadata.name as string) && !isRetained(pod))
    .filter((pod) => now - refreshed(pod) > timeoutMs)
    .map((pod) => pod.metadata.name as string);
}
