/**
 * What is to be said of the way in: a controller that nobody mends any more, a certificate that is not there, is another's or ends,
 * and nodes on which nobody answers. Nothing of it stops an update: Jenkins runs, and may be reached, all the same.
 */
import { X509Certificate } from "node:crypto";
import { hostsOf } from "../components/jenkins-master";
import type { PlatformConfig, Problem } from "../config";
import { usual } from "../config/pieces";

type Remark = Required<Problem>;
type Wants = Pick<PlatformConfig, "ingress" | "domain" | "namespaces">;

/** Content of the certificate's Secret that is made public: its certificate in PEM, "" where the key is missing, null where there is no Secret; undefined where nobody asked. */
export type Certificate = string | null | undefined;

/** Days before its end at which a certificate is spoken of; cert-manager's, which has a third of its time left when it is made anew, with a sixth at the most. */
const soon = 14;
const day = 86_400_000;

/** Certificates by the name of their Secret. */
export type Certificates = Record<string, Certificate>;

/** Secrets in which the certificates are that people get. */
export const certificateSecrets = (config: Pick<Wants, "ingress" | "domain">): string[] => [...new Set(hostsOf({ domain: config.domain, ...config.ingress }).flatMap(({ secretName }) => secretName ?? []))];

/** How a certificate is looked at. */
export interface Look {
  /** Days before its end at which it is spoken of. Default fourteen. */
  days?: number;
  /** Whether it may be for another name, as where people meet that of who stands before the nodes. Default false. */
  anyName?: boolean;
}

/** What keeps browsers from trusting any of them, by host. */
export const certificateRemarks = (config: Wants, certificates: Certificates, now: Date, look?: Look): Remark[] =>
  hostsOf({ domain: config.domain, ...config.ingress }).flatMap(({ name, secretName }, i) => {
    const wrong = secretName === undefined ? undefined : certificateRemark(config, certificates[secretName], now, { name, secretName }, look);
    return wrong ? [i === 0 ? wrong : { ...wrong, key: `ingress.hosts[${i - 1}].${config.ingress.tls?.clusterIssuer === undefined ? "tlsSecret" : "name"}` }] : [];
  });

/**
 * What keeps browsers from trusting the certificate; undefined where nothing does, or where there is none to look at.
 * @param of whose certificate it is; by default the domain's
 */
export function certificateRemark({ ingress: { tls, annotations }, domain, namespaces: { jenkins } }: Wants, pem: Certificate, now: Date, of?: { name: string; secretName: string }, { days = soon, anyName = false }: Look = {}): Remark | undefined {
  if (!tls || pem === undefined) return undefined;
  const { clusterIssuer } = tls;
  const { name, secretName } = of ?? { name: domain, secretName: tls.secretName };
  const made = clusterIssuer === undefined
    ? `kubectl -n ${jenkins} create secret tls ${secretName} --cert=<file> --key=<file>, once the namespace is there; no restart is needed`
    : `kubectl -n ${jenkins} describe certificate,certificaterequest says what cert-manager waits for`;
  const remark = (found: string, fix = made): Remark => ({ key: clusterIssuer === undefined ? "ingress.tlsSecret" : "ingress.clusterIssuer", found, expected: `a certificate for ${name} that is in force`, fix });
  const instead = "people get one that the ingress controller made up";
  if (pem === null) return remark(`no Secret ${secretName} in namespace ${jenkins}: ${instead}`);
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(pem);
  } catch {
    return remark(`Secret ${secretName} of namespace ${jenkins} without a certificate in tls.crt: ${instead}`);
  }
  const [from, to] = [certificate.validFrom, certificate.validTo].map((text) => new Date(text));
  const on = (date: Date) => date.toISOString().slice(0, 10);
  const renew = clusterIssuer === undefined ? `kubectl -n ${jenkins} create secret tls ${secretName} --cert=<file> --key=<file> --dry-run=client -o yaml | kubectl apply -f -` : made;
  // As browsers do: by its alternative names alone.
  if (!anyName && certificate.checkHost(name, { subject: "never" }) === undefined) return remark(`the certificate in Secret ${secretName} is for ${certificate.subjectAltName ?? "no name at all"}: ${instead}`, renew);
  if (to < now) return remark(`the certificate in Secret ${secretName} ended on ${on(to)}`, renew);
  if (from > now) return remark(`the certificate in Secret ${secretName} is not in force before ${on(from)}`, renew);
  // With a time of its own for it (renew-before), when it is made anew is not known here.
  const ownTime = Object.keys(annotations).some((key) => key.startsWith("cert-manager.io/renew-before"));
  const late = clusterIssuer === undefined ? days * day : ownTime ? 0 : Math.min(days * day, (to.getTime() - from.getTime()) / 6);
  if (to.getTime() - now.getTime() < late) return remark(`the certificate in Secret ${secretName} ends on ${on(to)}${clusterIssuer === undefined ? "" : ", and ought to have been made anew"}`, renew);
  return undefined;
}

/** What is to be said of the controller. @param nodes how many the cluster has; undefined where they are not known */
export function ingressRemarks({ ingress: { controller, install, maxBodySize, externalTrafficPolicy, replicas, trustedProxies } }: Pick<Wants, "ingress">, nodes: number | undefined): Remark[] {
  const remarks: Remark[] = [];
  if (controller === "nginx")
    remarks.push({
      key: "ingress.controller", found: "nginx: ingress-nginx has had no release and no security fix since March 2026, and was made for Kubernetes up to 1.35", expected: "a controller that somebody maintains",
      fix: "pulumi config set --path 'ingress.controller' traefik: ports, class and annotations stay, and nobody is refused meanwhile (docs/ingress.md)",
    });
  if (controller === "traefik" && maxBodySize !== usual.maxBodySize)
    remarks.push({ key: "ingress.maxBodySize", found: `${maxBodySize}, which Traefik does not look at`, expected: "nothing with ingress.controller: traefik, which lets uploads of any size through", fix: "pulumi config rm --path 'ingress.maxBodySize'" });
  if (controller === "nginx" && trustedProxies.length > 0 && externalTrafficPolicy === "Cluster")
    remarks.push({
      key: "ingress.externalTrafficPolicy", found: "Cluster beside ingress.trustedProxies: ingress-nginx sees a node's address in place of the proxy's, and gives Jenkins that as people's own", expected: "Local, with which it sees the proxy's",
      fix: "pulumi config set --path 'ingress.externalTrafficPolicy' Local, with ingress.replicas for every node that the proxy leads to",
    });
  if (install && externalTrafficPolicy === "Local" && nodes !== undefined && replicas < nodes)
    remarks.push({
      key: "ingress.externalTrafficPolicy", found: `Local, with ${replicas} pod${replicas === 1 ? "" : "s"} of the controller on ${nodes} nodes`, expected: "a pod on every node that people are led to: the others do not answer",
      fix: `pulumi config set --path 'ingress.replicas' ${nodes}, or have a load balancer ask the nodes before it leads there`,
    });
  return remarks;
}

/** In one line, as a warning. */
export const remarkLine = ({ key, found, expected, fix }: Remark): string => `${key}: ${found}; expected ${expected}: ${fix}`;
