package daemon

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func TestRulesMayHaveAResponseStrategy(t *testing.T) {
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(`
spec:
  groups:
  - name: shop
    partial_response_strategy: abort
    rules: [{alert: A, expr: up == 0}]
`), &u.Object); err != nil {
		t.Fatal(err)
	}
	text := ruleText(u)
	if err := checkRules(text, "shop"); err != nil || !strings.Contains(text, "up == 0") {
		t.Errorf("%s: %v", text, err)
	}
	if groups, _, err := unstructured.NestedSlice(u.Object, "spec", "groups"); err != nil || groups[0].(map[string]any)["partial_response_strategy"] != "abort" {
		t.Errorf("the object was changed: %v %v", groups, err)
	}
}
