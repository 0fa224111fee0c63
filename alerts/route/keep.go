package route

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/alertmanager/eventrecorder"
	"github.com/prometheus/alertmanager/nflog"
	"github.com/prometheus/alertmanager/silence"
	"github.com/prometheus/client_golang/prometheus"
)

// gather is how long a change of the notification log waits for others before
// it is written: what a kill -9 loses of it is told a second time.
const gather = time.Second

// retryWrite is how long after a failed write the next try is.
const retryWrite = 5 * time.Second

// kept is one state in memory with its file. The file is replaced as a whole.
type kept struct {
	name     string
	path     string
	snapshot func(io.Writer) (int64, error)
	gc       func() (int, error)
	changed  chan struct{} // capacity 1
	failed   prometheus.Counter

	// due is when a file of a time is to be written again though nothing changed, zero:
	// never. nil is never, too.
	due func(written time.Time) time.Time

	mu sync.Mutex // one write at a time
}

// touch says that the state differs from the file. It never blocks.
func (k *kept) touch([]byte) {
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// write makes the file what the state is now, durably.
func (k *kept) write() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := ReplaceFile(k.path, k.snapshot); err != nil {
		k.failed.Inc()
		k.touch(nil)
		return fmt.Errorf("write %s: %w", k.name, err)
	}
	return nil
}

// run writes after changes and when it is due, drops what is past its retention every
// maintenance, and writes a last time when ctx ends.
func (k *kept) run(ctx context.Context, log *slog.Logger) {
	old := time.NewTicker(maintenance)
	defer old.Stop()
	var written time.Time
	for {
		wait := gather
		var due <-chan time.Time
		if k.due != nil {
			if at := k.due(written); !at.IsZero() {
				due = time.After(time.Until(at))
			}
		}
		select {
		case <-ctx.Done():
			if err := k.write(); err != nil {
				log.Error("state of alerts was not written at the end", "what", k.name, "err", err)
			}
			return
		case <-old.C:
			if _, err := k.gc(); err != nil {
				log.Warn("old state of alerts was not dropped", "what", k.name, "err", err)
			}
		case <-due:
			k.touch(nil)
			wait = 0
		case <-k.changed:
			began := time.Now()
			if err := k.write(); err != nil {
				log.Error("state of alerts was not written, trying again", "what", k.name, "err", err)
				wait = retryWrite
			} else {
				written = began
			}
		}
		select { // changes come in crowds: they are written together
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// ReplaceFile writes a file beside path, readable by this user alone, and puts
// it in its place. After a crash at any moment it is the old or the new one. Its time is
// that before write, to the ns: the kernel's own may be some ms behind the clock.
func ReplaceFile(path string, write func(io.Writer) (int64, error)) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".part-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	began := time.Now()
	_, err = write(f)
	if err = errors.Join(err, os.Chtimes(f.Name(), time.Time{}, began), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// readable moves a file aside that its library cannot read, so that alerts go
// out even then; leftovers of a crash while writing go.
func readable(path string, log *slog.Logger, try func(file string) error) error {
	parts, err := filepath.Glob(path + ".part-*")
	if err != nil {
		return fmt.Errorf("list leftovers of %s: %w", path, err)
	}
	for _, p := range parts {
		if err := os.Remove(p); err != nil {
			return fmt.Errorf("remove leftover: %w", err)
		}
	}
	why := try(path)
	if why == nil {
		return nil
	}
	aside := fmt.Sprintf("%s.broken-%d", path, time.Now().Unix())
	if err := os.Rename(path, aside); err != nil {
		return fmt.Errorf("move unreadable file aside: %w", err)
	}
	log.Error("state of alerts cannot be read, it begins empty", "file", path, "aside", aside, "err", why)
	return nil
}

// openKept opens silences and notification log and ties them to their files.
func (r *Router) openKept(reg prometheus.Registerer) error {
	failed := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_route_state_write_failures_total",
		Help: "Writes of silences or notification log to disk that failed and are tried again."}, []string{"what"})
	r.reg.MustRegister(failed)
	rec := eventrecorder.NopRecorder()
	quiet, none := slog.New(slog.DiscardHandler), prometheus.NewRegistry
	if err := readable(r.file("nflog"), r.log, func(file string) error {
		_, err := nflog.New(nflog.Options{SnapshotFile: file, Retention: r.cfg.Retention, Logger: quiet, Metrics: none()})
		return err
	}); err != nil {
		return err
	}
	if err := readable(r.file("silences"), r.log, func(file string) error {
		_, err := silence.New(silence.Options{SnapshotFile: file, Retention: r.cfg.Retention, Logger: quiet, Metrics: none(), EventRecorder: rec})
		return err
	}); err != nil {
		return err
	}
	var err error
	if r.sent, err = nflog.New(nflog.Options{SnapshotFile: r.file("nflog"), Retention: r.cfg.Retention, Logger: r.log, Metrics: reg}); err != nil {
		return fmt.Errorf("open notification log: %w", err)
	}
	if r.silences, err = silence.New(silence.Options{SnapshotFile: r.file("silences"), Retention: r.cfg.Retention, Logger: r.log, Metrics: reg, EventRecorder: rec}); err != nil {
		return fmt.Errorf("open silences: %w", err)
	}
	r.sentFile = &kept{name: "notification log", path: r.file("nflog"), snapshot: r.sent.Snapshot, gc: r.sent.GC, changed: make(chan struct{}, 1), failed: failed.WithLabelValues("nflog")}
	r.silenceFile = &kept{name: "silences", path: r.file("silences"), snapshot: r.silences.Snapshot, gc: r.silences.GC, changed: make(chan struct{}, 1), failed: failed.WithLabelValues("silences")}
	r.activeFile = &kept{name: "alerts", path: r.file("alerts"), snapshot: r.snapshotAlerts, gc: func() (int, error) { return 0, nil }, changed: make(chan struct{}, 1), failed: failed.WithLabelValues("alerts"), due: r.nextEnd}
	r.textFile = &kept{name: "configuration", path: r.file("config"), snapshot: r.snapshotText, gc: func() (int, error) { return 0, nil }, changed: make(chan struct{}, 1), failed: failed.WithLabelValues("config")}
	r.sent.SetBroadcast(r.sentFile.touch)
	r.silences.SetBroadcast(r.silenceFile.touch)
	return nil
}

// durable answers a change of silences only when it is on disk. When the disk
// refuses, the change holds until the process ends, and the answer says so.
func (r *Router) durable(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodGet || req.Method == http.MethodHead || !strings.Contains(req.URL.Path, "/api/v2/silence") {
			next.ServeHTTP(w, req)
			return
		}
		a := &answer{header: http.Header{}, code: http.StatusOK}
		next.ServeHTTP(a, req)
		if a.code == http.StatusOK {
			if err := r.silenceFile.write(); err != nil {
				r.log.Error("silence is in force but not on disk", "err", err)
				http.Error(w, fmt.Sprintf("the change is in force, but a restart would lose it until the disk takes it: %v", err), http.StatusInternalServerError)
				return
			}
		}
		for k, v := range a.header {
			w.Header()[k] = v
		}
		w.WriteHeader(a.code)
		_, _ = w.Write(a.body.Bytes()) // the client is gone otherwise
	})
}

// answer keeps what a handler writes.
type answer struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(code int)        { a.code = code }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }
