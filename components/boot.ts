import type { V1Container, V1PodSpec } from "@kubernetes/client-node";

// How a Jenkins is tried. Three ask for it: the rollout's rehearsal on an empty home (jenkins-master/rehearsal.ts), the check of a
// snapshot (jenkins-backup/pods.ts), and `npm run rehearse`, `upgrade` and `rollback`, which are that rehearsal on a snapshot's copy.

/** What a Jenkins runs at its start that only shows whether it comes up: no build starts. Groovy without single quotes. */
export const quietHook = "hudson.model.Hudson.instance.doQuietDown()";

/**
 * What a copy runs besides: it knows no cloud to ask for agents. Where people log in through another realm than Jenkins' own, such as
 * LDAP, it has the local administrator instead: who asks it needs one, and no directory is asked.
 */
const copyHook = [
  quietHook,
  "def jenkins = hudson.model.Hudson.instance",
  "try { jenkins.clouds.clear() } catch (Throwable ignored) { }",
  "if (!(jenkins.securityRealm instanceof hudson.security.HudsonPrivateSecurityRealm)) {",
  '  def secret = { new File("/run/secrets/jenkins/" + it).text.trim() }',
  "  def realm = new hudson.security.HudsonPrivateSecurityRealm(false)",
  '  realm.createAccount(secret("admin-user"), secret("admin-password"))',
  "  def strategy = new hudson.security.FullControlOnceLoggedInAuthorizationStrategy()",
  "  strategy.allowAnonymousRead = false",
  "  jenkins.securityRealm = realm",
  "  jenkins.authorizationStrategy = strategy",
  "}",
].join("\n");

/**
 * Shell that makes a copy of snapshot $SNAPSHOT, or of the latest, in the backup's restic container: the home, and in /scratch `log`,
 * `started` (seconds since 1970), `inventory` and, where it is whole, `restored`. The copy has no queue and no agents to connect to.
 */
export const restoreCopy = [
  "started=$(date +%s)",
  'if sh /scripts/home.sh restore "${SNAPSHOT:-latest}" /var/jenkins_home >/scratch/log 2>&1; then',
  "  sh /scripts/home.sh inventory /var/jenkins_home >/scratch/inventory; echo ok >/scratch/restored",
  "  rm -rf /var/jenkins_home/queue.xml /var/jenkins_home/nodes; mkdir -p /var/jenkins_home/init.groovy.d",
  `  echo '${copyHook}' >/var/jenkins_home/init.groovy.d/00-backup-verification.groovy`,
  "fi; cat /scratch/log; echo $started >/scratch/started",
].join("\n");

/** As whom every pod runs that mounts a home: the user jenkins of its image, which owns the files. */
export const homeSecurity = {
  runAsUser: 1000,
  runAsGroup: 1000,
  runAsNonRoot: true,
  fsGroup: 1000,
  // A home of many files is not walked at every start.
  fsGroupChangePolicy: "OnRootMismatch",
  seccompProfile: { type: "RuntimeDefault" },
};

/**
 * What a pod that only boots the controller has from the controller's own: all of the pod's fields but its rights, its way before
 * others and the node's network, Jenkins' container, and what runs before it. What runs beside Jenkins for as long as it does has nothing to do there.
 */
export function bootParts({ containers, initContainers = [], volumes = [], priorityClassName: _, hostNetwork: __, ...spec }: V1PodSpec) {
  return {
    spec: { ...spec, automountServiceAccountToken: false, restartPolicy: "Never" },
    jenkins: containers.find(({ name }) => name === "jenkins")!,
    before: initContainers.filter(({ restartPolicy }) => restartPolicy !== "Always"),
    volumes,
  };
}

/** Where Jenkins has its login page: below the prefix that it is started with, whatever its probes ask for. */
export const loginPath = ({ env = [] }: Pick<V1Container, "env">): string => `${/(?:^|\s)--prefix=(\S*)/.exec(env.find(({ name }) => name === "JENKINS_OPTS")?.value ?? "")?.[1] ?? ""}/login`;

/** Keeps a pod to nodes of these architectures. */
export const onArchitectures = (values: string[]) => ({
  nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [{ matchExpressions: [{ key: "kubernetes.io/arch", operator: "In", values }] }] } },
});
