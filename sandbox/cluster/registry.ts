import * as fs from "node:fs";
import * as path from "node:path";
import { serverOf } from "../../components/mirrors";
import { BUILDKITD_CONFIG, MIRRORED, REGISTRY, STATE } from "../paths";
import { startDetached, waitFor } from "../shell";

const FOLDER = path.join(STATE, "registry");
const CONFIG = path.join(FOLDER, "config.yml");

/** Process ids of the sandbox's registry, found by its configuration file. */
function registryProcesses(): number[] {
  return fs.readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map(Number).filter((pid) => {
    try {
      const argv = fs.readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
      return path.basename(argv[0]) === "registry" && argv.includes(CONFIG);
    } catch {
      return false; // ended meanwhile
    }
  });
}

/** containerd's hosts.toml for an upstream registry: content is taken from the sandbox's, by digest alone; what a tag stands for is the upstream registry's own to say. */
export const mirrorHosts = (upstream: string): string => `server = "https://${serverOf(upstream)}"\n[host."http://${REGISTRY}"]\n  capabilities = ["pull"]\n`;

/** What BuildKit is told of it: plain HTTP, and the copies that it has of base images, which builds name by digest. */
export const buildkitdConfig = (): string => [`[registry."${REGISTRY}"]\n  http = true\n`, ...MIRRORED.map((upstream) => `[registry."${upstream}"]\n  mirrors = ["${REGISTRY}"]\n`)].join("");

/** Whether the registry answers. */
export async function registryAnswers(): Promise<boolean> {
  return fetch(`http://${REGISTRY}/v2/`, { signal: AbortSignal.timeout(2000) }).then((answer) => answer.ok, () => false);
}

/** Starts the local registry, open to the sandbox's network only, from the folder of its program. */
export async function startRegistry(binaries: string): Promise<void> {
  fs.writeFileSync(BUILDKITD_CONFIG, buildkitdConfig());
  if (registryProcesses().length > 0 && (await registryAnswers())) return;
  await stopRegistry();
  fs.mkdirSync(path.join(FOLDER, "data"), { recursive: true });
  fs.writeFileSync(CONFIG, [
    "version: 0.1",
    "log: {level: warn, accesslog: {disabled: true}}",
    "storage:",
    `  filesystem: {rootdirectory: ${path.join(FOLDER, "data")}}`,
    "  delete: {enabled: true}",
    `http: {addr: "${REGISTRY}"}`,
    "",
  ].join("\n"));
  startDetached("registry", path.join(binaries, "registry"), ["serve", CONFIG]);
  await waitFor(`the registry on ${REGISTRY} (see ${STATE}/logs/registry.log)`, 15, registryAnswers);
}

/** Ends the registry; its images stay until the state folder goes. */
export async function stopRegistry(): Promise<void> {
  registryProcesses().forEach((pid) => process.kill(pid, "SIGTERM"));
  await waitFor("the registry to end", 15, async () => registryProcesses().length === 0);
}
