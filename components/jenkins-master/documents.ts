/** Reading JCasC documents of the site's own, whatever is wrong with them. */
import { parse } from "yaml";
import { isObject } from "../../config/pieces";

/** Whether Jenkins reads a file of the folder as a document; others, such as seed scripts, lie beside them. */
export const isDocument = (file: string): boolean => /\.ya?ml$/i.test(file);

/**
 * A document's content, anchors and merge keys resolved as Jenkins does.
 * @throws where it is no YAML
 */
export const readDocument = (text: string): unknown => parse(text, { merge: true });

/** The documents among a site's files that can be read, in the order of their names. */
export function readable(fragments: Record<string, string> = {}): [file: string, document: Record<string, unknown>][] {
  return Object.entries(fragments).flatMap(([file, text]): [string, Record<string, unknown>][] => {
    if (!isDocument(file)) return [];
    try {
      const document = readDocument(text);
      return isObject(document) ? [[file, document]] : [];
    } catch {
      return [];
    }
  });
}

/** What the site's documents say at a path, one entry for each that says something. */
export function said(fragments: Record<string, string> | undefined, ...path: string[]): unknown[] {
  return readable(fragments).map(([, document]) => path.reduce<unknown>((value, key) => (isObject(value) ? value[key] : undefined), document)).filter((value) => value !== undefined);
}

/** A symbol without settings may be a word or a map with an empty map. */
function word(value: unknown): unknown {
  if (!isObject(value)) return value;
  const [key, ...others] = Object.keys(value);
  const settings = key === undefined ? undefined : value[key];
  return key !== undefined && others.length === 0 && (settings === null || (isObject(settings) && Object.keys(settings).length === 0)) ? key : value;
}

/** A scalar as Jenkins keeps it: it ends an address with a slash. */
const kept = (value: unknown): string => String(word(value)).replace(/^https?:\/\/.*[^/]$/, "$&/");

/** Whether two values that are no lists mean the same to Jenkins. */
const same = (ours: unknown, theirs: unknown): boolean => !Array.isArray(ours) && !isObject(word(ours)) && !isObject(word(theirs)) && !Array.isArray(theirs) && kept(ours) === kept(theirs);

/** Our document without the keys that one of the site's own sets to the same value: Jenkins refuses a key that two documents set, equal or not. */
export function withoutEqual(ours: unknown, theirs: unknown): unknown {
  if (!isObject(ours) || !isObject(theirs)) return ours;
  return Object.fromEntries(
    Object.entries(ours).flatMap(([key, value]) => {
      if (!Object.hasOwn(theirs, key)) return [[key, value]];
      return same(value, theirs[key]) ? [] : [[key, withoutEqual(value, theirs[key])]];
    }),
  );
}

/** Keys that two documents both set: Jenkins joins mappings and lists, and refuses to start on anything else. */
export function conflicts(ours: unknown, theirs: unknown, path = ""): { path: string; ours: unknown; theirs: unknown }[] {
  if (ours === undefined || theirs === undefined || ours === null || theirs === null) return [];
  if (Array.isArray(ours) && Array.isArray(theirs)) return [];
  if (!isObject(ours) || !isObject(theirs)) return [{ path, ours, theirs }];
  return Object.keys(theirs).flatMap((key) => conflicts(ours[key], theirs[key], path === "" ? key : `${path}.${key}`));
}

/** Whether a realm knows people whom neither the platform nor the document names: all but one of local users without sign-up. */
export function isForeign(realm: unknown): boolean {
  if (realm === undefined) return false;
  return !isObject(realm) || !isObject(realm.local) || String(realm.local.allowsSignup ?? false) !== "false";
}
