import * as fs from "node:fs";
import * as path from "node:path";
import { namesIn } from "../../config";
import { cascConfig, type CascInput } from "../../components/jenkins-master/casc";
import { fragmentProblems, readCascFolder, type FragmentProblem } from "../../components/jenkins-master/fragments";
import { neededNames } from "../../components/jenkins-master/references";

const root = path.join(__dirname, "../fixtures/casc");
const folder = (name: string): Record<string, string> =>
  readCascFolder(
    (below) => namesIn(path.join(root, name, below)),
    (file) => fs.readFileSync(path.join(root, name, file), "utf8"),
  );
const input: CascInput = {
  url: "http://jenkins.example.com/", namespace: "jenkins", agentsNamespace: "agents", containerCap: 1, templates: [], settings: { agentImage: "a", dindImage: "d", buildkitImage: "b", insecureRegistries: [] } as unknown as CascInput["settings"],
  secretNames: ["admin-user", "admin-password"], plugins: [],
};
const problems = (name: string, more: Partial<CascInput> = {}): FragmentProblem[] => fragmentProblems({ ...input, fragments: folder(name), ...more });
const lines = (found: FragmentProblem[]): string[] => found.map(({ file, problem, severity }) => `${severity} ${file}: ${problem}`);
const starts = (found: FragmentProblem[], expected: string[]): void => expect(lines(found).map((line, i) => line.slice(0, expected[i]?.length))).toEqual(expected);

describe("a folder of documents", () => {
  test("brings those of its subfolders, and seed scripts; neither hidden files nor others", () => {
    expect(Object.keys(folder("subfolders"))).toEqual(["seed.groovy", "teams/a.yaml", "top.yaml"]);
  });

  test("the mistakes in a subfolder are found there", () => {
    starts(problems("subfolders"), [
      "warning teams/a.yaml: holds the root houseRoot, which nothing recorded here knows",
      "error teams/a.yaml: sets what the platform sets itself: jenkins.numExecutors to 5 (the platform's is 0)",
    ]);
  });

  test.each([
    ["a__b.yaml", 'holds "__" in its name'],
    ["jenkins.yaml", "is the name of the platform's own document"],
    ["../a.yaml", "is no plain file name"],
    ["a b.yaml", "is no plain file name"],
    ["teams/../a.yaml", "is no plain file name"],
  ])("a file called %s is refused", (file, problem) => {
    starts(fragmentProblems({ ...input, fragments: { [file]: "jenkins: {}" } }), [`error ${file}: ${problem}`]);
  });

  test("more than a ConfigMap holds is said once", () => {
    const fragments = { "a.yaml": `jenkins: { systemMessage: ${"x".repeat(950_000)} }`, "b.yaml": "jenkins: {}" };
    starts(fragmentProblems({ ...input, fragments }), ["error a.yaml: and its neighbours have 95"]);
  });
});

describe("what Jenkins takes is taken", () => {
  test.each(["anchors", "volumes", "own-values", "lists"])("%s", (name) => {
    expect(problems(name)).toEqual([]);
  });

  test("keys of a merge are checked as if they were written there", () => {
    const text = folder("anchors")["nodes.yaml"];
    starts(fragmentProblems({ ...input, fragments: { "a.yaml": text.replace("idleMinutes", "idleMinuts") } }), ["error a.yaml: has a mistake at jenkins.clouds[0].kubernetes.templates[0].idleMinuts: not known"]);
    starts(fragmentProblems({ ...input, fragments: { "a.yaml": text.replace("podRetention: Never", "podRetention: sometimes") } }), ["error a.yaml: has a mistake at jenkins.clouds[0].kubernetes.podRetention.sometimes: not known; known are always, default"]);
  });

  test("a key that a document sets to the platform's own value is left to it: Jenkins refuses one that two documents set", () => {
    const own = cascConfig({ ...input, fragments: folder("own-values") }) as { jenkins: object; unclassified: { location: object } };
    for (const key of ["numExecutors", "mode", "slaveAgentPort", "crumbIssuer"]) {
      expect(own.jenkins).not.toHaveProperty(key);
      expect((cascConfig(input) as { jenkins: object }).jenkins).toHaveProperty(key);
    }
    expect(own.unclassified.location).toEqual({});
    expect(own.jenkins).toHaveProperty("clouds");
  });
});

test("an address is the same with and without its final slash, as Jenkins adds it", () => {
  const location = (url: string) => ({ fragments: { "a.yaml": `unclassified: { location: { url: "${url}" } }` } });
  expect(fragmentProblems({ ...input, ...location("http://jenkins.example.com") })).toEqual([]);
  expect(cascConfig({ ...input, ...location("http://jenkins.example.com") })).toMatchObject({ unclassified: { location: {} } });
  expect(cascConfig({ ...input, ...location("http://jenkins.example.com") })).not.toHaveProperty("unclassified.location.url");
  starts(fragmentProblems({ ...input, ...location("http://jenkins.example.com/x") }), ["error a.yaml: sets what the platform sets itself: unclassified.location.url"]);
});

describe("what Jenkins refuses, or takes for something else", () => {
  test("keys that the platform sets otherwise are one message with what to do", () => {
    const found = problems("clash");
    starts(found, [
      "error site.yaml: has a mistake at jenkins.crumbIssuer.standard.excludeClientIPFromCrumb: not known; it has no settings",
      "error site.yaml: sets what the platform sets itself: jenkins.numExecutors to 2 (the platform's is 0), jenkins.mode to NORMAL (the platform's is EXCLUSIVE), jenkins.slaveAgentPort to 50001",
    ]);
    expect(found[1].problem).toMatch(/unclassified\.location\.url to https:\/\/elsewhere.*Take these keys out/);
  });

  test("of a long value enough is shown to recognize it", () => {
    const [{ problem }, ...others] = fragmentProblems({ ...input, fragments: { "a.yaml": `jenkins: { clouds: { ${"k".repeat(500)}: 1 } }` } }).filter((each) => each.problem.startsWith("sets what"));
    expect(others).toEqual([]);
    expect(problem).toMatch(/jenkins\.clouds to \{"k{98}\.\.\. \(the platform's is \[\{"kubernetes":.{85}\.\.\.\)\. Take/);
  });

  test("two spellings of a key are one", () => {
    starts(fragmentProblems({ ...input, fragments: { "a.yaml": "jenkins: { systemMessage: x }", "b.yaml": "jenkins: { systemmessage: x }" } }), ["error b.yaml: sets jenkins.systemMessage, which a.yaml sets as well"]);
  });

  test("unknown attributes are only worth a word where a document has Jenkins go on", () => {
    const document = "jenkins: { myViewsTabBar: standard }\n";
    const lenient = "configuration-as-code: { unknown: warn }\n";
    starts(fragmentProblems({ ...input, fragments: { "a.yaml": document } }), ["error a.yaml: has a mistake at jenkins.myViewsTabBar"]);
    starts(fragmentProblems({ ...input, fragments: { "a.yaml": document + lenient } }), ["warning a.yaml: has a mistake at jenkins.myViewsTabBar"]);
  });

  test("a class' name, whole or without its extension point's, stands for its symbol", () => {
    const cloud = (volume: string) => `jenkins: { clouds: [{ kubernetes: { name: other, templates: [{ name: a, workspaceVolume: { ${volume}: {} } }] } }] }`;
    for (const volume of ["emptyDirWorkspaceVolume", "emptyDir", "dynamicPVC"]) expect(fragmentProblems({ ...input, fragments: { "a.yaml": cloud(volume) } })).toEqual([]);
    starts(fragmentProblems({ ...input, fragments: { "a.yaml": cloud("noSuchDir") } }), ["error a.yaml: has a mistake at jenkins.clouds[0].kubernetes.templates[0].workspaceVolume.noSuchDir"]);
  });

  test("two documents of the site's own must not set one key, not even to one value", () => {
    const fragments = { "a.yaml": "jenkins: { systemMessage: x }", "b.yaml": "jenkins: { systemMessage: x }" };
    starts(fragmentProblems({ ...input, fragments }), ["error b.yaml: sets jenkins.systemMessage, which a.yaml sets as well"]);
  });

  test("a second cloud of the platform's name is refused with the way to join its templates", () => {
    expect(lines(problems("second-cloud"))).toEqual([expect.stringMatching(/^error site\.yaml: has a mistake at jenkins\.clouds\[0\]\.kubernetes\.name: kubernetes is the platform's own cloud.*config key cloud/)]);
  });

  test("what is taken as 0, as false or as an address without port is said", () => {
    starts(problems("silent"), [
      "error site.yaml: has a mistake at jenkins.clouds[0].kubernetes.capOnlyOnAlivePods: not known",
      'error site.yaml: has a mistake at jenkins.clouds[0].kubernetes.templates[0].instanceCap: a whole number is expected, found "ten": Jenkins would take it as 0',
      'error site.yaml: has a mistake at jenkins.clouds[0].kubernetes.templates[0].hostNetwork: true or false is expected, found "maybe": Jenkins would take it as false',
      'error site.yaml: has a mistake at jenkins.clouds[0].kubernetes.jenkinsTunnel: "jenkins-agent.jenkins.svc" is not host:port',
    ]);
  });

  test("several documents in one text, and what is no YAML", () => {
    const of = (text: string) => lines(fragmentProblems({ ...input, fragments: { "a.yaml": text } }));
    expect(of("jenkins: {}\n---\nunclassified: {}\n")).toEqual(["error a.yaml: holds several YAML documents, parted by ---, and Jenkins takes one: make a file of each"]);
    expect(of("jenkins: {")).toEqual([expect.stringMatching(/^error a\.yaml: is no YAML: .*line 1/)]);
    const pod = (text: string) => of(`jenkins: { clouds: [{ kubernetes: { name: mine, templates: [{ name: t, yaml: ${JSON.stringify(text)} }] } }] }`);
    expect(pod("kind: Pod\n---\nkind: Pod\n")).toEqual([expect.stringMatching(/templates\[0\]\.yaml: holds several YAML documents, .* reads the first alone: leave one$/)]);
    expect(pod("kind: {")).toEqual([expect.stringMatching(/templates\[0\]\.yaml: is no YAML: /)]);
  });

  test("YAML aliases in a pod: no build would ever get it", () => {
    starts(problems("aliases"), ["error site.yaml: has a mistake at jenkins.clouds[0].kubernetes.templates[0].yaml: holds the YAML alias *r, which the kubernetes plugin's reader does not know"]);
  });
});

describe("roots and symbols go with plugins", () => {
  test("a plugin that is not baked in is named", () => {
    starts(problems("plugins"), [
      "error site.yaml: holds the root jobs, which the plugin job-dsl brings, and it is not baked in: add job-dsl:<version> to controller.plugins",
      "error site.yaml: holds unclassified.slackNotifier, which the plugin slack brings",
      "error site.yaml: holds jenkins.authorizationStrategy.roleBased, which the plugin role-strategy brings",
    ]);
  });

  test("one that is baked in is not asked for; an image of the site's own may hold any", () => {
    expect(problems("plugins", { plugins: ["job-dsl:1.93", "slack", "role-strategy"] })).toEqual([]);
    expect(problems("plugins", { plugins: undefined }).map(({ severity }) => severity)).toEqual(["warning", "warning", "warning"]);
  });

  test("one that another may bring along is a word of warning: what further plugins need is not known here", () => {
    starts(problems("plugins", { plugins: ["pipeline-job-extras:1.0", "slack:795"] }), [
      "warning site.yaml: holds the root jobs, which the plugin job-dsl brings: one of controller.plugins must need it, or add job-dsl:<version> to them",
      "warning site.yaml: holds jenkins.authorizationStrategy.roleBased, which the plugin role-strategy brings",
    ]);
    expect(problems("plugins", { plugins: ["prometheus", "matrix-auth"] }).map(({ severity }) => severity)).toEqual(["error", "error", "error"]);
  });

  test("those of login and rights are there with them, and only then", () => {
    const fragments = { "a.yaml": "jenkins: { authorizationStrategy: { globalMatrix: { entries: [] } } }" };
    starts(fragmentProblems({ ...input, fragments }), ["error a.yaml: holds jenkins.authorizationStrategy.globalMatrix, which the plugin matrix-auth brings"]);
    expect(fragmentProblems({ ...input, fragments, plugins: ["matrix-auth"] })).toEqual([]);
  });

  test("a root that nobody knows is left to Jenkins to judge", () => {
    starts(problems("further", { plugins: ["aws-credentials"] }), ["warning site.yaml: holds the root groovy, which the plugin configuration-as-code-groovy brings", "warning site.yaml: holds the root houseRoot, which nothing recorded here knows"]);
  });
});

describe("references", () => {
  test("that nothing defines are named, each with its place", () => {
    const at = "credentials.system.domainCredentials[0].credentials";
    starts(problems("environment"), [
      `error credentials.yaml: refers to \${BOT_PASSWORD} at ${at}[0].usernamePassword.password, which nothing defines`,
      `error credentials.yaml: refers to \${SCAN_TOKEN} at ${at}[1].string.secret, which nothing defines`,
      `error credentials.yaml: refers to \${SCAN_TOKEN} at ${at}[2].string.secret, which nothing defines`,
    ]);
  });

  test("are defined by secretFiles and controller.env", () => {
    expect(problems("environment", { env: ["BOT_PASSWORD"], secretNames: ["SCAN_TOKEN"] })).toEqual([]);
  });

  test("may be defined by a Secret whose keys are not known here: then each is a word of warning", () => {
    const severities = (more: Partial<CascInput>) => problems("environment", more).map(({ severity }) => severity);
    expect(severities({ envFrom: ["bot"] })).toEqual(["warning", "warning", "warning"]);
    expect(severities({ secretNames: undefined })).toEqual(["warning", "warning", "warning"]);
  });

  test.each<[string, string[]]>([
    ["${A}", ["A"]],
    ["a ${A.b-c} ${D}", ["A.b-c", "D"]],
    ["^${A}", []],
    ["${A:-b}", []],
    ["${A:-${B}}", ["B"]],
    ["${readFile:/a}${json:key:${J}}${sysProp:a.b}${trim:x}", ["J"]],
    ["${odd:name}", ["odd:name"]],
    ["${A${B}}", ["B"]],
    ["${open", []],
  ])("%s needs %j", (text, names) => {
    expect(neededNames(text)).toEqual(names);
  });
});
