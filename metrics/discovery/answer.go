package discovery

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"perch/metrics/target"
)

// What an answer may have, whatever its length: the limits of labels are those of a
// scrape.
const (
	mostGroups   = 10_000
	mostLabels   = 64       // of a group
	longestLabel = 16 << 10 // bytes of a name or value
	longestWhere = 1 << 10  // bytes of a target
	mostOver     = 10       // so many times the targets that count are read at all
)

// keptLeast is what a group or label costs beside its text, about.
const keptLeast = 100

// fastestScrape is what an answer may ask for at most.
const fastestScrape = time.Second

// read takes a list of groups, [{"targets": ["host:port"], "labels": {"name":
// "value"}}], and gives all of them the labels more. Of more than most targets the
// first count, in the order of fit. A list with anything else in it is no answer.
func read(body []byte, more map[string]string, most int) (answer, error) {
	r := reader{d: json.NewDecoder(bytes.NewReader(body)), most: most * mostOver}
	if t, err := r.d.Token(); err != nil || t != json.Delim('[') {
		return answer{}, errors.New("the answer is no JSON list of {targets, labels}")
	}
	var groups []target.Group
	hasty := 0
	for i := 0; r.d.More(); i++ {
		if i == mostGroups {
			return answer{}, fmt.Errorf("the answer has more than %d groups", mostGroups)
		}
		g, err := r.group()
		if err != nil {
			return answer{}, fmt.Errorf("the answer's group %d: %w", i, err)
		}
		if dropHaste(g.Labels) {
			hasty++
		}
		for k, v := range more {
			g.Labels[k] = v // whatever the answer says
		}
		if len(g.Targets) > 0 {
			groups = append(groups, g)
		}
	}
	if _, err := r.d.Token(); err != nil { // the list's end
		return answer{}, errors.New("the answer is not complete")
	}
	if _, err := r.d.Token(); !errors.Is(err, io.EOF) {
		return answer{}, errors.New("the answer goes on after the list")
	}
	out := fit(groups, most)
	switch {
	case r.count == 0:
		out.note = "the answer names no target"
	case hasty > 0:
		out.note = strings.TrimPrefix(fmt.Sprintf("%s; %d groups ask for scrapes more often than every %s, which is left out", out.note, hasty, fastestScrape), "; ")
	}
	return out, nil
}

// fit puts groups and their targets in an order, so that an answer in another one
// is no news, and cuts off what is more than most targets.
func fit(groups []target.Group, most int) answer {
	type sorted struct {
		target.Group
		labels string
	}
	list := make([]sorted, len(groups))
	count := 0
	for i, g := range groups {
		slices.Sort(g.Targets)
		list[i] = sorted{g, fmt.Sprint(g.Labels)} // by name
		count += len(g.Targets)
	}
	slices.SortFunc(list, func(a, b sorted) int {
		return cmp.Or(slices.Compare(a.Targets, b.Targets), cmp.Compare(a.labels, b.labels))
	})
	var out answer
	left := most
	for _, s := range list {
		g := s.Group
		g.Targets = g.Targets[:min(len(g.Targets), left)]
		if left -= len(g.Targets); len(g.Targets) == 0 {
			break
		}
		out.groups = append(out.groups, g)
		out.bytes += cost(g)
	}
	if count > most {
		out.note = fmt.Sprintf("the first %d of %d targets count", most, count)
	}
	return out
}

// cost is what it costs to keep a group: each target gets all labels.
func cost(g target.Group) int64 {
	labels, out := 0, keptLeast
	for k, v := range g.Labels {
		labels += len(k) + len(v)
		out += keptLeast
	}
	for _, t := range g.Targets {
		out += len(t) + labels + keptLeast/4
	}
	return int64(out)
}

// dropHaste removes the labels that set how often a target is scraped, where that
// is too often or no time.
func dropHaste(labels map[string]string) bool {
	text, set := labels[model.ScrapeIntervalLabel]
	if !set {
		return false
	}
	if d, err := model.ParseDuration(text); err == nil && time.Duration(d) >= fastestScrape {
		return false
	}
	for k := range labels {
		if strings.HasPrefix(k, "__scrape_") {
			delete(labels, k)
		}
	}
	return true
}

// reader takes an answer apart word by word, so that what is too much is not kept
// first. Its errors have no word of the answer.
type reader struct {
	d     *json.Decoder
	count int // targets so far
	most  int
}

func (r *reader) group() (target.Group, error) {
	out := target.Group{Labels: map[string]string{}}
	if err := r.begin("it", '{'); err != nil {
		return out, err
	}
	seen := map[string]bool{}
	for r.d.More() {
		name, err := r.word()
		if err != nil {
			return out, err
		}
		field := ""
		for _, f := range []string{"targets", "labels"} {
			if text, ok := name.(string); ok && strings.EqualFold(text, f) {
				field = f
			}
		}
		if field != "" && seen[field] {
			return out, fmt.Errorf("it has %s twice", field)
		}
		seen[field] = true
		switch field {
		case "targets":
			out.Targets, err = r.targets()
		case "labels":
			err = r.labels(out.Labels)
		default:
			var skipped json.RawMessage
			err = told(r.d.Decode(&skipped))
		}
		if err != nil {
			return out, err
		}
	}
	_, err := r.word() // its end
	return out, err
}

func (r *reader) targets() (out []string, _ error) {
	if err := r.begin("targets", '['); err != nil {
		return nil, orNone(err)
	}
	for r.d.More() {
		t, err := r.text("a target")
		if err != nil {
			return nil, err
		}
		if len(t) > longestWhere {
			return nil, fmt.Errorf("a target is longer than %d bytes", longestWhere)
		}
		if r.count++; r.count > r.most {
			return nil, fmt.Errorf("with it there are more than %d targets", r.most)
		}
		out = append(out, t)
	}
	_, err := r.word()
	return out, err
}

func (r *reader) labels(into map[string]string) error {
	if err := r.begin("labels", '{'); err != nil {
		return orNone(err)
	}
	for n := 0; r.d.More(); n++ {
		if n == mostLabels {
			return fmt.Errorf("it has more than %d labels", mostLabels)
		}
		name, err := r.text("a label's name")
		if err != nil {
			return err
		}
		value, err := r.text("a label's value")
		switch {
		case err != nil:
			return err
		case name == "":
			return errors.New("it has a label without a name")
		case len(name) > longestLabel, len(value) > longestLabel:
			return fmt.Errorf("a label's name or value is longer than %d bytes", longestLabel)
		}
		into[name] = value
	}
	_, err := r.word()
	return err
}

// errNull is for null instead of a list: there is none.
var errNull = errors.New("it is null")

func orNone(err error) error {
	if errors.Is(err, errNull) {
		return nil
	}
	return err
}

// begin takes the first word of a list or an object.
func (r *reader) begin(what string, want json.Delim) error {
	t, err := r.word()
	switch {
	case err != nil:
		return err
	case t == want:
		return nil
	case t == nil:
		return errNull
	}
	return fmt.Errorf("%s is %s, want %s", what, kindOf(t), kindOf(want))
}

func (r *reader) text(what string) (string, error) {
	t, err := r.word()
	if err != nil {
		return "", err
	}
	if text, ok := t.(string); ok {
		return text, nil
	}
	return "", fmt.Errorf("%s is %s, want a string", what, kindOf(t))
}

func (r *reader) word() (json.Token, error) {
	t, err := r.d.Token()
	return t, told(err)
}

// told says what is wrong without the words of the answer.
func told(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it is not complete")
	}
	return errors.New("it is no JSON")
}

func kindOf(t json.Token) string {
	switch t {
	case nil:
		return "null"
	case json.Delim('['):
		return "an array"
	case json.Delim('{'):
		return "an object"
	}
	switch t.(type) {
	case string:
		return "a string"
	case bool:
		return "a boolean"
	}
	return "a number"
}
