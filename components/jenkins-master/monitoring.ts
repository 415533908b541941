import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { usual } from "../../config/pieces";
import { prefixOf } from "./address";
import type { JenkinsMasterArgs, MonitoringArgs } from "./args";
import { dashboard } from "./dashboard";
import { labels, Place } from "./place";

/** Annotations of the pod that ask to be scraped. */
export const scrapeAnnotations = (args: MonitoringArgs = {}, prefix = ""): Record<string, string> =>
  args.prometheusNamespace ? { "prometheus.io/scrape": "true", "prometheus.io/path": `${prefix}/prometheus/`, "prometheus.io/port": "8080" } : {};

/** What the Prometheus operator and Grafana look for, each on request. */
export function makeMonitoring({ name, parent, here, there }: Place, { monitoring = {}, address }: JenkinsMasterArgs): void {
  if (monitoring.serviceMonitor) {
    new k8s.apiextensions.CustomResource(
      `${name}-service-monitor`,
      {
        apiVersion: "monitoring.coreos.com/v1",
        kind: "ServiceMonitor",
        metadata: { name: "jenkins", namespace: here, labels: { ...labels, ...monitoring.serviceMonitorLabels } },
        spec: { selector: { matchLabels: labels }, endpoints: [{ port: "http", path: `${prefixOf(address.externalUrl)}/prometheus/` }] },
      },
      parent,
    );
  }
  if (monitoring.dashboard) {
    const place = { namespace: here, agentsNamespace: there, ingressNamespace: address.ingressNamespace ?? usual.ingressNamespace };
    new k8s.core.v1.ConfigMap(
      `${name}-dashboard`,
      {
        metadata: { name: "jenkins-dashboard", namespace: here, labels: { ...labels, grafana_dashboard: "1" } },
        data: { "build-platform.json": pulumi.output(place).apply((names) => JSON.stringify(dashboard(names), null, 1)) },
      },
      parent,
    );
  }
}
