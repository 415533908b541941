import { spawn } from "node:child_process";
import * as path from "node:path";
import type { V1PodSpec } from "@kubernetes/client-node";
import { rehearsalObjects, type RehearsalInput } from "../../components/jenkins-master/rehearsal";
import { offlineConfig } from "../offline";
import { readYaml, root } from "../repository";
import { givenConfig, type Stack } from "../stack";
import { withImage } from "./image";

/** What is tried: the controller that the working tree makes, or the running one with another image. */

/**
 * What the program is given for its rehearsal: the stack's config with files of the operator's machine left out (offlineConfig).
 * @param secret keys that are encrypted in the stack's file; a key that stands for a file is one as well
 */
export function rehearsalInput({ name, config: declared }: { name: string; config: Record<string, unknown> }, given: Record<string, unknown>, secret: Iterable<string>): { config: Record<string, string>; secretKeys: string[] } {
  const { rehearsal } = Object.fromEntries(Object.entries(given).map(([key, value]) => [key.slice(key.indexOf(":") + 1), value])) as { rehearsal?: object | string };
  const asked = typeof rehearsal === "string" ? (JSON.parse(rehearsal) as object) : rehearsal;
  const { config, secretKeys } = offlineConfig(name, declared, { ...given, [`${name}:rehearsal`]: { ...asked, enabled: true } });
  return { config, secretKeys: [...new Set([...secretKeys, ...[...secret].map((key) => `${name}:${key}`)])] };
}

/**
 * The rehearsal of the controller that this working tree makes: the program is run with the stack's config, asks cluster and
 * registries, and its controller image is built and pushed as `up` would have it. Nothing in the cluster or in the stack's state changes.
 * @param say is told what the program and the build say
 * @throws with the program's own words where it refuses the config, or the image cannot be built
 */
export async function workingTree({ name }: Pick<Stack, "name">, say: (text: string) => void): Promise<RehearsalInput> {
  const project = readYaml(path.join(root, "Pulumi.yaml")) as { name: string; config: Record<string, unknown> };
  const { given, secret } = await givenConfig(name);
  const child = spawn(process.execPath, ["--no-warnings", "--require", require.resolve("tsx/cjs"), path.join(__dirname, "../offline-program.ts"), name, project.name, "live"], { cwd: root, stdio: ["pipe", "pipe", "pipe"] });
  let [stdout, last] = ["", ""];
  child.stdout.on("data", (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => say((last = chunk.toString().trim().replace(/^warning: \[runtime\] /gm, "warning: "))));
  child.stdin.end(JSON.stringify(rehearsalInput(project, given, secret)));
  const code = await new Promise((resolve, reject) => child.on("error", reject).on("close", resolve));
  if (code !== 0 || stdout === "") throw new Error(`the working tree's controller cannot be made: ${last.split("\n").pop() || "see above"}`);
  return JSON.parse(stdout) as RehearsalInput;
}

/** The rehearsal of the running controller with another image: its documents and secrets are those in the cluster. */
export function runningWith({ config: { cluster, namespaces, rehearsal } }: Pick<Stack, "config">, pod: V1PodSpec, image: string): RehearsalInput {
  // What runs before each start fills a home; the copy is full.
  const initContainers = (pod.initContainers ?? []).filter(({ name }) => name !== "start-from-snapshot");
  const objects = rehearsalObjects({ namespace: namespaces.jenkins, pod: withImage({ ...pod, initContainers }, image), configMaps: {}, secrets: {} }, rehearsal);
  return { ...cluster, timeoutSeconds: rehearsal.timeoutSeconds, namespace: namespaces.jenkins, objects };
}
