package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/alerts/evidence"
	"perch/alerts/route"
	"perch/alerts/rule"
	"perch/cmd/perch/daemon/config"
	"perch/cmd/perch/daemon/door"
	"perch/logs/record"
)

// alertDesk is a running router with its courier, as the telemetry role joins them.
type alertDesk struct {
	*alerts
	door http.Handler
	reg  *prometheus.Registry

	mu      sync.Mutex
	records []record.Record
}

func newAlertDesk(t *testing.T) *alertDesk {
	t.Helper()
	page, err := url.Parse("https://perch.example:9443")
	if err != nil {
		t.Fatal(err)
	}
	r := role{cfg: config.Config{DataDir: t.TempDir()}, log: slog.New(slog.DiscardHandler), reg: prometheus.NewRegistry()}
	out := &alertDesk{reg: r.reg}
	if out.alerts, err = openAlerts(r, page, nil); err != nil {
		t.Fatal(err)
	}
	keep := func(_ context.Context, what record.Record) {
		out.mu.Lock()
		defer out.mu.Unlock()
		out.records = append(out.records, what)
	}
	out.courier = newCourier(r, out.router, evidence.Sources{
		Lines: func(_ context.Context, query string, _, to time.Time, _ int) ([]evidence.Line, error) {
			return []evidence.Line{{Time: to, Text: "found by " + query}}, nil
		},
		Values: func(context.Context, string, time.Time) ([]evidence.Value, error) { return nil, nil },
	}, keep, page)
	out.door = keepSilences(out.router.Handler("/alertmanager"), keep)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- out.router.Run(ctx) }()
	go func() { ended <- out.courier.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
	return out
}

// ask is a request of kim, who came through the door.
func (x *alertDesk) ask(t *testing.T, method, path, body string) string {
	t.Helper()
	req := httptest.NewRequest(method, "/alertmanager/api/v2/"+path, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	x.door.ServeHTTP(w, req.WithContext(door.WithUser(req.Context(), door.User{Name: "kim"})))
	if w.Code != http.StatusOK {
		t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	return w.Body.String()
}

// next waits for the record with this number and returns it with its fields.
func (x *alertDesk) next(t *testing.T, n int) (string, map[string]string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; <-time.After(5 * time.Millisecond) {
		x.mu.Lock()
		if len(x.records) > n {
			defer x.mu.Unlock()
			fields := map[string]string{}
			for _, f := range x.records[n].Fields {
				fields[f.Key] = f.Value
			}
			s := x.records[n].Stream
			return strings.Join([]string{s.Namespace, s.Pod, s.Node, string(x.records[n].Body)}, " "), fields
		}
		x.mu.Unlock()
		if time.Now().After(end) {
			t.Fatalf("no record %d", n)
		}
	}
}

func TestAnAlertFromOutsideHasEvidenceAHistoryAndAPlaceInTheList(t *testing.T) {
	x := newAlertDesk(t)
	x.ask(t, "POST", "alerts", `[{"labels":{"alertname":"Slow","namespace":"shop","pod":"web-1","severity":"critical"},"annotations":{"summary":"it is slow"},"generatorURL":"http://probe.example/1"}]`)
	var got []struct {
		Annotations  map[string]string
		GeneratorURL string
	}
	if err := json.Unmarshal([]byte(x.ask(t, "GET", "alerts", "")), &got); err != nil || len(got) != 1 {
		t.Fatalf("%v, %+v", err, got)
	}
	for note, want := range map[string]string{"summary": "it is slow", evidence.From: "kim", "perch_lines": `found by kind:log namespace:"shop" pod:"web-1"`, "perch_link": "https://perch.example:9443/pods/shop/web-1?"} {
		if !strings.Contains(got[0].Annotations[note], want) {
			t.Errorf("%s = %q, want %q", note, got[0].Annotations[note], want)
		}
	}
	if got[0].GeneratorURL != "http://probe.example/1" {
		t.Errorf("generatorURL %q", got[0].GeneratorURL)
	}
	if list := x.fromOutside(); len(list) != 1 || list[0].Labels["pod"] != "web-1" || list[0].Annotations["summary"] != "it is slow" || list[0].ActiveAt.IsZero() {
		t.Errorf("listed: %+v", list)
	}
	for note := range x.fromOutside()[0].Annotations { // who may read its numbers may not read its lines
		if note != "summary" && note != evidence.From {
			t.Errorf("listed with %s", note)
		}
	}
	body, fields := x.next(t, 0)
	if body != "shop web-1  Slow firing: it is slow" || fields["from"] != "kim" || fields["state"] != "firing" || fields["severity"] != "critical" {
		t.Errorf("beginning: %q %v", body, fields)
	}
	x.ask(t, "POST", "alerts", `[{"labels":{"alertname":"Slow","namespace":"shop","pod":"web-1","severity":"critical"}}]`) // told again
	x.ask(t, "POST", "alerts", fmt.Sprintf(`[{"labels":{"alertname":"Slow","namespace":"shop","pod":"web-1","severity":"critical"},"endsAt":%q}]`, time.Now().UTC().Format(time.RFC3339Nano)))
	body, fields = x.next(t, 1)
	if !strings.Contains(body, "Slow resolved") || fields["from"] != "kim" {
		t.Errorf("end: %q %v", body, fields)
	}
	if list := x.fromOutside(); len(list) != 0 {
		t.Errorf("listed after its end: %+v", list)
	}
}

func TestAnAlertOfARuleIsNotListedTwice(t *testing.T) {
	x := newAlertDesk(t)
	now := time.Now()
	if err := x.courier.Deliver(t.Context(), evidence.Alert{Labels: map[string]string{"alertname": "Own"}, Starts: now, Ends: now.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if active, list := x.router.Active(), x.fromOutside(); len(active) != 1 || len(list) != 0 {
		t.Errorf("known %+v, from outside %+v", active, list)
	}
}

func TestEvidenceInTheListOfAlertsIsForThoseWhoMayReadTheLines(t *testing.T) {
	x := newAlertDesk(t)
	for _, labels := range []string{`"namespace":"shop","pod":"web-1"`, `"namespace":"bank","pod":"vault-0"`, `"node":"n1"`} {
		x.ask(t, "POST", "alerts", `[{"labels":{"alertname":"Slow",`+labels+`},"annotations":{"summary":"it is slow"}}]`)
	}
	for end := time.Now().Add(time.Minute); strings.Count(x.ask(t, "GET", "alerts/groups", ""), "it is slow") < 3; <-time.After(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not all alerts are in groups")
		}
	}
	for _, where := range []string{"alerts", "alerts/groups", "alerts/"} {
		for name, tc := range map[string]struct {
			scope door.Scope
			lines []string // of whom
		}{
			"who may read all":        {door.Scope{All: true}, []string{"bank", "n1", "shop"}},
			"who may read the shop's": {door.Scope{Namespaces: []string{"shop"}}, []string{"shop"}},
			"who may read none":       {door.Scope{}, nil},
		} {
			req := httptest.NewRequest("GET", "/alertmanager/api/v2/"+where, nil)
			w := httptest.NewRecorder()
			ownLines(x.door).ServeHTTP(w, req.WithContext(door.WithScope(req.Context(), tc.scope)))
			if w.Code != http.StatusOK {
				t.Fatalf("%s: %d %s", where, w.Code, w.Body)
			}
			type one struct {
				Labels, Annotations map[string]string
				Alerts              []one
			}
			var list []one
			if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil {
				t.Fatal(err)
			}
			if where == "alerts/groups" {
				var inner []one
				for _, g := range list {
					inner = append(inner, g.Alerts...)
				}
				list = inner
			}
			var lines []string
			for _, a := range list {
				if a.Annotations["perch_events"] != "" {
					lines = append(lines, a.Labels["namespace"]+a.Labels["node"])
				}
				if a.Annotations["summary"] != "it is slow" || a.Annotations[evidence.From] != "kim" {
					t.Errorf("%s, %s: %v", where, name, a.Annotations)
				}
			}
			slices.Sort(lines)
			if len(list) != 3 || !slices.Equal(lines, tc.lines) {
				t.Errorf("%s, %s: %d alerts, lines of %v, want %v", where, name, len(list), lines, tc.lines)
			}
		}
	}
}

func TestARuleDoesNotSayThatSomebodyToldItsAlert(t *testing.T) {
	x := newAlertDesk(t)
	now := time.Now()
	notes := map[string]string{evidence.From: "kim", "summary": "s"}
	if err := x.courier.Deliver(t.Context(), byRules([]rule.Alert{{Labels: map[string]string{"alertname": "Own"}, Annotations: notes, Starts: now, Ends: now.Add(time.Hour)}})...); err != nil {
		t.Fatal(err)
	}
	if active, list := x.router.Active(), x.fromOutside(); len(active) != 1 || active[0].Annotations["summary"] != "s" || active[0].Annotations[evidence.From] != "" || len(list) != 0 {
		t.Errorf("known %+v, from outside %+v", active, list)
	}
	if _, fields := x.next(t, 0); fields["from"] != "" {
		t.Errorf("the history says that %s told it", fields["from"])
	}
	if notes[evidence.From] == "" {
		t.Error("the rule's own annotations were changed")
	}
}

func TestEachWayToWriteASilenceIsInTheHistory(t *testing.T) {
	x := newAlertDesk(t)
	text := fmt.Sprintf(`{"createdBy":"a","comment":"c","startsAt":%q,"endsAt":%q,"matchers":[{"name":"a","value":"b","isRegex":false}]}`, time.Now().UTC().Format(time.RFC3339), time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	n := 0
	for _, way := range []string{"silences", "silences/", "silences?x=y", "./silences", "silences//"} {
		req := httptest.NewRequest("POST", "/alertmanager/api/v2/"+way, strings.NewReader(text))
		req.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		x.door.ServeHTTP(w, req.WithContext(door.WithUser(req.Context(), door.User{Name: "kim"})))
		var made struct{ SilenceID string }
		if w.Code == http.StatusOK && json.Unmarshal(w.Body.Bytes(), &made) == nil && made.SilenceID != "" {
			if _, fields := x.next(t, n); fields["state"] != "silenced" || fields["silence"] != made.SilenceID {
				t.Errorf("%s: %v", way, fields)
			}
			n++
			for _, end := range []string{"silence/" + made.SilenceID, "silence/" + made.SilenceID + "/"} {
				x.door.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("DELETE", "/alertmanager/api/v2/"+end, nil).WithContext(req.Context()))
			}
			if _, fields := x.next(t, n); fields["state"] != "silence ended" || fields["silence"] != made.SilenceID {
				t.Errorf("the end of %s: %v", way, fields)
			}
			n++
		}
		t.Logf("%s: %d", way, w.Code)
	}
}

func TestTheHistoryOfASilenceSaysWhichWhoWhyAndUntilWhen(t *testing.T) {
	x := newAlertDesk(t)
	id := func(text string) string {
		var made struct{ SilenceID string }
		if err := json.Unmarshal([]byte(text), &made); err != nil || made.SilenceID == "" {
			t.Fatalf("%v in %s", err, text)
		}
		return made.SilenceID
	}
	body := func(id, why string, last time.Duration) string {
		text, err := json.Marshal(map[string]any{"id": id, "createdBy": "script", "comment": why, "startsAt": time.Now().Add(-time.Minute), "endsAt": time.Now().Add(last),
			"matchers": []map[string]any{{"name": "alertname", "value": "Slow", "isRegex": false, "isEqual": true}, {"name": "namespace", "value": "shop", "isRegex": false, "isEqual": true}}})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	first := id(x.ask(t, "POST", "silences", body("", "new disk", time.Hour)))
	longer := id(x.ask(t, "POST", "silences", body(first, "disk is late", 2*time.Hour)))
	x.ask(t, "DELETE", "silence/"+longer, "")
	x.ask(t, "DELETE", "silence/"+longer, "") // it was over: nobody ends it
	x.ask(t, "POST", "silences", body("", "another", time.Hour))
	if text, fields := x.next(t, 3); fields["state"] != "silenced" {
		t.Errorf("after an end of what had ended: %q %v", text, fields)
	}
	for n, want := range []map[string]string{
		{"state": "silenced", "silence": first, "why": "new disk", "replaces": ""},
		{"state": "silence changed", "silence": longer, "why": "disk is late"},
		{"state": "silence ended", "silence": longer, "why": "disk is late", "replaces": ""},
	} {
		text, fields := x.next(t, n)
		want["who"], want["as"], want["alertname"] = "kim", "script", "Slow"
		for k, v := range want {
			if fields[k] != v {
				t.Errorf("record %d %q: %s = %q, want %q", n, text, k, fields[k], v)
			}
		}
		if !strings.HasPrefix(text, "shop") || fields["since"] == "" || fields["until"] == "" {
			t.Errorf("record %d %q %v", n, text, fields)
		}
	}
	if _, fields := x.next(t, 1); longer != first && fields["replaces"] != first {
		t.Errorf("a new one in the place of %s: %v", first, fields)
	}
}

func TestWhoTellsAnAlertIsKeptThroughConversions(t *testing.T) {
	in := []route.Alert{{Labels: map[string]string{"a": "b"}, Annotations: map[string]string{evidence.From: "somebody else"}, Guessed: true}}
	out := convert[route.Alert](byOthers(door.WithUser(t.Context(), door.User{Name: "kim"}), in))
	if !slices.EqualFunc(out, in, func(a, b route.Alert) bool { return a.Guessed == b.Guessed && a.Annotations[evidence.From] == "kim" }) {
		t.Errorf("%+v", out)
	}
}

func TestAWebhookOfANamespaceDoesNotReachTheServerItself(t *testing.T) {
	x := newAlertDesk(t)
	came := make(chan string, 100)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { came <- r.URL.Path }))
	defer hook.Close()
	text, problems := route.Merge("route: {receiver: ops, routes: [{receiver: ops, continue: true}]}\nreceivers: [{name: ops, webhook_configs: [{url: '"+hook.URL+"/ops'}]}]\n",
		[]route.Own{{Namespace: "shop", Name: "team", Text: "route: {receiver: hook}\nreceivers: [{name: hook, webhook_configs: [{url: '" + hook.URL + "/shop'}]}]\n"}})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if err := x.router.Apply(text); err != nil {
		t.Fatal(err)
	}
	x.ask(t, "POST", "alerts", `[{"labels":{"alertname":"Slow","namespace":"shop"}}]`)
	failed := func() (n float64) {
		all, err := x.reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			if f.GetName() == "alertmanager_notification_requests_failed_total" {
				for _, m := range f.Metric {
					n += m.GetCounter().GetValue()
				}
			}
		}
		return n
	}
	for end := time.Now().Add(time.Minute); failed() == 0; <-time.After(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the webhook of the namespace was not refused")
		}
	}
	select {
	case path := <-came:
		if path != "/ops" {
			t.Errorf("reached %s", path)
		}
	case <-time.After(time.Minute):
		t.Fatal("the cluster's own webhook was not reached")
	}
	for len(came) > 0 {
		if path := <-came; path != "/ops" {
			t.Errorf("reached %s", path)
		}
	}
}
