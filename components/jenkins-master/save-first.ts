import * as command from "@pulumi/command";
import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { isLater } from "../patches";
import type { Registration } from "../transform";
import type { Place } from "./place";

/** The cluster, as a command is told of it. */
export interface SaveFirstArgs {
  /** Kubeconfig file of the cluster. Default: $KUBECONFIG, else ~/.kube/config. */
  kubeconfig?: string;
  /** Context of the kubeconfig. */
  context: string;
}

/** What the cluster has of the controller, whatever Pulumi's state says of it. */
export interface RunningController {
  /** Image of its Deployment. */
  image: string;
  /** Mark of the change that brought it. */
  change?: string;
}

/** ConfigMap of `npm run rollback`: while it is there, its `image` is the controller's. */
export const heldName = "jenkins-held";
/** Annotation of the controller's Deployment with the mark of its image's last change. */
export const changeAnnotation = "build-platform/image-change";

export const imageOf = (pod: pulumi.Input<k8s.types.output.core.v1.PodSpec>): pulumi.Output<string> => pulumi.output(pod).apply(({ containers }) => containers.find(({ name }) => name === "jenkins")!.image);

/**
 * Mark of the change to `image`: a new one for as long as the cluster has another image, so that an update that failed, or a rollback that
 * Pulumi knows nothing of, is followed by a new snapshot and by the image; then the one that the cluster has, so that nothing changes.
 */
export const imageChange = (image: string, running: RunningController, now = new Date()): string | undefined => (image === running.image ? running.change : now.toISOString());

/** The controller's Deployment with that mark, which makes it one to update. */
export function marked([name, args, opts]: Registration<k8s.apps.v1.DeploymentArgs>, change: pulumi.Output<string | undefined>): Registration<k8s.apps.v1.DeploymentArgs> {
  const mark = (metadata: k8s.types.input.meta.v1.ObjectMeta = {}) => ({
    ...metadata,
    annotations: pulumi.all([metadata.annotations, change]).apply(([own, at]) => (at === undefined ? own : { ...own, [changeAnnotation]: at })) as pulumi.Output<Record<string, string>>,
  });
  return [name, { ...args, metadata: isLater(args.metadata) ? pulumi.output(args.metadata!).apply((known) => mark(known as k8s.types.input.meta.v1.ObjectMeta)) : mark(args.metadata as k8s.types.input.meta.v1.ObjectMeta) }, opts];
}

/**
 * Has the home saved right before the controller gets another image: a newer Jenkins may write files that the older one cannot read.
 * What the running one would notice comes after it. It runs when the image changes, and fails where the home cannot be saved.
 * @param change mark of the image's change
 */
export function makeSaveFirst({ name, parent, here }: Place, { kubeconfig, context }: SaveFirstArgs, image: pulumi.Output<string>, change: pulumi.Output<string | undefined>, dependsOn: pulumi.Resource[]): pulumi.Resource {
  return new command.local.Command(
    `${name}-save-first`,
    {
      create: 'node --import tsx cli/backup/index.ts backup --before "$IMAGE" --context "$CONTEXT" --namespace "$NAMESPACE" ${KUBECONFIG_FILE:+--kubeconfig "$KUBECONFIG_FILE"}',
      environment: pulumi.all([image, here, change]).apply(([to, namespace, at]) => ({ IMAGE: to, CONTEXT: context, NAMESPACE: namespace, ...(at !== undefined && { CHANGE: at }), ...(kubeconfig && { KUBECONFIG_FILE: kubeconfig }) }) as Record<string, string>),
      logging: command.local.Logging.Stderr,
      addPreviousOutputInEnv: false,
    },
    // As long as a backup may take.
    { ...parent, dependsOn, customTimeouts: { create: "12h", update: "12h" } },
  );
}
