// Package probe asks containers how they are: http, tcp, exec and grpc probes
// for startup, liveness and readiness, with kubelet's rules.
//
// It owns the timing and the thresholds. It never restarts anything: Health says
// what is known, and agent/pod decides. One goroutine for each probe, started
// and ended by Run; at most Config.AtOnce probes run at the same time, the
// others wait their turn (perch_probe_waiting).
//
//	p := probe.New(probe.Default(), rt, probe.Hooks{Changed: …, Tell: …, Observe: …}, log, reg)
//	group.Go("probe", p.Run)
//	p.Keep(uid, targets)       // the whole truth about one pod; nil ends its probes
//	p.Health(uid)              // by container name
//
// Start reading at Run in run.go, then after in decide.go.
package probe
