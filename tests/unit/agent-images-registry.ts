// Stand-in for an image registry: the parts of the OCI distribution API that the scripts use, kept in memory.
import { createHash } from "node:crypto";
import * as http from "node:http";
import type { AddressInfo } from "node:net";

export const digestOf = (data: string | Buffer): string => `sha256:${createHash("sha256").update(data).digest("hex")}`;

export interface RegistryOptions {
  /** Who may do anything. Default: everybody. */
  login?: { username: string; password: string };
  /** True: asks for a token instead of the log-in itself, as public registries do. */
  tokens?: boolean;
  /** True: takes the repositories and actions of a token that is shown, as the stack's own registry does, and nothing else. */
  scopes?: boolean;
  /** True: knows the referrers of OCI 1.1. */
  referrers?: boolean;
  /** Answers every request for a manifest's deletion with this status. */
  deleteStatus?: number;
  /** True: as Docker Hub where pulls without a log-in are used up, answers them with 429. */
  limited?: boolean;
  /** Answers so many of the next requests with 429. */
  busy?: number;
  /** Answers so many of the next uploads with 500. */
  failing?: number;
}

export class RegistryStandIn {
  readonly manifests = new Map<string, { type: string; body: string }>();
  readonly tags = new Map<string, Map<string, string>>();
  readonly blobs = new Map<string, Buffer>();
  /** Method and path of every request. */
  readonly requests: string[] = [];
  /** Headers of every request. */
  readonly heard: http.IncomingHttpHeaders[] = [];
  options: RegistryOptions = {};
  private readonly server = http.createServer((request, response) => this.take(request, response));
  host = "";

  async start(): Promise<void> {
    await new Promise<void>((resolve) => this.server.listen(0, "127.0.0.1", resolve));
    this.host = `127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  clear(): void {
    for (const store of [this.manifests, this.tags, this.blobs]) store.clear();
    this.requests.length = this.heard.length = 0;
    this.options = {};
  }

  /** Puts a small image there under tags, and returns its digest. */
  seed(repository: string, content: string, ...tags: string[]): string {
    this.blobs.set(digestOf(content), Buffer.from(content));
    const body = JSON.stringify({ schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json", config: { digest: digestOf(content), size: Buffer.byteLength(content) }, layers: [] });
    return this.put(repository, tags, "application/vnd.oci.image.manifest.v1+json", body);
  }

  tagsOf(repository: string): string[] {
    return [...(this.tags.get(repository)?.keys() ?? [])].sort();
  }

  private put(repository: string, tags: string[], type: string, body: string): string {
    const digest = digestOf(body);
    this.manifests.set(digest, { type, body });
    if (!this.tags.has(repository)) this.tags.set(repository, new Map());
    for (const tag of tags) this.tags.get(repository)?.set(tag, digest);
    return digest;
  }

  private take(request: http.IncomingMessage, response: http.ServerResponse): void {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => this.answer(request, Buffer.concat(chunks), response));
  }

  private answer(request: http.IncomingMessage, body: Buffer, response: http.ServerResponse): void {
    const url = new URL(request.url ?? "/", `http://${this.host}`);
    const end = (status: number, headers: http.OutgoingHttpHeaders = {}, text: string | Buffer = ""): void => void response.writeHead(status, headers).end(request.method === "HEAD" ? undefined : text);
    this.requests.push(`${request.method} ${url.pathname}`);
    this.heard.push(request.headers);

    if (this.options.busy) {
      this.options.busy--;
      return end(429, { "Retry-After": "1" });
    }
    const { login, tokens, limited } = this.options;
    if (limited && request.headers.authorization === undefined) return end(429, {}, JSON.stringify({ errors: [{ code: "TOOMANYREQUESTS" }] }));
    if (login) {
      const basic = `Basic ${Buffer.from(`${login.username}:${login.password}`).toString("base64")}`;
      const { authorization } = request.headers;
      if (url.pathname === "/token") {
        return authorization === basic ? end(200, {}, JSON.stringify({ token: `t-${url.searchParams.get("scope")}`, access_token: "", expires_in: 60 }, null, 2)) : end(401);
      }
      const scope = `repository:${/^\/v2\/(.*)\/(?:manifests|tags|blobs)\//.exec(url.pathname)?.[1] ?? ""}:pull,push`;
      if (tokens && authorization !== `Bearer t-${scope}`) return end(401, { "WWW-Authenticate": `Bearer realm="http://${this.host}/token",service="registry",scope="${scope}"` });
      if (!tokens && authorization !== basic) return end(401, { "WWW-Authenticate": 'Basic realm="registry"' });
    }
    const [, repository, kind, name] = /^\/v2\/(.+)\/(manifests|tags|blobs)\/(.*)$/.exec(url.pathname) ?? [];
    if (this.options.scopes) {
      const [, claims] = /^Bearer [^.]+\.([^.]+)\./.exec(request.headers.authorization ?? "") ?? [];
      const { access } = JSON.parse(claims === undefined ? '{"access":[]}' : Buffer.from(claims, "base64url").toString()) as { access: { name: string; actions: string[] }[] };
      const action = request.method === "GET" || request.method === "HEAD" ? "pull" : "push";
      if (!access.some((each) => each.name === repository && each.actions.includes(action))) return end(401, { "WWW-Authenticate": `Bearer realm="http://registry.invalid/",service="registry",scope="repository:${repository}:${action}"` });
    }
    if (url.pathname === "/v2/") return end(200);

    const tags = this.tags.get(repository);
    if (kind === "tags") {
      if (!tags) return end(404);
      // Two tags a page, so that paging is always exercised.
      const all = this.tagsOf(repository);
      const from = url.searchParams.has("last") ? all.indexOf(url.searchParams.get("last") ?? "") + 1 : 0;
      const page = all.slice(from, from + 2);
      const more = from + 2 < all.length ? { Link: `</v2/${repository}/tags/list?last=${page[1]}&n=2>; rel="next"` } : {};
      return end(200, more, JSON.stringify({ name: repository, tags: page }));
    }
    if (kind === "blobs") {
      const content = this.blobs.get(name);
      if (request.method === "GET" || request.method === "HEAD") return content ? end(200, { "Content-Length": content.length }, content) : end(404);
      if (request.method === "POST") return end(202, { Location: `/v2/${repository}/blobs/uploads/1?state=x` });
      const digest = url.searchParams.get("digest") ?? "";
      if (this.options.failing) {
        this.options.failing--;
        return end(500, {}, "no space");
      }
      if (digestOf(body) !== digest) return end(400);
      this.blobs.set(digest, body);
      return end(201, { "Docker-Content-Digest": digest });
    }
    if (kind === "manifests" && request.method === "PUT") {
      const manifest = JSON.parse(body.toString()) as { config?: { digest: string }; layers?: { digest: string }[]; manifests?: { digest: string }[]; subject?: { digest: string } };
      const parts = [...(manifest.config ? [manifest.config] : []), ...(manifest.layers ?? [])];
      if (parts.some((part) => !this.blobs.has(part.digest)) || (manifest.manifests ?? []).some((part) => !this.manifests.has(part.digest))) return end(404, {}, JSON.stringify({ errors: [{ code: "MANIFEST_BLOB_UNKNOWN" }] }));
      const digest = this.put(repository, name.startsWith("sha256:") ? [] : [name], request.headers["content-type"] ?? "", body.toString());
      return end(201, { "Docker-Content-Digest": digest, ...(this.options.referrers && manifest.subject ? { "OCI-Subject": manifest.subject.digest } : {}) });
    }
    const digest = name?.startsWith("sha256:") ? name : tags?.get(name);
    const manifest = digest === undefined ? undefined : this.manifests.get(digest);
    if (digest === undefined || manifest === undefined) return end(404);
    if (request.method === "DELETE") {
      if (this.options.deleteStatus !== undefined) return end(this.options.deleteStatus);
      this.manifests.delete(digest);
      for (const [tag, at] of tags ?? []) if (at === digest) tags?.delete(tag);
      return end(202);
    }
    return end(200, { "Docker-Content-Digest": digest, "Content-Type": manifest.type }, manifest.body);
  }
}
