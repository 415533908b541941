import * as command from "@pulumi/command";
import type * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import type { Place } from "./place";

/** The cluster, as a command is told of it. */
export interface SaveFirstArgs {
  /** Kubeconfig file of the cluster. Default: $KUBECONFIG, else ~/.kube/config. */
  kubeconfig?: string;
  /** Context of the kubeconfig. */
  context: string;
}

/** ConfigMap of `npm run rollback`: while it is there, its `image` is the controller's. */
export const heldName = "jenkins-held";

/**
 * Has the home saved right before the controller gets another image: a newer Jenkins may write files that the older one cannot read.
 * What the running one would notice comes after it. It runs when the image changes, and fails where the home cannot be saved.
 */
export function makeSaveFirst({ name, parent, here }: Place, { kubeconfig, context }: SaveFirstArgs, pod: pulumi.Input<k8s.types.output.core.v1.PodSpec>, dependsOn: pulumi.Resource[]): pulumi.Resource {
  const image = pulumi.output(pod).apply(({ containers }) => containers.find((each) => each.name === "jenkins")!.image);
  return new command.local.Command(
    `${name}-save-first`,
    {
      create: 'node --import tsx cli/backup/index.ts backup --before "$IMAGE" --context "$CONTEXT" --namespace "$NAMESPACE" ${KUBECONFIG_FILE:+--kubeconfig "$KUBECONFIG_FILE"}',
      environment: { IMAGE: image, CONTEXT: context, NAMESPACE: here, ...(kubeconfig && { KUBECONFIG_FILE: kubeconfig }) },
      logging: command.local.Logging.Stderr,
      addPreviousOutputInEnv: false,
    },
    // As long as a backup may take.
    { ...parent, dependsOn, customTimeouts: { create: "12h", update: "12h" } },
  );
}
