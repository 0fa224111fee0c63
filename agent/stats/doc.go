// Package stats turns cgroups into series. The table in table.go names every
// series and its one producer: the fast reader (1 s into the ring, 5 s to the
// sink), the specification of a cgroup (15 s), or the rest: network, disks,
// processes, the machine (15 s).
//
// Names and labels are those of kubelet's /metrics/cadvisor. It never decides:
// eviction, recorder and autoscaler read its numbers.
//
// Invariants: one producer per series; a container seen for however short has
// a first and a last sample; counters are the kernel's and go on when the agent
// restarts; a series that ends gets a stale marker; every buffer is bounded and
// counts what it drops.
//
// Where nothing happens it saves: a cgroup whose CPU time and memory use stand
// still is read in full only every 15 s, its processes and disks are counted
// once a minute. Of one that runs, each second shows CPU time, throttling and
// memory; pressure and threads are read when they are stored. Sockets of a
// process are counted once a minute while it has as many files open.
//
// Wiring:
//
//	s, err := stats.New(cfg, stats.Parts{Name: …, Machine: cadvisor.Machine, Sandbox: …, Sink: client.Send}, log, reg)
//	g.Go("stats", s.Run)
//	s.Started(path)            // after the container's process runs
//	s.Ended(path, exit)        // before the cgroup is removed
//	mux.Handle("/perch/v1/seconds", s.SecondsHandler())  // 1 s points of the last ten minutes, for PromQL
//	mux.Handle("/metrics/cadvisor", s.CadvisorHandler()); …/metrics/resource, /stats/summary
//
// All methods may be called concurrently. Start reading at Run in run.go.
package stats
