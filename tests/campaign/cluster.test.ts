import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { waitFor } from "../../sandbox/shell";
import { Bed } from "../backup-bed/bed";
import { RestServer } from "../backup-bed/servers";

/** Faults of backup and restore on the sandbox's cluster, by the operators' own commands, with a real controller and real restic. */

jest.setTimeout(900_000);
const server = new RestServer(8002);
const bed = new Bed("backup-campaign", server);

beforeAll(() => bed.upOnPlatform());
afterAll(() => bed.down());

test("a restore killed at each of its steps goes on when it is run again, and can be undone", async () => {
  await bed.job("killed");
  await bed.build("killed");
  await bed.cli(["backup"]);
  await bed.build("killed");
  const old = await bed.volume();
  const steps = ["stop Jenkins", "take the snapshot", "fill a fresh volume", "give volume", "start Jenkins", "ask Jenkins"];
  for (const [i, step] of steps.entries()) {
    let killed = false;
    await bed.startCli(i === 0 ? ["restore", "--snapshot", "latest", "--yes"] : ["restore"], (line, child) => {
      if (killed || !line.includes(`• ${step}`)) return;
      killed = true;
      setTimeout(() => child.kill("SIGKILL"), Math.random() * 1500);
    });
    expect([step, killed]).toEqual([step, true]);
    // Another process may only take over once the killed one is silent; the journal alone says how far it came.
    await bed.kubectl(["annotate", "configmap", "jenkins-restore", "build-platform/holder-"]);
  }
  await bed.cli(["restore"]);
  expect((await bed.builds()).killed).toEqual([1]);
  expect(await bed.volume()).not.toBe(old);
  await bed.cli(["restore", "--rollback"]);
  expect(await bed.volume()).toBe(old);
  expect((await bed.builds()).killed).toEqual([2, 1]);
  await bed.unchanged();
});

test("one job comes back, the others stay as they are", async () => {
  await bed.job("one");
  await bed.job("other");
  await bed.build("one");
  await bed.cli(["backup"]);
  await bed.build("one");
  await bed.build("other");
  await bed.cli(["restore", "--snapshot", await bed.newest(), "--job", "one", "--yes"]);
  const builds = await bed.builds();
  expect([builds.one, builds.other]).toEqual([[1], [1]]);
  await bed.build("one");
  expect((await bed.builds()).one).toEqual([3, 1]);
});

test("a plain folder of another Jenkins is taken over", async () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "plain-home-"));
  const archive = await bed.inController("post -H 'Content-Type: application/xml' --data-binary @- http://localhost:8080/createItem?name=moved >/dev/null; tar -C /var/jenkins_home -cf - jobs config.xml secret.key | base64", false, "<project><builders/><publishers/><buildWrappers/></project>");
  expect(spawnSync("tar", ["-C", folder, "-xf", "-"], { input: Buffer.from(archive.stdout, "base64") }).status).toBe(0);
  fs.mkdirSync(path.join(folder, "jobs/moved/workspace"), { recursive: true });
  fs.writeFileSync(path.join(folder, "jobs/moved/workspace/left-behind"), "x");
  const before = await bed.builds();
  try {
    await bed.cli(["restore", "--folder", folder, "--yes"]);
    expect(await bed.builds()).toEqual(before);
    expect((await bed.inController("test -e /var/jenkins_home/jobs/moved/workspace", true)).code).toBe(1);
  } finally {
    await bed.cli(["restore", "--confirm"]);
    fs.rmSync(folder, { recursive: true });
  }
});

test("a backup whose pod is killed fails or is repeated, and the next one is good", async () => {
  await bed.job("heavy", 20_000_000);
  await bed.build("heavy");
  const running = bed.cli(["backup"], true);
  const pod = await waitFor("the saver", 60, async () => (await bed.json(["get", "pods", "-l", "app.kubernetes.io/component=saver", "--field-selector", "status.phase=Pending"])).items[0]?.metadata.name as string | undefined);
  await bed.kubectl(["delete", "pod", pod, "--force", "--grace-period=0"]);
  await running;
  await bed.cli(["backup"]);
  expect((await bed.cli(["list"])).stdout).toMatch(/last backup: ok/);
});

test("the controller killed hard in a build comes back with every finished build", async () => {
  await bed.job("killed controller");
  await bed.build("killed controller", 2);
  await bed.job("long", 10, 60);
  await bed.inController("post -o /dev/null 'http://localhost:8080/job/long/build?delay=0sec'");
  const before = await bed.hashes(await bed.volume(), "jobs/killed\\ controller");
  await bed.kubectl(["delete", "pod", "-l", "app.kubernetes.io/component=controller", "--force", "--grace-period=0"]);
  await bed.answers();
  expect((await bed.builds())["killed controller"]).toEqual([2, 1]);
  expect(await bed.hashes(await bed.volume(), "jobs/killed\\ controller")).toEqual(before);
});

test("with the target gone the backup fails visibly, nothing else does", async () => {
  await bed.cli(["backup"]);
  server.stop();
  try {
    const failed = await bed.cli(["backup"], true);
    expect(failed.code).toBe(1);
    expect(failed.stderr).toMatch(/waiting: restic still tries: .*connection refused/);
    expect(failed.stderr).toMatch(/the home repository is gone, or cannot be reached/);
    const events = (await bed.json(["get", "events"])).items.filter((event: { reason: string }) => event.reason === "BackupFailed");
    expect(events.map(({ message }: { message: string }) => message)).toContainEqual(expect.stringMatching(/the home repository is gone, or cannot be reached: .*connection refused/));
  } finally {
    await server.start();
  }
  await bed.cli(["backup"]);
  // restic asks a target that is gone again for 15 minutes.
}, 1_500_000);

test("a target that hangs for a while and is slow afterwards costs time only: the backup is good, and Jenkins goes on", async () => {
  await bed.job("slow", 5_000_000);
  await bed.build("slow");
  const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
  let slow = true;
  server.pause();
  const pace = (async () => {
    await sleep(15_000);
    while (slow) {
      server.resume();
      await sleep(100);
      server.pause();
      await sleep(400);
    }
    server.resume();
  })();
  try {
    const running = bed.cli(["backup"]);
    await bed.build("slow", 2);
    await running;
  } finally {
    slow = false;
    await pace;
  }
  expect((await bed.builds()).slow).toEqual([3, 2, 1]);
  expect((await bed.cli(["list"])).stdout).toMatch(/last backup: ok/);
});

test("destroy of a protected home stops at its preview; forced past that it leaves the home, and up brings Jenkins back with every build", async () => {
  await bed.job("protected");
  await bed.build("protected", 2);
  await bed.pulumi(["config", "set", "protect", "true"]);
  await bed.pulumi(["up", "--yes", "--skip-preview"]);
  const [volume, builds] = [await bed.volume(), await bed.builds()];
  const files = await bed.hashes(volume, "jobs/protected");
  const refused = async (...args: string[]) => {
    const { code, stdout, stderr } = await bed.pulumi(["destroy", "--yes", ...args], true);
    expect(code).not.toBe(0);
    expect(stdout + stderr).toMatch(/PersistentVolumeClaim::home" cannot be deleted\s+because it is protected/);
  };
  await refused();
  expect(await bed.builds()).toEqual(builds);
  await refused("--skip-preview");
  expect((await bed.json(["get", "pvc", "jenkins-home"])).status.phase).toBe("Bound");
  await bed.up();
  expect(await bed.volume()).toBe(volume);
  expect(await bed.builds()).toEqual(builds);
  expect(await bed.hashes(volume, "jobs/protected")).toEqual(files);
});
