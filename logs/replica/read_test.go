package replica

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Partitions that were opened and sealed since the last commit lie at the follower
// in part; what it has of earlier ones stays readable.
func TestACopyCanBeReadWhereverAShipmentBreaksOff(t *testing.T) {
	for _, c := range []struct {
		name   string
		before int // lines of the copy before
	}{
		{"the first shipment", 0},
		{"a later one", 500},
	} {
		t.Run(c.name, func(t *testing.T) {
			read, whole := 0, false
			for limit := int64(2000); !whole; limit += limit / 2 {
				dir := t.TempDir()
				s := openStore(t, dir)
				f := openFollower(t)
				members := func() []Member { return []Member{f.member("follower")} }
				if c.before > 0 {
					write(t, s, 0, c.before)
					steps(t, newShipper(t, dir, s, members), 6)
				}
				for i := range 5 {
					write(t, s, c.before+i*400, 400)
					if err := s.Seal(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				sh := newShipper(t, dir, s, members)
				f.broken.Store(limit)
				sh.step(t.Context(), time.Now(), time.Now())
				f.broken.Store(0)
				whole = sh.Status().Error == ""
				if len(f.k.Copies()) > 0 {
					read++
					f.restart(t)
					if n := len(f.lines(t)); n < c.before {
						t.Errorf("cut off after %d bytes: the copy has %d lines, had %d", limit, n, c.before)
					}
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if read < 2 {
				t.Errorf("only %d copies could be read", read)
			}
		})
	}
}

func TestAnOpenedCopyIsAsOfOneTime(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	defer s.Close()
	f := openFollower(t)
	sh := newShipper(t, dir, s, func() []Member { return []Member{f.member("follower")} })
	write(t, s, 0, 100)
	steps(t, sh, 4)
	if n := len(f.lines(t)); n != 100 {
		t.Fatalf("%d lines", n)
	}
	again := f.k.opened[copyKey{"owner", sh.id}]
	if n := len(f.lines(t)); n != 100 || f.k.opened[copyKey{"owner", sh.id}] != again {
		t.Fatalf("%d lines, opened anew for nothing", n)
	}
	write(t, s, 100, 50)
	steps(t, sh, 4)
	if n := len(f.lines(t)); n != 150 {
		t.Errorf("%d lines after more came", n)
	}
	f.k.closeIdle(time.Now().Add(time.Hour))
	if left, err := os.ReadDir(f.cfg.Scratch); err != nil || len(left) != 0 || len(f.k.opened) != 0 {
		t.Errorf("an idle copy stays open: %v, %v", left, err)
	}
}

// Of more copies than may be open all are read, one after the other; who goes does
// not wait.
func TestACopyWaitsUntilAnotherIsRead(t *testing.T) {
	f := openFollower(t)
	var keys []copyKey
	for range f.k.cfg.Opened + 2 {
		dir := t.TempDir()
		s := openStore(t, dir)
		defer s.Close()
		sh := newShipper(t, dir, s, func() []Member { return []Member{f.member("follower")} })
		write(t, s, 0, 10)
		steps(t, sh, 4)
		keys = append(keys, copyKey{"owner", sh.id})
	}
	most := f.k.cfg.Opened
	var used []*opened
	for _, key := range keys[:most] {
		o, err := f.k.open(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		used = append(used, o)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, err := f.k.open(gone, keys[most]); !errors.Is(err, context.Canceled) {
		t.Fatalf("one more than may be open: %v", err)
	}
	if again, err := f.k.open(gone, keys[0]); err != nil || again != used[0] {
		t.Fatalf("one that is open: %v", err)
	}
	f.k.release(used[0])
	var all sync.WaitGroup
	for range 5 {
		for _, key := range keys {
			all.Go(func() {
				o, err := f.k.open(t.Context(), key)
				if err != nil {
					t.Error(err)
					return
				}
				f.k.mu.Lock()
				if n := len(f.k.opened); n > most {
					t.Errorf("%d are open", n)
				}
				f.k.mu.Unlock()
				f.k.release(o)
			})
		}
	}
	for _, o := range used {
		f.k.release(o)
	}
	all.Wait()
	if f.k.opening != 0 {
		t.Errorf("%d are said to be opened", f.k.opening)
	}
}

func TestWhoListsCopiesIsToldOfThePresentStore(t *testing.T) {
	dir := t.TempDir()
	id, err := Identity(dir)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Identity(dir); err != nil || again != id || id == "" {
		t.Fatal(id, again, err)
	}
	cfg := DefaultKeep(filepath.Join(t.TempDir(), "copies"), filepath.Join(t.TempDir(), "scratch"))
	cfg.Store = id
	k := openKeeper(t, cfg)
	w := httptest.NewRecorder()
	k.Reads().ServeHTTP(w, httptest.NewRequest(http.MethodGet, ReadPrefix, nil))
	if w.Code != http.StatusOK || w.Header().Get(StoreHeader) != id {
		t.Errorf("%d, %v", w.Code, w.Header())
	}
	if id, err := Identity(filepath.Join(dir, "no", "such")); err == nil {
		t.Errorf("%q of no directory", id)
	}
}
