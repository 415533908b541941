import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { REPO } from "../../sandbox/paths";
import { S3Server } from "../backup-bed/servers";
import { freePort } from "./agent-images-bed";
import { ENV, ensurePlatform, pulumi, STACK, waitFor } from "./sandbox";

/** Pulumi's state in a bucket of a real S3 server that is not Amazon's, as docs/ci.md says to set it up. */
jest.setTimeout(600_000);

const PASSWORD = "the-value-nobody-may-read";
let server: S3Server;
let project: string;
let env: NodeJS.ProcessEnv;

beforeAll(async () => {
  server = new S3Server(await freePort(), "127.0.0.1");
  await server.start();
  server.bucket("state");
  project = fs.mkdtempSync(path.join(os.tmpdir(), "state-backend-"));
  env = {
    ...ENV, ...server.credentials,
    PULUMI_BACKEND_URL: `s3://state?region=us-east-1&endpoint=127.0.0.1:${server.port}&s3ForcePathStyle=true&disableSSL=true`,
    // What login remembers stays out of the sandbox's own.
    PULUMI_HOME: path.join(project, "home"),
  };
  fs.symlinkSync(path.join(REPO, "node_modules"), path.join(project, "node_modules"));
  fs.writeFileSync(path.join(project, "package.json"), '{"main": "index.js"}');
  fs.writeFileSync(path.join(project, "Pulumi.yaml"), "name: state-backend\nruntime: {name: nodejs, options: {typescript: false}}\n");
  fs.writeFileSync(
    path.join(project, "index.js"),
    `const pulumi = require("@pulumi/pulumi");
const command = require("@pulumi/command");
const password = new pulumi.Config().requireSecret("password");
// Runs until the test lets it go, so that a second update surely meets the first.
new command.local.Command("slow", { create: "touch started; until [ -e go ]; do sleep 0.1; done; printf %s \\"$PASSWORD\\"", environment: { PASSWORD: password }, logging: "none" }, { additionalSecretOutputs: ["stdout"] });
exports.password = password;
`,
  );
});
afterAll(() => {
  server.remove();
  fs.rmSync(project, { recursive: true, force: true });
});

const tiny = (args: string[], input?: string) => pulumi(args, { cwd: project, env, input, allowFailure: true });
/** Every file of the bucket as text, by its name. */
function bucket(): Map<string, string> {
  const files = fs.readdirSync(server.folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return new Map(files.map(({ parentPath, name }) => [path.relative(server.folder, path.join(parentPath, name)), fs.readFileSync(path.join(parentPath, name), "utf8")]));
}

test("a stack is made, updated by one at a time, and found unchanged; its state holds no secret in clear", async () => {
  expect(await tiny(["login", env.PULUMI_BACKEND_URL!])).toMatchObject({ code: 0 });
  expect(await tiny(["stack", "init", "dev"])).toMatchObject({ code: 0 });
  // On standard input: an argument could be read by everybody on the machine.
  expect(await tiny(["config", "set", "--secret", "password", "--stack", "dev"], PASSWORD)).toMatchObject({ code: 0 });

  const first = tiny(["up", "--stack", "dev", "--yes", "--skip-preview"]);
  await waitFor("the first update to be under way", 60, async () => fs.existsSync(path.join(project, "started")));
  const second = await tiny(["up", "--stack", "dev", "--yes", "--skip-preview"]);
  expect(second.code).not.toBe(0);
  expect(second.stdout + second.stderr).toMatch(/the stack is currently locked by 1 lock\(s\)[\s\S]*pulumi cancel/);
  fs.writeFileSync(path.join(project, "go"), "");
  expect(await first).toMatchObject({ code: 0 });

  const again = await tiny(["up", "--stack", "dev", "--yes", "--skip-preview", "--expect-no-changes"]);
  expect(again.code).toBe(0);
  expect(again.stdout).toMatch(/2 unchanged/);
  expect((await tiny(["stack", "output", "password", "--show-secrets", "--stack", "dev"])).stdout.trim()).toBe(PASSWORD);

  const kept = bucket();
  expect([...kept.keys()]).toContain("state/.pulumi/stacks/state-backend/dev.json");
  expect([...kept.keys()].filter((name) => name.includes("/locks/"))).toEqual([]);
  expect(kept.get("state/.pulumi/stacks/state-backend/dev.json")).toMatch(/"ciphertext": ?"v1:/);
  for (const [name, text] of kept) expect({ name, leaked: text.includes(PASSWORD) }).toEqual({ name, leaked: false });

  expect(await tiny(["destroy", "--stack", "dev", "--yes", "--skip-preview"])).toMatchObject({ code: 0 });
  expect(await tiny(["stack", "rm", "dev", "--yes"])).toMatchObject({ code: 0 });
});

test("the platform's state moves there from a folder, and nothing of the platform changes by it", async () => {
  await ensurePlatform();
  const stackFile = fs.readFileSync(path.join(REPO, `Pulumi.${STACK}.yaml`), "utf8");
  const state = (await pulumi(["stack", "export", "--stack", STACK])).stdout;
  const there = (args: string[], input?: string) => pulumi(args, { env, input });
  await there(["stack", "init", STACK, "--no-select"]);
  await there(["stack", "import", "--stack", STACK], state);
  expect((await there(["up", "--stack", STACK, "--yes", "--skip-preview", "--expect-no-changes"])).stdout).toMatch(/\d+ unchanged/);
  expect(fs.readFileSync(path.join(REPO, `Pulumi.${STACK}.yaml`), "utf8")).toBe(stackFile);
});
