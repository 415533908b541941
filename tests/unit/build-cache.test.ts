import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { agentPod, type AgentSettings, type AgentTemplate, type CachedTool } from "../../components/jenkins-master/agents";
import { buildCacheAddress, buildCacheConfig, buildCacheInit, buildCacheKeeper } from "../../components/jenkins-master/build-cache";
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
  for (const caches of [["gradle-build"], ["gradle", "gradle-build"]] satisfies CachedTool[][]) {
    expect(mounted(caches)).toEqual(["/home/jenkins/.gradle/init.d/build-platform-build-cache.gradle"]);
    // A wrapper's Gradle reads no other place, and writes beside it: the home is a volume that is the agent's, and only one.
    expect(pod(caches).containers[0].env).toContainEqual({ name: "GRADLE_USER_HOME", value: "/home/jenkins/.gradle" });
    expect(pod(caches).containers[0].volumeMounts.filter(({ mountPath }) => mountPath === "/home/jenkins/.gradle")).toEqual([{ name: "gradle-home", mountPath: "/home/jenkins/.gradle" }]);
    expect(pod(caches).volumes.filter(({ name }) => name === "gradle-home")).toEqual([{ name: "gradle-home", emptyDir: {} }]);
  }
  expect(JSON.stringify(pod(["gradle-build"]))).not.toMatch(/hostPath|gradle-offers|gradle-cache/);
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

test("the keeper deletes parts that nobody writes any more, and above its size entries alone", () => {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "build-cache-"));
  try {
    const write = (file: string, minutes: number) => {
      fs.mkdirSync(path.dirname(path.join(root, "cache", file)), { recursive: true });
      fs.writeFileSync(path.join(root, "cache", file), "x".repeat(10_000));
      const past = Date.now() / 1000 - minutes * 60;
      fs.utimesSync(path.join(root, "cache", file), past, past);
    };
    write(".parts/0000000001", 120);
    write(".parts/0000000002", 1);
    write("agents/entry", 120);
    // The round ends in its pause.
    fs.mkdirSync(path.join(root, "bin"));
    fs.writeFileSync(path.join(root, "bin/sleep"), `#!/bin/sh\nPATH=${process.env.PATH}\nkill "$PPID"; exec sleep 1\n`, { mode: 0o755 });
    const round = (kib: number) => {
      expect(spawnSync("sh", ["-c", buildCacheKeeper], { encoding: "utf8", env: { PATH: `${root}/bin:${process.env.PATH}`, FOLDER: path.join(root, "cache"), MAX_KIB: String(kib), INTERVAL: "60" } })).toMatchObject({ status: 0, stderr: "" });
      return fs.readdirSync(path.join(root, "cache"), { recursive: true, encoding: "utf8" }).sort();
    };
    expect(round(1000)).toEqual([".parts", ".parts/0000000002", "agents", "agents/entry"]);
    expect(round(0)).toEqual([".parts", ".parts/0000000002", "agents"]);
  } finally {
    fs.rmSync(root, { recursive: true });
  }
});

test("the server keeps entries alone", () => {
  expect(buildCacheConfig()).toMatch(/location ~ "\^\/\[a-z0-9\]\[a-z0-9-\]\*\/\[0-9a-f\]\{32,64\}\$"/);
  // The variable that pods have is the one that the script reads.
  expect(pod(["gradle-build"]).containers[0].env.map(({ name }) => name).filter((name) => buildCacheInit.includes(`System.getenv('${name}')`))).toEqual(["GRADLE_BUILD_CACHE"]);
});
