package daemon

import (
	"context"
	"time"

	"github.com/prometheus/common/model"

	"perch/agent/stats"
	families "perch/metrics/family"
	"perch/metrics/scrape"
)

// familiesPath is where a server takes the families of workers.
const familiesPath = "/perch/v1/families"

// madeHere tells type and help of what this node scrapes and makes: those of
// containers too, which the agent makes.
func madeHere(targets *scrape.Loop) func() []families.Told {
	containers := families.Told{Source: families.Source{Namespace: families.Everyone, Job: "kubelet"}}
	stats.Families(func(name, help string, kind stats.Kind) {
		f := families.Family{Name: name, Help: help, Type: model.MetricTypeUnknown}
		switch kind {
		case stats.Counter:
			f.Type = model.MetricTypeCounter
		case stats.Gauge:
			f.Type = model.MetricTypeGauge
		}
		containers.Families = append(containers.Families, f)
	})
	return func() []families.Told { return append(targets.Families(), containers) }
}

// tellFamilies sends a worker's to the server.
func (r role) tellFamilies(targets *scrape.Loop) error {
	client, err := nodeClient(r.cfg)
	if err != nil {
		return err
	}
	r.group.Go("families", func(ctx context.Context) error {
		return families.Send(ctx, families.DefaultSend(r.cfg.Web+familiesPath), client, madeHere(targets), r.part("families"))
	})
	return nil
}

// knowFamilies is the book of a server; it learns those of this node by itself.
func (r role) knowFamilies(targets *scrape.Loop) (*families.Book, error) {
	book, err := families.NewBook(families.DefaultLimits(), r.reg)
	if err != nil {
		return nil, err
	}
	here := madeHere(targets)
	r.group.Go("families", func(ctx context.Context) error {
		for {
			book.Learn(time.Now(), here()...)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(30 * time.Second):
			}
		}
	})
	return book, nil
}
