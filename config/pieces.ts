import { createHash } from "node:crypto";
import * as net from "node:net";
import { Cron } from "croner";
import { isQuantity, quantityMillis } from "../components/quantity";

/**
 * What single values must look like, each said once: the keys of the stack config are made of these pieces, and components
 * check their arguments with them.
 */

/** What a text must look like, and how that is said to people: "expected a host name or address". */
export interface Piece {
  expected: string;
  /** What editors can check as well. */
  pattern?: RegExp;
  /** What no pattern says. */
  also?: (text: string) => boolean;
}

/** Ends of a number's range, and the number where none is given. */
export interface Range {
  least: number;
  most: number;
  usual: number;
}

/** Whether a text is what the piece expects. */
export const fits = ({ pattern, also }: Piece, text: string): boolean => (pattern?.test(text) ?? true) && (also?.(text) ?? true);

/** What is wrong with a text, as a reason for people; undefined where it fits. */
export const misfit = (piece: Piece, text: string): string | undefined => (fits(piece, text) ? undefined : `"${text}" is not ${piece.expected}`);

/** Whether a number is whole and within a range. */
export const within = ({ least, most }: Omit<Range, "usual">, value: number): boolean => Number.isInteger(value) && value >= least && value <= most;

/** Whether a value is a mapping, neither a list nor null. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

const hostLabel = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?";
const domainPattern = new RegExp(`^(?=.{1,253}$)${hostLabel}(\\.${hostLabel})+$`);
const hostPattern = new RegExp(`^(?=.{1,253}$)${hostLabel}(\\.${hostLabel})*$`, "i");
const namePattern = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;
const longNamePattern = /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/;
const sizePattern = /^\d+(\.\d+)?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)$/;
const referencePattern = /^([a-z0-9.-]+|\[[0-9a-f:]+\])(:\d+)?\/[a-z0-9._/-]+(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?$/;
// Grammar of repository names: https://github.com/distribution/reference, "reference.go".
const domainLabel = "[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?";
const registryPattern = new RegExp(`^(?:${domainLabel}(?:\\.${domainLabel})*|\\[[0-9a-fA-F:]+\\])(:[0-9]{1,5})?$`);
const pathComponent = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*";

/** A name of at most 63 letters as Namespaces and Services have it. */
export const name = (expected: string): Piece => ({ expected, pattern: namePattern });
/** A name as Secrets, ConfigMaps and claims have it: dots as well, and longer. */
export const longName = (expected: string): Piece => ({ expected, pattern: longNamePattern });
/** The API server takes no address for an Ingress' host. */
export const domain: Piece = { expected: "the host name people will use, in small letters, without scheme or port, such as jenkins.example.com; no address", pattern: domainPattern, also: (text) => net.isIP(text) === 0 };
/** Small letters, as browsers and Jenkins compare it; the path as Jenkins' --prefix takes it. */
export const externalUrl: Piece = {
  expected: "an address such as https://jenkins.example.com, https://jenkins.example.com:8443 or https://example.com/jenkins, without user and query",
  pattern: new RegExp(`^https?://${hostLabel}(\\.${hostLabel})*(:[1-9]\\d{0,4})?(/[A-Za-z0-9_~-][\\w.~-]*)*/?$`),
  also: (text) => URL.canParse(text) && net.isIP(new URL(text).hostname) === 0,
};
export const host: Piece = { expected: "a host name or address, IPv6 without brackets", also: (text) => net.isIP(text) !== 0 || hostPattern.test(text) };
/** A node or a StorageClass: a name, or several joined by dots. */
export const domainOrName = (expected: string): Piece => ({ expected, also: (text) => domainPattern.test(text) || namePattern.test(text) });
export const registry: Piece = { expected: "a registry that the nodes can pull from, as host or host:port, an IPv6 address as [fd00::1]:5000", pattern: registryPattern, also: (text) => Number(registryPattern.exec(text)?.[1]?.slice(1) ?? 443) <= 65535 && net.isIPv6(/^\[(.*)\]/.exec(text)?.[1] ?? "::") };
/** What stands before an image's path where a mirror has it. */
export const registryMirror: Piece = { expected: "a mirror as host or host/path, without scheme, such as mirror.example.com/dockerhub", pattern: new RegExp(`${registryPattern.source.slice(0, -1)}(?:/${pathComponent})*$`) };
/** An address that stands in files of many kinds as it is, and in plain text: no log-in in it. */
export const address: Piece = { expected: "an address such as https://mirror.example.com/path, without user, password and query", pattern: /^https?:\/\/[A-Za-z0-9[\].:-]+(\/[\w.~%+,=:-]+)*\/?$/ };
export const imagePath: Piece = { expected: "a path of small letters, digits and single . _ - inside parts divided by /, for example team/build-platform", pattern: new RegExp(`^${pathComponent}(?:/${pathComponent})*$`) };
export const imageName: Piece = { expected: "an image name of at most 100 small letters and digits with single . _ - between them, for example maven-dind", pattern: new RegExp(`^(?=.{1,100}$)${pathComponent}$`) };
export const imageReference: Piece = { expected: "a full image reference such as registry.example.com/path/name:tag", pattern: referencePattern };
/** A sum of bytes as Kubernetes writes it, with its unit. */
export const size: Piece = { expected: "a size with its unit, at least 100Mi, such as 20Gi", pattern: sizePattern, also: (text) => isQuantity(text) && quantityMillis(text) >= quantityMillis("100Mi") };
export const cpu: Piece = { expected: "processor time such as 500m or 2", also: (text) => isQuantity(text) && quantityMillis(text) > 0n };
export const memory: Piece = { expected: "memory with a unit such as 512Mi or 2Gi", pattern: sizePattern, also: (text) => isQuantity(text) && quantityMillis(text) > 0n };
export const disk: Piece = { ...memory, expected: "room on a disk with a unit such as 500Mi or 50Gi" };
export const platform: Piece = { expected: "a platform such as linux/amd64", pattern: /^linux\/[a-z0-9]+(\/[a-z0-9]+)?$/ };
/** The Command provider asks for RSA keys with SHA-1 signatures only, which SSH servers have not given since OpenSSH 8.8: no RSA. */
export const hostKey: Piece = { expected: "a public host key such as ssh-ed25519 AAAA..., or @cert-authority and the key of who certifies it", pattern: /^((@cert-authority )?(ssh-ed25519|ecdsa-sha2-nistp(256|384|521))|@cert-authority ssh-rsa) AAAA[A-Za-z0-9+/]+={0,3}$/ };
/** A host key without the comment that files of keys have behind it. */
export const withoutComment = (key: string): string => key.trim().split(/\s+/).slice(0, key.trim().startsWith("@") ? 3 : 2).join(" ");
export const certificate: Piece = { expected: "an SSH certificate such as ssh-ed25519-cert-v01@openssh.com AAAA...", pattern: /^[a-z0-9-]+-cert-v01@openssh\.com AAAA[A-Za-z0-9+/]+={0,3}$/ };
/** As directories give them: upper case, dots, DOMAIN\name, name@domain, a machine's name$. Never an option, nor what a shell or ssh would read. */
export const sshUser: Piece = { expected: "a user name such as deploy, CORP\\name or name@corp.example.com", pattern: /^[A-Za-z0-9_](?:[A-Za-z0-9._@\\-]{0,253}[A-Za-z0-9._-])?\$?$/ };
export const privateKey: Piece = { expected: "a private key in PEM or OpenSSH form", pattern: /^-----BEGIN [A-Z ]*PRIVATE KEY-----/ };
/** A disk's mount point such as /data is one; the system's own folders are not: pods would write there as root. The provisioner itself refuses the root alone. */
export const nodeFolder: Piece = {
  expected: "an absolute path such as /data or /var/openebs/local, and none of the system's own folders such as /var itself",
  pattern: /^(?!\/(bin|boot|dev|etc|home|lib|lib32|lib64|libx32|media|opt|proc|root|run|sbin|sys|tmp|usr|var)$)(\/[A-Za-z0-9._-]+)+$/,
  also: (text) => !text.split("/").some((part) => part === "." || part === ".."),
};
export const nginxSize: Piece = { expected: "a size as nginx writes it, such as 64m", pattern: /^\d{1,9}[kmgKMG]?$/ };
export const plugin: Piece = { expected: "a plugin with its version such as git:5.10.1", pattern: /^[A-Za-z0-9][A-Za-z0-9._-]*:[A-Za-z0-9][A-Za-z0-9._+-]*$/ };
export const labelName: Piece = { expected: "the name of a node label such as disk or example.com/disk", pattern: /^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\/)?[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?$/ };
export const labelValue: Piece = { expected: "a node label's value of at most 63 letters, digits, dots, hyphens and underscores", pattern: /^([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)?$/ };
export const variableName: Piece = { expected: "the name of a variable: letters, digits, underscores, hyphens and dots, no digit first", pattern: /^[-._A-Za-z][-._A-Za-z0-9]*$/ };
/** Neither Java nor Jenkins speaks TLS to a proxy. */
export const proxyAddress: Piece = { expected: "an address such as http://proxy.example.com:3128, its login in username and password", pattern: /^http:\/\/([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\]):\d{1,5}$/ };
/** A host as it stands in an address, without the brackets of IPv6. */
export const bareHost = (host: string): string => host.replace(/^\[|\]$/g, "");
const bits = (address: string): number => (net.isIPv6(address) ? 128 : 32);
/** An address alone, as a CIDR. */
export const singleAddress = (address: string): string => `${address}/${bits(address)}`;
const prefix = (address: string, length: string): boolean => /^\d{1,3}$/.test(length) && net.isIP(address) !== 0 && Number(length) <= bits(address);
export const noProxy: Piece = {
  expected: "a host such as git.example.com, which stands for those below it as well, a domain such as .example.com, an address, or a CIDR such as 192.0.2.0/24",
  also: (text) => (text.includes("/") ? prefix(text.split("/")[0], text.slice(text.indexOf("/") + 1)) : net.isIP(text) !== 0 || hostPattern.test(text.replace(/^\*?\./, ""))),
};
export const networkAddress: Piece = {
  expected: "an address, or a CIDR such as 192.0.2.0/24",
  // One with a zone, which Node takes for an address, is one machine's own.
  also: (text) => !text.includes("%") && (text.includes("/") ? prefix(text.split("/")[0], text.slice(text.indexOf("/") + 1)) : net.isIP(text) !== 0),
};
/** A key of a Secret or ConfigMap. */
export const dataKey = (expected: string): Piece => ({ expected, pattern: /^[-._A-Za-z0-9]+$/ });

/** Croner also takes L, W, #, a year, and 7 for Sunday, of which a CronJob takes none; n/m for a single n, which a CronJob takes, it refuses. */
const cronShape = /^@(hourly|daily|midnight|weekly|monthly|yearly|annually)$|^([\d*?,/-]|\b(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|sun|mon|tue|wed|thu|fri|sat)\b)+( ([\d*?,/-]|\b(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|sun|mon|tue|wed|thu|fri|sat)\b)+){4}$/i;

function isCron(text: string): boolean {
  const [weekday] = text.split(" ").slice(4);
  if (!cronShape.test(text) || /\b7\b/.test(weekday?.replace(/\/\d+/g, "") ?? "")) return false;
  try {
    new Cron(text, { paused: true });
    return true;
  } catch {
    return false;
  }
}

export const cron: Piece = { expected: "five cron fields such as 0 2 * * *, in UTC", also: isCron };

/** Jenkins' cron knows no names of months and days. */
export const minutes: Piece = { expected: "five cron fields without names such as * 6-18 * * 1-5, in UTC", also: (text) => /^[\d*,/ -]+$/.test(text) && isCron(text) };

export const port = (usual: number): Range => ({ least: 1, most: 65535, usual });
/** Share of a container's memory limit that the JVM's heap takes, in percent: threads, metaspace and code live beside it. */
export const maxRamPercentage: Range = { least: 10, most: 90, usual: 60 };
/** Seconds the controller may take to answer after its start: plugins and jobs are loaded first. */
export const startupSeconds: Range = { least: 30, most: 7200, usual: 600 };
/** Seconds that running builds and Jenkins itself get to stop in order. */
export const terminationSeconds: Range = { least: 1, most: 3600, usual: 90 };
/** Most agent pods at once over all templates, as in the official chart. */
export const agentCap: Range = { least: 1, most: 10000, usual: 10 };
/** Most GiB of shared caches on a node. */
export const cacheGi: Range = { least: 1, most: 100000, usual: 20 };
/** Most GiB of what Docker keeps on a node. */
export const dockerGi: Range = { ...cacheGi, usual: 50 };
export const ingressReplicas: Range = { least: 1, most: 100, usual: 1 };
/** Ingress controllers that the platform brings, a Gateway of its own or one that is there, and none. */
export const ingressControllers = ["traefik", "nginx", "gateway", "none"] as const;
/** How a Service sends on what reaches a node's port. */
export const externalTrafficPolicies = ["Cluster", "Local"] as const;
/** A year, as nginx' own. */
export const hstsSeconds: Range = { least: 0, most: 63072000, usual: 31536000 };
/** Of a program without privileges; the usual one lies above the ports of Services and those that Linux gives to outgoing connections. */
export const registryPort: Range = { least: 1024, most: 65535, usual: 61500 };
export const httpNodePort = port(80);
export const httpsNodePort = port(443);

/** Ends of a range such as "80-32767"; undefined for any other text. */
export function rangeEnds(text: string): [low: number, high: number] | undefined {
  const match = /^([1-9]\d{0,4})-([1-9]\d{0,4})$/.exec(text);
  return match ? [Number(match[1]), Number(match[2])] : undefined;
}

export const portRange: Piece = {
  expected: "a range within 1-65535, the lower end first, such as 80-32767",
  also: (text) => {
    const [low, high] = rangeEnds(text) ?? [1, 0];
    return low <= high && high <= 65535;
  },
};

/** Texts where the config gives none. */
export const usual = {
  namespace: "jenkins",
  storageClass: "openebs-hostpath",
  basePath: "/var/openebs/local",
  ingressClass: "nginx",
  ingressNamespace: "ingress-nginx",
  maxBodySize: "64m",
  agentCachePath: "/var/cache/build-platform",
  nodePortRange: "80-32767",
  cacheGroup: "agents",
} as const;

/** Port of the built-in registry of an environment that names none: by its namespace, so that two on a cluster hardly ever meet. */
export const usualRegistryPort = (namespace: string): number =>
  namespace === usual.namespace ? registryPort.usual : registryPort.usual + 1 + (createHash("sha256").update(namespace).digest().readUInt32BE() % 999);
