/** scripts/node-port-range as a whole, on a fake node: waits, roll-back, memory, guards, lock, lost power. */
import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import type { Inspection } from "../../components/node-port-range";
import { CLUSTER_CONFIGURATION, FakeNode, MANIFEST, SCRIPT, SCRIPTS, type Outcome } from "./node-port-range-node";

jest.setTimeout(60_000);
const RANGE = "80-32767";
const FLAG = `--service-node-port-range=${RANGE}`;
const EDITED = MANIFEST.replace("/12\n", `/12\n    - ${FLAG}\n`);
const APPLY = ["apply", "--range", RANGE, "--timeout", "40"];
const RESTORE = ["restore", "--timeout", "40"];

const nodes: FakeNode[] = [];
const node = (...args: ConstructorParameters<typeof FakeNode>) => {
  const made = new FakeNode(...args);
  nodes.push(made);
  return made;
};
afterEach(() => nodes.splice(0).forEach((each) => each.remove()));

function succeeded(outcome: Outcome): Outcome {
  if (outcome.status !== 0) throw new Error(`ended with ${outcome.status ?? outcome.signal}:\n${outcome.stdout}${outcome.stderr}`);
  return outcome;
}
type Shown = Inspection & { ready: boolean };
const show = async (on: FakeNode, ...more: string[]) => JSON.parse(succeeded(await on.run(["show", "--json", "--range", RANGE, ...more])).stdout) as Shown;
const backups = (on: FakeNode) => (fs.existsSync(on.backup) ? fs.readdirSync(on.backup).filter((each) => each.startsWith("kube-apiserver")) : []);
/** Nothing of a finished run is left: no lock, no temporary file, nothing in the manifest folder but the manifest. */
function expectTidy(on: FakeNode): void {
  expect(fs.readdirSync(on.manifests)).toEqual([path.basename(on.manifest)]);
  expect(fs.readdirSync(on.at("run"))).toEqual([]);
  expect(Object.keys(on.files(on.backup)).filter((each) => /tmp$|previous|written|original.new/.test(each))).toEqual([]);
}

describe("apply", () => {
  test("adds the flag where kubeadm would, waits for it, and teaches kubeadm-config", async () => {
    const on = node();
    const { stdout } = succeeded(await on.run([...APPLY, "--mark", "first"]));
    expect(stdout).toContain("80-32767 in force (was 30000-32767)");
    expect(on.text()).toBe(EDITED);
    expect(fs.statSync(on.manifest).mode & 0o777).toBe(0o640);
    expect(on.restarts).toBe(1);
    expect(on.read("configmap")).toBe(CLUSTER_CONFIGURATION.replace("apiServer: {}", "apiServer:\n  extraArgs:\n  - name: service-node-port-range\n    value: 80-32767"));
    expect(backups(on)).toHaveLength(1);
    expect(on.files(on.backup)[backups(on)[0]]).toBe(MANIFEST);
    expectTidy(on);
    expect(fs.readdirSync(on.at("work"))).toEqual([]);
    expect(await show(on)).toMatchObject({ inForce: true, mark: "first", flag: RANGE, serving: RANGE, kubeadmConfig: RANGE, ready: true, reasons: [], diff: "" });
  });

  test("writes and restarts nothing where the value is there already, and destroying then leaves it", async () => {
    const on = node({ text: EDITED });
    const before = fs.statSync(on.manifest, { bigint: true });
    succeeded(await on.run(APPLY));
    const after = fs.statSync(on.manifest, { bigint: true });
    expect([after.ino, after.mtimeNs]).toEqual([before.ino, before.mtimeNs]);
    expect(on.restarts).toBe(0);
    expect(backups(on)).toEqual([]);
    succeeded(await on.run(RESTORE));
    expect(on.text()).toBe(EDITED);
    expect(on.restarts).toBe(0);
  });

  test("a value the API server rejects: the old manifest is back, its last words are printed, no memory is left", async () => {
    const on = node();
    on.accepts = (range) => range === undefined;
    const outcome = await on.run(APPLY);
    expect(outcome.status).toBe(1);
    expect(outcome.stderr).toContain("the old manifest is back in force");
    expect(outcome.stderr).toContain('invalid argument "80-32767" for "--service-node-port-range"');
    expect(on.text()).toBe(MANIFEST);
    expect(on.restarts).toBe(2);
    expect(on.read("configmap")).toBe(CLUSTER_CONFIGURATION);
    expect(fs.existsSync(path.join(on.backup, "node-port-range"))).toBe(false);
    expectTidy(on);
  });

  test("a rejected second range leaves the first one in force and remembered", async () => {
    const on = node();
    on.accepts = (range) => range !== "90-32767";
    succeeded(await on.run(APPLY));
    expect((await on.run(["apply", "--range", "90-32767", "--timeout", "40"])).status).toBe(1);
    expect(on.text()).toBe(EDITED);
    expect((await show(on)).inForce).toBe(true);
    succeeded(await on.run(RESTORE));
    expect(on.text()).toBe(MANIFEST);
  });

  test("time-out: an API server that serves but never gets ready is put back too", async () => {
    const on = node();
    on.getsReady = (text) => text !== EDITED;
    const outcome = await on.run(["apply", "--range", RANGE, "--timeout", "4"]);
    expect(outcome.status).toBe(1);
    expect(outcome.stderr).toContain("within 4 s");
    expect(on.text()).toBe(MANIFEST);
  });

  test("an API server that keeps restarting is put back long before the time-out", async () => {
    const on = node();
    on.getsReady = (text) => text !== EDITED;
    let count = 0;
    // The newest log has just begun and is empty yet.
    let last = -1;
    const log = (number: number) => {
      // Each log is written once: a log is never empty again.
      if (number === last) return;
      last = number;
      if (number > 0) on.write(`var/log/pods/kube-system_kube-apiserver-node_new/kube-apiserver/${number - 1}.log`, `failed ${number} times\n`);
      on.write(`var/log/pods/kube-system_kube-apiserver-node_new/kube-apiserver/${number}.log`, "");
    };
    const loop = setInterval(() => {
      if (on.text() !== EDITED) return;
      log(Math.floor(count++ / 40));
    }, 20);
    const outcome = await on.run(["apply", "--range", RANGE, "--timeout", "300"]);
    clearInterval(loop);
    expect(outcome).toMatchObject({ status: 1, stderr: expect.stringMatching(/does not start with this value[^]*back in force[^]*failed \d times/) });
    expect(on.text()).toBe(MANIFEST);
  });

  test("an old API server with a history of restarts is no crash loop", async () => {
    const on = node();
    on.getsReady = (text) => text !== EDITED;
    const until = Date.now() + 3000;
    const busy = setInterval(() => {
      if (on.text() !== EDITED) return;
      if (Date.now() >= until) on.write("ready", "");
      on.write("var/log/pods/kube-system_kube-apiserver-node_old/kube-apiserver/7.log", "shutting down\n");
    }, 5);
    const outcome = await on.run(APPLY);
    clearInterval(busy);
    succeeded(outcome);
    expect(on.text()).toBe(EDITED);
  });

  test("keeps the latest five backups, and restores the first state after many changes", async () => {
    const on = node();
    // All in one second: the names do not tell which backup is the newest.
    on.write("bin/date", '#!/bin/sh\ncase "$*" in *%Y%m%d*) echo 20260101T000000Z ;; *) exec /bin/date "$@" ;; esac\n', 0o755);
    for (const low of [80, 81, 82, 83, 84, 85, 86]) succeeded(await on.run(["apply", "--range", `${low}-32767`, "--timeout", "40"]));
    const all = on.files(on.backup);
    expect(backups(on).length).toBeLessThanOrEqual(5);
    expect(backups(on).some((each) => all[each].includes("=85-32767"))).toBe(true);
    succeeded(await on.run(RESTORE));
    expect(on.text()).toBe(MANIFEST);
    expect(on.read("configmap")).toBe(CLUSTER_CONFIGURATION);
  });

  test("kubeadm-config in the older format is a map", async () => {
    const on = node();
    const older = "apiServer:\n  extraArgs:\n    authorization-mode: Node,RBAC\n  timeoutForControlPlane: 4m0s\napiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\n";
    on.write("configmap", older);
    succeeded(await on.run(APPLY));
    expect(on.read("configmap")).toBe(older.replace("extraArgs:\n", "extraArgs:\n    service-node-port-range: 80-32767\n"));
    succeeded(await on.run(RESTORE));
    expect(on.read("configmap")).toBe(older);
  });

  test("a value that stood in kubeadm-config first is left there by restore, on every node", async () => {
    const on = node();
    const prepared = CLUSTER_CONFIGURATION.replace("apiServer: {}", `apiServer:\n  extraArgs:\n  - name: service-node-port-range\n    value: ${RANGE}`);
    on.write("configmap", prepared);
    succeeded(await on.run(APPLY));
    succeeded(await on.run(RESTORE));
    expect(on.read("configmap")).toBe(prepared);
    expect(on.text()).toBe(MANIFEST);
  });

  test("without a kubelet nothing is written, for nothing would restart the API server", async () => {
    const on = node();
    fs.rmSync(on.at("proc/100"), { recursive: true });
    expect(await on.run(APPLY)).toMatchObject({ status: 2, stderr: expect.stringContaining("no kubelet runs on this node") });
    expect(on.text()).toBe(MANIFEST);
    expectTidy(on);
  });

  test("without kubectl and kubeadm-config it says what an upgrade would lose", async () => {
    const on = node();
    fs.rmSync(on.at("etc/kubernetes/admin.conf"));
    on.write("bin/curl", '#!/bin/sh\n[ -e "$NODE/ready" ]\n', 0o755);
    const { stderr } = succeeded(await on.run(APPLY));
    expect(stderr).toContain("a kubeadm upgrade would lose the range");
    expect(on.text()).toBe(EDITED);
  });
});

describe("restore", () => {
  test("puts back the bytes and kubeadm-config of before and forgets", async () => {
    const text = MANIFEST.replace("/12\n", "/12 # ours\n    - '--service-node-port-range=30000-31000' # by hand\n    - --service_node_port_range=30000-32000\n").replace(/\n/g, "\r\n");
    const on = node({ text });
    succeeded(await on.run(APPLY));
    expect(on.argv().filter((each) => each.includes("node"))).toEqual([`--service_node_port_range=${RANGE}`]);
    succeeded(await on.run(RESTORE));
    expect(on.text()).toBe(text);
    expect(on.read("configmap")).toBe(CLUSTER_CONFIGURATION);
    expect(fs.existsSync(on.backup)).toBe(false);
    expectTidy(on);
  });

  test("leaves other people's backups alone", async () => {
    const on = node();
    on.write("etc/kubernetes/backup/etcd.snapshot", "theirs");
    succeeded(await on.run(APPLY));
    succeeded(await on.run(RESTORE));
    expect(on.files(on.backup)).toEqual({ "etcd.snapshot": "theirs" });
  });

  test("does nothing on a node where nothing is remembered, so that it can be run twice", async () => {
    const text = EDITED.replace(RANGE, "30000-40000");
    const on = node({ text });
    succeeded(await on.run(APPLY));
    succeeded(await on.run(RESTORE));
    expect(on.text()).toBe(text);
    expect(succeeded(await on.run(RESTORE)).stdout).toContain("nothing to restore");
    expect(on.text()).toBe(text);
    expect(on.restarts).toBe(2);
  });

  test("after an upgrade that kept the flag and a further apply, never brings the old version back", async () => {
    const on = node();
    succeeded(await on.run(APPLY));
    fs.writeFileSync(on.manifest, EDITED.replace("v1.34.3", "v1.35.0"));
    expect(succeeded(await on.run(APPLY)).stdout).toContain("in force already");
    succeeded(await on.run(RESTORE));
    expect(on.text()).toBe(MANIFEST.replace("v1.34.3", "v1.35.0"));
  });

  test("a roll-back keeps what restore puts back in step with the manifest", async () => {
    const on = node();
    on.accepts = (range) => range !== "90-32767";
    succeeded(await on.run(APPLY));
    fs.writeFileSync(on.manifest, EDITED.replace("v1.34.3", "v1.35.0"));
    expect((await on.run(["apply", "--range", "90-32767", "--timeout", "40"])).status).toBe(1);
    expect(on.text()).toBe(EDITED.replace("v1.34.3", "v1.35.0"));
    fs.writeFileSync(on.manifest, EDITED);
    succeeded(await on.run(RESTORE));
    expect(on.text()).toBe(MANIFEST);
    expectTidy(on);
  });

  test("leaves kubeadm-config to the other control-plane nodes that serve the range; the last one clears it", async () => {
    const on = node();
    succeeded(await on.run(APPLY));
    const taught = on.read("configmap");
    const elsewhere = ` kube-apiserver --advertise-address=10.0.0.3 ${FLAG}\n`;
    // The kubelet has not yet replaced this node's own mirror pod, at which the next node's restore will look.
    on.write("pods", ` kube-apiserver --advertise-address=10.0.0.2 ${FLAG}\n${elsewhere}`);
    const ended = on.run(RESTORE);
    const still = await Promise.race([ended, new Promise((resolve) => setTimeout(() => resolve("waits"), 3000))]);
    expect(still).toBe("waits");
    on.write("pods", ` kube-apiserver --advertise-address=10.0.0.2\n${elsewhere}`);
    expect(succeeded(await ended).stderr).toContain("kubeadm-config keeps 80-32767");
    expect(on.text()).toBe(MANIFEST);
    expect(on.read("configmap")).toBe(taught);
    succeeded(await on.run(APPLY));
    on.write("pods", ` kube-apiserver --advertise-address=10.0.0.2 ${FLAG}\n kube-apiserver --advertise-address=10.0.0.3 --service-node-port-range=90-100\n`);
    succeeded(await on.run(RESTORE));
    expect(on.read("configmap")).toBe(CLUSTER_CONFIGURATION);
  });

  test("does nothing for an owner that another has followed", async () => {
    const on = node();
    succeeded(await on.run([...APPLY, "--owner", "ssh-old"]));
    succeeded(await on.run([...APPLY, "--owner", "ssh-new"]));
    expect(succeeded(await on.run([...RESTORE, "--owner", "ssh-old"])).stdout).toContain("ssh-new has asked for this node's range since");
    expect(on.text()).toBe(EDITED);
    succeeded(await on.run([...RESTORE, "--owner", "ssh-new"]));
    expect(on.text()).toBe(MANIFEST);
  });

  test("after an upgrade rewrote the manifest, takes only the flag away", async () => {
    const on = node();
    succeeded(await on.run([...APPLY, "--mark", "first"]));
    fs.writeFileSync(on.manifest, EDITED.replace("v1.34.3", "v1.35.0"));
    succeeded(await on.run(RESTORE));
    expect(on.text()).toBe(MANIFEST.replace("v1.34.3", "v1.35.0"));
  });
});

describe("drift", () => {
  test("an upgrade that lost the flag is noticed under a new mark, mended, and restored to the upgraded manifest", async () => {
    const on = node();
    succeeded(await on.run([...APPLY, "--mark", "first"]));
    const upgraded = MANIFEST.replace("v1.34.3", "v1.35.0");
    fs.writeFileSync(on.manifest, upgraded);
    on.write("configmap", CLUSTER_CONFIGURATION);
    await new Promise((resolve) => setTimeout(resolve, 100));
    const found = await show(on);
    expect(found).toMatchObject({ inForce: false, flag: null, serving: "absent", kubeadmConfig: "absent" });
    expect(found.mark).not.toBe("first");
    expect((await show(on)).mark).toBe(found.mark);
    expect(found.reasons).toHaveLength(2);
    expect(found.diff).toContain(`+    - ${FLAG}`);
    succeeded(await on.run([...APPLY, "--mark", found.mark]));
    expect(await show(on)).toMatchObject({ inForce: true, mark: found.mark });
    fs.writeFileSync(on.manifest, upgraded);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect((await show(on)).mark).not.toBe(found.mark);
    succeeded(await on.run([...APPLY, "--mark", "third"]));
    succeeded(await on.run(RESTORE));
    expect(on.text()).toBe(upgraded);
  });

  test("kubeadm-config alone is mended without a restart", async () => {
    const on = node();
    succeeded(await on.run(APPLY));
    on.write("configmap", CLUSTER_CONFIGURATION);
    expect(await show(on)).toMatchObject({ inForce: false, diff: "", reasons: [expect.stringContaining("kubeadm-config has absent")] });
    succeeded(await on.run(APPLY));
    expect(await show(on)).toMatchObject({ inForce: true });
    expect(on.restarts).toBe(1);
  });

  test("show changes nothing", async () => {
    const on = node();
    const before = on.files(on.root);
    await show(on);
    succeeded(await on.run(["show"]));
    expect(on.files(on.root)).toEqual(before);
  });
});

describe("guards", () => {
  test("narrowing and destroying are refused while Services hold ports outside, each named", async () => {
    const on = node();
    succeeded(await on.run(APPLY));
    on.write("services", "80 ingress-nginx/controller\n30080 web/shop\n443 ingress-nginx/controller\n");
    for (const args of [RESTORE, ["apply", "--range", "90-32767"]]) {
      const outcome = await on.run(args);
      expect(outcome.status).toBe(2);
      expect(outcome.stderr).toContain("ingress-nginx/controller (80)");
      expect(outcome.stderr).not.toContain("web/shop");
      expect(on.text()).toBe(EDITED);
    }
    expectTidy(on);
    on.write("services", "30080 web/shop\n");
    succeeded(await on.run(RESTORE));
  });

  test("narrowing is refused where the Services cannot be listed, unless told", async () => {
    const on = node();
    on.write("services-fail", "");
    const narrow = ["apply", "--range", "30100-32767", "--timeout", "40"];
    expect(await on.run(narrow)).toMatchObject({ status: 2, stderr: expect.stringContaining("--skip-service-check") });
    expect(on.text()).toBe(MANIFEST);
    succeeded(await on.run([...narrow, "--skip-service-check"]));
  });

  test("ports in use inside the widened range and Services that clash with them are named", async () => {
    const on = node();
    on.write("services", "2379 web/unlucky\n30080 web/shop\n");
    const { stderr } = succeeded(await on.run(APPLY));
    expect(stderr).toContain("in use on this node and inside the new range: 2379 6443;");
    expect(stderr).toContain("web/unlucky (2379)");
    expect(stderr).not.toContain("web/shop");
  });

  describe("a node port of the ingress", () => {
    const ports = ["--ports", "80,443"];
    const refusals = async (on: FakeNode) => (await show(on, ...ports)).refusals;

    test("that is the API server's own is refused, whoever asks, before anything is written", async () => {
      const on = node({ text: MANIFEST.replace("--secure-port=6443", "--secure-port=443") });
      const text = on.text();
      const said = `node port 443 of the ingress is the API server's own port (--secure-port in ${on.manifest})`;
      expect(await refusals(on)).toEqual([said]);
      expect(await on.run([...APPLY, ...ports])).toMatchObject({ status: 2, stderr: expect.stringContaining(said) });
      expect(on.text()).toBe(text);
      expect(backups(on)).toEqual([]);
      // Also where a Service holds it: the API is gone then.
      on.write("services", "443 web/shop\n");
      expect(await refusals(on)).toEqual([said]);
    });

    test("on which a program of the node listens is refused, with the program; what a Service holds is its platform's", async () => {
      const on = node();
      on.listen(443, "haproxy", 812);
      const said = "node port 443 of the ingress is in use on this node: haproxy (process 812) listens there";
      expect(await refusals(on)).toEqual([said]);
      expect((await show(on)).refusals).toEqual([]);
      expect(await on.run([...APPLY, ...ports])).toMatchObject({ status: 2, stderr: expect.stringContaining(said) });
      expect(on.text()).toBe(MANIFEST);
      on.write("services", "443 ingress-nginx/ingress-nginx-controller\n");
      expect(await refusals(on)).toEqual([]);
      expect((await show(on, ...ports)).warnings.join()).toContain("ingress-nginx/ingress-nginx-controller (443)");
      succeeded(await on.run([...APPLY, ...ports]));
      // Where the Services cannot be listed, a range in force is a platform that is there.
      on.write("services-fail", "");
      expect(await refusals(on)).toEqual([]);
    });

    test("that kube-proxy holds open is kube-proxy's; of a socket without a program it is said so", async () => {
      const on = node();
      on.listen(80, "kube-proxy", 900);
      on.listen(443, "haproxy", 812);
      fs.rmSync(on.at("proc/812"), { recursive: true });
      expect(await refusals(on)).toEqual(["node port 443 of the ingress is in use on this node: a program listens there"]);
      expect((await on.run(["show", "--range", RANGE, ...ports])).stdout).toContain("refused         node port 443");
      expect(await on.run(["show", "--ports", "80;x"])).toMatchObject({ status: 2, stderr: expect.stringContaining("--ports 80;x: expected numbers") });
    });
  });

  describe("/readyz", () => {
    test.each([
      ["localhost behind an advertised address that is not the node's", MANIFEST, "127.0.0.1:6443"],
      ["the advertised address alone", MANIFEST, "10.0.0.2:6443"],
      ["the bind address", MANIFEST.replace("    - --secure", "    - --bind-address=192.0.2.7\n    - --secure"), "192.0.2.7:6443"],
      ["an IPv6 address", MANIFEST.replace("    - --secure", "    - '--bind-address=::'\n    - --secure"), "[::1]:6443"],
    ])("is asked at %s", async (_, text, at) => {
      const on = node({ text });
      on.write("bin/curl", "#!/bin/sh\nexit 1\n", 0o755);
      on.write("answers-at", at);
      expect(await show(on)).toMatchObject({ ready: true, kubeadmConfig: "absent", refusals: [] });
      succeeded(await on.run(APPLY));
      expect(on.restarts).toBe(1);
      expect(on.read("configmap")).toContain("service-node-port-range");
    });

    test("that answers nowhere, though the API server runs: refused before anything is written", async () => {
      const on = node();
      on.write("bin/curl", "#!/bin/sh\nexit 1\n", 0o755);
      on.write("answers-at", "203.0.113.9:6443");
      const said = "/readyz answers 200 at none of 127.0.0.1:6443 10.0.0.2:6443";
      expect((await show(on)).refusals).toEqual([expect.stringContaining(said)]);
      expect(await on.run(APPLY)).toMatchObject({ status: 2, stderr: expect.stringContaining(said) });
      expect(on.text()).toBe(MANIFEST);
      expect(on.restarts).toBe(0);
      expect(fs.existsSync(on.backup)).toBe(false);
      expectTidy(on);
    });
  });

  test("the range is kept from local port allocation on request, and given back", async () => {
    const on = node();
    const sysctl = "proc/sys/net/ipv4/ip_local_reserved_ports";
    on.write(sysctl, "40000-40010,32000-33000\n");
    succeeded(await on.run([...APPLY, "--reserve-local-ports"]));
    expect(on.read(sysctl)).toBe("80-33000,40000-40010\n");
    expect(on.read("etc/sysctl.d/99-node-port-range.conf")).toContain("net.ipv4.ip_local_reserved_ports = 80-33000,40000-40010\n");
    expect(await show(on, "--reserve-local-ports")).toMatchObject({ inForce: true });
    succeeded(await on.run(["apply", "--range", "100-32767", "--timeout", "40", "--reserve-local-ports"]));
    expect(on.read(sysctl)).toBe("100-33000,40000-40010\n");
    succeeded(await on.run(RESTORE));
    expect(on.read(sysctl)).toBe("40000-40010,32000-33000\n");
    expect(fs.existsSync(on.at("etc/sysctl.d/99-node-port-range.conf"))).toBe(false);
  });
});

describe("finding the manifest", () => {
  test.each([
    ["the kubelet's configuration", { folder: "opt/pods" }],
    ["--config in two words", { folder: "opt/pods", kubelet: ["--config", "/var/lib/kubelet/config.yaml"] }],
    ["a folder relative to the configuration", { folder: "var/lib/kubelet/pods", config: "staticPodPath: pods\n" }],
    ["the kubelet's flag", { folder: "opt/pods", kubelet: ["--config=/var/lib/kubelet/config.yaml", "--pod-manifest-path=/opt/pods/"], config: "staticPodPath: /elsewhere\n" }],
    ["another file name", { file: "10-api.yaml" }],
  ])("by %s", async (_, options) => {
    const on = node(options);
    succeeded(await on.run(APPLY));
    expect(on.text()).toBe(EDITED);
  });

  test("by a drop-in of the kubelet's configuration", async () => {
    const on = node({ folder: "opt/pods", kubelet: ["--config=/var/lib/kubelet/config.yaml", "--config-dir=/etc/kubelet.d"], config: "staticPodPath: /elsewhere\n" });
    on.write("etc/kubelet.d/10-pods.conf", '{"staticPodPath": "/opt/pods"}');
    succeeded(await on.run(APPLY));
    expect(on.text()).toBe(EDITED);
  });

  test("as JSON", async () => {
    const pod = { kind: "Pod", spec: { containers: [{ name: "kube-apiserver", command: ["kube-apiserver"], args: ["--v=2", "--advertise-address=10.0.0.2"] }] } };
    const on = node({ file: "kube-apiserver.json", text: JSON.stringify(pod, null, 4) });
    succeeded(await on.run(APPLY));
    expect(on.argv()).toEqual(["kube-apiserver", "--v=2", "--advertise-address=10.0.0.2", FLAG]);
    succeeded(await on.run(RESTORE));
    expect(on.text()).toBe(JSON.stringify(pod, null, 4));
  });

  test("a second manifest, such as a backup copy that the kubelet reads too, is refused", async () => {
    const on = node();
    fs.copyFileSync(on.manifest, `${on.manifest}.bak`);
    const outcome = await on.run(APPLY);
    expect(outcome).toMatchObject({ status: 2, stderr: expect.stringContaining("kube-apiserver.yaml.bak") });
    expect(on.text()).toBe(MANIFEST);
  });

  test("a file that only mentions kube-apiserver is not taken for it", async () => {
    const on = node();
    fs.writeFileSync(path.join(on.manifests, "etcd.yaml"), "kind: Pod\nspec:\n  containers:\n  - name: etcd\n    command: [etcd]\n    # beside kube-apiserver\n");
    succeeded(await on.run(APPLY));
    expect(on.text()).toBe(EDITED);
  });
});

describe("two runs at once", () => {
  test("do not interleave: the second waits and finds its work done", async () => {
    const on = node();
    const outcomes = await Promise.all([on.run(APPLY), on.run(APPLY), on.run(APPLY)]);
    outcomes.forEach(succeeded);
    expect(outcomes.filter(({ stdout }) => stdout.includes("in force already"))).toHaveLength(2);
    expect(on.text()).toBe(EDITED);
    expect(on.restarts).toBe(1);
    expectTidy(on);
  });

  test("the lock of a process that is gone is taken over; that of a living one is not", async () => {
    const on = node();
    on.write("run/node-port-range.lock.999999999.12345", "");
    on.write("work/node-port-range.999999999.12345/new", "");
    succeeded(await on.run(APPLY));
    expectTidy(on);
    expect(fs.readdirSync(on.at("work"))).toEqual([]);
    const started = fs.readFileSync(`/proc/${process.pid}/stat`, "utf8").replace(/.*\) /s, "").split(" ")[19];
    on.write(`run/node-port-range.lock.${process.pid}.${started}`, "");
    const outcome = await on.run(["apply", "--range", RANGE, "--timeout", "2"]);
    expect(outcome).toMatchObject({ status: 2, stderr: expect.stringContaining(`process ${process.pid}`) });
    expect(fs.readdirSync(on.at("run"))).toEqual([`node-port-range.lock.${process.pid}.${started}`]);
    fs.renameSync(on.at(`run/node-port-range.lock.${process.pid}.${started}`), on.at(`run/node-port-range.lock.${process.pid}.${Number(started) - 1}`));
    succeeded(await on.run(APPLY));
    expectTidy(on);
  });
});

/** A small disk of its own, at this folder of the node; undefined where this user may not mount. */
function smallDisk(folder: string): boolean {
  fs.mkdirSync(folder, { recursive: true });
  return spawnSync("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]).status === 0;
}
const fill = (folder: string) => spawnSync("dd", ["if=/dev/zero", `of=${folder}/fill`, "bs=4k"]);

(process.getuid?.() === 0 ? describe : describe.skip)("a full disk", () => {
  test("before the change: refused, nothing is changed and nothing stays behind", async () => {
    const on = node();
    const folder = on.at("disk");
    if (!smallDisk(folder)) throw new Error("cannot mount a tmpfs");
    try {
      fs.writeFileSync(path.join(folder, "api.yaml"), MANIFEST);
      for (const room of [0, 4096, 8192, 12288, 16384]) {
        fill(folder);
        fs.truncateSync(path.join(folder, "fill"), fs.statSync(path.join(folder, "fill")).size - room);
        const outcome = await on.run(["apply", "--range", RANGE, "--manifest", path.join(folder, "api.yaml")]);
        expect(fs.readFileSync(path.join(folder, "api.yaml"), "utf8")).toBe(outcome.status === 0 ? EDITED : MANIFEST);
        if (outcome.status === 0) break;
        expect(outcome).toMatchObject({ status: 2, stderr: expect.stringContaining("nothing was changed") });
        expect(fs.readdirSync(folder).sort()).toEqual(["api.yaml", "fill"]);
      }
    } finally {
      spawnSync("umount", [folder]);
    }
  });

  test("at the moment of the roll-back: the old manifest comes back whole", async () => {
    const on = node({ folder: "disk/manifests" });
    const folder = on.at("disk");
    if (!smallDisk(folder)) throw new Error("cannot mount a tmpfs");
    try {
      fs.mkdirSync(on.manifests);
      fs.writeFileSync(on.manifest, MANIFEST, { mode: 0o640 });
      fs.rmSync(on.at("work"), { recursive: true });
      fs.mkdirSync(path.join(folder, "work"));
      on.accepts = (range) => {
        if (range !== undefined) fill(folder);
        return range === undefined;
      };
      const outcome = await on.run(APPLY, { TMPDIR: path.join(folder, "work") });
      expect(fs.readFileSync(on.manifest, "utf8")).toBe(MANIFEST);
      expect(outcome).toMatchObject({ status: 1, stderr: expect.stringContaining("the old manifest is back in force") });
    } finally {
      spawnSync("umount", [folder]);
    }
  });
});

describe("lost power", () => {
  const steps = ["lock", "state", "backup", "journal", "temp", "rename", "serving", "reserve", "kubeadm", "record"];
  const whole = [MANIFEST, EDITED];

  test.each(steps)("after step %s of apply: the manifest is whole, and a second run completes it", async (step) => {
    const on = node();
    expect(await on.run(APPLY, { NODE_PORT_RANGE_TEST_KILL_AFTER: step })).toMatchObject({ signal: "SIGKILL" });
    expect(whole).toContain(on.text());
    expect(fs.readdirSync(on.manifests).filter((each) => !each.startsWith("."))).toEqual(["kube-apiserver.yaml"]);
    succeeded(await on.run(APPLY));
    expect(on.text()).toBe(EDITED);
    expect(on.restarts).toBe(1);
    expectTidy(on);
    expect((await show(on)).inForce).toBe(true);
    succeeded(await on.run(RESTORE));
    expect(on.text()).toBe(MANIFEST);
    expect(on.read("configmap")).toBe(CLUSTER_CONFIGURATION);
  });

  test.each(steps)("after step %s of apply: restore undoes what there is", async (step) => {
    const on = node();
    expect(await on.run(APPLY, { NODE_PORT_RANGE_TEST_KILL_AFTER: step })).toMatchObject({ signal: "SIGKILL" });
    succeeded(await on.run(RESTORE));
    expect(on.text()).toBe(MANIFEST);
    expect(on.read("configmap")).toBe(CLUSTER_CONFIGURATION);
    expectTidy(on);
  });

  test.each(steps)("after step %s of restore: the manifest is whole, and a second run completes it", async (step) => {
    const on = node();
    succeeded(await on.run(APPLY));
    expect(await on.run(RESTORE, { NODE_PORT_RANGE_TEST_KILL_AFTER: step })).toMatchObject({ signal: "SIGKILL" });
    expect(whole).toContain(on.text());
    succeeded(await on.run(RESTORE));
    expect(on.text()).toBe(MANIFEST);
    expect(on.restarts).toBe(2);
    expect(on.read("configmap")).toBe(CLUSTER_CONFIGURATION);
    expectTidy(on);
  });

  test("between a bad value and its roll-back: the next run still knows what to put back", async () => {
    const on = node();
    on.accepts = (range) => range === undefined;
    expect(await on.run(APPLY, { NODE_PORT_RANGE_TEST_KILL_AFTER: "rename" })).toMatchObject({ signal: "SIGKILL" });
    expect(on.text()).toBe(EDITED);
    const outcome = await on.run(["apply", "--range", RANGE, "--timeout", "4"]);
    expect(outcome).toMatchObject({ status: 1, stderr: expect.stringContaining("back in force") });
    expect(on.text()).toBe(MANIFEST);
    expectTidy(on);
  });
});

describe("by hand, on a plain file", () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "node-port-range-plain-"));
  const file = path.join(folder, "api.yaml");
  afterAll(() => fs.rmSync(folder, { recursive: true }));
  beforeEach(() => {
    fs.rmSync(folder, { recursive: true });
    fs.mkdirSync(folder);
    fs.writeFileSync(file, MANIFEST);
  });

  test("apply and restore need no cluster and leave nothing but the file", async () => {
    const on = node();
    succeeded(await on.run(["apply", "--range", RANGE, `--manifest=${file}`]));
    expect(fs.readFileSync(file, "utf8")).toBe(EDITED);
    succeeded(await on.run(["restore", "--manifest", file]));
    expect(fs.readFileSync(file, "utf8")).toBe(MANIFEST);
    expect(fs.readdirSync(folder)).toEqual(["api.yaml"]);
    expect(on.restarts).toBe(0);
  });

  test("restore without memory removes the flag, or sets the range it is given", async () => {
    fs.writeFileSync(file, EDITED);
    const on = node();
    succeeded(await on.run(["restore", "--range", "30000-31000", "--manifest", file]));
    expect(fs.readFileSync(file, "utf8")).toBe(EDITED.replace(RANGE, "30000-31000"));
    succeeded(await on.run(["restore", "--manifest", file]));
    expect(fs.readFileSync(file, "utf8")).toBe(MANIFEST);
  });

  test("--dry-run prints a unified diff and writes nothing", async () => {
    const on = node();
    const { stdout } = succeeded(await on.run(["apply", "--range", RANGE, "--manifest", file, "--dry-run"]));
    expect(stdout).toContain(`--- ${file}\n+++ ${file} (changed)\n@@ `);
    expect(stdout.split("\n").filter((line) => /^[+-] /.test(line))).toEqual([`+    - ${FLAG}`]);
    expect(fs.readdirSync(folder)).toEqual(["api.yaml"]);
    expect(fs.readFileSync(file, "utf8")).toBe(MANIFEST);
    const live = on.files(on.root);
    expect(succeeded(await on.run([...APPLY, "--dry-run"])).stdout).toContain(`+    - ${FLAG}`);
    expect(on.files(on.root)).toEqual(live);
  });

  test("a symbolic link stays one", async () => {
    const link = path.join(folder, "link.yaml");
    fs.symlinkSync("api.yaml", link);
    succeeded(await node().run(["apply", "--range", RANGE, "--manifest", link]));
    expect(fs.readlinkSync(link)).toBe("api.yaml");
    expect(fs.readFileSync(file, "utf8")).toBe(EDITED);
  });

  test.each([
    ["no command", []],
    ["an unknown command", ["patch"]],
    ["an unknown option", ["apply", "--force"]],
    ["no range", ["apply"]],
    ["an option without value", ["apply", "--range"]],
    ["a port too high", ["apply", "--range", "80-65536"]],
    ["a range the wrong way round", ["apply", "--range", "90-80"]],
    ["port 0", ["apply", "--range", "0-80"]],
    ["one port", ["apply", "--range", "80"]],
    ["a command in the range", ["apply", "--range", "80-90;reboot"]],
    ["a mark that is a command", ["apply", "--range", RANGE, "--mark", "a b"]],
    ["a time-out that is none", ["apply", "--range", RANGE, "--timeout", "soon"]],
    ["a file that is not there", ["apply", "--range", RANGE, "--manifest", "/nowhere/api.yaml"]],
  ])("%s is bad input: 2, and the file untouched", async (_, args) => {
    const outcome = await node().run([...args, ...(args.includes("--manifest") || args.length === 0 ? [] : ["--manifest", file])]);
    expect(outcome.status).toBe(2);
    expect(outcome.stderr).not.toBe("");
    expect(fs.readFileSync(file, "utf8")).toBe(MANIFEST);
    expect(fs.readdirSync(folder)).toEqual(["api.yaml"]);
  });

  test.each([
    ["a folder", (folder: string) => folder, "is a folder; expected the manifest file in it"],
    ["a file that is not there", (folder: string) => path.join(folder, "nope.yaml"), "no such file"],
  ])("--manifest with %s is named as such", async (_, manifest, says) => {
    const outcome = await node().run(["apply", "--range", RANGE, "--manifest", manifest(folder)]);
    expect(outcome).toMatchObject({ status: 2, stderr: expect.stringContaining(says) });
  });

  test.each([
    ["no YAML", "a: [b\n"],
    ["another Pod", "kind: Pod\nspec:\n  containers:\n  - name: etcd\n    command: [etcd]\n"],
    ["no list of containers", "kind: Pod\nspec: {}\n"],
    ["a shell line", 'kind: Pod\nspec:\n  containers:\n  - name: kube-apiserver\n    command: [/bin/sh, -c, "exec kube-apiserver --v=2"]\n'],
    ["neither command nor args", "kind: Pod\nspec:\n  containers:\n  - name: kube-apiserver\n    image: x\n"],
    ["a list behind an alias", "x: &a [kube-apiserver]\nspec:\n  containers:\n  - name: kube-apiserver\n    command: *a\n"],
    ["a flag without its value", "spec:\n  containers:\n  - name: kube-apiserver\n    command:\n    - kube-apiserver\n    - --service-node-port-range\n"],
    ["two documents", `${MANIFEST}---\nkind: Pod\n`],
    ["an empty file", ""],
    ["a control character", `${MANIFEST}# \u0007\n`],
  ])("a manifest that cannot be edited safely (%s) is refused with 2", async (_, text) => {
    fs.writeFileSync(file, text);
    const outcome = await node().run(["apply", "--range", RANGE, "--manifest", file]);
    expect(outcome.status).toBe(2);
    expect(outcome.stderr).toContain(file);
    expect(fs.readFileSync(file, "utf8")).toBe(text);
    expect(fs.readdirSync(folder)).toEqual(["api.yaml"]);
  });
});

test("--help names every option and step that the script knows", async () => {
  const { stdout } = succeeded(await node().run(["--help"]));
  const text = SCRIPT;
  const parsed = text.slice(text.indexOf("\nmain() {")).match(/--[a-z][a-z-]+/g) ?? [];
  for (const option of new Set(parsed)) expect(stdout).toContain(option);
  for (const word of ["show", "apply", "restore", "80-32767"]) expect(stdout).toContain(word);
  const steps = new Set([...text.matchAll(/^\s*step (\w+)/gm)].map(([, step]) => step));
  for (const step of steps) expect(text.slice(0, text.indexOf("set -u"))).toContain(step);
});

test("runs from the repository as from one text, and the text is whole or not printed", async () => {
  const on = node();
  const script = path.join(SCRIPTS, "node-port-range.sh");
  succeeded(await on.run(APPLY, {}, "sh", script));
  expect(on.text()).toBe(EDITED);
  expect((await on.run(["show"], {}, "sh", script)).stdout).toBe((await on.run(["show"])).stdout);

  fs.cpSync(SCRIPTS, on.at("scripts"), { recursive: true });
  fs.rmSync(on.at("scripts/guards.sh"));
  const bundled = await on.run([], {}, "sh", on.at("scripts/bundle.sh"));
  expect(bundled).toMatchObject({ status: 1, stderr: "bundle.sh: there is no guards.sh\n" });
});

const found = (program: string) => (process.env.PATH ?? "").split(":").map((each) => path.join(each, program)).find((each) => fs.existsSync(each));
/** Shells and awks that nodes may have, as far as this machine has them too. */
const tools = [
  ["the default shell and awk", "sh", "awk"],
  ["dash and mawk", "dash", "mawk"],
  ["bash and gawk", "bash", "gawk"],
  ["busybox", "busybox", "busybox"],
].filter(([, shell, awk]) => found(shell) && found(awk));

test.each(tools)("works with %s", async (_, shell, awk) => {
  const on = node();
  fs.symlinkSync(found(shell) as string, on.at("bin/sh"));
  fs.symlinkSync(found(awk) as string, on.at("bin/awk"));
  succeeded(await on.run(APPLY, {}, on.at("bin/sh")));
  expect(on.text()).toBe(EDITED);
  expect((await show(on)).inForce).toBe(true);
  succeeded(await on.run(RESTORE, {}, on.at("bin/sh")));
  expect(on.text()).toBe(MANIFEST);
  expect(on.read("configmap")).toBe(CLUSTER_CONFIGURATION);
});
