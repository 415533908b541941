/** Has the CLI install Pulumi's official plugins; what it cannot get is left to the stand-ins. */
import * as fs from "node:fs";
import * as path from "node:path";
import { dependencies } from "../../package.json";
import { pinnedVersion } from "../cluster/binaries";
import { lastWords, type Origin } from "../images/upstream";
import { PLUGINS as OFFLINE } from "../paths";
import { run } from "../shell";
import { PLUGINS } from "./bundle";

/** Kind, name and version of each plugin as `pulumi plugin install` takes them, by the name of its executable. */
const installed: Record<string, [kind: string, name: string, version: string]> = {
  "pulumi-language-nodejs": ["language", "nodejs", pinnedVersion("pulumi", "github.com/pulumi/pulumi/pkg/v3").slice(1)],
  "pulumi-resource-command": ["resource", "command", dependencies["@pulumi/command"]],
  "pulumi-resource-kubernetes": ["resource", "kubernetes", dependencies["@pulumi/kubernetes"]],
};

/** Where Pulumi's releases are; PULUMI_RELEASES names a mirror of them. */
const releases = process.env.PULUMI_RELEASES ?? "https://get.pulumi.com/releases/sdk";

/** Puts a plugin where the engine looks for it. The CLI installs no language host: Node.js' comes in the archive of the release. */
async function install(pulumi: string, env: NodeJS.ProcessEnv, executable: string, folder: string): Promise<void> {
  const [kind, plugin, version] = installed[executable];
  if (kind !== "language") return void (await run(pulumi, ["plugin", "install", kind, plugin, version], { env }));
  const part = `${folder}.part`;
  fs.rmSync(part, { recursive: true, force: true });
  fs.mkdirSync(part);
  await run("curl", ["-sSfL", "--connect-timeout", "20", "--retry", "2", "-o", `${part}/release.tar.gz`, `${releases}/pulumi-v${version}-linux-${process.arch}.tar.gz`]);
  await run("tar", ["-xzf", `${part}/release.tar.gz`, "-C", part, "--strip-components", "1", `pulumi/${executable}`]);
  fs.rmSync(`${part}/release.tar.gz`);
  fs.renameSync(part, folder);
}

/** Whether a program is on this PATH. The stand-ins' folder, which `sandbox env` puts there, does not count. */
export const onPath = (program: string, search: string, standIns = OFFLINE): boolean => search.split(path.delimiter).some((folder) => folder !== "" && path.resolve(folder) !== standIns && fs.existsSync(path.join(folder, program)));

/**
 * Installs what is not on the caller's PATH already, into a cache that survives the sandbox.
 * @param home PULUMI_HOME of the sandbox; @param pulumi the CLI
 * @returns where each plugin comes from; those without `why` need no stand-in
 */
export async function installOfficial(pulumi: string, home: string, cache: string): Promise<Origin[]> {
  fs.mkdirSync(cache, { recursive: true });
  fs.mkdirSync(home, { recursive: true, mode: 0o700 });
  const plugins = path.join(home, "plugins");
  if (!fs.existsSync(plugins)) fs.symlinkSync(cache, plugins);
  const env = { ...process.env, PULUMI_HOME: home, PULUMI_SKIP_UPDATE_CHECK: "1" };
  const origins: Origin[] = [];
  for (const { name, official } of PLUGINS) {
    const [kind, plugin, version] = installed[name];
    const folder = path.join(cache, `${kind}-${plugin}-v${version}`);
    const there = onPath(name, process.env.PATH ?? "") || fs.existsSync(folder);
    const why = there ? undefined : await install(pulumi, env, name, folder).then(() => undefined, lastWords);
    origins.push({ part: name, upstream: `${official} ${version}`, ...(why !== undefined && { why }) });
  }
  return origins;
}
