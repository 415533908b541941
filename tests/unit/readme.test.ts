/** What people read first names only what is there: commands, targets, files and headings. */
import * as fs from "node:fs";
import * as path from "node:path";
import { root } from "../../cli/repository";

const read = (file: string) => fs.readFileSync(path.join(root, file), "utf8");
const pages = ["README.md", "README.zh-CN.md", "CONTRIBUTING.md", ...fs.readdirSync(path.join(root, "docs")).filter((name) => name.endsWith(".md")).map((name) => `docs/${name}`)];
const scripts = Object.keys(JSON.parse(read("package.json")).scripts);
const targets = /^\.PHONY: (.*)$/m.exec(read("Makefile"))![1].split(" ");
const shellBlocks = (page: string) => [...read(page).matchAll(/^```sh\n([\s\S]*?)^```/gm)].map(([, block]) => block);
/** A heading's anchor as GitHub makes it. */
const anchor = (heading: string) => heading.toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, "").trim().replace(/ /g, "-");

test.each(pages)("%s names only npm scripts and make targets that exist", (page) => {
  const text = read(page);
  const named = [...text.matchAll(/npm run (?:-s )?([a-z][a-z:-]*)/g)].map(([, name]) => name);
  expect(named.filter((name) => !scripts.includes(name))).toEqual([]);
  const made = [...text.matchAll(/^make ([a-z]+)|`make ([a-z]+)`/gm)].map(([, line, inline]) => line ?? inline);
  expect(made.filter((name) => !targets.includes(name))).toEqual([]);
});

test.each(pages)("%s links only to files and headings that exist", (page) => {
  const links = [...read(page).matchAll(/\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)/g)];
  for (const [, file, heading] of links) {
    const target = file === "" ? page : path.join(path.dirname(page), file);
    expect([target, fs.existsSync(path.join(root, target))]).toEqual([target, true]);
    if (heading === undefined) continue;
    const anchors = [...read(target).matchAll(/^#+ (.*)$/gm)].map(([, text]) => anchor(text));
    expect(anchors).toContain(heading);
  }
});

test("the Chinese README has the English one's commands for trying it and for a cluster, word for word", () => {
  const blocks = shellBlocks("README.zh-CN.md");
  expect(blocks).toHaveLength(2);
  expect(shellBlocks("README.md").slice(0, 2)).toEqual(blocks);
});
