package daemon

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"perch/metrics/scrape"
	"perch/metrics/target"
)

// A scraper that does not know the namespaces yet scrapes for no object: it would take
// each for one that may make series of all namespaces, or none.
func TestObjectsWaitUntilNamespacesAreKnown(t *testing.T) {
	factory := informers.NewSharedInformerFactory(fake.NewClientset(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ops", Labels: map[string]string{"perch.io/rules": "cluster"}}}), 0)
	p := scrape.Parts{Jobs: func() ([]target.Job, []target.Dropped) {
		return []target.Job{{Name: "a"}}, []target.Dropped{{From: "b"}}
	}}
	knowingNamespaces(&p, factory)
	if jobs, left := p.Jobs(); jobs != nil || left != nil || p.Wide("ops") || p.Wide("shop") {
		t.Fatalf("before namespaces are known: %v, %v, ops %v, shop %v", jobs, left, p.Wide("ops"), p.Wide("shop"))
	}
	factory.Start(t.Context().Done())
	factory.WaitForCacheSync(t.Context().Done())
	if jobs, left := p.Jobs(); len(jobs) != 1 || len(left) != 1 || !p.Wide("ops") || p.Wide("shop") {
		t.Fatalf("%v, %v, ops %v, shop %v", jobs, left, p.Wide("ops"), p.Wide("shop"))
	}
}
