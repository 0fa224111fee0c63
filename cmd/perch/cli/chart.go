package cli

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
)

// chart draws series as one braille picture with an axis, and a line of figures
// for each series. Missing points leave gaps.
func chart(w io.Writer, rows []series, columns, lines int) error {
	const margin = 10
	columns = max(20, min(columns, 110)-margin)
	lo, hi := math.Inf(1), math.Inf(-1)
	var from, to time.Time
	for _, r := range rows {
		for _, p := range r.Values {
			if math.IsNaN(p.V) {
				continue
			}
			lo, hi = min(lo, p.V), max(hi, p.V)
			if from.IsZero() || p.T.Before(from) {
				from = p.T
			}
			if p.T.After(to) {
				to = p.T
			}
		}
	}
	lo = min(lo, 0)
	if hi == lo {
		hi = lo + 1
	}
	span := max(to.Sub(from), time.Second)
	dots := make([][]rune, lines)
	for i := range dots {
		dots[i] = make([]rune, columns)
	}
	for _, r := range rows {
		for _, p := range r.Values {
			if math.IsNaN(p.V) {
				continue
			}
			x := int(float64(columns*2-1) * float64(p.T.Sub(from)) / float64(span))
			y := int(math.Round(float64(lines*4-1) * (hi - p.V) / (hi - lo)))
			dots[y/4][x/2] |= brailleBit(x%2, y%4)
		}
	}
	b := bufio.NewWriter(w)
	for i, line := range dots {
		label := ""
		if i%2 == 0 || i == lines-1 {
			label = short(hi - (hi-lo)*float64(i)/float64(lines-1))
		}
		fmt.Fprintf(b, "%8s ┤", label)
		for _, d := range line {
			if d == 0 {
				b.WriteByte(' ')
			} else {
				b.WriteRune(0x2800 + d)
			}
		}
		b.WriteByte('\n')
	}
	left, right := from.Local().Format("15:04:05"), to.Local().Format("15:04:05")
	fmt.Fprintf(b, "%9s└%s\n%10s%s%s%s\n", "", strings.Repeat("─", columns), "", left, strings.Repeat(" ", max(1, columns-len(left)-len(right))), right)
	for _, r := range rows {
		now, mn, mx, sum := math.NaN(), math.Inf(1), math.Inf(-1), 0.0
		for _, p := range r.Values {
			now, mn, mx, sum = p.V, min(mn, p.V), max(mx, p.V), sum+p.V
		}
		fmt.Fprintf(b, "%s  now %s  min %s  max %s  avg %s\n", r.name(), short(now), short(mn), short(mx), short(sum/float64(len(r.Values))))
	}
	return b.Flush()
}

func brailleBit(x, y int) rune {
	return [2][4]rune{{0x01, 0x02, 0x04, 0x40}, {0x08, 0x10, 0x20, 0x80}}[x][y]
}

// short writes a number in at most seven characters.
func short(v float64) string {
	a := math.Abs(v)
	for _, u := range []struct {
		unit string
		size float64
	}{{"T", 1e12}, {"G", 1e9}, {"M", 1e6}, {"k", 1e4}} {
		if a >= u.size {
			if u.unit == "k" {
				return strconv.FormatFloat(v/1e3, 'f', 1, 64) + "k"
			}
			return strconv.FormatFloat(v/u.size, 'f', 1, 64) + u.unit
		}
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

// spark draws values as a row of blocks; an empty value leaves a gap.
func spark(values []float64, top float64) string {
	blocks := []rune("▁▂▃▄▅▆▇█")
	var b strings.Builder
	for _, v := range values {
		if math.IsNaN(v) {
			b.WriteByte(' ')
			continue
		}
		i := 0
		if top > 0 {
			i = int(v / top * float64(len(blocks)))
		}
		b.WriteRune(blocks[max(0, min(i, len(blocks)-1))])
	}
	return b.String()
}
