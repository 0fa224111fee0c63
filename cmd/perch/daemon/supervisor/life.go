package supervisor

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Vitals are what the supervisor knows of a running role's life. It counts its
// own looks instead of reading a clock: when the whole machine, or the
// supervisor itself, was suspended, there were none.
type Vitals struct {
	Silent  int    // looks in a row without a word
	Idle    int    // the last of these in which it neither used the CPU nor waited for a disk
	Stuck   int    // looks in a row in which it named a part that does not answer
	Part    string // that part
	Stopped bool   // by SIGSTOP
	Traced  bool   // a debugger holds it
}

// Patience is how many looks a role may be without life.
type Patience struct {
	Look  time.Duration // between two looks
	Doubt int           // after so many looks it is not called ready any more
	Idle  int           // until it is ended, when it does nothing either
	Busy  int           // until it is ended, when it may work or only a part is stuck
	Crowd int           // so many at a crowded machine count as one; 0: as many
}

// DefaultPatience ends a role that does nothing at all after 90 s, and one that
// may be overloaded or wait for a slow disk after 5 min: of these, time in which
// the machine's CPUs are crowded counts a sixth, because to start again is more
// work than to go on.
func DefaultPatience() Patience { return Patience{Look: Beat, Doubt: 4, Idle: 18, Busy: 60, Crowd: 6} }

// Verdict is what to do about a role.
type Verdict string

// The verdicts.
const (
	Lives  Verdict = "lives"
	Doubts Verdict = "doubts" // says so, does nothing
	Ends   Verdict = "ends"   // and starts it again
)

// Judge tells whether a role still lives, and why it thinks so.
func Judge(v Vitals, p Patience) (Verdict, string) {
	after := func(looks int) time.Duration { return time.Duration(looks) * p.Look }
	switch {
	case v.Traced:
		return Lives, "held by a debugger"
	case v.Silent >= p.Busy:
		return Ends, fmt.Sprintf("said nothing for %s", after(v.Silent))
	case v.Stuck >= p.Busy:
		return Ends, fmt.Sprintf("%s has not answered for %s", v.Part, after(v.Stuck))
	case v.Idle >= p.Idle && v.Stopped:
		return Ends, fmt.Sprintf("stopped by a signal for %s", after(v.Idle))
	case v.Idle >= p.Idle:
		return Ends, fmt.Sprintf("said and did nothing for %s", after(v.Idle))
	case v.Silent >= p.Doubt:
		return Doubts, fmt.Sprintf("said nothing for %s", after(v.Silent))
	case v.Stuck >= p.Doubt:
		return Doubts, fmt.Sprintf("%s has not answered for %s", v.Part, after(v.Stuck))
	}
	return Lives, ""
}

// life counts a role's words between looks.
type life struct {
	vitals  Vitals
	word    bool   // since the last look
	part    string // of the last word, "" when it was "alive"
	seconds float64
	crowd   int // looks at a crowded machine
}

// hear takes a word; part is "" unless the role named one that is stuck.
func (l *life) hear(part string) { l.word, l.part = true, part }

// look brings the vitals up to date; crowd is that of Patience.
func (l *life) look(now process, crowd int) Vitals {
	v, one := &l.vitals, 1
	if now.crowded && crowd > 0 {
		if l.crowd++; l.crowd%crowd != 0 {
			one = 0
		}
	}
	switch {
	case !l.word:
		v.Silent += one
	case l.part != "":
		v.Silent, v.Part = 0, l.part
		v.Stuck += one
	default:
		v.Silent, v.Stuck, v.Part = 0, 0, ""
	}
	if v.Silent == 0 || now.waits || now.seconds > l.seconds {
		v.Idle = 0
	} else {
		v.Idle += one
	}
	l.word = false
	v.Stopped, v.Traced = now.stopped, now.traced
	l.seconds = now.seconds
	return *v
}

// process is what the kernel says of a role.
type process struct {
	seconds                float64 // of CPU, since its start
	stopped, traced, waits bool    // waits: for a disk, as a rule
	crowded                bool    // others wait for a CPU most of the time
}

// readProcess reads /proc/PID/stat and the pressure on the machine. Of a process that is gone it knows nothing.
func readProcess(pid int) process {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return process{}
	}
	p := parseStat(string(text))
	if text, err = os.ReadFile("/proc/pressure/cpu"); err == nil {
		p.crowded = crowded(string(text))
	}
	return p
}

// crowded reads "some avg10=0.00 avg60=12.34 …": percent of the last minute in
// which some task waited for a CPU. Half of it is a crowd.
func crowded(pressure string) bool {
	_, rest, _ := strings.Cut(pressure, "some ")
	_, rest, _ = strings.Cut(rest, "avg60=")
	share, _, _ := strings.Cut(rest, " ")
	percent, err := strconv.ParseFloat(share, 64)
	return err == nil && percent >= 50
}

// parseStat reads one line of /proc/PID/stat: pid (name) state ppid …, the
// times in user and system mode being the 14th and 15th field, in 1/100 s.
func parseStat(text string) process {
	_, rest, ok := strings.Cut(text[max(0, strings.LastIndexByte(text, ')')):], " ")
	f := strings.Fields(rest)
	if !ok || len(f) < 13 {
		return process{}
	}
	user, err := strconv.ParseFloat(f[11], 64)
	system, err2 := strconv.ParseFloat(f[12], 64)
	if err != nil || err2 != nil {
		return process{}
	}
	return process{seconds: (user + system) / 100, stopped: f[0] == "T", traced: f[0] == "t", waits: f[0] == "D"}
}
