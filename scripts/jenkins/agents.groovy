// What the kubernetes plugin leaves open about agents: builds begin as soon as theirs has connected, and pod templates with the annotation
// build-platform/min-idle have agents connected before builds come. Jenkins runs this at its start; what goes wrong in it is a line in the
// log, never a Jenkins that does not start, and leaves what the plugin does by itself.
// No text with a brace behind a dollar: images may put variables into files that they copy (JENKINS_ENABLE_ENV_SUBST).
import hudson.ExtensionList
import hudson.FilePath
import hudson.Launcher
import hudson.model.Computer
import hudson.model.Executor
import hudson.model.ExecutorListener
import hudson.model.OneOffExecutor
import hudson.model.Queue
import hudson.model.TaskListener
import hudson.model.queue.CauseOfBlockage
import hudson.model.queue.QueueListener
import hudson.model.queue.QueueTaskDispatcher
import hudson.remoting.Channel
import hudson.scheduler.CronTab
import hudson.slaves.Cloud
import hudson.slaves.CloudProvisioningListener
import hudson.slaves.ComputerListener
import hudson.slaves.NodeProvisioner
import hudson.Util
import hudson.init.InitMilestone
import java.util.concurrent.ConcurrentHashMap
import java.util.concurrent.TimeUnit
import java.util.logging.Level
import java.util.logging.Logger
import jenkins.model.Jenkins
import jenkins.util.Timer
import org.csanchez.jenkins.plugins.kubernetes.KubernetesCloud
import org.csanchez.jenkins.plugins.kubernetes.KubernetesComputer
import org.csanchez.jenkins.plugins.kubernetes.KubernetesProvisioningLimits
import org.csanchez.jenkins.plugins.kubernetes.KubernetesSlave
import org.jenkinsci.plugins.durabletask.executors.ContinuableExecutable
import org.jenkinsci.plugins.durabletask.executors.OnceRetentionStrategy

class NotNow extends CauseOfBlockage {
  final String shortDescription

  NotNow(String why) { shortDescription = why }
}

/**
 * The way from a build that waits to its agent's first line, without what only waits. Left to themselves Jenkins plans an agent at one of
 * its looks and makes it at the next; the plugin's launcher asks once a second whether a pod that is ready has connected as well; and a
 * build goes to an agent that the launcher lets in at the next look at the queue, every five seconds.
 */
class PromptStart implements ExecutorListener {
  /** Agents that may have their build while the launcher still waits for them, by name; true when that build is over. */
  private final Map<String, Boolean> early = new ConcurrentHashMap<>()
  private final Set<NodeProvisioner> asked = ConcurrentHashMap.newKeySet()

  void install() {
    PromptStart self = this
    ExtensionList.lookup(ComputerListener).add(new ComputerListener() {
      void preOnline(Computer computer, Channel channel, FilePath root, TaskListener listener) { if (computer instanceof KubernetesComputer) self.letIn(computer) }
      void onOnline(Computer computer, TaskListener listener) { if (computer instanceof KubernetesComputer && !self.early.containsKey(computer.name)) self.follow(computer, computer.node) }
    })
    ExtensionList.lookup(CloudProvisioningListener).add(new CloudProvisioningListener() {
      CauseOfBlockage canProvision(Cloud cloud, Cloud.CloudState state, int wanted) { self.comes(cloud, state.label, wanted) }
    })
    ExtensionList.lookup(QueueListener).add(new QueueListener() {
      void onEnterBuildable(Queue.BuildableItem item) { self.waits(item) }
    })
    ExtensionList.lookup(QueueTaskDispatcher).add(new QueueTaskDispatcher() {
      CauseOfBlockage canTake(hudson.model.Node node, Queue.BuildableItem item) {
        self.early[node.nodeName] ? new NotNow("its agent had its one build") : null
      }
    })
    ExtensionList.lookup(ExecutorListener).add(this)
  }

  /** An agent is planned and made at once. */
  void waits(Queue.BuildableItem item) {
    def label = item.assignedLabel
    NodeProvisioner provisioner = label == null ? Jenkins.get().unlabeledNodeProvisioner : label.nodeProvisioner
    if (!asked.add(provisioner)) return
    Computer.threadPoolForRemoting.submit({
      // The look at the queue that found the build ends before others see it.
      Queue.withLock({} as Runnable)
      asked.remove(provisioner)
      // A build that an agent has just been given counts as one that waits until it runs.
      for (int i = 0; i < 20 && Queue.instance.pendingItems.any { it.assignedLabel == label }; i++) Thread.sleep(50)
      if (!Queue.instance.buildableItems.any { it.assignedLabel == label }) return
      if (Jenkins.get().clouds.any { it instanceof KubernetesCloud && it.canProvision(new Cloud.CloudState(label, 0)) }) 2.times { provisioner.update() }
    } as Runnable)
  }

  /**
   * No agent is made for a build that has one: which is connected and not let in yet, to Jenkins neither coming nor free; or which it has just
   * been given, whereupon the agent is busy and the build counts as one that waits until it runs.
   */
  CauseOfBlockage comes(Cloud cloud, label, int wanted) {
    int coming = Jenkins.get().computers.count { Computer computer ->
      if (!(computer instanceof KubernetesComputer) || !computer.online || computer.acceptingTasks || !computer.launchSupported || early.containsKey(computer.name)) return false
      KubernetesSlave agent = computer.node
      agent?.cloudName == cloud.name && (label == null ? agent.mode == hudson.model.Node.Mode.NORMAL : label.matches(agent))
    }
    coming += Queue.instance.pendingItems.count { it.assignedLabel == label }
    coming >= wanted ? new NotNow("its agent is about to be ready") : null
  }

  /** An agent of a single container is ready when it connects; what else a pod has may have to be waited for. */
  void letIn(KubernetesComputer computer) {
    try {
      KubernetesSlave agent = computer.node
      if (agent == null || !computer.launching || !(agent.retentionStrategy instanceof OnceRetentionStrategy) || !agent.pod.map { it.spec.containers.size() == 1 }.orElse(false)) return
      // It does not end while the launcher waits for it, which would take that for a failure.
      ends(agent, false)
      early[agent.nodeName] = false
      computer.acceptingTasks = true
      follow(computer, agent)
    } catch (Throwable problem) {
      Logger.getLogger("build-platform.agents").log(Level.WARNING, "Agent " + computer.name + " is let in by its launcher", problem)
    }
  }

  private static void ends(KubernetesSlave agent, boolean may) {
    OnceRetentionStrategy strategy = agent.retentionStrategy
    synchronized (strategy) { strategy.@terminating = !may }
  }

  /** Looks until the launcher has let the agent in, or the agent is gone. */
  void follow(KubernetesComputer computer, KubernetesSlave agent) {
    if (agent == null || computer.node != agent) early.remove(computer.name)
    else if (computer.launchSupported) Timer.get().schedule({ follow(computer, agent) } as Runnable, 100, TimeUnit.MILLISECONDS)
    else if (early.containsKey(agent.nodeName)) {
      ends(agent, true)
      if (early[agent.nodeName]) agent.retentionStrategy.done(computer)
      if (early.remove(agent.nodeName)) agent.retentionStrategy.done(computer)
    } else Queue.instance.scheduleMaintenance()
  }

  void taskCompleted(Executor executor, Queue.Task task, long durationMS) { completed(executor) }

  void taskCompletedWithProblems(Executor executor, Queue.Task task, long durationMS, Throwable problems) { completed(executor) }

  /** Ends the agent as its own strategy does, if not now then when the launcher is done with it. */
  private void completed(Executor executor) {
    Computer computer = executor.owner
    if (!(computer instanceof KubernetesComputer) || executor instanceof OneOffExecutor) return
    def executable = executor.currentExecutable
    if (executable instanceof ContinuableExecutable && executable.willContinue()) return
    def strategy = computer.node?.retentionStrategy
    if (strategy instanceof OnceRetentionStrategy && early.replace(computer.name, true) == null) strategy.done(computer)
  }
}

class WarmAgents implements Runnable {
  private static final Logger LOG = Logger.getLogger("build-platform.agents")
  /** How the description of an agent begins that no build had yet; a digest of its template follows. Kept over a restart. */
  static final String MARK = "Ready for its one build, "
  /** Milliseconds for which an agent has to be out of place before it goes: while configuration is read again, templates are not there. */
  static final long PATIENCE = 5000
  /** Milliseconds until an agent whose end failed is ended again. */
  static final long AGAIN = 30000

  private final Map<String, Long> outOfPlace = [:]
  private final Map<String, Long> offline = [:]
  private final Set<String> leaving = new HashSet<>()
  /** Of these the ones whose end failed, and when: they hold their place and are of no use. Written by other threads as well. */
  private final Map<String, Long> unended = new ConcurrentHashMap<>()
  private final Set<String> warmed = new HashSet<>()
  /** Agents made here that have not connected yet, with their template. */
  private final Map<String, String> made = [:]
  private final Map<String, Integer> failures = [:]
  private final Map<String, Long> notBefore = [:]
  private String said

  /** A line in Jenkins' log, under the name of this task. */
  private static void say(Level level, String words, Throwable problem = null) {
    LOG.logp(level, "build-platform.agents", "review", words, problem)
  }

  void run() {
    try {
      Jenkins jenkins = Jenkins.get()
      // A Jenkins in quiet mode, as every copy is that only shows whether it starts, makes nothing and ends nothing.
      if (jenkins.initLevel != InitMilestone.COMPLETED || jenkins.quietingDown || jenkins.terminating) return
      review(jenkins)
      said = null
    } catch (Throwable problem) {
      String words = problem.toString()
      if (words != said) say(Level.WARNING, "Agents are not kept ready: " + words, problem)
      said = words
    }
  }

  private void review(Jenkins jenkins) {
    long now = System.currentTimeMillis()
    List<KubernetesSlave> agents = jenkins.nodes.findAll { it instanceof KubernetesSlave }
    List<KubernetesSlave> ready = agents.findAll { it.nodeDescription.startsWith(MARK) && !(it.nodeName in leaving) }
    for (KubernetesSlave agent : new ArrayList<>(ready)) if (agent.toComputer()?.countBusy()) { taken(agent); ready.remove(agent) }
    lookAtLaunches(agents, ready, now)
    for (KubernetesSlave agent : agents.findAll { now - (unended[it.nodeName] ?: now) > AGAIN }) end(agent)
    Set<KubernetesSlave> placed = new HashSet<>()
    for (KubernetesCloud cloud : jenkins.clouds.getAll(KubernetesCloud)) placed.addAll(review(cloud, agents, ready, now))
    outOfPlace.keySet().retainAll(ready.findAll { !(it in placed) }*.nodeName)
    for (KubernetesSlave agent : ready) {
      if (agent in placed) stayIdle(agent)
      else if (now - outOfPlace.computeIfAbsent(agent.nodeName) { now } > PATIENCE) leave(agent, "its template changed, or asks for fewer")
    }
  }

  /** Agents that stay; those that are missing are made. */
  private List<KubernetesSlave> review(KubernetesCloud cloud, List<KubernetesSlave> agents, List<KubernetesSlave> ready, long now) {
    List<KubernetesSlave> placed = []
    List<KubernetesSlave> own = agents.findAll { it.cloudName == cloud.name }
    int wanted = demand(cloud, own, ready)
    int room = cloud.containerCap - own.size() - wanted
    for (template in cloud.templates) {
      int asked = asked(template, now)
      if (asked <= 0) continue
      String description = MARK + "template " + template.name + " " + digest(cloud, template)
      List<KubernetesSlave> current = ready.findAll { it.cloudName == cloud.name && it.templateId == template.id && it.nodeDescription == description }
      // Those that are connected first: of too many the others go.
      List<KubernetesSlave> kept = current.sort { it.toComputer()?.online ? 0 : 1 }.take(asked)
      placed.addAll(kept)
      int missing = now < (notBefore[template.id] ?: 0L) ? 0 : asked - kept.size()
      // Of a kind whose last one did not connect a single one is tried, and only while no build waits: it may hold its place for as long as it may take.
      if (missing > 0 && failures[template.id]) missing = wanted > 0 || kept.any { !it.toComputer()?.online } ? 0 : 1
      while (missing-- > 0 && room > 0 && make(cloud, template, description)) room--
    }
    // Builds of others find no room: of those that only wait, as many go.
    for (agent in placed.findAll { it.toComputer()?.online }) {
      if (room >= 0) break
      if (leave(agent, "others' builds need its place")) room++
    }
    return placed
  }

  /** How many agents the builds that wait still need. One that has not connected yet is for builds of its kind alone; one that goes, or is connected and not for its one build any more, makes room for any. */
  private int demand(KubernetesCloud cloud, List<KubernetesSlave> own, List<KubernetesSlave> ready) {
    Map<String, Integer> of = own.countBy { it.templateId }
    List<KubernetesSlave> free = own.findAll { agent -> Computer computer = agent.toComputer(); !(agent in ready && computer?.online) && !computer?.countBusy() && !unended.containsKey(agent.nodeName) }
    List<String> coming = free.findAll { !(it.nodeName in leaving) && !it.toComputer()?.online }*.templateId
    int wanted = coming.size() - free.size()
    for (item in Queue.instance.buildableItems) {
      def templates = cloud.getTemplatesFor(item.assignedLabel)
      def served = templates.find { it.id in coming }
      if (served != null) coming.remove((Object) served.id)
      else if (templates.any { template -> (of[template.id] ?: 0) < template.instanceCap }) wanted++
    }
    return Math.max(0, wanted)
  }

  /** The number in the template's annotation, as far as its times (cron fields of the minutes in which it holds, UTC) say so. */
  private static int asked(template, long now) {
    Map<String, String> said = template.annotations.collectEntries { [it.key, it.value] }
    int number = (said["build-platform/min-idle"] ?: "0") as int
    String times = said["build-platform/min-idle-times"]
    if (number <= 0 || times == null) return number
    Calendar utc = Calendar.getInstance(TimeZone.getTimeZone("UTC"))
    utc.timeInMillis = now
    return new CronTab(times).check(utc) ? number : 0
  }

  /** What agents of a template are made from, but for how many there are to be. */
  private static String digest(KubernetesCloud cloud, template) {
    def whole = cloud.getUnwrappedTemplate(template)
    // Of the pods' YAML that was merged into it, nothing is in its XML.
    String xml = Jenkins.XSTREAM2.toXML(whole).replaceAll("(?s)<[\\w.]*PodAnnotation>\\s*<key>build-platform/min-idle.*?</[\\w.]*PodAnnotation>", "")
    return Util.getDigestOf([xml, *whole.yamls, cloud.namespace, cloud.jenkinsUrl, cloud.jenkinsTunnel, cloud.webSocket].join("\n")).substring(0, 12)
  }

  private boolean make(KubernetesCloud cloud, template, String description) {
    KubernetesProvisioningLimits limits = KubernetesProvisioningLimits.get()
    if (!limits.register(cloud, template, 1)) return false
    try {
      KubernetesSlave agent = KubernetesSlave.builder().podTemplate(cloud.getUnwrappedTemplate(template)).cloud(cloud).nodeDescription(description).build()
      made[agent.nodeName] = template.id
      Jenkins.get().addNode(agent)
      return true
    } catch (Throwable problem) {
      limits.unregister(cloud, template, 1)
      throw problem
    }
  }

  /** Agents that ended before they connected, and those that are away for longer than they may take to connect. */
  private void lookAtLaunches(List<KubernetesSlave> agents, List<KubernetesSlave> ready, long now) {
    Set<String> names = agents*.nodeName as Set<String>
    for (collection in [offline.keySet(), leaving, warmed, unended.keySet()]) collection.retainAll(names)
    for (String name : new ArrayList<>(made.keySet())) {
      KubernetesSlave agent = agents.find { it.nodeName == name }
      String template = made[name]
      if (agent?.toComputer()?.online) { made.remove(name); failures.remove(template) }
      else if (agent == null) {
        made.remove(name)
        int times = failures.merge(template, 1) { a, b -> a + b }
        long pause = Math.min(300L, 5L << Math.min(times, 6))
        notBefore[template] = now + pause * 1000
        say(Level.WARNING, "An agent of template " + template + " ended before it connected, see above; the next is made in " + pause + " s")
      }
    }
    for (KubernetesSlave agent : ready) {
      Computer computer = agent.toComputer()
      if (computer == null || computer.online) { offline.remove(agent.nodeName); if (computer?.acceptingTasks && warmed.add(agent.nodeName)) warmUp(agent) }
      else if (now - offline.computeIfAbsent(agent.nodeName) { now } > 1000L * ((agent.templateOrNull?.slaveConnectTimeout ?: 600) + 60)) leave(agent, "it does not connect")
    }
  }

  /** A build has it: from here on it is an agent like any other. */
  private void taken(KubernetesSlave agent) {
    made.remove(agent.nodeName)
    agent.nodeDescription = "Was ready before its build came"
    agent.save()
  }

  /** An agent that waits is not idle in the sense of the plugin, which ends it minutes after the last look of this task. */
  private static void stayIdle(KubernetesSlave agent) {
    Computer computer = agent.toComputer()
    if (computer == null || !computer.online) return
    def since = Computer.getDeclaredField("connectTime")
    since.accessible = true
    since.setLong(computer, System.currentTimeMillis())
  }

  /**
   * Ends an agent, unless a build has just come to it. One that still starts is left to a later look: the plugin's launcher would go on
   * to wait for it, for as long as an agent may take.
   */
  private boolean leave(KubernetesSlave agent, String why) {
    Computer computer = agent.toComputer()
    if (computer?.launchSupported) return false
    boolean free = Queue.withLock({ if (computer?.countBusy()) return false; computer?.acceptingTasks = false; return true } as java.util.concurrent.Callable<Boolean>)
    if (!free) return false
    leaving.add(agent.nodeName)
    made.remove(agent.nodeName)
    say(Level.INFO, "Agent " + agent.nodeName + " goes without a build: " + why)
    end(agent)
    return true
  }

  /** Ends an agent that leaves. Where that fails it is tried again. */
  private void end(KubernetesSlave agent) {
    unended.remove(agent.nodeName)
    Computer.threadPoolForRemoting.submit({
      try {
        // Without its template, which is gone since a restart, the plugin would count the agent for ever.
        def template = agent.templateOrNull
        agent.terminate()
        if (template == null) KubernetesProvisioningLimits.get().unregister(agent.kubernetesCloud, new org.csanchez.jenkins.plugins.kubernetes.PodTemplate(agent.templateId), 1)
      } catch (Throwable problem) {
        say(Level.WARNING, "Agent " + agent.nodeName + " was not ended", problem)
        unended[agent.nodeName] = System.currentTimeMillis()
      }
    } as Runnable)
  }

  /** What a build begins with is run once without one, so that the agent has the classes for it. */
  private static void warmUp(KubernetesSlave agent) {
    Computer.threadPoolForRemoting.submit({
      try {
        def folder = agent.rootPath.child(".warm-up")
        TaskListener quiet = TaskListener.NULL
        folder.mkdirs()
        try {
          Launcher launcher = agent.createLauncher(quiet)
          def env = agent.toComputer().environment
          def script = folder.createTextTempFile("jenkins", ".sh", "true")
          launcher.launch().cmds("/bin/sh", "-xe", script.remote).envs(env).stdout(quiet).pwd(folder).join()
          def task = Jenkins.get().pluginManager.uberClassLoader.loadClass("org.jenkinsci.plugins.durabletask.BourneShellScript").getConstructor(String).newInstance("true").launch(env, folder, launcher, quiet)
          for (int i = 0; i < 50 && task.exitStatus(folder, launcher, quiet) == null; i++) Thread.sleep(100)
          task.cleanup(folder)
        } finally {
          folder.deleteRecursive()
        }
      } catch (Throwable problem) {
        say(Level.FINE, "Agent " + agent.nodeName + " is not warm", problem)
      }
    } as Runnable)
  }
}

try {
  // The copy that the image's start made: the next start has one only if the platform still asks for it.
  new File(Jenkins.get().rootDir, "init.groovy.d/build-platform-agents.groovy").delete()
  new PromptStart().install()
  Timer.get().scheduleWithFixedDelay(new WarmAgents(), 1, 1, TimeUnit.SECONDS)
} catch (Throwable problem) {
  Logger.getLogger("build-platform.agents").log(Level.WARNING, "Agents are left to the plugin alone", problem)
}
