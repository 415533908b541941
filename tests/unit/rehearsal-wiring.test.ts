import { JenkinsMaster, JenkinsMasterArgs, jenkinsMasterProblems } from "../../components/jenkins-master";
import type { RehearsalInput } from "../../components/jenkins-master/rehearsal";
import { all, registered, settled, the, useMocks, valueOf } from "./mocks";

jest.setTimeout(60_000);

const rehearsal = { context: "here", timeoutSeconds: 600, resources: { requests: { cpu: "100m", memory: "512Mi" } } };
const args: JenkinsMasterArgs = {
  address: { domain: "jenkins.example.com", ingressClassName: "nginx" },
  controller: { image: "registry.test/controller:1", resources: { limits: { memory: "2Gi" } } },
  home: { storageClassName: "openebs-hostpath", size: "20Gi" },
  agents: {
    templates: [
      {
        name: "maven", label: "maven", image: "registry.test/maven:1", docker: "none", caches: [], resources: {}, dockerResources: {}, cap: 10, idleMinutes: 0, podRetention: "never", connectTimeoutSeconds: 600,
        activeDeadlineSeconds: 0, nodeSelector: {}, tolerations: [], spread: true, unlabelled: false, env: {}, volumes: [],
      },
    ],
    settings: { agentImage: "registry.test/agent:1", dindImage: "registry.test/docker:dind", buildkitImage: "registry.test/buildkit:rootless", insecureRegistries: [] },
  },
  access: { adminUser: "admin" },
  rehearsal,
};
const password = "A".repeat(32);
/** Names of what was registered before the rehearsal ran. */
let before: string[];

async function make(further: Partial<JenkinsMasterArgs> = {}) {
  await useMocks((name) => {
    if (name === "jenkins-rehearsal") before = registered.map((each) => each.name);
    return name === "jenkins-admin-password" ? password : "";
  });
  before = [];
  const jenkins = new JenkinsMaster("jenkins", { ...args, ...further });
  await settled();
  return jenkins;
}
/** A pulumi secret's value as mocks see it. */
const revealed = (value: { value: string }) => value.value;
const input = (): RehearsalInput => JSON.parse(revealed(the("Command", "jenkins-rehearsal").inputs.stdin));

test("whatever the running controller would notice comes after the rehearsal; what the rehearsal stands on comes before", async () => {
  await make();
  expect(before).toEqual(expect.arrayContaining(["jenkins-namespace", "jenkins-account", "jenkins-admin-password"]));
  for (const name of ["jenkins-admin", "jenkins-casc", "jenkins-controller"]) {
    expect(before).not.toContain(name);
    expect(registered.map((each) => each.name)).toContain(name);
  }
});

test("what is tried is what the controller will get", async () => {
  await make({ configuration: { fragments: { "site.yaml": "jenkins: {systemMessage: hello}" } } });
  const { objects, namespace, context } = input();
  expect({ namespace, context }).toEqual({ namespace: "jenkins", context: "here" });
  expect(objects.configMaps[0].data).toEqual(the("ConfigMap", "jenkins-casc").inputs.data);
  expect(objects.secrets[0].data!["admin-password"]).toBe(Buffer.from(password).toString("base64"));
  const [controller] = the("Deployment", "jenkins").inputs.spec.template.spec.containers;
  const [tried] = objects.job.spec!.template.spec!.containers;
  expect({ image: tried.image, env: tried.env, securityContext: tried.securityContext }).toEqual({ image: controller.image, env: controller.env, securityContext: controller.securityContext });
});

test("a last change to the objects is tried, too, and what runs before a start is not", async () => {
  await make({
    controller: { ...args.controller, beforeStart: { container: { name: "restore", image: "restic:1" }, volumes: [{ name: "repository", emptyDir: {} }] } },
    transform: {
      deployment: (deployment) => void Object.assign((deployment.spec as { template: { spec: object } }).template.spec, { hostname: "changed" }),
      configMap: (configMap) => void Object.assign(configMap.data as object, { "late.yaml": "jenkins: {}" }),
    },
  });
  const { objects } = input();
  expect(objects.job.spec!.template.spec!.hostname).toBe("changed");
  expect(objects.configMaps[0].data).toHaveProperty(["late.yaml"]);
  expect(JSON.stringify(objects)).not.toMatch(/restic:1|"repository"/);
  expect(the("Deployment", "jenkins").inputs.spec.template.spec.initContainers.map(({ name }: { name: string }) => name)).toContain("restore");
});

test("a Secret of the site's own is mounted as it is", async () => {
  await make({ access: { adminUser: "admin", adminExistingSecret: "vault-admin" } });
  const { objects } = input();
  expect(objects.secrets).toEqual([]);
  expect(JSON.stringify(objects.job)).toContain('"secretName":"vault-admin"');
});

test("nothing plain holds a secret or the objects", async () => {
  await make();
  const { stdin: _, environment, ...rest } = the("Command", "jenkins-rehearsal").inputs;
  expect(JSON.stringify({ environment, rest })).not.toMatch(new RegExp(`${password}|${Buffer.from(password).toString("base64")}`));
  expect(environment).toEqual({ IMAGE: "registry.test/controller:1", CONFIGURATION: expect.stringMatching(/^build-platform-agents\.groovy [0-9a-f]{12}, jenkins\.yaml [0-9a-f]{12}$/), POD: expect.stringMatching(/^[0-9a-f]{12}$/) });
});

test("off: no such resource, and the same objects as with it", async () => {
  const objects = () => registered.filter(({ name }) => name !== "jenkins-rehearsal").map(({ name, inputs }) => JSON.stringify([name, inputs])).sort();
  await make();
  const on = objects();
  await make({ rehearsal: undefined });
  expect(all("Command").map(({ name }) => name)).not.toContain("jenkins-rehearsal");
  expect(objects()).toEqual(on);
});

test("its resources are looked at before anything is made", () => {
  expect(jenkinsMasterProblems({ ...args, rehearsal: { ...rehearsal, resources: { limits: { memory: "lots" } } } })).toEqual([{ propertyPath: "rehearsal.resources.limits.memory", reason: expect.stringContaining("lots") }]);
});

test("patches of the stack are tried as the controller gets them, and a backup boots them", async () => {
  const patches = [
    { target: { kind: "Deployment", name: "jenkins", namespace: "jenkins" }, patch: { spec: { template: { spec: { hostname: "patched", containers: [{ name: "jenkins", env: [{ name: "FURTHER", value: "1" }] }] } } } } },
    { target: { kind: "ConfigMap", name: "jenkins-casc" }, patch: { data: { "late.yaml": "jenkins: {}" } } },
    { target: { kind: "Secret", name: "jenkins-admin" }, patch: { data: { more: "eA==" }, stringData: { "admin-user": "root" } } },
    { target: { kind: "Deployment", name: "jenkins", namespace: "elsewhere" }, patch: { spec: { template: { spec: { hostname: "wrong" } } } } },
  ];
  await make();
  const unpatched = the("Command", "jenkins-rehearsal").inputs.environment.POD;
  const jenkins = await make({ patches, controller: { ...args.controller, beforeStart: { container: { name: "restore", image: "restic:1" }, volumes: [{ name: "repository", emptyDir: {} }] } } });
  const { objects } = input();
  expect(objects.job.spec!.template.spec).toMatchObject({ hostname: "patched", containers: [{ env: expect.arrayContaining([{ name: "FURTHER", value: "1" }]) }] });
  expect(objects.configMaps[0].data).toHaveProperty(["late.yaml"]);
  expect(objects.secrets[0].data).toMatchObject({ more: "eA==", "admin-user": Buffer.from("root").toString("base64"), "admin-password": expect.any(String) });
  expect(the("Command", "jenkins-rehearsal").inputs.environment.POD).not.toBe(unpatched);
  const booted = await valueOf(jenkins.controllerPod);
  expect(booted.containers[0].env).toContainEqual({ name: "FURTHER", value: "1" });
  expect(JSON.stringify(booted)).not.toMatch(/restic:1|"repository"/);
});

describe("the home is saved first", () => {
  const saveFirst = { context: "here" };
  const image = "registry.test/controller:1";
  const seen = async (running?: JenkinsMasterArgs["running"]) => {
    await make({ saveFirst, ...(running && { running }) });
    const { metadata, spec } = the("Deployment", "jenkins").inputs;
    return { change: the("Command", "jenkins-save-first").inputs.environment.CHANGE, annotations: metadata.annotations, names: metadata.name, template: spec.template };
  };

  test("where the cluster has another image, whatever the state says: command and Deployment both change, and the pod with neither", async () => {
    const { template } = await seen();
    const { change, annotations, ...other } = await seen({ image: "registry.test/controller:0", change: "2026-01-01T00:00:00.000Z" });
    expect(Date.now() - Date.parse(change)).toBeLessThan(60_000);
    expect(annotations).toEqual({ "build-platform/image-change": change });
    expect(other.template).toEqual(template);
  });

  test("where it has the image already, both stay as they are", async () => {
    expect(await seen({ image, change: "2026-01-01T00:00:00.000Z" })).toMatchObject({ change: "2026-01-01T00:00:00.000Z", annotations: { "build-platform/image-change": "2026-01-01T00:00:00.000Z" } });
    // As before there were marks, and where there is no controller yet.
    for (const running of [{ image }, undefined]) {
      const { change, annotations } = await seen(running);
      expect([change, annotations ?? undefined]).toEqual([undefined, undefined]);
    }
  });

  test("a last change to the Deployment's annotations stays beside the mark", async () => {
    await make({ saveFirst, running: { image, change: "x" }, transform: { deployment: (deployment) => void Object.assign(deployment.metadata as object, { annotations: { own: "1" } }) } });
    expect(the("Deployment", "jenkins").inputs.metadata.annotations).toEqual({ own: "1", "build-platform/image-change": "x" });
  });
});
