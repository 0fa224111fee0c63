package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// topCommand is kubectl's top with a default of its own: without "nodes" or
// "pods" it shows both, with a quarter of an hour of history.
func topCommand(s Streams) *cobra.Command {
	var sortBy string
	var all bool
	c := &cobra.Command{
		Use:   "top [nodes|pods]",
		Short: "Show what nodes and pods use, with the last 15 minutes; `top nodes` and `top pods` are kubectl's",
		Args:  exactly(0, "nothing, or nodes or pods with kubectl's flags"),
	}
	a := newAccess(c.PersistentFlags())
	c.Flags().StringVar(&sortBy, "sort-by", "cpu", "cpu or memory")
	c.Flags().BoolVarP(&all, "all-namespaces", "A", false, "pods of all namespaces")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if sortBy != "cpu" && sortBy != "memory" {
			return Usage{fmt.Errorf("--sort-by %s: use cpu or memory", sortBy)}
		}
		ns, err := a.namespace()
		if err != nil {
			return err
		}
		w, err := a.web(c.Context())
		if err != nil {
			return err
		}
		match := ""
		if !all {
			match = fmt.Sprintf(",namespace=%q", ns)
		}
		return showTop(c.Context(), s.Out, w, match, sortBy)
	}
	return c
}

type usage struct {
	namespace, pod, node  string
	cpu, memory           float64
	limit, restarts       float64
	cpuPast, memoryPast   []float64
	cpuTop, memoryPastTop float64
}

func showTop(ctx context.Context, out io.Writer, w *web, match, sortBy string) error {
	pods := map[string]*usage{}
	row := func(s series) *usage {
		k := s.Labels["namespace"] + "/" + s.Labels["pod"]
		if pods[k] == nil {
			pods[k] = &usage{namespace: s.Labels["namespace"], pod: s.Labels["pod"], limit: math.NaN()}
		}
		return pods[k]
	}
	now := time.Now()
	cpu := `sum by (namespace, pod, node) (rate(container_cpu_usage_seconds_total{job="kubelet",container!=""` + match + `}[30s]))`
	memory := `sum by (namespace, pod, node) (container_memory_working_set_bytes{job="kubelet",container!=""` + match + `})`
	for _, ask := range []struct {
		expr string
		put  func(*usage, series)
	}{
		{cpu, func(u *usage, s series) { u.cpu, u.node = s.Value.V, s.Labels["node"] }},
		{memory, func(u *usage, s series) { u.memory, u.node = s.Value.V, s.Labels["node"] }},
		{`sum by (namespace, pod) (kube_pod_container_resource_limits{job="kube-state-metrics",resource="memory"` + match + `})`, func(u *usage, s series) { u.limit = s.Value.V }},
		{`sum by (namespace, pod) (kube_pod_container_status_restarts_total{job="kube-state-metrics",container!=""` + match + `})`, func(u *usage, s series) { u.restarts = s.Value.V }},
	} {
		rows, _, err := w.instant(ctx, ask.expr)
		if err != nil {
			return err
		}
		for _, r := range rows {
			ask.put(row(r), r)
		}
	}
	for _, ask := range []struct {
		expr string
		put  func(*usage, []float64, float64)
	}{
		{cpu, func(u *usage, v []float64, top float64) { u.cpuPast, u.cpuTop = v, top }},
		{memory, func(u *usage, v []float64, top float64) { u.memoryPast, u.memoryPastTop = v, top }},
	} {
		rows, _, err := w.ranged(ctx, ask.expr, now.Add(-15*time.Minute), now, 90*time.Second)
		if err != nil {
			return err
		}
		for _, r := range rows {
			var v []float64
			top := 0.0
			for _, p := range r.Values {
				v = append(v, p.V)
				top = max(top, p.V)
			}
			ask.put(row(r), v, top)
		}
	}
	var list []*usage
	for _, u := range pods {
		if u.cpu > 0 || u.memory > 0 { // living pods have numbers now
			list = append(list, u)
		}
	}
	slices.SortFunc(list, func(x, y *usage) int {
		if sortBy == "memory" {
			return cmp.Or(cmp.Compare(y.memory, x.memory), cmp.Compare(x.pod, y.pod))
		}
		return cmp.Or(cmp.Compare(y.cpu, x.cpu), cmp.Compare(x.pod, y.pod))
	})
	tw := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "POD\tNODE\tCPU\t15 MIN\tMEMORY\t\t15 MIN\tRESTARTS")
	for _, u := range list {
		name := u.pod
		if match == "" {
			name = u.namespace + "/" + u.pod
		}
		fmt.Fprintf(tw, "%s\t%s\t%.2f\t%s\t%s\t%s\t%s\t%.0f\n", name, u.node, u.cpu, spark(u.cpuPast, u.cpuTop), bar(u.memory, u.limit, 10),
			memoryOf(u.memory, u.limit), spark(u.memoryPast, max(u.memoryPastTop, noNaN(u.limit))), u.restarts)
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	if len(list) == 0 {
		fmt.Fprintln(out, "no pod has numbers here; -A shows all namespaces")
	}
	return nil
}

func noNaN(v float64) float64 {
	if math.IsNaN(v) {
		return 0
	}
	return v
}

func bar(v, limit float64, cells int) string {
	if math.IsNaN(limit) || limit == 0 {
		return strings.Repeat("·", cells)
	}
	full := max(0, min(cells, int(math.Round(v/limit*float64(cells)))))
	return strings.Repeat("█", full) + strings.Repeat("·", cells-full)
}

func memoryOf(v, limit float64) string {
	if math.IsNaN(limit) {
		return mebi(v)
	}
	return mebi(v) + "/" + mebi(limit)
}

func mebi(v float64) string {
	switch {
	case v >= 10<<30:
		return fmt.Sprintf("%.0fGi", v/(1<<30))
	case v >= 1<<30:
		return fmt.Sprintf("%.1fGi", v/(1<<30))
	case v >= 1<<20:
		return fmt.Sprintf("%.0fMi", v/(1<<20))
	default:
		return fmt.Sprintf("%.0fKi", v/(1<<10))
	}
}
