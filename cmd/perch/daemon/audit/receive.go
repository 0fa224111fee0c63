package audit

import (
	"context"
	"hash/fnv"
	"io"
	"net/http"
	"strconv"
	"sync"

	"perch/logs/record"
)

// Path is where the log store takes batches.
const Path = "/perch/v1/audit"

// File is the source under which the store remembers the last batch.
const File = "audit"

// A batch is named by the process that sends it and its number there.
const (
	bootHeader   = "Perch-Boot"
	numberHeader = "Perch-Batch"
)

// maxBatch bounds a batch in bytes: 500 lines are below that, see the limits in line.go.
const maxBatch = 8 << 20

// Receiver stores batches in the process that has the log store. It is for the
// machine's own socket, where one process sends, one batch at a time. last is what
// the store remembers of File.
func Receiver(last record.Position, sink func(context.Context, []record.Record, []record.Position) error) http.Handler {
	var mu sync.Mutex // guards last
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		text, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxBatch))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		b, err := record.DecodeBatch(text)
		number, nerr := strconv.ParseInt(req.Header.Get(numberHeader), 10, 64)
		if err != nil || nerr != nil || len(b.Positions) > 0 {
			http.Error(w, "not a batch of audit lines", http.StatusBadRequest)
			return
		}
		boot := fnv.New64a()
		_, _ = boot.Write([]byte(req.Header.Get(bootHeader))) // a hash never fails
		now := record.Position{File: File, Inode: 1, Print: boot.Sum64(), Stdout: number}
		mu.Lock()
		defer mu.Unlock()
		if last.Print != now.Print || last.Stdout < now.Stdout {
			// The sender may be gone; what came is stored all the same.
			if err := sink(context.WithoutCancel(req.Context()), b.Records, []record.Position{now}); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			last = now
		}
		w.WriteHeader(http.StatusNoContent)
	})
}
