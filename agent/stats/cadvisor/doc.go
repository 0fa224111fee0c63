// Package cadvisor gathers from the cAdvisor library what the table of
// agent/stats leaves to it: network, disk input and output, processes, machine.
//
// It is a package of its own because the library registers flags and factories
// globally: a program that does not import it stays free of them. There can be
// one Source in a process.
//
// Wiring:
//
//	src := cadvisor.New(cfg, name, log)
//	g.Go("cadvisor", src.Run)                 // waits for the runtime's socket
//	stats.Parts{Rest: src}
//
// Start reading at Run in source.go.
package cadvisor
