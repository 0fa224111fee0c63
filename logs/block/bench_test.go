package block_test

import (
	"testing"

	"perch/logs/bench/lines"
	"perch/logs/block"
)

func BenchmarkEncode(b *testing.B) {
	for _, set := range []string{lines.Services, lines.Vocabulary, lines.Base64} {
		b.Run(set, func(b *testing.B) {
			g := lines.New(set, 1)
			var l block.Lines
			for len(l.Text) < 256<<10 {
				if r, k := g.Next(); k == 3 {
					l.Add(&r)
				}
			}
			c, err := block.NewCodec()
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			var out []byte
			b.SetBytes(int64(len(l.Text)))
			for b.Loop() {
				out = c.Encode(out[:0], &block.Meta{Stream: lines.Stream(3)}, &l)
			}
			b.ReportMetric(float64(len(out))/float64(len(l.Text)), "B/B")
		})
	}
}
