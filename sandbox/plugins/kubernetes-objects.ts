// Part of the sandbox's stand-in for pulumi-resource-kubernetes: everything about objects that is a pure function.
import { createHash, randomBytes } from "node:crypto";
import { PropertyDiff } from "@pulumi/pulumi/proto/provider_pb";
import { UNKNOWN, containsSecret, deepEqual, isObject, isSecret, pathString, reveal, secret, type Props, type Value } from "./rpc";

const { Kind } = PropertyDiff;
export type Path = (string | number)[];

/** Field manager of creates, whose fields the first update takes over (as in the official provider since 4.29). */
export const CREATE_MANAGER = "pulumi-kubernetes";
export const AUTONAMED = "pulumi.com/autonamed";

/** A Kubernetes object as the API server sends it. */
export interface KubeObject {
  apiVersion: string;
  kind: string;
  metadata: {
    name: string; namespace?: string; uid?: string; generation?: number; resourceVersion?: string; finalizers?: string[];
    annotations?: Record<string, string>; labels?: Record<string, string>; ownerReferences?: { uid: string }[];
    managedFields?: ManagedFields[];
  };
  // The rest differs from kind to kind; readers check what they find.
  [field: string]: any;
}
export interface ManagedFields { manager: string; operation: string; subresource?: string; apiVersion?: string; fieldsType?: string; fieldsV1?: Props; time?: string }

/** An error answer of the API server; the message is the server's own. */
export class ApiError extends Error {
  constructor(message: string, readonly code: number, readonly reason: string, readonly details: { kind?: string; causes?: { reason?: string; field?: string }[] } = {}) {
    super(message);
  }
}

/** The API server knows no such kind. */
export class NoKindError extends Error {
  constructor(apiVersion: string, kind: string) {
    super(`no matches for kind "${kind}" in version "${apiVersion}"`);
  }
}


/** The kind that a type token like `kubernetes:apps/v1:Deployment` names. */
export function kindOfType(type: string): { apiVersion: string; kind: string } {
  const [, groupVersion = "", kind = ""] = type.split(":");
  return { apiVersion: groupVersion.replace(/^core\//, ""), kind: kind.replace(/(?<=.)Patch$/, "") };
}

/** An annotation of an object that may hold unknowns; undefined where it cannot be told. */
export function annotation(object: Props, name: string): string | undefined {
  const value = at(object, ["metadata", "annotations", name]);
  return typeof value === "string" && value !== UNKNOWN ? value : undefined;
}

/** The value at a path, or undefined. */
export function at(value: Value | undefined, path: Path): Value | undefined {
  return path.reduce<Value | undefined>((inner, part) => {
    if (Array.isArray(inner)) return inner[part as number];
    return isObject(inner) && Object.hasOwn(inner, part) ? inner[part] : undefined;
  }, value);
}

function mapKeys(value: Value, rename: (key: string) => string): Value {
  if (Array.isArray(value)) return value.map((inner) => mapKeys(inner, rename));
  return isObject(value) ? Object.fromEntries(Object.entries(value).map(([key, inner]) => [rename(key), mapKeys(inner, rename)])) : value;
}

/** Inputs as Kubernetes takes them: secrets in clear, and `x_kubernetes_*` of CRD schemas with dashes. */
export const toKubernetes = (props: Props): Props =>
  mapKeys(reveal(props), (key) => (key.startsWith("x_kubernetes_") ? key.replaceAll("_", "-") : key)) as Props;
const fromKubernetes = (object: Props): Props =>
  mapKeys(object, (key) => (key.startsWith("x-kubernetes-") ? key.replaceAll("-", "_") : key)) as Props;

/** Eight hex digits: decided by the engine's seed where there is one, else random. */
function suffix(seed: Uint8Array): string {
  return seed.length > 0 ? createHash("sha256").update(seed).digest("hex").slice(0, 8) : randomBytes(4).toString("hex");
}
/** An automatic name, `<resource name>-<8 hex digits>`. */
export const autoName = (resourceName: string, seed: Uint8Array): string => `${resourceName}-${suffix(seed)}`;
/** A new server-side apply field manager. */
export const newFieldManager = (): string => `pulumi-kubernetes-${suffix(new Uint8Array())}`;

// ---- Normal form -----------------------------------------------------------------------------

/** Whether the API group belongs to Kubernetes itself, so that its types and rules are known. */
export function isBuiltIn(apiVersion: string): boolean {
  const group = apiVersion.includes("/") ? apiVersion.split("/")[0] : "";
  const builtIn = /^(admissionregistration|apiextensions|apiregistration|authentication|authorization|certificates|coordination|discovery|events|flowcontrol\.apiserver|networking|node|rbac\.authorization|resource|scheduling|storage|internal\.apiserver)\.k8s\.io$/;
  return ["", "apps", "batch", "autoscaling", "policy", "extensions"].includes(group) || builtIn.test(group);
}

const SUFFIXES: [string, bigint][] = [
  ["Ei", 1n << 60n], ["Pi", 1n << 50n], ["Ti", 1n << 40n], ["Gi", 1n << 30n], ["Mi", 1n << 20n], ["Ki", 1n << 10n],
];
const DECIMALS: Record<string, number> = { n: -9, u: -6, m: -3, "": 0, k: 3, M: 6, G: 9, T: 12, P: 15, E: 18 };

/**
 * A resource quantity the way the API server writes it (apimachinery pkg/api/resource): `1000m` is `1`,
 * `1024Mi` is `1Gi`, `0.5` is `500m`. What is no quantity, or finer than a billionth, is returned as it is.
 */
export function canonicalQuantity(text: string): string {
  const match = /^([+-]?)(\d*)(?:\.(\d*))?(?:([KMGTPE]i)|([numkMGTPE])|[eE]([+-]?\d+))?$/.exec(text);
  if (!match || (match[2] === "" && !match[3])) return text;
  const [, sign, whole, fraction = "", binary, decimal, exponent] = match;
  const negative = sign === "-" ? "-" : "";
  const digits = BigInt(whole + fraction || "0");
  if (digits === 0n) return "0";
  if (binary) {
    const scaled = digits * SUFFIXES.find(([name]) => name === binary)![1];
    const unit = 10n ** BigInt(fraction.length);
    if (scaled % unit === 0n) {
      const value = scaled / unit;
      const largest = SUFFIXES.find(([, size]) => value % size === 0n);
      // Below a kibi the server leaves binary notation.
      return largest ? `${negative}${value / largest[1]}${largest[0]}` : `${negative}${value}`;
    }
    return text;
  }
  let power = (exponent === undefined ? DECIMALS[decimal ?? ""] : Number(exponent)) - fraction.length;
  let value = digits;
  while (value % 10n === 0n) [value, power] = [value / 10n, power + 1];
  if (power < -9 || power > 20) return text;
  const base = Math.floor(power / 3) * 3;
  const mantissa = value * 10n ** BigInt(power - base);
  if (exponent !== undefined) return `${negative}${mantissa}${base === 0 ? "" : `e${base}`}`;
  const name = Object.entries(DECIMALS).find(([, size]) => size === base)?.[0];
  return name === undefined ? text : `${negative}${mantissa}${name}`;
}

/** Fields whose values, and those whose entries, are quantities. */
const QUANTITY_FIELDS = new Set(["sizeLimit", "divisor"]);
const QUANTITY_MAPS = new Set(["limits", "requests", "capacity", "allocatable", "hard", "overhead", "podFixed", "default", "defaultRequest", "max", "min", "maxLimitRequestRatio"]);

/** Maps whose keys are the user's own: nothing in them is touched. */
const USER_MAPS = new Set(["annotations", "labels", "matchLabels", "nodeSelector", "data", "stringData", "binaryData", "parameters"]);
/** Fields for which Kubernetes' own types know no difference between a zero value and none, so that the server drops it. */
const OPTIONAL_ZEROS = new Set([
  ...USER_MAPS, "limits", "requests", "hostNetwork", "hostPID", "hostIPC", "readOnly", "tty", "stdin", "stdinOnce", "paused", "unschedulable", "publishNotReadyAddresses", "value", "subPath",
]);
const isDropped = (key: string, value: Value): boolean =>
  value === null || (Array.isArray(value) && value.length === 0) ||
  (OPTIONAL_ZEROS.has(key) && (value === false || value === "" || (isObject(value) && Object.keys(value).length === 0)));

function canonical(value: Value, isQuantity = false): Value {
  if (Array.isArray(value)) return value.map((inner) => canonical(inner));
  if (!isObject(value)) return isQuantity && (typeof value === "number" || (typeof value === "string" && value !== UNKNOWN)) ? canonicalQuantity(String(value)) : value;
  return Object.fromEntries(Object.entries(value).filter(([key, inner]) => !isDropped(key, inner)).map(([key, inner]) => {
    if (USER_MAPS.has(key)) return [key, inner];
    if (isObject(inner) && QUANTITY_MAPS.has(key)) return [key, Object.fromEntries(Object.entries(inner).map(([name, amount]) => [name, canonical(amount, true)]))];
    return [key, canonical(inner, QUANTITY_FIELDS.has(key))];
  }));
}

const SERVER_FIELDS = ["creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "generation", "managedFields", "resourceVersion", "uid"];

/** The object in the form in which equal objects look equal: a Secret's stringData as data, quantities canonical, no server-set metadata. */
export function normalize(object: Props): Props {
  const { apiVersion, kind } = object;
  const known = typeof apiVersion === "string" && isBuiltIn(apiVersion) && kind !== "CustomResourceDefinition";
  let result: Props = known ? (canonical(object) as Props) : { ...object };
  if (apiVersion === "v1" && kind === "Secret") {
    const { stringData, ...rest } = result;
    const base64 = (text: Value): Value => (typeof text === "string" && text !== UNKNOWN ? Buffer.from(text).toString("base64") : text);
    const again = (text: Value): Value => (typeof text === "string" && text !== UNKNOWN ? Buffer.from(text, "base64").toString("base64") : text);
    const encode = (values: Value | undefined, how: (text: Value) => Value): Props =>
      isObject(values) ? Object.fromEntries(Object.entries(values).map(([key, text]) => [key, how(text)])) : {};
    if (isObject(stringData) && Object.keys(stringData).length > 0) result = { ...rest, data: { ...encode(rest.data, again), ...encode(stringData, base64) } };
    else if (isObject(rest.data)) result = { ...result, data: encode(rest.data, again) };
  }
  if (kind === "CustomResourceDefinition") {
    delete result.status;
    if (isObject(result.spec) && result.spec.preserveUnknownFields === false) result.spec = Object.fromEntries(Object.entries(result.spec).filter(([key]) => key !== "preserveUnknownFields"));
  }
  if (isObject(result.metadata)) {
    result.metadata = Object.fromEntries(Object.entries(result.metadata).filter(([key]) => !SERVER_FIELDS.includes(key)));
  }
  return result;
}

/** A value that the API server leaves out where its type allows: false, 0, an empty text, list or object. */
function isZero(value: Value): boolean {
  if (Array.isArray(value)) return value.length === 0;
  return isObject(value) ? Object.values(value).every(isZero) : value === null || value === false || value === 0 || value === "";
}

/**
 * The live object cut down to the fields that the inputs have, so that what the cluster filled in is
 * no difference. A zero value of the inputs that the server left out is kept, for the same reason.
 */
export function prune(live: Value, shape: Value): Value {
  if (Array.isArray(live) && Array.isArray(shape)) return shape.slice(0, live.length).map((inner, i) => prune(live[i], inner));
  if (!isObject(live) || !isObject(shape)) return live;
  return Object.fromEntries(Object.entries(shape)
    .filter(([key, inner]) => Object.hasOwn(live, key) || isZero(inner))
    .map(([key, inner]) => [key, Object.hasOwn(live, key) ? prune(live[key], inner) : inner]));
}

// ---- Differences -----------------------------------------------------------------------------

const SELECTOR = [".spec.selector"];
const CONTAINER_FIELDS = [
  "args", "command", "env", "image", "imagePullPolicy", "lifecycle", "livenessProbe", "ports", "readinessProbe", "resources", "securityContext", "stdin", "stdinOnce",
  "terminationMessagePath", "terminationMessagePolicy", "tty", "volumeDevices", "volumeMounts", "workingDir",
];
const POD_FIELDS = [
  "affinity", "automountServiceAccountToken", "dnsConfig", "dnsPolicy", "enableServiceLinks", "hostAliases", "hostIPC", "hostNetwork", "hostPID", "hostname", "imagePullSecrets",
  "nodeName", "nodeSelector", "overhead", "preemptionPolicy", "priority", "priorityClassName", "readinessGates", "restartPolicy", "runtimeClassName", "schedulerName",
  "securityContext", "serviceAccount", "serviceAccountName", "shareProcessNamespace", "subdomain", "terminationGracePeriodSeconds", "volumes",
];
const VOLUME_SOURCES = [
  "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "csi", "fc", "flexVolume", "flocker", "gcePersistentDisk", "glusterfs", "hostPath", "iscsi", "local",
  "nfs", "photonPersistentDisk", "portworxVolume", "quobyte", "rbd", "scaleIO", "storageos", "vsphereVolume",
];
/** Fields whose change replaces the object, kind by kind (pulumi-kubernetes provider/pkg/provider/diff.go). */
const FORCE_NEW: Record<string, string[]> = {
  "apps/v1/DaemonSet": SELECTOR,
  "apps/v1/Deployment": SELECTOR,
  "apps/v1/StatefulSet": [".spec.podManagementPolicy", ".spec.revisionHistoryLimit", ".spec.selector", ".spec.serviceName", ".spec.volumeClaimTemplates"],
  "batch/v1/Job": [".spec.completions", ".spec.parallelism", ".spec.selector", ".spec.template"],
  "rbac.authorization.k8s.io/v1/ClusterRoleBinding": [".roleRef"],
  "rbac.authorization.k8s.io/v1/RoleBinding": [".roleRef"],
  "storage.k8s.io/v1/StorageClass": [".parameters", ".provisioner"],
  "v1/PersistentVolume": VOLUME_SOURCES.map((name) => `.spec.${name}`),
  "v1/PersistentVolumeClaim": [".spec.accessModes", ".spec.selector", ".spec.storageClassName", ".spec.volumeName"],
  "v1/Pod": [...POD_FIELDS.map((name) => `.spec.${name}`), ...["containers", "initContainers"].flatMap((list) => CONTAINER_FIELDS.map((name) => `.spec.${list}[*].${name}`))],
  "v1/ResourceQuota": [".spec.scopes"],
  "v1/Secret": [".type"],
  "v1/Service": [".spec.clusterIP"],
};

/** The fields whose change makes a new object necessary, as paths like `.spec.selector`. */
export function forceNewFields(object: Props, options: { patch: boolean; mutableConfigMaps: boolean; mutableSecrets: boolean }): string[] {
  const identity = [".metadata.name", ".metadata.namespace"];
  if (options.patch) return identity;
  const type = `${String(object.apiVersion)}/${String(object.kind)}`;
  if (type === "v1/Secret" && (!options.mutableSecrets || object.immutable === true)) return [...identity, ".type", ".stringData", ".data"];
  if (type === "v1/ConfigMap" && (!options.mutableConfigMaps || object.immutable === true)) return [...identity, ".binaryData", ".data"];
  return [...identity, ...(FORCE_NEW[type] ?? [])];
}

/** Whether a change of `value` at `path` touches the field, which may be written with `[*]`. */
export function touches(field: string, path: Path, value: Value | undefined): boolean {
  const parts = field.replaceAll("[*]", ".*").split(".").slice(1);
  const walk = (i: number, inner: Value | undefined): boolean => {
    if (i === parts.length) return true;
    if (i < path.length) return (parts[i] === "*" ? typeof path[i] === "number" : path[i] === parts[i]) && walk(i + 1, inner);
    if (parts[i] === "*") return Array.isArray(inner) && inner.some((element) => walk(i + 1, element));
    return isObject(inner) && Object.hasOwn(inner, parts[i]) && walk(i + 1, inner[parts[i]]);
  };
  return walk(0, value);
}

/** Splits `spec.ports[0].name` or `metadata.labels["a.b/c"]` into its parts; `*` stands for any. */
export function parsePath(text: string): Path {
  return [...text.matchAll(/\["((?:[^"\\]|\\.)*)"\]|\[(\d+|\*)\]|([^.[\]]+)/g)].map(([, quoted, index, name]) =>
    index !== undefined ? (index === "*" ? "*" : Number(index)) : (quoted?.replaceAll('\\"', '"') ?? name));
}

const contains = (outer: Path, inner: Path): boolean => outer.length <= inner.length && outer.every((part, i) => part === "*" || part === inner[i]);

export interface Changes { kinds: Record<string, PropertyDiff.Kind>; replaces: string[]; inputDiffs: string[] }

/** The differences between the pruned live object and the new inputs, path by path, each with whether it replaces the object. */
export function diffObjects(live: Props, news: Props, forceNew: string[], ignoreChanges: string[]): Changes {
  const changes: Changes = { kinds: {}, replaces: [], inputDiffs: [] };
  const ignored = ignoreChanges.map(parsePath);
  const record = (path: Path, kind: PropertyDiff.Kind, value: Value | undefined): void => {
    if (ignored.some((outer) => contains(outer, path))) return;
    const name = pathString(path);
    const replace = forceNew.some((field) => touches(field, path, value));
    // Each kind's replacing form is the next number.
    changes.kinds[name] = replace ? kind + 1 : kind;
    if (replace || (kind === Kind.DELETE && name === "metadata")) changes.replaces.push(name);
    if (kind === Kind.DELETE) changes.inputDiffs.push(name);
  };
  const compare = (path: Path, old: Value | undefined, value: Value | undefined): void => {
    if (value === undefined) return record(path, Kind.DELETE, undefined);
    if (value === UNKNOWN) return record(path, old === undefined ? Kind.ADD : Kind.UPDATE, undefined);
    if (old === undefined) {
      record(path, Kind.ADD, value);
    } else if (isObject(old) && isObject(value)) {
      for (const key of new Set([...Object.keys(old), ...Object.keys(value)])) compare([...path, key], old[key], value[key]);
    } else if (Array.isArray(old) && Array.isArray(value)) {
      for (let i = 0; i < Math.max(old.length, value.length); i++) compare([...path, i], old[i], value[i]);
    } else if (!deepEqual(old, value)) {
      record(path, Kind.UPDATE, value);
    }
  };
  compare([], live, news);
  return changes;
}

// ---- Secrets and state -----------------------------------------------------------------------

/** Marks in the outputs what is secret in the inputs; a Secret's data always is. Changes and returns the outputs. */
export function annotateSecrets(outputs: Props, inputs: Props): Props {
  if (outputs.kind === "Secret") {
    for (const field of ["data", "stringData"]) if (field in outputs) outputs[field] = secret(outputs[field]);
  }
  for (const [key, input] of Object.entries(inputs)) {
    const output = outputs[key];
    if (output === undefined || isSecret(output)) continue;
    if (isObject(output) && isObject(input) && !isSecret(input)) annotateSecrets(output, input);
    else if (containsSecret(input)) outputs[key] = secret(output);
  }
  return outputs;
}

/** A resource's state: the live object, and beside it what is needed to tell changes later. */
export function checkpoint(inputs: Props, live: Props, fromInputs: Props, apiVersion: string, fieldManager: string): Props {
  return {
    ...annotateSecrets(structuredClone(fromKubernetes(live)), fromInputs),
    __inputs: annotateSecrets(structuredClone(fromKubernetes(inputs)), fromInputs),
    __initialApiVersion: apiVersion,
    __fieldManager: fieldManager,
  };
}

/** The last inputs and the live object within a state. */
export function parseCheckpoint(state: Props): { inputs: Props; live: Props; apiVersion?: string; fieldManager?: string } {
  const { __inputs: inputs, __initialApiVersion: apiVersion, __fieldManager: fieldManager, ...live } = toKubernetes(state);
  return { inputs: isObject(inputs) ? inputs : {}, live, apiVersion: apiVersion as string | undefined, fieldManager: fieldManager as string | undefined };
}

// ---- Field managers --------------------------------------------------------------------------

const mergeFields = (a: Props, b: Props): Props => {
  const merged = { ...a };
  for (const [key, value] of Object.entries(b)) merged[key] = isObject(merged[key]) && isObject(value) ? mergeFields(merged[key], value) : value;
  return merged;
};

/** Managers, by the beginning of their name, whose fields become ours at an update: those of our own create and of kubectl. */
const ADOPTED = [
  ["kubectl", "Apply"], ["kubectl", "Update"], ["before-first-apply", "Update"], ["pulumi-kubernetes", "Update"], ["pulumi-resource-kubernetes", "Update"],
];

/** The object's managed fields with those of adopted managers given to `manager`; undefined where there are none to give. */
export function adoptManagedFields(entries: ManagedFields[], manager: string): ManagedFields[] | undefined {
  const isAdopted = (entry: ManagedFields) => !entry.subresource && ADOPTED.some(([name, operation]) => entry.manager.startsWith(name) && entry.operation === operation);
  const adopted = entries.filter(isAdopted);
  if (adopted.length === 0) return undefined;
  const isOurs = (entry: ManagedFields) => entry.manager === manager && entry.operation === "Apply" && !entry.subresource;
  const ours = entries.find(isOurs) ?? { ...adopted[0], manager, operation: "Apply" };
  const fieldsV1 = adopted.reduce((fields, entry) => mergeFields(fields, entry.fieldsV1 ?? {}), ours.fieldsV1 ?? {});
  return [...entries.filter((entry) => !isAdopted(entry) && !isOurs(entry)), { ...ours, fieldsV1 }];
}

/** Whether server-side apply takes fields from other managers. */
export function patchForce(inputs: Props, live: KubeObject | undefined, enabled: boolean, preview: boolean): boolean {
  if (annotation(inputs, "pulumi.com/patchForce") === "true" || enabled) return true;
  const managed = live?.metadata.managedFields ?? [];
  // In a preview the fields of our own create have not been taken over yet.
  if (preview) return live === undefined || managed.some(({ manager, operation }) => operation === "Update" && [CREATE_MANAGER, "pulumi-resource-kubernetes"].includes(manager));
  return live !== undefined && managed.length === 0;
}

/** The deletion's propagation policy. */
export function propagationPolicy(value: string | undefined): string {
  return { orphan: "Orphan", background: "Background" }[value?.toLowerCase() ?? ""] ?? "Foreground";
}

/** Inputs for an update that honours ignoreChanges: another manager's field is left out, else the live value is kept. */
export function keepIgnored(inputs: Props, live: KubeObject, manager: string, ignoreChanges: string[]): Props {
  const result = structuredClone(inputs);
  for (const path of ignoreChanges.map(parsePath)) {
    const managedBy = (ours: boolean) => (live.metadata.managedFields ?? []).some((entry) =>
      (entry.manager === manager) === ours && at(entry.fieldsV1, path.map((part) => `f:${part}`)) !== undefined);
    const parent = at(result, path.slice(0, -1));
    const last = path[path.length - 1];
    const kept = at(live, path);
    if (!isObject(parent)) continue;
    if (managedBy(false) && !managedBy(true)) delete parent[last];
    else if (kept !== undefined) parent[last] = kept;
  }
  return result;
}
