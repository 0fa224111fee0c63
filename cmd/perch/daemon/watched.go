package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"perch/alerts/route"
	"perch/alerts/rule"
)

var prometheusRules = schema.GroupVersionResource{Group: "monitoring.coreos.com", Version: "v1", Resource: "prometheusrules"}

// watchedObjects keeps the objects of one kind whose type is a definition.
type watchedObjects struct {
	informer cache.SharedIndexInformer
	source   dynamic.ResourceInterface
	log      *slog.Logger
}

func watchObjects(client dynamic.Interface, kind schema.GroupVersionResource, log *slog.Logger) *watchedObjects {
	source := client.Resource(kind)
	return &watchedObjects{source: source, log: log, informer: cache.NewSharedIndexInformer(cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc:  func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return source.List(ctx, o) },
		WatchFuncWithContext: source.Watch,
	}, client), &unstructured.Unstructured{}, 0, cache.Indexers{})}
}

// Run watches until ctx ends; without the kind it tries again.
func (r *watchedObjects) Run(ctx context.Context) error {
	untilAnswered(ctx, startLimit, r.log, func(ctx context.Context) error {
		_, err := r.source.List(ctx, metav1.ListOptions{Limit: 1})
		return err
	})
	r.informer.RunWithContext(ctx)
	return nil
}

// definedPatience is how long objects of kinds that are definitions may stay
// unknown: one that somebody deleted must not hold up the others for ever.
const definedPatience = 2 * time.Minute

// complete answers, for one goroutine, whether what a decision looks at is known:
// Kubernetes' own objects, which come as soon as the API answers, and soon after
// those of definitions. A decision about less takes away what is there.
func complete(own, defined func() bool) func() bool {
	var since time.Time
	return func() bool {
		if !own() {
			return false
		}
		if since.IsZero() {
			since = time.Now()
		}
		return defined() || time.Since(since) > definedPatience
	}
}

// ruleObjects keeps PrometheusRule objects as rule sources.
type ruleObjects struct{ *watchedObjects }

// sources are the objects as they are now, without those to leave out, sorted by
// name.
func (r ruleObjects) sources(leave func(*unstructured.Unstructured) bool) []rule.Source {
	var out []rule.Source
	for _, o := range r.informer.GetStore().List() {
		u, ok := o.(*unstructured.Unstructured)
		if !ok || leave(u) {
			continue
		}
		name := "PrometheusRule/" + u.GetNamespace() + "/" + u.GetName()
		out = append(out, rule.Source{Name: name, Text: ruleText(u)})
	}
	slices.SortFunc(out, func(a, b rule.Source) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// The Secrets of kube-system, with their keys, that hold configuration.
const (
	alertConfigName, alertConfigKey = "perch-alertmanager", "alertmanager.yaml"
	remoteWriteName, remoteWriteKey = "perch-remote-write", "remote_write.yaml"
)

// watchedText is a configuration text that users keep in a file or, without
// one, in a Secret of kube-system.
type watchedText struct {
	flag, file  string // --flag FILE; empty: the Secret
	secret, key string
	absent      string // the text while there is no Secret
	// locate says in full where the text's files are; nil when it names none. dir is
	// empty for the Secret.
	locate func(text, dir string) (string, error)
}

// inForce counts whether the newest configuration of a flag is: its function is
// told each time one was read.
func (r role) inForce(flag string) func(error) {
	refused := prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_config_refused", ConstLabels: prometheus.Labels{"flag": flag},
		Help: "1 while the newest configuration is missing or broken and the one before is in force."})
	r.reg.MustRegister(refused)
	return func(err error) {
		refused.Set(map[bool]float64{true: 1, false: 0}[err != nil])
	}
}

// keep puts the newest text into force. It looks every two seconds; a broken one
// is told once and the one before stays.
func (r role) keep(client kubernetes.Interface, what watchedText, apply func(string) error) func(context.Context) error {
	log, told := r.part(what.flag), r.inForce(what.flag)
	return func(ctx context.Context) error {
		tick := time.NewTicker(2 * time.Second)
		defer tick.Stop()
		last, unread := "", ""
		for {
			text, err := what.located(ctx, client)
			switch {
			case err != nil && what.file == "" && !errors.Is(err, errContent):
				log.Debug("configuration was not read", "err", err) // the API is away
			case err != nil:
				if told(err); err.Error() != unread {
					log.Error("configuration was not read, the one before stays in force", "err", err)
				}
				last, unread = "", err.Error()
			case text != last || unread != "":
				last, unread = text, ""
				err := apply(text)
				if told(err); err != nil {
					log.Error("configuration refused, the one before stays in force", "err", err)
				} else {
					log.Info("configuration applied", "bytes", len(text))
				}
			}
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
		}
	}
}

var errContent = errors.New("cannot be used")

func (w watchedText) located(ctx context.Context, client kubernetes.Interface) (string, error) {
	text, err := w.read(ctx, client)
	if err != nil || w.locate == nil {
		return text, err
	}
	if w.file == "" {
		if text, err = w.locate(text, ""); err != nil {
			return "", fmt.Errorf("the Secret %s %w: %w", w.secret, errContent, err)
		}
		return text, nil
	}
	file, err := filepath.Abs(w.file)
	if err == nil {
		text, err = w.locate(text, filepath.Dir(file))
	}
	if err != nil {
		return "", fmt.Errorf("read --%s: %w", w.flag, err)
	}
	return text, nil
}

func (w watchedText) read(ctx context.Context, client kubernetes.Interface) (string, error) {
	if w.file != "" {
		text, err := os.ReadFile(w.file)
		if err != nil {
			return "", fmt.Errorf("read --%s: %w", w.flag, err)
		}
		return string(text), nil
	}
	secret, err := client.CoreV1().Secrets(metav1.NamespaceSystem).Get(ctx, w.secret, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return w.absent, nil
	} else if err != nil {
		return "", fmt.Errorf("read Secret %s: %w", w.secret, err)
	}
	text, ok := secret.Data[w.key]
	if !ok {
		return "", fmt.Errorf("the Secret %s %w: it has no key %s", w.secret, errContent, w.key)
	}
	return string(text), nil
}

// alertConfig routes the alerts; what the process before had is in force from the
// start.
func (r role) alertConfig() watchedText {
	return watchedText{flag: "alert-config", file: r.cfg.AlertConfig, secret: alertConfigName, key: alertConfigKey, absent: route.Default, locate: route.Located}
}

// remoteWrite says where samples go besides the store.
func (r role) remoteWrite() watchedText {
	return watchedText{flag: "remote-write", file: r.cfg.RemoteWrite, secret: remoteWriteName, key: remoteWriteKey}
}
