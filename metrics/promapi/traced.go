package promapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/storage"
	"google.golang.org/protobuf/encoding/protowire"
)

// traced is a series of remote write 2 with exemplars and nothing else. Prometheus
// sends them so, and its own receiver refuses a series without a sample.
type traced struct {
	series    labels.Labels
	exemplars []exemplar.Exemplar
}

const (
	fieldSymbols    = 4 // of a request
	fieldSeries     = 5
	fieldSamples    = 2 // of a series
	fieldHistograms = 3
	fieldExemplars  = 4
)

// takeTraced takes such series out of a request. What cannot be read stays in it: the
// library's handler tells of it.
func takeTraced(raw []byte) (rest []byte, out []traced) {
	var symbols []string
	some := false
	each(raw, func(n protowire.Number, _, text []byte) {
		some = some || n == fieldSeries && onlyExemplars(text)
	})
	if !some {
		return raw, nil
	}
	each(raw, func(n protowire.Number, _, text []byte) {
		if n == fieldSymbols {
			symbols = append(symbols, string(text))
		}
	})
	each(raw, func(n protowire.Number, whole, text []byte) {
		if n == fieldSeries && onlyExemplars(text) {
			if one, err := readTraced(text, symbols); err == nil {
				out = append(out, one)
				return
			}
		}
		rest = append(rest, whole...)
	})
	return rest, out
}

// each calls fn for each field: whole is with its tag, text what it holds if that is
// bytes. It ends where the message is malformed, with all that is left as one.
func each(b []byte, fn func(n protowire.Number, whole, text []byte)) {
	for len(b) > 0 {
		n, kind, tag := protowire.ConsumeTag(b)
		if tag < 0 {
			fn(0, b, nil)
			return
		}
		size := protowire.ConsumeFieldValue(n, kind, b[tag:])
		if size < 0 {
			fn(0, b, nil)
			return
		}
		var text []byte
		if kind == protowire.BytesType {
			text, _ = protowire.ConsumeBytes(b[tag:]) // ConsumeFieldValue has looked
		}
		fn(n, b[:tag+size], text)
		b = b[tag+size:]
	}
}

func onlyExemplars(series []byte) bool {
	has := map[protowire.Number]bool{}
	each(series, func(n protowire.Number, _, _ []byte) { has[n] = true })
	return has[fieldExemplars] && !has[fieldSamples] && !has[fieldHistograms] && !has[0]
}

func readTraced(text []byte, symbols []string) (out traced, err error) {
	var s writev2.TimeSeries
	if err := s.Unmarshal(text); err != nil {
		return out, err
	}
	b := labels.NewScratchBuilder(0)
	if out.series, err = s.ToLabels(&b, symbols); err != nil {
		return out, err
	}
	if !out.series.Has(labels.MetricName) {
		return out, errors.New("a series without a name")
	}
	for _, e := range s.Exemplars {
		one, err := e.ToExemplar(&b, symbols)
		if err != nil {
			return out, err
		}
		out.exemplars = append(out.exemplars, one)
	}
	return out, nil
}

// keepTraced stores exemplars as the receiver of version 1 does: of one that the store
// does not take, out of order or of a series it does not know, nobody is told.
func (i intake) keepTraced(ctx context.Context, all []traced) (kept int, _ error) {
	app := i.Appender(ctx)
	for _, t := range all {
		var ref storage.SeriesRef
		for _, e := range t.exemplars {
			got, err := app.AppendExemplar(ref, t.series, e)
			if err == nil {
				ref = got
				kept++
			}
		}
	}
	if err := app.Commit(); err != nil {
		return 0, fmt.Errorf("store exemplars: %w", err)
	}
	return kept, nil
}

// exemplarsWritten is the header that counts them.
const exemplarsWritten = "X-Prometheus-Remote-Write-Exemplars-Written"

func addWritten(h http.Header, more int) {
	n, _ := strconv.Atoi(h.Get(exemplarsWritten)) // none yet
	h.Set(exemplarsWritten, strconv.Itoa(n+more))
}
