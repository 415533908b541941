import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { cacheGi, dockerGi } from "../../config/pieces";
import { partOf } from "../ownership";
import type { Registration } from "../transform";
import { type AgentTemplate, agentUser } from "./agents";
import type { AgentsArgs } from "./args";
import { cacheKeeperScript, gradleKeeperScript } from "./cache";
import { dockerKeeperScript } from "./docker-cache";
import { keepsDocker } from "./docker";
import { gitFolders, gitKeeperScript } from "./git-cache";
import { agentsPodSecurity } from "./namespaces";
import type { Place } from "./place";
import { toolFolders } from "./tool-cache";

const keeperLabels = { "app.kubernetes.io/name": "agent-cache", ...partOf };

/** What keeps the shared caches on every node, where there are any. A namespace is restricted where no template has one, and would refuse its pods. */
export function cacheKeeperObject({ name, parent, there }: Place, { cache, settings, templates }: AgentsArgs): Registration<k8s.apps.v1.DaemonSetArgs> | undefined {
  if (settings.cachePath === undefined || cache === undefined || agentsPodSecurity(templates as AgentTemplate[], settings.cachePath, settings.pods) === "restricted") return undefined;
  const gradle = templates.some(({ caches }) => caches.includes("gradle"));
  // The keeper goes where agents may that need it; those with Maven's and Gradle's alone get along as ever.
  const tolerations = [...new Map(templates.filter((template) => toolFolders([template]).length + gitFolders([template]).length > 0 || keepsDocker(template)).flatMap((template) => template.tolerations.map((each) => [JSON.stringify(each), each]))).values()];
  return [
    `${name}-agent-cache`,
    {
      metadata: { name: "agent-cache", namespace: there, labels: keeperLabels },
      spec: {
        selector: { matchLabels: keeperLabels },
        template: {
          metadata: { labels: keeperLabels },
          spec: {
            serviceAccountName: "jenkins-agent",
            automountServiceAccountToken: false,
            enableServiceLinks: false,
            terminationGracePeriodSeconds: 5,
            ...(tolerations.length > 0 && { tolerations }),
            containers: [
              {
                name: "keeper",
                image: cache.keeperImage,
                command: ["/bin/sh", "-c", cacheKeeperScript(toolFolders(templates), gitFolders(templates))],
                env: [
                  { name: "CACHE", value: "/cache" },
                  { name: "MAX_KIB", value: String((cache.maxGi ?? cacheGi.usual) * 1024 * 1024) },
                  { name: "OWNER", value: String(agentUser) },
                ],
                resources: { requests: { cpu: "10m", memory: "32Mi" }, limits: { memory: "256Mi" } },
                readinessProbe: { exec: { command: ["test", "-d", "/cache/maven/repository"] }, periodSeconds: 2 },
                securityContext: {
                  // Folders the kubelet makes on a node belong to root; only their owner is set here.
                  runAsUser: 0,
                  runAsNonRoot: false,
                  allowPrivilegeEscalation: false,
                  readOnlyRootFilesystem: true,
                  capabilities: { drop: ["ALL"], add: ["CHOWN", "DAC_OVERRIDE", "FOWNER"] },
                  seccompProfile: { type: "RuntimeDefault" },
                },
                volumeMounts: [{ name: "cache", mountPath: "/cache" }],
              },
              ...(gradle ? [gradleKeeper(cache.keeperImage)] : []),
              ...(gitFolders(templates).length > 0 ? [gitKeeper(cache.keeperImage, cache.maxGi ?? cacheGi.usual, gitFolders(templates))] : []),
              ...(templates.some(keepsDocker) ? [dockerKeeper(cache.keeperImage, cache.dockerGi ?? dockerGi.usual)] : []),
            ],
            volumes: [{ name: "cache", hostPath: { path: settings.cachePath, type: "DirectoryOrCreate" } }],
          },
        },
      },
    },
    parent,
  ];
}

/** Takes over what agents with Gradle offer. */
const gradleKeeper = (image: pulumi.Input<string>) =>
  offersKeeper("gradle", image, gradleKeeperScript, { CACHE: "/cache/gradle", OFFERS: "/cache/gradle-offers", INTERVAL: "5" }, "/cache/gradle/generations", "256Mi");

/** Takes over what agents' git offers; of a large repository git takes memory to compute its objects' names. */
const gitKeeper = (image: pulumi.Input<string>, maxGi: number, [folder]: string[]) =>
  offersKeeper("git", image, gitKeeperScript, { CACHE: "/cache/git", MAX_KIB: String(maxGi * 1024 * 1024), INTERVAL: "5" }, `/cache/${folder}`, "1Gi");

/** A keeper of what agents offer: as their user, without any right of its own. */
function offersKeeper(name: string, image: pulumi.Input<string>, script: string, env: Record<string, string>, folder: string, memory: string): k8s.types.input.core.v1.Container {
  return {
    name,
    image,
    command: ["/bin/bash", "-c", script],
    env: Object.entries(env).map(([variable, value]) => ({ name: variable, value })),
    resources: { requests: { cpu: "5m", memory: "16Mi" }, limits: { memory } },
    // Its folders are the keeper's to make.
    startupProbe: { exec: { command: ["test", "-w", folder] }, periodSeconds: 1, failureThreshold: 120 },
    securityContext: {
      runAsUser: agentUser,
      runAsGroup: agentUser,
      runAsNonRoot: true,
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ["ALL"] },
      seccompProfile: { type: "RuntimeDefault" },
    },
    volumeMounts: [{ name: "cache", mountPath: "/cache" }],
  };
}

/** Throws away what agents' Docker daemons left, beyond its bound: layers belong to users of all kinds, so it is root with what that takes. */
function dockerKeeper(image: pulumi.Input<string>, maxGi: number): k8s.types.input.core.v1.Container {
  return {
    name: "docker",
    image,
    command: ["/bin/bash", "-c", dockerKeeperScript],
    env: [
      { name: "CACHE", value: "/cache" },
      { name: "MAX_KIB", value: String(maxGi * 1024 * 1024) },
      { name: "INTERVAL", value: "600" },
    ],
    resources: { requests: { cpu: "5m", memory: "16Mi" }, limits: { memory: "256Mi" } },
    securityContext: {
      runAsUser: 0,
      runAsNonRoot: false,
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ["ALL"], add: ["DAC_OVERRIDE", "FOWNER"] },
      seccompProfile: { type: "RuntimeDefault" },
    },
    volumeMounts: [{ name: "cache", mountPath: "/cache" }],
  };
}
