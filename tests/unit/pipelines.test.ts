import * as fs from "node:fs";
import * as path from "node:path";
import { parse, parseDocument } from "yaml";
import { root } from "../../cli/repository";

/** docs/pipelines.md shows the files of docs/pipelines/, and these fit the templates that the platform has by default. */
const folder = path.join(root, "docs/pipelines");
const files = fs.readdirSync(folder).sort();
const text = (file: string) => fs.readFileSync(path.join(folder, file), "utf8");
const page = fs.readFileSync(path.join(root, "docs/pipelines.md"), "utf8");

test("there is one for each usual case", () => {
  expect(files).toEqual(["docker", "gradle", "inherited-pod", "maven", "own-pod", "parallel", "retry"].map((name) => `${name}.Jenkinsfile`));
});

test.each(files)("the page shows %s as it is", (file) => {
  const shown = page.split(`[pipelines/${file}](pipelines/${file})\n\n\`\`\`groovy\n`);
  expect(shown).toHaveLength(2);
  expect(shown[1].split("```\n")[0]).toBe(text(file));
});

test.each(files)("%s asks for labels that the default templates have", (file) => {
  const project = parse(fs.readFileSync(path.join(root, "Pulumi.yaml"), "utf8")) as { config: Record<string, { default?: { name: string }[] }> };
  const labels = project.config.agents.default!.map(({ name }) => name);
  const asked = [...text(file).matchAll(/(?:label|node|inheritFrom)[ (]'([^']*)'/g)].map(([, label]) => label);
  expect(asked.length > 0 || file === "own-pod.Jenkinsfile").toBe(true);
  for (const label of asked) expect(labels).toContain(label);
});

test.each(files.filter((file) => text(file).includes("yaml ")))("the pod in %s is YAML that the kubernetes plugin's reader knows", (file) => {
  const [, yaml] = /yaml (?:"""|''')([^]*?)(?:"""|''')/.exec(text(file))!;
  const document = parseDocument(yaml.replace(/\$\{params\.(\w+)\}/g, "$1"));
  expect(document.errors).toEqual([]);
  expect(yaml).not.toMatch(/[&*]\w|<</);
  expect(Object.keys(document.toJS() as object)).toEqual(["spec"]);
});

test("what a file takes as parameter has a value when none is given", () => {
  for (const file of files) for (const [, name] of text(file).matchAll(/params\.(\w+)/g)) expect(text(file)).toMatch(new RegExp(`name: '${name}', defaultValue: '[^']+'`));
});
