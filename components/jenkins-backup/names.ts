import { partOf } from "../ownership";

/** Names that `npm run backup`, `backups`, `restore` and `failover` rely on. */
export const names = {
  backup: "jenkins-backup",
  verify: "jenkins-backup-verify",
  status: "jenkins-backup-status",
  scripts: "jenkins-backup-scripts",
  standby: "jenkins-standby",
  standbyClaim: "jenkins-home-standby",
  failover: "jenkins-failover",
} as const;

/** The node that a claim's volume is made on, set by whoever wants to have a say before a pod does. */
export const selectedNode = "volume.kubernetes.io/selected-node";

/** Of every object of the backup. */
export const labels = { "app.kubernetes.io/name": names.backup, ...partOf };
/** Of the pods that save the home: no two of them run at once, whoever started them. */
export const saverLabels = { ...labels, "app.kubernetes.io/component": "saver" };
export const standbyLabels = { ...labels, "app.kubernetes.io/component": "standby" };
export const verifierLabels = { ...labels, "app.kubernetes.io/component": "verifier" };
