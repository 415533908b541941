// Stands in for OpenEBS' provisioner-localpv: hostpath volumes only, on the library the real one is built on, with
// its environment variables, StorageClass annotation, helper pods and volumes. No quotas, no block devices.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path"
	"strings"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
	"sigs.k8s.io/yaml"
)

const (
	provisionerName  = "openebs.io/local"
	configAnnotation = "cas.openebs.io/config"
	hostnameLabel    = "kubernetes.io/hostname"
	defaultBasePath  = "/var/openebs/local"
	// helperTimeout is the real provisioner's limit for one helper pod (120 looks, one a second).
	helperTimeout = 120 * time.Second
)

type provisioner struct {
	client         kubernetes.Interface
	namespace      string
	helperImage    string
	serviceAccount string
	basePath       string
	pullSecrets    []v1.LocalObjectReference
}

// volumeConfig is what the StorageClass's and the claim's annotations settle.
type volumeConfig struct {
	basePath  string
	nodeLabel string
}

// Provision makes the folder on the node that the scheduler chose, and describes it as a local volume.
func (p *provisioner) Provision(ctx context.Context, o controller.ProvisionOptions) (*v1.PersistentVolume, controller.ProvisioningState, error) {
	fail := func(err error) (*v1.PersistentVolume, controller.ProvisioningState, error) {
		return nil, controller.ProvisioningFinished, err
	}
	if o.SelectedNodeName == "" {
		return fail(errors.New("no node is selected: the StorageClass needs volumeBindingMode WaitForFirstConsumer"))
	}
	if o.PVC.Spec.VolumeMode != nil && *o.PVC.Spec.VolumeMode == v1.PersistentVolumeBlock {
		return fail(errors.New("a hostpath volume cannot have volumeMode Block"))
	}
	for _, mode := range o.PVC.Spec.AccessModes {
		if mode != v1.ReadWriteOnce && mode != v1.ReadWriteOncePod {
			return fail(fmt.Errorf("access mode %s is not possible: a hostpath volume lives on one node, ask for ReadWriteOnce", mode))
		}
	}
	config, err := p.config(o.StorageClass.Annotations[configAnnotation], o.PVC.Annotations[configAnnotation])
	if err != nil {
		return fail(err)
	}
	node, err := p.client.CoreV1().Nodes().Get(ctx, o.SelectedNodeName, metav1.GetOptions{})
	if err != nil {
		return fail(err)
	}
	value, found := node.Labels[config.nodeLabel]
	if !found {
		return fail(fmt.Errorf("node %s has no label %s", node.Name, config.nodeLabel))
	}
	if err := p.runHelper(ctx, "init", config, value, o.PVName, node.Spec.Taints); err != nil {
		return fail(err)
	}
	filesystem := v1.PersistentVolumeFilesystem
	return &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:   o.PVName,
			Labels: map[string]string{"openebs.io/cas-type": "local-hostpath"},
		},
		Spec: v1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: *o.StorageClass.ReclaimPolicy,
			AccessModes:                   o.PVC.Spec.AccessModes,
			VolumeMode:                    &filesystem,
			MountOptions:                  o.StorageClass.MountOptions,
			Capacity:                      v1.ResourceList{v1.ResourceStorage: o.PVC.Spec.Resources.Requests[v1.ResourceStorage]},
			PersistentVolumeSource:        v1.PersistentVolumeSource{Local: &v1.LocalVolumeSource{Path: path.Join(config.basePath, o.PVName)}},
			NodeAffinity: &v1.VolumeNodeAffinity{Required: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{
				MatchExpressions: []v1.NodeSelectorRequirement{{Key: config.nodeLabel, Operator: v1.NodeSelectorOpIn, Values: []string{value}}},
			}}}},
		},
	}, controller.ProvisioningFinished, nil
}

// Delete removes the folder of a released volume from its node.
func (p *provisioner) Delete(ctx context.Context, pv *v1.PersistentVolume) error {
	if pv.Spec.Local == nil || pv.Spec.NodeAffinity == nil {
		return fmt.Errorf("volume %s is no local volume of one node", pv.Name)
	}
	term := pv.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0]
	nodes, err := p.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: term.Key + "=" + term.Values[0]})
	if err != nil {
		return err
	}
	if len(nodes.Items) == 0 {
		return fmt.Errorf("node with label %s=%s is gone: the folder %s cannot be removed", term.Key, term.Values[0], pv.Spec.Local.Path)
	}
	config := volumeConfig{basePath: path.Dir(pv.Spec.Local.Path), nodeLabel: term.Key}
	return p.runHelper(ctx, "cleanup", config, term.Values[0], path.Base(pv.Spec.Local.Path), nodes.Items[0].Spec.Taints)
}

// config lays the annotations over the defaults; the later one wins.
func (p *provisioner) config(annotations ...string) (volumeConfig, error) {
	config := volumeConfig{basePath: p.basePath, nodeLabel: hostnameLabel}
	for _, annotation := range annotations {
		var entries []struct {
			Name  string   `json:"name"`
			Value string   `json:"value"`
			List  []string `json:"list"`
		}
		if err := yaml.Unmarshal([]byte(annotation), &entries); err != nil {
			return config, fmt.Errorf("annotation %s is not a YAML list of name and value: %w", configAnnotation, err)
		}
		for _, entry := range entries {
			value := strings.TrimSpace(entry.Value)
			switch {
			case entry.Name == "StorageType" && value != "hostpath":
				return config, fmt.Errorf("%s: StorageType %q is not known here, only hostpath", configAnnotation, value)
			case entry.Name == "BasePath":
				config.basePath = path.Clean(value)
			case entry.Name == "NodeAffinityLabels" && len(entry.List) == 1:
				config.nodeLabel = entry.List[0]
			case entry.Name == "XFSQuota" || entry.Name == "EXT4Quota":
				klog.Warningf("%s: %s has no effect here", configAnnotation, entry.Name)
			}
		}
	}
	if !path.IsAbs(config.basePath) || config.basePath == "/" {
		return config, fmt.Errorf("%s: BasePath %q must be an absolute folder below the root", configAnnotation, config.basePath)
	}
	return config, nil
}

// runHelper runs one pod on the volume's node that makes or removes the folder, and waits for its end.
func (p *provisioner) runHelper(ctx context.Context, action string, config volumeConfig, nodeValue, volume string, taints []v1.Taint) error {
	command := map[string][]string{
		"init":    {"mkdir", "-m", "0777", "-p", path.Join("/data", volume)},
		"cleanup": {"rm", "-rf", path.Join("/data", volume)},
	}[action]
	directory := v1.HostPathDirectoryOrCreate
	privileged := true
	// The node may carry taints: the volume's pod was placed there, so its helper may go there too.
	var tolerations []v1.Toleration
	for _, taint := range taints {
		tolerations = append(tolerations, v1.Toleration{Key: taint.Key, Operator: v1.TolerationOpExists, Effect: taint.Effect})
	}
	pod := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: action + "-" + volume, Namespace: p.namespace, Labels: map[string]string{"openebs.io/helper": action}},
		Spec: v1.PodSpec{
			RestartPolicy:      v1.RestartPolicyNever,
			ServiceAccountName: p.serviceAccount,
			ImagePullSecrets:   p.pullSecrets,
			NodeSelector:       map[string]string{config.nodeLabel: nodeValue},
			Tolerations:        tolerations,
			Containers: []v1.Container{{
				Name:            "local-path-" + action,
				Image:           p.helperImage,
				ImagePullPolicy: v1.PullIfNotPresent,
				Command:         command,
				SecurityContext: &v1.SecurityContext{Privileged: &privileged},
				VolumeMounts:    []v1.VolumeMount{{Name: "data", MountPath: "/data"}},
			}},
			Volumes: []v1.Volume{{Name: "data", VolumeSource: v1.VolumeSource{HostPath: &v1.HostPathVolumeSource{Path: config.basePath, Type: &directory}}}},
		},
	}
	pods := p.client.CoreV1().Pods(p.namespace)
	// A pod of this name is left over from a provisioner that was killed: its work is repeated, which does no harm.
	if _, err := pods.Create(ctx, pod, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("helper pod %s: %w", pod.Name, err)
	}
	defer func() {
		grace := int64(0)
		background := context.WithoutCancel(ctx)
		if err := pods.Delete(background, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &grace}); err != nil && !apierrors.IsNotFound(err) {
			klog.Errorf("helper pod %s: %v", pod.Name, err)
		}
	}()
	var last *v1.Pod
	err := wait.PollUntilContextTimeout(ctx, 250*time.Millisecond, helperTimeout, true, func(ctx context.Context) (bool, error) {
		seen, err := pods.Get(ctx, pod.Name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		last = seen
		if seen.Status.Phase == v1.PodFailed {
			return false, fmt.Errorf("failed: %s", reason(seen))
		}
		return seen.Status.Phase == v1.PodSucceeded, nil
	})
	if err != nil {
		return fmt.Errorf("helper pod %s for %s on %s=%s: %w (%s)", pod.Name, path.Join(config.basePath, volume), config.nodeLabel, nodeValue, err, reason(last))
	}
	klog.Infof("%s: folder %s on %s=%s done", action, path.Join(config.basePath, volume), config.nodeLabel, nodeValue)
	return nil
}

// reason says in a few words where a pod stands.
func reason(pod *v1.Pod) string {
	if pod == nil {
		return "never seen"
	}
	words := []string{string(pod.Status.Phase), pod.Status.Message}
	for _, c := range pod.Status.Conditions {
		if c.Status == v1.ConditionFalse {
			words = append(words, c.Message)
		}
	}
	for _, c := range pod.Status.ContainerStatuses {
		if c.State.Waiting != nil {
			words = append(words, c.State.Waiting.Reason, c.State.Waiting.Message)
		}
		if c.State.Terminated != nil {
			words = append(words, fmt.Sprintf("exit code %d", c.State.Terminated.ExitCode), c.State.Terminated.Message)
		}
	}
	return strings.Join(strings.Fields(strings.Join(words, " ")), " ")
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	config, err := rest.InClusterConfig()
	if err != nil {
		klog.Fatalf("not in a cluster: %v", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		klog.Fatal(err)
	}
	p := &provisioner{
		client:         client,
		namespace:      os.Getenv("OPENEBS_NAMESPACE"),
		helperImage:    os.Getenv("OPENEBS_IO_HELPER_IMAGE"),
		serviceAccount: os.Getenv("OPENEBS_SERVICE_ACCOUNT"),
		basePath:       defaultBasePath,
	}
	if value := os.Getenv("OPENEBS_IO_BASE_PATH"); value != "" {
		p.basePath = value
	}
	if p.namespace == "" || p.helperImage == "" {
		klog.Fatal("OPENEBS_NAMESPACE and OPENEBS_IO_HELPER_IMAGE must be set")
	}
	for _, name := range strings.FieldsFunc(os.Getenv("OPENEBS_IO_IMAGE_PULL_SECRETS"), func(r rune) bool { return r == ',' || r == ' ' }) {
		p.pullSecrets = append(p.pullSecrets, v1.LocalObjectReference{Name: name})
	}
	klog.Infof("%s: volumes below %s, helpers from %s in namespace %s", provisionerName, p.basePath, p.helperImage, p.namespace)
	controller.NewProvisionController(ctx, client, provisionerName, p,
		controller.LeaderElection(os.Getenv("LEADER_ELECTION_ENABLED") != "false"),
		controller.LeaderElectionNamespace(p.namespace),
	).Run(ctx)
}
