import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import * as fc from "fast-check";
import { Document, parse, parseAllDocuments } from "yaml";
import { agentPod, type AgentTemplate } from "../../components/jenkins-master/agents";
import { cascConfig, renderCasc, type CascInput } from "../../components/jenkins-master/casc";
import { Check, cloudProblems, isObject, type Keys, type Value } from "../../components/jenkins-master/casc-schema";
import { contracts, formatContracts } from "../../components/jenkins-master/contracts";
import fresh from "../../components/jenkins-master/contracts/fresh.json";
import { fragmentProblems } from "../../components/jenkins-master/fragments";
import type { Login, Rights } from "../../components/jenkins-master/login";
import { bakedPlugins, optionalPlugins, recordingFor } from "../../components/jenkins-master/plugins";
import { BrokenDocument, findDocuments, readSettings } from "../../sandbox/images/jenkins/adapter/casc";
import { below, oops, prefixOf, reloadByPage, reloadByToken, type FrontOptions } from "../../sandbox/images/jenkins/adapter/front";
import { controllerLabel, renderPod, type Pod } from "../../sandbox/images/jenkins/adapter/pod";
import { bare, differing, parseSchema, pins, withFormerLists, withPods, type SchemaNode } from "../../tools/contracts";

const fixtures = path.join(__dirname, "../fixtures/contracts");
const casc = path.join(__dirname, "../../components/jenkins-master/contracts/casc.json");
const answers = JSON.parse(fs.readFileSync(path.join(fixtures, "answers.json"), "utf8"));

describe("the recording", () => {
  test("goes with the pins: another version is listed with the reason, and nothing is that need not be", () => {
    const { jenkinsTag, plugins } = pins();
    const others = differing(contracts, jenkinsTag, plugins).map(({ name, pinned, recorded }) => `${name}: pinned ${pinned}, recorded ${recorded}`);
    const listed = Object.entries(contracts.otherThanPinned).filter(([, reason]) => reason !== "").map(([name]) => name);
    const unlisted = others.filter((line) => !listed.includes(line.split(":")[0]));
    // Run `npm run contracts -- STACK` on a platform with these versions.
    expect(unlisted).toEqual([]);
    expect(listed.filter((name) => !others.some((line) => line.startsWith(`${name}:`)))).toEqual([]);
  });

  test("a pin that moves is seen", () => {
    expect(differing({ jenkins: "2.568.2", plugins: { git: "5.10.1" } }, "2.568.2-jdk21", [{ name: "git", version: "5.10.1" }])).toEqual([]);
    expect(differing({ jenkins: "2.568.2", plugins: { git: "5.10.1" } }, "2.568.20-jdk21", [{ name: "git", version: "5.10.2" }, { name: "new", version: "1" }])).toEqual([
      { name: "jenkins", pinned: "2.568.20-jdk21", recorded: "2.568.2" },
      { name: "git", pinned: "5.10.2", recorded: "5.10.1" },
      { name: "new", pinned: "1", recorded: "none" },
    ]);
  });

  test("what a new Jenkins exports of itself is no mistake, but for plugins that are not baked in and what the platform sets", () => {
    const document = new Document({});
    for (const [key, value] of Object.entries(fresh.values)) if (!/^jenkins\.(mode|numExecutors|slaveAgentPort)$/.test(key)) document.setIn(key.split("."), value);
    const input = { url: "http://x/", namespace: "jenkins", agentsNamespace: "agents", containerCap: 1, templates: [], settings: { agentImage: "a", dindImage: "d", buildkitImage: "b", insecureRegistries: [], cachePath: "/c" }, plugins: optionalPlugins };
    const errors = fragmentProblems({ ...input, fragments: { "export.yaml": document.toString() } }).filter(({ severity, problem }) => severity === "error" && !problem.includes("is not baked in"));
    expect(errors.map(({ problem }) => problem)).toEqual([]);
    expect(document.toString().split("\n").length).toBeGreaterThan(80);
  });

  test("names only classes that it holds", () => {
    const known = new Set(["string", "integer", "boolean", "object", ...Object.keys(contracts.symbols), ...Object.keys(contracts.attributes)]);
    const types = [...Object.values(contracts.roots), ...Object.values(contracts.symbols), ...Object.values(contracts.attributes)].flatMap((each) => (typeof each === "string" ? [each] : Object.values(each)));
    expect(types.map((type) => type.replace(/^list of /, "")).filter((type) => !known.has(type) && !type.includes("|"))).toEqual([]);
    expect(types.length).toBeGreaterThan(500);
  });

  test("is written as the command writes it", () => {
    expect(fs.readFileSync(casc, "utf8")).toBe(formatContracts(contracts));
  });
});

const template: AgentTemplate = {
  name: "maven", label: "maven", image: "registry.example.com/maven:1", docker: "none", caches: [], resources: { requests: { cpu: "500m" } }, dockerResources: { requests: { cpu: "250m" } }, cap: 10, idleMinutes: 0, podRetention: "never",
  connectTimeoutSeconds: 600, activeDeadlineSeconds: 0, nodeSelector: {}, tolerations: [], spread: true, unlabelled: false, env: {}, volumes: [],
};
const oidc: Login = { kind: "oidc", oidc: { wellKnownUrl: "https://sso/.well-known", clientId: "j", clientSecret: "s", userNameField: "sub", fullNameField: "name", emailField: "email", groupsField: "groups", scopes: "openid", logoutFromProvider: true, escapeHatch: true } };
const ldap = (more: object): Login => ({
  kind: "ldap",
  ldap: { server: "ldaps://l", rootDN: "dc=x", managerDN: "cn=x", managerPassword: "p", userSearchBase: "ou=p", userSearch: "uid={0}", groupSearchBase: "ou=g", groupSearchFilter: "cn={0}", groupMembershipFilter: "", groupMembershipAttribute: "", displayNameAttribute: "d", mailAttribute: "m", ...more },
});
const rights: Rights = { admin: { groups: ["a"], users: ["b"] }, reader: { groups: ["authenticated"], users: [] } };

const anyTemplate = fc.record({
  docker: fc.constantFrom("dind" as const, "rootless" as const, "none" as const), caches: fc.subarray(["maven" as const, "gradle" as const, "docker" as const]), podRetention: fc.constantFrom("never" as const, "onFailure" as const, "always" as const, "evicted" as const),
  idleMinutes: fc.nat(60), activeDeadlineSeconds: fc.nat(9999), spread: fc.boolean(), unlabelled: fc.boolean(), nodeSelector: fc.constantFrom<Record<string, string>>({}, { pool: "ci" }), tolerations: fc.constantFrom<AgentTemplate["tolerations"]>([], [{ key: "ci", operator: "Exists" }]),
  env: fc.constantFrom<Record<string, string>>({}, { FOO: "${bar} and $$x" }), volumes: fc.constantFrom<AgentTemplate["volumes"]>([], [{ kind: "secret", name: "s", mountPath: "/s", readOnly: true }]),
});
const anyInput = fc.record({
  templates: fc.array(anyTemplate, { minLength: 1, maxLength: 3 }), cachePath: fc.constantFrom(undefined, "/var/cache/x"), login: fc.constantFrom(undefined, oidc, ldap({}), ldap({ groupMembershipAttribute: "memberOf" }), ldap({ groupMembershipFilter: "member={0}" })), rights: fc.constantFrom(undefined, rights),
  cloud: fc.constantFrom<Record<string, unknown> | undefined>(undefined, { readTimeout: 60, podLabels: [{ key: "a", value: "b" }], templates: [{ name: "mine" }] }), pullSecrets: fc.constantFrom<string[] | undefined>(undefined, ["registry"]), updateSite: fc.constantFrom(undefined, "https://m.test/updates"),
}).map(({ templates, cachePath, login, rights: held, cloud, pullSecrets, updateSite }): CascInput => ({
  url: "https://jenkins.example.com/", namespace: "jenkins", agentsNamespace: "jenkins-agents", containerCap: 10, templates: templates.map((each, i) => ({ ...template, ...each, name: `t${i}`, label: `t${i}` })),
  settings: { dindImage: "docker:28-dind", buildkitImage: "buildkit:1", insecureRegistries: ["r:5000"], ...(cachePath && { cachePath }) },
  ...(login && { login }), ...(held && { rights: held }), ...(cloud && { cloud }), ...(pullSecrets && { pullSecrets }), ...(updateSite && { updateSite }),
}));

/** Every map of a document with its place. */
function maps(value: Value, at = ""): [string, Keys][] {
  if (Array.isArray(value)) return value.flatMap((item, i) => maps(item, `${at}[${i}]`));
  if (!isObject(value)) return [];
  return [[at, value], ...Object.entries(value).flatMap(([key, item]) => maps(item, at === "" ? key : `${at}.${key}`))];
}

describe("whatever the config says, Jenkins takes the document that is rendered of it", () => {
  test("every attribute, symbol and kind of value is recorded", () => {
    fc.assert(
      fc.property(anyInput, (input) => {
        const check = new Check(contracts, true);
        const checked = check.document(parse(renderCasc(input)) as Keys);
        expect(check.findings).toEqual([]);
        for (const { kubernetes } of (checked.jenkins as { clouds: { kubernetes: Keys }[] }).clouds) expect(cloudProblems(kubernetes, "cloud")).toEqual([]);
      }),
      { numRuns: 60 },
    );
  });

  test("a key that does not belong is found, wherever it stands", () => {
    fc.assert(
      fc.property(anyInput, fc.nat(), (input, pick) => {
        const document = JSON.parse(JSON.stringify(cascConfig(input))) as Keys;
        const all = maps(document);
        const [at, map] = all[pick % all.length];
        map.notOfJenkins = 1;
        const check = new Check(contracts, true);
        check.document(document);
        // Below a root of which not all is recorded, an unknown name is one, too; it is for the caller to judge it.
        expect(check.findings.some((finding) => finding.at.startsWith(at))).toBe(true);
      }),
      { numRuns: 60 },
    );
  });

  test.each<[string, string, string]>([
    ["jenkins: { crumbIssuer: { standard: { excludeClientIPFromCrumb: true } } }", "jenkins.crumbIssuer.standard.excludeClientIPFromCrumb", "attribute"],
    ["jenkins: { clouds: {} }", "jenkins.clouds", "type"],
    ["jenkins: { mode: SOMETIMES }", "jenkins.mode", "type"],
    ["jenkins: { systemMessage: [a] }", "jenkins.systemMessage", "type"],
    ["jenkins: { securityRealm: { local: {}, ldap: {} } }", "jenkins.securityRealm", "type"],
    ["jenkins: { securityRealm: nobody }", "jenkins.securityRealm.nobody", "symbol"],
    ["jenkins: { numExecutors: two }", "jenkins.numExecutors", "silent"],
    ["jenkins: { disableRememberMe: maybe }", "jenkins.disableRememberMe", "silent"],
    ["jenkinss: {}", "jenkinss", "root"],
  ])("%s is found", (text, at, kind) => {
    const check = new Check();
    check.document(parse(text) as Keys);
    expect(check.findings.map((finding) => [finding.at, finding.kind])).toEqual([[at, kind]]);
  });

  test.each(["jenkins: { crumbIssuer: standard }", "Jenkins: { NumExecutors: '2', disableRememberMe: 'no' }", "x-any: { a: 1 }\njenkins: { systemMessage: }", "jenkins: { authorizationStrategy: Unsecured }", "jenkins: { numExecutors: '${N}' }"])("%s is taken", (text) => {
    const check = new Check();
    check.document(parse(text) as Keys);
    expect(check.findings).toEqual([]);
  });

  test("without a plugin its symbols are gone, and nothing else", () => {
    const without = recordingFor(bakedPlugins([]));
    expect(Object.keys(without.symbols["hudson.security.SecurityRealm"])).toEqual(["legacy", "local", "none"]);
    expect(Object.keys(recordingFor(bakedPlugins(["oic-auth:1"])).symbols["hudson.security.SecurityRealm"])).toContain("oic");
    expect(without.attributes).toEqual(contracts.attributes);
    expect(recordingFor(bakedPlugins(optionalPlugins))).toEqual(contracts);
  });
});

describe("the stand-in answers as the recorded Jenkins", () => {
  const options = (reload: () => Promise<void>): FrontOptions => ({ prefix: "", isReady: () => true, reload, reloadToken: "token", plugins: [], log: () => undefined });
  const good = options(async () => undefined);
  const refused = (text: string) => options(async () => void readSettings([{ name: "a.yaml", text }], () => undefined, () => undefined));

  test("to a reload with the token, a good document and a wrong token", async () => {
    expect(await reloadByToken("POST", "token", good)).toMatchObject(answers.reloadByToken.good);
    expect(await reloadByToken("POST", "other", good)).toMatchObject(answers.reloadByToken.wrongToken);
    expect((await reloadByPage(good)).status).toBe(answers.reloadByPage.good.status);
  });

  test("below a path as Winstone does: nothing beside it", () => {
    expect(prefixOf(["--webroot=/x", "--prefix=/a", "--prefix=/ci/jenkins"])).toBe("/ci/jenkins");
    expect(prefixOf(["--webroot=/x"])).toBe("");
    expect(["/ci/jenkins", "/ci/jenkins/login", "/ci/jenkinsx", "/login", "/"].map((pathname) => below("/ci/jenkins", pathname))).toEqual(["/", "/login", undefined, undefined, undefined]);
    expect(below("", "/login")).toBe("/login");
  });

  test("to a document that is refused, and to one that is no YAML", async () => {
    const first = await reloadByToken("POST", "token", refused("jenkins: { crumbIssuer: { standard: { excludeClientIPFromCrumb: true } } }"));
    expect(first).toMatchObject({ status: answers.reloadByToken.refused.status, type: answers.reloadByToken.refused.type });
    expect(first.body).toContain(answers.reloadByToken.refused.says);
    expect(first.body).toContain("excludeClientIPFromCrumb");
    const second = await reloadByToken("POST", "token", refused("jenkins: ["));
    expect(second).toEqual(oops);
    expect(second).toMatchObject({ status: answers.reloadByToken.unreadable.status, type: answers.reloadByToken.unreadable.type });
    expect(second.body.length).toBeGreaterThan(answers.reloadByToken.unreadable.bytes * 0.9);
  });

  test("with the words of its exception at a start, naming class and attribute", () => {
    const words = () => readSettings([{ name: "a.yaml", text: "jenkins: { crumbIssuer: { standard: { excludeClientIPFromCrumb: true } } }" }], () => undefined, () => undefined);
    for (const word of answers.start.refused.log as string[]) expect(words).toThrow(word);
  });

  test("and takes without a word what that takes", () => {
    const { clouds } = readSettings([{ name: "a.yaml", text: "jenkins: { clouds: [{ kubernetes: { name: a, jenkinsTunnel: host, templates: [{ name: t, instanceCap: ten, hostNetwork: maybe, label: '${UNKNOWN}' }] } }] }" }], () => undefined, () => undefined);
    expect((clouds[0].templates as Keys[])[0]).toMatchObject({ instanceCap: answers.takenSilently["instanceCap: ten"], hostNetwork: answers.takenSilently["hostNetwork: maybe"], label: answers.takenSilently["${UNKNOWN}"] });
  });

  test("it reads a mounted ConfigMap three times over, and so refuses it; plain files it takes, in subfolders too", () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "casc-"));
    const text = "jenkins: { systemMessage: hello }";
    const read = (place: string) => () => readSettings(findDocuments(place).map((name) => ({ name, text: fs.readFileSync(name, "utf8") })), () => undefined, () => undefined);
    try {
      const mounted = path.join(folder, "mounted");
      fs.mkdirSync(path.join(mounted, "..2026_11_25"), { recursive: true });
      fs.writeFileSync(path.join(mounted, "..2026_11_25/jenkins.yaml"), text);
      fs.symlinkSync("..2026_11_25", path.join(mounted, "..data"));
      fs.symlinkSync("..data/jenkins.yaml", path.join(mounted, "jenkins.yaml"));
      expect(findDocuments(mounted)).toHaveLength(3);
      expect(read(mounted)).toThrow(BrokenDocument);
      const plain = path.join(folder, "plain");
      fs.mkdirSync(path.join(plain, "teams"), { recursive: true });
      fs.writeFileSync(path.join(plain, "jenkins.yaml"), text);
      fs.writeFileSync(path.join(plain, "teams/a.yml"), "jenkins: { quietPeriod: 1 }");
      fs.writeFileSync(path.join(plain, "seed.groovy"), "x");
      expect(read(plain)()).toMatchObject({ systemMessage: "hello", quietPeriod: 1 });
    } finally {
      fs.rmSync(folder, { recursive: true });
    }
  });
});

describe("the stand-in's pods", () => {
  const pods = parseAllDocuments(fs.readFileSync(path.join(fixtures, "agent-pods.yaml"), "utf8")).map((document) => document.toJS() as Pod).filter(Boolean);
  const cloud: Keys = { name: "kubernetes", jenkinsUrl: "http://jenkins.jenkins.svc:8080/", jenkinsTunnel: "jenkins-agent.jenkins.svc:50000", podLabels: [{ key: "jenkins", value: "agent" }] };

  test("have what the recorded plugin gives every pod", () => {
    const yaml = JSON.stringify(agentPod({ ...template, name: "plain" }, { dindImage: "", buildkitImage: "", insecureRegistries: [] }));
    const made = bare(renderPod(cloud, { name: "plain", label: "maven", serviceAccount: "jenkins-agent", yaml }, { name: "plain-12345", secret: "s", controller: controllerLabel(cloud) })) as Pod;
    const recorded = pods.find(({ metadata }) => metadata.name.startsWith("plain-"))!;
    expect(made.metadata.labels).toMatchObject(recorded.metadata.labels);
    const names = (list: { name: string }[]) => list.map(({ name }) => name).sort();
    const values = (list: { name: string; value: string }[]) => Object.fromEntries(list.map(({ name, value }) => [name, value]));
    const [container] = made.spec.containers;
    const [real] = recorded.spec.containers;
    // What the platform's own template says has come since.
    const { JENKINS_JAVA_OPTS: _, ...given } = values(container.env);
    expect(given).toEqual(values(real.env));
    expect({ workingDir: container.workingDir, mounts: names(container.volumeMounts) }).toEqual({ workingDir: real.workingDir, mounts: names(real.volumeMounts) });
    expect(made.spec).toMatchObject({ nodeSelector: recorded.spec.nodeSelector, restartPolicy: recorded.spec.restartPolicy, serviceAccountName: recorded.spec.serviceAccountName });
    expect(names(made.spec.volumes)).toEqual(names(recorded.spec.volumes));
  });

  test("a pod with YAML aliases is never asked for", () => {
    const yaml = "spec: { containers: [{ name: jnlp, image: a, resources: &r { limits: { memory: 1Gi } } }, { name: b, image: b, resources: *r }] }";
    expect(() => renderPod(cloud, { name: "x", yaml }, { name: "x", secret: "s", controller: "c" })).toThrow("alias *r");
    expect(renderPod(cloud, { name: "x", yaml: yaml.replace("&r ", "").replace("*r", "{}") }, { name: "x", secret: "s", controller: "c" }).spec.containers).toHaveLength(2);
  });
});

describe("npm run contracts", () => {
  const point = (properties: Record<string, SchemaNode>): SchemaNode => ({ type: "object", properties, minProperties: 1, maxProperties: 1 });
  const schema: SchemaNode = {
    properties: { jenkins: { type: "object", properties: { anything: { type: "string" } } }, unclassified: { type: "object", properties: { location: { type: "object", $ref: "#/definitions/a.Location" } } } },
    definitions: {
      "jenkins.model.Jenkins": { type: "object", properties: {
        mode: { type: "string", enum: ["NORMAL", "EXCLUSIVE"] }, numExecutors: { type: "integer" }, names: { type: "array", items: { type: "string" } },
        clouds: { type: "array", items: point({ kube: { $ref: "#/definitions/a.Kube" }, other: { $ref: "#/definitions/a.Other" }, cloud: { $ref: "#/definitions/a.Cloud" } }) },
        labels: { type: "array", items: { type: "object", properties: { key: { type: "string" }, value: { type: "string" } } } }, odd: { type: "array", items: {} }, gone: { type: "object", $ref: "#/definitions/a.Gone" },
      } },
      "a.Cloud": point({ kube: { $ref: "#/definitions/a.Kube" }, other: { $ref: "#/definitions/a.Other" } }),
      "a.Kube": { type: "object", properties: { name: { type: "string" }, on: { type: "boolean" } } }, "a.Other": { type: "object", properties: {} }, "a.Label": { type: "object", properties: { key: { type: "string" }, value: { type: "string" } } },
      "a.Location": { type: "object", properties: { url: { type: "string" } } },
    },
  };

  test("reads the schema's endpoint, what lists hold included", () => {
    expect(parseSchema(schema)).toEqual({
      roots: { jenkins: "jenkins.model.Jenkins", unclassified: { location: "a.Location" } },
      symbols: { "a.Cloud": { kube: "a.Kube", other: "a.Other" } },
      attributes: {
        "jenkins.model.Jenkins": { clouds: "list of a.Cloud", gone: "object", labels: "list of a.Label", mode: "EXCLUSIVE|NORMAL", names: "list of string", numExecutors: "integer", odd: "list of object" },
        "a.Kube": { name: "string", on: "boolean" }, "a.Other": {}, "a.Label": { key: "string", value: "string" }, "a.Location": { url: "string" },
      },
    });
  });

  test("keeps what lists were known to hold where the schema does not say it, and takes its word elsewhere", () => {
    const former = { "a.B": { clouds: "list of a.Cloud", names: "list of string", gone: "list of a.Gone", scope: "string" } };
    const schema = { "a.B": { clouds: "list of object", names: "list of object", gone: "list of object", more: "list of a.B", scope: "A|B" } };
    expect(withFormerLists(schema, former, { "a.Cloud": {} })).toEqual({ "a.B": { clouds: "list of a.Cloud", names: "list of string", gone: "list of object", more: "list of a.B", scope: "A|B" } });
  });

  test("writes no secret, no name that is another each time, and not what the API server fills in", () => {
    const pod = { metadata: { name: "maven-12345", uid: "u", labels: { "build-platform/template": "maven" }, annotations: { "kubernetes.jenkins.io/last-refresh": "17" } }, spec: { tolerations: [{ key: "node.kubernetes.io/not-ready" }], containers: [{ name: "jnlp", imagePullPolicy: "Always", env: [{ name: "JENKINS_SECRET", value: "s3cret" }, { name: "A", value: "b" }] }] }, status: { phase: "Running" } };
    expect(bare(pod)).toEqual({ metadata: { name: "maven-12345", labels: pod.metadata.labels, annotations: { "kubernetes.jenkins.io/last-refresh": "..." } }, spec: { containers: [{ name: "jnlp", env: [{ name: "A", value: "b" }] }] } });
    const text = withPods("---\nmetadata: { name: maven-1, labels: { build-platform/template: maven } }\n---\nmetadata: { name: go-1 }\n", [pod]);
    expect(parseAllDocuments(text).map((document) => (document.toJS() as Pod).metadata.name)).toEqual(["maven-12345", "go-1"]);
  });
});
