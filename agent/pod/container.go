package pod

import (
	"fmt"
	"hash/fnv"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Birth is what one attempt at running a container needs beside the objects.
type Birth struct {
	Attempt  uint32
	Backoff  time.Duration
	ImageRef string // as the runtime knows it
	User     User
	Env      []Variable
	Mounts   []*cri.Mount // of volumes
}

// ContainerConfig is a container in the runtime's words. The hosts file and the
// termination message file that it mounts must exist before the start.
func ContainerConfig(pod *corev1.Pod, c *corev1.Container, birth Birth, facts Facts, places Places) (*cri.ContainerConfig, error) {
	sec, err := security(pod, c, birth.User, facts, places)
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	config := &cri.ContainerConfig{
		Metadata:   &cri.ContainerMetadata{Name: c.Name, Attempt: birth.Attempt},
		Image:      &cri.ImageSpec{Image: birth.ImageRef, UserSpecifiedImage: c.Image},
		WorkingDir: c.WorkingDir,
		Labels: map[string]string{
			LabelName: pod.Name, LabelNamespace: pod.Namespace, LabelUID: string(pod.UID), LabelContainer: c.Name,
		},
		Annotations: map[string]string{
			AnnotationHash: Hash(c), AnnotationRestartCount: strconv.Itoa(int(birth.Attempt)), AnnotationBackoff: birth.Backoff.String(),
			AnnotationMessagePath: messagePath(c), AnnotationMessagePolicy: string(c.TerminationMessagePolicy),
			AnnotationGrace: strconv.Itoa(int(Grace(pod).Seconds())),
		},
		LogPath: LogPath(c.Name, birth.Attempt),
		Stdin:   c.Stdin, StdinOnce: c.StdinOnce, Tty: c.TTY,
		Mounts: slices.Clone(birth.Mounts),
		Linux:  &cri.LinuxContainerConfig{Resources: containerLimits(pod, c, facts.Node), SecurityContext: sec},
	}
	for _, v := range birth.Env {
		values[v.Name] = v.Value
		config.Envs = append(config.Envs, &cri.KeyValue{Key: v.Name, Value: []byte(v.Value)})
	}
	lookup := func(name string) (string, bool) { v, ok := values[name]; return v, ok }
	for _, s := range c.Command {
		config.Command = append(config.Command, Expand(s, lookup))
	}
	for _, s := range c.Args {
		config.Args = append(config.Args, Expand(s, lookup))
	}
	if l := c.Lifecycle; l != nil && l.StopSignal != nil {
		n, ok := cri.Signal_value[string(*l.StopSignal)]
		if !ok {
			return nil, fmt.Errorf("stop signal %s is not known", *l.StopSignal)
		}
		config.StopSignal = cri.Signal(n)
	}
	taken := func(path string) bool {
		return slices.ContainsFunc(config.Mounts, func(m *cri.Mount) bool { return m.ContainerPath == path })
	}
	if !taken("/etc/hosts") {
		config.Mounts = append(config.Mounts, &cri.Mount{ContainerPath: "/etc/hosts", HostPath: places.HostsFile(pod)})
	}
	if path := messagePath(c); !taken(path) {
		config.Mounts = append(config.Mounts, &cri.Mount{ContainerPath: path, HostPath: places.MessageFile(string(pod.UID), c.Name, birth.Attempt)})
	}
	return config, nil
}

// HostsFile is a pod's /etc/hosts.
func (p Places) HostsFile(pod *corev1.Pod) string {
	return filepath.Join(p.Dir(string(pod.UID)), "etc-hosts")
}

// MessageFile is where a container leaves its last words.
func (p Places) MessageFile(uid, container string, attempt uint32) string {
	return filepath.Join(p.Dir(uid), "containers", container, strconv.Itoa(int(attempt)))
}

func messagePath(c *corev1.Container) string {
	if c.TerminationMessagePath == "" {
		return corev1.TerminationMessagePathDefault
	}
	return c.TerminationMessagePath
}

// Hash changes when a container must be replaced to follow its definition. Of
// what an API server lets change, that is the image.
func Hash(c *corev1.Container) string {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s\x00%s", c.Name, c.Image)
	return strconv.FormatUint(h.Sum64(), 16)
}
