import { usual } from "../../config/pieces";

/**
 * Caches of download tools that the agents of a group on one node write together, as they lie. Shared is what a tool writes in a way
 * that other processes may meet at any time: under another name first, or under locks of the kernel, and found by its content or its
 * address; a file that is missing is downloaded anew, so that the keeper may delete any one. What beside it is not such (programs that
 * npx installed, wheels that pip built, modules that Go unpacked) lies in a volume of the agent's own, in which the shared folders are
 * mounted. tests/campaign/tool-caches.test.ts tries each with the real tool. docs/pipelines.md says what a hostile build can do.
 *
 * Ivy has none: by default it locks nothing, and half written files are taken for whole ones.
 */
const tools = {
  // cacache: content by hash, an index of lines with a hash of each. _npx beside it holds programs, which nobody verifies.
  npm: { own: ["npm"], shared: ["npm/_cacache"], env: { NPM_CONFIG_CACHE: "npm" } },
  // The store: files by hash, written under another name first, and an index of packages, from pnpm 11 on SQLite's. On another mount than the workspace they are copied out, never linked.
  pnpm: { own: [], shared: ["pnpm"], env: { npm_config_store_dir: "pnpm", pnpm_config_store_dir: "pnpm" } },
  // Answers by address, written under another name first. pip before 23.3 has them in `http`, and runs what lies there (pickle); wheels
  // that pip builds are moved to `wheels` from another disk, in place.
  pip: { own: ["pip"], shared: ["pip/http-v2"], env: { PIP_CACHE_DIR: "pip" } },
  // Of modules what was downloaded, under Go's own locks of files: an unpacked module is never looked at again, whatever is missing in it.
  go: { own: ["go/mod", "go/mod/cache"], shared: ["go/mod/cache/download", "go/build"], env: { GOMODCACHE: "go/mod", GOCACHE: "go/build" } },
  // coursier's cache, with its locks; sbt from 1.3 on, Mill, Scala CLI.
  sbt: { own: [], shared: ["coursier"], env: { COURSIER_CACHE: "coursier" } },
  // The controller's jars that Jenkins' own program in the agent (remoting) loads classes from: files by SHA-256, written under another
  // name first, compared as they arrive and not again when they are taken. An agent's start is what it is for, so nothing waits for the
  // folder but the kubelet, until the keeper has made it: in one that is root's, remoting would not start at all.
  remoting: { own: [], shared: ["remoting"], env: { REMOTING_OPTS: "remoting" } },
} satisfies Record<string, { own: string[]; shared: string[]; env: Record<string, string> }>;

/** What stands before the folder in a variable. The plugin's own word on reconnecting is repeated, as a container's variable replaces it: agents whose controller is gone would try for ever. */
const before: Record<string, string> = { REMOTING_OPTS: "-noReconnectAfter 1d -jar-cache " };

/** Tools whose caches are shared as they lie. */
export type DownloadTool = keyof typeof tools;

export const downloadTools = Object.keys(tools) as DownloadTool[];

const isDownloadTool = (tool: string): tool is DownloadTool => tool in tools;

/** Folder of such caches below the caches' own, on a node. */
const folder = (group: string, shared: string): string => `tools/${group}/${shared}`;

/** A volume of an agent's pod, of the node or of its own. */
export interface CacheVolume {
  name: string;
  hostPath?: { path: string; type: string };
  configMap?: object;
}
export interface CacheMount {
  name: string;
  mountPath: string;
  subPath?: string;
  readOnly?: boolean;
}

interface Cached {
  caches: string[];
  cacheGroup?: string;
}

/** Folders that the keeper makes on each node for the templates, below the caches' own. */
export const toolFolders = (templates: Cached[]): string[] => [...new Set(templates.flatMap(({ caches, cacheGroup = usual.cacheGroup }) => caches.filter(isDownloadTool).flatMap((tool) => tools[tool].shared.map((shared) => folder(cacheGroup, shared)))))].sort();

/**
 * Flags with which Java keeps the classes of the agent's own JVM, read and checked, in an archive beside those jars (class-data sharing):
 * the first agent of a template that ends makes it, and so does one whose Java is another. Java passes over one that does not fit, and
 * by VerifySharedSpaces over a damaged one, with which it would crash; a Java before 19 passes over the flags. Nothing of it in the log.
 */
export const archiveFlags = (mount: string, template: string): string[] => [
  "-XX:+IgnoreUnrecognizedVMOptions", "-XX:+AutoCreateSharedArchive", "-XX:+VerifySharedSpaces", `-XX:SharedArchiveFile=${mount}/remoting/${template}.jsa`, "-Xlog:disable", "-Xlog:all=error:stderr",
];

/** Where the caches of a tool lie in an agent, below `mount`. */
export const toolMountPaths = (mount: string): string[] => Object.values(tools).flatMap(({ own, shared }) => [...own, ...shared].map((place) => `${mount}/${place}`));

/**
 * What an agent's pod has of its tools' caches.
 * @param mount where the caches appear in agents
 * @param path where they lie on the nodes
 * @param own source of the volume for what is not shared
 */
export function toolCaches({ caches, cacheGroup = usual.cacheGroup }: Cached, mount: string, path: string, own: object): { env: Record<string, string>; volumes: CacheVolume[]; volumeMounts: CacheMount[] } {
  const used = caches.filter(isDownloadTool).map((tool) => tools[tool]);
  const volume = (shared: string) => `cache-${shared.replace(/[^a-z0-9]+/g, "-")}`;
  const owned = used.flatMap((tool) => tool.own as string[]);
  const all = used.flatMap(({ shared }) => shared);
  return {
    env: Object.fromEntries(used.flatMap(({ env }) => Object.entries(env).map(([name, place]) => [name, `${before[name] ?? ""}${mount}/${place}`]))),
    volumes: [
      ...(owned.length > 0 ? [{ name: "caches-own", ...own }] : []),
      ...all.map((shared) => ({ name: volume(shared), hostPath: { path: `${path}/${folder(cacheGroup, shared)}`, type: shared === "remoting" ? "Directory" : "DirectoryOrCreate" } })),
    ],
    volumeMounts: [
      ...owned.map((place) => ({ name: "caches-own", mountPath: `${mount}/${place}`, subPath: place.replaceAll("/", "-") })),
      ...all.map((shared) => ({ name: volume(shared), mountPath: `${mount}/${shared}` })),
    ],
  };
}
