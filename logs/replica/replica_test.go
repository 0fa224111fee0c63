package replica

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"perch/logs/cluster"
	"perch/logs/query"
	"perch/logs/record"
	"perch/logs/store"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func small(dir string) store.Config {
	c := store.Default(dir)
	c.BlockBytes, c.HeadBytes, c.LearnBlocks = 4<<10, 32<<10, 4
	c.PartitionBytes = 24 << 10
	c.CheckpointEvery = 20 * time.Millisecond
	return c
}

func openStore(t testing.TB, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(small(dir), quiet(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// line makes line n of one of three streams.
func line(n int) record.Record {
	st := &record.Stream{Namespace: "shop", Pod: fmt.Sprintf("web-%d", n%3), Container: "app", Instance: "0", Node: "owner", Output: record.Stdout, Kind: record.KindLog}
	return record.Record{Time: int64(1e18) + int64(n)*1e6, Stream: st, Body: fmt.Appendf(nil, "line %d served req%d from cache", n, n*7919%100003)}
}

func write(t testing.TB, s *store.Store, first, n int) {
	t.Helper()
	for i := first; i < first+n; i += 20 {
		var b []record.Record
		for k := i; k < min(i+20, first+n); k++ {
			b = append(b, line(k))
		}
		if err := s.Append(t.Context(), b, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// follower is a node that keeps copies, behind a door that can fail.
type follower struct {
	k      *Keeper
	cfg    KeepConfig
	door   *httptest.Server
	broken atomic.Int64 // requests are cut off after so many bytes, if not 0
}

func openKeeper(t testing.TB, cfg KeepConfig) *Keeper {
	t.Helper()
	k, err := NewKeeper(cfg, quiet(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func openFollower(t testing.TB) *follower {
	t.Helper()
	cfg := DefaultKeep(filepath.Join(t.TempDir(), "copies"), filepath.Join(t.TempDir(), "scratch"))
	cfg.FreeBytes = 0
	f := &follower{cfg: cfg, k: openKeeper(t, cfg)}
	f.door = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := f.broken.Load(); n > 0 && r.Method == http.MethodPost {
			r.Body = http.MaxBytesReader(w, r.Body, n)
		}
		if strings.HasPrefix(r.URL.Path, Prefix) {
			f.k.Ships().ServeHTTP(w, r)
		} else {
			f.k.Reads().ServeHTTP(w, r)
		}
	}))
	t.Cleanup(f.door.Close)
	t.Cleanup(func() { f.k.closeAll() })
	return f
}

// restart opens what is on the follower's disk as a new process would.
func (f *follower) restart(t testing.TB) {
	f.k.closeAll()
	f.k = openKeeper(t, f.cfg)
}

func (f *follower) member(name string) Member { return Member{Node: name, URL: f.door.URL} }

func newShipper(t testing.TB, dir string, s *store.Store, members func() []Member) *Shipper {
	t.Helper()
	cfg := DefaultShip("owner", dir)
	cfg.Idle = 0
	sh, err := NewShipper(cfg, s.Files, members, http.DefaultClient, quiet(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return sh
}

// steps ships until nothing is left; waits between failures are left out.
func steps(t testing.TB, s *Shipper, n int) {
	t.Helper()
	for range n {
		for _, l := range s.links {
			l.again = time.Time{}
		}
		s.step(t.Context(), time.Now(), time.Now())
		if st := s.Status(); st.Follower != "" && st.Next == "" && st.Error == "" && st.Pending == 0 && st.Whole {
			return
		}
	}
	t.Fatalf("after %d steps: %+v", n, s.Status())
}

// lines reads all lines of the copy over the follower's door.
func (f *follower) lines(t testing.TB) map[string]string {
	t.Helper()
	all := f.k.Copies()
	if len(all) != 1 {
		t.Fatalf("the follower has %d copies, want 1: %+v", len(all), all)
	}
	return read(t, cluster.NewRemote(cluster.Peer{Node: "owner", URL: f.door.URL + ReadPrefix + all[0].Owner + "/" + all[0].ID, Client: http.DefaultClient}))
}

// read maps ids to lines.
func read(t testing.TB, s query.Searcher) map[string]string {
	t.Helper()
	out := map[string]string{}
	var cursor *query.Cursor
	for {
		r := query.Request{Text: "*", From: 0, To: 1 << 62, Limit: query.MaxLimit, Order: query.OldestFirst, Cursor: cursor}
		r, err := r.Normal()
		if err != nil {
			t.Fatal(err)
		}
		sum, err := s.Query(t.Context(), r, func(l *query.Line) error {
			if was, twice := out[l.ID()]; twice {
				t.Fatalf("line %s is there twice: %q, %q", l.ID(), was, l.Body)
			}
			out[l.ID()] = string(l.Body)
			c := l.Cursor
			cursor = &c
			return nil
		})
		if err != nil || sum.Partial {
			t.Fatalf("query: %v, %+v", err, sum)
		}
		if sum.Cursor == "" {
			return out
		}
	}
}

func same(t testing.TB, want, have map[string]string) {
	t.Helper()
	for id, text := range want {
		if have[id] != text {
			t.Fatalf("line %s is %q in the store, %q in the copy (%d and %d lines)", id, text, have[id], len(want), len(have))
		}
	}
	if len(have) != len(want) {
		t.Fatalf("%d lines in the store, %d in the copy", len(want), len(have))
	}
}

// What was acknowledged to the owner before a shipment can be read from the
// copy, whatever the store did, wherever shipments broke off, and whoever was
// started again.
func TestTheCopyHasEveryLineThroughWhateverHappens(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 7))
			dir := t.TempDir()
			s := openStore(t, dir)
			f := openFollower(t)
			members := func() []Member { return []Member{f.member("follower")} }
			sh := newShipper(t, dir, s, members)
			n := 0
			for range 40 {
				k := 1 + rnd.IntN(150)
				write(t, s, n, k)
				n += k
				switch rnd.IntN(8) {
				case 0:
					if err := s.Flush(t.Context()); err != nil {
						t.Fatal(err)
					}
				case 1:
					if err := s.Seal(t.Context()); err != nil {
						t.Fatal(err)
					}
				case 2: // the owner restarts
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					s = openStore(t, dir)
					sh = newShipper(t, dir, s, members)
				case 3:
					f.restart(t)
				case 4: // a shipment that breaks off somewhere
					f.broken.Store(1 + rnd.Int64N(20_000))
					for _, l := range sh.links {
						l.again = time.Time{}
					}
					sh.step(t.Context(), time.Now(), time.Now())
					f.broken.Store(0)
				case 5, 6:
					steps(t, sh, 6)
					same(t, read(t, query.New(s, quiet())), f.lines(t))
				}
			}
			steps(t, sh, 6)
			same(t, read(t, query.New(s, quiet())), f.lines(t))
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestSmallPortionsComeNewestFirstAndEndWhole(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	defer s.Close()
	for i := range 8 {
		write(t, s, i*400, 400)
		if err := s.Seal(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	write(t, s, 3200, 50)
	f := openFollower(t)
	sh := newShipper(t, dir, s, func() []Member { return []Member{f.member("follower")} })
	sh.step(t.Context(), time.Now(), time.Now())
	files, err := s.Files()
	if err != nil {
		t.Fatal(err)
	}
	l := sh.links["follower"]
	// As if everything older had not been there yet.
	p := decideShipment(files, known{}, 150<<10)
	if !p.commit || p.whole || len(p.older) == 0 || p.from != files.Parts[len(files.Parts)-2].Name {
		t.Errorf("the first portion has a commit %v, all %v, %d older files, from %q", p.commit, p.whole, len(p.older), p.from)
	}
	if l.at.IsZero() {
		t.Error("nothing was committed")
	}
	for rounds, k := 0, (known{have: map[fileKey]int64{}}); ; rounds++ {
		p := decideShipment(files, k, 24<<10)
		if p.whole {
			if p.from != "" || len(p.files) == 0 || rounds < 3 {
				t.Errorf("whole after %d rounds, from %q", rounds, p.from)
			}
			break
		}
		if rounds > 100 {
			t.Fatal("never whole")
		}
		for _, sends := range [][]send{p.log, p.parts, p.older} {
			for _, x := range sends {
				if k.have[keyFor(x.file)] != x.from {
					t.Fatalf("%s goes on at %d, is at %d", x.file.Path, x.from, k.have[keyFor(x.file)])
				}
				k.have[keyFor(x.file)] = x.file.Size
			}
		}
		if p.commit {
			for _, x := range p.files {
				if k.have[keyFor(x)] < x.Size {
					t.Fatalf("round %d commits %s with %d of %d bytes", rounds, x.Path, k.have[keyFor(x)], x.Size)
				}
			}
			k.committed, k.seen, k.from = true, p.files, p.from
		}
	}
}

func TestTheCopyOfAStoreWithoutLinesIsWhole(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	defer s.Close()
	f := openFollower(t)
	sh := newShipper(t, dir, s, func() []Member { return []Member{f.member("follower")} })
	steps(t, sh, 2)
	if n := len(f.lines(t)); n != 0 {
		t.Errorf("it has %d lines", n)
	}
	write(t, s, 0, 100)
	steps(t, sh, 2)
	same(t, read(t, query.New(s, quiet())), f.lines(t))
}

func TestAChangedFileIsSentAnew(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	defer s.Close()
	write(t, s, 0, 2000)
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	f := openFollower(t)
	members := func() []Member { return []Member{f.member("follower")} }
	steps(t, newShipper(t, dir, s, members), 6)
	blocks, err := filepath.Glob(filepath.Join(f.cfg.Dir, "owner", "*", "parts", "*", "blocks.dat"))
	if err != nil || len(blocks) == 0 {
		t.Fatalf("%v %v", blocks, err)
	}
	b, err := os.ReadFile(blocks[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-3] ^= 1
	if err := os.WriteFile(blocks[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	steps(t, newShipper(t, dir, s, members), 6)
	same(t, read(t, query.New(s, quiet())), f.lines(t))
}

func TestAFullFollowerDropsTheOldestAndIsNotAskedAgain(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	defer s.Close()
	f := openFollower(t)
	sh := newShipper(t, dir, s, func() []Member { return []Member{f.member("follower")} })
	for i := range 10 {
		write(t, s, i*400, 400)
		if err := s.Seal(t.Context()); err != nil {
			t.Fatal(err)
		}
		steps(t, sh, 6)
	}
	f.cfg.MaxBytes = f.k.Copies()[0].Bytes // no more than this
	f.restart(t)
	for i := range 3 {
		write(t, s, 4000+i*400, 400)
		if err := s.Seal(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, l := range sh.links {
			l.again = time.Time{}
		}
		steps(t, sh, 8)
	}
	c := f.k.Copies()[0]
	if c.Bytes > f.cfg.MaxBytes || c.From.IsZero() {
		t.Errorf("the copy has %d of %d bytes, from %s", c.Bytes, f.cfg.MaxBytes, c.From)
	}
	whole, have := read(t, query.New(s, quiet())), f.lines(t)
	for id, text := range have {
		if whole[id] != text {
			t.Fatalf("line %s is %q in the copy, %q in the store", id, text, whole[id])
		}
	}
	if len(have) >= len(whole) || len(have) < 1000 {
		t.Errorf("%d lines of %d are in the copy", len(have), len(whole))
	}
	before := sh.Status()
	steps(t, sh, 2)
	if now := sh.Status(); now.Pending != 0 || !now.At.After(before.At) {
		t.Errorf("then %+v", now)
	}
}

func TestADiskWithoutRoomRefusesAndTheOwnerGoesOnLater(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	defer s.Close()
	write(t, s, 0, 500)
	f := openFollower(t)
	f.k.free = func(string) (int64, error) { return 0, nil }
	sh := newShipper(t, dir, s, func() []Member { return []Member{f.member("follower")} })
	sh.step(t.Context(), time.Now(), time.Now())
	if st := sh.Status(); st.Pending == 0 || !strings.Contains(st.Error, "507") || st.Follower != "" {
		t.Errorf("while the disk is full: %+v", st)
	}
	if len(f.k.Copies()) != 0 {
		t.Error("a copy without anything can be read")
	}
	f.k.free = func(string) (int64, error) { return 1 << 40, nil }
	steps(t, sh, 4)
	same(t, read(t, query.New(s, quiet())), f.lines(t))
}

func TestARefusalIsToldOnceByBothTogether(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	defer s.Close()
	write(t, s, 0, 100)
	f := openFollower(t)
	f.k.free = func(string) (int64, error) { return 0, nil }
	sh := newShipper(t, dir, s, func() []Member { return []Member{f.member("follower")} })
	var told strings.Builder
	sh.log, f.k.log = slog.New(slog.NewTextHandler(&told, nil)), slog.New(slog.NewTextHandler(&told, nil))
	for range 5 {
		for _, l := range sh.links {
			l.again = time.Time{}
		}
		sh.step(t.Context(), time.Now(), time.Now())
	}
	f.door.Close() // no request is under way
	var warnings []string
	for text := range strings.Lines(told.String()) {
		if !strings.Contains(text, "level=INFO") {
			warnings = append(warnings, text)
		}
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], ErrFull.Error()) {
		t.Errorf("told: %q", warnings)
	}
	if n := testutil.ToFloat64(f.k.m.refused.WithLabelValues("full")); n != 5 {
		t.Errorf("%v refusals are counted", n)
	}
}

func TestTheCopyGoesElsewhereWhenAFollowerRefusesForLong(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	defer s.Close()
	write(t, s, 0, 500)
	a, b := openFollower(t), openFollower(t)
	sh := newShipper(t, dir, s, func() []Member { return []Member{a.member("a"), b.member("b")} })
	now := time.Now()
	pass := func(d time.Duration) Status {
		now = now.Add(d)
		for _, l := range sh.links {
			l.again = time.Time{}
		}
		sh.step(t.Context(), now, now)
		return sh.Status()
	}
	room := a.k.free
	a.k.free = func(string) (int64, error) { return 0, nil }
	for range 5 {
		if st := pass(10 * time.Second); st.Next != "a" || !strings.Contains(st.Error, "507") {
			t.Fatalf("before it is known that it refuses: %+v", st)
		}
	}
	for i := 0; sh.Status().Follower != "b"; i++ {
		if st := pass(10 * time.Second); i > 10 {
			t.Fatalf("a refuses: %+v", st)
		}
	}
	same(t, read(t, query.New(s, quiet())), b.lines(t))
	if len(sh.sore) > 2 {
		t.Errorf("%d nodes are remembered", len(sh.sore))
	}
	a.k.free = room
	for i := 0; sh.Status().Follower != "a"; i++ {
		if st := pass(time.Minute); i > 20 {
			t.Fatalf("a has room again, and is the first of the ring: %+v", st)
		}
	}
	same(t, read(t, query.New(s, quiet())), a.lines(t))
}

func TestTheCopyMovesWithTheRingAndTheOldOneIsDropped(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	defer s.Close()
	write(t, s, 0, 700)
	a, b := openFollower(t), openFollower(t)
	members := []Member{a.member("a"), b.member("b")}
	sh := newShipper(t, dir, s, func() []Member { return members })
	steps(t, sh, 6)
	if len(a.k.Copies()) != 1 || len(b.k.Copies()) != 0 {
		t.Fatalf("a has %v, b has %v", a.k.Copies(), b.k.Copies())
	}
	members = []Member{b.member("b"), a.member("a")} // the ring names another: not at once
	sh.step(t.Context(), time.Now(), time.Now())
	if st := sh.Status(); st.Follower != "a" || st.Next != "" {
		t.Errorf("at once: %+v", st)
	}
	sh.since = time.Now().Add(-time.Hour)
	steps(t, sh, 6)
	if len(a.k.Copies()) != 0 || len(b.k.Copies()) != 1 {
		t.Errorf("a has %v, b has %v", a.k.Copies(), b.k.Copies())
	}
	write(t, s, 700, 100)
	b.door.Close() // b dies
	members = []Member{a.member("a")}
	steps(t, sh, 6)
	same(t, read(t, query.New(s, quiet())), a.lines(t))
}

// The first bytes of a copy may take long.
func TestACopyThatHasJustBegunIsNotTidiedAway(t *testing.T) {
	f := openFollower(t)
	dir := filepath.Join(f.cfg.Dir, "owner", "0123456789abcdef")
	h, err := openHeld("owner", "0123456789abcdef", dir)
	if err != nil {
		t.Fatal(err)
	}
	if reason, _ := decideAge(time.Now(), h.meta); reason != "" {
		t.Errorf("it is removed: %s", reason)
	}
	if reason, _ := decideAge(time.Now().Add(2*neverBegun), h.meta); reason == "" {
		t.Error("it is never removed")
	}
}

// A node that was set up anew keeps what its follower has of its former store.
func TestAStoreMadeAnewDoesNotOverwriteTheFormerCopy(t *testing.T) {
	f := openFollower(t)
	for i := range 2 {
		dir := t.TempDir()
		s := openStore(t, dir)
		write(t, s, i*1000, 100)
		steps(t, newShipper(t, dir, s, func() []Member { return []Member{f.member("follower")} }), 6)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if all := f.k.Copies(); len(all) != 2 || all[0].Owner != "owner" || all[1].Owner != "owner" || all[0].ID == all[1].ID {
		t.Errorf("copies are %+v", all)
	}
}

func TestOnlyFilesOfAStoreAreWritten(t *testing.T) {
	for _, c := range []struct {
		path string
		good bool
	}{
		{"wal/00000001.wal", true},
		{"parts/20260102T030405.000Z/blocks.dat", true},
		{"parts/20260102T030405.000Z/index/bleve/root.bolt", true},
		{"", false}, {"/etc/passwd", false}, {"wal/../../x", false}, {"parts/../x/y", false}, {"checkpoint.json", false},
		{"copy.json", false}, {"parts/x", false}, {"wal/a~b", false}, {"./wal/x", false}, {"wal//x", false},
	} {
		if legal(c.path) != c.good {
			t.Errorf("%q is legal: %v", c.path, !c.good)
		}
	}
	for _, path := range []string{"node/0a", "../x", "node/..", "a/b/c", "node", "node/", ".hidden/0a", "NODE/0a"} {
		if _, ok := keyOf(path); ok != (path == "node/0a") {
			t.Errorf("%q is a copy: %v", path, ok)
		}
	}
}
