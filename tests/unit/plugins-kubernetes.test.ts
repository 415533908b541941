import fc from "fast-check";
import { PropertyDiff } from "@pulumi/pulumi/proto/provider_pb";
import {
  SETTLE_MS, claimVerdict, conditionFor, customCondition, daemonSetVerdict, deploymentVerdict, ingressVerdict, jobVerdict, podReasons, podVerdict, serviceVerdict,
  statefulSetVerdict, timeoutSeconds, type Situation,
} from "../../sandbox/plugins/kubernetes-await";
import {
  adoptManagedFields, annotateSecrets, autoName, canonicalQuantity, checkpoint, diffObjects, forceNewFields, keepIgnored, kindOfType, newFieldManager, normalize, parseCheckpoint,
  parsePath, patchForce, propagationPolicy, prune, toKubernetes, touches, type KubeObject,
} from "../../sandbox/plugins/kubernetes-objects";
import { UNKNOWN, containsSecret, isSecret, pathString, reveal, secret, type Props } from "../../sandbox/plugins/rpc";

const { Kind } = PropertyDiff;
const object = (apiVersion: string, kind: string, rest: object = {}): KubeObject => ({ apiVersion, kind, metadata: { name: "x", namespace: "n", uid: "u" }, ...rest });
const now = (related: Situation["related"] = {}, elapsedMs = 0): Situation => ({ related, elapsedMs });
const condition = (type: string, status: string, reason = "", message = "") => ({ type, status, reason, message });

describe("names", () => {
  it("are the resource's name and eight hex digits", () => {
    expect(autoName("web", new Uint8Array())).toMatch(/^web-[0-9a-f]{8}$/);
    expect(newFieldManager()).toMatch(/^pulumi-kubernetes-[0-9a-f]{8}$/);
  });
  it("follow the engine's seed, and differ without one", () => {
    const seed = new Uint8Array([1, 2, 3]);
    expect(autoName("web", seed)).toBe(autoName("web", seed));
    expect(autoName("web", seed)).not.toBe(autoName("web", new Uint8Array([1, 2, 4])));
    expect(autoName("web", new Uint8Array())).not.toBe(autoName("web", new Uint8Array()));
  });
  it("of types lead to the kind, also for Patch resources", () => {
    expect(kindOfType("kubernetes:core/v1:ConfigMap")).toEqual({ apiVersion: "v1", kind: "ConfigMap" });
    expect(kindOfType("kubernetes:apps/v1:DeploymentPatch")).toEqual({ apiVersion: "apps/v1", kind: "Deployment" });
    expect(kindOfType("kubernetes:example.com/v1:Patch")).toEqual({ apiVersion: "example.com/v1", kind: "Patch" });
  });
});

describe("quantities", () => {
  it.each([
    ["1000m", "1"], ["0.5", "500m"], ["1024Mi", "1Gi"], ["1.5Gi", "1536Mi"], ["512Mi", "512Mi"], ["15G", "15G"], ["2500k", "2500k"], ["1e3", "1e3"], ["0", "0"],
    ["100", "100"], ["1000", "1k"], ["0.5Ki", "512"], ["-1000m", "-1"], ["1048576Ki", "1Gi"],
  ])("%s is written %s", (text, canonical) => expect(canonicalQuantity(text)).toBe(canonical));
  it.each(["", "abc", "1Zi", "--1", "."])("%j is left alone", (text) => expect(canonicalQuantity(text)).toBe(text));
  it("are canonical after one pass", () => {
    fc.assert(fc.property(fc.integer({ min: 0, max: 1_000_000 }), fc.constantFrom("", "m", "k", "M", "G", "Ki", "Mi", "Gi"), (value, unit) => {
      const once = canonicalQuantity(`${value}${unit}`);
      expect(canonicalQuantity(once)).toBe(once);
    }));
  });
  it("of one size have one form", () => {
    fc.assert(fc.property(fc.integer({ min: 1, max: 100_000 }), (value) => {
      expect(canonicalQuantity(`${value * 1000}m`)).toBe(canonicalQuantity(`${value}`));
      expect(canonicalQuantity(`${value * 1024}Mi`)).toBe(canonicalQuantity(`${value}Gi`));
    }));
  });
});

describe("the normal form", () => {
  it("has a Secret's stringData as data, which wins", () => {
    expect(normalize({ apiVersion: "v1", kind: "Secret", data: { a: "b2xk", b: "Yg==" }, stringData: { a: "new" } })).toEqual({ apiVersion: "v1", kind: "Secret", data: { a: "bmV3", b: "Yg==" } });
  });
  it("has quantities as the server writes them, in built-in kinds only", () => {
    const spec = { containers: [{ resources: { requests: { cpu: 0.5, memory: "1024Mi" } }, env: [{ name: "requests", value: "1000m" }] }] };
    expect(normalize({ apiVersion: "v1", kind: "Pod", spec }).spec).toEqual({ containers: [{ resources: { requests: { cpu: "500m", memory: "1Gi" } }, env: [{ name: "requests", value: "1000m" }] }] });
    expect(normalize({ apiVersion: "example.com/v1", kind: "Pod", spec }).spec).toEqual(spec);
    const schema = { limits: { maxLength: 5 } };
    expect(normalize({ apiVersion: "apiextensions.k8s.io/v1", kind: "CustomResourceDefinition", spec: schema }).spec).toEqual(schema);
  });
  it("has no zero values that mean the same as none, and keeps those that do not", () => {
    const spec = { hostNetwork: false, automountServiceAccountToken: false, replicas: 0, volumes: [{ emptyDir: {} }], env: [{ name: "E", value: "" }], args: [], podSelector: {}, nodeSelector: {} };
    expect(normalize({ apiVersion: "v1", kind: "Pod", spec }).spec).toEqual({ automountServiceAccountToken: false, replicas: 0, volumes: [{ emptyDir: {} }], env: [{ name: "E" }], podSelector: {} });
    expect(normalize({ apiVersion: "example.com/v1", kind: "Pod", spec }).spec).toEqual(spec);
    expect(normalize({ apiVersion: "v1", kind: "ConfigMap", data: { value: "", requests: "1000m" } }).data).toEqual({ value: "", requests: "1000m" });
  });
  it("has no metadata that the server sets, and keeps the rest", () => {
    expect(normalize({ apiVersion: "v1", kind: "ConfigMap", metadata: { name: "a", uid: "1", resourceVersion: "2", managedFields: [], labels: { a: "b" } } }).metadata).toEqual({ name: "a", labels: { a: "b" } });
  });
  it("keeps unknown values", () => {
    expect(normalize({ apiVersion: "v1", kind: "Secret", stringData: { a: UNKNOWN } }).data).toEqual({ a: UNKNOWN });
    expect(normalize({ apiVersion: "v1", kind: "ConfigMap", metadata: UNKNOWN }).metadata).toBe(UNKNOWN);
  });
  it("reads x_kubernetes keys as Kubernetes writes them", () => {
    expect(toKubernetes({ a: [{ x_kubernetes_int_or_string: secret(true) }] })).toEqual({ a: [{ "x-kubernetes-int-or-string": true }] });
  });
});

describe("pruning", () => {
  it("keeps the fields of the inputs with the live values", () => {
    const live: Props = { spec: { replicas: 3, strategy: { type: "x" }, list: [{ a: 1, b: 2 }, { a: 3 }] }, status: {} };
    expect(prune(live, { spec: { replicas: 1, list: [{ a: 0 }] } })).toEqual({ spec: { replicas: 3, list: [{ a: 1 }] } });
  });
  it("keeps zero values that the server left out, and no other missing ones", () => {
    expect(prune({ a: {} }, { a: { readOnly: false, value: "", list: [], on: true }, gone: 1 })).toEqual({ a: { readOnly: false, value: "", list: [] } });
    expect(prune({ a: { readOnly: true } }, { a: { readOnly: false } })).toEqual({ a: { readOnly: true } });
  });
  it("of a live object by itself changes nothing", () => {
    fc.assert(fc.property(fc.jsonValue(), (value) => expect(prune(value as Props, value as Props)).toEqual(value)));
  });
});

describe("differences", () => {
  const diff = (live: Props, news: Props, ignore: string[] = []) => diffObjects(live, news, [], ignore).kinds;
  it("are told path by path", () => {
    const live = { a: { b: 1, gone: 2 }, list: [1, 2, 3], "x.y/z": "old" };
    const news = { a: { b: 2, added: 3 }, list: [1, 5], "x.y/z": "new" };
    expect(diff(live, news)).toEqual({ "a.b": Kind.UPDATE, "a.gone": Kind.DELETE, "a.added": Kind.ADD, "list[1]": Kind.UPDATE, "list[2]": Kind.DELETE, '["x.y/z"]': Kind.UPDATE });
  });
  it("are none between equal objects", () => {
    fc.assert(fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (value) => expect(diff(value as Props, structuredClone(value) as Props)).toEqual({})));
  });
  it("hold unknown values, which may differ", () => {
    expect(diff({ a: 1 }, { a: UNKNOWN, b: UNKNOWN })).toEqual({ a: Kind.UPDATE, b: Kind.ADD });
  });
  it("leave out what is to be ignored", () => {
    expect(diff({ spec: { replicas: 1, x: 1 } }, { spec: { replicas: 2, x: 2 } }, ["spec.replicas"])).toEqual({ "spec.x": Kind.UPDATE });
    expect(diff({ c: [{ image: "a" }] }, { c: [{ image: "b" }] }, ["c[*].image"])).toEqual({});
  });
  it("say which fields replace the object", () => {
    const changes = diffObjects({ spec: { selector: { matchLabels: { a: "1" } }, replicas: 1 } }, { spec: { selector: { matchLabels: { a: "2" } }, replicas: 2 } }, [".spec.selector"], []);
    expect(changes.kinds).toEqual({ "spec.selector.matchLabels.a": Kind.UPDATE_REPLACE, "spec.replicas": Kind.UPDATE });
    expect(changes.replaces).toEqual(["spec.selector.matchLabels.a"]);
  });
});

describe("replacement", () => {
  const fields = (apiVersion: string, kind: string, rest: Props = {}, patch = false) =>
    forceNewFields({ apiVersion, kind, ...rest }, { patch, mutableConfigMaps: false, mutableSecrets: false });
  it.each([
    ["apps/v1", "Deployment", ".spec.selector", ".spec.replicas"],
    ["batch/v1", "Job", ".spec.template", ".spec.suspend"],
    ["rbac.authorization.k8s.io/v1", "RoleBinding", ".roleRef", ".subjects"],
    ["storage.k8s.io/v1", "StorageClass", ".provisioner", ".reclaimPolicy"],
    ["v1", "PersistentVolumeClaim", ".spec.storageClassName", ".spec.resources"],
    ["v1", "Service", ".spec.clusterIP", ".spec.ports"],
    ["v1", "ConfigMap", ".data", ".immutable"],
    ["v1", "Secret", ".data", ".immutable"],
    ["example.com/v1", "Deployment", ".metadata.name", ".spec.selector"],
  ])("%s %s: %s replaces, %s does not", (apiVersion, kind, replaced, kept) => {
    expect(fields(apiVersion, kind)).toContain(replaced);
    expect(fields(apiVersion, kind)).not.toContain(kept);
    expect(fields(apiVersion, kind)).toEqual(expect.arrayContaining([".metadata.name", ".metadata.namespace"]));
  });
  it("of a Patch resource only follows its identity", () => {
    expect(fields("apps/v1", "Deployment", {}, true)).toEqual([".metadata.name", ".metadata.namespace"]);
  });
  it("of ConfigMaps and Secrets can be switched off, not for immutable ones", () => {
    const mutable = { patch: false, mutableConfigMaps: true, mutableSecrets: true };
    expect(forceNewFields({ apiVersion: "v1", kind: "ConfigMap" }, mutable)).not.toContain(".data");
    expect(forceNewFields({ apiVersion: "v1", kind: "ConfigMap", immutable: true }, mutable)).toContain(".data");
    expect(forceNewFields({ apiVersion: "v1", kind: "Secret" }, mutable)).toEqual(expect.arrayContaining([".type"]));
    expect(forceNewFields({ apiVersion: "v1", kind: "Secret" }, mutable)).not.toContain(".data");
  });
  it("is decided by the field, by what is inside it, and by what holds it", () => {
    expect(touches(".spec.selector", ["spec", "selector", "matchLabels", "a"], "x")).toBe(true);
    expect(touches(".spec.selector", ["spec"], { selector: {} })).toBe(true);
    expect(touches(".spec.selector", ["spec"], { replicas: 1 })).toBe(false);
    expect(touches(".spec.selector", ["spec", "replicas"], 1)).toBe(false);
    expect(touches(".spec.containers[*].image", ["spec", "containers", 1, "image"], "x")).toBe(true);
    expect(touches(".spec.containers[*].image", ["spec", "containers", 1, "name"], "x")).toBe(false);
    expect(touches(".spec.containers[*].image", ["spec", "containers"], [{ name: "a" }, { image: "b" }])).toBe(true);
  });
});

it("paths survive printing and reading", () => {
  const part = fc.oneof(fc.nat(99), fc.stringMatching(/^[a-z*][a-z./"[\]-]{0,8}$/));
  fc.assert(fc.property(fc.array(part, { minLength: 1 }), (path) => expect(parsePath(pathString(path))).toEqual(path)));
});

describe("secrets", () => {
  it("mark the same places in the outputs, and nothing beside them", () => {
    const outputs = annotateSecrets({ spec: { a: "1", b: "2", list: ["x"] }, extra: "3" }, { spec: { a: secret("1"), b: "2", list: [secret("x")] } });
    expect(outputs).toEqual({ spec: { a: secret("1"), b: "2", list: secret(["x"]) }, extra: "3" });
  });
  it("are always a Secret's data, also when read from the cluster", () => {
    const outputs = annotateSecrets({ kind: "Secret", data: { a: "eA==" }, metadata: { name: "s" } }, {});
    expect(isSecret(outputs.data)).toBe(true);
    expect(containsSecret(outputs.metadata)).toBe(false);
    expect(isSecret(annotateSecrets({ kind: "ConfigMap", data: { a: "x" } }, {}).data)).toBe(false);
  });
  it("stay secret in the state, inputs included, and come back whole", () => {
    const inputs = { apiVersion: "v1", kind: "Secret", metadata: { name: "s" }, data: { a: "eA==" } };
    const state = checkpoint(inputs, { ...inputs, type: "Opaque" }, inputs, "v1", "manager");
    expect(isSecret(state.data)).toBe(true);
    expect(isSecret((state.__inputs as Props).data)).toBe(true);
    expect(state.type).toBe("Opaque");
    expect(parseCheckpoint(state)).toEqual({ inputs, live: { ...inputs, type: "Opaque" }, apiVersion: "v1", fieldManager: "manager" });
  });
  it("are revealed at any depth", () => {
    fc.assert(fc.property(fc.jsonValue(), (value) => expect(reveal({ a: [secret(value as Props)] })).toEqual({ a: [value] })));
  });
});

describe("field managers", () => {
  const fields = (name: string): Props => ({ "f:spec": { [`f:${name}`]: {} } });
  it("of our own create and of kubectl hand their fields over; others keep theirs", () => {
    const entries = adoptManagedFields([
      { manager: "pulumi-kubernetes", operation: "Update", fieldsV1: fields("a") },
      { manager: "kubectl-edit", operation: "Update", fieldsV1: fields("b") },
      { manager: "kube-controller-manager", operation: "Update", fieldsV1: fields("c") },
      { manager: "pulumi-kubernetes", operation: "Update", subresource: "status", fieldsV1: fields("d") },
    ], "pulumi-kubernetes-1");
    expect(entries?.map(({ manager, operation }) => `${manager} ${operation}`)).toEqual(["kube-controller-manager Update", "pulumi-kubernetes Update", "pulumi-kubernetes-1 Apply"]);
    expect(entries?.[2].fieldsV1).toEqual({ "f:spec": { "f:a": {}, "f:b": {} } });
  });
  it("are left alone where there is nothing to take over", () => {
    expect(adoptManagedFields([{ manager: "other", operation: "Update", fieldsV1: fields("a") }], "m")).toBeUndefined();
  });
  it("are forced when the annotation or the provider says so, and in a preview of a new object", () => {
    const live = object("v1", "ConfigMap", { metadata: { name: "x", managedFields: [{ manager: "other", operation: "Apply" }] } });
    expect(patchForce({ metadata: { annotations: { "pulumi.com/patchForce": "true" } } }, live, false, false)).toBe(true);
    expect(patchForce({}, live, true, false)).toBe(true);
    expect(patchForce({}, live, false, false)).toBe(false);
    expect(patchForce({}, undefined, false, true)).toBe(true);
    expect(patchForce({}, live, false, true)).toBe(false);
  });
  it("of others own an ignored field; else the live value is kept", () => {
    const live = { ...object("apps/v1", "Deployment", { spec: { replicas: 5 } }), metadata: { name: "x", managedFields: [{ manager: "hpa", operation: "Update", fieldsV1: fields("replicas") }] } };
    expect(keepIgnored({ spec: { replicas: 1, x: 2 } }, live, "us", ["spec.replicas"])).toEqual({ spec: { x: 2 } });
    const ours = { ...live, metadata: { name: "x", managedFields: [{ manager: "us", operation: "Apply", fieldsV1: fields("replicas") }] } };
    expect(keepIgnored({ spec: { replicas: 1 } }, ours, "us", ["spec.replicas"])).toEqual({ spec: { replicas: 5 } });
    expect(keepIgnored({ spec: { replicas: 1 } }, ours, "us", [])).toEqual({ spec: { replicas: 1 } });
  });
});

it("deletion propagates in the foreground unless told otherwise", () => {
  expect([undefined, "nonsense", "Orphan", "background"].map(propagationPolicy)).toEqual(["Foreground", "Foreground", "Orphan", "Background"]);
});

describe("a Deployment", () => {
  const revision = { "deployment.kubernetes.io/revision": "1" };
  const deployment = (status: object, spec: object = { replicas: 2 }): KubeObject => ({ ...object("apps/v1", "Deployment", { spec, status }), metadata: { name: "d", namespace: "n", uid: "u", generation: 2, annotations: revision } });
  const replicaSet = (readyReplicas: number): KubeObject => ({ ...object("apps/v1", "ReplicaSet", { spec: { replicas: 2 }, status: { readyReplicas } }), metadata: { name: "rs", uid: "rs", annotations: revision, ownerReferences: [{ uid: "u" }] } });
  const done = { observedGeneration: 2, updatedReplicas: 2, conditions: [condition("Available", "True"), condition("Progressing", "True", "NewReplicaSetAvailable")] };
  it("is ready when its new ReplicaSet is", () => expect(deploymentVerdict(deployment(done), now({ ReplicaSet: [replicaSet(2)] })).ready).toBe(true));
  it("is not ready before the controller has seen it, or while Pods are missing", () => {
    expect(deploymentVerdict(deployment({ ...done, observedGeneration: 1 }), now({ ReplicaSet: [replicaSet(2)] })).ready).toBe(false);
    expect(deploymentVerdict(deployment(done), now({ ReplicaSet: [replicaSet(1)] })).ready).toBe(false);
    expect(deploymentVerdict(deployment(done), now({})).ready).toBe(false);
    expect(deploymentVerdict(deployment({ ...done, updatedReplicas: 0 }), now({ ReplicaSet: [replicaSet(2)] })).ready).toBe(false);
  });
  it("waits for its claims and names them", () => {
    const volumes = { replicas: 2, template: { spec: { volumes: [{ persistentVolumeClaim: { claimName: "home" } }] } } };
    const claim = (phase: string): KubeObject => ({ ...object("v1", "PersistentVolumeClaim", { status: { phase } }), metadata: { name: "home" } });
    const pending = deploymentVerdict(deployment(done, volumes), now({ ReplicaSet: [replicaSet(2)], PersistentVolumeClaim: [claim("Pending")] }));
    expect(pending.ready).toBe(false);
    expect(pending.reasons.join()).toContain('Failed to bind PersistentVolumeClaim(s): "home"');
    expect(deploymentVerdict(deployment(done, volumes), now({ ReplicaSet: [replicaSet(2)], PersistentVolumeClaim: [claim("Bound")] })).ready).toBe(true);
  });
  it("tells the Pod's reason first", () => {
    const pod: KubeObject = {
      ...object("v1", "Pod", { status: { conditions: [condition("Ready", "False", "ContainersNotReady", "containers with unready status: [app]")], containerStatuses: [{ name: "app", ready: false, state: { waiting: { reason: "ImagePullBackOff", message: "Back-off pulling image" } } }] } }),
      metadata: { name: "d-1", namespace: "n", ownerReferences: [{ uid: "rs" }] },
    };
    const { reasons } = deploymentVerdict(deployment({ ...done, conditions: [condition("Available", "False", "MinimumReplicasUnavailable", "no")] }), now({ ReplicaSet: [replicaSet(0)], Pod: [pod] }));
    expect(reasons[0]).toContain("[Pod n/d-1]");
    expect(reasons[0]).toContain("[ImagePullBackOff] Back-off pulling image");
    expect(reasons).toContain("Minimum number of live Pods was not attained");
  });
});

describe("a StatefulSet", () => {
  const set = (status: object, spec: object = { replicas: 2 }): KubeObject => ({ ...object("apps/v1", "StatefulSet", { spec, status }), metadata: { name: "s", uid: "u", generation: 2 } });
  const done = { observedGeneration: 2, replicas: 2, readyReplicas: 2, currentReplicas: 2, currentRevision: "a", updateRevision: "a" };
  it("is ready when all replicas are of the new revision", () => expect(statefulSetVerdict(set(done), now()).ready).toBe(true));
  it.each([{ observedGeneration: 1 }, { readyReplicas: 1 }, { updateRevision: "b" }, { currentReplicas: 1 }])("is not ready with %j", (change) => {
    const seen = statefulSetVerdict(set({ ...done, ...change }), now());
    expect(seen.ready).toBe(false);
    expect(seen.reasons.length).toBeGreaterThan(0);
  });
  it("with OnDelete does not wait for the revision", () => {
    expect(statefulSetVerdict(set({ ...done, updateRevision: "b" }, { replicas: 2, updateStrategy: { type: "OnDelete" } }), now()).ready).toBe(true);
  });
});

describe("other kinds", () => {
  it("a DaemonSet is ready when every node has its new Pod", () => {
    const set = (status: object): KubeObject => ({ ...object("apps/v1", "DaemonSet", { status }), metadata: { name: "d", uid: "u", generation: 1 } });
    const done = { observedGeneration: 1, desiredNumberScheduled: 2, currentNumberScheduled: 2, updatedNumberScheduled: 2, numberAvailable: 2, numberReady: 2 };
    expect(daemonSetVerdict(set(done), now()).ready).toBe(true);
    expect(daemonSetVerdict(set({ ...done, updatedNumberScheduled: 1 }), now()).ready).toBe(false);
    expect(daemonSetVerdict(set({}), now()).ready).toBe(false);
  });
  it("a Job is ready when complete, and fails at once when it has failed", () => {
    const job = (conditions: object[]) => object("batch/v1", "Job", { status: { conditions } });
    expect(jobVerdict(job([condition("Complete", "True")]), now())).toMatchObject({ ready: true });
    expect(jobVerdict(job([condition("Failed", "True", "BackoffLimitExceeded", "too often")]), now())).toMatchObject({ ready: false, failed: true, reasons: ["[BackoffLimitExceeded] too often"] });
    expect(jobVerdict(job([]), now())).toMatchObject({ ready: false });
    expect(jobVerdict(job([]), now()).failed).toBeUndefined();
  });
  it("a Pod is ready when its condition says so or it has succeeded", () => {
    expect(podVerdict(object("v1", "Pod", { status: { conditions: [condition("Ready", "True")] } })).ready).toBe(true);
    expect(podVerdict(object("v1", "Pod", { status: { phase: "Succeeded" } })).ready).toBe(true);
    expect(podVerdict(object("v1", "Pod", { status: { phase: "Pending" } })).ready).toBe(false);
  });
  it("a Pod tells why it cannot be scheduled, and how it crashed", () => {
    expect(podReasons(object("v1", "Pod", { status: { conditions: [condition("PodScheduled", "False", "Unschedulable", "0/1 nodes are available")] } }))).toEqual(["[Pod n/x]: 0/1 nodes are available"]);
    const crashed = { name: "a", ready: false, state: { waiting: { reason: "CrashLoopBackOff", message: "back-off" } }, lastState: { terminated: { reason: "Error", exitCode: 3, finishedAt: "t" } } };
    expect(podReasons(object("v1", "Pod", { status: { containerStatuses: [crashed] } }))[0]).toMatch(/CrashLoopBackOff.*exit code 3/);
    const creating = { name: "a", ready: false, state: { waiting: { reason: "ContainerCreating" } } };
    expect(podReasons(object("v1", "Pod", { status: { containerStatuses: [creating] } }))).toEqual(['[Pod n/x]: container "a": [ContainerCreating]']);
    expect(podReasons(object("v1", "Pod", { status: { phase: "Succeeded", containerStatuses: [creating] } }))).toEqual([]);
  });
  it("a Service waits for its Pods, or for none to appear", () => {
    const service = (spec: object, status = {}) => object("v1", "Service", { spec, status });
    const endpoints = (subsets: object[]) => ({ Endpoints: [object("v1", "Endpoints", { subsets })] });
    const selector = { selector: { app: "a" } };
    expect(serviceVerdict(service(selector), now(endpoints([{ addresses: [{}] }]))).ready).toBe(true);
    expect(serviceVerdict(service(selector), now(endpoints([{ addresses: [{}], notReadyAddresses: [{}] }]))).ready).toBe(false);
    expect(serviceVerdict(service(selector), now(endpoints([{ notReadyAddresses: [{}] }]), SETTLE_MS)).ready).toBe(false);
    expect(serviceVerdict(service(selector), now({})).ready).toBe(false);
    expect(serviceVerdict(service(selector), now({}, SETTLE_MS)).ready).toBe(true);
    expect(serviceVerdict(service({ ...selector, clusterIP: "None" }), now()).ready).toBe(true);
    expect(serviceVerdict(service({}), now()).ready).toBe(true);
    expect(serviceVerdict(service({ type: "LoadBalancer" }), now()).ready).toBe(false);
    expect(serviceVerdict(service({ type: "LoadBalancer" }, { loadBalancer: { ingress: [{}] } }), now()).ready).toBe(true);
  });
  it("an Ingress waits for its Services' endpoints and its address", () => {
    const ingress = (addresses: object[]) => object("networking.k8s.io/v1", "Ingress", { spec: { rules: [{ http: { paths: [{ backend: { service: { name: "web" } } }] } }] }, status: { loadBalancer: { ingress: addresses } } });
    const web = { ...object("v1", "Endpoints"), metadata: { name: "web" } };
    expect(ingressVerdict(ingress([{ ip: "1" }]), now({ Endpoints: [web] })).ready).toBe(true);
    expect(ingressVerdict(ingress([]), now({ Endpoints: [web] })).ready).toBe(false);
    expect(ingressVerdict(ingress([{ ip: "1" }]), now()).ready).toBe(false);
    expect(ingressVerdict(ingress([{ ip: "1" }]), now({}, SETTLE_MS)).ready).toBe(true);
    expect(ingressVerdict(ingress([]), now({ Endpoints: [web] })).reasons).toEqual(["Ingress .status.loadBalancer field was not updated with a hostname/IP address"]);
  });
  it("a claim waits to be bound, unless it waits for its first consumer", () => {
    const claim = (phase: string) => object("v1", "PersistentVolumeClaim", { spec: { storageClassName: "sc" }, status: { phase } });
    const storageClass = (volumeBindingMode: string) => ({ StorageClass: [{ ...object("storage.k8s.io/v1", "StorageClass", { volumeBindingMode }), metadata: { name: "sc" } }] });
    expect(claimVerdict(claim("Bound"), now()).ready).toBe(true);
    expect(claimVerdict(claim("Pending"), now(storageClass("WaitForFirstConsumer"))).ready).toBe(true);
    expect(claimVerdict(claim("Pending"), now(storageClass("Immediate"))).ready).toBe(false);
    expect(claimVerdict(claim("Lost"), now(storageClass("WaitForFirstConsumer"))).ready).toBe(false);
  });
});

describe("annotations of a wait", () => {
  const deployment = object("apps/v1", "Deployment", { status: { phase: "Good", conditions: [condition("Ready", "True")], list: [{ name: "a", value: 7 }] } });
  it("skip it, replace its condition, or leave the kind's own", () => {
    expect(conditionFor(deployment, { "pulumi.com/skipAwait": "true" })).toBeUndefined();
    expect(conditionFor(deployment, { "pulumi.com/skipAwait": "false" })).toBeDefined();
    expect(conditionFor(object("v1", "ConfigMap"), {})).toBeUndefined();
    expect(conditionFor(object("v1", "ConfigMap"), { "pulumi.com/waitFor": "condition=Ready" })).toBeDefined();
  });
  it.each([
    ["condition=Ready", true], ["condition=Ready=False", false], ["condition=Missing", false], ["jsonpath={.status.phase}=Good", true], ["jsonpath={.status.phase}=Bad", false],
    ["jsonpath={.status.phase}", true], ["jsonpath={.status.none}", false], ['jsonpath={.status.list[?(@.name=="a")].value}=7', true], ["jsonpath={.status.list[0].value}=8", false],
    ['["condition=Ready", "jsonpath={.status.phase}=Bad"]', false],
  ])("waitFor %s holds: %s", (text, holds) => expect(customCondition(text).evaluate(deployment, now()).ready).toBe(holds));
  it("waitFor refuses what it cannot read", () => expect(() => customCondition("phase=Good")).toThrow(/pulumi.com\/waitFor/));
  it("set the time: option, then annotation, then ten minutes", () => {
    expect(timeoutSeconds(5, "7")).toBe(5);
    expect(timeoutSeconds(0, "7")).toBe(7);
    expect(timeoutSeconds(0, "soon")).toBe(600);
    expect(timeoutSeconds(0, undefined)).toBe(600);
  });
});
