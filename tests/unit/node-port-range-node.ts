// Stand-in for a control-plane node: a folder with its files, a kubelet that follows the manifest, and
// a kubectl that answers from files. It keeps what scripts/node-port-range sees of a real node.
import { execFileSync, spawn } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { parse } from "yaml";

/** Where thousands of small synced files cost little. */
export const memory = fs.existsSync("/dev/shm") ? "/dev/shm" : os.tmpdir();

export const SCRIPTS = path.join(__dirname, "..", "..", "scripts/node-port-range");
/** What a node is sent. */
export const SCRIPT = execFileSync("sh", [path.join(SCRIPTS, "bundle.sh")], { encoding: "utf8" });

/** As kubeadm 1.34 writes it, shortened. */
export const MANIFEST = `apiVersion: v1
kind: Pod
metadata:
  annotations:
    kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint: 10.0.0.2:6443
  labels:
    component: kube-apiserver
    tier: control-plane
  name: kube-apiserver
  namespace: kube-system
spec:
  containers:
  - command:
    - kube-apiserver
    - --advertise-address=10.0.0.2
    - --secure-port=6443
    - --service-cluster-ip-range=10.96.0.0/12
    - --tls-cert-file=/etc/kubernetes/pki/apiserver.crt
    image: registry.k8s.io/kube-apiserver:v1.34.3
    name: kube-apiserver
  hostNetwork: true
status: {}
`;
export const CLUSTER_CONFIGURATION = `apiServer: {}
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.34.3
`;

const KUBECTL = `#!/bin/sh
while [ $# -gt 0 ]; do case $1 in --server) at=$2 && shift 2 ;; --kubeconfig | --tls-server-name | --request-timeout) shift 2 ;; *) break ;; esac; done
[ -e "$NODE/ready" ] || exit 1
if [ -e "$NODE/answers-at" ] && [ "$at" != "https://$(cat "$NODE/answers-at")" ]; then exit 1; fi
case "$*" in
'get --raw /readyz') echo ok ;;
'get services '*) [ ! -e "$NODE/services-fail" ] && cat "$NODE/services" ;;
*ClusterConfiguration*) cat "$NODE/configmap" ;;
'-n kube-system get pods '*) cat "$NODE/pods" ;;
*resourceVersion*) echo 7 ;;
*annotations*) cat "$NODE/annotation" ;;
*patch*) # one line of JSON, as the script writes it; its escapes are those of printf
  while [ "$1" != --patch-file ]; do shift; done
  sed -n 's/.*"build-platform[^:]*":"\\([^"]*\\)".*/\\1/p' "$2" >"$NODE/annotation"
  printf '%b' "$(sed 's/.*"ClusterConfiguration":"\\(.*\\)"}}$/\\1/; s/\\\\"/"/g' "$2")" >"$NODE/configmap" ;;
*) echo "unexpected: $*" >&2; exit 1 ;;
esac
`;

export interface Outcome {
  status: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

export class FakeNode {
  readonly root = fs.mkdtempSync(path.join(memory, "fake-node-"));
  readonly manifests: string;
  readonly manifest: string;
  readonly backup = this.at("etc/kubernetes/backup");
  /** Whether the API server starts with this flag value; undefined is no flag. */
  accepts: (range: string | undefined) => boolean = () => true;
  /** How often the kubelet has started the API server anew. */
  restarts = -1;
  private seen = "";
  private readonly timer: NodeJS.Timeout;

  constructor(options: { text?: string; folder?: string; file?: string; kubelet?: string[]; config?: string } = {}) {
    const folder = options.folder ?? "etc/kubernetes/manifests";
    this.manifests = this.at(folder);
    this.manifest = path.join(this.manifests, options.file ?? "kube-apiserver.yaml");
    this.write("proc/100/cmdline", ["/usr/bin/kubelet", ...(options.kubelet ?? ["--config=/var/lib/kubelet/config.yaml"])].join("\0") + "\0");
    this.write("var/lib/kubelet/config.yaml", options.config ?? `kind: KubeletConfiguration\nstaticPodPath: /${folder}\n`);
    this.write("etc/kubernetes/admin.conf", "");
    this.write("etc/machine-id", "0123\n");
    this.write("proc/sys/net/ipv4/ip_local_reserved_ports", "\n");
    this.write("proc/net/tcp", "  sl  local_address rem_address   st\n   0: 00000000:192B 00000000:0000 0A 0\n   1: 0100007F:094B 00000000:0000 0A 0\n   2: 0100007F:1F90 00000000:0000 01 0\n");
    this.write("configmap", CLUSTER_CONFIGURATION);
    for (const file of ["annotation", "services", "pods", "ready"]) this.write(file, "");
    this.write("bin/kubectl", KUBECTL, 0o755);
    // Time passes faster here.
    this.write("bin/sleep", "#!/bin/sh\nexec /bin/sleep 0.05\n", 0o755);
    this.write("node-port-range.sh", SCRIPT);
    fs.mkdirSync(this.at("run"), { recursive: true });
    fs.mkdirSync(this.at("work"));
    fs.mkdirSync(this.manifests, { recursive: true });
    fs.writeFileSync(this.manifest, options.text ?? MANIFEST, { mode: 0o640 });
    this.follow();
    this.timer = setInterval(() => this.follow(), 10);
  }

  /** Whether an API server that was started from this manifest gets ready by itself. */
  getsReady: (manifest: string) => boolean = () => true;

  /** A program of the node that listens on a port of all addresses. */
  listen(port: number, program: string, id: number): void {
    const hex = port.toString(16).toUpperCase().padStart(4, "0");
    fs.appendFileSync(this.at("proc/net/tcp"), `   9: 00000000:${hex} 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 ${id}77 1\n`);
    this.write(`proc/${id}/comm`, `${program}\n`);
    fs.mkdirSync(this.at(`proc/${id}/fd`));
    fs.symlinkSync(`socket:[${id}77]`, this.at(`proc/${id}/fd/4`));
  }

  at(file: string): string {
    return path.join(this.root, file);
  }
  write(file: string, text: string, mode = 0o644): void {
    fs.mkdirSync(path.dirname(this.at(file)), { recursive: true });
    fs.writeFileSync(this.at(file), text, { mode });
  }
  read(file: string): string {
    return fs.readFileSync(this.at(file), "utf8");
  }
  text(): string {
    return fs.readFileSync(this.manifest, "utf8");
  }
  /** Arguments of the kube-apiserver in the manifest. */
  argv(): string[] {
    const [container] = (parse(this.text()) as { spec: { containers: { command?: string[]; args?: string[] }[] } }).spec.containers;
    return [...(container.command ?? []), ...(container.args ?? [])];
  }
  /** All files below a folder, with their content. */
  files(folder: string): Record<string, string> {
    if (!fs.existsSync(folder)) return {};
    const names = fs.readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((each) => fs.statSync(path.join(folder, each)).isFile());
    return Object.fromEntries(names.sort().map((each) => [each, fs.readFileSync(path.join(folder, each), "utf8")]));
  }

  /** Runs the script on this node, as it is sent there or from another file. */
  run(args: string[], env: Record<string, string> = {}, shell = "sh", script = this.at("node-port-range.sh")): Promise<Outcome> {
    return new Promise((resolve, reject) => {
      const child = spawn(shell, [script, ...args], {
        env: { PATH: `${this.at("bin")}:${process.env.PATH}`, NODE: this.root, TMPDIR: this.at("work"), NODE_PORT_RANGE_ROOT: this.root, ...env },
        stdio: ["ignore", "pipe", "pipe"],
      });
      let [stdout, stderr] = ["", ""];
      child.stdout.on("data", (text: Buffer) => (stdout += text.toString()));
      child.stderr.on("data", (text: Buffer) => (stderr += text.toString()));
      child.on("error", reject);
      child.on("close", (status, signal) => resolve({ status, signal, stdout, stderr }));
    });
  }

  /** The kubelet: a changed manifest stops the old API server and starts the new one, if it starts. */
  private follow(): void {
    if (!fs.existsSync(this.manifest)) return;
    const text = this.text();
    if (text === this.seen) return;
    this.seen = text;
    this.restarts++;
    const argv = this.argv();
    const flags = argv.filter((each) => /^--service[-_]node[-_]port[-_]range=/.test(each));
    const range = flags.at(-1)?.split("=")[1];
    const process = this.at(`proc/${200 + this.restarts}`);
    fs.rmSync(this.at(`proc/${199 + this.restarts}`), { recursive: true, force: true });
    fs.rmSync(this.at("ready"), { force: true });
    if (this.accepts(range)) {
      this.write(path.relative(this.root, path.join(process, "cmdline")), argv.join("\0") + "\0");
      if (this.getsReady(text)) this.write("ready", "");
    } else {
      this.write(`var/log/pods/kube-system_kube-apiserver-node_${this.restarts}/kube-apiserver/0.log`, `starting\nError: invalid argument "${range}" for "--service-node-port-range" flag: no\n`);
    }
  }

  remove(): void {
    clearInterval(this.timer);
    fs.rmSync(this.root, { recursive: true, force: true });
  }
}
