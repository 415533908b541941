import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import * as pulumi from "@pulumi/pulumi";
import { parse } from "yaml";
import { authority } from "./certificates";
import { all, hostKey, objects, privateKey, settled, stackConfig, the, useMocks } from "./mocks";

jest.setTimeout(120_000);
jest.mock("../../checks/preflight", () => ({ preflight: async () => ({ problems: [], warnings: [], apiServerAddresses: ["10.96.0.1"] }) }));
jest.mock("../../components/agent-images", () => ({ ...jest.requireActual<object>("../../components/agent-images"), prepareImages: async (args: unknown) => args }));

let folder: string;
beforeAll(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "everywhere-"));
  fs.writeFileSync(path.join(folder, "key"), privateKey);
  fs.writeFileSync(path.join(folder, "host.pub"), hostKey);
  authority(folder);
});
afterAll(() => fs.rmSync(folder, { recursive: true }));

const login = { username: "ann", password: "not-for-everybody" };

/** Runs the program with everything that a stack can have, under mocks. */
async function run(further: Record<string, unknown>) {
  await useMocks((name) => (name.startsWith("agent-images-") ? `registry.test/${name}@sha256:${"ab".repeat(32)}` : "made"));
  const config = {
    ...stackConfig("sandbox"),
    controlPlane: { privateKeyFile: path.join(folder, "key"), nodes: [{ name: "control-plane-1", host: "192.0.2.10", hostKeyFile: path.join(folder, "host.pub") }] },
    agents: [{ name: "maven", image: "maven-dind", caches: ["maven"] }, { name: "gradle", image: "gradle-dind", docker: "rootless", caches: ["gradle"], env: { JAVA_TOOL_OPTIONS: "-Xss2m" } }, { name: "plain", image: "registry.test/go:1", docker: "none" }],
    backup: { repository: "s3:https://s3.corp.test/home", password: "p", keysRepository: "s3:https://s3.corp.test/keys", keysPassword: "q", startFrom: "latest" },
    ...further,
  };
  pulumi.runtime.setAllConfig(Object.fromEntries(Object.entries(config).map(([key, value]) => [`build-platform:${key}`, typeof value === "object" ? JSON.stringify(value) : String(value)])), ["build-platform:backup", "build-platform:proxy"]);
  const { default: program } = (await import("../../index")) as unknown as { default: () => Promise<unknown> };
  await program();
  await settled();
}

// Pods of many kinds of object, looked at where they hold what a test is about.
type Json = any;

/** Every pod that is rendered, by the object that has it. */
function pods(): Record<string, Json> {
  const casc = parse(the("ConfigMap", "jenkins-casc").inputs.data["jenkins.yaml"]).jenkins.clouds[0].kubernetes.templates as { name: string; yaml: string }[];
  const rehearsal = JSON.parse(the("Command", "jenkins-rehearsal").inputs.stdin.value).objects.job;
  return {
    ...Object.fromEntries(["Deployment", "DaemonSet", "Job", "StatefulSet"].flatMap((kind) => all(kind)).map(({ inputs }) => [inputs.metadata.name, inputs.spec.template.spec])),
    ...Object.fromEntries(all("CronJob").map(({ inputs }) => [inputs.metadata.name, inputs.spec.jobTemplate.spec.template.spec])),
    ...Object.fromEntries(casc.map(({ name, yaml }) => [`agent ${name}`, parse(yaml).spec])),
    rehearsal: rehearsal.spec.template.spec,
  };
}
const containers = (pod: Json): Json[] => [...(pod.initContainers ?? []), ...pod.containers];

/** What speaks to nothing beyond the cluster, and why. */
const exceptions: Record<string, string> = {
  configuration: "copies files", "config-reload": "asks Jenkins in its own pod", report: "asks the API server", "company-trust": "makes what the others trust",
  keeper: "deletes files", gradle: "joins files", "gradle-cache": "copies files", controller: "the ingress controller, which is asked and asks only the cluster", "localpv-provisioner": "asks the API server",
};

const network = () => ({ trust: { caBundleFile: path.join(folder, "company.pem") }, proxy: { https: "http://proxy.corp.test:3128", ...login } });

test("every container that reaches beyond the cluster trusts the company and goes through its proxy", async () => {
  await run(network());
  const met = new Set<string>();
  const secretKeys = Object.keys(the("Secret", "jenkins-backup-environment").inputs.data.value);
  for (const [of, pod] of Object.entries(pods()))
    for (const container of containers(pod)) {
      const at = `${of}/${container.name}`;
      const names = (container.env ?? []).map((each: Json) => each.name);
      if (container.name in exceptions) {
        met.add(container.name);
        expect([at, names.filter((name: string) => /PROXY|SSL_CERT/i.test(name))]).toEqual([at, []]);
        continue;
      }
      const trusts = names.filter((name: string) => /^SSL_CERT_(FILE|DIR)$/.test(name));
      const mounts = (container.volumeMounts ?? []).filter((each: Json) => each.mountPath === "/etc/build-platform/company-ca").map((each: Json) => each.name);
      expect([at, trusts.length, mounts]).toEqual([at, 1, ["company-ca"]]);
      expect([at, pod.volumes.filter((each: Json) => each.name === "company-ca").map((each: Json) => each.configMap.name.replace("rehearsal-", ""))]).toEqual([at, ["company-ca"]]);
      const fromSecret = (container.envFrom ?? []).some((each: Json) => each.secretRef?.name === "jenkins-backup-environment") ? secretKeys : [];
      expect([at, ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"].filter((name) => ![...names, ...fromSecret].includes(name))]).toEqual([at, []]);
      if (trusts[0] === "SSL_CERT_FILE") {
        expect([at, pod.initContainers.map((each: Json) => each.name)]).toEqual([at, expect.arrayContaining(["company-trust"])]);
        expect([at, JSON.stringify(container.env)]).toEqual([at, expect.stringContaining("-Djavax.net.ssl.trustStore=/run/build-platform/company-trust/cacerts")]);
        expect([at, JSON.stringify(container.env)]).toEqual([at, expect.stringContaining("-Dhttps.proxyHost=proxy.corp.test")]);
      }
      // Each mount has its volume.
      expect([at, (container.volumeMounts ?? []).map((each: Json) => each.name).filter((name: string) => !pod.volumes.some((volume: Json) => volume.name === name))]).toEqual([at, []]);
    }
  expect([...met].sort()).toEqual(Object.keys(exceptions).sort());
});

test("what they mount is there: the certificates in both namespaces, and the login as Secrets alone", async () => {
  await run(network());
  expect(all("ConfigMap").filter(({ inputs }) => inputs.metadata.name === "company-ca").map(({ inputs }) => inputs.metadata.namespace).sort()).toEqual(["jenkins", "jenkins-agents"]);
  expect(all("Secret").filter(({ inputs }) => inputs.metadata.name === "company-proxy").map(({ inputs }) => inputs.metadata.namespace).sort()).toEqual(["jenkins", "jenkins-agents"]);
  const secret = (value: Json) => value?.["4dabf18193072939515e22adb298388d"] !== undefined;
  const spoken = ["not-for-everybody", Buffer.from("not-for-everybody").toString("base64"), "ann:not"];
  for (const { name, inputs } of objects()) expect([name, spoken.filter((each) => JSON.stringify(inputs, (_, value: Json) => (secret(value) ? "secret" : value)).includes(each))]).toEqual([name, []]);
  const jenkins = the("Deployment", "jenkins").inputs.spec.template;
  expect(jenkins.spec.volumes.find((each: Json) => each.name === "admin").projected.sources).toContainEqual({ secret: { name: "company-proxy", items: [{ key: "username", path: "company-proxy-username" }, { key: "password", path: "company-proxy-password" }] } });
  expect(parse(the("ConfigMap", "jenkins-casc").inputs.data["jenkins.yaml"]).jenkins.proxy).toMatchObject({ name: "proxy.corp.test", port: 3128, secretPassword: "${company-proxy-password}" });
  expect(jenkins.metadata.annotations["build-platform/company-ca"]).toMatch(/^[0-9a-f]{12}$/);
});

test("another bundle starts the controller anew, and a template's own flags stay behind the platform's", async () => {
  const annotation = () => the("Deployment", "jenkins").inputs.spec.template.metadata.annotations["build-platform/company-ca"];
  await run(network());
  const before = annotation();
  expect(pods()["agent gradle"].containers[0].env.find((each: Json) => each.name === "JAVA_TOOL_OPTIONS").value).toMatch(/^-Djavax.*-Dhttp\.nonProxyHosts=\S+ -Xss2m$/);
  expect(pods()["agent maven"].containers[0].env.find((each: Json) => each.name === "MAVEN_OPTS").value).toMatch(/repository .*useSystemProperties=true/);
  await run({ ...network(), trust: { caBundleFile: authority(folder, "next").file } });
  expect(annotation()).toMatch(/^[0-9a-f]{12}$/);
  expect(annotation()).not.toBe(before);
});

test("nothing of it is rendered where neither is set", async () => {
  await run({});
  for (const { name, inputs } of objects().filter((each) => !each.name.startsWith("node-port-range"))) expect([name, JSON.stringify(inputs).match(/company-(ca|trust)|company-proxy|https?_proxy|trustStore|SSL_CERT|REGISTRY_CA/i)?.[0]]).toEqual([name, undefined]);
});

test("agents reach a proxy that what they are kept from would hold: on the API server's node, or in the cluster", async () => {
  const egress = () => the("NetworkPolicy", "jenkins-agents").inputs.spec.egress.slice(3);
  await run({ proxy: { http: "http://10.96.0.1:3128" } });
  expect(egress()).toEqual([{ to: [{ ipBlock: { cidr: "10.96.0.1/32" } }], ports: [{ port: 3128, protocol: "TCP" }] }]);
  await run({ proxy: { http: "http://squid.network.svc:3128" } });
  expect(egress()).toEqual([{ to: [{ namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "network" } } }] }]);
  await run({ proxy: { http: "http://proxy.corp.test:3128" } });
  expect(egress()).toEqual([]);
});
