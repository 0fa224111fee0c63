package pki

import (
	"strings"
	"testing"
)

var pin = strings.Repeat("0a", 32)

func TestParseJoin(t *testing.T) {
	for _, c := range []struct{ name, text, problem string }{
		{"a whole token is read", "perch1." + pin + ".abc123.0123456789abcdef", ""},
		{"white space around it does no harm", " perch1." + pin + ".abc123.0123456789abcdef\n", ""},
		{"nothing is refused", "", "empty"},
		{"an admin bearer token is named as such", "eyJhbGciOi.eyJpc3Mi.c2ln", "admin bearer token"},
		{"a bootstrap credential alone lacks the pin", "abc123.0123456789abcdef", "begins with"},
		{"a newer version is named", "perch2." + pin + ".abc123.0123456789abcdef", "version"},
		{"a token cut short is refused", "perch1." + pin + ".abc123", "parts"},
		{"a short pin is refused", "perch1.00.abc123.0123456789abcdef", "hexadecimal"},
		{"capital letters in the secret are refused", "perch1." + pin + ".abc123.0123456789ABCDEF", "six and sixteen"},
	} {
		t.Run(c.name, func(t *testing.T) {
			j, err := ParseJoin(c.text)
			switch {
			case c.problem == "" && err != nil:
				t.Fatal(err)
			case c.problem == "" && j.String() != strings.TrimSpace(c.text):
				t.Fatalf("read as %s", j)
			case c.problem != "" && (err == nil || !strings.Contains(err.Error(), c.problem)):
				t.Fatalf("got %v, want a problem with %q", err, c.problem)
			}
		})
	}
}

func TestCheckBearer(t *testing.T) {
	for text, problem := range map[string]string{
		"eyJhbGciOi.eyJpc3Mi.c2ln": "",
		"":                         "empty",
		"perch1." + pin + ".abc123.0123456789abcdef": "join token",
		"abc123.0123456789abcdef":                    "join token",
		"any.other.text":                             "",
	} {
		err := CheckBearer(text)
		if (err == nil) != (problem == "") || err != nil && !strings.Contains(err.Error(), problem) {
			t.Errorf("%q: got %v, want %q", text, err, problem)
		}
	}
}

func TestNewJoinIsReadBack(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		j, err := NewJoin(pin)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseJoin(j.String())
		if err != nil || back != j {
			t.Fatalf("%s is read as %s, %v", j, back, err)
		}
		if seen[j.Secret] {
			t.Fatal("a secret was drawn twice")
		}
		seen[j.Secret] = true
	}
}

func FuzzParseJoin(f *testing.F) {
	f.Add("perch1." + pin + ".abc123.0123456789abcdef")
	f.Add("eyJhbGciOi.eyJpc3Mi.c2ln")
	f.Add("perch1...")
	f.Fuzz(func(t *testing.T, text string) {
		j, err := ParseJoin(text)
		if err != nil {
			return
		}
		back, err := ParseJoin(j.String())
		if err != nil || back != j {
			t.Fatalf("%q is read as %q, which is read as %q, %v", text, j, back, err)
		}
		if CheckBearer(text) == nil {
			t.Fatalf("%q is good as both kinds of token", text)
		}
		if id, secret, ok := strings.Cut(j.Bearer(), "."); !ok || !ValidBootstrap(id, secret) {
			t.Fatalf("%q carries a credential of the wrong form", text)
		}
	})
}
