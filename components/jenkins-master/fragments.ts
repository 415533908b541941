/** The site's own JCasC documents (`cascFolder`): which files count, and what Jenkins would make of them. */
import type { YAMLError } from "yaml";
import { cascConfig, cascFile, type CascInput } from "./casc";
import { Check, cloudProblems, type Finding, isObject, type Keys, say as spoken, yamlProblem } from "./casc-schema";
import { contracts } from "./contracts";
import { conflicts, isDocument, isForeign, readDocument, said } from "./documents";
import { loginPlugins } from "./login";
import { bakedPlugins, bringsUnknown, pluginOf, recordingFor } from "./plugins";
import { givenEnvironment, neededNames } from "./references";
import { setBackFile } from "./removed";

/**
 * The documents of a folder and of those below it, and the Groovy scripts beside them, by path with "/". Hidden names and other files
 * are passed over.
 * @param list names in a folder, those of folders with a "/" behind them
 */
export function readCascFolder(list: (folder: string) => string[], read: (file: string) => string, folder = ""): Record<string, string> {
  const names = list(folder).filter((name) => !name.startsWith(".")).sort();
  return Object.fromEntries(
    names.flatMap((name): [string, string][] => {
      const path = folder + name;
      if (name.endsWith("/")) return Object.entries(readCascFolder(list, read, path));
      return isDocument(path) || path.endsWith(".groovy") ? [[path, read(path)]] : [];
    }),
  );
}

/** Something that keeps Jenkins from starting (error), or that only Jenkins itself can judge (warning). */
export interface FragmentProblem {
  file: string;
  problem: string;
  severity: "error" | "warning";
}

/** Bytes that a ConfigMap holds, with room for the platform's own document. */
const mostBytes = 900_000;

/** What is wrong with a file's path: it becomes a key of a ConfigMap, with "__" in the place of "/". */
function pathProblem(file: string): string | undefined {
  if (file === cascFile || file === setBackFile) return "is the name of the platform's own document; rename it";
  if (file.includes("__")) return 'holds "__" in its name, which stands for the "/" of a subfolder in the ConfigMap; rename it';
  if (!/^[A-Za-z0-9][-A-Za-z0-9._]*(\/[A-Za-z0-9][-A-Za-z0-9._]*)*\.(ya?ml|groovy)$/i.test(file)) return "is no plain file name that ends in .yaml or .groovy; use letters, digits, dots and hyphens";
  return undefined;
}

/**
 * What a finding means for a document of the site's own: nothing where a plugin that is there may take it.
 * @param open whether further plugins are baked in: what they bring along is not known here
 */
function judged(finding: Finding, baked: Set<string> | undefined, open: boolean): { problem: string; severity: "error" | "warning" } | undefined {
  const { at, kind, owner, name, known } = finding;
  if ((kind !== "symbol" && kind !== "root") || name === undefined) return { problem: `has a mistake at ${spoken(finding)}`, severity: "error" };
  const plugin = pluginOf(owner, name);
  if (plugin === "core" || (plugin !== undefined && baked?.has(plugin))) return undefined;
  const where = kind === "root" ? `the root ${at}` : at;
  if (plugin !== undefined) {
    if (baked === undefined) return { problem: `holds ${where}, which the plugin ${plugin} brings: the controller's image must hold it`, severity: "warning" };
    if (open) return { problem: `holds ${where}, which the plugin ${plugin} brings: one of controller.plugins must need it, or add ${plugin}:<version> to them`, severity: "warning" };
    return { problem: `holds ${where}, which the plugin ${plugin} brings, and it is not baked in: add ${plugin}:<version> to controller.plugins, or take this away`, severity: "error" };
  }
  if (owner.startsWith("org.csanchez.")) return { problem: `has a mistake at ${spoken(finding)}`, severity: "error" };
  const among = known.length > 0 ? `; known are ${known.join(", ")}` : "";
  return { problem: `holds ${where}, which nothing recorded here knows${among}: Jenkins refuses it unless a plugin that is baked in brings it`, severity: "warning" };
}

/** Texts of a document with their places, roots that only hold anchors left out. */
function texts(value: unknown, at = ""): [at: string, text: string][] {
  if (typeof value === "string") return [[at, value]];
  if (Array.isArray(value)) return value.flatMap((item, i) => texts(item, `${at}[${i}]`));
  if (!isObject(value)) return [];
  return Object.entries(value).flatMap(([key, item]) => (at === "" && key.startsWith("x-") ? [] : texts(item, at === "" ? key : `${at}.${key}`)));
}

/** References that nothing defines. Where a Secret may hold anything, each is only worth a word. */
function referenceProblems(document: unknown, { secretNames, env = [], envFrom = [] }: CascInput): { problem: string; severity: "error" | "warning" }[] {
  const known = new Set([...(secretNames ?? []), ...env, ...givenEnvironment]);
  const open = secretNames === undefined ? "the Secret of the administrator" : envFrom.length > 0 ? `the Secrets of controller.envFrom (${envFrom.join(", ")})` : undefined;
  const own = [...(secretNames ?? []), ...env];
  return texts(document).flatMap(([at, text]) =>
    [...new Set(neededNames(text))].filter((name) => !known.has(name)).map((name) =>
      open
        ? { problem: `refers to \${${name}} at ${at}, which only ${open} can define: if not, Jenkins takes an empty text`, severity: "warning" as const }
        : {
            problem: `refers to \${${name}} at ${at}, which nothing defines: Jenkins would take an empty text. Define it with secretFiles, controller.env or controller.envFrom, or write ^\${${name}} for the literal text${own.length > 0 ? `; known are ${own.join(", ")}` : ""}`,
            severity: "error" as const,
          },
    ),
  );
}

/** What is wrong with the clouds of a document that configuration-as-code takes as they are. */
function cloudsProblems(document: Keys): string[] {
  const clouds = isObject(document.jenkins) && Array.isArray(document.jenkins.clouds) ? document.jenkins.clouds : [];
  return clouds.flatMap((cloud, i) => {
    if (!isObject(cloud) || !isObject(cloud.kubernetes)) return [];
    const at = `jenkins.clouds[${i}].kubernetes`;
    const named = cloud.kubernetes.name === "kubernetes" ? [`${at}.name: kubernetes is the platform's own cloud, and a second one of its name would take its agents; give the settings and templates to the config key cloud, or this one another name`] : [];
    return [...named, ...cloudProblems(cloud.kubernetes, at)];
  });
}

/** A value in a message: enough of it to be recognized. */
function shown(value: unknown): string {
  const text = isObject(value) || Array.isArray(value) ? JSON.stringify(value) : String(value);
  return text.length > 100 ? `${text.slice(0, 100)}...` : text;
}

/** What Jenkins would make of the site's documents beside the platform's own: each mistake with its file and key. */
export function fragmentProblems(input: CascInput): FragmentProblem[] {
  const problems: FragmentProblem[] = [];
  // A document may ask Jenkins to log unknown attributes and go on.
  const onlyWarns = said(input.fragments, "configuration-as-code", "unknown").includes("warn");
  const baked = input.plugins && bakedPlugins([...input.plugins, ...loginPlugins(input.login, input.rights)]);
  const open = bringsUnknown(input.plugins ?? []);
  const recording = baked ? recordingFor(baked) : contracts;
  const own = cascConfig({ ...input, cloud: undefined });
  const read: [string, unknown][] = [];
  const bytes = Object.values(input.fragments ?? {}).reduce((sum, text) => sum + Buffer.byteLength(text), 0);
  for (const [file, text] of Object.entries(input.fragments ?? {})) {
    const add = (problem: string, severity: FragmentProblem["severity"] = "error") => problems.push({ file, problem, severity });
    const wrong = pathProblem(file);
    if (wrong) add(wrong);
    if (bytes > mostBytes && read.length === 0) add(`and its neighbours have ${bytes} bytes, more than the ${mostBytes} that a ConfigMap can hold`);
    if (!isDocument(file)) continue;
    let document: unknown;
    try {
      document = readDocument(text);
    } catch (error) {
      add(yamlProblem(error as YAMLError, "Jenkins takes one: make a file of each"));
      continue;
    }
    if (!isObject(document)) {
      add("holds no mapping with roots such as jenkins or unclassified");
      continue;
    }
    const inJenkins = isObject(document.jenkins) ? document.jenkins : {};
    if (input.login && inJenkins.securityRealm !== undefined) add("sets jenkins.securityRealm, which the stack config's login sets as well");
    if (input.rights && inJenkins.authorizationStrategy !== undefined) add("sets jenkins.authorizationStrategy, which the stack config's rights set as well");
    if (!input.login && isForeign(inJenkins.securityRealm)) {
      if (!input.rights && said(input.fragments, "jenkins", "authorizationStrategy").length === 0)
        add("sets jenkins.securityRealm, and nothing says who may do what: everybody it knows might do anything; set rights in the stack config, or jenkins.authorizationStrategy in a document");
      if (input.rights && (input.rights.admin?.groups.length ?? 0) + (input.rights.admin?.users.length ?? 0) === 0)
        add("sets jenkins.securityRealm, which does not know the platform's administrator: name a group or a user in rights.admin of the stack config");
    }
    const check = new Check(recording);
    const checked = check.document(document as Keys);
    for (const finding of check.findings) {
      const verdict = judged(finding, baked, open);
      if (verdict) add(verdict.problem, finding.kind === "attribute" && onlyWarns ? "warning" : verdict.severity);
    }
    cloudsProblems(checked).forEach((problem) => add(`has a mistake at ${problem}`));
    referenceProblems(document, input).forEach(({ problem, severity }) => add(problem, severity));
    const theirs = conflicts(own, document).filter(({ path }) => !(path === "unclassified.location.url" && input.url === ""));
    if (theirs.length > 0)
      add(`sets what the platform sets itself: ${theirs.map((each) => `${each.path} to ${shown(each.theirs)} (the platform's is ${shown(each.ours)})`).join(", ")}. Take these keys out of it; the address follows domain and ingress, the cloud's settings go into cloud`);
    for (const [other, before] of read) for (const { path } of conflicts(before, checked)) add(`sets ${path}, which ${other} sets as well: Jenkins refuses a key that two documents set, even to the same value`);
    read.push([file, checked]);
  }
  return problems;
}
