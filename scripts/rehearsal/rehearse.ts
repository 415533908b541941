/**
 * Tries a changed controller: makes the objects that it reads as JSON from its standard input (RehearsalInput of
 * components/jenkins-master/rehearsal.ts), waits until Jenkins came up or said why not, and removes them again, whatever happens.
 * Progress and Jenkins' own words go to standard error, never the content of a secret.
 * Exit code: 0 it came up, 1 it did not, 2 it could not be tried.
 */
import * as os from "node:os";
import { ApiException, BatchV1Api, CoreV1Api, KubeConfig, NetworkingV1Api, PatchStrategy, setHeaderOptions, type CoreV1Event, type V1Pod, type V1Secret } from "@kubernetes/client-node";
import type { RehearsalInput } from "../../components/jenkins-master/rehearsal";
import { containerToRead, discreet, judge, type Judgement, namedSecrets, type Problem, tail } from "./judge";

const seconds = (count: number) => new Promise((resolve) => setTimeout(resolve, count * 1000));

/** The end of a rehearsal that proved nothing, such as one that was interrupted. */
class Untried extends Error {}

/** Everything one rehearsal needs of the cluster. */
export class Stage {
  private readonly core: CoreV1Api;
  private readonly batch: BatchV1Api;
  private readonly networking: NetworkingV1Api;
  private job?: string;

  constructor(kubeconfig: KubeConfig, private readonly input: RehearsalInput) {
    this.core = kubeconfig.makeApiClient(CoreV1Api);
    this.batch = kubeconfig.makeApiClient(BatchV1Api);
    this.networking = kubeconfig.makeApiClient(NetworkingV1Api);
  }

  /** Makes everything; the pod starts last. What it makes belongs to the Job, and goes with it. */
  async set(): Promise<void> {
    const { namespace, objects } = this.input;
    const job = await again(() => this.batch.createNamespacedJob({ namespace, body: objects.job }));
    this.job = job.metadata!.uid!;
    const owned = <T extends { metadata?: object }>(object: T): T => ({
      ...object,
      metadata: { ...object.metadata, ownerReferences: [{ apiVersion: "batch/v1", kind: "Job", name: job.metadata!.name!, uid: this.job! }] },
    });
    await again(() => this.networking.createNamespacedNetworkPolicy({ namespace, body: owned(objects.networkPolicy) }));
    for (const body of objects.configMaps) await again(() => this.core.createNamespacedConfigMap({ namespace, body: owned(body) }));
    for (const body of objects.secrets) await again(() => this.core.createNamespacedSecret({ namespace, body: owned(body) }));
    await this.batch.patchNamespacedJob({ namespace, name: job.metadata!.name!, body: { spec: { suspend: false } } }, setHeaderOptions("Content-Type", PatchStrategy.MergePatch));
  }

  /** What is to be seen now. */
  async look(): Promise<{ log: string; pod?: V1Pod; events: CoreV1Event[] }> {
    const { namespace, objects } = this.input;
    const pods = await this.core.listNamespacedPod({ namespace, labelSelector: labelsOf(objects.job.metadata!.labels!) });
    const pod = pods.items.find(({ metadata }) => metadata?.ownerReferences?.some(({ uid }) => uid === this.job));
    const of = async (uid: string) => (await this.core.listNamespacedEvent({ namespace, fieldSelector: `involvedObject.uid=${uid}` })).items;
    const events = await of(pod?.metadata?.uid ?? this.job!);
    const name = pod?.metadata?.name;
    // A container that has not started has no log, which is an error.
    const log = pod && name ? await this.core.readNamespacedPodLog({ namespace, name, container: containerToRead(pod) }).catch(() => "") : "";
    return { log: typeof log === "string" ? log : "", ...(pod && { pod }), events };
  }

  /** Secrets of the site's own; one that is not there, or may not be read, is the rehearsal's to find. */
  async contents(names: string[]): Promise<V1Secret[]> {
    const { namespace } = this.input;
    const found = await Promise.all(names.map((name) => this.core.readNamespacedSecret({ namespace, name }).catch(() => undefined)));
    return found.filter((each) => each !== undefined);
  }

  /** Removes what this or a killed rehearsal left. */
  async clear(): Promise<void> {
    const { namespace, objects } = this.input;
    const labelSelector = labelsOf(objects.job.metadata!.labels!);
    const all = { namespace, labelSelector };
    await this.batch.deleteCollectionNamespacedJob({ ...all, propagationPolicy: "Background" });
    await this.core.deleteCollectionNamespacedConfigMap(all);
    await this.core.deleteCollectionNamespacedSecret(all);
    // Pods last, as their policy goes after them.
    await this.core.deleteCollectionNamespacedPod(all);
    await this.networking.deleteCollectionNamespacedNetworkPolicy(all);
  }
}

const labelsOf = (labels: Record<string, string>): string => Object.entries(labels).map(([key, value]) => `${key}=${value}`).join(",");

/** Waits for a name that a former rehearsal's object still has. */
async function again<T>(make: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await make();
    } catch (error) {
      if (tries > 20 || !(error instanceof ApiException) || error.code !== 409) throw error;
      await seconds(0.5);
    }
  }
}

/** Runs a rehearsal to its end. */
export async function rehearse(stage: Stage, input: RehearsalInput, say: (line: string) => void, signal: AbortSignal, pause = 1): Promise<{ good: boolean; lines: string[] }> {
  const started = Date.now();
  const passed = () => Math.round((Date.now() - started) / 1000);
  const alive = () => {
    if (signal.aborted) throw new Untried("interrupted");
  };
  await stage.clear();
  alive();
  await stage.set();
  let said = "";
  let suspected: { what: string; since: number } | undefined;
  let [seen, trouble]: [{ judgement?: Judgement; log: string }, Error | undefined] = [{ log: "" }, undefined];
  while (passed() < input.timeoutSeconds) {
    alive();
    try {
      const observation = await stage.look();
      seen = { judgement: judge(observation), log: observation.log || seen.log };
      trouble = undefined;
    } catch (error) {
      // An API server that restarts is asked again.
      trouble = error as Error;
    }
    const { judgement } = seen;
    if (!trouble && judgement?.state === "good") {
      return { good: true, lines: [`Jenkins came up with this image and configuration in ${passed()} s`, ...judgement.notes] };
    }
    if (!trouble && judgement?.state === "bad") return { good: false, lines: report(judgement.problems, passed()) };
    if (judgement?.state === "waiting") {
      const { doing, suspicion } = judgement;
      if (suspicion?.problem.what !== suspected?.what) suspected = suspicion && { what: suspicion.problem.what, since: Date.now() };
      if (suspicion && suspected && Date.now() - suspected.since >= suspicion.seconds * 1000) return { good: false, lines: report([suspicion.problem], passed()) };
      if (doing !== said) say(`${passed()} s: ${doing}${suspicion ? `: ${suspicion.problem.words.join(" ")}` : ""}`);
      said = doing;
    }
    await seconds(pause);
  }
  if (trouble) throw trouble;
  const { judgement } = seen;
  const late: Problem =
    judgement?.state === "waiting" && judgement.suspicion
      ? judgement.suspicion.problem
      : { what: `Jenkins has not come up after ${input.timeoutSeconds} s; last: ${said}`, words: tail(seen.log), todo: "Raise rehearsal.timeoutSeconds, or rehearsal.resources where it is merely slow." };
  return { good: false, lines: report([late], passed()) };
}

function report(problems: Problem[], passed: number): string[] {
  return [
    `Jenkins does not come up with this image and configuration (tried for ${passed} s). The running one was not touched.`,
    ...problems.flatMap(({ what, words, todo }) => [`${what}:`, ...words.flatMap((word) => word.split("\n")).map((line) => `  ${line}`), `  -> ${todo}`]),
  ];
}

/** An error's own words: of the API server its message. */
function reason(error: unknown): string {
  if (error instanceof ApiException) {
    const body: unknown = typeof error.body === "string" ? parsed(error.body) : error.body;
    return (body as { message?: string } | undefined)?.message ?? `the API server answers ${error.code}`;
  }
  return error instanceof Error ? error.message : String(error);
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return { message: text };
  }
}

async function main(): Promise<number> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  const input = JSON.parse(Buffer.concat(chunks).toString()) as RehearsalInput;
  let hide = discreet(input.objects.secrets);
  const say = (line: string) => process.stderr.write(`${hide(line)}\n`);

  const interrupted = new AbortController();
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(name, () => interrupted.abort());
  // Pulumi's provider kills the shell that started this program, which then has another parent.
  const parent = process.ppid;
  setInterval(() => process.ppid !== parent && interrupted.abort(), 500).unref();
  // Then nobody reads what is said either.
  process.stderr.on("error", () => interrupted.abort());

  const kubeconfig = new KubeConfig();
  if (input.kubeconfig) kubeconfig.loadFromFile(input.kubeconfig.replace(/^~(?=\/)/, os.homedir()));
  else kubeconfig.loadFromDefault();
  kubeconfig.setCurrentContext(input.context);
  const stage = new Stage(kubeconfig, input);
  try {
    hide = discreet([...input.objects.secrets, ...(await stage.contents(namedSecrets(input)))]);
    const { good, lines } = await rehearse(stage, input, say, interrupted.signal);
    lines.forEach(say);
    return good ? 0 : 1;
  } catch (error) {
    say(`The changed controller could not be tried, and the running one was not touched: ${reason(error)}`);
    return 2;
  } finally {
    await stage.clear().catch((error: unknown) => say(`What the rehearsal made could not be removed now (${reason(error)}); the next one removes it`));
  }
}

if (require.main === module) void main().then((code) => process.exit(code));
