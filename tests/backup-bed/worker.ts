import { existingNodes, initOf, removeNode } from "../../sandbox/cluster/nodes";
import { REPO } from "../../sandbox/paths";
import { run, waitFor } from "../../sandbox/shell";
import { ENV, kubectl } from "../e2e/sandbox";
import { platformFirst, type Bed } from "./bed";

/** The second node, which a bed's home may lie on and lose, and what must come back then. */

export const WORKER = "worker-1";

export const sandbox = (...args: string[]) => run("npx", ["tsx", "sandbox/cli.ts", ...args], { cwd: REPO, env: ENV });

/** The worker's only link, as seen from the machine below it; worker-1 has address .11. */
export const link = (state: "up" | "down") => run("ip", ["link", "set", "bp-v11", state]);

const hasPower = (): boolean => initOf({ name: WORKER }) !== undefined;

/**
 * Has the worker there and ready, in whatever state a test or a run before has left it. The platform comes first: a part of it that is put
 * on the worker, such as the one that makes volumes, would be lost with it.
 */
export async function addWorker(): Promise<void> {
  await platformFirst();
  if (existingNodes().some(({ name }) => name === WORKER)) {
    await link("up").catch(() => undefined);
    if (!hasPower()) await sandbox("start-node", WORKER).catch(() => undefined);
    if (await waitFor("the worker to be ready", 180, isReady).catch(() => false)) return void (await run("kubectl", ["uncordon", WORKER], { env: ENV }));
    await removeWorker();
  }
  await sandbox("add-node", WORKER);
}

export async function removeWorker(): Promise<void> {
  await run("kubectl", ["delete", "node", WORKER, "--ignore-not-found"], { env: ENV });
  await removeNode({ name: WORKER });
}

export const isReady = async (): Promise<boolean> => (await kubectl(["get", "node", WORKER, "-o", 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'])) === "True";

/** Takes down what a test of losses has left in any state. */
export async function clearUp(bed: Bed): Promise<void> {
  await link("up").catch(() => undefined);
  // Without power nothing on it ends by itself any more.
  if (!hasPower()) await removeWorker();
  await bed.down();
  await removeWorker();
}

/** What was built and saved: the builds of every job, and the hash of each of their files. */
export interface Saved {
  builds: { [job: string]: number[] };
  files: Map<string, string>;
}

export const record = async (bed: Bed): Promise<Saved> => ({ builds: await bed.builds(), files: await bed.hashes(await bed.volume()) });

export async function expectBack(bed: Bed, before: Saved): Promise<void> {
  expect(await bed.builds()).toEqual(before.builds);
  expect(Object.values(before.builds).flat().length).toBeGreaterThan(2);
  const files = await bed.hashes(await bed.volume());
  for (const [name, hash] of before.files) expect([name, files.get(name)]).toEqual([name, hash]);
  expect(before.files.size).toBeGreaterThan(8);
}
