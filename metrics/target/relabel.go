package target

import (
	"cmp"
	"fmt"
	"log/slog"
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
