import { parse } from "yaml";
import { REPO } from "../../sandbox/paths";
import { run } from "../../sandbox/shell";
import {
  BUILDKIT_IMAGE,
  adminAuth, createJob, deleteJob, DOMAIN, ENV, ensurePlatform, finishedBuild, jenkins, jenkinsAnswers, jobXml, KUBEADM_CONFIG, kubectl, kubectlJson, onNode, ownCloud, plainTemplate, pulumi, request, setCloud, STACK, startBuild, unpack, up, volumesLookedAt, waitFor,
} from "./sandbox";

jest.setTimeout(900_000);

const onDisk = async (file: string) => (await onNode(["cat", file])).stdout;
const manifest = "/etc/kubernetes/manifests/kube-apiserver.yaml";

interface List<T> {
  items: T[];
}
interface Pod {
  metadata: { name: string; namespace: string; labels: Record<string, string> };
  spec: { containers: { name: string; image: string; command?: string[]; args?: string[]; securityContext?: { privileged?: boolean } }[]; serviceAccountName: string };
}

const controllerLabels = "app.kubernetes.io/name=jenkins,app.kubernetes.io/component=controller";
const controllerPods = async () => (await kubectlJson<List<{ metadata: { uid: string }; status: { conditions?: { type: string; status: string }[] } }>>(["-n", "jenkins", "get", "pods", "-l", controllerLabels])).items;
const agentPods = async () => (await kubectlJson<List<Pod>>(["-n", "jenkins-agents", "get", "pods", "-l", "jenkins=agent"])).items;
const outputs = async () => JSON.parse((await pulumi(["stack", "output", "--stack", STACK, "--json"])).stdout) as Record<string, string> & { agentImages: Record<string, string> };

/** Runs one build of `shell` on `label` and returns it with the pod that it ran in. */
async function buildOnce(job: string, label: string, shell: string) {
  await createJob(job, jobXml(label, shell));
  try {
    const number = await startBuild(job);
    const pod = await waitFor(`an agent pod for ${job}`, 120, async () => (await agentPods()).find(({ metadata }) => metadata.labels["build-platform/template"] === label));
    const build = await finishedBuild(job, number);
    await waitFor(`the agent pod of ${job} to be gone`, 120, async () => (await agentPods()).length === 0);
    return { build, pod };
  } finally {
    await deleteJob(job);
  }
}

/** The registry that the nodes pull from: agents push to it from inside. */
const registryHost = async () => (await outputs()).agentImages["maven-dind"].split("/")[0];

const dockerBuild = (tag: string, file: string) => [
  `cp ${file} app.jar`,
  "printf 'FROM scratch\\nCOPY app.jar /app.jar\\n' > Dockerfile",
  `docker build -q -t ${tag} .`,
  `docker image inspect ${tag} --format 'image {{.Id}}'`,
].join("\n");

describe("the platform on a live cluster", () => {
  beforeAll(ensurePlatform);

  test("Jenkins' login page answers 200 through the ingress on node port 80, for its own host only", async () => {
    const answer = await jenkinsAnswers();
    expect(answer.body).toMatch(/j_username/);
    expect((await request("GET", "/login", { host: "other.sandbox.test" })).status).toBe(404);
  });

  test("the home volume is Bound on openebs-hostpath and lies on the node's disk", async () => {
    const claim = await kubectlJson<{ status: { phase: string }; spec: { storageClassName: string; volumeName: string } }>(["-n", "jenkins", "get", "pvc", "jenkins-home"]);
    expect(claim.status.phase).toBe("Bound");
    expect(claim.spec.storageClassName).toBe("openebs-hostpath");
    expect((await onNode(["stat", "-c", "%u", `/var/openebs/local/${claim.spec.volumeName}/config.xml`])).stdout.trim()).toBe("1000");
  });

  test("the outputs name what people need", async () => {
    const out = await outputs();
    expect(out.jenkinsUrl).toContain(DOMAIN);
    expect(out.storageClass).toBe("openebs-hostpath");
    expect(out.nodePortRange).toBe("80-32767");
    expect(Object.values(out.agentImages).length).toBeGreaterThanOrEqual(2);
    for (const reference of Object.values(out.agentImages)) expect(reference).toMatch(/@sha256:[0-9a-f]{64}$/);
    const password = (await adminAuth()).split(":")[1];
    expect(password.length).toBeGreaterThanOrEqual(16);
    expect((await run("sh", ["-c", out.adminPasswordCommand], { env: ENV })).stdout).toBe(password);
    expect(JSON.stringify(out)).not.toContain(password);
  });

  test("a Maven job runs in an agent pod of its image, builds with a dependency and a container image, and the pod is gone after it", async () => {
    const { build, pod } = await buildOnce("e2e-maven", "maven", [
      "set -eu", unpack("maven-app"), "mvn -B -q package", "ls target/app-1.0.jar", dockerBuild("e2e/maven", "target/app-1.0.jar"),
    ].join("\n"));
    expect(build.console).toMatch(/image sha256:[0-9a-f]{64}/);
    expect(build.result).toBe("SUCCESS");
    const images = (await outputs()).agentImages;
    const agent = pod.spec.containers.find((container) => container.name === "jnlp");
    expect(agent?.image).toBe(images["maven-dind"]);
    expect(agent?.command ?? []).toEqual([]);
    expect(agent?.args ?? []).toEqual([]);
    expect(pod.spec.containers.filter((container) => container.securityContext?.privileged).map((container) => container.name)).toEqual(["dind"]);
    expect(pod.spec.serviceAccountName).toBe("jenkins-agent");
  });

  test("a second Maven agent takes its dependencies from the node's cache, and each pushes its image from inside", async () => {
    await onNode(["sh", "-c", "rm -rf /var/cache/build-platform/maven/repository/*"]);
    const job = "e2e-maven-cache";
    const tag = `${await registryHost()}/e2e/maven-cache:latest`;
    await createJob(job, jobXml("maven", ["set -eu", unpack("maven-app"), "mvn -B package", dockerBuild(tag, "target/app-1.0.jar"), `docker push ${tag}`].join("\n")));
    try {
      const builds = [];
      for (let i = 0; i < 2; i++) builds.push(await finishedBuild(job, await startBuild(job)));
      for (const build of builds) {
        expect(build.result).toBe("SUCCESS");
        expect(build.console).toMatch(/latest: digest: sha256:[0-9a-f]{64}/);
      }
      expect(builds[0].console).toMatch(/Downloading from/);
      expect(builds[1].console).not.toMatch(/Downloading from/);
      const took = builds.map(({ console: text }) => /Total time: +([\d.]+) s/.exec(text)?.[1]);
      console.info(`Maven with an empty cache ${took[0]} s, with the cache of the agent before ${took[1]} s`);
    } finally {
      await deleteJob(job);
      await waitFor("the agents' pods to be gone", 120, async () => (await agentPods()).length === 0);
      await run("scripts/images/build-image.sh", ["--delete", "--repository", tag.split(":latest")[0], "--tag", "latest", "--insecure"], { cwd: REPO, env: ENV, allowFailure: true });
    }
  });

  test("a Gradle job does the same in the Gradle image", async () => {
    const { build, pod } = await buildOnce("e2e-gradle", "gradle", [
      "set -eu", unpack("gradle-app"), "gradle --no-daemon -q jar", "ls build/libs/app.jar", dockerBuild("e2e/gradle", "build/libs/app.jar"),
    ].join("\n"));
    expect(build.console).toMatch(/image sha256:[0-9a-f]{64}/);
    expect(build.result).toBe("SUCCESS");
    expect(pod.spec.containers.find((container) => container.name === "jnlp")?.image).toBe((await outputs()).agentImages["gradle-dind"]);
  });

  test("what one Gradle agent downloaded the next one on the node has: it builds offline", async () => {
    const folder = "/var/cache/build-platform/gradle";
    // What the agent before offered is taken over within seconds of its end; only then is the cache emptied for good.
    await waitFor("the keeper to take what was offered", 60, async () => (await onNode(["find", `${folder}-offers`, "-mindepth", "1"])).stdout === "");
    await onNode(["sh", "-c", `rm -rf ${folder}/current ${folder}/generations/*`]);
    const build = (options: string) => ["set -eu", unpack("gradle-app"), `gradle --no-daemon ${options} jar`, "ls build/libs/app.jar"].join("\n");
    const { build: alone } = await buildOnce("e2e-gradle-offline", "gradle", build("--offline"));
    expect(alone.result).toBe("FAILURE");
    expect(alone.console).toMatch(/No cached version .* available for offline mode/);
    const { build: first } = await buildOnce("e2e-gradle-first", "gradle", build(""));
    expect(first.result).toBe("SUCCESS");
    await waitFor("the agent's downloads in the node's cache", 60, async () => (await onNode(["sh", "-c", `find -L ${folder}/current -name 'commons-lang3-3.14.0.jar'`])).stdout.trim() !== "");
    const { build: second } = await buildOnce("e2e-gradle-second", "gradle", build("--offline"));
    expect(second.console).toContain("BUILD SUCCESSFUL");
    expect(second.result).toBe("SUCCESS");
    // Nothing of it belongs to root, so nothing was done as root.
    expect((await onNode(["find", folder, "-user", "root"])).stdout).toBe("");
  });

  test("a template with rootless BuildKit builds and pushes an image, with no privileged container", async () => {
    const name = "e2e-rootless";
    const repository = `${await registryHost()}/e2e/rootless`;
    const template = { ...(await plainTemplate(name)), docker: "rootless" as const };
    await setCloud(name, template, { dindImage: "", buildkitImage: BUILDKIT_IMAGE, insecureRegistries: [] });
    try {
      const { build, pod } = await buildOnce("e2e-rootless", name, [
        "set -eu", "date +%s%N > app.txt", "printf 'FROM scratch\\nCOPY app.txt /app.txt\\n' > Dockerfile",
        `/opt/buildkit/buildctl build --progress plain --frontend dockerfile.v0 --local context=. --local dockerfile=. --output type=image,name=${repository}:latest,push=true,registry.insecure=true`,
      ].join("\n"));
      expect(build.console).toMatch(/pushing manifest .*e2e\/rootless:latest@sha256:[0-9a-f]{64}/);
      expect(build.result).toBe("SUCCESS");
      expect(pod.spec.containers.filter((container) => container.securityContext?.privileged)).toEqual([]);
    } finally {
      await setCloud(name);
      await run("scripts/images/build-image.sh", ["--delete", "--repository", repository, "--tag", "latest", "--insecure"], { cwd: REPO, env: ENV, allowFailure: true });
    }
  });

  test("the controller may handle agents in their namespace and nothing else; agents may do nothing", async () => {
    const may = async (account: string, verb: string, what: string, namespace: string) =>
      (await kubectl(["auth", "can-i", verb, what, "-n", namespace, "--as", `system:serviceaccount:${account}`], { allowFailure: true })).trim().split("\n").pop();
    const allowed = [["create", "pods"], ["delete", "pods"], ["watch", "pods"], ["create", "pods/exec"], ["get", "pods/log"], ["watch", "events"]];
    for (const [verb, what] of allowed) expect([verb, what, await may("jenkins:jenkins", verb, what, "jenkins-agents")]).toEqual([verb, what, "yes"]);
    const forbidden = [
      ["get", "secrets", "jenkins-agents"], ["create", "deployments.apps", "jenkins-agents"], ["create", "rolebindings.rbac.authorization.k8s.io", "jenkins-agents"],
      ["get", "secrets", "jenkins"], ["create", "pods", "jenkins"], ["create", "pods", "default"], ["create", "pods", "kube-system"], ["list", "nodes", "default"],
    ];
    for (const [verb, what, where] of forbidden) expect([verb, what, where, await may("jenkins:jenkins", verb, what, where)]).toEqual([verb, what, where, "no"]);
    for (const account of ["jenkins-agents:jenkins-agent", "jenkins-agents:default", "jenkins:default"])
      for (const [verb, what, where] of [["create", "pods", "jenkins-agents"], ["get", "pods", "jenkins-agents"], ["get", "secrets", "jenkins"], ["get", "configmaps", "jenkins"]])
        expect([account, verb, what, where, await may(account, verb, what, where)]).toEqual([account, verb, what, where, "no"]);
  });

  test("the network policies fence controller and agents", async () => {
    interface Policy { spec: { podSelector: object; policyTypes: string[]; ingress?: { ports: { port: number }[] }[]; egress?: { to: { ipBlock?: { except?: string[] } }[] }[] } }
    const controller = await kubectlJson<Policy>(["-n", "jenkins", "get", "networkpolicy", "jenkins"]);
    expect(controller.spec.policyTypes).toEqual(["Ingress"]);
    expect(controller.spec.ingress?.map(({ ports }) => ports.map(({ port }) => port))).toEqual([[8080], [8080, 50000]]);
    const agents = await kubectlJson<Policy>(["-n", "jenkins-agents", "get", "networkpolicy", "jenkins-agents"]);
    expect(agents.spec).toMatchObject({ podSelector: {}, policyTypes: ["Ingress", "Egress"] });
    expect(agents.spec.ingress ?? []).toEqual([]);
    const addresses = (await kubectl(["get", "endpointslices", "-l", "kubernetes.io/service-name=kubernetes", "-o", "jsonpath={.items[*].endpoints[*].addresses[*]}"])).split(" ");
    const fenced = agents.spec.egress?.flatMap(({ to }) => to.flatMap(({ ipBlock }) => ipBlock?.except ?? []));
    expect(fenced).toEqual(expect.arrayContaining(addresses.map((address) => `${address}/32`)));
  });

  test("the controller builds nothing: it has no executors, and a job without label runs on an agent of the first template", async () => {
    const { computer } = JSON.parse(await jenkins("GET", "/computer/api/json")) as { computer: { displayName: string; numExecutors: number }[] };
    expect(computer.filter(({ numExecutors }) => numExecutors > 0)).toEqual([]);
    await createJob("e2e-anywhere", jobXml("", "true").replace(/<assignedNode>.*<\/canRoam>/, "<canRoam>true</canRoam>"));
    try {
      const build = await finishedBuild("e2e-anywhere", await startBuild("e2e-anywhere"));
      expect(build.result).toBe("SUCCESS");
      expect(build.builtOn).toMatch(/^maven-/);
    } finally {
      await deleteJob("e2e-anywhere");
      await waitFor("the agent's pod to be gone", 120, async () => (await agentPods()).length === 0);
    }
  });

  test("a broken configuration is refused and the former one stays in force; a good one is in force under a running build", async () => {
    const description = async () => (JSON.parse(await jenkins("GET", "/api/json")) as { description: string | null }).description ?? "";
    const log = () => kubectl(["-n", "jenkins", "logs", "deployment/jenkins", "-c", "config-reload"]);
    const apply = async (text: string | null) => {
      await kubectl(["-n", "jenkins", "patch", "configmap", "jenkins-casc", "--type=merge", "-p", JSON.stringify({ data: { "e2e.yaml": text } })]);
      await volumesLookedAt("jenkins", controllerLabels);
    };
    const job = "e2e-reload";
    const before = (await controllerPods()).map(({ metadata }) => metadata.uid);
    const former = await description();
    await createJob(job, jobXml("maven", "set -eu; test ! -e /var/run/secrets/kubernetes.io; echo begun; while [ ! -e /tmp/go ]; do sleep 0.5; done; echo ended"));
    try {
      const number = await startBuild(job);
      const agent = await waitFor("the build to run", 120, async () => {
        const build = await request("GET", `/job/${job}/${number}/consoleText`, { auth: await adminAuth() });
        return build.body.includes("begun") && (await agentPods())[0]?.metadata.name;
      });
      await apply("jenkins:\n  systemMesage: broken\n");
      await waitFor("the refusal in the sidecar's log", 150, async () => (await log()).includes("systemMesage"));
      expect(await log()).toMatch(/Jenkins refuses the changed configuration \(error\); the former one stays in force/);
      expect(await description()).toBe(former);
      const status = await run("npm", ["run", "-s", "status", "--", STACK], { cwd: REPO, env: ENV, allowFailure: true });
      expect(status.stdout).toMatch(/^! +configuration +Jenkins refuses the changed configuration[^]*systemMesage/m);
      await apply("jenkins:\n  systemMessage: changed under a build\n");
      await waitFor("the new message", 150, async () => (await description()) === "changed under a build");
      expect((await log()).trim().split("\n").pop()).toBe("the changed configuration is in force");
      expect((await controllerPods()).map(({ metadata }) => metadata.uid)).toEqual(before);
      await kubectl(["-n", "jenkins-agents", "exec", agent, "-c", "jnlp", "--", "touch", "/tmp/go"]);
      const build = await finishedBuild(job, number);
      expect(build.result).toBe("SUCCESS");
      expect(build.builtOn).toBe(agent);
    } finally {
      // What a document no longer sets, Jenkins keeps: it is set back before the document goes.
      await apply(`jenkins:\n  systemMessage: ${JSON.stringify(former)}\n`);
      await waitFor("the former message", 150, async () => (await description()) === former);
      const applied = async () => (await log()).split("the changed configuration is in force").length;
      const then = await applied();
      await apply(null);
      await deleteJob(job);
      await waitFor("the document to be gone", 150, async () => (await applied()) > then);
      await waitFor("the agent's pod to be gone", 120, async () => (await agentPods()).length === 0);
    }
  });

  test("a second up changes nothing and preview says so", async () => {
    await pulumi(["preview", "--stack", STACK, "--expect-no-changes"]);
    const out = await up("--expect-no-changes");
    expect(out).toMatch(/\d+ unchanged/);
    expect(out).not.toMatch(/\d+ (created|updated|deleted|replaced)/);
  });

  test("the API server warns of nothing that the platform makes or asks for", async () => {
    const state = JSON.parse((await pulumi(["stack", "export", "--stack", STACK])).stdout) as { deployment: { resources: { type: string; inputs?: { kind?: string } }[] } };
    // A Secret's values are encrypted in the state.
    const made = state.deployment.resources.filter(({ type, inputs }) => type.startsWith("kubernetes:") && !type.endsWith("Patch") && inputs?.kind && inputs.kind !== "Secret").map(({ inputs }) => inputs);
    const { namespace, templates } = await ownCloud();
    const agents = templates.map(({ yaml }, i) => ({ ...(parse(yaml) as object), metadata: { name: `e2e-warned-${i}`, namespace } }));
    expect([made.length > 20, agents.length > 0]).toEqual([true, true]);
    const items = [...made, ...agents];
    await kubectl(["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--warnings-as-errors", "-f", "-"], { input: JSON.stringify({ apiVersion: "v1", kind: "List", items }) });
    // Endpoints are written by the control plane itself, for whoever still reads them.
    const metrics = await kubectl(["get", "--raw", "/metrics"]);
    expect(metrics).toContain("apiserver_request_total");
    expect(metrics.split("\n").filter((line) => line.startsWith("apiserver_requested_deprecated_apis") && !line.includes('resource="endpoints"'))).toEqual([]);
  });

  test("refresh shows no drift", async () => {
    const out = (await pulumi(["refresh", "--stack", STACK, "--yes", "--expect-no-changes", "--skip-preview"])).stdout;
    expect(out).toMatch(/\d+ unchanged/);
  });

  test("killing the controller brings back the same jobs and the same password", async () => {
    await createJob("e2e-survivor", jobXml("maven", "true"));
    const before = await adminAuth();
    const home = await kubectl(["-n", "jenkins", "get", "pvc", "jenkins-home", "-o", "jsonpath={.spec.volumeName}"]);
    const config = `/var/openebs/local/${home}/jobs/e2e-survivor/config.xml`;
    const bytes = await onDisk(config);
    try {
      const ready = async () => (await controllerPods()).filter((pod) => pod.status.conditions?.some(({ type, status }) => type === "Ready" && status === "True")).map((pod) => pod.metadata.uid);
      const killed = await ready();
      expect(killed).toHaveLength(1);
      await kubectl(["-n", "jenkins", "delete", "pod", "-l", controllerLabels, "--grace-period=0", "--force"]);
      await waitFor("another controller pod to be ready", 180, async () => (await ready()).some((uid) => uid !== killed[0]));
      await jenkinsAnswers();
      // The new controller takes the password that the old one took, and the Secret still holds it.
      expect((await request("GET", "/api/json", { auth: before })).status).toBe(200);
      expect(await adminAuth()).toBe(before);
      const jobs = JSON.parse(await jenkins("GET", "/api/json")) as { jobs: { name: string }[] };
      expect(jobs.jobs.map((job) => job.name)).toContain("e2e-survivor");
      expect(await onDisk(config)).toBe(bytes);
      expect((await request("GET", "/api/json", { auth: "admin:wrong-password" })).status).toBe(401);
    } finally {
      await deleteJob("e2e-survivor");
    }
  });

  test("destroy leaves no namespace of the platform and the apiserver's manifest as kubeadm wrote it; up brings it back", async () => {
    // kubeadm renders the same manifest again into a scratch folder: what it wrote, to the byte.
    const render = `set -e; d=$(mktemp -d); KUBEADM_INIT_DRYRUN_DIR=$d kubeadm init phase control-plane apiserver --config ${KUBEADM_CONFIG} --dry-run >/dev/null 2>&1; cat $d/kube-apiserver.yaml; rm -rf $d`;
    const rendered = (await onNode(["sh", "-c", render])).stdout;
    expect(await onDisk(manifest)).toContain("--service-node-port-range=80-32767");
    await pulumi(["destroy", "--stack", STACK, "--yes", "--skip-preview"]);
    const namespaces = (await kubectl(["get", "namespaces", "-o", "name"])).split("\n");
    for (const name of ["jenkins", "jenkins-agents", "ingress-nginx", "openebs"]) expect(namespaces).not.toContain(`namespace/${name}`);
    expect(await onDisk(manifest)).toBe(rendered);
    expect(await kubectl(["get", "pv", "-o", "name"])).toBe("");
    const left = (await onNode(["find", "/etc/kubernetes", "/etc/sysctl.d", "/var/openebs", "-newer", KUBEADM_CONFIG, "-type", "f"])).stdout.split("\n");
    expect(left.filter((file) => /node-port|backup|openebs\/local\//.test(file))).toEqual([]);
    await ensurePlatform();
  });
});
