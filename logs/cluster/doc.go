// Package cluster answers log queries from all nodes as if they were one.
//
//	New(local, peers, log) → *Fan, a query.Searcher: asks this machine's engine
//	and every peer at the same time, merges in time order, and names in
//	"missing" the nodes that did not answer; the answer is then partial.
//	Remote is one peer, asked over the HTTP API of logs/query.
//
// It owns no data. It never fails a query because one node is away, and never
// hides that one is. Lines that two nodes hold (a store and its follower) have
// the same id and are shown once.
//
// A peer is asked with the namespaces the asker may read in the header
// query.NamespacesHeader; its door trusts that only from perch's own servers.
// Start reading at Fan.Query in fan.go.
package cluster
