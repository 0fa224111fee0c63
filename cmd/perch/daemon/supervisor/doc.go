// Package supervisor keeps the role processes of one machine running.
//
// It owns the children's pids, their restarts and their last errors. It never
// looks into what a role does: a role says "ready" or "error TEXT" over a
// channel (Notifier), says every few seconds that it lives (Pulse), and otherwise
// is judged by its exit.
//
// A role that gives no sign of life for long is ended with SIGABRT, which writes
// its goroutines into its log, then SIGKILL, and started again. Judge decides;
// it counts looks, so that a suspended machine is no reason.
//
// A role may have its listening sockets held: they come with the channel, stay
// open while the role restarts, so that callers wait instead of being refused,
// and are handed to the next run. They close when the role is stopped for good.
// At most maxHeld a role, more are refused and logged.
//
// A role that ends is started again after Delay; a role that ends with
// ExitRefused before it was ever ready ends the supervisor, because trying
// again cannot help (port in use, newer data, missing privilege).
//
// Start reading at Run in run.go; the rules are Delay in decide.go and Judge in
// life.go.
package supervisor
