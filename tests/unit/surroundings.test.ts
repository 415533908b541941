import { createHash, X509Certificate } from "node:crypto";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as http from "node:http";
import * as https from "node:https";
import * as net from "node:net";
import * as os from "node:os";
import * as path from "node:path";
import * as fc from "fast-check";
import { agentPod } from "../../components/jenkins-master/agents";
import { Check, type Keys } from "../../components/jenkins-master/casc-schema";
import { caContent, certificatesOf, goesDirect, javaKeyStore, jenkinsProxy, javaPatterns, type Proxy, proxySecret, proxyTexts, trustScript } from "../../components/surroundings";
import { completed, forbidden, proxyProblems, readNetwork } from "../../checks/surroundings";
import { registryProblem } from "../../checks/preflight";
import { agentSettings, parseConfig } from "../../config";
import { authority, type Authority } from "./certificates";
import { environment, stackConfig } from "./mocks";

jest.setTimeout(60_000);

let folder: string;
let company: Authority;
const closing: http.Server[] = [];
const sockets: net.Socket[] = [];

beforeAll(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "surroundings-"));
  company = authority(folder);
});
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await Promise.all(closing.splice(0).map((server) => new Promise((resolve) => server.close(resolve))));
});
afterAll(() => fs.rmSync(folder, { recursive: true }));

const proxy: Proxy = { http: "http://proxy.example.com:3128", https: "http://proxy.example.com:3129", noProxy: ["localhost", ".svc", "10.96.0.0/12", "fd00::/8", "::1", "git.example.com"] };

describe("patterns for Java", () => {
  const matches = (patterns: string[], host: string) => patterns.some((pattern) => (pattern.startsWith("*") ? host.endsWith(pattern.slice(1)) : pattern.endsWith("*") ? host.startsWith(pattern.slice(0, -1)) : host === pattern));

  test("say of each entry what Java can say of it", () => {
    expect(javaPatterns({ ...proxy, noProxy: [".svc", "git.example.com", "localhost", "10.0.0.0/8", "192.0.2.7", "::1", "fd00::/8", "192.168.0.0/15"], nodes: ["node-1"] })).toEqual(["*.svc", "git.example.com", "*.git.example.com", "localhost", "10.*", "192.0.2.7", "[::1]", "192.168.*", "192.169.*", "node-1"]);
  });

  test("hold the addresses of a range and no others", () => {
    const address = fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255), fc.nat(255)).map((bytes) => bytes.join("."));
    fc.assert(fc.property(address, fc.integer({ min: 0, max: 32 }), address, (base, length, other) => {
      const range = new net.BlockList();
      range.addSubnet(base, length);
      const patterns = javaPatterns({ ...proxy, noProxy: [`${base}/${length}`] });
      for (const each of [base, other]) expect([each, matches(patterns, each)]).toEqual([each, range.check(each)]);
    }));
  });
});

test.each<[string, boolean]>([["localhost", true], ["jenkins.jenkins.svc", true], ["svc", false], ["10.111.0.1", true], ["10.112.0.1", false], ["[fd00::5]", true], ["GIT.example.com", true], ["a.git.example.com", true], ["notgit.example.com", false], ["node-7", true], ["example.org", false]])("whether %s is reached without the proxy: %s", (host, direct) => {
  expect(goesDirect({ ...proxy, nodes: ["node-7"] }, host)).toBe(direct);
});

test("the key store for Java is whole: each certificate with a name of its own, and the digest that Java asks for", () => {
  const both = company.pem + authority(folder, "other").pem;
  const store = Buffer.from(javaKeyStore(both), "base64");
  expect(store.subarray(0, 12).toString("hex")).toBe("feedfeed0000000200000002");
  for (const certificate of certificatesOf(both)) expect(store.includes(new X509Certificate(certificate).raw)).toBe(true);
  const content = store.subarray(0, -20);
  expect(store.subarray(-20)).toEqual(createHash("sha1").update(Buffer.from("\0c\0h\0a\0n\0g\0e\0i\0t", "latin1")).update("Mighty Aphrodite").update(content).digest());
  expect(javaKeyStore(both)).toBe(javaKeyStore(`text before\n${both.replace(/\n$/, "")}`));
});

describe("what an image trusts and the certificates", () => {
  /** Runs the script with the folders it is made for below one of the test's, an image's own files and a keytool that notes its call. */
  function joined(store: boolean): { bundle: string; cacerts: Buffer; calls: string; out: string } {
    const at = fs.mkdtempSync(path.join(folder, "pod-"));
    for (const each of ["ca", "trust", "java/bin", "java/lib/security"]) fs.mkdirSync(path.join(at, each), { recursive: true });
    for (const [key, text] of Object.entries(caContent(company.pem))) fs.writeFileSync(path.join(at, "ca", key), text);
    fs.writeFileSync(path.join(at, "roots"), "-----BEGIN CERTIFICATE-----\npublic\n-----END CERTIFICATE-----");
    if (store) fs.writeFileSync(path.join(at, "java/lib/security/cacerts"), "public store");
    if (store) fs.writeFileSync(path.join(at, "java/bin/keytool"), `#!/bin/sh\necho "$@" >${at}/calls\n`, { mode: 0o755 });
    const script = trustScript.replaceAll("/etc/build-platform/company-ca", `${at}/ca`).replaceAll("/run/build-platform/company-trust", `${at}/trust`).replace("/etc/ssl/certs/ca-certificates.crt", `${at}/roots`);
    const ended = spawnSync("/bin/sh", ["-c", script], { encoding: "utf8", env: { JAVA_HOME: `${at}/java`, PATH: "/usr/bin:/bin" } });
    expect([ended.status, ended.stderr]).toEqual([0, ""]);
    return { bundle: fs.readFileSync(`${at}/trust/ca-bundle.crt`, "utf8"), cacerts: fs.readFileSync(`${at}/trust/cacerts`), calls: store ? fs.readFileSync(`${at}/calls`, "utf8") : "", out: ended.stdout };
  }

  test("become one bundle and one store", () => {
    const { bundle, cacerts, calls } = joined(true);
    expect(bundle).toMatch(/^-----BEGIN CERTIFICATE-----\npublic\n-----END CERTIFICATE-----\n-----BEGIN/);
    expect(bundle).toContain(certificatesOf(company.pem)[0]);
    expect(cacerts.toString()).toBe("public store");
    expect(calls).toMatch(/-importkeystore -noprompt -srckeystore \S+\/trust\/ca\.jks .* -destkeystore \S+\/trust\/cacerts/);
  });
});

describe("the proxy's login", () => {
  const login = { username: "corp\\ann", password: 'p@ss "word"/1' };

  test("stands in addresses as URLs have it, and in the file for Java as it is", () => {
    const secret = proxySecret({ proxy: { ...proxy, login } })!;
    expect(new URL(secret["https-url"])).toMatchObject({ username: "corp%5Cann", password: "p%40ss%20%22word%22%2F1", port: "3129" });
    expect(secret["java-options"].split("\n")).toEqual(expect.arrayContaining(['"-Dhttps.proxyUser=corp\\\\ann"', '"-Dhttps.proxyPassword=p@ss \\"word\\"/1"', '"-Djdk.http.auth.tunneling.disabledSchemes="']));
    expect(proxyTexts({ proxy: { ...proxy, login } })).toMatchObject({ https_proxy: secret["https-url"], HTTPS_PROXY: secret["https-url"] });
    expect(proxySecret({ proxy })).toBeUndefined();
  });

  test("reaches an agent's pod by a Secret alone", () => {
    const { config } = parseConfig({ ...stackConfig("sandbox"), proxy: { http: proxy.http, ...login } }, environment);
    for (const agent of config.agents) expect(JSON.stringify(agentPod(agent, { ...agentSettings(config), surroundings: config.surroundings }))).not.toMatch(/corp|p@ss|p%40ss/);
  });
});

describe("mistakes in the config", () => {
  const found = (further: object, files: Record<string, string> = {}) =>
    parseConfig({ ...stackConfig("sandbox"), ...further }, { ...environment, isSecret: (key) => key === "proxy", readFile: (file) => files[file] ?? environment.readFile(file) }).problems.map(({ key, found: there }) => `${key}: ${there}`);
  const bundle = { trust: { caBundleFile: "ca.pem" } };

  test("none where both are whole", () => {
    expect(found({ ...bundle, proxy: { https: proxy.https, username: "u", password: "p", noProxy: [".example.com", "*.example.org", "192.0.2.0/24"] } }, { "ca.pem": company.pem })).toEqual([]);
  });

  test.each<[string, object, Record<string, string>, string[]]>([
    ["a file without a certificate", bundle, { "ca.pem": "hello" }, ["trust.caBundleFile: ca.pem: a text without a certificate"]],
    ["a private key", bundle, { "ca.pem": "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----" }, ["trust.caBundleFile: ca.pem: a private key, which is nobody else's to have"]],
    ["a broken certificate", bundle, { "ca.pem": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----" }, ["trust.caBundleFile: ca.pem: a text whose certificate 1 cannot be read"]],
    ["two bundles", { trust: { caBundleFile: "~/.ssh/x", caBundleConfigMap: { name: "ca" } } }, {}, ["trust.caBundleConfigMap: a ConfigMap beside the file ~/.ssh/x", "trust.caBundleFile: ~/.ssh/x: a private key, which is nobody else's to have"]],
    ["a login in the address", { proxy: { http: "http://u:p@proxy.example.com:3128" } }, {}, ["proxy.http: http://u:p@proxy.example.com:3128"]],
    ["half a login, of no proxy", { proxy: { username: "u" } }, {}, ["proxy.https: nothing", "proxy.password: nothing"]],
    ["a range that is none", { proxy: { http: proxy.http, noProxy: ["10.0.0.0/40"] } }, {}, ['proxy.noProxy: ["10.0.0.0/40"]']],
  ])("%s", (_, further, files, expected) => {
    expect(found(further, files)).toEqual(expected);
  });
});

describe("what the cluster says", () => {
  const objects: Record<string, object> = {
    "/api/v1/namespaces/kube-system/configmaps/kubeadm-config": { data: { ClusterConfiguration: "networking: { serviceSubnet: 10.96.0.0/12, podSubnet: 10.244.0.0/16, dnsDomain: corp.local }" } },
    "/apis/networking.k8s.io/v1/servicecidrs": { items: [{ spec: { cidrs: ["10.43.0.0/16", "fd43::/112"] } }] },
    "/api/v1/nodes": { items: [{ spec: { podCIDRs: ["10.42.0.0/24"] } }, { spec: {} }] },
    "/api/v1/namespaces/trust/configmaps/bundle": { data: { "roots.pem": "here" } },
    "/api/v1/namespaces/jenkins/secrets/login": { data: { username: Buffer.from("ann").toString("base64"), password: Buffer.from("secret\n").toString("base64") } },
  };
  const get = (without: string[] = []) => async <T>(target: string) => (without.includes(target) ? undefined : (objects[target] as T | undefined));

  test("its ranges and its domain, by what kubeadm was told or else by its objects", async () => {
    expect((await readNetwork(get(), { proxy }, {})).inside).toEqual(["10.96.0.0/12", "10.244.0.0/16", ".corp.local"]);
    expect((await readNetwork(get(Object.keys(objects).slice(0, 1)), { proxy }, {})).inside).toEqual(["10.43.0.0/16", "fd43::/112", "10.42.0.0/24"]);
    expect((await readNetwork(get(), {}, {})).inside).toEqual([]);
  });

  test("certificates and a login, each mistake with the object and what to do", async () => {
    const facts = await readNetwork(get(), { proxy }, { caBundle: { namespace: "trust", name: "bundle", key: "ca.crt" }, proxyLogin: { namespace: "jenkins", name: "login" } });
    expect(facts).toMatchObject({ login: { username: "ann", password: "secret" }, problems: [{ key: "trust.caBundleConfigMap", found: "ConfigMap bundle of namespace trust without key ca.crt" }] });
    expect((await readNetwork(get(), {}, { caBundle: { namespace: "trust", name: "bundle", key: "roots.pem" } })).problems).toEqual([expect.objectContaining({ found: "roots.pem of ConfigMap bundle: a text without a certificate" })]);
    expect((await readNetwork(get(), {}, { caBundle: { namespace: "jenkins", name: "gone", key: "ca.crt" } })).problems).toEqual([expect.objectContaining({ found: "no ConfigMap gone in namespace jenkins", fix: expect.stringContaining("kubectl -n jenkins create configmap gone --from-file=ca.crt=<file>") })]);
  });

  test("what may not be read is not said to be missing", async () => {
    const facts = await readNetwork(async () => forbidden, { proxy }, { caBundle: { namespace: "trust", name: "bundle", key: "ca.crt" }, proxyLogin: { namespace: "jenkins", name: "login" } });
    expect(facts).toMatchObject({ inside: [], problems: [
      { key: "trust.caBundleConfigMap", found: "ConfigMap bundle of namespace trust, which may not be read: forbidden", fix: expect.stringContaining("kubectl -n trust auth can-i get configmaps/bundle") },
      { key: "proxy.loginSecret", found: "Secret login of namespace jenkins, which may not be read: forbidden", fix: expect.stringContaining("get secrets/login") },
    ] });
    expect(facts).not.toHaveProperty("login");
  });

  test("come to what the config says", () => {
    const nodes = [{ metadata: { name: "n" }, status: { addresses: [{ type: "InternalIP", address: "192.0.2.9" }, { type: "Hostname", address: "n" }] } }];
    expect(completed({ proxy }, { network: { inside: ["10.0.0.0/8"], problems: [], caBundle: "pem", login: { username: "u", password: "p" } }, neighbours: { nodes } })).toEqual({ caBundle: "pem", proxy: { ...proxy, noProxy: [...proxy.noProxy, "10.0.0.0/8"], nodes: ["192.0.2.9", "n"], login: { username: "u", password: "p" } } });
    expect(completed({}, { neighbours: { nodes } })).toEqual({});
  });
});

test("Jenkins takes its proxy setting, with and without a login", () => {
  for (const login of [undefined, { username: "u", password: "p" }]) {
    const check = new Check();
    check.document({ jenkins: jenkinsProxy({ proxy: { ...proxy, ...(login && { login }) } }) as Keys });
    expect(check.findings).toEqual([]);
  }
  expect(jenkinsProxy({ proxy: { ...proxy, login: { username: "u", password: "p" } } })).toEqual({ proxy: { name: "proxy.example.com", port: 3129, userName: "${company-proxy-username}", secretPassword: "${company-proxy-password}", noProxyHost: expect.stringMatching(/^localhost\n\*\.svc\n10\.96\.\*\n/) } });
  expect(jenkinsProxy({})).toEqual({});
});

describe("a registry with a certificate of the company's, behind its proxy", () => {
  const impatient = { timeoutMs: 2000, attempts: 1, pauseMs: 10 };
  const listen = async (server: http.Server): Promise<number> => {
    closing.push(server);
    // A tunnel is no connection of the server's any more.
    server.on("connection", (socket) => sockets.push(socket));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return (server.address() as net.AddressInfo).port;
  };
  /** A registry that is nobody's by name but the proxy's. */
  const registry = () => {
    const { cert, key } = company.sign("registry.corp.test", "registry.corp.test", "127.0.0.1");
    return listen(https.createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) }, (request, response) => response.writeHead(request.url === "/v2/" || request.method === "HEAD" ? 200 : 404, { "docker-content-digest": `sha256:${"0".repeat(64)}` }).end()));
  };
  /** A proxy that leads to it whatever host it is asked for. */
  const gateway = async (to: number, login?: string) => {
    const asked: string[] = [];
    const server = http.createServer((_, response) => response.writeHead(405).end());
    server.on("connect", (request, socket: net.Socket) => {
      asked.push(request.url!);
      if (login && request.headers["proxy-authorization"] !== `Basic ${Buffer.from(login).toString("base64")}`) return socket.end("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
      const through = net.connect(to, "127.0.0.1", () => socket.write("HTTP/1.1 200 OK\r\n\r\n"));
      through.pipe(socket).pipe(through);
      for (const each of [through, socket]) each.on("error", () => each.destroy());
    });
    return { asked, port: await listen(server) };
  };

  test("needs no insecure: it is told to name the authority, and then taken", async () => {
    const host = `127.0.0.1:${await registry()}`;
    const problem = await registryProblem({ host, prefix: "p", insecure: false }, impatient);
    expect(problem).toMatchObject({ key: "registry.host", found: expect.stringContaining("unknown issuer"), fix: expect.stringContaining("trust.caBundleFile") });
    expect(JSON.stringify(problem)).not.toContain("insecure");
    expect(await registryProblem({ host, prefix: "p", insecure: false }, impatient, { caBundle: company.pem })).toBeUndefined();
    expect(await registryProblem({ host, prefix: "p", insecure: false }, impatient, { caBundle: authority(folder, "stranger").pem })).toMatchObject({ fix: expect.stringContaining("add the certificate") });
  });

  test("is asked through the proxy, with its login, and not where it is reached without", async () => {
    const { asked, port } = await gateway(await registry(), "ann:secret");
    const way = { http: `http://127.0.0.1:${port}`, https: `http://127.0.0.1:${port}`, noProxy: [] as string[] };
    const ask = (further: Partial<Proxy>) => registryProblem({ host: "registry.corp.test", prefix: "p", insecure: false }, impatient, { caBundle: company.pem, proxy: { ...way, ...further } });
    expect(await ask({ login: { username: "ann", password: "secret" } })).toBeUndefined();
    expect(await ask({})).toMatchObject({ found: expect.stringContaining("answers 407, it asks for a login") });
    expect(asked).toEqual(["registry.corp.test:443", "registry.corp.test:443"]);
    expect(await ask({ noProxy: [".corp.test"] })).toMatchObject({ found: expect.stringMatching(/ENOTFOUND|EAI_AGAIN|no answer/) });
    expect(asked).toHaveLength(2);
  });

  test("that is asked through a proxy that is not there is not blamed for it, nor told to be insecure", async () => {
    const away = "http://127.0.0.1:1";
    const ask = (insecure: boolean, further: Partial<Proxy> = {}) => registryProblem({ host: "registry.corp.test", prefix: "p", insecure }, impatient, { proxy: { http: away, https: away, noProxy: [], ...further } });
    const unreached = { found: expect.stringMatching(/^https:\/\/registry\.corp\.test\/v2\/: the proxy http:\/\/127\.0\.0\.1:1: .*ECONNREFUSED/), fix: expect.stringMatching(/^start the proxy, or correct proxy\.https: .*add registry\.corp\.test to proxy\.noProxy/) };
    expect(await ask(false)).toMatchObject({ key: "proxy.https", ...unreached });
    expect(JSON.stringify(await ask(false))).not.toContain("insecure");
    expect(await ask(true)).toMatchObject({ key: "proxy.https", found: expect.stringMatching(/^http:.* the proxy .*; https:.* the proxy /) });
    expect(await ask(true, { https: "http://127.0.0.1:2" })).toMatchObject({ key: "proxy.http" });
  });

  test("has a proxy that is looked at by itself: that it is there, and takes the login; not whether it leads everywhere", async () => {
    const { asked, port } = await gateway(1, "ann:secret");
    const at = `http://127.0.0.1:${port}`;
    const look = (further: Partial<Proxy>) => proxyProblems({ proxy: { http: at, https: at, noProxy: [], ...further } }, 1000);
    expect(await look({})).toMatchObject([{ key: "proxy.username", found: `the proxy ${at} answers 407, it asks for a login` }]);
    const refused = await look({ login: { username: "ann", password: "wr0ng" } });
    expect(refused).toMatchObject([{ key: "proxy.username", found: `the proxy ${at} answers 407, it refuses the login`, fix: expect.stringContaining("proxy.password") }]);
    expect(JSON.stringify(refused)).not.toContain("wr0ng");
    // The host behind it takes no connection.
    expect(await look({ login: { username: "ann", password: "secret" } })).toEqual([]);
    expect(asked).toHaveLength(3);
    expect(await look({ http: "http://127.0.0.1:1", login: { username: "ann", password: "secret" } })).toMatchObject([{ key: "proxy.http", found: expect.stringMatching(/ECONNREFUSED.*takes no connection from here/) }]);
    expect(await look({ http: "http://proxy.invalid:1", https: "http://proxy.invalid:1" })).toMatchObject([{ key: "proxy.https", expected: expect.stringContaining("the nodes, which may see it otherwise") }]);
    expect(await proxyProblems({})).toEqual([]);
    const deaf = await listen(http.createServer().on("connect", () => undefined));
    expect(await proxyProblems({ proxy: { http: `http://127.0.0.1:${deaf}`, https: `http://127.0.0.1:${deaf}`, noProxy: [] } }, 200)).toEqual([]);
  });

  test("is asked for an image in the same way, with nothing of the login on a command line", async () => {
    const { asked, port } = await gateway(await registry(), "ann:secret");
    const script = path.resolve(__dirname, "../../scripts/images/build-image.sh");
    const run = (ca?: string) => new Promise<string>((resolve) => {
      const child = spawn(script, ["--inspect", "--repository", "registry.corp.test/p/maven-dind", "--tag", "t"], { env: { PATH: process.env.PATH, TMPDIR: folder, ...(ca && { REGISTRY_CA: "-" }), ...proxyTexts({ proxy: { http: "http://127.0.0.1:1", https: `http://127.0.0.1:${port}`, noProxy: [], login: { username: "ann", password: "secret" } } }) } });
      let out = "";
      child.stdout.on("data", (chunk) => (out += chunk));
      child.on("close", () => resolve(out.trim()));
      child.stdin.end(ca ?? "");
    });
    expect([await run(company.pem), await run()]).toEqual(["present", "unknown"]);
    expect(asked[0]).toBe("registry.corp.test:443");
  });
});

test("a build in the cluster has its proxy and certificates from a file in its pod", () => {
  const bin = fs.mkdtempSync(path.join(folder, "bin-"));
  fs.mkdirSync(path.join(bin, "context"));
  fs.writeFileSync(path.join(bin, "context/Dockerfile"), "FROM scratch\n");
  // Unpacks what is sent, and runs in its place what the pod would, with its folder for the pod's.
  fs.writeFileSync(path.join(bin, "kubectl"), `#!/bin/bash
case "$*" in
  *"get pod"*) echo true ;;
  *"tar -C /work"*) mkdir -p ${bin}/work && tar -C ${bin}/work -xf - ;;
  *"cat /work/metadata.json"*) echo '{"containerimage.digest": "sha256:${"a".repeat(64)}"}' ;;
  *" -- "*) echo "$*" >>${bin}/argv; while [ "$1" != -- ]; do shift; done; shift; args=("\${@//\\/work/${bin}/work}"); exec env -i PATH=${bin}:$PATH "\${args[@]}" ;;
esac
`, { mode: 0o755 });
  fs.writeFileSync(path.join(bin, "buildctl-daemonless.sh"), `#!/bin/sh\n{ env; echo "$@"; } >${bin}/built\n`, { mode: 0o755 });
  fs.writeFileSync(path.join(bin, "curl"), "#!/bin/sh\nexit 7\n", { mode: 0o755 });
  const texts = proxyTexts({ proxy: { ...proxy, login: { username: "ann", password: "it's $ecret" } } });
  const args = ["--repository", "registry.corp.test/p/x", "--context", path.join(bin, "context"), "--builder", "in-cluster", "--namespace", "n", "--buildkit-image", "b", "--ca", company.file];
  const build = (env: Record<string, string>) => execFileSync(path.resolve(__dirname, "../../scripts/images/build-image.sh"), args, { env: { PATH: `${bin}:${process.env.PATH}`, TMPDIR: bin, ...env }, stdio: ["ignore", "pipe", "pipe"], encoding: "utf8" });
  build(texts);
  const built = fs.readFileSync(path.join(bin, "built"), "utf8");
  expect(`\n${built}`).toContain(`\nHTTPS_PROXY=${texts.HTTPS_PROXY}\n`);
  expect(built).toContain(`--opt build-arg:https_proxy=${texts.https_proxy}`);
  expect(built).toContain("SSL_CERT_DIR=/etc/ssl/certs:/etc/pki/tls/certs:/work/ca\n");
  expect(fs.readFileSync(path.join(bin, "work/ca/ca.crt"), "utf8")).toBe(company.pem);
  expect(fs.readFileSync(path.join(bin, "argv"), "utf8")).not.toMatch(/ecret|ann:/);
});

test("nothing of it is in a pod where nothing is set", () => {
  const { config } = parseConfig(stackConfig("sandbox"), environment);
  expect(config.surroundings).toEqual({});
  for (const agent of config.agents) expect(agentPod(agent, { ...agentSettings(config), surroundings: {} })).toEqual(agentPod(agent, agentSettings(config)));
});

test("a proxy with a login and a mirror of Central: Maven's one global settings file has both, and its block of plain HTTP with and without a mirror", () => {
  const around = { proxy: { http: "http://proxy.test:3128", https: "http://proxy.test:3128", noProxy: [], login: { username: "me", password: "pw" } } };
  const blocked = "<mirrorOf>external:http:*</mirrorOf>";
  const [plain, both] = [undefined, "https://m.test/maven2"].map((maven) => proxySecret(around, maven)!["maven-settings.xml"]);
  for (const text of [plain, both]) expect([text.includes("<username>me</username>"), text.includes(blocked)]).toEqual([true, true]);
  expect(both).toContain("<mirrorOf>central</mirrorOf><url>https://m.test/maven2</url>");
  expect(plain).not.toContain("<mirrorOf>central</mirrorOf>");
});
