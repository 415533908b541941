/** The adapter's side of Bridge.java: calls into the controller's JVM on loopback. */
import * as http from "node:http";
import type { Value } from "./casc";

/** Where Hudson listens; only the adapter reaches it. */
export const HUDSON_PORT = 8081;

export class Hudson {
  /** @param prefix path below which Hudson answers, as its option --prefix has it */
  constructor(private readonly token: string, private readonly prefix: string) {}

  /** @throws with the bridge's message when the action fails or Hudson is not ready */
  call<T>(action: "configure" | "state" | "add-agent" | "accept-tasks" | "retire-agent" | "remove-agent", input: Value = {}): Promise<T> {
    return new Promise((resolve, reject) => {
      const text = JSON.stringify(encode(input));
      const req = http.request(
        { host: "127.0.0.1", port: HUDSON_PORT, method: "POST", path: `${this.prefix}/sandbox-adapter/${action}`, agent: false, timeout: 30_000, headers: { "x-adapter-token": this.token, "content-type": "application/json", "content-length": Buffer.byteLength(text) } },
        (res) => {
          let answer = "";
          res.setEncoding("utf8");
          res.on("data", (chunk: string) => (answer += chunk));
          res.on("end", () => {
            try {
              const json = JSON.parse(answer) as T & { error?: string };
              if (res.statusCode === 200) resolve(json);
              else reject(new Error(`${action}: ${json.error ?? String(res.statusCode)}`));
            } catch {
              reject(new Error(`${action}: status ${String(res.statusCode)}`));
            }
          });
          res.on("error", reject);
        },
      );
      req.on("timeout", () => req.destroy(new Error(`${action}: Hudson gave no answer in 30 s`)));
      req.on("error", reject);
      req.end(text);
    });
  }
}

/** Hudson's old JSON library takes a text that starts like JSON for JSON: all texts go percent-encoded. */
export function encode(value: Value): Value {
  if (typeof value === "string") return encodeURIComponent(value);
  if (Array.isArray(value)) return value.map(encode);
  if (typeof value === "object" && value !== null) return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, encode(item)]));
  return value;
}
