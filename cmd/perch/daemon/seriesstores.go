package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"

	"perch/cmd/perch/daemon/config"
	"perch/logs/ring"
	"perch/metrics/share"
	metricstore "perch/metrics/store"
	"perch/metrics/stream"
)

// The server has all series. Workers that are started with --series-store have
// each of them once more: the server sends it to the one that the ring names. The
// ring of log stores tells who they are. Without such a worker nothing is sent and
// nobody is asked.

// Paths at the node door of a worker that is a store of series; see mayCopy.
const (
	seriesPrefix = "/perch/v1/series/"
	seriesIn     = seriesPrefix + "in"
	seriesAsk    = seriesPrefix + "ask"
)

// seriesSet is the set in the ring of those workers.
const seriesSet = "series"

// keepSeries makes this worker one of them.
func (r role) keepSeries(own *http.ServeMux) error {
	cfg, err := seriesStore(r.cfg)
	if err != nil {
		return err
	}
	cfg.Dir = r.cfg.Path("series")
	db, err := metricstore.New(cfg, r.part("series"), nil) // its numbers would have the names of the other's
	if err != nil {
		return err
	}
	r.group.OnStop("series", db.Close)
	r.endBroken("series", db)
	for _, g := range []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "perch_share_series", Help: "Series in memory whose second copy is here."},
			func() float64 { return float64(db.Series()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "perch_share_series_limit", Help: "Series of which that many may be in memory."},
			func() float64 { return float64(cfg.SeriesLimit) }),
	} {
		if err := r.reg.Register(g); err != nil {
			return fmt.Errorf("register metrics of series: %w", err)
		}
	}
	own.Handle("POST "+seriesIn, stream.NewReceiver("series", stream.DefaultReceiver(), db, r.part("series"), r.reg))
	own.Handle(seriesAsk+"/", http.StripPrefix(seriesAsk, share.Serve(db, r.part("series"))))
	return nil
}

// seriesStores are the healthy ones, as far as this node knows.
func seriesStores(members *atomic.Pointer[ring.Ring]) func(context.Context) []share.Store {
	return func(ctx context.Context) (out []share.Store) {
		r := members.Load()
		if r == nil {
			return nil // there is no other node
		}
		all, err := r.Set(ctx, seriesSet)
		if err != nil {
			return nil // asked again soon
		}
		for _, m := range all {
			if m.Healthy {
				out = append(out, share.Store{Name: m.Node, Addr: m.Addr})
			}
		}
		return out
	}
}

// fullShare is how full of series the server's store may be and still wait with
// writing blocks, which is what frees memory, for a store that is away.
const fullShare = 0.8

// leastRoom is the room on the server's disk below which it does not wait either:
// its own samples go before their second copies. MetricStoreNearlyFull fires at half.
const leastRoom = 512 << 20

// shareSeries keeps the second copies at the workers, and completes from them what
// the server's store lost.
func (r role) shareSeries(api *rest.Config, n numbers, members *atomic.Pointer[ring.Ring], own *http.ServeMux) (*share.Fan, error) {
	rc := rest.CopyConfig(api)
	rc.NextProtos = []string{"http/1.1"} // see nodeHTTP
	client, err := machineClient(rc)
	if err != nil {
		return nil, err
	}
	cfg := share.Default()
	cfg.WAL, cfg.Dir, cfg.Lost, cfg.Retention = n.store.Dir(), r.cfg.Path("series-sent"), n.lost, n.store.Retention()
	limit := fullShare * float64(n.store.Limits().SeriesLimit)
	sender, err := share.NewSender(cfg, share.Parts{Stores: seriesStores(members), Hold: n.store.HoldWAL,
		Full: func() bool { return float64(n.store.Series()) > limit || n.store.Room() < leastRoom },
		To:   func(s share.Store) (string, *http.Client) { return "https://" + s.Addr + seriesIn, client }}, r.part("share"), r.reg)
	if err != nil {
		return nil, err
	}
	fan, err := share.NewFan(share.DefaultLimits(), share.FanParts{Own: n.store, Gap: sender.Gap, Stores: sender.Stores,
		At: func(s share.Store) (string, *http.Client) { return "https://" + s.Addr + seriesAsk, client }}, r.part("share"), r.reg)
	if err != nil {
		return nil, err
	}
	own.HandleFunc("GET "+standingsPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(sender.Standings(time.Now())) // the asker is gone if this fails
	})
	r.group.Go("share", sender.Run)
	r.group.Go("stores", fan.Run)
	return fan, nil
}

// standingsPath is where the telemetry role of a server tells on its socket how the
// stores of series do.
const standingsPath = "/perch/v1/seriesstores"

// showStores prints which nodes have second copies of the series; nothing where
// there are none, on workers, and while the telemetry role does not answer.
func showStores(ctx context.Context, cfg config.Config, out io.Writer) error {
	var all []share.Standing
	if ok, err := askTelemetry(ctx, cfg, standingsPath, &all); !ok {
		return err
	}
	return writeStores(out, all, time.Now())
}

func writeStores(out io.Writer, all []share.Standing, now time.Time) error {
	if len(all) == 0 {
		return nil
	}
	tw := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
	fmt.Fprintf(tw, "\nCOPIES OF SERIES\tBEHIND\tSTATE\n")
	for _, s := range all {
		state := "there"
		if !s.Until.IsZero() {
			state = fmt.Sprintf("away since %s (%s), its part goes to others at %s", s.Seen.Local().Format(time.TimeOnly), now.Sub(s.Seen).Truncate(time.Second), s.Until.Local().Format(time.TimeOnly))
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\n", s.Name, s.Behind.Truncate(time.Second), state)
	}
	return tw.Flush()
}
