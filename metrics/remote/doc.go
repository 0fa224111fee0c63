// Package remote sends what the metrics store commits to other systems by
// Prometheus' remote write, versions 1 and 2, with Prometheus' own sender.
//
// It owns the configuration: the sections `global` and `remote_write` of a
// prometheus.yml, other sections are refused. It owns no data: the store's WAL
// is the backlog, half an hour to one and a half of it; what is older when a
// receiver comes back is not sent (prometheus_remote_storage_* and
// prometheus_wal_watcher_* count). As with Prometheus, sending begins with what
// is committed after the start, so the backlog does not outlive a restart.
//
// Receivers are told type, help and unit of metric families too (Run): those of
// version 1 every now and then, as metadata_config says; those of version 2 beside
// each series, for which they are written to the WAL while there is such a target
// (unless its metadata_config says send: false).
//
// Apply and Notify may be called from any goroutine.
//
// Start reading at Apply.
package remote
