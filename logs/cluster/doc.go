// Package cluster answers log queries from all nodes as if they were one.
//
//	New(parts, log) → *Fan, a query.Searcher: asks this machine's engine and every
//	peer at the same time and merges in time order. A peer that does not answer is
//	asked by its copy, which "copies" tells with its age; "missing" names those
//	without. The answer is partial when lines asked for may be nowhere.
//	Remote is one peer, or one copy, asked over the HTTP API of logs/query.
//
// Stores that no node has any more, of nodes that were removed or set up anew, are
// always asked by their copies.
//
// It owns no data. It never fails a query because one node is away, and never
// hides that one is. Lines that two nodes hold (a store and its follower) have
// the same id and are shown once.
//
// A peer is asked with the namespaces the asker may read in the header
// query.NamespacesHeader; its door trusts that only from perch's own servers.
// Start reading at Fan.Query in fan.go.
package cluster
