import * as fc from "fast-check";
import type * as pulumi from "@pulumi/pulumi";
import { parse } from "yaml";
import { agentPod, type AgentSettings, type AgentTemplate } from "../../components/jenkins-master/agents";
import { cascConfig, type CascInput } from "../../components/jenkins-master/casc";
import { agentMirrorFiles } from "../../components/jenkins-master/mirrors";
import { buildkitConfig, mirrored, type Mirrors } from "../../components/mirrors";
import { agentSettings, imagePulls, parseConfig } from "../../config";
import { imageArgs, jenkinsArgs } from "../../config/arguments";
import { presets } from "../../config/mirrors";
import { defaults, environment, hostKey, valueOf } from "./mocks";

const minimal = { ...defaults(), domain: "jenkins.example.com", kubeContext: "admin@cluster", controlPlane: { privateKeyFile: "~/.ssh/id_ed25519", nodes: [{ name: "control-plane-1", host: "192.0.2.10", hostKey }] }, registry: { host: "registry.example.com" } };
const encrypted = { ...environment, isSecret: (key: string) => ["pullSecrets", "registry"].includes(key) };
const read = (further: Record<string, unknown>) => parseConfig({ ...minimal, ...further }, encrypted);
const plain = parseConfig({ ...minimal }, environment).config;
const digest = `sha256:${"a".repeat(64)}`;

describe("a reference by its registry's mirror", () => {
  test.each([
    ["docker.io/library/debian:12", "mirror.test/hub/library/debian:12"],
    ["debian:12", "mirror.test/hub/library/debian:12"],
    ["docker.io/debian", "mirror.test/hub/library/debian"],
    [`restic/restic@${digest}`, `mirror.test/hub/restic/restic@${digest}`],
    ["registry.k8s.io/ingress-nginx/controller:v1", "registry.k8s.io/ingress-nginx/controller:v1"],
    ["localhost/own:1", "localhost/own:1"],
    ["docker.io.example.com/x/y:1", "docker.io.example.com/x/y:1"],
  ])("%s", (reference, expected) => expect(mirrored(reference, { "docker.io": "mirror.test/hub" })).toBe(expected));

  test("tag, digest and path stay as they are, and without mirrors all of it does", () => {
    const part = fc.stringMatching(/^[a-z][a-z0-9]{0,8}$/);
    fc.assert(
      fc.property(fc.constantFrom("docker.io", "quay.io", "r.test:5000"), fc.array(part, { minLength: 2, maxLength: 4 }), fc.constantFrom("", ":1.0", `:1@${digest}`, `@${digest}`), (registry, path, end) => {
        const rest = `${path.join("/")}${end}`;
        expect(mirrored(`${registry}/${rest}`, { [registry]: "m.test/x" })).toBe(`m.test/x/${rest}`);
        expect(mirrored(`${registry}/${rest}`, {})).toBe(`${registry}/${rest}`);
        expect(mirrored(`${registry}/${rest}`, { [registry]: registry })).toBe(`${registry}/${rest}`);
      }),
    );
  });
});

describe("mirrors in config", () => {
  test("every image that images does not name comes from the mirror, with its digest, and so do the builds of it", () => {
    const { config, problems } = read({ mirrors: { registries: { "docker.io": "mirror.test/hub" } }, images: { restic: "docker.io/restic/restic:mine" } });
    expect(problems).toEqual([]);
    expect(config.images.jenkins).toBe(plain.images.jenkins.replace("docker.io/", "mirror.test/hub/"));
    expect(config.images.jenkins).toContain("@sha256:");
    expect(config.images.restic).toBe("docker.io/restic/restic:mine");
    expect(config.images.ingressNginx).toBe(plain.images.ingressNginx);
    expect(config.builds["maven-dind"].args).toEqual({ BASE_IMAGE: config.images.inboundAgent, MAVEN_IMAGE: config.images.maven, DOCKER_IMAGE: config.images.dockerCli });
    expect(agentSettings(config).dindImage).toMatch(/^mirror\.test\/hub\/library\/docker:/);
  });

  test("without it nothing is led anywhere", () => {
    expect(read({}).config.mirrors).toEqual({ registries: {}, insecure: [] });
    expect(imageArgs(plain)).toEqual(expect.not.objectContaining({ pulls: expect.anything() }));
  });

  test("the preset names public mirrors, keys beside it win, and a registry as its own mirror has none", () => {
    const { config, warnings } = read({ mirrors: { preset: "china", npm: "https://npm.test", registries: { "registry.k8s.io": "registry.k8s.io" } } });
    expect(warnings).toEqual([]);
    expect(config.mirrors).toEqual({ ...presets.china, npm: "https://npm.test", registries: { "docker.io": presets.china.registries["docker.io"] }, dockerd: `https://${presets.china.registries["docker.io"]}`, insecure: [] });
    expect(config.images.ingressNginx).toBe(plain.images.ingressNginx);
    // What a preset says is held to what the keys may be.
    for (const [name, preset] of Object.entries(presets)) expect([name, read({ mirrors: preset }).problems]).toEqual([name, []]);
  });

  test("dockerd asks a mirror with a path only at an address of its own, and says so", () => {
    const withPath = { registries: { "docker.io": "mirror.test/hub" } };
    expect(read({ mirrors: withPath }).warnings).toEqual([expect.stringMatching(/^mirrors\.registries\["docker\.io"\]: mirror\.test\/hub has a path.*mirrors\.dockerd/)]);
    expect(read({ mirrors: withPath, agents: [{ name: "a", image: "maven-dind", docker: "rootless" }] }).warnings).toEqual([]);
    expect(read({ mirrors: { ...withPath, dockerd: "https://hub.mirror.test" } })).toMatchObject({ warnings: [], config: { mirrors: { dockerd: "https://hub.mirror.test" } } });
    expect(read({ registry: { host: "r.test:5000", insecure: true }, mirrors: { registries: { "docker.io": "r.test:5000" } } }).config.mirrors).toMatchObject({ dockerd: "http://r.test:5000", insecure: ["r.test:5000"] });
  });

  test("the command that mends one of a registry is a path as pulumi takes it", () => {
    expect(read({ mirrors: { registries: { "docker.io": "https://mirror.test" } } }).problems[0].fix).toMatch(/^pulumi config set --path 'mirrors\.registries\["docker\.io"\]' /);
  });

  test.each([
    [{ preset: "mars" }, "mirrors.preset"],
    [{ registries: { "docker.io": "https://mirror.test" } }, 'mirrors.registries["docker.io"]'],
    [{ registries: { "https://docker.io": "mirror.test" } }, 'mirrors.registries["https://docker.io"]'],
    [{ maven: "mirror.test/maven2" }, "mirrors.maven"],
    [{ npm: "https://me:secret@npm.test" }, "mirrors.npm"],
    [{ maven: "https://m.test/'</url>" }, "mirrors.maven"],
    [{ go: "goproxy.test" }, "mirrors.go"],
    [{ dockerd: "https://mirror.test/hub" }, "mirrors.dockerd"],
  ])("%j is a mistake at %s", (mirrors, key) => expect(read({ mirrors }).problems.map((problem) => problem.key)).toEqual([key]));
});

const template: AgentTemplate = {
  name: "maven", label: "maven", image: "registry.test/maven:1", docker: "dind", caches: ["maven"], resources: {}, dockerResources: {}, cap: 1, idleMinutes: 0, podRetention: "never",
  connectTimeoutSeconds: 60, activeDeadlineSeconds: 0, nodeSelector: {}, tolerations: [], spread: false, unlabelled: false, env: {}, volumes: [],
};
const settings: AgentSettings = { dindImage: "docker:dind", buildkitImage: "buildkit", insecureRegistries: [], cachePath: "/cache" };
const mirrors: Mirrors = {
  registries: { "docker.io": "mirror.test", "quay.io": "mirror.test/quay" }, insecure: ["mirror.test"], dockerd: "http://mirror.test",
  maven: "https://m.test/maven2/", gradlePlugins: "https://m.test/plugins", npm: "https://m.test/npm", pip: "https://m.test/simple", go: "https://m.test/go,direct",
};
interface Spec { containers: { name: string; args?: string[]; env: { name: string; value: string }[]; volumeMounts: { name: string; mountPath: string; subPath?: string }[] }[]; volumes: { name: string }[] }
const specOf = (further: Partial<AgentTemplate> = {}, with_: Mirrors | null = mirrors) => agentPod({ ...template, ...further }, { ...settings, ...(with_ && { mirrors: with_ }) }).spec as Spec;
const mountsOf = (spec: Spec, container = "jnlp") => spec.containers.find(({ name }) => name === container)!.volumeMounts.filter(({ name }) => name === "mirrors").map(({ mountPath, subPath }) => [mountPath, subPath]);
const envOf = (spec: Spec) => Object.fromEntries(spec.containers[0].env.map(({ name, value }) => [name, value]));

describe("agents", () => {
  test("their tools find the mirrors in variables and files, and a template's own variable wins", () => {
    expect(envOf(specOf())).toMatchObject({ NPM_CONFIG_REGISTRY: "https://m.test/npm", PIP_INDEX_URL: "https://m.test/simple", GOPROXY: "https://m.test/go,direct", MVNW_REPOURL: "https://m.test/maven2", MAVEN_ARGS: "--global-settings /usr/share/maven/conf/settings.xml" });
    expect(envOf(specOf({ env: { GOPROXY: "off", MAVEN_ARGS: "" } }))).toMatchObject({ GOPROXY: "off", MAVEN_ARGS: "" });
    const script = "build-platform-mirrors.gradle";
    expect(mountsOf(specOf())).toEqual([["/usr/share/maven/conf/settings.xml", "settings.xml"], [`/opt/gradle/init.d/${script}`, script]]);
    expect(mountsOf(specOf({ caches: ["gradle"] }))[1]).toEqual([`/home/jenkins/.gradle/init.d/${script}`, script]);
    expect(specOf().volumes).toContainEqual({ name: "mirrors", configMap: { name: "agent-mirrors" } });
  });

  test.each(["/usr/share/maven/conf/settings.xml", "/usr/share/maven/conf", "/usr/share/maven/conf/"])("a site's own volume at %s stays in its place", (mountPath) => {
    const spec = specOf({ volumes: [{ kind: "configMap", name: "own", mountPath, readOnly: true }] });
    expect(mountsOf(spec).map(([place]) => place)).toEqual(["/opt/gradle/init.d/build-platform-mirrors.gradle"]);
  });

  test("the Docker daemon asks the mirror of Docker Hub, and BuildKit those of all registries", () => {
    const daemon = (spec: Spec) => spec.containers.find(({ name }) => name === "dind")!.args!;
    expect(daemon(specOf())).toContain("--registry-mirror=http://mirror.test");
    expect(daemon(specOf({}, { registries: { "docker.io": "mirror.test/hub" }, insecure: [] })).join()).not.toContain("mirror");
    expect(mountsOf(specOf({ docker: "rootless" }), "buildkitd")).toEqual([["/home/user/.config/buildkit/buildkitd.toml", "buildkitd.toml"]]);
    expect(buildkitConfig(mirrors)).toBe('[registry."docker.io"]\n  mirrors = ["mirror.test"]\n[registry."quay.io"]\n  mirrors = ["mirror.test/quay"]\n[registry."mirror.test"]\n  http = true\n  insecure = true\n');
  });

  test("without mirrors their pods are what they were", () => {
    for (const docker of ["dind", "rootless", "none"] as const)
      expect(JSON.stringify(specOf({ docker, caches: ["maven", "gradle"] }, { registries: {}, insecure: [] }))).toBe(JSON.stringify(specOf({ docker, caches: ["maven", "gradle"] }, null)));
    expect(agentMirrorFiles(undefined)).toEqual({});
    expect(agentMirrorFiles({ registries: {}, insecure: [], npm: "https://m.test" })).toEqual({});
  });

  test("Maven's settings lead Central alone, and keep Maven's own guard against plain HTTP", () => {
    const { "settings.xml": xml } = agentMirrorFiles(mirrors);
    expect(xml).toContain("<mirrorOf>central</mirrorOf><url>https://m.test/maven2/</url>");
    expect(xml).toMatch(/<mirrorOf>external:http:\*<\/mirrorOf>.*<blocked>true<\/blocked>/);
  });

  test("Gradle's script leads what there is a mirror of", () => {
    const script = (of: Partial<Mirrors>) => agentMirrorFiles({ registries: {}, insecure: [], ...of })["build-platform-mirrors.gradle"];
    expect(script({ maven: "https://m.test" })).not.toContain("plugins.gradle.org");
    expect(script({ gradlePlugins: "https://p.test" })).not.toContain("repo.maven.apache.org");
    expect(script(mirrors)).toContain("'https://plugins.gradle.org/m2': 'https://m.test/plugins'");
  });
});

describe("Jenkins' update site", () => {
  const input: CascInput = { url: "", namespace: "jenkins", agentsNamespace: "jenkins-agents", containerCap: 1, templates: [template], settings };
  test("is the mirror where there is one, and Jenkins' own where not", () => {
    expect(cascConfig({ ...input, updateSite: "https://m.test/updates/" })).toMatchObject({ jenkins: { updateCenter: { sites: [{ id: "default", url: "https://m.test/updates/update-center.json" }] } } });
    expect(cascConfig(input)).not.toHaveProperty("jenkins.updateCenter");
    // A site's own document has the last word.
    expect(cascConfig({ ...input, updateSite: "https://m.test", fragments: { "a.yaml": "jenkins: {updateCenter: {sites: [{id: default, url: https://own.test}]}}" } })).not.toHaveProperty("jenkins.updateCenter");
  });
});

describe("pull secrets in config", () => {
  const login = { registry: "docker.io", username: "robot", password: "pull-me" };
  const contentOf = async (further: Record<string, unknown>) => parse(await valueOf(imagePulls(read(further).config).pulls!.dockerConfigJson as pulumi.Output<string>)) as { auths: Record<string, { auth: string }> };
  const auth = (text: string) => ({ auth: Buffer.from(text).toString("base64") });

  test("join the registry's own login in one Secret; Docker Hub's stands under the name that all readers know", async () => {
    expect(await contentOf({ registry: { host: "r.test", username: "me", password: "pw" }, pullSecrets: [login, { existing: "company" }] })).toEqual({ auths: { "r.test": auth("me:pw"), "https://index.docker.io/v1/": auth("robot:pull-me") } });
    expect(await contentOf({ registry: { host: "r.test", username: "me", password: "pw" } })).toEqual({ auths: { "r.test": auth("me:pw") } });
    expect(imagePulls(read({ pullSecrets: [{ existing: "company" }] }).config)).toEqual({ pulls: { existing: ["company"] } });
    expect(imagePulls(plain)).toEqual({});
  });

  test("reach the builders, the log-ins alone", () => {
    expect(imageArgs(read({ pullSecrets: [login, { existing: "company" }] }).config).registry.others).toEqual([login]);
    expect(imageArgs(plain).registry).not.toHaveProperty("others");
  });

  test("are whole, of one registry each, and encrypted; no password is shown", () => {
    const problems = (pullSecrets: object[], further: object = {}, env = encrypted) => parseConfig({ ...minimal, ...further, pullSecrets }, env).problems;
    expect(problems([login, { existing: "company" }])).toEqual([]);
    expect(problems([{ registry: "docker.io" }]).map(({ key }) => key)).toEqual(["pullSecrets[0].username", "pullSecrets[0].password"]);
    expect(problems([{}]).map(({ key }) => key)).toEqual(["pullSecrets[0].registry", "pullSecrets[0].username", "pullSecrets[0].password"]);
    expect(problems([{ ...login, existing: "company" }]).map(({ key }) => key)).toEqual(["pullSecrets[0].registry", "pullSecrets[0].username", "pullSecrets[0].password"]);
    expect(problems([login, login])).toMatchObject([{ key: "pullSecrets[1].registry", found: "docker.io" }]);
    expect(problems([{ ...login, registry: "r.test" }], { registry: { host: "r.test" } })).toMatchObject([{ key: "pullSecrets[0].registry", expected: expect.stringContaining("registry.username") }]);
    expect(problems([login], {}, environment)).toMatchObject([{ key: "pullSecrets[0].password", fix: "pulumi config set --secret --path 'pullSecrets[0].password' <value>" }]);
    expect(JSON.stringify(problems([{ ...login, existing: "company" }, { ...login, registry: "no registry" }]))).not.toContain("pull-me");
  });

  test("and mirrors reach the component that makes Jenkins", () => {
    const made = { storageClassName: "s", ingressClassName: "i", ingressNamespace: "n", references: {}, apiServerAddresses: [], surroundings: {} };
    const { config } = read({ mirrors: { jenkinsUpdates: "https://m.test/updates", npm: "https://m.test/npm" }, pullSecrets: [{ existing: "company" }] });
    expect(jenkinsArgs(config, made)).toMatchObject({ access: { pulls: { existing: ["company"] } }, configuration: { updateSite: "https://m.test/updates" }, agents: { settings: { mirrors: { npm: "https://m.test/npm" } } } });
    expect(jenkinsArgs(plain, made).access).not.toHaveProperty("pulls");
    expect(jenkinsArgs(plain, made).configuration).not.toHaveProperty("updateSite");
  });
});
