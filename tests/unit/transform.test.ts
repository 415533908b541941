import { AgentImages } from "../../components/agent-images";
import { IngressNginx } from "../../components/ingress-nginx";
import { IngressTraefik } from "../../components/ingress-traefik";
import { JenkinsBackup } from "../../components/jenkins-backup";
import { OpenEbsStorage } from "../../components/openebs-storage";
import { registered, settled, useMocks } from "./mocks";

// A component is made several times in one test, on a busy machine as well.
jest.setTimeout(60_000);

// `any`: one change for objects of any kind.
type Change = (args: any) => void;

const backup = {
  namespace: "jenkins", homeClaim: "jenkins-home", image: "restic:1", controllerPod: { containers: [{ name: "jenkins", image: "jenkins:1" }] },
  repository: "s3:https://s3.test/home", password: "p", keysRepository: "s3:https://s3.test/keys", keysPassword: "k", keep: { last: 3, daily: 7, weekly: 4, monthly: 6 },
};

/** Each component with changes of its objects, and what Pulumi calls the object of each change. */
test.each<[string, (transform?: Record<string, Change>) => unknown, Record<string, string>]>([
  ["OpenEbsStorage", (transform) => new OpenEbsStorage("c", { basePath: "/var/openebs/local", provisionerImage: "p", helperImage: "h", transform }), { storageClass: "c-class", deployment: "c-provisioner" }],
  ["IngressTraefik", (transform) => new IngressTraefik("c", { image: "i", transform }), { deployment: "c-traefik", service: "c-service", configMap: "c-traefik-settings" }],
  ["IngressNginx", (transform) => new IngressNginx("c", { image: "i", transform }), { deployment: "c-controller", service: "c-service", configMap: "c-settings" }],
  ["AgentImages", (transform) => new AgentImages("c", { registry: { host: "r.test", prefix: "", insecure: false }, builder: "in-cluster", images: {}, inCluster: { image: "buildkit:1" }, transform }), { namespace: "c-builds" }],
  ["JenkinsBackup", (transform) => new JenkinsBackup("c", { ...backup, transform }), { backup: "c-job", verify: "c-verify-job" }],
])("the main objects of %s can be changed last, each by itself; without a change they are as they were", async (_, make, objects) => {
  const made = async (transform?: Record<string, Change>) => {
    await useMocks();
    make(transform);
    await settled();
    return Object.fromEntries(registered.map(({ name, inputs }) => [name, inputs]));
  };
  const plain = await made();
  for (const [key, name] of Object.entries(objects)) {
    const change: Change = ({ metadata }) => void Object.assign(metadata.labels, { changed: "yes" });
    const changed = await made({ [key]: change });
    expect(changed[name].metadata.labels).toHaveProperty("changed", "yes");
    expect(changed).toEqual({ ...plain, [name]: { ...plain[name], metadata: { ...plain[name].metadata, labels: { ...plain[name].metadata.labels, changed: "yes" } } } });
  }
  expect(await made()).toEqual(plain);
});
