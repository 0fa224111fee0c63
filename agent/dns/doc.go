// Package dns answers the cluster's DNS names on this node, for this node's
// pods: Services and their endpoints from the API, everything else from the
// machine's own resolvers.
//
// It is CoreDNS used as a library: its server and its plugins kubernetes, cache
// and forward are put together by hand, without Corefile, directives or
// caddy.Start. So nothing global is configured, and several may run in one
// process. What the library does keep globally are its metrics (default
// registry) and its log (standard logger).
//
// It answers on the two Sockets it is given. agent/proxy leads the cluster DNS
// Service's address there, by a static entry, on every node. Who holds copies
// of them keeps the questions that come while no Server runs; the next one
// answers them. A question about the cluster waits up to Config.Patience for
// the API's snapshot to be complete. It never says that a name does not exist
// before that: then it says SERVFAIL, and the client asks again. Answers about
// the cluster are never cached.
//
// Limits: 9984 cached answers and as many negative ones, evicted at random;
// 1000 questions at a time to the resolvers, then SERVFAIL; 1 MB of questions in
// the sockets, then they are dropped; 1000 questions that wait for the snapshot;
// 1024 connections over TCP, 64 of one address, then they are closed.
//
// Start reading at Run in run.go.
package dns
