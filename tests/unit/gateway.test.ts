import * as fc from "fast-check";
import { parse as parseYaml } from "yaml";
import { gatewayProblems, readGateway, type GatewayFacts, type Listener, type Route, type Selector } from "../../checks/gateway";
import { judgeGateway } from "../../cli/doctor";
import { parseConfig } from "../../config";
import { JenkinsMaster } from "../../components/jenkins-master";
import { traefikSettings } from "../../components/ingress-traefik";
import { ingressArgs, jenkinsArgs } from "../../config/arguments";
import { all, environment, settled, stackConfig, the, useMocks } from "./mocks";

const gateway = { name: "edge", namespace: "infra" };
const parse = (ingress: Record<string, unknown> = {}) => parseConfig({ ...stackConfig("sandbox"), domain: "ci.example.com", ingress: { controller: "gateway", gateway, ...ingress } }, environment);
const keysOf = (ingress: Record<string, unknown>) => parse(ingress).problems.map(({ key }) => key);

describe("config", () => {
  test("names a Gateway with controller: gateway, and with no other", () => {
    expect(keysOf({})).toEqual([]);
    expect(keysOf({ gateway: { name: "edge" } })).toEqual(["ingress.gateway.namespace"]);
    expect(keysOf({ controller: "traefik" })).toEqual(["ingress.gateway"]);
    expect(keysOf({ controller: "none" })).toEqual(["ingress.gateway"]);
  });

  test("serves the host that people use", () => {
    expect(keysOf({ externalUrl: "https://people.example.com" })).toEqual(["ingress.externalUrl"]);
    expect(keysOf({ externalUrl: "https://people.example.com", hosts: [{ name: "people.example.com" }] })).toEqual([]);
  });

  test("leaves ports, certificates and limits to it", () => {
    const theirs = { tlsSecret: "tls", annotations: { a: "b" }, maxBodySize: "1g", replicas: 2, httpNodePort: 8080 };
    expect(keysOf(theirs).sort()).toEqual(Object.keys(theirs).map((key) => `ingress.${key}`).sort());
    expect(keysOf({ externalUrl: "https://ci.example.com/jenkins", hosts: [{ name: "old.example.com" }] })).toEqual([]);
    expect(keysOf({ externalUrl: "https://ci.example.com", trustedProxies: ["192.0.2.1"] })).toEqual(["ingress.trustedProxies"]);
  });

  test("names none where the stack makes one, which has ports and certificates as an Ingress has them", () => {
    const own = { gateway: undefined, tlsSecret: "tls", hstsSeconds: 60, replicas: 2, httpNodePort: 8080, httpsNodePort: 8443, hosts: [{ name: "old.example.com", tlsSecret: "old" }], trustedProxies: ["192.0.2.1"], proxyProtocol: true, externalTrafficPolicy: "Local" };
    expect(parse(own).problems).toEqual([]);
    expect(parse(own).config.ingress).toMatchObject({ controller: "gateway", install: true, namespace: "ingress-nginx", tls: { secretName: "tls" } });
    expect(keysOf({ gateway: undefined, annotations: { a: "b" }, maxBodySize: "1g" })).toEqual(["ingress.annotations", "ingress.maxBodySize"]);
    expect(keysOf({ gateway: undefined, trustedProxies: ["192.0.2.1"] })).toEqual(["ingress.externalTrafficPolicy"]);
  });

  test("lets a proxy before it say that people came by https, beside a certificate or in place of one, and sends on who did not", () => {
    const proxied = { gateway: undefined, trustedProxies: ["192.0.2.1"], externalTrafficPolicy: "Local", hosts: [{ name: "old.example.com" }] };
    const settings = (further: Record<string, unknown>) => {
      const { config, problems } = parse({ ...proxied, ...further });
      expect(problems).toEqual([]);
      return parseYaml(traefikSettings(ingressArgs(config))).http;
    };
    for (const further of [{ tlsSecret: "tls" }, { tlsSecret: "tls", httpsNodePort: 8443 }, { externalUrl: "https://ci.example.com" }])
      expect(settings(further).routers["to-https"].rule).toMatch(/^\(Host\(`ci.example.com`\) \|\| Host\(`old.example.com`\)\) && !HeaderRegexp\(`X-Forwarded-Proto`, `\(\?i\)\^\(https\|wss\)\$`\)/);
    // As with an Ingress: on another port nobody is sent anywhere.
    for (const further of [{}, { externalUrl: "https://ci.example.com:8443" }]) expect(settings(further)).not.toHaveProperty("routers");
  });

  test("takes requests to come from the Gateway's namespace, or from that of its pods", () => {
    expect(parse().config.ingress).toMatchObject({ install: false, namespace: "infra" });
    expect(parse({ namespace: "ingress-nginx" }).config.ingress.namespace).toBe("ingress-nginx");
    expect(parse({ namespace: "envoy" }).config.ingress.namespace).toBe("envoy");
  });
});

test("an HTTPRoute takes the place of the Ingress", async () => {
  await useMocks(() => "x");
  const { config } = parse({ gateway: { ...gateway, sectionName: "https" }, externalUrl: "https://ci.example.com/jenkins", hosts: [{ name: "old.example.com" }] });
  new JenkinsMaster("jenkins", { ...jenkinsArgs(config, { storageClassName: "s", ingressClassName: "i", ingressNamespace: config.ingress.namespace, references: {}, apiServerAddresses: [], surroundings: {} }), rehearsal: undefined });
  await settled();
  expect(all("Ingress")).toEqual([]);
  const route = the("HTTPRoute").inputs;
  expect(route.apiVersion).toBe("gateway.networking.k8s.io/v1");
  expect(route.metadata.annotations).toEqual({ "build-platform/external-url": "https://ci.example.com/jenkins" });
  expect(route.spec).toEqual({
    parentRefs: [{ group: "gateway.networking.k8s.io", kind: "Gateway", name: "edge", namespace: "infra", sectionName: "https" }],
    hostnames: ["ci.example.com", "old.example.com"],
    rules: [{ matches: [{ path: { type: "PathPrefix", value: "/jenkins" } }], backendRefs: [{ group: "", kind: "Service", name: "jenkins", port: 8080, weight: 1 }], timeouts: { request: "0s" } }],
  });
  expect(JSON.stringify(the("NetworkPolicy", "jenkins").inputs.spec)).toContain('"kubernetes.io/metadata.name":"infra"');
}, 60_000);

test("a Gateway of the stack's own has a listener for each host's certificate, and the route goes to all of them", async () => {
  await useMocks(() => "x");
  const { config } = parse({ gateway: undefined, clusterIssuer: "letsencrypt", hosts: [{ name: "old.example.com" }] });
  new JenkinsMaster("jenkins", { ...jenkinsArgs(config, { storageClassName: "s", ingressClassName: "i", ingressNamespace: "edge", gatewayClass: { name: "class", http: 8080, https: 8443 }, references: {}, apiServerAddresses: [], surroundings: {} }), rehearsal: undefined });
  await settled();
  expect(all("Ingress")).toEqual([]);
  const listener = (name: string, hostname: string, secret: string) => ({ name, protocol: "HTTPS", port: 8443, hostname, allowedRoutes: { namespaces: { from: "Same" } }, tls: { mode: "Terminate", certificateRefs: [{ group: "", kind: "Secret", name: secret }] } });
  expect(the("Gateway").inputs).toMatchObject({
    metadata: { name: "jenkins", namespace: "jenkins" },
    spec: { gatewayClassName: "class", listeners: [{ name: "http", protocol: "HTTP", port: 8080, allowedRoutes: { namespaces: { from: "Same" } } }, listener("https", "ci.example.com", "jenkins-tls"), listener("https-1", "old.example.com", "old.example.com-tls")] },
  });
  // Those of an Ingress are called after their Secret, and there until it is gone.
  expect(all("Certificate").map(({ inputs }) => [inputs.metadata.name, inputs.spec])).toEqual([["ci.example.com", "jenkins-tls"], ["old.example.com", "old.example.com-tls"]].map(([host, secretName]) => [`jenkins-gateway-${host}`, { secretName, dnsNames: [host], issuerRef: { group: "cert-manager.io", kind: "ClusterIssuer", name: "letsencrypt" } }]));
  expect(the("HTTPRoute").inputs.spec.parentRefs).toEqual([{ group: "gateway.networking.k8s.io", kind: "Gateway", name: "jenkins" }]);
  expect(the("HTTPRoute").inputs.metadata.annotations).toEqual({ "build-platform/external-url": "https://ci.example.com/" });
}, 60_000);

describe("preview and doctor, of a Gateway of the stack's own", () => {
  const { config } = parse({ gateway: undefined });
  const kinds = (...names: string[]) => ({ resources: names.map((name) => ({ name })) });
  const standard = async (path: string) => (path.endsWith("/gateways/jenkins") ? null : path.endsWith("/v1beta1") ? kinds("referencegrants") : kinds("gatewayclasses", "gateways", "gateways/status", "httproutes", "grpcroutes", "tlsroutes", "backendtlspolicies"));

  test("the standard channel is enough", async () => {
    const facts = await readGateway(config, standard);
    expect(facts).toEqual({ missing: [] });
    expect(judgeGateway(config, facts!)).toEqual([expect.objectContaining({ state: "ok", found: "can be made" })]);
    expect(await readGateway(config, async () => undefined)).toEqual({});
  });

  test("what cannot be read is not called well, and a Gateway that is there is asked what its controller says", async () => {
    expect(judgeGateway(config, {})).toEqual([expect.objectContaining({ state: "warn", found: expect.stringContaining("not known whether it can be made") })]);
    expect(judgeGateway(parse().config, { routes: true })).toEqual([expect.objectContaining({ state: "warn", where: "edge", found: expect.stringContaining("not known") })]);
    const said = async (...conditions: { type: string; status: string; reason?: string; message?: string }[]) =>
      judgeGateway(config, (await readGateway(config, async (path) => (path === "/apis/gateway.networking.k8s.io/v1/namespaces/jenkins/gateways/jenkins" ? { spec: { listeners: [] }, status: { conditions } } : standard(path))))!);
    expect(await said({ type: "Accepted", status: "True" }, { type: "Programmed", status: "True" })).toEqual([expect.objectContaining({ state: "ok", found: "is there" })]);
    expect(await said({ type: "Accepted", status: "True" }, { type: "Programmed", status: "Unknown", reason: "Pending", message: "Waiting for controller" })).toEqual([
      expect.objectContaining({ state: "warn", found: "is there, but not Programmed: Pending, Waiting for controller", fix: "kubectl -n jenkins describe gateway jenkins" }),
    ]);
  });

  test("none of it, and an older one, stop the update and say what is missing", async () => {
    const none = (await readGateway(config, async () => null))!;
    expect(judgeGateway(config, none)[0]).toMatchObject({ state: "fail", where: "ingress.controller" });
    expect(none.missing).toHaveLength(7);
    const older = (await readGateway(config, async (path) => (path.endsWith("/v1") ? kinds("gatewayclasses", "gateways", "httproutes", "grpcroutes") : standard(path))))!;
    expect(gatewayProblems(config, older)).toEqual([expect.objectContaining({ found: "gateway, while the cluster has no tlsroutes, backendtlspolicies of gateway.networking.k8s.io", expected: expect.stringContaining("1.5 or newer") })]);
  });
});

describe("preview and doctor", () => {
  const { config } = parse({ hosts: [{ name: "old.example.com" }] });
  const listener = (over: Partial<Listener> = {}): Listener => ({ name: "web", protocol: "HTTPS", allowedRoutes: { namespaces: { from: "All" } }, ...over });
  const facts = (...listeners: Listener[]): GatewayFacts => ({ routes: true, gateway: { spec: { listeners } }, labels: { team: "ci" } });
  const look = (seen: GatewayFacts) => gatewayProblems(config, seen).map(({ key, found }) => [key, found]);

  test("a Gateway that takes the route is well, by any of its listeners for each host", () => {
    expect(look(facts(listener()))).toEqual([]);
    expect(look(facts(listener({ name: "a", hostname: "ci.example.com" }), listener({ name: "b", hostname: "*.example.com", protocol: "HTTP" })))).toEqual([]);
    const selectors: Selector[] = [{ matchLabels: { team: "ci" } }, { matchLabels: { "kubernetes.io/metadata.name": "jenkins" } }, { matchExpressions: [{ key: "team", operator: "In", values: ["ci"] }, { key: "closed", operator: "DoesNotExist" }] }];
    for (const selector of selectors)
      expect(look(facts(listener({ allowedRoutes: { namespaces: { from: "Selector", selector } } })))).toEqual([]);
    expect(judgeGateway(config, facts(listener()))).toEqual([expect.objectContaining({ state: "ok" })]);
  });

  test.each<[string, GatewayFacts, string, RegExp]>([
    ["no Gateway API", { routes: false }, "ingress.controller", /no HTTPRoute of gateway\.networking\.k8s\.io\/v1/],
    ["an API that is too old for a route without an end", { routes: true, version: "v1.1.0" }, "ingress.controller", /Gateway API v1\.1\.0/],
    ["no Gateway", { routes: true, gateway: null }, "ingress.gateway.name", /^no Gateway edge in namespace infra$/],
    ["its own namespace alone, which is what is usual", facts(listener({ allowedRoutes: undefined as never })), "domain", /web takes routes of namespace infra alone/],
    ["no HTTP", facts(listener({ protocol: "TLS" })), "domain", /web speaks TLS/],
    ["other kinds of routes", facts(listener({ allowedRoutes: { namespaces: { from: "All" }, kinds: [{ kind: "GRPCRoute" }] } })), "domain", /web takes GRPCRoute alone/],
    ["another host", facts(listener({ hostname: "*.shop.example.com" })), "domain", /web serves \*\.shop\.example\.com, not ci\.example\.com/],
    ["the domain alone", facts(listener({ hostname: "ci.example.com" })), "ingress.hosts[0].name", /not old\.example\.com/],
  ])("%s is said before anything is made", (_, seen, key, found) => {
    const [first] = look(seen);
    expect(first).toEqual([key, expect.stringMatching(found)]);
    expect(judgeGateway(config, seen)[0]).toMatchObject({ state: "fail", where: key });
  });

  test("labels that a listener asks of the namespace are a warning: they may come with the same up", () => {
    const others = facts(listener({ allowedRoutes: { namespaces: { from: "Selector", selector: { matchLabels: { team: "web" } } } } }));
    expect(gatewayProblems(config, others)[0]).toMatchObject({ maybe: true, key: "domain", found: expect.stringContaining('with {"matchLabels":{"team":"web"}} alone') });
    expect(judgeGateway(config, others)[0]).toMatchObject({ state: "warn" });
    expect(gatewayProblems(config, facts(listener({ allowedRoutes: { namespaces: { from: "None" } } })))[0]).not.toHaveProperty("maybe");
  });

  test("what may not be read is not judged", () => {
    expect(look({})).toEqual([]);
    expect(look({ routes: true, version: "v1.2.0" })).toEqual([]);
  });

  test("somebody else's route of the same host and path on the Gateway is told; one that redirects alone, or of another path, is not", () => {
    const route = (over: Partial<Route["spec"]>, name = "web", value?: string): Route => ({ metadata: { name, namespace: name === "jenkins" ? "jenkins" : "team" }, spec: { parentRefs: [gateway], hostnames: ["ci.example.com"], rules: [{ matches: [{ path: { value: value ?? "/" } }], backendRefs: [{}] }], ...over } });
    const beside = (...others: Route[]) => look({ ...facts(listener()), others });
    expect(beside(route({}))).toEqual([["domain", "ci.example.com, which HTTPRoute team/web serves already on Gateway infra/edge"]]);
    expect(beside(route({ rules: [{ backendRefs: [{}] }] }))).toHaveLength(1);
    expect(beside(route({ hostnames: ["old.example.com"] }))).toEqual([["ingress.hosts[0].name", expect.stringContaining("old.example.com, which HTTPRoute team/web")]]);
    expect(beside(route({}, "jenkins"), route({}, "web", "/docs"), route({ rules: [{}] }), route({ parentRefs: [{ name: "edge" }] }), route({ hostnames: ["shop.example.com"] }))).toEqual([]);
  });

  test("a listener that the Gateway does not have", () => {
    const named = parse({ gateway: { ...gateway, sectionName: "https" } }).config;
    expect(gatewayProblems(named, facts(listener()))).toEqual([expect.objectContaining({ key: "ingress.gateway.sectionName", expected: expect.stringContaining("web") })]);
    expect(gatewayProblems(named, facts(listener({ name: "https" }), listener({ protocol: "TCP" })))).toEqual([]);
  });

  test("a listener's star stands for one label or more, and for nothing in the middle of one", () => {
    const label = fc.stringMatching(/^[a-z][a-z0-9]{0,5}$/);
    fc.assert(fc.property(label, label, (a, b) => {
      const one = parseConfig({ ...stackConfig("sandbox"), domain: `${a}.${b}.test`, ingress: { controller: "gateway", gateway } }, environment).config;
      expect(gatewayProblems(one, facts(listener({ hostname: `*.${b}.test` })))).toEqual([]);
      expect(gatewayProblems(one, facts(listener({ hostname: `*.x${b}.test` })))).toHaveLength(1);
    }), { numRuns: 10 });
  });

  test("the cluster is asked where a Gateway is wanted, and only there", async () => {
    const asked: string[] = [];
    const get = async (path: string): Promise<unknown> => {
      asked.push(path);
      if (path.endsWith("/httproutes")) return { items: [] };
      if (path.includes("/customresourcedefinitions/")) return { metadata: { annotations: { "gateway.networking.k8s.io/bundle-version": "v1.3.0" } } };
      if (path.endsWith("/v1")) return { resources: [{ name: "gateways" }, { name: "httproutes" }] };
      return path.includes("/gateways/") ? { spec: { listeners: [] } } : { metadata: { labels: { team: "ci" } } };
    };
    expect(await readGateway(config, get)).toEqual({ routes: true, version: "v1.3.0", others: [], gateway: { spec: { listeners: [] } }, labels: { team: "ci" } });
    expect(asked).toEqual(["/apis/gateway.networking.k8s.io/v1", "/apis/gateway.networking.k8s.io/v1/namespaces/infra/gateways/edge", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/httproutes.gateway.networking.k8s.io", "/apis/gateway.networking.k8s.io/v1/httproutes", "/api/v1/namespaces/jenkins"]);
    expect(await readGateway(config, async () => undefined)).toEqual({});
    expect(await readGateway(config, async () => null)).toEqual({ routes: false, gateway: null });
    expect(await readGateway(parseConfig(stackConfig("sandbox"), environment).config, get)).toBeUndefined();
    expect(asked).toHaveLength(5);
  });
});
