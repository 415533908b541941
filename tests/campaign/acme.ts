import { spawn, type ChildProcess } from "node:child_process";
import * as fs from "node:fs";
import * as https from "node:https";
import * as os from "node:os";
import * as path from "node:path";
import { buildTestTool, moduleFolder, testToolPins } from "../../sandbox/cluster/binaries";
import { NETWORK, REGISTRY } from "../../sandbox/paths";
import { kubectl, NODE, waitFor } from "../e2e/sandbox";
import { authority } from "../unit/certificates";
import { ensureToolImage } from "./tool-image";

const goModule = "github.com/cert-manager/cert-manager";
const namespace = "cert-manager";
const host = NETWORK.gateway;
const ports = { acme: 14000, roots: 15000, dns: 8053, dnsManagement: 8055 };

/** Name of the ClusterIssuer that asks Pebble. */
export const ISSUER = "pebble";

/** Page of a server on this machine whose certificate is of `ca`. */
const page = (url: string, ca: string): Promise<string> =>
  new Promise((resolve, reject) => {
    https.get(url, { ca, agent: false }, (answer) => {
      let body = "";
      answer.setEncoding("utf8").on("data", (chunk: string) => (body += chunk)).on("end", () => (answer.statusCode === 200 ? resolve(body) : reject(new Error(`${url}: ${answer.statusCode}`))));
    }).on("error", reject);
  });

/** Let's Encrypt's own test server on this machine, which takes every host to be at the sandbox's first node, and cert-manager's controller in the cluster. */
export class Acme {
  /** Certificate of the root that signed what it issues; another one with each start. */
  root = "";
  private readonly folder = fs.mkdtempSync(path.join(os.tmpdir(), "acme-"));
  private readonly ca = authority(this.folder, "acme");
  private readonly children: ChildProcess[] = [];

  /** Starts the server; what an interrupted run left in the cluster knows another one's accounts, and goes. @param seconds how long its certificates are in force */
  async start(seconds: number): Promise<void> {
    const programs = await buildTestTool("pebble");
    await this.remove();
    const own = this.ca.sign("pebble", host);
    const config = path.join(this.folder, "pebble.json");
    fs.writeFileSync(config, JSON.stringify({ pebble: {
      listenAddress: `${host}:${ports.acme}`, managementListenAddress: `${host}:${ports.roots}`, certificate: own.cert, privateKey: own.key,
      httpPort: 80, tlsPort: 443, ocspResponderURL: "", externalAccountBindingRequired: false, retryAfter: { authz: 1, order: 1 }, profiles: { default: { description: "short", validityPeriod: seconds } },
    } }));
    const start = (program: string, ...args: string[]) => {
      const log = fs.openSync(path.join(this.folder, `${program}.log`), "w");
      // Each certificate takes a challenge of its own.
      this.children.push(spawn(path.join(programs, program), args, { stdio: ["ignore", log, log], env: { ...process.env, PEBBLE_VA_NOSLEEP: "1", PEBBLE_AUTHZREUSE: "0" } }));
    };
    start("pebble-challtestsrv", "-defaultIPv4", NODE, "-defaultIPv6", "", "-dnsserver", `${host}:${ports.dns}`, "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "", "-management", `${host}:${ports.dnsManagement}`);
    start("pebble", "-config", config, "-dnsserver", `${host}:${ports.dns}`);
    this.root = await waitFor("Pebble", 30, () => page(`https://${host}:${ports.roots}/roots/0`, this.ca.pem));
  }

  /** The controller's image and the solver's; makes sure that the sandbox's registry has it. */
  makeImage = (): Promise<string> => ensureToolImage("cert-manager", `${REGISTRY}/jetstack/cert-manager:${testToolPins("cert-manager")}`);

  /** Lines that the server wrote, for who looks for a mistake. */
  log = (): string => fs.readFileSync(path.join(this.folder, "pebble.log"), "utf8").split("\n").slice(-40).join("\n");

  private apply = (...objects: object[]) => kubectl(["apply", "--server-side", "-f", "-"], { input: JSON.stringify({ apiVersion: "v1", kind: "List", items: objects }) });

  /** cert-manager's definitions. */
  definitions = async (): Promise<string> => path.join(await moduleFolder("cert-manager", goModule), "deploy/crds");

  /** Installs the controller, without its webhook, which only refuses mistakes earlier. Its definitions are there. @param hosts that it is asked for, whose answers it looks at first by its own resolver @param gateways whether it answers challenges through Gateways as well */
  async install(hosts: string[], gateways = false): Promise<void> {
    const image = await this.makeImage();
    const labels = { app: "cert-manager" };
    await this.apply(
      { apiVersion: "v1", kind: "Namespace", metadata: { name: namespace, labels: { "pod-security.kubernetes.io/enforce": "restricted" } } },
      { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "cert-manager", namespace } },
      // Its chart's rights are not what is tried here.
      { apiVersion: "rbac.authorization.k8s.io/v1", kind: "ClusterRoleBinding", metadata: { name: "cert-manager" }, roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "cluster-admin" }, subjects: [{ kind: "ServiceAccount", name: "cert-manager", namespace }] },
      {
        apiVersion: "apps/v1", kind: "Deployment", metadata: { name: "cert-manager", namespace },
        spec: {
          selector: { matchLabels: labels },
          template: {
            metadata: { labels },
            spec: {
              serviceAccountName: "cert-manager", hostAliases: [{ ip: NODE, hostnames: hosts }], securityContext: { runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
              containers: [{
                name: "controller", image, command: ["/usr/local/bin/controller", `--cluster-resource-namespace=${namespace}`, `--acme-http01-solver-image=${image}`, `--enable-gateway-api=${gateways}`],
                securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] }, readOnlyRootFilesystem: true },
              }],
            },
          },
        },
      },
    );
    await this.scale(1);
  }

  /** Starts or stops the controller. */
  async scale(replicas: 0 | 1): Promise<void> {
    await kubectl(["-n", namespace, "scale", "deployment/cert-manager", `--replicas=${replicas}`]);
    await kubectl(["-n", namespace, "rollout", "status", "deployment/cert-manager", "--timeout=120s"]);
    if (replicas === 0) await kubectl(["-n", namespace, "wait", "--for=delete", "pod", "-l", "app=cert-manager", "--timeout=60s"]);
  }

  /** Makes the ClusterIssuer. @param solver how challenges are answered */
  async makeIssuer(solver: object): Promise<void> {
    await this.apply({ apiVersion: "cert-manager.io/v1", kind: "ClusterIssuer", metadata: { name: ISSUER }, spec: { acme: { server: `https://${host}:${ports.acme}/dir`, caBundle: Buffer.from(this.ca.pem).toString("base64"), privateKeySecretRef: { name: "pebble-account" }, solvers: [{ http01: solver }] } } });
    await kubectl(["wait", "--for=condition=Ready", "clusterissuer", ISSUER, "--timeout=60s"]);
  }

  /** Takes everything away that is in the cluster. */
  async remove(): Promise<void> {
    await kubectl(["delete", "namespace", namespace, "--ignore-not-found", "--timeout=120s"]);
    await kubectl(["delete", "clusterrolebinding", "cert-manager", "--ignore-not-found"]);
    // Nobody is there any more to take their finalizers away.
    for (const kind of ["challenges.acme.cert-manager.io", "orders.acme.cert-manager.io"]) {
      const there = await kubectl(["get", kind, "--all-namespaces", "-o", 'jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name}{"\\n"}{end}'], { allowFailure: true });
      for (const line of there.split("\n").filter(Boolean)) await kubectl(["-n", line.split(" ")[0], "patch", kind, line.split(" ")[1], "--type=merge", "-p", '{"metadata":{"finalizers":null}}'], { allowFailure: true });
    }
    await kubectl(["delete", "--ignore-not-found", "-f", await this.definitions(), "--timeout=120s"]);
  }

  stop(): void {
    this.children.forEach((child) => child.kill());
    fs.rmSync(this.folder, { recursive: true, force: true });
  }
}
