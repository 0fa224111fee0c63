package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

func targetsCommand(s Streams) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "targets",
		Short: "List what is scraped for metrics, and what is not and why",
		Args:  exactly(0, "no argument"),
	}
	a := newAccess(c.PersistentFlags())
	c.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if output != "table" && output != "json" {
			return Usage{fmt.Errorf("-o %s: use table or json", output)}
		}
		w, err := a.web(c.Context())
		if err != nil {
			return err
		}
		var got struct {
			Targets []struct {
				URL    string            `json:"url"`
				Labels map[string]string `json:"labels"`
				Health string            `json:"health"`
				Last   time.Time         `json:"last"`
				Error  string            `json:"error,omitempty"`
			} `json:"targets"`
			LeftOut []struct {
				From   string `json:"from"`
				Reason string `json:"reason"`
			} `json:"leftOut"`
		}
		if err := w.json(c.Context(), "/prometheus/perch/v1/targets", nil, &got); err != nil {
			return err
		}
		if output == "json" {
			if err := json.NewEncoder(s.Out).Encode(got); err != nil {
				return fmt.Errorf("write targets: %w", err)
			}
			return nil
		}
		tw := tabwriter.NewWriter(s.Out, 0, 8, 3, ' ', 0)
		fmt.Fprintln(tw, "STATE\tJOB\tOBJECT\tURL\tLAST\tREASON")
		for _, t := range got.Targets {
			last := "never"
			if !t.Last.IsZero() {
				last = sinceText(time.Since(t.Last))
			}
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", t.Health, t.Labels["job"], cmp.Or(objectOf(t.Labels), "-"), t.URL, last, t.Error)
		}
		for _, l := range got.LeftOut {
			fmt.Fprintf(tw, "left out\t-\t%s\t-\t-\t%s\n", l.From, l.Reason)
		}
		return tw.Flush()
	}
	return c
}
