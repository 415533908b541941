import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { KUBECONFIG } from "../../sandbox/paths";
import { run } from "../../sandbox/shell";
import { Bed } from "../backup-bed/bed";
import { RestServer } from "../backup-bed/servers";
import { ENV } from "../e2e/sandbox";

/**
 * From one environment to another with the same repositories. The other ones are namespaces of the sandbox's cluster;
 * for the operator's command another cluster is another context, and that is what it is given here.
 */

jest.setTimeout(900_000);
const bed = new Bed("backup-from", new RestServer(8006));
const other = bed.twin("backup-to");
const fresh = bed.twin("backup-started-from", { startFrom: "latest" });
let builds: Record<string, number[]>;
let files: Map<string, string>;

beforeAll(async () => {
  await bed.upOnPlatform();
  for (const each of [other, fresh]) await each.anew();
  await bed.job("moved", 20_000);
  await bed.job("搬家 job", 100);
  await bed.build("moved", 3);
  await bed.build("搬家 job");
  await bed.cli(["backup"]);
  [builds, files] = [await bed.builds(), await bed.hashes(await bed.volume())];
  expect(files.size).toBeGreaterThan(12);
});
afterAll(async () => {
  for (const each of [other, fresh, bed]) await each.down();
});

async function expectMoved(to: Bed): Promise<void> {
  expect(await to.builds()).toEqual(builds);
  const there = await to.hashes(await to.volume());
  for (const [name, hash] of files) expect([name, there.get(name)]).toEqual([name, hash]);
  const key = (each: Bed) => each.inController("sha256sum /var/jenkins_home/secret.key | cut -c 1-64");
  expect((await key(to)).stdout).toBe((await key(bed)).stdout);
}

test("--to NAMESPACE, then --to CONTEXT: jobs, builds and keys of one environment in another", async () => {
  await other.up();
  await other.job("was there before");
  const command = (...args: string[]) => run("npx", ["tsx", "cli/backup/index.ts", "restore", ...args], { env: { ...ENV, KUBECONFIG: kubeconfig } });
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "kubeconfig-"));
  const kubeconfig = path.join(folder, "config");
  try {
    fs.copyFileSync(KUBECONFIG, kubeconfig);
    await command("--snapshot", "latest", "--to", "backup-to", "--yes");
    await expectMoved(other);
    await other.unchanged();
    await command("--rollback", "--to", "backup-to");
    expect(Object.keys(await other.builds())).toEqual(["was there before"]);
    // The context that is selected leads nowhere: only the one that is named is used.
    const config = (...args: string[]) => run("kubectl", ["config", ...args, "--kubeconfig", kubeconfig], { env: ENV });
    const [cluster, user] = (await config("view", "-o", "jsonpath={.contexts[0].context.cluster} {.contexts[0].context.user}")).stdout.split(" ");
    await config("set-context", "the-other-cluster", `--cluster=${cluster}`, `--user=${user}`);
    await config("set-cluster", "nowhere", "--server=https://127.0.0.1:1");
    await config("set-context", "nowhere", "--cluster=nowhere");
    await config("use-context", "nowhere");
    await command("--snapshot", "latest", "--to", "the-other-cluster", "--namespace", "backup-to", "--yes");
    await expectMoved(other);
    await command("--confirm", "--to", "the-other-cluster", "--namespace", "backup-to");
    await other.unchanged();
    // What it came from goes on as it was.
    expect(await bed.builds()).toEqual(builds);
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
});

test("an empty volume starts from a snapshot; one in use is left alone", async () => {
  await fresh.up();
  await expectMoved(fresh);
  await fresh.unchanged();
  await fresh.build("moved");
  await fresh.kubectl(["delete", "pod", "-l", "app.kubernetes.io/component=controller"]);
  await fresh.answers();
  expect((await fresh.builds()).moved).toEqual([4, 3, 2, 1]);
  await fresh.pulumi(["up", "--yes", "--skip-preview", "--expect-no-changes"]);
  // It backs up and restores like any other.
  await fresh.cli(["backup"]);
  expect((await fresh.cli(["list", "verify"])).stderr).toMatch(/has loaded all/);
  await fresh.cli(["restore", "--snapshot", "latest", "--yes"]);
  expect((await fresh.builds()).moved).toEqual([4, 3, 2, 1]);
  await fresh.cli(["restore", "--confirm"]);
  await fresh.unchanged();
});
