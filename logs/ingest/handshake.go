package ingest

import (
	"crypto/rand"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/tinylib/msgp/msgp"
)

var errKey = errors.New("shared key does not match")

// handshake proves that both sides know one of the keys: HELO, PING, PONG.
func (f *Forward) handshake(r *reader) (Key, error) {
	r.until = time.Now().Add(f.cfg.Greeting)
	defer func() { r.until = time.Time{} }()
	if err := r.c.SetWriteDeadline(r.until); err != nil {
		return Key{}, err
	}
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce) // never fails
	b := msgp.AppendArrayHeader(nil, 2)
	b = msgp.AppendString(b, "HELO")
	b = msgp.AppendMapHeader(b, 3)
	b = msgp.AppendString(b, "nonce")
	b = msgp.AppendBytes(b, nonce)
	b = msgp.AppendString(b, "auth")
	b = msgp.AppendString(b, "")
	b = msgp.AppendString(b, "keepalive")
	b = msgp.AppendBool(b, true)
	if _, err := r.c.Write(b); err != nil {
		return Key{}, err
	}
	host, salt, digest, err := r.ping()
	if err != nil {
		return Key{}, err
	}
	var key Key
	ok := false
	for _, k := range f.cfg.Keys {
		if subtle.ConstantTimeCompare([]byte(keyDigest(salt, host, nonce, k.Secret)), digest) == 1 {
			key, ok = k, true
		}
	}
	b = msgp.AppendArrayHeader(nil, 5)
	b = msgp.AppendString(b, "PONG")
	b = msgp.AppendBool(b, ok)
	if ok {
		b = msgp.AppendString(b, "")
	} else {
		b = msgp.AppendString(b, "shared key does not match")
	}
	b = msgp.AppendString(b, f.cfg.Hostname)
	b = msgp.AppendString(b, keyDigest(salt, []byte(f.cfg.Hostname), nonce, key.Secret))
	if _, err := r.c.Write(b); err != nil {
		return Key{}, err
	}
	if !ok {
		return Key{}, errKey
	}
	return key, nil
}

func keyDigest(salt, host, nonce []byte, key string) string {
	h := sha512.New()
	for _, p := range [][]byte{salt, host, nonce, []byte(key)} {
		_, _ = h.Write(p) // a hash never fails
	}
	return hex.EncodeToString(h.Sum(nil))
}

const maxPing = 4 << 10

// ping reads ["PING", hostname, salt, digest, user, password].
func (r *reader) ping() (host, salt, digest []byte, err error) {
	for {
		b := r.buf[r.at:]
		var parts [6][]byte
		n, rest, err := msgp.ReadArrayHeaderBytes(b)
		if err == nil && n != 6 {
			return nil, nil, nil, fmt.Errorf("%w: a PING was expected", errFormat)
		}
		for i := range parts {
			if err == nil {
				parts[i], rest, err = readText(rest)
			}
		}
		if err == nil {
			if string(parts[0]) != "PING" {
				return nil, nil, nil, fmt.Errorf("%w: a PING was expected", errFormat)
			}
			r.at = len(r.buf) - len(rest)
			return parts[1], parts[2], parts[3], nil
		}
		if !errors.Is(err, msgp.ErrShortBytes) || len(b) > maxPing {
			return nil, nil, nil, fmt.Errorf("%w: %w", errFormat, err)
		}
		if err := r.fill(); err != nil {
			return nil, nil, nil, err
		}
	}
}
