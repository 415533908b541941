import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import type { EngineEvent } from "@pulumi/pulumi/automation";
import { root } from "../../cli/repository";
import { cutOff, expectedSeconds, phaseOf, Progress, timeLeft } from "../../cli/up";

const urn = (component: string, name: string) => `urn:pulumi:dev::build-platform::build-platform:${component}$kubernetes:core/v1:Service::${name}`;
// Only what is read of an event.
const before = (op: string, of: string) => ({ resourcePreEvent: { metadata: { op, urn: of } } }) as unknown as EngineEvent;
const after = (op: string, of: string) => ({ resOutputsEvent: { metadata: { op, urn: of } } }) as unknown as EngineEvent;

test("a resource belongs to the part whose component holds it", () => {
  expect(phaseOf(urn("jenkins:JenkinsMaster", "x"))).toBe("Jenkins");
  expect(phaseOf("urn:pulumi:dev::build-platform::build-platform:images:AgentImages::agent-images")).toBe("images");
  expect(phaseOf("urn:pulumi:dev::build-platform::pulumi:providers:kubernetes::cluster")).toBe("other");
});

test("every component is a part", () => {
  const folder = path.resolve(__dirname, "../../components");
  const types = fs.readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts"))
    .flatMap((file) => [...fs.readFileSync(path.join(folder, file), "utf8").matchAll(/super\("(build-platform:[^"]+)"/g)].map(([, type]) => type));
  expect(types).toHaveLength(9);
  for (const type of types) expect([type, phaseOf(`urn:pulumi:dev::build-platform::${type}::x`)]).not.toEqual([type, "other"]);
});

describe("progress", () => {
  test("counts what changes and leaves out what stays", () => {
    const progress = new Progress();
    for (const name of ["a", "b"]) progress.plan(before("create", urn("jenkins:JenkinsMaster", name)));
    progress.plan(before("update", urn("ingress:IngressNginx", "c")));
    progress.plan(before("same", urn("ingress:IngressNginx", "d")));
    expect(progress.steps).toBe(3);
    expect(progress.line()).toBe("ingress 0/1, Jenkins 0/2");
    expect(progress.finish(after("update", urn("ingress:IngressNginx", "c")))).toBe(true);
    expect(progress.finish(after("same", urn("ingress:IngressNginx", "d")))).toBe(false);
    expect(progress.finish({} as EngineEvent)).toBe(false);
    expect(progress.line()).toBe("Jenkins 0/2");
    for (const name of ["a", "b"]) progress.finish(after("create", urn("jenkins:JenkinsMaster", name)));
    expect(progress.line()).toBe("all parts are done");
  });

  test("a replacement, made of several steps of one resource, is one", () => {
    const progress = new Progress();
    for (const op of ["create-replacement", "replace", "delete-replaced"]) progress.plan(before(op, urn("storage:OpenEbsStorage", "a")));
    expect(progress.steps).toBe(1);
    progress.finish(after("create-replacement", urn("storage:OpenEbsStorage", "a")));
    expect(progress.line()).toBe("all parts are done");
  });
});

describe("the time left", () => {
  const update = (seconds: number, resourceChanges: Record<string, number>, over = {}) => ({ kind: "update" as const, result: "succeeded" as const, startTime: new Date(0), endTime: new Date(seconds * 1000), resourceChanges, ...over });

  test("comes from the successful update that changed most nearly as much, the newest of equals", () => {
    const history = [update(4, { same: 47 }), update(30, { update: 2, same: 45 }), update(95, { create: 47 }), update(300, { create: 46 }, { result: "failed" }), update(200, { create: 47 }), update(1, { create: 47 }, { kind: "destroy" })];
    expect(expectedSeconds(history, 45)).toBe(95);
    expect(expectedSeconds(history, 3)).toBe(30);
    expect(expectedSeconds(history, 0)).toBe(4);
    expect(expectedSeconds([], 5)).toBeUndefined();
  });

  test.each<[number | undefined, number, string]>([
    [100, 22, "about 80 s left"], [400, 100, "about 5 min left"], [100, 97, "nearly done"], [100, 105, "nearly done"],
    [100, 130, "130 s so far, longer than the former update's 100 s"], [undefined, 12, "12 s so far; no former update to compare with"],
  ])("of %s s after %d s: %s", (expected, elapsed, says) => expect(timeLeft(expected, elapsed)).toBe(says));
});

test("what was cut off is named, and nothing is where nothing was", () => {
  expect(cutOff({ pending_operations: [{ type: "creating", resource: { urn: urn("x", "a") } }, { type: "updating", resource: { urn: urn("x", "b") } }] })).toEqual(["creating a", "updating b"]);
  for (const none of [undefined, {}, { pending_operations: null }, { pending_operations: [] }]) expect(cutOff(none)).toEqual([]);
});

describe("what it asks of pulumi", () => {
  let folder: string;
  beforeEach(() => (folder = fs.mkdtempSync(path.join(os.tmpdir(), "up-"))));
  afterEach(() => fs.rmSync(folder, { recursive: true }));

  /** Runs the command with a pulumi that does nothing but note what it was called with. */
  const up = (args: string[], deployment: object = {}) => {
    const [program, calls] = [path.join(folder, "pulumi"), path.join(folder, "calls")];
    fs.rmSync(calls, { force: true });
    fs.writeFileSync(program, `#!/bin/sh
echo "$*" >> ${calls}
case "$1 $2" in version*) echo v3.259.0;; "stack history") echo "[]";; "stack output") echo "{}";; "stack export") echo '${JSON.stringify({ version: 3, deployment })}';; esac
while [ $# -gt 0 ]; do [ "$1" != --event-log ] || echo '{"sequence":0,"timestamp":0,"summaryEvent":{"resourceChanges":{}}}' > "$2"; shift; done
`, { mode: 0o755 });
    const ended = spawnSync(process.execPath, ["--require", require.resolve("tsx/cjs"), path.join(root, "cli/up.ts"), ...args], {
      cwd: root, encoding: "utf8", env: { ...process.env, PATH: `${folder}:${process.env.PATH}` },
    });
    return { ...ended, calls: fs.existsSync(calls) ? fs.readFileSync(calls, "utf8").trim().split("\n") : [] };
  };

  test("neither makes a stack nor selects another one: a later command without a name goes where it went before", () => {
    const { calls, status } = up(["dev", "--yes"]);
    expect(status).toBe(0);
    for (const command of ["preview", "up"]) expect(calls).toContainEqual(expect.stringMatching(new RegExp(`^${command} .*--stack dev`)));
    expect(calls.filter((call) => /^stack (select|init)/.test(call))).toEqual([]);
  });

  test("reads the cluster first after an update that was cut off, and says so; else only when told to", () => {
    const pending = { pending_operations: [{ type: "updating", resource: { urn: urn("jenkins:JenkinsMaster", "jenkins-controller") } }] };
    const refreshing = (calls: string[]) => calls.filter((call) => /^(preview|up) /.test(call)).map((call) => / --refresh( |$|=true)/.test(call));
    const after = up(["dev", "--yes"], pending);
    expect(after.stderr).toContain("cut off while updating jenkins-controller");
    expect(refreshing(after.calls)).toEqual([true, true]);
    const usual = up(["dev", "--yes"], { pending_operations: null });
    expect(usual.stderr).not.toContain("cut off");
    expect(refreshing(usual.calls)).toEqual([false, false]);
    expect(refreshing(up(["dev", "--yes", "--refresh"]).calls)).toEqual([true, true]);
  });

  test("is nothing where the stack's name is missing or unknown", () => {
    expect(up([])).toMatchObject({ status: 2, calls: [], stderr: expect.stringContaining("name one stack: ") });
    expect(up(["nosuch"])).toMatchObject({ status: 2, calls: [], stderr: expect.stringContaining("there is no Pulumi.nosuch.yaml") });
    expect(up(["--help"]).stdout).toMatch(/^npm run up -- STACK /);
  });
});
