import { UsageError } from "../terminal";
import { get, kubectl, patch, random, run, say, sleep, target } from "./cluster";
import { MANAGER } from "./objects";

/** Takes one step of a work, unless it is done already. */
type Step<Phase> = (phase: Phase, title: string, take: () => Promise<void>) => Promise<void>;

/** What a command knows about its own work, kept in a ConfigMap, so that whoever runs it again goes on where it stopped; one process at a time. */
export class Book<Journal> {
  /**
   * @param name of the ConfigMap
   * @param what the work, for people
   */
  constructor(
    private readonly name: string,
    private readonly what: string,
  ) {}

  async load(): Promise<Journal | undefined> {
    const map = await get("configmap", this.name);
    return map && (JSON.parse(map.data.state) as Journal);
  }

  async save(journal: Journal): Promise<void> {
    const map = { apiVersion: "v1", kind: "ConfigMap", metadata: { name: this.name, labels: { "app.kubernetes.io/part-of": "build-platform" } }, data: { state: JSON.stringify(journal) } };
    await kubectl(["apply", "--server-side", "--force-conflicts", "--field-manager", MANAGER, "-f", "-"], JSON.stringify(map));
  }

  private async holder(): Promise<string[] | undefined> {
    const held = (await get("configmap", this.name))?.metadata.annotations?.["build-platform/holder"]?.split(" ");
    return held && Date.now() - Date.parse(held[1]) < 30_000 ? held : undefined;
  }

  /** Takes the work for this process; another one that is at work has beaten within the last half minute. */
  private async hold(): Promise<NodeJS.Timeout> {
    const me = `${process.pid}-${random()}`;
    if (await this.holder()) {
      say(`   another process held this ${this.what} a moment ago; waiting 30 s to see whether it is still at work ...`);
      await sleep(31);
      if (await this.holder()) throw new UsageError(`this ${this.what} is being run by somebody else right now`);
    }
    const beat = () => patch("configmap", this.name, { metadata: { annotations: { "build-platform/holder": `${me} ${new Date().toISOString()}` } } });
    await beat();
    const timer = setInterval(() => void beat().catch(() => undefined), 10_000);
    timer.unref();
    return timer;
  }

  /** Whoever runs it again need not wait to see whether this process is still at work. */
  private letGo() {
    return run("kubectl", [...target(), "annotate", "configmap", this.name, "build-platform/holder-"]);
  }

  /** Does what must not happen beside the work. */
  async alone(act: () => Promise<void>): Promise<void> {
    const beat = await this.hold();
    try {
      await act();
    } finally {
      clearInterval(beat);
      await this.letGo();
    }
  }

  /**
   * Takes the steps that are still ahead; the journal keeps the last one that was done.
   * @param phases the steps in their order
   * @param standing where the work stands and what a person can do: said where it ends before its end
   */
  proceed<Phase>(journal: Journal & { phase: Phase }, phases: readonly Phase[], standing: (journal: Journal) => string, steps: (step: Step<Phase>) => Promise<void>): Promise<void> {
    const step: Step<Phase> = async (phase, title, take) => {
      if (phases.indexOf(journal.phase) >= phases.indexOf(phase)) return;
      say(` • ${title} ...`);
      const began = Date.now();
      await take();
      journal.phase = phase;
      await this.save(journal);
      say(` ✓ ${title} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
    };
    const interrupted = () => {
      say(`\ninterrupted. ${standing(journal)}`);
      void this.letGo().finally(() => process.exit(130));
    };
    return this.alone(async () => {
      process.once("SIGINT", interrupted);
      try {
        await steps(step);
      } catch (error) {
        throw new Error(`${(error as Error).message}\n${standing(journal)}`);
      } finally {
        process.off("SIGINT", interrupted);
      }
    });
  }
}
