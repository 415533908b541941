import * as http from "node:http";
import type { AddressInfo } from "node:net";
import { mavenCentral } from "../../components/jenkins-master/mirrors";

/** A mirror of Maven Central: asks it for what it is asked for, and keeps count. */
export class CentralMirror {
  readonly asked: string[] = [];
  address = "";
  private readonly server = http.createServer((request, response) => {
    this.asked.push(request.url!);
    void fetch(`${mavenCentral}${request.url!.replace(/^\/mirror/, "")}`, { method: request.method }).then(
      async (answer) => response.writeHead(answer.status).end(Buffer.from(await answer.arrayBuffer())),
      () => response.writeHead(502).end(),
    );
  });

  async start(host: string): Promise<void> {
    await new Promise<void>((resolve) => this.server.listen(0, host, resolve));
    this.address = `http://${host}:${(this.server.address() as AddressInfo).port}/mirror`;
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }
}
