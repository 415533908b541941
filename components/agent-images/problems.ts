import * as fs from "node:fs";
import * as path from "node:path";
import type * as pulumi from "@pulumi/pulumi";
import { fits, imageName, imagePath, platform as platformPiece, registry as host } from "../../config/pieces";
import { type AgentImagesArgs, builders, type ImageSpec } from "./args";
import { contextEntries } from "./content";
import { baseImages, declaredArgs } from "./dockerfile";

/** Build arguments that every builder knows without an ARG instruction. */
const predefinedArgs = new Set(["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"].flatMap((n) => [n, n.toLowerCase()]));


type Problem = pulumi.InputPropertyErrorDetails;

/** Everything that is wrong with the args, each with the field, what was found and the fix. Empty: nothing is. */
export function argProblems(args: AgentImagesArgs): Problem[] {
  const problems: Problem[] = [];
  const say = (propertyPath: string, reason: string): void => void problems.push({ propertyPath, reason });
  const { registry } = args;

  if (!fits(host, registry.host)) {
    say("registry.host", `"${registry.host}" is no registry host; give host or host:port without scheme and path, for example registry.example.org or 10.0.0.5:5000`);
  }
  if (registry.pulledFrom !== undefined && !fits(host, registry.pulledFrom)) say("registry.pulledFrom", `"${registry.pulledFrom}" is no registry host; give host or host:port without scheme and path`);
  if (registry.pulledFrom !== undefined && !/^[a-z0-9-]+\.[a-z0-9-]+\.svc:\d+$/.test(registry.host)) say("registry.host", `"${registry.host}" is no Service of the cluster; beside pulledFrom give <service>.<namespace>.svc:<port>`);
  if (registry.pulledFrom !== undefined && args.builder !== "in-cluster" && args.cache === "registry") say("cache", `"${args.cache}" is of no use to the builder ${args.builder}, which does not reach a registry in the cluster; use a folder, or leave it out`);
  if (registry.prefix !== "" && !fits(imagePath, registry.prefix)) {
    say("registry.prefix", `"${registry.prefix}" is no repository path; use lower-case letters, digits and single . _ - inside parts divided by /, for example team/build-platform`);
  }
  if ((registry.username === undefined) !== (registry.password === undefined)) {
    say(registry.username === undefined ? "registry.username" : "registry.password", "is missing; a registry log-in needs both username and password, or neither");
  }
  if (!builders.includes(args.builder)) say("builder", `"${args.builder}" is unknown; use one of ${builders.join(", ")}`);
  for (const platform of args.platforms ?? []) {
    if (!fits(platformPiece, platform)) say("platforms", `"${platform}" is no platform; write it as linux/amd64 or linux/arm64`);
  }
  if (args.builder === "in-cluster" && args.inCluster === undefined) say("inCluster", "is missing; the builder in-cluster needs at least inCluster.image, a BuildKit image that the cluster can pull");
  if (args.builder === "in-cluster" && args.cache !== undefined && args.cache !== "registry") say("cache", `"${args.cache}" is of no use to the builder in-cluster, which keeps nothing between builds; use "registry", or leave it out`);
  for (const [name, spec] of Object.entries(args.images)) problems.push(...imageProblems(name, spec));
  return problems;
}

function imageProblems(name: string, spec: ImageSpec): Problem[] {
  const problems: Problem[] = [];
  const say = (field: string, reason: string): void => void problems.push({ propertyPath: `images.${name}${field}`, reason: `image ${name}: ${reason}` });

  if (!fits(imageName, name)) {
    say("", `"${name}" is no image name; use at most 100 lower-case letters and digits with single . _ - between them, for example maven-dind`);
  }
  if (!fs.statSync(spec.context, { throwIfNoEntry: false })?.isDirectory()) {
    say(".context", `there is no folder ${spec.context}; create it with a Dockerfile in it, or correct the path (relative to the folder of Pulumi.yaml)`);
    return problems;
  }
  const dockerfile = path.posix.normalize(spec.dockerfile ?? "Dockerfile");
  const full = path.join(spec.context, dockerfile);
  if (path.isAbsolute(dockerfile) || dockerfile.split("/")[0] === ".." || outside(spec.context, full)) {
    say(".dockerfile", `${spec.dockerfile} is outside the context ${spec.context}; move it inside and give its path relative to the context`);
    return problems;
  }
  if (!fs.statSync(full, { throwIfNoEntry: false })?.isFile()) {
    say(".dockerfile", `there is no file ${full}; write one, or name the right one (relative to the context)`);
    return problems;
  }

  const text = fs.readFileSync(full, "utf8");
  for (const { instruction, reference, arg } of baseImages(text, spec.args)) {
    // An argument's value is pinned by prepareImages.
    if (arg === undefined && !reference?.includes("@")) say(".dockerfile", `"${instruction}" in ${full} is not a fixed image; give it by digest (NAME:TAG@sha256:...), or write ARG BASE_IMAGE=NAME:TAG above the first FROM and FROM \${BASE_IMAGE}, whose digest is then looked up`);
  }
  const declared = declaredArgs(text);
  for (const [key, value] of Object.entries(spec.args ?? {})) {
    if (!declared.has(key) && !predefinedArgs.has(key)) {
      say(`.args.${key}`, `${full} declares no ARG ${key}; it declares ${[...declared].join(", ") || "none"}; correct the name or add the ARG`);
    }
    if (/[\r\n\0]/.test(value)) say(`.args.${key}`, "the value holds a line break; give it on one line");
  }
  try {
    contextEntries(spec.context, dockerfile);
  } catch (error) {
    say(".context", (error as Error).message);
  }
  return problems;
}

/** True if a file's real place (symbolic links followed) is not below the context. */
function outside(context: string, file: string): boolean {
  if (!fs.existsSync(file)) return false;
  const relative = path.relative(fs.realpathSync(context), fs.realpathSync(file));
  return relative === ".." || relative.startsWith(`..${path.sep}`) || path.isAbsolute(relative);
}
