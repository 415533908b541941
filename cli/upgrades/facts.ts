/** What a Jenkins says of itself, as scripts/backup/controller-check.sh --list prints it. */
export interface Facts {
  version?: string;
  /** Folders of jobs and folders below jenkins_home. */
  items: Set<string>;
  /** Such folders with a build's number behind, as "jobs/a #3". */
  builds: Set<string>;
  /** Version of each plugin, and whether it is in use. */
  plugins: Map<string, { version: string; active: boolean }>;
  /** Plugins that were not loaded, and why. */
  failed: Map<string, string>;
  /** What it asks its administrators to look at, by id. */
  monitors: Set<string>;
  /** Data in an older form, and data that it could not read in part, by whose they are. */
  old: Set<string>;
  unreadable: Map<string, string>;
  /** Bytes of the heap in use, and its bound. */
  memory?: { used: number; most: number };
  /** Seconds from the container's start to the first answer. */
  startSeconds?: number;
  /** What could not be asked. */
  trouble: string[];
}

/** Reads such lines; what is none of them is passed over. */
export function readFacts(text: string): Facts {
  const facts: Facts = { items: new Set(), builds: new Set(), plugins: new Map(), failed: new Map(), monitors: new Set(), old: new Set(), unreadable: new Map(), trouble: [] };
  for (const line of text.split(/\r?\n/)) {
    const [kind, first = "", second = "", third = ""] = line.split("\t");
    switch (kind) {
      case "version": facts.version = first; break;
      case "item": facts.items.add(first); break;
      case "build": facts.builds.add(`${first} #${second}`); break;
      case "plugin": facts.plugins.set(first, { version: second, active: third === "active" }); break;
      case "failed": facts.failed.set(first, second); break;
      case "monitor": facts.monitors.add(`${first}${second && second !== first ? ` (${second})` : ""}`); break;
      case "old": facts.old.add(first); break;
      case "unreadable": facts.unreadable.set(first, second); break;
      case "memory": facts.memory = { used: Number(first), most: Number(second) }; break;
      case "trouble": facts.trouble.push(first); break;
    }
  }
  return facts;
}

/** The same of a Jenkins' answer. @throws where it is none */
export function factsOf(text: string): Facts {
  const facts = readFacts(text);
  if (facts.version === undefined) throw new Error(`Jenkins does not say what it has: ${text.trim().slice(0, 300)}`);
  return facts;
}
