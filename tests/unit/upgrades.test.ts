import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import type { V1PodSpec } from "@kubernetes/client-node";
import { parseArguments } from "../../cli/backup/arguments";
import { parseSnapshots, type Snapshot } from "../../cli/backup/plan";
import { goal } from "../../cli/rollback";
import { Files } from "../../cli/upgrade";
import { type Center, propose, releaseNotes, withPins, withReference } from "../../cli/upgrades/center";
import { rehearsalInput } from "../../cli/upgrades/candidate";
import { startSeconds, type Trial } from "../../cli/upgrades/copy";
import { factsOf, readFacts } from "../../cli/upgrades/facts";
import { withImage } from "../../cli/upgrades/image";
import { findings, htmlReport, markdownReport, passes, terminalReport } from "../../cli/upgrades/report";
import { fenceContainer, onCopy, rehearsalObjects } from "../../components/jenkins-master/rehearsal";

const image = (name: string) => `registry.test/controller@sha256:${name.repeat(64)}`;
const listed = ["version\t2.1", "item\tjobs/a", "item\tjobs/b", "build\tjobs/a\t1", "build\tjobs/b\t1", "build\tjobs/b\t2", "plugin\tgit\t5.0\tactive", "plugin\tmailer\t1.0\tactive", "monitor\tOldDataMonitor", "memory\t104857600\t1073741824"].join("\n");
const without = (...words: string[]) => factsOf(listed.split("\n").filter((line) => !words.some((word) => line.includes(word))).join("\n"));
const snapshot: Snapshot = { id: "0123abcd", time: new Date("2026-11-26T02:00:00Z"), items: 2, builds: 3, suspect: false };
const trial = (over: Partial<Trial> = {}): Trial => ({
  stack: "prod", time: new Date("2026-11-26T03:00:00Z"), snapshot, image: image("b"), runningImage: image("a"), problems: [], notes: [],
  inventory: readFacts(listed), copy: factsOf(listed), running: factsOf(listed), ...over,
});
const said = (of: Trial) => findings(of).map(({ level, what, words }) => [level, what, ...words]);

describe("what a trial means", () => {
  test("nothing is to be said of a copy that has all", () => {
    expect(said(trial())).toEqual([]);
    expect(passes(trial())).toBe(true);
    expect(terminalReport(trial())).toContain("prod: Jenkins comes up with all that it has");
  });

  test("a job that is not loaded stops it, its builds are counted with it, and a build of another job is named", () => {
    expect(said(trial({ copy: without("jobs/b") }))).toEqual([["stop", "1 jobs or folders of the snapshot are not loaded", "jobs/b, with 2 builds"]]);
    expect(said(trial({ copy: without("jobs/b\t2") }))).toEqual([["stop", "1 builds of the snapshot are not loaded", "jobs/b #2"]]);
  });

  test("what the running Jenkins has not loaded either is not the change's doing", () => {
    const both = trial({ copy: without("jobs/b"), running: without("jobs/b") });
    expect(said(both)).toEqual([["look", "1 jobs or folders are not loaded by the running Jenkins either", "jobs/b"]]);
    expect(passes(both)).toBe(true);
    expect(passes(trial({ copy: without("jobs/b"), running: undefined, notAsked: "no way" }))).toBe(false);
  });

  test("a plugin that failed, one that is gone, and data that is not understood stop it", () => {
    expect(said(trial({ copy: factsOf(`${listed.replace("plugin\tgit\t5.0\tactive", "plugin\tgit\t5.0\tinactive")}\nfailed\tgit\tneeds credentials`) }))).toEqual([["stop", "1 plugins failed that the running Jenkins loads", "git: needs credentials"]]);
    expect(said(trial({ copy: without("mailer") }))).toEqual([["stop", "1 plugins are in use now and would not be any more", "mailer 1.0"]]);
    expect(said(trial({ copy: factsOf(`${listed}\nunreadable\ta\tNonExistentFieldException`) }))).toEqual([["stop", "1 jobs or builds have data that would not be understood any more", "a: NonExistentFieldException"]]);
  });

  test("new remarks, a full heap and a slow start are said and stop nothing", () => {
    const slow = trial({ copy: { ...factsOf(`${listed}\nmonitor\tother`.replace("104857600", "1000000000")), startSeconds: 90 }, running: { ...factsOf(listed), startSeconds: 30 } });
    expect(said(slow).map(([level, what]) => `${level} ${what}`)).toEqual(["look 1 remarks of Jenkins for its administrators would be new", "look 954 of 1024 MiB of the heap are in use right after the start", "look it took 90 s to come up, the running one 30 s"]);
    expect(passes(slow)).toBe(true);
  });

  test("a Jenkins that does not come up is told in its own words, in each form, and nothing in them is taken for markup", () => {
    const failed = trial({ copy: undefined, problems: [{ what: "Jenkins refuses the configuration", words: ["<b>: sytemMessage | x"], todo: "Correct it." }] });
    expect(passes(failed)).toBe(false);
    expect(terminalReport(failed)).toMatch(/! Jenkins refuses the configuration\n {4}<b>: sytemMessage \| x\n {4}-> Correct it\./);
    expect(markdownReport(failed)).toContain("### Rehearsal of prod: ❌ not as it is");
    expect(htmlReport(failed)).toContain("<li>&#60;b&#62;: sytemMessage | x</li>");
    expect(passes(trial({ copy: undefined }))).toBe(false);
  });

  test("the plugins that change are listed with both versions", () => {
    const report = markdownReport(trial({ copy: factsOf(listed.replace("git\t5.0", "git\t5.1")) }));
    expect(report).toContain("| git | 5.0 | 5.1 |");
    expect(report).toContain("| image | controller@sha256:aaaaaaaaaaaa | controller@sha256:bbbbbbbbbbbb |  |");
  });

  test("an answer without a version is none", () => expect(() => factsOf("Exception in thread")).toThrow(/does not say what it has: Exception/));

  test("the start is counted where the pod has stayed ready", () => {
    const pod = (ready: string) => ({ status: { containerStatuses: [{ name: "jenkins", state: { running: { startedAt: new Date("2026-01-01T00:00:00Z") } } }], conditions: [{ type: "Ready", status: "True", lastTransitionTime: new Date(ready) }] } }) as unknown as Parameters<typeof startSeconds>[0];
    expect(startSeconds(pod("2026-01-01T00:00:42Z"))).toBe(42);
    expect(startSeconds(pod("2026-01-03T00:00:42Z"))).toBeUndefined();
  });
});

describe("the copy's pod", () => {
  const pod: V1PodSpec = {
    serviceAccountName: "jenkins",
    initContainers: [{ name: "configuration", image: image("b"), volumeMounts: [{ name: "casc", mountPath: "/casc" }] }],
    containers: [{ name: "jenkins", image: image("b"), volumeMounts: [{ name: "home", mountPath: "/var/jenkins_home" }, { name: "tmp", mountPath: "/tmp" }] }, { name: "config-reload", image: image("b") }],
    volumes: [{ name: "home", persistentVolumeClaim: { claimName: "jenkins-home" } }, { name: "tmp", emptyDir: {} }, { name: "casc", configMap: { name: "jenkins-casc" } }],
  };
  const plain = rehearsalObjects({ namespace: "jenkins", pod, configMaps: {}, secrets: {} }, { timeoutSeconds: 600, resources: {} });
  const restic = { name: "restic", image: "restic:1", command: ["former"], env: [{ name: "A", value: "b" }], volumeMounts: [{ name: "work", mountPath: "/scratch" }, { name: "home", mountPath: "/var/jenkins_home" }, { name: "tmp", mountPath: "/tmp" }] };
  const { job, configMaps, networkPolicy } = onCopy(plain, { restic, volumes: [{ name: "work", emptyDir: {} }, { name: "tmp", emptyDir: { sizeLimit: "1Gi" } }, { name: "home", ephemeral: {} }], snapshot: "0123abcd" });
  const spec = job.spec!.template.spec!;

  test("is restored, fenced in, and only then configured and started; each volume is there once, and the running home is not", () => {
    expect(spec.initContainers!.map(({ name }) => name)).toEqual(["restic", fenceContainer, "configuration"]);
    expect(spec.containers.map(({ name }) => name)).toEqual(["jenkins"]);
    expect(spec.volumes!.map(({ name }) => name).sort()).toEqual(["casc", "home", "rehearsal-hooks-copy", "tmp", "work"]);
    expect(spec.volumes!.find(({ name }) => name === "home")).toEqual({ name: "home", ephemeral: {} });
    expect(JSON.stringify(job)).not.toContain("jenkins-home");
    expect(spec.automountServiceAccountToken).toBe(false);
    expect(job.spec!.activeDeadlineSeconds).toBeGreaterThan(plain.job.spec!.activeDeadlineSeconds!);
  });

  test("takes away what would start or connect, knows no name, and nobody gets in or out", () => {
    const [copied] = spec.initContainers!;
    expect(copied.env).toEqual([{ name: "A", value: "b" }, { name: "SNAPSHOT", value: "0123abcd" }]);
    expect(copied.command![2]).toMatch(/queue\.xml/);
    expect(copied.command![2]).toMatch(/doQuietDown/);
    expect(copied.command![2]).toMatch(/clouds\.clear/);
    expect(spec.containers[0].volumeMounts).toContainEqual({ name: "rehearsal-hooks-copy", mountPath: "/etc/resolv.conf", subPath: "resolv.conf", readOnly: true });
    expect(configMaps.find(({ metadata }) => metadata?.name === "rehearsal-hooks-copy")!.data).toHaveProperty(["resolv.conf"]);
    expect(networkPolicy.spec).toMatchObject({ policyTypes: ["Ingress", "Egress"] });
    expect(networkPolicy.spec!.egress).toBeUndefined();
  });

  test("the rollout's own rehearsal stays as it was, and shares neither a name nor all labels with a copy's", () => {
    expect(plain.job.spec!.template.spec!.initContainers!.map(({ name }) => name)).toEqual(["configuration"]);
    const both = [plain, onCopy(rehearsalObjects({ namespace: "jenkins", pod, configMaps: { "jenkins-casc": {} }, secrets: { "jenkins-admin": {} } }, { timeoutSeconds: 600, resources: {} }), { restic, volumes: [] })];
    const places = both.map((each) => [each.job, each.networkPolicy, ...each.configMaps, ...each.secrets].map(({ kind, metadata }) => `${kind} ${metadata!.name}`));
    expect(places[0].filter((place) => places[1].includes(place))).toEqual([]);
    for (const { job: { metadata, spec: made }, networkPolicy: policy, configMaps: maps } of both) {
      expect(made!.template.metadata!.labels).toEqual(metadata!.labels);
      expect(policy.spec!.podSelector!.matchLabels).toEqual(metadata!.labels);
      for (const map of maps) expect(map.metadata!.labels).toEqual(metadata!.labels);
    }
    expect(both.map(({ job: { metadata } }) => metadata!.labels!["app.kubernetes.io/name"])).toEqual(["jenkins-rehearsal", "jenkins-rehearsal-copy"]);
    expect(both[1].job.spec!.template.spec!.volumes).toContainEqual({ name: "casc", configMap: { name: "rehearsal-jenkins-casc-copy" } });
  });

  test("another image takes the place of the controller's own wherever that stands", () => {
    const other = withImage({ ...pod, initContainers: [...pod.initContainers!, { name: "x", image: "other" }] }, image("c"));
    expect([...other.containers, ...other.initContainers!].map((each) => each.image)).toEqual([image("c"), image("c"), image("c"), "other"]);
  });
});

describe("what an upgrade proposes", () => {
  const center: Center = {
    core: { version: "2.600.1" },
    plugins: {
      git: { version: "6.0", requiredCore: "2.590", dependencies: [{ name: "scm-api", version: "700" }, { name: "matrix", version: "1", optional: true }] },
      "scm-api": { version: "710", dependencies: [{ name: "structs", version: "3" }] },
      structs: { version: "3" },
      kubernetes: { version: "9", requiredCore: "2.610", dependencies: [] },
    },
    warnings: [{ type: "plugin", name: "structs", message: "XSS", url: "https://www.jenkins.io/security/3", versions: [{ pattern: "3" }] }],
  };
  const pins = [{ name: "git", version: "5.0" }, { name: "kubernetes", version: "8" }, { name: "gone", version: "1" }];
  const core = { name: "jenkins", from: "2.568.2", to: "2.600.1" };

  test("the newest that runs on that core, with what it needs, and why something stays", () => {
    const proposal = propose(pins, center, core);
    expect(proposal.plugins).toEqual([{ name: "git", from: "5.0", to: "6.0" }]);
    expect([...proposal.dependencies]).toEqual([["scm-api", "700"], ["structs", "3"]]);
    expect(proposal.remarks).toEqual(["kubernetes stays at 8: 9 needs Jenkins 2.610", "gone stays at 1: the update centre does not offer it for Jenkins 2.600.1", "structs 3 (for scm-api): XSS, https://www.jenkins.io/security/3"]);
  });

  test("a pin that another one needs newer goes with it", () => {
    expect(propose([...pins, { name: "scm-api", version: "600" }], center, core).plugins).toContainEqual({ name: "scm-api", from: "600", to: "710" });
  });

  test("where there is no consistent set, each reason is named", () => {
    const broken: Center = { ...center, plugins: { ...center.plugins, "scm-api": { version: "650" }, git: { ...center.plugins.git, dependencies: [{ name: "scm-api", version: "700" }, { name: "nowhere", version: "1" }] } } };
    expect(() => propose(pins, broken, core)).toThrow("no consistent set of plugins for Jenkins 2.600.1:\n  git 6.0 needs scm-api 700, of which 650 is the newest\n  git 6.0 needs nowhere 1, which is not there");
  });

  test("pins and references are written wherever they stand, and nothing else is", () => {
    expect(withPins("# git:5.0\ngit:5.0\nmy-git:5.0\n  plugins: [git:5.0, \"x:1\"]\ngit:5.0.1\n", [{ name: "git", from: "5.0", to: "6.0" }])).toBe("# git:6.0\ngit:6.0\nmy-git:5.0\n  plugins: [git:6.0, \"x:1\"]\ngit:5.0.1\n");
    const text = fs.readFileSync(path.resolve(__dirname, "../../images/upstream.json"), "utf8");
    const digest = `sha256:${"c".repeat(64)}`;
    const next = withReference(text, "docker.io/jenkins/jenkins", "2.568.2-jdk21", "2.600.1-jdk21", digest);
    expect(JSON.parse(next)).toEqual({ ...JSON.parse(text), jenkins: { image: "docker.io/jenkins/jenkins", tag: "2.600.1-jdk21", digest } });
    expect(withReference("jenkins: m:5000/j:1-x@sha256:" + "a".repeat(64) + "\nother: m:5000/j:1-xy\n", "m:5000/j", "1-x", "2-x", digest)).toBe(`jenkins: m:5000/j:2-x@${digest}\nother: m:5000/j:1-xy\n`);
    expect(releaseNotes({ name: "git", from: "5.0", to: "6.0" })).toBe("https://plugins.jenkins.io/git/releases/");
    expect(releaseNotes(core)).toContain("https://www.jenkins.io/doc/upgrade-guide/2.600/");
  });

  test("files change together, keep their mode, and go back together; one that cannot be written leaves all", () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "upgrade-"));
    const [a, b] = ["a", "b"].map((name) => path.join(folder, name));
    fs.writeFileSync(a, "1", { mode: 0o640 });
    fs.writeFileSync(b, "2");
    const work = new Files();
    expect(work.write(new Map([[a, "one"], [b, "2"]]))).toEqual([a]);
    expect([fs.readFileSync(a, "utf8"), fs.statSync(a).mode & 0o777]).toEqual(["one", 0o640]);
    work.undo();
    expect(fs.readFileSync(a, "utf8")).toBe("1");
    // Nothing can be written there.
    fs.mkdirSync(`${b}.new`);
    expect(() => new Files().write(new Map([[a, "one"], [b, "two"]]))).toThrow(/EISDIR/);
    expect([fs.readFileSync(a, "utf8"), fs.readFileSync(b, "utf8"), fs.readdirSync(folder).sort()]).toEqual(["1", "2", ["a", "b"]]);
    fs.rmSync(folder, { recursive: true });
  });
});

describe("where a rollback goes", () => {
  const tagged = (id: string, time: string, ...tags: string[]) => ({ short_id: id, time, tags: ["home", "items=1", "builds=1", ...tags] });
  const found = parseSnapshots(JSON.stringify([tagged("aaaaaaaa", "2026-01-01T00:00:00Z", `image=${image("a")}`, "upgrade=1"), tagged("bbbbbbbb", "2026-01-02T00:00:00Z"), tagged("cccccccc", "2026-01-03T00:00:00Z", `image=${image("c")}`, "upgrade=2")]));

  test("to the newest snapshot that another image left", () => {
    expect(found.map(({ leaving }) => leaving)).toEqual([image("a"), undefined, image("c")]);
    expect(goal(found, image("d")).id).toBe("cccccccc");
    expect(goal(found, image("c")).id).toBe("aaaaaaaa");
    expect(goal(found, image("d"), "aaaaaaaa").leaving).toBe(image("a"));
  });

  test("what is missing is said", () => {
    expect(() => goal(found.slice(1, 2), image("a"))).toThrow(/no snapshot is there of a home as another image left it/);
    expect(() => goal(found, image("d"), "bbbbbbbb")).toThrow(/bbbbbbbb is no snapshot that an image left; those are aaaaaaaa, cccccccc/);
  });

  test("the backup before an image is told the cluster as the update has it", () => {
    expect(parseArguments(["backup", "--before", image("b"), "--context", "c", "--namespace", "n", "--kubeconfig", "~/k"], [])).toMatchObject({ command: "backup", before: image("b"), context: "c", namespace: "n", kubeconfig: "~/k", ofStack: false });
    expect(() => parseArguments(["restore", "--before", "x"], [])).toThrow(/--before is about a backup/);
  });
});

test("what the program is given to try: with a rehearsal, and as secrets what is encrypted and what stands for a private key's file", () => {
  const given = { "build-platform:controlPlane": { user: "root", privateKeyFile: "~/.ssh/id_ed25519" }, "build-platform:rehearsal": '{"enabled":false,"timeoutSeconds":60}', "build-platform:backup": { password: "text of it" } };
  const { config, secretKeys } = rehearsalInput({ name: "build-platform", config: {} }, given, ["backup"]);
  expect(secretKeys.sort()).toEqual(["build-platform:backup", "build-platform:controlPlane"]);
  expect(JSON.parse(config["build-platform:rehearsal"])).toEqual({ enabled: true, timeoutSeconds: 60 });
  expect(config["build-platform:controlPlane"]).toContain("PRIVATE KEY");
  expect(config["build-platform:backup"]).toContain("text of it");
});
