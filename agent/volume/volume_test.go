package volume

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"perch/agent/pod"
)

// objects is a source in memory.
type objects struct {
	maps    map[string]*corev1.ConfigMap
	secrets map[string]*corev1.Secret
	tokens  int
}

func (o *objects) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	return o.maps[name], nil
}

func (o *objects) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	return o.secrets[name], nil
}

func (o *objects) Token(context.Context, *corev1.Pod, string, int64) (string, time.Time, error) {
	o.tokens++
	return "token", time.Now().Add(time.Hour), nil
}

func volumes(t *testing.T) (*Volumes, *objects) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: volumes are mounts")
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	o := &objects{maps: map[string]*corev1.ConfigMap{}, secrets: map[string]*corev1.Secret{}}
	v := New(Config{Pods: dir}, o, slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		if err := v.Release(context.Background(), "u"); err != nil {
			t.Error(err)
		}
	})
	return v, o
}

func podWith(source corev1.VolumeSource) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u", Labels: map[string]string{"a": "b"}},
		Spec:       corev1.PodSpec{Volumes: []corev1.Volume{{Name: "v", VolumeSource: source}}, Containers: []corev1.Container{{Name: "c"}}},
	}
}

func mustMount(t *testing.T, v *Volumes, p *corev1.Pod) string {
	t.Helper()
	if err := v.Mount(t.Context(), p, pod.Facts{}); err != nil {
		t.Fatal(err)
	}
	return v.path(p, &p.Spec.Volumes[0])
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAConfigMapChangesInOneStep(t *testing.T) {
	v, o := volumes(t)
	o.maps["m"] = &corev1.ConfigMap{Data: map[string]string{"a": "1", "b": "1"}, BinaryData: map[string][]byte{"c": {0}}}
	p := podWith(corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "m"}}})
	dir := mustMount(t, v, p)
	before, err := os.Readlink(filepath.Join(dir, "..data"))
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(dir, "a")) + read(t, filepath.Join(dir, "c")); got != "1\x00" {
		t.Errorf("read %q", got)
	}
	mustMount(t, v, p)
	if again, _ := os.Readlink(filepath.Join(dir, "..data")); again != before {
		t.Error("nothing changed, yet it was written anew")
	}
	o.maps["m"] = &corev1.ConfigMap{Data: map[string]string{"a": "2", "d": "2"}}
	if err := v.Refresh(t.Context(), p, pod.Facts{}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(dir, "a")) + read(t, filepath.Join(dir, "d")); got != "22" {
		t.Errorf("read %q", got)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 4 { // ..data, its directory, a, d
		t.Errorf("left: %v", entries)
	}
}

func TestWrittenVolumesSayWhatIsMissing(t *testing.T) {
	v, o := volumes(t)
	yes := true
	o.secrets["s"] = &corev1.Secret{Data: map[string][]byte{"k": []byte("x")}}
	cases := []struct {
		name   string
		source corev1.VolumeSource
		want   string
	}{
		{"no such config map", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "m"}}}, `configmap "ns/m" not found`},
		{"no such secret", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "none"}}, `secret "ns/none" not found`},
		{"an optional secret may be missing", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "none", Optional: &yes}}, ""},
		{"no such key", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s", Items: []corev1.KeyToPath{{Key: "q", Path: "q"}}}}, `has no key "q"`},
		{"a path that leaves the volume", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s", Items: []corev1.KeyToPath{{Key: "k", Path: "../k"}}}}, "leaves the volume"},
		{"a claim", corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}, "persistent volumes are not supported yet"},
		{"a host path of another type", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/etc", Type: new(corev1.HostPathFile)}}, "not a File"},
		{"a host path that is missing", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/no/such", Type: new(corev1.HostPathDirectory)}}, "type check failed"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			err := v.Mount(t.Context(), podWith(c.source), pod.Facts{})
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestSecretsLieInMemoryWithTheirModes(t *testing.T) {
	v, o := volumes(t)
	mode, group := int32(0o400), int64(7)
	o.secrets["s"] = &corev1.Secret{Data: map[string][]byte{"k": []byte("x")}}
	p := podWith(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s", DefaultMode: &mode, Items: []corev1.KeyToPath{{Key: "k", Path: "deep/k"}}}})
	p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &group}
	dir := mustMount(t, v, p)
	if mounted, err := isMount(dir); err != nil || !mounted {
		t.Errorf("not on a tmpfs: %v", err)
	}
	info, err := os.Stat(filepath.Join(dir, "deep", "k"))
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); st.Gid != 7 || info.Mode().Perm() != 0o440 {
		t.Errorf("mode %o, group %d", info.Mode().Perm(), st.Gid)
	}
	if err := v.Release(t.Context(), "u"); err != nil {
		t.Fatal(err)
	}
	if points, err := mountsBelow(v.cfg.Pods); err != nil || len(points) != 0 {
		t.Errorf("mounts left: %v %v", points, err)
	}
}

func TestATokenIsAskedForOnce(t *testing.T) {
	v, o := volumes(t)
	p := podWith(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
		{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}},
	}}})
	dir := mustMount(t, v, p)
	mustMount(t, v, p)
	if o.tokens != 1 || read(t, filepath.Join(dir, "token")) != "token" || read(t, filepath.Join(dir, "labels")) != `a="b"` {
		t.Errorf("%d tokens", o.tokens)
	}
}

func TestTokensAreStaleAfterFourFifths(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		age, life time.Duration
		want      bool
	}{{0, time.Hour, false}, {47 * time.Minute, time.Hour, false}, {49 * time.Minute, time.Hour, true}, {25 * time.Hour, 100 * time.Hour, true}} {
		tok := token{"x", now.Add(-c.age), now.Add(-c.age).Add(c.life)}
		if got := tok.stale(now); got != c.want {
			t.Errorf("age %s of %s: stale %v, want %v", c.age, c.life, got, c.want)
		}
	}
}

func TestEmptyDirKeepsItsContentAndMemoryHasALimit(t *testing.T) {
	v, _ := volumes(t)
	size := resource.MustParse("1Mi")
	p := podWith(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: &size}})
	dir := mustMount(t, v, p)
	if err := os.WriteFile(filepath.Join(dir, "f"), make([]byte, 2<<20), 0o600); err == nil {
		t.Error("2 MiB fit into 1 MiB")
	}
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustMount(t, v, p)
	if read(t, filepath.Join(dir, "f")) != "x" {
		t.Error("content was lost")
	}
	if points, _ := mountsBelow(v.cfg.Pods); len(points) != 1 {
		t.Errorf("%d mounts, want 1", len(points))
	}
}

func TestASubPathCannotLeaveItsVolume(t *testing.T) {
	v, _ := volumes(t)
	p := podWith(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})
	dir := mustMount(t, v, p)
	if err := os.Symlink("/etc", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil { // where the link leads inside the volume
		t.Fatal(err)
	}
	c := &p.Spec.Containers[0]
	env := func(name string) (string, bool) { return "x", name == "X" }
	for _, c2 := range []struct{ path, expr, inside string }{{"new/deep", "", "new/deep"}, {"", "of-$(X)", "of-x"}, {"link/below", "", "etc/below"}} {
		c.VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/m", SubPath: c2.path, SubPathExpr: c2.expr}}
		for range 2 { // each start of the container asks again
			mounts, err := v.Mounts(t.Context(), p, c, env)
			if err != nil {
				t.Fatalf("%+v: %v", c2, err)
			}
			if err := os.WriteFile(filepath.Join(mounts[0].HostPath, "f"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(dir, c2.inside, "f")); err != nil {
				t.Errorf("%+v: %v", c2, err)
			}
		}
	}
	c.VolumeMounts[0].SubPath = "../up"
	if _, err := v.Mounts(t.Context(), p, c, env); err == nil {
		t.Error("a path with .. was taken")
	}
	if _, err := os.Stat("/etc/below"); err == nil {
		t.Error("the link led out of the volume")
	}
}

func FuzzMountTable(f *testing.F) {
	f.Add("36 35 98:0 / /a/b rw - ext4 /dev/sda rw\n", "/a")
	f.Fuzz(func(t *testing.T, table, root string) {
		for _, p := range pointsBelow(table, root) {
			if !strings.HasPrefix(p, root+"/") {
				t.Errorf("%q is not below %q", p, root)
			}
		}
	})
}

func TestAMountPointIsToldFromADirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts")
	}
	parent := t.TempDir()
	dir := func(name string) string {
		t.Helper()
		d := filepath.Join(parent, name)
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		return d
	}
	mount := func(source, at, kind string, flags uintptr) {
		t.Helper()
		if err := unix.Mount(source, at, kind, flags, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	}
	plain, memory, bound := dir("plain"), dir("memory"), dir("bound")
	mount("tmpfs", memory, "tmpfs", 0)
	mount(plain, bound, "", unix.MS_BIND) // the same file system as its parent
	link := filepath.Join(parent, "link")
	if err := os.Symlink(memory, link); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(parent, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, path string
		want       bool
	}{
		{"a directory", plain, false},
		{"a tmpfs", memory, true},
		{"a directory bound to another place", bound, true},
		{"a link to a mount point", link, false},
		{"nothing", filepath.Join(parent, "none"), false},
		{"nothing below a file", filepath.Join(file, "x"), false},
	} {
		got, err := isMount(c.path)
		if err != nil || got != c.want {
			t.Errorf("%s: %v %v, want %v", c.name, got, err, c.want)
		}
		points, err := mountsBelow(parent) // what the kernel lists says the same
		if err != nil || slices.Contains(points, c.path) != c.want {
			t.Errorf("%s: the table of mounts has %v (%v)", c.name, points, err)
		}
	}
}
