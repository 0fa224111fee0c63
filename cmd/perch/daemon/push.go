package daemon

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"

	"perch/cmd/perch/daemon/config"
	"perch/cmd/perch/daemon/door"
	"perch/logs/ingest"
	"perch/logs/ingest/onward"
	"perch/logs/ingest/push"
	"perch/logs/record"
)

// servePushes opens the ways by which lines come in over the web door.
func (l *lines) servePushes(r role, web *door.Door, pods corelisters.PodLister) error {
	p, err := push.New(push.Default(), push.Parts{Identify: pushers(r.cfg, pods), Sink: l.total.Append, Seen: l.seen, Sources: l.sources}, r.part("push"), r.reg)
	if err != nil {
		return err
	}
	elastic := p.Elastic()
	web.Handle("POST /loki/api/v1/push", door.Push("/loki/api/v1/push"), p.Loki())
	web.Handle("POST /otlp/v1/logs", door.Push("/otlp/v1/logs"), p.OTLP())
	web.Handle("POST /v1/logs", door.Push("/v1/logs"), p.OTLP())
	web.Handle("POST /logs/api/v1/push", door.Push("/logs/api/v1/push"), p.Lines())
	web.Handle("/elastic/", door.Push("/elastic"), http.StripPrefix("/elastic", elastic))
	for _, path := range []string{"/_bulk", "/_license", "/_cluster/health", "/_cat/health"} { // of shippers that take no prefix
		web.Handle(path, door.Push("/elastic"), elastic)
	}
	return nil
}

// pushers tells who pushes over the web door: the pod at the source address,
// else the namespace of the service account, else nobody in particular.
func pushers(cfg config.Config, pods corelisters.PodLister) func(*http.Request) (push.Caller, error) {
	return func(req *http.Request) (push.Caller, error) {
		u := door.UserOf(req.Context())
		if from, err := netip.ParseAddrPort(req.RemoteAddr); err == nil && cfg.ClusterCIDR.Contains(from.Addr().Unmap()) {
			if p := podAt(pods, from.Addr().Unmap()); p != nil {
				return push.Caller{Stream: record.Stream{Namespace: p.Namespace, Pod: p.Name, UID: string(p.UID), Node: p.Spec.NodeName}, Name: "pod " + string(p.UID)}, nil
			}
		}
		s := record.Stream{Namespace: record.HostNamespace, Node: cfg.NodeName}
		if ns, _, ok := door.ServiceAccount(u); ok {
			s.Namespace = ns
		}
		return push.Caller{Stream: s, Name: "user " + u.Name}, nil
	}
}

// podAt is the pod that has an address of its own, nil if none has it.
func podAt(pods corelisters.PodLister, a netip.Addr) *corev1.Pod {
	for _, p := range all(pods.List) {
		ended := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed // its address may be another's
		if !ended && !p.Spec.HostNetwork && p.Status.PodIP == a.String() {
			return p
		}
	}
	return nil
}

// forwardKeys reads lines of "NAME SECRET [NAMESPACE]"; # begins a comment.
func forwardKeys(path string) ([]ingest.Key, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read --forward-keys: %w", err)
	}
	var out []ingest.Key
	in := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; in.Scan(); n++ {
		f := strings.Fields(in.Text())
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if len(f) < 2 || len(f) > 3 {
			return nil, fmt.Errorf("--forward-keys %s: line %d is not \"NAME SECRET [NAMESPACE]\"", path, n)
		}
		k := ingest.Key{Name: f[0], Secret: f[1]}
		if len(f) == 3 {
			k.Namespace = f[2]
		}
		out = append(out, k)
	}
	return out, in.Err()
}

// sendOn sends all lines of this node to an external receiver, if there is one.
func (l *lines) sendOn(r role) error {
	if r.cfg.ForwardTo == "" {
		return nil
	}
	cfg := onward.Default(r.cfg.ForwardTo, r.cfg.NodeName)
	if r.cfg.ForwardToKey != "" {
		text, err := os.ReadFile(r.cfg.ForwardToKey)
		if err != nil {
			return refused{fmt.Errorf("read --forward-to-key: %w", err)}
		}
		cfg.Key = strings.TrimSpace(string(text))
	}
	o, err := onward.New(cfg, l.store, r.part("onward"), r.reg)
	if err != nil {
		return err
	}
	r.group.Go("forward out", o.Run)
	return nil
}
