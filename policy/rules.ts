import { parse } from "yaml";
import upstream from "../images/upstream.json";

/**
 * The platform's rules, as pure functions over resources. policy/index.ts hands them to the Pulumi engine; the tests
 * run them over the rendered objects of every stack file.
 */

/** A resource as the program registers it. */
export interface PolicyResource {
  /** Type token, such as kubernetes:apps/v1:Deployment. */
  type: string;
  name: string;
  /** Inputs. Secrets may stand in them as they are or as a placeholder. */
  // `any`: the shape belongs to the type token, of which the rules know only the parts they look at.
  props: Record<string, any>;
  /** Whether Pulumi refuses to delete it. */
  protect: boolean;
}

/** One rule over single resources. */
export interface Rule {
  name: string;
  description: string;
  /** `advisory` warns, `mandatory` stops the update. */
  level: "advisory" | "mandatory";
  /** What is wrong with the resource and what to do about it, one text per finding; empty if nothing is. */
  check(resource: PolicyResource, stack: string): string[];
}

/** The throwaway cluster's stack: images by tag of stand-ins, plain HTTP, a home volume nobody needs. */
export const sandboxStack = "sandbox";

interface Container {
  name: string;
  image?: string;
  command?: string[];
  args?: string[];
  env?: { name: string; value?: string }[];
  resources?: { limits?: { memory?: string } };
  securityContext?: { privileged?: boolean; allowPrivilegeEscalation?: boolean };
}
interface PodSpec {
  containers?: Container[];
  initContainers?: Container[];
  hostNetwork?: boolean;
  hostPID?: boolean;
  hostIPC?: boolean;
}
/** A pod that the resource brings about, directly or through Jenkins. */
interface Pod {
  /** For messages: the kind of pod. */
  what: string;
  agent: boolean;
  spec: PodSpec;
  /** What leads nodes to the stack's own registry, by which container runtimes find it without being told: by its name, in the namespace that holds nothing else. */
  registryNode?: boolean;
}

/** The pods of Jenkins' pod templates inside a JCasC document. */
function agentPods(casc: string): Pod[] {
  const clouds = parse(casc)?.jenkins?.clouds ?? [];
  // `any`: JCasC has no types here.
  const templates = clouds.flatMap((cloud: any) => cloud.kubernetes?.templates ?? []);
  return templates.map((template: any) => ({ what: `agent template ${template.name}`, agent: true, spec: parse(template.yaml ?? "")?.spec ?? {} }));
}

/** Every pod of a workload or of a JCasC document in a ConfigMap. */
function podsOf({ type, props }: PolicyResource): Pod[] {
  const kind = type.split(":")[2];
  switch (kind) {
    case "Pod":
      return [{ what: "pod", agent: false, spec: props.spec ?? {} }];
    case "DaemonSet":
    case "Deployment":
    case "StatefulSet":
    case "ReplicaSet":
    case "Job":
      return [{ what: "pod", agent: false, spec: props.spec?.template?.spec ?? {}, registryNode: kind === "DaemonSet" && props.metadata?.name === "image-registry-node" && /^([a-z0-9-]+-)?image-pulls$/.test(props.metadata?.namespace ?? "") }];
    case "CronJob":
      return [{ what: "pod", agent: false, spec: props.spec?.jobTemplate?.spec?.template?.spec ?? {} }];
    case "ConfigMap":
      return props.metadata?.name === "jenkins-casc" ? Object.values<string>(props.data ?? {}).flatMap(agentPods) : [];
    default:
      return [];
  }
}

const containersOf = (pod: Pod): Container[] => [...(pod.spec.initContainers ?? []), ...(pod.spec.containers ?? [])];

/** Runs a check on every container of a resource and names the container in each finding. */
function eachContainer(resource: PolicyResource, check: (container: Container, pod: Pod) => string | undefined): string[] {
  return podsOf(resource).flatMap((pod) =>
    containersOf(pod).flatMap((container) => {
      const found = check(container, pod);
      return found === undefined ? [] : [`${pod.what}, container ${container.name}: ${found}`];
    }),
  );
}

/** References without digest that images/upstream.json says cannot be pinned yet. */
const unpinned = new Set(Object.values(upstream).flatMap((pin) => ("digest" in pin ? [] : [`${pin.image}:${pin.tag}`])));

/** Repository and tag of a reference; a port of the registry is no tag. */
function splitReference(image: string): { repository: string; tag?: string; digest?: string } {
  const [named, digest] = image.split("@");
  const colon = named.lastIndexOf(":");
  return colon > named.lastIndexOf("/") ? { repository: named.slice(0, colon), tag: named.slice(colon + 1), digest } : { repository: named, digest };
}

/** Groups that everybody with a token, or nobody in particular, belongs to. */
const everybody = ["system:serviceaccounts", "system:authenticated", "system:unauthenticated", "system:masters"];

const secretName = /(PASSWORD|PASSWD|PASSPHRASE|TOKEN|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|SECRET)$/i;
const secretText = /-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bglpat-[\w-]{20}/;

/** A flag with a secret for its value, such as --password=x; one that names a variable is none. */
const secretFlag = /^(--?[\w-]*(?:password|passwd|passphrase|token|api-?key|access-?key|private-?key))=(?!\$)./i;

/** Where secrets stand in plain text in a container's command line; never the text itself. */
function secretWords(kind: string, words: string[] = []): string[] {
  return words.flatMap((word, i) => {
    const flag = secretFlag.exec(word)?.[1];
    if (flag !== undefined) return [`argument ${flag}`];
    return secretText.test(word) ? [`word ${i + 1} of the ${kind}`] : [];
  });
}

export const rules: Rule[] = [
  {
    name: "no-cluster-admin",
    description: "Nothing is bound to cluster-admin, to all verbs on everything, or to a group everybody is in.",
    level: "mandatory",
    check: ({ type, props }) => {
      if (type.endsWith(":ClusterRoleBinding") || type.endsWith(":RoleBinding")) {
        const findings: string[] = [];
        if (props.roleRef?.name === "cluster-admin") findings.push("binds cluster-admin; write a Role with the verbs that are needed");
        for (const subject of props.subjects ?? []) {
          const group = subject.kind === "Group" ? (subject.name as string) : "";
          if (everybody.includes(group) || group.startsWith("system:serviceaccounts:")) findings.push(`binds the group ${group}; bind the one service account that needs it`);
        }
        return findings;
      }
      if (type.endsWith(":ClusterRole") || type.endsWith(":Role")) {
        const all = (list?: string[]) => list?.includes("*") ?? false;
        return (props.rules ?? []).flatMap((rule: { verbs?: string[]; resources?: string[] }) =>
          all(rule.verbs) || all(rule.resources) ? [`grants ${rule.verbs?.join(",")} on ${rule.resources?.join(",") ?? "URLs"}; name the verbs and the resources`] : [],
        );
      }
      return [];
    },
  },
  {
    name: "no-privileged-container",
    description: "Only the container dind of agents is privileged, and no pod but the one that leads nodes to the stack's registry shares the node's network, none its processes or IPC.",
    level: "mandatory",
    check: (resource) => [
      ...podsOf(resource).flatMap((pod) =>
        (["hostNetwork", "hostPID", "hostIPC"] as const).flatMap((key) => (pod.spec[key] && !(key === "hostNetwork" && pod.registryNode) ? [`${pod.what} has ${key}; leave it out`] : [])),
      ),
      ...eachContainer(resource, (container, pod) =>
        container.securityContext?.privileged && !(pod.agent && container.name === "dind") ? "is privileged; only the container dind of agents may be" : undefined,
      ),
    ],
  },
  {
    name: "no-floating-tag",
    description: "Every image names a version: a tag other than latest, or a digest.",
    level: "mandatory",
    check: (resource) =>
      eachContainer(resource, ({ image = "" }) => {
        const { tag, digest } = splitReference(image);
        if (digest !== undefined || (tag !== undefined && tag !== "latest")) return undefined;
        return `image "${image}" ${tag === undefined ? "has no tag, which means latest" : "is latest"}; name a version`;
      }),
  },
  {
    name: "image-by-digest",
    description: "Every image is given by digest, outside the sandbox; those that images/upstream.json cannot pin yet are known.",
    level: "mandatory",
    check: (resource, stack) =>
      eachContainer(resource, ({ image = "" }) =>
        stack === sandboxStack || splitReference(image).digest !== undefined || unpinned.has(image)
          ? undefined
          : `image ${image} has no digest; give it as repository:tag@sha256:... (docker buildx imagetools inspect shows it)`,
      ),
  },
  {
    name: "upstream-digest-known",
    description: "images/upstream.json holds the digest of every image in use.",
    level: "advisory",
    check: (resource) => eachContainer(resource, ({ image = "" }) => (unpinned.has(image) ? `the digest of ${image} is not in images/upstream.json; run docker buildx imagetools inspect ${image} and add it` : undefined)),
  },
  {
    name: "memory-limit",
    description: "Every container has a memory limit: none can take the memory of a whole node.",
    level: "mandatory",
    check: (resource) => eachContainer(resource, ({ resources }) => (resources?.limits?.memory ? undefined : "has no limits.memory; set one")),
  },
  {
    name: "home-protected",
    description: "Pulumi refuses to delete jenkins_home, outside the sandbox.",
    level: "mandatory",
    check: ({ type, props, protect }, stack) =>
      type.endsWith(":PersistentVolumeClaim") && props.metadata?.name === "jenkins-home" && !protect && stack !== sandboxStack
        ? ["can be deleted with all jobs and builds; set protectHome to true"]
        : [],
  },
  {
    name: "ingress-tls",
    description: "Ingresses and HTTPRoutes speak HTTPS for every host, outside the sandbox.",
    level: "mandatory",
    check: ({ type, props }, stack) => {
      if (!/:(Ingress|HTTPRoute)$/.test(type) || stack === sandboxStack) return [];
      // Its host is a word of a probe's.
      if (props.metadata?.annotations?.["build-platform/asked-by"] === "kubelet") return [];
      // TLS ends before the ingress: ingress.externalUrl.
      if (String(props.metadata?.annotations?.["build-platform/external-url"]).startsWith("https:")) return [];
      // Of a Gateway's certificates its routes do not tell.
      if (type.endsWith(":HTTPRoute")) return (props.spec?.hostnames ?? ["*"]).map((host: string) => `serves ${host} over plain HTTP, as far as config says; set ingress.externalUrl to the https address of the Gateway`);
      const covered = new Set<string>((props.spec?.tls ?? []).flatMap((tls: { hosts?: string[] }) => tls.hosts ?? []));
      const bare = (props.spec?.rules ?? []).map((rule: { host?: string }) => rule.host ?? "*").filter((host: string) => !covered.has(host));
      return bare.map((host: string) => `serves ${host} over plain HTTP; set ingress.tlsSecret or ingress.clusterIssuer, or ingress.externalUrl where TLS ends before it`);
    },
  },
  {
    name: "no-secret-in-environment",
    description: "No container carries a password, token or key in its environment or arguments.",
    level: "mandatory",
    check: (resource) => [
      ...eachContainer(resource, ({ env, command, args }) => {
        const variables = (env ?? []).filter(({ name, value }) => value !== undefined && value !== "" && (secretName.test(name) || secretText.test(value)));
        const bare = [...variables.map(({ name }) => name), ...secretWords("command", command), ...secretWords("arguments", args)];
        return bare.length === 0 ? undefined : `${bare.join(", ")} hold${bare.length === 1 ? "s" : ""} a secret in plain text; refer to a Secret with valueFrom, or to a file of one`;
      }),
      ...(resource.type.endsWith(":ConfigMap") && Object.values<string>(resource.props.data ?? {}).some((text) => secretText.test(text))
        ? ["holds a private key or token; put it into a Secret"]
        : []),
    ],
  },
];

/** Keys of a config value that must be encrypted wherever they stand. */
const secretKey = /(password|passphrase|privateKey|token|secretKey|secretAccessKey)$/i;

/**
 * Secrets in plain text in the `config:` part of a stack file.
 * @param config the part as parsed YAML, keys with or without the project's name before them
 * @param secretKeys top-level keys the project's schema declares secret
 * @returns one text per finding, with the key's path and never the value
 */
export function plainSecrets(config: Record<string, unknown>, secretKeys: readonly string[] = []): string[] {
  const findings: string[] = [];
  const say = (path: string) => void findings.push(`${path} holds a secret in plain text; run: pulumi config set --secret${/[.[]/.test(path) ? " --path" : ""} '${path}' <value>`);
  const walk = (path: string, key: string, value: unknown, declared: boolean): void => {
    if (typeof value === "string") {
      if (value !== "" && (declared || secretKey.test(key) || secretText.test(value))) say(path);
    } else if (Array.isArray(value)) {
      value.forEach((item, i) => walk(`${path}[${i}]`, key, item, declared));
    } else if (typeof value === "object" && value !== null) {
      const entries = Object.entries(value);
      // { secure: ... } is how Pulumi writes an encrypted value.
      if (entries.length === 1 && entries[0][0] === "secure") return;
      for (const [inner, item] of entries) walk(`${path}.${inner}`, inner, item, declared);
    }
  };
  for (const [full, value] of Object.entries(config)) {
    const key = full.slice(full.indexOf(":") + 1);
    walk(key, key, value, secretKeys.includes(key));
  }
  return findings;
}
