import * as fs from "node:fs";
import * as path from "node:path";
import { REPO } from "../paths";
import { run } from "../shell";

/** Distributions whose packages the sandbox knows by name, with their releases. */
const HOSTS: Record<string, string[]> = { debian: ["12", "13"], ubuntu: ["22.04", "24.04"] };
const hostsText = Object.entries(HOSTS).map(([name, releases]) => `${name[0].toUpperCase()}${name.slice(1)} ${releases.join(" and ")}`).join(", ");

/** What is known of the machine that the sandbox is to run on. */
export interface Host {
  /** The text of /etc/os-release. */
  release: string;
  uid: number | undefined;
  /** What `go env GOVERSION` prints, "go1.26.8"; empty without Go. */
  go: string;
  /** Newest Go that the pins of sandbox/go ask for, "1.26.8". */
  wantedGo: string;
}

const older = (one: string, other: string): boolean => {
  const [a, b] = [one, other].map((text) => text.split(".").map(Number));
  const at = [0, 1, 2].find((i) => (a[i] ?? 0) !== (b[i] ?? 0));
  return at !== undefined && (a[at] ?? 0) < (b[at] ?? 0);
};

/** Why no sandbox can run there, each with what to do. */
export function hostProblems({ release, uid, go, wantedGo }: Host): string[] {
  const field = (name: string) => new RegExp(`^${name}="?([^"\\n]*)"?$`, "m").exec(release)?.[1] ?? "";
  const problems: string[] = [];
  if (uid !== 0) problems.push("the sandbox makes namespaces, mounts and a bridge: run it as root");
  if (!HOSTS[field("ID")]?.includes(field("VERSION_ID"))) problems.push(`this is ${field("PRETTY_NAME") || "an unknown system"}: the sandbox installs packages of ${hostsText}, run it on one of them`);
  const version = /^go(\d+\.\d+(?:\.\d+)?)/.exec(go)?.[1];
  if (version === undefined || older(version, wantedGo)) problems.push(`Go ${wantedGo} or newer is needed on PATH, found ${version ?? "none"}: distributions carry older ones, take it from go.dev/dl`);
  return problems;
}

/** Those of this machine. */
export async function thisHost(): Promise<Host> {
  const folder = path.join(REPO, "sandbox", "go");
  const pins = fs.readdirSync(folder).flatMap((tool) => fs.readdirSync(path.join(folder, tool)).filter((file) => file.endsWith(".mod")).map((file) => fs.readFileSync(path.join(folder, tool, file), "utf8")));
  const wantedGo = pins.flatMap((text) => /^go (\S+)$/m.exec(text)?.[1] ?? []).reduce((newest, each) => (older(newest, each) ? each : newest));
  const go = await run("go", ["env", "GOVERSION"], { allowFailure: true }).then(({ stdout }) => stdout.trim(), () => "");
  return { release: fs.existsSync("/etc/os-release") ? fs.readFileSync("/etc/os-release", "utf8") : "", uid: process.getuid?.(), go, wantedGo };
}

/**
 * The resolv.conf that a node needs of its own: of systemd-resolved's two files the one that names the real servers, since the other's
 * 127.0.0.53 is not reached from a node, nor is what the host's /etc/resolv.conf links to. Undefined where the host's own will do.
 * @param resolved the text of /run/systemd/resolve/resolv.conf, where that is there
 */
export function nodeResolvers(host: string, resolved: string | undefined): string | undefined {
  const servers = [...host.matchAll(/^nameserver\s+(\S+)/gm)].map(([, address]) => address);
  return resolved !== undefined && servers.every((address) => address.startsWith("127.") || address === "::1") ? resolved : undefined;
}
