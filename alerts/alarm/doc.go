// Package alarm lets a few workers tell people that their server is gone, when
// nobody else can: alerts come from the server.
//
// The server tells its watchers (Watchers) what they would need: the part of its
// Alertmanager configuration that the alert ServerUnreachable is routed by, and
// whether it is silenced. A watcher asks for it every few seconds, which is also
// how it sees that the server lives, and keeps it on its disk, readable by root
// alone. When no answer has come for Config.Patience it sends the alert itself,
// and its end when the server answers again; over its own restart too.
//
// It owns the file Config.File and nothing else: sending is the caller's.
//
// Start reading at Run in run.go; when to tell is decide.go.
package alarm
