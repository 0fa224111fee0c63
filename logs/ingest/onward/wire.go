package onward

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"time"

	"github.com/tinylib/msgp/msgp"

	"perch/logs/block"
	"perch/logs/ingest/entry"
	"perch/logs/record"
)

// lastTime is the last that an EventTime can say, ns: the two seconds after it are
// marks of groups. What is beyond its range, 1970 to 2106, is sent as its ends.
const lastTime = (math.MaxUint32-1)*int64(1e9) - 1

// pack writes entries [EventTime, map] of lines from first on, at most limit,
// until the chunk is full. It returns how many there are: one at least.
func (o *Onward) pack(s *record.Stream, l *block.Lines, first, limit int) (body []byte, n int) {
	labels := []record.Field{{Key: Mark, Value: o.cfg.Mark}, {Key: "namespace", Value: s.Namespace}, {Key: "pod", Value: s.Pod}, {Key: "container", Value: s.Container},
		{Key: "instance", Value: s.Instance}, {Key: "uid", Value: s.UID}, {Key: "node", Value: s.Node}, {Key: "stream", Value: s.Output}, {Key: "kind", Value: s.Kind}}
	for n < limit && n < o.cfg.Lines && len(body) < o.cfg.Bytes {
		i := first + n
		fields, _ := entry.Pairs(l.FieldsOf(i)) // a line without fields has none
		body = append(body, 0x92, 0xd7, 0)      // EventTime: seconds and nanoseconds
		at := min(max(l.Times[i], 0), lastTime)
		body = binary.BigEndian.AppendUint32(body, uint32(at/1e9))
		body = binary.BigEndian.AppendUint32(body, uint32(at%1e9))
		size := uint32(len(fields) + 2)
		for _, f := range labels {
			if f.Value != "" {
				size++
			}
		}
		body = msgp.AppendMapHeader(body, size)
		body = msgp.AppendStringFromBytes(msgp.AppendString(body, "log"), l.Body(i))
		body = msgp.AppendString(msgp.AppendString(body, "level"), record.Level(l.Levels[i]).String())
		for _, f := range labels {
			if f.Value != "" {
				body = msgp.AppendString(msgp.AppendString(body, f.Key), f.Value)
			}
		}
		for _, f := range fields {
			body = msgp.AppendString(msgp.AppendString(body, "field."+f.Key), f.Value)
		}
		n++
	}
	return body, n
}

type conn struct {
	net.Conn
	in *msgp.Reader
}

// newConn bounds what a receiver may answer with: whoever it is, what it says costs
// little memory.
func newConn(c net.Conn) *conn {
	in := msgp.NewReader(bufio.NewReader(c))
	in.SetMaxElements(1 << 10)     // bytes of a nonce or fields of a map; 3 are usual
	in.SetMaxStringLength(4 << 10) // as of what is said to our own door
	in.SetMaxRecursionDepth(4)
	return &conn{Conn: c, in: in}
}

// chunkID names n lines of a stream. Their number in it and the time of the first are
// both in it: of a stream that had no line for so long that nothing of it is left, and
// of a store that was set up anew, numbers come again.
func chunkID(hash, first uint64, n int, at int64) string {
	return fmt.Sprintf("%016x-%d-%d-%d", hash, first, n, at)
}

// send sends one chunk and waits for its acknowledgement.
func (o *Onward) send(ctx context.Context, s *record.Stream, id string, n int, body []byte) error {
	if o.c == nil {
		c, err := o.dial(ctx)
		if err != nil {
			return err
		}
		o.c = c
	}
	c := o.c // which hangUp may have set to nil when ctx ends
	end := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer end()
	if err := o.c.SetDeadline(time.Now().Add(o.cfg.Timeout)); err != nil {
		return err
	}
	tag := o.cfg.Tag
	for _, part := range []string{s.Namespace, s.Pod, s.Container} {
		if part != "" {
			tag += "." + part
		}
	}
	b := msgp.AppendString(msgp.AppendArrayHeader(nil, 3), tag)
	b = msgp.AppendBytes(b, body)
	b = msgp.AppendMapHeader(b, 2)
	b = msgp.AppendString(msgp.AppendString(b, "chunk"), id)
	b = msgp.AppendInt(msgp.AppendString(b, "size"), n)
	if _, err := o.c.Write(b); err != nil {
		return err
	}
	acked, err := o.c.acknowledged()
	if err != nil {
		return fmt.Errorf("read acknowledgement: %w", err)
	}
	if acked != id {
		return fmt.Errorf("acknowledgement of %q, chunk %q was sent", acked, id)
	}
	return nil
}

// acknowledged reads {"ack": chunk}, and which that is.
func (c *conn) acknowledged() (chunk string, _ error) {
	fields, err := c.in.ReadMapHeader()
	if err != nil {
		return "", err
	}
	for range fields {
		key, err := c.in.ReadString()
		if err == nil && key == "ack" {
			chunk, err = c.in.ReadString()
		} else if err == nil {
			err = c.in.Skip()
		}
		if err != nil {
			return "", err
		}
	}
	return chunk, nil
}

func (o *Onward) dial(ctx context.Context) (*conn, error) {
	d := net.Dialer{Timeout: o.cfg.Timeout}
	c, err := d.DialContext(ctx, "tcp", o.cfg.Address)
	if err != nil {
		return nil, err
	}
	raw := c
	end := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer end()
	err = o.elsewhere(c)
	if err == nil {
		err = c.SetDeadline(time.Now().Add(o.cfg.Timeout))
	}
	if err == nil && o.cfg.TLS != nil {
		cfg := o.cfg.TLS.Clone()
		if cfg.ServerName == "" {
			cfg.ServerName, _, _ = net.SplitHostPort(o.cfg.Address) // it was dialled
		}
		t := tls.Client(c, cfg)
		c, err = t, t.HandshakeContext(ctx)
	}
	out := newConn(c)
	if err == nil && o.cfg.Key != "" {
		err = o.handshake(out)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("greet receiver: %w", err), c.Close())
	}
	return out, nil
}

var errLoop = errors.New("the receiver is this node's own Forward port: lines would go round for ever")

// elsewhere refuses a connection to this node's own port, by whatever name it
// was found.
func (o *Onward) elsewhere(c net.Conn) error {
	near, _ := netip.ParseAddrPort(c.LocalAddr().String())
	far, _ := netip.ParseAddrPort(c.RemoteAddr().String())
	if o.cfg.OwnPort != 0 && int(far.Port()) == o.cfg.OwnPort && (far.Addr() == near.Addr() || far.Addr().Unmap().IsLoopback()) {
		return errLoop
	}
	return nil
}

// handshake answers HELO with PING and reads PONG: both sides know the key.
func (o *Onward) handshake(c *conn) error {
	helo, err := c.in.ReadIntf()
	if err != nil {
		return err
	}
	list, _ := helo.([]any)
	if len(list) != 2 || list[0] != "HELO" {
		return errors.New("a HELO was expected")
	}
	options, _ := list[1].(map[string]any)
	var nonce []byte
	switch v := options["nonce"].(type) {
	case []byte:
		nonce = v
	case string:
		nonce = []byte(v)
	}
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	digest := func(host string) string {
		h := sha512.New()
		for _, p := range [][]byte{salt, []byte(host), nonce, []byte(o.cfg.Key)} {
			_, _ = h.Write(p) // a hash never fails
		}
		return hex.EncodeToString(h.Sum(nil))
	}
	b := msgp.AppendString(msgp.AppendArrayHeader(nil, 6), "PING")
	b = msgp.AppendString(b, o.cfg.Host)
	b = msgp.AppendBytes(b, salt)
	b = msgp.AppendString(b, digest(o.cfg.Host))
	b = msgp.AppendString(msgp.AppendString(b, ""), "")
	if _, err := c.Write(b); err != nil {
		return err
	}
	pong, err := c.in.ReadIntf()
	if err != nil {
		return err
	}
	list, _ = pong.([]any)
	if len(list) != 5 || list[0] != "PONG" {
		return errors.New("a PONG was expected")
	}
	if list[1] != true {
		return fmt.Errorf("the receiver does not take the key: %v", list[2])
	}
	host, _ := list[3].(string)
	if list[4] != digest(host) {
		return errors.New("the receiver does not know the key")
	}
	return nil
}
