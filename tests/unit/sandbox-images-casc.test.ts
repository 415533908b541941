import fc from "fast-check";
import { BrokenDocument, readSettings, resolve, type Settings } from "../../sandbox/images/jenkins/adapter/casc";
import { encode } from "../../sandbox/images/jenkins/adapter/hudson";

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
  const lookup = (name: string) => ({ "admin-user": "root", "admin-password": "p}${x", HOST: "h" })[name];

  test.each([
    ["${admin-user}", "root"],
    ["a ${admin-user} b ${HOST}", "a root b h"],
    ["${nothing:-fallback}", "fallback"],
    ["${nothing:-${HOST}}", "h"],
    ["^${admin-user}", "${admin-user}"],
    ["${base64:${HOST}}", "aA=="],
    ["${decodeBase64:aA==}", "h"],
    ["${trim: h }", "h"],
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
    expect(warnings).toEqual(["jenkins.systemMessage: variable nope is not known and becomes empty"]);
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
unclassified: {location: {url: "http://x/"}, other: {a: 1}}
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
      ignored: ["unclassified.other"],
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
    expect(problems("jenkins: {numExecutors: 0}", "jenkins: {numExecutors: 1}")).toEqual(["1.yaml: jenkins.numExecutors is set differently in another document"]);
  });

  test.each([
    ["jenkins: {numExecutor: 0}", "jenkins.numExecutor: not known; known are systemMessage, numExecutors"],
    ["nonsense: {}", "nonsense: not known"],
    ["jenkins: {numExecutors: many}", 'jenkins.numExecutors: a whole number is expected, found "many"'],
    ["jenkins: {clouds: [{kubernetes: {templates: [{nam: x}]}}]}", "jenkins.clouds[0].kubernetes.templates[0].nam: not known"],
    ["jenkins: {clouds: [{kubernetes: {templates: [{name: x, containers: {}}]}}]}", "jenkins.clouds[0].kubernetes.templates[0].containers: a list is expected, found a map"],
    ["jenkins: {clouds: [{kubernetes: {jenkinsTunnel: 'http://x:1'}}]}", 'jenkins.clouds[0].kubernetes.jenkinsTunnel: "http://x:1" is not host:port'],
    ["jenkins: {clouds: [{kubernetes: {templates: [{name: x, inheritFrom: y}]}}]}", "jenkins.clouds[0].kubernetes.templates[0].inheritFrom: there is no template y"],
    ["jenkins: {clouds: [{kubernetes: {templates: [{name: x, podRetention: sometimes}]}}]}", "jenkins.clouds[0].kubernetes.templates[0].podRetention.sometimes: not known; known are never, always"],
    ["jenkins: {clouds: [{kubernetes: {templates: [{name: x, yaml: 'a: [1'}]}}]}", "jenkins.clouds[0].kubernetes.templates[0].yaml: "],
    ["jenkins: {securityRealm: {local: {users: [{id: admin, password: '${gone}'}]}}}", "jenkins.securityRealm.local.users[0].password: is empty"],
    ["jenkins: {securityRealm: {oic: {clientId: jenkins}}}", "jenkins.securityRealm.oic: not known; known are local"],
    ["a: [", "0.yaml: "],
    ["- 1", "0.yaml: a map is expected at the top"],
  ])("%s is refused", (text, message) => {
    expect(problems(text).join("\n")).toContain(message);
  });

  test("all problems are reported together", () => {
    expect(problems("jenkins: {a: 1, numExecutors: x}\nb: 2")).toHaveLength(3);
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
