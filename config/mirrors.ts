import type { Mirrors } from "../components/mirrors";
import type { Settings } from "./schema";

/**
 * Public mirrors by the name of a preset, each as its operator documents it: Aliyun's Maven repositories
 * (developer.aliyun.com/mvn/guide), npmmirror.com, goproxy.cn, Tsinghua University's mirrors.tuna.tsinghua.edu.cn (which has no
 * copy of Jenkins' update site since 2025, only the plugins), and DaoCloud's of registries, which serve the images on its list alone
 * (github.com/DaoCloud/public-image-mirror).
 */
export const presets: Record<NonNullable<Settings["mirrors"]["preset"]>, Omit<Mirrors, "insecure">> = {
  china: {
    registries: { "docker.io": "docker.m.daocloud.io", "registry.k8s.io": "k8s.m.daocloud.io" },
    jenkinsPlugins: "https://mirrors.tuna.tsinghua.edu.cn/jenkins/plugins",
    maven: "https://maven.aliyun.com/repository/public",
    gradlePlugins: "https://maven.aliyun.com/repository/gradle-plugin",
    npm: "https://registry.npmmirror.com",
    pip: "https://pypi.tuna.tsinghua.edu.cn/simple",
    go: "https://goproxy.cn,direct",
    // Images that are made small have no certificates when apt first runs; it checks signatures.
    debian: "http://mirrors.tuna.tsinghua.edu.cn/debian",
  },
};

/** The mirrors of the config: those of its preset, and its own before them. */
export function mirrorsOf({ mirrors: { preset, registries, ...own }, registry }: Pick<Settings, "mirrors" | "registry">): Mirrors {
  const { registries: usual, ...others } = preset ? presets[preset] : { registries: {} };
  // A registry as its own mirror has none.
  const all = Object.fromEntries(Object.entries({ ...usual, ...registries }).filter(([name, mirror]) => name !== mirror));
  const insecure = registry.insecure ? [...new Set(Object.values(all).map((mirror) => mirror.split("/")[0]))].filter((host) => host === registry.host) : [];
  const hub = all["docker.io"];
  return { ...others, ...(hub !== undefined && !hub.includes("/") && { dockerd: `${insecure.includes(hub) ? "http" : "https"}://${hub}` }), ...own, registries: all, insecure };
}
