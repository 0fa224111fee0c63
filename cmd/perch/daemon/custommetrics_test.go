package daemon

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestAMetricIsFoundByTheNameThatItsObjectGivesIt(t *testing.T) {
	object := func(namespace, name, metric string) any {
		spec := map[string]any{"query": namespace + " " + name}
		if metric != "" {
			spec["metric"] = metric
		}
		return &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"namespace": namespace, "name": name}, "spec": spec}}
	}
	objects := []any{
		object("shop", "queue-length", "queue_length"), object("bank", "queue-length", "queue_length"),
		object("shop", "orders", ""), object("shop", "b", "twice"), object("shop", "a", "twice"),
	}
	for _, c := range []struct{ namespace, metric, want string }{
		{"shop", "queue_length", "shop queue-length"},
		{"bank", "queue_length", "bank queue-length"},
		{"shop", "queue-length", ""}, // it has another name
		{"shop", "orders", "shop orders"},
		{"bank", "orders", ""},
		{"shop", "twice", "shop a"},
	} {
		got, found := storedQuery(objects, c.namespace, c.metric)
		if got != c.want || found != (c.want != "") {
			t.Errorf("%s of %s is %q, want %q", c.metric, c.namespace, got, c.want)
		}
	}
}
