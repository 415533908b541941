/**
 * The manifest editor, scripts/node-port-range/manifest.awk, by itself against a YAML parser: thousands of generated manifests,
 * edited in batches.
 */
import { execFile } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { promisify } from "node:util";
import fc from "fast-check";
import { Document, parse, parseDocument, type ToStringOptions } from "yaml";
import { memory } from "./node-port-range-node";

const editor = path.join(__dirname, "..", "..", "scripts/node-port-range/manifest.awk");
const RANGE = "80-32767";
const FLAG = /^--service[-_]node[-_]port[-_]range(=|$)/;
/** For a longer search by hand: NODE_PORT_RANGE_SEARCH=10 tries ten times as many manifests. */
const scale = Number(process.env.NODE_PORT_RANGE_SEARCH ?? 1);
/** Another one each run; a failure names it, and NODE_PORT_RANGE_SEED brings the same manifests back. */
const seed = Number(process.env.NODE_PORT_RANGE_SEED ?? Date.now() % 2 ** 31);
const sample = <T>(arbitrary: fc.Arbitrary<T>, numRuns: number): T[] => fc.sample(arbitrary, { numRuns: numRuns * scale, seed });
jest.setTimeout(120_000 * scale);

const folder = fs.mkdtempSync(path.join(memory, "node-port-range-"));

beforeAll(() => {
  fs.writeFileSync(
    path.join(folder, "batch.sh"),
    `edit() { ENGINE_MODE=$1 ENGINE_VALUE=$value ENGINE_SIZE=$(wc -c <"$2") LC_ALL=C awk -f '${editor}' <"$2"; }
    value=$1
    for file in *.in; do
      name=\${file%.in}
      if edit "$2" "$file" >"$name.out"; then :; else mv "$name.out" "$name.refused"; continue; fi
      if [ -z "$3" ]; then continue; fi
      if edit "$3" "$name.out" >"$name.back"; then :; else mv "$name.back" "$name.refused"; fi
    done\n`,
  );
});
afterAll(() => fs.rmSync(folder, { recursive: true }));

interface Edited {
  out?: string;
  back?: string;
  refused?: string;
}

/** Edits each text by `first`, then the result by `second` ("set" or "remove"; "" for not at all), in two processes at once. */
async function editAll(texts: string[], first: string, second: string, value = RANGE): Promise<Edited[]> {
  const shares = [0, 1].map((share) => {
    const directory = fs.mkdtempSync(path.join(folder, "batch-"));
    texts.forEach((text, i) => i % 2 === share && fs.writeFileSync(path.join(directory, `${i}.in`), text));
    return directory;
  });
  await Promise.all(shares.flatMap((cwd, share) => (texts.length > share ? [promisify(execFile)("sh", [path.join(folder, "batch.sh"), value, first, second], { cwd })] : [])));
  const read = (i: number, suffix: string) => {
    const file = path.join(shares[i % 2], `${i}.${suffix}`);
    return fs.existsSync(file) ? fs.readFileSync(file, "utf8") : undefined;
  };
  const results = texts.map((_, i) => ({ out: read(i, "out"), back: read(i, "back"), refused: read(i, "refused") }));
  for (const directory of shares) fs.rmSync(directory, { recursive: true });
  return results;
}

interface Container {
  name?: string;
  command?: string[] | null;
  args?: string[] | null;
}
interface Pod {
  spec: { containers: Container[] };
}

const argumentsOf = (container: Container) => [...(container.command ?? []), ...(container.args ?? [])];
/** The argument vector without the flag in either of its forms, and the flag's values. */
function takeFlag(argv: string[]): { rest: string[]; values: string[] } {
  const rest: string[] = [];
  const values: string[] = [];
  for (let i = 0; i < argv.length; i++) {
    if (!FLAG.test(argv[i])) rest.push(argv[i]);
    else if (argv[i].includes("=")) values.push(argv[i].slice(argv[i].indexOf("=") + 1));
    else values.push(argv[++i]);
  }
  return { rest, values };
}
const apiserver = (pod: Pod) => pod.spec.containers.find((each) => each.name === "kube-apiserver") as Container;
/** The Pod without the apiserver's arguments. */
function others(pod: Pod): unknown {
  const copy = structuredClone(pod);
  delete apiserver(copy).command;
  delete apiserver(copy).args;
  return copy;
}
const lineEnds = (text: string) => ({ crlf: (text.match(/\r\n/g) ?? []).length > 0, lone: (text.match(/(?<!\r)\n/g) ?? []).length > 0 });
const comments = (text: string) => [...text.matchAll(/# note \d+/g)].map(String).sort();
const changedLines = (a: string, b: string) => {
  const [before, after] = [a.split("\n"), b.split("\n")];
  let head = 0;
  while (head < before.length && head < after.length && before[head] === after[head]) head++;
  let tail = 0;
  while (tail < before.length - head && tail < after.length - head && before[before.length - 1 - tail] === after[after.length - 1 - tail]) tail++;
  return { removed: before.length - head - tail, added: after.length - head - tail };
};

// ---- generated manifests --------------------------------------------------------------------------

/** Other arguments; none is, or looks to kubeadm like, the flag. */
const otherArgument = fc.oneof(
  fc.constantFrom(
    "--advertise-address=10.0.0.1", "--allow-privileged=true", "--authorization-mode=Node,RBAC", "--etcd-servers=https://127.0.0.1:2379",
    "--service-cluster-ip-range=10.96.0.0/12", "--tls-cert-file=/etc/kubernetes/pki/apiserver.crt", "--v=2", "--feature-gates=A=true,B=false",
    "--service-node-port-range-like=1-2", "--cors-allowed-origins=.*", "--secure-port=6443", "--service-account-issuer=https://kubernetes.default.svc",
  ),
  fc.string({ unit: fc.constantFrom(..."abc-=/.,:#'\"\\ {}[]&*!|>%@é"), minLength: 1, maxLength: 14 }).map((text) => `--x=${text}y`),
);
const port = fc.integer({ min: 1, max: 65535 });
const someRange = fc.oneof(fc.constant(RANGE), fc.constant("30000-32767"), fc.tuple(port, port).map(([a, b]) => `${Math.min(a, b)}-${Math.max(a, b)}`));
const name = fc.constantFrom("--service-node-port-range", "--service-node-port-range", "--service-node-port-range", "--service_node_port_range");
const flagItems = fc.oneof({ weight: 4, arbitrary: fc.tuple(name, someRange).map(([n, r]) => [`${n}=${r}`]) }, { weight: 1, arbitrary: fc.tuple(name, someRange).map(([n, r]) => [n, r]) });

/** command and args of the apiserver with 0, 1 or 2 flags at random places. */
const vectors = fc
  .record({
    others: fc.array(otherArgument, { minLength: 1, maxLength: 8 }),
    flags: fc.oneof<fc.MaybeWeightedArbitrary<string[][]>[]>({ weight: 3, arbitrary: fc.constant([]) }, { weight: 3, arbitrary: fc.array(flagItems, { minLength: 1, maxLength: 1 }) }, { weight: 2, arbitrary: fc.array(flagItems, { minLength: 2, maxLength: 3 }) }),
    places: fc.array(fc.nat(100), { minLength: 3, maxLength: 3 }),
    layout: fc.constantFrom("command", "command", "both", "args"),
  })
  .map(({ others: rest, flags, places, layout }) => {
    const items: string[][] = rest.map((each) => [each]);
    flags.forEach((flag: string[], i: number) => items.splice(places[i] % (items.length + 1), 0, flag));
    if (layout === "command") return { command: ["kube-apiserver", ...items.flat()] };
    if (layout === "args") return { args: items.flat() };
    const cut = places[0] % (items.length + 1);
    return { command: ["kube-apiserver", ...items.slice(0, cut).flat()], args: items.slice(cut).flat() };
  });

interface Look {
  dashIndent: number;
  step: number;
  dashGap: string;
  listStyle: "block" | "flow" | "flowLines";
  crlf: boolean;
  finalNewline: boolean;
  documentMark: boolean;
  decoys: boolean;
  notes: boolean;
  containerFirst: boolean;
  quotes: number[];
}
const look: fc.Arbitrary<Look> = fc.record({
  dashIndent: fc.constantFrom(0, 2, 4),
  step: fc.constantFrom(2, 2, 4, 3),
  dashGap: fc.constantFrom(" ", " ", "  ", "   "),
  listStyle: fc.constantFrom("block", "block", "block", "flow", "flowLines"),
  crlf: fc.boolean(),
  finalNewline: fc.boolean(),
  documentMark: fc.boolean(),
  decoys: fc.boolean(),
  notes: fc.boolean(),
  containerFirst: fc.boolean(),
  quotes: fc.array(fc.nat(13), { minLength: 12, maxLength: 12 }),
});

/** Text that YAML reads back as the same string, written in one of several ways. */
function quoted(text: string, how: number, inFlow: boolean, indent: string): string {
  const plain = /^--[A-Za-z0-9=/.,_-]*$|^[0-9]+-[0-9]+$/.test(text) && !(inFlow && text.includes(","));
  if (how < 6 && plain) return text;
  if (how === 6 && !inFlow && !/[\\"]/.test(text)) return `|-\n${indent}  ${text}`;
  if (how === 12 && !inFlow) return `|2-\n${indent}  ${text}`;
  if (how === 13 && !inFlow) return `>3-\n${indent}   ${text}`;
  if (how === 7) return `"${text.replace(/[\\"]/g, "\\$&").replace(/^--s/, "\\x2d\\u002ds")}"`;
  if (how % 2 === 0) return `'${text.replace(/'/g, "''")}'`;
  return JSON.stringify(text);
}

/** Writes the Pod by hand, in the styles people and tools use. */
function write(argv: { command?: string[]; args?: string[] }, style: Look): string {
  let notes = 0;
  let item = 0;
  const note = (lead: string) => (style.notes && (item + notes) % 3 === 0 ? `${lead}# note ${notes++}` : "");
  const dash = (indent: string) => `${indent}-${style.dashGap}`;
  const list = (key: string, values: string[], indent: string) => {
    const inner = indent + " ".repeat(style.dashIndent);
    const how = () => style.quotes[item++ % style.quotes.length];
    if (style.listStyle === "flow") return [`${key}: [${values.map((each) => quoted(each, how(), true, "")).join(item % 2 ? "," : ", ")}]`];
    if (style.listStyle === "flowLines") {
      const rows = values.map((each, i) => `${inner}  ${quoted(each, how(), true, "")}${i < values.length - 1 || item % 5 === 0 ? "," : ""}${note(" ")}`);
      return [`${key}: [`, ...rows, `${inner}]`];
    }
    return [`${key}:${note(" ")}`, ...values.flatMap((each) => {
      const written = quoted(each, how(), false, inner);
      const above = item % 4 === 0 ? note(inner) : "";
      return [...(above ? [above] : []), `${dash(inner)}${written}${/^[|>]/.test(written) ? "" : note(" ")}`, ...(item % 7 === 0 && !/^[|>]/.test(written) ? [""] : [])];
    })];
  };
  const s = " ".repeat(style.step);
  const containersIndent = s + " ".repeat(style.dashIndent);
  const fieldIndent = containersIndent + " ".repeat(1 + style.dashGap.length);
  const fields = [
    ...(argv.command ? [list("command", argv.command, fieldIndent)] : []),
    ...(argv.args ? [list("args", argv.args, fieldIndent)] : []),
    ["image: registry.k8s.io/kube-apiserver:v1.34.3"],
    ["name: kube-apiserver"],
    ["livenessProbe:", `${fieldIndent}${s}httpGet: {host: 10.0.0.1, path: /livez, "port": 6443, scheme: HTTPS}`],
    ...(style.decoys ? [["env:", `${fieldIndent}- name: HINT`, `${fieldIndent}  value: "--service-node-port-range=1-2 # not an argument"`]] : []),
  ];
  if (!style.containerFirst) fields.push(...fields.splice(0, argv.command && argv.args ? 2 : 1));
  const container = fields.map((lines, i) => [`${i === 0 ? dash(containersIndent) : fieldIndent}${lines[0]}`, ...lines.slice(1)].join("\n"));
  const sidecar = [`${dash(containersIndent)}name: sidecar`, `${fieldIndent}command: ["/bin/wait", "--service-node-port-range=5-6"]`];
  const lines = [
    ...(style.documentMark ? ["---"] : []),
    "apiVersion: v1",
    "kind: Pod",
    "metadata:",
    `${s}annotations:`,
    `${s}${s}kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint: 10.0.0.1:6443`,
    ...(style.decoys ? [`${s}${s}example/text: |`, `${s}${s}  command:`, `${s}${s}  - --service-node-port-range=7-8`, "", `${s}${s}  end`, `${s}${s}example/folded: >-`, `${s}${s}  - --service-node-port-range=7-8`] : []),
    `${s}creationTimestamp: null`,
    `${s}name: kube-apiserver`,
    "spec:",
    `${s}containers:${note("  ")}`,
    ...(style.decoys && style.containerFirst ? sidecar : []),
    ...container,
    ...(style.decoys && !style.containerFirst ? sidecar : []),
    `${s}hostNetwork: true`,
    `${s}volumes:`,
    `${s}- hostPath:`,
    `${s}    path: '/etc/ssl/certs'`,
    `${s}  name: "ca-certs"`,
    "status: {}",
  ];
  const text = lines.join("\n") + (style.finalNewline ? "\n" : "");
  return style.crlf ? text.replace(/\n/g, "\r\n") : text;
}

const handWritten = fc.tuple(vectors, look).map(([argv, style]) => write(argv, style));

const pod = (argv: { command?: string[]; args?: string[] }) => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: "kube-apiserver", annotations: { "example/hint": "- --service-node-port-range=1-2\n# text\n" } },
  spec: { containers: [{ name: "other", args: ["--service-node-port-range=5-6"] }, { image: "registry.k8s.io/kube-apiserver:v1.34.3", name: "kube-apiserver", ...argv, ports: [{ containerPort: 6443 }] }], hostNetwork: true },
});
const json = fc.tuple(vectors, fc.constantFrom<number | string>(0, 1, 2, 4, "\t"), fc.boolean(), fc.boolean()).map(([argv, indent, crlf, end]) => {
  const text = JSON.stringify(pod(argv), null, indent) + (end ? "\n" : "");
  return crlf ? text.replace(/\n/g, "\r\n") : text;
});
const byLibrary = fc
  .tuple(
    vectors,
    fc.record<ToStringOptions>({
      collectionStyle: fc.constantFrom("any", "block", "flow"),
      defaultStringType: fc.constantFrom("PLAIN", "QUOTE_DOUBLE", "QUOTE_SINGLE"),
      defaultKeyType: fc.constantFrom("PLAIN", "QUOTE_DOUBLE"),
      indent: fc.constantFrom(2, 3, 4),
      indentSeq: fc.boolean(),
      lineWidth: fc.constantFrom(0, 40, 80),
      flowCollectionPadding: fc.boolean(),
      directives: fc.boolean(),
    }),
  )
  .map(([argv, options]) => new Document(pod(argv)).toString(options));

const readable = (text: string) => parseDocument(text).errors.length === 0;

/** What must hold of one edited manifest; throws with the text where it does not. */
function check(input: string, edited: Edited, oneLineItems: boolean): void {
  expect(edited.refused).toBeUndefined();
  const [before, after] = [parse(input) as Pod, parse(edited.out as string) as Pod];
  expect(others(after)).toEqual(others(before));
  const [was, is] = [takeFlag(argumentsOf(apiserver(before))), takeFlag(argumentsOf(apiserver(after)))];
  expect(is.rest).toEqual(was.rest);
  if (was.values.length > 0 && was.values.every((value) => value === RANGE)) {
    expect(edited.out).toBe(input);
    return;
  }
  expect(is.values).toEqual([RANGE]);
  expect(lineEnds(edited.out as string)).toEqual(input.includes("\n") ? lineEnds(input) : { crlf: false, lone: false });
  if (was.values.length < 2) expect(comments(edited.out as string)).toEqual(comments(input));
  if (was.values.length < 2 && oneLineItems) {
    const { removed, added } = changedLines(input, edited.out as string);
    // A new item is one line; behind a comment or at the end of the text its neighbour gets a comma or a line end.
    expect(added).toBeLessThanOrEqual(2);
    expect(removed).toBeLessThanOrEqual(was.values.length === 0 ? 1 : 2);
  }
}

async function checkAll(texts: string[], oneLineItems = true): Promise<void> {
  const set = await editAll(texts, "set", "remove");
  texts.forEach((text, i) => {
    try {
      check(text, set[i], oneLineItems);
      const after = parse(set[i].back as string) as Pod;
      const was = takeFlag(argumentsOf(apiserver(parse(text) as Pod)));
      expect(takeFlag(argumentsOf(apiserver(after)))).toEqual({ rest: was.rest, values: [] });
      expect(others(after)).toEqual(others(parse(text) as Pod));
      if (was.values.length === 0) expect(set[i].back).toBe(text);
    } catch (error) {
      throw new Error(`seed ${seed}, manifest ${i}:\n${text}\n---- became\n${set[i].out ?? set[i].refused}\n---- and back\n${set[i].back}\n${String(error)}`);
    }
  });
}

describe("the editor and a YAML parser agree", () => {
  test("on a text with a byte order mark", async () => {
    const texts = sample(fc.oneof(handWritten, json), 20).map((text) => `\ufeff${text}`);
    const edited = await editAll(texts, "set", "remove");
    texts.forEach((text, i) => {
      expect(edited[i].out?.startsWith("\ufeff")).toBe(true);
      check(text.slice(1), { out: edited[i].out?.slice(1) }, true);
    });
  });
  test("on manifests as people write them", async () => checkAll(sample(handWritten, 550)));
  test("on JSON manifests", async () => checkAll(sample(json, 150)));
  test("on manifests as a YAML library writes them", async () => {
    const texts = sample(byLibrary, 200);
    await checkAll(texts.filter(readable), false);
    // With collectionStyle block and without indentSeq the library writes an empty list where neither it
    // nor the kubelet can read it: on the next line, no deeper than its key. Nothing else may drop out here.
    const unreadable = texts.filter((text) => !readable(text));
    for (const text of unreadable) expect(text).toMatch(/^( +)"?args"?:\n\1\[\]$/m);
    for (const { refused } of await editAll(unreadable, "set", "remove")) expect(refused).toMatch(/^line \d+: a key that is not understood\n$/);
  });

  describe("on values that begin on the line after their key", () => {
    const value = {
      "an empty list": ["[]"],
      "a list": ["[--a, --b]"],
      "a list of quoted texts": [`["--a", '--b']`],
      "a list with the flag": ["[--a, --service-node-port-range=1-2, --b]"],
      "a list over lines": ["[", "  --a,", "  --b", "]"],
      "a list between comments": ["# note 0", "[--a, --b] # note 1"],
      "a list with an anchor": ["&list [--a, --b]"],
      "a list with a tag": ["!!seq [--a, --b]"],
    };
    const manifest = (key: string, lines: string[], depth: number, quote: string) => {
      const other = key === "command" ? "args: [--z]" : "command: [kube-apiserver]";
      const on = (indent: number, written: string[]) => written.map((line) => `${" ".repeat(indent)}${line}\n`).join("");
      const image = on(4, [`${quote}image${quote}:`]) + on(Math.max(depth, 5), [`${quote}registry.k8s.io/kube-apiserver${quote}`]);
      return `kind: Pod\nspec:\n  containers:\n  - name: kube-apiserver\n${on(4, [`${quote}${key}${quote}:`])}${on(depth, lines)}${on(4, [other])}${image}  hostNetwork: true\n`;
    };
    const all = (depth: number) => ["command", "args"].flatMap((key) => Object.entries(value).flatMap(([what, lines]) => ["", '"', "'"].map((quote) => ({ what, text: manifest(key, lines, depth, quote) }))));

    test.each([5, 6, 8])("deeper than the key, which stands at 4: %d", async (depth) => {
      const texts = all(depth).map(({ text }) => text);
      expect(texts.filter((text) => !readable(text))).toEqual([]);
      await checkAll(texts, false);
      await checkAll(texts.map((text) => text.replace(/\n/g, "\r\n")), false);
    });
    test.each([3, 4])("no deeper, which is no YAML: %d", async (depth) => {
      const texts = all(depth);
      expect(texts.filter(({ text }) => readable(text))).toEqual([]);
      const edited = await editAll(texts.map(({ text }) => text), "set", "remove");
      expect(texts.filter((_, i) => edited[i].refused === undefined)).toEqual([]);
    });
    test.each(["registry.k8s.io/kube-apiserver", "'registry.k8s.io/kube-apiserver'", '"registry.k8s.io/kube-apiserver"', "{}", "*image"])("other values: %s", async (written) => {
      const at = (depth: number) => manifest("args", ["[--a]"], 6, "").replace("name:", "name: &image").replace(/image:\n.*\n/, `image:\n${" ".repeat(depth)}${written}\n`);
      expect([at(5), at(4)].map(readable)).toEqual([true, false]);
      await checkAll([at(5)]);
      expect((await editAll([at(4)], "set", "remove"))[0].refused).toMatch(/^line \d+: /);
    });
  });

  test("on texts of several lines, literal and folded", async () => {
    const line = fc.oneof(fc.constantFrom("", "", "a", "b c", "  deeper", "--x=y", "\tz"), fc.string({ unit: fc.constantFrom(..."ab #:'-"), maxLength: 6 }).map((text) => `x${text}`));
    const block = fc.tuple(fc.constantFrom("|", ">"), fc.constantFrom("", "-", "+"), fc.constantFrom(0, 1, 2, 4), fc.nat(2), fc.array(line, { maxLength: 6 }), fc.boolean()).map(([kind, end, indent, blanks, lines, crlf]) => {
      const text = `text: ${kind}${indent || ""}${end}\n${[...Array<string>(blanks).fill(""), "x", ...lines].map((each) => (each === "" ? "" : " ".repeat(indent || 2)) + each + "\n").join("")}last: 1\n`;
      return crlf ? text.replace(/\n/g, "\r\n") : text;
    });
    const texts = sample(block, 200).filter(readable);
    const read = await editAll(texts, "key", "", "text");
    texts.forEach((text, i) => expect([text, read[i].out]).toEqual([text, (parse(text) as { text: string }).text]));
    expect(texts.length).toBeGreaterThan(100 * scale);
  });

  test("on damaged manifests: it refuses, or edits right whatever the parser accepts", async () => {
    const bits = ["- ", ":", ": ", " ", "\n", "#", " #", "'", '"', "[", "]", "{", "}", ",", "&a ", "*a", "|", ">", "!!str ", "? ", "---\n", "\t", "  ", "- - ", "\\", "<<: "];
    const damaged = fc.tuple(fc.oneof(handWritten, json, byLibrary), fc.nat(), fc.constantFrom(...bits), fc.nat(3), fc.boolean()).map(([text, place, bit, cut, nearFlags]) => {
      const start = nearFlags ? Math.max(0, text.search(/command|args/)) + (place % 200) : place % text.length;
      return text.slice(0, start) + bit + text.slice(start + cut);
    });
    const texts = sample(damaged, 250);
    const edited = await editAll(texts, "set", "set");
    let accepted = 0;
    texts.forEach((text, i) => {
      if (edited[i].refused !== undefined) return;
      let before: Pod;
      try {
        before = parse(text) as Pod;
        if (!Array.isArray(before.spec.containers) || !apiserver(before)) return;
        if (!argumentsOf(apiserver(before)).every((each) => typeof each === "string")) return;
      } catch {
        return; // The kubelet would not read it either.
      }
      accepted++;
      const after = parse(edited[i].out as string) as Pod;
      try {
        const was = takeFlag(argumentsOf(apiserver(before)));
        expect(takeFlag(argumentsOf(apiserver(after)))).toEqual({ rest: was.rest, values: was.values.length > 0 && was.values.every((value) => value === RANGE) ? was.values : [RANGE] });
        expect(others(after)).toEqual(others(before));
        expect(edited[i].back).toBe(edited[i].out);
      } catch (error) {
        throw new Error(`seed ${seed}, manifest ${i}:\n${text}\n---- became\n${edited[i].out}\n${String(error)}`);
      }
    });
    expect(accepted).toBeGreaterThan(50 * scale);
  });
});

// ---- kubeadm's ClusterConfiguration ---------------------------------------------------------------

interface ClusterConfiguration {
  apiServer?: { extraArgs?: Record<string, string> | { name: string; value: string }[] | null } | null;
}
const NAME = "service-node-port-range";

const cluster = fc
  .record({
    list: fc.boolean(),
    rest: fc.uniqueArray(fc.constantFrom("audit-log-path", "authorization-mode", "v", "feature-gates"), { maxLength: 3 }),
    value: fc.option(someRange, { nil: undefined }),
    place: fc.nat(3),
    shape: fc.constantFrom("full", "noArgs", "emptyArgs", "emptyServer", "nullServer", "noServer"),
    more: fc.boolean(),
  })
  .map(({ list, rest, value, place, shape, more }) => {
    const pairs = rest.map((each): [string, string] => [each, `value of ${each}`]);
    if (value !== undefined) pairs.splice(place, 0, [NAME, value]);
    const extraArgs = list ? pairs.map(([key, text]) => ({ name: key, value: text })) : Object.fromEntries(pairs);
    const server = more ? { certSANs: ["10.0.0.1", "kubernetes.example"], timeoutForControlPlane: "4m0s" } : {};
    const apiServer = {
      full: { apiServer: { ...(pairs.length > 0 && { extraArgs }), ...server } },
      noArgs: { apiServer: server },
      emptyArgs: { apiServer: { extraArgs: list ? [] : {}, ...server } },
      emptyServer: { apiServer: {} },
      nullServer: { apiServer: null },
      noServer: {},
    }[shape];
    return { ...apiServer, apiVersion: `kubeadm.k8s.io/${list ? "v1beta4" : "v1beta3"}`, controllerManager: { extraArgs: list ? [{ name: NAME, value: "no" }] : { [NAME]: "no" } }, kind: "ClusterConfiguration", networking: { serviceSubnet: "10.96.0.0/12" } };
  });

const argumentsIn = (config: ClusterConfiguration): [string, string][] => {
  const extraArgs = config.apiServer?.extraArgs ?? [];
  return Array.isArray(extraArgs) ? extraArgs.map(({ name: key, value }) => [key, value]) : Object.entries(extraArgs);
};
const withoutArguments = (config: ClusterConfiguration) => {
  const { extraArgs: _, ...server } = config.apiServer ?? {};
  return { ...config, apiServer: server };
};

test("the kubeadm-config editor and a YAML parser agree, for maps and for lists", async () => {
  const texts = sample(fc.tuple(cluster, fc.constantFrom<ToStringOptions>({}, { indentSeq: false }, { indent: 4 }, { collectionStyle: "flow", lineWidth: 0 }), fc.boolean()), 120)
    .map(([config, options, asJson]) => (asJson && options.collectionStyle ? JSON.stringify(config) : new Document(config).toString(options)));
  const edited = await editAll(texts, "cc-set", "cc-remove");
  texts.forEach((text, i) => {
    try {
      const [before, after, back] = [text, edited[i].out as string, edited[i].back as string].map((each) => parse(each) as ClusterConfiguration);
      const rest = argumentsIn(before).filter(([key]) => key !== NAME);
      const had = rest.length < argumentsIn(before).length;
      expect(argumentsIn(after).filter(([key]) => key === NAME)).toEqual([[NAME, RANGE]]);
      expect(argumentsIn(after).filter(([key]) => key !== NAME)).toEqual(rest);
      expect(withoutArguments(after)).toEqual(withoutArguments(before));
      expect(argumentsIn(back)).toEqual(rest);
      expect(withoutArguments(back)).toEqual(withoutArguments(before));
      // What kubeadm writes comes back to the byte; its marshaller never writes an empty extraArgs.
      if (!had && text.includes("\napiVersion") && before.apiServer && !("extraArgs" in before.apiServer && rest.length === 0)) expect(edited[i].back).toBe(text);
      const changed = (before.apiServer?.extraArgs ?? null) === null || Array.isArray(before.apiServer?.extraArgs) === Array.isArray(after.apiServer?.extraArgs);
      expect(changed).toBe(true);
    } catch (error) {
      throw new Error(`seed ${seed}, ClusterConfiguration ${i}:\n${text}\n---- became\n${edited[i].out ?? edited[i].refused}\n---- and back\n${edited[i].back}\n${String(error)}`);
    }
  });
});
