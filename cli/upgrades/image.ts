import type { V1PodSpec } from "@kubernetes/client-node";

/** The pod of the running controller with another image wherever it has its own. */
export function withImage(pod: V1PodSpec, image: string): V1PodSpec {
  const own = pod.containers.find(({ name }) => name === "jenkins")!.image;
  const led = <T extends { image?: string }>(each: T): T => (each.image === own ? { ...each, image } : each);
  return { ...pod, containers: pod.containers.map(led), ...(pod.initContainers && { initContainers: pod.initContainers.map(led) }) };
}
