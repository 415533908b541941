/** Where what lies on the internet is fetched from instead; what is not named is fetched from where it lies. */
export interface Mirrors {
  /** Mirrors of image registries, each as host with an optional path, by the registry that they stand for, such as docker.io. */
  registries: Record<string, string>;
  /** Those hosts among them that speak plain HTTP. */
  insecure: string[];
  /** Root address of a mirror of Docker Hub for the agents' Docker daemons. */
  dockerd?: string;
  /** Mirror of https://updates.jenkins.io, and folder of a mirror below which plugins are, each as NAME/VERSION/NAME.hpi. */
  jenkinsUpdates?: string;
  jenkinsPlugins?: string;
  /** Mirrors of Maven Central and of Gradle's plugin portal. */
  maven?: string;
  gradlePlugins?: string;
  /** npm's registry, pip's index and Go's module proxies. */
  npm?: string;
  pip?: string;
  go?: string;
  /** Mirror of Debian's archive. */
  debian?: string;
}

/** The same mirrors with a cache before them, whose addresses inside the cluster are given by registry. */
export const throughCache = (mirrors: Mirrors, cached: Record<string, string>): Mirrors => ({
  ...mirrors,
  registries: { ...mirrors.registries, ...cached },
  insecure: [...mirrors.insecure, ...Object.values(cached)],
  ...("docker.io" in cached && { dockerd: `http://${cached["docker.io"]}` }),
});

/** The host that answers for a registry: Docker Hub has another than its name. */
export const serverOf = (registry: string): string => (registry === "docker.io" ? "registry-1.docker.io" : registry);

/** Where a registry's images are fetched from as a whole: its mirror, unless that has a path, or itself. */
export function upstreamOf(registry: string, { registries, insecure, dockerd }: Pick<Mirrors, "registries" | "insecure" | "dockerd">): string | undefined {
  if (registry === "docker.io" && dockerd !== undefined) return dockerd.replace(/\/$/, "");
  const mirror = Object.hasOwn(registries, registry) ? registries[registry] : undefined;
  if (mirror?.includes("/")) return undefined;
  const host = mirror ?? serverOf(registry);
  return `${insecure.includes(host) ? "http" : "https"}://${host}`;
}

/** Where an image lies in full, as Docker takes its short forms: debian:12 is docker.io/library/debian:12. */
export function inFull(reference: string): [registry: string, rest: string] {
  const [first, ...rest] = reference.split("/");
  if (rest.length > 0 && (/[.:]/.test(first) || first === "localhost")) return [first, first === "docker.io" && rest.length === 1 ? `library/${rest[0]}` : rest.join("/")];
  return ["docker.io", rest.length > 0 ? reference : `library/${reference}`];
}

/** An image's reference by the mirror of its registry, tag and digest as they are; the reference itself where its registry has none. */
export function mirrored(reference: string, registries: Mirrors["registries"]): string {
  const [registry, rest] = inFull(reference);
  const mirror = Object.hasOwn(registries, registry) ? registries[registry] : registry;
  return mirror === registry ? reference : `${mirror}/${rest}`;
}

/** The mirrors of Maven's settings: that of Central, if there is one, and what stands in Maven's own file, so that no repository of a build is asked over plain HTTP. */
export const mavenMirrors = (maven?: string): string =>
  `<mirrors>${maven === undefined ? "" : `<mirror><id>build-platform-central</id><mirrorOf>central</mirrorOf><url>${maven}</url></mirror>`}<mirror><id>maven-default-http-blocker</id><mirrorOf>external:http:*</mirrorOf><url>http://0.0.0.0/</url><blocked>true</blocked></mirror></mirrors>`;

/** What an image's build is told of the mirrors, by the build arguments that its Dockerfile may declare for it. */
export const mirrorArgs = ({ jenkinsUpdates, jenkinsPlugins, maven, npm, pip, go, debian }: Mirrors): Record<string, string> =>
  Object.fromEntries(
    Object.entries({ MIRROR_JENKINS_UPDATES: jenkinsUpdates, MIRROR_JENKINS_PLUGINS: jenkinsPlugins, MIRROR_MAVEN: maven, MIRROR_NPM: npm, MIRROR_PIP: pip, MIRROR_GO: go, MIRROR_DEBIAN: debian }).flatMap(([arg, address]) => (address === undefined ? [] : [[arg, address]])),
  );

/** BuildKit's configuration for the mirrors of registries: it asks a mirror first, and the registry itself where that has not got an image. */
export const buildkitConfig = ({ registries, insecure }: Pick<Mirrors, "registries" | "insecure">): string =>
  [
    ...Object.entries(registries).map(([registry, mirror]) => `[registry."${registry}"]\n  mirrors = ["${mirror}"]\n`),
    ...insecure.map((host) => `[registry."${host}"]\n  http = true\n  insecure = true\n`),
  ].join("");
