package daemon

import (
	"context"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kadmission "k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/warning"
	"sigs.k8s.io/yaml"
)

type warnings []string

func (w *warnings) AddWarning(_, text string) { *w = append(*w, text) }

func TestBrokenMonitorsAreRefusedAndIdleFieldsAreTold(t *testing.T) {
	read := func(spec string) *unstructured.Unstructured {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte("metadata: {name: x, namespace: shop}\nspec: "+spec), &u.Object); err != nil {
			t.Fatal(err)
		}
		return u
	}
	const good, broken = `{selector: {}, endpoints: [{port: m}]}`, `{selector: {}, endpoints: [{port: m, relabelings: [{action: often}]}]}`
	for _, c := range []struct {
		what, resource, spec, before string
		wrong                        string
		told                         []string
	}{
		{"a good one", "servicemonitors", good, "", "", nil},
		{"a broken one", "servicemonitors", broken, "", `spec.endpoints[0].relabelings[0].action: "often" is not known`, nil},
		{"a broken one that stays what it was", "servicemonitors", broken, broken, "", nil},
		{"a good one that becomes broken", "servicemonitors", broken, good, "spec.endpoints[0]", nil},
		{"a field nobody knows", "podmonitors", `{selector: {}, podMetricsEndpoints: [{port: m, prot: x}], scrapeClass: c}`, "", "", []string{
			"spec.scrapeClass does nothing: there are no scrape classes", `unknown field "spec.podMetricsEndpoints[0].prot" does nothing`}},
		{"a probe", "probes", `{targets: {staticConfig: {static: []}}}`, "", "spec.targets.staticConfig.static: names no target", nil},
		{"a scrape configuration", "scrapeconfigs", `{staticConfigs: [{targets: ["localhost:1"]}]}`, "", "spec.staticConfigs[0].targets[0]", nil},
		{"routes of a namespace", "alertmanagerconfigs", `{route: {receiver: a}, receivers: [{name: a, webhookConfigs: [{urlSecret: {name: s, key: u}}]}]}`, "", "", nil},
		{"broken routes of a namespace", "alertmanagerconfigs", `{route: {receiver: a}, receivers: [{name: a, webhookConfigs: [{url: "http://a", colour: red}]}]}`, "", "spec.receivers[0].webhookConfigs[0].colour is not known", nil},
		{"a receiver on this machine", "alertmanagerconfigs", `{route: {receiver: a}, receivers: [{name: a}, {name: b, webhookConfigs: [{url: "http://a"}, {url: "http://[::1]:2379/x"}]}]}`, "",
			`spec.receivers[1].webhookConfigs[1].url: receiver "b": [::1]:2379 is the machine`, nil},
		{"a receiver of the cloud's secrets", "alertmanagerconfigs", `{route: {receiver: a}, receivers: [{name: a, webhookConfigs: [{url: "http://100.100.100.200/"}]}]}`, "", `"a": 100.100.100.200:80 `, nil},
		{"a kind of others", "thanosrulers", `{x: 1}`, "", "", nil},
	} {
		t.Run(c.what, func(t *testing.T) {
			var told warnings
			ctx := warning.WithWarningRecorder(context.Background(), &told)
			op, before := kadmission.Create, (*unstructured.Unstructured)(nil)
			if c.before != "" {
				op, before = kadmission.Update, read(c.before)
			}
			gvr := schema.GroupVersionResource{Group: "monitoring.coreos.com", Version: "v1", Resource: c.resource}
			attrs := kadmission.NewAttributesRecord(read(c.spec), before, gvr.GroupVersion().WithKind("X"), "shop", "x", gvr, "", op, nil, false, nil)
			err := monitorPlugin{kadmission.NewHandler(kadmission.Create, kadmission.Update)}.Validate(ctx, attrs, nil)
			if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("said %v, want %q", err, c.wrong)
			}
			if !slices.Equal(told, warnings(c.told)) {
				t.Errorf("warned of %q, want %q", []string(told), c.told)
			}
		})
	}
}
