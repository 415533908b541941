import * as z from "zod";
import { usualResources, usualUpkeepDays } from "../components/jenkins-backup/args";
import { quantityMillis, type Resources } from "../components/quantity";
import upstream from "../images/upstream.json";
import { about, anything, choice, choices, flag, fromJson, integer, list, maybe, maybeChoice, maybeFlag, maybeInteger, named, oneOrMore, section, text, texts, words } from "./fields";
import * as piece from "./pieces";
import { usual } from "./pieces";

/**
 * Every key of a stack's config, once: type, bounds, default, one plain sentence and an example. From here come the `config:`
 * block of Pulumi.yaml, docs/config.schema.json for editors, the tables of the docs, and what `npm run new-env` asks. What
 * holds between keys is in rules.ts; what is made of them in index.ts.
 */

/** Upstream images the platform uses; images/upstream.json says which version of each. */
export type ImageKey = keyof typeof upstream;

// Pieces that several keys have.

const quantities = (whose: string) =>
  section(`What ${whose}.`, {
    cpu: text("Processors, or thousandths of one as 500m.", { is: piece.cpu, example: "500m" }),
    memory: text("Bytes, with a unit.", { is: piece.memory, example: "1Gi" }),
    ephemeralStorage: text("Room on the node's own disk, Kubernetes' ephemeral-storage, with a unit.", { is: piece.disk, example: "10Gi" }),
  });

/** Requests and limits of a container; given, they replace the usual ones as a whole. */
const resources = (meaning: string, usual: Resources) =>
  z
    .preprocess(
      fromJson,
      z
        .strictObject({ requests: quantities("the scheduler sets aside"), limits: quantities("the container may take at most") }, { error: "an object" })
        .superRefine(({ requests, limits }, { addIssue }) => {
          for (const what of ["cpu", "memory", "ephemeralStorage"] as const) {
            const [request, limit] = [requests[what], limits[what]];
            if (request !== undefined && limit !== undefined && quantityMillis(request) > quantityMillis(limit))
              addIssue({ code: "custom", path: ["limits", what], message: `at least the ${request} of requests.${what}`, params: { fix: `raise it, or lower requests.${what}` } });
          }
        })
        .prefault(usual),
    )
    .register(about, { meaning, default: usual });

const nodeSelector = (whose: string) => texts(`Labels that a node must have to take ${whose}.`, { key: piece.labelName, is: piece.labelValue, example: { disk: "ssd" } });

const tolerations = (whose: string) =>
  list(`Taints of nodes that ${whose} accepts.`, {
    key: text("The taint's key; none, with operator Exists, for every taint.", { is: { ...piece.labelName, expected: "a taint's key" }, example: "ci" }),
    operator: maybeChoice("Whether the taint's value counts (Equal) or not (Exists).", ["Exists", "Equal"]),
    value: text("The taint's value.", { is: { ...piece.labelValue, expected: "a taint's value" }, example: "builds" }),
    effect: maybeChoice("The taint's effect; every one where none is given.", ["NoSchedule", "PreferNoSchedule", "NoExecute"]),
  });

const aFile: piece.Piece = { expected: "the path of a file" };

const privateKey = (whose: string) => ({
  privateKey: text(`The private key for ${whose}, with --secret.`, { is: { ...aFile, expected: "a private key" }, example: "-----BEGIN OPENSSH PRIVATE KEY-----", secret: true }),
  privateKeyFile: text("A file that holds it instead.", { is: aFile, example: "~/.ssh/id_ed25519", ask: "Private SSH key" }),
  certificate: text("The certificate of that key, or of one of the agent's.", { is: { expected: "an SSH certificate" }, example: "ssh-ed25519-cert-v01@openssh.com AAAA" }),
  certificateFile: text("A file that holds it instead.", { is: aFile, example: "~/.ssh/id_ed25519-cert.pub" }),
});
const hostKey = (file: string) => ({
  hostKey: text("Its SSH host key, Ed25519 or ECDSA; or @cert-authority and the key of who certifies it.", { is: { expected: "a host key" }, example: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAID0FkgLfwsVeMvwmoBSaRh3QKEaRbUmKS+aOnOX/gLw5" }),
  hostKeyFile: text("A file that holds it instead.", { is: aFile, example: file }),
});
const hostName = { is: piece.host, example: "control-plane-1.example.com" };

const secretIn = (expected: string): { is: piece.Piece; example: string; secret: true } => ({ is: { expected }, example: "a-long-secret", secret: true });
const userName = { expected: "a user name" };

// The areas, in the order in which people meet them.

const place = {
  domain: text("Host name Jenkins answers on, without scheme or port.", { is: piece.domain, example: "jenkins.example.com", required: true, ask: "Host name people will use, such as jenkins.example.com" }),
  kubeContext: text("Context of the cluster in the kubeconfig, so that a stack never reaches the cluster that happens to be selected.", {
    is: { expected: "the context of the cluster this stack belongs to" }, example: "kubernetes-admin@kubernetes", required: true, fix: "pulumi config set kubeContext <name>; kubectl config get-contexts lists them", ask: "Context of the cluster in the kubeconfig",
  }),
  kubeconfig: text("Path of the kubeconfig file.", { is: aFile, example: "~/.kube/config", defaultText: "$KUBECONFIG, or ~/.kube/config" }),
  namespace: text("Namespace of the controller; the agents' is the same with -agents behind it. Every environment on a cluster has its own.", {
    is: { expected: "a name of at most 50 small letters, digits and hyphens", pattern: /^[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?$/ }, example: "jenkins", default: usual.namespace,
  }),
  ingress: section("How people reach Jenkins.", {
    controller: maybeChoice(
      "The ingress controller that the stack brings: traefik; nginx (ingress-nginx, which has had no fix since March 2026); gateway (a Gateway of Traefik's, or the one that ingress.gateway names); none where another one serves the class. Namespace, Service and class stay when it changes.",
      piece.ingressControllers, "nginx",
    ),
    install: flag("Older way to say controller: none, with false.", true),
    className: text("IngressClass that serves the domain.", { is: piece.name("the name of an IngressClass"), example: "nginx", default: usual.ingressClass }),
    namespace: text("Namespace of the ingress controller; with ingress.gateway that of the pods behind the Gateway, its own where nothing is said.", { is: piece.name("the namespace of the ingress controller"), example: "ingress-nginx", default: usual.ingressNamespace }),
    httpNodePort: integer("Port of every node for HTTP.", piece.httpNodePort),
    httpsNodePort: integer("Port of every node for HTTPS.", piece.httpsNodePort),
    tlsSecret: text("Secret with the certificate for HTTPS, in Jenkins' namespace.", { is: piece.longName("the name of a Secret of type kubernetes.io/tls in Jenkins' namespace"), example: "jenkins-tls", defaultText: "none, or jenkins-tls with clusterIssuer" }),
    clusterIssuer: text("ClusterIssuer of cert-manager that makes and renews the certificate.", { is: piece.longName("the name of a cert-manager ClusterIssuer"), example: "letsencrypt", ask: "cert-manager ClusterIssuer for HTTPS, - for none" }),
    gateway: maybe("A Gateway (gateway.networking.k8s.io/v1) that is there and leads to Jenkins, with controller: gateway. Where none is named the stack makes one, which Traefik serves.", {
      name: text("The name of the Gateway.", { is: piece.longName("the name of a Gateway"), example: "edge", required: true }),
      namespace: text("Its namespace.", { is: piece.name("the namespace of that Gateway"), example: "edge", required: true }),
      sectionName: text("One of its listeners; every one that takes the host where none is named.", { is: piece.longName("the name of one of its listeners"), example: "https" }),
    }),
    externalUrl: text("The address people use, where a proxy or load balancer before the nodes makes it another than the domain's, or where Jenkins answers below a path.", { is: piece.externalUrl, example: "https://jenkins.example.com/jenkins", defaultText: "the domain, with https where the ingress has a certificate" }),
    trustedProxies: words("Addresses of the proxies before the nodes, which are believed about people's addresses and, by X-Forwarded-*, about https.", { is: piece.networkAddress, example: "192.0.2.10", entries: "a list of addresses and CIDRs such as 192.0.2.0/24" }),
    proxyProtocol: flag("Whether these speak PROXY protocol instead of sending X-Forwarded-*; ingress-nginx then takes nothing else.", false),
    hosts: list("Further host names on which Jenkins answers, such as a former address.", {
      name: text("The host name.", { is: piece.domain, example: "old.example.com", required: true }),
      tlsSecret: text("Secret with its certificate, in Jenkins' namespace.", { is: piece.longName("the name of a Secret of type kubernetes.io/tls in Jenkins' namespace"), example: "old-tls", defaultText: "nothing beside clusterIssuer, which has one made; else the domain's, which has to name it" }),
      resources: flag("Whether it is Jenkins' resource root URL: what builds and people put there is shown from this name, apart from Jenkins itself.", false),
    }),
    annotations: texts("Further annotations of the Ingress.", { example: { "nginx.ingress.kubernetes.io/whitelist-source-range": "192.0.2.0/24" } }),
    maxBodySize: text("Largest upload that the ingress lets through; Traefik lets every one through.", { is: piece.nginxSize, example: "64m", default: usual.maxBodySize }),
    hstsSeconds: integer("Seconds browsers are told to use HTTPS only.", piece.hstsSeconds),
    replicas: integer("Pods of the ingress controller.", piece.ingressReplicas),
    externalTrafficPolicy: choice("Whether every node answers, and Jenkins sees a node's address in place of people's own (Cluster), or only nodes with a pod of the controller do, and it sees theirs (Local).", piece.externalTrafficPolicies, "Cluster"),
  }),
};

const storage = {
  storageSize: text("Size of jenkins_home, with its unit. A hostpath volume does not enforce it.", { is: piece.size, example: "20Gi", default: "20Gi", ask: "Size of jenkins_home" }),
  storageBasePath: text("Folder on every node below which volumes are made.", { is: piece.nodeFolder, example: "/var/openebs/local", default: usual.basePath }),
  storageClass: text("StorageClass of jenkins_home. The stack makes it unless storageInstall is none.", { is: piece.domainOrName("the name of a StorageClass"), example: "openebs-hostpath", default: usual.storageClass }),
  storageInstall: choice(
    "What of the storage the stack makes: provisioner (with its StorageClass); class (a StorageClass alone, served by the provisioner that another environment of the cluster has); none (storageClass is there already).",
    ["provisioner", "class", "none"], "provisioner",
  ),
  protectHome: flag("Whether pulumi refuses to delete or replace the volume claim of jenkins_home.", true),
};

const nodePorts = {
  nodePortRange: text("Range of node ports the API server allows; must hold the ports of the ingress. none leaves it as it is, for every environment on a cluster but the one that sets it.", {
    is: { expected: "a range such as 80-32767, or none where it is left as it is", pattern: /^(none|\d{1,5}-\d{1,5})$/ }, example: usual.nodePortRange, default: usual.nodePortRange,
  }),
  reserveLocalPorts: flag("Whether the range is kept from the nodes' own outgoing connections (net.ipv4.ip_local_reserved_ports).", true),
  controlPlane: section("How the control-plane nodes are reached. Required unless nodePortRange is none.", {
    access: choice("By SSH, or locally where pulumi runs on the only one.", ["ssh", "local"], "ssh"),
    user: text("SSH user, root or one who may sudo.", { is: piece.sshUser, example: "deploy", defaultText: "root", ask: "SSH user on the control-plane nodes" }),
    port: integer("Port of the nodes' SSH server.", piece.port(22)),
    ...privateKey("the nodes"),
    agentSocket: text("Socket of an SSH agent, instead of or beside the key.", { is: { expected: "the path of an SSH agent's socket", pattern: /^\// }, example: "/run/user/1000/ssh-agent.sock" }),
    proxy: oneOrMore("Jump host between this machine and the nodes; several as a list, the first one first.", {
      host: text("Its host name or address.", { ...hostName, example: "jump.example.com", required: true }),
      port: integer("Port of its SSH server.", piece.port(22)),
      user: text("SSH user there.", { is: piece.sshUser, example: "jump", defaultText: "the nodes' user" }),
      ...hostKey("~/.ssh/jump.pub"),
      ...privateKey("the jump host"),
    }),
    nodes: list("All control-plane nodes of the cluster, in the order in which they are changed.", {
      name: text("The node's name as kubectl shows it.", { is: piece.domainOrName("the node's name as kubectl get nodes shows it"), example: "control-plane-1", required: true }),
      host: text("Host name or address of its SSH server.", hostName),
      ...hostKey("~/.ssh/control-plane-1.pub"),
    }),
  }),
};

const network = {
  trust: section("Certificates of authorities of your own, trusted beside the public ones by everything that the platform runs and by what it asks itself.", {
    caBundleFile: text("File of the project with the certificates in PEM.", { is: aFile, example: "certificates/company.pem" }),
    caBundleConfigMap: maybe("A ConfigMap that holds them instead, read at each preview.", {
      name: text("Name of the ConfigMap.", { is: piece.longName("the name of a ConfigMap"), example: "company-ca-bundle", required: true }),
      key: text("The key with the certificates in PEM.", { is: piece.dataKey("a key of that ConfigMap"), example: "ca.crt", default: "ca.crt" }),
      namespace: text("Its namespace; before the first up there is no controller's.", { is: piece.name("the namespace of that ConfigMap"), example: "cert-manager", defaultText: "the controller's" }),
    }),
  }),
  proxy: section("Proxy on the way out of the network.", {
    http: text("Its address for http: destinations, without a login.", { is: piece.proxyAddress, example: "http://proxy.example.com:3128", defaultText: "that of https" }),
    https: text("Its address for https: destinations, which is http: as well.", { is: piece.proxyAddress, example: "http://proxy.example.com:3128", defaultText: "that of http" }),
    noProxy: words("Hosts, domains and CIDRs that are reached without it, beside the cluster's own.", { is: piece.noProxy, example: ".example.com", entries: "a list of hosts, domains such as .example.com, and CIDRs" }),
    username: text("User that it asks for.", { is: userName, example: "build-platform" }),
    password: text("Password of that user, with --secret.", secretIn("a password")),
    loginSecret: maybe("A Secret with keys username and password that holds them instead, read at each preview.", {
      name: text("Name of the Secret.", { is: piece.longName("the name of a Secret"), example: "proxy-login", required: true }),
      namespace: text("Its namespace; before the first up there is no controller's.", { is: piece.name("the namespace of that Secret"), example: "network", defaultText: "the controller's" }),
    }),
  }),
};

const imageKeys = Object.keys(upstream) as ImageKey[];
const imageText = (key: ImageKey) => {
  const pin: { image: string; tag: string; digest?: string } = upstream[key];
  return text(`Image in place of ${pin.image}, as a full reference.`, { is: piece.imageReference, example: `registry.example.com/${pin.image.replace(/^[^/]+\//, "")}:${pin.tag}`, default: `${pin.image}:${pin.tag}${pin.digest ? `@${pin.digest}` : ""}`, defaultText: "as in images/upstream.json" });
};

const mirrorText = (meaning: string, folder: string) => text(meaning, { is: piece.address, example: `https://mirror.example.com/${folder}` });

const images = {
  images: section("Full references that replace upstream images, for mirrors.", Object.fromEntries(imageKeys.map((key) => [key, imageText(key)])) as Record<ImageKey, ReturnType<typeof imageText>>),
  registry: section("Registry that built images are pushed to and nodes pull from: the stack's own in the cluster, or another.", {
    builtIn: maybeFlag("Whether the stack brings a registry, on a volume of storageClass. Nodes pull from it through their own loopback; those with containerd need nothing for it.", "true where no host is given"),
    port: maybeInteger("Port of every node's loopback for the built-in registry. Every environment on a cluster has its own.", piece.registryPort, `${piece.registryPort.usual}; with another namespace one that comes of its name`),
    size: text("Room for the built images in the built-in registry. With another size the images are built into a new volume.", { is: piece.size, example: "20Gi", default: "20Gi" }),
    jobsSize: text("Room for the images that jobs push to the registry beside it. Above nine tenths of it those without tag are deleted, then the oldest tags. With another size it starts anew, empty.", { is: piece.size, example: "50Gi", default: "20Gi" }),
    host: text("Another registry, as host or host:port.", { is: piece.registry, example: "registry.example.com:5000", ask: "Image registry that the nodes can pull from, host or host:port, - for the stack's own" }),
    prefix: text("Path between the registry's host and an image's name.", { is: piece.imagePath, example: "build-platform", default: "build-platform" }),
    insecure: flag("Plain HTTP, or a certificate that cannot be checked.", false),
    username: text("User for pushes and pulls.", { is: userName, example: "robot" }),
    password: text("Password of that user, with --secret.", secretIn("a password")),
  }),
  mirrors: section("Where what lies on the internet is fetched from instead, by pods, image builds and agents' builds.", {
    preset: maybeChoice("Public mirrors to take where no key beside it names another one; docs/mirrors.md lists them.", ["china"]),
    registries: texts("Mirrors of image registries, by registry: of every image that images does not name, of base images, and of what rootless BuildKit builds from.", { key: piece.registry, is: piece.registryMirror, example: { "docker.io": "mirror.example.com/dockerhub" } }),
    dockerd: text("Mirror of Docker Hub for the agents' Docker daemons, which know no other registry's and none with a path.", { is: { expected: "a root address such as https://mirror.example.com", pattern: /^https?:\/\/[A-Za-z0-9[\].:-]+\/?$/ }, example: "https://mirror.example.com", defaultText: "that of registries for docker.io, if it has no path" }),
    jenkinsUpdates: mirrorText("Mirror of https://updates.jenkins.io, for the controller's image and the running Jenkins.", "jenkins-updates"),
    jenkinsPlugins: mirrorText("Folder of a mirror with plugins, each as NAME/VERSION/NAME.hpi, for the controller's image.", "jenkins/plugins"),
    maven: mirrorText("Mirror of Maven Central, for Maven and Gradle on agents.", "maven2"),
    gradlePlugins: mirrorText("Mirror of Gradle's plugin portal, for Gradle on agents.", "gradle-plugins"),
    npm: mirrorText("npm's registry on agents.", "npm"),
    pip: mirrorText("pip's index on agents.", "pypi/simple"),
    go: text("Go's module proxies on agents, as GOPROXY has them.", { is: { expected: "addresses, direct or off with commas or bars between them, such as https://proxy.example.com,direct", pattern: /^(https?:\/\/[\w.~%+=:[\]/-]+|direct|off)([,|](https?:\/\/[\w.~%+=:[\]/-]+|direct|off))*$/ }, example: "https://proxy.example.com,direct" }),
    debian: mirrorText("Mirror of Debian's archive, for image builds whose Dockerfile declares ARG MIRROR_DEBIAN.", "debian"),
  }),
  imageCache: section("A cache of public image registries in the cluster, through which the agents' Docker and BuildKit pull; for dockerd that is Docker Hub alone.", {
    registries: words("Registries whose images it keeps; none for no cache.", { is: piece.registry, example: "docker.io", entries: "a list of registries such as docker.io" }),
    size: text("Room for them: what was not pulled for longest goes first.", { is: piece.size, example: "100Gi", default: "50Gi" }),
    keepDays: integer("Days after which an image is fetched anew.", { least: 1, most: 3650, usual: 30 }),
    open: flag("Whether everybody in the cluster reaches it, such as the container runtimes of nodes, and not the agents alone.", false),
  }),
  pullSecrets: list("Further log-ins for registries and their mirrors, of every pod of the platform and of image builds.", {
    registry: text("The registry as host or host:port; docker.io for Docker Hub.", { is: piece.registry, example: "docker.io" }),
    username: text("User for pulls.", { is: userName, example: "robot" }),
    password: text("Password or token of that user, with --secret.", secretIn("a password")),
    existing: text("Instead of these three, a Secret of type kubernetes.io/dockerconfigjson that somebody else makes in each namespace. Image builds do not know it.", { is: piece.longName("the name of a Secret of type kubernetes.io/dockerconfigjson"), example: "company-registry" }),
  }),
  imageBuild: section("How images are built.", {
    builder: maybeChoice("What builds them: Docker's buildx or buildah on this machine, which push to the built-in registry through the API server, or a pod in the cluster.", ["buildah", "buildx", "in-cluster"], "in-cluster with the built-in registry, else buildx"),
    platforms: words("Platforms to build for.", { is: piece.platform, example: "linux/amd64", entries: "a list of platforms such as linux/amd64", defaultText: "the builder's own: of this machine, or of the nodes that images are built on" }),
    cache: text("Build cache: a folder of the machine that builds, or registry, which a local builder has not got with the built-in one.", { is: { expected: "registry, or a folder" }, example: "registry" }),
    sbom: text("Folder for a bill of materials of each image, which needs syft.", { is: { expected: "a folder" }, example: "sbom" }),
    deleteOnDestroy: flag("Whether pulumi destroy deletes the images from the registry.", false),
  }),
  agentImages: named(
    "Further images to build by name, or other build arguments for maven-dind, gradle-dind and controller.",
    piece.name("an image name of small letters, digits and hyphens"), "an object with one entry for each image",
    {
      context: text("Folder of the project that is sent to the builder.", { is: { expected: "a folder of the project", pattern: /^(?!\/)/, also: (folder) => !folder.split("/").includes("..") }, example: "images/go", defaultText: "images/<name>" }),
      dockerfile: text("Dockerfile in that folder.", { is: { expected: "a file in the context" }, example: "Dockerfile", defaultText: "Dockerfile" }),
      args: texts("Build arguments; a value upstream:<key> becomes that upstream image.", { example: { BASE_IMAGE: "upstream:inboundAgent" } }),
    },
  ),
};

const agentResources: Resources = { requests: { cpu: "500m", memory: "1Gi" }, limits: { memory: "2Gi" } };
const dockerResources: Resources = { requests: { cpu: "250m", memory: "512Mi" }, limits: { memory: "4Gi" } };

const agents = {
  agents: list(
    "Kinds of build agents.",
    {
      name: text("Name of the template; agents are called the same with something random behind it.", { is: { expected: "a name of at most 40 small letters, digits and hyphens", pattern: /^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$/ }, example: "maven", required: true }),
      image: text("A built image's name, or a full reference.", { is: { expected: "the name of a built image or a full image reference" }, example: "maven-dind", required: true }),
      label: text("Labels that jobs ask for, separated by blanks.", { is: { expected: "Jenkins labels, separated by single blanks", pattern: /^[A-Za-z0-9_.-]+( [A-Za-z0-9_.-]+)*$/ }, example: "maven java", defaultText: "the name" }),
      docker: choice("How builds reach Docker: a privileged daemon beside them, BuildKit without privileges, or not at all.", ["dind", "rootless", "none"], "dind"),
      userNamespace: flag("Whether the pod has a user namespace of its own, so that root in it is nobody on the node; asks for Kubernetes 1.33, containerd 2 and Linux 6.3 on the nodes.", false),
      caches: choices("What the agents of a node share of what they download, by tool, see docs/pipelines.md; sbt is coursier's cache; remoting is the controller's jars that agents themselves load; git is mirrors that clones begin with; docker is what Docker pulled and built, which the next agent on the node takes over, without names; gradle-build is what Gradle's tasks made, in the cluster.", ["maven", "gradle", "npm", "pnpm", "pip", "go", "sbt", "remoting", "git", "docker", "gradle-build"]),
      cacheGroup: text("Agents of one name share, on a node, what caches has beside maven and gradle, which all share.", { is: piece.name("a name of small letters, digits and hyphens"), example: "release", default: usual.cacheGroup }),
      resources: resources("Requests and limits of the build container.", agentResources),
      dockerResources: resources("Requests and limits of the docker or BuildKit sidecar.", dockerResources),
      // The whole disks of hosted runners, in which other people's builds fit: GitHub's standard one 14 GB, GitLab's medium 50 GB and large 100 GB.
      workspaceSize: text("Most room of a build's workspace on the node's disk; Gradle's home has as much. A pod that passes it is evicted.", { is: piece.size, example: "20Gi", default: "50Gi" }),
      dockerSize: text("Most room of images, containers and layers of Docker or BuildKit, in the same way.", { is: piece.size, example: "50Gi", default: "100Gi" }),
      cap: maybeInteger("Most agents of this kind at once.", { least: 1, most: 1000, usual: 10 }, "agentCap, at least 10"),
      idleMinutes: integer("Minutes an idle agent waits for the next build; 0 gives every build a fresh pod.", { least: 0, most: 10080, usual: 0 }),
      minIdle: integer("Agents of this kind that are connected and idle before a build comes, each for one build; they count within cap and agentCap.", { least: 0, most: 1000, usual: 0 }),
      minIdleTimes: text("Minutes in which minIdle holds, as five cron fields in UTC.", { is: piece.minutes, example: "* 6-18 * * 1-5", defaultText: "always" }),
      podRetention: choice("Whether the pod is kept after the build.", ["never", "onFailure", "always", "evicted"], "never"),
      connectTimeoutSeconds: integer("Seconds for the pod to be scheduled, pull its images and connect.", { least: 10, most: 86400, usual: 600 }),
      activeDeadlineSeconds: integer("Seconds after which the pod is ended whatever it does; 0 for no bound.", { least: 0, most: 604800, usual: 0 }),
      nodeSelector: nodeSelector("agents of this kind"),
      tolerations: tolerations("the pod"),
      prepull: flag("Whether every node that may get such an agent has its images before the first build; they take their room on each.", false),
      spread: flag("Whether agents are spread over the nodes as evenly as room allows.", true),
      unlabelled: maybeFlag("Whether builds that ask for no label run here.", "true for the first kind, else false"),
      env: texts("Further environment of the build container; MAVEN_OPTS comes behind the platform's own.", { key: piece.variableName, example: { GRADLE_OPTS: "-Dorg.gradle.daemon=false" } }),
      volumes: list("Further volumes of the build container, each of one configMap, secret or claim.", {
        configMap: text("ConfigMap in the agents' namespace.", { is: piece.longName("a name"), example: "maven-settings" }),
        secret: text("Secret in the agents' namespace.", { is: piece.longName("a name"), example: "npm-token" }),
        claim: text("PersistentVolumeClaim in the agents' namespace.", { is: piece.longName("a name"), example: "toolchains" }),
        mountPath: text("Where it appears in the build container.", { is: { expected: "where it appears in the build container, such as /usr/share/maven/conf/settings.xml", pattern: /^\/[^:]+$/, also: (place) => !place.split("/").includes("..") }, example: "/usr/share/maven/conf/settings.xml", required: true }),
        key: text("One file of it, which is then what appears at mountPath.", { is: piece.dataKey("the name of one file"), example: "settings.xml" }),
        readOnly: maybeFlag("Whether builds cannot write to it.", "true, but false for a claim"),
      }),
    },
    [
      { name: "maven", image: "maven-dind", caches: ["maven"] },
      { name: "gradle", image: "gradle-dind", caches: ["gradle"] },
    ],
  ),
  agentCap: integer("Most agent pods at once, over all kinds.", piece.agentCap),
  agentCache: section("Dependency caches that agents share on each node; they fill them themselves.", {
    enabled: flag("Whether there are any.", true),
    path: text("Folder of the nodes that holds them.", { is: piece.nodeFolder, example: "/var/cache/build-platform", defaultText: `${usual.agentCachePath}, with -<namespace> behind it for another namespace than ${usual.namespace}` }),
    maxGi: integer("Most GiB they take on a node; mirrors of git as much again.", piece.cacheGi),
    dockerGi: integer("Most GiB that Docker's images, layers and build cache take on a node beside it, where an agent has docker in caches.", piece.dockerGi),
    gradleBuildSize: text("Room for what Gradle's tasks made, on a volume of storageClass, where an agent has gradle-build in caches.", { is: piece.size, example: "50Gi", default: "20Gi" }),
  }),
  agentPods: section("Pods of the agents' namespace that pipelines describe themselves: what they may have that no agent of the platform has. The API server (a ValidatingAdmissionPolicy) sees to it.", {
    action: choice("Whether pods that have more are refused, or taken with a warning and a line in the audit log; none for no policy.", ["deny", "warn", "none"], "deny"),
    privilegedImages: words("Images whose containers may be privileged, add capabilities or go without seccomp and AppArmor. Who may run one has the node.", { is: piece.imageReference, example: "registry.example.com/kernel-builder:1", entries: "a list of full image references" }),
    hostPaths: list("Folders of the nodes that may be mounted.", {
      path: text("The folder, exactly as a pod names it.", { is: { ...piece.nodeFolder, expected: "an absolute path without a slash at its end, such as /srv/toolchains, and none of the system's own folders such as /var itself" }, example: "/srv/toolchains", required: true }),
      readOnly: flag("Whether every mount of it has to be read-only.", true),
    }),
    serviceAccounts: words("ServiceAccounts that pods may have beside default and the agents' own.", { is: piece.longName("the name of a ServiceAccount"), example: "deployer", entries: "a list of names of ServiceAccounts in the agents' namespace" }),
  }),
  cloud: anything("Further settings of the kubernetes plugin's cloud, named as in configuration as code; pod templates in it come beside the agents.", { waitForPodSec: 900 }),
};

const controller = {
  controller: section("The Jenkins controller.", {
    image: text("A full reference in place of the image that the stack builds.", { is: piece.imageReference, example: "registry.example.com/jenkins:1", defaultText: "built from images/controller" }),
    plugins: words("Further plugins to bake in, each name:version, or a file with one on each line; a version given here wins over the platform's own.", { is: { expected: "a plugin, or a file" }, example: "job-dsl:1.93", entries: "a list of plugins such as job-dsl:1.93, or a file with one on each line", alone: true }),
    resources: resources("Requests and limits.", { requests: { cpu: "500m", memory: "2Gi" }, limits: { memory: "4Gi" } }),
    maxRamPercentage: integer("Share of the memory limit that the JVM's heap takes, in percent.", piece.maxRamPercentage),
    javaOpts: text("Further JVM options.", { is: { expected: "JVM options" }, example: "-Dhudson.slaves.NodeProvisioner.MARGIN=50", default: "" }),
    env: texts("Further environment, such as for ${NAME} in documents of cascFolder.", { key: piece.variableName, example: { MAIL_HOST: "smtp.example.com" } }),
    envFrom: words("Secrets of the controller's namespace whose keys become environment.", { is: piece.longName("the name of a Secret"), example: "proxy-settings", entries: "a list of names of Secrets in the controller's namespace" }),
    agentNodePort: maybeInteger("Port of every node on which agents outside the cluster reach the controller by TCP, inside nodePortRange; those that come by WebSocket need none.", piece.port(31500), "none"),
    startupSeconds: integer("Seconds Jenkins may take to answer after its start.", piece.startupSeconds),
    terminationSeconds: integer("Seconds Jenkins gets to stop in order.", piece.terminationSeconds),
    priorityClassName: text("PriorityClass, so that other pods do not push the controller out.", { is: piece.longName("the name of a PriorityClass"), example: "system-cluster-critical", defaultText: "<namespace>-controller, which the stack makes" }),
    nodeSelector: nodeSelector("the controller"),
    tolerations: tolerations("the controller"),
  }),
  rehearsal: section("A pod with the new image, configuration and secrets that must come up before the running controller is touched.", {
    enabled: flag("Whether there is one.", true),
    timeoutSeconds: integer("Seconds it may take.", { least: 60, most: 7200, usual: 600 }),
    resources: resources("Its requests and limits; the limit of memory is the controller's where none is given.", { requests: { cpu: "100m", memory: "512Mi" } }),
  }),
  cascFolder: text("Folder with the site's own Jenkins configuration as code, joined with the platform's. A security realm or authorization strategy in it replaces the platform's own.", { is: { expected: "a folder with JCasC documents" }, example: "jcasc", default: "" }),
  secretFiles: list("Keys of Secrets in the controller's namespace that documents in cascFolder refer to as ${<secret>-<key>}.", {
    secret: text("Name of the Secret.", { is: piece.name("the name of a Secret in the controller's namespace"), example: "github", required: true }),
    key: text("One of its keys.", { is: piece.dataKey("a key of that Secret"), example: "token", required: true }),
  }),
};

const ldapFilter: piece.Piece = { expected: "an LDAP filter with {0} in place of what is searched for, such as uid={0}", pattern: /\{0\}/ };
const ldapAttribute: piece.Piece = { expected: "the name of an attribute", pattern: /^[A-Za-z][A-Za-z0-9-]*$/ };
const claim: piece.Piece = { expected: "a claim" };
const role = (may: string) =>
  maybe(`Who may ${may}.`, {
    groups: words("Groups that the login tells of; authenticated is everybody who is logged in.", { is: { expected: "a name", pattern: /^\S(.*\S)?$/ }, example: "platform", entries: "a list of names of groups" }),
    users: words("Single people.", { is: { expected: "a name", pattern: /^\S(.*\S)?$/ }, example: "ann", entries: "a list of names of users" }),
  });

const people = {
  adminUser: text("Name of the administrator. After a change the former one still exists in Jenkins, with the former password: delete that user there.", { is: { expected: "a user name of letters, digits, dots, hyphens and underscores", pattern: /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/ }, example: "admin", default: "admin" }),
  adminPassword: text("Password of the administrator, with --secret.", { is: { expected: "at least 12 characters", pattern: /^.{12,}$/s }, example: "a-long-password", secret: true, defaultText: "made once and kept" }),
  adminPasswordVersion: integer("Raise it to have a new password made.", { least: 1, most: 1000000, usual: 1 }),
  adminExistingSecret: text("Secret in the controller's namespace with keys admin-user and admin-password, used instead of an own one.", { is: piece.name("the name of a Secret in the controller's namespace with keys admin-user and admin-password"), example: "jenkins-login-of-ours" }),
  login: section("Single sign-on by one of the two, whose plugin is baked in. Without it only the local administrator exists.", {
    oidc: maybe("An OpenID Connect provider.", {
      wellKnownUrl: text("The provider's discovery document.", { is: { expected: "the address of the provider's discovery document such as https://sso.example.com/.well-known/openid-configuration", pattern: /^https:\/\/[^\s/]+\/\S+$/ }, example: "https://sso.example.com/.well-known/openid-configuration", required: true }),
      clientId: text("The name under which the provider knows Jenkins.", { is: { expected: "the name under which the provider knows Jenkins" }, example: "jenkins", required: true }),
      clientSecret: text("The client's secret, with --secret.", { ...secretIn("the client's secret"), required: true }),
      userNameField: text("Claim that becomes the user's name in Jenkins.", { is: claim, example: "preferred_username", default: "preferred_username" }),
      fullNameField: text("Claim with the person's own name.", { is: claim, example: "name", default: "name" }),
      emailField: text("Claim with the mail address.", { is: claim, example: "email", default: "email" }),
      groupsField: text("Claim with the list of groups.", { is: { expected: "the claim that lists a person's groups" }, example: "groups", default: "" }),
      scopes: text("Scopes asked for.", { is: { expected: "scopes separated by single blanks, the first one openid", pattern: /^openid( \S+)*$/ }, example: "openid profile email", default: "openid profile email" }),
      logoutFromProvider: flag("Whether a logout from Jenkins ends the provider's session as well.", true),
      escapeHatch: flag("Whether the local administrator can log in as well.", true),
    }),
    ldap: maybe("A directory.", {
      server: text("Servers separated by blanks: the second is asked where the first does not answer.", { is: { expected: "a server such as ldaps://ldap.example.com, or several separated by single blanks", pattern: /^(ldaps?:\/\/)?([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:\d{1,5})?( (ldaps?:\/\/)?([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:\d{1,5})?)*$/ }, example: "ldaps://ldap.example.com", required: true }),
      rootDN: text("Where searches start.", { is: { expected: "where searches start, such as dc=example,dc=com", pattern: /^[A-Za-z]+=/ }, example: "dc=example,dc=com", required: true }),
      managerDN: text("Who searches; none for anonymous searches.", { is: { expected: "the DN of who searches" }, example: "cn=jenkins,dc=example,dc=com", default: "" }),
      managerPassword: text("Password of managerDN, with --secret.", secretIn("the password of managerDN")),
      userSearchBase: text("Where people are, below rootDN.", { is: { expected: "a DN below rootDN" }, example: "ou=people", default: "" }),
      userSearch: text("Filter that finds a person, {0} being the name that was typed.", { is: ldapFilter, example: "uid={0}", default: "uid={0}" }),
      groupSearchBase: text("Where groups are, below rootDN.", { is: { expected: "a DN below rootDN" }, example: "ou=groups", default: "" }),
      groupSearchFilter: text("Filter that finds a group, {0} being its name.", { is: ldapFilter, example: "cn={0}", default: "" }),
      groupMembershipFilter: text("Filter that finds a person's groups, {0} being the person's DN.", { is: ldapFilter, example: "member={0}", default: "" }),
      groupMembershipAttribute: text("Attribute of a person that lists the groups instead.", { is: ldapAttribute, example: "memberOf", default: "" }),
      displayNameAttribute: text("Attribute with the person's own name.", { is: ldapAttribute, example: "displayName", default: "displayName" }),
      mailAttribute: text("Attribute with the mail address.", { is: ldapAttribute, example: "mail", default: "mail" }),
    }),
  }),
  rights: section("Who may do what, with a login. Without a login and rights the local administrator may do anything.", {
    admin: role("do anything"),
    developer: role("see, build and cancel jobs and see workspaces"),
    reader: role("see jobs"),
  }),
  networkPolicies: flag("Whether NetworkPolicies fence the controller, the agents, the built-in registry and the image cache. They need a network plugin that enforces them.", true),
};

const monitoring = {
  prometheusNamespace: text("Namespace of a Prometheus that scrapes the controller; the plugin prometheus is baked in.", { is: piece.name("the namespace Prometheus runs in"), example: "monitoring" }),
  serviceMonitor: flag("Whether a ServiceMonitor for the Prometheus operator is made. Needs prometheusNamespace.", false),
  serviceMonitorLabels: texts("Further labels of the ServiceMonitor: those that the Prometheus selects by, such as release for kube-prometheus-stack.", { key: piece.labelName, is: piece.labelValue, example: { release: "kube-prometheus-stack" } }),
  dashboard: flag("Whether a Grafana dashboard is made as ConfigMap jenkins-dashboard, for Grafana's sidecar. Needs prometheusNamespace.", false),
};

const repository = { is: { expected: "a restic repository such as s3:https://host/bucket or /folder/on/the/node", pattern: /^(s3:|sftp:|rest:|b2:|azure:|gs:|swift:|rclone:|\/)\S+$/ }, required: true as const };
const kept = (what: string, usual: number) => integer(what, { least: 0, most: 1000, usual });

const backup = {
  backup: maybe(
    "Where jenkins_home is backed up with restic. Empty means no backup.",
    {
      repository: text("Repository of the home.", { ...repository, example: "s3:https://s3.example.com/jenkins" }),
      password: text("Its password, with --secret. Whoever loses it loses the backups.", { ...secretIn("a password"), required: true }),
      keysRepository: text("Second repository, for the master key alone.", { ...repository, example: "s3:https://s3.example.org/jenkins-keys" }),
      keysPassword: text("Its password, with --secret.", { ...secretIn("a password"), required: true }),
      environment: texts("Environment that restic needs, with --secret.", { key: piece.variableName, example: { AWS_ACCESS_KEY_ID: "an-id" }, secret: true }),
      schedule: text("When, as five cron fields in UTC; none for by hand only.", { is: piece.cron, example: "0 2 * * *", default: "" }),
      verifySchedule: text("When a restored copy is booted; none for by hand only.", { is: piece.cron, example: "0 4 * * 0", default: "" }),
      verifyVolume: section("Where a restored copy lies until it has been checked.", {
        storageClass: text("StorageClass of a claim for it, one that deletes its volumes.", { is: piece.domainOrName("the name of a StorageClass"), example: "fast", defaultText: "none: the disk that the node's kubelet uses" }),
        size: text("Room for it.", { is: piece.size, example: "50Gi", defaultText: "storageSize; without a class twice that, at which the check is given up" }),
      }),
      keep: section("How many snapshots are kept.", {
        last: kept("The newest ones.", 3),
        daily: kept("One for each of so many days.", 7),
        weekly: kept("One for each of so many weeks.", 4),
        monthly: kept("One for each of so many months.", 6),
      }),
      excludes: words("Patterns below jenkins_home that are left out beyond the usual ones.", { is: { expected: "a pattern", pattern: /^[^/\s#]\S*$/ }, example: "jobs/**/htmlreports", entries: "a list of patterns relative to jenkins_home such as jobs/**/htmlreports" }),
      uploadLimit: integer("Most KiB/s sent to the repository; 0 for no limit.", { least: 0, most: 10_000_000, usual: 0 }),
      downloadLimit: integer("Most KiB/s fetched from it, also by a restore; 0 for no limit.", { least: 0, most: 10_000_000, usual: 0 }),
      upkeepDays: integer("Days between two checks of the repository with retention and pruning, which a backup does when they are due; 0 for each backup.", { least: 0, most: 90, usual: usualUpkeepDays }),
      beforeUpgrade: flag("Whether the home is saved right before each change of the controller's image, which npm run rollback takes back with the home.", true),
      resources: resources("Requests and limits of restic.", usualResources),
      ssh: maybe("Login at SFTP repositories.", {
        privateKey: text("Private key without passphrase, with --secret.", { is: { ...piece.privateKey, expected: "a private key without passphrase" }, example: "-----BEGIN OPENSSH PRIVATE KEY-----", secret: true, required: true }),
        knownHosts: text("Lines of known_hosts; no other host is trusted.", { is: { expected: "the lines of known_hosts for the SFTP server, as ssh-keyscan prints them" }, example: "backup.example.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAID0FkgLfwsVeMvwmoBSaRh3QKEaRbUmKS+aOnOX/gLw5", required: true }),
      }),
      standby: maybe("A second volume on another node that follows the snapshots: npm run failover starts Jenkins on it.", {
        node: text("Node that it is made on, another one than the home's.", { is: piece.domainOrName("the name of a node, as kubectl get nodes lists it"), example: "worker-2", required: true }),
        everyMinutes: maybeInteger("Minutes between two snapshots, in place of schedule: what is built in them is lost with the home's node.", { least: 1, most: 60, usual: 5 }, "as schedule says"),
      }),
      startFrom: text("Snapshot that an empty home is filled from before Jenkins starts: latest, or its id.", { is: { expected: "latest, or the id of a snapshot as npm run backups lists it", pattern: /^(latest|[0-9a-f]{8,64})$/ }, example: "latest", default: "" }),
    },
    { emptyIsNone: true },
  ),
};

const rest = {
  patches: list("Changes of single objects that no key has, each a JSON merge patch.", {
    target: section("Which objects; of kind Pod also the agents' pods, by the name of their template.", {
      kind: text("Kind of the objects.", { is: { expected: "a kind of object such as Deployment", pattern: /^[A-Z][A-Za-z]+$/ }, example: "Deployment", required: true }),
      name: text("Name of one object.", { is: { expected: "the name of an object" }, example: "jenkins", defaultText: "every one of the kind" }),
      namespace: text("Its namespace.", { is: piece.name("a namespace"), example: "jenkins", defaultText: "every one" }),
    }),
    patch: anything("What is merged over the object: null removes a key, and entries of lists that Kubernetes joins by a key, such as containers by name, are merged one by one.", { spec: { template: { spec: { hostAliases: [{ ip: "192.0.2.1", hostnames: ["git.example.com"] }] } } } }),
  }),
};

/** The keys by area, for people to read. */
export const areas = { "Address and cluster": place, Storage: storage, "Node ports": nodePorts, Network: network, Images: images, Agents: agents, Controller: controller, People: people, Monitoring: monitoring, Backup: backup, "Anything else": rest };

export const schema = z.strictObject({ ...place, ...storage, ...nodePorts, ...network, ...images, ...agents, ...controller, ...people, ...monitoring, ...backup, ...rest });

/** What a stack file says, the defaults filled in. */
export type Settings = z.infer<typeof schema>;

