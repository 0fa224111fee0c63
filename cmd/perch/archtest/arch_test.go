package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// rules say which packages of perch a package may import: the first prefix
// that matches counts. A package may always import what lies below itself.
var rules = []struct {
	pkg   string
	allow []string
}{
	{"cmd/perch/daemon", []string{"*"}},
	{"cmd/perch/cli", []string{"controlplane/api"}},
	{"cmd/perch-shim", []string{"agent/network/cni"}},
	{"cmd/perch-demo", nil},
	{"cmd/perch", []string{"*"}},
	{"build", nil},

	{"controlplane/api/legal", []string{"controlplane/api"}},
	{"controlplane/api", nil},
	{"controlplane/event", []string{"controlplane/api"}},
	{"controlplane/store", nil},
	{"controlplane/auth", []string{"controlplane/api", "controlplane/auth"}},
	{"controlplane/apiserver", []string{"controlplane/api", "controlplane/auth", "controlplane/store"}},
	{"controlplane", []string{"controlplane/api", "controlplane/event", "controlplane/controller/reconcile"}},

	{"agent/cgroup", nil},
	{"agent/runtime", []string{"agent/runtime", "agent/image/load"}},
	{"agent/network", []string{"agent/network", "controlplane/api"}},
	{"agent/stats", []string{"agent/cgroup", "agent/stats"}},
	{"agent/tail", []string{"logs/record"}},
	{"agent", []string{"agent", "controlplane/api", "controlplane/event"}},

	{"metrics", []string{"metrics", "controlplane/api"}},
	{"logs/record", nil},
	{"logs/wal", []string{"logs/record"}},
	{"logs/block", []string{"logs/record"}},
	{"logs", []string{"logs"}},
	{"alerts", []string{"alerts", "controlplane/api"}},
	{"ui", nil},
}

// heavy modules stay where they belong, so that small tests link little.
var heavy = map[string][]string{
	"k8s.io/kubernetes":                   {"controlplane/api/legal"},
	"k8s.io/apiserver":                    {"controlplane", "metrics/resource", "cmd/perch/daemon"},
	"go.etcd.io/etcd/server":              {"controlplane/store"},
	"github.com/containerd/containerd/v2": {"agent/runtime", "agent/image", "cmd/perch-shim", "cmd/perch/daemon"},
	"github.com/blevesearch/bleve":        {"logs/index"},
	"github.com/prometheus/prometheus":    {"metrics", "alerts", "cmd/perch/daemon"},
	"github.com/prometheus/alertmanager":  {"alerts", "cmd/perch/daemon"},
	"github.com/google/cadvisor":          {"agent/stats/cadvisor"},
	"github.com/coredns":                  {"agent/dns", "cmd/perch/daemon"},
	"k8s.io/kubectl":                      {"cmd/perch/cli", "controlplane/apiserver", "controlplane/controller"},
}

type file struct {
	path string // from the root
	pkg  string
	ast  *ast.File
	text string
	fset *token.FileSet
}

func (f file) test() bool { return strings.HasSuffix(f.path, "_test.go") }
func (f file) generated() bool {
	return strings.HasSuffix(f.path, "_gen.go") || strings.Contains(f.text[:min(len(f.text), 500)], "DO NOT EDIT")
}

func tree(t *testing.T) []file {
	t.Helper()
	root := filepath.Join("..", "..", "..")
	var out []file
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && (strings.HasPrefix(name, ".") && len(name) > 2 || name == "node_modules" || name == "testdata" || name == "zzwarm" || name == "out") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		a, err := parser.ParseFile(fset, p, text, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		out = append(out, file{filepath.ToSlash(rel), path.Dir(filepath.ToSlash(rel)), a, string(text), fset})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 10 {
		t.Fatalf("only %d files found: the walk is broken", len(out))
	}
	return out
}

// light packages of heavy modules: types that link next to nothing.
func light(imported string) bool {
	return slices.Contains([]string{"k8s.io/apiserver/pkg/authentication/user",
		"github.com/prometheus/prometheus/model/labels", "github.com/prometheus/prometheus/model/value"}, imported)
}

func below(pkg, prefix string) bool { return pkg == prefix || strings.HasPrefix(pkg, prefix+"/") }

func allowed(pkg, imported string) bool {
	if below(imported, pkg) || below(pkg, imported) && strings.Count(imported, "/") > 0 {
		return true
	}
	for _, r := range rules {
		if !below(pkg, r.pkg) {
			continue
		}
		return slices.ContainsFunc(r.allow, func(a string) bool { return a == "*" || below(imported, a) })
	}
	return false
}

func TestImportsMatchTheArchitecture(t *testing.T) {
	for _, f := range tree(t) {
		for _, imp := range f.ast.Imports {
			p := strings.Trim(imp.Path.Value, `"`)
			if inside, ours := strings.CutPrefix(p, "perch/"); ours && !f.test() && !allowed(f.pkg, inside) {
				t.Errorf("%s imports %s: ARCHITECTURE.md does not allow it", f.path, p)
			}
			for module, homes := range heavy {
				if below(p, module) && !light(p) && !slices.ContainsFunc(homes, func(h string) bool { return below(f.pkg, h) }) {
					t.Errorf("%s imports %s: only %s may", f.path, p, strings.Join(homes, ", "))
				}
			}
		}
	}
}

func TestEachPackageSaysWhatItIs(t *testing.T) {
	docs, names := map[string]int{}, map[string]bool{}
	for _, f := range tree(t) {
		if f.test() || f.generated() && f.ast.Doc == nil {
			continue
		}
		names[f.pkg] = true
		if f.ast.Doc != nil {
			docs[f.pkg]++
		}
	}
	for pkg := range names {
		if docs[pkg] != 1 {
			t.Errorf("%s has %d package comments, want one", pkg, docs[pkg])
		}
		for _, bad := range []string{"util", "utils", "common", "helper", "helpers", "manager", "base", "misc", "types"} {
			if path.Base(pkg) == bad {
				t.Errorf("%s: name the noun", pkg)
			}
		}
	}
}

func TestNothingForbiddenIsWritten(t *testing.T) {
	for _, f := range tree(t) {
		if f.generated() {
			continue
		}
		if n := strings.Count(f.text, "\n"); n > 800 {
			t.Errorf("%s has %d lines: look for the missing noun", f.path, n)
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.Name == "init" && fn.Recv == nil && !f.test() {
				t.Errorf("%s has an init function", f.path)
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := sel.X.(*ast.Ident)
			if !ok {
				return true
			}
			where := f.fset.Position(n.Pos())
			switch name := pkg.Name + "." + sel.Sel.Name; {
			case name == "time.Sleep" && f.test() && !strings.Contains(f.text, `"testing/synctest"`): // in a bubble time is not real
				t.Errorf("%s:%d sleeps in a test: wait for a condition", f.path, where.Line)
			case name == "time.Now" && path.Base(f.path) == "decide.go":
				t.Errorf("%s:%d reads the clock in a decision", f.path, where.Line)
			case (name == "prometheus.MustRegister" || name == "prometheus.DefaultRegisterer") && !f.test():
				t.Errorf("%s:%d uses the default registry", f.path, where.Line)
			}
			return true
		})
	}
}

// The flow tables of ARCHITECTURE.md name living symbols: `package.Symbol`, or
// a package alone.
func TestTheFlowTablesNameLivingSymbols(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	declared := map[string]bool{}
	for _, f := range tree(t) {
		declared[f.pkg] = true
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil {
					declared[f.pkg+"."+d.Name.Name] = true
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					if ts, ok := s.(*ast.TypeSpec); ok {
						declared[f.pkg+"."+ts.Name.Name] = true
					}
				}
			}
		}
	}
	rows := 0
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) != 7 || !strings.Contains(cells[2], "`") {
			continue
		}
		rows++
		symbol := strings.Trim(strings.TrimSpace(cells[2]), "`")
		if !declared[symbol] {
			t.Errorf("ARCHITECTURE.md names %s, which does not exist", symbol)
		}
	}
	if rows < 15 {
		t.Errorf("only %d rows found: the tables have another shape", rows)
	}
}
