package apiserver

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apiserver/pkg/registry/rest"

	"perch/controlplane/api"
)

const (
	none    = "<none>"
	unset   = "<unset>"
	unknown = "<unknown>"
)

// column is one column of kubectl get. Its cell must not change the object.
type column struct {
	name string
	kind string // OpenAPI type of the cell
	wide bool   // shown with -o wide only
	cell func(now time.Time, o runtime.Object) any
}

// text, number and flag make a column of a typed function.
func text[T runtime.Object](name string, f func(o T) string) column {
	return column{name: name, kind: "string", cell: func(_ time.Time, o runtime.Object) any { return f(o.(T)) }}
}

func number[T runtime.Object](name string, f func(o T) int64) column {
	return column{name: name, kind: "integer", cell: func(_ time.Time, o runtime.Object) any { return f(o.(T)) }}
}

func flag[T runtime.Object](name string, f func(o T) *bool) column {
	return column{name: name, kind: "boolean", cell: func(_ time.Time, o runtime.Object) any {
		if b := f(o.(T)); b != nil {
			return *b
		}
		return unset
	}}
}

// timed makes a column that depends on the time of the request.
func timed[T runtime.Object](name string, f func(now time.Time, o T) string) column {
	return column{name: name, kind: "string", cell: func(now time.Time, o runtime.Object) any { return f(now, o.(T)) }}
}

func wide(c column) column {
	c.wide = true
	return c
}

// named and aged are the first and usually the last column.
func named() column {
	return column{name: "Name", kind: "string", cell: func(_ time.Time, o runtime.Object) any { return accessor(o).GetName() }}
}

func aged() column {
	return column{name: "Age", kind: "string", cell: func(now time.Time, o runtime.Object) any {
		return since(now, accessor(o).GetCreationTimestamp().Time)
	}}
}

// since is the short form of how long ago something was.
func since(now, t time.Time) string {
	if t.IsZero() {
		return unknown
	}
	return duration.HumanDuration(now.Sub(t))
}

// table prints a kind for kubectl.
type table struct{ columns []column }

var _ rest.TableConvertor = table{}

func newTable(k api.Kind) table {
	c, ok := columns()[k.GVK().GroupKind()]
	if !ok {
		c = []column{named(), aged()}
	}
	return table{columns: c}
}

// ConvertToTable prints one object or a list.
func (t table) ConvertToTable(_ context.Context, o, options runtime.Object) (*metav1.Table, error) {
	out := &metav1.Table{}
	now := time.Now()
	if opts, ok := options.(*metav1.TableOptions); !ok || opts == nil || !opts.NoHeaders {
		for _, c := range t.columns {
			d := metav1.TableColumnDefinition{Name: c.name, Type: c.kind, Description: c.name + " of the object."}
			if c.name == "Name" {
				d.Format = "name"
			}
			if c.wide {
				d.Priority = 1
			}
			out.ColumnDefinitions = append(out.ColumnDefinitions, d)
		}
	}
	add := func(o runtime.Object) error {
		if _, err := meta.Accessor(o); err != nil {
			return fmt.Errorf("print %T: %w", o, err)
		}
		row := metav1.TableRow{Object: runtime.RawExtension{Object: o}, Cells: make([]any, 0, len(t.columns))}
		for _, c := range t.columns {
			row.Cells = append(row.Cells, c.cell(now, o))
		}
		row.Conditions = rowConditions(o)
		out.Rows = append(out.Rows, row)
		return nil
	}
	if l, err := meta.ListAccessor(o); err == nil {
		out.ResourceVersion, out.Continue, out.RemainingItemCount = l.GetResourceVersion(), l.GetContinue(), l.GetRemainingItemCount()
		return out, meta.EachListItem(o, add)
	}
	if m, err := meta.CommonAccessor(o); err == nil {
		out.ResourceVersion = m.GetResourceVersion()
	}
	return out, add(o)
}
