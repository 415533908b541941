import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import * as grpc from "@grpc/grpc-js";
import { LanguageRuntimeClient } from "@pulumi/pulumi/proto/language_grpc_pb";
import {
  GetRequiredPackagesRequest, LanguageHandshakeRequest, ProgramInfo, RunRequest, type GetRequiredPackagesResponse, type RunResponse,
} from "@pulumi/pulumi/proto/language_pb";
import type { PluginInfo } from "@pulumi/pulumi/proto/plugin_pb";
import { Empty } from "google-protobuf/google/protobuf/empty_pb";
import { configEnvironment, packageManager, parseOptions, requiredPackages, runArguments, runResult, splitArguments } from "../../sandbox/plugins/language-nodejs";
import { onPath } from "../../sandbox/plugins/official";
import { SIGNATURE, engineAddress, isSecret, toStruct, type Props } from "../../sandbox/plugins/rpc";
import { call, initFailure, startPlugin, type Provider } from "./plugins-harness";

jest.setTimeout(60_000);

let folder: string;
/** Bundles in a process of its own: esbuild refuses the test environment's globals. */
const bundle = (): string[] => {
  const script = `require(${JSON.stringify(join(__dirname, "../../sandbox/plugins/bundle"))}).bundlePlugins(process.argv[1]).then((files) => console.log(JSON.stringify(files)))`;
  return JSON.parse(execFileSync(process.execPath, ["--require", "tsx/cjs", "-e", script, join(folder, "plugins")], { encoding: "utf8", cwd: join(__dirname, "../..") }));
};
let files: string[];
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "plugins-bundle-"));
  files = bundle();
});
afterAll(() => rmSync(folder, { recursive: true }));

test("a stand-in on PATH, as `sandbox env` puts it there, is not taken for the official plugin", () => {
  const plugins = join(folder, "plugins");
  expect(onPath("pulumi-language-nodejs", `:/nowhere:${plugins}/`, plugins)).toBe(false);
  expect(onPath("pulumi-language-nodejs", `:/nowhere:${plugins}`, "/elsewhere")).toBe(true);
  expect(onPath("pulumi-language-other", plugins, "/elsewhere")).toBe(false);
});

describe("the bundles", () => {
  it("are three executables that say what they stand in for", () => {
    expect(files.map((file) => file.split("/").pop())).toEqual(["pulumi-language-nodejs", "pulumi-resource-command", "pulumi-resource-kubernetes"]);
    for (const file of files) {
      const [shebang, notice] = readFileSync(file, "utf8").split("\n");
      expect(shebang).toBe("#!/usr/bin/env node");
      expect(notice).toMatch(/^\/\/ Stand-in for Pulumi's .*: sandbox only\.$/);
      expect(statSync(file).mode & 0o111).toBe(0o111);
    }
  });
  it("are made again only when something has changed", () => {
    const before = files.map((file) => statSync(file).mtimeMs);
    bundle();
    expect(files.map((file) => statSync(file).mtimeMs)).toEqual(before);
    writeFileSync(join(folder, "plugins", ".inputs"), "other");
    bundle();
    files.forEach((file, i) => expect(statSync(file).mtimeMs).toBeGreaterThan(before[i]));
  });
  it("find the engine's address behind the flags", () => {
    expect(engineAddress(["--logtostderr", "-v=9", "--tracing", "x", "127.0.0.1:1"])).toBe("127.0.0.1:1");
    expect(engineAddress(["--logtostderr"])).toBeUndefined();
  });
  it.each([[1, "1.2.1"], [2, "4.34.2"]])("plugin %i answers with its version", async (index, version) => {
    const plugin = await startPlugin(files[index]);
    try {
      expect((await call<PluginInfo>(plugin.provider().client, "getPluginInfo", new Empty())).getVersion()).toBe(version);
    } finally {
      plugin.stop();
    }
  });
  it("log to the engine, and end when its process does", async () => {
    const plugin = await startPlugin(files[1]);
    try {
      await plugin.provider().create("urn:pulumi:s::p::command:local:Command::x", { create: "echo seen" });
      expect(plugin.lines).toEqual(["seen"]);
    } finally {
      plugin.stop();
    }
    // The shell stands for an engine that dies without saying goodbye.
    const pid = Number(execFileSync("sh", ["-c", `${files[1]} >${join(folder, "port")} 2>&1 & echo $!; until [ -s ${join(folder, "port")} ]; do sleep 0.05; done`], { encoding: "utf8" }));
    for (let i = 0; i < 100 && isRunning(pid); i++) await new Promise((resolve) => setTimeout(resolve, 100));
    expect(isRunning(pid)).toBe(false);
  });
});

function isRunning(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

describe("the language host", () => {
  it("reads the runtime options, and names one of a wrong type", () => {
    expect(parseOptions({})).toEqual({ typescript: true, tsconfig: undefined, nodeargs: [], packagemanager: "auto" });
    expect(parseOptions({ typescript: false, tsconfig: "t.json", nodeargs: "--a 'b c'", packagemanager: "pnpm" })).toEqual({ typescript: false, tsconfig: "t.json", nodeargs: ["--a", "b c"], packagemanager: "pnpm" });
    expect(() => parseOptions({ typescript: "yes" })).toThrow("typescript option must be a boolean");
    expect(() => parseOptions({ nodeargs: true })).toThrow("nodeargs option must be a string");
    expect(() => parseOptions({ packagemanager: "apt" })).toThrow(/packagemanager option must be one of auto, npm, yarn, pnpm or bun, got "apt"/);
  });
  it.each([["", []], ["a  b", ["a", "b"]], [`--x="a b" 'c d'e`, ["--x=a b", "c de"]], [String.raw`a\ b "c\"d"`, ["a b", 'c"d']]])("splits %j into %j", (line, words) => expect(splitArguments(line)).toEqual(words));
  it("knows the package manager by its lock file", () => {
    const project = mkdtempSync(join(folder, "manager-"));
    expect(packageManager("auto", project)).toBe("npm");
    writeFileSync(join(project, "pnpm-lock.yaml"), "");
    expect(packageManager("auto", project)).toBe("pnpm");
    expect(packageManager("yarn", project)).toBe("yarn");
  });
  it("hands config over under the keys that the SDK reads", () => {
    expect(configEnvironment([["p:a", "1"], ["p:config:b", "2"]])).toEqual({ "p:config:a": "1", "p:config:b": "2" });
  });
  it("finds required plugins in node_modules, and passes over what is none", () => {
    const project = mkdtempSync(join(folder, "packages-"));
    const install = (name: string, content: object) => {
      const file = join(project, "node_modules", name, "package.json");
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, JSON.stringify(content));
    };
    install("@pulumi/kubernetes", { name: "@pulumi/kubernetes", version: "4.34.2", pulumi: { resource: true } });
    install("other", { name: "other", version: "2.0.0", pulumi: { resource: true, name: "named", version: "v1.0.0", server: "https://example.com" } });
    install("plain", { name: "plain", version: "1.0.0" });
    expect(requiredPackages(project)).toEqual([{ name: "kubernetes", version: "v4.34.2", server: "" }, { name: "named", version: "v1.0.0", server: "https://example.com" }]);
    expect(requiredPackages(join(project, "none"))).toEqual([]);
  });
  it("passes the engine's request on to the SDK's runner", () => {
    const request = new RunRequest();
    const info = new ProgramInfo();
    info.setProgramDirectory("/p");
    info.setEntryPoint("main.ts");
    request.setInfo(info);
    request.setMonitorAddress("m:1");
    request.setStack("s");
    request.setParallel(4);
    request.setArgsList(["x"]);
    expect(runArguments(request, "e:1")).toEqual(["--monitor", "m:1", "--engine", "e:1", "--stack", "s", "--pwd", "/p", "--parallel", "4", "main.ts", "x"]);
    request.setDryrun(true);
    expect(runArguments(request, "e:1")).toContain("--dry-run");
  });
  it("tells success, a message already shown, failure and lack of memory apart", () => {
    expect(runResult(0, null, false).toObject()).toEqual({ error: "", bail: false });
    expect(runResult(32, null, false).toObject()).toEqual({ error: "", bail: true });
    expect(runResult(1, null, false).getError()).toBe("Program exited with non-zero exit code: 1");
    expect(runResult(null, "SIGABRT", true).getError()).toMatch(/SIGABRT.*nodeargs/);
  });

  it("shakes hands, and runs the program's SDK with config, options and address", async () => {
    const project = mkdtempSync(join(folder, "project-"));
    const runner = join(project, "node_modules/@pulumi/pulumi/cmd/run/index.js");
    mkdirSync(dirname(runner), { recursive: true });
    writeFileSync(runner, `require("fs").writeFileSync(${JSON.stringify(join(project, "seen.json"))}, JSON.stringify({ argv: process.argv.slice(2), execArgv: process.execArgv,
      config: process.env.PULUMI_CONFIG, secretKeys: process.env.PULUMI_CONFIG_SECRET_KEYS, typescript: process.env.PULUMI_NODEJS_TYPESCRIPT, tsconfig: process.env.PULUMI_NODEJS_TSCONFIG_PATH }));
      process.exit(process.argv.includes("--dry-run") ? 32 : 0);`);
    const plugin = await startPlugin(files[0]);
    const client = new LanguageRuntimeClient(`127.0.0.1:${plugin.port}`, grpc.credentials.createInsecure());
    try {
      const handshake = new LanguageHandshakeRequest();
      handshake.setEngineAddress("127.0.0.1:7");
      await call(client, "handshake", handshake);
      const info = new ProgramInfo();
      info.setProgramDirectory(project);
      info.setOptions(toStruct({ nodeargs: "--no-warnings", tsconfig: "t.json" }));
      const packages = new GetRequiredPackagesRequest();
      packages.setInfo(info);
      expect((await call<GetRequiredPackagesResponse>(client, "getRequiredPackages", packages)).getPackagesList()).toEqual([]);
      const run = new RunRequest();
      run.setInfo(info);
      run.setMonitorAddress("m:1");
      run.getConfigMap().set("p:key", "value");
      run.setConfigsecretkeysList(["p:key"]);
      expect((await call<RunResponse>(client, "run", run)).toObject()).toEqual({ error: "", bail: false });
      const seen = JSON.parse(readFileSync(join(project, "seen.json"), "utf8"));
      expect(seen).toMatchObject({ execArgv: ["--no-warnings"], config: '{"p:config:key":"value"}', secretKeys: '["p:key"]', typescript: "true", tsconfig: "t.json" });
      expect(seen.argv).toEqual(expect.arrayContaining(["--engine", "127.0.0.1:7", "--monitor", "m:1"]));
      run.setDryrun(true);
      expect((await call<RunResponse>(client, "run", run)).getBail()).toBe(true);
      info.setProgramDirectory(mkdtempSync(join(folder, "without-sdk-")));
      expect((await call<RunResponse>(client, "run", run)).getError()).toMatch(/Pulumi SDK has not been installed/);
    } finally {
      client.close();
      plugin.stop();
    }
  });
});

describe("the Kubernetes provider", () => {
  /** A stand-in for an API server with one kind, enough to see what the plugin sends. */
  class FakeApi {
    readonly objects = new Map<string, Props>();
    readonly requests: { method: string; path: string; query: URLSearchParams; body?: Props }[] = [];
    readonly server = http.createServer(async (request, response) => {
      const url = new URL(request.url ?? "/", "http://x");
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      const text = Buffer.concat(chunks).toString();
      const body = text ? (JSON.parse(text) as Props) : undefined;
      this.requests.push({ method: request.method ?? "", path: url.pathname, query: url.searchParams, body });
      const [code, answer] = this.answer(request.method ?? "", url, body);
      response.writeHead(code, { "content-type": "application/json" }).end(JSON.stringify(answer));
    });

    private answer(method: string, url: URL, body?: Props): [number, Props] {
      const failure = (code: number, reason: string, message: string): [number, Props] => [code, { kind: "Status", status: "Failure", code, reason, message }];
      if (url.pathname === "/api") {
        const resource = (name: string, kind: string, scope: string) => ({ resource: name, scope, responseKind: { group: "", version: "v1", kind } });
        return [200, { items: [{ metadata: {}, versions: [{ version: "v1", resources: [resource("configmaps", "ConfigMap", "Namespaced"), resource("namespaces", "Namespace", "Cluster"), resource("pods", "Pod", "Namespaced")] }] }] }];
      }
      if (url.pathname === "/apis") return [200, { items: [] }];
      const name = method === "POST" ? `${url.pathname}/${String((body?.metadata as Props | undefined)?.name)}` : url.pathname;
      if (method === "POST" && this.objects.has(name)) return failure(409, "AlreadyExists", `configmaps "${name.split("/").pop()}" already exists`);
      if (method === "POST" || (method === "PATCH" && !Array.isArray(body))) {
        if ((body?.data as Props | undefined)?.bad) return failure(422, "Invalid", "data.bad is invalid");
        const metadata = { ...(body?.metadata as Props), uid: "uid-1", resourceVersion: "1", managedFields: [{ manager: "pulumi-kubernetes", operation: "Update", fieldsV1: { "f:data": {} } }] };
        const object = { ...body, metadata } as Props;
        if (url.searchParams.get("dryRun") !== "All") this.objects.set(name, object);
        return [method === "POST" ? 201 : 200, object];
      }
      const found = this.objects.get(url.pathname);
      if (!found) return url.searchParams.get("watch") || url.pathname.endsWith("s") ? [200, { items: [] }] : failure(404, "NotFound", `configmaps "${url.pathname.split("/").pop()}" not found`);
      if (method === "DELETE") this.objects.delete(url.pathname);
      return [200, found];
    }
  }

  const api = new FakeApi();
  let plugin: Awaited<ReturnType<typeof startPlugin>>;
  const kubeconfig = (server: string) => JSON.stringify({
    apiVersion: "v1", kind: "Config", "current-context": "good",
    contexts: [{ name: "good", context: { cluster: "c", user: "u", namespace: "home" } }, { name: "astray", context: { cluster: "none", user: "u" } }],
    clusters: [{ name: "c", cluster: { server, "insecure-skip-tls-verify": true } }], users: [{ name: "u", user: { token: "t" } }],
  });
  let good: string;
  beforeAll(async () => {
    await new Promise<void>((resolve) => api.server.listen(0, "127.0.0.1", resolve));
    good = kubeconfig(`http://127.0.0.1:${(api.server.address() as AddressInfo).port}`);
    plugin = await startPlugin(files[2]);
  });
  afterAll(() => {
    plugin.stop();
    api.server.closeAllConnections();
    return new Promise<void>((resolve) => api.server.close(() => resolve()));
  });
  beforeEach(() => {
    api.objects.clear();
    api.requests.splice(0);
  });

  const URN = "urn:pulumi:s::p::kubernetes:core/v1:ConfigMap::cm";
  const configured = async (variables: Record<string, string> = { "kubernetes:config:kubeconfig": good }): Promise<Provider> => {
    const provider = plugin.provider();
    await provider.configure(variables);
    return provider;
  };
  const inputs = (data: Props = { k: "v" }): Props => ({ apiVersion: "v1", kind: "ConfigMap", metadata: {}, data });

  it.each<[string, Record<string, string>, RegExp]>([
    ["a missing context", { context: "nope" }, /context "nope" does not exist in the kubeconfig given as content; contexts there: "good", "astray"/],
    ["a context that leads nowhere", { context: "astray" }, /cluster "none" of context "astray" does not exist.*clusters there: "c"/],
    ["a missing file", { kubeconfig: "/nonexistent/kubeconfig" }, /there is no file \/nonexistent\/kubeconfig/],
    ["a broken file", { kubeconfig: "{ not: [yaml" }, /failed to parse kubeconfig data/],
    ["a silent server", { kubeconfig: kubeconfig("http://127.0.0.1:1") }, /context "good".*http:\/\/127.0.0.1:1.*ECONNREFUSED/],
  ])("%s fails the check of every resource, with the reason", async (_name, settings, reason) => {
    // A plugin of its own: a provider is configured once.
    const own = await startPlugin(files[2]);
    try {
      const provider = own.provider();
      await provider.configure(Object.fromEntries(Object.entries({ kubeconfig: good, ...settings }).map(([name, value]) => [`kubernetes:config:${name}`, value])));
      const { failures } = await provider.check(URN, inputs());
      expect(failures[0].reason).toMatch(reason);
      await expect(provider.create(URN, inputs())).rejects.toThrow(reason);
    } finally {
      own.stop();
    }
  });

  it("refuses options that it does not have", async () => {
    await expect(configured({ "kubernetes:config:renderYamlToDirectory": "/x" })).rejects.toThrow(/renderYamlToDirectory is not supported/);
    await expect(configured({ "kubernetes:config:kubeconfig": good, "kubernetes:config:enableServerSideApply": "false" })).rejects.toThrow(/enableServerSideApply/);
  });

  it("names what has no name, gives it the context's namespace, and keeps an earlier name", async () => {
    const provider = await configured();
    const first = (await provider.check(URN, inputs())).inputs.metadata as Props;
    expect(first.name).toMatch(/^cm-[0-9a-f]{8}$/);
    expect(first).toMatchObject({ namespace: "home", annotations: { "pulumi.com/autonamed": "true" } });
    expect((await provider.check(URN, inputs(), { ...inputs(), metadata: first })).inputs.metadata).toEqual(first);
    const named = (await provider.check(URN, { ...inputs(), metadata: { name: "mine", namespace: "other" } })).inputs.metadata;
    expect(named).toEqual({ name: "mine", namespace: "other" });
    const cluster = await provider.check("urn:pulumi:s::p::kubernetes:core/v1:Namespace::ns", { apiVersion: "v1", kind: "Namespace", metadata: { name: "n" } });
    expect(cluster.inputs.metadata).toEqual({ name: "n" });
  });

  it("creates with a plain create, previews with a dry run, and updates with server-side apply", async () => {
    const provider = await configured();
    const checked = (await provider.check(URN, { ...inputs(), metadata: { name: "mine" } })).inputs;
    const preview = await provider.create(URN, checked, { preview: true });
    expect(preview.id).toBe("");
    expect(api.objects.size).toBe(0);
    const { id, state } = await provider.create(URN, checked);
    expect(id).toBe("home/mine");
    const posts = api.requests.filter(({ method }) => method === "POST");
    expect(posts.map(({ query }) => [query.get("dryRun"), query.get("fieldManager")])).toEqual([["All", "pulumi-kubernetes"], [null, "pulumi-kubernetes"]]);
    expect(state).toMatchObject({ __initialApiVersion: "v1", __inputs: checked, data: { k: "v" } });
    expect(state.__fieldManager).toMatch(/^pulumi-kubernetes-[0-9a-f]{8}$/);

    expect((await provider.diff(URN, state, checked)).changes).toBe(1);
    const news = (await provider.check(URN, { ...inputs(), metadata: { name: "mine", labels: { a: "b" } } }, checked)).inputs;
    expect((await provider.diff(URN, state, news)).detail).toEqual({ "metadata.labels": 0 });
    const updated = await provider.update(URN, id, state, news);
    const [adopt, apply] = api.requests.filter(({ method }) => method === "PATCH");
    expect(adopt.body).toMatchObject([{ path: "/metadata/managedFields" }, { path: "/metadata/resourceVersion" }]);
    expect([apply.query.get("fieldManager"), apply.query.get("force")]).toEqual([state.__fieldManager, "false"]);
    expect(updated.metadata).toMatchObject({ labels: { a: "b" } });
    expect(updated.__fieldManager).toBe(state.__fieldManager);
  });

  it("replaces a ConfigMap for its data: the old one first only where the user chose the name", async () => {
    const provider = await configured();
    for (const [metadata, deleteFirst] of [[{ name: "mine" }, true], [{}, false]] as const) {
      const checked = (await provider.check(URN, { ...inputs(), metadata })).inputs;
      const { state } = await provider.create(URN, checked);
      const changed = await provider.diff(URN, state, (await provider.check(URN, { ...inputs({ k: "w" }), metadata }, checked)).inputs);
      expect(changed).toMatchObject({ replaces: ["data.k"], deleteBeforeReplace: deleteFirst });
    }
  });

  it("fails where the object exists already, in the update and not in its preview", async () => {
    const provider = await configured();
    const checked = (await provider.check(URN, { ...inputs(), metadata: { name: "mine" } })).inputs;
    await provider.create(URN, checked);
    await expect(provider.create(URN, checked)).rejects.toThrow(/ConfigMap home\/mine .*configmaps "mine" already exists[^]*use an alias/);
    expect((await provider.create(URN, checked, { preview: true })).state).toEqual(checked);
  });

  it("names the object where the server refuses it, also in a preview; an update keeps the state", async () => {
    const provider = await configured();
    const metadata = { name: "mine" };
    const bad = (await provider.check(URN, { ...inputs({ bad: "x" }), metadata })).inputs;
    await expect(provider.create(URN, bad, { preview: true })).rejects.toThrow(/ConfigMap home\/mine .*data.bad is invalid/);
    const checked = (await provider.check(URN, { ...inputs(), metadata })).inputs;
    const { id, state } = await provider.create(URN, checked);
    const error = await provider.update(URN, id, state, bad).catch((caught) => caught);
    expect(initFailure(error)).toMatchObject({ id, state: { data: { k: "v" }, __inputs: bad }, reasons: [expect.stringMatching(/ConfigMap home\/mine.*data.bad is invalid/)] });
  });

  it("takes unknown values in a preview as they are", async () => {
    const provider = await configured();
    const unknown = inputs({ k: "04da6b54-80e4-46f7-96ec-b56ff0331ba9" });
    expect((await provider.create(URN, unknown, { preview: true })).state).toEqual(unknown);
    expect(api.requests.filter(({ method }) => method === "POST")).toEqual([]);
  });

  it("waits for a Pod until its time is up, and keeps the state with the reason", async () => {
    const provider = await configured();
    const pod = { apiVersion: "v1", kind: "Pod", metadata: { name: "p", namespace: "home" }, status: { conditions: [{ type: "PodScheduled", status: "False", reason: "Unschedulable", message: "no node fits" }] } };
    const urn = "urn:pulumi:s::p::kubernetes:core/v1:Pod::p";
    const error = await provider.create(urn, pod, { timeout: 1 }).catch((caught) => caught);
    expect(initFailure(error)).toMatchObject({ id: "home/p", reasons: [expect.stringMatching(/Pod 'home\/p' timed out waiting to be Ready/), "[Pod home/p]: no node fits"] });
    api.objects.clear();
    const skipped = { ...pod, metadata: { ...pod.metadata, annotations: { "pulumi.com/skipAwait": "true" } } };
    expect((await provider.create(urn, skipped)).id).toBe("home/p");
  });

  it("reads what is there, imports by id alone, and forgets what is gone", async () => {
    const provider = await configured();
    const checked = (await provider.check(URN, { ...inputs(), metadata: { name: "mine" } })).inputs;
    const { id, state } = await provider.create(URN, checked);
    const drifted = api.objects.get("/api/v1/namespaces/home/configmaps/mine") as Props;
    drifted.data = { k: "drift", extra: "x" };
    const read = await provider.read(URN, id, state, checked);
    expect(read.inputs.data).toEqual({ k: "drift" });
    expect(read.state.data).toEqual({ k: "drift", extra: "x" });
    const imported = await provider.read(URN, id);
    expect(imported.inputs).toEqual({ apiVersion: "v1", kind: "ConfigMap", metadata: { name: "mine", namespace: "home" }, data: { k: "drift", extra: "x" } });
    api.objects.clear();
    expect((await provider.read(URN, id, state, checked)).id).toBe("");
  });

  it("deletes in the foreground and waits until the object is gone; what is gone is no failure", async () => {
    const provider = await configured();
    const { id, state } = await provider.create(URN, (await provider.check(URN, { ...inputs(), metadata: { name: "mine" } })).inputs);
    await provider.delete(URN, id, state);
    expect(api.requests.find(({ method }) => method === "DELETE")?.body).toMatchObject({ propagationPolicy: "Foreground" });
    expect(api.objects.size).toBe(0);
    await expect(provider.delete(URN, id, state)).resolves.toBeUndefined();
  });

  it("keeps a Secret's data secret, whoever wrote it", async () => {
    const provider = await configured();
    const urn = "urn:pulumi:s::p::kubernetes:core/v1:Secret::s";
    const { inputs: checked } = await provider.check(urn, { apiVersion: "v1", kind: "Secret", metadata: { name: "s" }, stringData: { password: "open" } });
    expect(isSecret(checked.data)).toBe(true);
    expect(checked.stringData).toBeUndefined();
    expect(JSON.stringify(checked)).not.toContain("open");
    expect(checked.metadata).not.toHaveProperty(SIGNATURE);
  });

  it("decodes YAML", async () => {
    const provider = await configured();
    expect(await provider.invoke("kubernetes:yaml:decode", { text: "kind: A\n---\nkind: List\nitems: [{ kind: B }]\n---\n" })).toEqual({ result: [{ kind: "A" }, { kind: "B" }] });
    await expect(provider.invoke("kubernetes:helm:template", {})).rejects.toThrow(/no function kubernetes:helm:template/);
  });
});
