package e2e

import (
	"context"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// names asks cluster DNS 50 times a second, over UDP and TCP, while the agent,
// which answers, is killed again and again: no question stays without its
// answer.
func (c cluster) names(t *testing.T) {
	server := strings.TrimSpace(c.run(t, c.perch, "get", "service", "-n", "kube-system", "kube-dns", "-o", "jsonpath={.spec.clusterIP}")) + ":53"
	ask := func(network string) error {
		r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, given, _ string) (net.Conn, error) {
			if network == "tcp" {
				given = network
			}
			return (&net.Dialer{}).DialContext(ctx, given, server)
		}}
		_, err := r.LookupNetIP(t.Context(), "ip4", "kubernetes.default.svc.cluster.local.")
		return err
	}
	var (
		asked   sync.WaitGroup
		mu      sync.Mutex
		n       int
		longest time.Duration
		failed  []error
	)
	one := func(network string) {
		began := time.Now()
		err := ask(network)
		mu.Lock()
		defer mu.Unlock()
		n++
		longest = max(longest, time.Since(began))
		if err != nil {
			failed = append(failed, err)
		}
	}
	stop := make(chan struct{})
	asked.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			network := "udp"
			if i%10 == 0 {
				network = "tcp"
			}
			asked.Go(func() { one(network) })
		}
	})
	for range 3 {
		pid := c.roles(t)["agent"].PID
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Error(err)
			break
		}
		within(t, 30*time.Second, "the agent is back", func() bool {
			r := c.roles(t)["agent"]
			return r.PID != pid && r.State == "ready"
		})
	}
	close(stop)
	asked.Wait()
	t.Logf("%d lookups, the longest took %s", n, longest)
	for i, err := range failed {
		if i < 10 {
			t.Error(err)
		}
	}
	if len(failed) > 0 || n < 50 {
		t.Errorf("%d of %d lookups failed", len(failed), n)
	}
}
