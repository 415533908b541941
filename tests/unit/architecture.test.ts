import { architecture, conversation, parts, wrapped } from "../../tools/architecture";
import type { Rendered } from "../../cli/offline";

const of = (name: string, after: string[] = []) => ({ component: { name, instance: name.toLowerCase(), after }, protect: false });
const metadata = (name: string, namespace?: string) => ({ name, ...(namespace && { namespace }) });
const pod = (app: string, volumes: object[] = []) => ({ metadata: { labels: { app } }, spec: { volumes, containers: [{ image: `registry/${app}@sha256:0`, resources: { limits: { memory: "1Gi" } } }] } });

/** A small platform: an entry on ports 80 and 443, Jenkins behind it, and its volume. */
const platform: Rendered[] = [
  { type: "command:remote:Command", name: "ports-node-1", props: {}, ...of("Ports") },
  { type: "kubernetes:apps/v1:Deployment", name: "entry", props: { metadata: metadata("entry", "in"), spec: { replicas: 2, template: pod("entry") } }, ...of("Entry", ["Ports"]) },
  { type: "kubernetes:core/v1:Service", name: "entry", props: { metadata: metadata("entry", "in"), spec: { type: "NodePort", selector: { app: "entry" }, ports: [{ nodePort: 80 }, { nodePort: 443 }] } }, ...of("Entry", ["Ports"]) },
  { type: "kubernetes:networking.k8s.io/v1:IngressClass", name: "class", props: { metadata: metadata("nginx") }, ...of("Entry", ["Ports"]) },
  { type: "kubernetes:apps/v1:Deployment", name: "ci", props: { metadata: metadata("ci", "ci"), spec: { replicas: 1, strategy: { type: "Recreate" }, template: pod("ci", [{ persistentVolumeClaim: { claimName: "home" } }]) } }, ...of("Jenkins", ["Entry", "Ports"]) },
  { type: "kubernetes:core/v1:Service", name: "ci", props: { metadata: metadata("web", "ci"), spec: { selector: { app: "ci" }, ports: [{ port: 8080 }] } }, ...of("Jenkins", ["Entry"]) },
  { type: "kubernetes:networking.k8s.io/v1:Ingress", name: "ci", props: { metadata: metadata("ci", "ci"), spec: { ingressClassName: "nginx", rules: [{ host: "ci.example.com", http: { paths: [{ backend: { service: { name: "web" } } }] } }] } }, ...of("Jenkins", ["Entry"]) },
  { type: "kubernetes:core/v1:PersistentVolumeClaim", name: "home", props: { metadata: metadata("home", "ci"), spec: { storageClassName: "disk", resources: { requests: { storage: "20Gi" } } } }, ...of("Jenkins"), protect: true },
  ...["a", "b"].map((name) => ({ type: "kubernetes:networking.k8s.io/v1:NetworkPolicy", name, props: { metadata: metadata(name, "ci") }, ...of("Jenkins") })),
];

test("components come in the order in which they are made, without arrows that others imply", () => {
  expect(parts(platform).map(({ name, after, depth }) => ({ name, after, depth }))).toEqual([
    { name: "Ports", after: [], depth: 0 },
    { name: "Entry", after: ["Ports"], depth: 1 },
    { name: "Jenkins", after: ["Entry"], depth: 2 },
  ]);
});

test("objects are grouped by place and kind, and only counted where their names say nothing", () => {
  const [ports, , jenkins] = parts(platform);
  expect(ports.places).toEqual([{ place: "nodes, over SSH", lines: [{ kind: "Command", names: "node-1" }] }]);
  expect(jenkins.places).toEqual([{
    place: "namespace ci",
    lines: [{ kind: "Deployment", names: "ci" }, { kind: "Service", names: "web" }, { kind: "Ingress", names: "ci" }, { kind: "PersistentVolumeClaim", names: "home" }, { kind: "2 NetworkPolicies", names: "" }],
  }]);
});

test("only what the objects say is drawn as a talk", () => {
  expect(conversation(platform).talks).toEqual([
    { from: "controller", to: "home", what: "mounts" },
    { from: "people", to: "ingress", what: "80, 443" },
    { from: "ingress", to: "controller", what: "8080" },
  ]);
  // A Service that selects other pods leads nowhere.
  const elsewhere = platform.map((each) => (each.props.metadata?.name === "web" ? { ...each, props: { ...each.props, spec: { ...each.props.spec, selector: { app: "other" } } } } : each));
  expect(conversation(elsewhere).talks).toEqual([{ from: "people", to: "ingress", what: "80, 443" }]);
});

test("the picture is the same for the same resources in whatever order, has its own ground, and escapes what it shows", () => {
  const picture = architecture(platform);
  expect(architecture([...platform].reverse())).toBe(picture);
  expect(picture).toMatch(/<rect width="1000" height="\d+" rx="6" fill="#ffffff"\/>/);
  const odd = platform.map((each) => (each.name === "ports-node-1" ? { ...each, name: "ports-<&>" } : each));
  expect(architecture(odd)).toContain("&#60;&#38;&#62;");
});

test("no text leaves its box", () => {
  expect(wrapped("Deployment a-very-long-name-indeed", 12)).toEqual(["Deployment", "a-very-long-", "name-indeed"]);
  expect(wrapped("x".repeat(25), 10).every((line) => line.length <= 10)).toBe(true);
});
