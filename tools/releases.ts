import * as fs from "node:fs";
import * as path from "node:path";
import { root } from "../cli/repository";

/** One release as CHANGELOG.md names it, such as `## 0.1.0 (commit 0123...)`. The one being worked on has no commit yet. */
export interface Release {
  version: string;
  commit?: string;
}

/** The releases of a changelog, the newest first. */
export function releases(changelog = fs.readFileSync(path.join(root, "CHANGELOG.md"), "utf8")): Release[] {
  return [...changelog.matchAll(/^## (\d+\.\d+\.\d+)(?: \(commit ([0-9a-f]{40})\))?$/gm)].map(([, version, commit]) => ({ version, ...(commit && { commit }) }));
}

/** What git knows a version by; anything else is a git name already. */
export const commitOf = (ref: string): string => releases().find(({ version }) => version === ref)?.commit ?? ref;
