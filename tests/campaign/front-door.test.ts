import { spawn, type ChildProcess } from "node:child_process";
import * as fs from "node:fs";
import * as http from "node:http";
import { usual } from "../../config/pieces";
import { REPO } from "../../sandbox/paths";
import { run } from "../../sandbox/shell";
import { jobXml, kubectl, NODE, pulumi, realJenkins, volumesLookedAt, waitFor } from "../e2e/sandbox";
import { CONTROLLERS, FrontDoor, HOST, ingressNamespace, modes, OLD, outside, PERSON, ports, PREFIX, SITE } from "./front-door-bed";
import { watch } from "./way-in";

/**
 * The way in as sites have it, with either controller: below a path, TLS that ends at a real nginx before the cluster, PROXY protocol,
 * further hosts, agents of other machines, large uploads and long silences. With E2E_JENKINS=real agents come by WebSocket as well; the
 * `java` on PATH runs them.
 */
jest.setTimeout(1_200_000);

const bed = new FrontDoor();
/** On this machine; one whose test failed runs on until the end. */
const agents: ChildProcess[] = [];
const forged = { "X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example.com" };
const seen = async (visited: Promise<{ status: number; body: string }>) => FrontDoor.headers((await visited).body);
const script = async (text: string) => (await bed.jenkins()).post("/scriptText", `script=${encodeURIComponent(text)}`, "application/x-www-form-urlencoded");

/** An agent on this machine, with what Jenkins hands out, until it is stopped. */
async function agent(mode: keyof typeof modes, way: "tcp" | "webSocket"): Promise<ChildProcess> {
  const url = `${modes[mode].externalUrl}/`;
  const name = `outside-${way.toLowerCase()}`;
  const secret = (await script(`
    def all = hudson.model.Hudson.instance
    if (all.getNode("${name}") == null) all.setNodes(all.nodes + new hudson.slaves.DumbSlave("${name}", "", "${bed.at(name)}", "1", hudson.model.Node.Mode.EXCLUSIVE, "${name}", new hudson.slaves.JNLPLauncher(), new hudson.slaves.RetentionStrategy.Always(), []))
    println ${realJenkins ? `all.getComputer("${name}").jnlpMac` : "all.secretKey"}`)).trim();
  fs.mkdirSync(bed.at(name), { recursive: true });
  const to = way === "tcp" ? ["-tunnel", `${NODE}:${ports.agents}`] : ["-webSocket"];
  let started: ReturnType<FrontDoor["resolving"]>;
  if (realJenkins) {
    const jar = bed.at("agent.jar");
    const [curl, words, options] = bed.resolving("curl", ["-fsS", "--cacert", bed.authority.file, "-o", jar, `${url}jnlpJars/agent.jar`]);
    await run(curl, words, options);
    started = bed.resolving("java", ["-jar", jar, "-url", url, ...to, "-name", name, "-secret", secret, "-workDir", bed.at(name), `-cert=@${bed.authority.file}`]);
  } else {
    const trust = bed.at("trust.p12");
    if (!fs.existsSync(trust)) await run("keytool", ["-importcert", "-noprompt", "-alias", "bed", "-file", bed.authority.file, "-keystore", trust, "-storepass", "changeit"]);
    const java = (await run("sh", ["-c", 'dirname "$(dirname "$(readlink -f "$(command -v java)")")"'])).stdout.trim();
    started = bed.resolving(`${REPO}/sandbox/images/agent/jenkins-agent`, ["-url", url, ...to, "-workDir", bed.at(name), secret, name], { JAVA_HOME: java, CURL_CA_BUNDLE: bed.authority.file, JENKINS_JAVA_OPTS: `-Djavax.net.ssl.trustStore=${trust} -Djavax.net.ssl.trustStorePassword=changeit` });
  }
  const [program, words, options] = started;
  const log = fs.openSync(bed.at(`${name}.log`), "a");
  const child = spawn(program, words, { ...options, stdio: ["ignore", log, log] });
  agents.push(child);
  await connected(name);
  return child;
}

async function connected(name: string): Promise<void> {
  await waitFor(`${name} to be connected`, 120, async () => !(await (await bed.jenkins()).json<{ offline: boolean }>(`/computer/${name}/api/json`)).offline).catch((error: Error) => {
    // A wrong option is named before the list of all.
    const said = fs.readFileSync(bed.at(`${name}.log`), "utf8");
    throw new Error(`${error.message}: ${said.slice(0, 500)} ... ${said.slice(-1000)}`);
  });
}

/** Starts a build of `shell` on an agent; its result when it ends. */
async function building(label: string, shell: string): Promise<{ ended: Promise<string | null> }> {
  const jenkins = await bed.jenkins();
  const job = `on-${label}-${Date.now()}`;
  await jenkins.post(`/createItem?name=${job}`, jobXml(label, shell), "application/xml");
  await jenkins.post(`/job/${job}/build?delay=0sec`);
  interface Build { building: boolean; result: string | null }
  const build = () => jenkins.json<Build>(`/job/${job}/1/api/json`).catch(() => undefined);
  await waitFor("the build to start", 120, async () => (await build()) !== undefined);
  return { ended: waitFor("the build to end", 300, async () => { const now = await build(); return now?.building === false && { result: now.result }; }).then(({ result }) => result) };
}

/** Bytes that arrive of an upload, or the status of a refusal. */
async function upload(bytes: number): Promise<string> {
  const { stdout } = await run("bash", ["-c", `head -c ${bytes} /dev/zero | curl -sS -o - -w ' %{http_code}' -H 'Host: ${HOST}' -H 'Expect:' -T - http://${NODE}:${ports.http}/backend/upload 2>/dev/null || true`]);
  return stdout.slice(stdout.lastIndexOf(" ") + 1) === "200" ? stdout.split(" ")[0] : stdout.slice(-3);
}

/** A stream that begins, is silent, and ends; what came of it. */
function silence(seconds: number): Promise<string> {
  return new Promise((resolve) => {
    let came = "";
    const sent = http.get({ host: NODE, port: ports.http, path: `/backend/silence/${seconds}`, headers: { Host: HOST }, agent: false }, (answer) => {
      answer.setEncoding("utf8").on("data", (chunk: string) => (came += chunk)).on("error", () => resolve(came)).on("close", () => resolve(came));
    });
    sent.on("error", (error) => resolve(`${came}${error.message}`));
  });
}
const whole = "data: first\n\ndata: last\n\n";

beforeAll(() => bed.setUp(), 2_400_000);
afterAll(() => {
  agents.forEach((child) => child.kill());
  return bed.tearDown();
});

const ofMode = {
  port: (controller: (typeof CONTROLLERS)[number]) => {
    test("below a path, behind a proxy that ends TLS on another port: Jenkins answers there and nowhere else, by its further name as well", async () => {
      await bed.up(controller, "port", controller === "nginx" ? {} : { agentCap: 7 });
      // The sandbox's template of nginx says 503 for a path that nobody has.
      expect([404, 503]).toContain((await bed.outer("port", "/login")).status);
      expect((await bed.outer("port", `${PREFIX}/login`, { host: `${OLD}:${outside.port}` })).status).toBe(200);
      expect((await bed.outer("port", `${PREFIX}/login`, { host: "other.sandbox.test", servername: HOST })).status).toBe(404);
      expect((await pulumi(["stack", "output", "jenkinsUrl", "--stack", SITE])).stdout.trim()).toBe(`${modes.port.externalUrl}/`);
      expect(await kubectl(["-n", SITE, "get", "configmap", "jenkins-casc", "-o", "yaml"])).toContain(`${modes.port.externalUrl}/`);
      // Where Jenkins sends on to, as a browser reads it.
      const { location = "" } = (await bed.outer("port", `${PREFIX}/logout`)).headers;
      expect(new URL(location, modes.port.externalUrl).href).toMatch(realJenkins ? `${modes.port.externalUrl}/` : new RegExp(`^https://${HOST}(:${outside.port})?${PREFIX}/$`));
    });

    test("smoke builds on an agent below the path and asks the outer address; status finds nothing wrong with the way in", async () => {
      const smoke = await bed.cli("smoke.ts", SITE);
      expect(smoke.stdout).toMatch(new RegExp(`^${SITE} builds$`, "m"));
      const status = await bed.cli("status.ts", SITE);
      expect(status.stdout).toContain(`answers at ${HOST}`);
    });

    // The container beside Jenkins asks for it, past every ingress: once is enough.
    if (controller === "nginx") test("configuration is reloaded below the path", async () => {
      const reloads = async () => (await kubectl(["-n", SITE, "logs", "deployment/jenkins", "-c", "config-reload"])).split("is in force").length;
      const before = await reloads();
      await kubectl(["-n", SITE, "patch", "configmap", "jenkins-casc", "--type=merge", "-p", JSON.stringify({ data: { "words.yaml": `jenkins: {systemMessage: "reloaded ${Date.now()}"}` } })]);
      await volumesLookedAt(SITE, "app.kubernetes.io/name=jenkins,app.kubernetes.io/component=controller");
      await waitFor("the reload", 180, async () => (await reloads()) > before);
    });

    test("Jenkins learns of the person and of https from the proxy; whoever comes past it is not believed", async () => {
      await bed.backend();
      // The controller may know of the pod later than the API server.
      const told = await waitFor("the backend", 60, async () => {
        const answer = await bed.outer("port", "/backend/headers", { headers: forged });
        return answer.status === 200 && FrontDoor.headers(answer.body);
      });
      expect(told).toMatchObject({ "x-forwarded-proto": "https", "x-forwarded-port": String(outside.port), host: HOST });
      expect(told["x-forwarded-for"].split(", ")[0]).toBe(PERSON);
      const liar = await seen(bed.node("/backend/headers", { headers: forged }));
      expect(liar["x-forwarded-for"].split(", ")[0]).toBe(PERSON);
      // As documented, ingress-nginx believes the other two of anybody.
      if (controller === "traefik") expect(liar).toMatchObject({ "x-forwarded-proto": "http", "x-forwarded-host": HOST });
    });
  },

  usual: (controller: (typeof CONTROLLERS)[number]) => {
    test("on 443 whoever comes past the proxy is sent to it, and who comes by it is not sent in circles", async () => {
      await bed.up(controller, "usual");
      await waitFor("plain HTTP to be sent on", 30, async () => (await bed.node(`${PREFIX}/login`)).headers.location === `${modes.usual.externalUrl}/login`);
      expect((await bed.outer("usual", `${PREFIX}/login`)).status).toBe(200);
      // A proxy that says nothing of https does go in circles, as documented.
      expect((await bed.outer("usual", `${PREFIX}/login`, { port: outside.silent })).headers.location).toBe(`${modes.usual.externalUrl}/login`);
      const status = await bed.cli("status.ts", SITE);
      expect(status.stdout).toContain(`answers at ${HOST}`);
    });
  },

  packets: (controller: (typeof CONTROLLERS)[number]) => {
    test("PROXY protocol brings the person's address, and headers that people forge are nobody's", async () => {
      await bed.up(controller, "packets");
      await bed.backend();
      const told = await waitFor("the person's address", 60, async () => {
        const headers = await seen(bed.outer("packets", "/backend/headers", { headers: forged })).catch(() => undefined);
        return headers?.["x-forwarded-for"] !== undefined && headers;
      });
      expect([told["x-forwarded-for"].split(", ")[0], told["x-forwarded-proto"], told["x-forwarded-host"].split(":")[0]]).toEqual([PERSON, "http", HOST]);
      const past = await bed.node(`${PREFIX}/login`).then(({ status }) => status, () => 0);
      expect(past === 200).toBe(controller === "traefik");
    });

    for (const way of realJenkins ? (["tcp", "webSocket"] as const) : (["tcp"] as const))
      test(`an agent of another machine comes in by ${way} and builds`, async () => {
        await bed.up(controller, "packets");
        const child = await agent("packets", way);
        const { ended } = await building(`outside-${way.toLowerCase()}`, "echo on $NODE_NAME");
        expect(await ended).toBe("SUCCESS");
        child.kill();
      });
  },
};

describe("ingress-nginx", () => {
  ofMode.port("nginx");

  test("a backup of a home below the path is made, and a copy of it boots", async () => {
    expect(await (await building("maven", "true")).ended).toBe("SUCCESS");
    expect(await bed.cli("backup/index.ts", "backup", "--stack", SITE)).toMatchObject({ code: 0 });
    const proven = await bed.cli("backup/index.ts", "list", "verify", "--stack", SITE, "--snapshot", "latest");
    expect(proven.stderr).toMatch(/has loaded all \d+ jobs and folders and [1-9]\d* builds/);
  });

  ofMode.usual("nginx");
  ofMode.packets("nginx");
});

test("from ingress-nginx to Traefik behind the proxy: at most two seconds without an answer, and an agent of another machine goes on with its build", async () => {
  const way = realJenkins ? "webSocket" : "tcp";
  // As the part before leaves it; run alone, it has it made.
  await bed.up("nginx", "packets");
  const child = await agent("packets", way);
  const { ended } = await building(`outside-${way.toLowerCase()}`, "sleep 60");
  const watched = watch(100, () => bed.outer("packets", `${PREFIX}/login`));
  await bed.up("traefik", "packets");
  await new Promise((resolve) => setTimeout(resolve, 5000));
  const { asked, lost, gap } = await watched.stop();
  process.stderr.write(`   to Traefik: ${JSON.stringify({ asked, lost, gap })}\n`);
  expect(gap).toBeLessThanOrEqual(2);
  expect(await ended).toBe("SUCCESS");
  // Once nginx is gone, so is what it carried: the agent comes again.
  await waitFor("nginx to be gone", 330, async () => !(await kubectl(["-n", ingressNamespace, "get", "pods", "-o", "name"])).includes("ingress-nginx"));
  await connected(`outside-${way.toLowerCase()}`);
  expect(await (await building(`outside-${way.toLowerCase()}`, "true")).ended).toBe("SUCCESS");
  child.kill();
});

describe("Traefik", () => {
  ofMode.packets("traefik");
  ofMode.usual("traefik");
  ofMode.port("traefik");
});

describe.each(["traefik", "nginx"] as const)("limits of %s", (controller) => {
  test("an upload of 2 GB passes where it is allowed", async () => {
    await bed.up(controller, "port", controller === "traefik" ? { agentCap: 7 } : {});
    await bed.backend();
    const large = 2 * 2 ** 30;
    if (controller === "nginx") {
      expect([usual.maxBodySize, await upload(65 * 2 ** 20)]).toEqual(["64m", "413"]);
      await bed.backend({ "nginx.ingress.kubernetes.io/proxy-body-size": "2g" });
      await waitFor("the setting to be in force", 30, async () => (await upload(65 * 2 ** 20)) !== "413");
    }
    expect(await upload(large)).toBe(String(large));
  });

  test("a silent stream lives as long as proxy-read-timeout says: ten minutes by itself, five seconds where that is set", async () => {
    await bed.backend();
    // Longer than the minute that is nginx' own.
    const [long, many] = await Promise.all([silence(75), Promise.all(Array.from({ length: 500 }, () => silence(20)))]);
    expect(long).toBe(whole);
    expect(many.filter((came) => came !== whole)).toEqual([]);
    await bed.backend({ "nginx.ingress.kubernetes.io/proxy-read-timeout": "5" });
    await waitFor("the setting to be in force", 60, async () => (await silence(8)) !== whole);
    expect(await silence(2)).toBe(whole);
    await bed.backend();
    await waitFor("the setting to be gone", 60, async () => (await silence(8)) === whole);
  });
});
