import { UsageError } from "../terminal";
import { get, kubectl, patch, random, run, say, sleep, target } from "./cluster";
import { MANAGER } from "./objects";

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
  async hold(): Promise<NodeJS.Timeout> {
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
  letGo() {
    return run("kubectl", [...target(), "annotate", "configmap", this.name, "build-platform/holder-"]);
  }
}
