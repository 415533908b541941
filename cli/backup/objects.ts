import { names, saverLabels } from "../../components/jenkins-backup/names";
import type { Journal } from "./plan";

/** A Kubernetes object as kubectl prints it. */
// `any`: fields are read from many kinds, and written back as they came.
export type KubernetesObject = Record<string, any>;

export const HOME_CLAIM = "jenkins-home";
export const DEPLOYMENT = "jenkins";
export const { backup: BACKUP_CRON, verify: VERIFY_CRON, status: STATUS } = names;
/** ConfigMap in which a restore keeps what it has done, so that it can be run again. */
export const JOURNAL = "jenkins-restore";
export const SAVER_SELECTOR = Object.entries(saverLabels).map(([key, value]) => `${key}=${value}`).join(",");
/** The same of a failover, from its plan to its end. */
export const FAILOVER_JOURNAL = names.failover;
/** The same of a standby's claim that is made anew. */
export const RENEW_JOURNAL = "jenkins-failover-renew";
/** Left in a restored home for the check after its start. */
export const INVENTORY_FILE = ".restore-inventory";
/** Field manager of what a restore writes for good. */
export const MANAGER = "jenkins-restore";

/** A job made from a CronJob's template, run once and not repeated by itself: somebody is looking at it. */
export function jobFromCron(cron: KubernetesObject, name: string, env: Record<string, string> = {}): KubernetesObject {
  const template = structuredClone(cron.spec.jobTemplate) as KubernetesObject;
  const containers = [...(template.spec.template.spec.initContainers ?? []), ...template.spec.template.spec.containers];
  const restic = containers.find((container) => container.name === "restic");
  restic.env = [...(restic.env ?? []).filter((e: { name: string }) => !(e.name in env)), ...Object.entries(env).map(([key, value]) => ({ name: key, value }))];
  return {
    apiVersion: "batch/v1",
    kind: "Job",
    metadata: {
      name,
      namespace: cron.metadata.namespace,
      labels: template.metadata?.labels ?? {},
      // Goes with the CronJob: a finished pod that is still listed would keep the home's claim from being deleted.
      ownerReferences: [{ apiVersion: "batch/v1", kind: "CronJob", name: cron.metadata.name, uid: cron.metadata.uid }],
    },
    spec: { ttlSecondsAfterFinished: 86400, ...template.spec, backoffLimit: 0 },
  };
}

/** Where a volume may be made: what the controller's own pod asks for, and a node where one was named. */
export interface Placement {
  nodeSelector?: Record<string, string>;
  tolerations?: unknown[];
  affinity?: { nodeAffinity: unknown };
}

/** A job that runs `home.sh` with other arguments, without the home; `claim` is mounted at /target. */
export function resticJob(cron: KubernetesObject, name: string, shell: string, claim?: string, placement: Placement = {}): KubernetesObject {
  const job = jobFromCron(cron, name);
  const labels = { ...job.metadata.labels, "app.kubernetes.io/component": "operator" };
  const spec = job.spec.template.spec;
  const own = new Set(["home", "token"]);
  const restic = (spec.initContainers as KubernetesObject[]).find((container) => container.name === "restic")!;
  const target = claim === undefined ? [] : [{ name: "target", mountPath: "/target" }];
  return {
    ...job,
    metadata: { ...job.metadata, labels },
    spec: {
      ...job.spec,
      template: {
        metadata: { labels },
        spec: {
          ...spec,
          affinity: undefined,
          initContainers: undefined,
          ...placement,
          containers: [{ ...restic, command: ["/bin/sh", "-c", shell], volumeMounts: [...restic.volumeMounts.filter((m: { name: string }) => !own.has(m.name)), ...target] }],
          volumes: [...spec.volumes.filter((v: { name: string }) => !own.has(v.name)), ...(claim === undefined ? [] : [{ name: "target", persistentVolumeClaim: { claimName: claim } }])],
        },
      },
    },
  };
}

/** Quotes a word for a shell. */
export function quote(word: string): string {
  return `'${word.replace(/'/g, `'\\''`)}'`;
}

/** Name of the claim that a restore fills. */
export const freshClaim = (id: string): string => `${HOME_CLAIM}-${id}`;

const ownAnnotation = (key: string) => !/^(pv\.kubernetes\.io|volume\.(beta\.)?kubernetes\.io|kubectl\.kubernetes\.io)\//.test(key);

/** A claim as somebody wrote it, without what the cluster added when it was bound. */
export function claimAsWritten(live: KubernetesObject): KubernetesObject {
  const annotations = Object.fromEntries(Object.entries(live.metadata.annotations ?? {}).filter(([key]) => ownAnnotation(key)));
  const { accessModes, resources, storageClassName, volumeMode } = live.spec;
  return {
    apiVersion: "v1",
    kind: "PersistentVolumeClaim",
    metadata: {
      name: live.metadata.name,
      namespace: live.metadata.namespace,
      ...(live.metadata.labels && { labels: live.metadata.labels }),
      ...(Object.keys(annotations).length > 0 && { annotations }),
    },
    spec: { accessModes, resources, storageClassName, ...(volumeMode === "Block" && { volumeMode }) },
  };
}

/** The field manager under which Pulumi wrote an object, if it did; a new object under it stays Pulumi's own. */
export function pulumiManager(live: KubernetesObject): string | undefined {
  return (live.metadata.managedFields as { manager: string }[] | undefined)?.find(({ manager }) => manager.startsWith("pulumi-"))?.manager;
}

/** The claim that a restore fills: like the home's, under another name. */
export function emptyClaim(journal: Journal): KubernetesObject {
  const { spec, metadata } = journal.claim;
  return {
    apiVersion: "v1",
    kind: "PersistentVolumeClaim",
    metadata: { name: freshClaim(journal.id), namespace: metadata.namespace, labels: { "app.kubernetes.io/name": "jenkins-restore", "app.kubernetes.io/part-of": "build-platform" } },
    spec: { ...spec, ...(journal.size && { resources: { requests: { storage: journal.size } } }) },
  };
}

/** A claim, bound to a certain volume. */
export const boundTo = (claim: KubernetesObject, volume: string): KubernetesObject => ({ ...claim, spec: { ...claim.spec, volumeName: volume } });

/** The home's claim, bound to a certain volume. */
export function boundClaim(journal: Journal, volume: string): KubernetesObject {
  return { ...journal.claim, spec: { ...journal.claim.spec, ...(journal.size && { resources: { requests: { storage: journal.size } } }), volumeName: volume } };
}

/** Whether a pod mounts a claim. */
export function mounts(pod: KubernetesObject, claim: string): boolean {
  return ((pod.spec.volumes ?? []) as KubernetesObject[]).some((volume) => volume.persistentVolumeClaim?.claimName === claim);
}

const HOST = "kubernetes.io/hostname";

/** What a node must have, as in the affinity of a volume or a pod. */
export interface Term {
  matchExpressions?: { key: string; operator: string; values?: string[] }[];
}

export const meets = (node: KubernetesObject, { matchExpressions = [] }: Term): boolean => matchExpressions.every(({ key, operator, values = [] }) => operator !== "In" || values.includes(node.metadata.labels?.[key]));

/**
 * The nodes that a volume can be mounted on, by the labels that the volume asks for, which need not be the nodes' names; nodes that the
 * cluster has no more go by their labels. None where the volume says nothing of nodes.
 */
export function nodesOf(volume: KubernetesObject, nodes: KubernetesObject[]): string[] {
  const terms = (volume.spec.nodeAffinity?.required?.nodeSelectorTerms ?? []) as Term[];
  const found = nodes.filter((node) => terms.some((term) => meets(node, term)));
  return found.length > 0 ? found.map(({ metadata }) => metadata.name as string) : terms.flatMap(({ matchExpressions = [] }) => matchExpressions).flatMap(({ values = [] }) => values);
}

/** What a pod asks for that is to run on a node. */
export const hostSelector = (name: string, node: KubernetesObject | undefined): Record<string, string> => ({ [HOST]: node?.metadata.labels?.[HOST] ?? name });

/** Tells nodes that are gone or do not answer: what they run will not say goodbye. */
export function lostAmong(nodes: KubernetesObject[]): (node: string) => boolean {
  const ready = new Set(nodes.filter((n) => n.status.conditions.some((c: KubernetesObject) => c.type === "Ready" && c.status === "True")).map((n) => n.metadata.name as string));
  return (node) => !ready.has(node);
}

/** The nodes with which a volume is out of reach; undefined where one answers that has it. */
export function awayWith(volume: KubernetesObject, nodes: KubernetesObject[]): string | undefined {
  const found = nodesOf(volume, nodes);
  return found.length > 0 && found.every(lostAmong(nodes)) ? found.join(", ") : undefined;
}
