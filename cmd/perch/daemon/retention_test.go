package daemon

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kadmission "k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"perch/cmd/perch/daemon/config"
	logstore "perch/logs/store"
)

func annotated(name string, of map[string]string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: of}}
}

func TestAnnotationsGoBeforeFlagsAndOutliveARestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "retention.json")
	flags := map[string]config.Kept{"shop": {Age: time.Hour, Bytes: 1 << 30}, "_host": {Age: 2 * time.Hour}}
	open := func() (*retentions, informers.SharedInformerFactory) {
		f := informers.NewSharedInformerFactory(fake.NewSimpleClientset(
			annotated("shop", map[string]string{retentionAnnotation: "3d"}), annotated("debug", map[string]string{bytesAnnotation: "1Gi"}),
			annotated("broken", map[string]string{retentionAnnotation: "soon"}), annotated("plain", nil)), 0)
		return newRetentions(flags, f, file, slog.New(slog.DiscardHandler)), f
	}
	check := func(r *retentions, name string, want logstore.Retention) {
		t.Helper()
		if have := r.now()[name]; have != want {
			t.Errorf("%s: %+v, want %+v", name, have, want)
		}
	}
	r, f := open()
	check(r, "shop", logstore.Retention{Age: time.Hour, Bytes: 1 << 30}) // the namespaces are not known yet
	f.StartWithContext(t.Context())
	f.WaitForCacheSyncWithContext(t.Context())
	check(r, "shop", logstore.Retention{Age: 72 * time.Hour, Bytes: 1 << 30})
	check(r, "debug", logstore.Retention{Bytes: 1 << 30})
	check(r, "_host", logstore.Retention{Age: 2 * time.Hour})
	check(r, "broken", logstore.Retention{})
	check(r, "plain", logstore.Retention{})
	r, _ = open() // nothing answers: as it was seen last
	check(r, "shop", logstore.Retention{Age: 72 * time.Hour, Bytes: 1 << 30})
	check(r, "debug", logstore.Retention{Bytes: 1 << 30})
}

func TestABrokenRetentionIsRefusedWhenWritten(t *testing.T) {
	broken := annotated("shop", map[string]string{retentionAnnotation: "3 days"})
	labelled := broken.DeepCopy()
	labelled.Labels = map[string]string{"a": "b"}
	for _, c := range []struct {
		name     string
		now, old *corev1.Namespace
		want     string
	}{
		{"a good one", annotated("shop", map[string]string{retentionAnnotation: "72h", bytesAnnotation: "2Gi"}), nil, ""},
		{"a broken age", broken, nil, `annotation perch.dev/log-retention "3 days": write how long lines are kept as 72h or 14d`},
		{"a minute", annotated("shop", map[string]string{retentionAnnotation: "1m"}), nil, "from 1h to 10y"},
		{"a broken size", annotated("shop", map[string]string{bytesAnnotation: "2 GB"}), nil, `annotation perch.dev/log-bytes "2 GB": write how many bytes`},
		{"a good one made bad", broken, annotated("shop", nil), "write how long"},
		{"a broken one that stays as it was", labelled, broken, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			op := kadmission.Create
			var err error
			if c.old != nil {
				op = kadmission.Update
				err = alertPlugin{}.Validate(t.Context(), kadmission.NewAttributesRecord(c.now, c.old, corev1.SchemeGroupVersion.WithKind("Namespace"), "", "shop", corev1.SchemeGroupVersion.WithResource("namespaces"), "", op, nil, false, nil), nil)
			} else {
				err = alertPlugin{}.Validate(t.Context(), kadmission.NewAttributesRecord(c.now, nil, corev1.SchemeGroupVersion.WithKind("Namespace"), "", "shop", corev1.SchemeGroupVersion.WithResource("namespaces"), "", op, nil, false, nil), nil)
			}
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
