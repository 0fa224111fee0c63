package shipped

import (
	"log/slog"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"
)

func rules(text string) *unstructured.Unstructured {
	return Rules("pods", map[string]any{"groups": []any{map[string]any{"name": text}}})
}

// by is an object as an earlier perch wrote it.
func by(o *unstructured.Unstructured) *unstructured.Unstructured { return Written(o) }

func edited(o *unstructured.Unstructured, text string) *unstructured.Unstructured {
	o.Object["spec"] = rules(text).Object["spec"]
	return o
}

func TestWhatPeopleTouchedStays(t *testing.T) {
	for name, c := range map[string]struct {
		want, have *unstructured.Unstructured
		recorded   bool
		act        Action
		why        string
	}{
		"nothing is there at the first start":        {rules("a"), nil, false, Create, "it is new"},
		"a deleted one is not written again":         {rules("a"), nil, true, Leave, "it was deleted"},
		"one that is as shipped":                     {rules("a"), by(rules("a")), true, Leave, "it is as shipped"},
		"one of an earlier version follows":          {rules("b"), by(rules("a")), true, Update, "this version has another, and nobody edited it"},
		"an edited one stays over a newer version":   {rules("b"), edited(by(rules("a")), "mine"), true, Leave, "it was edited"},
		"one of somebody's own under this name":      {rules("a"), rules("theirs"), false, Leave, "it was edited"},
		"edited to what is shipped now":              {rules("b"), edited(by(rules("a")), "b"), true, Leave, "it is as shipped"},
		"no longer shipped and untouched":            {nil, by(rules("a")), true, Delete, "this version does not have it"},
		"no longer shipped but edited":               {nil, edited(by(rules("a")), "mine"), true, Leave, "this version does not have it"},
		"no longer shipped and deleted long ago":     {nil, nil, true, Leave, "this version does not have it"},
		"labels and the like are not edits of rules": {rules("a"), labelled(by(rules("a"))), true, Leave, "it is as shipped"},
	} {
		if act, why := Decide(c.want, c.have, c.recorded); act != c.act || why != c.why {
			t.Errorf("%s: %s, %s", name, act, why)
		}
	}
}

func labelled(o *unstructured.Unstructured) *unstructured.Unstructured {
	o.SetLabels(map[string]string{"team": "shop"})
	return o
}

func TestObjectsOverRestartsEditsDeletionsAndVersions(t *testing.T) {
	client := fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{kinds["ConfigMap"]: "ConfigMapList", kinds["PrometheusRule"]: "PrometheusRuleList"})
	api := client.Resource(kinds["PrometheusRule"]).Namespace(metav1.NamespaceSystem)
	ctx, log := t.Context(), slog.New(slog.DiscardHandler)
	start := func(want ...*unstructured.Unstructured) {
		t.Helper()
		if err := Keep(ctx, client, want, log); err != nil {
			t.Fatal(err)
		}
	}
	named := func(name, text string) *unstructured.Unstructured {
		o := rules(text)
		o.SetName(name)
		return o
	}
	group := func(name string) string {
		t.Helper()
		o, err := api.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return "none"
		}
		groups, _, _ := unstructured.NestedSlice(o.Object, "spec", "groups")
		return groups[0].(map[string]any)["name"].(string)
	}
	all := func(version string) []*unstructured.Unstructured {
		return []*unstructured.Unstructured{named("left", version), named("edited", version), named("deleted", version), Dashboard("nodes", version)}
	}
	start(all("one")...)
	o, err := api.Get(ctx, "edited", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.Update(ctx, edited(o, "mine"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := api.Delete(ctx, "deleted", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	start(all("one")...)
	start(all("two")...)
	if l, e, d := group("left"), group("edited"), group("deleted"); l != "two" || e != "mine" || d != "none" {
		t.Errorf("left %s, edited %s, deleted %s", l, e, d)
	}
	if gone, err := Deleted(ctx, client, "PrometheusRule", []string{"deleted", "unheard-of"}); err != nil || len(gone) != 1 || gone[0] != "deleted" {
		t.Errorf("deleted: %v, %v", gone, err)
	}
	start(named("edited", "three")) // a version without the others
	if l, e := group("left"), group("edited"); l != "none" || e != "mine" {
		t.Errorf("left %s, edited %s", l, e)
	}
	board, err := client.Resource(configMaps).Namespace(metav1.NamespaceSystem).Get(ctx, "perch-dashboard-nodes", metav1.GetOptions{})
	if err == nil {
		t.Errorf("a dashboard that is no longer shipped is still there: %v", board)
	}
}
