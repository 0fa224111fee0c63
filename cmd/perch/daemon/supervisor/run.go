package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ExitRefused is the exit code of a role that must not be started again with
// the same configuration; its last "error" line says why.
const ExitRefused = 2

// Role is one child process.
type Role struct {
	Name string
	Args []string // after the executable
	Env  []string // added to the supervisor's environment
}

// Config says what to run.
type Config struct {
	Executable string        // absolute path
	LogDir     string        // <role>.log is where a role's stderr goes
	Grace      time.Duration // between SIGTERM and SIGKILL
	Patience   Patience      // with roles that hang
	Roles      []Role        // started in this order, stopped in reverse
}

// State of a role as shown by `perch status`.
type State string

// The states of a role.
const (
	Starting   State = "starting" // for the first time
	Ready      State = "ready"
	Silent     State = "silent"     // was ready, but gives no sign of life now
	Restarting State = "restarting" // from its end until it is ready again
	Stopped    State = "stopped"
)

// Status describes one role; times are wall-clock times.
type Status struct {
	Role        string    `json:"role"`
	State       State     `json:"state"`
	Since       time.Time `json:"since"` // of State
	PID         int       `json:"pid"`   // 0: none runs
	Started     time.Time `json:"started"`
	Restarts    int       `json:"restarts"`
	LastError   string    `json:"lastError,omitempty"`
	MemoryBytes int64     `json:"memoryBytes"` // proportional set size, by StatusWithMemory
}

// Supervisor runs the roles of one machine.
type Supervisor struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	spawn   chan spawnRequest

	mu   sync.Mutex
	have map[string]*Status
}

type spawnRequest struct {
	cmd  *exec.Cmd
	done chan error
}

// New checks the configuration; it starts nothing.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Supervisor, error) {
	if cfg.Executable == "" || len(cfg.Roles) == 0 {
		return nil, errors.New("supervisor needs an executable and at least one role")
	}
	if p := cfg.Patience; p.Look <= 0 || p.Doubt < 2 || p.Idle < p.Doubt || p.Busy < p.Idle {
		return nil, fmt.Errorf("patience %+v: want a time to look, and 2 or more looks in rising order", p)
	}
	s := &Supervisor{cfg: cfg, log: log, metrics: newMetrics(reg, cfg.Roles), spawn: make(chan spawnRequest), have: map[string]*Status{}}
	for _, r := range cfg.Roles {
		s.have[r.Name] = &Status{Role: r.Name, State: Stopped, Since: time.Now()}
	}
	return s, nil
}

// Run starts all roles and keeps them running until ctx ends; then it stops
// them in reverse order. It returns early only when a role refuses to run.
func (s *Supervisor) Run(ctx context.Context) error {
	// A child gets SIGTERM when the thread that made it ends, so one thread
	// makes them all and lives as long as the supervisor.
	stopSpawner := make(chan struct{})
	defer close(stopSpawner)
	go s.spawner(stopSpawner)

	refused := make(chan error, len(s.cfg.Roles))
	type running struct {
		cancel context.CancelFunc
		done   chan struct{}
	}
	var roles []running
	for _, r := range s.cfg.Roles {
		rctx, cancel := context.WithCancel(context.Background())
		run := running{cancel, make(chan struct{})}
		roles = append(roles, run)
		go func() {
			defer close(run.done)
			if err := s.keep(rctx, r); err != nil {
				refused <- err
			}
		}()
	}
	var cause error
	select {
	case <-ctx.Done():
	case cause = <-refused:
	}
	for _, r := range slices.Backward(roles) {
		r.cancel()
		<-r.done
	}
	return cause
}

// Status lists the roles in the order of the configuration, without their
// memory.
func (s *Supervisor) Status() []Status {
	s.mu.Lock()
	out := make([]Status, 0, len(s.cfg.Roles))
	for _, r := range s.cfg.Roles {
		out = append(out, *s.have[r.Name])
	}
	s.mu.Unlock()
	return out
}

// StatusWithMemory adds the memory of each role. The kernel walks all pages of
// a process for that and holds up its page faults meanwhile: not for polling.
func (s *Supervisor) StatusWithMemory() []Status {
	out := s.Status()
	for i := range out {
		out[i].MemoryBytes = proportionalSet(out[i].PID)
	}
	return out
}

// keep runs one role again and again until ctx ends.
func (s *Supervisor) keep(ctx context.Context, r Role) error {
	quick, everReady := 0, false
	var keeps held
	defer func() { keeps.close(s.log) }()
	for ctx.Err() == nil {
		began := time.Now()
		ready, lastError, err := s.once(ctx, r, &keeps)
		everReady = everReady || ready
		if ctx.Err() != nil {
			break
		}
		var exit *exec.ExitError
		// A Go program that panics ends with the same code, but says no word.
		if errors.As(err, &exit) && exit.ExitCode() == ExitRefused && lastError != "" && !everReady {
			return fmt.Errorf("%s: %s", r.Name, lastError)
		}
		quick++
		if time.Since(began) >= Steady {
			quick = 1
		}
		delay := Delay(quick)
		s.log.Warn("role ended", "role", r.Name, "err", err, "told", lastError, "delay", delay.String())
		reason := "ended"
		if errors.As(err, new(hung)) {
			reason = "hung"
		}
		s.metrics.restarts.WithLabelValues(r.Name, reason).Inc()
		s.set(r.Name, func(st *Status) {
			s.enter(st, Restarting)
			st.PID = 0
			st.Restarts++
			st.LastError = describe(err, lastError)
		})
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
	}
	s.set(r.Name, func(st *Status) {
		s.enter(st, Stopped)
		st.PID = 0
	})
	return nil
}

// hung is why a role was ended that gave no sign of life.
type hung struct{ why string }

func (h hung) Error() string { return "hung: " + h.why + "; ended and started again" }

func describe(err error, told string) string {
	if told != "" && !errors.As(err, new(hung)) {
		return told
	}
	if err == nil {
		return "ended without being asked to"
	}
	return err.Error()
}

// once runs a role to its end and reports whether it became ready and the last
// error it told.
func (s *Supervisor) once(ctx context.Context, r Role, keeps *held) (ready bool, told string, _ error) {
	out, err := os.OpenFile(s.cfg.LogDir+"/"+r.Name+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return false, "", fmt.Errorf("open log of role %s: %w", r.Name, err)
	}
	defer out.Close()
	hears, tells, err := channel()
	if err != nil {
		return false, "", fmt.Errorf("start role %s: %w", r.Name, err)
	}
	defer hears.Close()
	cmd := exec.Command(s.cfg.Executable, r.Args...)
	cmd.Env = append(append(os.Environ(), r.Env...), keeps.env())
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = append([]*os.File{tells}, keeps.files()...) // from FirstFD on
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	req := spawnRequest{cmd, make(chan error, 1)}
	s.spawn <- req
	err = <-req.done
	tells.Close()
	if err != nil {
		return false, "", fmt.Errorf("start role %s: %w", r.Name, err)
	}
	s.set(r.Name, func(st *Status) {
		if st.Restarts == 0 {
			s.enter(st, Starting)
		}
		st.PID, st.Started = cmd.Process.Pid, time.Now()
	})
	s.log.Info("role started", "role", r.Name, "pid", cmd.Process.Pid)

	heard, alive := make(chan struct{}), &life{}
	go func() {
		defer close(heard)
		ready, told = s.listen(r.Name, hears, alive, keeps)
	}()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	err = s.watch(ctx, r.Name, cmd, alive, ended)
	_ = hears.SetReadDeadline(time.Now().Add(time.Second)) // what it said last is there already; nobody else has its end
	<-heard
	return ready, told, err
}

// watch waits for a role's end, brings it about when ctx ends, and when the
// role hangs.
func (s *Supervisor) watch(ctx context.Context, name string, cmd *exec.Cmd, alive *life, ended <-chan error) error {
	look := time.NewTicker(s.cfg.Patience.Look)
	defer look.Stop()
	before := Lives
	for {
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
			return s.end(cmd, ended)
		case <-look.C:
		}
		now := readProcess(cmd.Process.Pid)
		s.mu.Lock()
		verdict, why := Judge(alive.look(now, s.cfg.Patience.Crowd), s.cfg.Patience)
		s.mu.Unlock()
		switch {
		case verdict == Ends:
			s.log.Error("role hangs", "role", name, "pid", cmd.Process.Pid, "reason", why)
			s.abort(cmd, ended)
			return hung{why}
		case verdict == Doubts && before != Doubts:
			s.log.Warn("role gives no sign of life", "role", name, "pid", cmd.Process.Pid, "reason", why)
			s.set(name, func(st *Status) {
				if st.State == Ready {
					s.enter(st, Silent)
				}
			})
		case verdict == Lives && before == Doubts:
			s.log.Info("role lives again", "role", name, "pid", cmd.Process.Pid)
			s.set(name, func(st *Status) {
				if st.State == Silent {
					s.enter(st, Ready)
				}
			})
		}
		before = verdict
	}
}

// dumpLimit is how long a role that hangs may take to write what its goroutines
// wait for into its log.
const dumpLimit = 5 * time.Second

// abort ends a role that hangs, and makes it tell where.
func (s *Supervisor) abort(cmd *exec.Cmd, ended <-chan error) {
	for _, sig := range []syscall.Signal{syscall.SIGABRT, syscall.SIGCONT} { // a stopped one acts on nothing else
		_ = cmd.Process.Signal(sig) // it may be gone already
	}
	select {
	case <-ended:
	case <-time.After(dumpLimit):
		_ = cmd.Process.Kill()
		<-ended
	}
}

// end asks a role to stop and kills it when it does not.
func (s *Supervisor) end(cmd *exec.Cmd, ended <-chan error) error {
	_ = cmd.Process.Signal(syscall.SIGTERM) // it may be gone already
	_ = cmd.Process.Signal(syscall.SIGCONT) // as above
	select {
	case err := <-ended:
		return err
	case <-time.After(s.cfg.Grace):
		_ = cmd.Process.Kill()
		return <-ended
	}
}

// listen reads what a role tells until it closes its end.
func (s *Supervisor) listen(name string, from *net.UnixConn, alive *life, keeps *held) (ready bool, told string) {
	for {
		m, err := receive(from)
		if err != nil {
			return ready, told
		}
		switch m.word {
		case "ready":
			ready = true
			s.set(name, func(st *Status) { s.enter(st, Ready) })
		case "alive":
			s.set(name, func(*Status) { alive.hear("") })
		case "stuck":
			s.set(name, func(*Status) { alive.hear(m.rest) })
		case "error":
			told = m.rest
			s.set(name, func(st *Status) { st.LastError = m.rest })
		case "hold":
			if err := keeps.hold(m.rest, m.file); err != nil {
				s.log.Warn("file not held", "role", name, "err", err)
			}
			continue
		case "drop":
			keeps.drop(m.rest)
		}
		if m.file != nil {
			m.file.Close() // nobody asked for it
		}
	}
}

func (s *Supervisor) set(name string, change func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s.have[name])
}

// enter changes a role's state; s.mu is held.
func (s *Supervisor) enter(st *Status, state State) {
	if st.State != state {
		st.State, st.Since = state, time.Now()
	}
	ready := 0.0
	if state == Ready {
		ready = 1
	}
	s.metrics.ready.WithLabelValues(st.Role).Set(ready)
}

func (s *Supervisor) spawner(stop <-chan struct{}) {
	runtime.LockOSThread() // never unlocked: the thread ends with the process
	for {
		select {
		case <-stop:
			return
		case req := <-s.spawn:
			req.done <- req.cmd.Start()
		}
	}
}
