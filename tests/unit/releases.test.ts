import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { haveCommit, root } from "../../cli/repository";
import { releases } from "../../tools/releases";

const read = (file: string) => fs.readFileSync(path.join(root, file), "utf8");
const git = (...args: string[]) => execFileSync("git", args, { cwd: root, encoding: "utf8" });
const version = (text: string) => (JSON.parse(text) as { version: string }).version;

test("the changelog is read newest first, the release being worked on without a commit", () => {
  const commit = "0123456789".repeat(4);
  expect(releases(`# Changelog\n\n## 1.2.0\n\n### Added\n\n- 9.9.9\n\n## 1.1.0 (commit ${commit})\n`)).toEqual([{ version: "1.2.0" }, { version: "1.1.0", commit }]);
});

test("the newest version in CHANGELOG.md is that of package.json, and every older one names its commit", () => {
  const [current, ...older] = releases();
  expect(current).toEqual({ version: version(read("package.json")) });
  expect(version(read("package-lock.json"))).toBe(current.version);
  expect(older.length).toBeGreaterThan(0);
  for (const { commit } of older) expect(commit).toBeDefined();
});

test.each(releases().slice(1))("release $version is a commit in this history, and calls itself so", async ({ version: released, commit }) => {
  await haveCommit(commit!);
  expect(git("merge-base", "--is-ancestor", commit!, "HEAD")).toBe("");
  expect(version(git("show", `${commit}:package.json`))).toBe(released);
});
