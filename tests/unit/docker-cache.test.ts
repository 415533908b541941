import { spawnSync } from "node:child_process";
import { agentPod, type AgentSettings, type AgentTemplate } from "../../components/jenkins-master/agents";
import { cacheKeeperObject } from "../../components/jenkins-master/cache-keeper";
import { dockerdScript } from "../../components/jenkins-master/docker";
import { dockerKeeperScript, dockerSlotScript } from "../../components/jenkins-master/docker-cache";
import { agentsPodSecurity } from "../../components/jenkins-master/namespaces";
import type { Place } from "../../components/jenkins-master/place";
import { parseConfig } from "../../config";
import { jenkinsArgs, type Made } from "../../config/arguments";
import { defaults, environment, hostKey } from "./mocks";

/** What agents keep of Docker on their node; tests/campaign/docker.test.ts has the scripts with the real dockerd. */

const template: AgentTemplate = {
  name: "a", label: "a", image: "registry.test/a:1", docker: "dind", caches: ["maven", "docker"], resources: {}, dockerResources: {}, dockerSize: "100Gi", cap: 1, idleMinutes: 0, podRetention: "never",
  connectTimeoutSeconds: 60, activeDeadlineSeconds: 0, nodeSelector: {}, tolerations: [], spread: false, unlabelled: true, env: {}, volumes: [],
};
const settings: AgentSettings = { dindImage: "registry.test/dind:1", buildkitImage: "registry.test/buildkit:1", insecureRegistries: [], cachePath: "/cache", dockerGroupKib: 1000 };
interface Spec {
  containers: { name: string; command?: string[]; env: { name: string; value?: string }[]; volumeMounts: { name: string; mountPath: string }[] }[];
  volumes: { name: string }[];
}
const spec = (further: Partial<AgentTemplate> = {}, over: Partial<AgentSettings> = {}): Spec => (agentPod({ ...template, ...further }, { ...settings, ...over }) as { spec: Spec }).spec;
const dind = (...args: Parameters<typeof spec>) => spec(...args).containers.find(({ name }) => name === "dind")!;

test("the daemon alone has the slots of its group, and knows both bounds", () => {
  const { containers, volumes } = spec();
  expect(volumes).toContainEqual({ name: "cache-docker", hostPath: { path: "/cache/docker/agents", type: "DirectoryOrCreate" } });
  expect(containers.filter(({ volumeMounts }) => volumeMounts.some(({ name }) => name === "cache-docker")).map(({ name }) => name)).toEqual(["dind"]);
  expect(dind().volumeMounts).toContainEqual({ name: "cache-docker", mountPath: "/var/cache/build-platform/docker" });
  expect(dind().command![2]).toContain(dockerSlotScript);
  expect(Object.fromEntries(dind().env.map(({ name, value }) => [name, value]))).toMatchObject({ SLOTS: "/var/cache/build-platform/docker", KEPT_KIB: "1000", MAX_KIB: String(100 * 1024 * 1024) });
  expect(spec({ userNamespace: true }).volumes).toContainEqual({ name: "cache-docker", hostPath: { path: "/cache/docker/agents.userns", type: "DirectoryOrCreate" } });
  expect(spec({ cacheGroup: "release" }).volumes).toContainEqual({ name: "cache-docker", hostPath: { path: "/cache/docker/release", type: "DirectoryOrCreate" } });
});

test("without docker in caches, without caches at all, or with another docker mode the pod is as it was", () => {
  for (const pod of [spec({ caches: ["maven"] }), spec({ docker: "none" }), spec({ docker: "rootless" }), spec({}, { cachePath: undefined })]) expect(JSON.stringify(pod)).not.toContain("cache-docker");
  expect(dind({ caches: ["maven"] })).toMatchObject({ command: ["/bin/sh", "-c", dockerdScript, "dockerd-entrypoint.sh"], env: [{ name: "DOCKER_TLS_CERTDIR", value: "" }] });
  expect(agentsPodSecurity([{ ...template, docker: "none", caches: ["docker"] }], "/cache")).toBe("restricted");
});

test("the scripts are shell, and nothing in them is what Jenkins would replace on its own", () => {
  for (const [shell, script] of [["sh", dind().command![2]], ["bash", dockerKeeperScript]]) expect(spawnSync(shell, ["-n", "-c", script])).toMatchObject({ status: 0 });
});

const containersOf = (caches: AgentTemplate["caches"]) => {
  const found = cacheKeeperObject({ name: "jenkins", parent: {}, there: "agents" } as unknown as Place, { templates: [{ ...template, caches }], settings, cap: 1, cloud: {}, cache: { keeperImage: "k", dockerGi: 7 } })!;
  return JSON.parse(JSON.stringify(found[1])).spec.template.spec.containers as { name: string; env: object[]; securityContext: object }[];
};

test("the caches' keeper keeps Docker's data as well, where there are any", () => {
  expect(containersOf(["maven"]).map(({ name }) => name)).toEqual(["keeper"]);
  const [, docker] = containersOf(["docker"]);
  expect(docker).toMatchObject({ name: "docker", securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"], add: ["DAC_OVERRIDE", "FOWNER"] } } });
  expect(docker.env).toContainEqual({ name: "MAX_KIB", value: String(7 * 1024 * 1024) });
});

describe("the config", () => {
  const minimal = { ...defaults(), domain: "jenkins.example.com", kubeContext: "admin@cluster", controlPlane: { privateKeyFile: "~/.ssh/id", nodes: [{ name: "a", host: "192.0.2.1", hostKey }] } };
  const parse = (further: Record<string, unknown>) => parseConfig({ ...minimal, ...further }, environment);
  const made = { storageClassName: "s", ingressClassName: "i", ingressNamespace: "i", references: {}, apiServerAddresses: [], surroundings: {} } as Made;
  const agent = (name: string, further: object = {}) => ({ name, image: "registry.test/a:1", ...further });

  test("groups of the environment have equal shares of the bound; by default there is one, and nothing is kept", () => {
    const settingsOf = (further: Record<string, unknown>) => {
      const { config, problems } = parse(further);
      expect(problems).toEqual([]);
      return jenkinsArgs(config, made).agents;
    };
    expect(JSON.stringify(settingsOf({}).templates)).not.toContain('"docker"]');
    const kept = { caches: ["docker"] };
    expect(settingsOf({ agents: [agent("a", kept), agent("b", kept)] }).settings.dockerGroupKib).toBe(50 * 2 ** 20);
    expect(settingsOf({ agentCache: { dockerGi: 10 }, agents: [agent("a", kept), agent("b", { ...kept, cacheGroup: "release" }), agent("c", { cacheGroup: undefined })] }).settings.dockerGroupKib).toBe(5 * 2 ** 20);
    expect(settingsOf({ agentCache: { dockerGi: 10 } }).cache).toMatchObject({ dockerGi: 10 });
  });

  test.each<[string, object, string[]]>([
    ["docker kept for BuildKit", { docker: "rootless", caches: ["docker"] }, ["agents[0].caches"]],
    ["docker kept for nobody", { docker: "none", caches: ["docker"] }, ["agents[0].caches"]],
    ["a group of what all agents share", { caches: ["maven", "gradle"], cacheGroup: "release" }, ["agents[0].cacheGroup"]],
    ["a group that is no name", { caches: ["docker"], cacheGroup: "../maven" }, ["agents[0].cacheGroup"]],
  ])("%s is refused by the key", (_, further, keys) => expect(parse({ agents: [agent("a", further)] }).problems.map(({ key }) => key)).toEqual(keys));
});
