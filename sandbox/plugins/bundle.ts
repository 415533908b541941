// Bundles the sandbox's stand-ins for the official Pulumi plugins into executables that the engine finds on PATH.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { build } from "esbuild";

/** Name of each executable, its source, and what it stands in for. */
export const PLUGINS = [
  { name: "pulumi-language-nodejs", source: "language-nodejs", official: "Pulumi's Node.js language host" },
  { name: "pulumi-resource-command", source: "command", official: "Pulumi's Command provider" },
  { name: "pulumi-resource-kubernetes", source: "kubernetes", official: "Pulumi's Kubernetes provider" },
];

/** A hash of everything that decides what the bundles look like. */
function inputHash(wanted: typeof PLUGINS): string {
  const hash = createHash("sha256").update(wanted.map(({ name }) => name).join());
  const sources = readdirSync(__dirname).filter((name) => name.endsWith(".ts")).sort().map((name) => join(__dirname, name));
  for (const file of [...sources, join(__dirname, "../../package-lock.json")]) hash.update(file).update(readFileSync(file));
  return hash.digest("hex");
}

/**
 * Writes the plugins, but for those whose official ones are there (by name), into the folder and returns their paths. Bundles whose
 * sources and dependencies have not changed since the last call are left as they are.
 */
export async function bundlePlugins(outDir: string, official: string[] = []): Promise<string[]> {
  const stamp = join(outDir, ".inputs");
  const wanted = PLUGINS.filter(({ name }) => !official.includes(name));
  const files = wanted.map(({ name }) => join(outDir, name));
  const inputs = inputHash(wanted);
  for (const name of official) rmSync(join(outDir, name), { force: true });
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === inputs && files.every(existsSync)) return files;
  mkdirSync(outDir, { recursive: true });
  for (const { name, source, official } of wanted) {
    const result = await build({
      stdin: { contents: `import { main } from "./${source}"; void main();`, resolveDir: __dirname, loader: "ts" },
      banner: { js: `#!/usr/bin/env node\n// Stand-in for ${official}, made from sandbox/plugins/${source}.ts: sandbox only.` },
      bundle: true,
      minify: true,
      keepNames: true,
      platform: "node",
      target: "node20",
      format: "cjs",
      write: false,
      logLevel: "error",
      // Optional native helpers of ssh2, which works without them.
      external: ["cpu-features", "*.node"],
      plugins: [{
        name: "thin-kubernetes-client",
        // Of the client library only the kubeconfig reader is used; its generated API classes are left out.
        setup: ({ onResolve, onLoad }) => {
          onResolve({ filter: /^\.\/gen\/index\.js$/ }, ({ importer }) => (/client-node/.test(dirname(importer)) ? { path: "gen", namespace: "empty" } : undefined));
          onLoad({ filter: /.*/, namespace: "empty" }, () => ({ contents: "export const createConfiguration = undefined, ServerConfiguration = undefined;" }));
        },
      }],
    });
    // Written whole and then renamed: an engine that runs meanwhile sees the old or the new plugin.
    const file = join(outDir, name);
    writeFileSync(`${file}.new`, result.outputFiles[0].contents, { mode: 0o755 });
    renameSync(`${file}.new`, file);
  }
  writeFileSync(stamp, inputs);
  return files;
}
