// Package load brings image archives into the runtime without a registry, and
// lists and removes images: what `perch images load FILE.tar` does.
//
// It speaks containerd's API on the runtime's socket, because CRI has no call
// for archives; an external CRI endpoint that is not containerd cannot do it,
// and Open says so. It never pulls (agent/image does, over CRI) and never
// collects garbage.
//
//	l, err := load.Open(ctx, "/data/run/runtime.sock")
//	got, err := l.Import(ctx, file)   // OCI or Docker archive, plain or compressed
//
// Start reading at Import in load.go.
package load
