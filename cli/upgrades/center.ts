import { compareVersions, type Pin, type UpdateCenter } from "../../tools/plugin-updates";

/** What an upgrade takes: the newest LTS and plugins that are one consistent set with it, by the update centre's data. */

/** An update centre's document as far as an upgrade reads it. */
export interface Center extends UpdateCenter {
  core?: { version: string };
  plugins: Record<string, { version: string; requiredCore?: string; dependencies?: { name: string; version: string; optional?: boolean }[] }>;
}

/** A version that changes. */
export interface Change {
  name: string;
  from: string;
  to: string;
}

export interface Proposal {
  core: Change;
  /** Pins that change. */
  plugins: Change[];
  /** What the pinned plugins need beside themselves, in the versions that they ask for. */
  dependencies: Map<string, string>;
  /** What stays as it is though it might not, and what Jenkins' project warns of. */
  remarks: string[];
}

/**
 * The newest of everything that fits together: each pin goes to the offered version where that runs on the core, and what it needs has to
 * be offered in a version that is new enough and runs on the core, too.
 * @param core version of Jenkins that is wanted
 * @throws naming each plugin for which there is no consistent set
 */
export function propose(pins: Pin[], center: Center, core: Change): Proposal {
  const remarks: string[] = [];
  const problems: string[] = [];
  const fits = (name: string) => compareVersions(center.plugins[name].requiredCore ?? "0", core.to) <= 0;
  const targets = new Map<string, string>();
  for (const { name, version } of pins) {
    const offered = center.plugins[name];
    const newer = offered !== undefined && compareVersions(version, offered.version) < 0;
    if (!offered) remarks.push(`${name} stays at ${version}: the update centre does not offer it for Jenkins ${core.to}`);
    else if (newer && !fits(name)) remarks.push(`${name} stays at ${version}: ${offered.version} needs Jenkins ${offered.requiredCore}`);
    targets.set(name, newer && fits(name) ? offered.version : version);
  }
  // The manager takes of each plugin the newest version that somebody asks for.
  const needed = new Map(targets);
  const asked = new Map<string, string>();
  const queue = [...targets.keys()];
  while (queue.length > 0) {
    const name = queue.shift()!;
    const offered = center.plugins[name];
    // Of a version that is not the offered one nothing is known; it is in use already.
    if (!offered || (targets.has(name) && targets.get(name) !== offered.version)) continue;
    for (const { name: other, version, optional } of offered.dependencies ?? []) {
      if (optional || (needed.has(other) && compareVersions(needed.get(other)!, version) >= 0)) continue;
      const there = center.plugins[other];
      if (!there || compareVersions(there.version, version) < 0) problems.push(`${name} ${offered.version} needs ${other} ${version}, ${there ? `of which ${there.version} is the newest` : "which is not there"}`);
      else if (there.version === version && !fits(other)) problems.push(`${name} ${offered.version} needs ${other} ${version}, which needs Jenkins ${there.requiredCore}`);
      else if (targets.has(other)) {
        // A pin below what another needs would be refused by the plugin manager.
        if (!fits(other)) problems.push(`${name} ${offered.version} needs ${other} ${version}, but ${there.version} needs Jenkins ${there.requiredCore}`);
        else targets.set(other, there.version);
      }
      needed.set(other, targets.get(other) ?? version);
      asked.set(other, name);
      queue.push(other);
    }
  }
  if (problems.length > 0) throw new Error(`there is no consistent set of plugins for Jenkins ${core.to}:\n${problems.map((line) => `  ${line}`).join("\n")}`);
  for (const [name, version] of needed) {
    for (const warning of (center.warnings ?? []).filter((each) => each.type === "plugin" && each.name === name && (each.versions ?? []).some(({ pattern }) => new RegExp(`^(?:${pattern})$`).test(version))))
      remarks.push(`${name} ${version}${asked.has(name) ? ` (for ${asked.get(name)})` : ""}: ${warning.message}, ${warning.url}`);
    const deprecated = center.deprecations?.[name];
    if (deprecated) remarks.push(`${name} is deprecated: ${deprecated.url}`);
  }
  return {
    core,
    plugins: pins.flatMap(({ name, version }) => (targets.get(name) === version ? [] : [{ name, from: version, to: targets.get(name)! }])),
    dependencies: new Map([...needed].filter(([name]) => !pins.some((pin) => pin.name === name)).sort()),
    remarks,
  };
}

/** Where it is written what is new. */
export const releaseNotes = ({ name, to }: Change): string =>
  name === "jenkins" ? `https://www.jenkins.io/changelog-stable/#v${to} and https://www.jenkins.io/doc/upgrade-guide/${to.split(".").slice(0, 2).join(".")}/` : `https://plugins.jenkins.io/${name}/releases/`;

/** A text in which an image's reference has another tag and digest, wherever it stands with the former tag. */
export function withReference(text: string, image: string, from: string, to: string, digest: string): string {
  const escape = (part: string) => part.replace(/[.*+?^${}()|[\]\\/-]/g, "\\$&");
  return text
    .replace(new RegExp(`("image": "${escape(image)}", "tag": ")${escape(from)}(", )(?:"digest": "sha256:[0-9a-f]{64}"|"digestUnknown": "[^"]*")`), `$1${to}$2"digest": "${digest}"`)
    // A reference that was by digest stays so.
    .replace(new RegExp(`(${escape(image)}:)${escape(from)}(@sha256:[0-9a-f]{64})?(?![\\w.-])`, "g"), (_, before: string, pinned: string | undefined) => `${before}${to}${pinned ? `@${digest}` : ""}`);
}

/** A text in which plugins have other versions, wherever they stand as name:version. */
export function withPins(text: string, changes: Change[]): string {
  const to = new Map(changes.map((change) => [`${change.name}:${change.from}`, `${change.name}:${change.to}`]));
  return text.replace(/(?<![\w.-])[A-Za-z0-9][A-Za-z0-9._-]*:[A-Za-z0-9][A-Za-z0-9._+-]*/g, (pin) => to.get(pin) ?? pin);
}
