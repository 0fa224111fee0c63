package store

import "github.com/prometheus/client_golang/prometheus"

func registerMetrics(reg prometheus.Registerer, s *Store) {
	if reg == nil {
		return
	}
	gauge := func(name, help string, value func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	gauge("perch_store_db_bytes", "Size of the backend file.", func() float64 { return float64(s.etcd.Server.Backend().Size()) })
	gauge("perch_store_db_used_bytes", "Part of the backend file that holds data.", func() float64 { return float64(s.etcd.Server.Backend().SizeInUse()) })
	gauge("perch_store_quota_bytes", "Size of the backend at which writes are refused.", func() float64 { return float64(s.cfg.QuotaBytes) })
	gauge("perch_store_revision", "Revision of the last write.", func() float64 { return float64(s.etcd.Server.KV().Rev()) })
	gauge("perch_store_compacted_revision", "Revision up to which history was dropped.", func() float64 { return float64(s.compactor.CompactRevision()) })
}
