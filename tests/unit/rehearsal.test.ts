import { loginPath } from "../../components/boot";
import * as fc from "fast-check";
import type { CoreV1Event, V1Pod } from "@kubernetes/client-node";
import { Candidate, rehearsalLabels, rehearsalObjects, rehearsalReasons } from "../../components/jenkins-master/rehearsal";
import { controllerLabels } from "../../components/jenkins-master/place";
import type { Key } from "../../config/fields";
import { root as configKeys } from "../../config/mistakes";
import { discreet, jenkinsProblems, judge, Judgement, namedSecrets } from "../../scripts/rehearsal/judge";

const args = { timeoutSeconds: 600, resources: { requests: { cpu: "100m", memory: "512Mi" } } };
const candidate: Candidate = {
  namespace: "jenkins",
  pod: {
    serviceAccountName: "jenkins",
    enableServiceLinks: false,
    priorityClassName: "high",
    nodeSelector: { disk: "fast" },
    securityContext: { runAsNonRoot: true },
    initContainers: [
      { name: "configuration", image: "controller:1", volumeMounts: [{ name: "casc", mountPath: "/var/jenkins_casc" }, { name: "laid-out", mountPath: "/run/jenkins-casc" }] },
      { name: "beside", image: "controller:1", restartPolicy: "Always", volumeMounts: [{ name: "reload", mountPath: "/run/reload" }] },
    ],
    containers: [
      {
        name: "jenkins",
        image: "controller:1",
        envFrom: [{ secretRef: { name: "site" } }],
        ports: [{ name: "http", containerPort: 8080 }],
        resources: { requests: { cpu: "1", memory: "2Gi" }, limits: { memory: "4Gi" } },
        startupProbe: { httpGet: { path: "/login", port: "http" } },
        livenessProbe: { httpGet: { path: "/login", port: "http" } },
        volumeMounts: [{ name: "home", mountPath: "/var/jenkins_home" }, { name: "laid-out", mountPath: "/run/jenkins-casc" }, { name: "admin", mountPath: "/run/secrets/jenkins" }],
      },
      { name: "config-reload", image: "controller:1", volumeMounts: [{ name: "reload", mountPath: "/run/reload" }] },
    ],
    volumes: [
      { name: "home", persistentVolumeClaim: { claimName: "jenkins-home" } },
      { name: "casc", configMap: { name: "jenkins-casc" } },
      { name: "laid-out", emptyDir: {} },
      { name: "admin", projected: { sources: [{ secret: { name: "jenkins-admin" } }, { secret: { name: "github", items: [{ key: "token", path: "github-token" }] } }] } },
      { name: "reload", emptyDir: {} },
    ],
  },
  configMaps: { "jenkins-casc": { "jenkins.yaml": "jenkins: {}" } },
  secrets: { "jenkins-admin": { "admin-password": "cGFzc3dvcmQ=" } },
};

describe("what is tried", () => {
  const objects = rehearsalObjects(candidate, args);
  const pod = objects.job.spec!.template.spec!;
  const [jenkins] = pod.containers;

  test("the same container, on an empty home, with the candidate's documents and secrets", () => {
    expect(jenkins).toMatchObject({ name: "jenkins", image: "controller:1", resources: { requests: { cpu: "100m", memory: "512Mi" }, limits: { memory: "4Gi" } }, readinessProbe: { httpGet: { path: "/login", port: "http" } } });
    expect(pod).toMatchObject({ securityContext: { runAsNonRoot: true }, nodeSelector: { disk: "fast" }, serviceAccountName: "jenkins", restartPolicy: "Never", automountServiceAccountToken: false });
    expect(pod.volumes).toEqual([
      { name: "home", emptyDir: {} },
      { name: "casc", configMap: { name: "rehearsal-jenkins-casc" } },
      { name: "laid-out", emptyDir: {} },
      { name: "admin", projected: { sources: [{ secret: { name: "rehearsal-jenkins-admin" } }, { secret: { name: "github", items: [{ key: "token", path: "github-token" }] } }] } },
      { name: "rehearsal-hooks", configMap: { name: "rehearsal-hooks" } },
    ]);
    expect(objects.configMaps.map(({ metadata, data }) => [metadata!.name, data])).toEqual([["rehearsal-jenkins-casc", { "jenkins.yaml": "jenkins: {}" }], ["rehearsal-hooks", { "00-quiet.groovy": expect.stringContaining("doQuietDown()") }]]);
    expect(objects.secrets.map(({ metadata, data }) => [metadata!.name, data])).toEqual([["rehearsal-jenkins-admin", { "admin-password": "cGFzc3dvcmQ=" }]]);
  });

  test("nothing runs beside it, nothing restarts it, nothing gives way to it", () => {
    expect(pod.containers).toHaveLength(1);
    expect(pod.initContainers!.map(({ name }) => name)).toEqual(["configuration"]);
    expect(jenkins).not.toHaveProperty("startupProbe");
    expect(jenkins).not.toHaveProperty("livenessProbe");
    expect(pod).not.toHaveProperty("priorityClassName");
    expect(objects.job.spec).toMatchObject({ suspend: true, backoffLimit: 0, activeDeadlineSeconds: 660, ttlSecondsAfterFinished: 60 });
  });

  test("nobody reaches it and it reaches nobody; nothing that is meant for the controller selects it", () => {
    expect(objects.networkPolicy.spec).toEqual({ podSelector: { matchLabels: rehearsalLabels }, policyTypes: ["Ingress", "Egress"] });
    expect(objects.job.spec!.template.metadata!.labels).toEqual(rehearsalLabels);
    expect(Object.entries(controllerLabels).every(([key, value]) => (rehearsalLabels as Record<string, string>)[key] === value)).toBe(false);
  });

  test("asks for no more of the node's disk than the controller may take", () => {
    const [container] = candidate.pod.containers;
    const bounded = { ...candidate, pod: { ...candidate.pod, containers: [{ ...container, resources: { limits: { memory: "4Gi", "ephemeral-storage": "1Gi" } } }] } };
    const { resources } = rehearsalObjects(bounded, { timeoutSeconds: 60, resources: { requests: { ephemeralStorage: "2Gi" } } }).job.spec!.template.spec!.containers[0];
    expect(resources).toEqual({ requests: { "ephemeral-storage": "1Gi" }, limits: { memory: "4Gi", "ephemeral-storage": "1Gi" } });
  });

  test("requests stay below the limits, whatever both are", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 8192 }), fc.integer({ min: 1, max: 8192 }), (limit, request) => {
        const [container] = candidate.pod.containers;
        const smaller = { ...candidate, pod: { ...candidate.pod, containers: [{ ...container, resources: { limits: { memory: `${limit}Mi` } } }] } };
        const { requests, limits } = rehearsalObjects(smaller, { timeoutSeconds: 60, resources: { requests: { memory: `${request}Mi` } } }).job.spec!.template.spec!.containers[0].resources!;
        const mebibytes = (text: string) => (text.endsWith("Gi") ? 1024 : 1) * parseInt(text, 10);
        expect(mebibytes(requests!.memory)).toBe(Math.min(limit, request));
        expect(mebibytes(limits!.memory)).toBe(limit);
      }),
    );
  });

  test("no secret is in any object but a Secret", () => {
    const { secrets: _, ...rest } = objects;
    expect(JSON.stringify(rest)).not.toContain("cGFzc3dvcmQ=");
    expect(JSON.stringify(rest)).not.toContain("password=");
  });
});

describe("why it is tried", () => {
  const changed = (further: Partial<Candidate>) => {
    const [a, b] = [rehearsalReasons(candidate), rehearsalReasons({ ...candidate, ...further })];
    return Object.keys(a).filter((key) => a[key as keyof typeof a] !== b[key as keyof typeof b]);
  };
  test("each kind of change is told by itself", () => {
    expect(changed({})).toEqual([]);
    expect(changed({ pod: JSON.parse(JSON.stringify(candidate.pod).replaceAll("controller:1", "controller:2")) })).toEqual(["IMAGE"]);
    expect(changed({ configMaps: { "jenkins-casc": { "jenkins.yaml": "jenkins: {systemMessage: x}" } } })).toEqual(["CONFIGURATION"]);
    // A hash of a weak password would tell it.
    expect(changed({ secrets: { "jenkins-admin": { "admin-password": "eA==" } } })).toEqual([]);
    expect(changed({ pod: { ...candidate.pod, nodeSelector: {} } })).toEqual(["POD"]);
  });
  test("a document is told by its name", () => {
    expect(rehearsalReasons({ ...candidate, configMaps: { "jenkins-casc": { "b.yaml": "", "a.yaml": "" } } }).CONFIGURATION).toMatch(/^a\.yaml [0-9a-f]{12}, b\.yaml [0-9a-f]{12}$/);
  });
});

/** Log records as Jenkins 2.568 and configuration-as-code 2115 write them. */
const head = (level: string, text: string) => `2026-11-25 18:22:07.431+0000 [id=33]\t${level}\t${text}`;
const booted = head("INFO", "hudson.lifecycle.Lifecycle#onReady: Jenkins is fully up and running");
const notBooted = head("SEVERE", "hudson.util.BootFailure#publish: Failed to initialize Jenkins");
const frames = "\tat hudson.PluginWrapper.resolvePluginDependencies(PluginWrapper.java:1018)\n\tat java.base/java.lang.Thread.run(Thread.java:1583)";
const unknownAttribute = [
  head("SEVERE", "jenkins.InitReactorRunner$1#onTaskFailed: Failed ConfigurationAsCode.init"),
  "io.jenkins.plugins.casc.UnknownAttributesException: standard: Invalid configuration elements for type: class hudson.security.csrf.DefaultCrumbIssuer : excludeClientIPFromCrumb.",
  "Available attributes : ",
  "\tat io.jenkins.plugins.casc.BaseConfigurator.handleUnknown(BaseConfigurator.java:506)",
  "Caused: io.jenkins.plugins.casc.ConfiguratorException: jenkins: error configuring 'jenkins' with class io.jenkins.plugins.casc.core.JenkinsConfigurator configurator",
  "  at /run/jenkins-casc/jenkins.yaml:12 (path: jenkins.crumbIssuer)",
  "\tat io.jenkins.plugins.casc.BaseConfigurator.configure(BaseConfigurator.java:290)",
  "Caused: io.jenkins.plugins.casc.ConfigurationAsCodeBootFailure",
  "\tat io.jenkins.plugins.casc.ConfigurationAsCode.init(ConfigurationAsCode.java:392)",
  "Caused: java.lang.reflect.InvocationTargetException",
  "\tat java.base/java.lang.reflect.Method.invoke(Method.java:580)",
  "Caused: java.lang.Error",
  "\tat hudson.init.TaskMethodFinder.invoke(TaskMethodFinder.java:115)",
  notBooted,
].join("\n");
const unknownRoot = [
  head("SEVERE", "jenkins.InitReactorRunner$1#onTaskFailed: Failed ConfigurationAsCode.init"),
  "io.jenkins.plugins.casc.UnknownConfiguratorException: No configurator found for the following root element: sonarGlobalConfiguration. This may indicate that the required plugin is not installed or failed to load.",
  "\tat io.jenkins.plugins.casc.ConfigurationAsCode.invokeWith(ConfigurationAsCode.java:875)",
  notBooted,
].join("\n");
const newerCore = [
  head("SEVERE", "jenkins.InitReactorRunner$1#onTaskFailed: Failed Loading plugin Pipeline: Job v9999.0 (workflow-job)"),
  "java.io.IOException: Failed to load: Pipeline: Job (workflow-job 9999.0)",
  " - Jenkins (2.999) or higher required",
  " - Plugin is missing: variant (60.v7290fc0eb_b_cd)",
  frames,
].join("\n");

describe("Jenkins' own words", () => {
  test("a key that it does not know: key, document and place, without frames", () => {
    const [problem, ...others] = jenkinsProblems(unknownAttribute);
    expect(others).toEqual([]);
    expect(problem.what).toBe("Jenkins refuses the configuration");
    expect(problem.words).toEqual([
      "standard: Invalid configuration elements for type: class hudson.security.csrf.DefaultCrumbIssuer : excludeClientIPFromCrumb.",
      "Available attributes : ",
      "jenkins: error configuring 'jenkins' with class io.jenkins.plugins.casc.core.JenkinsConfigurator configurator",
      "  at /run/jenkins-casc/jenkins.yaml:12 (path: jenkins.crumbIssuer)",
    ]);
  });
  test("a root whose plugin is not there", () => {
    expect(jenkinsProblems(unknownRoot)[0]).toMatchObject({ words: [expect.stringContaining("root element: sonarGlobalConfiguration")], todo: expect.stringContaining("controller.plugins") });
  });
  test("a plugin that needs a newer core or another plugin, told before the document that fails for it", () => {
    const problems = jenkinsProblems(`${newerCore}\n${unknownRoot}`);
    expect(problems.map(({ what }) => what)).toEqual(["A plugin is not loaded", "Jenkins refuses the configuration"]);
    expect(problems[0].words).toEqual(["Pipeline: Job v9999.0 (workflow-job)", "  Failed to load: Pipeline: Job (workflow-job 9999.0)", "   - Jenkins (2.999) or higher required", "   - Plugin is missing: variant (60.v7290fc0eb_b_cd)"]);
  });
  test("a plugin that cannot be installed, and a start that fails for another reason", () => {
    expect(jenkinsProblems(head("SEVERE", "hudson.PluginManager$2$1$1#run: Failed to install mailer: javax.mail (1.0)"))[0].words).toEqual(["mailer", "  javax.mail (1.0)"]);
    expect(jenkinsProblems(`${notBooted}\njava.lang.IllegalStateException: no room on /var/jenkins_home\n${frames}`)[0]).toMatchObject({ what: "Jenkins does not start", words: ["java.lang.IllegalStateException: no room on /var/jenkins_home"] });
  });
  test("nothing is made of a good start, nor of what plugins grumble", () => {
    expect(jenkinsProblems([head("WARNING", "hudson.ExtensionFinder$Sezpoz#scout: Failed to scout x"), "java.lang.NoClassDefFoundError: a/b", frames, booted].join("\n"))).toEqual([]);
    fc.assert(fc.property(fc.string(), (text) => Array.isArray(jenkinsProblems(text))));
  });
});

describe("the judgement", () => {
  const container = (state: object) => ({ name: "jenkins", image: "registry.test/controller:1", state });
  const podOf = (status: object): V1Pod => ({ status }) as V1Pod;
  const running = (ready: boolean) => podOf({ conditions: [{ type: "Ready", status: ready ? "True" : "False" }], containerStatuses: [container({ running: {} })] });
  const waiting = (reason: string, message = "") => podOf({ containerStatuses: [container({ waiting: { reason, message } })] });
  const event = (reason: string, message: string) => ({ reason, message }) as CoreV1Event;
  const of = (pod: V1Pod | undefined, log = "", events: CoreV1Event[] = []) => judge({ log, events, ...(pod && { pod }) });
  const problem = (judgement: Judgement) => (judgement.state === "bad" ? judgement.problems[0] : judgement.state === "waiting" ? judgement.suspicion?.problem : undefined);

  test("good: ready, and no failure in the log; what nothing defines is told", () => {
    expect(of(running(true), booted)).toEqual({ state: "good", notes: [] });
    const variable = head("WARNING", "io.jenkins.plugins.casc.SecretSourceResolver$UnresolvedLookup#lookup: Configuration import: Found unresolved variable 'MAIL_HOST'. Will default to empty string");
    expect(of(running(true), `${variable}\n${variable}\n${booted}`)).toEqual({ state: "good", notes: [expect.stringContaining("${MAIL_HOST}")] });
  });
  test("a plugin that failed is bad though Jenkins answers, and waited for while it does not", () => {
    expect(of(running(true), `${newerCore}\n${booted}`).state).toBe("bad");
    expect(of(running(false), newerCore)).toMatchObject({ state: "waiting", suspicion: { seconds: 30 } });
  });
  test("a refused document is bad at once", () => expect(of(running(false), unknownAttribute).state).toBe("bad"));
  test.each<[string, Judgement, string, RegExp]>([
    ["a secret for the environment", of(waiting("CreateContainerConfigError", 'secret "site" not found')), "waiting", /secret "site" not found/],
    ["a secret that is mounted", of(waiting("ContainerCreating"), "", [event("FailedMount", 'MountVolume.SetUp failed for volume "admin" : secret "github" not found')]), "waiting", /secret "github" not found/],
    ["an image that is not there", of(waiting("ErrImagePull", "manifest unknown")), "bad", /manifest unknown/],
    ["an image by its event", of(waiting("ImagePullBackOff", "Back-off pulling image"), "", [event("Failed", 'Failed to pull image "x": not found')]), "bad", /Failed to pull image/],
    ["a registry that does not answer", of(waiting("ErrImagePull", "i/o timeout")), "waiting", /i\/o timeout/],
    ["a name of an image that is none", of(waiting("InvalidImageName", "couldn't parse")), "bad", /couldn't parse/],
    ["no room", of(podOf({ conditions: [{ type: "PodScheduled", status: "False", reason: "Unschedulable", message: "0/1 nodes: Insufficient memory" }] })), "waiting", /Insufficient memory/],
    ["a quota", of(undefined, "", [event("FailedCreate", "exceeded quota: pods")]), "waiting", /exceeded quota/],
    ["an end", of(podOf({ containerStatuses: [container({ terminated: { exitCode: 1, reason: "Error" } })] }), "start refused:\n  jenkins.sytemMessage: unknown key"), "bad", /sytemMessage/],
    ["500 with a log in another form", of(running(false), "{}", [event("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 500")]), "waiting", /\{\}/],
  ])("%s", (_, judgement, state, words) => {
    expect(judgement.state).toBe(state);
    expect(problem(judgement)!.words.join("\n")).toMatch(words);
    const { todo } = problem(judgement)!;
    expect(todo).not.toBe("");
    // What looks like a key of the stack's config is one.
    for (const key of todo.match(/\b[a-z]+(?:[A-Z.][A-Za-z]+)+/g) ?? []) expect([key, key.split(".").reduce<Key | undefined>((outer, name) => outer?.keys?.[name], configKeys)]).toEqual([key, expect.anything()]);
  });
  test("a mount that failed is forgotten once something else has happened", () => {
    const at = (second: number, each: CoreV1Event) => ({ ...each, lastTimestamp: new Date(second * 1000) }) as CoreV1Event;
    const mount = event("FailedMount", 'configmap "rehearsal-hooks" not found');
    const pulling = event("Pulling", "Pulling image");
    expect(problem(of(waiting("ContainerCreating"), "", [at(1, mount), at(2, pulling)]))).toBeUndefined();
    expect(problem(of(waiting("ContainerCreating"), "", [at(3, mount), at(2, pulling)]))!.words).toEqual([mount.message]);
  });
  test("out of memory names the limit", () => {
    expect(problem(of(podOf({ containerStatuses: [container({ terminated: { exitCode: 137, reason: "OOMKilled" } })] })))!.todo).toContain("controller.resources.limits.memory");
  });
  test("while nothing is wrong nothing is suspected", () => {
    for (const judgement of [of(undefined), of(waiting("ContainerCreating")), of(running(false), ""), of(running(false), head("INFO", "jenkins.InitReactorRunner$1#onAttained: Prepared all plugins"))]) {
      expect(judgement.state).toBe("waiting");
      expect(problem(judgement)).toBeUndefined();
    }
    // Starting, Jenkins answers 503.
    expect(problem(of(running(false), "", [event("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")]))).toBeUndefined();
  });
});

describe("what is said", () => {
  const encoded = (text: string) => Buffer.from(text).toString("base64");
  test("holds no secret, nor a line of one, the longest first; what is too short to be told apart stays", () => {
    const hide = discreet([{ data: { key: encoded("-----BEGIN KEY-----\nMIIEowIBAAKC\n-----END KEY-----\n"), pin: encoded("1234") } }, { data: { whole: encoded("pass-word-long"), part: encoded("pass-word") } }, {}]);
    expect(hide("bad key MIIEowIBAAKC, tried pass-word-long and pass-word with 1234")).toBe("bad key [secret], tried [secret] and [secret] with 1234");
  });

  test("is held against the site's own Secrets that the pod reads, and the candidate's", () => {
    const pod = {
      ...candidate.pod,
      containers: [{ name: "jenkins", image: "controller:1", envFrom: [{ secretRef: { name: "tokens" } }], env: [{ name: "A", valueFrom: { secretKeyRef: { name: "single", key: "k" } } }], volumeMounts: [{ name: "site", mountPath: "/a" }, { name: "joined", mountPath: "/b" }] }],
      volumes: [...(candidate.pod.volumes ?? []), { name: "site", secret: { secretName: "sso" } }, { name: "joined", projected: { sources: [{ secret: { name: "smtp" } }, { secret: { name: "jenkins-admin" } }] } }],
    };
    const names = namedSecrets({ objects: rehearsalObjects({ ...candidate, pod, secrets: { "jenkins-admin": { "admin-password": encoded("x") } } }, args) });
    expect(names.sort()).toEqual(["single", "smtp", "sso", "tokens"]);
  });
});

test("the login page is below the prefix that Jenkins is started with, whatever a patched probe asks for", () => {
  const options = (value: string) => ({ env: [{ name: "JENKINS_OPTS", value }] });
  expect(loginPath(options("--webroot=/w --prefix=/jenkins"))).toBe("/jenkins/login");
  expect(loginPath(options("--webroot=/w"))).toBe("/login");
  expect(loginPath({})).toBe("/login");
});
