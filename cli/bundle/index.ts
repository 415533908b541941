import * as fs from "node:fs";
import * as path from "node:path";
import { renderStack } from "../offline";
import { stackNames } from "../stack";
import { readWords, runCommand, UsageError } from "../terminal";
import { load } from "./load";
import { bundle } from "./write";

const HELP = `npm run bundle -- STACK [--out FILE] [--platform OS/ARCH]... [--with KEY]... [--plain-http HOST]...    writes every image of a stack into one archive
npm run bundle -- load FILE STACK [--yes] [--node NAME=USER@HOST]... [--seeded]    puts them into the registry of a cluster without internet

The first is run where the internet is, for a stack that is up. FILE (STACK.bundle.tar) is an OCI image layout: each upstream image
that the stack's program refers to, and the images that it builds, the controller's with its plugins inside, from its registry; for
the architectures of the cluster's nodes, or those of --platform. --with carries another key of images, such as restic for a stack
with a backup. Registries are spoken to over TLS, but for what registry.insecure allows, and HOST (host or host:port) of --plain-http,
with its log-in, if it has one, in the clear. Log-ins are used and not written down. Cut off, the same command goes on where it was;
FILE has its name only when it is whole.

The second is run behind the gap, from the same version of this repository, before \`npm run up -- STACK\`. It checks every byte of
FILE, sets images in Pulumi.STACK.yaml to the copies, by digest, and pushes into registry.host, or into the stack's own registry.
Before that one runs, its own images and the storage's go to the nodes: by the SSH of controlPlane, by --node to others, whose
commands are otherwise printed; with --seeded they are there already. Then it brings up that registry (\`pulumi up\` of it and what
it stands on; --yes asks nothing). Afterwards up builds and fetches nothing. Done again, it does only what is missing.

Exit code 0: done. 1: it was not; the last lines say why and what to do. 2: bad arguments.
`;

const named = (word: string | undefined): string => {
  if (word === undefined) throw new UsageError(`which stack? One of ${stackNames().join(", ")}; --help says more`);
  if (!stackNames().includes(word)) throw new UsageError(`there is no Pulumi.${word}.yaml; npm run new-env ${word} makes one`);
  return word;
};

const isFolder = (place: string): boolean => {
  try {
    return fs.statSync(place).isDirectory();
  } catch {
    return false;
  }
};

/** Why no file can be written to a place; undefined where one can be. */
function placeProblem(file: string): string | undefined {
  const folder = path.dirname(file);
  if (isFolder(file)) return `--out ${file} is a folder; give a file in it`;
  if (!isFolder(folder)) return `--out ${file}: there is no folder ${folder}; make it, or name another place`;
  try {
    fs.accessSync(folder, fs.constants.W_OK);
  } catch {
    return `${file} cannot be written: folder ${folder} may not be written to; give another place with --out`;
  }
  return undefined;
}

/** What the words of a command line ask for. @throws {UsageError} where they ask for nothing that there is */
export async function main(args: string[]): Promise<void> {
  const { values, positionals } = readWords(args, { out: { type: "string" }, platform: { type: "string", multiple: true }, with: { type: "string", multiple: true }, "plain-http": { type: "string", multiple: true }, yes: { type: "boolean" }, node: { type: "string", multiple: true }, seeded: { type: "boolean" } }, 3);
  const loads = positionals[0] === "load";
  const alien = loads ? (["out", "platform", "with", "plain-http"] as const).filter((option) => values[option] !== undefined) : (["yes", "node", "seeded"] as const).filter((option) => values[option] !== undefined);
  if (alien.length > 0) throw new UsageError(`--${alien[0]} is nothing that ${loads ? "load" : "writing a bundle"} knows; --help says more`);
  if (!loads) {
    if (positionals.length > 1) throw new UsageError(`what is "${positionals.slice(1).join(" ")}"? One stack is expected here; --help says more`);
    const platforms = values.platform ?? [];
    const wrong = platforms.filter((platform) => !/^[a-z0-9]+\/[a-z0-9_]+(\/[a-z0-9]+)?$/.test(platform));
    if (wrong.length > 0) throw new UsageError(`--platform ${wrong[0]} is none; give OS/ARCH such as linux/arm64`);
    const plainHttp = values["plain-http"] ?? [];
    const noHost = plainHttp.filter((host) => !/^[\w.-]+(:\d+)?$|^\[[\da-f:]+\](:\d+)?$/i.test(host));
    if (noHost.length > 0) throw new UsageError(`--plain-http ${noHost[0]} is no host; give it as images have it, such as 192.0.2.10:5000`);
    const stack = named(positionals[0]);
    const out = values.out ?? `${stack}.bundle.tar`;
    const wrongPlace = placeProblem(out);
    if (wrongPlace !== undefined) throw new UsageError(wrongPlace);
    return bundle(stack, { file: out, platforms, also: values.with ?? [], plainHttp, rendered: await renderStack(stack) });
  }
  const [, file, word] = positionals;
  if (file === undefined) throw new UsageError("which archive? npm run bundle -- load FILE STACK; --help says more");
  if (!fs.existsSync(file)) throw new UsageError(`there is no file ${file}; npm run bundle -- STACK writes one, where the internet is`);
  if (isFolder(file)) throw new UsageError(`${file} is a folder; give the file that npm run bundle -- STACK wrote`);
  const nodes = (values.node ?? []).map((text) => /^([^=]+)=([^=\s-][^=\s]*)$/.exec(text) ?? [text]);
  const odd = nodes.find((found) => found.length === 1);
  if (odd) throw new UsageError(`--node ${odd[0]} is no NAME=USER@HOST`);
  return load(file, named(word), { yes: values.yes ?? false, seeded: values.seeded ?? false, nodes: Object.fromEntries(nodes.map(([, node, target]) => [node, target])) });
}

if (require.main === module) void runCommand("bundle", HELP, main);
