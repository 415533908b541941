import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import * as pulumi from "@pulumi/pulumi";
import { parse } from "yaml";
import type { Problem } from "../../config";
import { all, hostKey, objects, privateKey, registered, settled, stackConfig, the, useMocks, valueOf } from "./mocks";

jest.setTimeout(60_000);

const answers: { problems: Problem[]; warnings: string[]; apiServerAddresses: string[]; nodeArchitectures?: string[] } = { problems: [], warnings: [], apiServerAddresses: ["10.96.0.1", "192.0.2.10", "fd00::1"] };
jest.mock("../../checks/preflight", () => ({ preflight: async () => answers }));
// The registry is asked for base images and for what it may have lost: not in a unit test.
jest.mock("../../components/agent-images", () => ({ ...jest.requireActual<object>("../../components/agent-images"), prepareImages: async (args: unknown) => args }));

const digest = (name: string) => `registry.test/build-platform/${name}@sha256:${"ab".repeat(32)}`;
let folder: string;

beforeAll(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "stack-"));
  fs.writeFileSync(path.join(folder, "key"), privateKey);
  fs.writeFileSync(path.join(folder, "host.pub"), hostKey);
});
afterAll(() => fs.rmSync(folder, { recursive: true }));

/** Runs the program with the sandbox's config, its files replaced, under mocks. */
async function run(further: Record<string, unknown> = {}, secrets: string[] = []) {
  await useMocks((name) => (name.startsWith("agent-images-") ? digest(name.slice("agent-images-".length)) : name === "jenkins-admin-password" ? "A".repeat(32) : "in force"));
  const access = { privateKeyFile: path.join(folder, "key"), nodes: [{ name: "control-plane-1", host: "192.0.2.10", hostKeyFile: path.join(folder, "host.pub") }] };
  const config = { ...stackConfig("sandbox"), controlPlane: access, ...further };
  pulumi.runtime.setAllConfig(
    Object.fromEntries(Object.entries(config).map(([key, value]) => [`build-platform:${key}`, typeof value === "object" ? JSON.stringify(value) : String(value)])),
    secrets.map((key) => `build-platform:${key}`),
  );
  const { default: program } = (await import("../../index")) as unknown as { default: () => Promise<Record<string, pulumi.Input<unknown>>> };
  const outputs = await program();
  await settled();
  return outputs;
}

afterEach(() => (answers.problems = []));

test("the whole stack is wired: components, their order and what they hand on", async () => {
  const outputs = await run();
  const components = registered.filter((r) => r.type.startsWith("build-platform:")).map((r) => r.type);
  expect(components.sort()).toEqual(["build-platform:cluster:NodePortRange", "build-platform:images:AgentImages", "build-platform:ingress:IngressNginx", "build-platform:jenkins:JenkinsMaster", "build-platform:storage:OpenEbsStorage"]);
  expect(the("PersistentVolumeClaim").inputs.spec.storageClassName).toBe("openebs-hostpath");
  expect(the("Ingress", "jenkins").inputs.spec).toMatchObject({ ingressClassName: "nginx", rules: [{ host: "jenkins.sandbox.test" }] });
  expect(the("Deployment", "jenkins").inputs.spec.template.spec.containers[0].image).toBe(digest("controller"));
  const casc = the("ConfigMap", "jenkins-casc").inputs.data["jenkins.yaml"];
  expect(casc).toContain(`image: ${digest("maven-dind")}`);
  expect(casc).toContain(`image: ${digest("gradle-dind")}`);
  expect(casc).toContain("--insecure-registry=10.88.0.1:5000");
  expect(Object.keys(outputs).sort()).toEqual(["adminPasswordCommand", "adminUser", "agentImages", "ingressClass", "jenkinsUrl", "namespaces", "nodePortRange", "storageClass"]);
  expect(await valueOf(pulumi.output(outputs))).toMatchObject({
    jenkinsUrl: "http://jenkins.sandbox.test/",
    adminUser: "admin",
    agentImages: { controller: digest("controller"), "maven-dind": digest("maven-dind"), "gradle-dind": digest("gradle-dind") },
    storageClass: "openebs-hostpath",
    nodePortRange: "80-32767",
    ingressClass: "nginx",
    namespaces: { jenkins: "jenkins", agents: "jenkins-agents" },
  });
});

test("without a registry the stack brings its own before the images, and pods pull by the nodes' loopback", async () => {
  await run({ registry: {}, imageBuild: {} });
  expect(registered.map((r) => r.type)).toContain("build-platform:registry:ImageRegistry");
  expect(all("DaemonSet").map(({ inputs }) => inputs.metadata.name)).toContain("image-registry-node");
  const environment = all("Command").find(({ name }) => name === "agent-images-controller")!.inputs.environment;
  expect(environment.value ?? environment).toMatchObject({ IMAGE_REPOSITORY: "image-registry.image-registry.svc:5001/build-platform/controller", REGISTRY_PULLED_FROM: "localhost:61500", IMAGE_BUILDER: "in-cluster" });
  expect(the("ConfigMap", "jenkins-casc").inputs.data["jenkins.yaml"]).toContain("--insecure-registry=jobs-registry.image-registry.svc:5000");
  await run({ registry: {}, imageBuild: { builder: "buildah" } });
  const local = all("Command").find(({ name }) => name === "agent-images-controller")!.inputs.environment;
  expect(local.value ?? local).toMatchObject({ REGISTRY_PULLED_FROM: "localhost:61500", IMAGE_BUILDER: "buildah", BUILDKIT_CONTEXT: expect.any(String) });
  expect(all("Namespace").map(({ inputs }) => inputs.metadata.name)).not.toContain("image-builds");
  await run();
  expect(registered.map((r) => r.type)).not.toContain("build-platform:registry:ImageRegistry");
  expect(JSON.stringify(registered)).not.toContain("REGISTRY_PULLED_FROM");
});

test("a cache of public registries comes where one is named, and agents' Docker asks it", async () => {
  await run({ imageCache: { registries: ["docker.io"] } });
  expect(registered.map((r) => r.type)).toContain("build-platform:registry:ImageCache");
  expect(the("ConfigMap", "jenkins-casc").inputs.data["jenkins.yaml"]).toContain("--registry-mirror=http://image-cache.image-cache.svc:5000");
  await run();
  expect(registered.map((r) => r.type)).not.toContain("build-platform:registry:ImageCache");
  expect(the("ConfigMap", "jenkins-casc").inputs.data["jenkins.yaml"]).not.toContain("--registry-mirror");
});

test("the controller is evicted last and agents first, by classes of the platform's own; the controller's key replaces one", async () => {
  await run();
  expect(all("PriorityClass").map(({ inputs }) => inputs.metadata.name).sort()).toEqual(["jenkins-agents", "jenkins-controller"]);
  expect(the("Deployment", "jenkins").inputs.spec.template.spec.priorityClassName).toBe("jenkins-controller");
  expect(the("ConfigMap", "jenkins-casc").inputs.data["jenkins.yaml"].match(/priorityClassName: jenkins-agents/g)).toHaveLength(3);
  await run({ controller: { priorityClassName: "system-cluster-critical" }, patches: [{ target: { kind: "Pod", name: "maven" }, patch: { spec: { priorityClassName: "batch" } } }] });
  expect(all("PriorityClass").map(({ inputs }) => inputs.metadata.name)).toEqual(["jenkins-agents"]);
  expect(the("Deployment", "jenkins").inputs.spec.template.spec.priorityClassName).toBe("system-cluster-critical");
  expect(the("ConfigMap", "jenkins-casc").inputs.data["jenkins.yaml"].match(/priorityClassName: \S+/g).sort()).toEqual(["priorityClassName: batch", "priorityClassName: jenkins-agents", "priorityClassName: jenkins-agents"]);
});

test("pods of built images are kept to what the images are built for, beside what the config says of nodes", async () => {
  const archOf = (values: string[]) => ({ nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [{ matchExpressions: [{ key: "kubernetes.io/arch", operator: "In", values }] }] } } });
  const controller = () => the("Deployment", "jenkins").inputs.spec.template.spec;
  // Of each template its pod, and how it is joined with what pipelines say.
  const agents = () => parse(the("ConfigMap", "jenkins-casc").inputs.data["jenkins.yaml"]).jenkins.clouds[0].kubernetes.templates.map(({ name, yaml, yamlMergeStrategy }: Record<string, string>) => [name, yamlMergeStrategy, parse(yaml).spec.nodeSelector, parse(yaml).spec.affinity]);
  const own = process.arch === "x64" ? "amd64" : process.arch;
  await run();
  expect(controller().affinity).toEqual(archOf([own]));
  // The plugin's merge keeps a nodeSelector, and no affinity; beside one it does not add the system itself.
  expect(agents()).toEqual([["maven", "merge", { "kubernetes.io/os": "linux", "kubernetes.io/arch": own }, undefined], ["gradle", "merge", { "kubernetes.io/os": "linux", "kubernetes.io/arch": own }, undefined], ["pod-defaults", "merge", undefined, undefined]]);
  const further = { controller: { nodeSelector: { disk: "ssd" } }, agents: [{ name: "own", image: "maven-dind", nodeSelector: { pool: "ci" } }, { name: "foreign", image: "registry.test/go:1" }] };
  await run({ ...further, imageBuild: { builder: "buildah", platforms: ["linux/arm64"] } });
  expect(controller()).toMatchObject({ nodeSelector: { disk: "ssd" }, affinity: archOf(["arm64"]) });
  expect(agents()).toEqual([["own", "merge", { "kubernetes.io/os": "linux", "kubernetes.io/arch": "arm64", pool: "ci" }, undefined], ["foreign", "merge", undefined, undefined], ["pod-defaults", "merge", undefined, undefined]]);
  await run({ ...further, controller: { image: "registry.test/jenkins:1" }, imageBuild: { builder: "buildah", platforms: ["linux/amd64", "linux/arm64"] } });
  expect(controller()).not.toHaveProperty("affinity");
  expect(agents()).toEqual([["own", "merge", { pool: "ci" }, archOf(["amd64", "arm64"])], ["foreign", "merge", undefined, archOf(["amd64", "arm64"])], ["pod-defaults", "merge", undefined, archOf(["amd64", "arm64"])]]);
});

test("images that the cluster builds are for what its nodes are", async () => {
  answers.nodeArchitectures = ["arm64", "arm64"];
  await run({ imageBuild: { builder: "in-cluster" } });
  expect(JSON.stringify(the("Deployment", "jenkins").inputs.spec.template.spec.affinity)).toContain('"arm64"');
  delete answers.nodeArchitectures;
  await run({ imageBuild: { builder: "in-cluster" } });
  expect(the("Deployment", "jenkins").inputs.spec.template.spec).not.toHaveProperty("affinity");
});

test("every Kubernetes object goes through the provider of the named context", async () => {
  await run();
  expect(the("kubernetes").inputs).toMatchObject({ context: "kubernetes-admin@sandbox", kubeconfig: "/var/lib/build-platform-sandbox/kubeconfig" });
  const used = objects().filter((r) => r.type.startsWith("kubernetes:"));
  expect(used.length).toBeGreaterThan(30);
  for (const { name, provider } of used) expect([name, provider]).toEqual([name, expect.stringContaining("pulumi:providers:kubernetes::cluster")]);
});

test("agents are kept from the API server's addresses", async () => {
  await run();
  expect(JSON.stringify(the("NetworkPolicy", "jenkins-agents").inputs.spec)).toContain('"except":["10.96.0.1/32","192.0.2.10/32"]');
  expect(JSON.stringify(the("NetworkPolicy", "jenkins-agents").inputs.spec)).toContain('"except":["fd00::1/128"]');
});

test("every image that runs is one that config names or that was built", async () => {
  await run();
  const images = objects().flatMap((r) => (r.inputs.spec?.template?.spec?.containers ?? []).map((c: { image: string }) => c.image));
  expect(images).toHaveLength(6);
  for (const image of images) expect(image).toMatch(/^(10\.88\.0\.1:5000|registry\.test)\//);
});

test("Traefik takes ingress-nginx' place: one controller, the same Ingress, and nobody waits for an address in it", async () => {
  await run();
  const before = the("Ingress", "jenkins").inputs;
  await useMocks();
  await run({ ingress: { controller: "traefik" } });
  expect(registered.map(({ type }) => type).filter((type) => type.startsWith("build-platform:ingress"))).toEqual(["build-platform:ingress:IngressTraefik"]);
  expect(all("Deployment").map(({ inputs }) => inputs.metadata.name)).toEqual(expect.arrayContaining(["traefik"]));
  expect(all("Deployment").map(({ inputs }) => inputs.metadata.name)).not.toContain("ingress-nginx-controller");
  expect(the("Ingress", "jenkins").inputs).toEqual({ ...before, metadata: { ...before.metadata, annotations: { ...before.metadata.annotations, "pulumi.com/skipAwait": "true" } } });
  expect(before.metadata.annotations).not.toHaveProperty(["pulumi.com/skipAwait"]);
});

test.each([[{ install: false }], [{ controller: "none" }]])("another ingress controller's class is used as it is: %j", async (none) => {
  await run({ ingress: { ...none, className: "traefik", namespace: "traefik" } });
  expect(the("Ingress", "jenkins").inputs.metadata.annotations["pulumi.com/skipAwait"]).toBe("true");
  expect(all("IngressClass")).toHaveLength(0);
  expect(the("Ingress", "jenkins").inputs.spec.ingressClassName).toBe("traefik");
  expect(JSON.stringify(the("NetworkPolicy", "jenkins").inputs.spec)).toContain('"kubernetes.io/metadata.name":"traefik"');
});

const beside = {
  domain: "b.sandbox.test", namespace: "team-b", storageClass: "team-b", storageInstall: "class", storageBasePath: "/var/openebs/team-b", nodePortRange: "none", controlPlane: {}, ingress: { install: false },
  backup: { repository: "/mnt/b/home", password: "p", keysRepository: "/mnt/b-keys/keys", keysPassword: "q" },
};
/** Kind, namespace and name of every object in the cluster. */
const places = () => objects().flatMap(({ type, inputs }) => (type.startsWith("kubernetes:") ? [`${type.split(":").pop()} ${inputs.metadata.namespace ?? "-"}/${inputs.metadata.name}`] : []));

test("two environments have no object in common", async () => {
  await run({ backup: { ...beside.backup, repository: "/mnt/a/home", keysRepository: "/mnt/a-keys/keys" } }, ["backup"]);
  const first = places();
  expect(new Set(first).size).toBe(first.length);
  const outputs = await run(beside, ["backup"]);
  const second = places();
  expect(second.filter((place) => first.includes(place))).toEqual([]);
  expect(second.filter((place) => / -\//.test(place)).map((place) => place.replace(/(-repository)-[0-9a-f]{8}$/, "$1")).sort()).toEqual([
    "Namespace -/team-b", "Namespace -/team-b-agents", "PersistentVolume -/team-b-backup-keys-repository", "PersistentVolume -/team-b-backup-repository", "PriorityClass -/team-b-agents", "PriorityClass -/team-b-controller", "StorageClass -/team-b",
    "ValidatingAdmissionPolicy -/build-platform-team-b-agents", "ValidatingAdmissionPolicyBinding -/build-platform-team-b-agents",
  ]);
  for (const place of second) expect(place).toMatch(/ (-|team-b|team-b-agents)\//);
  // Nothing refers to the first one either, but for the ingress that both share.
  const text = JSON.stringify(objects().map(({ inputs }) => inputs));
  expect(text.match(/jenkins\.jenkins|jenkins-agent\.jenkins\b|"(namespace|kubernetes\.io\/metadata\.name)":"jenkins(-agents)?"|openebs-hostpath|(?<![a-z])path"?: ?"?\/var\/cache\/build-platform[/"]/gi) ?? []).toEqual([]);
  expect(the("ConfigMap", "jenkins-casc").inputs.data["jenkins.yaml"]).toContain("jenkinsTunnel: jenkins-agent.team-b.svc:50000");
  expect(registered.filter((r) => r.type.startsWith("command:") && !r.name.startsWith("agent-images-")).map((r) => r.name)).toEqual(["jenkins-admin-password", "jenkins-rehearsal", "jenkins-save-first"]);
  expect(await valueOf(pulumi.output(outputs))).toMatchObject({ nodePortRange: "none", storageClass: "team-b", ingressClass: "nginx", namespaces: { jenkins: "team-b", agents: "team-b-agents" }, adminPasswordCommand: expect.stringContaining("kubectl -n team-b ") });
});

test("who sets the node-port range says so on the namespace, and nobody else", async () => {
  await run();
  expect(the("Namespace", "jenkins").inputs.metadata.labels).toMatchObject({ "build-platform/stack": "unit", "build-platform/node-ports": "owner" });
  await run(beside, ["backup"]);
  expect(the("Namespace", "team-b").inputs.metadata.labels).not.toHaveProperty("build-platform/node-ports");
});

test("an existing StorageClass is used as it is", async () => {
  const outputs = await run({ storageClass: "fast", storageInstall: "none" });
  expect(all("StorageClass")).toHaveLength(0);
  expect(all("Namespace").map((n) => n.inputs.metadata.name).sort()).toEqual(["ingress-nginx", "jenkins", "jenkins-agents"]);
  expect(the("PersistentVolumeClaim").inputs.spec.storageClassName).toBe("fast");
  expect(await valueOf(pulumi.output(outputs.storageClass))).toBe("fast");
});

test("an ingress of its own on other ports: the address names the port", async () => {
  const outputs = await run({ ingress: { namespace: "edge", className: "edge", httpNodePort: 8080, httpsNodePort: 8443 } });
  expect(the("Service", "ingress-nginx-controller").inputs.metadata.namespace).toBe("edge");
  expect(JSON.stringify(the("NetworkPolicy", "jenkins").inputs.spec)).toContain('"kubernetes.io/metadata.name":"edge"');
  expect(await valueOf(pulumi.output(outputs.jenkinsUrl))).toBe("http://jenkins.sandbox.test:8080/");
});

describe("the address that people use outside", () => {
  const proxied = { trustedProxies: ["192.0.2.0/24"], externalTrafficPolicy: "Local" };
  const annotations = () => the("Ingress", "jenkins").inputs.metadata.annotations as Record<string, string>;
  const casc = () => parse(the("ConfigMap", "jenkins-casc").inputs.data["jenkins.yaml"]);

  test("is Jenkins' own, and the ingress goes on serving what it serves", async () => {
    const outputs = await run({ ingress: { ...proxied, externalUrl: "https://ci.example.com:8443" } });
    expect(await valueOf(pulumi.output(outputs.jenkinsUrl))).toBe("https://ci.example.com:8443/");
    expect(casc().unclassified.location.url).toBe("https://ci.example.com:8443/");
    expect(the("Ingress", "jenkins").inputs.spec.rules).toMatchObject([{ host: "jenkins.sandbox.test", http: { paths: [{ path: "/" }] } }]);
    expect(the("Ingress", "jenkins").inputs.spec).not.toHaveProperty("tls");
    expect(annotations()["nginx.ingress.kubernetes.io/ssl-redirect"]).toBe("false");
    // On another port or host than the annotation can say nobody is sent anywhere.
    expect(annotations()).not.toHaveProperty("nginx.ingress.kubernetes.io/force-ssl-redirect");
  });

  test.each(["nginx", "traefik"])("sends plain HTTP on where %s knows what came by TLS", async (controller) => {
    await run({ ingress: { ...proxied, controller, externalUrl: "https://jenkins.sandbox.test" } });
    expect(annotations()).toMatchObject({ "nginx.ingress.kubernetes.io/force-ssl-redirect": "true", "nginx.ingress.kubernetes.io/ssl-redirect": "false" });
  });

  test("of somebody else's controller sends nobody on: what it knows is not known here", async () => {
    await run({ ingress: { controller: "none", externalUrl: "https://jenkins.sandbox.test" } });
    expect(annotations()).not.toHaveProperty("nginx.ingress.kubernetes.io/force-ssl-redirect");
  });

  test("where it says what the others say already changes no object", async () => {
    const rendered = () => JSON.stringify(objects().map(({ type, name, inputs }) => [type, name, inputs]).sort());
    for (const ingress of [{}, { tlsSecret: "tls", httpsNodePort: 8443 }, { controller: "traefik", clusterIssuer: "issuer" }]) {
      const outputs = await run({ ingress });
      const [before, url] = [rendered(), await valueOf(pulumi.output(outputs.jenkinsUrl as string))];
      await run({ ingress: { ...ingress, externalUrl: url, trustedProxies: [], proxyProtocol: false } });
      expect(rendered()).toBe(before);
    }
  });

  test("with a path leads everybody below it: no place asks Jenkins without the prefix", async () => {
    const outputs = await run({ ...complete, ingress: { tlsSecret: "tls", externalUrl: "https://jenkins.sandbox.test/ci/jenkins/" }, prometheusNamespace: "monitoring", serviceMonitor: true, dashboard: true }, ["backup"]);
    const prefix = "/ci/jenkins";
    expect(await valueOf(pulumi.output(outputs.jenkinsUrl))).toBe(`https://jenkins.sandbox.test${prefix}/`);
    expect(the("Ingress", "jenkins").inputs.spec.rules).toMatchObject([{ http: { paths: [{ path: prefix, pathType: "Prefix" }] } }]);
    const found = pods();
    const container = (pod: string, name: string) => {
      const { containers, initContainers = [] } = found.find(([what]) => what === pod)![2] as unknown as Record<string, { name: string; env: object[] }[]>;
      return [...containers, ...initContainers].find((each) => each.name === name)!;
    };
    // Wherever Jenkins starts, it starts below the path.
    for (const pod of ["Deployment jenkins", "rehearsal", "CronJob jenkins-backup-verify"]) expect([pod, container(pod, "jenkins").env]).toEqual([pod, expect.arrayContaining([{ name: "JENKINS_OPTS", value: `--webroot=/var/cache/jenkins/war --prefix=${prefix}` }])]);
    // The script's own words are for the root; the variable goes before them.
    expect(container("CronJob jenkins-backup-verify", "report").env).toContainEqual({ name: "JENKINS_URL_LOCAL", value: `http://127.0.0.1:8080${prefix}` });

    const words = JSON.stringify(registered).replaceAll("${JENKINS_URL_LOCAL:-http://127.0.0.1:8080}", "");
    const asked = words.match(/[^\s"'\\]*(:8080\b(?=[^\s"'\\]*\/)|\.svc:8080\b|127\.0\.0\.1:8080\b|\/login\b|\/prometheus\/|\/reload-configuration-as-code)[^\s"'\\]*/g) ?? [];
    const jenkins = asked.filter((each) => !each.startsWith("https://s3.test"));
    // Three probes of the controller, that of the rehearsal, Prometheus twice, the agents' URL and the reload, at the least.
    expect(jenkins.length).toBeGreaterThanOrEqual(8);
    for (const each of jenkins) expect(each).toContain(`${prefix}/`.slice(0, each.endsWith(prefix) ? -1 : undefined));
  });
});

test("the registry's password reaches Secrets only", async () => {
  await run({ registry: { host: "registry.test", username: "puller", password: "the-registry-password" } }, ["registry"]);
  expect(all("Secret").map((s) => `${s.inputs.metadata.namespace}/${s.inputs.metadata.name}`).sort()).toEqual([
    "ingress-nginx/registry-login", "jenkins-agents/registry-login", "jenkins/jenkins-admin", "jenkins/registry-login", "openebs/registry-login",
  ]);
  for (const { type, name, inputs } of objects().filter((r) => !r.type.endsWith(":Secret"))) {
    for (const [key, value] of Object.entries(inputs)) {
      const secret = (value as { value?: unknown })?.value !== undefined;
      if (!secret) expect([type, name, key, JSON.stringify(value)]).toEqual([type, name, key, expect.not.stringContaining("the-registry-password")]);
    }
  }
});

interface PodSpec { serviceAccountName?: string; imagePullSecrets?: { name: string }[] }
/** Every pod that a fully configured stack leads to: where it runs, and its spec. */
function pods(): [what: string, namespace: string, spec: PodSpec][] {
  const plain = (value: unknown): unknown => (value !== null && typeof value === "object" && "4dabf18193072939515e22adb298388d" in value ? (value as unknown as { value: unknown }).value : value);
  const templates = ["Deployment", "DaemonSet"].flatMap((kind) => all(kind).map(({ inputs }): [string, string, PodSpec] => [`${kind} ${inputs.metadata.name}`, inputs.metadata.namespace, inputs.spec.template.spec]));
  const jobs = all("CronJob").map(({ inputs }): [string, string, PodSpec] => [`CronJob ${inputs.metadata.name}`, inputs.metadata.namespace, inputs.spec.jobTemplate.spec.template.spec]);
  const { objects: tried, namespace } = JSON.parse(plain(registered.find(({ name }) => name === "jenkins-rehearsal")!.inputs.stdin) as string);
  const agents = (parse(the("ConfigMap", "jenkins-casc").inputs.data["jenkins.yaml"]).jenkins.clouds[0].kubernetes.templates as { name: string; yaml: string }[]).map(({ name, yaml }): [string, string, PodSpec] => [`agent ${name}`, "jenkins-agents", parse(yaml).spec]);
  // Pods that others make there: of pipelines, and of builds.
  const others = ["jenkins-agents", ...(all("Namespace").some(({ inputs }) => inputs.metadata.name === "image-builds") ? ["image-builds"] : [])].map((there): [string, string, PodSpec] => ["a pod of its own", there, {}]);
  return [...templates, ...jobs, ["rehearsal", namespace, tried.job.spec.template.spec], ...agents, ...others];
}
const complete = { imageBuild: { builder: "in-cluster" }, backup: { repository: "s3:https://s3.test/a", password: "a", keysRepository: "s3:https://s3.test/b", keysPassword: "b" } };

test("every account and every pod of the platform pulls with the login of the registry, with those of pullSecrets, and with Secrets that are there already", async () => {
  await run({ ...complete, registry: { host: "registry.test", username: "puller", password: "the-registry-password" }, pullSecrets: [{ registry: "docker.io", username: "robot", password: "the-hub-password" }, { existing: "company" }] }, ["registry", "backup", "pullSecrets"]);
  const expected = [{ name: "registry-login" }, { name: "company" }];
  const accounts = [...all("ServiceAccount"), ...all("ServiceAccountPatch")];
  expect(accounts.map(({ inputs }) => `${inputs.metadata.namespace}/${inputs.metadata.name}`).sort()).toEqual(["image-builds/default", "ingress-nginx/ingress-nginx", "jenkins-agents/default", "jenkins-agents/jenkins-agent", "jenkins/jenkins", "jenkins/jenkins-backup", "openebs/localpv-provisioner"]);
  for (const { name, inputs } of accounts) expect([name, inputs.imagePullSecrets]).toEqual([name, expected]);
  const found = pods();
  expect(found.length).toBeGreaterThanOrEqual(11);
  for (const [what, namespace, { serviceAccountName = "default", imagePullSecrets }] of found) {
    const account = accounts.find(({ inputs }) => inputs.metadata.namespace === namespace && inputs.metadata.name === serviceAccountName);
    expect([what, imagePullSecrets ?? account?.inputs.imagePullSecrets]).toEqual([what, expected]);
    const content = all("Secret").find(({ inputs }) => inputs.metadata.name === "registry-login" && inputs.metadata.namespace === namespace)!.inputs.data.value[".dockerconfigjson"] as string;
    expect(Object.keys(JSON.parse(Buffer.from(content, "base64").toString()).auths)).toEqual(["registry.test", "https://index.docker.io/v1/"]);
  }
  // What the provisioner's short-lived pods are pulled with.
  expect(the("Deployment", "localpv-provisioner").inputs.spec.template.spec.containers[0].env).toContainEqual({ name: "OPENEBS_IO_IMAGE_PULL_SECRETS", value: "registry-login,company" });
  for (const { type, name, inputs } of objects().filter((r) => !r.type.endsWith(":Secret")))
    for (const [key, value] of Object.entries(inputs))
      if ((value as { value?: unknown })?.value === undefined) expect([type, name, key, JSON.stringify(value)]).toEqual([type, name, key, expect.not.stringMatching(/the-(registry|hub)-password/)]);
});

test("the pods of the stack's own registry pull with the logins as well", async () => {
  await run({ registry: {}, imageBuild: {}, pullSecrets: [{ registry: "docker.io", username: "robot", password: "the-hub-password" }] }, ["pullSecrets"]);
  for (const [kind, name, namespace] of [["Deployment", "image-registry", "image-registry"], ["Deployment", "jobs-registry", "image-registry"], ["DaemonSet", "image-registry-node", "image-pulls"]]) {
    expect([name, the(kind, name).inputs.spec.template.spec.imagePullSecrets]).toEqual([name, [{ name: "registry-login" }]]);
    const secret = all("Secret").find(({ inputs }) => inputs.metadata.name === "registry-login" && inputs.metadata.namespace === namespace);
    expect([name, Object.keys(JSON.parse(Buffer.from(secret!.inputs.data.value[".dockerconfigjson"], "base64").toString()).auths)]).toEqual([name, ["https://index.docker.io/v1/"]]);
  }
});

test("without a login no account and no pod names a pull secret, and no mirror is anywhere", async () => {
  await run(complete, ["backup"]);
  for (const { name, inputs } of [...all("ServiceAccount"), ...all("ServiceAccountPatch")]) expect([name, inputs]).toEqual([name, expect.not.objectContaining({ imagePullSecrets: expect.anything() })]);
  for (const [what, , spec] of pods()) expect([what, spec]).toEqual([what, expect.not.objectContaining({ imagePullSecrets: expect.anything() })]);
  expect(all("Secret").map(({ inputs }) => inputs.metadata.name)).not.toContain("registry-login");
  expect(all("ConfigMap").map(({ inputs }) => inputs.metadata.name)).not.toContain("agent-mirrors");
  expect(JSON.stringify(registered)).not.toMatch(/IMAGE_MIRRORS|REGISTRY_LOGINS|registry-mirror/);
});

test("mirrors: pods, builds and agents fetch from them", async () => {
  await run({ images: {}, mirrors: { registries: { "docker.io": "mirror.test", "registry.k8s.io": "k8s.mirror.test/x" }, maven: "https://m.test/maven2", jenkinsUpdates: "https://m.test/updates" } });
  const images = JSON.stringify(registered).match(/[^"\\\s=]*(docker\.io|registry\.k8s\.io)\/[^"\\\s]*/g) ?? [];
  expect(images).toEqual([]);
  expect(the("Deployment", "ingress-nginx-controller").inputs.spec.template.spec.containers[0].image).toMatch(/^k8s\.mirror\.test\/x\/ingress-nginx\/controller:.*@sha256:/);
  expect(Object.keys(the("ConfigMap", "agent-mirrors").inputs.data).sort()).toEqual(["build-platform-mirrors.gradle", "buildkitd.toml", "settings.xml"]);
  expect(parse(the("ConfigMap", "jenkins-casc").inputs.data["jenkins.yaml"]).jenkins.updateCenter.sites).toEqual([{ id: "default", url: "https://m.test/updates/update-center.json" }]);
  expect(registered.find(({ name }) => name === "agent-images-controller")!.inputs.environment).toMatchObject({ IMAGE_MIRRORS: "docker.io=mirror.test\nregistry.k8s.io=k8s.mirror.test/x", IMAGE_ARGS: expect.stringContaining("JENKINS_IMAGE=mirror.test/jenkins/jenkins:") });
});

test("mistakes in config stop it before anything is registered, all in one message", async () => {
  const error = await run({ domain: "nope", storageSize: "15", registry: {}, imageBuild: { builder: "buildah", cache: "registry" } }).catch((thrown: Error) => thrown);
  expect(pulumi.RunError.isInstance(error)).toBe(true);
  // Pulumi would format a stack for many seconds and then not show it.
  expect((error as Error).stack).toBeUndefined();
  for (const key of ["domain", "storageSize", "imageBuild.cache"]) expect((error as Error).message).toContain(`\n  ${key}\n`);
  await settled();
  expect(registered).toEqual([]);
});

test("an image that cannot be built is reported with the rest, before anything is registered", async () => {
  answers.problems = [{ key: "kubeContext", found: "no answer", expected: "an API server", fix: "check it" }];
  const error = await run({ agentImages: { "go-dind": { context: "images/none" } } }).catch((thrown: Error) => thrown);
  expect(pulumi.RunError.isInstance(error)).toBe(true);
  expect((error as Error).message).toContain("\n  kubeContext\n    found     no answer\n    expected  an API server\n    fix       check it\n");
  expect((error as Error).message).toMatch(/\n  agentImages\.go-dind\.context\n    found     image go-dind: there is no folder images\/none; create it/);
  await settled();
  expect(registered).toEqual([]);
});

test("a cluster or registry that does not answer stops it as well", async () => {
  answers.problems = [{ key: "kubeContext", found: "https://192.0.2.1:6443/readyz: connect ECONNREFUSED", expected: "an API server", fix: "check it" }];
  await expect(run()).rejects.toThrow(/^Stack unit cannot be brought up[\s\S]*ECONNREFUSED[\s\S]*check it/);
  await settled();
  expect(registered).toEqual([]);
});
