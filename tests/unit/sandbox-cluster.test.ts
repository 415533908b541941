import * as fs from "node:fs";
import * as path from "node:path";
import { parseAllDocuments } from "yaml";
import { newestMinor, supportedMinors, versionRemark } from "../../checks/kubernetes";
import { kubernetesVersion, pinnedVersion } from "../../sandbox/cluster/binaries";
import { initConfig } from "../../sandbox/cluster/kubeadm";
import { addressOf, cgroupRoots, delegatingRoots, nodeNamed, podSubnetOf } from "../../sandbox/cluster/nodes";
import { systemImages } from "../../sandbox/cluster/system-images";
import { environment } from "../../sandbox/environment";
import { REPO } from "../../sandbox/paths";

describe("the sandbox's cluster", () => {
  test("the Pulumi CLI that is built is the version of the npm package", () => {
    const { dependencies } = JSON.parse(fs.readFileSync(path.join(REPO, "package.json"), "utf8")) as { dependencies: Record<string, string> };
    expect(pinnedVersion("pulumi", "github.com/pulumi/pulumi/pkg/v3")).toBe(`v${dependencies["@pulumi/pulumi"]}`);
  });

  test("each supported release of Kubernetes can be had, and no other has pins", () => {
    for (const minor of supportedMinors) {
      expect(kubernetesVersion(minor)).toMatch(new RegExp(`^v${minor.replace(".", "[.]")}[.]\\d+$`));
      expect(versionRemark(kubernetesVersion(minor))).toBe("");
    }
    const pins = fs.readdirSync(path.join(REPO, "sandbox/go/kubernetes")).filter((file) => file.endsWith(".mod"));
    expect(pins.sort()).toEqual([...supportedMinors.filter((minor) => minor !== newestMinor).map((minor) => `${minor}.mod`), "go.mod"].sort());
  });

  test("a pin that is not there is named", () => {
    expect(() => pinnedVersion("etcd", "example.com/none")).toThrow("sandbox/go/etcd/go.mod does not require example.com/none");
  });

  test("no two nodes share an address or a pod subnet", () => {
    const names = [...Array(8).keys()].map((i) => `control-plane-${i + 1}`).concat([...Array(20).keys()].map((i) => `worker-${i + 1}`));
    const nodes = names.map(nodeNamed);
    expect(new Set(nodes.map(addressOf)).size).toBe(names.length);
    expect(new Set(nodes.map(podSubnetOf)).size).toBe(names.length);
    expect(addressOf(nodeNamed("control-plane-1"))).toBe("10.88.0.2");
    expect(addressOf(nodeNamed("worker-1"))).toBe("10.88.0.11");
  });

  test("a v2 tree's controllers are handed down only where no v1 hierarchy serves: in a container with both the kernel refuses that", () => {
    const v1 = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n";
    const v2 = (folder: string) => `proc /proc proc rw 0 0\ncgroup2 ${folder} cgroup2 rw 0 0\n`;
    expect(delegatingRoots(cgroupRoots(v2("/sys/fs/cgroup")))).toEqual(["/sys/fs/cgroup"]);
    expect(cgroupRoots(v1 + v2("/sys/fs/cgroup/unified"))).toEqual({ v1: ["/sys/fs/cgroup/cpu"], v2: ["/sys/fs/cgroup/unified"] });
    expect(delegatingRoots(cgroupRoots(v1 + v2("/sys/fs/cgroup/unified")))).toEqual([]);
  });

  test.each(["", "node-1", "worker-0", "worker-", "control-plane-9", "worker-1; rm -rf /"])("%p is no node's name", (name) => {
    expect(() => nodeNamed(name)).toThrow(/sandbox/);
  });

  test("kubeadm gets every document, and nothing about node ports: that is the stack's work", () => {
    const text = initConfig(nodeNamed("control-plane-1"), kubernetesVersion(newestMinor));
    const kinds = parseAllDocuments(text).map((document) => document.toJS().kind);
    expect(kinds).toEqual(["InitConfiguration", "ClusterConfiguration", "KubeletConfiguration", "KubeProxyConfiguration"]);
    expect(text).not.toContain("service-node-port-range");
    expect(text).toContain("/bp-control-plane-1");
  });

  test("kubeadm's images are named as kubeadm lists them", () => {
    const listed = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"].map((name) => `registry.k8s.io/${name}:v1.37.2`);
    const images = systemImages([...listed, "registry.k8s.io/coredns/coredns:v1.14.6", "registry.k8s.io/pause:3.10.2", "registry.k8s.io/etcd:3.7.0-0"]);
    expect(images.map((image) => image.reference)).toEqual(expect.arrayContaining([...listed, "registry.k8s.io/etcd:3.7.0-0"]));
    expect(images.filter((image) => image.everyNode).map((image) => image.binary)).toEqual(["kube-proxy", "coredns", "pause"]);
    expect(() => systemImages(listed)).toThrow("no etcd");
  });

  test("official plugins on the caller's PATH win over the offline ones", () => {
    expect(environment().PATH).toMatch(/^\$PATH:/);
  });
});
