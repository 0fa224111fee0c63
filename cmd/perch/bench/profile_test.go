package main

import (
	"bytes"
	"runtime"
	"runtime/pprof"
	"testing"
)

//go:noinline
func keep(n int) [][]byte {
	var out [][]byte
	for range n {
		out = append(out, make([]byte, 1<<20))
	}
	return out
}

func TestAProfileOfThisProcessNamesWhoHoldsItsMemory(t *testing.T) {
	held := keep(64)
	runtime.GC()
	var text bytes.Buffer
	if err := pprof.Lookup("heap").WriteTo(&text, 0); err != nil {
		t.Fatal(err)
	}
	runtime.KeepAlive(held)
	p, err := readProfile(&text)
	if err != nil {
		t.Fatal(err)
	}
	of := p.shares("inuse_space", func(frames []string) string {
		if has(frames, "perch/cmd/perch/bench.keep") {
			return "keep"
		}
		return "others"
	})
	if of["keep"] < 0.8 || of["keep"]+of["others"] < 0.999 {
		t.Errorf("shares %v, want nearly all of keep", of)
	}
}

func TestWhatNobodyAskedForIsSharedOutByItsCause(t *testing.T) {
	got := shareOut(
		map[string]float64{"scrapes": 0.3, string(theOther): 0.3, string(garbage): 0.3, string(waking): 0.1},
		map[string]float64{"scrapes": 2, string(theOther): 1})
	if near := func(a, b float64) bool { return a > b-1e-6 && a < b+1e-6 }; !near(got["scrapes"], 0.55) || !near(got[string(theOther)], 0.45) || len(got) != 2 {
		t.Errorf("got %v", got)
	}
}

func TestWorkIsOfWhoAskedForIt(t *testing.T) {
	const prom = "github.com/prometheus/prometheus/"
	for _, c := range []struct {
		name, role string
		frames     []string
		want       source
	}{
		{"appending what was scraped is scraping", "telemetry", []string{"runtime.mallocgc", prom + "tsdb.(*headAppender).Append", prom + "scrape.(*scrapeLoop).run"}, scrapes},
		{"reading blocks for a rule is not collection", "telemetry", []string{prom + "tsdb.(*Head).Select", prom + "promql.(*Engine).exec", prom + "rules.(*Group).Eval"}, theOther},
		{"a block is written for all", "telemetry", []string{prom + "tsdb.(*LeveledCompactor).Write", prom + "tsdb.(*DB).run"}, upkeep},
		{"cgroups between two warm rounds", "agent", []string{"syscall.Pread", "perch/agent/cgroup.(*Reader).Look", "perch/agent/stats.(*Stats).Run"}, fastCgroups},
		{"processes of cgroups", "agent", []string{"os.ReadDir", "perch/agent/stats.(*Stats).look"}, restCgroups},
		{"an idle thread", "agent", []string{"runtime.futex", "runtime.findRunnable", "runtime.mcall"}, waking},
		{"garbage", "server", []string{"runtime.scanObject", "runtime.gcBgMarkWorker"}, garbage},
		{"requests of others", "server", []string{"runtime.mallocgc", "k8s.io/apiserver/pkg/server.director.ServeHTTP"}, theOther},
	} {
		if got := decideSource(c.role, c.frames); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
