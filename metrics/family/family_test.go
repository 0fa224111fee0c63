package family

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func book(t testing.TB, l Limits) *Book {
	t.Helper()
	b, err := NewBook(l, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func all(string) bool { return true }

func TestACallerSeesTheFamiliesOfItsNamespacesAndPerchsOwn(t *testing.T) {
	b, now := book(t, DefaultLimits()), time.Now()
	b.Learn(now, Told{Source{Everyone, "kube-state-metrics"}, []Family{{Name: "kube_pod_info", Type: "gauge", Help: "About a pod."}}},
		Told{Source{"red", "web"}, []Family{{Name: "orders_total", Type: "counter", Help: "Orders."}, {Name: "a", Type: "no such type"}}},
		Told{Source{"blue", "web"}, []Family{{Name: "secret_total", Type: "counter"}}}, Told{Source{"", "file"}, []Family{{Name: "host"}}})
	got := b.List(now, "", func(ns string) bool { return ns == "red" })
	want := []Told{{Source{Everyone, "kube-state-metrics"}, []Family{{Name: "kube_pod_info", Type: "gauge", Help: "About a pod."}}},
		{Source{"red", "web"}, []Family{{Name: "a", Type: "unknown"}, {Name: "orders_total", Type: "counter", Help: "Orders."}}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := b.List(now, "secret_total", all); len(got) != 1 || got[0].Source != (Source{"blue", "web"}) {
		t.Errorf("by name: %v", got)
	}
}

// However much one namespace tells, there is room for all others.
func TestANamespaceHasItsShareOfTheBook(t *testing.T) {
	for _, tc := range []struct {
		about  string
		limits Limits
	}{
		{"in number", Limits{Uses: 40, Bytes: 1 << 20, Forget: time.Hour, Share: 4}},
		{"in bytes", Limits{Uses: 1000, Bytes: 40 * len("m00greedy"), Forget: time.Hour, Share: 4}},
	} {
		t.Run(tc.about, func(t *testing.T) {
			b, now := book(t, tc.limits), time.Now()
			tell := func(namespace, job string, n int) int {
				told := Told{Source: Source{namespace, job}}
				for i := range n {
					told.Families = append(told.Families, Family{Name: fmt.Sprintf("m%02d", i)})
				}
				return b.Learn(now, told)
			}
			counted := func(namespace string) float64 { return testutil.ToFloat64(b.greedy.WithLabelValues(namespace)) }
			if n := tell("greedy", "", 60); n != 50 || counted("greedy") != 50 || testutil.ToFloat64(b.refused) != 50 {
				t.Errorf("%d refused, %g counted of it, want 50", n, counted("greedy"))
			}
			if n := tell("greedy", "x", 1); n != 1 {
				t.Error("another job of it has a share of its own")
			}
			if n := tell("modest", "", 5); n != 0 {
				t.Errorf("%d of another were refused", n)
			}
			if n := tell(Everyone, "", 12) + tell("", "", 12); n != 0 {
				t.Errorf("%d of the cluster's own were refused", n)
			}
			now = now.Add(2 * time.Hour)
			if n := tell("greedy", "new", 7); n != 0 { // the others are forgotten only when there is no room
				t.Errorf("%d were refused after its old ones are told no more", n)
			}
			if n := testutil.CollectAndCount(b.greedy); n != 0 {
				t.Errorf("%d are counted by name, none has its share full", n)
			}
			b.List(now.Add(2*time.Hour), "", all)
			if uses, bytes := b.size(); uses != 0 || bytes != 0 || len(b.of) != 0 {
				t.Errorf("%d uses of %d bytes, %d namespaces are kept", uses, bytes, len(b.of))
			}
		})
	}
}

func TestANamespaceThatIsNoTextHasItsShareToo(t *testing.T) {
	b, now := book(t, Limits{Uses: 4, Bytes: 1 << 20, Forget: time.Hour, Share: 4}), time.Now()
	if n := b.Learn(now, Told{Source{"a\xff", "web"}, []Family{{Name: "x"}, {Name: "y"}}}); n != 1 || testutil.ToFloat64(b.greedy.WithLabelValues("a\uFFFD")) != 1 {
		t.Errorf("%d refused, %d counted by name, want one", n, testutil.CollectAndCount(b.greedy))
	}
	if b.List(now.Add(2*time.Hour), "", all); testutil.CollectAndCount(b.greedy) != 0 {
		t.Error("it is counted by name after it is forgotten")
	}
}

func TestAFullBookRefusesWhatIsNewAndForgetsWhatIsToldNoMore(t *testing.T) {
	for _, tc := range []struct {
		about  string
		limits Limits
	}{
		{"in number", Limits{Uses: 10, Bytes: 1 << 20, Forget: time.Hour}},
		{"in bytes", Limits{Uses: 1000, Bytes: 10 * len("m00red"), Forget: time.Hour}},
	} {
		t.Run(tc.about, func(t *testing.T) {
			b, now := book(t, tc.limits), time.Now()
			round := func(first int) (told Told) {
				told.Namespace = "red"
				for i := range 15 {
					told.Families = append(told.Families, Family{Name: fmt.Sprintf("m%02d", first+i)})
				}
				return told
			}
			if n := b.Learn(now, round(0)); n != 5 || testutil.ToFloat64(b.refused) != 5 {
				t.Fatalf("%d refused, want 5", n)
			}
			if n := b.Learn(now.Add(50*time.Minute), round(0)); n != 5 { // known ones are told again
				t.Fatalf("%d refused, want 5", n)
			}
			if n := b.Learn(now.Add(100*time.Minute), round(20)); n != 15 {
				t.Fatalf("%d refused, want all: what is there was told 50 minutes ago", n)
			}
			if n := b.Learn(now.Add(3*time.Hour), round(20)); n != 5 {
				t.Fatalf("%d refused, want 5: the others are forgotten", n)
			}
			if uses, bytes := b.size(); uses != 10 || bytes != 10*len("m00red") {
				t.Errorf("%d uses of %d bytes", uses, bytes)
			}
		})
	}
}

func TestLongTextsAreCut(t *testing.T) {
	b, now := book(t, DefaultLimits()), time.Now()
	b.Learn(now, Told{Families: []Family{{Name: "m", Help: strings.Repeat("é", 5000)}, {Name: strings.Repeat("n", 10_000)}, {}}})
	got := b.List(now, "", all)
	if len(got) != 1 || len(got[0].Families) != 1 || got[0].Families[0].Help != strings.Repeat("é", maxHelp/2) {
		t.Errorf("got %v", got)
	}
}

func TestANodeTellsWhatIsNewAndTriesAgainUntilItIsTaken(t *testing.T) {
	b := book(t, DefaultLimits())
	var away atomic.Bool
	var asked atomic.Int32
	away.Store(true)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if away.Load() {
			http.NotFound(w, r) // as one of an older version
			return
		}
		b.Take(w, r)
	}))
	t.Cleanup(srv.Close)
	var n atomic.Int32
	gather := func() []Told {
		return []Told{{Source{"red", "web"}, []Family{{Name: fmt.Sprint("m", n.Load()), Type: "gauge", Help: "h", Unit: "bytes"}}}}
	}
	cfg := DefaultSend(srv.URL)
	cfg.Look = 5 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Send(ctx, cfg, srv.Client(), gather, slog.New(slog.DiscardHandler)) }()
	until(t, func() bool { return asked.Load() > 2 })
	away.Store(false)
	until(t, func() bool { return len(b.List(time.Now(), "m0", all)) == 1 })
	n.Store(1)
	until(t, func() bool { return len(b.List(time.Now(), "m1", all)) == 1 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := b.List(time.Now(), "m1", all)[0].Families[0]; got != (Family{"m1", "gauge", "h", "bytes"}) {
		t.Errorf("got %v", got)
	}
}

func until(t *testing.T, good func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !good(); {
		if time.Now().After(end) {
			t.Fatal("not in time")
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestADoorTakesNothingMalformed(t *testing.T) {
	b := book(t, DefaultLimits())
	packed := func(text string) string {
		var out bytes.Buffer
		z := gzip.NewWriter(&out)
		_, _ = z.Write([]byte(text))
		_ = z.Close()
		return out.String()
	}
	for about, body := range map[string]string{"nothing": "", "no gzip": "[]", "no list": packed(`{"a":1}`), "too large": packed(`["` + strings.Repeat("x", maxBody) + `"]`)} {
		w := httptest.NewRecorder()
		if b.Take(w, httptest.NewRequest("POST", "/", strings.NewReader(body))); w.Code != http.StatusBadRequest {
			t.Errorf("%s: status %d", about, w.Code)
		}
	}
}
