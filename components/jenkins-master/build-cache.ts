import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { usual } from "../../config/pieces";
import { keeperScript } from "../image-cache";
import { configMark, type Container, imagesClaim, keptKib, onePod } from "../image-registry";
import { partOf } from "../ownership";
import type { JenkinsMasterArgs } from "./args";
import { agentLabels, type Place } from "./place";
import type { CacheMount, CacheVolume } from "./tool-cache";

/**
 * Gradle's build cache: what tasks made, by a hash of all that went into them, for the agents of all nodes. Gradle's protocol is GET and
 * PUT of a file by its key (https://docs.gradle.org/current/userguide/build_cache.html), which nginx speaks as it is: an entry is
 * written under another name first, so that nobody reads half of one.
 */
export interface BuildCacheArgs {
  /** Image of nginx with its DAV module, a POSIX shell, du, find, stat. */
  image: pulumi.Input<string>;
  /** StorageClass of the claim. */
  storageClassName: pulumi.Input<string>;
  /** Room for the entries, with its unit: those read longest ago go first. */
  size: string;
}

/** Name of the Deployment, the Service, the ConfigMap and the policy, in the agents' namespace. */
export const buildCacheName = "gradle-build-cache";
const port = 8080;
const folder = "/var/cache/gradle-build";
const configFolder = "/etc/gradle-build-cache";
/** Gradle looks for it in its home, a wrapper's as well. */
const initScript = "build-platform-build-cache.gradle";

export const buildCacheLabels = { "app.kubernetes.io/name": buildCacheName, ...partOf };

/** Root address of the cache inside the cluster. */
export const buildCacheAddress = (namespace: string): string => `http://${buildCacheName}.${namespace}.svc:${port}`;

/** nginx that keeps files by key, below a folder for each group, and knows nothing else. */
export const buildCacheConfig = (root = folder, listen = String(port), temporary = "/tmp"): string => `worker_processes 1;
pid ${temporary}/nginx.pid;
error_log stderr warn;
events {}
http {
  access_log off;
  server_tokens off;
  default_type application/octet-stream;
  client_body_temp_path ${root}/.parts;
${["proxy", "fastcgi", "uwsgi", "scgi"].map((each) => `  ${each}_temp_path ${temporary}/${each};\n`).join("")}  # An entry holds all that a task made; Gradle takes 413 for "not kept".
  client_max_body_size 1g;
  server {
    listen ${listen};
    location = / { return 204; }
    location ~ "^/[a-z0-9][a-z0-9-]*/[0-9a-f]{32,64}$" {
      root ${root};
      dav_methods PUT;
      create_full_put_path on;
    }
    location / { return 404; }
  }
}
`;

/**
 * The address is the environment's: empty, it shuts the cache off for a build. So does org.gradle.caching=false, where Gradle itself would
 * read it (the command, Gradle's home, the root project, the first that says anything); that of --no-build-cache Gradle notes nothing
 * which differs from no word at all. A cache that the project has of its own stays.
 */
export const buildCacheInit = `def address = System.getenv('GRADLE_BUILD_CACHE')
def first = gradle
while (first.parent != null) first = first.parent
def start = first.startParameter
def from = start.projectDir ?: start.currentDir
def root = from
while (root != null && !['settings.gradle', 'settings.gradle.kts'].any { new File(root, it).file }) root = root.parentFile
def said = start.systemPropertiesArgs['org.gradle.caching'] ?: [start.gradleUserHomeDir, root ?: from].findResult { folder ->
  def file = new File(folder, 'gradle.properties')
  def properties = new Properties()
  if (file.file) file.withInputStream { properties.load(it) }
  properties.getProperty('org.gradle.caching')
}
if (address && (said == null || said.trim().equalsIgnoreCase('true')) && gradle.startParameter.hasProperty('buildCacheEnabled')) {
  gradle.startParameter.buildCacheEnabled = true
  gradle.settingsEvaluated { settings ->
    if (settings.buildCache.remote == null) settings.buildCache.remote(org.gradle.caching.http.HttpBuildCache) { cache ->
      cache.url = new URI(address)
      cache.push = true
      if (cache.hasProperty('allowInsecureProtocol')) cache.allowInsecureProtocol = true
    }
  }
}
`;

/** Whether the agents of a template ask for it. */
export const keepsGradleBuilds = ({ caches }: { caches: string[] }): boolean => caches.includes("gradle-build");

/** What an agent's pod has of it, in a home of Gradle's that is the pod's own; nothing without gradle-build in its caches. */
export function buildCache(template: { caches: string[]; cacheGroup?: string }, address: string | undefined, gradleHome: string): { env: Record<string, string>; volumes: CacheVolume[]; volumeMounts: CacheMount[] } {
  if (address === undefined || !keepsGradleBuilds(template)) return { env: {}, volumes: [], volumeMounts: [] };
  return {
    env: { GRADLE_USER_HOME: gradleHome, GRADLE_BUILD_CACHE: `${address}/${template.cacheGroup ?? usual.cacheGroup}/` },
    volumes: [{ name: buildCacheName, configMap: { name: buildCacheName } }],
    volumeMounts: [{ name: buildCacheName, mountPath: `${gradleHome}/init.d/${initScript}`, subPath: initScript, readOnly: true }],
  };
}

/** What its keeper may delete, as find is told. */
const buildCacheKeeps = '"$FOLDER" -type f ! -path "$FOLDER/.parts/*"';
/** Parts of entries whose nginx was killed as it wrote them: nobody else deletes them. */
const lostParts = `find "$FOLDER" -path "$FOLDER/.parts/*" -type f -mmin +60 -exec rm -f {} +`;
export const buildCacheKeeper = keeperScript(buildCacheKeeps, lostParts);

const unprivileged = { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } };
const content = { name: "content", mountPath: folder };

const server = (image: pulumi.Input<string>): Container => ({
  name: "nginx",
  image,
  command: ["nginx", "-c", `${configFolder}/nginx.conf`, "-g", "daemon off;"],
  ports: [{ name: "http", containerPort: port }],
  readinessProbe: { httpGet: { path: "/", port }, periodSeconds: 2 },
  livenessProbe: { httpGet: { path: "/", port }, initialDelaySeconds: 10, periodSeconds: 20, timeoutSeconds: 5 },
  resources: { requests: { cpu: "10m", memory: "16Mi" }, limits: { memory: "256Mi" } },
  securityContext: unprivileged,
  volumeMounts: [{ name: "config", mountPath: configFolder, readOnly: true }, content, { name: "tmp", mountPath: "/tmp" }],
});

const keeper = ({ image, size }: BuildCacheArgs): Container => ({
  name: "keeper",
  image,
  command: ["/bin/sh", "-c", buildCacheKeeper],
  env: [{ name: "FOLDER", value: folder }, { name: "MAX_KIB", value: String(keptKib(size)) }, { name: "INTERVAL", value: "60" }],
  resources: { requests: { cpu: "5m", memory: "16Mi" }, limits: { memory: "128Mi" } },
  securityContext: unprivileged,
  volumeMounts: [content],
});

/** Makes the cache, where there is one. */
export function makeBuildCache({ name, parent, there: namespace }: Place, { agents: { buildCache: args }, access: { networkPolicies } }: JenkinsMasterArgs): void {
  if (args === undefined) return;
  const labels = buildCacheLabels;
  const metadata = { name: buildCacheName, namespace, labels };
  const called = `${name}-${buildCacheName}`;
  const data = { "nginx.conf": buildCacheConfig(), [initScript]: buildCacheInit };
  new k8s.core.v1.ConfigMap(`${called}-config`, { metadata, data }, parent);
  const claim = imagesClaim(called, { namespace, labels }, args.storageClassName, args.size, parent);
  const spec = onePod(labels, configMark(data), {
    // The account of agents, for its pull secret: nobody has a token of it.
    serviceAccountName: "jenkins-agent",
    containers: [server(args.image), keeper(args)],
    volumes: [{ name: "config", configMap: { name: buildCacheName } }, { name: "content", persistentVolumeClaim: { claimName: claim.metadata.name } }, { name: "tmp", emptyDir: {} }],
  });
  new k8s.apps.v1.Deployment(`${called}-deployment`, { metadata, spec }, parent);
  new k8s.core.v1.Service(`${called}-service`, { metadata, spec: { selector: labels, ports: [{ name: "http", port, targetPort: "http" }] } }, parent);
  // To that of the namespace, which lets nobody in, comes who may.
  if (networkPolicies ?? true) new k8s.networking.v1.NetworkPolicy(`${called}-policy`, { metadata, spec: { podSelector: { matchLabels: labels }, policyTypes: ["Ingress"], ingress: [{ from: [{ podSelector: { matchLabels: agentLabels } }], ports: [{ port, protocol: "TCP" }] }] } }, parent);
}
