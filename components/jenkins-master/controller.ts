import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { maxRamPercentage, startupSeconds, terminationSeconds } from "../../config/pieces";
import { homeSecurity, onArchitectures } from "../boot";
import { canonicalQuantity, canonicalResources, scratch } from "../quantity";
import { caAnnotation, javaFlags, networkVolumes, proxyFiles, proxyName, type Surroundings, toolEnvironment, toolMounts, trustContainers, withoutNodes } from "../surroundings";
import { Registration, transformed } from "../transform";
import { prefixOf } from "./address";
import type { BeforeStart, ControllerArgs, HomeArgs, JenkinsMasterArgs } from "./args";
import { configMapName, secretFileName } from "./configuration";
import { initHookAnnotations, initHookMount, initHookVolume } from "./init-hook";
import { scrapeAnnotations } from "./monitoring";
import { controllerLabels, labels, Place } from "./place";
import { configReloadScript, configurationScript, liveConfiguration, reloadState } from "./reload";
import type { Secrets } from "./secrets";

type PodSpec = k8s.types.input.core.v1.PodSpec;
type Container = k8s.types.input.core.v1.Container;

/** Names of what the controller's pod refers to. */
export interface ControllerRefs {
  account: pulumi.Input<string>;
  secrets: Secrets;
  claim: pulumi.Input<string>;
}

/**
 * The controller's JVM options: the heap follows the container's memory limit.
 * @param agentImage what the kubernetes plugin puts into pods that bring no agent of their own and inherit none, in place of Docker Hub's
 */
export function javaOptions(maxRamPercentage: number, further?: string, agentImage?: string, surroundings?: Surroundings): string {
  return [
    "-Djenkins.install.runSetupWizard=false",
    `-XX:MaxRAMPercentage=${maxRamPercentage.toFixed(1)}`,
    // The first builds after a start get their agents at once, not only after the 100 s in which Jenkins would watch its load.
    "-Dhudson.slaves.NodeProvisioner.initialDelay=0",
    "-Dhudson.slaves.NodeProvisioner.recurrencePeriod=250",
    // A controller out of memory limps on half dead; its container is restarted at once instead.
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    ...(agentImage ? [`-Dorg.csanchez.jenkins.plugins.kubernetes.pipeline.PodTemplateStepExecution.defaultImage=${agentImage}`] : []),
    ...javaFlags(surroundings),
    ...(further ? [further] : []),
  ].join(" ");
}

/** Name of the claim that holds jenkins_home. */
export function makeHome({ name, parent, here }: Place, home: HomeArgs): pulumi.Output<string> {
  return new k8s.core.v1.PersistentVolumeClaim(
    `${name}-home`,
    {
      metadata: { name: "jenkins-home", namespace: here, labels },
      spec: { accessModes: ["ReadWriteOnce"], storageClassName: home.storageClassName, resources: { requests: { storage: canonicalQuantity(home.size) } } },
    },
    { ...parent, protect: home.protect ?? true },
  ).metadata.name;
}

/** What the Deployment of the one controller is made from. */
export function controllerObject({ name, parent, here }: Place, { address, controller, monitoring, surroundings, transform }: JenkinsMasterArgs, pod: PodSpec): Registration<k8s.apps.v1.DeploymentArgs> {
  // A home of hundreds of gigabytes takes its time to come from a repository.
  const patience = controller.beforeStart ? "6h" : "20m";
  const content = {
    metadata: { name: "jenkins", namespace: here, labels: controllerLabels },
    spec: {
      replicas: 1,
      ...(controller.beforeStart && { progressDeadlineSeconds: 6 * 3600 }),
      // Two controllers on one home corrupt it, and a rolling update waits for ever on a volume of one node.
      strategy: { type: "Recreate" },
      selector: { matchLabels: controllerLabels },
      template: {
        metadata: {
          labels: controllerLabels,
          // Neither configuration nor password is named here: a change is read by the running Jenkins, see reload.ts.
          annotations: { "kubectl.kubernetes.io/default-container": "jenkins", ...scrapeAnnotations(monitoring, prefixOf(address.externalUrl)), ...caAnnotation(surroundings), ...initHookAnnotations() },
        },
        spec: controller.beforeStart ? afterFirst(pod, controller.beforeStart) : pod,
      },
    },
  };
  return transformed<k8s.apps.v1.DeploymentArgs>(transform?.deployment, `${name}-controller`, content, { ...parent, customTimeouts: { create: patience, update: patience } });
}

/** A pod in which another container runs to its end first; volumes of one name are one volume. */
export function afterFirst(pod: PodSpec, first: BeforeStart): PodSpec {
  const volumes = pod.volumes as k8s.types.input.core.v1.Volume[];
  return { ...pod, initContainers: [first.container, ...((pod.initContainers ?? []) as Container[])], volumes: [...volumes, ...first.volumes.filter(({ name }) => !volumes.some((volume) => volume.name === name))] };
}

/** The pod of a Deployment made with afterFirst, last changes included, as it is without what runs first. */
export function withoutFirst({ spec }: k8s.apps.v1.DeploymentArgs, pod: PodSpec, first?: BeforeStart): pulumi.Output<k8s.types.output.core.v1.PodSpec> {
  const own = (pod.volumes as k8s.types.input.core.v1.Volume[]).map(({ name }) => name);
  const further = (first?.volumes ?? []).map(({ name }) => name).filter((name) => !own.includes(name));
  return pulumi.output(spec!).apply(({ template }) => {
    const whole = template.spec as k8s.types.output.core.v1.PodSpec;
    return { ...whole, initContainers: (whole.initContainers ?? []).filter(({ name }) => name !== first?.container.name), volumes: (whole.volumes ?? []).filter(({ name }) => !further.includes(name)) };
  });
}

// Random, the pod's own, and known to nobody who may not read pods of this namespace.
const reloadToken = { name: "CASC_RELOAD_TOKEN", valueFrom: { fieldRef: { apiVersion: "v1", fieldPath: "metadata.uid" } } };

/** The environment that the platform gives Jenkins. */
function ownEnvironment({ maxRamPercentage: heap = maxRamPercentage.usual, javaOpts }: Pick<ControllerArgs, "maxRamPercentage" | "javaOpts">, prefix = "", agentImage?: string, surroundings?: Surroundings): k8s.types.input.core.v1.EnvVar[] {
  return [
    { name: "CASC_JENKINS_CONFIG", value: liveConfiguration },
    { name: "SECRETS", value: "/run/secrets/jenkins" },
    { name: "JAVA_OPTS", value: javaOptions(heap, javaOpts, agentImage, surroundings) },
    // The unpacked war is no data: it stays out of the home and so out of backups.
    { name: "JENKINS_OPTS", value: `--webroot=/var/cache/jenkins/war${prefix && ` --prefix=${prefix}`}` },
    { name: "JENKINS_SLAVE_AGENT_PORT", value: "50000" },
    reloadToken,
    // The home's plugins follow the image, in both directions.
    { name: "PLUGINS_FORCE_UPGRADE", value: "true" },
    { name: "TRY_UPGRADE_IF_NO_MARKER", value: "true" },
  ];
}

/** Names of its variables, and of those by which the image finds the home and what goes there; `controller.env` has others. */
export const ownVariables = [...ownEnvironment({}).map(({ name }) => name), "JENKINS_HOME", "REF"];

/** The controller's pod, held to Pod Security level `restricted`. */
export function controllerPod({ address, agents, controller, configuration: { secretFiles = [] } = {}, surroundings }: JenkinsMasterArgs, refs: ControllerRefs): PodSpec {
  const network = withoutNodes(surroundings);
  const prefix = prefixOf(address.externalUrl);
  const probe = { httpGet: { path: `${prefix}/login`, port: "http" }, timeoutSeconds: 5, periodSeconds: 10 };
  const confined = { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } };
  const secretsMount = { name: "admin", mountPath: "/run/secrets/jenkins", readOnly: true };
  const sources = [{ name: "casc", mountPath: "/var/jenkins_casc", readOnly: true }, secretsMount];
  const live = { name: "configuration", mountPath: liveConfiguration };
  /** What turns the mounted documents into those that Jenkins reads. */
  const configurator = {
    image: controller.image,
    resources: { requests: { cpu: "5m", memory: "16Mi" }, limits: { memory: "64Mi" } },
    securityContext: confined,
    volumeMounts: [...sources, live, { name: "reload", mountPath: reloadState }],
  };
  const places = [
    { name: "CASC", value: sources[0].mountPath },
    { name: "LIVE", value: live.mountPath },
    { name: "FOLDERS", value: sources.map((mount) => mount.mountPath).join(" ") },
    { name: "STATE", value: reloadState },
  ];
  const furtherSecrets = [
    ...(refs.secrets.login ? [{ secret: { name: refs.secrets.login.name } }] : []),
    ...(network.proxy?.login ? [{ secret: { name: proxyName, items: Object.entries(proxyFiles).map(([key, path]) => ({ key, path })) } }] : []),
    ...secretFiles.map(({ secret, key }) => ({ secret: { name: secret, items: [{ key, path: secretFileName({ secret, key }) }] } })),
  ];
  return {
    serviceAccountName: refs.account,
    enableServiceLinks: false,
    terminationGracePeriodSeconds: controller.terminationSeconds ?? terminationSeconds.usual,
    ...(controller.priorityClassName && { priorityClassName: controller.priorityClassName }),
    ...(controller.architectures && { affinity: onArchitectures(controller.architectures) }),
    ...(controller.nodeSelector && Object.keys(controller.nodeSelector).length > 0 && { nodeSelector: controller.nodeSelector }),
    ...(controller.tolerations && controller.tolerations.length > 0 && { tolerations: controller.tolerations }),
    securityContext: homeSecurity,
    initContainers: [...(controller.fence ? [controller.fence] : []), { name: "configuration", command: ["/bin/bash", "-c", configurationScript], env: places, ...configurator }, ...trustContainers(network, controller.image)],
    containers: [
      {
        name: "jenkins",
        image: controller.image,
        env: [
          // A site's own registry for it (jnlpregistry) goes before the plugin's name, not before a whole reference.
          ...ownEnvironment(controller, prefix, Object.entries(agents.cloud ?? {}).some(([key, value]) => key.toLowerCase() === "jnlpregistry" && value) ? undefined : agents.settings.agentImage, network),
          ...toolEnvironment(network).filter(({ name }) => !((name as string) in (controller.env ?? {}))),
          ...Object.entries(controller.env ?? {}).map(([name, value]) => ({ name, value })),
        ],
        ...(controller.envFrom?.length && { envFrom: controller.envFrom.map((name) => ({ secretRef: { name } })) }),
        ports: [
          { name: "http", containerPort: 8080, protocol: "TCP" },
          { name: "agent", containerPort: 50000, protocol: "TCP" },
        ],
        resources: canonicalResources(controller.resources),
        // What a controller that does not start said last is shown with its state.
        terminationMessagePolicy: "FallbackToLogsOnError",
        startupProbe: { ...probe, periodSeconds: 2, failureThreshold: Math.ceil((controller.startupSeconds ?? startupSeconds.usual) / 2) },
        livenessProbe: { ...probe, failureThreshold: 6 },
        readinessProbe: { ...probe, failureThreshold: 3 },
        securityContext: confined,
        volumeMounts: [{ name: "home", mountPath: "/var/jenkins_home" }, { ...live, readOnly: true }, secretsMount, { name: "cache", mountPath: "/var/cache/jenkins" }, { name: "tmp", mountPath: "/tmp" }, ...toolMounts(network), initHookMount],
      },
      {
        name: "config-reload",
        command: ["/bin/bash", "-c", configReloadScript(prefix)],
        env: [...places, { name: "PORT", value: "8080" }, { name: "INTERVAL", value: "5" }, reloadToken],
        ...configurator,
      },
    ],
    volumes: [
      { name: "home", persistentVolumeClaim: { claimName: refs.claim } },
      { name: "casc", configMap: { name: configMapName } },
      furtherSecrets.length > 0
        ? { name: "admin", projected: { sources: [{ secret: { name: refs.secrets.admin.name } }, ...furtherSecrets] } }
        : { name: "admin", secret: { secretName: refs.secrets.admin.name } },
      { name: "configuration", emptyDir: {} },
      { name: "reload", emptyDir: {} },
      // The unpacked war is a few hundred MiB; uploads and heap dumps are the largest in /tmp.
      { name: "cache", ...scratch("5Gi") },
      { name: "tmp", ...scratch("20Gi") },
      ...networkVolumes(network),
      initHookVolume,
    ],
  };
}
