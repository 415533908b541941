import { createPublicKey, verify } from "node:crypto";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { parse as parseYaml } from "yaml";
import { boundedServe, ImageRegistry, nodeConfig, pushKeys, pushToken, storeConfig, type ImageRegistryArgs } from "../../components/image-registry";
import { parseConfig } from "../../config";
import { imageArgs, registryArgs } from "../../config/arguments";
import { imageEnvironment } from "../../components/agent-images";
import { all, defaults, environment, hostKey, objects, settled, the, useMocks } from "./mocks";

jest.setTimeout(60_000);

const args: ImageRegistryArgs = { image: "registry.test/registry:3", storageClassName: "disk", size: "20Gi", jobsSize: "50Gi", repositories: ["build-platform/controller"], port: 61500, namespace: "image-registry", nodesNamespace: "image-pulls", buildsNamespace: "image-builds", agentsNamespace: "jenkins-agents" };

async function make(further: Partial<ImageRegistryArgs> = {}): Promise<void> {
  new ImageRegistry("registry", { ...args, ...further });
  await settled();
}
beforeEach(() => useMocks());

describe("the component", () => {
  test("makes two registries on volumes of their own, and what leads nodes to the first", async () => {
    await make();
    expect(all("Deployment").map(({ inputs }) => inputs.metadata.name).sort()).toEqual(["image-registry", "jobs-registry"]);
    expect(all("PersistentVolumeClaim").map(({ inputs }) => [inputs.spec.storageClassName, inputs.spec.resources.requests.storage]).sort()).toEqual([["disk", "20Gi"], ["disk", "50Gi"]]);
    // Without a name of their own one of another size can be made beside the former.
    for (const { inputs } of all("PersistentVolumeClaim")) expect(inputs.metadata).not.toHaveProperty("name");
    const claims = (name: string) => the("Deployment", name).inputs.spec.template.spec.volumes.flatMap(({ persistentVolumeClaim }: { persistentVolumeClaim?: { claimName: string } }) => persistentVolumeClaim?.claimName ?? []);
    expect([...claims("image-registry"), ...claims("jobs-registry")]).toEqual(["registry-platform-images", "registry-jobs-images"]);
    expect(the("DaemonSet").inputs.metadata).toMatchObject({ name: "image-registry-node", labels: { "build-platform/stack": "unit" } });
  });

  test("what everybody may reach only reads, and the builds' namespace alone writes", async () => {
    await make();
    const { containers } = the("Deployment", "image-registry").inputs.spec.template.spec;
    expect(containers.map(({ name, volumeMounts }: { name: string; volumeMounts: { name: string; readOnly?: boolean }[] }) => [name, volumeMounts.find((each) => each.name === "images")?.readOnly ?? false])).toEqual([["push", false], ["pull", true]]);
    expect(parseYaml(storeConfig(5000, "read")).storage).toMatchObject({ delete: { enabled: false }, maintenance: { readonly: { enabled: true } } });
    expect(parseYaml(storeConfig(5001, "token")).storage).toMatchObject({ delete: { enabled: true } });
    expect(parseYaml(storeConfig(5001, "token")).storage.maintenance).not.toHaveProperty("readonly");
    const peer = (name: string) => [{ namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": name } } }];
    expect(the("NetworkPolicy", "image-registry").inputs.spec).toMatchObject({ policyTypes: ["Ingress", "Egress"], ingress: [{ ports: [{ port: 5000, protocol: "TCP" }] }, { from: peer("image-builds"), ports: [{ port: 5001, protocol: "TCP" }] }] });
    expect(the("NetworkPolicy", "jobs-registry").inputs.spec.ingress).toEqual([{ from: peer("jenkins-agents"), ports: [{ port: 5000, protocol: "TCP" }] }]);
    expect(the("Service", "image-registry").inputs.spec.ports).toEqual([{ name: "push", port: 5001, targetPort: "push" }, { name: "pull", port: 5000, targetPort: "pull" }]);
  });

  test("without NetworkPolicies it has none, and asks for the token all the same", async () => {
    await make({ networkPolicies: false });
    expect(all("NetworkPolicy")).toEqual([]);
    expect(the("ConfigMap", "image-registry").inputs.data["push.yml"]).toBe(storeConfig(5001, "token"));
  });

  test("a token pushes to its repositories alone, is a secret, and the registry knows it by a key that gives nothing away", async () => {
    await useMocks((name) => (name === "registry-push-key" ? "s3cret" : ""));
    await make();
    const { data: secret } = the("Secret", "image-registry-push").inputs;
    const token = Buffer.from((secret.value ?? secret).token as string, "base64").toString();
    expect(token).toBe(pushToken("s3cret", args.repositories));
    const { data } = the("ConfigMap", "image-registry").inputs;
    const [key] = JSON.parse(data["keys.json"]).keys;
    expect(key).toEqual({ kty: "OKP", crv: "Ed25519", x: expect.any(String), kid: "push", alg: "EdDSA", use: "sig" });
    const [head, claims, signature] = token.split(".");
    expect(verify(null, Buffer.from(`${head}.${claims}`), createPublicKey({ key, format: "jwk" }), Buffer.from(signature, "base64url"))).toBe(true);
    const other = JSON.parse(pushKeys("other")).keys[0];
    expect(verify(null, Buffer.from(`${head}.${claims}`), createPublicKey({ key: other, format: "jwk" }), Buffer.from(signature, "base64url"))).toBe(false);
    expect(JSON.parse(Buffer.from(claims, "base64url").toString())).toMatchObject({ iss: "build-platform", aud: "image-registry", access: [{ type: "repository", name: "build-platform/controller", actions: ["pull", "push", "delete"] }] });
    expect(parseYaml(data["push.yml"]).auth.token).toMatchObject({ issuer: "build-platform", service: "image-registry", jwks: "/etc/image-registry/keys.json" });
    for (const text of [storeConfig(5000, "open"), storeConfig(5000, "read"), nodeConfig(1, "x")]) expect(text).not.toContain("auth:");
  });

  test("what is unused is removed before anything serves, and two programs never write at once", async () => {
    await make();
    for (const { inputs } of all("Deployment")) {
      expect(inputs.spec).toMatchObject({ replicas: 1, strategy: { type: "Recreate" } });
      expect(inputs.spec.template.spec.initContainers[0].command[2]).toMatch(/^registry garbage-collect .*push\.yml \|\|/);
    }
  });

  test("what jobs push is kept to nine tenths of its size, and what the platform pushes is not", async () => {
    await make({ jobsSize: "100Mi" });
    const commands = (name: string) => the("Deployment", name).inputs.spec.template.spec.containers.map(({ command }: { command: string[] }) => command);
    expect(commands("jobs-registry")).toEqual([["sh", "-c", boundedServe("/etc/image-registry/push.yml", "100Mi")]]);
    expect(boundedServe("x", "100Mi")).toContain("-gt 92160 ]");
    expect(commands("image-registry")).toEqual(["push", "pull"].map((name) => ["registry", "serve", `/etc/image-registry/${name}.yml`]));
  });

  test("on nodes it listens on the loopback alone, on every node, and is evicted last", async () => {
    await make({ port: 61777 });
    const { spec } = the("DaemonSet").inputs.spec.template;
    expect(spec).toMatchObject({ hostNetwork: true, priorityClassName: "system-node-critical", tolerations: [{ operator: "Exists" }] });
    expect(spec.containers[0].ports).toEqual([{ name: "node", containerPort: 61777, hostPort: 61777, hostIP: "127.0.0.1" }]);
    expect(spec.containers[0].readinessProbe.httpGet).toEqual({ path: "/v2/", port: 61777, host: "127.0.0.1" });
    expect(parseYaml(nodeConfig(61777, "image-registry.image-registry.svc:5000"))).toMatchObject({ http: { addr: "127.0.0.1:61777" }, storage: { delete: { enabled: true } }, proxy: { remoteurl: "http://image-registry.image-registry.svc:5000", ttl: "1h" } });
    expect(the("ConfigMap", "image-registry-node").inputs.data["node.yml"]).toBe(nodeConfig(61777, "image-registry.image-registry.svc:5000"));
  });

  test("only the namespace of the node's network is privileged, and no container has a right that it does not need", async () => {
    await make();
    expect(all("Namespace").map(({ inputs: { metadata } }) => [metadata.name, metadata.labels["pod-security.kubernetes.io/enforce"]]).sort()).toEqual([["image-pulls", "privileged"], ["image-registry", "restricted"]]);
    const pods = [...all("Deployment"), ...all("DaemonSet")].map(({ inputs }) => inputs.spec.template.spec);
    for (const pod of pods) {
      expect(pod).toMatchObject({ automountServiceAccountToken: false, enableServiceLinks: false, securityContext: { runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } } });
      for (const container of [...(pod.initContainers ?? []), ...pod.containers])
        expect(container).toMatchObject({ securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } }, resources: { limits: { memory: expect.any(String) } } });
    }
  });

  test("another configuration makes pods anew, and the same does not", async () => {
    const marks = () => [...all("Deployment"), ...all("DaemonSet")].map(({ inputs }) => inputs.spec.template.metadata.annotations["build-platform/config"]);
    await make();
    const before = marks();
    await useMocks();
    await make();
    expect(marks()).toEqual(before);
    await useMocks();
    await make({ port: 61501 });
    expect(marks().filter((mark, i) => mark !== before[i])).toHaveLength(1);
  });

  test("bad arguments are told all at once, before anything is made", () => {
    expect(() => new ImageRegistry("registry", { ...args, size: "20", jobsSize: "1", port: 80, namespace: "A" })).toThrow(expect.objectContaining({ errors: ["size", "jobsSize", "namespace", "port"].map((propertyPath) => expect.objectContaining({ propertyPath })) }));
    expect(objects()).toEqual([]);
  });
});

describe("the config", () => {
  const minimal = { ...defaults(), domain: "jenkins.example.com", kubeContext: "admin@cluster", controlPlane: { privateKeyFile: "~/.ssh/id", nodes: [{ name: "a", host: "192.0.2.1", hostKey }] } };
  const parse = (further: Record<string, unknown> = {}) => parseConfig({ ...minimal, ...further }, { ...environment, isSecret: (key) => key === "registry" });
  const problemsOf = (further: Record<string, unknown>) => parse(further).problems.map(({ key }) => key).sort();

  test("without a registry the stack brings one, and builds in the cluster", () => {
    for (const registry of [undefined, {}, { builtIn: true }]) {
      const { config, problems } = parse(registry && { registry });
      expect(problems).toEqual([]);
      expect(config.imageRegistry).toEqual({ namespace: "image-registry", nodesNamespace: "image-pulls", port: 61500, size: "20Gi", jobsSize: "20Gi" });
      expect(config.imageBuild.builder).toBe("in-cluster");
      expect(imageArgs(config).registry).toEqual({ host: "image-registry.image-registry.svc:5001", prefix: "build-platform", insecure: true, pulledFrom: "localhost:61500" });
      expect(registryArgs(config, "disk")).toEqual({ ...args, image: config.images.registry, jobsSize: "20Gi", networkPolicies: true, repositories: ["controller", "maven-dind", "gradle-dind"].flatMap((image) => [`build-platform/${image}`, `build-platform/${image}-cache`]) });
    }
  });

  test("a stack with a registry of its own keeps it, and everything as it was", () => {
    const { config, problems } = parse({ registry: { host: "registry.example.com:5000", insecure: true } });
    expect(problems).toEqual([]);
    expect(config).not.toHaveProperty("imageRegistry");
    expect(config.registry).toEqual({ host: "registry.example.com:5000", prefix: "build-platform", insecure: true });
    expect(config.imageBuild).toEqual({ builder: "buildx", platforms: [], deleteOnDestroy: false });
    expect(registryArgs(config, "disk")).toBeUndefined();
    expect(imageArgs(config)).toMatchObject({ builder: "buildx", registry: { host: "registry.example.com:5000", prefix: "build-platform", insecure: true } });
    const context = fs.mkdtempSync(path.join(os.tmpdir(), "image-registry-"));
    const told = imageEnvironment("controller", { hash: "a".repeat(64), files: {} }, { ...imageArgs(config), images: { controller: { context } } });
    fs.rmSync(context, { recursive: true });
    for (const key of ["REGISTRY_PULLED_FROM", "KUBECONFIG"]) expect(told).not.toHaveProperty(key);
  });

  test("networkPolicies: false reaches it", () => {
    expect(registryArgs(parse({ networkPolicies: false }).config, "disk")).toMatchObject({ networkPolicies: false });
  });

  test("environments beside each other have namespaces and a port of their own, the port one that stays", () => {
    const of = (namespace: string) => parse({ namespace }).config.imageRegistry!;
    expect(of("team-b")).toMatchObject({ namespace: "team-b-registry", nodesNamespace: "team-b-image-pulls" });
    expect(of("team-b").port).toBe(of("team-b").port);
    expect(new Set(["jenkins", "team-a", "team-b", "team-c"].map((name) => of(name).port)).size).toBe(4);
    for (const { nodesNamespace, port } of [of("a".repeat(50))]) {
      expect(nodesNamespace.length).toBeLessThanOrEqual(63);
      expect(port).toBeGreaterThan(61500);
      expect(port).toBeLessThan(62501);
    }
    expect(parse({ namespace: "team-b", registry: { port: 61999 } }).config.imageRegistry).toMatchObject({ port: 61999 });
  });

  test("kubectl is told which kubeconfig and context, and agents' Docker which registry speaks plain HTTP", () => {
    const { config } = parse({ kubeconfig: "~/.kube/prod" });
    expect(imageArgs(config)).toMatchObject({ inCluster: { namespace: "image-builds" }, cluster: { context: "admin@cluster", kubeconfig: "~/.kube/prod" } });
    expect(config.cluster.kubeconfig).toBe("/home/someone/.kube/prod");
    const other = (builder: string) => imageArgs(parse({ kubeconfig: "~/.kube/prod", registry: { host: "r.example.com" }, imageBuild: { builder } }).config).cluster;
    expect(other("in-cluster")).toEqual({ context: "admin@cluster" });
    expect(other("buildx")).toBeUndefined();
  });

  test.each(["buildah", "buildx"])("a local %s pushes to it through the API server, and needs no namespace in the cluster", (builder) => {
    const { config, problems } = parse({ kubeconfig: "~/.kube/prod", imageBuild: { builder, cache: "~/.cache/images" } });
    expect(problems).toEqual([]);
    const told = imageArgs(config);
    expect(told).toMatchObject({ builder, registry: { pulledFrom: "localhost:61500" }, cluster: { context: "admin@cluster", kubeconfig: "~/.kube/prod" } });
    expect(told).not.toHaveProperty("inCluster");
    const environment = imageEnvironment("controller", { hash: "a".repeat(64), files: {} }, told);
    expect(environment).toMatchObject({ IMAGE_BUILDER: builder, REGISTRY_PULLED_FROM: "localhost:61500", BUILDKIT_CONTEXT: "admin@cluster", KUBECONFIG: "~/.kube/prod" });
    expect(environment).not.toHaveProperty("BUILDKIT_NAMESPACE");
  });

  test.each<[string, Record<string, unknown>, string[]]>([
    ["a host beside it", { registry: { builtIn: true, host: "r.example.com" } }, ["registry.host"]],
    ["a login beside it", { registry: { builtIn: true, username: "u", password: "p" } }, ["registry.password", "registry.username"]],
    ["a login without a host", { registry: { username: "u", password: "p" } }, ["registry.host"]],
    ["none and no host", { registry: { builtIn: false } }, ["registry.host"]],
    ["its size beside a host", { registry: { host: "r.example.com", size: "5Gi", port: 61501, jobsSize: "5Gi" } }, ["registry.jobsSize", "registry.port", "registry.size"]],
    ["a cache in it of a builder that does not reach it", { imageBuild: { builder: "buildah", cache: "registry" } }, ["imageBuild.cache"]],
    ["a port for root", { registry: { port: 80 } }, ["registry.port"]],
    ["a host that is none is one mistake", { registry: { host: "http://r", insecure: true }, imageBuild: { builder: "buildah", cache: "registry" } }, ["registry.host"]],
  ])("%s is refused by the key", (_, further, keys) => expect(problemsOf(further)).toEqual(keys));
});
