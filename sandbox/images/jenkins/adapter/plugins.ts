/** Which plugins the sandbox's update site would have, and what the real Jenkins says of those that it cannot load. */
import * as fs from "node:fs";
import * as path from "node:path";
import { contracts } from "../../../../components/jenkins-master/contracts";
import { optionalPlugins, rootPlugins, symbolPlugins } from "../../../../components/jenkins-master/plugins";

/** A made-up plugin for tests: it asks for a core that is not out yet. */
const needNewerCore: Record<string, string> = { "sandbox-newer-core": "2.9999" };

/** Widespread plugins that bring neither roots nor symbols. */
const others = ["ansible", "blueocean", "build-timeout", "copyartifact", "docker-workflow", "git-parameter", "http_request", "matrix-project", "pipeline-rest-api", "pipeline-stage-view", "pipeline-utility-steps", "rebuild", "ssh-agent", "ws-cleanup"];

/**
 * What jenkins-plugin-cli's stand-in takes, a plugin a line: name, version ("*" for any), and the core it asks for ("-" for any).
 * @param pins texts of files with name:version lines
 */
export function knownPlugins(pins: string[]): string {
  const pinned = pins.flatMap((text) => text.split("\n")).map((line) => line.replace(/#.*/, "").trim()).filter(Boolean).map((line) => line.split(":"));
  const versions = [...Object.entries(contracts.plugins), ...pinned].map(([name, version]) => [name, version ?? "*", "-"]);
  const named = new Set(versions.map(([name]) => name));
  const any = [...Object.values(rootPlugins), ...Object.values(symbolPlugins).flatMap((table) => Object.values(table)), ...others].filter((name) => name !== "core" && !named.has(name));
  const lines = [...versions, ...[...new Set(any)].map((name) => [name, "*", "-"]), ...Object.entries(needNewerCore).map(([name, core]) => [name, "*", core])];
  return [...new Set(lines.map((line) => line.join(" ")))].sort().join("\n") + "\n";
}

/** The plugins that jenkins-plugin-cli recorded in a folder, as name and version. */
export function recorded(folder: string): [name: string, version: string][] {
  const file = path.join(folder, "plugins.recorded");
  if (!fs.existsSync(file)) return [];
  return fs.readFileSync(file, "utf8").split("\n").filter(Boolean).map((line) => [line.split(":")[0], line.split(":")[1] ?? ""]);
}

/** What Jenkins' log says of the plugins that it cannot load. */
export function pluginsThatFail(plugins: [string, string][]): string[] {
  return plugins.flatMap(([name, version]) => (name in needNewerCore ? [`Failed Loading plugin ${name} v${version} (${name})\njava.io.IOException: Failed to load: ${name} (${name} ${version})\n - Jenkins (${needNewerCore[name]}) or higher required`] : []));
}

/** Hudson runs no pipelines: their plugins are installed, and not active. */
const canRun = (name: string) => !/^(workflow|pipeline)-/.test(name);

/** The plugins that are loaded, as Jenkins' API lists them: those recorded in the image and what they need. */
export function loaded(plugins: [string, string][]): { shortName: string; version: string; active: boolean; enabled: boolean }[] {
  const needed = Object.entries(contracts.plugins).filter(([name]) => !optionalPlugins.includes(name));
  const all = new Map([...needed, ...plugins].filter(([name]) => !(name in needNewerCore)));
  return [...all].sort(([a], [b]) => (a < b ? -1 : 1)).map(([shortName, version]) => ({ shortName, version, active: canRun(shortName), enabled: true }));
}
