import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { REPO } from "../../sandbox/paths";

/** One bench: what was done, and how long each way took, side by side in one run. */
export interface Bench {
  title: string;
  /** Names of the ways compared; the first is this project's. */
  ways: [string, string, ...string[]];
  /** One figure for each way, in seconds or what `unit` says. */
  rows: { what: string; seconds: [number, number, ...number[]] }[];
  /** Default s. */
  unit?: "s" | "ms";
  /** Sentences below the table: ratios against targets, memory, how many rounds. */
  notes: string[];
}

/** One bench whose question is how figures of several units grow with a size. */
export interface Growth {
  title: string;
  /** What grows, and the sizes measured. */
  across: string;
  sizes: number[];
  /** What was measured, its unit in its name, one value for each size. */
  rows: { what: string; values: number[] }[];
  notes: string[];
}

const RESULTS = path.join(__dirname, "results");
export const DOCUMENT = path.join(REPO, "docs/bench.md");

export async function seconds(work: () => Promise<unknown>): Promise<number> {
  const started = process.hrtime.bigint();
  await work();
  return Number(process.hrtime.bigint() - started) / 1e9;
}

export const middle = (values: number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

/** The median of `count` runs, in seconds. */
export async function median(count: number, work: () => Promise<unknown>): Promise<number> {
  const runs: number[] = [];
  for (let i = 0; i < count; i++) runs.push(await seconds(work));
  return middle(runs);
}

const shown = (value: number) => (value < 1 ? value.toFixed(2) : value.toFixed(1));
const rounded = (value: number) => (Number.isInteger(value) ? String(value) : value < 100 ? shown(value) : value.toFixed(0));

const table = (head: string[], rows: string[][], notes: string[]): string =>
  [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |\n`).join("") + ["", ...notes.map((note) => `- ${note}`), ""].join("\n");

/** The bench as a Markdown table with the ratio of the first way to each other one. */
export function markdown({ ways, rows, notes, unit = "s" }: Bench): string {
  const ratios = ways.length === 2 ? ["ratio"] : ways.slice(1).map((way) => `to ${way}`);
  const lines = rows.map(({ what, seconds: [first, ...others] }) => [what, ...[first, ...others].map(shown), ...others.map((other) => (first / other).toFixed(2))]);
  return table([unit === "s" ? "seconds" : "milliseconds", ...ways, ...ratios], lines, notes);
}

const escaped = (text: string) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

/** The bench as a picture: the bars of the ways for each row, on one scale. */
export function chart({ title, ways, rows, unit = "s" }: Bench): string {
  const [left, bar, height] = [330, 380, 12 + 17 * ways.length];
  const scale = bar / Math.max(...rows.flatMap((row) => row.seconds));
  const colours = ["#2563eb", "#94a3b8", "#cbd5e1"];
  const bars = rows.map(({ what, seconds: values }, row) => {
    const top = 56 + row * height;
    const each = values.map((value, way) => {
      const width = Math.max(1, value * scale).toFixed(1);
      const y = top + way * 17;
      return `<rect x="${left}" y="${y}" width="${width}" height="14" rx="2" fill="${colours[way]}"/><text x="${(left + Number(width) + 6).toFixed(1)}" y="${y + 11}">${shown(value)} ${unit}</text>`;
    });
    return `<text x="${left - 10}" y="${top + 20}" text-anchor="end">${escaped(what)}</text>${each.join("")}`;
  });
  const step = ways.length === 2 ? 200 : 150;
  const legend = ways.map((way, i) => `<rect x="${left + i * step}" y="34" width="10" height="10" fill="${colours[i]}"/><text x="${left + 14 + i * step}" y="43">${escaped(way)}</text>`);
  const size = `width="${left + bar + 80}" height="${60 + rows.length * height}"`;
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size} font-family="sans-serif" font-size="12" fill="#334155"><rect width="100%" height="100%" fill="#fff"/><text x="10" y="22" font-size="15" font-weight="bold">${escaped(title)}</text>${legend.join("")}${bars.join("")}</svg>\n`;
}

/** The growth as a Markdown table, a column for each size. */
export const growthMarkdown = ({ across, sizes, rows, notes }: Growth): string => table([across, ...sizes.map(String)], rows.map(({ what, values }) => [what, ...values.map(rounded)]), notes);

/** The growth as a picture: a small plot for each row on a scale of its own from zero, sizes as far apart as their logarithms. */
export function growthChart({ title, across, sizes, rows }: Growth): string {
  const [across3, width, height, plot] = [3, 250, 150, { left: 24, right: 226, top: 40, bottom: 116 }];
  const place = (size: number) => plot.left + ((plot.right - plot.left) * Math.log(size / sizes[0])) / Math.max(Math.log(sizes[sizes.length - 1] / sizes[0]), 1);
  const plots = rows.map(({ what, values }, i) => {
    const most = Math.max(...values, Number.MIN_VALUE);
    const points = values.map((value, at) => ({ x: place(sizes[at]), y: plot.bottom - ((plot.bottom - plot.top) * value) / most, value, size: sizes[at] }));
    const line = `<polyline points="${points.map(({ x, y }) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ")}" fill="none" stroke="#2563eb" stroke-width="2"/>`;
    const dots = points.map(({ x, y, value, size }) => `<circle cx="${x.toFixed(1)}" cy="${y.toFixed(1)}" r="3" fill="#2563eb"/><text x="${x.toFixed(1)}" y="${(y - 7).toFixed(1)}" text-anchor="middle">${rounded(value)}</text><text x="${x.toFixed(1)}" y="${plot.bottom + 16}" text-anchor="middle" fill="#94a3b8">${size}</text>`);
    return `<g transform="translate(${(i % across3) * width} ${36 + Math.floor(i / across3) * height})"><text x="10" y="16" font-weight="bold">${escaped(what)}</text><line x1="10" x2="${width - 10}" y1="${plot.bottom}" y2="${plot.bottom}" stroke="#cbd5e1"/>${line}${dots.join("")}</g>`;
  });
  const size = `width="${across3 * width}" height="${44 + Math.ceil(rows.length / across3) * height}"`;
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size} font-family="sans-serif" font-size="11" fill="#334155"><rect width="100%" height="100%" fill="#fff"/><text x="10" y="22" font-size="15" font-weight="bold">${escaped(title)} (across: ${escaped(across)})</text>${plots.join("")}</svg>\n`;
}

/** Prints the table and writes results/NAME.json, docs/bench-NAME.svg and the bench's part of docs/bench.md. */
export function saveBench(name: string, bench: Bench | Growth, details: object = {}): void {
  const machine = `${os.cpus().length} processors, ${Math.round(os.totalmem() / 2 ** 30)} GiB, load ${os.loadavg()[0].toFixed(1)} at its end`;
  const stated = { ...bench, notes: [...bench.notes, `Measured ${new Date().toISOString().slice(0, 10)} on ${machine}.`] };
  const [text, picture] = "sizes" in stated ? [growthMarkdown(stated), growthChart(stated)] : [markdown(stated), chart(stated)];
  process.stdout.write(`\n${bench.title}\n\n${text}`);
  fs.mkdirSync(RESULTS, { recursive: true });
  fs.writeFileSync(path.join(RESULTS, `${name}.json`), `${JSON.stringify({ ...stated, ...details }, null, 2)}\n`);
  fs.writeFileSync(path.join(REPO, `docs/bench-${name}.svg`), picture);
  const part = `<!-- ${name} -->\n## ${bench.title}\n\n![${bench.title}](bench-${name}.svg)\n\n${text}<!-- /${name} -->\n`;
  const document = fs.existsSync(DOCUMENT) ? fs.readFileSync(DOCUMENT, "utf8") : "# Bench\n\nEach table is written by `make bench` on the sandbox; the ways run in turns on the same machine, in the same run.\n";
  const old = new RegExp(`<!-- ${name} -->[^]*<!-- /${name} -->\\n`);
  fs.writeFileSync(DOCUMENT, old.test(document) ? document.replace(old, () => part) : `${document}\n${part}`);
}
