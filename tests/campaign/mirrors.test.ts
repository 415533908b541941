import * as fs from "node:fs";
import * as http from "node:http";
import type { AddressInfo } from "node:net";
import * as path from "node:path";
import { otherLogins } from "../../components/agent-images";
import type { AgentSettings, AgentTemplate } from "../../components/jenkins-master/agents";
import { agentMirrorFiles, agentMirrorsName } from "../../components/jenkins-master/mirrors";
import type { Mirrors } from "../../components/mirrors";
import { dockerConfigJson, loginHost } from "../../components/pull-secrets";
import { installPackages } from "../../sandbox/cluster/packages";
import { NETWORK, REPO } from "../../sandbox/paths";
import { run, waitFor } from "../../sandbox/shell";
import { Bed, script } from "../e2e/agent-images-bed";
import { LimitedHub } from "../e2e/limited-hub";
import { createJob, deleteJob, ensurePlatform, finishedBuild, firstAgentImage, jobXml, kubectl, ownCloud, plainTemplate, setCloud, startBuild, unpack } from "../e2e/sandbox";

/** Mirrors and pull secrets with the real registry, buildah, Maven, Gradle and dockerd. */

jest.setTimeout(900_000);

const me = { username: "me", password: "e2e-s3cret" };
const login = { REGISTRY_USERNAME: me.username, REGISTRY_PASSWORD: me.password };

/** A mirror of Maven Central: asks it for what it is asked for, and keeps count. */
class CentralMirror {
  readonly asked: string[] = [];
  address = "";
  private readonly server = http.createServer((request, response) => {
    this.asked.push(request.url!);
    void fetch(`https://repo.maven.apache.org/maven2${request.url!.replace(/^\/mirror/, "")}`, { method: request.method }).then(
      async (answer) => response.writeHead(answer.status).end(Buffer.from(await answer.arrayBuffer())),
      () => response.writeHead(502).end(),
    );
  });

  async start(host: string): Promise<void> {
    await new Promise<void>((resolve) => this.server.listen(0, host, resolve));
    this.address = `http://${host}:${(this.server.address() as AddressInfo).port}/mirror`;
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }
}

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
  const name = "campaign-mirrors";
  const secret = "campaign-hub";

  beforeAll(async () => {
    await ensurePlatform();
    await setUp(NETWORK.gateway);
  });
  afterAll(tearDown);

  /** Builds once on an agent with these mirrors. */
  async function build(mirrors: Mirrors, template: Partial<AgentTemplate>, lines: string[]): Promise<{ result: string | null; console: string }> {
    const settings: AgentSettings = { dindImage: await firstAgentImage("dind"), buildkitImage: "", insecureRegistries: [], mirrors };
    const { namespace } = await ownCloud();
    const files = Object.entries(agentMirrorFiles(mirrors));
    if (files.length > 0) await kubectl(["apply", "-f", "-"], { input: JSON.stringify({ apiVersion: "v1", kind: "ConfigMap", metadata: { name: agentMirrorsName, namespace }, data: Object.fromEntries(files) }) });
    await setCloud(name, { ...(await plainTemplate(name)), ...template }, settings);
    try {
      await createJob(name, jobXml(name, lines.join("\n")));
      return await finishedBuild(name, await startBuild(name), 600);
    } finally {
      await deleteJob(name);
      await setCloud(name);
      await kubectl(["-n", namespace, "delete", "configmap", agentMirrorsName, "--ignore-not-found"]);
      await waitFor("the agents' pods to be gone", 180, async () => (await kubectl(["-n", namespace, "get", "pods", "-l", `build-platform/template=${name}`, "-o", "name"])) === "");
    }
  }

  test("docker pull of Docker Hub's names is served by its mirror, with the password that the agents have for it", async () => {
    await seed("library/mirrored");
    const { namespace } = await ownCloud();
    const mirrors = { registries: { "docker.io": hub.host }, insecure: [hub.host], dockerd: `http://${hub.host}` };
    const pull = ["set -eu", "docker pull mirrored:1", "docker image inspect mirrored:1 >/dev/null && echo the image is here"];
    await kubectl(["apply", "-f", "-"], { input: JSON.stringify({ apiVersion: "v1", kind: "Secret", metadata: { name: secret, namespace }, type: "kubernetes.io/dockerconfigjson", stringData: { ".dockerconfigjson": dockerConfigJson([{ registry: loginHost("docker.io"), ...me }]) } }) });
    try {
      const with_ = await build(mirrors, { docker: "dind", volumes: [{ kind: "secret", name: secret, mountPath: "/home/jenkins/.docker/config.json", key: ".dockerconfigjson", readOnly: true }] }, pull);
      expect(with_.console).toContain("the image is here");
      expect(with_.result).toBe("SUCCESS");
      expect(hub.served).toContain("/v2/library/mirrored/manifests/1");
      const refused = hub.refused;
      expect((await build(mirrors, { docker: "dind" }, pull)).result).toBe("FAILURE");
      expect(hub.refused).toBeGreaterThan(refused);
    } finally {
      await kubectl(["-n", namespace, "delete", "secret", secret, "--ignore-not-found"]);
    }
  });

  test("Maven on an agent asks the mirror of Central, also with settings of the job's own", async () => {
    const asked = central.asked.length;
    const mirrors = { registries: {}, insecure: [], maven: central.address };
    const { result, console } = await build(mirrors, {}, ["set -eu", unpack("maven-app"), "echo '<settings/>' >own.xml", "mvn -B -s own.xml package"]);
    expect(console).toContain("Downloading from build-platform-central");
    expect(console).not.toContain("Downloading from central:");
    expect(result).toBe("SUCCESS");
    expect(central.asked.length).toBeGreaterThan(asked);
  });

  test("Gradle on an agent asks the mirror wherever a build names Central, in its home and in its own folder", async () => {
    const { templates } = await ownCloud();
    const image = /image: (\S*gradle-dind\S*)/.exec(templates.map(({ yaml }) => yaml).join("\n"))![1];
    for (const GRADLE_USER_HOME of ["/home/jenkins/.gradle", "/tmp/gradle"]) {
      const asked = central.asked.length;
      const { result } = await build({ registries: {}, insecure: [], maven: central.address, gradlePlugins: central.address }, { image, env: { GRADLE_USER_HOME } }, ["set -eu", unpack("gradle-app"), "gradle --no-daemon -q jar", "ls build/libs/app.jar"]);
      expect(result).toBe("SUCCESS");
      expect(central.asked.slice(asked)).toContainEqual(expect.stringContaining("commons-lang3-3.14.0.jar"));
    }
  });
});
