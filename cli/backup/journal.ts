import * as os from "node:os";
import { get, kubectl, patch, random, run, say, sleep, target } from "./cluster";
import { MANAGER } from "./objects";

const HOLDER = "build-platform/holder";

/** Takes one step of a work, unless it is done already. */
type Step<Phase> = (phase: Phase, title: string, take: () => Promise<void>) => Promise<void>;

/** What a command knows about its own work, kept in a ConfigMap, so that whoever runs it again goes on where it stopped; one process at a time. */
export class Book<Journal> {
  /**
   * @param name of the ConfigMap
   * @param what the work, for people
   * @param passing there is nothing to go on with: the ConfigMap only says who is at it, and goes when that one lets go
   */
  constructor(
    private readonly name: string,
    private readonly what: string,
    private readonly passing = false,
  ) {}

  /** Whoever runs it again need not wait to see whether this process is still at work. */
  private letGo = () => Promise.resolve();

  async load(): Promise<Journal | undefined> {
    const map = await get("configmap", this.name);
    return map && (JSON.parse(map.data.state) as Journal);
  }

  async save(journal: Journal): Promise<void> {
    const map = { apiVersion: "v1", kind: "ConfigMap", metadata: { name: this.name, labels: { "app.kubernetes.io/part-of": "build-platform" } }, data: { state: JSON.stringify(journal) } };
    await kubectl(["apply", "--server-side", "--force-conflicts", "--field-manager", MANAGER, "-f", "-"], JSON.stringify(map));
  }

  /** Who has said within the last half minute that it is at the work, and since when; `version` is that of what was looked at. */
  private async holder(): Promise<{ version?: string; by?: string; since?: string }> {
    const { annotations, resourceVersion: version } = (await get("configmap", this.name))?.metadata ?? {};
    const [by, beat, since] = (annotations?.[HOLDER] ?? "").split(" ");
    return { version, ...(Date.now() - Date.parse(beat) < 30_000 && { by, since }) };
  }

  /**
   * Does what must not happen beside the work. Another process that is at it is refused; one that was killed falls silent.
   * @throws where another one is at it
   */
  async alone<T>(act: () => Promise<T>): Promise<T> {
    const busy = ({ by, since }: { by?: string; since?: string }) => new Error(`this ${this.what} is being run by somebody else right now: process ${by}${since ? `, since ${since}` : ""}; run this again when that has ended`);
    const [me, since] = [`${os.hostname()}/${process.pid}-${random()}`, new Date().toISOString()];
    const beat = (version?: string) => patch("configmap", this.name, { metadata: { ...(version && { resourceVersion: version }), annotations: { [HOLDER]: `${me} ${new Date().toISOString()} ${since}` } } });
    let seen = await this.holder();
    if (seen.by) {
      say(`   another process held this ${this.what} a moment ago; waiting 30 s to see whether it is still at work ...`);
      await sleep(31);
      seen = await this.holder();
    }
    if (this.passing && !seen.version) {
      await this.save({} as Journal);
      seen = await this.holder();
    }
    if (seen.by) throw busy(seen);
    // Of two that begin at once one finds another version than it has seen.
    await beat(seen.version).catch(async (error: Error) => {
      const other = await this.holder();
      throw other.by ? busy(other) : error;
    });
    const timer = setInterval(() => void beat().catch(() => undefined), 10_000);
    timer.unref();
    this.letGo = async () => {
      clearInterval(timer);
      // Another one may have taken over from a process that was silent for long.
      if ((await this.holder().catch(() => undefined))?.by !== me) return;
      await run("kubectl", [...target(), ...(this.passing ? ["delete", "configmap", this.name] : ["annotate", "configmap", this.name, `${HOLDER}-`])]);
    };
    try {
      return await act();
    } finally {
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
