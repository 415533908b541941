import * as fs from "node:fs";
import { run } from "../shell";

/** Debian packages that nodes need, which see the host's /usr. */
export const CLUSTER_PACKAGES = [
  "ca-certificates", "conntrack", "containernetworking-plugins", "ethtool", "iproute2", "ipset", "iptables", "kmod", "mount",
  "nftables", "openssh-client", "openssh-server", "procps", "socat", "tini", "util-linux",
];

/** Installs the Debian packages that are missing; their services are not started. */
export async function installPackages(names: string[]): Promise<void> {
  const known = await run("dpkg-query", ["-W", "-f", "${Package} ${db:Status-Status}\n", ...names], { allowFailure: true });
  const installed = new Set(known.stdout.split("\n").filter((line) => line.endsWith(" installed")).map((line) => line.split(" ")[0]));
  const missing = names.filter((name) => !installed.has(name));
  if (missing.length === 0) return;
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive", RUNLEVEL: "1" };
  // policy-rc.d is Debian's switch against starting daemons at installation; an existing one is left alone.
  const policy = "/usr/sbin/policy-rc.d";
  const own = !fs.existsSync(policy);
  if (own) fs.writeFileSync(policy, "#!/bin/sh\nexit 101\n", { mode: 0o755 });
  try {
    await run("apt-get", ["update", "-q"], { env });
    await run("apt-get", ["install", "-y", "-q", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", ...missing], { env });
  } finally {
    if (own) fs.rmSync(policy, { force: true });
  }
}
