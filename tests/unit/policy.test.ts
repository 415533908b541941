import { stringify } from "yaml";
import { plainSecrets, rules, type PolicyResource } from "../../policy/rules";
import { ingressAnnotations } from "../../components/jenkins-master";
import upstream from "../../images/upstream.json";

const digest = `@sha256:${"a".repeat(64)}`;
const container = (over: object = {}) => ({ name: "main", image: `registry.example.com/app:1${digest}`, resources: { limits: { memory: "1Gi" } }, ...over });
const resource = (type: string, props: object, protect = false): PolicyResource => ({ type: `kubernetes:${type}`, name: "it", props, protect });
const deployment = (over: object = {}, pod: object = {}) => resource("apps/v1:Deployment", { spec: { template: { spec: { containers: [container(over)], ...pod } } } });
const registryNode = (pod: object, name = "image-registry-node", namespace: string | undefined = "image-pulls") => resource("apps/v1:DaemonSet", { metadata: { name, namespace }, spec: { template: { spec: { containers: [container()], ...pod } } } });
const casc = (...containers: object[]) =>
  resource("core/v1:ConfigMap", {
    metadata: { name: "jenkins-casc" },
    data: { "jenkins.yaml": stringify({ jenkins: { clouds: [{ kubernetes: { templates: [{ name: "maven", yaml: stringify({ spec: { containers } }) }] } }] } }) },
  });
const binding = (over: object) => resource("rbac.authorization.k8s.io/v1:ClusterRoleBinding", { roleRef: { name: "jenkins" }, subjects: [{ kind: "ServiceAccount", name: "jenkins" }], ...over });
const role = (rule: object) => resource("rbac.authorization.k8s.io/v1:Role", { rules: [rule] });
const ingress = (tls?: object[]) => resource("networking.k8s.io/v1:Ingress", { spec: { rules: [{ host: "ci.example.com" }], tls } });
/** As the component makes it where something stands before the nodes. */
const endsBefore = (externalUrl: string) => resource("networking.k8s.io/v1:Ingress", { metadata: { annotations: ingressAnnotations({ domain: "ci.example.com", externalUrl }) }, spec: { rules: [{ host: "ci.example.com" }] } });
const home = (protect: boolean) => resource("core/v1:PersistentVolumeClaim", { metadata: { name: "jenkins-home" } }, protect);
const workloads = (spec: object): [string, PolicyResource][] => [
  ["Pod", resource("core/v1:Pod", { spec })],
  ...["Deployment", "DaemonSet", "StatefulSet", "ReplicaSet"].map((kind): [string, PolicyResource] => [kind, resource(`apps/v1:${kind}`, { spec: { template: { spec } } })]),
  ["Job", resource("batch/v1:Job", { spec: { template: { spec } } })],
  ["CronJob", resource("batch/v1:CronJob", { spec: { jobTemplate: { spec: { template: { spec } } } } })],
];

const pinnedLater = Object.values(upstream).find((pin) => !("digest" in pin));
const knownUnpinned = pinnedLater && `${pinnedLater.image}:${pinnedLater.tag}`;

/** What each rule must let pass and must not, in stack prod unless a third element names another. */
const cases: Record<string, { good: [string, PolicyResource, string?][]; bad: [string, PolicyResource, string][] }> = {
  "no-cluster-admin": {
    good: [
      ["a service account bound to a role of its own", binding({})],
      ["a role that names verbs and resources", role({ verbs: ["get"], resources: ["pods"] })],
    ],
    bad: [
      ["cluster-admin", binding({ roleRef: { name: "cluster-admin" } }), "binds cluster-admin"],
      ["all service accounts, as the hand-run procedure did", binding({ subjects: [{ kind: "Group", name: "system:serviceaccounts" }] }), "system:serviceaccounts"],
      ["all service accounts of a namespace", binding({ subjects: [{ kind: "Group", name: "system:serviceaccounts:jenkins" }] }), "system:serviceaccounts:jenkins"],
      ["all verbs", role({ verbs: ["*"], resources: ["pods"] }), "grants * on pods"],
      ["all resources", role({ verbs: ["get"], resources: ["*"] }), "grants get on *"],
    ],
  },
  "no-privileged-container": {
    good: [
      ["an ordinary container", deployment()],
      ["what leads nodes to the stack's registry", registryNode({ hostNetwork: true })],
      ["the same of another environment", registryNode({ hostNetwork: true }, undefined, "team-b-image-pulls")],
      ["dind in an agent", casc(container(), container({ name: "dind", securityContext: { privileged: true } }))],
    ],
    bad: [
      ...workloads({ containers: [container({ securityContext: { privileged: true } })] }).map(([kind, it]): [string, PolicyResource, string] => [`a privileged container of a ${kind}`, it, "main: is privileged"]),
      ["a privileged container called dind that is no agent's", deployment({ name: "dind", securityContext: { privileged: true } }), "is privileged"],
      ["a privileged build container of an agent", casc(container({ name: "jnlp", securityContext: { privileged: true } })), "agent template maven, container jnlp"],
      ["a privileged init container", deployment({}, { initContainers: [container({ name: "init", securityContext: { privileged: true } })] }), "container init"],
      ["the node's network", deployment({}, { hostNetwork: true }), "hostNetwork"],
      ["the node's network for another DaemonSet", registryNode({ hostNetwork: true }, "other"), "hostNetwork"],
      ["the node's network for one of its name elsewhere", registryNode({ hostNetwork: true }, undefined, "jenkins-agents"), "hostNetwork"],
      ["the node's network for one of its name where its namespace only ends alike", registryNode({ hostNetwork: true }, undefined, "ximage-pulls"), "hostNetwork"],
      ["the node's processes for what leads to the registry", registryNode({ hostPID: true }), "hostPID"],
      ["the node's processes", deployment({}, { hostPID: true }), "hostPID"],
      ["the node's IPC", deployment({}, { hostIPC: true }), "hostIPC"],
    ],
  },
  "no-floating-tag": {
    good: [
      ["a tag", deployment({ image: "docker.io/jenkins/jenkins:2.568.2-jdk21" })],
      ["a digest alone", deployment({ image: `docker.io/jenkins/jenkins${digest}` })],
    ],
    bad: [
      ["latest", deployment({ image: "docker.io/jenkins/jenkins:latest" }), "is latest"],
      ["no tag", deployment({ image: "docker.io/jenkins/jenkins" }), "no tag"],
      ["no tag behind a registry's port", deployment({ image: "10.0.0.5:5000/jenkins" }), "no tag"],
      ["latest in an agent", casc(container({ image: "registry.example.com/maven:latest" })), "is latest"],
    ],
  },
  "image-by-digest": {
    good: [
      ["a digest", deployment()],
      ["a tag in the sandbox", deployment({ image: "10.88.0.1:5000/jenkins/jenkins:1" }), "sandbox"],
      ...(knownUnpinned ? [["an upstream image whose digest is not known yet", deployment({ image: knownUnpinned })] as [string, PolicyResource]] : []),
    ],
    bad: [
      ["a tag", deployment({ image: "registry.example.com/app:1" }), "has no digest"],
      ["a mirror's copy by tag", deployment({ image: "mirror.example.com/jenkins/inbound-agent:1" }), "has no digest"],
    ],
  },
  "upstream-digest-known": {
    good: [["a digest", deployment()]],
    bad: knownUnpinned ? [["an upstream image without digest", deployment({ image: knownUnpinned }), "imagetools inspect"]] : [],
  },
  "memory-limit": {
    good: [["a limit", deployment()]],
    bad: [
      ["no resources", deployment({ resources: undefined }), "no limits.memory"],
      ["requests alone", deployment({ resources: { requests: { memory: "1Gi" } } }), "no limits.memory"],
      ["an agent without", casc(container({ resources: {} })), "agent template maven"],
    ],
  },
  "home-protected": {
    good: [
      ["a protected home", home(true)],
      ["the sandbox's", home(false), "sandbox"],
      ["another claim", resource("core/v1:PersistentVolumeClaim", { metadata: { name: "cache" } })],
    ],
    bad: [["an unprotected home", home(false), "protectHome"]],
  },
  "ingress-tls": {
    good: [
      ["every host covered", ingress([{ hosts: ["ci.example.com"] }])],
      ["the sandbox's", ingress(), "sandbox"],
      ["a probe's own", { ...ingress(), props: { ...ingress().props, metadata: { annotations: { "build-platform/asked-by": "kubelet" } } } }],
      ["TLS that ends before it", endsBefore("https://ci.example.com")],
      ["a Gateway with HTTPS", resource("gateway.networking.k8s.io/v1:HTTPRoute", { metadata: { annotations: { "build-platform/external-url": "https://ci.example.com" } }, spec: { hostnames: ["ci.example.com"] } })],
    ],
    bad: [
      ["a proxy before it that speaks plain HTTP as well", endsBefore("http://ci.example.com/ci"), "ci.example.com over plain HTTP"],
      ["a Gateway without", resource("gateway.networking.k8s.io/v1:HTTPRoute", { spec: { hostnames: ["ci.example.com"] } }), "ci.example.com over plain HTTP"],
      ["no TLS", ingress(), "ci.example.com over plain HTTP"],
      ["TLS for another host", ingress([{ hosts: ["other.example.com"] }]), "ci.example.com"],
    ],
  },
  "no-secret-in-environment": {
    good: [
      ["a reference to a Secret", deployment({ env: [{ name: "DB_PASSWORD", valueFrom: {} }] })],
      ["the folder of secrets", deployment({ env: [{ name: "SECRETS", value: "/run/secrets/jenkins" }] })],
      ["plain settings", resource("core/v1:ConfigMap", { data: { "server-tokens": "false" } })],
      ["arguments that name a file or a variable", deployment({ command: ["tool", "--password-file=/run/p"], args: ["--token=$(TOKEN)", "--password=$PASSWORD", "--token-ttl=5m"] })],
    ],
    bad: [
      ["a password", deployment({ env: [{ name: "DB_PASSWORD", value: "hunter2" }] }), "DB_PASSWORD"],
      ["a private key under a harmless name", deployment({ env: [{ name: "NOTE", value: "-----BEGIN OPENSSH PRIVATE KEY-----" }] }), "NOTE"],
      ["a password among the arguments", deployment({ args: ["--user=ci", "--db-password=hunter2"] }), "argument --db-password"],
      ["a token among the words of the command", deployment({ command: ["curl", "-H", `Authorization: Bearer ghp_${"a".repeat(36)}`] }), "word 3 of the command"],
      ["a private key in a ConfigMap", resource("core/v1:ConfigMap", { data: { key: "-----BEGIN PRIVATE KEY-----" } }), "private key"],
    ],
  },
};

describe.each(rules)("$name", (rule) => {
  const { good, bad } = cases[rule.name];

  test.each(good.map(([title, it, stack = "prod"]) => ({ title, it, stack })))("lets pass: $title", ({ it: found, stack }) => {
    expect(rule.check(found, stack)).toEqual([]);
  });

  test.each(bad.map(([title, it, message]) => ({ title, it, message })))("finds: $title", ({ it: found, message }) => {
    const findings = rule.check(found, "prod");
    expect(findings).toHaveLength(1);
    expect(findings[0]).toContain(message);
  });
});

test("every rule has cases, and no case is without its rule", () => {
  expect(Object.keys(cases).sort()).toEqual(rules.map((rule) => rule.name).sort());
});

describe("secrets in a stack file", () => {
  test("encrypted values, ordinary ones and names of Secrets pass", () => {
    expect(
      plainSecrets(
        {
          "build-platform:adminPassword": { secure: "v1:abc" },
          "build-platform:registry": { username: "ci", password: { secure: "v1:abc" } },
          "build-platform:controlPlane": { nodes: [{ name: "a", hostKey: "ssh-ed25519 AAAA" }], privateKeyFile: "~/.ssh/id_ed25519" },
          "build-platform:ingress": { tlsSecret: "jenkins-tls" },
          "build-platform:adminPasswordVersion": "2",
        },
        ["adminPassword"],
      ),
    ).toEqual([]);
  });

  test("names the path of each plain one and never its value", () => {
    const findings = plainSecrets(
      {
        "build-platform:adminPassword": "hunter2-hunter2",
        "build-platform:registry": { password: "hunter2" },
        "build-platform:agents": [{ env: { DEPLOY_TOKEN: "hunter2" } }],
        "build-platform:declared": { anything: "hunter2" },
        "build-platform:note": "-----BEGIN RSA PRIVATE KEY----- hunter2",
      },
      ["declared"],
    );
    expect(findings.map((text) => text.split(" ")[0])).toEqual(["adminPassword", "registry.password", "agents[0].env.DEPLOY_TOKEN", "declared.anything", "note"]);
    expect(findings.join()).not.toContain("hunter2");
    expect(findings[1]).toContain("--path 'registry.password'");
  });
});
