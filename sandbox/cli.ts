import * as fs from "node:fs";
import * as path from "node:path";
import { parseArgs } from "node:util";
import { newestMinor, supportedMinors, supportedText, type SupportedMinor } from "../checks/kubernetes";
import { buildBinaries, kubernetesVersion } from "./cluster/binaries";
import { hostProblems, thisHost } from "./cluster/host";
import { importImages, initCluster, joinCluster, kubectl, upgradeNode, waitReady } from "./cluster/kubeadm";
import { networkDown, networkUp } from "./cluster/network";
import { addressOf, existingNodes, initOf, inNode, nodeNamed, removeNode, routePods, startNode, stopNode, traces, type Node } from "./cluster/nodes";
import { CLUSTER_PACKAGES, installPackages } from "./cluster/packages";
import { enforcePolicies, releasePolicies } from "./cluster/policies";
import { registryAnswers, startRegistry, stopRegistry } from "./cluster/registry";
import { buildSystemImages, imagesFor, pauseOf } from "./cluster/system-images";
import { environment } from "./environment";
import { imageSources, originTable, PULL_PACKAGES, pullUpstream, tagged, type ImageSource, type Origin } from "./images/upstream";
import { CACHE, DUAL_STACK, KUBECONFIG, ORIGINS, PLUGINS, REGISTRY, RELEASE, STAND_INS, STATE, TOOLS } from "./paths";
import { action, run } from "./shell";

const FIRST = nodeNamed("control-plane-1");

const HELP = `sandbox: a real throwaway kubeadm cluster on this machine, with all that the stack needs beside it

  up [--images auto|upstream|stand-ins] [--pins FILE] [--without-images] [--kubernetes MINOR] [--dual-stack]
                                  start everything, with Kubernetes ${supportedText} (${newestMinor} where none is named);
                                  and with IPv6 beside IPv4 where asked for; running it again changes nothing.
                                  Images and Pulumi's plugins: stand-ins (the usual), those that can be had and stand-ins for
                                  the rest (auto), or no stand-in at all (upstream); FILE pins others than images/upstream.json
  origins                         what is real of images and plugins, and why the rest is not
  stand-ins                       what a stack's config says of the images that are stand-ins, for pulumi config set-all --path
  down                            remove everything but the cache, whatever state it is in
  status                          what runs
  add-node [NAME]                 join a machine: worker-N (default) or control-plane-N
  remove-node NAME                drain a machine, take it out of the cluster and remove it
  stop-node NAME | start-node NAME   cut a machine's power, and boot it again with the disk it had
  exec NAME -- COMMAND...         run a command on a machine
  upgrade MINOR                   upgrade every machine to the next release with kubeadm's own commands, one after the other
  enforce-policies [off]          have NetworkPolicies enforced, or no more; the sandbox's network plugin knows none
  load-image REFERENCE|ARCHIVE    put an image (docker-archive file or buildah image) into the local registry
  kubeconfig                      print the path of the administrator's kubeconfig
  env                             print the exports that put pulumi, kubectl, plugins, backend and passphrase in place

State: ${STATE}. Cache (kept by down; BUILD_PLATFORM_CACHE moves it): ${CACHE}.
`;

/** Folder laid over /usr of every node: the Kubernetes programs where Debian's own packages of them would put them. */
async function layOutTools(binaries: Record<string, string>): Promise<void> {
  const bin = path.join(TOOLS, "bin");
  fs.mkdirSync(bin, { recursive: true });
  const wanted: [string, string][] = [
    ...["kubelet", "kubeadm", "kubectl"].map((name): [string, string] => ["kubernetes", name]),
    ...["containerd", "containerd-shim-runc-v2", "ctr"].map((name): [string, string] => ["containerd", name]),
    ["runc", "runc"],
    ["etcd", "etcdctl"],
    ["pulumi", "pulumi"],
  ];
  for (const [tool, name] of wanted) {
    const target = path.join(bin, name);
    const source = path.join(binaries[tool], name);
    const stamp = path.join(TOOLS, `${name}.from`);
    if (fs.existsSync(target) && fs.existsSync(stamp) && fs.readFileSync(stamp, "utf8") === source) continue;
    await run("cp", ["--reflink=auto", "--remove-destination", source, target]);
    fs.writeFileSync(stamp, source);
  }
}

/** The release of Kubernetes that the sandbox on this machine runs; undefined where there is none. */
const running = (): SupportedMinor | undefined => (fs.existsSync(RELEASE) ? (fs.readFileSync(RELEASE, "utf8") as SupportedMinor) : undefined);

/** The release that is asked for: the running one where none is named. */
function release(asked: string | undefined): SupportedMinor {
  const minor = supportedMinors.find((each) => each === (asked ?? running() ?? newestMinor));
  if (!minor && asked !== undefined) throw new Error(`--kubernetes ${asked}: expected one of ${supportedMinors.join(", ")}`);
  if (!minor || minor !== (running() ?? minor)) throw new Error(`the sandbox runs Kubernetes ${running()}: take it down first (npm run sandbox -- down)`);
  return minor;
}

/** What a person asked `up` for. */
interface UpOptions {
  minor: SupportedMinor;
  withImages: boolean;
  bothFamilies: boolean;
  images: ImageSource;
  pins?: string;
}

/** Images and plugins, upstream's where they are asked for and can be had. @throws naming each that cannot, where nothing may stand in */
async function furnish({ withImages, images, pins }: UpOptions, binaries: Record<string, string>): Promise<void> {
  const { buildImages, pushImages, standInConfig, upstreamImages } = await import("./images/index");
  const { bundlePlugins, PLUGINS: plugins } = await import("./plugins/bundle");
  const { installOfficial } = await import("./plugins/official");
  const { PULUMI_HOME } = environment();
  const log = (line: string) => void process.stderr.write(`   ${line}\n`);
  const wanted = withImages ? upstreamImages(pins) : [];
  const asked = "asked for";
  const pulled = images === "stand-ins"
    ? { images: [], origins: wanted.map(({ name, pin }) => ({ part: name, upstream: tagged(pin), why: asked })) }
    : await action("images that can be pulled", () => pullUpstream(wanted, path.join(CACHE, "upstream"), log));
  const installed: Origin[] = images === "stand-ins"
    ? plugins.map(({ name, official }) => ({ part: name, upstream: official, why: asked }))
    : await action("Pulumi's plugins", () => installOfficial(path.join(TOOLS, "bin", "pulumi"), PULUMI_HOME, path.join(CACHE, "pulumi-plugins")));
  const origins = [...pulled.origins, ...installed];
  const missing = origins.filter(({ why }) => why !== undefined);
  if (images === "upstream" && missing.length > 0) throw new Error(`not to be had from here (--images auto takes stand-ins for them):\n${missing.map(({ part, upstream, why }) => `  ${part}, ${upstream}: ${why}`).join("\n")}`);
  await action("Pulumi plugins and backend", async () => {
    await bundlePlugins(PLUGINS, installed.flatMap(({ part, why }) => (why === undefined ? [part] : [])));
    fs.mkdirSync(path.join(STATE, "pulumi"), { recursive: true, mode: 0o700 });
  });
  const only = pulled.origins.flatMap(({ part, why }) => (why === undefined ? [] : [part]));
  const made = only.length > 0 ? await action("stand-ins for images", () => buildImages({ cacheDir: CACHE, binaries, log, only })) : [];
  if (withImages) await action(`push them to ${REGISTRY}`, () => pushImages([...pulled.images, ...made], REGISTRY, log));
  fs.writeFileSync(ORIGINS, JSON.stringify(origins));
  fs.writeFileSync(STAND_INS, standInConfig(made, REGISTRY).map((line) => `${line}\n`).join(""));
}

function upOptions(args: string[]): UpOptions {
  const { values } = parseArgs({
    args,
    options: { kubernetes: { type: "string" }, images: { type: "string", default: "stand-ins" }, pins: { type: "string" }, "without-images": { type: "boolean", default: false }, "dual-stack": { type: "boolean", default: false } },
  });
  const images = imageSources.find((each) => each === values.images);
  if (!images) throw new Error(`--images ${values.images}: expected one of ${imageSources.join(", ")}`);
  return { minor: release(values.kubernetes), withImages: !values["without-images"], bothFamilies: values["dual-stack"], images, ...(values.pins !== undefined && { pins: values.pins }) };
}

async function up(options: UpOptions): Promise<void> {
  const { minor, bothFamilies } = options;
  const started = Date.now();
  const elapsed = () => `${((Date.now() - started) / 1000).toFixed(0)} s`;
  const problems = hostProblems(await thisHost());
  if (problems.length > 0) throw new Error(problems.join("\n"));
  const { DEBIAN_PACKAGES } = await import("./images/index");
  await action("install the Debian packages that are missing", () => installPackages([...CLUSTER_PACKAGES, ...DEBIAN_PACKAGES, ...(options.images === "stand-ins" ? [] : PULL_PACKAGES)]));
  const binaries = await buildBinaries(minor);
  fs.mkdirSync(STATE, { recursive: true, mode: 0o711 });
  if (bothFamilies && running() && !fs.existsSync(DUAL_STACK)) throw new Error("the sandbox has IPv4 alone: take it down first (npm run sandbox -- down)");
  if (bothFamilies) fs.writeFileSync(DUAL_STACK, "");
  fs.writeFileSync(RELEASE, minor);
  await action("lay out the node's programs", () => layOutTools(binaries));
  const archives = await action("make kubeadm's images", () => buildSystemImages(binaries, kubernetesVersion(minor)));
  await action("network", networkUp);
  await action(`registry on ${REGISTRY}`, () => startRegistry(binaries.registry));
  await action(`boot ${FIRST.name} on ${addressOf(FIRST)}`, () => startNode(FIRST, TOOLS, pauseOf(archives)));
  await action("load kubeadm's images", () => importImages(FIRST, TOOLS, archives));
  await action("kubeadm init", () => initCluster(FIRST, kubernetesVersion(minor)));
  await routePods(existingNodes());
  await action("node Ready", () => waitReady(FIRST, TOOLS));
  process.stderr.write(`   node Ready ${elapsed()} after the start\n`);
  await furnish(options, binaries);
  await action("cluster DNS", () => kubectl(TOOLS, ["-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s"]));
  process.stderr.write(`sandbox up in ${elapsed()}; next: eval "$(npm run -s sandbox -- env)"\n`);
}

async function down(): Promise<void> {
  for (const name of traces()) await action(`remove ${name}`, () => removeNode({ name }));
  await action("stop the registry", stopRegistry);
  await action("remove the network", networkDown);
  await action(`remove ${STATE}`, () => run("rm", ["-rf", "--one-file-system", STATE]));
}

async function status(): Promise<void> {
  const nodes = existingNodes();
  if (nodes.length === 0) return void process.stdout.write("no sandbox on this machine\n");
  for (const node of nodes) process.stdout.write(`${node.name}\t${addressOf(node)}\t${initOf(node) === undefined ? "stopped" : "running"}\n`);
  process.stdout.write(`registry\t${REGISTRY}\t${(await registryAnswers()) ? "running" : "stopped"}\n`);
  if (initOf(FIRST) === undefined) return;
  process.stdout.write((await kubectl(TOOLS, ["get", "nodes,pods", "-A", "-o", "wide"])).stdout);
}

async function addNode(name: string | undefined): Promise<void> {
  const nodes = existingNodes();
  const taken = new Set(nodes.map((node) => node.name));
  let free = 1;
  while (taken.has(`worker-${free}`)) free++;
  const node = nodeNamed(name ?? `worker-${free}`);
  const minor = release(undefined);
  const archives = imagesFor(node.role, await buildSystemImages(await buildBinaries(minor), kubernetesVersion(minor)));
  await action(`boot ${node.name} on ${addressOf(node)}`, () => startNode(node, TOOLS, pauseOf(archives)));
  await action("load its images", () => importImages(node, TOOLS, archives));
  await routePods(existingNodes());
  await action("kubeadm join", () => joinCluster(FIRST, node));
  await action(`${node.name} Ready`, () => waitReady(node, TOOLS));
}

async function upgrade(asked: string | undefined): Promise<void> {
  const minor = supportedMinors.find((each) => each === asked);
  const next = supportedMinors[supportedMinors.indexOf(running()!) + 1];
  if (!minor || minor !== next) throw new Error(`upgrade ${asked ?? ""}: the sandbox runs ${running() ?? "nothing"}, expected the release that follows: ${next ?? "there is none"}`);
  const version = kubernetesVersion(minor);
  const binaries = await buildBinaries(minor);
  const archives = await buildSystemImages(binaries, version);
  for (const node of existingNodes()) {
    await action(`load the images of ${version} on ${node.name}`, () => importImages(node, TOOLS, imagesFor(node.role, archives)));
    await action(`kubeadm upgrade of ${node.name}`, () => upgradeNode(node, node.name === FIRST.name, TOOLS, binaries.kubernetes, version));
  }
  fs.writeFileSync(RELEASE, minor);
}

async function takeOut(node: Node): Promise<void> {
  // A machine that is gone for good may have been taken out of the cluster already.
  const known = (await kubectl(TOOLS, ["get", "node", node.name, "--ignore-not-found", "-o", "name"])).stdout !== "";
  if (known) await action(`drain ${node.name}`, () => kubectl(TOOLS, ["drain", node.name, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s"]));
  if (node.role === "control-plane") await action("leave etcd", () => inNode(node, ["kubeadm", "reset", "--force"]));
  await action(`remove ${node.name}`, async () => {
    await kubectl(TOOLS, ["delete", "node", node.name, "--ignore-not-found"]);
    await removeNode(node);
  });
}

async function loadImage(source: string): Promise<void> {
  const isFile = fs.existsSync(source);
  const name = isFile ? path.basename(source).replace(/\.tar$/, "") : source.replace(/^[^/]*[.:][^/]*\//, "");
  const target = `docker://${REGISTRY}/${name}`;
  await run("buildah", ["push", "--tls-verify=false", isFile ? `docker-archive:${source}` : source, target]);
  process.stdout.write(`${REGISTRY}/${name}\n`);
}

async function main([command, ...args]: string[]): Promise<void> {
  switch (command) {
    case "up":
      return up(upOptions(args));
    case "origins":
      return void process.stdout.write(originTable(JSON.parse(fs.readFileSync(ORIGINS, "utf8")) as Origin[]));
    case "stand-ins":
      return void process.stdout.write(fs.readFileSync(STAND_INS, "utf8"));
    case "down":
      return down();
    case "status":
      return status();
    case "add-node":
      return addNode(args[0]);
    case "remove-node":
      return takeOut(nodeNamed(args[0]));
    case "upgrade":
      return upgrade(args[0]);
    case "stop-node":
      return stopNode(nodeNamed(args[0]));
    case "start-node":
      await startNode(nodeNamed(args[0]), TOOLS);
      return routePods(existingNodes());
    case "exec": {
      const result = await inNode(nodeNamed(args[0]), args.slice(args[1] === "--" ? 2 : 1), { allowFailure: true });
      process.stdout.write(result.stdout);
      process.stderr.write(result.stderr);
      process.exitCode = result.code;
      return;
    }
    case "enforce-policies":
      return args[0] === "off" ? action("stop enforcing NetworkPolicies", releasePolicies) : action("enforce NetworkPolicies", enforcePolicies);
    case "load-image":
      return loadImage(args[0]);
    case "kubeconfig":
      return void process.stdout.write(`${KUBECONFIG}\n`);
    case "env":
      for (const [name, value] of Object.entries(environment())) process.stdout.write(`export ${name}="${value}"\n`);
      return;
    default:
      process.stderr.write(HELP);
      process.exitCode = command === undefined || command === "--help" || command === "help" ? 0 : 2;
  }
}

main(process.argv.slice(2)).catch((error: Error) => {
  process.stderr.write(`sandbox: ${error.message}\n`);
  process.exitCode = 1;
});
