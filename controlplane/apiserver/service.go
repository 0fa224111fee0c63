package apiserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/util/dryrun"
)

func serviceFields(s *corev1.Service) fields.Set {
	return fields.Set{"spec.clusterIP": s.Spec.ClusterIP, "spec.type": string(s.Spec.Type)}
}

// hasClusterIP tells whether a type of service carries a cluster IP.
func hasClusterIP(t corev1.ServiceType) bool { return t != corev1.ServiceTypeExternalName }

func hasNodePorts(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeNodePort ||
		s.Spec.Type == corev1.ServiceTypeLoadBalancer && (s.Spec.AllocateLoadBalancerNodePorts == nil || *s.Spec.AllocateLoadBalancerNodePorts)
}

func needsHealthPort(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// updateService carries over what the server chose, so that a client may replace
// a service without repeating it, and drops what a change of type makes void.
func updateService(_ context.Context, s, old *corev1.Service) {
	if hasClusterIP(s.Spec.Type) && hasClusterIP(old.Spec.Type) {
		if s.Spec.ClusterIP == "" && len(s.Spec.ClusterIPs) == 0 {
			s.Spec.ClusterIP, s.Spec.ClusterIPs = old.Spec.ClusterIP, old.Spec.ClusterIPs
		}
		if s.Spec.IPFamilies == nil {
			s.Spec.IPFamilies, s.Spec.IPFamilyPolicy = old.Spec.IPFamilies, old.Spec.IPFamilyPolicy
		}
	}
	normalizeIPs(s, old)
	if hasNodePorts(s) && hasNodePorts(old) {
		chosen := map[string]int32{}
		for _, p := range old.Spec.Ports {
			chosen[portKey(p)] = p.NodePort
		}
		for i := range s.Spec.Ports {
			if p := &s.Spec.Ports[i]; p.NodePort == 0 {
				p.NodePort = chosen[portKey(*p)]
			}
		}
	}
	if needsHealthPort(s) && needsHealthPort(old) && s.Spec.HealthCheckNodePort == 0 {
		s.Spec.HealthCheckNodePort = old.Spec.HealthCheckNodePort
	}
	dropVoid(s, old)
}

func portKey(p corev1.ServicePort) string { return fmt.Sprintf("%s/%d", p.Protocol, p.Port) }

// normalizeIPs keeps the single and the plural field equal, whichever the client
// wrote.
func normalizeIPs(s, old *corev1.Service) {
	switch {
	case old == nil || s.Spec.ClusterIP == old.Spec.ClusterIP && len(s.Spec.ClusterIPs) > 0:
		if s.Spec.ClusterIP != "" && len(s.Spec.ClusterIPs) == 0 {
			s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
		} else if s.Spec.ClusterIP == "" && len(s.Spec.ClusterIPs) > 0 && old == nil {
			s.Spec.ClusterIP = s.Spec.ClusterIPs[0]
		}
	case s.Spec.ClusterIP == "":
		if slices.Equal(s.Spec.ClusterIPs, old.Spec.ClusterIPs) {
			s.Spec.ClusterIPs = nil
		}
	case slices.Equal(s.Spec.ClusterIPs, old.Spec.ClusterIPs):
		s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	}
}

// dropVoid removes what belonged to the old type, unless the client set it anew.
func dropVoid(s, old *corev1.Service) {
	if hasClusterIP(old.Spec.Type) && !hasClusterIP(s.Spec.Type) {
		if s.Spec.ClusterIP == old.Spec.ClusterIP {
			s.Spec.ClusterIP, s.Spec.ClusterIPs = "", nil
		}
		s.Spec.IPFamilies, s.Spec.IPFamilyPolicy, s.Spec.InternalTrafficPolicy = nil, nil, nil
	}
	if hasNodePorts(old) && !hasNodePorts(s) {
		chosen := map[int32]bool{}
		for _, p := range old.Spec.Ports {
			chosen[p.NodePort] = true
		}
		for i := range s.Spec.Ports {
			if chosen[s.Spec.Ports[i].NodePort] {
				s.Spec.Ports[i].NodePort = 0
			}
		}
	}
	if needsHealthPort(old) && !needsHealthPort(s) && s.Spec.HealthCheckNodePort == old.Spec.HealthCheckNodePort {
		s.Spec.HealthCheckNodePort = 0
	}
	external := func(o *corev1.Service) bool {
		return o.Spec.Type == corev1.ServiceTypeNodePort || o.Spec.Type == corev1.ServiceTypeLoadBalancer || len(o.Spec.ExternalIPs) > 0
	}
	if external(old) && !external(s) && s.Spec.ExternalTrafficPolicy == old.Spec.ExternalTrafficPolicy {
		s.Spec.ExternalTrafficPolicy = ""
	}
	if old.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		s.Spec.AllocateLoadBalancerNodePorts, s.Spec.LoadBalancerClass = nil, nil
		s.Status.LoadBalancer = corev1.LoadBalancerStatus{}
	}
}

func serviceStatus(_ context.Context, _, _ *corev1.Service) {}

// serviceParts makes the store claim addresses and ports before it writes a
// service, and free them after.
func serviceParts(i *installer, store *genericregistry.Store, parts map[string]rest.Storage) {
	owner := func(s *corev1.Service) string { return string(s.UID) }
	store.BeginCreate = func(ctx context.Context, o runtime.Object, options *metav1.CreateOptions) (genericregistry.FinishFunc, error) {
		s := o.(*corev1.Service)
		normalizeIPs(s, nil)
		return i.services.assign(ctx, s, nil, owner(s), dryrun.IsDryRun(options.DryRun))
	}
	store.BeginUpdate = func(ctx context.Context, o, old runtime.Object, options *metav1.UpdateOptions) (genericregistry.FinishFunc, error) {
		s, was := o.(*corev1.Service), old.(*corev1.Service)
		// The strategy prepares the object only after this hook; what it would
		// carry over must be known here. Doing it twice changes nothing.
		updateService(ctx, s, was)
		return i.services.assign(ctx, s, was, owner(was), dryrun.IsDryRun(options.DryRun))
	}
	store.AfterDelete = func(o runtime.Object, options *metav1.DeleteOptions) {
		if s := o.(*corev1.Service); !dry(options) {
			i.services.release(context.Background(), claimed(s), nil, owner(s))
		}
	}
	proxy := &proxyREST{options: func() runtime.Object { return &corev1.ServiceProxyOptions{} }}
	proxy.target = func(ctx context.Context, id string) (*url.URL, http.RoundTripper, error) {
		return serviceProxyTarget(store, i.stores[schema.GroupResource{Group: "discovery.k8s.io", Resource: "endpointslices"}])(ctx, id)
	}
	parts["services/proxy"] = proxy
}

// claim is one value of a pool.
type claim struct {
	port  bool
	value string
}

func (a *allocator) poolOf(c claim) pool {
	if c.port {
		return a.ports
	}
	return a.ips
}

// claimed lists what a service holds.
func claimed(s *corev1.Service) []claim {
	var out []claim
	if hasClusterIP(s.Spec.Type) {
		for _, ip := range s.Spec.ClusterIPs {
			if ip != corev1.ClusterIPNone && ip != "" {
				out = append(out, claim{value: ip})
			}
		}
	}
	seen := map[int32]bool{0: true}
	for _, p := range s.Spec.Ports {
		if !seen[p.NodePort] {
			seen[p.NodePort] = true
			out = append(out, claim{port: true, value: strconv.Itoa(int(p.NodePort))})
		}
	}
	if !seen[s.Spec.HealthCheckNodePort] {
		out = append(out, claim{port: true, value: strconv.Itoa(int(s.Spec.HealthCheckNodePort))})
	}
	return out
}

// assign fills in what the client left to the server. The returned function
// undoes the new claims, or frees the old ones once the write succeeded.
func (a *allocator) assign(ctx context.Context, s, old *corev1.Service, owner string, dry bool) (genericregistry.FinishFunc, error) {
	var before, taken []claim
	if old != nil {
		before = claimed(old)
	}
	take := func(c claim, at *field.Path) (string, error) {
		p := a.poolOf(c)
		if dry { // choose, but leave no trace
			if c.value == "" {
				c.value = p.value(p.size - 1)
			}
			return c.value, nil
		}
		var err error
		given := c.value != ""
		if given {
			err = a.take(ctx, p, c.value, owner)
		} else {
			c.value, err = a.next(ctx, p, owner)
		}
		if err == nil {
			if !slices.Contains(before, c) {
				taken = append(taken, c)
			}
			return c.value, nil
		}
		if !given {
			return "", apierrors.NewInternalError(fmt.Errorf("failed to allocate %s: %w", at, err))
		}
		return "", apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Service").GroupKind(), s.Name,
			field.ErrorList{field.Invalid(at, c.value, allocationError(err))})
	}
	err := a.fill(s, old, take)
	if err != nil {
		a.release(context.WithoutCancel(ctx), taken, nil, owner)
		return nil, err
	}
	return func(ctx context.Context, success bool) {
		if dry {
			return
		}
		ctx = context.WithoutCancel(ctx)
		if success {
			a.release(ctx, before, claimed(s), owner)
			return
		}
		a.release(ctx, taken, nil, owner)
	}, nil
}

func allocationError(err error) string {
	if errors.Is(err, errTaken) {
		return errTaken.Error()
	}
	return err.Error()
}

func (a *allocator) fill(s, old *corev1.Service, take func(claim, *field.Path) (string, error)) error {
	spec := field.NewPath("spec")
	if hasClusterIP(s.Spec.Type) {
		if s.Spec.IPFamilies == nil {
			s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
		}
		if s.Spec.IPFamilyPolicy == nil {
			single := corev1.IPFamilyPolicySingleStack
			s.Spec.IPFamilyPolicy = &single
		}
		if s.Spec.ClusterIP != corev1.ClusterIPNone {
			ip, err := take(claim{value: s.Spec.ClusterIP}, spec.Child("clusterIPs").Index(0))
			if err != nil {
				return err
			}
			if s.Spec.ClusterIP == "" || len(s.Spec.ClusterIPs) == 0 {
				s.Spec.ClusterIPs = []string{ip}
			}
			s.Spec.ClusterIP = ip
		} else if len(s.Spec.ClusterIPs) == 0 {
			s.Spec.ClusterIPs = []string{corev1.ClusterIPNone}
		}
	}
	if !hasNodePorts(s) {
		return nil
	}
	shared := map[int32]int32{} // TCP and UDP of one port number share a node port
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if p.NodePort == 0 {
			p.NodePort = shared[p.Port]
		}
		want := claim{port: true}
		if p.NodePort != 0 {
			want.value = strconv.Itoa(int(p.NodePort))
		}
		v, err := take(want, spec.Child("ports").Index(i).Child("nodePort"))
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(v)
		if err != nil {
			return fmt.Errorf("BUG: node port %q: %w", v, err)
		}
		p.NodePort = int32(n)
		shared[p.Port] = p.NodePort
	}
	if needsHealthPort(s) {
		want := claim{port: true}
		if s.Spec.HealthCheckNodePort != 0 {
			want.value = strconv.Itoa(int(s.Spec.HealthCheckNodePort))
		}
		v, err := take(want, spec.Child("healthCheckNodePort"))
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(v)
		if err != nil {
			return fmt.Errorf("BUG: health check port %q: %w", v, err)
		}
		s.Spec.HealthCheckNodePort = int32(n)
	}
	return nil
}

// release frees claims that are not kept. What fails stays claimed until the
// next start repairs it.
func (a *allocator) release(ctx context.Context, have, keep []claim, owner string) {
	for _, c := range have {
		if slices.Contains(keep, c) {
			continue
		}
		if err := a.free(ctx, a.poolOf(c), c.value, owner); err != nil {
			a.log.Warn("claim of a service was not freed", "reason", c.value, "err", err)
		}
	}
}

// repairClaims compares claims and services once, before the server serves.
func repairClaims(ctx context.Context, a *allocator, services *genericregistry.Store, log *slog.Logger) error {
	list, err := services.List(ctx, &internalversion.ListOptions{})
	if err != nil {
		return fmt.Errorf("repair claims: list services: %w", err)
	}
	ips, ports := map[string]string{}, map[string]string{}
	err = meta.EachListItem(list, func(o runtime.Object) error {
		s := o.(*corev1.Service)
		for _, c := range claimed(s) {
			if c.port {
				ports[c.value] = string(s.UID)
			} else {
				ips[c.value] = string(s.UID)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("repair claims: %w", err)
	}
	for _, p := range []struct {
		pool
		used map[string]string
	}{{a.ips, ips}, {a.ports, ports}} {
		removed, added, err := a.repair(ctx, p.pool, p.used)
		if err != nil {
			return fmt.Errorf("repair claims: %w", err)
		}
		if removed+added > 0 {
			log.Info("claims of services were repaired", "reason", p.name, "removed", removed, "added", added)
		}
	}
	return nil
}
