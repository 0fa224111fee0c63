package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"

	"perch/alerts/rule"
	"perch/cmd/perch/daemon/config"
	"perch/cmd/perch/daemon/door"
	"perch/controlplane/auth/pki"
	"perch/controlplane/auth/token"
	"perch/controlplane/event"
	"perch/logs/ring"
	"perch/metrics/promapi"
	"perch/metrics/remote"
	"perch/metrics/scrape"
	"perch/metrics/share"
	metricstore "perch/metrics/store"
	"perch/metrics/stream"
	"perch/ui"
)

// nodePatience is how long a node may be silent before answers say that it is
// missing: three times the slow sample rate.
const nodePatience = 45 * time.Second

// buildTelemetry starts the stores of this node and, on servers, everything
// that asks them. Read it top to bottom: numbers, lines, alerts, doors.
func buildTelemetry(_ context.Context, r role) error {
	server := r.cfg.Kind == config.Server
	identity := "node"
	if server {
		identity = "telemetry"
	}
	api, err := connect(r.cfg, identity)
	if err != nil {
		return err
	}
	own := http.NewServeMux() // on the unix socket: this machine's own roles

	numbers, err := openNumbers(r, own)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(api.kube, 0)
	mine := informers.NewSharedInformerFactoryWithOptions(api.kube, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = "spec.nodeName=" + r.cfg.NodeName
	}))
	pods := mine.Core().V1().Pods().Lister()
	facts, err := event.New(event.Default(), api.kube.CoreV1(), r.part("event"), r.reg)
	if err != nil {
		return err
	}
	r.group.Go("events", facts.Run)
	lines, err := openLines(r, api, own, factory, pods, facts.Tell)
	if err != nil {
		return err
	}
	jobs, err := r.openScrapeJobs(api, factory)
	if err != nil {
		return err
	}
	if err := r.openProber(factory); err != nil {
		return err
	}
	targets, err := r.collect(factory, pods, numbers, jobs, registryOf(lines.counts), facts.Tell, own)
	if err != nil {
		return err
	}
	members := &atomic.Pointer[ring.Ring]{} // while there are other nodes
	if server {
		if err := buildServerTelemetry(r, api, factory, numbers, targets, jobs, facts.Tell, lines, members, own); err != nil {
			return err
		}
	} else if err := errors.Join(r.forwardNumbers(numbers), r.tellFamilies(targets), r.watchServer(lines, clusterName(factory.Core().V1().Services().Lister(), r.cfg.ClusterDomain))); err != nil {
		return err
	} else if near, err := r.findNeighbours(); err != nil {
		return err
	} else if err := r.shipCopies(own, lines, near, members); err != nil {
		return err
	}
	if r.cfg.SeriesStore {
		if err := r.keepSeries(own); err != nil {
			return err
		}
	}
	own.Handle("/metrics", promhttp.HandlerFor(plainNames(r.reg), promhttp.HandlerOpts{}))
	r.group.Go("objects", func(ctx context.Context) error {
		untilAnswered(ctx, startLimit, r.part("objects"), func(ctx context.Context) error {
			_, err := api.kube.CoreV1().Services(metav1.NamespaceAll).List(ctx, metav1.ListOptions{Limit: 1}) // both kinds of machines need them
			return err
		})
		factory.StartWithContext(ctx)
		mine.StartWithContext(ctx)
		<-ctx.Done()
		factory.Shutdown()
		mine.Shutdown()
		return nil
	})
	socket, err := newUnixDoor(r.cfg.Socket("telemetry"), everything(own))
	if err != nil {
		return err
	}
	r.group.Go("socket", socket.Run)
	r.checkSocket("capture of lines", "telemetry", "/perch/v1/drained?path=/")
	if server {
		r.checkSocket("queries", "telemetry", "/prometheus/api/v1/query?query=1")
	}
	return nil
}

// everything lets perch's own roles, which alone may open the socket, see all, or the
// series of the namespace for which they ask.
func everything(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sees := promapi.Everything()
		if namespace := r.Header.Get(seesHeader); namespace != "" {
			sees = promapi.Access{Namespaces: []string{namespace}}
		}
		ctx := promapi.WithAccess(door.WithScope(r.Context(), door.Scope{All: true}), sees)
		next.ServeHTTP(w, r.WithContext(promapi.WithOwnTurn(ctx)))
	})
}

// numbers are the metric store of this process and how samples come in.
type numbers struct {
	store *metricstore.Store
	local *stream.Receiver // the agent of this machine
	state scrape.Demand    // servers: samples the state of all objects at once
	lost  share.Gap        // what the store had to do without when it opened

	newest int64 // time of the store's newest sample then, in ms; math.MinInt64: it had none
}

func openNumbers(r role, own *http.ServeMux) (numbers, error) {
	cfg, err := seriesStore(r.cfg)
	if err != nil {
		return numbers{}, err
	}
	if r.cfg.Kind == config.Agent {
		cfg = metricstore.DefaultWorker()
	}
	cfg.Dir = r.cfg.Path("metrics")
	db, err := metricstore.New(cfg, r.part("metrics"), r.reg)
	if err != nil {
		return numbers{}, err
	}
	r.group.OnStop("metrics", db.Close)
	r.endBroken("metrics", db)
	local := stream.NewReceiver("local", stream.DefaultReceiver(), db, r.part("samples"), r.reg)
	own.Handle("POST /perch/v1/samples", local)
	newest := db.MaxTime()
	return numbers{db, local, make(scrape.Demand), share.GapOf(newest, db.Repaired(), time.Now()), newest}, nil
}

// endBroken ends the role when its store fails, so that it is opened again.
func (r role) endBroken(name string, db *metricstore.Store) {
	r.group.Go(name, func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-db.Broken():
			return errors.New("the store failed to write; it is opened again")
		}
	})
}

// forwardNumbers sends a worker's samples to the server, from the store's WAL.
func (r role) forwardNumbers(n numbers) error {
	client, err := nodeClient(r.cfg)
	if err != nil {
		return err
	}
	cfg := stream.DefaultForward(r.cfg.Path("metrics-sent"))
	cfg.Hold = n.store.HoldWAL
	if n.lost != share.NoGap() { // a position in a WAL that was cut means nothing; repeats do no harm
		if err := os.Remove(cfg.StateFile); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("forget what was sent: %w", err)
		}
	}
	f, err := stream.NewForwarder(cfg, n.store.Dir(), stream.NewClient("server", stream.ClientConfig{URL: r.cfg.Web + "/perch/v1/samples", Timeout: 30 * time.Second}, client, r.reg), r.part("forward"), r.reg)
	if err != nil {
		return err
	}
	r.group.Go("forward", f.Run)
	return nil
}

// nodeTLS is who this node is towards others.
func nodeTLS(cfg config.Config) rest.TLSClientConfig {
	return rest.TLSClientConfig{CAFile: cfg.Path("ca.crt"), CertFile: cfg.Path("pki", "node.crt"), KeyFile: cfg.Path("pki", "node.key")}
}

// nodeClient speaks HTTPS as this node.
func nodeClient(cfg config.Config) (*http.Client, error) {
	return machineClient(&rest.Config{TLSClientConfig: nodeTLS(cfg)})
}

// buildServerTelemetry adds what only servers have: queries, rules, alerts and
// the web door.
func buildServerTelemetry(r role, api clients, factory informers.SharedInformerFactory, n numbers, targets *scrape.Loop, jobs *scrapeJobs, tell event.Tell, lines *lines, members *atomic.Pointer[ring.Ring], own *http.ServeMux) error {
	page, err := url.Parse(webURL(r.cfg))
	if err != nil {
		return fmt.Errorf("make page URL: %w", err)
	}
	nodes := factory.Core().V1().Nodes()
	fromNodes := stream.DefaultReceiver()
	fromNodes.NodeOf = nodeOfCaller
	nodesIn := stream.NewReceiver("nodes", fromNodes, n.store, r.part("samples"), r.reg)
	lacks := newLacking(r.cfg.NodeName, factory, n.newest, time.Now())
	lacks.silent, lacks.gather, lacks.stopped = nodesIn.Missing, n.state.Gather, n.store.Stopped
	r.group.Go("lacking", lacks.run)

	everywhere, err := r.shareSeries(api.rest, n, members, own)
	if err != nil {
		return err
	}
	book, err := r.knowFamilies(targets)
	if err != nil {
		return err
	}
	sender := remote.New(n.store, book.All, r.part("remote-write"), r.reg)
	n.store.OnCommit(sender)
	r.group.OnStop("remote-write", func(context.Context) error { return sender.Close() })
	r.group.Go("remote-write families", sender.Run)
	r.group.Go("remote-write", r.keep(api.kube, r.remoteWrite(), sender.Apply))

	told, err := openAlerts(r, page, clusterName(factory.Core().V1().Services().Lister(), r.cfg.ClusterDomain))
	if err != nil {
		return err
	}
	ask := promapi.Default()
	kept := n.store.Limits()
	ask.Experimental, ask.ExternalURL = r.cfg.ExperimentalPromQL, page
	ask.Kept = promapi.Kept{Age: kept.Retention, Bytes: kept.MaxBytes, Series: kept.SeriesLimit, OutOfOrder: kept.OutOfOrder, Exemplars: kept.Exemplars}
	seconds, err := r.seconds(api, factory)
	if err != nil {
		return err
	}
	prom, err := promapi.New(ask, promapi.Parts{Store: everywhere, Missing: lacks.now, Seconds: seconds, Gatherer: r.reg, Targets: targets, Families: book, QueryLog: r.queryLog(),
		Rules:         func(context.Context) promapi.Rules { return told.rules.Manager() },
		Outside:       told.fromOutside,
		RuleSources:   func(file string) promapi.RuleSource { return told.whose(file) },
		Alertmanagers: func() []*url.URL { return []*url.URL{page.JoinPath("alertmanager")} }}, r.part("promapi"), r.reg)
	if err != nil {
		return err
	}
	if err := lines.serveCluster(r, api, factory); err != nil {
		return err
	}
	if err := told.watch(r, api, factory, n, everywhere, prom, lines, page, lacks); err != nil {
		return err
	}
	if err := told.keepRoutes(r, api, jobs.values, tell); err != nil {
		return err
	}

	sessions, err := door.NewSessions(r.cfg.Path("pki", "session.key"), func(ctx context.Context, life time.Duration) (string, error) {
		return adminToken(ctx, api.kube, life)
	}, time.Now)
	if err != nil {
		return err
	}
	reviews, err := r.reviews(factory)
	if err != nil {
		return err
	}
	web := door.New(reviews, sessions, r.part("door"), r.reg)
	code := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"code": sessions.Code()}) // the asker is gone if this fails
	}
	own.HandleFunc("POST /ui/api/v1/code", code)
	own.Handle("/prometheus/", http.StripPrefix("/prometheus", prom))
	// A code becomes a session of this account, as a token of it would: who may make
	// the one (perch token, kubectl create token) may make the other.
	web.Handle("POST /ui/api/v1/code", door.Has(door.Right{Verb: "create", Resource: "serviceaccounts", Subresource: "token",
		Namespace: metav1.NamespaceSystem, Name: token.AdminAccount}), http.HandlerFunc(code))
	near, err := r.serveNeighbours(web, factory)
	if err != nil {
		return err
	}
	if err := r.shipCopies(own, lines, near, members); err != nil {
		return err
	}
	web.Handle("POST /perch/v1/samples", door.Node, nodesIn)
	web.Handle("POST /perch/v1/targets", door.Node, jobs.desk)
	web.Handle("/prometheus/", door.Metrics, http.StripPrefix("/prometheus", readers(promScoped(prom), newReadTurns(r.reg))))
	web.Handle("GET /prometheus/perch/v1/targets", door.Metrics, listed(targets)) // with what is left out and why
	write, writeTurns := door.Write("/prometheus/api/v1/write"), newWriteTurns(r.reg)
	web.Handle("POST /prometheus/api/v1/otlp/v1/metrics", write, http.StripPrefix("/prometheus", writers(prom, writeTurns)))
	web.Handle("POST /otlp/v1/metrics", write, rewritten("/api/v1/otlp/v1/metrics", writers(prom, writeTurns))) // where OTLP exporters send by default
	web.Handle("POST /prometheus/api/v1/write", write, http.StripPrefix("/prometheus", writers(prom, writeTurns)))
	web.Handle("POST "+familiesPath, door.Node, http.HandlerFunc(book.Take))
	alertAPI := keepSilences(told.router.Handler("/alertmanager"), lines.told.note)
	web.Handle("GET /alertmanager/", door.Alerts, ownLines(alertAPI))
	web.Handle("/alertmanager/", door.Path("post", "/alertmanager"), alertAPI)             // silences, alerts
	web.Public("GET /alertmanager/{$}", http.RedirectHandler("/alerts", http.StatusFound)) // where Alertmanager's templates link to
	told.serveAlarm(r, web, nodes)
	web.Handle("GET /ui/api/v1/rules/problems", door.Path("get", "/metrics"), http.HandlerFunc(told.problems))
	if err := serveDashboards(web, api.kube); err != nil {
		return err
	}
	web.Handle("/logs/api/v1/", door.Logs, lines.handler())
	if err := lines.servePushes(r, web, factory.Core().V1().Pods().Lister()); err != nil {
		return err
	}
	web.Handle("GET /metrics", door.Path("get", "/metrics"), promhttp.HandlerFor(plainNames(r.reg), promhttp.HandlerOpts{}))
	apiURL, err := url.Parse(r.cfg.APIServer())
	if err != nil {
		return fmt.Errorf("make API URL: %w", err)
	}
	plain, err := rest.TransportFor(&rest.Config{TLSClientConfig: rest.TLSClientConfig{CAFile: r.cfg.Path("ca.crt")}})
	if err != nil {
		return fmt.Errorf("read CA: %w", err)
	}
	web.Handle("/k8s/", door.Anyone, door.Proxy("/k8s", apiURL, plain, r.part("door")))
	files, err := ui.New()
	if err != nil {
		return err
	}
	web.Page(files)
	return r.serveWeb(web)
}

// reviews asks who callers are with a client of its own: strangers make it ask, and
// its turns at the API must not be those of everything else.
func (r role) reviews(factory informers.SharedInformerFactory) (*door.Reviews, error) {
	api, err := connect(r.cfg, "telemetry")
	if err != nil {
		return nil, err
	}
	key, err := pki.SigningKey(r.cfg.Path("pki"))
	if err != nil {
		return nil, err
	}
	issued := token.NewVerifier(token.URL(r.cfg.ClusterDomain), &key.PublicKey)
	return door.NewReviews(api.kube, factory.Core().V1().Namespaces().Lister(), issued.Signed, r.reg), nil
}

// rewritten serves a request as if it came to path.
func rewritten(path string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		to := req.Clone(req.Context())
		to.URL.Path = path
		next.ServeHTTP(w, to)
	})
}

// nodeOfCaller names the node whose certificate the request came with.
func nodeOfCaller(req *http.Request) (string, error) {
	const prefix = "system:node:"
	name := door.UserOf(req.Context()).Name
	if len(name) <= len(prefix) || name[:len(prefix)] != prefix {
		return "", fmt.Errorf("%q is not a node", name)
	}
	return name[len(prefix):], nil
}

// promScoped gives the caller's scope to the query engine.
func promScoped(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		s := door.ScopeOf(req.Context())
		a := promapi.Access{All: s.All, Namespaces: s.Namespaces, Unlabelled: s.All}
		next.ServeHTTP(w, req.WithContext(promapi.WithAccess(req.Context(), a)))
	})
}

// listed answers with the targets that the caller may see.
func listed(targets *scrape.Loop) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		list := targets.List()
		if s := door.ScopeOf(req.Context()); !s.All {
			list = list.Of(s.Namespaces)
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(list) // the client is gone otherwise
	})
}

// forRules is how rules ask: they are told that an answer is partial, so that it
// resolves no alert.
func forRules(prom *promapi.API) rules.QueryFunc {
	return func(ctx context.Context, expr string, at time.Time) (promql.Vector, error) {
		v, warnings, err := prom.Instant(ctx, expr, at)
		if err == nil && promapi.Partial(warnings) {
			err = rule.ErrPartial
		}
		return v, err
	}
}

// adminToken lets a session of the page act as perch's administrator.
func adminToken(ctx context.Context, api kubernetes.Interface, life time.Duration) (string, error) {
	seconds := int64(life / time.Second)
	got, err := api.CoreV1().ServiceAccounts(metav1.NamespaceSystem).CreateToken(ctx, token.AdminAccount,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("make session token: %w", err)
	}
	return got.Status.Token, nil
}

// serveWeb opens the web door: TLS with the server's certificate, client
// certificates of the cluster's CA are taken but not demanded.
func (r role) serveWeb(web *door.Door) error {
	text, err := os.ReadFile(r.cfg.Path("ca.crt"))
	if err != nil {
		return fmt.Errorf("read CA: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	l, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(r.cfg.WebPort)))
	if err != nil {
		return refused{fmt.Errorf("open web door: %w: move it with --web-port", err)}
	}
	cert := reloading(r.cfg.Path("pki", "server.crt"), r.cfg.Path("pki", "server.key"))
	srv := &http.Server{Handler: web, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(r.part("door").Handler(), slog.LevelDebug)}
	tl := tls.NewListener(web.Crowd.Listen(l), &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert() }})
	r.group.Go("web", func(ctx context.Context) error { return serve(ctx, srv, tl) })
	return nil
}

// reloading reads a key pair again when it changes, at most once a minute.
func reloading(certFile, keyFile string) func() (*tls.Certificate, error) {
	type loaded struct {
		cert *tls.Certificate
		at   time.Time
	}
	last := make(chan loaded, 1)
	last <- loaded{}
	return func() (*tls.Certificate, error) {
		have := <-last
		defer func() { last <- have }()
		if have.cert != nil && time.Since(have.at) < time.Minute {
			return have.cert, nil
		}
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			if have.cert != nil {
				return have.cert, nil // half-written now; the next minute reads it again
			}
			return nil, fmt.Errorf("read certificate: %w", err)
		}
		have = loaded{&pair, time.Now()}
		return have.cert, nil
	}
}
