package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"perch/agent/pod"
)

// file is one file of a written volume.
type file struct {
	data []byte
	mode os.FileMode
	uid  *int64 // owner, for tokens of pods that run as somebody
}

// files are by their path inside the volume.
type files map[string]file

const (
	defaultMode  = 0o644
	tokenSeconds = 3600
)

func modeOf(m *int32, otherwise os.FileMode) os.FileMode {
	if m == nil {
		return otherwise
	}
	return os.FileMode(*m) & os.ModePerm
}

// collect gathers what a volume should contain now.
func (v *Volumes) collect(ctx context.Context, p *corev1.Pod, vol *corev1.Volume, facts pod.Facts) (files, error) {
	out := files{}
	switch {
	case vol.ConfigMap != nil:
		s := vol.ConfigMap
		return out, v.configMap(ctx, p, s.Name, s.Items, s.Optional, modeOf(s.DefaultMode, defaultMode), out)
	case vol.Secret != nil:
		s := vol.Secret
		return out, v.secret(ctx, p, s.SecretName, s.Items, s.Optional, modeOf(s.DefaultMode, defaultMode), out)
	case vol.DownwardAPI != nil:
		return out, downward(p, vol.DownwardAPI.Items, modeOf(vol.DownwardAPI.DefaultMode, defaultMode), facts, out)
	}
	mode := modeOf(vol.Projected.DefaultMode, defaultMode)
	for _, s := range vol.Projected.Sources {
		var err error
		switch {
		case s.ConfigMap != nil:
			err = v.configMap(ctx, p, s.ConfigMap.Name, s.ConfigMap.Items, s.ConfigMap.Optional, mode, out)
		case s.Secret != nil:
			err = v.secret(ctx, p, s.Secret.Name, s.Secret.Items, s.Secret.Optional, mode, out)
		case s.DownwardAPI != nil:
			err = downward(p, s.DownwardAPI.Items, mode, facts, out)
		case s.ServiceAccountToken != nil:
			err = v.serviceAccountToken(ctx, p, vol.Name, s.ServiceAccountToken, mode, out)
		default:
			err = errors.New("a projected source of this kind is not supported yet")
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (v *Volumes) configMap(ctx context.Context, p *corev1.Pod, name string, items []corev1.KeyToPath, optional *bool, mode os.FileMode, out files) error {
	cm, err := v.source.ConfigMap(ctx, p.Namespace, name)
	if err != nil {
		return err
	}
	data := map[string][]byte{}
	if cm != nil {
		for k, s := range cm.Data {
			data[k] = []byte(s)
		}
		for k, b := range cm.BinaryData {
			data[k] = b
		}
	}
	return pick("configmap", p.Namespace+"/"+name, data, cm != nil, items, optional, mode, out)
}

func (v *Volumes) secret(ctx context.Context, p *corev1.Pod, name string, items []corev1.KeyToPath, optional *bool, mode os.FileMode, out files) error {
	s, err := v.source.Secret(ctx, p.Namespace, name)
	if err != nil {
		return err
	}
	var data map[string][]byte
	if s != nil {
		data = s.Data
	}
	return pick("secret", p.Namespace+"/"+name, data, s != nil, items, optional, mode, out)
}

// pick takes all keys of an object, or the listed ones under their paths.
func pick(kind, name string, data map[string][]byte, exists bool, items []corev1.KeyToPath, optional *bool, mode os.FileMode, out files) error {
	may := optional != nil && *optional
	if !exists {
		if may {
			return nil
		}
		return fmt.Errorf("%s %q not found", kind, name)
	}
	if len(items) == 0 {
		for k, b := range data {
			out[k] = file{data: b, mode: mode}
		}
		return nil
	}
	for _, item := range items {
		b, ok := data[item.Key]
		if !ok && may {
			continue
		}
		if !ok {
			return fmt.Errorf("%s %q has no key %q", kind, name, item.Key)
		}
		if !filepath.IsLocal(item.Path) {
			return fmt.Errorf("path %q of key %q leaves the volume", item.Path, item.Key)
		}
		out[filepath.Clean(item.Path)] = file{data: b, mode: modeOf(item.Mode, mode)}
	}
	return nil
}

func downward(p *corev1.Pod, items []corev1.DownwardAPIVolumeFile, mode os.FileMode, facts pod.Facts, out files) error {
	for _, item := range items {
		var text string
		var err error
		switch {
		case item.FieldRef != nil:
			text, err = pod.Field(p, item.FieldRef.FieldPath, facts)
		case item.ResourceFieldRef != nil:
			text, err = pod.Resource(p, item.ResourceFieldRef.ContainerName, item.ResourceFieldRef, facts.Node)
		}
		if err != nil {
			return err
		}
		if !filepath.IsLocal(item.Path) {
			return fmt.Errorf("path %q leaves the volume", item.Path)
		}
		out[filepath.Clean(item.Path)] = file{data: []byte(text), mode: modeOf(item.Mode, mode)}
	}
	return nil
}

type tokenKey struct{ uid, volume, audience, path string }

type token struct {
	text            string
	issued, expires time.Time
}

// stale says whether a token is to be replaced: after four fifths of its life,
// or a day.
func (t token) stale(now time.Time) bool {
	return t.text == "" || now.After(t.issued.Add(t.expires.Sub(t.issued)*4/5)) || now.After(t.issued.Add(24*time.Hour))
}

func (v *Volumes) serviceAccountToken(ctx context.Context, p *corev1.Pod, volume string, s *corev1.ServiceAccountTokenProjection, mode os.FileMode, out files) error {
	key := tokenKey{string(p.UID), volume, s.Audience, s.Path}
	now := time.Now()
	v.mu.Lock()
	t := v.tokens[key]
	v.mu.Unlock()
	if t.stale(now) {
		seconds := int64(tokenSeconds)
		if s.ExpirationSeconds != nil {
			seconds = *s.ExpirationSeconds
		}
		text, expires, err := v.source.Token(ctx, p, s.Audience, seconds)
		switch {
		case err == nil:
			t = token{text, now, expires}
			v.mu.Lock()
			v.tokens[key] = t
			v.mu.Unlock()
		case t.text == "" || now.After(t.expires):
			return err
		default:
			v.log.Warn("token not renewed", "namespace", p.Namespace, "pod", p.Name, "err", err)
		}
	}
	if !filepath.IsLocal(s.Path) {
		return fmt.Errorf("path %q leaves the volume", s.Path)
	}
	f := file{data: []byte(t.text), mode: mode}
	// A token is for the pod's own user and nobody else, where that can be said.
	switch uid, one := oneUser(p); {
	case fsGroup(p) != nil:
		f.mode = 0o600
	case one:
		f.mode, f.uid = 0o600, &uid
	}
	out[filepath.Clean(s.Path)] = f
	return nil
}

// oneUser is the user that all containers run as, if the pod says so.
func oneUser(p *corev1.Pod) (int64, bool) {
	var uids []int64
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for _, c := range list {
			var uid *int64
			if sc := p.Spec.SecurityContext; sc != nil {
				uid = sc.RunAsUser
			}
			if sc := c.SecurityContext; sc != nil && sc.RunAsUser != nil {
				uid = sc.RunAsUser
			}
			if uid == nil {
				return 0, false
			}
			if !slices.Contains(uids, *uid) {
				uids = append(uids, *uid)
			}
		}
	}
	if len(uids) != 1 {
		return 0, false
	}
	return uids[0], true
}

const (
	dataLink = "..data"
	newLink  = "..data_new"
)

// write makes a directory contain the given files. They lie in a directory with
// a time in its name; ..data points to it, and each top-level name points
// through ..data. Replacing ..data changes all files in one step.
func write(dir string, want files, group *int64) error {
	current, err := os.Readlink(filepath.Join(dir, dataLink))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if current != "" && same(filepath.Join(dir, current), want) {
		return nil
	}
	fresh, err := os.MkdirTemp(dir, time.Now().UTC().Format("..2006_01_02_15_04_05."))
	if err != nil {
		return err
	}
	if err := os.Chmod(fresh, 0o755); err != nil {
		return err
	}
	for name, f := range want {
		if err := writeFile(filepath.Join(fresh, name), f, group); err != nil {
			return err
		}
	}
	_ = os.Remove(filepath.Join(dir, newLink)) // of a write that was cut off
	if err := os.Symlink(filepath.Base(fresh), filepath.Join(dir, newLink)); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(dir, newLink), filepath.Join(dir, dataLink)); err != nil {
		return err
	}
	return tidy(dir, filepath.Base(fresh), want)
}

func writeFile(path string, f file, group *int64) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, f.data, 0o600); err != nil {
		return err
	}
	mode := f.mode
	uid, gid := -1, -1
	if f.uid != nil {
		uid = int(*f.uid)
	}
	if group != nil {
		gid, mode = int(*group), mode|(mode&0o500)>>3|0o040
	}
	if uid >= 0 || gid >= 0 {
		if err := os.Lchown(path, uid, gid); err != nil {
			return err
		}
	}
	return os.Chmod(path, mode)
}

// tidy makes the visible names and removes those of earlier contents.
func tidy(dir, fresh string, want files) error {
	tops := map[string]bool{}
	for name := range want {
		top, _, _ := strings.Cut(name, string(filepath.Separator))
		tops[top] = true
	}
	for top := range tops {
		link := filepath.Join(dir, top)
		target := filepath.Join(dataLink, top)
		if have, err := os.Readlink(link); err == nil && have == target {
			continue
		}
		if err := os.RemoveAll(link); err != nil {
			return err
		}
		if err := os.Symlink(target, link); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if n := e.Name(); n != dataLink && n != fresh && !tops[n] {
			if err := os.RemoveAll(filepath.Join(dir, n)); err != nil {
				return err
			}
		}
	}
	return nil
}

// same says whether a directory already contains exactly the given files.
func same(dir string, want files) bool {
	n := 0
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		f, ok := want[name]
		if !ok {
			return os.ErrInvalid
		}
		have, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(have, f.data) {
			return os.ErrInvalid
		}
		n++
		return nil
	})
	return err == nil && n == len(want)
}
