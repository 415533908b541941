/** Pushes an image from an OCI layout to a plain HTTP registry (distribution API v2). */
import * as fs from "node:fs";
import * as http from "node:http";
import * as path from "node:path";

/** A blob as manifests name it; size in bytes. */
export interface Descriptor {
  mediaType: string;
  digest: string;
  size: number;
}

/** An OCI image manifest, as far as it matters here. */
export interface Manifest {
  mediaType?: string;
  config: Descriptor;
  layers: Descriptor[];
}

/** File of a blob in an OCI layout. */
export function blobPath(layout: string, digest: string): string {
  return path.join(layout, "blobs", ...digest.split(":"));
}

/** The manifest of an image in an OCI layout. */
export function readManifest(layout: string, digest: string): Manifest {
  return JSON.parse(fs.readFileSync(blobPath(layout, digest), "utf8")) as Manifest;
}

/** All blobs a manifest refers to. */
export function blobsOf(manifest: Manifest): Descriptor[] {
  return [manifest.config, ...manifest.layers];
}

/**
 * Pushes one image unless the tag has its digest already.
 * @returns bytes sent; 0 when nothing was to do
 * @throws when the registry refuses or cannot be reached
 */
export async function push(image: { layout: string; repository: string; tag: string; digest: string }, registry: string): Promise<number> {
  const base = `http://${registry}/v2/${image.repository}`;
  const body = fs.readFileSync(blobPath(image.layout, image.digest));
  const manifest = JSON.parse(body.toString()) as Manifest;
  const mediaType = manifest.mediaType ?? "application/vnd.oci.image.manifest.v1+json";

  const present = await request("HEAD", `${base}/manifests/${image.tag}`, { accept: mediaType });
  if (present.status === 200 && present.headers["docker-content-digest"] === image.digest) return 0;

  let sent = body.length;
  for (const blob of blobsOf(manifest)) {
    if ((await request("HEAD", `${base}/blobs/${blob.digest}`)).status === 200) continue;
    const begun = await request("POST", `${base}/blobs/uploads/`);
    expectStatus(begun, 202, `${registry} does not take an upload for ${image.repository}`);
    const place = new URL(begun.headers.location!, base);
    place.searchParams.set("digest", blob.digest);
    const done = await request("PUT", place.href, { "content-type": "application/octet-stream", "content-length": String(blob.size) }, fs.createReadStream(blobPath(image.layout, blob.digest)));
    expectStatus(done, 201, `${registry} does not take blob ${blob.digest} of ${image.repository}`);
    sent += blob.size;
  }
  const tagged = await request("PUT", `${base}/manifests/${image.tag}`, { "content-type": mediaType, "content-length": String(body.length) }, body);
  expectStatus(tagged, 201, `${registry} does not take the manifest of ${image.repository}:${image.tag}`);
  return sent;
}

interface Answer {
  status: number;
  headers: http.IncomingHttpHeaders;
  body: string;
}

function expectStatus(answer: Answer, status: number, what: string): void {
  if (answer.status !== status) throw new Error(`${what}: status ${answer.status} instead of ${status}: ${answer.body.slice(0, 300)}`);
}

function request(method: string, url: string, headers: http.OutgoingHttpHeaders = {}, body?: Buffer | fs.ReadStream): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const fail = (e: Error) => reject(new Error(`registry ${new URL(url).host} cannot be reached: ${e.message}`));
    const req = http.request(url, { method, headers }, (res) => {
      let text = "";
      res.setEncoding("utf8");
      res.on("data", (chunk: string) => (text += chunk));
      res.on("end", () => resolve({ status: res.statusCode ?? 0, headers: res.headers, body: text }));
      res.on("error", fail);
    });
    req.on("error", fail);
    if (body instanceof fs.ReadStream) body.on("error", reject).pipe(req);
    else req.end(body);
  });
}
