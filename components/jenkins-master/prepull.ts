import * as k8s from "@pulumi/kubernetes";
import type * as pulumi from "@pulumi/pulumi";
import { partOf } from "../ownership";
import type { Registration } from "../transform";
import { agentPod, agentUser, type AgentTemplate } from "./agents";
import type { AgentsArgs } from "./args";
import type { Place } from "./place";

interface Container {
  image: pulumi.Input<string>;
}
type Placement = Pick<k8s.types.input.core.v1.PodSpec, "nodeSelector" | "tolerations" | "affinity">;

/**
 * DaemonSets that hold the agents' images on each node where these may run, one for all templates of one placement: a container of each
 * image sleeps, so that the kubelet pulls it, and does not clear it away. They follow the digests like the templates. Nobody waits for
 * them: a node that cannot pull keeps neither `up` nor the other nodes.
 */
export function prepullObjects({ name, parent, there }: Place, { settings, templates }: AgentsArgs): Registration<k8s.apps.v1.DaemonSetArgs>[] {
  const groups = new Map<string, { first: string; placement: Placement; images: Set<pulumi.Input<string>> }>();
  for (const template of templates.filter(({ prepull }) => prepull)) {
    const { containers, initContainers = [], nodeSelector, tolerations, affinity } = (agentPod(template as AgentTemplate, settings) as { spec: Placement & { containers: Container[]; initContainers?: Container[] } }).spec;
    const placement = { ...(nodeSelector && { nodeSelector }), ...(tolerations && { tolerations }), ...(affinity && { affinity }) };
    const group = groups.get(JSON.stringify(placement)) ?? { first: template.name, placement, images: new Set() };
    for (const { image } of [...initContainers, ...containers]) group.images.add(image);
    groups.set(JSON.stringify(placement), group);
  }
  return [...groups.values()].map(({ first, placement, images }) => {
    const labels = { "app.kubernetes.io/name": "agent-images", "app.kubernetes.io/component": first, ...partOf };
    return [
      `${name}-agent-images-${first}`,
      {
        metadata: { name: `agent-images-${first}`, namespace: there, labels, annotations: { "pulumi.com/skipAwait": "true" } },
        spec: {
          selector: { matchLabels: labels },
          updateStrategy: { type: "RollingUpdate", rollingUpdate: { maxUnavailable: "100%" } },
          template: {
            metadata: { labels },
            spec: {
              ...placement,
              ...(settings.priorityClassName && { priorityClassName: settings.priorityClassName }),
              serviceAccountName: "jenkins-agent",
              automountServiceAccountToken: false,
              enableServiceLinks: false,
              terminationGracePeriodSeconds: 1,
              securityContext: { runAsUser: agentUser, runAsGroup: agentUser, runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
              containers: [...images].map((image, i) => ({
                name: `image-${i}`,
                image,
                command: ["/bin/sh", "-c", "exec sleep 2147483647"],
                resources: { requests: { cpu: "1m", memory: "2Mi" }, limits: { memory: "32Mi" } },
                securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } },
              })),
            },
          },
        },
      },
      parent,
    ];
  });
}
