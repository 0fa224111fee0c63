package cni

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// TestMain lets the test binary stand in for the helper that the runtime executes.
func TestMain(m *testing.M) {
	if os.Getenv("CNI_COMMAND") != "" {
		Main()
		return
	}
	os.Exit(m.Run())
}

// plugin is what libcni passes to the first plugin of a conflist.
func plugin(t testing.TB, conflist []byte) []byte {
	t.Helper()
	var list struct {
		CNIVersion, Name string
		Plugins          []map[string]any
	}
	if err := json.Unmarshal(conflist, &list); err != nil {
		t.Fatal(err)
	}
	one := list.Plugins[0]
	one["cniVersion"], one["name"] = list.CNIVersion, list.Name
	text, err := json.Marshal(one)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// space is a network namespace that lives as long as the test.
type space struct{ handle netns.NsHandle }

func (s space) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(s.handle)) }

// newSpaces puts the test into a network namespace of its own and makes n more for pods.
func newSpaces(t testing.TB, n int) []space {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	runtime.LockOSThread() // not unlocked: the thread ends with the test and takes its namespace along
	var out []space
	for range n + 1 { // the last one is the node's
		h, err := netns.New()
		if err != nil {
			t.Fatalf("make netns: %v", err)
		}
		t.Cleanup(func() { _ = h.Close() })
		out = append(out, space{h})
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out[:n]
}

func giveGateway(t testing.TB, c Config) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.AddrAdd(lo, &netlink.Addr{IPNet: host32(c.Gateway)})
	}
	if err != nil {
		t.Fatal(err)
	}
}

type call struct {
	verb, id, netns string
	stdin           []byte
}

func (c call) command() *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+c.verb, "CNI_CONTAINERID="+c.id, "CNI_NETNS="+c.netns,
		"CNI_IFNAME=eth0", "CNI_PATH=/nowhere")
	cmd.Stdin = bytes.NewReader(c.stdin)
	return cmd
}

func config(t testing.TB, c Config) []byte {
	t.Helper()
	text, err := Conflist(c)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Replace(plugin(t, text), []byte(`"1.0.0"`), []byte(`"1.1.0"`), 1)
}

func TestPluginAttachesChecksAndDetaches(t *testing.T) {
	pods := newSpaces(t, 2)
	c := testConfig(t, "10.42.0.0/24")
	stdin := config(t, c)
	if out, err := (call{"STATUS", "", "", stdin}).command().Output(); err == nil || !strings.Contains(string(out), `"code": 50`) {
		t.Errorf("STATUS before the gateway exists = %s, %v; want code 50", out, err)
	}
	giveGateway(t, c)
	if out, err := (call{"STATUS", "", "", stdin}).command().Output(); err != nil {
		t.Errorf("STATUS = %s, %v", out, err)
	}
	var addrs []netip.Addr
	for i, pod := range pods {
		id := fmt.Sprintf("sandbox%d", i)
		out, err := call{"ADD", id, pod.path(), stdin}.command().Output()
		if err != nil {
			t.Fatalf("ADD = %s, %v", out, err)
		}
		var res current.Result
		if err := json.Unmarshal(out, &res); err != nil {
			t.Fatal(err)
		}
		addr, _ := netip.AddrFromSlice(res.IPs[0].Address.IP.To4())
		addrs = append(addrs, addr)
		if out, err := (call{"CHECK", id, pod.path(), withPrev(stdin, out)}).command().Output(); err != nil {
			t.Errorf("CHECK = %s, %v", out, err)
		}
	}
	// A pod reaches the node and the other pod.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	for _, to := range []netip.Addr{c.Gateway, addrs[1]} {
		if err := reach(t, pods[0], pods[1], addrs[1], to); err != nil {
			t.Errorf("from %s to %s: %v", addrs[0], to, err)
		}
	}
	links, err := Links("test")
	if err != nil || len(links) != 2 {
		t.Errorf("Links = %v, %v; want 2", links, err)
	}
	for i, pod := range pods {
		for range 2 { // DEL is safe to repeat
			if out, err := (call{"DEL", fmt.Sprintf("sandbox%d", i), pod.path(), stdin}).command().Output(); err != nil {
				t.Errorf("DEL = %s, %v", out, err)
			}
		}
	}
	wantNothingLeft(t, c)
}

func withPrev(stdin, result []byte) []byte {
	return append(bytes.TrimSuffix(bytes.TrimSpace(stdin), []byte("}")), []byte(`,"prevResult":`+string(result)+"}")...)
}

// reach opens a TCP connection from one namespace to an address of the node or of a pod.
func reach(t testing.TB, from, to space, toPod, addr netip.Addr) error {
	node, err := netns.Get()
	if err != nil {
		return err
	}
	defer func() { _ = node.Close() }()
	if addr == toPod {
		if err := netns.Set(to.handle); err != nil {
			return err
		}
	}
	ln, err := listen(addr)
	if err != nil {
		return err
	}
	defer ln.Close()
	if err := netns.Set(from.handle); err != nil {
		return err
	}
	defer func() {
		if err := netns.Set(node); err != nil {
			t.Fatal(err)
		}
	}()
	return dial(ln.port, addr)
}

func wantNothingLeft(t testing.TB, c Config) {
	t.Helper()
	links, err := Links(c.Cluster)
	if err != nil || len(links) != 0 {
		t.Errorf("links left: %v, %v", links, err)
	}
	a := open(t, c)
	all, err := a.list()
	a.close() // the plugin's processes need the lock
	if err != nil || len(all) != 0 {
		t.Errorf("addresses left: %v, %v", all, err)
	}
}

// A plugin process is killed at a random point, many times; the runtime then
// says DEL, and nothing may be left and the sandbox may be attached again.
func TestPluginKilledAtAnyPointLeavesNothingAfterDEL(t *testing.T) {
	pods := newSpaces(t, 1)
	c := testConfig(t, "10.42.0.0/24")
	giveGateway(t, c)
	stdin := config(t, c)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 2))
	killed := 0
	for i := range 25 {
		at := call{"ADD", fmt.Sprintf("s%d", i), pods[0].path(), stdin}
		cmd := at.command()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// The moment is random on purpose; nothing is waited for.
		timer := time.AfterFunc(time.Duration(rnd.IntN(25000))*time.Microsecond, func() { _ = cmd.Process.Kill() })
		if err := cmd.Wait(); err != nil {
			killed++
		}
		timer.Stop()
		if i%2 == 0 { // some runtimes add again at once
			if out, err := at.command().Output(); err != nil {
				t.Fatalf("second ADD = %s, %v", out, err)
			}
		}
		at.verb = "DEL"
		if out, err := at.command().Output(); err != nil {
			t.Fatalf("DEL = %s, %v", out, err)
		}
		wantNothingLeft(t, c)
	}
	t.Logf("%d of 25 calls were killed", killed)
}

func TestGCRemovesWhatNoSandboxHolds(t *testing.T) {
	pods := newSpaces(t, 2)
	c := testConfig(t, "10.42.0.0/24")
	giveGateway(t, c)
	stdin := config(t, c)
	for i, pod := range pods {
		if out, err := (call{"ADD", fmt.Sprintf("s%d", i), pod.path(), stdin}).command().Output(); err != nil {
			t.Fatalf("ADD = %s, %v", out, err)
		}
	}
	valid := bytes.TrimSuffix(bytes.TrimSpace(stdin), []byte("}"))
	valid = append(valid, []byte(`,"cni.dev/valid-attachments":[{"containerID":"s1","ifname":"eth0"}]}`)...)
	if out, err := (call{"GC", "", "", valid}).command().Output(); err != nil {
		t.Fatalf("GC = %s, %v", out, err)
	}
	links, err := Links(c.Cluster)
	if want := LinkName(c.Network, Attachment{"s1", "eth0"}); err != nil || len(links) != 1 || links[0] != want {
		t.Errorf("Links = %v, %v; want only %s", links, err, want)
	}
}

func TestAddWithoutGatewaySaysSoAndLeavesNothing(t *testing.T) {
	pods := newSpaces(t, 1)
	c := testConfig(t, "10.42.0.0/24")
	_, err := add(c, Attachment{"s", "eth0"}, pods[0].path())
	if err == nil || !strings.Contains(err.Error(), "is the agent running") {
		t.Errorf("add = %v; want a hint at the agent", err)
	}
	wantNothingLeft(t, c)
}

func BenchmarkADDAndDEL(b *testing.B) {
	pods := newSpaces(b, 1)
	c := testConfig(b, "10.42.0.0/24")
	giveGateway(b, c)
	var adding time.Duration
	n := 0
	for b.Loop() {
		at := Attachment{"bench", "eth0"}
		start := time.Now()
		if _, err := add(c, at, pods[0].path()); err != nil {
			b.Fatal(err)
		}
		adding += time.Since(start)
		n++
		if err := del(c, at); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(adding.Microseconds())/float64(n), "µs/ADD")
}
