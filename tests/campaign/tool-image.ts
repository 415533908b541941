import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { buildTestTool, type TestTool } from "../../sandbox/cluster/binaries";
import { REGISTRY, REPO } from "../../sandbox/paths";
import { run } from "../../sandbox/shell";

/** Makes sure that the sandbox's registry has `reference`: the programs of a test tool, built from its pinned module if need be, in the image that tests/fixtures/TOOL describes. */
export async function ensureToolImage(tool: TestTool, reference: string): Promise<string> {
  const [, repository, tag] = /^[^/]+\/(.+):([^:]+)$/.exec(reference) ?? [];
  const known = await fetch(`http://${REGISTRY}/v2/${repository}/manifests/${tag}`, { method: "HEAD", headers: { Accept: "application/vnd.oci.image.manifest.v1+json" } });
  if (known.status === 200) return reference;
  const context = fs.mkdtempSync(path.join(os.tmpdir(), `${tool}-image-`));
  try {
    for (const folder of [path.join(REPO, "tests/fixtures", tool), await buildTestTool(tool)])
      for (const file of fs.readdirSync(folder)) fs.copyFileSync(path.join(folder, file), path.join(context, file));
    await run(path.join(REPO, "scripts/images/build-image.sh"), ["--repository", `${REGISTRY}/${repository}`, "--tag", tag, "--context", context, "--dockerfile", "Containerfile", "--arg", `BASE=${REGISTRY}/library/debian:bookworm-slim`, "--insecure"], {
      env: { ...process.env, BUILD_IMAGE_STORAGE: `${context}-storage` },
    });
  } finally {
    fs.rmSync(context, { recursive: true });
    fs.rmSync(`${context}-storage`, { recursive: true, force: true });
  }
  return reference;
}
