/** The NodePortRange component with mocked resources: what is registered, in which order, and what stays secret. */
import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import * as pulumi from "@pulumi/pulumi";
import fc from "fast-check";
import { allowed, bundled, describeInspection, NodePortRange, nodePortRangeProblems, nodeScript, parseInspection, sudoFix, type ControlPlaneAccess, type Inspection, type NodePortRangeArgs } from "../../components/node-port-range";

const hostKey = `ssh-ed25519 ${"AAAA".padEnd(68, "b")}`;
const KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nnot-a-real-key\n-----END OPENSSH PRIVATE KEY-----";
/** Marks a secret in what the engine is sent. */
const SECRET = "4dabf18193072939515e22adb298388d";

const ssh = (...names: string[]): Extract<ControlPlaneAccess, { kind: "ssh" }> => ({
  kind: "ssh",
  user: "root",
  port: 22,
  privateKey: pulumi.secret(KEY),
  nodes: names.map((name, i) => ({ name, host: `10.0.0.${i + 1}`, hostKey })),
});
const inspection = (over: Partial<Inspection> = {}): Inspection => ({
  manifest: "/etc/kubernetes/manifests/kube-apiserver.yaml", flag: null, serving: "absent", kubeadmConfig: "absent", inForce: false, mark: "0123456789abcdef",
  reasons: ["the manifest does not have the flag (default 30000-32767)"], warnings: [], refusals: [], diff: "--- a\n+++ b\n", ...over,
});

interface Made {
  type: string;
  name: string;
  // The test looks at fields of several kinds of command.
  inputs: Record<string, any>;
}
interface Call {
  token: string;
  inputs: Record<string, any>;
}
let made: Made[] = [];
let calls: Call[] = [];
/** Puts the engine aside; `find` says what the inspection of a host prints. */
async function mock(find: (host: string) => string, preview = false): Promise<void> {
  made = [];
  calls = [];
  await pulumi.runtime.setMocks(
    {
      newResource: ({ type, name, inputs }) => {
        made.push({ type, name, inputs });
        return { id: name, state: { ...inputs, stdout: `${type} ran` } };
      },
      call: ({ token, inputs }) => {
        calls.push({ token, inputs });
        return { stdout: find(inputs.environment?.NODE_HOST ?? "local") };
      },
    },
    "build-platform",
    "unit",
    preview,
  );
}
const value = <T>(output: pulumi.Output<T>) => new Promise<T>((resolve, reject) => {
  const timer = setTimeout(() => reject(new Error("no value after 5 s")), 5000);
  output.apply((it) => { clearTimeout(timer); resolve(it); });
});
const commands = () => made.filter(({ type }) => type.startsWith("command:"));
const reveal = (it: any): any => (it && typeof it === "object" && it[SECRET] ? it.value : it);
const create = async (args: NodePortRangeArgs) => {
  const component = new NodePortRange("range", args);
  await value(component.range);
  return component;
};

describe("over SSH", () => {
  test("one pinned command a node, each after the former, script on standard input, nothing secret in the commands", async () => {
    await mock(() => JSON.stringify(inspection()));
    const component = await create({ range: "80-32767", access: ssh("a", "b", "c"), reserveLocalPorts: true });
    expect(await value(component.range)).toBe("80-32767");
    expect(commands().map(({ type, name }) => `${type} ${name}`)).toEqual(["a", "b", "c"].map((name) => `command:remote:Command range-${name}`));
    commands().forEach(({ inputs }, i) => {
      expect(inputs.create).toContain("sh -s -- apply --range 80-32767 --reserve-local-ports --mark 0123456789abcdef --owner ssh-");
      expect(inputs.update).toBe(inputs.create);
      expect(inputs.delete).toMatch(/sh -s -- restore --owner ssh-[abc]$/);
      expect(inputs.stdin).toBe(nodeScript);
      expect(inputs.triggers).toBeUndefined();
      expect(inputs.addPreviousOutputInEnv).toBe(false);
      expect(reveal(inputs.connection)).toMatchObject({ host: `10.0.0.${i + 1}`, user: "root", port: 22, hostKey });
      expect(JSON.stringify(inputs.connection)).toContain(SECRET);
      expect(`${inputs.create}${inputs.delete}${inputs.stdin}`).not.toContain("not-a-real-key");
      expect(reveal(inputs.connection).proxy).toBeUndefined();
    });
  });

  test("the order is kept by dependencies, not by chance", async () => {
    await mock(() => JSON.stringify(inspection()));
    const registered: string[] = [];
    const dependencies: Record<string, string[]> = {};
    const component = new NodePortRange("range", { range: "80-32767", access: ssh("a", "b", "c") }, {
      transformations: [({ name, opts }) => {
        registered.push(name);
        const on = (opts as pulumi.CustomResourceOptions).dependsOn;
        dependencies[name] = Array.isArray(on) ? on.map((each) => (each as unknown as { __name: string }).__name) : [];
        return undefined;
      }],
    });
    await value(component.range);
    expect(registered).toEqual(["range", "range-a", "range-b", "range-c"]);
    expect(dependencies).toMatchObject({ "range-a": [], "range-b": ["range-a"], "range-c": ["range-b"] });
  });

  test("the inspection gets the key by its environment, never by an argument, and what it finds is no secret", async () => {
    await mock(() => JSON.stringify(inspection()));
    const component = await create({ range: "80-32767", access: ssh("a") });
    expect(calls).toHaveLength(1);
    const [{ token, inputs }] = calls;
    expect(token).toBe("command:local:run");
    expect(inputs.command).toContain("StrictHostKeyChecking=yes");
    expect(inputs.command).not.toContain("not-a-real-key");
    expect(inputs.logging).toBe("none");
    expect(inputs.stdin).toBe(nodeScript);
    const environment = reveal(inputs.environment);
    expect(reveal(environment.NODE_KEY)).toBe(KEY);
    expect(environment.NODE_COMMAND).toContain("sh -s -- show --json --range 80-32767");
    expect(environment.NODE_COMMAND).not.toContain("apply");
    expect(environment.PROXY_HOST).toBe("");
    expect(await pulumi.isSecret(component.nodes)).toBe(false);
    expect(await value(component.nodes)).toEqual([{ name: "a", state: "80-32767 in force" }]);
  });

  test("a jump host and an agent reach both the command and the inspection", async () => {
    await mock(() => JSON.stringify(inspection()));
    const access = { ...ssh("a"), privateKey: undefined, agentSocketPath: "/run/agent", proxy: { host: "jump", port: 2222, user: "hop", hostKey, privateKey: pulumi.secret(KEY) } };
    await create({ range: "80-32767", access });
    const connection = reveal(commands()[0].inputs.connection);
    expect(connection).toMatchObject({ agentSocketPath: "/run/agent" });
    expect(reveal(connection.proxy)).toMatchObject({ host: "jump", port: 2222, user: "hop", hostKey, agentSocketPath: "/run/agent" });
    expect(reveal(calls[0].inputs.environment)).toMatchObject({ AGENT_SOCKET: "/run/agent", NODE_KEY: "", PROXY_HOST: "jump", PROXY_PORT: "2222", PROXY_USER: "hop", PROXY_HOST_KEY: hostKey });
  });
});

describe("what Pulumi's own SSH client does not know goes by OpenSSH's", () => {
  const hop = { host: "jump", port: 22, user: "hop", hostKey };
  const certificate = "ssh-ed25519-cert-v01@openssh.com AAAA";
  test.each<[string, Partial<ReturnType<typeof ssh>>]>([
    ["a certificate", { certificate }], ["a jump host's certificate", { proxy: { ...hop, certificate } }], ["a jump host behind another", { proxy: { ...hop, proxy: hop } }],
    ["a certified host", { nodes: [{ name: "a", host: "10.0.0.1", hostKey: `@cert-authority ${hostKey}` }] }], ["a certified jump host", { proxy: { ...hop, hostKey: `@cert-authority ${hostKey}` } }],
  ])("%s", async (_, over) => {
    await mock(() => JSON.stringify(inspection()));
    await create({ range: "80-32767", access: { ...ssh("a"), ...over } });
    const [{ type, inputs }] = commands();
    expect(type).toBe("command:local:Command");
    expect(reveal(inputs.create)).toMatch(/^NODE_COMMAND='[^']*sh -s -- apply --range 80-32767 --mark 0123456789abcdef --owner openssh-a'\n/);
    expect(reveal(inputs.delete)).toMatch(/^NODE_COMMAND='[^']*restore --owner openssh-a'\n/);
    expect(inputs.stdin).toBe(nodeScript);
    expect(JSON.stringify(inputs.environment)).toContain(SECRET);
    expect(reveal(reveal(inputs.environment).NODE_KEY)).toBe(KEY);
    expect(`${reveal(inputs.create)}${reveal(inputs.delete)}`).not.toContain("not-a-real-key");
  });

  test("names of users are no options and nothing that a shell reads", () => {
    const problems = (user: string, hopUser = "hop") => nodePortRangeProblems({ range: "80-32767", access: { ...ssh("a"), user, proxy: { ...hop, user: hopUser } } }).map(({ propertyPath }) => propertyPath);
    expect(problems("CORP\\j.doe", "machine$")).toEqual([]);
    expect(problems("-oX", "a'b")).toEqual(["access.user", "access.proxy.user"]);
  });
});

test("a sudo that refuses is said with what to do", () => {
  for (const [said, fix] of [["sudo: a password is required", "NOPASSWD: ALL"], ["sudo: sorry, you must have a tty to run sudo", "!requiretty"], ["sh: 1: exec: sudo: not found", "install sudo"]])
    expect(() => parseInspection("a", `error ${said}\n`)).toThrow(new RegExp(`cannot be inspected: ${said}\n.*${fix}`));
  expect(sudoFix("Host key verification failed.")).toBe("");
});

test("locally: one local command, no SSH", async () => {
  await mock(() => JSON.stringify(inspection()));
  await create({ range: "80-32767", access: { kind: "local", nodes: [{ name: "here" }] } });
  expect(commands().map(({ type }) => type)).toEqual(["command:local:Command"]);
  expect(commands()[0].inputs).toMatchObject({ stdin: nodeScript, delete: expect.stringMatching(/restore --owner local-here$/) });
  expect(commands()[0].inputs.create).not.toContain("--reserve-local-ports");
  expect(commands()[0].inputs.connection).toBeUndefined();
  expect(calls[0].inputs.command).toContain("sh -s -- show --json --range 80-32767");
  expect(calls[0].inputs.command).not.toContain("ssh ");
});

describe("drift", () => {
  test("a node found changed gets a new mark, and so a changed command; the others keep theirs", async () => {
    const found = (host: string, drift: boolean) => JSON.stringify(host === "10.0.0.2" && drift ? inspection({ mark: "ffff" }) : inspection({ inForce: true, mark: `mark of ${host}`.replace(/ /g, "-"), reasons: [], diff: "" }));
    const texts = [];
    for (const drift of [false, true]) {
      await mock((host) => found(host, drift));
      await create({ range: "80-32767", access: ssh("a", "b", "c") });
      texts.push(commands().map(({ inputs }) => inputs.update));
    }
    expect(texts[1][0]).toBe(texts[0][0]);
    expect(texts[1][1]).not.toBe(texts[0][1]);
    expect(texts[1][1]).toContain("--mark ffff");
    expect(texts[1][2]).toBe(texts[0][2]);
  });

  test("a preview names the node, the reason and whether the API server restarts", async () => {
    const said = jest.spyOn(console, "log").mockImplementation(() => undefined);
    await mock((host) => JSON.stringify(host === "10.0.0.1" ? inspection() : inspection({ inForce: true, reasons: [], diff: "" })), true);
    const component = await create({ range: "80-32767", access: ssh("a", "b") });
    expect(await value(component.nodes)).toEqual([
      { name: "a", state: "would change to 80-32767 (kube-apiserver restarts once), because the manifest does not have the flag (default 30000-32767)" },
      { name: "b", state: "80-32767 in force" },
    ]);
    expect(said.mock.calls.flat().join("\n")).toContain("a, /etc/kubernetes/manifests/kube-apiserver.yaml would change:\n--- a\n+++ b");
    said.mockRestore();
    expect(describeInspection("80-32767", inspection({ diff: "", reasons: ["kubeadm-config has absent"] }))).toContain("not restarted");
  });

  test("a node that refuses keeps every node as it is, and is named with all its reasons", () => {
    const claim = "node port 443 of the ingress is the API server's own port (--secure-port in /etc/kubernetes/manifests/kube-apiserver.yaml)";
    const found = [inspection(), inspection({ refusals: [claim, "no /readyz"] })];
    let error: unknown;
    try {
      allowed([{ name: "a" }, { name: "b" }], found);
    } catch (caught) {
      error = caught;
    }
    expect(pulumi.RunError.isInstance(error)).toBe(true);
    expect((error as Error).message).toContain(`no control-plane node was changed:\n  b: ${claim}\n  b: no /readyz\nA Service takes its node port away`);
    expect((error as Error).message).toContain("ingress.httpsNodePort");
    expect(() => allowed([{ name: "a" }], [inspection({ refusals: ["no /readyz"] })])).toThrow(/a: no \/readyz$/);
    expect(allowed([{ name: "a" }], found.slice(0, 1))).toEqual(found.slice(0, 1));
  });

  test("the ports of the ingress are looked at, and no part of the change", async () => {
    await mock(() => JSON.stringify(inspection()));
    await create({ range: "80-32767", access: ssh("a"), ports: [80, 443] });
    expect(reveal(calls[0].inputs.environment).NODE_COMMAND).toMatch(/show --json --range 80-32767 --ports 80,443$/);
    expect(commands()[0].inputs.create).not.toContain("--ports");
  });

  test("an inspection that failed names the node", () => {
    expect(() => parseInspection("control-plane-1", "error ssh: Host key verification failed.\n")).toThrow("control-plane node control-plane-1 cannot be inspected: ssh: Host key verification failed.");
    expect(() => parseInspection("a", "")).toThrow("it printed nothing");
    expect(() => parseInspection("a", JSON.stringify(inspection({ mark: "x; reboot" })))).toThrow('names its last change "x; reboot"');
  });
});

describe("bad arguments", () => {
  test("are reported together, before any resource is made", async () => {
    await mock(() => "");
    const access = ssh("a", "a");
    access.nodes[0].hostKey = "SHA256:fingerprint";
    access.nodes[1].hostKey = `ssh-rsa ${"AAAA".padEnd(372, "b")}`;
    access.privateKey = undefined;
    let error: unknown;
    try {
      new NodePortRange("range", { range: "80", access });
    } catch (caught) {
      error = caught;
    }
    expect(pulumi.InputPropertiesError.isInstance(error)).toBe(true);
    expect((error as pulumi.InputPropertiesError).errors.map(({ propertyPath }) => propertyPath)).toEqual(["range", "access.nodes[0].hostKey", "access.nodes[1].name", "access.nodes[1].hostKey", "access.privateKey"]);
    expect(commands()).toEqual([]);
    expect(calls).toEqual([]);
  });

  test("no node, or several local ones", () => {
    expect(nodePortRangeProblems({ range: "80-32767", access: ssh() })).toHaveLength(1);
    expect(nodePortRangeProblems({ range: "80-32767", access: { kind: "local", nodes: [{ name: "a" }, { name: "b" }] } })).toHaveLength(1);
  });

  test("the component and the script take the same ranges", () => {
    const functions = nodeScript.replace(/\nmain "\$@".*\n$/, "\n");
    const number = fc.oneof(fc.integer({ min: 0, max: 70000 }).map(String), fc.constantFrom("", "0", "1", "65535", "65536", "08", "-1", "1e3", "999999999999"));
    const ranges = fc.sample(fc.oneof(fc.tuple(number, number).map((pair) => pair.join("-")), fc.string({ maxLength: 8 }).filter((text) => !/[\0\n]/.test(text))), 300);
    const list = ranges.map((range) => `'${range.replace(/'/g, "'\\''")}'`).join(" ");
    const printed = execFileSync("sh", { input: `${functions}\nfor range in ${list}; do if valid_range "$range"; then echo yes; else echo no; fi; done\n`, encoding: "utf8" }).trim().split("\n");
    expect(printed).toEqual(ranges.map((range) => (nodePortRangeProblems({ range, access: ssh("a") }).length === 0 ? "yes" : "no")));
    expect(printed).toContain("yes");
  });
});

test("a checkout with the line ends of Windows sends the node the same", () => {
  const folder = fs.mkdtempSync(path.join(fs.realpathSync("/tmp"), "node-port-range-crlf-"));
  const scripts = path.join(__dirname, "../../scripts/node-port-range");
  try {
    for (const name of fs.readdirSync(scripts)) fs.writeFileSync(path.join(folder, name), fs.readFileSync(path.join(scripts, name), "utf8").replace(/\n/g, "\r\n"));
    expect(bundled(folder)).toBe(nodeScript);
    expect(nodeScript).not.toContain("\r\n");
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
});

test("the inspection's shell text is sound, with and without jump host", async () => {
  await mock(() => JSON.stringify(inspection()));
  await create({ range: "80-32767", access: ssh("a") });
  // An ssh that prints its arguments: none holds a key, and the host key is the pinned one.
  const folder = fs.mkdtempSync(path.join(fs.realpathSync("/tmp"), "node-port-range-ssh-"));
  try {
    fs.writeFileSync(path.join(folder, "ssh"), '#!/bin/sh\nfor each in "$@"; do printf "<%s>\\n" "$each"; done\nfor each in "$@"; do case $each in *known_hosts) cat "${each#UserKnownHostsFile=}";; esac; done\n', { mode: 0o755 });
    const run = (over: Record<string, string>) => execFileSync("sh", ["-c", calls[0].inputs.command], {
      env: { PATH: `${folder}:${process.env.PATH}`, TMPDIR: folder, ...reveal(calls[0].inputs.environment), NODE_KEY: KEY, ...over }, encoding: "utf8",
    });
    const direct = run({});
    expect(direct).toContain("<root@10.0.0.1>");
    expect(direct).toContain(`node ${hostKey}\n`);
    expect(direct).toContain("<IdentitiesOnly=yes>");
    expect(direct).not.toContain("not-a-real-key");
    expect(direct).not.toContain("ProxyCommand");
    const jumped = run({ PROXY_HOST: "jump", PROXY_PORT: "2222", PROXY_USER: "hop", PROXY_HOST_KEY: hostKey, PROXY_KEY: KEY });
    expect(jumped).toMatch(/<ProxyCommand=ssh .*HostKeyAlias=proxy .*-p 2222 -W \[%h\]:%p hop@jump>/);
    expect(jumped).toContain(`proxy ${hostKey}\n`);
    // A chain, with certificates and a user of a directory.
    const chain = run({ NODE_USER: "CORP\\j.doe", NODE_CERTIFICATE: "cert", HOPS: "1", HOP1_HOST: "outer", HOP1_PORT: "22", HOP1_USER: "CORP\\hop", HOP1_HOST_KEY: hostKey, HOP1_KEY: KEY, PROXY_HOST: "jump", PROXY_PORT: "2222", PROXY_USER: "CORP\\m$", PROXY_HOST_KEY: `@cert-authority ${hostKey}`, PROXY_KEY: KEY });
    expect(chain).toContain("<CORP\\j.doe@10.0.0.1>");
    expect(chain).toMatch(/<CertificateFile=\/\S+node_key-cert\.pub>/);
    expect(chain).toMatch(/<ProxyCommand=ssh [^>]*UserKnownHostsFile=\S+\/authority_proxy [^>]* -o 'ProxyCommand=sh \S+\/hop1 %%h %%p' -p 2222 -W \[%h\]:%p CORP\\\\m\\\$@jump>/);
    expect(chain).toContain(`hop1 ${hostKey}\n`);
    expect(chain).not.toContain("not-a-real-key");
    fs.writeFileSync(path.join(folder, "ssh"), "#!/bin/sh\necho refused >&2\nexit 255\n", { mode: 0o755 });
    expect(run({})).toBe("error refused\n");
    expect(fs.readdirSync(folder)).toEqual(["ssh"]);
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
});
