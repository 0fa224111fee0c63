// Package discovery asks for the targets that objects look for outside the
// cluster's objects: services over HTTP and names of DNS (spec.httpSDConfigs and
// spec.dnsSDConfigs of a ScrapeConfig). What was found stays while an answer fails.
//
// It never decides what is a target, that is metrics/target, and reads no object
// and no Secret itself. Who may write an object must not reach with it what only
// this machine may: each connection is refused at the address it really goes to,
// where that is a loopback, link-local or metadata address (target.Guarded). The
// machine's address in the network is reached, as by scrapes. DNS is asked of the
// servers given in Parts only. Why an answer failed is told in words of our own:
// those of the one who answered may be for others than who reads the object.
//
//	l, err := discovery.New(discovery.Default(), parts, log, reg)
//	g.Go("discovery", l.Run)
//	world.Found = l.Found
//
// Start reading at Run in run.go.
package discovery
