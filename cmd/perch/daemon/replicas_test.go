package daemon

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	agentdoor "perch/agent/door"
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

func TestANeighbourhoodBeginsWithTheFirstNeighbour(t *testing.T) {
	n := newNeighbourhood()
	met := func() bool {
		select {
		case <-n.first:
			return true
		default:
			return false
		}
	}
	n.learn(neighbours{Secret: "s"})
	if met() {
		t.Error("alone it has begun")
	}
	n.learn(neighbours{Secret: "s", Seeds: []string{"10.0.0.2:10251"}})
	if !met() || len(n.now().Seeds) != 1 {
		t.Error("with a neighbour it has not begun")
	}
	n.learn(neighbours{Secret: "s"}) // it went again
	if !met() || len(n.now().Seeds) != 0 {
		t.Error("the neighbour is remembered")
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
