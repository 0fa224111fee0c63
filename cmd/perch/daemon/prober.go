package daemon

import (
	"net/http"
	"net/netip"

	"k8s.io/client-go/informers"

	"perch/cmd/perch/daemon/config"
	"perch/metrics/prober"
	"perch/metrics/target"
)

// proberHost is the name of the prober's socket in URLs of Probe objects that name
// no prober.
const proberHost = "perch-prober"

// openProber serves the prober of servers, which ask for all Probe objects. Its
// socket has nothing else: every object may name it, with any path.
func (r role) openProber(f informers.SharedInformerFactory) error {
	if r.cfg.Kind != config.Server {
		return nil
	}
	cfg := prober.Default()
	cfg.Resolve = r.clusterHost(f.Core().V1().Services().Lister())
	cfg.Open = func(ip netip.Addr) bool { return !target.Guarded(ip) }
	p, err := prober.New(cfg, r.part("prober"), r.reg)
	if err != nil {
		return err
	}
	only := http.NewServeMux()
	only.Handle("GET /probe", p)
	socket, err := newUnixDoor(r.cfg.Socket("prober"), only)
	if err != nil {
		return err
	}
	r.group.Go("prober", socket.Run)
	return nil
}
