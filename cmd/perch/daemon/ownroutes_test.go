package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/yaml"

	"perch/alerts/route"
	"perch/controlplane/event"
	"perch/metrics/target"
)

// What cannot be applied now, as while a file that it names is not there, is tried again.
func TestRoutesThatWereNotAppliedAreTriedAgain(t *testing.T) {
	tried, err := 0, errors.New("ca.crt: no such file")
	o, nerr := newOwnRoutes(&watchedObjects{informer: cache.NewSharedIndexInformer(&cache.ListWatch{}, &unstructured.Unstructured{}, 0, nil)}, route.Default, nil,
		func(string) error { tried++; return err }, nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if nerr != nil {
		t.Fatal(nerr)
	}
	other := route.Default + "# with a file\n"
	o.look(other)
	o.look(other)
	if tried != 2 || o.applied != route.Default {
		t.Fatalf("tried %d times, in force:\n%s", tried, o.applied)
	}
	err = nil
	o.look(other)
	o.look(other)
	if tried != 3 || o.applied != other {
		t.Fatalf("tried %d times, in force:\n%s", tried, o.applied)
	}
	err = errors.New("ca.crt: no such file")
	o.look(route.Default)
	o.look(other) // which is in force, and has to be said to be
	err = nil
	o.look(other)
	if tried != 6 || o.applied != other || o.failed != "" {
		t.Fatalf("tried %d times, in force:\n%s", tried, o.applied)
	}
}

func TestRoutesOfNamespacesComeAndGo(t *testing.T) {
	informer := cache.NewSharedIndexInformer(&cache.ListWatch{}, &unstructured.Unstructured{}, 0, nil)
	secret, granted := "", true
	var applied []string
	var told []event.Record
	o, err := newOwnRoutes(&watchedObjects{informer: informer}, route.Default, func(r target.Ref) (string, error) {
		if !granted {
			return "", fmt.Errorf("Secret %w", errNotYet)
		}
		if r.Namespace != "shop" || r.Name != "hook" || secret == "" {
			return "", errors.New("Secret is not there")
		}
		return secret, nil
	}, func(text string) error { applied = append(applied, text); return nil }, func(r event.Record) { told = append(told, r) }, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	o.look(route.Default)
	if len(applied) > 0 {
		t.Fatalf("what is in force was applied again: %s", applied[0])
	}
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte("metadata: {name: team, namespace: shop}\nspec: {route: {receiver: a}, receivers: [{name: a, webhookConfigs: [{urlSecret: {name: hook, key: url}}]}]}"), &u.Object); err != nil {
		t.Fatal(err)
	}
	if err := informer.GetStore().Add(u); err != nil {
		t.Fatal(err)
	}
	o.look(route.Default)
	o.look(route.Default)
	if len(applied) > 0 || len(told) != 1 || told[0].Object.Name != "team" || !strings.Contains(told[0].Message, "urlSecret: Secret is not there") || testutil.ToFloat64(o.left) != 1 {
		t.Fatalf("without its Secret: applied %q, told %+v", applied, told)
	}
	secret = "https://hook.example/"
	o.look(route.Default)
	if len(applied) != 1 || !strings.Contains(applied[0], "https://hook.example/") || !strings.Contains(applied[0], `namespace="shop"`) || testutil.ToFloat64(o.left) != 0 {
		t.Fatalf("with its Secret: %q", applied)
	}
	secret = "http://169.254.169.254/hush" // what is in a Secret is known now only
	o.look(route.Default)
	o.look(route.Default)
	if len(applied) != 2 || len(told) != 2 || told[1].Reason != "ReceiverRefused" || told[1].Object.Name != "team" || testutil.ToFloat64(o.left) != 0 ||
		!strings.Contains(told[1].Message, `spec.receivers[0].webhookConfigs[0].urlSecret: receiver "a": 169.254.169.254:80 `) || strings.Contains(told[1].Message, "hush") {
		t.Fatalf("with a Secret that names this machine: %q, told %+v", applied, told)
	}
	o.look("global: {slack_api_url: 'http://169.254.169.254/'}\n" + route.Default)
	if len(told) != 2 || len(o.refused) != 0 {
		t.Fatalf("what the cluster names for all: %v, told %+v", o.refused, told[2:])
	}
	secret = "https://hook.example/"
	o.look(route.Default)
	applied = applied[:1]
	granted = false // the right comes in a moment
	o.look(route.Default)
	if len(applied) != 1 || testutil.ToFloat64(o.left) != 0 {
		t.Fatalf("while the Secret may not be read: %q", applied[1:])
	}
	if err := informer.GetStore().Delete(u); err != nil {
		t.Fatal(err)
	}
	o.look(route.Default)
	if len(applied) != 2 || applied[1] != route.Default {
		t.Errorf("without the object: %q", applied)
	}
}
