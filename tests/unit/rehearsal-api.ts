import * as fs from "node:fs";
import * as http from "node:http";
import type { AddressInfo } from "node:net";
import * as os from "node:os";
import * as path from "node:path";

/** An object as the API server keeps it. */
export interface Kept {
  kind: string;
  metadata: { name: string; uid: string; labels: Record<string, string>; ownerReferences?: { uid: string }[] };
  // Whatever kind of object it is: tests look at single fields.
  [field: string]: any;
}

/** What becomes of the pod once its Job has started it. */
export interface Play {
  /** The pod's status, by the number of times that it was asked for. */
  status(asked: number): object;
  log?: string;
  events?: object[];
  /** Message with which pods are refused. */
  refused?: string;
}

const kinds: Record<string, string> = { jobs: "Job", configmaps: "ConfigMap", secrets: "Secret", networkpolicies: "NetworkPolicy", pods: "Pod", events: "Event" };

/** A small API server for one namespace: enough of it for a rehearsal. */
export async function fakeApi(play: Play) {
  let [objects, made, asked]: [Kept[], number, number] = [[], 0, 0];
  /** Every request that changed something. */
  const changes: string[] = [];
  /** What there was when the pod began. */
  let before: string[] = [];
  const selected = (selector: string | null) => (object: Kept) =>
    !selector || selector.split(",").every((part) => { const [key, value] = part.split("="); return object.metadata.labels?.[key] === value; });

  const answer = (method: string, url: URL, body: Kept | undefined): [number, unknown] => {
    const [, , collection, name, sub] = /namespaces\/([^/]+)\/([^/]+)(?:\/([^/]+))?(?:\/([^/]+))?$/.exec(url.pathname) ?? [];
    const kind = kinds[collection];
    const missing = { kind: "Status", message: `${collection} "${name}" not found`, code: 404 };
    const matches = selected(url.searchParams.get("labelSelector"));
    if (method === "GET" && sub === "log") return play.log === undefined ? [400, { kind: "Status", message: "no log yet" }] : [200, play.log];
    if (method === "GET" && kind === "Event") return [200, { items: play.events ?? [] }];
    if (method === "GET") return [200, { items: objects.filter((object) => object.kind === kind && matches(object)).map((object) => (kind === "Pod" ? { ...object, status: play.status(asked++) } : object)) }];
    changes.push(`${method} ${kind}${name ? ` ${name}` : ""}`);
    if (method === "POST") {
      if (objects.some((object) => object.kind === kind && object.metadata.name === body!.metadata.name)) return [409, { kind: "Status", message: "already exists" }];
      const kept = { ...body!, kind, metadata: { ...body!.metadata, uid: `uid-${++made}` } };
      objects.push(kept);
      return [201, kept];
    }
    if (method === "PATCH") {
      const job = objects.find((object) => object.kind === kind && object.metadata.name === name);
      if (!job) return [404, missing];
      before = objects.map((object) => `${object.kind} ${object.metadata.name}`);
      if (!play.refused) objects.push({ kind: "Pod", metadata: { name: `${name}-x`, uid: `uid-${++made}`, labels: job.spec.template.metadata.labels, ownerReferences: [{ uid: job.metadata.uid }] }, spec: job.spec.template.spec });
      return [200, job];
    }
    const going = objects.filter((object) => object.kind === kind && matches(object)).map(({ metadata }) => metadata.uid);
    // What belongs to an object goes with it.
    objects = objects.filter(({ metadata }) => !going.includes(metadata.uid) && !metadata.ownerReferences?.some(({ uid }) => going.includes(uid)));
    return [200, { kind: "Status", status: "Success" }];
  };

  const server = http.createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const text = Buffer.concat(chunks).toString();
      // Other kinds of patch have another form.
      const unknown = request.method === "PATCH" && request.headers["content-type"] !== "application/merge-patch+json";
      const [status, content] = unknown ? [415, { kind: "Status", message: `no patch: ${request.headers["content-type"]}` }] : answer(request.method!, new URL(request.url!, "http://api"), text ? (JSON.parse(text) as Kept) : undefined);
      response.writeHead(status, { "content-type": typeof content === "string" ? "text/plain" : "application/json" });
      response.end(typeof content === "string" ? content : JSON.stringify(content));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "rehearsal-"));
  const kubeconfig = path.join(folder, "config");
  const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  fs.writeFileSync(kubeconfig, JSON.stringify({ apiVersion: "v1", kind: "Config", clusters: [{ name: "c", cluster: { server: address, "insecure-skip-tls-verify": true } }], users: [{ name: "u", user: { token: "t" } }], contexts: [{ name: "here", context: { cluster: "c", user: "u" } }] }));
  return {
    kubeconfig,
    changes,
    objects: () => objects,
    /** Puts something there that was left behind. */
    leave: (object: Omit<Kept, "metadata"> & { metadata: Omit<Kept["metadata"], "uid"> }) => objects.push({ ...object, metadata: { ...object.metadata, uid: `uid-${++made}` } } as Kept),
    /** Removes an object and what belongs to it, as somebody else would. */
    drop: (kind: string) => {
      const going = objects.filter((object) => object.kind === kind).map(({ metadata }) => metadata.uid);
      objects = objects.filter(({ metadata }) => !going.includes(metadata.uid) && !metadata.ownerReferences?.some(({ uid }) => going.includes(uid)));
    },
    before: () => before,
    close: () => {
      fs.rmSync(folder, { recursive: true });
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}
