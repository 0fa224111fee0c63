package custom

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	klabels "k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	customv1beta1 "k8s.io/metrics/pkg/apis/custom_metrics/v1beta1"
	customv1beta2 "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	externalv1beta1 "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"
)

// described is a kind of object that metrics may describe.
type described struct{ apiVersion, kind, label string }

// resources are those kinds, by what stands in the path.
func resources() map[string]described {
	return map[string]described{
		"pods": {"v1", "Pod", "pod"}, "services": {"v1", "Service", "service"}, "nodes": {"v1", "Node", "node"}, "namespaces": {"v1", "Namespace", "namespace"},
		"persistentvolumeclaims": {"v1", "PersistentVolumeClaim", "persistentvolumeclaim"},
		"deployments.apps":       {"apps/v1", "Deployment", "deployment"}, "replicasets.apps": {"apps/v1", "ReplicaSet", "replicaset"},
		"statefulsets.apps": {"apps/v1", "StatefulSet", "statefulset"}, "daemonsets.apps": {"apps/v1", "DaemonSet", "daemonset"},
		"jobs.batch": {"batch/v1", "Job", "job"}, "cronjobs.batch": {"batch/v1", "CronJob", "cronjob"},
		"ingresses.networking.k8s.io": {"networking.k8s.io/v1", "Ingress", "ingress"},
	}
}

// LabelOf is the label of series that names objects of a kind.
func LabelOf(kind string) string { return strings.ToLower(kind) }

// Versions are the group versions that Handler serves.
func Versions() []schema.GroupVersion {
	return []schema.GroupVersion{customv1beta2.SchemeGroupVersion, customv1beta1.SchemeGroupVersion, externalv1beta1.SchemeGroupVersion}
}

// Handler serves all paths of one of Versions.
func (s Source) Handler(gv schema.GroupVersion) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			fail(w, apierrors.NewMethodNotSupported(schema.GroupResource{Group: gv.Group, Resource: "metrics"}, strings.ToLower(r.Method)))
			return
		}
		rest := strings.Trim(strings.TrimPrefix(r.URL.Path, "/apis/"+gv.String()), "/")
		var answer any
		var err error
		switch {
		case rest == "":
			answer, err = s.list(gv)
		case gv.Group == externalv1beta1.GroupName:
			answer, err = s.external(r, strings.Split(rest, "/"))
		default:
			answer, err = s.custom(r, gv, strings.Split(rest, "/"))
		}
		if err != nil {
			fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer) // the asker is gone if this fails
	})
}

func fail(w http.ResponseWriter, err error) {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		switch {
		case errors.Is(err, ErrNone):
			status = &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound, Message: err.Error()}}
		case errors.Is(err, ErrAsked):
			status = apierrors.NewBadRequest(err.Error())
		default:
			status = apierrors.NewInternalError(err)
		}
	}
	out := status.Status()
	out.Kind, out.APIVersion = "Status", "v1"
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(out.Code))
	_ = json.NewEncoder(w).Encode(out) // the asker is gone if this fails
}

// list is the discovery of one group version: what MetricQuery objects offer.
// Series can be asked for by name beside them; they are too many to be listed.
func (s Source) list(gv schema.GroupVersion) (any, error) {
	names, err := s.Names("")
	if err != nil {
		return nil, fmt.Errorf("list MetricQuery objects: %w", err)
	}
	slices.Sort(names)
	out := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: gv.String(), APIResources: []metav1.APIResource{}}
	for _, name := range slices.Compact(names) {
		if gv.Group == externalv1beta1.GroupName {
			out.APIResources = append(out.APIResources, metav1.APIResource{Name: name, Namespaced: true, Kind: "ExternalMetricValueList", Verbs: metav1.Verbs{"get"}})
			continue
		}
		for _, kind := range slices.Sorted(maps.Keys(resources())) {
			out.APIResources = append(out.APIResources, metav1.APIResource{Name: kind + "/" + name, Namespaced: kind != "nodes" && kind != "namespaces", Kind: "MetricValueList", Verbs: metav1.Verbs{"get"}})
		}
	}
	return out, nil
}

func selectorOf(r *http.Request, parameter string) (klabels.Selector, error) {
	out, err := klabels.Parse(r.URL.Query().Get(parameter))
	if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("%s: %s", parameter, err))
	}
	return out, nil
}

// external answers namespaces/NAMESPACE/METRIC.
func (s Source) external(r *http.Request, path []string) (any, error) {
	if len(path) != 3 || path[0] != "namespaces" {
		return nil, apierrors.NewBadRequest("the path of an external metric is namespaces/NAMESPACE/METRIC")
	}
	selector, err := selectorOf(r, "labelSelector")
	if err != nil {
		return nil, err
	}
	values, missing, err := s.Values(r.Context(), Want{Namespace: path[1], Metric: path[2], Selector: selector}, time.Now())
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		return nil, lacks(path[2], missing)
	}
	out := externalv1beta1.ExternalMetricValueList{TypeMeta: metav1.TypeMeta{Kind: "ExternalMetricValueList", APIVersion: externalv1beta1.SchemeGroupVersion.String()}, Items: []externalv1beta1.ExternalMetricValue{}}
	for _, v := range values {
		delete(v.Labels, "__name__")
		out.Items = append(out.Items, externalv1beta1.ExternalMetricValue{MetricName: path[2], MetricLabels: v.Labels, Timestamp: metav1.NewTime(v.At), Value: Quantity(v.Value)})
	}
	return out, nil
}

// lacks refuses a sum of less than all: who asks for it scales by it.
func lacks(metric string, missing []string) error {
	return apierrors.NewServiceUnavailable(fmt.Sprintf("metric %s: %s", metric, strings.Join(missing, "; ")))
}

// asked is a custom metric's path.
type asked struct {
	Want
	what described
	name string // of the object, or *
}

// parseCustom reads namespaces/NAMESPACE/RESOURCE/NAME/METRIC,
// namespaces/NAMESPACE/metrics/METRIC and, for nodes, RESOURCE/NAME/METRIC.
func parseCustom(path []string) (asked, error) {
	known := resources()
	switch {
	case len(path) == 4 && path[0] == "namespaces" && path[2] == "metrics":
		return asked{Want{Namespace: path[1], Metric: path[3], By: "namespace"}, known["namespaces"], path[1]}, nil
	case len(path) == 5 && path[0] == "namespaces":
		what, ok := known[path[2]]
		if !ok || path[2] == "nodes" || path[2] == "namespaces" {
			return asked{}, apierrors.NewBadRequest(fmt.Sprintf("metrics of %s are not served; those of %s are", path[2], strings.Join(slices.Sorted(maps.Keys(known)), ", ")))
		}
		return asked{Want{Namespace: path[1], Metric: path[4], By: what.label}, what, path[3]}, nil
	case len(path) == 3 && path[0] == "nodes":
		return asked{Want{Metric: path[2], By: "node"}, known["nodes"], path[1]}, nil
	}
	return asked{}, apierrors.NewBadRequest("the path of a custom metric is namespaces/NAMESPACE/RESOURCE/NAME/METRIC (NAME may be *), namespaces/NAMESPACE/metrics/METRIC or nodes/NAME/METRIC")
}

func (s Source) custom(r *http.Request, gv schema.GroupVersion, path []string) (any, error) {
	ask, err := parseCustom(path)
	if err != nil {
		return nil, err
	}
	if ask.Selector, err = selectorOf(r, "metricLabelSelector"); err != nil {
		return nil, err
	}
	objects, err := selectorOf(r, "labelSelector")
	if err != nil {
		return nil, err
	}
	switch {
	case ask.name != customv1beta2.AllObjects:
		ask.Objects = []string{ask.name}
	case ask.what.kind == "Pod":
		if ask.Objects, err = s.Pods(ask.Namespace, objects); err != nil {
			return nil, fmt.Errorf("list pods of %s: %w", ask.Namespace, err)
		}
		if len(ask.Objects) == 0 {
			return nil, fmt.Errorf("metric %s of %s: %w: no pod matches %q", ask.Metric, ask.Namespace, ErrNone, objects)
		}
	case !objects.Empty():
		return nil, apierrors.NewBadRequest("labelSelector is served for pods; name the object instead of *")
	}
	values, missing, err := s.Values(r.Context(), ask.Want, time.Now())
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 && ask.what.kind != "Pod" { // a pod that has a value has all of it
		return nil, lacks(ask.Metric, missing)
	}
	return ask.listed(gv, values), nil
}

// listed is the answer in the shape of one version.
func (a asked) listed(gv schema.GroupVersion, values []Value) any {
	kind := metav1.TypeMeta{Kind: "MetricValueList", APIVersion: gv.String()}
	refer := func(v Value) corev1.ObjectReference {
		return corev1.ObjectReference{APIVersion: a.what.apiVersion, Kind: a.what.kind, Namespace: a.Namespace, Name: v.Labels[a.By]}
	}
	if gv == customv1beta1.SchemeGroupVersion {
		out := customv1beta1.MetricValueList{TypeMeta: kind, Items: []customv1beta1.MetricValue{}}
		for _, v := range values {
			out.Items = append(out.Items, customv1beta1.MetricValue{DescribedObject: refer(v), MetricName: a.Metric, Timestamp: metav1.NewTime(v.At), Value: Quantity(v.Value)})
		}
		return out
	}
	out := customv1beta2.MetricValueList{TypeMeta: kind, Items: []customv1beta2.MetricValue{}}
	for _, v := range values {
		out.Items = append(out.Items, customv1beta2.MetricValue{DescribedObject: refer(v), Metric: customv1beta2.MetricIdentifier{Name: a.Metric}, Timestamp: metav1.NewTime(v.At), Value: Quantity(v.Value)})
	}
	return out
}

// Quantity is a number as Kubernetes writes it, in thousandths where it has a
// fraction; what is too large is cut to what can be written.
func Quantity(v float64) resource.Quantity {
	switch limit := float64(math.MaxInt64 / 1000); {
	case v > limit:
		v = limit
	case v < -limit:
		v = -limit
	}
	if v == math.Trunc(v) {
		return *resource.NewQuantity(int64(v), resource.DecimalSI)
	}
	return *resource.NewMilliQuantity(int64(math.Round(v*1000)), resource.DecimalSI)
}
