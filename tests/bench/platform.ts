import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { REPO, SSH_KEY } from "../../sandbox/paths";
import { run } from "../../sandbox/shell";
import { createJob, deleteJob, ENV, ensurePlatform, finishedBuild, jenkinsAnswers, jobXml, kubectl, pulumi, STACK, startBuild, waitFor } from "../e2e/sandbox";
import { median, saveBench, seconds } from "./table";

/**
 * The stack beside kubectl: the same objects and the same commands (node-port patch, image builds), cold, unchanged
 * and previewed, in one run on the sandbox. Node and registry have every image before the first figure is taken.
 */
interface StateResource {
  type: string;
  urn: string;
  inputs: Record<string, unknown>;
  outputs: Record<string, unknown>;
}

/** Pulumi's export marks secrets and outputs with a signature; this takes the plain value out. */
function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== "object") return value;
  const record = value as Record<string, unknown>;
  if ("4dabf18193072939515e22adb298388d" in record) return typeof record.plaintext === "string" ? JSON.parse(record.plaintext) : plain(record.value);
  return Object.fromEntries(Object.entries(record).filter(([key]) => key !== "__defaults" && key !== "__initialApiVersion" && key !== "__fieldManager" && key !== "__inputs").map(([key, item]) => [key, plain(item)]));
}

const commandOf = (resource: StateResource) => plain(resource.inputs) as { create: string; delete?: string; stdin?: string; environment?: Record<string, string>; interpreter?: string[]; dir?: string; connection?: { host: string; user?: string; port?: number } };

/** Runs the create or delete command of a command resource by hand; nothing where it has none. */
async function runByHand(resource: StateResource, which: "create" | "delete"): Promise<void> {
  const command = commandOf(resource);
  const text = command[which];
  if (text === undefined) return;
  const environment = command.environment ?? {};
  if (resource.type === "command:local:Command") {
    const [program, ...args] = command.interpreter ?? ["/bin/sh", "-c"];
    await run(program, [...args, text], { cwd: command.dir ?? REPO, env: { ...ENV, ...environment }, input: command.stdin });
    return;
  }
  const { host, user = "root", port = 22 } = command.connection ?? { host: "" };
  const exports = Object.entries(environment).map(([name, value]) => `export ${name}='${value.replace(/'/g, `'\\''`)}'; `).join("");
  await run("ssh", ["-q", "-i", SSH_KEY, "-p", String(port), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", `${user}@${host}`, exports + text], { input: command.stdin });
}

/** Resident memory of every container of a namespace's pods in MiB, as the kubelet counts it. */
async function memory(namespace: string): Promise<Record<string, number>> {
  const nodes = JSON.parse(await kubectl(["get", "nodes", "-o", "json"])) as { items: { metadata: { name: string } }[] };
  const found: Record<string, number> = {};
  for (const node of nodes.items) {
    const summary = JSON.parse(await kubectl(["get", "--raw", `/api/v1/nodes/${node.metadata.name}/proxy/stats/summary`])) as {
      pods: { podRef: { name: string; namespace: string }; containers?: { name: string; memory?: { workingSetBytes?: number } }[] }[];
    };
    for (const pod of summary.pods.filter((candidate) => candidate.podRef.namespace === namespace)) {
      for (const container of pod.containers ?? []) found[container.name] = Math.round((container.memory?.workingSetBytes ?? 0) / 2 ** 20);
    }
  }
  return found;
}

/** Resident memory of a Maven agent's containers in MiB while its build does nothing. */
async function agentMemory(): Promise<Record<string, number>> {
  await createJob("bench-memory", jobXml("maven", "sleep 40"));
  try {
    const build = await startBuild("bench-memory");
    // The kubelet looks every ten seconds or so.
    const figures = await waitFor("figures of an agent", 60, async () => {
      const found = Object.fromEntries(Object.entries(await memory("jenkins-agents")).filter(([container]) => container !== "keeper"));
      return found.jnlp > 0 && found.dind > 0 && found;
    });
    await finishedBuild("bench-memory", build);
    return figures;
  } finally {
    await deleteJob("bench-memory");
  }
}

/** Waits until scheduler and controller manager lead again: an API server that restarted before costs neither way anything. */
async function settled(): Promise<void> {
  for (let good = 0; good < 5; ) {
    await new Promise((resolve) => setTimeout(resolve, 2000));
    const leases = await kubectl(["-n", "kube-system", "get", "leases", "kube-scheduler", "kube-controller-manager", "-o", "jsonpath={.items[*].spec.renewTime}"], { allowFailure: true });
    const fresh = leases.split(" ").filter((time) => Date.now() - Date.parse(time) < 6000);
    good = fresh.length === 2 ? good + 1 : 0;
  }
}

const mebibytes = (found: Record<string, number>) => Object.entries(found).map(([container, size]) => `${container} ${size}`).join(", ");

async function main(): Promise<void> {
  await ensurePlatform(); // images built, pulled and cached
  const destroy = () => pulumi(["destroy", "--stack", STACK, "--yes", "--skip-preview"]);
  const up = () => pulumi(["up", "--stack", STACK, "--yes", "--skip-preview"]);
  await destroy();
  await settled();
  const pulumiCold = await seconds(up);
  await jenkinsAnswers();
  const cliStart = await median(3, () => pulumi(["stack", "output", "--stack", STACK]));
  const pulumiNoop = await median(3, up);
  const pulumiPreview = await median(3, () => pulumi(["preview", "--stack", STACK]));
  const controller = await memory("jenkins");
  const agent = await agentMemory();

  const exported = JSON.parse((await pulumi(["stack", "export", "--stack", STACK, "--show-secrets"])).stdout) as { deployment: { resources: StateResource[] } };
  const resources = exported.deployment.resources;
  const objects = resources
    .filter(({ type }) => type.startsWith("kubernetes:"))
    .map(({ inputs }) => plain(inputs) as { kind: string; metadata: { name: string; namespace?: string } });
  const commands = resources.filter(({ type, inputs }) => /^command:(local|remote):Command$/.test(type) && typeof plain(inputs.create) === "string");
  await destroy();
  await settled();

  const scratch = fs.mkdtempSync(path.join(os.tmpdir(), "build-platform-bench-"));
  const write = (name: string, items: object[]) => {
    const file = path.join(scratch, name);
    fs.writeFileSync(file, JSON.stringify({ apiVersion: "v1", kind: "List", items }), { mode: 0o600 });
    return file;
  };
  const first = write("namespaces.json", objects.filter(({ kind }) => kind === "Namespace"));
  const rest = write("objects.json", objects.filter(({ kind }) => kind !== "Namespace"));
  const deployments = objects.filter(({ kind }) => kind === "Deployment");
  const apply = async () => {
    for (const file of [first, rest]) await kubectl(["apply", "--server-side", "--field-manager=bench", "--force-conflicts", "-f", file]);
  };
  const wait = async () => {
    for (const { metadata } of deployments) await kubectl(["-n", metadata.namespace ?? "default", "rollout", "status", `deployment/${metadata.name}`, "--timeout=300s"]);
    await kubectl(["-n", "jenkins", "wait", "--for=jsonpath={.status.phase}=Bound", "pvc/jenkins-home", "--timeout=120s"]);
    await kubectl(["-n", "jenkins", "wait", "--for=jsonpath={.status.loadBalancer.ingress}", "ingress/jenkins", "--timeout=120s"]);
  };
  let kubectlCold: number, kubectlNoop: number, kubectlDiff: number;
  try {
    kubectlCold = await seconds(async () => {
      for (const command of commands) await runByHand(command, "create");
      await apply();
      await wait();
    });
    await jenkinsAnswers();
    kubectlNoop = await median(3, async () => {
      await apply();
      await wait();
    });
    kubectlDiff = await median(3, async () => {
      for (const file of [first, rest]) await run("kubectl", ["diff", "--server-side", "--field-manager=bench", "--force-conflicts", "-f", file], { env: ENV, allowFailure: true });
    });
  } finally {
    // Objects that went with another are no failure; a namespace takes what is left in it along.
    for (const file of [rest, first]) await kubectl(["delete", "--ignore-not-found", "--wait=true", "-f", file], { allowFailure: true });
    for (const command of commands.reverse()) await runByHand(command, "delete");
    fs.rmSync(scratch, { recursive: true });
  }

  const overStart = pulumiPreview - cliStart;
  saveBench(
    "platform",
    {
      title: "The whole platform: pulumi beside kubectl apply --server-side",
      ways: ["pulumi", "kubectl"],
      rows: [
        { what: "cold, until every condition holds", seconds: [pulumiCold, kubectlCold] },
        { what: "nothing changed: up / apply and wait", seconds: [pulumiNoop, kubectlNoop] },
        { what: "nothing changed: preview / diff", seconds: [pulumiPreview, kubectlDiff] },
      ],
      notes: [
        `${objects.length} Kubernetes objects and ${commands.length} commands (node-port range, image builds with warm caches); images are on the node. Cold is one run, the others the median of three.`,
        `Cold: ratio ${(pulumiCold / kubectlCold).toFixed(2)}; target at most 1.3.`,
        `Preview of an unchanged stack: ${overStart.toFixed(1)} s beyond the CLI's own start (${cliStart.toFixed(1)} s); target under 5 s.`,
        `Working set in MiB: idle controller ${mebibytes(controller)}; an agent whose build waits ${mebibytes(agent)}.`,
      ],
    },
    { cliStart, controller, agent },
  );
  await ensurePlatform();
}

main().catch((error: Error) => {
  process.stderr.write(`bench: ${error.message}\n`);
  process.exitCode = 1;
});
