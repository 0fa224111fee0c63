package promapi

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"google.golang.org/protobuf/encoding/protowire"
)

// maxDepth of messages within each other are taken; encoding/json has the same
// limit. The decoder of OTLP goes as deep as it is led, until the process has no
// stack left.
const maxDepth = 10_000

// shallow unpacks the body of an OTLP request and refuses one that is too deep or has
// too many parts.
func shallow(w http.ResponseWriter, r *http.Request) error {
	from := io.Reader(http.MaxBytesReader(w, r.Body, maxBatch))
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(from)
		if err != nil {
			return fmt.Errorf("unpack body: %w", err)
		}
		from = z
		r.Header.Del("Content-Encoding")
	}
	body, err := io.ReadAll(io.LimitReader(from, maxBatch+1))
	if err != nil {
		return fmt.Errorf("read body: %w", err)
	}
	if len(body) > maxBatch {
		return fmt.Errorf("read body: more than %d bytes when unpacked", maxBatch)
	}
	switch r.Header.Get("Content-Type") {
	case "application/json":
		if !json.Valid(body) {
			return errors.New("read body: it is no JSON, or too deep")
		}
		if leftJSON(body, maxDecoded) < 0 {
			return errHeavy
		}
	default:
		if nested(body, maxDepth) {
			return fmt.Errorf("read body: more than %d messages within each other", maxDepth)
		}
		if otlpRequest().left(body, maxDecoded) < 0 {
			return errHeavy
		}
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return nil
}

// nested answers whether more than most messages of a protobuf body can be within
// each other. What is text is looked into as well; it is no message before long.
func nested(b []byte, most int) bool {
	if most < 0 {
		return true
	}
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return false
		}
		b = b[n:]
		if kind == protowire.BytesType {
			within, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return false
			}
			if nested(within, most-1) {
				return true
			}
			b = b[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return false
		}
		b = b[n:]
	}
	return false
}
