/** The few calls to the Kubernetes API that the adapter makes, with the controller's own ServiceAccount. */
import * as fs from "node:fs";
import * as https from "node:https";
import type { Keys } from "./casc";
import type { Pod } from "./pod";

const ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount";

/** An answer of the API that is not a success; the message is the API's own. */
export class ApiError extends Error {
  constructor(readonly status: number, message: string) {
    super(message);
  }
}

export class Kubernetes {
  private readonly server: string;
  private readonly agent = new https.Agent({ keepAlive: true });

  constructor(private readonly cloud: Keys) {
    this.server = (cloud.serverUrl as string) || `https://${process.env.KUBERNETES_SERVICE_HOST}:${process.env.KUBERNETES_SERVICE_PORT}`;
  }

  /** Namespace of a template's pods: its own, the cloud's, or the controller's. */
  namespace(template: Keys): string {
    return (template.namespace as string) || (this.cloud.namespace as string) || fs.readFileSync(`${ACCOUNT}/namespace`, "utf8").trim();
  }

  createPod(namespace: string, pod: Pod): Promise<Pod> {
    return this.call("POST", `/api/v1/namespaces/${namespace}/pods`, pod);
  }

  async listPods(namespace: string, labelSelector: string): Promise<Pod[]> {
    return (await this.call("GET", `/api/v1/namespaces/${namespace}/pods?labelSelector=${encodeURIComponent(labelSelector)}`)).items as Pod[];
  }

  /** Changes annotations of a pod; one that is gone is no error. */
  async annotatePod(namespace: string, name: string, annotations: Record<string, string>): Promise<void> {
    await this.unlessGone(this.call("PATCH", `/api/v1/namespaces/${namespace}/pods/${name}`, { metadata: { annotations } }));
  }

  /** Deletes a pod; one that is gone already is no error. */
  async deletePod(namespace: string, name: string): Promise<void> {
    await this.unlessGone(this.call("DELETE", `/api/v1/namespaces/${namespace}/pods/${name}`));
  }

  private async unlessGone(call: Promise<Pod>): Promise<void> {
    await call.catch((e: unknown) => {
      if (!(e instanceof ApiError && e.status === 404)) throw e;
    });
  }

  private call(method: string, path: string, body?: Pod): Promise<Pod> {
    return new Promise((resolve, reject) => {
      const text = body && JSON.stringify(body);
      // The token is short-lived: the kubelet renews the file.
      const headers = { authorization: `Bearer ${fs.readFileSync(`${ACCOUNT}/token`, "utf8").trim()}`, accept: "application/json", ...(text ? { "content-type": method === "PATCH" ? "application/merge-patch+json" : "application/json", "content-length": Buffer.byteLength(text) } : {}) };
      const ca = (this.cloud.serverCertificate as string) || (fs.existsSync(`${ACCOUNT}/ca.crt`) ? fs.readFileSync(`${ACCOUNT}/ca.crt`) : undefined);
      const timeout = (Number(this.cloud.readTimeout ?? 0) || 15) * 1000;
      const req = https.request(`${this.server}${path}`, { method, headers, ca, agent: this.agent, timeout, rejectUnauthorized: this.cloud.skipTlsVerify !== true }, (res) => {
        let answer = "";
        res.setEncoding("utf8");
        res.on("data", (chunk: string) => (answer += chunk));
        res.on("end", () => {
          const status = res.statusCode ?? 0;
          let json: Pod = {};
          try {
            json = JSON.parse(answer) as Pod;
          } catch {
            json = { message: answer.slice(0, 300) };
          }
          if (status >= 200 && status < 300) resolve(json);
          else reject(new ApiError(status, `${method} ${path}: ${status}: ${String(json.message)}`));
        });
        res.on("error", reject);
      });
      req.on("timeout", () => req.destroy(new Error(`${method} ${path}: no answer in ${timeout / 1000} s`)));
      req.on("error", reject);
      req.end(text);
    });
  }
}
