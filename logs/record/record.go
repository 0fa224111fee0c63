package record

import (
	"cmp"
	"hash/fnv"
)

// Outputs a line can come from.
const (
	Stdout  = "stdout"
	Stderr  = "stderr"
	Event   = "event"
	Forward = "forward"
	Push    = "push"
)

// Kinds of records.
const (
	KindLog   = "log"
	KindEvent = "event"
)

// HostNamespace is the namespace of machine-local senders that are no pod.
const HostNamespace = "_host"

// MaxBody is the longest body in bytes that a door may pass on. Longer lines
// are cut by Cut.
const MaxBody = 256 << 10

// MaxFields is the most bytes that a record's fields have together when they are
// stored. CutFields cuts those that have more.
const MaxFields = 1 << 20

// BatchBytes is after how many bytes, by Record.Size, those who gather records hand
// them over: a store refuses a hundred MiB at once, and would each time they come again.
const BatchBytes = 1 << 20

// Stream names one source of lines. Two records with equal streams are stored
// beside each other.
type Stream struct {
	Namespace string
	Pod       string
	UID       string
	Container string
	Instance  string // attempt of the container, "0" for the first
	Node      string
	Output    string // stdout, stderr, event, forward, push
	Kind      string // log, event, …
}

// Compare orders streams so that those of one app, whose lines are alike, are
// beside each other.
func (s *Stream) Compare(o *Stream) int {
	return cmp.Or(cmp.Compare(s.Namespace, o.Namespace), cmp.Compare(s.Container, o.Container), cmp.Compare(s.Kind, o.Kind), cmp.Compare(s.Output, o.Output),
		cmp.Compare(s.Pod, o.Pod), cmp.Compare(s.UID, o.UID), cmp.Compare(s.Instance, o.Instance), cmp.Compare(s.Node, o.Node))
}

// Labels are the field names a Stream answers to, in display order.
func Labels() []string {
	return []string{"namespace", "pod", "container", "instance", "node", "stream", "kind", "uid"}
}

// Label returns the value of a stream label and whether name is one.
func (s *Stream) Label(name string) (string, bool) {
	switch name {
	case "namespace":
		return s.Namespace, true
	case "pod":
		return s.Pod, true
	case "uid":
		return s.UID, true
	case "container":
		return s.Container, true
	case "instance":
		return s.Instance, true
	case "node":
		return s.Node, true
	case "stream":
		return s.Output, true
	case "kind":
		return s.Kind, true
	}
	return "", false
}

// Hash identifies the stream. It is the same on every machine and for ever.
func (s *Stream) Hash() uint64 {
	h := fnv.New64a()
	sep := []byte{0}
	for _, v := range s.list() {
		_, _ = h.Write([]byte(*v)) // a hash never fails
		_, _ = h.Write(sep)
	}
	return h.Sum64()
}

// list is the written order of the labels. Adding one changes the codec version.
func (s *Stream) list() [8]*string {
	return [8]*string{&s.Namespace, &s.Pod, &s.UID, &s.Container, &s.Instance, &s.Node, &s.Output, &s.Kind}
}

// Field is one named value that a sender gave beside the body.
type Field struct {
	Key   string
	Value string
}

// Record is one line.
type Record struct {
	Time   int64 // ns since the epoch
	Stream *Stream
	Level  Level // Unknown is detected when the record is stored
	Body   []byte
	Fields []Field // of pushed records; container output has none
}

// Size is how many bytes body and fields have.
func (r *Record) Size() int {
	n := len(r.Body)
	for _, f := range r.Fields {
		n += len(f.Key) + len(f.Value)
	}
	return n
}

// Position says how much of a source file is stored. It becomes durable in the
// same fsync as the records it is appended with.
type Position struct {
	File  string // the container attempt the file belongs to, relative to the log directory
	Inode uint64
	Print uint64 // fingerprint of the first bytes, since inodes are used again
	// Everything of stdout (stderr) that begins before this offset is stored.
	Stdout, Stderr int64
}
