/**
 * Runs the Pulumi program of the current folder without engine, plugins, cluster or registry and prints the resources it
 * registers as JSON. Started by cli/offline.ts as a process of its own; stack and project name are its arguments, the
 * config comes on standard input. With `live` as a third argument, started by cli/upgrades/candidate.ts, cluster and registries are
 * asked, the controller's image is built, and what is printed is the input of the program's rehearsal, secrets included.
 */
import { spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import * as fs from "node:fs";
import Module = require("node:module");
import * as path from "node:path";
import * as pulumi from "@pulumi/pulumi";
import type { RegisterResourceRequest } from "@pulumi/pulumi/proto/resource_pb";
import { MockMonitor } from "@pulumi/pulumi/runtime/mocks";
import { wordsOf } from "../components/refusal";
import { controllerBuild } from "../config/builds";
import { secretPlaceholder, type Rendered } from "./offline";

// 192.0.2.0/24 is set aside for examples (RFC 5737): it stands for the API server's addresses.
const clusterAnswers = { preflight: async () => ({ problems: [], warnings: [], apiServerAddresses: ["192.0.2.1"] }) };

/** Modules of the program that ask the world around it, and what they are told instead. */
const answers: Record<string, object> = {
  "./checks/preflight": clusterAnswers,
  // Where releases up to 0.2.0 have it: the program may be a former version's.
  "./preflight": clusterAnswers,
  // Neither pinned nor looked up: base images keep the names that config gives.
  "./components/agent-images": { inspectImages: async () => ({}), prepareImages: async (args: object) => args },
};

const live = process.argv[4] === "live";
/** The rehearsal's input as the program made it. */
let rehearsal = "";

// `any`: Node's module loader has no declared types for this.
const loader = Module as any;
const load = loader._load;
loader._load = function (request: string, parent: { filename?: string } | undefined, ...rest: unknown[]) {
  const loaded = load.call(this, request, parent, ...rest);
  return parent?.filename !== path.resolve("index.ts") || !(request in answers) ? loaded : live ? withoutHold(loaded) : { ...loaded, ...answers[request] };
};

/** What is tried is what images/controller makes, also while the running controller is held at another image. */
function withoutHold(loaded: { preflight?: (...args: unknown[]) => Promise<object> }): object {
  const { preflight } = loaded;
  return preflight ? { ...loaded, preflight: async (...args: unknown[]) => ({ ...(await preflight(...args)), held: undefined }) } : loaded;
}

const secretSignature = "4dabf18193072939515e22adb298388d";

/** The inputs with every secret replaced and every property that is undefined left out. */
// `any`: inputs of any resource.
function masked(value: any): any {
  if (Array.isArray(value)) return value.map(masked);
  if (typeof value !== "object" || value === null) return value;
  if (secretSignature in value) return secretPlaceholder;
  return Object.fromEntries(Object.entries(value).flatMap(([key, inner]) => (inner === undefined ? [] : [[key, masked(inner)]])));
}

/** The inputs with secrets as they are, for the program's own use. */
// `any`: as above.
function revealed(value: any): any {
  if (Array.isArray(value)) return value.map(revealed);
  if (typeof value !== "object" || value === null) return value;
  if (secretSignature in value) return revealed(value.value);
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, revealed(inner)]));
}

const resources: Rendered[] = [];
const protectedNames = new Set<string>();

const owners = new Map<string, { key: string; name: string; instance: string }>();
const waits = new Map<string, string[]>();
/** Type and name of a resource from its URN: urn:pulumi:stack::project::parent's type$type::name. */
const keyOf = (urn: string): string => urn.split("::").slice(2).join(" ").replace(/^\S*\$/, "");

const register = MockMonitor.prototype.registerResource;
// The mocks are not told of resource options.
MockMonitor.prototype.registerResource = function (request: RegisterResourceRequest, callback) {
  const key = `${request.getType()} ${request.getName()}`;
  const parent = keyOf(request.getParent());
  // The class and the name of the nearest component above, or of this one where it is a component.
  const above = request.getType().startsWith("build-platform:") ? { key, name: request.getType().split(":")[2], instance: request.getName() } : owners.get(parent);
  if (above) owners.set(key, above);
  waits.set(key, request.getDependenciesList().flatMap((urn) => owners.get(keyOf(urn))?.name ?? []));
  if (request.getProtect()) protectedNames.add(key);
  return register.call(this, request, callback);
};

/** Builds an image as the engine would have it built, and says where it is. */
function built({ create, environment, stdin }: { create: string; environment: Record<string, string>; stdin?: string }): string {
  const { status, stdout } = spawnSync("/bin/sh", ["-c", create], { env: { ...process.env, ...environment }, input: stdin ?? "", encoding: "utf8", stdio: ["pipe", "pipe", "inherit"] });
  if (status !== 0) throw new Error("the controller's image could not be built; why, stands above");
  return stdout.trim();
}

const mocks: pulumi.runtime.Mocks = {
  newResource: ({ type, name, inputs, custom }) => {
    const key = `${type} ${name}`;
    const component = owners.get(key);
    const after = [key, component?.key ?? ""].flatMap((each) => waits.get(each) ?? []);
    if (custom) resources.push({ type, name, props: masked(inputs), protect: protectedNames.has(key), ...(component && { component: { name: component.name, instance: component.instance, after: [...new Set(after)].sort() } }) });
    const state: Record<string, unknown> = { ...inputs };
    const environment = revealed(inputs.environment) ?? {};
    if (live && name === `agent-images-${controllerBuild}`) state.stdout = built(revealed(inputs));
    else if (live && type.startsWith("command:") && !environment.IMAGE_REPOSITORY) {
      if (name === "jenkins-rehearsal") rehearsal = revealed(inputs.stdin);
      // Where the program makes a secret, a copy has one of its own.
      state.stdout = randomBytes(16).toString("hex");
    } else if (type.startsWith("command:")) {
      // A build's digest is not known before it is built; this one changes exactly when the content does.
      const repository = environment.REGISTRY_PULLED_FROM ? environment.IMAGE_REPOSITORY.replace(/^[^/]+/, environment.REGISTRY_PULLED_FROM) : environment.IMAGE_REPOSITORY;
      state.stdout = repository
        ? `${repository}@sha256:${createHash("sha256").update(`${environment.IMAGE_TAG}`).digest("hex")}`
        : `[output of ${name}]`;
    }
    return { id: name, state };
  },
  call: ({ token, inputs }) => {
    if (token !== "command:local:run") return inputs;
    // The read-only inspection of a node: offline, nothing is known of it.
    return { stdout: JSON.stringify({ manifest: "", flag: null, serving: null, kubeadmConfig: null, inForce: true, mark: "unknown", reasons: [], warnings: [], refusals: [], diff: "" }) };
  },
};

async function main([stack, project]: string[]): Promise<void> {
  const { config, secretKeys } = JSON.parse(fs.readFileSync(0, "utf8")) as { config: Record<string, string>; secretKeys: string[] };
  await pulumi.runtime.setMocks(mocks, project, stack, false);
  pulumi.runtime.setAllConfig(config, secretKeys);
  await pulumi.runtime.runInPulumiStack(async () => {
    const program = require(path.resolve("index.ts"));
    return typeof program === "function" ? program() : program;
  });
  await pulumi.runtime.disconnect();
  if (live) return void process.stdout.write(rehearsal);
  const order = (resource: Rendered) => `${resource.type} ${resource.name}`;
  process.stdout.write(JSON.stringify(resources.sort((a, b) => (order(a) < order(b) ? -1 : 1))));
}

const told = new Set<string>();
/** The end of a program that refuses its config: the runtime rejects more than one promise with the same error, which is said once. */
function refuse(error: Error): void {
  const text = wordsOf(error);
  if (told.has(text)) return;
  told.add(text);
  process.stderr.write(`${text}\n`, () => process.exit(1));
}

process.on("unhandledRejection", refuse);
main(process.argv.slice(2)).catch(refuse);
