package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync"

	"github.com/tinylib/msgp/msgp"

	"perch/logs/bench/lines"
)

func main() {
	count := flag.Int("lines", 5_000_000, "lines of services; the other sets get a fifth")
	dir := flag.String("dir", "", "where stores are kept while measured; empty: the directory for temporary files")
	role := flag.String("role", "", "be a measured process: store, keep or ship")
	from := flag.String("from", "", "where the role ship asks for files")
	to := flag.String("to", "", "where it sends them")
	sync := flag.Bool("sync", true, "acknowledge after fsync (of the measured process)")
	only := flag.String("only", "", "measure this set only, or copy")
	profile := flag.String("profile", "", "write CPU profiles of the measured processes' ingest to files that begin like this")
	brief := flag.Bool("brief", false, "measure ingest only")
	flag.Parse()
	var err error
	switch *role {
	case "store":
		err = child(*dir, *sync, *profile)
	case "keep":
		err = keep(*dir, *profile)
	case "ship":
		err = ship(*dir, *from, *to, *profile)
	default:
		err = table(*count, *dir, *only, *profile, *brief)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run is one measured ingest and what it must reach.
type run struct {
	set           string
	share         int // of the lines, 1/share
	sync          bool
	copied        bool // to another process meanwhile
	cpu           aim
	fresh, sealed aim
}

// aim is what a figure should be, and what it must be. 0 is not promised.
type aim struct{ goal, gate float64 }

// onlyCopy is the name of the run with a copy.
const onlyCopy = "copy"

func table(count int, parent, only, profile string, brief bool) error {
	fresh, sealed := aim{0.16, 0.18}, aim{0.13, 0.15}
	runs := []run{
		{lines.Services, 1, true, false, aim{2.2, 2.7}, fresh, sealed},
		{lines.Services, 1, false, false, aim{1.4, 1.7}, fresh, sealed},
		{lines.Vocabulary, 5, true, false, aim{2.5, 2.5}, aim{}, aim{}},
		{lines.Base64, 5, true, false, aim{3.5, 3.5}, aim{0.75, 0.75}, aim{0.75, 0.75}},
		{lines.Services, 2, true, true, aim{}, aim{}, aim{}},
	}
	for _, r := range runs {
		if only != "" && (only != r.set || r.copied) && (only != onlyCopy || !r.copied) {
			continue
		}
		dir, err := os.MkdirTemp(parent, "perch-bench-")
		if err != nil {
			return err
		}
		err = errors.Join(r.measure(dir, count/r.share, profile, brief), os.RemoveAll(dir))
		if err != nil {
			return fmt.Errorf("measure %s: %w", r.set, err)
		}
	}
	if brief {
		return nil
	}
	dir, err := os.MkdirTemp(parent, "perch-bench-")
	if err != nil {
		return err
	}
	return errors.Join(bounds(dir), os.RemoveAll(dir))
}

func print(what string, have float64, want aim, unit string) {
	if want == (aim{}) {
		fmt.Printf("  %-42s %9.3f  no figure is promised       %s\n", what, have, unit)
		return
	}
	word := "ok"
	if have > want.gate {
		word = "MISSED"
	} else if have > want.goal {
		word = "in the gate"
	}
	fmt.Printf("  %-42s %9.3f  goal %6.2f  gate %6.2f  %-18s %s\n", what, have, want.goal, want.gate, unit, word)
}

// process is one that is measured.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

// begin starts this program in a role and returns what it says when it is ready.
func begin(role, dir string, args ...string) (*process, figures, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, figures{}, err
	}
	p := &process{cmd: exec.Command(self, append([]string{"-role", role, "-dir", dir}, args...)...)}
	p.cmd.Stderr = os.Stderr
	if os.Getenv("GOGC") == "" {
		p.cmd.Env = append(os.Environ(), "GOGC=50") // as perch runs its roles
	}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, figures{}, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, figures{}, err
	}
	p.out = json.NewDecoder(bufio.NewReader(out))
	if err := p.cmd.Start(); err != nil {
		return nil, figures{}, err
	}
	var ready figures
	if err := p.out.Decode(&ready); err != nil {
		return nil, figures{}, errors.Join(fmt.Errorf("start %s: %w", role, err), p.end())
	}
	return p, ready, nil
}

// tell says a word and returns the figures that come back.
func (p *process) tell(word string) (f figures, err error) {
	if _, err = fmt.Fprintln(p.in, word); err == nil {
		err = p.out.Decode(&f)
	}
	return f, err
}

func (p *process) end() error {
	return errors.Join(p.in.Close(), p.cmd.Wait())
}

func (r run) measure(dir string, count int, profile string, brief bool) error {
	if profile != "" {
		profile = fmt.Sprintf("%s.%s.sync=%v.copied=%v", profile, r.set, r.sync, r.copied)
	}
	p, ready, err := begin("store", dir, fmt.Sprintf("-sync=%v", r.sync), "-profile", profile)
	if err != nil {
		return err
	}
	if r.copied {
		err = r.withCopy(dir, count, profile, ready, p)
	} else {
		err = r.drive(count, brief, ready, p)
	}
	return errors.Join(err, p.end())
}

func (r run) drive(count int, brief bool, ready figures, p *process) error {
	sent, err := send(ready.Ready, r.set, count)
	if err != nil {
		return err
	}
	f, err := p.tell("flush")
	if err != nil {
		return err
	}
	how := "fsync before acknowledging"
	if !r.sync {
		how = "not waiting for fsync"
	}
	fmt.Printf("\n%s, %d lines of %d bytes, 100 streams, Fluent Forward, %s\n", r.set, count, sent.raw/int64(count), how)
	print("ingest, cut and indexed", f.CPU/float64(count)*1e6, r.cpu, "CPU-s/M lines")
	f.tellDisk("disk, fresh", sent.raw, r.fresh)
	print("peak of resident memory", f.Peak, aim{120, 150}, "MB")
	if brief {
		return nil
	}
	if f, err = p.tell("seal"); err != nil {
		return err
	}
	f.tellDisk("disk, sealed", sent.raw, r.sealed)
	fmt.Printf("  %-42s %9.3f CPU-s/M lines\n", "sealing", f.CPU/float64(count)*1e6)
	print("peak, sealing included", f.Peak, aim{120, 150}, "MB")
	if r.set != lines.Services || !r.sync {
		return nil
	}
	if f, err = p.tell(fmt.Sprintf("query %d %d", sent.from, sent.to)); err != nil {
		return err
	}
	for _, q := range questions {
		print(fmt.Sprintf("%s (%d)", q.name, f.Hits[q.name]), f.Queries[q.name], aim{q.goal, q.goal}, "CPU-ms")
	}
	return nil
}

// also is the name of another file beside that of a profile, if there is one.
func also(profile, suffix string) string {
	if profile == "" {
		return ""
	}
	return profile + suffix
}

// withCopy measures what it costs that all that is stored is on another node a
// second or two later, sealed partitions included.
func (r run) withCopy(dir string, count int, profile string, ready figures, p *process) (err error) {
	keeper, door, err := begin("keep", dir+"-copy", "-profile", also(profile, ".keep"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, keeper.end(), os.RemoveAll(dir+"-copy")) }()
	shipper, _, err := begin("ship", dir, "-from", ready.Files, "-to", door.Ready, "-profile", also(profile, ".ship"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, shipper.end()) }()
	sent, err := send(ready.Ready, r.set, count)
	if err != nil {
		return err
	}
	own, err := p.tell("flush")
	if err != nil {
		return err
	}
	fmt.Printf("\n%s, %d lines of %d bytes, with a copy in another process, TLS\n", r.set, count, sent.raw/int64(count))
	million := func(seconds float64) float64 { return seconds / float64(count) * 1e6 }
	print("ingest, cut and indexed", million(own.CPU), aim{}, "CPU-s/M lines")
	for _, when := range []string{"", ", sealed too"} {
		if when != "" {
			if _, err := p.tell("seal"); err != nil {
				return err
			}
		}
		from, err := shipper.tell("whole")
		if err != nil {
			return err
		}
		to, err := keeper.tell("cpu")
		if err != nil {
			return err
		}
		print("send the copy"+when, million(from.CPU), aim{}, "CPU-s/M lines")
		print("receive it", million(to.CPU), aim{}, "CPU-s/M lines")
		print("both, of ingest"+when, (from.CPU+to.CPU)/own.CPU, aim{0.3, 0.3}, "CPU-s/CPU-s")
		fmt.Printf("  %-42s %9.3f B/B\n", "copied bytes there", float64(to.Disk)/float64(sent.raw))
	}
	return nil
}

func (f *figures) tellDisk(what string, raw int64, want aim) {
	print(what, float64(f.Disk)/float64(raw), want, "B/B")
	for _, name := range slices.Sorted(maps.Keys(f.Parts)) {
		fmt.Printf("    %-40s %9.3f\n", name, float64(f.Parts[name])/float64(raw))
	}
}

const chunkLines = 1000

// sent says what was sent.
type sent struct {
	raw      int64 // bytes
	from, to int64 // times of the first and the last line, ns
}

// send gives the lines to the door at addr as PackedForward chunks of a stream,
// each acknowledged, one in flight for each stream.
func send(addr, set string, count int) (sent, error) {
	var group sync.WaitGroup
	failed := make(chan error, lines.Streams)
	queues := make([]chan []byte, lines.Streams)
	for k := range queues {
		queues[k] = make(chan []byte, 1)
		group.Go(func() {
			if err := sendStream(addr, k, queues[k]); err != nil {
				failed <- fmt.Errorf("send stream %d: %w", k, err)
				for range queues[k] { // let the others end
				}
			}
		})
	}
	g := lines.New(set, 7)
	bodies := make([][]byte, lines.Streams)
	sizes := make([]int, lines.Streams)
	var all sent
	for i := range count {
		r, k := g.Next()
		if i == 0 {
			all.from = r.Time
		}
		all.to = r.Time // they ascend
		if i == count/2 {
			r.Body = append(r.Body, " needle48213x"...)
		}
		all.raw += int64(len(r.Body))
		b := msgp.AppendArrayHeader(bodies[k], 2)
		sec, ns := r.Time/1e9, r.Time%1e9
		b = append(b, 0xd7, 0, byte(sec>>24), byte(sec>>16), byte(sec>>8), byte(sec), byte(ns>>24), byte(ns>>16), byte(ns>>8), byte(ns))
		b = msgp.AppendMapHeader(b, 1)
		b = msgp.AppendString(b, "log")
		bodies[k] = msgp.AppendStringFromBytes(b, r.Body)
		if sizes[k]++; sizes[k] == chunkLines {
			queues[k] <- bodies[k]
			bodies[k], sizes[k] = nil, 0
		}
	}
	for k, q := range queues {
		if sizes[k] > 0 {
			q <- bodies[k]
		}
		close(q)
	}
	group.Wait()
	select {
	case err := <-failed:
		return sent{}, err
	default:
		return all, nil
	}
}

func sendStream(addr string, k int, queue <-chan []byte) error {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(k+1))}}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	acks := msgp.NewReader(c)
	n := 0
	for body := range queue {
		o := msgp.AppendArrayHeader(nil, 3)
		o = msgp.AppendString(o, "bench")
		o = msgp.AppendBytes(o, body)
		o = msgp.AppendMapHeader(o, 1)
		o = msgp.AppendString(o, "chunk")
		o = msgp.AppendString(o, fmt.Sprintf("%d-%d", k, n))
		n++
		if _, err := c.Write(o); err != nil {
			return err
		}
		if err := acks.Skip(); err != nil {
			return err
		}
	}
	return nil
}
