import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import * as pulumi from "@pulumi/pulumi";
import * as fc from "fast-check";
import { parse, parseDocument, visit } from "yaml";
import { agentPod, AgentTemplate, cacheMount, Toleration } from "../../components/jenkins-master/agents";
import { cascConfig, CascInput, cloudSettingsProblems, renderCasc } from "../../components/jenkins-master/casc";
import { fragmentProblems } from "../../components/jenkins-master/fragments";
import { controllerRules, ingressAnnotations, javaOptions, JenkinsMaster, JenkinsMasterArgs, jenkinsMasterProblems, Login, ownPriorities, Rights } from "../../components/jenkins-master";
import { dashboard } from "../../components/jenkins-master/dashboard";
import { agentsPodSecurity } from "../../components/jenkins-master/namespaces";
import { configurationScript } from "../../components/jenkins-master/reload";
import { authorizationStrategy, permissions, securityRealm } from "../../components/jenkins-master/login";
import { dockerConfigJson } from "../../components/pull-secrets";
import { all, objects, settled, the, useMocks, valueOf } from "./mocks";

jest.setTimeout(60_000);

const digest = `sha256:${"0".repeat(64)}`;
const maven: AgentTemplate = {
  name: "maven",
  label: "maven",
  image: `registry.test/platform/maven-dind@${digest}`,
  docker: "dind",
  caches: ["maven"],
  resources: { requests: { cpu: "500m", memory: "1Gi" }, limits: { memory: "2048Mi" } },
  dockerResources: { requests: { cpu: "250m" }, limits: { memory: "4Gi" } },
  cap: 10,
  idleMinutes: 0,
  podRetention: "never",
  connectTimeoutSeconds: 600,
  activeDeadlineSeconds: 0,
  nodeSelector: {},
  tolerations: [],
  spread: true,
  unlabelled: false,
  env: {},
  volumes: [],
};
const settings = { dindImage: "registry.test/docker:dind", buildkitImage: "registry.test/buildkit:rootless", insecureRegistries: [] as string[], cachePath: "/var/cache/build-platform" };
const args: JenkinsMasterArgs = {
  address: { domain: "jenkins.example.com", ingressClassName: "nginx" },
  controller: { image: `registry.test/platform/controller@${digest}`, resources: { requests: { cpu: "500m", memory: "1Gi" }, limits: { memory: "2Gi" } } },
  home: { storageClassName: "openebs-hostpath", size: "20Gi" },
  agents: { templates: [maven], settings, cache: { keeperImage: "registry.test/agent:1" } },
  access: { adminUser: "admin" },
};
const password = "A".repeat(32);

/** Some arguments of some groups. */
type Further = { [K in keyof JenkinsMasterArgs]?: JenkinsMasterArgs[K] extends string | undefined ? JenkinsMasterArgs[K] : Partial<JenkinsMasterArgs[K]> };

/** The usual arguments with others in place of some. */
function withArgs(further: Further): JenkinsMasterArgs {
  const groups: Record<string, unknown> = { ...args };
  for (const [key, value] of Object.entries(further)) groups[key] = typeof value === "object" ? { ...(groups[key] as object), ...value } : value;
  return groups as unknown as JenkinsMasterArgs;
}

async function make(further: Further = {}): Promise<JenkinsMaster> {
  const jenkins = new JenkinsMaster("jenkins", withArgs(further));
  await settled();
  return jenkins;
}

// What the tests look at is plain JSON of many shapes.
type Json = any;
const pod = (): Json => the("Deployment", "jenkins").inputs.spec.template.spec;
const container = (): Json => pod().containers[0];
const env = (of: Json): Record<string, string> => Object.fromEntries(of.env.map((e: { name: string; value: string }) => [e.name, e.value]));
const document = (): Json => parse(the("ConfigMap", "jenkins-casc").inputs.data["jenkins.yaml"]);
const cloud = (): Json => document().jenkins.clouds[0].kubernetes;
/** A pulumi secret as mocks see it. */
const secret = (value: unknown) => ({ "4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", value });

beforeEach(() => useMocks((name) => (name === "jenkins-admin-password" ? password : "")));

describe("the controller", () => {
  test("names that others rely on", async () => {
    await make();
    const named = objects().flatMap(({ type, inputs }) => (inputs.metadata ? [`${type.split(":").pop()} ${inputs.metadata.namespace ?? "-"}/${inputs.metadata.name}`] : []));
    expect(named.sort()).toEqual(
      [
        "ConfigMap jenkins/jenkins-casc",
        "ConfigMap jenkins/jenkins-init-hook",
        "DaemonSet jenkins-agents/agent-cache",
        "Deployment jenkins/jenkins",
        "Ingress jenkins/jenkins",
        "Namespace -/jenkins",
        "Namespace -/jenkins-agents",
        "NetworkPolicy jenkins-agents/jenkins-agents",
        "NetworkPolicy jenkins/jenkins",
        "PersistentVolumeClaim jenkins/jenkins-home",
        "PodDisruptionBudget jenkins-agents/jenkins-agents",
        "PodDisruptionBudget jenkins/jenkins",
        "Role jenkins-agents/jenkins",
        "RoleBinding jenkins-agents/jenkins",
        "Secret jenkins/jenkins-admin",
        "Service jenkins/jenkins",
        "Service jenkins/jenkins-agent",
        "ServiceAccount jenkins-agents/jenkins-agent",
        "ServiceAccount jenkins/jenkins",
        "ValidatingAdmissionPolicy -/build-platform-jenkins-agents",
        "ValidatingAdmissionPolicyBinding -/build-platform-jenkins-agents",
        "ServiceAccountPatch jenkins-agents/default",
      ].sort(),
    );
  });

  test("another namespace holds all of it, and its agents have theirs", async () => {
    await make({ namespace: "team-b" });
    const used = new Set(objects().flatMap(({ inputs }) => (inputs.metadata ? [inputs.metadata.namespace ?? inputs.metadata.name] : [])));
    // What is the cluster's has the namespace in its name.
    expect([...used].sort()).toEqual(["build-platform-team-b-agents", "team-b", "team-b-agents"]);
    expect(cloud()).toMatchObject({ namespace: "team-b-agents", jenkinsUrl: "http://jenkins.team-b.svc:8080/", jenkinsTunnel: "jenkins-agent.team-b.svc:50000" });
    expect(the("RoleBinding").inputs.subjects[0].namespace).toBe("team-b");
    expect(JSON.stringify(all("NetworkPolicy").map((policy) => policy.inputs.spec))).not.toMatch(/"jenkins(-agents)?"}/);
  });

  test("one replica that is never doubled, on its own volume", async () => {
    await make({ home: { size: "2048Mi" } });
    const { spec } = the("Deployment", "jenkins").inputs;
    expect(spec).toMatchObject({ replicas: 1, strategy: { type: "Recreate" } });
    expect(the("PersistentVolumeClaim").inputs.spec).toEqual({ accessModes: ["ReadWriteOnce"], storageClassName: "openebs-hostpath", resources: { requests: { storage: "2Gi" } } });
    expect(pod().volumes).toContainEqual({ name: "home", persistentVolumeClaim: { claimName: "jenkins-home" } });
    expect(container().volumeMounts).toContainEqual({ name: "home", mountPath: "/var/jenkins_home" });
  });

  test("passes Pod Security level restricted, which its namespace enforces", async () => {
    await make();
    expect(the("Namespace", "jenkins").inputs.metadata.labels["pod-security.kubernetes.io/enforce"]).toBe("restricted");
    expect(pod().securityContext).toMatchObject({ runAsNonRoot: true, runAsUser: 1000, fsGroup: 1000, fsGroupChangePolicy: "OnRootMismatch", seccompProfile: { type: "RuntimeDefault" } });
    expect(container().securityContext).toEqual({ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } });
    expect(pod()).not.toHaveProperty("hostNetwork");
    expect(pod().volumes.filter((v: Json) => v.hostPath)).toEqual([]);
  });

  test("every folder it writes to is a volume", async () => {
    await make();
    const writable = container().volumeMounts.filter((m: Json) => !m.readOnly).map((m: Json) => m.mountPath);
    expect(writable).toEqual(["/var/jenkins_home", "/var/cache/jenkins", "/tmp"]);
    expect(env(container()).JENKINS_OPTS).toContain("--webroot=/var/cache/jenkins/war");
  });

  test("reads its configuration and password from files, and holds no password in its environment", async () => {
    await make();
    expect(env(container())).toMatchObject({ CASC_JENKINS_CONFIG: "/run/jenkins-casc", SECRETS: "/run/secrets/jenkins", JENKINS_SLAVE_AGENT_PORT: "50000" });
    expect(container().volumeMounts).toContainEqual({ name: "configuration", mountPath: "/run/jenkins-casc", readOnly: true });
    expect(container().volumeMounts).toContainEqual({ name: "admin", mountPath: "/run/secrets/jenkins", readOnly: true });
    expect(pod().volumes).toContainEqual({ name: "admin", secret: { secretName: "jenkins-admin" } });
    expect(JSON.stringify(the("Deployment", "jenkins").inputs)).not.toContain(password);
    expect(JSON.stringify(the("ConfigMap", "jenkins-casc").inputs)).not.toContain(password);
  });

  test("the mounted documents are made plain files before it starts, after a restore", async () => {
    await make({ controller: { beforeStart: { container: { name: "restore" }, volumes: [] } } });
    expect(pod().initContainers.map((c: Json) => c.name)).toEqual(["restore", "configuration"]);
    const [, init] = pod().initContainers;
    expect(init).toMatchObject({ image: container().image, securityContext: container().securityContext, command: ["/bin/bash", "-c", configurationScript] });
    expect(env(init)).toEqual({ CASC: "/var/jenkins_casc", LIVE: "/run/jenkins-casc", FOLDERS: "/var/jenkins_casc /run/secrets/jenkins", STATE: "/run/config-reload" });
    for (const name of ["configuration", "reload"]) expect(pod().volumes).toContainEqual({ name, emptyDir: {} });
  });

  test("further environment and Secrets reach its own container alone", async () => {
    await make({ controller: { env: { REGION: "eu" }, envFrom: ["site"] } });
    expect(env(container())).toMatchObject({ REGION: "eu" });
    expect(container().envFrom).toEqual([{ secretRef: { name: "site" } }]);
    for (const other of [...pod().initContainers, pod().containers[1]]) expect(JSON.stringify(other)).not.toMatch(/REGION|envFrom/);
    await useMocks();
    await make();
    expect(container()).not.toHaveProperty("envFrom");
  });

  test("gets its start-up budget from config and is probed at /login", async () => {
    await make({ controller: { startupSeconds: 121 } });
    const { startupProbe, livenessProbe, readinessProbe } = container();
    expect(startupProbe.periodSeconds * startupProbe.failureThreshold).toBeGreaterThanOrEqual(121);
    for (const probe of [startupProbe, livenessProbe, readinessProbe]) expect(probe.httpGet).toEqual({ path: "/login", port: "http" });
  });

  test("its heap is a share of the memory limit", async () => {
    await make({ controller: { maxRamPercentage: 55, javaOpts: "-Dx=y" } });
    expect(env(container()).JAVA_OPTS).toContain("-XX:MaxRAMPercentage=55.0");
    expect(env(container()).JAVA_OPTS).toMatch(/ -Dx=y$/);
    expect(container().resources.limits.memory).toBe("2Gi");
    expect(javaOptions(60)).not.toMatch(/-Xmx|undefined/);
  });

  test("gives the first builds after its start their agents at once, unless JVM options say otherwise", () => {
    expect(javaOptions(60)).toContain("-Dhudson.slaves.NodeProvisioner.initialDelay=0 -Dhudson.slaves.NodeProvisioner.recurrencePeriod=250");
    expect(javaOptions(60, "-Dhudson.slaves.NodeProvisioner.initialDelay=5000")).toMatch(/initialDelay=0 .*initialDelay=5000$/);
  });

  test("pods that bring no agent take the mirror's, unless the cloud names a registry for the plugin's", async () => {
    const withAgent = { settings: { ...settings, agentImage: "mirror.test/jenkins/inbound-agent:1" } };
    const property = "-Dorg.csanchez.jenkins.plugins.kubernetes.pipeline.PodTemplateStepExecution.defaultImage=";
    await make({ agents: withAgent });
    expect(env(container()).JAVA_OPTS).toContain(`${property}mirror.test/jenkins/inbound-agent:1`);
    await useMocks();
    await make({ agents: { ...withAgent, cloud: { jnlpRegistry: "mirror.test" } } });
    expect(env(container()).JAVA_OPTS).not.toContain(property);
  });

  test("both Services reach it by the container's port names", async () => {
    await make();
    const ports = container().ports.map((p: Json) => [p.name, p.containerPort]);
    expect(ports).toEqual([["http", 8080], ["agent", 50000]]);
    expect(the("Service", "jenkins").inputs.spec.ports).toMatchObject([{ name: "http", port: 8080, targetPort: "http" }]);
    expect(the("Service", "jenkins-agent").inputs.spec.ports).toMatchObject([{ name: "agent", port: 50000, targetPort: "agent" }]);
    const labels = the("Deployment", "jenkins").inputs.spec.template.metadata.labels;
    for (const service of all("Service")) expect(labels).toMatchObject(service.inputs.spec.selector);
  });

  test("is the same pod whatever its configuration or password: the running Jenkins reads them again", async () => {
    const template = async (further: Further) => {
      await useMocks(() => password);
      await make(further);
      return JSON.stringify(the("Deployment", "jenkins").inputs.spec.template);
    };
    const first = await template({});
    expect(await template({ agents: { cap: 11 } })).toBe(first);
    expect(await template({ access: { adminPassword: "another-password" } })).toBe(first);
    expect(await template({ configuration: { fragments: { "mail.yaml": "unclassified: {}" } } })).toBe(first);
    expect(await template({ controller: { maxRamPercentage: 50 } })).not.toBe(first);
  });

  test("sets back and tells of keys that are no longer set, and says nothing where none is gone", async () => {
    const warn = jest.spyOn(pulumi.log, "warn").mockResolvedValue();
    await make();
    const data = the("ConfigMap", "jenkins-casc").inputs.data;
    for (const [live, times] of [[data, 0], [{ ...data, "own.yaml": "jenkins: { systemMessage: x }" }, 1]] as const) {
      await useMocks();
      await make({ configuration: { live } });
      expect(warn).toHaveBeenCalledTimes(times);
      expect(Object.keys(the("ConfigMap", "jenkins-casc").inputs.data)).toHaveLength(Object.keys(data).length + times);
    }
    expect(warn).toHaveBeenCalledWith(expect.stringContaining(': jenkins.systemMessage ""'), expect.anything());
    // What a transform brings is there because of it.
    await useMocks();
    await make({ configuration: { live: { ...data, "extra.yaml": "jenkins: { systemMessage: x }" } }, transform: { configMap: (content) => void (content.data = { ...(content.data as object), "extra.yaml": "jenkins: { systemMessage: x }" }) } });
    expect(warn).toHaveBeenCalledTimes(1);
    warn.mockRestore();
  });

  test("is told of changes by a sidecar that shares its configuration and a token of the pod's own", async () => {
    await make();
    const [jenkins, reload] = pod().containers;
    expect(pod().containers.map((c: Json) => c.name)).toEqual(["jenkins", "config-reload"]);
    const token = (c: Json) => c.env.find((e: Json) => e.name === "CASC_RELOAD_TOKEN");
    expect(token(reload)).toEqual({ name: "CASC_RELOAD_TOKEN", valueFrom: { fieldRef: { apiVersion: "v1", fieldPath: "metadata.uid" } } });
    expect(token(jenkins)).toEqual(token(reload));
    expect(env(reload).FOLDERS).toBe("/var/jenkins_casc /run/secrets/jenkins");
    expect(reload.securityContext).toEqual(jenkins.securityContext);
    expect(reload.volumeMounts.filter((m: Json) => !m.readOnly).map((m: Json) => m.name)).toEqual(["configuration", "reload"]);
  });

  test("asks for room on the node's own disk where it is told to", async () => {
    await make({ controller: { resources: { requests: { ephemeralStorage: "1024Mi" }, limits: { memory: "2Gi", ephemeralStorage: "8Gi" } } } });
    expect(container().resources).toEqual({ requests: { "ephemeral-storage": "1Gi" }, limits: { memory: "2Gi", "ephemeral-storage": "8Gi" } });
    expect(jenkinsMasterProblems(withArgs({ controller: { resources: { limits: { memory: "2Gi", ephemeralStorage: "much" } } } }))).toEqual([{ propertyPath: "controller.resources.limits.ephemeralStorage", reason: expect.stringContaining('"much"') }]);
  });

  test("goes to the nodes that are asked for, and to any by default", async () => {
    await make();
    expect(pod()).not.toHaveProperty("nodeSelector");
    expect(pod()).not.toHaveProperty("tolerations");
    await useMocks();
    await make({ controller: { nodeSelector: { disk: "ssd" }, tolerations: [{ key: "ci", operator: "Exists" }] } });
    expect(pod()).toMatchObject({ nodeSelector: { disk: "ssd" }, tolerations: [{ key: "ci", operator: "Exists" }] });
  });

  test("has the PriorityClass that is asked for", async () => {
    await make({ controller: { priorityClassName: "platform" } });
    expect(pod().priorityClassName).toBe("platform");
  });

  test("makes the PriorityClasses that are called after its namespaces, and no other", async () => {
    const own = ownPriorities({ controller: "team-b", agents: "team-b-agents" });
    expect(own).toEqual({ controller: "team-b-controller", agents: "team-b-agents" });
    expect(Object.values(ownPriorities({ controller: "system-ci", agents: "system-ci-agents" })).filter((each) => each.startsWith("system-"))).toEqual([]);
    await make({ namespace: "team-b", controller: { priorityClassName: own.controller }, agents: { settings: { ...settings, priorityClassName: own.agents } } });
    const { inputs: first } = the("PriorityClass", own.controller);
    const { inputs: last } = the("PriorityClass", own.agents);
    // Pods without a class have 0: the controller goes after them, agents before. A cluster autoscaler makes room for nothing below -10.
    expect(first.value).toBeGreaterThan(0);
    expect(first).not.toHaveProperty("globalDefault", true);
    expect(last.value).toBeLessThan(0);
    expect(last.value).toBeGreaterThanOrEqual(-10);
    expect(last.preemptionPolicy).toBe("Never");
    for (const { metadata } of [first, last]) expect(metadata.labels).toMatchObject({ "build-platform/stack": "unit", "app.kubernetes.io/part-of": "build-platform" });
    expect(pod().priorityClassName).toBe(own.controller);
    for (const { yaml } of cloud().templates) expect(parse(yaml).spec.priorityClassName).toBe(own.agents);
    expect(cloud().templates.map((template: Json) => template.yamlMergeStrategy)).toEqual(["merge", "merge"]);
    await useMocks();
    await make({ controller: { priorityClassName: "platform" } });
    expect(all("PriorityClass")).toEqual([]);
    for (const { yaml } of cloud().templates) expect(yaml).not.toContain("priority");
  });

  test("what it writes beside its home has bounds, and is far from them", async () => {
    await make();
    const sizes = Object.fromEntries(pod().volumes.map((volume: Json) => [volume.name, volume.emptyDir?.sizeLimit]));
    expect(sizes).toMatchObject({ cache: "5Gi", tmp: "20Gi" });
  });

  test("its main objects can be changed last, by programs that use the component", async () => {
    await make({ transform: { deployment: ({ spec }) => ((spec as Json).template.spec.dnsPolicy = "Default"), configMap: ({ data }) => ((data as Json).extra = "x") } });
    expect(pod().dnsPolicy).toBe("Default");
    expect(the("ConfigMap", "jenkins-casc").inputs.data).toHaveProperty("extra", "x");
  });

  test("is scraped only where a Prometheus namespace is named", async () => {
    await make();
    expect(the("Deployment", "jenkins").inputs.spec.template.metadata.annotations).not.toHaveProperty("prometheus.io/scrape");
    await useMocks();
    await make({ monitoring: { prometheusNamespace: "monitoring" } });
    expect(the("Deployment", "jenkins").inputs.spec.template.metadata.annotations).toMatchObject({ "prometheus.io/scrape": "true", "prometheus.io/path": "/prometheus/" });
    expect(JSON.stringify(the("NetworkPolicy", "jenkins").inputs)).toContain("monitoring");
    expect(all("ServiceMonitor")).toHaveLength(0);
    await useMocks();
    await make({ monitoring: { prometheusNamespace: "monitoring", serviceMonitor: true } });
    expect(the("ServiceMonitor").inputs.spec.endpoints).toEqual([{ port: "http", path: "/prometheus/" }]);
    await useMocks();
    await make({ monitoring: { prometheusNamespace: "monitoring", serviceMonitor: true, serviceMonitorLabels: { release: "kube-prometheus-stack" } } });
    expect(the("ServiceMonitor").inputs.metadata.labels).toMatchObject({ release: "kube-prometheus-stack", "app.kubernetes.io/name": "jenkins" });
  });

  test("has a Grafana dashboard on request, for the sidecar that looks for its label", async () => {
    await make({ monitoring: { prometheusNamespace: "monitoring", dashboard: true }, address: { ingressNamespace: "edge" } });
    const { metadata, data } = the("ConfigMap", "jenkins-dashboard").inputs;
    expect(metadata).toMatchObject({ name: "jenkins-dashboard", namespace: "jenkins", labels: { grafana_dashboard: "1" } });
    expect(JSON.parse(data["build-platform.json"])).toEqual(JSON.parse(JSON.stringify(dashboard({ namespace: "jenkins", agentsNamespace: "jenkins-agents", ingressNamespace: "edge" }))));
    expect(jenkinsMasterProblems(withArgs({ monitoring: { dashboard: true } })).map((p) => p.propertyPath)).toEqual(["monitoring.dashboard"]);
  });

  test("finds further secrets beside the administrator's, and only those that are named", async () => {
    await make({ configuration: { secretFiles: [{ secret: "github", key: "token" }] } });
    expect(pod().volumes.find((v: Json) => v.name === "admin").projected.sources).toEqual([
      { secret: { name: "jenkins-admin" } },
      { secret: { name: "github", items: [{ key: "token", path: "github-token" }] } },
    ]);
  });
});

describe("login and rights", () => {
  const oidc: Login = {
    kind: "oidc",
    oidc: {
      wellKnownUrl: "https://sso.example.com/.well-known/openid-configuration", clientId: "jenkins", clientSecret: "c1ient-s3cret", userNameField: "preferred_username", fullNameField: "name", emailField: "",
      groupsField: "groups", scopes: "openid groups", logoutFromProvider: true, escapeHatch: true,
    },
  };
  const ldap: Login = {
    kind: "ldap",
    ldap: {
      server: "ldaps://ldap.example.com", rootDN: "dc=example,dc=com", managerDN: "cn=jenkins", managerPassword: "m4nager-s3cret", userSearchBase: "ou=people", userSearch: "uid={0}", groupSearchBase: "",
      groupSearchFilter: "", groupMembershipFilter: "", groupMembershipAttribute: "memberOf", displayNameAttribute: "displayName", mailAttribute: "mail",
    },
  };
  const rights: Rights = { admin: { groups: ["platform"], users: [] }, developer: { groups: ["authenticated"], users: ["${admin-password}"] } };

  // The keys are those of the plugins' own tests of configuration as code: oic-auth's ConfigurationAsCode.yml, ldap's casc.yml, matrix-auth's configuration-as-code-v3.yml.
  test("OIDC in the keys of the plugin oic-auth, with the local administrator as its escape hatch", async () => {
    await make({ access: { login: oidc, rights } });
    expect(document().jenkins.securityRealm).toEqual({
      oic: {
        clientId: "jenkins",
        clientSecret: "${login-client-secret}",
        serverConfiguration: { wellKnown: { wellKnownOpenIDConfigurationUrl: "https://sso.example.com/.well-known/openid-configuration", scopesOverride: "openid groups" } },
        userNameField: "preferred_username",
        fullNameFieldName: "name",
        groupsFieldName: "groups",
        logoutFromOpenidProvider: true,
        properties: ["pkce", { escapeHatch: { username: "${admin-user}", secret: "${admin-password}", group: "build-platform-escape-hatch" } }],
      },
    });
  });

  test("LDAP in the keys of the plugin ldap", async () => {
    await make({ access: { login: ldap, rights } });
    expect(document().jenkins.securityRealm).toEqual({
      ldap: {
        configurations: [
          {
            server: "ldaps://ldap.example.com", rootDN: "dc=example,dc=com", managerDN: "cn=jenkins", managerPasswordSecret: "${login-manager-password}", userSearchBase: "ou=people", userSearch: "uid={0}",
            groupMembershipStrategy: { fromUserRecord: { attributeName: "memberOf" } }, displayNameAttributeName: "displayName", mailAddressAttributeName: "mail",
          },
        ],
        cache: { size: 1000, ttl: 300 },
      },
    });
    const searched = securityRealm({ kind: "ldap", ldap: { ...ldap.ldap, groupMembershipAttribute: "", groupMembershipFilter: "member={0}" } }) as Json;
    expect(searched.ldap.configurations[0].groupMembershipStrategy).toEqual({ fromGroupSearch: { filter: "member={0}" } });
  });

  test("the secrets are in a Secret that Jenkins reads as files, and nowhere else", async () => {
    for (const [login, key, value] of [[oidc, "login-client-secret", "c1ient-s3cret"], [ldap, "login-manager-password", "m4nager-s3cret"]] as const) {
      await useMocks((name) => (name === "jenkins-admin-password" ? password : ""));
      await make({ access: { login, rights } });
      expect(the("Secret", "jenkins-login").inputs).toMatchObject({ metadata: { name: "jenkins-login", namespace: "jenkins" }, data: secret({ [key]: Buffer.from(value).toString("base64") }) });
      expect(pod().volumes).toContainEqual({ name: "admin", projected: { sources: [{ secret: { name: "jenkins-admin" } }, { secret: { name: "jenkins-login" } }] } });
      expect(JSON.stringify([the("ConfigMap", "jenkins-casc").inputs, the("Deployment", "jenkins").inputs])).not.toContain("s3cret");
    }
  });

  test("rights become entries of matrix-auth: whoever comes through the escape hatch administers, a user of the administrator's name at the provider does not", async () => {
    await make({ access: { login: oidc, rights } });
    const { entries } = document().jenkins.authorizationStrategy.globalMatrix;
    const build = ["Job/Build", "Job/Cancel", "Job/Discover", "Job/Read", "Job/Workspace", "Overall/Read", "View/Read"];
    expect(entries).toEqual([
      { group: { name: "build-platform-escape-hatch", permissions: ["Overall/Administer"] } },
      { group: { name: "platform", permissions: ["Overall/Administer"] } },
      { group: { name: "authenticated", permissions: build } },
      // Text of the stack config is never a reference to a secret.
      { user: { name: "^${admin-password}", permissions: build } },
    ]);
  });

  test("rights without a login keep the local administrator, and a name has one entry whatever roles it has", () => {
    expect(authorizationStrategy({ reader: { groups: [], users: ["ann"] }, developer: { groups: [], users: ["ann"] } }, undefined)).toEqual({
      globalMatrix: {
        entries: [
          { user: { name: "${admin-user}", permissions: ["Overall/Administer"] } },
          { user: { name: "ann", permissions: permissions.developer } },
        ],
      },
    });
    expect(JSON.stringify(authorizationStrategy(rights, ldap))).not.toMatch(/escape-hatch|admin-user/);
  });

  test("a login without rights, and documents that bring a realm or a strategy of their own beside them, are refused", () => {
    expect(jenkinsMasterProblems(withArgs({ access: { login: oidc } })).map((p) => p.propertyPath)).toEqual(["access.rights"]);
    const fragments = { "own.yaml": "jenkins: { securityRealm: { ldap: {} }, authorizationStrategy: unsecured }" };
    expect(jenkinsMasterProblems(withArgs({ access: { login: oidc, rights }, configuration: { fragments } })).map((p) => p.reason)).toEqual([
      "sets jenkins.securityRealm, which the stack config's login sets as well",
      "sets jenkins.authorizationStrategy, which the stack config's rights set as well",
    ]);
  });
});

describe("the administrator", () => {
  test("gets a password that is made once, kept secret and never printed", async () => {
    await make();
    const made = the("Command");
    expect(made.inputs).toMatchObject({ logging: "none", triggers: [1] });
    expect(made.inputs).not.toHaveProperty("update");
    expect(the("Secret").inputs.data).toEqual(secret({ "admin-user": Buffer.from("admin").toString("base64"), "admin-password": Buffer.from(password).toString("base64") }));
    expect(the("Secret").inputs).not.toHaveProperty("stringData");
  });

  test("gets a new one when the version is raised", async () => {
    await make({ access: { adminPasswordVersion: 2 } });
    expect(the("Command").inputs.triggers).toEqual([2]);
  });

  test("takes the password from config, and then none is made", async () => {
    await make({ access: { adminPassword: "from-the-config" } });
    expect(all("Command")).toHaveLength(0);
    expect(JSON.stringify(the("Secret").inputs.data)).toContain(Buffer.from("from-the-config").toString("base64"));
  });

  test("takes it from an existing Secret, and then there is no other", async () => {
    const jenkins = await make({ access: { adminExistingSecret: "vault-made" } });
    expect(all("Command")).toHaveLength(0);
    expect(all("Secret")).toHaveLength(0);
    expect(pod().volumes).toContainEqual({ name: "admin", secret: { secretName: "vault-made" } });
    expect(await valueOf(jenkins.passwordCommand)).toContain("get secret vault-made");
    // Who that is only the Secret knows.
    expect(await valueOf(jenkins.adminUser)).toBe("see key admin-user of Secret vault-made");
    expect(await valueOf((await make()).adminUser)).toBe("admin");
  });
});

describe("rights", () => {
  test("the controller may handle pods of the agents' namespace and nothing else", async () => {
    await make();
    expect(all("ClusterRole")).toHaveLength(0);
    expect(all("ClusterRoleBinding")).toHaveLength(0);
    expect(the("Role").inputs.metadata.namespace).toBe("jenkins-agents");
    expect(the("RoleBinding").inputs.subjects).toEqual([{ kind: "ServiceAccount", name: "jenkins", namespace: "jenkins" }]);
    // Every call that the plugin makes with our settings: GarbageCollection, KubernetesLauncher, KubernetesSlave, KubernetesComputer, Reaper, ContainerExecDecorator.
    expect(Object.fromEntries(controllerRules.flatMap((rule) => rule.resources.map((resource) => [resource, rule.verbs.join(" ")])))).toEqual({
      pods: "create delete get list patch watch",
      "pods/exec": "create get",
      "pods/log": "get",
      events: "list watch",
    });
    expect(the("Role").inputs.rules).toEqual(controllerRules);
  });

  test("a pod of the agents' namespace that names no account of its own gets no token either", async () => {
    await make({ namespace: "team-b" });
    // Kubernetes makes the account with its namespace; only this one field is the stack's.
    expect(the("ServiceAccountPatch").inputs).toEqual({ apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "default", namespace: "team-b-agents" }, automountServiceAccountToken: false });
  });

  test("agents hold no token", async () => {
    await make();
    expect(the("ServiceAccount", "jenkins-agent").inputs.automountServiceAccountToken).toBe(false);
    expect((agentPod(maven, settings) as Json).spec).toMatchObject({ serviceAccountName: "jenkins-agent", automountServiceAccountToken: false });
  });
});

describe("the network", () => {
  test("only ingress and agents reach the controller; agents reach no API server and nobody reaches agents", async () => {
    await make({ access: { apiServerCidrs: ["10.96.0.1/32", "192.0.2.10/32"] } });
    const controller = the("NetworkPolicy", "jenkins").inputs.spec;
    expect(controller.policyTypes).toEqual(["Ingress"]);
    expect(controller.ingress.map((rule: Json) => [rule.from[0].namespaceSelector.matchLabels["kubernetes.io/metadata.name"], rule.ports.map((p: Json) => p.port)])).toEqual([
      ["ingress-nginx", [8080]],
      ["jenkins-agents", [8080, 50000]],
    ]);
    const agents = the("NetworkPolicy", "jenkins-agents").inputs.spec;
    expect(agents.podSelector).toEqual({});
    expect(agents.policyTypes).toEqual(["Ingress", "Egress"]);
    expect(agents).not.toHaveProperty("ingress");
    expect(agents.egress.find((rule: Json) => rule.to[0].ipBlock).to[0].ipBlock).toEqual({ cidr: "0.0.0.0/0", except: ["10.96.0.1/32", "192.0.2.10/32"] });
  });

  test("agents reach both families but for the API server's addresses, each taken out of its own", async () => {
    await make({ access: { apiServerCidrs: ["10.96.0.1/32", "fd00::1/128", "2001:db8::10/128"] } });
    const blocks = () => the("NetworkPolicy", "jenkins-agents").inputs.spec.egress.at(-1).to.map(({ ipBlock }: Json) => ipBlock);
    expect(blocks()).toEqual([{ cidr: "0.0.0.0/0", except: ["10.96.0.1/32"] }, { cidr: "::/0", except: ["fd00::1/128", "2001:db8::10/128"] }]);
    await useMocks();
    await make();
    expect(blocks()).toEqual([{ cidr: "0.0.0.0/0" }, { cidr: "::/0" }]);
  });

  test("policies can be left out", async () => {
    await make({ access: { networkPolicies: false } });
    expect(all("NetworkPolicy")).toHaveLength(0);
  });

  test("plain HTTP by default", async () => {
    const jenkins = await make();
    const { spec, metadata } = the("Ingress").inputs;
    expect(spec.rules[0].host).toBe("jenkins.example.com");
    expect(spec.rules[0].http.paths[0].backend.service).toEqual({ name: "jenkins", port: { name: "http" } });
    expect(spec).not.toHaveProperty("tls");
    expect(metadata.annotations["nginx.ingress.kubernetes.io/ssl-redirect"]).toBe("false");
    expect(metadata.annotations).not.toHaveProperty("cert-manager.io/cluster-issuer");
    expect(await valueOf(jenkins.url)).toBe("http://jenkins.example.com/");
    expect(document().unclassified.location.url).toBe("http://jenkins.example.com/");
  });

  test("HTTPS where a certificate is named, with redirect and issuer", async () => {
    const jenkins = await make({ address: { tls: { secretName: "jenkins-tls", clusterIssuer: "letsencrypt" } } });
    expect(the("Ingress").inputs.spec.tls).toEqual([{ hosts: ["jenkins.example.com"], secretName: "jenkins-tls" }]);
    expect(the("Ingress").inputs.metadata.annotations).toMatchObject({ "nginx.ingress.kubernetes.io/ssl-redirect": "true", "cert-manager.io/cluster-issuer": "letsencrypt" });
    expect(await valueOf(jenkins.url)).toBe("https://jenkins.example.com/");
  });

  test("further hosts are served like the domain, each with its certificate, and one may show resources", async () => {
    const hosts = [{ name: "old.example.com", secretName: "tls" }, { name: "files.example.com", secretName: "files-tls", resources: true }];
    await make({ address: { tls: { secretName: "tls" }, hosts, externalUrl: "https://jenkins.example.com:8443/ci" } });
    const { rules, tls } = the("Ingress").inputs.spec;
    expect(rules.map(({ host, http }: Json) => [host, http.paths.map((each: Json) => each.path)])).toEqual(["jenkins.example.com", "old.example.com", "files.example.com"].map((host) => [host, ["/ci"]]));
    expect(tls).toEqual([{ hosts: ["jenkins.example.com", "old.example.com"], secretName: "tls" }, { hosts: ["files.example.com"], secretName: "files-tls" }]);
    expect(document().unclassified).toEqual({ location: { url: "https://jenkins.example.com:8443/ci/" }, resourceRoot: { url: "https://files.example.com:8443/ci/" } });
    expect(jenkinsMasterProblems(withArgs({ address: { hosts: [{ name: "jenkins.example.com", secretName: "x" }, { name: "nope" }] } })).map(({ propertyPath }) => propertyPath)).toEqual(["address.hosts[0].name", "address.hosts[0].secretName", "address.hosts[1].name"]);
  });

  test("agents outside have a port of every node where config asks for it, and only then", async () => {
    await make();
    expect(the("Service", "jenkins-agent").inputs.spec).not.toHaveProperty("type");
    expect(JSON.stringify(the("NetworkPolicy", "jenkins").inputs.spec)).not.toContain('{"ports":');
    await useMocks();
    await make({ controller: { agentNodePort: 31500 } });
    expect(the("Service", "jenkins-agent").inputs.spec).toMatchObject({ type: "NodePort", ports: [{ port: 50000, targetPort: "agent", nodePort: 31500 }] });
    expect(the("Service", "jenkins").inputs.spec).not.toHaveProperty("type");
    expect(the("NetworkPolicy", "jenkins").inputs.spec.ingress).toContainEqual({ ports: [{ port: 50000, protocol: "TCP" }] });
  });

  test("limits: uploads go through unstored, a console may be silent for ten minutes, and config changes either", async () => {
    const nginx = "nginx.ingress.kubernetes.io/";
    const annotations = () => the("Ingress").inputs.metadata.annotations;
    await make();
    expect(annotations()).toMatchObject({ [`${nginx}proxy-body-size`]: "64m", [`${nginx}proxy-request-buffering`]: "off", [`${nginx}proxy-read-timeout`]: "600" });
    await useMocks();
    await make({ address: { maxBodySize: "2g", annotations: { [`${nginx}proxy-read-timeout`]: "3600" } } });
    expect(annotations()).toMatchObject({ [`${nginx}proxy-body-size`]: "2g", [`${nginx}proxy-request-buffering`]: "off", [`${nginx}proxy-read-timeout`]: "3600" });
  });

  test("annotations from config win", () => {
    expect(ingressAnnotations({ domain: "jenkins.example.com", annotations: { "nginx.ingress.kubernetes.io/proxy-body-size": "1g", other: "x" } })).toMatchObject({ "nginx.ingress.kubernetes.io/proxy-body-size": "1g", other: "x" });
  });
});

describe("the registry's login", () => {
  test("reaches both service accounts as a Secret", async () => {
    await make({ access: { pulls: { dockerConfigJson: dockerConfigJson([{ registry: "registry.test", username: "puller", password: "pull-secret" }]) } } });
    expect(all("Secret").map((s) => `${s.inputs.metadata.namespace}/${s.inputs.metadata.name}`).sort()).toEqual(["jenkins-agents/registry-login", "jenkins/jenkins-admin", "jenkins/registry-login"]);
    for (const account of all("ServiceAccount")) expect(account.inputs.imagePullSecrets).toEqual([{ name: "registry-login" }]);
    for (const object of all("Secret").filter((s) => s.inputs.metadata.name === "registry-login")) expect(Object.keys(object.inputs.data)).toContain("value");
  });

  test("is named in what pipelines' own pods start from: one that names a pull secret of its own loses the account's", async () => {
    await make({ access: { ...args.access, pulls: { dockerConfigJson: "{}" } } });
    expect(parse(cloud().templates.at(-1).yaml).spec.imagePullSecrets).toEqual([{ name: "registry-login" }]);
  });

  test("is absent without one", async () => {
    await make();
    for (const account of all("ServiceAccount")) expect(account.inputs).not.toHaveProperty("imagePullSecrets");
  });
});

describe("agents", () => {
  const jnlp = (template: Partial<AgentTemplate>): Json => (agentPod({ ...maven, ...template }, settings) as Json).spec.containers.find((c: Json) => c.name === "jnlp");
  const sidecar = (template: Partial<AgentTemplate>, name: string): Json => (agentPod({ ...maven, ...template }, settings) as Json).spec.containers.find((c: Json) => c.name === name);

  test("the agent container is called jnlp and has neither command nor args", () => {
    expect(jnlp({})).not.toHaveProperty("command");
    expect(jnlp({})).not.toHaveProperty("args");
    expect(jnlp({}).image).toBe(maven.image);
  });

  test("only the docker sidecar is privileged, and only in mode dind", () => {
    const privileged = (docker: AgentTemplate["docker"]) =>
      (agentPod({ ...maven, docker }, settings) as Json).spec.containers.filter((c: Json) => c.securityContext.privileged).map((c: Json) => c.name);
    expect(privileged("dind")).toEqual(["dind"]);
    expect(privileged("rootless")).toEqual([]);
    expect(privileged("none")).toEqual([]);
    expect(jnlp({}).securityContext).toEqual({ allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } });
  });

  test("the docker daemon listens inside the pod only and is told of plain registries", () => {
    const plain = agentPod(maven, { ...settings, insecureRegistries: ["10.0.0.1:5000"] }) as Json;
    const dind = plain.spec.containers.find((c: Json) => c.name === "dind");
    expect(dind.args).toContain("--insecure-registry=10.0.0.1:5000");
    expect(dind.args.filter((a: string) => a.startsWith("--host=tcp"))).toEqual(["--host=tcp://127.0.0.1:2375"]);
    expect(sidecar({}, "dind").args.join(" ")).not.toContain("insecure");
    expect(env(jnlp({})).DOCKER_HOST).toBe("tcp://localhost:2375");
  });

  test("the docker daemon takes the MTU of the pod's network, as far as it knows how", () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "dockerd-"));
    try {
      const started = (known: string, mtu?: string) => {
        fs.rmSync(path.join(folder, "eth0"), { recursive: true, force: true });
        if (mtu !== undefined) fs.mkdirSync(path.join(folder, "eth0"));
        if (mtu !== undefined) fs.writeFileSync(path.join(folder, "eth0/mtu"), `${mtu}\n`);
        fs.writeFileSync(path.join(folder, "dockerd"), `#!/bin/sh\necho '${known}'\n`, { mode: 0o755 });
        fs.writeFileSync(path.join(folder, "dockerd-entrypoint.sh"), `#!/bin/sh\nprintf '%s\\n' "$@"\n`, { mode: 0o755 });
        const { command, args } = sidecar({}, "dind");
        const [shell, ...words] = command.map((word: string) => word.replaceAll("/sys/class/net", folder));
        return execFileSync(shell, [...words, ...args], { env: { PATH: `${folder}:${process.env.PATH}` }, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim().split("\n");
      };
      const { args } = sidecar({}, "dind");
      expect(started("      --default-network-opt mapmapopts   Default network options", "1450")).toEqual([...args, "--mtu=1450", "--default-network-opt=bridge=com.docker.network.driver.mtu=1450"]);
      expect(started("      --mtu int   Set the containers network MTU", "8951")).toEqual([...args, "--mtu=8951"]);
      expect(started("")).toEqual(args);
    } finally {
      fs.rmSync(folder, { recursive: true });
    }
  });

  test("rootless BuildKit runs as an ordinary user", () => {
    expect(sidecar({ docker: "rootless" }, "buildkitd").securityContext).toMatchObject({ runAsUser: 1000 });
    expect(sidecar({ docker: "rootless" }, "dind")).toBeUndefined();
    expect(env(jnlp({ docker: "rootless" }))).toHaveProperty("BUILDKIT_HOST");
    expect(env(jnlp({ docker: "rootless" }))).not.toHaveProperty("DOCKER_HOST");
    expect(Object.keys(env(jnlp({ docker: "none", caches: [] })))).toEqual(["JENKINS_JAVA_OPTS"]);
  });

  test("Maven shares its repository under file locks, Gradle gets a home of its own from a read-only cache", () => {
    expect(env(jnlp({})).MAVEN_OPTS).toBe(`-Dmaven.repo.local=${cacheMount}/maven/repository -Daether.syncContext.named.factory=file-lock -Daether.syncContext.named.nameMapper=file-gav`);
    expect(jnlp({}).volumeMounts).toContainEqual({ name: "cache-maven", mountPath: `${cacheMount}/maven`, readOnly: false });
    const gradle = jnlp({ caches: ["gradle"] });
    expect(env(gradle)).toHaveProperty("GRADLE_USER_HOME", "/home/jenkins/.gradle");
    expect(env(gradle)).not.toHaveProperty("MAVEN_OPTS");
    expect(gradle.volumeMounts).toContainEqual({ name: "cache-gradle", mountPath: `${cacheMount}/gradle`, readOnly: true });
    // The build itself cannot write to where its pod's sidecar offers.
    expect(gradle.volumeMounts.map((m: Json) => m.name)).not.toContain("gradle-offers");
    const beside = sidecar({ caches: ["gradle"] }, "gradle-cache");
    expect(beside.securityContext).toEqual({ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } });
    expect(beside.volumeMounts.filter((m: Json) => !m.readOnly).map((m: Json) => m.name)).toEqual(["gradle-home", "gradle-offers"]);
    expect(sidecar({ caches: ["maven"] }, "gradle-cache")).toBeUndefined();
  });

  test("what builds write on the node has bounds: the pod that passes them is evicted, not its neighbours", () => {
    const bounded = { ...maven, caches: ["gradle" as const], workspaceSize: "51200Mi", dockerSize: "100Gi", dockerResources: { limits: { memory: "4Gi", ephemeralStorage: "120Gi" } } };
    const sizes = (template: AgentTemplate) => Object.fromEntries(((agentPod(template, settings) as Json).spec.volumes as Json[]).flatMap(({ name, emptyDir }) => (emptyDir ? [[name, emptyDir.sizeLimit]] : [])));
    expect(sizes(bounded)).toEqual({ "workspace-volume": "50Gi", "docker-data": "100Gi", "gradle-home": "50Gi" });
    expect(sizes({ ...bounded, docker: "rootless" })).toEqual({ "workspace-volume": "50Gi", "docker-data": "100Gi", buildkit: "1Gi", "gradle-home": "50Gi" });
    expect((agentPod(bounded, settings) as Json).spec.containers[1].resources.limits).toEqual({ memory: "4Gi", "ephemeral-storage": "120Gi" });
    // The plugin puts its own volume in the place of the pod's.
    const { jenkins } = cascConfig({ url: "http://x/", namespace: "a", agentsNamespace: "b", containerCap: 1, templates: [bounded], settings }) as Json;
    expect(jenkins.clouds[0].kubernetes.templates[0].workspaceVolume).toEqual({ emptyDirWorkspaceVolume: { memory: false, sizeLimit: "50Gi" } });
  });

  test("no cache path, no hostPath", () => {
    const bare = agentPod(maven, { ...settings, cachePath: undefined }) as Json;
    expect(bare.spec.volumes.filter((v: Json) => v.hostPath)).toEqual([]);
    expect(env(bare.spec.containers[0])).toEqual({ DOCKER_HOST: "tcp://localhost:2375", JENKINS_JAVA_OPTS: quickJvm });
  });

  test("environment of a template wins", () => {
    expect(env(jnlp({ env: { DOCKER_HOST: "tcp://elsewhere:2375", FOO: "bar" } }))).toMatchObject({ DOCKER_HOST: "tcp://elsewhere:2375", FOO: "bar" });
  });

  test("Maven's options of a template come behind those of the cache, which they would else switch off", () => {
    expect(env(jnlp({ env: { MAVEN_OPTS: "-Xmx1g" } })).MAVEN_OPTS).toBe(`${env(jnlp({})).MAVEN_OPTS} -Xmx1g`);
    expect(env(jnlp({ caches: [], env: { MAVEN_OPTS: "-Xmx1g" } })).MAVEN_OPTS).toBe("-Xmx1g");
  });

  const quickJvm = "-XX:TieredStopAtLevel=1";

  test("the agent's JVM is made for a short life, unless the template says something of its own", () => {
    const flags = (given: Record<string, string>) => env(jnlp({ env: given })).JENKINS_JAVA_OPTS;
    expect(flags({ OTHER: "x", JAVA_TOOL_OPTIONS: "-Xss2m" })).toBe(quickJvm);
    expect(flags({ JENKINS_JAVA_OPTS: "-Xmx1g" })).toBe("-Xmx1g");
    // The image's program reads JAVA_OPTS only where the other is not there.
    expect(flags({ JAVA_OPTS: "-Xmx1g" })).toBeUndefined();
    // A JVM that is told two collectors does not start: beside whatever a template, a pipeline or an image says there is none of ours.
    expect(flags({ JAVA_TOOL_OPTIONS: "-XX:+UseG1GC" })).not.toMatch(/GC/);
    const patched = (container: object) => (agentPod({ ...maven, patches: [{ spec: { containers: [{ name: "jnlp", ...container }] } }] }, settings) as Json).spec.containers[0];
    expect(env(patched({ env: [{ name: "JAVA_OPTS", value: "-Xmx1g" }] }))).not.toHaveProperty("JENKINS_JAVA_OPTS");
    expect(env(patched({ envFrom: [{ configMapRef: { name: "flags" } }] }))).not.toHaveProperty("JENKINS_JAVA_OPTS");
    expect(env(patched({ env: [{ name: "JENKINS_JAVA_OPTS", value: "" }] })).JENKINS_JAVA_OPTS).toBe("");
    expect(env(patched({ env: [{ name: "JAVA_TOOL_OPTIONS", value: "-XX:+UseG1GC" }] })).JENKINS_JAVA_OPTS).toBe(quickJvm);
  });

  test("an agent's Docker starts beside it, not before", () => {
    for (const docker of ["dind", "rootless"] as const) {
      const { containers, initContainers } = (agentPod({ ...maven, docker }, settings) as Json).spec;
      expect(initContainers).toBeUndefined();
      expect(containers[0].name).toBe("jnlp");
    }
  });

  test("images are on the nodes beforehand where a template asks for it: one DaemonSet for each placement, without a right, that nobody waits for", async () => {
    await make({ agents: { templates: [maven] } });
    expect(all("DaemonSet").filter(({ inputs }) => inputs.metadata.name.startsWith("agent-images"))).toEqual([]);
    await useMocks();
    const other = { ...maven, docker: "none" as const, caches: [], prepull: true };
    await make({ agents: { templates: [{ ...maven, prepull: true }, { ...other, name: "go", image: "registry.test/go:1" }, { ...other, name: "gpu", nodeSelector: { gpu: "a" }, tolerations: [{ key: "gpu" }] }, { ...other, name: "not", image: "registry.test/not:1", prepull: false }] } });
    const images = (name: string) => the("DaemonSet", name).inputs.spec.template.spec.containers.map(({ image }: Json) => image);
    expect(images("agent-images-maven")).toEqual([maven.image, settings.dindImage, "registry.test/go:1"]);
    expect(images("agent-images-gpu")).toEqual([maven.image]);
    const { inputs } = the("DaemonSet", "agent-images-gpu");
    expect(inputs.metadata.annotations).toEqual({ "pulumi.com/skipAwait": "true" });
    const { spec } = inputs.spec.template;
    expect(spec).toMatchObject({ nodeSelector: { gpu: "a" }, tolerations: [{ key: "gpu" }], automountServiceAccountToken: false, securityContext: { runAsNonRoot: true } });
    expect(spec.volumes).toBeUndefined();
    expect(spec.containers[0].securityContext).toEqual({ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } });
    // It is no agent, whose pods no drain may evict.
    expect(inputs.spec.template.metadata.labels).not.toHaveProperty("jenkins");
  });

  test("the script of the mirrors is there where an agent has git in its caches", async () => {
    await make({ agents: { templates: [{ ...maven, caches: ["git"] }] } });
    const mount = jnlp({ caches: ["git"] }).volumeMounts.find(({ name }: Json) => name === "agent-git");
    expect(the("ConfigMap", mount.name).inputs.data[mount.subPath]).toMatch(/^#!\/bin\/sh\n/);
    await useMocks();
    await make();
    expect(all("ConfigMap").map(({ inputs }) => inputs.metadata.name)).not.toContain("agent-git");
  });

  test("further volumes are mounted into the build container alone", () => {
    const volumes: AgentTemplate["volumes"] = [
      { kind: "configMap", name: "maven", mountPath: "/usr/share/maven/conf/settings.xml", key: "settings.xml", readOnly: true },
      { kind: "secret", name: "signing", mountPath: "/run/signing", readOnly: true },
      { kind: "claim", name: "sdk", mountPath: "/opt/sdk", readOnly: false },
    ];
    const { spec } = agentPod({ ...maven, volumes }, settings) as Json;
    expect(spec.containers[0].volumeMounts.slice(-3)).toEqual([
      { name: "further-0", mountPath: "/usr/share/maven/conf/settings.xml", subPath: "settings.xml", readOnly: true },
      { name: "further-1", mountPath: "/run/signing", readOnly: true },
      { name: "further-2", mountPath: "/opt/sdk", readOnly: false },
    ]);
    expect(spec.volumes.slice(-3)).toEqual([
      { name: "further-0", configMap: { name: "maven" } },
      { name: "further-1", secret: { secretName: "signing" } },
      { name: "further-2", persistentVolumeClaim: { claimName: "sdk" } },
    ]);
    expect(JSON.stringify(spec.containers[1])).not.toContain("further-0");
    expect(agentsPodSecurity([{ ...maven, docker: "none", caches: [], volumes }])).toBe("restricted");
  });

  test("placement follows the template", () => {
    const spec = (template: Partial<AgentTemplate>): Json => (agentPod({ ...maven, ...template }, settings) as Json).spec;
    expect(spec({})).not.toHaveProperty("nodeSelector");
    expect(spec({})).not.toHaveProperty("tolerations");
    expect(spec({}).topologySpreadConstraints[0]).toMatchObject({ topologyKey: "kubernetes.io/hostname", labelSelector: { matchLabels: { jenkins: "agent" } } });
    expect(spec({ spread: false })).not.toHaveProperty("topologySpreadConstraints");
    expect(spec({ nodeSelector: { a: "b" }, tolerations: [{ operator: "Exists" }] })).toMatchObject({ nodeSelector: { a: "b" }, tolerations: [{ operator: "Exists" }] });
  });

  test("no agent is evicted under its build", async () => {
    await make();
    const { spec } = the("PodDisruptionBudget", "jenkins-agents").inputs;
    // For pods without a controller only a whole minAvailable counts.
    expect(spec).toEqual({ minAvailable: 1_000_000, selector: { matchLabels: { jenkins: "agent" } } });
    expect((agentPod(maven, settings) as Json).metadata.labels).toMatchObject(spec.selector.matchLabels);
  });

  test("the namespace is as strict as its agents allow", () => {
    expect(agentsPodSecurity([maven])).toBe("privileged");
    expect(agentsPodSecurity([{ ...maven, docker: "none" }], "/cache")).toBe("privileged");
    expect(agentsPodSecurity([{ ...maven, docker: "none" }])).toBe("restricted");
    expect(agentsPodSecurity([{ ...maven, docker: "none", caches: [] }], "/cache")).toBe("restricted");
  });

  test("the cache keeper runs only where there is a cache", async () => {
    await make({ agents: { settings: { ...settings, cachePath: undefined } } });
    expect(all("DaemonSet")).toHaveLength(0);
    await useMocks();
    await make({ agents: { cache: { keeperImage: "registry.test/agent:1", maxGi: 5 } } });
    const keeper = the("DaemonSet").inputs.spec.template.spec;
    expect(keeper.volumes).toEqual([{ name: "cache", hostPath: { path: "/var/cache/build-platform", type: "DirectoryOrCreate" } }]);
    expect(env(keeper.containers[0]).MAX_KIB).toBe(String(5 * 1024 * 1024));
    expect(keeper.automountServiceAccountToken).toBe(false);
    expect(keeper.containers.map((c: Json) => c.name)).toEqual(["keeper"]);
    await useMocks();
    await make({ agents: { templates: [{ ...maven, caches: ["gradle"] }] } });
    const gradle = the("DaemonSet").inputs.spec.template.spec.containers[1];
    // What agents offer is hostile: nothing of it is touched as root.
    expect(gradle.securityContext).toMatchObject({ runAsUser: 1000, runAsNonRoot: true, allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } });
  });
});

describe("the JCasC document", () => {
  const input: CascInput = { url: "http://jenkins.example.com/", namespace: "jenkins", agentsNamespace: "jenkins-agents", containerCap: 10, templates: [maven, { ...maven, name: "gradle", label: "gradle jdk21", caches: ["gradle"], activeDeadlineSeconds: 60 }], settings };

  const cloudOf = (of: CascInput): Json => (cascConfig(of) as Json).jenkins.clouds[0].kubernetes;
  const templatesOf = (of: CascInput): Json[] => cloudOf(of).templates;

  test("is this", () => {
    expect(renderCasc(input)).toMatchSnapshot();
  });

  test("names the crumb issuer without settings: core 2.543 took away the last one, and configuration as code refuses a key that is not there", () => {
    expect((cascConfig(input) as Json).jenkins.crumbIssuer).toBe("standard");
  });

  test("holds no alias, whatever the templates: the kubernetes plugin's reader takes one for a text", () => {
    const volume = fc.record({ kind: fc.constantFrom("configMap" as const, "secret" as const, "claim" as const), name: fc.constant("site"), mountPath: fc.constantFrom("/a", "/b"), readOnly: fc.boolean() });
    const template = fc.record({
      docker: fc.constantFrom("dind" as const, "rootless" as const, "none" as const),
      caches: fc.subarray(["maven" as const, "gradle" as const, "docker" as const]),
      spread: fc.boolean(),
      nodeSelector: fc.constantFrom<Record<string, string>>({}, { disk: "fast" }),
      tolerations: fc.constantFrom<Toleration[]>([], [{ key: "ci", operator: "Exists" }]),
      volumes: fc.array(volume, { maxLength: 2 }),
    });
    fc.assert(
      fc.property(fc.array(template, { minLength: 1, maxLength: 3 }), fc.constantFrom<string[]>([], ["registry-login"]), (templates, pullSecrets) => {
        // One object in many places is what aliases are made of.
        const same = { requests: { cpu: "1" }, limits: { memory: "1Gi" } };
        const text = renderCasc({ ...input, pullSecrets, templates: templates.map((t, i) => ({ ...maven, ...t, name: `t${i}`, resources: same, dockerResources: same })) });
        for (const yaml of [text, ...parse(text).jenkins.clouds[0].kubernetes.templates.map((t: Json) => t.yaml)]) {
          visit(parseDocument(yaml), { Alias: (_, alias) => { throw new Error(`alias ${alias.source}`); }, Node: (_, node) => expect("anchor" in node ? node.anchor : undefined).toBeUndefined() });
        }
      }),
      { numRuns: 20 },
    );
  });

  test("quotes what readers of YAML 1.1, which Jenkins' are, take for something else than a text", () => {
    const odd = ["yes", "on", "0o17", "017", "1_000", "12:30:45", "2026-11-25", "~", "null", "0x1F", "1e3", ".inf", "<<", "="];
    const text = renderCasc({ ...input, templates: [{ ...maven, env: Object.fromEntries(odd.map((value, i) => [`V${i}`, value])) }] });
    expect(env((parse(parse(text).jenkins.clouds[0].kubernetes.templates[0].yaml, { version: "1.1" }) as Json).spec.containers[0])).toMatchObject(Object.fromEntries(odd.map((value, i) => [`V${i}`, value])));
  });

  test("agents connect through the tunnel, and the controller builds nothing", async () => {
    await make({ agents: { cap: 7 } });
    expect(cloud()).toMatchObject({ namespace: "jenkins-agents", jenkinsTunnel: "jenkins-agent.jenkins.svc:50000", jenkinsUrl: "http://jenkins.jenkins.svc:8080/", containerCapStr: "7", webSocket: false });
    expect(document().jenkins).toMatchObject({ numExecutors: 0, slaveAgentPort: 50000, authorizationStrategy: { loggedInUsersCanDoAnything: { allowAnonymousRead: false } } });
    expect(document().jenkins.securityRealm.local).toMatchObject({ allowsSignup: false, users: [{ id: "${admin-user}", password: "${admin-password}" }] });
  });

  test("one pod template for each agent, bounds included", async () => {
    await make({ agents: { templates: [maven, { ...maven, name: "go", label: "go linux", cap: 3, idleMinutes: 5, podRetention: "onFailure", activeDeadlineSeconds: 3600 }] } });
    const [first, second] = cloud().templates;
    expect(first).toMatchObject({ name: "maven", instanceCap: 10, idleMinutes: 0, podRetention: "never" });
    expect(first).not.toHaveProperty("activeDeadlineSeconds");
    expect(second).toMatchObject({ name: "go", label: "go linux", instanceCap: 3, idleMinutes: 5, podRetention: "onFailure", activeDeadlineSeconds: 3600 });
    expect(parse(first.yaml)).toEqual(JSON.parse(JSON.stringify(agentPod(maven, settings))));
  });

  test("a template keeps its id over restarts and reloads, so that agents that run find it and count against its cap", () => {
    const ids = (templates: AgentTemplate[]) => templatesOf({ ...input, templates }).map((t) => t.id);
    expect(ids(input.templates)).toEqual(["maven", "gradle", "pod-defaults"]);
    expect(ids([{ ...maven, cap: 1, image: "another" }])).toEqual(["maven", "pod-defaults"]);
  });

  test("builds without a label go to the templates that take them, and to no other", () => {
    const modes = templatesOf({ ...input, templates: [{ ...maven, unlabelled: true }, { ...maven, name: "go" }] }).map((t) => t.nodeUsageMode);
    expect(modes).toEqual(["NORMAL", "EXCLUSIVE", "EXCLUSIVE"]);
  });

  describe("the defaults of all pods", () => {
    const defaults = (of: CascInput = input): Json => parse(templatesOf(of).at(-1).yaml);

    test("are named in the cloud and hold what a pipeline's own pod needs: the agent's image, our account without token, our security context", () => {
      const given = { ...input, settings: { ...settings, agentImage: "mirror.test/jenkins/inbound-agent:1" }, pullSecrets: ["registry-login"] };
      const template = templatesOf(given).at(-1);
      expect(cloudOf(given).defaultsProviderTemplate).toBe(template.name);
      expect(template).toMatchObject({ yamlMergeStrategy: "merge", inheritYamlMergeStrategy: true });
      expect(defaults(given).spec).toMatchObject({
        serviceAccountName: "jenkins-agent", automountServiceAccountToken: false, imagePullSecrets: [{ name: "registry-login" }],
        securityContext: { runAsUser: 1000, runAsNonRoot: true }, containers: [{ name: "jnlp", image: "mirror.test/jenkins/inbound-agent:1", securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } } }],
      });
    });

    test("name no image and no pull secret where there is none", () => {
      expect(defaults().spec).not.toHaveProperty("imagePullSecrets");
      expect(defaults().spec.containers[0]).not.toHaveProperty("image");
    });

    // The plugin takes a cap, a time or an idle time of 0 or of its own default in a template for one that is not set, and inherits it.
    test("bound nothing and take no build", () => {
      expect(Object.keys(templatesOf(input).at(-1)).sort()).toEqual(["id", "inheritYamlMergeStrategy", "name", "nodeUsageMode", "yaml", "yamlMergeStrategy"]);
    });

    // What PodTemplateUtils.combine(Pod, Pod) takes over from the pod that is merged over another; all else is the other's.
    const merged = ["nodeSelector", "serviceAccountName", "activeDeadlineSeconds", "hostNetwork", "containers", "initContainers", "volumes", "tolerations", "imagePullSecrets"];
    test("leave each template's own pod as it is: what the plugin's merge would not take over is the same in both, or the template is not merged", () => {
      const template = fc.record({ docker: fc.constantFrom("dind" as const, "rootless" as const, "none" as const), caches: fc.subarray(["maven" as const, "gradle" as const, "docker" as const]), spread: fc.boolean() });
      fc.assert(
        fc.property(fc.array(template, { minLength: 1, maxLength: 3 }), (kinds) => {
          const of = { ...input, templates: kinds.map((kind, i) => ({ ...maven, ...kind, name: `t${i}` })) };
          const base = defaults(of);
          for (const { yaml, yamlMergeStrategy } of templatesOf(of).slice(0, -1)) {
            const { spec } = parse(yaml) as Json;
            const rest = (pod: Json) => Object.fromEntries(Object.entries(pod).filter(([key]) => !merged.includes(key)));
            if (yamlMergeStrategy === "override") expect(spec).not.toHaveProperty("topologySpreadConstraints");
            else expect(rest(spec)).toEqual(rest(base.spec));
            // Of a container's security context it takes over user, group, capabilities and whether it is privileged.
            expect(spec.containers[0].securityContext).toEqual(base.spec.containers[0].securityContext);
            for (const { name } of spec.containers.slice(1)) expect(base.spec.containers.map((c: Json) => c.name)).not.toContain(name);
          }
        }),
        { numRuns: 20 },
      );
    });

    test("are what a template of the site's own inherits as well, and none may have their name", () => {
      expect(cloudSettingsProblems({ ...input, cloud: { templates: [{ name: "pod-defaults" }, { name: "mine" }] } }).map(({ path }) => path)).toEqual(["templates[0].name"]);
      expect(jenkinsMasterProblems(withArgs({ agents: { templates: [{ ...maven, name: "pod-defaults" }] } })).map((p) => p.propertyPath)).toEqual(["agents.templates[0].name"]);
      expect(jenkinsMasterProblems(withArgs({ agents: { templates: [maven], cloud: { readTimeout: 60 } } }))).toEqual([]);
    });
  });

  describe("a cloud of the site's own settings", () => {
    test("replaces the platform's settings, and its templates and labels come to the platform's", () => {
      const rendered = cloudOf({ ...input, cloud: { readTimeout: 60, podRetention: "onFailure", garbageCollection: { timeout: 900 }, podLabels: [{ key: "team", value: "a" }], templates: [{ name: "go", label: "go" }] } });
      expect(rendered).toMatchObject({ readTimeout: 60, connectTimeout: 5, podRetention: "onFailure", garbageCollection: { namespaces: "jenkins-agents", timeout: 900 }, podLabels: [{ key: "jenkins", value: "agent" }, { key: "team", value: "a" }] });
      expect(rendered.templates.map((t: Json) => t.name)).toEqual(["maven", "gradle", "go", "pod-defaults"]);
    });

    test.each([
      [{ namespace: "default" }, "namespace", "is the platform's own to set; take it away"],
      [{ templates: {} }, "templates", "a list is expected, found a map"],
      [{ waitForPodSecs: 60 }, "waitForPodSecs", expect.stringContaining("not known; known are addMasterProxyEnvVars")],
      [{ templates: [{ name: "mine", inheritFrom: "gradle pod-defaults nobody" }] }, "templates[0].inheritFrom", "there is no template nobody"],
      [{ podLabels: [{ key: "jenkins", value: "x" }] }, "podLabels[0].key", "the label jenkins is the platform's own; rename it"],
      [{ templates: [{ name: "gradle" }] }, "templates[0].name", '"gradle" is the name of a template of the platform\'s own; rename it'],
    ])("is refused: %j", (cloud, path, problem) => {
      expect(cloudSettingsProblems({ ...input, cloud })).toEqual([{ path, problem }]);
      expect(jenkinsMasterProblems(withArgs({ agents: { templates: [maven, { ...maven, name: "gradle" }], cloud } }))).toEqual([{ propertyPath: `agents.cloud.${path}`, reason: problem }]);
    });

    test("may set anything else, or nothing", () => {
      expect(cloudSettingsProblems(input)).toEqual([]);
      expect(cloudSettingsProblems({ ...input, cloud: { readTimeout: 60, defaultsProviderTemplate: "mine", templates: [{ name: "mine" }] } })).toEqual([]);
    });
  });

  test("a namespace held to Pod Security level restricted has the plugin fill in what that asks of containers, and no other has", () => {
    expect(cloudOf({ ...input, templates: [{ ...maven, docker: "none", caches: [] }] }).restrictedPssSecurityContext).toBe(true);
    expect(cloudOf(input)).not.toHaveProperty("restrictedPssSecurityContext");
  });

  test("whatever text an agent's environment holds arrives as it is", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme" }), (value) => {
        const rendered = parse(renderCasc({ ...input, templates: [{ ...maven, env: { VALUE: value } }] })) as Json;
        // JCasC takes the caret away when it reads the document.
        const text = rendered.jenkins.clouds[0].kubernetes.templates[0].yaml.replace(/\^\$\{/g, "${");
        expect(env((parse(text) as Json).spec.containers[0]).VALUE).toBe(value);
      }),
    );
  });

  test("no reference to a secret can be smuggled in", () => {
    const text = renderCasc({ ...input, templates: [{ ...maven, env: { STOLEN: "${admin-password}" } }] });
    expect(text.match(/(?<!\^)\$\{admin-password\}/g)).toHaveLength(1);
  });

  describe("joined with the site's own", () => {
    const plugins = ["ec2", "github-oauth", "job-dsl", "matrix-auth", "oic-auth", "role-strategy"];
    const problems = (fragments: Record<string, string>) => fragmentProblems({ ...input, plugins, fragments }).filter(({ severity }) => severity === "error").map(({ file, problem }) => ({ file, problem }));

    test("keeps theirs as they are", async () => {
      const text = "unclassified:\n  mailer:\n    smtpHost: mail\n";
      await make({ configuration: { fragments: { "mail.yaml": text } } });
      expect(the("ConfigMap", "jenkins-casc").inputs.data["mail.yaml"]).toBe(text);
      expect(document().jenkins.securityRealm).toHaveProperty("local");
    });

    test("gives way to a security realm or authorization strategy of theirs", () => {
      const own = cascConfig({ ...input, fragments: { "oidc.yaml": "jenkins: { securityRealm: { oic: { clientId: jenkins } } }" } }) as Json;
      expect(own.jenkins).not.toHaveProperty("securityRealm");
      expect(own.jenkins).toHaveProperty("authorizationStrategy");
      const both = cascConfig({ ...input, fragments: { "a.yaml": "jenkins: { authorizationStrategy: unsecured }" } }) as Json;
      expect(both.jenkins).not.toHaveProperty("authorizationStrategy");
      expect(problems({ "oidc.yaml": "jenkins: { securityRealm: { oic: {} }, authorizationStrategy: unsecured }" })).toEqual([]);
    });

    describe("a security realm of theirs", () => {
      const github = { "github.yaml": "jenkins: { securityRealm: { github: { clientID: jenkins } } }" };
      const rights: Rights = { admin: { groups: ["acme*platform"], users: [] } };

      test.each<[string, Record<string, string>]>([
        ["that knows others", github],
        ["as a plain word", { "a.yaml": "jenkins: { securityRealm: legacy }" }],
        ["that lets anybody sign up", { "a.yaml": "jenkins: { securityRealm: { local: { allowsSignup: true } } }" }],
      ])("%s needs rights or a strategy: everybody it knows might do anything", (_, fragments) => {
        const [file] = Object.keys(fragments);
        expect(problems(fragments)).toEqual([{ file, problem: expect.stringMatching(/^sets jenkins\.securityRealm, and nothing says who may do what: .*rights/) }]);
        expect(problems({ ...fragments, "b.yaml": "jenkins: { authorizationStrategy: { roleBased: {} } }" })).toEqual([]);
        expect(fragmentProblems({ ...input, plugins, fragments, rights })).toEqual([]);
      });

      test("of local users that the document names needs none", () => {
        expect(problems({ "a.yaml": "jenkins: { securityRealm: { local: { allowsSignup: false, users: [{ id: ann }] } } }" })).toEqual([]);
        expect(problems({ "a.yaml": "jenkins: { securityRealm: { local: { users: [{ id: ann }] } } }" })).toEqual([]);
      });

      test("gives a user of the administrator's name no rights, and needs an administrator", () => {
        expect(JSON.stringify(cascConfig({ ...input, fragments: github, rights }))).not.toContain('{"name":"${admin-user}"');
        expect(JSON.stringify(cascConfig({ ...input, rights }))).toContain('{"name":"${admin-user}"');
        expect(fragmentProblems({ ...input, plugins, fragments: github, rights: { reader: { groups: ["authenticated"], users: [] } } })).toEqual([
          { file: "github.yaml", problem: expect.stringContaining("rights.admin"), severity: "error" },
        ]);
      });
    });

    test("may refer to secrets in any place, and add clouds of other plugins", () => {
      expect(problems({ "a.yaml": "jenkins: { clouds: [{ kubernetes: { name: other, readTimeout: '${timeout}', credentialsId: '${id}', templates: [{ name: t, yaml: 'kind: Pod' }] } }, { amazonEC2: { anything: 1 } }] }" })).toEqual([]);
    });

    test("may add clouds and anything the platform does not set", () => {
      expect(problems({ "a.yaml": "jenkins: { clouds: [], systemMessage: Hello }", "b.yaml": "credentials: {}\nunclassified: { location: { adminAddress: a@b.c } }" })).toEqual([]);
    });

    test.each<[string, Record<string, string>, string[]]>([
      ["broken YAML", { "a.yaml": "a: [" }, ["a.yaml: is no YAML"]],
      ["a list", { "a.yaml": "- a" }, ["a.yaml: holds no mapping"]],
      ["a key of the platform's", { "a.yaml": "jenkins: { numExecutors: 2 }" }, ["a.yaml: sets what the platform sets itself: jenkins.numExecutors to 2 (the platform's is 0)"]],
      ["a key of each other's", { "a.yaml": "jenkins: { systemMessage: A }", "b.yaml": "jenkins: { systemMessage: B }" }, ["b.yaml: sets jenkins.systemMessage, which a.yaml sets as well"]],
      ["the platform's name", { "jenkins.yaml": "jobs: []" }, ["jenkins.yaml: is the name"]],
      ["an unknown key of a cloud", { "a.yaml": "jenkins: { clouds: [{ kubernetes: { name: x, serverUri: y } }] }" }, ["a.yaml: has a mistake at jenkins.clouds[0].kubernetes.serverUri: not known; known are addMasterProxyEnvVars"]],
      ["an unknown key of a template", { "a.yaml": "jenkins: { clouds: [{ kubernetes: { templates: [{ name: t, lable: x }] } }] }" }, ["a.yaml: has a mistake at jenkins.clouds[0].kubernetes.templates[0].lable: not known"]],
      ["an unknown key of a container", { "a.yaml": "jenkins: { clouds: [{ kubernetes: { templates: [{ name: t, containers: [{ name: c, comand: x }] }] } }] }" }, ["a.yaml: has a mistake at jenkins.clouds[0].kubernetes.templates[0].containers[0].comand: not known"]],
      ["values of another kind", { "a.yaml": "jenkins: { clouds: [{ kubernetes: { readTimeout: long, webSocket: maybe } }] }" }, ["a.yaml: has a mistake at jenkins.clouds[0].kubernetes.readTimeout: a whole number is expected, found \"long\"", "a.yaml: has a mistake at jenkins.clouds[0].kubernetes.webSocket: true or false is expected"]],
      ["an unknown parent and a broken pod", { "a.yaml": "jenkins: { clouds: [{ kubernetes: { templates: [{ name: t, inheritFrom: u, yaml: 'a: [' }] } }] }" }, ["a.yaml: has a mistake at jenkins.clouds[0].kubernetes.templates[0].inheritFrom: there is no template u", "a.yaml: has a mistake at jenkins.clouds[0].kubernetes.templates[0].yaml: "]],
      ["no file name", { "../a.yaml": "jobs: []" }, ["../a.yaml: is no plain file name"]],
    ])("refuses %s", (_, fragments, expected) => {
      const found = problems(fragments).map(({ file, problem }) => `${file}: ${problem}`);
      expect(found.map((line, i) => line.slice(0, expected[i]?.length))).toEqual(expected);
    });

    test("a secret that nothing gives is named with its place: Jenkins would take an empty text for it", () => {
      const text = "credentials: { system: { domainCredentials: [{ credentials: [{ string: { id: a, secret: '${github-tokn}', description: '${HOME} ^${not-one} ${with-default:-x} ${readFile:/a-b}' } }] }] } }";
      const found = fragmentProblems({ ...input, fragments: { "a.yaml": text }, secretNames: ["admin-password", "github-token"] });
      expect(found).toEqual([{ file: "a.yaml", problem: "refers to ${github-tokn} at credentials.system.domainCredentials[0].credentials[0].string.secret, which nothing defines: Jenkins would take an empty text. Define it with secretFiles, controller.env or controller.envFrom, or write ^${github-tokn} for the literal text; known are admin-password, github-token", severity: "error" }]);
      expect(problems({ "a.yaml": text })).toEqual([]);
      expect(jenkinsMasterProblems(withArgs({ configuration: { fragments: { "a.yaml": text } } })).map((p) => p.propertyPath)).toEqual(['configuration.fragments["a.yaml"]']);
      expect(jenkinsMasterProblems(withArgs({ configuration: { fragments: { "a.yaml": text }, secretFiles: [{ secret: "github", key: "tokn" }] } }))).toEqual([]);
      // What keys a Secret of the site's own has is not known here.
      expect(jenkinsMasterProblems(withArgs({ configuration: { fragments: { "a.yaml": text } }, access: { adminExistingSecret: "vault" } }))).toEqual([]);
    });

    test("refused ones stop the component with file and key", () => {
      expect(jenkinsMasterProblems(withArgs({ configuration: { fragments: { "a.yaml": "jenkins: { numExecutors: 2 }" } } }))).toEqual([
        { propertyPath: 'configuration.fragments["a.yaml"]', reason: expect.stringMatching(/^sets what the platform sets itself: jenkins\.numExecutors to 2/) },
      ]);
    });
  });

  test("is plain data", () => {
    expect(JSON.parse(JSON.stringify(cascConfig(input)))).toEqual(parse(renderCasc(input)));
  });
});

describe("bad arguments", () => {
  test("are reported together, before anything is made", async () => {
    const bad = withArgs({ address: { domain: "https://x" }, home: { size: "15" }, controller: { resources: { requests: { cpu: "much" } }, maxRamPercentage: 99 }, agents: { templates: [maven, maven], cache: undefined }, access: { adminPassword: "some-password", adminExistingSecret: "x" } });
    const paths = ["address.domain", "home.size", "controller.resources.requests.cpu", "controller.resources.limits.memory", "controller.maxRamPercentage", "agents.templates[1].name", "agents.cache", "access.adminExistingSecret"];
    expect(jenkinsMasterProblems(bad).map((p) => p.propertyPath)).toEqual(paths);
    expect(() => new JenkinsMaster("jenkins", bad)).toThrow(/JenkinsMaster "jenkins"/);
    await settled();
    expect(objects()).toEqual([]);
  });

  test("good ones have no problems", () => {
    expect(jenkinsMasterProblems(args)).toEqual([]);
    expect(jenkinsMasterProblems(withArgs({ agents: { templates: [] } })).map((p) => p.propertyPath)).toEqual(["agents.templates"]);
  });
});
