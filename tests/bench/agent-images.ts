import { spawn } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { prepareImages, type AgentImagesArgs } from "../../components/agent-images";
import { buildTestTool } from "../../sandbox/cluster/binaries";
import { REGISTRY, REPO } from "../../sandbox/paths";
import { run, waitFor } from "../../sandbox/shell";
import { ENV } from "../e2e/sandbox";

/**
 * Building the two agent images from the sandbox's base images with buildah and with BuildKit: cold (no base image on the
 * machine), again with what the machine then has, with one file changed, both at once, and what an unchanged stack pays on
 * `up`. Prints a table and saves tests/bench/results/agent-images.json. Needs the sandbox.
 */
const script = path.join(REPO, "scripts/build-image.sh");
const prefix = `bench-${process.pid}`;

const seconds = async (work: () => Promise<unknown>): Promise<number> => {
  const started = process.hrtime.bigint();
  await work();
  return Number(process.hrtime.bigint() - started) / 1e9;
};

async function median(count: number, work: () => Promise<unknown>): Promise<number> {
  const runs: number[] = [];
  for (let i = 0; i < count; i++) runs.push(await seconds(work));
  return runs.sort((a, b) => a - b)[Math.floor(count / 2)];
}

const bases = {
  BASE_IMAGE: `${REGISTRY}/jenkins/inbound-agent:3385.vf1123fb_515da_-1`,
  DOCKER_IMAGE: `${REGISTRY}/library/docker:28.5.1-cli`,
};
const args: Record<string, Record<string, string>> = {
  "maven-dind": { ...bases, MAVEN_IMAGE: `${REGISTRY}/library/maven:3.9.11-eclipse-temurin-21` },
  "gradle-dind": { ...bases, GRADLE_IMAGE: `${REGISTRY}/library/gradle:8.14.3-jdk21`, GRADLE_VERSION: "4.4.1" },
};

interface Row {
  what: string;
  buildah: number;
  buildkit: number;
}

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
    const rows: Row[] = what.map((name, i) => ({ what: name, buildah: measured.buildah[i], buildkit: measured.buildx[i] }));

    // What an unchanged stack pays before its resources are compared: hashes, pins and the look into the registry.
    process.chdir(REPO);
    const unchanged = (images: AgentImagesArgs["images"]): AgentImagesArgs => ({ registry: { host: REGISTRY, prefix, insecure: true }, builder: "buildah", images });
    const images = Object.fromEntries(Object.keys(args).map((name) => [name, { context: path.join(folder, name), args: args[name] }]));
    const both = await median(9, () => prepareImages(unchanged(images)));
    const pinned = (await prepareImages(unchanged(images))).images;
    const bothPinned = await median(9, () => prepareImages(unchanged(pinned)));

    const ratio = (row: number, one: number, other: number, builder: "buildah" | "buildkit"): number => rows[row][builder] / Math.max(rows[one][builder], rows[other][builder]);
    const parallel = { buildah: [ratio(2, 0, 1, "buildah"), ratio(5, 3, 4, "buildah")], buildkit: [ratio(2, 0, 1, "buildkit"), ratio(5, 3, 4, "buildkit")] };
    process.stdout.write(`| | buildah, s | BuildKit, s |\n| --- | --- | --- |\n`);
    for (const row of rows) process.stdout.write(`| ${row.what} | ${row.buildah.toFixed(2)} | ${row.buildkit.toFixed(2)} |\n`);
    process.stdout.write(`| both at once : the slower alone, cold (target 1.2) | ${parallel.buildah[0].toFixed(2)} | ${parallel.buildkit[0].toFixed(2)} |\n`);
    process.stdout.write(`| both at once : the slower alone, base images at hand (target 1.2) | ${parallel.buildah[1].toFixed(2)} | ${parallel.buildkit[1].toFixed(2)} |\n`);
    process.stdout.write(`\nNothing changed, per image (target under 0.3 s): ${(both / 2).toFixed(3)} s with base images by tag, ${(bothPinned / 2).toFixed(3)} s by digest. Load average ${os.loadavg()[0].toFixed(1)} on ${os.cpus().length} processors.\n`);
    const results = path.join(__dirname, "results");
    fs.mkdirSync(results, { recursive: true });
    fs.writeFileSync(path.join(results, "agent-images.json"), `${JSON.stringify({ date: new Date().toISOString(), load: os.loadavg(), rows, parallel, unchangedPerImage: { byTag: both / 2, byDigest: bothPinned / 2 } }, null, 2)}\n`);
  } finally {
    await stop();
    await run("bash", ["-c", `grep -o ' ${folder}[^ ]*' /proc/mounts | xargs -r umount -l`], { allowFailure: true });
    fs.rmSync(folder, { recursive: true, force: true });
    // The registry's copies go, too.
    await run(path.join(REPO, "scripts/clean-images.sh"), ["--registry", `${REGISTRY}/${prefix}`, "--insecure", "--no-cluster", ...Object.keys(args)], { allowFailure: true });
  }
}

main().catch((error: Error) => {
  process.stderr.write(`bench: ${error.message}\n`);
  process.exitCode = 1;
});
