// Package target decides what to scrape, and says of everything that asks to be
// scraped and is not why: pods and services of one node that carry the
// annotations prometheus.io/scrape, port, path and scheme (Decide), and what
// ServiceMonitor, PodMonitor, Probe and ScrapeConfig objects ask for on all nodes
// (Plan). Check says at write what is wrong with an object and what of it does
// nothing. What objects look for at others, over HTTP and by DNS, is asked
// elsewhere (Searches, World.Found; see metrics/discovery).
//
// They are pure functions and their types. It never connects to anything and
// reads no Secret but through World.Value, only from the namespace of the object
// that names it.
//
// Start reading at Plan in plan.go.
package target
