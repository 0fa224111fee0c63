package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/registry/rest"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"perch/controlplane/apiserver"
	"perch/metrics/promapi"
	"perch/metrics/resource"
)

// sample is one series of an instant query's answer.
type sample struct {
	labels map[string]string
	at     time.Time
	value  float64
}

// asker is how the server role asks this machine's telemetry role: PromQL over
// its unix socket.
type asker struct{ client *http.Client }

func (r role) asker() asker { return asker{unixClient(r.cfg.Socket("telemetry"))} }

// seesHeader names on that socket the only namespace whose series a request sees.
const seesHeader = "Perch-Sees-Namespace"

// query evaluates over all namespaces.
func (a asker) query(ctx context.Context, expr string, at time.Time) (out []sample, missing []string, _ error) {
	return a.queryIn(ctx, "", expr, at)
}

// queryIn evaluates at a time over the series of a namespace, or of all when it is
// empty; a scalar is one sample without labels. missing says what the answer lacks,
// other warnings are left out.
func (a asker) queryIn(ctx context.Context, namespace, expr string, at time.Time) (out []sample, missing []string, _ error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	ask := url.Values{"query": {expr}, "time": {strconv.FormatFloat(float64(at.UnixMilli())/1000, 'f', 3, 64)}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://telemetry/prometheus/api/v1/query?"+ask.Encode(), nil)
	if err != nil {
		return nil, nil, fmt.Errorf("query metrics: %w", err)
	}
	if namespace != "" {
		req.Header.Set(seesHeader, namespace)
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return nil, nil, fmt.Errorf("query metrics: %w", err)
	}
	defer resp.Body.Close()
	var answer struct {
		Status, Error string
		Warnings      []string
		Data          struct {
			ResultType string
			Result     json.RawMessage
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, nil, fmt.Errorf("query metrics: %s: %w", resp.Status, err)
	}
	if answer.Status != "success" {
		return nil, nil, fmt.Errorf("query metrics: %s", answer.Error)
	}
	type series struct {
		Metric map[string]string
		Value  [2]json.RawMessage
	}
	var result []series
	if answer.Data.ResultType == "scalar" {
		result = []series{{Metric: map[string]string{}}}
		err = json.Unmarshal(answer.Data.Result, &result[0].Value)
	} else {
		err = json.Unmarshal(answer.Data.Result, &result)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read metrics: %w", err)
	}
	for _, s := range result {
		var t float64
		var v string
		if err := errors.Join(json.Unmarshal(s.Value[0], &t), json.Unmarshal(s.Value[1], &v)); err != nil {
			return nil, nil, fmt.Errorf("read metrics: %w", err)
		}
		f, err := strconv.ParseFloat(v, 64)
		if err != nil {
			return nil, nil, fmt.Errorf("read metrics: %w", err)
		}
		out = append(out, sample{s.Metric, time.UnixMilli(int64(t * 1000)), f})
	}
	return out, slices.DeleteFunc(answer.Warnings, func(w string) bool { return !promapi.Partial([]string{w}) }), nil
}

// apiGroups are the groups served beside Kubernetes' own: metrics.k8s.io from
// the telemetry role's numbers.
func (r role) apiGroups() []apiserver.Group {
	ask := r.asker()
	return []apiserver.Group{{
		GroupVersion: metricsv1beta1.SchemeGroupVersion,
		AddToScheme:  metricsv1beta1.AddToScheme,
		Storage: func(p apiserver.Parts) (map[string]rest.Storage, error) {
			pods, nodes := p.Informers.Core().V1().Pods().Lister(), p.Informers.Core().V1().Nodes().Lister()
			src := resource.Source{
				Query: func(ctx context.Context, expr string, at time.Time) ([]resource.Value, error) {
					got, _, err := ask.query(ctx, expr, at)
					out := make([]resource.Value, len(got))
					for i, s := range got {
						out[i] = resource.Value{Labels: s.labels, Value: s.value}
					}
					return out, err
				},
				Pods: func(ns string, sel labels.Selector) ([]*corev1.Pod, error) {
					if ns == "" {
						return pods.List(sel)
					}
					return pods.Pods(ns).List(sel)
				},
				Nodes: nodes.List,
			}
			return map[string]rest.Storage{"pods": resource.NewPods(src), "nodes": resource.NewNodes(src)}, nil
		},
	}}
}
