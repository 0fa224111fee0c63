package dashboard

import (
	"cmp"
	"fmt"
)

// schemaVersion is the version of Grafana's format that these shapes are;
// newer Grafanas raise it when they import.
const schemaVersion = 39

type grafana struct {
	UID           string     `json:"uid"`
	Title         string     `json:"title"`
	Description   string     `json:"description,omitempty"`
	Tags          []string   `json:"tags"`
	SchemaVersion int        `json:"schemaVersion"`
	Editable      bool       `json:"editable"`
	GraphTooltip  int        `json:"graphTooltip"` // 1: one crosshair for all
	Refresh       string     `json:"refresh"`
	Time          timeRange  `json:"time"`
	Templating    templating `json:"templating"`
	Panels        []gPanel   `json:"panels"`
}

type timeRange struct {
	From string `json:"from"`
	To   string `json:"to"`
}

type templating struct {
	List []gVariable `json:"list"`
}

type gVariable struct {
	Name       string  `json:"name"`
	Label      string  `json:"label,omitempty"`
	Type       string  `json:"type"`
	Query      any     `json:"query"`
	Definition string  `json:"definition,omitempty"`
	Datasource *source `json:"datasource,omitempty"`
	Refresh    int     `json:"refresh,omitempty"` // 2: with the time range
	Sort       int     `json:"sort,omitempty"`
	IncludeAll bool    `json:"includeAll,omitempty"`
	Multi      bool    `json:"multi,omitempty"`
	AllValue   string  `json:"allValue,omitempty"`
	Current    any     `json:"current,omitempty"`
}

// source names a data source; every panel takes the chosen one.
type source struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

type gPanel struct {
	ID              int         `json:"id"`
	Type            string      `json:"type"`
	Title           string      `json:"title"`
	Description     string      `json:"description,omitempty"`
	GridPos         gridPos     `json:"gridPos"`
	Datasource      *source     `json:"datasource,omitempty"`
	Targets         []target    `json:"targets,omitempty"`
	FieldConfig     *fields     `json:"fieldConfig,omitempty"`
	Options         any         `json:"options,omitempty"`
	Transformations []transform `json:"transformations,omitempty"`
	Collapsed       *bool       `json:"collapsed,omitempty"` // rows
}

type gridPos struct {
	H int `json:"h"`
	W int `json:"w"`
	X int `json:"x"`
	Y int `json:"y"`
}

type target struct {
	RefID        string  `json:"refId"`
	Expr         string  `json:"expr"`
	LegendFormat string  `json:"legendFormat,omitempty"`
	Instant      bool    `json:"instant,omitempty"`
	Range        bool    `json:"range,omitempty"`
	Format       string  `json:"format,omitempty"`
	Datasource   *source `json:"datasource"`
}

type fields struct {
	Defaults  field      `json:"defaults"`
	Overrides []override `json:"overrides"`
}

type field struct {
	Unit       string         `json:"unit,omitempty"`
	Min        *float64       `json:"min,omitempty"`
	Max        *float64       `json:"max,omitempty"`
	Custom     map[string]any `json:"custom,omitempty"`
	Thresholds *thresholds    `json:"thresholds,omitempty"`
}

type thresholds struct {
	Mode  string `json:"mode"`
	Steps []step `json:"steps"`
}

type step struct {
	Color string   `json:"color"`
	Value *float64 `json:"value"` // null: from the beginning
}

type override struct {
	Matcher    property   `json:"matcher"`
	Properties []property `json:"properties"`
}

type property struct {
	ID      string `json:"id"`
	Options any    `json:"options,omitempty"`
	Value   any    `json:"value,omitempty"`
}

type transform struct {
	ID      string         `json:"id"`
	Options map[string]any `json:"options"`
}

// prometheus is the data source that the reader of a dashboard chose.
var prometheus = source{"prometheus", "${datasource}"}

// heights of panels on Grafana's grid, which is 24 wide.
var heights = map[string]int{"timeseries": 8, "stat": 4, "gauge": 4, "table": 9}

const gridWidth = 24

// grafana writes the short form out.
func (b board) grafana(name string) (grafana, error) {
	g := grafana{UID: "perch-" + name, Title: b.Title, Description: b.About, Tags: []string{"perch"}, SchemaVersion: schemaVersion, Editable: true, GraphTooltip: 1,
		Refresh: "30s", Time: timeRange{"now-1h", "now"}}
	g.Templating.List = append(g.Templating.List, gVariable{Name: "datasource", Label: "Data source", Type: "datasource", Query: "prometheus"})
	for _, v := range b.Variables {
		x := gVariable{Name: v.Name, Label: v.Label, Type: "query", Query: map[string]string{"query": v.From, "refId": "v"}, Definition: v.From, Datasource: &prometheus, Refresh: 2, Sort: 1}
		if v.All {
			x.IncludeAll, x.Multi, x.AllValue = true, true, ".*"
			x.Current = map[string]any{"selected": true, "text": []string{"All"}, "value": []string{"$__all"}}
		}
		g.Templating.List = append(g.Templating.List, x)
	}
	y, id := 0, 0
	for _, r := range b.Rows {
		if r.Title != "" {
			id++
			open := false
			g.Panels = append(g.Panels, gPanel{ID: id, Type: "row", Title: r.Title, GridPos: gridPos{1, gridWidth, 0, y}, Collapsed: &open})
			y++
		}
		x, tallest := 0, 0
		for _, p := range r.Panels {
			kind, width := cmp.Or(p.Kind, "timeseries"), cmp.Or(p.Width, gridWidth/2)
			h, ok := heights[kind]
			if !ok || len(p.Queries) == 0 || p.Title == "" || width > gridWidth {
				return grafana{}, fmt.Errorf("panel %q: its kind, width, title or queries are wrong", p.Title)
			}
			if x+width > gridWidth {
				x, y, tallest = 0, y+tallest, 0
			}
			id++
			g.Panels = append(g.Panels, p.grafana(kind, id, gridPos{h, width, x, y}))
			x, tallest = x+width, max(tallest, h)
		}
		y += tallest
	}
	return g, nil
}

func (p panel) grafana(kind string, id int, at gridPos) gPanel {
	zero := 0.0
	out := gPanel{ID: id, Type: kind, Title: p.Title, Description: p.About, GridPos: at, Datasource: &prometheus, FieldConfig: &fields{Overrides: []override{}}}
	base := &out.FieldConfig.Defaults
	base.Unit = unit(p.Unit)
	for i, q := range p.Queries {
		t := target{RefID: string(rune('A' + i)), Expr: q.Expr, Datasource: &prometheus, Instant: kind != "timeseries", Range: kind == "timeseries"}
		if kind == "table" {
			t.Format = "table"
		} else {
			t.LegendFormat = q.Legend
		}
		out.Targets = append(out.Targets, t)
	}
	if p.Warn > 0 || p.Bad > 0 {
		steps := []step{{Color: "text"}}
		if p.Warn > 0 {
			steps = append(steps, step{"orange", &p.Warn})
		}
		if p.Bad > 0 {
			steps = append(steps, step{"red", &p.Bad})
		}
		base.Thresholds = &thresholds{"absolute", steps}
	}
	latest := map[string]any{"reduceOptions": map[string]any{"calcs": []string{"lastNotNull"}, "values": false, "fields": ""}}
	switch kind {
	case "timeseries":
		base.Min = &zero
		base.Custom = map[string]any{"lineWidth": 1, "fillOpacity": 8, "showPoints": "never"}
		if p.Stack {
			base.Custom["stacking"] = map[string]any{"mode": "normal", "group": "A"}
			base.Custom["fillOpacity"] = 30
		}
		out.Options = map[string]any{"legend": map[string]any{"displayMode": "list", "placement": "bottom", "showLegend": true}, "tooltip": map[string]any{"mode": "multi", "sort": "desc"}}
	case "stat":
		latest["colorMode"], latest["graphMode"] = "value", "none"
		out.Options = latest
	case "gauge":
		base.Min = &zero
		if p.Max > 0 {
			base.Max = &p.Max
		}
		out.Options = latest
	case "table":
		out.Transformations = columns(p.Queries)
		for _, q := range p.Queries {
			if q.Unit != "" {
				out.FieldConfig.Overrides = append(out.FieldConfig.Overrides, override{property{ID: "byName", Options: q.Legend}, []property{{ID: "unit", Value: unit(q.Unit)}}})
			}
		}
	}
	return out
}

// columns puts the answers of a table's queries side by side: one row for each
// set of labels.
func columns(all []query) []transform {
	names := map[string]string{}
	for i, q := range all {
		names["Value #"+string(rune('A'+i))] = q.Legend
	}
	return []transform{{"merge", map[string]any{}}, {"organize", map[string]any{"excludeByName": map[string]bool{"Time": true}, "renameByName": names, "indexByName": map[string]int{}}}}
}

// unit is Grafana's name of a unit.
func unit(name string) string {
	if name == "cores" {
		return "suffix: cores"
	}
	return cmp.Or(name, "short")
}
