/** Stands in for the kubernetes plugin at work: watches Hudson's queue and keeps the agent pods it calls for. */
import type { Hudson } from "./hudson";
import { Kubernetes } from "./kubernetes";
import { agentsToAccept, agentsToMake, agentsToRemove, agentsToRetire, idleMinutes, isRetained, orphans, podSummary, type Agent, type HudsonState, type Source } from "./plan";
import { agentName, controllerLabel, CONTROLLER_LABEL, inherit, REFRESHED_ANNOTATION, renderPod, WORKING_DIR, type Pod } from "./pod";
import type { Keys } from "./casc";

/** Time between two looks at Hudson's queue, in milliseconds. */
const LOOK_MS = 100;
/** Time between two looks at the pods while agents start, while they only run, and between two searches for orphans. */
const STARTING_MS = 150;
const PODS_MS = 1_000;
const ORPHANS_MS = 30_000;
/** The plugin's default of garbageCollection.timeout in seconds. */
const ORPHAN_TIMEOUT_S = 300;
/** A template whose pod could not be made or started rests for this long, doubled for each failure in a row. */
const PAUSE_MS = 5_000;
const LONGEST_PAUSE_MS = 60_000;

export class CloudWatcher {
  private sources: Source[] = [];
  private clouds: { settings: Keys; api: Kubernetes }[] = [];
  private readonly agents = new Map<string, Agent>();
  private readonly pauses = new Map<string, { until: number; failures: number }>();
  private pods = new Map<string, Pod>();
  private podsSeen = 0;
  private orphansSeen = 0;
  private stopped = false;
  private lastComplaint = "";

  constructor(private readonly hudson: Hudson, private readonly log: (line: string) => void, private readonly reconfigure: () => Promise<void>) {}

  /** Takes new clouds; agents that exist already keep what they were made from. */
  use(clouds: Keys[]): void {
    this.clouds = clouds.map((settings) => ({ settings, api: new Kubernetes(settings) }));
    this.sources = clouds.flatMap((cloud) => {
      const templates = (cloud.templates ?? []) as Keys[];
      return templates.map((template) => ({ cloud, template: inherit(template, templates, (cloud.defaultsProviderTemplate ?? "") as string) }));
    });
    this.pauses.clear();
    this.orphansSeen = 0;
  }

  stop(): void {
    this.stopped = true;
  }

  /** Runs until stop(). */
  async run(): Promise<void> {
    while (!this.stopped) {
      try {
        await this.look(Date.now());
        this.lastComplaint = "";
      } catch (e) {
        const complaint = (e as Error).message;
        if (complaint !== this.lastComplaint && !this.stopped) this.log(`cloud: ${complaint}`);
        this.lastComplaint = complaint;
      }
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }

  private async look(now: number): Promise<void> {
    const state = await this.hudson.call<HudsonState>("state");
    if (!state.configured) {
      await this.reconfigure();
      return;
    }
    if (this.clouds.length > 0 && now - this.orphansSeen > ORPHANS_MS) {
      this.orphansSeen = now;
      await this.vouch(now);
      await this.removeOrphans(now);
    }
    const starting = [...this.agents.values()].some((agent) => agent.accepting === 0);
    if (this.agents.size > 0 && now - this.podsSeen > (starting ? STARTING_MS : PODS_MS)) {
      this.podsSeen = now;
      this.pods = await this.listPods();
    }
    this.noteConnections(state, now);
    for (const agent of agentsToAccept(state, [...this.agents.values()], this.pods)) {
      await this.hudson.call("accept-tasks", { name: agent.name });
      agent.accepting = now;
    }
    for (const agent of agentsToRetire(state, [...this.agents.values()], now)) {
      await this.hudson.call("retire-agent", { name: agent.name });
      agent.retired = Date.now();
    }
    // An agent that was made after the last look at the pods has no pod there yet.
    const known = [...this.agents.values()].filter((agent) => agent.made < this.podsSeen);
    await Promise.all(agentsToRemove(state, known, this.pods, now).map(({ name, trouble }) => this.remove(name, trouble)));
    const wanted = agentsToMake(state, [...this.agents.values()], this.sources, (source) => (this.pauses.get(this.key(source))?.until ?? 0) > now);
    await Promise.all(wanted.map((source) => this.make(source)));
  }

  private noteConnections(state: HudsonState, now: number): void {
    for (const node of state.agents) {
      const agent = this.agents.get(node.name);
      if (!agent) continue;
      // A build that was on its way to it: one for many builds takes more again.
      if (agent.retired > 0 && !node.idle && idleMinutes(agent.source.template) > 0) [agent.retired, agent.accepting] = [0, 0];
      if (node.online) {
        this.pauses.delete(this.key(agent.source));
        agent.lostSince = 0;
      } else if (node.wasOnline && agent.lostSince === 0) agent.lostSince = now;
    }
  }

  private async make(source: Source): Promise<void> {
    const { cloud, template } = source;
    const { api } = this.clouds.find((c) => c.settings === cloud)!;
    const name = agentName(template);
    this.agents.set(name, { name, source, made: Date.now(), accepting: 0, retired: 0, lostSince: 0 });
    try {
      const { secret } = await this.hudson.call<{ secret: string }>("add-agent", {
        name,
        description: `Pod of template ${String(template.name)}`,
        remoteFs: workingDir(template),
        normal: isNormal(template),
        label: (template.label ?? "") as string,
        reusable: idleMinutes(template) > 0,
      });
      const pod = renderPod(cloud, template, { name, secret, controller: controllerLabel(cloud) });
      pod.metadata.annotations[REFRESHED_ANNOTATION] = String(Date.now());
      await api.createPod(api.namespace(template), pod);
      this.log(`cloud: agent ${name}: pod made in ${api.namespace(template)} from template ${String(template.name)}`);
    } catch (e) {
      this.log(`cloud: agent ${name}: cannot be made from template ${String(template.name)}: ${(e as Error).message}`);
      this.pause(source);
      this.agents.delete(name);
      await this.hudson.call("remove-agent", { name });
    }
  }

  private async remove(name: string, trouble?: string): Promise<void> {
    const { source } = this.agents.get(name)!;
    const api = this.clouds.find((c) => c.settings === source.cloud)?.api ?? new Kubernetes(source.cloud);
    const pod = this.pods.get(name);
    await this.hudson.call("remove-agent", { name });
    if (!pod || !isRetained(pod)) await api.deletePod(api.namespace(source.template), name);
    this.agents.delete(name);
    if (trouble) this.pause(source);
    this.log(trouble ? `cloud: agent ${name}: removed, ${trouble}` : `cloud: agent ${name}: done, node and pod removed`);
  }

  private pause(source: Source): void {
    const failures = (this.pauses.get(this.key(source))?.failures ?? 0) + 1;
    this.pauses.set(this.key(source), { until: Date.now() + Math.min(PAUSE_MS * 2 ** (failures - 1), LONGEST_PAUSE_MS), failures });
  }

  private key(source: Source): string {
    return `${String(source.cloud.name)}/${String(source.template.name)}`;
  }

  private async listPods(): Promise<Map<string, Pod>> {
    const places = new Map<string, () => Promise<Pod[]>>();
    for (const { source } of this.agents.values()) {
      const api = this.clouds.find((c) => c.settings === source.cloud)?.api ?? new Kubernetes(source.cloud);
      const namespace = api.namespace(source.template);
      const selector = `${CONTROLLER_LABEL}=${controllerLabel(source.cloud)}`;
      places.set(`${namespace} ${selector}`, () => api.listPods(namespace, selector));
    }
    const lists = await Promise.all([...places.values()].map((list) => list()));
    return new Map(lists.flat().map((pod) => [pod.metadata.name as string, pod]));
  }

  /** Tells other looks, also a later controller's, which pods have an agent behind them. */
  private async vouch(now: number): Promise<void> {
    for (const { name, source } of this.agents.values()) {
      const api = this.clouds.find((c) => c.settings === source.cloud)?.api ?? new Kubernetes(source.cloud);
      await api.annotatePod(api.namespace(source.template), name, { [REFRESHED_ANNOTATION]: String(now) });
    }
  }

  /** Only where the document asks for it, as in the plugin. */
  private async removeOrphans(now: number): Promise<void> {
    for (const { settings, api } of this.clouds) {
      const collection = settings.garbageCollection as Keys | undefined;
      if (!collection) continue;
      const controller = controllerLabel(settings);
      const timeout = Number(collection.timeout ?? ORPHAN_TIMEOUT_S) * 1000;
      const named = String(collection.namespaces ?? "").split(/[\s,]+/).filter(Boolean);
      for (const namespace of new Set([api.namespace({}), ...named])) {
        const pods = await api.listPods(namespace, `${CONTROLLER_LABEL}=${controller}`);
        for (const name of orphans(pods, controller, this.agents, now, timeout)) {
          const pod = pods.find((p) => p.metadata.name === name);
          this.log(`cloud: pod ${namespace}/${name} belongs to no agent of this controller (${podSummary(pod)}), deleted`);
          await api.deletePod(namespace, name);
        }
      }
    }
  }
}

function isNormal(template: Keys): boolean {
  return template.nodeUsageMode !== "EXCLUSIVE";
}

function workingDir(template: Keys): string {
  const name = (template.agentContainer as string) || "jnlp";
  return (((template.containers ?? []) as Keys[]).find((c) => c.name === name)?.workingDir as string) || WORKING_DIR;
}

/** What the bridge needs to know of the templates: labels and usage, in the order of `use`. */
export function templateLabels(clouds: Keys[]): { label: string; normal: boolean }[] {
  return clouds.flatMap((cloud) => {
    const templates = (cloud.templates ?? []) as Keys[];
    return templates.map((t) => inherit(t, templates, (cloud.defaultsProviderTemplate ?? "") as string)).map((t) => ({ label: (t.label ?? "") as string, normal: isNormal(t) }));
  });
}
