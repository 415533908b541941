import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { answers } from "../../cli/backup/cluster";

/** What kubectl says of a node's kubelet that is asked through the API server. */

const [folder, former] = [fs.mkdtempSync(path.join(os.tmpdir(), "kubectl-")), process.env.PATH];
beforeAll(() => {
  fs.writeFileSync(path.join(folder, "kubectl"), '#!/bin/sh\n[ -z "$KUBECTL_SAYS" ] || { echo "$KUBECTL_SAYS" >&2; exit 1; }\n', { mode: 0o755 });
  process.env.PATH = `${folder}:${former}`;
});
afterAll(() => {
  process.env.PATH = former;
  delete process.env.KUBECTL_SAYS;
  fs.rmSync(folder, { recursive: true });
});

const unreached = "Error from server (ServiceUnavailable): error trying to reach service: ";
const cases: [string, boolean | undefined][] = [
  ["", true],
  [`${unreached}dial tcp 10.88.0.11:10250: connect: no route to host`, false],
  [`${unreached}dial tcp 10.88.0.11:10250: connect: connection refused`, false],
  [`${unreached}dial tcp 10.88.0.11:10250: i/o timeout`, false],
  ["Unable to connect to the server: context deadline exceeded (Client.Timeout exceeded while awaiting headers)", false],
  // These tell nothing of the node.
  [`${unreached}tls: failed to verify certificate: x509: certificate signed by unknown authority`, undefined],
  ['Error from server (Forbidden): nodes "worker-1" is forbidden: User "deployer" cannot get resource "nodes/proxy"', undefined],
  ["The connection to the server 10.88.0.2:6443 was refused - did you specify the right host or port?", undefined],
];
test.each(cases)("%j", async (says, answer) => {
  process.env.KUBECTL_SAYS = says;
  expect(await answers("worker-1")).toBe(answer);
});
