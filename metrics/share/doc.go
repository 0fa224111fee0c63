// Package share spreads series over several stores, so that each is in two of
// them and one may be away.
//
// It owns who gets which series (Places: dskit's hash ring over a fixed set of
// stores, by the hash of the labels), since when (History: what is in the WAL up
// to a position was placed by the stores of then), the sending of a node's own
// samples (Sender: a forwarder for each store, each with its own position), and
// one view of all stores for queries (Fan). It does not find the stores: who
// knows them tells (Sender.Stores).
//
// The server is always a store. What it makes itself stays in its own database
// and has its second copy elsewhere; what others send goes to a database beside
// it, as on every other store, because a forwarder must not send on what came
// from others. With one store none of this runs: everything goes to the server.
//
// A store that is away keeps its place for Config.Forget: its samples wait in the
// WAL of those who send. When the stores change, new samples go to the new places
// and old ones stay where they are; queries ask all stores.
//
// No role starts it yet.
//
// Start reading at Decide in decide.go, then Run in sender.go, then Fan in fan.go.
package share
