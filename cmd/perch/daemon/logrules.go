package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"sigs.k8s.io/yaml"

	"perch/cmd/perch/daemon/config"
	"perch/controlplane/event"
	"perch/logs/recorded"
)

var logRules = schema.GroupVersionResource{Group: "perch.dev", Version: "v1alpha1", Resource: "logrules"}

// checkLogRules is for the text of a LogRule's spec.
func checkLogRules(text string) error {
	rules, err := readLogRules(text)
	if err != nil {
		return err
	}
	return recorded.CheckObject(rules)
}

func readLogRules(text string) ([]recorded.Rule, error) {
	var spec struct {
		Rules []recorded.Rule `json:"rules"`
	}
	if err := yaml.Unmarshal([]byte(text), &spec); err != nil {
		return nil, fmt.Errorf("read spec: %w", err)
	}
	return spec.Rules, nil
}

// countedQueries puts the rules of LogRule objects in force on this node. The
// rules that were seen last are kept in a file, so that after a start lines are
// counted before the API answers.
type countedQueries struct {
	counts  *recorded.Recorded
	objects *watchedObjects
	spaces  corelisters.NamespaceLister
	known   func() bool // namespaces are
	file    string
	tell    event.Tell // nil: another node tells
	log     *slog.Logger
	changed chan struct{} // an object

	last []recorded.Rule
	told map[string]bool
}

// countQueries puts the rules that were seen last in force, and from then on
// those that exist.
func (r role) countQueries(api clients, f informers.SharedInformerFactory, counts *recorded.Recorded, tell event.Tell) {
	spaces := f.Core().V1().Namespaces()
	q := &countedQueries{counts: counts, objects: watchObjects(api.dynamic, logRules, r.part("logrules")), spaces: spaces.Lister(), known: spaces.Informer().HasSynced,
		file: r.cfg.Path("log-rules.json"), tell: tell, log: r.part("logrules"), told: map[string]bool{}, changed: make(chan struct{}, 1)}
	if err := onChange(q.objects.informer, func() {
		select {
		case q.changed <- struct{}{}:
		default: // it will look anyway
		}
	}); err != nil {
		q.log.Warn("rules that count lines are looked at each second only", "err", err)
	}
	q.load()
	if r.cfg.Kind != config.Server {
		q.tell = nil // servers do
	}
	r.group.Go("logrules", q.objects.Run)
	r.group.Go("counted queries", q.Run)
	r.group.Go("recorded", counts.Run)
}

func (q *countedQueries) load() {
	text, err := os.ReadFile(q.file)
	if err == nil {
		err = json.Unmarshal(text, &q.last)
	}
	if err == nil {
		q.counts.Set(q.last) // problems are told when the objects are known
	} else if !errors.Is(err, os.ErrNotExist) {
		q.log.Warn("last rules that count lines were not read", "err", err)
	}
}

// Run looks when an object changes, and every second for namespaces, until ctx
// ends.
func (q *countedQueries) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	first := true
	for {
		if q.objects.informer.HasSynced() && q.known() {
			if now := q.rules(); first || !reflect.DeepEqual(now, q.last) {
				first = false
				q.apply(now)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-q.changed:
		}
	}
}

// apply keeps the rules before they are in force: what a kill finds in the file
// may count more than what counted before, never less.
func (q *countedQueries) apply(now []recorded.Rule) {
	if err := saveJSON(q.file, now); err != nil {
		q.log.Warn("rules that count lines were not saved", "err", err)
	}
	q.last = now
	told := map[string]bool{}
	for _, p := range q.counts.Set(now) {
		key := p.Rule.Namespace + "/" + p.Rule.Object + ": " + p.Rule.Record + ": " + p.Error
		if told[key] = true; q.told[key] {
			continue
		}
		q.log.Warn("rule does not count", "logrule", p.Rule.Namespace+"/"+p.Rule.Object, "record", p.Rule.Record, "err", p.Error)
		if u := q.object(p.Rule); u != nil && q.tell != nil {
			q.tell(event.Record{Component: "perch-logs", Object: event.Ref(u, "perch.dev/v1alpha1", "LogRule"), Type: event.Warning, Reason: "NotCounted",
				Message: fmt.Sprintf("%s counts nothing: %s", p.Rule.Record, p.Error)})
		}
	}
	q.told = told
}

func (q *countedQueries) object(r recorded.Rule) *unstructured.Unstructured {
	o, _, _ := q.objects.informer.GetStore().GetByKey(r.Namespace + "/" + r.Object) // a key of a map
	u, _ := o.(*unstructured.Unstructured)
	return u
}

// rules are those of all objects, the oldest objects' first.
func (q *countedQueries) rules() []recorded.Rule {
	var objects []*unstructured.Unstructured
	for _, o := range q.objects.informer.GetStore().List() {
		if u, ok := o.(*unstructured.Unstructured); ok {
			objects = append(objects, u)
		}
	}
	slices.SortFunc(objects, func(a, b *unstructured.Unstructured) int {
		return cmp.Or(a.GetCreationTimestamp().Compare(b.GetCreationTimestamp().Time), strings.Compare(a.GetNamespace(), b.GetNamespace()), strings.Compare(a.GetName(), b.GetName()))
	})
	var out []recorded.Rule
	for _, u := range objects {
		have, err := readLogRules(ruleText(u))
		if err != nil {
			have = []recorded.Rule{{Record: err.Error()}} // is refused, and told
		}
		for _, r := range have {
			r.Namespace, r.Object = u.GetNamespace(), u.GetName()
			r.All = wide(q.spaces, r.Namespace)
			out = append(out, r)
		}
	}
	return out
}
