import { parser } from "@prometheus-io/lezer-promql";
import recorded from "../fixtures/contracts/prometheus-metrics.json";
import { dashboard, dashboardRows, DashboardPlace } from "../../components/jenkins-master/dashboard";

const place: DashboardPlace = { namespace: "jenkins", agentsNamespace: "jenkins-agents", ingressNamespace: "ingress-nginx" };

/** What Jenkins' own endpoint gives. Prometheus finds counters by the name with `_total`, whatever the plugin's documentation calls them. */
const jenkins = Object.assign({}, ...Object.values(recorded).map(({ metrics }) => metrics)) as Record<string, string>;

/** Every other metric that the dashboard may ask for, by what gives it. A name that is not here was misspelt, or has to be looked up first. */
const known: Record<string, string[]> = {
  // https://github.com/kubernetes/kube-state-metrics/tree/main/docs/metrics
  "kube-state-metrics": [
    "kube_pod_container_status_restarts_total", "kube_deployment_status_replicas_available", "kube_node_status_condition", "kube_cronjob_status_last_successful_time", "kube_job_status_failed", "kube_pod_status_phase",
    "kube_pod_created", "kube_pod_status_ready_time", "kube_pod_container_status_waiting_reason", "kube_pod_container_resource_limits",
  ],
  // https://kubernetes.io/docs/reference/instrumentation/metrics/ and cAdvisor
  kubelet: ["kubelet_volume_stats_used_bytes", "kubelet_volume_stats_capacity_bytes", "container_memory_working_set_bytes", "container_cpu_usage_seconds_total"],
};

const queries = dashboardRows(place).flatMap(({ panels }) => panels.flatMap((panel) => panel.queries.map(({ expr }) => ({ title: panel.title, expr }))));

/** What Prometheus' own grammar finds in an expression: its faults, and the selectors with the metric each names. */
function read(expr: string): { faults: number; selectors: { metric: string; text: string }[] } {
  let faults = 0;
  const selectors: { metric: string; text: string }[] = [];
  parser.parse(expr).iterate({
    enter: (node) => {
      if (node.type.isError) faults++;
      if (node.name === "VectorSelector") selectors.push({ metric: /^[A-Za-z_:][A-Za-z0-9_:]*/.exec(expr.slice(node.from, node.to))?.[0] ?? "", text: expr.slice(node.from, node.to) });
    },
  });
  return { faults, selectors };
}

describe("the dashboard's queries", () => {
  test("the grammar finds a fault where there is one", () => {
    expect(read("sum(rate(a[5m])").faults).toBeGreaterThan(0);
    expect(read('sum(rate(a{b="c"}[5m])) / b')).toEqual({ faults: 0, selectors: [{ metric: "a", text: 'a{b="c"}' }, { metric: "b", text: "b" }] });
  });

  test.each(queries)("$title: $expr", ({ expr }) => {
    const { faults, selectors } = read(expr);
    expect(faults).toBe(0);
    expect(selectors.length).toBeGreaterThan(0);
    for (const { metric, text } of selectors) {
      expect([...Object.values(known).flat(), ...Object.keys(jenkins)]).toContain(metric);
      // Another Jenkins of the same Prometheus is not this one.
      if (!metric.startsWith("kube_node_")) expect(text).toMatch(/\{namespace="(jenkins|jenkins-agents|ingress-nginx)"/);
    }
  });

  test.each(queries.flatMap(({ expr }) => [...expr.matchAll(/(?:rate|increase)\((\w+)/g)].map(([, metric]) => metric).filter((metric) => metric in jenkins)))("%s, of which an increase is asked for, is one that only rises", (metric) => {
    expect(jenkins[metric]).toMatch(/^(counter|summary)$/);
  });

  test("every metric of the list is asked for", () => {
    const asked = new Set(queries.flatMap(({ expr }) => read(expr).selectors.map(({ metric }) => metric)));
    expect(Object.values(known).flat().filter((name) => !asked.has(name))).toEqual([]);
  });
});

describe("the dashboard's document", () => {
  interface Drawn {
    id: number;
    type: string;
    title: string;
    gridPos: { x: number; y: number; w: number; h: number };
    targets?: { refId: string; datasource: { uid: string } }[];
    fieldConfig?: { defaults: { thresholds: { steps: { value: number | null }[] } } };
  }
  const document = JSON.parse(JSON.stringify(dashboard(place))) as { uid: string; panels: Drawn[]; templating: { list: { name: string; type: string }[] } };

  test("has panels with ids and titles of their own, of kinds that Grafana knows", () => {
    const { panels } = document;
    expect(panels.length).toBeGreaterThan(20);
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
    expect(new Set(panels.map(({ title }) => title)).size).toBe(panels.length);
    expect([...new Set(panels.map(({ type }) => type))].sort()).toEqual(["row", "stat", "timeseries"]);
  });

  test("has no panel outside the page or over another", () => {
    const taken = new Map<string, string>();
    for (const { title, gridPos } of document.panels) {
      expect(gridPos.x + gridPos.w).toBeLessThanOrEqual(24);
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++)
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          expect([title, taken.get(`${x},${y}`)]).toEqual([title, undefined]);
          taken.set(`${x},${y}`, title);
        }
    }
  });

  test("asks the data source that is chosen on the page, each query of a panel by a name of its own", () => {
    expect(document.templating.list).toEqual([expect.objectContaining({ name: "datasource", type: "datasource" })]);
    for (const { targets } of document.panels.filter(({ type }) => type !== "row")) {
      expect(new Set(targets?.map(({ refId }) => refId)).size).toBe(targets?.length);
      for (const target of targets ?? []) expect(target.datasource.uid).toBe("${datasource}");
    }
  });

  test("counts neither the caches' keeper nor what holds images among the agents", () => {
    const [, others] = /pod!~"([^"]+)"/.exec(JSON.stringify(dashboardRows(place)).replaceAll('\\"', '"'))!;
    const agent = (pod: string) => !new RegExp(`^(?:${others})$`).test(pod);
    expect(["agent-cache-x1", "agent-images-maven-x1", "maven-x1", "agent-x1"].filter(agent)).toEqual(["maven-x1", "agent-x1"]);
  });

  test("has thresholds that rise from none", () => {
    for (const { fieldConfig } of document.panels.filter(({ type }) => type !== "row")) {
      const values = fieldConfig!.defaults.thresholds.steps.map(({ value }) => value);
      expect(values[0]).toBeNull();
      expect(values.slice(1)).toEqual([...values.slice(1)].sort((a, b) => Number(a) - Number(b)));
    }
  });

  test("is one for each platform of a Grafana", () => {
    const other = dashboard({ ...place, namespace: "jenkins-staging" }) as typeof document;
    expect(other.uid).not.toBe(document.uid);
    expect(JSON.stringify(other)).not.toContain('namespace=\\"jenkins\\"');
    expect(document.uid.length).toBeLessThanOrEqual(40);
  });
});
