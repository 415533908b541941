import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { stringify } from "yaml";
import { isObject } from "../config/pieces";
import type { PolicyResource } from "../policy/rules";
import { readYaml, root } from "./repository";

/** A stack's objects without cluster, registry or passphrase: what `render`, `diff`, the docs and the policy's tests look at. */

/** A resource as the program registers it, secrets replaced by a placeholder. */
export interface Rendered extends PolicyResource {
  /** The component that makes it: its class, its own name, and the classes of the components whose resources this one waits for. */
  component?: { name: string; instance: string; after: string[] };
}

/** Stands wherever the program put a secret. */
export const secretPlaceholder = "[secret]";

/** Takes the place of encrypted config values: long enough for every password rule, and no secret. */
const encryptedPlaceholder = "[encrypted value]";
/** What a public key has behind its kind, another for each file. */
const keyText = (file: unknown): string => `AAAA${createHash("sha256").update(String(file)).digest("base64").replace(/=+$/, "")}`;
const keyPlaceholder = "-----BEGIN PRIVATE KEY-----\n[encrypted value]\n-----END PRIVATE KEY-----\n";

/**
 * A stack's config as the engine hands it to the program, without anything that only the operator's machine has:
 * encrypted values and files named in config become placeholders that differ when the file's name does.
 */
export function offlineConfig(project: string, declared: Record<string, unknown>, given: Record<string, unknown>): { config: Record<string, string>; secretKeys: string[] } {
  const secretKeys = new Set<string>();
  const offline = (top: string, key: string, value: unknown): unknown => {
    if (Array.isArray(value)) return value.map((item) => offline(top, key, item));
    if (!isObject(value)) return value;
    if (Object.keys(value).length === 1 && typeof value.secure === "string") {
      secretKeys.add(top);
      return /privateKey$/i.test(key) ? keyPlaceholder : encryptedPlaceholder;
    }
    return Object.fromEntries(
      Object.entries(value).map(([inner, item]) => {
        if (inner === "privateKeyFile") {
          secretKeys.add(top);
          return ["privateKey", keyPlaceholder];
        }
        if (inner === "certificateFile") return ["certificate", `ssh-ed25519-cert-v01@openssh.com ${keyText(item)}`];
        if (inner === "hostKeyFile") return ["hostKey", `ssh-ed25519 ${keyText(item)}`];
        return [inner, offline(top, inner, item)];
      }),
    );
  };
  const text = (value: unknown): string => (typeof value === "string" ? value : JSON.stringify(value));
  const config: Record<string, string> = {};
  for (const [key, schema] of Object.entries(declared)) {
    if (isObject(schema) && schema.default !== undefined) config[`${project}:${key}`] = text(schema.default);
  }
  for (const [key, value] of Object.entries(given)) {
    const full = key.includes(":") ? key : `${project}:${key}`;
    config[full] = text(offline(full, full, value));
  }
  return { config, secretKeys: [...secretKeys] };
}

/**
 * The resources that the program in `folder` registers for a stack. Nothing is asked of a cluster, registry or node, and
 * nothing is changed.
 * @param over config that takes the place of the file's
 * @param warn is told what the program warns of
 * @throws with the program's own words where it refuses the config
 */
export async function renderStack(stack: string, folder = root, over: Record<string, unknown> = {}, warn = (text: string) => void process.stderr.write(`${text}\n`)): Promise<Rendered[]> {
  // `any`: of a stack file nothing is known before the program reads it.
  const read = (name: string) => readYaml(path.join(folder, name)) as any;
  const file = `Pulumi.${stack}.yaml`;
  if (!fs.existsSync(path.join(folder, file))) {
    const known = fs.readdirSync(folder).flatMap((name) => /^Pulumi\.(.+)\.yaml$/.exec(name)?.[1] ?? []);
    throw new Error(`there is no ${file}; stacks with a file: ${known.join(", ") || "none"}`);
  }
  const project = read("Pulumi.yaml");
  const input = offlineConfig(project.name, project.config ?? {}, { ...read(file)?.config, ...over });
  const child = spawn(process.execPath, ["--no-warnings", "--require", require.resolve("tsx/cjs"), path.join(__dirname, "offline-program.ts"), stack, project.name], {
    cwd: folder,
    // Without $KUBECONFIG, passphrase or access token the program cannot get at anything even by accident.
    env: { PATH: process.env.PATH, HOME: process.env.HOME, TMPDIR: process.env.TMPDIR },
    stdio: ["pipe", "pipe", "pipe"],
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (chunk) => (stdout += chunk));
  child.stderr.on("data", (chunk) => (stderr += chunk));
  child.stdin.end(JSON.stringify(input));
  const code = await new Promise((resolve, reject) => child.on("error", reject).on("close", resolve));
  const said = stderr.trim().replace(/^warning: \[runtime\] /gm, "warning: ");
  if (code !== 0) throw new Error(`stack ${stack} cannot be rendered:\n${said}`);
  if (said !== "") warn(said);
  return JSON.parse(stdout) as Rendered[];
}

/** "Deployment" of "kubernetes:apps/v1:Deployment". */
export const kindOf = (type: string): string => type.split(":")[2] ?? type;

/** Where an object lives in the cluster: what stays the same object when its Pulumi name changes. */
export function objectPath({ type, name, props }: Rendered): string {
  if (!type.startsWith("kubernetes:")) return `pulumi/${name}`;
  const { namespace, name: objectName } = props.metadata ?? {};
  return `${namespace ?? "cluster"}/${kindOf(type)}/${objectName ?? `${name}-`}`;
}

/** Keys in order, so that only real changes differ. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, inner]) => [key, sorted(inner)]));
}

/** One resource as text for people to compare. */
export function resourceText({ type, props, protect }: Rendered): string {
  const shown = type.startsWith("command:") && typeof props.stdin === "string"
    // The script stands in the repository; its text would be here once for each node.
    ? { ...props, stdin: `[script of ${props.stdin.split("\n").length} lines, sha256 ${createHash("sha256").update(props.stdin).digest("hex").slice(0, 12)}]` }
    : props;
  return `${protect ? "# protected: Pulumi refuses to delete it\n" : ""}${stringify(sorted(type.startsWith("kubernetes:") ? shown : { type, ...shown }), { lineWidth: 0 })}`;
}
