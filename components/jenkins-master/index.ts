import * as command from "@pulumi/command";
import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { ownLabels, partOf } from "../ownership";
import { canonicalQuantity, canonicalResources, isQuantity, Resources } from "../quantity";
import { AgentSettings, AgentTemplate, agentsPodSecurity, agentUser, Toleration } from "./agents";
import { cacheKeeperScript, gradleKeeperScript } from "./cache";
import { cascFile, CascInput, fragmentProblems, renderCasc } from "./casc";
import { dashboard } from "./dashboard";
import { Login, loginSecretName, loginSecrets, Rights, secretKeys } from "./login";
import { configReloadScript, reloadState } from "./reload";

export { AgentTemplate, AgentVolume, CachedTool, DockerMode, ownMounts, Toleration } from "./agents";
export { LdapLogin, Login, loginPlugins, Members, OidcLogin, Rights, Role, roles } from "./login";

/** Pull secret for a registry that asks for a password. */
export interface RegistryLogin {
  /** Registry as host or host:port. */
  host: string;
  username: pulumi.Input<string>;
  /** Kept secret. */
  password: pulumi.Input<string>;
}

/** How people outside the cluster reach Jenkins over HTTPS. Without it the Ingress serves plain HTTP. */
export interface IngressTls {
  /** Secret of type kubernetes.io/tls in the controller's namespace; made by cert-manager where an issuer is given. */
  secretName: string;
  /** cert-manager ClusterIssuer that makes and renews the certificate. */
  clusterIssuer?: string;
}

/** A container that runs to its end each time before the controller starts, with the volumes it needs; `home` is the controller's own. */
export interface BeforeStart {
  container: k8s.types.input.core.v1.Container;
  volumes: k8s.types.input.core.v1.Volume[];
}

/** A template whose image may not be built yet. */
export type AgentTemplateArgs = Omit<AgentTemplate, "image"> & { image: pulumi.Input<string> };

export interface JenkinsMasterArgs {
  /** Host name Jenkins answers on, without scheme or port. */
  domain: string;
  /** Port in the address people use. Default: the scheme's own. */
  port?: number;
  /** Namespace of the controller. Default `jenkins`. */
  namespace?: string;
  /** Namespace of the agents. Default: the controller's with `-agents` behind it. */
  agentsNamespace?: string;
  /** Further labels of the controller's namespace. Default none. */
  namespaceLabels?: Record<string, string>;
  /** Controller image, plugins baked in, by digest. */
  image: pulumi.Input<string>;
  /** StorageClass of jenkins_home. */
  storageClassName: pulumi.Input<string>;
  /** Size of jenkins_home as a quantity with unit, such as "20Gi". */
  storageSize: string;
  /** Whether `pulumi destroy` and replacements refuse to delete jenkins_home. Default true. */
  protectHome?: boolean;
  /** IngressClass that serves the domain. */
  ingressClassName: pulumi.Input<string>;
  /** Namespace whose pods forward people's requests. Default `ingress-nginx`. */
  ingressNamespace?: pulumi.Input<string>;
  /** HTTPS at the Ingress. Default none. */
  tls?: IngressTls;
  /** Further annotations of the Ingress. Default none. */
  ingressAnnotations?: Record<string, string>;
  /** Largest request body the Ingress lets through, as nginx writes sizes. Default "64m". */
  maxBodySize?: string;
  /** Kinds of agents. */
  agentTemplates: AgentTemplateArgs[];
  /** Most agent pods at once over all templates. Default 10, as in the official chart. */
  agentCap?: number;
  /** What all agent pods share. */
  agentSettings: AgentSettings;
  /** Image with a POSIX shell and GNU coreutils that keeps the caches on each node; needed with a cache path. */
  cacheKeeperImage?: pulumi.Input<string>;
  /** Most GiB the shared caches may take on each node. Default 20. */
  cacheMaxGi?: number;
  /** Name of the administrator. */
  adminUser: string;
  /** The administrator's password; kept secret. Default: made once and kept. */
  adminPassword?: pulumi.Input<string>;
  /** Raise it to have a new password made. Default 1. */
  adminPasswordVersion?: number;
  /** Name of a Secret in the controller's namespace with keys admin-user and admin-password, used instead of an own one. */
  adminExistingSecret?: string;
  /** Requests and limits of the controller container. A memory limit is required: the JVM's heap follows it. */
  resources: Resources;
  /** Share of the memory limit that the JVM's heap may take, in percent. Default 60: threads, metaspace and code live beside it. */
  maxRamPercentage?: number;
  /** Further JVM options. Default none. */
  javaOpts?: string;
  /** Seconds the controller may take to answer after its start. Default 600: plugins and jobs are loaded first. */
  startupSeconds?: number;
  /** Seconds running builds and Jenkins itself get to stop in order. Default 90. */
  terminationSeconds?: number;
  /** PriorityClass of the controller, so that other pods do not push it out. Default none. */
  priorityClassName?: string;
  /** Node labels the controller needs. */
  nodeSelector?: Record<string, string>;
  /** Taints the controller accepts. */
  tolerations?: Toleration[];
  /** Whether NetworkPolicies fence the controller and the agents. Default true. */
  networkPolicies?: boolean;
  /** Addresses of the API server as CIDRs, which agents must not reach. */
  apiServerCidrs?: pulumi.Input<pulumi.Input<string>[]>;
  /** Whether the pod asks to be scraped at /prometheus/, and by which namespace. Default no. */
  prometheusNamespace?: string;
  /** Whether a ServiceMonitor for the Prometheus operator is made; needs prometheusNamespace. Default false. */
  serviceMonitor?: boolean;
  /** Further labels of the ServiceMonitor, such as those that the Prometheus looks for. Default none. */
  serviceMonitorLabels?: Record<string, string>;
  /** Whether a Grafana dashboard is made, for the sidecar that looks for label grafana_dashboard; needs prometheusNamespace. Default false. */
  dashboard?: boolean;
  /** The site's own JCasC documents by file name, joined with the platform's. Default none. */
  cascFragments?: Record<string, string>;
  /** Keys of Secrets in the controller's namespace that JCasC documents refer to as `${<secret>-<key>}`. Default none. */
  secretFiles?: SecretFile[];
  /** Where people log in. Default: only the local administrator can. */
  login?: Login;
  /** Who may do what. Needed with a login; default: the local administrator may do anything. */
  rights?: Rights;
  /** Login for the registry of the images. Default none. */
  registryLogin?: RegistryLogin;
  /** What runs before each start, such as a restore into an empty home. Default nothing. */
  beforeStart?: BeforeStart;
}

/** One key of a Secret, readable for JCasC under the name `<secret>-<key>`. */
export interface SecretFile {
  secret: string;
  key: string;
}

/** Name under which JCasC documents refer to a key of a Secret: that of its file. */
export const secretFileName = ({ secret, key }: SecretFile): string => `${secret}-${key}`;

/** Names of such files that the platform itself has. */
export const ownSecretNames = ["admin-user", "admin-password", ...Object.values(secretKeys)];

/** What JCasC documents may refer to; undefined where a Secret of the site's own may hold anything. */
export const secretNames = (args: Pick<JenkinsMasterArgs, "adminExistingSecret" | "secretFiles">): string[] | undefined =>
  args.adminExistingSecret ? undefined : [...ownSecretNames, ...(args.secretFiles ?? []).map(secretFileName)];

/** Namespaces of the controller and of the agents. */
function namespacesOf(args: Pick<JenkinsMasterArgs, "namespace" | "agentsNamespace">): { controller: string; agents: string } {
  const controller = args.namespace ?? "jenkins";
  return { controller, agents: args.agentsNamespace ?? `${controller}-agents` };
}

/** Secret that holds the administrator's name and password under the keys admin-user and admin-password. */
export const adminSecretName = "jenkins-admin";

const labels = { "app.kubernetes.io/name": "jenkins", ...partOf };
const controllerLabels = { ...labels, "app.kubernetes.io/component": "controller" };
const keeperLabels = { "app.kubernetes.io/name": "agent-cache", ...partOf };

/**
 * What the kubernetes plugin does with the agents' namespace, and no more. The plugin's example also reads Secrets,
 * which nothing in it needs: https://github.com/jenkinsci/kubernetes-plugin/blob/master/src/main/kubernetes/service-account.yml
 */
export const controllerRules = [
  { apiGroups: [""], resources: ["pods", "pods/exec"], verbs: ["create", "delete", "get", "list", "patch", "update", "watch"] },
  { apiGroups: [""], resources: ["pods/log"], verbs: ["get", "list", "watch"] },
  { apiGroups: [""], resources: ["events"], verbs: ["watch"] },
];

function base64(text: string): string {
  return Buffer.from(text).toString("base64");
}

/** The controller's JVM options: the heap follows the container's memory limit. */
export function javaOptions(maxRamPercentage: number, further?: string): string {
  return [
    "-Djenkins.install.runSetupWizard=false",
    `-XX:MaxRAMPercentage=${maxRamPercentage.toFixed(1)}`,
    // A controller out of memory limps on half dead; its container is restarted at once instead.
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    ...(further ? [further] : []),
  ].join(" ");
}

/** The address people use. */
export function jenkinsUrl(domain: string, tls: boolean, port?: number): string {
  return `${tls ? "https" : "http"}://${domain}${port === undefined || port === (tls ? 443 : 80) ? "" : `:${port}`}/`;
}

/** Annotations that make ingress-nginx fit Jenkins; another controller ignores them. */
export function ingressAnnotations(args: Pick<JenkinsMasterArgs, "tls" | "maxBodySize" | "ingressAnnotations">): Record<string, string> {
  return {
    "nginx.ingress.kubernetes.io/proxy-body-size": args.maxBodySize ?? "64m",
    // Console output is streamed; a long silence in a build must not cut it.
    "nginx.ingress.kubernetes.io/proxy-read-timeout": "600",
    "nginx.ingress.kubernetes.io/proxy-request-buffering": "off",
    "nginx.ingress.kubernetes.io/ssl-redirect": args.tls ? "true" : "false",
    ...(args.tls?.clusterIssuer && { "cert-manager.io/cluster-issuer": args.tls.clusterIssuer }),
    ...args.ingressAnnotations,
  };
}

/** What the JCasC document is rendered from, once the agents' images are known. */
function cascInput(args: JenkinsMasterArgs, images: string[]): CascInput {
  const namespaces = namespacesOf(args);
  return {
    url: jenkinsUrl(args.domain, args.tls !== undefined, args.port),
    namespace: namespaces.controller,
    agentsNamespace: namespaces.agents,
    containerCap: args.agentCap ?? 10,
    templates: args.agentTemplates.map((template, i) => ({ ...template, image: images[i] })),
    settings: args.agentSettings,
    ...(args.cascFragments && { fragments: args.cascFragments }),
    secretNames: secretNames(args),
    ...(args.login && { login: args.login }),
    ...(args.rights && { rights: args.rights }),
  };
}

/** Mistakes in the arguments, one detail per field. */
export function jenkinsMasterProblems(args: JenkinsMasterArgs): { propertyPath: string; reason: string }[] {
  const problems: { propertyPath: string; reason: string }[] = [];
  const check = (good: boolean, propertyPath: string, reason: string) => {
    if (!good) problems.push({ propertyPath, reason });
  };
  check(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+$/.test(args.domain), "domain", `"${args.domain}" is no host name such as jenkins.example.com`);
  check(isQuantity(args.storageSize) && /[A-Za-z]$/.test(args.storageSize) && !args.storageSize.endsWith("m"), "storageSize", `"${args.storageSize}" is no size with a unit such as 20Gi`);
  const quantities = (resources: Resources, path: string) => {
    for (const side of ["requests", "limits"] as const)
      for (const [what, value] of Object.entries(resources[side] ?? {}))
        check(isQuantity(value), `${path}.${side}.${what}`, `"${value}" is no quantity such as 500m or 2Gi`);
  };
  quantities(args.resources, "resources");
  check(args.resources.limits?.memory !== undefined, "resources.limits.memory", "is missing; the JVM's heap is a share of it");
  const percentage = args.maxRamPercentage ?? 60;
  check(percentage >= 10 && percentage <= 90, "maxRamPercentage", `${percentage} is not between 10 and 90`);
  const names = args.agentTemplates.map((t) => t.name);
  check(names.length > 0, "agentTemplates", "is empty; the controller itself builds nothing");
  args.agentTemplates.forEach((template, i) => {
    check(names.indexOf(template.name) === i, `agentTemplates[${i}].name`, `"${template.name}" appears twice`);
    quantities(template.resources, `agentTemplates[${i}].resources`);
    quantities(template.dockerResources, `agentTemplates[${i}].dockerResources`);
  });
  check(!(args.adminPassword !== undefined && args.adminExistingSecret), "adminExistingSecret", "cannot be given together with adminPassword");
  for (const { file, problem } of fragmentProblems(cascInput(args, args.agentTemplates.map(() => "image")))) check(false, `cascFragments["${file}"]`, problem);
  check(args.login === undefined || args.rights !== undefined, "rights", "are missing; without them everybody whom the login knows might do anything");
  check(!args.serviceMonitor || args.prometheusNamespace !== undefined, "serviceMonitor", "needs prometheusNamespace");
  check(!args.dashboard || args.prometheusNamespace !== undefined, "dashboard", "needs prometheusNamespace");
  check(args.agentSettings.cachePath === undefined || args.cacheKeeperImage !== undefined, "cacheKeeperImage", "is needed with agentSettings.cachePath");
  return problems;
}

/**
 * Jenkins: the controller with its data, configuration, address and rights, and the namespace in which its agents run.
 *
 * Names others may rely on: namespaces `jenkins` and `jenkins-agents`, or as given; in the first Deployment, Service, Ingress
 * and ServiceAccount `jenkins`, Service `jenkins-agent`, PersistentVolumeClaim `jenkins-home`, Secret `jenkins-admin`,
 * ConfigMap `jenkins-casc`, with a login that has secrets Secret `jenkins-login`; in the second ServiceAccount `jenkins-agent`.
 *
 * @throws InputPropertiesError listing every bad argument, before any resource is made
 */
export class JenkinsMaster extends pulumi.ComponentResource {
  /** Address people use. */
  readonly url: pulumi.Output<string>;
  readonly adminUser: pulumi.Output<string>;
  /** Shell command that prints the administrator's password. */
  readonly passwordCommand: pulumi.Output<string>;
  /** Namespaces of the controller and the agents. */
  readonly namespace: pulumi.Output<string>;
  readonly agentsNamespace: pulumi.Output<string>;
  /** Claim that holds jenkins_home. */
  readonly homeClaim: pulumi.Output<string>;
  /** The controller's pod; a backup is proven by booting a restored copy from the same one. */
  readonly controllerPod: pulumi.Output<k8s.types.output.core.v1.PodSpec>;

  constructor(name: string, args: JenkinsMasterArgs, opts?: pulumi.ComponentResourceOptions) {
    super("build-platform:jenkins:JenkinsMaster", name, {}, opts);
    const problems = jenkinsMasterProblems(args);
    if (problems.length > 0) throw new pulumi.InputPropertiesError({ message: `JenkinsMaster "${name}" cannot be made`, errors: problems });

    const parent = { parent: this };
    const cachePath = args.agentSettings.cachePath;
    const url = jenkinsUrl(args.domain, args.tls !== undefined, args.port);
    const namespaces = namespacesOf(args);

    const namespace = new k8s.core.v1.Namespace(
      `${name}-namespace`,
      {
        metadata: {
          name: namespaces.controller,
          labels: { ...labels, ...ownLabels(), ...args.namespaceLabels, "pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted" },
        },
      },
      parent,
    );
    const agentsNamespace = new k8s.core.v1.Namespace(
      `${name}-agents-namespace`,
      {
        metadata: {
          name: namespaces.agents,
          labels: { ...labels, ...ownLabels(), "pod-security.kubernetes.io/enforce": agentsPodSecurity(args.agentTemplates as AgentTemplate[], cachePath) },
        },
      },
      parent,
    );
    const here = namespace.metadata.name;
    const there = agentsNamespace.metadata.name;

    const pullSecrets = this.pullSecrets(name, args.registryLogin, [
      ["controller", here],
      ["agents", there],
    ]);
    const serviceAccount = new k8s.core.v1.ServiceAccount(
      `${name}-account`,
      { metadata: { name: "jenkins", namespace: here, labels }, ...(pullSecrets && { imagePullSecrets: [{ name: pullSecrets[0] }] }) },
      parent,
    );
    new k8s.core.v1.ServiceAccount(
      `${name}-agent-account`,
      {
        metadata: { name: "jenkins-agent", namespace: there, labels },
        automountServiceAccountToken: false,
        ...(pullSecrets && { imagePullSecrets: [{ name: pullSecrets[1] }] }),
      },
      parent,
    );
    const role = new k8s.rbac.v1.Role(`${name}-agents-role`, { metadata: { name: "jenkins", namespace: there, labels }, rules: controllerRules }, parent);
    const binding = new k8s.rbac.v1.RoleBinding(
      `${name}-agents-role-binding`,
      {
        metadata: { name: "jenkins", namespace: there, labels },
        roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "Role", name: role.metadata.name },
        subjects: [{ kind: "ServiceAccount", name: serviceAccount.metadata.name, namespace: here }],
      },
      parent,
    );

    const adminSecret = this.adminSecret(name, args, here);
    const loginSecret = this.loginSecret(name, args, here);

    const casc = pulumi.all(args.agentTemplates.map((template) => pulumi.output(template.image))).apply((images) => renderCasc(cascInput(args, images)));
    const configMap = new k8s.core.v1.ConfigMap(
      `${name}-casc`,
      { metadata: { name: "jenkins-casc", namespace: here, labels }, data: { ...args.cascFragments, [cascFile]: casc } },
      parent,
    );

    const home = new k8s.core.v1.PersistentVolumeClaim(
      `${name}-home`,
      {
        metadata: { name: "jenkins-home", namespace: here, labels },
        spec: {
          accessModes: ["ReadWriteOnce"],
          storageClassName: args.storageClassName,
          resources: { requests: { storage: canonicalQuantity(args.storageSize) } },
        },
      },
      { ...parent, protect: args.protectHome ?? true },
    );

    const httpService = new k8s.core.v1.Service(
      `${name}-http`,
      {
        metadata: { name: "jenkins", namespace: here, labels },
        spec: { selector: controllerLabels, ports: [{ name: "http", port: 8080, targetPort: "http", protocol: "TCP" }] },
      },
      parent,
    );
    const agentService = new k8s.core.v1.Service(
      `${name}-agent`,
      {
        metadata: { name: "jenkins-agent", namespace: here, labels },
        spec: { selector: controllerLabels, ports: [{ name: "agent", port: 50000, targetPort: "agent", protocol: "TCP" }] },
      },
      parent,
    );

    const pod = controllerPod(args, {
      serviceAccount: serviceAccount.metadata.name,
      configMap: configMap.metadata.name,
      adminSecret,
      ...(loginSecret && { loginSecret }),
      claim: home.metadata.name,
    });
    // A home of hundreds of gigabytes takes its time to come from a repository.
    const patience = args.beforeStart ? "6h" : "20m";
    new k8s.apps.v1.Deployment(
      `${name}-controller`,
      {
        metadata: { name: "jenkins", namespace: here, labels: controllerLabels },
        spec: {
          replicas: 1,
          ...(args.beforeStart && { progressDeadlineSeconds: 6 * 3600 }),
          // Two controllers on one home corrupt it, and a rolling update waits for ever on a volume of one node.
          strategy: { type: "Recreate" },
          selector: { matchLabels: controllerLabels },
          template: {
            metadata: {
              labels: controllerLabels,
              // Neither configuration nor password is named here: a change is read by the running Jenkins, see reload.ts.
              annotations: {
                "kubectl.kubernetes.io/default-container": "jenkins",
                ...(args.prometheusNamespace && { "prometheus.io/scrape": "true", "prometheus.io/path": "/prometheus/", "prometheus.io/port": "8080" }),
              },
            },
            spec: args.beforeStart ? afterFirst(pod, args.beforeStart) : pod,
          },
        },
      },
      // Agents need the role; a controller that starts without it logs errors until it has it.
      { ...parent, dependsOn: [binding], customTimeouts: { create: patience, update: patience } },
    );

    new k8s.policy.v1.PodDisruptionBudget(
      `${name}-disruption-budget`,
      {
        metadata: { name: "jenkins", namespace: here, labels },
        // One replica: a drain waits until a person moves the controller, instead of ending it under running builds.
        spec: { minAvailable: 1, selector: { matchLabels: controllerLabels } },
      },
      parent,
    );

    new k8s.policy.v1.PodDisruptionBudget(
      `${name}-agents-disruption-budget`,
      {
        metadata: { name: "jenkins-agents", namespace: there, labels },
        // More than there can ever be: no running agent may be evicted, so that a drain waits for its build. Agents are pods
        // without a controller, for which Kubernetes takes a whole minAvailable only.
        spec: { minAvailable: 1_000_000, selector: { matchLabels: { jenkins: "agent" } } },
      },
      parent,
    );

    new k8s.networking.v1.Ingress(
      `${name}-ingress`,
      {
        metadata: { name: "jenkins", namespace: here, labels, annotations: ingressAnnotations(args) },
        spec: {
          ingressClassName: args.ingressClassName,
          ...(args.tls && { tls: [{ hosts: [args.domain], secretName: args.tls.secretName }] }),
          rules: [
            {
              host: args.domain,
              http: {
                paths: [{ path: "/", pathType: "Prefix", backend: { service: { name: httpService.metadata.name, port: { name: "http" } } } }],
              },
            },
          ],
        },
      },
      { ...parent, customTimeouts: { create: "20m", update: "20m" } },
    );

    if (args.serviceMonitor) {
      new k8s.apiextensions.CustomResource(
        `${name}-service-monitor`,
        {
          apiVersion: "monitoring.coreos.com/v1",
          kind: "ServiceMonitor",
          metadata: { name: "jenkins", namespace: here, labels: { ...labels, ...args.serviceMonitorLabels } },
          spec: { selector: { matchLabels: labels }, endpoints: [{ port: "http", path: "/prometheus/" }] },
        },
        parent,
      );
    }

    if (args.dashboard) {
      const place = { namespace: here, agentsNamespace: there, ingressNamespace: args.ingressNamespace ?? "ingress-nginx" };
      new k8s.core.v1.ConfigMap(
        `${name}-dashboard`,
        {
          metadata: { name: "jenkins-dashboard", namespace: here, labels: { ...labels, grafana_dashboard: "1" } },
          data: { "build-platform.json": pulumi.output(place).apply((names) => JSON.stringify(dashboard(names), null, 1)) },
        },
        parent,
      );
    }

    if (args.networkPolicies ?? true) this.networkPolicies(name, args, here, there);
    if (cachePath !== undefined && args.cacheKeeperImage !== undefined) {
      const gradle = args.agentTemplates.some(({ caches }) => caches.includes("gradle"));
      this.cacheKeeper(name, args.cacheKeeperImage, { path: cachePath, maxGi: args.cacheMaxGi ?? 20, gradle }, there);
    }

    this.url = pulumi.output(url);
    this.adminUser = args.adminExistingSecret ? pulumi.interpolate`see key admin-user of Secret ${adminSecret}` : pulumi.output(args.adminUser);
    this.passwordCommand = pulumi.interpolate`kubectl -n ${here} get secret ${adminSecret} -o jsonpath='{.data.admin-password}' | base64 -d`;
    this.namespace = here;
    this.agentsNamespace = there;
    this.homeClaim = home.metadata.name;
    this.controllerPod = pulumi.output(pod) as pulumi.Output<k8s.types.output.core.v1.PodSpec>;
    this.registerOutputs({
      url: this.url,
      adminUser: this.adminUser,
      passwordCommand: this.passwordCommand,
      namespace: this.namespace,
      agentsNamespace: this.agentsNamespace,
      homeClaim: this.homeClaim,
      agentService: agentService.metadata.name,
    });
  }

  /** Name of the Secret with the administrator's name and password. */
  private adminSecret(name: string, args: JenkinsMasterArgs, namespace: pulumi.Output<string>): pulumi.Output<string> {
    if (args.adminExistingSecret) return pulumi.output(args.adminExistingSecret);
    const password = args.adminPassword ?? this.madePassword(name, args.adminPasswordVersion ?? 1);
    const secret = new k8s.core.v1.Secret(
      `${name}-admin`,
      {
        metadata: { name: adminSecretName, namespace, labels },
        // As data, not stringData: the API server keeps only data, and a refresh would find the other changed.
        data: { "admin-user": base64(args.adminUser), "admin-password": pulumi.secret(pulumi.output(password).apply(base64)) },
      },
      { parent: this },
    );
    return secret.metadata.name;
  }

  /** Name of the Secret with what the login needs to know; undefined where it needs nothing. */
  private loginSecret(name: string, args: JenkinsMasterArgs, namespace: pulumi.Output<string>): pulumi.Output<string> | undefined {
    const content = loginSecrets(args.login);
    if (!content) return undefined;
    const data = pulumi.secret(pulumi.output(content).apply((texts) => Object.fromEntries(Object.entries(texts).map(([key, text]) => [key, base64(text)]))));
    return new k8s.core.v1.Secret(`${name}-login`, { metadata: { name: loginSecretName, namespace, labels }, data }, { parent: this }).metadata.name;
  }

  /** 32 random letters and digits (190 bits), made once and kept in the state as a secret. */
  private madePassword(name: string, version: number): pulumi.Output<string> {
    const made = new command.local.Command(
      `${name}-admin-password`,
      {
        create: "LC_ALL=C tr -dc 'A-Za-z0-9' </dev/urandom | head -c 32",
        interpreter: ["/bin/sh", "-c"],
        logging: "none",
        triggers: [version],
      },
      // A later wording of the command must not make a new password.
      { parent: this, additionalSecretOutputs: ["stdout"], ignoreChanges: ["create", "interpreter", "logging"] },
    );
    return pulumi.secret(made.stdout);
  }

  private pullSecrets(name: string, login: RegistryLogin | undefined, namespaces: [string, pulumi.Output<string>][]): pulumi.Output<string>[] | undefined {
    if (!login) return undefined;
    const config = pulumi.secret(
      pulumi.all([login.username, login.password]).apply(([username, password]) =>
        base64(JSON.stringify({ auths: { [login.host]: { auth: base64(`${username}:${password}`) } } })),
      ),
    );
    return namespaces.map(
      ([part, namespace]) =>
        new k8s.core.v1.Secret(
          `${name}-${part}-registry`,
          { metadata: { name: "registry-login", namespace, labels }, type: "kubernetes.io/dockerconfigjson", data: { ".dockerconfigjson": config } },
          { parent: this },
        ).metadata.name,
    );
  }

  private networkPolicies(name: string, args: JenkinsMasterArgs, here: pulumi.Output<string>, there: pulumi.Output<string>): void {
    const parent = { parent: this };
    const from = (namespace: pulumi.Input<string>) => ({ namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": namespace } } });
    const tcp = (...ports: number[]) => ports.map((port) => ({ port, protocol: "TCP" }));
    new k8s.networking.v1.NetworkPolicy(
      `${name}-controller-policy`,
      {
        metadata: { name: "jenkins", namespace: here, labels },
        spec: {
          podSelector: { matchLabels: controllerLabels },
          policyTypes: ["Ingress"],
          ingress: [
            { from: [from(args.ingressNamespace ?? "ingress-nginx")], ports: tcp(8080) },
            { from: [{ ...from(there), podSelector: { matchLabels: { jenkins: "agent" } } }], ports: tcp(8080, 50000) },
            ...(args.prometheusNamespace ? [{ from: [from(args.prometheusNamespace)], ports: tcp(8080) }] : []),
          ],
        },
      },
      parent,
    );
    const dns = [
      { port: 53, protocol: "UDP" },
      { port: 53, protocol: "TCP" },
    ];
    new k8s.networking.v1.NetworkPolicy(
      `${name}-agents-policy`,
      {
        metadata: { name: "jenkins-agents", namespace: there, labels },
        spec: {
          // Every pod of the namespace: nobody connects to an agent, and no agent connects to the API server.
          podSelector: {},
          policyTypes: ["Ingress", "Egress"],
          egress: [
            { to: [{ namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "kube-system" } }, podSelector: { matchLabels: { "k8s-app": "kube-dns" } } }], ports: dns },
            { to: [{ ...from(here), podSelector: { matchLabels: controllerLabels } }], ports: tcp(8080, 50000) },
            { to: [{ ipBlock: { cidr: "0.0.0.0/0", ...(args.apiServerCidrs && { except: args.apiServerCidrs }) } }] },
          ],
        },
      },
      parent,
    );
  }

  private cacheKeeper(name: string, image: pulumi.Input<string>, cache: { path: string; maxGi: number; gradle: boolean }, namespace: pulumi.Output<string>): void {
    new k8s.apps.v1.DaemonSet(
      `${name}-agent-cache`,
      {
        metadata: { name: "agent-cache", namespace, labels: keeperLabels },
        spec: {
          selector: { matchLabels: keeperLabels },
          template: {
            metadata: { labels: keeperLabels },
            spec: {
              serviceAccountName: "jenkins-agent",
              automountServiceAccountToken: false,
              enableServiceLinks: false,
              terminationGracePeriodSeconds: 5,
              containers: [
                {
                  name: "keeper",
                  image,
                  command: ["/bin/sh", "-c", cacheKeeperScript],
                  env: [
                    { name: "CACHE", value: "/cache" },
                    { name: "MAX_KIB", value: String(cache.maxGi * 1024 * 1024) },
                    { name: "OWNER", value: String(agentUser) },
                  ],
                  resources: { requests: { cpu: "10m", memory: "32Mi" }, limits: { memory: "256Mi" } },
                  readinessProbe: { exec: { command: ["test", "-d", "/cache/maven/repository"] }, periodSeconds: 2 },
                  securityContext: {
                    // Folders the kubelet makes on a node belong to root; only their owner is set here.
                    runAsUser: 0,
                    runAsNonRoot: false,
                    allowPrivilegeEscalation: false,
                    readOnlyRootFilesystem: true,
                    capabilities: { drop: ["ALL"], add: ["CHOWN", "DAC_OVERRIDE", "FOWNER"] },
                    seccompProfile: { type: "RuntimeDefault" },
                  },
                  volumeMounts: [{ name: "cache", mountPath: "/cache" }],
                },
                ...(cache.gradle ? [gradleKeeper(image)] : []),
              ],
              volumes: [{ name: "cache", hostPath: { path: cache.path, type: "DirectoryOrCreate" } }],
            },
          },
        },
      },
      { parent: this },
    );
  }
}

/** A pod in which another container runs to its end first; volumes of one name are one volume. */
export function afterFirst(pod: k8s.types.input.core.v1.PodSpec, first: BeforeStart): k8s.types.input.core.v1.PodSpec {
  const volumes = pod.volumes as k8s.types.input.core.v1.Volume[];
  return { ...pod, initContainers: [first.container], volumes: [...volumes, ...first.volumes.filter(({ name }) => !volumes.some((volume) => volume.name === name))] };
}

/** Takes over what agents with Gradle offer: as their user, without any right of its own. */
function gradleKeeper(image: pulumi.Input<string>): k8s.types.input.core.v1.Container {
  return {
    name: "gradle",
    image,
    command: ["/bin/bash", "-c", gradleKeeperScript],
    env: [
      { name: "CACHE", value: "/cache/gradle" },
      { name: "OFFERS", value: "/cache/gradle-offers" },
      { name: "INTERVAL", value: "5" },
    ],
    resources: { requests: { cpu: "5m", memory: "16Mi" }, limits: { memory: "256Mi" } },
    // Its folders are the keeper's to make.
    startupProbe: { exec: { command: ["test", "-w", "/cache/gradle/generations"] }, periodSeconds: 1, failureThreshold: 120 },
    securityContext: {
      runAsUser: agentUser,
      runAsGroup: agentUser,
      runAsNonRoot: true,
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ["ALL"] },
      seccompProfile: { type: "RuntimeDefault" },
    },
    volumeMounts: [{ name: "cache", mountPath: "/cache" }],
  };
}

/** The controller's pod, held to Pod Security level `restricted`. */
function controllerPod(
  args: JenkinsMasterArgs,
  refs: { serviceAccount: pulumi.Input<string>; configMap: pulumi.Input<string>; adminSecret: pulumi.Input<string>; loginSecret?: pulumi.Input<string>; claim: pulumi.Input<string> },
): k8s.types.input.core.v1.PodSpec {
  const probe = { httpGet: { path: "/login", port: "http" }, timeoutSeconds: 5, periodSeconds: 10 };
  const confined = { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } };
  const configuration = [
    { name: "casc", mountPath: "/var/jenkins_casc", readOnly: true },
    { name: "admin", mountPath: "/run/secrets/jenkins", readOnly: true },
  ];
  // Random, the pod's own, and known to nobody who may not read pods of this namespace.
  const reloadToken = { name: "CASC_RELOAD_TOKEN", valueFrom: { fieldRef: { apiVersion: "v1", fieldPath: "metadata.uid" } } };
  const furtherSecrets = [
    ...(refs.loginSecret ? [{ secret: { name: refs.loginSecret } }] : []),
    ...(args.secretFiles ?? []).map(({ secret, key }) => ({ secret: { name: secret, items: [{ key, path: secretFileName({ secret, key }) }] } })),
  ];
  return {
    serviceAccountName: refs.serviceAccount,
    enableServiceLinks: false,
    terminationGracePeriodSeconds: args.terminationSeconds ?? 90,
    ...(args.priorityClassName && { priorityClassName: args.priorityClassName }),
    ...(args.nodeSelector && Object.keys(args.nodeSelector).length > 0 && { nodeSelector: args.nodeSelector }),
    ...(args.tolerations && args.tolerations.length > 0 && { tolerations: args.tolerations }),
    securityContext: {
      runAsUser: 1000,
      runAsGroup: 1000,
      runAsNonRoot: true,
      fsGroup: 1000,
      // A home of many files is not walked at every start.
      fsGroupChangePolicy: "OnRootMismatch",
      seccompProfile: { type: "RuntimeDefault" },
    },
    containers: [
      {
        name: "jenkins",
        image: args.image,
        env: [
          { name: "CASC_JENKINS_CONFIG", value: "/var/jenkins_casc" },
          { name: "SECRETS", value: "/run/secrets/jenkins" },
          { name: "JAVA_OPTS", value: javaOptions(args.maxRamPercentage ?? 60, args.javaOpts) },
          // The unpacked war is no data: it stays out of the home and so out of backups.
          { name: "JENKINS_OPTS", value: "--webroot=/var/cache/jenkins/war" },
          { name: "JENKINS_SLAVE_AGENT_PORT", value: "50000" },
          reloadToken,
          // The home's plugins follow the image, in both directions.
          { name: "PLUGINS_FORCE_UPGRADE", value: "true" },
          { name: "TRY_UPGRADE_IF_NO_MARKER", value: "true" },
        ],
        ports: [
          { name: "http", containerPort: 8080, protocol: "TCP" },
          { name: "agent", containerPort: 50000, protocol: "TCP" },
        ],
        resources: canonicalResources(args.resources),
        // What a controller that does not start said last is shown with its state.
        terminationMessagePolicy: "FallbackToLogsOnError",
        startupProbe: { ...probe, periodSeconds: 2, failureThreshold: Math.ceil((args.startupSeconds ?? 600) / 2) },
        livenessProbe: { ...probe, failureThreshold: 6 },
        readinessProbe: { ...probe, failureThreshold: 3 },
        securityContext: confined,
        volumeMounts: [{ name: "home", mountPath: "/var/jenkins_home" }, ...configuration, { name: "cache", mountPath: "/var/cache/jenkins" }, { name: "tmp", mountPath: "/tmp" }],
      },
      {
        name: "config-reload",
        image: args.image,
        command: ["/bin/bash", "-c", configReloadScript],
        env: [
          { name: "FOLDERS", value: configuration.map((mount) => mount.mountPath).join(" ") },
          { name: "STATE", value: reloadState },
          { name: "PORT", value: "8080" },
          { name: "INTERVAL", value: "5" },
          reloadToken,
        ],
        resources: { requests: { cpu: "5m", memory: "16Mi" }, limits: { memory: "64Mi" } },
        securityContext: confined,
        volumeMounts: [...configuration, { name: "reload", mountPath: reloadState }],
      },
    ],
    volumes: [
      { name: "home", persistentVolumeClaim: { claimName: refs.claim } },
      { name: "casc", configMap: { name: refs.configMap } },
      furtherSecrets.length > 0
        ? { name: "admin", projected: { sources: [{ secret: { name: refs.adminSecret } }, ...furtherSecrets] } }
        : { name: "admin", secret: { secretName: refs.adminSecret } },
      { name: "reload", emptyDir: {} },
      { name: "cache", emptyDir: {} },
      { name: "tmp", emptyDir: {} },
    ],
  };
}
