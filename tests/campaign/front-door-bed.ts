import { spawn, type ChildProcess } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { parse, stringify } from "yaml";
import { Jenkins } from "../../cli/jenkins";
import { installPackages } from "../../sandbox/cluster/packages";
import { NETWORK, REPO } from "../../sandbox/paths";
import { run, type Result } from "../../sandbox/shell";
import { platformFirst } from "../backup-bed/bed";
import { RestServer } from "../backup-bed/servers";
import { ENV, kubectl, kubectlJson, NODE, pulumi, STACK, waitFor } from "../e2e/sandbox";
import { authority, type Authority } from "../unit/certificates";
import { ensureTraefikImage } from "./traefik-image";
import { visit, type Visit } from "./way-in";

/** An environment with an ingress controller of its own on the sandbox's cluster, below a path and behind Debian's nginx on this machine, which ends TLS. */

export const SITE = "front-door";
export const HOST = "front-door.sandbox.test";
export const OLD = "old.front-door.sandbox.test";
export const PREFIX = "/jenkins";
export const CONTROLLERS = ["nginx", "traefik"] as const;
export const ingressNamespace = `${SITE}-ingress`;
/** Ports of the node: people's, and agents'. */
export const ports = { http: 30080, https: 30443, agents: 31500 };
/** Ports of the proxy: https below another port than 443, 443 itself, 443's twin that says nothing of https, and packets with PROXY protocol. */
export const outside = { port: 8443, usual: 443, silent: 8444, packets: 8081 };
/** An address for examples (RFC 5737), which this machine has for as long as the bed: a person's, and of no trusted proxy. */
export const PERSON = "198.51.100.8";
const backend = `${SITE}-backend`;
const stackFile = path.join(REPO, `Pulumi.${SITE}.yaml`);
const repositories = new RestServer(8003);

/** The ways in which the outer address may differ, as keys of `ingress`. */
export const modes = {
  port: { externalUrl: `https://${HOST}:${outside.port}${PREFIX}`, proxyProtocol: false },
  usual: { externalUrl: `https://${HOST}${PREFIX}`, proxyProtocol: false },
  packets: { externalUrl: `http://${HOST}:${outside.packets}${PREFIX}`, proxyProtocol: true },
} as const;

export class FrontDoor {
  readonly folder = fs.mkdtempSync(path.join(os.tmpdir(), "front-door-"));
  readonly authority: Authority;
  private proxy?: ChildProcess;
  /** Each has a pod of the controller: the others do not answer. */
  private nodes = 1;
  /** The stack's file that was brought up last, and its mode. */
  private there = "";
  private mode: keyof typeof modes = "port";
  /** Keys of the backup, once its passwords are encrypted. */
  private backup: object = { repository: repositories.address("jenkins"), keysRepository: repositories.address("jenkins-keys") };

  constructor() {
    this.authority = authority(this.folder, SITE);
  }

  at(...parts: string[]): string {
    return path.join(this.folder, ...parts);
  }

  async setUp(): Promise<void> {
    await installPackages(["curl", "libnginx-mod-stream", "nginx-light", "openssl"]);
    await ensureTraefikImage();
    await platformFirst();
    this.nodes = (await kubectl(["get", "nodes", "-o", "name"])).trim().split("\n").length;
    await repositories.start();
    await run("ip", ["address", "replace", `${PERSON}/32`, "dev", "lo"]);
    // What people's machines know from DNS.
    fs.writeFileSync(this.at("hosts"), `127.0.0.1 localhost\n${NETWORK.gateway} ${HOST} ${OLD}\n`);
    await this.startProxy();
    // What an interrupted run left: its objects are in the stack's state alone.
    await kubectl(["delete", "namespace", backend, "--ignore-not-found"]);
    await pulumi(["destroy", "--stack", SITE, "--yes", "--skip-preview"], { allowFailure: true });
    await pulumi(["stack", "rm", SITE, "--yes", "--force", "--preserve-config"], { allowFailure: true });
    await this.write("nginx", "port");
    await pulumi(["stack", "init", SITE, "--no-select"]);
    for (const key of ["password", "keysPassword"]) await pulumi(["config", "set", "--stack", SITE, "--secret", "--path", `backup.${key}`, `${key} of the bed`]);
    this.backup = (parse(fs.readFileSync(stackFile, "utf8")) as { config: Record<string, object> }).config["build-platform:backup"];
  }

  async tearDown(): Promise<void> {
    await kubectl(["delete", "namespace", backend, "--ignore-not-found"], { allowFailure: true });
    await pulumi(["destroy", "--stack", SITE, "--yes", "--skip-preview"], { allowFailure: true });
    await pulumi(["stack", "rm", SITE, "--yes", "--force"], { allowFailure: true });
    fs.rmSync(stackFile, { force: true });
    this.proxy?.kill();
    repositories.remove();
    await run("ip", ["address", "del", `${PERSON}/32`, "dev", "lo"], { allowFailure: true });
    fs.rmSync(this.folder, { recursive: true, force: true });
  }

  private async startProxy(): Promise<void> {
    const { cert, key } = this.authority.sign("outer", HOST, OLD);
    const server = (port: number, ...more: string[]) => `server {
      listen ${NETWORK.gateway}:${port} ssl;
      location / {
        proxy_pass http://${NODE}:${ports.http};
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-Host $host;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $connection_upgrade;
        ${more.join("\n")}
      }
    }`;
    const told = (port: number) => server(port, "proxy_set_header X-Forwarded-Proto https;", `proxy_set_header X-Forwarded-Port ${port};`);
    fs.writeFileSync(this.at("nginx.conf"), `
      load_module /usr/lib/nginx/modules/ngx_stream_module.so;
      daemon off; user root; worker_processes 1; pid ${this.at("nginx.pid")}; error_log ${this.at("nginx.log")};
      events { worker_connections 4096; }
      http {
        access_log off; client_max_body_size 0; client_body_temp_path ${this.at("body")}; proxy_temp_path ${this.at("proxy")};
        ssl_certificate ${cert}; ssl_certificate_key ${key};
        map $http_upgrade $connection_upgrade { default upgrade; '' close; }
        proxy_http_version 1.1; proxy_request_buffering off; proxy_buffering off; proxy_read_timeout 3600;
        ${told(outside.port)} ${told(outside.usual)} ${server(outside.silent)}
      }
      stream { server { listen ${NETWORK.gateway}:${outside.packets}; proxy_pass ${NODE}:${ports.http}; proxy_protocol on; } }`);
    const proxy = (this.proxy = spawn("/usr/sbin/nginx", ["-c", this.at("nginx.conf")], { stdio: "ignore" }));
    await waitFor("the proxy", 20, async () => proxy.exitCode === null && visit({ address: NETWORK.gateway, port: outside.port, host: HOST, path: "/", ca: this.authority.pem }).then(() => true, (error: Error) => !/ECONNREFUSED/.test(error.message)));
  }

  /** Writes the stack's file: that of the sandbox with what is this environment's own. */
  async write(controller: (typeof CONTROLLERS)[number], mode: keyof typeof modes, more: Record<string, unknown> = {}): Promise<void> {
    const document = parse(fs.readFileSync(path.join(REPO, `Pulumi.${STACK}.yaml`), "utf8")) as { config: Record<string, Record<string, unknown>> };
    delete document.config["build-platform:controlPlane"];
    const own: Record<string, unknown> = {
      domain: HOST, namespace: SITE, storageClass: SITE, storageInstall: "class", storageBasePath: `/var/openebs/${SITE}`, nodePortRange: "none",
      ingress: {
        controller, namespace: ingressNamespace, className: SITE, httpNodePort: ports.http, httpsNodePort: ports.https, externalTrafficPolicy: "Local", replicas: this.nodes,
        trustedProxies: [NETWORK.gateway], hosts: [{ name: OLD }], ...modes[mode],
      },
      controller: { agentNodePort: ports.agents, resources: { requests: { cpu: "50m", memory: "512Mi" }, limits: { memory: "1536Mi" } } },
      // The first one is made below the path as well; later changes are tried on the running one.
      rehearsal: { enabled: this.there === "" },
      backup: this.backup,
      ...more,
    };
    for (const [key, value] of Object.entries(own)) document.config[`build-platform:${key}`] = value as Record<string, unknown>;
    fs.writeFileSync(stackFile, stringify(document));
  }

  /** Brings it up and waits until the outer address answers. */
  async up(controller: (typeof CONTROLLERS)[number], mode: keyof typeof modes, more: Record<string, unknown> = {}): Promise<void> {
    const before = this.there;
    await this.write(controller, mode, more);
    const wanted = fs.readFileSync(stackFile, "utf8");
    [this.there, this.mode] = ["", mode];
    if (wanted !== before) await pulumi(["up", "--stack", SITE, "--yes", "--skip-preview"]);
    this.there = wanted;
    await waitFor(`${modes[mode].externalUrl} to answer`, 120, () => this.outer(mode, `${PREFIX}/login`).then(({ status }) => status === 200, () => false));
  }

  /** As a person at the outer address. */
  outer(mode: keyof typeof outside, target: string, over: Partial<Visit> = {}) {
    const port = outside[mode];
    const host = mode === "usual" ? HOST : `${HOST}:${port}`;
    return visit({ address: NETWORK.gateway, port, host, path: target, from: PERSON, ...(mode !== "packets" && { ca: this.authority.pem }), ...over });
  }

  /** As somebody who comes to the node past every proxy. */
  node(target: string, over: Partial<Visit> = {}) {
    return visit({ address: NODE, port: ports.http, host: HOST, path: target, from: PERSON, ...over });
  }

  /** Headers as what is behind the ingress gets them. */
  static headers(body: string): Record<string, string> {
    return Object.fromEntries(body.split("\n").filter(Boolean).map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
  }

  /** Runs a program where the outer address resolves. */
  resolving(program: string, args: string[], env: NodeJS.ProcessEnv = {}): [string, string[], { env: NodeJS.ProcessEnv; cwd: string }] {
    return ["unshare", ["--mount", "--propagation", "private", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', this.at("hosts"), program, ...args], { env: { ...ENV, ...env }, cwd: REPO }];
  }

  /** One of the operator's commands. */
  cli(file: string, ...args: string[]): Promise<Result> {
    const [program, words, options] = this.resolving(process.execPath, ["--require", require.resolve("tsx/cjs"), path.join(REPO, "cli", file), ...args]);
    return run(program, words, { ...options, allowFailure: true });
  }

  async jenkins(): Promise<Jenkins> {
    const { data } = await kubectlJson<{ data: Record<string, string> }>(["-n", SITE, "get", "secret", "jenkins-admin"]);
    const auth = ["admin-user", "admin-password"].map((key) => Buffer.from(data[key], "base64").toString()).join(":");
    // Where PROXY protocol is spoken, ingress-nginx answers nobody who comes past the proxy.
    const at = this.mode === "packets" ? { host: NETWORK.gateway, port: outside.packets } : { host: NODE, port: ports.http };
    return new Jenkins({ ...at, prefix: PREFIX, headers: { Host: HOST } }, auth);
  }

  /** Another server behind the same controller, its Ingress with the very annotations of Jenkins' own; `annotations` take the place of some. */
  async backend(annotations: Record<string, string> = {}): Promise<void> {
    const { metadata } = await kubectlJson<{ metadata: { annotations: Record<string, string> } }>(["-n", SITE, "get", "ingress", "jenkins"]);
    const theirs = Object.fromEntries(Object.entries(metadata.annotations).filter(([key]) => key.startsWith("nginx.")));
    const { spec } = await kubectlJson<{ spec: { template: { spec: { containers: { image: string }[] } } } }>(["-n", `${SITE}-agents`, "get", "daemonset", "agent-cache"]);
    const named = { name: "backend", namespace: backend };
    const objects = [
      { apiVersion: "v1", kind: "Namespace", metadata: { name: backend } },
      { apiVersion: "v1", kind: "ConfigMap", metadata: named, data: { "Backend.java": fs.readFileSync(path.join(REPO, "tests/fixtures/front-door/Backend.java"), "utf8") } },
      { apiVersion: "v1", kind: "Service", metadata: named, spec: { selector: { app: "backend" }, ports: [{ name: "http", port: 8080, targetPort: 8080 }] } },
      {
        apiVersion: "v1", kind: "Pod", metadata: { ...named, labels: { app: "backend" } },
        spec: {
          containers: [{
            name: "backend", image: spec.template.spec.containers[0].image, command: ["sh", "-c", 'exec "${JAVA_HOME:-/opt/java/openjdk}/bin/java" -Xmx512m /source/Backend.java'],
            readinessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 }, volumeMounts: [{ name: "source", mountPath: "/source" }],
          }],
          volumes: [{ name: "source", configMap: { name: "backend" } }], terminationGracePeriodSeconds: 1,
        },
      },
      {
        apiVersion: "networking.k8s.io/v1", kind: "Ingress", metadata: { ...named, annotations: { ...theirs, ...annotations } },
        spec: { ingressClassName: SITE, rules: [{ host: HOST, http: { paths: [{ path: "/backend", pathType: "Prefix", backend: { service: { name: "backend", port: { name: "http" } } } }] } }] },
      },
    ];
    await kubectl(["apply", "--server-side", "--force-conflicts", "-f", "-"], { input: JSON.stringify({ apiVersion: "v1", kind: "List", items: objects }) });
    await kubectl(["-n", backend, "wait", "--for=condition=Ready", "pod/backend", "--timeout=120s"]);
  }
}
