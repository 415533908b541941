import * as fs from "node:fs";
import * as net from "node:net";
import * as path from "node:path";
import * as fc from "fast-check";
import * as pulumi from "@pulumi/pulumi";
import { explain, parseConfig, PlatformConfig, Problem, rangeProblem } from "../../config";
import { ownVariables } from "../../components/jenkins-master";
import { type Key } from "../../config/fields";
import { readSettings, root } from "../../config/mistakes";
import { cron, fits } from "../../config/pieces";
import upstream from "../../images/upstream.json";
import { parsePins } from "../../tools/plugin-updates";
import { defaults, environment, hostKey, privateKey, schema, stackConfig, valueOf } from "./mocks";

const node = { name: "control-plane-1", host: "192.0.2.10", hostKey };
const minimal = {
  ...defaults(),
  domain: "jenkins.example.com",
  kubeContext: "admin@cluster",
  controlPlane: { privateKeyFile: "~/.ssh/id_ed25519", nodes: [node] },
  registry: { host: "registry.example.com:5000" },
};

/** As where every key that holds secrets is stored encrypted. */
const encrypted = { ...environment, isSecret: (key: string) => ["adminPassword", "backup", "controlPlane", "login", "registry"].includes(key) };

const parse = (further: Record<string, unknown> = {}, env = environment) => parseConfig({ ...minimal, ...further }, env);
const problemsOf = (further: Record<string, unknown>, env = environment): Problem[] => parse(further, env).problems;
const keysOf = (further: Record<string, unknown>, env = environment): string[] => problemsOf(further, env).map((p) => p.key);

describe("the shipped stack files", () => {
  test.each(["dev", "prod", "sandbox"])("%s has no mistakes", (stack) => {
    expect(parseConfig(stackConfig(stack), environment).problems).toEqual([]);
  });

  test("only the sandbox names the sandbox's registry", () => {
    for (const stack of ["dev", "prod"]) expect(JSON.stringify(stackConfig(stack))).not.toMatch(/10\.88\.|sandbox/);
  });

  test("dev and prod use the upstream images; the sandbox the same names in its own registry", () => {
    for (const stack of ["dev", "prod"]) {
      const { images } = parseConfig(stackConfig(stack), environment).config;
      expect(images.jenkins).toBe(`docker.io/jenkins/jenkins:${upstream.jenkins.tag}@${upstream.jenkins.digest}`);
      expect(images.openebsProvisioner).toBe(`docker.io/openebs/provisioner-localpv:${upstream.openebsProvisioner.tag}`);
      expect(images.ingressNginx).toBe(`registry.k8s.io/ingress-nginx/controller:v1.15.1@${upstream.ingressNginx.digest}`);
    }
    const { images } = parseConfig(stackConfig("sandbox"), environment).config;
    for (const [key, pin] of Object.entries(upstream)) expect(images[key as keyof typeof images]).toBe(`10.88.0.1:5000/${pin.image.replace(/^[^/]+\//, "")}:${pin.tag}`);
  });

  test("prod protects its data and serves HTTPS", () => {
    const { config } = parseConfig(stackConfig("prod"), environment);
    expect(config.storage.protectHome).toBe(true);
    expect(config.ingress.tls).toEqual({ secretName: "jenkins-tls", clusterIssuer: "letsencrypt" });
  });
});

describe("what stands before the nodes", () => {
  const outside = "https://ci.example.com";
  const proxied = { externalUrl: outside, trustedProxies: ["192.0.2.0/24"], externalTrafficPolicy: "Local" };

  test.each<[string, Record<string, unknown>]>([
    ["nothing", {}],
    ["a proxy that ends TLS", proxied],
    ["the same before Traefik", { ...proxied, controller: "traefik" }],
    ["a path alone", { externalUrl: "http://jenkins.example.com/jenkins" }],
    ["another port on the way", { externalUrl: "https://jenkins.example.com", tlsSecret: "tls", httpsNodePort: 30443 }],
    ["a balancer of packets with PROXY protocol", { trustedProxies: ["192.0.2.10", "2001:db8::1"], proxyProtocol: true, tlsSecret: "tls" }],
    ["a proxy before somebody else's controller", { controller: "none", externalUrl: outside }],
    ["a proxy without TLS", { trustedProxies: ["192.0.2.10"] }],
  ])("%s is taken", (_, ingress) => {
    expect(problemsOf({ ingress })).toEqual([]);
  });

  test.each<[string, Record<string, unknown>, string[]]>([
    ["TLS that ends before, and nobody who is believed to have ended it", { externalUrl: outside }, ["ingress.trustedProxies"]],
    ["plain HTTP outside and a certificate inside", { externalUrl: "http://jenkins.example.com", tlsSecret: "tls" }, ["ingress.externalUrl"]],
    ["PROXY protocol of nobody", { proxyProtocol: true }, ["ingress.trustedProxies"]],
    ["TLS that ends before, of which PROXY protocol says nothing", { ...proxied, proxyProtocol: true }, ["ingress.proxyProtocol"]],
    ["Traefik, which would see a node in the proxy's place", { ...proxied, controller: "traefik", externalTrafficPolicy: "Cluster" }, ["ingress.externalTrafficPolicy"]],
    ["settings of a controller that is somebody else's", { controller: "none", trustedProxies: ["192.0.2.10"], proxyProtocol: true }, ["ingress.trustedProxies", "ingress.proxyProtocol"]],
    ["everybody, believed", { ...proxied, trustedProxies: ["192.0.2.10", "0.0.0.0/0", "::/0"] }, ["ingress.trustedProxies[1]", "ingress.trustedProxies[2]"]],
    ["Traefik with a certificate, another port outside, and who marks requests as https on port 80", { ...proxied, controller: "traefik", externalUrl: "https://jenkins.example.com:8443", tlsSecret: "tls" }, ["ingress.trustedProxies"]],
    ["addresses that are none", { ...proxied, trustedProxies: ["proxy.example.com"] }, ["ingress.trustedProxies"]],
  ])("%s: refused, once", (_, ingress, keys) => {
    expect(keysOf({ ingress })).toEqual(keys);
  });

  test.each(["ci.example.com", "https://", "https://user@ci.example.com", "https://ci.example.com/?a", "https://192.0.2.1", "https://ci.example.com:0", "https://ci.example.com:70000", "https://ci.example.com/a//b", "https://ci.example.com/../x", "https://CI.example.com"])("%s is no address", (externalUrl) => {
    expect(keysOf({ ingress: { controller: "none", externalUrl } })).toEqual(["ingress.externalUrl"]);
  });

  test("its host is reached without the proxy on the way out", () => {
    expect(parse({ ingress: proxied, proxy: { https: "http://proxy.example.com:3128" } }).config.surroundings.proxy?.noProxy).toEqual(expect.arrayContaining(["jenkins.example.com", "ci.example.com"]));
    const further = parse({ ingress: { hosts: [{ name: "old.example.com" }] }, proxy: { https: "http://proxy.example.com:3128" } });
    expect(further.config.surroundings.proxy?.noProxy).toContain("old.example.com");
  });
});

describe("further hosts", () => {
  const hosts = [{ name: "old.example.com" }, { name: "files.example.com", resources: true, tlsSecret: "files" }];
  const secretsOf = (ingress: Record<string, unknown>) => parse({ ingress: { ...ingress, hosts } }).config.ingress.hosts.map(({ secretName }) => secretName);

  test("have each its certificate", () => {
    expect(problemsOf({ ingress: { tlsSecret: "tls", hosts } })).toEqual([]);
    expect(secretsOf({ tlsSecret: "tls" })).toEqual(["tls", "files"]);
    expect(secretsOf({ clusterIssuer: "issuer" })).toEqual(["old.example.com-tls", "files.example.com-tls"]);
    // cert-manager would write into the one that people brought.
    expect(keysOf({ ingress: { clusterIssuer: "issuer", hosts } })).toEqual(["ingress.hosts[1].tlsSecret"]);
    expect(parse({ ingress: { hosts: [{ name: "old.example.com" }] } }).config.ingress.hosts).toEqual([{ name: "old.example.com", resources: false }]);
  });

  test("differ, and one of them is for resources", () => {
    expect(keysOf({ ingress: { hosts: [{ name: "jenkins.example.com" }, { name: "a.example.com" }, { name: "a.example.com" }] } })).toEqual(["ingress.hosts[0].name", "ingress.hosts[2].name"]);
    expect(keysOf({ ingress: { hosts: [{ name: "a.example.com", tlsSecret: "a" }] } })).toEqual(["ingress.hosts[0].tlsSecret"]);
    expect(keysOf({ ingress: { hosts: [{ name: "a.example.com", resources: true }, { name: "b.example.com", resources: true }] } })).toEqual(["ingress.hosts[1].resources"]);
    expect(keysOf({ ingress: { controller: "none", externalUrl: "https://a.example.com", hosts: [{ name: "a.example.com", resources: true }] } })).toEqual(["ingress.hosts[0].resources"]);
  });
});

describe("a node port for agents outside", () => {
  test("is one of its own, inside the range", () => {
    expect(parse({ controller: { agentNodePort: 31500 } })).toMatchObject({ problems: [], config: { nodePorts: { ports: [80, 443, 31500] } } });
    expect(keysOf({ controller: { agentNodePort: 443 } })).toEqual(["controller.agentNodePort"]);
    expect(problemsOf({ controller: { agentNodePort: 50000 } })).toEqual([expect.objectContaining({ key: "nodePortRange", expected: expect.stringContaining("and 50000 of controller.agentNodePort") })]);
    expect(keysOf({ ingress: { controller: "none" }, controller: { agentNodePort: 443 } })).toEqual([]);
    expect(problemsOf({ ingress: { controller: "none" }, controller: { agentNodePort: 50000 } })[0].expected).not.toContain("where the ingress listens");
    const own = { registry: {}, imageBuild: {}, nodePortRange: "80-62000" };
    expect(keysOf({ ...own, controller: { agentNodePort: 61500 } })).toEqual(["controller.agentNodePort"]);
    expect(keysOf({ ...own, registry: { port: 61600 }, controller: { agentNodePort: 61500 } })).toEqual([]);
  });
});

describe("IPv6", () => {
  test("addresses are taken wherever a host is", () => {
    const { config, problems } = parse({
      registry: { host: "[fd00::1]:5000", insecure: true },
      controller: { image: "[fd00::1]:5000/team/jenkins:1" },
      images: { dockerDind: `[fd00::1]:5000/docker:28@sha256:${"a".repeat(64)}` },
      controlPlane: { privateKeyFile: "~/.ssh/id_ed25519", proxy: { host: "2001:db8::1", hostKey }, nodes: [{ ...node, host: "fd00::10" }] },
      login: { ldap: { server: "ldaps://[fd00::2]:636 ldap.example.com", rootDN: "dc=example,dc=com" } },
      rights: { admin: { users: ["ann"] } },
    });
    expect(problems).toEqual([]);
    expect(config.registry.host).toBe("[fd00::1]:5000");
  });
});

describe("the schema in Pulumi.yaml", () => {
  test("describes every key and gives it a default of its type", () => {
    for (const [key, { type, description, default: value }] of Object.entries(schema())) {
      expect([key, description.length > 20]).toEqual([key, true]);
      const actual = Array.isArray(value) ? "array" : typeof value === "number" ? "integer" : typeof value;
      expect([key, actual]).toEqual([key, type]);
    }
  });

  test("declares exactly the keys that config/ reads", () => {
    const { problems } = parseConfig({ ...minimal, noSuchKey: "x" }, environment);
    expect(problems.map((p) => p.key)).toEqual(["noSuchKey"]);
    expect(problems[0].expected).toBe(`one of ${Object.keys(schema()).sort().join(", ")}`);
  });
});

describe("a minimal config", () => {
  test("has no mistakes and gets the documented defaults", () => {
    const { config, problems } = parse();
    expect(problems).toEqual([]);
    expect(config).toMatchObject<Partial<PlatformConfig>>({
      namespaces: { jenkins: "jenkins", agents: "jenkins-agents", builds: "image-builds" },
      storage: { className: "openebs-hostpath", install: "provisioner", basePath: "/var/openebs/local", size: "20Gi", protectHome: true },
      agentCap: 10,
      agentCache: { path: "/var/cache/build-platform", maxGi: 20, dockerGi: 50, gradleBuildSize: "20Gi" },
      networkPolicies: true,
      admin: { user: "admin", passwordVersion: 1 },
      imageBuild: { builder: "buildx", platforms: [], deleteOnDestroy: false },
    });
    expect(config.nodePorts).toMatchObject({ range: "80-32767", reserveLocalPorts: true });
    expect(config.ingress).toMatchObject({ install: true, className: "nginx" });
    expect(config.ingress).not.toHaveProperty("tls");
    expect(config).not.toHaveProperty("backup");
    expect(config).not.toHaveProperty("prometheusNamespace");
    expect(config.cluster).toEqual({ context: "admin@cluster" });
  });

  test("builds the controller and the Maven and Gradle agents from the pinned images", () => {
    const { config } = parse();
    expect(config.agents.map((a) => [a.name, a.label, a.image, a.docker, a.caches])).toEqual([
      ["maven", "maven", "maven-dind", "dind", ["maven"]],
      ["gradle", "gradle", "gradle-dind", "dind", ["gradle"]],
    ]);
    expect(Object.keys(config.builds).sort()).toEqual(["controller", "gradle-dind", "maven-dind"]);
    expect(config.builds.controller.args).toEqual({ JENKINS_IMAGE: config.images.jenkins });
    expect(config.builds["maven-dind"].args).toEqual({ BASE_IMAGE: config.images.inboundAgent, MAVEN_IMAGE: config.images.maven, DOCKER_IMAGE: config.images.dockerCli });
  });

  test("reads key files once, from the home directory where they say so, and keeps the private key secret", async () => {
    const seen: string[] = [];
    const { config } = parse({}, { ...environment, readFile: (file) => (seen.push(file), privateKey) });
    expect(seen).toEqual(["/home/someone/.ssh/id_ed25519"]);
    const { access } = config.nodePorts!;
    if (access.kind !== "ssh" || !access.privateKey) throw new Error("no SSH access with a key");
    expect(await pulumi.isSecret(access.privateKey)).toBe(true);
    expect(await valueOf(access.privateKey)).toBe(privateKey);
  });
});

describe("text from the engine", () => {
  test("is read as what the schema says", () => {
    const { config, problems } = parse({ agentCap: "25", protectHome: "false", registry: JSON.stringify({ host: "r.example.com", insecure: true }), agents: JSON.stringify([{ name: "go", image: "r.example.com/go:1" }]) });
    expect(problems).toEqual([]);
    expect(config).toMatchObject({ agentCap: 25, storage: { protectHome: false }, registry: { host: "r.example.com", insecure: true } });
    expect(config.agents[0]).toMatchObject({ name: "go", label: "go", cap: 25, idleMinutes: 0, docker: "dind", caches: [] });
    expect(Object.keys(config.builds)).toEqual(["controller"]);
  });
});

describe("a kind of agents without a cap of its own", () => {
  test.each([[undefined, 10], [4, 10], [200, 200]])("with agentCap %s has %s", (agentCap, expected) => {
    const agents = [{ name: "go", image: "r.example.com/go:1" }, { name: "few", image: "r.example.com/go:1", cap: 2 }];
    const { config } = parse({ agents: JSON.stringify(agents), ...(agentCap && { agentCap: String(agentCap) }) });
    expect(config.agents.map(({ cap }) => cap)).toEqual([expected, 2]);
  });
});

describe("mistakes", () => {
  test("are all reported together, each with key, find, expectation and fix", () => {
    const { problems } = parseConfig({ ...defaults(), domain: "not_a_domain", storageSize: "15", nodePortRange: "30000-32767", controlPlane: { nodes: [{ name: "a", host: "b c" }] }, registry: { builtIn: false } }, environment);
    expect(problems.map((p) => p.key).sort()).toEqual(["controlPlane.nodes[0].host", "controlPlane.nodes[0].hostKey", "controlPlane.privateKey", "domain", "kubeContext", "nodePortRange", "registry.host", "storageSize"]);
    const text = explain(problems, "dev");
    expect(text).toMatch(/^Stack dev cannot be brought up as configured; nothing was changed\./);
    for (const problem of problems) {
      expect(text).toContain(problem.key);
      expect(problem.fix).not.toBe("");
      expect(problem.expected).not.toBe("");
    }
    expect(text).toContain("found     not_a_domain");
    expect(text).toContain("pulumi config set domain jenkins.example.com");
    expect(text).toContain("pulumi config set --path 'registry.host' registry.example.com:5000");
  });

  test.each([
    ["domain", ["", "localhost", "https://jenkins.example.com", "jenkins.example.com:8080", "Jenkins.example.com", "-a.example.com", `${"a".repeat(64)}.com`, "a..b"]],
    ["storageSize", ["15", "big", "15 Gi", "-1Gi", "15GB", "1Mi", "500m"]],
    ["storageBasePath", ["var/x", "/", "/var", "/var/../etc"]],
    ["nodePortRange", ["80", "80:32767", "0-32767", "80-70000", "32767-80", "81-32767", "80-442", "30000-32767"]],
    ["adminUser", ["a b", "-x", "a/b"]],
    ["agentCap", ["0", "many", "1.5"]],
    ["networkPolicies", ["yes", "1"]],
    ["prometheusNamespace", ["Not A Name"]],
  ])("in %s", (key, values) => {
    for (const value of values) expect([value, keysOf({ [key]: value })]).toEqual([value, [key]]);
  });

  test.each<[string, Record<string, unknown>, string[]]>([
    ["an unknown image key", { images: { jenkinss: "r.example.com/x:1" } }, ["images.jenkinss"]],
    ["a short image reference", { images: { jenkins: "jenkins" } }, ["images.jenkins"]],
    ["a registry with a scheme", { registry: { host: "http://r.example.com" } }, ["registry.host"]],
    ["a registry on a port that none has", { registry: { host: "r.example.com:99999" } }, ["registry.host"]],
    ["a registry at what is no IPv6 address", { registry: { host: "[fd00::1::2]:5000" } }, ["registry.host"]],
    ["a registry at an IPv6 address without brackets", { registry: { host: "fd00::1:5000" } }, ["registry.host"]],
    ["an address in place of a domain", { domain: "192.0.2.10" }, ["domain"]],
    ["an IPv6 address in place of a domain", { domain: "fd00::1" }, ["domain"]],
    ["a domain with capitals", { domain: "Jenkins.example.com" }, ["domain"]],
    ["a domain with a wildcard", { domain: "*.example.com" }, ["domain"]],
    ["a domain with an underscore", { domain: "my_jenkins.example.com" }, ["domain"]],
    ["a domain with a dot at its end", { domain: "jenkins.example.com." }, ["domain"]],
    ["a domain with a label of more than 63 letters", { domain: `${"a".repeat(64)}.example.com` }, ["domain"]],
    ["a registry user without password", { registry: { host: "r.example.com", username: "u" } }, ["registry.password"]],
    ["an unknown builder", { imageBuild: { builder: "kaniko" } }, ["imageBuild.builder"]],
    ["a bad platform", { imageBuild: { platforms: ["amd64"] } }, ["imageBuild.platforms"]],
    ["no agents", { agents: [] }, ["agents"]],
    ["an agent without image", { agents: [{ name: "a" }] }, ["agents[0].image"]],
    ["an agent of an unknown build", { agents: [{ name: "a", image: "python" }] }, ["agents[0].image"]],
    ["two agents of one name", { agents: [{ name: "a", image: "maven-dind" }, { name: "a", image: "maven-dind" }] }, ["agents[1].name"]],
    ["an agent of the name that all pods start from", { agents: [{ name: "pod-defaults", image: "maven-dind" }] }, ["agents[0].name"]],
    ["a slip in an agent's key", { agents: [{ name: "a", image: "maven-dind", idelMinutes: 3 }] }, ["agents[0].idelMinutes"]],
    ["an unknown docker mode", { agents: [{ name: "a", image: "maven-dind", docker: "podman" }] }, ["agents[0].docker"]],
    ["an unknown cache", { agents: [{ name: "a", image: "maven-dind", caches: ["cargo"] }] }, ["agents[0].caches"]],
    ["a volume of nothing", { agents: [{ name: "a", image: "maven-dind", volumes: [{ mountPath: "/x" }] }] }, ["agents[0].volumes[0].configMap"]],
    ["a volume of two things", { agents: [{ name: "a", image: "maven-dind", volumes: [{ configMap: "a", secret: "b", mountPath: "/x" }] }] }, ["agents[0].volumes[0].secret"]],
    ["a volume at no place", { agents: [{ name: "a", image: "maven-dind", volumes: [{ claim: "a", mountPath: "x" }] }] }, ["agents[0].volumes[0].mountPath"]],
    ["a toleration of a value that nothing is compared with", { agents: [{ name: "a", image: "maven-dind", tolerations: [{ key: "ci", operator: "Exists", value: "yes" }] }] }, ["agents[0].tolerations[0].value"]],
    ["a toleration without key", { agents: [{ name: "a", image: "maven-dind", tolerations: [{ value: "yes" }] }] }, ["agents[0].tolerations[0].key"]],
    ["a toleration of no taint's key", { controller: { tolerations: [{ key: "my key", operator: "Exists" }, { key: "a", value: "b c" }] } }, ["controller.tolerations[0].key", "controller.tolerations[1].value"]],
    ["node labels that no node can have", { agents: [{ name: "a", image: "maven-dind", nodeSelector: { "a b": "x", "example.com/disk": "s s d", ok: "yes" } }], controller: { nodeSelector: { "/x": "y" } } }, ["agents[0].nodeSelector.a b", 'agents[0].nodeSelector["example.com/disk"]', "controller.nodeSelector./x"]],
    ["variables that no process can have", { agents: [{ name: "a", image: "maven-dind", env: { "MY VAR": "x", "": "y", "A=B": "z", GOOD_1: "yes" } }] }, ["agents[0].env.MY VAR", "agents[0].env.", "agents[0].env.A=B"]],
    ["volumes at one place", { agents: [{ name: "a", image: "maven-dind", volumes: [{ claim: "a", mountPath: "/x" }, { secret: "b", mountPath: "/x/" }] }] }, ["agents[0].volumes[1].mountPath"]],
    ["a volume in place of the workspace", { agents: [{ name: "a", image: "maven-dind", volumes: [{ claim: "a", mountPath: "/home/jenkins/agent" }] }] }, ["agents[0].volumes[0].mountPath"]],
    ["a limit below the request", { agents: [{ name: "a", image: "maven-dind", resources: { requests: { memory: "2Gi" }, limits: { memory: "1Gi" } } }] }, ["agents[0].resources.limits.memory"]],
    ["less disk than is asked for", { agents: [{ name: "a", image: "maven-dind", resources: { requests: { ephemeralStorage: "2Gi" }, limits: { ephemeralStorage: "1Gi" } } }] }, ["agents[0].resources.limits.ephemeralStorage"]],
    ["a disk without unit", { controller: { resources: { limits: { memory: "2Gi", ephemeralStorage: "50" } } } }, ["controller.resources.limits.ephemeralStorage"]],
    ["a workspace without unit", { agents: [{ name: "a", image: "maven-dind", workspaceSize: "50", dockerSize: "1Mi" }] }, ["agents[0].workspaceSize", "agents[0].dockerSize"]],
    ["memory without unit", { controller: { resources: { limits: { memory: "2000" } } } }, ["controller.resources.limits.memory"]],
    ["too little memory for a JVM", { controller: { resources: { limits: { memory: "256Mi" } } } }, ["controller.resources.limits.memory"]],
    ["a build outside the project", { agentImages: { go: { context: "../elsewhere" } } }, ["agentImages.go.context"]],
    ["a build argument of an unknown image", { agentImages: { go: { args: { BASE_IMAGE: "upstream:golang" } } } }, ["agentImages.go.args.BASE_IMAGE"]],
    ["both ways to the password", { adminPassword: "long-enough-password", adminExistingSecret: "x" }, ["adminPassword", "adminExistingSecret"]],
    ["a made password's version beside an own one", { adminPassword: "long-enough-password", adminPasswordVersion: 2 }, ["adminPassword", "adminPasswordVersion"]],
    ["a made password's version beside an existing Secret", { adminExistingSecret: "x", adminPasswordVersion: "2" }, ["adminPasswordVersion"]],
    ["a name beside an existing Secret, which has its own", { adminExistingSecret: "x", adminUser: "root" }, ["adminUser"]],
    ["an agent that is no object", { agents: ["maven"] }, ["agents[0]"]],
    ["an object that is none", { ingress: "nginx" }, ["ingress"]],
    ["a ServiceMonitor for no Prometheus", { serviceMonitor: true }, ["prometheusNamespace"]],
    ["labels of no ServiceMonitor", { serviceMonitorLabels: { release: "x" } }, ["serviceMonitorLabels"]],
    ["a label that is none", { serviceMonitor: true, prometheusNamespace: "m", serviceMonitorLabels: { "a b": "x" } }, ["serviceMonitorLabels.a b"]],
    ["two secrets of one name", { secretFiles: [{ secret: "a-b", key: "c" }, { secret: "a", key: "b-c" }] }, ["secretFiles[1].key"]],
    ["a secret of the administrator's name", { secretFiles: [{ secret: "admin", key: "password" }, { secret: "login-client", key: "secret" }] }, ["secretFiles[0].key", "secretFiles[1].key"]],
    ["a dashboard of no Prometheus", { dashboard: true }, ["prometheusNamespace"]],
  ])("%s", (_, further, keys) => {
    expect(keysOf(further)).toEqual(keys);
  });

  test.each<[string, Record<string, unknown>, string | undefined]>([
    ["a name that is taken", { agents: [{ name: "maven", image: "maven-dind" }, { name: "maven", image: "maven-dind" }] }, undefined],
    ["a limit below the request", { agents: [{ name: "a", image: "maven-dind", resources: { requests: { cpu: "9" }, limits: { cpu: "1" } } }] }, "raise it, or lower requests.cpu"],
    ["a key of the cloud that is not the site's", { cloud: { name: "mine" } }, undefined],
    ["an image that nobody knows", { agents: [{ name: "a", image: "python" }] }, undefined],
    ["a patch of an agent that is not there", { patches: [{ target: { kind: "Pod", name: "nobody" }, patch: { spec: {} } }] }, undefined],
    ["one port for both schemes", { ingress: { httpNodePort: 443 }, nodePortRange: "1-32767" }, "choose another for one of the two"],
    ["a value of the wrong shape", { storageSize: "15" }, "pulumi config set storageSize 20Gi"],
    ["nothing where something belongs", { registry: { host: "r.example.com", username: "u" } }, "pulumi config set --secret --path 'registry.password' <value>"],
    ["a secret in plain text", { adminPassword: "long-enough-password" }, "pulumi config set --secret adminPassword <value>"],
  ])("%s gets no fix that would not mend it", (_, further, fix) => {
    expect(problemsOf(further).map((problem) => problem.fix)).toEqual([fix]);
  });

  test("a slip of the pen gets the key that was meant", () => {
    expect(problemsOf({ storagesize: "20Gi" })[0].fix).toBe("rename it to storageSize");
    expect(problemsOf({ somethingElse: "x" })[0].fix).toBe("remove it from the stack's file");
  });
});

test("what is wrong in a list of objects is said of its own entry, and once", () => {
  const hostPaths = ["/srv/x", { path: "/etc/" }, { path: "/srv/tools", readonly: true }, { readOnly: true }];
  expect(problemsOf({ agentPods: { hostPaths } }).map(({ key, found }) => [key, found])).toEqual([
    ["agentPods.hostPaths[0]", "/srv/x"], ["agentPods.hostPaths[1].path", "/etc/"], ["agentPods.hostPaths[2].readonly", "a key that does not exist"], ["agentPods.hostPaths[3].path", "nothing"],
  ]);
  const proxy = ["jump.example.com", { host: "a b", hostKey }, { host: "c.example.com" }];
  expect(keysOf({ controlPlane: { privateKeyFile: "k", proxy, nodes: [node] } })).toEqual(["controlPlane.proxy[0]", "controlPlane.proxy[1].host", "controlPlane.proxy[2].hostKey"]);
});

test("numbers and words that `pulumi config set --path` makes of texts are texts", () => {
  const { config, problems } = parse({ agents: [{ name: "a", image: "maven-dind", env: { CI: true, JOBS: 4 }, nodeSelector: { ssd: true } }] });
  expect(problems).toEqual([]);
  expect(config.agents[0]).toMatchObject({ env: { CI: "true", JOBS: "4" }, nodeSelector: { ssd: "true" } });
  expect(problemsOf({ agents: [{ name: "a", image: "maven-dind", env: { A: "b", C: ["d"] } }] })).toMatchObject([{ key: "agents[0].env.C", found: '["d"]', expected: "a text" }]);
});

describe("every key, also inside objects and lists", () => {
  /** A path with names and numbers as `pulumi config set --path` takes it, and the key there. */
  const leaves = (key: Key, at: string): [string, Key][] => {
    if (key.keys) return Object.entries(key.keys).flatMap(([name, inner]) => leaves(inner, at === "" ? name : `${at}.${name}`));
    if (key.kind === "list") return leaves(key.item!, `${at}[0]`);
    return key.kind === "named" && key.item!.kind === "object" ? leaves(key.item!, `${at}.go`) : [[at, key]];
  };
  /** A stack's keys with a value at a path alone. */
  const at = (path: string, value: unknown): Record<string, unknown> =>
    path.split(/\.|(?=\[)/).reduceRight<unknown>((inner, part) => (part.startsWith("[") ? [inner] : { [part]: inner }), value) as Record<string, unknown>;
  const all = leaves(root, "");

  test("has an example that is taken where it is set alone at its path, also as the text that was typed", () => {
    expect(all.length).toBeGreaterThan(150);
    for (const [path, { about }] of all) {
      expect([path, about.meaning.length > 10, about.example]).toEqual([path, true, expect.anything()]);
      for (const value of [about.example, typeof about.example === "object" ? JSON.stringify(about.example) : String(about.example)])
        expect([path, readSettings(at(path, value)).problems]).toEqual([path, []]);
    }
  });

  test("has a default that is taken", () => {
    for (const [path, { about }] of all) if (about.default !== undefined) expect([path, readSettings(at(path, about.default)).problems]).toEqual([path, []]);
  });

  test("refuses what is none of its kind, and names the key", () => {
    for (const [path, { kind }] of all) {
      const wrong = kind === "text" ? [["a list"]] : kind === "boolean" ? ["perhaps"] : kind === "integer" ? ["1.5", -1_000_000_000] : kind === "choice" ? ["no such word"] : ["no object"];
      for (const value of wrong) expect([path, readSettings(at(path, value)).problems.map(({ key }) => key)]).toEqual([path, [expect.stringMatching(new RegExp(`^${path.replace(/[.[\]]/g, "\\$&").replace(/\\\[0\\\]$/, "(\\[0\\])?")}$`))]]);
    }
  });

  test("nothing secret is shown, whatever is wrong with it", () => {
    for (const [path, { about }] of all.filter(([, key]) => key.about.secret))
      for (const value of [["s3cr3t"], { s3cr3t: ["s3cr3t"] }, "s3cr3t"]) {
        const text = explain(problemsOf(at(path, value)), "dev");
        expect([path, about.secret, text.includes('"s3cr3t"') || text.includes("found     s3cr3t")]).toEqual([path, true, false]);
      }
    expect(explain(problemsOf({ registry: "s3cr3t", backup: ["s3cr3t"] }), "dev")).not.toContain("s3cr3t");
  });
});

describe("cron lines are those that a CronJob takes", () => {
  test.each(["0 2 * * *", "*/15 0-5,22 1,15 jan-MAR mon-fri", "0 0 31 2 *", "? * * * 0", "@hourly", "@midnight", "1-59/2 * * * *"])("%s", (line) => expect(fits(cron, line)).toBe(true));
  test.each(["60 * * * *", "0 24 * * *", "0 0 0 * *", "0 0 * 13 *", "0 0 * * 7", "0 0 * * 5-7", "*/0 * * * *", "5-3 * * * *", "0 0 L * *", "0 0 15W * *", "0 0 * * 1#2", "0 0 * * * *", "@every 1h", "@often", "at night", "0 0 * * +1", "TZ=UTC 0 2 * * *", ""])("not %j", (line) =>
    expect(fits(cron, line)).toBe(false));
});

describe("further plugins of the controller", () => {
  const plugins = (given: unknown, env = environment) => parse({ controller: { plugins: given } }, env);

  test("are baked in with their versions", () => {
    expect(plugins(["job-dsl:1.93", "git:5.10.1"])).toMatchObject({ problems: [], config: { builds: { controller: { args: { FURTHER_PLUGINS: "job-dsl:1.93 git:5.10.1" } } } } });
    expect(plugins([]).config.builds.controller.args).not.toHaveProperty("FURTHER_PLUGINS");
  });

  test("may stand in a file", () => {
    const env = { ...environment, readFile: (file: string) => (file === "/home/someone/plugins.txt" ? "# ours\njob-dsl:1.93\n\ngit:5.10.1 # newer\n" : privateKey) };
    expect(plugins("~/plugins.txt", env)).toMatchObject({ problems: [], config: { builds: { controller: { args: { FURTHER_PLUGINS: "job-dsl:1.93 git:5.10.1" } } } } });
    expect(plugins("~/plugins.txt", { ...env, readFile: (file) => (file === "/home/someone/plugins.txt" ? "job-dsl\ngit:5.10.1\nslack latest\n" : privateKey) }).problems).toEqual(
      ["job-dsl", "slack latest"].map((found) => ({ key: "controller.plugins[0]", found, expected: "a plugin with its version such as git:5.10.1", fix: "edit ~/plugins.txt" })),
    );
  });

  test("without a version, or twice, are refused", () => {
    const missing = { ...environment, readFile: (file: string) => { if (file === "job-dsl") throw new Error("ENOENT"); return privateKey; } };
    expect(plugins(["job-dsl"], missing).problems).toMatchObject([{ key: "controller.plugins[0]", found: "job-dsl", expected: "a plugin with its version such as slack:1.0, or a file that can be read", fix: "as a plugin: add its version; as a file: ENOENT; correct the path or its permissions" }]);
    expect(plugins(["lists/job-dsl"], { ...missing, readFile: (file) => (file.includes("job-dsl") ? missing.readFile("job-dsl") : privateKey) }).problems).toMatchObject([{ expected: "a file that can be read" }]);
    expect(plugins(["git:1", "git:2"]).problems.map(({ key }) => key)).toEqual(["controller.plugins"]);
    expect(plugins({ git: "1" }).problems.map(({ key }) => key)).toEqual(["controller.plugins"]);
  });

  test("of an image that is not built are refused", () => {
    expect(parse({ controller: { image: "r.example.com/jenkins:1", plugins: ["git:5.10.1"] } }).problems.map(({ key }) => key)).toEqual(["controller.plugins"]);
  });
});

test("builds without a label run on agents of the first template, or of those that the config names", () => {
  const unlabelled = (agents: Record<string, unknown>[]) => parse({ agents: agents.map((agent, i) => ({ name: `a${i}`, image: "maven-dind", ...agent })) }).config.agents.map((agent) => agent.unlabelled);
  expect(unlabelled([{}, {}])).toEqual([true, false]);
  expect(unlabelled([{ unlabelled: false }, { unlabelled: true }])).toEqual([false, true]);
});

describe("further environment of the controller", () => {
  test("has none of the platform's own variables", () => {
    const problems = problemsOf({ controller: { env: { JAVA_OPTS: "-Xmx1g", CASC_RELOAD_TOKEN: "x", MAIL_HOST: "smtp.example.com" } } });
    expect(problems).toEqual([
      expect.objectContaining({ key: "controller.env.JAVA_OPTS", fix: "move what is in it to controller.javaOpts" }),
      expect.objectContaining({ key: "controller.env.CASC_RELOAD_TOKEN" }),
    ]);
  });

  test("leaves each variable of the pod as the platform sets it", () => {
    expect(ownVariables).toEqual(expect.arrayContaining(["CASC_JENKINS_CONFIG", "SECRETS", "JAVA_OPTS", "JENKINS_OPTS", "CASC_RELOAD_TOKEN"]));
    expect(keysOf({ controller: { env: Object.fromEntries(ownVariables.map((name) => [name, "x"])) } })).toEqual(ownVariables.map((name) => `controller.env.${name}`));
  });
});

describe("control-plane access", () => {
  const nodes = [node];
  test.each<[string, Record<string, unknown>, string[]]>([
    ["no nodes", { privateKeyFile: "k", nodes: [] }, ["controlPlane.nodes"]],
    ["no way to log in", { nodes }, ["controlPlane.privateKey"]],
    ["a node twice", { privateKeyFile: "k", nodes: [node, node] }, ["controlPlane.nodes[1].name"]],
    ["a bad node name", { privateKeyFile: "k", nodes: [{ ...node, name: "Node 1" }] }, ["controlPlane.nodes[0].name"]],
    ["a bad host", { privateKeyFile: "k", nodes: [{ ...node, host: "ssh://x" }] }, ["controlPlane.nodes[0].host"]],
    ["no host key", { privateKeyFile: "k", nodes: [{ name: "a", host: "b" }] }, ["controlPlane.nodes[0].hostKey"]],
    ["a host key that is none", { privateKeyFile: "k", nodes: [{ ...node, hostKey: "SHA256:abc" }] }, ["controlPlane.nodes[0].hostKey"]],
    ["an RSA host key, which Pulumi's SSH client cannot check", { privateKeyFile: "k", nodes: [{ ...node, hostKey: `ssh-rsa ${"AAAA".padEnd(372, "b")}` }] }, ["controlPlane.nodes[0].hostKey"]],
    ["two host keys", { privateKeyFile: "k", nodes: [{ ...node, hostKeyFile: "x.pub" }] }, ["controlPlane.nodes[0].hostKeyFile"]],
    ["a public key for a private one", { privateKeyFile: "k.pub", nodes }, ["controlPlane.privateKeyFile"]],
    ["an unknown access", { access: "telnet", privateKeyFile: "k", nodes }, ["controlPlane.access"]],
    ["SSH settings beside local", { access: "local", user: "root", nodes: [{ name: "a" }] }, ["controlPlane.user"]],
    ["several nodes with local", { access: "local", nodes: [{ name: "a" }, { name: "b" }] }, ["controlPlane.nodes"]],
    ["a proxy without host key", { privateKeyFile: "k", nodes, proxy: { host: "jump.example.com" } }, ["controlPlane.proxy.hostKey"]],
  ])("refuses %s", (_, controlPlane, keys) => {
    expect(keysOf({ controlPlane })).toEqual(keys);
  });

  test("says which file cannot be read and why", () => {
    const env = { ...environment, readFile: (file: string) => { throw new Error(`ENOENT: no such file or directory, open '${file}'`); } };
    const [problem] = problemsOf({}, env);
    expect(problem).toMatchObject({ key: "controlPlane.privateKeyFile", found: "~/.ssh/id_ed25519" });
    expect(problem.fix).toContain("/home/someone/.ssh/id_ed25519");
  });

  test("takes a host key from a file without its comment", () => {
    const { config, problems } = parse({ controlPlane: { agentSocket: "/run/agent.sock", nodes: [{ name: "a", host: "2001:db8::1", hostKeyFile: "a.pub" }] } });
    expect(problems).toEqual([]);
    expect(config.nodePorts?.access).toEqual({ kind: "ssh", user: "root", port: 22, agentSocketPath: "/run/agent.sock", nodes: [{ name: "a", host: "2001:db8::1", hostKey }] });
  });

  test("local needs a name only", () => {
    expect(parse({ controlPlane: { access: "local", nodes: [{ name: "a" }] } })).toMatchObject({ problems: [], config: { nodePorts: { access: { kind: "local", nodes: [{ name: "a" }] } } } });
  });

  const certificate = "ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1l";

  test("jump hosts may be a chain, the first one first, each with its own key and host key; one may be a list", () => {
    const hops = [{ host: "outer.example.com", hostKey, privateKeyFile: "k1" }, { host: "inner.example.com", user: "hop", hostKey, certificate }];
    const { config, problems } = parse({ controlPlane: { privateKeyFile: "k", user: "deploy", nodes, proxy: hops } });
    expect(problems).toEqual([]);
    expect(config.nodePorts?.access).toMatchObject({ proxy: { host: "inner.example.com", user: "hop", certificate, proxy: { host: "outer.example.com", user: "deploy", port: 22, hostKey } } });
    expect(config.nodePorts?.access).toHaveProperty("proxy.proxy.privateKey");
    const one = parse({ controlPlane: { privateKeyFile: "k", nodes, proxy: JSON.stringify([hops[1]]) } });
    expect(one.config.nodePorts?.access).toHaveProperty("proxy", { host: "inner.example.com", port: 22, user: "hop", hostKey, certificate });
    expect(parse({ controlPlane: { privateKeyFile: "k", nodes, proxy: [] } }).config.nodePorts?.access).not.toHaveProperty("proxy");
  });

  test.each<[string, unknown, string[]]>([
    ["one that is no object", "jump.example.com", ["controlPlane.proxy"]],
    ["a key that nobody knows", { host: "a.example.com", hostKey, hots: "x" }, ["controlPlane.proxy.hots"]],
    ["a key that nobody knows in a list", [{ host: "a.example.com", hostKey, hots: "x" }], ["controlPlane.proxy[0].hots"]],
    ["one without a host", { hostKey }, ["controlPlane.proxy.host"]],
    ["one of a list without a host key", [{ host: "a.example.com", hostKey }, { host: "b.example.com" }], ["controlPlane.proxy[1].hostKey"]],
    ["a bad port", { host: "a.example.com", hostKey, port: 70000 }, ["controlPlane.proxy.port"]],
    ["a user that is an option", { host: "a.example.com", hostKey, user: "-oProxyCommand=reboot" }, ["controlPlane.proxy.user"]],
  ])("a jump host: refuses %s, where it stands", (_, proxy, keys) => {
    expect(keysOf({ controlPlane: { privateKeyFile: "k", nodes, proxy } })).toEqual(keys);
  });

  test.each(["root", "Admin", "first.last", "CORP\\jdoe", "jdoe@corp.example.com", "build-01$", "_svc", "7zip"])("takes the user %s", (user) => {
    expect(keysOf({ controlPlane: { privateKeyFile: "k", nodes, user } })).toEqual([]);
  });

  test.each(["-oProxyCommand=x", "-l", "a b", "a;b", "a'b", "$(x)", "a%h", "a\\", "a\nb", ".."])("refuses the user %j", (user) => {
    expect(keysOf({ controlPlane: { privateKeyFile: "k", nodes, user } })).toEqual(["controlPlane.user"]);
  });

  test("certificates of hosts and of keys are taken, and named where they are none", () => {
    const authority = `@cert-authority ${hostKey}`;
    const { config, problems } = parse({ controlPlane: { privateKeyFile: "k", certificate: `${certificate} me@here`, nodes: [{ ...node, hostKey: `${authority} the CA` }] } });
    expect(problems).toEqual([]);
    expect(config.nodePorts?.access).toMatchObject({ certificate, nodes: [{ hostKey: authority }] });
    expect(keysOf({ controlPlane: { privateKeyFile: "k", certificate: hostKey, nodes } })).toEqual(["controlPlane.certificate"]);
    expect(keysOf({ controlPlane: { privateKeyFile: "k", certificate, certificateFile: "c", nodes } })).toEqual(["controlPlane.certificateFile"]);
    expect(keysOf({ controlPlane: { privateKeyFile: "k", nodes: [{ ...node, hostKey: "@revoked ssh-ed25519 AAAA" }] } })).toEqual(["controlPlane.nodes[0].hostKey"]);
  });

  test("a jump host has its own user, port and key", () => {
    const { config, problems } = parse({ controlPlane: { privateKeyFile: "k", nodes, proxy: { host: "jump.example.com", port: 2222, user: "jump", hostKey } } });
    expect(problems).toEqual([]);
    expect(config.nodePorts?.access).toMatchObject({ proxy: { host: "jump.example.com", port: 2222, user: "jump", hostKey } });
    expect((config.nodePorts!.access as { proxy: object }).proxy).not.toHaveProperty("privateKey");
  });
});

describe("the ingress controller", () => {
  const controllerOf = (ingress: object) => { const { controller, install } = parse({ ingress }).config.ingress; return [controller, install]; };

  test("is ingress-nginx where nothing is said, and none in both ways of saying so", () => {
    expect(controllerOf({})).toEqual(["nginx", true]);
    expect(controllerOf({ controller: "traefik" })).toEqual(["traefik", true]);
    expect(controllerOf({ install: false })).toEqual(["none", false]);
    expect(controllerOf({ controller: "none" })).toEqual(["none", false]);
    expect(controllerOf({ controller: "none", install: false })).toEqual(["none", false]);
  });

  test("is one of those that there are, and said once", () => {
    expect(keysOf({ ingress: { controller: "haproxy" } })).toEqual(["ingress.controller"]);
    expect(keysOf({ ingress: { controller: "traefik", install: false } })).toEqual(["ingress.install"]);
    expect(keysOf({ ingress: { controller: "none", install: false } })).toEqual([]);
  });

  test("has no annotation of the platform's own from config: policies go by it", () => {
    const annotations = { "build-platform/external-url": "https://jenkins.example.com" };
    expect(keysOf({ ingress: { annotations } })).toEqual(["ingress.annotations.build-platform/external-url"]);
    expect(keysOf({ patches: [{ target: { kind: "Ingress", name: "jenkins" }, patch: { metadata: { annotations } } }] })).toEqual(["patches[0].patch.metadata.annotations.build-platform/external-url"]);
    expect(keysOf({ ingress: { annotations: { "example.com/a": "b" } } })).toEqual([]);
  });

  test.each(["nginx", "traefik"])("%s takes a list of addresses alone, and trusts none with a zone", (controller) => {
    const list = (value: string) => keysOf({ ingress: { controller, annotations: { "nginx.ingress.kubernetes.io/whitelist-source-range": value } } });
    expect(list("192.0.2.0/24, 2001:db8::1")).toEqual([]);
    expect(list("192.0.2.0/24,10.0.0.0/33")).toEqual(['ingress.annotations["nginx.ingress.kubernetes.io/whitelist-source-range"]']);
    const patched = { target: { kind: "Ingress", name: "jenkins" }, patch: { metadata: { annotations: { "nginx.ingress.kubernetes.io/denylist-source-range": "nobody" } } } };
    const allowed = { target: { kind: "ConfigMap", name: "ingress-nginx-controller" }, patch: { data: { "allow-snippet-annotations": "true", "annotations-risk-level": "Critical" } } };
    expect(keysOf({ ingress: { controller }, patches: [patched, allowed] })).toEqual(['patches[0].patch.metadata.annotations["nginx.ingress.kubernetes.io/denylist-source-range"]']);
    expect(keysOf({ ingress: { controller, externalTrafficPolicy: "Local", trustedProxies: ["fe80::1%eth0"] } })).toEqual(["ingress.trustedProxies"]);
  });

  test("names of Secrets and issuers may have dots", () => {
    expect(keysOf({ ingress: { tlsSecret: "wildcard.example.com" } })).toEqual([]);
    expect(keysOf({ ingress: { clusterIssuer: "letsencrypt.prod" } })).toEqual([]);
  });

  test("ports outside the usual range are to come into it", () => {
    expect(problemsOf({ controller: { agentNodePort: 50000 } })).toEqual([expect.objectContaining({ key: "nodePortRange", fix: expect.stringMatching(/^choose ports within it/) })]);
  });

  describe("takes no snippet", () => {
    const snippet = "nginx.ingress.kubernetes.io/configuration-snippet";
    const annotations = { [snippet]: "more_set_headers 'X: y';", "nginx.ingress.kubernetes.io/limit-rps": "5" };
    const patch = (kind: string, patch: object) => ({ target: { kind }, patch });

    test.each(["nginx", "traefik"])("%s, neither as an annotation nor by a patch", (controller) => {
      expect(keysOf({ ingress: { controller, annotations } })).toEqual([`ingress.annotations["${snippet}"]`]);
      expect(keysOf({ ingress: { controller }, patches: [patch("Ingress", { metadata: { annotations } })] })).toEqual([`patches[0].patch.metadata.annotations["${snippet}"]`]);
      expect(keysOf({ ingress: { controller }, patches: [patch("Ingress", { metadata: { annotations: { [snippet]: null } } })] })).toEqual([]);
      for (const name of ["server", "auth", "stream", "modsecurity"]) expect(keysOf({ ingress: { controller, annotations: { [`nginx.ingress.kubernetes.io/${name}-snippet`]: "x" } } })).toHaveLength(1);
    });

    test("but ingress-nginx that a patch tells to, and a controller of somebody else", () => {
      const allowed = [patch("ConfigMap", { data: { "allow-snippet-annotations": "true", "annotations-risk-level": "Critical" } })];
      expect(keysOf({ ingress: { annotations }, patches: allowed })).toEqual([]);
      expect(keysOf({ ingress: { annotations }, patches: [patch("ConfigMap", { data: { "allow-snippet-annotations": "true" } })] })).toHaveLength(1);
      expect(keysOf({ ingress: { controller: "traefik", annotations }, patches: allowed })).toHaveLength(1);
      expect(keysOf({ ingress: { controller: "none", annotations } })).toEqual([]);
    });
  });
});

describe("a second environment on a cluster", () => {
  const beside = { namespace: "team-b", storageClass: "team-b", storageInstall: "class", storageBasePath: "/var/openebs/team-b", nodePortRange: "none", controlPlane: {}, ingress: { install: false } };

  test("needs no control plane, and has every name from its namespace", () => {
    const { config, problems } = parse(beside);
    expect(problems).toEqual([]);
    expect(config).not.toHaveProperty("nodePorts");
    expect(config).toMatchObject({
      namespaces: { jenkins: "team-b", agents: "team-b-agents", builds: "team-b-image-builds" },
      storage: { className: "team-b", install: "class", basePath: "/var/openebs/team-b" },
      agentCache: { path: "/var/cache/build-platform-team-b" },
    });
  });

  test.each<[string, Record<string, unknown>, string[]]>([
    ["access to nodes that it does not change", { controlPlane: { privateKeyFile: "k", nodes: [node] } }, ["controlPlane"]],
    ["no range at all", { nodePortRange: "nothing" }, ["nodePortRange", "controlPlane.nodes", "controlPlane.privateKey"]],
    ["a folder for a class that is there", { storageInstall: "none" }, ["storageBasePath"]],
    ["an unknown part of the storage", { storageInstall: "all" }, ["storageInstall"]],
    ["a class with a bad name", { storageClass: "Fast Disk" }, ["storageClass"]],
    ["one port for both schemes", { ingress: { httpNodePort: 443 } }, ["ingress.httpsNodePort"]],
    ["a port that is none", { ingress: { httpNodePort: 0 } }, ["ingress.httpNodePort"]],
  ])("refuses %s", (_, further, keys) => {
    expect(keysOf({ ...beside, ...further })).toEqual(keys);
  });

  test.each(["default", "kube-system", "kube-x", "openebs", "Team", "a_b", "a".repeat(51)])("has no namespace %s", (namespace) => {
    expect(keysOf({ ...beside, namespace })).toEqual(["namespace"]);
  });

  test("has no namespace that its own ingress controller has", () => {
    expect(keysOf({ namespace: "edge", ingress: { namespace: "edge" } })).toEqual(["namespace"]);
    expect(keysOf({ namespace: "edge", ingress: { namespace: "edge-agents" } })).toEqual(["namespace"]);
    expect(keysOf({ namespace: "edge", ingress: { namespace: "edge-nginx" } })).toEqual([]);
  });

  test("with an ingress of its own sets a range that holds its ports", () => {
    expect(keysOf({ nodePortRange: "30000-32767", ingress: { httpNodePort: 30080, httpsNodePort: 30443 } })).toEqual([]);
    expect(keysOf({ nodePortRange: "30000-32767" })).toEqual(["nodePortRange"]);
  });

  test("meets no name of one with another namespace", () => {
    const name = fc.stringMatching(/^[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?$/);
    fc.assert(
      fc.property(name, name, (one, other) => {
        // A namespace may not be the agents' of another: preflight says so, since config alone does not know the other.
        fc.pre(one !== other && one !== `${other}-agents` && other !== `${one}-agents` && one !== `${other}-image-builds` && other !== `${one}-image-builds`);
        const [a, b] = [one, other].map((namespace) => parse({ ...beside, namespace }).config);
        const namesOf = ({ namespaces, agentCache }: PlatformConfig) => [...Object.values(namespaces), agentCache?.path];
        expect(namesOf(a).filter((each) => namesOf(b).includes(each))).toEqual([]);
      }),
    );
  });
});

describe("secrets", () => {
  test("in plain text are refused, and never shown", () => {
    const further = { adminPassword: "plain-admin-password", registry: { host: "r.example.com", username: "u", password: "plain-registry-password" }, controlPlane: { privateKey, nodes: [node] } };
    const problems = problemsOf(further);
    expect(problems.map((p) => p.key).sort()).toEqual(["adminPassword", "controlPlane.privateKey", "registry.password"]);
    expect(explain(problems, "dev")).not.toMatch(/plain-|PRIVATE KEY/);
    expect(explain(problems, "dev")).toContain("pulumi config set --secret --path 'registry.password'");
    expect(problemsOf(further, encrypted)).toEqual([]);
  });

  test("deeper in an object are refused in plain text as well", () => {
    const proxy = { host: "jump.example.com", hostKey: node.hostKey, privateKey };
    expect(problemsOf({ controlPlane: { privateKeyFile: "key", proxy, nodes: [node] } }).map((p) => p.key)).toContain("controlPlane.proxy.privateKey");
    expect(problemsOf({ backup: { environment: { AWS_SECRET_ACCESS_KEY: "plain" } } }).map((p) => p.key)).toContain("backup.environment");
  });

  test("of a backup's environment are not shown because of a mistake beside them", () => {
    const problems = problemsOf({ backup: { environment: { AWS_SECRET_ACCESS_KEY: "s3cr3t", B: ["also s3cr3t"] } } }, encrypted);
    expect(problems.map((p) => p.key)).toContain("backup.environment.B");
    expect(explain(problems, "dev")).not.toContain("s3cr3t");
  });

  test.each<[string, unknown]>([
    ["controller", { env: { TOKEN: "s3cr3t" } }],
    ["controller", { javaOpts: "-Dtoken=s3cr3t" }],
    ["controller", { env: { TOKEN: ["s3cr3t"] } }],
    ["agents", [{ name: "a", image: "maven-dind", env: { TOKEN: "s3cr3t" } }]],
    ["agents", JSON.stringify([{ name: "s3cr3t!", image: "maven-dind" }])],
    ["patches", [{ target: { kind: "Deployment" }, patch: { metadata: { annotations: { token: "s3cr3t" } } } }]],
    ["ingress", { annotations: { token: "s3cr3t" } }],
  ])("under %s, which keeps none, are refused and not shown (%j)", (key, value) => {
    const problems = problemsOf({ [key]: value }, { ...environment, isSecret: (each) => each === key });
    expect(problems).toMatchObject([{ key, found: "an encrypted value", fix: expect.stringContaining("secretFiles or controller.envFrom") }]);
    expect(explain(problems, "dev")).not.toContain("s3cr3t");
  });

  test("that are encrypted without a value are no mistake", () => {
    expect(problemsOf({ patches: "", controller: {} }, { ...environment, isSecret: (key) => ["patches", "controller"].includes(key) })).toEqual([]);
  });

  test("that are too short are not shown either", () => {
    const problems = problemsOf({ adminPassword: "short" }, encrypted);
    expect(problems.map((p) => p.key)).toEqual(["adminPassword"]);
    expect(explain(problems, "dev")).not.toContain("short");
  });

  test("stay secret in the config", async () => {
    const { config } = parse({ adminPassword: "long-enough-password" }, encrypted);
    expect(config.admin.password && (await pulumi.isSecret(config.admin.password))).toBe(true);
  });
});

describe("backup", () => {
  const backup = { repository: "s3:https://s3.example.com/jenkins", password: "p", keysRepository: "/backup/keys", keysPassword: "q" };
  test("is complete or refused", () => {
    expect(parse({ backup }, encrypted)).toMatchObject({ problems: [], config: { backup: { repository: backup.repository, schedule: "", keep: { last: 3, daily: 7, weekly: 4, monthly: 6 } } } });
    expect(keysOf({ backup: { repository: "jenkins" } }, encrypted)).toEqual(["backup.repository", "backup.password", "backup.keysRepository", "backup.keysPassword"]);
    expect(keysOf({ backup: { ...backup, schedule: "at night" } }, encrypted)).toEqual(["backup.schedule"]);
    expect(keysOf({ backup: { ...backup, keep: { daily: -1 } } }, encrypted)).toEqual(["backup.keep.daily"]);
  });

  test("with a standby, one key says when, and there is something that the standby follows", () => {
    const standby = (given: object, further: object = {}) => ({ backup: { ...backup, ...further, standby: given } });
    expect(parse(standby({ node: "worker-2", everyMinutes: 5 }), encrypted)).toMatchObject({ problems: [], config: { backup: { schedule: "*/5 * * * *", standby: { node: "worker-2", everyMinutes: 5, size: "20Gi" } } } });
    expect(parse(standby({ node: "worker-2", everyMinutes: "60" }), encrypted).config.backup?.schedule).toBe("0 * * * *");
    expect(parse(standby({ node: "worker-2" }, { schedule: "17 * * * *" }), encrypted)).toMatchObject({ problems: [], config: { backup: { schedule: "17 * * * *" } } });
    expect(keysOf(standby({ node: "worker-2" }), encrypted)).toEqual(["backup.standby.everyMinutes"]);
    expect(keysOf(standby({ node: "worker-2", everyMinutes: 5 }, { schedule: "17 * * * *" }), encrypted)).toEqual(["backup.schedule"]);
    expect(keysOf(standby({ everyMinutes: 5 }), encrypted)).toEqual(["backup.standby.node"]);
    expect(keysOf(standby({ node: "Worker 2", everyMinutes: 0 }), encrypted)).toEqual(["backup.standby.node", "backup.standby.everyMinutes"]);
    expect(parse({ backup }, encrypted).config.backup).not.toHaveProperty("standby");
  });

  test("keeps the master key apart", () => {
    expect(keysOf({ backup: { ...backup, keysRepository: backup.repository } }, encrypted)).toEqual(["backup.keysRepository"]);
  });
});

describe("login and rights", () => {
  const oidc = { wellKnownUrl: "https://sso.example.com/.well-known/openid-configuration", clientId: "jenkins", clientSecret: "c1ient-s3cret" };
  const ldap = { server: "ldaps://ldap.example.com", rootDN: "dc=example,dc=com", managerDN: "cn=jenkins,dc=example,dc=com", managerPassword: "m4nager-s3cret" };
  const rights = { admin: { groups: ["authenticated"] } };

  test("are absent by default, and then no plugin is added", () => {
    const { config } = parse();
    expect(config).not.toHaveProperty("login");
    expect(config).not.toHaveProperty("rights");
    expect(config.builds.controller.args).not.toHaveProperty("OPTIONAL_PLUGINS");
  });

  test("are read with their defaults, the secrets kept secret", async () => {
    const first = parse({ login: { oidc }, rights }, encrypted);
    expect(first.problems).toEqual([]);
    const { login } = first.config;
    if (login?.kind !== "oidc") throw new Error("no OIDC login");
    expect(login.oidc).toMatchObject({ userNameField: "preferred_username", groupsField: "", scopes: "openid profile email", escapeHatch: true });
    expect(await pulumi.isSecret(login.oidc.clientSecret as pulumi.Output<string>)).toBe(true);
    const second = parse({ login: { ldap }, rights }, encrypted);
    expect(second.problems).toEqual([]);
    if (second.config.login?.kind !== "ldap") throw new Error("no LDAP login");
    expect(second.config.login.ldap).toMatchObject({ userSearch: "uid={0}", displayNameAttribute: "displayName" });
    expect(await pulumi.isSecret(second.config.login.ldap.managerPassword as pulumi.Output<string>)).toBe(true);
  });

  test("in plain text are refused, and never shown", () => {
    for (const [login, key] of [[{ oidc }, "login.oidc.clientSecret"], [{ ldap }, "login.ldap.managerPassword"]] as const) {
      const problems = problemsOf({ login, rights });
      expect(problems.map((p) => p.key)).toEqual([key]);
      expect(explain(problems, "dev")).not.toContain("s3cret");
    }
  });

  test("have the plugins that they need baked in, beside those that the build's own argument names", () => {
    const plugins = (further: Record<string, unknown>) => parse(further, encrypted).config.builds.controller.args?.OPTIONAL_PLUGINS;
    expect(plugins({ login: { oidc }, rights })).toBe("matrix-auth oic-auth");
    expect(plugins({ login: { ldap }, rights, prometheusNamespace: "monitoring" })).toBe("ldap matrix-auth prometheus");
    expect(plugins({ rights, agentImages: { controller: { args: { OPTIONAL_PLUGINS: "prometheus" } } } })).toBe("prometheus matrix-auth");
  });

  test("every plugin that they may need is pinned", () => {
    const known = parsePins(fs.readFileSync(path.resolve(__dirname, "../../images/controller/optional-plugins.txt"), "utf8")).map(({ name }) => name);
    for (const login of [{ oidc }, { ldap }]) {
      const names = String(parse({ login, rights, prometheusNamespace: "monitoring" }, encrypted).config.builds.controller.args?.OPTIONAL_PLUGINS).split(" ");
      expect(names.filter((name) => !known.includes(name))).toEqual([]);
    }
  });

  test.each<[string, Record<string, unknown>, string[]]>([
    ["an empty OIDC", { login: { oidc: { clientId: "jenkins" } }, rights }, ["login.oidc.wellKnownUrl", "login.oidc.clientSecret"]],
    ["plain HTTP", { login: { oidc: { ...oidc, wellKnownUrl: "http://sso.example.com/x" } }, rights }, ["login.oidc.wellKnownUrl"]],
    ["scopes without openid", { login: { oidc: { ...oidc, scopes: "profile" } }, rights }, ["login.oidc.scopes"]],
    ["two logins", { login: { oidc, ldap }, rights }, ["login.ldap"]],
    ["a slip in a login's key", { login: { oidc: { ...oidc, clientID: "x" } }, rights }, ["login.oidc.clientID"]],
    ["a manager without password", { login: { ldap: { ...ldap, managerPassword: "" } }, rights }, ["login.ldap.managerPassword"]],
    ["a search for nobody", { login: { ldap: { ...ldap, userSearch: "uid=x" } }, rights }, ["login.ldap.userSearch"]],
    ["two ways to the groups", { login: { ldap: { ...ldap, groupMembershipFilter: "member={0}", groupMembershipAttribute: "memberOf" } }, rights }, ["login.ldap.groupMembershipFilter"]],
    ["a login without rights", { login: { oidc } }, ["rights"]],
    ["LDAP without an administrator", { login: { ldap }, rights: { developer: { groups: ["authenticated"] } } }, ["rights.admin"]],
    ["OIDC with neither administrator nor escape hatch", { login: { oidc: { ...oidc, escapeHatch: false } }, rights: { reader: { users: ["ann"] } } }, ["rights.admin"]],
    ["groups that no claim tells of", { login: { oidc }, rights: { admin: { groups: ["platform"] } } }, ["login.oidc.groupsField"]],
    ["an unknown role", { rights: { admins: { users: ["ann"] } } }, ["rights.admins"]],
    ["names that are no list", { rights: { admin: { users: "ann" } } }, ["rights.admin.users"]],
  ])("refuse %s", (_, further, keys) => {
    expect(keysOf(further, encrypted)).toEqual(keys);
  });
});

describe("builds", () => {
  test("an own image is built where an agent uses it, with upstream images as arguments", () => {
    const { config, problems } = parse({ agentImages: { go: { args: { BASE_IMAGE: "upstream:inboundAgent", GO_VERSION: "1.26" } } }, agents: [{ name: "go", image: "go" }] });
    expect(problems).toEqual([]);
    expect(config.builds).toEqual({
      controller: { context: "images/controller", args: { JENKINS_IMAGE: config.images.jenkins } },
      go: { context: "images/go", args: { BASE_IMAGE: config.images.inboundAgent, GO_VERSION: "1.26" } },
    });
  });

  test("an own image is built even if no agent uses it; the repository's own only if one does", () => {
    const { config } = parse({ agentImages: { go: {}, "gradle-dind": { args: { GRADLE_VERSION: "8.0" } } }, agents: [{ name: "maven", image: "maven-dind" }] });
    expect(Object.keys(config.builds).sort()).toEqual(["controller", "go", "maven-dind"]);
  });

  test("the repository's own take other arguments", () => {
    const { config } = parse({ agentImages: { "gradle-dind": { args: { GRADLE_VERSION: "8.0" } } } });
    expect(config.builds["gradle-dind"]).toMatchObject({ context: "images/gradle-dind", args: { GRADLE_VERSION: "8.0", GRADLE_IMAGE: config.images.gradle } });
  });

  test("a ready controller image is not built", () => {
    const { config } = parse({ controller: { image: "r.example.com/jenkins:1" } });
    expect(config.builds).not.toHaveProperty("controller");
    expect(config.controller.image).toBe("r.example.com/jenkins:1");
  });
});

describe("the site's own configuration as code", () => {
  const env = { ...environment, listFolder: (folder: string) => (folder === "/home/someone/jcasc" ? ["b.yml", "a.yaml", "README.md"] : []), readFile: (file: string) => (file.includes("jcasc") ? `{} # ${file}` : privateKey) };

  test("is read from its folder, YAML files only, in order of name", () => {
    const { config, problems } = parse({ cascFolder: "~/jcasc", secretFiles: [{ secret: "github", key: "token" }] }, env);
    expect(problems).toEqual([]);
    expect(config.cascFragments).toEqual({ "a.yaml": "{} # /home/someone/jcasc/a.yaml", "b.yml": "{} # /home/someone/jcasc/b.yml" });
    expect(Object.keys(config.cascFragments)).toEqual(["a.yaml", "b.yml"]);
    expect(config.secretFiles).toEqual([{ secret: "github", key: "token" }]);
    expect(parse().config.cascFragments).toEqual({});
  });

  test("is refused with every mistake, its file and its key", () => {
    const found = problemsOf({ cascFolder: "~/jcasc" }, { ...env, readFile: (file) => (file.endsWith("a.yaml") ? "jenkins: { numExecutors: 2 }" : file.endsWith("b.yml") ? "jenkins: { clouds: [{ kubernetes: { nam: x } }] }" : privateKey) });
    expect(found.map(({ key, found: what, fix }) => [key, what.slice(0, 60), fix])).toEqual([
      ["cascFolder", "a.yaml: sets what the platform sets itself: jenkins.numExecu", "edit ~/jcasc/a.yaml"],
      ["cascFolder", "b.yml: has a mistake at jenkins.clouds[0].kubernetes.nam: no", "edit ~/jcasc/b.yml"],
    ]);
  });

  test.each<[string, Record<string, unknown>, string[]]>([
    ["http://jenkins.example.com/", {}, []],
    ["http://jenkins.example.com", {}, []],
    ["https://jenkins.example.com:8443", { ingress: { tlsSecret: "tls", httpsNodePort: 8443 }, nodePortRange: "80-32767" }, []],
    ["https://jenkins.example.com/", {}, ["cascFolder"]],
    ["http://elsewhere.example.com/", {}, ["cascFolder"]],
    ["http://elsewhere.example.com/", { domain: "" }, ["domain"]],
  ])("may say the address %s only if it is the platform's own (%j)", (url, further, keys) => {
    const document = `unclassified: { location: { url: "${url}" } }`;
    expect(keysOf({ cascFolder: "~/jcasc", ...further }, { ...env, listFolder: () => ["a.yaml"], readFile: (file) => (file.includes("jcasc") ? document : privateKey) })).toEqual(keys);
  });

  test("is missed where the folder is empty or not there", () => {
    expect(keysOf({ cascFolder: "elsewhere" }, env)).toEqual(["cascFolder"]);
    const holding = (...names: string[]) => keysOf({ cascFolder: "~/jcasc" }, { ...env, listFolder: () => names });
    expect(holding("seed.groovy")).toEqual(["cascFolder"]);
    expect(holding("seed.groovy", "a.YML")).toEqual([]);
    expect(problemsOf({ cascFolder: "gone" }, { ...env, listFolder: () => { throw new Error("ENOENT"); } })[0].fix).toContain("ENOENT");
    expect(keysOf({ secretFiles: [{ secret: "A B" }] }, env)).toEqual(["secretFiles[0].secret", "secretFiles[0].key"]);
    expect(keysOf({ serviceMonitor: true })).toEqual(["prometheusNamespace"]);
  });
});

describe("properties", () => {
  const label = fc.stringMatching(/^[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?$/);

  test("every host name of at least two labels is a domain", () => {
    fc.assert(fc.property(fc.array(label, { minLength: 2, maxLength: 5 }).filter((labels) => net.isIP(labels.join(".")) === 0), (labels) => { expect(keysOf({ domain: labels.join(".") })).toEqual([]); }));
  });

  test("every size with a unit is taken, and none without", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 9999 }), fc.constantFrom("Gi", "Ti", "G", "T"), (n, unit) => {
        expect(keysOf({ storageSize: `${n}${unit}` })).toEqual([]);
        expect(keysOf({ storageSize: `${n}` })).toEqual(["storageSize"]);
      }),
    );
  });

  test("a range is taken exactly if it holds both ports of the ingress, 80 and 443 by default", () => {
    const port = fc.oneof(fc.integer({ min: 0, max: 70000 }), fc.integer({ min: 70, max: 450 }));
    const ports = fc.option(fc.tuple(fc.integer({ min: 1, max: 65535 }), fc.integer({ min: 1, max: 65535 })), { nil: undefined });
    fc.assert(
      fc.property(port, port, ports, (low, high, pair) => {
        const [least, most] = [Math.min(...(pair ?? [80])), Math.max(...(pair ?? [443]))];
        const good = low >= 1 && low <= least && high >= most && high <= 65535;
        expect(rangeProblem(`${low}-${high}`, pair) === undefined).toBe(good);
      }),
    );
  });

  test("no config, however wrong, makes the checks themselves fail", () => {
    const keys = Object.keys(schema());
    const anything = fc.dictionary(fc.oneof(fc.constantFrom(...keys), fc.string()), fc.oneof(fc.string(), fc.jsonValue(), fc.constantFrom("{}", "[]", "[{}]", '{"nodes":[{}]}')));
    fc.assert(
      fc.property(anything, (raw) => {
        const { problems } = parseConfig({ ...defaults(), ...raw }, environment);
        explain(problems, "dev");
        expect(problems.every((p) => p.key !== "" || "" in raw)).toBe(true);
      }),
      { numRuns: 300 },
    );
  });
});
