package resource

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
)

// Value is one element of an instant vector.
type Value struct {
	Labels map[string]string
	Value  float64
}

// Source is where numbers and objects come from.
type Source struct {
	// Query evaluates PromQL at a time. It sees all namespaces; the API server
	// has authorized the request.
	Query func(ctx context.Context, expr string, at time.Time) ([]Value, error)

	// Pods lists pods of a namespace ("" = all) from memory.
	Pods func(namespace string, selector labels.Selector) ([]*corev1.Pod, error)

	// Nodes lists nodes from memory.
	Nodes func(selector labels.Selector) ([]*corev1.Node, error)
}

// Window is over how much time cpu use is averaged.
const Window = 30 * time.Second

// use is cpu in cores and memory in bytes; NaN while not known.
type use struct{ cpu, memory float64 }

func unknown() use { return use{math.NaN(), math.NaN()} }

func (u use) known() bool { return !math.IsNaN(u.cpu) && !math.IsNaN(u.memory) }

func (u use) list() corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewScaledQuantity(int64(u.cpu*1e9), resource.Nano),
		corev1.ResourceMemory: *resource.NewQuantity(int64(u.memory), resource.BinarySI),
	}
}

// uses asks for cpu and memory of what the matchers select, by the joined
// values of the labels in by. Another exporter of the same series, with a job of its
// own, is not added.
func (s Source) uses(ctx context.Context, at time.Time, matchers string, by ...string) (map[string]use, error) {
	group := strings.Join(by, ",")
	out := map[string]use{}
	for _, part := range []struct {
		expr string
		set  func(*use, float64)
	}{
		{fmt.Sprintf(`sum by (%s) (rate(container_cpu_usage_seconds_total{job="kubelet",%s}[%s]))`, group, matchers, Window), func(u *use, v float64) { u.cpu = v }},
		{fmt.Sprintf(`sum by (%s) (container_memory_working_set_bytes{job="kubelet",%s})`, group, matchers), func(u *use, v float64) { u.memory = v }},
	} {
		values, err := s.Query(ctx, part.expr, at)
		if err != nil {
			return nil, fmt.Errorf("query resource use: %w", err)
		}
		for _, v := range values {
			var key []string
			for _, l := range by {
				key = append(key, v.Labels[l])
			}
			k := strings.Join(key, "/")
			u, ok := out[k]
			if !ok {
				u = unknown()
			}
			part.set(&u, v.Value)
			out[k] = u
		}
	}
	return out, nil
}

// equal is a PromQL matcher; the value may be anything.
func equal(label, value string) string { return label + "=" + strconv.Quote(value) }
