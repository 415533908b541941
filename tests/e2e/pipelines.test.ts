import * as fs from "node:fs";
import * as path from "node:path";
import { parse } from "yaml";
import { REPO } from "../../sandbox/paths";
import { run, waitFor } from "../../sandbox/shell";
import { ENV, ensurePlatform, jenkins, jenkinsVersion, kubectlJson, ownCloud, pulumi, realJenkins, STACK } from "./sandbox";

/** The Jenkinsfiles of docs/pipelines.md, each by `npm run smoke -- --pipeline`, where Jenkins has pipelines; the sandbox's stand-in has none. */

jest.setTimeout(900_000);

interface Pod {
  metadata: { name: string };
  spec: {
    serviceAccountName: string;
    automountServiceAccountToken?: boolean;
    securityContext: object;
    containers: { name: string; image: string; env?: { name: string; value?: string }[]; volumeMounts: { mountPath: string }[]; securityContext?: object }[];
  };
}

const files = fs.readdirSync(path.join(REPO, "docs/pipelines")).sort();
const smoke = (...args: string[]) => run("npm", ["run", "-s", "smoke", "--", STACK, ...args], { cwd: REPO, env: ENV, allowFailure: true });
const agentPods = async () => (await kubectlJson<{ items: Pod[] }>(["-n", "jenkins-agents", "get", "pods", "-l", "jenkins=agent"])).items;
/** An image that the nodes can pull, with a shell. */
let image: string;

/** Runs one with values for its parameters; `seen` is a pod of it that a test wants to look at. */
async function runs(file: string, seen?: (pod: Pod) => boolean): Promise<Pod | undefined> {
  const ended = smoke("--pipeline", `docs/pipelines/${file}`, "--timeout", "600", "--parameter", `REPOSITORY=${image.split("/")[0]}/e2e/pipeline`, "--parameter", `IMAGE=${image}`);
  const pod = seen && (await Promise.race([waitFor(`a pod of ${file}`, 300, async () => (await agentPods()).find(seen)), ended.then(() => undefined)]));
  const { stdout, stderr, code } = await ended;
  expect([stderr, code]).toEqual(["", 0]);
  expect(stdout).toContain(`pipeline docs/pipelines/${file} ends well`);
  expect(await jenkins("GET", "/api/json")).not.toMatch(/"smoke-/);
  return pod;
}

beforeAll(async () => {
  await ensurePlatform();
  expect([realJenkins, (await jenkinsVersion()) !== undefined]).toEqual([realJenkins, realJenkins]);
  image = (JSON.parse((await pulumi(["stack", "output", "--stack", STACK, "--json"])).stdout) as { agentImages: Record<string, string> }).agentImages["maven-dind"];
});

// What only the other kind of Jenkins can do is no test here.
if (realJenkins) {
  test.each(files.filter((file) => !file.endsWith("pod.Jenkinsfile")))("%s", async (file) => {
    await runs(file);
  });

  test("a pod of one's own has the mirror's agent, our account without its token, and our security context", async () => {
    const pod = await runs("own-pod.Jenkinsfile", ({ spec }) => spec.containers.some(({ name }) => name === "tool"));
    const agent = pod!.spec.containers.find(({ name }) => name === "jnlp")!;
    expect(pod!.spec).toMatchObject({ serviceAccountName: "jenkins-agent", automountServiceAccountToken: false, securityContext: { runAsUser: 1000, runAsNonRoot: true } });
    const { templates } = await ownCloud();
    const defaults = parse(templates[templates.length - 1].yaml) as Pod;
    expect(agent.image).toBe(defaults.spec.containers[0].image);
    expect(agent.securityContext).toMatchObject({ allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } });
  });

  test("a pod that inherits from a template has all of it, and what it adds", async () => {
    const pod = await runs("inherited-pod.Jenkinsfile", ({ spec }) => spec.containers.some(({ env = [] }) => env.some(({ name }) => name === "MAVEN_ARGS")));
    const agent = pod!.spec.containers.find(({ name }) => name === "jnlp")!;
    expect(agent.image).toBe(image);
    expect(pod!.spec.containers.map(({ name }) => name).sort()).toEqual(["dind", "jnlp"]);
    expect(agent.env).toEqual(expect.arrayContaining([expect.objectContaining({ name: "DOCKER_HOST" }), { name: "MAVEN_ARGS", value: "--no-transfer-progress" }]));
    expect(agent.volumeMounts.map(({ mountPath }) => mountPath)).toContain("/var/cache/build-platform/maven");
  });
} else {
  test("a Jenkins without pipelines says so before a job is made", async () => {
    const { code, stdout, stderr } = await smoke("--pipeline");
    expect([code, stderr]).toEqual([1, expect.stringContaining("the plugin workflow-job is not active")]);
    expect(stdout).not.toContain("make job");
  });
}
