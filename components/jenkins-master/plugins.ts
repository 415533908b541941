/** Which plugin brings what a document holds: so that a missing one can be named. */
import { contracts, type Contracts } from "./contracts";

/** Plugins of optional-plugins.txt: baked in where login, rights or monitoring ask for them. */
export const optionalPlugins = ["ldap", "matrix-auth", "oic-auth", "prometheus"];

/** Roots of documents that widespread plugins bring. */
export const rootPlugins: Record<string, string> = {
  aws: "aws-credentials", groovy: "configuration-as-code-groovy", jobs: "job-dsl",
  support: "support-core",
};

/** Symbols that widespread plugins bring, by where they stand: a root or a class of the recording. */
export const symbolPlugins: Record<string, Record<string, string>> = {
  unclassified: {
    ansiColorBuildWrapper: "ansicolor", artifactoryBuilder: "artifactory", "audit-trail": "audit-trail", awsCredentialsProvider: "aws-secrets-manager-credentials-provider",
    badgePlugin: "badge", bitbucketEndpointConfiguration: "cloudbees-bitbucket-branch-source", buildTimestamp: "build-timestamp", casCGlobalConfig: "configuration-as-code",
    datadogGlobalConfiguration: "datadog", "email-ext": "email-ext", extendedEmailPublisher: "email-ext", gerrittrigger: "gerrit-trigger", ghprbTrigger: "ghprb",
    gitHubConfiguration: "github-branch-source", gitHubPluginConfig: "github", gitLabConnectionConfig: "gitlab-plugin", gitLabServers: "gitlab-branch-source", gitSCM: "git", giteaServers: "gitea",
    globalConfigFiles: "config-file-provider", globalDefaultFlowDurabilityLevel: "workflow-api", globalLibraries: "pipeline-groovy-lib", hashicorpVault: "hashicorp-vault-plugin", jacocoGlobal: "jacoco",
    jiraGlobalConfiguration: "jira", junitTestResultStorage: "junit", lockableResourcesManager: "lockable-resources", mailer: "mailer", mattermostNotifier: "mattermost", metricsAccessKey: "metrics",
    office365ConnectorWebhook: "Office-365-Connector", pipelineStepsAWS: "pipeline-aws", prometheusConfiguration: "prometheus",
    rocketChatNotifier: "rocketchatnotifier", scriptApproval: "script-security", sentryConfiguration: "sentry", simpleThemeDecorator: "simple-theme-plugin",
    slackNotifier: "slack", sonarGlobalConfiguration: "sonar", sonarqube: "sonar", throttleJobProperty: "throttle-concurrents", timestamper: "timestamper", timestamperConfig: "timestamper",
  },
  appearance: { consoleUrlProvider: "core", customizableHeader: "customizable-header", darkTheme: "dark-theme", pipelineGraphView: "pipeline-graph-view", prism: "prism-api", simpleTheme: "simple-theme-plugin", themeManager: "theme-manager" },
  security: { globalJobDslSecurityConfiguration: "job-dsl", gitHooks: "git", gitHostKeyVerificationConfiguration: "git-client", scriptApproval: "script-security", sSHD: "sshd" },
  tool: { allure: "allure-jenkins-plugin", ant: "ant", dockerTool: "docker-commons", git: "git-client", go: "golang", gradle: "gradle", jdk: "core", maven: "core", mavenGlobalConfig: "core", nodejs: "nodejs", sbt: "sbt", sonarRunnerInstallation: "sonar", terraform: "terraform" },
  "hudson.security.AuthorizationStrategy": { globalMatrix: "matrix-auth", projectMatrix: "matrix-auth", roleBased: "role-strategy", roleStrategy: "role-strategy", azureAdMatrix: "azure-ad", github: "github-oauth" },
  "hudson.security.SecurityRealm": { activeDirectory: "active-directory", azure: "azure-ad", cas: "cas-plugin", crowd: "crowd2", github: "github-oauth", gitlab: "gitlab-oauth", googleOAuth2: "google-login", keycloak: "keycloak", ldap: "ldap", oic: "oic-auth", pam: "pam-auth", reverseProxy: "reverse-proxy-auth-plugin", saml: "saml" },
  "hudson.slaves.Cloud": { amazonEC2: "ec2", azureVM: "azure-vm-agents", docker: "docker-plugin", eC2Fleet: "ec2-fleet", ec2Fleet: "ec2-fleet", ecs: "amazon-ecs", googleComputeEngine: "google-compute-engine", nomad: "nomad", openstack: "openstack-cloud", vSphere: "vsphere-cloud" },
  "com.cloudbees.plugins.credentials.Credentials": {
    aws: "aws-credentials", azure: "azure-credentials", dockerServerCredentials: "docker-commons", gitHubApp: "github-branch-source", githubApp: "github-branch-source", gitLabApiTokenImpl: "gitlab-plugin",
    gitlabPersonalAccessToken: "gitlab-branch-source", gitlabToken: "gitlab-branch-source", giteaAccessToken: "gitea", googleRobotPrivateKey: "google-oauth-plugin", openstack: "openstack-cloud", vaultAppRoleCredential: "hashicorp-vault-plugin", vaultString: "hashicorp-vault-plugin", vaultTokenCredential: "hashicorp-vault-plugin", x509ClientCert: "docker-commons",
  },
  "hudson.markup.MarkupFormatter": { rawHtml: "antisamy-markup-formatter" },
  "hudson.slaves.ComputerLauncher": { ssh: "ssh-slaves", sSHLauncher: "ssh-slaves", command: "command-launcher" },
  "hudson.model.View": { buildMonitor: "build-monitor-plugin", categorizedJobs: "categorized-view", nested: "nested-view", sectioned: "sectioned-view" },
};

/** Symbols of Jenkins itself below these roots, which no plugin brings. */
const coreSymbols: Record<string, string[]> = {
  unclassified: [
    "administrativeMonitorsConfiguration", "artifactManager", "buildDiscarders", "buildStepOperation", "cloudGlobalConfig", "defaultFolderConfiguration", "defaultView", "enrichedSummaryConfig", "envVarsFilter",
    "fingerprints", "globalComputerRetentionCheckInterval", "location", "masterBuild", "mavenGlobalConfig", "myView", "nodeProperties", "plugin", "pollSCM", "projectNamingStrategy", "quietPeriod", "resourceRoot",
    "scmGit", "scmRetryCount", "shell", "usageStatistics", "viewsTabBar",
  ],
  security: ["apiToken", "contentSecurityPolicy", "copyartifact", "csp", "crumb", "downloadSettings", "queueItemAuthenticator", "remotingCLI", "updateSiteWarningsConfiguration"],
};

/** A plugin's name, of name or name:version. */
const nameOf = (line: string): string => line.split(":")[0];

/** Names of the plugins in the controller image: those of plugins.txt with what they need, and further ones. */
export function bakedPlugins(further: string[]): Set<string> {
  return new Set([...Object.keys(contracts.plugins).filter((name) => !optionalPlugins.includes(name)), ...further.map(nameOf)]);
}

/** Whether further plugins may bring along others that nobody here knows of: those of optional-plugins.txt are recorded with what they need. */
export const bringsUnknown = (further: string[]): boolean => further.some((line) => !optionalPlugins.includes(nameOf(line)));

/** The plugin that brings a root (`owner` "") or a symbol; "core" where Jenkins itself does, undefined where nobody knows. */
export function pluginOf(owner: string, name: string): string | undefined {
  const table = owner === "" ? rootPlugins : (symbolPlugins[owner] ?? {});
  const found = Object.keys(table).find((each) => each.toLowerCase() === name.toLowerCase());
  if (found !== undefined) return table[found];
  return coreSymbols[owner]?.some((each) => each.toLowerCase() === name.toLowerCase()) ? "core" : undefined;
}

/** The recording as it would be with these plugins alone: without the symbols that others bring. */
export function recordingFor(baked: Set<string>, of: Contracts = contracts): Contracts {
  const left = (owner: string, entries: Record<string, string>) =>
    Object.fromEntries(Object.entries(entries).filter(([name]) => {
      const plugin = pluginOf(owner, name);
      return plugin === undefined || plugin === "core" || baked.has(plugin);
    }));
  const each = <T>(entries: Record<string, T>, change: (owner: string, value: T) => T) => Object.fromEntries(Object.entries(entries).map(([owner, value]) => [owner, change(owner, value)]));
  return { ...of, roots: each(of.roots, (root, value) => (typeof value === "string" ? value : left(root, value))), symbols: each(of.symbols, left) };
}
