import * as http from "node:http";
import type { AddressInfo } from "node:net";
import { smoke, type Work } from "../../cli/smoke";
import type { Stack } from "../../cli/stack";

/** `npm run smoke -- --pipeline` from end to end against a Jenkins that answers as the real one does. */

let port: number;
jest.mock("../../cli/jenkins", () => ({
  ...jest.requireActual<object>("../../cli/jenkins"),
  withJenkins: (_: unknown, work: (at: { port: number }) => Promise<unknown>) => work({ port }),
}));

const work: Work = { pipeline: "x.Jenkinsfile", script: "echo 'hello'", parameters: { IMAGE: "node:22" } };
let plugins: { shortName: string; active: boolean }[];
let result: string | null;
let asked: string[];
/** Answers that a deletion gets before it is done; 0 for none. */
let busy: number[];
let made: string;
let server: http.Server;

beforeEach(async () => {
  [plugins, result, asked, made, busy] = [[{ shortName: "workflow-job", active: true }], "SUCCESS", [], "", []];
  server = http.createServer((req, res) => {
    const { pathname } = new URL(req.url!, "http://x");
    const what = `${req.method} ${pathname.replace(/smoke-\w+/, "JOB")}`;
    asked.push(what);
    const json = (value: object) => void res.end(JSON.stringify(value));
    if (req.method === "POST" && req.headers["jenkins-crumb"] !== "c") return void res.writeHead(403).end();
    if (what === "GET /crumbIssuer/api/json") return json({ crumb: "c", crumbRequestField: "Jenkins-Crumb" });
    if (what === "GET /pluginManager/api/json") return json({ plugins });
    if (what === "GET /queue/api/json") return json({ items: result === null ? [{ id: 7, task: { name: `part of ${made} #1` }, why: "There are no nodes" }, { id: 8, task: { name: "another" }, why: "" }] : [] });
    if (what === "GET /job/JOB/1/api/json") return json({ building: result === null, result });
    if (what === "GET /job/JOB/1/consoleText") return void res.end("hello\nFinished\n");
    if (what === "POST /createItem") made = new URL(req.url!, "http://x").searchParams.get("name")!;
    if (what === "POST /job/JOB/doDelete" && busy[0] === 0) return void (busy.shift(), req.socket.destroy());
    if (what === "POST /job/JOB/doDelete" && busy.length > 0) res.statusCode = busy.shift()!;
    res.end("{}");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  ({ port } = server.address() as AddressInfo);
  jest.spyOn(process.stdout, "write").mockReturnValue(true);
});
afterEach(() => {
  jest.restoreAllMocks();
  server.close();
  server.closeAllConnections();
});

const secret = { data: { "admin-user": "YWRtaW4=", "admin-password": "eA==" } };
const stack = {
  kubectlArgs: [], kubectl: async (...args: string[]) => (args.includes("nodes") ? "127.0.0.1\n" : JSON.stringify(args.includes("secret") ? secret : { items: [] })),
  config: { domain: "ci.example.com", admin: {}, agents: [], namespaces: { jenkins: "jenkins", agents: "jenkins-agents" }, controller: {}, ingress: { install: false, namespace: "ingress-nginx", httpNodePort: 1, httpsNodePort: 1 } },
} as unknown as Stack;
const run = (timeout: number) => smoke(stack, work, timeout, new AbortController().signal);

test("a good one is made, built with its parameters, and taken away", async () => {
  await run(20);
  expect(asked.filter((what) => what.startsWith("POST"))).toEqual(["POST /createItem", "POST /job/JOB/buildWithParameters", "POST /job/JOB/doDelete"]);
});

test.each([
  ["half way, as a build's files are still written, is tried again", [500, 404], 2, /^$/],
  ["without an answer is tried again", [0, 404], 2, /^$/],
  ["for want of rights is not", [403, 403], 2, /job smoke-\w+ is still there: .*403/], // Twice: with the crumb it has, and with a new one.
])("a deletion that fails %s", async (_, answers, times, reason) => {
  busy = answers;
  expect(await run(20).then(() => "", (error: Error) => error.message)).toMatch(reason);
  expect(asked.filter((what) => what.endsWith("doDelete"))).toHaveLength(times);
});

test("a failed one is said with its last lines, stopped and taken away", async () => {
  result = "FAILURE";
  await expect(run(20)).rejects.toThrow(/FAILURE; its last lines:\n +hello/);
  expect(asked.slice(-3)).toEqual(["POST /job/JOB/1/stop", "GET /queue/api/json", "POST /job/JOB/doDelete"]);
});

test("one that waits for an agent says so, and its place in the queue is given up; another job's is not", async () => {
  result = null;
  await expect(run(1)).rejects.toThrow(/still running after 1 s \(the queue says: There are no nodes\)/);
  expect(asked.slice(-2)).toEqual(["POST /queue/cancelItem", "POST /job/JOB/doDelete"]);
  expect(asked.filter((what) => what.includes("cancelItem"))).toHaveLength(1);
});

test("a Jenkins without pipelines is left alone", async () => {
  plugins = [];
  await expect(run(20)).rejects.toThrow(/plugin workflow-job is not active/);
  expect(asked.filter((what) => what.startsWith("POST"))).toEqual([]);
});
