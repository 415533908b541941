import { run } from "@bufbuild/cel";
import { strings } from "@bufbuild/cel/ext";
import * as fc from "fast-check";
import { agentPod, type AgentSettings, type AgentTemplate, type PodRules } from "../../components/jenkins-master/agents";
import { defaultsPod } from "../../components/jenkins-master/casc";
import { allowed, podPolicyName, podValidations, type PodSpec, type PodValidations } from "../../components/jenkins-master/pod-policy";
import { JenkinsMaster } from "../../components/jenkins-master";
import { all, settled, the, useMocks } from "./mocks";

jest.setTimeout(60_000);

/** The rules for pods of the agents' namespace, evaluated as the API server does it. */

// What the tests look at is plain JSON of many shapes.
type Json = any;

const digest = (letter: string) => `sha256:${letter.repeat(64)}`;
const dind = `registry.test/docker:28@${digest("d")}`;
const buildkit = `registry.test/buildkit:rootless@${digest("b")}`;
const cache = "/var/cache/build-platform";
const template: AgentTemplate = {
  name: "maven", label: "maven", image: `registry.test/maven@${digest("a")}`, docker: "dind", caches: ["maven"], resources: {}, dockerResources: {}, cap: 1, idleMinutes: 0, podRetention: "never",
  connectTimeoutSeconds: 1, activeDeadlineSeconds: 0, nodeSelector: {}, tolerations: [], spread: true, unlabelled: false, env: {}, volumes: [],
};
const templates: AgentTemplate[] = [template, { ...template, name: "gradle", caches: ["gradle"] }, { ...template, name: "rootless", docker: "rootless", caches: [] }, { ...template, name: "plain", docker: "none", caches: [] }];
const settings: AgentSettings = { agentImage: "registry.test/agent:1", dindImage: dind, buildkitImage: buildkit, insecureRegistries: [], cachePath: cache };
const none: PodRules = { action: "deny", privilegedImages: [], hostPaths: [], serviceAccounts: [] };
const keeper: PodSpec = { containers: [{ image: "k" }], volumes: [{ name: "cache", hostPath: { path: cache } }], serviceAccountName: "jenkins-agent" };

const podsOf = (of: AgentTemplate[], with_: AgentSettings = settings): Json[] => [...of.map((each) => agentPod(each, with_)), defaultsPod({ templates: of, settings: with_ })];
const rulesOf = (of: AgentTemplate[], further: Partial<PodRules> = {}, keepers = [keeper]): PodValidations => podValidations(allowed(podsOf(of).map(({ spec }) => spec), keepers, { ...none, ...further }, undefined, "jenkins-controller"), "jenkins-agents");
const usual = rulesOf(templates);

/** JSON as CEL takes it: whole numbers are ints. */
function celValue(value: unknown): Json {
  if (Array.isArray(value)) return value.map(celValue);
  if (typeof value === "number") return BigInt(value);
  return typeof value === "object" && value !== null ? new Map(Object.entries(value).filter(([, each]) => each !== undefined).map(([key, each]) => [key, celValue(each)])) : value;
}

interface Request { operation?: "CREATE" | "UPDATE"; username?: string; before?: object }

/** What the API server would say against a pod; nothing where it takes it. */
function refusals({ matchConditions, variables, validations }: PodValidations, pod: object, { operation = "CREATE", username = "system:serviceaccount:jenkins:jenkins", before }: Request = {}): string[] {
  const bindings: Record<string, Json> = { object: celValue(pod), oldObject: before === undefined ? null : celValue(before), request: celValue({ operation, userInfo: { username } }), variables: new Map() };
  const value = (expression: string): Json => {
    const result = run(expression, bindings, { funcs: strings });
    if (result instanceof Error) throw new Error(`${result.message} in ${expression}`);
    return result;
  };
  if (!matchConditions.every(({ expression }) => value(expression))) return [];
  for (const { name, expression } of variables) bindings.variables.set(name, value(expression));
  return validations.filter(({ expression }) => !value(expression)).map(({ messageExpression }) => value(messageExpression));
}

/** A pod as a pipeline describes it, with more in its spec or in its container. */
const pod = (spec: object = {}, container: object = {}): Json => ({ metadata: { name: "p" }, spec: { serviceAccountName: "jenkins-agent", containers: [{ name: "tool", image: "registry.test/tool:1", ...container }], ...spec } });
const rule = (messages: string[]) => messages.map((message) => /\(rule (\w+) of namespace jenkins-agents\)$/.exec(message)?.[1]);
const hostPath = (path: string, mounts: object[] = [], further: object = {}) => pod({ volumes: [{ name: "v", hostPath: { path } }], ...further }, { volumeMounts: mounts });
const mount = (readOnly?: boolean) => ({ name: "v", mountPath: "/v", ...(readOnly !== undefined && { readOnly }) });
const controlPlane = "node-role.kubernetes.io/control-plane";
const required = (...matchExpressions: object[]) => ({ affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [{ matchExpressions }] } } } });
const preferred = (...matchExpressions: object[]) => ({ affinity: { nodeAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [{ weight: 1, preference: { matchExpressions } }] } } });
const ephemeral = (container: object) => pod({ ephemeralContainers: [{ name: "debug", image: "registry.test/tool:1", ...container }] });

const refused: [string, object, string][] = [
  ["a privileged container", pod({}, { securityContext: { privileged: true } }), "privileged"],
  ["a privileged init container", pod({ initContainers: [{ name: "i", image: "registry.test/tool:1", securityContext: { privileged: true } }] }), "privileged"],
  ["a privileged ephemeral container", ephemeral({ securityContext: { privileged: true } }), "privileged"],
  ["the docker image of another digest", pod({}, { image: `registry.test/docker:28@${digest("e")}`, securityContext: { privileged: true } }), "privileged"],
  ["the docker image without its digest", pod({}, { image: "registry.test/docker:28", securityContext: { privileged: true } }), "privileged"],
  ["BuildKit's image with privileges, which it does not need", pod({}, { image: buildkit, securityContext: { privileged: true } }), "privileged"],
  ["a capability beyond the usual", pod({}, { securityContext: { capabilities: { drop: ["ALL"], add: ["CHOWN", "SYS_ADMIN"] } } }), "privileged"],
  ["all capabilities", pod({}, { securityContext: { capabilities: { add: ["ALL"] } } }), "privileged"],
  ["an unmasked /proc", pod({}, { securityContext: { procMount: "Unmasked" } }), "privileged"],
  ["another SELinux type of a container", pod({}, { securityContext: { seLinuxOptions: { type: "spc_t" } } }), "privileged"],
  ["another SELinux type of the pod", pod({ securityContext: { seLinuxOptions: { type: "spc_t" } } }), "privileged"],
  ["another SELinux role", pod({}, { securityContext: { seLinuxOptions: { role: "system_r" } } }), "privileged"],
  ["a container without seccomp", pod({}, { securityContext: { seccompProfile: { type: "Unconfined" } } }), "unconfined"],
  ["a container without AppArmor", pod({}, { securityContext: { appArmorProfile: { type: "Unconfined" } } }), "unconfined"],
  ["a pod without seccomp", pod({ securityContext: { seccompProfile: { type: "Unconfined" } } }), "unconfined"],
  ["a pod without AppArmor", pod({ securityContext: { appArmorProfile: { type: "Unconfined" } } }), "unconfined"],
  ["the node's network", pod({ hostNetwork: true }), "host"],
  ["the node's processes", pod({ hostPID: true }), "host"],
  ["the node's IPC", pod({ hostIPC: true }), "host"],
  ["a port of the node", pod({}, { ports: [{ containerPort: 80 }, { containerPort: 81, hostPort: 81 }] }), "host"],
  ["a probe of the node's own loopback", pod({}, { livenessProbe: { httpGet: { host: "127.0.0.1", port: 10248, path: "/healthz" } } }), "host"],
  ["a probe of a port elsewhere", pod({}, { readinessProbe: { tcpSocket: { host: "10.0.0.1", port: 6443 } } }), "host"],
  ["the same in an init container", pod({ initContainers: [{ name: "i", image: "x", restartPolicy: "Always", startupProbe: { tcpSocket: { host: "10.0.0.1", port: 6443 } } }] }), "host"],
  ["a hook that asks elsewhere", pod({}, { lifecycle: { preStop: { httpGet: { host: "169.254.169.254", port: 80 } } } }), "host"],
  ["a hook at the start that asks elsewhere", pod({}, { lifecycle: { postStart: { httpGet: { host: "169.254.169.254", port: 80 } } } }), "host"],
  ["the priority of what runs a node", pod({ priorityClassName: "system-node-critical" }), "priority"],
  ["the priority of what runs the cluster", pod({ priorityClassName: "system-cluster-critical" }), "priority"],
  ["the controller's priority", pod({ priorityClassName: "jenkins-controller" }), "priority"],
  ["the node's root", hostPath("/", [mount(true)]), "volumes"],
  ["a folder below a cache", hostPath(`${cache}/maven/repository`), "volumes"],
  ["a path that starts like a cache", hostPath(`${cache}/maven2`), "volumes"],
  ["a way out of a cache", hostPath(`${cache}/maven/../../..`), "volumes"],
  ["a cache with a slash behind it", hostPath(`${cache}/maven/`), "volumes"],
  ["all caches, as only their keeper has them", hostPath(cache, [mount(true)]), "volumes"],
  ["a cache to write to that agents only read", hostPath(`${cache}/gradle`, [mount()]), "volumes"],
  ["the same, said outright", hostPath(`${cache}/gradle`, [mount(false)]), "volumes"],
  ["the same in an init container", hostPath(`${cache}/gradle`, [mount(true)], { initContainers: [{ name: "i", image: "x", volumeMounts: [mount()] }] }), "volumes"],
  ["the same in an ephemeral container", hostPath(`${cache}/gradle`, [mount(true)], { ephemeralContainers: [{ name: "i", image: "x", volumeMounts: [mount()] }] }), "volumes"],
  ["a gitRepo", pod({ volumes: [{ name: "v", gitRepo: { repository: "x" } }] }), "volumes"],
  ["another account", pod({ serviceAccountName: "deployer" }), "account"],
  ["a node by its name", pod({ nodeName: "node-1" }), "node"],
  ["a label of control-plane nodes", pod({ nodeSelector: { [controlPlane]: "" } }), "node"],
  ["an older label of control-plane nodes", pod({ nodeSelector: { "node-role.kubernetes.io/master": "" } }), "node"],
  ["affinity to control-plane nodes", pod(required({ key: "disk", operator: "Exists" }, { key: controlPlane, operator: "Exists" })), "node"],
  ["a liking for control-plane nodes", pod(preferred({ key: controlPlane, operator: "In", values: [""] })), "node"],
  ["the taint of control-plane nodes", pod({ tolerations: [{ key: controlPlane, operator: "Exists", effect: "NoSchedule" }] }), "node"],
  ["every taint", pod({ tolerations: [{ operator: "Exists" }] }), "node"],
  ["every taint, with an empty key", pod({ tolerations: [{ key: "", operator: "Exists" }] }), "node"],
];

test.each(refused)("refused: %s", (_, each, by) => {
  const messages = refusals(usual, each);
  expect(rule(messages)).toEqual([by]);
  expect(messages[0]).toMatch(/stack config/);
  expect(messages[0]).not.toMatch(/\n/);
  // The same on an update of what was there.
  const updated = refusals(usual, each, { operation: "UPDATE", before: pod({ priority: 1 }) });
  expect(rule(updated)).toEqual((each as Json).spec.nodeName ? [] : [by]);
});

const taken: [string, object][] = [
  ["a pod with a tool", pod()],
  ["no account, which is the namespace's default", pod({ serviceAccountName: undefined })],
  ["the namespace's default account", pod({ serviceAccountName: "default" })],
  ["root inside its container, and a right to become more there", pod({}, { securityContext: { runAsUser: 0, runAsNonRoot: false, allowPrivilegeEscalation: true, privileged: false, procMount: "Default", seLinuxOptions: { level: "s0:c1,c2", type: "container_t" } } })],
  ["capabilities that containers have anyway", pod({}, { securityContext: { capabilities: { drop: ["ALL"], add: ["CHOWN", "NET_BIND_SERVICE"] } } })],
  ["the docker daemon's image, in whatever place", pod({ initContainers: [{ name: "i", image: dind, securityContext: { privileged: true, seccompProfile: { type: "Unconfined" } } }] })],
  ["BuildKit's image without seccomp and AppArmor", pod({}, { image: buildkit, securityContext: { seccompProfile: { type: "Unconfined" }, appArmorProfile: { type: "Unconfined" } } })],
  ["profiles of the runtime and of the node", pod({ securityContext: { seccompProfile: { type: "RuntimeDefault" } } }, { securityContext: { appArmorProfile: { type: "Localhost", localhostProfile: "x" } } })],
  ["a port of its own", pod({ hostNetwork: false, hostPID: false, hostIPC: false }, { ports: [{ containerPort: 80 }, { containerPort: 81, hostPort: 0 }] })],
  ["probes and hooks of itself", pod({}, { livenessProbe: { httpGet: { port: 80 } }, readinessProbe: { tcpSocket: { host: "", port: 80 } }, startupProbe: { exec: { command: ["true"] } }, lifecycle: { preStop: { httpGet: { port: 80 } } } })],
  ["a priority of its own", pod({ priorityClassName: "batch" })],
  ["a cache that agents write to", hostPath(`${cache}/maven`, [mount()])],
  ["a cache that agents read", hostPath(`${cache}/gradle`, [mount(true), { name: "other", mountPath: "/o" }])],
  ["volumes of all other kinds", pod({ volumes: [{ name: "a", emptyDir: {} }, { name: "b", secret: { secretName: "s" } }, { name: "c", persistentVolumeClaim: { claimName: "c" } }] })],
  ["nodes with a label, away from control-plane nodes", pod({ nodeSelector: { disk: "ssd" }, ...required({ key: controlPlane, operator: "DoesNotExist" }) })],
  ["taints with a key", pod({ tolerations: [{ key: "ci", operator: "Exists" }, { key: "node.kubernetes.io/not-ready", operator: "Exists", effect: "NoExecute" }] })],
];

test.each(taken)("taken: %s", (_, each) => {
  expect(refusals(usual, each)).toEqual([]);
});

test("a variable is made of those before it, each of a name of its own: the API server follows a circle until it has no memory", () => {
  usual.variables.forEach(({ expression }, i) => {
    const before = usual.variables.slice(0, i).map(({ name }) => name);
    expect([...expression.matchAll(/variables\.(\w+)/g)].map(([, name]) => name).filter((name) => !before.includes(name))).toEqual([]);
  });
  expect(new Set(usual.variables.map(({ name }) => name)).size).toBe(usual.variables.length);
});

test("the container, the folder and the taint are named", () => {
  expect(refusals(usual, pod({}, { securityContext: { privileged: true } }))[0]).toMatch(/^container tool is privileged, .*agentPods\.privilegedImages of the stack config/);
  expect(refusals(usual, hostPath("/etc"))[0]).toMatch(/^volume v \(\/etc\) is a folder of the node/);
  expect(refusals(usual, pod({ tolerations: [{ operator: "Exists" }], nodeName: "n" }))[0]).toMatch(/^nodeName, toleration of every taint picks the node/);
  expect(refusals(usual, pod({ serviceAccountName: "x" }))[0]).toMatch(/^serviceAccountName is not one of default, jenkins-agent; /);
});

describe("what was there before the rules", () => {
  const old = pod({ hostNetwork: true });
  test("can be labelled, and not changed", () => {
    expect(refusals(usual, { ...old, metadata: { name: "p", labels: { a: "b" } } }, { operation: "UPDATE", before: old })).toEqual([]);
    expect(rule(refusals(usual, pod({ hostNetwork: true, activeDeadlineSeconds: 1 }), { operation: "UPDATE", before: old }))).toEqual(["host"]);
  });
  test("a pod that the scheduler gave a node is no mistake", () => {
    expect(refusals(usual, pod({ nodeName: "n", activeDeadlineSeconds: 1 }), { operation: "UPDATE", before: pod({ nodeName: "n" }) })).toEqual([]);
  });
});

describe("the platform's own pods", () => {
  test.each(templates.map((each) => [each.name, each]))("of template %s pass, alone and beside the others", (_, each) => {
    for (const own of podsOf([each as AgentTemplate])) {
      expect(refusals(usual, own)).toEqual([]);
      expect(refusals(rulesOf([each as AgentTemplate]), own)).toEqual([]);
    }
  });

  test("of any templates, settings and patches pass", () => {
    const anyTemplate = fc.record({
      docker: fc.constantFrom("dind" as const, "rootless" as const, "none" as const),
      caches: fc.subarray(["maven" as const, "gradle" as const, "go" as const, "git" as const, "docker" as const]),
      nodeSelector: fc.constantFrom<Record<string, string>>({}, { disk: "ssd" }, { [controlPlane]: "" }),
      tolerations: fc.subarray([{ key: "ci" }, { key: controlPlane, operator: "Exists" as const }, { operator: "Exists" as const }]),
      spread: fc.boolean(),
      userNamespace: fc.boolean(),
      patches: fc.constantFrom<Record<string, unknown>[]>(
        [], [{ spec: { hostNetwork: true } }], [{ spec: { nodeName: "n", volumes: [{ name: "x", hostPath: { path: "/x" } }] } }], [{ spec: { serviceAccountName: "other" } }],
        [{ spec: { containers: [{ name: "jnlp", securityContext: { privileged: true }, ports: [{ containerPort: 1, hostPort: 1 }] }] } }], [{ spec: preferred({ key: controlPlane, operator: "Exists" }) }],
        [{ spec: { containers: [{ name: "jnlp", securityContext: { seccompProfile: { type: "Unconfined" } } }] } }], [{ spec: { priorityClassName: "system-node-critical" } }],
        [{ spec: { containers: [{ name: "jnlp", readinessProbe: { httpGet: { host: "h", port: 1 } }, lifecycle: { preStop: { tcpSocket: { host: "h", port: 1 } } } }] } }],
      ),
    });
    fc.assert(
      fc.property(fc.array(anyTemplate, { minLength: 1, maxLength: 3 }), (some) => {
        const of = some.map((each, i) => ({ ...template, ...each, name: `t${i}` }));
        for (const own of podsOf(of)) expect(refusals(rulesOf(of), own)).toEqual([]);
      }),
      { numRuns: 40 },
    );
  });

  test("the keeper of the caches passes where the DaemonSet controller makes it, and nobody else has its folder", () => {
    const own = { metadata: {}, spec: keeper };
    expect(refusals(usual, own, { username: "system:serviceaccount:kube-system:daemon-set-controller" })).toEqual([]);
    expect(rule(refusals(usual, own))).toEqual(["volumes"]);
  });

  test("without agents of a kind nobody has its rights", () => {
    const plain = rulesOf([{ ...template, docker: "none", caches: [] }], {}, []);
    expect(rule(refusals(plain, pod({}, { image: dind, securityContext: { privileged: true } })))).toEqual(["privileged"]);
    expect(rule(refusals(plain, pod({}, { image: buildkit, securityContext: { seccompProfile: { type: "Unconfined" } } })))).toEqual(["unconfined"]);
    expect(rule(refusals(plain, hostPath(`${cache}/maven`)))).toEqual(["volumes"]);
  });
});

describe("with user namespaces", () => {
  const privileged = (hostUsers?: boolean) => pod({ ...(hostUsers !== undefined && { hostUsers }) }, { image: dind, securityContext: { privileged: true, seccompProfile: { type: "Unconfined" } } });
  const own = { ...template, userNamespace: true };

  test("the docker daemon's image is privileged in pods with one alone, where all agents with it have one", () => {
    const rules = rulesOf([own, templates[3]]);
    expect(podsOf([own])[0].spec.hostUsers).toBe(false);
    for (const each of podsOf([own])) expect(refusals(rules, each)).toEqual([]);
    expect(refusals(rules, privileged(false))).toEqual([]);
    expect([undefined, true].map((hostUsers) => rule(refusals(rules, privileged(hostUsers))))).toEqual([["privileged"], ["privileged"]]);
    expect(refusals(rulesOf([own, template]), privileged())).toEqual([]);
    expect(refusals(rulesOf([own], { privilegedImages: [dind] }), privileged())).toEqual([]);
  });

  test("pods without docker may have one or not, and nobody is privileged for it", () => {
    for (const hostUsers of [true, false]) expect(refusals(usual, pod({ hostUsers }))).toEqual([]);
    expect(rule(refusals(usual, pod({ hostUsers: false }, { securityContext: { privileged: true } })))).toEqual(["privileged"]);
  });

  test("are off by default", () => expect(podsOf(templates).filter(({ spec }) => "hostUsers" in spec)).toEqual([]));
});

describe("exceptions", () => {
  const rules = rulesOf(templates, { privilegedImages: ["registry.test/kernel:1"], hostPaths: [{ path: "/srv/tools", readOnly: true }, { path: "/srv/work", readOnly: false }], serviceAccounts: ["deployer"] });
  test.each<[string, object]>([
    ["an image", pod({}, { image: "registry.test/kernel:1", securityContext: { privileged: true, seccompProfile: { type: "Unconfined" } } })],
    ["a folder to read", hostPath("/srv/tools", [mount(true)])],
    ["a folder to write to", hostPath("/srv/work", [mount()])],
    ["an account", pod({ serviceAccountName: "deployer" })],
  ])("%s", (_, each) => {
    expect(refusals(rules, each)).toEqual([]);
    expect(refusals(usual, each)).toHaveLength(1 + Number(JSON.stringify(each).includes("Unconfined")));
  });
  test("reach no further", () => {
    expect(rule(refusals(rules, hostPath("/srv/tools", [mount()])))).toEqual(["volumes"]);
    expect(rule(refusals(rules, hostPath("/srv")))).toEqual(["volumes"]);
  });
  test("an agent that is placed on control-plane nodes lets others go there", () => {
    const placed = rulesOf([{ ...template, tolerations: [{ key: controlPlane, operator: "Exists" }] }]);
    expect(refusals(placed, pod({ nodeSelector: { [controlPlane]: "" }, tolerations: [{ operator: "Exists" }] }))).toEqual([]);
    expect(rule(refusals(placed, pod({ nodeName: "n" })))).toEqual(["node"]);
  });
});

describe("the objects", () => {
  const make = async (pods?: PodRules, further: object = {}) => {
    await useMocks((name) => (name === "jenkins-admin-password" ? "A".repeat(32) : ""));
    new JenkinsMaster("jenkins", {
      address: { domain: "jenkins.example.com", ingressClassName: "nginx" }, home: { storageClassName: "s", size: "20Gi" }, controller: { image: "c", resources: { limits: { memory: "2Gi" } } },
      agents: { templates, settings: { ...settings, ...(pods && { pods }) }, cache: { keeperImage: "k" } }, access: { adminUser: "admin" }, ...further,
    });
    await settled();
  };

  test("bear the namespace in their name, and bind the rules to it alone", async () => {
    await make(undefined, { namespace: "team-b", agents: { templates: [template], settings, cache: { keeperImage: "k" } } });
    const [policy, binding] = [the("ValidatingAdmissionPolicy").inputs, the("ValidatingAdmissionPolicyBinding").inputs];
    expect([policy.metadata.name, binding.metadata.name, binding.spec.policyName]).toEqual(Array(3).fill(podPolicyName("team-b-agents")));
    expect(binding.spec).toMatchObject({ validationActions: ["Deny"], matchResources: { namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "team-b-agents" } } } });
    expect(policy.spec).toMatchObject({ failurePolicy: "Fail", matchConstraints: { resourceRules: [{ apiGroups: [""], apiVersions: ["v1"], operations: ["CREATE", "UPDATE"], resources: ["pods", "pods/ephemeralcontainers"] }] } });
    expect(policy.spec.validations).toHaveLength(7);
    // No template has BuildKit's image in it here, and pipelines' own pods may.
    expect(refusals(policy.spec, pod({}, { image: buildkit, securityContext: { seccompProfile: { type: "Unconfined" } } }))).toEqual([]);
    expect(policy.metadata.labels).toMatchObject({ "build-platform/stack": "unit" });
  });

  test("take the keeper as it is made, patched or not", async () => {
    const tolerant = { target: { kind: "DaemonSet" }, patch: { spec: { template: { spec: { tolerations: [{ operator: "Exists" }] } } } } };
    for (const patches of [[], [tolerant]]) {
      await make(undefined, { patches });
      const made = the("DaemonSet").inputs.spec.template;
      const spec = { ...made.spec, ...(patches.length > 0 && tolerant.patch.spec.template.spec) };
      expect(refusals(the("ValidatingAdmissionPolicy").inputs.spec, { metadata: {}, spec }, { username: "system:serviceaccount:kube-system:daemon-set-controller" })).toEqual([]);
    }
  });

  test("only warn, or are not there, where config says so; exceptions open the namespace's level", async () => {
    await make({ ...none, action: "warn" });
    expect(the("ValidatingAdmissionPolicyBinding").inputs.spec.validationActions).toEqual(["Warn", "Audit"]);
    await make({ ...none, action: "none" });
    expect([...all("ValidatingAdmissionPolicy"), ...all("ValidatingAdmissionPolicyBinding")]).toEqual([]);
    const level = () => the("Namespace", "jenkins-agents").inputs.metadata.labels["pod-security.kubernetes.io/enforce"];
    const strict = { agents: { templates: [templates[3]], settings: { ...settings, cachePath: undefined } } };
    await make(undefined, strict);
    expect(level()).toBe("restricted");
    await make(undefined, { agents: { ...strict.agents, settings: { ...strict.agents.settings, pods: { ...none, hostPaths: [{ path: "/srv/tools", readOnly: true }] } } } });
    expect(level()).toBe("privileged");
  });
});
