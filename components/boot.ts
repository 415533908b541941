import type { V1Container, V1PodSpec } from "@kubernetes/client-node";

/** What a Jenkins runs at its start that only shows whether it comes up: no build starts. Groovy without single quotes. */
export const quietHook = "hudson.model.Hudson.instance.doQuietDown()";

/** As whom every pod runs that mounts a home: the user jenkins of its image, which owns the files. */
export const homeSecurity = {
  runAsUser: 1000,
  runAsGroup: 1000,
  runAsNonRoot: true,
  fsGroup: 1000,
  // A home of many files is not walked at every start.
  fsGroupChangePolicy: "OnRootMismatch",
  seccompProfile: { type: "RuntimeDefault" },
};

/**
 * What a pod that only boots the controller has from the controller's own: all of the pod's fields but its rights, its way before
 * others and the node's network, Jenkins' container, and what runs before it. What runs beside Jenkins for as long as it does has nothing to do there.
 */
export function bootParts({ containers, initContainers = [], volumes = [], priorityClassName: _, hostNetwork: __, ...spec }: V1PodSpec) {
  return {
    spec: { ...spec, automountServiceAccountToken: false, restartPolicy: "Never" },
    jenkins: containers.find(({ name }) => name === "jenkins")!,
    before: initContainers.filter(({ restartPolicy }) => restartPolicy !== "Always"),
    volumes,
  };
}

/** Where Jenkins has its login page: below the prefix that it is started with, whatever its probes ask for. */
export const loginPath = ({ env = [] }: Pick<V1Container, "env">): string => `${/(?:^|\s)--prefix=(\S*)/.exec(env.find(({ name }) => name === "JENKINS_OPTS")?.value ?? "")?.[1] ?? ""}/login`;

/** Keeps a pod to nodes of these architectures. */
export const onArchitectures = (values: string[]) => ({
  nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [{ matchExpressions: [{ key: "kubernetes.io/arch", operator: "In", values }] }] } },
});
