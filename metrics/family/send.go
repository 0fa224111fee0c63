package family

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"
)

// maxBody bounds what one node tells at once, before and after unpacking.
const maxBody = 16 << 20

// SendConfig says where and how often a node tells its families.
type SendConfig struct {
	URL   string
	Look  time.Duration // between looks whether there is something new
	Again time.Duration // after which all is told again
}

// DefaultSend tells what is new within half a minute.
func DefaultSend(url string) SendConfig {
	return SendConfig{URL: url, Look: 30 * time.Second, Again: 15 * time.Minute}
}

// Send tells a server what gather says, until ctx ends. A server that does not take
// it, for example one of an older version, is asked again later; samples do not wait.
func Send(ctx context.Context, cfg SendConfig, client *http.Client, gather func() []Told, log *slog.Logger) error {
	var last [sha256.Size]byte
	var at time.Time
	failed := false
	for {
		body, err := json.Marshal(gather())
		if err != nil {
			return fmt.Errorf("write metric families: %w", err)
		}
		if sum := sha256.Sum256(body); sum != last || time.Since(at) > cfg.Again {
			err = post(ctx, cfg.URL, client, body)
			switch {
			case ctx.Err() != nil:
				return nil
			case err == nil:
				last, at, failed = sum, time.Now(), false
			case !failed:
				failed = true
				log.Warn("types and helps of metrics were not taken, trying again", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(cfg.Look):
		}
	}
}

func post(ctx context.Context, url string, client *http.Client, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(body); err != nil {
		return fmt.Errorf("pack metric families: %w", err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("pack metric families: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, &packed)
	if err != nil {
		return fmt.Errorf("send metric families: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Content-Encoding", "gzip")
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("send metric families: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("send metric families: %s", resp.Status)
	}
	return nil
}

// Take is the door for Send: 204 taken, 400 malformed or too large. What does not
// fit is counted, not refused: the sender could do nothing about it.
func (b *Book) Take(w http.ResponseWriter, r *http.Request) {
	told, err := read(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, "read metric families: "+err.Error(), http.StatusBadRequest)
		return
	}
	b.Learn(time.Now(), told...)
	w.WriteHeader(http.StatusNoContent)
}

func read(r io.Reader) (told []Told, _ error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(z, maxBody+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxBody {
		return nil, errors.New("too large")
	}
	return told, json.Unmarshal(body, &told)
}
