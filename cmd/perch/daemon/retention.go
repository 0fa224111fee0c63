package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"sync"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"

	"github.com/prometheus/common/model"
	"k8s.io/apimachinery/pkg/api/resource"

	"perch/cmd/perch/daemon/config"
	logstore "perch/logs/store"
)

// Annotations of a Namespace that say how long its lines are kept, and how many
// bytes of them on each node.
const (
	retentionAnnotation = "perch.dev/log-retention"
	bytesAnnotation     = "perch.dev/log-bytes"
)

// ownRetention reads a namespace's annotations. What cannot be read is left out
// and told in the error.
func ownRetention(annotations map[string]string) (own logstore.Retention, _ error) {
	var errs []error
	var err error
	if text, ok := annotations[retentionAnnotation]; ok {
		if own.Age, err = config.ParseAge(text); err != nil {
			errs = append(errs, fmt.Errorf("annotation %s %q: %w", retentionAnnotation, text, err))
		}
	}
	if text, ok := annotations[bytesAnnotation]; ok {
		if own.Bytes, err = config.ParseSize(text); err != nil {
			errs = append(errs, fmt.Errorf("annotation %s %q: %w", bytesAnnotation, text, err))
		}
	}
	return own, errors.Join(errs...)
}

// retentions are those of the namespaces: of flags, and before them of
// annotations. The annotations that were seen last are kept in a file, so that a
// start does not remove what they hold before the namespaces are known.
type retentions struct {
	flags      map[string]config.Kept
	namespaces func() ([]*corev1.Namespace, bool) // false: not known yet
	file       string
	log        *slog.Logger

	mu   sync.Mutex // guards what follows
	seen map[string]logstore.Retention
}

func newRetentions(flags map[string]config.Kept, f informers.SharedInformerFactory, file string, log *slog.Logger) *retentions {
	r := &retentions{flags: flags, file: file, log: log, seen: map[string]logstore.Retention{}}
	known := f.Core().V1().Namespaces()
	list, synced := known.Lister(), known.Informer().HasSynced
	r.namespaces = func() ([]*corev1.Namespace, bool) { return all(list.List), synced() }
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &r.seen)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		log.Warn("last retention of namespaces was not read", "err", err)
	}
	return r
}

// now implements the store's Namespaces.
func (r *retentions) now() map[string]logstore.Retention {
	r.mu.Lock()
	defer r.mu.Unlock()
	if list, known := r.namespaces(); known {
		have := map[string]logstore.Retention{}
		for _, n := range list {
			if own, _ := ownRetention(n.Annotations); own != (logstore.Retention{}) { // a broken one is as none; its writer was told
				have[n.Name] = own
			}
		}
		if !maps.Equal(have, r.seen) {
			r.seen = have
			r.save()
		}
	}
	out := map[string]logstore.Retention{}
	for name, k := range r.flags {
		out[name] = logstore.Retention(k)
	}
	for name, own := range r.seen {
		if own.Age == 0 {
			own.Age = out[name].Age
		}
		if own.Bytes == 0 {
			own.Bytes = out[name].Bytes
		}
		out[name] = own
	}
	return out
}

func (r *retentions) save() {
	if err := saveJSON(r.file, r.seen); err != nil {
		r.log.Warn("retention of namespaces was not saved", "err", err)
	}
}

// saveJSON replaces a file; a kill leaves the old or the new one.
func saveJSON(file string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("save %s: %w", file, err)
	}
	if err := os.WriteFile(file+".part", text, 0o600); err != nil {
		return fmt.Errorf("save %s: %w", file, err)
	}
	return os.Rename(file+".part", file)
}

// usePath is where the telemetry role tells on its socket what lines use.
const usePath = "/perch/v1/logs/use"

func serveUse(s *logstore.Store) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s.Use()) // the asker is gone if this fails
	}
}

// showUse prints what lines use on this machine; nothing while the telemetry
// role does not answer.
func showUse(ctx context.Context, cfg config.Config, out io.Writer) error {
	var use logstore.Use
	if ok, err := askTelemetry(ctx, cfg, usePath, &use); !ok {
		return err
	}
	oldest := "none stored in blocks yet"
	if !use.Oldest.IsZero() {
		oldest = "the oldest of " + use.Oldest.Local().Format(time.DateTime)
	}
	tw := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
	fmt.Fprintf(tw, "\nLINES\tUSED\tKEPT AT MOST\n")
	fmt.Fprintf(tw, "all\t%s\t%s\t%s\n", size(use.Bytes), keptText(use.Age, use.MaxBytes), oldest)
	for _, n := range use.Namespaces {
		if n.Retention == (logstore.Retention{}) {
			continue
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\n", n.Name, size(n.Bytes), keptText(n.Retention.Age, n.Retention.Bytes))
	}
	return tw.Flush()
}

func keptText(age time.Duration, bytes int64) string {
	switch {
	case age == 0 && bytes == 0:
		return "for ever"
	case age == 0:
		return size(bytes)
	case bytes == 0:
		return model.Duration(age).String()
	}
	return model.Duration(age).String() + ", " + size(bytes)
}

// size is a number of bytes for people.
func size(n int64) string {
	for _, unit := range []struct {
		name  string
		bytes int64
	}{{"Gi", 1 << 30}, {"Mi", 1 << 20}, {"Ki", 1 << 10}} {
		if n >= unit.bytes {
			return fmt.Sprintf("%.1f%s", float64(n)/float64(unit.bytes), unit.name)
		}
	}
	return resource.NewQuantity(n, resource.BinarySI).String()
}
