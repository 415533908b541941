/** Port 8080: passes everything to Hudson on loopback, and answers the configuration-as-code plugin's reload call. */
import { timingSafeEqual } from "node:crypto";
import * as http from "node:http";
import { BrokenDocument } from "./casc";
import { HUDSON_PORT } from "./hudson";

const RELOAD_PATH = "/reload-configuration-as-code";

export interface FrontOptions {
  isReady: () => boolean;
  /** Reads the documents again; on failure the settings in force stay. */
  reload: () => Promise<void>;
  reloadToken: string | undefined;
  log: (line: string) => void;
}

export function serve(o: FrontOptions): http.Server {
  const server = http.createServer((req, res) => {
    const url = new URL(req.url ?? "/", "http://localhost");
    if (url.pathname.replace(/\/+$/, "") === RELOAD_PATH) void reload(o, req, url, res);
    else if (!o.isReady()) answer(res, 503, "Please wait while Jenkins is getting ready to work");
    else if (url.pathname.startsWith("/sandbox-adapter")) answer(res, 404, "Not found");
    else pass(req, res);
  });
  // Uploads and console streams may take as long as they like.
  server.requestTimeout = 0;
  server.listen(8080);
  return server;
}

async function reload(o: FrontOptions, req: http.IncomingMessage, url: URL, res: http.ServerResponse): Promise<void> {
  const given = Buffer.from(url.searchParams.get("casc-reload-token") ?? "");
  const wanted = Buffer.from(o.reloadToken ?? "");
  if (req.method !== "POST") return answer(res, 405, "POST is expected");
  if (wanted.length === 0) return answer(res, 404, "CASC_RELOAD_TOKEN is not set");
  if (given.length !== wanted.length || !timingSafeEqual(given, wanted)) return answer(res, 401, "the token is not the one of CASC_RELOAD_TOKEN");
  if (!o.isReady()) return answer(res, 503, "Please wait while Jenkins is getting ready to work");
  try {
    await o.reload();
    answer(res, 200, "reloaded");
  } catch (e) {
    const problems = e instanceof BrokenDocument ? e.problems : [(e as Error).message];
    o.log(`configuration: the new document is refused, the old one stays in force:\n  ${problems.join("\n  ")}`);
    // The plugin's own answer, since version 2099 with status 200.
    answer(res, 200, JSON.stringify({ status: "error", message: `Failed to reload configuration: ${problems.join("; ")}` }), "application/json");
  }
}

function answer(res: http.ServerResponse, status: number, text: string, type = "text/plain"): void {
  res.writeHead(status, { "content-type": `${type}; charset=utf-8` });
  res.end(`${text}\n`);
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
    upstream.on("error", () => (res.headersSent ? res.destroy() : answer(res, 502, "Hudson does not answer")));
    res.on("close", () => upstream.destroy());
    if (body) upstream.end(body);
    else req.pipe(upstream);
  };
  if (req.headers["transfer-encoding"] === undefined) return send();
  const chunks: Buffer[] = [];
  req.on("data", (chunk: Buffer) => chunks.push(chunk));
  req.on("end", () => send(Buffer.concat(chunks)));
}
