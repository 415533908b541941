import * as k8s from "@pulumi/kubernetes";
import { buildkitConfig, mavenMirrors, type Mirrors } from "../mirrors";
import { labels, type Place } from "./place";

/** How builds on agents find the mirrors: by variables of their tools, and by files of a ConfigMap where a tool has none. */

/** ConfigMap of the agents' namespace with the files. */
export const agentMirrorsName = "agent-mirrors";
/** Maven's settings of the whole machine, below MAVEN_HOME of the image: what a build gives with -s, or has in ~/.m2, comes to them. */
export const mavenSettings = "/usr/share/maven/conf/settings.xml";
/** Name of Gradle's init script, which it looks for in its home and in its own folder. */
const gradleScript = "build-platform-mirrors.gradle";
const buildkitd = "buildkitd.toml";

/** Maven's settings where no proxy has its own, see components/surroundings.ts. */
const settingsXml = (maven: string): string => `<settings xmlns="http://maven.apache.org/SETTINGS/1.2.0">${mavenMirrors(maven)}</settings>\n`;

/** Maven Central, as builds name it. */
export const mavenCentral = "https://repo.maven.apache.org/maven2";

/**
 * Leads repositories of builds to the mirrors wherever a build names them, as soon as it does. Without a repository for plugins Gradle
 * asks its portal: then the mirror is named. From Gradle 6 on a settings file is led before it is read, so that its own plugins come
 * from there as well.
 */
function gradleInit({ maven, gradlePlugins }: Mirrors): string {
  const pairs = [...(maven ? [mavenCentral, "https://repo1.maven.org/maven2"].map((from) => [from, maven]) : []), ...(gradlePlugins ? [["https://plugins.gradle.org/m2", gradlePlugins]] : [])];
  return `def mirrors = [${pairs.map(([from, to]) => `'${from}': '${to}'`).join(", ")}]
def lead = { repositories ->
  repositories.all { repository ->
    def mirror = repository instanceof MavenArtifactRepository ? mirrors[repository.url.toString().replaceAll('/+$', '')] : null
    if (mirror != null) {
      repository.url = new URI(mirror)
      if (mirror.startsWith('http:') && repository.hasProperty('allowInsecureProtocol')) repository.allowInsecureProtocol = true
    }
  }
}
def leadSettings = { settings ->
  lead(settings.pluginManagement.repositories)
  if (settings.hasProperty('dependencyResolutionManagement')) lead(settings.dependencyResolutionManagement.repositories)
}
if (gradle.respondsTo('beforeSettings', Closure)) gradle.beforeSettings(leadSettings) else gradle.settingsEvaluated(leadSettings)
${gradlePlugins ? "gradle.settingsEvaluated { settings -> if (settings.pluginManagement.repositories.empty) settings.pluginManagement.repositories.gradlePluginPortal() }\n" : ""}gradle.allprojects { project ->
  lead(project.buildscript.repositories)
  lead(project.repositories)
}
`;
}

/** The files that agents mount, by key of the ConfigMap. */
export function agentMirrorFiles(mirrors?: Mirrors): Record<string, string> {
  return {
    ...(mirrors?.maven && { "settings.xml": settingsXml(mirrors.maven) }),
    ...((mirrors?.maven ?? mirrors?.gradlePlugins) && { [gradleScript]: gradleInit(mirrors!) }),
    ...(mirrors && Object.keys(mirrors.registries).length > 0 && { [buildkitd]: buildkitConfig(mirrors) }),
  };
}

/** What tools of a build container read from its environment. */
export const mirrorEnv = ({ maven, npm, pip, go }: Partial<Mirrors> = {}): Record<string, string> => ({
  // The wrapper's own Maven knows nothing of the image's settings, but for what it is told here: from 3.9 on.
  ...(maven && { MAVEN_ARGS: `--global-settings ${mavenSettings}`, MVNW_REPOURL: maven.replace(/\/$/, "") }),
  ...(npm && { NPM_CONFIG_REGISTRY: npm }),
  ...(pip && { PIP_INDEX_URL: pip }),
  ...(go && { GOPROXY: go }),
});

/** The volume of a pod with the files, and where its containers have them; nothing where there are none. */
export const mirrorVolume = "mirrors";
const mount = (file: string, mountPath: string) => ({ name: mirrorVolume, mountPath, subPath: file, readOnly: true });

/**
 * Mounts of the build container. A file of the site's own in the place of Maven's settings, or of the folder that holds it, stays.
 * @param gradleHome Gradle's home, where the pod has one of its own; else the script goes to the image's Gradle
 * @param taken where the container's other volumes are
 */
export function mirrorMounts(mirrors: Mirrors | undefined, gradleHome: string | undefined, taken: string[]): ReturnType<typeof mount>[] {
  const files = agentMirrorFiles(mirrors);
  const places: [file: string, place: string][] = [["settings.xml", mavenSettings], [gradleScript, `${gradleHome ?? "/opt/gradle"}/init.d/${gradleScript}`]];
  return places.filter(([file, place]) => file in files && !taken.some((other) => `${place}/`.startsWith(`${other.replace(/\/+$/, "")}/`))).map(([file, place]) => mount(file, place));
}

/** The mount of rootless BuildKit's configuration. */
export const buildkitMounts = (mirrors: Mirrors | undefined): ReturnType<typeof mount>[] => (buildkitd in agentMirrorFiles(mirrors) ? [mount(buildkitd, `/home/user/.config/buildkit/${buildkitd}`)] : []);

/** Makes the ConfigMap with the files, if agents have any. */
export function makeAgentMirrors({ name, parent, there }: Place, mirrors: Mirrors | undefined): void {
  const data = agentMirrorFiles(mirrors);
  if (Object.keys(data).length > 0) new k8s.core.v1.ConfigMap(`${name}-${agentMirrorsName}`, { metadata: { name: agentMirrorsName, namespace: there, labels }, data }, parent);
}
