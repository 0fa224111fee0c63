// Package exporter makes series about this machine, with node_exporter's names,
// and about the cluster's objects, with kube-state-metrics' names.
//
// Both are prometheus.Collectors over what they are given: Node reads /proc and
// /sys when it is gathered, Objects reads lists the caller keeps in memory.
// Objects.Samples says the same without families and text: it remembers the
// series of each object, writes anew only objects that changed, and tells what
// stays the same every 15 s. It never scrapes anything.
//
// A part of the machine that is not there, such as sensors or a module of the
// kernel, costs one failed look at each round and is no error. Of node_exporter's
// default collectors only textfile is left out.
//
// Of kube-state-metrics' default set only Secrets are left out, because this role
// may not read them.
//
// Wiring: one registry each, handed to metrics/scrape as a Local:
//
//	nodes := prometheus.NewRegistry(); nodes.MustRegister(exporter.NewNode(cfg, log))
//	scrape.Local{Labels: {"job": "node-exporter", "instance": NODE}, Gather: nodes}
//	scrape.Local{Labels: {"job": "kube-state-metrics", "instance": NODE, "node": ""},
//		Samples: exporter.NewObjects(lists).Samples, Interval: 5 * time.Second}   // on one server only
//
// Start reading at Collect in node.go and at Samples in changes.go.
// testdata/*.txt list every series of a source with its labels; TestBeside… run
// Debian's node_exporter over the same machine and say what differs and why.
package exporter
