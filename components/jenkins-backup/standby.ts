import type { V1PodSpec } from "@kubernetes/client-node";
import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { canonicalQuantity } from "../quantity";
import type { JenkinsBackupArgs } from "./args";
import { names, selectedNode, standbyLabels } from "./names";
import { basePod, memoryLimit, reportContainer, tokenVolume } from "./pods";
import { resticContainer } from "./restic";

type PodSpec = k8s.types.input.core.v1.PodSpec;
type Container = k8s.types.input.core.v1.Container;
type EnvVar = k8s.types.input.core.v1.EnvVar;
type VolumeMount = k8s.types.input.core.v1.VolumeMount;

/**
 * Holds the lock of the home's volume for as long as Jenkins runs beside it: the kubelet starts it before and ends it after the
 * containers of the pod. So on the volume's node neither a second controller nor a standby ever writes to a home that is in use,
 * whatever the cluster knows of the first, and Jenkins never starts on a volume that is a standby. See scripts/backup/standby.sh.
 * @param image the controller's, for its bash and flock
 */
export function homeFence(image: pulumi.Input<string>): Container {
  const script = [
    "set -u; rm -f /tmp/.home-fence",
    "exec 9>>/var/jenkins_home/.home-fence",
    'flock -n 9 || { echo "this home is still written to, by a controller that has not ended or by what fills a standby; waiting for its end"; flock 9; }',
    'if [ -e /var/jenkins_home/.standby ]; then echo "this volume is a standby, not the home: npm run failover -- STACK goes on with a failover, and makes a home of it" >&2; exit 1; fi',
    "trap 'exit 0' TERM; : >/tmp/.home-fence",
    "while :; do sleep 3600 9>&- & wait $!; done",
  ].join("\n");
  return {
    name: "home-fence",
    image,
    command: ["/bin/bash", "-c", script],
    restartPolicy: "Always",
    // Jenkins starts when it has the lock: as long as that takes.
    startupProbe: { exec: { command: ["test", "-e", "/tmp/.home-fence"] }, periodSeconds: 1, failureThreshold: 86400 },
    resources: { requests: { cpu: "1m", memory: "8Mi" }, limits: { memory: "32Mi" } },
    terminationMessagePolicy: "FallbackToLogsOnError",
    securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } },
    volumeMounts: [{ name: "home", mountPath: "/var/jenkins_home" }, { name: "tmp", mountPath: "/tmp" }],
  };
}

/** The pod that brings the standby up to date: one container looks every few seconds whether there is a newer snapshot, the other publishes what became of it. */
export function standbyPod(args: Omit<JenkinsBackupArgs, "controllerPod">, controller: { image: pulumi.Input<string>; tolerations?: pulumi.Input<pulumi.Input<k8s.types.input.core.v1.Toleration>[]> }): PodSpec {
  const pod = basePod(args);
  // A failed update is told, and begun again a minute later. The end comes at once: a restore that is cut off is begun again as well.
  const loop = (work: string) => `trap 'kill $! 2>/dev/null; exit 0' TERM\nwhile :; do\n${work}\nsleep 5 & wait $!\ndone`;
  const restic = resticContainer(args, ["/bin/sh", "-c", loop("sh /scripts/home.sh standby /standby & wait $! || { sleep 55 & wait $!; }")]);
  const report = reportContainer(controller.image, loop("if ! cmp -s /scratch/result.json /tmp/told.json && [ -s /scratch/result.json ]; then cp /scratch/result.json /tmp/telling.json; RESULT_FILE=/tmp/telling.json sh /scripts/report.sh standby && mv /tmp/telling.json /tmp/told.json; fi"));
  return {
    ...pod,
    restartPolicy: "Always",
    ...(controller.tolerations && { tolerations: controller.tolerations }),
    containers: [
      { ...restic, env: [...(restic.env as EnvVar[]), memoryLimit], volumeMounts: [...(restic.volumeMounts as VolumeMount[]), { name: "standby", mountPath: "/standby" }] },
      report,
    ],
    volumes: [...pod.volumes, tokenVolume, { name: "standby", persistentVolumeClaim: { claimName: names.standbyClaim } }],
  };
}

/** The second volume, and what follows the snapshots in it. */
export function makeStandby(name: string, args: JenkinsBackupArgs, standby: NonNullable<JenkinsBackupArgs["standby"]>, controllerPod: pulumi.Output<PodSpec>, options: pulumi.CustomResourceOptions): void {
  const claim = new k8s.core.v1.PersistentVolumeClaim(
    `${name}-standby-claim`,
    {
      metadata: { name: names.standbyClaim, namespace: args.namespace, labels: standbyLabels, annotations: { [selectedNode]: standby.node, "pulumi.com/skipAwait": "true" } },
      spec: { accessModes: ["ReadWriteOnce"], storageClassName: standby.storageClassName, resources: { requests: { storage: canonicalQuantity(standby.size) } } },
    },
    // Once made it is never replaced: after a failover it holds the former home.
    { ...options, ignoreChanges: ["spec"] },
  );
  const controller = controllerPod.apply((pod) => pod as unknown as V1PodSpec);
  const image = controller.apply(({ containers }) => containers.find((each) => each.name === "jenkins")!.image!);
  const tolerations = controller.apply((pod) => pod.tolerations ?? []);
  new k8s.apps.v1.Deployment(
    `${name}-standby`,
    {
      // Its node may be gone, after a failover above all: the rest of the platform does not wait for it.
      metadata: { name: names.standby, namespace: args.namespace, labels: standbyLabels, annotations: { "pulumi.com/skipAwait": "true" } },
      spec: {
        replicas: 1,
        strategy: { type: "Recreate" },
        selector: { matchLabels: standbyLabels },
        template: { metadata: { labels: standbyLabels }, spec: standbyPod(args, { image, tolerations }) },
      },
    },
    { ...options, dependsOn: [...([options.dependsOn ?? []].flat() as pulumi.Resource[]), claim] },
  );
}
