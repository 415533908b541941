import * as fs from "node:fs";
import * as path from "node:path";
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { buildTestTool } from "../../sandbox/cluster/binaries";
import { installPackages } from "../../sandbox/cluster/packages";
import { run } from "../../sandbox/shell";
import { DockerBed, type Daemon } from "../campaign/docker-bed";
import { middle, saveBench, seconds } from "./table";

/**
 * Docker in an agent that takes a slot over beside a daemon that never ends, and beside an agent that keeps nothing: the same commands
 * in turns, with the real dockerd and the real registry in a network of their own. BENCH_ROUNDS makes a short trial of it.
 */
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 7);
const REGISTRY = "127.0.0.1:5000";
const image = (name: string) => `${REGISTRY}/library/${name}:1`;
const MIB = 500;

async function main(): Promise<void> {
  const bed = new DockerBed(["--bridge=none", "--iptables=false"]);
  const network = `bench-docker-${process.pid}`;
  const stops: (() => Promise<unknown>)[] = [];
  try {
    await bed.setUp();
    await installPackages(["busybox-static", "iproute2"]);
    await run("ip", ["netns", "add", network]);
    stops.push(() => run("ip", ["netns", "delete", network]));
    await run("ip", ["-n", network, "link", "set", "lo", "up"]);
    bed.network = `/run/netns/${network}`;
    fs.writeFileSync(path.join(bed.folder, "registry.yml"), `version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: ${bed.folder}/registry}}\nhttp: {addr: "${REGISTRY}"}\n`);
    const registry = spawn("nsenter", [`--net=${bed.network}`, path.join(await buildTestTool("registry"), "registry"), "serve", path.join(bed.folder, "registry.yml")], { env: { ...process.env, OTEL_TRACES_EXPORTER: "none" }, stdio: "ignore" });
    stops.push(async () => registry.kill());

    // The base has a shell; the large image lies on it, as an agent's own does.
    const base = bed.context("base", { Dockerfile: "FROM scratch\nCOPY busybox /bin/sh\n" });
    fs.copyFileSync("/usr/bin/busybox", path.join(base, "busybox"));
    const large = bed.context("large", { Dockerfile: `FROM ${image("base")}\n${[0, 1, 2, 3].map((i) => `COPY part-${i} /\n`).join("")}` });
    for (const i of [0, 1, 2, 3]) fs.writeFileSync(path.join(large, `part-${i}`), randomBytes((MIB / 4) * 2 ** 20));
    const ten = bed.context("ten", { Dockerfile: `FROM ${image("large")}\n${Array.from({ length: 10 }, (_, i) => `RUN echo ${i} >/layer-${i}\n`).join("")}` });
    const one = bed.context("one", { Dockerfile: `FROM ${image("large")}\nRUN echo one >/layer\n` });

    const persistent = await bed.start("persistent", { caches: [] });
    const classic = { env: { DOCKER_BUILDKIT: "0" } };
    const build = (daemon: Daemon, context: string, options = {}) => daemon.docker(["build", "-q", "--network=host", "-t", `built-${path.basename(context)}`, context], options);
    for (const [name, context] of [["base", base], ["large", large]]) {
      await persistent.docker(["build", "-q", "-t", image(name), context], classic);
      await persistent.docker(["push", "-q", image(name)]);
    }

    const works: [what: string, work: (daemon: Daemon) => Promise<unknown>][] = [
      [`docker pull, image of ${MIB} MiB`, (daemon) => daemon.docker(["pull", "-q", image("large")])],
      ["docker build, 10 layers unchanged, BuildKit", (daemon) => build(daemon, ten)],
      ["docker build, 10 layers unchanged, classic builder", (daemon) => build(daemon, ten, classic)],
      ["docker build, one layer on the large image, BuildKit", (daemon) => build(daemon, one)],
    ];
    const figures = works.map(() => ({ slot: [] as number[], persistent: [] as number[], cold: [] as number[] }));
    const starts = { slot: [] as number[], cold: [] as number[] };
    /** One agent that does one thing alone, so that nothing before it has brought anything. */
    const agent = async (name: string, caches: ("docker" | "maven")[], work: (daemon: Daemon) => Promise<unknown>): Promise<[start: number, work: number]> => {
      let daemon: Daemon | undefined;
      const start = await seconds(async () => (daemon = await bed.start(name, { caches })));
      const worked = await seconds(() => work(daemon!));
      await daemon!.end();
      fs.rmSync(path.join(bed.folder, name), { recursive: true });
      return [start, worked];
    };
    // Both have done everything once.
    for (const [, work] of works) await work(persistent);
    await agent("first", ["docker"], async (daemon) => { for (const [, work] of works) await work(daemon); });
    for (let round = 0; round < ROUNDS; round++)
      for (const [i, [, work]] of works.entries()) {
        const [start, worked] = await agent(`slot-${round}-${i}`, ["docker"], work);
        starts.slot.push(start);
        figures[i].slot.push(worked);
        figures[i].persistent.push(await seconds(() => work(persistent)));
        if (round > 0) continue;
        const [coldStart, cold] = await agent(`cold-${i}`, [], work);
        starts.cold.push(coldStart);
        figures[i].cold.push(cold);
      }
    const shown = (values: number[]) => middle(values).toFixed(2);
    saveBench("docker", {
      title: "Docker of a fresh agent beside a daemon that never ends",
      ways: ["fresh agent on a node that had it", "persistent daemon"],
      rows: works.map(([what], i) => ({ what, seconds: [middle(figures[i].slot), middle(figures[i].persistent)] as [number, number] })),
      notes: [
        `${ROUNDS} rounds in turns, medians; each figure of a fresh agent is the first thing its daemon does. Without docker in caches the same took ${works.map(([what], i) => `${shown(figures[i].cold)} s (${what})`).join(", ")}, once each. Targets: builds at most 1.2 times, a pull of 500 MB at most 1 s.`,
        `The daemon was ready after ${shown(starts.slot)} s with a slot, ${shown(starts.cold)} s with an empty folder.`,
        "A fresh agent asks the registry what a tag is, which the persistent daemon does not: that is what keeps a tag of another job from winning.",
        `${(await run("dockerd", ["--version"])).stdout.trim()}.`,
      ],
    }, { figures, starts });
  } finally {
    for (const stop of stops.reverse()) await stop().catch(() => undefined);
    await bed.remove();
  }
}

main().catch((error: Error) => {
  process.stderr.write(`bench: ${error.message}\n`);
  process.exitCode = 1;
});
