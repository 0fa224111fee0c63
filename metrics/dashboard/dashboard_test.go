package dashboard

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

func shipped(t *testing.T) []Dashboard {
	t.Helper()
	all, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestEachSubjectHasADashboard(t *testing.T) {
	have := map[string]bool{}
	for _, d := range shipped(t) {
		have[d.Name] = true
	}
	for _, want := range []string{"controlplane", "logs", "network", "nodes", "perch", "pods", "storage", "workloads"} {
		if !have[want] {
			t.Errorf("there is no dashboard of %s", want)
		}
	}
}

func TestEveryQueryCanBeRead(t *testing.T) {
	p := parser.NewParser(parser.Options{})
	for _, d := range shipped(t) {
		all, err := Questions(d.JSON)
		if err != nil {
			t.Fatal(err)
		}
		if len(all) < 8 {
			t.Errorf("%s asks %d questions", d.Name, len(all))
		}
		for _, q := range all {
			if _, err := p.ParseExpr(q.Expr); err != nil {
				t.Errorf("%s: %s: %v\n%s", d.Name, q.Panel, err, q.Expr)
			}
			if strings.Contains(q.Expr, "$") && !strings.Contains(q.Expr, `"$1"`) {
				t.Errorf("%s: %s: a variable is not declared: %s", d.Name, q.Panel, q.Expr)
			}
		}
	}
}

// TestDashboardsShowWhatPerchSays: a second exporter is not added, and what pods of a
// namespace say about machines is not shown.
func TestDashboardsShowWhatPerchSays(t *testing.T) {
	p, n := parser.NewParser(parser.Options{}), 0
	for _, d := range shipped(t) {
		all, err := Questions(d.JSON)
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range all {
			e, err := p.ParseExpr(q.Expr)
			if err != nil {
				t.Fatal(err)
			}
			for _, matchers := range parser.ExtractSelectors(e) {
				with := map[string]string{}
				for _, m := range matchers {
					if m.Type == labels.MatchEqual {
						with[m.Name] = m.Value
					}
				}
				name := with[labels.MetricName]
				kind, _, _ := strings.Cut(name, "_")
				job := map[string]string{"kube": "kube-state-metrics", "node": "node-exporter", "container": "kubelet"}[kind]
				if job == "" || strings.Contains(name, ":") {
					continue
				}
				n++
				if with["job"] != job {
					t.Errorf("%s: %s: %s is not of job %s", d.Name, q.Panel, name, job)
				}
				if none, is := with["namespace"]; (kind == "node" || strings.HasPrefix(name, "kube_node_")) && (!is || none != "") {
					t.Errorf("%s: %s: %s may be of any namespace", d.Name, q.Panel, name)
				}
			}
		}
	}
	if n < 80 {
		t.Errorf("only %d selectors were seen", n)
	}
}

// TestGrafanaTakesThem checks what Grafana's import looks at: an identity,
// numbered panels that do not overlap on its grid, a data source that the
// reader chooses, and no field that holds nothing.
func TestGrafanaTakesThem(t *testing.T) {
	for _, d := range shipped(t) {
		var g struct {
			UID, Title    string
			SchemaVersion int
			Templating    struct{ List []struct{ Name, Type string } }
			Panels        []struct {
				ID         int
				Type       string
				GridPos    *struct{ H, W, X, Y int }
				Datasource struct{ Type, UID string }
				Targets    []struct {
					RefID, Expr string
					Datasource  struct{ Type, UID string }
				}
			}
		}
		if err := json.Unmarshal([]byte(d.JSON), &g); err != nil {
			t.Fatal(err)
		}
		if g.UID != "perch-"+d.Name || g.Title != d.Title || g.SchemaVersion < 36 || len(g.UID) > 40 {
			t.Errorf("%s: uid %q, title %q, schema %d", d.Name, g.UID, g.Title, g.SchemaVersion)
		}
		if len(g.Templating.List) == 0 || g.Templating.List[0].Type != "datasource" || g.Templating.List[0].Name != "datasource" {
			t.Errorf("%s: the reader cannot choose the data source", d.Name)
		}
		ids, cells := map[int]bool{}, map[[2]int]int{}
		for _, p := range g.Panels {
			if ids[p.ID] || p.ID == 0 || p.GridPos == nil {
				t.Fatalf("%s: panel %d: its number or its place is wrong", d.Name, p.ID)
			}
			ids[p.ID] = true
			for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
				for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
					if other := cells[[2]int{x, y}]; other != 0 || x >= 24 {
						t.Fatalf("%s: panels %d and %d overlap, or stand outside, at %d,%d", d.Name, p.ID, other, x, y)
					}
					cells[[2]int{x, y}] = p.ID
				}
			}
			if p.Type == "row" {
				continue
			}
			for _, q := range p.Targets {
				if q.RefID == "" || q.Datasource.Type != "prometheus" || q.Datasource.UID != "${datasource}" {
					t.Errorf("%s: panel %d asks %+v", d.Name, p.ID, q)
				}
			}
		}
	}
}
