import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { base64 } from "./encoding";

/** What images are pulled with. */
export interface ImagePulls {
  /** Log-ins, as the content of one .dockerconfigjson; kept secret. Default none. */
  dockerConfigJson?: pulumi.Input<string>;
  /** Names of Secrets of type kubernetes.io/dockerconfigjson that somebody else makes in each namespace. Default none. */
  existing?: string[];
}

/** A log-in for a registry in plain text. */
export interface RegistryLogin {
  /** Registry as host or host:port. */
  registry: string;
  username: string;
  password: string;
}

/** Secret with all log-ins, in each namespace in which pods are made. */
const pullSecretName = "registry-login";

/** Names of all pull secrets of a namespace. */
export const pullSecretNames = ({ dockerConfigJson, existing = [] }: ImagePulls = {}): string[] => [...(dockerConfigJson === undefined ? [] : [pullSecretName]), ...existing];

/** What an account or a pod says of its pull secrets: nothing where there are none. */
export const pullingWith = <Name extends pulumi.Input<string>>(names: Name[]): { imagePullSecrets?: { name: Name }[] } => (names.length > 0 ? { imagePullSecrets: names.map((name) => ({ name })) } : {});

/** Docker Hub's name in files of log-ins. */
export const loginHost = (registry: string): string => (registry === "docker.io" ? "https://index.docker.io/v1/" : registry);

/** Log-ins as the content of a .dockerconfigjson. */
export const dockerConfigJson = (logins: RegistryLogin[]): string =>
  JSON.stringify({ auths: Object.fromEntries(logins.map(({ registry, username, password }) => [registry, { auth: base64(`${username}:${password}`) }])) });

/** Makes a namespace's Secret with the log-ins, if there are any, and gives what an account or a pod of it has to say: who says it comes after the Secret. */
export function makePullSecret(name: string, metadata: { namespace: pulumi.Input<string>; labels: Record<string, string> }, pulls: ImagePulls | undefined, opts: pulumi.CustomResourceOptions): ReturnType<typeof pullingWith<pulumi.Input<string>>> {
  const existing = pulls?.existing ?? [];
  if (pulls?.dockerConfigJson === undefined) return pullingWith<pulumi.Input<string>>(existing);
  const content = pulumi.secret(pulumi.output(pulls.dockerConfigJson).apply(base64));
  const secret = new k8s.core.v1.Secret(name, { metadata: { name: pullSecretName, ...metadata }, type: "kubernetes.io/dockerconfigjson", data: { ".dockerconfigjson": content } }, opts);
  return pullingWith<pulumi.Input<string>>([secret.metadata.name, ...existing]);
}
