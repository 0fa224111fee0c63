package onward

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/record"
	"perch/logs/store"
)

func openStore(t *testing.T, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(store.Default(dir), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func put(t *testing.T, s *store.Store, from, n int) {
	t.Helper()
	var list []record.Record
	for i := from; i < from+n; i++ {
		list = append(list, record.Record{Time: 1.7e18 + int64(i), Stream: &record.Stream{Namespace: "shop", Pod: "p" + strconv.Itoa(i%2)}, Body: fmt.Appendf(nil, "line %d", i)})
	}
	if err := s.Append(context.Background(), list, nil); err != nil {
		t.Fatal(err)
	}
}

// sender sends what s holds to addr until stop is called.
func sender(t *testing.T, s *store.Store, addr string, change func(*Config)) (stop func()) {
	t.Helper()
	cfg := Default(addr, "n1")
	cfg.Key, cfg.Poll, cfg.Lines, cfg.Timeout = "s3", 5*time.Millisecond, 100, 5*time.Second
	change(&cfg)
	o, err := New(cfg, s, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return run(t, o.Run)
}

func TestLinesGoOverTLSToAReceiverThatIsBelieved(t *testing.T) {
	web := httptest.NewTLSServer(nil)
	defer web.Close()
	pool := x509.NewCertPool()
	pool.AddCert(web.Certificate())
	r := &receiver{got: map[string]int{}, cert: func() (*tls.Certificate, error) { return &web.TLS.Certificates[0], nil }}
	addr, stopFar := r.open(t, "127.0.0.1:0")
	defer stopFar()
	s := openStore(t, t.TempDir())
	put(t, s, 0, 300)

	o, err := New(Default(addr, "n1"), s, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	o.cfg.Key, o.cfg.TLS = "s3", &tls.Config{}
	if _, err := o.pass(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Fatalf("a receiver whose authority is unknown was believed: %v", err)
	}
	defer sender(t, s, addr, func(c *Config) { c.TLS = &tls.Config{RootCAs: pool} })()
	r.until(t, 300)
}

func TestANewReceiverMayBeginWithWhatComesNow(t *testing.T) {
	r := &receiver{got: map[string]int{}}
	addr, stopFar := r.open(t, "127.0.0.1:0")
	defer stopFar()
	s := openStore(t, t.TempDir())
	put(t, s, 0, 100)
	now := func(c *Config) { c.FromNow = true }
	stop := sender(t, s, addr, now)
	limit := time.After(20 * time.Second)
	for settled := false; !settled; {
		for _, p := range s.Positions() {
			settled = settled || p.File == File+addr && p.Inode == began
		}
		select {
		case <-limit:
			t.Fatal("the beginning was not settled")
		case <-time.After(time.Millisecond): // looks again
		}
	}
	put(t, s, 100, 50)
	r.until(t, 50)
	stop()
	put(t, s, 150, 50) // while it is away: not "now" again after a restart
	stop = sender(t, s, addr, now)
	r.until(t, 100)
	stop()
	for line := range r.got {
		if n, _ := strconv.Atoi(strings.TrimPrefix(line, "line ")); n < 100 {
			t.Fatalf("%s is from before", line)
		}
	}
}

// What was known of a former receiver, a position for each stream, is not kept for ever.
func TestAFormerReceiverIsForgotten(t *testing.T) {
	s := openStore(t, t.TempDir())
	put(t, s, 0, 100)
	if err := s.Append(t.Context(), nil, []record.Position{{File: "another", Inode: 1}}); err != nil {
		t.Fatal(err)
	}
	var addr string
	for range 2 {
		r := &receiver{got: map[string]int{}}
		at, stopFar := r.open(t, "127.0.0.1:0")
		addr = at
		stop := sender(t, s, addr, func(*Config) {})
		r.until(t, 100)
		stop()
		stopFar()
	}
	files := map[string]bool{}
	for _, p := range s.Positions() {
		files[p.File] = true
	}
	if len(files) != 2 || !files[File+addr] || !files["another"] {
		t.Errorf("positions of %v, the receiver is %s", files, addr)
	}
}

func TestItsOwnPortIsRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := Default(l.Addr().String(), "n1")
	cfg.OwnPort = l.Addr().(*net.TCPAddr).Port
	o, err := New(cfg, nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.dial(t.Context()); err == nil || !strings.Contains(err.Error(), "go round for ever") {
		t.Fatal(err)
	}
	o.cfg.OwnPort++
	c, err := o.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

// TestSendingChild is the process that TestKillLosesNothing kills: it stores
// lines and sends them on.
func TestSendingChild(t *testing.T) {
	dir, addr := os.Getenv("ONWARD_TEST_DIR"), os.Getenv("ONWARD_TEST_ADDR")
	if dir == "" {
		t.Skip("only as a child of TestKillLosesNothing")
	}
	s := openStore(t, dir)
	defer sender(t, s, addr, func(*Config) {})()
	first, _ := s.Position("made", 1)
	for i := int(first.Stdout); ; i += 10 {
		var list []record.Record
		for k := i; k < i+10; k++ {
			list = append(list, record.Record{Time: 1.7e18 + int64(k), Stream: &record.Stream{Namespace: "shop", Pod: "p" + strconv.Itoa(k%2)}, Body: fmt.Appendf(nil, "line %d", k)})
		}
		if err := s.Append(t.Context(), list, []record.Position{{File: "made", Inode: 1, Stdout: int64(i + 10)}}); err != nil {
			t.Fatal(err)
		}
		fmt.Println("ack", i+10)
	}
}

func TestKillLosesNothing(t *testing.T) {
	r := &receiver{got: map[string]int{}}
	addr, stopFar := r.open(t, "127.0.0.1:0")
	defer stopFar()
	dir := t.TempDir()
	acked := 0
	for round := range 4 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestSendingChild$")
		cmd.Env = append(os.Environ(), "ONWARD_TEST_DIR="+dir, "ONWARD_TEST_ADDR="+addr)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		scan := bufio.NewScanner(out)
		for n := 0; scan.Scan(); {
			if text, ok := strings.CutPrefix(scan.Text(), "ack "); ok {
				acked, _ = strconv.Atoi(text)
				if n++; n == 60+37*round {
					_ = cmd.Process.Kill()
				}
			} else {
				t.Log(scan.Text())
			}
		}
		_ = cmd.Wait() // killed on purpose
	}
	if acked < 1000 {
		t.Fatalf("only %d lines were stored", acked)
	}
	s := openStore(t, dir)
	stop := sender(t, s, addr, func(*Config) {})
	r.until(t, acked)
	stop()
	twice := 0
	for _, n := range r.got {
		twice += n - 1
	}
	t.Logf("%d lines, %d of them twice", len(r.got), twice)
	if twice > 4*2*100 { // a kill may repeat the chunk that was not acknowledged
		t.Errorf("%d lines came again after 4 kills", twice)
	}
}
