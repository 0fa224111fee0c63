package sign

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	certificateslisters "k8s.io/client-go/listers/certificates/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"perch/controlplane/auth/node"
	"perch/controlplane/auth/pki"
	"perch/controlplane/auth/token"
)

// Config bounds what is signed.
type Config struct {
	Lifetime time.Duration // of a certificate, at most
	Sweep    time.Duration // between looks at old requests and spent tokens
	// Reserved are addresses and names that no node may have in a certificate, and
	// whose they are: "10.43.0.1": "the API".
	Reserved map[string]string
}

// Default is a year, and a look every 15 seconds.
func Default() Config {
	return Config{Lifetime: 365 * 24 * time.Hour, Sweep: 15 * time.Second}
}

// Controller approves and signs.
type Controller struct {
	cfg       Config
	client    kubernetes.Interface
	authority *pki.Authority
	requests  certificateslisters.CertificateSigningRequestLister
	informer  cache.SharedIndexInformer
	nodes     corelisters.NodeLister
	nodeInfo  cache.SharedIndexInformer
	log       *slog.Logger
	acts      *prometheus.CounterVec
	queue     workqueue.TypedRateLimitingInterface[string] // at most one entry per request
	now       func() time.Time
}

// New must be called before the informers start.
func New(cfg Config, client kubernetes.Interface, f informers.SharedInformerFactory, authority *pki.Authority, log *slog.Logger, reg prometheus.Registerer) *Controller {
	requests, nodes := f.Certificates().V1().CertificateSigningRequests(), f.Core().V1().Nodes()
	c := &Controller{
		cfg: cfg, client: client, authority: authority, log: log, now: time.Now,
		requests: requests.Lister(), informer: requests.Informer(), nodes: nodes.Lister(), nodeInfo: nodes.Informer(),
		acts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "perch_sign_requests_total", Help: "Acts on certificate signing requests by kind.",
		}, []string{"act"}),
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]()),
	}
	length := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "perch_sign_queue_length", Help: "Requests that wait to be looked at; never more than there are requests.",
	}, func() float64 { return float64(c.queue.Len()) })
	reg.MustRegister(c.acts, length)
	return c
}

// Run works until ctx ends. One worker: a join token is never looked at twice at
// the same time.
func (c *Controller) Run(ctx context.Context) error {
	defer c.queue.ShutDown()
	registration, err := c.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: c.enqueue, UpdateFunc: func(_, now any) { c.enqueue(now) },
	})
	if err != nil {
		return fmt.Errorf("watch signing requests: %w", err)
	}
	defer func() { _ = c.informer.RemoveEventHandler(registration) }() // the informer may be stopped already
	if !cache.WaitForCacheSync(ctx.Done(), registration.HasSynced, c.nodeInfo.HasSynced) {
		return nil
	}
	worker := make(chan struct{})
	go func() {
		defer close(worker)
		for c.next(ctx) {
		}
	}()
	defer func() { c.queue.ShutDown(); <-worker }()
	tick := time.NewTicker(c.cfg.Sweep)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			c.sweep(ctx)
		}
	}
}

// sweep looks at all requests again, since they grow old, and at the join tokens.
func (c *Controller) sweep(ctx context.Context) {
	all, err := c.requests.List(labels.Everything())
	if err != nil {
		c.log.Warn("signing requests not listed", "err", err)
	}
	for _, csr := range all {
		c.enqueue(csr)
	}
	joins, err := token.Joins(ctx, c.client)
	if err != nil {
		c.log.Warn("join tokens not listed", "err", err)
		return
	}
	for i := range joins {
		if err := c.settle(ctx, &joins[i]); err != nil && !apierrors.IsConflict(err) && ctx.Err() == nil {
			c.log.Warn("join token not settled", "err", err)
		}
	}
}

func (c *Controller) settle(ctx context.Context, secret *corev1.Secret) error {
	spend, remove, reason := token.Spent(c.now(), secret)
	id := string(secret.Data["token-id"])
	switch {
	case spend:
		if err := token.SpendJoin(ctx, c.client, c.now(), secret); err != nil {
			return err
		}
		c.log.Info("join token spent", "token", id, "reason", reason)
	case remove:
		if err := token.DeleteJoin(ctx, c.client, id); err != nil {
			return err
		}
		c.log.Info("join token removed", "token", id, "reason", reason)
	}
	return nil
}

func (c *Controller) enqueue(object any) {
	if key, err := cache.MetaNamespaceKeyFunc(object); err == nil {
		c.queue.Add(key)
	}
}

func (c *Controller) next(ctx context.Context) bool {
	name, down := c.queue.Get()
	if down {
		return false
	}
	defer c.queue.Done(name)
	err := c.step(ctx, name)
	switch {
	case err == nil:
		c.queue.Forget(name)
	case ctx.Err() != nil:
	default:
		if !apierrors.IsConflict(err) {
			c.acts.WithLabelValues("error").Inc()
			c.log.Warn("signing request not settled", "request", name, "err", err)
		}
		c.queue.AddRateLimited(name)
	}
	return true
}

func (c *Controller) step(ctx context.Context, name string) error {
	csr, err := c.requests.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("get signing request %s: %w", name, err)
	}
	facts, err := c.facts(csr)
	if err != nil {
		return err
	}
	decision := Decide(c.now(), csr, facts)
	switch decision.Act {
	case Deny:
		return c.condition(ctx, csr, certificatesv1.CertificateDenied, decision.Reason)
	case Approve:
		return c.approve(ctx, csr, decision)
	case Sign:
		return c.sign(ctx, csr, decision)
	case Forget:
		c.acts.WithLabelValues("forget").Inc()
		err := c.client.CertificatesV1().CertificateSigningRequests().Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &csr.UID}})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete signing request %s: %w", name, err)
		}
	}
	return nil
}

// facts are those about the requesting node, if it is one.
func (c *Controller) facts(csr *certificatesv1.CertificateSigningRequest) (Facts, error) {
	facts := Facts{Longest: c.cfg.Lifetime}
	name, ok := node.NameOf(&user.DefaultInfo{Name: csr.Spec.Username, Groups: csr.Spec.Groups})
	if _, joins := joining(csr); joins {
		if want, err := parse(csr.Spec.Request); err == nil { // else Decide says why
			name, ok = node.NameOf(&user.DefaultInfo{Name: want.Subject.CommonName, Groups: want.Subject.Organization})
		}
	}
	if !ok {
		return facts, nil
	}
	all, err := c.nodes.List(labels.Everything())
	if err != nil {
		return facts, fmt.Errorf("list nodes: %w", err)
	}
	facts.Taken = Taken(name, all, c.cfg.Reserved)
	for _, n := range all {
		if n.Name == name {
			facts.Node = n
		}
	}
	return facts, nil
}

// approve claims the join token first: who comes second is denied, and a crash
// in between leaves a claim that the same request may make again.
func (c *Controller) approve(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, d Decision) error {
	if d.Claim != "" {
		key, err := keyHash(csr)
		if err != nil {
			return err
		}
		err = token.ClaimJoin(ctx, c.client, d.Claim, d.Node, key, c.now())
		if errors.Is(err, token.ErrClaimed) {
			return c.condition(ctx, csr, certificatesv1.CertificateDenied, err.Error()+"; make another with `perch node token`")
		}
		if err != nil {
			return err
		}
	}
	return c.condition(ctx, csr, certificatesv1.CertificateApproved, d.Reason)
}

func (c *Controller) condition(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType, reason string) error {
	update, now := csr.DeepCopy(), metav1.NewTime(c.now())
	update.Status.Conditions = append(update.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: kind, Status: corev1.ConditionTrue, Reason: "Perch" + string(kind), Message: reason, LastUpdateTime: now, LastTransitionTime: now,
	})
	if _, err := c.client.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, csr.Name, update, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("set condition %s of signing request %s: %w", kind, csr.Name, err)
	}
	c.acts.WithLabelValues(string(kind)).Inc()
	c.log.Info("signing request decided", "request", csr.Name, "user", csr.Spec.Username, "decision", string(kind), "reason", reason)
	return nil
}

func (c *Controller) sign(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, d Decision) error {
	request, err := parse(csr.Spec.Request)
	if err != nil {
		return err
	}
	certificate, err := c.authority.Sign(c.now(), d.Request, request.PublicKey)
	if err != nil {
		return err
	}
	update := csr.DeepCopy()
	update.Status.Certificate = certificate
	if _, err := c.client.CertificatesV1().CertificateSigningRequests().UpdateStatus(ctx, update, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("store certificate of signing request %s: %w", csr.Name, err)
	}
	c.acts.WithLabelValues("Signed").Inc()
	c.log.Info("certificate signed", "request", csr.Name, "subject", d.Request.CommonName)
	return nil
}

// keyHash names the key that a request is for.
func keyHash(csr *certificatesv1.CertificateSigningRequest) (string, error) {
	block, _ := pem.Decode(csr.Spec.Request)
	if block == nil {
		return "", fmt.Errorf("read signing request %s: no PEM block", csr.Name)
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return "", fmt.Errorf("read signing request %s: %w", csr.Name, err)
	}
	sum := sha256.Sum256(request.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:]), nil
}
