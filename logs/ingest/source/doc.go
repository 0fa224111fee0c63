// Package source bounds what each sender may push: lines and bytes a second,
// with room for bursts. One Sources is shared by all doors, so that a sender
// who uses two doors has one budget.
//
// It owns the balances. It never drops anything: it tells how long the sender
// must wait, and the door makes it wait (Forward, syslog over TCP) or tells it
// to come back (HTTP 429 with Retry-After). Places bound the connections of a door,
// and those of one address, so that it leaves some to the others.
//
// Methods may be called from any goroutine; a nil *Sources sets no limits.
// Start reading at Take in source.go; the arithmetic is in decide.go, connections are
// in places.go.
package source
