import * as fs from "node:fs";
import * as path from "node:path";
import { objectPath, renderStack, resourceText, type Rendered } from "./offline";
import { stackNames } from "./stack";
import { readWords, runCommand, UsageError } from "./terminal";

const HELP = `npm run render -- STACK [--out FOLDER]    prints every object that the stack would make, as YAML

Asks no cluster, registry or passphrase, and changes nothing. A secret is shown as [secret], an image that is not built yet
by a digest that stands for its content. What else Pulumi keeps (commands for node ports and images, a password) comes as comments. With --out each
object is a file NAMESPACE/KIND/NAME.yaml of FOLDER, which must be new or empty.

Exit code 0: rendered. 1: the stack's config is refused. 2: bad arguments.
`;

const isObject = ({ type }: Rendered): boolean => type.startsWith("kubernetes:");

/** One stream of YAML that kubectl could read: the objects as documents, what else the program registers as comments. */
export function yamlStream(resources: Rendered[]): string {
  return resources.map((resource) => `---\n# ${objectPath(resource)}\n${isObject(resource) ? resourceText(resource) : resourceText(resource).replace(/^(?=.)/gm, "# ")}`).join("");
}

async function main(args: string[]): Promise<void> {
  const { values: { out }, positionals: [stack] } = readWords(args, { out: { type: "string" } }, 1);
  if (stack === undefined) throw new UsageError(`which stack? One of ${stackNames().join(", ")}; --help says more`);
  if (!stackNames().includes(stack)) throw new UsageError(`there is no Pulumi.${stack}.yaml; stacks with a file: ${stackNames().join(", ") || "none"}`);
  if (out !== undefined && fs.existsSync(out) && (!fs.statSync(out).isDirectory() || fs.readdirSync(out).length > 0)) throw new UsageError(`--out ${out} is there and not an empty folder; name another`);
  const resources = await renderStack(stack);
  if (out === undefined) return void process.stdout.write(yamlStream(resources));
  for (const resource of resources) {
    const file = path.join(out, `${objectPath(resource)}.yaml`);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, resourceText(resource), { flag: "wx" });
  }
  process.stdout.write(`${resources.filter(isObject).length} objects and ${resources.filter((each) => !isObject(each)).length} other resources in ${out}\n`);
}

if (require.main === module) void runCommand("render", HELP, main);
