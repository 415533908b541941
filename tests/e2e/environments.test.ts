import { spawn, spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { parse } from "yaml";
import { installPackages } from "../../sandbox/cluster/packages";
import { REPO, SSH_KEY, STATE } from "../../sandbox/paths";
import { htmlPage, type Facts } from "../../cli/status";
import { objectPath, renderStack } from "../../cli/offline";
import { ENV, ensurePlatform, jenkins, kubectl, NODE, pulumi, STACK, waitFor } from "./sandbox";

jest.setTimeout(900_000);

let folder: string;
beforeAll(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "environments-"));
  await ensurePlatform();
});
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

const npm = (script: string, args: string[], input = "", cwd = REPO) => {
  const ended = spawnSync(process.execPath, ["--require", require.resolve("tsx/cjs"), path.join(REPO, "cli", `${script}.ts`), ...args], { cwd, env: ENV, input, encoding: "utf8" });
  return { ...ended, text: ended.stdout + ended.stderr };
};

/** The project in a folder of its own, where its files may be changed. */
function copyOfProject(): string {
  const copy = path.join(folder, "project");
  fs.rmSync(copy, { recursive: true, force: true });
  for (const name of fs.readdirSync(REPO)) {
    if ([".git", "node_modules", "sandbox", "tests", "docs"].includes(name)) continue;
    fs.cpSync(path.join(REPO, name), path.join(copy, name), { recursive: true });
  }
  fs.symlinkSync(path.join(REPO, "node_modules"), path.join(copy, "node_modules"));
  return copy;
}

test("doctor finds the platform's cluster in order", () => {
  const ended = npm("doctor", [STACK]);
  expect(ended.text).toContain(" 0 to mend");
  expect(ended.status).toBe(0);
  for (const check of ["Kubernetes version", "port 80 is free", "port 443 is free", "clock", "SSH access", "registry", "names are free"]) expect(ended.stdout).toMatch(new RegExp(`^ok +${check}`, "m"));
});

test("status knows controller, volume and node ports, and says that the sandbox has no backup", () => {
  const file = path.join(folder, "status.html");
  const ended = npm("status", [STACK, "--html", file]);
  expect(ended.stdout).toMatch(/^ +controller +ready/m);
  expect(ended.stdout).toMatch(/^ +home volume +Bound, [\d.]+ [MG]iB used of 2Gi/m);
  expect(ended.stdout).toMatch(/^ +queue +/m);
  expect(ended.stdout).toMatch(/^ +node-port range +80-32767 on 1 control-plane node$/m);
  expect(fs.readFileSync(file, "utf8")).toContain("80-32767 on 1 control-plane node");
});

test("up after an update that was killed reads the cluster first and leaves state and cluster alike", async () => {
  const lasting = copyOfProject();
  const file = path.join(lasting, `Pulumi.${STACK}.yaml`);
  const before = fs.readFileSync(file, "utf8");
  fs.writeFileSync(file, before.replace(/(limits: \{memory: )1536Mi/, "$11600Mi"));
  const killed = spawn("pulumi", ["up", "--stack", STACK, "--yes", "--skip-preview", "--non-interactive"], { cwd: lasting, env: ENV, stdio: "ignore" });
  const memory = () => kubectl(["-n", "jenkins", "get", "deployment", "jenkins", "-o", "jsonpath={.spec.template.spec.containers[0].resources.limits.memory}"]);
  await waitFor("the controller's new limit in the cluster", 180, async () => (await memory()) === "1600Mi");
  const gone = new Promise((resolve) => killed.once("exit", resolve));
  killed.kill("SIGKILL");
  await gone;
  await pulumi(["cancel", "--stack", STACK, "--yes"], { allowFailure: true });
  const ended = npm("up", [STACK, "--yes"]);
  expect(ended.text).toMatch(/a former update was cut off while updating .*jenkins-controller/);
  expect(ended.status).toBe(0);
  expect(await memory()).toBe("1536Mi");
  expect(npm("up", [STACK, "--yes"]).text).not.toContain("cut off");
});

test("up says how far it is, and that an unchanged platform has nothing to do", () => {
  const ended = npm("up", [STACK, "--yes"]);
  expect(ended.stdout).toMatch(/\d+ unchanged/);
  expect(ended.stderr).toMatch(/^--- all parts are done; (about|nearly|\d+ s so far)/m);
  expect(ended.stderr).toMatch(/^--- done in \d+ s$/m);
  expect(ended.status).toBe(0);
  expect(npm("up", [STACK]).text).toContain("nobody can be asked here; --yes updates without a question");
});

test("smoke builds one real job with a container image inside, and takes it away", async () => {
  const ended = npm("smoke", [STACK]);
  expect(ended.text).toMatch(/^sandbox builds$/m);
  expect(ended.text.match(/^ok /gm)).toHaveLength(6);
  expect(ended.status).toBe(0);
  expect(await jenkins("GET", "/api/json")).not.toMatch(/"smoke-/);
});

test("smoke says where it fails and takes its job away all the same", async () => {
  const ended = npm("smoke", [STACK, "--label", "nobody-has-this", "--timeout", "10"]);
  expect(ended.stdout).toMatch(/^FAIL an agent of label nobody-has-this takes its build/m);
  expect(ended.stderr).toMatch(/not within 10 s: no agent pod was made for label nobody-has-this/);
  expect(ended.status).toBe(1);
  expect(await jenkins("GET", "/api/json")).not.toMatch(/"smoke-/);
  expect(JSON.parse(await jenkins("GET", "/queue/api/json")).items).toEqual([]);
});

describe("the status page in a real browser", () => {
  const facts: Facts = {
    stack: "prod", url: "https://ci.example.com/", time: new Date(), refused: "", trouble: ["queue: </li><script>document.title='run'</script>"],
    controller: { ready: true, state: "ready", image: "i", node: "node-with-quite-a-long-name-1", restarts: 2 },
    agents: [{ name: "maven-with-a-long-name-0123456789abcdef", template: "maven", phase: "Running", node: "n1", since: new Date() }],
    queue: [], nodePorts: [{ node: "n1", range: "80-32767" }], backup: "off",
    volume: { phase: "Bound", storageClass: "openebs-hostpath", node: "n1", requested: "20Gi", usedKib: 5_000_000 },
  };
  // The page stands in a frame as wide as a telephone; the frame's owner measures it and leaves the result in its title.
  const harness = (page: string) => `<!doctype html><title>not measured</title><iframe id="f" style="width:360px;height:800px;border:0"></iframe><script>
    const f = document.getElementById("f");
    f.onload = () => {
      const d = f.contentDocument, rows = [...d.querySelectorAll("tbody tr")], style = (s) => f.contentWindow.getComputedStyle(d.querySelector(s));
      document.title = JSON.stringify({ title: d.title, rows: rows.length, heading: d.querySelector("h1").innerText, overflow: d.documentElement.scrollWidth - d.documentElement.clientWidth,
        bad: d.querySelectorAll(".bad").length, scripts: d.scripts.length, loaded: f.contentWindow.performance.getEntriesByType("resource").length, badColour: style(".bad").color, goodColour: style(".good").color,
        firstColumn: Math.min(...[...d.querySelectorAll("th[scope=row]")].map((cell) => cell.getClientRects()[0].height)) });
    };
    f.srcdoc = ${JSON.stringify(page).replace(/</g, "\\u003c")};
  </script>`;

  test("is laid out for a narrow screen, coloured, and neither runs nor loads anything", async () => {
    await installPackages(["chromium"]);
    const file = path.join(folder, "harness.html");
    fs.writeFileSync(file, harness(htmlPage(facts)));
    const args = ["--headless", "--no-sandbox", "--disable-gpu", `--user-data-dir=${path.join(folder, "chromium")}`, "--virtual-time-budget=5000", "--dump-dom", `file://${file}`];
    const dom = spawnSync("chromium", args, { encoding: "utf8", timeout: 120_000 }).stdout;
    const measured = JSON.parse(/<title>(\{.*?\})<\/title>/.exec(dom)![1].replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&"));
    expect(measured).toMatchObject({ title: "prod: something needs you", heading: "Build platform prod: something needs you", rows: 8, overflow: 0, scripts: 0, loaded: 0 });
    expect(measured.bad).toBe(3);
    expect(measured.badColour).not.toBe(measured.goodColour);
    // A line of the first column is not broken inside a word.
    expect(measured.firstColumn).toBeLessThan(45);
  });
});

describe("the policy pack in the engine", () => {
  test("lets the sandbox's stack pass", async () => {
    const { stdout } = await pulumi(["preview", "--stack", STACK, "--policy-pack", "policy"]);
    expect(stdout).toMatch(/build-platform@v[\d.]+/);
    expect(stdout).not.toContain("[mandatory]");
  });

  test("stops an update that breaks a rule, and names object and fix", async () => {
    const copy = copyOfProject();
    const file = path.join(copy, `Pulumi.${STACK}.yaml`);
    fs.writeFileSync(file, fs.readFileSync(file, "utf8").replace("caches: [maven]", "caches: [maven]\n      env: {DEPLOY_TOKEN: hunter2-hunter2}"));
    const ended = await pulumi(["preview", "--stack", STACK, "--policy-pack", "policy"], { cwd: copy, allowFailure: true });
    expect(ended.code).not.toBe(0);
    const said = ended.stdout + ended.stderr;
    expect(said).toMatch(/\[mandatory\] +no-secret-in-environment +\(kubernetes:core\/v1:ConfigMap: jenkins-casc\)/);
    expect(said).toMatch(/\[mandatory\] +no-secret-in-plain-config/);
    expect(said).toContain("agents[0].env.DEPLOY_TOKEN");
    expect(said).not.toMatch(/config.*hunter2/);
  });
});

test("what the offline diff renders is what the engine keeps in the state", async () => {
  interface Kept { type: string; urn: string; custom: boolean; protect?: boolean; inputs: Record<string, { name?: string; namespace?: string }> }
  const exported = JSON.parse((await pulumi(["stack", "export", "--stack", STACK])).stdout) as { deployment: { resources: Kept[] } };
  // The stack itself, and providers that no program asks for by name, are the engine's own.
  const kept = exported.deployment.resources.filter(({ custom, type, urn }) => custom && type !== "pulumi:pulumi:Stack" && !/^default_/.test(urn.split("::").pop()!));
  const fromState = kept.map(({ type, urn, inputs, protect = false }) => objectPath({ type, name: urn.split("::").pop()!, props: inputs, protect })).sort();
  const rendered = (await renderStack(STACK)).map(objectPath).sort();
  expect(rendered).toEqual(fromState);
});

test("new-env fetches the host key of a real node and wants it confirmed", () => {
  const answers = ["ci.example.com", "kubernetes-admin@sandbox", "10.88.0.1:5000", "2Gi", "-", "no", "control-plane-1", NODE, "-", "root", SSH_KEY];
  const refused = npm("new-env", ["e2e"], `${[...answers, "no"].join("\n")}\n`, folder);
  expect(refused.status).toBe(1);
  expect(fs.existsSync(path.join(folder, "Pulumi.e2e.yaml"))).toBe(false);

  const made = npm("new-env", ["e2e"], `${[...answers, "yes"].join("\n")}\n`, folder);
  expect(made.status).toBe(0);
  const pinned = fs.readFileSync(path.join(STATE, "ssh", "control-plane-1.hostkey.pub"), "utf8").trim().split(" ").slice(0, 2).join(" ");
  expect(parse(fs.readFileSync(path.join(folder, "Pulumi.e2e.yaml"), "utf8")).config["build-platform:controlPlane"].nodes).toEqual([{ name: "control-plane-1", host: NODE, hostKey: pinned }]);
  const shown = spawnSync("ssh-keygen", ["-lf", path.join(STATE, "ssh", "control-plane-1.hostkey.pub")], { encoding: "utf8" }).stdout.split(" ")[1];
  expect(made.stderr).toContain(shown);
});
