import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { domain, externalUrl, fits, maxRamPercentage, size, within } from "../../config/pieces";
import type { GatewayClass } from "../ingress";
import type { Patch } from "../patches";
import type { ImagePulls } from "../pull-secrets";
import { isQuantity, Resources } from "../quantity";
import type { Surroundings } from "../surroundings";
import type { Transform } from "../transform";
import { AgentSettings, AgentTemplate, Toleration } from "./agents";
import type { BuildCacheArgs } from "./build-cache";
import { cloudSettingsProblems, defaultsTemplate } from "./casc";
import { cascInput, SecretFile } from "./configuration";
import { ownVariables } from "./controller";
import { fragmentProblems } from "./fragments";
import { Login, Rights } from "./login";
import type { RehearsalArgs } from "./rehearsal";
import type { RunningController, SaveFirstArgs } from "./save-first";

/** How people reach Jenkins. */
export interface AddressArgs {
  /** Host name Jenkins answers on, without scheme or port. */
  domain: string;
  /** Port in the address people use. Default: the scheme's own. */
  port?: number;
  /** The address people use where something before the ingress makes it another than that of domain, tls and port, or with the path below which Jenkins answers. Default none. */
  externalUrl?: string;
  /** Whether the ingress believes what a proxy before it says of the scheme (X-Forwarded-Proto). Default false. */
  forwardedProto?: boolean;
  /** IngressClass that serves the domain. */
  ingressClassName: pulumi.Input<string>;
  /** Namespace whose pods forward people's requests. Default `ingress-nginx`. */
  ingressNamespace?: pulumi.Input<string>;
  /** A Gateway that is there, which an HTTPRoute leads from in place of an Ingress. Default none. */
  gateway?: GatewayRef;
  /** Class of a Gateway that is made, with an HTTPRoute in place of an Ingress. Default none. */
  gatewayClass?: GatewayClass;
  /** HTTPS at the Ingress. Default none: it serves plain HTTP. */
  tls?: IngressTls;
  /** Further hosts on which Jenkins answers. Default none. */
  hosts?: FurtherHost[];
  /** Further annotations of the Ingress. Default none. */
  annotations?: Record<string, string>;
  /** Largest request body the Ingress lets through, as nginx writes sizes. Default "64m". */
  maxBodySize?: string;
  /** Whether the Ingress is there only when its controller has written an address into it, which not every one does. Default true. */
  awaited?: boolean;
}

/** A Gateway of gateway.networking.k8s.io/v1, or one of its listeners. */
export interface GatewayRef {
  name: string;
  /** Default Jenkins' own. */
  namespace?: string;
  sectionName?: string;
}

/** A host name beside the domain. */
export interface FurtherHost {
  name: string;
  /** Secret of type kubernetes.io/tls with its certificate; needed where the Ingress has HTTPS. */
  secretName?: string;
  /** Whether it is the host of Jenkins' resource root URL. Default false. */
  resources?: boolean;
}

/** How people outside the cluster reach Jenkins over HTTPS. */
export interface IngressTls {
  /** Secret of type kubernetes.io/tls in the controller's namespace; made by cert-manager where an issuer is given. */
  secretName: string;
  /** cert-manager ClusterIssuer that makes and renews the certificate. */
  clusterIssuer?: string;
}

/** The volume with Jenkins' data. */
export interface HomeArgs {
  /** StorageClass of jenkins_home. */
  storageClassName: pulumi.Input<string>;
  /** Size of jenkins_home as a quantity with unit, such as "20Gi". */
  size: string;
  /** Whether `pulumi destroy` and replacements refuse to delete jenkins_home. Default true. */
  protect?: boolean;
}

/** A container that runs to its end each time before the controller starts, with the volumes it needs; `home` is the controller's own. */
export interface BeforeStart {
  container: k8s.types.input.core.v1.Container;
  volumes: k8s.types.input.core.v1.Volume[];
}

/** The controller's pod. */
export interface ControllerArgs {
  /** Controller image, plugins baked in, by digest. */
  image: pulumi.Input<string>;
  /** Requests and limits of the controller container. A memory limit is required: the JVM's heap follows it. */
  resources: Resources;
  /** Share of the memory limit that the JVM's heap may take, in percent. Default 60: threads, metaspace and code live beside it. */
  maxRamPercentage?: number;
  /** Further JVM options. Default none. */
  javaOpts?: string;
  /** Port on every node for agents outside the cluster, by TCP. Default none. */
  agentNodePort?: number;
  /** Seconds the controller may take to answer after its start. Default 600: plugins and jobs are loaded first. */
  startupSeconds?: number;
  /** Seconds running builds and Jenkins itself get to stop in order. Default 90. */
  terminationSeconds?: number;
  /** PriorityClass of the controller, so that other pods do not push it out; that of `ownPriorities` is made. Default none. */
  priorityClassName?: string;
  /** Architectures that its image is built for, such as amd64. Default any. */
  architectures?: string[];
  /** Node labels the controller needs. */
  nodeSelector?: Record<string, string>;
  /** Taints the controller accepts. */
  tolerations?: Toleration[];
  /** Further environment, such as what documents refer to as `${NAME}`. Default none. */
  env?: Record<string, string>;
  /** Names of Secrets in the controller's namespace whose keys become environment. Default none. */
  envFrom?: string[];
  /** What runs before each start, such as a restore into an empty home. Default nothing. */
  beforeStart?: BeforeStart;
  /** A container that runs for as long as Jenkins does, started before and ended after it. Default none. */
  fence?: k8s.types.input.core.v1.Container;
}

/** A template whose image may not be built yet. */
export type AgentTemplateArgs = Omit<AgentTemplate, "image"> & { image: pulumi.Input<string> };

/** The agents. */
export interface AgentsArgs {
  /** Kinds of agents. */
  templates: AgentTemplateArgs[];
  /** Most agent pods at once over all templates. Default 10, as in the official chart. */
  cap?: number;
  /** What all agent pods share. */
  settings: AgentSettings;
  /** Who keeps the caches on each node; needed with a cache path in the settings. */
  cache?: {
    /** Image with a POSIX shell and GNU coreutils. */
    keeperImage: pulumi.Input<string>;
    /** Most GiB the shared caches may take on each node. Default 20. */
    maxGi?: number;
    /** Most GiB of Docker's data on a node, where a template keeps them. Default 50. */
    dockerGi?: number;
  };
  /** Gradle's build cache, for templates with gradle-build in their caches; needs its address in the settings. Default none. */
  buildCache?: BuildCacheArgs;
  /** Settings of the kubernetes plugin's cloud, as JCasC names them, over the platform's own; templates and podLabels in it come to them. Default none. */
  cloud?: Record<string, unknown>;
}

/** Who gets in, and what may reach what. */
export interface AccessArgs {
  /** Name of the administrator. */
  adminUser: string;
  /** The administrator's password; kept secret. Default: made once and kept. */
  adminPassword?: pulumi.Input<string>;
  /** Raise it to have a new password made. Default 1. */
  adminPasswordVersion?: number;
  /** Name of a Secret in the controller's namespace with keys admin-user and admin-password, used instead of an own one. */
  adminExistingSecret?: string;
  /** Where people log in. Default: only the local administrator can. */
  login?: Login;
  /** Who may do what. Needed with a login; default: the local administrator may do anything. */
  rights?: Rights;
  /** Whether NetworkPolicies fence the controller and the agents. Default true. */
  networkPolicies?: boolean;
  /** Addresses of the API server as CIDRs, which agents must not reach. */
  apiServerCidrs?: pulumi.Input<pulumi.Input<string>[]>;
  /** What images are pulled with. Default nothing. */
  pulls?: ImagePulls;
}

/** The site's own configuration as code. */
export interface ConfigurationArgs {
  /** JCasC documents by file name, joined with the platform's. Default none. */
  fragments?: Record<string, string>;
  /** Documents that Jenkins has now, by key of their ConfigMap: what they set and the next ones do not is warned of. Default none. */
  live?: Record<string, string>;
  /** Keys of Secrets in the controller's namespace that documents refer to as `${<secret>-<key>}`. Default none. */
  secretFiles?: SecretFile[];
  /** Update site that Jenkins asks for updates and security warnings, in place of https://updates.jenkins.io. */
  updateSite?: string;
}

/** What looks at Jenkins. */
export interface MonitoringArgs {
  /** Whether the pod asks to be scraped at /prometheus/, and by which namespace. Default no. */
  prometheusNamespace?: string;
  /** Whether a ServiceMonitor for the Prometheus operator is made; needs prometheusNamespace. Default false. */
  serviceMonitor?: boolean;
  /** Further labels of the ServiceMonitor, such as those that the Prometheus looks for. Default none. */
  serviceMonitorLabels?: Record<string, string>;
  /** Whether a Grafana dashboard is made, for the sidecar that looks for label grafana_dashboard; needs prometheusNamespace. Default false. */
  dashboard?: boolean;
}

export interface JenkinsMasterArgs {
  address: AddressArgs;
  home: HomeArgs;
  controller: ControllerArgs;
  agents: AgentsArgs;
  access: AccessArgs;
  /** Default: the platform's own document alone. */
  configuration?: ConfigurationArgs;
  /** Default none. */
  monitoring?: MonitoringArgs;
  /** How a change is tried before it reaches the running controller. Default: it is not. */
  rehearsal?: RehearsalArgs;
  /** Where the home is saved right before the controller gets another image, by the CronJob of JenkinsBackup. Default: it is not. */
  saveFirst?: SaveFirstArgs;
  /** The controller that the cluster has. Default: none, or it is not known. */
  running?: RunningController;
  /** What the program changes of all objects with applyPatches, so that what is tried and what a backup boots have it, too. Default none. */
  patches?: Patch[];
  /** The network around: its proxy, and whose certificates are trusted. Default none. */
  surroundings?: Surroundings;
  /** Namespace of the controller. Default `jenkins`. */
  namespace?: string;
  /** Namespace of the agents. Default: the controller's with `-agents` behind it. */
  agentsNamespace?: string;
  /** Further labels of the controller's namespace. Default none. */
  namespaceLabels?: Record<string, string>;
  /** Last changes to the main objects, see components/transform.ts. */
  transform?: {
    deployment?: Transform<k8s.apps.v1.DeploymentArgs>;
    ingress?: Transform<k8s.networking.v1.IngressArgs>;
    configMap?: Transform<k8s.core.v1.ConfigMapArgs>;
  };
}

/** Mistakes in the arguments, one detail per field. */
export function jenkinsMasterProblems(args: JenkinsMasterArgs): { propertyPath: string; reason: string }[] {
  const { address, home, controller, agents, access, monitoring = {} } = args;
  const problems: { propertyPath: string; reason: string }[] = [];
  const check = (good: boolean, propertyPath: string, reason: string) => {
    if (!good) problems.push({ propertyPath, reason });
  };
  check(fits(domain, address.domain), "address.domain", `"${address.domain}" is no host name such as jenkins.example.com`);
  if (address.externalUrl !== undefined) check(fits(externalUrl, address.externalUrl), "address.externalUrl", `"${address.externalUrl}" is not ${externalUrl.expected}`);
  (address.hosts ?? []).forEach(({ name, secretName }, i, hosts) => {
    check(fits(domain, name), `address.hosts[${i}].name`, `"${name}" is no host name such as jenkins.example.com`);
    check(name !== address.domain && hosts.findIndex((other) => other.name === name) === i, `address.hosts[${i}].name`, `"${name}" is served already`);
    check((secretName !== undefined) === (address.tls !== undefined), `address.hosts[${i}].secretName`, address.tls ? "is missing: the Ingress has HTTPS" : "is of no use without address.tls");
  });
  check(address.gateway === undefined || address.tls === undefined, "address.tls", "is of no use with address.gateway, whose listeners have the certificates");
  check(fits(size, home.size), "home.size", `"${home.size}" is no size with a unit such as 20Gi`);
  const quantities = (resources: Resources, path: string) => {
    for (const side of ["requests", "limits"] as const)
      for (const [what, value] of Object.entries(resources[side] ?? {}))
        check(isQuantity(value), `${path}.${side}.${what}`, `"${value}" is no quantity such as 500m or 2Gi`);
  };
  quantities(controller.resources, "controller.resources");
  check(controller.resources.limits?.memory !== undefined, "controller.resources.limits.memory", "is missing; the JVM's heap is a share of it");
  const percentage = controller.maxRamPercentage ?? maxRamPercentage.usual;
  check(within(maxRamPercentage, percentage), "controller.maxRamPercentage", `${percentage} is not between ${maxRamPercentage.least} and ${maxRamPercentage.most}`);
  for (const variable of Object.keys(controller.env ?? {})) check(!ownVariables.includes(variable), `controller.env.${variable}`, "is set by the component itself");
  const names = agents.templates.map((t) => t.name);
  check(names.length > 0, "agents.templates", "is empty; the controller itself builds nothing");
  agents.templates.forEach((template, i) => {
    check(names.indexOf(template.name) === i, `agents.templates[${i}].name`, `"${template.name}" appears twice`);
    check(template.name !== defaultsTemplate, `agents.templates[${i}].name`, `"${defaultsTemplate}" is the name of the template that all pods start from`);
    quantities(template.resources, `agents.templates[${i}].resources`);
    quantities(template.dockerResources, `agents.templates[${i}].dockerResources`);
  });
  if (args.rehearsal) quantities(args.rehearsal.resources, "rehearsal.resources");
  check(agents.settings.cachePath === undefined || agents.cache !== undefined, "agents.cache", "is needed with agents.settings.cachePath");
  if (agents.buildCache) check(fits(size, agents.buildCache.size), "agents.buildCache.size", `"${agents.buildCache.size}" is no size with a unit such as 20Gi`);
  check(!(access.adminPassword !== undefined && access.adminExistingSecret), "access.adminExistingSecret", "cannot be given together with adminPassword");
  check(access.login === undefined || access.rights !== undefined, "access.rights", "are missing; without them everybody whom the login knows might do anything");
  const input = cascInput(args, agents.templates.map(() => "image"));
  for (const { path, problem } of cloudSettingsProblems(input)) check(false, `agents.cloud.${path}`, problem);
  for (const { file, problem, severity } of fragmentProblems(input)) check(severity === "warning", `configuration.fragments["${file}"]`, problem);
  check(!monitoring.serviceMonitor || monitoring.prometheusNamespace !== undefined, "monitoring.serviceMonitor", "needs prometheusNamespace");
  check(!monitoring.dashboard || monitoring.prometheusNamespace !== undefined, "monitoring.dashboard", "needs prometheusNamespace");
  return problems;
}
