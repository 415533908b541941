import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { patchedObject } from "../patches";
import type { Registration } from "../transform";
import { makeAccounts } from "./accounts";
import { jenkinsUrl, makeIngress, makeServices } from "./address";
import { JenkinsMasterArgs, jenkinsMasterProblems } from "./args";
import { makeBuildCache } from "./build-cache";
import { cacheKeeperObject } from "./cache-keeper";
import { configurationObject } from "./configuration";
import { controllerObject, controllerPod, makeHome, withoutFirst } from "./controller";
import { makeDisruptionBudgets, makeNetworkPolicies, makePriorities } from "./fences";
import { makeAgentGit } from "./git-cache";
import { initHookObject } from "./init-hook";
import { makeAgentMirrors } from "./mirrors";
import { makeMonitoring } from "./monitoring";
import { makeNamespaces } from "./namespaces";
import { networkObjects } from "./network";
import { after } from "./place";
import { makePodPolicy } from "./pod-policy";
import { prepullObjects } from "./prepull";
import { makeRehearsal } from "./rehearsal";
import { imageChange, imageOf, makeSaveFirst, marked } from "./save-first";
import { secretContents, secretObjects } from "./secrets";

export { controllerRules } from "./accounts";
export { agentServiceName, hostsOf, ingressAnnotations, jenkinsUrl, portOf, prefixOf, resourceUrl, sentOn, tlsEndsBefore } from "./address";
export { AgentTemplate, AgentVolume, CachedTool, ownMounts, Toleration } from "./agents";
export * from "./args";
export { ownSecretNames, SecretFile, secretFileName, secretNames } from "./configuration";
export { afterFirst, javaOptions, ownVariables } from "./controller";
export { DockerMode } from "./docker";
export { LdapLogin, Login, loginPlugins, Members, OidcLogin, Rights, Role, roles } from "./login";
export { ownPriorities } from "./place";
export { cascKey } from "./reload";
export { adminSecretName } from "./secrets";

/**
 * Jenkins: the controller with its data, configuration, address and rights, and the namespace in which its agents run.
 *
 * Names others may rely on: namespaces `jenkins` and `jenkins-agents`, or as given; in the first Deployment, Service, Ingress
 * and ServiceAccount `jenkins`, Service `jenkins-agent`, PersistentVolumeClaim `jenkins-home`, Secret `jenkins-admin`,
 * ConfigMap `jenkins-casc`, with a login that has secrets Secret `jenkins-login`; in the second ServiceAccount `jenkins-agent`;
 * of the cluster PriorityClasses `jenkins-controller` and `jenkins-agents`, where the pods ask for them.
 *
 * @throws InputPropertiesError listing every bad argument, before any resource is made
 */
export class JenkinsMaster extends pulumi.ComponentResource {
  /** Address people use. */
  readonly url: pulumi.Output<string>;
  readonly adminUser: pulumi.Output<string>;
  /** Shell command that prints the administrator's password. */
  readonly passwordCommand: pulumi.Output<string>;
  /** Namespaces of the controller and the agents. */
  readonly namespace: pulumi.Output<string>;
  readonly agentsNamespace: pulumi.Output<string>;
  /** Claim that holds jenkins_home. */
  readonly homeClaim: pulumi.Output<string>;
  /** The controller's pod; a backup is proven by booting a restored copy from the same one. */
  readonly controllerPod: pulumi.Output<k8s.types.output.core.v1.PodSpec>;

  constructor(name: string, args: JenkinsMasterArgs, opts?: pulumi.ComponentResourceOptions) {
    super("build-platform:jenkins:JenkinsMaster", name, {}, opts);
    const problems = jenkinsMasterProblems(args);
    if (problems.length > 0) throw new pulumi.InputPropertiesError({ message: `JenkinsMaster "${name}" cannot be made`, errors: problems });

    const place = makeNamespaces(this, name, args);
    const { account, binding } = makeAccounts(place, args.access.pulls);
    const priorities = makePriorities(place, args);
    const claim = makeHome(place, args.home);
    const services = makeServices(place, args.controller);
    const secrets = secretContents(place, args.access);
    const documents = configurationObject(place, args);
    const pod = controllerPod(args, { account, secrets, claim });
    const controller = controllerObject(place, args, pod);
    // Whatever a running controller would notice comes after what has been tried.
    const patched = <T extends object>(kind: string, object: T) => patchedObject(args.patches ?? [], kind, object);
    // What runs before each start fills a home: neither an empty one nor a restored copy has it.
    this.controllerPod = withoutFirst(patched("Deployment", controller[1]), pod, args.controller.beforeStart);
    const network = networkObjects(place, args.surroundings, args.agents.settings.mirrors?.maven);
    const ownSecrets = [...secretObjects(place, secrets), ...network.controller.secrets];
    const ownConfigMaps = [documents, ...network.controller.configMaps, initHookObject(place)];
    const tried = <T extends object>(kind: string, objects: Registration<T>[]) => objects.map(([, object]) => patched(kind, object));
    const rehearsed = args.rehearsal ? [makeRehearsal(place, args.rehearsal, { pod: this.controllerPod, configMaps: tried("ConfigMap", ownConfigMaps), secrets: tried("Secret", ownSecrets) })] : [];
    const image = imageOf(this.controllerPod);
    const { running, saveFirst } = args;
    const change = running ? image.apply((to) => imageChange(to, running)) : pulumi.output(undefined);
    const before = saveFirst ? [...rehearsed, makeSaveFirst(place, saveFirst, image, change, rehearsed)] : rehearsed;
    const content = [
      ...[...ownSecrets, ...network.agents.secrets].map((secret) => new k8s.core.v1.Secret(...after(secret, before))),
      ...[...ownConfigMaps, ...network.agents.configMaps].map((configMap) => new k8s.core.v1.ConfigMap(...after(configMap, before))),
    ];
    // Agents need the role; a controller that starts without it logs errors until it has it. A pod of a class that is not there is refused.
    new k8s.apps.v1.Deployment(...after(running ? marked(controller, change) : controller, [binding, ...priorities, ...content, ...before]));
    makeDisruptionBudgets(place);
    makeIngress(place, args, services.http);
    makeMonitoring(place, args);
    makeNetworkPolicies(place, args);
    makeAgentMirrors(place, args.agents.settings.mirrors);
    makeAgentGit(place, args.agents.settings.cachePath === undefined ? [] : args.agents.templates);
    makeBuildCache(place, args);
    const keeper = cacheKeeperObject(place, args.agents);
    if (keeper) new k8s.apps.v1.DaemonSet(...keeper);
    for (const images of prepullObjects(place, args.agents)) new k8s.apps.v1.DaemonSet(...images);
    makePodPolicy(place, args, keeper && patched("DaemonSet", keeper[1]));

    this.url = pulumi.output(jenkinsUrl(args.address));
    this.adminUser = args.access.adminExistingSecret ? pulumi.interpolate`see key admin-user of Secret ${secrets.admin.name}` : pulumi.output(args.access.adminUser);
    this.passwordCommand = pulumi.interpolate`kubectl -n ${place.here} get secret ${secrets.admin.name} -o jsonpath='{.data.admin-password}' | base64 -d`;
    this.namespace = place.here;
    this.agentsNamespace = place.there;
    this.homeClaim = claim;
    const { url, adminUser, passwordCommand, namespace, agentsNamespace, homeClaim } = this;
    this.registerOutputs({ url, adminUser, passwordCommand, namespace, agentsNamespace, homeClaim, agentService: services.agent });
  }
}
