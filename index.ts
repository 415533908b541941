import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { preflight } from "./checks/preflight";
import { AgentImages, argProblems, prepareImages } from "./components/agent-images";
import { ImageCache } from "./components/image-cache";
import { ImageRegistry } from "./components/image-registry";
import { IngressNginx } from "./components/ingress-nginx";
import { IngressTraefik } from "./components/ingress-traefik";
import { describe as describeBackup, JenkinsBackup } from "./components/jenkins-backup";
import { JenkinsMaster } from "./components/jenkins-master";
import { NodePortRange } from "./components/node-port-range";
import { OpenEbsStorage } from "./components/openebs-storage";
import { applyPatches } from "./components/patches";
import { refusal } from "./components/refusal";
import { explain, loadConfig } from "./config";
import { backupArgs, cacheArgs, imageArgs, ingressArgs, jenkinsArgs, patchProblems, registryArgs, storageArgs } from "./config/arguments";

/** The program: stack config in, components in order, stack outputs out. */
export = async () => {
  const config = loadConfig();
  const { problems, warnings, apiServerAddresses, lastGoodBackup, nodeArchitectures, documents, held, running, surroundings = config.surroundings } = await preflight(config, pulumi.getStack());
  warnings.forEach((line) => void pulumi.log.warn(line));
  const toBuild = imageArgs(config, surroundings);
  for (const { propertyPath, reason } of argProblems(toBuild)) problems.push({ key: propertyPath.replace(/^images\./, "agentImages."), found: reason });
  if (problems.length > 0) throw refusal(explain(problems, pulumi.getStack()));
  // Asks registries for base images; what it does not find stops the run before anything is made.
  const prepared = await prepareImages(toBuild, { ...config.registry, others: config.pullSecrets.logins });

  const judgePatches = applyPatches(config.patches, (missed) => refusal(explain(patchProblems(config, missed), pulumi.getStack())));
  // Changed settings reach the live object instead of replacing it under its users.
  const opts = { providers: [new k8s.Provider("cluster", { ...config.cluster, enableConfigMapMutable: true, enableSecretMutable: true })] };
  const after = (...made: (pulumi.Resource | undefined)[]) => ({ ...opts, dependsOn: made.filter((each) => each !== undefined) });

  const nodePorts = config.nodePorts && new NodePortRange("node-port-range", config.nodePorts, opts);
  // The API server restarts when its range changes: whatever talks to it comes afterwards.
  const afterNodePorts = after(nodePorts);

  const Controller = { nginx: IngressNginx, traefik: IngressTraefik, gateway: config.ingress.install ? IngressTraefik : undefined, none: undefined }[config.ingress.controller];
  // One name for both: what they share goes from one to the other.
  const ingress = Controller && new Controller("ingress-nginx", ingressArgs(config), afterNodePorts);
  const ingressClassName = ingress?.ingressClassName ?? config.ingress.className;

  const toStore = storageArgs(config);
  const storage = toStore && new OpenEbsStorage("openebs-storage", toStore, afterNodePorts);
  const storageClassName = storage?.storageClassName ?? config.storage.className;

  const toServe = registryArgs(config, storageClassName);
  const registry = toServe && new ImageRegistry("image-registry", toServe, after(nodePorts, storage));
  const toKeep = cacheArgs(config, storageClassName, surroundings);
  if (toKeep) new ImageCache("image-cache", toKeep, after(nodePorts, storage));
  const toBuildNow = registry ? { ...prepared, registry: { ...prepared.registry, volume: registry.volume } } : prepared;
  const { references } = new AgentImages("agent-images", toBuildNow, registry ? after(registry) : config.imageBuild.builder === "in-cluster" ? afterNodePorts : opts);

  const jenkins = new JenkinsMaster(
    "jenkins",
    jenkinsArgs(config, { storageClassName, ingressClassName, ingressNamespace: ingress?.namespace ?? config.ingress.namespace, gatewayClass: ingress?.gatewayClass, references, apiServerAddresses, surroundings, ...(nodeArchitectures && { nodeArchitectures }), ...(documents && { documents }), ...(held && { held }), ...(running && { running }) }),
    // Destroyed in reverse: the provisioner is still there to remove the home volume and its data.
    after(nodePorts, storage, registry),
  );

  const toSave = backupArgs(config, surroundings, storageClassName);
  const backup = toSave && new JenkinsBackup("jenkins-backup", { ...toSave, namespace: jenkins.namespace, homeClaim: jenkins.homeClaim, controllerPod: jenkins.controllerPod }, opts);

  await judgePatches();

  return {
    jenkinsUrl: jenkins.url,
    adminUser: jenkins.adminUser,
    adminPasswordCommand: jenkins.passwordCommand,
    agentImages: references,
    storageClass: storageClassName,
    nodePortRange: nodePorts?.range ?? "none",
    ingressClass: ingressClassName,
    ...(backup && { backup: { schedule: backup.schedule, lastGood: describeBackup(lastGoodBackup) } }),
    namespaces: { jenkins: jenkins.namespace, agents: jenkins.agentsNamespace },
  };
};
