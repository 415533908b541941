import { awayWith, hostSelector, lostAmong, nodesOf } from "../../cli/backup/objects";
import { nodeOf } from "../../cli/failover/plan";

/** On which nodes a volume lies. The kubelet of a host is told another name for its node than for its label, as cloud providers do. */

const node = (host: string, ready: string) => ({ metadata: { name: `${host}.test`, labels: { "kubernetes.io/hostname": host, zone: "z" } }, status: { conditions: [{ type: "Ready", status: ready }] } });
const nodes = [node("a", "True"), node("b", "Unknown")];
const volume = (key?: string, ...values: string[]) => ({ spec: key ? { nodeAffinity: { required: { nodeSelectorTerms: [{ matchExpressions: [{ key, operator: "In", values }] }] } } } : {} });
const on = (...hosts: string[]) => volume("kubernetes.io/hostname", ...hosts);

test.each([
  ["its node's label", on("b"), ["b.test"], "b.test"],
  ["the label of a node that the cluster has no more", on("gone"), ["gone"], "gone"],
  ["the labels of two nodes, one of which is gone", on("gone", "a"), ["a.test"], "a.test"],
  ["a label that several have", volume("zone", "z"), ["a.test", "b.test"], ""],
  ["nothing", volume(), [], ""],
])("a volume that asks for %s", (_, asking, all, one) => {
  expect(nodesOf(asking, nodes)).toEqual(all);
  expect(nodeOf(asking, nodes)).toBe(one);
});

test("nodes are lost that do not answer, and those that the cluster does not have", () => {
  expect(["a.test", "b.test", "a"].map(lostAmong(nodes))).toEqual([false, true, true]);
});

test("a volume is away with its node, not while another one has it", () => {
  expect([on("a"), on("b"), on("gone"), on("a", "b"), volume("zone", "z"), volume()].map((each) => awayWith(each, nodes))).toEqual([undefined, "b.test", "gone", undefined, undefined, undefined]);
});

test("a pod that must run on a node asks for the node's label", () => {
  expect(hostSelector("a.test", nodes[0])).toEqual({ "kubernetes.io/hostname": "a" });
  expect(hostSelector("n1", { metadata: { labels: {} } })).toEqual({ "kubernetes.io/hostname": "n1" });
});
