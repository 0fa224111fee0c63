package daemon

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kadmission "k8s.io/apiserver/pkg/admission"
	"sigs.k8s.io/yaml"
)

func TestBrokenRulesAndAlertConfigurationsAreRefusedWhenWritten(t *testing.T) {
	rules := func(text string) runtime.Object {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte("apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata: {name: shop, namespace: shop}\nspec: {groups: "+text+"}"), &u.Object); err != nil {
			t.Fatal(err)
		}
		return u
	}
	secret := func(text string) runtime.Object {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: alertConfigName}, Data: map[string][]byte{alertConfigKey: []byte(text)}}
	}
	good := rules(`[{name: g, rules: [{alert: A, expr: up == 0}]}]`)
	broken := rules(`[{name: g, rules: [{alert: A, expr: up == 0}, {alert: B, expr: sum(up}]}]`)
	for _, test := range []struct {
		name     string
		now, old runtime.Object
		want     string // empty: passes
	}{
		{"good rules", good, nil, ""},
		{"a broken expression", broken, nil, `group "g", rule 2 "B": could not parse expression: 1:7: parse error: unclosed left parenthesis`},
		{"a broken object whose rules are as they were", broken, broken, ""},
		{"a broken object made worse", broken, good, `rule 2 "B"`},
		{"a text that never ends", rules(`[{name: g, rules: [{alert: A, expr: up == 0, annotations: {summary: "{{range 9000000000000000000}}{{end}}"}}]}]`), nil, "annotation summary"},
		{"a rule that is both", rules(`[{name: g, rules: [{alert: A, record: b, expr: up}]}]`), nil, "only one of 'record' and 'alert' must be set"},
		{"a name twice", rules(`[{name: g, rules: []}, {name: g, rules: []}]`), nil, `"g" is repeated`},
		{"a good configuration", secret("route: {receiver: a}\nreceivers: [{name: a}]"), nil, ""},
		{"a configuration that names nobody", secret("route: {receiver: b}\nreceivers: [{name: a}]"), nil, `undefined receiver "b"`},
		{"remote write to a misspelt place", &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: remoteWriteName}, Data: map[string][]byte{remoteWriteKey: []byte("remote_write:\n- ulr: http://x\n")}}, nil, "field ulr not found"},
		{"another Secret", &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: alertConfigName}, Data: map[string][]byte{alertConfigKey: []byte("x")}}, nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			resource, kind := prometheusRules, schema.GroupVersionKind{Group: "monitoring.coreos.com", Version: "v1", Kind: "PrometheusRule"}
			ns, name := "shop", "shop"
			if s, ok := test.now.(*corev1.Secret); ok {
				resource, kind = corev1.SchemeGroupVersion.WithResource("secrets"), corev1.SchemeGroupVersion.WithKind("Secret")
				ns, name = s.Namespace, s.Name
			}
			op := kadmission.Create
			if test.old != nil {
				op = kadmission.Update
			}
			err := alertPlugin{}.Validate(t.Context(), kadmission.NewAttributesRecord(test.now, test.old, kind, ns, name, resource, "", op, nil, false, nil), nil)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}
