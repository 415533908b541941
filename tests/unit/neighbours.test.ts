import * as fc from "fast-check";
import { nodePortsLabel, ownerLabel, partOf, stackLabel } from "../../components/ownership";
import { ownPriorities } from "../../components/jenkins-master";
import { parseConfig, type PlatformConfig } from "../../config";
import { neighbourPaths, neighbourProblems, servedRange, type Neighbourhood } from "../../checks/neighbours";
import { environment, stackConfig } from "./mocks";

const parse = (further: Record<string, unknown>): PlatformConfig => {
  const { config, problems } = parseConfig({ ...stackConfig("sandbox"), ...further }, environment);
  expect(problems).toEqual([]);
  return config;
};
const first = parse({});
const beside = { domain: "b.example.com", namespace: "team-b", storageClass: "team-b", storageInstall: "class", nodePortRange: "none", controlPlane: {}, ingress: { install: false } };
const second = parse(beside);

const object = (name: string, labels: Record<string, string> = {}, namespace?: string) => ({ metadata: { name, labels, ...(namespace && { namespace }) } });
const made = (stack: string | undefined, further: Record<string, string> = {}) => ({ ...partOf, ...(stack && { [ownerLabel]: stack }), ...further });

/** What an environment with the given config leaves in the cluster. */
function cluster(config: PlatformConfig, stack: string | undefined): Required<Neighbourhood> {
  const { namespaces, storage, ingress } = config;
  const installed = <T>(objects: T[]) => (ingress.install ? objects : []);
  return {
    namespaces: [
      object(namespaces.jenkins, made(stack, { "app.kubernetes.io/name": "jenkins", ...(config.nodePorts && { [nodePortsLabel]: "owner" }) })),
      object(namespaces.agents, made(stack, { "app.kubernetes.io/name": "jenkins" })),
      ...(storage.install === "provisioner" ? [object("openebs", made(stack))] : []),
      ...installed([object(ingress.namespace, made(stack))]),
      ...(config.imageRegistry ? [object(config.imageRegistry.namespace, made(stack)), object(config.imageRegistry.nodesNamespace, made(stack))] : []),
      object("kube-system"),
    ],
    storageClasses: storage.install === "none" ? [] : [{ ...object(storage.className, made(stack)), provisioner: "openebs.io/local" }],
    priorityClasses: [],
    ingressClasses: installed([object(ingress.className, made(stack))]),
    ingresses: [{ ...object("jenkins", partOf, namespaces.jenkins), spec: { rules: [{ host: config.domain }] } }],
    services: installed([{ ...object("ingress-nginx-controller", partOf, ingress.namespace), spec: { ports: [{ nodePort: ingress.httpNodePort }, { nodePort: ingress.httpsNodePort }] } }]),
    caches: [{ ...object("agent-cache", partOf, namespaces.agents), spec: { template: { spec: { volumes: [{ hostPath: { path: config.agentCache!.path } }] } } } }],
    registries: config.imageRegistry ? [{ ...object("image-registry-node", made(stack), config.imageRegistry.nodesNamespace), spec: { template: { spec: { containers: [{ ports: [{ hostPort: config.imageRegistry.port }] }] } } } }] : [],
    volumes: [],
    nodes: [],
    apiServers: [{ ...object("kube-apiserver-cp-1", {}, "kube-system"), spec: { nodeName: "cp-1", containers: [{ command: ["kube-apiserver", ...(config.nodePorts ? [`--service-node-port-range=${config.nodePorts.range}`] : [])] }] } }],
  };
}

/** Two clusters' objects in one. */
const both = (a: Required<Neighbourhood>, b: Required<Neighbourhood>): Required<Neighbourhood> =>
  Object.fromEntries(Object.entries(a).map(([what, list]) => [what, [...list, ...(what === "apiServers" ? [] : b[what as keyof Neighbourhood])]])) as Required<Neighbourhood>;
const empty: Neighbourhood = { namespaces: [], storageClasses: [], ingressClasses: [], ingresses: [], services: [], caches: [], volumes: [], apiServers: [] };
const keysOf = (config: PlatformConfig, stack: string, seen: Neighbourhood) => neighbourProblems(config, stack, seen).map(({ key }) => key);

test("registries of two environments have namespaces and ports of their own; one port for both is told", () => {
  const own = (further: Record<string, unknown>) => parse({ registry: {}, imageBuild: {}, ...further });
  const there = cluster(own({}), "a");
  const mine = own({ ...beside, registry: {}, imageBuild: {} });
  expect(keysOf(mine, "b", there)).toEqual([]);
  expect(keysOf(own({}), "a", there)).toEqual([]);
  const clash = own({ ...beside, registry: { port: 61500 }, imageBuild: {} });
  expect(neighbourProblems(clash, "b", there)).toEqual([expect.objectContaining({ key: "registry.port", found: "61500, which DaemonSet image-pulls/image-registry-node has on every node", fix: "pulumi config set --path registry.port 61501" })]);
  expect(neighbourProblems(own({}), "b", { ...empty, namespaces: [object("image-registry", made("a"))] })).toEqual([expect.objectContaining({ key: "namespace", found: "Namespace image-registry of stack a" })]);
});

test("a PriorityClass of somebody else's by the name of one's own is told; one that is not made is nobody's matter", () => {
  const seen = { ...empty, priorityClasses: [object("jenkins-agents"), object("jenkins-controller", made("other"))] };
  expect(neighbourProblems(first, "a", seen)).toEqual([expect.objectContaining({ key: "namespace", found: "PriorityClass jenkins-controller of stack other, PriorityClass jenkins-agents of somebody else", fix: expect.stringContaining("kubectl delete priorityclass jenkins-agents") })]);
  expect(neighbourProblems(first, "a", { ...empty, priorityClasses: Object.values(ownPriorities({ controller: "jenkins", agents: "jenkins-agents" })).map((name) => object(name, made("a"))) })).toEqual([]);
  // With the namespaces in one line, so that a stack that was renamed is told once how to keep what it has.
  const [renamed] = neighbourProblems(first, "a", { ...cluster(first, "was"), priorityClasses: [object("jenkins-controller", made("was"))] });
  expect(renamed).toMatchObject({ key: "namespace", found: expect.stringMatching(/^Namespace jenkins .*PriorityClass jenkins-controller of stack was$/), fix: expect.stringContaining("&& kubectl label priorityclass/jenkins-controller build-platform/stack=a --overwrite") });
  const given = parse({ controller: { priorityClassName: "platform" } });
  expect(neighbourProblems(given, "a", seen)).toEqual([expect.objectContaining({ found: "PriorityClass jenkins-agents of somebody else" })]);
});

test("nodes that none of the images runs on, and a cluster that does not say for what it builds, are told before anything is made", () => {
  const nodes = (...architectures: string[]) => ({ ...empty, nodes: architectures.map((architecture, i) => ({ ...object(`n${i}`), status: { nodeInfo: { architecture } } })) });
  const of = (imageBuild: object, ...architectures: string[]) => neighbourProblems({ ...first, imageBuild: { ...first.imageBuild, ...imageBuild } }, "a", nodes(...architectures)).map(({ key, found, fix }) => [key, found, fix]);
  const arm = { builder: "buildah", platforms: ["linux/arm64"] };
  expect(of(arm, "amd64", "amd64")).toEqual([["imageBuild.platforms", "images for arm64, while the nodes are amd64", "pulumi config set --path 'imageBuild.platforms[0]' linux/amd64"]]);
  expect(of(arm, "amd64", "arm64")).toEqual([]);
  expect(of(arm)).toEqual([]);
  const cluster = { builder: "in-cluster", platforms: [] };
  expect(of(cluster, "arm64", "amd64")).toEqual([["imageBuild.platforms", "none, while the nodes are amd64 and arm64", "pulumi config set --path 'imageBuild.platforms[0]' linux/amd64"]]);
  expect(of(cluster, "arm64", "arm64")).toEqual([]);
  expect(of({ ...cluster, platforms: ["linux/arm64"] }, "arm64", "amd64")).toEqual([]);
});

test("a class of somebody else's that keeps volumes is no place for copies that are restored again and again", () => {
  const copies = (reclaimPolicy: string) => neighbourProblems({ ...first, backup: { ...first.backup, verifyVolume: { storageClassName: "fast", size: "1Gi" } } as PlatformConfig["backup"] }, "a", { ...empty, storageClasses: [{ ...object("fast"), reclaimPolicy }] });
  expect(copies("Retain")).toEqual([expect.objectContaining({ key: "backup.verifyVolume.storageClass", found: "fast, whose reclaimPolicy is Retain" })]);
  expect(copies("Delete")).toEqual([]);
});

describe("no problem", () => {
  test("on an empty cluster, on one's own, or where nothing could be read", () => {
    expect(neighbourProblems(first, "a", empty)).toEqual([]);
    expect(neighbourProblems(first, "a", {})).toEqual([]);
    expect(neighbourProblems(second, "b", {})).toEqual([]);
    expect(neighbourProblems(first, "a", cluster(first, "a"))).toEqual([]);
  });

  test("for an environment from before objects bore a stack's name", () => {
    expect(neighbourProblems(first, "a", cluster(first, undefined))).toEqual([]);
  });

  test("for two that share node ports, ingress and provisioner, in either order of first arrival", () => {
    expect(neighbourProblems(second, "b", cluster(first, "a"))).toEqual([]);
    const all = both(cluster(first, "a"), cluster(second, "b"));
    expect(neighbourProblems(first, "a", all)).toEqual([]);
    expect(neighbourProblems(second, "b", all)).toEqual([]);
  });

  test("for one with an ingress of its own on other ports of the range", () => {
    const own = parse({ ...beside, ingress: { namespace: "edge", className: "edge", httpNodePort: 8080, httpsNodePort: 8443 } });
    const all = both(cluster(first, "a"), cluster(own, "b"));
    expect(neighbourProblems(own, "b", cluster(first, "a"))).toEqual([]);
    expect(neighbourProblems(own, "b", all)).toEqual([]);
    expect(neighbourProblems(first, "a", all)).toEqual([]);
  });
});

test("the same config under another stack's name is refused key by key, each with whose it is and what to do", () => {
  const problems = neighbourProblems(first, "b", cluster(first, "a"));
  expect(problems.map(({ key }) => key)).toEqual(["namespace", "storageInstall", "storageClass", "ingress.controller", "ingress.className", "nodePortRange"]);
  expect(problems[0]).toMatchObject({ found: "Namespace jenkins of stack a, Namespace jenkins-agents of stack a", fix: expect.stringContaining("pulumi config set namespace jenkins-b;") });
  // A stack that was renamed is told how to keep what it has.
  expect(problems[0].fix).toContain("kubectl label namespace/jenkins build-platform/stack=b --overwrite && kubectl label namespace/jenkins-agents");
  expect(problems[1].fix).toContain("config set storageInstall class");
  expect(problems[3].fix).toContain("ingress.controller none");
  expect(problems[5]).toMatchObject({ found: "80-32767, while stack a (namespace jenkins) sets the range of this cluster", fix: expect.stringContaining("config set nodePortRange none") });
});

test("an environment from before objects bore a stack's name is not taken for one's own by another namespace", () => {
  const other = parse({ ...beside, storageInstall: "provisioner" });
  expect(neighbourProblems(other, "b", cluster(first, undefined))).toEqual([expect.objectContaining({ key: "storageInstall", found: "Namespace openebs of another environment" })]);
});

test("what is not the platform's is somebody else's, and nobody is told to relabel it", () => {
  const problems = neighbourProblems(first, "a", { ...empty, storageClasses: [{ ...object("openebs-hostpath"), provisioner: "openebs.io/local" }], ingressClasses: [object("nginx", { "app.kubernetes.io/part-of": "ingress-nginx" })] });
  expect(problems.map(({ key, found }) => [key, found])).toEqual([["storageClass", "StorageClass openebs-hostpath of somebody else"], ["ingress.className", "IngressClass nginx of somebody else"]]);
  expect(JSON.stringify(problems)).not.toContain("kubectl label");
});

test("a stack's own controller goes with its class: another's way in is none, and a move of it is not told to share it", () => {
  // Also one from before objects bore a stack's name.
  for (const label of ["a", undefined])
    expect(neighbourProblems(parse({ ingress: { controller: "none" } }), "a", cluster(first, label))).toEqual([
      expect.objectContaining({ key: "ingress.className", found: "nginx, this stack's own, which goes with its controller", expected: expect.stringContaining("(there is none)") }),
    ]);
  const moved = neighbourProblems(parse({ ingress: { namespace: "edge" } }), "a", cluster(first, "a"));
  expect(moved.map(({ key, fix }) => [key, fix])).toEqual(["ingress.httpNodePort", "ingress.httpsNodePort"].map((key) => [key, `pulumi config set --path ingress.namespace ingress-nginx, where it is now, or another ${key}`]));
});

test.each<[string, Record<string, unknown>, (seen: Required<Neighbourhood>) => void, string[], RegExp]>([
  ["one host name", { domain: first.domain }, () => undefined, ["domain"], /jenkins\.sandbox\.test, which Ingress jenkins\/jenkins serves already/],
  ["the ports of another's ingress", { ingress: { namespace: "edge", className: "edge" } }, () => undefined, ["ingress.httpNodePort", "ingress.httpsNodePort"], /^80, which Service ingress-nginx\/ingress-nginx-controller of stack a holds$/],
  ["one cache folder", { agentCache: { path: "/var/cache/build-platform" } }, () => undefined, ["agentCache.path"], /DaemonSet jenkins-agents\/agent-cache keeps/],
  ["a class without a provisioner", {}, (seen) => (seen.storageClasses = []), ["storageInstall"], /no other StorageClass of openebs\.io\/local/],
  ["a class that is missing", { storageInstall: "none" }, () => undefined, ["storageClass"], /^team-b$/],
  ["an ingress class that is missing", { ingress: { install: false, className: "traefik" } }, () => undefined, ["ingress.className"], /^traefik$/],
  ["agents' namespace of another as its own", { namespace: "jenkins-agents" }, () => undefined, ["namespace"], /^Namespace jenkins-agents of stack a$/],
  ["a range that no environment widened", { ingress: { namespace: "edge", className: "edge", httpNodePort: 8080, httpsNodePort: 8443 } }, (seen) => (seen.apiServers[0].spec.containers[0].command = ["kube-apiserver"]), ["nodePortRange"], /API server on cp-1 allows 30000-32767, without 8080 and 8443/],
])("%s", (_, further, change, keys, found) => {
  const seen = cluster(first, "a");
  change(seen);
  const problems = neighbourProblems(parse({ ...beside, ...further }), "b", seen);
  expect(problems.map(({ key }) => key)).toEqual(keys);
  expect(problems[0].found).toMatch(found);
  for (const { fix, expected } of problems) expect([fix, expected]).not.toContain("");
});

test("every control-plane node that serves is in the config; one that is down is not missed", () => {
  const apiServer = (nodeName: string, status: string) => ({ ...object(`kube-apiserver-${nodeName}`, {}, "kube-system"), spec: { nodeName, containers: [] }, status: { conditions: [{ type: "Ready", status }] } });
  const seen = (second: string): Neighbourhood => ({ ...empty, apiServers: [apiServer("cp-2", second), apiServer("cp-1", "True")] });
  expect(neighbourProblems(first, "a", seen("True"))).toEqual([expect.objectContaining({ key: "controlPlane.nodes", found: "control-plane-1, while API servers run on cp-1, cp-2" })]);
  expect(neighbourProblems(first, "a", seen("False"))).toEqual([]);
  expect(neighbourProblems(parse(beside), "b", { ...cluster(first, "a"), apiServers: seen("True").apiServers })).toEqual([]);
});

test("a folder of backups is one environment's", () => {
  const backup = { repository: "/mnt/backup/", password: "p", keysRepository: "/mnt/keys", keysPassword: "q" };
  const { config } = parseConfig({ ...stackConfig("sandbox"), ...beside, backup }, { ...environment, isSecret: (key) => key === "backup" });
  const volumes = [{ ...object("jenkins-backup-repository", made("a")), spec: { hostPath: { path: "/mnt/backup" }, claimRef: { namespace: "jenkins" } } }];
  expect(neighbourProblems(config, "b", { ...cluster(first, "a"), volumes })).toEqual([expect.objectContaining({ key: "backup.repository", found: "/mnt/backup/, where namespace jenkins keeps its backups" })]);
  expect(neighbourProblems({ ...config, namespaces: first.namespaces }, "a", { ...empty, volumes })).not.toContainEqual(expect.objectContaining({ key: "backup.repository" }));
});

test("a node port is another's whoever made its Service, and the API server is asked for all of them", () => {
  const own = parse({ ...beside, ingress: { namespace: "edge", className: "edge", httpNodePort: 8080, httpsNodePort: 8443 } });
  const seen = cluster(first, "a");
  seen.namespaces.push(object("shop"));
  seen.services.push({ ...object("web", {}, "shop"), spec: { ports: [{ nodePort: 8080 }] } });
  expect(neighbourProblems(own, "b", seen)).toEqual([expect.objectContaining({ key: "ingress.httpNodePort", found: "8080, which Service shop/web of somebody else holds" })]);
  expect(neighbourPaths.services).toBe("/api/v1/services");
});

test("further hosts and the port of agents are another's as the domain and the ports of the ingress are", () => {
  const own = parse({ ...beside, ingress: { install: false, hosts: [{ name: "shop.example.com" }] }, controller: { agentNodePort: 31500 } });
  const seen = cluster(first, "a");
  seen.namespaces.push(object("shop"));
  seen.services.push({ ...object("web", {}, "shop"), spec: { ports: [{ nodePort: 31500 }] } });
  seen.ingresses.push({ ...object("web", {}, "shop"), spec: { rules: [{ host: "shop.example.com", http: { paths: [{ path: "/" }] } }] } });
  expect(neighbourProblems(own, "b", seen).map(({ key, found }) => [key, found])).toEqual([
    ["controller.agentNodePort", "31500, which Service shop/web of somebody else holds"],
    ["ingress.hosts[0].name", "shop.example.com, which Ingress shop/web serves already"],
  ]);
  // A root stack and one below a path leave room for each other, whichever comes first.
  const rooted = (path: string) => ({ ...seen, services: [], ingresses: [{ ...object("web", {}, "shop"), spec: { rules: [{ host: "shop.example.com", http: { paths: [{ path }] } }] } }] });
  expect(neighbourProblems(own, "b", rooted("/ci"))).toEqual([]);
  // Below a path others may have the rest of the host.
  const below = parse({ ...beside, ingress: { install: false, externalUrl: "https://b.example.com/ci", hosts: [{ name: "shop.example.com" }] } });
  expect(neighbourProblems(below, "b", { ...seen, services: [] })).toEqual([]);
  expect(neighbourProblems(below, "b", rooted("/ci")).map(({ key }) => key)).toEqual(["ingress.hosts[0].name"]);
});

test("a home is not left behind by another namespace in config", () => {
  const moved = parse({ ...beside, namespace: "team-c" });
  const seen = both(cluster(first, "a"), cluster(second, "b"));
  expect(neighbourProblems(moved, "b", seen)).toContainEqual(expect.objectContaining({ key: "namespace", found: "team-c, while namespace team-b is this stack's", fix: expect.stringContaining("config set namespace team-b;") }));
  // One that is on its way out holds nothing any more.
  const gone = { ...seen, namespaces: seen.namespaces.map((each) => ({ metadata: { ...each.metadata, ...(each.metadata.name.startsWith("team-b") && { deletionTimestamp: "2026-01-01T00:00:00Z" }) } })) };
  expect(keysOf(moved, "b", gone)).not.toContain("namespace");
});

test("who sets the range and needs it for its ingress does not give it up unawares", () => {
  const seen = cluster(first, "a");
  const without = parse({ nodePortRange: "none", controlPlane: {} });
  expect(neighbourProblems(without, "a", seen)).toEqual([expect.objectContaining({ key: "nodePortRange", found: "none, while the API server on cp-1 goes back to 30000-32767, without 80 and 443 of the ingress" })]);
  expect(neighbourProblems(parse({ nodePortRange: "none", controlPlane: {}, ingress: { httpNodePort: 30080, httpsNodePort: 30443 } }), "a", seen)).toEqual([]);
});

test("where a class is missing and another environment runs the provisioner, a class of one's own is the way, not a second provisioner", () => {
  const wanted = { ...beside, storageInstall: "none" };
  expect(neighbourProblems(parse(wanted), "b", cluster(first, "a"))[0].fix).toContain("storageInstall class");
  expect(neighbourProblems(parse(wanted), "b", { ...cluster(first, "a"), storageClasses: [] })[0].fix).toContain("storageInstall provisioner");
});

test("the served range is the last that the command line names", () => {
  const pod = (...args: string[]) => ({ spec: { containers: [{ command: ["kube-apiserver"], args }] } });
  expect(servedRange(pod())).toBeUndefined();
  expect(servedRange(pod("--service-node-port-range=1-2", "--service-node-port-range=80-32767"))).toBe("80-32767");
});

describe("a stack's name as a label", () => {
  test("is itself where it fits, always a valid value, and another one for another stack", () => {
    const valid = /^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/;
    fc.assert(
      fc.property(fc.string({ minLength: 1, maxLength: 100 }), fc.stringMatching(/^[A-Za-z0-9_.-]{1,100}$/), (any, stack) => {
        for (const name of [any, stack]) {
          expect(stackLabel(name)).toMatch(valid);
          if (valid.test(name)) expect(stackLabel(name)).toBe(name);
        }
        expect(stackLabel(any) === stackLabel(stack)).toBe(any === stack);
      }),
    );
  });
});
