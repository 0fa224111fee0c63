package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

type shop struct {
	log    *slog.Logger
	goods  []byte // hashed once for each order
	reg    *prometheus.Registry
	orders *prometheus.CounterVec
	took   prometheus.Histogram
}

func newShop(log *slog.Logger, kilobytes int) *shop {
	s := &shop{log: log, goods: make([]byte, kilobytes<<10), reg: prometheus.NewRegistry(),
		orders: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shop_orders_total", Help: "Orders by how they ended."}, []string{"result"}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "shop_order_duration_seconds", Help: "Time an order took.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25}})}
	s.reg.MustRegister(s.orders, s.took, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return s
}

var items = []string{"nest box", "seed mix", "field glass", "ring", "feeder", "water bowl"}

func (s *shop) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("/order", s.order)
	mux.HandleFunc("POST /crash", func(http.ResponseWriter, *http.Request) {
		s.log.Error("till is on fire", "reason", "somebody asked for it")
		os.Exit(3)
	})
	return mux
}

func (s *shop) order(w http.ResponseWriter, r *http.Request) {
	began, id := time.Now(), rand.IntN(1_000_000)
	sum := sha256.Sum256(s.goods)
	item := items[id%len(items)]
	took := time.Since(began)
	s.took.Observe(took.Seconds())
	if id%50 == 0 {
		s.orders.WithLabelValues("refused").Inc()
		s.log.Warn("order refused", "order", id, "item", item, "reason", "out of stock")
		http.Error(w, "out of stock", http.StatusConflict)
		return
	}
	s.orders.WithLabelValues("taken").Inc()
	s.log.Info("order taken", "order", id, "item", item, "took", took.String(), "from", r.RemoteAddr)
	fmt.Fprintf(w, "order %d: one %s, receipt %x\n", id, item, sum[:4])
}

func serve(ctx context.Context, log *slog.Logger, listen string, h http.Handler) error {
	srv := &http.Server{Addr: listen, Handler: h, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan error, 1)
	go func() { done <- srv.ListenAndServe() }()
	log.Info("door open", "listen", listen)
	select {
	case err := <-done:
		return fmt.Errorf("serve %s: %w", listen, err)
	case <-ctx.Done():
		limit, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := srv.Shutdown(limit); err != nil && !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("close %s: %w", listen, err)
		}
		log.Info("door closed")
		return nil
	}
}
