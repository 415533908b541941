import { randomBytes } from "node:crypto";
import { spawn } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { buildTestTool } from "../../sandbox/cluster/binaries";
import { installPackages } from "../../sandbox/cluster/packages";
import { KUBECONFIG, REGISTRY, REPO } from "../../sandbox/paths";
import { run, waitFor } from "../../sandbox/shell";
import { Bed, plainContext, script, type Registry } from "../e2e/agent-images-bed";
import { BUILDKIT_IMAGE, ENV, kubectl, kubectlJson } from "../e2e/sandbox";

/** Real BuildKit, buildx and syft. Needs the sandbox; the first run builds the three from their Go modules, some ten minutes. */
jest.setTimeout(30 * 60_000);

let folder: string;
let registry: Registry;
let bed: Bed;

beforeAll(() => installPackages(["buildah", "curl"]));
beforeEach(async () => {
  bed = new Bed();
  ({ folder, registry } = bed);
  await registry.start(false);
});
afterEach(() => bed.remove());

describe("BuildKit", () => {
  /** What is not yet to be pruned away is unused: each run starts from an empty cache. */
  async function withBuildkitd<T>(work: (env: NodeJS.ProcessEnv) => Promise<T>, before: string[] = []): Promise<T> {
    const binaries = await buildTestTool("buildkit");
    const home = path.join(folder, `buildkitd-${randomBytes(3).toString("hex")}`);
    fs.mkdirSync(home);
    fs.writeFileSync(path.join(home, "config.toml"), [registry.host, REGISTRY].map((host) => `[registry."${host}"]\n  http = true\n`).join(""));
    const socket = `unix://${home}/sock`;
    const [program, ...args] = [...before, path.join(binaries, "buildkitd"), "--config", path.join(home, "config.toml"), "--addr", socket, "--root", path.join(home, "root")];
    const daemon = spawn(program, args, { stdio: "ignore" });
    const ended = new Promise((resolve) => daemon.once("exit", resolve));
    const env = { ...ENV, PATH: `${binaries}:${ENV.PATH}`, BUILDX_CONFIG: path.join(home, "buildx"), BUILDX_BUILDER: "e2e", DOCKER_CONFIG: path.join(home, "docker") };
    try {
      await waitFor("buildkitd", 60, () => run(path.join(binaries, "buildctl"), ["--addr", socket, "debug", "workers"], { allowFailure: true }).then((r) => r.code === 0));
      await run("buildx", ["create", "--name", "e2e", "--driver", "remote", socket], { env });
      return await work(env);
    } finally {
      daemon.kill();
      await ended;
    }
  }

  test("buildx: the same content from two empty caches gives the same digest, for two platforms at once", async () => {
    const digests: string[] = [];
    for (const n of ["a", "b"]) {
      const root = bed.context(`clone-${n}`, plainContext);
      fs.utimesSync(path.join(root, "files/a.txt"), 1, n === "a" ? 1 : 1_700_000_000);
      await withBuildkitd(async (env) => {
        digests.push((await bed.build("same", root, ["--builder", "buildx"], { env })).stdout);
        digests.push((await bed.build("both", root, ["--builder", "buildx", "--platforms", "linux/amd64,linux/arm64"], { env })).stdout);
      });
    }
    expect(digests.slice(2)).toEqual(digests.slice(0, 2));
    expect(digests[0]).toMatch(/@sha256:[0-9a-f]{64}\n$/);
    expect(digests[1]).not.toContain(digests[0].split("@")[1]);
  });

  test("buildx: a cache in the registry or in a folder spares a new builder the work", async () => {
    const root = bed.context("cached", { ...plainContext, Dockerfile: `FROM ${REGISTRY}/library/debian:bookworm-slim\nRUN cat /proc/sys/kernel/random/uuid >/random\nCOPY files /files\n` });
    for (const cache of ["registry", path.join(folder, "cache")]) {
      const digests: string[] = [];
      // Only a cache makes a step with a random result give the same image again.
      for (let i = 0; i < 2; i++) digests.push(await withBuildkitd(async (env) => (await bed.build("cached", root, ["--builder", "buildx", "--cache", cache], { env })).stdout));
      expect(digests[1]).toBe(digests[0]);
    }
  });

  test("buildx: a builder that reaches no port of this machine hands its image back, and it is pushed to a registry in the cluster", async () => {
    const root = bed.context("handed", plainContext);
    // What kubectl port-forward says of a registry that is here.
    fs.mkdirSync(path.join(folder, "bin"));
    fs.writeFileSync(path.join(folder, "bin/kubectl"), `#!/bin/sh\ncase "$*" in *secret*) printf t0ken; exit ;; esac\necho "Forwarding from 127.0.0.1:${registry.host.split(":")[1]} -> 5001"\nexec sleep 600\n`, { mode: 0o755 });
    await withBuildkitd(async (env) => {
      const inCluster = ["--repository", "image-registry.image-registry.svc:5001/e2e/handed", "--pulled-from", "localhost:61500", "--builder", "buildx"];
      const plain = await bed.build("handed", root, ["--builder", "buildx", "--platforms", "linux/amd64,linux/arm64"], { env, allowFailure: true });
      expect([plain.code, plain.stderr]).toEqual([1, expect.stringContaining("network is unreachable")]);
      for (const further of [[], ["--platforms", "linux/amd64,linux/arm64"]]) {
        const { stdout } = await bed.build("handed", root, [...inCluster, ...further], { env: { ...env, PATH: `${path.join(folder, "bin")}:${env.PATH}` } });
        expect(stdout).toMatch(/^localhost:61500\/e2e\/handed@sha256:[0-9a-f]{64}\n$/);
        expect(await registry.status("e2e/handed", stdout.trim().split("@")[1])).toBe(200);
      }
    }, ["unshare", "--net"]);
  });

  test("the shipped Dockerfiles pass BuildKit's own checks", async () => {
    await withBuildkitd(async (env) => {
      for (const name of fs.readdirSync(path.join(REPO, "images")).filter((n) => fs.existsSync(path.join(REPO, "images", n, "Dockerfile")))) {
        const base = `${REGISTRY}/library/debian:bookworm-slim`;
        const args = ["BASE_IMAGE", "MAVEN_IMAGE", "GRADLE_IMAGE", "DOCKER_IMAGE", "JENKINS_IMAGE"].flatMap((key) => ["--build-arg", `${key}=${base}`]);
        const checked = await run("buildx", ["build", "--check", ...args, path.join(REPO, "images", name)], { env });
        expect(checked.stderr + checked.stdout).toContain("Check complete, no warnings found.");
      }
      // The check can fail.
      const bad = bed.context("bad", { Dockerfile: "FROM scratch\nmaintainer me\nENV a b\n" });
      expect((await run("buildx", ["build", "--check", bad], { env, allowFailure: true })).code).not.toBe(0);
    });
  });

  test("in the cluster, rootless: the same digest twice, and nothing stays behind", async () => {
    const namespace = `image-builds-${randomBytes(3).toString("hex")}`;
    await kubectl(["create", "namespace", namespace]);
    try {
      await kubectl(["label", "namespace", namespace, "pod-security.kubernetes.io/enforce=privileged"]);
      const root = bed.context("in-cluster", { ...plainContext, Dockerfile: `FROM ${REGISTRY}/library/debian:bookworm-slim\nCOPY files /files\nRUN cat /files/a.txt >/b.txt\n` });
      const repository = `${REGISTRY}/e2e-${randomBytes(3).toString("hex")}/in-cluster`;
      const args = ["--repository", repository, "--tag", "in-cluster-0123456789ab", "--context", root, "--insecure", "--force", "--builder", "in-cluster", "--namespace", namespace, "--buildkit-image", BUILDKIT_IMAGE];
      const env = { ...ENV, KUBECONFIG, REGISTRY_USERNAME: "me", REGISTRY_PASSWORD: "e2e-s3cret" };
      const digests = [];
      for (let i = 0; i < 2; i++) digests.push((await run(script, args, { env })).stdout);
      expect(digests[1]).toBe(digests[0]);
      expect(digests[0]).toMatch(/@sha256:[0-9a-f]{64}\n$/);
      // Neither the job nor the log-in: it never was an object of the cluster.
      await waitFor("the build's jobs and pods to go", 120, async () => (await kubectl(["-n", namespace, "get", "jobs,pods", "-o", "name"])) === "");
      const secrets = await kubectlJson<{ items: unknown[] }>(["-n", namespace, "get", "secrets"]);
      expect(secrets.items).toEqual([]);
      await run(script, ["--delete", "--repository", repository, "--tag", "in-cluster-0123456789ab", "--insecure"], { env: ENV });
    } finally {
      await kubectl(["delete", "namespace", namespace, "--wait=false"]);
    }
  });
});

test("syft lists what is in an image, and the list is stored beside it", async () => {
  const env = { ...bed.storage(), PATH: `${await buildTestTool("syft")}:${ENV.PATH}` };
  const root = bed.context("listed", { Dockerfile: "FROM scratch\nCOPY status /var/lib/dpkg/status\nCOPY os-release /etc/os-release\n", "os-release": "ID=debian\nVERSION_ID=12\n", status: "Package: hello\nStatus: install ok installed\nVersion: 2.10-3\nArchitecture: amd64\nMaintainer: nobody <n@example.org>\nDescription: x\n" });
  const { stdout } = await bed.build("listed", root, ["--sbom", path.join(folder, "sbom")], { env });
  const sbom = JSON.parse(fs.readFileSync(path.join(folder, "sbom/listed-0123456789ab.spdx.json"), "utf8")) as { spdxVersion: string; packages: { name: string; versionInfo: string }[] };
  expect(sbom.spdxVersion).toMatch(/^SPDX-2/);
  expect(sbom.packages).toContainEqual(expect.objectContaining({ name: "hello", versionInfo: "2.10-3" }));
  expect(await registry.status("e2e/listed", stdout.trim().split("@")[1].replace(":", "-"))).toBe(200);
});
