import { createHash } from "node:crypto";
import type { V1ConfigMap, V1Container, V1Job, V1NetworkPolicy, V1PodSpec, V1ResourceRequirements, V1Secret, V1Volume } from "@kubernetes/client-node";
import * as command from "@pulumi/command";
import type * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { bootParts, loginPath, quietHook, restoreCopy } from "../boot";
import { secretData } from "../encoding";
import { partOf } from "../ownership";
import { canonicalResources, quantityMillis, Resources } from "../quantity";
import { controllerLabels, Place } from "./place";

/** How a changed controller is tried before the running one is touched. */
export interface RehearsalArgs {
  /** Kubeconfig file of the cluster. Default: $KUBECONFIG, else ~/.kube/config. */
  kubeconfig?: string;
  /** Context of the kubeconfig. */
  context: string;
  /** Seconds in which the tried Jenkins must have come up, the pull of its image included. */
  timeoutSeconds: number;
  /** Requests of the tried Jenkins, and limits where they are to differ from the controller's. */
  resources: Resources;
}

/** What is tried: the controller's pod, and the content of those ConfigMaps and Secrets of its that are not in the cluster yet, by name. */
export interface Candidate {
  namespace: string;
  pod: V1PodSpec;
  configMaps: Record<string, Record<string, string>>;
  /** Values in base64. */
  secrets: Record<string, Record<string, string>>;
}

/** What a rehearsal makes and removes again. */
export interface RehearsalObjects {
  job: V1Job;
  configMaps: V1ConfigMap[];
  secrets: V1Secret[];
  networkPolicy: V1NetworkPolicy;
}

/** What scripts/rehearsal/rehearse.ts reads from its standard input. */
export interface RehearsalInput extends Pick<RehearsalArgs, "kubeconfig" | "context" | "timeoutSeconds"> {
  namespace: string;
  objects: RehearsalObjects;
}

/** A snapshot's copy in place of the empty home. */
export interface Copy {
  /** The container that restores it by boot.ts' restoreCopy, with home and /scratch mounted. */
  restic: V1Container;
  /** What that container mounts, `home` and `work` among it; where a name is the controller's too, the controller's volume serves both. */
  volumes: V1Volume[];
  /** Snapshot to restore. Default the latest. */
  snapshot?: string;
}

/** Waits, between the restore, which needs a way out, and Jenkins, which must have none, for word that the policy is there. */
export const fenceContainer = "fence";
/** The word: a file that the fence waits for. */
export const fencedFile = "/scratch/fenced";
/** Most seconds that a restore may take before the fence, half of what a backup may. */
export const restoreSeconds = 21_600;

/** Name of the rehearsal's Job and policy; its ConfigMaps and Secrets are named after those that they stand for. */
export const rehearsalName = "jenkins-rehearsal";
/** Shared with nothing that people or agents reach: no Service, policy or budget of the controller holds for a rehearsal. */
export const rehearsalLabels = { "app.kubernetes.io/name": rehearsalName, ...partOf, "app.kubernetes.io/component": "rehearsal" };

const program = "scripts/rehearsal/rehearse.ts";
const stands = (name: string) => `rehearsal-${name}`;
const hash = (content: unknown) => createHash("sha256").update(JSON.stringify(content)).digest("hex");

/**
 * The objects in which a candidate is tried: the same container on an empty home, without rights, agents or a way out. What the
 * candidate refers to beyond its own ConfigMaps and Secrets, such as Secrets of the site's own, is mounted as it is in the cluster.
 */
export function rehearsalObjects({ namespace, pod, configMaps, secrets }: Candidate, { timeoutSeconds, resources }: Pick<RehearsalArgs, "timeoutSeconds" | "resources">): RehearsalObjects {
  const metadata = (name: string) => ({ name, namespace, labels: rehearsalLabels });
  const hooks = stands("hooks");
  const ours = <T extends { name?: string }>(reference: T, known: Record<string, unknown>): T => (reference.name !== undefined && reference.name in known ? { ...reference, name: stands(reference.name) } : reference);

  /** The container with every reference led to what stands for it here. */
  const led = (container: V1Container): V1Container => ({
    ...container,
    ...(container.env && { env: container.env.map(({ valueFrom, ...variable }) => ({ ...variable, ...(valueFrom && { valueFrom: { ...valueFrom, ...(valueFrom.secretKeyRef && { secretKeyRef: ours(valueFrom.secretKeyRef, secrets) }) } }) })) }),
    ...(container.envFrom && {
      envFrom: container.envFrom.map((from) => ({ ...from, ...(from.secretRef && { secretRef: ours(from.secretRef, secrets) }), ...(from.configMapRef && { configMapRef: ours(from.configMapRef, configMaps) }) })),
    }),
  });
  const ledVolume = (volume: V1Volume): V1Volume => ({
    ...volume,
    ...(volume.configMap && { configMap: ours(volume.configMap, configMaps) }),
    ...(volume.secret && { secret: { ...volume.secret, ...(volume.secret.secretName !== undefined && volume.secret.secretName in secrets && { secretName: stands(volume.secret.secretName) }) } }),
    ...(volume.projected && {
      projected: {
        ...volume.projected,
        sources: volume.projected.sources?.map((source) => ({ ...source, ...(source.secret && { secret: ours(source.secret, secrets) }), ...(source.configMap && { configMap: ours(source.configMap, configMaps) }) })),
      },
    }),
    // Jenkins' data stays where it is.
    ...(volume.persistentVolumeClaim && { persistentVolumeClaim: undefined, emptyDir: {} }),
  });

  const { spec: own, jenkins: controller, before, volumes } = bootParts(pod);
  const jenkins: V1Container = {
    ...led(controller),
    resources: smaller(controller.resources ?? {}, resources),
    startupProbe: undefined,
    livenessProbe: undefined,
    // Asked from the node as the controller is. The first good answer ends the rehearsal.
    readinessProbe: { httpGet: { path: loginPath(controller), port: "http" }, periodSeconds: 1, timeoutSeconds: 5 },
    // The image's own way into the home, so that the image's own hooks come along.
    volumeMounts: [...(controller.volumeMounts ?? []), { name: hooks, mountPath: "/usr/share/jenkins/ref/init.groovy.d/00-quiet.groovy", subPath: "00-quiet.groovy", readOnly: true }],
  };
  const initContainers = before.map(led);
  const mounted = new Set([jenkins, ...initContainers].flatMap(({ volumeMounts }) => (volumeMounts ?? []).map(({ name }) => name)));

  const spec: V1PodSpec = {
    ...own,
    terminationGracePeriodSeconds: 1,
    // Beside the controller if there is room: its node then has the image before the controller stops for it.
    affinity: { ...own.affinity, podAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [{ weight: 100, podAffinityTerm: { topologyKey: "kubernetes.io/hostname", labelSelector: { matchLabels: controllerLabels } } }] } },
    ...(initContainers.length > 0 && { initContainers }),
    containers: [jenkins],
    volumes: [...volumes.filter(({ name }) => mounted.has(name)).map(ledVolume), { name: hooks, configMap: { name: hooks } }],
  };
  return plain({
    job: {
      apiVersion: "batch/v1",
      kind: "Job",
      metadata: metadata(rehearsalName),
      spec: {
        // Started when everything is there, and a net for a program that was killed: with the Job goes what it owns.
        suspend: true,
        backoffLimit: 0,
        activeDeadlineSeconds: timeoutSeconds + 60,
        ttlSecondsAfterFinished: 60,
        template: { metadata: { labels: rehearsalLabels }, spec },
      },
    },
    configMaps: [
      ...Object.entries(configMaps).map(([name, data]) => ({ apiVersion: "v1", kind: "ConfigMap", metadata: metadata(stands(name)), data })),
      { apiVersion: "v1", kind: "ConfigMap", metadata: metadata(hooks), data: { "00-quiet.groovy": `${quietHook}\n` } },
    ],
    secrets: Object.entries(secrets).map(([name, data]) => ({ apiVersion: "v1", kind: "Secret", metadata: metadata(stands(name)), data })),
    networkPolicy: {
      apiVersion: "networking.k8s.io/v1",
      kind: "NetworkPolicy",
      metadata: metadata(rehearsalName),
      // Nobody in, nobody out; probes come from the node, which policies let through.
      spec: { podSelector: { matchLabels: rehearsalLabels }, policyTypes: ["Ingress", "Egress"] },
    },
  });
}

/** The same objects under names and labels of their own, so that a rehearsal of an update beside it neither meets nor removes them. */
function renamed(objects: RehearsalObjects): RehearsalObjects {
  const own = new Map([rehearsalName, ...[...objects.configMaps, ...objects.secrets].map(({ metadata }) => metadata!.name!)].map((name) => [name, `${name}-copy`]));
  return JSON.parse(JSON.stringify(objects), (_, value: unknown) => (typeof value === "string" ? (own.get(value) ?? value) : value)) as RehearsalObjects;
}

/** The objects of a rehearsal with a snapshot's copy in place of the empty home. */
export function onCopy(rehearsal: RehearsalObjects, { restic, volumes, snapshot }: Copy): RehearsalObjects {
  const { job, ...objects } = renamed(rehearsal);
  const hooks = `${stands("hooks")}-copy`;
  const pod = job.spec!.template.spec!;
  const [jenkins] = pod.containers;
  const own = pod.volumes ?? [];
  const work = { name: "work", mountPath: "/scratch" };
  const noNames = { name: hooks, mountPath: "/etc/resolv.conf", subPath: "resolv.conf", readOnly: true };
  const copied: V1Container = { ...restic, command: ["/bin/sh", "-c", restoreCopy], env: [...(restic.env ?? []), ...(snapshot === undefined ? [] : [{ name: "SNAPSHOT", value: snapshot }])] };
  const fence: V1Container = {
    name: fenceContainer,
    image: restic.image,
    command: ["/bin/sh", "-c", `[ -e /scratch/restored ] || { tail -n 3 /scratch/log; exit 1; }; until [ -e ${fencedFile} ]; do sleep 1; done`],
    resources: { requests: { cpu: "5m", memory: "16Mi" }, limits: { memory: "64Mi" } },
    securityContext: restic.securityContext,
    volumeMounts: [work],
  };
  const spec: V1PodSpec = {
    ...pod,
    initContainers: [copied, fence, ...(pod.initContainers ?? [])],
    // Where nothing enforces policies, the copy at least finds nobody by name. What it is to hold lies in /scratch.
    containers: [{ ...jenkins, volumeMounts: [...(jenkins.volumeMounts ?? []), noNames, { ...work, readOnly: true }] }],
    volumes: [...own.filter(({ name }) => name !== "home"), ...volumes.filter(({ name }) => name === "home" || !own.some((each) => each.name === name))],
  };
  return plain({
    ...objects,
    job: { ...job, spec: { ...job.spec!, activeDeadlineSeconds: job.spec!.activeDeadlineSeconds! + restoreSeconds, template: { ...job.spec!.template, spec } } },
    configMaps: objects.configMaps.map((each) => (each.metadata?.name === hooks ? { ...each, data: { ...each.data, "resolv.conf": "# none\n" } } : each)),
  });
}

/** Without the fields that are undefined, as the API server gets it. */
function plain<T>(value: T): T {
  return JSON.parse(JSON.stringify(value)) as T;
}

/** The controller's limits with the rehearsal's own over them, and requests that stay below: Kubernetes refuses others. */
function smaller(controller: V1ResourceRequirements, own: Resources): V1ResourceRequirements {
  const named = canonicalResources(own);
  const limits: Record<string, string> = { ...controller.limits, ...named.limits };
  const requests = Object.entries(named.requests ?? {}).map(([what, value]) => [what, limits[what] !== undefined && quantityMillis(limits[what]) < quantityMillis(value) ? limits[what] : value]);
  return canonicalResources({ requests: Object.fromEntries(requests), limits });
}

/**
 * What a preview shows of a change, and why a rehearsal runs: the image, each document, and a hash of the rest of the pod. No hash
 * of the secrets: it would tell a weak password; where only they changed, these lines stay as they are.
 */
export function rehearsalReasons({ pod, configMaps }: Pick<Candidate, "pod" | "configMaps">): Record<"IMAGE" | "CONFIGURATION" | "POD", string> {
  const documents = Object.values(configMaps).flatMap((data) => Object.entries(data).map(([name, text]) => `${name} ${hash(text).slice(0, 12)}`));
  const image = pod.containers.find(({ name }) => name === "jenkins")?.image ?? "";
  // The image has its own line.
  const rest = JSON.stringify(pod).split(JSON.stringify(image)).join('""');
  return { IMAGE: image, CONFIGURATION: documents.sort().join(", "), POD: hash(rest).slice(0, 12) };
}

/**
 * Has Jenkins itself judge a changed controller before the running one is touched. Whatever reaches the running one comes after this
 * command: it fails with Jenkins' own words, and runs again only when something of the candidate changed.
 */
export function makeRehearsal(
  { name, parent, here }: Place,
  args: RehearsalArgs,
  candidate: { pod: pulumi.Input<k8s.types.output.core.v1.PodSpec>; configMaps: k8s.core.v1.ConfigMapArgs[]; secrets: k8s.core.v1.SecretArgs[] },
): pulumi.Resource {
  const { kubeconfig, context, timeoutSeconds } = args;
  const whole = pulumi.all([here, candidate.pod, pulumi.all(candidate.configMaps), pulumi.all(candidate.secrets)]).apply(
    ([namespace, pod, contents, secrets]): Candidate => ({
      namespace,
      // Resolved, a pod is the JSON that the API server takes.
      pod: pod as unknown as V1PodSpec,
      configMaps: Object.fromEntries(contents.map(({ metadata, data }) => [metadata!.name!, data ?? {}])),
      secrets: Object.fromEntries(secrets.map(({ metadata, data: own, stringData }) => [metadata!.name!, { ...own, ...secretData(stringData ?? {}) }])),
    }),
  );
  const input = whole.apply((each): RehearsalInput => ({ ...(kubeconfig && { kubeconfig }), context, timeoutSeconds, namespace: each.namespace, objects: rehearsalObjects(each, args) }));
  const reasons = pulumi.unsecret(whole.apply(rehearsalReasons));
  const patience = `${timeoutSeconds + 120}s`;
  return new command.local.Command(
    `${name}-rehearsal`,
    {
      // The shell stays: when the provider ends it, the program sees that and cleans up.
      create: `node --import tsx ${program}; exit $?`,
      stdin: pulumi.secret(pulumi.jsonStringify(input)),
      environment: reasons,
      logging: command.local.Logging.Stderr,
      addPreviousOutputInEnv: false,
    },
    { ...parent, customTimeouts: { create: patience, update: patience } },
  );
}
