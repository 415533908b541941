import * as fs from "node:fs";
import * as net from "node:net";
import * as os from "node:os";
import * as path from "node:path";
import * as pulumi from "@pulumi/pulumi";
import type { Builder, ImageSpec } from "../components/agent-images";
import { ownMounts, ownSecretNames, secretFileName, secretNames, type AgentTemplate, type AgentVolume, type CachedTool, type DockerMode, type IngressTls, type SecretFile, type Toleration } from "../components/jenkins-master";
import { CascInput, fragmentProblems } from "../components/jenkins-master/casc";
import { LdapLogin, Login, loginPlugins, Members, OidcLogin, Rights, roles } from "../components/jenkins-master/login";
import type { ControlPlaneAccess } from "../components/node-port-range";
import { basePathProblem, type StorageInstall } from "../components/openebs-storage";
import { isQuantity, quantityMillis, Resources } from "../components/quantity";
import { refusal } from "../components/refusal";
import upstream from "../images/upstream.json";

/** Upstream images the platform uses; images/upstream.json says which version of each. */
export type ImageKey = keyof typeof upstream;

/** Everything the stack is told, checked and complete. */
export interface PlatformConfig {
  /** Host name Jenkins answers on. */
  domain: string;
  cluster: {
    /** Path of the kubeconfig; undefined means $KUBECONFIG or ~/.kube/config. */
    kubeconfig?: string;
    /** Context in it: always named, so that a stack never reaches the cluster that happens to be selected. */
    context: string;
  };
  /** Namespaces of the controller, of the agents and of image builds in the cluster. */
  namespaces: { jenkins: string; agents: string; builds: string };
  storage: {
    className: string;
    /** `none` where the StorageClass is there already and stays somebody else's. */
    install: StorageInstall | "none";
    basePath: string;
    size: string;
    protectHome: boolean;
  };
  /** The API servers' range; undefined where it is left as it is, another environment's or Kubernetes' own. */
  nodePorts?: { range: string; reserveLocalPorts: boolean; access: ControlPlaneAccess };
  /** Full reference of every upstream image. */
  images: Record<ImageKey, string>;
  /** Where built images go and the nodes pull them from. The password is plain text here, for the preflight; index.ts makes it a secret. */
  registry: { host: string; prefix: string; insecure: boolean; username?: string; password?: string };
  imageBuild: { builder: Builder; platforms: string[]; cache?: string; sbom?: string; deleteOnDestroy: boolean };
  /** Images the stack builds, by name. */
  builds: Record<string, ImageSpec>;
  controller: {
    /** Name of the build, or a full reference. */
    image: string;
    resources: Resources;
    maxRamPercentage: number;
    javaOpts: string;
    startupSeconds: number;
    terminationSeconds: number;
    priorityClassName?: string;
    nodeSelector: Record<string, string>;
    tolerations: Toleration[];
  };
  /** `image` is the name of a build or a full reference. */
  agents: AgentTemplate[];
  agentCap: number;
  /** Shared dependency caches on the nodes; undefined for none. */
  agentCache?: { path: string; maxGi: number };
  ingress: {
    /** False where another ingress controller serves the class. */
    install: boolean;
    className: string;
    /** Namespace of the ingress controller's pods. */
    namespace: string;
    /** Ports of the nodes on which the ingress controller answers. */
    httpNodePort: number;
    httpsNodePort: number;
    tls?: IngressTls;
    annotations: Record<string, string>;
    maxBodySize: string;
    hstsSeconds: number;
    replicas: number;
  };
  admin: { user: string; password?: pulumi.Output<string>; passwordVersion: number; existingSecret?: string };
  /** Where people log in; undefined for the local administrator alone. */
  login?: Login;
  /** Who may do what; undefined for whoever is logged in may do anything. */
  rights?: Rights;
  networkPolicies: boolean;
  prometheusNamespace?: string;
  serviceMonitor: boolean;
  serviceMonitorLabels: Record<string, string>;
  dashboard: boolean;
  /** The site's own JCasC documents, by file name. */
  cascFragments: Record<string, string>;
  secretFiles: SecretFile[];
  backup?: BackupConfig;
}

/** Where and how often jenkins_home is backed up. */
export interface BackupConfig {
  /** restic repository, such as s3:https://host/bucket, sftp:user@host:/folder or a folder of the node. */
  repository: string;
  /** The repository's password. */
  password: pulumi.Output<string>;
  /** Second repository, for secrets/master.key alone. */
  keysRepository: string;
  keysPassword: pulumi.Output<string>;
  /** Environment that restic needs, such as AWS_ACCESS_KEY_ID. */
  environment: pulumi.Output<Record<string, string>>;
  /** When, as a cron line in UTC; "" for by hand only. */
  schedule: string;
  /** When a restored copy is booted, as a cron line in UTC; "" for by hand only. */
  verifySchedule: string;
  /** How many snapshots are kept. */
  keep: { last: number; daily: number; weekly: number; monthly: number };
  /** Patterns below jenkins_home that are left out beyond the usual ones. */
  excludes: string[];
  /** Most KiB/s sent to the repository; 0 for no limit. */
  uploadLimit: number;
  /** Login at SFTP repositories. */
  ssh?: { privateKey: pulumi.Output<string>; knownHosts: string };
  /** Snapshot that an empty home is filled from before Jenkins starts: "latest" or an id; "" for none. */
  startFrom: string;
}

/** One mistake in the stack config, for a person to mend. */
export interface Problem {
  /** Path of the key, such as controlPlane.nodes[0].host */
  key: string;
  /** What is there; a whole sentence with the remedy where `expected` and `fix` are left out. */
  found: string;
  expected?: string;
  fix?: string;
}

/** What parseConfig asks of the world around it. */
export interface Environment {
  /** Reads a file named in config; ~ is already expanded. */
  readFile(file: string): string;
  /** Names of the files in a folder named in config; without it folders are not looked into. */
  listFolder?(folder: string): string[];
  homeDirectory: string;
  /** Whether a top-level key is stored encrypted. */
  isSecret(key: string): boolean;
}

const hostLabel = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?";
const domainPattern = new RegExp(`^(?=.{1,253}$)${hostLabel}(\\.${hostLabel})+$`);
const hostPattern = new RegExp(`^(?=.{1,253}$)${hostLabel}(\\.${hostLabel})*$`, "i");
const registryPattern = /^(\[[0-9a-f:]+\]|[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?)(:\d{1,5})?$/;
const namePattern = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;
const sizePattern = /^\d+(\.\d+)?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)$/;
const referencePattern = /^[a-z0-9.-]+(:\d+)?\/[a-z0-9._/-]+(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?$/;
const hostKeyPattern = /^(ssh-ed25519|ecdsa-sha2-nistp(256|384|521)) AAAA[A-Za-z0-9+/]+={0,3}$/;
const cronPattern = /^(@(hourly|daily|weekly|monthly)|[\d*,/A-Za-z-]+( [\d*,/A-Za-z-]+){4})$/;

const domainOrName = (text: string) => domainPattern.test(text) || namePattern.test(text);
const isRegistry = (text: string) => {
  const found = registryPattern.exec(text);
  return found !== null && Number(found[3]?.slice(1) ?? 443) <= 65535;
};
const isHost = (text: string) => net.isIP(text) !== 0 || hostPattern.test(text);

/** Ends of a range such as "80-32767"; undefined for any other text. */
export function rangeEnds(text: string): [low: number, high: number] | undefined {
  const match = /^(\d{1,5})-(\d{1,5})$/.exec(text);
  return match ? [Number(match[1]), Number(match[2])] : undefined;
}

/** What is wrong with a node-port range, or nothing. Both ports of the ingress must lie inside. */
export function rangeProblem(text: string, [http, https]: [http: number, https: number] = [80, 443]): string | undefined {
  const ends = rangeEnds(text);
  if (!ends) return "a range such as 80-32767";
  const [low, high] = ends;
  if (low < 1 || high > 65535 || low > high) return "a range within 1-65535, the lower end first";
  if ([http, https].some((port) => port < low || port > high)) return `a range that holds ${http} and ${https}, where the ingress listens`;
  return undefined;
}

/** Port of the nodes on which people reach Jenkins. */
export const publicPort = ({ tls, httpNodePort, httpsNodePort }: Pick<PlatformConfig["ingress"], "tls" | "httpNodePort" | "httpsNodePort">): number => (tls ? httpsNodePort : httpNodePort);

/** What a text must look like, and how that is said. */
interface Pattern {
  good: RegExp;
  expected: string;
}

// As the API server checks them.
const labelName: Pattern = { good: /^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\/)?[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?$/, expected: "the name of a node label such as disk or example.com/disk" };
const labelValue: Pattern = { good: /^([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)?$/, expected: "a node label's value of at most 63 letters, digits, dots, hyphens and underscores" };
const variableName: Pattern = { good: /^[-._A-Za-z][-._A-Za-z0-9]*$/, expected: "the name of a variable: letters, digits, underscores, hyphens and dots, no digit first" };

interface StringRule {
  /** Value when the key is absent or ""; without it the key must be given. */
  default?: string;
  good?: RegExp | ((text: string) => boolean);
  expected: string;
  fix?: string;
  /** The value must not be shown. */
  hidden?: boolean;
}

/** Reads one object of the config: takes note of every mistake and of every key nobody asked for. */
class Section {
  private readonly asked = new Set<string>();

  constructor(
    readonly path: string,
    private readonly values: Record<string, unknown>,
    readonly problems: Problem[],
  ) {}

  at(key: string): string {
    return this.path === "" ? key : `${this.path}.${key}`;
  }

  problem(key: string, found: unknown, expected: string, fix?: string): void {
    const at = this.at(key);
    const top = at.split(/[.[]/)[0];
    const shown = found === undefined || found === "" ? "nothing" : typeof found === "string" ? found : JSON.stringify(found);
    this.problems.push({
      key: at,
      found: shown,
      expected,
      fix: fix ?? (at === top ? `pulumi config set ${at} <value>` : `pulumi config set --path '${at}' <value>, or edit ${top} in the stack's file`),
    });
  }

  get(key: string): unknown {
    this.asked.add(key);
    return this.values[key];
  }

  has(key: string): boolean {
    const value = this.get(key);
    return value !== undefined && value !== "";
  }

  string(key: string, rule: StringRule): string {
    const value = this.get(key);
    if (value === undefined || value === "") {
      if (rule.default === undefined) this.problem(key, undefined, rule.expected, rule.fix);
      return rule.default ?? "";
    }
    const good = rule.good instanceof RegExp ? (text: string) => (rule.good as RegExp).test(text) : (rule.good ?? (() => true));
    if (typeof value !== "string" || !good(value)) {
      this.problem(key, rule.hidden ? "(not shown)" : value, rule.expected, rule.fix);
      return typeof value === "string" ? value : "";
    }
    return value;
  }

  oneOf<T extends string>(key: string, choices: readonly T[], fallback: T): T {
    const value = this.string(key, { default: fallback, good: (text) => (choices as readonly string[]).includes(text), expected: `one of ${choices.join(", ")}` });
    return (choices as readonly string[]).includes(value) ? (value as T) : fallback;
  }

  integer(key: string, fallback: number, least: number, most: number): number {
    const value = this.get(key);
    if (value === undefined || value === "") return fallback;
    const number = typeof value === "number" ? value : typeof value === "string" && /^-?\d+$/.test(value) ? Number(value) : NaN;
    if (!Number.isInteger(number) || number < least || number > most) {
      this.problem(key, value, `a whole number from ${least} to ${most}`);
      return fallback;
    }
    return number;
  }

  boolean(key: string, fallback: boolean): boolean {
    const value = this.get(key);
    if (value === undefined || value === "") return fallback;
    if (value === true || value === "true") return true;
    if (value === false || value === "false") return false;
    this.problem(key, value, "true or false");
    return fallback;
  }

  /** An object of its own, read by `read`; keys that `read` does not ask for are mistakes. */
  section<T>(key: string, read: (section: Section) => T): T {
    const value = parsed(this.get(key)) ?? {};
    if (!isObject(value)) this.problem(key, value, "an object");
    return readSection(this.at(key), isObject(value) ? value : {}, this.problems, read);
  }

  list<T>(key: string, read: (section: Section) => T): T[] {
    const value = parsed(this.get(key)) ?? [];
    if (!Array.isArray(value)) {
      this.problem(key, value, "a list");
      return [];
    }
    return value.flatMap((item, i) => {
      const at = `${this.at(key)}[${i}]`;
      if (isObject(item)) return [readSection(at, item, this.problems, read)];
      this.problems.push({ key: at, found: JSON.stringify(item), expected: "an object", fix: `edit ${key} in the stack's file` });
      return [];
    });
  }

  /** Texts by name. Whole numbers and true and false are texts as well: `pulumi config set --path` makes them of what was typed. */
  strings(key: string, rule: { name?: Pattern; text?: Pattern; hidden?: boolean } = {}): Record<string, string> {
    const value = parsed(this.get(key)) ?? {};
    if (!isObject(value)) {
      this.problem(key, rule.hidden ? "(not shown)" : value, "an object of texts");
      return {};
    }
    return Object.fromEntries(
      Object.entries(value).flatMap(([name, given]) => {
        const at = `${key}.${name}`;
        const text = typeof given === "boolean" || Number.isSafeInteger(given) ? String(given) : given;
        if (rule.name && !rule.name.good.test(name)) this.problem(at, name, rule.name.expected);
        else if (typeof text !== "string") this.problem(at, rule.hidden ? "(not shown)" : given, typeof given === "number" ? "a text: put it in quotes" : "a text");
        else if (rule.text && !rule.text.good.test(text)) this.problem(at, text, rule.text.expected);
        else return [[name, text]];
        return [];
      }),
    );
  }

  nodeSelector(): Record<string, string> {
    return this.strings("nodeSelector", { name: labelName, text: labelValue });
  }

  resources(key: string, fallback: Resources): Resources {
    if (!this.has(key)) return fallback;
    const quantities = (side: "requests" | "limits") => (section: Section) => {
      const out: { cpu?: string; memory?: string } = {};
      for (const what of ["cpu", "memory"] as const) {
        const value = section.get(what);
        if (value === undefined) continue;
        const text = String(value);
        const good = isQuantity(text) && quantityMillis(text) > 0n && (what === "cpu" || sizePattern.test(text));
        if (good) out[what] = text;
        else section.problem(what, value, what === "cpu" ? "processor time such as 500m or 2" : `memory with a unit such as 512Mi or 2Gi (${side})`);
      }
      return out;
    };
    return this.section(key, (section) => {
      const resources = { requests: section.section("requests", quantities("requests")), limits: section.section("limits", quantities("limits")) };
      for (const what of ["cpu", "memory"] as const) {
        const [request, limit] = [resources.requests[what], resources.limits[what]];
        if (request !== undefined && limit !== undefined && quantityMillis(request) > quantityMillis(limit))
          section.problem(`limits.${what}`, limit, `at least the ${request} of requests.${what}`);
      }
      return resources;
    });
  }

  tolerations(key: string): Toleration[] {
    return this.list(key, (section) => {
      const toleration: Toleration = {};
      if (section.has("key")) toleration.key = section.string("key", { good: labelName.good, expected: "a taint's key" });
      if (section.has("operator")) toleration.operator = section.oneOf<"Exists" | "Equal">("operator", ["Exists", "Equal"], "Exists");
      if (section.has("value")) toleration.value = section.string("value", { good: labelValue.good, expected: "a taint's value" });
      if (section.has("effect")) toleration.effect = section.oneOf<"NoSchedule" | "PreferNoSchedule" | "NoExecute">("effect", ["NoSchedule", "PreferNoSchedule", "NoExecute"], "NoSchedule");
      // The API server hears of an agent's only when a build wants one, and then refuses its pod.
      if (toleration.operator === "Exists" && toleration.value !== undefined) section.problem("value", toleration.value, "nothing beside operator: Exists, which takes any value");
      if (toleration.operator !== "Exists" && toleration.key === undefined) section.problem("key", undefined, "a taint's key, or operator: Exists without one, which accepts every taint");
      return toleration;
    });
  }

  /** Notes every key that nothing asked for: most often a slip of the pen. */
  finish(): void {
    for (const key of Object.keys(this.values)) {
      if (this.asked.has(key)) continue;
      const near = [...this.asked].find((known) => known.toLowerCase() === key.toLowerCase() || distance(known, key) <= 2);
      this.problem(key, "a key that does not exist", `one of ${[...this.asked].sort().join(", ")}`, near ? `rename it to ${near}` : `remove it from the stack's file`);
    }
  }
}

function readSection<T>(at: string, values: Record<string, unknown>, problems: Problem[], read: (section: Section) => T): T {
  const section = new Section(at, values, problems);
  const result = read(section);
  section.finish();
  return result;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The engine hands objects and lists over as JSON text. */
function parsed(value: unknown): unknown {
  if (typeof value !== "string") return value;
  if (value === "") return undefined;
  try {
    return JSON.parse(value);
  } catch {
    return value;
  }
}

/** Levenshtein distance, for words of a few letters. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) next[j] = Math.min(next[j - 1] + 1, row[j] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
    row = next;
  }
  return row[b.length];
}

const agentResources: Resources = { requests: { cpu: "500m", memory: "1Gi" }, limits: { memory: "2Gi" } };
const dockerResources: Resources = { requests: { cpu: "250m", memory: "512Mi" }, limits: { memory: "4Gi" } };
const controllerResources: Resources = { requests: { cpu: "500m", memory: "2Gi" }, limits: { memory: "4Gi" } };

/** The controller's namespace where config names none. */
const defaultNamespace = "jenkins";
const defaultBasePath = "/var/openebs/local";

/** The build of the controller image. */
export const controllerBuild = "controller";
/** Its argument with the names of further plugins. */
const optionalPlugins = "OPTIONAL_PLUGINS";

function readControlPlane(section: Section, env: Environment): ControlPlaneAccess {
  const file = (from: Section, key: string): string | undefined => {
    if (!from.has(key)) return undefined;
    const name = from.string(key, { expected: "the path of a file" });
    const expanded = name === "~" || name.startsWith("~/") ? path.join(env.homeDirectory, name.slice(1)) : name;
    try {
      return env.readFile(expanded);
    } catch (error) {
      from.problem(key, name, "a file that can be read", `${(error as Error).message}; correct the path or its permissions`);
      return undefined;
    }
  };
  const privateKey = (from: Section): pulumi.Output<string> | undefined => {
    const text = from.has("privateKey") ? from.string("privateKey", { expected: "a private key", hidden: true }) : file(from, "privateKeyFile");
    if (from.has("privateKey") && from.has("privateKeyFile")) from.problem("privateKeyFile", "a file beside privateKey", "only one of the two", "remove one of them");
    from.get("privateKeyFile");
    if (text === undefined) return undefined;
    if (!/^-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(text)) {
      from.problem(from.has("privateKey") ? "privateKey" : "privateKeyFile", "text that is no private key", "a private key in PEM or OpenSSH form", "name the key without .pub");
    }
    return pulumi.secret(text);
  };
  const hostKey = (from: Section): string => {
    if (from.has("hostKey") && from.has("hostKeyFile")) from.problem("hostKeyFile", "a file beside hostKey", "only one of the two", "remove one of them");
    const direct = from.has("hostKey");
    const named = from.has("hostKeyFile");
    if (!direct && !named) {
      from.problem("hostKey", undefined, "the node's SSH host key, so that nobody can pose as it", "take it from /etc/ssh/ssh_host_ed25519_key.pub on the node itself, or name that file as hostKeyFile");
      return "";
    }
    const text = direct ? from.string("hostKey", { expected: "a host key" }) : file(from, "hostKeyFile");
    if (text === undefined) return "";
    const key = text.trim().split(/\s+/).slice(0, 2).join(" ");
    const keyName = direct ? "hostKey" : "hostKeyFile";
    // The Command provider asks for an RSA key with SHA-1 signatures only, which SSH servers have not given since OpenSSH 8.8.
    if (key.startsWith("ssh-rsa ")) {
      from.problem(keyName, "an RSA host key", "the machine's Ed25519 or ECDSA host key: Pulumi's SSH client cannot check RSA ones", "take it from /etc/ssh/ssh_host_ed25519_key.pub on that machine");
    } else if (!hostKeyPattern.test(key)) {
      from.problem(keyName, key.slice(0, 40), "a public host key such as ssh-ed25519 AAAA...");
    }
    return key;
  };
  const access = section.oneOf("access", ["ssh", "local"], "ssh");
  const names = new Set<string>();
  const nodeName = (node: Section): string => {
    const name = node.string("name", { good: domainOrName, expected: "the node's name as kubectl get nodes shows it" });
    if (name !== "" && names.has(name)) node.problem("name", name, "a name no other node of the list has");
    names.add(name);
    return name;
  };
  const needNodes = (nodes: unknown[]) => {
    if (nodes.length === 0) section.problem("nodes", undefined, "every control-plane node of the cluster", "list them under controlPlane.nodes in the stack's file: name, host and hostKey of each");
  };
  if (access === "local") {
    for (const key of ["user", "port", "privateKey", "privateKeyFile", "agentSocket", "proxy"])
      if (section.has(key)) section.problem(key, "an SSH setting", "nothing beside access: local", `remove it, or set access: ssh`);
    const nodes = section.list("nodes", (node) => ({ name: nodeName(node) }));
    needNodes(nodes);
    if (nodes.length > 1) section.problem("nodes", nodes.map((n) => n.name).join(", "), "one node with access: local, the machine pulumi runs on", "set access: ssh");
    return { kind: "local", nodes };
  }
  const host = (from: Section) => from.string("host", { good: isHost, expected: "a host name or address" });
  const ssh: Extract<ControlPlaneAccess, { kind: "ssh" }> = {
    kind: "ssh",
    user: section.string("user", { default: "root", good: /^[a-z_][a-z0-9_-]{0,31}$/, expected: "a user name" }),
    port: section.integer("port", 22, 1, 65535),
    nodes: section.list("nodes", (node) => ({ name: nodeName(node), host: host(node), hostKey: hostKey(node) })),
  };
  needNodes(ssh.nodes);
  const key = privateKey(section);
  if (key) ssh.privateKey = key;
  if (section.has("agentSocket")) ssh.agentSocketPath = section.string("agentSocket", { good: /^\//, expected: "the path of an SSH agent's socket" });
  if (!key && !ssh.agentSocketPath && !section.has("privateKey") && !section.has("privateKeyFile"))
    section.problem("privateKey", undefined, "a way to log in: privateKey, privateKeyFile or agentSocket", "pulumi config set --path 'controlPlane.privateKeyFile' ~/.ssh/id_ed25519");
  if (section.has("proxy"))
    ssh.proxy = section.section("proxy", (proxy) => {
      const login = privateKey(proxy);
      return {
        host: host(proxy),
        port: proxy.integer("port", 22, 1, 65535),
        user: proxy.string("user", { default: ssh.user, expected: "a user name" }),
        hostKey: hostKey(proxy),
        ...(login && { privateKey: login }),
      };
    });
  return ssh;
}

function readImages(section: Section): Record<ImageKey, string> {
  return Object.fromEntries(
    Object.entries(upstream).map(([key, pin]) => {
      const digest = "digest" in pin ? `@${pin.digest}` : "";
      return [key, section.string(key, { default: `${pin.image}:${pin.tag}${digest}`, good: referencePattern, expected: "a full image reference such as registry.example.com/path/name:tag" })];
    }),
  ) as Record<ImageKey, string>;
}

/** The builds the repository brings along. */
function ownBuilds(images: Record<ImageKey, string>): Record<string, ImageSpec> {
  return {
    [controllerBuild]: { context: "images/controller", args: { JENKINS_IMAGE: images.jenkins } },
    "maven-dind": { context: "images/maven-dind", args: { BASE_IMAGE: images.inboundAgent, MAVEN_IMAGE: images.maven, DOCKER_IMAGE: images.dockerCli } },
    "gradle-dind": { context: "images/gradle-dind", args: { BASE_IMAGE: images.inboundAgent, GRADLE_IMAGE: images.gradle, DOCKER_IMAGE: images.dockerCli } },
  };
}

/** The controller's build with plugins of images/controller/optional-plugins.txt baked in, beside those that its own argument names. */
function withPlugins(build: ImageSpec, plugins: string[]): ImageSpec {
  const named = [build.args?.[optionalPlugins], ...plugins].filter((text) => text !== undefined && text !== "");
  return named.length > 0 ? { ...build, args: { ...build.args, [optionalPlugins]: named.join(" ") } } : build;
}

/** The repository's builds and those of the config, which may also change build arguments of the former. */
function readBuilds(root: Section, images: Record<ImageKey, string>): Record<string, ImageSpec> {
  const own = ownBuilds(images);
  const value = parsed(root.get("agentImages")) ?? {};
  if (!isObject(value)) {
    root.problem("agentImages", value, "an object with one entry for each image");
    return own;
  }
  const read = Object.fromEntries(
    Object.entries(value).map(([name, entry]) => {
      const at = `agentImages.${name}`;
      if (!namePattern.test(name)) root.problem(`agentImages.${name}`, name, "an image name of small letters, digits and hyphens", "rename it");
      const spec = readSection(at, isObject(entry) ? entry : {}, root.problems, (section): ImageSpec => {
        const args = Object.entries(section.strings("args")).map(([arg, text]) => {
          if (!text.startsWith("upstream:")) return [arg, text];
          const key = text.slice("upstream:".length);
          if (!(key in images)) section.problem(`args.${arg}`, text, `upstream: and one of ${Object.keys(images).join(", ")}`);
          return [arg, images[key as ImageKey] ?? ""];
        });
        return {
          context: section.string("context", { default: own[name]?.context ?? `images/${name}`, good: (text) => !path.isAbsolute(text) && !text.split("/").includes(".."), expected: "a folder of the project" }),
          ...(section.has("dockerfile") && { dockerfile: section.string("dockerfile", { expected: "a file in the context" }) }),
          args: { ...own[name]?.args, ...Object.fromEntries(args) },
        };
      });
      return [name, spec];
    }),
  );
  return { ...own, ...read };
}

function readAgentVolume(section: Section): AgentVolume {
  const kinds = (["configMap", "secret", "claim"] as const).filter((kind) => section.has(kind));
  if (kinds.length !== 1) section.problem(kinds[1] ?? "configMap", kinds.length === 0 ? undefined : kinds.join(" and "), "one of configMap, secret or claim, with the name of one in namespace jenkins-agents");
  const kind = kinds[0] ?? "configMap";
  const key = section.string("key", { default: "", good: /^[-._A-Za-z0-9]+$/, expected: "the name of one file" });
  return {
    kind,
    name: kinds.length === 0 ? "" : section.string(kind, { good: /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/, expected: "a name" }),
    mountPath: section.string("mountPath", { good: (text) => /^\/[^:]+$/.test(text) && !text.split("/").includes(".."), expected: "where it appears in the build container, such as /usr/share/maven/conf/settings.xml" }),
    ...(key && { key }),
    readOnly: section.boolean("readOnly", kind !== "claim"),
  };
}

function readAgentVolumes(agent: Section): AgentVolume[] {
  const taken = new Set(ownMounts);
  return agent.list("volumes", (section) => {
    const volume = readAgentVolume(section);
    const place = path.posix.normalize(`${volume.mountPath}/`).slice(0, -1);
    if (taken.has(place)) section.problem("mountPath", volume.mountPath, ownMounts.includes(place) ? "another folder: the platform mounts its own there" : "a folder that no other volume of the agent has");
    taken.add(place);
    return volume;
  });
}

function readAgents(root: Section, builds: string[]): AgentTemplate[] {
  const names = new Set<string>();
  const agents = root.list("agents", (section): AgentTemplate => {
    const name = section.string("name", { good: (text) => namePattern.test(text) && text.length <= 40, expected: "a name of at most 40 small letters, digits and hyphens" });
    const first = names.size === 0;
    if (names.has(name)) section.problem("name", name, "a name no other agent has");
    names.add(name);
    const caches = parsed(section.get("caches")) ?? [];
    const knownCaches: CachedTool[] = ["maven", "gradle"];
    const goodCaches = Array.isArray(caches) && caches.every((tool) => (knownCaches as unknown[]).includes(tool));
    if (!goodCaches) section.problem("caches", caches, `a list of ${knownCaches.join(" and ")}`);
    return {
      name,
      label: section.string("label", { default: name, good: /^[A-Za-z0-9_.-]+( [A-Za-z0-9_.-]+)*$/, expected: "Jenkins labels, separated by single blanks" }),
      image: section.string("image", {
        good: (text) => builds.includes(text) || referencePattern.test(text),
        expected: `the name of a built image (${builds.filter((build) => build !== controllerBuild).join(", ")}) or a full image reference`,
      }),
      docker: section.oneOf<DockerMode>("docker", ["dind", "rootless", "none"], "dind"),
      caches: goodCaches ? (caches as CachedTool[]) : [],
      resources: section.resources("resources", agentResources),
      dockerResources: section.resources("dockerResources", dockerResources),
      cap: section.integer("cap", 10, 1, 1000),
      idleMinutes: section.integer("idleMinutes", 0, 0, 10080),
      podRetention: section.oneOf("podRetention", ["never", "onFailure", "always", "evicted"], "never"),
      connectTimeoutSeconds: section.integer("connectTimeoutSeconds", 600, 10, 86400),
      activeDeadlineSeconds: section.integer("activeDeadlineSeconds", 0, 0, 604800),
      nodeSelector: section.nodeSelector(),
      tolerations: section.tolerations("tolerations"),
      spread: section.boolean("spread", true),
      // A build without label would else wait for ever: the controller takes none.
      unlabelled: section.boolean("unlabelled", first),
      env: section.strings("env", { name: variableName }),
      volumes: readAgentVolumes(section),
    };
  });
  if (agents.length === 0) root.problem("agents", undefined, "at least one agent template; the controller itself builds nothing", "remove the key to get the maven and gradle agents");
  return agents;
}

function readIngress(section: Section): PlatformConfig["ingress"] {
  const install = section.boolean("install", true);
  const tlsSecret = section.string("tlsSecret", { default: "", good: namePattern, expected: "the name of a Secret of type kubernetes.io/tls in the controller's namespace" });
  const [httpNodePort, httpsNodePort] = [section.integer("httpNodePort", 80, 1, 65535), section.integer("httpsNodePort", 443, 1, 65535)];
  if (httpNodePort === httpsNodePort) section.problem("httpsNodePort", httpsNodePort, "another port than httpNodePort");
  const clusterIssuer = section.string("clusterIssuer", { default: "", good: namePattern, expected: "the name of a cert-manager ClusterIssuer" });
  return {
    install,
    className: section.string("className", { default: "nginx", good: namePattern, expected: "the name of an IngressClass" }),
    namespace: section.string("namespace", { default: "ingress-nginx", good: namePattern, expected: "the namespace of the ingress controller" }),
    httpNodePort,
    httpsNodePort,
    ...((tlsSecret || clusterIssuer) && { tls: { secretName: tlsSecret || "jenkins-tls", ...(clusterIssuer && { clusterIssuer }) } }),
    annotations: section.strings("annotations"),
    maxBodySize: section.string("maxBodySize", { default: "64m", good: /^\d+[kmg]?$/i, expected: "a size as nginx writes it, such as 64m" }),
    hstsSeconds: section.integer("hstsSeconds", 31536000, 0, 63072000),
    replicas: section.integer("replicas", 1, 1, 100),
  };
}

/** @param ingress namespace that the environment makes for its ingress controller */
function readNamespaces(root: Section, ingress: string | undefined): PlatformConfig["namespaces"] {
  const jenkins = root.string("namespace", {
    default: defaultNamespace,
    good: (text) => namePattern.test(text) && text.length <= 50,
    expected: "a name of at most 50 small letters, digits and hyphens",
  });
  const taken = ["default", "openebs", ...(ingress === undefined ? [] : [ingress])];
  if (taken.includes(jenkins) || taken.includes(`${jenkins}-agents`) || jenkins.startsWith("kube-"))
    root.problem("namespace", jenkins, "a namespace for Jenkins alone, which the stack makes and deletes", "pulumi config set namespace jenkins");
  return { jenkins, agents: `${jenkins}-agents`, builds: jenkins === defaultNamespace ? "image-builds" : `${jenkins}-image-builds` };
}

function readBackup(section: Section): BackupConfig {
  const secret = (key: string) => pulumi.secret(section.string(key, { expected: "a password", hidden: true, fix: `pulumi config set --secret --path 'backup.${key}' <value>` }));
  const target = { good: /^(s3:|sftp:|rest:|b2:|azure:|gs:|swift:|rclone:|\/)\S+$/, expected: "a restic repository such as s3:https://host/bucket or /folder/on/the/node" };
  const cron = (key: string) => section.string(key, { default: "", good: cronPattern, expected: "five cron fields such as 0 2 * * *, in UTC" });
  const excludes = parsed(section.get("excludes")) ?? [];
  const goodExcludes = Array.isArray(excludes) && excludes.every((line) => typeof line === "string" && /^[^/\s#]\S*$/.test(line));
  if (!goodExcludes) section.problem("excludes", excludes, "a list of patterns relative to jenkins_home such as jobs/**/htmlreports");
  const ssh = section.has("ssh")
    ? section.section("ssh", (login) => ({
        privateKey: pulumi.secret(login.string("privateKey", { good: /^-----BEGIN [A-Z ]*PRIVATE KEY-----/, expected: "a private key without passphrase", hidden: true, fix: "pulumi config set --secret --path 'backup.ssh.privateKey' < key-file" })),
        knownHosts: login.string("knownHosts", { expected: "the lines of known_hosts for the SFTP server, as ssh-keyscan prints them" }),
      }))
    : undefined;
  const backup: BackupConfig = {
    repository: section.string("repository", target),
    password: secret("password"),
    keysRepository: section.string("keysRepository", target),
    keysPassword: secret("keysPassword"),
    environment: pulumi.secret(section.strings("environment", { name: variableName, hidden: true })),
    schedule: cron("schedule"),
    verifySchedule: cron("verifySchedule"),
    keep: section.section("keep", (keep) => ({
      last: keep.integer("last", 3, 0, 1000),
      daily: keep.integer("daily", 7, 0, 1000),
      weekly: keep.integer("weekly", 4, 0, 1000),
      monthly: keep.integer("monthly", 6, 0, 1000),
    })),
    excludes: goodExcludes ? (excludes as string[]) : [],
    uploadLimit: section.integer("uploadLimit", 0, 0, 10_000_000),
    ...(ssh && { ssh }),
    startFrom: section.string("startFrom", { default: "", good: /^(latest|[0-9a-f]{8,64})$/, expected: "latest, or the id of a snapshot as npm run backups lists it" }),
  };
  for (const key of ["repository", "keysRepository"] as const)
    if (backup[key].startsWith("sftp:") && !ssh) section.problem("ssh", undefined, "privateKey (secret) and knownHosts, because a repository is reached over SFTP");
  if (backup.repository !== "" && backup.repository === backup.keysRepository)
    section.problem("keysRepository", backup.keysRepository, "another repository than the backup's own: the master key must not lie beside what it opens");
  return backup;
}

function readOidc(section: Section): OidcLogin {
  return {
    wellKnownUrl: section.string("wellKnownUrl", { good: /^https:\/\/[^\s/]+\/\S+$/, expected: "the address of the provider's discovery document such as https://sso.example.com/.well-known/openid-configuration" }),
    clientId: section.string("clientId", { expected: "the name under which the provider knows Jenkins" }),
    clientSecret: pulumi.secret(section.string("clientSecret", { expected: "the client's secret", hidden: true, fix: "pulumi config set --secret --path 'login.oidc.clientSecret' <value>" })),
    userNameField: section.string("userNameField", { default: "preferred_username", expected: "a claim" }),
    fullNameField: section.string("fullNameField", { default: "name", expected: "a claim" }),
    emailField: section.string("emailField", { default: "email", expected: "a claim" }),
    groupsField: section.string("groupsField", { default: "", expected: "the claim that lists a person's groups" }),
    scopes: section.string("scopes", { default: "openid profile email", good: /^openid( \S+)*$/, expected: "scopes separated by single blanks, the first one openid" }),
    logoutFromProvider: section.boolean("logoutFromProvider", true),
    escapeHatch: section.boolean("escapeHatch", true),
  };
}

function readLdap(section: Section): LdapLogin {
  const filter = (key: string, fallback: string) =>
    section.string(key, { default: fallback, good: /\{0\}/, expected: "an LDAP filter with {0} in place of what is searched for, such as uid={0}" });
  const attribute = (key: string, fallback: string) => section.string(key, { default: fallback, good: /^[A-Za-z][A-Za-z0-9-]*$/, expected: "the name of an attribute" });
  const managerDN = section.string("managerDN", { default: "", expected: "the DN of who searches" });
  const managerPassword = section.string("managerPassword", { default: "", expected: "the password of managerDN", hidden: true });
  if ((managerDN === "") !== (managerPassword === ""))
    section.problem(managerDN === "" ? "managerDN" : "managerPassword", undefined, "both managerDN and managerPassword, or neither for anonymous searches", managerDN === "" ? undefined : "pulumi config set --secret --path 'login.ldap.managerPassword' <value>");
  const ldap: LdapLogin = {
    server: section.string("server", { good: /^((ldaps?:\/\/)?[A-Za-z0-9.-]+(:\d{1,5})?)( (ldaps?:\/\/)?[A-Za-z0-9.-]+(:\d{1,5})?)*$/, expected: "a server such as ldaps://ldap.example.com, or several separated by single blanks" }),
    rootDN: section.string("rootDN", { good: /^[A-Za-z]+=/, expected: "where searches start, such as dc=example,dc=com" }),
    managerDN,
    ...(managerPassword !== "" && { managerPassword: pulumi.secret(managerPassword) }),
    userSearchBase: section.string("userSearchBase", { default: "", expected: "a DN below rootDN" }),
    userSearch: filter("userSearch", "uid={0}"),
    groupSearchBase: section.string("groupSearchBase", { default: "", expected: "a DN below rootDN" }),
    groupSearchFilter: filter("groupSearchFilter", ""),
    groupMembershipFilter: filter("groupMembershipFilter", ""),
    groupMembershipAttribute: attribute("groupMembershipAttribute", ""),
    displayNameAttribute: attribute("displayNameAttribute", "displayName"),
    mailAttribute: attribute("mailAttribute", "mail"),
  };
  if (ldap.groupMembershipAttribute !== "" && ldap.groupMembershipFilter !== "")
    section.problem("groupMembershipFilter", ldap.groupMembershipFilter, "nothing beside groupMembershipAttribute", "remove one of them");
  return ldap;
}

function readLogin(section: Section): Login | undefined {
  const [oidc, ldap] = [section.has("oidc"), section.has("ldap")];
  if (oidc && ldap) section.problem("ldap", "a directory beside login.oidc", "one way to log in", "remove one of them");
  if (oidc) return { kind: "oidc", oidc: section.section("oidc", readOidc) };
  return ldap ? { kind: "ldap", ldap: section.section("ldap", readLdap) } : undefined;
}

function readRights(section: Section): Rights | undefined {
  const names = (from: Section, key: string): string[] => {
    const value = parsed(from.get(key)) ?? [];
    if (Array.isArray(value) && value.every((name) => typeof name === "string" && name !== "" && name.trim() === name)) return value as string[];
    from.problem(key, value, `a list of names of ${key}`);
    return [];
  };
  const read = roles.flatMap((role): [string, Members][] => {
    if (!section.has(role)) return [];
    return [[role, section.section(role, (members) => ({ groups: names(members, "groups"), users: names(members, "users") }))]];
  });
  return read.length > 0 ? Object.fromEntries(read) : undefined;
}

/** What rights and login ask of each other. */
function checkRights(root: Section, login: Login | undefined, rights: Rights | undefined): void {
  if (!login) return;
  const example = `pulumi config set --path 'rights.admin.groups[0]' <group>`;
  const outside = login.kind === "ldap" || !login.oidc.escapeHatch;
  if (!rights) {
    root.problem("rights", undefined, "who may do what: admin, developer and reader, each with groups and users; a login without rights would let everybody it knows do anything", example);
  } else if (outside && (rights.admin?.groups.length ?? 0) + (rights.admin?.users.length ?? 0) === 0) {
    root.problem("rights.admin", undefined, "at least one group or user: with this login the local administrator cannot log in", example);
  }
  const groups = roles.flatMap((role) => rights?.[role]?.groups ?? []).filter((group) => group !== "authenticated");
  if (login.kind === "oidc" && login.oidc.groupsField === "" && groups.length > 0)
    root.problem("login.oidc.groupsField", undefined, `the claim that lists a person's groups, because rights name ${groups.join(", ")}`, "pulumi config set --path 'login.oidc.groupsField' groups");
}

function readSecretFiles(root: Section): SecretFile[] {
  const taken = new Set(ownSecretNames);
  return root.list("secretFiles", (section) => {
    const file = {
      secret: section.string("secret", { good: namePattern, expected: "the name of a Secret in the controller's namespace" }),
      key: section.string("key", { good: /^[-._A-Za-z0-9]+$/, expected: "a key of that Secret" }),
    };
    const name = secretFileName(file);
    if (taken.has(name)) section.problem("key", file.key, `another one: documents know ${name} already`, "remove the entry, or give the Secret another name");
    taken.add(name);
    return file;
  });
}

/** The YAML files of a folder, by name; each mistake in them with its file and key. */
function readFragments(root: Section, env: Environment, taken: Pick<CascInput, "login" | "rights" | "secretNames">): Record<string, string> {
  const folder = root.string("cascFolder", { default: "", expected: "a folder with JCasC documents" });
  if (folder === "" || !env.listFolder) return {};
  const at = folder.startsWith("~/") ? path.join(env.homeDirectory, folder.slice(2)) : folder;
  try {
    const files = env.listFolder(at).filter((file) => /\.ya?ml$/.test(file));
    if (files.length === 0) root.problem("cascFolder", folder, "a folder with files that end in .yaml");
    const fragments = Object.fromEntries(files.sort().map((file) => [file, env.readFile(path.join(at, file))]));
    // Which keys the platform's own document sets does not depend on what it is rendered from.
    const own = { url: "", namespace: "", agentsNamespace: "", containerCap: 1, templates: [], settings: { dindImage: "", buildkitImage: "", insecureRegistries: [] } };
    for (const { file, problem } of fragmentProblems({ ...own, ...taken, fragments })) root.problem("cascFolder", `${file}: ${problem}`, "documents that Jenkins takes", `edit ${path.join(folder, file)}`);
    return fragments;
  } catch (error) {
    root.problem("cascFolder", folder, "a folder that can be read", `${(error as Error).message}; correct the path or its permissions`);
    return {};
  }
}

/**
 * Checks the whole stack config.
 * @param raw the stack's keys without namespace, the defaults of Pulumi.yaml filled in; objects as such or as JSON text
 * @returns every mistake; the config is fit for use only if there is none
 */
export function parseConfig(raw: Record<string, unknown>, env: Environment): { config: PlatformConfig; problems: Problem[] } {
  const problems: Problem[] = [];
  const config = readSection("", raw, problems, (root): PlatformConfig => {
    const optional = (key: string, good: RegExp | undefined, expected: string) => root.string(key, { default: "", good, expected }) || undefined;
    const secrets = (key: string, ...paths: string[]) => {
      const value = parsed(root.get(key));
      const within = (path: string) => path.split(".").reduce<unknown>((outer, name) => (isObject(outer) ? outer[name] : undefined), value);
      const present = paths.filter((p) => (p === "" ? root.has(key) : within(p) !== undefined && within(p) !== ""));
      if (present.length > 0 && !env.isSecret(key))
        for (const p of present) {
          const at = p === "" ? key : `${key}.${p}`;
          problems.push({ key: at, found: "a value in plain text", expected: "an encrypted value", fix: `pulumi config set --secret --path '${at}' <value>` });
        }
    };
    secrets("adminPassword", "");
    secrets("controlPlane", "privateKey", "proxy.privateKey");
    secrets("registry", "password");
    secrets("login", "oidc.clientSecret", "ldap.managerPassword");
    secrets("backup", "password", "keysPassword", "environment", "ssh");

    const images = root.section("images", readImages);
    const allBuilds = readBuilds(root, images);
    const agents = readAgents(root, Object.keys(allBuilds));
    const controller = root.section("controller", (section): PlatformConfig["controller"] => {
      const resources = section.resources("resources", controllerResources);
      const memory = resources.limits?.memory;
      if (memory === undefined || quantityMillis(memory) < quantityMillis("512Mi"))
        section.problem("resources.limits.memory", memory, "at least 512Mi; the JVM's heap is a share of it");
      return {
        image: section.string("image", { default: controllerBuild, good: referencePattern, expected: "a full image reference, or nothing to build images/controller" }),
        resources,
        maxRamPercentage: section.integer("maxRamPercentage", 60, 10, 90),
        javaOpts: section.string("javaOpts", { default: "", expected: "JVM options" }),
        startupSeconds: section.integer("startupSeconds", 600, 30, 7200),
        terminationSeconds: section.integer("terminationSeconds", 90, 1, 3600),
        ...(section.has("priorityClassName") && { priorityClassName: section.string("priorityClassName", { good: /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/, expected: "the name of a PriorityClass" }) }),
        nodeSelector: section.nodeSelector(),
        tolerations: section.tolerations("tolerations"),
      };
    });
    const used = new Set([controller.image, ...agents.map((agent) => agent.image)]);
    const login = root.section("login", readLogin);
    const rights = root.section("rights", readRights);
    checkRights(root, login, rights);
    const plugins = [...loginPlugins(login, rights), ...(root.has("prometheusNamespace") ? ["prometheus"] : [])];
    // Images that the config adds are built even if only a pipeline's own pod template refers to them.
    const own = ownBuilds(images);
    const builds = Object.fromEntries(Object.entries(allBuilds).flatMap(([name, build]) => (used.has(name) || !(name in own) ? [[name, name === controllerBuild ? withPlugins(build, plugins) : build]] : [])));

    const ingress = root.section("ingress", readIngress);
    const namespaces = readNamespaces(root, ingress.install ? ingress.namespace : undefined);
    const install = root.oneOf<StorageInstall | "none">("storageInstall", ["provisioner", "class", "none"], "provisioner");
    const basePath = root.string("storageBasePath", { default: defaultBasePath, good: (text) => basePathProblem(text) === undefined, expected: "an absolute path of at least two folders such as /var/openebs/local" });
    if (install === "none" && basePath !== defaultBasePath)
      root.problem("storageBasePath", basePath, "nothing beside storageInstall: none, where the class decides", "pulumi config rm storageBasePath");
    const nodePortRange = root.string("nodePortRange", { default: "80-32767", expected: "a range" });
    const ownsRange = nodePortRange !== "none";
    const wrong = ownsRange ? rangeProblem(nodePortRange, [ingress.httpNodePort, ingress.httpsNodePort]) : undefined;
    if (wrong) root.problem("nodePortRange", nodePortRange, `${wrong}, or none where it is left as it is`, "pulumi config set nodePortRange 80-32767");
    const reserveLocalPorts = root.boolean("reserveLocalPorts", true);
    const controlPlane = parsed(root.get("controlPlane"));
    if (!ownsRange && isObject(controlPlane) && Object.keys(controlPlane).length > 0)
      root.problem("controlPlane", "access to control-plane nodes", "nothing beside nodePortRange: none, which changes no node", "pulumi config rm controlPlane");

    const adminPassword = root.string("adminPassword", { default: "", good: (text) => text.length >= 12, expected: "at least 12 characters", hidden: true, fix: "pulumi config set --secret adminPassword <value>" });
    const existingSecret = optional("adminExistingSecret", namePattern, "the name of a Secret in the controller's namespace with keys admin-user and admin-password");
    if (adminPassword && existingSecret) root.problem("adminExistingSecret", existingSecret, "nothing beside adminPassword", "pulumi config rm adminPassword");

    const passwordVersion = root.integer("adminPasswordVersion", 1, 1, 1000000);
    if (passwordVersion !== 1 && (adminPassword || existingSecret))
      root.problem("adminPasswordVersion", passwordVersion, `nothing beside ${adminPassword ? "adminPassword: a new password is a new value of it" : "adminExistingSecret: a new password is a change of that Secret"}`, "pulumi config rm adminPasswordVersion");
    const adminUser = root.string("adminUser", { default: "admin", good: /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, expected: "a user name of letters, digits, dots, hyphens and underscores" });
    if (existingSecret && adminUser !== "admin") root.problem("adminUser", adminUser, "nothing beside adminExistingSecret, whose key admin-user has the name", "pulumi config rm adminUser");

    const [serviceMonitor, dashboard] = [root.boolean("serviceMonitor", false), root.boolean("dashboard", false)];
    if ((serviceMonitor || dashboard) && !root.has("prometheusNamespace"))
      root.problem("prometheusNamespace", undefined, `the namespace of the Prometheus that a ${serviceMonitor ? "ServiceMonitor" : "dashboard"} is for`);

    const serviceMonitorLabels = root.strings("serviceMonitorLabels", { name: labelName, text: labelValue });
    if (!serviceMonitor && Object.keys(serviceMonitorLabels).length > 0) root.problem("serviceMonitorLabels", serviceMonitorLabels, "nothing without serviceMonitor: true", "pulumi config set serviceMonitor true");

    const secretFiles = readSecretFiles(root);
    const cache = root.section("agentCache", (section) => ({
      enabled: section.boolean("enabled", true),
      // Two environments that shared one folder could put artifacts into each other's builds.
      path: section.string("path", { default: namespaces.jenkins === defaultNamespace ? "/var/cache/build-platform" : `/var/cache/build-platform-${namespaces.jenkins}`, good: (text) => basePathProblem(text) === undefined, expected: "an absolute path of at least two folders" }),
      maxGi: section.integer("maxGi", 20, 1, 100000),
    }));
    const kubeconfig = optional("kubeconfig", undefined, "the path of a kubeconfig file");

    return {
      domain: root.string("domain", { good: domainPattern, expected: "the host name people will use, without scheme or port, such as jenkins.example.com", fix: "pulumi config set domain jenkins.example.com" }),
      cluster: {
        ...(kubeconfig && { kubeconfig: kubeconfig.startsWith("~/") ? path.join(env.homeDirectory, kubeconfig.slice(2)) : kubeconfig }),
        context: root.string("kubeContext", { expected: "the context of the cluster this stack belongs to", fix: "pulumi config set kubeContext <name>; kubectl config get-contexts lists them" }),
      },
      namespaces,
      storage: {
        className: root.string("storageClass", { default: "openebs-hostpath", good: domainOrName, expected: "the name of a StorageClass" }),
        install,
        basePath,
        size: root.string("storageSize", { default: "20Gi", good: (text) => sizePattern.test(text) && quantityMillis(text) >= quantityMillis("100Mi"), expected: "a size with its unit, at least 100Mi, such as 20Gi", fix: "pulumi config set storageSize 20Gi" }),
        protectHome: root.boolean("protectHome", true),
      },
      ...(ownsRange && {
        nodePorts: { range: nodePortRange, reserveLocalPorts, access: root.section("controlPlane", (section) => readControlPlane(section, env)) },
      }),
      images,
      registry: root.section("registry", (section) => {
        const username = section.string("username", { default: "", expected: "a user name" });
        const password = section.string("password", { default: "", expected: "a password", hidden: true });
        if ((username === "") !== (password === "")) section.problem(username === "" ? "username" : "password", undefined, "both username and password, or neither");
        return {
          host: section.string("host", { good: isRegistry, expected: "a registry that the nodes can pull from, as host or host:port", fix: "pulumi config set --path 'registry.host' registry.example.com:5000" }),
          prefix: section.string("prefix", { default: "build-platform", good: /^[a-z0-9]+([._/-][a-z0-9]+)*$/, expected: "a path of small letters and digits" }),
          insecure: section.boolean("insecure", false),
          ...(username && { username, password }),
        };
      }),
      imageBuild: root.section("imageBuild", (section) => {
        const platforms = parsed(section.get("platforms")) ?? [];
        const good = Array.isArray(platforms) && platforms.every((platform) => typeof platform === "string" && /^linux\/[a-z0-9]+(\/[a-z0-9]+)?$/.test(platform));
        if (!good) section.problem("platforms", platforms, "a list of platforms such as linux/amd64");
        const cache = section.string("cache", { default: "", expected: "registry, or a folder" });
        const sbom = section.string("sbom", { default: "", expected: "a folder" });
        return {
          builder: section.oneOf<Builder>("builder", ["buildah", "buildx", "in-cluster"], "buildx"),
          platforms: good ? (platforms as string[]) : [],
          ...(cache && { cache }),
          ...(sbom && { sbom }),
          deleteOnDestroy: section.boolean("deleteOnDestroy", false),
        };
      }),
      builds,
      controller,
      agents,
      agentCap: root.integer("agentCap", 10, 1, 10000),
      ...(cache.enabled && { agentCache: { path: cache.path, maxGi: cache.maxGi } }),
      ingress,
      admin: {
        user: adminUser,
        ...(adminPassword && { password: pulumi.secret(adminPassword) }),
        passwordVersion,
        ...(existingSecret && { existingSecret }),
      },
      ...(login && { login }),
      ...(rights && { rights }),
      networkPolicies: root.boolean("networkPolicies", true),
      ...(root.has("prometheusNamespace") && { prometheusNamespace: optional("prometheusNamespace", namePattern, "the namespace Prometheus runs in") }),
      serviceMonitor,
      serviceMonitorLabels,
      dashboard,
      cascFragments: readFragments(root, env, { login, rights, secretNames: secretNames({ secretFiles, ...(existingSecret && { adminExistingSecret: existingSecret }) }) }),
      secretFiles,
      ...(isObject(parsed(root.get("backup"))) && Object.keys(parsed(root.get("backup")) as object).length > 0 && { backup: root.section("backup", readBackup) }),
    };
  });
  return { config, problems };
}

/** All mistakes as one text for people. */
export function explain(problems: Problem[], stack: string): string {
  const part = (name: string, text: string | undefined) => (text === undefined ? "" : `\n    ${name.padEnd(8)}  ${text}`);
  const lines = problems.map((p) => `  ${p.key}${part("found", p.found)}${part("expected", p.expected)}${part("fix", p.fix)}`);
  return `Stack ${stack} cannot be brought up as configured; nothing was changed. To mend:\n${lines.join("\n")}`;
}

/**
 * The config of the selected stack.
 * @throws RunError with every mistake, before any resource exists
 */
export function loadConfig(): PlatformConfig {
  const prefix = `${pulumi.getProject()}:`;
  const raw = Object.fromEntries(
    Object.entries(pulumi.runtime.allConfig()).flatMap(([key, value]) => (key.startsWith(prefix) ? [[key.slice(prefix.length), value]] : [])),
  );
  // The SDK exports it for its own Config class without a declaration.
  const { isConfigSecret } = pulumi.runtime as unknown as { isConfigSecret(key: string): boolean };
  const { config, problems } = parseConfig(raw, {
    readFile: (file) => fs.readFileSync(file, "utf8"),
    listFolder: (folder) => fs.readdirSync(folder),
    homeDirectory: os.homedir(),
    isSecret: (key) => isConfigSecret(prefix + key),
  });
  if (problems.length > 0) throw refusal(explain(problems, pulumi.getStack()));
  return config;
}
