import fc from "fast-check";
import type { Keys } from "../../sandbox/images/jenkins/adapter/casc";
import { agentsToAccept, agentsToMake, agentsToRemove, agentsToRetire, orphans, type Agent, type HudsonState, type Source } from "../../sandbox/images/jenkins/adapter/plan";
import { agentName, combine, CONTROLLER_LABEL, inherit, labelValue, renderPod, REFRESHED_ANNOTATION, RETENTION_ANNOTATION, words, type Pod } from "../../sandbox/images/jenkins/adapter/pod";

const identity = { name: "maven-abcde", secret: "s3cret", controller: "jenkins.jenkins.svc_8080" };
const cloud: Keys = { name: "kubernetes", jenkinsUrl: "http://jenkins.jenkins.svc:8080/", jenkinsTunnel: "jenkins-agent.jenkins.svc:50000", podLabels: [{ key: "jenkins", value: "agent" }] };

// Tests look into pods of open structure.
const named = (list: Pod[], name: string): Pod => list.find((item) => item.name === name)!;
const envOf = (container: Pod): Record<string, string> => Object.fromEntries((container.env as { name: string; value: string }[]).map((e) => [e.name, e.value]));

describe("the agent pod", () => {
  const template: Keys = {
    name: "maven",
    label: "maven docker",
    serviceAccount: "jenkins-agent",
    nodeSelector: "disk=ssd, zone=a",
    runAsUser: "1000",
    activeDeadlineSeconds: 60,
    imagePullSecrets: [{ name: "registry" }],
    envVars: [{ envVar: { key: "A", value: "1" } }, { secretEnvVar: { key: "T", secretName: "s", secretKey: "k" } }],
    containers: [{ name: "jnlp", image: "agent:1", privileged: true, resourceRequestCpu: "50m", resourceLimitMemory: "1Gi", ttyEnabled: true }],
    volumes: [
      { hostPathVolume: { hostPath: "/cache", mountPath: "/c", readOnly: true } },
      { emptyDirVolume: { mountPath: "/e", memory: true } },
      { persistentVolumeClaim: { claimName: "p", mountPath: "/p" } },
    ],
  };
  const pod = renderPod(cloud, template, identity);
  const jnlp = named(pod.spec.containers, "jnlp");

  test("carries the labels of the cloud, the template and its controller", () => {
    expect(pod.metadata.name).toBe("maven-abcde");
    expect(pod.metadata.labels).toMatchObject({ jenkins: "agent", "jenkins/label": "maven_docker", [CONTROLLER_LABEL]: identity.controller });
  });

  test("gives the agent container its environment and no command", () => {
    expect(envOf(jnlp)).toMatchObject({
      A: "1",
      JENKINS_URL: "http://jenkins.jenkins.svc:8080/",
      JENKINS_TUNNEL: "jenkins-agent.jenkins.svc:50000",
      JENKINS_AGENT_NAME: "maven-abcde",
      JENKINS_NAME: "maven-abcde",
      JENKINS_SECRET: "s3cret",
      JENKINS_AGENT_WORKDIR: "/home/jenkins/agent",
    });
    expect(jnlp).not.toHaveProperty("command");
    expect(jnlp).not.toHaveProperty("args");
  });

  test("takes over what the template says", () => {
    expect(pod.spec).toMatchObject({
      serviceAccountName: "jenkins-agent",
      restartPolicy: "Never",
      nodeSelector: { disk: "ssd", zone: "a" },
      activeDeadlineSeconds: 60,
      imagePullSecrets: [{ name: "registry" }],
      securityContext: { runAsUser: 1000 },
    });
    expect(jnlp).toMatchObject({ tty: true, securityContext: { privileged: true }, resources: { requests: { cpu: "50m" }, limits: { memory: "1Gi" } } });
    expect(named(jnlp.env, "T").valueFrom).toEqual({ secretKeyRef: { name: "s", key: "k", optional: false } });
    expect(pod.spec.volumes).toEqual([
      { name: "volume-0", hostPath: { path: "/cache" } },
      { name: "volume-1", emptyDir: { medium: "Memory" } },
      { name: "volume-2", persistentVolumeClaim: { claimName: "p", readOnly: false } },
      { name: "workspace-volume", emptyDir: { medium: "" } },
    ]);
    expect(named(jnlp.volumeMounts, "volume-0")).toEqual({ name: "volume-0", mountPath: "/c", readOnly: true });
  });

  test("a command on the agent container is kept, as the plugin keeps it", () => {
    const odd = renderPod(cloud, { name: "x", containers: [{ name: "jnlp", image: "i", command: "sh -c 'sleep 1'", args: "^${computer.jnlpmac} ${computer.name}" }] }, identity);
    expect(named(odd.spec.containers, "jnlp")).toMatchObject({ command: ["sh", "-c", "sleep 1"], args: ["s3cret", "maven-abcde"] });
  });

  test("a template without an agent container gets one; other containers get the workspace and no secret", () => {
    const two = renderPod(cloud, { name: "x", containers: [{ name: "tool", image: "i", workingDir: "/w" }] }, identity);
    expect(two.spec.containers.map((c: Pod) => c.name)).toEqual(["jnlp", "tool"]);
    const tool = named(two.spec.containers, "tool");
    expect(tool.volumeMounts).toEqual([{ name: "workspace-volume", mountPath: "/w", readOnly: false }]);
    expect(envOf(tool)).toEqual({});
  });

  test("fields of the template are laid over its YAML", () => {
    const yaml = `
metadata: {labels: {jenkins: agent, own: label}}
spec:
  serviceAccountName: from-yaml
  tolerations: [{key: a, operator: Exists}]
  containers:
  - {name: jnlp, image: yaml:1, env: [{name: DOCKER_HOST, value: "tcp://localhost:2375"}], volumeMounts: [{name: workspace-volume, mountPath: /home/jenkins/agent}]}
  - {name: dind, image: dind:1, securityContext: {privileged: true}, volumeMounts: [{name: docker, mountPath: /var/lib/docker}]}
  volumes: [{name: docker, emptyDir: {}}, {name: workspace-volume, emptyDir: {sizeLimit: 1Gi}}]
`;
    const merged = renderPod(cloud, { name: "x", label: "x", yaml, serviceAccount: "jenkins-agent" }, identity);
    expect(merged.metadata.labels).toMatchObject({ own: "label", jenkins: "agent" });
    expect(merged.spec.serviceAccountName).toBe("jenkins-agent");
    expect(merged.spec.tolerations).toHaveLength(1);
    expect(envOf(named(merged.spec.containers, "jnlp"))).toMatchObject({ DOCKER_HOST: "tcp://localhost:2375", JENKINS_SECRET: "s3cret" });
    expect(named(merged.spec.containers, "jnlp").volumeMounts).toHaveLength(1);
    expect(named(merged.spec.containers, "dind").volumeMounts).toHaveLength(2);
    expect(named(merged.spec.volumes, "workspace-volume")).toEqual({ name: "workspace-volume", emptyDir: { sizeLimit: "1Gi" } });
    expect(envOf({ env: named(merged.spec.containers, "dind").env ?? [] })).not.toHaveProperty("JENKINS_SECRET");
  });

  test("the restricted context is for the agent container alone", () => {
    const pss = renderPod({ ...cloud, restrictedPssSecurityContext: true }, { name: "x", containers: [{ name: "jnlp", image: "a" }, { name: "b", image: "b" }] }, identity);
    expect(named(pss.spec.containers, "jnlp").securityContext).toMatchObject({ runAsNonRoot: true, capabilities: { drop: ["ALL"] } });
    expect(named(pss.spec.containers, "b")).not.toHaveProperty("securityContext");
  });

  test("a template takes over what it inherits", () => {
    const base: Keys = { name: "base", serviceAccount: "a", idleMinutes: 3, containers: [{ name: "jnlp", image: "a:1", privileged: true }], yaml: "spec: {hostNetwork: true}" };
    const child: Keys = { name: "child", yamlMergeStrategy: { merge: {} }, inheritFrom: "base", serviceAccount: "b", containers: [{ name: "jnlp", image: "a:2" }, { name: "c", image: "c" }] };
    expect(inherit(child, [base, child])).toMatchObject({ name: "child", serviceAccount: "b", idleMinutes: 3, yamls: ["spec: {hostNetwork: true}"], containers: [{ name: "jnlp", image: "a:2", privileged: true }, { name: "c" }] });
    expect(inherit(base, [base, child])).toBe(base);
  });

  test("the cloud's defaults stand below every template; its own YAML replaces theirs unless it says otherwise", () => {
    const defaults: Keys = { name: "defaults", label: "nobody", id: "d", inheritYamlMergeStrategy: true, yamlMergeStrategy: { merge: {} }, yaml: "spec: {priority: 1, containers: [{name: jnlp, image: 'd:1'}]}" };
    const pod = (own: Keys) => renderPod(cloud, inherit({ name: "own", label: "own", yaml: "spec: {hostNetwork: true}", ...own }, [defaults], "defaults"), identity);
    expect(pod({}).spec).toMatchObject({ priority: 1, hostNetwork: true });
    expect(pod({}).metadata.labels["jenkins/label"]).toBe("own");
    expect(pod({ yamlMergeStrategy: { override: {} } }).spec).not.toHaveProperty("priority");
    expect(inherit(defaults, [defaults], "defaults")).toBe(defaults);
  });

  test("merging is idempotent", () => {
    fc.assert(fc.property(fc.uniqueArray(fc.stringMatching(/^[a-z]{1,4}$/), { maxLength: 4 }), (names) => {
      const spec = { containers: names.map((name) => ({ name, image: name, env: [{ name: "A", value: name }] })), volumes: names.map((name) => ({ name })) };
      expect(combine({ spec }, { spec })).toEqual({ spec });
    }));
  });

  test("merging loses what the plugin's does: a pod's DNS, a container's life cycle; alone, a pod keeps all", () => {
    const above = { spec: { dnsPolicy: "None", hostNetwork: true, securityContext: { runAsUser: 7, fsGroup: 7 }, containers: [{ name: "jnlp", lifecycle: {}, tty: true }, { name: "more", lifecycle: {} }] } };
    const below = { spec: { securityContext: { runAsUser: 1, runAsNonRoot: true }, containers: [{ name: "jnlp", image: "a" }] } };
    expect(combine(below, above)).toEqual({ spec: { hostNetwork: true, securityContext: { runAsUser: 7, runAsNonRoot: true }, containers: [{ name: "jnlp", image: "a", tty: true }, { name: "more", lifecycle: {} }] } });
    expect(combine({}, above)).toEqual(above);
  });

  test("names and label values are ones that Kubernetes takes", () => {
    fc.assert(fc.property(fc.string(), fc.double({ min: 0, max: 0.999, noNaN: true }), (text, n) => {
      expect(agentName({ name: text }, () => n)).toMatch(/^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$/);
      expect(labelValue(text)).toMatch(/^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$/);
    }));
  });

  test("command lines are split at blanks outside quotes", () => {
    expect(words(`-Da=b  -Dc="d e" 'f g'h`)).toEqual(["-Da=b", "-Dc=d e", "f gh"]);
    expect(words("")).toEqual([]);
  });
});

describe("which agents are made and removed", () => {
  const source = (settings: Keys = {}, of: Keys = cloud): Source => ({ cloud: of, template: { name: "t", ...settings } });
  const waiting = (n: number, templates: number[] = [0]) => Array.from({ length: n }, (_, id) => ({ id, task: `job ${id}`, label: "t", templates }));
  const state = (over: Partial<HudsonState> = {}): HudsonState => ({ configured: true, quietingDown: false, pending: 0, queue: [], agents: [], ...over });
  const agent = (name: string, over: Partial<Agent> = {}): Agent => ({ name, source: source(), made: 0, accepting: 1, retired: 0, lostSince: 0, ...over });
  const node = (name: string, over: Partial<HudsonState["agents"][0]> = {}) => ({ name, online: true, wasOnline: true, used: false, idle: true, idleSince: 0, ...over });
  const running = (name: string, over: Pod = {}): [string, Pod] => [name, { metadata: { name }, status: { phase: "Running", conditions: [{ type: "ContainersReady", status: "True" }] }, ...over }];
  const never = () => false;

  test("one agent for each build that waits", () => {
    const t = source();
    expect(agentsToMake(state({ queue: waiting(3) }), [], [t], never)).toEqual([t, t, t]);
  });

  test("agents under way count, used ones do not", () => {
    const t = source();
    const agents = [agent("new", { source: t }), agent("used", { source: t })];
    const seen = state({ queue: waiting(2), agents: [node("new", { online: false, wasOnline: false }), node("used", { used: true, idle: false })] });
    expect(agentsToMake(seen, agents, [t], never)).toEqual([t]);
  });

  test("the caps of template and cloud hold, 0 means none", () => {
    expect(agentsToMake(state({ queue: waiting(5) }), [], [source({ instanceCap: 2 })], never)).toHaveLength(2);
    expect(agentsToMake(state({ queue: waiting(5) }), [], [source({}, { containerCapStr: 3 })], never)).toHaveLength(3);
    expect(agentsToMake(state({ queue: waiting(5) }), [], [source({ instanceCap: 0 })], never)).toHaveLength(5);
  });

  test("a second template serves where the first is full or paused", () => {
    const first = source({ name: "a", instanceCap: 1 });
    const second = source({ name: "b" });
    expect(agentsToMake(state({ queue: waiting(2, [0, 1]) }), [], [first, second], never)).toEqual([first, second]);
    expect(agentsToMake(state({ queue: waiting(1, [0, 1]) }), [], [first, second], (s) => s === first)).toEqual([second]);
  });

  test("nothing is made without a matching template or in quiet mode", () => {
    expect(agentsToMake(state({ queue: waiting(1, []) }), [], [source()], never)).toEqual([]);
    expect(agentsToMake(state({ queue: waiting(1), quietingDown: true }), [], [source()], never)).toEqual([]);
  });

  test("agents plus new ones never exceed what waits or the caps", () => {
    fc.assert(fc.property(fc.nat(30), fc.nat(10), fc.integer({ min: 1, max: 20 }), (queued, existing, limit) => {
      const t = source({ instanceCap: limit });
      const agents = Array.from({ length: Math.min(existing, limit) }, (_, i) => agent(`a${i}`, { source: t }));
      const seen = state({ queue: waiting(queued), agents: agents.map((a) => node(a.name)) });
      const made = agentsToMake(seen, agents, [t], never).length;
      expect(made).toBe(Math.max(0, Math.min(queued - agents.length, limit - agents.length)));
    }));
  });

  test("builds are taken once the whole pod is ready", () => {
    const late = agent("late", { accepting: 0 });
    const ready = agent("ready", { accepting: 0 });
    const away = agent("away", { accepting: 0 });
    const pods = new Map([running("ready"), running("away"), running("late", { status: { phase: "Running", conditions: [{ type: "ContainersReady", status: "False" }] } })]);
    const seen = state({ agents: [node("late"), node("ready"), node("away", { online: false })] });
    expect(agentsToAccept(seen, [late, ready, away], pods)).toEqual([ready]);
  });

  const removed = (a: Agent, n: HudsonState["agents"][0] | undefined, pod: [string, Pod] | undefined, now: number) =>
    agentsToRemove(state({ agents: n ? [n] : [] }), [a], new Map(pod ? [pod] : []), now);

  test("an agent goes after its one build", () => {
    expect(removed(agent("a"), node("a", { used: true, idle: false }), running("a"), 1e9)).toEqual([]);
    expect(removed(agent("a"), node("a", { used: true }), running("a"), 1)).toEqual([{ name: "a" }]);
  });

  const retired = (a: Agent, n: HudsonState["agents"][0], now: number) => agentsToRetire(state({ agents: [n] }), [a], now).length === 1;

  test("an agent with idle minutes takes builds that long", () => {
    const reusable = agent("a", { source: source({ idleMinutes: 2 }) });
    expect(retired(reusable, node("a", { used: true, idleSince: 0 }), 119_000)).toBe(false);
    expect(retired(reusable, node("a", { used: true, idle: false, idleSince: 0 }), 121_000)).toBe(false);
    expect(retired(reusable, node("a", { used: true, idleSince: 0 }), 121_000)).toBe(true);
    expect(retired({ ...reusable, retired: 1 }, node("a", { used: true, idleSince: 0 }), 121_000)).toBe(false);
  });

  test("an agent that found no build takes none after a minute, counted from when it first could", () => {
    expect(retired(agent("a"), node("a"), 59_000)).toBe(false);
    expect(retired(agent("a"), node("a"), 61_000)).toBe(true);
    expect(retired(agent("a", { accepting: 60_000 }), node("a", { idleSince: 0 }), 61_000)).toBe(false);
    expect(retired(agent("a", { accepting: 0 }), node("a"), 61_000)).toBe(false);
  });

  test("an agent that takes no more goes a moment later, unless a build was on its way to it", () => {
    const old = agent("a", { retired: 61_000 });
    expect(removed(old, node("a"), running("a"), 61_500)).toEqual([]);
    expect(removed(old, node("a"), running("a"), 62_500)).toEqual([{ name: "a" }]);
    expect(removed(old, node("a", { idle: false, used: true }), running("a"), 62_500)).toEqual([]);
    expect(agentsToRemove(state({ agents: [node("a")], pending: 1 }), [old], new Map([running("a")]), 62_500)).toEqual([]);
    // A waiting build gets an agent of its own meanwhile.
    expect(agentsToMake(state({ agents: [node("a")], queue: waiting(1) }), [old], [old.source], () => false)).toEqual([old.source]);
  });

  test.each<[string, Pod | undefined, string]>([
    ["missing", undefined, "its pod is gone"],
    ["failed", { status: { phase: "Failed", reason: "Evicted", message: "disk" } }, "its pod ended: Failed; Evicted; disk"],
    ["without image", { status: { phase: "Pending", containerStatuses: [{ name: "dind", state: { waiting: { reason: "ImagePullBackOff", message: "no such image" } } }] } }, "container dind cannot start: ImagePullBackOff: no such image"],
    ["whose agent ended", { status: { phase: "Running", containerStatuses: [{ name: "jnlp", state: { terminated: { exitCode: 1, reason: "Error" } } }] } }, "container jnlp ended with code 1 (Error)"],
  ])("an agent whose pod is %s is removed with the reason", (_, pod, trouble) => {
    const offline = node("a", { online: false, wasOnline: false });
    expect(removed(agent("a", { accepting: 0 }), offline, pod && ["a", { metadata: { name: "a" }, ...pod }], 1)).toEqual([{ name: "a", trouble }]);
  });

  test("a pod that only waits for its image is left to start", () => {
    const pulling: [string, Pod] = ["a", { metadata: { name: "a" }, status: { phase: "Pending", containerStatuses: [{ name: "jnlp", state: { waiting: { reason: "ContainerCreating" } } }] } }];
    expect(removed(agent("a", { accepting: 0 }), node("a", { online: false, wasOnline: false }), pulling, 1)).toEqual([]);
  });

  test("an agent that never connects is given up after its timeout", () => {
    const slow = agent("a", { accepting: 0, source: source({ slaveConnectTimeout: 10 }) });
    const offline = node("a", { online: false, wasOnline: false });
    expect(removed(slow, offline, running("a"), 9_000)).toEqual([]);
    expect(removed(slow, offline, running("a"), 11_000)[0].trouble).toContain("was not connected and ready within 10 s");
  });

  test("a lost connection has a minute to come back", () => {
    const lost = agent("a", { lostSince: 1_000 });
    const offline = node("a", { online: false, idle: false, used: true });
    expect(removed(lost, offline, running("a"), 60_000)).toEqual([]);
    expect(removed(lost, offline, running("a"), 62_000)).toEqual([{ name: "a", trouble: "its connection was lost and did not come back" }]);
  });

  test("an agent whose pod is gone goes, also while its connection still looks open", () => {
    expect(removed(agent("a"), node("a", { idle: false, used: true }), undefined, 1)).toEqual([{ name: "a", trouble: "its pod is gone" }]);
  });

  test("pods of this controller without an agent are orphans once nobody vouched for them long enough; others' and retained ones are not", () => {
    const pod = (name: string, controller: string, retention = "never", phase = "Running", refreshed?: number): Pod => ({
      metadata: { name, labels: { [CONTROLLER_LABEL]: controller }, annotations: { [RETENTION_ANNOTATION]: retention, ...(refreshed && { [REFRESHED_ANNOTATION]: String(refreshed) }) } },
      status: { phase },
    });
    const pods = [pod("mine", "c"), pod("known", "c"), pod("foreign", "d"), pod("kept", "c", "always"), pod("failed", "c", "onFailure", "Failed"), pod("fine", "c", "onFailure"), pod("fresh", "c", "never", "Running", 900_000), pod("stale", "c", "never", "Running", 600_000)];
    expect(orphans(pods, "c", new Set(["known"]), 1_000_000, 300_000)).toEqual(["mine", "fine", "stale"]);
  });
});
