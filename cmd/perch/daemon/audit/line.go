package audit

import (
	"cmp"
	"net/http"
	"strconv"
	"strings"

	"k8s.io/apiserver/pkg/apis/audit"

	"perch/controlplane/api"
	"perch/logs/record"
)

// Kind of these lines: kind:audit in a query.
const Kind = "audit"

// Limits of what callers say of themselves and what they are told, in bytes.
const (
	maxAgent  = 120
	maxAnswer = 300
	maxWho    = 1 << 10 // names of users
	maxWord   = 300     // each part of what is asked for: no object has a longer name
)

// word is what was done, by the verb of the API.
func word(verb string) string {
	switch verb {
	case "create":
		return "created"
	case "update":
		return "updated"
	case "patch":
		return "patched"
	case "delete":
		return "deleted"
	case "deletecollection":
		return "deleted all"
	case "get":
		return "read"
	case "list":
		return "listed"
	case "watch":
		return "watched"
	}
	return verb
}

// line is an event of the library in words: "alice deleted deployment shop/web".
// What is a rehearsal changes nothing and is no line.
func (n *namer) line(e *audit.Event) (record.Record, bool) {
	if e.ObjectRef == nil || e.Annotations[dryRunMark] != "" || strings.Contains(e.RequestURI, "dryRun=All") {
		return record.Record{}, false
	}
	ref, code := *e.ObjectRef, int32(0)
	for _, part := range []*string{&ref.Resource, &ref.Subresource, &ref.APIGroup, &ref.Namespace, &ref.Name} {
		*part = cut(*part, maxWord)
	}
	o, verb, user := &ref, cut(e.Verb, maxWord), cut(e.User.Username, maxWho)
	if e.ResponseStatus != nil {
		code = e.ResponseStatus.Code
	}
	who, did, what := user, word(verb), n.object(o)
	as := ""
	if e.ImpersonatedUser != nil {
		as = cut(e.ImpersonatedUser.Username, maxWho)
		who += " as " + as
	}
	switch o.Subresource {
	case "exec":
		did = "ran a command in"
	case "attach", "portforward", "proxy":
		did = "reached (" + o.Subresource + ")"
	case "eviction":
		did = "evicted"
	case "binding":
		did = "placed"
	case "":
	default:
		did += " " + o.Subresource + " of"
	}
	answer := ""
	if code >= http.StatusBadRequest {
		did, answer = "failed to "+verb, strconv.Itoa(int(code))
		if code == http.StatusForbidden || code == http.StatusUnauthorized {
			did = "may not " + verb
		}
		if o.Subresource != "" {
			did += " " + o.Subresource + " of"
		}
		if e.ResponseStatus.Message != "" {
			answer += " " + cut(e.ResponseStatus.Message, maxAnswer)
		}
	}
	body := who + " " + did + " " + what
	if answer != "" {
		body += ": " + answer
	}
	r := record.Record{Time: e.StageTimestamp.UnixNano(), Level: level(code), Stream: n.stream(o), Body: []byte(body)}
	from, via := "", ""
	if len(e.SourceIPs) > 0 { // the first is what a proxy says, the last what the API sees
		from, via = cut(e.SourceIPs[0], maxWord), cut(strings.Join(e.SourceIPs[1:], ","), maxWord)
	}
	for _, f := range []record.Field{{Key: "user", Value: user}, {Key: "as", Value: as}, {Key: "verb", Value: verb}, {Key: "resource", Value: o.Resource},
		{Key: "subresource", Value: o.Subresource}, {Key: "group", Value: o.APIGroup}, {Key: "in", Value: o.Namespace}, {Key: "name", Value: o.Name},
		{Key: "code", Value: strconv.Itoa(int(code))}, {Key: "from", Value: from}, {Key: "via", Value: via}, {Key: "agent", Value: cut(e.UserAgent, maxAgent)}, {Key: "request", Value: cut(string(e.AuditID), maxWord)}} {
		if f.Value != "" {
			r.Fields = append(r.Fields, f)
		}
	}
	return r, true
}

func cut(s string, n int) string {
	if len(s) > n {
		s = s[:n] + "…"
	}
	return strings.ToValidUTF8(s, "")
}

func level(code int32) record.Level {
	switch {
	case code >= http.StatusInternalServerError:
		return record.Error
	case code == http.StatusForbidden || code == http.StatusUnauthorized:
		return record.Warn
	}
	return record.Info
}

// namer knows how objects are called and where their lines belong.
type namer struct {
	node     string
	singular map[[2]string]string // by group and resource
}

func newNamer(node string) *namer {
	n := &namer{node: node, singular: map[[2]string]string{}}
	for _, k := range api.Kinds() {
		n.singular[[2]string{k.Group, k.Plural}] = k.Singular()
	}
	return n
}

func (n *namer) object(o *audit.ObjectReference) string {
	kind := cmp.Or(n.singular[[2]string{o.APIGroup, o.Resource}], o.Resource)
	switch {
	case o.Name == "" && o.Namespace == "":
		return o.Resource
	case o.Name == "":
		return o.Resource + " in " + o.Namespace
	case o.Namespace == "":
		return kind + " " + o.Name
	}
	return kind + " " + o.Namespace + "/" + o.Name
}

// stream is where a line belongs: to the namespace of its object, and to the
// pod if it is one, as events do. Lines about secrets and rights belong to no
// namespace, so that only who may read the lines of all sees them.
func (n *namer) stream(o *audit.ObjectReference) *record.Stream {
	s := &record.Stream{Node: n.node, Output: record.Event, Kind: Kind}
	if o.Resource == "secrets" || o.APIGroup == "rbac.authorization.k8s.io" || o.Subresource == "token" {
		return s
	}
	s.Namespace = o.Namespace
	switch {
	case o.Resource == "pods" && o.APIGroup == "":
		s.Pod = o.Name
	case o.Resource == "namespaces" && o.APIGroup == "":
		s.Namespace = o.Name
	}
	return s
}
