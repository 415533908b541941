import { enforcePolicies, releasePolicies } from "../../sandbox/cluster/policies";
import { createJob, deleteJob, ensurePlatform, finishedBuild, jenkinsAnswers, jobXml, kubectl, kubectlJson, onSandbox, pulumi, sandbox, STACK, startBuild, waitFor } from "../e2e/sandbox";

jest.setTimeout(900_000);

/**
 * Pods of bash and perl that listen on port 7777 and try out connections. `agent` and `far` are labelled as Jenkins labels its
 * agents. Kubernetes lets a pod reach the node it is on, whatever policies say: what keeps agents from the API server shows on
 * another node than the API server's.
 */
const pods: { name: string; namespace: string; labels: Record<string, string>; node?: string }[] = [
  { name: "policy-agent", namespace: "jenkins-agents", labels: { jenkins: "agent" } },
  { name: "policy-neighbour", namespace: "jenkins-agents", labels: {} },
  { name: "policy-stranger", namespace: "default", labels: {} },
  // Elsewhere there may be one node only.
  ...(onSandbox ? [{ name: "policy-far", namespace: "jenkins-agents", labels: { jenkins: "agent" }, node: "worker-1" }] : []),
];
type From = "agent" | "neighbour" | "stranger" | "far";

const listen = 'my $s = IO::Socket::INET->new(LocalPort => 7777, Listen => 9, ReuseAddr => 1) or die; while (my $c = $s->accept) { close $c }';

async function makePods(image: string): Promise<void> {
  const items = pods.map(({ name, namespace, labels, node }) => ({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, namespace, labels },
    spec: {
      // The agents' namespace takes no pod that names its node past the scheduler.
      ...(node && { nodeSelector: { "kubernetes.io/hostname": node } }),
      automountServiceAccountToken: false,
      terminationGracePeriodSeconds: 0,
      securityContext: { runAsUser: 1000, runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
      containers: [{ name: "main", image, command: ["perl", "-MIO::Socket::INET", "-e", listen], securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } } }],
    },
  }));
  await kubectl(["apply", "-f", "-"], { input: JSON.stringify({ apiVersion: "v1", kind: "List", items }) });
  for (const { name, namespace } of pods) await kubectl(["-n", namespace, "wait", "--for=condition=Ready", `pod/${name}`, "--timeout=180s"]);
}

const inPod = (from: From, script: string) => {
  const { name, namespace } = pods.find((pod) => pod.name === `policy-${from}`)!;
  return kubectl(["-n", namespace, "exec", name, "--", "bash", "-c", script]);
};

/** Whether a TCP connection comes about within four seconds: a policy drops packets, so that it hangs. */
async function connects(from: From, host: string, port: number): Promise<boolean> {
  return (await inPod(from, `timeout 4 bash -c 'exec 3<>/dev/tcp/${host}/${port}' 2>/dev/null && echo open || echo closed`)).trim() === "open";
}

let addresses: Record<"controller" | "agent" | "stranger" | "apiService" | "apiEndpoint" | "registry", { host: string; port: number }>;


beforeAll(async () => {
  await ensurePlatform();
  if (onSandbox) {
    await sandbox("add-node", "worker-1");
    // For the one pod that names it: between nodes the sandbox's network plugin puts the node's address in place of the pod's, so
    // that the controller's policy would not know an agent from there.
    await kubectl(["cordon", "worker-1"]);
  }
  const images = (JSON.parse((await pulumi(["stack", "output", "--stack", STACK, "--json"])).stdout) as { agentImages: Record<string, string> }).agentImages;
  await makePods(images["maven-dind"]);
  const podIp = async (namespace: string, ...selector: string[]) => (await kubectl(["-n", namespace, "get", "pod", ...selector, "-o", "jsonpath={..status.podIP}"])).trim();
  const slice = await kubectlJson<{ endpoints: { addresses: string[] }[]; ports: { port: number }[] }>(["get", "endpointslice", "kubernetes"]);
  const [registry, registryPort] = images["maven-dind"].split("/")[0].split(":");
  addresses = {
    controller: { host: await podIp("jenkins", "-l", "app.kubernetes.io/name=jenkins,app.kubernetes.io/component=controller"), port: 8080 },
    agent: { host: await podIp("jenkins-agents", "policy-agent"), port: 7777 },
    stranger: { host: await podIp("default", "policy-stranger"), port: 7777 },
    apiService: { host: (await kubectl(["get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"])).trim(), port: 443 },
    apiEndpoint: { host: slice.endpoints[0].addresses[0], port: slice.ports[0].port },
    registry: { host: registry, port: Number(registryPort ?? 443) },
  };
});

afterAll(async () => {
  if (onSandbox) await releasePolicies();
  for (const { name, namespace } of pods) await kubectl(["-n", namespace, "delete", "pod", name, "--ignore-not-found", "--wait=false"]);
  if (onSandbox) await sandbox("remove-node", "worker-1");
});

// Elsewhere the cluster's own network plugin enforces them from the start, as kind's does.
if (onSandbox)
  test("without enforcement everybody reaches everybody: the probes see it", async () => {
    await releasePolicies();
    expect(await connects("stranger", addresses.controller.host, 8080)).toBe(true);
    expect(await connects("stranger", addresses.agent.host, 7777)).toBe(true);
    expect(await connects("far", addresses.apiService.host, 443)).toBe(true);
    expect(await connects("far", addresses.apiEndpoint.host, addresses.apiEndpoint.port)).toBe(true);
    await enforcePolicies();
  });

describe("with the platform's NetworkPolicies enforced", () => {
  beforeAll(() => waitFor("the policies to be in force", 120, async () => !(await connects("stranger", addresses.controller.host, 8080))));

  const to = (name: keyof typeof addresses, port?: number) => () => ({ host: addresses[name].host, port: port ?? addresses[name].port });
  const at = (host: string, port: number) => () => ({ host, port });
  test.each<[From, string, boolean, () => { host: string; port: number }]>([
    ["agent", "the controller's HTTP port by its Service", true, at("jenkins.jenkins.svc", 8080)],
    ["agent", "the controller's agent port by its Service", true, at("jenkins-agent.jenkins.svc", 50000)],
    ["agent", "the controller's pod", true, to("controller", 50000)],
    ["agent", "the registry", true, to("registry")],
    ["agent", "a pod of another namespace", true, to("stranger")],
    ...(onSandbox
      ? ([
          ["far", "the API server's Service", false, to("apiService")],
          ["far", "the API server's own address", false, to("apiEndpoint")],
          ["far", "the registry", true, to("registry")],
        ] as [From, string, boolean, () => { host: string; port: number }][])
      : []),
    ["neighbour", "the controller's HTTP port without an agent's label", false, to("controller", 8080)],
    ["neighbour", "the controller's agent port without an agent's label", false, to("controller", 50000)],
    ["neighbour", "an agent", false, to("agent")],
    ["stranger", "the controller's HTTP port", false, to("controller", 8080)],
    ["stranger", "the controller's agent port", false, to("controller", 50000)],
    ["stranger", "the controller by its Service", false, at("jenkins.jenkins.svc", 8080)],
    ["stranger", "an agent", false, to("agent")],
    ["stranger", "the API server's Service", true, to("apiService")],
  ])("%s to %s: %s", async (from, _, allowed, target) => {
    const { host, port } = target();
    expect({ host, port, open: await connects(from, host, port) }).toEqual({ host, port, open: allowed });
  });

  test("an agent resolves names by the cluster's DNS", async () => {
    expect(await inPod("agent", "getent hosts jenkins.jenkins.svc.cluster.local")).toMatch(/^\d/);
  });

  test("people reach Jenkins through the ingress", async () => {
    expect((await jenkinsAnswers(30)).status).toBe(200);
  });

  test("a real agent connects and builds", async () => {
    const job = "e2e-policies";
    await createJob(job, jobXml("maven", "docker version --format '{{.Server.Os}}'"));
    try {
      const build = await finishedBuild(job, await startBuild(job));
      expect(build.console).toMatch(/^linux$/m);
      expect(build.result).toBe("SUCCESS");
    } finally {
      await deleteJob(job);
    }
  });
});
