import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { parse as parseYaml } from "yaml";
import { cacheConfig, cacheKeeperScript, ImageCache, loginHelper, type ImageCacheArgs } from "../../components/image-cache";
import { agentMirrorFiles } from "../../components/jenkins-master/mirrors";
import { throughCache, upstreamOf } from "../../components/mirrors";
import { agentSettings, parseConfig } from "../../config";
import { cacheArgs } from "../../config/arguments";
import { authority } from "./certificates";
import { all, defaults, environment, hostKey, objects, settled, the, useMocks } from "./mocks";

jest.setTimeout(60_000);

const hub = { registry: "docker.io", upstream: "https://registry-1.docker.io" };
const args: ImageCacheArgs = { image: "registry.test/registry:3", registries: [hub, { registry: "ghcr.io", upstream: "https://ghcr.io" }], storageClassName: "disk", size: "50Gi", keepDays: 30, open: false, namespace: "image-cache", agentsNamespace: "jenkins-agents" };

async function make(further: Partial<ImageCacheArgs> = {}): Promise<void> {
  new ImageCache("cache", { ...args, ...further });
  await settled();
}
beforeEach(() => useMocks());

describe("the component", () => {
  test("one pod with a program for each registry, on one volume, behind one Service with a port for each", async () => {
    await make();
    const { containers, volumes } = the("Deployment", "image-cache").inputs.spec.template.spec;
    expect(containers.map(({ name }: { name: string }) => name)).toEqual(["docker-io", "ghcr-io", "keeper"]);
    expect(containers[2].env).toContainEqual({ name: "MAX_KIB", value: String(45 * 1024 * 1024) });
    expect(volumes.map(({ name }: { name: string }) => name)).toEqual(["config", "images"]);
    expect(the("Service", "image-cache").inputs.spec.ports).toEqual([{ name: "p5000", port: 5000, targetPort: "p5000" }, { name: "p5001", port: 5001, targetPort: "p5001" }]);
    expect(Object.keys(the("ConfigMap", "image-cache").inputs.data)).toEqual(["docker-io.yml", "ghcr-io.yml"]);
    expect(the("Namespace").inputs.metadata.labels["pod-security.kubernetes.io/enforce"]).toBe("restricted");
    expect(all("Secret")).toEqual([]);
  });

  test("agents alone reach it, unless it is open", async () => {
    await make();
    const ports = [{ port: 5000, protocol: "TCP" }, { port: 5001, protocol: "TCP" }];
    expect(the("NetworkPolicy").inputs.spec.ingress).toEqual([{ from: [{ namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "jenkins-agents" } } }], ports }]);
    await useMocks();
    await make({ open: true });
    expect(the("NetworkPolicy").inputs.spec.ingress).toEqual([{ ports }]);
    await useMocks();
    await make({ networkPolicies: false });
    expect(all("NetworkPolicy")).toEqual([]);
  });

  test("no two registries share a name inside", async () => {
    await make({ registries: ["a-b.com", "a.b.com", "a.b-com", "a-b-com", "a.b.com:5000"].map((registry) => ({ registry, upstream: `https://${registry}` })) });
    const { containers } = the("Deployment", "image-cache").inputs.spec.template.spec;
    expect(new Set(containers.map(({ name }: { name: string }) => name)).size).toBe(6);
    for (const { name } of containers as { name: string }[]) expect(name).toMatch(/^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/);
  });

  test("another login of the proxy starts it anew", async () => {
    const proxy = { http: "http://proxy.test:3128", https: "http://proxy.test:3128", noProxy: [] };
    const mark = () => the("Deployment", "image-cache").inputs.spec.template.metadata.annotations;
    await make({ surroundings: { proxy: { ...proxy, login: { username: "me", password: "one" } } } });
    expect(Object.keys(mark())).toContain("build-platform/company-proxy");
    await useMocks();
    await make({ surroundings: { proxy } });
    expect(Object.keys(mark())).not.toContain("build-platform/company-proxy");
  });

  test("a login is a program in a Secret, and nowhere else; special characters stay what they are", async () => {
    const login = { username: "me", password: `p"a'$s\\s 'END'` };
    await make({ registries: [{ ...hub, login }] });
    expect(spawnSync("sh", ["-c", loginHelper(login)]).stdout.toString()).toBe(`${JSON.stringify({ Username: "me", Secret: login.password })}\n`);
    const { data } = the("Secret", "image-cache-logins").inputs;
    expect(Buffer.from((data.value ?? data)["docker-io"] as string, "base64").toString()).toBe(loginHelper(login));
    expect(parseYaml(the("ConfigMap", "image-cache").inputs.data["docker-io.yml"]).proxy).toEqual({ remoteurl: hub.upstream, ttl: "720h", exec: { command: "/etc/image-cache/docker-io", lifetime: "5m" } });
    expect(the("Deployment").inputs.spec.template.spec.volumes).toContainEqual({ name: "logins", secret: { secretName: "image-cache-logins", defaultMode: 0o550 } });
    const open = objects().filter(({ inputs }) => inputs.kind !== "Secret" && inputs.metadata?.name !== "image-cache-logins");
    expect(JSON.stringify(open)).not.toContain("END'");
  });

  test("without one nobody's login is asked for, so that it starts while the registry is away", () => expect(parseYaml(cacheConfig(hub, 5000, 1))).toMatchObject({ proxy: { exec: { command: "false" }, ttl: "24h" }, http: { addr: ":5000" } }));

  test("the proxy and the certificates of the network around reach it", async () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "image-cache-"));
    await make({ surroundings: { caBundle: authority(folder).pem, proxy: { http: "http://p:3128", https: "http://p:3128", noProxy: [".svc"] } } });
    const [{ env, volumeMounts }] = the("Deployment").inputs.spec.template.spec.containers;
    expect(env).toContainEqual({ name: "HTTPS_PROXY", value: "http://p:3128" });
    expect(all("ConfigMap")).toHaveLength(2);
    expect(volumeMounts).toHaveLength(3);
    fs.rmSync(folder, { recursive: true });
  });

  test("wrong arguments are told all at once", () =>
    expect(() => new ImageCache("cache", { ...args, size: "5", namespace: "A", registries: [], keepDays: 0 })).toThrow(expect.objectContaining({ errors: expect.arrayContaining(["size", "namespace", "registries", "keepDays"].map((propertyPath) => expect.objectContaining({ propertyPath }))) })));

  test("the keeper's script is shell", () => expect(spawnSync("sh", ["-n", "-c", cacheKeeperScript]).status).toBe(0));
});

test("where a registry's images come from", () => {
  const none = { registries: {}, insecure: [] };
  expect(upstreamOf("docker.io", none)).toBe("https://registry-1.docker.io");
  expect(upstreamOf("ghcr.io", none)).toBe("https://ghcr.io");
  expect(upstreamOf("docker.io", { ...none, dockerd: "https://hub.mirror.test/" })).toBe("https://hub.mirror.test");
  expect(upstreamOf("quay.io", { registries: { "quay.io": "mirror.test:5000" }, insecure: ["mirror.test:5000"] })).toBe("http://mirror.test:5000");
  expect(upstreamOf("quay.io", { registries: { "quay.io": "mirror.test/quay" }, insecure: [] })).toBeUndefined();
});

test("agents' dockerd and BuildKit ask the cache, in plain HTTP; a registry that it has not stays as it was", () => {
  const mirrors = { registries: { "quay.io": "mirror.test/quay" }, insecure: [], maven: "https://m.test" };
  const led = throughCache(mirrors, { "docker.io": "image-cache.image-cache.svc:5000" });
  expect(led).toMatchObject({ dockerd: "http://image-cache.image-cache.svc:5000", maven: "https://m.test" });
  expect(agentMirrorFiles(led)["buildkitd.toml"]).toBe('[registry."quay.io"]\n  mirrors = ["mirror.test/quay"]\n[registry."docker.io"]\n  mirrors = ["image-cache.image-cache.svc:5000"]\n[registry."image-cache.image-cache.svc:5000"]\n  http = true\n  insecure = true\n');
  expect(throughCache(mirrors, { "ghcr.io": "c:5000" })).not.toHaveProperty("dockerd");
});

describe("the config", () => {
  const minimal = { ...defaults(), domain: "jenkins.example.com", kubeContext: "admin@cluster", controlPlane: { privateKeyFile: "~/.ssh/id", nodes: [{ name: "a", host: "192.0.2.1", hostKey }] } };
  const parse = (further: Record<string, unknown> = {}) => parseConfig({ ...minimal, ...further }, { ...environment, isSecret: (key) => key === "pullSecrets" });

  test("without registries there is none, and agents go where they went", () => {
    const { config, problems } = parse();
    expect(problems).toEqual([]);
    expect(cacheArgs(config, "disk", {})).toBeUndefined();
    expect(agentSettings(config).mirrors).toEqual(config.mirrors);
  });

  test("agents are led to it, and it asks with the login for the registry, or for its mirror", () => {
    const logins = [{ registry: "docker.io", username: "me", password: "p" }, { registry: "mirror.test", username: "us", password: "q" }];
    const { config, problems } = parse({ imageCache: { registries: ["docker.io", "quay.io"], open: true }, mirrors: { registries: { "quay.io": "mirror.test" } }, pullSecrets: logins });
    expect(problems).toEqual([]);
    expect(agentSettings(config).mirrors).toMatchObject({ dockerd: "http://image-cache.image-cache.svc:5000", registries: { "docker.io": "image-cache.image-cache.svc:5000", "quay.io": "image-cache.image-cache.svc:5001" } });
    // Nodes and image builds go where they went.
    expect(config.mirrors).toEqual({ registries: { "quay.io": "mirror.test" }, insecure: [] });
    const made = cacheArgs(config, "disk", {})!;
    expect(made).toMatchObject({ namespace: "image-cache", agentsNamespace: "jenkins-agents", size: "50Gi", keepDays: 30, open: true, image: config.images.registry });
    expect(made.registries.map(({ registry, upstream, login }) => [registry, upstream, login !== undefined])).toEqual([["docker.io", "https://registry-1.docker.io", true], ["quay.io", "https://mirror.test", true]]);
    expect(cacheArgs(parse({ namespace: "team-b", imageCache: { registries: ["docker.io"] } }).config, "disk", {})).toMatchObject({ namespace: "team-b-image-cache", registries: [{ registry: "docker.io" }] });
    expect(cacheArgs(parse({ imageCache: { registries: ["docker.io"] } }).config, "disk", {})!.registries[0]).not.toHaveProperty("login");
  });

  test.each<[string, Record<string, unknown>, string[]]>([
    ["a registry twice", { imageCache: { registries: ["docker.io", "docker.io"] } }, ["imageCache.registries[1]"]],
    ["a registry whose mirror has a path", { imageCache: { registries: ["docker.io"] }, mirrors: { registries: { "docker.io": "mirror.test/hub" } } }, ["imageCache.registries[0]"]],
    ["settings of no cache", { imageCache: { size: "5Gi", open: true } }, ["imageCache.size", "imageCache.open"]],
    ["a size that is none", { imageCache: { registries: ["docker.io"], size: "5" } }, ["imageCache.size"]],
  ])("%s is refused by the key", (_, further, keys) => expect(parse(further).problems.map(({ key }) => key)).toEqual(keys));
  test("Docker Hub's mirror may have a path where dockerd's has none", () => expect(parse({ imageCache: { registries: ["docker.io"] }, mirrors: { registries: { "docker.io": "mirror.test/hub" }, dockerd: "https://hub.mirror.test" } }).problems).toEqual([]));
});
