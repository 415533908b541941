import * as fc from "fast-check";
import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { parse } from "yaml";
import { renderStack } from "../../cli/offline";
import { root } from "../../cli/repository";
import { applyPatches, type Missed, type Patch, patched } from "../../components/patches";
import { parseConfig } from "../../config";
import { environment, registered, settled, stackConfig, the, useMocks, valueOf } from "./mocks";

const pod = {
  containers: [{ name: "jenkins", image: "j", env: [{ name: "A", value: "1" }, { name: "B", value: "2" }], args: ["x", "y"] }, { name: "reload", image: "r" }],
  dnsPolicy: "ClusterFirst",
};

describe("a patch", () => {
  test("merges objects, and removes with null", () => {
    expect(patched({ a: { b: 1, c: 2 }, d: 3 }, { a: { b: null, e: { f: 4 } } })).toEqual({ a: { c: 2, e: { f: 4 } }, d: 3 });
    expect(patched({ a: 1 }, { b: { c: null, d: 1 } })).toEqual({ a: 1, b: { d: 1 } });
  });

  test("merges the entries of lists that Kubernetes joins by a key, and adds those that are new", () => {
    const after = patched(pod, { containers: [{ name: "jenkins", env: [{ name: "B", value: "3" }, { name: "C", value: "4" }] }, { name: "extra", image: "e" }] });
    expect(after).toEqual({
      ...pod,
      containers: [{ ...pod.containers[0], env: [{ name: "A", value: "1" }, { name: "B", value: "3" }, { name: "C", value: "4" }] }, pod.containers[1], { name: "extra", image: "e" }],
    });
  });

  test("takes an entry away by its key", () => {
    expect(patched(pod, { containers: [{ name: "reload", $patch: "delete" }] })).toEqual({ ...pod, containers: [pod.containers[0]] });
    expect(patched({}, { containers: [{ name: "none", $patch: "delete" }] })).toEqual({ containers: [] });
  });

  test("replaces any other list", () => {
    expect(patched(pod, { containers: [{ name: "jenkins", args: ["z"] }] })).toEqual({ ...pod, containers: [{ ...pod.containers[0], args: ["z"] }, pod.containers[1]] });
  });

  test("changes what is known only later when it is known", async () => {
    const after = patched({ spec: pulumi.output({ containers: [pulumi.output({ name: "a", image: "x" })] }) }, { spec: { containers: [{ name: "a", tty: true }] } }) as { spec: pulumi.Output<unknown> };
    expect(await valueOf(after.spec)).toEqual({ containers: [{ name: "a", image: "x", tty: true }] });
  });

  test("made twice is made once, and leaves what it was made of as it was", () => {
    const json = fc.dictionary(fc.constantFrom("a", "b", "containers"), fc.oneof(fc.integer(), fc.constant(null), fc.dictionary(fc.constantFrom("a", "b"), fc.integer()), fc.uniqueArray(fc.record({ name: fc.constantFrom("x", "y"), v: fc.integer() }), { selector: ({ name }) => name })));
    fc.assert(
      fc.property(json, json, (value, patch) => {
        const before = JSON.stringify(value);
        const once = patched(value, patch);
        expect(patched(once, patch)).toEqual(once);
        expect(JSON.stringify(value)).toBe(before);
      }),
    );
  });
});

describe("objects of the stack", () => {
  /** What of the patches is told of the objects that `program` makes. */
  async function told(patches: Patch[], program: () => void): Promise<Missed[]> {
    await useMocks();
    let found: Missed[] = [];
    const judge = { now: async () => {} };
    await pulumi.runtime.runInPulumiStack(async () => {
      judge.now = applyPatches(patches, (missed) => {
        found = missed;
        return new Error("refused");
      });
      program();
    });
    await settled();
    expect(registered.filter(({ type }) => type.startsWith("kubernetes:"))).toEqual([]);
    await judge.now().catch((error: Error) => expect(error.message).toBe("refused"));
    await settled();
    return found;
  }
  const inNamespace = (name: string) => new k8s.core.v1.Namespace("n", { metadata: { name } }).metadata.name;

  test("come with the patches of their kind, name and namespace; a namespace's that none has is told once it is known", async () => {
    const missed = await told(
      [
        { target: { kind: "ConfigMap", name: "a" }, patch: { data: { x: "1" } } },
        { target: { kind: "ConfigMap" }, patch: { metadata: { annotations: { all: "yes" } } } },
        { target: { kind: "ConfigMap", name: "a", namespace: "elsewhere" }, patch: { data: { y: "2" } } },
        { target: { kind: "ConfigMap", name: "a", namespace: "here" }, patch: { data: { z: "3" } } },
        { target: { kind: "Pod", name: "maven" }, patch: { spec: {} } },
      ],
      () => {
        new k8s.core.v1.ConfigMap("one", { metadata: { name: "a", namespace: inNamespace("here") }, data: { own: "0" } });
        new k8s.core.v1.ConfigMap("two", { metadata: { name: "b" }, data: { own: "0" } });
      },
    );
    expect(the("ConfigMap", "one").inputs).toMatchObject({ metadata: { annotations: { all: "yes" } }, data: { own: "0", x: "1", z: "3" } });
    expect(the("ConfigMap", "one").inputs.data).not.toHaveProperty("y");
    expect(the("ConfigMap", "two").inputs).toMatchObject({ metadata: { annotations: { all: "yes" } }, data: { own: "0" } });
    expect(the("ConfigMap", "two").inputs.data).not.toHaveProperty("x");
    expect(the("Namespace", "n").inputs.metadata).not.toHaveProperty("annotations");
    expect(missed).toEqual([{ index: 2, seen: ["a", "b"], left: [] }]);
  });

  test("are not made at all where a patch is for none of them", async () => {
    const missed = await told([{ target: { kind: "ConfigMap", name: "b" }, patch: { data: { x: "1" } } }, { target: { kind: "Deployment" }, patch: { spec: {} } }], () => {
      new k8s.core.v1.ConfigMap("one", { metadata: { name: "a", namespace: inNamespace("here") } });
    });
    expect(missed).toEqual([{ index: 0, seen: ["a"], left: [] }, { index: 1, seen: [], left: [] }]);
    expect(registered.filter(({ type }) => type.startsWith("kubernetes:"))).toEqual([]);
  });

  test.each<[string, Record<string, unknown>, boolean]>([
    ["an entry that is not there, taken away", { spec: { containers: [{ name: "nosuch", $patch: "delete" }], tolerations: [{ key: "none", $patch: "delete" }] } }, false],
    ["a value that is so already", { spec: { dnsPolicy: "ClusterFirst", containers: [{ name: "reload", image: "r" }] } }, false],
    ["a key that is not there, taken away", { spec: { nodeName: null } }, false],
    ["what the patch before it did", { metadata: { labels: { first: "yes" } } }, false],
    ["one value of several", { spec: { dnsPolicy: "ClusterFirst", containers: [{ name: "reload", image: "other" }] } }, true],
    ["a key taken away", { spec: { dnsPolicy: null } }, true],
    ["the order of a list that is replaced", { spec: { containers: [{ name: "jenkins", args: ["y", "x"] }] } }, true],
    ["what is known only later", { spec: { nodeSelector: { disk: "ssd" } } }, true],
  ])("a patch that hits and changes nothing is told: %s", async (_, patch, changed) => {
    const missed = await told(
      [
        { target: { kind: "Pod" }, patch: {} },
        { target: { kind: "ReplicationController", namespace: "here" }, patch: { metadata: { labels: { first: "yes" } } } },
        { target: { kind: "ReplicationController", name: "a", namespace: "here" }, patch },
      ],
      () => void new k8s.core.v1.ReplicationController("one", { metadata: { name: "a", namespace: inNamespace("here") }, spec: { ...pod, nodeSelector: pulumi.output({ disk: "ssd" }) } as object }),
    );
    expect(missed).toEqual(changed ? [] : [{ index: 2, seen: ["a"], left: ["a"] }]);
  });
});

describe("the stack config's patches", () => {
  const patches = [
    { target: { kind: "Deployment", name: "jenkins", namespace: "jenkins" }, patch: { spec: { template: { spec: { hostAliases: [{ ip: "192.0.2.1", hostnames: ["git.example.com"] }] } } } } },
    { target: { kind: "Pod", name: "maven" }, patch: { spec: { dnsPolicy: "None" } } },
  ];

  test("reach the stack's objects and the agents' pods", async () => {
    const resources = await renderStack("prod", root, { patches });
    const deployment = resources.find(({ type, name }) => type.endsWith(":Deployment") && name.startsWith("jenkins"));
    expect(deployment?.props.spec.template.spec).toMatchObject({ hostAliases: [{ ip: "192.0.2.1", hostnames: ["git.example.com"] }], serviceAccountName: "jenkins" });
    const casc = parse(resources.find(({ props }) => props.metadata?.name === "jenkins-casc")!.props.data["jenkins.yaml"]);
    const templates = casc.jenkins.clouds[0].kubernetes.templates as { name: string; yaml: string }[];
    const policies = templates.map(({ name, yaml }) => [name, parse(yaml).spec.dnsPolicy]);
    expect(policies).toContainEqual(["maven", "None"]);
    expect(policies).toContainEqual(["gradle", undefined]);
  }, 120_000);

  const cloudWith = async (...given: object[]) => {
    const casc = (await renderStack("prod", root, { patches: given })).find(({ props }) => props.metadata?.name === "jenkins-casc")!;
    const templates = parse(casc.props.data["jenkins.yaml"]).jenkins.clouds[0].kubernetes.templates as { name: string; yaml: string; yamlMergeStrategy: string }[];
    return Object.fromEntries(templates.map(({ name, yaml, yamlMergeStrategy }) => [name, { spec: parse(yaml).spec, yamlMergeStrategy }]));
  };

  test("reach the defaults of all pods by their name, and by no other", async () => {
    const hostAliases = [{ ip: "192.0.2.1", hostnames: ["git.example.com"] }];
    const cloud = await cloudWith({ target: { kind: "Pod", name: "pod-defaults" }, patch: { spec: { hostAliases } } }, { target: { kind: "Pod" }, patch: { spec: { nodeSelector: { disk: "ssd" } } } });
    expect(cloud["pod-defaults"]).toMatchObject({ spec: { hostAliases }, yamlMergeStrategy: "merge" });
    expect(cloud["pod-defaults"].spec).not.toHaveProperty("nodeSelector");
    expect(cloud.maven).toMatchObject({ spec: { nodeSelector: { disk: "ssd" } }, yamlMergeStrategy: "merge" });
    expect(cloud.maven.spec).not.toHaveProperty("hostAliases");
  }, 120_000);

  test("of an agent's pod hold in Jenkins: where the plugin's merge would pass them over, the template is not merged", async () => {
    const cloud = await cloudWith({ target: { kind: "Pod", name: "maven" }, patch: { spec: { dnsPolicy: "None" } } }, { target: { kind: "Pod", name: "gradle" }, patch: { spec: { containers: [{ name: "jnlp", tty: true }, { name: "further", image: "i", stdin: true }] } } });
    expect(cloud).toMatchObject({ maven: { yamlMergeStrategy: "override" }, gradle: { yamlMergeStrategy: "merge" } });
    const { gradle } = await cloudWith({ target: { kind: "Pod", name: "gradle" }, patch: { spec: { containers: [{ name: "jnlp", lifecycle: { preStop: { sleep: { seconds: 1 } } } }] } } });
    expect(gradle.yamlMergeStrategy).toBe("override");
  }, 120_000);

  test("that change nothing are refused with what there is", async () => {
    await expect(renderStack("prod", root, { patches: [{ ...patches[0], target: { kind: "Deployment", name: "jenkinss" } }] })).rejects.toThrow(
      /patches\[0\]\.target\n\s+found\s+Deployment jenkinss\n\s+expected\s+an object that the stack makes; of kind Deployment these: .*\bjenkins\b/,
    );
  }, 120_000);

  test("that hit an object and leave it as it is are refused with its name", async () => {
    const nosuch = { spec: { template: { spec: { containers: [{ name: "nosuch", $patch: "delete" }] } } } };
    await expect(renderStack("prod", root, { patches: [patches[0], { ...patches[0], patch: nosuch }] })).rejects.toThrow(/patches\[1\]\.patch\n\s+found\s+nothing that Deployment jenkins has not already\n/);
  }, 120_000);

  test.each([
    ["nothing", { target: { kind: "Deployment" }, patch: {} }, ["patches[0].patch"]],
    ["no kind", { target: {}, patch: { a: 1 } }, ["patches[0].target.kind"]],
    ["a name", { target: { kind: "Deployment" }, patch: { metadata: { name: "x" } } }, ["patches[0].patch.metadata.name"]],
    ["agents that are so already", { target: { kind: "Pod" }, patch: { spec: { restartPolicy: "Never", containers: [{ name: "nosuch", $patch: "delete" }] } } }, ["patches[0].patch"]],
    ["defaults of pods that are so already", { target: { kind: "Pod", name: "pod-defaults" }, patch: { spec: { restartPolicy: "Never" } } }, ["patches[0].patch"]],
    ["agents that there are not", { target: { kind: "Pod", name: "go" }, patch: { a: 1 } }, ["patches[0].target.name"]],
  ])("of %s are refused before that", (_, patch, keys) => {
    expect(parseConfig({ ...stackConfig("prod"), patches: [patch] }, environment).problems.map(({ key }) => key)).toEqual(keys);
  });
});
