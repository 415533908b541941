import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { stringify } from "yaml";
import { misfit, nodeFolder, usual } from "../config/pieces";
import { ownLabels, partOf } from "./ownership";
import { makePullSecret, pullSecretNames, type ImagePulls } from "./pull-secrets";
import { type Transform, transformed } from "./transform";

/** What of the storage an environment installs: the provisioner with a StorageClass, or the class alone. */
export type StorageInstall = "provisioner" | "class";

export interface OpenEbsStorageArgs {
  /** Folder on every node below which volumes are made, absolute. */
  basePath: string;
  /** `class` where a provisioner is there already: two would answer every claim. Default `provisioner`. */
  install?: StorageInstall;
  /** Image of OpenEBS' dynamic LocalPV provisioner. */
  provisionerImage: pulumi.Input<string>;
  /** Image of the short-lived pods that make and delete a volume's folder on its node. */
  helperImage: pulumi.Input<string>;
  /** Name of the StorageClass. Default `openebs-hostpath`. */
  storageClassName?: string;
  /** What becomes of a volume's folder when its claim is deleted. Default `Delete`. */
  reclaimPolicy?: "Delete" | "Retain";
  /** What images are pulled with. Default nothing. */
  pulls?: ImagePulls;
  /** Last changes to the main objects, see components/transform.ts. */
  transform?: {
    storageClass?: Transform<k8s.storage.v1.StorageClassArgs>;
    deployment?: Transform<k8s.apps.v1.DeploymentArgs>;
  };
}

/** The volume settings the provisioner reads from the StorageClass: a YAML list in an annotation. */
export function casConfig(basePath: string): string {
  return stringify([
    { name: "StorageType", value: "hostpath" },
    { name: "BasePath", value: basePath },
  ]);
}

const component = "localpv-provisioner";
const namespaceName = "openebs";
const labels = { "app.kubernetes.io/name": component, ...partOf };

/**
 * OpenEBS LocalPV hostpath: volumes that are folders on the node of their first consumer. Capacity is not enforced, a
 * volume cannot grow or move, and it lives and dies with its node: back it up.
 *
 * Names others may rely on: namespace `openebs` of the provisioner, StorageClass `openebs-hostpath`.
 *
 * @throws InputPropertiesError listing every bad argument, before any resource is made
 */
export class OpenEbsStorage extends pulumi.ComponentResource {
  readonly storageClassName: pulumi.Output<string>;

  constructor(name: string, args: OpenEbsStorageArgs, opts?: pulumi.ComponentResourceOptions) {
    super("build-platform:storage:OpenEbsStorage", name, {}, opts);
    const problem = misfit(nodeFolder, args.basePath);
    if (problem) {
      throw new pulumi.InputPropertiesError({ message: `OpenEbsStorage "${name}" cannot be made`, errors: [{ propertyPath: "basePath", reason: problem }] });
    }
    const parent = { parent: this };

    if ((args.install ?? "provisioner") === "provisioner") this.provisioner(name, args);

    const storageClass = new k8s.storage.v1.StorageClass(...transformed<k8s.storage.v1.StorageClassArgs>(
      args.transform?.storageClass,
      `${name}-class`,
      {
        metadata: {
          name: args.storageClassName ?? usual.storageClass,
          labels: { ...labels, ...ownLabels() },
          annotations: { "openebs.io/cas-type": "local", "cas.openebs.io/config": casConfig(args.basePath) },
        },
        provisioner: "openebs.io/local",
        reclaimPolicy: args.reclaimPolicy ?? "Delete",
        // The volume is made on the node where its first pod runs.
        volumeBindingMode: "WaitForFirstConsumer",
      },
      parent,
    ));

    this.storageClassName = storageClass.metadata.name;
    this.registerOutputs({ storageClassName: this.storageClassName });
  }

  /** The provisioner in its namespace, with its rights. */
  private provisioner(name: string, args: OpenEbsStorageArgs): void {
    const parent = { parent: this };
    const namespace = new k8s.core.v1.Namespace(
      `${name}-namespace`,
      // The helper pods mount the node's folders.
      { metadata: { name: namespaceName, labels: { ...labels, ...ownLabels(), "pod-security.kubernetes.io/enforce": "privileged" } } },
      parent,
    );
    const pulling = makePullSecret(`${name}-registry`, { namespace: namespace.metadata.name, labels }, args.pulls, parent);
    const account = new k8s.core.v1.ServiceAccount(`${name}-account`, { metadata: { name: component, namespace: namespace.metadata.name, labels }, ...pulling }, parent);
    const subjects = [{ kind: "ServiceAccount", name: account.metadata.name, namespace: namespace.metadata.name }];

    // Claims and volumes are the cluster's; pods, leases and the rest stay in the provisioner's own namespace.
    const clusterRole = new k8s.rbac.v1.ClusterRole(
      `${name}-cluster-role`,
      {
        metadata: { name: `openebs-${component}`, labels: { ...labels, ...ownLabels() } },
        rules: [
          { apiGroups: [""], resources: ["nodes", "namespaces"], verbs: ["get", "list", "watch"] },
          { apiGroups: [""], resources: ["persistentvolumes"], verbs: ["get", "list", "watch", "create", "update", "patch", "delete"] },
          { apiGroups: [""], resources: ["persistentvolumeclaims"], verbs: ["get", "list", "watch", "update", "patch"] },
          { apiGroups: ["storage.k8s.io"], resources: ["storageclasses"], verbs: ["get", "list", "watch"] },
          { apiGroups: ["", "events.k8s.io"], resources: ["events"], verbs: ["get", "list", "watch", "create", "update", "patch"] },
        ],
      },
      parent,
    );
    const clusterBinding = new k8s.rbac.v1.ClusterRoleBinding(
      `${name}-cluster-role-binding`,
      {
        metadata: { name: `openebs-${component}`, labels: { ...labels, ...ownLabels() } },
        roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: clusterRole.metadata.name },
        subjects,
      },
      parent,
    );
    const role = new k8s.rbac.v1.Role(
      `${name}-role`,
      {
        metadata: { name: component, namespace: namespace.metadata.name, labels },
        rules: [
          { apiGroups: [""], resources: ["pods"], verbs: ["get", "list", "watch", "create", "delete"] },
          { apiGroups: ["", "discovery.k8s.io"], resources: ["endpoints", "endpointslices"], verbs: ["get", "list", "watch", "create", "update", "patch"] },
          { apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["get", "list", "watch", "create", "update", "patch"] },
        ],
      },
      parent,
    );
    const binding = new k8s.rbac.v1.RoleBinding(
      `${name}-role-binding`,
      {
        metadata: { name: component, namespace: namespace.metadata.name, labels },
        roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "Role", name: role.metadata.name },
        subjects,
      },
      parent,
    );

    new k8s.apps.v1.Deployment(...transformed<k8s.apps.v1.DeploymentArgs>(
      args.transform?.deployment,
      `${name}-provisioner`,
      {
        metadata: { name: component, namespace: namespace.metadata.name, labels },
        spec: {
          replicas: 1,
          strategy: { type: "Recreate" },
          selector: { matchLabels: labels },
          template: {
            metadata: { labels },
            spec: {
              serviceAccountName: account.metadata.name,
              enableServiceLinks: false,
              ...pulling,
              containers: [
                {
                  name: component,
                  image: args.provisionerImage,
                  env: [
                    { name: "OPENEBS_NAMESPACE", valueFrom: { fieldRef: { apiVersion: "v1", fieldPath: "metadata.namespace" } } },
                    { name: "NODE_NAME", valueFrom: { fieldRef: { apiVersion: "v1", fieldPath: "spec.nodeName" } } },
                    { name: "OPENEBS_SERVICE_ACCOUNT", valueFrom: { fieldRef: { apiVersion: "v1", fieldPath: "spec.serviceAccountName" } } },
                    { name: "OPENEBS_IO_ENABLE_ANALYTICS", value: "false" },
                    { name: "OPENEBS_IO_BASE_PATH", value: args.basePath },
                    { name: "OPENEBS_IO_HELPER_IMAGE", value: args.helperImage },
                    { name: "OPENEBS_IO_INSTALLER_TYPE", value: "build-platform" },
                    { name: "LEADER_ELECTION_ENABLED", value: "false" },
                    ...(pulling.imagePullSecrets ? [{ name: "OPENEBS_IO_IMAGE_PULL_SECRETS", value: pullSecretNames(args.pulls).join(",") }] : []),
                  ],
                  // As in the provisioner's chart; pgrep sees the first 15 letters of a program's name. The time is for a node that is busy.
                  livenessProbe: { exec: { command: ["sh", "-c", 'test "$(pgrep -c "^provisioner-loc.*")" = 1'] }, initialDelaySeconds: 30, periodSeconds: 60, timeoutSeconds: 10 },
                  resources: { requests: { cpu: "10m", memory: "64Mi" }, limits: { memory: "256Mi" } },
                  securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] }, seccompProfile: { type: "RuntimeDefault" } },
                },
              ],
            },
          },
        },
      },
      { ...parent, dependsOn: [clusterBinding, binding] },
    ));
  }
}
