import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { ownLabels } from "../ownership";
import type { AgentTemplate, PodRules } from "./agents";
import type { JenkinsMasterArgs } from "./args";
import { labels, namespacesOf, type Place } from "./place";

/**
 * The Pod Security level the agents' namespace can be held to:
 * docker sidecars, hostPath caches and what config allows pipelines of both need the open one.
 */
export function agentsPodSecurity(templates: AgentTemplate[], cachePath?: string, pods?: PodRules): "privileged" | "restricted" {
  const further = pods !== undefined && pods.privilegedImages.length + pods.hostPaths.length > 0;
  const open = further || templates.some((t) => t.docker !== "none" || (cachePath !== undefined && t.caches.some((tool) => tool !== "docker" && tool !== "gradle-build")));
  return open ? "privileged" : "restricted";
}

/** Both namespaces, each as strict as what runs in it allows. */
export function makeNamespaces(parent: pulumi.Resource, name: string, args: JenkinsMasterArgs): Place {
  const namespaces = namespacesOf(args);
  const namespace = (part: string, objectName: string, further: Record<string, string>) =>
    new k8s.core.v1.Namespace(`${name}-${part}`, { metadata: { name: objectName, labels: { ...labels, ...ownLabels(), ...further } } }, { parent }).metadata.name;
  return {
    name,
    parent: { parent },
    here: namespace("namespace", namespaces.controller, { ...args.namespaceLabels, "pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted" }),
    there: namespace("agents-namespace", namespaces.agents, { "pod-security.kubernetes.io/enforce": agentsPodSecurity(args.agents.templates as AgentTemplate[], args.agents.settings.cachePath, args.agents.settings.pods) }),
  };
}
