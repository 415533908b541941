import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { parse, stringify } from "yaml";
import { enforcePolicies, releasePolicies } from "../../sandbox/cluster/policies";
import { REGISTRY, REPO } from "../../sandbox/paths";
import { run, type RunOptions } from "../../sandbox/shell";
import { ensureBuildkitImage } from "./buildkit";
import { ENV, ensurePlatform, kubectl, kubectlJson, onNode, pulumi, request, STACK, waitFor } from "./sandbox";

/** A second environment that is told of no registry: it brings its own, builds into it in the cluster, and pulls from it by the node's loopback. */
jest.setTimeout(1_800_000);

const SECOND = "own-registry";
const HOST = "own-registry.sandbox.test";
const namespaces = { jenkins: SECOND, agents: `${SECOND}-agents`, registry: `${SECOND}-registry`, pulls: `${SECOND}-image-pulls` };
const stackFile = path.join(REPO, `Pulumi.${SECOND}.yaml`);
let folder: string;
let options: RunOptions;

/** The same images by digest: of a registry that speaks plain HTTP nobody but the stack's own registry is asked for one. */
async function pinned(images: Record<string, string>): Promise<Record<string, string>> {
  const pairs = Object.entries(images).map(async ([key, reference]) => {
    const [, repository, tag] = /^[^/]+\/(.+):([^:]+)$/.exec(reference) ?? [];
    const answer = await fetch(`http://${REGISTRY}/v2/${repository}/manifests/${tag}`, { method: "HEAD", headers: { Accept: "application/vnd.oci.image.manifest.v1+json" } });
    const digest = answer.headers.get("docker-content-digest");
    return [key, digest === null ? reference : `${reference}@${digest}`];
  });
  return Object.fromEntries(await Promise.all(pairs)) as Record<string, string>;
}

const second = (args: string[], further: RunOptions = {}) => pulumi([...args, "--stack", SECOND], { ...options, ...further });
const references = async () => JSON.parse((await second(["stack", "output", "agentImages", "--json"])).stdout) as Record<string, string>;
const login = () =>
  waitFor(`200 from /login of ${HOST}`, 300, async () => {
    const answer = await request("GET", "/login", { host: HOST });
    return answer.status === 200 && answer;
  });

beforeAll(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "own-registry-"));
  fs.writeFileSync(path.join(folder, "buildkitd.toml"), `[registry."${REGISTRY}"]\n  http = true\n`);
  options = { env: { ...ENV, BUILDKITD_CONFIG: path.join(folder, "buildkitd.toml") } };
  await ensurePlatform();
  await ensureBuildkitImage();
  const document = parse(fs.readFileSync(path.join(REPO, `Pulumi.${STACK}.yaml`), "utf8")) as { config: Record<string, unknown> };
  for (const key of ["registry", "imageBuild", "controlPlane", "agentImages"]) delete document.config[`build-platform:${key}`];
  const [agent] = document.config["build-platform:agents"] as object[];
  const own = {
    domain: HOST, namespace: SECOND, storageClass: SECOND, storageInstall: "class", storageBasePath: `/var/openebs/${SECOND}`, nodePortRange: "none", ingress: { install: false },
    images: await pinned(document.config["build-platform:images"] as Record<string, string>), agents: [agent],
  };
  for (const [key, value] of Object.entries(own)) document.config[`build-platform:${key}`] = value;
  fs.writeFileSync(stackFile, stringify(document));
  await pulumi(["stack", "rm", SECOND, "--yes", "--force", "--preserve-config"], { allowFailure: true });
  await pulumi(["stack", "init", SECOND, "--no-select"]);
});

afterAll(async () => {
  await second(["destroy", "--yes", "--skip-preview"], { allowFailure: true });
  await pulumi(["stack", "rm", SECOND, "--yes", "--force"], { allowFailure: true });
  fs.rmSync(stackFile, { force: true });
  fs.rmSync(folder, { recursive: true, force: true });
});

test("it comes up: images are built in the cluster, and the node pulls them from its own loopback", async () => {
  await second(["up", "--yes", "--skip-preview"]);
  await login();
  for (const [name, reference] of Object.entries(await references())) expect(reference).toMatch(new RegExp(`^localhost:\\d+/build-platform/${name}@sha256:[0-9a-f]{64}$`));
  const { items } = await kubectlJson<{ items: { spec: { containers: { name: string; image: string }[] } }[] }>(["-n", namespaces.jenkins, "get", "pods"]);
  expect(items.flatMap(({ spec }) => spec.containers.map(({ image }) => image))).toContain((await references()).controller);
});

test("a build runs on an agent whose image is pulled the same way", async () => {
  const smoke = await run(process.execPath, ["--require", require.resolve("tsx/cjs"), path.join(REPO, "cli/smoke.ts"), SECOND], { cwd: REPO, ...options });
  expect(smoke.stdout).toMatch(new RegExp(`^${SECOND} builds$`, "m"));
});

test("a second up changes nothing", async () => {
  expect((await second(["up", "--yes", "--skip-preview", "--expect-no-changes"])).stdout).toMatch(/\d+ unchanged/);
});

describe("whoever is not the builder", () => {
  const agent = "overwrites";
  const port = async () => (await references()).controller.replace(/^localhost:(\d+).*/, "$1");
  /** Status of a request of a pod in the agents' namespace, by bash alone; 000 where no connection comes about. */
  async function status(method: string, host: string, target: string, body = ""): Promise<string> {
    const [name, at] = host.split(":");
    const text = `${method} ${target} HTTP/1.1\\r\\nHost: ${host}\\r\\nContent-Type: application/vnd.oci.image.manifest.v1+json\\r\\nContent-Length: ${body.length}\\r\\nConnection: close\\r\\n\\r\\n`;
    const script = `timeout 5 bash -c 'exec 3<>/dev/tcp/${name}/${at} && printf "${text}" >&3 && printf %s "$0" >&3 && head -n 1 <&3' '${body}' 2>/dev/null | cut -d " " -f 2 | grep . || echo 000`;
    return (await kubectl(["-n", namespaces.agents, "exec", agent, "--", "bash", "-c", script])).trim();
  }
  const manifest = JSON.stringify({ schemaVersion: 2 });
  const overwrite = (host: string) => status("PUT", host, "/v2/build-platform/controller/manifests/overwritten", manifest);

  beforeAll(async () => {
    const pod = {
      apiVersion: "v1", kind: "Pod", metadata: { name: agent, namespace: namespaces.agents, labels: { jenkins: "agent" } },
      spec: {
        automountServiceAccountToken: false, terminationGracePeriodSeconds: 0, securityContext: { runAsUser: 1000, runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
        containers: [{ name: "main", image: (await references())["maven-dind"], command: ["sleep", "3600"], securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } } }],
      },
    };
    await kubectl(["apply", "-f", "-"], { input: JSON.stringify(pod) });
    await kubectl(["-n", namespaces.agents, "wait", "--for=condition=Ready", `pod/${agent}`, "--timeout=180s"]);
  });
  afterAll(() => kubectl(["-n", namespaces.agents, "delete", "pod", agent, "--wait=false"], { allowFailure: true }));

  test("may read, and is refused whatever it writes, where no network plugin enforces anything", async () => {
    const service = `image-registry.${namespaces.registry}.svc`;
    expect(await status("GET", `${service}:5000`, "/v2/build-platform/controller/tags/list")).toBe("200");
    expect(await overwrite(`${service}:5000`)).toBe("405");
    expect(await status("DELETE", `${service}:5000`, `/v2/build-platform/controller/manifests/${(await references()).controller.split("@")[1]}`)).toBe("405");
    expect(await overwrite(`${service}:5001`)).toBe("401");
    // The node's loopback is not a pod's, and there nobody writes either.
    expect(await overwrite(`127.0.0.1:${await port()}`)).toBe("000");
    expect((await onNode(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", `http://localhost:${await port()}/v2/build-platform/controller/blobs/uploads/`])).stdout).toBe("405");
  });

  test("has a registry for what its jobs push, which is not the platform's", async () => {
    const jobs = `jobs-registry.${namespaces.registry}.svc:5000`;
    expect(await status("POST", jobs, "/v2/jobs/mine/blobs/uploads/")).toBe("202");
    // The platform's image of the same name there is another one.
    expect(await status("GET", jobs, "/v2/build-platform/controller/tags/list")).toBe("404");
  });

  test("does not even reach the port for pushes where a network plugin enforces policies", async () => {
    await enforcePolicies();
    try {
      await waitFor("the policy to be in force", 60, async () => (await overwrite(`image-registry.${namespaces.registry}.svc:5001`)) === "000");
      expect(await status("GET", `image-registry.${namespaces.registry}.svc:5000`, "/v2/build-platform/controller/tags/list")).toBe("200");
      expect((await onNode(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", `http://localhost:${await port()}/v2/build-platform/controller/tags/list`])).stdout).toBe("200");
    } finally {
      await releasePolicies();
    }
  });
});

test("what is unused goes, its space with it, and what runs stays", async () => {
  const { stdout } = await run(path.join(REPO, "scripts/images/clean-images.sh"), ["--built-in", `${namespaces.registry}/build-platform`, "--keep", "1", "controller", "maven-dind"], options);
  expect(stdout).toBe("");
  expect((await second(["up", "--yes", "--skip-preview", "--expect-no-changes"])).stdout).toMatch(/\d+ unchanged/);
});

test("with the volume gone, the next up builds the images into a new one", async () => {
  const before = await references();
  await kubectl(["-n", namespaces.registry, "delete", "pvc", "-l", "app.kubernetes.io/name=image-registry", "--wait=false"]);
  await kubectl(["-n", namespaces.registry, "delete", "pod", "-l", "app.kubernetes.io/name=image-registry"]);
  await waitFor("the claim to be gone", 60, async () => (await kubectl(["-n", namespaces.registry, "get", "pvc", "-l", "app.kubernetes.io/name=image-registry", "-o", "name"])) === "");
  await second(["up", "--yes", "--skip-preview", "--refresh"]);
  for (const [name, reference] of Object.entries(await references())) {
    expect(Object.keys(before)).toContain(name);
    // Asked of the registry itself: the node may still have it from before.
    const { tags } = JSON.parse(await kubectl(["get", "--raw", `/api/v1/namespaces/${namespaces.registry}/services/image-registry:pull/proxy/v2/build-platform/${name}/tags/list`])) as { tags: string[] };
    expect(tags).toContainEqual(expect.stringMatching(new RegExp(`^${name}-[0-9a-f]{12}$`)));
    expect(reference).toMatch(/^localhost:/);
  }
  await login();
});

test("destroy leaves nothing of it on the cluster", async () => {
  await second(["destroy", "--yes", "--skip-preview"]);
  expect((await kubectl(["get", "namespaces", "-o", "name"])).split("\n").filter((name) => name.includes(SECOND))).toEqual([]);
});
