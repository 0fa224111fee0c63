package dns

import (
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestOneAddressHasSomeConnectionsOnly(t *testing.T) {
	s, at := run(t, cluster())
	synced(t, s)
	var open []net.Conn
	for range 3 * maxConnectionsOfOne {
		c, err := net.Dial("tcp", at)
		must(t, err)
		defer c.Close()
		open = append(open, c)
	}
	wait := func(what string, good func() bool) {
		t.Helper()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for end := time.Now().Add(time.Minute); !good(); <-tick.C {
			if time.Now().After(end) {
				t.Fatal("not within a minute: " + what)
			}
		}
	}
	wait("two thirds are refused", func() bool { return testutil.ToFloat64(s.metrics.refused) == 2*maxConnectionsOfOne })
	for _, c := range open {
		_ = c.Close()
	}
	q := new(dns.Msg)
	q.SetQuestion("kubernetes.default.svc.cluster.local.", dns.TypeA)
	wait("there is room again", func() bool {
		answer, _, err := (&dns.Client{Net: "tcp"}).Exchange(q, at)
		return err == nil && len(answer.Question) == 1
	})
}
