package store

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// childDir makes the test binary a writer that is going to be killed.
const childDir = "PERCH_STORE_CHILD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		writeForever(dir)
		return
	}
	os.Exit(m.Run())
}

func config(dir string) Config {
	c := Default()
	c.Dir = dir
	return c
}

func open(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

func writeForever(dir string) {
	s, err := Open(config(dir), slog.New(slog.DiscardHandler), nil)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		if _, err := s.Client().Put(context.Background(), fmt.Sprintf("/k/%08d", i), strings.Repeat("x", 500)); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("ack", i)
	}
}

func TestEveryAcknowledgedWriteSurvivesKill9(t *testing.T) {
	dir := t.TempDir()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), childDir+"="+dir)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	last := -1
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		n, ok := strings.CutPrefix(lines.Text(), "ack ")
		if !ok {
			t.Fatal(lines.Text())
		}
		if last, err = strconv.Atoi(n); err != nil {
			t.Fatal(err)
		}
		if last == 300 {
			if err := c.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = c.Wait() // it was killed
	if last < 300 {
		t.Fatalf("child ended after %d writes", last)
	}
	s := open(t, config(dir))
	r, err := s.Client().Get(context.Background(), "/k/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	if int(r.Count) < last+1 {
		t.Fatalf("have %d keys, want at least %d", r.Count, last+1)
	}
}

func TestSecondInstanceOnTheSameDirectoryIsRefused(t *testing.T) {
	cfg := config(t.TempDir())
	s := open(t, cfg)
	if _, err := Open(cfg, slog.New(slog.DiscardHandler), nil); !errors.Is(err, ErrLocked) {
		t.Fatalf("have %v, want ErrLocked", err)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	open(t, cfg)
}

func TestNewerDataIsRefused(t *testing.T) {
	cfg := config(t.TempDir())
	if err := os.WriteFile(filepath.Join(cfg.Dir, "format"), []byte("99\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg, slog.New(slog.DiscardHandler), nil); !errors.Is(err, ErrNewer) {
		t.Fatalf("have %v, want ErrNewer", err)
	}
}

func TestSnapshotHoldsTheDatabase(t *testing.T) {
	s := open(t, config(t.TempDir()))
	if _, err := s.Client().Put(context.Background(), "/a", "needle-in-snapshot"); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := s.Snapshot(context.Background(), &b); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b.Bytes(), []byte("needle-in-snapshot")) {
		t.Fatalf("snapshot of %d bytes lacks the key", b.Len())
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	s := open(t, config(t.TempDir()))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestConfigNamesEveryProblem(t *testing.T) {
	err := Config{PeerCert: "x"}.Validate()
	for _, want := range []string{"directory", "name", "quota", "compaction", "belong together"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
}
