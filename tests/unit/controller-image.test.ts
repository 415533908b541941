import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { root } from "../../cli/repository";

describe("the controller's image", () => {
  /** What the Dockerfile's RUN hands to jenkins-plugin-cli, one plugin a line. */
  const baked = (args: Record<string, string>): string[] => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "controller-image-"));
    try {
      for (const file of ["plugins.txt", "optional-plugins.txt"]) fs.copyFileSync(path.join(root, "images/controller", file), path.join(folder, file));
      const run = /^RUN (cd \/usr[\s\S]*?)\n\n/m.exec(fs.readFileSync(path.join(root, "images/controller/Dockerfile"), "utf8"))![1];
      const script = run.replaceAll("/tmp/", `${folder}/tmp-`).replaceAll("/usr/share/jenkins/ref", folder).replace("jenkins-plugin-cli --plugin-file", "cat").replace("--latest=false", "");
      return execFileSync("sh", ["-c", script], { env: { PATH: process.env.PATH, OPTIONAL_PLUGINS: "", FURTHER_PLUGINS: "", ...args }, encoding: "utf8" }).trim().split("\n");
    } finally {
      fs.rmSync(folder, { recursive: true });
    }
  };
  const names = (plugins: string[]) => plugins.map((line) => line.split(":")[0]);

  test("has a further plugin's version in place of its own, and each plugin once", () => {
    const own = baked({ OPTIONAL_PLUGINS: "matrix-auth" });
    expect(own.every((line) => /^[^#\s]+:\S+$/.test(line))).toBe(true);
    const all = baked({ OPTIONAL_PLUGINS: "matrix-auth", FURTHER_PLUGINS: "git:9.9 job-dsl:1.93 matrix-auth:9" });
    expect(all).toEqual(expect.arrayContaining(["git:9.9", "job-dsl:1.93", "matrix-auth:9"]));
    expect(names(all).sort()).toEqual([...names(own), "job-dsl"].sort());
  });

  test("takes a plugin for itself alone, not for those whose names begin alike", () => {
    expect(names(baked({ FURTHER_PLUGINS: "workflow:1 kube.netes:1" }))).toEqual(expect.arrayContaining(["workflow", "workflow-aggregator", "kubernetes"]));
    expect(baked({ FURTHER_PLUGINS: baked({}).map((line) => `${line}0`).join(" ") })).toEqual(baked({}).map((line) => `${line}0`));
  });
});
