package dashboard

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"sigs.k8s.io/yaml"
)

//go:embed content/*.yaml
var content embed.FS

// Dashboard is one in Grafana's JSON format.
type Dashboard struct {
	Name  string // short, also the end of its uid: nodes
	Title string
	JSON  string
}

// board is the short form that content/*.yaml has.
type board struct {
	Title, About string
	Variables    []variable
	Rows         []row
}

type variable struct {
	Name, Label string
	From        string // query that lists its values: label_values(series, label)
	All         bool   // may be all of them, which is what it starts with
}

type row struct {
	Title  string // none: the panels stand at the top
	Panels []panel
}

type panel struct {
	Title, About string
	Kind         string // timeseries (also when empty), stat, gauge, table
	Unit         string // Grafana's name of it, or cores
	Width        int    // of 24; 0: half
	Stack        bool
	Max          float64 // gauges: the end of the scale
	Warn, Bad    float64 // values from which stats and gauges change colour
	Queries      []query
}

type query struct {
	Expr   string
	Legend string // tables: the title of the column
	Unit   string // tables: of the column
}

// Shipped lists the dashboards of this binary, by name.
func Shipped() ([]Dashboard, error) {
	files, err := fs.Glob(content, "content/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("list shipped dashboards: %w", err)
	}
	var out []Dashboard
	for _, file := range files {
		text, err := content.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read shipped dashboard: %w", err)
		}
		var b board
		if err := yaml.UnmarshalStrict(text, &b); err != nil {
			return nil, fmt.Errorf("read shipped dashboard %s: %w", file, err)
		}
		name := strings.TrimSuffix(path.Base(file), ".yaml")
		g, err := b.grafana(name)
		if err != nil {
			return nil, fmt.Errorf("read shipped dashboard %s: %w", file, err)
		}
		written, err := json.MarshalIndent(g, "", " ")
		if err != nil {
			return nil, fmt.Errorf("write dashboard %s: %w", name, err)
		}
		out = append(out, Dashboard{name, b.Title, string(written) + "\n"})
	}
	return out, nil
}

// Question is one query of a dashboard.
type Question struct {
	Panel, Expr string
	Instant     bool
}

// Questions lists what a dashboard in Grafana's format asks of Prometheus, with
// its variables at all values and rates over a minute.
func Questions(text string) ([]Question, error) {
	var g grafana
	if err := json.Unmarshal([]byte(text), &g); err != nil {
		return nil, fmt.Errorf("read dashboard: %w", err)
	}
	replace := []string{"$__rate_interval", "1m", "$__interval", "15s", "$__range", "15m"}
	for _, v := range g.Templating.List {
		replace = append(replace, "$"+v.Name, ".*", "${"+v.Name+"}", ".*")
	}
	with := strings.NewReplacer(replace...)
	var out []Question
	for _, p := range g.Panels {
		for _, t := range p.Targets {
			out = append(out, Question{p.Title, with.Replace(t.Expr), t.Instant})
		}
	}
	return out, nil
}
