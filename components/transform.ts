import type * as pulumi from "@pulumi/pulumi";
import { isObject } from "../config/pieces";
import { isLater } from "./patches";

/** Last changes to a component's main objects, for programs that use it and need a field that it has no argument for: its argument `transform`. */

/** A last change to an object's arguments before it is made. */
export type Transform<T> = (args: T, opts: pulumi.CustomResourceOptions) => void;

/** What a resource's constructor takes. */
export type Registration<T> = [name: string, args: T, opts: pulumi.CustomResourceOptions];

/** A copy that shares no labels and the like with other objects, nor with what selects them. */
function copied(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(copied);
  return isObject(value) && !isLater(value) ? Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, copied(inner)])) : value;
}

/** The arguments of a resource with the change made to them. */
export function transformed<T>(transform: Transform<T> | undefined, name: string, args: T, opts: pulumi.CustomResourceOptions): Registration<T> {
  if (!transform) return [name, args, opts];
  const own: Registration<T> = [name, copied(args) as T, { ...opts }];
  transform(own[1], own[2]);
  return own;
}
