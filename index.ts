import * as net from "node:net";
import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { AgentImages, AgentImagesArgs, argProblems, prepareImages } from "./components/agent-images";
import { IngressNginx } from "./components/ingress-nginx";
import { describe as describeBackup, JenkinsBackup, startFrom } from "./components/jenkins-backup";
import { JenkinsMaster } from "./components/jenkins-master";
import { NodePortRange } from "./components/node-port-range";
import { OpenEbsStorage } from "./components/openebs-storage";
import { nodePortsLabel } from "./components/ownership";
import { refusal } from "./components/refusal";
import { explain, loadConfig, publicPort } from "./config";
import { preflight } from "./checks/preflight";

/** The program: stack config in, components in order, stack outputs out. */
export = async () => {
  const config = loadConfig();
  const { problems, apiServerAddresses, lastGoodBackup, documents } = await preflight(config, pulumi.getStack());

  const { host, prefix, insecure, username, password } = config.registry;
  const login = username && password ? { host, username, password: pulumi.secret(password) } : undefined;
  const imageArgs: AgentImagesArgs = {
    registry: { host, prefix, insecure, ...(login && { username: login.username, password: login.password }) },
    builder: config.imageBuild.builder,
    images: config.builds,
    ...(config.imageBuild.platforms.length > 0 && { platforms: config.imageBuild.platforms }),
    ...(config.imageBuild.cache && { cache: config.imageBuild.cache }),
    ...(config.imageBuild.sbom && { sbom: config.imageBuild.sbom }),
    ...(config.imageBuild.builder === "in-cluster" && { inCluster: { image: config.images.buildkit, namespace: config.namespaces.builds, context: config.cluster.context } }),
    deleteOnDestroy: config.imageBuild.deleteOnDestroy,
  };
  for (const { propertyPath, reason } of argProblems(imageArgs)) problems.push({ key: propertyPath.replace(/^images\./, "agentImages."), found: reason });
  if (problems.length > 0) throw refusal(explain(problems, pulumi.getStack()));
  // Asks registries for base images; what it does not find stops the run before anything is made.
  const prepared = await prepareImages(imageArgs, { username, password });

  const provider = new k8s.Provider("cluster", {
    ...(config.cluster.kubeconfig && { kubeconfig: config.cluster.kubeconfig }),
    context: config.cluster.context,
    // Changed settings reach the live object instead of replacing it under its users.
    enableConfigMapMutable: true,
    enableSecretMutable: true,
  });
  const opts = { providers: [provider] };

  const imagePullSecret = login && {
    dockerConfigJson: pulumi.secret(JSON.stringify({ auths: { [host]: { auth: Buffer.from(`${username}:${password}`).toString("base64") } } })),
  };

  const nodePorts = config.nodePorts && new NodePortRange("node-port-range", config.nodePorts, opts);
  // The API server restarts when its range changes: whatever talks to it comes afterwards.
  const afterNodePorts = { ...opts, dependsOn: nodePorts ? [nodePorts] : [] };

  const ingress = config.ingress.install
    ? new IngressNginx(
        "ingress-nginx",
        {
          image: config.images.ingressNginx,
          ingressClassName: config.ingress.className,
          namespace: config.ingress.namespace,
          httpNodePort: config.ingress.httpNodePort,
          httpsNodePort: config.ingress.httpsNodePort,
          replicas: config.ingress.replicas,
          hstsSeconds: config.ingress.hstsSeconds,
          ...(imagePullSecret && { imagePullSecret }),
        },
        afterNodePorts,
      )
    : undefined;

  const storage =
    config.storage.install === "none"
      ? undefined
      : new OpenEbsStorage(
          "openebs-storage",
          {
            storageClassName: config.storage.className,
            install: config.storage.install,
            basePath: config.storage.basePath,
            provisionerImage: config.images.openebsProvisioner,
            helperImage: config.images.openebsLinuxUtils,
            // What the home's claim leaves behind, by a restore or by mistake, stays on the disk.
            reclaimPolicy: config.storage.protectHome ? "Retain" : "Delete",
            ...(imagePullSecret && { imagePullSecret }),
          },
          afterNodePorts,
        );
  const storageClass = storage?.storageClassName ?? config.storage.className;

  const images = new AgentImages("agent-images", prepared, config.imageBuild.builder === "in-cluster" ? afterNodePorts : opts);
  /** A build's digest reference, or the reference that config gives. */
  const image = (name: string): pulumi.Input<string> => images.references[name] ?? name;

  const jenkins = new JenkinsMaster(
    "jenkins",
    {
      address: {
        domain: config.domain,
        port: publicPort(config.ingress),
        ingressClassName: ingress?.ingressClassName ?? config.ingress.className,
        ingressNamespace: ingress?.namespace ?? config.ingress.namespace,
        ...(config.ingress.tls && { tls: config.ingress.tls }),
        annotations: config.ingress.annotations,
        maxBodySize: config.ingress.maxBodySize,
      },
      home: { storageClassName: storageClass, size: config.storage.size, protect: config.storage.protectHome },
      controller: {
        ...config.controller,
        image: image(config.controller.image),
        ...(config.backup?.startFrom && { beforeStart: startFrom({ ...config.backup, image: config.images.restic }, config.backup.startFrom) }),
      },
      agents: {
        templates: config.agents.map((agent) => ({ ...agent, image: image(agent.image) })),
        cap: config.agentCap,
        settings: {
          agentImage: config.images.inboundAgent,
          dindImage: config.images.dockerDind,
          buildkitImage: config.images.buildkit,
          insecureRegistries: insecure ? [host] : [],
          ...(config.agentCache && { cachePath: config.agentCache.path }),
        },
        cloud: config.cloud,
        ...(config.agentCache && { cache: { keeperImage: config.images.inboundAgent, maxGi: config.agentCache.maxGi } }),
      },
      access: {
        adminUser: config.admin.user,
        ...(config.admin.password && { adminPassword: config.admin.password }),
        adminPasswordVersion: config.admin.passwordVersion,
        ...(config.admin.existingSecret && { adminExistingSecret: config.admin.existingSecret }),
        ...(config.login && { login: config.login }),
        ...(config.rights && { rights: config.rights }),
        networkPolicies: config.networkPolicies,
        apiServerCidrs: apiServerAddresses.filter(net.isIPv4).map((address) => `${address}/32`),
        ...(login && { registryLogin: login }),
      },
      configuration: { fragments: config.cascFragments, secretFiles: config.secretFiles, ...(documents && { live: documents }) },
      monitoring: {
        ...(config.prometheusNamespace && { prometheusNamespace: config.prometheusNamespace }),
        serviceMonitor: config.serviceMonitor,
        serviceMonitorLabels: config.serviceMonitorLabels,
        dashboard: config.dashboard,
      },
      namespace: config.namespaces.jenkins,
      agentsNamespace: config.namespaces.agents,
      ...(nodePorts && { namespaceLabels: { [nodePortsLabel]: "owner" } }),
    },
    // Destroyed in reverse: the provisioner is still there to remove the home volume and its data.
    { ...opts, dependsOn: [nodePorts, storage].filter((each) => each !== undefined) },
  );

  const backup =
    config.backup &&
    new JenkinsBackup(
      "jenkins-backup",
      { ...config.backup, namespace: jenkins.namespace, homeClaim: jenkins.homeClaim, image: config.images.restic, controllerPod: jenkins.controllerPod },
      opts,
    );

  return {
    jenkinsUrl: jenkins.url,
    adminUser: jenkins.adminUser,
    adminPasswordCommand: jenkins.passwordCommand,
    agentImages: images.references,
    storageClass,
    nodePortRange: nodePorts?.range ?? "none",
    ingressClass: ingress?.ingressClassName ?? config.ingress.className,
    ...(backup && { backup: { schedule: backup.schedule, lastGood: describeBackup(lastGoodBackup) } }),
    namespaces: { jenkins: jenkins.namespace, agents: jenkins.agentsNamespace },
  };
};
