package block

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
)

// someBundles are a file of bundles with blocks between, and what each block has.
func someBundles(t testing.TB, path string, c *Codec) (want []*Lines, ends []int64) {
	t.Helper()
	f, _, _, err := Open(path, c, 0)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	var b Bundle
	for i := range 12 {
		l := someLines(rnd, 1+i*7, i&1 > 0, i&2 > 0)
		want = append(want, l)
		m := &Meta{Stream: stream(i), First: uint64(i), Seq: 9, Ord: 4}
		if i == 5 {
			err = f.Append(m, c.Encode(nil, m, l))
		} else if c.Add(&b, m, l); i == 4 || i == 8 || i == 11 {
			err = f.AppendBundle(&b, c.EncodeBundle(nil, &b))
			b.Reset()
		}
		if err != nil {
			t.Fatal(err)
		}
		if f.Size() > int64(len(ends)) && (len(ends) == 0 || f.Size() > ends[len(ends)-1]) {
			ends = append(ends, f.Size())
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return want, ends
}

func TestBlocksOfBundlesAreReadLikeOthers(t *testing.T) {
	c := codec(t)
	path := filepath.Join(t.TempDir(), "blocks.dat")
	want, _ := someBundles(t, path, c)
	f, metas, lost, err := Open(path, c, 0)
	if err != nil || lost != (Lost{}) || len(metas) != len(want) {
		t.Fatal(err, lost, len(metas))
	}
	defer f.Close()
	var all sync.WaitGroup
	for k := range 3 {
		all.Go(func() {
			rnd, parts, used, size := rand.New(rand.NewPCG(3, uint64(k))), &Parts{}, &Lines{}, int64(0)
			for i, m := range metas {
				var err error
				if used, err = f.Read(m, used); err != nil {
					t.Error(err)
					return
				}
				same(t, used, want[i])
				if m.First != uint64(i) || m.Seq != 9 || m.Ord != 4 || *m.Stream != *stream(i) {
					t.Errorf("meta %+v", m)
				}
				times, err := f.ReadTimes(m, nil)
				if err != nil || !reflect.DeepEqual(times.Times, want[i].Times) {
					t.Error(err)
				}
				if texts, err := f.ReadWords(m); err != nil || len(texts) == 0 {
					t.Error(err)
				}
				if m.Templated() {
					samePart(t, rnd, parts, f, m, want[i])
				}
				size += m.Size()
			}
			if d := f.Size() - size; d < 0 || d > int64(len(metas)) {
				t.Errorf("the blocks have %d bytes of %d", size, f.Size())
			}
		})
	}
	all.Wait()
}

func TestABundleIsSmallerThanItsBlocks(t *testing.T) {
	c := codec(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	var b Bundle
	each := 0
	for i := range 50 {
		l := someLines(rnd, 10, false, false)
		m := &Meta{Stream: stream(i)}
		each += len(c.Encode(nil, m, l))
		c.Add(&b, m, l)
	}
	if n := len(c.EncodeBundle(nil, &b)); n > each*3/4 {
		t.Errorf("the bundle has %d bytes, the blocks for themselves %d", n, each)
	}
}

func TestFileIsCutBeforeTheFirstDamagedBundle(t *testing.T) {
	c := codec(t)
	path := filepath.Join(t.TempDir(), "blocks.dat")
	_, ends := someBundles(t, path, c)
	blocks := []int{0, 5, 6, 9, 12} // that are whole when so many records are
	eachDamage(t, path, c, 13, ends, blocks)
}

func TestDamageInAVerifiedBundleCostsOnlyThat(t *testing.T) {
	c := codec(t)
	path := filepath.Join(t.TempDir(), "blocks.dat")
	_, ends := someBundles(t, path, c)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	whole[ends[0]-3] ^= 1  // in the frames of the first bundle
	whole[ends[1]+20] ^= 1 // in the header of the second
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	f, metas, lost, err := Open(path, c, int64(len(whole)))
	if err != nil || lost.Cut != 0 || lost.Skipped != ends[2]-ends[1] || len(metas) != 9 {
		t.Fatalf("%v %+v, %d blocks", err, lost, len(metas))
	}
	defer f.Close()
	for i, m := range metas {
		_, err := f.Read(m, nil)
		if bad := errors.Is(err, ErrDamaged); bad != (i < 5) {
			t.Errorf("block %d: %v", i, err)
		}
	}
}

func FuzzBundle(f *testing.F) {
	c := codec(f)
	path := filepath.Join(f.TempDir(), "blocks.dat")
	_, ends := someBundles(f, path, c)
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole[:ends[0]])
	f.Add(whole[ends[1]:ends[2]])
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(dir, "fuzz.dat")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		file, metas, _, err := Open(path, c, int64(len(b))) // nothing is read before
		if err != nil {
			return
		}
		defer file.Close()
		for _, m := range metas {
			_, _ = file.Read(m, nil)
		}
	})
}

// openBundles is a file of some that is open until the test ends.
func openBundles(t *testing.T) (*Codec, *File, []*Meta) {
	t.Helper()
	c := codec(t)
	path := filepath.Join(t.TempDir(), "blocks.dat")
	someBundles(t, path, c)
	f, metas, _, err := Open(path, c, 1<<62)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return c, f, metas
}

func TestABundleIsUnpackedOnceForAllWhoReadIt(t *testing.T) {
	c, f, metas := openBundles(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			parts := &Parts{}
			for _, m := range metas {
				if _, err := f.ReadTimes(m, nil); err != nil {
					t.Error(err)
				}
				if parts.Open(f, m); m.Templated() {
					if _, err := parts.Columns(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
	if c.near.unpacked != 3 {
		t.Errorf("3 bundles were unpacked %d times", c.near.unpacked)
	}
}

func TestWhoReadsABlockByPartsNeedsItsBundleOnce(t *testing.T) {
	c, f, metas := openBundles(t)
	parts, n := &Parts{}, int64(0)
	for _, m := range metas {
		if m.in == nil || !m.Templated() {
			continue
		}
		parts.Open(f, m)
		if _, err := parts.Templates(); err != nil {
			t.Fatal(err)
		}
		n = c.near.unpacked
		c.near.last = nil // others have read many other bundles
		if _, err := parts.Columns(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := parts.Times(); err != nil {
			t.Fatal(err)
		}
		if c.near.unpacked != n {
			t.Fatal("the bundle was unpacked again for another part of the same block")
		}
	}
	if n == 0 {
		t.Fatal("no block was in a bundle")
	}
}

func TestOnlyTheEndIsCutWhenNobodyKnowsWhatIsVerified(t *testing.T) {
	c := codec(t)
	path := filepath.Join(t.TempDir(), "blocks.dat")
	_, ends := someBundles(t, path, c)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		name   string
		damage []int64 // the byte before each
		cut    int64
		lost   Lost
		blocks int
	}{
		{"all is good", nil, ends[3], Lost{}, 12},
		{"frames before good ones", []int64{ends[0]}, ends[3], Lost{}, 12},
		{"a header before good ones", []int64{ends[0] + 20}, ends[3], Lost{Skipped: ends[1] - ends[0]}, 11},
		{"frames at the end", []int64{ends[3]}, ends[3], Lost{Cut: ends[3] - ends[2]}, 9},
		{"a header at the end", []int64{ends[2] + 20}, ends[3], Lost{Cut: ends[3] - ends[2]}, 9},
		{"all after the first", []int64{ends[1], ends[1] + 20, ends[3]}, ends[3], Lost{Cut: ends[3] - ends[0]}, 5},
		{"the last record is torn", nil, ends[3] - 1, Lost{Cut: ends[3] - 1 - ends[2]}, 9},
		{"everything", []int64{ends[0], ends[1], ends[2], ends[3]}, ends[3], Lost{Cut: ends[3]}, 0},
	} {
		b := bytes.Clone(whole[:x.cut])
		for _, at := range x.damage {
			b[at-1] ^= 1
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		f, metas, lost, err := Open(path, c, Unknown)
		if err != nil {
			t.Fatal(err)
		}
		if lost != x.lost || len(metas) != x.blocks || f.Size() != x.cut-x.lost.Cut {
			t.Errorf("%s: lost %+v of %d, %d blocks; want %+v, %d", x.name, lost, x.cut, len(metas), x.lost, x.blocks)
		}
		_ = f.Close()
	}
}

// FuzzInsideABundle has any headers and frames in a bundle whose sums are right.
func FuzzInsideABundle(f *testing.F) {
	c := codec(f)
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, fields := range []bool{false, true} {
		var b Bundle
		for i := range 3 {
			c.Add(&b, &Meta{Stream: stream(i)}, someLines(rnd, 1+9*i, fields, true))
		}
		f.Add(b.heads, b.body)
	}
	path := filepath.Join(f.TempDir(), "blocks.dat")
	f.Fuzz(func(t *testing.T, heads, body []byte) {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		file, _, _, err := Open(path, c, 0)
		if err != nil {
			t.Fatal(err)
		}
		b := Bundle{heads: heads, body: body, metas: []*Meta{{}}}
		if err := file.AppendBundle(&b, c.EncodeBundle(nil, &b)); err != nil {
			t.Fatal(err)
		}
		_ = file.Close()
		file, metas, _, err := Open(path, c, 1<<62)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		parts := &Parts{}
		for _, m := range metas {
			_, _ = file.Read(m, nil)
			_, _ = file.ReadTimes(m, nil)
			_, _ = file.ReadWords(m)
			if parts.Open(file, m); m.Templated() {
				_ = parts.Texts([]uint32{0}, &Lines{})
				_, _ = parts.Fields()
			}
			if m.Size() < 0 {
				t.Errorf("a block has %d bytes", m.Size())
			}
		}
	})
}
