// Part of the sandbox's stand-in for pulumi-resource-kubernetes: the kubeconfig, and a small REST client for the API server.
import { existsSync, statSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { homedir } from "node:os";
import { KubeConfig } from "@kubernetes/client-node/dist/config.js";
import { ApiError, NoKindError, type KubeObject } from "./kubernetes-objects";

export interface KubeSettings {
  /** Path of a kubeconfig, or its content. Default: $KUBECONFIG, ~/.kube/config, or the service account of a pod. */
  kubeconfig?: string;
  context?: string;
  cluster?: string;
  namespace?: string;
}

/** The cluster that the settings lead to. */
export interface Target {
  config: KubeConfig;
  /** Where the kubeconfig came from: a path, or a word for it. */
  source: string;
  context: string;
  server: string;
  /** Namespace of objects that name none. */
  namespace: string;
  cluster: object;
}

const quoteAll = (names: string[]): string => (names.length > 0 ? names.map((name) => `"${name}"`).join(", ") : "none");

/** Reads the kubeconfig; throws an error that names the file, the context and what was found instead. */
export function loadTarget(settings: KubeSettings): Target {
  const config = new KubeConfig();
  let source = "given as content";
  try {
    if (settings.kubeconfig) {
      const path = settings.kubeconfig.replace(/^~(?=$|\/)/, homedir());
      if (existsSync(path) && statSync(path).isFile()) {
        source = path;
        config.loadFromFile(path);
      } else if (!/[\n{]/.test(settings.kubeconfig)) {
        source = path;
        throw new Error(`there is no file ${path}`);
      } else {
        config.loadFromString(settings.kubeconfig);
      }
    } else {
      source = process.env.KUBECONFIG ?? "~/.kube/config";
      config.loadFromDefault();
    }
  } catch (error) {
    throw new Error(`failed to parse kubeconfig data in \`kubernetes:config:kubeconfig\` (${source}): ${(error as Error).message}`);
  }
  const context = settings.context || config.getCurrentContext();
  const found = config.getContextObject(context);
  const contexts = config.getContexts().map(({ name }) => name);
  if (!found) {
    const wanted = context ? `context "${context}" does not exist` : "no context is given and none is current";
    throw new Error(`${wanted} in the kubeconfig ${source}; contexts there: ${quoteAll(contexts)}`);
  }
  config.setCurrentContext(context);
  const clusterName = settings.cluster || found.cluster;
  const cluster = config.getCluster(clusterName);
  if (!cluster) {
    throw new Error(`cluster "${clusterName}" of context "${context}" does not exist in the kubeconfig ${source}; clusters there: ${quoteAll(config.getClusters().map(({ name }) => name))}`);
  }
  if (settings.cluster) config.contexts = config.contexts.map((entry) => (entry.name === context ? { ...entry, cluster: clusterName } : entry));
  return { config, source, context, server: cluster.server, namespace: settings.namespace || found.namespace || "default", cluster };
}

interface Mapping { path: string; namespaced: boolean }
interface DiscoveryList {
  items?: { metadata: { name?: string }; versions: { version: string; resources?: { resource: string; scope: string; responseKind?: { kind: string } }[] }[] }[];
}
const AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/** Time for a connection to the API server to be made: 10 s, so that a wrong address is told soon. */
const CONNECT_TIMEOUT_MS = 10_000;

export type Query = Record<string, string | undefined>;
interface RequestOptions { query?: Query; body?: unknown; contentType?: string; accept?: string; signal?: AbortSignal }

export class KubeClient {
  private kinds = new Map<string, Mapping>();
  private options?: Promise<https.RequestOptions>;

  constructor(readonly target: Target, private readonly cancelled: AbortSignal) {}

  /** Request options with credentials; read again each time only where they can change while we run. */
  private async credentials(): Promise<https.RequestOptions> {
    const read = async (): Promise<https.RequestOptions> => {
      const options: https.RequestOptions = {};
      await this.target.config.applyToHTTPSOptions(options);
      return options;
    };
    this.options ??= read().then((options) => {
      if (this.target.config.getCurrentCluster()?.proxyUrl) return options;
      const { ca, cert, key, rejectUnauthorized, servername } = options;
      // Idle connections are given up before a restarted server has forgotten them.
      const keepAlive = { keepAlive: true, timeout: 15_000, ca, cert, key, rejectUnauthorized, servername };
      return { ...options, agent: this.target.server.startsWith("http:") ? new http.Agent(keepAlive) : new https.Agent(keepAlive) };
    });
    const first = await this.options;
    const user = this.target.config.getCurrentUser();
    return user?.exec || user?.authProvider ? { ...(await read()), agent: first.agent } : first;
  }

  /** Opens a request and resolves to the response with its body unread. */
  private async open(method: string, path: string, { query = {}, body, contentType, accept, signal }: RequestOptions): Promise<http.IncomingMessage> {
    const url = new URL(this.target.server.replace(/\/$/, "") + path);
    for (const [name, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(name, value);
    const payload = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
    const options = await this.credentials();
    const headers = {
      ...(options.headers as http.OutgoingHttpHeaders | undefined),
      accept: accept ?? "application/json",
      "user-agent": "pulumi-resource-kubernetes (sandbox)",
      ...(payload ? { "content-type": contentType ?? "application/json", "content-length": payload.length } : {}),
    };
    return new Promise((resolve, reject) => {
      const send = url.protocol === "http:" ? http.request : https.request;
      const request = send(url, { ...options, method, headers, signal: signal ?? this.cancelled }, resolve);
      request.on("error", (error) => reject(Object.assign(error, { reused: request.reusedSocket })));
      request.on("socket", (socket) => {
        if (!socket.connecting) return;
        const timer = setTimeout(() => request.destroy(new Error(`no connection within ${CONNECT_TIMEOUT_MS / 1000} s`)), CONNECT_TIMEOUT_MS);
        socket.once("connect", () => clearTimeout(timer)).once("close", () => clearTimeout(timer));
      });
      request.end(payload);
    });
  }

  /** Sends a request and resolves to the answer's JSON. */
  async request(method: string, path: string, options: RequestOptions = {}): Promise<any> {
    for (let attempt = 0; ; attempt++) {
      try {
        const response = await this.open(method, path, options);
        const chunks: Buffer[] = [];
        for await (const chunk of response) chunks.push(chunk as Buffer);
        const text = Buffer.concat(chunks).toString();
        const code = response.statusCode ?? 0;
        // The server asks for patience; client-go tries again too.
        if (code === 429 && attempt < 10) {
          await new Promise((resolve) => setTimeout(resolve, 1000 * Number(response.headers["retry-after"] ?? 1)));
          continue;
        }
        if (code < 300) return JSON.parse(text);
        const status = text.startsWith("{") ? JSON.parse(text) : {};
        throw new ApiError(status.message ?? `${code} ${text.trim() || response.statusMessage}`, code, status.reason ?? "", status.details);
      } catch (error) {
        // The server may close an idle connection just as it is used again; a create that got through must not be sent twice.
        const { reused, code } = error as { reused?: boolean; code?: string };
        if (reused && code === "ECONNRESET" && method !== "POST" && attempt === 0) continue;
        throw error;
      }
    }
  }

  /** Learns every kind that the server serves. */
  async discover(): Promise<void> {
    const lists: DiscoveryList[] = await Promise.all(["/api", "/apis"].map((path) => this.request("GET", path, { accept: AGGREGATED })));
    const kinds = new Map<string, Mapping>();
    for (const group of lists.flatMap((list) => list.items ?? [])) {
      const name = group.metadata.name ?? "";
      for (const { version, resources = [] } of group.versions) {
        const apiVersion = name ? `${name}/${version}` : version;
        for (const { resource, scope, responseKind } of resources) {
          if (responseKind) kinds.set(`${apiVersion}/${responseKind.kind}`, { path: `${name ? "/apis" : "/api"}/${apiVersion}|${resource}`, namespaced: scope === "Namespaced" });
        }
      }
    }
    this.kinds = kinds;
  }

  /** Whether the kind is served, and if so whether its objects live in namespaces. */
  scope(apiVersion: string, kind: string): "Namespaced" | "Cluster" | undefined {
    const mapping = this.kinds.get(`${apiVersion}/${kind}`);
    return mapping && (mapping.namespaced ? "Namespaced" : "Cluster");
  }

  /** The URL path of a kind's collection; asks the server again where the kind is new. */
  async collection(apiVersion: string, kind: string, namespace?: string): Promise<string> {
    if (!this.scope(apiVersion, kind)) await this.discover();
    const mapping = this.kinds.get(`${apiVersion}/${kind}`);
    if (!mapping) throw new NoKindError(apiVersion, kind);
    return mapping.path.replace("|", mapping.namespaced ? `/namespaces/${namespace || "default"}/` : "/");
  }

  private async path(object: KubeObject): Promise<string> {
    return `${await this.collection(object.apiVersion, object.kind, object.metadata.namespace)}/${object.metadata.name}`;
  }

  async get(object: KubeObject, signal?: AbortSignal): Promise<KubeObject> {
    return this.request("GET", await this.path(object), { signal });
  }

  async create(object: KubeObject, query: Query): Promise<KubeObject> {
    return this.request("POST", await this.collection(object.apiVersion, object.kind, object.metadata.namespace), { query, body: object });
  }

  async replace(object: KubeObject, query: Query): Promise<KubeObject> {
    return this.request("PUT", await this.path(object), { query, body: object });
  }

  /** Patches an object: server-side apply for an object, JSON patch for a list of operations. */
  async patch(object: KubeObject, body: object, query: Query): Promise<KubeObject> {
    return this.request("PATCH", await this.path(object), { query, body, contentType: Array.isArray(body) ? "application/json-patch+json" : "application/apply-patch+yaml" });
  }

  /** Asks for deletion; resolves to the object that is now on its way out, or to undefined where it is gone already. */
  async delete(object: KubeObject, propagationPolicy: string): Promise<KubeObject | undefined> {
    const answer: KubeObject = await this.request("DELETE", await this.path(object), { body: { apiVersion: "v1", kind: "DeleteOptions", propagationPolicy } });
    return answer.kind === "Status" ? undefined : { ...answer, apiVersion: object.apiVersion, kind: object.kind };
  }

  /** The objects of a kind in a namespace; none where they cannot be read. */
  async list(apiVersion: string, kind: string, namespace: string | undefined, query: Query, signal?: AbortSignal): Promise<KubeObject[]> {
    const list: { items?: KubeObject[] } = await this.request("GET", await this.collection(apiVersion, kind, namespace), { query, signal });
    return list.items ?? [];
  }

  /** Calls back on each change of one object until the signal is given; a broken watch is opened again. */
  async watch(object: KubeObject, signal: AbortSignal, onChange: (type: string, object: KubeObject) => void): Promise<void> {
    const { apiVersion, kind, metadata } = object;
    const path = await this.collection(apiVersion, kind, metadata.namespace);
    let resourceVersion = metadata.resourceVersion;
    while (!signal.aborted) {
      const response = await this.open("GET", path, { signal, query: { watch: "1", fieldSelector: `metadata.name=${metadata.name}`, resourceVersion, timeoutSeconds: "300" } });
      if (response.statusCode !== 200) resourceVersion = undefined;
      let rest = "";
      response.setEncoding("utf8");
      for await (const chunk of response) {
        const lines = (rest + (chunk as string)).split("\n");
        rest = lines.pop() ?? "";
        for (const line of response.statusCode === 200 ? lines.filter(Boolean) : []) {
          const event = JSON.parse(line) as { type: string; object: KubeObject };
          resourceVersion = event.type === "ERROR" ? undefined : event.object.metadata.resourceVersion;
          if (event.type !== "ERROR") onChange(event.type, event.object);
        }
      }
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  }
}

/** What a failed connection is called in messages: the context, the server and the cause. */
export function unreachable(target: Target, error: unknown): string {
  const { message, code } = error as Error & { code?: string };
  return `context "${target.context}" of the kubeconfig ${target.source} leads to ${target.server}, which does not answer as a Kubernetes API server: ${message || code}`;
}
