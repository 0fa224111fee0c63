package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

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
	"perch/cmd/perch/daemon/config"
)

var prometheusRules = schema.GroupVersionResource{Group: "monitoring.coreos.com", Version: "v1", Resource: "prometheusrules"}

// ruleObjects keeps PrometheusRule objects as rule sources.
type ruleObjects struct {
	informer cache.SharedIndexInformer
	source   dynamic.ResourceInterface
	log      *slog.Logger
}

func watchRules(client dynamic.Interface, log *slog.Logger) *ruleObjects {
	source := client.Resource(prometheusRules)
	return &ruleObjects{source: source, log: log, informer: cache.NewSharedIndexInformer(cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc:  func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return source.List(ctx, o) },
		WatchFuncWithContext: source.Watch,
	}, client), &unstructured.Unstructured{}, 0, nil)}
}

// Run watches until ctx ends; without the kind it tries again.
func (r *ruleObjects) Run(ctx context.Context) error {
	untilAnswered(ctx, startLimit, r.log, func(ctx context.Context) error {
		_, err := r.source.List(ctx, metav1.ListOptions{Limit: 1})
		return err
	})
	r.informer.RunWithContext(ctx)
	return nil
}

// sources are the objects as they are now, sorted by name.
func (r *ruleObjects) sources() []rule.Source {
	var out []rule.Source
	for _, o := range r.informer.GetStore().List() {
		u, ok := o.(*unstructured.Unstructured)
		if !ok {
			continue
		}
		name := "PrometheusRule/" + u.GetNamespace() + "/" + u.GetName()
		out = append(out, rule.Source{Name: name, Text: ruleText(u)})
	}
	slices.SortFunc(out, func(a, b rule.Source) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// The Secret in kube-system and its key that route the alerts.
const (
	alertConfigName = "perch-alertmanager"
	alertConfigKey  = "alertmanager.yaml"
)

// keepAlertConfig puts the newest Alertmanager configuration into force: that
// of --alert-config, else of the Secret, else route.Default. It looks every two
// seconds; a broken one is told once and the one before stays.
func (r role) keepAlertConfig(client kubernetes.Interface, router *route.Router) func(context.Context) error {
	log := r.part("alertconfig")
	return func(ctx context.Context) error {
		tick := time.NewTicker(2 * time.Second)
		defer tick.Stop()
		last := ""
		for {
			text, err := alertConfig(ctx, r.cfg, client)
			if err != nil {
				log.Debug("alert configuration was not read", "err", err)
			} else if text != last {
				last = text
				if err := router.Apply(text); err != nil {
					log.Error("alert configuration refused, the one before stays in force", "err", err)
				} else {
					log.Info("alert configuration applied", "bytes", len(text))
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

func alertConfig(ctx context.Context, cfg config.Config, client kubernetes.Interface) (string, error) {
	if cfg.AlertConfig != "" {
		text, err := os.ReadFile(cfg.AlertConfig)
		if err != nil {
			return "", fmt.Errorf("read --alert-config: %w", err)
		}
		return string(text), nil
	}
	secret, err := client.CoreV1().Secrets(metav1.NamespaceSystem).Get(ctx, alertConfigName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return route.Default, nil
	} else if err != nil {
		return "", fmt.Errorf("read Secret %s: %w", alertConfigName, err)
	}
	text, ok := secret.Data[alertConfigKey]
	if !ok {
		return "", errors.New("the Secret has no key alertmanager.yaml")
	}
	return string(text), nil
}
