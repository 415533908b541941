import { Document, parse } from "yaml";
import { contracts } from "./contracts";
import fresh from "./contracts/fresh.json";
import { bakedPlugins, pluginOf } from "./plugins";

/**
 * Paths of the values that documents set. Below `jenkins` each key is one value, and elsewhere each key of a plugin's or
 * tool's settings: these are what configuration as code hands over as a whole. A list is one value.
 */
function setKeys(documents: Record<string, string>): string[] {
  const leaves = (value: unknown, path: string[]): string[] => {
    const whole = path.length >= (path[0] === "jenkins" ? 2 : 3);
    if (whole || typeof value !== "object" || value === null || Array.isArray(value)) return path.length > 0 ? [path.join(".")] : [];
    return Object.entries(value).flatMap(([key, inner]) => leaves(inner, [...path, key]));
  };
  const read = (text: string): unknown => {
    try {
      return parse(text, { merge: true, logLevel: "error" });
    } catch {
      return undefined;
    }
  };
  return Object.entries(documents).flatMap(([file, text]) => (/\.ya?ml$/i.test(file) ? leaves(read(text), []).filter((key) => !key.startsWith("x-")) : []));
}

/** Keys that the former documents set and the next ones do not, sorted. */
export function removedKeys(before: Record<string, string>, after: Record<string, string>): string[] {
  const kept = setKeys(after);
  // Jenkins does not mind the case of keys.
  const within = (inner: string, outer: string) => `${inner}.`.toLowerCase().startsWith(`${outer}.`.toLowerCase());
  return [...new Set(setKeys(before))].filter((key) => !kept.some((other) => within(other, key) || within(key, other))).sort();
}

/** Name of the document that sets back what no other document says any more. */
export const setBackFile = "jenkins.set-back.yaml";

/** Lists that documents own as a whole, so that an empty one takes away nothing that people made in Jenkins itself. */
const ownedLists = /^(unclassified\.|jenkins\.(globalNodeProperties|disabledAdministrativeMonitors)$)/;

/** The plugins that no config takes away. */
const alwaysThere = bakedPlugins([]);

/** What a Jenkins on an empty home has for a key; undefined where that is not known, nobody's to take away, or of a plugin that may have gone with it. */
function freshValue(key: string): unknown {
  const [root, ...rest] = key.split(".");
  const attributes = contracts.roots[root];
  const plugin = pluginOf(root, rest[0]);
  const stays = plugin === undefined ? typeof attributes === "string" || rest[0] in (attributes ?? {}) : plugin === "core" || alwaysThere.has(plugin);
  if (!/^(appearance|jenkins|security|unclassified)$/.test(root) || !stays) return undefined;
  const value = (fresh.values as Record<string, unknown>)[key];
  if (value !== undefined && (!Array.isArray(value) || ownedLists.test(key))) return value;
  const owner = typeof attributes === "string" ? attributes : attributes[rest.shift() ?? ""];
  const type = rest.length === 1 ? contracts.attributes[owner]?.[rest[0]] : undefined;
  if (type === "string") return "";
  return type?.startsWith("list of ") && ownedLists.test(key) ? [] : undefined;
}

/** What becomes of keys that no document sets any more: Jenkins has saved their values, and would keep them over reloads and restarts. */
export interface Removed {
  /** A document with the values of an empty home, where these are known; undefined where none is. */
  document?: string;
  /** What people should know; undefined where no key went just now. */
  warning?: string;
}

/** @param before the documents in force, with what was set back earlier: that stays */
export function removed(before: Record<string, string>, after: Record<string, string>): Removed {
  const keys = removedKeys(before, after).map((key) => ({ key, value: freshValue(key) }));
  const back = keys.filter(({ value }) => value !== undefined);
  const { [setBackFile]: _, ...others } = before;
  const told = removedKeys(others, after);
  const named = (all: typeof keys, text: (each: (typeof keys)[0]) => string) => all.filter(({ key }) => told.includes(key)).map(text).join(", ");
  const [setBack, kept] = [named(back, ({ key, value }) => `${key} ${JSON.stringify(value)}`), named(keys.filter(({ value }) => value === undefined), ({ key }) => key)];
  const warning = [
    ...(setBack ? [`set back to what a new Jenkins has: ${setBack}`] : []),
    ...(kept ? [`kept in Jenkins, which has saved the values, over a restart as well: ${kept}; set what it shall be instead, or change it under Manage Jenkins`] : []),
  ].join(". ");
  const document = new Document({});
  back.forEach(({ key, value }) => document.setIn(key.split("."), value));
  return { ...(back.length > 0 && { document: document.toString({ lineWidth: 0 }) }), ...(warning && { warning: `no longer set by any document, ${warning}` }) };
}
