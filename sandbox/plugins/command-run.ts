// Stand-in for the part of the official pulumi-command plugin that runs commands: locally, and over SSH.
import { spawn } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import { constants } from "node:os";
import { basename, dirname, join, posix } from "node:path";
import type { Client, ClientChannel, ConnectConfig, SFTPWrapper } from "ssh2";
import { SIGNATURE, isObject, type Severity, type Value } from "./rpc";

/** Inputs shared by every command; all secrets already taken out of their wrappers. */
export interface CommandSettings {
  /** Text for the command's standard input. */
  stdin?: string;
  /** Streams that are shown while the command runs. Default: both. */
  logging?: "stdout" | "stderr" | "stdoutAndStderr" | "none";
  /** Program and leading arguments. Default: /bin/sh -c. */
  interpreter?: string[];
  /** Working directory. Default: the engine's. */
  dir?: string;
  environment?: { [name: string]: string };
  /** Whether the last run's output is in the environment. Default: true. */
  addPreviousOutputInEnv?: boolean;
}

export interface Output { stdout: string; stderr: string }

/** How to reach a machine by SSH; the meaning and defaults of each field are those of pulumi-command 1.2.1. */
export interface Connection {
  host: string; port?: number; user?: string; password?: string;
  privateKey?: string; privateKeyPassword?: string; agentSocketPath?: string;
  /** Failed attempts that are retried; -1 retries for ever. */
  dialErrorLimit?: number;
  /** Seconds for one attempt; 0 has no limit. */
  perDialTimeout?: number;
  /** The expected host key, `ssh-ed25519 AAAA...`. Without it any host key is accepted. */
  hostKey?: string;
  proxy?: Connection;
}

/** Where progress goes, and when to stop. */
export interface RunContext {
  status(message: string): void;
  log(severity: Severity, message: string): void;
  signal: AbortSignal;
}

/** How the official plugin, written in Go, names the signal that ended a local command. */
const SIGNAL_WORDS: Record<string, string> = {
  SIGABRT: "aborted", SIGHUP: "hangup", SIGINT: "interrupt", SIGKILL: "killed", SIGPIPE: "broken pipe", SIGQUIT: "quit", SIGSEGV: "segmentation fault", SIGTERM: "terminated",
};

/** The command failed; the message holds the command and all that it printed, in order. */
function failure(reason: string, command: string, printed: string): Error {
  return new Error(`${reason}: running ${JSON.stringify(command)}:\n${printed}`);
}

/** The variables of the last run's output, which `update` and `delete` may read. */
export function previousOutput(settings: CommandSettings, previous: Partial<Output>): Record<string, string> {
  if (settings.addPreviousOutputInEnv === false) return {};
  return {
    ...(previous.stdout ? { PULUMI_COMMAND_STDOUT: previous.stdout } : {}),
    ...(previous.stderr ? { PULUMI_COMMAND_STDERR: previous.stderr } : {}),
  };
}

/** Collects both streams, and passes on each whole line of those that are to be shown. */
export class Capture {
  private readonly chunks = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
  private readonly both: Buffer[] = [];
  private readonly rest = { stdout: "", stderr: "" };

  constructor(private readonly logging: CommandSettings["logging"], private readonly show: (line: string) => void) {}

  add(stream: keyof Output, chunk: Buffer): void {
    this.chunks[stream].push(chunk);
    this.both.push(chunk);
    const shown = this.logging === undefined || this.logging === "stdoutAndStderr" || this.logging === stream;
    if (!shown) return;
    const lines = (this.rest[stream] + chunk.toString()).split(/\r?\n/);
    this.rest[stream] = lines.pop() ?? "";
    lines.forEach(this.show);
  }

  /** Shows what is left of an unfinished line; call once at the end. */
  end(): Output {
    Object.values(this.rest).filter((line) => line !== "").forEach(this.show);
    const text = (stream: keyof Output) => Buffer.concat(this.chunks[stream]).toString().replace(/\n$/, "");
    return { stdout: text("stdout"), stderr: text("stderr") };
  }

  get printed(): string {
    return Buffer.concat(this.both).toString();
  }
}

/** Runs a command on this machine. */
export function runLocal(command: string, settings: CommandSettings, previous: Partial<Output>, context: RunContext): Promise<Output> {
  const [program = "/bin/sh", ...leading] = settings.interpreter?.length ? settings.interpreter : ["/bin/sh", "-c"];
  const cwd = settings.dir ?? process.cwd();
  if (!existsSync(cwd)) throw failure(`chdir ${cwd}: no such file or directory`, command, "");
  const capture = new Capture(settings.logging, (line) => context.status(line));
  return new Promise((resolve, reject) => {
    const child = spawn(program, [...leading, command], {
      cwd,
      env: { ...process.env, ...settings.environment, ...previousOutput(settings, previous) },
      stdio: [settings.stdin ? "pipe" : "ignore", "pipe", "pipe"],
    });
    child.stdout?.on("data", (chunk: Buffer) => capture.add("stdout", chunk));
    child.stderr?.on("data", (chunk: Buffer) => capture.add("stderr", chunk));
    // A command that does not read its input closes the pipe early; that is no failure.
    child.stdin?.on("error", () => undefined).end(settings.stdin);
    // As in the official plugin only the shell is killed, and what it has started is waited for: until it closes the pipes.
    const stop = () => child.kill("SIGKILL");
    if (context.signal.aborted) stop();
    context.signal.addEventListener("abort", stop);
    child.on("error", (error) => reject(failure(error.message, command, "")));
    child.on("close", (code, signal) => {
      context.signal.removeEventListener("abort", stop);
      const output = capture.end();
      if (code === 0) resolve(output);
      else reject(failure(signal ? `signal: ${SIGNAL_WORDS[signal] ?? constants.signals[signal]}` : `exit status ${code}`, command, capture.printed));
    });
  });
}

/** Settings for one SSH connection attempt; throws where a key cannot be read. */
export async function connectConfig(connection: Connection, onMismatch: () => void): Promise<ConnectConfig> {
  const { utils } = (await import("ssh2")).default;
  const agent = connection.agentSocketPath ?? (process.env.SSH_AUTH_SOCK || undefined);
  const config: ConnectConfig = {
    username: connection.user ?? "root",
    readyTimeout: (connection.perDialTimeout ?? 15) * 1000,
    privateKey: connection.privateKey,
    passphrase: connection.privateKeyPassword,
    password: connection.password,
    tryKeyboard: connection.password !== undefined,
    agent,
    authHandler: [
      ...(connection.privateKey !== undefined ? ["publickey" as const] : []),
      ...(connection.password !== undefined ? ["password" as const, "keyboard-interactive" as const] : []),
      ...(agent !== undefined ? ["agent" as const] : []),
      "none",
    ],
  };
  if (connection.privateKey !== undefined) {
    const key = utils.parseKey(connection.privateKey, connection.privateKeyPassword);
    if (key instanceof Error) throw new Error(/passphrase/.test(key.message) ? "ssh: this private key is passphrase protected" : "ssh: no key found");
  }
  if (connection.hostKey !== undefined) {
    const expected = utils.parseKey(connection.hostKey);
    if (expected instanceof Error) throw new Error(`failed to parse host key: ${expected.message}`);
    const pinned = expected.getPublicSSH();
    // As in the official plugin: of an RSA key this asks for SHA-1 signatures alone, which servers have not given since OpenSSH 8.8.
    config.algorithms = { serverHostKey: [expected.type] as never };
    config.hostVerifier = (found: Buffer) => {
      if (found.equals(pinned)) return true;
      onMismatch();
      return false;
    };
  }
  return config;
}

/** Why a connection did not come about, in the words of the official plugin's SSH client. */
export function dialFailure(connection: Connection, error: Error & { level?: string; code?: string }, mismatch: boolean): string {
  const target = `dial tcp ${connection.host}:${connection.port ?? 22}`;
  if (mismatch) return "ssh: handshake failed: ssh: host key mismatch";
  if (error.level === "client-authentication") {
    const attempted = ["none", ...(connection.privateKey !== undefined ? ["publickey"] : []), ...(connection.password !== undefined ? ["password"] : [])];
    return `ssh: handshake failed: ssh: unable to authenticate, attempted methods [${attempted.join(" ")}], no supported methods remain`;
  }
  if (error.level === "client-timeout" || error.code === "ETIMEDOUT") return `${target}: i/o timeout`;
  if (error.code === "ECONNREFUSED") return `${target}: connect: connection refused`;
  if (error.code === "EHOSTUNREACH") return `${target}: connect: no route to host`;
  if (error.code === "ENOTFOUND") return `dial tcp: lookup ${connection.host}: no such host`;
  return `ssh: handshake failed: ${error.message}`;
}

/** Opens a connection, through the proxy where there is one, with as many attempts as `dialErrorLimit` allows. */
export async function dial(connection: Connection, context: RunContext, what = "Dial"): Promise<Client> {
  if (connection.proxy === undefined) return dialThrough(undefined, connection, context, what);
  let proxy: Client | undefined;
  try {
    proxy = await dial(connection.proxy, context, "Dial proxy");
    return await dialThrough(proxy, connection, context, what);
  } catch (error) {
    proxy?.end();
    throw new Error(`proxy: ${(error as Error).message}`);
  }
}

async function dialThrough(proxy: Client | undefined, connection: Connection, context: RunContext, what: string): Promise<Client> {
  const limit = connection.dialErrorLimit ?? 10;
  let mismatch = false;
  const config = await connectConfig(connection, () => (mismatch = true));
  for (let attempt = 1, delay = 100; ; attempt++, delay = Math.min(delay * 1.5, 5000)) {
    mismatch = false;
    try {
      return await connect(connection, config, proxy);
    } catch (error) {
      if (context.signal.aborted) throw new Error("context canceled");
      if (limit > -1 && attempt > limit) throw new Error(`after ${attempt - 1} failed attempts: ${dialFailure(connection, error as Error, mismatch)}`);
      context.status(`${what} ${attempt}/${limit === -1 ? "inf" : limit} failed: retrying`);
      await new Promise((resolve) => setTimeout(resolve, delay));
    }
  }
}

async function connect(connection: Connection, config: ConnectConfig, proxy: Client | undefined): Promise<Client> {
  const { Client } = (await import("ssh2")).default;
  const port = connection.port ?? 22;
  const sock = proxy && (await new Promise<ClientChannel>((resolve, reject) =>
    proxy.forwardOut("127.0.0.1", 0, connection.host, port, (error, channel) => (error ? reject(error) : resolve(channel)))));
  return new Promise((resolve, reject) => {
    const client = new Client();
    client.on("ready", () => resolve(client));
    client.on("error", reject);
    client.on("close", () => { proxy?.end(); reject(new Error("connection closed")); });
    client.on("keyboard-interactive", (_name, _instructions, _language, prompts, finish) => finish(prompts.map(() => connection.password ?? "")));
    client.connect(sock ? { ...config, sock } : { ...config, host: connection.host, port });
  });
}

/**
 * The names of the variables that the server does not take. A command that does nothing asks, because
 * ssh2 sends variables together with the command and never asks for the server's answer.
 */
async function refusedVariables(client: Client, env: Record<string, string>): Promise<string[]> {
  if (Object.keys(env).length === 0) return [];
  interface Internals {
    _protocol: { env(id: number, key: string, value: string, wantReply: boolean): void };
    _chanMgr: { _channels: Record<string, { outgoing?: { id: number }; _callbacks: ((failed: boolean) => void)[] }> };
  }
  const refused: string[] = [];
  const { _protocol: protocol, _chanMgr: manager } = client as unknown as Internals;
  const send = protocol.env;
  protocol.env = (id, key, value) => {
    const channel = Object.values(manager._channels).find((candidate) => candidate.outgoing?.id === id);
    channel?._callbacks.push((failed) => failed && refused.push(key));
    send.call(protocol, id, key, value, channel !== undefined);
  };
  await new Promise<void>((resolve, reject) => client.exec(":", { env }, (error, channel) => {
    if (error) return reject(error);
    channel.on("close", resolve).resume().end();
  }));
  protocol.env = send;
  return refused;
}

/** Runs a command on another machine. */
export async function runRemote(connection: Connection, command: string, settings: CommandSettings, previous: Partial<Output>, context: RunContext): Promise<Output> {
  const client = await dial(connection, context);
  // As in the official plugin, neither a time limit nor a cancelled update ends a command that has begun.
  try {
    const env = { ...settings.environment, ...previousOutput(settings, previous) };
    for (const name of await refusedVariables(client, env)) {
      const wanted = name in (settings.environment ?? {});
      context.log(wanted ? "error" : "warning", `Unable to set '${name}'. This only works if your SSH server is configured to accept these variables via AcceptEnv. ` +
        "Alternatively, if a Bash-like shell runs the command on the remote host, you could prefix the command itself with the variables in the form 'VAR=value command'");
      if (wanted) throw new Error(`could not set environment variable "${name}": ssh: setenv failed`);
      delete env[name];
    }
    const capture = new Capture(settings.logging, (line) => context.status(line));
    const ended = await new Promise<{ code?: number | null; signal?: string }>((resolve, reject) => {
      client.on("close", () => reject(failure("wait: remote command exited without exit status or exit signal", command, capture.printed)));
      client.exec(command, { env }, (error, channel) => {
        if (error) return reject(failure(error.message, command, ""));
        let end: { code?: number | null; signal?: string } = {};
        channel.on("data", (chunk: Buffer) => capture.add("stdout", chunk));
        channel.stderr.on("data", (chunk: Buffer) => capture.add("stderr", chunk));
        channel.on("exit", (code: number | null, signal?: string) => (end = { code, signal }));
        channel.on("close", () => resolve(end));
        channel.end(settings.stdin ?? "");
      });
    });
    const output = capture.end();
    if (ended.code === 0) return output;
    const number = ended.signal === undefined ? undefined : constants.signals[ended.signal as NodeJS.Signals];
    throw failure(number === undefined ? `Process exited with status ${ended.code ?? "unknown"}` : `Process exited with status ${128 + number} from signal ${ended.signal?.replace("SIG", "")}`, command, capture.printed);
  } finally {
    client.end();
  }
}

/** Copies a text, a file or a folder to another machine, with the rules of pulumi-command's CopyToRemote. */
export async function copyToRemote(connection: Connection, source: Value, remotePath: string, context: RunContext): Promise<void> {
  if (!isObject(source) || source[SIGNATURE] === undefined) throw new Error("source must be an asset or an archive");
  const client = await dial(connection, context);
  try {
    const sftp = await new Promise<SFTPWrapper>((resolve, reject) => client.sftp((error, opened) => (error ? reject(error) : resolve(opened))));
    const done = (start: (callback: (error?: Error | null) => void) => void, what: string) =>
      new Promise<void>((resolve, reject) => start((error) => (error ? reject(new Error(`${what}: ${error.message}`)) : resolve())));
    const isDirectory = (path: string) =>
      new Promise<boolean | undefined>((resolve) => sftp.stat(path, (error, found) => resolve(error ? undefined : found.isDirectory())));
    const makeDirectory = async (path: string): Promise<void> => {
      if (path === "/" || path === "." || (await isDirectory(path))) return;
      await makeDirectory(posix.dirname(path));
      await done((callback) => sftp.mkdir(path, callback), `failed to create remote directory ${path}`);
    };
    const copyFile = (from: string, to: string) => done((callback) => sftp.fastPut(from, to, callback), `failed to copy file ${from} to remote path ${to}`);
    const copyFolder = async (from: string, to: string): Promise<void> => {
      await makeDirectory(to);
      for (const name of readdirSync(from)) {
        const inner = join(from, name);
        await (statSync(inner).isDirectory() ? copyFolder(inner, posix.join(to, name)) : copyFile(inner, posix.join(to, name)));
      }
    };
    const existing = await isDirectory(remotePath);
    if (typeof source.text === "string") {
      const { text } = source;
      if (existing) throw new Error(`remote path ${remotePath} is a directory; when using a text asset, remotePath must be a file path`);
      await makeDirectory(dirname(remotePath));
      await done((callback) => sftp.writeFile(remotePath, text, callback), `failed to write text content to remote path ${remotePath}`);
    } else if (typeof source.path === "string" && statSync(source.path).isDirectory()) {
      await copyFolder(source.path, source.path.endsWith("/") ? remotePath : posix.join(remotePath, basename(source.path)));
    } else if (typeof source.path === "string") {
      if (existing === undefined) await makeDirectory(dirname(remotePath));
      await copyFile(source.path, existing ? posix.join(remotePath, basename(source.path)) : remotePath);
    } else {
      throw new Error("the sandbox's stand-in for pulumi-command copies text, files and folders only");
    }
  } finally {
    client.end();
  }
}
