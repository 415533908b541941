/**
 * Kubernetes quantities ("500m", "2Gi", "15G"), as the API server reads and writes them.
 * https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
 *
 * Not left to the Kubernetes client's quantityToScalar: it throws on "1.5Gi", makes a float of "100m", and writes nothing back.
 */

const binarySuffixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const decimalSuffixes = ["", "k", "M", "G", "T", "P", "E"];
const pattern = /^(\d{1,15})(?:\.(\d{1,3}))?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$/;

interface Parsed {
  /** The value in thousandths, which holds every quantity `pattern` lets through exactly or rounded up. */
  millis: bigint;
  binary: boolean;
}

function parse(text: string): Parsed | undefined {
  const match = pattern.exec(text);
  if (!match) return undefined;
  const [, whole, fraction = "", suffix = ""] = match;
  const thousandths = BigInt(whole) * 1000n + BigInt(fraction.padEnd(3, "0"));
  if (suffix === "m") return { millis: (thousandths + 999n) / 1000n, binary: false };
  const binaryPower = binarySuffixes.indexOf(suffix);
  if (suffix !== "" && binaryPower > 0) return { millis: thousandths * 1024n ** BigInt(binaryPower), binary: true };
  return { millis: thousandths * 1000n ** BigInt(decimalSuffixes.indexOf(suffix)), binary: false };
}

/** Whether `text` is a quantity without sign or exponent, such as "100m", "1.5Gi" or "2". */
export function isQuantity(text: string): boolean {
  return parse(text) !== undefined;
}

/**
 * The value of a quantity in thousandths of its unit (cores or bytes).
 * @throws when `text` is no quantity
 */
export function quantityMillis(text: string): bigint {
  const parsed = parse(text);
  if (!parsed) throw new Error(`"${text}" is not a Kubernetes quantity such as "500m" or "2Gi"`);
  return parsed.millis;
}

/**
 * The form in which the API server gives a quantity back: "1000m" is "1", "2048Mi" is "2Gi", "0.5" is "500m".
 * Sending this form keeps `pulumi refresh` free of drift.
 * @throws when `text` is no quantity
 */
export function canonicalQuantity(text: string): string {
  const millis = quantityMillis(text);
  if (millis === 0n) return "0";
  const binary = pattern.exec(text)?.[3]?.endsWith("i") ?? false;
  if (millis % 1000n !== 0n) return `${millis}m`;
  let value = millis / 1000n;
  // The API server writes small whole numbers without a binary suffix either way.
  const [base, suffixes] = binary && value >= 1024n ? [1024n, binarySuffixes] : [1000n, decimalSuffixes];
  let power = 0;
  while (value % base === 0n && power < suffixes.length - 1) {
    value /= base;
    power += 1;
  }
  return `${value}${suffixes[power]}`;
}

/** Requests and limits of one container, as quantities. */
export interface Resources {
  requests?: Quantities;
  limits?: Quantities;
}

/** Of a container: processors, memory, and what it writes on the node's own disk (layers, logs, emptyDirs). */
interface Quantities {
  cpu?: string;
  memory?: string;
  ephemeralStorage?: string;
}

/** `resources` as the API server has them: with its names, and every quantity in its own form. */
export function canonicalResources(resources: { requests?: object; limits?: object }): { requests?: Record<string, string>; limits?: Record<string, string> } {
  const each = (list: object) =>
    Object.fromEntries(Object.entries(list as Record<string, string | undefined>).flatMap(([k, v]) => (v === undefined ? [] : [[k === "ephemeralStorage" ? "ephemeral-storage" : k, canonicalQuantity(v)]])));
  const out: ReturnType<typeof canonicalResources> = {};
  if (resources.requests) out.requests = each(resources.requests);
  if (resources.limits) out.limits = each(resources.limits);
  return out;
}

/** A volume's source of room on the node's disk that goes with its pod; the kubelet evicts a pod that writes more than `size`. */
export const scratch = (size?: string): { emptyDir: { sizeLimit?: string } } => ({ emptyDir: size === undefined ? {} : { sizeLimit: canonicalQuantity(size) } });
