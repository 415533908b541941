// Stand-in for pulumi-resource-kubernetes, the official Kubernetes provider, on machines without Pulumi's release page.
import type { ServerUnaryCall } from "@grpc/grpc-js";
import { Empty } from "google-protobuf/google/protobuf/empty_pb";
import { PluginInfo, type PluginAttach } from "@pulumi/pulumi/proto/plugin_pb";
import { ResourceProviderService } from "@pulumi/pulumi/proto/provider_grpc_pb";
import {
  CheckFailure, CheckRequest, CheckResponse, ConfigureResponse, CreateResponse, DiffResponse, InvokeResponse, PropertyDiff, ReadResponse, UpdateResponse,
  type ConfigureRequest, type CreateRequest, type DeleteRequest, type DiffRequest, type InvokeRequest, type ReadRequest, type UpdateRequest,
} from "@pulumi/pulumi/proto/provider_pb";
import { NotReadyError, awaitDeleted, awaitReady, checkReady, conditionFor, timeoutSeconds } from "./kubernetes-await";
import { KubeClient, loadTarget, unreachable, type KubeSettings, type Query } from "./kubernetes-client";
import {
  AUTONAMED, ApiError, CREATE_MANAGER, NoKindError, adoptManagedFields, annotateSecrets, annotation, at, autoName, checkpoint, diffObjects, forceNewFields, keepIgnored, kindOfType,
  newFieldManager, normalize, parseCheckpoint, patchForce, propagationPolicy, prune, toKubernetes, type KubeObject,
} from "./kubernetes-objects";
import {
  InitFailedError, UNKNOWN, connectEngine, containsUnknown, deepEqual, engineAddress, fromStruct, isObject, reveal, runPlugin, toStruct, type Engine, type Handlers, type Props,
} from "./rpc";

/** Creates that fail because the namespace or kind is not there yet are tried again: 5 times, from 1 s on. */
const CREATE_RETRIES = 5;
const EXISTS_HELP = `

The resource already exists in the cluster. This can happen when:

  - Renaming a Pulumi resource: use an alias to preserve the identity,
    or use deleteBeforeReplace if the resource needs replacement.
  - Managing an existing resource: use a Patch resource (e.g. NamespacePatch)
    to manage specific fields without owning the resource lifecycle.
  - Adopting a resource into Pulumi: use \`pulumi import\`.
  - Intentional upsert: set upsertExistingObjects on the provider.`;
const CONFLICT_HELP = "server-side apply field conflict detected, see https://www.pulumi.com/registry/packages/kubernetes/how-to-guides/" +
  "managing-resources-with-server-side-apply/#handle-field-conflicts-on-existing-resources for troubleshooting help";

const typeOf = (urn: string): string => urn.split("::")[2]?.split("$").pop() ?? "";
const isPatch = (urn: string, kind: unknown): boolean => typeOf(urn).split(":").pop() === `${String(kind)}Patch`;
const idOf = ({ metadata: { namespace, name } }: KubeObject): string => (namespace ? `${namespace}/${name}` : name);
const describe = (object: Props): string => {
  const { name, namespace } = (isObject(object.metadata) ? object.metadata : {}) as { name?: string; namespace?: string };
  return `${String(object.kind)} ${namespace ? `${namespace}/` : ""}${name}`;
};

/** The error's message with what helps against it. */
function explain(error: unknown, manager: string): Error {
  if (!(error instanceof ApiError)) return error as Error;
  if (error.reason === "AlreadyExists") error.message += EXISTS_HELP;
  if (error.reason === "Conflict") error.message = `${CONFLICT_HELP}\nThe resource managed by field manager "${manager}" had an apply conflict: ${error.message}`;
  return error;
}

/** Provider options that this stand-in does not have; refused rather than ignored. */
const UNSUPPORTED = ["renderYamlToDirectory", "alwaysRender"];

export class KubernetesProvider {
  private readonly cancelled = new AbortController();
  private client?: KubeClient;
  /** Why there is no cluster to talk to; undefined where there is one. */
  private unreachable?: string;
  private namespace = "";
  private readonly flags: Record<string, boolean> = {};
  /** Scopes of the custom kinds that this program defines, known before the server serves them. */
  private readonly customScopes = new Map<string, string>();

  constructor(private readonly engine: Engine) {}

  private flag(variables: Map<string, string>, name: string, variable: string, otherwise = false): void {
    const value = variables.get(`kubernetes:config:${name}`) ?? process.env[variable];
    this.flags[name] = value === undefined ? otherwise : value === "true";
  }

  async configure(request: ConfigureRequest): Promise<ConfigureResponse> {
    const variables = new Map(request.getVariablesMap().entries() as unknown as Iterable<[string, string]>);
    const option = (name: string): string | undefined => variables.get(`kubernetes:config:${name}`) || undefined;
    this.flag(variables, "deleteUnreachable", "PULUMI_K8S_DELETE_UNREACHABLE");
    this.flag(variables, "skipUpdateUnreachable", "PULUMI_K8S_SKIP_UPDATE_UNREACHABLE");
    this.flag(variables, "enableServerSideApply", "PULUMI_K8S_ENABLE_SERVER_SIDE_APPLY", true);
    this.flag(variables, "enablePatchForce", "PULUMI_K8S_ENABLE_PATCH_FORCE");
    this.flag(variables, "upsertExistingObjects", "PULUMI_K8S_UPSERT_EXISTING_OBJECTS");
    this.flag(variables, "enableConfigMapMutable", "PULUMI_K8S_ENABLE_CONFIGMAP_MUTABLE");
    this.flag(variables, "enableSecretMutable", "PULUMI_K8S_ENABLE_SECRET_MUTABLE");
    const refused = UNSUPPORTED.find((name) => option(name) && option(name) !== "false");
    if (refused) throw new Error(`kubernetes:${refused} is not supported by the sandbox's stand-in for the Kubernetes provider; put the official provider on PATH`);
    if (!this.flags.enableServerSideApply) throw new Error("kubernetes:enableServerSideApply cannot be switched off in the sandbox's stand-in for the Kubernetes provider");
    const settings: KubeSettings = { kubeconfig: option("kubeconfig"), context: option("context"), cluster: option("cluster"), namespace: option("namespace") };
    try {
      const target = loadTarget(settings);
      this.namespace = target.namespace;
      const client = new KubeClient(target, this.cancelled.signal);
      await client.discover().catch((error) => { throw new Error(unreachable(target, error)); });
      this.client = client;
    } catch (error) {
      this.unreachable = (error as Error).message;
    }
    const response = new ConfigureResponse();
    response.setAcceptsecrets(true);
    response.setSupportspreview(true);
    response.setSupportsAutonamingConfiguration(true);
    return response;
  }

  /** Says whether a different cluster is meant, in which case everything on it must be made anew. */
  async diffConfig(request: DiffRequest): Promise<DiffResponse> {
    const olds = reveal(fromStruct(request.getOlds())) as Props;
    const news = reveal(fromStruct(request.getNews())) as Props;
    const response = new DiffResponse();
    const changed = [...new Set([...Object.keys(olds), ...Object.keys(news)])].filter((key) => !deepEqual(olds[key], news[key]));
    if (changed.length === 0) {
      response.setChanges(DiffResponse.DiffChanges.DIFF_NONE);
      return response;
    }
    response.setChanges(DiffResponse.DiffChanges.DIFF_SOME);
    const connection = ["kubeconfig", "context", "cluster"];
    const unknown = connection.find((key) => news[key] === UNKNOWN);
    response.setDiffsList(unknown ? [unknown] : changed);
    const cluster = (props: Props): object | undefined => {
      try {
        return loadTarget(props as KubeSettings).cluster;
      } catch {
        return undefined;
      }
    };
    const identifier = "clusterIdentifier";
    if (olds[identifier] !== undefined && news[identifier] !== undefined) response.setReplacesList(changed.includes(identifier) ? [identifier] : []);
    else if (unknown) response.setReplacesList([unknown]);
    else if (connection.some((key) => changed.includes(key))) {
      const [before, after] = [cluster(olds), cluster(news)];
      if (before && after && !deepEqual(before as Props, after as Props)) response.setReplacesList(connection.filter((key) => changed.includes(key)));
    }
    return response;
  }

  private connected(): KubeClient {
    if (!this.client) throw new Error(`configured Kubernetes cluster is unreachable: ${this.unreachable ?? "the provider is not configured"}`);
    return this.client;
  }

  /** Whether objects of the kind live in namespaces; a kind that nobody knows is taken to. */
  private namespaced(apiVersion: string, kind: string): boolean {
    const scope = this.client?.scope(apiVersion, kind) ?? this.customScopes.get(`${apiVersion.split("/")[0]}/${kind}`);
    return scope !== "Cluster";
  }

  async check(request: CheckRequest): Promise<CheckResponse> {
    const response = new CheckResponse();
    const urn = request.getUrn();
    if (this.unreachable !== undefined && this.flags.skipUpdateUnreachable) {
      this.engine.log("warning", urn, "Cluster is unreachable but skipUpdateUnreachable flag is set to true, skipping...");
      response.setInputs(request.getOlds());
      return response;
    }
    // The official provider lets a preview pass here, which then proves nothing.
    if (this.unreachable !== undefined && !this.flags.deleteUnreachable) {
      const failure = new CheckFailure();
      failure.setReason(`configured Kubernetes cluster is unreachable: ${this.unreachable}`);
      response.addFailures(failure);
      response.setInputs(request.getNews());
      return response;
    }
    const news = fromStruct(request.getNews());
    const olds = toKubernetes(fromStruct(request.getOlds()));
    const inputs = normalize(toKubernetes(news));
    const { apiVersion, kind } = inputs;
    if (typeof kind === "string" && kind.endsWith("List") && /^kubernetes:[\w.]+\/\w+:\w+List$/.test(typeOf(urn))) {
      throw new Error("list resources exist for compatibility with YAML manifests and Helm charts, and cannot be created directly. Use the underlying resource type instead");
    }
    inputs.metadata ??= {};
    const { metadata } = inputs;
    if (isObject(metadata)) {
      if (!metadata.name && metadata.generateName) throw new Error("the `.metadata.generateName` field is not supported in Server-Side Apply mode");
      if (!metadata.name && isPatch(urn, kind)) throw new Error("patch resources require the `.metadata.name` field to be set");
      const named = (name: string): void => {
        metadata.name = name;
        if (metadata.annotations !== UNKNOWN) metadata.annotations = { ...(isObject(metadata.annotations) ? metadata.annotations : {}), [AUTONAMED]: "true" };
      };
      const oldName = at(olds, ["metadata", "name"]);
      if (!metadata.name && Object.keys(olds).length > 0) {
        if (annotation(olds, AUTONAMED) === "true" && typeof oldName === "string") named(oldName);
      } else if (!metadata.name) {
        const autonaming = request.getAutonaming();
        if (autonaming?.getMode() === CheckRequest.AutonamingOptions.Mode.DISABLE) throw new Error("autonaming is disabled, resource requires the .metadata.name field to be set");
        named(autonaming?.getProposedName() || autoName(urn.split("::").pop() ?? "", request.getRandomseed_asU8()));
      }
      if (!metadata.namespace && this.namespaced(String(apiVersion), String(kind))) metadata.namespace = this.namespace;
    }
    if (kind === "CustomResourceDefinition" && isObject(inputs.spec)) {
      this.customScopes.set(`${String(inputs.spec.group)}/${String(at(inputs.spec, ["names", "kind"]))}`, String(inputs.spec.scope));
    }
    response.setInputs(toStruct(annotateSecrets(structuredClone(inputs), news)));
    return response;
  }

  async diff(request: DiffRequest): Promise<DiffResponse> {
    const state = parseCheckpoint(fromStruct(request.getOlds()));
    const newProps = fromStruct(request.getNews());
    const inputs = normalize(toKubernetes(newProps));
    const lastInputs = normalize(state.inputs);
    const pruned = prune(state.live, lastInputs) as Props;
    const identity = (object: Props): Props => {
      const { namespace, ...metadata } = (isObject(object.metadata) ? object.metadata : {}) as Props;
      const full = this.namespaced(String(inputs.apiVersion), String(inputs.kind)) ? { ...metadata, namespace: namespace ?? "default" } : metadata;
      return { ...object, metadata: object.metadata === UNKNOWN ? UNKNOWN : full };
    };
    const [before, after] = [identity({ apiVersion: inputs.apiVersion, kind: inputs.kind, ...pruned }), identity(inputs)];
    const liveName = at(state.live, ["metadata", "name"]);
    if (at(after, ["metadata", "name"]) !== undefined && isObject(before.metadata) && liveName !== undefined) before.metadata.name = liveName;
    if (isObject(before.metadata)) delete before.metadata.resourceVersion;

    const forceNew = forceNewFields(inputs, {
      patch: isPatch(request.getUrn(), inputs.kind), mutableConfigMaps: this.flags.enableConfigMapMutable, mutableSecrets: this.flags.enableSecretMutable,
    });
    const changes = diffObjects(before, after, forceNew, request.getIgnorechangesList());
    if (annotation(inputs, "pulumi.com/replaceUnready") === "true" && inputs.kind === "Job" && this.client) {
      const job = await this.client.get(state.live as unknown as KubeObject).catch(() => undefined);
      const complete = (job?.status?.conditions as { type: string; status: string }[] | undefined)?.some(({ type, status }) => type === "Complete" && status === "True");
      if (job && !complete) changes.replaces.push('.metadata.annotations["pulumi.com/replaceUnready"]');
    }
    const response = new DiffResponse();
    response.setChanges(Object.keys(changes.kinds).length + changes.replaces.length > 0 ? DiffResponse.DiffChanges.DIFF_SOME : DiffResponse.DiffChanges.DIFF_NONE);
    response.setReplacesList(changes.replaces);
    response.setHasdetaileddiff(true);
    for (const [path, kind] of Object.entries(changes.kinds)) {
      const detail = new PropertyDiff();
      detail.setKind(kind);
      detail.setInputdiff(changes.inputDiffs.includes(path));
      response.getDetaileddiffMap().set(path, detail);
    }
    // Two objects cannot have one name: where the user chose it, the old one goes first.
    const chosen = at(after, ["metadata", "name"]);
    response.setDeletebeforereplace(changes.replaces.length > 0 && annotation(inputs, AUTONAMED) !== "true" &&
      chosen === liveName && deepEqual(at(after, ["metadata", "namespace"]), at(state.live, ["metadata", "namespace"])));
    return response;
  }

  /** Waits until the object is ready; a failure keeps the state, so that the next update can mend it. */
  private async ready(urn: string, object: KubeObject, inputs: Props, seconds: number, previous?: KubeObject): Promise<KubeObject> {
    const names = ["pulumi.com/skipAwait", "pulumi.com/waitFor"];
    const condition = conditionFor(object, Object.fromEntries(names.map((name) => [name, annotation(inputs, name)])));
    const done = condition
      ? await awaitReady(this.connected(), object, condition, {
        seconds: timeoutSeconds(seconds, annotation(inputs, "pulumi.com/timeoutSeconds")), previous, cancelled: this.cancelled.signal,
        status: (severity, message) => this.engine.status(severity, urn, message),
      })
      : object;
    this.engine.status("info", urn, "");
    await this.engine.delivered();
    return done;
  }

  private async submitNew(urn: string, inputs: Props, manager: string, preview: boolean): Promise<KubeObject> {
    const client = this.connected();
    const object = inputs as unknown as KubeObject;
    const dryRun: Query = preview ? { dryRun: "All" } : {};
    for (let attempt = 0; ; attempt++) {
      try {
        if (!isPatch(urn, inputs.kind) && !this.flags.upsertExistingObjects) return await client.create(object, { ...dryRun, fieldManager: CREATE_MANAGER });
        const force = String(patchForce(inputs, undefined, this.flags.enablePatchForce, preview));
        return await client.patch(object, inputs, { ...dryRun, fieldManager: manager, force });
      } catch (error) {
        const missing = error instanceof NoKindError || (error instanceof ApiError && error.code === 404);
        if (preview || !missing || attempt === CREATE_RETRIES || this.cancelled.signal.aborted) throw explain(error, manager);
        this.engine.status("info", urn, `Retry #${attempt}; creation failed: ${error.message}`);
        await new Promise((resolve) => setTimeout(resolve, 1000 * 2 ** attempt));
      }
    }
  }

  async create(request: CreateRequest): Promise<CreateResponse> {
    const [urn, preview] = [request.getUrn(), request.getPreview()];
    const props = fromStruct(request.getProperties());
    const inputs = toKubernetes(props);
    const response = new CreateResponse();
    response.setProperties(request.getProperties());
    // What cannot be tried out is taken as it is: unknown values, kinds that are yet to be defined, Patch resources.
    const opaque = containsUnknown(props) || !this.client?.scope(String(inputs.apiVersion), String(inputs.kind)) || isPatch(urn, inputs.kind);
    if (preview && opaque) return response;
    const manager = annotation(inputs, "pulumi.com/patchFieldManager") || newFieldManager();
    const state = (live: KubeObject): Props => checkpoint(inputs, live as unknown as Props, props, String(inputs.apiVersion), manager);
    let live: KubeObject;
    try {
      live = await this.submitNew(urn, inputs, manager, preview);
    } catch (error) {
      const { code, reason, details, message } = error as ApiError;
      // Namespaces that come with the same update, objects that a replacement deletes first, and missing rights cannot be previewed.
      const previewLimit = (code === 404 && details?.kind === "namespaces") || reason === "AlreadyExists" || code === 403 || /does not support dry run/.test(message);
      if (preview && error instanceof ApiError && previewLimit) return response;
      const hint = error instanceof NoKindError ? " because the Kubernetes API server reported that the apiVersion for this resource does not exist. Verify that any required CRDs have been created" : "";
      throw new Error(`${describe(inputs)} (resource "${urn}") was not successfully created by the Kubernetes API server${hint}: ${message}`);
    }
    if (preview) {
      delete live.status;
    } else {
      live = await this.ready(urn, live, inputs, request.getTimeout()).catch((error: Error) => {
        const seen = error instanceof NotReadyError ? error.object : live;
        const text = `resource "${urn}" was successfully created, but the Kubernetes API server reported that it failed to fully initialize or become live: ${error.message}`;
        throw new InitFailedError(text, idOf(seen), state(seen), [text, ...(error instanceof NotReadyError ? error.reasons : [])]);
      });
      response.setId(idOf(live));
      if (inputs.kind === "CustomResourceDefinition") await this.connected().discover();
    }
    response.setProperties(toStruct(state(live)));
    return response;
  }

  /** Takes over the fields of our own create and of kubectl; controllers may change the object meanwhile, then from the start. */
  private async adopt(live: KubeObject, manager: string): Promise<KubeObject> {
    const client = this.connected();
    for (let attempt = 0, seen = live; ; attempt++, seen = await client.get(live)) {
      const adopted = adoptManagedFields(seen.metadata.managedFields ?? [], manager);
      if (!adopted) return seen;
      try {
        return await client.patch(seen, [
          { op: "replace", path: "/metadata/managedFields", value: adopted },
          { op: "replace", path: "/metadata/resourceVersion", value: seen.metadata.resourceVersion },
        ], {});
      } catch (error) {
        if (!(error instanceof ApiError) || error.code !== 409 || attempt === 4) throw error;
      }
    }
  }

  /** Applies the inputs to the live object. */
  private async submitUpdate(urn: string, inputs: Props, live: KubeObject, manager: string, preview: boolean, ignoreChanges: string[]): Promise<KubeObject> {
    const client = this.connected();
    const dryRun: Query = preview ? { dryRun: "All" } : {};
    if (inputs.kind === "CustomResourceDefinition") {
      const metadata = { ...(inputs.metadata as Props), resourceVersion: live.metadata.resourceVersion ?? null };
      return client.replace({ ...inputs, metadata } as unknown as KubeObject, { ...dryRun, fieldManager: manager });
    }
    const current = preview || isPatch(urn, inputs.kind) ? live : await this.adopt(live, manager);
    const force = String(patchForce(inputs, current, this.flags.enablePatchForce, preview));
    return client.patch(live, keepIgnored(inputs, current, manager, ignoreChanges), { ...dryRun, fieldManager: manager, force });
  }

  async update(request: UpdateRequest): Promise<UpdateResponse> {
    const [urn, preview] = [request.getUrn(), request.getPreview()];
    const props = fromStruct(request.getNews());
    const inputs = normalize(toKubernetes(props));
    const response = new UpdateResponse();
    response.setProperties(request.getNews());
    if (preview && (containsUnknown(props) || !this.client?.scope(String(inputs.apiVersion), String(inputs.kind)))) return response;
    const client = this.connected();
    const old = parseCheckpoint(fromStruct(request.getOlds()));
    const oldManager = annotation(old.inputs, "pulumi.com/patchFieldManager") || old.fieldManager || newFieldManager();
    const manager = annotation(inputs, "pulumi.com/patchFieldManager") || old.fieldManager || oldManager;
    const state = (live: KubeObject): Props => checkpoint(inputs, live as unknown as Props, props, old.apiVersion ?? String(inputs.apiVersion), manager);
    const address = { ...old.live, apiVersion: inputs.apiVersion, kind: inputs.kind } as unknown as KubeObject;
    let live: KubeObject;
    try {
      const before = await client.get(address);
      live = await this.submitUpdate(urn, inputs, before, manager, preview, request.getIgnorechangesList());
      if (!preview) live = await this.ready(urn, live, inputs, request.getTimeout(), before);
    } catch (error) {
      if (preview && error instanceof ApiError && error.code === 403) return response;
      const { message } = explain(error, manager);
      const seen = await client.get(address).catch((reading: Error) => {
        throw new Error(`update of ${describe(inputs)} (resource "${urn}") failed: ${message}\nunable to get cluster state: ${reading.message}`);
      });
      const text = `the Kubernetes API server reported that ${describe(inputs)} failed to fully initialize or become live: ${message}`;
      throw new InitFailedError(text, idOf(seen), state(seen), [text, ...(error instanceof NotReadyError ? error.reasons : [])]);
    }
    if (!preview && oldManager !== manager) await this.relinquish(live, oldManager);
    response.setProperties(toStruct(state(live)));
    return response;
  }

  /** Gives up every field that the manager holds, by applying an object without any. */
  private async relinquish({ apiVersion, kind, metadata: { name, namespace } }: KubeObject, manager: string): Promise<void> {
    const empty: KubeObject = { apiVersion, kind, metadata: namespace ? { name, namespace } : { name } };
    await this.connected().patch(empty, empty, { fieldManager: manager });
  }

  private readonly deleteHint = "If the cluster was deleted, you can remove this resource from Pulumi state by rerunning the operation with the " +
    'PULUMI_K8S_DELETE_UNREACHABLE environment variable set to "true"';

  async read(request: ReadRequest): Promise<ReadResponse> {
    const urn = request.getUrn();
    const response = new ReadResponse();
    if (this.unreachable !== undefined) {
      if (this.flags.deleteUnreachable) return response;
      if (!this.flags.skipUpdateUnreachable) throw new Error(`failed to read resource state due to unreachable cluster: ${this.unreachable}. ${this.deleteHint}`);
      response.setId(request.getId());
      response.setProperties(request.getProperties());
      response.setInputs(request.getInputs());
      return response;
    }
    const [name, namespace] = request.getId().split("/").reverse();
    const oldProps = fromStruct(request.getInputs());
    const oldState = fromStruct(request.getProperties());
    const old = parseCheckpoint(oldState);
    let inputs = normalize(toKubernetes(oldProps));
    const imported = inputs.kind === undefined && old.live.kind === undefined;
    if (inputs.kind === undefined) {
      const { apiVersion, kind } = imported ? kindOfType(typeOf(urn)) : (old.live as unknown as KubeObject);
      inputs = { ...inputs, apiVersion, kind, metadata: { name, ...(namespace ? { namespace } : {}), ...(isObject(inputs.metadata) ? inputs.metadata : {}) } };
    }
    let live: KubeObject;
    try {
      live = await this.connected().get({ ...inputs, metadata: { name, namespace: namespace ?? at(inputs, ["metadata", "namespace"]) } } as unknown as KubeObject);
    } catch (error) {
      if (error instanceof NoKindError || (error instanceof ApiError && error.code === 404)) return response;
      throw error;
    }
    let liveInputs = prune(live as unknown as Props, inputs) as Props;
    if (imported) {
      const { status: _status, ...fields } = live as unknown as Props;
      liveInputs = normalize(fields);
      const annotations = at(liveInputs, ["metadata", "annotations"]);
      for (const key of ["deployment.kubernetes.io/revision", "kubectl.kubernetes.io/last-applied-configuration"]) if (isObject(annotations)) delete annotations[key];
    }
    const manager = annotation(inputs, "pulumi.com/patchFieldManager") || old.fieldManager || newFieldManager();
    const state = checkpoint(liveInputs, live as unknown as Props, oldProps, old.apiVersion ?? String(inputs.apiVersion), manager);
    const condition = imported ? undefined : conditionFor(live, { "pulumi.com/skipAwait": annotation(inputs, "pulumi.com/skipAwait") });
    if (condition) {
      await checkReady(this.connected(), live, condition).catch((error: NotReadyError) => {
        throw new InitFailedError(error.message, request.getId(), state, [error.message, ...(error.reasons ?? [])]);
      });
    }
    response.setId(request.getId() || idOf(live));
    response.setProperties(toStruct(state));
    response.setInputs(toStruct(annotateSecrets(structuredClone(liveInputs), oldProps)));
    return response;
  }

  async delete(request: DeleteRequest): Promise<Empty> {
    const urn = request.getUrn();
    const props = fromStruct(request.getProperties());
    const { inputs, live, apiVersion, fieldManager } = parseCheckpoint(props);
    if (this.unreachable !== undefined) {
      if (this.flags.deleteUnreachable) return new Empty();
      throw new Error(`configured Kubernetes cluster is unreachable: ${this.unreachable}. ${this.deleteHint}`);
    }
    const client = this.connected();
    const object = live as unknown as KubeObject;
    try {
      if (isPatch(urn, inputs.kind)) {
        await this.relinquish(object, annotation(inputs, "pulumi.com/patchFieldManager") || fieldManager || newFieldManager());
        return new Empty();
      }
      const leaving = await client.delete(object, propagationPolicy(annotation(inputs, "pulumi.com/deletionPropagationPolicy")));
      const mayLeave = ["Namespace", "Pod", "ReplicationController", "DaemonSet", "Deployment", "StatefulSet", "Job"].includes(object.kind);
      if (!leaving || (mayLeave && annotation(inputs, "pulumi.com/skipAwait") === "true")) return new Empty();
      await awaitDeleted(client, leaving, {
        seconds: timeoutSeconds(request.getTimeout(), annotation(inputs, "pulumi.com/timeoutSeconds")), cancelled: this.cancelled.signal,
        status: (severity, message) => this.engine.status(severity, urn, message),
      });
      await this.engine.delivered();
      return new Empty();
    } catch (error) {
      if (error instanceof NoKindError || (error instanceof ApiError && error.code === 404)) return new Empty();
      const required = error instanceof ApiError && isPatch(urn, inputs.kind) ? error.details.causes?.find(({ reason }) => reason === "FieldValueRequired") : undefined;
      if (required) {
        throw new Error(`this Patch resource is currently managing a required field, so it can't be deleted directly. Either set the \`retainOnDelete\` resource option, ` +
          `or transfer ownership of the field before deleting: ${required.field}`);
      }
      if (!(error instanceof NotReadyError)) throw error;
      const state = checkpoint(inputs, error.object as unknown as Props, props, apiVersion ?? object.apiVersion, fieldManager ?? CREATE_MANAGER);
      throw new InitFailedError(error.message, idOf(error.object), state, [error.message, ...error.reasons]);
    }
  }

  async invoke(request: InvokeRequest): Promise<InvokeResponse> {
    if (request.getTok() !== "kubernetes:yaml:decode") throw new Error(`the sandbox's stand-in for the Kubernetes provider has no function ${request.getTok()}`);
    const { text, defaultNamespace } = fromStruct(request.getArgs());
    const { parseAllDocuments } = await import("yaml");
    const objects = parseAllDocuments(String(text)).map((document) => document.toJS() as Props | null).filter((object): object is Props => object !== null);
    const items = objects.flatMap((object) => (object.kind === "List" && Array.isArray(object.items) ? (object.items as Props[]) : [object]));
    for (const item of items) {
      if (defaultNamespace && isObject(item.metadata) && !item.metadata.namespace && this.namespaced(String(item.apiVersion), String(item.kind))) item.metadata.namespace = defaultNamespace;
    }
    const response = new InvokeResponse();
    response.setReturn(toStruct({ result: items }));
    return response;
  }

  cancel(): void {
    this.cancelled.abort();
  }
}

/** The provider's methods. */
export function kubernetesProvider(engine: Engine): Handlers {
  const provider = new KubernetesProvider(engine);
  return {
    getPluginInfo: async () => {
      const info = new PluginInfo();
      info.setVersion("4.34.2");
      return info;
    },
    checkConfig: async (request: CheckRequest) => {
      const response = new CheckResponse();
      response.setInputs(request.getNews());
      return response;
    },
    diffConfig: (request: DiffRequest) => provider.diffConfig(request),
    configure: (request: ConfigureRequest) => provider.configure(request),
    check: (request: CheckRequest) => provider.check(request),
    diff: (request: DiffRequest) => provider.diff(request),
    create: (request: CreateRequest) => provider.create(request),
    read: (request: ReadRequest) => provider.read(request),
    update: (request: UpdateRequest) => provider.update(request),
    delete: (request: DeleteRequest) => provider.delete(request),
    invoke: (request: InvokeRequest) => provider.invoke(request),
    cancel: async (_request: unknown, _call: ServerUnaryCall<unknown, unknown>) => {
      provider.cancel();
      return new Empty();
    },
    attach: async (request: PluginAttach) => {
      Object.assign(engine, connectEngine(request.getAddress()));
      return new Empty();
    },
  };
}

/** Entry point of the bundled plugin. */
export function main(): Promise<void> {
  return runPlugin(ResourceProviderService, kubernetesProvider(connectEngine(engineAddress(process.argv.slice(2)))));
}
