package query

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"perch/logs/block"
)

// FuzzMachine checks machines against package regexp, in one run and in two.
func FuzzMachine(f *testing.F) {
	for _, s := range [][2]string{
		{`a+b`, "xaab"}, {`^a$`, "a"}, {`(?m)^a$`, "b\na\nb"}, {`\bfoo\b`, "a foo."}, {`\B.\B`, "abc"}, {`(?i)straße|k`, "STRAßE \u212a"},
		{`[^a-z]`, "\xff"}, {`\x{FFFD}`, "\xe2\x82"}, {`é+[α-ω]`, "xééω"}, {`(?s)a.c`, "a\nc"}, {`a{2,5}?b|(cd)*e`, "aab"}, {`\Aab\z|\Bx`, "ab"},
		{`$^`, ""}, {`(?:^|\W)x`, "\xe4\xb8x"}, {`(a|b)*abb`, "babaabb"}, {`\pL+\d`, "日本語1"},
	} {
		f.Add(s[0], []byte(s[1]), 1)
	}
	f.Fuzz(func(t *testing.T, expr string, text []byte, cut int) {
		re, err := regexp.Compile(expr)
		if err != nil || len(expr) > 300 || len(text) > 4000 {
			return
		}
		prog, err := compile(expr)
		if err != nil {
			t.Fatal(err)
		}
		if len(prog.Inst) > maxProgram {
			return
		}
		m := newMachine(prog)
		have, ok := m.match(text)
		if want := re.Match(text); ok && have != want {
			t.Fatalf("~%q in %q: have %v, want %v", expr, text, have, want)
		}
		if !ok && len(m.states) < maxStates && m.work < maxWork {
			t.Fatal("stuck without need")
		}
		k := min(max(cut, 0), len(text))
		if s := m.run(m.run(m.begin, text[:k]), text[k:]); ok && m.end(s) != have {
			t.Fatalf("~%q in %q and %q: have %v", expr, text[:k], text[k:], !have)
		}
	})
}

func randomExpression(rnd *rand.Rand, depth int) string {
	if depth > 0 && rnd.IntN(3) > 0 {
		a, b := randomExpression(rnd, depth-1), randomExpression(rnd, depth-1)
		return []string{a + b, a + b, "(" + a + "|" + b + ")", "(?:" + a + ")*" + b, "(?:" + a + ")?" + b, "(?:" + a + "){2}" + b, "(?i:" + a + ")" + b}[rnd.IntN(7)]
	}
	atoms := strings.Fields(`a b ab failed req 1 5 \d \d+ [0-9a-f]{2,} \w+ \W . .* .+ \s [^x] ^ $ (?m:^) (?m:$) \b \B é [α-ωé] \x{FFFD} = " - / \. status GET \pL \x80`)
	return atoms[rnd.IntN(len(atoms))]
}

func TestMachinesMatchAsPackageRegexpDoes(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	yes := 0
	for range 4000 {
		expr := randomExpression(rnd, 3)
		re := regexp.MustCompile(expr)
		prog, err := compile(expr)
		if err != nil {
			t.Fatal(err)
		}
		m := newMachine(prog)
		for range 20 {
			text := randomText(rnd)
			have, ok := m.match(text)
			if want := re.Match(text); !ok || have != want {
				t.Fatalf("~%q in %q: have %v (%v), want %v", expr, text, have, ok, want)
			} else if want {
				yes++
			}
		}
	}
	if yes < 1000 {
		t.Errorf("only %d matches", yes)
	}
}

func randomText(rnd *rand.Rand) []byte {
	var b []byte
	parts := strings.Split(`a|b|A|failed|Failed|req|1|5|99|ff| | |=|-|/|"|.|_|é|ω|�|`+"\xff|\xe2\x82|\xc3|\x80|\n|\x11|status|GET|日本", "|")
	for range rnd.IntN(12) {
		b = append(b, parts[rnd.IntN(len(parts))]...)
	}
	return b
}

func TestMachinesFindTextsAsWordsDo(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	found := 0
	for range 60_000 {
		needle, hay := randomText(rnd), randomText(rnd)
		if rnd.IntN(2) == 0 && len(hay) > 0 {
			k := rnd.IntN(len(hay))
			needle = bytes.Clone(hay[k : k+rnd.IntN(len(hay)-k)+1])
		}
		n := textNode(string(needle), rnd.IntN(2) == 0, rnd.IntN(2) == 0)
		prog := textProgram(n.text, n.exact, n.prefix)
		if n.text == "" || prog == nil {
			continue
		}
		var c candidate
		c.reset(nil, 0, hay, nil, nil)
		want := n.match(&c)
		if want {
			found++
		}
		if have, ok := newMachine(prog).match(hay); !ok || have != want {
			t.Fatalf("%q (exact %v, prefix %v) in %q: have %v (%v), want %v", n.text, n.exact, n.prefix, hay, have, ok, want)
		}
	}
	if found < 1000 {
		t.Errorf("only %d found", found)
	}
}

func TestLargeMachinesGiveUp(t *testing.T) {
	prog, err := compile(`(a|b)*a(a|b){14}c`)
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(prog)
	rnd := rand.New(rand.NewPCG(1, 1))
	text := make([]byte, 20000)
	for i := range text {
		text[i] = "ab"[rnd.IntN(2)]
	}
	if _, ok := m.match(text); ok {
		t.Error("a machine of 2^15 states was made")
	}
	if len(m.states) > maxStates {
		t.Errorf("%d states", len(m.states))
	}
}

func TestStatesAfterAWordAreAllThatCanBe(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 5))
	for range 2000 {
		prog, err := compile(randomExpression(rnd, 3))
		if err != nil {
			t.Fatal(err)
		}
		m := newMachine(prog)
		word := fmt.Appendf(nil, "%x", rnd.IntN(1<<20))
		class := block.Class(0)
		for _, b := range word {
			class |= block.ClassOf(b)
		}
		states := m.word(m.begin, class)
		if to := m.run(m.begin, word); states != nil && !slices.Contains(states, to) {
			t.Fatalf("%s leads to %d, which is not in %v", word, to, states)
		}
	}
}
