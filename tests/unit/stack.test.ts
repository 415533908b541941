import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { renderStack } from "../../cli/offline";
import { aroundStack, readStack, type Stack } from "../../cli/stack";

const project = fs.mkdtempSync(path.join(os.tmpdir(), "stack-"));
jest.mock("../../cli/repository", () => ({ ...jest.requireActual<object>("../../cli/repository"), get root() { return project; } }));
afterAll(() => fs.rmSync(project, { recursive: true }));

test("a stack file that is no YAML is named", async () => {
  fs.copyFileSync(path.resolve(__dirname, "../../Pulumi.yaml"), path.join(project, "Pulumi.yaml"));
  fs.writeFileSync(path.join(project, "Pulumi.torn.yaml"), "config: { a: [\n");
  await expect(readStack("torn")).rejects.toThrow(/^Pulumi\.torn\.yaml cannot be read: .*line \d/s);
  await expect(renderStack("torn", project)).rejects.toThrow(/^Pulumi\.torn\.yaml cannot be read: /);
  fs.writeFileSync(path.join(project, "Pulumi.empty.yaml"), "");
  expect((await readStack("empty")).problems.map(({ key }) => key)).toContain("domain");
});

test("a folder that config names is looked into, as the program does", async () => {
  fs.copyFileSync(path.resolve(__dirname, "../../Pulumi.yaml"), path.join(project, "Pulumi.yaml"));
  fs.mkdirSync(path.join(project, "casc"));
  fs.writeFileSync(path.join(project, "casc", "a.yaml"), "jenkins: { url: x");
  const file = (folder: string) => fs.writeFileSync(path.join(project, "Pulumi.a.yaml"), `config: {"build-platform:cascFolder": "${folder}"}\n`);
  const problems = async () => (await readStack("a")).problems.filter(({ key }) => key === "cascFolder").map(({ found }) => found);
  file(path.join(project, "casc"));
  expect(await problems()).toEqual([expect.stringContaining("a.yaml: ")]);
  fs.writeFileSync(path.join(project, "casc", "a.yaml"), "unclassified: { frobnicator: { x: 1 } }\n");
  expect(await problems()).toEqual([]);
  expect((await readStack("a")).warnings).toEqual([expect.stringContaining("frobnicator")]);
  file(path.join(project, "gone"));
  expect(await problems()).toEqual([path.join(project, "gone")]);
});

test("the network around is asked of the cluster: with a proxy its nodes and ranges, and what is not there or forbidden is said", async () => {
  const config = { surroundings: { proxy: { http: "http://proxy.test:3128", https: "http://proxy.test:3128", noProxy: ["registry.test"] } }, surroundingsIn: { caBundle: { namespace: "jenkins", name: "ca", key: "ca.crt" }, proxyLogin: { namespace: "jenkins", name: "login" } } };
  const asked: string[] = [];
  const kubectl = async (...args: string[]) => {
    asked.push(args[2]);
    if (args[2] === "/api/v1/nodes") return JSON.stringify({ items: [{ metadata: { name: "a" }, spec: { podCIDRs: ["10.244.0.0/24"] }, status: { addresses: [{ type: "InternalIP", address: "192.0.2.7" }] } }] });
    throw new Error(`Error from server (${args[2].endsWith("/secrets/login") ? "Forbidden" : "NotFound"}): no`);
  };
  const { surroundings, problems } = await aroundStack({ config, kubectl } as unknown as Stack);
  expect(problems.map(({ found }) => found)).toEqual(["no ConfigMap ca in namespace jenkins", "Secret login of namespace jenkins, which may not be read: forbidden"]);
  expect(surroundings.proxy).toMatchObject({ noProxy: ["registry.test", "10.244.0.0/24"], nodes: ["192.0.2.7"] });
  asked.length = 0;
  expect(await aroundStack({ config: { surroundings: {}, surroundingsIn: {} }, kubectl } as unknown as Stack)).toEqual({ surroundings: {}, problems: [] });
  expect(asked).toEqual([]);
});
