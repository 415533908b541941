import * as fs from "node:fs";
import * as path from "node:path";
import * as pulumi from "@pulumi/pulumi";
import { parse } from "yaml";
import type { Environment } from "../../config";

/** A resource as the program registered it. */
export interface Registered {
  type: string;
  name: string;
  // Whatever the resource takes: tests look at single fields of many kinds of object.
  inputs: any;
  /** Reference of the explicit provider. */
  provider?: string;
}

/** Every resource registered since the last useMocks. */
export let registered: Registered[] = [];

/**
 * Puts Pulumi's engine aside: resources get their inputs back as outputs, Kubernetes objects the name they are given, and
 * commands print what `stdout` says for their name.
 */
export async function useMocks(stdout: (name: string) => string = () => ""): Promise<void> {
  registered = [];
  await pulumi.runtime.setMocks(
    {
      newResource: ({ type, name, inputs, provider }) => {
        registered.push({ type, name, inputs, provider });
        const state = { ...inputs };
        if (type.startsWith("kubernetes:")) state.metadata = { name, resourceVersion: "1", ...inputs.metadata };
        if (type.startsWith("command:")) state.stdout = stdout(name);
        return { id: `${name}-id`, state };
      },
      // The only call of the stack is the node-port inspection, which finds everything in force.
      call: () => ({ stdout: JSON.stringify({ manifest: "", flag: null, serving: null, inForce: true, mark: "0", reasons: [], warnings: [], refusals: [], diff: "" }) }),
    },
    "build-platform",
    "unit",
    false,
  );
}

/** The value of an output. */
export function valueOf<T>(output: pulumi.Output<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    // Rejections of the inputs do not reach apply; a missing value would hang the test.
    const timer = setTimeout(() => reject(new Error("the output has no value after 5 s")), 5000);
    output.apply((value) => {
      clearTimeout(timer);
      resolve(value);
    });
  });
}

/** Waits until no further resource is registered: components register theirs asynchronously. */
export async function settled(): Promise<void> {
  for (let before = -1, quiet = 0; quiet < 5; quiet = registered.length === before ? quiet + 1 : 0) {
    before = registered.length;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** The one registered resource whose type ends with `kind`, and whose name is `name` if given. */
export function the(kind: string, name?: string): Registered {
  const found = all(kind).filter((r) => name === undefined || r.name === name || r.inputs.metadata?.name === name);
  if (found.length !== 1) throw new Error(`${found.length} resources of kind ${kind}${name ? ` named ${name}` : ""}; there are ${registered.map((r) => `${r.type} ${r.name}`).join(", ")}`);
  return found[0];
}

/** Every registered resource whose type ends with `:kind`. */
export function all(kind: string): Registered[] {
  return registered.filter((r) => r.type.endsWith(`:${kind}`));
}

/** Resources that are not the components themselves. */
export function objects(): Registered[] {
  return registered.filter((r) => !r.type.startsWith("build-platform:"));
}

const root = path.resolve(__dirname, "../..");

/** Pulumi.yaml's declared keys. */
export function schema(): Record<string, { type: string; description: string; default: unknown }> {
  return parse(fs.readFileSync(path.join(root, "Pulumi.yaml"), "utf8")).config;
}

/** A stack's config as the engine hands it to the program: its file over the defaults of Pulumi.yaml. */
export function stackConfig(stack: string): Record<string, unknown> {
  const file = parse(fs.readFileSync(path.join(root, `Pulumi.${stack}.yaml`), "utf8")).config as Record<string, unknown>;
  const own = Object.entries(file).map(([key, value]) => [key.replace(/^build-platform:/, ""), value]);
  return { ...defaults(), ...Object.fromEntries(own) };
}

/** The defaults of Pulumi.yaml. */
export function defaults(): Record<string, unknown> {
  return Object.fromEntries(Object.entries(schema()).map(([key, declared]) => [key, declared.default]));
}

export const hostKey = `ssh-ed25519 ${"AAAA".padEnd(68, "b")}`;
export const privateKey = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaA==\n-----END OPENSSH PRIVATE KEY-----\n";

/** An environment in which every file is there: public keys where the name ends in .pub, else a private key. */
export const environment: Environment = {
  readFile: (file) => (file.endsWith(".pub") ? `${hostKey} root@node\n` : privateKey),
  listFolder: () => [],
  homeDirectory: "/home/someone",
  isSecret: () => false,
};
