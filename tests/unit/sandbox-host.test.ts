import * as fc from "fast-check";
import { hostProblems, nodeResolvers, type Host } from "../../sandbox/cluster/host";
import { originTable, withPairs, type Wanted } from "../../sandbox/images/upstream";
import { buildkitdConfig, mirrorHosts } from "../../sandbox/cluster/registry";
import { standInConfig, upstreamImages } from "../../sandbox/images/index";

const release = (id: string, version: string, name: string) => `PRETTY_NAME="${name}"\nID=${id}\nVERSION_ID="${version}"\n`;
const good: Host = { release: release("debian", "12", "Debian GNU/Linux 12 (bookworm)"), uid: 0, go: "go1.26.8", wantedGo: "1.26.8" };

describe("the machine that the sandbox runs on", () => {
  test.each([["debian", "12"], ["debian", "13"], ["ubuntu", "22.04"], ["ubuntu", "24.04"]])("%s %s will do", (id, version) => {
    expect(hostProblems({ ...good, release: release(id, version, "x") })).toEqual([]);
  });

  test("everything that is missing is said at once, each in one sentence", () => {
    expect(hostProblems({ release: release("fedora", "43", "Fedora Linux 43"), uid: 1000, go: "", wantedGo: "1.26.8" })).toEqual([
      "the sandbox makes namespaces, mounts and a bridge: run it as root",
      "this is Fedora Linux 43: the sandbox installs packages of Debian 12 and 13, Ubuntu 22.04 and 24.04, run it on one of them",
      "Go 1.26.8 or newer is needed on PATH, found none: distributions carry older ones, take it from go.dev/dl",
    ]);
    expect(hostProblems({ ...good, release: release("debian", "11", "Debian GNU/Linux 11 (bullseye)") })).toHaveLength(1);
    expect(hostProblems({ ...good, release: "" })[0]).toContain("an unknown system");
  });

  test("Go's versions are compared as numbers", () => {
    for (const [go, enough] of [["go1.26.8", true], ["go1.26.10", true], ["go1.27rc1", true], ["go1.27", true], ["go2.0.0", true], ["go1.26", false], ["go1.26.7", false], ["go1.9.9", false]] as const) {
      expect([go, hostProblems({ ...good, go }).length === 0]).toEqual([go, enough]);
    }
    fc.assert(fc.property(fc.nat(40), fc.nat(40), (minor, patch) => {
      expect(hostProblems({ ...good, go: `go1.${minor}.${patch}` }).length === 0).toBe(minor > 26 || (minor === 26 && patch >= 8));
    }));
  });

  test("nodes get the servers behind systemd-resolved's stub, and otherwise read what the host reads", () => {
    const resolved = "nameserver 192.0.2.53\n";
    expect(nodeResolvers("nameserver 127.0.0.53\noptions edns0\n", resolved)).toBe(resolved);
    expect(nodeResolvers("nameserver 192.0.2.1\n", resolved)).toBeUndefined();
    expect(nodeResolvers("nameserver 127.0.0.1\nnameserver 192.0.2.1\n", resolved)).toBeUndefined();
    expect(nodeResolvers("nameserver 127.0.0.1\n", undefined)).toBeUndefined();
  });
});

describe("where the sandbox's images come from", () => {
  const wanted: Wanted[] = ["jenkins", "agent", "restic"].map((name) => ({ name, pin: { image: `docker.io/x/${name}`, tag: "1" }, ...(name === "agent" && { pair: "jenkins" }) }));

  test("of two that go together neither is upstream's where one cannot be had", () => {
    expect(withPairs(wanted, { jenkins: "no route" })).toEqual({ jenkins: "no route", agent: "goes with jenkins, which is a stand-in" });
    expect(withPairs(wanted, { agent: "no route" })).toEqual({ agent: "no route", jenkins: "goes with agent, which is a stand-in" });
    expect(withPairs(wanted, { jenkins: "a", agent: "b" })).toEqual({ jenkins: "a", agent: "b" });
    expect(withPairs(wanted, { restic: "no route" })).toEqual({ restic: "no route" });
  });

  test("each pair is one of the images, and the controller asks for its plugins' site", () => {
    const all = upstreamImages();
    for (const { pair } of all) if (pair !== undefined) expect(all.map(({ name }) => name)).toContain(pair);
    expect(all.find(({ name }) => name === "jenkins")?.needs).toMatch(/update-center/);
    expect(all.find(({ name }) => name === "base")?.pin).toEqual({ image: "docker.io/library/debian", tag: "bookworm-slim" });
  });

  test("a stack is told of the stand-ins alone, by digest, and of an older Gradle", () => {
    const made = (name: string) => ({ name, repository: `x/${name}`, tag: "1", digest: "sha256:0" });
    expect(standInConfig([made("base"), made("agent")], "r:5000")).toEqual(["images.inboundAgent=r:5000/x/agent:1@sha256:0"]);
    expect(standInConfig([made("gradle")], "r:5000")).toEqual(["images.gradle=r:5000/x/gradle:1@sha256:0", "agentImages.gradle-dind.args.GRADLE_VERSION=any"]);
    expect(standInConfig([], "r:5000")).toEqual([]);
  });

  test("nodes and builds take copies of upstream images from the sandbox's registry by digest alone", () => {
    expect(mirrorHosts("docker.io")).toBe('server = "https://registry-1.docker.io"\n[host."http://10.88.0.1:5000"]\n  capabilities = ["pull"]\n');
    expect(mirrorHosts("registry.k8s.io")).toContain('server = "https://registry.k8s.io"\n');
    expect(buildkitdConfig()).toBe('[registry."10.88.0.1:5000"]\n  http = true\n[registry."docker.io"]\n  mirrors = ["10.88.0.1:5000"]\n[registry."registry.k8s.io"]\n  mirrors = ["10.88.0.1:5000"]\n');
  });

  test("the table says of each what it is", () => {
    expect(originTable([{ part: "jenkins", upstream: "docker.io/x/jenkins:1" }, { part: "dind", upstream: "docker.io/x/dind:1", why: "no route" }])).toBe(
      "jenkins  docker.io/x/jenkins:1\ndind     stand-in for docker.io/x/dind:1: no route\n",
    );
  });
});
