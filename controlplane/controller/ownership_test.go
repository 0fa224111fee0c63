package controller

import (
	"log/slog"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"

	"perch/controlplane/api"
	"perch/controlplane/controller/reconcile"
	"perch/controlplane/event"
)

func TestEveryPartHasOneWriter(t *testing.T) {
	client := fake.NewClientset()
	set, err := All(Default(), Clients{client, metadatafake.NewSimpleMetadataClient(runtime.NewScheme())}, reconcile.NewInformers(client), func(event.Record) {}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	type owned struct {
		controller string
		part       reconcile.Part
	}
	var all []owned
	// Parts written outside this package take part too.
	for _, part := range []reconcile.Part{
		{Kind: "Pod", Fields: "spec.nodeName"}, {Kind: "Pod", Fields: "status.conditions[PodScheduled]"},
		{Kind: "Node", Fields: "spec.taints"}, {Kind: "Pod", Fields: "objects", Of: "tainted Node"},
		{Kind: "autoscaling/HorizontalPodAutoscaler", Fields: "status"}, {Kind: "*", Fields: "scale"},
	} {
		all = append(all, owned{"(other packages)", part})
	}
	for _, row := range set.Table() {
		if len(row.Reads) == 0 || len(row.Writes) == 0 {
			t.Errorf("%s reads or writes nothing", row.Controller)
		}
		for _, part := range row.Writes {
			for _, other := range all {
				same := other.part.Kind == part.Kind && other.part.Fields == part.Fields
				if same && (other.part.Of == part.Of || other.part.Of == "" || part.Of == "") {
					t.Errorf("%s and %s both write %s", row.Controller, other.controller, part)
				}
			}
			all = append(all, owned{row.Controller, part})
		}
	}
	for _, row := range set.Table() {
		for _, kind := range row.Reads {
			for _, k := range api.Kinds() {
				if (k.Group+"/"+k.Kind == kind || k.Group == "" && k.Kind == kind) && !k.Acts {
					t.Errorf("a write to a %s is answered with a warning that nothing acts on it, but %s does", kind, row.Controller)
				}
			}
		}
	}
}
