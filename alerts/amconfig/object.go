package amconfig

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"perch/alerts/route"
)

// Ref is one key of a Secret or ConfigMap of the object's namespace.
type Ref struct {
	ConfigMap bool
	Name, Key string
}

// Object is one AlertmanagerConfig, of version v1alpha1 or v1beta1.
type Object struct {
	Namespace, Name string
	spec            map[string]any
	broken          error
}

// Read takes the spec as JSON.
func Read(namespace, name string, spec []byte) Object {
	o := Object{Namespace: namespace, Name: name}
	if err := json.Unmarshal(spec, &o.spec); err != nil {
		o.broken = fmt.Errorf("spec: %w", err)
	}
	return o
}

// Text is the object in Alertmanager's format: route, receivers, inhibit_rules,
// time_intervals. value reads a key.
func (o Object) Text(value func(Ref) (string, error)) (string, error) {
	if o.broken != nil {
		return "", o.broken
	}
	w := &writer{value: func(_ string, r Ref) (string, error) { return value(r) }}
	return o.text(w)
}

func (o Object) text(w *writer) (string, error) {
	w.receiver = o.receiver
	out := map[string]any{}
	for key, v := range o.spec {
		path := "spec." + key
		switch key {
		case "route":
			out["route"] = w.route(path, v)
		case "receivers":
			out["receivers"] = w.list(path, v, w.plain)
		case "inhibitRules":
			out["inhibit_rules"] = w.list(path, v, w.inhibit)
		case "muteTimeIntervals", "timeIntervals": // of the one version and of the other
			more, _ := w.list(path, v, w.interval).([]any)
			have, _ := out["time_intervals"].([]any)
			out["time_intervals"] = append(have, more...)
		default:
			w.fail(path, errors.New("is not known"))
		}
	}
	if w.err != nil {
		return "", w.err
	}
	text, err := yaml.Marshal(out)
	if err != nil {
		return "", fmt.Errorf("write AlertmanagerConfig: %w", err)
	}
	return string(text), nil
}

// receiver is the name of one.
func (o Object) receiver(number int) string {
	list, _ := o.spec["receivers"].([]any)
	if number >= len(list) {
		return ""
	}
	r, _ := list[number].(map[string]any)
	name, _ := r["name"].(string)
	return name
}

// Refs are the keys that the object names.
func (o Object) Refs() []Ref {
	var out []Ref
	w := &writer{value: func(_ string, r Ref) (string, error) { out = append(out, r); return "", nil }}
	if o.broken == nil {
		_, _ = o.text(w) // of values that are not known
	}
	return out
}

// checkBase stands for the cluster's configuration: whatever may be set there for
// all is.
const checkBase = `global: {smtp_smarthost: 'mail.example:25', smtp_from: 'a@b.example', slack_api_url: 'https://x.example', opsgenie_api_key: x, wechat_api_secret: x,
  wechat_api_corp_id: x, victorops_api_key: x, telegram_bot_token: x, webex_api_url: 'https://x.example', rocketchat_token: x, rocketchat_token_id: x}
route: {receiver: nobody}
receivers: [{name: nobody}]
`

// Check tells what is wrong with the object, with the path of the field as far
// as it is known: an address that is not connected, too. Values of Secrets are not
// looked at.
func (o Object) Check(guarded Guarded) error {
	if o.broken != nil {
		return o.broken
	}
	w := &writer{value: placeholder, check: true, guarded: guarded}
	text, err := o.text(w)
	if err == nil {
		err = refusal(w.refused)
	}
	if err != nil {
		return err
	}
	_, problems := route.Merge(checkBase, []route.Own{{Namespace: o.Namespace, Name: o.Name, Text: text}})
	for _, err := range problems {
		return o.readable(err)
	}
	return nil
}

// Owes tells which credentials the object has to bring of its own, beside the
// cluster's configuration: what Check cannot know without it.
func (o Object) Owes(base string) error {
	if o.broken != nil {
		return o.broken
	}
	text, err := o.text(&writer{value: placeholder, check: true})
	if err == nil {
		err = route.Owed(base, route.Own{Namespace: o.Namespace, Name: o.Name, Text: text})
	}
	if err != nil {
		return o.readable(err)
	}
	return nil
}

// placeholder stands for the value of a Secret at a path.
func placeholder(path string, _ Ref) (string, error) {
	if strings.Contains(strings.ToLower(path), "url") {
		return "https://x.example/", nil
	}
	return "x", nil
}

var unknownField = regexp.MustCompile(`line \d+: field (\w+) not found in type \S+`)

// readable replaces Alertmanager's own names and lines, which the author never
// wrote, by paths of the object.
func (o Object) readable(err error) error {
	text := strings.ReplaceAll(err.Error(), o.Namespace+"/"+o.Name+"/", "")
	text = unknownField.ReplaceAllStringFunc(text, func(s string) string {
		field := unknownField.FindStringSubmatch(s)[1]
		if path := find("spec", o.spec, field); path != "" {
			return path + " is not known"
		}
		return field + " is not known"
	})
	text = strings.NewReplacer("read Alertmanager configuration: ", "", "yaml: unmarshal errors:\n  ", "", "\n  ", "; ").Replace(text)
	return errors.New("spec: " + strings.TrimPrefix(text, "spec: "))
}

// find is the path of the first key that Alertmanager knows by another name.
func find(path string, v any, field string) string {
	switch v := v.(type) {
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			if snake(k) == field {
				return path + "." + k
			}
			if found := find(path+"."+k, v[k], field); found != "" {
				return found
			}
		}
	case []any:
		for i, x := range v {
			if found := find(path+"["+strconv.Itoa(i)+"]", x, field); found != "" {
				return found
			}
		}
	}
	return ""
}
