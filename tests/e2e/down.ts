import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import { NETWORK, PREFIX, STATE } from "../../sandbox/paths";

/** Runs `down` and fails when any trace of the sandbox is left on the machine. */
const text = (command: string, ...args: string[]) => spawnSync(command, args, { encoding: "utf8" }).stdout;

const ended = spawnSync("npm", ["run", "-s", "sandbox", "--", "down"], { stdio: ["ignore", "inherit", "inherit"] });
const commandLines = fs.readdirSync("/proc").filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid).map((pid) => {
  try {
    return fs.readFileSync(`/proc/${pid}/cmdline`, "utf8").replace(/\0/g, " ");
  } catch {
    return "";
  }
});
const traces: Record<string, boolean> = {
  "exit code": ended.status !== 0,
  "state folder": fs.existsSync(STATE),
  bridge: fs.existsSync(`/sys/class/net/${NETWORK.bridge}`),
  "network namespaces": text("ip", "netns", "list").includes(PREFIX),
  mounts: fs.readFileSync("/proc/self/mounts", "utf8").includes(STATE),
  "iptables rules": text("iptables-save").includes(`${PREFIX}sandbox`),
  cgroups: text("find", "/sys/fs/cgroup", "-maxdepth", "2", "-name", `${PREFIX}*`).trim() !== "",
  processes: commandLines.some((line) => line.includes(`${STATE}/`)),
};
const left = Object.entries(traces).filter(([, found]) => found).map(([name]) => name);
if (left.length > 0) {
  process.stderr.write(`down left traces: ${left.join(", ")}\n`);
  process.exit(1);
}
