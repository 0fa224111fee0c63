// Package store keeps the cluster's state in an etcd member that runs inside
// this process.
//
// It owns the directory it is given: nobody else opens it, and a second
// instance gets ErrLocked instead of waiting. It never listens for etcd
// clients; readers and writers use Client, which calls the member directly.
// The peer door opens only when certificates for mutual TLS are given.
//
// Everything that was acknowledged survives kill -9: etcd syncs its log before
// it answers (unless Config.UnsafeNoSync is set, for tests that do not care).
//
//	s, err := store.Open(store.Config{Dir: dir, Name: "perch-0"}, log, reg)
//	group.OnStop("store", s.Close)        // after everything that reads or writes
//	group.Go("store", s.Run)              // returns when the member dies
//	s.Client()                            // *clientv3.Client, shared, safe for concurrent use
//
// When the backend is full (Config.QuotaBytes) etcd refuses writes with
// "mvcc: database space exceeded" and still answers reads; perch_store_db_bytes
// and perch_store_quota_bytes show it coming.
//
// Start reading at Open in store.go.
package store
