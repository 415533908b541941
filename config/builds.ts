import * as path from "node:path";
import type { Builder, ImageSpec } from "../components/agent-images";
import { loginPlugins } from "../components/jenkins-master";
import { javaProxy, type Proxy } from "../components/surroundings";
import type { ImageKey, Settings } from "./schema";

/** Which images the stack builds, of what. */

/** The build of the controller image. */
export const controllerBuild = "controller";
/** Its argument with the names of lines of optional-plugins.txt. */
const optionalPlugins = "OPTIONAL_PLUGINS";
/** Its argument with further plugins, each with its version. */
const furtherPlugins = "FURTHER_PLUGINS";

/** The builds the repository brings along. */
export function ownBuilds(images: Record<ImageKey, string>): Record<string, ImageSpec> {
  return {
    [controllerBuild]: { context: "images/controller", args: { JENKINS_IMAGE: images.jenkins } },
    "maven-dind": { context: "images/maven-dind", args: { BASE_IMAGE: images.inboundAgent, MAVEN_IMAGE: images.maven, DOCKER_IMAGE: images.dockerCli } },
    "gradle-dind": { context: "images/gradle-dind", args: { BASE_IMAGE: images.inboundAgent, GRADLE_IMAGE: images.gradle, DOCKER_IMAGE: images.dockerCli } },
  };
}

/** Its argument with flags of the JVM that downloads plugins, which goes by no variable of the environment. */
const downloadFlags = "JAVA_TOOL_OPTIONS";

/** A build with texts added to one of its arguments, beside those that it has. */
function withArg(build: ImageSpec, arg: string, texts: string[]): ImageSpec {
  const all = [build.args?.[arg], ...texts].filter((text) => text !== undefined && text !== "");
  return all.length > 0 ? { ...build, args: { ...build.args, [arg]: all.join(" ") } } : build;
}

/**
 * The repository's builds and those of the config, which may also change arguments of the former: all that are used, and
 * those that the config adds even if only a pipeline's own pod template refers to them.
 * @param plugins further plugins of the controller, each with its version
 * @param proxy the way out for what a build downloads
 */
export function builds(settings: Settings, login: Parameters<typeof loginPlugins>[0], rights: Parameters<typeof loginPlugins>[1], plugins: string[], proxy?: Proxy): Record<string, ImageSpec> {
  const { images, agentImages, agents, controller } = settings;
  const own = ownBuilds(images);
  const argument = (text: string) => (text.startsWith("upstream:") ? (images[text.slice("upstream:".length) as ImageKey] ?? "") : text);
  const configured = Object.entries(agentImages).map(([name, { context, dockerfile, args }]): [string, ImageSpec] => [
    name,
    {
      context: context ?? own[name]?.context ?? path.posix.join("images", name),
      ...(dockerfile && { dockerfile }),
      args: { ...own[name]?.args, ...Object.fromEntries(Object.entries(args).map(([arg, text]) => [arg, argument(text)])) },
    },
  ]);
  const all = { ...own, ...Object.fromEntries(configured) };
  const optional = [...loginPlugins(login, rights), ...(settings.prometheusNamespace ? ["prometheus"] : [])];
  all[controllerBuild] = withArg(withArg(all[controllerBuild], optionalPlugins, optional), furtherPlugins, plugins);
  if (proxy && isOwn(all[controllerBuild], own)) all[controllerBuild] = withArg(all[controllerBuild], downloadFlags, javaProxy(proxy));
  const used = new Set([controller.image ?? controllerBuild, ...agents.map(({ image }) => image)]);
  return Object.fromEntries(Object.entries(all).filter(([name]) => used.has(name) || !(name in own)));
}

/**
 * Architectures that built images run on, as nodes are labelled with them; undefined where only the cluster knows.
 * @param nodes the nodes' own, where they are known: what a cluster builds without being told for what runs on nodes like the builder's
 * @param machine what Node.js calls the architecture of the machine that a local builder runs on
 */
export function architectures({ builder, platforms }: { builder: Builder; platforms: string[] }, nodes: string[] = [], machine: string = process.arch): string[] | undefined {
  if (platforms.length > 0) return [...new Set(platforms.map((platform) => platform.split("/")[1]))];
  if (builder === "in-cluster") return new Set(nodes).size === 1 ? [nodes[0]] : undefined;
  return [machine === "x64" ? "amd64" : machine];
}

/** Whether the controller's image is made of the repository's own Dockerfile. */
const isOwn = ({ context, dockerfile }: ImageSpec, own: Record<string, ImageSpec>): boolean => context === own[controllerBuild].context && dockerfile === undefined;

/** Plugins baked into the controller image beyond those of plugins.txt; undefined where the image is made of something else, and may hold any. */
export function bakedIn(all: Record<string, ImageSpec>, own: Record<string, ImageSpec>): string[] | undefined {
  const build = all[controllerBuild];
  if (build === undefined || !isOwn(build, own)) return undefined;
  return [optionalPlugins, furtherPlugins].flatMap((arg) => (build.args?.[arg] ?? "").split(/\s+/)).filter((text) => text !== "");
}
