import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { base64, secretData } from "../encoding";
import { randomText } from "../random";
import type { Registration } from "../transform";
import type { AccessArgs } from "./args";
import { Login, loginSecretName, loginSecrets } from "./login";
import { labels, Place } from "./place";

/** Secret that holds the administrator's name and password under the keys admin-user and admin-password. */
export const adminSecretName = "jenkins-admin";

/** A Secret that the controller mounts: its content in base64, or none for one of the site's own. */
export interface MountedSecret {
  name: string;
  data?: pulumi.Input<Record<string, pulumi.Input<string>>>;
}

/** The Secrets with the administrator's name and password, and with what the login needs to know, if anything. */
export interface Secrets {
  admin: MountedSecret;
  login?: MountedSecret;
}

/** What the Secrets are to hold. */
export function secretContents(place: Place, args: AccessArgs): Secrets {
  const login = loginSecret(args.login);
  return { admin: adminSecret(place, args), ...(login && { login }) };
}

/** What the Secrets that are the platform's own are made from. */
export function secretObjects({ name, parent, here }: Place, { admin, login }: Secrets): Registration<k8s.core.v1.SecretArgs>[] {
  // As data, not stringData: the API server keeps only data, and a refresh would find the other changed.
  const object = (part: string, secret: MountedSecret | undefined): Registration<k8s.core.v1.SecretArgs>[] =>
    secret?.data ? [[`${name}-${part}`, { metadata: { name: secret.name, namespace: here, labels }, data: secret.data }, parent]] : [];
  return [...object("admin", admin), ...object("login", login)];
}

function adminSecret({ name, parent }: Place, args: AccessArgs): MountedSecret {
  if (args.adminExistingSecret) return { name: args.adminExistingSecret };
  const password = args.adminPassword ?? randomText(`${name}-admin-password`, parent, [args.adminPasswordVersion ?? 1]);
  return { name: adminSecretName, data: { "admin-user": base64(args.adminUser), "admin-password": pulumi.secret(pulumi.output(password).apply(base64)) } };
}

function loginSecret(login: Login | undefined): MountedSecret | undefined {
  const content = loginSecrets(login);
  return content && { name: loginSecretName, data: pulumi.secret(pulumi.output(content).apply(secretData)) };
}
