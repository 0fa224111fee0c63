package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// table is what was measured: one row per figure.
type table struct{ rows [][4]string }

// add takes a figure with its unit; budget may be empty.
func (t *table) add(what, figure, budget string) {
	part, name, _ := strings.Cut(what, ": ")
	t.rows = append(t.rows, [4]string{part, name, figure, budget})
}

func (t *table) print(w io.Writer, before, after string) {
	fmt.Fprintf(w, "%d CPUs, %s, load before %s, after %s\n", runtime.NumCPU(), runtime.Version(), before, after)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	last := ""
	for _, r := range t.rows {
		part := r[0]
		if part == last {
			part = ""
		}
		last = r[0]
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", part, r[1], r[2], r[3])
	}
	_ = tw.Flush() // to the terminal
}

// load is the load average of the last minute: other work on this machine
// lengthens every wait.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(text), " ")
	return one
}

func ms(d time.Duration) string { return fmt.Sprintf("%.0f ms", float64(d)/float64(time.Millisecond)) }

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// spread is the median, the 99th percentile and the maximum.
func spread(d []time.Duration) string {
	if len(d) == 0 {
		return "nothing measured"
	}
	slices.Sort(d)
	at := func(q float64) time.Duration { return d[min(len(d)-1, int(q*float64(len(d))))] }
	return fmt.Sprintf("p50 %s, p99 %s (n=%d)", ms(at(0.5)), ms(at(0.99)), len(d))
}
