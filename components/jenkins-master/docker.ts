import { usual } from "../../config/pieces";
import { canonicalResources, quantityMillis, scratch } from "../quantity";
import { goEnvironment, goMounts } from "../surroundings";
import type { AgentSettings, AgentTemplate } from "./agents";
import { dockerSlotScript } from "./docker-cache";
import { buildkitMounts } from "./mirrors";
import type { CacheMount } from "./tool-cache";

/** The container builder of an agent's pod: dockerd in a privileged sidecar or BuildKit in an unprivileged one, with its data. */

/** How builds of a template reach a container builder. */
export type DockerMode = "dind" | "rootless" | "none";

/** Where builds of a rootless template find `buildctl`. */
export const buildkitTools = "/opt/buildkit";

const dockerEnv: Record<DockerMode, Record<string, string>> = {
  dind: { DOCKER_HOST: "tcp://localhost:2375" },
  rootless: { BUILDKIT_HOST: "tcp://localhost:1234" },
  none: {},
};

/**
 * The daemon gets the MTU of the pod's network for those of builds: packets as large as a network card's do not pass an overlay (1450
 * on Flannel), and a download inside `docker build` would wait for its first one for ever. Docker before 24 does not know the option
 * for networks that builds make themselves.
 */
const dockerdOptions = `set -u
if read -r mtu </sys/class/net/eth0/mtu; then
  set -- "$@" "--mtu=$mtu"
  if dockerd --help 2>&1 | grep -q -e --default-network-opt; then set -- "$@" "--default-network-opt=bridge=com.docker.network.driver.mtu=$mtu"; fi
fi
`;

/** Starts the daemon through the image's own entry point. */
export const dockerdScript = `${dockerdOptions}exec dockerd-entrypoint.sh "$@"
`;

/** Whether the agents of a template keep Docker's data on their node. */
export const keepsDocker = ({ docker, caches }: Pick<AgentTemplate, "docker" | "caches">): boolean => docker === "dind" && caches.includes("docker");

/** Where the data of a template's agents lie on a node. In a user namespace overlayfs marks what a layer deletes in another way, which daemons outside of one do not see. */
export const slotGroup = ({ cacheGroup: group = usual.cacheGroup, userNamespace }: Pick<AgentTemplate, "cacheGroup" | "userNamespace">): string => (userNamespace ? `${group}.userns` : group);

/** What the sidecar is told of the bounds; of dockerSize the kubelet knows nothing on a folder of the node. */
const slotEnvironment = (slotsMount: string, { dockerSize }: AgentTemplate, { dockerGroupKib }: AgentSettings) =>
  Object.entries({ SLOTS: slotsMount, KEPT_KIB: dockerGroupKib, MAX_KIB: dockerSize && Number(quantityMillis(dockerSize) / 1_024_000n) }).flatMap(([name, value]) => (value === undefined ? [] : [{ name, value: String(value) }]));

function sidecar(template: AgentTemplate, settings: AgentSettings, workspaceMount: CacheMount, slotsMount: string | undefined, user: number): object[] {
  const resources = canonicalResources(template.dockerResources);
  if (template.docker === "dind") {
    return [
      {
        name: "dind",
        image: settings.dindImage,
        command: ["/bin/sh", "-c", slotsMount ? dockerdOptions + dockerSlotScript : dockerdScript, "dockerd-entrypoint.sh"],
        // Bound to the pod's own loopback; --tls=false spares the pause dockerd makes before it serves without TLS.
        args: [
          "dockerd",
          "--host=unix:///var/run/docker.sock",
          "--host=tcp://127.0.0.1:2375",
          "--tls=false",
          ...settings.insecureRegistries.map((host) => `--insecure-registry=${host}`),
          ...(settings.mirrors?.dockerd ? [`--registry-mirror=${settings.mirrors.dockerd}`] : []),
        ],
        env: [{ name: "DOCKER_TLS_CERTDIR", value: "" }, ...(slotsMount ? slotEnvironment(slotsMount, template, settings) : []), ...goEnvironment(settings.surroundings)],
        securityContext: { privileged: true, runAsUser: 0, runAsGroup: 0, runAsNonRoot: false },
        // The kubernetes plugin gives an agent work only when its whole pod is ready: no build meets a missing daemon.
        readinessProbe: {
          exec: { command: ["docker", "--host=unix:///var/run/docker.sock", "version"] },
          periodSeconds: 1,
          timeoutSeconds: 5,
        },
        volumeMounts: [{ name: "docker-data", mountPath: "/var/lib/docker" }, workspaceMount, ...(slotsMount ? [{ name: "cache-docker", mountPath: slotsMount }] : []), ...goMounts(settings.surroundings)],
        resources,
      },
    ];
  }
  if (template.docker === "rootless") {
    return [
      {
        name: "buildkitd",
        image: settings.buildkitImage,
        // Builds share the pod's network and its MTU: without a CNI configuration, which the image has none of, BuildKit makes none for them.
        args: ["--addr=tcp://127.0.0.1:1234", "--oci-worker-no-process-sandbox"],
        ...(goEnvironment(settings.surroundings).length > 0 && { env: goEnvironment(settings.surroundings) }),
        // What BuildKit's own Kubernetes example for the rootless mode asks for: user namespaces are made inside.
        // https://github.com/moby/buildkit/blob/master/examples/kubernetes/deployment%2Bservice.rootless.yaml
        securityContext: {
          seccompProfile: { type: "Unconfined" },
          appArmorProfile: { type: "Unconfined" },
          runAsUser: user,
          runAsGroup: user,
        },
        readinessProbe: {
          exec: { command: ["buildctl", "--addr=tcp://127.0.0.1:1234", "debug", "workers"] },
          periodSeconds: 1,
          timeoutSeconds: 5,
        },
        // The client for the build: agent images hold none.
        lifecycle: { postStart: { exec: { command: ["/bin/sh", "-c", `cp "$(command -v buildctl)" ${buildkitTools}/`] } } },
        volumeMounts: [{ name: "docker-data", mountPath: "/home/user/.local/share/buildkit" }, { name: "buildkit", mountPath: buildkitTools }, workspaceMount, ...buildkitMounts(settings.mirrors), ...goMounts(settings.surroundings)],
        resources,
      },
    ];
  }
  return [];
}

/**
 * What an agent's pod has of its container builder; nothing where it has none.
 * @param workspace where the build's folder is mounted, for the builder too
 * @param caches where the node's caches are mounted
 * @param user id of the agent's user
 */
export function dockerParts(template: AgentTemplate, settings: AgentSettings, workspace: CacheMount, caches: string, user: number): { env: Record<string, string>; containers: object[]; volumeMounts: CacheMount[]; volumes: object[]; slots: object[] } {
  const slots = settings.cachePath !== undefined && keepsDocker(template);
  const rootless = template.docker === "rootless";
  return {
    env: dockerEnv[template.docker],
    containers: sidecar(template, settings, workspace, slots ? `${caches}/docker` : undefined, user),
    volumeMounts: rootless ? [{ name: "buildkit", mountPath: buildkitTools }] : [],
    volumes: [...(template.docker !== "none" ? [{ name: "docker-data", ...scratch(template.dockerSize) }] : []), ...(rootless ? [{ name: "buildkit", ...scratch("1Gi") }] : [])],
    slots: slots ? [{ name: "cache-docker", hostPath: { path: `${settings.cachePath}/docker/${slotGroup(template)}`, type: "DirectoryOrCreate" } }] : [],
  };
}
