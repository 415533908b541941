// Stand-in for pulumi-language-nodejs, the official Node.js language host, on machines without Pulumi's release page.
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import type { ServerWritableStream } from "@grpc/grpc-js";
import { Empty } from "google-protobuf/google/protobuf/empty_pb";
import { LanguageRuntimeService } from "@pulumi/pulumi/proto/language_grpc_pb";
import {
  AboutResponse, GetRequiredPackagesResponse, InstallDependenciesResponse, LanguageHandshakeResponse, RunResponse,
  RunPluginResponse, type GetRequiredPackagesRequest, type InstallDependenciesRequest, type LanguageHandshakeRequest, type RunPluginRequest, type RunRequest,
} from "@pulumi/pulumi/proto/language_pb";
import { PackageDependency, PluginInfo } from "@pulumi/pulumi/proto/plugin_pb";
import { engineAddress, fromStruct, runPlugin, type Handlers, type Props } from "./rpc";

/** Exit code by which the SDK says that it has shown the user everything there is to know (sdk/nodejs/runtime/run). */
const BAIL = 32;
/** How long a cancelled program may take to end before it is killed: 5 s, as in the official host. */
const KILL_AFTER_MS = 5000;
const PACKAGE_MANAGERS = ["auto", "npm", "yarn", "pnpm", "bun"];

/** The `runtime.options` of Pulumi.yaml. */
export interface RuntimeOptions {
  /** Load TypeScript sources directly; on unless switched off. */
  typescript: boolean;
  /** Path of the tsconfig.json to use, relative to the program. */
  tsconfig?: string;
  /** Arguments of the node process. */
  nodeargs: string[];
  /** auto, npm, yarn, pnpm or bun. */
  packagemanager: string;
}

/** Splits a command line as a shell does: blanks separate, quotes and backslashes protect. */
export function splitArguments(line: string): string[] {
  const words = line.match(/(?:[^\s"'\\]|\\.|"(?:[^"\\]|\\.)*"|'[^']*')+/gs) ?? [];
  return words.map((word) => word.replace(/"((?:[^"\\]|\\.)*)"|'([^']*)'|\\(.)/gs, (_, double?: string, single?: string, escaped?: string) =>
    double?.replace(/\\(["\\$`])/g, "$1") ?? single ?? escaped ?? ""));
}

/** Reads the runtime options; throws with the option's name where a value has the wrong type. */
export function parseOptions(options: Props): RuntimeOptions {
  const expect = (name: string, type: "boolean" | "string"): void => {
    if (options[name] !== undefined && typeof options[name] !== type) throw new Error(`${name} option must be a ${type}`);
  };
  expect("typescript", "boolean");
  for (const name of ["tsconfig", "nodeargs", "packagemanager"]) expect(name, "string");
  const packagemanager = (options.packagemanager as string | undefined) ?? "auto";
  if (!PACKAGE_MANAGERS.includes(packagemanager)) {
    throw new Error(`packagemanager option must be one of auto, npm, yarn, pnpm or bun, got "${packagemanager}"`);
  }
  return {
    typescript: (options.typescript as boolean | undefined) ?? true,
    tsconfig: options.tsconfig as string | undefined,
    nodeargs: splitArguments((options.nodeargs as string | undefined) ?? ""),
    packagemanager,
  };
}

/** The package manager for a folder: the one asked for, or the one whose lock file is there. */
export function packageManager(wanted: string, folder: string): string {
  if (wanted !== "auto") return wanted;
  const locks = { yarn: ["yarn.lock"], pnpm: ["pnpm-lock.yaml"], bun: ["bun.lock", "bun.lockb"] };
  return Object.entries(locks).find(([, files]) => files.some((file) => existsSync(join(folder, file))))?.[0] ?? "npm";
}

/** Config as older SDK versions expect it: `project:key` becomes `project:config:key`. */
export function configEnvironment(config: Iterable<[string, string]>): Record<string, string> {
  return Object.fromEntries([...config].map(([key, value]) => [/^[^:]+:config:/.test(key) ? key : key.replace(":", ":config:"), value]));
}

interface PackageJson { name?: string; version?: string; pulumi?: { resource?: boolean; name?: string; version?: string; server?: string } }

/** The providers that the packages installed under the folder ask for. */
export function requiredPackages(folder: string): { name: string; version: string; server: string }[] {
  const modules = join(folder, "node_modules");
  if (!existsSync(modules)) return [];
  const names = readdirSync(modules).flatMap((name) => (name.startsWith("@") ? readdirSync(join(modules, name)).map((inner) => `${name}/${inner}`) : [name]));
  return names.flatMap((name) => {
    const file = join(modules, name, "package.json");
    if (!existsSync(file)) return [];
    const nested = requiredPackages(join(modules, name));
    const text = readFileSync(file, "utf8");
    const { pulumi, ...info } = (text.includes('"pulumi"') ? JSON.parse(text) : {}) as PackageJson;
    if (!pulumi?.resource) return nested;
    const version = pulumi.version ?? info.version ?? "";
    const plugin = pulumi.name ?? (info.name ?? name).replace(/^@pulumi\//, "");
    return [{ name: plugin, version: version.startsWith("v") ? version : `v${version}`, server: pulumi.server ?? "" }, ...nested];
  });
}

/** The arguments of the SDK's `cmd/run`. */
export function runArguments(request: RunRequest, engine: string): string[] {
  const info = request.getInfo();
  const flags: [string, string][] = [
    ["monitor", request.getMonitorAddress()], ["engine", engine], ["organization", request.getOrganization()], ["project", request.getProject()],
    ["root-directory", info?.getRootDirectory() ?? ""], ["stack", request.getStack()], ["pwd", info?.getProgramDirectory() ?? ""],
    ["parallel", String(request.getParallel())],
  ];
  return [
    ...flags.filter(([, value]) => value !== "").flatMap(([name, value]) => [`--${name}`, value]),
    ...(request.getDryrun() ? ["--dry-run"] : []),
    info?.getEntryPoint() || ".",
    ...request.getArgsList(),
  ];
}

/** Finds the SDK's program runner from the program's folder. */
function locateRunner(programDirectory: string): string {
  try {
    return createRequire(join(programDirectory, "package.json")).resolve(process.env.PULUMI_LANGUAGE_NODEJS_RUN_PATH || "@pulumi/pulumi/cmd/run");
  } catch {
    throw new Error("It looks like the Pulumi SDK has not been installed. Have you run pulumi install?");
  }
}

/** The answer to the engine for a program that ended. */
export function runResult(code: number | null, signal: string | null, outOfMemory: boolean): RunResponse {
  const response = new RunResponse();
  if (code === BAIL) response.setBail(true);
  else if (code !== 0) {
    const hint = outOfMemory
      ? ". Detected a possible out of memory error. Consider the `nodeargs` runtime option in Pulumi.yaml: `nodeargs: --max-old-space-size=<megabytes>`"
      : "";
    response.setError(`Program exited with non-zero exit code: ${code ?? signal}${hint}`);
  }
  return response;
}

/** The language host's methods; one program runs at a time. */
export function languageHost(engine = ""): Handlers {
  let program: ChildProcess | undefined;

  const run = async (request: RunRequest): Promise<RunResponse> => {
    const info = request.getInfo();
    const options = parseOptions(fromStruct(info?.getOptions()));
    const runner = locateRunner(info?.getProgramDirectory() ?? "");
    const child = spawn(process.execPath, [...options.nodeargs, runner, ...runArguments(request, engine)], {
      stdio: ["ignore", "pipe", "pipe"],
      env: {
        ...process.env,
        PULUMI_CONFIG: JSON.stringify(configEnvironment(request.getConfigMap().entries() as unknown as Iterable<[string, string]>)),
        PULUMI_CONFIG_SECRET_KEYS: JSON.stringify(request.getConfigsecretkeysList()),
        ...(options.typescript ? { PULUMI_NODEJS_TYPESCRIPT: "true" } : {}),
        ...(options.tsconfig ? { PULUMI_NODEJS_TSCONFIG_PATH: options.tsconfig } : {}),
      },
    });
    program = child;
    let outOfMemory = false;
    child.stdout.on("data", (chunk: Buffer) => process.stdout.write(chunk));
    child.stderr.on("data", (chunk: Buffer) => {
      outOfMemory ||= chunk.includes("<--- Last few GCs --->");
      process.stderr.write(chunk);
    });
    return new Promise((resolve, reject) => {
      child.on("error", (error) => reject(new Error(`Problem executing program (could not run language executor): ${error.message}`)));
      child.on("close", (code, signal) => resolve(runResult(code, signal, outOfMemory)));
    });
  };

  return {
    handshake: async (request: LanguageHandshakeRequest) => {
      engine = request.getEngineAddress();
      return new LanguageHandshakeResponse();
    },
    getPluginInfo: async () => {
      const info = new PluginInfo();
      info.setVersion("3.259.0");
      return info;
    },
    getRequiredPackages: async (request: GetRequiredPackagesRequest) => {
      const response = new GetRequiredPackagesResponse();
      for (const found of requiredPackages(request.getInfo()?.getProgramDirectory() ?? "")) {
        const dependency = new PackageDependency();
        dependency.setName(found.name);
        dependency.setKind("resource");
        dependency.setVersion(found.version);
        dependency.setServer(found.server);
        response.addPackages(dependency);
      }
      return response;
    },
    about: async () => {
      const response = new AboutResponse();
      response.setExecutable(process.execPath);
      response.setVersion(process.version);
      return response;
    },
    run: async (request: RunRequest) =>
      run(request).catch((error: Error) => {
        const response = new RunResponse();
        response.setError(error.message);
        return response;
      }),
    cancel: async () => {
      const child = program;
      child?.kill("SIGINT");
      setTimeout(() => child?.kill("SIGKILL"), KILL_AFTER_MS).unref();
      return new Empty();
    },
  };
}

/** Runs `<package manager> install` and streams what it prints. */
export function installDependencies(call: ServerWritableStream<InstallDependenciesRequest, InstallDependenciesResponse>): void {
  const info = call.request.getInfo();
  const folder = info?.getProgramDirectory() ?? "";
  const manager = packageManager(parseOptions(fromStruct(info?.getOptions())).packagemanager, folder);
  const child = spawn(manager, ["install"], { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
  const forward = (set: (response: InstallDependenciesResponse, chunk: Buffer) => void) => (chunk: Buffer) => {
    const response = new InstallDependenciesResponse();
    set(response, chunk);
    call.write(response);
  };
  child.stdout.on("data", forward((response, chunk) => response.setStdout(chunk)));
  child.stderr.on("data", forward((response, chunk) => response.setStderr(chunk)));
  child.on("error", (error) => call.emit("error", { code: 2, details: `${manager} install: ${error.message}` }));
  child.on("close", (code) => (code === 0 ? call.end() : call.emit("error", { code: 2, details: `${manager} install failed with exit code ${code}` })));
}

/**
 * Runs a policy pack and streams what it prints, of which the engine reads the port. The official host also hands the
 * stack's name and config to the pack in its environment, for which it stands between engine and pack; here a pack knows
 * the stack from the URNs.
 */
export function runPolicyPack(call: ServerWritableStream<RunPluginRequest, RunPluginResponse>): void {
  const folder = call.request.getInfo()?.getProgramDirectory() ?? "";
  if (call.request.getKind() !== "analyzer") {
    call.emit("error", { code: 12, details: `this stand-in runs policy packs only, not plugins of kind ${call.request.getKind()}` });
    return;
  }
  const runner = createRequire(join(folder, "package.json")).resolve("@pulumi/pulumi/cmd/run-policy-pack");
  const given = call.request.getEnvList().map((entry) => [entry.slice(0, entry.indexOf("=")), entry.slice(entry.indexOf("=") + 1)]);
  const child = spawn(process.execPath, [runner, ...call.request.getArgsList(), folder], {
    cwd: folder,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...Object.fromEntries(given), PULUMI_NODEJS_TYPESCRIPT: "true" },
  });
  const forward = (set: (response: RunPluginResponse, chunk: Buffer) => void) => (chunk: Buffer) => {
    const response = new RunPluginResponse();
    set(response, chunk);
    call.write(response);
  };
  child.stdout.on("data", forward((response, chunk) => response.setStdout(chunk)));
  child.stderr.on("data", forward((response, chunk) => response.setStderr(chunk)));
  // The engine ends a pack by hanging up.
  call.on("cancelled", () => child.kill());
  child.on("error", (error) => call.emit("error", { code: 2, details: `policy pack ${folder}: ${error.message}` }));
  child.on("close", (code) => {
    const response = new RunPluginResponse();
    response.setExitcode(code ?? 1);
    call.write(response);
    call.end();
  });
}

/** Entry point of the bundled plugin. */
export function main(): Promise<void> {
  return runPlugin(LanguageRuntimeService, languageHost(engineAddress(process.argv.slice(2))), { installDependencies, runPlugin: runPolicyPack });
}
