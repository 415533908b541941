import { stringify } from "yaml";
import { isObject } from "../../config/pieces";
import { prefixOf } from "./address";
import { AgentSettings, AgentTemplate, agentPod, outlivesMerge, podDefaults } from "./agents";
import { Check, CLOUD, cloudProblems, type Keys } from "./casc-schema";
import { isForeign, readable, said, withoutEqual } from "./documents";
import { scratch } from "../quantity";
import { jenkinsProxy } from "../surroundings";
import { warmAnnotations } from "./init-hook";
import { authorizationStrategy, escapeReferences, Login, Rights, securityRealm } from "./login";
import { agentsPodSecurity } from "./namespaces";

/** What the Jenkins Configuration as Code document is rendered from. */
export interface CascInput {
  /** Address people use, such as https://jenkins.example.com/ */
  url: string;
  /** The address on another host from which files are shown. Default none. */
  resourceUrl?: string;
  /** Namespaces of the controller and of the agents. */
  namespace: string;
  agentsNamespace: string;
  /** Most agent pods at once, over all templates. */
  containerCap: number;
  templates: AgentTemplate[];
  settings: AgentSettings;
  /** Pull secrets of the agents' namespace. Default none. */
  pullSecrets?: string[];
  /** Mirror of https://updates.jenkins.io. */
  updateSite?: string;
  /** Settings of the kubernetes plugin's cloud, as JCasC names them, that replace the platform's; templates and podLabels in it come to the platform's. */
  cloud?: Record<string, unknown>;
  /** The site's own JCasC documents by file name; they may bring their own security realm and authorization strategy. */
  fragments?: Record<string, string>;
  /** Names of the secrets that documents may refer to; undefined where they are not known. */
  secretNames?: string[];
  /** Names of the controller's environment (`controller.env`), and of the Secrets that bring more (`controller.envFrom`). */
  env?: string[];
  envFrom?: string[];
  /** Plugins baked in beyond plugins.txt and what `login` and `rights` need, as name or name:version; undefined where the image may hold any. */
  plugins?: string[];
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

/** Whether a document of the site's own sets this key of `jenkins`. */
const bringsKey = (input: CascInput, key: string): boolean => said(input.fragments, "jenkins", key).length > 0;

/** The pod that all others start from. Where any is spread over the nodes, all are that start from it: the plugin's merge keeps the first word on it. */
export const defaultsPod = ({ settings, templates, pullSecrets }: Pick<CascInput, "settings" | "templates" | "pullSecrets">): Record<string, unknown> => podDefaults(settings, templates.some(({ spread }) => spread), pullSecrets);

function podTemplate(template: AgentTemplate, { settings, templates }: CascInput): object {
  const pod = agentPod(template, settings);
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
    ...(template.minIdle && { annotations: warmAnnotations(template) }),
    showRawYaml: false,
    // The plugin puts it in the place of the pod's volume of this name.
    workspaceVolume: { emptyDirWorkspaceVolume: { memory: false, ...scratch(template.workspaceSize).emptyDir } },
    // What a template says is what a pipeline's pod inherits from it: with `override` the pod's own YAML would replace all of it.
    // Patches of the defaults are for whoever inherits them, so that they alone make no template differ.
    yamlMergeStrategy: outlivesMerge(pod, defaultsPod({ settings: { ...settings, defaultsPatches: [] }, templates })) ? "merge" : "override",
    yaml: escapeReferences(yamlText(pod)),
  };
}

/** Has no cap, times or label of its own: every other template would inherit them. */
function defaultsPodTemplate(input: CascInput): object {
  return {
    id: defaultsTemplate,
    name: defaultsTemplate,
    nodeUsageMode: "EXCLUSIVE",
    yamlMergeStrategy: "merge",
    inheritYamlMergeStrategy: true,
    yaml: escapeReferences(yamlText(defaultsPod(input))),
  };
}

const listOf = (value: unknown): unknown[] => (Array.isArray(value) ? value : []);

/** What is wrong with settings of the site's own for the cloud: what the platform's other parts rely on is not theirs to say. */
export function cloudSettingsProblems({ cloud = {}, templates }: Pick<CascInput, "cloud" | "templates">): { path: string; problem: string }[] {
  const taken = [...templates.map(({ name }) => name), defaultsTemplate];
  const list = (key: string) => listOf(cloud[key]);
  const check = new Check();
  const checked = check.value(cloud as Keys, CLOUD, "") as Keys;
  return [
    ...["name", "namespace", "jenkinsUrl", "serverUrl"].filter((key) => key in cloud).map((path) => ({ path, problem: "is the platform's own to set; take it away" })),
    ...check.findings.map(({ at, problem }) => ({ path: at, problem })),
    ...cloudProblems(checked, "", taken).map((line) => ({ path: line.slice(0, line.indexOf(": ")), problem: line.slice(line.indexOf(": ") + 2) })),
    ...list("templates").flatMap((template, i) => (isObject(template) && taken.includes(template.name as string) ? [{ path: `templates[${i}].name`, problem: `"${String(template.name)}" is the name of a template of the platform's own; rename it` }] : [])),
    ...list("podLabels").flatMap((label, i) => (isObject(label) && label.key === "jenkins" ? [{ path: `podLabels[${i}].key`, problem: "the label jenkins is the platform's own; rename it" }] : [])),
  ];
}

/** The kubernetes plugin's cloud: the platform's settings, and the site's own over them. */
function kubernetesCloud(input: CascInput): object {
  const { templates, podLabels, garbageCollection, ...further } = input.cloud ?? {};
  return {
    name: "kubernetes",
    serverUrl: "https://kubernetes.default",
    namespace: input.agentsNamespace,
    jenkinsUrl: `http://jenkins.${input.namespace}.svc:8080${prefixOf(input.url)}/`,
    jenkinsTunnel: `jenkins-agent.${input.namespace}.svc:50000`,
    webSocket: false,
    containerCapStr: String(input.containerCap),
    maxRequestsPerHostStr: "32",
    connectTimeout: 5,
    readTimeout: 15,
    retentionTimeout: 5,
    waitForPodSec: 600,
    // A namespace that is held to it takes no other pod, and pipelines' own rarely say all that it asks for.
    ...(agentsPodSecurity(input.templates, input.settings.cachePath, input.settings.pods) === "restricted" && { restrictedPssSecurityContext: true }),
    defaultsProviderTemplate: defaultsTemplate,
    ...further,
    podLabels: [{ key: "jenkins", value: "agent" }, ...listOf(podLabels)],
    garbageCollection: { namespaces: input.agentsNamespace, timeout: 300, ...(isObject(garbageCollection) && garbageCollection) },
    templates: [...input.templates.map((template) => podTemplate(template, input)), ...listOf(templates), defaultsPodTemplate(input)],
  };
}

/**
 * Jenkins' whole configuration as a plain object, before it becomes YAML.
 * Secrets are names such as `${admin-password}`, which JCasC resolves from the files below $SECRETS, never from here.
 */
export function cascConfig(input: CascInput): object {
  const foreign = said(input.fragments, "jenkins", "securityRealm").some(isForeign);
  const own: object = {
    jenkins: {
      numExecutors: 0,
      mode: "EXCLUSIVE",
      slaveAgentPort: 50000,
      crumbIssuer: "standard",
      ...jenkinsProxy(input.settings.surroundings),
      ...(!bringsKey(input, "securityRealm") && { securityRealm: securityRealm(input.login) }),
      ...(!bringsKey(input, "authorizationStrategy") && { authorizationStrategy: authorizationStrategy(input.rights, input.login, foreign) }),
      clouds: [{ kubernetes: kubernetesCloud(input) }],
      ...(input.updateSite && !bringsKey(input, "updateCenter") && { updateCenter: { sites: [{ id: "default", url: `${input.updateSite.replace(/\/$/, "")}/update-center.json` }] } }),
    },
    unclassified: { location: { url: input.url }, ...(input.resourceUrl && { resourceRoot: { url: input.resourceUrl } }) },
  };
  return readable(input.fragments).reduce((left, [, document]) => withoutEqual(left, document) as object, own);
}

/** The JCasC document: the value of key `jenkins.yaml` in ConfigMap `jenkins-casc`. */
export function renderCasc(input: CascInput): string {
  return yamlText(cascConfig(input));
}
