import * as fs from "node:fs";
import * as path from "node:path";
import { newestMinor, supportedMinors } from "../../checks/kubernetes";
import { addressesOf, nodeNamed } from "../../sandbox/cluster/nodes";
import { NETWORK, REPO } from "../../sandbox/paths";
import { run } from "../../sandbox/shell";
import { createJob, deleteJob, DOMAIN, ENV, ensurePlatform, finishedBuild, firstAgentImage, jenkins, jobXml, kubectl, NODE, onNode, pulumi, sandbox, STACK, startBuild, waitFor } from "../e2e/sandbox";

/**
 * The platform on each release of Kubernetes that it is made for, on a cluster of both address families, and a live one taken from
 * a release to the next. Each starts with a sandbox of its own: whatever runs on this machine is taken down first, and the newest
 * release is left behind.
 */

jest.setTimeout(3_600_000);

const fresh = async (minor: string, ...options: string[]) => {
  await sandbox("down");
  await sandbox("up", "--kubernetes", minor, ...options);
};
const manifest = async () => (await onNode(["cat", "/etc/kubernetes/manifests/kube-apiserver.yaml"])).stdout;

test("kubeadm upgrades a live platform: the range stays, a build runs on under the new API server, nothing of the home is lost", async () => {
  const [from, to] = supportedMinors.slice(-2);
  await fresh(from);
  await ensurePlatform();
  const [job, other] = ["campaign-upgraded", "campaign-survivor"];
  for (const name of [job, other]) await deleteJob(name);
  await createJob(other, jobXml("maven", "echo kept"));
  expect((await finishedBuild(other, await startBuild(other))).result).toBe("SUCCESS");
  await createJob(job, jobXml("maven", "echo begun; sleep 40; echo ended"));
  const range = /--service-node-port-range=(\S+)/.exec(await manifest())![1];
  const number = await startBuild(job);
  await waitFor("the build to run", 180, async () => (await jenkins("GET", `/job/${job}/${number}/consoleText`).catch(() => "")).includes("begun"));
  const home = `/var/openebs/local/${await kubectl(["-n", "jenkins", "get", "pvc", "jenkins-home", "-o", "jsonpath={.spec.volumeName}"])}`;
  const kept = async () => (await onNode(["sh", "-c", `cd ${home} && sha256sum jobs/*/config.xml jobs/${other}/builds/1/* secret.key users/*/config.xml 2>/dev/null`])).stdout;
  const before = await kept();
  expect(before.split("\n").length).toBeGreaterThan(4);

  const upgrade = sandbox("upgrade", to);
  upgrade.catch(() => undefined);
  await waitFor(`the API server of ${to}`, 900, async () => (await manifest()).includes(`kube-apiserver:v${to}.`));
  expect(await manifest()).toContain(`--service-node-port-range=${range}`);
  const build = await finishedBuild(job, number, 600);
  expect(build).toMatchObject({ result: "SUCCESS", console: expect.stringContaining("ended") });
  // A drain waits for a person to move the controller (docs/operations.md).
  await waitFor("the drain", 300, async () => (await kubectl(["get", "nodes", "-o", "jsonpath={.items[*].spec.unschedulable}"])) === "true");
  await kubectl(["-n", "jenkins", "delete", "pod", "-l", "app.kubernetes.io/name=jenkins,app.kubernetes.io/component=controller"]);
  await upgrade;

  expect(await kubectl(["get", "nodes", "-o", "jsonpath={.items[*].status.nodeInfo.kubeletVersion}"])).toMatch(new RegExp(`^v${to.replace(".", "[.]")}[.]`));
  expect(await manifest()).toContain(`--service-node-port-range=${range}`);
  await waitFor("Jenkins to be back", 300, async () => (await jenkins("GET", "/api/json").catch(() => "")) !== "");
  expect(await kept()).toBe(before);
  expect((await finishedBuild(other, await startBuild(other))).result).toBe("SUCCESS");
  const { stdout } = await pulumi(["preview", "--stack", STACK, "--expect-no-changes"]);
  expect(stdout).toMatch(/\d+ unchanged/);
  for (const name of [job, other]) await deleteJob(name);
});

test("on a cluster of both address families the ports answer on both, agents build, and the API server is out of their reach by either", async () => {
  await fresh(newestMinor, "--dual-stack");
  await ensurePlatform();
  const login = (host: string) => run("curl", ["-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "5", "-H", `Host: ${DOMAIN}`, `http://${host}/login`], { allowFailure: true });
  const [, v6] = addressesOf(nodeNamed("control-plane-1"));
  for (const host of [NODE, `[${v6}]`]) expect([host, (await login(host)).stdout]).toEqual([host, "200"]);
  await sandbox("add-node", "worker-1");
  // Builds stay where the controller is: between nodes the sandbox's network puts the node's address in place of a pod's.
  await kubectl(["cordon", "worker-1"]);
  await sandbox("enforce-policies");
  const policies = await kubectl(["-n", "jenkins-agents", "get", "networkpolicies", "-o", "json"]);
  for (const node of [NODE, v6]) expect(policies).toContain(`${node}/${node.includes(":") ? 128 : 32}`);
  const world = `http://[${NETWORK.v6.prefix}1]:9/`;
  const ask = (...urls: string[]) => urls.map((url) => `curl -gks -o /dev/null --max-time 5 '${url}' || echo '${url}' $?`).join("\n");
  const job = "campaign-families";
  await deleteJob(job);
  await createJob(job, jobXml("maven", ask(world)));
  // 7: there is a way, and nobody listens at its end; 28: no way.
  expect((await finishedBuild(job, await startBuild(job))).console).toContain(`${world} 7`);
  await deleteJob(job);

  // A pod reaches its own node whatever the policies say: one on another node is asked.
  await kubectl(["uncordon", "worker-1"]);
  const metadata = { name: "policy-families", namespace: "jenkins-agents", labels: { jenkins: "agent" } };
  const container = { name: "main", image: await firstAgentImage("jnlp"), command: ["sleep", "600"], securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } } };
  const securityContext = { runAsUser: 1000, runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } };
  await kubectl(["apply", "-f", "-"], { input: JSON.stringify({ apiVersion: "v1", kind: "Pod", metadata, spec: { nodeSelector: { "kubernetes.io/hostname": "worker-1" }, automountServiceAccountToken: false, terminationGracePeriodSeconds: 0, securityContext, containers: [container] } }) });
  await kubectl(["-n", "jenkins-agents", "wait", "--for=condition=Ready", "pod/policy-families", "--timeout=240s"]);
  const [service] = (await kubectl(["get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"])).split(" ");
  const closed = [`https://${service}/`, `https://${NODE}:6443/`, `https://[${v6}]:6443/`];
  const answers = await kubectl(["-n", "jenkins-agents", "exec", "policy-families", "--", "sh", "-c", ask(world, ...closed)]);
  expect(answers.trim().split("\n")).toEqual([`${world} 7`, ...closed.map((url) => `${url} 28`)]);
});

test.each(supportedMinors.filter((minor) => minor !== newestMinor))("the end-to-end tests of the platform pass on Kubernetes %s", async (minor) => {
  await fresh(minor);
  const report = path.join(fs.mkdtempSync("/tmp/kubernetes-"), "report.json");
  await run("npx", ["jest", "--selectProjects", "e2e", "--runInBand", "--json", `--outputFile=${report}`, "--testPathPatterns", "e2e/platform"], { cwd: REPO, env: ENV, allowFailure: true });
  const result = JSON.parse(fs.readFileSync(report, "utf8")) as { numPassedTests: number; testResults: { assertionResults: { status: string; fullName: string; failureMessages: string[] }[] }[] };
  fs.rmSync(path.dirname(report), { recursive: true });
  expect(result.testResults.flatMap(({ assertionResults }) => assertionResults).filter(({ status }) => status !== "passed").map(({ fullName, failureMessages }) => [fullName, ...failureMessages])).toEqual([]);
  expect(result.numPassedTests).toBeGreaterThan(10);
});

afterAll(() => fresh(newestMinor));
