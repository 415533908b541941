import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { parse } from "yaml";
import { buildTestTool } from "../../sandbox/cluster/binaries";
import { REGISTRY, REPO } from "../../sandbox/paths";
import { run } from "../../sandbox/shell";

const images = (parse(fs.readFileSync(path.join(REPO, "Pulumi.sandbox.yaml"), "utf8")) as { config: Record<string, Record<string, string>> }).config["build-platform:images"];

const key = "traefik";

/** Makes sure that the sandbox's registry has an image of Traefik, which is built from its pinned module if need be. */
export async function ensureTraefikImage(): Promise<string> {
  const reference = images[key];
  const [, repository, tag] = /^[^/]+\/(.+):([^:]+)$/.exec(reference) ?? [];
  const known = await fetch(`http://${REGISTRY}/v2/${repository}/manifests/${tag}`, { method: "HEAD", headers: { Accept: "application/vnd.oci.image.manifest.v1+json" } });
  if (known.status === 200) return reference;
  const context = fs.mkdtempSync(path.join(os.tmpdir(), `${key}-image-`));
  try {
    const binaries = await buildTestTool(key);
    const fixture = path.join(REPO, "tests/fixtures", key);
    for (const file of fs.readdirSync(fixture)) fs.copyFileSync(path.join(fixture, file), path.join(context, file));
    fs.copyFileSync(path.join(binaries, key), path.join(context, key));
    await run(path.join(REPO, "scripts/images/build-image.sh"), ["--repository", `${REGISTRY}/${repository}`, "--tag", tag, "--context", context, "--dockerfile", "Containerfile", "--arg", `BASE=${REGISTRY}/library/debian:bookworm-slim`, "--insecure"], {
      env: { ...process.env, BUILD_IMAGE_STORAGE: `${context}-storage` },
    });
  } finally {
    fs.rmSync(context, { recursive: true });
    fs.rmSync(`${context}-storage`, { recursive: true, force: true });
  }
  return reference;
}
