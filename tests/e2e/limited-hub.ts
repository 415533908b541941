import * as http from "node:http";
import type { AddressInfo } from "node:net";

/**
 * Stand-in for Docker Hub where pulls without a log-in are used up: it gives tokens to everybody, answers 429 to those of nobody, and
 * hands the requests of `me` on to a real registry that asks for the password.
 */
export class LimitedHub {
  host = "";
  /** How often an image was asked for without and with a log-in, and which paths were served. */
  refused = 0;
  readonly served: string[] = [];
  private readonly login = `Basic ${Buffer.from("me:e2e-s3cret").toString("base64")}`;
  private readonly server = http.createServer((request, response) => this.answer(request, response));

  constructor(private readonly registry: string) {}

  async start(address = "127.0.0.1"): Promise<void> {
    await new Promise<void>((resolve) => this.server.listen(0, address, resolve));
    this.host = `${address}:${(this.server.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  private answer(request: http.IncomingMessage, response: http.ServerResponse): void {
    const { authorization, host } = request.headers;
    const [path] = request.url!.split("?");
    const say = (status: number, body: object, headers: http.OutgoingHttpHeaders = {}) => void response.writeHead(status, { "Content-Type": "application/json", ...headers }).end(request.method === "HEAD" ? undefined : JSON.stringify(body));
    if (path === "/token") return authorization !== undefined && authorization !== this.login ? say(401, {}) : say(200, { token: authorization ? "member" : "anonymous", expires_in: 300 });
    if (authorization === "Bearer anonymous" && path !== "/v2/") {
      this.refused++;
      return say(429, { errors: [{ code: "TOOMANYREQUESTS", message: "toomanyrequests: You have reached your unauthenticated pull rate limit" }] });
    }
    if (authorization !== "Bearer member" && authorization !== "Bearer anonymous") return say(401, { errors: [{ code: "UNAUTHORIZED" }] }, { "WWW-Authenticate": `Bearer realm="http://${host}/token",service="limited",scope="${/^\/v2\/(.+)\/(?:manifests|blobs)\//.exec(path) ? `repository:${/^\/v2\/(.+)\/(?:manifests|blobs)\//.exec(path)![1]}:pull,push` : ""}"` });
    this.served.push(path);
    const [hostname, port] = this.registry.split(":");
    const onward = http.request({ hostname, port, method: request.method, path: request.url, headers: { ...request.headers, authorization: this.login } }, (answer) => {
      response.writeHead(answer.statusCode!, answer.headers);
      answer.pipe(response);
    });
    onward.on("error", () => say(502, {}));
    request.pipe(onward);
  }
}
