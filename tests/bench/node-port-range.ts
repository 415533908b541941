import * as https from "node:https";
import { type Inspection, nodeScript } from "../../components/node-port-range";
import { addressOf, inNode, nodeNamed } from "../../sandbox/cluster/nodes";
import { waitFor } from "../../sandbox/shell";
import { middle, saveBench } from "./table";

/**
 * Seconds without a ready API server while the node-port range changes on the sandbox's first control-plane node: by
 * scripts/node-port-range, and by kubeadm's own way (`kubeadm init phase control-plane apiserver`), in turns in one
 * run. The range is as it was afterwards.
 */
const ROUNDS = 3;
const RANGE = "80-32767";
const node = nodeNamed("control-plane-1");
const agent = new https.Agent({ rejectUnauthorized: false, keepAlive: false });

/** Status of /readyz; 0 where nobody answers within a second. The certificate is not looked at: only the time counts. */
function readyz(): Promise<number> {
  return new Promise((resolve) => {
    const request = https.get({ host: addressOf(node), port: 6443, path: "/readyz", agent, timeout: 1000 }, (answer) => {
      answer.resume().on("end", () => resolve(answer.statusCode ?? 0)).on("error", () => resolve(0));
    });
    request.on("timeout", () => request.destroy());
    request.on("error", () => resolve(0));
  });
}

const byScript = (args: string) => inNode(node, ["sh", "-s", "--", ...args.split(" ")], { input: nodeScript });

type Shown = Pick<Inspection, "flag" | "serving" | "mark"> & { ready: boolean; before: string | null };
const show = async () => JSON.parse((await byScript(`show --json --range ${RANGE}`)).stdout) as Shown;

interface Figures {
  /** Seconds from the first answer that is not 200 to the first of the 200s that last. */
  withoutApi: number;
  /** Seconds until the new value is served and ready. */
  total: number;
}

/** Measures one change; `served` is what the API server serves after it. */
async function measure(change: () => Promise<unknown>, served: string): Promise<Figures> {
  let running = true;
  let [down, up] = [0, 0];
  const watch = (async () => {
    while (running) {
      const status = await readyz();
      if (status !== 200) [down, up] = [down || Date.now(), 0];
      else if (down && !up) up = Date.now();
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  })();
  const started = Date.now();
  try {
    await change();
    await waitFor(`the API server to serve ${served}`, 300, async () => {
      const now = await show();
      return now.serving === served && now.ready;
    });
    const total = (Date.now() - started) / 1000;
    // A start that is not over yet would show itself by another answer than 200.
    await new Promise((resolve) => setTimeout(resolve, 5000));
    return { withoutApi: (up - down) / 1000, total };
  } finally {
    running = false;
    await watch;
  }
}

async function main(): Promise<void> {
  const found = await show();
  const wasSet = found.flag === RANGE;
  if (found.flag !== null && !wasSet) throw new Error(`the sandbox's node-port range is ${found.flag}; expected none or ${RANGE}`);
  const ways = {
    "kubeadm init phase control-plane apiserver": () => measure(() => inNode(node, ["kubeadm", "init", "phase", "control-plane", "apiserver", "--config", "/etc/kubeadm.yaml"]), "absent"),
    "node-port-range.sh apply": () => measure(() => byScript(`apply --range ${RANGE}${wasSet ? ` --mark ${found.mark}` : ""}`), RANGE),
  };
  const order = wasSet ? Object.entries(ways) : Object.entries(ways).reverse();
  const figures: Record<string, Figures[]> = {};
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, way] of order) {
      process.stderr.write(`round ${round + 1}: ${name} ...\n`);
      (figures[name] ??= []).push(await way());
    }
  }
  // Nothing is left to write: the manifest is the old one. What restore remembers and kubeadm-config go back too.
  if (found.before === null) await byScript("restore");

  const [script, kubeadm] = [figures["node-port-range.sh apply"], figures["kubeadm init phase control-plane apiserver"]];
  const pair = (pick: (each: Figures) => number): [number, number] => [middle(script.map(pick)), middle(kubeadm.map(pick))];
  const without = pair((each) => each.withoutApi);
  const each = (runs: Figures[]) => runs.map((run) => run.withoutApi.toFixed(1)).join(", ");
  saveBench(
    "node-port-range",
    {
      title: "Changing the node-port range: the script beside kubeadm's own way",
      ways: ["node-port-range.sh", "kubeadm init phase"],
      rows: [
        { what: "without a ready API server", seconds: without },
        { what: "until the new value is served and ready", seconds: pair((run) => run.total) },
      ],
      notes: [
        `Median of ${ROUNDS} rounds in turns; without API, each round: script ${each(script)}; kubeadm ${each(kubeadm)}.`,
        `Without API: ratio ${(without[0] / without[1]).toFixed(2)}; target at most 1.`,
      ],
    },
    { figures },
  );
}

main().catch((error: Error) => {
  process.stderr.write(`bench: ${error.message}\n`);
  process.exitCode = 1;
});
