package amconfig

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"unicode"

	"github.com/prometheus/common/model"
)

// writer turns the object's words into Alertmanager's and keeps the first reason
// why that cannot be.
type writer struct {
	value func(path string, r Ref) (string, error)
	check bool // values are not the real ones
	err   error

	guarded  Guarded // nil: nobody asks
	receiver func(number int) string
	refused  []string
}

func (w *writer) fail(path string, err error) {
	if w.err == nil {
		w.err = fmt.Errorf("%s: %w", path, err)
	}
}

func (w *writer) list(path string, v any, each func(string, any) any) any {
	if v == nil {
		return []any{}
	}
	in, ok := v.([]any)
	if !ok {
		w.fail(path, errors.New("is no list"))
		return nil
	}
	out := make([]any, 0, len(in))
	for i, x := range in {
		out = append(out, each(fmt.Sprintf("%s[%d]", path, i), x))
	}
	return out
}

func (w *writer) object(path string, v any) map[string]any {
	m, ok := v.(map[string]any)
	if !ok && v != nil {
		w.fail(path, errors.New("is no object"))
	}
	return m
}

// maxDepth of routes, as route.Merge has it.
const maxDepth = 20

func (w *writer) route(path string, v any) any {
	if strings.Count(path, ".routes[") > maxDepth {
		w.fail(path, fmt.Errorf("routes are nested more than %d deep", maxDepth))
		return nil
	}
	if v == nil {
		return nil
	}
	out := map[string]any{}
	for key, x := range w.object(path, v) {
		at := path + "." + key
		switch key {
		case "matchers":
			out["matchers"] = w.list(at, x, w.matcher)
		case "routes":
			out["routes"] = w.list(at, x, w.route)
		case "muteTimeIntervals", "activeTimeIntervals", "receiver", "groupBy", "groupWait", "groupInterval", "repeatInterval", "continue":
			if x != "" { // charts leave empty ones
				out[snake(key)] = x
			}
		default:
			w.fail(at, errors.New("is not known"))
		}
	}
	return out
}

// matcher writes {name, value, matchType} as Alertmanager does: name=~"value".
func (w *writer) matcher(path string, v any) any {
	m := w.object(path, v)
	op, _ := m["matchType"].(string)
	if regex, _ := m["regex"].(bool); op == "" {
		op = map[bool]string{true: "=~", false: "="}[regex]
	}
	switch op {
	case "=", "!=", "=~", "!~":
	default:
		w.fail(path+".matchType", fmt.Errorf("%q, want =, !=, =~ or !~", op))
	}
	name, _ := m["name"].(string)
	if name == "" {
		w.fail(path+".name", errors.New("is empty"))
	}
	value, _ := m["value"].(string)
	for key := range m {
		if key != "name" && key != "value" && key != "matchType" && key != "regex" {
			w.fail(path+"."+key, errors.New("is not known"))
		}
	}
	if !model.LegacyValidation.IsValidLabelName(name) {
		name = strconv.Quote(name)
	}
	return name + op + strconv.Quote(value)
}

func (w *writer) inhibit(path string, v any) any {
	out := map[string]any{}
	for key, x := range w.object(path, v) {
		at := path + "." + key
		switch key {
		case "sourceMatch":
			out["source_matchers"] = w.list(at, x, w.matcher)
		case "targetMatch":
			out["target_matchers"] = w.list(at, x, w.matcher)
		case "equal":
			out["equal"] = x
		default:
			w.fail(at, errors.New("is not known"))
		}
	}
	return out
}

// interval writes times of a time interval; days and years are texts there.
func (w *writer) interval(path string, v any) any {
	m := w.object(path, v)
	return map[string]any{"name": m["name"], "time_intervals": w.list(path+".timeIntervals", m["timeIntervals"], func(path string, v any) any {
		out := map[string]any{}
		for key, x := range w.object(path, v) {
			if key != "daysOfMonth" {
				out[snake(key)] = w.plain(path+"."+key, x)
				continue
			}
			out["days_of_month"] = w.list(path+"."+key, x, func(path string, v any) any {
				d := w.object(path, v)
				if d["end"] == nil {
					return fmt.Sprint(d["start"])
				}
				return fmt.Sprint(d["start"], ":", d["end"])
			})
		}
		return out
	})}
}

// plain writes what only differs in how words are joined, puts the values of
// keys in their places, and lists of {key, value} as what they mean.
func (w *writer) plain(path string, v any) any {
	out := w.turned(path, v)
	w.names(path, out)
	return out
}

func (w *writer) turned(path string, v any) any {
	switch v := v.(type) {
	case []any:
		if pairs, ok := pairs(v); ok {
			return pairs
		}
		return w.list(path, v, w.plain)
	case map[string]any:
		if r, ok := ref(v); ok {
			return w.read(path, r, v)
		}
		if r, ok := either(v); ok {
			return w.read(path, r, v)
		}
		out := map[string]any{}
		for key, x := range v {
			at := path + "." + key
			switch {
			case key == "endpointParams": // its keys are the user's
				out["endpoint_params"] = x
			case key == "proxyConnectHeader":
				out["proxy_connect_header"] = w.headers(at, x)
			case key == "httpHeaders":
				headers := map[string]any{}
				for name, h := range w.object(at, x) {
					headers[name] = w.plain(at+"."+name, h)
				}
				out["http_headers"] = headers
			case key == "bearerTokenSecret":
				if token := w.plain(at, x); token != nil && token != "" {
					out["authorization"] = map[string]any{"type": "Bearer", "credentials": token}
				}
			case key == "tlsConfig":
				out["tls_config"] = w.tls(at, x)
			case key == "apiURL" && strings.Contains(path, ".discordConfigs["):
				out["webhook_url"] = w.plain(at, x)
			case renamed[key] != "":
				out[renamed[key]] = w.plain(at, x)
			default:
				out[snake(key)] = w.plain(at, x)
			}
		}
		maps.DeleteFunc(out, func(_ string, v any) bool { return v == nil })
		return out
	}
	return v
}

// renamed are the fields that have another name, not only another writing.
var renamed = map[string]string{"urlSecret": "url", "pagerDutyImageConfigs": "images", "pagerDutyLinkConfigs": "links", "pagerdutyImageConfigs": "images", "pagerdutyLinkConfigs": "links"}

func (w *writer) headers(path string, v any) any {
	out := map[string]any{}
	for name, x := range w.object(path, v) {
		out[name] = w.list(path+"."+name, x, w.plain)
	}
	return out
}

// tls leaves certificates out while their values are not known.
func (w *writer) tls(path string, v any) any {
	out := map[string]any{}
	for key, x := range w.object(path, v) {
		value := w.plain(path+"."+key, x)
		switch name := snake(key); {
		case name == "key_secret" && !w.check:
			out["key"] = value
		case name == "key_secret", w.check && (name == "ca" || name == "cert"), value == nil:
		case name == "ca" || name == "cert":
			if text, ok := value.(string); ok {
				out[name] = text
			} // else {}: charts leave empty ones
		default:
			out[name] = value
		}
	}
	return out
}

func (w *writer) read(path string, r Ref, v map[string]any) any {
	text, err := w.value(path, r)
	if err != nil {
		if optional, _ := v["optional"].(bool); !optional {
			w.fail(path, err)
		}
		return nil
	}
	return strings.TrimRight(text, "\n")
}

// ref reads {name, key}.
func ref(m map[string]any) (Ref, bool) {
	name, ok1 := m["name"].(string)
	key, ok2 := m["key"].(string)
	_, optional := m["optional"]
	return Ref{Name: name, Key: key}, ok1 && ok2 && (len(m) == 2 || len(m) == 3 && optional)
}

// either reads {secret: {name, key}} and {configMap: {name, key}}.
func either(m map[string]any) (Ref, bool) {
	if len(m) != 1 {
		return Ref{}, false
	}
	for kind, x := range m {
		if inner, ok := x.(map[string]any); ok && (kind == "secret" || kind == "configMap") {
			r, ok := ref(inner)
			r.ConfigMap = kind == "configMap"
			return r, ok
		}
	}
	return Ref{}, false
}

// pairs reads a list of {key, value}.
func pairs(list []any) (map[string]any, bool) {
	out := map[string]any{}
	for _, x := range list {
		m, ok := x.(map[string]any)
		key, isText := m["key"].(string)
		value, has := m["value"]
		if !ok || !isText || !has || len(m) != 2 {
			return nil, false
		}
		out[key] = value
	}
	return out, len(list) > 0
}

// snake writes apiURL as api_url.
func snake(s string) string {
	var b strings.Builder
	r := []rune(s)
	for i, c := range r {
		if unicode.IsUpper(c) {
			before := i > 0 && !unicode.IsUpper(r[i-1])
			after := i > 0 && i+1 < len(r) && unicode.IsLower(r[i+1])
			if before || after {
				b.WriteByte('_')
			}
			c = unicode.ToLower(c)
		}
		b.WriteRune(c)
	}
	return b.String()
}
