package nodelife

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"perch/controlplane/event"
)

func node(name string, ready corev1.ConditionStatus, taints ...corev1.Taint) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Spec.Taints = taints
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}
	return n
}

func keys(taints []corev1.Taint) string {
	out := ""
	for _, t := range taints {
		out += t.Key[len("node.kubernetes.io/"):] + ":" + string(t.Effect) + " "
	}
	return out
}

func TestDecide(t *testing.T) {
	now := time.Unix(1000, 0)
	fresh, stale := now.Add(-time.Second), now.Add(-time.Minute)
	tests := []struct {
		name   string
		nodes  []Sight
		taints string // of the first
		blind  bool
	}{
		{"a ready node has no taints", []Sight{{node("a", corev1.ConditionTrue), fresh}}, "", false},
		{"a ready node loses the taints of its past", []Sight{{node("a", corev1.ConditionTrue, corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoExecute}), fresh}}, "", false},
		{"a node that says it is not ready takes no pods", []Sight{{node("a", corev1.ConditionFalse), fresh}}, "not-ready:NoSchedule not-ready:NoExecute ", false},
		{"a silent node is unreachable while others speak", []Sight{{node("a", corev1.ConditionTrue), stale}, {node("b", corev1.ConditionTrue), fresh}}, "unreachable:NoSchedule unreachable:NoExecute ", false},
		{"when all are silent nobody is given up", []Sight{{node("a", corev1.ConditionTrue), stale}, {node("b", corev1.ConditionTrue), stale}}, "unreachable:NoSchedule ", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			verdicts, blind := Decide(now, test.nodes, 40*time.Second)
			if got := keys(verdicts[0].Taints); got != test.taints || blind != test.blind {
				t.Errorf("taints %q, blind %v; want %q, %v", got, blind, test.taints, test.blind)
			}
		})
	}
}

func TestASilentNodeLosesItsPodsAfterTheirPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seconds := int64(60)
		pod := func(name string, tolerations ...corev1.Toleration) *corev1.Pod {
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
			p.Spec.NodeName, p.Spec.Tolerations, p.Status.Phase = "lost", tolerations, corev1.PodRunning
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
			return p
		}
		lease := func(name string) *coordinationv1.Lease {
			at := metav1.NewMicroTime(time.Now())
			return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: name}, Spec: coordinationv1.LeaseSpec{RenewTime: &at}}
		}
		client := fake.NewClientset(
			node("lost", corev1.ConditionTrue), node("good", corev1.ConditionTrue), lease("lost"), lease("good"),
			pod("default"), pod("quick", corev1.Toleration{Operator: corev1.TolerationOpExists, TolerationSeconds: &seconds}), pod("daemon", corev1.Toleration{Operator: corev1.TolerationOpExists}),
		)
		factory := informers.NewSharedInformerFactory(client, 0)
		k, err := New(Default(), client, factory, func(event.Record) {}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		factory.Start(ctx.Done())
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			factory.Shutdown()
		}()
		exists := func(name string) bool {
			_, err := client.CoreV1().Pods("shop").Get(ctx, name, metav1.GetOptions{})
			return err == nil
		}
		pass := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); {
				<-time.After(10 * time.Second)
				if _, err := client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Update(ctx, lease("good"), metav1.UpdateOptions{}); err != nil {
					t.Fatal(err)
				}
			}
		}
		pass(50 * time.Second)
		n, err := client.CoreV1().Nodes().Get(ctx, "lost", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if c := conditionOf(n, corev1.NodeReady); c.Status != corev1.ConditionUnknown || len(n.Spec.Taints) != 2 {
			t.Errorf("condition %+v, taints %v", c, n.Spec.Taints)
		}
		p, err := client.CoreV1().Pods("shop").Get(ctx, "daemon", metav1.GetOptions{})
		if err != nil || p.Status.Conditions[0].Status != corev1.ConditionFalse {
			t.Errorf("pods of a lost node must not be ready: %+v %v", p.Status.Conditions, err)
		}
		pass(70 * time.Second)
		if exists("quick") || !exists("default") {
			t.Error("after 60 s only the pod that asked for it is moved")
		}
		pass(5 * time.Minute)
		if exists("default") || !exists("daemon") {
			t.Error("after 5 min the default pod is moved, and the one that tolerates all stays")
		}
	})
}
