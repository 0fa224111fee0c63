package wording

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"text/template/parse"
)

// Rule tells why a label or annotation of a namespace's alerting rule may not be run.
// What does not parse makes nothing: others say so.
func Rule(text string) error { return check(text, ofRules()) }

// Notification tells why a text of a namespace's receiver may not be run. What does not
// parse makes nothing.
func Notification(text string) error { return check(text, ofNotifications()) }

// kind is what a value may be.
type kind int

const (
	made    kind = iota // anything: range may not go through it
	plain               // data or a text
	element             // a series, an alert, a name and its value
	pairs               // labels, annotations
	group               // results of a query, alerts
	whole               // all that the template gets
)

// value is what is known of a value without its template being run.
type value struct {
	kind   kind
	size   float64 // bytes at most
	varies bool    // hangs on a variable that is set again
}

type variable struct {
	name string
	value
}

// reading is one template being read.
type reading struct {
	language
	vars  []*variable
	again map[string]bool // names that are set again
	depth int             // of ranges
	in    bool            // a range over a group
	work  float64         // bytes made
	err   error
}

func check(text string, l language) error {
	if float64(len(text)) > l.limit {
		return fmt.Errorf("the text has %d bytes, a namespace's may have %.0f", len(text), l.limit)
	}
	if len(text) > mostText && strings.Contains(text, "{{") {
		return fmt.Errorf("the template has %d bytes, a namespace's may have %d", len(text), mostText)
	}
	set := map[string]*parse.Tree{}
	name := rand.Text() // which no define can have: that would be taken for this text
	t := parse.New(name)
	t.Mode = parse.SkipFuncCheck
	if _, err := t.Parse(l.before+text, "", "", set); err != nil {
		return nil
	}
	if len(set) > 1 || t.Root == nil || set[name] != t {
		return errors.New("define and block: a namespace's text defines no templates; write what they say where it is used")
	}
	r := &reading{language: l, again: map[string]bool{}}
	for range 2 { // the first finds which variables are set again
		r.vars, r.depth, r.in, r.work, r.err = nil, 0, false, 0, nil
		top := value{kind: whole, size: l.whole}
		r.declare("$", top)
		r.list(t.Root, top)
	}
	return r.err
}

// refuse keeps the first reason.
func (r *reading) refuse(n parse.Node, format string, args ...any) {
	if r.err != nil {
		return
	}
	at := []rune(n.String())
	if n.Type() == parse.NodeText { // it may be a Secret's
		at = []rune("…")
	}
	if len(at) > 80 {
		at = append(at[:80], '…')
	}
	r.err = fmt.Errorf("template %q: %s", string(at), fmt.Sprintf(format, args...))
}

// makes counts bytes.
func (r *reading) makes(n parse.Node, size float64) {
	if r.work += size; r.work > r.limit {
		r.refuse(n, "a namespace's text makes at most %.0f bytes, and with many series, alerts or labels this may make more; range over fewer, or put less in it", r.limit)
	}
}

func (r *reading) declare(name string, v value) {
	r.vars = append(r.vars, &variable{name, v})
}

func (r *reading) variable(name string) *variable {
	for i := len(r.vars) - 1; i >= 0; i-- {
		if r.vars[i].name == name {
			return r.vars[i]
		}
	}
	return &variable{name, value{}} // parse knows all
}

func (r *reading) list(l *parse.ListNode, dot value) {
	if l == nil {
		return
	}
	for _, n := range l.Nodes {
		if r.err != nil {
			return
		}
		r.node(n, dot)
	}
}

// block reads a list with variables of its own.
func (r *reading) block(l *parse.ListNode, dot value) {
	have := len(r.vars)
	r.list(l, dot)
	r.vars = r.vars[:have]
}

func (r *reading) node(n parse.Node, dot value) {
	r.makes(n, 1)
	switch n := n.(type) {
	case *parse.TextNode:
		r.makes(n, float64(len(n.Text)))
	case *parse.ActionNode:
		v := r.pipe(n.Pipe, dot)
		if r.keep(n.Pipe, v); len(n.Pipe.Decl) == 0 {
			r.makes(n, v.size)
		}
	case *parse.IfNode:
		r.branch(n.Pipe, n.List, n.ElseList, dot, false)
	case *parse.WithNode:
		r.branch(n.Pipe, n.List, n.ElseList, dot, true)
	case *parse.RangeNode:
		r.rangeOver(n, dot)
	case *parse.TemplateNode:
		r.template(n, dot)
	case *parse.CommentNode, *parse.BreakNode, *parse.ContinueNode:
	default:
		r.refuse(n, "is not known here")
	}
}

func (r *reading) branch(p *parse.PipeNode, then, otherwise *parse.ListNode, dot value, with bool) {
	have := len(r.vars)
	v := r.pipe(p, dot)
	r.keep(p, v)
	if with {
		r.block(then, v)
	} else {
		r.block(then, dot)
	}
	r.block(otherwise, dot)
	r.vars = r.vars[:have]
}

// keep puts a value into the variables of a pipeline.
func (r *reading) keep(p *parse.PipeNode, v value) {
	for _, d := range p.Decl {
		name := d.Ident[0]
		if !p.IsAssign {
			v.varies = v.varies || r.again[name]
			r.declare(name, v)
			continue
		}
		r.again[name] = true
		if r.depth > 0 && v.varies {
			r.refuse(p, "in a range, a variable gets nothing made of one that is set again: it may grow each time")
		}
		have := r.variable(name)
		if have.kind != v.kind {
			have.kind = made
		}
		have.size, have.varies = max(have.size, v.size), true
	}
}

func (r *reading) rangeOver(n *parse.RangeNode, dot value) {
	have := len(r.vars)
	v := r.pipe(n.Pipe, dot)
	times, each := r.group, value{kind: element, size: elementSize}
	switch {
	case v.kind == pairs:
		times, each.size = mostPairs, dataSize
	case v.kind != group:
		r.refuse(n.Pipe, "a namespace's text goes through nothing but %s", r.may)
	case r.in:
		r.refuse(n.Pipe, "goes through all for each of all; a namespace's text does so once")
	}
	if r.depth++; r.depth > mostNested {
		r.refuse(n.Pipe, "ranges are nested more than %d deep", mostNested)
	}
	was := r.in
	r.in = was || v.kind == group
	item, place := each, value{kind: made, size: dataSize}
	switch len(n.Pipe.Decl) {
	case 1:
		r.item(n.Pipe, 0, item)
	case 2:
		r.item(n.Pipe, 0, place)
		r.item(n.Pipe, 1, item)
	}
	before := r.work
	for range 2 { // what the first sets, the second reads
		r.work = before
		r.block(n.List, each)
	}
	once := r.work - before
	r.work = before
	r.makes(n.Pipe, once*times)
	r.depth, r.in = r.depth-1, was
	r.block(n.ElseList, dot)
	r.vars = r.vars[:have]
}

// item is a variable of range itself.
func (r *reading) item(p *parse.PipeNode, i int, v value) {
	one := *p
	one.Decl = p.Decl[i : i+1]
	r.keep(&one, v)
}

func (r *reading) template(n *parse.TemplateNode, dot value) {
	if !r.shipped {
		r.refuse(n, "there is no template to call in a rule")
		return
	}
	size := 4.0 * (1 << 10)
	if n.Pipe != nil {
		v := r.pipe(n.Pipe, dot)
		switch v.kind {
		case made:
			r.refuse(n, "a namespace's text gives a template only what it got: ., $, fields of those or alerts")
		case whole, group:
			size = 64 << 10
		}
		size += 4 * v.size
	}
	r.makes(n, size)
}
