import * as http from "node:http";
import type { AddressInfo } from "node:net";
import { Jenkins } from "../../cli/jenkins";

/** A Jenkins that takes a POST only with the crumb of a session it knows; `guarded: false` is one without such a guard, as Hudson. */
class Fake {
  guarded = true;
  /** What it answers to the next question for a crumb instead. */
  starting = 0;
  readonly seen: string[] = [];
  private session = 1;
  private readonly server = http.createServer((req, res) => {
    this.seen.push(`${req.method} ${req.url}`);
    const end = (status: number, body = "", headers: http.OutgoingHttpHeaders = {}) => void res.writeHead(status, headers).end(body);
    if (req.url?.endsWith("/crumbIssuer/api/json")) {
      if (this.starting-- > 0) return end(503);
      const crumb = JSON.stringify({ _class: "hudson.security.csrf.DefaultCrumbIssuer", crumb: `c${this.session}`, crumbRequestField: "Jenkins-Crumb" });
      return this.guarded ? end(200, crumb, { "Set-Cookie": `JSESSIONID.x=s${this.session}; Path=/; HttpOnly` }) : end(404);
    }
    const good = !this.guarded || (req.headers["jenkins-crumb"] === `c${this.session}` && req.headers.cookie === `JSESSIONID.x=s${this.session}`);
    return good ? end(201, String(req.headers.host)) : end(403, "No valid crumb was included in the request");
  });

  async start(): Promise<number> {
    await new Promise<void>((resolve) => this.server.listen(0, "127.0.0.1", resolve));
    return (this.server.address() as AddressInfo).port;
  }

  /** Sessions of before are gone. */
  restart(): void {
    this.session++;
  }

  stop(): void {
    this.server.close();
    this.server.closeAllConnections();
  }
}

let fake: Fake;
let jenkins: Jenkins;
let port: number;
beforeEach(async () => {
  fake = new Fake();
  port = await fake.start();
  jenkins = new Jenkins({ port, headers: { Host: "jenkins.example.com" } }, "admin:secret");
});
afterEach(() => fake.stop());

test("a POST has a crumb and the session it belongs to, asked for once", async () => {
  expect(await jenkins.post("/a")).toBe("jenkins.example.com");
  await jenkins.post("/b");
  expect(fake.seen).toEqual(["GET /crumbIssuer/api/json", "POST /a", "POST /b"]);
});

test("below a path every request goes there, that for a crumb included", async () => {
  await new Jenkins({ port, prefix: "/jenkins" }, "admin:secret").post("/a");
  expect(fake.seen).toEqual(["GET /jenkins/crumbIssuer/api/json", "POST /jenkins/a"]);
});

test("after a restart, which ends the session, a fresh one is asked for", async () => {
  await jenkins.post("/a");
  fake.restart();
  await jenkins.post("/b");
  expect(fake.seen.slice(2)).toEqual(["POST /b", "GET /crumbIssuer/api/json", "POST /b"]);
});

test("a Jenkins without crumbs is posted to without, and its refusals are refusals", async () => {
  fake.guarded = false;
  await jenkins.post("/a");
  await jenkins.post("/b");
  expect(fake.seen).toEqual(["GET /crumbIssuer/api/json", "POST /a", "POST /b"]);
});

test("one that cannot tell yet is asked again", async () => {
  fake.starting = 1;
  await expect(jenkins.post("/a")).rejects.toThrow(/403 to POST \/a: No valid crumb/);
  await jenkins.post("/a");
  expect(fake.seen).toEqual(["GET /crumbIssuer/api/json", "POST /a", "GET /crumbIssuer/api/json", "POST /a"]);
});
