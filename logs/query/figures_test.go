package query

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"perch/logs/block"
)

// fieldLine is a line of one of the forms that fields are found in.
func fieldLine(rnd *rand.Rand, n int) []byte {
	status := 200 + rnd.IntN(4)*100
	switch rnd.IntN(9) {
	case 0:
		return fmt.Appendf(nil, `10.0.%d.7 - %s [20/Nov/2026:10:00:%02d +0000] "%s /api/v%d HTTP/1.1" %d %d "-" "curl/8.5" took=%d`,
			rnd.IntN(300), []string{"-", "bob", "u7"}[rnd.IntN(3)], n%60, []string{"GET", "POST"}[rnd.IntN(2)], rnd.IntN(3), status, rnd.IntN(900), rnd.IntN(40))
	case 1: // sometimes no access log
		return fmt.Appendf(nil, `h%d - - [%s] "GET /x" %s %d {"took":%d}`, rnd.IntN(3), []string{"20/Nov/2026:10:00", "9"}[rnd.IntN(20)/19],
			[]string{"200", "404", "2x4"}[rnd.IntN(40)/19], rnd.IntN(900), rnd.IntN(40))
	case 2:
		return fmt.Appendf(nil, `{"level":"info","status":%d,"took":%d.5,"path":"/api/v%d/x","n":{"id":"r%d"},"é":"a\u00e9%d"}`, status, rnd.IntN(20), rnd.IntN(3), n, n%5)
	case 3:
		return fmt.Appendf(nil, `I1120 10:11:12.123456 %d ab.go:%d] "text" status="%d" took=%dms`, 1+rnd.IntN(9), rnd.IntN(50), status, rnd.IntN(9))
	case 4:
		return fmt.Appendf(nil, "p%d=\"x took=5\" path=/x status=%d", rnd.IntN(3), status)
	case 5:
		return fmt.Appendf(nil, "took=%d, status=%d; x%d=4 path=(v%d)\nmore=%d", rnd.IntN(30), status, rnd.IntN(3), rnd.IntN(4), n%4)
	}
	return placedLine(rnd, n)
}

// placedLine is one whose fields are in columns of its block.
func placedLine(rnd *rand.Rand, n int) []byte {
	status := 200 + rnd.IntN(4)*100
	return fmt.Appendf(nil, "served r%d took=%d status=%d path=/api/v%d method=%s", n, rnd.IntN(200), status, rnd.IntN(4), []string{"GET", "POST"}[rnd.IntN(2)])
}

// What statistics and bars say of fields is what a scan of the lines says, also
// when the same workers answer one question after the other.
func TestFiguresOfFieldsAreThoseOfAScan(t *testing.T) {
	for name, line := range map[string]func(*rand.Rand, int) []byte{"many forms": fieldLine, "one form": placedLine} {
		t.Run(name, func(t *testing.T) { newTrial(t, 12<<10, line).allFigures(t) })
	}
}

// allFigures asks in the states that lines go through.
func (c *trial) allFigures(t *testing.T) {
	names := []string{"status", "took", "path", "method", "user", "bytes", "n.id", "é", "more", "x2", "p1", "caller", "severity", "tag", "level", "pod", "absent"}
	for _, step := range []func() error{
		func() error { return nil },
		func() error { return c.s.Flush(t.Context()) },
		func() error { err := c.s.Close(); c.open(t); return err },
		func() error { return errors.Join(c.s.Flush(t.Context()), c.s.Seal(t.Context())) },
	} {
		c.add(t, 500)
		if err := step(); err != nil {
			t.Fatal(err)
		}
		e := New(c.s, quiet())
		for range 40 {
			pick := func() string { return names[c.rnd.IntN(len(names))] }
			c.figures(t, e, pick(), pick(), []string{"", "status:>=400", "not method:GET", "took:*", "path:~^/api"}[c.rnd.IntN(5)])
		}
	}
}

// figures asks for those of a field by another one.
func (c *trial) figures(t *testing.T, e *Engine, field, by, text string) {
	t.Helper()
	q, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	want, bars := map[string]*Stat{}, map[string]int64{}
	for i, r := range c.lines {
		var l candidate
		l.reset(r.Stream, c.levels[i], r.Body, nil, block.AppendFields(nil, r.Fields))
		if !q.root.match(&l) {
			continue
		}
		group, ok := l.value(by)
		if !ok {
			group = NoValue
		}
		if want[group] == nil {
			want[group] = &Stat{Group: group}
		}
		bars[group]++
		want[group].add(l.value(field))
	}
	r := Request{Query: q, To: int64(len(c.lines)) * 1e9, Field: field, By: by, Raw: true, Limit: 1000, Timeout: time.Minute}
	have, err := e.Stats(t.Context(), r)
	if err != nil || have.Partial || len(have.Groups) != len(want) {
		t.Fatalf("%s by %s of %s: %d groups, want %d (%v, %s)", field, by, text, len(have.Groups), len(want), err, have.Reason)
	}
	for _, x := range have.Groups {
		if w := want[x.Group]; w == nil || x.Count != w.Count || x.With != w.With || x.Numbers != w.Numbers || x.Min != w.Min || x.Max != w.Max ||
			!maps.Equal(x.Marks, w.Marks) || len(x.Hashes) != len(w.Hashes) {
			t.Fatalf("%s by %s of %s: have %+v, want %+v", field, by, text, x, w)
		}
	}
	if r.Field, r.By, r.Buckets = by, "", 7; by == "level" {
		return
	}
	h, err := e.Histogram(t.Context(), r)
	if err != nil || h.Partial || !maps.Equal(h.Values, bars) {
		t.Fatalf("bars by %s of %s: have %v, want %v (%v, %s)", by, text, h.Values, bars, err, cmp.Or(h.Reason, "whole"))
	}
}
