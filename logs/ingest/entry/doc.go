// Package entry turns what senders call a log entry, an object with named
// values, into a record: one value is the line, one its time, one its level, the
// rest are fields.
//
// It owns the names that are looked for and the caps. It never decides who the
// sender is: namespace, pod and node of a record are the door's.
//
// Start reading at FromJSON in json.go; names and caps are in names.go.
package entry
