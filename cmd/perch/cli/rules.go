package cli

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/prometheus/common/model"
	"github.com/spf13/cobra"
)

// RuleTools read and run rules without a cluster; package main brings them,
// since this package only speaks HTTP.
type RuleTools struct {
	Check  func(file string) ([]string, error)       // what is wrong, one line each
	Test   func(file string) ([]RuleTest, error)     // unit tests in promtool's format
	Alerts func(file string) ([]AlertRule, error)    // the alerting rules of a file
	Fired  func(truths []time.Time, r Past) []Firing // when an alert would have fired
}

// RuleTest is the outcome of one group of unit tests.
type RuleTest struct {
	Name     string
	Failures []string
}

// AlertRule is what a backtest needs of a rule.
type AlertRule struct {
	Group, Name, Expr string
	For, KeepFiring   time.Duration
	Recorded          []string // series that it reads and that a rule of the same file records
}

// Past is how a rule was looked at.
type Past struct {
	Step, For, KeepFiring time.Duration
	To                    time.Time
}

// Firing is one time that an alert would have fired.
type Firing struct {
	From, To time.Time
	Open     bool // it still did at the end
}

func rulesCommand(s Streams, tools RuleTools) *cobra.Command {
	c := &cobra.Command{
		Use:   "rules",
		Short: "List rules; check, test and backtest those you write",
		Args:  exactly(0, "no argument"),
	}
	a := newAccess(c.PersistentFlags())
	c.RunE = func(c *cobra.Command, _ []string) error { return listRules(c, s, a) }
	c.AddCommand(&cobra.Command{Use: "check FILE…", Short: "Say what is wrong with rule files", Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, files []string) error {
			bad := 0
			for _, f := range files {
				problems, err := tools.Check(f)
				if err != nil {
					return err
				}
				for _, p := range problems {
					fmt.Fprintln(s.Out, p)
				}
				bad += len(problems)
			}
			if bad > 0 {
				return fmt.Errorf("problems: %d", bad)
			}
			return nil
		}},
		&cobra.Command{Use: "test FILE…", Short: "Run unit tests of rules, in promtool's format", Args: cobra.MinimumNArgs(1),
			RunE: func(_ *cobra.Command, files []string) error { return testRules(s, tools, files) }},
		backtestCommand(s, a, tools))
	return c
}

func listRules(c *cobra.Command, s Streams, a access) error {
	w, err := a.web(c.Context())
	if err != nil {
		return err
	}
	var got struct {
		Data struct {
			Groups []struct {
				Name, File string
				Interval   float64
				Rules      []struct {
					Name, State, Type, Health, LastError string
					Alerts                               []struct{ State string }
					Duration                             float64
				}
			}
		}
	}
	if err := w.json(c.Context(), "/prometheus/api/v1/rules", nil, &got); err != nil {
		return err
	}
	tw := tabwriter.NewWriter(s.Out, 0, 8, 3, ' ', 0)
	fmt.Fprintln(tw, "SOURCE\tGROUP\tRULE\tTYPE\tFOR\tSTATE\tACTIVE\tHEALTH")
	for _, g := range got.Data.Groups {
		for _, r := range g.Rules {
			kind := map[string]string{"alerting": "alert", "recording": "record"}[r.Type]
			hold := ""
			if r.Type == "alerting" {
				hold = model.Duration(time.Duration(r.Duration * float64(time.Second))).String()
			}
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", g.File, g.Name, r.Name, kind, hold, r.State, len(r.Alerts), strings.TrimSpace(r.Health+" "+r.LastError))
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	var broken struct {
		Problems []struct {
			Source, Group, Rule, Position, Error string
		}
	}
	if err := w.json(c.Context(), "/ui/api/v1/rules/problems", nil, &broken); err != nil {
		return err
	}
	for _, p := range broken.Problems {
		fmt.Fprintf(s.Err, "not in force: %s %s %s %s: %s\n", p.Source, p.Position, p.Group, p.Rule, p.Error)
	}
	return nil
}

func testRules(s Streams, tools RuleTools, files []string) error {
	passed, failed := 0, 0
	for _, f := range files {
		results, err := tools.Test(f)
		if err != nil {
			return err
		}
		for _, r := range results {
			if len(r.Failures) == 0 {
				passed++
				continue
			}
			failed++
			fmt.Fprintf(s.Out, "%s: %s\n", f, r.Name)
			for _, text := range r.Failures {
				fmt.Fprintln(s.Out, "  "+text)
			}
		}
	}
	fmt.Fprintf(s.Out, "%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		return errors.New("rules do not do what their tests say")
	}
	return nil
}

func backtestCommand(s Streams, a access, tools RuleTools) *cobra.Command {
	var expr, since, hold, keep, step string
	c := &cobra.Command{
		Use:   "backtest [FILE] [RULE]…",
		Short: "Say how often alerts would have fired in the last days",
		Example: `  perch rules backtest shop-rules.yaml
  perch rules backtest shop-rules.yaml ShopIsSlow --since 14d
  perch rules backtest -e 'sum(rate(http_errors_total[5m])) > 1' --for 5m`,
	}
	c.Flags().StringVarP(&expr, "expr", "e", "", "an expression instead of a file")
	c.Flags().StringVar(&since, "since", "7d", "how far back")
	c.Flags().StringVar(&hold, "for", "0s", "with -e: true this long before it fires")
	c.Flags().StringVar(&keep, "keep-firing-for", "0s", "with -e: fires this long after it was last true")
	c.Flags().StringVar(&step, "step", "", "time between two looks (default: 5,000 looks, at least 15s)")
	c.RunE = func(c *cobra.Command, args []string) error {
		var rules []AlertRule
		var back, every time.Duration
		for _, d := range []struct {
			flag, text string
			into       *time.Duration
		}{{"since", since, &back}, {"step", cmp.Or(step, "0s"), &every}} {
			v, err := model.ParseDuration(d.text)
			if err != nil {
				return Usage{fmt.Errorf("--%s: %w", d.flag, err)}
			}
			*d.into = time.Duration(v)
		}
		switch {
		case expr != "" && len(args) == 0:
			h, err1 := model.ParseDuration(hold)
			k, err2 := model.ParseDuration(keep)
			if err := errors.Join(err1, err2); err != nil {
				return Usage{err}
			}
			rules = []AlertRule{{Name: "expression", Expr: expr, For: time.Duration(h), KeepFiring: time.Duration(k)}}
		case expr == "" && len(args) > 0:
			all, err := tools.Alerts(args[0])
			if err != nil {
				return err
			}
			for _, r := range all {
				if len(args) == 1 || slices.Contains(args[1:], r.Name) {
					rules = append(rules, r)
				}
			}
			if len(rules) == 0 {
				return fmt.Errorf("%s has no such alert", args[0])
			}
		default:
			return Usage{errors.New("give a file with rules, or an expression with -e")}
		}
		if every == 0 {
			every = max(15*time.Second, (back / 5000).Truncate(time.Second))
		}
		w, err := a.web(c.Context())
		if err != nil {
			return err
		}
		tw := tabwriter.NewWriter(s.Out, 0, 8, 3, ' ', 0)
		fmt.Fprintln(tw, "ALERT\tFIRINGS\tLABEL SETS\tALL TOGETHER\tLONGEST\tLAST")
		for _, r := range rules {
			line, err := w.backtest(c, s, tools, r, back, every)
			if err != nil {
				return fmt.Errorf("backtest %s: %w", r.Name, err)
			}
			fmt.Fprintln(tw, line)
			if len(r.Recorded) > 0 {
				fmt.Fprintf(s.Err, "note: %s reads %s, which this file records: before it did, there is nothing to read\n", r.Name, strings.Join(r.Recorded, ", "))
			}
		}
		if err := tw.Flush(); err != nil {
			return err
		}
		fmt.Fprintf(s.Err, "looked at the last %s every %s; shorter truths between two looks are not seen\n", model.Duration(back), model.Duration(every))
		return nil
	}
	return c
}

// backtest asks in pieces, each of which the API answers in one go.
func (w *web) backtest(c *cobra.Command, s Streams, tools RuleTools, r AlertRule, back, step time.Duration) (string, error) {
	const most = 10_000 // looks of one request
	now := time.Now().Truncate(time.Second)
	truths := map[string][]time.Time{}
	for from := now.Add(-back); from.Before(now); from = from.Add(most * step) {
		to := from.Add((most - 1) * step)
		if to.After(now) {
			to = now
		}
		rows, warnings, err := w.ranged(c.Context(), r.Expr, from, to, step)
		if err != nil {
			return "", err
		}
		for _, text := range warnings {
			fmt.Fprintln(s.Err, "note:", text)
		}
		for _, row := range rows {
			key := labelText(row.Labels)
			for _, p := range row.Values {
				truths[key] = append(truths[key], p.T)
			}
		}
	}
	count, sets := 0, 0
	var total, longest time.Duration
	var last time.Time
	open := false
	for _, times := range truths {
		spans := tools.Fired(times, Past{Step: step, For: r.For, KeepFiring: r.KeepFiring, To: now})
		count += len(spans)
		if len(spans) > 0 {
			sets++
		}
		for _, f := range spans {
			total += f.To.Sub(f.From)
			longest = max(longest, f.To.Sub(f.From))
			if f.From.After(last) {
				last = f.From
			}
			open = open || f.Open
		}
	}
	if count == 0 {
		return fmt.Sprintf("%s\t0\t0\t\t\t", r.Name), nil
	}
	when := last.Local().Format("2006-01-02 15:04:05")
	if open {
		when += ", fires now"
	}
	return fmt.Sprintf("%s\t%d\t%d\t%s\t%s\t%s", r.Name, count, sets, total.Round(time.Second), longest.Round(time.Second), when), nil
}

// labelText writes labels so that equal ones are equal.
func labelText(l map[string]string) string {
	v := url.Values{}
	for k, x := range l {
		v.Set(k, x)
	}
	return v.Encode()
}
