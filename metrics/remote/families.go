package remote

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/golang/snappy"
	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"

	"perch/metrics/family"
)

// told is a receiver that is told the families: metadata_config of a target of
// remote write 1. Version 2 has them beside each series, see describer.
type told struct {
	client remote.WriteClient
	every  time.Duration
	most   int // families in one request
	next   time.Time
}

// tells is nil for a target that is not told.
func tells(t *config.RemoteWriteConfig, client remote.WriteClient) *told {
	if !t.MetadataConfig.Send || t.ProtobufMessage != remoteapi.WriteV1MessageType {
		return nil
	}
	return &told{client: client, every: time.Duration(t.MetadataConfig.SendInterval), most: max(1, t.MetadataConfig.MaxSamplesPerSend)}
}

// lookEvery is how exact intervals of telling are.
const lookEvery = time.Second

// Run tells receivers the families until ctx ends. A receiver of version 1 that
// does not take them is told at the next interval.
func (s *Sender) Run(ctx context.Context) error {
	var series describer
	for {
		now := time.Now()
		s.mu.Lock()
		beside := s.beside
		var due []*told
		for _, t := range s.told {
			if !now.Before(t.next) {
				t.next = now.Add(t.every)
				due = append(due, t)
			}
		}
		s.mu.Unlock()
		if len(due) > 0 {
			s.tell(ctx, due)
		}
		if beside > 0 {
			if err := series.look(ctx, now, beside, s); err != nil && ctx.Err() == nil {
				s.log.Warn("types and helps of series were not written for remote write 2", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(lookEvery):
		}
	}
}

func (s *Sender) tell(ctx context.Context, due []*told) {
	var all []prompb.MetricMetadata
	seen := map[family.Family]bool{}
	for _, from := range s.families() {
		for _, f := range from.Families {
			if !seen[f] {
				seen[f] = true
				all = append(all, prompb.MetricMetadata{MetricFamilyName: f.Name, Help: f.Help, Unit: f.Unit, Type: prompb.FromMetadataType(f.Type)})
			}
		}
	}
	var wait sync.WaitGroup
	for _, t := range due {
		wait.Go(func() {
			for first := 0; first < len(all); first += t.most {
				part := all[first:min(first+t.most, len(all))]
				if err := t.send(ctx, part); err != nil {
					if ctx.Err() == nil {
						s.untold.Add(float64(len(all) - first))
						s.log.Warn("types and helps of metrics were not sent", "url", t.client.Endpoint(), "err", err)
					}
					return
				}
				s.sent.Add(float64(len(part)))
			}
		})
	}
	wait.Wait()
}

func (t *told) send(ctx context.Context, part []prompb.MetricMetadata) error {
	req := prompb.WriteRequest{Metadata: part}
	raw, err := req.Marshal()
	if err != nil {
		return fmt.Errorf("write metric families: %w", err)
	}
	_, err = t.client.Store(ctx, snappy.Encode(nil, raw), 0)
	return err
}
