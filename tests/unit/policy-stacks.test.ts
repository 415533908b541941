import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { parse } from "yaml";
import { plainSecrets, rules } from "../../policy/rules";
import { renderStack, type Rendered } from "../../cli/offline";
import { root } from "../../cli/repository";

/** The rules over everything that the program registers for each stack file, as `pulumi preview --policy-pack policy` runs them. */
jest.setTimeout(300_000);

/** Stacks of the repository; a file that somebody tries something with is none. */
const stacks = execFileSync("git", ["ls-files", "Pulumi.*.yaml"], { cwd: root, encoding: "utf8" }).split("\n").flatMap((name) => /^Pulumi\.(.+)\.yaml$/.exec(name)?.[1] ?? []);
const read = (file: string) => parse(fs.readFileSync(path.join(root, file), "utf8"));
const secretKeys = Object.entries<{ secret?: boolean }>(read("Pulumi.yaml").config).flatMap(([key, { secret }]) => (secret ? [key] : []));

test("the stacks that every change must keep to the rules are there", () => {
  expect(stacks).toEqual(expect.arrayContaining(["dev", "prod", "sandbox"]));
});

describe.each(stacks)("stack %s", (stack) => {
  let rendered: Rendered[];
  beforeAll(async () => {
    rendered = await renderStack(stack);
  });

  test.each(rules.filter((rule) => rule.level === "mandatory"))("$name", (rule) => {
    const findings = rendered.flatMap((resource) => rule.check(resource, stack).map((finding) => `${resource.name}: ${finding}`));
    expect(findings).toEqual([]);
  });

  test("no secret in plain config", () => {
    expect(plainSecrets(read(`Pulumi.${stack}.yaml`).config, secretKeys)).toEqual([]);
  });

  test("the rules see every pod: controller, ingress, storage, cache and each agent template", () => {
    const unlimited = rules.find((rule) => rule.name === "memory-limit")!;
    const stripped = rendered.map((resource) => ({ ...resource, props: JSON.parse(JSON.stringify(resource.props).replaceAll("limits", "none")) }));
    const found = stripped.flatMap((resource) => unlimited.check(resource, stack)).join("\n");
    for (const what of ["container jenkins", "container controller", "container localpv-provisioner", "agent template maven, container jnlp", "agent template gradle, container dind"]) expect(found).toContain(what);
  });
});
