/** NodePortRange through the real pulumi CLI on two real control-plane nodes with stacked etcd. */
import * as fs from "node:fs";
import * as path from "node:path";
import { addressOf, inNode, nodeNamed, type Node } from "../../sandbox/cluster/nodes";
import { REPO, SSH_KEY } from "../../sandbox/paths";
import { run, type Result } from "../../sandbox/shell";
import { kubectl, pulumi, sandbox, STACK, waitFor } from "../e2e/sandbox";

jest.setTimeout(1_200_000);

const NAME = "two-control-planes";
const project = path.join(REPO, "tests/fixtures/node-port-range");
const configFile = path.join(project, `Pulumi.${NAME}.yaml`);
const nodes = [nodeNamed("control-plane-1"), nodeNamed("control-plane-2")];
const [first, second] = nodes;
const FLAG = "    - --service-node-port-range=80-32767\n";

const read = (node: Node) => inNode(node, ["cat", MANIFEST]).then(({ stdout }) => stdout);
const readAll = () => Promise.all(nodes.map(read));
/** Replaces a file on the node at once, as an editor or kubeadm does. */
const write = (node: Node, file: string, text: string) =>
  inNode(node, ["sh", "-c", `umask 077; cat >/etc/edited && mv /etc/edited ${file}`], { input: text });
const MANIFEST = "/etc/kubernetes/manifests/kube-apiserver.yaml";
const stack = (command: string, ...args: string[]): Promise<Result> =>
  pulumi([command, "--stack", NAME, ...args], { cwd: project, allowFailure: true });
const up = (...args: string[]) => stack("up", "--yes", "--skip-preview", ...args);
const setRange = (range: string) => pulumi(["config", "set", "range", range, "--stack", NAME], { cwd: project });

function succeeded(result: Result): string {
  if (result.code !== 0) throw new Error(result.stdout + result.stderr);
  return result.stdout;
}
/** Whether this node's own API server is ready. */
const ready = async (node: Node) =>
  (await run("curl", ["-ks", "--max-time", "2", "-o", "/dev/null", "-w", "%{http_code}", `https://${addressOf(node)}:6443/readyz`], { allowFailure: true })).stdout === "200";
/** Process arguments of the node's API server; undefined while there is none. */
async function serving(node: Node): Promise<string[] | undefined> {
  const found = await inNode(node, ["sh", "-c", "for p in /proc/[0-9]*; do if [ \"$(tr '\\0' '\\n' <$p/cmdline 2>/dev/null | head -n 1)\" = kube-apiserver ]; then tr '\\0' '\\n' <$p/cmdline; fi; done"], { allowFailure: true });
  return found.stdout === "" ? undefined : found.stdout.split("\n").filter(Boolean);
}
/** When the node's API server was started, as the kubelet names its container. */
const started = (node: Node) => inNode(node, ["sh", "-c", "ls -d /var/log/pods/kube-system_kube-apiserver-*/kube-apiserver/*.log | xargs ls -i"]).then(({ stdout }) => stdout);
const settled = (node: Node, holds: (argv: string[]) => boolean) =>
  waitFor(`the API server of ${node.name} to serve its manifest`, 300, async () => {
    const argv = await serving(node);
    return argv !== undefined && holds(argv) && (await ready(node));
  });
const hasFlag = (argv: string[]) => argv.includes("--service-node-port-range=80-32767");
const services = async () => (await kubectl(["get", "services", "-A", "-o", "name"])).split("\n");
const kubeadmConfig = () => kubectl(["-n", "kube-system", "get", "configmap", "kubeadm-config", "-o", "jsonpath={.data.ClusterConfiguration}"]);
/** Files of the node that bear this component's name. */
const left = async (node: Node) =>
  (await inNode(node, ["sh", "-c", "find /etc/kubernetes /etc/sysctl.d /run -name '*node-port-range*' -o -path '*kubernetes/backup*'"])).stdout;

let before: string[];
let configBefore: string;

beforeAll(async () => {
  // The platform holds the range of its own; the other test files bring it up again when they need it.
  const stacks = JSON.parse((await pulumi(["stack", "ls", "--json"])).stdout) as { name: string; resourceCount?: number }[];
  if (stacks.some((each) => each.name.endsWith(STACK) && each.resourceCount)) await pulumi(["destroy", "--stack", STACK, "--yes", "--skip-preview"]);
  await sandbox("add-node", second.name);
  before = await readAll();
  configBefore = await kubeadmConfig();
  await pulumi(["stack", "init", NAME], { cwd: project });
  await setRange("80-32767");
  await pulumi(["config", "set", "--secret", "privateKey", "--stack", NAME], { cwd: project, input: fs.readFileSync(SSH_KEY, "utf8") });
  const list = nodes.map(({ name }, i) => [
    `nodes[${i}].name=${name}`, `nodes[${i}].host=${addressOf(nodes[i])}`,
    `nodes[${i}].hostKey=${fs.readFileSync(path.join(path.dirname(SSH_KEY), `${name}.hostkey.pub`), "utf8").trim()}`,
  ]);
  await pulumi(["config", "set-all", "--path", ...list.flat().flatMap((each) => ["--plaintext", each]), "--stack", NAME], { cwd: project });
});

afterAll(async () => {
  await stack("destroy", "--yes", "--skip-preview");
  await pulumi(["stack", "rm", NAME, "--yes", "--force"], { cwd: project, allowFailure: true });
  await sandbox("remove-node", second.name);
  fs.rmSync(configFile, { force: true });
});

test("preview says what would change on which node and changes nothing", async () => {
  const out = succeeded(await stack("preview"));
  for (const { name } of nodes) expect(out).toContain(`${name}, /etc/kubernetes/manifests/kube-apiserver.yaml would change:`);
  expect(out).toContain("+    - --service-node-port-range=80-32767");
  expect(out).toContain("in use on this node and inside the new range");
  expect(out).not.toContain("PRIVATE KEY");
  expect(await readAll()).toEqual(before);
  expect(await left(first)).toBe("");
});

test("up changes one node after the other: never are both without a ready API server", async () => {
  const seen: boolean[][] = [];
  let watching = true;
  const watch = (async () => {
    while (watching) {
      seen.push(await Promise.all(nodes.map(ready)));
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  })();
  const out = succeeded(await up());
  watching = false;
  await watch;
  expect(out).toMatch(/inForce\s*: "80-32767"/);
  expect(seen.filter(([a, b]) => !a && !b)).toEqual([]);
  expect(seen.some(([a]) => !a) && seen.some(([, b]) => !b)).toBe(true);
  expect(seen.findIndex(([, b]) => !b)).toBeGreaterThan(seen.findLastIndex(([a]) => !a));
  for (const [i, node] of nodes.entries()) {
    expect(await read(node)).toBe(before[i].replace(/( +- --tls-cert-file)/, `${FLAG}$1`));
    expect(hasFlag((await serving(node)) as string[])).toBe(true);
  }
  expect((await inNode(first, ["cat", "/proc/sys/net/ipv4/ip_local_reserved_ports"])).stdout).toBe("80-32767\n");
  await kubectl(["create", "service", "nodeport", "at-eighty", "--tcp=80:80", "--node-port=80"]);
});

test("nothing secret reaches the state in the clear, and a second up changes nothing", async () => {
  const exported = (await pulumi(["stack", "export", "--stack", NAME], { cwd: project })).stdout;
  expect(exported).not.toContain("PRIVATE KEY");
  succeeded(await stack("preview", "--expect-no-changes"));
  expect(succeeded(await up("--expect-no-changes"))).toMatch(/\d+ unchanged/);
});

test("destroy is refused while a Service holds a port outside, and names it", async () => {
  const result = await stack("destroy", "--yes", "--skip-preview");
  expect(result.code).not.toBe(0);
  expect(result.stdout + result.stderr).toContain("default/at-eighty (80)");
  expect(hasFlag((await serving(second)) as string[])).toBe(true);
  expect(await read(second)).toContain(FLAG);
  await kubectl(["delete", "service", "at-eighty"]);
  expect(await services()).not.toContain("service/at-eighty");
});

test("kubeadm renders the manifest with the flag from kubeadm-config", async () => {
  await write(first, "/etc/kubeadm-from-cluster.yaml", await kubeadmConfig());
  const render = "set -e; d=$(mktemp -d); KUBEADM_INIT_DRYRUN_DIR=$d kubeadm init phase control-plane apiserver --config /etc/kubeadm-from-cluster.yaml --dry-run >/dev/null 2>&1; cat $d/kube-apiserver.yaml; rm -rf $d /etc/kubeadm-from-cluster.yaml";
  expect((await inNode(first, ["sh", "-c", render])).stdout).toContain(FLAG);
});

test("a manifest that somebody changed back is noticed at preview and mended by up, on that node alone", async () => {
  await write(second, MANIFEST, before[1]);
  const preview = succeeded(await stack("preview"));
  expect(preview).toContain("control-plane-2, /etc/kubernetes/manifests/kube-apiserver.yaml would change:");
  expect(preview).not.toContain("control-plane-1, /etc/kubernetes");
  const untouched = await started(first);
  expect(succeeded(await up())).toMatch(/1 updated/);
  expect(await read(second)).toContain(FLAG);
  expect(hasFlag((await serving(second)) as string[])).toBe(true);
  expect(await started(first)).toBe(untouched);
  succeeded(await stack("preview", "--expect-no-changes"));
});

test("a value the API server rejects is put back, its last words are shown, and the next node is not touched", async () => {
  const applied = await read(first);
  // The API server's own Service on a node port: it then refuses a range that does not hold this port.
  const withPort = applied.replace(FLAG, `    - --kubernetes-service-node-port=30443\n${FLAG}`);
  await write(first, MANIFEST, withPort);
  try {
    await settled(first, (argv) => argv.includes("--kubernetes-service-node-port=30443"));
    await setRange("80-20000");
    const untouched = await started(second);
    const result = await up();
    expect(result.code).not.toBe(0);
    expect(result.stdout + result.stderr).toContain("the old manifest is back in force");
    expect(result.stdout + result.stderr).toMatch(/30443/);
    expect(await read(first)).toBe(withPort);
    expect(hasFlag((await serving(first)) as string[]) && (await ready(first))).toBe(true);
    expect(await started(second)).toBe(untouched);
    expect(await kubeadmConfig()).toContain("80-32767");
  } finally {
    await write(first, MANIFEST, applied);
    await setRange("80-32767");
    await settled(first, (argv) => hasFlag(argv) && !argv.includes("--kubernetes-service-node-port=30443"));
  }
});

test("destroy leaves both nodes and kubeadm-config as they were", async () => {
  succeeded(await stack("destroy", "--yes", "--skip-preview"));
  expect(await readAll()).toEqual(before);
  expect(await kubeadmConfig()).toBe(configBefore);
  for (const node of nodes) {
    expect(await left(node)).toBe("");
    expect(((await serving(node)) as string[]).some((each) => each.includes("service-node-port-range"))).toBe(false);
    expect(await ready(node)).toBe(true);
  }
  expect((await inNode(first, ["cat", "/proc/sys/net/ipv4/ip_local_reserved_ports"])).stdout.trim()).toBe("");
});
