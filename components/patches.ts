import * as pulumi from "@pulumi/pulumi";
import { isObject } from "../config/pieces";

/**
 * Changes of single objects that no argument has: host aliases, an annotation, a further container. They are made before
 * anything is sent, so that preview, the policy pack and `npm run render` show the result like any other change.
 */

/** A JSON merge patch (RFC 7386) of objects, by their kind and, if given, their name and namespace. */
export interface Patch {
  target: { kind: string; name?: string; namespace?: string };
  /** null removes a key. Entries of lists that Kubernetes joins by a key are merged one by one; `$patch: delete` in one removes it. */
  patch: Record<string, unknown>;
}

/** Lists whose entries Kubernetes tells apart by a key, by the field that holds them. Any other list is replaced as a whole. */
const listKeys: Record<string, string[]> = {
  containers: ["name"], initContainers: ["name"], env: ["name"], volumes: ["name"], imagePullSecrets: ["name"], volumeMounts: ["mountPath"], volumeDevices: ["devicePath"],
  ports: ["containerPort", "port"], hostAliases: ["ip"], topologySpreadConstraints: ["topologyKey"],
};

export const isLater = (value: unknown): boolean => pulumi.Output.isInstance(value) || value instanceof Promise;

/** What a patch adds by itself: without the nulls and marks that only take away. */
function added(patch: unknown, field: string): unknown {
  return Array.isArray(patch) ? patch.filter((item) => !(isObject(item) && item.$patch === "delete")) : isObject(patch) ? patched({}, patch, field) : patch;
}

function patchedList(list: unknown[], patch: unknown[], field: string): unknown {
  const key = listKeys[field]?.find((each) => patch.every((item) => isObject(item) && each in item));
  if (key === undefined) return added(patch, field);
  // What is only known later cannot be told apart by its key now.
  if (list.some((item) => isLater(item))) return pulumi.output(list as object).apply((known) => patchedList(known as unknown[], patch, field));
  const changes = patch as Record<string, unknown>[];
  const of = (item: unknown) => changes.filter((change) => isObject(item) && item[key] === change[key]);
  const kept = list.flatMap((item) => (of(item).some(({ $patch }) => $patch === "delete") ? [] : [of(item).reduce<unknown>((before, change) => patched(before, change, field), item)]));
  return [...kept, ...(added(changes.filter((change) => !list.some((item) => of(item).includes(change))), field) as unknown[])];
}

/**
 * A value with a patch merged over it. Pure; what is known only later is patched then.
 * @param field name of the field that holds the value
 */
export function patched(value: unknown, patch: unknown, field = ""): unknown {
  if (isLater(value)) return pulumi.output(value as object).apply((known) => patched(known, patch, field));
  if (Array.isArray(patch)) return Array.isArray(value) ? patchedList(value, patch, field) : added(patch, field);
  if (!isObject(patch)) return patch;
  const result: Record<string, unknown> = isObject(value) ? { ...value } : {};
  for (const [key, change] of Object.entries(patch)) {
    if (key === "$patch") continue;
    if (change === null) delete result[key];
    else result[key] = patched(result[key], change, key);
  }
  return result;
}

/** Whether a patch is for an object; known later where the object's namespace is. */
function isFor({ kind, name, namespace }: Patch["target"], ofKind: string, metadata: { name?: pulumi.Input<string>; namespace?: pulumi.Input<string> } = {}): boolean | pulumi.Output<boolean> {
  if (kind !== ofKind || (name !== undefined && name !== metadata.name)) return false;
  if (namespace === undefined) return true;
  const fits = (found: string | undefined) => found === undefined || found === namespace;
  return isLater(metadata.namespace) ? pulumi.output(metadata.namespace).apply(fits) : fits(metadata.namespace as string | undefined);
}

/** Whether two values are one to Kubernetes, which takes an empty list for none. What is known only later is taken for another. */
export function same(one: unknown, other: unknown): boolean {
  if (one === other) return true;
  if (isLater(one) || isLater(other)) return false;
  const [list, otherList] = [one ?? [], other ?? []];
  if (Array.isArray(list) && Array.isArray(otherList)) return list.length === otherList.length && list.every((item, i) => same(item, otherList[i]));
  return isObject(one) && isObject(other) && Object.keys({ ...one, ...other }).every((key) => same(one[key], other[key]));
}

/** Whether a patch changes anything of a value; taken for granted where that is known only later. */
export const changes = (value: unknown, patch: unknown): boolean => !same(value, patched(value, patch));

/** An object's arguments with the patches for it. Pure; without any for it the same arguments. */
export function patchedObject<T extends object>(patches: Patch[], kind: string, args: T): T {
  const metadata = (args as { metadata?: Record<string, string> }).metadata;
  return patches.reduce<T>((before, { target, patch }) => {
    const hit = isFor(target, kind, metadata);
    if (hit === false) return before;
    const after = patched(before, patch) as T;
    if (hit === true) return after;
    return { ...before, ...Object.fromEntries(Object.keys(patch).map((field) => [field, hit.apply((is) => (is ? after : before)[field as keyof T])])) };
  }, args);
}

/** The value of an input, or undefined while a preview does not know it. */
async function known<T>(input: pulumi.Input<T>): Promise<T | undefined> {
  // The SDK declares both for itself alone; without the first, a value that is not known would be waited for for ever.
  const output = pulumi.output(input) as unknown as { isKnown: Promise<boolean>; promise(): Promise<T | undefined> };
  return (await output.isKnown) ? output.promise() : undefined;
}

/** A patch, by its place in the list, that changes nothing, with the objects of its kind that there are and those that it leaves as they are. */
export interface Missed {
  index: number;
  seen: string[];
  left: string[];
}

/**
 * Makes all objects that are registered from now on come with the patches for them. Patches of kind Pod are the agents', which
 * are no objects of the stack.
 *
 * Done in this process, and not by the engine's own transforms: those are not asked where a stack is rendered without an engine.
 * @param refuse what ends the program where patches change nothing
 * @returns to be called when all objects are registered. Until then none reaches the engine, so that nothing is made where it
 * refuses; which of two namespaces a patch misses is known only when they are made.
 */
export function applyPatches(patches: Patch[], refuse: (missed: Missed[]) => Error): () => Promise<void> {
  /** Every object of a patched kind as it is without patches, and which patches are for it. */
  const seen: { kind: string; name: string; props: unknown; hits: ReturnType<typeof isFor>[] }[] = [];
  const objects = patches.map((each, index) => ({ ...each, index })).filter(({ target }) => target.kind !== "Pod");
  if (objects.length === 0) return async () => {};

  /** Throws for patches that change nothing; whatever hangs on a hit that is not known counts as changed. */
  const judge = (hits: (boolean | undefined)[][]): void => {
    const told = objects.map(({ index, target }) => ({ index, seen: seen.filter(({ kind }) => kind === target.kind).map(({ name }) => name), left: [] as string[], changed: false }));
    seen.forEach(({ name, props }, which) => {
      let [before, sure] = [props, true];
      objects.forEach(({ patch }, i) => {
        const hit = hits[which][i];
        if (hit === false) return;
        sure &&= hit === true;
        if (!sure || changes(before, patch)) told[i].changed = true;
        else told[i].left.push(name);
        before = patched(before, patch);
      });
    });
    const missed = told.filter(({ changed }) => !changed).map(({ changed: _, ...each }) => each);
    if (missed.length > 0) throw refuse(missed);
  };

  let go = () => {};
  const judged = new Promise<void>((resolve) => (go = resolve));
  pulumi.runtime.registerStackTransformation(({ type, props, opts }) => {
    const waiting = { ...opts, dependsOn: judged.then(() => opts.dependsOn ?? []) as Promise<pulumi.Resource[]> };
    const kind = type.split(":").pop()!;
    if (!type.startsWith("kubernetes:") || !objects.some(({ target }) => target.kind === kind)) return { props, opts: waiting };
    const name = (props.metadata as { name?: unknown } | undefined)?.name;
    seen.push({ kind, name: typeof name === "string" ? name : "", props, hits: objects.map(({ target }) => isFor(target, kind, props.metadata)) });
    return { props: patchedObject(objects, kind, props), opts: waiting };
  });

  return async () => {
    judge(seen.map(({ hits }) => hits.map((hit) => (typeof hit === "boolean" ? hit : undefined))));
    go();
    judge(await Promise.all(seen.map(({ hits }) => Promise.all(hits.map((hit) => known(hit))))));
  };
}
