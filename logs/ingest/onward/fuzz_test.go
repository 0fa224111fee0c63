package onward

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"testing"

	"github.com/tinylib/msgp/msgp"
)

// said is a connection whose other side says what it says whatever it hears.
type said struct {
	net.Conn
	io.Reader
}

func (s said) Read(b []byte) (int, error)  { return s.Reader.Read(b) }
func (s said) Write(b []byte) (int, error) { return len(b), nil }

// What a receiver answers is refused or understood, and costs little memory.
func FuzzAnswers(f *testing.F) {
	helo := msgp.AppendString(msgp.AppendArrayHeader(nil, 2), "HELO")
	helo = msgp.AppendMapHeader(helo, 2)
	helo = msgp.AppendBytes(msgp.AppendString(helo, "nonce"), []byte("0123456789abcdef"))
	helo = msgp.AppendBool(msgp.AppendString(helo, "keepalive"), true)
	pong := msgp.AppendString(msgp.AppendArrayHeader(nil, 5), "PONG")
	pong = msgp.AppendString(msgp.AppendBool(pong, true), "")
	pong = msgp.AppendString(msgp.AppendString(pong, "host"), "digest")
	ack := msgp.AppendString(msgp.AppendString(msgp.AppendMapHeader(nil, 1), "ack"), "chunk")
	f.Add(append(helo, pong...))
	f.Add(ack)
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	f.Add([]byte{0xdd, 0xff, 0xff, 0xff, 0xff})                               // an array of 2^32 - 1
	f.Add([]byte{0xdf, 0xff, 0xff, 0xff, 0xff})                               // a map of as many
	f.Add([]byte{0xdb, 0xff, 0xff, 0xff, 0xff})                               // a string of 4 GiB
	f.Add(append(msgp.AppendMapHeader(nil, 1), 0xc6, 0xff, 0xff, 0xff, 0xff)) // a key of as many bytes
	f.Add(append(msgp.AppendString(msgp.AppendMapHeader(nil, 1), "ack"), 0xdb, 0xff, 0xff, 0xff, 0xff))
	f.Add(bytes.Repeat([]byte{0x91}, 1<<12)) // lists in lists
	o := &Onward{cfg: Config{Host: "n1", Key: "s3"}}
	f.Fuzz(func(t *testing.T, b []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := o.handshake(newConn(said{Reader: bytes.NewReader(b)})); err == nil {
			t.Error("a receiver that cannot know the key was believed")
		}
		chunk, err := newConn(said{Reader: bytes.NewReader(b)}).acknowledged()
		if err == nil && len(chunk) > len(b) {
			t.Errorf("acknowledged %q, which was not said", chunk)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20+64*uint64(len(b)) {
			t.Errorf("%d bytes cost %d of memory", len(b), n)
		}
	})
}
