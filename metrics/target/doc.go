// Package target decides what to scrape on this node: pods and services that
// carry the annotations prometheus.io/scrape, port, path and scheme (Decide), and
// what ServiceMonitor and PodMonitor objects ask for (Monitored).
//
// They are pure functions and their types. What is not scraped although it asks
// to be comes back with the reason. It never connects to anything.
//
// Start reading at Decide in decide.go.
package target
