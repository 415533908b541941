// Part of the sandbox's stand-in for pulumi-resource-kubernetes: when an object counts as ready, and waiting for it.
import type { KubeClient } from "./kubernetes-client";
import { ApiError, type KubeObject } from "./kubernetes-objects";
import type { Severity } from "./rpc";

/** What an object's state says: ready, failed for good, or neither yet. */
export interface Verdict {
  ready: boolean;
  /** Set where waiting longer is useless. */
  failed?: boolean;
  /** The line to show beside the resource. */
  status: string;
  /** What is wrong, most telling first; for the error if time runs out. */
  reasons: string[];
}

/** Objects around the one that is awaited, by kind; a kind that could not be read is empty. */
export type Related = Partial<Record<"ReplicaSet" | "Pod" | "PersistentVolumeClaim" | "Endpoints" | "Service" | "StorageClass", KubeObject[]>>;

/** What a condition may look at besides the object. */
export interface Situation {
  related: Related;
  /** The object before an update; undefined after a create. */
  previous?: KubeObject;
  /** Milliseconds since the wait began. */
  elapsedMs: number;
}

interface Condition {
  /** Kinds that the evaluation needs, read anew each time. */
  needs: (keyof Related)[];
  evaluate(object: KubeObject, situation: Situation): Verdict;
}

/** Endpoints that have not changed for 10 s are taken as settled, as in the official provider. */
export const SETTLE_MS = 10_000;
const REVISION = "deployment.kubernetes.io/revision";

const verdict = (ready: boolean, status: string, reasons: string[] = []): Verdict => ({ ready, status, reasons: ready ? [] : reasons });
const ownedBy = (object: KubeObject, owner: KubeObject | undefined): boolean => (object.metadata.ownerReferences ?? []).some(({ uid }) => uid === owner?.metadata.uid);
const shown = ({ metadata: { namespace, name } }: KubeObject): string => (namespace && namespace !== "default" ? `${namespace}/${name}` : name);
const observed = (object: KubeObject): boolean => (object.status?.observedGeneration ?? 0) >= (object.metadata.generation ?? 0);

interface StatusCondition { type: string; status: string; reason?: string; message?: string }
const conditionOf = (object: KubeObject, type: string): StatusCondition | undefined =>
  (object.status?.conditions as StatusCondition[] | undefined)?.find((condition) => condition.type === type);
const describe = (condition: StatusCondition): string => `[${condition.reason ?? condition.type}] ${condition.message ?? ""}`;

interface ContainerStatus {
  name: string; ready?: boolean;
  state?: { waiting?: { reason?: string; message?: string }; terminated?: { reason?: string; message?: string; exitCode?: number } };
  lastState?: { terminated?: { reason?: string; message?: string; exitCode?: number; finishedAt?: string } };
}

/** What keeps a pod from being ready: scheduling, image pull, crashes, probes. */
export function podReasons(pod: KubeObject): string[] {
  if (pod.status?.phase === "Succeeded" || conditionOf(pod, "Ready")?.status === "True") return [];
  const containers = [...(pod.status?.initContainerStatuses ?? []), ...(pod.status?.containerStatuses ?? [])] as ContainerStatus[];
  const errors = containers.filter(({ ready }) => !ready).flatMap(({ name, state, lastState }) => {
    const { waiting, terminated } = state ?? {};
    const last = lastState?.terminated;
    return [
      ...(waiting && !["ContainerCreating", "PodInitializing"].includes(waiting.reason ?? "") ? [`container "${name}": [${waiting.reason}] ${waiting.message ?? ""}`.trim()] : []),
      ...(terminated?.reason && terminated.reason !== "Completed" ? [`container "${name}": [${terminated.reason}] ${terminated.message ?? `exit code ${terminated.exitCode}`}`] : []),
      ...(last ? [`container "${name}" terminated at ${last.finishedAt} (${last.reason}: exit code ${last.exitCode})${last.message ? `: ${last.message.trim()}` : ""}`] : []),
    ];
  });
  const blocking = ["PodScheduled", "Initialized", "Ready"].map((type) => conditionOf(pod, type)).find((condition) => condition && condition.status !== "True");
  const starting = containers.flatMap(({ name, state }) => (state?.waiting ? [`container "${name}": [${state.waiting.reason}]`] : []));
  const known = [...(blocking?.message ? [blocking.message] : []), ...errors];
  const messages = known.length > 0 ? known : starting;
  return messages.length > 0 ? [`[Pod ${shown(pod)}]: ${messages.join(" -- ")}`] : [];
}

export function deploymentVerdict(deployment: KubeObject, { related, previous }: Situation): Verdict {
  const revision = deployment.metadata.annotations?.[REVISION];
  const replicaSet = related.ReplicaSet?.find((set) => ownedBy(set, deployment) && set.metadata.annotations?.[REVISION] === revision);
  const wanted: number = Math.max(replicaSet?.spec?.replicas ?? 1, deployment.spec?.replicas ?? 1);
  const ready: number = replicaSet?.status?.readyReplicas ?? 0;
  const progressing = conditionOf(deployment, "Progressing");
  const available = conditionOf(deployment, "Available");
  const claims: string[] = (deployment.spec?.template?.spec?.volumes ?? []).flatMap((volume: { persistentVolumeClaim?: { claimName: string } }) => volume.persistentVolumeClaim?.claimName ?? []);
  const unbound = claims.filter((name) => related.PersistentVolumeClaim?.some((claim) => claim.metadata.name === name && claim.status?.phase !== "Bound"));
  const rolledOut = progressing?.status === "True" && progressing.reason === "NewReplicaSetAvailable";
  // With strategy Recreate the new ReplicaSet begins with no Pods at all, while the conditions still tell of the old one.
  const updated = (deployment.status?.updatedReplicas ?? 0) >= (deployment.spec?.replicas ?? 1);
  const isReady = observed(deployment) && available?.status === "True" && rolledOut && replicaSet !== undefined && updated && ready >= wanted && unbound.length === 0;
  if (isReady) return verdict(true, "Deployment initialization complete");
  const pods = (related.Pod ?? []).filter((pod) => ownedBy(pod, replicaSet)).flatMap(podReasons);
  return verdict(false, `Waiting for app ReplicaSet to be available (${ready}/${wanted} Pods available)`, [
    ...pods,
    ...(unbound.length > 0 ? [`Failed to bind PersistentVolumeClaim(s): "${unbound.join(",")}"`] : []),
    ...(progressing?.status === "False" ? [describe(progressing)] : []),
    ...(available && available.status !== "True" ? [describe(available)] : []),
    available?.status !== "True" ? "Minimum number of live Pods was not attained"
      : previous ? "Attempted to roll forward to new ReplicaSet, but minimum number of Pods did not become live"
        : "Minimum number of Pods to consider the application live was not attained",
  ]);
}

export function statefulSetVerdict(set: KubeObject, { related }: Situation): Verdict {
  const { replicas: wanted = 1, updateStrategy } = set.spec ?? {};
  const { replicas = 0, readyReplicas = 0, currentReplicas = 0, currentRevision, updateRevision } = set.status ?? {};
  const byHand = updateStrategy?.type === "OnDelete" && (set.metadata.generation ?? 1) > 1;
  const ready = observed(set) && replicas === wanted && readyReplicas === wanted &&
    (byHand || (currentReplicas === wanted && currentRevision !== undefined && currentRevision === updateRevision));
  if (ready) return verdict(true, "StatefulSet initialization complete");
  const pods = (related.Pod ?? []).filter((pod) => ownedBy(pod, set)).flatMap(podReasons);
  return verdict(false, `Waiting for StatefulSet to create Pods (${readyReplicas}/${wanted} Pods ready)`, [
    ...pods,
    readyReplicas < wanted ? "Failed to observe the expected number of ready replicas" : "StatefulSet controller failed to advance from one revision to the next",
  ]);
}

export function daemonSetVerdict(set: KubeObject, { related }: Situation): Verdict {
  const { desiredNumberScheduled: wanted, currentNumberScheduled = 0, updatedNumberScheduled = 0, numberAvailable = 0, numberReady = 0 } = set.status ?? {};
  const least = Math.min(currentNumberScheduled, updatedNumberScheduled, numberAvailable, numberReady);
  if (observed(set) && wanted !== undefined && least >= wanted) return verdict(true, `All replicas scheduled as expected. Replicas: ${wanted}`);
  const pods = (related.Pod ?? []).filter((pod) => ownedBy(pod, set)).flatMap(podReasons);
  return verdict(false, `Available: ${numberAvailable}/${wanted ?? 0}`, [...pods, `Available: ${numberAvailable}/${wanted ?? 0}`]);
}

export function jobVerdict(job: KubeObject, { related }: Situation): Verdict {
  const { active = 0, succeeded = 0, failed = 0 } = job.status ?? {};
  if (conditionOf(job, "Complete")?.status === "True") return verdict(true, "Job completed");
  const pods = (related.Pod ?? []).filter((pod) => ownedBy(pod, job)).flatMap(podReasons);
  const failure = conditionOf(job, "Failed");
  if (failure?.status === "True") return { ...verdict(false, describe(failure), [describe(failure), ...pods]), failed: true };
  return verdict(false, `Waiting for Job "${shown(job)}" to succeed (Active: ${active} | Succeeded: ${succeeded} | Failed: ${failed})`, pods);
}

export function podVerdict(pod: KubeObject): Verdict {
  const done = pod.status?.phase === "Succeeded" || conditionOf(pod, "Ready")?.status === "True";
  return verdict(done, done ? "Pod ready" : `Waiting for Pod "${shown(pod)}" to be ready`, podReasons(pod));
}

interface Subset { addresses?: unknown[]; notReadyAddresses?: unknown[] }

export function serviceVerdict(service: KubeObject, { related, elapsedMs }: Situation): Verdict {
  const { type = "ClusterIP", clusterIP, selector } = service.spec ?? {};
  const allocated = type !== "LoadBalancer" || (service.status?.loadBalancer?.ingress ?? []).length > 0;
  const noAddress = allocated ? [] : ["Service was not allocated an IP address; does your cloud provider support this?"];
  if (type === "ExternalName" || clusterIP === "None" || !selector || Object.keys(selector).length === 0) {
    return verdict(allocated, allocated ? "Service initialization complete" : "Waiting for Service to be allocated an IP address", noAddress);
  }
  const subsets: Subset[] = related.Endpoints?.find((endpoints) => endpoints.metadata.name === service.metadata.name)?.subsets ?? [];
  const reachable = subsets.some(({ addresses }) => (addresses ?? []).length > 0);
  const pending = subsets.some(({ notReadyAddresses }) => (notReadyAddresses ?? []).length > 0);
  // Without any Pod there is nothing to wait for once they have had time to appear.
  if (allocated && !pending && (reachable || elapsedMs >= SETTLE_MS)) return verdict(true, "Service initialization complete");
  return verdict(false, reachable ? "[2/3] Waiting for all Pods of the Service to be ready" : "[1/3] Finding Pods to direct traffic to", [
    ...(reachable ? [] : ["Service does not target any Pods. Selected Pods may not be ready, or field '.spec.selector' may not match labels on any Pods"]),
    ...noAddress,
  ]);
}

export function ingressVerdict(ingress: KubeObject, { related, elapsedMs }: Situation): Verdict {
  const wanted: string[] = (ingress.spec?.rules ?? [])
    .flatMap((rule: { http?: { paths: { backend: { service?: { name: string } } }[] } }) => rule.http?.paths ?? [])
    .flatMap((path: { backend: { service?: { name: string } } }) => path.backend.service?.name ?? []);
  const known = new Set([
    ...(related.Endpoints ?? []),
    ...(related.Service ?? []).filter((service) => service.spec?.type === "ExternalName"),
  ].map(({ metadata }) => metadata.name));
  const missing = [...new Set(wanted.filter((name) => !known.has(name)))];
  const published = (ingress.status?.loadBalancer?.ingress ?? []).length > 0;
  const settled = missing.length === 0 || elapsedMs >= SETTLE_MS;
  if (published && settled) return verdict(true, missing.length > 0 ? `No matching service found for ingress rule: ${missing.join(", ")}` : "Ingress initialization complete");
  return verdict(false, settled ? "[2/3] Waiting for update of .status.loadBalancer with hostname/IP" : "[1/3] Finding a matching service for each Ingress path", [
    ...(missing.length > 0 ? [`Ingress has at least one rule with an unavailable target endpoint: Service ${missing.join(", ")}`] : []),
    ...(published ? [] : ["Ingress .status.loadBalancer field was not updated with a hostname/IP address"]),
  ]);
}

export function claimVerdict(claim: KubeObject, { related }: Situation): Verdict {
  const phase: string | undefined = claim.status?.phase;
  const storageClass = related.StorageClass?.find(({ metadata }) => metadata.name === claim.spec?.storageClassName);
  // A claim that is bound only when a Pod uses it is as ready as it can be.
  const waits = storageClass?.volumeBindingMode === "WaitForFirstConsumer" && phase === "Pending";
  return verdict(phase === "Bound" || waits, phase === "Bound" ? "PVC has been bound" : waits ? "PVC waits for its first consumer" : `Waiting for PVC to be bound (phase ${phase ?? "unknown"})`,
    [`PersistentVolumeClaim is ${phase ?? "unknown"}, storage class ${claim.spec?.storageClassName ?? "none"}`]);
}

/** The verdict of a kind that needs no words: ready, or why not. */
const plainVerdict = (ready: boolean, reason: string): Verdict => verdict(ready, ready ? "" : `Waiting: ${reason}`, [reason]);

/** The conditions by `apiVersion/kind`; a kind without one is ready when it exists. */
export const CONDITIONS: Record<string, Condition> = {
  "apps/v1/Deployment": { needs: ["ReplicaSet", "Pod", "PersistentVolumeClaim"], evaluate: deploymentVerdict },
  "apps/v1/StatefulSet": { needs: ["Pod"], evaluate: statefulSetVerdict },
  "apps/v1/DaemonSet": { needs: ["Pod"], evaluate: daemonSetVerdict },
  "batch/v1/Job": { needs: ["Pod"], evaluate: jobVerdict },
  "v1/Pod": { needs: [], evaluate: podVerdict },
  "v1/Service": { needs: ["Endpoints"], evaluate: serviceVerdict },
  "networking.k8s.io/v1/Ingress": { needs: ["Endpoints", "Service"], evaluate: ingressVerdict },
  "v1/PersistentVolumeClaim": { needs: ["StorageClass"], evaluate: claimVerdict },
  "v1/PersistentVolume": { needs: [], evaluate: ({ status }) => plainVerdict(["Available", "Bound"].includes(status?.phase), `phase is ${status?.phase ?? "unknown"}`) },
  "v1/ResourceQuota": { needs: [], evaluate: ({ spec, status }) => plainVerdict(JSON.stringify(spec?.hard) === JSON.stringify(status?.hard), "quota is not in force") },
  "v1/Secret": { needs: [], evaluate: ({ type, data }) => plainVerdict(type !== "kubernetes.io/service-account-token" || Object.keys(data ?? {}).length > 0, "no token was made yet") },
};

/**
 * The condition of a `pulumi.com/waitFor` annotation: `condition=Type[=Value]`, `jsonpath={.path}[=value]`,
 * or a JSON list of these that must all hold. A path may hold `[0]` and `[?(@.key=="value")]`.
 */
export function customCondition(text: string): Condition {
  const expressions: string[] = text.trim().startsWith("[") ? JSON.parse(text) : [text];
  if (expressions.length === 0) throw new Error("pulumi.com/waitFor: at least one condition must be specified");
  const tests = expressions.map((expression): ((object: KubeObject) => boolean) => {
    const condition = /^condition=([^=]+)(?:=(.*))?$/.exec(expression);
    if (condition) return (object) => (conditionOf(object, condition[1])?.status ?? "").toLowerCase() === (condition[2] ?? "True").toLowerCase();
    const path = /^jsonpath=\{(.*?)\}(?:=(.*))?$/.exec(expression);
    if (!path) throw new Error(`pulumi.com/waitFor: expected a "jsonpath=" or "condition=" prefix, got "${expression}"`);
    const steps = [...path[1].matchAll(/\[\?\(@\.([\w.]+)\s*==\s*["']([^"']*)["']\)\]|\[(\d+)\]|\["([^"]+)"\]|([^.[\]]+)/g)];
    return (object) => {
      const found = steps.reduce<any>((value, [, key, wanted, index, quoted, name]) =>
        key !== undefined ? value?.find?.((entry: Record<string, unknown>) => String(entry?.[key]) === wanted) : value?.[index ?? quoted ?? name], object);
      return path[2] === undefined ? found !== undefined : String(found) === path[2].replace(/^"(.*)"$/, "$1");
    };
  });
  return {
    needs: [],
    evaluate: (object) => {
      const open = expressions.filter((_, i) => !tests[i](object));
      return verdict(open.length === 0, `Waiting for ${open.join(", ")}`, open.map((expression) => `${expression} does not hold`));
    },
  };
}

/** The condition that applies to an object; undefined where nothing is awaited. */
export function conditionFor(object: KubeObject, annotations: Record<string, string | undefined>): Condition | undefined {
  if (annotations["pulumi.com/skipAwait"] === "true") return undefined;
  const custom = annotations["pulumi.com/waitFor"];
  return custom ? customCondition(custom) : CONDITIONS[`${object.apiVersion}/${object.kind}`];
}

/** Seconds to wait: the resource option, the annotation, or ten minutes. */
export function timeoutSeconds(option: number, annotation: string | undefined): number {
  return option || (/^\d+$/.test(annotation ?? "") ? Number(annotation) : 600);
}

/** The wait ended without the object being ready; the object is as last seen. */
export class NotReadyError extends Error {
  constructor(message: string, readonly object: KubeObject, readonly reasons: string[]) {
    super(message);
  }
}

const API_VERSIONS: Record<keyof Related, string> = {
  ReplicaSet: "apps/v1", Pod: "v1", PersistentVolumeClaim: "v1", Endpoints: "v1", Service: "v1", StorageClass: "storage.k8s.io/v1",
};

/** A workload's label selector as the API takes it. */
function selectorText(selector: { matchLabels?: Record<string, string>; matchExpressions?: { key: string; operator: string; values?: string[] }[] } | undefined): string | undefined {
  const labels = Object.entries(selector?.matchLabels ?? {}).map(([key, value]) => `${key}=${value}`);
  const expressions = (selector?.matchExpressions ?? []).map(({ key, operator, values = [] }) =>
    ({ In: `${key} in (${values})`, NotIn: `${key} notin (${values})`, Exists: key, DoesNotExist: `!${key}` })[operator] ?? key);
  return [...labels, ...expressions].join(",") || undefined;
}

async function readRelated(client: KubeClient, object: KubeObject, needs: (keyof Related)[], signal?: AbortSignal): Promise<Related> {
  const labelSelector = selectorText(object.spec?.selector?.matchLabels || object.spec?.selector?.matchExpressions ? object.spec.selector : undefined);
  const lists = await Promise.all(needs.map(async (kind) => {
    const query = kind === "ReplicaSet" || kind === "Pod" ? { labelSelector } : {};
    // What may not be read is not looked at, as in the official provider.
    return [kind, await client.list(API_VERSIONS[kind], kind, object.metadata.namespace, query, signal).catch(() => [])] as const;
  }));
  return Object.fromEntries(lists);
}

/** Warnings that the cluster recorded about an object, the latest last. */
async function warnings(client: KubeClient, object: KubeObject): Promise<string[]> {
  const events = await client.list("v1", "Event", object.metadata.namespace, { fieldSelector: `involvedObject.uid=${object.metadata.uid},type=Warning` }).catch(() => []);
  return [...new Set(events.map(({ reason, message }) => `${reason}: ${message}`))].slice(-3);
}

/** Looks once: throws NotReadyError where the object is not ready. */
export async function checkReady(client: KubeClient, object: KubeObject, condition: Condition): Promise<void> {
  const related = await readRelated(client, object, condition.needs);
  const { ready, reasons } = condition.evaluate(object, { related, elapsedMs: SETTLE_MS });
  if (!ready) throw new NotReadyError(`Resource '${object.metadata.name}' was created but failed to initialize`, object, reasons);
}

export interface WaitOptions {
  seconds: number;
  cancelled: AbortSignal;
  /** The object before an update. */
  previous?: KubeObject;
  /** Read the object before anything else, because it may have changed already. */
  lookFirst?: boolean;
  status(severity: Severity, message: string): void;
}

/** Shows a status line only when it is new. */
function deduplicated(status: WaitOptions["status"]): WaitOptions["status"] {
  let last = "";
  return (severity, message) => {
    if (message !== last) status(severity, (last = message));
  };
}

/** Calls `look` at every change of the object, and at least each second, until it returns a value, time is up or the operation is cancelled. */
async function watchUntil<T>(client: KubeClient, object: KubeObject, options: WaitOptions, look: (current: KubeObject, deleted: boolean) => Promise<T | undefined>): Promise<T | "timeout" | "cancelled"> {
  const stop = new AbortController();
  const signal = AbortSignal.any([stop.signal, options.cancelled]);
  const deadline = Date.now() + options.seconds * 1000;
  let current = object;
  let deleted = false;
  let wake = (): void => undefined;
  let changed = false;
  options.cancelled.addEventListener("abort", () => wake(), { signal: stop.signal });
  client.watch(object, signal, (type, seen) => {
    if (seen.metadata.uid !== object.metadata.uid) return;
    current = seen;
    deleted = type === "DELETED";
    changed = true;
    wake();
  }).catch(() => undefined); // The look each second does without.
  try {
    for (let idle = options.lookFirst ? 3 : 0; ; idle++) {
      if (idle > 2) {
        // No news for a while: ask, in case the watch is broken.
        idle = 0;
        await client.get(object, signal).then((seen) => {
          deleted = seen.metadata.uid !== object.metadata.uid;
          if (!deleted) current = seen;
        }).catch((error) => (deleted = error instanceof ApiError && error.code === 404));
      }
      const result = await look(current, deleted);
      if (result !== undefined) return result;
      if (options.cancelled.aborted) return "cancelled";
      if (Date.now() >= deadline) return "timeout";
      if (!changed) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, Math.min(1000, Math.max(deadline - Date.now(), 0)));
          wake = () => {
            clearTimeout(timer);
            resolve();
          };
        });
      }
      if (changed) idle = 0;
      changed = false;
    }
  } finally {
    stop.abort();
  }
}

/** Waits until the object is ready and resolves to it as last seen. */
export async function awaitReady(client: KubeClient, object: KubeObject, condition: Condition, options: WaitOptions): Promise<KubeObject> {
  const started = Date.now();
  const status = deduplicated(options.status);
  const generation = object.metadata.generation ?? 0;
  let last = object;
  let reasons: string[] = [];
  let told = started;
  const result = await watchUntil<KubeObject | "failed" | "deleted">(client, object, options, async (current, deleted) => {
    if (deleted) return "deleted";
    if ((current.metadata.generation ?? 0) >= generation) last = current;
    const related = await readRelated(client, last, condition.needs, options.cancelled);
    const seen = condition.evaluate(last, { related, previous: options.previous, elapsedMs: Date.now() - started });
    reasons = seen.reasons;
    // Every ten seconds the most telling reason takes the place of the progress line.
    if (!seen.ready && reasons.length > 0 && Date.now() - told > 10_000) [told] = [Date.now(), status("warning", reasons[0])];
    else if (Date.now() - told > 2000 || told === started) status("info", seen.status);
    if (seen.failed) return "failed";
    return seen.ready ? last : undefined;
  });
  if (typeof result === "object") return result;
  const name = `${object.kind} '${shown(object)}'`;
  reasons.push(...(await warnings(client, last)));
  throw new NotReadyError({
    timeout: `${name} timed out waiting to be Ready`,
    cancelled: `Resource operation was cancelled for ${name}`,
    failed: `${name} was created but failed to initialize`,
    deleted: `${name} was deleted while waiting for it to be Ready`,
  }[result], last, reasons);
}

/** Waits until the object is gone. */
export async function awaitDeleted(client: KubeClient, object: KubeObject, options: WaitOptions): Promise<void> {
  options.status("info", "Resource scheduled for deletion");
  let last = object;
  const result = await watchUntil<true>(client, object, { ...options, lookFirst: true }, async (current, deleted) => {
    last = current;
    return deleted || undefined;
  });
  if (result === true) return;
  const finalizers = last.metadata.finalizers ?? [];
  const reasons = finalizers.length > 0 ? [`finalizers might be preventing deletion (${finalizers.join(", ")})`] : [];
  const name = `${object.kind} '${shown(object)}'`;
  throw new NotReadyError(result === "timeout" ? `timed out waiting for ${name} to be deleted` : `Resource operation was cancelled for ${name}`, last, reasons);
}
