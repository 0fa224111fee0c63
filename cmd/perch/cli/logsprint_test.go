package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestLinesSayWhoseTheyAreAsFarAsOneMustKnow(t *testing.T) {
	at := time.Date(2026, 11, 20, 14, 0, 0, 0, time.Local)
	l := func(ns, pod, container string) line {
		return line{Time: at, Namespace: ns, Pod: pod, Container: container, Line: "x"}
	}
	for _, c := range []struct {
		what  string
		o     logsOptions
		args  []string
		lines []line
		want  string
	}{
		{"one container", logsOptions{}, []string{"web-1"}, []line{l("shop", "web-1", "a")}, "x"},
		{"two containers", logsOptions{}, []string{"pod/web-1"}, []line{l("shop", "web-1", "a"), l("shop", "web-1", "b")}, "a x|b x"},
		{"many pods", logsOptions{}, []string{"deploy/web"}, []line{l("shop", "web-7d9f4c6b8-kx2mq", "a"), l("shop", "web-7d9f4c6b8-abcde", "b")}, "14:00:00.000 kx2mq x|14:00:00.000 abcde x"},
		{"many pods of two containers", logsOptions{}, []string{"deploy/web"}, []line{l("shop", "web-7d9f4c6b8-kx2mq", "a"), l("shop", "web-7d9f4c6b8-kx2mq", "b")}, "14:00:00.000 kx2mq/a x|14:00:00.000 kx2mq/b x"},
		{"all namespaces", logsOptions{all: true}, nil, []line{l("shop", "web-0", "a"), l("bank", "", "")}, "14:00:00.000 shop/web-0 x|14:00:00.000 bank x"},
		{"of no pod", logsOptions{}, nil, []line{l("shop", "", "")}, "14:00:00.000 x"},
		{"kubectl's timestamps", logsOptions{timestamps: true}, []string{"web-1"}, []line{l("shop", "web-1", "a")}, at.UTC().Format("2006-01-02T15:04:05") + ".000000000Z x"},
		{"kubectl's prefix", logsOptions{prefix: true}, []string{"web-1"}, []line{l("shop", "web-1", "a"), l("shop", "web-1", "b")}, "[pod/web-1/a] x|[pod/web-1/b] x"},
	} {
		var b strings.Builder
		p := newPrinter(&b, c.o, c.args)
		p.look(c.lines)
		for _, l := range c.lines {
			p.print(l)
		}
		_ = p.out.Flush() // to memory
		if have := strings.ReplaceAll(strings.TrimSpace(b.String()), "\n", "|"); have != c.want {
			t.Errorf("%s: have %q, want %q", c.what, have, c.want)
		}
	}
}

func door(t *testing.T, h http.HandlerFunc) *web {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	base, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return &web{base: base, client: s.Client()}
}

func numbered(n int) string {
	return fmt.Sprintf(`{"time":"2026-11-20T14:00:00.%09dZ","id":"00000000000000ff-%d","line":"line %d"}`, n, n, n)
}

func TestFollowingRepeatsNoLineAndMissesNoneThatIsStoredLate(t *testing.T) {
	calls, next := atomic.Int64{}, 5
	ctx, cancel := context.WithCancel(t.Context())
	w := door(t, func(rw http.ResponseWriter, r *http.Request) {
		switch calls.Add(1) {
		case 1, 3: // two lines, then the door is killed
			if want := fmt.Sprintf("1795183199%09d.0000000000000000-0", next-1); r.FormValue("cursor") != want { // a second before
				t.Errorf("follows from %s, want %s", r.FormValue("cursor"), want)
			}
			fmt.Fprintf(rw, ": tail\n\ndata: %s\n\ndata: %s\n\nid: x\ndata: %s\n\nevent: dropped\ndata: {\"count\":7}\n\n", numbered(next-1), numbered(next), numbered(next+1))
			next += 2
		case 2:
			rw.WriteHeader(http.StatusServiceUnavailable)
		default:
			cancel()
		}
	})
	var out, said strings.Builder
	p := newPrinter(&out, logsOptions{}, []string{"a"})
	l, _, err := parseLine([]byte(numbered(4)))
	if err != nil {
		t.Fatal(err)
	}
	p.print(l)
	if err := follow(ctx, Streams{Err: &said}, w, url.Values{"query": {"x"}}, p); err != nil {
		t.Fatal(err)
	}
	if have := strings.ReplaceAll(out.String(), "\n", " "); have != "line 4 line 5 line 6 line 7 line 8 " {
		t.Error(have)
	}
	if !strings.Contains(said.String(), "7 lines or more are left out") || !strings.Contains(said.String(), "went away") {
		t.Error(said.String())
	}
	p.floor = &line{Time: p.newest.Add(-time.Millisecond), ID: "00000000000000ff-7"}
	ctx, cancel = context.WithCancel(t.Context())
	w = door(t, func(_ http.ResponseWriter, r *http.Request) {
		if want := fmt.Sprintf("%d.00000000000000ff-7", p.floor.Time.UnixNano()); r.FormValue("cursor") != want {
			t.Errorf("follows from %s, want %s: --tail left out what is before", r.FormValue("cursor"), want)
		}
		cancel()
	})
	if err := follow(ctx, Streams{Err: &said}, w, url.Values{"query": {"x"}}, p); err != nil {
		t.Fatal(err)
	}
	w = door(t, func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusForbidden) })
	if err := follow(t.Context(), Streams{Err: &said}, w, url.Values{}, p); err == nil {
		t.Error("a door that never let in is tried for ever")
	}
}

func TestTheEndOfAnAnswerSaysWhatIsMissingAndWhatIsOld(t *testing.T) {
	at := time.Date(2026, 11, 20, 14, 0, 0, 0, time.Local)
	for _, c := range []struct {
		name string
		t    trailer
		want string
	}{
		{"a whole answer says nothing", trailer{}, ""},
		{"a node that is away", trailer{Partial: true, Reason: "not all nodes answered", Missing: []string{"n2"}}, "note: without n2, which does not answer\n"},
		{"a node that is away, whose copy answers", trailer{Partial: true, Reason: "node n2 does not answer, its copy ends at 2026-11-20T14:00:00Z", Copies: []copied{{"n2", "n1", at, 61_200}}},
			"note: lines of node n2 come from its copy at n1, as of 2026-11-20 14:00:00, 1m1s before now\n"},
		{"a node that was removed, whose copy answers", trailer{Copies: []copied{{"n2", "n1", at, 61_200}}}, "note: lines of node n2 come from its copy at n1, as of 2026-11-20 14:00:00, 1m1s before now\n"},
		{"a copy that is shorter", trailer{Partial: true, Reason: "the copy of node n2 begins at 2026-11-19T14:00:00Z", Copies: []copied{{"n2", "n1", at, 0}}},
			"note: lines of node n2 come from its copy at n1, as of 2026-11-20 14:00:00, 0s before now\nnote: the answer is not whole (the copy of node n2 begins at 2026-11-19T14:00:00Z)\n"},
		{"too much to read, and a node is away", trailer{Partial: true, Reason: "time is up; not all nodes answered", Missing: []string{"n2"}, Hidden: []string{"bank"}},
			"note: without n2, which does not answer\nnote: the answer is not whole (time is up: narrow the time or the query)\nnote: 1 namespaces are not visible to you: bank\n"},
	} {
		var b strings.Builder
		if tellTrailer(&b, c.t); b.String() != c.want {
			t.Errorf("%s: have\n%swant\n%s", c.name, b.String(), c.want)
		}
	}
}

func TestTheUsersQueryIsAskedApart(t *testing.T) {
	for _, c := range []struct {
		name string
		o    logsOptions
		args []string
		want string
	}{
		{"a query of one's own stays apart", logsOptions{query: `a) or (b`}, []string{"web-1"}, `namespace:shop (pod:web-1) -kind:event -kind:audit -kind:alert`},
		{"whoever asks for a kind gets it", logsOptions{query: `kind:audit`, all: true}, nil, ``},
		{"an expression is written as the language reads it", logsOptions{grep: "\\d+ \"ms\"\u200b", all: true}, nil, `-kind:event -kind:audit -kind:alert line:~"\\d+ \"ms\"` + "\u200b" + `"`},
		{"pods of a deployment", logsOptions{events: true}, []string{"deploy/a.b"}, `namespace:shop (pod:~"^a\\.b-[a-z0-9]{1,10}-[a-z0-9]{5}$") -kind:audit -kind:alert`},
	} {
		have, err := logQuery(t.Context(), nil, "shop", c.args, c.o)
		if err != nil || have != c.want {
			t.Errorf("%s: have %s, %v, want %s", c.name, have, err, c.want)
		}
	}
}
