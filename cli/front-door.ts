import * as http from "node:http";
import * as net from "node:net";
import * as tls from "node:tls";
import { portOf, prefixOf, tlsEndsBefore } from "../components/jenkins-master";
import { publicPort } from "../config";
import { certificateRemarks, certificateSecrets, type Certificate, type Certificates, type Look } from "../checks/ingress";
import type { Stack } from "./stack";

/** Where people come in, as smoke, status and doctor ask for it. */

/** What the front door answered: a status, or why nothing came. */
export interface FrontDoor {
  /** Address of a node, or the host name where the door is not the platform's. */
  address: string;
  port: number;
  status?: number;
  /** Where an answer sends on to, and the address that was asked, as browsers write both. */
  location?: string;
  asked?: string;
  error?: string;
}

/** Where an answer leads that sends on: back to what was asked, to the same place by https, or elsewhere. */
function leads({ location, asked }: FrontDoor): "back" | "https" | "elsewhere" | undefined {
  if (location === undefined || asked === undefined) return undefined;
  const [to, from] = [new URL(location, asked), new URL(asked)];
  if (to.href === from.href) return "back";
  return to.hostname === from.hostname && to.protocol === "https:" && from.protocol === "http:" ? "https" : "elsewhere";
}

/**
 * Why the login page is not to be had through the ingress and what to do; undefined where it is.
 * @param suspects what the network says of node ports, for one on which nothing answers
 */
export function frontDoorTrouble(door: FrontDoor, domain: string, namespace: string, ingressNamespace: string, suspects: string[] = []): string | undefined {
  const { address, port, status, location, error } = door;
  const at = `port ${port} of ${net.isIP(address) ? "node " : ""}${address}`;
  const log = `kubectl -n ${ingressNamespace} logs -l app.kubernetes.io/component=controller`;
  if (status === 200) return undefined;
  if (leads(door) === "back") return `${at} sends the login page on to ${location}, which was asked: a loop; what ends TLS there has to send X-Forwarded-Proto: https, and be one of ingress.trustedProxies`;
  if (leads(door) === "https") return `${at} sends the login page on to ${location}: where that is the address people use, pulumi config set --path 'ingress.externalUrl' <address>`;
  if (location !== undefined) return `${at} sends people on to ${location}`;
  if (status === 404) return `${at} answers, but knows no host ${domain}: kubectl -n ${namespace} describe ingress jenkins; ${log} says whether the controller refuses it, such as for an annotation`;
  if (status !== undefined && [502, 503, 504].includes(status)) return `the ingress answers on ${at}, but Jenkins behind it does not (${status}): it may still be starting; npm run status says how it is; with networkPolicies only who is in namespace ${ingressNamespace} gets to it, which ingress.namespace says`;
  if (status !== undefined) return `${at} answers ${status} to /login of host ${domain}; 200 was expected: ${log}`;
  const suspected = suspects.map((each) => `\n    suspect: ${each}`).join("");
  if (/ECONNREFUSED/.test(error ?? "")) return `nothing listens on ${at}: kubectl -n ${ingressNamespace} get pods,services; the node-port range must hold ${port} (npm run status)${suspected}`;
  return `${at} does not answer (${error}): is there a firewall between this machine and the node?${suspected}`;
}

/** A way to the login page. */
interface Way extends Pick<FrontDoor, "address" | "port"> {
  tls: boolean;
  /** Whom the request is for, as browsers write it. */
  host: string;
  path: string;
  /** Whether PROXY protocol is spoken there. */
  proxyProtocol?: boolean;
  /** Port of the outer address, where to say what a proxy says that ended TLS there. */
  forwardedPort?: number;
}

/**
 * The login page, past DNS. The certificate is not looked at: the name in it may not be of this address.
 * @param seconds how long all of it may take, from the connection to the answer's first line
 */
export function knock({ address, port, tls: secure, host, path, proxyProtocol, forwardedPort }: Way, seconds = 10): Promise<FrontDoor> {
  const door = { address, port };
  return new Promise((resolve) => {
    const plain = net.connect(port, address);
    if (proxyProtocol) plain.write("PROXY UNKNOWN\r\n");
    const socket = secure ? tls.connect({ socket: plain, servername: host.replace(/:\d+$/, ""), rejectUnauthorized: false }) : plain;
    const forwarded = forwardedPort !== undefined && { "X-Forwarded-Proto": "https", "X-Forwarded-Port": forwardedPort };
    const request = http.get({ createConnection: () => socket, path, headers: { Host: host, ...forwarded } }, (answer) => {
      answer.resume();
      socket.destroy();
      const { statusCode: status, headers: { location } } = answer;
      resolve({ ...door, status, ...(location !== undefined && { location, asked: `${secure || forwardedPort !== undefined ? "https" : "http"}://${host}${path}` }) });
    });
    // A request's own timeout is not armed on a connection that was made for it.
    const deadline = setTimeout(() => plain.destroy(new Error(`no answer within ${seconds} s`)), seconds * 1000);
    plain.on("error", (error) => request.destroy(error)).on("close", () => clearTimeout(deadline));
    request.on("error", (error) => resolve({ ...door, error: error.message || String(error) }));
  });
}

/**
 * Asks every node for the login page, and where none has it the address that people use: a load balancer may stand before the nodes, or
 * somebody else's controller be elsewhere. An address of its own (ingress.externalUrl) is asked in any case.
 */
export async function frontDoors({ config, kubectl }: Pick<Stack, "config" | "kubectl">): Promise<FrontDoor[]> {
  const { domain, ingress } = config;
  const path = `${prefixOf(ingress.externalUrl)}/login`;
  const outer = ingress.externalUrl === undefined ? undefined : new URL(ingress.externalUrl);
  const inside = { port: publicPort(ingress), tls: ingress.tls !== undefined, host: domain, path, proxyProtocol: ingress.proxyProtocol, ...(outer && tlsEndsBefore(ingress) && { forwardedPort: portOf(outer) }) };
  const outside = () => knock(outer ? { address: outer.hostname, port: portOf(outer), tls: outer.protocol === "https:", host: outer.host, path } : { ...inside, address: domain, proxyProtocol: false });
  const nodes = await kubectl("get", "nodes", "-o", 'jsonpath={range .items[*]}{.status.addresses[?(@.type=="InternalIP")].address}{"\\n"}{end}');
  const doors = await Promise.all(nodes.split("\n").filter(Boolean).map((addresses) => knock({ ...inside, address: addresses.split(" ")[0] })));
  return outer === undefined && doors.some(({ status }) => status === 200) ? doors : [...doors, await outside()];
}

/** Errors of what cannot be reached from here: neither good nor bad is known of it. */
const outOfReach = ({ error }: FrontDoor): boolean => /no answer within|TIMEDOUT|UNREACH|ENOTFOUND|EAI_AGAIN/.test(error ?? "");

/** What the doors' answers come to. One that answers is enough: others may be shut on purpose. Somebody else's, whose name is not known here, is not judged. */
export function judgeDoors(doors: FrontDoor[], { domain, namespaces: { jenkins }, ingress }: Pick<Stack["config"], "domain" | "namespaces" | "ingress">, suspects: string[] = []): { good: boolean; reached?: false; text: string } {
  const nodes = doors.filter(({ address }) => net.isIP(address) !== 0);
  const outside = doors.find((door) => !nodes.includes(door));
  const name = outside?.address ?? domain;
  const trouble = (door: FrontDoor) => frontDoorTrouble(door, domain, jenkins, ingress.namespace, suspects)!;
  // This machine is no trusted proxy: a controller that believes those alone sends it to the outer address, which is then asked.
  const sendsOut = (door: FrontDoor) => tlsEndsBefore(ingress) && door.location !== undefined && door.asked !== undefined && new URL(door.location, door.asked).href === new URL(`${prefixOf(ingress.externalUrl)}/login`, ingress.externalUrl).href;
  const open = nodes.filter((door) => door.status === 200 || sendsOut(door));
  const onNodes = `answers on ${open.length} of ${nodes.length} node${nodes.length === 1 ? "" : "s"}`;
  if (outside?.status === 200) return { good: true, text: `answers at ${name}` };
  // Such as a log-in that the site has before everything.
  if (outside && leads(outside) === "elsewhere") return { good: true, text: `${name} sends people on to ${outside.location}` };
  if (open.length > 0 && outside && !outOfReach(outside)) return { good: false, text: `${onNodes}, but not at ${name}: ${trouble(outside)}` };
  if (open.length > 0) return { good: true, text: onNodes };
  const [first] = ingress.install ? doors : doors.slice(-1);
  if (!ingress.install && /ENOTFOUND|EAI_AGAIN/.test(first?.error ?? "")) return { good: true, reached: false, text: `not asked for: ${name} does not resolve here` };
  // The API server may be all of the cluster that this machine reaches.
  if (doors.length > 0 && doors.every(outOfReach)) return { good: true, reached: false, text: `neither the nodes nor ${name} can be reached from here (${doors[0].error}): not judged` };
  return { good: false, text: first ? trouble(first) : "the cluster has no node with an address" };
}

/** What smoke finds wrong with the doors; undefined for nothing. Of an address of its own the verdict counts, else one door that answers is enough. */
export function doorsTrouble(doors: FrontDoor[], config: Pick<Stack["config"], "domain" | "namespaces" | "ingress">, suspects: string[] = []): string | undefined {
  const { domain, namespaces: { jenkins }, ingress } = config;
  const { good, reached, text } = judgeDoors(doors, config, suspects);
  // Smoke is there to ask: what it cannot reach is not well.
  if (reached === false && ingress.install) return frontDoorTrouble(doors[0], domain, jenkins, ingress.namespace, suspects);
  // Behind an ingress of the site's own the domain may lead elsewhere from here.
  return good || (!ingress.install && ingress.externalUrl === undefined) ? undefined : text;
}

/** The certificates that people get, as their Secrets have them. */
export async function certificatesOf({ config, kubectl }: Pick<Stack, "config" | "kubectl">): Promise<Certificates> {
  const one = async (name: string): Promise<Certificate> => {
    const found = await kubectl("-n", config.namespaces.jenkins, "get", "secret", name, "--ignore-not-found", "-o", "jsonpath={.metadata.name} {.data.tls\\.crt}");
    return found.trim() === "" ? null : Buffer.from(found.split(" ")[1] ?? "", "base64").toString();
  };
  return Object.fromEntries(await Promise.all(certificateSecrets(config).map(async (name) => [name, await one(name)] as const)));
}

/** What is wrong with them and what to do; "" where nothing is, undefined without HTTPS. */
export async function certificateTrouble(stack: Pick<Stack, "config" | "kubectl">, now: Date, look?: Look): Promise<string | undefined> {
  const certificates = await certificatesOf(stack);
  return Object.keys(certificates).length === 0 ? undefined : certificateRemarks(stack.config, certificates, now, look).map(({ found, fix }) => `${found}: ${fix}`).join("; ");
}

/**
 * Waits for certificates that are in force, as smoke asks for them: an issuer takes minutes to make one. One that nobody is asked to make is there
 * or is not. Where the address people use is another's than the ingress', TLS ends there for them, and the name is theirs to know.
 * @param more whether to look again; a second lies between two looks
 * @returns what is wrong at the end and what to do, empty where nothing is
 */
export async function awaitCertificates(stack: Pick<Stack, "config" | "kubectl">, more: () => boolean, pause: () => Promise<unknown>): Promise<string> {
  const { tls, externalUrl } = stack.config.ingress;
  for (;;) {
    const trouble = (await certificateTrouble(stack, new Date(), { days: 0, anyName: externalUrl !== undefined })) ?? "";
    if (trouble === "" || tls?.clusterIssuer === undefined || !more()) return trouble;
    await pause();
  }
}
