// Stand-in for pulumi-resource-command, the official Command provider, on machines without Pulumi's release page.
import { randomBytes } from "node:crypto";
import { Empty } from "google-protobuf/google/protobuf/empty_pb";
import { PluginAttach, PluginInfo } from "@pulumi/pulumi/proto/plugin_pb";
import { ResourceProviderService } from "@pulumi/pulumi/proto/provider_grpc_pb";
import {
  CheckFailure, CheckResponse, ConfigureResponse, CreateResponse, DiffResponse, InvokeResponse, PropertyDiff, ReadResponse, UpdateResponse,
  type CheckRequest, type CreateRequest, type DeleteRequest, type DiffRequest, type InvokeRequest, type ReadRequest, type UpdateRequest,
} from "@pulumi/pulumi/proto/provider_pb";
import { copyToRemote, runLocal, runRemote, type CommandSettings, type Connection, type Output, type RunContext } from "./command-run";
import {
  UNKNOWN, connectEngine, containsUnknown, deepEqual, engineAddress, fromStruct, isObject, isSecret, pathString, reveal, runPlugin, secret, toStruct,
  type Engine, type Handlers, type Props, type Value,
} from "./rpc";

const CONNECTION_DEFAULTS = { user: "root", port: 22, dialErrorLimit: 10, perDialTimeout: 15 };
const SECRET_FIELDS = ["password", "privateKey", "privateKeyPassword"];
const COPY = "command:remote:CopyToRemote";
const TYPES = ["command:local:Command", "command:remote:Command", COPY];

/** A connection with its defaults filled in and its credentials marked secret. */
function completeConnection(value: Value): Value {
  const plain = isSecret(value) ? value.value : value;
  if (!isObject(plain)) return plain;
  const complete: Props = { ...CONNECTION_DEFAULTS, ...plain };
  for (const field of SECRET_FIELDS) if (field in complete) complete[field] = secret(complete[field]);
  if (complete.proxy !== undefined) complete.proxy = completeConnection(complete.proxy);
  return complete;
}

/** Checks a resource's inputs and fills in defaults. */
export function checkInputs(type: string, news: Props): { inputs: Props; failures: { property: string; reason: string }[] } {
  const failures: { property: string; reason: string }[] = [];
  const inputs = { ...news };
  if (!TYPES.includes(type)) failures.push({ property: "", reason: `the sandbox's stand-in for pulumi-command has no resource ${type}` });
  for (const property of ["assetPaths", "archivePaths"].filter((name) => inputs[name] !== undefined)) {
    failures.push({ property, reason: "not supported by the sandbox's stand-in for pulumi-command" });
  }
  const required = type === COPY ? ["connection", "source", "remotePath"] : type === "command:remote:Command" ? ["connection"] : [];
  for (const property of required.filter((name) => inputs[name] === undefined)) {
    failures.push({ property, reason: `missing required property '${property}'` });
  }
  if (inputs.connection !== undefined) {
    const connection = completeConnection(inputs.connection);
    if (isObject(connection) && connection.host === undefined) failures.push({ property: "connection.host", reason: "missing required property 'host'" });
    inputs.connection = secret(connection);
  }
  return { inputs, failures };
}

/** What changed between two property bags, path by path; a secret counts as one value. */
export function diffProps(olds: Props, news: Props, path: (string | number)[] = []): Record<string, PropertyDiff.Kind> {
  const changes: Record<string, PropertyDiff.Kind> = {};
  const compare = (a: Value | undefined, b: Value | undefined, at: (string | number)[]): void => {
    if (deepEqual(a, b)) return;
    if (isObject(a) && isObject(b) && !isSecret(a) && !isSecret(b)) Object.assign(changes, diffProps(a, b, at));
    else if (Array.isArray(a) && Array.isArray(b)) for (let i = 0; i < Math.max(a.length, b.length); i++) compare(a[i], b[i], [...at, i]);
    else changes[pathString(at)] = a === undefined ? PropertyDiff.Kind.ADD : b === undefined ? PropertyDiff.Kind.DELETE : PropertyDiff.Kind.UPDATE;
  };
  for (const key of new Set([...Object.keys(olds), ...Object.keys(news)])) {
    if (!key.startsWith("__") && key !== "version") compare(olds[key], news[key], [...path, key]);
  }
  return changes;
}

/** The inputs within a resource's state: everything but what the command printed. */
const inputsOf = (state: Props): Props => Object.fromEntries(Object.entries(state).filter(([key]) => key !== "stdout" && key !== "stderr"));
const outputOf = (state: Props): Partial<Output> => {
  const { stdout, stderr } = reveal(state) as Partial<Output>;
  return { stdout, stderr };
};

/** The provider's methods. */
export function commandProvider(engine: Engine): Handlers {
  const cancelled = new AbortController();

  const context = (urn: string, timeoutSeconds: number): RunContext => ({
    status: (message) => engine.status("info", urn, message),
    log: (severity, message) => engine.log(severity, urn, message),
    signal: timeoutSeconds > 0 ? AbortSignal.any([cancelled.signal, AbortSignal.timeout(timeoutSeconds * 1000)]) : cancelled.signal,
  });

  /** Runs the first of the named scripts that is given; without one the last output stands. */
  const run = async (urn: string, timeout: number, props: Props, previous: Partial<Output>, scripts: string[]): Promise<Partial<Output>> => {
    const plain = reveal(props) as Props;
    const command = scripts.map((name) => plain[name]).find((script) => typeof script === "string");
    if (typeof command !== "string") return { stdout: previous.stdout ?? "", stderr: previous.stderr ?? "" };
    const settings = plain as CommandSettings;
    const running = plain.connection === undefined
      ? runLocal(command, settings, previous, context(urn, timeout))
      : runRemote(plain.connection as unknown as Connection, command, settings, previous, context(urn, timeout));
    return running.finally(() => engine.delivered());
  };
  const copy = (urn: string, timeout: number, props: Props): Promise<void> => {
    const plain = reveal(props) as Props;
    return copyToRemote(plain.connection as unknown as Connection, plain.source, String(plain.remotePath), context(urn, timeout));
  };
  const isCopy = (urn: string) => urn.includes(`${COPY}::`);

  return {
    getPluginInfo: async () => {
      const info = new PluginInfo();
      info.setVersion("1.2.1");
      return info;
    },
    checkConfig: async (request: CheckRequest) => {
      const response = new CheckResponse();
      response.setInputs(request.getNews());
      return response;
    },
    diffConfig: async () => new DiffResponse(),
    configure: async () => {
      const response = new ConfigureResponse();
      response.setAcceptsecrets(true);
      response.setSupportspreview(true);
      return response;
    },
    check: async (request: CheckRequest) => {
      const type = request.getUrn().split("::")[2]?.split("$").pop() ?? "";
      const { inputs, failures } = checkInputs(type, fromStruct(request.getNews()));
      const response = new CheckResponse();
      response.setInputs(toStruct(inputs));
      for (const failure of failures) {
        const message = new CheckFailure();
        message.setProperty(failure.property);
        message.setReason(failure.reason);
        response.addFailures(message);
      }
      return response;
    },
    diff: async (request: DiffRequest) => {
      const olds = request.hasOldInputs() ? fromStruct(request.getOldInputs()) : inputsOf(fromStruct(request.getOlds()));
      const changes = Object.entries(diffProps(olds, fromStruct(request.getNews())));
      const response = new DiffResponse();
      response.setChanges(changes.length > 0 ? DiffResponse.DiffChanges.DIFF_SOME : DiffResponse.DiffChanges.DIFF_NONE);
      response.setHasdetaileddiff(true);
      for (const [path, kind] of changes) {
        // An element's change replaces by way of the SDK's replaceOnChanges; only the whole list is decided here.
        const detail = new PropertyDiff();
        detail.setKind(path === "triggers" ? kind + 1 : kind);
        response.getDetaileddiffMap().set(path, detail);
        if (path === "triggers") response.addReplaces(path);
      }
      return response;
    },
    create: async (request: CreateRequest) => {
      const inputs = fromStruct(request.getProperties());
      const urn = request.getUrn();
      const response = new CreateResponse();
      const name = urn.split("::").pop() ?? "";
      response.setId(`${isCopy(urn) ? "" : name}${randomBytes(4).toString("hex")}`);
      let output: Props = {};
      if (isCopy(urn)) await (request.getPreview() || copy(urn, request.getTimeout(), inputs));
      else output = request.getPreview() ? { stdout: UNKNOWN, stderr: UNKNOWN } : await run(urn, request.getTimeout(), inputs, {}, ["create"]) as Props;
      response.setProperties(toStruct({ ...inputs, ...output }));
      return response;
    },
    update: async (request: UpdateRequest) => {
      const olds = fromStruct(request.getOlds());
      const news = fromStruct(request.getNews());
      const urn = request.getUrn();
      const changed = !deepEqual(inputsOf(olds), news) || containsUnknown(news);
      let output: Props = {};
      const copied = deepEqual(olds.source, news.source) && olds.remotePath === news.remotePath;
      if (isCopy(urn)) await (request.getPreview() || copied || copy(urn, request.getTimeout(), news));
      else if (request.getPreview()) output = changed ? { stdout: UNKNOWN, stderr: UNKNOWN } : { stdout: olds.stdout, stderr: olds.stderr };
      else output = await run(urn, request.getTimeout(), news, outputOf(olds), ["update", "create"]) as Props;
      const response = new UpdateResponse();
      response.setProperties(toStruct({ ...news, ...output }));
      return response;
    },
    read: async (request: ReadRequest) => {
      const response = new ReadResponse();
      response.setId(request.getId());
      response.setProperties(request.getProperties());
      response.setInputs(request.getInputs());
      return response;
    },
    delete: async (request: DeleteRequest) => {
      const state = fromStruct(request.getProperties());
      if (!isCopy(request.getUrn())) await run(request.getUrn(), request.getTimeout(), inputsOf(state), outputOf(state), ["delete"]);
      return new Empty();
    },
    invoke: async (request: InvokeRequest) => {
      const args = fromStruct(request.getArgs());
      if (request.getTok() !== "command:local:run") throw new Error(`unknown function ${request.getTok()}`);
      const output = await run("", 0, { ...args, create: args.command }, {}, ["create"]);
      const response = new InvokeResponse();
      response.setReturn(toStruct({ ...args, ...output }));
      return response;
    },
    cancel: async () => {
      cancelled.abort();
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
  return runPlugin(ResourceProviderService, commandProvider(connectEngine(engineAddress(process.argv.slice(2)))));
}
