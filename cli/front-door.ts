import * as http from "node:http";
import * as https from "node:https";
import * as net from "node:net";
import { publicPort } from "../config";
import type { Certificate } from "../checks/ingress";
import type { Stack } from "./stack";

/** Where people come in, as smoke, status and doctor ask for it. */

/** What the front door answered: a status, or why nothing came. */
export interface FrontDoor {
  /** Address of a node, or the host name where the door is not the platform's. */
  address: string;
  port: number;
  status?: number;
  error?: string;
}

/**
 * Why the login page is not to be had through the ingress and what to do; undefined where it is.
 * @param suspects what the network says of node ports, for one on which nothing answers
 */
export function frontDoorTrouble({ address, port, status, error }: FrontDoor, domain: string, namespace: string, ingressNamespace: string, suspects: string[] = []): string | undefined {
  const at = `port ${port} of ${net.isIP(address) ? "node " : ""}${address}`;
  const log = `kubectl -n ${ingressNamespace} logs -l app.kubernetes.io/component=controller`;
  if (status === 200) return undefined;
  if (status === 404) return `${at} answers, but knows no host ${domain}: kubectl -n ${namespace} describe ingress jenkins; ${log} says whether the controller refuses it, such as for an annotation`;
  if (status === 502 || status === 503) return `the ingress answers on ${at}, but Jenkins behind it does not (${status}): it may still be starting; npm run status says how it is`;
  if (status !== undefined) return `${at} answers ${status} to /login of host ${domain}; 200 was expected: ${log}`;
  const suspected = suspects.map((each) => `\n    suspect: ${each}`).join("");
  if (/ECONNREFUSED/.test(error ?? "")) return `nothing listens on ${at}: kubectl -n ${ingressNamespace} get pods,services; the node-port range must hold ${port} (npm run status)${suspected}`;
  return `${at} does not answer (${error}): is there a firewall between this machine and the node?${suspected}`;
}

/** The login page through ingress and node port, past DNS. The certificate is not looked at: the name in it may not be of this address. */
function knock(address: string, tls: boolean, port: number, domain: string): Promise<FrontDoor> {
  const door = { address, port };
  return new Promise((resolve) => {
    const options = { host: address, port: door.port, path: "/login", headers: { Host: domain }, timeout: 10_000 };
    const done = (answer: http.IncomingMessage) => {
      answer.resume();
      resolve({ ...door, status: answer.statusCode });
    };
    const request = tls ? https.get({ ...options, servername: domain, rejectUnauthorized: false }, done) : http.get(options, done);
    request.on("timeout", () => request.destroy(new Error("no answer within 10 s"))).on("error", (error) => resolve({ ...door, error: error.message || String(error) }));
  });
}

/** Asks every node for the login page, and where none has it the address that people use: a load balancer may stand before the nodes, or somebody else's controller be elsewhere. */
export async function frontDoors({ config: { domain, ingress }, kubectl }: Pick<Stack, "config" | "kubectl">): Promise<FrontDoor[]> {
  const at = (address: string) => knock(address, ingress.tls !== undefined, publicPort(ingress), domain);
  const nodes = await kubectl("get", "nodes", "-o", 'jsonpath={range .items[*]}{.status.addresses[?(@.type=="InternalIP")].address}{"\\n"}{end}');
  const doors = await Promise.all(nodes.split("\n").filter(Boolean).map((address) => at(address.split(" ")[0])));
  return doors.some(({ status }) => status === 200) ? doors : [...doors, await at(domain)];
}

/** What the doors' answers come to. One that answers is enough: others may be shut on purpose. Somebody else's, whose name is not known here, is not judged. */
export function judgeDoors(doors: FrontDoor[], { domain, namespaces: { jenkins }, ingress }: Pick<Stack["config"], "domain" | "namespaces" | "ingress">): { good: boolean; reached?: false; text: string } {
  const nodes = doors.filter(({ address }) => net.isIP(address) !== 0);
  const open = doors.find(({ status }) => status === 200);
  if (open && !nodes.includes(open)) return { good: true, text: `answers at ${domain}` };
  if (open) return { good: true, text: `answers on ${nodes.filter(({ status }) => status === 200).length} of ${nodes.length} node${nodes.length === 1 ? "" : "s"}` };
  const [first] = ingress.install ? doors : doors.slice(-1);
  if (!ingress.install && /ENOTFOUND|EAI_AGAIN/.test(first?.error ?? "")) return { good: true, reached: false, text: `not asked for: ${domain} does not resolve here` };
  // The API server may be all of the cluster that this machine reaches.
  if (doors.length > 0 && doors.every(({ error }) => /no answer within|TIMEDOUT|UNREACH|ENOTFOUND|EAI_AGAIN/.test(error ?? ""))) return { good: true, reached: false, text: `neither the nodes nor ${domain} can be reached from here (${doors[0].error}): not judged` };
  return { good: false, text: first ? frontDoorTrouble(first, domain, jenkins, ingress.namespace)! : "the cluster has no node with an address" };
}

/** The certificate that people get, as its Secret has it. */
export async function certificateOf({ config: { namespaces, ingress: { tls } }, kubectl }: Pick<Stack, "config" | "kubectl">): Promise<Certificate> {
  if (!tls) return undefined;
  const found = await kubectl("-n", namespaces.jenkins, "get", "secret", tls.secretName, "--ignore-not-found", "-o", "jsonpath={.metadata.name} {.data.tls\\.crt}");
  return found.trim() === "" ? null : Buffer.from(found.split(" ")[1] ?? "", "base64").toString();
}
