package volume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"perch/agent/pod"
)

// Mounts says what a container mounts of the pod's volumes. env gives the
// variables that subPathExpr may use.
func (v *Volumes) Mounts(_ context.Context, p *corev1.Pod, c *corev1.Container, env func(name string) (string, bool)) ([]*cri.Mount, error) {
	if len(c.VolumeDevices) > 0 {
		return nil, errors.New("block volumes are not supported yet")
	}
	var out []*cri.Mount
	for i, m := range c.VolumeMounts {
		n := slices.IndexFunc(p.Spec.Volumes, func(vol corev1.Volume) bool { return vol.Name == m.Name })
		if n < 0 {
			return nil, fmt.Errorf("mount %s: volume %q does not exist", m.MountPath, m.Name)
		}
		vol := &p.Spec.Volumes[n]
		source := v.path(p, vol)
		sub := m.SubPath
		if m.SubPathExpr != "" {
			sub = pod.Expand(m.SubPathExpr, env)
		}
		if sub != "" {
			var err error
			if source, err = v.subPath(p, vol, c, i, source, sub); err != nil {
				return nil, fmt.Errorf("mount %s: sub-path %q of volume %q: %w", m.MountPath, sub, m.Name, err)
			}
		}
		target := m.MountPath
		if !filepath.IsAbs(target) {
			target = "/" + target
		}
		out = append(out, &cri.Mount{
			ContainerPath: target, HostPath: source, Readonly: m.ReadOnly || vol.Secret != nil || vol.Projected != nil || vol.ConfigMap != nil || vol.DownwardAPI != nil,
			Propagation:       propagation(m.MountPropagation),
			RecursiveReadOnly: m.ReadOnly && m.RecursiveReadOnly != nil && *m.RecursiveReadOnly == corev1.RecursiveReadOnlyEnabled,
		})
	}
	return out, nil
}

func propagation(p *corev1.MountPropagationMode) cri.MountPropagation {
	if p != nil {
		switch *p {
		case corev1.MountPropagationHostToContainer:
			return cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
		case corev1.MountPropagationBidirectional:
			return cri.MountPropagation_PROPAGATION_BIDIRECTIONAL
		}
	}
	return cri.MountPropagation_PROPAGATION_PRIVATE
}

// subPath binds a path inside a volume to a place that containers cannot reach,
// so that a link swapped in later cannot lead the mount out of the volume. The
// kernel resolves the path with the volume as its root.
func (v *Volumes) subPath(p *corev1.Pod, vol *corev1.Volume, c *corev1.Container, n int, volume, sub string) (string, error) {
	if !filepath.IsLocal(sub) {
		return "", errors.New("it must be a relative path without ..")
	}
	root, err := os.Open(volume)
	if err != nil {
		return "", err
	}
	defer root.Close() // only a handle
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	fd, err := unix.Openat2(int(root.Fd()), sub, how)
	if errors.Is(err, unix.ENOENT) {
		if written(vol) {
			return "", os.ErrNotExist
		}
		if err := mkdirIn(int(root.Fd()), sub, fsGroup(p)); err != nil {
			return "", err
		}
		fd, err = unix.Openat2(int(root.Fd()), sub, how)
	}
	if err != nil {
		return "", err
	}
	defer unix.Close(fd) // only a handle
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	target := filepath.Join(v.cfg.Pods, string(p.UID), "volume-subpaths", vol.Name, c.Name, strconv.Itoa(n))
	if mounted, err := isMount(target); err != nil {
		return "", err
	} else if mounted { // of the attempt before; the path may mean something else now
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			return "", fmt.Errorf("unmount %s: %w", target, err)
		}
	}
	if err := os.RemoveAll(target); err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = os.MkdirAll(target, 0o750)
	} else if err = os.MkdirAll(filepath.Dir(target), 0o750); err == nil {
		err = os.WriteFile(target, nil, 0o640)
	}
	if err != nil {
		return "", err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return "", fmt.Errorf("bind to %s: %w", target, err)
	}
	return target, nil
}

// mkdirIn makes a directory and its parents below an open directory, without
// following links out of it.
func mkdirIn(root int, sub string, group *int64) error {
	at := ""
	for _, name := range splitPath(sub) {
		parent, err := unix.Openat2(root, cmp.Or(at, "."), &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
		if err != nil {
			return err
		}
		err = unix.Mkdirat(parent, name, 0o750)
		made := err == nil
		if made {
			if err = unix.Fchmodat(parent, name, 0o755, 0); err == nil && group != nil {
				if err = unix.Fchownat(parent, name, -1, int(*group), unix.AT_SYMLINK_NOFOLLOW); err == nil {
					err = unix.Fchmodat(parent, name, 0o2775, 0)
				}
			}
		}
		_ = unix.Close(parent) // only a handle
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		at = filepath.Join(at, name)
	}
	return nil
}

func splitPath(p string) []string {
	var out []string
	for dir := filepath.Clean(p); dir != "."; dir = filepath.Dir(dir) {
		out = append([]string{filepath.Base(dir)}, out...)
	}
	return out
}
