package alarm

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"perch/alerts/evidence"
	"perch/alerts/route"
)

func TestWhenToTell(t *testing.T) {
	now := time.Unix(1e9, 0)
	told := Told{Config: "x"}
	for name, c := range map[string]struct {
		v   View
		act Act
		why string
	}{
		"the server has just answered":        {View{Answered: now, Heard: true, Told: told}, Wait, "lately"},
		"it is restarted":                     {View{Answered: now.Add(-14 * time.Second), Told: told}, Wait, "lately"},
		"it is silent for the whole patience": {View{Answered: now.Add(-15 * time.Second), Told: told}, Tell, "no answer for 15s"},
		"this node is no watcher":             {View{Answered: now.Add(-time.Hour)}, Wait, "no receivers"},
		"the alert is silenced":               {View{Answered: now.Add(-time.Hour), Told: Told{Config: "x", SilencedUntil: now.Add(time.Second)}}, Wait, "silenced until 2001"},
		"the silence has ended":               {View{Answered: now.Add(-time.Hour), Told: Told{Config: "x", SilencedUntil: now}}, Tell, "no answer for 1h"},
		"it has told and hears nothing still": {View{Answered: now.Add(-time.Hour), Firing: true, Told: told}, Tell, "still silent"},
		"the server is back":                  {View{Answered: now, Heard: true, Firing: true, Told: told}, Resolve, "answers again"},
		"told before a restart of its own":    {View{Answered: now.Add(-time.Second), Firing: true, Told: told}, Tell, "still silent"},
	} {
		c.v.Now = now
		if act, why := Decide(c.v, 15*time.Second); act != c.act || !strings.Contains(why, c.why) {
			t.Errorf("%s: %s, %s", name, act, why)
		}
	}
	if got := Watchers([]string{"d", "b", "a", "c"}); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("watchers: %v", got)
	}
	if got := Watchers([]string{"b"}); !slices.Equal(got, []string{"b"}) {
		t.Errorf("watchers: %v", got)
	}
}

// world is a server that may be gone, and who is told.
type world struct {
	gone    bool
	told    Told
	problem string
	pause   time.Duration // of the whole process, once
	fail    error
	applied []string
	sent    []route.Alert
	notes   []string
	mute    bool // the receivers went before they were told the end

	unlearned func() float64 // what the watcher counted
}

func (w *world) parts() Parts {
	return Parts{
		Ask: func(_ context.Context, have string) (Answer, error) {
			time.Sleep(w.pause)
			w.pause = 0
			switch {
			case w.gone:
				return Answer{}, errors.New("connection refused")
			case w.problem != "":
				return Answer{Tag: have, Problem: w.problem}, nil
			case have == w.told.Config+"!":
				return Answer{Tag: have}, nil
			}
			t := w.told
			return Answer{New: &t, Tag: t.Config + "!"}, nil
		},
		Apply: func(text string, _ []string) error {
			if strings.HasPrefix(text, "broken") {
				return errors.New("broken")
			}
			w.applied = append(w.applied, text)
			if n := len(w.sent); text == "" && n > 0 && w.sent[n-1].Ends.After(time.Now()) {
				w.mute = true
			}
			return nil
		},
		Send: func(_ context.Context, in ...route.Alert) error {
			if w.fail == nil {
				w.sent = append(w.sent, in...)
			}
			return w.fail
		},
		Note: func(_ context.Context, tr evidence.Transition) {
			w.notes = append(w.notes, map[bool]string{true: "firing", false: "resolved"}[tr.Firing])
		},
		Known: func() []route.Alert { return w.sent[max(0, len(w.sent)-1):] },
	}
}

// run starts a watcher in a bubble and ends it with the returned func.
func (w *world) run(file string) func() {
	cfg := Default()
	cfg.File, cfg.Node, cfg.Server = file, "nb", "https://server:9443"
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	a := New(cfg, w.parts(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	w.unlearned = func() float64 { return testutil.ToFloat64(a.failed.WithLabelValues("learn")) }
	go func() {
		defer close(ended)
		_ = a.Run(ctx)
	}()
	return func() {
		cancel()
		<-ended
	}
}

func after(d time.Duration) {
	time.Sleep(d) // of the bubble's clock
	synctest.Wait()
}

func TestAnOutageIsToldOnceWithItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{told: Told{Config: "a"}}
		file := filepath.Join(t.TempDir(), "told.json")
		stop := w.run(file)
		defer stop()
		after(10 * time.Second)
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("the file of receivers: %v, %v", info, err)
		}
		w.gone = true
		after(13 * time.Second)
		if len(w.sent) != 0 {
			t.Fatalf("told too early: %v", w.sent)
		}
		after(7 * time.Second)
		if len(w.sent) != 1 || w.sent[0].Labels["alertname"] != "ServerUnreachable" || w.sent[0].Labels["node"] != "nb" || !strings.Contains(w.sent[0].Annotations["summary"], "https://server:9443") {
			t.Fatalf("told: %v", w.sent)
		}
		after(10 * time.Minute)
		if n := len(w.sent); n < 9 || n > 12 || !w.sent[n-1].Ends.After(time.Now()) || w.sent[n-1].Starts != w.sent[0].Starts {
			t.Fatalf("an alert that fires on is told to the router once a minute: %d times", n)
		}
		w.gone = false
		after(4 * time.Second)
		if last := w.sent[len(w.sent)-1]; last.Ends.After(time.Now()) {
			t.Errorf("the end was not told: %v", last)
		}
		n := len(w.sent)
		after(time.Hour)
		if len(w.sent) != n || strings.Join(w.notes, " ") != "firing resolved" {
			t.Errorf("afterwards: %v, history %v", w.sent[n:], w.notes)
		}
	})
}

func TestARestartedWatcherKnowsReceiversAndTellsTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{told: Told{Config: "a"}}
		file := filepath.Join(t.TempDir(), "told.json")
		stop := w.run(file)
		after(5 * time.Second)
		stop()
		w.gone, w.applied = true, nil
		stop = w.run(file) // the server is gone when it starts
		after(20 * time.Second)
		if len(w.sent) != 1 || strings.Join(w.applied, " ") != "a" {
			t.Fatalf("told %v to %v", w.sent, w.applied)
		}
		stop()
		w.gone = false
		stop = w.run(file)
		defer stop()
		after(5 * time.Second)
		if n := len(w.sent); n != 2 || w.sent[1].Ends.After(time.Now()) {
			t.Errorf("the end: %v", w.sent)
		}
	})
}

func TestReceiversFollowTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{told: Told{Config: "a"}}
		file := filepath.Join(t.TempDir(), "told.json")
		if err := os.WriteFile(file, []byte("{garbage"), 0o600); err != nil {
			t.Fatal(err)
		}
		defer w.run(file)()
		after(5 * time.Second)
		w.told = Told{Config: "broken b"}
		after(5 * time.Second)
		w.told = Told{Config: "c", SilencedUntil: time.Now().Add(time.Hour)}
		after(5 * time.Second)
		if got := strings.Join(w.applied, " "); got != "a c" {
			t.Errorf("in force: %s", got)
		}
		w.gone = true
		after(time.Minute)
		if len(w.sent) != 0 {
			t.Errorf("told although silenced: %v", w.sent)
		}
		after(time.Hour)
		if len(w.sent) == 0 {
			t.Error("not told after the silence")
		}
		w.gone, w.told = false, Told{}
		after(10 * time.Second)
		if w.mute {
			t.Error("the receivers were forgotten before they were told the end")
		}
		if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a node that is no watcher any more keeps secrets: %v", err)
		}
	})
}

func TestWhatCannotBeSentIsSentLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{told: Told{Config: "a"}}
		defer w.run(filepath.Join(t.TempDir(), "told.json"))()
		after(5 * time.Second)
		w.gone, w.fail = true, errors.New("closed")
		after(time.Minute)
		w.fail = nil
		after(5 * time.Second)
		if len(w.sent) != 1 || len(w.notes) != 1 {
			t.Errorf("sent %v, history %v", w.sent, w.notes)
		}
	})
}

func TestAskingOverHTTP(t *testing.T) {
	told, code := Told{Config: "secret", Templates: []string{"a", "b"}}, 0
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if code != 0 {
			http.Error(rw, "no", code)
			return
		}
		Handler(func(*http.Request) (Told, error) { return told, nil }).ServeHTTP(rw, r)
	}))
	ask := Ask(s.Client(), s.URL)
	first, err := ask(t.Context(), "")
	if err != nil || first.New == nil || !reflect.DeepEqual(*first.New, told) {
		t.Fatalf("first: %+v, %v", first, err)
	}
	if again, err := ask(t.Context(), first.Tag); err != nil || again.New != nil || again.Tag != first.Tag {
		t.Errorf("unchanged: %+v, %v", again, err)
	}
	told.SilencedUntil = time.Now()
	if again, err := ask(t.Context(), first.Tag); err != nil || again.New == nil {
		t.Errorf("changed: %+v, %v", again, err)
	}
	told.Config = strings.Repeat("x", maxTold)
	if big, err := ask(t.Context(), first.Tag); err != nil || big.New != nil || big.Problem == "" {
		t.Errorf("too big: %+v, %v", big, err)
	}
	code = http.StatusForbidden
	if refused, err := ask(t.Context(), first.Tag); err != nil || refused.Problem == "" || refused.Tag != first.Tag {
		t.Errorf("refused, but alive: %+v, %v", refused, err)
	}
	s.Close()
	if _, err := ask(t.Context(), ""); err == nil {
		t.Error("a server that is gone has answered")
	}
}

func TestReceiversAreKeptAsSoonAsTheDiskTakesThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{told: Told{Config: "a"}}
		dir := filepath.Join(t.TempDir(), "alarm") // does not exist: nothing can be written
		defer w.run(filepath.Join(dir, "told.json"))()
		after(10 * time.Second)
		w.gone = true
		after(20 * time.Second)
		if len(w.sent) != 1 {
			t.Fatalf("a disk that refuses keeps people from hearing: %v", w.sent)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		w.gone = false
		after(5 * time.Second)
		if text, err := os.ReadFile(filepath.Join(dir, "told.json")); err != nil || !strings.Contains(string(text), `"a"`) {
			t.Errorf("kept: %s, %v", text, err)
		}
	})
}

func TestAProcessThatWasPausedBlamesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{told: Told{Config: "a"}}
		defer w.run(filepath.Join(t.TempDir(), "told.json"))()
		after(5 * time.Second)
		w.pause, w.gone = time.Hour, true // the network comes back later than the process
		after(time.Hour + 10*time.Second)
		if len(w.sent) != 0 {
			t.Fatalf("told at once after a pause: %v", w.sent)
		}
		after(15 * time.Second)
		if len(w.sent) != 1 {
			t.Errorf("told %d times after the patience", len(w.sent))
		}
	})
}

func TestAServerThatDoesNotKnowYetIsNoBlindness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{told: Told{Config: "a"}}
		defer w.run(filepath.Join(t.TempDir(), "told.json"))()
		after(5 * time.Second)
		for range 3 { // its restarts
			w.gone = true
			after(10 * time.Second)
			w.gone, w.problem = false, "503 Service Unavailable: the nodes are not known yet"
			after(50 * time.Second)
			w.problem = ""
			after(5 * time.Second)
		}
		if n := w.unlearned(); n != 0 {
			t.Fatalf("restarts of the server count as blindness %g times", n)
		}
		w.problem = "500 Internal Server Error"
		after(3 * time.Minute)
		first := w.unlearned()
		if first == 0 {
			t.Fatal("what lasts is not counted")
		}
		after(10 * time.Minute)
		if w.unlearned() < first+100 || len(w.sent) != 0 {
			t.Errorf("%g, then %g times; sent %v", first, w.unlearned(), w.sent)
		}
	})
}
