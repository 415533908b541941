import { generateKeyPairSync } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import ssh2, { type Connection as ServerConnection, type Server } from "ssh2";
import { PropertyDiff } from "@pulumi/pulumi/proto/provider_pb";
import { commandProvider, diffProps } from "../../sandbox/plugins/command";
import { Capture, connectConfig, dialFailure, previousOutput } from "../../sandbox/plugins/command-run";
import { UNKNOWN, isSecret, reveal, secret, type Props } from "../../sandbox/plugins/rpc";
import { recordingEngine, serveProvider, type Provider } from "./plugins-harness";

const LOCAL = "urn:pulumi:s::p::command:local:Command::hello";
const REMOTE = "urn:pulumi:s::p::command:remote:Command::hello";
const COPY = "urn:pulumi:s::p::command:remote:CopyToRemote::copy";

const engine = recordingEngine();
let provider: Provider;
let folder: string;
beforeAll(async () => {
  provider = await serveProvider(commandProvider(engine));
  folder = mkdtempSync(join(tmpdir(), "plugins-command-"));
});
afterAll(() => {
  provider.stop();
  rmSync(folder, { recursive: true });
});
beforeEach(() => void engine.lines.splice(0));

describe("local.Command", () => {
  it("runs create once, and gives both streams without their last line end", async () => {
    const { id, state } = await provider.create(LOCAL, { create: "echo out; echo err >&2; echo", environment: { A: "1" } });
    expect(id).toMatch(/^hello[0-9a-f]{8}$/);
    expect(state).toEqual({ create: "echo out; echo err >&2; echo", environment: { A: "1" }, stdout: "out\n", stderr: "err" });
  });
  it("runs nothing in a preview, and the output is unknown", async () => {
    const marker = join(folder, "preview");
    const { state } = await provider.create(LOCAL, { create: `touch ${marker}` }, { preview: true });
    expect(existsSync(marker)).toBe(false);
    expect(state.stdout).toBe(UNKNOWN);
    expect((await provider.update(LOCAL, "i", { create: "a", stdout: "x", stderr: "" }, { create: "b" }, { preview: true })).stdout).toBe(UNKNOWN);
    expect((await provider.update(LOCAL, "i", { create: "a", stdout: "x", stderr: "" }, { create: "a" }, { preview: true })).stdout).toBe("x");
  });
  it("honours environment, dir, stdin and interpreter", async () => {
    const { state } = await provider.create(LOCAL, { create: "console.log(process.env.A, process.cwd(), require('fs').readFileSync(0, 'utf8'))", environment: { A: "1" }, dir: folder, stdin: "in", interpreter: ["node", "-e"] });
    expect(state.stdout).toBe(`1 ${folder} in`);
  });
  it("says which folder is missing", async () => {
    await expect(provider.create(LOCAL, { create: "true", dir: join(folder, "none") })).rejects.toThrow(/chdir .*none: no such file or directory/);
  });
  it("fails with the command, its status and all that it printed", async () => {
    await expect(provider.create(LOCAL, { create: "echo before; echo why >&2; exit 3" })).rejects.toThrow(/exit status 3: running "echo before; echo why >&2; exit 3":\nbefore\nwhy\n/);
  });
  it("updates with update, else with create, and sees the last output", async () => {
    const olds = { create: "echo created", stdout: "was", stderr: "werr" };
    const both = "echo $PULUMI_COMMAND_STDOUT $PULUMI_COMMAND_STDERR";
    expect((await provider.update(LOCAL, "i", olds, { create: "false", update: both })).stdout).toBe("was werr");
    expect((await provider.update(LOCAL, "i", olds, { create: both })).stdout).toBe("was werr");
    expect((await provider.update(LOCAL, "i", olds, { create: both, addPreviousOutputInEnv: false })).stdout).toBe("");
    expect((await provider.update(LOCAL, "i", olds, { delete: "true" })).stdout).toBe("was");
  });
  it("deletes with the state's script and environment, and without a script does nothing", async () => {
    const file = join(folder, "deleted");
    await provider.delete(LOCAL, "i", { create: "true", delete: `echo $A $PULUMI_COMMAND_STDOUT > ${file}`, environment: { A: "old" }, stdout: "made", stderr: "" });
    expect(readFileSync(file, "utf8")).toBe("old made\n");
    await expect(provider.delete(LOCAL, "i", { create: "true" })).resolves.toBeUndefined();
  });
  it.each([[undefined, ["out", "err"]], ["stdoutAndStderr", ["out", "err"]], ["stdout", ["out"]], ["stderr", ["err"]], ["none", []]])("logging %s shows %j", async (logging, shown) => {
    await provider.create(LOCAL, { create: "echo out; echo err >&2", ...(logging ? { logging } : {}) });
    expect([...engine.lines].sort()).toEqual([...(shown as string[])].sort());
  });
  it("keeps secret inputs secret, and uses their values", async () => {
    const { state } = await provider.create(LOCAL, { create: "echo ${#A}", environment: { A: secret("hush") } });
    expect(state.stdout).toBe("4");
    expect((state.environment as Props).A).toEqual(secret("hush"));
  });
  it("is killed when its time is up; what it has started is not, and is waited for", async () => {
    const file = join(folder, "grandchild");
    await expect(provider.create(LOCAL, { create: `(sleep 3; touch ${file}) & exec sleep 60` }, { timeout: 1 })).rejects.toThrow(/signal: killed: running/);
    expect(existsSync(file)).toBe(true);
  });
  it("ends when the engine cancels", async () => {
    const own = await serveProvider(commandProvider(recordingEngine()));
    const running = own.create(LOCAL, { create: "exec sleep 60" });
    const ended = expect(running).rejects.toThrow(/signal: killed/);
    await new Promise((resolve) => setTimeout(resolve, 200));
    await own.cancel();
    await ended;
    own.stop();
  });
  it("local.run runs at once, with its arguments in the result", async () => {
    expect(await provider.invoke("command:local:run", { command: "echo hi" })).toMatchObject({ command: "echo hi", stdout: "hi", stderr: "" });
    await expect(provider.invoke("command:local:walk", {})).rejects.toThrow(/unknown function command:local:walk/);
  });
});

describe("what changed", () => {
  it("is told path by path, and is nothing for equal inputs", async () => {
    const inputs = { create: "a", environment: { A: "1", B: "2" }, triggers: ["x", "y"] };
    expect((await provider.diff(LOCAL, { ...inputs, stdout: "o", stderr: "" }, inputs)).changes).toBe(1);
    const changed = await provider.diff(LOCAL, { ...inputs, stdout: "o", stderr: "" }, { create: "b", environment: { A: "1", C: "3" }, triggers: ["x", "z"] }, inputs);
    expect(changed.detail).toEqual({ create: PropertyDiff.Kind.UPDATE, "environment.B": PropertyDiff.Kind.DELETE, "environment.C": PropertyDiff.Kind.ADD, "triggers[1]": PropertyDiff.Kind.UPDATE });
    expect(changed.replaces).toEqual([]);
  });
  it("replaces where triggers come or go", async () => {
    expect((await provider.diff(LOCAL, { create: "a" }, { create: "a", triggers: ["x"] }, { create: "a" })).replaces).toEqual(["triggers"]);
  });
  it("holds a secret as one value, and its becoming secret", () => {
    expect(diffProps({ a: secret({ x: 1, y: 2 }) }, { a: secret({ x: 1, y: 3 }) })).toEqual({ a: PropertyDiff.Kind.UPDATE });
    expect(diffProps({ a: "x" }, { a: secret("x") })).toEqual({ a: PropertyDiff.Kind.UPDATE });
    expect(diffProps({ a: secret("x") }, { a: secret("x") })).toEqual({});
  });
});

describe("Check", () => {
  it("fills in a connection's defaults and marks it and its credentials secret", async () => {
    const { inputs, failures } = await provider.check(REMOTE, { connection: { host: "h", privateKey: "k", proxy: { host: "p", password: "w" } }, create: "a" });
    expect(failures).toEqual([]);
    expect(isSecret(inputs.connection)).toBe(true);
    expect(reveal(inputs.connection)).toEqual({ host: "h", privateKey: "k", user: "root", port: 22, dialErrorLimit: 10, perDialTimeout: 15, proxy: { host: "p", password: "w", user: "root", port: 22, dialErrorLimit: 10, perDialTimeout: 15 } });
    const { value } = inputs.connection as unknown as { value: Props };
    expect([value.privateKey, (value.proxy as Props).password].map((field) => isSecret(field))).toEqual([true, true]);
  });
  it.each<[string, Props, string]>([
    [REMOTE, { create: "a" }, "connection"], [REMOTE, { connection: {} }, "connection.host"], [COPY, { connection: { host: "h" }, source: "x" }, "remotePath"],
    [LOCAL, { create: "a", assetPaths: ["x"] }, "assetPaths"], ["urn:pulumi:s::p::command:remote:Other::x", {}, ""],
  ])("refuses %s with %j for %s", async (urn, news, property) => {
    const { failures } = await provider.check(urn, news);
    expect(failures.map((failure) => failure.property)).toEqual([property]);
  });
  it("lets an unknown connection pass", async () => {
    expect((await provider.check(REMOTE, { connection: UNKNOWN, create: "a" })).failures).toEqual([]);
  });
});

it("previous output is in the environment unless empty or switched off", () => {
  expect(previousOutput({}, { stdout: "a", stderr: "" })).toEqual({ PULUMI_COMMAND_STDOUT: "a" });
  expect(previousOutput({ addPreviousOutputInEnv: false }, { stdout: "a" })).toEqual({});
});

it("lines are shown whole, however the stream is cut", () => {
  const lines: string[] = [];
  const capture = new Capture(undefined, (line) => lines.push(line));
  for (const piece of ["a", "b\nc", "d\r\n", "e"]) capture.add("stdout", Buffer.from(piece));
  expect(capture.end()).toEqual({ stdout: "ab\ncd\r\ne", stderr: "" });
  expect(lines).toEqual(["ab", "cd", "e"]);
});

describe("remote.Command", () => {
  const keyOf = () => generateKeyPairSync("rsa", { modulusLength: 2048, privateKeyEncoding: { type: "pkcs1", format: "pem" }, publicKeyEncoding: { type: "pkcs1", format: "pem" } });
  const hostKey = keyOf();
  const userKey = keyOf();
  const publicKey = (pem: string): string => {
    const key = ssh2.utils.parseKey(pem);
    if (key instanceof Error) throw key;
    return `${key.type} ${key.getPublicSSH().toString("base64")} comment`;
  };
  let server: Server;
  let port: number;
  let connections = 0;
  const commands: string[] = [];
  /** How the server treats connections and variables; each test sets what it needs. */
  let refuseDials = 0;
  const accepted = new Set(["LANG"]);

  beforeAll(async () => {
    const serve = (client: ServerConnection) => {
      connections++;
      client.on("error", () => undefined);
      if (refuseDials-- > 0) return void client.end();
      client.on("authentication", (context) => {
        const known = context.method === "publickey" && context.key.data.equals((ssh2.utils.parseKey(userKey.privateKey) as ssh2.ParsedKey).getPublicSSH());
        if (known || (context.method === "password" && context.password === "pw")) context.accept();
        else context.reject(["publickey", "password"]);
      });
      client.on("tcpip", (accept, _reject, info) => {
        const channel = accept();
        const onward = new (require("node:net").Socket)().connect(info.destPort, info.destIP);
        onward.on("error", () => channel.end());
        channel.pipe(onward).pipe(channel);
      });
      client.on("session", (acceptSession) => {
        const session = acceptSession();
        const variables: Record<string, string> = {};
        session.on("env", (accept, reject, info) => {
          const { key, val } = info as unknown as { key: string; val: string };
          if (!accepted.has(key)) return void reject?.();
          variables[key] = val;
          accept?.();
        });
        session.on("exec", (accept, _reject, { command }) => {
          const channel = accept();
          let input = "";
          commands.push(command);
          channel.on("data", (chunk: Buffer) => (input += chunk.toString()));
          channel.on("end", () => {
            if (!channel.writable) return;
            channel.write(`${command} ${JSON.stringify(variables)} ${input}\n`);
            channel.stderr.write("remote err\n");
            channel.exit(command === "fail" ? 4 : 0);
            channel.end();
          });
        });
      });
    };
    server = new ssh2.Server({ hostKeys: [hostKey.privateKey] }, serve);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    port = (server.address() as AddressInfo).port;
  });
  afterAll(() => new Promise<void>((resolve) => server.close(() => resolve())));
  beforeEach(() => {
    [connections, refuseDials] = [0, 0];
    commands.splice(0);
  });

  const connection = (more: Props = {}): Props => ({ host: "127.0.0.1", port, user: "root", privateKey: userKey.privateKey, hostKey: publicKey(hostKey.privateKey), dialErrorLimit: 0, ...more });

  it("runs over SSH with a pinned host key, stdin and accepted variables", async () => {
    const { state } = await provider.create(REMOTE, { create: "hi", connection: secret(connection()), stdin: "text", environment: { LANG: "C" } });
    expect(state.stdout).toBe('hi {"LANG":"C"} text');
    expect(state.stderr).toBe("remote err");
    expect(isSecret(state.connection)).toBe(true);
    expect(engine.lines).toEqual(expect.arrayContaining(['hi {"LANG":"C"} text', "remote err"]));
  });
  it("fails with the remote status and output", async () => {
    await expect(provider.create(REMOTE, { create: "fail", connection: connection() })).rejects.toThrow(/Process exited with status 4: running "fail":\nfail \{\} \nremote err/);
  });
  it("refuses another host key, as often as it may dial", async () => {
    const other = publicKey(keyOf().privateKey);
    await expect(provider.create(REMOTE, { create: "hi", connection: connection({ hostKey: other, dialErrorLimit: 2 }) })).rejects.toThrow(/after 2 failed attempts: ssh: handshake failed: ssh: host key mismatch$/);
    expect(connections).toBe(3);
    expect(commands).toEqual([]);
  });
  it("asks for SHA-1 signatures by an RSA host key, which OpenSSH has not given since 8.8", async () => {
    const config = await connectConfig({ host: "h", hostKey: publicKey(hostKey.privateKey) }, () => undefined);
    expect(config.algorithms).toEqual({ serverHostKey: ["ssh-rsa"] });
  });
  it("says in Go's words why there is no connection", async () => {
    const at = (more: Props) => provider.create(REMOTE, { create: "hi", connection: connection(more) });
    await expect(at({ port: 1 })).rejects.toThrow(/after 0 failed attempts: dial tcp 127\.0\.0\.1:1: connect: connection refused$/);
    await expect(at({ privateKey: hostKey.privateKey })).rejects.toThrow(/unable to authenticate, attempted methods \[none publickey\], no supported methods remain$/);
    const failed = (error: object) => dialFailure({ host: "h", port: 2 }, error as Error, false);
    expect([{ code: "ENOTFOUND" }, { code: "EHOSTUNREACH" }, { level: "client-timeout" }, { message: "odd" }].map(failed)).toEqual([
      "dial tcp: lookup h: no such host", "dial tcp h:2: connect: no route to host", "dial tcp h:2: i/o timeout", "ssh: handshake failed: odd",
    ]);
  });
  it("accepts any host key where none is given", async () => {
    const { hostKey: _, ...open } = connection();
    expect((await provider.create(REMOTE, { create: "hi", connection: open })).state.stdout).toContain("hi");
  });
  it("says that a key cannot be read", async () => {
    await expect(provider.create(REMOTE, { create: "hi", connection: connection({ privateKey: "nonsense" }) })).rejects.toThrow(/ssh: no key found/);
    await expect(provider.create(REMOTE, { create: "hi", connection: connection({ hostKey: "nonsense" }) })).rejects.toThrow(/failed to parse host key/);
  });
  it("logs in with a password", async () => {
    const { privateKey: _, ...rest } = connection();
    expect((await provider.create(REMOTE, { create: "hi", connection: { ...rest, password: secret("pw") } })).state.stdout).toContain("hi");
    await expect(provider.create(REMOTE, { create: "hi", connection: { ...rest, password: "wrong" } })).rejects.toThrow(/after 0 failed attempts.*attempted methods \[none password\]/);
  });
  it("dials again as often as allowed, and tells", async () => {
    refuseDials = 2;
    expect((await provider.create(REMOTE, { create: "hi", connection: connection({ dialErrorLimit: 2 }) })).state.stdout).toContain("hi");
    expect(engine.lines).toEqual(expect.arrayContaining(["Dial 1/2 failed: retrying", "Dial 2/2 failed: retrying"]));
    refuseDials = 3;
    await expect(provider.create(REMOTE, { create: "hi", connection: connection({ dialErrorLimit: 1 }) })).rejects.toThrow(/after 1 failed attempts/);
  });
  it("fails for a variable that the server refuses, but only warns for the last output", async () => {
    await expect(provider.create(REMOTE, { create: "never", connection: connection(), environment: { SECRETIVE: "x" } })).rejects.toThrow(/could not set environment variable "SECRETIVE"/);
    expect(commands).not.toContain("never");
    expect(engine.lines.join()).toContain("AcceptEnv");
    const state = await provider.update(REMOTE, "i", { create: "hi", stdout: "was", stderr: "" }, { create: "again", connection: connection() });
    expect(state.stdout).toContain("again");
    expect(engine.lines.join()).toContain("warning: Unable to set 'PULUMI_COMMAND_STDOUT'");
  });
  it("goes through a proxy, and names it where it fails", async () => {
    expect((await provider.create(REMOTE, { create: "hi", connection: connection({ proxy: connection() }) })).state.stdout).toContain("hi");
    expect(connections).toBe(2);
    await expect(provider.create(REMOTE, { create: "hi", connection: connection({ proxy: connection({ port: 1 }) }) })).rejects.toThrow(/^2 UNKNOWN: proxy: after 0 failed attempts/);
    await expect(provider.create(REMOTE, { create: "hi", connection: connection({ proxy: connection({ port: 1, dialErrorLimit: 1 }) }) })).rejects.toThrow(/proxy: after 1 failed attempts/);
    expect(engine.lines).toContain("Dial proxy 1/1 failed: retrying");
  });
  it("copies nothing in a preview", async () => {
    writeFileSync(join(folder, "source"), "x");
    await provider.create(COPY, { connection: connection(), source: "x", remotePath: "/x" }, { preview: true });
    expect(connections).toBe(0);
  });
});
