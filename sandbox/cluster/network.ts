import * as fs from "node:fs";
import * as path from "node:path";
import { DUAL_STACK, NETWORK, PREFIX, STATE } from "../paths";
import { run, waitFor } from "../shell";

const COMMENT = `${PREFIX}sandbox`;
/** Switches of the host that let nodes reach each other and the world, and where their former values are kept. */
const FORWARDS = [
  { file: "/proc/sys/net/ipv4/ip_forward", saved: path.join(STATE, "ip_forward.before") },
  { file: "/proc/sys/net/ipv6/conf/all/forwarding", saved: path.join(STATE, "ip6_forward.before") },
];

/** Whether nodes, pods and Services have IPv6 beside IPv4. */
export const dualStack = (): boolean => fs.existsSync(DUAL_STACK);

/** The iptables rules that let nodes and pods reach the package registries, as [table, chain, ...match]. */
const RULES: [string, string, ...string[]][] = [
  ["nat", "POSTROUTING", "-s", NETWORK.subnet, "!", "-d", NETWORK.subnet, "-j", "MASQUERADE"],
  ["filter", "FORWARD", "-i", NETWORK.bridge, "-j", "ACCEPT"],
  ["filter", "FORWARD", "-o", NETWORK.bridge, "-j", "ACCEPT"],
];

function iptables(operation: "-C" | "-I" | "-D", [table, chain, ...match]: (typeof RULES)[number]) {
  return run("iptables", ["-w", "-t", table, operation, chain, "-m", "comment", "--comment", COMMENT, ...match], { allowFailure: true });
}

/** Makes the bridge, turns forwarding on and adds the rules. Running it again changes nothing. */
export async function networkUp(): Promise<void> {
  if (!fs.existsSync(`/sys/class/net/${NETWORK.bridge}`)) {
    await run("ip", ["link", "add", NETWORK.bridge, "type", "bridge"]);
    await run("ip", ["addr", "add", `${NETWORK.gateway}/24`, "dev", NETWORK.bridge]);
  }
  await run("ip", ["link", "set", NETWORK.bridge, "up"]);
  await run("modprobe", ["-a", "br_netfilter", "overlay"], { allowFailure: true }); // built into some kernels
  if (dualStack()) await run("ip", ["addr", "replace", `${NETWORK.v6.prefix}1/64`, "dev", NETWORK.bridge, "nodad"]);
  for (const { file, saved } of dualStack() ? FORWARDS : FORWARDS.slice(0, 1)) {
    if (!fs.existsSync(saved)) fs.writeFileSync(saved, fs.readFileSync(file));
    fs.writeFileSync(file, "1");
  }
  for (const rule of RULES) {
    if ((await iptables("-C", rule)).code !== 0) {
      const added = await iptables("-I", rule);
      if (added.code !== 0) throw new Error(`iptables refused ${rule.join(" ")}: ${added.stderr.trim()}`);
    }
  }
}

/** Removes exactly what `networkUp` made and puts forwarding back as it was. */
export async function networkDown(): Promise<void> {
  for (const rule of RULES) {
    while ((await iptables("-C", rule)).code === 0) await iptables("-D", rule);
  }
  if (fs.existsSync(`/sys/class/net/${NETWORK.bridge}`)) await run("ip", ["link", "del", NETWORK.bridge]);
  for (const { file, saved } of FORWARDS.filter((each) => fs.existsSync(each.saved))) {
    fs.writeFileSync(file, fs.readFileSync(saved));
    fs.rmSync(saved);
  }
}

/** Makes a network namespace on the bridge; every node is a host of its own there. Finishes one that was left half made. */
export async function joinNetwork(namespace: string, index: number, address: string): Promise<void> {
  const [outside, inside] = [`${PREFIX}v${index}`, `${PREFIX}i${index}`];
  const inNode = (...args: string[]) => run("ip", ["-n", namespace, ...args]);
  if (!fs.existsSync(`/run/netns/${namespace}`)) await run("ip", ["netns", "add", namespace]);
  if ((await run("ip", ["-n", namespace, "link", "show", "eth0"], { allowFailure: true })).code !== 0) {
    // The kernel takes a moment to remove the link of a namespace that has just gone.
    await run("ip", ["link", "del", outside], { allowFailure: true });
    await waitFor(`${outside} of an earlier node to go`, 10, async () => !fs.existsSync(`/sys/class/net/${outside}`));
    await run("ip", ["link", "add", outside, "type", "veth", "peer", "name", inside]);
    await run("ip", ["link", "set", outside, "master", NETWORK.bridge, "up"]);
    await run("ip", ["link", "set", inside, "netns", namespace, "name", "eth0"]);
  }
  await inNode("addr", "replace", `${address}/24`, "dev", "eth0");
  await inNode("link", "set", "lo", "up");
  await inNode("link", "set", "eth0", "up");
  await inNode("route", "replace", "default", "via", NETWORK.gateway);
  if (dualStack()) {
    await inNode("addr", "replace", `${NETWORK.v6.prefix}${index}/64`, "dev", "eth0", "nodad");
    await inNode("-6", "route", "replace", "default", "via", `${NETWORK.v6.prefix}1`);
  }
  // Many a network loses the word that a packet was too large for a pod's: whoever counts on it hangs here as it does there.
  const tooLarge = ["OUTPUT", "-p", "icmp", "--icmp-type", "fragmentation-needed", "-j", "DROP"];
  const rule = (operation: string) => run("nsenter", [`--net=/run/netns/${namespace}`, "iptables", "-w", operation, ...tooLarge], { allowFailure: true });
  if ((await rule("-C")).code !== 0) await rule("-A");
  const sysctls = ["net.ipv4.ip_forward=1", "net.bridge.bridge-nf-call-iptables=1", ...(dualStack() ? ["net.ipv6.conf.all.forwarding=1", "net.bridge.bridge-nf-call-ip6tables=1"] : [])];
  for (const sysctl of sysctls) await run("nsenter", [`--net=/run/netns/${namespace}`, "sysctl", "-q", "-w", sysctl]);
}
