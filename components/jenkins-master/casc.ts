import { stringify } from "yaml";
import { AgentSettings, AgentTemplate, agentPod } from "./agents";

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
  /** Sender address of Jenkins' mail, if any. */
  adminAddress?: string;
}

/** JCasC reads `${name}` as a reference; a caret makes it literal text. */
function escapeReferences(text: string): string {
  return text.replace(/\$\{/g, "^${");
}

function podTemplate(template: AgentTemplate, settings: AgentSettings): object {
  return {
    name: template.name,
    label: template.label,
    nodeUsageMode: "EXCLUSIVE",
    serviceAccount: "jenkins-agent",
    instanceCap: template.cap,
    idleMinutes: template.idleMinutes,
    slaveConnectTimeout: template.connectTimeoutSeconds,
    ...(template.activeDeadlineSeconds > 0 && { activeDeadlineSeconds: template.activeDeadlineSeconds }),
    podRetention: template.podRetention,
    showRawYaml: false,
    workspaceVolume: { emptyDirWorkspaceVolume: { memory: false } },
    yamlMergeStrategy: "override",
    yaml: escapeReferences(stringify(agentPod(template, settings), { lineWidth: 0 })),
  };
}

/**
 * Jenkins' whole configuration as a plain object, before it becomes YAML.
 * `${admin-user}` and `${admin-password}` are resolved by JCasC from the files below $SECRETS, never from here.
 */
export function cascConfig(input: CascInput): object {
  return {
    jenkins: {
      numExecutors: 0,
      mode: "EXCLUSIVE",
      slaveAgentPort: 50000,
      crumbIssuer: { standard: { excludeClientIPFromCrumb: true } },
      securityRealm: {
        local: {
          allowsSignup: false,
          enableCaptcha: false,
          users: [{ id: "${admin-user}", name: "Administrator", password: "${admin-password}" }],
        },
      },
      authorizationStrategy: { loggedInUsersCanDoAnything: { allowAnonymousRead: false } },
      clouds: [
        {
          kubernetes: {
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
            podLabels: [{ key: "jenkins", value: "agent" }],
            garbageCollection: { namespaces: input.agentsNamespace, timeout: 300 },
            templates: input.templates.map((t) => podTemplate(t, input.settings)),
          },
        },
      ],
    },
    unclassified: {
      location: { url: input.url, ...(input.adminAddress && { adminAddress: input.adminAddress }) },
    },
  };
}

/** The JCasC document: the value of key `jenkins.yaml` in ConfigMap `jenkins-casc`. */
export function renderCasc(input: CascInput): string {
  return stringify(cascConfig(input), { lineWidth: 0 });
}
