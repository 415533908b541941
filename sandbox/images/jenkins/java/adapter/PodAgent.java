package adapter;

import hudson.model.Computer;
import hudson.model.Descriptor;
import hudson.model.Executor;
import hudson.model.Hudson;
import hudson.model.Node;
import hudson.model.Queue;
import hudson.model.Slave;
import hudson.model.TaskListener;
import hudson.slaves.ComputerLauncher;
import hudson.slaves.DumbSlave;
import hudson.slaves.EphemeralNode;
import hudson.slaves.JNLPLauncher;
import hudson.slaves.NodeProperty;
import hudson.slaves.RetentionStrategy;
import hudson.slaves.SlaveComputer;
import java.io.IOException;
import java.util.Collections;

/** Stands in for the kubernetes plugin's KubernetesSlave: an agent that lives in a pod and is never saved to disk. */
public final class PodAgent extends Slave implements EphemeralNode {
    /** Whether the agent may take another build after its first (idleMinutes above 0). */
    final boolean reusable;

    PodAgent(String name, String description, String remoteFs, Node.Mode mode, String labels, boolean reusable)
            throws Descriptor.FormException, IOException {
        super(name, description, remoteFs, 1, mode, labels, new JNLPLauncher(), new RetentionStrategy.Always(),
                Collections.<NodeProperty<?>>emptyList());
        this.reusable = reusable;
    }

    @Override
    public Node asNode() {
        return this;
    }

    @Override
    public SlaveDescriptor getDescriptor() {
        return (SlaveDescriptor) Hudson.getInstance().getDescriptorOrDie(DumbSlave.class);
    }

    @Override
    public Computer createComputer() {
        return new PodComputer(this);
    }

    /**
     * Takes builds only after the adapter has seen the whole pod ready, as the plugin does, and refuses further ones
     * from the moment the first is taken, so that none can slip in before the removal.
     */
    static final class PodComputer extends SlaveComputer {
        volatile boolean used;
        volatile boolean wasOnline;

        PodComputer(PodAgent agent) {
            super(agent);
            setAcceptingTasks(false);
        }

        @Override
        public void taskAccepted(Executor executor, Queue.Task task) {
            super.taskAccepted(executor, task);
            used = true;
            Slave node = getNode();
            if (node instanceof PodAgent && !((PodAgent) node).reusable) {
                setAcceptingTasks(false);
            }
        }
    }
}
