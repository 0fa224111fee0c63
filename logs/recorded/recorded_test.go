package recorded

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/query"
	"perch/logs/record"
	"perch/logs/store"
	"perch/logs/wal"
)

func open(t testing.TB, dir string, change func(*store.Config)) *store.Store {
	t.Helper()
	cfg := store.Default(dir)
	if change != nil {
		change(&cfg)
	}
	s, err := store.Open(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // tests that restart close it themselves
	return s
}

func counting(t testing.TB, s *store.Store, cfg Config, rules ...Rule) *Recorded {
	t.Helper()
	r, err := New(cfg, s, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.Set(rules) {
		t.Fatalf("%+v", p)
	}
	return r
}

// counts gathers twice, because new series are 0 once, and leaves out the labels
// that all series of a test have, and what is told of a rule that has no trouble.
func counts(t testing.TB, r *Recorded) map[string]float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(r)
	var out map[string]float64
	for range 2 {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		out = map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				name := f.GetName()
				if m.GetCounter().GetValue() == 0 && strings.HasPrefix(name, "perch_recorded_") {
					continue
				}
				for _, l := range m.GetLabel() {
					if l.GetName() != "logrule" && l.GetName() != "namespace" && l.GetName() != "record" {
						name += " " + l.GetName() + "=" + l.GetValue()
					}
				}
				out[name] += m.GetCounter().GetValue()
			}
		}
	}
	return out
}

func line(pod, body string, fields ...record.Field) record.Record {
	return record.Record{Time: time.Now().UnixNano(), Stream: &record.Stream{Namespace: "shop", Pod: pod, Node: "n1", Kind: "log"}, Body: []byte(body), Fields: fields}
}

func TestRulesCountTheLinesTheyFind(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	r := counting(t, s, Default(),
		Rule{Namespace: "shop", Object: "a", Record: "failed_total", Query: `level:error "payment failed"`},
		Rule{Namespace: "shop", Object: "a", Record: "requests_total", Query: "path:*", By: []string{"http.status", "pod"}, Labels: map[string]string{"team": "web"}},
		Rule{Namespace: "bank", Object: "b", Record: "bank_lines_total", Query: ""},
		Rule{Namespace: "kube-system", Object: "c", All: true, Record: "lines_total", Query: "-kind:event"},
	)
	if have := counts(t, r); !maps.Equal(have, map[string]float64{"failed_total": 0, "bank_lines_total": 0, "lines_total": 0}) {
		t.Fatal(have) // there before their first line
	}
	if err := r.Append(t.Context(), []record.Record{
		line("web-1", "ERROR payment failed for 12"), line("web-1", "INFO payment failed"), line("web-2", "ERROR payment failed for 13"),
		line("web-1", `{"path":"/a","http":{"status":500}}`), line("web-1", `{"path":"/b","http":{"status":500}}`), line("web-2", `{"path":"/b"}`),
		line("web-2", "pushed", record.Field{Key: "path", Value: "/c"}, record.Field{Key: "http.status", Value: "200\x00\xff"}),
	}, nil); err != nil {
		t.Fatal(err)
	}
	want := map[string]float64{"failed_total": 2, "bank_lines_total": 0, "lines_total": 7,
		"requests_total http_status=500 pod=web-1 team=web": 2, "requests_total http_status= pod=web-2 team=web": 1, "requests_total http_status=200\uFFFD\uFFFD pod=web-2 team=web": 1}
	if have := counts(t, r); !maps.Equal(have, want) {
		t.Fatalf("%v", have)
	}
}

func TestANewSeriesIsZeroOnce(t *testing.T) {
	r := counting(t, open(t, t.TempDir(), nil), Default(), Rule{Namespace: "shop", Object: "a", Record: "x_total", Query: "x", By: []string{"pod"}})
	if err := r.Append(t.Context(), []record.Record{line("p", "x")}, nil); err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(r)
	for _, want := range []float64{0, 1, 1} {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		have := map[string]float64{}
		for _, f := range families {
			have[f.GetName()] = f.GetMetric()[0].GetCounter().GetValue()
		}
		// Those of trouble are there before there is any: else its first lines are no increase.
		if !maps.Equal(have, map[string]float64{"x_total": want, "perch_recorded_overflow_lines_total": 0, "perch_recorded_slow_lines_total": 0}) {
			t.Fatal(want, have)
		}
	}
}

func TestCountsGoOnAfterARestartAndBeginAnewWithAnotherQuery(t *testing.T) {
	dir := t.TempDir()
	rule := Rule{Namespace: "shop", Object: "a", Record: "x_total", Query: "x", By: []string{"pod", "user"}}
	kept := Rule{Namespace: "shop", Object: "a", Record: "y_total", Query: "x"}
	for round := 1; round <= 3; round++ {
		s := open(t, dir, nil)
		r := counting(t, s, Default(), rule, kept)
		if err := r.Append(t.Context(), []record.Record{line("p", "x user=a"), line("p", "x"), line("p", "y")}, nil); err != nil {
			t.Fatal(err)
		}
		n := float64(round)
		if have := counts(t, r); !maps.Equal(have, map[string]float64{"x_total pod=p user=a": n, "x_total pod=p user=": n, "y_total": 2 * n}) {
			t.Fatal(round, have)
		}
		if round == 3 {
			rule.Limit = 7 // the rule stays the same
			r.Set([]Rule{rule, kept})
			if have := counts(t, r); have["x_total pod=p user=a"] != 3 {
				t.Fatal(have)
			}
			rule.Query = "x or y"
			r.Set([]Rule{rule, kept})
			if have := counts(t, r); !maps.Equal(have, map[string]float64{"y_total": 6}) {
				t.Fatal(have)
			}
			for _, p := range s.Positions() {
				if strings.HasPrefix(p.File, File) && !strings.Contains(p.File, "y_total") {
					t.Fatalf("%+v is of a rule that is gone", p)
				}
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatIsBeyondTheLimitsIsCountedTogether(t *testing.T) {
	cfg := Default()
	cfg.Rules = 2
	r := counting(t, open(t, t.TempDir(), nil), cfg, Rule{Namespace: "shop", Object: "a", Record: "x_total", Query: "x", By: []string{"id", "pod"}, Limit: 3})
	for range 2 {
		var list []record.Record
		for i := range 10 {
			list = append(list, line("p", fmt.Sprintf("x id=%d", i)))
		}
		if err := r.Append(t.Context(), list, nil); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]float64{"x_total id=0 pod=p": 2, "x_total id=1 pod=p": 2, "x_total id=(others) pod=(others)": 16, "perch_recorded_overflow_lines_total": 16}
	if have := counts(t, r); !maps.Equal(have, want) {
		t.Fatal(have)
	}
	rule := func(name string) Rule { return Rule{Namespace: "shop", Object: "a", Record: name, Query: "x"} }
	problems := r.Set([]Rule{rule("a_total"), rule("a_total"), rule("b_total"), rule("c_total"), {Namespace: "shop", Object: "b", Record: "d_total", Query: "pod:"}})
	said := ""
	for _, p := range problems {
		said += p.Rule.Record + ": " + p.Error + "\n"
	}
	if said != "a_total: another rule of the object has the same record and labels\nc_total: 2 rules are in force on each node at most\nd_total: 2 rules are in force on each node at most\n" &&
		said != "a_total: another rule of the object has the same record and labels\nc_total: 2 rules are in force on each node at most\nd_total: query: query position 4: expected a value after pod:, found the end\n" {
		t.Fatal(said)
	}
}

func TestSeriesThatFindNothingAreLetGo(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	r := counting(t, s, Default(), Rule{Namespace: "shop", Object: "a", Record: "x_total", Query: "x", By: []string{"pod"}}, Rule{Namespace: "shop", Object: "a", Record: "y_total", Query: "x"})
	if err := r.Append(t.Context(), []record.Record{line("p", "x")}, nil); err != nil {
		t.Fatal(err)
	}
	r.forget(time.Now().Add(23 * time.Hour))
	if have := counts(t, r); len(have) != 2 {
		t.Fatal(have)
	}
	r.forget(time.Now().Add(25 * time.Hour))
	if have := counts(t, r); !maps.Equal(have, map[string]float64{"y_total": 1}) {
		t.Fatal(have)
	}
	if p := s.Positions(); len(p) != 1 {
		t.Fatalf("%+v", p)
	}
}

func TestRandomLinesAreCountedAsAScanCountsThem(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	r := counting(t, open(t, t.TempDir(), nil), Default(),
		Rule{Namespace: "shop", Object: "a", Record: "a_total", Query: "(x or y) -z level:>=info"},
		Rule{Namespace: "shop", Object: "a", Record: "b_total", Query: "n:>5 pod:p1", By: []string{"n"}})
	var mu sync.Mutex
	want := map[string]float64{"a_total": 0}
	var senders sync.WaitGroup
	for range 8 {
		mine := rand.New(rand.NewPCG(rnd.Uint64(), rnd.Uint64()))
		senders.Go(func() {
			for range 50 {
				var list []record.Record
				for range mine.IntN(30) {
					level, word, n, pod := mine.IntN(3), mine.IntN(4), mine.IntN(10), mine.IntN(2)
					list = append(list, line(fmt.Sprint("p", pod), fmt.Sprintf("%s %s n=%d", []string{"DEBUG", "INFO", "WARN"}[level], []string{"x", "y", "x z", "w"}[word], n)))
					mu.Lock()
					if word < 2 && level > 0 {
						want["a_total"]++
					}
					if n > 5 && pod == 1 {
						want[fmt.Sprintf("b_total n=%d", n)]++
					}
					mu.Unlock()
				}
				if err := r.Append(context.Background(), list, nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	senders.Wait()
	if have := counts(t, r); !maps.Equal(have, want) {
		t.Fatalf("%v, want %v", have, want)
	}
}

// failing is a write-ahead file that fails while told to.
type failing struct {
	wal.File
	fail *bool
}

func (f failing) Sync() error {
	if *f.fail {
		return errors.New("no space")
	}
	return f.File.Sync()
}

func TestWhatIsNotStoredIsNotCounted(t *testing.T) {
	fail := false
	s := open(t, t.TempDir(), func(c *store.Config) {
		c.CreateWAL = func(path string) (wal.File, error) {
			f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_EXCL, 0o600)
			return failing{f, &fail}, err
		}
	})
	r := counting(t, s, Default(), Rule{Namespace: "shop", Object: "a", Record: "x_total", Query: "x"})
	stored := 0
	for i := range 6 {
		fail = i%2 == 1
		if err := r.Append(t.Context(), []record.Record{line("p", "x")}, nil); err == nil {
			stored++
		} else if !fail {
			t.Log(err) // the log may need a while to open another segment
		}
	}
	if have := counts(t, r); stored == 0 || stored == 6 || have["x_total"] != float64(stored) {
		t.Fatalf("%d stored, %v", stored, have)
	}
}

// Senders try again what a store refuses: it is no trouble of a rule each time.
func TestTroubleOfARuleIsCountedOfWhatIsStored(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	r := counting(t, s, Default(),
		Rule{Namespace: "shop", Object: "a", Record: "x_total", Query: "x", By: []string{"id"}, Limit: 3},
		Rule{Namespace: "shop", Object: "b", Record: "slow_total", Query: `-~"(a|b)*a(a|b){600}c"`})
	rnd, body := rand.New(rand.NewPCG(1, 1)), make([]byte, record.MaxBody) // takes seconds
	for i := range body {
		body[i] = "ab"[rnd.IntN(2)]
	}
	list := []record.Record{line("p", string(body))}
	want := map[string]float64{"slow_total": 5, "perch_recorded_slow_lines_total": 1, "perch_recorded_overflow_lines_total": 3,
		"x_total id=0": 1, "x_total id=1": 1, "x_total id=(others)": 3}
	for i := range 5 {
		list = append(list, line("p", fmt.Sprintf("x id=%d", i)))
	}
	if err := r.Append(t.Context(), list, nil); err != nil {
		t.Fatal(err)
	}
	if have := counts(t, r); !maps.Equal(have, want) {
		t.Fatalf("have %v, want %v", have, want)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, again := range [][]record.Record{list, list[:1], {line("p", "x id=7")}} {
		if err := r.Append(t.Context(), again, nil); err == nil {
			t.Fatal("a closed store takes lines")
		}
	}
	if have := counts(t, r); !maps.Equal(have, want) {
		t.Errorf("have %v, want %v", have, want)
	}
}

// TestCountingChild is the process that TestKillCountsEachLineOnce kills.
func TestCountingChild(t *testing.T) {
	dir := os.Getenv("RECORDED_TEST_DIR")
	if dir == "" {
		t.Skip("only as a child of TestKillCountsEachLineOnce")
	}
	s := open(t, dir, nil)
	r := counting(t, s, Default(), killRule())
	var senders sync.WaitGroup
	for range 6 {
		senders.Go(func() {
			for i := 0; ; i++ {
				if err := r.Append(context.Background(), []record.Record{line("p", "x user="+strconv.Itoa(i%3)), line("p", "y")}, nil); err != nil {
					t.Error(err)
					return
				}
				fmt.Println("ack")
			}
		})
	}
	senders.Wait()
}

func killRule() Rule {
	return Rule{Namespace: "shop", Object: "a", Record: "x_total", Query: "x", By: []string{"user"}}
}

func TestKillCountsEachLineOnce(t *testing.T) {
	dir := t.TempDir()
	for round := range 5 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestCountingChild$")
		cmd.Env = append(os.Environ(), "RECORDED_TEST_DIR="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		scan := bufio.NewScanner(out)
		for n := 0; scan.Scan(); {
			if scan.Text() != "ack" {
				t.Log(scan.Text())
			} else if n++; n == 200+130*round {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait() // killed on purpose
		s := open(t, dir, nil)
		r := counting(t, s, Default(), killRule())
		stored := map[string]float64{}
		e := query.New(s, slog.New(slog.DiscardHandler))
		v, err := e.Values(t.Context(), query.Request{Text: "x", To: time.Now().Add(time.Hour).UnixNano(), Field: "user", Limit: 100})
		if err != nil || v.Partial {
			t.Fatal(v, err)
		}
		all := 0.0
		for _, x := range v.Values {
			stored["x_total user="+x.Value] = float64(x.Count)
			all += float64(x.Count)
		}
		have := counts(t, r)
		sum := 0.0
		for _, n := range have {
			sum += n
		}
		h, err := e.Histogram(t.Context(), query.Request{Text: "x", To: time.Now().Add(time.Hour).UnixNano(), Buckets: 1})
		if err != nil || float64(h.Total) != sum || len(have) != 3 {
			t.Fatalf("round %d: %d lines stored (%v by sample), counted %v: %v", round, h.Total, all, have, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLinesThatAnExpressionHasNoTimeForAreTold(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	r := counting(t, s, Default(), Rule{Namespace: "shop", Object: "a", Record: "slow_total", Query: `-~"(a|b)*a(a|b){600}c"`}, Rule{Namespace: "shop", Object: "a", Record: "all_total"})
	rnd, body := rand.New(rand.NewPCG(1, 1)), make([]byte, record.MaxBody) // takes seconds
	for i := range body {
		body[i] = "ab"[rnd.IntN(2)]
	}
	began := time.Now()
	if err := r.Append(t.Context(), []record.Record{line("web-1", string(body)), line("web-1", "short"), line("web-1", string(body))}, nil); err != nil {
		t.Fatal(err)
	}
	want := map[string]float64{"slow_total": 1, "all_total": 3, "perch_recorded_slow_lines_total": 2}
	if have, took := counts(t, r), time.Since(began); !maps.Equal(have, want) || took > 5*time.Second {
		t.Errorf("after %s: have %v, want %v", took, have, want)
	}
}
