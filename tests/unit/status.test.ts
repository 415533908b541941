import { spawnSync } from "node:child_process";
import * as path from "node:path";
import fc from "fast-check";
import { root } from "../../cli/repository";
import { age, allWell, htmlPage, rangeOf, summary, terminalPage, type Facts } from "../../cli/status";

const time = new Date("2026-11-23T12:00:00Z");
const before = (seconds: number) => new Date(time.getTime() - seconds * 1000);
const good = { status: "ok", time: before(7200).toISOString(), snapshot: "0123456789abcdef", bytes: 3 * 2 ** 20, upkeep: before(3 * 86_400).toISOString() };

const facts = (over: Partial<Facts> = {}): Facts => ({
  stack: "prod", url: "https://ci.example.com/", time, trouble: [],
  controller: { ready: true, state: "ready", image: "i", node: "n1", restarts: 0, since: before(90_000) },
  refused: "",
  agents: [{ name: "maven-1", template: "maven", phase: "Running", node: "n1", since: before(30) }, { name: "maven-2", template: "maven", phase: "Pending", node: "", since: before(5) }],
  queue: [{ job: "app", why: "Waiting for next available executor", since: before(200) }],
  volume: { phase: "Bound", storageClass: "openebs-hostpath", node: "n1", requested: "20Gi", usedKib: 3 * 2 ** 20 },
  backup: { last: good, lastGood: good },
  nodePorts: [{ node: "n1", range: "80-32767" }],
  ...over,
});
const row = (what: string, over: Partial<Facts> = {}) => summary(facts(over)).find((each) => each.what === what)!;

test.each([[0, "0 s"], [119, "119 s"], [120, "2 min"], [7199, "119 min"], [7200, "2 h"], [172_799, "47 h"], [172_800, "2 d"], [-5, "0 s"]])("%d seconds are %s", (seconds, text) => {
  expect(age(before(seconds), time)).toBe(text);
});

describe("the summary", () => {
  test("of a platform in order", () => {
    expect(allWell(facts())).toBe(true);
    expect(row("controller").text).toBe("ready for 25 h on n1");
    expect(row("configuration").text).toBe("in force");
    expect(row("agents").text).toBe("1 running, 1 on their way");
    expect(row("queue").text).toBe("1 waiting, the first for 3 min");
    expect(row("home volume").text).toBe("Bound, 3.0 GiB used of 20Gi asked for, openebs-hostpath on n1");
    expect(row("last backup").text).toContain("good 2 h ago");
    expect(row("last backup").text).toContain("3.0 MiB, snapshot 01234567");
    expect(row("last backup").text).toContain("repository checked 3 d ago");
    expect(row("last backup", { backup: { last: good, lastGood: { ...good, upkeep: "" } } }).text).toContain("repository never checked");
    expect(row("node-port range").text).toBe("80-32767 on 1 control-plane node");
  });

  test.each<[string, string, Partial<Facts>, RegExp]>([
    ["a controller that fails to start", "controller", { controller: { ready: false, state: "CrashLoopBackOff", image: "i", node: "n1", restarts: 6 } }, /CrashLoopBackOff on n1, 6 restarts/],
    ["a configuration that Jenkins refused", "configuration", { refused: "Jenkins refuses the changed configuration (status 500): jenkins.labl: not known" }, /refuses.*jenkins\.labl/],
    ["a registry that a node does not reach", "registry", { registry: { ready: true, nodes: 2, of: 3 } }, /ready, answers on 2 of 3 nodes/],
    ["an image cache that is away", "image cache", { imageCache: { ready: false } }, /^not ready/],
    ["a registry that is away", "registry", { registry: { ready: false, nodes: 3, of: 3 } }, /^not ready/],
    ["an unbound volume", "home volume", { volume: { phase: "Pending", storageClass: "c", node: "", requested: "1Gi" } }, /Pending, use unknown/],
    ["no backup", "last backup", { backup: "off" }, /no backup/],
    ["no good backup yet", "last backup", { backup: {} }, /no good one yet/],
    ["an old backup", "last backup", { backup: { last: good, lastGood: { ...good, time: before(3 * 86_400).toISOString() } } }, /good 3 d ago/],
    ["a failed backup after a good one", "last backup", { backup: { last: { status: "failed", time: before(60).toISOString(), message: "repository is gone" }, lastGood: good } }, /good 2 h ago.*latest failed: repository is gone/],
    ["API servers with different ranges", "node-port range", { nodePorts: [{ node: "a", range: "80-32767" }, { node: "b", range: "30000-32767" }] }, /80-32767 on a, 30000-32767 on b/],
  ])("%s needs somebody", (_, what, over, text) => {
    expect(row(what, over)).toMatchObject({ good: false, text: expect.stringMatching(text) });
    expect(allWell(facts(over))).toBe(false);
  });

  test.each(["controller", "refused", "agents", "queue", "volume", "backup", "nodePorts"] as const)("%s unread is not well", (part) => {
    expect(allWell(facts({ [part]: undefined }))).toBe(false);
  });

  test("a registry of the stack's own has a line, another's none", () => {
    expect(row("registry", { registry: { ready: true, nodes: 3, of: 3 } })).toMatchObject({ good: true, text: "ready, answers on 3 of 3 nodes" });
    expect(row("registry")).toBeUndefined();
    expect(row("image cache", { imageCache: { ready: true } })).toMatchObject({ good: true, text: "ready" });
    expect(row("image cache")).toBeUndefined();
  });

  describe("of a standby", () => {
    const newest = { ...good, time: before(240).toISOString() };
    const followed = { status: "ok" as const, time: before(200).toISOString(), snapshot: newest.snapshot, taken: newest.time };
    const standby = { node: "n2", answers: true, last: followed, good: followed, everyMinutes: 5 };
    const backup = { last: newest, lastGood: newest };
    const other = { ...followed, snapshot: "fedcba9876543210", taken: before(540).toISOString() };
    const late = { ...newest, time: before(720).toISOString() };

    test("says of which snapshot it is", () => {
      expect(row("standby", { standby, backup })).toEqual({ what: "standby", good: true, text: "on n2; as snapshot 01234567, taken 4 min ago; nothing behind" });
      expect(row("standby")).toBeUndefined();
    });

    test("that is a minute behind is well", () => {
      expect(row("standby", { standby: { ...standby, good: other }, backup })).toMatchObject({ good: true, text: "on n2; as snapshot fedcba98, taken 9 min ago; behind snapshot 01234567 of 4 min ago" });
    });

    test.each<[string, Partial<Facts>, RegExp]>([
      ["stays behind", { standby: { ...standby, good: other }, backup: { last: late, lastGood: late } }, /behind snapshot 01234567 of 12 min ago/],
      ["has no new snapshots to follow", { standby: { ...standby, good: { ...followed, taken: before(960).toISOString() } }, backup }, /taken 16 min ago/],
      ["was never filled", { standby: { node: "n2", answers: true }, backup }, /^on n2; never brought up to date$/],
      ["has no volume", { standby: { node: "", answers: false }, backup }, /^no volume yet/],
      ["lies beside the home", { standby: { ...standby, node: "n1" }, backup }, /on n1, the home's own node/],
      ["lies on a node that is gone", { standby: { ...standby, answers: false }, backup }, /on n2, which does not answer/],
      ["could not be updated", { standby: { ...standby, last: { status: "failed", time: newest.time, message: "disk full" } }, backup }, /nothing behind; the latest update failed: disk full/],
      ["is the former home", { standby: { ...standby, last: { status: "former", time: newest.time, message: "holds the former home" } }, backup }, /^on n2; holds the former home$/],
    ])("that %s needs somebody", (_, over, text) => {
      expect(row("standby", over)).toMatchObject({ good: false, text: expect.stringMatching(text) });
    });
  });

  test("any trouble is not well", () => {
    expect(allWell(facts({ trouble: ["queue: socket hang up"] }))).toBe(false);
  });
});

test("the terminal page names agents, queue and trouble", () => {
  const page = terminalPage(facts({ trouble: ["queue: socket hang up"] }));
  expect(page).toMatch(/^prod: something needs you, 2026-11-23T12:00:00.000Z$/m);
  expect(page).toMatch(/^maven-1 +maven +Running +n1 +30 s$/m);
  expect(page).toMatch(/^app +Waiting for next available executor +3 min$/m);
  expect(page).toMatch(/^! queue: socket hang up$/m);
  expect(terminalPage(facts({ agents: [], queue: [] }))).not.toMatch(/^(Agents|Queue)$/m);
});

describe("the HTML page", () => {
  test("loads nothing and runs nothing", () => {
    const page = htmlPage(facts());
    expect(page).not.toMatch(/<script|<link|<img|<iframe|\bsrc=|url\(|@import/i);
    expect(page).toContain("default-src 'none'");
  });

  test("shows any text as text", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        const page = htmlPage(facts({ queue: [{ job: `<b onclick="x">${text}</b>`, why: text, since: time }], trouble: [`</ul><script>${text}`] }));
        expect(page).not.toMatch(/<b |<script/);
        expect(page.split("<ul>")).toHaveLength(2);
        expect(page.split("</html>")).toHaveLength(2);
      }),
    );
  });
});

describe("the range of an API server", () => {
  const pod = (...command: string[]) => ({ spec: { containers: [{ name: "kube-apiserver", image: "i", command }] } });

  test("is its flag's, the last one's, or Kubernetes' own", () => {
    expect(rangeOf(pod("kube-apiserver", "--service-node-port-range=80-32767"))).toBe("80-32767");
    expect(rangeOf(pod("--service-node-port-range=1-2", "--service-node-port-range=80-32767"))).toBe("80-32767");
    expect(rangeOf(pod("kube-apiserver"))).toMatch(/^30000-32767/);
  });
});

test("a second stack is asked about instead of being passed over", () => {
  const ended = spawnSync(process.execPath, ["--require", require.resolve("tsx/cjs"), path.join(root, "cli/status.ts"), "prod", "dev"], { cwd: root, encoding: "utf8" });
  expect(ended).toMatchObject({ status: 2, stdout: "", stderr: expect.stringContaining('what is "dev"?') });
});
