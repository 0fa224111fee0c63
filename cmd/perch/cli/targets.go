package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// targetList is what a server says of all nodes' targets.
type targetList struct {
	Targets []struct {
		Node   string            `json:"node"`
		From   string            `json:"from,omitempty"`
		URL    string            `json:"url"`
		Labels map[string]string `json:"labels"`
		Health string            `json:"health"`
		Last   time.Time         `json:"last"`
		CutOff string            `json:"cutOff,omitempty"`
		Error  string            `json:"error,omitempty"`
	} `json:"targets"`
	LeftOut []struct {
		From   string `json:"from"`
		Reason string `json:"reason"`
	} `json:"leftOut"`
	Objects []struct {
		From    string   `json:"from"`
		Targets int      `json:"targets"`
		Up      int      `json:"up"`
		Why     []string `json:"why"`
	} `json:"objects"`
}

// write lists the targets, then every object that asks for some, with all
// reasons why it has none or fewer.
func (l targetList) write(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	fmt.Fprintln(tw, "STATE\tJOB\tOBJECT\tNODE\tURL\tLAST\tREASON")
	for _, t := range l.Targets {
		last := "never"
		if !t.Last.IsZero() {
			last = sinceText(time.Since(t.Last))
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", t.Health, t.Labels["job"], cmp.Or(objectOf(t.Labels), "-"), t.Node, t.URL, last, t.Error)
	}
	if len(l.Objects) > 0 {
		fmt.Fprintln(tw, "\nASKED BY\tTARGETS\tUP\tWHY NOT MORE")
	}
	for _, o := range l.Objects {
		fmt.Fprintf(tw, "%s\t%d\t%d\t", o.From, o.Targets, o.Up)
		for i, why := range o.Why {
			if i > 0 {
				fmt.Fprint(tw, "\t\t\t")
			}
			fmt.Fprintln(tw, why)
		}
		if len(o.Why) == 0 {
			fmt.Fprintln(tw)
		}
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("write targets: %w", err)
	}
	return nil
}

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
		var got targetList
		if err := w.json(c.Context(), "/prometheus/perch/v1/targets", nil, &got); err != nil {
			return err
		}
		if output == "json" {
			if err := json.NewEncoder(s.Out).Encode(got); err != nil {
				return fmt.Errorf("write targets: %w", err)
			}
			return nil
		}
		return got.write(s.Out)
	}
	return c
}
