package cli

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/prometheus/common/model"
	"github.com/spf13/cobra"
)

func queryCommand(s Streams) *cobra.Command {
	var rng, output string
	c := &cobra.Command{
		Use:   "query EXPR",
		Short: "Ask the metrics with PromQL: a table now, or a chart over time with -r",
		Example: `  perch query 'sum by (namespace) (rate(container_cpu_usage_seconds_total[1m]))'
  perch query 'up' -r 1h
  perch query 'container_memory_working_set_bytes{pod=~"web-.*"}' -o json`,
		Args: exactly(1, "one PromQL expression, in quotes"),
	}
	a := newAccess(c.PersistentFlags())
	c.Flags().StringVarP(&rng, "range", "r", "", "show the last while as a chart, for example 1h or 15m")
	c.Flags().StringVarP(&output, "output", "o", "table", "table, json or csv")
	c.RunE = func(c *cobra.Command, args []string) error {
		w, err := a.web(c.Context())
		if err != nil {
			return err
		}
		var rows []series
		var warnings []string
		if rng == "" {
			rows, warnings, err = w.instant(c.Context(), args[0])
		} else {
			d, perr := model.ParseDuration(rng)
			if perr != nil {
				return Usage{fmt.Errorf("--range: %w: write for example 1h or 15m", perr)}
			}
			step := max(time.Duration(d)/120, 5*time.Second).Truncate(time.Second)
			now := time.Now()
			rows, warnings, err = w.ranged(c.Context(), args[0], now.Add(-time.Duration(d)), now, step)
		}
		if err != nil {
			return err
		}
		for _, text := range warnings {
			fmt.Fprintln(s.Err, "note:", text)
		}
		return showSeries(s.Out, rows, output, rng != "")
	}
	return c
}

func showSeries(out io.Writer, rows []series, format string, ranged bool) error {
	switch format {
	case "json":
		type item struct {
			Metric map[string]string `json:"metric"`
			Value  any               `json:"value,omitempty"`
			Values any               `json:"values,omitempty"`
		}
		enc := json.NewEncoder(out)
		pair := func(p point) [2]any {
			return [2]any{float64(p.T.UnixMilli()) / 1000, strconv.FormatFloat(p.V, 'f', -1, 64)}
		}
		for _, r := range rows {
			it := item{Metric: r.Labels}
			if ranged {
				var all [][2]any
				for _, p := range r.Values {
					all = append(all, pair(p))
				}
				it.Values = all
			} else {
				it.Value = pair(r.Value)
			}
			if err := enc.Encode(it); err != nil {
				return fmt.Errorf("write result: %w", err)
			}
		}
		return nil
	case "csv":
		cw := csv.NewWriter(out)
		for _, r := range rows {
			points := r.Values
			if !ranged {
				points = []point{r.Value}
			}
			for _, p := range points {
				if err := cw.Write([]string{r.name(), p.T.UTC().Format(time.RFC3339Nano), strconv.FormatFloat(p.V, 'g', -1, 64)}); err != nil {
					return fmt.Errorf("write result: %w", err)
				}
			}
		}
		cw.Flush()
		return cw.Error()
	case "table":
	default:
		return Usage{fmt.Errorf("-o %s: use table, json or csv", format)}
	}
	if len(rows) == 0 {
		fmt.Fprintln(os.Stderr, "no series match")
		return nil
	}
	if ranged {
		return chart(out, rows, width(out), 8)
	}
	tw := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
	fmt.Fprintln(tw, "SERIES\tVALUE")
	for _, r := range rows {
		fmt.Fprintf(tw, "%s\t%s\n", r.name(), strconv.FormatFloat(r.Value.V, 'g', 6, 64))
	}
	return tw.Flush()
}

func exactly(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return Usage{fmt.Errorf("got %d arguments; give %s", len(args), what)}
		}
		return nil
	}
}
