/** Who makes the certificate: whether cert-manager is there, and the ClusterIssuer that config names. The API server takes an Ingress that asks for a certificate of nobody without a word. */
import type { PlatformConfig, Problem } from "../config";

const group = "cert-manager.io";

/** What the cluster says of it. */
export interface IssuerFacts {
  /** Whether the API server has cert-manager's Certificates of v1; undefined where it does not say. */
  api?: boolean;
  /** Null where there is none; undefined where it may not be read or does not come. */
  issuer?: { status?: { conditions?: { type: string; status: string; message?: string }[] } } | null;
}

/** Asks for both; `get` answers null for what is not there, and undefined for what is not known. Undefined where no issuer is wanted. */
export async function readIssuer({ ingress: { tls } }: Pick<PlatformConfig, "ingress">, get: (path: string) => Promise<unknown>): Promise<IssuerFacts | undefined> {
  if (tls?.clusterIssuer === undefined) return undefined;
  const api = `/apis/${group}/v1`;
  const [list, issuer] = await Promise.all([get(api), get(`${api}/clusterissuers/${tls.clusterIssuer}`)]);
  return { ...(list !== undefined && { api: list !== null }), ...(issuer !== undefined && { issuer: issuer as IssuerFacts["issuer"] }) };
}

/** Why no certificate will come; undefined where one will, as far as can be seen. */
export function issuerRemark({ ingress: { tls } }: Pick<PlatformConfig, "ingress">, { api, issuer }: IssuerFacts): Required<Problem> | undefined {
  const name = tls?.clusterIssuer;
  if (name === undefined) return undefined;
  const remark = (found: string, expected: string, fix: string) => ({ key: "ingress.clusterIssuer", found: `${name}, ${found}`, expected, fix });
  if (api === false) return remark(`while the cluster knows no Certificate of ${group}/v1`, "cert-manager in the cluster, which makes the certificate", "install cert-manager, and the ClusterIssuer (docs/ingress.md has one for Let's Encrypt); or have the certificate in a Secret: ingress.tlsSecret");
  if (issuer === null) return remark("which is not there", "a ClusterIssuer that is there", "make it (docs/ingress.md has one for Let's Encrypt), or name another: kubectl get clusterissuers");
  const ready = issuer?.status?.conditions?.find(({ type }) => type === "Ready");
  if (ready && ready.status !== "True") return remark(`which is not ready: ${ready.message ?? ready.status}`, "a ClusterIssuer that is ready", `kubectl describe clusterissuer ${name}`);
  return undefined;
}

/** Whether an update would stop without it: an Ingress asks by an annotation that anybody takes, beside a Gateway there is an object of cert-manager's. */
export const issuerStops = ({ ingress: { controller } }: Pick<PlatformConfig, "ingress">, { api }: IssuerFacts): boolean => controller === "gateway" && api === false;
