import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { secretData } from "../encoding";
import { caContent, caName, proxyName, proxySecret, type Surroundings } from "../surroundings";
import type { Registration } from "../transform";
import { labels, Place } from "./place";

/** What pods of a namespace read of the network around: the certificates that are trusted, and the proxy's login where it asks for one. */
interface NetworkObjects {
  configMaps: Registration<k8s.core.v1.ConfigMapArgs>[];
  secrets: Registration<k8s.core.v1.SecretArgs>[];
}

/** The objects of both namespaces. @param maven the mirror of Maven Central, if there is one */
export function networkObjects({ name, parent, here, there }: Place, surroundings: Surroundings = {}, maven?: string): { controller: NetworkObjects; agents: NetworkObjects } {
  const login = proxySecret(surroundings, maven);
  const of = (part: string, namespace: pulumi.Output<string>): NetworkObjects => ({
    configMaps: surroundings.caBundle === undefined ? [] : [[`${name}-${part}company-ca`, { metadata: { name: caName, namespace, labels }, data: caContent(surroundings.caBundle) }, parent]],
    secrets: login === undefined ? [] : [[`${name}-${part}company-proxy`, { metadata: { name: proxyName, namespace, labels }, data: pulumi.secret(secretData(login)) }, parent]],
  });
  return { controller: of("", here), agents: of("agents-", there) };
}
