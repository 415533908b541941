import { spawn } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { prepareImages, type AgentImagesArgs } from "../../components/agent-images";
import { buildTestTool } from "../../sandbox/cluster/binaries";
import { REGISTRY, REPO } from "../../sandbox/paths";
import { run, waitFor } from "../../sandbox/shell";
import { ENV } from "../e2e/sandbox";
import { median, saveBench, seconds, type Bench } from "./table";

/**
 * Building the two agent images from the sandbox's base images with buildah and with BuildKit: cold (no base image on the
 * machine), again with what the machine then has, with one file changed, both at once, and what an unchanged stack pays on
 * `up`. Needs the sandbox.
 */
const script = path.join(REPO, "scripts/images/build-image.sh");
const prefix = `bench-${process.pid}`;

const bases = {
  BASE_IMAGE: `${REGISTRY}/jenkins/inbound-agent:3385.vf1123fb_515da_-1`,
  DOCKER_IMAGE: `${REGISTRY}/library/docker:28.5.1-cli`,
};
const args: Record<string, Record<string, string>> = {
  "maven-dind": { ...bases, MAVEN_IMAGE: `${REGISTRY}/library/maven:3.9.11-eclipse-temurin-21` },
  "gradle-dind": { ...bases, GRADLE_IMAGE: `${REGISTRY}/library/gradle:8.14.3-jdk21`, GRADLE_VERSION: "4.4.1" },
};

async function main(): Promise<void> {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "agent-images-bench-"));
  const binaries = await buildTestTool("buildkit");
  const socket = `unix://${folder}/sock`;
  fs.writeFileSync(path.join(folder, "buildkitd.toml"), `[registry."${REGISTRY}"]\n  http = true\n`);
  let stop = async (): Promise<void> => undefined;
  /** A BuildKit with nothing in its cache. */
  const start = async (): Promise<void> => {
    const daemon = spawn(path.join(binaries, "buildkitd"), ["--config", path.join(folder, "buildkitd.toml"), "--addr", socket, "--root", path.join(folder, "buildkitd")], { stdio: "ignore" });
    const ended = new Promise((resolve) => daemon.once("exit", resolve));
    stop = async () => {
      daemon.kill();
      await ended;
      fs.rmSync(path.join(folder, "buildkitd"), { recursive: true, force: true });
    };
    await waitFor("buildkitd", 60, () => run(path.join(binaries, "buildctl"), ["--addr", socket, "debug", "workers"], { allowFailure: true }).then((r) => r.code === 0));
  };
  const env: Record<string, NodeJS.ProcessEnv> = {
    buildah: { ...ENV },
    buildx: { ...ENV, PATH: `${binaries}:${ENV.PATH}`, BUILDX_CONFIG: path.join(folder, "buildx"), BUILDX_BUILDER: "bench" },
  };
  try {
    await start();
    await run("buildx", ["create", "--name", "bench", "--driver", "remote", socket], { env: env.buildx });

    // Contexts of their own, so that a file can change.
    for (const name of Object.keys(args)) {
      fs.cpSync(path.join(REPO, "images", name), path.join(folder, name), { recursive: true });
      fs.writeFileSync(path.join(folder, name, ".dockerignore"), "*\n!extra.txt\n");
      fs.appendFileSync(path.join(folder, name, "Dockerfile"), "COPY extra.txt /extra.txt\n");
      fs.writeFileSync(path.join(folder, name, "extra.txt"), "0\n");
    }
    let tag = 0;
    const build = (builder: string, name: string, storage: string): Promise<unknown> =>
      run(script, ["--repository", `${REGISTRY}/${prefix}/${name}`, "--tag", `bench-${tag++}`, "--context", path.join(folder, name), "--insecure", "--builder", builder, ...Object.entries(args[name]).flatMap(([key, value]) => ["--arg", `${key}=${value}`])], {
        env: { ...env[builder], BUILD_IMAGE_STORAGE: path.join(folder, storage) },
      });
    const prune = async (builder: string, storage: string): Promise<void> => {
      if (builder === "buildah") {
        await run("umount", ["-l", path.join(folder, storage, "root/overlay")], { allowFailure: true });
        fs.rmSync(path.join(folder, storage), { recursive: true, force: true });
      } else {
        await stop();
        await start();
      }
    };

    const measured: Record<string, number[]> = {};
    let what: string[] = [];
    for (const builder of ["buildah", "buildx"]) {
      const figures: [string, number][] = [];
      const note = async (name: string, work: () => Promise<unknown>): Promise<void> => void figures.push([name, await seconds(work)]);
      await prune(builder, "st");
      await note("maven-dind, cold", () => build(builder, "maven-dind", "st"));
      await prune(builder, "st");
      await note("gradle-dind, cold", () => build(builder, "gradle-dind", "st"));
      await prune(builder, "st");
      await note("both at once, cold", () => Promise.all(Object.keys(args).map((name) => build(builder, name, "st"))));
      figures.push(["maven-dind again, base images at hand", await median(3, () => build(builder, "maven-dind", "st"))]);
      figures.push(["gradle-dind again, base images at hand", await median(3, () => build(builder, "gradle-dind", "st"))]);
      figures.push(["both at once, base images at hand", await median(3, () => Promise.all(Object.keys(args).map((name) => build(builder, name, "st"))))]);
      figures.push([
        "maven-dind, one file changed",
        await median(3, () => {
          fs.writeFileSync(path.join(folder, "maven-dind/extra.txt"), `${tag}\n`);
          return build(builder, "maven-dind", "st");
        }),
      ]);
      what = figures.map(([name]) => name);
      measured[builder] = figures.map(([, value]) => value);
    }
    const rows: Bench["rows"] = what.map((name, i) => ({ what: name, seconds: [measured.buildah[i], measured.buildx[i]] }));

    // What an unchanged stack pays before its resources are compared: hashes, pins and the look into the registry.
    process.chdir(REPO);
    const unchanged = (images: AgentImagesArgs["images"]): AgentImagesArgs => ({ registry: { host: REGISTRY, prefix, insecure: true }, builder: "buildah", images });
    const images = Object.fromEntries(Object.keys(args).map((name) => [name, { context: path.join(folder, name), args: args[name] }]));
    const both = await median(9, () => prepareImages(unchanged(images)));
    const pinned = (await prepareImages(unchanged(images))).images;
    const bothPinned = await median(9, () => prepareImages(unchanged(pinned)));

    const parallel = (row: number, one: number, other: number): string =>
      [0, 1].map((way) => (rows[row].seconds[way] / Math.max(rows[one].seconds[way], rows[other].seconds[way])).toFixed(2)).join(" and ");
    saveBench("agent-images", {
      title: "Building the agent images: buildah beside BuildKit",
      ways: ["buildah", "BuildKit"],
      rows,
      notes: [
        `Both images at once cost, by builder, ${parallel(2, 0, 1)} times the slower one alone when cold, ${parallel(5, 3, 4)} times with the base images at hand; target at most 1.2.`,
        `Nothing changed adds to \`up\`, per image: ${(both / 2).toFixed(3)} s with base images by tag, ${(bothPinned / 2).toFixed(3)} s by digest; target under 0.3 s.`,
      ],
    });
  } finally {
    await stop();
    await run("bash", ["-c", `grep -o ' ${folder}[^ ]*' /proc/mounts | xargs -r umount -l`], { allowFailure: true });
    fs.rmSync(folder, { recursive: true, force: true });
    // The registry's copies go, too.
    await run(path.join(REPO, "scripts/images/clean-images.sh"), ["--registry", `${REGISTRY}/${prefix}`, "--insecure", "--no-cluster", ...Object.keys(args)], { allowFailure: true });
  }
}

main().catch((error: Error) => {
  process.stderr.write(`bench: ${error.message}\n`);
  process.exitCode = 1;
});
