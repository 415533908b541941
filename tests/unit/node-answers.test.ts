import { spawn } from "node:child_process";
import { EventEmitter } from "node:events";
import { PassThrough } from "node:stream";
import { answers } from "../../cli/backup/cluster";

/** What kubectl says of a node's kubelet that is asked through the API server. */

jest.mock("node:child_process", () => ({ spawn: jest.fn() }));

/** A kubectl that says this on stderr and fails, or that succeeds where it has nothing to say. */
function kubectlSays(text: string): void {
  const streams = { stdin: new PassThrough(), stdout: new PassThrough(), stderr: new PassThrough() };
  const child = Object.assign(new EventEmitter(), streams);
  streams.stderr.on("end", () => child.emit("close", text === "" ? 0 : 1));
  jest.mocked(spawn).mockReturnValue(child as unknown as ReturnType<typeof spawn>);
  streams.stderr.end(text);
}

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
  kubectlSays(says);
  expect(await answers("worker-1")).toBe(answer);
  expect(jest.mocked(spawn)).toHaveBeenLastCalledWith("kubectl", expect.arrayContaining(["/api/v1/nodes/worker-1/proxy/healthz", "--request-timeout=5s"]), expect.anything());
});
