/**
 * Which keys JCasC documents may hold where the kubernetes plugin reads them, and a check that names each key that is wrong.
 * Keys as in https://github.com/jenkinsci/kubernetes-plugin (KubernetesCloud, PodTemplate, ContainerTemplate) at the version of
 * images/controller/plugins.txt. The component checks a site's documents with it before anything is created, the sandbox's
 * stand-in for the plugin before it takes them.
 */
import { parseDocument } from "yaml";

/** A value of a YAML document. */
export type Value = string | number | boolean | null | Value[] | { [key: string]: Value };
/** One pod template or cloud after the check: known keys only, of the kinds above. */
export type Keys = { [key: string]: Value };

/** What a schema position may hold: a scalar, a list of one kind, an object, one-of by single key, or anything. */
export type Kind = "string" | "int" | "bool" | "any" | { list: Kind } | { object: Record<string, Kind> } | { symbol: Record<string, Kind> };

const KEY_VALUE: Kind = { object: { key: "string", value: "string" } };
const RETENTION: Kind = { symbol: { never: { object: {} }, always: { object: {} }, onFailure: { object: {} }, evicted: { object: {} }, default: { object: {} } } };
const ENV_VARS: Kind = {
  list: {
    symbol: {
      envVar: { object: { key: "string", value: "string" } },
      secretEnvVar: { object: { key: "string", secretName: "string", secretKey: "string", optional: "bool" } },
    },
  },
};
const DYNAMIC_PVC: Kind = { object: { storageClassName: "string", requestsSize: "string", accessModes: "string" } };

const CONTAINER: Kind = {
  object: {
    name: "string", image: "string", command: "string", args: "string", workingDir: "string", ttyEnabled: "bool",
    alwaysPullImage: "bool", privileged: "bool", runAsUser: "string", runAsGroup: "string", envVars: ENV_VARS,
    ports: { list: { object: { name: "string", containerPort: "int", hostPort: "int" } } },
    livenessProbe: "any", shell: "string",
    resourceRequestCpu: "string", resourceRequestMemory: "string", resourceRequestEphemeralStorage: "string",
    resourceLimitCpu: "string", resourceLimitMemory: "string", resourceLimitEphemeralStorage: "string",
  },
};

const TEMPLATE: Kind = {
  object: {
    id: "string", name: "string", namespace: "string", label: "string", nodeUsageMode: "string", inheritFrom: "string",
    containers: { list: CONTAINER }, envVars: ENV_VARS, annotations: { list: KEY_VALUE }, imagePullSecrets: { list: { object: { name: "string" } } },
    volumes: {
      list: {
        symbol: {
          hostPathVolume: { object: { hostPath: "string", mountPath: "string", readOnly: "bool" } },
          emptyDirVolume: { object: { mountPath: "string", memory: "bool" } },
          persistentVolumeClaim: { object: { claimName: "string", mountPath: "string", readOnly: "bool" } },
          secretVolume: { object: { secretName: "string", mountPath: "string", defaultMode: "string", optional: "bool" } },
          configMapVolume: { object: { configMapName: "string", mountPath: "string", subPath: "string", optional: "bool" } },
          nfsVolume: { object: { serverAddress: "string", serverPath: "string", mountPath: "string", readOnly: "bool" } },
        },
      },
    },
    workspaceVolume: {
      symbol: {
        emptyDirWorkspaceVolume: { object: { memory: "bool" } },
        hostPathWorkspaceVolume: { object: { hostPath: "string" } },
        persistentVolumeClaimWorkspaceVolume: { object: { claimName: "string", readOnly: "bool" } },
        dynamicPVC: DYNAMIC_PVC, genericEphemeralVolume: DYNAMIC_PVC,
      },
    },
    serviceAccount: "string", nodeSelector: "string", hostNetwork: "bool", schedulerName: "string",
    runAsUser: "string", runAsGroup: "string", supplementalGroups: "string",
    slaveConnectTimeout: "int", slaveConnectTimeoutStr: "int", activeDeadlineSeconds: "int", activeDeadlineSecondsStr: "int",
    idleMinutes: "int", idleMinutesStr: "int", instanceCap: "int", instanceCapStr: "int", podRetention: RETENTION,
    yaml: "string", yamls: { list: "string" }, yamlMergeStrategy: "any", inheritYamlMergeStrategy: "bool", showRawYaml: "bool",
    agentContainer: "string", agentInjection: "bool", nodeProperties: "any",
  },
};

/** One Kubernetes cloud: `jenkins.clouds[].kubernetes`. */
export const CLOUD: Kind = {
  object: {
    name: "string", serverUrl: "string", serverCertificate: "string", skipTlsVerify: "bool", namespace: "string", credentialsId: "string",
    jenkinsUrl: "string", jenkinsTunnel: "string", webSocket: "bool", directConnection: "bool", useJenkinsProxy: "bool", jnlpregistry: "string",
    addMasterProxyEnvVars: "bool", capOnlyOnAlivePods: "bool", containerCap: "int", containerCapStr: "int",
    maxRequestsPerHost: "int", maxRequestsPerHostStr: "int", connectTimeout: "int", readTimeout: "int", retentionTimeout: "int", waitForPodSec: "int",
    podRetention: RETENTION, podLabels: { list: KEY_VALUE }, restrictedPssSecurityContext: "bool", usageRestricted: "bool", defaultsProviderTemplate: "string",
    garbageCollection: { object: { namespaces: "string", timeout: "int" } }, templates: { list: TEMPLATE },
  },
};

/** Whether a value is a map. */
export function isObject(value: Value): value is { [key: string]: Value } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * Checks a value against its kind and gives it back with scalars of the right type. With `references`, a text that holds a
 * reference such as ${name} stands for a scalar of any kind: it gets its value only in Jenkins.
 */
export function check(value: Value, kind: Kind, at: string, problems: string[], references = false): Value {
  const refuse = (expected: string): Value => {
    problems.push(`${at || "document"}: ${expected} is expected, found ${value === null ? "nothing" : Array.isArray(value) ? "a list" : typeof value === "object" ? "a map" : `"${String(value)}"`}`);
    return value;
  };
  if (kind === "any" || (references && typeof value === "string" && value.includes("${"))) return value;
  if (kind === "string") return value === null ? "" : typeof value === "object" ? refuse("a text") : String(value);
  if (kind === "int") {
    if (typeof value === "number" && Number.isInteger(value)) return value;
    return typeof value === "string" && /^-?\d+$/.test(value) ? Number(value) : refuse("a whole number");
  }
  if (kind === "bool") return typeof value === "boolean" ? value : value === "true" || value === "false" ? value === "true" : refuse("true or false");
  if ("list" in kind) {
    if (value === null) return [];
    return Array.isArray(value) ? value.map((item, i) => check(item, kind.list, `${at}[${i}]`, problems, references)) : refuse("a list");
  }
  if ("symbol" in kind) {
    // A symbol without settings may be written as a plain word.
    const given: Value = typeof value === "string" ? { [value]: {} } : value;
    if (!isObject(given) || Object.keys(given).length !== 1) return refuse(`one of ${Object.keys(kind.symbol).join(", ")}`);
    const [name] = Object.keys(given);
    if (!(name in kind.symbol)) {
      problems.push(`${at}.${name}: not known; known are ${Object.keys(kind.symbol).join(", ")}`);
      return value;
    }
    return { [name]: check(given[name] ?? {}, kind.symbol[name], `${at}.${name}`, problems, references) };
  }
  if (!isObject(value)) return value === null ? {} : refuse("a map");
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => {
      const where = at ? `${at}.${key}` : key;
      if (!Object.hasOwn(kind.object, key)) {
        problems.push(`${where}: not known; known are ${Object.keys(kind.object).join(", ")}`);
        return [key, item];
      }
      return [key, check(item, kind.object[key], where, problems, references)];
    }),
  );
}

/** What is wrong with a cloud whose keys are all known: templates without name, unknown parents, broken YAML, a tunnel that is none. */
export function cloudProblems(cloud: Keys, at: string): string[] {
  const problems: string[] = [];
  const templates = (cloud.templates ?? []) as Keys[];
  const names = new Set(templates.map((t) => t.name));
  const tunnel = cloud.jenkinsTunnel as string | undefined;
  if (tunnel && !tunnel.includes("${") && !/^[^/:]+:\d+$/.test(tunnel)) problems.push(`${at}.jenkinsTunnel: "${tunnel}" is not host:port`);
  templates.forEach((template, i) => {
    const here = `${at}.templates[${i}]`;
    if (!template.name) problems.push(`${here}.name: is missing`);
    if (template.inheritFrom && !names.has(template.inheritFrom)) problems.push(`${here}.inheritFrom: there is no template ${String(template.inheritFrom)}`);
    ((template.containers ?? []) as Keys[]).forEach((container, j) => {
      if (!container.name) problems.push(`${here}.containers[${j}].name: is missing`);
    });
    for (const yaml of [template.yaml, ...((template.yamls ?? []) as Value[])]) {
      if (!yaml) continue;
      const parsed = parseDocument(yaml as string);
      if (parsed.errors.length > 0) problems.push(`${here}.yaml: ${parsed.errors[0].message.split("\n")[0]}`);
    }
  });
  return problems;
}
