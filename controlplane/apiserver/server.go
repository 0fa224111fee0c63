package apiserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	apiextensionsapiserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/admission"
	webhookinit "k8s.io/apiserver/pkg/admission/plugin/webhook/initializer"
	apiserverapi "k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/request/anonymous"
	"k8s.io/apiserver/pkg/authentication/request/union"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/path"
	authzunion "k8s.io/apiserver/pkg/authorization/union"
	"k8s.io/apiserver/pkg/endpoints/discovery"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	genericfilters "k8s.io/apiserver/pkg/server/filters"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/pkg/util/compatibility"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	restclient "k8s.io/client-go/rest"
	"k8s.io/kube-openapi/pkg/common"

	"perch/controlplane/api"
	"perch/controlplane/api/legal"
	"perch/controlplane/apiserver/openapi"
	"perch/controlplane/store"
)

// Server is the cluster's API.
type Server struct {
	cfg     Config
	parts   Parts
	front   *genericapiserver.GenericAPIServer
	crds    *apiextensionsapiserver.CustomResourceDefinitions
	install *installer
	groups  *extensionGroups
	self    *self
	log     *slog.Logger
}

// New builds the server; nothing listens for requests until Run.
func New(cfg Config, with Collaborators, objects *store.Store, log *slog.Logger, reg prometheus.Registerer) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, log: log}
	var types []legal.AddToScheme
	for _, g := range with.Groups {
		if g.AddToScheme != nil {
			types = append(types, legal.AddToScheme(g.AddToScheme))
		}
	}
	rules, err := legal.New(types...)
	if err != nil {
		return nil, fmt.Errorf("build api server: %w", err)
	}
	secrets, err := secretsTransformer(cfg.SecretsKey)
	if err != nil {
		return nil, fmt.Errorf("build api server: %w", err)
	}
	storage := &storageOptions{rules: rules, objects: objects, secrets: secrets}
	gc, err := s.genericConfig(rules, storage, with)
	if err != nil {
		return nil, fmt.Errorf("build api server: %w", err)
	}
	resolver, err := s.secure(gc, with)
	if err != nil {
		return nil, fmt.Errorf("build api server: %w", err)
	}
	if s.crds, err = newExtensions(*gc, s.parts.Informers, storage); err != nil {
		return nil, fmt.Errorf("build api server: %w", err)
	}
	if s.front, err = gc.Complete(s.parts.Informers).New("perch", s.crds.GenericAPIServer); err != nil {
		return nil, fmt.Errorf("build api server: %w", err)
	}
	s.front.ShutdownTimeout = cfg.ShutdownTimeout

	s.install = &installer{
		rules: rules, options: storage, agents: newAgents(with.Kubelet),
		services: newAllocator(objects.Client(), cfg.ServiceCIDR, cfg.NodePortFirst, cfg.NodePortLast, log),
		stores:   map[schema.GroupResource]*genericregistry.Store{},
		served:   map[schema.GroupVersion]map[string]rest.Storage{},
	}
	if with.Tokens != nil {
		if s.install.tokens, err = with.Tokens(s.parts); err != nil {
			return nil, fmt.Errorf("build api server: tokens: %w", err)
		}
	}
	if err := s.install.install(api.Kinds()); err != nil {
		return nil, fmt.Errorf("build api server: %w", err)
	}
	s.install.addReviews(gc.Authentication.Authenticator, gc.Authorization.Authorizer, resolver)
	for _, g := range with.Groups {
		if g.Handler != nil {
			continue
		}
		served, err := g.Storage(s.parts)
		if err != nil {
			return nil, fmt.Errorf("build api server: group %s: %w", g.GroupVersion, err)
		}
		for name, st := range served {
			s.install.add1(g.GroupVersion, name, st)
		}
	}
	if err := s.serveGroups(); err != nil {
		return nil, fmt.Errorf("build api server: %w", err)
	}
	if err := s.serveHandled(with.Groups); err != nil {
		return nil, fmt.Errorf("build api server: %w", err)
	}
	if err := s.addHooks(with); err != nil {
		return nil, fmt.Errorf("build api server: %w", err)
	}
	_, port, err := cfg.listen()
	if err != nil {
		return nil, err
	}
	s.self = &self{
		client: s.parts.Client, ip: cfg.ServiceCIDR.Masked().Addr().Next(), address: netip.MustParseAddr(cfg.Advertise), port: port, log: log,
	}
	registerMetrics(reg, s)
	return s, nil
}

// genericConfig is the library's configuration without identity and admission.
func (s *Server) genericConfig(rules *legal.Rules, storage *storageOptions, with Collaborators) (*genericapiserver.Config, error) {
	cfg := s.cfg
	gc := genericapiserver.NewConfig(rules.Codecs)
	gc.EffectiveVersion = reportedVersion{compatibility.DefaultBuildEffectiveVersion()}
	gc.LongRunningFunc = genericfilters.BasicLongRunningRequestCheck(sets.NewString("watch", "proxy"), sets.NewString("attach", "exec", "proxy", "log", "portforward"))
	gc.MaxRequestsInFlight, gc.MaxMutatingRequestsInFlight = cfg.MaxReads, cfg.MaxWrites
	gc.RequestTimeout = cfg.RequestTimeout
	gc.ShutdownWatchTerminationGracePeriod = time.Second // tells watches to end; clients resume elsewhere or later
	gc.AggregatedDiscoveryGroupManager = aggregated.NewResourceManager("apis")
	gc.RESTOptionsGetter = storage
	if with.Audit.Sink != nil {
		gc.AuditPolicyRuleEvaluator, gc.AuditBackend = with.Audit.Policy, auditBackend{with.Audit.Sink}
	}
	definitions := openapi.GetOpenAPIDefinitions
	for _, g := range with.Groups {
		if g.OpenAPI != nil {
			definitions = joinDefinitions(definitions, g.OpenAPI)
		}
	}
	namer := openapinamer.NewDefinitionNamer(rules.Scheme, clientscheme.Scheme, apiextensionsapiserver.Scheme)
	gc.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(definitions, namer)
	gc.OpenAPIConfig.Info.Title = "perch"
	gc.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(definitions, namer)
	gc.OpenAPIV3Config.Info.Title = "perch"

	ip, port, err := cfg.listen()
	if err != nil {
		return nil, err
	}
	serving := options.NewSecureServingOptions()
	serving.BindAddress, serving.BindPort = ip, port
	serving.ServerCert.CertKey = options.CertKey{CertFile: cfg.ServingCert, KeyFile: cfg.ServingKey}
	if err := serving.WithLoopback().ApplyToConfig(gc); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", cfg.Listen, err)
	}
	if cfg.Bound != nil {
		gc.SecureServing.Listener = cfg.Bound(gc.SecureServing.Listener)
	}
	lc := gc.LoopbackClientConfig
	lc.QPS, lc.Burst = -1, 0
	lc.WarningHandler = restclient.NoWarnings{} // they are for people
	lc.ContentType = runtime.ContentTypeProtobuf
	lc.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	client, err := kubernetes.NewForConfig(lc)
	if err != nil {
		return nil, fmt.Errorf("build loopback client: %w", err)
	}
	dyn, err := dynamic.NewForConfig(lc)
	if err != nil {
		return nil, fmt.Errorf("build loopback client: %w", err)
	}
	s.parts = Parts{Loopback: lc, Client: client, Dynamic: dyn, Informers: informers.NewSharedInformerFactory(client, 0)}
	return gc, nil
}

func joinDefinitions(a, b common.GetOpenAPIDefinitions) common.GetOpenAPIDefinitions {
	return func(ref common.ReferenceCallback) map[string]common.OpenAPIDefinition {
		out := a(ref)
		maps.Copy(out, b(ref))
		return out
	}
}

// healthPaths answer without credentials, so that a load balancer can ask.
func healthPaths() []string { return []string{"/livez", "/readyz", "/healthz"} }

// secure fills in who may ask for what, and what a write must look like.
func (s *Server) secure(gc *genericapiserver.Config, with Collaborators) (authorizer.RuleResolver, error) {
	ca, err := (&options.ClientCertAuthenticationOptions{ClientCA: s.cfg.ClientCA}).GetClientCAContentProvider()
	if err != nil {
		return nil, fmt.Errorf("read client CA: %w", err)
	}
	if err := gc.Authentication.ApplyClientCert(ca, gc.SecureServing); err != nil {
		return nil, fmt.Errorf("use client CA: %w", err)
	}
	s.parts.VerifyClient = ca.VerifyOptions

	if with.Authenticator == nil || with.Authorizer == nil {
		return nil, errors.New("an authenticator and an authorizer are needed")
	}
	who, err := with.Authenticator(s.parts)
	if err != nil {
		return nil, fmt.Errorf("authenticator: %w", err)
	}
	var open []apiserverapi.AnonymousAuthCondition
	var paths []string
	for _, p := range healthPaths() {
		open = append(open, apiserverapi.AnonymousAuthCondition{Path: p})
		paths = append(paths, p, p+"/*")
	}
	gc.Authentication.Authenticator = union.NewFailOnError(who, anonymous.NewAuthenticator(open))
	if with.Front != nil {
		gc.BuildHandlerChainFunc = func(h http.Handler, c *genericapiserver.Config) http.Handler {
			return with.Front(genericapiserver.DefaultBuildHandlerChain(h, c))
		}
	}

	may, resolver, err := with.Authorizer(s.parts)
	if err != nil {
		return nil, fmt.Errorf("authorizer: %w", err)
	}
	health, err := path.NewAuthorizer(paths)
	if err != nil {
		return nil, fmt.Errorf("authorizer of health paths: %w", err)
	}
	gc.Authorization.Authorizer = authzunion.New(health, may)
	gc.RuleResolver = resolver
	s.parts.Authorizer = gc.Authorization.Authorizer

	ao := options.NewAdmissionOptions()
	if with.Admission.Register != nil {
		with.Admission.Register(ao.Plugins)
	}
	if with.Admission.Order != nil {
		ao.RecommendedPluginOrder = with.Admission.Order
	}
	var more []admission.PluginInitializer
	if with.Admission.Initializers != nil {
		if more, err = with.Admission.Initializers(s.parts); err != nil {
			return nil, fmt.Errorf("admission: %w", err)
		}
	}
	services, err := newServiceResolver(s.parts.Informers)
	if err != nil {
		return nil, fmt.Errorf("admission: %w", err)
	}
	more = append(more, webhookinit.NewPluginInitializer(nil, services))
	if err := ao.ApplyTo(gc, s.parts.Informers, s.parts.Client, s.parts.Dynamic, utilfeature.DefaultFeatureGate, gc.EffectiveVersion, more...); err != nil {
		return nil, fmt.Errorf("admission: %w", err)
	}
	return resolver, nil
}

// serveGroups tells the library what was installed, a group with all its
// versions at a time.
func (s *Server) serveGroups() error {
	rules := s.install.rules
	infos := map[string]*genericapiserver.APIGroupInfo{}
	var order []*genericapiserver.APIGroupInfo
	for _, gv := range s.install.order {
		info := infos[gv.Group]
		if info == nil {
			i := genericapiserver.NewDefaultAPIGroupInfo(gv.Group, rules.Scheme, rules.ParameterCodec, rules.Codecs)
			info, infos[gv.Group] = &i, &i
			info.PrioritizedVersions = nil
			order = append(order, info)
		}
		info.PrioritizedVersions = append(info.PrioritizedVersions, gv)
		info.VersionedResourcesStorageMap[gv.Version] = s.install.served[gv]
	}
	var named []*genericapiserver.APIGroupInfo
	for _, info := range order {
		if info.PrioritizedVersions[0].Group != "" {
			named = append(named, info)
			continue
		}
		if err := s.front.InstallLegacyAPIGroup(genericapiserver.DefaultLegacyAPIPrefix, info); err != nil {
			return fmt.Errorf("install core group: %w", err)
		}
	}
	if err := s.front.InstallAPIGroups(named...); err != nil {
		return fmt.Errorf("install groups: %w", err)
	}
	return nil
}

// serveHandled serves and lists the groups that have a handler of their own.
func (s *Server) serveHandled(all []Group) error {
	groups := map[string]metav1.APIGroup{}
	for _, g := range all {
		if g.Handler == nil {
			continue
		}
		h, err := g.Handler(s.parts)
		if err != nil {
			return fmt.Errorf("group %s: %w", g.GroupVersion, err)
		}
		root := "/apis/" + g.GroupVersion.String()
		s.front.Handler.NonGoRestfulMux.Handle(root, h)
		s.front.Handler.NonGoRestfulMux.HandlePrefix(root+"/", h)
		s.front.AggregatedDiscoveryGroupManager.AddGroupVersion(g.Group, apidiscoveryv2.APIVersionDiscovery{Version: g.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent})
		listed := groups[g.Group]
		listed.Name = g.Group
		listed.Versions = append(listed.Versions, metav1.GroupVersionForDiscovery{GroupVersion: g.GroupVersion.String(), Version: g.Version})
		listed.PreferredVersion = listed.Versions[0]
		groups[g.Group] = listed
	}
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		s.front.DiscoveryGroupManager.AddGroup(groups[name])
		s.front.Handler.NonGoRestfulMux.Handle("/apis/"+name, discovery.NewAPIGroupHandler(s.front.Serializer, groups[name]))
	}
	return nil
}

func (s *Server) addHooks(with Collaborators) error {
	if with.Handlers != nil {
		handlers, err := with.Handlers(s.parts)
		if err != nil {
			return fmt.Errorf("handlers: %w", err)
		}
		for _, p := range slices.Sorted(maps.Keys(handlers)) {
			s.front.Handler.NonGoRestfulMux.Handle(p, handlers[p])
		}
	}
	etcd := healthz.NamedCheck("etcd", func(r *http.Request) error { return s.pingStore(r.Context()) })
	if err := s.front.AddHealthChecks(etcd); err != nil {
		return fmt.Errorf("add health check: %w", err)
	}
	own := map[string]bool{}
	for _, gv := range s.install.order {
		own[gv.Group] = true
	}
	var err error
	if s.groups, err = newExtensionGroups(s.front, s.crds.Informers, own); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(with.PostStart)) {
		f := with.PostStart[name]
		err := s.front.AddPostStartHook(name, func(h genericapiserver.PostStartHookContext) error { return f(h, s.parts) })
		if err != nil {
			return fmt.Errorf("add hook %s: %w", name, err)
		}
	}
	// Others wait for the system namespaces; the hook is not done before they exist.
	return s.front.AddPostStartHook("perch-own-objects", func(h genericapiserver.PostStartHookContext) error {
		if err := s.self.repair(h); err != nil && h.Err() == nil {
			s.log.Warn("own objects were not created at once", "err", err)
		}
		return nil
	})
}

func (s *Server) pingStore(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if _, err := s.install.services.etcd.Get(ctx, "/perch/health"); err != nil {
		return errors.New("etcd does not answer")
	}
	return nil
}

// LoopbackConfig is a client configuration for parts in this process: protobuf,
// no rate limit, every right. It works while Run serves.
func (s *Server) LoopbackConfig() *restclient.Config { return restclient.CopyConfig(s.parts.Loopback) }

// Informers are shared by everything in this process. They start with Run; a
// part that asks for further kinds later calls Start on them itself.
func (s *Server) Informers() informers.SharedInformerFactory { return s.parts.Informers }

// Client is the loopback client.
func (s *Server) Client() kubernetes.Interface { return s.parts.Client }

// Run serves until ctx ends, then finishes what is in flight. It returns once
// nothing uses the store any more.
func (s *Server) Run(ctx context.Context) error {
	if err := repairClaims(ctx, s.install.services, s.install.stores[schema.GroupResource{Resource: "services"}], s.log); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("run api server: %w", err)
	}
	prepared := s.front.PrepareRun()
	inner, stop := context.WithCancel(ctx)
	var loops sync.WaitGroup
	loops.Go(func() { serveSchemas(s.front, s.crds.Informers, inner.Done()) })
	loops.Go(func() { serveOldSchemas(s.front, s.crds.Informers, inner.Done()) })
	loops.Go(func() { s.groups.run(inner.Done()) })
	loops.Go(func() {
		if waitReady(inner, s.parts.Client) {
			s.self.run(inner)
		}
	})
	err := prepared.RunWithContext(ctx)
	stop()
	loops.Wait()
	s.front.Destroy()
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("run api server: %w", err)
	}
	return nil
}

// Ready answers whether the server is up, hooks included.
func (s *Server) Ready(ctx context.Context) bool { return isReady(ctx, s.parts.Client) }

func isReady(ctx context.Context, client kubernetes.Interface) bool {
	body, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
	return err == nil && string(body) == "ok"
}

// waitReady asks every few milliseconds at first: the start is short.
func waitReady(ctx context.Context, client kubernetes.Interface) bool {
	wait := time.NewTimer(0)
	defer wait.Stop()
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		select {
		case <-ctx.Done():
			return false
		case <-wait.C:
		}
		if isReady(ctx, client) {
			return true
		}
		wait.Reset(pause)
	}
}
