import * as command from "@pulumi/command";
import * as kubernetes from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { ownLabels, partOf } from "../ownership";
import { makePullSecret } from "../pull-secrets";
import { proxyTexts, withoutNodes } from "../surroundings";
import { transformed } from "../transform";
import type { AgentImagesArgs } from "./args";
import { buildNamespace, checkedReference, imageEnvironment, otherLogins, script } from "./builds";
import { imageContent } from "./content";
import { argProblems } from "./problems";

// What is in this folder:
/** what the component is told, and the registry's answers */
export * from "./args";
/** what is wrong with that */
export { argProblems } from "./problems";
/** what an image is made of: the hash that decides whether it is built again, and .dockerignore */
export { dockerIgnore, type ImageContent, imageContent, imageTag } from "./content";
/** what a Dockerfile says: its arguments, the images of others in it */
export { type BaseImage, baseImages, declaredArgs } from "./dockerfile";
/** what the registries are asked before, and what scripts/images/build-image.sh is told and answers */
export { checkedReference, imageEnvironment, inspectImages, type Login, otherLogins, pathBelow, prepareImages, resolveDigest } from "./builds";

/**
 * Builds the platform's own images and pushes them. One command resource per image, so they build side by side; an image is
 * built when its content changed or the registry lost it, and at no other time. `pulumi preview --diff` shows the changed
 * file or argument in the resource's environment. A failed build leaves the former reference in the state and in use.
 */
export class AgentImages extends pulumi.ComponentResource {
  /** By image name: `host/prefix/name@sha256:...`, the digest as the registry returned it. */
  readonly references: Record<string, pulumi.Output<string>>;

  constructor(name: string, args: AgentImagesArgs, opts?: pulumi.ComponentResourceOptions) {
    super("build-platform:images:AgentImages", name, {}, opts);
    const problems = argProblems(args);
    if (problems.length > 0) throw new pulumi.InputPropertiesError({ message: "The agent images cannot be built as configured:", errors: problems });

    const { registry } = args;
    const before: pulumi.Resource[] = [];
    if (args.builder === "in-cluster") {
      const labels = { "pod-security.kubernetes.io/enforce": "privileged", ...partOf, ...ownLabels() };
      const builds = new kubernetes.core.v1.Namespace(...transformed<kubernetes.core.v1.NamespaceArgs>(args.transform?.namespace, `${name}-builds`, { metadata: { name: args.inCluster?.namespace ?? buildNamespace, labels } }, { parent: this }));
      before.push(builds);
      const namespace = builds.metadata.name;
      const pulling = makePullSecret(`${name}-builds-registry`, { namespace, labels: partOf }, args.pulls, { parent: this });
      // The account under which build jobs run.
      if (pulling.imagePullSecrets) before.push(new kubernetes.core.v1.ServiceAccountPatch(`${name}-builds-default-account`, { metadata: { name: "default", namespace }, ...pulling }, { parent: this }));
    }
    this.references = {};
    for (const [image, spec] of Object.entries(args.images)) {
      const missing = args.found?.[image] === "missing";
      const built = new command.local.Command(
        `${name}-${image}`,
        {
          create: script,
          delete: args.deleteOnDestroy ? `${script} --delete` : undefined,
          environment: {
            ...imageEnvironment(image, imageContent(spec, args.builder, args.platforms), args),
            IMAGE_STACK: pulumi.getStack(),
            // Any new value makes the command run. Only what the registry lacks gets one; see ignoreChanges below.
            IMAGE_MISSING: missing ? `not in the registry at ${new Date().toISOString()}` : "",
            ...Object.fromEntries(Object.entries(proxyTexts(withoutNodes(args.surroundings))).map(([key, text]) => [key, args.surroundings?.proxy?.login ? pulumi.secret(text) : text])),
            ...(registry.volume === undefined ? {} : { REGISTRY_VOLUME: registry.volume }),
            ...(registry.username === undefined ? {} : { REGISTRY_USERNAME: registry.username }),
            ...(registry.password === undefined ? {} : { REGISTRY_PASSWORD: pulumi.secret(registry.password) }),
            ...Object.fromEntries(Object.entries(otherLogins(registry.others)).map(([key, logins]) => [key, pulumi.secret(logins)])),
          },
          ...(args.surroundings?.caBundle !== undefined && { stdin: args.surroundings.caBundle }),
          logging: command.local.Logging.Stderr,
        },
        {
          parent: this,
          dependsOn: before,
          // What the state says of an earlier loss is no reason to build an image that is there.
          ignoreChanges: missing ? [] : ["environment.IMAGE_MISSING"],
        },
      );
      // Not secret, though the command's inputs hold the password: the script prints the reference and nothing else.
      this.references[image] = pulumi.unsecret(built.stdout).apply((stdout) => checkedReference(image, stdout));
    }
    this.registerOutputs({ references: this.references });
  }
}
