import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { makePullSecret, type ImagePulls } from "../pull-secrets";
import { labels, Place } from "./place";

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
export function makeAccounts({ name, parent, here, there }: Place, pulls: ImagePulls | undefined): { account: pulumi.Output<string>; binding: pulumi.Resource } {
  const pullSecret = (part: string, namespace: pulumi.Output<string>) => makePullSecret(`${name}-${part}-registry`, { namespace, labels }, pulls, parent);
  const agentsPull = pullSecret("agents", there);
  const account = new k8s.core.v1.ServiceAccount(`${name}-account`, { metadata: { name: "jenkins", namespace: here, labels }, ...pullSecret("controller", here) }, parent).metadata.name;
  new k8s.core.v1.ServiceAccount(`${name}-agent-account`, { metadata: { name: "jenkins-agent", namespace: there, labels }, automountServiceAccountToken: false, ...agentsPull }, parent);
  // Kubernetes makes it with the namespace; pods that name no account run under it, such as those of pipelines that inherit nothing.
  new k8s.core.v1.ServiceAccountPatch(`${name}-agents-default-account`, { metadata: { name: "default", namespace: there }, automountServiceAccountToken: false, ...agentsPull }, parent);
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
