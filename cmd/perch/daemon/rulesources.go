package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	coreinformers "k8s.io/client-go/informers/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"sigs.k8s.io/yaml"

	"perch/alerts/rule"
	"perch/cmd/perch/daemon/shipped"
	"perch/metrics/dashboard"
	"perch/metrics/promapi"
)

// rulesLabel of a Namespace, with the value cluster, lets the rules that live
// there read every series. Rules of other namespaces read those of their own.
const rulesLabel = "perch.io/rules"

// withinNamespace limits a rule's queries to a namespace; empty: to nothing.
func withinNamespace(ctx context.Context, namespace string) context.Context {
	if namespace == "" {
		return promapi.WithAccess(ctx, promapi.Everything())
	}
	return promapi.WithAccess(ctx, promapi.Access{Namespaces: []string{namespace}})
}

// shippedObjects are the rules and dashboards of this binary as objects.
func shippedObjects() ([]*unstructured.Unstructured, error) {
	all, err := rule.Shipped()
	if err != nil {
		return nil, err
	}
	var out []*unstructured.Unstructured
	for _, s := range all {
		var spec map[string]any
		if err := yaml.Unmarshal([]byte(s.Text), &spec); err != nil {
			return nil, fmt.Errorf("read %s: %w", s.Name, err)
		}
		out = append(out, shipped.Rules(stem(s.Name), spec))
	}
	boards, err := dashboard.Shipped()
	if err != nil {
		return nil, err
	}
	for _, b := range boards {
		out = append(out, shipped.Dashboard(b.Name, b.JSON))
	}
	return out, nil
}

// stem of a shipped source: pods of perch/pods.yaml.
func stem(source string) string { return strings.TrimSuffix(path.Base(source), ".yaml") }

// ruleSources says which rules of objects are in force: those of people, and
// shipped ones that people edited or deleted. A shipped object as perch wrote
// it needs no say: the binary has the same rules, and they work before the API
// does. What was in force last is kept in a file, so that after a start the rules
// of people work before the API does, and those they changed or deleted do not
// come back until it does.
type ruleSources struct {
	objects ruleObjects
	client  dynamic.Interface
	spaces  corelisters.NamespaceLister
	known   func() bool // objects and namespaces are
	file    string
	log     *slog.Logger
	shipped []string // names of the objects
	deleted atomic.Pointer[[]string]

	mu   sync.Mutex
	last []rule.Source // what was in force last
}

// noRules is the text of a source that was deleted.
const noRules = "groups: []"

func newRuleSources(objects ruleObjects, client dynamic.Interface, spaces coreinformers.NamespaceInformer, file string, log *slog.Logger) (*ruleSources, error) {
	all, err := rule.Shipped()
	if err != nil {
		return nil, err
	}
	synced := spaces.Informer().HasSynced
	out := &ruleSources{objects: objects, client: client, spaces: spaces.Lister(), file: file, log: log,
		known: func() bool { return objects.informer.HasSynced() && synced() }}
	for _, s := range all {
		out.shipped = append(out.shipped, "perch-"+stem(s.Name))
	}
	out.load()
	return out, nil
}

// load reads what was in force last.
func (s *ruleSources) load() {
	text, err := os.ReadFile(s.file)
	if err == nil {
		err = json.Unmarshal(text, &s.last)
	}
	if err != nil {
		s.last = nil
		if !errors.Is(err, os.ErrNotExist) {
			s.log.Warn("last rules of objects were not read", "err", err)
		}
		return
	}
	var gone []string
	for _, x := range s.last {
		if name, ok := strings.CutPrefix(x.Name, "PrometheusRule/"+metav1.NamespaceSystem+"/"); ok && x.Text == noRules && slices.Contains(s.shipped, name) {
			gone = append(gone, name)
		}
	}
	s.deleted.Store(&gone)
}

// Run looks every few seconds which shipped objects were deleted.
func (s *ruleSources) Run(ctx context.Context) error {
	tick := time.NewTicker(3 * time.Second)
	defer tick.Stop()
	for {
		if s.objects.informer.HasSynced() {
			var absent []string
			for _, name := range s.shipped {
				if _, ok, _ := s.objects.informer.GetStore().GetByKey(metav1.NamespaceSystem + "/" + name); !ok {
					absent = append(absent, name)
				}
			}
			var gone []string
			var err error
			if len(absent) > 0 {
				gone, err = shipped.Deleted(ctx, s.client, "PrometheusRule", absent)
			}
			if err == nil {
				s.deleted.Store(&gone)
			} else if ctx.Err() == nil {
				s.log.Debug("deleted rules were not looked up", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// sources are the objects' rules as they are now, sorted by name; until they are
// known, what was in force last.
func (s *ruleSources) sources() []rule.Source {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.known() {
		return slices.Clone(s.last)
	}
	out := s.read()
	if !slices.Equal(out, s.last) {
		s.last = out
		if err := saveJSON(s.file, out); err != nil {
			s.log.Warn("rules of objects were not saved", "err", err)
		}
	}
	return slices.Clone(out)
}

func (s *ruleSources) read() []rule.Source {
	out := s.objects.sources(func(u *unstructured.Unstructured) bool { // asked every two seconds: their text is long
		return u.GetNamespace() == metav1.NamespaceSystem && slices.Contains(s.shipped, u.GetName()) && shipped.AsShipped(u)
	})
	for i := range out {
		out[i].Namespace = s.within(strings.Split(out[i].Name, "/")[1])
	}
	if gone := s.deleted.Load(); gone != nil {
		for _, name := range *gone {
			out = append(out, rule.Source{Name: "PrometheusRule/" + metav1.NamespaceSystem + "/" + name, Text: noRules})
		}
	}
	slices.SortFunc(out, func(a, b rule.Source) int { return strings.Compare(a.Name, b.Name) })
	return slices.CompactFunc(out, func(a, b rule.Source) bool { return a.Name == b.Name }) // deleted and made anew this moment
}

// within is the namespace that rules living in one are limited to.
func (s *ruleSources) within(namespace string) string {
	if wide(s.spaces, namespace) {
		return ""
	}
	return namespace
}

// whose says who sees the rules of a source: who sees the namespace that an object
// lives in, and everybody those of this binary.
func (s *ruleSources) whose(source string) promapi.RuleSource {
	if strings.HasPrefix(source, "perch/") {
		return promapi.RuleSource{Common: true, Wide: true}
	}
	if p := strings.Split(source, "/"); len(p) == 3 && p[0] == "PrometheusRule" {
		return promapi.RuleSource{Namespace: p[1], Wide: s.within(p[1]) == ""}
	}
	return promapi.RuleSource{Wide: true} // a file of the rules directory
}

// wide answers whether rules that live in a namespace are for all namespaces.
func wide(spaces corelisters.NamespaceLister, namespace string) bool {
	if namespace == metav1.NamespaceSystem {
		return true
	}
	ns, err := spaces.Get(namespace)
	return err == nil && ns.Labels[rulesLabel] == "cluster"
}
