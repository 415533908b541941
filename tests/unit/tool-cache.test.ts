import { agentPod, cacheMount, type AgentSettings, type AgentTemplate } from "../../components/jenkins-master/agents";
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
  volumes: { name: string; hostPath?: { path: string }; emptyDir?: { sizeLimit?: string } }[];
}
const spec = (further: Partial<AgentTemplate>): Spec => (agentPod({ ...template, ...further }, settings) as { spec: Spec }).spec;

test.each(downloadTools)("%s: each variable leads to a folder that is mounted, and the keeper makes each that is shared", (tool) => {
  const { containers: [{ env, volumeMounts }], volumes } = spec({ caches: [tool] });
  const places = volumeMounts.map(({ mountPath }) => mountPath);
  const led = env.filter(({ value }) => value.startsWith(cacheMount));
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
