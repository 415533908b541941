import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { parse } from "yaml";
import upstream from "../../images/upstream.json";
import { root } from "../../cli/repository";

/** actionlint is built from its Go module where Go's own cache does not hold it. */
jest.setTimeout(300_000);

const read = (file: string) => fs.readFileSync(path.join(root, file), "utf8");
const folder = ".github/workflows";
const files = fs.readdirSync(path.join(root, folder)).map((name) => `${folder}/${name}`);

/** Renovate writes a regular expression between slashes. */
const stripped = (pattern: string) => pattern.slice(1, -1);

interface Step {
  uses?: string;
  run?: string;
  with?: Record<string, unknown>;
}
interface Job {
  uses?: string;
  if?: string;
  environment?: string;
  concurrency?: { group: string; "cancel-in-progress": boolean };
  permissions?: Record<string, string>;
  steps?: Step[];
}
interface Workflow {
  on: Record<string, unknown>;
  permissions: Record<string, string>;
  jobs: Record<string, Job>;
}
const workflows = Object.fromEntries(files.map((file) => [path.basename(file, ".yml"), parse(read(file)) as Workflow]));
const steps = (workflow: Workflow) => Object.values(workflow.jobs).flatMap((job) => job.steps ?? []);
const setup = parse(read(".github/actions/setup/action.yml")).runs.steps as Step[];

test("actionlint finds nothing", () => {
  const ended = spawnSync("go", ["run", "-mod=readonly", "github.com/rhysd/actionlint/cmd/actionlint", "-no-color", ...files.map((file) => path.join(root, file))], {
    cwd: path.join(root, "sandbox/go/actionlint"), encoding: "utf8", env: { ...process.env, CGO_ENABLED: "0", GOTOOLCHAIN: "local" },
  });
  expect({ status: ended.status, found: ended.stdout, error: ended.status === 0 ? "" : ended.stderr }).toEqual({ status: 0, found: "", error: "" });
});

describe.each(Object.entries(workflows))("%s", (_, workflow) => {
  test("may only read, unless a job says more", () => {
    expect(workflow.permissions).toEqual({ contents: "read" });
    for (const job of Object.values(workflow.jobs)) expect(job.permissions?.contents ?? "read").toBe("read");
  });

  test("never runs a fork's code with the base repository's rights", () => {
    expect(Object.keys(workflow.on)).not.toContain("pull_request_target");
    expect(Object.keys(workflow.on)).not.toContain("workflow_run");
  });

  test("names a version of every action, and leaves no token in the checkout", () => {
    for (const { uses, with: inputs } of steps(workflow)) {
      if (uses === undefined || uses.startsWith("./")) continue;
      expect(uses).toMatch(/^[\w.-]+\/[\w.-]+@(v\d+|[0-9a-f]{40})$/);
      if (uses.startsWith("actions/checkout@")) expect(inputs?.["persist-credentials"]).toBe(false);
    }
  });

  test("puts no expression into a shell script, where its text would be code", () => {
    for (const { run } of steps(workflow)) expect(run ?? "").not.toContain("${{");
  });

  test("runs only npm scripts that exist", () => {
    const { scripts } = JSON.parse(read("package.json"));
    for (const { run } of steps(workflow)) {
      for (const [, name] of (run ?? "").matchAll(/npm run (?:--silent |-s )?([\w:-]+)/g)) expect(Object.keys(scripts)).toContain(name);
    }
  });
});

test("the Pulumi CLI is that of the SDK", () => {
  const wanted = JSON.parse(read("package.json")).dependencies["@pulumi/pulumi"];
  const found = [...setup, ...Object.values(workflows).flatMap(steps)].flatMap(({ with: inputs }) => inputs?.["pulumi-version"] ?? []);
  expect(found.length).toBeGreaterThan(0);
  for (const version of found) expect(version).toBe(wanted);
});

describe("pull requests", () => {
  const { checks, offline, preview } = workflows.preview.jobs;

  test("from forks meet no secret", () => {
    expect(preview.if).toBe("github.event.pull_request.head.repo.full_name == github.repository");
    expect(JSON.stringify(offline)).not.toContain("secrets.");
    expect(JSON.stringify(workflows.ci)).not.toContain("secrets.");
    expect(JSON.stringify(workflows["kind-e2e"])).not.toContain("secrets.");
    expect(checks).not.toHaveProperty("secrets");
  });

  test("get a preview with policy, diff and comment", () => {
    const step = preview.steps?.find(({ with: inputs }) => inputs?.command === "preview");
    expect(step?.with).toMatchObject({ diff: true, refresh: true, policyPacks: "policy", "comment-on-pr": true });
  });
});

describe("up", () => {
  const { up } = workflows.up.jobs;
  const order = (up.steps ?? []).map(({ run, with: inputs }) => inputs?.command ?? (run?.includes("--guard") ? "guard" : run?.includes("smoke") ? "smoke" : ""));

  test("waits for the environment's approval, one update of a stack at a time, never cut off", () => {
    expect(up.environment).toBe("${{ matrix.stack }}");
    expect(up.concurrency).toEqual({ group: "up-${{ matrix.stack }}", "cancel-in-progress": false });
  });

  test("refreshes, guards the data, updates, and asks Jenkins, in that order", () => {
    expect(order.filter((name) => name !== "")).toEqual(["refresh", "guard", "up", "smoke"]);
    expect(up.steps?.find(({ with: inputs }) => inputs?.command === "up")?.with?.policyPacks).toBe("policy");
  });
});

describe("renovate", () => {
  const { customManagers } = JSON.parse(read("renovate.json")) as { customManagers: { managerFilePatterns: string[]; matchStrings: string[]; autoReplaceStringTemplate?: string }[] };
  const managerOf = (file: string) => customManagers.find(({ managerFilePatterns }) => managerFilePatterns.some((pattern) => new RegExp(stripped(pattern)).test(file)))!;

  test("finds every upstream image with its tag and digest", () => {
    const text = read("images/upstream.json");
    const found = [...text.matchAll(new RegExp(managerOf("images/upstream.json").matchStrings[0], "g"))].map(({ groups }) => ({ image: groups!.depName, tag: groups!.currentValue, digest: groups!.currentDigest }));
    expect(found).toEqual(Object.values(upstream).map((pin) => ({ image: pin.image, tag: pin.tag, digest: "digest" in pin ? pin.digest : undefined })));
  });

  test("its replacement is the same file with a digest in place of the reason for none", () => {
    const manager = managerOf("images/upstream.json");
    const values: Record<string, string> = { newDigest: `sha256:${"b".repeat(64)}`, newValue: "next" };
    const replaced = read("images/upstream.json").replace(new RegExp(manager.matchStrings[0], "g"), (...args) => {
      const groups = args.at(-1) as Record<string, string>;
      return manager.autoReplaceStringTemplate!.replace(/\{\{\{(\w+)\}\}\}/g, (_, name: string) => values[name] ?? groups[name]);
    });
    const pins = JSON.parse(replaced) as Record<string, { image: string; tag: string; digest: string }>;
    expect(Object.keys(pins)).toEqual(Object.keys(upstream));
    for (const [key, pin] of Object.entries(pins)) expect(pin).toEqual({ image: upstream[key as keyof typeof upstream].image, tag: "next", digest: values.newDigest });
  });

  test.each(["images/controller/plugins.txt", "images/controller/optional-plugins.txt"])("finds every plugin of %s", (file) => {
    const text = read(file);
    const plugins = text.split("\n").filter((line) => /^[a-z]/.test(line));
    const found = [...text.matchAll(new RegExp(managerOf(file).matchStrings[0], "g"))].map(({ groups }) => `${groups!.depName}:${groups!.currentValue}`);
    expect(plugins.length).toBeGreaterThan(0);
    expect(found).toEqual(plugins.map((line) => line.trim().split(/\s/)[0]));
  });

  test("finds the CLI's version in the workflows", () => {
    const versions = [".github/actions/setup/action.yml", ".github/workflows/kind-e2e.yml"].map((file) => new RegExp(managerOf(".github/actions/setup/action.yml").matchStrings[0]).exec(read(file))?.groups?.currentValue);
    const wanted = JSON.parse(read("package.json")).dependencies["@pulumi/pulumi"];
    expect(versions).toEqual([wanted, wanted]);
  });
});
