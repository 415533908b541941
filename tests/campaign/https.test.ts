import * as https from "node:https";
import type { TLSSocket } from "node:tls";
import { certificateTrouble, frontDoors, judgeDoors } from "../../cli/front-door";
import { smoke } from "../../cli/smoke";
import { readStack } from "../../cli/stack";
import { DOMAIN, ensurePlatform, kubectl, kubectlJson, NODE, onSandbox, pulumi, request, STACK, up, waitFor } from "../e2e/sandbox";
import { Acme, ISSUER } from "./acme";
import { ensureTraefikImage } from "./traefik-image";
import { otherWays } from "./way-in";

/**
 * HTTPS by a certificate that cert-manager asks an ACME server for, by HTTP-01 through the platform's own way in: made, served, made anew
 * before its end while everything runs on, and said where it ended or is missing. `HTTPS_WAYS` picks some of the ways in; `none` is for an
 * environment (`E2E_STACK`, `E2E_DOMAIN`) behind the ingress-nginx of another.
 */
jest.setTimeout(900_000);

const ways = (process.env.HTTPS_WAYS ?? "nginx,traefik").split(",");
const OLD = `old.${DOMAIN}`;
const HSTS = ways.includes("none") ? 31_536_000 : 600;
/** Seconds that a certificate is in force: cert-manager makes it anew when two thirds are over. */
const LIFETIME = 240;

let namespace = "";
const { configWith, previewed, remove } = otherWays();
const acme = new Acme();

const ingressOf = (controller: string, further: object = {}) => ({ controller, clusterIssuer: ISSUER, hosts: [{ name: OLD }], ...(controller !== "none" && { hstsSeconds: HSTS }), ...further });

interface Page { status: number; hsts?: string; serial: string; until: Date }

/** A page by HTTPS, past DNS. The certificate has to be the host's, in force, and of the ACME server's root. */
const secure = (host = DOMAIN, target = "/login"): Promise<Page> =>
  new Promise((resolve, reject) => {
    const sent = https.get({ host: NODE, port: 443, servername: host, path: target, headers: { Host: host }, ca: acme.root, agent: false, timeout: 10_000 }, (answer) => {
      const { serialNumber: serial, valid_to: until } = (answer.socket as TLSSocket).getPeerCertificate();
      answer.resume().on("end", () => resolve({ status: answer.statusCode ?? 0, hsts: answer.headers["strict-transport-security"], serial, until: new Date(until) }));
    });
    sent.on("timeout", () => sent.destroy(new Error("timed out"))).on("error", reject);
  });

interface Pods { items: { metadata: { uid: string; deletionTimestamp?: string }; status: { containerStatuses?: { name: string; restartCount: number }[] } }[] }
/** Pods of the way in and of Jenkins, with how often each container started again; one that a move left behind is on its way out. */
const lives = async () => (await Promise.all([["ingress-nginx", "app.kubernetes.io/component=controller"], [namespace, "app.kubernetes.io/name=jenkins,app.kubernetes.io/component=controller"]].map(([place, label]) => kubectlJson<Pods>(["-n", place, "get", "pods", "-l", label])))).flatMap(({ items }) => items.filter(({ metadata: { deletionTimestamp } }) => deletionTimestamp === undefined).map(({ metadata: { uid }, status: { containerStatuses = [] } }) => [uid, containerStatuses.map(({ name, restartCount }) => [name, restartCount])]));

const asStatus = async (ingress: object) => certificateTrouble(await readStack(STACK, { ingress }), new Date());
/** @param timeout seconds that a certificate is waited for as well */
const asSmoke = async (ingress: object, timeout = 300) => {
  const stack = await readStack(STACK, { ingress });
  return smoke(stack, { label: stack.config.agents[0].label.split(" ")[0] }, timeout, new AbortController().signal);
};
const secrets = [`${OLD}-tls`, "jenkins-tls"];
const withoutSecrets = () => kubectl(["-n", namespace, "delete", "secret", "--ignore-not-found", ...secrets]);
const certificates = () => kubectl(["get", "certificates,orders,challenges", "--all-namespaces"], { allowFailure: true });

/**
 * Has the sandbox's nginx read certificates that come, change or go, until stopped: it has them from its configuration, which is not written anew for
 * them alone, where upstream's has them from the controller by Lua. Another host is what it is written anew for.
 */
function readByNginx(): () => Promise<void> {
  const ingress = (host: string) => ({ apiVersion: "networking.k8s.io/v1", kind: "Ingress", metadata: { name: "read-certificates", namespace }, spec: { ingressClassName: "nginx", rules: [{ host, http: { paths: [{ path: "/", pathType: "Prefix", backend: { service: { name: "jenkins", port: { name: "http" } } } }] } }] } });
  const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
  let [known, stopped] = ["", false];
  const looking = (async () => {
    for (; !stopped; await pause(2000)) {
      const seen = await kubectl(["-n", namespace, "get", "secrets", "-o", 'jsonpath={range .items[?(@.type=="kubernetes.io/tls")]}{.metadata.name} {.metadata.resourceVersion} {end}'], { allowFailure: true });
      if (seen === known) continue;
      // The controller is to know the Secret before the host.
      await pause(2000);
      await kubectl(["apply", "--server-side", "-f", "-"], { input: JSON.stringify(ingress(`read-${Date.now()}.${DOMAIN}`)) }).then(() => (known = seen), () => undefined);
    }
  })();
  return async () => {
    stopped = true;
    await looking;
    await kubectl(["-n", namespace, "delete", "ingress", "read-certificates", "--ignore-not-found"], { allowFailure: true });
  };
}

// The first run on a machine builds all of it.
beforeAll(async () => {
  ({ jenkins: namespace } = (await readStack(STACK)).config.namespaces);
  if (ways.includes("traefik")) await ensureTraefikImage();
  await acme.makeImage();
  await acme.start(LIFETIME);
  await ensurePlatform();
}, 2_400_000);

afterAll(async () => {
  try {
    await up();
    await kubectl(["delete", "clusterissuer", ISSUER, "--ignore-not-found"], { allowFailure: true });
    await acme.remove();
    await withoutSecrets();
  } finally {
    acme.stop();
    remove();
  }
});

test("preview says that nobody would make the certificate", async () => {
  expect(await previewed(ingressOf(ways[0]))).toContain(`${ISSUER}, while the cluster knows no Certificate of cert-manager.io/v1`);
  await kubectl(["apply", "--server-side", "-f", await acme.definitions()]);
  expect(await previewed(ingressOf(ways[0]))).toContain(`${ISSUER}, which is not there`);
});

test("preview says that a Secret with a certificate is not there", async () => {
  expect(await previewed({ controller: ways[0], tlsSecret: "nowhere" })).toContain(`no Secret nowhere in namespace ${namespace}`);
});

describe.each(ways)("%s", (way) => {
  const ingress = ingressOf(way);
  let first: Page;
  let stopReading: (() => Promise<void>) | undefined;

  beforeAll(() => {
    if (way === "none" || (way === "nginx" && onSandbox)) stopReading = readByNginx();
  });
  afterAll(() => stopReading?.());

  test("a certificate comes for each host, and people get Jenkins by HTTPS alone", async () => {
    await kubectl(["apply", "--server-side", "-f", await acme.definitions()]);
    await acme.install([DOMAIN, OLD]);
    await acme.makeIssuer({ ingress: { ingressClassName: "nginx" } });
    if (way === ways[0]) await withoutSecrets();
    await up(...configWith(ingress));
    // A challenge between two ways in might be refused, and is tried again after an hour: asked for once the move is over.
    if (way !== ways[0]) await withoutSecrets();
    const started = Date.now();
    first = await waitFor("the login page by HTTPS", 300, async () => (await asStatus(ingress)) === "" && secure()).catch(async (error: Error) => {
      throw new Error(`${error.message}\n${await certificates()}\n${acme.log()}`);
    });
    process.stderr.write(`   ${way}: a certificate after ${Math.round((Date.now() - started) / 1000)} s\n`);
    expect(first).toMatchObject({ status: 200, hsts: expect.stringContaining(`max-age=${HSTS}`) });
    expect((await waitFor("the other host", 120, () => secure(OLD))).status).toBe(200);
    const plain = await request("GET", "/login?from=%2F");
    expect([301, 308]).toContain(plain.status);
    expect(plain.headers.location).toBe(`https://${DOMAIN}/login?from=%2F`);
    const stack = await readStack(STACK, { ingress });
    expect(judgeDoors(await frontDoors(stack), stack.config)).toMatchObject({ good: true });
    expect(await asStatus(ingress)).toBe("");
  });

  test("a second update changes nothing", async () => {
    const { stdout } = await pulumi(["preview", "--stack", STACK, "--expect-no-changes", ...configWith(ingress)]);
    expect(stdout).toContain("unchanged");
    expect(stdout).not.toContain("ingress.clusterIssuer:");
  });

  test("it is made anew before its end, and everything runs on", async () => {
    const before = await lives();
    const { serial } = await secure();
    let lost = 0;
    const next = await waitFor("another certificate", LIFETIME, async () => {
      const seen = await secure().catch(() => void lost++);
      return seen && seen.serial !== serial && seen;
    });
    expect(next.status).toBe(200);
    expect(next.until.getTime()).toBeGreaterThan(first.until.getTime());
    expect(lost).toBe(0);
    expect(await lives()).toEqual(before);
  });

  if (way === ways[0])
    test("one that ended is said, and so is one that is missing", async () => {
      await asSmoke(ingress);
      await acme.scale(0);
      await waitFor("its end", LIFETIME + 10, async () => ((await asStatus(ingress)) ?? "").includes("Secret jenkins-tls ended on"));
      await expect(secure()).rejects.toThrow(/expired/);
      expect(await asStatus(ingress)).toMatch(/the certificate in Secret jenkins-tls ended on .*describe certificate/);
      await expect(asSmoke(ingress, 5)).rejects.toThrow("ended on");
      expect(await previewed(ingress)).toContain("the certificate in Secret jenkins-tls ended on");
      await withoutSecrets();
      expect(await asStatus(ingress)).toContain(`no Secret jenkins-tls in namespace ${namespace}: people get one that the ingress controller made up`);
      await expect(asSmoke(ingress, 5)).rejects.toThrow("no Secret jenkins-tls");
      await waitFor("a certificate of the controller's own", 60, async () => !(await secure().then(() => true, (error: Error) => !/self.signed|unable to|altname/i.test(error.message))));
      await acme.scale(1);
      await waitFor("a certificate again", 300, () => secure());
      await waitFor("the other host's as well", 120, async () => (await asStatus(ingress)) === "");
    });
});
