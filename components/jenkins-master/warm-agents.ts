import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import type * as k8s from "@pulumi/kubernetes";
import type { Registration } from "../transform";
import type { AgentTemplate } from "./agents";
import { labels, type Place } from "./place";

type Wanted = Pick<AgentTemplate, "minIdle" | "minIdleTimes">;

const configMapName = "jenkins-warm-agents";
const file = "build-platform-warm-agents.groovy";
/** What Jenkins runs at its start, with the line ends of Unix. */
const script = (): string => fs.readFileSync(path.resolve(__dirname, "../../scripts/jenkins/warm-agents.groovy"), "utf8").replace(/\r\n/g, "\n");

/** Whether any template asks for agents that wait. */
export const keepsWarm = (templates: Wanted[]): boolean => templates.some(({ minIdle = 0 }) => minIdle > 0);

/** What the script reads of a template: it stands in the template itself, so that it changes with it and without a restart. */
export const warmAnnotations = ({ minIdle = 0, minIdleTimes }: Wanted): { key: string; value: string }[] =>
  minIdle > 0 ? [{ key: "build-platform/min-idle", value: String(minIdle) }, ...(minIdleTimes ? [{ key: "build-platform/min-idle-times", value: minIdleTimes }] : [])] : [];

/** The ConfigMap with the script; none where nothing asks for it. */
export const warmAgentsObjects = ({ name, parent, here }: Place, templates: Wanted[]): Registration<k8s.core.v1.ConfigMapArgs>[] =>
  keepsWarm(templates) ? [[`${name}-warm-agents`, { metadata: { name: configMapName, namespace: here, labels }, data: { [file]: script() } }, parent]] : [];

/**
 * What the controller's pod has of it. The image's own way of hooks into the home (its folder ref, where .override replaces what is
 * there) takes the script along into rehearsals and checks of backups as well: these are quiet, and then it does nothing.
 */
export function warmAgentsInPod(templates: Wanted[]): { annotations: Record<string, string>; volumes: k8s.types.input.core.v1.Volume[]; mounts: k8s.types.input.core.v1.VolumeMount[] } {
  if (!keepsWarm(templates)) return { annotations: {}, volumes: [], mounts: [] };
  return {
    // Jenkins reads it once: another script is another pod.
    annotations: { "build-platform/warm-agents": createHash("sha256").update(script()).digest("hex").slice(0, 12) },
    volumes: [{ name: "warm-agents", configMap: { name: configMapName } }],
    mounts: [{ name: "warm-agents", mountPath: `/usr/share/jenkins/ref/init.groovy.d/${file}.override`, subPath: file, readOnly: true }],
  };
}
