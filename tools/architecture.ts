import { parse } from "yaml";
import type { Rendered } from "../cli/offline";

/**
 * docs/architecture.svg, drawn from what a stack's program registers: above, the components in the order in which they are
 * made, with the objects of each; below, who talks to whom, as far as the objects say so. Pure: the same resources give the
 * same picture to the byte.
 */

const kindOf = (type: string): string => type.split(":").pop()!;
const nameOf = ({ name, props }: Rendered): string => props.metadata?.name ?? name;
const unique = <T>(values: T[]): T[] => [...new Set(values)];
const plural = (count: number, word: string): string => (count === 1 ? word : `${count} ${word.replace(/y$/, "ie")}s`);

/** Breaks a text at blanks, and a word that is too long at its last hyphen that fits. */
export function wrapped(text: string, columns: number): string[] {
  const lines: string[] = [];
  const put = (word: string): void => {
    const last = lines[lines.length - 1];
    if (last !== undefined && last.length + 1 + word.length <= columns) lines[lines.length - 1] = `${last} ${word}`;
    else if (word.length <= columns) lines.push(word);
    else {
      const at = word.lastIndexOf("-", columns - 1) + 1 || columns;
      lines.push(word.slice(0, at));
      put(word.slice(at));
    }
  };
  text.split(" ").forEach(put);
  return lines;
}

/** A component with what it makes, by place. */
export interface Part {
  name: string;
  /** Components that it waits for, without those that another of them waits for already. */
  after: string[];
  /** How many components are made before it, one after the other. */
  depth: number;
  /** Of each kind of object its names, or in a line of its own the kinds of which the number is enough. */
  places: { place: string; lines: { kind: string; names: string }[] }[];
}

/** Kinds of which the number is enough. */
const counted = ["ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "NetworkPolicy", "PodDisruptionBudget"];
/** Kinds that come first in a box, in this order; the others follow by name. */
const first = ["Command", "Deployment", "DaemonSet", "CronJob", "Service", "Ingress", "PersistentVolumeClaim", "StorageClass", "IngressClass"];

function placeOf({ type, props }: Rendered): string {
  if (type.startsWith("command:remote")) return "nodes, over SSH";
  if (type.startsWith("command:")) return "where pulumi runs";
  const namespace = kindOf(type) === "Namespace" ? props.metadata?.name : props.metadata?.namespace;
  return namespace ? `namespace ${namespace}` : "whole cluster";
}

/** The components in the order in which they are made. */
export function parts(resources: Rendered[]): Part[] {
  const owned = new Map<string, Rendered[]>();
  for (const resource of resources) if (resource.component) owned.set(resource.component.name, [...(owned.get(resource.component.name) ?? []), resource]);
  const waits = (name: string): string[] => unique(owned.get(name)!.flatMap(({ component }) => component!.after)).filter((other) => other !== name && owned.has(other));
  const before = (name: string): string[] => waits(name).flatMap((other) => [other, ...before(other)]);
  const depth = (name: string): number => Math.max(-1, ...waits(name).map(depth)) + 1;
  const rank = (kind: string) => (first.indexOf(kind) + 1 || first.length + 1);

  const describe = (name: string): Part["places"] => {
    const mine = owned.get(name)!;
    return unique(mine.map(placeOf)).sort().map((place) => {
      const here = mine.filter((resource) => placeOf(resource) === place);
      const of = (kind: string) => here.filter(({ type }) => kindOf(type) === kind);
      const kinds = unique(here.map(({ type }) => kindOf(type))).filter((kind) => kind !== "Namespace").sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1));
      // A command has no name in the cluster; its own is the component's and what it is for.
      const label = (resource: Rendered) => (kindOf(resource.type) === "Command" ? resource.name.slice(resource.component!.instance.length + 1) : nameOf(resource));
      const named = kinds.filter((kind) => !counted.includes(kind)).map((kind) => ({ kind, names: of(kind).map(label).sort().join(", ") }));
      const rest = counted.filter((kind) => kinds.includes(kind)).map((kind) => plural(of(kind).length, kind));
      return { place, lines: [...named, ...(rest.length > 0 ? [{ kind: rest.join(", "), names: "" }] : [])] };
    });
  };
  // What is awaited soonest comes first of those that can begin together.
  const reach = (name: string): number => Math.min(...[...owned.keys()].filter((other) => waits(other).includes(name)).map(depth));
  return [...owned.keys()]
    .map((name) => ({ name, depth: depth(name), after: waits(name).filter((other) => !waits(name).some((another) => before(another).includes(other))).sort(), places: describe(name) }))
    .sort((a, b) => a.depth - b.depth || (reach(a.name) === reach(b.name) ? 0 : reach(a.name) - reach(b.name)) || (a.name < b.name ? -1 : 1));
}

/** Something that runs, or that what runs depends on. */
export interface Actor {
  kind: "outside" | "workload" | "disk";
  title: string;
  lines: string[];
}

/** Who talks to whom, by the actors' keys, and with what. */
export interface Talk {
  from: string;
  to: string;
  what: string;
}

/** What the objects say of who talks to whom. An actor or a talk that no object proves is left out. */
export function conversation(resources: Rendered[]): { actors: Record<string, Actor>; talks: Talk[] } {
  const actors: Record<string, Actor> = {};
  const talks: Talk[] = [];
  const all = (kind: string) => resources.filter(({ type }) => kindOf(type) === kind);
  const workloads = [...all("Deployment"), ...all("DaemonSet"), ...all("CronJob")];
  const podOf = ({ props }: Rendered) => (props.spec.jobTemplate ?? props).spec.template;
  const selects = (service: Rendered, workload: Rendered) =>
    service.props.metadata.namespace === workload.props.metadata.namespace && Object.entries(service.props.spec.selector ?? {}).every(([key, value]) => podOf(workload).metadata?.labels?.[key] === value);
  const behind = (service: Rendered | undefined) => (service ? workloads.find((workload) => selects(service, workload)) : undefined);
  const service = (namespace: string, name: string) => all("Service").find(({ props }) => props.metadata.namespace === namespace && props.metadata.name === name);
  // The shape of a pod's volumes is Kubernetes'.
  const volumes = (workload: Rendered): { persistentVolumeClaim?: { claimName: string }; hostPath?: { path: string } }[] => podOf(workload).spec.volumes ?? [];
  const titled = (workload: Rendered) => `${kindOf(workload.type)} ${nameOf(workload)}`;
  const talk = (from: string, to: string, what: string) => void (actors[from] && actors[to] && talks.push({ from, to, what }));

  const [route] = all("Ingress");
  const backend = route?.props.spec.rules[0].http.paths[0].backend.service;
  const controller = route && behind(service(route.props.metadata.namespace, backend.name));
  if (controller) {
    actors.controller = { kind: "workload", title: titled(controller), lines: [`namespace ${controller.props.metadata.namespace}`, `${controller.props.spec.replicas} replica, ${controller.props.spec.strategy.type}`, `image ${podOf(controller).spec.containers[0].image.replace(/^.*\/|@.*$/g, "")}`, `memory ${podOf(controller).spec.containers[0].resources.limits.memory}`] };
    const claim = all("PersistentVolumeClaim").find(({ props }) => volumes(controller).some(({ persistentVolumeClaim }) => persistentVolumeClaim?.claimName === props.metadata.name));
    const storage = all("StorageClass").find((each) => nameOf(each) === claim?.props.spec.storageClassName);
    const folder = /BasePath\s+value: "?([^"\n]+)/.exec(storage?.props.metadata.annotations?.["cas.openebs.io/config"] ?? "")?.[1];
    if (claim) actors.home = { kind: "disk", title: `Claim ${nameOf(claim)}`, lines: [`${claim.props.spec.resources.requests.storage}, ${claim.protect ? "protected" : "not protected"}`, ...(storage ? [`class ${nameOf(storage)}`] : []), ...(folder ? [`${folder} on its node`] : [])] };
    talk("controller", "home", "mounts");
  }

  const entry = all("Service").find(({ props }) => props.spec.type === "NodePort");
  const ingress = behind(entry);
  if (entry && ingress) {
    const ports = entry.props.spec.ports.map(({ nodePort }: { nodePort: number }) => nodePort).join(", ");
    actors.people = { kind: "outside", title: "People", lines: [`${route?.props.spec.tls ? "https" : "http"}://`, String(route?.props.spec.rules[0].host ?? "any node"), "at any node"] };
    actors.ingress = { kind: "workload", title: titled(ingress), lines: [`namespace ${ingress.props.metadata.namespace}`, `${plural(ingress.props.spec.replicas, "replica").replace(/^replica/, "1 replica")}, node ports ${ports}`] };
    talk("people", "ingress", ports);
    const ports8080 = service(route?.props.metadata.namespace, backend?.name)?.props.spec.ports[0].port;
    if (route?.props.spec.ingressClassName === all("IngressClass").map(nameOf)[0]) talk("ingress", "controller", String(ports8080));
  }

  const casc = all("ConfigMap").flatMap(({ props }) => Object.values(props.data ?? {}) as string[]).find((text) => text.includes("jenkinsTunnel:"));
  const cloud = casc && parse(casc).jenkins.clouds[0].kubernetes;
  if (cloud) {
    const templates = (cloud.templates as { name: string }[]).map(({ name }) => name);
    actors.agents = { kind: "workload", title: "Pods of agents", lines: [`namespace ${cloud.namespace}`, `${templates.join(", ")}; ${cloud.containerCapStr} at most`, "gone when the build ends"] };
    // The right to make them is a binding of the controller's account in the agents' namespace.
    const allowed = all("RoleBinding").some(({ props }) => props.metadata.namespace === cloud.namespace && props.subjects.some((subject: { namespace: string }) => subject.namespace === controller?.props.metadata.namespace));
    if (allowed) talk("controller", "agents", "pods");
    const [, name, namespace, port] = /^([^.]+)\.([^.]+)\.svc[^:]*:(\d+)$/.exec(cloud.jenkinsTunnel) ?? [];
    if (behind(service(namespace, name)) === controller) talk("agents", "controller", port);
    const keeper = all("DaemonSet").find((each) => volumes(each).some(({ hostPath }) => hostPath && casc.includes(hostPath.path)));
    if (keeper) {
      actors.cache = { kind: "disk", title: titled(keeper), lines: [`${volumes(keeper).find(({ hostPath }) => hostPath)!.hostPath!.path}`, "on every node"] };
      talk("agents", "cache", "dependencies");
    }
  }

  const builds = all("Command").filter(({ props }) => props.environment?.IMAGE_REPOSITORY);
  if (builds.length > 0) {
    const repositories = builds.map(({ props }) => props.environment.IMAGE_REPOSITORY as string);
    actors.registry = { kind: "outside", title: "Image registry", lines: unique(repositories.map((repository) => repository.split("/")[0])).concat(builds.map(({ props }) => props.environment.IMAGE_NAME as string).sort().join(", "), "by digest only") };
    const uses = (text: string) => repositories.some((repository) => text.includes(`${repository}@sha256:`));
    if (casc && uses(casc)) talk("registry", "agents", "images");
    if (controller && uses(JSON.stringify(podOf(controller)))) talk("registry", "controller", "image");
  }

  const savers = all("CronJob");
  if (savers.length > 0) {
    const claim = (each: Rendered) => volumes(each).map(({ persistentVolumeClaim }) => persistentVolumeClaim?.claimName);
    actors.backup = { kind: "workload", title: plural(savers.length, "CronJob"), lines: savers.map(nameOf).sort().concat(`namespace ${savers[0].props.metadata.namespace}`) };
    actors.repository = { kind: "outside", title: "restic repositories", lines: ["home, and its keys apart", "encrypted"] };
    if (actors.home && savers.some((each) => claim(each).includes(actors.home.title.split(" ")[1]))) talk("home", "backup", "read");
    talk("backup", "repository", "snapshots");
  }
  return { actors, talks };
}

/** Sizes in pixels. A letter is taken to be as wide as in the widest of the fonts that a reader may have. */
const page = { width: 1000, margin: 20, line: 17, pad: 12, letters: 7.1, bold: 8.4 };
/** Fill and edge of each kind of box: dark text on all of them has a contrast of 7:1 at least. */
const colours = { component: ["#ddf4ff", "#0969da"], workload: ["#dafbe1", "#1a7f37"], disk: ["#fff8c5", "#9a6700"], outside: ["#f6f8fa", "#6e7781"] } as const;

const escaped = (text: string): string => text.replace(/[&<>"]/g, (char) => `&#${char.charCodeAt(0)};`);
const write = (x: number, y: number, text: string, style = ""): string => `<text x="${x}" y="${y}"${style}>${escaped(text)}</text>`;

/** A line of a component's box. The kind of object that it begins with is shown paler than the names. */
interface Line {
  text: string;
  class: string;
  indent: number;
  kind?: string;
}

interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
}

function frame({ x, y, width, height }: Box, [fill, edge]: readonly [string, string]): string {
  return `<rect x="${x}" y="${y}" width="${width}" height="${height}" rx="8" fill="${fill}" stroke="${edge}" stroke-width="1.5"/>`;
}

/** A line of straight pieces with a head at its end. */
function arrow(...points: [number, number][]): string {
  return `<path d="M${points.map(([x, y]) => `${x} ${y}`).join(" L")}" class="a"/>`;
}

/** The components, each in the column of its depth, with an arrow to each that waits for it. */
function componentsPart(list: Part[], top: number): { svg: string[]; bottom: number } {
  const columns = Math.max(...list.map(({ depth }) => depth)) + 1;
  const gap = 34;
  const boxWidth = Math.floor((page.width - 2 * page.margin - (columns - 1) * gap) / columns);
  const letters = Math.floor((boxWidth - 2 * page.pad) / page.letters);
  const boxes = new Map<string, Box>();
  const texts = new Map<string, Line[]>();
  for (let depth = 0; depth < columns; depth++) {
    let y = top;
    for (const part of list.filter((each) => each.depth === depth)) {
      const lines: Line[] = part.places.flatMap(({ place, lines: what }) => [
        { text: place, class: "p", indent: 0 },
        ...what.flatMap(({ kind, names }) =>
          wrapped(`${kind} ${names}`.trim(), letters - 1).map((text, i) => ({ text, class: "s", indent: i === 0 ? 0 : 9, kind: names === "" ? text : i === 0 ? kind : "" }))),
      ]);
      texts.set(part.name, lines);
      boxes.set(part.name, { x: page.margin + depth * (boxWidth + gap), y, width: boxWidth, height: 40 + lines.length * page.line });
      y += 40 + lines.length * page.line + 18;
    }
  }
  // An arrow to a column that is not the next passes below the boxes of those between.
  for (const part of list) {
    const far = list.filter(({ after, depth }) => after.includes(part.name) && depth > part.depth + 1);
    const between = list.filter(({ depth }) => far.some((other) => depth > part.depth && depth < other.depth));
    const box = boxes.get(part.name)!;
    box.y = Math.max(box.y, ...between.map(({ name }) => boxes.get(name)!.y + boxes.get(name)!.height + 18 - 20));
  }
  const svg = list.flatMap(({ name }, i) => {
    const box = boxes.get(name)!;
    return [
      frame(box, colours.component),
      `<circle cx="${box.x + 20}" cy="${box.y + 20}" r="10" fill="${colours.component[1]}"/>`,
      write(box.x + 20, box.y + 24, String(i + 1), ' text-anchor="middle" font-size="12" font-weight="600" fill="#ffffff"'),
      write(box.x + 37, box.y + 25, name, ' font-weight="600" font-size="15"'),
      ...texts.get(name)!.map(({ text, kind = "", indent, ...line }, at) =>
        `<text x="${box.x + page.pad + indent}" y="${box.y + 47 + at * page.line}" class="${line.class}">${kind ? `<tspan class="k">${escaped(kind)}</tspan>` : ""}${escaped(text.slice(kind.length))}</text>`),
    ];
  });
  for (const { name, after } of list) {
    const to = boxes.get(name)!;
    for (const other of after) {
      const from = boxes.get(other)!;
      const [x, y] = [from.x + from.width, from.y + 20];
      const end = Math.min(Math.max(y, to.y + 20), to.y + to.height - 14);
      const bend = to.x - gap / 2;
      svg.push(end === y ? arrow([x, y], [to.x, y]) : arrow([x, y], [bend, y], [bend, end], [to.x, end]));
    }
  }
  return { svg, bottom: Math.max(...[...boxes.values()].map(({ y, height }) => y + height)) };
}

/** Column and row of each actor. The controller is as high as what stands beside it. */
const seats: Record<string, { column: number; row: number; rows?: number }> = {
  people: { column: 0, row: 0 }, ingress: { column: 1, row: 0 }, controller: { column: 2, row: 0, rows: 2 }, home: { column: 3, row: 0 },
  registry: { column: 0, row: 1 }, agents: { column: 1, row: 1 }, backup: { column: 3, row: 1 },
  cache: { column: 1, row: 2 }, repository: { column: 3, row: 2 },
};

function conversationPart({ actors, talks }: ReturnType<typeof conversation>, top: number): { svg: string[]; bottom: number } {
  const gap = 78;
  const boxWidth = Math.floor((page.width - 2 * page.margin - 3 * gap) / 4);
  const letters = Math.floor((boxWidth - 2 * page.pad) / page.letters);
  const texts = Object.fromEntries(Object.entries(actors).map(([key, { lines }]) => [key, lines.flatMap((text) => wrapped(text, letters))]));
  const titles = Object.fromEntries(Object.entries(actors).map(([key, { title }]) => [key, wrapped(title, Math.floor((boxWidth - 2 * page.pad) / page.bold))]));
  const need = (key: string) => 14 + (titles[key].length + texts[key].length) * page.line;
  const unplaced = Object.keys(actors).filter((key) => !(key in seats));
  if (unplaced.length > 0) throw new Error(`no place in the picture for ${unplaced.join(", ")}: give it one in tools/architecture.ts, seats`);
  const rowHeight = [0, 1, 2].map((row) => Math.max(0, ...Object.keys(actors).filter((key) => seats[key].row === row && !seats[key].rows).map(need)));
  const space = 34;
  const rowTop = rowHeight.map((_, row) => top + rowHeight.slice(0, row).reduce((sum, height) => sum + height + space, 0));
  const boxOf = (key: string): Box => {
    const { column, row, rows = 1 } = seats[key];
    return { x: page.margin + column * (boxWidth + gap), y: rowTop[row], width: boxWidth, height: rowHeight.slice(row, row + rows).reduce((sum, height) => sum + height, (rows - 1) * space) };
  };
  const svg = Object.entries(actors).flatMap(([key, { kind }]) => {
    const box = boxOf(key);
    return [
      frame(box, colours[kind]),
      ...titles[key].map((text, line) => write(box.x + page.pad, box.y + 21 + line * page.line, text, ' font-weight="600"')),
      ...texts[key].map((text, line) => write(box.x + page.pad, box.y + 21 + (titles[key].length + line) * page.line, text, ' class="s"')),
    ];
  });
  for (const { from, to, what } of talks) {
    const [a, b] = [boxOf(from), boxOf(to)];
    const [start, end] = [seats[from], seats[to]];
    const label = (x: number, y: number, anchor = "middle") => svg.push(write(x, y, what, ` class="t" text-anchor="${anchor}"`));
    if (start.column === end.column) {
      const x = a.x + a.width / 2;
      svg.push(arrow([x, a.y + a.height], [x, b.y]));
      label(x + 8, (a.y + a.height + b.y) / 2 + 4, "start");
    } else if (Math.abs(start.column - end.column) > 1) {
      // Between the rows, past the box in the middle.
      const [x, y] = [a.x + a.width / 2, a.y - space / 2];
      svg.push(arrow([x, a.y], [x, y], [b.x, y]));
      label(b.x - gap / 2, y - 6);
    } else {
      const back = talks.some((other) => other.from === to && other.to === from);
      const low = Math.max(start.row, end.row);
      const right = start.column < end.column;
      const y = rowTop[low] + rowHeight[low] / 2 + (back ? (right ? 16 : -16) : 0);
      svg.push(right ? arrow([a.x + a.width, y], [b.x, y]) : arrow([a.x, y], [b.x + b.width, y]));
      label((right ? a.x + a.width : b.x + b.width) + gap / 2, y - 6);
    }
  }
  const used = Math.max(...Object.keys(actors).map((key) => boxOf(key).y + boxOf(key).height));
  return { svg, bottom: used };
}

/** The picture as SVG. It brings its own white ground, for pages light and dark. */
export function architecture(resources: Rendered[]): string {
  const heading = (y: number, title: string, more: string) => `<text x="${page.margin}" y="${y}" font-size="17" font-weight="600">${title}<tspan dx="10" class="s">${more}</tspan></text>`;
  const above = componentsPart(parts(resources), 52);
  const below = conversationPart(conversation(resources), above.bottom + 70);
  const height = below.bottom + page.margin;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${page.width} ${height}" width="${page.width}" height="${height}" font-family="-apple-system, 'Segoe UI', 'Noto Sans', 'Liberation Sans', Helvetica, Arial, sans-serif" font-size="13.5" fill="#1f2328" role="img" aria-labelledby="title">`,
    `<title id="title">Components of the stack, what each makes, and who talks to whom</title>`,
    `<!-- Made by npm run docs from the resources of the program; see tools/architecture.ts. -->`,
    `<style>.s { font-size: 12.5px; font-weight: 400 } .p { font-size: 12.5px; font-weight: 600; fill: #0a4a9c } .k { fill: #4a5560 } .t { font-size: 12px; fill: #424a53 } .a { stroke: #57606a; stroke-width: 1.5; fill: none; marker-end: url(#h) }</style>`,
    `<defs><marker id="h" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#57606a"/></marker></defs>`,
    `<rect width="${page.width}" height="${height}" rx="6" fill="#ffffff"/>`,
    heading(34, "What pulumi up makes", "in this order, from left to right"),
    ...above.svg,
    heading(above.bottom + 52, "Who talks to whom", "as the objects say"),
    ...below.svg,
    "</svg>\n",
  ].join("\n");
}
