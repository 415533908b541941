import type { V1PodSpec } from "@kubernetes/client-node";
import type * as k8s from "@pulumi/kubernetes";
import type * as pulumi from "@pulumi/pulumi";
import { bootParts, homeSecurity, loginPath, restoreCopy } from "../boot";
import { type JenkinsBackupArgs, type ResticArgs, usualUpkeepDays } from "./args";
import { canonicalQuantity, scratch } from "../quantity";
import { names, saverLabels, verifierLabels } from "./names";
import { resticContainer, resticVolumes } from "./restic";

type PodSpec = k8s.types.input.core.v1.PodSpec;
type EnvVar = k8s.types.input.core.v1.EnvVar;
type Container = k8s.types.input.core.v1.Container;
type Volume = k8s.types.input.core.v1.Volume;
type VolumeMount = k8s.types.input.core.v1.VolumeMount;

/** What every pod of the backup has, held to Pod Security level `restricted`. */
export function basePod(args: ResticArgs): Omit<PodSpec, "volumes"> & { volumes: Volume[] } {
  return {
    restartPolicy: "Never",
    serviceAccountName: names.backup,
    automountServiceAccountToken: false,
    enableServiceLinks: false,
    terminationGracePeriodSeconds: 10,
    securityContext: homeSecurity,
    containers: [],
    volumes: resticVolumes(args),
  };
}

/** The container that publishes a result; it alone holds a token. */
export function reportContainer(image: pulumi.Input<string>, command: string, further: VolumeMount[] = []): Container {
  return {
    name: "report",
    image,
    command: ["/bin/sh", "-c", command],
    env: [{ name: "RESULT_FILE", value: "/scratch/result.json" }],
    resources: { requests: { cpu: "10m", memory: "32Mi" }, limits: { memory: "128Mi" } },
    securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } },
    volumeMounts: [
      { name: "scripts", mountPath: "/scripts", readOnly: true },
      { name: "work", mountPath: "/scratch" },
      { name: "tmp", mountPath: "/tmp" },
      { name: "token", mountPath: "/var/run/secrets/kubernetes.io/serviceaccount", readOnly: true },
      ...further,
    ],
  };
}

/** The container's limit in bytes, with the API server's own default; the node's memory where there is no limit. */
export const memoryLimit: EnvVar = { name: "MEMORY_LIMIT", valueFrom: { resourceFieldRef: { resource: "limits.memory", divisor: "0" } } };

export const tokenVolume: Volume = {
  name: "token",
  projected: {
    defaultMode: 0o440,
    sources: [
      { serviceAccountToken: { path: "token", expirationSeconds: 3600 } },
      { configMap: { name: "kube-root-ca.crt", items: [{ key: "ca.crt", path: "ca.crt" }] } },
      { downwardAPI: { items: [{ path: "namespace", fieldRef: { apiVersion: "v1", fieldPath: "metadata.namespace" } }] } },
    ],
  },
};

/** The pod that saves the home: restic first, then the report, which ends with the result's exit code. */
export function saverPod(args: Omit<JenkinsBackupArgs, "controllerPod">, controllerImage: pulumi.Input<string>): PodSpec {
  const pod = basePod(args);
  // A failed backup is a result too: it is the report that fails the job, once people can see why.
  const restic = resticContainer(args, ["/bin/sh", "-c", "sh /scripts/home.sh backup || true"]);
  return {
    ...pod,
    // The volume is on one node, and so is every pod that saves it: the second one waits until the first is done.
    affinity: {
      podAntiAffinity: {
        requiredDuringSchedulingIgnoredDuringExecution: [{ topologyKey: "kubernetes.io/hostname", labelSelector: { matchLabels: saverLabels } }],
      },
    },
    initContainers: [
      {
        ...restic,
        env: [...(restic.env as EnvVar[]), memoryLimit, { name: "UPKEEP_DAYS", value: String(args.upkeepDays ?? usualUpkeepDays) }],
        volumeMounts: [...(restic.volumeMounts as VolumeMount[]), { name: "home", mountPath: "/var/jenkins_home", readOnly: true }],
      },
    ],
    containers: [reportContainer(controllerImage, "exec sh /scripts/report.sh backup")],
    volumes: [...pod.volumes, tokenVolume, { name: "home", persistentVolumeClaim: { claimName: args.homeClaim, readOnly: true } }],
  };
}

/** Where the copy lies: room that goes with the pod. */
function copyVolume({ storageClassName, size }: Partial<NonNullable<JenkinsBackupArgs["verifyVolume"]>> = {}): Omit<Volume, "name"> {
  if (storageClassName === undefined) return scratch(size);
  return { ephemeral: { volumeClaimTemplate: { metadata: { labels: verifierLabels }, spec: { accessModes: ["ReadWriteOnce"], storageClassName, resources: { requests: { storage: canonicalQuantity(size!) } } } } } };
}

/**
 * The pod that proves a snapshot: restored into scratch space, the controller itself boots on the copy, and a third
 * container compares what it lists with what is on the disk. The copy starts nothing: it is in quiet mode, has no
 * queue, no agents and no cloud, and the cluster's API does not know it.
 */
export function verifierPod(args: Omit<JenkinsBackupArgs, "controllerPod">, controllerPod: V1PodSpec): PodSpec {
  const pod = basePod(args);
  const { spec, jenkins, before, volumes } = bootParts(controllerPod);
  const prefix = loginPath(jenkins).replace(/\/login$/, "");
  const restic = resticContainer(args, ["/bin/sh", "-c", restoreCopy]);
  const check = [
    "set -u; state=failed; items=$(grep -c '^item' /scratch/inventory 2>/dev/null); builds=$(grep -c '^build' /scratch/inventory 2>/dev/null)",
    'if [ ! -e /scratch/restored ]; then message=$(tail -n 2 /scratch/log | tr \'\\n\' \' \'); elif message=$(sh /scripts/controller-check.sh /scratch/inventory 900 2>&1); then state=ok; fi',
    'message=$(printf %s "$message" | tr -d \'"\\\\\' | tr \'\\n\\t\' \'  \' | cut -c 1-600)',
    'printf \'{"status":"%s","time":"%s","seconds":%d,"snapshot":"%s","items":%d,"builds":%d,"message":"%s"}\\n\' $state "$(date -u +%Y-%m-%dT%H:%M:%SZ)" $(($(date +%s) - $(cat /scratch/started))) "$(sed -n \'s/.*restoring snapshot //p\' /scratch/log)" "${items:-0}" "${builds:-0}" "$message" >/scratch/result.json',
    "exec sh /scripts/report.sh verify",
  ].join("\n");
  const report = reportContainer(jenkins.image!, check, [{ name: "admin", mountPath: "/run/secrets/jenkins", readOnly: true }]);
  return {
    ...pod,
    ...spec,
    serviceAccountName: pod.serviceAccountName,
    terminationGracePeriodSeconds: pod.terminationGracePeriodSeconds,
    initContainers: [
      { ...restic, env: [...(restic.env as EnvVar[]), memoryLimit], volumeMounts: [...(restic.volumeMounts as VolumeMount[]), { name: "home", mountPath: "/var/jenkins_home" }] },
      ...before,
      // A sidecar: it ends when the check has ended. A copy that does not boot is the check's finding, not a crash loop.
      { ...jenkins, restartPolicy: "Always", startupProbe: undefined, livenessProbe: undefined, readinessProbe: undefined },
    ],
    containers: [prefix === "" ? report : { ...report, env: [...(report.env as EnvVar[]), { name: "JENKINS_URL_LOCAL", value: `http://127.0.0.1:8080${prefix}` }] }],
    volumes: [
      ...pod.volumes.filter((volume) => !volumes.some(({ name }) => name === volume.name)),
      tokenVolume,
      ...(volumes.filter(({ name }) => name !== "home") as Volume[]),
      { name: "home", ...copyVolume(args.verifyVolume) },
    ],
  };
}
