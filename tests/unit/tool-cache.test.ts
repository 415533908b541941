import { spawn, spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { agentPod, cacheMount, cachesScript, type AgentSettings, type AgentTemplate } from "../../components/jenkins-master/agents";
import { cacheKeeperScript } from "../../components/jenkins-master/cache";
import { cacheKeeperObject } from "../../components/jenkins-master/cache-keeper";
import { gitFolders } from "../../components/jenkins-master/git-cache";
import type { Place } from "../../components/jenkins-master/place";
import { downloadTools, toolFolders } from "../../components/jenkins-master/tool-cache";

/** Caches that agents write together; tests/campaign/tool-caches.test.ts has them with the real tools. */

const template: AgentTemplate = {
  name: "a", label: "a", image: "registry.test/a:1", docker: "none", caches: [], resources: {}, dockerResources: {}, workspaceSize: "20Gi", cap: 1, idleMinutes: 0, podRetention: "never",
  connectTimeoutSeconds: 60, activeDeadlineSeconds: 0, nodeSelector: {}, tolerations: [], spread: false, unlabelled: true, env: {}, volumes: [],
};
const settings: AgentSettings = { dindImage: "", buildkitImage: "", insecureRegistries: [], cachePath: "/cache" };
interface Spec {
  containers: { env: { name: string; value: string }[]; volumeMounts: { name: string; mountPath: string; subPath?: string }[] }[];
  initContainers?: { name: string; image: string; command: string[]; securityContext: object; volumeMounts: { name: string; mountPath: string }[] }[];
  volumes: { name: string; hostPath?: { path: string }; emptyDir?: { sizeLimit?: string } }[];
}
const spec = (further: Partial<AgentTemplate>): Spec => (agentPod({ ...template, ...further }, settings) as { spec: Spec }).spec;

test.each(downloadTools)("%s: each variable leads to a folder that is mounted, and the keeper makes each that is shared", (tool) => {
  const { containers: [{ env, volumeMounts }], volumes } = spec({ caches: [tool] });
  const places = volumeMounts.map(({ mountPath }) => mountPath);
  const led = env.map(({ value }) => ({ value: value.replace(/^.*-jar-cache /, "") })).filter(({ value }) => value.startsWith(cacheMount));
  expect(led.length).toBeGreaterThan(0);
  for (const { value } of led) expect(places).toContain(value);
  const shared = volumes.flatMap(({ hostPath }) => hostPath?.path ?? []);
  expect(shared.sort()).toEqual(toolFolders([{ caches: [tool] }]).map((folder) => `/cache/${folder}`));
  // Between two mounts there is no folder that the runtime would have to make, which would be root's.
  const owned = [...places, cacheMount];
  for (const place of places.filter((each) => each.startsWith(`${cacheMount}/`) && led.some(({ value }) => each.startsWith(`${value}/`)))) expect(owned).toContain(place.slice(0, place.lastIndexOf("/")));
  for (const { name } of volumeMounts) expect(volumes.map((volume) => volume.name)).toContain(name);
});

test("what is not shared has the bound of the workspace, and a place of its own for each tool", () => {
  const { containers: [{ volumeMounts }], volumes } = spec({ caches: ["npm", "pip", "go"] });
  expect(volumes.find(({ name }) => name === "caches-own")?.emptyDir).toEqual({ sizeLimit: "20Gi" });
  const own = volumeMounts.filter(({ name }) => name === "caches-own").map(({ subPath }) => subPath);
  expect(own).toEqual([...new Set(own)]);
  expect(spec({ caches: ["sbt"] }).volumes.map(({ name }) => name)).not.toContain("caches-own");
});

test("groups have folders of their own", () => {
  const folders = (cacheGroup?: string) => spec({ caches: ["go"], cacheGroup }).volumes.flatMap(({ hostPath }) => hostPath?.path ?? []);
  expect(folders().filter((folder) => folders("release").includes(folder))).toEqual([]);
  expect(folders("release")[0]).toBe("/cache/tools/release/go/mod/cache/download");
});

test("without such tools pods and the keeper are as they were", () => {
  expect(JSON.stringify(spec({ caches: ["maven", "gradle"] }))).not.toMatch(/caches-own|tools\//);
  const keeperOf = (caches: AgentTemplate["caches"]) => {
    const [, keeper] = cacheKeeperObject({ name: "jenkins", parent: {}, there: "agents" } as unknown as Place, { templates: [{ ...template, caches }], settings, cap: 1, cloud: {}, cache: { keeperImage: "k", maxGi: 3 } })!;
    return JSON.parse(JSON.stringify(keeper)).spec.template.spec.containers as { name: string; command: string[]; env: object[]; startupProbe?: object; securityContext: object }[];
  };
  expect(keeperOf(["maven"]).map(({ name }) => name)).toEqual(["keeper"]);
  expect(keeperOf(["maven"])[0].command[2]).toBe(cacheKeeperScript());
  expect(cacheKeeperScript()).not.toMatch(/tools|lock'/);
  expect(keeperOf(["npm"])[0].command[2]).toContain('"$CACHE/tools/agents/npm/_cacache"');
  const [keeper, git] = keeperOf(["git"]);
  for (const folder of gitFolders([{ caches: ["git"] }])) expect(keeper.command[2]).toContain(`"$CACHE/${folder}"`);
  // Mirrors are no files that may go one by one.
  expect(keeper.command[2]).not.toMatch(/find[^\n]*\/git/);
  // What agents offer is hostile: nothing of it is touched as root.
  expect(git).toMatchObject({ name: "git", securityContext: { runAsUser: 1000, runAsNonRoot: true, capabilities: { drop: ["ALL"] } } });
  expect(git.env).toContainEqual({ name: "MAX_KIB", value: String(3 * 1024 * 1024) });
});

test("an agent waits for the folders that all write, and for nothing else", () => {
  const [wait, ...others] = spec({ caches: ["npm", "git", "maven"] }).initContainers!;
  expect(others).toEqual([]);
  expect(wait).toMatchObject({ name: "caches", image: template.image, securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } } });
  expect(wait.volumeMounts.map(({ mountPath }) => mountPath)).toEqual([`${cacheMount}/npm/_cacache`, `${cacheMount}/git-offers`]);
  expect(wait.command.slice(4)).toEqual(["60", ...wait.volumeMounts.map(({ mountPath }) => mountPath)]);
  for (const caches of [[], ["maven", "gradle"], ["docker"], ["remoting"]] satisfies AgentTemplate["caches"][]) expect(spec({ caches, docker: "dind" })).not.toHaveProperty("initContainers");
});

test("the jars of Jenkins' own program are given to it, in a folder that the keeper has made", () => {
  const { containers: [{ env }], volumes } = spec({ caches: ["remoting"] });
  expect(env).toContainEqual({ name: "REMOTING_OPTS", value: `-noReconnectAfter 1d -jar-cache ${cacheMount}/remoting` });
  expect(volumes).toContainEqual({ name: "cache-remoting", hostPath: { path: "/cache/tools/agents/remoting", type: "Directory" } });
  const flags = (further: object) => spec({ caches: ["remoting"], ...further }).containers[0].env.find(({ name }) => name === "JENKINS_JAVA_OPTS")?.value;
  expect(flags({})).toMatch(new RegExp(`^-XX:TieredStopAtLevel=1 .*-XX:[+]VerifySharedSpaces -XX:SharedArchiveFile=${cacheMount}/remoting/a[.]jsa `));
  expect(flags({ env: { JENKINS_JAVA_OPTS: "-Xmx1g" } })).toBe("-Xmx1g");
  expect(flags({ caches: ["npm"] })).toBe("-XX:TieredStopAtLevel=1");
  expect(spec({ caches: ["remoting"], env: { REMOTING_OPTS: "" } }).containers[0].env).toContainEqual({ name: "REMOTING_OPTS", value: "" });
});

test("the wait ends when the folder can be written to, or at its bound, with a word", async () => {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "caches-"));
  try {
    const folder = path.join(root, "npm");
    expect(spawnSync("sh", ["-c", cachesScript, "caches", "0", root], { encoding: "utf8" })).toMatchObject({ status: 0, stdout: "" });
    expect(spawnSync("sh", ["-c", cachesScript, "caches", "1", folder], { encoding: "utf8" })).toMatchObject({ status: 0, stdout: expect.stringMatching(/npm belongs to somebody else.*agent-cache/) });
    const waiting = spawn("sh", ["-c", cachesScript, "caches", "60", folder]);
    const ended = new Promise((resolve) => waiting.once("exit", resolve));
    fs.mkdirSync(folder);
    expect(await ended).toBe(0);
  } finally {
    fs.rmSync(root, { recursive: true });
  }
});

test("the keeper goes to tainted nodes with agents that need it there", () => {
  const taint = { key: "builds", operator: "Exists" as const, effect: "NoSchedule" as const };
  const of = (...templates: Partial<AgentTemplate>[]) => {
    const [, keeper] = cacheKeeperObject({ name: "jenkins", parent: {}, there: "agents" } as unknown as Place, { templates: templates.map((each) => ({ ...template, ...each })), settings, cap: 1, cloud: {}, cache: { keeperImage: "k", maxGi: 3 } })!;
    return JSON.parse(JSON.stringify(keeper)).spec.template.spec as { tolerations?: object[] };
  };
  expect(of({ caches: ["npm"], tolerations: [taint] }, { caches: ["git"], tolerations: [taint, { key: "b" }] }).tolerations).toEqual([taint, { key: "b" }]);
  expect(of({ caches: ["npm"] }, { caches: [], tolerations: [taint] })).not.toHaveProperty("tolerations");
  // A stack that has named no such cache keeps its DaemonSet.
  expect(of({ caches: ["maven", "gradle"], tolerations: [taint] })).not.toHaveProperty("tolerations");
});

test("where the agents' namespace would refuse its pods there is no keeper", () => {
  const of = (further: Partial<AgentTemplate>, pods?: AgentSettings["pods"]) => cacheKeeperObject({ name: "jenkins", parent: {}, there: "agents" } as unknown as Place, { templates: [{ ...template, ...further }], settings: { ...settings, pods }, cap: 1, cloud: {}, cache: { keeperImage: "k", maxGi: 3 } });
  for (const caches of [[], ["gradle-build"], ["docker"]] satisfies AgentTemplate["caches"][]) expect(of({ caches })).toBeUndefined();
  expect(of({ caches: ["gradle-build", "npm"] })).toBeDefined();
  // One that has worked stays.
  expect(of({ docker: "dind" })).toBeDefined();
  expect(of({}, { action: "deny", privilegedImages: ["registry.test/x:1"], hostPaths: [], serviceAccounts: [] })).toBeDefined();
});

/** One round of the keeper over a full cache of npm, with `find` as given, and `sleep` before it ends. */
function round(files: Record<string, number>, find = 'exec find "$@"', sleep = ""): { left: string[]; out: string; err: string } {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "caches-"));
  try {
    const folder = path.join(root, "cache/tools/agents/npm/_cacache");
    fs.mkdirSync(folder, { recursive: true });
    fs.mkdirSync(path.join(root, "bin"));
    for (const [name, size] of Object.entries(files)) {
      fs.writeFileSync(path.join(folder, name), "");
      fs.truncateSync(path.join(folder, name), size);
      fs.utimesSync(path.join(folder, name), 0, 0);
    }
    const program = (name: string, text: string) => fs.writeFileSync(path.join(root, "bin", name), `#!/bin/sh\nPATH=${process.env.PATH}\n${text}\n`, { mode: 0o755 });
    program("chown", "");
    program("find", find);
    program("sleep", `${sleep}\nkill "$PPID"; exec sleep 1`);
    const { stdout, stderr } = spawnSync("sh", ["-c", cacheKeeperScript(["tools/agents/npm/_cacache"])], { encoding: "utf8", env: { PATH: `${root}/bin:${process.env.PATH}`, CACHE: path.join(root, "cache"), MAX_KIB: "0", OWNER: "0" } });
    return { left: fs.readdirSync(folder).sort(), out: stdout, err: stderr };
  } finally {
    fs.rmSync(root, { recursive: true });
  }
}

test("locks and pnpm's index stay as long as they are of the size of such", () => {
  expect(round({ "a.lock": 0, "b.lock": 1, "index.db": 1 << 20, "index.db-2": 1 << 27, file: 0 }).left).toEqual(["a.lock", "index.db"]);
});

test("a folder that was deleted is there again in the same round, and is the agents' own", () => {
  // Between the keeper's looks: the first deletes it, the second finds it made.
  const deleted = 'folder="$CACHE/tools/agents/npm/_cacache"\nif [ -e "$CACHE/seen" ]; then ls -d "$folder" >&2; else : >"$CACHE/seen"; rm -r "$CACHE/tools"; exit; fi';
  const { left, err } = round({ file: 1 }, undefined, deleted);
  expect([left, err]).toEqual([[], expect.stringMatching(/tools\/agents\/npm\/_cacache\n/)]);
});

test("files that vanish meanwhile do not end the keeper", () => {
  expect(round({ file: 1 }, "exit 1").out.match(/not read for/g)).toHaveLength(6);
});
