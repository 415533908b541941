import * as fs from "node:fs";
import * as http from "node:http";
import * as https from "node:https";
import * as os from "node:os";
import * as path from "node:path";
import { checkServerIdentity } from "node:tls";
import { parse, stringify } from "yaml";
import { REPO } from "../../sandbox/paths";
import { pulumi, STACK, type Answer } from "../e2e/sandbox";

/** People who come in, and the stack with other ways in, for the campaigns of the way in. */

/** A request: to whom, as whom, from where. */
export interface Visit {
  address: string;
  port: number;
  host: string;
  path: string;
  headers?: http.OutgoingHttpHeaders;
  /** Address of this machine that it comes from. */
  from?: string;
  /** Authority of the server's certificate, with TLS; the name in it where that is another than the host's. */
  ca?: string;
  servername?: string;
}

/** One request on a connection of its own: what is kept open would stay with the pod that had it. */
export function visit({ address, port, host, path, headers, from, ca, servername = host.replace(/:\d+$/, "") }: Visit): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const options = { host: address, port, path, headers: { Host: host, ...headers }, agent: false, timeout: 5000, ...(from && { localAddress: from }) };
    const read = (answer: http.IncomingMessage) => {
      let body = "";
      answer.setEncoding("utf8").on("data", (chunk: string) => (body += chunk));
      answer.on("end", () => resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body })).on("error", reject);
    };
    const sent = ca === undefined ? http.get(options, read) : https.get({ ...options, ca, servername, checkServerIdentity: (_, certificate) => checkServerIdentity(servername, certificate) }, read);
    sent.on("timeout", () => sent.destroy(new Error(`no ${sent.socket?.connecting ? "connection" : "answer"} within 5 s`))).on("error", reject);
  });
}

/** Asks every `ms` until stopped: how many times, how many without an answer of 200 for each reason, and the longest time in seconds from one good answer to the next. */
export function watch(ms: number, ask: () => Promise<Answer>) {
  const started = Date.now();
  const [good, all]: [number[], Promise<void>[]] = [[], []];
  const lost: Record<string, number> = {};
  const lose = (why: string) => void (lost[why] = (lost[why] ?? 0) + 1);
  const timer = setInterval(() => {
    const at = Date.now();
    all.push(ask().then(({ status }) => void (status === 200 ? good.push(at) : lose(String(status))), (error: Error) => lose(error.message)));
  }, ms);
  // Whoever fails before it is stopped does not keep jest.
  timer.unref();
  return {
    stop: async () => {
      clearInterval(timer);
      await Promise.all(all);
      const times = [started, ...good.sort((a, b) => a - b), Date.now()];
      return { asked: all.length, lost, gap: Math.max(...times.slice(1).map((time, i) => time - times[i])) / 1000 };
    },
  };
}

/** The stack with other keys of `ingress`, in files of a folder of its own; the stack's own file stays as it is. */
export function otherWays() {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "way-in-"));
  /** Options of pulumi for them. */
  const configWith = (ingress: object): string[] => {
    const file = path.join(folder, `Pulumi.${STACK}.yaml`);
    const document = parse(fs.readFileSync(path.join(REPO, `Pulumi.${STACK}.yaml`), "utf8")) as { config: Record<string, unknown> };
    document.config["build-platform:ingress"] = ingress;
    // Paths in it are below the project's folder or absolute.
    fs.writeFileSync(file, stringify(document));
    return ["--config-file", file];
  };
  return {
    configWith,
    /** What `up` would say beforehand, in one line. */
    previewed: async (ingress: object): Promise<string> => {
      const { stdout, stderr } = await pulumi(["preview", "--stack", STACK, ...configWith(ingress)], { allowFailure: true });
      return `${stdout}${stderr}`.replace(/\s+/g, " ");
    },
    remove: () => fs.rmSync(folder, { recursive: true }),
  };
}
