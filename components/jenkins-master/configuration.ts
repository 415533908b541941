import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { agentCap } from "../../config/pieces";
import { patchedObject } from "../patches";
import { pullSecretNames } from "../pull-secrets";
import { proxyFiles } from "../surroundings";
import { Registration, transformed } from "../transform";
import { jenkinsUrl, resourceUrl } from "./address";
import type { AccessArgs, ConfigurationArgs, JenkinsMasterArgs } from "./args";
import { cascFile, CascInput, renderCasc } from "./casc";
import { secretKeys } from "./login";
import { labels, namespacesOf, Place } from "./place";
import { cascKey } from "./reload";
import { type Removed, removed, setBackFile } from "./removed";

/** One key of a Secret, readable for JCasC under the name `<secret>-<key>`. */
export interface SecretFile {
  secret: string;
  key: string;
}

/** Name under which JCasC documents refer to a key of a Secret: that of its file. */
export const secretFileName = ({ secret, key }: SecretFile): string => `${secret}-${key}`;

/** Names of such files that the platform itself has. */
export const ownSecretNames = ["admin-user", "admin-password", ...Object.values(secretKeys), ...Object.values(proxyFiles)];

/** What JCasC documents may refer to; undefined where a Secret of the site's own may hold anything. */
export const secretNames = (args: Pick<AccessArgs, "adminExistingSecret"> & Pick<ConfigurationArgs, "secretFiles">): string[] | undefined =>
  args.adminExistingSecret ? undefined : [...ownSecretNames, ...(args.secretFiles ?? []).map(secretFileName)];

/** What the JCasC document is rendered from, once the agents' images are known. */
export function cascInput(args: JenkinsMasterArgs, images: string[]): CascInput {
  const { address, agents, access, controller, configuration = {} } = args;
  const namespaces = namespacesOf(args);
  return {
    url: jenkinsUrl(address),
    resourceUrl: resourceUrl(address),
    namespace: namespaces.controller,
    agentsNamespace: namespaces.agents,
    containerCap: agents.cap ?? agentCap.usual,
    templates: agents.templates.map((template, i) => ({ ...template, image: images[i] })),
    settings: { ...agents.settings, ...(args.surroundings && { surroundings: args.surroundings }) },
    pullSecrets: pullSecretNames(access.pulls),
    ...(configuration.updateSite && { updateSite: configuration.updateSite }),
    ...(agents.cloud && { cloud: agents.cloud }),
    ...(configuration.fragments && { fragments: configuration.fragments }),
    secretNames: secretNames({ ...access, ...configuration }),
    env: Object.keys(controller.env ?? {}),
    envFrom: controller.envFrom ?? [],
    ...(access.login && { login: access.login }),
    ...(access.rights && { rights: access.rights }),
  };
}

/** Name of the ConfigMap with all documents. */
export const configMapName = "jenkins-casc";

/** What the ConfigMap with all documents, the platform's and the site's own, is made from. */
export function configurationObject({ name, parent, here }: Place, args: JenkinsMasterArgs): Registration<k8s.core.v1.ConfigMapArgs> {
  const casc = pulumi.all(args.agents.templates.map((template) => pulumi.output(template.image))).apply((images) => renderCasc(cascInput(args, images)));
  const fragments = Object.fromEntries(Object.entries(args.configuration?.fragments ?? {}).map(([file, text]) => [cascKey(file), text]));
  const live = args.configuration?.live;
  // Which keys there are does not hang on the images, which a preview does not know.
  const own = renderCasc(cascInput(args, args.agents.templates.map(() => "image")));
  // What patches and transforms bring stays in the cluster's as well.
  const [, candidate] = transformed<k8s.core.v1.ConfigMapArgs>(args.transform?.configMap, `${name}-casc`, { metadata: { name: configMapName }, data: { ...fragments, [cascFile]: own } }, parent);
  const next = patchedObject(args.patches ?? [], "ConfigMap", candidate).data as Record<string, string>;
  const { document, warning }: Removed = live ? removed(live, next) : {};
  if (warning) void pulumi.log.warn(warning, parent.parent);
  const content = { metadata: { name: configMapName, namespace: here, labels }, data: { ...(document && { [setBackFile]: document }), ...fragments, [cascFile]: casc } };
  return transformed<k8s.core.v1.ConfigMapArgs>(args.transform?.configMap, `${name}-casc`, content, parent);
}
