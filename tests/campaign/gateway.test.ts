import * as http from "node:http";
import * as https from "node:https";
import * as path from "node:path";
import { certificateTrouble, frontDoors, judgeDoors } from "../../cli/front-door";
import { readStack } from "../../cli/stack";
import { moduleFolder } from "../../sandbox/cluster/binaries";
import { createJob, deleteJob, DOMAIN, ensurePlatform, finishedBuild, jenkinsAnswers, jobXml, kubectl, kubectlJson, NODE, pulumi, request, STACK, startBuild, up, volumesLookedAt, waitFor } from "../e2e/sandbox";
import { Acme, ISSUER } from "./acme";
import { ensureTraefikImage } from "./traefik-image";
import { otherWays } from "./way-in";

/** The Gateway API with its real definitions and the real Traefik: a Gateway of the stack's own, with HTTPS, and one that is there already. */
jest.setTimeout(900_000);

const JOB = "e2e-gateway";
const THEIRS = "gateway-infra";
const { configWith, previewed, remove } = otherWays();
const acme = new Acme();

const own = { controller: "gateway" };
const secured = { ...own, clusterIssuer: ISSUER, hstsSeconds: 600 };
const theirs = { controller: "gateway", gateway: { name: "edge", namespace: THEIRS } };
const ports = { http: 31080 };

const expectUnchanged = async (ingress: object) => expect((await pulumi(["preview", "--stack", STACK, "--expect-no-changes", ...configWith(ingress)])).stdout).toContain("unchanged");
const definitions = async () => path.join(await moduleFolder("traefik", "sigs.k8s.io/gateway-api"), "config/crd/standard");
const apply = (objects: object[]) => kubectl(["apply", "--server-side", "-f", "-"], { input: JSON.stringify({ apiVersion: "v1", kind: "List", items: objects }) });

/** The status of the login page on a port of the node, or 0. */
const ask = (port: number): Promise<number> =>
  new Promise((resolve) => {
    const sent = http.get({ host: NODE, port, path: "/login", headers: { Host: DOMAIN }, agent: false, timeout: 5000 }, (answer) => void answer.resume().on("end", () => resolve(answer.statusCode ?? 0)));
    sent.on("timeout", () => sent.destroy(new Error("timed out"))).on("error", () => resolve(0));
  });

/** The login page by HTTPS; the certificate has to be the host's and of the ACME server's root. */
const secure = (): Promise<{ status?: number; hsts?: string }> =>
  new Promise((resolve, reject) => {
    const sent = https.get({ host: NODE, port: 443, servername: DOMAIN, path: "/login", headers: { Host: DOMAIN }, ca: acme.root, agent: false, timeout: 10_000 }, (answer) => {
      answer.resume().on("end", () => resolve({ status: answer.statusCode, hsts: answer.headers["strict-transport-security"] }));
    });
    sent.on("timeout", () => sent.destroy(new Error("timed out"))).on("error", reject);
  });

interface Condition { type: string; status: string; reason: string; message: string }
const conditions = async (namespace: string, kind: string, name: string, at: string) => JSON.parse((await kubectl(["-n", namespace, "get", kind, name, "-o", `jsonpath={${at}}`])) || "[]") as Condition[];
const holds = (what: string, type: string, read: () => Promise<Condition[]>) =>
  waitFor(`${what} ${type}`, 60, async () => {
    const all = await read();
    if (all.some((each) => each.type === type && each.status === "True")) return true;
    throw new Error(JSON.stringify(all));
  });

/** A site's own Traefik with its GatewayClass and Gateway, as somebody else would have made them; it keeps to its own class, as ours does, else both would write what they think of each Gateway in turns. */
async function makeTheirs(image: string): Promise<void> {
  const [labels, metadata] = [{ app: "edge" }, { name: "edge", namespace: THEIRS }];
  const api = "gateway.networking.k8s.io/v1";
  await apply([
    { apiVersion: "v1", kind: "Namespace", metadata: { name: THEIRS } },
    { apiVersion: "v1", kind: "ServiceAccount", metadata },
    { apiVersion: "rbac.authorization.k8s.io/v1", kind: "ClusterRoleBinding", metadata: { name: THEIRS }, roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "cluster-admin" }, subjects: [{ kind: "ServiceAccount", ...metadata }] },
    { apiVersion: "apps/v1", kind: "Deployment", metadata, spec: { selector: { matchLabels: labels }, template: { metadata: { labels }, spec: { serviceAccountName: "edge", containers: [{ name: "traefik", image, args: ["--entrypoints.web.address=:8000", "--ping=true", "--ping.entrypoint=web", "--providers.kubernetesgateway=true", "--providers.kubernetesgateway.labelselector=app=edge"], readinessProbe: { httpGet: { path: "/ping", port: 8000 } } }] } } } },
    { apiVersion: "v1", kind: "Service", metadata, spec: { type: "NodePort", selector: labels, ports: [{ name: "web", port: 80, targetPort: 8000, nodePort: ports.http }] } },
    { apiVersion: api, kind: "GatewayClass", metadata: { name: THEIRS, labels }, spec: { controllerName: "traefik.io/gateway-controller" } },
    { apiVersion: api, kind: "Gateway", metadata, spec: { gatewayClassName: THEIRS, listeners: [{ name: "web", protocol: "HTTP", port: 8000, allowedRoutes: { namespaces: { from: "All" } } }] } },
  ]);
  await kubectl(["-n", THEIRS, "rollout", "status", "deployment/edge", "--timeout=180s"]);
}

let image: string;

beforeAll(async () => {
  image = await ensureTraefikImage();
  await acme.makeImage();
  await ensurePlatform();
  // An interrupted run leaves them.
  await kubectl(["delete", "--ignore-not-found", "-f", await definitions(), "--timeout=120s"]);
  await kubectl(["-n", "jenkins", "delete", "secret", "jenkins-tls", "--ignore-not-found"]);
  await deleteJob(JOB);
}, 2_400_000);

afterAll(async () => {
  try {
    await up();
    await kubectl(["delete", "clusterissuer", ISSUER, "--ignore-not-found"], { allowFailure: true });
    await acme.remove();
    await kubectl(["-n", "jenkins", "delete", "secret", "jenkins-tls", "--ignore-not-found"]);
    await kubectl(["delete", "namespace", THEIRS, "--ignore-not-found"]);
    await kubectl(["delete", "clusterrolebinding", THEIRS, "--ignore-not-found"]);
    await kubectl(["delete", "--ignore-not-found", "-f", await definitions(), "--timeout=120s"]);
    // After the way in is back: with the last test failed nobody answers before.
    await deleteJob(JOB);
  } finally {
    acme.stop();
    remove();
  }
});

test("without the API's definitions preview refuses, and says what is missing", async () => {
  expect(await previewed(own)).toContain("gateway, while the cluster has no gatewayclasses, gateways, httproutes, grpcroutes, tlsroutes, backendtlspolicies, referencegrants of gateway.networking.k8s.io");
  await kubectl(["apply", "--server-side", "-f", await definitions()]);
  await kubectl(["wait", "--for=condition=Established", "crd/httproutes.gateway.networking.k8s.io", "--timeout=60s"]);
});

test("GatewayClass, Gateway and HTTPRoute come up, and people get Jenkins", async () => {
  await up(...configWith(own));
  await jenkinsAnswers(60);
  await holds("GatewayClass", "Accepted", () => conditions("default", "gatewayclass", "ingress-nginx-traefik", ".status.conditions"));
  await holds("Gateway", "Programmed", () => conditions("jenkins", "gateway", "jenkins", ".status.conditions"));
  for (const type of ["Accepted", "ResolvedRefs"]) await holds("HTTPRoute", type, () => conditions("jenkins", "httproute", "jenkins", ".status.parents[0].conditions"));
  expect((await kubectl(["-n", "jenkins", "get", "ingress", "-o", "name"])).trim()).toBe("");
  expect((await request("GET", "/login", { host: `other.${DOMAIN}` })).status).toBe(404);
  const stack = await readStack(STACK, { ingress: own });
  expect(judgeDoors(await frontDoors(stack), stack.config)).toMatchObject({ good: true });
});

test("a second update changes nothing", () => expectUnchanged(own));

test("agents build as ever", async () => {
  await createJob(JOB, jobXml("maven", "echo built"));
  expect(await finishedBuild(JOB, await startBuild(JOB))).toMatchObject({ result: "SUCCESS" });
});

test("its account may say what it made of routes, and change nothing else", async () => {
  const may = async (...what: string[]) => (await kubectl(["auth", "can-i", ...what, "--all-namespaces", "--as", "system:serviceaccount:ingress-nginx:traefik"], { allowFailure: true })).trim();
  const routes = "httproutes.gateway.networking.k8s.io";
  expect([await may("list", routes), await may("update", routes, "--subresource=status")]).toEqual(["yes", "yes"]);
  for (const [verb, what] of [["update", routes], ["create", "pods"], ["update", "services"]]) expect(await may(verb, what)).toBe("no");
});

test("HTTPS by a certificate of cert-manager's, which answers through the Gateway", async () => {
  await acme.start(600);
  await kubectl(["apply", "--server-side", "-f", await acme.definitions()]);
  await acme.install([DOMAIN], true);
  await acme.makeIssuer({ gatewayHTTPRoute: { parentRefs: [{ group: "gateway.networking.k8s.io", kind: "Gateway", name: "jenkins", namespace: "jenkins" }] } });
  await up(...configWith(secured));
  await volumesLookedAt("ingress-nginx", "app.kubernetes.io/name=traefik");
  await waitFor("plain HTTP to be sent on", 150, async () => [301, 308].includes((await request("GET", "/login")).status));
  const page = await waitFor("the login page by HTTPS", 300, secure).catch(async (error: Error) => {
    throw new Error(`${error.message}\n${await kubectl(["get", "certificates,orders,challenges,httproutes", "--all-namespaces"])}\n${acme.log()}`);
  });
  expect(page).toMatchObject({ status: 200, hsts: expect.stringContaining("max-age=600") });
  const plain = await request("GET", "/login?from=%2F");
  expect([301, 308]).toContain(plain.status);
  expect(plain.headers.location).toBe(`https://${DOMAIN}/login?from=%2F`);
  expect(await certificateTrouble(await readStack(STACK, { ingress: secured }), new Date())).toBe("");
  await expectUnchanged(secured);
});

test("a Gateway that is there takes the HTTPRoute", async () => {
  expect(await previewed(theirs)).toContain(`no Gateway edge in namespace ${THEIRS}`);
  await makeTheirs(image);
  await up(...configWith(theirs));
  await waitFor("200 through their Gateway", 60, async () => (await ask(ports.http)) === 200);
  await holds("HTTPRoute", "Accepted", () => conditions("jenkins", "httproute", "jenkins", '.status.parents[?(@.parentRef.name=="edge")].conditions'));
  expect(await ask(80)).toBe(0);
  expect((await kubectl(["-n", "jenkins", "get", "gateways", "-o", "name"])).trim()).toBe("");
  await expectUnchanged(theirs);
});

test("and back: nothing of it stays", async () => {
  await up();
  await jenkinsAnswers(60);
  for (const kind of ["gatewayclasses", "gateways", "httproutes"]) {
    const { items } = await kubectlJson<{ items: { metadata: { namespace?: string; name: string } }[] }>(["get", `${kind}.gateway.networking.k8s.io`, "--all-namespaces"]);
    expect(items.map(({ metadata }) => metadata.namespace ?? metadata.name).filter((each) => each !== THEIRS)).toEqual([]);
  }
  expect((await pulumi(["preview", "--stack", STACK, "--expect-no-changes"])).stdout).toContain("unchanged");
});
