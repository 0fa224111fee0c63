package supervisor

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test binary is also the role: what it does is its first argument.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "role" {
		n := OpenNotifier()
		switch os.Args[2] {
		case "steady":
			n.Ready()
			<-time.After(time.Hour)
		case "refuse":
			n.Error(os.ErrExist)
			os.Exit(ExitRefused)
		}
	}
	os.Exit(m.Run())
}

func start(t *testing.T, roles ...string) (*Supervisor, context.CancelFunc, chan error) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Executable: exe, LogDir: t.TempDir(), Grace: 5 * time.Second}
	for _, r := range roles {
		cfg.Roles = append(cfg.Roles, Role{Name: r, Args: []string{"role", r}})
	}
	s, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(cancel)
	return s, cancel, done
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(15 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not within 15 s: %s", what)
		}
	}
}

func TestAKilledRoleIsStartedAgainAndTheOtherIsUndisturbed(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Executable: exe, LogDir: t.TempDir(), Grace: 5 * time.Second, Roles: []Role{
		{Name: "a", Args: []string{"role", "steady"}}, {Name: "b", Args: []string{"role", "steady"}}}}
	s, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	eventually(t, "both ready", func() bool { st := s.Status(); return st[0].State == Ready && st[1].State == Ready })
	a, b := s.Status()[0].PID, s.Status()[1].PID
	if err := syscall.Kill(a, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a is back", func() bool { st := s.Status(); return st[0].State == Ready && st[0].PID != a })
	st := s.StatusWithMemory()
	if st[1].PID != b || st[0].Restarts != 1 || !strings.Contains(st[0].LastError, "killed") {
		t.Fatalf("after the kill: %+v", st)
	}
	if st[0].MemoryBytes == 0 {
		t.Error("memory of a running role is unknown")
	}
	if s.Status()[0].MemoryBytes != 0 {
		t.Error("a poll of the status measures memory, which costs tens of milliseconds")
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(b, 0); err == nil {
		t.Error("a role outlived its supervisor")
	}
}

func TestARoleThatRefusesEndsTheSupervisorWithItsReason(t *testing.T) {
	_, _, done := start(t, "refuse")
	select {
	case err := <-done:
		if err == nil || err.Error() != "refuse: file already exists" {
			t.Fatalf("got %v", err)
		}
	case <-time.After(15 * time.Second):
		t.Fatal("still running")
	}
}

func TestRestartsComeWithinTwoSecondsFirstAndStayBounded(t *testing.T) {
	for quick := range 200 {
		d := Delay(quick)
		if quick <= 4 && d > 2*time.Second {
			t.Errorf("restart %d waits %s", quick, d)
		}
		if d <= 0 || d > maxDelay {
			t.Errorf("restart %d waits %s", quick, d)
		}
	}
}
