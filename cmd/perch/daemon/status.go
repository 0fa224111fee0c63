package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"perch/cmd/perch/daemon/config"
)

// askTelemetry reads what the telemetry role of this machine tells on its socket. It is
// false while the role does not answer, and where it has nothing of the kind.
func askTelemetry(ctx context.Context, cfg config.Config, path string, to any) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://telemetry"+path, http.NoBody)
	if err != nil {
		return false, fmt.Errorf("ask %s: %w", path, err)
	}
	resp, err := unixClient(cfg.Socket("telemetry")).Do(req)
	if err != nil {
		return false, nil // the table of roles says that it is away
	}
	defer resp.Body.Close() // read only
	if resp.StatusCode != http.StatusOK {
		return false, nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 8<<20)).Decode(to); err != nil {
		return false, fmt.Errorf("ask %s: %w", path, err)
	}
	return true, nil
}

// showCopy prints where this node's lines have their copy; nothing where there is no
// other node.
func showCopy(ctx context.Context, cfg config.Config, out io.Writer) error {
	var s copyStatus
	if ok, err := askTelemetry(ctx, cfg, copyPath, &s); !ok {
		return err
	}
	return writeCopy(out, s, time.Now())
}

func writeCopy(out io.Writer, s copyStatus, now time.Time) error {
	if len(s.Members) == 0 {
		return nil
	}
	at, behind, state := "none", "-", []string{}
	if s.Own.Follower != "" {
		at = s.Own.Follower
	}
	if !s.Own.At.IsZero() {
		behind = max(0, now.Sub(s.Own.At)).Truncate(time.Second).String()
	}
	switch {
	case s.Own.Follower == "":
	case s.Own.Whole:
		state = append(state, "whole")
	default:
		state = append(state, "older lines are still to come")
	}
	if s.Own.Pending > 0 {
		state = append(state, size(s.Own.Pending)+" to send")
	}
	if s.Own.Next != "" {
		state = append(state, "moves to "+s.Own.Next)
	}
	for _, why := range []string{s.Own.Reason, s.Own.Error} {
		if why != "" {
			state = append(state, why)
		}
	}
	tw := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
	fmt.Fprintf(tw, "\nCOPY OF LINES\tBEHIND\tSTATE\n%s\t%s\t%s\n", at, behind, strings.Join(state, "; "))
	if len(s.Kept) > 0 {
		fmt.Fprintf(tw, "\nKEEPS LINES OF\tBEHIND\tUSED\n")
	}
	for _, c := range s.Kept {
		fmt.Fprintf(tw, "%s\t%s\t%s\n", c.Owner, max(0, now.Sub(c.At)).Truncate(time.Second), size(c.Bytes))
	}
	return tw.Flush()
}
