/** What the real Jenkins was recorded to take: see casc.json, which `npm run contracts` writes. */
import recorded from "./casc.json";

/**
 * A recording of what configuration-as-code takes. Types are string, integer, boolean, words separated by "|", the name of a class
 * of `symbols` or `attributes`, `list of` any of these, or object where it is not known what belongs there.
 */
export interface Contracts {
  /** Version of Jenkins, and the day. */
  jenkins: string;
  recorded: string;
  /** Version of each plugin that was there. */
  plugins: Record<string, string>;
  /** Pins that have no recording of their own, each with the reason. */
  otherThanPinned: Record<string, string>;
  /** What the recording could not see, in words. */
  notRecorded: string[];
  /** Roots of documents: a class, or the attributes themselves; "*" stands for those that are not recorded. */
  roots: Record<string, string | Record<string, string>>;
  /** Extension points: the symbols that may stand there, and the class behind each. */
  symbols: Record<string, Record<string, string>>;
  /** Classes: their attributes, and the type of each. */
  attributes: Record<string, Record<string, string>>;
}

/** The recording that goes with the pins of images/. */
export const contracts: Contracts = recorded;

/** Text of a recording: one class a line, so that a change of it can be read. */
export function formatContracts(of: Contracts): string {
  const { roots, symbols, attributes, ...head } = of;
  const block = (name: string, entries: object) => {
    const lines = Object.entries(entries).sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, value]) => `    ${JSON.stringify(key)}: ${JSON.stringify(value).replace(/":"/g, '": "').replace(/","/g, '", "')}`);
    return `  "${name}": {\n${lines.join(",\n")}\n  }`;
  };
  return `${JSON.stringify(head, undefined, 2).slice(0, -2)},\n${[block("roots", roots), block("symbols", symbols), block("attributes", attributes)].join(",\n")}\n}\n`;
}
