import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import Ajv from "ajv";
import { parse } from "yaml";
import { architectureFile, generated, keysFile, schemaComment, schemaFile, table, withTable } from "../../tools/docs";
import { root } from "../../cli/repository";

const read = (file: string) => fs.readFileSync(path.join(root, file), "utf8");
const declared = parse(read("Pulumi.yaml")).config;

const made = generated();

test.each(["README.md", "Pulumi.yaml", keysFile, schemaFile, architectureFile])("%s is up to date with the program (if not: npm run docs)", async (file) => {
  expect(read(file)).toBe((await made)[file]);
}, 120_000);

describe("the table", () => {
  test("has every key once, with type, default and meaning", () => {
    const rows = read("README.md").split("\n").filter((line) => /^\| `\w+` \|/.test(line));
    const keys = rows.flatMap((row) => /^\| `(\w+)` \|/.exec(row)?.[1] ?? []);
    expect(keys.filter((key) => key in declared)).toEqual(Object.keys(declared));
    expect(rows.find((row) => row.startsWith("| `storageSize`"))).toMatch(/^\| `storageSize` \| string \| `20Gi` \| Size of jenkins_home/);
    expect(rows.find((row) => row.startsWith("| `domain`"))).toMatch(/\| required \|/);
  });

  test("of every key has those inside objects and lists, one row each", () => {
    const keys = read(keysFile).split("\n").flatMap((line) => /^\| `(\S+)` \|/.exec(line)?.[1] ?? []);
    expect(new Set(keys).size).toBe(keys.length);
    expect(keys.filter((key) => key in declared).sort()).toEqual(Object.keys(declared).sort());
    for (const key of ["controlPlane.nodes[].host", "agents[].resources.limits.memory", "agentImages.<name>.context", "login.oidc.clientSecret", "patches[].target.kind"]) expect(keys).toContain(key);
    expect(read(keysFile)).toMatch(/\| `controller\.resources\.limits\.memory` \| string \| `4Gi` \|/);
    expect(read(keysFile)).toMatch(/\| `registry\.password` \| string, secret \|/);
  });

  test("a bar in a meaning does not end the cell", () => {
    expect(table([{ key: "key", type: "string", default: "none", meaning: "a|b" }])).toContain("a\\|b |");
  });

  test("a README without markers is refused with what to put there", () => {
    expect(() => withTable("# Title\n", "|")).toThrow(/config-table:start/);
    expect(withTable("a\n<!-- config-table:start -->\nold\n<!-- config-table:end -->\nb", "new")).toBe("a\n<!-- config-table:start -->\nnew\n<!-- config-table:end -->\nb");
  });
});

describe("the schema for editors", () => {
  const validate = new Ajv({ allowUnionTypes: true }).compile(JSON.parse(read(schemaFile)));
  const check = (config: object) => {
    const good = validate({ config: Object.fromEntries(Object.entries(config).map(([key, value]) => [`build-platform:${key}`, value])) });
    return good ? [] : validate.errors!.map((error) => `${error.instancePath} ${error.message} ${JSON.stringify(error.params)}`);
  };
  const stackFiles = execFileSync("git", ["ls-files", "Pulumi.*.yaml"], { cwd: root, encoding: "utf8" }).split("\n").filter(Boolean);

  test.each(stackFiles)("%s names it in its first line and keeps to it", (file) => {
    expect(read(file).split("\n")[0]).toBe(schemaComment);
    expect({ valid: validate(parse(read(file))), errors: validate.errors }).toEqual({ valid: true, errors: null });
  });

  test("knows the keys inside objects and lists", () => {
    expect(check({ controlPlane: { user: "deploy", nodes: [{ name: "a", host: "192.0.2.1", hostKey: "ssh-ed25519 AAAA" }], privateKey: { secure: "v1:x" } } })).toEqual([]);
    expect(check({ controlPlane: { nodes: [{ nmae: "a" }] } }).join()).toContain("nmae");
    expect(check({ controller: { resources: { limits: { memory: "2Gi", cpu: 2 } } } })).toEqual([]);
    expect(check({ controller: { resources: { limit: {} } } }).join()).toContain('"limit"');
    expect(check({ agents: [{ name: "go", docker: "none", cap: 3 }] })).toEqual([]);
    expect(check({ agents: [{ name: "go", docker: "podman" }] }).join()).toContain('["dind","rootless","none"]');
    expect(check({ agents: [{ name: "go", cap: 0 }] })).not.toEqual([]);
    expect(check({ agentImages: { go: { context: "images/go", args: { GO_VERSION: "1.26" } } } })).toEqual([]);
    expect(check({ agentImages: { go: { contxt: "images/go" } } }).join()).toContain("contxt");
    expect(check({ backup: { keep: { daily: 7 } } })).toEqual([]);
    expect(check({ backup: { keep: { daily: 1001 } } })).not.toEqual([]);
    expect(check({ storageSize: "20" }).join()).toContain("pattern");
    expect(check({ storageInstall: "all" }).join()).toContain('["provisioner","class","none"]');
    expect(check({ controller: { plugins: "plugins.txt", env: { A: 1 } } })).toEqual([]);
  });

  test("marks a key that does not exist, and lets other packages' keys be", () => {
    expect(check({ storagesize: "1Gi" }).join()).toContain("storagesize");
    expect(validate({ config: { "kubernetes:kubeconfig": "x" } })).toBe(true);
  });
});
