package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

type alert struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	State       string            `json:"state"`
	ActiveAt    time.Time         `json:"activeAt"`
	Value       string            `json:"value"`
}

func alertsCommand(s Streams) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "alerts",
		Short: "List pending and firing alerts; take them on; see their history",
		Args:  exactly(0, "no argument"),
	}
	a := newAccess(c.PersistentFlags())
	c.AddCommand(ackCommand(s, a), historyCommand(s, a))
	c.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	c.RunE = func(c *cobra.Command, _ []string) error {
		w, err := a.web(c.Context())
		if err != nil {
			return err
		}
		var got struct {
			Data struct {
				Alerts []alert `json:"alerts"`
			} `json:"data"`
		}
		if err := w.json(c.Context(), "/prometheus/api/v1/alerts", nil, &got); err != nil {
			return err
		}
		list := got.Data.Alerts
		slices.SortFunc(list, func(x, y alert) int {
			return cmp.Or(cmp.Compare(x.State, y.State), x.ActiveAt.Compare(y.ActiveAt), cmp.Compare(x.Labels["alertname"], y.Labels["alertname"]))
		})
		switch output {
		case "json":
			enc := json.NewEncoder(s.Out)
			for _, al := range list {
				if err := enc.Encode(al); err != nil {
					return fmt.Errorf("write alerts: %w", err)
				}
			}
			return nil
		case "table":
		default:
			return Usage{fmt.Errorf("-o %s: use table or json", output)}
		}
		if len(list) == 0 {
			fmt.Fprintln(s.Err, "no alert is pending or firing")
			return nil
		}
		tw := tabwriter.NewWriter(s.Out, 0, 8, 3, ' ', 0)
		fmt.Fprintln(tw, "STATE\tSINCE\tALERT\tOBJECT\tSUMMARY")
		for _, al := range list {
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", al.State, sinceText(time.Since(al.ActiveAt)), al.Labels["alertname"], objectOf(al.Labels),
				cmp.Or(al.Annotations["summary"], al.Annotations["description"], al.Annotations["message"]))
		}
		return tw.Flush()
	}
	return c
}

// objectOf names what an alert is about from its labels, the nearest first.
func objectOf(l map[string]string) string {
	var parts []string
	if l["namespace"] != "" {
		parts = append(parts, l["namespace"])
	}
	if what := cmp.Or(l["pod"], l["deployment"], l["statefulset"], l["daemonset"], l["job_name"], l["service"]); what != "" {
		parts = append(parts, what)
	}
	if len(parts) == 0 {
		return cmp.Or(l["node"], l["instance"])
	}
	return strings.Join(parts, "/")
}

func sinceText(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd", int(d.Hours())/24)
	}
}
