import * as command from "@pulumi/command";
import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import type { AccessArgs } from "./args";
import { Login, loginSecretName, loginSecrets } from "./login";
import { labels, Place } from "./place";

/** Secret that holds the administrator's name and password under the keys admin-user and admin-password. */
export const adminSecretName = "jenkins-admin";

export const base64 = (text: string): string => Buffer.from(text).toString("base64");

/** Names of the Secrets with the administrator's name and password, and with what the login needs to know, if anything. */
export function makeSecrets(place: Place, args: AccessArgs): { admin: pulumi.Output<string>; login?: pulumi.Output<string> } {
  const login = loginSecret(place, args.login);
  return { admin: adminSecret(place, args), ...(login && { login }) };
}

function adminSecret({ name, parent, here }: Place, args: AccessArgs): pulumi.Output<string> {
  if (args.adminExistingSecret) return pulumi.output(args.adminExistingSecret);
  const password = args.adminPassword ?? madePassword(name, parent, args.adminPasswordVersion ?? 1);
  return new k8s.core.v1.Secret(
    `${name}-admin`,
    {
      metadata: { name: adminSecretName, namespace: here, labels },
      // As data, not stringData: the API server keeps only data, and a refresh would find the other changed.
      data: { "admin-user": base64(args.adminUser), "admin-password": pulumi.secret(pulumi.output(password).apply(base64)) },
    },
    parent,
  ).metadata.name;
}

function loginSecret({ name, parent, here }: Place, login: Login | undefined): pulumi.Output<string> | undefined {
  const content = loginSecrets(login);
  if (!content) return undefined;
  const data = pulumi.secret(pulumi.output(content).apply((texts) => Object.fromEntries(Object.entries(texts).map(([key, text]) => [key, base64(text)]))));
  return new k8s.core.v1.Secret(`${name}-login`, { metadata: { name: loginSecretName, namespace: here, labels }, data }, parent).metadata.name;
}

/** 32 random letters and digits (190 bits), made once and kept in the state as a secret. */
function madePassword(name: string, parent: Place["parent"], version: number): pulumi.Output<string> {
  const made = new command.local.Command(
    `${name}-admin-password`,
    {
      create: "LC_ALL=C tr -dc 'A-Za-z0-9' </dev/urandom | head -c 32",
      interpreter: ["/bin/sh", "-c"],
      logging: "none",
      triggers: [version],
    },
    // A later wording of the command must not make a new password.
    { ...parent, additionalSecretOutputs: ["stdout"], ignoreChanges: ["create", "interpreter", "logging"] },
  );
  return pulumi.secret(made.stdout);
}
