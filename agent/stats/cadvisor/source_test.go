package cadvisor

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"perch/agent/stats"
)

// start runs the library beside a socket that answers nothing: the raw cgroups
// must be there all the same.
func start(t testing.TB) *Source {
	cfg := Default()
	cfg.Socket = filepath.Join(t.TempDir(), "runtime.sock")
	l, err := net.Listen("unix", cfg.Socket)
	if err != nil {
		t.Fatal(err)
	}
	s := New(cfg, func(string, string) (stats.Identity, bool) { return stats.Identity{}, false }, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

func names(t testing.TB, s *Source) map[string]*dto.MetricFamily {
	t.Helper()
	families, err := s.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*dto.MetricFamily{}
	for _, f := range families {
		out[f.GetName()] = f
	}
	return out
}

func TestTheMachineIsThereAndTheFastReadersSeriesAreNot(t *testing.T) {
	s := start(t)
	deadline := time.After(60 * time.Second)
	for {
		have := names(t, s)
		if have["machine_memory_bytes"] != nil && have["container_network_receive_bytes_total"] != nil {
			for name, p := range stats.Producers() {
				// container_threads comes with the processes; the table drops it.
				if p == stats.Fast && have[name] != nil && name != "container_threads" {
					t.Errorf("cAdvisor makes %s too", name)
				}
			}
			return
		}
		select {
		case <-deadline:
			t.Fatal("cAdvisor gave no machine or network: ", len(have))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// BenchmarkGather is the way from cgroup files to families.
func BenchmarkGather(b *testing.B) {
	s := start(b)
	deadline := time.After(60 * time.Second)
	for len(names(b, s)) == 0 {
		select {
		case <-deadline:
			b.Fatal("cAdvisor did not start")
		case <-time.After(100 * time.Millisecond):
		}
	}
	n := 0
	b.ReportAllocs()
	began := cpu()
	for b.Loop() {
		for _, f := range names(b, s) {
			n += len(f.GetMetric())
		}
	}
	b.ReportMetric((cpu()-began).Seconds()/float64(n)*1e6, "cpu-s/Msample")
}

// cpu is what this process has used by now: it holds on a busy machine.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
