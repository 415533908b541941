import { names } from "../components/jenkins-backup/names";
import type { PlatformConfig, Problem } from "../config";
import { architectures } from "../config/builds";
import type { Neighbourhood } from "./neighbours";

/** What of a standby the config cannot know: its node, and a failover under way. */
export interface StandbyFacts {
  /** Whether the standby's claim is there, and with it a choice of a node that was made. */
  made: boolean;
  /** Value of the label kubernetes.io/hostname that the home's volume asks for; absent where there is none. */
  homeHost?: string;
  /** Last step that a failover under way has done. */
  failover?: string;
}

/** Reads them; `found` answers undefined for what is not there or may not be read. */
export async function readStandby({ namespaces }: Pick<PlatformConfig, "namespaces">, found: <T>(target: string) => Promise<T | undefined>): Promise<StandbyFacts> {
  type Volume = { spec: { nodeAffinity?: { required?: { nodeSelectorTerms?: { matchExpressions?: { key: string; values?: string[] }[] }[] } } } };
  const here = `/api/v1/namespaces/${namespaces.jenkins}`;
  const [claim, home, journal] = await Promise.all([
    found(`${here}/persistentvolumeclaims/${names.standbyClaim}`),
    found<{ spec: { volumeName?: string } }>(`${here}/persistentvolumeclaims/jenkins-home`),
    found<{ data?: { state?: string } }>(`${here}/configmaps/${names.failover}`),
  ]);
  const volume = home?.spec.volumeName ? await found<Volume>(`/api/v1/persistentvolumes/${home.spec.volumeName}`) : undefined;
  const homeHost = volume?.spec.nodeAffinity?.required?.nodeSelectorTerms?.flatMap(({ matchExpressions = [] }) => matchExpressions).find(({ key }) => key === "kubernetes.io/hostname")?.values?.[0];
  const failover = journal?.data?.state === undefined ? undefined : (JSON.parse(journal.data.state) as { phase: string }).phase;
  return { made: claim !== undefined, ...(homeHost !== undefined && { homeHost }), ...(failover !== undefined && { failover }) };
}

/** A failover stops Jenkins and gives its claim another volume: an update beside it would start Jenkins in the middle of that. */
export function failoverProblem({ failover }: StandbyFacts, stack: string): Problem[] {
  return failover === undefined ? [] : [{ key: "backup.standby", found: `a failover that has not come to its end (last step done: ${failover})`, expected: "none while the stack is changed", fix: `npm run failover -- ${stack} goes on with it` }];
}

/** What keeps a standby's node from taking the volume, or Jenkins; nodes that may not be read are not judged. */
export function standbyNodeProblems({ backup, controller, imageBuild, builds }: Pick<PlatformConfig, "backup" | "controller" | "imageBuild" | "builds">, { made, homeHost }: StandbyFacts, { nodes }: Pick<Neighbourhood, "nodes">): Required<Problem>[] {
  if (!backup?.standby || !nodes?.length) return [];
  const key = "backup.standby.node";
  const { node: name } = backup.standby;
  const node = nodes.find(({ metadata }) => metadata.name === name);
  const fix = "pulumi config set --path backup.standby.node <name>, one of kubectl get nodes";
  if (!node) return [{ key, found: `${name}, which is no node of the cluster`, expected: `another node than the home's: ${nodes.map(({ metadata }) => metadata.name).join(", ")}`, fix }];
  const labels = node.metadata.labels ?? {};
  // Once it is made, Jenkins may well be on it: after a failover.
  if (!made && homeHost !== undefined && homeHost === (labels["kubernetes.io/hostname"] ?? name)) return [{ key, found: `${name}, on which the home lies`, expected: "another node than the home's, since the standby is for its loss", fix }];
  const missing = Object.entries(controller.nodeSelector).filter(([label, value]) => labels[label] !== value);
  if (missing.length > 0) return [{ key, found: `${name}, which lacks label ${missing.map((pair) => pair.join("=")).join(", ")} of controller.nodeSelector`, expected: "a node on which Jenkins can be started", fix: `kubectl label node ${name} ${missing.map((pair) => pair.join("=")).join(" ")}, or name another node` }];
  const architecture = node.status?.nodeInfo?.architecture;
  const builtFor = controller.image in builds ? architectures(imageBuild, nodes.flatMap(({ status }) => status?.nodeInfo?.architecture ?? [])) : undefined;
  if (architecture !== undefined && builtFor && !builtFor.includes(architecture)) return [{ key, found: `${name}, which is ${architecture}, while the controller's image is built for ${builtFor.join(" and ")}`, expected: "a node on which Jenkins can be started", fix: `name another node, or build for it as well: imageBuild.platforms, linux/${architecture}` }];
  return [];
}
