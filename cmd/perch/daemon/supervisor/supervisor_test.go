package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sys/unix"
)

// The test binary is also the role: what it does is its first argument.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "role" {
		n := OpenNotifier()
		switch os.Args[2] {
		case "steady":
			go func() { _ = NewPulse(n, look).Run(context.Background()) }()
			n.Ready()
			<-time.After(time.Hour)
		case "stuck": // one of its parts is
			p := NewPulse(n, look)
			var mu sync.Mutex
			p.Check("sums", func(context.Context) error { return errors.New("an error is an answer") })
			p.Check("books", func(context.Context) error { mu.Lock(); return nil })
			n.Ready()
			_ = p.Run(context.Background())
		case "mute": // says nothing and does nothing
			n.Ready()
			<-time.After(time.Hour)
		case "frantic": // says nothing and does much
			n.Ready()
			for {
				runtime.Gosched()
			}
		case "keeper":
			keeper(n)
		case "panics":
			panic("a bug")
		case "refuse":
			n.Error(os.ErrExist)
			os.Exit(ExitRefused)
		}
	}
	os.Exit(m.Run())
}

// keeper answers questions on a UDP socket: the first run opens it and answers
// none, the second gets it from the supervisor and answers all.
func keeper(n Notifier) {
	fail := func(err error) {
		n.Error(err)
		os.Exit(1)
	}
	f := n.Held("questions")
	if f == nil {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
		if err != nil {
			fail(err)
		}
		f, err := c.File()
		if err != nil {
			fail(err)
		}
		if err := n.Hold("questions", f); err != nil {
			fail(err)
		}
		for i := range 2 * maxHeld { // more than may be held
			_ = n.Hold("spare"+strconv.Itoa(i), f)
		}
		if err := os.WriteFile(os.Args[3], []byte(c.LocalAddr().String()), 0o600); err != nil {
			fail(err)
		}
		n.Ready()
		<-time.After(time.Hour)
	}
	if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		fail(errors.New("what this role starts would inherit the socket"))
	}
	c, err := net.FilePacketConn(f)
	if err != nil {
		fail(err)
	}
	n.Ready()
	text := make([]byte, 64)
	for {
		got, from, err := c.ReadFrom(text)
		if err != nil {
			fail(err)
		}
		_, _ = c.WriteTo(append([]byte("answer to "), text[:got]...), from)
	}
}

// look is how often these roles say that they live.
const look = 100 * time.Millisecond

// patient ends no role before 2 s, and a busy one after 4 s.
func patient() Patience { return Patience{Look: look, Doubt: 10, Idle: 20, Busy: 40} }

func start(t *testing.T, roles ...string) (*Supervisor, context.CancelFunc, chan error) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Executable: exe, LogDir: t.TempDir(), Grace: 5 * time.Second, Patience: patient()}
	for _, r := range roles {
		cfg.Roles = append(cfg.Roles, Role{Name: r, Args: []string{"role", r}})
	}
	s, err := New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
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
	limit := time.After(2 * time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not within two minutes: %s", what)
		}
	}
}

func TestAKilledRoleIsStartedAgainAndTheOtherIsUndisturbed(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Executable: exe, LogDir: t.TempDir(), Grace: 5 * time.Second, Patience: patient(), Roles: []Role{
		{Name: "a", Args: []string{"role", "steady"}}, {Name: "b", Args: []string{"role", "steady"}}}}
	s, err := New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
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

func TestAQuestionAskedWhileARoleIsAwayIsAnsweredByItsNextRun(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	where := t.TempDir() + "/address"
	s, err := New(Config{Executable: exe, LogDir: t.TempDir(), Grace: 5 * time.Second, Patience: patient(), Roles: []Role{{Name: "keeper", Args: []string{"role", "keeper", where}}}}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	eventually(t, "ready", func() bool { return s.Status()[0].State == Ready })
	address, err := os.ReadFile(where)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("udp", string(address))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ask := func(text string) (string, error) {
		if _, err := c.Write([]byte(text)); err != nil {
			return "", err
		}
		if err := c.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
			return "", err
		}
		answer := make([]byte, 64)
		n, err := c.Read(answer)
		return string(answer[:n]), err
	}
	if err := syscall.Kill(s.Status()[0].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one", "two"} {
		if got, err := ask(text); err != nil || got != "answer to "+text {
			t.Fatalf("asked %s: %q, %v", text, got, err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := ask("three"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the socket outlived its role: %v", err)
	}
}

func TestARoleThatPanicsAtItsStartIsTriedAgain(t *testing.T) {
	s, _, done := start(t, "panics") // with the exit code of a refusal
	eventually(t, "second restart", func() bool { return s.Status()[0].Restarts > 1 })
	select {
	case err := <-done:
		t.Fatalf("the supervisor ended: %v", err)
	default:
	}
}

func TestARoleThatHangsIsEndedWithItsReasonAndStartedAgain(t *testing.T) {
	for name, want := range map[string]struct {
		reason string
		after  time.Duration
	}{
		"mute":    {reason: "said and did nothing for", after: 2 * time.Second},
		"stuck":   {reason: "books has not answered for", after: 4 * time.Second},
		"frantic": {reason: "said nothing for", after: 4 * time.Second},
		"steady":  {reason: "stopped by a signal for", after: 2 * time.Second}, // it gets one below
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _, _ := start(t, name)
			eventually(t, "ready", func() bool { return s.Status()[0].State == Ready })
			began, pid := time.Now(), s.Status()[0].PID
			if name == "steady" {
				if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, "doubts", func() bool { st := s.Status()[0]; return st.State == Silent && st.PID == pid })
			eventually(t, "restart", func() bool { return s.Status()[0].Restarts == 1 })
			took, st := time.Since(began), s.Status()[0]
			if took < want.after-5*look || !strings.HasPrefix(st.LastError, "hung: "+want.reason) {
				t.Errorf("after %s: %+v", took, st)
			}
			if n := testutil.ToFloat64(s.metrics.restarts.WithLabelValues(name, "hung")); n != 1 {
				t.Errorf("the metric says %v restarts", n)
			}
			log, err := os.ReadFile(s.cfg.LogDir + "/" + name + ".log")
			if err != nil || !strings.Contains(string(log), "goroutine 1 gp=") {
				t.Errorf("its log of %d bytes does not tell what it did: %v", len(log), err)
			}
			eventually(t, "ready again", func() bool { st := s.Status()[0]; return st.State == Ready && st.PID != pid })
		})
	}
}

func TestARoleThatLivesIsLeftAloneAlsoWhenItPauses(t *testing.T) {
	s, _, _ := start(t, "steady", "mute")
	eventually(t, "ready", func() bool { return s.Status()[0].State == Ready })
	pid := s.Status()[0].PID
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil { // for less than the patience
		t.Fatal(err)
	}
	eventually(t, "doubts", func() bool { return s.Status()[0].State == Silent })
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "ready again", func() bool { return s.Status()[0].State == Ready })
	eventually(t, "the other was ended twice", func() bool { return s.Status()[1].Restarts == 2 })
	if st := s.Status()[0]; st.PID != pid || st.Restarts != 0 {
		t.Errorf("got %+v", st)
	}
}

func TestARoleThatRefusesEndsTheSupervisorWithItsReason(t *testing.T) {
	_, _, done := start(t, "refuse")
	select {
	case err := <-done:
		if err == nil || err.Error() != "refuse: file already exists" {
			t.Fatalf("got %v", err)
		}
	case <-time.After(2 * time.Minute):
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
