import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import type * as k8s from "@pulumi/kubernetes";
import type { Registration } from "../transform";
import type { AgentTemplate } from "./agents";
import { labels, type Place } from "./place";

const configMapName = "jenkins-init-hook";
const file = "build-platform-agents.groovy";
/** What Jenkins runs at its start, with the line ends of Unix. */
const script = (): string => fs.readFileSync(path.resolve(__dirname, "../../scripts/jenkins/agents.groovy"), "utf8").replace(/\r\n/g, "\n");

/** What the script reads of a template: it stands in the template itself, so that it changes with it and without a restart. */
export const warmAnnotations = ({ minIdle = 0, minIdleTimes }: Pick<AgentTemplate, "minIdle" | "minIdleTimes">): { key: string; value: string }[] =>
  minIdle > 0 ? [{ key: "build-platform/min-idle", value: String(minIdle) }, ...(minIdleTimes ? [{ key: "build-platform/min-idle-times", value: minIdleTimes }] : [])] : [];

/** The ConfigMap with the script. */
export const initHookObject = ({ name, parent, here }: Place): Registration<k8s.core.v1.ConfigMapArgs> => [`${name}-init-hook`, { metadata: { name: configMapName, namespace: here, labels }, data: { [file]: script() } }, parent];

/** Jenkins reads the script once: another script is another pod. */
export const initHookAnnotations = (): Record<string, string> => ({ "build-platform/init-hook": createHash("sha256").update(script()).digest("hex").slice(0, 12) });

/**
 * What the controller's pod has of it. The image's own way of hooks into the home (its folder ref, where .override replaces what is
 * there) takes the script along into rehearsals and checks of backups as well: these are quiet, and then it does nothing.
 */
export const initHookVolume: k8s.types.input.core.v1.Volume = { name: "init-hook", configMap: { name: configMapName } };
export const initHookMount: k8s.types.input.core.v1.VolumeMount = { name: "init-hook", mountPath: `/usr/share/jenkins/ref/init.groovy.d/${file}.override`, subPath: file, readOnly: true };
