import * as http from "node:http";
import * as net from "node:net";
import { certificateRemark, certificateRemarks, certificateSecrets, ingressRemarks, remarkLine } from "../../checks/ingress";
import { awaitCertificates, doorsTrouble, frontDoorTrouble, judgeDoors, knock, type FrontDoor } from "../../cli/front-door";
import { judgeIngress } from "../../cli/doctor";
import { usual } from "../../config/pieces";
import { selfSigned } from "./certificates";

type Config = Parameters<typeof certificateRemark>[0];
const config = (ingress: Partial<Config["ingress"]> = {}): Config => ({
  domain: "ci.example.com", namespaces: { jenkins: "jenkins", agents: "jenkins-agents", builds: "image-builds" },
  ingress: { controller: "traefik", install: true, className: "nginx", namespace: "ingress-nginx", httpNodePort: 80, httpsNodePort: 443, externalTrafficPolicy: "Cluster", trustedProxies: [], proxyProtocol: false, hosts: [], annotations: {}, maxBodySize: usual.maxBodySize, hstsSeconds: 1, replicas: 1, ...ingress },
});
const day = 86_400_000;

describe("the certificate", () => {
  const https = (tls = {}) => config({ tls: { secretName: "jenkins-tls", ...tls } });
  const [good, shops] = [selfSigned("ci.example.com", 90), selfSigned("shop.example.com", 90)];
  const after = (days: number) => new Date(Date.now() + days * day);
  const on = (days: number) => after(days).toISOString().slice(0, 10);

  test.each<[string, string | null, number, string, string]>([
    ["is not there", null, 1, "no Secret jenkins-tls in namespace jenkins", "create secret tls jenkins-tls"],
    ["is none", "", 1, "without a certificate in tls.crt", "create secret tls"],
    ["is another host's", shops, 1, "is for DNS:shop.example.com", "create secret tls"],
    ["has ended", good, 91, `ended on ${on(90)}`, "create secret tls"],
    ["has not begun", good, -1, `not in force before ${on(0)}`, "create secret tls"],
    ["ends soon", good, 80, `ends on ${on(90)}`, "create secret tls"],
  ])("%s", (_, pem, days, found, fix) => {
    expect(certificateRemark(https(), pem, after(days))).toMatchObject({ key: "ingress.tlsSecret", found: expect.stringContaining(found), fix: expect.stringContaining(fix) });
  });

  test("is nothing to speak of where it is good, where nobody asked, and without HTTPS", () => {
    expect(certificateRemark(https(), good, after(1))).toBeUndefined();
    expect(certificateRemark(https(), undefined, after(1))).toBeUndefined();
    expect(certificateRemark(config(), null, after(1))).toBeUndefined();
  });

  test("is well for smoke until its end", () => {
    const wanted = https();
    expect(certificateRemarks(wanted, { "jenkins-tls": good }, after(89), { days: 0 })).toEqual([]);
    expect(certificateRemarks(wanted, { "jenkins-tls": good }, after(91), { days: 0 })).toHaveLength(1);
  });

  test("of an issuer is the issuer's to renew, and the issuer is asked", () => {
    // A third of its time is left when it is made anew.
    expect(certificateRemark(https({ clusterIssuer: "letsencrypt" }), good, after(75))).toBeUndefined();
    expect(certificateRemark(https({ clusterIssuer: "letsencrypt" }), good, after(77))).toMatchObject({ key: "ingress.clusterIssuer", found: expect.stringContaining("ought to have been made anew") });
    const short = selfSigned("ci.example.com", 6);
    expect(certificateRemark(https({ clusterIssuer: "letsencrypt" }), short, after(4))).toBeUndefined();
    expect(certificateRemark(https({ clusterIssuer: "letsencrypt" }), short, after(5.5))).toMatchObject({ found: expect.stringContaining("ought to have been made anew") });
    expect(certificateRemark(https({ clusterIssuer: "letsencrypt" }), null, after(1))).toMatchObject({ key: "ingress.clusterIssuer", fix: expect.stringContaining("describe certificate") });
    // Somebody's own time for it is not known here.
    const late = config({ tls: { secretName: "jenkins-tls", clusterIssuer: "letsencrypt" }, annotations: { "cert-manager.io/renew-before": "24h" } });
    expect(certificateRemark(late, good, after(89.5))).toBeUndefined();
    expect(certificateRemark(late, good, after(91))).toMatchObject({ found: expect.stringContaining("ended on") });
  });

  describe("as smoke waits for it", () => {
    /** What the Secret holds at each look, the last for ever. */
    const smoked = async (ingress: Partial<Config["ingress"]>, looks: (string | null)[], patience = 5) => {
      let [look, left] = [0, patience];
      const kubectl = async () => {
        const pem = looks[Math.min(look++, looks.length - 1)];
        return pem === null ? "" : `jenkins-tls ${Buffer.from(pem).toString("base64")}`;
      };
      const stack = { config: config({ tls: { secretName: "jenkins-tls" }, ...ingress }), kubectl } as unknown as Parameters<typeof awaitCertificates>[0];
      return { trouble: await awaitCertificates(stack, () => left-- > 0, async () => undefined), look };
    };
    const issued = { tls: { secretName: "jenkins-tls", clusterIssuer: "letsencrypt" } };

    test("an issuer's may still come", async () => {
      expect(await smoked(issued, [null, null, good])).toEqual({ trouble: "", look: 3 });
      expect(await smoked(issued, [null])).toEqual({ trouble: expect.stringContaining("no Secret jenkins-tls"), look: 6 });
    });

    test("one that nobody makes is there, or is not", async () => {
      expect(await smoked({}, [null, good])).toEqual({ trouble: expect.stringContaining("no Secret jenkins-tls"), look: 1 });
    });

    test("its name is not judged where people meet another's, its end is", async () => {
      expect((await smoked({}, [shops])).trouble).toContain("is for DNS:shop.example.com");
      expect((await smoked({ externalUrl: "https://people.example.com" }, [shops])).trouble).toBe("");
      expect((await smoked({ externalUrl: "https://people.example.com" }, [""])).trouble).toContain("without a certificate");
    });
  });
});

describe("the controller", () => {
  const keys = (ingress: Partial<Config["ingress"]>, nodes?: number) => ingressRemarks(config(ingress), nodes).map(({ key }) => key);

  test("that nobody maintains is named, with the way out; another is not", () => {
    const [remark] = ingressRemarks(config({ controller: "nginx" }), 1);
    expect(remarkLine(remark)).toMatch(/^ingress\.controller: nginx: ingress-nginx has had no release.*March 2026.*1\.35.*ingress\.controller' traefik/);
    expect(keys({}, 1)).toEqual([]);
    expect(keys({ controller: "none" }, 3)).toEqual([]);
  });

  test("that answers on some nodes only is spoken of where there are more", () => {
    expect(keys({ externalTrafficPolicy: "Local" }, 3)).toEqual(["ingress.externalTrafficPolicy"]);
    expect(keys({ externalTrafficPolicy: "Local", replicas: 3 }, 3)).toEqual([]);
    expect(keys({ externalTrafficPolicy: "Local" })).toEqual([]);
    expect(keys({ externalTrafficPolicy: "Local", controller: "none", install: false }, 3)).toEqual([]);
  });

  test("that does not look at a limit of uploads is told of with it", () => {
    expect(keys({ maxBodySize: "2g" })).toEqual(["ingress.maxBodySize"]);
    expect(keys({ maxBodySize: "2g", controller: "none" })).toEqual([]);
  });
});

test("every host has its certificate looked at", () => {
  const wanted = config({ tls: { secretName: "tls" }, hosts: [{ name: "old.example.com", secretName: "tls" }, { name: "files.example.com", secretName: "files-tls" }] });
  expect(certificateSecrets(wanted)).toEqual(["tls", "files-tls"]);
  expect(certificateSecrets(config())).toEqual([]);
  const found = certificateRemarks(wanted, { tls: selfSigned("ci.example.com", 90), "files-tls": null }, new Date());
  expect(found.map(({ key, found: text, expected }) => [key, text.slice(0, 40), expected])).toEqual([
    ["ingress.hosts[0].tlsSecret", "the certificate in Secret tls is for DNS", "a certificate for old.example.com that is in force"],
    ["ingress.hosts[1].tlsSecret", "no Secret files-tls in namespace jenkins", "a certificate for files.example.com that is in force"],
  ]);
});

describe("the doors", () => {
  const door = (over: Partial<FrontDoor>): FrontDoor => ({ address: "192.0.2.1", port: 80, ...over });

  test("are well where one answers", () => {
    expect(judgeDoors([door({ status: 200 }), door({ error: "timed out" })], config())).toEqual({ good: true, text: "answers on 1 of 2 nodes" });
    expect(judgeDoors([door({ address: "ci.example.com", status: 200 })], config({ controller: "none", install: false }))).toEqual({ good: true, text: "answers at ci.example.com" });
  });

  test("are well behind a load balancer, where no node is to be reached from here", () => {
    expect(judgeDoors([door({ error: "timed out" }), door({ address: "ci.example.com", status: 200 })], config())).toEqual({ good: true, text: "answers at ci.example.com" });
    expect(judgeDoors([door({ error: "connect ECONNREFUSED" }), door({ address: "ci.example.com", error: "getaddrinfo ENOTFOUND ci.example.com" })], config())).toMatchObject({ good: false, text: expect.stringMatching(/^nothing listens on port 80 of node 192\.0\.2\.1/) });
  });

  test("are not judged where this machine reaches the API server alone", () => {
    const doors = [door({ error: "no answer within 10 s" }), door({ address: "ci.example.com", error: "connect EHOSTUNREACH" })];
    expect(judgeDoors(doors, config())).toEqual({ good: true, reached: false, text: "neither the nodes nor ci.example.com can be reached from here (no answer within 10 s): not judged" });
    expect(judgeIngress(config({ controller: "traefik" }), 1, {}, doors, new Date()).map(({ state, check }) => [state, check])).toContainEqual(["warn", "login page"]);
  });

  test("are not well where the nodes answer and the address that people use does not", () => {
    const outside = (over: Partial<FrontDoor>) => judgeDoors([door({ status: 200 }), door({ address: "jenkins.example.com", port: 443, ...over })], config({ externalUrl: "https://jenkins.example.com" }));
    expect(outside({ status: 200 })).toEqual({ good: true, text: "answers at jenkins.example.com" });
    expect(outside({ error: "getaddrinfo ENOTFOUND jenkins.example.com" })).toEqual({ good: true, text: "answers on 1 of 1 node" });
    expect(outside({ status: 308, location: "https://jenkins.example.com/login", asked: "https://jenkins.example.com/login" })).toEqual({ good: false, text: expect.stringMatching(/^answers on 1 of 1 node, but not at jenkins\.example\.com: port 443 .* sends the login page on to https:.*a loop.*X-Forwarded-Proto/) });
  });

  test("that send on are a loop, on the way to https, or lead to a log-in of the site's", () => {
    const before = config({ externalUrl: "https://jenkins.example.com" });
    const outside = { address: "jenkins.example.com", port: 443, asked: "https://jenkins.example.com/login" };
    const onward = { status: 302, location: "https://sso.example.com/start?rd=x" };
    expect(judgeDoors([door({ status: 200 }), door({ ...outside, ...onward })], before)).toEqual({ good: true, text: "jenkins.example.com sends people on to https://sso.example.com/start?rd=x" });
    expect(judgeDoors([door({ ...onward, asked: "http://ci.example.com/login" })], config())).toEqual({ good: false, text: "port 80 of node 192.0.2.1 sends people on to https://sso.example.com/start?rd=x" });
    const secured = judgeDoors([door({ status: 308, location: "https://ci.example.com/login", asked: "http://ci.example.com/login" })], config());
    expect(secured).toEqual({ good: false, text: expect.stringContaining("ingress.externalUrl") });
    expect(secured.text).not.toContain("loop");
  });

  test("of nodes that believe trusted proxies alone, and send this machine to the outer address, are reached; that one is judged", () => {
    const before = config({ externalUrl: "https://ci.example.com" });
    const sent = door({ status: 308, location: "https://ci.example.com/login", asked: "https://ci.example.com/login" });
    const outside = (over: Partial<FrontDoor>) => judgeDoors([sent, door({ address: "ci.example.com", port: 443, ...over })], before);
    expect(outside({ status: 200 })).toMatchObject({ good: true });
    expect(outside({ error: "connect ETIMEDOUT" })).toEqual({ good: true, text: "answers on 1 of 1 node" });
    expect(outside({ status: 502 })).toMatchObject({ good: false, text: expect.stringContaining("but not at ci.example.com") });
    expect(outside({ ...sent, address: "ci.example.com", port: 443 })).toMatchObject({ good: false, text: expect.stringContaining("a loop") });
    // Without TLS before the nodes it is no way to reach Jenkins.
    expect(judgeDoors([sent], config()).good).toBe(false);
  });

  test("are not well for smoke with a loop at the address that people use, though the nodes answer; nor where nothing is reached", () => {
    const before = config({ externalUrl: "https://ci.example.com" });
    const loop = door({ address: "ci.example.com", port: 443, status: 308, location: "https://ci.example.com/login", asked: "https://ci.example.com/login" });
    expect(doorsTrouble([door({ status: 200 }), loop], before)).toContain("a loop");
    expect(doorsTrouble([door({ status: 200 }), { ...loop, status: 200, location: undefined }], before)).toBeUndefined();
    expect(doorsTrouble([door({ status: 200 }), door({ error: "no answer within 10 s" })], config())).toBeUndefined();
    expect(doorsTrouble([door({ error: "no answer within 10 s" })], config(), ["a firewall"])).toMatch(/does not answer.*\n {4}suspect: a firewall/s);
    expect(doorsTrouble([], config())).toContain("no node with an address");
    const theirs = { controller: "none", install: false } as const;
    expect(doorsTrouble([door({ address: "ci.example.com", status: 404 })], config(theirs))).toBeUndefined();
    expect(doorsTrouble([loop], config({ ...theirs, externalUrl: "https://ci.example.com" }))).toContain("a loop");
  });

  test("behind which Jenkins does not answer name who is let in", () => {
    for (const status of [502, 503, 504]) expect(judgeDoors([door({ status })], config()).text).toMatch(/networkPolicies.*namespace ingress-nginx .*ingress\.namespace/);
  });

  describe("are knocked at", () => {
    let server: http.Server;
    let seen: string[];
    afterEach(() => new Promise((resolve) => server.close(resolve)));
    const listening = (made: http.Server | net.Server) => new Promise<number>((resolve) => made.listen(0, "127.0.0.1", () => resolve((made.address() as net.AddressInfo).port)));

    test("below the path, and as behind what ended TLS", async () => {
      server = http.createServer((req, res) => {
        const { host, "x-forwarded-proto": proto, "x-forwarded-port": port } = req.headers;
        seen = [req.url!, host!, proto as string, port as string];
        // As an ingress that sends plain HTTP on.
        if (proto !== "https") return void res.writeHead(308, { location: `https://${host}${req.url}` }).end();
        res.writeHead(200).end();
      });
      const way = { address: "127.0.0.1", port: await listening(server), tls: false, host: "ci.example.com", path: "/jenkins/login" };
      expect(await knock({ ...way, forwardedPort: 8443 })).toEqual({ address: way.address, port: way.port, status: 200 });
      expect(seen).toEqual(["/jenkins/login", "ci.example.com", "https", "8443"]);
      expect(await knock(way)).toMatchObject({ status: 308, location: "https://ci.example.com/jenkins/login" });
    });

    test("with PROXY protocol where that is spoken", async () => {
      server = net.createServer((socket) => {
        socket.once("data", (data) => {
          seen = data.toString().split("\r\n");
          socket.end(`HTTP/1.1 ${seen[0] === "PROXY UNKNOWN" ? 200 : 400} x\r\nContent-Length: 0\r\n\r\n`);
        });
      }) as unknown as http.Server;
      const way = { address: "127.0.0.1", port: await listening(server), tls: false, host: "ci.example.com", path: "/login" };
      expect(await knock({ ...way, proxyProtocol: true })).toMatchObject({ status: 200 });
      expect(await knock(way)).toMatchObject({ status: 400 });
    });

    test.each([false, true])("and silence has an end (TLS: %s)", async (secure) => {
      const held: net.Socket[] = [];
      server = net.createServer((socket) => void held.push(socket.on("error", () => undefined))) as unknown as http.Server;
      const way = { address: "127.0.0.1", port: await listening(server), tls: secure, host: "ci.example.com", path: "/login" };
      expect(await knock(way, 0.2)).toMatchObject({ error: "no answer within 0.2 s" });
      held.forEach((socket) => socket.destroy());
    });

    test("and a refusal is told, with TLS as without", async () => {
      server = http.createServer();
      const port = await listening(server);
      await new Promise((resolve) => server.close(resolve));
      for (const secure of [false, true]) expect((await knock({ address: "127.0.0.1", port, tls: secure, host: "ci.example.com", path: "/login" })).error).toContain("ECONNREFUSED");
    });
  });

  test("are not where none does, and what to do is said", () => {
    expect(judgeDoors([door({ status: 404 })], config())).toMatchObject({ good: false, text: expect.stringMatching(/node 192\.0\.2\.1 answers, but knows no host ci\.example\.com.*logs -l .*annotation/) });
    expect(judgeDoors([], config()).good).toBe(false);
  });

  test("of somebody else are not judged where their name leads nowhere from here", () => {
    expect(judgeDoors([door({ address: "ci.example.com", error: "getaddrinfo ENOTFOUND ci.example.com" })], config({ controller: "none", install: false }))).toMatchObject({ good: true, text: expect.stringContaining("does not resolve here") });
    expect(frontDoorTrouble(door({ address: "ci.example.com", error: "connect ECONNREFUSED" }), "ci.example.com", "jenkins", "x")).toMatch(/^nothing listens on port 80 of ci\.example\.com/);
  });

  test("doctor has a line for them once there is an Ingress", () => {
    const lines = (doors?: FrontDoor[]) => judgeIngress(config({ controller: "nginx" }), 1, {}, doors, new Date()).map(({ state, check }) => [state, check]);
    expect(lines()).toEqual([["warn", "ingress"]]);
    expect(lines([door({ status: 200 })])).toEqual([["warn", "ingress"], ["ok", "login page"]]);
    expect(lines([door({ status: 503 })])).toEqual([["warn", "ingress"], ["fail", "login page"]]);
  });
});
