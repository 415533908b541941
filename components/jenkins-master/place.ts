import * as pulumi from "@pulumi/pulumi";
import { usual } from "../../config/pieces";
import { partOf } from "../ownership";
import type { Registration } from "../transform";
import type { JenkinsMasterArgs } from "./args";

/** Where the objects go: the component that they belong to, and its namespaces. */
export interface Place {
  /** Name of the component: each object's own begins with it. */
  name: string;
  /** Resource options of each object. */
  parent: { parent: pulumi.Resource; dependsOn?: pulumi.Resource[] };
  /** Namespaces of the controller and of the agents. */
  here: pulumi.Output<string>;
  there: pulumi.Output<string>;
}

/** Labels of every object, and those by which the controller's pod is found. */
export const labels = { "app.kubernetes.io/name": "jenkins", ...partOf };
export const controllerLabels = { ...labels, "app.kubernetes.io/component": "controller" };

/** What every agent's pod has, whoever describes it. */
export const agentLabels = { jenkins: "agent" };

/** The same resource made after others. */
export function after<T>([name, args, opts]: Registration<T>, others: pulumi.Resource[]): Registration<T> {
  return [name, args, { ...opts, dependsOn: [[opts.dependsOn ?? []].flat() as pulumi.Input<pulumi.Resource>[], others].flat() }];
}

/** Names of both namespaces. */
export function namespacesOf(args: Pick<JenkinsMasterArgs, "namespace" | "agentsNamespace">): { controller: string; agents: string } {
  const controller = args.namespace ?? usual.namespace;
  return { controller, agents: args.agentsNamespace ?? `${controller}-agents` };
}

/** Names of the PriorityClasses that the component makes where its pods ask for them; they are the cluster's, so that each environment has its own. */
export function ownPriorities(namespaces: { controller: string; agents: string }): { controller: string; agents: string } {
  // The API server keeps names that begin with system- for classes of its own.
  const free = (name: string) => (name.startsWith("system-") ? `build-platform-${name}` : name);
  return { controller: free(`${namespaces.controller}-controller`), agents: free(namespaces.agents) };
}
