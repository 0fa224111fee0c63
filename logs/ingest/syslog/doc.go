// Package syslog receives lines as RFC 5424 and RFC 3164 messages over TCP
// (counted by octets or ended by a newline) and UDP.
//
// It owns the parsing and the limits of its door. The sender's host, program and
// process are fields; who it is decides the injected Identify, by address. Of
// structured data 128 fields are kept, and none whose id or name is longer than 256
// bytes (RFC 5424 allows 32); the line stays, what is left out is counted.
//
// Syslog has no acknowledgement. Over TCP the door stops reading while lines
// cannot be stored or the sender is over its limits, so nothing is lost while
// both live; what is in flight when either dies is lost or, when the sender
// repeats it, doubled. Over UDP lines are lost whenever the kernel's buffer is
// full: perch_syslog_udp_lost_total counts those it tells about, and those for which
// there is no room because others wait to be stored: 4,096, or 32 MiB.
//
// Each connection has one goroutine within Run, UDP two. Start reading at
// Syslog.Run in syslog.go; messages are taken apart in parse.go.
package syslog
