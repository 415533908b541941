import { createHash, X509Certificate } from "node:crypto";
import * as net from "node:net";
import type * as k8s from "@pulumi/kubernetes";
import type * as pulumi from "@pulumi/pulumi";
import { bareHost } from "../config/pieces";
import { mavenMirrors } from "./mirrors";
import { canonicalResources, scratch } from "./quantity";

/**
 * The network that the platform stands in, for every container that speaks to it: whose certificates are trusted beside those that
 * an image brings along, and which proxy stands before everything else. A container that speaks to the cluster alone needs nothing of it.
 */
export interface Surroundings {
  /** Certificates in PEM of further authorities. */
  caBundle?: string;
  proxy?: Proxy;
}

/** A proxy on the way out of the network. */
export interface Proxy {
  /** Its address for http: and for https: destinations, as http://host:port. */
  http: string;
  https: string;
  /** Hosts, domains (.example.com) and CIDRs that are reached without it. */
  noProxy: string[];
  /** Names and addresses of the nodes, which come and go: whatever would restart for a new one leaves them out. */
  nodes?: string[];
  /** Login that it asks for. Default none. */
  login?: ProxyLogin;
}

/** Who goes through the proxy. What is made of it for an object is a Pulumi secret. */
export interface ProxyLogin {
  username: string;
  password: string;
}

/** What is reached without a proxy in every cluster: the machine and the pod itself, and the cluster's own names. */
export const alwaysDirect = ["localhost", "127.0.0.1", "::1", ".svc", ".cluster.local", "kubernetes.default"];

type EnvVar = k8s.types.input.core.v1.EnvVar;
type VolumeMount = k8s.types.input.core.v1.VolumeMount;
type Volume = k8s.types.input.core.v1.Volume;
type Container = k8s.types.input.core.v1.Container;

// Names that pods of pipelines refer to as well.

/** ConfigMap with the certificates, in both namespaces; the volume that holds it is called the same. */
export const caName = "company-ca";
/** Where it appears. */
const caFolder = "/etc/build-platform/company-ca";
/** Volume with what an image trusts and the certificates, joined at a pod's start, and where it appears. */
const trustName = "company-trust";
const trustFolder = "/run/build-platform/company-trust";
/** Secret with the proxy's login, in both namespaces; the volume that holds it is called the same. */
export const proxyName = "company-proxy";
const proxyFolder = "/run/build-platform/company-proxy";

/** Folders of containers that are taken. */
export const networkMounts = [caFolder, trustFolder, proxyFolder];

/** The certificates of a text in PEM. */
export const certificatesOf = (pem: string): string[] => pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];

/**
 * The certificates as a key store of Java's own format JKS, in base64: one run of keytool takes all of them over, where each file in PEM
 * would be a run of its own. The same certificates give the same bytes.
 */
export function javaKeyStore(pem: string): string {
  const number = (value: number, bytes: 2 | 4) => Buffer.from(value.toString(16).padStart(bytes * 2, "0"), "hex");
  const text = (value: string) => Buffer.concat([number(value.length, 2), Buffer.from(value, "ascii")]);
  const entries = certificatesOf(pem).map((certificate, i) => {
    const der = new X509Certificate(certificate).raw;
    // A trusted certificate (2) of 1970.
    return Buffer.concat([number(2, 4), text(`${caName}-${i}`), Buffer.alloc(8), text("X.509"), number(der.length, 4), der]);
  });
  const content = Buffer.concat([Buffer.from("feedfeed", "hex"), number(2, 4), number(entries.length, 4), ...entries]);
  // What Java ends such a file with: a digest that begins with the password and these words.
  const password = Buffer.from(storePassword, "utf16le").swap16();
  return Buffer.concat([content, createHash("sha1").update(password).update("Mighty Aphrodite").update(content).digest()]).toString("base64");
}

/** Java's own for its trust store, which holds nothing secret. */
const storePassword = "changeit";

/** What the ConfigMap holds. */
export const caContent = (pem: string): Record<string, string> => ({ "ca.crt": certificatesOf(pem).map((each) => `${each}\n`).join(""), "ca.jks.base64": javaKeyStore(pem) });

/** Annotation by which a change of the certificates starts a pod anew. */
export const caAnnotation = ({ caBundle }: Surroundings = {}): Record<string, string> =>
  caBundle === undefined ? {} : { "build-platform/company-ca": createHash("sha256").update(certificatesOf(caBundle).join()).digest("hex").slice(0, 12) };

/** Joins what the image trusts with the certificates: a bundle for most programs, a key store for Java. POSIX shell; an image without keytool has Java trust the certificates alone. */
export const trustScript = `set -eu
for roots in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem /etc/ssl/cert.pem /dev/null; do [ ! -r "$roots" ] || break; done
{ cat "$roots" && echo && cat ${caFolder}/ca.crt; } >${trustFolder}/ca-bundle.crt
base64 -d ${caFolder}/ca.jks.base64 >${trustFolder}/ca.jks
java=\${JAVA_HOME:-}
[ -n "$java" ] || ! command -v java >/dev/null || { java=$(readlink -f "$(command -v java)") && java=\${java%/bin/java}; }
for store in "$java/lib/security/cacerts" "$java/jre/lib/security/cacerts"; do [ ! -r "$store" ] || break; done
PATH=$java/bin:$PATH
if [ -r "$store" ] && command -v keytool >/dev/null; then
  cat "$store" >${trustFolder}/cacerts
  keytool -J-Xmx64m -J-XX:-UsePerfData -importkeystore -noprompt -srckeystore ${trustFolder}/ca.jks -srcstorepass ${storePassword} -destkeystore ${trustFolder}/cacerts -deststorepass ${storePassword}
else
  echo "this image has no keytool and trust store of Java: Java trusts the certificates of ${caName} alone"
  cp ${trustFolder}/ca.jks ${trustFolder}/cacerts
fi
`;

/** Keys of the proxy's Secret that programs read as files. */
const loginFiles = ["java-options", "maven-settings.xml"];

/** The container that runs it before those that use toolEnvironment, in an image that holds what they trust already. */
export const trustContainers = ({ caBundle }: Surroundings = {}, image: pulumi.Input<string>): Container[] =>
  caBundle === undefined
    ? []
    : [
        {
          name: trustName,
          image,
          command: ["/bin/sh", "-c", trustScript],
          resources: canonicalResources({ requests: { cpu: "10m", memory: "64Mi" }, limits: { memory: "256Mi" } }),
          securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } },
          volumeMounts: [{ name: caName, mountPath: caFolder, readOnly: true }, { name: trustName, mountPath: trustFolder }],
        },
      ];

/** Volumes of a pod; without `joined` those of programs in Go alone. */
export const networkVolumes = ({ caBundle, proxy }: Surroundings = {}, joined = true): Volume[] => [
  ...(caBundle === undefined ? [] : [{ name: caName, configMap: { name: caName } }, ...(joined ? [{ name: trustName, ...scratch("16Mi") }] : [])]),
  ...(joined && proxy?.login ? [{ name: proxyName, secret: { secretName: proxyName, items: loginFiles.map((key) => ({ key, path: key })), defaultMode: 0o440 } }] : []),
];

/** Mounts of a container that runs tools of any kind. */
export const toolMounts = ({ caBundle, proxy }: Surroundings = {}): VolumeMount[] => [
  ...goMounts({ caBundle }),
  ...(caBundle === undefined ? [] : [{ name: trustName, mountPath: trustFolder, readOnly: true }]),
  ...(proxy?.login ? [{ name: proxyName, mountPath: proxyFolder, readOnly: true }] : []),
];

/** Mounts of a container that runs a program in Go. */
export const goMounts = ({ caBundle }: Surroundings = {}): VolumeMount[] => (caBundle === undefined ? [] : [{ name: caName, mountPath: caFolder, readOnly: true }]);

/** Environment of a container that runs tools of any kind: git, curl, Node, Python and what is written in Go or uses OpenSSL. Java has flags, see javaFlags. */
export function toolEnvironment(surroundings: Surroundings = {}): EnvVar[] {
  const files = ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "REQUESTS_CA_BUNDLE", "PIP_CERT"].map((name) => ({ name, value: `${trustFolder}/ca-bundle.crt` }));
  // Node adds it to its own.
  return [...(surroundings.caBundle === undefined ? [] : [...files, { name: "NODE_EXTRA_CA_CERTS", value: `${caFolder}/ca.crt` }]), ...proxyEnvironment(surroundings)];
}

/** Environment of a container that runs a program in Go, which adds what is in such folders to what its image has in one file. */
export const goTrust = ({ caBundle }: Surroundings = {}): Record<string, string> => (caBundle === undefined ? {} : { SSL_CERT_DIR: `/etc/ssl/certs:/etc/pki/tls/certs:${caFolder}` });
export const goEnvironment = (surroundings: Surroundings = {}): EnvVar[] => [...Object.entries(goTrust(surroundings)).map(([name, value]) => ({ name, value })), ...proxyEnvironment(surroundings)];

/** In the words of programs that read one of both spellings. */
const bothCases = <T extends { name: string }>(each: T): T[] => [each, { ...each, name: each.name.toLowerCase() }];

/** The proxy in the environment; with a login each address comes from the Secret. */
function proxyEnvironment({ proxy }: Surroundings): EnvVar[] {
  if (!proxy) return [];
  const address = (name: string, value: string, key: string): EnvVar & { name: string } => ({ name, ...(proxy.login ? { valueFrom: { secretKeyRef: { name: proxyName, key } } } : { value }) });
  return [address("HTTP_PROXY", proxy.http, "http-url"), address("HTTPS_PROXY", proxy.https, "https-url"), { name: "NO_PROXY", value: around(proxy).join(",") }].flatMap(bothCases);
}

/** The same as texts, the login in them: for the environment of a program that is started, or a Secret. */
export function proxyTexts({ proxy }: Surroundings = {}): Record<string, string> {
  if (!proxy) return {};
  const texts = { HTTP_PROXY: withLogin(proxy.http, proxy.login), HTTPS_PROXY: withLogin(proxy.https, proxy.login), NO_PROXY: around(proxy).join(",") };
  return Object.fromEntries(Object.entries(texts).map(([name, value]) => ({ name, value })).flatMap(bothCases).map(({ name, value }) => [name, value]));
}

const withLogin = (url: string, login?: ProxyLogin): string => (login ? url.replace("://", `://${encodeURIComponent(login.username)}:${encodeURIComponent(login.password)}@`) : url);

/** What the Secret holds; undefined where the proxy asks for no login. @param maven the mirror of Central, which its settings of Maven name as well */
export function proxySecret({ proxy }: Surroundings = {}, maven?: string): Record<string, string> | undefined {
  if (!proxy?.login) return undefined;
  const { http, https, login } = proxy;
  const { username, password } = login;
  // As a file that Java reads: in its environment it would tell them to every log, and on its command line to the whole pod.
  const options = [...["http", "https"].flatMap((scheme) => [`-D${scheme}.proxyUser=${username}`, `-D${scheme}.proxyPassword=${password}`]), "-Djdk.http.auth.tunneling.disabledSchemes="];
  return { "http-url": withLogin(http, login), "https-url": withLogin(https, login), username, password, "maven-settings.xml": mavenSettings(proxy, login, maven), "java-options": options.map((each) => `"${each.replace(/[\\"]/g, "\\$&")}"\n`).join("") };
}

/** Settings by which Maven logs in at the proxy: of the JVM's properties it takes the address alone. */
function mavenSettings(proxy: Proxy, { username, password }: ProxyLogin, maven?: string): string {
  const text = (value: string) => value.replace(/[<>&]/g, (each) => `&#${each.charCodeAt(0)};`);
  const entries = (["http", "https"] as const).map((scheme) => {
    const { host, port } = hostAndPort(proxy[scheme]);
    return `<proxy><id>${proxyName}-${scheme}</id><active>true</active><protocol>${scheme}</protocol><host>${host}</host><port>${port}</port><username>${text(username)}</username><password>${text(password)}</password><nonProxyHosts>${javaPatterns(proxy).join("|")}</nonProxyHosts></proxy>`;
  });
  return `<settings><proxies>${entries.join("")}</proxies>${mavenMirrors(maven)}</settings>\n`;
}

/** Everything that is reached without the proxy; the nodes last. */
const around = ({ noProxy, nodes = [] }: Proxy): string[] => [...new Set([...noProxy, ...nodes])];

/** The same surroundings without the nodes among what is reached without the proxy. */
export const withoutNodes = ({ proxy, ...rest }: Surroundings = {}): Surroundings => ({ ...rest, ...(proxy && { proxy: { ...proxy, nodes: [] } }) });

/** Addresses of one family and length, as a range of 8, 16, 24 or 32 bits each. */
function wholeBytes(cidr: string): string[] {
  const [address, length] = cidr.split("/");
  const [bits, bytes] = [Number(length), address.split(".").map(Number)];
  const whole = Math.floor(bits / 8);
  if (whole === 4) return [address];
  const rest = whole === 3 ? "*" : ".*";
  const fixed = bytes.slice(0, whole).map((byte) => `${byte}.`).join("");
  if (bits % 8 === 0) return [`${fixed}*`];
  const [step, mask] = [2 ** (8 - (bits % 8)), 2 ** (bits % 8) - 1];
  const first = bytes[whole] & (mask << (8 - (bits % 8)));
  return Array.from({ length: step }, (_, i) => `${fixed}${first + i}${whole === 3 ? "" : rest}`);
}

/** Patterns as Java and Jenkins have them: a * at an end, no ranges, nothing of IPv6 but single addresses. */
export function javaPatterns(proxy: Proxy): string[] {
  const patterns = around(proxy).flatMap((entry) => {
    if (/^[\d.]+\/\d+$/.test(entry)) return wholeBytes(entry);
    if (net.isIPv6(entry)) return [`[${entry}]`];
    if (entry.includes(":")) return [];
    if (entry.startsWith(".")) return [`*${entry}`];
    return net.isIPv4(entry) || !entry.includes(".") ? [entry] : [entry, `*.${entry}`];
  });
  return [...new Set(patterns)];
}

const hostAndPort = (url: string): { host: string; port: string } => {
  const { hostname, port } = new URL(url);
  return { host: hostname, port: port || "80" };
};

/** Where the proxy is, as flags of a JVM. */
export const javaProxy = (proxy: Proxy): string[] => [
  ...(["http", "https"] as const).flatMap((scheme) => {
    const { host, port } = hostAndPort(proxy[scheme]);
    return [`-D${scheme}.proxyHost=${host}`, `-D${scheme}.proxyPort=${port}`];
  }),
  `-Dhttp.nonProxyHosts=${javaPatterns(proxy).join("|")}`,
];

/** Flags of a JVM; none of them holds a secret. */
export function javaFlags({ caBundle, proxy }: Surroundings = {}): string[] {
  return [
    ...(caBundle === undefined ? [] : [`-Djavax.net.ssl.trustStore=${trustFolder}/cacerts`, `-Djavax.net.ssl.trustStorePassword=${storePassword}`]),
    ...(proxy ? javaProxy(proxy) : []),
  ];
}

/** Environment of build tools on the JVM. The proxy's login comes from files that Java 9 and Maven 3.9 and later read. */
export const javaEnvironment = (surroundings: Surroundings = {}): Record<string, string> => ({
  ...(javaFlags(surroundings).length > 0 && { JAVA_TOOL_OPTIONS: javaFlags(surroundings).join(" ") }),
  ...(surroundings.proxy?.login && { JDK_JAVA_OPTIONS: `@${proxyFolder}/java-options`, MAVEN_ARGS: `--global-settings ${proxyFolder}/maven-settings.xml` }),
});

/** Has Maven go by the JVM's proxy, which its resolver does not by itself (3.9, 4), and not say at each download that it does. */
export const mavenFlags = ({ proxy }: Surroundings = {}): string[] =>
  proxy ? ["-Daether.connector.http.useSystemProperties=true", "-Daether.transport.apache.useSystemProperties=true", "-Dorg.slf4j.simpleLogger.log.org.eclipse.aether.transport.http=error"] : [];

/** Files by which Jenkins' documents refer to the proxy's login, by key of the Secret. */
export const proxyFiles = { username: `${proxyName}-username`, password: `${proxyName}-password` };

/** Jenkins' own setting, as JCasC names it; it knows one proxy for both kinds of destinations. */
export function jenkinsProxy({ proxy }: Surroundings = {}): { proxy?: object } {
  if (!proxy) return {};
  const { host, port } = hostAndPort(proxy.https);
  return { proxy: { name: host, port: Number(port), ...(proxy.login && { userName: `\${${proxyFiles.username}}`, secretPassword: `\${${proxyFiles.password}}` }), noProxyHost: javaPatterns(proxy).join("\n") } };
}

/** Whether a host is reached without the proxy. */
export function goesDirect(proxy: Proxy, host: string): boolean {
  const bare = bareHost(host.toLowerCase());
  const family = net.isIPv6(bare) ? "ipv6" : "ipv4";
  return around(proxy).some((entry) => {
    const [address, length] = entry.split("/");
    if (length !== undefined && net.isIP(address) && net.isIP(bare)) {
      const range = new net.BlockList();
      range.addSubnet(address, Number(length), net.isIPv6(address) ? "ipv6" : "ipv4");
      return range.check(bare, family);
    }
    const name = entry.toLowerCase();
    return bare === name || bare.endsWith(name.startsWith(".") ? name : `.${name}`);
  });
}
