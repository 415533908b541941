import { controllerSettings, IngressNginx, IngressNginxArgs } from "../../components/ingress-nginx";
import { parseConfig } from "../../config";
import { ingressArgs } from "../../config/arguments";
import { all, environment, objects, settled, stackConfig, the, useMocks, valueOf } from "./mocks";

async function make(further: Partial<IngressNginxArgs> = {}): Promise<IngressNginx> {
  const ingress = new IngressNginx("ingress", { image: "registry.test/ingress:1", ...further });
  await settled();
  return ingress;
}

beforeEach(() => useMocks());

test("the Service takes node ports 80 and 443", async () => {
  await make();
  const { spec } = the("Service").inputs;
  expect(spec.type).toBe("NodePort");
  expect(spec.ports.map((p: { name: string; nodePort: number; targetPort: string }) => [p.name, p.nodePort, p.targetPort])).toEqual([
    ["http", 80, "http"],
    ["https", 443, "https"],
  ]);
});

test("the Service selects the controller's pods and they carry the ports it names", async () => {
  await make();
  const template = the("Deployment").inputs.spec.template;
  expect(template.metadata.labels).toMatchObject(the("Service").inputs.spec.selector);
  expect(template.spec.containers[0].ports.map((p: { name: string }) => p.name)).toEqual(["http", "https"]);
});

test("Ingresses get the nodes' addresses, so that waiting for them ends", async () => {
  await make();
  const { args } = the("Deployment").inputs.spec.template.spec.containers[0];
  expect(args).toContain("--report-node-internal-ip-address");
  expect(args.join(" ")).not.toContain("--publish-service");
});

test("there is no admission webhook, no job and no snippet", async () => {
  await make();
  expect(all("ValidatingWebhookConfiguration")).toHaveLength(0);
  expect(all("Job")).toHaveLength(0);
  expect(the("Deployment").inputs.spec.template.spec.containers[0].args.join(" ")).not.toContain("webhook");
  expect(the("ConfigMap").inputs.data["allow-snippet-annotations"]).toBe("false");
});

test("class, election and settings are named the same wherever they are named", async () => {
  const ingress = await make({ ingressClassName: "inside" });
  const { args } = the("Deployment").inputs.spec.template.spec.containers[0];
  expect(the("IngressClass").inputs).toMatchObject({ metadata: { name: "inside" }, spec: { controller: "k8s.io/ingress-nginx" } });
  expect(args).toContain("--ingress-class=inside");
  expect(args).toContain("--controller-class=k8s.io/ingress-nginx");
  expect(args).toContain(`--configmap=$(POD_NAMESPACE)/${the("ConfigMap").inputs.metadata.name}`);
  const lease = the("Role").inputs.rules.find((rule: { resourceNames?: string[] }) => rule.resourceNames);
  expect(args).toContain(`--election-id=${lease.resourceNames[0]}`);
  expect(await valueOf(ingress.ingressClassName)).toBe("inside");
  expect(await valueOf(ingress.namespace)).toBe("ingress-nginx");
});

test("a second one on the cluster meets no name of the first", async () => {
  const clusterWide = () => objects().flatMap(({ type, inputs }) => (inputs.metadata.namespace ? [] : [`${type} ${inputs.metadata.name}`]));
  await make();
  const first = clusterWide();
  expect(first).toHaveLength(4);
  await useMocks();
  await make({ namespace: "edge", ingressClassName: "edge", httpNodePort: 8080, httpsNodePort: 8443 });
  expect(clusterWide().filter((name) => first.includes(name))).toEqual([]);
  expect(the("IngressClass").inputs.spec.controller).toBe("k8s.io/edge");
  expect(the("Deployment").inputs.spec.template.spec.containers[0].args).toContain("--controller-class=k8s.io/edge");
  expect(the("Service").inputs.spec.ports.map((p: { nodePort: number }) => p.nodePort)).toEqual([8080, 8443]);
  for (const { inputs } of objects()) if (inputs.metadata.namespace) expect(inputs.metadata.namespace).toBe("edge");
});

test("the controller is no root and gains no privileges", async () => {
  await make();
  const { securityContext, containers } = the("Deployment").inputs.spec.template.spec;
  expect(containers[0].securityContext).toMatchObject({ runAsNonRoot: true, allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"], add: ["NET_BIND_SERVICE"] } });
  expect(securityContext.sysctls).toEqual([{ name: "net.ipv4.ip_unprivileged_port_start", value: "0" }]);
  expect(the("Namespace").inputs.metadata.labels["pod-security.kubernetes.io/enforce"]).toBe("baseline");
});

test("roles hold no wildcard and let nothing be changed but leases, events and Ingress status", async () => {
  await make();
  const changes = new Set<string>();
  for (const rule of [...the("ClusterRole").inputs.rules, ...the("Role").inputs.rules]) {
    expect([...rule.apiGroups, ...rule.resources, ...rule.verbs]).not.toContain("*");
    if (rule.verbs.some((verb: string) => !["get", "list", "watch"].includes(verb))) rule.resources.forEach((resource: string) => changes.add(resource));
  }
  expect([...changes].sort()).toEqual(["events", "ingresses/status", "leases"]);
});

test("quantities are sent as the API server gives them back", async () => {
  await make({ resources: { requests: { cpu: "1000m", memory: "1024Mi" } } });
  expect(the("Deployment").inputs.spec.template.spec.containers[0].resources).toEqual({ requests: { cpu: "1", memory: "1Gi" } });
});

test("a registry login becomes a pull secret, and without one there is none", async () => {
  await make();
  expect(all("Secret")).toHaveLength(0);
  expect(the("Deployment").inputs.spec.template.spec).not.toHaveProperty("imagePullSecrets");
  await useMocks();
  await make({ pulls: { dockerConfigJson: "{}" } });
  expect(the("Deployment").inputs.spec.template.spec.imagePullSecrets).toEqual([{ name: the("Secret").inputs.metadata.name }]);
});

test("all mistakes are reported at once, before anything is made", async () => {
  const make = () => new IngressNginx("ingress", { image: "x", httpNodePort: 0, httpsNodePort: 70000, replicas: 1.5 });
  expect(make).toThrow(expect.objectContaining({ errors: ["httpNodePort", "httpsNodePort", "replicas"].map((propertyPath) => expect.objectContaining({ propertyPath })) }));
  expect(() => new IngressNginx("ingress", { image: "x", httpNodePort: 443 })).toThrow(expect.objectContaining({ errors: [expect.objectContaining({ propertyPath: "httpsNodePort" })] }));
  await settled();
  expect(objects()).toEqual([]);
});

test("a rollout loses no request: a pod is listed after it knows the Ingresses, and answers on while the news that it goes travels", async () => {
  await make();
  const { args, readinessProbe } = the("Deployment").inputs.spec.template.spec.containers[0];
  expect(args).toContain("--shutdown-grace-period=5");
  expect(readinessProbe.initialDelaySeconds).toBe(5);
});

test("HTTPS on another port is where redirects lead, and on 443 nothing is said of it", async () => {
  const https = () => the("Deployment").inputs.spec.template.spec.containers[0];
  await make({ httpsNodePort: 30443 });
  expect(the("ConfigMap").inputs.data["use-port-in-redirects"]).toBe("true");
  expect(https().args).toContain("--https-port=30443");
  expect(https().ports).toContainEqual({ name: "https", containerPort: 30443, protocol: "TCP" });
  expect(the("Service").inputs.spec.ports[1]).toMatchObject({ port: 443, targetPort: "https", nodePort: 30443 });
  await useMocks();
  await make();
  expect(the("ConfigMap").inputs.data).not.toHaveProperty("use-port-in-redirects");
  expect(https().args.join(" ")).not.toContain("--https-port");
});

test("a port that the controller has for itself is not one that nginx listens on", async () => {
  await make({ httpsNodePort: 10254 });
  expect(the("Deployment").inputs.spec.template.spec.containers[0].ports[1].containerPort).toBe(443);
  expect(the("ConfigMap").inputs.data).not.toHaveProperty("use-port-in-redirects");
});

test("people's addresses are seen where config asks for it", async () => {
  await make({ externalTrafficPolicy: "Local" });
  expect(the("Service").inputs.spec.externalTrafficPolicy).toBe("Local");
  await useMocks();
  await make({ externalTrafficPolicy: "Cluster" });
  expect(the("Service").inputs.spec).not.toHaveProperty("externalTrafficPolicy");
});

test("who stands before the nodes is believed, and nobody else", async () => {
  expect(controllerSettings({})).toEqual(controllerSettings({ trustedProxies: [], proxyProtocol: false }));
  expect(controllerSettings({ trustedProxies: ["192.0.2.10", "2001:db8::/32"] })).toMatchObject({ "use-forwarded-headers": "true", "proxy-real-ip-cidr": "192.0.2.10,2001:db8::/32" });
  const spoken = controllerSettings({ trustedProxies: ["192.0.2.10"], proxyProtocol: true });
  expect(spoken).toMatchObject({ "use-proxy-protocol": "true", "proxy-real-ip-cidr": "192.0.2.10" });
  // Who passes packets on leaves people's own headers as they are.
  expect(spoken).not.toHaveProperty("use-forwarded-headers");
  const make = (further: Partial<IngressNginxArgs>) => () => new IngressNginx("ingress", { image: "x", ...further });
  expect(make({ trustedProxies: ["192.0.2.0/33"] })).toThrow(expect.objectContaining({ errors: [expect.objectContaining({ propertyPath: "trustedProxies[0]" })] }));
  expect(make({ proxyProtocol: true })).toThrow(expect.objectContaining({ errors: [expect.objectContaining({ propertyPath: "trustedProxies" })] }));
});

test("redirects lead to 443 where TLS ends before the nodes, whatever the node port for HTTPS is", () => {
  const settings = (ingress: Record<string, unknown>) => controllerSettings(ingressArgs(parseConfig({ ...stackConfig("sandbox"), domain: "ci.example.com", ingress: { controller: "nginx", httpsNodePort: 30443, ...ingress } }, environment).config));
  const before = { externalUrl: "https://ci.example.com", trustedProxies: ["192.0.2.10"] };
  expect(settings(before)).not.toHaveProperty("use-port-in-redirects");
  expect(settings({ ...before, externalUrl: "https://ci.example.com:8443" })).toHaveProperty("use-port-in-redirects");
  expect(settings({})).toHaveProperty("use-port-in-redirects");
});

test("redirects lead to the port that people use, where something before the nodes has another", async () => {
  await make({ httpsNodePort: 30443, httpsPort: 443 });
  expect(the("ConfigMap").inputs.data).not.toHaveProperty("use-port-in-redirects");
  expect(the("Service").inputs.spec.ports[1].nodePort).toBe(30443);
  await useMocks();
  await make({ httpsPort: 8443 });
  expect(the("Deployment").inputs.spec.template.spec.containers[0].args).toContain("--https-port=8443");
  expect(the("Service").inputs.spec.ports[1].nodePort).toBe(443);
});

test("HSTS follows config", () => {
  expect(controllerSettings({})["hsts-max-age"]).toBe("31536000");
  expect(controllerSettings({ hstsSeconds: 0 })["hsts-max-age"]).toBe("0");
});
