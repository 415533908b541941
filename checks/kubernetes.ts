/** Minor versions of Kubernetes that the platform is made for, oldest first: the three that Kubernetes itself maintains. The tests run on the newest, the campaign has those for each. */
export const supportedMinors = ["1.35", "1.36", "1.37"] as const;

/** One of them. */
export type SupportedMinor = (typeof supportedMinors)[number];

/** The one that `kubeadm init` brings today. */
export const newestMinor: SupportedMinor = supportedMinors[supportedMinors.length - 1];

/** The three as people write them, "1.35 to 1.37". */
export const supportedText = `${supportedMinors[0]} to ${newestMinor}`;

/**
 * What is to be said of a server's version, "v1.37.2" as it names itself; "" where it is one of the supported.
 */
export function versionRemark(version: string): string {
  const minor = /^v?(\d+\.\d+)/.exec(version)?.[1];
  if (minor === undefined) return `the server does not say its version; the platform is made for Kubernetes ${supportedText}`;
  if ((supportedMinors as readonly string[]).includes(minor)) return "";
  const older = minor.localeCompare(newestMinor, "en", { numeric: true }) < 0;
  return older
    ? `Kubernetes ${minor} is past its support and older than what the platform is made for (${supportedText}): upgrade it with kubeadm upgrade`
    : `not tried with Kubernetes ${minor}, only with ${supportedText}: try it on a test cluster first`;
}
