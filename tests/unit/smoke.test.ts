import { spawnSync } from "node:child_process";
import * as path from "node:path";
import type { Login } from "../../components/jenkins-master";
import { adminAuth, pipelineXml } from "../../cli/jenkins";
import { root } from "../../cli/repository";
import type { Stack } from "../../cli/stack";
import * as fs from "node:fs";
import * as os from "node:os";
import { agentTrouble, buildTrouble, isStuck, loginTrouble, pipelineWork, pluginTrouble, smokeScript, withUsualPipeline, type AgentPod } from "../../cli/smoke";
import { frontDoorTrouble } from "../../cli/front-door";

describe("the front door", () => {
  const door = { address: "192.0.2.7", port: 80 };
  const trouble = (over: { status?: number; error?: string }) => frontDoorTrouble({ ...door, ...over }, "ci.example.com", "team-b", "ingress-nginx");

  test("that answers 200 is in order", () => expect(trouble({ status: 200 })).toBeUndefined());
  test.each([
    [{ status: 404 }, /knows no host ci\.example\.com.*-n team-b describe ingress/],
    [{ status: 503 }, /Jenkins behind it does not \(503\).*npm run status/],
    [{ status: 500 }, /answers 500.*200 was expected.*-n ingress-nginx logs/],
    [{ error: "connect ECONNREFUSED 192.0.2.7:80" }, /nothing listens on port 80 of node 192\.0\.2\.7.*node-port range/],
    [{ error: "no answer within 10 s" }, /firewall/],
  ])("%j", (over, says) => expect(trouble(over)).toMatch(says));

  test("on which nothing answers names what the network says of node ports", () => {
    const suspects = ["Cilium serves node ports 30000-32767, without 80 -> set node-port-range"];
    for (const error of ["connect ECONNREFUSED 192.0.2.7:80", "no answer within 10 s"])
      expect(frontDoorTrouble({ ...door, error }, "ci.example.com", "team-b", "ingress-nginx", suspects)).toContain(`\n    suspect: ${suspects[0]}`);
    expect(frontDoorTrouble({ ...door, status: 404 }, "ci.example.com", "team-b", "ingress-nginx", suspects)).not.toContain("suspect");
  });
});

describe("an agent that does not come", () => {
  const pod = (status: Partial<AgentPod["status"]>): AgentPod => ({ metadata: { name: "maven-x" }, status: { phase: "Pending", ...status } });
  const container = (state: NonNullable<AgentPod["status"]["containerStatuses"]>[0]["state"]) => pod({ containerStatuses: [{ name: "jnlp", image: "r/maven@sha256:0", state }] });

  test.each<[string, AgentPod[], string | undefined, RegExp]>([
    ["no pod", [], "There are no nodes with the label", /no agent pod was made for label maven \(the queue says: There are no nodes.*logs deployment\/jenkins/],
    ["no pod and no queue", [], undefined, /^no agent pod was made for label maven: kubectl/],
    ["no room", [pod({ conditions: [{ type: "PodScheduled", status: "False", message: "0/2 nodes: Insufficient cpu" }] })], undefined, /no node takes agent pod maven-x: 0\/2 nodes: Insufficient cpu.*Add a node/],
    ["no image", [container({ waiting: { reason: "ImagePullBackOff", message: "not found" } })], undefined, /cannot have image r\/maven@sha256:0 of container jnlp \(ImagePullBackOff\): not found.*doctor/],
    ["a bad mount", [container({ waiting: { reason: "CreateContainerConfigError", message: "no secret" } })], undefined, /does not start: CreateContainerConfigError no secret/],
    ["a container that ended", [container({ terminated: { exitCode: 255 } })], undefined, /ended with exit code 255: kubectl -n team-b-agents logs maven-x -c jnlp/],
    ["no way to Jenkins", [pod({ phase: "Running", containerStatuses: [{ name: "jnlp", image: "i", state: { running: {} } }] })], undefined, /does not reach Jenkins.*50000/],
    ["a slow start", [container({ waiting: { reason: "ContainerCreating" } })], undefined, /still Pending.*describe pod maven-x/],
  ])("%s", (_, pods, queued, says) => expect(agentTrouble(pods, queued, "maven", { jenkins: "team-b", agents: "team-b-agents" }, { templates: ["maven"], others: ["gradle"], online: [] })).toMatch(says));

  test("is looked for while its pod is there: Jenkins takes one that cannot start away", () => {
    expect(isStuck(container({ waiting: { reason: "ImagePullBackOff" } }))).toBe(true);
    expect(isStuck(container({ waiting: { reason: "CreateContainerConfigError" } }))).toBe(true);
    for (const state of [{ waiting: { reason: "ContainerCreating" } }, { waiting: { reason: "PodInitializing" } }, { running: {} }, { terminated: { exitCode: 143 } }]) expect(isStuck(container(state))).toBe(false);
    expect(isStuck(pod({}))).toBe(false);
  });
});

test("a refused login says what to wait for, or who else to be", () => {
  const namespaces = { jenkins: "team-b", agents: "team-b-agents", builds: "team-b-image-builds" };
  // A restart would end running builds, and the running Jenkins takes a new password by itself.
  expect(loginTrouble({ namespaces })).toMatch(/about a minute.*-n team-b logs deployment\/jenkins -c config-reload/);
  expect(loginTrouble({ namespaces, login: { kind: "ldap" } as Login })).toContain("export JENKINS_USER and JENKINS_TOKEN");
});

describe("among other agents", () => {
  const running = (name: string, template: string): AgentPod => ({ metadata: { name, labels: { "build-platform/template": template } }, status: { phase: "Running", containerStatuses: [{ name: "jnlp", image: "i", state: { running: {} } }] } });
  const namespaces = { jenkins: "team-b", agents: "team-b-agents" };

  test("those of other templates are not to blame", () => {
    expect(agentTrouble([running("gradle-1", "gradle")], undefined, "maven", namespaces, { templates: ["maven"], others: ["gradle"], online: [] })).toMatch(/^no agent pod was made for label maven/);
    expect(agentTrouble([running("gradle-1", "gradle"), running("maven-1", "maven")], undefined, "maven", namespaces, { templates: ["maven"], others: ["gradle"], online: [] })).toMatch(/^agent pod maven-1 runs, but does not reach/);
    // A label of a cloud of the site's own: its templates are not known here.
    expect(agentTrouble([running("own-1", "")], undefined, "own", namespaces, { templates: [], others: ["gradle"], online: [] })).toMatch(/^agent pod own-1 runs, but/);
    expect(agentTrouble([running("gradle-1", "gradle")], "no node", "mavne", namespaces, { templates: [], others: ["gradle"], online: [] })).toMatch(/^no agent pod was made for label mavne \(the queue says: no node\), which no template has/);
    expect(agentTrouble([running("maven-1", "maven")], undefined, "maven", namespaces, { templates: ["maven"], others: [], online: ["maven-1"] })).toMatch(/^1 agent of label maven has a build of its own/);
  });

  test("those that build are not to blame, but may be as many as there may be", () => {
    const pods = [running("maven-1", "maven"), running("maven-2", "maven")];
    expect(agentTrouble(pods, "Waiting for next available executor", "maven", namespaces, { templates: ["maven"], others: ["gradle"], online: ["maven-1", "maven-2"] })).toMatch(
      /^2 agents of label maven have builds of their own, and no further pod was made \(the queue says: Waiting.*agentCap or cap/,
    );
    expect(agentTrouble(pods, undefined, "maven", namespaces, { templates: ["maven"], others: ["gradle"], online: ["maven-1"] })).toMatch(/^agent pod maven-2 runs, but does not reach/);
  });
});

test("a build is judged by its result and by what it printed", () => {
  expect(buildTrouble({ result: "SUCCESS", console: "Started\nsmoke-x\nLinux\n" }, "x")).toBeUndefined();
  expect(buildTrouble({ result: "FAILURE", console: "smoke-x\ndocker: not running\n" }, "x")).toMatch(/FAILURE.*\n\s+smoke-x\n\s+docker: not running/);
  const marks = Array.from({ length: 12 }, () => "[Pipeline] // stage").join("\n");
  expect(buildTrouble({ result: "FAILURE", console: `certificate_unknown\n${marks}\nStage "Keep" skipped due to earlier failure(s)\nFinished: FAILURE\n` })).toMatch(/last lines:\n\s+certificate_unknown\n\s+Finished: FAILURE$/);
  // What `set -x` or the job's own text shows is not what it printed.
  expect(buildTrouble({ result: "SUCCESS", console: "+ echo smoke-x-other\n" }, "x")).toMatch(/does not hold/);
  expect(smokeScript("x", "jenkins")).toContain("echo smoke-x\n");
  expect(smokeScript("x", "jenkins")).toContain("'GET /jnlpJars/");
  expect(smokeScript("x", "jenkins", "/ci")).toContain("'GET /ci/jnlpJars/");
});

describe("the job's script", () => {
  /** Runs it with a docker that only writes down what it is asked for; the pod has an MTU, and so has docker's network. */
  const runs = (pod: number, bridge: string, host = "tcp://localhost:2375") => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "smoke-"));
    try {
      fs.mkdirSync(path.join(folder, "eth0"));
      fs.writeFileSync(path.join(folder, "eth0/mtu"), `${pod}\n`);
      fs.writeFileSync(path.join(folder, "docker"), `#!/bin/sh\n[ "$1" != network ] || echo '${bridge}'\n[ "$1" != build ] || cat Dockerfile\n`, { mode: 0o755 });
      const script = smokeScript("x", "team-b").replaceAll("/sys/class/net", folder);
      const { status, stdout, stderr } = spawnSync("sh", ["-c", script], { cwd: folder, env: { PATH: `${folder}:${process.env.PATH}`, ...(host && { DOCKER_HOST: host }) }, encoding: "utf8" });
      const root = path.join(folder, "smoke/root");
      return { status, stdout, stderr, files: fs.existsSync(root) ? fs.readdirSync(root) : [], download: fs.existsSync(root) ? fs.readFileSync(path.join(root, "download"), "utf8") : "" };
    } finally {
      fs.rmSync(folder, { recursive: true });
    }
  };

  test("builds an image in which a shell of the agent downloads from Jenkins", () => {
    const { status, stdout, stderr, files, download } = runs(1450, "1450");
    expect([stderr, status]).toEqual(["", 0]);
    expect(stdout).toMatch(/^smoke-x\n.*FROM scratch\nCOPY root \/\nRUN \["\/.*bash", "\/download"\]\nimage-x\n$/s);
    expect(files).toEqual(expect.arrayContaining(["download", "token", "lib"]));
    expect(download).toContain("/dev/tcp/jenkins.team-b.svc/8080");
    expect(download).toContain("HTTP/1.0\\r\\nHost: jenkins.team-b.svc\\r\\n\\r\\n'");
  });

  test("says that docker's network lets larger packets in than the pod's", () => {
    expect(runs(1450, "1500")).toMatchObject({ status: 1, stdout: expect.stringContaining("the network of docker builds has an MTU of 1500, the pod's has 1450: downloads inside builds hang") });
    expect(runs(1450, "")).toMatchObject({ status: 1 });
    expect(runs(1500, "")).toMatchObject({ status: 0 });
    expect(runs(1450, "1500", "tcp://builder.example.com:2375")).toMatchObject({ status: 0 });
  });

  test("builds none without a daemon", () => expect(runs(1450, "1500", "")).toMatchObject({ status: 0, files: [] }));
});

test("the scripts are the administrator of the Secret, or whoever the environment names whole", async () => {
  const data = { "admin-user": "admin", "admin-password": "from-the-secret" };
  const stack = {
    config: { admin: {}, namespaces: { jenkins: "team-b" } },
    kubectl: async (...args: string[]) => args[1] === "team-b" && JSON.stringify({ data: Object.fromEntries(Object.entries(data).map(([key, value]) => [key, Buffer.from(value).toString("base64")])) }),
  } as unknown as Stack;
  expect(await adminAuth(stack, {})).toBe("admin:from-the-secret");
  expect(await adminAuth(stack, { JENKINS_USER: "ann" })).toBe("admin:from-the-secret");
  expect(await adminAuth(stack, { JENKINS_USER: "ann", JENKINS_TOKEN: "11aa" })).toBe("ann:11aa");
  // As `echo` leaves it, and as Jenkins reads it.
  data["admin-password"] = "from-the-secret\n";
  expect(await adminAuth(stack, {})).toBe("admin:from-the-secret");
});

test("a Secret of the site's own without its keys is named", async () => {
  const stack = { config: { admin: { existingSecret: "vault" }, namespaces: { jenkins: "jenkins" } }, kubectl: async () => JSON.stringify({ data: { username: "YQ==" } }) } as unknown as Stack;
  await expect(adminAuth(stack, {})).rejects.toThrow("Secret vault of namespace jenkins has no key admin-user, admin-password");
});

describe("a pipeline", () => {
  test("is a job with the script as it is, in Groovy's sandbox, and with what it calls parameters", () => {
    const xml = pipelineXml("if (1 < 2 && true) { echo '</script>' }", { REPOSITORY: "r:5000/a&b" });
    expect(xml).toContain("<script>if (1 &lt; 2 &amp;&amp; true) { echo '&lt;/script&gt;' }</script><sandbox>true</sandbox>");
    expect(xml).toContain("<hudson.model.StringParameterDefinition><name>REPOSITORY</name><defaultValue>r:5000/a&amp;b</defaultValue>");
    expect(pipelineXml("echo 'x'")).not.toContain("Parameter");
  });

  test("needs a Jenkins that has them, and says what is missing", () => {
    expect(pluginTrouble([{ shortName: "workflow-job", active: true }])).toBeUndefined();
    for (const plugins of [[], [{ shortName: "workflow-job", active: false }], [{ shortName: "workflow-api", active: true }]]) expect(pluginTrouble(plugins)).toMatch(/plugin workflow-job is not active/);
  });

  test("is the usual one where no file is named", () => {
    expect(withUsualPipeline(["dev", "--pipeline"])).toEqual(["dev", "--pipeline", "docs/pipelines/own-pod.Jenkinsfile"]);
    expect(withUsualPipeline(["--pipeline", "--timeout", "9"])).toEqual(["--pipeline", "docs/pipelines/own-pod.Jenkinsfile", "--timeout", "9"]);
    for (const args of [["dev"], ["--pipeline", "x", "dev"]]) expect(withUsualPipeline(args)).toEqual(args);
  });

  test("is read from its file, with values for its parameters", () => {
    expect(pipelineWork("docs/pipelines/retry.Jenkinsfile", ["A=b=c", "EMPTY="])).toMatchObject({ script: expect.stringContaining("retry(count"), parameters: { A: "b=c", EMPTY: "" } });
    expect(() => pipelineWork("nowhere.Jenkinsfile", [])).toThrow(/--pipeline is nowhere\.Jenkinsfile, which does not exist/);
    expect(() => pipelineWork("docs/pipelines/retry.Jenkinsfile", ["REPOSITORY"])).toThrow("--parameter is REPOSITORY; expected NAME=VALUE");
  });

  test("is judged by its result alone", () => {
    expect(buildTrouble({ result: "SUCCESS", console: "Finished: SUCCESS\n" })).toBeUndefined();
    expect(buildTrouble({ result: "UNSTABLE", console: "x\n" })).toMatch(/UNSTABLE/);
  });

  test.each([
    [["--pipeline", "--label", "maven"], "--label does not go with --pipeline"],
    [["--parameter", "A=b"], "--parameter goes with --pipeline only"],
  ])("%j is refused", (args, says) => {
    const ended = spawnSync(process.execPath, ["--require", require.resolve("tsx/cjs"), path.join(root, "cli/smoke.ts"), ...args], { cwd: root, encoding: "utf8" });
    expect(ended).toMatchObject({ status: 2, stdout: "", stderr: expect.stringContaining(says) });
  });
});

test("a second stack is asked about instead of being passed over", () => {
  const ended = spawnSync(process.execPath, ["--require", require.resolve("tsx/cjs"), path.join(root, "cli/smoke.ts"), "prod", "dev"], { cwd: root, encoding: "utf8" });
  expect(ended).toMatchObject({ status: 2, stdout: "", stderr: expect.stringContaining('what is "dev"?') });
});
