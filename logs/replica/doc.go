// Package replica keeps one copy of a node's log store on another node, so that
// its lines can be read after the node died.
//
//	NewShipper(cfg, files, followers, client, log, reg); Run(ctx)   on the owner
//	NewKeeper(cfg, log, reg); Run(ctx); Ships() and Reads()         on the follower
//
// The files of the store are shipped as they are, by (path, version, offset):
// first the new end of the write-ahead log, at once, then blocks and the indexes
// of sealed partitions. So a copy is what the owner's directory would be after a
// crash, and is opened with store.OpenCopy only when it is asked. What the
// follower acknowledges is fsynced there. A mark says that the write-ahead log
// is there up to a time; a commit says that everything is, and what may go.
//
// The owner decides where its copy is: at the first healthy node the ring names.
// When that changes, the new follower is brought up beside the old one, which is
// told to drop its copy once the new one is complete. Retention is the owner's;
// a copy whose owner is gone goes when its lines are too old.
//
// Limits: bytes of all copies on a follower (the oldest partitions go first, and
// are not shipped again), free space it leaves, bytes per second of an owner,
// opened copies. What a follower refuses the owner keeps, as long as its own
// store does: perch_replica_lag_seconds and _bytes.
//
// Start reading at Shipper.Run in ship.go, then decide.go, then held.receive in
// held.go.
package replica
