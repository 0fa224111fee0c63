package evidence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type world struct {
	mu    sync.Mutex
	out   [][]Alert
	turns []Transition
	asked []string
	slow  time.Duration
	fail  error
}

func (w *world) sources() Sources {
	wait := func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(w.slow):
			return w.fail
		}
	}
	return Sources{
		Lines: func(ctx context.Context, query string, _, to time.Time, limit int) ([]Line, error) {
			w.mu.Lock()
			w.asked = append(w.asked, query)
			w.mu.Unlock()
			if err := wait(ctx); err != nil {
				return nil, err
			}
			var out []Line
			for i := range limit {
				out = append(out, Line{to.Add(time.Duration(i-limit) * time.Second), fmt.Sprintf("line %d of %s", i, query)})
			}
			return out, nil
		},
		Values: func(ctx context.Context, expr string, _ time.Time) ([]Value, error) {
			if err := wait(ctx); err != nil {
				return nil, err
			}
			l := map[string]string{}
			if strings.HasPrefix(expr, "kube_pod_owner") {
				l = map[string]string{"namespace": "shop", "owner_kind": "ReplicaSet", "owner_name": "web-5d"}
			}
			if strings.HasPrefix(expr, "kube_replicaset_owner") {
				l = map[string]string{"owner_kind": "Deployment", "owner_name": "web"}
			}
			return []Value{{l, 64 << 20}}, nil
		},
	}
}

func run(t *testing.T, w *world, before []Alert, cfg func(*Config)) (*Courier, func()) {
	t.Helper()
	page, err := url.Parse("https://perch.example:9443")
	if err != nil {
		t.Fatal(err)
	}
	conf := Default(page)
	if cfg != nil {
		cfg(&conf)
	}
	c := New(conf, w.sources(), before, func(_ context.Context, in ...Alert) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.out = append(w.out, in)
		return nil
	}, func(_ context.Context, turn Transition) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.turns = append(w.turns, turn)
	}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	return c, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func crash(pod string, ends time.Duration) Alert {
	return Alert{Labels: map[string]string{"alertname": "Crash", "namespace": "shop", "pod": pod, "container": "web"}, Annotations: map[string]string{"summary": "it ended"},
		Starts: time.Now(), Ends: time.Now().Add(ends)}
}

func TestAnAlertCarriesItsEvidenceToItsEndAndIsNotedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		c, stop := run(t, w, nil, nil)
		first := crash("web-1", time.Hour)
		for _, a := range []Alert{first, first} { // the second is the reminder each minute
			if err := c.Send(t.Context(), a); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		<-time.After(time.Minute)
		end := first
		end.Ends = time.Now()
		if err := c.Send(t.Context(), end); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		stop()
		if len(w.out) != 3 || len(w.turns) != 2 || !w.turns[0].Firing || w.turns[1].Firing {
			t.Fatalf("handed on %d, noted %+v", len(w.out), w.turns)
		}
		for _, batch := range w.out {
			a := batch[0].Annotations
			size := 0
			for k, v := range a {
				size += len(k) + len(v)
			}
			if size > 8<<10 {
				t.Errorf("%d bytes of annotations", size)
			}
			for note, want := range map[string]string{
				"summary": "it ended", noteLines: "line 19 of kind:log", noteEvents: "kind:event", noteChanges: `resource:"deployments" name:"web"`,
				noteValues: "memory 64Mi", noteLink: "https://perch.example:9443/pods/shop/web-1?", noteLogs: "container%3A%22web%22",
			} {
				if !strings.Contains(a[note], want) {
					t.Errorf("%s = %q, want %q", note, a[note], want)
				}
			}
		}
		if first.Annotations[noteLines] != "" {
			t.Error("changed the rules' own map")
		}
	})
}

func TestSlowOrBrokenSourcesDelayAnAlertByTheDeadlineAtMost(t *testing.T) {
	for name, w := range map[string]*world{"slow": {slow: time.Hour}, "broken": {fail: errors.New("disk is gone")}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, stop := run(t, w, nil, nil)
				began := time.Now()
				if err := c.Send(t.Context(), crash("web-1", time.Hour)); err != nil {
					t.Fatal(err)
				}
				<-time.After(c.cfg.Look + time.Millisecond)
				synctest.Wait()
				w.mu.Lock()
				if len(w.out) != 1 || w.out[0][0].Annotations[noteLink] == "" || w.out[0][0].Annotations[noteMissing] == "" {
					t.Errorf("after %s: %+v", time.Since(began), w.out)
				}
				w.mu.Unlock()
				stop()
			})
		})
	}
}

func TestAStormGoesOutWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{slow: 10 * time.Millisecond}
		c, stop := run(t, w, nil, func(c *Config) { c.Known, c.Queue = 50, 8 })
		var storm []Alert
		for i := range 100 {
			storm = append(storm, crash(fmt.Sprint("web-", i), time.Hour))
		}
		if err := c.Send(t.Context(), storm...); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Second)
		stop()
		if len(w.out) != 1 || len(w.out[0]) != 100 {
			t.Fatalf("handed on %d", len(w.out))
		}
		with := 0
		for _, a := range w.out[0] {
			if a.Annotations[noteLines] != "" {
				with++
			}
		}
		if with != c.cfg.Batch || len(w.turns) != c.cfg.Known {
			t.Errorf("%d with lines, %d noted", with, len(w.turns))
		}
	})
}

func TestWhatFiredBeforeARestartBeginsNoSecondTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		old := crash("web-1", time.Hour)
		old.Annotations = map[string]string{noteLines: "as it was"}
		c, stop := run(t, w, []Alert{old}, nil)
		if err := c.Send(t.Context(), crash("web-1", time.Hour)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		stop()
		if len(w.turns) != 0 || len(w.out) != 1 || w.out[0][0].Annotations[noteLines] != "as it was" {
			t.Errorf("noted %v, handed on %+v", w.turns, w.out)
		}
	})
}

func TestAnAlertThatIsNotToldAnyMoreHasEndedAndMayBeginAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		before := crash("web-1", 2*time.Minute)
		before.Annotations = map[string]string{noteLines: "as it was"}
		c, stop := run(t, w, []Alert{before}, nil)
		began := time.Now()
		send := func(a Alert) {
			t.Helper()
			if err := c.Send(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		send(crash("web-2", time.Minute))
		<-time.After(50 * time.Second)
		send(crash("web-2", 4*time.Minute)) // it is told again, so it goes on
		<-time.After(10 * time.Minute)
		send(crash("web-1", time.Hour))
		stop()
		var got []string
		for _, x := range w.turns {
			got = append(got, fmt.Sprint(x.Labels["pod"], " ", x.Firing, " ", x.At.Sub(began)))
		}
		if want := "web-2 true 0s, web-1 false 2m0s, web-2 false 4m50s, web-1 true 10m50s"; strings.Join(got, ", ") != want {
			t.Errorf("noted %s, want %s", strings.Join(got, ", "), want)
		}
		if last := w.out[len(w.out)-1][0].Annotations[noteLines]; last == "as it was" || last == "" {
			t.Errorf("the second time it has the lines %q", last)
		}
	})
}

func TestAnAlertThatSomebodyTellsIsHandedOnWhenDeliverReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{slow: 10 * time.Millisecond}
		c, stop := run(t, w, nil, nil)
		began := time.Now()
		deliver := func(starts, ends time.Duration, guessed bool) {
			t.Helper()
			a := crash("web-1", 0)
			a.Starts, a.Ends, a.Guessed = began.Add(starts), began.Add(ends), guessed
			if err := c.Deliver(t.Context(), a); err != nil {
				t.Fatal(err)
			}
		}
		deliver(0, 10*time.Minute, false)
		if len(w.out) != 1 || w.out[0][0].Annotations[noteLines] == "" {
			t.Fatalf("handed on %+v", w.out)
		}
		<-time.After(time.Minute)
		deliver(time.Minute, 6*time.Minute, true) // a guess shortens nothing that was said
		<-time.After(7 * time.Minute)
		if len(w.turns) != 1 {
			t.Fatalf("noted %+v", w.turns)
		}
		deliver(8*time.Minute, 8*time.Minute, false)
		synctest.Wait()
		stop()
		if len(w.turns) != 2 || w.turns[1].Firing || !w.turns[1].Starts.Equal(began) || !w.turns[1].At.Equal(began.Add(8*time.Minute)) {
			t.Errorf("noted %+v", w.turns)
		}
	})
}

func TestWhoTellsAnAlertThatIsNotTakenLearnsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := run(t, &world{}, nil, nil)
		c.deliver = func(context.Context, ...Alert) error { return errors.New("no room") }
		if err := c.Deliver(t.Context(), crash("web-1", time.Hour)); err == nil || err.Error() != "no room" {
			t.Errorf("told %v", err)
		}
		stop()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Deliver(ctx, crash("web-2", time.Hour)); err == nil {
			t.Error("taken by nobody")
		}
	})
}

func TestWhatIsAskedAndLinkedFollowsTheObject(t *testing.T) {
	page, err := url.Parse("https://perch.example:9443")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	const deeds = " (verb:create or verb:update or verb:patch or verb:delete or subresource:exec or subresource:attach) code:<400"
	for name, tc := range map[string]struct {
		labels        map[string]string
		path          string
		query         map[string]string
		changes, logs string
	}{
		"a pod": {map[string]string{"namespace": "shop", "pod": "web-1", "deployment": "web"}, "/pods/shop/web-1", map[string]string{"at": "2026-11-22T03:00:00Z"},
			`kind:audit namespace:"shop" resource:"pods" name:"web-1"` + deeds, `namespace:"shop" pod:"web-1"`},
		"a deployment": {map[string]string{"namespace": "shop", "deployment": "web", "horizontalpodautoscaler": "web"}, "/dash/perch-workloads", map[string]string{"ns": "shop", "var-deployment": "web"},
			`kind:audit namespace:"shop" resource:"deployments" name:"web"` + deeds, `namespace:"shop" pod:"web-"*`},
		"an autoscaler": {map[string]string{"namespace": "shop", "horizontalpodautoscaler": "web"}, "/logs", map[string]string{"q": `(kind:event namespace:"shop" object:"HorizontalPodAutoscaler/web") or (kind:audit namespace:"shop" resource:"horizontalpodautoscalers" name:"web"` + deeds + ")"},
			`kind:audit namespace:"shop" resource:"horizontalpodautoscalers" name:"web"` + deeds, ""},
		"a job": {map[string]string{"namespace": "shop", "job_name": "mail"}, "/logs", map[string]string{"q": `(kind:event namespace:"shop" object:"Job/mail") or (kind:audit namespace:"shop" resource:"jobs" name:"mail"` + deeds + `) or (kind:log namespace:"shop" pod:"mail-"*)`},
			`kind:audit namespace:"shop" resource:"jobs" name:"mail"` + deeds, `namespace:"shop" pod:"mail-"*`},
		"a node": {map[string]string{"node": "n1"}, "/dash/perch-nodes", map[string]string{"var-node": "n1"},
			`kind:audit resource:"nodes" name:"n1"` + deeds, `node:"n1" level:>=warn`},
		"a namespace": {map[string]string{"namespace": "shop"}, "/dash/perch-pods", map[string]string{"ns": "shop"}, "", ""},
		"nothing":     {map[string]string{"job": "probe"}, "/alerts", map[string]string{"tab": "history"}, "", ""},
	} {
		p := ask(tc.labels)
		if p.changes != tc.changes {
			t.Errorf("%s: changes are asked by %s", name, p.changes)
		}
		for note, want := range map[string]string{noteLink: tc.path, noteLogs: "/logs"} {
			text := links(page, p, began)[note]
			if note == noteLogs && tc.logs == "" {
				if text != "" {
					t.Errorf("%s: %s", name, text)
				}
				continue
			}
			u, err := url.Parse(text)
			if err != nil || u.Path != want || u.Query().Get("from") != "2026-11-22T02:45:00Z" || u.Query().Get("to") != "2026-11-22T03:10:00Z" {
				t.Errorf("%s: %s = %s, %v", name, note, text, err)
				continue
			}
			if note == noteLogs && u.Query().Get("q") != tc.logs {
				t.Errorf("%s: lines by %s", name, u.Query().Get("q"))
			}
			for k, v := range tc.query {
				if note == noteLink && u.Query().Get(k) != v {
					t.Errorf("%s: %s has %s=%s, want %s", name, text, k, u.Query().Get(k), v)
				}
			}
		}
	}
}

func TestTheOwnerOfAPodIsWhoMadeTheJobOrReplicaSet(t *testing.T) {
	for name, tc := range map[string]struct{ pod, above, want string }{
		"of a deployment":       {"ReplicaSet/web-5d", "Deployment/web", "Deployment/web"},
		"a lone replica set":    {"ReplicaSet/web-5d", "<none>/<none>", "ReplicaSet/web-5d"},
		"of a cron job":         {"Job/mail-1", "CronJob/mail", "CronJob/mail"},
		"of a stateful set":     {"StatefulSet/db", "", "StatefulSet/db"},
		"made by hand":          {"<none>/<none>", "", "/"},
		"of something unstored": {"", "", "/"},
	} {
		values := func(_ context.Context, expr string, _ time.Time) ([]Value, error) {
			of := tc.pod
			if !strings.HasPrefix(expr, "kube_pod_owner") {
				of = tc.above
			}
			kind, name, ok := strings.Cut(of, "/")
			if !ok {
				return nil, nil
			}
			return []Value{{Labels: map[string]string{"namespace": "shop", "owner_kind": kind, "owner_name": name}}}, nil
		}
		o, err := (&Courier{from: Sources{Values: values}}).ownerOf(t.Context(), ask(map[string]string{"namespace": "shop", "pod": "p"}).owner, time.Now())
		if err != nil || o.kind+"/"+o.name != tc.want {
			t.Errorf("%s: %v, %v", name, o, err)
		}
	}
}

func TestEvidenceIsWhatPerchSays(t *testing.T) {
	for _, l := range []map[string]string{{"namespace": "shop", "pod": "a"}, {"namespace": "shop", "pod": "a", "container": "c"}, {"namespace": "shop", "deployment": "d"}, {"node": "n1"}} {
		p := ask(l)
		exprs := []string{}
		if p.owner != "" {
			exprs = append(exprs, p.owner)
		}
		for _, m := range p.values {
			exprs = append(exprs, m.expr)
		}
		for _, expr := range exprs {
			if !strings.Contains(expr, `job="ku`) && !strings.Contains(expr, `namespace=""`) {
				t.Errorf("%v: %s may be another exporter's", l, expr)
			}
		}
		if len(exprs) == 0 {
			t.Errorf("%v: no value is asked for", l)
		}
	}
}
