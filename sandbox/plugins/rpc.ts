// Part of the sandbox's stand-ins for the official Pulumi plugins: what all of them share to speak the engine's gRPC protocol.
import * as grpc from "@grpc/grpc-js";
import { Any } from "google-protobuf/google/protobuf/any_pb";
import { Struct, type JavaScriptValue } from "google-protobuf/google/protobuf/struct_pb";
import { EngineClient } from "@pulumi/pulumi/proto/engine_grpc_pb";
import { LogRequest, LogSeverity } from "@pulumi/pulumi/proto/engine_pb";
import { ErrorResourceInitFailed } from "@pulumi/pulumi/proto/provider_pb";
import { Status } from "@pulumi/pulumi/proto/status_pb";

/** A property as it travels on the wire: JSON, with secrets, unknowns and assets as signed objects or marker strings. */
export type Value = null | boolean | number | string | Value[] | { [key: string]: Value };
/** A property bag on the wire. */
export type Props = { [key: string]: Value };

/** Marker string of a value that is not known yet (github.com/pulumi/pulumi sdk/nodejs/runtime/rpc.ts). */
export const UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9";
/** Key that tells what a signed object is (same source). */
export const SIGNATURE = "4dabf18193072939515e22adb298388d";
const SECRET = "1b47061264138c4ac30d75fd1eb44270";

/** No message to or from the engine is too large: the same limit as the official plugins (400 MiB). */
const CHANNEL_OPTIONS = { "grpc.max_receive_message_length": 400 << 20, "grpc.max_send_message_length": 400 << 20 };

export function isObject(value: unknown): value is { [key: string]: Value } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function isSecret(value: Value | undefined): value is { value: Value } & Props {
  return isObject(value) && value[SIGNATURE] === SECRET;
}

export function secret(value: Value): Value {
  return isSecret(value) ? value : { [SIGNATURE]: SECRET, value };
}

/** The same value with every secret wrapper taken off, at any depth. */
export function reveal(value: Value): Value {
  if (isSecret(value)) return reveal(value.value);
  if (Array.isArray(value)) return value.map(reveal);
  if (isObject(value)) return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, reveal(inner)]));
  return value;
}

/** Whether any part of the value satisfies the predicate. */
function some(value: Value | undefined, found: (value: Value) => boolean): boolean {
  if (value === undefined) return false;
  if (found(value)) return true;
  if (Array.isArray(value)) return value.some((inner) => some(inner, found));
  return isObject(value) && Object.values(value).some((inner) => some(inner, found));
}

export const containsSecret = (value: Value | undefined): boolean => some(value, isSecret);
export const containsUnknown = (value: Value | undefined): boolean => some(value, (inner) => inner === UNKNOWN);

/** Equality of plain JSON values; object keys in any order. */
export function deepEqual(a: Value | undefined, b: Value | undefined): boolean {
  if (a === b) return true;
  if (Array.isArray(a) && Array.isArray(b)) return a.length === b.length && a.every((inner, i) => deepEqual(inner, b[i]));
  if (!isObject(a) || !isObject(b)) return false;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => key in b && deepEqual(a[key], b[key]));
}

export function toStruct(props: object): Struct {
  return Struct.fromJavaScript(props as { [key: string]: JavaScriptValue });
}

export function fromStruct(struct: Struct | undefined): Props {
  return (struct?.toJavaScript() ?? {}) as Props;
}

/** A property path as Pulumi prints it: `spec.ports[0].name`, `metadata.labels["app.kubernetes.io/name"]`. */
export function pathString(path: (string | number)[]): string {
  return path.reduce<string>((text, part) => {
    if (typeof part === "number") return `${text}[${part}]`;
    if (/[."[\]]/.test(part)) return `${text}["${part.replaceAll('"', '\\"')}"]`;
    return text === "" ? part : `${text}.${part}`;
  }, "");
}

export type Severity = "debug" | "info" | "warning" | "error";

/** Messages to the engine. `status` replaces the line beside the resource, `log` stays in the output. */
export interface Engine {
  log(severity: Severity, urn: string, message: string): void;
  status(severity: Severity, urn: string, message: string): void;
  /** Resolves when every message so far has reached the engine: what comes after an operation's answer is not shown. */
  delivered(): Promise<unknown>;
}

/** Connects to the engine's log service; a message that cannot be delivered is dropped, as in the official plugins. */
export function connectEngine(address: string | undefined): Engine {
  if (!address) return { log: () => undefined, status: () => undefined, delivered: async () => undefined };
  const client = new EngineClient(address, grpc.credentials.createInsecure(), CHANNEL_OPTIONS);
  // One after the other: calls at the same time may overtake each other.
  let queue: Promise<void> = Promise.resolve();
  const send = (severity: Severity, urn: string, message: string, ephemeral: boolean): void => {
    const request = new LogRequest();
    request.setSeverity({ debug: LogSeverity.DEBUG, info: LogSeverity.INFO, warning: LogSeverity.WARNING, error: LogSeverity.ERROR }[severity]);
    request.setUrn(urn);
    request.setMessage(message);
    request.setEphemeral(ephemeral);
    queue = queue.then(() => new Promise<void>((resolve) => client.log(request, () => resolve())));
  };
  return { log: (s, u, m) => send(s, u, m, false), status: (s, u, m) => send(s, u, m, true), delivered: () => queue };
}

/** The resource exists but is not in order: the engine keeps `state` and reports every reason. */
export class InitFailedError extends Error {
  constructor(message: string, readonly id: string, readonly state: object, readonly reasons: string[]) {
    super(message);
  }
}

/** Unary calls and what answers them; methods not listed are answered with UNIMPLEMENTED. */
// `any`: every method has its own message types, which the generated code checks inside each handler.
export type Handlers = Record<string, (request: any, call: grpc.ServerUnaryCall<any, any>) => Promise<object>>;

function toGrpcError(error: unknown): Partial<grpc.ServiceError> {
  const message = error instanceof Error ? error.message : String(error);
  if (!(error instanceof InitFailedError)) return { code: grpc.status.UNKNOWN, details: message };
  const detail = new ErrorResourceInitFailed();
  detail.setId(error.id);
  detail.setProperties(toStruct(error.state));
  detail.setReasonsList(error.reasons);
  const any = new Any();
  any.pack(detail.serializeBinary(), "pulumirpc.ErrorResourceInitFailed");
  const status = new Status();
  status.setCode(grpc.status.UNKNOWN);
  status.setMessage(message);
  status.addDetails(any);
  const metadata = new grpc.Metadata();
  metadata.add("grpc-status-details-bin", Buffer.from(status.serializeBinary()));
  return { code: grpc.status.UNKNOWN, details: message, metadata };
}

/** Serves the handlers on a free loopback port and resolves to that port. */
export async function listen(
  service: grpc.ServiceDefinition, handlers: Handlers, streaming: grpc.UntypedServiceImplementation = {},
): Promise<{ port: number; server: grpc.Server }> {
  const server = new grpc.Server(CHANNEL_OPTIONS);
  const implementation: grpc.UntypedServiceImplementation = { ...streaming };
  for (const [name, handle] of Object.entries(handlers)) {
    const unary: grpc.handleUnaryCall<unknown, object> = (call, callback) => {
      handle(call.request, call).then((response) => callback(null, response), (error) => callback(toGrpcError(error)));
    };
    implementation[name] = unary;
  }
  server.addService(service, implementation);
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, bound) => (error ? reject(error) : resolve(bound))),
  );
  return { port, server };
}

/** The engine's address: the first argument that is neither a flag nor the value of `--tracing`. */
export function engineAddress(args: string[]): string | undefined {
  return args.find((arg, i) => !arg.startsWith("-") && args[i - 1] !== "--tracing");
}

/** Runs a plugin: serves, prints the port on stdout as the engine expects, and ends when the engine's process is gone. */
export async function runPlugin(service: grpc.ServiceDefinition, handlers: Handlers, streaming?: grpc.UntypedServiceImplementation): Promise<void> {
  const { port } = await listen(service, handlers, streaming);
  process.stdout.write(`${port}\n`);
  const parent = process.ppid;
  setInterval(() => process.ppid === parent || process.exit(0), 1000).unref();
}
