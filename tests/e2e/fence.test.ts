import { parse } from "yaml";
import { ensurePlatform, kubectl, kubectlJson, ownCloud, waitFor } from "./sandbox";

/** What the API server itself takes and refuses of pods in the agents' namespace, asked as the controller's account. */

jest.setTimeout(900_000);

interface Container { name: string; image: string; securityContext?: { privileged?: boolean; seccompProfile?: object } }
interface Pod { metadata?: object; spec: { containers: Container[]; volumes?: { hostPath?: { path: string } }[] } }

const namespace = "jenkins-agents";
const policy = `build-platform-${namespace}`;
/** The pods of the platform's templates, the defaults last. */
let templates: Pod[];
let dind: string;

/** What the API server says to a new pod; nothing where it takes it. Nothing is made: admission runs all the same. */
const said = (pod: object, as = ["--as", "system:serviceaccount:jenkins:jenkins"], into = namespace): Promise<string> =>
  kubectl(["-n", into, "create", "--dry-run=server", ...as, "-o", "name", "-f", "-"], { input: JSON.stringify(pod) }).then(() => "", (error: Error) => error.message);

const pod = (spec: object = {}, container: object = {}) => ({
  apiVersion: "v1", kind: "Pod", metadata: { name: "fence" },
  spec: { serviceAccountName: "jenkins-agent", containers: [{ name: "tool", image: "registry.test/tool:1", ...container }], ...spec },
});
const volume = (path: string, readOnly?: boolean) => pod({ volumes: [{ name: "v", hostPath: { path } }] }, { volumeMounts: [{ name: "v", mountPath: "/v", ...(readOnly !== undefined && { readOnly }) }] });
const controlPlane = "node-role.kubernetes.io/control-plane";
const affinity = (operator: string) => ({ affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [{ matchExpressions: [{ key: controlPlane, operator }] }] } } } });

beforeAll(async () => {
  await ensurePlatform();
  templates = (await ownCloud()).templates.map(({ yaml }) => parse(yaml) as Pod);
  dind = templates.flatMap(({ spec }) => spec.containers).find(({ name }) => name === "dind")!.image;
  // A new policy reaches the API server's admission a moment later.
  await waitFor("the policy to be in force", 60, async () => /rule host/.test(await said(pod({ hostNetwork: true }))));
});

test("the API server has nothing against the rules' types", async () => {
  const { status } = await waitFor("the rules' types to be checked", 60, async () => {
    const found = await kubectlJson<{ status?: { typeChecking?: { expressionWarnings?: object[] } } }>(["get", "validatingadmissionpolicy", policy]);
    return found.status?.typeChecking ? found : undefined;
  });
  expect(status!.typeChecking!.expressionWarnings ?? []).toEqual([]);
});

test("the pods of the platform's own templates are taken", async () => {
  for (const template of templates) {
    const containers = template.spec.containers.map((container) => ({ ...container, image: container.image ?? "registry.test/agent:1" }));
    expect(await said({ ...template, metadata: { ...template.metadata, name: "fence" }, spec: { ...template.spec, containers } })).toBe("");
  }
});

test("the keeper of the caches runs", async () => {
  const { status } = await kubectlJson<{ status: { desiredNumberScheduled: number; numberReady: number } }>(["-n", namespace, "get", "daemonset", "agent-cache"]);
  expect(status.numberReady).toBe(status.desiredNumberScheduled);
  expect(status.numberReady).toBeGreaterThan(0);
});

const cases: [rule: string, refused: () => object, taken: () => object][] = [
  ["privileged", () => pod({}, { securityContext: { privileged: true } }), () => pod({}, { image: dind, securityContext: { privileged: true } })],
  ["privileged", () => pod({ initContainers: [{ name: "i", image: "registry.test/tool:1", securityContext: { privileged: true } }] }), () => pod({ initContainers: [{ name: "i", image: dind, securityContext: { privileged: true } }] })],
  ["privileged", () => pod({}, { image: `${dind}0`, securityContext: { privileged: true } }), () => pod({}, { image: `${dind}0` })],
  ["privileged", () => pod({}, { securityContext: { capabilities: { add: ["SYS_ADMIN"] } } }), () => pod({}, { securityContext: { capabilities: { add: ["CHOWN"] } } })],
  ["privileged", () => pod({ hostUsers: false }, { securityContext: { procMount: "Unmasked" } }), () => pod({}, { securityContext: { procMount: "Default", allowPrivilegeEscalation: true } })],
  ["privileged", () => pod({ securityContext: { seLinuxOptions: { type: "spc_t" } } }), () => pod({ securityContext: { seLinuxOptions: { level: "s0:c1,c2" } } })],
  ["unconfined", () => pod({ securityContext: { seccompProfile: { type: "Unconfined" } } }), () => pod({ securityContext: { seccompProfile: { type: "RuntimeDefault" } } })],
  ["unconfined", () => pod({}, { securityContext: { appArmorProfile: { type: "Unconfined" } } }), () => pod({}, { securityContext: { appArmorProfile: { type: "RuntimeDefault" } } })],
  // The older spelling, which the API server takes for the newer one.
  ["unconfined", () => ({ ...pod(), metadata: { name: "fence", annotations: { "container.apparmor.security.beta.kubernetes.io/tool": "unconfined" } } }), () => pod()],
  ["host", () => pod({ hostNetwork: true }), () => pod({ hostNetwork: false })],
  ["host", () => pod({ hostPID: true }), () => pod({ shareProcessNamespace: true })],
  ["host", () => pod({ hostIPC: true }), () => pod()],
  ["host", () => pod({}, { ports: [{ containerPort: 81, hostPort: 81 }] }), () => pod({}, { ports: [{ containerPort: 81 }] })],
  ["host", () => pod({}, { livenessProbe: { httpGet: { host: "127.0.0.1", port: 10248 } } }), () => pod({}, { livenessProbe: { httpGet: { port: 10248 } } })],
  ["host", () => pod({}, { lifecycle: { preStop: { httpGet: { host: "127.0.0.1", port: 10248 } } } }), () => pod({}, { lifecycle: { preStop: { httpGet: { port: 10248 } } } })],
  ["priority", () => pod({ priorityClassName: "system-node-critical" }), () => pod({ priorityClassName: "jenkins-agents" })],
  ["volumes", () => volume("/"), () => volume("/var/cache/build-platform/maven")],
  ["volumes", () => volume("/var/cache/build-platform", true), () => volume("/var/cache/build-platform/gradle", true)],
  ["volumes", () => volume("/var/cache/build-platform/gradle"), () => pod({ volumes: [{ name: "v", emptyDir: {} }] })],
  ["volumes", () => volume("/var/cache/build-platform/maven2"), () => volume("/var/cache/build-platform/maven", true)],
  ["account", () => pod({ serviceAccountName: "other" }), () => pod({ serviceAccountName: "default" })],
  ["node", () => pod({ nodeName: "control-plane-1" }), () => pod({ nodeSelector: { "kubernetes.io/os": "linux" } })],
  ["node", () => pod({ nodeSelector: { [controlPlane]: "" } }), () => pod()],
  ["node", () => pod(affinity("Exists")), () => pod(affinity("DoesNotExist"))],
  ["node", () => pod({ tolerations: [{ operator: "Exists" }] }), () => pod({ tolerations: [{ key: "ci", operator: "Exists" }] })],
  ["node", () => pod({ tolerations: [{ key: controlPlane, operator: "Exists" }] }), () => pod()],
];

test.each(cases)("rule %s, both ways (%#)", async (rule, refused, taken) => {
  // An account that is not there is refused before: that it is named is what counts.
  if (rule === "account") await kubectl(["-n", namespace, "create", "serviceaccount", "other"], { allowFailure: true });
  try {
    const refusal = await said(refused());
    expect(refusal).toContain(`ValidatingAdmissionPolicy '${policy}'`);
    expect(refusal).toContain(`(rule ${rule} of namespace ${namespace})`);
    expect(refusal).toMatch(/stack config/);
    // The cluster's administrator is held to it as well.
    expect(await said(refused(), [])).toContain(`(rule ${rule} of namespace ${namespace})`);
  } finally {
    if (rule === "account") await kubectl(["-n", namespace, "delete", "serviceaccount", "other"], { allowFailure: true });
  }
  expect(await said(taken())).toBe("");
});

test("a container that is put into a running pod is held to the rules", async () => {
  await kubectl(["-n", namespace, "apply", "-f", "-"], { input: JSON.stringify({ ...pod({ nodeSelector: { nowhere: "true" }, terminationGracePeriodSeconds: 0 }), metadata: { name: "fence-old" } }) });
  try {
    const patch = (container: object) =>
      kubectl(["-n", namespace, "patch", "pod", "fence-old", "--subresource=ephemeralcontainers", "--dry-run=server", "-o", "name", "-p", JSON.stringify({ spec: { ephemeralContainers: [{ name: "debug", image: "registry.test/tool:1", ...container }] } })]);
    await expect(patch({ securityContext: { privileged: true } })).rejects.toThrow(/rule privileged of namespace jenkins-agents/);
    expect(await patch({})).toContain("pod/fence-old");
  } finally {
    await kubectl(["-n", namespace, "delete", "pod", "fence-old", "--wait=false"], { allowFailure: true });
  }
});

test("other namespaces are not held to it", async () => {
  expect(await said(pod({ hostNetwork: true, serviceAccountName: "default" }), [], "default")).toBe("");
});
