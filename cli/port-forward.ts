import { spawn } from "node:child_process";
import type { Stack } from "./stack";

/** A Service of the cluster, and how its way there is kept. */
export interface Way {
  namespace: string;
  service: string;
  /** Port of the Service. */
  port: number;
  /** Seconds after which a way that has not opened is given up. Default kubectl's own. */
  seconds?: number;
  /** Whether it stays open after Ctrl-C in the terminal, for a caller that handles it and has something to take away. Default false. */
  tidiesUp?: boolean;
}

/**
 * Runs `work` while a port of this machine leads to a Service, through the API server.
 * @throws with kubectl's own words where it does not open
 */
export async function forwarded<T>({ kubectlArgs }: Pick<Stack, "kubectlArgs">, { namespace, service, port, seconds, tidiesUp = false }: Way, work: (port: number) => Promise<T>): Promise<T> {
  // A request time-out would end the forwarding.
  const args = kubectlArgs.filter((each) => !each.startsWith("--request-timeout"));
  const child = spawn("kubectl", [...args, "-n", namespace, "port-forward", "--address", "127.0.0.1", `service/${service}`, `:${port}`], { env: process.env, stdio: ["ignore", "pipe", "pipe"], detached: tidiesUp });
  try {
    return await work(await new Promise<number>((resolve, reject) => {
      let said = "";
      const late = seconds === undefined ? undefined : setTimeout(() => reject(new Error(`no way to ${service} within ${seconds} s`)), seconds * 1000).unref();
      child.stdout.on("data", (chunk) => {
        const found = /^Forwarding from 127\.0\.0\.1:(\d+)/m.exec((said += chunk));
        if (!found) return;
        clearTimeout(late);
        resolve(Number(found[1]));
      });
      child.stderr.on("data", (chunk) => (said += chunk));
      child.on("error", reject).on("close", () => reject(new Error(said.trim() || "kubectl port-forward ended")));
    }));
  } finally {
    child.kill();
  }
}
