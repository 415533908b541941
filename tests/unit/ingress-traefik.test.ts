import * as pulumi from "@pulumi/pulumi";
import { parse } from "yaml";
import { IngressNginx } from "../../components/ingress-nginx";
import { IngressTraefik, traefikArguments, traefikSettings, type IngressTraefikArgs } from "../../components/ingress-traefik";
import { all, objects, settled, the, useMocks, valueOf } from "./mocks";

// A component is made several times in one test, on a busy machine as well.
jest.setTimeout(60_000);

async function make(further: Partial<IngressTraefikArgs> = {}): Promise<IngressTraefik> {
  const ingress = new IngressTraefik("ingress-nginx", { image: "registry.test/traefik:1", ...further });
  await settled();
  return ingress;
}

beforeEach(() => useMocks());

test("who stands before the nodes is believed, on both ways in, and nobody else", () => {
  const options = (further: Partial<IngressTraefikArgs>) => traefikArguments("k8s.io/x", further).filter((each) => /trustedips|insecure/.test(each));
  expect(options({})).toEqual([]);
  expect(options({ trustedProxies: ["192.0.2.10", "198.51.100.0/24"] })).toEqual(["http", "https"].map((name) => `--entrypoints.${name}.forwardedheaders.trustedips=192.0.2.10,198.51.100.0/24`));
  expect(options({ trustedProxies: ["192.0.2.10"], proxyProtocol: true })).toEqual(["http", "https"].map((name) => `--entrypoints.${name}.proxyprotocol.trustedips=192.0.2.10`));
});

test("an upload has an hour, a download and a stream have no end of their own", () => {
  for (const name of ["http", "https"]) {
    expect(value(`entrypoints.${name}.transport.respondingtimeouts.readtimeout`)).toBe("3600s");
    // 0, Traefik's own: what it sends may take as long as it likes.
    expect(value(`entrypoints.${name}.transport.respondingtimeouts.writetimeout`)).toBeUndefined();
  }
});

test("redirects lead to the port that people use, where something before the nodes has another", () => {
  const redirect = (args: Partial<IngressTraefikArgs>) => parse(traefikSettings({ redirectHosts: ["ci.example.com"], ...args })).http.middlewares["to-https"];
  expect(redirect({ httpsNodePort: 30443 })).toEqual({ redirectScheme: { scheme: "https", port: "30443", permanent: true } });
  expect(redirect({ httpsNodePort: 30443, httpsPort: 443 })).toBeUndefined();
  expect(redirect({ httpsPort: 8443 })).toMatchObject({ redirectScheme: { port: "8443" } });
});

test("where it serves Gateways it has a class of its own, sees the API's kinds, and may say what it made of them", async () => {
  const rules = () => the("ClusterRole").inputs.rules as { apiGroups: string[]; resources: string[]; verbs: string[] }[];
  await make({ namespace: "edge" });
  expect(all("GatewayClass")).toEqual([]);
  const before = rules();
  expect(JSON.stringify(before)).not.toContain("gateway");
  await useMocks();
  const ingress = await make({ namespace: "edge", gateways: true, redirectHosts: ["ci.example.com"] });
  const [{ inputs: { metadata, spec } }] = all("GatewayClass");
  expect(spec).toEqual({ controllerName: "traefik.io/gateway-controller" });
  expect([metadata.name, await valueOf(pulumi.output(ingress.gatewayClass!.name))]).toEqual(["edge-traefik", "edge-traefik"]);
  expect(container().args).toEqual(expect.arrayContaining(["--providers.kubernetesgateway=true", "--providers.kubernetesgateway.labelselector=build-platform/ingress=edge"]));
  expect(metadata.labels).toMatchObject({ "build-platform/ingress": "edge" });
  const further = rules().slice(before.length);
  expect(rules().slice(0, before.length)).toEqual(before);
  expect(further.filter(({ verbs }) => !verbs.every((verb) => ["list", "watch"].includes(verb))).every(({ resources, verbs }) => verbs.join() === "update" && resources.every((each) => each.endsWith("/status")))).toBe(true);
  // Its listeners' ports are those of the entry points.
  expect(container().args).toEqual(expect.arrayContaining([`--entrypoints.http.address=:${ingress.gatewayClass!.http}`, `--entrypoints.https.address=:${ingress.gatewayClass!.https}`]));
  expect(parse(the("ConfigMap").inputs.data["settings.yml"]).http.routers["to-https"].rule).toContain("Host(`ci.example.com`)");
});

const pod = () => the("Deployment").inputs.spec.template.spec;
const container = () => pod().containers[0];
const value = (option: string): string | undefined => traefikArguments("k8s.io/x").find((each) => each.startsWith(`--${option}=`))?.split("=")[1];

test("it is reached where ingress-nginx is: the same ports, Service, class and namespace, under the same names", async () => {
  const shared = () => [the("Service", "ingress-nginx-controller").inputs.metadata.name, the("Service", "ingress-nginx-controller").inputs.spec.ports, the("Namespace").inputs.metadata.name, the("IngressClass").inputs.metadata.name, the("IngressClass").inputs.spec];
  const urnNames = () => objects().filter(({ type }) => /Service$|Namespace|IngressClass/.test(type)).map(({ name }) => name).filter((own) => !own.endsWith("-traefik-ready")).sort();
  new IngressNginx("ingress-nginx", { image: "i", httpNodePort: 8080, httpsNodePort: 8443, namespace: "edge", ingressClassName: "edge" });
  await settled();
  const [before, names] = [shared(), urnNames()];
  await useMocks();
  await make({ httpNodePort: 8080, httpsNodePort: 8443, namespace: "edge", ingressClassName: "edge" });
  expect(shared()).toEqual(before);
  expect(urnNames()).toEqual(names);
  expect(container().args).toEqual(expect.arrayContaining(["--providers.kubernetesingressnginx.controllerclass=k8s.io/edge", "--providers.kubernetesingressnginx.ingressclass=edge"]));
});

test("what both have is the same object, so that a move that failed halfway goes on, or back", async () => {
  const names = () => new Map(objects().map(({ type, name, inputs }) => [`${type} ${name}`, inputs.metadata.name as string]));
  new IngressNginx("ingress-nginx", { image: "i" });
  await settled();
  const before = names();
  await useMocks();
  await make();
  const both = [...names()].filter(([urn]) => before.has(urn));
  expect(both.length).toBeGreaterThan(2);
  for (const [urn, name] of both) expect([urn, name]).toEqual([urn, before.get(urn)]);
});

test("what is its own meets nothing of ingress-nginx', so that both are there while one follows the other", async () => {
  const own = () => objects().filter(({ type }) => /Deployment|ClusterRole|ConfigMap|^.*Role/.test(type)).flatMap(({ type, name, inputs }) => [name, `${type} ${inputs.metadata.name}`]);
  new IngressNginx("ingress-nginx", { image: "i" });
  await settled();
  const before = own();
  await useMocks();
  await make();
  expect(own().filter((each) => before.includes(each))).toEqual([]);
});

test("the Service selects its pods, and the ports that it names are there", async () => {
  await make();
  expect(the("Deployment").inputs.spec.template.metadata.labels).toMatchObject(the("Service", "ingress-nginx-controller").inputs.spec.selector);
  const ports = container().ports.map(({ name }: { name: string }) => name);
  for (const { targetPort } of the("Service", "ingress-nginx-controller").inputs.spec.ports) expect(ports).toContain(targetPort);
});

test("the namespace asks for restricted pods, and the pod is one", async () => {
  await make();
  expect(the("Namespace").inputs.metadata.labels["pod-security.kubernetes.io/enforce"]).toBe("restricted");
  expect(pod().securityContext).toMatchObject({ runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } });
  expect(pod().securityContext).not.toHaveProperty("sysctls");
  expect(container().securityContext).toEqual({ allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] }, readOnlyRootFilesystem: true });
  for (const { containerPort } of container().ports) expect(containerPort).toBeGreaterThan(1023);
});

test("its role holds no wildcard and lets nothing be changed", async () => {
  await make();
  expect(all("Role")).toHaveLength(0);
  for (const { apiGroups, resources, verbs } of the("ClusterRole").inputs.rules) {
    expect([...apiGroups, ...resources]).not.toContain("*");
    expect(verbs).toEqual(["list", "watch"]);
  }
});

test("no dashboard, no call home; metrics and probes on a port that people's Service has not", async () => {
  expect(traefikArguments("k8s.io/x").join(" ")).not.toContain("--api");
  expect([value("global.checknewversion"), value("global.sendanonymoususage")]).toEqual(["false", "false"]);
  expect([value("metrics.prometheus.entrypoint"), value("ping.entrypoint")]).toEqual(["internal", "internal"]);
  // Else an Ingress would be served there, too.
  expect([value("providers.kubernetesingressnginx.httpentrypoint"), value("providers.kubernetesingressnginx.httpsentrypoint")]).toEqual(["http", "https"]);
  await make();
  expect(the("Service", "ingress-nginx-controller").inputs.spec.ports.map(({ targetPort }: { targetPort: string }) => targetPort)).toEqual(["http", "https"]);
});

test("a rollout loses no request, and the pod lives long enough for it", async () => {
  await make();
  const seconds = (option: string) => Number(value(option)?.replace("s", ""));
  for (const name of ["http", "https"]) {
    const [accept, drain] = ["requestacceptgracetimeout", "gracetimeout"].map((each) => seconds(`entrypoints.${name}.transport.lifecycle.${each}`));
    expect(accept).toBe(5);
    expect(accept + drain).toBeLessThan(pod().terminationGracePeriodSeconds);
  }
});

test("it gets no request before it has read the Ingresses, which its own way to itself shows; if it never does it starts again", async () => {
  await make({ namespace: "edge", ingressClassName: "edge" });
  const [service, ingress] = [the("Service", "traefik-ready").inputs, the("Ingress", "traefik-ready").inputs];
  const [{ host, http: { paths: [{ path, backend }] } }] = ingress.spec.rules;
  const { startupProbe, livenessProbe } = container();
  expect([startupProbe.httpGet, ingress.spec.ingressClassName]).toEqual([{ path, port: "http", httpHeaders: [{ name: "Host", value: host }] }, "edge"]);
  expect(host).toContain("edge");
  expect(ingress.metadata.annotations["nginx.ingress.kubernetes.io/service-upstream"]).toBe("true");
  expect(backend.service).toEqual({ name: "traefik-ready", port: { number: service.spec.ports[0].port } });
  // No pod is ready before the way is open, and the way leads to one.
  expect(service.spec).toMatchObject({ selector: the("Deployment").inputs.spec.selector.matchLabels, publishNotReadyAddresses: true, ports: [{ targetPort: livenessProbe.httpGet.port }] });
});

test.each([["ingress-nginx", IngressNginx], ["Traefik", IngressTraefik]])("%s: after a rollout each node has a pod again, and a pod that hangs is not waited for as one that is replaced", async (_, Controller) => {
  new Controller("ingress", { image: "i", replicas: 2 });
  await settled();
  expect(pod().topologySpreadConstraints[0]).toMatchObject({ topologyKey: "kubernetes.io/hostname", matchLabelKeys: ["pod-template-hash"] });
  expect(container().livenessProbe.terminationGracePeriodSeconds).toBeLessThan(pod().terminationGracePeriodSeconds / 5);
});

test("HSTS follows config, on HTTPS alone", () => {
  const hsts = (args: Parameters<typeof traefikSettings>[0]) => parse(traefikSettings(args)).http.middlewares.hsts;
  expect(hsts({})).toEqual({ headers: { stsSeconds: 31536000 } });
  expect(hsts({ hstsSeconds: 0 })).toEqual({ headers: { stsSeconds: 0 } });
  expect(value("entrypoints.https.http.middlewares")).toBe("hsts@file");
  expect(value("entrypoints.http.http.middlewares")).toBeUndefined();
});

test("HTTPS on another port is where redirects lead; on 443 the Ingress' own do", () => {
  const { http } = parse(traefikSettings({ httpsNodePort: 30443, redirectHosts: ["ci.example.com"] }));
  expect(http.middlewares["to-https"]).toEqual({ redirectScheme: { scheme: "https", port: "30443", permanent: true } });
  expect(http.routers["to-https"]).toMatchObject({ entryPoints: ["http"], middlewares: ["to-https"], rule: "(Host(`ci.example.com`)) && !HeaderRegexp(`X-Forwarded-Proto`, `(?i)^(https|wss)$`) && !PathPrefix(`/.well-known/acme-challenge/`)" });
  expect(parse(traefikSettings({ redirectHosts: ["ci.example.com"] })).http).not.toHaveProperty("routers");
  expect(parse(traefikSettings({ httpsNodePort: 30443 })).http).not.toHaveProperty("routers");
});

test("what it is told in a file is mounted where it looks", async () => {
  await make({ hstsSeconds: 7 });
  expect(the("ConfigMap").inputs.data["settings.yml"]).toBe(traefikSettings({ hstsSeconds: 7 }));
  const mount = container().volumeMounts.find(({ name }: { name: string }) => name === "settings");
  expect(mount.mountPath).toBe(value("providers.file.directory"));
  expect(pod().volumes).toContainEqual({ name: "settings", configMap: { name: the("ConfigMap").inputs.metadata.name } });
});

test("all mistakes are reported at once, before anything is made", async () => {
  expect(() => new IngressTraefik("ingress", { image: "x", httpNodePort: 0, httpsNodePort: 70000, replicas: 1.5 })).toThrow(expect.objectContaining({ errors: ["httpNodePort", "httpsNodePort", "replicas"].map((propertyPath) => expect.objectContaining({ propertyPath })) }));
  await settled();
  expect(objects()).toEqual([]);
});

test("class and namespace are told to the others", async () => {
  const ingress = await make();
  expect([await valueOf(ingress.ingressClassName), await valueOf(ingress.namespace)]).toEqual(["nginx", "ingress-nginx"]);
});
