import { parse } from "yaml";

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
  const within = (inner: string, outer: string) => inner === outer || inner.startsWith(`${outer}.`);
  return [...new Set(setKeys(before))].filter((key) => !kept.some((other) => within(other, key) || within(key, other))).sort();
}

/** What people should know of keys taken away; undefined where there are none. */
export function removedWarning(keys: string[]): string | undefined {
  if (keys.length === 0) return undefined;
  return `no longer set by any document: ${keys.join(", ")}. Jenkins has saved the values and keeps them, over a restart as well: set what it shall be instead, or change it in Jenkins under Manage Jenkins.`;
}
