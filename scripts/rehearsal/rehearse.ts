/**
 * Tries a changed controller: makes the objects that it reads as JSON from its standard input (RehearsalInput of
 * components/jenkins-master/rehearsal.ts), waits until Jenkins came up or said why not, and removes them again, whatever happens.
 * Progress and Jenkins' own words go to standard error, never the content of a secret.
 * Exit code: 0 it came up, 1 it did not, 2 it could not be tried. cli/upgrades/copy.ts runs the same on a snapshot's copy.
 */
import * as os from "node:os";
import { PassThrough } from "node:stream";
import { ApiException, BatchV1Api, CoreV1Api, Exec, KubeConfig, NetworkingV1Api, PatchStrategy, setHeaderOptions, type CoreV1Event, type V1Pod, type V1Secret, type V1Status } from "@kubernetes/client-node";
import { fenceContainer, fencedFile, type RehearsalInput, restoreSeconds } from "../../components/jenkins-master/rehearsal";
import { containerToRead, discreet, judge, type Judgement, namedSecrets, type Problem, tail } from "./judge";

const seconds = (count: number) => new Promise((resolve) => setTimeout(resolve, count * 1000));

/** Seconds in which whoever enforces policies has taken note of a new one. */
const fencingSeconds = 5;

/** The end of a rehearsal that proved nothing, such as one that was interrupted. */
export class Untried extends Error {}

/** Everything one rehearsal needs of the cluster. */
export class Stage {
  private readonly core: CoreV1Api;
  private readonly batch: BatchV1Api;
  private readonly networking: NetworkingV1Api;
  private job?: string;
  /** Another rehearsal of this kind has removed this one's Job, and with it all that belongs to it. */
  private superseded = false;
  /** Its job's uid, by which what is made late belongs to it, too. */
  private owned = <T extends { metadata?: object }>(object: T): T => ({
    ...object,
    metadata: { ...object.metadata, ownerReferences: [{ apiVersion: "batch/v1", kind: "Job", name: this.input.objects.job.metadata!.name!, uid: this.job! }] },
  });

  constructor(private readonly kubeconfig: KubeConfig, private readonly input: RehearsalInput) {
    this.core = kubeconfig.makeApiClient(CoreV1Api);
    this.batch = kubeconfig.makeApiClient(BatchV1Api);
    this.networking = kubeconfig.makeApiClient(NetworkingV1Api);
  }

  /** Makes everything; the pod starts last. What it makes belongs to the Job, and goes with it. */
  async set(): Promise<void> {
    const { namespace, objects } = this.input;
    const job = await again(() => this.batch.createNamespacedJob({ namespace, body: objects.job }));
    this.job = job.metadata!.uid!;
    // A copy is restored first, for which its pod needs a way out.
    if (!copied(this.input)) await this.closeIn();
    for (const body of objects.configMaps) await again(() => this.core.createNamespacedConfigMap({ namespace, body: this.owned(body) }));
    for (const body of objects.secrets) await again(() => this.core.createNamespacedSecret({ namespace, body: this.owned(body) }));
    await this.batch.patchNamespacedJob({ namespace, name: job.metadata!.name!, body: { spec: { suspend: false } } }, setHeaderOptions("Content-Type", PatchStrategy.MergePatch));
  }

  private async closeIn(): Promise<void> {
    const { namespace, objects } = this.input;
    await again(() => this.networking.createNamespacedNetworkPolicy({ namespace, body: this.owned(objects.networkPolicy) }));
  }

  /** Closes the pod of a copy in, and lets it go on to Jenkins. */
  async fence(pod: string): Promise<void> {
    await this.closeIn().catch((error: unknown) => {
      // Done before a request that failed.
      if (!(error instanceof ApiException) || error.code !== 409) throw error;
    });
    await seconds(fencingSeconds);
    const { code, out } = await this.inside(pod, fenceContainer, ["touch", fencedFile]);
    if (code !== 0) throw new Error(`the copy could not be told to go on: ${out}`);
  }

  /** What a command in one of the pod's containers prints, and how it ends. */
  async inside(pod: string, container: string, command: string[]): Promise<{ code: number; out: string }> {
    let out = "";
    const stream = new PassThrough().on("data", (chunk: Buffer) => (out += chunk.toString()));
    const { namespace } = this.input;
    const ended = await new Promise<V1Status>((resolve, reject) => {
      new Exec(this.kubeconfig).exec(namespace, pod, container, command, stream, stream, null, false, resolve).then(
        // The status comes before the end of a connection that is whole.
        (socket) => void socket.addEventListener("close", () => setTimeout(reject, 1000, new Error(`the connection to pod ${pod} broke`))),
        (error: unknown) => reject(error instanceof Error ? error : new Error(`pod ${pod} cannot be reached`)),
      );
    });
    const code = ended.status === "Success" ? 0 : Number(ended.details?.causes?.find(({ reason: why }) => why === "ExitCode")?.message ?? 1);
    return { code, out: out || (ended.message ?? "") };
  }

  /** What is to be seen now. */
  async look(): Promise<{ log: string; pod?: V1Pod; events: CoreV1Event[] }> {
    const { namespace, objects } = this.input;
    const pods = await this.core.listNamespacedPod({ namespace, labelSelector: labelsOf(objects.job.metadata!.labels!) });
    const pod = pods.items.find(({ metadata }) => metadata?.ownerReferences?.some(({ uid }) => uid === this.job));
    const of = async (uid: string) => (await this.core.listNamespacedEvent({ namespace, fieldSelector: `involvedObject.uid=${uid}` })).items;
    if (!pod && !(await this.batch.listNamespacedJob({ namespace, labelSelector: labelsOf(objects.job.metadata!.labels!) })).items.some(({ metadata }) => metadata?.uid === this.job)) {
      this.superseded = true;
      throw new Untried("its Job was removed, by another rehearsal of this environment or by hand");
    }
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
    if (this.superseded) return;
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

const copied = ({ objects }: RehearsalInput): boolean => objects.job.spec!.template.spec!.initContainers?.some(({ name }) => name === fenceContainer) ?? false;

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

/** How a rehearsal ended. Its pod is there until the stage is cleared. */
export interface Rehearsed {
  good: boolean;
  lines: string[];
  /** Why it is not good. */
  problems: Problem[];
  log: string;
  /** Where Jenkins answers; undefined where it does not. */
  pod?: V1Pod;
}

/** Runs a rehearsal to its end. */
export async function rehearse(stage: Stage, input: RehearsalInput, say: (line: string) => void, signal: AbortSignal, pause = 1): Promise<Rehearsed> {
  let started = Date.now();
  let restoring = copied(input);
  const passed = () => Math.round((Date.now() - started) / 1000);
  const alive = () => {
    if (signal.aborted) throw new Untried("interrupted");
  };
  await stage.clear();
  alive();
  await stage.set();
  let said = "";
  let suspected: { what: string; since: number } | undefined;
  let [seen, trouble]: [{ judgement?: Judgement; log: string; pod?: V1Pod }, Error | undefined] = [{ log: "" }, undefined];
  const ended = (problems: Problem[], lines?: string[]): Rehearsed => {
    const ready = seen.pod?.status?.conditions?.some(({ type, status }) => type === "Ready" && status === "True");
    return { good: lines !== undefined, lines: lines ?? report(problems, passed()), problems, log: seen.log, ...(ready && { pod: seen.pod }) };
  };
  while (passed() < (restoring ? restoreSeconds : input.timeoutSeconds)) {
    alive();
    try {
      const observation = await stage.look();
      seen = { judgement: judge(observation), log: observation.log || seen.log, ...(observation.pod && { pod: observation.pod }) };
      trouble = undefined;
      if (restoring && seen.pod?.status?.initContainerStatuses?.some(({ name, state }) => name === fenceContainer && state?.running)) {
        say(`${passed()} s: the copy is whole; from here on nothing leads in or out`);
        await stage.fence(seen.pod.metadata!.name!);
        [restoring, started] = [false, Date.now()];
      }
    } catch (error) {
      if (error instanceof Untried) throw error;
      // An API server that restarts is asked again.
      trouble = error as Error;
    }
    const { judgement } = seen;
    if (!trouble && judgement?.state === "good") {
      return ended([], [`Jenkins came up with this image and configuration in ${passed()} s`, ...judgement.notes]);
    }
    if (!trouble && judgement?.state === "bad") return ended(judgement.problems);
    if (judgement?.state === "waiting") {
      const { doing, suspicion } = judgement;
      if (suspicion?.problem.what !== suspected?.what) suspected = suspicion && { what: suspicion.problem.what, since: Date.now() };
      if (suspicion && suspected && Date.now() - suspected.since >= (suspicion.mayComeUp && copied(input) ? input.timeoutSeconds : suspicion.seconds) * 1000) return ended([suspicion.problem]);
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
  return ended([late]);
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
