import { parse, stringify } from "yaml";
import { AgentSettings, agentsPodSecurity, AgentTemplate, agentPod, podDefaults } from "./agents";
import { check, CLOUD, cloudProblems, Keys, Value } from "./casc-schema";
import { authorizationStrategy, escapeReferences, Login, Rights, securityRealm } from "./login";

/** What the Jenkins Configuration as Code document is rendered from. */
export interface CascInput {
  /** Address people use, such as https://jenkins.example.com/ */
  url: string;
  /** Namespaces of the controller and of the agents. */
  namespace: string;
  agentsNamespace: string;
  /** Most agent pods at once, over all templates. */
  containerCap: number;
  templates: AgentTemplate[];
  settings: AgentSettings;
  /** Secret of the agents' namespace for the registry of the images; undefined where it asks for no login. */
  pullSecret?: string;
  /** Settings of the kubernetes plugin's cloud, as JCasC names them, that replace the platform's; templates and podLabels in it come to the platform's. */
  cloud?: Record<string, unknown>;
  /** The site's own JCasC documents by file name; they may bring their own security realm and authorization strategy. */
  fragments?: Record<string, string>;
  /** Names of the secrets that documents may refer to; undefined where they are not known. */
  secretNames?: string[];
  /** Where people log in; without it only the local administrator can. */
  login?: Login;
  /** Who may do what; without them whoever is logged in may do anything. */
  rights?: Rights;
}

/** Name of the platform's own document in the ConfigMap. */
export const cascFile = "jenkins.yaml";

/** Name of the template that all others inherit from, pipelines' own pods included; no build asks for it. */
export const defaultsTemplate = "pod-defaults";

/**
 * YAML that Jenkins' readers take as it is meant: snakeyaml, which knows YAML 1.1 (`yes` is a truth value, 12:30:45 a number), and for
 * pods Jackson's, which besides takes an alias for the text of its name, knows no merge keys, and reads the first document of several.
 */
const yamlText = (value: object): string => stringify(value, { lineWidth: 0, aliasDuplicateObjects: false, compat: "yaml-1.1" });

/** Roots of JCasC documents: Jenkins' own and those of widespread plugins. */
const roots = ["appearance", "configuration-as-code", "credentials", "globalCredentialsConfiguration", "jenkins", "jobs", "security", "support", "tool", "unclassified"];

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** What a fragment says at `path`, if it can be read at all. */
function fragmentValue(text: string, ...path: string[]): unknown {
  try {
    return path.reduce<unknown>((value, key) => (isMapping(value) ? value[key] : undefined), parse(text));
  } catch {
    return undefined;
  }
}

/** Whether a realm knows people whom neither the platform nor the document names: all but one of local users without sign-up. */
function isForeign(realm: unknown): boolean {
  if (realm === undefined) return false;
  return !isMapping(realm) || !isMapping(realm.local) || String(realm.local.allowsSignup ?? false) !== "false";
}

/** Keys that two documents both set: JCasC joins mappings and lists, and refuses to start on anything else. */
function conflicts(ours: unknown, theirs: unknown, path: string): string[] {
  if (ours === undefined || theirs === undefined) return [];
  if (Array.isArray(ours) && Array.isArray(theirs)) return [];
  if (!isMapping(ours) || !isMapping(theirs)) return [path];
  return Object.keys(theirs).flatMap((key) => conflicts(ours[key], theirs[key], path === "" ? key : `${path}.${key}`));
}

/** References of a document to secrets that are not there. A name with a hyphen can be no variable, and so must be a file. */
function missingSecrets(value: unknown, known: string[], path = ""): string[] {
  if (Array.isArray(value)) return value.flatMap((item, i) => missingSecrets(item, known, `${path}[${i}]`));
  if (isMapping(value)) return Object.entries(value).flatMap(([key, item]) => missingSecrets(item, known, path === "" ? key : `${path}.${key}`));
  if (typeof value !== "string") return [];
  return [...value.matchAll(/(?<!\^)\$\{([-._A-Za-z0-9]+)\}/g)].flatMap(([reference, name]) =>
    name.includes("-") && !known.includes(name) ? [`refers to ${reference} at ${path}, which no entry of secretFiles gives; known are ${known.join(", ")}`] : [],
  );
}

/** What the kubernetes plugin would refuse in the clouds of a document. Other plugins' clouds are theirs to check. */
function cloudsProblems(document: Record<string, unknown>): string[] {
  const clouds = isMapping(document.jenkins) ? document.jenkins.clouds : undefined;
  if (clouds === undefined) return [];
  if (!Array.isArray(clouds)) return ["jenkins.clouds: a list is expected"];
  return clouds.flatMap((cloud: unknown, i) => {
    if (!isMapping(cloud) || !("kubernetes" in cloud)) return [];
    const at = `jenkins.clouds[${i}].kubernetes`;
    const problems: string[] = [];
    const checked = check(cloud.kubernetes as Value, CLOUD, at, problems, true);
    return problems.length > 0 ? problems : cloudProblems(checked as Keys, at);
  });
}

/** Whether a document of the site's own sets this key of `jenkins`. */
const bringsKey = (input: CascInput, key: string): boolean => Object.values(input.fragments ?? {}).some((text) => fragmentValue(text, "jenkins", key) !== undefined);

/** What would keep Jenkins from starting with these documents: each mistake with its file and key. */
export function fragmentProblems(input: CascInput): { file: string; problem: string }[] {
  const problems: { file: string; problem: string }[] = [];
  const read: [string, unknown][] = [[cascFile, cascConfig(input)]];
  for (const [file, text] of Object.entries(input.fragments ?? {})) {
    const say = (problem: string) => problems.push({ file, problem });
    if (file === cascFile) say(`is the name of the platform's own document; rename it`);
    if (!/^[A-Za-z0-9][-A-Za-z0-9._]*\.ya?ml$/.test(file)) say("is no plain file name that ends in .yaml");
    let document: unknown;
    try {
      document = parse(text);
    } catch (error) {
      say(`is no YAML: ${(error as Error).message.split("\n")[0]}`);
      continue;
    }
    if (!isMapping(document)) {
      say("holds no mapping with roots such as jenkins or unclassified");
      continue;
    }
    for (const root of Object.keys(document)) if (!roots.includes(root)) say(`has the unknown root ${root}; known are ${roots.join(", ")}`);
    const inJenkins = isMapping(document.jenkins) ? document.jenkins : {};
    if (input.login && inJenkins.securityRealm !== undefined) say("sets jenkins.securityRealm, which the stack config's login sets as well");
    if (input.rights && inJenkins.authorizationStrategy !== undefined) say("sets jenkins.authorizationStrategy, which the stack config's rights set as well");
    if (!input.login && isForeign(inJenkins.securityRealm)) {
      if (!input.rights && !bringsKey(input, "authorizationStrategy"))
        say("sets jenkins.securityRealm, and nothing says who may do what: everybody it knows might do anything; set rights in the stack config, or jenkins.authorizationStrategy in a document");
      if (input.rights && (input.rights.admin?.groups.length ?? 0) + (input.rights.admin?.users.length ?? 0) === 0)
        say("sets jenkins.securityRealm, which does not know the platform's administrator: name a group or a user in rights.admin of the stack config");
    }
    cloudsProblems(document).forEach((problem) => say(`has a mistake at ${problem}`));
    if (input.secretNames) missingSecrets(document, input.secretNames).forEach(say);
    for (const [other, before] of read) for (const key of conflicts(before, document, "")) say(`sets ${key}, which ${other} sets as well`);
    read.push([file, document]);
  }
  return problems;
}

/** Whether any pod is spread over the nodes: then all are that start from the defaults, for the plugin's merge keeps the first word on it. */
const spreads = (templates: AgentTemplate[]): boolean => templates.some(({ spread }) => spread);

function podTemplate(template: AgentTemplate, { settings, templates }: CascInput): object {
  return {
    // Without one the plugin makes a new one at each start and reload, and agents that run belong to no template any more.
    id: template.name,
    name: template.name,
    label: template.label,
    nodeUsageMode: template.unlabelled ? "NORMAL" : "EXCLUSIVE",
    serviceAccount: "jenkins-agent",
    instanceCap: template.cap,
    idleMinutes: template.idleMinutes,
    slaveConnectTimeout: template.connectTimeoutSeconds,
    ...(template.activeDeadlineSeconds > 0 && { activeDeadlineSeconds: template.activeDeadlineSeconds }),
    podRetention: template.podRetention,
    showRawYaml: false,
    workspaceVolume: { emptyDirWorkspaceVolume: { memory: false } },
    // What a template says is what a pipeline's pod inherits from it: with `override` the pod's own YAML would replace all of it.
    yamlMergeStrategy: template.spread === spreads(templates) ? "merge" : "override",
    yaml: escapeReferences(yamlText(agentPod(template, settings))),
  };
}

/** Has no cap, times or label of its own: every other template would inherit them. */
function defaultsPodTemplate({ settings, templates, pullSecret }: CascInput): object {
  return {
    id: defaultsTemplate,
    name: defaultsTemplate,
    nodeUsageMode: "EXCLUSIVE",
    yamlMergeStrategy: "merge",
    inheritYamlMergeStrategy: true,
    yaml: escapeReferences(yamlText(podDefaults(settings, spreads(templates), pullSecret))),
  };
}

const listOf = (value: unknown): unknown[] => (Array.isArray(value) ? value : []);

/** What is wrong with settings of the site's own for the cloud: what the platform's other parts rely on is not theirs to say. */
export function cloudSettingsProblems({ cloud = {}, templates }: Pick<CascInput, "cloud" | "templates">): { path: string; problem: string }[] {
  const taken = [...templates.map(({ name }) => name), defaultsTemplate];
  const list = (key: string) => listOf(cloud[key]);
  return [
    ...["name", "namespace", "jenkinsUrl", "serverUrl"].filter((key) => key in cloud).map((path) => ({ path, problem: "is the platform's own to set; take it away" })),
    ...["templates", "podLabels"].filter((key) => key in cloud && !Array.isArray(cloud[key])).map((path) => ({ path, problem: "a list is expected" })),
    ...list("templates").flatMap((template, i) => (isMapping(template) && taken.includes(template.name as string) ? [{ path: `templates[${i}].name`, problem: `"${String(template.name)}" is the name of a template of the platform's own; rename it` }] : [])),
    ...list("podLabels").flatMap((label, i) => (isMapping(label) && label.key === "jenkins" ? [{ path: `podLabels[${i}].key`, problem: "the label jenkins is the platform's own; rename it" }] : [])),
  ];
}

/** The kubernetes plugin's cloud: the platform's settings, and the site's own over them. */
function kubernetesCloud(input: CascInput): object {
  const { templates, podLabels, garbageCollection, ...further } = input.cloud ?? {};
  return {
    name: "kubernetes",
    serverUrl: "https://kubernetes.default",
    namespace: input.agentsNamespace,
    jenkinsUrl: `http://jenkins.${input.namespace}.svc:8080/`,
    jenkinsTunnel: `jenkins-agent.${input.namespace}.svc:50000`,
    webSocket: false,
    containerCapStr: String(input.containerCap),
    maxRequestsPerHostStr: "32",
    connectTimeout: 5,
    readTimeout: 15,
    retentionTimeout: 5,
    waitForPodSec: 600,
    // A namespace that is held to it takes no other pod, and pipelines' own rarely say all that it asks for.
    ...(agentsPodSecurity(input.templates, input.settings.cachePath) === "restricted" && { restrictedPssSecurityContext: true }),
    defaultsProviderTemplate: defaultsTemplate,
    ...further,
    podLabels: [{ key: "jenkins", value: "agent" }, ...listOf(podLabels)],
    garbageCollection: { namespaces: input.agentsNamespace, timeout: 300, ...(isMapping(garbageCollection) && garbageCollection) },
    templates: [...input.templates.map((template) => podTemplate(template, input)), ...listOf(templates), defaultsPodTemplate(input)],
  };
}

/**
 * Jenkins' whole configuration as a plain object, before it becomes YAML.
 * Secrets are names such as `${admin-password}`, which JCasC resolves from the files below $SECRETS, never from here.
 */
export function cascConfig(input: CascInput): object {
  const foreign = Object.values(input.fragments ?? {}).some((text) => isForeign(fragmentValue(text, "jenkins", "securityRealm")));
  return {
    jenkins: {
      numExecutors: 0,
      mode: "EXCLUSIVE",
      slaveAgentPort: 50000,
      crumbIssuer: "standard",
      ...(!bringsKey(input, "securityRealm") && { securityRealm: securityRealm(input.login) }),
      ...(!bringsKey(input, "authorizationStrategy") && { authorizationStrategy: authorizationStrategy(input.rights, input.login, foreign) }),
      clouds: [{ kubernetes: kubernetesCloud(input) }],
    },
    unclassified: { location: { url: input.url } },
  };
}

/** The JCasC document: the value of key `jenkins.yaml` in ConfigMap `jenkins-casc`. */
export function renderCasc(input: CascInput): string {
  return yamlText(cascConfig(input));
}
