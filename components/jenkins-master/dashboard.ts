/** Where the dashboard's figures come from. */
export interface DashboardPlace {
  /** Namespaces of the controller, of its agents, and of the ingress controller. */
  namespace: string;
  agentsNamespace: string;
  ingressNamespace: string;
}

/** One line of a panel: what is asked, and how the answer is called. */
interface Query {
  expr: string;
  legend: string;
}

interface Panel {
  title: string;
  /** What the figure says to whoever reads it, and what to do when it is bad. */
  description: string;
  kind: "stat" | "timeseries";
  /** Width in twenty-fourths of the page. */
  width: number;
  /** Unit as Grafana names it. */
  unit: "none" | "short" | "bytes" | "s" | "ms" | "percentunit" | "reqps";
  queries: Query[];
  /** From this value on the figure is red; below `okFrom` it is red too. */
  badFrom?: number;
  okFrom?: number;
}

/** How long a figure without a newer one still counts, in PromQL; several times a usual scrape interval. */
const range = "[5m]";
const height = { stat: 4, timeseries: 8 };

/**
 * The panels, row by row. Names of metrics are those of
 * - the plugin prometheus (https://github.com/jenkinsci/prometheus-plugin/blob/master/docs/metrics/index.md, whose counters have _total
 *   behind the name): default_jenkins_*, and what
 *   its JVM exporter (simpleclient_hotspot 0.16) and the plugin metrics (https://github.com/jenkinsci/metrics-plugin) give: jvm_*, jenkins_*, http_*
 * - kube-state-metrics (https://github.com/kubernetes/kube-state-metrics/tree/main/docs/metrics): kube_*
 * - the kubelet: kubelet_volume_stats_*, container_*
 */
export function dashboardRows({ namespace, agentsNamespace, ingressNamespace }: DashboardPlace): { title: string; panels: Panel[] }[] {
  const here = `namespace="${namespace}"`;
  const there = `namespace="${agentsNamespace}"`;
  const agents = `${there}, pod!~"agent-(cache|images)-.*"`;
  const age = (cronJob: string) => `time() - max(kube_cronjob_status_last_successful_time{${here}, cronjob="${cronJob}"})`;
  const builds = (result: string) => `sum(increase(default_jenkins_builds_${result}_build_count_total{${here}}[1h]))`;
  return [
    {
      title: "Is it up?",
      panels: [
        { title: "Controller", description: "1 when Jenkins takes requests. 0: npm run status.", kind: "stat", width: 4, unit: "none", okFrom: 1, queries: [{ expr: `max(default_jenkins_up{${here}}) or vector(0)`, legend: "up" }] },
        { title: "Restarts in a day", description: "Of the controller's container. kubectl logs --previous says why.", kind: "stat", width: 4, unit: "none", badFrom: 1, queries: [{ expr: `sum(increase(kube_pod_container_status_restarts_total{${here}, container="jenkins"}[1d]))`, legend: "restarts" }] },
        { title: "Ingress controllers", description: "Ready to take people's requests on the node ports 80 and 443.", kind: "stat", width: 4, unit: "none", okFrom: 1, queries: [{ expr: `sum(kube_deployment_status_replicas_available{namespace="${ingressNamespace}"})`, legend: "available" }] },
        { title: "Nodes ready", description: "Where agents can run.", kind: "stat", width: 4, unit: "none", okFrom: 1, queries: [{ expr: 'sum(kube_node_status_condition{condition="Ready", status="true"})', legend: "ready" }] },
        { title: "Age of the last good backup", description: "Red after two days. npm run backups -- STACK lists them.", kind: "stat", width: 4, unit: "s", badFrom: 172800, queries: [{ expr: age("jenkins-backup"), legend: "age" }] },
        { title: "Jobs whose last build failed", description: "Of all jobs.", kind: "stat", width: 4, unit: "none", badFrom: 1, queries: [{ expr: `count(default_jenkins_builds_last_build_result_ordinal{${here}} == 2) or vector(0)`, legend: "failed" }] },
      ],
    },
    {
      title: "Builds",
      panels: [
        {
          title: "Builds in an hour, by result", description: "What ended in the hour before.", kind: "timeseries", width: 8, unit: "short",
          queries: ["success", "unstable", "failed", "aborted"].map((result) => ({ expr: builds(result), legend: result })),
        },
        {
          title: "Mean duration by job", description: "Of the builds that ended in the hour before.", kind: "timeseries", width: 8, unit: "ms",
          queries: [{ expr: `sum by (jenkins_job) (rate(default_jenkins_builds_duration_milliseconds_summary_sum{${here}}[1h])) / sum by (jenkins_job) (rate(default_jenkins_builds_duration_milliseconds_summary_count{${here}}[1h]))`, legend: "{{jenkins_job}}" }],
        },
        {
          title: "Time from the queue to the start", description: "Quiet period, an agent's pod, its images and its connection. Long: more nodes, or agents' requests too large for them.", kind: "timeseries", width: 8, unit: "s",
          queries: ["0.5", "0.95"].map((quantile) => ({ expr: `max(jenkins_job_queuing_duration{${here}, quantile="${quantile}"})`, legend: quantile === "0.5" ? "half of them" : "all but 5 %" })),
        },
      ],
    },
    {
      title: "Queue and agents",
      panels: [
        {
          title: "Queue", description: "Stuck ones wait for an agent that does not come: npm run smoke -- STACK says why.", kind: "timeseries", width: 6, unit: "short",
          queries: [{ expr: `max(jenkins_queue_size_value{${here}})`, legend: "in the queue" }, { expr: `max(jenkins_queue_stuck_value{${here}})`, legend: "stuck" }],
        },
        { title: "Queue by label", description: "What waits for which kind of agent.", kind: "timeseries", width: 6, unit: "short", queries: [{ expr: `sum by (label) (default_jenkins_executors_queue_length{${here}}) > 0`, legend: "{{label}}" }] },
        {
          title: "Executors", description: "Of the agents that are connected; the controller has none.", kind: "timeseries", width: 6, unit: "short",
          queries: [{ expr: `max(jenkins_executor_in_use_value{${here}})`, legend: "busy" }, { expr: `max(jenkins_executor_count_value{${here}})`, legend: "all" }],
        },
        { title: "Agent pods by phase", description: "Pending for long: no node has room.", kind: "timeseries", width: 6, unit: "short", queries: [{ expr: `sum by (phase) (kube_pod_status_phase{${agents}}) > 0`, legend: "{{phase}}" }] },
        { title: "Agent pods started in five minutes", description: "A build has a pod of its own unless idleMinutes keeps it.", kind: "timeseries", width: 8, unit: "short", queries: [{ expr: `count(last_over_time(kube_pod_created{${agents}}${range}) > time() - 300) or vector(0)`, legend: "started" }] },
        {
          title: "Start of agent pods", description: "From the pod's creation until all its containers are ready.", kind: "timeseries", width: 8, unit: "s",
          queries: ["avg", "max"].map((how) => ({ expr: `${how}(last_over_time(kube_pod_status_ready_time{${agents}}${range}) - last_over_time(kube_pod_created{${agents}}${range}))`, legend: how === "avg" ? "mean" : "slowest" })),
        },
        { title: "What containers of agents wait for", description: "ImagePullBackOff: npm run doctor -- STACK.", kind: "timeseries", width: 8, unit: "short", queries: [{ expr: `sum by (reason) (kube_pod_container_status_waiting_reason{${agents}}) > 0`, legend: "{{reason}}" }] },
      ],
    },
    {
      title: "The controller",
      panels: [
        {
          title: "Heap", description: "Near its limit for long: raise controller.resources.limits.memory.", kind: "timeseries", width: 6, unit: "bytes",
          queries: [{ expr: `max(jvm_memory_bytes_used{${here}, area="heap"})`, legend: "used" }, { expr: `max(jvm_memory_bytes_max{${here}, area="heap"})`, legend: "limit" }],
        },
        {
          title: "Memory of the container", description: "Above its limit the kernel ends it.", kind: "timeseries", width: 6, unit: "bytes",
          queries: [{ expr: `max(container_memory_working_set_bytes{${here}, container="jenkins"})`, legend: "used" }, { expr: `max(kube_pod_container_resource_limits{${here}, container="jenkins", resource="memory"})`, legend: "limit" }],
        },
        {
          title: "Processors", description: "Used by the controller, and the share of them that collects garbage.", kind: "timeseries", width: 6, unit: "short",
          queries: [{ expr: `sum(rate(container_cpu_usage_seconds_total{${here}, container="jenkins"}${range}))`, legend: "all" }, { expr: `sum(rate(jvm_gc_collection_seconds_sum{${here}}${range}))`, legend: "garbage collection" }],
        },
        {
          title: "Requests", description: "Answered by Jenkins, and those it failed at.", kind: "timeseries", width: 6, unit: "reqps",
          queries: [{ expr: `sum(rate(http_requests_count{${here}}${range}))`, legend: "all" }, { expr: `sum(rate(http_responseCodes_serverError_total{${here}}${range}))`, legend: "500" }],
        },
      ],
    },
    {
      title: "Home and backups",
      panels: [
        {
          title: "Home volume", description: "Of the node's disk that holds it: a hostpath volume is not kept to its size.", kind: "timeseries", width: 8, unit: "percentunit", badFrom: 0.85,
          queries: [{ expr: `max(kubelet_volume_stats_used_bytes{${here}, persistentvolumeclaim="jenkins-home"} / kubelet_volume_stats_capacity_bytes{${here}, persistentvolumeclaim="jenkins-home"})`, legend: "used" }],
        },
        { title: "Age of the last good backup and proof", description: "A proof is a restored copy that Jenkins booted from.", kind: "timeseries", width: 8, unit: "s", queries: [{ expr: age("jenkins-backup"), legend: "backup" }, { expr: age("jenkins-backup-verify"), legend: "proof" }] },
        { title: "Failed backup jobs", description: "kubectl logs of their pods say why; npm run status -- STACK shows the last result.", kind: "timeseries", width: 8, unit: "short", queries: [{ expr: `sum(kube_job_status_failed{${here}, job_name=~"jenkins-backup.*"}) or vector(0)`, legend: "failed" }] },
      ],
    },
  ];
}

function thresholds({ badFrom, okFrom }: Panel): object {
  const steps = [{ color: okFrom === undefined ? "green" : "red", value: null as number | null }];
  if (okFrom !== undefined) steps.push({ color: "green", value: okFrom });
  if (badFrom !== undefined) steps.push({ color: "red", value: badFrom });
  return { mode: "absolute", steps };
}

/**
 * The dashboard as Grafana's JSON, for a ConfigMap that Grafana's sidecar finds or for an import by hand. The data source is
 * chosen on the page. https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
 */
export function dashboard(place: DashboardPlace): object {
  const datasource = { type: "prometheus", uid: "${datasource}" };
  const panels: object[] = [];
  let y = 0;
  for (const row of dashboardRows(place)) {
    panels.push({ id: panels.length + 1, type: "row", title: row.title, collapsed: false, gridPos: { x: 0, y, w: 24, h: 1 }, panels: [] });
    y += 1;
    let x = 0;
    let tallest = 0;
    for (const panel of row.panels) {
      if (x + panel.width > 24) {
        y += tallest;
        [x, tallest] = [0, 0];
      }
      panels.push({
        id: panels.length + 1,
        type: panel.kind,
        title: panel.title,
        description: panel.description,
        datasource,
        gridPos: { x, y, w: panel.width, h: height[panel.kind] },
        fieldConfig: { defaults: { unit: panel.unit, min: 0, thresholds: thresholds(panel) }, overrides: [] },
        options: panel.kind === "stat" ? { reduceOptions: { calcs: ["lastNotNull"], fields: "", values: false }, colorMode: "background", graphMode: "none" } : { legend: { displayMode: "list", placement: "bottom", showLegend: true }, tooltip: { mode: "multi", sort: "desc" } },
        targets: panel.queries.map(({ expr, legend }, i) => ({ refId: String.fromCharCode(65 + i), datasource, expr, legendFormat: legend })),
      });
      x += panel.width;
      tallest = Math.max(tallest, height[panel.kind]);
    }
    y += tallest;
  }
  return {
    uid: `build-platform-${place.namespace}`.slice(0, 40),
    title: `Build platform: ${place.namespace}`,
    tags: ["build-platform", "jenkins"],
    schemaVersion: 39,
    editable: true,
    refresh: "1m",
    time: { from: "now-6h", to: "now" },
    timezone: "browser",
    templating: { list: [{ name: "datasource", label: "Data source", type: "datasource", query: "prometheus", current: {}, hide: 0 }] },
    annotations: { list: [] },
    panels,
  };
}
