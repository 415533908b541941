import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { homeFence, JenkinsBackup, startFrom, type ResticArgs } from "../../components/jenkins-backup";
import { afterFirst } from "../../components/jenkins-master";

/**
 * What the tests of the backup need of the platform: the controller with its volume under the platform's own names,
 * and the JenkinsBackup component. Without a JCasC document the controller builds jobs itself, so that builds are
 * quick and many.
 */
const config = new pulumi.Config();
const namespace = new k8s.core.v1.Namespace("namespace", { metadata: { name: config.require("namespace"), labels: { "pod-security.kubernetes.io/enforce": "restricted" } } });
const here = namespace.metadata.name;
const labels = { "app.kubernetes.io/name": "jenkins", "app.kubernetes.io/component": "controller" };

new k8s.core.v1.ServiceAccount("account", { metadata: { name: "jenkins", namespace: here } });
const base64 = (text: string) => Buffer.from(text).toString("base64");
const admin = new k8s.core.v1.Secret("admin", { metadata: { name: "jenkins-admin", namespace: here }, data: { "admin-user": base64("admin"), "admin-password": base64("admin-of-the-bed") } });
const home = new k8s.core.v1.PersistentVolumeClaim(
  "home",
  {
    metadata: { name: "jenkins-home", namespace: here, labels: { bed: "yes" } },
    spec: { accessModes: ["ReadWriteOnce"], storageClassName: "openebs-hostpath", resources: { requests: { storage: "2Gi" } } },
  },
  { protect: config.getBoolean("protect") ?? false },
);

const pod: k8s.types.input.core.v1.PodSpec = {
  serviceAccountName: "jenkins",
  enableServiceLinks: false,
  terminationGracePeriodSeconds: 20,
  securityContext: { runAsUser: 1000, runAsGroup: 1000, runAsNonRoot: true, fsGroup: 1000, fsGroupChangePolicy: "OnRootMismatch", seccompProfile: { type: "RuntimeDefault" } },
  ...(config.get("standby") && { initContainers: [homeFence(config.require("controllerImage"))] }),
  containers: [
    {
      name: "jenkins",
      image: config.require("controllerImage"),
      env: [{ name: "SECRETS", value: "/run/secrets/jenkins" }, { name: "JAVA_OPTS", value: "-Djenkins.install.runSetupWizard=false -XX:MaxRAMPercentage=50.0" }],
      ports: [{ name: "http", containerPort: 8080, protocol: "TCP" }],
      resources: { requests: { cpu: "50m", memory: "256Mi" }, limits: { memory: "1Gi" } },
      readinessProbe: { httpGet: { path: "/login", port: "http" }, periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 3 },
      securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } },
      volumeMounts: [
        { name: "home", mountPath: "/var/jenkins_home" },
        { name: "admin", mountPath: "/run/secrets/jenkins", readOnly: true },
        { name: "cache", mountPath: "/var/cache/jenkins" },
        { name: "tmp", mountPath: "/tmp" },
      ],
    },
  ],
  volumes: [
    { name: "home", persistentVolumeClaim: { claimName: home.metadata.name } },
    { name: "admin", secret: { secretName: admin.metadata.name } },
    { name: "cache", emptyDir: {} },
    { name: "tmp", emptyDir: {} },
  ],
};
const restic: ResticArgs = {
  image: config.require("resticImage"),
  repository: config.require("repository"),
  password: pulumi.secret("password of the bed's home"),
  keysRepository: config.require("keysRepository"),
  keysPassword: pulumi.secret("password of the bed's keys"),
  environment: config.getObject<Record<string, string>>("environment"),
  ...(config.get("sshKey") && { ssh: { privateKey: config.requireSecret("sshKey"), knownHosts: config.require("knownHosts") } }),
  keep: { last: 20, daily: 7, weekly: 4, monthly: 6 },
  checkParts: 1,
};
const from = config.get("startFrom");
const spec = from ? afterFirst(pod, startFrom(restic, from)) : pod;
new k8s.apps.v1.Deployment(
  "controller",
  { metadata: { name: "jenkins", namespace: here, labels }, spec: { replicas: 1, strategy: { type: "Recreate" }, selector: { matchLabels: labels }, template: { metadata: { labels }, spec } } },
  { customTimeouts: { create: "15m", update: "15m" } },
);

const standby = config.get("standby");
new JenkinsBackup("backup", { ...restic, namespace: here, homeClaim: home.metadata.name, controllerPod: pod, ...(standby && { standby: { node: standby, storageClassName: "openebs-hostpath", size: "2Gi" } }) });
