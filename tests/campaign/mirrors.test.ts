import * as fs from "node:fs";
import * as path from "node:path";
import { otherLogins } from "../../components/agent-images";
import { agentPod, type AgentTemplate } from "../../components/jenkins-master/agents";
import { agentMirrorFiles, agentMirrorsName } from "../../components/jenkins-master/mirrors";
import type { Mirrors } from "../../components/mirrors";
import { dockerConfigJson, loginHost } from "../../components/pull-secrets";
import { installPackages } from "../../sandbox/cluster/packages";
import { NETWORK, REPO } from "../../sandbox/paths";
import { run, waitFor } from "../../sandbox/shell";
import { Bed, script } from "../e2e/agent-images-bed";
import { LimitedHub } from "../e2e/limited-hub";
import { ensurePlatform, firstAgentImage, kubectl, ownCloud, plainTemplate, unpack } from "../e2e/sandbox";
import { CentralMirror } from "./central-mirror";

/** Mirrors and pull secrets with the real registry, buildah, Maven, Gradle and dockerd. */

jest.setTimeout(900_000);

const me = { username: "me", password: "e2e-s3cret" };
const login = { REGISTRY_USERNAME: me.username, REGISTRY_PASSWORD: me.password };

let bed: Bed;
let hub: LimitedHub;
let central: CentralMirror;

async function setUp(address: string): Promise<void> {
  await installPackages(["buildah", "curl", "maven"]);
  bed = new Bed();
  await bed.registry.start(true);
  [hub, central] = [new LimitedHub(bed.registry.host), new CentralMirror()];
  await hub.start(address);
  await central.start(address);
}
async function tearDown(): Promise<void> {
  await central.stop();
  await hub.stop();
  await bed.remove();
}

/** Puts a small image into the hub; its digest. */
async function seed(repository: string): Promise<string> {
  const context = bed.context("seed", { Dockerfile: "FROM scratch\nCOPY a /a\n", a: "a\n" });
  const { stdout } = await run(script, ["--repository", `${hub.host}/${repository}`, "--context", context, "--tag", "1", "--insecure"], { env: { ...bed.storage(), ...login } });
  return stdout.trim().split("@")[1];
}

describe("on this machine", () => {
  beforeEach(() => setUp("127.0.0.1"));
  afterEach(tearDown);

  test("a base image of a hub that serves no pulls without a log-in: refused with what to do, and served with pullSecrets, at preview and in the build", async () => {
    const digest = await seed("library/base");
    const others = otherLogins([{ registry: hub.host, ...me }]);
    const anybody = path.join(bed.folder, "registries.conf");
    fs.writeFileSync(anybody, `[[registry]]\nlocation = "${hub.host}"\ninsecure = true\n`);
    const env = { ...bed.storage(), CONTAINERS_REGISTRIES_CONF: anybody, REGISTRY_AUTH_FILE: path.join(bed.folder, "none.json") };
    const resolve = (further: NodeJS.ProcessEnv) => run(script, ["--repository", `${hub.host}/x`, "--resolve", `${hub.host}/library/base:1`, "--insecure"], { env: { ...env, ...further }, allowFailure: true });
    expect(await resolve({})).toMatchObject({ code: 1, stderr: expect.stringMatching(/status 429.*pullSecrets/) });
    expect((await resolve(login)).stdout.trim()).toBe(digest);

    const context = bed.context("led", { Dockerfile: `FROM ${hub.host}/library/base@${digest}\nCOPY b /b\n`, b: "b\n" });
    await bed.registry.stop();
    await bed.registry.start(true);
    const build = (further: NodeJS.ProcessEnv) => run(script, ["--repository", `${bed.registry.host}/e2e/led`, "--context", context, "--insecure", "--force"], { env: { ...env, ...login, ...further }, allowFailure: true });
    const refused = hub.refused;
    expect(await build({})).toMatchObject({ code: 1, stderr: expect.stringMatching(/pullSecrets/) });
    expect(hub.refused).toBeGreaterThan(refused);
    expect(await build(others)).toMatchObject({ code: 0, stdout: expect.stringMatching(/@sha256:/) });
  });

  test("a base image that a Dockerfile names itself is served by Docker Hub's mirror", async () => {
    const digest = await seed("hub/library/base");
    const context = bed.context("led", { Dockerfile: `FROM docker.io/library/base@${digest}\nCOPY b /b\n`, b: "b\n" });
    const build = (further: NodeJS.ProcessEnv) => run(script, ["--repository", `${hub.host}/e2e/led`, "--context", context, "--insecure", "--force"], { env: { ...bed.storage(), ...login, ...further }, allowFailure: true });
    expect(await build({ IMAGE_MIRRORS: `docker.io=${hub.host}/hub` })).toMatchObject({ code: 0 });
    expect(hub.served).toContain(`/v2/hub/library/base/manifests/${digest}`);
  });

  test("Maven asks the mirror of Central, beside the settings that a build brings", async () => {
    const settings = path.join(bed.folder, "settings.xml");
    fs.writeFileSync(settings, agentMirrorFiles({ registries: {}, insecure: [], maven: central.address })["settings.xml"]);
    const own = path.join(bed.folder, "own.xml");
    fs.writeFileSync(own, "<settings><profiles><profile><id>own</id><properties><word>mine</word></properties></profile></profiles><activeProfiles><activeProfile>own</activeProfile></activeProfiles></settings>");
    const { stdout } = await run("mvn", ["-B", "-gs", settings, "-s", own, `-Dmaven.repo.local=${bed.folder}/m2`, "help:evaluate", "-Dexpression=word", "-f", path.join(REPO, "tests/fixtures/maven-app/pom.xml")], {});
    expect(stdout).toMatch(/^mine$/m);
    expect(stdout).toContain(`Downloading from build-platform-central: ${central.address}/`);
    expect(stdout).not.toContain("Downloading from central:");
    expect(central.asked.length).toBeGreaterThan(10);
  });
});

describe("on agents", () => {
  const namespace = "jenkins-agents";
  const [name, secret] = ["campaign-mirrors", "campaign-hub"];

  beforeAll(async () => {
    await ensurePlatform();
    await setUp(NETWORK.gateway);
  });
  afterAll(tearDown);

  const make = (object: object) => kubectl(["apply", "-f", "-"], { input: JSON.stringify(object) });

  /** What a build says and how it ends in an agent's pod with these mirrors; nobody but the test asks for the pod, so that Jenkins has no part. */
  async function build(mirrors: Mirrors, template: Partial<AgentTemplate>, lines: string[]): Promise<{ log: string; code?: string }> {
    const plain = await plainTemplate(name);
    const pod = agentPod({ ...plain, ...template }, { dindImage: await firstAgentImage("dind"), buildkitImage: "", insecureRegistries: [], mirrors }) as { metadata: object; spec: { containers: object[] } };
    const [jnlp, ...others] = pod.spec.containers;
    // A folder of its own, since the volume is not the build's user's.
    const script = ["cd /home/jenkins/agent && mkdir work && cd work", "export HOME=/home/jenkins", `( ${["set -e", ...lines].join("\n")} )`, 'echo "ended with $?"', "sleep 300"].join("\n");
    const files = agentMirrorFiles(mirrors);
    if (Object.keys(files).length > 0) await make({ apiVersion: "v1", kind: "ConfigMap", metadata: { name: agentMirrorsName, namespace }, data: files });
    await make({ ...pod, metadata: { ...pod.metadata, name, namespace }, spec: { ...pod.spec, containers: [{ ...jnlp, command: ["/bin/bash", "-c", script] }, ...others] } });
    try {
      return await waitFor("the build to end", 600, async () => {
        const log = await kubectl(["-n", namespace, "logs", name, "-c", "jnlp"], { allowFailure: true });
        const code = /^ended with (\d+)$/m.exec(log)?.[1];
        return code !== undefined && { log, code };
      });
    } finally {
      await kubectl(["-n", namespace, "delete", "pod", name, "--grace-period=1"]);
      await kubectl(["-n", namespace, "delete", "configmap", agentMirrorsName, "--ignore-not-found"]);
    }
  }

  test("docker pull of Docker Hub's names is served by its mirror, with the password that the agent has for it", async () => {
    await seed("library/mirrored");
    const mirrors = { registries: { "docker.io": hub.host }, insecure: [hub.host], dockerd: `http://${hub.host}` };
    const pull = ["until docker version >/dev/null 2>&1; do sleep 1; done", "docker pull mirrored:1", "docker image inspect mirrored:1 >/dev/null"];
    await make({ apiVersion: "v1", kind: "Secret", metadata: { name: secret, namespace }, type: "kubernetes.io/dockerconfigjson", stringData: { ".dockerconfigjson": dockerConfigJson([{ registry: loginHost("docker.io"), ...me }]) } });
    try {
      const pulled = await build(mirrors, { docker: "dind", volumes: [{ kind: "secret", name: secret, mountPath: "/home/jenkins/.docker/config.json", key: ".dockerconfigjson", readOnly: true }] }, pull);
      expect(pulled).toMatchObject({ code: "0", log: expect.stringContaining("Downloaded newer image for mirrored:1") });
      expect(hub.served).toContain("/v2/library/mirrored/manifests/1");
      const refused = hub.refused;
      expect((await build(mirrors, { docker: "dind" }, pull)).code).toBe("1");
      expect(hub.refused).toBeGreaterThan(refused);
    } finally {
      await kubectl(["-n", namespace, "delete", "secret", secret]);
    }
  });

  test("Maven on an agent asks the mirror of Central, also with settings of the job's own", async () => {
    const asked = central.asked.length;
    const { log, code } = await build({ registries: {}, insecure: [], maven: central.address }, {}, [unpack("maven-app"), "echo '<settings/>' >own.xml", "mvn -B -s own.xml package"]);
    expect(log).toContain("Downloading from build-platform-central");
    expect(log).not.toContain("Downloading from central:");
    expect(code).toBe("0");
    expect(central.asked.length).toBeGreaterThan(asked);
  });

  test("Gradle on an agent asks the mirror where a build names Central", async () => {
    const { templates } = await ownCloud();
    const image = /image: (\S*gradle-dind\S*)/.exec(templates.map(({ yaml }) => yaml).join("\n"))![1];
    const asked = central.asked.length;
    const { code } = await build({ registries: {}, insecure: [], maven: central.address, gradlePlugins: central.address }, { image }, [unpack("gradle-app"), "gradle --no-daemon -q jar", "ls build/libs/app.jar"]);
    expect(code).toBe("0");
    expect(central.asked.slice(asked)).toContainEqual(expect.stringContaining("commons-lang3-3.14.0.jar"));
  });
});
