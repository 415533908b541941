import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import * as pulumi from "@pulumi/pulumi";
import { stringify } from "yaml";
import { compare, dataRisks, dataSteps, previewProblem } from "../../cli/diff";
import { objectPath, offlineConfig, renderStack, resourceText, type Rendered } from "../../cli/offline";
import { root } from "../../cli/repository";
import { certificate, fits } from "../../config/pieces";
import { refusal, wordsOf } from "../../components/refusal";

/** The program is loaded and run in a process of its own. */
jest.setTimeout(300_000);

const claim = (over: object = {}, protect = true): Rendered => ({
  type: "kubernetes:core/v1:PersistentVolumeClaim",
  name: "jenkins-home",
  props: { metadata: { name: "jenkins-home", namespace: "jenkins" }, spec: { storageClassName: "openebs-hostpath", resources: { requests: { storage: "20Gi" } }, ...over } },
  protect,
});
const settings = (data: object): Rendered => ({ type: "kubernetes:core/v1:ConfigMap", name: "settings", props: { metadata: { name: "settings", namespace: "jenkins" }, data }, protect: false });

describe("comparing two renderings", () => {
  test("is silent where nothing differs, whatever the order of keys", async () => {
    expect(await compare([settings({ a: "1", b: "2" })], [settings({ b: "2", a: "1" })], ["main", "head"])).toBe("");
  });

  test("counts, names and shows what is new, gone and changed", async () => {
    const other = (name: string): Rendered => ({ ...settings({}), props: { metadata: { name } } });
    const text = await compare([settings({ a: "old" }), other("gone"), claim()], [settings({ a: "new" }), other("new"), claim()], ["main", "head"]);
    expect(text).toContain("1 changed, 1 new, 1 gone, 1 as before (main -> head)");
    expect(text).toContain("  ~ jenkins/ConfigMap/settings\n");
    expect(text).toContain("  - cluster/ConfigMap/gone\n");
    expect(text).toContain("  + cluster/ConfigMap/new\n");
    expect(text).toMatch(/^- {2}a: old$/m);
    expect(text).toMatch(/^\+ {2}a: new$/m);
    expect(text).not.toContain("DATA AT RISK");
    expect(text).not.toContain("jenkins-home");
  });

  test("an object that only changes its Pulumi name is the same object", () => {
    expect(objectPath({ ...claim(), name: "renamed" })).toBe(objectPath(claim()));
  });

  test("a script on standard input is shown by its hash", () => {
    const text = resourceText({ type: "command:remote:Command", name: "node", props: { create: "sh -s", stdin: "line\nline\n" }, protect: false });
    expect(text).toMatch(/stdin: "\[script of 3 lines, sha256 [0-9a-f]{12}\]"/);
  });
});

describe("data at risk", () => {
  test.each([
    ["deletion", [], /jenkins\/PersistentVolumeClaim\/jenkins-home would be deleted \(it is protected/],
    ["another class", [claim({ storageClassName: "fast" })], /replaced, and its data lost: storageClassName "openebs-hostpath" -> "fast"/],
    ["another size", [claim({ resources: { requests: { storage: "10Gi" } } })], /cannot be resized where it is \(20Gi -> 10Gi\)/],
    ["lost protection", [claim({}, false)], /lose its protection/],
  ])("%s is named", (_, after, message) => {
    const risks = dataRisks([claim()], after as Rendered[]);
    expect(risks).toHaveLength(1);
    expect(risks[0]).toMatch(message as RegExp);
  });

  test("an unchanged claim and a deleted ConfigMap are none", () => {
    expect(dataRisks([claim(), settings({})], [claim()])).toEqual([]);
  });
});

describe("the guard over a preview", () => {
  const urn = (type: string, name: string) => `urn:pulumi:prod::build-platform::build-platform:jenkins:JenkinsMaster$${type}::${name}`;
  const home = urn("kubernetes:core/v1:PersistentVolumeClaim", "jenkins-home");

  test("names each object with data that goes", () => {
    const steps = dataSteps({
      steps: [
        { op: "replace", urn: home, replaceReasons: ["spec.storageClassName"] },
        { op: "delete", urn: urn("kubernetes:core/v1:Namespace", "jenkins-namespace") },
      ],
    });
    expect(steps).toEqual(["replace of PersistentVolumeClaim jenkins-home because of spec.storageClassName", "delete of Namespace jenkins-namespace"]);
  });

  test("lets updates, creations and replacements of other objects pass", () => {
    expect(
      dataSteps({
        steps: [
          { op: "same", urn: home },
          { op: "create", urn: home },
          { op: "replace", urn: urn("kubernetes:core/v1:Service", "jenkins-http") },
          { op: "delete", urn: urn("command:local:Command", "old") },
        ],
      }),
    ).toEqual([]);
    expect(dataSteps({})).toEqual([]);
  });

  test("does not take a preview that failed, or no preview at all, for one without risk", () => {
    expect(previewProblem({ steps: [], changeSummary: { same: 3 }, diagnostics: [{ severity: "warning", message: "warning: x" }] })).toBeUndefined();
    expect(previewProblem({ changeSummary: { same: 3 } })).toBeUndefined();
    expect(previewProblem({ steps: [], diagnostics: [{ severity: "warning", message: "w" }, { severity: "error", message: "error: no answer\nmore" }] })).toBe("the preview failed, so it does not tell what goes: error: no answer");
    expect(previewProblem({ name: "build-platform" })).toContain("pulumi preview --json");
    expect(previewProblem([])).toContain("pulumi preview --json");
  });
});

describe("config without the operator's machine", () => {
  test("defaults are filled in, encrypted values and files become placeholders, and their keys are secret", () => {
    const { config, secretKeys } = offlineConfig(
      "p",
      { size: { type: "string", default: "20Gi" }, on: { type: "boolean", default: true } },
      { "p:adminPassword": { secure: "v1:xyz" }, "p:controlPlane": { privateKeyFile: "~/.ssh/id", nodes: [{ name: "a", hostKeyFile: "~/a.pub" }] }, "p:size": "5Gi" },
    );
    expect(config["p:size"]).toBe("5Gi");
    expect(config["p:on"]).toBe("true");
    expect(config["p:adminPassword"]).not.toContain("xyz");
    const controlPlane = JSON.parse(config["p:controlPlane"]);
    expect(controlPlane.privateKey).toContain("PRIVATE KEY");
    expect(controlPlane.privateKeyFile).toBeUndefined();
    expect(controlPlane.nodes[0].hostKey).toMatch(/^ssh-ed25519 AAAA/);
    expect(secretKeys.sort()).toEqual(["p:adminPassword", "p:controlPlane"]);
  });

  test("certificates and chains of jump hosts are taken for what they are", () => {
    const given = { certificateFile: "~/c.pub", privateKeyFile: "~/k", proxy: [{ host: "a.example.com", privateKeyFile: "~/k", hostKeyFile: "~/h" }], nodes: [] };
    const { certificate: placeholder, ...rest } = JSON.parse(offlineConfig("p", {}, { "p:controlPlane": given }).config["p:controlPlane"]) as { certificate: string };
    expect(fits(certificate, placeholder)).toBe(true);
    expect(rest).toMatchObject({ proxy: [{ privateKey: expect.any(String), hostKey: expect.any(String) }] });
  });

  test("another file is another placeholder", () => {
    const hostKey = (file: string) => offlineConfig("p", {}, { "p:c": { hostKeyFile: file } }).config["p:c"];
    expect(hostKey("a.pub")).toBe(hostKey("a.pub"));
    expect(hostKey("a.pub")).not.toBe(hostKey("b.pub"));
  });
});

describe("rendering the real program", () => {
  let folder: string;
  beforeAll(() => {
    folder = fs.mkdtempSync(path.join(os.tmpdir(), "render-"));
    for (const name of fs.readdirSync(root)) {
      if ([".git", "node_modules", "sandbox", "tests", "docs"].includes(name) || name.endsWith(".log")) continue;
      fs.cpSync(path.join(root, name), path.join(folder, name), { recursive: true });
    }
    fs.symlinkSync(path.join(root, "node_modules"), path.join(folder, "node_modules"));
  });
  afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

  const stack = (name: string, over: object) => {
    const config = {
      domain: "ci.example.com",
      kubeContext: "nowhere",
      controlPlane: { privateKey: { secure: "v1:a" }, nodes: [{ name: "a", host: "a.example.com", hostKeyFile: "/nonexistent/a.pub" }] },
      registry: { host: "registry.example.com", username: "ci", password: { secure: "v1:b" } },
      adminPassword: { secure: "v1:c" },
      ...over,
    };
    const named = Object.fromEntries(Object.entries(config).map(([key, value]) => [`build-platform:${key}`, value]));
    fs.writeFileSync(path.join(folder, `Pulumi.${name}.yaml`), stringify({ config: named }));
  };

  test("needs no cluster, registry, file or passphrase, and shows no secret in any form", async () => {
    stack("offline", {});
    const rendered = await renderStack("offline", folder);
    const paths = rendered.map(objectPath);
    expect(paths).toContain("jenkins/PersistentVolumeClaim/jenkins-home");
    expect(paths).toContain("jenkins/Ingress/jenkins");
    const secrets = rendered.filter(({ type }) => type.endsWith(":Secret"));
    expect(secrets.length).toBeGreaterThan(0);
    for (const { props } of secrets) expect(JSON.stringify(props)).toContain("[secret]");
    const all = JSON.stringify(rendered);
    expect(all).not.toContain("encrypted value");
    expect(all).not.toContain(Buffer.from("[encrypted value]").toString("base64"));
    expect(all).not.toContain(Buffer.from("ci:[encrypted value]").toString("base64"));
    expect(rendered.find((resource) => objectPath(resource) === "jenkins/PersistentVolumeClaim/jenkins-home")?.protect).toBe(true);
  });

  test("a refused config says so in the program's words: once, from the first mistake to the last, and nothing else", async () => {
    const agents = Array.from({ length: 40 }, (_, i) => ({ name: `No Name ${i}`, image: "maven" }));
    stack("broken", { domain: "not a host", agents, storageSize: "20" });
    const said = await renderStack("broken", folder).then(() => "rendered", (error: Error) => error.message);
    expect(said).toMatch(/^stack broken cannot be rendered:\nStack broken cannot be brought up as configured; nothing was changed\. To mend:\n/);
    expect(said.length).toBeGreaterThan(4000);
    for (const key of ["domain", "storageSize", "agents[0].name", "agents[39].name"]) expect(said.split("\n").filter((line) => line === `  ${key}`)).toHaveLength(1);
    expect(said.split("\n").slice(2).filter((line) => !/^ {2}\S+$|^ {4}(found|expected|fix) /.test(line))).toEqual([]);
  });

  test("what the program warns of is told, also beside mistakes", async () => {
    const cascFolder = path.join(folder, "doubtful");
    fs.mkdirSync(cascFolder);
    fs.writeFileSync(path.join(cascFolder, "a.yaml"), "unclassified: { frobnicator: { x: 1 } }\n");
    const warned: string[] = [];
    stack("doubtful", { cascFolder });
    expect((await renderStack("doubtful", folder, {}, (text) => void warned.push(text))).length).toBeGreaterThan(10);
    expect(warned).toEqual([expect.stringMatching(/^warning: cascFolder: .*a\.yaml holds .*frobnicator.*$/)]);
    stack("doubtful", { cascFolder, domain: "not a host" });
    await expect(renderStack("doubtful", folder)).rejects.toThrow(/^stack doubtful cannot be rendered:\nwarning: cascFolder: .*frobnicator.*\nStack doubtful cannot[^]*domain/);
  });

  test.each<[string, Error, RegExp]>([
    ["a refusal is its words alone", refusal("domain is wrong"), /^domain is wrong$/],
    ["arguments that are refused are named", new pulumi.InputPropertiesError({ message: "cannot be made", errors: [{ propertyPath: "home.size", reason: "is none" }] }), /^cannot be made\n {2}home\.size: is none$/],
    ["a mistake of the program says where it arose", new TypeError("x is not a function"), /^TypeError: x is not a function\n +at /],
  ])("%s", (_, error, words) => expect(wordsOf(error)).toMatch(words));

  test("a stack without a file is answered with those that have one", async () => {
    await expect(renderStack("nosuch", folder)).rejects.toThrow(/there is no Pulumi\.nosuch\.yaml; stacks with a file: .*prod/);
  });
});
