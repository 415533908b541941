import { parse as parseYaml } from "yaml";
import { JenkinsMaster, type JenkinsMasterArgs } from "../../components/jenkins-master";
import type { AgentTemplate } from "../../components/jenkins-master/agents";
import type { RehearsalInput } from "../../components/jenkins-master/rehearsal";
import { parseConfig } from "../../config";
import { all, defaults, environment, hostKey, settled, the, useMocks } from "./mocks";

jest.setTimeout(120_000);

const template: AgentTemplate = {
  name: "maven", label: "maven", image: "registry.test/maven:1", docker: "none", caches: [], resources: {}, dockerResources: {}, cap: 10, idleMinutes: 0, podRetention: "never", connectTimeoutSeconds: 600,
  activeDeadlineSeconds: 0, nodeSelector: {}, tolerations: [], spread: true, unlabelled: false, env: {}, volumes: [],
};

async function make(...templates: AgentTemplate[]) {
  await useMocks();
  const args: JenkinsMasterArgs = {
    address: { domain: "jenkins.example.com", ingressClassName: "nginx" },
    controller: { image: "registry.test/controller:1", resources: { limits: { memory: "2Gi" } } },
    home: { storageClassName: "openebs-hostpath", size: "20Gi" },
    agents: { templates, settings: { dindImage: "registry.test/docker:dind", buildkitImage: "registry.test/buildkit:rootless", insecureRegistries: [] } },
    access: { adminUser: "admin" },
    rehearsal: { context: "here", timeoutSeconds: 600, resources: {} },
  };
  new JenkinsMaster("jenkins", args);
  await settled();
  const { metadata, spec } = the("Deployment", "jenkins").inputs.spec.template;
  const stdin = the("Command", "jenkins-rehearsal").inputs.stdin as { value: string };
  return {
    annotations: metadata.annotations as Record<string, string>,
    jenkins: spec.containers[0] as { volumeMounts: { name: string; mountPath: string; subPath?: string }[] },
    volumes: spec.volumes as { name: string; configMap?: { name: string } }[],
    documents: (parseYaml(the("ConfigMap", "jenkins-casc").inputs.data["jenkins.yaml"]) as { jenkins: { clouds: [{ kubernetes: { templates: { name: string; annotations?: object[] }[] } }] } }).jenkins.clouds[0].kubernetes.templates,
    rehearsed: (JSON.parse(stdin.value) as RehearsalInput).objects,
  };
}

test("without minIdle no template has agents that wait; the script is there for what builds wait for", async () => {
  const { documents } = await make(template, { ...template, name: "go", minIdle: 0 });
  expect(documents.map(({ annotations }) => annotations)).toEqual([undefined, undefined, undefined]);
  expect(all("ConfigMap").map(({ inputs }) => inputs.metadata.name)).toContain("jenkins-init-hook");
});

test("a template says how many wait, and when; Jenkins reads the script at its start", async () => {
  const { annotations, jenkins, volumes, documents } = await make(template, { ...template, name: "go", minIdle: 3 }, { ...template, name: "day", minIdle: 1, minIdleTimes: "* 6-18 * * 1-5" });
  const said = Object.fromEntries(documents.map(({ name, annotations: found }) => [name, found]));
  expect(said).toEqual({
    maven: undefined, "pod-defaults": undefined,
    go: [{ key: "build-platform/min-idle", value: "3" }],
    day: [{ key: "build-platform/min-idle", value: "1" }, { key: "build-platform/min-idle-times", value: "* 6-18 * * 1-5" }],
  });
  const mount = jenkins.volumeMounts.find(({ name }) => name === "init-hook")!;
  // The image copies what is called so over what the home has, and without the ending.
  expect(mount.mountPath).toBe("/usr/share/jenkins/ref/init.groovy.d/build-platform-agents.groovy.override");
  expect(volumes).toContainEqual({ name: "init-hook", configMap: { name: "jenkins-init-hook" } });
  const text = the("ConfigMap", "jenkins-init-hook").inputs.data[mount.subPath!] as string;
  for (const { annotations: found = [] } of documents) for (const { key } of found as { key: string }[]) expect(text).toContain(`"${key}"`);
  // It takes its own copy away, whose name is the mount's.
  expect(text).toContain('"init.groovy.d/build-platform-agents.groovy").delete()');
  // XML of a template leaves out the YAML of its pod, and with it the image.
  expect(text).toContain("whole.yamls");
  // Images that fill variables into hooks would change what Groovy fills in itself.
  expect(text).not.toContain("${");
  expect(annotations["build-platform/init-hook"]).toMatch(/^[0-9a-f]{12}$/);
});

test("how many wait changes neither the controller's pod nor the agents'", async () => {
  const one = await make(template);
  const two = await make({ ...template, minIdle: 2, minIdleTimes: "* 6-18 * * *" });
  expect([two.annotations, two.jenkins, two.volumes]).toEqual([one.annotations, one.jenkins, one.volumes]);
  const [first, second] = [one, two].map(({ documents }) => documents.map(({ annotations: _, ...rest }) => rest));
  expect(second).toEqual(first);
});

test("a rehearsal has the script, behind the hook that keeps it quiet", async () => {
  const { rehearsed } = await make({ ...template, minIdle: 1 });
  const { volumeMounts } = rehearsed.job.spec!.template.spec!.containers[0];
  const hooks = volumeMounts!.map(({ mountPath }) => mountPath).filter((place) => place.includes("init.groovy.d")).map((place) => place.split("/").pop()!);
  expect(hooks.sort()).toEqual(["00-quiet.groovy", "build-platform-agents.groovy.override"]);
  expect(rehearsed.configMaps.map(({ metadata }) => metadata!.name)).toContain("rehearsal-jenkins-init-hook");
  expect(the("ConfigMap", "jenkins-init-hook").inputs.data["build-platform-agents.groovy"]).toContain("jenkins.quietingDown");
});

test.each<[string, Record<string, unknown>, number, string[]]>([
  ["agents that wait", { minIdle: 2, minIdleTimes: "* 6-18 * * 1-5" }, 10, []],
  ["agents that are used again", { minIdle: 2, idleMinutes: 5 }, 10, ["agents[0].minIdle"]],
  ["more than there may be of the kind", { minIdle: 3, cap: 2 }, 10, ["agents[0].minIdle"]],
  ["more than there may be at all", { minIdle: 3 }, 2, ["agentCap"]],
  ["times for nothing", { minIdleTimes: "* 6-18 * * 1-5" }, 10, ["agents[0].minIdleTimes"]],
  ["names of days", { minIdle: 1, minIdleTimes: "* 6-18 * * mon-fri" }, 10, ["agents[0].minIdleTimes"]],
  ["an hour that no day has", { minIdle: 1, minIdleTimes: "* 25 * * *" }, 10, ["agents[0].minIdleTimes"]],
])("%s: the config says so by the key", (_, further, agentCap, keys) => {
  const minimal = { ...defaults(), domain: "jenkins.example.com", kubeContext: "admin@cluster", controlPlane: { privateKeyFile: "~/.ssh/id", nodes: [{ name: "a", host: "192.0.2.1", hostKey }] } };
  expect(parseConfig({ ...minimal, agentCap, agents: [{ name: "a", image: "registry.test/a:1", ...further }] }, environment).problems.map(({ key }) => key)).toEqual(keys);
});
