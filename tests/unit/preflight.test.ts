import type { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import * as http from "node:http";
import type { AddressInfo } from "node:net";
import * as os from "node:os";
import * as path from "node:path";
import { parseConfig, type PlatformConfig } from "../../config";
import { neighbourPaths } from "../../checks/neighbours";
import { inspectCluster, kubeconfigFiles, preflight, registryProblem, storageClassProblem, storageSizeProblem } from "../../checks/preflight";
import { standbyNodeProblems } from "../../checks/standby";
import { environment, stackConfig } from "./mocks";

// Jest cannot load ES modules: the real library is bundled into a CommonJS one for it.
jest.mock("@kubernetes/client-node", () => {
  const root = jest.requireActual<typeof path>("node:path").resolve(__dirname, "../..");
  const options = ["node_modules/@kubernetes/client-node/dist/config.js", "--bundle", "--platform=node", "--format=cjs", "--log-level=error"];
  const text = jest.requireActual<{ execFileSync: typeof execFileSync }>("node:child_process").execFileSync(`${root}/node_modules/.bin/esbuild`, options, { cwd: root, encoding: "utf8", maxBuffer: 1e8 });
  const loaded = { exports: {} };
  new Function("module", "exports", "require", text)(loaded, loaded.exports, require);
  return loaded.exports;
});

/** The first question loads the library of the cluster. */
jest.setTimeout(60_000);
const impatient = { timeoutMs: 300, attempts: 2, pauseMs: 10 };
let folder: string;
const servers: http.Server[] = [];

beforeAll(() => (folder = fs.mkdtempSync(path.join(os.tmpdir(), "preflight-"))));
afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
});
afterAll(() => fs.rmSync(folder, { recursive: true }));

/** A server on loopback; answers what `answer` says for a path. */
async function serve(answer: (url: string, seen: number) => [number, object?]): Promise<string> {
  let seen = 0;
  const server = http.createServer((request, response) => {
    const [status, body] = answer(request.url ?? "", seen++);
    if (status !== 0) response.writeHead(status).end(JSON.stringify(body ?? {}));
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** An address on which nothing listens. */
async function nowhere(): Promise<string> {
  const host = await serve(() => [200]);
  const [server] = servers.splice(-1);
  await new Promise((resolve) => server.close(resolve));
  return host;
}

function kubeconfig(host: string, context = "admin@test"): string {
  const file = path.join(folder, `kubeconfig-${host.replace(/\W/g, "-")}-${context}`);
  const config = {
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: `cluster of ${context}`, cluster: { server: `http://${host}`, "insecure-skip-tls-verify": true } }],
    users: [{ name: "admin", user: { token: "t" } }],
    contexts: [{ name: context, context: { cluster: `cluster of ${context}`, user: "admin" } }],
    "current-context": context,
  };
  fs.writeFileSync(file, JSON.stringify(config));
  return file;
}

const namespaces = { jenkins: "jenkins", agents: "jenkins-agents", builds: "image-builds" };
const { config: sandbox } = parseConfig(stackConfig("sandbox"), environment);

const healthy = (url: string): [number, object?] => {
  if (url === "/readyz") return [200];
  if (url.includes("/namespaces/jenkins/")) return [404];
  if (Object.values(neighbourPaths).includes(url)) return [200, { items: [] }];
  if (url.endsWith("/services/kubernetes")) return [200, { spec: { clusterIPs: ["10.96.0.1"] } }];
  return [200, { endpoints: [{ addresses: ["192.0.2.11"] }, { addresses: ["192.0.2.10"] }] }];
};

describe("the cluster", () => {
  const inspect = (host: string) => inspectCluster({ cluster: { kubeconfig: kubeconfig(host), context: "admin@test" }, namespaces }, {}, impatient);

  test("that is ready tells where its API server is", async () => {
    expect(await inspect(await serve(healthy))).toEqual({
      apiServerAddresses: ["10.96.0.1", "192.0.2.10", "192.0.2.11"],
      neighbours: Object.fromEntries(Object.keys(neighbourPaths).map((what) => [what, []])),
    });
  });

  test("tells the controller's image, and the change that brought it", async () => {
    const deployment = (annotations?: object) => ({ metadata: { annotations }, spec: { template: { spec: { containers: [{ name: "other", image: "x" }, { name: "jenkins", image: "controller:1" }] } } } });
    const of = async (annotations?: object) => inspect(await serve((url) => (url.endsWith("/namespaces/jenkins/deployments/jenkins") ? [200, deployment(annotations)] : healthy(url))));
    expect(await of()).toMatchObject({ running: { image: "controller:1" } });
    expect(await of({ "build-platform/image-change": "t" })).toMatchObject({ running: { image: "controller:1", change: "t" } });
  });

  test("of both address families is reached on either of its control plane's", async () => {
    const node = (labels: object, ...addresses: string[]) => ({ metadata: { name: "n", labels }, status: { addresses: [{ type: "Hostname", address: "n" }, ...addresses.map((address) => ({ type: "InternalIP", address }))] } });
    const nodes = [node({ "node-role.kubernetes.io/control-plane": "" }, "192.0.2.10", "fd00::10"), node({}, "192.0.2.20", "fd00::20")];
    expect(await inspect(await serve((url) => (url === neighbourPaths.nodes ? [200, { items: nodes }] : healthy(url))))).toMatchObject({ apiServerAddresses: ["10.96.0.1", "192.0.2.10", "192.0.2.11", "fd00::10"] });
  });

  test("that is just restarting is waited for", async () => {
    const host = await serve((url, seen) => (seen === 0 ? [500] : healthy(url)));
    expect(await inspect(host)).toHaveProperty("apiServerAddresses");
  });

  test("that nobody serves is named with its address", async () => {
    const host = await nowhere();
    expect(await inspect(host)).toMatchObject({ key: "kubeContext", found: expect.stringMatching(new RegExp(`^http://${host}/readyz: .*ECONNREFUSED`)), fix: expect.stringContaining("kubectl --context admin@test") });
  });

  test("that does not answer is given up", async () => {
    expect(await inspect(await serve(() => [0]))).toMatchObject({ found: expect.stringContaining("no answer within 0.3 s") });
  });

  test("that stays unready is given up", async () => {
    expect(await inspect(await serve(() => [500]))).toMatchObject({ found: expect.stringContaining("/readyz: status 500") });
  });

  test("that answers strangers but refuses the credentials is told apart", async () => {
    const host = await serve((url) => (url === "/readyz" ? [200] : [401]));
    expect(await inspect(host)).toMatchObject({ key: "kubeContext", found: expect.stringContaining("refuses user admin: status 401") });
  });

  test("whose context does not exist lists those that do", async () => {
    const file = kubeconfig("127.0.0.1:1", "other");
    expect(await inspectCluster({ cluster: { kubeconfig: file, context: "admin@test" }, namespaces }, {}, impatient)).toEqual({
      key: "kubeContext",
      found: "admin@test",
      expected: `a context of ${file}: other`,
      fix: "pulumi config set kubeContext other",
    });
  });

  test("without a kubeconfig says where it was looked for", async () => {
    expect(await inspectCluster({ cluster: { kubeconfig: "/no/such/file", context: "c" }, namespaces }, {}, impatient)).toMatchObject({ key: "kubeconfig", found: "no file /no/such/file" });
    expect(await inspectCluster({ cluster: { context: "c" }, namespaces }, { KUBECONFIG: "/no/such/a:/no/such/b" }, impatient)).toMatchObject({ key: "kubeContext", found: "no file /no/such/a or /no/such/b" });
  });

  test("with a file that is no kubeconfig says so", async () => {
    const file = path.join(folder, "broken");
    fs.writeFileSync(file, "{ not: [yaml");
    expect(await inspectCluster({ cluster: { kubeconfig: file, context: "c" }, namespaces }, {}, impatient)).toMatchObject({ key: "kubeconfig", found: expect.stringContaining(file) });
  });

  test("may be in any of several kubeconfig files", async () => {
    const host = await serve(healthy);
    const files = [kubeconfig("127.0.0.1:1", "other"), kubeconfig(host)].join(path.delimiter);
    expect(await inspectCluster({ cluster: { context: "admin@test" }, namespaces }, { KUBECONFIG: files }, impatient)).toHaveProperty("apiServerAddresses");
  });
});

test("the kubeconfig is the config's, else $KUBECONFIG's, else the home directory's", () => {
  expect(kubeconfigFiles("/a", { KUBECONFIG: "/b" })).toEqual(["/a"]);
  expect(kubeconfigFiles(undefined, { KUBECONFIG: "/b:/c:" })).toEqual(["/b", "/c"]);
  expect(kubeconfigFiles(undefined, {})).toEqual([path.join(os.homedir(), ".kube/config")]);
});

describe("the registry", () => {
  const ask = (host: string, insecure = true) => registryProblem({ host, prefix: "p", insecure }, impatient);

  test.each([200, 401])("is there when it answers %d", async (status) => {
    expect(await ask(await serve((url) => [url === "/v2/" ? status : 404]))).toBeUndefined();
  });

  test.each([404, 500])("is none when it answers %d", async (status) => {
    expect(await ask(await serve(() => [status]))).toMatchObject({ key: "registry.host", found: expect.stringContaining(`status ${status}`) });
  });

  test("that nobody serves is named with both addresses tried", async () => {
    const host = await nowhere();
    const problem = await ask(host);
    expect(problem?.found).toContain(`http://${host}/v2/`);
    expect(problem?.found).toContain(`https://${host}/v2/`);
  });

  test("over plain HTTP is refused unless config allows it", async () => {
    const problem = await ask(await serve(() => [200]), false);
    expect(problem).toMatchObject({ key: "registry.host", fix: expect.stringContaining("registry.insecure: true") });
  });
});

describe("the size of a home that is there", () => {
  test("may be written in another way, and is free before there is one", () => {
    expect(storageSizeProblem("20Gi", "20480Mi")).toBeUndefined();
    expect(storageSizeProblem("20Gi", undefined)).toBeUndefined();
  });
  test("shrinks not, and grows not: both sizes and the way out are named", () => {
    expect(storageSizeProblem("10Gi", "20Gi")).toMatchObject({ key: "storageSize", found: "10Gi, but claim jenkins-home asks for 20Gi", expected: expect.stringContaining("shrinks no volume"), fix: expect.stringContaining("config set storageSize 20Gi") });
    expect(storageSizeProblem("50Gi", "20Gi")).toMatchObject({ expected: expect.stringContaining("cannot be resized"), fix: expect.stringContaining("--size 50Gi") });
  });
});

test("a home keeps the StorageClass it has", () => {
  expect(storageClassProblem("a", undefined)).toBeUndefined();
  expect(storageClassProblem("a", "a")).toBeUndefined();
  expect(storageClassProblem("b", "a")).toMatchObject({ key: "storageClass", found: "b, but claim jenkins-home has a", fix: expect.stringContaining("pulumi config set storageClass a") });
});

describe("a standby's node", () => {
  const node = (name: string, labels: object = {}, architecture = "amd64") => ({ metadata: { name, labels: { "kubernetes.io/hostname": `${name}-host`, ...labels } }, status: { nodeInfo: { architecture } } });
  const nodes = [node("n1"), node("n2", { disk: "ssd" }), node("n3", {}, "arm64")];
  const config = { ...sandbox, imageBuild: { ...sandbox.imageBuild, platforms: ["linux/amd64"] }, controller: { ...sandbox.controller, image: "controller", nodeSelector: {} }, builds: { controller: sandbox.builds.controller } };
  const found = (name: string, over: object = {}, made = false) => standbyNodeProblems({ ...config, ...over, backup: { standby: { node: name } } as unknown as PlatformConfig["backup"] }, { made, homeHost: "n1-host" }, { nodes }).map((problem) => problem.found);
  const ssd = { controller: { ...config.controller, nodeSelector: { disk: "ssd" } } };

  test("is there, is another than the home's, and takes Jenkins", () => {
    expect(found("n2", ssd)).toEqual([]);
    expect(found("n9")).toEqual([expect.stringMatching(/n9, which is no node/)]);
    expect(found("n1")).toEqual([expect.stringMatching(/n1, on which the home lies/)]);
    expect(found("n3")).toEqual([expect.stringMatching(/n3, which is arm64, .* built for amd64/)]);
    expect(found("n3", ssd)).toEqual([expect.stringMatching(/lacks label disk=ssd/)]);
  });
  test("may have Jenkins once the standby was made, and is not judged where nodes may not be read", () => {
    expect(found("n1", {}, true)).toEqual([]);
    expect(standbyNodeProblems({ ...config, backup: { standby: { node: "n9" } } as unknown as PlatformConfig["backup"] }, { made: false }, {})).toEqual([]);
  });
  test("stops the first update, and is doubted by later ones; a failover under way stops them all", async () => {
    let there: Record<string, object> = { "/persistentvolumeclaims/jenkins-home": { spec: { volumeName: "pvc-1", resources: { requests: { storage: sandbox.storage.size } }, storageClassName: sandbox.storage.className } } };
    const host = await serve((url) => {
      if (url === neighbourPaths.nodes) return [200, { items: nodes }];
      if (url === "/api/v1/persistentvolumes/pvc-1") return [200, { spec: { nodeAffinity: { required: { nodeSelectorTerms: [{ matchExpressions: [{ key: "kubernetes.io/hostname", values: ["n1-host"] }] }] } } } }];
      const name = Object.keys(there).find((end) => url.endsWith(end));
      return name === undefined ? healthy(url) : [200, there[name]];
    });
    const look = async (name: string) => {
      const backup = { standby: { node: name } } as unknown as PlatformConfig["backup"];
      const { problems, warnings } = await preflight({ ...sandbox, backup, cluster: { kubeconfig: kubeconfig(host), context: "admin@test" }, registry: { host, prefix: "p", insecure: true }, ingress: { ...sandbox.ingress, controller: "traefik" } }, "unit", {}, impatient);
      return [problems.filter(({ key }) => key.startsWith("backup.standby")).map((problem) => problem.found), warnings.filter((line) => line.startsWith("backup.standby")).length];
    };
    expect(await look("n1")).toEqual([["n1, on which the home lies"], 0]);
    there = { ...there, "/persistentvolumeclaims/jenkins-home-standby": {} };
    expect(await look("n9")).toEqual([[], 1]);
    there = { ...there, "/configmaps/jenkins-failover": { data: { state: '{"phase":"swapped"}' } } };
    expect(await look("n2")).toEqual([[expect.stringMatching(/failover that has not come to its end \(last step done: swapped\)/)], 0]);
  });
});

describe("together", () => {
  const configOf = (host: string, registry: string, builder: "buildx" | "in-cluster"): PlatformConfig => ({
    ...sandbox,
    cluster: { kubeconfig: kubeconfig(host), context: "admin@test" },
    registry: { host: registry, prefix: "p", insecure: true },
    imageBuild: { builder, platforms: [], deleteOnDestroy: false },
    // Of ingress-nginx every preview says something.
    ingress: { ...sandbox.ingress, controller: "traefik" },
  });

  test("what is wrong with the way in is said, and stops nobody", async () => {
    const asked: string[] = [];
    const host = await serve((url) => (asked.push(url), healthy(url)));
    const look = async (ingress: Partial<PlatformConfig["ingress"]>) => {
      const config = configOf(host, host, "in-cluster");
      return preflight({ ...config, ingress: { ...config.ingress, ...ingress } }, "unit", {}, impatient);
    };
    expect(await look({ controller: "nginx" })).toMatchObject({ problems: [], warnings: [expect.stringMatching(/^ingress\.controller: nginx/)] });
    expect(await look({ tls: { secretName: "jenkins-tls" } })).toMatchObject({ problems: [], warnings: [expect.stringMatching(/^ingress\.tlsSecret: no Secret jenkins-tls in namespace jenkins/)] });
    // cert-manager makes it once the Ingress is there.
    expect(await look({ tls: { secretName: "made", clusterIssuer: "letsencrypt" } })).toMatchObject({ problems: [], warnings: [] });
    expect(asked.filter((url) => url.includes("/secrets/"))).toEqual(["/api/v1/namespaces/jenkins/secrets/jenkins-tls", "/api/v1/namespaces/jenkins/secrets/made"]);
  });

  test("the certificate of each host is looked at, and the Gateway where one is wanted stops the update where it is not there", async () => {
    const host = await serve(healthy);
    const config = configOf(host, host, "in-cluster");
    const look = (ingress: Partial<PlatformConfig["ingress"]>) => preflight({ ...config, ingress: { ...config.ingress, ...ingress } }, "unit", {}, impatient);
    const hosts = [{ name: "files.sandbox.test", secretName: "files-tls" }];
    expect((await look({ tls: { secretName: "jenkins-tls" }, hosts })).warnings).toEqual([expect.stringMatching(/^ingress\.tlsSecret: no Secret jenkins-tls/), expect.stringMatching(/^ingress\.hosts\[0\]\.tlsSecret: no Secret files-tls/)]);
    expect((await look({ controller: "gateway", install: false, gateway: { name: "edge", namespace: "infra" } })).problems.map(({ key }) => key)).toEqual(["ingress.controller"]);
  });

  test("without cert-manager an Ingress that asks it is a warning; an object of its own beside a Gateway cannot be made", async () => {
    const host = await serve((url) => (url.includes("cert-manager.io") ? [404, {}] : healthy(url)));
    const config = configOf(host, host, "in-cluster");
    const look = (ingress: Partial<PlatformConfig["ingress"]>) => preflight({ ...config, ingress: { ...config.ingress, tls: { secretName: "made", clusterIssuer: "letsencrypt" }, ...ingress } }, "unit", {}, impatient);
    const said = /^ingress\.clusterIssuer: letsencrypt, while the cluster knows no Certificate/;
    expect(await look({})).toMatchObject({ problems: [], warnings: [expect.stringMatching(said)] });
    expect((await look({ controller: "gateway" })).problems.map(({ key }) => key)).toEqual(["ingress.controller", "ingress.clusterIssuer"]);
  });

  test.each([403, 500])("a Gateway of which the API server says %i is not judged", async (status) => {
    const host = await serve((url) => (url.includes("gateway.networking.k8s.io") ? [status, {}] : healthy(url)));
    const config = configOf(host, host, "in-cluster");
    const wanted = { ...config, ingress: { ...config.ingress, controller: "gateway" as const, install: false, gateway: { name: "edge", namespace: "infra" } } };
    expect((await preflight(wanted, "unit", {}, impatient)).problems).toEqual([]);
  });

  test("a changed size of the home is reported before anything is touched", async () => {
    const claim = { spec: { storageClassName: "openebs-hostpath", resources: { requests: { storage: "10Gi" } } } };
    const host = await serve((url) => (url.endsWith("/persistentvolumeclaims/jenkins-home") ? [200, claim] : healthy(url)));
    expect((await preflight(configOf(host, host, "in-cluster"), "unit", {}, impatient)).problems.map(({ key }) => key)).toEqual(["storageSize"]);
  });

  test("a Secret that the running controller would wait for, and be away for meanwhile, is reported; before the first start there is none to be away", async () => {
    const files = [{ secret: "gh", key: "token" }, { secret: "gh", key: "tokn" }, { secret: "gone", key: "x" }, { secret: "hidden", key: "y" }];
    const there = (url: string, running: boolean): [number, object?] => {
      if (url.endsWith("/deployments/jenkins")) return running ? [200, {}] : [404];
      if (url.endsWith("/secrets/gh")) return [200, { data: { token: "x" } }];
      // A Secret without a key is there all the same, and may be one for the environment.
      if (url.endsWith("/secrets/empty")) return [200, {}];
      if (url.endsWith("/secrets/vault")) return [200, { data: { "admin-user": "x" } }];
      return url.endsWith("/secrets/hidden") ? [403] : healthy(url);
    };
    const look = async (running: boolean) => {
      const host = await serve((url) => there(url, running));
      const config = configOf(host, host, "in-cluster");
      return (await preflight({ ...config, controller: { ...config.controller, envFrom: ["gh", "empty", "absent", "hidden"] }, secretFiles: files, admin: { user: "admin", passwordVersion: 1, existingSecret: "vault" } }, "unit", {}, impatient)).problems;
    };
    expect(await look(true)).toEqual([
      expect.objectContaining({ key: "secretFiles[1].key", found: "Secret gh of namespace jenkins has no key tokn" }),
      expect.objectContaining({ key: "secretFiles[2].secret", found: "no Secret gone in namespace jenkins", fix: expect.stringContaining("kubectl -n jenkins create secret generic gone --from-file=x=<file>") }),
      expect.objectContaining({ key: "adminExistingSecret", found: "Secret vault of namespace jenkins has no key admin-password" }),
      { key: "controller.envFrom[2]", found: "no Secret absent in namespace jenkins", expected: "a Secret: Jenkins would be away until there is one", fix: "kubectl -n jenkins create secret generic absent --from-literal=<NAME>=<value>" },
    ]);
    expect(await look(false)).toEqual([]);
  });

  test("a network that does not serve the ports of the ingress stops a new platform, and one that is there is warned", async () => {
    const look = async (services: object[]) => {
      const host = await serve((url) => {
        if (url.endsWith("/configmaps/cilium-config")) return [200, { data: { "kube-proxy-replacement": "true" } }];
        return url === neighbourPaths.services ? [200, { items: services }] : healthy(url);
      });
      return preflight(configOf(host, host, "in-cluster"), "unit", {}, impatient);
    };
    const own = { metadata: { name: "ingress-nginx-controller", namespace: "ingress-nginx" }, spec: { ports: [{ nodePort: 80 }, { nodePort: 443 }] } };
    expect(await look([])).toMatchObject({ problems: [{ key: "nodePortRange", found: expect.stringContaining("without 80 and 443"), fix: expect.stringContaining("80,32767") }], warnings: [] });
    expect(await look([own])).toMatchObject({ problems: [], warnings: [expect.stringMatching(/^nodePortRange: Cilium .*without 80 and 443.*node-port-range: "80,32767"/)] });
  });

  test.each([["v1.36.5", []], ["v1.34.3", [expect.stringMatching(/^kubeContext: Kubernetes 1\.34 is past its support/)]], ["v1.38.0", [expect.stringContaining("not tried with Kubernetes 1.38")]]])("a server of %s is warned of where nobody tried it", async (gitVersion, warnings) => {
    const host = await serve((url) => (url === "/version" ? [200, { gitVersion }] : healthy(url)));
    expect(await preflight(configOf(host, host, "in-cluster"), "unit", {}, impatient)).toMatchObject({ problems: [], warnings });
  });

  test("the API server's own port is refused also where no node is visited", async () => {
    const host = await serve((url) => (url === "/api/v1/nodes" ? [200, { items: [{ metadata: { name: "n" }, status: { addresses: [{ type: "InternalIP", address: "127.0.0.1" }] } }] }] : healthy(url)));
    const config = configOf(host, host, "in-cluster");
    const { problems } = await preflight({ ...config, nodePorts: undefined, ingress: { ...config.ingress, httpsNodePort: Number(host.split(":")[1]) } }, "unit", {}, impatient);
    expect(problems).toEqual([expect.objectContaining({ key: "ingress.httpsNodePort", found: `${host.split(":")[1]}, where the kubeconfig reaches the API server on a node` })]);
  });

  test("everything that does not answer is reported at once", async () => {
    const host = await nowhere();
    const { problems } = await preflight(configOf(host, host, "buildx"), "unit", {}, impatient);
    expect(problems.map((p) => p.key)).toEqual(["kubeContext", "registry.host"]);
  });

  test("a registry that only the cluster must reach is not asked from here", async () => {
    const host = await serve(healthy);
    expect(await preflight(configOf(host, await nowhere(), "in-cluster"), "unit", {}, impatient)).toMatchObject({ apiServerAddresses: ["10.96.0.1", "192.0.2.10", "192.0.2.11"], problems: [] });
  });

  test("the stack's own registry is not asked from here either, with a local builder; a Secret that may not be read is said to be so", async () => {
    const host = await serve((url) => (url.endsWith("/secrets/login") ? [403] : healthy(url)));
    const own = { namespace: "image-registry", nodesNamespace: "image-pulls", port: 61500, size: "20Gi", jobsSize: "20Gi" };
    const { problems } = await preflight({ ...configOf(host, await nowhere(), "buildx"), imageRegistry: own, surroundingsIn: { proxyLogin: { namespace: "jenkins", name: "login" } } }, "unit", {}, impatient);
    expect(problems).toEqual([expect.objectContaining({ key: "proxy.loginSecret", found: expect.stringContaining("forbidden") })]);
  });

  test("a proxy that is not there is warned of, and is one mistake where the registry is asked through it", async () => {
    const host = await serve((url) => (/servicecidrs|kubeadm-config/.test(url) ? [404] : healthy(url)));
    const away = `http://${await nowhere()}`;
    const look = async (builder: "buildx" | "in-cluster") => preflight({ ...configOf(host, "registry.example.com", builder), surroundings: { proxy: { http: away, https: away, noProxy: [] } } }, "unit", {}, impatient);
    expect(await look("in-cluster")).toMatchObject({ problems: [], warnings: [expect.stringMatching(/^proxy\.https: the proxy http:.* takes no connection from here; expected .*the nodes, which may see it otherwise: start the proxy, or correct proxy\.https/)] });
    expect(await look("buildx")).toMatchObject({ problems: [{ key: "proxy.https" }], warnings: [] });
  });

  test("what another environment has is reported as well, and what may not be listed is not judged", async () => {
    const theirs = { metadata: { name: "jenkins", labels: { "app.kubernetes.io/part-of": "build-platform", "build-platform/stack": "other" } } };
    const host = await serve((url) => (url === neighbourPaths.namespaces ? [200, { items: [theirs] }] : Object.values(neighbourPaths).includes(url) ? [403] : healthy(url)));
    const { problems } = await preflight(configOf(host, host, "in-cluster"), "unit", {}, impatient);
    expect(problems).toEqual([expect.objectContaining({ key: "namespace", found: "Namespace jenkins of stack other" })]);
  });
});
