import * as http from "node:http";
import * as https from "node:https";
import { pipeline, Readable } from "node:stream";
import { setTimeout as pause } from "node:timers/promises";
import * as tls from "node:tls";
import { through, reason } from "../../checks/surroundings";
import { base64 } from "../../components/encoding";
import { serverOf } from "../../components/mirrors";
import { goesDirect, type Surroundings } from "../../components/surroundings";
import { hashOf, type Descriptor } from "./archive";

/** One image registry, spoken to as the OCI distribution specification has it. */

/** How a registry is spoken to. */
export interface Access {
  /** True: plain HTTP or a certificate that nobody vouches for will do. */
  insecure?: boolean;
  login?: { username: string; password: string };
  /** A token that is shown as it is, in place of a log-in. */
  token?: string;
  surroundings?: Surroundings;
  /** What to do where it speaks plain HTTP and may not, for a message. */
  plainHttpFix?: string;
}

type Body = Buffer | { size: number; data: () => Iterable<Buffer> };

export const manifestTypes = ["application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json"];

/** No byte for so long is a broken connection. */
const silenceMs = 60_000;
/** So long a registry may take to put away a blob that it has all of. */
const commitMs = 600_000;
/** So many redirects are followed. */
const mostHops = 5;

/** What a registry answers with a status that was not expected. */
export class RegistryError extends Error {
  constructor(host: string, what: string, readonly status: number) {
    const fix = status === 401 || status === 403 ? "; give a log-in in registry.username or pullSecrets" : status === 429 ? "; it allows no further requests for now: give a log-in for it in pullSecrets, or try later" : "";
    super(`${host} answers ${status} to ${what}${fix}`);
  }
}

/** Whether TLS was answered by something that is none, as plain HTTP does. */
const isNoTls = ({ code, message }: NodeJS.ErrnoException): boolean => code === "EPROTO" && /wrong version number|packet length too long/i.test(message);

export class Registry {
  private root?: Promise<URL>;
  private readonly tokens = new Map<string, string>();

  /** @param host host or host:port */
  constructor(readonly host: string, private readonly access: Access = {}) {}

  /** A manifest as it is; undefined where there is none. */
  async manifest(repository: string, reference: string): Promise<{ descriptor: Descriptor; bytes: Buffer } | undefined> {
    const answer = await this.ask("GET", repository, `manifests/${reference}`, { Accept: manifestTypes.join(", ") }, [200, 404]);
    const bytes = Buffer.concat(await answer.toArray());
    if (answer.statusCode === 404) return undefined;
    const digest = hashOf([bytes]);
    if (reference.startsWith("sha256:") && digest !== reference) throw new Error(`${this.host} gives another manifest than ${repository}@${reference}: one with the digest ${digest}`);
    return { descriptor: { mediaType: answer.headers["content-type"] ?? "", digest, size: bytes.length }, bytes };
  }

  /** A blob's bytes. */
  async blob(repository: string, digest: string): Promise<AsyncIterable<Buffer>> {
    return this.ask("GET", repository, `blobs/${digest}`);
  }

  /** Puts a blob there, unless it is there already or in another of its repositories; whether it had to be sent. */
  async putBlob(repository: string, { digest, size }: Pick<Descriptor, "digest" | "size">, data: () => Iterable<Buffer>, from?: string): Promise<boolean> {
    const there = await this.ask("HEAD", repository, `blobs/${digest}`, {}, [200, 404]);
    there.resume();
    if (there.statusCode === 200) return false;
    const begun = await this.ask("POST", repository, `blobs/uploads/${from === undefined ? "" : `?mount=${digest}&from=${encodeURIComponent(from)}`}`, { "Content-Length": "0" }, [201, 202]);
    begun.resume();
    if (begun.statusCode === 201) return false;
    const root = await this.address();
    const place = new URL(begun.headers.location ?? "", new URL(`/v2/${repository}/`, root));
    // A registry behind somebody else's TLS may give the address that it has itself.
    if (place.hostname === root.hostname) [place.protocol, place.port] = [root.protocol, root.port];
    place.searchParams.set("digest", digest);
    (await this.ask("PUT", repository, place, { "Content-Type": "application/octet-stream" }, [201], { size, data })).resume();
    return true;
  }

  /** Puts a manifest there by its digest or a tag, behind everything that it names. */
  async putManifest(repository: string, reference: string, mediaType: string, bytes: Buffer): Promise<void> {
    (await this.ask("PUT", repository, `manifests/${reference}`, { "Content-Type": mediaType }, [201], bytes)).resume();
  }

  /** The registry's address with the scheme that it speaks: plain HTTP only where that is allowed, and only if it does not speak TLS. */
  private address(): Promise<URL> {
    const host = serverOf(this.host);
    return (this.root ??= !this.access.insecure ? Promise.resolve(new URL(`https://${host}`)) : this.send("GET", new URL(`https://${host}/v2/`), {}).then((answer) => (answer.destroy(), new URL(`https://${host}`)), () => new URL(`http://${host}`)));
  }

  /**
   * One request, with the log-in as the registry asks for it and nobody else, by its redirects, and again where the registry or the
   * way to it has a weak moment; but for what is sent piece by piece, of which the registry may have a part already.
   */
  private async ask(method: string, repository: string, where: string | URL, headers: http.OutgoingHttpHeaders = {}, expected = [200], body?: Body): Promise<http.IncomingMessage> {
    const root = await this.address();
    let [url, hops, loggedIn] = [typeof where === "string" ? new URL(`/v2/${repository}/${where}`, root) : where, 0, false];
    const what = `${method} ${url.pathname}`;
    const once = body !== undefined && !Buffer.isBuffer(body);
    for (let attempt = 1; ; attempt++) {
      const own = url.origin === root.origin;
      if (!own && url.protocol !== "https:" && !this.access.insecure) throw new Error(`${this.host} leads to ${url.origin} for ${what}, which is not TLS`);
      const answer = await this.send(method, url, { ...headers, ...(own && this.authorization(repository)) }, body).catch((error: NodeJS.ErrnoException) => {
        if (own && isNoTls(error)) throw new Error(`${this.host} cannot be asked (${what}): it speaks plain HTTP, and not TLS${this.access.plainHttpFix === undefined ? "" : `; ${this.access.plainHttpFix}`}`);
        if (once || attempt >= 3) throw new Error(`${own ? this.host : url.host} cannot be asked (${what}): ${reason(error)}`);
      });
      if (answer?.statusCode !== undefined && expected.includes(answer.statusCode)) return answer;
      answer?.resume();
      const status = answer?.statusCode ?? 0;
      if ([301, 302, 303, 307, 308].includes(status) && answer?.headers.location !== undefined && (method === "GET" || method === "HEAD") && hops < mostHops) {
        [url, hops, attempt] = [new URL(answer.headers.location, url), hops + 1, 0];
        continue;
      }
      if (status === 401 && own && !loggedIn && (await this.logIn(repository, answer?.headers["www-authenticate"] ?? ""))) {
        [loggedIn, attempt] = [true, attempt - 1];
        continue;
      }
      if (once || attempt >= 3 || (status !== 0 && status !== 429 && status < 500)) throw new RegistryError(own ? this.host : url.host, what, status);
      await pause(Math.min(Number(answer?.headers["retry-after"] ?? attempt * 2) || 2, 30) * 1000);
    }
  }

  private authorization(repository: string): http.OutgoingHttpHeaders {
    const { login, token } = this.access;
    const known = token ?? this.tokens.get(repository);
    if (known !== undefined) return { Authorization: `Bearer ${known}` };
    return login && this.tokens.has("basic") ? { Authorization: `Basic ${base64(`${login.username}:${login.password}`)}` } : {};
  }

  /** Does as a registry asks that wants a log-in; whether there is a new one to try. */
  private async logIn(repository: string, challenge: string): Promise<boolean> {
    const { login, insecure, token: given } = this.access;
    if (given !== undefined) return false;
    if (/^basic/i.test(challenge)) {
      if (login) this.tokens.set("basic", "");
      return login !== undefined;
    }
    const said = Object.fromEntries([...challenge.matchAll(/(\w+)="([^"]*)"/g)].map(([, key, value]) => [key, value]));
    // The log-in goes there: over TLS, unless the config allows otherwise.
    if (!/^https:/.test(said.realm ?? "") && !(insecure && /^http:/.test(said.realm ?? ""))) return false;
    const url = new URL(said.realm);
    for (const key of ["service", "scope"]) if (said[key]) url.searchParams.set(key, said[key]);
    const answer = await this.send("GET", url, login ? { Authorization: `Basic ${base64(`${login.username}:${login.password}`)}` } : {});
    const text = Buffer.concat(await answer.toArray()).toString();
    if (answer.statusCode !== 200) throw new RegistryError(url.host, `the request for a token for ${repository}`, answer.statusCode ?? 0);
    const { token, access_token } = JSON.parse(text) as { token?: string; access_token?: string };
    this.tokens.set(repository, token || access_token || "");
    return true;
  }

  private async send(method: string, url: URL, headers: http.OutgoingHttpHeaders, body?: Body): Promise<http.IncomingMessage> {
    const { insecure, surroundings: { caBundle, proxy } = {} } = this.access;
    const { getCACertificates } = tls as { getCACertificates?: () => string[] };
    const way = proxy && !goesDirect(proxy, url.hostname) ? await through(url.protocol === "https:" ? proxy.https : proxy.http, proxy.login, url, silenceMs) : {};
    const trust = { ...(insecure && url.host === this.host && { rejectUnauthorized: false }), ...(caBundle !== undefined && { ca: [...(getCACertificates?.() ?? tls.rootCertificates), caBundle] }) };
    const length = body && { "Content-Length": Buffer.isBuffer(body) ? body.length : body.size };
    return new Promise((resolve, reject) => {
      const request = (url.protocol === "https:" ? https : http).request(url, { method, timeout: silenceMs, ...trust, ...way, headers: { ...way.headers, ...headers, ...length } }, resolve);
      request.on("timeout", () => request.destroy(new Error("no answer in time"))).on("error", reject);
      if (body === undefined || Buffer.isBuffer(body)) return void request.end(body);
      request.on("finish", () => request.setTimeout(commitMs));
      pipeline(Readable.from(body.data()), request, (error) => error && reject(error));
    });
  }
}
