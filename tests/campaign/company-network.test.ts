import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import * as fs from "node:fs";
import * as http from "node:http";
import * as https from "node:https";
import type * as net from "node:net";
import * as os from "node:os";
import * as path from "node:path";
import { installPackages } from "../../sandbox/cluster/packages";
import { NETWORK, REGISTRY, REPO } from "../../sandbox/paths";
import { run } from "../../sandbox/shell";
import { createJob, deleteJob, ensurePlatform, finishedBuild, jenkinsAnswers, jobXml, kubectl, kubectlJson, pulumi, STACK, startBuild } from "../e2e/sandbox";
import { authority } from "../unit/certificates";

/** A company's network around the sandbox: servers with certificates of its own authority, which only its proxy reaches (a real one, with a login). Needs the sandbox. */

jest.setTimeout(30 * 60_000);

/** An address for examples (RFC 5737) that this machine has for as long as the test lasts. */
const inside = "198.51.100.7";
const [web, registry, proxyPort] = [8443, 8444, 3128];
const login = { username: "ann", password: randomBytes(12).toString("hex") };
const version = randomBytes(4).toString("hex");
const job = "company-network";

let folder: string;
let proxy: ChildProcess;
const servers: https.Server[] = [];
const at = (...parts: string[]) => path.join(folder, ...parts);

/** Serves at the address to the proxy alone, which runs on this machine. */
async function serve(port: number, answer: http.RequestListener, tls: https.ServerOptions): Promise<void> {
  const server = https.createServer(tls, answer);
  server.on("connection", (socket: net.Socket) => void (socket.remoteAddress !== inside && socket.destroy()));
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(port, inside, resolve));
}

/** The stack with these keys, from a copy of its file. */
async function upWith(keys: [key: string, value: string, ...options: string[]][]): Promise<void> {
  const file = at("Pulumi.company.yaml");
  fs.copyFileSync(path.join(REPO, `Pulumi.${STACK}.yaml`), file);
  for (const [key, value, ...options] of keys) await pulumi(["config", "set", "--stack", STACK, "--config-file", file, "--path", ...options, key, value]);
  await pulumi(["up", "--stack", STACK, "--config-file", file, "--yes", "--skip-preview"]);
  await jenkinsAnswers();
}

const company: [string, string, ...string[]][] = [["proxy.https", `http://${NETWORK.gateway}:${proxyPort}`], ["proxy.username", login.username], ["proxy.password", login.password, "--secret"]];
const proxied = (since: number) => fs.readFileSync(at("proxy.log"), "utf8").slice(since);

async function build(script: string): Promise<{ result: string | null; console: string }> {
  await createJob(job, jobXml("maven", script));
  try {
    return await finishedBuild(job, await startBuild(job), 600);
  } finally {
    await deleteJob(job);
  }
}

beforeAll(async () => {
  await installPackages(["git", "openssl", "tinyproxy-bin"]);
  await ensurePlatform();
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "company-network-"));
  const issuer = authority(folder);
  const { cert, key } = issuer.sign("inside", inside);
  const tls = { cert: fs.readFileSync(cert), key: fs.readFileSync(key) };
  await run("ip", ["address", "replace", `${inside}/32`, "dev", "lo"]);

  fs.mkdirSync(at("www/maven/corp/parent", version), { recursive: true });
  fs.writeFileSync(at("www/hello"), "served inside\n");
  fs.writeFileSync(at("www/maven/corp/parent", version, `parent-${version}.pom`), `<project><modelVersion>4.0.0</modelVersion><groupId>corp</groupId><artifactId>parent</artifactId><version>${version}</version><packaging>pom</packaging></project>`);
  execFileSync("bash", ["-euc", "git init -q work; cd work; echo committed inside >file; git add file; git -c user.name=a -c user.email=a@b commit -qm one; git clone -q --bare . ../www/repo.git; git -C ../www/repo.git update-server-info"], { cwd: folder });
  await serve(web, (request, response) => {
    const file = path.join(at("www"), path.normalize(new URL(request.url!, "https://x").pathname));
    if (!fs.statSync(file, { throwIfNoEntry: false })?.isFile()) return void response.writeHead(404).end();
    fs.createReadStream(file).pipe(response);
  }, tls);
  // The sandbox's registry under a name and a certificate of the company's.
  const [host, port] = REGISTRY.split(":");
  await serve(registry, (request, response) => void request.pipe(http.request({ host, port, method: request.method, path: request.url, headers: request.headers }, (answer) => {
    response.writeHead(answer.statusCode!, answer.headers);
    answer.pipe(response);
  })), tls);
  fs.writeFileSync(at("proxy.log"), "");
  fs.writeFileSync(at("proxy.conf"), [`Listen ${NETWORK.gateway}`, `Port ${proxyPort}`, "Timeout 600", "MaxClients 50", `LogFile "${at("proxy.log")}"`, "LogLevel Connect", `BasicAuth ${login.username} ${login.password}`, `ConnectPort ${web}`, `ConnectPort ${registry}`, "ConnectPort 443", ""].join("\n"));
  proxy = spawn("tinyproxy", ["-d", "-c", at("proxy.conf")], { stdio: "ignore" });
});

afterAll(async () => {
  await ensurePlatform();
  proxy?.kill();
  for (const server of servers) server.closeAllConnections();
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  await run("ip", ["address", "del", `${inside}/32`, "dev", "lo"], { allowFailure: true });
  fs.rmSync(folder, { recursive: true, force: true });
});

const address = `https://${inside}:${web}`;
// Java's own client asks an Authenticator for a login; which one, the platform's properties say.
const program = `public class Hello { public static void main(String[] a) throws Exception { java.net.Authenticator.setDefault(new java.net.Authenticator() { protected java.net.PasswordAuthentication getPasswordAuthentication() { return new java.net.PasswordAuthentication(System.getProperty("https.proxyUser"), System.getProperty("https.proxyPassword").toCharArray()); } }); System.out.println("java: " + new String(new java.net.URL("${address}/hello").openStream().readAllBytes())); } }`;
const pom = `<project><modelVersion>4.0.0</modelVersion><parent><groupId>corp</groupId><artifactId>parent</artifactId><version>${version}</version></parent><artifactId>child</artifactId><packaging>pom</packaging><repositories><repository><id>inside</id><url>${address}/maven</url></repository></repositories></project>`;
const image = `${inside}:${registry}/library/docker:28.5.1-cli`;

test("curl, git, Java, Maven and Docker of an agent go through the proxy and trust the company, and nothing tells the login", async () => {
  await upWith([["trust.caBundleFile", at("company.pem")], ...company]);
  const since = fs.statSync(at("proxy.log")).size;
  const { result, console } = await build(`
    ! curl -fsS --max-time 5 --noproxy '*' ${address}/hello || exit 3
    echo "curl: $(curl -fsS ${address}/hello)"
    git clone -q ${address}/repo.git cloned && echo "git: $(cat cloned/file)"
    echo '${program}' >Hello.java && java Hello.java
    echo '${pom}' >pom.xml && mvn -B -q validate && echo "maven: valid"
    docker pull -q ${image} && printf 'FROM ${image}\\nLABEL a=b\\n' | docker build -q - && echo "docker: built"`);
  expect(console).toMatch(/curl: served inside[^]*git: committed inside[^]*java: served inside[^]*maven: valid[^]*docker: built/);
  expect([result, console.includes(login.password)]).toEqual(["SUCCESS", false]);
  for (const port of [web, registry]) expect(proxied(since)).toContain(`${inside}:${port}`);
});

test("the controller came up with what it trusts joined, and its pod and the agents' describe no login", async () => {
  const joined = await kubectl(["-n", "jenkins", "exec", "deployment/jenkins", "-c", "jenkins", "--", "sh", "-c", "keytool -list -keystore /run/build-platform/company-trust/cacerts -storepass changeit 2>/dev/null | grep -c trustedCertEntry; keytool -list -keystore /run/build-platform/company-trust/cacerts -storepass changeit -alias company-ca-0 2>/dev/null | grep -c trustedCertEntry"]);
  const [all, own] = joined.trim().split("\n").map(Number);
  expect([all > 100, own]).toEqual([true, 1]);
  for (const what of [["-n", "jenkins", "get", "deployment", "jenkins"], ["-n", "jenkins", "get", "configmap", "jenkins-casc"]]) expect(JSON.stringify(await kubectlJson(what))).not.toContain(login.password);
});

test("a second up changes nothing", async () => {
  const { stdout } = await pulumi(["up", "--stack", STACK, "--config-file", at("Pulumi.company.yaml"), "--yes", "--skip-preview", "--expect-no-changes"]);
  expect(stdout).toMatch(/unchanged/);
});

test("without the certificates the same server is of an unknown issuer, and without the proxy nobody's", async () => {
  await upWith(company);
  expect((await build(`curl -fsS ${address}/hello || exit 7`)).console).toMatch(/certificate/i);
  await upWith([]);
  expect((await build(`curl -sS --max-time 5 ${address}/hello || exit 7`)).console).not.toContain("served inside");
  expect(await kubectl(["-n", "jenkins-agents", "get", "configmap,secret", "-o", "name"])).not.toMatch(/company-/);
});
