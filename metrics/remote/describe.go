package remote

import (
	"context"
	"slices"
	"strings"
	"time"

	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"

	"perch/metrics/family"
)

// besideSeries is how often families are looked at for a target of version 2; 0
// for one that is not told, or is of another version.
func besideSeries(t *config.RemoteWriteConfig) time.Duration {
	if !t.MetadataConfig.Send || t.ProtobufMessage == remoteapi.WriteV1MessageType {
		return 0
	}
	return time.Duration(t.MetadataConfig.SendInterval)
}

// describer puts type, help and unit of series into the WAL, from where version 2
// takes them beside the samples. New series have theirs within a second; when the
// families change, all series are looked at again.
type describer struct {
	known  []family.Told
	byName map[string][]claim
	next   time.Time // when to look at the families
	newest uint64    // series that was looked at
}

// claim is what one source says of a family.
type claim struct {
	family.Source
	metadata.Metadata
}

func (d *describer) look(ctx context.Context, now time.Time, every time.Duration, s *Sender) (err error) {
	if !now.Before(d.next) {
		d.next = now.Add(every)
		if told := s.families(); d.byName == nil || !slices.EqualFunc(told, d.known, same) {
			d.known, d.newest, d.byName = told, 0, map[string][]claim{}
			for _, t := range told {
				for _, f := range t.Families {
					d.byName[f.Name] = append(d.byName[f.Name], claim{t.Source, metadata.Metadata{Type: f.Type, Help: f.Help, Unit: f.Unit}})
				}
			}
		}
	}
	d.newest, err = s.store.Describe(ctx, d.newest, d.of)
	return err
}

func same(a, b family.Told) bool {
	return a.Source == b.Source && slices.Equal(a.Families, b.Families)
}

// of is what the source of a series says of it, or who else knows the name.
func (d *describer) of(l labels.Labels) (metadata.Metadata, bool) {
	best, score := metadata.Metadata{}, -1
	namespace, job := l.Get("namespace"), l.Get("job")
	for _, c := range d.claims(l.Get(model.MetricNameLabel)) {
		points := 0
		if c.Namespace == namespace {
			points += 2
		}
		if c.Job == job {
			points++
		}
		if points > score {
			best, score = c.Metadata, points
		}
	}
	return best, score >= 0
}

// parts are the series that a family of a type has besides that of its own name.
var parts = []struct {
	suffix string
	of     []model.MetricType
}{
	{"_bucket", []model.MetricType{model.MetricTypeHistogram, model.MetricTypeGaugeHistogram}},
	{"_count", []model.MetricType{model.MetricTypeHistogram, model.MetricTypeSummary}},
	{"_sum", []model.MetricType{model.MetricTypeHistogram, model.MetricTypeSummary}},
	{"_gcount", []model.MetricType{model.MetricTypeGaugeHistogram}},
	{"_gsum", []model.MetricType{model.MetricTypeGaugeHistogram}},
	{"_total", []model.MetricType{model.MetricTypeCounter}},
	{"_info", []model.MetricType{model.MetricTypeInfo}},
}

// claims are the families that a series of this name may be of.
func (d *describer) claims(name string) []claim {
	if own := d.byName[name]; len(own) > 0 {
		return own
	}
	for _, p := range parts {
		if whole, ok := strings.CutSuffix(name, p.suffix); ok {
			return slices.DeleteFunc(slices.Clone(d.byName[whole]), func(c claim) bool { return !slices.Contains(p.of, c.Type) })
		}
	}
	return nil
}
