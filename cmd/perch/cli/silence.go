package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/user"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/prometheus/common/model"
	"github.com/spf13/cobra"
)

// matcher is one condition of a silence in the shape of Alertmanager's API.
type matcher struct {
	Name    string `json:"name"`
	Value   string `json:"value"`
	IsRegex bool   `json:"isRegex"`
	IsEqual bool   `json:"isEqual"`
}

var matcherShape = regexp.MustCompile(`^([a-zA-Z_][a-zA-Z0-9_]*)(=~|!~|!=|=)(.*)$`)

// parseMatcher reads NAME=VALUE, NAME!=VALUE, NAME=~RE or NAME!~RE; a word
// alone is the name of an alert.
func parseMatcher(text string) (matcher, error) {
	p := matcherShape.FindStringSubmatch(text)
	if p == nil {
		if text == "" || strings.ContainsAny(text, `=~!"{} `) {
			return matcher{}, Usage{fmt.Errorf("%q: write LABEL=VALUE, LABEL!=VALUE, LABEL=~REGEX, LABEL!~REGEX, or the name of an alert", text)}
		}
		return matcher{"alertname", text, false, true}, nil
	}
	value := p[3]
	if len(value) > 1 && value[0] == '"' {
		plain, err := strconv.Unquote(value)
		if err != nil {
			return matcher{}, Usage{fmt.Errorf("%q: the quotes do not match", text)}
		}
		value = plain
	}
	m := matcher{p[1], value, strings.HasSuffix(p[2], "~"), p[2][0] == '='}
	if m.IsRegex {
		if _, err := regexp.Compile(value); err != nil {
			return matcher{}, Usage{fmt.Errorf("%q: %w", text, err)}
		}
	}
	return m, nil
}

func (m matcher) String() string {
	op := "="
	switch {
	case m.IsRegex && !m.IsEqual:
		op = "!~"
	case m.IsRegex:
		op = "=~"
	case !m.IsEqual:
		op = "!="
	}
	return m.Name + op + strconv.Quote(m.Value)
}

func matcherList(all []matcher) string {
	out := make([]string, len(all))
	for i, m := range all {
		out[i] = m.String()
	}
	return strings.Join(out, ",")
}

func parseMatchers(args []string) ([]matcher, error) {
	var out []matcher
	for _, text := range args {
		m, err := parseMatcher(text)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	if len(out) == 0 {
		return nil, Usage{errors.New("say what to silence: the name of an alert, or LABEL=VALUE")}
	}
	return out, nil
}

func silenceCommand(s Streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "silence",
		Short: "Hold back notifications of alerts, and see first what that hides",
		Example: `  perch silence preview PodContainerRestarted namespace=shop
  perch silence add PodContainerRestarted namespace=shop --for 2h --why "new build comes"
  perch silence end 5b8c…`,
		Args: exactly(0, "add, end or preview; none lists the silences"),
	}
	a := newAccess(c.PersistentFlags())
	c.RunE = func(c *cobra.Command, _ []string) error { return listSilences(c, s, a) }
	var last, why string
	add := &cobra.Command{Use: "add MATCHER…", Short: "Silence alerts, and say what that hides", RunE: func(c *cobra.Command, args []string) error {
		return addSilence(c, s, a, args, last, why)
	}}
	add.Flags().StringVar(&last, "for", "2h", "how long")
	add.Flags().StringVar(&why, "why", "", "the reason, kept in the history (required)")
	end := &cobra.Command{Use: "end ID…", Short: "End silences", Args: cobra.MinimumNArgs(1), RunE: func(c *cobra.Command, ids []string) error {
		w, err := a.web(c.Context())
		if err != nil {
			return err
		}
		for _, id := range ids {
			if _, err := w.send(c.Context(), http.MethodDelete, "/alertmanager/api/v2/silence/"+url.PathEscape(id), nil); err != nil {
				return fmt.Errorf("end silence %s: %w", id, err)
			}
		}
		return nil
	}}
	preview := &cobra.Command{Use: "preview MATCHER…", Short: "Say what a silence would hide now and would have hidden in the past week", RunE: func(c *cobra.Command, args []string) error {
		all, err := parseMatchers(args)
		if err != nil {
			return err
		}
		w, err := a.web(c.Context())
		if err != nil {
			return err
		}
		return w.hides(c.Context(), s.Out, all)
	}}
	c.AddCommand(add, end, preview)
	return c
}

// send writes to the web door and returns the answer.
func (w *web) send(ctx context.Context, method, path string, body any) ([]byte, error) {
	var text io.Reader = http.NoBody
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("write request: %w", err)
		}
		text = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, w.base.JoinPath(path).String(), text)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", path, err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := w.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask web door: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, answerError(resp)
	}
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	return out, nil
}

func addSilence(c *cobra.Command, s Streams, a access, args []string, last, why string) error {
	all, err := parseMatchers(args)
	if err != nil {
		return err
	}
	d, err := model.ParseDuration(last)
	if err != nil || d <= 0 {
		return Usage{fmt.Errorf("--for %s: write for example 30m, 2h or 1d", last)}
	}
	if why == "" {
		return Usage{errors.New("--why is missing: say the reason to those who come after")}
	}
	w, err := a.web(c.Context())
	if err != nil {
		return err
	}
	by := "perch"
	if u, err := user.Current(); err == nil {
		by = u.Username
	}
	now := time.Now().UTC()
	text, err := w.send(c.Context(), http.MethodPost, "/alertmanager/api/v2/silences", map[string]any{
		"matchers": all, "startsAt": now.Format(time.RFC3339Nano), "endsAt": now.Add(time.Duration(d)).Format(time.RFC3339Nano), "createdBy": by, "comment": why})
	if err != nil {
		return fmt.Errorf("silence %s: %w", matcherList(all), err)
	}
	var got struct{ SilenceID string }
	if err := json.Unmarshal(text, &got); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	fmt.Fprintln(s.Out, got.SilenceID)
	return w.hides(c.Context(), s.Err, all)
}

// hides says what matchers match now and what they matched in the past week.
func (w *web) hides(ctx context.Context, out io.Writer, all []matcher) error {
	var each []string
	for _, m := range all {
		each = append(each, m.String())
	}
	inside := `alertstate="firing",` + strings.Join(each, ",")
	now, _, err := w.instant(ctx, "count by (alertname, namespace) (ALERTS{"+inside+"})")
	if err != nil {
		return fmt.Errorf("look at alerts: %w", err)
	}
	fmt.Fprintf(out, "hides %d alerts now", total(now))
	list(out, now, "")
	// Each time an alert begins to fire is one: its series was not there a step
	// before. The last step is the next whole minute, so that what began just now counts.
	past, _, err := w.instant(ctx, fmt.Sprintf("sum by (alertname, namespace) (count_over_time((ALERTS{%s} unless ALERTS{%s} offset 1m)[7d:1m] @ %d))", inside, inside, time.Now().Add(time.Minute).Unix()))
	if err != nil {
		return fmt.Errorf("look at the past week: %w", err)
	}
	fmt.Fprintf(out, "would have hidden %d in the past week", total(past))
	list(out, past, " times")
	return nil
}

func total(rows []series) int {
	n := 0
	for _, r := range rows {
		n += int(r.Value.V)
	}
	return n
}

func list(out io.Writer, rows []series, unit string) {
	slices.SortFunc(rows, func(a, b series) int {
		return cmp.Or(cmp.Compare(b.Value.V, a.Value.V), cmp.Compare(a.Labels["alertname"], b.Labels["alertname"]), cmp.Compare(a.Labels["namespace"], b.Labels["namespace"]))
	})
	var say []string
	for i, r := range rows {
		if i == 10 {
			say = append(say, fmt.Sprintf("and %d more", len(rows)-i))
			break
		}
		say = append(say, fmt.Sprintf("%s %.0f%s", strings.TrimSpace(r.Labels["namespace"]+" "+r.Labels["alertname"]), r.Value.V, unit))
	}
	if len(say) > 0 {
		fmt.Fprint(out, ": ", strings.Join(say, ", "))
	}
	fmt.Fprintln(out)
}

func listSilences(c *cobra.Command, s Streams, a access) error {
	w, err := a.web(c.Context())
	if err != nil {
		return err
	}
	var got []struct {
		ID, Comment, CreatedBy string
		EndsAt                 time.Time
		Matchers               []matcher
		Status                 struct{ State string }
	}
	if err := w.json(c.Context(), "/alertmanager/api/v2/silences", nil, &got); err != nil {
		return err
	}
	tw := tabwriter.NewWriter(s.Out, 0, 8, 3, ' ', 0)
	n := 0
	for _, x := range got {
		if x.Status.State == "expired" {
			continue
		}
		if n++; n == 1 {
			fmt.Fprintln(tw, "ID\tMATCHERS\tENDS IN\tBY\tWHY")
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", x.ID, matcherList(x.Matchers), sinceText(time.Until(x.EndsAt)), x.CreatedBy, x.Comment)
	}
	if n == 0 {
		fmt.Fprintln(s.Err, "nothing is silenced")
	}
	return tw.Flush()
}

// ackCommand silences what fires now by its own labels: somebody is at it.
func ackCommand(s Streams, a access) *cobra.Command {
	var last, why string
	c := &cobra.Command{Use: "ack ALERT [LABEL=VALUE]…", Short: "Take an alert on: no reminders for a while, and the history says who and why",
		Example: `  perch alerts ack DeploymentDown deployment=web --why "I am at it"
  perch alerts snooze NodeCPUBusy --for 8h --why "backup runs"`, Aliases: []string{"snooze"}}
	c.Flags().StringVar(&last, "for", "1h", "how long")
	c.Flags().StringVar(&why, "why", "", "the reason, kept in the history (required)")
	c.RunE = func(c *cobra.Command, args []string) error {
		if why != "" {
			why = map[bool]string{true: "snoozed: ", false: "acknowledged: "}[c.CalledAs() == "snooze"] + why
		}
		return addSilence(c, s, a, args, last, why)
	}
	return c
}

// historyCommand shows when alerts came and went and who silenced them.
func historyCommand(s Streams, a access) *cobra.Command {
	var since string
	c := &cobra.Command{Use: "history [ALERT]", Short: "When alerts came and went, who silenced them and why", Args: cobra.MaximumNArgs(1)}
	c.Flags().StringVar(&since, "since", "24h", "how far back")
	c.RunE = func(c *cobra.Command, args []string) error {
		w, err := a.web(c.Context())
		if err != nil {
			return err
		}
		q := "kind:alert"
		if len(args) == 1 {
			q += " alertname:" + strconv.Quote(args[0])
		}
		body, err := w.get(c.Context(), "/logs/api/v1/query", url.Values{"q": {q}, "from": {"now-" + since}, "order": {"asc"}, "limit": {"5000"}})
		if err != nil {
			return err
		}
		defer body.Close()
		n := 0
		for dec := json.NewDecoder(body); ; {
			var l struct {
				Time    time.Time
				Line    string
				Partial *bool
				Reason  string
			}
			if err := dec.Decode(&l); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return fmt.Errorf("read history: %w", err)
			}
			if l.Partial != nil {
				if *l.Partial {
					fmt.Fprintln(s.Err, "note: not all of it:", l.Reason)
				}
				continue
			}
			n++
			fmt.Fprintln(s.Out, l.Time.Local().Format("2006-01-02 15:04:05"), l.Line)
		}
		if n == 0 {
			fmt.Fprintln(s.Err, "no alert came or went")
		}
		return nil
	}
	return c
}
