import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import type { RegistryLogin } from "./args";
import { labels, Place } from "./place";
import { base64 } from "./secrets";

/** Secret for the registry of the images, in both namespaces; none where it asks for no login. */
export const pullSecretName = "registry-login";

/**
 * What the kubernetes plugin does with the agents' namespace, and no more: it makes, watches, annotates and deletes pods, runs
 * commands in their containers (a WebSocket, which is opened by get), and shows their logs and events on an agent's page. The
 * plugin's example also reads Secrets, which nothing in it needs: https://github.com/jenkinsci/kubernetes-plugin/blob/master/src/main/kubernetes/service-account.yml
 */
export const controllerRules = [
  { apiGroups: [""], resources: ["pods"], verbs: ["create", "delete", "get", "list", "patch", "watch"] },
  { apiGroups: [""], resources: ["pods/exec"], verbs: ["create", "get"] },
  { apiGroups: [""], resources: ["pods/log"], verbs: ["get"] },
  { apiGroups: [""], resources: ["events"], verbs: ["list", "watch"] },
];

/** The accounts of the controller and of the agents, and what the first may do in the agents' namespace. */
export function makeAccounts({ name, parent, here, there }: Place, registryLogin: RegistryLogin | undefined): { account: pulumi.Output<string>; binding: pulumi.Resource } {
  const pullSecret = pullSecrets({ name, parent, here, there }, registryLogin);
  const account = new k8s.core.v1.ServiceAccount(`${name}-account`, { metadata: { name: "jenkins", namespace: here, labels }, ...pullSecret("controller", here) }, parent).metadata.name;
  new k8s.core.v1.ServiceAccount(`${name}-agent-account`, { metadata: { name: "jenkins-agent", namespace: there, labels }, automountServiceAccountToken: false, ...pullSecret("agents", there) }, parent);
  // Kubernetes makes it with the namespace; pods that name no account run under it, such as those of pipelines that inherit nothing.
  new k8s.core.v1.ServiceAccountPatch(`${name}-agents-default-account`, { metadata: { name: "default", namespace: there }, automountServiceAccountToken: false }, parent);
  const role = new k8s.rbac.v1.Role(`${name}-agents-role`, { metadata: { name: "jenkins", namespace: there, labels }, rules: controllerRules }, parent);
  const binding = new k8s.rbac.v1.RoleBinding(
    `${name}-agents-role-binding`,
    {
      metadata: { name: "jenkins", namespace: there, labels },
      roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "Role", name: role.metadata.name },
      subjects: [{ kind: "ServiceAccount", name: account, namespace: here }],
    },
    parent,
  );
  return { account, binding };
}

/** Makes a namespace's pull secret and gives what an account has to say of it. */
function pullSecrets({ name, parent }: Place, login: RegistryLogin | undefined): (part: string, namespace: pulumi.Output<string>) => { imagePullSecrets?: { name: pulumi.Output<string> }[] } {
  if (!login) return () => ({});
  const config = pulumi.secret(
    pulumi.all([login.username, login.password]).apply(([username, password]) => base64(JSON.stringify({ auths: { [login.host]: { auth: base64(`${username}:${password}`) } } }))),
  );
  return (part, namespace) => {
    const secret = new k8s.core.v1.Secret(
      `${name}-${part}-registry`,
      { metadata: { name: pullSecretName, namespace, labels }, type: "kubernetes.io/dockerconfigjson", data: { ".dockerconfigjson": config } },
      parent,
    );
    return { imagePullSecrets: [{ name: secret.metadata.name }] };
  };
}
