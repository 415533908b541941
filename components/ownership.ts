import { createHash } from "node:crypto";
import * as pulumi from "@pulumi/pulumi";
import { fits, labelValue } from "../config/pieces";

/**
 * Which environment an object belongs to. Several live on one cluster, and what is the cluster's and not a namespace's says
 * by a label whose it is, so that checks/neighbours.ts can tell before anything is made.
 */

/** Label that every object of the platform bears, whatever the environment. */
export const partOf = { "app.kubernetes.io/part-of": "build-platform" } as const;

/** Label with the name of the stack that made an object. */
export const ownerLabel = "build-platform/stack";

/** Label of the controller's namespace in the environment that sets the API servers' node-port range. */
export const nodePortsLabel = "build-platform/node-ports";

/** A stack's name as a label's value: itself, or a hash where the syntax of labels does not allow it. */
export function stackLabel(stack: string): string {
  return fits(labelValue, stack) ? stack : `stack-${createHash("sha256").update(stack).digest("hex").slice(0, 12)}`;
}

/** The label of this stack's own objects. */
export const ownLabels = (): Record<string, string> => ({ [ownerLabel]: stackLabel(pulumi.getStack()) });
