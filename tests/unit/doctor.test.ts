import { spawn, spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as http from "node:http";
import type { AddressInfo } from "node:net";
import * as os from "node:os";
import * as path from "node:path";
import { parseConfig } from "../../config";
import { examine, judgeArchitectures, judgeDefaultClass, judgeNames, judgeNode, judgeNodePorts, judgeRegistry, judgeRuntimes, judgeVersion, judgeVisit, report, upgradeScript, visitScript, type Line, type NodeFacts } from "../../cli/doctor";
import { root } from "../../cli/repository";
import type { Stack } from "../../cli/stack";
import { environment, stackConfig } from "./mocks";

const own = "ingress-nginx/ingress-nginx-controller";
const gib = 2 ** 30;
const node = (over: Partial<NodeFacts> = {}): NodeFacts => ({ name: "n1", address: "192.0.2.1", ready: true, leaseAge: 5, freeBytes: 50 * gib, ports: { 80: "closed", 443: "closed" }, ...over });
const judge = (facts: NodeFacts, holders: [number, string][] = []) => judgeNode(facts, new Map(holders), [own], 20 * gib, "/var/openebs/local");
const bad = (lines: Line[]) => lines.filter(({ state }) => state !== "ok");
const fine = { root: "yes", manifest: "yes", freeKib: String(10 * 2 ** 20), registry: "yes" };
const visit = (facts: Record<string, string>) => judgeVisit({ name: "cp", facts }, "/var/openebs/local", "registry.example.com", [80, 443]);

describe("the cluster's version", () => {
  test.each([["v1.35.0", ""], ["v1.37.2", ""], ["v1.36.9+rke2r1", ""], ["v1.34.3", "upgrade it"], ["v1.9.9", "upgrade it"], ["v1.38.0", "not tried with Kubernetes 1.38"], ["v2.0.0", "not tried"], ["", "does not say its version"]])("%s: %s", (version, fix) => {
    expect(judgeVersion(version)).toMatchObject({ state: fix === "" ? "ok" : "warn", fix: expect.stringContaining(fix) });
  });
});

describe("a node", () => {
  test("in order has no line to look at", () => {
    expect(bad(judge(node()))).toEqual([]);
  });

  test.each<[string, NodeFacts, [number, string][], Partial<Line>]>([
    ["not Ready", node({ ready: false }), [], { state: "fail", check: "node is Ready" }],
    ["a program on port 80", node({ ports: { 80: "open", 443: "closed" } }), [], { state: "fail", check: "port 80 is free", fix: expect.stringContaining("ss -ltnp 'sport = :80'") }],
    ["another Service on port 443", node(), [[443, "default/web"]], { state: "fail", found: "held by Service default/web" }],
    ["a firewall", node({ ports: { 80: "silent", 443: "closed" } }), [], { state: "warn", check: "port 80 is free" }],
    ["too little room", node({ freeBytes: 10 * gib }), [], { state: "warn", check: "disk", found: "10.0 GiB free, storageSize is 20.0 GiB" }],
    ["a kubelet without figures", node({ freeBytes: undefined }), [], { state: "warn", check: "disk" }],
    ["a fast clock", node({ leaseAge: -7 }), [], { state: "fail", check: "clock", found: "7 s ahead of this machine" }],
    ["a slow clock", node({ leaseAge: 100 }), [], { state: "fail", check: "clock", found: "at least 90 s behind this machine" }],
    ["no lease", node({ leaseAge: undefined }), [], { state: "warn", check: "clock" }],
  ])("%s is named with what to do", (_, facts, holders, expected) => {
    const lines = bad(judge(facts, holders));
    expect(lines).toEqual([expect.objectContaining({ where: "n1", ...expected })]);
    expect(lines[0].fix).not.toBe("");
  });

  test("the platform's own Service may hold the ports", () => {
    expect(bad(judge(node({ ports: { 80: "open", 443: "open" } }), [[80, own], [443, own]]))).toEqual([]);
  });

  test("a stale lease of a node that is down says nothing of its clock", () => {
    expect(bad(judge(node({ ready: false, leaseAge: 500 }))).map(({ check }) => check)).toEqual(["node is Ready"]);
  });
});

describe("architectures", () => {
  const nodes = [["n1", "amd64"], ["n2", "arm64"], ["n3", "amd64"]].map(([name, architecture]) => ({ name, architecture }));

  test("are listed, and one that gets no agents is named", () => {
    expect(judgeArchitectures(nodes, ["amd64"]).map(({ state, where, found, fix }) => [state, where, found, fix])).toEqual([
      ["ok", "amd64", "n1, n3", ""], ["warn", "arm64", "n2: no image is built for it, so neither agents nor the controller run there", "add linux/arm64 to imageBuild.platforms, or leave it at that"],
    ]);
    expect(judgeArchitectures(nodes, ["amd64", "arm64"]).map(({ state }) => state)).toEqual(["ok", "ok"]);
  });

  test("say nothing of images where those are not known", () => {
    expect(judgeArchitectures(nodes, undefined).map(({ state, found }) => [state, found])).toEqual([["ok", "n1, n3"], ["ok", "n2"]]);
  });
});

describe("a folder for volumes", () => {
  const mount = (facts: Record<string, string>) => bad(visit({ ...fine, ...facts })).map(({ state, check, found, fix }) => [state, check, found, fix]);

  test("may be on any disk that is written to and runs programs; SELinux that only warns is none to look at", () => {
    expect(mount({ mount: "/var", mountOptions: "rw,relatime", selinux: "Permissive" })).toEqual([]);
    expect(mount({ mount: "/", mountOptions: "rw,errors=remount-ro" })).toEqual([]);
  });

  test("is of no use read-only, and not to builds where programs do not run", () => {
    expect(mount({ mount: "/var", mountOptions: "ro,relatime" })).toEqual([["fail", "mount of /var/openebs/local", "/var is mounted read-only", expect.stringContaining("mount -o remount,rw /var")]]);
    expect(mount({ mount: "/var", mountOptions: "rw,nosuid,noexec" })).toEqual([["warn", "mount of /var/openebs/local", "/var is mounted noexec: no program in a volume can be run", expect.stringContaining("mount -o remount,exec /var")]]);
  });

  test.each<[string, string | undefined]>([
    ["system_u:object_r:var_t:s0", "var_t"], ["system_u:object_r:container_file_t:s0", undefined], ["", "no label"],
  ])("that pods share and has label %j under SELinux enforcing: %s", (label, found) => {
    const facts = { ...fine, mount: "/var", mountOptions: "rw", selinux: "Enforcing", "label:/srv/cache": label };
    const lines = judgeVisit({ name: "cp", facts }, "/var/openebs/local", "registry.example.com", [], undefined, ["/srv/cache"]);
    expect(bad(lines).map(({ state, check, found: said, fix }) => [state, check, said, fix])).toEqual(
      found === undefined ? [] : [["warn", "SELinux of /srv/cache", `enforcing, and the folder has ${found}: pods may not write there`, expect.stringContaining("semanage fcontext -a -t container_file_t '/srv/cache(/.*)?' && sudo mkdir -p /srv/cache && sudo restorecon -R /srv/cache")]],
    );
  });

  test("what the script finds out of this machine's own", () => {
    const facts = spawnSync("sh", ["-c", visitScript("/proc/sys/nowhere", { host: "127.0.0.1:1", insecure: true }, [], ["/nowhere/at all"])], { encoding: "utf8" }).stdout;
    expect(facts).not.toMatch(/^label:/m);
    expect(facts).toMatch(/^mount=\/proc/m);
    expect(facts).toMatch(/^mountOptions=r[ow],/m);
  });
});

test("the nodes' container runtimes are listed", () => {
  expect(judgeRuntimes([{ name: "n1", runtime: "containerd://2.1.4" }, { name: "n2", runtime: "cri-o://1.34.0" }, { name: "n3", runtime: "containerd://2.1.4" }]).map(({ state, where, found }) => [state, where, found])).toEqual([["ok", "containerd://2.1.4", "n1, n3"], ["ok", "cri-o://1.34.0", "n2"]]);
  expect(judgeRuntimes([{ name: "n1", runtime: "docker://20.10" }])).toEqual([expect.objectContaining({ state: "ok", where: "docker://20.10" })]);
});

describe("names", () => {
  test("the platform's own objects are no obstacle", () => {
    expect(bad(judgeNames([]))).toEqual([]);
  });

  test("each foreign object is one", () => {
    const lines = judgeNames([
      { key: "namespace", found: "Namespace jenkins of stack prod", expected: "a free name", fix: "choose another" },
      { key: "ingress.className", found: "IngressClass nginx of somebody else", expected: "a free name", fix: "share it" },
    ]);
    expect(lines).toEqual([
      { state: "fail", check: "names are free", where: "namespace", found: "Namespace jenkins of stack prod; expected a free name", fix: "choose another" },
      expect.objectContaining({ state: "fail", where: "ingress.className", fix: "share it" }),
    ]);
  });

  test("what keeps node ports from people is a line with its fix", () => {
    expect(judgeNodePorts([])).toEqual([expect.objectContaining({ state: "ok" })]);
    const finding = { key: "nodePortRange", found: "Cilium serves 30000-32767", expected: "a range", fix: "set it" };
    expect(judgeNodePorts([{ ...finding, level: "stop" }, { ...finding, level: "note" }])).toEqual([
      { state: "fail", check: "node ports", where: "nodePortRange", found: "Cilium serves 30000-32767; expected a range", fix: "set it" }, expect.objectContaining({ state: "warn" }),
    ]);
  });

  test("two default StorageClasses are one too many", () => {
    expect(judgeDefaultClass([]).state).toBe("ok");
    expect(judgeDefaultClass(["a"]).state).toBe("ok");
    expect(judgeDefaultClass(["a", "b"])).toMatchObject({ state: "warn", found: "a, b" });
  });
});

describe("a visit over SSH", () => {
  test("in order has no line to look at", () => {
    expect(bad(visit(fine))).toEqual([]);
  });

  test.each<[string, Record<string, string>, string]>([
    ["no root", { root: "no" }, "root rights"],
    ["no manifest", { manifest: "no" }, "kube-apiserver manifest"],
    ["a program on port 443", { listen443: "yes" }, "port 443 is free"],
    ["a full disk", { freeKib: "1000" }, "disk below /var/openebs/local"],
    ["an unreachable registry", { registry: "no" }, "registry registry.example.com"],
  ])("%s", (_, over, check) => {
    expect(bad(visit({ ...fine, ...over }))).toEqual([expect.objectContaining({ state: "fail", check, where: "cp", fix: expect.stringMatching(/./) })]);
  });

  test("a sudo that refuses is said with its own words and the fix", () => {
    expect(bad(visit({ ...fine, root: "no", sudo: "sudo: sorry, you must have a tty to run sudo" }))).toEqual([expect.objectContaining({ found: "sudo: sorry, you must have a tty to run sudo", fix: expect.stringContaining("!requiretty") })]);
  });

  test("what could not be found out is a warning, not a pass", () => {
    expect(bad(visit({ root: "yes", manifest: "yes", freeKib: "", registry: "unknown" })).map(({ state }) => state)).toEqual(["fail", "warn"]);
  });

  test.each([
    ["Host key verification failed.", "another host key"],
    ["root@192.0.2.1: Permission denied (publickey).", "authorized_keys"],
    ["ssh: connect to host 192.0.2.1 port 22: Connection timed out", "correct controlPlane.nodes"],
  ])("%s", (error, fix) => {
    expect(judgeVisit({ name: "cp", error }, "/b", "r", [80])).toEqual([expect.objectContaining({ state: "fail", check: "SSH access", found: error, fix: expect.stringContaining(fix) })]);
  });
});

describe("what overrules the range at the next upgrade", () => {
  const look = (files: Record<string, string>) => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "doctor-upgrade-"));
    try {
      for (const [name, text] of Object.entries(files)) {
        fs.mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
        fs.writeFileSync(path.join(folder, name), text.replaceAll("FOLDER", folder));
      }
      // As the visit runs it: inside single quotes.
      expect(upgradeScript()).not.toContain("'");
      const { stdout, stderr } = spawnSync("sh", ["-c", upgradeScript(folder)], { encoding: "utf8" });
      expect(stderr).toBe("");
      const facts = Object.fromEntries(stdout.split("\n").filter(Boolean).map((each) => each.replaceAll(folder, "/etc/kubernetes").split("="))) as Record<string, string>;
      return bad(judgeVisit({ name: "cp", facts: { ...fine, ...facts } }, "/b", "r", [], "80-32767"));
    } finally {
      fs.rmSync(folder, { recursive: true });
    }
  };
  const kubespray = (args: string) => `apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\npatches:\n  directory: FOLDER/site\n---\nkind: ClusterConfiguration\napiServer:\n  extraArgs:\n${args}controllerManager: {}\n`;

  test.each<[string, Record<string, string>, string, string]>([
    ["kubespray's file with another range", { "kubeadm-config.yaml": kubespray("  - name: service-node-port-range\n    value: \"30000-32767\"\n") }, "/etc/kubernetes/kubeadm-config.yaml has 30000-32767", 'kube_apiserver_node_port_range: "80-32767" in group_vars/k8s_cluster/k8s-cluster.yml'],
    ["kubespray's file of the older form", { "kubeadm-config.yaml": kubespray("    service-node-port-range: 30000-40000\n") }, "has 30000-40000", "kube_apiserver_node_port_range"],
    ["kubespray's file without it", { "kubeadm-config.yaml": kubespray("") }, "leaves the flag out", "kube_apiserver_node_port_range"],
    ["a patch", { "patches/kube-apiserver0+json.yaml": "- op: add\n  path: /spec/containers/0/command/-\n  value: --service-node-port-range=30000-32767\n" }, "/etc/kubernetes/patches/kube-apiserver0+json.yaml has 30000-32767", "set --service-node-port-range=80-32767 in that file"],
    ["a patch that replaces the list", { "patches/kube-apiserver.json": '{"spec":{"containers":[{"name":"kube-apiserver","command":["kube-apiserver"]}]}}' }, "leaves the flag out", "--patches"],
    ["a patch of the folder that kubeadm is told", { "kubeadm-config.yaml": kubespray("  - name: service-node-port-range\n    value: 80-32767\n"), "site/kube-apiserver.yaml": "x: --service-node-port-range=1-2\n" }, "/etc/kubernetes/site/kube-apiserver.yaml has 1-2", "--patches"],
  ])("%s is named with what to change", (_, files, found, fix) => {
    expect(look(files)).toEqual([expect.objectContaining({ state: "warn", check: "range after an upgrade", where: "cp", found: expect.stringContaining(found), fix: expect.stringContaining(fix) })]);
  });

  test("nothing, where all of them have the range or say nothing of it", () => {
    expect(look({})).toEqual([]);
    expect(look({
      "kubeadm-config.yaml": kubespray("  - name: service-node-port-range\n    value: 80-32767\n"), "patches/etcd.yaml": "x: --service-node-port-range=1-2\n",
      "patches/kube-apiserver+json.yaml": "- op: add\n  path: /metadata/labels/a\n  value: b\n", "site/kube-apiserver.yaml": "spec:\n  containers:\n  - name: kube-apiserver\n    resources: {}\n",
    })).toEqual([]);
  });
});

describe("the script that looks at a node", () => {
  const run = (script: string) =>
    new Promise<Record<string, string>>((resolve, reject) => {
      const child = spawn("sh", ["-s"], { stdio: ["pipe", "pipe", "inherit"] });
      let out = "";
      child.stdout.on("data", (chunk) => (out += chunk));
      child.on("error", reject).on("close", () => resolve(Object.fromEntries(out.trim().split("\n").map((each) => each.split("=")))));
      child.stdin.end(script);
    });
  const serve = async (status: number): Promise<[string, () => void]> => {
    const server = http.createServer((_, answer) => answer.writeHead(status).end());
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return [`127.0.0.1:${(server.address() as AddressInfo).port}`, () => server.close()];
  };

  test.each([[200, "yes"], [401, "yes"], [500, "no"]])("a registry that answers %d is reachable: %s", async (status, expected) => {
    const [host, close] = await serve(status);
    try {
      const facts = await run(visitScript("/var/no/such/folder", { host, insecure: true }, [80, 443]));
      expect(facts.registry).toBe(expected);
      // The room is that of the nearest folder that exists.
      expect(Number(facts.freeKib)).toBeGreaterThan(0);
      expect(["yes", "no"]).toContain(facts.root);
      expect(["yes", "no"]).toContain(facts.manifest);
    } finally {
      close();
    }
  });

  test("a registry at an IPv6 address is asked at it", () => {
    const script = visitScript("/var", { host: "[fd00::1]:5000", insecure: true }, []);
    expect(script).toContain('"/dev/tcp/fd00::1/5000"');
    expect(script).toContain("http://[fd00::1]:5000/v2/");
    expect(visitScript("/var", { host: "[fd00::1]", insecure: false }, [])).toContain('"/dev/tcp/fd00::1/443"');
  });

  test("a registry that is gone is not reachable", async () => {
    const [host, close] = await serve(200);
    close();
    expect((await run(visitScript("/var", { host, insecure: true }, []))).registry).toBe("no");
  });
});

test.each([["buildah", "fail"], ["in-cluster", undefined]])("with builder %s, a registry that this machine cannot reach is %s: preview asks it from here", async (builder, state) => {
  const server = http.createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  await new Promise((resolve) => server.close(resolve));
  const { config } = parseConfig({ ...stackConfig("sandbox"), nodePortRange: "none", controlPlane: {}, registry: { host, insecure: true }, imageBuild: { builder } }, environment);
  const stack = { name: "b", config, problems: [], warnings: [], keys: {}, kubectlArgs: [], kubectl: async () => Promise.reject(new Error("no cluster here")) } satisfies Stack;
  const found = (await examine(stack)).filter(({ check }) => check === `registry ${host}`);
  expect(found).toEqual(state ? [expect.objectContaining({ state, where: "this machine", found: expect.stringContaining("ECONNREFUSED"), fix: expect.stringContaining("start the registry") })] : []);
});

test.each(["buildx", "in-cluster"])("with builder %s, what the network around is to have is looked for in the cluster", async (builder) => {
  const { config } = parseConfig({ ...stackConfig("sandbox"), nodePortRange: "none", controlPlane: {}, registry: {}, imageBuild: { builder }, trust: { caBundleConfigMap: { name: "bundle", key: "ca.crt" } }, proxy: { https: "http://proxy.example.com:3128", loginSecret: { name: "login" } } }, environment);
  const kubectl = async (...args: string[]) => Promise.reject(new Error(args.join().includes("/secrets/login") ? 'Error from server (Forbidden): secrets "login" is forbidden' : "Error from server (NotFound)"));
  const stack = { name: "b", config, problems: [], warnings: [], keys: {}, kubectlArgs: [], kubectl } satisfies Stack;
  const lines = await examine(stack);
  expect(lines.filter(({ where }) => where === "cluster").map(({ state, check, found }) => [state, check, found])).toEqual(expect.arrayContaining([
    ["fail", "trust.caBundleConfigMap", "no ConfigMap bundle in namespace jenkins"],
    ["fail", "proxy.loginSecret", "Secret login of namespace jenkins, which may not be read: forbidden"],
  ]));
  // The stack's own registry is reached through the API server, whatever the builder.
  expect(lines.filter(({ check, where }) => check.startsWith("registry") && where === "this machine")).toEqual([]);
  expect(lines.map(({ check }) => check)).toContain("kubectl");
});

test("the stack's own registry is looked for on the nodes, and CRI-O has to be told of it", () => {
  const own = { namespace: "image-registry", nodesNamespace: "image-pulls", port: 61500, size: "20Gi", jobsSize: "20Gi" };
  const set = (numberReady: number) => [{ metadata: { name: "image-registry-node", namespace: "image-pulls" }, status: { desiredNumberScheduled: 3, numberReady } }];
  const found = (sets: Parameters<typeof judgeRegistry>[1], runtime = "containerd://2.2.0") => judgeRegistry(own, sets, [runtime]).map(({ state, found }) => [state, found]);
  expect(found([])).toEqual([["ok", "not there yet; the first up brings it"]]);
  expect(found([{ metadata: { name: "image-registry-node", namespace: "other-image-pulls" } }])).toEqual(found([]));
  expect(found(set(3))).toEqual([["ok", "answers on all 3 nodes"]]);
  expect(found(set(2))).toEqual([["fail", "answers on 2 of 3 nodes"]]);
  expect(found(set(3), "cri-o://1.36.0")[1]).toEqual(["warn", expect.stringContaining("CRI-O")]);
  expect(judgeVisit({ name: "a", facts: {} }, "/var", undefined, []).filter(({ check }) => check.startsWith("registry"))).toEqual([]);
  expect(visitScript("/var", undefined, [])).not.toContain("registry");
});

test("what is only a doubt about the config is a line as well, beside mistakes", async () => {
  const { config } = parseConfig(stackConfig("sandbox"), environment);
  const problems = [{ key: "domain", found: "x", expected: "a host name", fix: "mend it" }];
  const stack = { name: "b", config, problems, warnings: ["a.yaml: unknown here"], keys: {}, kubectlArgs: [], kubectl: async () => Promise.reject(new Error("no cluster here")) } satisfies Stack;
  expect((await examine(stack)).map(({ state, check, found }) => [state, check, found])).toEqual([["warn", "stack config", "a.yaml: unknown here"], ["fail", "stack config", "x; expected a host name"]]);
  expect(await examine({ ...stack, problems: [], config: { ...config, cluster: { context: "nowhere" }, imageBuild: { ...config.imageBuild, builder: "in-cluster" }, nodePorts: undefined } })).toContainEqual(expect.objectContaining({ state: "warn", found: "a.yaml: unknown here" }));
});

test("a proxy that takes no connection is to be mended, whoever asks the registry", async () => {
  const { config } = parseConfig(stackConfig("sandbox"), environment);
  const at = (address: string) => examine({ name: "b", problems: [], warnings: [], keys: {}, kubectlArgs: [], kubectl: async () => Promise.reject(new Error("no cluster here")), config: { ...config, cluster: { context: "nowhere" }, imageBuild: { ...config.imageBuild, builder: "in-cluster" }, nodePorts: undefined, surroundings: { proxy: { http: address, https: address, noProxy: [] } } } });
  expect(await at("http://127.0.0.1:1")).toContainEqual({ state: "fail", check: "proxy.https", where: "this machine", found: expect.stringContaining("takes no connection from here"), fix: expect.stringContaining("start the proxy, or correct proxy.https") });
  const proxy = http.createServer().on("connect", (_, socket) => socket.end("HTTP/1.1 503 Service Unavailable\r\n\r\n"));
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  expect(await at(`http://127.0.0.1:${(proxy.address() as AddressInfo).port}`)).toContainEqual({ state: "ok", check: "proxy", where: "this machine", found: "takes connections", fix: "" });
  await new Promise((resolve) => proxy.close(resolve));
});

test("the table shows what to mend last, with the fix and totals", () => {
  const text = report([
    { state: "fail", check: "disk", where: "n1", found: "full", fix: "make room" },
    { state: "ok", check: "clock", where: "n1", found: "agrees", fix: "" },
  ]);
  const lines = text.trimEnd().split("\n");
  expect(lines[1]).toMatch(/^ok +clock +n1 +agrees$/);
  expect(lines[2]).toMatch(/^FAIL +disk +n1 +full -> make room$/);
  expect(lines[4]).toBe("1 ok, 0 to look at, 1 to mend");
});

describe("its arguments", () => {
  const doctor = (...args: string[]) => spawnSync(process.execPath, ["--require", require.resolve("tsx/cjs"), path.join(root, "cli/doctor.ts"), ...args], { cwd: root, encoding: "utf8" });

  test("--help is help and no stack", () => {
    expect(doctor("--help")).toMatchObject({ status: 0, stdout: expect.stringMatching(/^npm run doctor -- \[STACK\]/), stderr: "" });
  });

  test.each([[["prod", "dev"], 'what is "dev"?'], [["--bogus"], "--bogus"], [["nosuch"], "there is no Pulumi.nosuch.yaml"]])("%p are refused", (args, said) => {
    expect(doctor(...args)).toMatchObject({ status: 2, stderr: expect.stringContaining(said) });
  });
});
