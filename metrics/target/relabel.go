package target

import (
	"cmp"
	"fmt"
	"log/slog"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	config_util "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v2"
)

// relabeling is one step of relabelling, of targets or of samples.
type relabeling struct {
	SourceLabels []string `json:"sourceLabels"`
	Separator    *string  `json:"separator"`
	TargetLabel  string   `json:"targetLabel"`
	Regex        string   `json:"regex"`
	Modulus      uint64   `json:"modulus"`
	Replacement  *string  `json:"replacement"`
	Action       string   `json:"action"`
}

// heavy says why a step could make far longer labels than it finds; it is never so of
// one that a person wrote.
func (r relabeling) heavy() string {
	const labels, references, bytes = 64, 32, 1 << 10
	switch {
	case len(r.SourceLabels) > labels:
		return fmt.Sprintf("sourceLabels: %d of them, %d are allowed", len(r.SourceLabels), labels)
	case r.Separator != nil && len(*r.Separator) > bytes:
		return fmt.Sprintf("separator has %d bytes, %d are allowed", len(*r.Separator), bytes)
	case r.Replacement != nil && len(*r.Replacement) > bytes:
		return fmt.Sprintf("replacement has %d bytes, %d are allowed", len(*r.Replacement), bytes)
	case r.Replacement != nil && strings.Count(*r.Replacement, "$") > references:
		return fmt.Sprintf("replacement has more than %d references", references)
	}
	return ""
}

// growth is how many times over the text of a label may stand in one label after the
// steps: 2 for a replacement of $1$1, 4 when that is done twice. Steps that take
// different labels together do not add up, however many they are.
func growth(list []relabeling) int {
	of := map[string]map[string]int{} // label: those it was made of, and how often
	base := 1                         // of a label that no step has made
	most := 1
	for _, r := range list {
		switch action := strings.ToLower(r.Action); action {
		case "labelmap": // what it makes is of any name
			base = most
			continue
		case "", "replace", "lowercase", "uppercase":
			made := map[string]int{}
			for _, l := range r.SourceLabels {
				if of[l] == nil {
					made[l] += base
				}
				for from, n := range of[l] {
					made[from] += n
				}
			}
			times := 1
			if action == "" || action == "replace" {
				times = repeats(r)
			}
			into := map[string]int{r.TargetLabel: base} // where the step does not apply
			for from, n := range of[r.TargetLabel] {
				into[from] = n
			}
			for from, n := range made {
				into[from] = max(into[from], min(n*times, mostGrowth+1))
			}
			for _, n := range into {
				most = max(most, n)
			}
			of[r.TargetLabel] = into
		}
	}
	return most
}

// mostGrowth is what growth may be: more would be for a label without end.
const mostGrowth = 16

// repeats is how often a replacement may have the same text: groups that stand in
// others have it together.
func repeats(r relabeling) int {
	if r.Replacement == nil {
		return 1
	}
	counts, all, most := map[string]int{}, 0, 1
	for _, m := range reference.FindAllStringSubmatch(*r.Replacement, -1) {
		all++
		counts[m[1]+m[2]]++
		most = max(most, counts[m[1]+m[2]])
	}
	if re, err := syntax.Parse(r.Regex, syntax.Perl); len(counts) > 1 && (err != nil || counts["0"] > 0 || nested(re, 0)) {
		return all
	}
	return most
}

var reference = regexp.MustCompile(`\$(?:\{([^}]*)\}|(\w+))`)

// nested answers whether a group stands in a group.
func nested(re *syntax.Regexp, inside int) bool {
	if re.Op == syntax.OpCapture {
		if inside++; inside > 1 {
			return true
		}
	}
	return slices.ContainsFunc(re.Sub, func(sub *syntax.Regexp) bool { return nested(sub, inside) })
}

// steps reads relabelings: as Prometheus runs them and as it writes them.
func steps(path string, list []relabeling) ([]*relabel.Config, []map[string]any, error) {
	var run []*relabel.Config
	var written []map[string]any
	for i, r := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		if why := r.heavy(); why != "" {
			return nil, nil, fmt.Errorf("%s.%s", at, why)
		}
		c := relabel.DefaultRelabelConfig
		c.NameValidationScheme = model.UTF8Validation
		w := map[string]any{}
		for _, l := range r.SourceLabels {
			c.SourceLabels = append(c.SourceLabels, model.LabelName(l))
		}
		if len(r.SourceLabels) > 0 {
			w["source_labels"] = r.SourceLabels
		}
		if r.Separator != nil {
			c.Separator, w["separator"] = *r.Separator, *r.Separator
		}
		if r.Regex != "" {
			regex, err := relabel.NewRegexp(r.Regex)
			if err != nil {
				return nil, nil, fmt.Errorf("%s.regex: %w", at, err)
			}
			c.Regex, w["regex"] = regex, r.Regex
		}
		if r.Replacement != nil {
			c.Replacement, w["replacement"] = *r.Replacement, *r.Replacement
		}
		if r.Modulus > 0 {
			c.Modulus, w["modulus"] = r.Modulus, r.Modulus
		}
		if r.TargetLabel != "" {
			c.TargetLabel, w["target_label"] = r.TargetLabel, r.TargetLabel
		}
		c.Action = cmp.Or(relabel.Action(strings.ToLower(r.Action)), relabel.Replace)
		switch c.Action {
		case relabel.Replace, relabel.Keep, relabel.Drop, relabel.KeepEqual, relabel.DropEqual, relabel.HashMod, relabel.LabelMap, relabel.LabelDrop, relabel.LabelKeep, relabel.Lowercase, relabel.Uppercase:
		default:
			return nil, nil, fmt.Errorf("%s.action: %q is not known", at, r.Action)
		}
		w["action"] = string(c.Action)
		if err := c.Validate(model.UTF8Validation); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", at, err)
		}
		run, written = append(run, &c), append(written, w)
	}
	if n := growth(list); n > mostGrowth {
		return nil, nil, fmt.Errorf("%s: together they may have the text of a label more than %d times in one", path, mostGrowth)
	}
	return run, written, nil
}

// Settings are a scrape_config of Prometheus (YAML) without name and targets.
// They may hold passwords.
type Settings string

// valid asks Prometheus' own reader.
func (s Settings) valid() error {
	job := yaml.MapSlice{}
	if err := yaml.Unmarshal([]byte(s), &job); err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	text, err := yaml.Marshal(map[string]any{"scrape_configs": []any{append(job, yaml.MapItem{Key: "job_name", Value: "x"})}})
	if err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	full, err := config.Load(string(text), slog.New(slog.DiscardHandler))
	if err != nil {
		return fmt.Errorf("as a scrape configuration: %w", err)
	}
	client := full.ScrapeConfigs[0].HTTPClientConfig
	tls := []*config_util.TLSConfig{&client.TLSConfig}
	if client.OAuth2 != nil {
		tls = append(tls, &client.OAuth2.TLSConfig)
	}
	for _, t := range tls {
		if t.CA == "x" && t.Cert == "" { // of a check that knows no values
			continue
		}
		if _, err := config_util.NewTLSConfig(t); err != nil {
			return fmt.Errorf("tlsConfig: %w", err)
		}
	}
	return nil
}
