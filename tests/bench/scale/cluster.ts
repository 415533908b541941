import { randomBytes, generateKeyPairSync } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { CoreV1Api, KubeConfig, type V1Pod } from "@kubernetes/client-node";
import { stringify } from "yaml";
import { newestMinor } from "../../../checks/kubernetes";
import { buildBinaries, buildTestTool } from "../../../sandbox/cluster/binaries";
import { run, waitFor } from "../../../sandbox/shell";
import { freePort, Processes } from "./processes";

/** What each node has: as much as a small server of 2026. */
export const NODE = { cpu: 16, memoryGi: 64 };

/** Account that the controller reads and makes pods with. */
export const CONTROLLER = "system:serviceaccount:jenkins:jenkins";

/** One request of the controller to the API server. */
export interface Request {
  verb: string;
  resource: string;
  code: number;
}

/** A control plane of its own beside whatever runs on this machine, with nodes that kwok plays. */
export class Cluster {
  private constructor(readonly url: string, readonly kubeconfig: string, private readonly programs: string, private readonly audit: string) {}

  static async start(processes: Processes, nodes: number): Promise<Cluster> {
    const { root } = processes;
    const [{ kubernetes, etcd }, kwok] = [await buildBinaries(newestMinor), await buildTestTool("kwok")];
    const file = (name: string, text: string) => {
      fs.writeFileSync(path.join(root, name), text, { mode: 0o600 });
      return path.join(root, name);
    };
    const [store, peer, api, manager, scheduler] = [await freePort(), await freePort(), await freePort(), await freePort(), await freePort()];
    const url = `https://127.0.0.1:${api}`;
    const token = randomBytes(16).toString("hex");
    const kubeconfig = file("admin.kubeconfig", kubeconfigOf(url, token));
    const tokens = file("tokens.csv", `${token},bench,bench,system:masters\n`);
    const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048, publicKeyEncoding: { type: "spki", format: "pem" }, privateKeyEncoding: { type: "pkcs8", format: "pem" } });
    const [privateFile, publicFile] = [file("accounts.key", privateKey), file("accounts.pub", publicKey)];
    const policy = file("audit.yaml", stringify({ apiVersion: "audit.k8s.io/v1", kind: "Policy", omitStages: ["RequestReceived", "ResponseStarted"], rules: [{ level: "Metadata", users: [CONTROLLER] }, { level: "None" }] }));
    const audit = path.join(root, "audit.log");

    // Its data are gone with the run: what a disk of this machine takes for fsync is no part of it.
    processes.start("etcd", path.join(etcd, "etcd"), ["--data-dir", path.join(root, "etcd"), "--unsafe-no-fsync", `--listen-client-urls=http://127.0.0.1:${store}`, `--advertise-client-urls=http://127.0.0.1:${store}`, `--listen-peer-urls=http://127.0.0.1:${peer}`, `--initial-advertise-peer-urls=http://127.0.0.1:${peer}`, `--initial-cluster=default=http://127.0.0.1:${peer}`]);
    processes.start("kube-apiserver", path.join(kubernetes, "kube-apiserver"), [
      `--etcd-servers=http://127.0.0.1:${store}`, "--bind-address=127.0.0.1", `--secure-port=${api}`, `--cert-dir=${path.join(root, "certs")}`, "--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.99.0.0/24",
      "--service-account-issuer=https://kubernetes.default.svc", `--service-account-key-file=${publicFile}`, `--service-account-signing-key-file=${privateFile}`, `--token-auth-file=${tokens}`, "--authorization-mode=Node,RBAC", "--allow-privileged=true", `--audit-policy-file=${policy}`, `--audit-log-path=${audit}`,
    ]);
    const cluster = new Cluster(url, kubeconfig, kubernetes, audit);
    await waitFor("the API server", 180, async () => {
      processes.assertRunning();
      return (await cluster.kubectl(["get", "--raw", "/readyz"])) === "ok";
    });
    processes.start("kube-controller-manager", path.join(kubernetes, "kube-controller-manager"), [`--kubeconfig=${kubeconfig}`, "--bind-address=127.0.0.1", `--secure-port=${manager}`, "--leader-elect=false", `--service-account-private-key-file=${privateFile}`, `--cert-dir=${path.join(root, "certs-manager")}`]);
    processes.start("kube-scheduler", path.join(kubernetes, "kube-scheduler"), [`--kubeconfig=${kubeconfig}`, "--bind-address=127.0.0.1", `--secure-port=${scheduler}`, "--leader-elect=false", `--cert-dir=${path.join(root, "certs-scheduler")}`]);
    processes.start("kwok", path.join(kwok, "kwok"), [`--kubeconfig=${kubeconfig}`, `--config=${file("kwok.yaml", STAGES.map((stage) => `---\n${stringify(stage)}`).join(""))}`, "--manage-all-nodes=true", "--node-lease-duration-seconds=40"], { ...process.env, HOME: root });
    await cluster.apply(Array.from({ length: nodes }, (_, i) => nodeObject(`node-${i + 1}`)));
    await waitFor(`${nodes} nodes`, 60, async () => (await cluster.kubectl(["get", "nodes", "--no-headers"])).split("\n").filter((line) => / Ready /.test(line)).length === nodes);
    return cluster;
  }

  async kubectl(args: string[], input?: string): Promise<string> {
    return (await run(path.join(this.programs, "kubectl"), ["--kubeconfig", this.kubeconfig, ...args], { input })).stdout;
  }

  async apply(objects: object[]): Promise<void> {
    await this.kubectl(["apply", "--server-side", "-f", "-"], objects.map((object) => `---\n${JSON.stringify(object)}\n`).join(""));
  }

  /** A kubeconfig of the controller's own account, as its pod would have. */
  async controllerConfig(folder: string): Promise<string> {
    const token = (await this.kubectl(["-n", "jenkins", "create", "token", "jenkins", "--duration=12h"])).trim();
    const file = path.join(folder, "controller.kubeconfig");
    fs.writeFileSync(file, kubeconfigOf(this.url, token), { mode: 0o600 });
    return file;
  }

  /**
   * Tells which pods a namespace has, once a second until it is stopped. A watch would say it sooner, but one that ends unseen loses
   * pods, and the figures with them.
   * @returns what stops it
   */
  followPods(namespace: string, told: (pods: V1Pod[]) => void): () => void {
    const config = new KubeConfig();
    config.loadFromFile(this.kubeconfig);
    const api = config.makeApiClient(CoreV1Api);
    let stopped = false;
    const look = async (): Promise<void> => {
      // From the API server's memory: it is no part of what is measured.
      while (!stopped) {
        await api.listNamespacedPod({ namespace, resourceVersion: "0" }).then(({ items }) => told(items), (error: unknown) => stopped || process.stderr.write(`bench: the pods could not be listed: ${String(error)}\n`));
        await new Promise((resolve) => setTimeout(resolve, 1000));
      }
    };
    void look();
    return () => void (stopped = true);
  }

  /** What the controller has asked so far. */
  requests(): Request[] {
    const lines = fs.existsSync(this.audit) ? fs.readFileSync(this.audit, "utf8").split("\n").filter(Boolean) : [];
    return lines.map((line) => {
      const { verb, objectRef, responseStatus } = JSON.parse(line) as { verb: string; objectRef?: { resource: string; subresource?: string }; responseStatus?: { code: number } };
      return { verb, resource: [objectRef?.resource, objectRef?.subresource].filter(Boolean).join("/"), code: responseStatus?.code ?? 0 };
    });
  }
}

/** The API server's certificate is its own, made for this run. */
const kubeconfigOf = (server: string, token: string): string =>
  stringify({
    apiVersion: "v1", kind: "Config", "current-context": "bench",
    clusters: [{ name: "bench", cluster: { server, "insecure-skip-tls-verify": true } }],
    users: [{ name: "bench", user: { token } }],
    contexts: [{ name: "bench", context: { cluster: "bench", user: "bench" } }],
  });

const stage = (name: string, kind: string, matchExpressions: object[], next: object) =>
  ({ apiVersion: "kwok.x-k8s.io/v1alpha1", kind: "Stage", metadata: { name }, spec: { resourceRef: { apiGroup: "v1", kind }, selector: { matchExpressions }, next } });
const conditions = (...types: string[]) => types.map((type) => `- {type: ${type}, status: "True", lastTransitionTime: {{ Now | Quote }}}\n`).join("");
const ready = { key: '.status.conditions.[] | select( .type == "Ready" ) | .status', operator: "NotIn", values: ["True"] };

/** What a kubelet does that takes no time: pods run and are ready once they have a node, and are gone once they are deleted. */
const STAGES = [
  stage("node-ready", "Node", [ready], { statusTemplate: `phase: Running\nconditions:\n${conditions("Ready")}` }),
  stage("pod-ready", "Pod", [{ key: ".metadata.deletionTimestamp", operator: "DoesNotExist" }, { key: ".status.phase", operator: "In", values: ["Pending"] }, ready], {
    statusTemplate: `phase: Running\nstartTime: {{ Now | Quote }}\nconditions:\n${conditions("Initialized", "Ready", "ContainersReady")}containerStatuses:\n{{ range .spec.containers }}\n- {name: {{ .name | Quote }}, image: {{ .image | Quote }}, imageID: "", ready: true, restartCount: 0, state: {running: {startedAt: {{ Now | Quote }}}}}\n{{ end }}\n`,
  }),
  stage("pod-gone", "Pod", [{ key: ".metadata.deletionTimestamp", operator: "Exists" }], { delete: true }),
];

function nodeObject(name: string): object {
  const has = { cpu: String(NODE.cpu), memory: `${NODE.memoryGi}Gi`, "ephemeral-storage": "1Ti", pods: "110" };
  return {
    apiVersion: "v1", kind: "Node",
    metadata: { name, annotations: { "kwok.x-k8s.io/node": "fake" }, labels: { "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": process.arch === "arm64" ? "arm64" : "amd64" } },
    status: { capacity: has, allocatable: has },
  };
}
