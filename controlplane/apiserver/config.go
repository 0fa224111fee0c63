package apiserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	x509request "k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	restclient "k8s.io/client-go/rest"
	"k8s.io/kube-openapi/pkg/common"
)

// Config is what differs from cluster to cluster.
type Config struct {
	Listen    string // host:port to bind
	Advertise string // IP address under which pods and nodes reach this server

	// PEM files; all three are read again when they change.
	ClientCA    string
	ServingCert string
	ServingKey  string

	ServiceCIDR   netip.Prefix // cluster IPs; the first is the API's own
	NodePortFirst uint16
	NodePortLast  uint16

	// SecretsKey is a file with the key that Secrets are encrypted with at rest;
	// it is made when missing. Empty means Secrets are stored in the clear.
	SecretsKey string

	// Bound bounds the connections of a listener; nil: any number.
	Bound func(net.Listener) net.Listener

	MaxReads        int // requests in flight, beyond that 429
	MaxWrites       int
	RequestTimeout  time.Duration
	ShutdownTimeout time.Duration // for requests in flight when Run ends
}

// Default is a server on all addresses without certificates.
func Default() Config {
	return Config{
		Listen:        "0.0.0.0:6443",
		ServiceCIDR:   netip.MustParsePrefix("10.43.0.0/16"),
		NodePortFirst: 30000, NodePortLast: 32767,
		MaxReads: 800, MaxWrites: 400,
		RequestTimeout: time.Minute, ShutdownTimeout: 5 * time.Second,
	}
}

// Validate returns all problems at once.
func (c Config) Validate() error {
	var errs []error
	if _, _, err := c.listen(); err != nil {
		errs = append(errs, err)
	}
	if a, err := netip.ParseAddr(c.Advertise); err != nil || a.IsUnspecified() {
		errs = append(errs, fmt.Errorf("apiserver: advertised address %q is not an IP address", c.Advertise))
	}
	for _, f := range [][2]string{{"client CA", c.ClientCA}, {"serving certificate", c.ServingCert}, {"serving key", c.ServingKey}} {
		if f[1] == "" {
			errs = append(errs, fmt.Errorf("apiserver: %s is not given", f[0]))
		}
	}
	if !c.ServiceCIDR.IsValid() || !c.ServiceCIDR.Addr().Is4() || c.ServiceCIDR.Bits() > 28 || c.ServiceCIDR.Bits() < 8 {
		errs = append(errs, fmt.Errorf("apiserver: service range %s is not an IPv4 prefix of /8 to /28", c.ServiceCIDR))
	}
	if c.NodePortFirst == 0 || c.NodePortFirst > c.NodePortLast {
		errs = append(errs, fmt.Errorf("apiserver: node ports %d-%d are not a range", c.NodePortFirst, c.NodePortLast))
	}
	if c.MaxReads <= 0 || c.MaxWrites <= 0 || c.RequestTimeout <= 0 || c.ShutdownTimeout <= 0 {
		errs = append(errs, errors.New("apiserver: limits and timeouts must be positive"))
	}
	return errors.Join(errs...)
}

func (c Config) listen() (net.IP, int, error) {
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return nil, 0, fmt.Errorf("apiserver: listen address: %w", err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, 0, fmt.Errorf("apiserver: listen port %q: %w", port, err)
	}
	if host == "" {
		host = "0.0.0.0"
	}
	ip := net.ParseIP(host)
	if ip == nil {
		return nil, 0, fmt.Errorf("apiserver: listen address %q is not an IP address", host)
	}
	return ip, int(n), nil
}

// Parts is what a collaborator may build on. The client and the informers work
// once Run serves; listers may be taken from the informers before.
type Parts struct {
	Loopback     *restclient.Config // protobuf, no client-side rate limit, system:masters
	Client       kubernetes.Interface
	Dynamic      dynamic.Interface
	Informers    informers.SharedInformerFactory
	VerifyClient x509request.VerifyOptionFunc // by Config.ClientCA as it is now
	Authorizer   authorizer.Authorizer        // nil while it is being made
}

// Collaborators are the parts of the server that others write. Functions are
// called once, inside New, in the order of the fields.
type Collaborators struct {
	Authenticator func(Parts) (authenticator.Request, error)
	// Front is asked before who asks is known; nil: nothing is. It answers itself or
	// calls what it was given.
	Front      func(http.Handler) http.Handler
	Authorizer func(Parts) (authorizer.Authorizer, authorizer.RuleResolver, error)
	// Tokens is the storage of serviceaccounts/token; nil leaves it out.
	Tokens    func(Parts) (rest.Storage, error)
	Admission Admission
	Audit     Audit
	// Kubelet is the TLS client configuration towards the agents.
	Kubelet *tls.Config
	Groups  []Group
	// Handlers are further paths behind authentication and authorization.
	Handlers func(Parts) (map[string]http.Handler, error)
	// PostStart functions run once the server answers. They must return soon;
	// ctx ends with the server. An error ends the process.
	PostStart map[string]func(ctx context.Context, p Parts) error
}

// Audit takes the events of the requests that the policy chooses, before the
// request is answered: it must not wait. Without a sink there are none.
type Audit struct {
	Policy audit.PolicyRuleEvaluator
	Sink   audit.Sink
}

// auditBackend is a sink whose life is not the server's.
type auditBackend struct{ audit.Sink }

func (auditBackend) Run(<-chan struct{}) error { return nil }
func (auditBackend) Shutdown()                 {}
func (auditBackend) String() string            { return "perch" }

// Admission adds plugins to those of the library (namespace life cycle, webhooks,
// policies). Order names all of them; nil keeps the library's order.
type Admission struct {
	Register     func(*admission.Plugins)
	Order        []string
	Initializers func(Parts) ([]admission.PluginInitializer, error)
}

// Group is a further API group that is served from this process, such as
// metrics.k8s.io. Its Go types are their own internal types.
type Group struct {
	schema.GroupVersion
	AddToScheme func(*runtime.Scheme) error
	OpenAPI     common.GetOpenAPIDefinitions // nil when openapi_gen.go has the types
	Storage     func(Parts) (map[string]rest.Storage, error)

	// Handler serves all paths of the version itself, where resources are not
	// known beforehand; the fields above are nil then.
	Handler func(Parts) (http.Handler, error)
}
