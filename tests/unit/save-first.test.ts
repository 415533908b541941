import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import * as cluster from "../../cli/backup/cluster";
import { backupBefore } from "../../cli/backup/snapshots";
import { imageAfter, ownersBut } from "../../cli/backup/steps";

/** What happens to the home around a change of the controller's image. */

jest.mock("../../cli/backup/cluster", () => ({ ...jest.requireActual<object>("../../cli/backup/cluster"), get: jest.fn(), list: jest.fn(async () => []), runJob: jest.fn(), say: jest.fn(), sleep: jest.fn(), lostHome: jest.fn(), theCron: jest.fn() }));
const { get, lostHome, runJob, say, sleep, theCron } = cluster as unknown as Record<"get" | "lostHome" | "runJob" | "say" | "sleep" | "theCron", jest.Mock>;

const image = (name: string) => `registry.test/controller@sha256:${name.repeat(64)}`;
const objects: Record<string, unknown> = {
  deployment: { spec: { selector: { matchLabels: {} }, template: { spec: { containers: [{ name: "jenkins", image: image("a") }] } } } },
  pvc: { spec: { volumeName: "pv-1" } },
  cronjob: { metadata: { name: "jenkins-backup", labels: {} }, spec: { jobTemplate: { spec: { template: { spec: { initContainers: [{ name: "restic", env: [] }], containers: [] } } } } } },
};
let crons: number;
const words = () => say.mock.calls.map(([line]) => line as string).join("\n");

beforeEach(() => {
  jest.clearAllMocks();
  crons = 0;
  lostHome.mockResolvedValue(undefined);
  theCron.mockResolvedValue(objects.cronjob);
  get.mockImplementation(async (kind: string) => (kind === "cronjob" && crons-- > 0 ? undefined : objects[kind]));
  runJob.mockResolvedValue({ ok: true, log: "", pod: { status: { containerStatuses: [{ name: "report", state: { terminated: { message: '{"snapshot":"0123abcd","seconds":1}' } } }] } } });
});

describe("before another image", () => {
  test("the home is saved as the running one leaves it, and not where that has the image already", async () => {
    await backupBefore(image("b"));
    expect(JSON.stringify(runJob.mock.calls[0][0])).toContain(JSON.stringify({ name: "LEAVING_IMAGE", value: image("a") }));
    await backupBefore(image("a"));
    expect(runJob).toHaveBeenCalledTimes(1);
  });

  test("a backup that the same update makes is waited for", async () => {
    crons = 3;
    await backupBefore(image("b"));
    expect(sleep).toHaveBeenCalledTimes(3);
    expect(runJob).toHaveBeenCalledTimes(1);
    expect(words()).toContain("snapshot 0123abcd holds the home");
  });

  test("without one the update fails, and is not let through as if there were nothing to save", async () => {
    crons = Infinity;
    await expect(backupBefore(image("b"), 2)).rejects.toThrow(/CronJob jenkins-backup is not there; where backup is a new key[\s\S]*Jenkins was not touched/);
    expect(runJob).not.toHaveBeenCalled();
  });

  test("a home on a node that does not answer fails it at once", async () => {
    lostHome.mockResolvedValue("n1");
    await expect(backupBefore(image("b"))).rejects.toThrow(/node n1, which has the home, does not answer[\s\S]*Jenkins was not touched/);
    expect(runJob).not.toHaveBeenCalled();
  });
});

describe("a rollback", () => {
  const images = { from: image("b"), to: image("a") };

  test("holds the image that it brings, and its way back puts there what held before", () => {
    const now = new Date("2026-01-02T00:00:00Z");
    expect(imageAfter({ images, kind: "home" }, now)).toEqual({ to: image("a"), hold: { image: image("a"), from: image("b"), since: now.toISOString() } });
    expect(imageAfter({ images, kind: "rollback" }, now)).toEqual({ to: image("b") });
    const formerHold = { image: image("b"), from: image("c"), since: "2026-01-01T00:00:00Z" };
    expect(imageAfter({ images, kind: "rollback", formerHold }, now)).toEqual({ to: image("b"), hold: formerHold });
    expect(imageAfter({ kind: "home" })).toBeUndefined();
  });

  test("that was cut off owns no field of the Deployment when it is run again", () => {
    expect(ownersBut([{ manager: "pulumi-kubernetes-1" }, { manager: "jenkins-restore" }, { manager: "kubectl" }]).map(({ manager }) => manager as string)).toEqual(["pulumi-kubernetes-1", "kubectl"]);
  });
});

test("of each image the newest good snapshot that it left is kept: neither a suspect one nor a nightly one", () => {
  const script = fs.readFileSync(path.resolve(__dirname, "../../scripts/backup/home.sh"), "utf8");
  const [kept] = /^kept_for_images\(\) \{[\s\S]*?^\}/m.exec(script)!;
  const snapshot = (day: number, ...tags: string[]) => ({ time: `2026-01-0${day}T00:00:00Z`, tags: ["home", "items=1", ...tags], short_id: `0000000${day}` });
  const known = JSON.stringify([
    snapshot(1, `image=${image("a")}`, "upgrade=11"), snapshot(2, `image=${image("a")}`, "upgrade=12"),
    { ...snapshot(3, `image=${image("a")}`, "upgrade=13"), tags: ["items=1", `image=${image("a")}`, "upgrade=13", "suspect"] },
    snapshot(4), snapshot(5, `image=${image("b")}`, "upgrade=15"),
  ]);
  const { stdout, stderr } = spawnSync("sh", ["-c", `${kept}\nkept_for_images`], { env: { ...process.env, known }, encoding: "utf8" });
  expect(stderr).toBe("");
  expect(stdout.trim().split("\n").sort()).toEqual(["--keep-tag upgrade=12", "--keep-tag upgrade=15"]);
});
