import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import * as fc from "fast-check";
import { parse } from "yaml";
import { misfit, nodeFolder } from "../../config/pieces";
import { casConfig, OpenEbsStorage, OpenEbsStorageArgs } from "../../components/openebs-storage";
import { all, objects, registered, settled, the, useMocks, valueOf } from "./mocks";

const args: OpenEbsStorageArgs = { basePath: "/var/openebs/local", provisionerImage: "registry.test/provisioner:1", helperImage: "registry.test/helper:1" };

async function make(further: Partial<OpenEbsStorageArgs> = {}): Promise<OpenEbsStorage> {
  const storage = new OpenEbsStorage("storage", { ...args, ...further });
  await settled();
  return storage;
}

beforeEach(() => useMocks());

test("the StorageClass is what the provisioner reads", async () => {
  const storage = await make();
  const { inputs } = the("StorageClass");
  expect(inputs.metadata.name).toBe("openebs-hostpath");
  expect(inputs.metadata.annotations["openebs.io/cas-type"]).toBe("local");
  expect(parse(inputs.metadata.annotations["cas.openebs.io/config"])).toEqual([
    { name: "StorageType", value: "hostpath" },
    { name: "BasePath", value: "/var/openebs/local" },
  ]);
  expect(inputs.provisioner).toBe("openebs.io/local");
  expect(inputs.volumeBindingMode).toBe("WaitForFirstConsumer");
  expect(inputs.reclaimPolicy).toBe("Delete");
  expect(inputs.metadata.annotations).not.toHaveProperty("storageclass.kubernetes.io/is-default-class");
  expect(await valueOf(storage.storageClassName)).toBe("openebs-hostpath");
});

test("name and reclaim policy can be chosen", async () => {
  const storage = await make({ storageClassName: "other", reclaimPolicy: "Retain" });
  expect(the("StorageClass").inputs).toMatchObject({ metadata: { name: "other" }, reclaimPolicy: "Retain" });
  expect(await valueOf(storage.storageClassName)).toBe("other");
});

test("where a provisioner is there already, only the class is made", async () => {
  await make({ install: "class", storageClassName: "second", basePath: "/var/openebs/second" });
  expect(objects().map(({ type }) => type.split(":").pop())).toEqual(["StorageClass"]);
  expect(the("StorageClass").inputs).toMatchObject({ metadata: { name: "second" }, provisioner: "openebs.io/local" });
  expect(parse(the("StorageClass").inputs.metadata.annotations["cas.openebs.io/config"])[1].value).toBe("/var/openebs/second");
});

test("what is the cluster's says which stack made it, in labels that select nothing", async () => {
  await make();
  for (const kind of ["Namespace", "StorageClass", "ClusterRole", "ClusterRoleBinding"]) expect(the(kind).inputs.metadata.labels).toMatchObject({ "build-platform/stack": "unit", "app.kubernetes.io/part-of": "build-platform" });
  expect(JSON.stringify(the("Deployment").inputs.spec)).not.toContain("build-platform/stack");
});

test("the provisioner knows its images, its base path and itself, and sends nothing home", async () => {
  await make();
  const pod = the("Deployment").inputs.spec.template.spec;
  const [container] = pod.containers;
  const env = Object.fromEntries(container.env.map((e: { name: string }) => [e.name, e]));
  expect(container.image).toBe("registry.test/provisioner:1");
  expect(env.OPENEBS_IO_HELPER_IMAGE.value).toBe("registry.test/helper:1");
  expect(env.OPENEBS_IO_BASE_PATH.value).toBe("/var/openebs/local");
  expect(env.OPENEBS_IO_ENABLE_ANALYTICS.value).toBe("false");
  expect(env.OPENEBS_SERVICE_ACCOUNT.valueFrom.fieldRef.fieldPath).toBe("spec.serviceAccountName");
  expect(container.securityContext).toMatchObject({ allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } });
  expect(container.resources.limits.memory).toBeDefined();
  expect(pod).not.toHaveProperty("imagePullSecrets");
  expect(env).not.toHaveProperty("OPENEBS_IO_IMAGE_PULL_SECRETS");
  expect(all("Secret")).toHaveLength(0);
});

test("the cluster role holds no wildcard, no Secrets and no pods; pods only in its own namespace", async () => {
  await make();
  const cluster = the("ClusterRole").inputs.rules as { apiGroups: string[]; resources: string[]; verbs: string[] }[];
  for (const rule of [...cluster, ...the("Role").inputs.rules]) {
    expect([...rule.apiGroups, ...rule.resources, ...rule.verbs]).not.toContain("*");
    expect(rule.resources).not.toContain("secrets");
  }
  expect(cluster.flatMap((rule) => rule.resources)).not.toContain("pods");
  expect(the("Role").inputs.metadata.namespace).toBe("openebs");
});

test("a registry login reaches provisioner and helper pods, as a Secret", async () => {
  await make({ pulls: { dockerConfigJson: '{"auths":{}}' } });
  const pod = the("Deployment").inputs.spec.template.spec;
  expect(pod.imagePullSecrets).toEqual([{ name: "registry-login" }]);
  expect(pod.containers[0].env).toContainEqual({ name: "OPENEBS_IO_IMAGE_PULL_SECRETS", value: "registry-login" });
  expect(the("Secret").inputs.type).toBe("kubernetes.io/dockerconfigjson");
});

test("every object is namespaced where it can be", async () => {
  await make();
  const clusterWide = ["Namespace", "ClusterRole", "ClusterRoleBinding", "StorageClass"];
  for (const { type, inputs } of objects()) {
    if (!clusterWide.includes(type.split(":").pop()!)) expect(inputs.metadata.namespace).toBe("openebs");
  }
});

test.each(["", "relative/path", "/", "/var", "/var/../etc/x", "/var//x", "/var/x y"])("base path %j is refused before anything is made", async (basePath) => {
  expect(() => new OpenEbsStorage("storage", { ...args, basePath })).toThrow(expect.objectContaining({ errors: [{ propertyPath: "basePath", reason: expect.stringContaining(`"${basePath}"`) }] }));
  await settled();
  expect(registered.filter((r) => r.type !== "build-platform:storage:OpenEbsStorage")).toEqual([]);
});

test.each(["/data", "/mnt", "/disk-1", "/etc/x", "/var/lib"])("base path %j is accepted: the provisioner refuses the root alone", (basePath) => {
  expect(misfit(nodeFolder, basePath)).toBeUndefined();
});

test.each(["/etc", "/usr", "/proc", "/sys", "/root", "/lib64", "/.", "/..", "/data/", "/etc/"])("%j is refused by name: it is the system's, or no plain folder", (folder) => {
  expect(misfit(nodeFolder, folder)).toMatch(/^"\/[^"]*" is not an absolute path/);
});

test("the provisioner has the liveness probe of the real chart, which finds the process that the image runs", async () => {
  await make();
  const { livenessProbe } = the("Deployment").inputs.spec.template.spec.containers[0];
  expect(livenessProbe).toMatchObject({ initialDelaySeconds: 30, periodSeconds: 60 });
  const [shell, flag, script] = livenessProbe.exec.command;
  expect([shell, flag]).toEqual(["sh", "-c"]);
  // pgrep sees the first 15 letters of a program's name.
  expect(script).toContain(`"^${"provisioner-localpv".slice(0, 15)}.*"`);
  // The same for a name that nothing else on this machine has: a sandbox may run here.
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "provisioner-"));
  const name = `p${process.pid}-localpv-like`;
  const healthy = () => spawnSync(shell, [flag, script.replace("provisioner-loc", name.slice(0, 15))]).status;
  expect(healthy()).toBe(1);
  fs.symlinkSync("/bin/sleep", path.join(folder, name));
  const running = spawn(path.join(folder, name), ["60"]);
  try {
    await once(running, "spawn");
    expect(healthy()).toBe(0);
  } finally {
    running.kill("SIGKILL");
    fs.rmSync(folder, { recursive: true });
  }
});

test("any path of two plain folders or more is accepted, and comes back from the annotation as it was", () => {
  const folder = fc.stringMatching(/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}$/).filter((name) => name !== "." && name !== "..");
  fc.assert(
    fc.property(fc.array(folder, { minLength: 2, maxLength: 6 }), (folders) => {
      const basePath = `/${folders.join("/")}`;
      expect(misfit(nodeFolder, basePath)).toBeUndefined();
      expect(parse(casConfig(basePath))[1].value).toBe(basePath);
    }),
  );
});
