package cni

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func testConfig(t testing.TB, pool string) Config {
	prefix := netip.MustParsePrefix(pool)
	return Config{
		Network: "perch-test", Cluster: "test", PodCIDR: prefix, Gateway: Gateway(prefix),
		StateDir: t.TempDir(), MTU: 1400,
	}
}

func open(t testing.TB, c Config) *addresses {
	t.Helper()
	a, err := openAddresses(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.close)
	return a
}

func TestNextFree(t *testing.T) {
	used := func(list ...string) map[netip.Addr]bool {
		out := map[netip.Addr]bool{}
		for _, s := range list {
			out[netip.MustParseAddr(s)] = true
		}
		return out
	}
	for _, c := range []struct {
		name, pool, last string
		used             map[netip.Addr]bool
		want             string
	}{
		{"the first address follows the gateway", "10.42.0.0/24", "", nil, "10.42.0.2"},
		{"the next address follows the last", "10.42.0.0/24", "10.42.0.9", nil, "10.42.0.10"},
		{"addresses in use are skipped", "10.42.0.0/24", "10.42.0.9", used("10.42.0.10", "10.42.0.11"), "10.42.0.12"},
		{"the broadcast address is never given", "10.42.0.0/24", "10.42.0.254", nil, "10.42.0.2"},
		{"a last address of another pool is forgotten", "10.42.0.0/24", "10.9.0.7", nil, "10.42.0.2"},
		{"the only free address may be the last itself", "10.42.0.0/29", "10.42.0.3", used("10.42.0.2", "10.42.0.4", "10.42.0.5", "10.42.0.6"), "10.42.0.3"},
		{"a full pool gives none", "10.42.0.0/29", "", used("10.42.0.2", "10.42.0.3", "10.42.0.4", "10.42.0.5", "10.42.0.6"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			last, _ := netip.ParseAddr(c.last)
			got, ok := nextFree(netip.MustParsePrefix(c.pool), last, c.used)
			if ok != (c.want != "") || ok && got.String() != c.want {
				t.Errorf("nextFree = %v, %v; want %q", got, ok, c.want)
			}
		})
	}
}

// Random takes and frees keep three promises: no address has two owners, an
// owner keeps its address, and a pool is full only when every address is taken.
func TestStoreKeepsItsPromisesUnderRandomUse(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	c := testConfig(t, "10.42.7.0/27")
	const size = 32 - 3
	model := map[string]netip.Addr{}
	for step := range 2000 {
		a := open(t, c) // each call is a process of its own
		owner := fmt.Sprintf("pc%02d", rnd.IntN(40))
		if rnd.IntN(3) == 0 {
			if _, err := a.free(func(h held) bool { return h.owner == owner }); err != nil {
				t.Fatal(err)
			}
			delete(model, owner)
			a.close()
			continue
		}
		got, err := a.take(owner)
		a.close()
		had, known := model[owner]
		switch {
		case errors.Is(err, errFull):
			if len(model) != size || known {
				t.Fatalf("step %d: full with %d of %d taken, owner known %v", step, len(model), size, known)
			}
			continue
		case err != nil:
			t.Fatal(err)
		case known && got != had:
			t.Fatalf("step %d: %s had %s and got %s", step, owner, had, got)
		}
		for other, addr := range model {
			if other != owner && addr == got {
				t.Fatalf("step %d: %s given to %s and %s", step, got, other, owner)
			}
		}
		if !c.PodCIDR.Contains(got) || got == c.Gateway {
			t.Fatalf("step %d: %s is not a pod address", step, got)
		}
		model[owner] = got
	}
}

func TestStoreSurvivesStrangeFiles(t *testing.T) {
	c := testConfig(t, "10.42.0.0/24")
	a := open(t, c)
	for _, name := range []string{"last", "x@y", "10.42.0.2", "@", "999.1.1.1@pc", ".tmp"} {
		if err := os.WriteFile(filepath.Join(a.dir, name), []byte("garbage"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := a.take("pc1")
	if err != nil || got.String() != "10.42.0.2" {
		t.Errorf("take = %v, %v", got, err)
	}
}

func TestCollectKeepsTheValidAndTheYoung(t *testing.T) {
	c := testConfig(t, "10.42.0.0/24")
	alive, dead, young := Attachment{"alive", "eth0"}, Attachment{"dead", "eth0"}, Attachment{"young", "eth0"}
	a := open(t, c)
	for _, at := range []Attachment{alive, dead, young} {
		addr, err := a.take(LinkName(c.Network, at))
		if err != nil {
			t.Fatal(err)
		}
		if at != young { // taken long ago
			old := time.Now().Add(-time.Hour)
			if err := os.Chtimes(filepath.Join(a.dir, addr.String()+"@"+LinkName(c.Network, at)), old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	a.close()
	n, err := Collect(c, []Attachment{alive}, time.Now().Add(-time.Minute))
	if err != nil || n != 1 {
		t.Fatalf("Collect = %d, %v; want 1 freed", n, err)
	}
	all, err := open(t, c).list()
	if err != nil {
		t.Fatal(err)
	}
	var owners []string
	for _, h := range all {
		owners = append(owners, h.owner)
	}
	want := []string{LinkName(c.Network, alive), LinkName(c.Network, young)}
	slices.Sort(owners)
	slices.Sort(want)
	if !slices.Equal(owners, want) {
		t.Errorf("left %v, want %v", owners, want)
	}
}

func TestConflistIsReadBack(t *testing.T) {
	c := testConfig(t, "10.42.3.0/24")
	text, err := Conflist(c)
	if err != nil {
		t.Fatal(err)
	}
	single := plugin(t, text)
	got, w, err := parse(single)
	c.Type = DefaultType
	if err != nil || got != c || w.CNIVersion != "1.0.0" {
		t.Errorf("parse = %+v, %v, %v; want %+v", got, w.CNIVersion, err, c)
	}
}

func FuzzParse(f *testing.F) {
	c := testConfig(f, "10.42.3.0/24")
	text, err := Conflist(c)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plugin(f, text))
	f.Add([]byte(`{"name":"../x","podCIDR":"::/0","gateway":"1","mtu":-1}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		c, _, err := parse(in)
		if err != nil {
			return
		}
		if err := c.Validate(); err != nil {
			t.Errorf("parse accepted what Validate refuses: %v", err)
		}
		if _, ok := nextFree(c.PodCIDR, c.Gateway, nil); !ok {
			t.Errorf("pool %s has no address", c.PodCIDR)
		}
	})
}
