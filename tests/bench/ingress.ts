import { LocalWorkspace } from "@pulumi/pulumi/automation";
import { IngressNginx } from "../../components/ingress-nginx";
import { IngressTraefik } from "../../components/ingress-traefik";
import { installPackages } from "../../sandbox/cluster/packages";
import { ensureTraefikImage } from "../campaign/traefik-image";
import { adminAuth, ENV, ensurePlatform, jenkins, kubectl, kubectlJson, NODE, onNode, realJenkins, waitFor } from "../e2e/sandbox";
import { saveBench } from "./table";

/**
 * Jenkins through Traefik, through ingress-nginx and straight from its pod, in turns: both controllers stand side by side for it, made by
 * the platform's own components, and the same `hey` asks from the node. BENCH_ROUNDS makes a short trial of it.
 */
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 5);
const HOST = "bench.sandbox.test";
const controllers = { traefik: { component: IngressTraefik, port: 30092, https: 30492 }, nginx: { component: IngressNginx, port: 30091, https: 30491 } };
const kinds = Object.entries(controllers);
const FILE = "bench-artifact.bin";
/** hey shares the requests out evenly and leaves the rest: a multiple of those at once. */
const asked = [
  { what: "/login", path: "/login", requests: 400, atOnce: 16 },
  { what: "an artifact of 1 MB", path: `/userContent/${FILE}`, requests: 192, atOnce: 16 },
];

/** Seconds of each request and of all together. */
async function load(url: string, { path, requests, atOnce }: (typeof asked)[number], auth: string): Promise<{ each: number[]; all: number }> {
  const started = process.hrtime.bigint();
  // On a command line a password would be seen; a session ends.
  const { stdout } = await onNode(["hey", "-n", String(requests), "-c", String(atOnce), "-o", "csv", "-host", HOST, "-H", `Cookie: ${auth}`, `${url}${path}`]);
  const all = Number(process.hrtime.bigint() - started) / 1e9;
  const [head, ...rows] = stdout.trim().split("\n").map((line) => line.split(","));
  const [time, status] = ["response-time", "status-code"].map((name) => head.indexOf(name));
  const bad = rows.filter((row) => row[status] !== "200");
  if (rows.length < requests || bad.length > 0) throw new Error(`${url}${path}: ${rows.length} of ${requests} answers, ${bad.length} of them no 200`);
  return { each: rows.map((row) => Number(row[time])), all };
}

/** A session of the administrator, as a cookie. The real Jenkins logs in with the crumb of its own form alone. */
async function session(pod: string): Promise<string> {
  const [user, password] = (await adminAuth()).split(":");
  const cookiesOf = ({ headers }: Response) => headers.getSetCookie().map((cookie) => cookie.split(";")[0]).filter((cookie) => cookie.startsWith("JSESSIONID")).join("; ");
  const form = await fetch(`${pod}/login`);
  const crumb = /name="Jenkins-Crumb"[^>]* value="([^"]*)"/.exec(await form.text())?.[1];
  const body = new URLSearchParams({ j_username: user, j_password: password, ...(crumb && { "Jenkins-Crumb": crumb }) });
  const answer = await fetch(`${pod}/${realJenkins ? "j_spring_security_check" : "j_acegi_security_check"}`, { method: "POST", redirect: "manual", body, headers: { cookie: cookiesOf(form) } });
  return cookiesOf(answer) || cookiesOf(form);
}

const quantile = (values: number[], share: number) => [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.ceil(share * values.length) - 1)];

async function main(): Promise<void> {
  await installPackages(["hey"]);
  await ensurePlatform();
  const images: Record<string, string> = { traefik: await ensureTraefikImage(), nginx: (await kubectlJson<{ spec: { template: { spec: { containers: { image: string }[] } } } }>(["-n", "ingress-nginx", "get", "deployment", "ingress-nginx-controller"])).spec.template.spec.containers[0].image };
  const program = async () => {
    for (const [name, { component: Controller, port, https }] of kinds) new Controller(`bench-${name}`, { image: images[name], namespace: `bench-${name}`, ingressClassName: `bench-${name}`, httpNodePort: port, httpsNodePort: https });
  };
  // Which pulumi there is, the automation looks for on this process' own PATH.
  process.env.PATH = ENV.PATH;
  const envVars = Object.fromEntries(Object.entries(ENV).filter((entry): entry is [string, string] => entry[1] !== undefined));
  const stack = await LocalWorkspace.createOrSelectStack({ stackName: "bench-ingress", projectName: "bench-ingress", program }, { envVars });
  try {
    await stack.up();
    const { metadata } = await kubectlJson<{ metadata: { annotations: Record<string, string> } }>(["-n", "jenkins", "get", "ingress", "jenkins"]);
    const annotations = Object.fromEntries(Object.entries(metadata.annotations).filter(([key]) => key.startsWith("nginx.")));
    const ingress = (name: string) => ({
      apiVersion: "networking.k8s.io/v1", kind: "Ingress", metadata: { name: `bench-${name}`, namespace: "jenkins", annotations },
      spec: { ingressClassName: `bench-${name}`, rules: [{ host: HOST, http: { paths: [{ path: "/", pathType: "Prefix", backend: { service: { name: "jenkins", port: { name: "http" } } } }] } }] },
    });
    await kubectl(["apply", "-f", "-"], { input: JSON.stringify({ apiVersion: "v1", kind: "List", items: kinds.map(([name]) => ingress(name)) }) });
    const ip = (await kubectl(["-n", "jenkins", "get", "pods", "-l", "app.kubernetes.io/component=controller", "-o", "jsonpath={.items[0].status.podIP}"])).trim();
    const script = `def bytes = new byte[1 << 20]; new Random(1).nextBytes(bytes); def folder = new File(hudson.model.Hudson.instance.rootDir, "userContent"); folder.mkdirs(); new File(folder, "${FILE}").bytes = bytes`;
    await jenkins("POST", "/scriptText", `script=${encodeURIComponent(script)}`, "application/x-www-form-urlencoded");
    const ways: [string, string][] = [["Traefik", `http://${NODE}:${controllers.traefik.port}`], ["ingress-nginx", `http://${NODE}:${controllers.nginx.port}`], ["the pod itself", `http://${ip}:8080`]];
    const cookie = await session(ways[2][1]);
    await waitFor("both controllers to know the host", 60, async () => (await Promise.all(ways.map(([, url]) => load(url, { ...asked[0], requests: 2, atOnce: 1 }, cookie).then(() => true, () => false)))).every(Boolean));
    const figures = asked.map(() => ways.map(() => ({ each: [] as number[], rates: [] as number[] })));
    for (let round = 0; round <= ROUNDS; round++)
      for (const [i, page] of asked.entries())
        for (const [j, [, url]] of ways.entries()) {
          const { each, all } = await load(url, page, cookie);
          if (round === 0) continue; // Everyone is warm.
          figures[i][j].each.push(...each);
          figures[i][j].rates.push(page.requests / all);
        }
    const of = (i: number, figure: (measured: { each: number[]; rates: number[] }) => number) => figures[i].map(figure) as [number, number, number];
    saveBench("ingress", {
      title: "The way in: Traefik beside ingress-nginx and no ingress at all",
      ways: ["Traefik", "ingress-nginx", "the pod itself"], unit: "ms",
      rows: asked.flatMap(({ what, atOnce }, i) => [
        { what: `${what}, p50 with ${atOnce} at once`, seconds: of(i, ({ each }) => quantile(each, 0.5) * 1000) },
        { what: `${what}, p99`, seconds: of(i, ({ each }) => quantile(each, 0.99) * 1000) },
      ]),
      notes: [
        ...asked.map(({ what, requests }, i) => `${what}: ${ways.map(([name], j) => `${name} ${quantile(figures[i][j].rates, 0.5).toFixed(0)}`).join(", ")} requests/s, the median of ${ROUNDS} rounds of ${requests} in turns.`),
        `Jenkins is ${realJenkins ? "the real one" : "the sandbox's stand-in"}, which is most of the time of /login; ingress-nginx is the real controller on Debian's nginx, Traefik the real one. One pod each, all on one node, with the load.`,
      ],
    });
  } finally {
    for (const [name] of kinds) await kubectl(["-n", "jenkins", "delete", "ingress", `bench-${name}`, "--ignore-not-found"]);
    await stack.destroy();
    await stack.workspace.removeStack("bench-ingress");
  }
}

void main().catch((error: Error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exitCode = 1;
});
