package shipped

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// RecordName is the ConfigMap in kube-system that lists what was written.
const RecordName = "perch-shipped"

// kinds that are shipped, and their resources.
var (
	configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	kinds      = map[string]schema.GroupVersionResource{
		"ConfigMap":      configMaps,
		"PrometheusRule": {Group: "monitoring.coreos.com", Version: "v1", Resource: "prometheusrules"},
	}
)

// Key of an object in the record.
func Key(kind, name string) string { return kind + "." + name }

// Keep writes what is to be written, and tries again until all of it is there
// or ctx ends: the API and the kinds may still be starting.
func Keep(ctx context.Context, client dynamic.Interface, want []*unstructured.Unstructured, log *slog.Logger) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		err := once(ctx, client, want, log)
		if err == nil {
			return nil
		}
		log.Debug("shipped objects were not all written, trying again", "err", err)
		select {
		case <-ctx.Done():
			return fmt.Errorf("keep shipped objects: %w", err)
		case <-tick.C:
		}
	}
}

func once(ctx context.Context, client dynamic.Interface, want []*unstructured.Unstructured, log *slog.Logger) error {
	record, err := client.Resource(configMaps).Namespace(metav1.NamespaceSystem).Get(ctx, RecordName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		record, err = client.Resource(configMaps).Namespace(metav1.NamespaceSystem).Create(ctx, object("ConfigMap", RecordName), metav1.CreateOptions{})
	}
	if err != nil {
		return fmt.Errorf("read ConfigMap %s: %w", RecordName, err)
	}
	written, _, err := unstructured.NestedStringMap(record.Object, "data")
	if err != nil || written == nil {
		written = map[string]string{} // whoever wrote other things there starts anew
	}
	before := fmt.Sprint(written)
	byKey := map[string]*unstructured.Unstructured{}
	for _, o := range want {
		byKey[Key(o.GetKind(), o.GetName())] = o
	}
	for key := range written {
		if _, ok := byKey[key]; !ok {
			byKey[key] = nil
		}
	}
	var errs error
	for key, o := range byKey {
		if err := settle(ctx, client, key, o, written, log); err != nil {
			errs = errors.Join(errs, fmt.Errorf("write shipped %s: %w", key, err))
		}
	}
	if fmt.Sprint(written) != before {
		if err := unstructured.SetNestedStringMap(record.Object, written, "data"); err != nil {
			return errors.Join(errs, err)
		}
		if _, err := client.Resource(configMaps).Namespace(metav1.NamespaceSystem).Update(ctx, record, metav1.UpdateOptions{}); err != nil {
			errs = errors.Join(errs, fmt.Errorf("write ConfigMap %s: %w", RecordName, err))
		}
	}
	return errs
}

// settle does what Decide says about one object and notes it in written.
func settle(ctx context.Context, client dynamic.Interface, key string, want *unstructured.Unstructured, written map[string]string, log *slog.Logger) error {
	kind, name, _ := strings.Cut(key, ".")
	resource, ok := kinds[kind]
	if !ok {
		delete(written, key)
		return nil
	}
	api := client.Resource(resource).Namespace(metav1.NamespaceSystem)
	have, err := api.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		have, err = nil, nil
	} else if err != nil {
		return err
	}
	act, why := Decide(want, have, written[key] != "")
	if act != Leave {
		log.Info("shipped object written", "reason", why, "what", string(act), "object", key)
	}
	switch act {
	case Create, Update:
		o := Written(want)
		if act == Create {
			_, err = api.Create(ctx, o, metav1.CreateOptions{})
		} else {
			o.SetResourceVersion(have.GetResourceVersion()) // an edit that comes between is not lost
			_, err = api.Update(ctx, o, metav1.UpdateOptions{})
		}
	case Delete:
		version := have.GetResourceVersion()
		err = api.Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &version}})
	}
	if err != nil {
		return err
	}
	if want == nil {
		delete(written, key)
	} else {
		written[key] = hash(want)
	}
	return nil
}

// Written is an object as Keep writes it.
func Written(o *unstructured.Unstructured) *unstructured.Unstructured {
	out := o.DeepCopy()
	out.SetAnnotations(map[string]string{Annotation: hash(o)})
	return out
}

func object(kind, name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{}}
	o.SetGroupVersionKind(kinds[kind].GroupVersion().WithKind(kind))
	o.SetNamespace(metav1.NamespaceSystem)
	o.SetName(name)
	return o
}

// DashboardLabel is what Grafana's loader and perch's page look for.
const DashboardLabel = "grafana_dashboard"

// DashboardName and DashboardFile are of the ConfigMap of a shipped dashboard.
func DashboardName(name string) string { return "perch-dashboard-" + name }
func DashboardFile(name string) string { return "perch-" + name + ".json" }

// Dashboard is the ConfigMap of a dashboard in Grafana's JSON format.
func Dashboard(name, text string) *unstructured.Unstructured {
	o := object("ConfigMap", DashboardName(name))
	o.SetLabels(map[string]string{DashboardLabel: "1"})
	o.Object["data"] = map[string]any{DashboardFile(name): text}
	return o
}

// Rules is the PrometheusRule of a set of rules.
func Rules(name string, spec map[string]any) *unstructured.Unstructured {
	o := object("PrometheusRule", "perch-"+name)
	o.Object["spec"] = spec
	return o
}

// Deleted tells which of the shipped objects of a kind were written and are
// gone: absent names those that are not there.
func Deleted(ctx context.Context, client dynamic.Interface, kind string, absent []string) ([]string, error) {
	record, err := client.Resource(configMaps).Namespace(metav1.NamespaceSystem).Get(ctx, RecordName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read ConfigMap %s: %w", RecordName, err)
	}
	written, _, err := unstructured.NestedStringMap(record.Object, "data")
	if err != nil {
		return nil, fmt.Errorf("read ConfigMap %s: %w", RecordName, err)
	}
	var out []string
	for _, name := range absent {
		if written[Key(kind, name)] != "" {
			out = append(out, name)
		}
	}
	return out, nil
}
