// Package share keeps the series of the server a second time, in other stores: the
// server's own store has every series, and each series is also in the one of the
// further stores that the ring names. So queries, rules and remote write read one
// store of this machine, one further store may be away without anybody noticing,
// and what a server loses with its disk is still there.
//
// It owns which further store gets which series (Places: dskit's hash ring over a
// fixed set of stores, by the hash of the labels), since when (History: what is in
// the WAL up to a position was placed by the stores of then), the sending (Sender:
// from the WAL of the server's store, with a position and a backlog for each
// store), and the reading of what the server lost (Fan). It does not find the
// stores: who knows them tells (Parts.Stores). Without further stores nothing
// runs but a look every few seconds whether there are some.
//
// A store that is away keeps its place for Config.Forget: its samples wait in the
// WAL of the server, which grows meanwhile, and are sent in order when it comes
// back. After that its part goes to the others, and what was made meanwhile is in
// the server's store only. Copies begin with what the WAL has when the first store
// comes, the last half an hour to one and a half.
//
// The server knows for which time it may lack what copies have (Gap): all before
// now when it starts with an empty store, the end of a write-ahead log that was
// damaged. Only a query that reaches into that time asks the other stores; when
// one of them does not answer, the answer has the warning that it is partial. (A
// store that lost its place is forgotten with a restart of the server.) The gap ends
// with the retention: nobody has samples of then any more.
//
// Start reading at Decide in decide.go, then Run in sender.go, then Fan in fan.go.
package share
