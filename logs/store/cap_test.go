package store

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"perch/logs/record"
)

// The bytes that may be kept are a limit of the directory, however few they are:
// also while a partition is being written or sealed.
func TestTheDirectoryStaysWithinItsBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 32 << 20
		cfg := Default(t.TempDir())
		cfg.RetentionBytes = most
		s := open(t, cfg)
		rnd := rand.New(rand.NewPCG(7, 7))
		st := streams(4)
		peak, body := int64(0), make([]byte, 3<<10)
		for round := range 40 {
			var lines []record.Record
			for i := range 600 { // nearly 2 MB, of which little can be compressed
				for k := range body {
					body[k] = 'a' + byte(rnd.Uint32())%64
				}
				lines = append(lines, record.Record{Time: time.Now().UnixNano(), Stream: st[i%len(st)], Body: fmt.Appendf(nil, "%d %s", round, body)})
			}
			if err := s.Append(t.Context(), lines, nil); err != nil {
				t.Fatal(err)
			}
			time.Sleep(cfg.CheckpointEvery)
			s.maintain(t.Context(), time.Now())
			if round%5 == 4 {
				if err := s.rewriteDue(t.Context(), time.Now(), 0); err != nil {
					t.Fatal(err)
				}
			}
			size := int64(0)
			if err := filepath.WalkDir(cfg.Dir, func(_ string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				info, err := d.Info()
				size += info.Size()
				return err
			}); err != nil {
				t.Fatal(err)
			}
			peak = max(peak, size)
		}
		if u := s.Use(); peak > most+most/8 || peak < most/2 || u.Bytes > most {
			t.Errorf("%d bytes at most, %d now, of %d that may be kept", peak, u.Bytes, most)
		}
		t.Logf("at most %d MB", peak>>20)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
