package daemon

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	agentdoor "perch/agent/door"
	"perch/cmd/perch/daemon/config"
	"perch/cmd/perch/daemon/door"
	"perch/controlplane/auth/rbac"
	logstore "perch/logs/store"
)

func TestOnlyItsOwnerSendsACopyAndOnlyServersReadIt(t *testing.T) {
	node := func(name string) user.Info {
		return &user.DefaultInfo{Name: "system:node:" + name, Groups: []string{"system:nodes", user.AllAuthenticated}}
	}
	server := &user.DefaultInfo{Name: rbac.TelemetryUser, Groups: []string{user.AllAuthenticated}}
	reader := &user.DefaultInfo{Name: "somebody with nodes/proxy and nodes/log"}
	next := func(context.Context, user.Info, agentdoor.Attributes) (bool, string, error) {
		return true, "by its roles", nil
	}
	for _, c := range []struct {
		name string
		who  user.Info
		path string
		may  bool
	}{
		{"a node sends its own", node("nb"), "/perch/v1/copies/nb/0a", true},
		{"not that of another", node("nb"), "/perch/v1/copies/na/0a", false},
		{"not below another path", node("nb"), "/perch/v1/copies/na/nb/0a", false},
		{"not all", node("nb"), "/perch/v1/copies/", false},
		{"a name alone makes no node", &user.DefaultInfo{Name: "system:node:nb"}, "/perch/v1/copies/nb/0a", false},
		{"a server sends for nobody", server, "/perch/v1/copies/nb/0a", false},
		{"who may proxy to the node does not write copies", reader, "/perch/v1/copies/nb/0a", false},
		{"a server reads", server, "/logs/copies/nb/0a/logs/api/v1/query", true},
		{"a node does not, not even its own", node("nb"), "/logs/copies/nb/0a/logs/api/v1/query", false},
		{"nor does who may read the node's logs", reader, "/logs/copies/nb/0a/logs/api/v1/query", false},
		{"or a list of them", reader, "/logs/copies/", false},
		{"a server has series kept", server, "/perch/v1/series/in", true},
		{"and asks for them", server, "/perch/v1/series/ask/read", true},
		{"a node does neither", node("nb"), "/perch/v1/series/in", false},
		{"nor asks", node("nb"), "/perch/v1/series/ask/read", false},
		{"nor does who may read the node's numbers", reader, "/perch/v1/series/ask/labels", false},
		{"other paths go by roles", reader, "/logs/api/v1/query", true},
	} {
		if ok, reason, err := mayCopy(next)(t.Context(), c.who, agentdoor.Attributes{Verb: "create", Path: c.path}); ok != c.may || reason == "" || err != nil {
			t.Errorf("%s: %v (%s, %v)", c.name, ok, reason, err)
		}
	}
}

func TestGossipIsLookedForAtOtherNodes(t *testing.T) {
	node := func(name, ip string, port int32) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		n.Status.DaemonEndpoints.KubeletEndpoint.Port = port
		if ip != "" {
			n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: ip}}
		}
		return n
	}
	got := gossipOf([]*corev1.Node{node("na", "10.0.0.1", 10250), node("nb", "10.0.0.2", 10250), node("nc", "10.0.0.3", 20250), node("new", "", 0)}, "na")
	if want := []string{"10.0.0.2:10251", "10.0.0.3:20251"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestANeighbourhoodBeginsWithTheFirstNeighbourAndRemembersIt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "neighbours.json")
	n := openNeighbourhood(file, "")
	met := func(n *neighbourhood) bool {
		select {
		case <-n.first:
			return true
		default:
			return false
		}
	}
	tell := func(seeds ...string) {
		t.Helper()
		if err := n.told(neighbours{Secret: "s", Seeds: seeds}); err != nil {
			t.Fatal(err)
		}
	}
	tell()
	if met(n) || met(openNeighbourhood(file, "")) {
		t.Error("alone it has begun")
	}
	tell("10.0.0.3:10251", "10.0.0.2:10251")
	if !met(n) || len(n.now().Seeds) != 2 {
		t.Error("with a neighbour it has not begun")
	}
	if again := openNeighbourhood(file, ""); !met(again) || again.now().Secret != "s" || !slices.Equal(again.now().Seeds, []string{"10.0.0.2:10251", "10.0.0.3:10251"}) {
		t.Errorf("after a restart it knows %+v", again.now())
	}
	tell() // they went again
	if !met(n) || len(n.now().Seeds) != 0 || met(openNeighbourhood(file, "")) {
		t.Error("neighbours that went are remembered")
	}
	if err := os.WriteFile(file, []byte(`{"seeds":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if met(openNeighbourhood(file, "")) {
		t.Error("a file that is torn has neighbours")
	}
}

// A telemetry role that starts while no API server answers finds the others.
func TestAServersNeighboursAreKnownBeforeItsNodesAre(t *testing.T) {
	r := role{cfg: config.Config{DataDir: t.TempDir(), NodeName: "na"}, log: slog.New(slog.DiscardHandler)}
	node := func(name, ip string) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		n.Status.DaemonEndpoints.KubeletEndpoint.Port = 10250
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: ip}}
		return n
	}
	serve := func(nodes ...runtime.Object) (*neighbourhood, informers.SharedInformerFactory) {
		t.Helper()
		f := informers.NewSharedInformerFactory(fake.NewClientset(nodes...), 0)
		n, err := r.serveNeighbours(door.New(&door.Reviews{}, nil, r.log, prometheus.NewRegistry()), f)
		if err != nil {
			t.Fatal(err)
		}
		return n, f
	}
	if err := os.MkdirAll(r.cfg.Path("pki"), 0o700); err != nil {
		t.Fatal(err)
	}
	n, f := serve(node("na", "10.0.0.1"), node("nb", "10.0.0.2"))
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	f.Start(ctx.Done())
	select {
	case <-n.first:
	case <-ctx.Done():
		t.Fatal("the other node was not found")
	}
	stop()
	f.Shutdown()
	n, _ = serve() // its nodes are never read
	select {
	case <-n.first:
	default:
		t.Fatal("after a restart no neighbour is known")
	}
	if have := n.now(); !slices.Equal(have.Seeds, []string{"10.0.0.2:10251"}) || have.Secret == "" {
		t.Errorf("after a restart %+v is known", have)
	}
}

func TestTheRingsSecretIsMadeOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ring.secret")
	first, err := ringSecret(path)
	if err != nil || len(first) < 32 {
		t.Fatal(first, err)
	}
	if again, err := ringSecret(path); err != nil || again != first {
		t.Errorf("%q then %q (%v)", first, again, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its file is %v (%v)", info, err)
	}
}

func TestCopiesAreKeptAsLongAsTheLongestLines(t *testing.T) {
	day := 24 * time.Hour
	for _, c := range []struct {
		name string
		all  time.Duration
		own  map[string]logstore.Retention
		want time.Duration
	}{
		{"all alike", 7 * day, nil, 7 * day},
		{"one longer", 7 * day, map[string]logstore.Retention{"audit": {Age: 30 * day}, "noise": {Age: day}}, 30 * day},
		{"for ever", 0, map[string]logstore.Retention{"noise": {Age: day}}, 0},
	} {
		cfg := logstore.Config{RetentionAge: c.all, Namespaces: func() map[string]logstore.Retention { return c.own }}
		if got := keptFor(cfg)(); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
