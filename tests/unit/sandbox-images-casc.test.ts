import fc from "fast-check";
import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { bakedPlugins } from "../../components/jenkins-master/plugins";
import { afterReload, BrokenDocument, readSettings, resolve, type Settings } from "../../sandbox/images/jenkins/adapter/casc";
import { encode } from "../../sandbox/images/jenkins/adapter/hudson";
import { knownPlugins, loaded, pluginsThatFail, recorded } from "../../sandbox/images/jenkins/adapter/plugins";

const none = (): undefined => undefined;

function read(text: string, values: Record<string, string> = {}): { settings: Settings; warnings: string[] } {
  const warnings: string[] = [];
  const settings = readSettings([{ name: "jenkins.yaml", text }], (name) => values[name], (line) => warnings.push(line));
  return { settings, warnings };
}

function problems(...texts: string[]): string[] {
  try {
    readSettings(texts.map((text, i) => ({ name: `${i}.yaml`, text })), none, () => undefined);
  } catch (e) {
    if (e instanceof BrokenDocument) return e.problems;
    throw e;
  }
  return [];
}

describe("variables in a JCasC document", () => {
  const lookup = (name: string) => ({ "admin-user": "root", "admin-password": "p}${x", HOST: "h", J: '{"a": "b"}' })[name];

  test.each([
    ["${admin-user}", "root"],
    ["a ${admin-user} b ${HOST}", "a root b h"],
    ["${nothing:-fallback}", "fallback"],
    ["${nothing:-${HOST}}", "h"],
    ["^${admin-user}", "${admin-user}"],
    ["${base64:${HOST}}", "aA=="],
    ["${decodeBase64:aA==}", "h"],
    ["${trim: h }", " h"],
    ["${json:a:${J}}", "b"],
    ["${open", "${open"],
    ["plain $HOST {x}", "plain $HOST {x}"],
  ])("%s becomes %s", (text, expected) => {
    expect(resolve(text, lookup, () => undefined)).toBe(expected);
  });

  test("a value is taken as it is, whatever it looks like", () => {
    expect(resolve("${admin-password}", lookup, () => undefined)).toBe("p}${x");
  });

  test("an unknown variable becomes empty and is reported with its place", () => {
    const { settings, warnings } = read('jenkins: {systemMessage: "a${nope}b"}');
    expect(settings.systemMessage).toBe("ab");
    expect(warnings).toEqual(["Configuration import: Found unresolved variable 'nope'. Will default to empty string (at jenkins.systemMessage)"]);
  });

  test("text without variables never changes", () => {
    fc.assert(fc.property(fc.string().filter((s) => !s.includes("${")), (text) => resolve(text, none, () => undefined) === text));
  });

  test("an escaped text comes out as it was", () => {
    fc.assert(fc.property(fc.string().filter((s) => !s.includes("^")), (text) => resolve(text.replaceAll("${", "^${"), none, () => undefined) === text));
  });
});

describe("settings from a JCasC document", () => {
  test("the admin comes from the Secret, and nobody else may do anything", () => {
    const { settings } = read(
      `jenkins:
  numExecutors: "0"
  slaveAgentPort: 50000
  securityRealm: {local: {allowsSignup: false, users: [{id: "\${admin-user}", name: Administrator, password: "\${admin-password}"}]}}
  authorizationStrategy: {loggedInUsersCanDoAnything: {allowAnonymousRead: false}}
unclassified: {location: {url: "http://x/"}, mailer: {smtpHost: mail.example.com}}
`,
      { "admin-user": "admin", "admin-password": "[s]" },
    );
    expect(settings).toMatchObject({
      numExecutors: 0,
      slaveAgentPort: 50000,
      url: "http://x/",
      allowsSignup: false,
      users: [{ id: "admin", name: "Administrator", password: "[s]" }],
      permissions: ["Overall/Administer:authenticated"],
      ignored: ["unclassified.mailer"],
    });
  });

  test("anonymous may read only where the document says so", () => {
    const { settings } = read("jenkins: {authorizationStrategy: {loggedInUsersCanDoAnything: {allowAnonymousRead: true}}}");
    expect(settings.permissions).toEqual(["Overall/Administer:authenticated", "Overall/Read:anonymous", "Job/Read:anonymous"]);
  });

  test("a matrix is taken in both of its forms", () => {
    expect(read("jenkins: {authorizationStrategy: {globalMatrix: {permissions: ['USER:Overall/Administer:ann', 'Job/Build:bob']}}}").settings.permissions).toEqual(["Overall/Administer:ann", "Job/Build:bob"]);
    expect(read("jenkins: {authorizationStrategy: {globalMatrix: {entries: [{user: {name: ann, permissions: [Overall/Read]}}, {group: {name: authenticated, permissions: [Job/Build]}}]}}}").settings.permissions).toEqual(["Overall/Read:ann", "Job/Build:authenticated"]);
  });

  test("documents grow together, and clash where they differ", () => {
    const parts = ["jenkins: {numExecutors: 0}", "jenkins: {systemMessage: hi}"];
    expect(readSettings(parts.map((text, i) => ({ name: `${i}`, text })), none, () => undefined)).toMatchObject({ numExecutors: 0, systemMessage: "hi" });
    // Not even to the same value.
    for (const again of [0, 1]) expect(problems("jenkins: {numExecutors: 0}", `jenkins: {numExecutors: ${again}}`)).toEqual(["io.jenkins.plugins.casc.ConfiguratorConflictException: Found conflicting configuration at 1.yaml, jenkins.numExecutors"]);
  });

  test.each([
    ["jenkins: {numExecutor: 0}", "UnknownAttributesException: Invalid configuration elements for type: class jenkins.model.Jenkins : numExecutor.\nAvailable attributes : authorizationStrategy, "],
    ["nonsense: {}", "UnknownConfiguratorException: No configurator found for the following root element: nonsense. This may indicate that the required plugin is not installed"],
    ["jobs: []", "No configurator found for the following root element: jobs."],
    ["unclassified: {slackNotifier: {}}", "Invalid configuration elements for type: root unclassified : slackNotifier."],
    ["jenkins: {clouds: [{kubernetes: {capOnlyOnAlivePods: true}}]}", "class org.csanchez.jenkins.plugins.kubernetes.KubernetesCloud : capOnlyOnAlivePods."],
    ["jenkins: {clouds: [{kubernetes: {templates: [{name: x, containers: {}}]}}]}", "Failed to configure 'jenkins.clouds[0].kubernetes.templates[0].containers': a list is expected, found a map"],
    ["jenkins: {clouds: [{amazonEC2: {}}]}", "No hudson.slaves.Cloud implementation found for amazonEC2"],
    ["jenkins: {clouds: [{kubernetes: {templates: [{name: x, podRetention: sometimes}]}}]}", "PodRetention implementation found for sometimes"],
    ["jenkins: {securityRealm: {local: {users: [{id: admin, password: '${gone}'}]}}}", "jenkins.securityRealm.local.users[0].password: is empty"],
    ["jenkins: {securityRealm: {oic: {clientId: jenkins}}}", "jenkins.securityRealm.oic: Hudson stands in for Jenkins here"],
    ["a: [", "org.yaml.snakeyaml.error.YAMLException: 0.yaml: "],
    ["- 1", "Found incompatible configuration elements 0.yaml"],
  ])("%s is refused", (text, message) => {
    expect(problems(text).join("\n")).toContain(message);
  });

  test("all problems are reported together", () => {
    expect(problems("jenkins: {a: 1, numExecutors: []}\nb: 2")).toHaveLength(3);
  });
});

test("what a plugin brings is taken with it, and refused without it", () => {
  const read = (plugins: string[]) => () => readSettings([{ name: "a", text: "jobs: []\njenkins: {authorizationStrategy: {globalMatrix: {entries: []}}}" }], none, () => undefined, bakedPlugins(plugins));
  expect(read(["job-dsl", "matrix-auth"])().ignored).toEqual(["jobs"]);
  expect(read(["matrix-auth"])).toThrow("root element: jobs");
  expect(read(["job-dsl"])).toThrow("No hudson.security.AuthorizationStrategy implementation found for globalMatrix");
});

test("a reload keeps what the documents no longer say; a start does not", () => {
  const before = read("jenkins: {systemMessage: old, quietPeriod: 5}").settings;
  const next = read("jenkins: {quietPeriod: 6}").settings;
  expect(afterReload(before, next)).toMatchObject({ systemMessage: "old", quietPeriod: 6 });
  expect(afterReload(undefined, next)).not.toHaveProperty("systemMessage");
});

describe("jenkins-plugin-cli's stand-in", () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "plugins-"));
  afterAll(() => fs.rmSync(folder, { recursive: true }));
  const cli = (...plugins: string[]) => {
    fs.writeFileSync(path.join(folder, "known"), knownPlugins(["git:5.10.1\n# comment\nfresh:2.0\n"]));
    return spawnSync("sh", [path.join(__dirname, "../../sandbox/images/jenkins/jenkins-plugin-cli"), "--plugins", ...plugins], { encoding: "utf8", env: { ...process.env, KNOWN: path.join(folder, "known"), REF: folder, JENKINS_VERSION: "2.568.2" } });
  };

  test("records what an update site has", () => {
    expect(cli("git:5.10.1", "fresh:2.0", "job-dsl:1.93").status).toBe(0);
    expect(recorded(path.join(folder, "plugins"))).toEqual([["fresh", "2.0"], ["git", "5.10.1"], ["job-dsl", "1.93"]]);
    expect(loaded([["job-dsl", "1.93"]])).toContainEqual({ shortName: "job-dsl", version: "1.93", active: true, enabled: true });
    expect(loaded([["workflow-job", "1"]])).toContainEqual({ shortName: "workflow-job", version: "1", active: false, enabled: true });
  });

  test.each([
    ["no-such-plugin:1", "download plugin no-such-plugin to file: status code: 404"],
    ["git:0.0.1", "https://updates.jenkins.io/download/plugins/git/0.0.1/git.hpi"],
    ["sandbox-newer-core:1", "sandbox-newer-core (1) requires a greater version of Jenkins (2.9999) than 2.568.2"],
  ])("refuses %s", (plugin, words) => {
    const { status, stderr } = cli(plugin);
    expect(status).toBe(1);
    expect(stderr).toContain(words);
  });

  test("a plugin that needs a newer core is in an image's log, and not among those loaded", () => {
    expect(pluginsThatFail([["git", "5.10.1"], ["sandbox-newer-core", "1"]])).toEqual([expect.stringMatching(/^Failed Loading plugin sandbox-newer-core v1 \(sandbox-newer-core\)\njava\.io\.IOException: Failed to load: .*\n - Jenkins \(2\.9999\) or higher required$/)]);
    expect(loaded([["sandbox-newer-core", "1"]]).map(({ shortName }) => shortName)).not.toContain("sandbox-newer-core");
  });
});

test("texts reach Hudson's JSON library in a form that it cannot take for JSON", () => {
  fc.assert(
    fc.property(fc.string({ unit: "grapheme" }), (text) => {
      const sent = encode({ password: text }) as { password: string };
      expect(sent.password).not.toMatch(/[[\]{}"\s+]/);
      expect(decodeURIComponent(sent.password)).toBe(text);
    }),
  );
});
