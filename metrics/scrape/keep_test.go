package scrape

import (
	"testing"

	"github.com/prometheus/prometheus/model/relabel"
)

func TestSeriesOfServersThatRulesAndDashboardsUseAreKept(t *testing.T) {
	api, etcd, drop := relabel.MustNewRegexp(APIServerSeries), relabel.MustNewRegexp(EtcdSeries), relabel.MustNewRegexp(APIServerBuckets)
	for _, name := range []string{
		"apiserver_request_total", "apiserver_request_sli_duration_seconds_bucket", "apiserver_request_sli_duration_seconds_count",
		"apiserver_client_certificate_expiration_seconds_bucket", "apiserver_client_certificate_expiration_seconds_count",
		"apiserver_request_terminations_total", "aggregator_unavailable_apiservice", "aggregator_unavailable_apiservice_total",
		"apiserver_current_inflight_requests", "workqueue_adds_total", "workqueue_depth", "workqueue_queue_duration_seconds_bucket",
		"rest_client_requests_total", "process_resident_memory_bytes", "process_cpu_seconds_total", "go_goroutines",
	} {
		if !api.MatchString(name) {
			t.Errorf("%s of the API server is left out", name)
		}
	}
	for _, name := range []string{
		"apiserver_request_duration_seconds_bucket", "etcd_request_duration_seconds_bucket", "apiserver_watch_list_duration_seconds_bucket",
		"go_godebug_non_default_behavior_execerrdot_events_total", "workqueue_work_duration_seconds_bucket",
	} {
		if api.MatchString(name) {
			t.Errorf("%s of the API server is stored and nothing reads it", name)
		}
	}
	for _, name := range []string{
		"etcd_server_has_leader", "etcd_server_leader_changes_seen_total", "etcd_server_proposals_failed_total", "etcd_server_proposals_pending",
		"etcd_disk_wal_fsync_duration_seconds_bucket", "etcd_disk_backend_commit_duration_seconds_bucket", "etcd_mvcc_db_total_size_in_bytes",
		"etcd_mvcc_db_total_size_in_use_in_bytes", "etcd_server_quota_backend_bytes", "etcd_network_peer_round_trip_time_seconds_bucket",
		"etcd_network_client_grpc_received_bytes_total", "grpc_server_handled_total",
	} {
		if !etcd.MatchString(name) {
			t.Errorf("%s of etcd is left out", name)
		}
	}
	const sli = "apiserver_request_sli_duration_seconds_bucket;"
	for le, left := range map[string]bool{"1.0": false, "5.0": false, "30.0": false, "0.1": false, "10.0": false, "60.0": false, "+Inf": false, "1.25": true, "2.0": true, "45.0": true, "0.6": true} {
		if drop.MatchString(sli+le) != left {
			t.Errorf("bucket %s: left out is %v", le, !left)
		}
	}
}
