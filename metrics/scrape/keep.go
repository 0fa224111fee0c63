package scrape

// relabelling says Keep and Drop in Prometheus' words.
func (o Own) relabelling() []any {
	var rules []any
	if o.Keep != "" {
		rules = append(rules, map[string]any{"action": "keep", "source_labels": []string{"__name__"}, "regex": o.Keep})
	}
	if o.Drop != "" {
		rules = append(rules, map[string]any{"action": "drop", "source_labels": []string{"__name__", "le"}, "regex": o.Drop})
	}
	return rules
}

// An API server's histograms are nine of ten series of a small cluster. These
// are what the rules and dashboards of kubernetes-mixin and etcd-mixin ask for.
const (
	// APIServerSeries is for Own.Keep of an API server.
	APIServerSeries = `kubernetes_build_info|aggregator_unavailable_apiservice(_total)?` +
		`|apiserver_(audit_event|audit_requests_rejected|request|request_terminations|tls_handshake_errors|init_events|watch_events)_total` +
		`|apiserver_client_certificate_expiration_seconds_(bucket|count)` +
		`|apiserver_(current_inflight_requests|current_inqueue_requests|longrunning_requests|requested_deprecated_apis|resource_objects|storage_objects)` +
		`|apiserver_request_sli_duration_seconds_(bucket|count|sum)|apiserver_request_duration_seconds_(count|sum)` +
		`|apiserver_admission_(webhook|controller)_admission_duration_seconds_(count|sum)|apiserver_admission_webhook_(rejection|fail_open)_count` +
		`|apiserver_flowcontrol_(current_inqueue_requests|rejected_requests_total|request_concurrency_limit)` +
		`|authenticated_user_requests|authentication_attempts|authorization_attempts_total` +
		`|etcd_request_duration_seconds_(count|sum)|etcd_request(s|_errors)_total` +
		`|workqueue_(adds_total|depth|retries_total|unfinished_work_seconds|longest_running_processor_seconds)` +
		`|workqueue_queue_duration_seconds_(bucket|count|sum)|workqueue_work_duration_seconds_(count|sum)` +
		`|rest_client_(requests_total|request_duration_seconds_(bucket|count|sum))` +
		`|go_(info|goroutines|threads|gc_duration_seconds.*|memstats_(alloc|heap_inuse|sys)_bytes)|process_.+`

	// APIServerBuckets is for Own.Drop of an API server: limits that no service
	// level names and no quantile needs.
	APIServerBuckets = `apiserver_request_sli_duration_seconds_bucket;(0\.[68]|1\.25|1\.5|[23468](\.0)?|(15|20|45)(\.0)?)`

	// EtcdSeries is for Own.Keep of an etcd server.
	EtcdSeries = `etcd_server_(has_leader|is_leader|leader_changes_seen_total|proposals_(committed|applied|failed)_total|proposals_pending|quota_backend_bytes)` +
		`|etcd_server_(slow_apply_total|slow_read_indexes_total|heartbeat_send_failures_total|health_(failures|success)|version|id|client_requests_total)` +
		`|etcd_disk_(backend_commit|wal_fsync)_duration_seconds_(bucket|count|sum)` +
		`|etcd_mvcc_db_total_size_in(_use_in)?_bytes|etcd_mvcc_(put|delete|range|txn)_total|etcd_debugging_mvcc_(keys_total|db_total_size_in_bytes)` +
		`|etcd_network_(client_grpc|peer)_.+|etcd_cluster_version|grpc_server_(started|handled)_total` +
		`|process_(resident_memory_bytes|open_fds|max_fds|cpu_seconds_total|start_time_seconds)`
)
