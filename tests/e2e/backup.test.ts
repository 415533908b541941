import { waitFor } from "../../sandbox/shell";
import { Bed } from "../backup-bed/bed";
import { RestServer } from "../backup-bed/servers";

/** Backup and restore on the sandbox's cluster, by the operators' own commands, with a real controller and real restic. */

jest.setTimeout(900_000);
const bed = new Bed("backup-e2e", new RestServer(8001));

beforeAll(() => bed.upOnPlatform());
afterAll(() => bed.down());

test("a backup under running builds is consistent, and a controller that boots on it lists the same builds", async () => {
  await bed.job("load a", 5000);
  await bed.job("负载", 50);
  await bed.build("load a");
  await bed.inController("(while [ ! -e /tmp/stop ]; do for job in load%20a %E8%B4%9F%E8%BD%BD; do post -o /dev/null http://localhost:8080/job/$job/build?delay=0sec; done; sleep 0.1; done) >/dev/null 2>&1 &");
  const before = (await bed.builds())["load a"].length;
  try {
    await bed.cli(["backup"]);
    await bed.cli(["backup"]);
  } finally {
    await bed.inController("touch /tmp/stop");
  }
  expect((await bed.builds())["load a"].length).toBeGreaterThan(before);
  const proven = await bed.cli(["list", "verify", "--snapshot", await bed.newest()]);
  expect(proven.stderr).toMatch(/has loaded all \d+ jobs and folders and [1-9]\d* builds/);
  const events = (await bed.json(["get", "events"])).items.map((event: { reason: string }) => event.reason);
  expect(events).toEqual(expect.arrayContaining(["BackupSucceeded", "BackupVerificationSucceeded"]));
  await bed.unchanged();
});

test("a restore puts the snapshot on a fresh volume; the old one is kept, and Pulumi sees no change; confirming deletes it", async () => {
  await bed.job("restored");
  await bed.build("restored", 2);
  await bed.cli(["backup"]);
  await bed.build("restored");
  const old = await bed.volume();
  await bed.cli(["restore", "--snapshot", "latest", "--yes"]);
  const fresh = await bed.volume();
  expect(fresh).not.toBe(old);
  expect((await bed.builds()).restored).toEqual([2, 1]);
  const [was, is] = [await bed.hashes(old), await bed.hashes(fresh)];
  const builds = [...is].filter(([name]) => /\/builds\/|config\.xml$/.test(name));
  expect(builds.length).toBeGreaterThan(5);
  for (const [name, hash] of builds) expect([name, was.get(name)]).toEqual([name, hash]);
  expect((await bed.json(["get", "pv", old])).status.phase).toBe("Released");
  await bed.unchanged();
  expect((await bed.cli(["restore", "--snapshot", "latest", "--yes"], true)).code).toBe(2);
  await bed.cli(["restore", "--confirm"]);
  await waitFor("the former volume to go", 60, async () => (await bed.kubectl(["get", "pv", old], true)).code !== 0);
  await bed.build("restored");
  expect((await bed.builds()).restored).toEqual([3, 2, 1]);
});
