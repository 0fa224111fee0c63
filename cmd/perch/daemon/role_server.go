package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/metadata"
	restclient "k8s.io/client-go/rest"

	"perch/cmd/perch/daemon/component"
	"perch/cmd/perch/daemon/crowd"
	"perch/cmd/perch/daemon/shipped"
	"perch/controlplane/apiserver"
	"perch/controlplane/auth"
	"perch/controlplane/auth/admission"
	"perch/controlplane/auth/node"
	"perch/controlplane/auth/pki"
	"perch/controlplane/auth/quota"
	"perch/controlplane/auth/rbac"
	"perch/controlplane/auth/sign"
	"perch/controlplane/auth/token"
	"perch/controlplane/controller"
	"perch/controlplane/event"
	"perch/controlplane/scheduler"
	"perch/controlplane/store"
)

// buildServer starts the control plane: state, API, then everything that keeps
// objects as their owners want them.
func buildServer(ctx context.Context, r role) error {
	authority, err := pki.Open(r.cfg.Path("pki"), time.Now())
	if err != nil {
		return err
	}
	signing, err := pki.SigningKey(r.cfg.Path("pki"))
	if err != nil {
		return err
	}
	r.group.Go("certificates", func(ctx context.Context) error {
		return authority.Keep(ctx, certificates(r.cfg), r.part("certificates"))
	})

	state := store.Default()
	state.Dir, state.Name = r.cfg.Path("etcd"), "perch-"+r.cfg.NodeName
	state.PeerURL = "https://" + net.JoinHostPort(r.cfg.AdvertiseAddress.String(), strconv.Itoa(r.cfg.PeerPort))
	state.PeerCert, state.PeerKey, state.PeerCA = authority.CertFile("peer"), authority.KeyFile("peer"), authority.CertFile("ca")
	objects, err := store.Open(state, r.part("store"), r.reg)
	if errors.Is(err, store.ErrLocked) || errors.Is(err, store.ErrNewer) {
		return refused{err}
	} else if err != nil {
		return err
	}
	r.group.OnStop("store", objects.Close)
	r.group.Go("etcd", objects.Run)

	kubelet, err := kubeletTLS(authority)
	if err != nil {
		return err
	}
	written, err := r.auditTrail()
	if err != nil {
		return err
	}
	var issuer *token.Issuer
	var joins *token.Bootstrap
	apps := &customMetrics{}
	api := apiserver.Default()
	api.Listen = net.JoinHostPort("0.0.0.0", strconv.Itoa(r.cfg.APIPort))
	api.Advertise = r.cfg.AdvertiseAddress.String()
	api.ClientCA, api.ServingCert, api.ServingKey = authority.CertFile("ca"), authority.CertFile("server"), authority.KeyFile("server")
	api.ServiceCIDR = r.cfg.ServiceCIDR
	api.SecretsKey = r.cfg.Path("pki", "secrets.key")
	visitors := crowd.New("api", 4096, r.reg)
	api.Bound = visitors.Listen
	srv, err := apiserver.New(api, apiserver.Collaborators{
		Authenticator: func(p apiserver.Parts) (authenticator.Request, error) {
			issuer, err = token.NewIssuer(token.URL(r.cfg.ClusterDomain), signing, token.Cached(p.Informers, p.Client))
			if err != nil {
				return nil, err
			}
			joins = token.NewBootstrap(p.Client)
			return greeting(visitors, auth.Authenticator(p.VerifyClient, issuer, joins)), nil
		},
		Front: func(next http.Handler) http.Handler { return joins.Explain(next) },
		Authorizer: func(p apiserver.Parts) (authorizer.Authorizer, authorizer.RuleResolver, error) {
			nodes, err := node.New(p.Informers)
			if err != nil {
				return nil, nil, err
			}
			roles, err := rbac.New(p.Informers)
			if err != nil {
				return nil, nil, err
			}
			may, err := auth.Authorizer(nodes, roles)
			return may, roles, err
		},
		Tokens:    func(apiserver.Parts) (rest.Storage, error) { return token.NewREST(issuer), nil },
		Admission: admitting(r.alertConfig()),
		Audit:     written,
		Kubelet:   kubelet,
		Groups:    append(r.apiGroups(), apps.groups(r)...),
		Handlers: func(apiserver.Parts) (map[string]http.Handler, error) {
			return map[string]http.Handler{token.ConfigurationPath: issuer.Configuration(adminURL(r.cfg)), token.KeysPath: issuer.Keys()}, nil
		},
		PostStart: map[string]func(context.Context, apiserver.Parts) error{
			"perch-roles": func(ctx context.Context, p apiserver.Parts) error { return rbac.Reconcile(ctx, p.Client) },
			"perch-priorities": func(ctx context.Context, p apiserver.Parts) error {
				return admission.EnsurePriorityClasses(ctx, p.Client)
			},
		},
	}, objects, r.part("api"), r.reg)
	if err != nil {
		return refusedIfBusy(err)
	}

	// What follows uses the informers, which start with the server.
	loop, err := clientsFor(srv.LoopbackConfig(), component.Count("kube-controller-manager", r.reg))
	if err != nil {
		return err
	}
	places, err := clientsFor(srv.LoopbackConfig(), component.Count("kube-scheduler", r.reg))
	if err != nil {
		return err
	}
	objectsMeta, err := metadata.NewForConfig(restclient.CopyConfig(loop.rest))
	if err != nil {
		return fmt.Errorf("make metadata client: %w", err)
	}
	facts, err := event.New(event.Default(), loop.kube.CoreV1(), r.part("event"), r.reg)
	if err != nil {
		return err
	}
	ctl := controller.Default()
	ctl.ClusterCIDR, ctl.RootCA = r.cfg.ClusterCIDR, authority.PEM()
	set, err := controller.All(ctl, controller.Clients{Kube: loop.kube, Metadata: objectsMeta}, srv.Informers(), facts.Tell, r.part("controller"), r.reg)
	if err != nil {
		return err
	}
	placer, err := scheduler.New(scheduler.Default(), places.kube, srv.Informers(), facts.Tell, r.part("scheduler"), r.reg)
	if err != nil {
		return err
	}
	certs := sign.Default()
	certs.Reserved = map[string]string{}
	for _, name := range append(certificates(r.cfg)["server"].DNS, r.cfg.ServiceIP(1).String(), r.cfg.AdvertiseAddress.String()) {
		if name != r.cfg.NodeName && name != "localhost" {
			certs.Reserved[name] = "the API"
		}
	}
	signer := sign.New(certs, loop.kube, srv.Informers(), authority, r.part("sign"), r.reg)
	counter := quota.New(loop.kube, objectsMeta, srv.Informers(), r.part("quota"), r.reg)
	sums := rbac.NewAggregation(loop.kube, srv.Informers(), r.part("roles"), r.reg)
	more, err := r.deciders(loop, apps, srv.Informers(), facts.Tell)
	if err != nil {
		return err
	}

	r.group.Go("api", srv.Run)
	if err := untilReady(ctx, srv.Ready); err != nil {
		return err
	}
	r.check("API and etcd", func(ctx context.Context) error {
		_, err := loop.kube.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
		return err
	})
	srv.Informers().Start(ctx.Done())
	r.group.Go("events", facts.Run)
	own, err := shippedObjects()
	if err != nil {
		return err
	}
	r.group.Go("own objects", func(ctx context.Context) error {
		if err := ensureObjects(ctx, r.cfg, loop, r.part("objects")); err != nil && ctx.Err() == nil {
			return err
		}
		if err := shipped.Keep(ctx, loop.dynamic, own, r.part("shipped")); err != nil && ctx.Err() == nil {
			return err
		}
		<-ctx.Done()
		return nil
	})
	if r.cfg.JoinTokenFile != "" {
		r.group.Go("join token", r.keepJoinToken(loop.kube, authority.Pin()))
	}
	r.group.Go("roles", sums.Run)
	r.group.Go("sign", signer.Run)
	r.group.Go("quota", counter.Run)
	r.group.Go("controllers", set.Run)
	r.group.Go("scheduler", placer.Run)
	doors := http.NewServeMux()
	for path, h := range component.Handlers(r.reg, component.Server()) {
		doors.Handle("GET "+path, h)
	}
	doors.Handle("GET "+etcdMetrics, component.Etcd())
	socket, err := newUnixDoor(r.cfg.Socket("server"), doors)
	if err != nil {
		return err
	}
	r.group.Go("socket", socket.Run)
	for _, m := range more {
		r.group.Go(m.name, m.run)
	}
	return nil
}

// etcdMetrics is where the server role's socket has etcd's series.
const etcdMetrics = "/metrics/etcd"

type namedRun struct {
	name string
	run  func(context.Context) error
}

// kubeletTLS is how the API server speaks to nodes.
func kubeletTLS(ca *pki.Authority) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(ca.CertFile("kubelet-client"), ca.KeyFile("kubelet-client"))
	if err != nil {
		return nil, fmt.Errorf("read certificate towards nodes: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.Certificate())
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, Certificates: []tls.Certificate{cert}}, nil
}

// refusedIfBusy makes a port in use an error that restarts cannot cure.
func refusedIfBusy(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "listen" {
		return refused{fmt.Errorf("%w: move the API with --api-port", err)}
	}
	return err
}

// untilReady asks until the answer is yes or ctx ends.
func untilReady(ctx context.Context, ready func(context.Context) bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ready(ctx) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// greeting tells visitors whose connection is not a stranger's.
func greeting(visitors *crowd.Crowd, next authenticator.Request) authenticator.Request {
	return authenticator.RequestFunc(func(req *http.Request) (*authenticator.Response, bool, error) {
		who, ok, err := next.AuthenticateRequest(req)
		if ok && err == nil && who.User.GetName() != user.Anonymous {
			visitors.Known(req.RemoteAddr)
		}
		return who, ok, err
	})
}
