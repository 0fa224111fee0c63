package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"perch/agent/pod"
)

// Config says where volumes lie.
type Config struct {
	Pods string // D/pods

	// Done takes how long it took to mount or unmount a volume, by plugin as
	// kubelet names them; nil tells nobody.
	Done func(plugin, operation string, took time.Duration, err error)
}

// Source gives the objects that volumes are written from. An object that does
// not exist is nil without an error.
type Source interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	// Token makes a token of the pod's service account that ends with the pod.
	Token(ctx context.Context, p *corev1.Pod, audience string, seconds int64) (token string, expires time.Time, err error)
}

// Volumes keeps the volumes of a node. Calls for different pods may run at the
// same time.
type Volumes struct {
	cfg    Config
	source Source
	log    *slog.Logger

	mu     sync.Mutex // guards tokens
	tokens map[tokenKey]token
}

// New makes the volumes of a node.
func New(cfg Config, source Source, log *slog.Logger) *Volumes {
	return &Volumes{cfg: cfg, source: source, log: log, tokens: map[tokenKey]token{}}
}

func (v *Volumes) dir(uid, kind, name string) string {
	return filepath.Join(v.cfg.Pods, uid, "volumes", kind, name)
}

// Mount makes all volumes of a pod ready, or says which one is not and why.
func (v *Volumes) Mount(ctx context.Context, p *corev1.Pod, facts pod.Facts) error {
	var errs error
	for i := range p.Spec.Volumes {
		start := time.Now()
		err := v.mount(ctx, p, &p.Spec.Volumes[i], facts)
		v.done(Plugin(&p.Spec.Volumes[i]), "volume_mount", start, err)
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("mount volume %q: %w", p.Spec.Volumes[i].Name, err))
		}
	}
	return errs
}

// Refresh writes what changed in objects, labels and tokens since the last call.
func (v *Volumes) Refresh(ctx context.Context, p *corev1.Pod, facts pod.Facts) error {
	var errs error
	for i := range p.Spec.Volumes {
		if vol := &p.Spec.Volumes[i]; written(vol) {
			if err := v.mount(ctx, p, vol, facts); err != nil {
				errs = errors.Join(errs, fmt.Errorf("refresh volume %q: %w", vol.Name, err))
			}
		}
	}
	return errs
}

func (v *Volumes) mount(ctx context.Context, p *corev1.Pod, vol *corev1.Volume, facts pod.Facts) error {
	uid := string(p.UID)
	switch {
	case vol.EmptyDir != nil:
		return v.emptyDir(p, vol)
	case vol.HostPath != nil:
		return hostPath(vol.HostPath)
	case written(vol):
		files, err := v.collect(ctx, p, vol, facts)
		if err != nil {
			return err
		}
		dir := v.dir(uid, kindOf(vol), vol.Name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if vol.ConfigMap == nil {
			if err := ensureTmpfs(dir, 0, 0o755); err != nil {
				return err
			}
		}
		return write(dir, files, fsGroup(p))
	case vol.Image != nil:
		return errors.New("image volumes are not supported yet")
	case vol.PersistentVolumeClaim != nil:
		return fmt.Errorf("persistent volume claim %q: persistent volumes are not supported yet", vol.PersistentVolumeClaim.ClaimName)
	}
	return errors.New("this kind of volume is not supported yet")
}

func (v *Volumes) done(plugin, operation string, start time.Time, err error) {
	if v.cfg.Done != nil {
		v.cfg.Done(plugin, operation, time.Since(start), err)
	}
}

// Plugin is what kubelet calls the part that mounts a volume.
func Plugin(vol *corev1.Volume) string {
	switch {
	case vol.HostPath != nil:
		return "kubernetes.io/host-path"
	case vol.PersistentVolumeClaim != nil, vol.Ephemeral != nil:
		return "kubernetes.io/csi"
	}
	return "kubernetes.io/" + kindOf(vol)
}

func written(vol *corev1.Volume) bool {
	return vol.ConfigMap != nil || vol.Secret != nil || vol.Projected != nil || vol.DownwardAPI != nil
}

func kindOf(vol *corev1.Volume) string {
	switch {
	case vol.EmptyDir != nil:
		return "empty-dir"
	case vol.ConfigMap != nil:
		return "configmap"
	case vol.Secret != nil:
		return "secret"
	case vol.Projected != nil:
		return "projected"
	case vol.DownwardAPI != nil:
		return "downward-api"
	}
	return "other"
}

// path is where a volume lies on the node.
func (v *Volumes) path(p *corev1.Pod, vol *corev1.Volume) string {
	if vol.HostPath != nil {
		return vol.HostPath.Path
	}
	return v.dir(string(p.UID), kindOf(vol), vol.Name)
}

func fsGroup(p *corev1.Pod) *int64 {
	if sc := p.Spec.SecurityContext; sc != nil {
		return sc.FSGroup
	}
	return nil
}

func (v *Volumes) emptyDir(p *corev1.Pod, vol *corev1.Volume) error {
	dir := v.dir(string(p.UID), "empty-dir", vol.Name)
	_, err := os.Stat(dir)
	fresh := errors.Is(err, os.ErrNotExist)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	switch vol.EmptyDir.Medium {
	case corev1.StorageMediumMemory:
		size := int64(0)
		if q := vol.EmptyDir.SizeLimit; q != nil {
			size = q.Value()
		}
		mounted, err := isMount(dir)
		if err != nil {
			return err
		}
		fresh = fresh || !mounted
		if err := ensureTmpfs(dir, size, 0o777); err != nil {
			return err
		}
	case corev1.StorageMediumDefault:
	default:
		return fmt.Errorf("medium %q is not supported", vol.EmptyDir.Medium)
	}
	if !fresh {
		return nil // what containers did with it stays
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		return err
	}
	if group := fsGroup(p); group != nil {
		if err := os.Lchown(dir, -1, int(*group)); err != nil {
			return err
		}
		return os.Chmod(dir, 0o777|fs.ModeSetgid)
	}
	return nil
}

// hostPath checks, and on request creates, what a pod wants to see of the node.
func hostPath(h *corev1.HostPathVolumeSource) error {
	kind := corev1.HostPathUnset
	if h.Type != nil {
		kind = *h.Type
	}
	switch kind {
	case corev1.HostPathDirectoryOrCreate:
		if _, err := os.Stat(h.Path); errors.Is(err, os.ErrNotExist) {
			return os.MkdirAll(h.Path, 0o755)
		}
	case corev1.HostPathFileOrCreate:
		if _, err := os.Stat(h.Path); errors.Is(err, os.ErrNotExist) {
			f, err := os.OpenFile(h.Path, os.O_CREATE|os.O_WRONLY, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		}
	}
	info, err := os.Stat(h.Path)
	if err != nil {
		if kind == corev1.HostPathUnset && errors.Is(err, os.ErrNotExist) {
			return os.MkdirAll(h.Path, 0o755) // as runtimes do for a bind mount's source
		}
		return fmt.Errorf("hostPath type check failed: %w", err)
	}
	mode := info.Mode()
	ok := map[corev1.HostPathType]bool{
		corev1.HostPathUnset:     true,
		corev1.HostPathDirectory: mode.IsDir(), corev1.HostPathDirectoryOrCreate: mode.IsDir(),
		corev1.HostPathFile: mode.IsRegular(), corev1.HostPathFileOrCreate: mode.IsRegular(),
		corev1.HostPathSocket:   mode&fs.ModeSocket != 0,
		corev1.HostPathCharDev:  mode&fs.ModeCharDevice != 0,
		corev1.HostPathBlockDev: mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0,
	}[kind]
	if !ok {
		return fmt.Errorf("hostPath type check failed: %s is not a %s", h.Path, kind)
	}
	return nil
}

// Release unmounts and removes all volumes of a pod. It stops at the first mount
// that cannot be undone, so that nothing behind a mount is ever deleted.
func (v *Volumes) Release(_ context.Context, uid string) error {
	root, start := filepath.Join(v.cfg.Pods, uid), time.Now()
	points, err := mountsBelow(root)
	if err != nil {
		return fmt.Errorf("release volumes of pod %s: %w", uid, err)
	}
	for _, point := range slices.Backward(points) { // inner ones last in the table, first out
		if err := unix.Unmount(point, unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", point, err)
		}
	}
	had, _ := filepath.Glob(filepath.Join(root, "volumes", "*", "*")) // fails only for a bad pattern
	for _, sub := range []string{"volumes", "volume-subpaths"} {
		if err := os.RemoveAll(filepath.Join(root, sub)); err != nil {
			return fmt.Errorf("remove volumes of pod %s: %w", uid, err)
		}
	}
	for _, dir := range had {
		v.done("kubernetes.io/"+filepath.Base(filepath.Dir(dir)), "volume_unmount", start, nil)
	}
	v.mu.Lock()
	for k := range v.tokens {
		if k.uid == uid {
			delete(v.tokens, k)
		}
	}
	v.mu.Unlock()
	return nil
}

// mountsBelow lists mount points below a directory in the order they were made.
func mountsBelow(root string) ([]string, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return pointsBelow(string(table), root), nil
}

// pointsBelow reads a mount table; the fifth word of a line is the mount point.
func pointsBelow(table, root string) []string {
	var out []string
	for line := range strings.Lines(table) {
		words := strings.Fields(line)
		if len(words) < 5 {
			continue
		}
		point := unescape.Replace(words[4])
		if strings.HasPrefix(point, root+"/") {
			out = append(out, point)
		}
	}
	return out
}

var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// isMount asks for one directory: the table of all mounts has a line for each
// volume of each pod.
func isMount(dir string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW, 0, &st)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return false, nil
	case err == nil && st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0:
		return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
	}
	// Before Linux 5.8, or a mount that does not answer.
	points, err := mountsBelow(filepath.Dir(dir))
	if err != nil {
		return false, err
	}
	return slices.Contains(points, dir), nil
}

// ensureTmpfs mounts a tmpfs unless there is one. size 0 leaves the kernel's
// own limit, half of the memory.
func ensureTmpfs(dir string, size int64, mode fs.FileMode) error {
	mounted, err := isMount(dir)
	if err != nil || mounted {
		return err
	}
	options := fmt.Sprintf("mode=%o", mode)
	if size > 0 {
		options += fmt.Sprintf(",size=%d", size)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
	}
	return nil
}
