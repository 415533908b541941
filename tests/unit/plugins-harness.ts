// Drives the sandbox's plugins over real gRPC, as the engine does.
import { spawn, type ChildProcess } from "node:child_process";
import * as grpc from "@grpc/grpc-js";
import { EngineService } from "@pulumi/pulumi/proto/engine_grpc_pb";
import type { LogRequest } from "@pulumi/pulumi/proto/engine_pb";
import { ResourceProviderClient, ResourceProviderService } from "@pulumi/pulumi/proto/provider_grpc_pb";
import {
  CheckRequest, ConfigureRequest, CreateRequest, DeleteRequest, DiffRequest, ErrorResourceInitFailed, InvokeRequest, ReadRequest, UpdateRequest,
  type CheckResponse, type ConfigureResponse, type CreateResponse, type DiffResponse, type InvokeResponse, type ReadResponse, type UpdateResponse,
} from "@pulumi/pulumi/proto/provider_pb";
import { Status } from "@pulumi/pulumi/proto/status_pb";
import { Empty } from "google-protobuf/google/protobuf/empty_pb";
import { fromStruct, listen, toStruct, type Engine, type Handlers, type Props } from "../../sandbox/plugins/rpc";

/** Calls a unary method and waits for the answer. */
export function call<Response>(client: grpc.Client, method: string, request: object): Promise<Response> {
  // The generated clients have one typed overload set per method; a test names the method as data.
  const methods = client as unknown as Record<string, (request: object, callback: (error: grpc.ServiceError | null, response: Response) => void) => void>;
  return new Promise((resolve, reject) => methods[method].call(client, request, (error, response) => (error ? reject(error) : resolve(response))));
}

/** The state that an "initialisation failed" error carries to the engine; undefined for any other error. */
export function initFailure(error: unknown): { id: string; state: Props; reasons: string[] } | undefined {
  const [bytes] = (error as grpc.ServiceError).metadata.get("grpc-status-details-bin");
  if (!bytes) return undefined;
  const [any] = Status.deserializeBinary(bytes as Buffer).getDetailsList();
  const detail = ErrorResourceInitFailed.deserializeBinary(any.getValue_asU8());
  return { id: detail.getId(), state: fromStruct(detail.getProperties()), reasons: detail.getReasonsList() };
}

/** A provider's client whose calls take and give plain property bags. */
export class Provider {
  constructor(readonly client: ResourceProviderClient, readonly stop: () => void) {}

  async configure(variables: Record<string, string>): Promise<ConfigureResponse> {
    const request = new ConfigureRequest();
    for (const [name, value] of Object.entries(variables)) request.getVariablesMap().set(name, value);
    request.setAcceptsecrets(true);
    return call(this.client, "configure", request);
  }

  async check(urn: string, news: Props, olds: Props = {}): Promise<{ inputs: Props; failures: { property: string; reason: string }[] }> {
    const request = new CheckRequest();
    request.setUrn(urn);
    request.setNews(toStruct(news));
    request.setOlds(toStruct(olds));
    const response = await call<CheckResponse>(this.client, "check", request);
    return { inputs: fromStruct(response.getInputs()), failures: response.getFailuresList().map((failure) => failure.toObject()) };
  }

  async diff(urn: string, olds: Props, news: Props, oldInputs?: Props): Promise<{ changes: number; replaces: string[]; deleteBeforeReplace: boolean; detail: Record<string, number> }> {
    const request = new DiffRequest();
    request.setUrn(urn);
    request.setOlds(toStruct(olds));
    request.setNews(toStruct(news));
    if (oldInputs) request.setOldInputs(toStruct(oldInputs));
    const response = await call<DiffResponse>(this.client, "diff", request);
    const detail = [...(response.getDetaileddiffMap().entries() as unknown as Iterable<[string, { getKind(): number }]>)].map(([path, kind]) => [path, kind.getKind()]);
    return { changes: response.getChanges(), replaces: response.getReplacesList(), deleteBeforeReplace: response.getDeletebeforereplace(), detail: Object.fromEntries(detail) };
  }

  async create(urn: string, properties: Props, { preview = false, timeout = 0 } = {}): Promise<{ id: string; state: Props }> {
    const request = new CreateRequest();
    request.setUrn(urn);
    request.setProperties(toStruct(properties));
    request.setPreview(preview);
    request.setTimeout(timeout);
    const response = await call<CreateResponse>(this.client, "create", request);
    return { id: response.getId(), state: fromStruct(response.getProperties()) };
  }

  async update(urn: string, id: string, olds: Props, news: Props, { preview = false, timeout = 0 } = {}): Promise<Props> {
    const request = new UpdateRequest();
    request.setUrn(urn);
    request.setId(id);
    request.setOlds(toStruct(olds));
    request.setNews(toStruct(news));
    request.setPreview(preview);
    request.setTimeout(timeout);
    return fromStruct((await call<UpdateResponse>(this.client, "update", request)).getProperties());
  }

  async read(urn: string, id: string, properties: Props = {}, inputs: Props = {}): Promise<{ id: string; state: Props; inputs: Props }> {
    const request = new ReadRequest();
    request.setUrn(urn);
    request.setId(id);
    request.setProperties(toStruct(properties));
    request.setInputs(toStruct(inputs));
    const response = await call<ReadResponse>(this.client, "read", request);
    return { id: response.getId(), state: fromStruct(response.getProperties()), inputs: fromStruct(response.getInputs()) };
  }

  async delete(urn: string, id: string, properties: Props): Promise<void> {
    const request = new DeleteRequest();
    request.setUrn(urn);
    request.setId(id);
    request.setProperties(toStruct(properties));
    await call(this.client, "delete", request);
  }

  async invoke(token: string, args: Props): Promise<Props> {
    const request = new InvokeRequest();
    request.setTok(token);
    request.setArgs(toStruct(args));
    return fromStruct((await call<InvokeResponse>(this.client, "invoke", request)).getReturn());
  }

  async cancel(): Promise<void> {
    await call(this.client, "cancel", new Empty());
  }
}

const connect = (port: number) => new ResourceProviderClient(`127.0.0.1:${port}`, grpc.credentials.createInsecure());

/** Serves a provider's handlers in this process. */
export async function serveProvider(handlers: Handlers): Promise<Provider> {
  const { port, server } = await listen(ResourceProviderService, handlers);
  const client = connect(port);
  return new Provider(client, () => {
    client.close();
    server.forceShutdown();
  });
}

/** An engine that keeps every message. */
export function recordingEngine(): Engine & { lines: string[] } {
  const lines: string[] = [];
  return { lines, log: (severity, _urn, message) => lines.push(`${severity}: ${message}`), status: (_severity, _urn, message) => lines.push(message), delivered: async () => undefined };
}

/** Starts a bundled plugin as the engine does, with the address of a log service of ours. */
export async function startPlugin(file: string): Promise<{ port: number; process: ChildProcess; lines: string[]; provider: () => Provider; stop: () => void }> {
  const lines: string[] = [];
  const server = new grpc.Server();
  server.addService(EngineService, {
    log: (received: grpc.ServerUnaryCall<LogRequest, Empty>, callback: grpc.sendUnaryData<Empty>) => {
      lines.push(received.request.getMessage());
      callback(null, new Empty());
    },
  });
  const enginePort = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, bound) => (error ? reject(error) : resolve(bound))));
  const child = spawn(file, ["--logtostderr", "-v=1", `127.0.0.1:${enginePort}`], { stdio: ["ignore", "pipe", "inherit"] });
  const port = await new Promise<number>((resolve, reject) => {
    child.stdout.once("data", (chunk: Buffer) => resolve(Number(chunk.toString())));
    child.once("exit", (code) => reject(new Error(`${file} ended with ${code} before it served`)));
  });
  const clients: grpc.Client[] = [];
  return {
    port, process: child, lines,
    provider: () => {
      const client = connect(port);
      clients.push(client);
      return new Provider(client, () => client.close());
    },
    stop: () => {
      clients.forEach((client) => client.close());
      child.kill("SIGKILL");
      server.forceShutdown();
    },
  };
}
