import { createJob, deleteJob, DOMAIN, ensurePlatform, finishedBuild, jenkinsAnswers, jobXml, kubectl, kubectlJson, NODE, pulumi, request, STACK, startBuild, up, waitFor } from "../e2e/sandbox";
import { ensureTraefikImage } from "./traefik-image";
import { otherWays, visit, watch } from "./way-in";

/** From ingress-nginx to Traefik and back on a platform that people use, and rollouts of both: who asks for the login page gets it. */
jest.setTimeout(1_800_000);

const NAMESPACE = "ingress-nginx";
const JOB = "e2e-way-in";
const { configWith, remove } = otherWays();

const upWith = (ingress: object) => up(...configWith(ingress));

const login = (target = "/login", host = DOMAIN) => visit({ address: NODE, port: 80, host, path: target });
const ask = (target?: string, host?: string) => login(target, host).then(({ status }) => status, () => 0);

interface Kept { metadata: { uid: string } }
const identities = () => Promise.all([["namespace", NAMESPACE], ["-n", NAMESPACE, "service", "ingress-nginx-controller"], ["ingressclass", "nginx"], ["-n", "jenkins", "ingress", "jenkins"]].map(async (object) => (await kubectlJson<Kept>(["get", ...object])).metadata.uid));
const deployments = () => kubectl(["-n", NAMESPACE, "get", "deployments", "-o", "jsonpath={.items[*].metadata.name}"]);

async function rollouts(deployment: string, times: number) {
  const watched = watch(18, login);
  for (let i = 0; i < times; i++) {
    await kubectl(["-n", NAMESPACE, "rollout", "restart", `deployment/${deployment}`]);
    await kubectl(["-n", NAMESPACE, "rollout", "status", `deployment/${deployment}`, "--timeout=180s"]);
    // The old pod answers on until its own end.
    await waitFor("one pod", 60, async () => (await kubectl(["-n", NAMESPACE, "get", "pods", "-o", "name"])).trim().split("\n").length === 1);
  }
  const seen = await watched.stop();
  process.stderr.write(`   ${times} rollouts of ${deployment}: ${JSON.stringify(seen)}\n`);
  return seen;
}

let before: string[];

beforeAll(async () => {
  await ensureTraefikImage();
  await ensurePlatform();
  before = await identities();
}, 2_400_000);

afterAll(async () => {
  try {
    if ((await deployments()) !== "ingress-nginx-controller") await up();
    await deleteJob(JOB);
  } finally {
    remove();
  }
});

test("rollouts of ingress-nginx lose no request", async () => {
  const seen = await rollouts("ingress-nginx-controller", 10);
  expect(seen.lost).toEqual({});
  expect(seen.asked).toBeGreaterThan(500);
});

test("Traefik takes its place: at most two seconds without an answer, a running build goes on, and what they share stays", async () => {
  await createJob(JOB, jobXml("maven", "sleep 60"));
  const build = await startBuild(JOB);
  const watched = watch(100, login);
  await upWith({ controller: "traefik" });
  await new Promise((resolve) => setTimeout(resolve, 5000));
  const seen = await watched.stop();
  process.stderr.write(`   to Traefik: ${JSON.stringify(seen)}\n`);
  expect(seen.gap).toBeLessThanOrEqual(2);
  expect(await deployments()).toBe("traefik");
  expect(await identities()).toEqual(before);
  expect(await finishedBuild(JOB, build)).toMatchObject({ result: "SUCCESS" });
});

test("a second update changes nothing", async () => {
  expect((await pulumi(["preview", "--stack", STACK, "--expect-no-changes", ...configWith({ controller: "traefik" })])).stdout).toContain("unchanged");
});

test("it serves Jenkins and nothing of its own", async () => {
  expect((await jenkinsAnswers()).status).toBe(200);
  expect(await ask("/login", "other.sandbox.test")).toBe(404);
  for (const target of ["/dashboard/", "/api/rawdata", "/ping", "/metrics"]) expect((await request("GET", target, { host: "other.sandbox.test" })).status).toBe(404);
  const [pod] = (await kubectl(["-n", NAMESPACE, "get", "pods", "-l", "app.kubernetes.io/name=traefik", "-o", "jsonpath={.items[*].metadata.name}"])).split(" ");
  const inside = (target: string) => kubectl(["get", "--raw", `/api/v1/namespaces/${NAMESPACE}/pods/${pod}:9100/proxy${target}`]);
  expect(await inside("/metrics")).toMatch(/^traefik_entrypoint_requests_total\{/m);
  await expect(inside("/dashboard/")).rejects.toThrow();
  await expect(inside("/login")).rejects.toThrow();
});

test("it may change nothing, and takes nginx' annotations", async () => {
  const may = async (verb: string, what: string) => (await kubectl(["auth", "can-i", verb, what, "--all-namespaces", "--as", `system:serviceaccount:${NAMESPACE}:traefik`], { allowFailure: true })).trim();
  expect(await may("list", "ingresses")).toBe("yes");
  for (const [verb, what] of [["update", "ingresses/status"], ["create", "pods"], ["delete", "services"], ["get", "nodes"]]) expect(await may(verb, what)).toBe("no");
  await upWith({ controller: "traefik", annotations: { "nginx.ingress.kubernetes.io/allowlist-source-range": "192.0.2.0/24" } });
  await waitFor("the allow-list to be in force", 30, async () => (await ask()) === 403);
  await upWith({ controller: "traefik" });
  await jenkinsAnswers(30);
});

test("rollouts of Traefik lose no request", async () => {
  expect((await rollouts("traefik", 10)).lost).toEqual({});
});

test("and back: at most two seconds without an answer", async () => {
  const watched = watch(100, login);
  await up();
  await new Promise((resolve) => setTimeout(resolve, 5000));
  const seen = await watched.stop();
  process.stderr.write(`   to ingress-nginx: ${JSON.stringify(seen)}\n`);
  expect(seen.gap).toBeLessThanOrEqual(2);
  expect(await deployments()).toBe("ingress-nginx-controller");
  expect(await identities()).toEqual(before);
  expect((await pulumi(["preview", "--stack", STACK, "--expect-no-changes"])).stdout).toContain("unchanged");
});
