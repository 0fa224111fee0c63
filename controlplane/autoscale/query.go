package autoscale

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Query answers an instant PromQL expression. An answer that lacks the numbers of
// some nodes says so and is still an answer.
type Query func(ctx context.Context, expr string, at time.Time) (Vector, error)

// Vector is the answer of a Query.
type Vector struct {
	Samples []Sample
	Partial bool     // numbers of some nodes are missing
	Missing []string // their names, as far as known
}

// Sample is one series at one time.
type Sample struct {
	Labels map[string]string
	Time   time.Time
	Value  float64 // base units: cores for rates of cpu seconds, bytes
}

// expression asks for the use of a resource by pod and container of some pods.
func expression(goal Goal, namespace string, pods []string, window time.Duration) (string, error) {
	quoted := make([]string, len(pods))
	for i, name := range pods {
		quoted[i] = regexp.QuoteMeta(name)
	}
	matcher := fmt.Sprintf(`namespace=%s,pod=~%s,container!="",container!="POD"`, strconv.Quote(namespace), strconv.Quote(strings.Join(quoted, "|")))
	if goal.Container != "" {
		matcher = fmt.Sprintf(`namespace=%s,pod=~%s,container=%s`, strconv.Quote(namespace), strconv.Quote(strings.Join(quoted, "|")), strconv.Quote(goal.Container))
	}
	switch goal.Resource {
	case "cpu":
		return fmt.Sprintf(`sum by (pod) (rate(container_cpu_usage_seconds_total{job="kubelet",%s}[%ds]))`, matcher, int(window.Seconds())), nil
	case "memory":
		return fmt.Sprintf(`sum by (pod) (container_memory_working_set_bytes{job="kubelet",%s})`, matcher), nil
	}
	return "", fmt.Errorf("resource %q: %w", goal.Resource, errUnsupported)
}

// usageOf turns an answer into thousandths of the unit by pod.
func usageOf(v Vector) map[string]float64 {
	out := map[string]float64{}
	for _, s := range v.Samples {
		out[s.Labels["pod"]] += s.Value * 1000
	}
	return out
}
