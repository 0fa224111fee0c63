package daemon

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/alerts/route"
	"perch/logs/query"
	"perch/logs/record"
	logstore "perch/logs/store"
)

// TestMain lets this binary be the process that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("SILENCE_VICTIM"); dir != "" {
		silenceVictim(dir)
	}
	os.Exit(m.Run())
}

// quietDesk are silences and the history of them on a directory, as a process has them.
type quietDesk struct {
	router *route.Router
	store  *logstore.Store
	engine *query.Engine
	ends   *silenceEnds
}

func openQuietDesk(dir string) (*quietDesk, error) {
	log := slog.New(slog.DiscardHandler)
	router, err := route.New(route.Config{Dir: filepath.Join(dir, "alerts"), ExternalURL: &url.URL{Scheme: "https", Host: "perch.example"}}, log, prometheus.NewRegistry())
	if err != nil {
		return nil, err
	}
	if err := router.Restore(); err != nil {
		return nil, err
	}
	store, err := logstore.Open(logstore.Default(filepath.Join(dir, "logs")), log, prometheus.NewRegistry())
	if err != nil {
		return nil, err
	}
	engine := query.New(store, log)
	return &quietDesk{router, store, engine, &silenceEnds{lapsed: router.Lapsed, search: engine, log: log, kept: func() time.Duration { return 0 },
		keep: func(ctx context.Context, r record.Record) error { return store.Append(ctx, []record.Record{r}, nil) }}}, nil
}

// silence makes one that lasts so long and returns its id.
func (x *quietDesk) silence(last time.Duration) (string, error) {
	now := time.Now().UTC()
	body, err := json.Marshal(map[string]any{"createdBy": "kim", "comment": "new disk", "startsAt": now, "endsAt": now.Add(last),
		"matchers": []map[string]any{{"name": "namespace", "value": "shop", "isRegex": false}, {"name": "pod", "value": "web-.*", "isRegex": true, "isEqual": false}}})
	if err != nil {
		return "", err
	}
	return x.ask("POST", "silences", string(body))
}

func (x *quietDesk) ask(method, path, body string) (string, error) {
	req := httptest.NewRequest(method, "/alertmanager/api/v2/"+path, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	x.router.Handler("/alertmanager").ServeHTTP(w, req)
	if w.Code != http.StatusOK {
		return "", fmt.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	var made struct{ SilenceID string }
	_ = json.Unmarshal(w.Body.Bytes(), &made) // an end has no body
	return made.SilenceID, nil
}

// written are the ends in the history by the silence's id.
func (x *quietDesk) written(t *testing.T) map[string][]map[string]string {
	t.Helper()
	out := map[string][]map[string]string{}
	_, err := x.engine.Query(t.Context(), query.Request{Text: `kind:alert state:"silence expired"`, From: 0, To: time.Now().Add(time.Hour).UnixNano(), Limit: query.MaxLimit}, func(l *query.Line) error {
		fields := map[string]string{}
		if err := json.Unmarshal(l.Fields, &fields); err != nil {
			return err
		}
		fields["line"], fields["at"], fields["namespace"] = string(l.Body), time.Unix(0, l.Time).UTC().Format(time.RFC3339Nano), l.Stream.Namespace
		out[fields["silence"]] = append(out[fields["silence"]], fields)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// over waits until the time of the silences is over.
func (x *quietDesk) over(t *testing.T, ids ...string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; <-time.After(5 * time.Millisecond) {
		lapsed, err := x.router.Lapsed(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		have := map[string]bool{}
		for _, s := range lapsed {
			have[s.ID] = true
		}
		left := 0
		for _, id := range ids {
			if !have[id] {
				left++
			}
		}
		if left == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d silences are not over", left)
		}
	}
}

// silenceVictim makes silences that last for a moment, says their ids, and looks for
// those that ended until it is killed.
func silenceVictim(dir string) {
	x, err := openQuietDesk(dir)
	if err != nil {
		panic(err)
	}
	for {
		if id, err := x.silence(100 * time.Millisecond); err == nil { // else the machine was too slow for so short a one
			fmt.Println(id)
		}
		if err := x.ends.look(context.Background(), time.Now()); err != nil {
			panic(err)
		}
	}
}

func TestTheEndOfASilenceIsInTheHistoryOnceHoweverOftenTheProcessIsKilled(t *testing.T) {
	dir := t.TempDir()
	var ids []string
	for round := range 5 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "SILENCE_VICTIM="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		said := bufio.NewScanner(out)
		for n := 0; n < 8+7*round && said.Scan(); n++ {
			ids = append(ids, said.Text())
		}
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for said.Scan() { // what it said until then
			ids = append(ids, said.Text())
		}
		_ = cmd.Wait() // it was killed
	}
	x, err := openQuietDesk(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer x.store.Close()
	x.over(t, ids...)
	before := len(x.written(t))
	for range 3 {
		if err := x.ends.look(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	have := x.written(t)
	if before == 0 || before == len(have) {
		t.Errorf("%d ends were written before the last start, %d after", before, len(have)) // the test tests nothing
	}
	for _, id := range ids {
		if len(have[id]) != 1 {
			t.Errorf("the end of %s is written %d times", id, len(have[id]))
		}
	}
	t.Logf("%d silences, %d of them written by processes that were killed", len(ids), before)
}

func TestOnlyTheEndThatNobodyMadeIsASilenceExpired(t *testing.T) {
	x, err := openQuietDesk(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer x.store.Close()
	make := func(last time.Duration) string {
		t.Helper()
		id, err := x.silence(last)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	by := make(10 * time.Millisecond)
	made := make(time.Hour)
	if _, err := x.ask("DELETE", "silence/"+made, ""); err != nil {
		t.Fatal(err)
	}
	make(time.Hour)
	x.over(t, by)
	if err := x.ends.look(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	have := x.written(t)
	if len(have) != 1 || len(have[by]) != 1 {
		t.Fatalf("%v, want the end of %s", have, by)
	}
	got := have[by][0]
	if got["line"] != `namespace="shop", pod!~"web-.*" silence expired: new disk` || got["at"] != got["until"] || got["since"] == "" || got["as"] != "kim" || got["why"] != "new disk" || got["who"] != "" || got["namespace"] != "shop" {
		t.Errorf("%v", got)
	}
}

// unsure is a history that may be asked only in part.
type unsure struct {
	query.Searcher
	reason string
}

func (u unsure) Query(ctx context.Context, r query.Request, emit func(*query.Line) error) (query.Summary, error) {
	if u.reason != "" {
		return query.Summary{Partial: true, Reason: u.reason}, nil
	}
	return u.Searcher.Query(ctx, r, emit)
}

func TestAnEndThatCouldNotBeWrittenOrAskedIsTriedAgain(t *testing.T) {
	x, err := openQuietDesk(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer x.store.Close()
	id, err := x.silence(10 * time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	x.over(t, id)
	keep := x.ends.keep
	x.ends.search = unsure{x.engine, "a part is damaged"}
	if err := x.ends.look(t.Context(), time.Now()); err == nil || !strings.Contains(err.Error(), "a part is damaged") {
		t.Errorf("a history that is not whole: %v", err)
	}
	x.ends.search = x.engine
	x.ends.keep = func(ctx context.Context, r record.Record) error {
		return errors.Join(errors.New("no space"), keep(ctx, r)) // it is there all the same
	}
	if err := x.ends.look(t.Context(), time.Now()); err == nil || !strings.Contains(err.Error(), "no space") {
		t.Errorf("a full disk: %v", err)
	}
	x.ends.keep = keep
	if err := x.ends.look(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if have := x.written(t)[id]; len(have) != 1 {
		t.Errorf("written %d times", len(have))
	}
	x.ends.told, x.ends.kept = nil, func() time.Duration { return time.Nanosecond } // what the history has forgotten stays so
	x.ends.search = unsure{x.engine, "not asked"}
	if err := x.ends.look(t.Context(), time.Now()); err != nil {
		t.Errorf("older than the history: %v", err)
	}
}
