package pod

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// User is whom an image wants to run as.
type User struct {
	UID  *int64
	Name string // if the image names a user instead
}

var maskedPaths = []string{
	"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
	"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
}

var readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}

func namespaces(pod *corev1.Pod) *cri.NamespaceOption {
	o := &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER}
	if pod.Spec.HostNetwork {
		o.Network = cri.NamespaceMode_NODE
	}
	if pod.Spec.HostIPC {
		o.Ipc = cri.NamespaceMode_NODE
	}
	switch {
	case pod.Spec.HostPID:
		o.Pid = cri.NamespaceMode_NODE
	case isTrue(pod.Spec.ShareProcessNamespace):
		o.Pid = cri.NamespaceMode_POD
	}
	return o
}

func sysctls(pod *corev1.Pod) map[string]string {
	out := map[string]string{}
	if sc := pod.Spec.SecurityContext; sc != nil {
		for _, s := range sc.Sysctls {
			out[s.Name] = s.Value
		}
	}
	return out
}

func groups(pod *corev1.Pod) []int64 {
	sc := pod.Spec.SecurityContext
	if sc == nil {
		return nil
	}
	out := slices.Clone(sc.SupplementalGroups)
	if sc.FSGroup != nil && !slices.Contains(out, *sc.FSGroup) {
		out = append(out, *sc.FSGroup)
	}
	return out
}

func groupsPolicy(pod *corev1.Pod) cri.SupplementalGroupsPolicy {
	if sc := pod.Spec.SecurityContext; sc != nil && sc.SupplementalGroupsPolicy != nil && *sc.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyStrict {
		return cri.SupplementalGroupsPolicy_Strict
	}
	return cri.SupplementalGroupsPolicy_Merge
}

func isPrivileged(c *corev1.Container) bool {
	return c.SecurityContext != nil && isTrue(c.SecurityContext.Privileged)
}

func sandboxSecurity(pod *corev1.Pod, node Node) *cri.LinuxSandboxSecurityContext {
	s := &cri.LinuxSandboxSecurityContext{
		NamespaceOptions:         namespaces(pod),
		SupplementalGroups:       groups(pod),
		SupplementalGroupsPolicy: groupsPolicy(pod),
		ReadonlyRootfs:           true,
		Privileged: slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool { return isPrivileged(&c) }) ||
			slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return isPrivileged(&c) }),
		// The pause process needs nothing; the filter is cheap.
		Seccomp: &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault},
	}
	if node.NoSeccomp || s.Privileged {
		s.Seccomp.ProfileType = cri.SecurityProfile_Unconfined
	}
	if sc := pod.Spec.SecurityContext; sc != nil && sc.RunAsUser != nil {
		s.RunAsUser = &cri.Int64Value{Value: *sc.RunAsUser}
		if sc.RunAsGroup != nil {
			s.RunAsGroup = &cri.Int64Value{Value: *sc.RunAsGroup}
		}
	}
	return s
}

// security translates the security context of a container, pod-wide defaults
// filled in.
func security(pod *corev1.Pod, c *corev1.Container, image User, facts Facts, places Places) (*cri.LinuxContainerSecurityContext, error) {
	sc := effective(pod, c)
	s := &cri.LinuxContainerSecurityContext{
		NamespaceOptions:         namespaces(pod),
		SupplementalGroups:       groups(pod),
		SupplementalGroupsPolicy: groupsPolicy(pod),
		Privileged:               isTrue(sc.Privileged),
		ReadonlyRootfs:           isTrue(sc.ReadOnlyRootFilesystem),
		NoNewPrivs:               sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation,
	}
	if err := setUser(s, sc, image); err != nil {
		return nil, err
	}
	if caps := sc.Capabilities; caps != nil {
		s.Capabilities = &cri.Capability{}
		for _, name := range caps.Add {
			s.Capabilities.AddCapabilities = append(s.Capabilities.AddCapabilities, string(name))
		}
		for _, name := range caps.Drop {
			s.Capabilities.DropCapabilities = append(s.Capabilities.DropCapabilities, string(name))
		}
	}
	if sc.ProcMount == nil || *sc.ProcMount != corev1.UnmaskedProcMount {
		s.MaskedPaths, s.ReadonlyPaths = maskedPaths, readonlyPaths
	}
	profile, err := seccomp(sc.SeccompProfile, s.Privileged, facts.Node, places)
	if err != nil {
		return nil, err
	}
	s.Seccomp = profile
	return s, nil
}

// effective is a container's security context with what it inherits.
func effective(pod *corev1.Pod, c *corev1.Container) corev1.SecurityContext {
	var sc corev1.SecurityContext
	if c.SecurityContext != nil {
		sc = *c.SecurityContext
	}
	if p := pod.Spec.SecurityContext; p != nil {
		if sc.RunAsUser == nil {
			sc.RunAsUser = p.RunAsUser
		}
		if sc.RunAsGroup == nil {
			sc.RunAsGroup = p.RunAsGroup
		}
		if sc.RunAsNonRoot == nil {
			sc.RunAsNonRoot = p.RunAsNonRoot
		}
		if sc.SeccompProfile == nil {
			sc.SeccompProfile = p.SeccompProfile
		}
	}
	return sc
}

func setUser(s *cri.LinuxContainerSecurityContext, sc corev1.SecurityContext, image User) error {
	if isTrue(sc.RunAsNonRoot) {
		switch {
		case sc.RunAsUser != nil && *sc.RunAsUser == 0:
			return fmt.Errorf("container's runAsUser breaks non-root policy")
		case sc.RunAsUser == nil && image.Name != "":
			if _, err := strconv.Atoi(image.Name); err != nil {
				return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root", image.Name)
			}
		case sc.RunAsUser == nil && (image.UID == nil || *image.UID == 0):
			return fmt.Errorf("container has runAsNonRoot and image will run as root")
		}
	}
	switch {
	case sc.RunAsUser != nil:
		s.RunAsUser = &cri.Int64Value{Value: *sc.RunAsUser}
	case image.UID != nil:
		s.RunAsUser = &cri.Int64Value{Value: *image.UID}
	case image.Name != "":
		s.RunAsUsername = image.Name
	case sc.RunAsGroup != nil:
		s.RunAsUser = &cri.Int64Value{Value: 0} // a group alone is refused by runtimes
	}
	if sc.RunAsGroup != nil {
		s.RunAsGroup = &cri.Int64Value{Value: *sc.RunAsGroup}
	}
	return nil
}

// seccomp is the system-call filter: the runtime's own unless something else is
// asked for.
func seccomp(p *corev1.SeccompProfile, privileged bool, node Node, places Places) (*cri.SecurityProfile, error) {
	kind := corev1.SeccompProfileTypeRuntimeDefault
	if p != nil {
		kind = p.Type
	}
	switch {
	case kind == corev1.SeccompProfileTypeUnconfined, privileged:
		return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}, nil
	case kind == corev1.SeccompProfileTypeLocalhost:
		if node.NoSeccomp {
			return nil, fmt.Errorf("seccomp profile of type Localhost: this node's runtime has no seccomp (condition SeccompUnavailable)")
		}
		if p.LocalhostProfile == nil || !filepath.IsLocal(*p.LocalhostProfile) {
			return nil, fmt.Errorf("seccomp profile of type Localhost needs localhostProfile, a path below %s", places.Seccomp)
		}
		return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: filepath.Join(places.Seccomp, *p.LocalhostProfile)}, nil
	case node.NoSeccomp:
		return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}, nil
	}
	return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}, nil
}
