package wording

import (
	"strings"
	"text/template/parse"
)

// pipe is what a pipeline gives; its variables are not touched.
func (r *reading) pipe(p *parse.PipeNode, dot value) value {
	if p == nil {
		return value{}
	}
	var last *value
	for _, c := range p.Cmds {
		v := r.command(c, dot, last)
		last = &v
	}
	if last == nil {
		return value{}
	}
	return *last
}

// command is what one gives that gets the value of the one before it as its last
// argument.
func (r *reading) command(c *parse.CommandNode, dot value, last *value) value {
	if f, ok := c.Args[0].(*parse.IdentifierNode); ok {
		return r.call(c, f.Ident, r.arguments(c, dot, last))
	}
	args := r.arguments(c, dot, last)
	if len(args) == 0 {
		return r.operand(c.Args[0], dot)
	}
	var base value
	var fields []string
	switch n := c.Args[0].(type) {
	case *parse.FieldNode:
		base, fields = dot, n.Ident
	case *parse.VariableNode:
		base, fields = r.variable(n.Ident[0]).value, n.Ident[1:]
	case *parse.ChainNode:
		base, fields = r.operand(n.Node, dot), n.Field
	}
	if len(fields) == 0 {
		r.refuse(c, "takes no arguments")
		return value{}
	}
	return r.method(c, r.field(base, fields[:len(fields)-1]), fields[len(fields)-1], args)
}

func (r *reading) arguments(c *parse.CommandNode, dot value, last *value) []value {
	var out []value
	for _, n := range c.Args[1:] {
		out = append(out, r.operand(n, dot))
	}
	if last != nil {
		out = append(out, *last)
	}
	return out
}

func (r *reading) operand(n parse.Node, dot value) value {
	switch n := n.(type) {
	case *parse.DotNode:
		return dot
	case *parse.FieldNode:
		return r.field(dot, n.Ident)
	case *parse.VariableNode:
		return r.field(r.variable(n.Ident[0]).value, n.Ident[1:])
	case *parse.ChainNode:
		return r.field(r.operand(n.Node, dot), n.Field)
	case *parse.PipeNode:
		v := r.pipe(n, dot)
		r.keep(n, v)
		return v
	case *parse.IdentifierNode:
		return r.call(n, n.Ident, nil)
	case *parse.StringNode:
		return value{kind: plain, size: float64(len(n.Text))}
	case *parse.NumberNode:
		return value{kind: made, size: max(dataSize, float64(len(n.Text)))}
	case *parse.BoolNode, *parse.NilNode:
		return value{kind: made, size: dataSize}
	}
	r.refuse(n, "is not known here")
	return value{}
}

// numbers are methods of times: a template of the cluster that goes through what it is
// given would count to one.
var numbers = map[string]bool{"Unix": true, "UnixMilli": true, "UnixMicro": true, "UnixNano": true, "Nanosecond": true}

// field follows names from a value.
func (r *reading) field(v value, names []string) value {
	for _, name := range names {
		if v.kind == made { // put together in the template: with numbers in it, too
			continue
		}
		v = value{kind: plain, size: dataSize, varies: v.varies}
		switch k, several := r.names[name]; {
		case several && k == group:
			v.kind, v.size = group, r.groupIs
		case several:
			v.kind, v.size = pairs, pairsSize
		case numbers[name]:
			v.kind = made
		}
	}
	return v
}

// total is the size of values put together, and whether one of them varies.
func total(args []value) (out value) {
	for _, a := range args {
		out.size += a.size
		out.varies = out.varies || a.varies
	}
	return out
}

// methods that may be called with arguments: of labels, lists of texts and times.
var methods = map[string]bool{"Remove": true, "Join": true, "Format": true, "In": true, "Add": true, "Sub": true, "AddDate": true, "Truncate": true, "Round": true,
	"Before": true, "After": true, "Equal": true, "Compare": true}

func (r *reading) method(n parse.Node, of value, name string, args []value) value {
	if !methods[name] {
		r.refuse(n, "a namespace's text calls no %s", name)
		return value{}
	}
	all := total(args)
	out := value{kind: made, size: dataSize + 8*all.size, varies: of.varies || all.varies}
	switch {
	case name == "Remove" && of.kind != made:
		out.kind, out.size = pairs, of.size
	case name == "Remove":
		out.size = of.size
	case name == "Join":
		out.kind, out.size = plain, of.size*(1+all.size)
	case name == "Format":
		out.kind = plain
	}
	r.makes(n, out.size)
	return out
}

// call is what a function gives.
func (r *reading) call(n parse.Node, name string, args []value) value {
	out := total(args)
	sum := out.size
	factor, isText := r.factor(r.text, bothText, name)
	if !isText {
		var known bool
		switch factor, known = r.factor(r.made, bothMade, name); {
		case known:
		case !r.shipped && (name == "query" || name == "first" || name == "sortByLabel"):
		default:
			r.refuse(n, "the function %s is not known to be safe in a namespace's text", name)
			return value{}
		}
	}
	out.size = dataSize + factor*(sum+float64(len(args)))
	if isText {
		out.kind = plain
	}
	switch name {
	case "query":
		out.kind, out.size = group, r.groupIs
	case "sortByLabel", "and", "or":
		out.kind, out.size = same(args), sum
		if name == "sortByLabel" && out.kind != group { // its label stands before
			out.kind = made
			if len(args) > 0 {
				out.kind = args[len(args)-1].kind
			}
		}
	case "first":
		out.kind, out.size = element, elementSize
	case "index":
		if len(args) > 0 && args[0].kind == group {
			out.kind, out.size = element, elementSize
		} else if len(args) > 0 && args[0].kind == pairs {
			out.kind, out.size = plain, dataSize
		}
	case "value":
		out.size = dataSize
	case "append": // two lists may have one end, and one be put into it
		for _, a := range args[min(1, len(args)):] {
			if a.kind == made {
				r.refuse(n, "append takes texts and fields here: a list that lists are appended to may hold itself")
			}
		}
	case "join":
		if len(args) == 2 {
			out.size = (args[1].size + 1) * (args[0].size + 1)
		}
	case "reReplaceAll":
		if len(args) == 3 {
			with, in := args[1].size, args[2].size
			out.size = in + 2*(in+1)*with
		}
	case "printf":
		out.size = r.printf(n, args)
	}
	r.makes(n, out.size)
	return out
}

func (r *reading) factor(own, both map[string]float64, name string) (float64, bool) {
	if f, ok := own[name]; ok {
		return f, true
	}
	f, ok := both[name]
	return f, ok
}

// same is the kind that all have.
func same(args []value) kind {
	for _, a := range args {
		if a.kind != args[0].kind {
			return made
		}
	}
	if len(args) == 0 {
		return made
	}
	return args[0].kind
}

// printf is how much one makes: of each verb the largest of its arguments, which %[1]s
// may name more than once.
func (r *reading) printf(n parse.Node, args []value) float64 {
	c, ok := n.(*parse.CommandNode)
	if !ok || len(c.Args) < 2 {
		r.refuse(n, "printf's format has to stand after it")
		return 0
	}
	format, ok := c.Args[1].(*parse.StringNode)
	if !ok {
		r.refuse(n, "printf's format has to be written there as a text: nothing knows otherwise how wide it is")
		return 0
	}
	largest := 0.0
	for _, a := range args[1:] {
		largest = max(largest, a.size)
	}
	size := float64(len(format.Text))
	for _, verb := range strings.Split(format.Text, "%")[1:] {
		width, factor, number := 0, 1.0, 0
	verb:
		for _, x := range verb {
			switch {
			case x >= '0' && x <= '9':
				number = min(number*10+int(x-'0'), 1<<20)
				width = max(width, number)
			case x == '*':
				r.refuse(n, "a width of printf is written there, not *")
			case strings.ContainsRune(" +-#.[]", x):
				number = 0
			case strings.ContainsRune("sdfgGeEtc", x):
				break verb
			default: // quoted, in bytes, with names of types
				factor = 8
				break verb
			}
		}
		if width > mostWidth {
			r.refuse(n, "a width of printf is at most %d", mostWidth)
		}
		size += float64(width) + factor*largest
	}
	return size
}
