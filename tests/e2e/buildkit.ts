import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { parse } from "yaml";
import { buildTestTool } from "../../sandbox/cluster/binaries";
import { REGISTRY, REPO } from "../../sandbox/paths";
import { run } from "../../sandbox/shell";

/** The reference of BuildKit's image in the sandbox, as Pulumi.sandbox.yaml gives it. */
export const BUILDKIT_IMAGE = (parse(fs.readFileSync(path.join(REPO, "Pulumi.sandbox.yaml"), "utf8")) as { config: Record<string, Record<string, string>> }).config["build-platform:images"].buildkit;

/** Makes sure that the sandbox's registry has the stand-in for BuildKit's rootless image; builds it from its pinned module if need be. */
export async function ensureBuildkitImage(): Promise<string> {
  const [, repository, tag] = /^[^/]+\/(.+):([^:]+)$/.exec(BUILDKIT_IMAGE) ?? [];
  const known = await fetch(`http://${REGISTRY}/v2/${repository}/manifests/${tag}`, { method: "HEAD", headers: { Accept: "application/vnd.oci.image.manifest.v1+json" } });
  if (known.status === 200) return BUILDKIT_IMAGE;
  const context = fs.mkdtempSync(path.join(os.tmpdir(), "buildkit-image-"));
  try {
    const binaries = await buildTestTool("buildkit");
    const fixture = path.join(REPO, "tests/fixtures/buildkit");
    for (const file of fs.readdirSync(fixture)) fs.copyFileSync(path.join(fixture, file), path.join(context, file));
    for (const file of ["buildkitd", "buildctl"]) fs.copyFileSync(path.join(binaries, file), path.join(context, file));
    await run(path.join(REPO, "scripts/images/build-image.sh"), ["--repository", `${REGISTRY}/${repository}`, "--tag", tag, "--context", context, "--dockerfile", "Containerfile", "--arg", `BASE=${REGISTRY}/library/debian:bookworm-slim`, "--insecure"], {
      env: { ...process.env, BUILD_IMAGE_STORAGE: `${context}-storage` },
    });
  } finally {
    fs.rmSync(context, { recursive: true });
    fs.rmSync(`${context}-storage`, { recursive: true, force: true });
  }
  return BUILDKIT_IMAGE;
}
