package daemon

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"

	"perch/cmd/perch/daemon/config"
	"perch/cmd/perch/daemon/door"
	"perch/controlplane/event"
	"perch/logs/cluster"
	"perch/logs/ingest/chunk"
	"perch/logs/ingest/source"
	"perch/logs/query"
	"perch/logs/recorded"
	"perch/logs/replica"
	logstore "perch/logs/store"
)

// lines are the log store of this node and what asks it.
type lines struct {
	store  *logstore.Store
	total  *query.Total       // brings lines into the store and counts them
	counts *recorded.Recorded // of the rules of LogRule objects
	engine *query.Engine
	search query.Searcher // this node's, or on servers the whole cluster's
	log    role

	told   *historian           // of alerts and silences
	copies *replica.Keeper      // of other nodes' lines
	kept   func() time.Duration // how long lines are kept; 0: for ever

	sources *source.Sources // how much each sender may push, over all doors
	seen    *chunk.Seen     // what senders pushed before
	outside chunk.Sink      // takes what comes over doors: total, without what went out here
}

// openLines opens the store and everything that brings lines into it on this
// node: container output and pushed records.
func openLines(r role, api clients, own *http.ServeMux, factory informers.SharedInformerFactory, pods corelisters.PodLister, tell event.Tell) (*lines, error) {
	kept, namespaces, err := r.cfg.Retention()
	if err != nil {
		return nil, refused{err}
	}
	cfg := logstore.Default(r.cfg.Path("logs"))
	cfg.RetentionAge, cfg.RetentionBytes = kept.Age, kept.Bytes
	cfg.Namespaces = newRetentions(namespaces, factory, r.cfg.Path("log-retention.json"), r.part("logs")).now
	s, err := logstore.Open(cfg, r.part("logs"), r.reg)
	if err != nil {
		return nil, err
	}
	copies, err := r.openCopies(own)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	own.HandleFunc("GET "+usePath, serveUse(s))
	r.group.OnStop("logs", func(context.Context) error { return s.Close() })
	r.group.Go("logs", s.Run)
	engine := query.New(s, r.part("query"))
	counts, err := recorded.New(recorded.Default(), s, r.part("logrules"), r.reg)
	if err != nil {
		return nil, err
	}
	r.countQueries(api, factory, counts, tell)
	known := pods
	if r.cfg.Kind == config.Server { // events of all nodes' pods are lines here
		known = factory.Core().V1().Pods().Lister()
	}
	alive := func(namespace, name string) bool {
		_, err := known.Pods(namespace).Get(name)
		return err == nil
	}
	l := &lines{store: s, total: query.NewTotal(counts.Append, alive, r.reg), counts: counts, engine: engine, search: engine, copies: copies, kept: keptFor(cfg), log: r}
	l.told = newHistorian(l.keep, r.part("history"), r.reg)
	r.group.Go("history", l.told.Run)
	if err := l.capture(r, own, pods); err != nil {
		return nil, err
	}
	l.keepAudit(own)
	// On the socket perch asks itself; another node's telemetry says for whom.
	own.Handle(query.Prefix, inTurns("node-", nodeTails, query.Handler(engine, query.TrustedAccess, r.part("query")), r.reg)) // they have no caller: all may be perch's own
	return l, nil
}

// questions are about lines: each answer may hold query.MaxAnswer bytes, and the page
// asks four at once.
var questions = door.Limit{All: 6, Each: 4, Wait: 15 * time.Second, Exchange: query.MaxTimeout + 2*time.Minute}

// tails last, and cost memory as long as they do. Nobody waits long for one: it says
// itself that it tries again. Each of its writes has a time limit of its own.
var tails = door.Limit{All: 32, Each: 8, Wait: 3 * time.Second, Exchange: 365 * 24 * time.Hour}

// nodeTails of a node serve the tails of all servers, and its own.
var nodeTails = door.Limit{All: 3 * tails.All, Each: tails.Each, Wait: tails.Wait, Exchange: tails.Exchange}

// handler answers callers of the web door within their scope.
func (l *lines) handler() http.Handler {
	return inTurns("", tails, query.Handler(l.search, func(ctx context.Context, _ *http.Request) (query.Access, error) {
		s := door.ScopeOf(ctx)
		return query.Access{All: s.All, Namespaces: s.Namespaces}, nil
	}, l.log.part("query")), l.log.reg)
}

// inTurns has questions and tails wait for their turns, each for those of its kind.
func inTurns(kind string, tails door.Limit, h http.Handler, reg prometheus.Registerer) http.Handler {
	isTail := func(r *http.Request) bool { return r.URL.Path == query.Prefix+"tail" }
	h = door.NewTurns(kind+"logs", questions, reg).Limit(h, isTail)
	return door.NewTurns(kind+"log-tails", tails, reg).Limit(h, func(r *http.Request) bool { return !isTail(r) })
}

// serveCluster makes the web door search all nodes, and keeps the cluster's
// events on this one.
func (l *lines) serveCluster(r role, api clients, f informers.SharedInformerFactory) error {
	client, err := machineClient(api.rest)
	if err != nil {
		return err
	}
	nodes := f.Core().V1().Nodes().Lister()
	peers := func() []cluster.Peer {
		var out []cluster.Peer
		for _, n := range all(nodes.List) {
			if n.Name == r.cfg.NodeName {
				continue
			}
			if ip := internalIP(n); ip != "" {
				port := cmp.Or(int(n.Status.DaemonEndpoints.KubeletEndpoint.Port), r.cfg.AgentPort)
				out = append(out, cluster.Peer{Node: n.Name, URL: "https://" + net.JoinHostPort(ip, strconv.Itoa(port)), Client: client})
			}
		}
		return out
	}
	copies := &copyList{self: r.ownCopies(), own: l.copies.Copies, store: l.copies.Store(), peers: peers}
	l.search = cluster.New(cluster.Parts{Self: r.cfg.NodeName, Local: l.engine, Peers: peers, Copies: copies.list}, r.part("logs"))
	return l.keepEvents(f)
}
