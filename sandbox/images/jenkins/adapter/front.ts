/**
 * Port 8080: passes everything to Hudson on loopback, and answers what the configuration-as-code plugin answers, with the statuses and
 * bodies that were recorded of it.
 */
import { timingSafeEqual } from "node:crypto";
import * as http from "node:http";
import { BrokenDocument } from "./casc";
import { HUDSON_PORT } from "./hudson";

const RELOAD_PATH = "/reload-configuration-as-code";
const PLUGINS_API = "/pluginManager/api/json";
const RELOAD_PAGE = "/configuration-as-code/reload";

export interface FrontOptions {
  /** Path below which Hudson answers, without a slash at its end. */
  prefix: string;
  isReady: () => boolean;
  /** Reads the documents again; on failure the settings in force stay. */
  reload: () => Promise<void>;
  reloadToken: string | undefined;
  /** What the API says of the plugins. */
  plugins: object[];
  log: (line: string) => void;
}

/** Where the options let Hudson answer: of several the last counts. */
export const prefixOf = (options: string[]): string => options.findLast((option) => option.startsWith("--prefix="))?.slice("--prefix=".length).replace(/\/+$/, "") ?? "";

/** The path of a request below the prefix; undefined for one beside it. */
export const below = (prefix: string, pathname: string): string | undefined => (pathname === prefix ? "/" : pathname.startsWith(`${prefix}/`) ? pathname.slice(prefix.length) : undefined);

/** An answer of the plugin's. */
export interface Answer {
  status: number;
  body: string;
  type: string;
  /** Where a redirection leads. */
  location?: string;
}

/** The page that Jenkins shows in place of an exception: long, and without its reason. */
export const oops: Answer = {
  status: 500,
  type: "text/html",
  body: `<!DOCTYPE html><html><head><title>Jenkins - Jenkins</title></head><body><div id="main-panel"><h1>Oops!</h1><p>A problem occurred while processing the request.</p><p>Logging ID=00000000-0000-0000-0000-000000000000</p></div>${"<!-- -->".repeat(1200)}</body></html>`,
};

const plain = (status: number, body = ""): Answer => ({ status, body, type: "text/plain" });

/** What the plugin answers to a reload with a token. */
export async function reloadByToken(method: string | undefined, given: string, o: FrontOptions): Promise<Answer> {
  if (method !== "POST") return plain(405, "POST is expected");
  const wanted = Buffer.from(o.reloadToken ?? "");
  if (wanted.length === 0) return plain(404);
  const token = Buffer.from(given);
  if (token.length !== wanted.length || !timingSafeEqual(token, wanted)) return plain(401);
  return reload(o, plain(200), (message) => ({ status: 200, type: "application/json", body: JSON.stringify({ status: "error", message: `Failed to reload configuration: ${message}` }) }));
}

/** What it answers to the button of its page. */
export const reloadByPage = (o: FrontOptions): Promise<Answer> => reload(o, { ...plain(302), location: `${o.prefix}/configuration-as-code/` }, (message) => ({ status: 200, type: "text/html", body: `<html><body><h1>Configuration as Code error</h1><pre>${message.replace(/&/g, "&amp;").replace(/</g, "&lt;")}</pre></body></html>` }));

async function reload(o: FrontOptions, good: Answer, refused: (message: string) => Answer): Promise<Answer> {
  if (!o.isReady()) return plain(503, "Please wait while Jenkins is getting ready to work");
  try {
    await o.reload();
    return good;
  } catch (e) {
    if (!(e instanceof BrokenDocument)) throw e;
    o.log(`SEVERE: Failed to reload Jenkins Configuration as Code via token\n${e.problems.join("\n")}`);
    return e.unreadable ? oops : refused(e.problems.map((problem) => problem.replace(/^[\w.]+Exception: /, "")).join("; "));
  }
}

export function serve(o: FrontOptions): http.Server {
  const server = http.createServer((req, res) => {
    const url = new URL(req.url ?? "/", "http://localhost");
    const inside = below(o.prefix, url.pathname);
    const place = inside?.replace(/\/+$/, "");
    const give = (answered: Promise<Answer>) => void answered.catch((e: Error) => (o.log(`SEVERE: ${e.stack}`), oops)).then((each) => answer(res, each));
    if (inside === undefined) answer(res, plain(404, "Not found"));
    else if (place === RELOAD_PATH) give(reloadByToken(req.method, url.searchParams.get("casc-reload-token") ?? "", o));
    else if (!o.isReady()) answer(res, plain(503, "Please wait while Jenkins is getting ready to work"));
    else if (inside.startsWith("/sandbox-adapter")) answer(res, plain(404, "Not found"));
    else if (place === RELOAD_PAGE && req.method === "POST") void asAdministrator(req, o.prefix).then((may) => (may ? give(reloadByPage(o)) : answer(res, plain(403))));
    else if (place === PLUGINS_API) void asAdministrator(req, o.prefix).then((may) => answer(res, may ? { status: 200, type: "application/json", body: JSON.stringify({ plugins: o.plugins }) } : plain(403)));
    else pass(req, res);
  });
  // Uploads and console streams may take as long as they like.
  server.requestTimeout = 0;
  server.listen(8080);
  return server;
}

/** In place of all pages where Jenkins could not start: every one is 500 for good, and the process stays. */
export function serveFailure(): http.Server {
  return http.createServer((_, res) => answer(res, oops)).listen(8080);
}

/** Whether Hudson lets who asks manage it. */
function asAdministrator(req: http.IncomingMessage, prefix: string): Promise<boolean> {
  return new Promise((resolve) => {
    const { authorization, cookie } = req.headers;
    http.get({ host: "127.0.0.1", port: HUDSON_PORT, path: `${prefix}/manage`, headers: { ...(authorization && { authorization }), ...(cookie && { cookie }) }, agent: false }, (answered) => {
      answered.resume();
      resolve(answered.statusCode === 200);
    }).on("error", () => resolve(false));
  });
}

function answer(res: http.ServerResponse, { status, body, type, location }: Answer): void {
  res.writeHead(status, { "content-type": `${type}; charset=utf-8`, "content-length": Buffer.byteLength(body), ...(location && { location }) });
  res.end(body);
}

function pass(req: http.IncomingMessage, res: http.ServerResponse): void {
  const headers: http.IncomingHttpHeaders = { ...req.headers, connection: "close" };
  delete headers.expect;
  delete headers["x-adapter-token"];
  const send = (body?: Buffer) => {
    if (body) {
      // Winstone does not understand chunked requests.
      delete headers["transfer-encoding"];
      headers["content-length"] = String(body.length);
    }
    const upstream = http.request({ host: "127.0.0.1", port: HUDSON_PORT, method: req.method, path: req.url, headers, agent: false }, (answered) => {
      const out = { ...answered.headers };
      delete out.connection;
      // Hudson is older than X-Forwarded-Proto: its redirects would leave TLS.
      if (out.location && req.headers["x-forwarded-proto"] === "https") out.location = out.location.replace(`http://${req.headers.host}`, `https://${req.headers.host}`);
      res.writeHead(answered.statusCode ?? 502, answered.statusMessage, out);
      answered.pipe(res);
    });
    upstream.on("error", () => (res.headersSent ? res.destroy() : answer(res, plain(502, "Hudson does not answer"))));
    res.on("close", () => upstream.destroy());
    if (body) upstream.end(body);
    else req.pipe(upstream);
  };
  if (req.headers["transfer-encoding"] === undefined) return send();
  const chunks: Buffer[] = [];
  req.on("data", (chunk: Buffer) => chunks.push(chunk));
  req.on("end", () => send(Buffer.concat(chunks)));
}
