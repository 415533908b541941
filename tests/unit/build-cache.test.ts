import { spawnSync } from "node:child_process";
import { agentPod, type AgentSettings, type AgentTemplate, type CachedTool } from "../../components/jenkins-master/agents";
import { keeperScript } from "../../components/image-cache";
import { buildCacheAddress, buildCacheConfig, buildCacheInit, buildCacheKeeps } from "../../components/jenkins-master/build-cache";
import { parseConfig } from "../../config";
import { jenkinsArgs } from "../../config/arguments";
import { JenkinsMaster } from "../../components/jenkins-master";
import { all, environment, settled, stackConfig, the, useMocks } from "./mocks";

jest.setTimeout(60_000);
beforeEach(() => useMocks());

const template = (caches: CachedTool[], further: Partial<AgentTemplate> = {}): AgentTemplate => ({
  name: "a", label: "a", image: "agent", docker: "none", caches, resources: {}, dockerResources: {}, cap: 1, idleMinutes: 0, podRetention: "never",
  connectTimeoutSeconds: 60, activeDeadlineSeconds: 0, nodeSelector: {}, tolerations: [], spread: false, unlabelled: true, env: {}, volumes: [], ...further,
});
const settings: AgentSettings = { dindImage: "", buildkitImage: "", insecureRegistries: [], cachePath: "/cache", gradleBuildCache: buildCacheAddress("agents") };
interface Pod {
  spec: { containers: { env: { name: string; value: string }[]; volumeMounts: { name: string; mountPath: string }[] }[]; volumes: { name: string; configMap?: { name: string } }[] };
}
const pod = (...args: Parameters<typeof template>) => (agentPod(template(...args), settings) as unknown as Pod).spec;

test("an agent that asks for it has its address, by group, and the script where its Gradle looks", () => {
  const mounted = (caches: CachedTool[]) => pod(caches).containers[0].volumeMounts.filter(({ name }) => name === "gradle-build-cache").map(({ mountPath }) => mountPath);
  expect(pod(["gradle-build"], { cacheGroup: "release" }).containers[0].env).toContainEqual({ name: "GRADLE_BUILD_CACHE", value: "http://gradle-build-cache.agents.svc:8080/release/" });
  expect(mounted(["gradle-build"])).toEqual(["/opt/gradle/init.d/build-platform-build-cache.gradle"]);
  expect(mounted(["gradle", "gradle-build"])).toEqual(["/home/jenkins/.gradle/init.d/build-platform-build-cache.gradle"]);
  expect(pod(["gradle-build"]).volumes).toContainEqual({ name: "gradle-build-cache", configMap: { name: "gradle-build-cache" } });
});

test("who does not ask has nothing of it, and neither has anybody where caches are off", () => {
  const mentions = (...args: Parameters<typeof agentPod>) => JSON.stringify(agentPod(...args)).match(/gradle-build|GRADLE_BUILD/g);
  expect(mentions(template(["gradle"]), settings)).toBeNull();
  const { gradleBuildCache, ...without } = settings;
  expect([gradleBuildCache, mentions(template(["gradle-build"]), without)]).toEqual([expect.any(String), null]);
});

async function make(config: Record<string, unknown>): Promise<void> {
  const parsed = parseConfig({ ...stackConfig("sandbox"), ...config }, environment).config;
  new JenkinsMaster("jenkins", jenkinsArgs(parsed, { storageClassName: "disk", ingressClassName: "nginx", ingressNamespace: "ingress-nginx", references: {}, apiServerAddresses: [], surroundings: {} }));
  await settled();
}
const agents = [{ name: "gradle", image: "registry.example.com/gradle:1", caches: ["gradle", "gradle-build"] }];

test("the server: nginx over a claim, behind a Service, which agents alone reach, with its keeper", async () => {
  await make({ agents, agentCache: { gradleBuildSize: "10Gi" } });
  const { containers, serviceAccountName, automountServiceAccountToken } = the("Deployment", "gradle-build-cache").inputs.spec.template.spec;
  expect([serviceAccountName, automountServiceAccountToken, containers.map(({ name }: { name: string }) => name)]).toEqual(["jenkins-agent", false, ["nginx", "keeper"]]);
  expect(containers[1].env).toContainEqual({ name: "MAX_KIB", value: String(9 * 1024 * 1024) });
  expect(the("NetworkPolicy", "gradle-build-cache").inputs.spec.ingress).toEqual([{ from: [{ podSelector: { matchLabels: { jenkins: "agent" } } }], ports: [{ port: 8080, protocol: "TCP" }] }]);
  expect(JSON.stringify(the("NetworkPolicy", "jenkins-agents").inputs.spec.egress)).toContain('"app.kubernetes.io/name":"gradle-build-cache"');
  expect(all("PersistentVolumeClaim").map(({ inputs }) => [inputs.spec.storageClassName, inputs.spec.resources.requests.storage])).toContainEqual(["disk", "10Gi"]);
  expect(the("ConfigMap", "jenkins-casc").inputs.data["jenkins.yaml"]).toContain("http://gradle-build-cache.jenkins-agents.svc:8080/agents/");
});

test.each([["nobody asks", {}], ["caches are off", { agents, agentCache: { enabled: false } }]])("there is none where %s", async (_, config) => {
  await make(config);
  expect(all("Deployment").map(({ inputs }) => inputs.metadata.name)).not.toContain("gradle-build-cache");
  expect(JSON.stringify(the("NetworkPolicy", "jenkins-agents").inputs.spec)).not.toContain("gradle-build-cache");
});

test("its group is a setting of something, and its size has a unit", () => {
  const { problems } = parseConfig({ ...stackConfig("sandbox"), agents: [{ ...agents[0], cacheGroup: "release" }], agentCache: { gradleBuildSize: "10" } }, environment);
  expect(problems.map(({ key }) => key)).toEqual(["agentCache.gradleBuildSize"]);
});

test("the keeper's script is shell, and the server keeps entries alone", () => {
  expect(spawnSync("sh", ["-n", "-c", keeperScript(buildCacheKeeps)]).status).toBe(0);
  expect(buildCacheConfig()).toMatch(/location ~ "\^\/\[a-z0-9\]\[a-z0-9-\]\*\/\[0-9a-f\]\{32,64\}\$"/);
  expect(buildCacheInit).toContain("GRADLE_BUILD_CACHE");
});
