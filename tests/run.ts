import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { stripVTControlCharacters } from "node:util";
import { installPackages } from "../sandbox/cluster/packages";

/**
 * Runs every check in order of cost and ends with one line of totals. Each static check counts as one test.
 * A first argument of `unit` stops before the sandbox is needed.
 */
const REPO = path.resolve(__dirname, "..");
const only = process.argv[2];
const totals = { passed: 0, failed: 0, skipped: 0 };
/** Titles of what failed, each with the start of its message: said once more at the end, for a long output is often cut short. */
const failures: string[] = [];

/** jest's report, as far as it is read here. */
interface Report extends Record<"numPassedTests" | "numFailedTests" | "numRuntimeErrorTestSuites" | "numPendingTests" | "numTodoTests" | "numTotalTests", number> {
  testResults: { name: string; message: string; assertionResults: { status: string; fullName: string; failureMessages: string[] }[] }[];
}

function check(title: string, command: string, args: string[]): void {
  process.stderr.write(`\n== ${title}\n`);
  const started = Date.now();
  const ended = spawnSync(command, args, { cwd: REPO, stdio: ["ignore", "inherit", "inherit"] });
  const ok = ended.status === 0;
  if (ok) totals.passed++;
  else {
    totals.failed++;
    failures.push(title);
  }
  process.stderr.write(`== ${title}: ${ok ? "passed" : `failed (${ended.error?.message ?? `exit code ${ended.status}`})`} in ${((Date.now() - started) / 1000).toFixed(0)} s\n`);
}

function jest(project: string, ...args: string[]): void {
  process.stderr.write(`\n== ${project} tests\n`);
  const report = path.join(fs.mkdtempSync(path.join(os.tmpdir(), "build-platform-")), "report.json");
  const ended = spawnSync("npx", ["jest", "--selectProjects", project, "--json", `--outputFile=${report}`, ...args], { cwd: REPO, stdio: ["ignore", "ignore", "inherit"] });
  const before = totals.failed;
  if (fs.existsSync(report)) {
    const result = JSON.parse(fs.readFileSync(report, "utf8")) as Report;
    totals.passed += result.numPassedTests;
    totals.failed += result.numFailedTests + result.numRuntimeErrorTestSuites;
    totals.skipped += result.numPendingTests + result.numTodoTests;
    fs.rmSync(path.dirname(report), { recursive: true });
    for (const { name, message, assertionResults } of result.testResults) {
      const failed = assertionResults.filter(({ status }) => status === "failed");
      const said = failed.length > 0 ? failed.map(({ fullName, failureMessages }) => `${fullName}\n${stripVTControlCharacters(failureMessages.join("\n"))}`) : result.numRuntimeErrorTestSuites > 0 && assertionResults.length === 0 ? [stripVTControlCharacters(message)] : [];
      failures.push(...said.map((text) => `${path.relative(REPO, name)}: ${text.split("\n").slice(0, 12).join("\n    ")}`));
    }
    // A project that ran no test has proven nothing.
    if (result.numTotalTests === 0) totals.failed++;
  }
  if (ended.status !== 0 && totals.failed === before) totals.failed++;
}

function finish(): never {
  if (failures.length > 0) process.stdout.write(`\nFailed:\n${failures.map((failure) => `- ${failure}\n`).join("")}`);
  const skipped = totals.skipped > 0 ? `, ${totals.skipped} skipped` : "";
  process.stdout.write(`\n${totals.passed} passed, ${totals.failed} failed${skipped}\n`);
  process.exit(totals.failed === 0 ? 0 : 1);
}

async function main(): Promise<void> {
  await installPackages(["shellcheck", "shfmt"]);
  check("type check", "npx", ["tsc", "--noEmit", "-p", "."]);
  check("lint", "npm", ["run", "-s", "lint"]);
  check("shell scripts", "tools/check-shell.sh", []);
  jest("unit");
  if (only === "unit") finish();

  // The sandbox is throwaway: the tests start from none, whatever an earlier run left.
  check("remove an earlier sandbox", "npm", ["run", "-s", "sandbox", "--", "down"]);
  check("sandbox up", "npm", ["run", "-s", "sandbox", "--", "up"]);
  if (totals.failed === 0) jest("e2e", "--runInBand", "--verbose");
  else process.stderr.write("e2e tests not run: mend what failed above first\n");
  check("sandbox down leaves nothing", "npx", ["tsx", "tests/e2e/down.ts"]);
  finish();
}

void main();
