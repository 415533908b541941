import { createInterface } from "node:readline/promises";
import { parseArgs, type ParseArgsConfig } from "node:util";

/** What every command does alike: read its words, give help, say what went wrong, ask, and draw tables. */

/** A mistake of the person at the keyboard; ends with exit code 2. */
export class UsageError extends Error {}

/** Options as node:util declares them. */
type Declared = NonNullable<ParseArgsConfig["options"]>;
type Words<T extends Declared> = ReturnType<typeof parseArgs<{ args: string[]; options: T; allowPositionals: true }>>;

/**
 * The options and further words of a command line.
 * @param most how many further words there may be
 * @throws {UsageError} for an option that the command does not have, one without its value, and a word too many
 */
export function readWords<T extends Declared>(args: string[], options: T, most = Infinity): Words<T> {
  let words: Words<T>;
  try {
    words = parseArgs({ args, options, allowPositionals: true });
  } catch (error) {
    throw new UsageError(`${(error as Error).message.split(". ")[0]}; --help lists the options`);
  }
  const further = words.positionals.slice(most);
  if (further.length > 0) throw new UsageError(`what is "${further.join(" ")}"? ${most === 0 ? "Only options are expected here" : `${most === 1 ? "One word is" : `${most} words are`} expected here`}; --help says which`);
  return words;
}

/**
 * Runs a command: `--help` prints its help; what it throws is said in one line, and ends with exit code 2 where the command line
 * was wrong, else with 1. A command with more to say by its exit code sets it itself.
 */
export async function runCommand(name: string, help: string, work: (args: string[]) => Promise<void>, args = process.argv.slice(2)): Promise<void> {
  if (args.includes("--help") || args.includes("-h")) return void process.stdout.write(help);
  try {
    await work(args);
  } catch (error) {
    process.stderr.write(`${name}: ${(error as Error).message}\n`);
    process.exitCode = error instanceof UsageError ? 2 : 1;
  }
}

/** Goes on once a person has typed a word; `yes` says that nobody need be asked. */
export async function approve(word: string, yes: boolean): Promise<void> {
  if (yes) return;
  if (!process.stdin.isTTY) throw new UsageError("nobody is there to say yes; add --yes where that is meant");
  const asking = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await asking.question(`Type "${word}" to go on: `);
  asking.close();
  if (answer.trim() !== word) throw new UsageError("nothing was changed");
}

/** Lines of cells as columns of equal width, two blanks between them. */
export function columns(rows: string[][]): string {
  const widths = rows[0]?.map((_, i) => Math.max(...rows.map((row) => row[i].length))) ?? [];
  return rows.map((row) => row.map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths[i]))).join("  ").trimEnd()).join("\n");
}
