package legal

import (
	"fmt"
	"reflect"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"

	"k8s.io/kubernetes/pkg/apis/admissionregistration"
	kadmissionregistrationv1 "k8s.io/kubernetes/pkg/apis/admissionregistration/v1"
	"k8s.io/kubernetes/pkg/apis/apps"
	kappsv1 "k8s.io/kubernetes/pkg/apis/apps/v1"
	"k8s.io/kubernetes/pkg/apis/authentication"
	kauthenticationv1 "k8s.io/kubernetes/pkg/apis/authentication/v1"
	"k8s.io/kubernetes/pkg/apis/authorization"
	kauthorizationv1 "k8s.io/kubernetes/pkg/apis/authorization/v1"
	"k8s.io/kubernetes/pkg/apis/autoscaling"
	kautoscalingv1 "k8s.io/kubernetes/pkg/apis/autoscaling/v1"
	kautoscalingv2 "k8s.io/kubernetes/pkg/apis/autoscaling/v2"
	"k8s.io/kubernetes/pkg/apis/batch"
	kbatchv1 "k8s.io/kubernetes/pkg/apis/batch/v1"
	"k8s.io/kubernetes/pkg/apis/certificates"
	kcertificatesv1 "k8s.io/kubernetes/pkg/apis/certificates/v1"
	"k8s.io/kubernetes/pkg/apis/coordination"
	kcoordinationv1 "k8s.io/kubernetes/pkg/apis/coordination/v1"
	"k8s.io/kubernetes/pkg/apis/core"
	kcorev1 "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/discovery"
	kdiscoveryv1 "k8s.io/kubernetes/pkg/apis/discovery/v1"
	"k8s.io/kubernetes/pkg/apis/events"
	keventsv1 "k8s.io/kubernetes/pkg/apis/events/v1"
	"k8s.io/kubernetes/pkg/apis/networking"
	knetworkingv1 "k8s.io/kubernetes/pkg/apis/networking/v1"
	"k8s.io/kubernetes/pkg/apis/node"
	knodev1 "k8s.io/kubernetes/pkg/apis/node/v1"
	"k8s.io/kubernetes/pkg/apis/policy"
	kpolicyv1 "k8s.io/kubernetes/pkg/apis/policy/v1"
	"k8s.io/kubernetes/pkg/apis/rbac"
	krbacv1 "k8s.io/kubernetes/pkg/apis/rbac/v1"
	"k8s.io/kubernetes/pkg/apis/scheduling"
	kschedulingv1 "k8s.io/kubernetes/pkg/apis/scheduling/v1"
	"k8s.io/kubernetes/pkg/apis/storage"
	kstoragev1 "k8s.io/kubernetes/pkg/apis/storage/v1"
	"k8s.io/kubernetes/pkg/capabilities"
)

// Rules is the law of one server.
type Rules struct {
	Scheme         *runtime.Scheme
	Codecs         serializer.CodecFactory
	ParameterCodec runtime.ParameterCodec

	hub    *runtime.Scheme // Kubernetes' internal types, never served
	checks map[schema.GroupKind]check
}

// AddToScheme registers types of further API groups.
type AddToScheme func(*runtime.Scheme) error

// New builds the schemes. Types of extra groups become their own hub too.
func New(extra ...AddToScheme) (*Rules, error) {
	// Kubernetes keeps this switch in a process-wide variable; its default
	// forbids privileged pods. Pod Security admission is the place for that.
	capabilities.Setup(true, 0)

	r := &Rules{Scheme: runtime.NewScheme(), hub: runtime.NewScheme(), checks: checks()}
	external := append([]AddToScheme{
		corev1.AddToScheme, appsv1.AddToScheme, batchv1.AddToScheme, autoscalingv2.AddToScheme, autoscalingv1.AddToScheme,
		networkingv1.AddToScheme, rbacv1.AddToScheme, storagev1.AddToScheme, coordinationv1.AddToScheme, discoveryv1.AddToScheme,
		policyv1.AddToScheme, schedulingv1.AddToScheme, nodev1.AddToScheme, certificatesv1.AddToScheme, eventsv1.AddToScheme,
		admissionregistrationv1.AddToScheme, authenticationv1.AddToScheme, authorizationv1.AddToScheme,
		kcorev1.RegisterDefaults, kappsv1.RegisterDefaults, kbatchv1.RegisterDefaults, kautoscalingv1.RegisterDefaults,
		kautoscalingv2.RegisterDefaults, knetworkingv1.RegisterDefaults, krbacv1.RegisterDefaults, kstoragev1.RegisterDefaults,
		kcoordinationv1.RegisterDefaults, kdiscoveryv1.RegisterDefaults, kpolicyv1.RegisterDefaults, kschedulingv1.RegisterDefaults,
		kcertificatesv1.RegisterDefaults, keventsv1.RegisterDefaults, kadmissionregistrationv1.RegisterDefaults,
		kauthenticationv1.RegisterDefaults, kauthorizationv1.RegisterDefaults,
	}, extra...)
	internal := []AddToScheme{
		core.AddToScheme, apps.AddToScheme, batch.AddToScheme, autoscaling.AddToScheme, networking.AddToScheme, rbac.AddToScheme,
		storage.AddToScheme, coordination.AddToScheme, discovery.AddToScheme, policy.AddToScheme, scheduling.AddToScheme,
		node.AddToScheme, certificates.AddToScheme, events.AddToScheme, admissionregistration.AddToScheme,
		authentication.AddToScheme, authorization.AddToScheme,
		kcorev1.AddToScheme, kappsv1.AddToScheme, kbatchv1.AddToScheme, kautoscalingv1.AddToScheme, kautoscalingv2.AddToScheme,
		knetworkingv1.AddToScheme, krbacv1.AddToScheme, kstoragev1.AddToScheme, kcoordinationv1.AddToScheme, kdiscoveryv1.AddToScheme,
		kpolicyv1.AddToScheme, kschedulingv1.AddToScheme, knodev1.AddToScheme, kcertificatesv1.AddToScheme, keventsv1.AddToScheme,
		kadmissionregistrationv1.AddToScheme, kauthenticationv1.AddToScheme, kauthorizationv1.AddToScheme,
	}
	for _, add := range external {
		if err := add(r.Scheme); err != nil {
			return nil, fmt.Errorf("build scheme: %w", err)
		}
	}
	for _, add := range internal {
		if err := add(r.hub); err != nil {
			return nil, fmt.Errorf("build internal scheme: %w", err)
		}
	}
	r.addHubs()
	if err := r.addConversions(); err != nil {
		return nil, fmt.Errorf("build conversions: %w", err)
	}
	metav1.AddToGroupVersion(r.Scheme, schema.GroupVersion{Version: "v1"})
	if err := metainternalversion.AddToScheme(r.Scheme); err != nil {
		return nil, fmt.Errorf("build scheme: %w", err)
	}
	r.Codecs = serializer.NewCodecFactory(r.Scheme)
	r.ParameterCodec = runtime.NewParameterCodec(r.Scheme)
	return r, nil
}

// addHubs registers each external type a second time as the internal one, so
// that the generic server needs no conversion functions.
func (r *Rules) addHubs() {
	hubEvents := schema.GroupVersion{Group: eventsv1.GroupName, Version: runtime.APIVersionInternal}
	r.Scheme.AddKnownTypes(hubEvents, &corev1.Event{}, &corev1.EventList{})
	for gvk, t := range r.Scheme.AllKnownTypes() {
		// Options and lists of meta/v1 are registered in every version.
		if gvk.Version == runtime.APIVersionInternal || strings.HasPrefix(t.PkgPath(), "k8s.io/apimachinery/") {
			continue
		}
		if gvk.Group == autoscalingv1.GroupName && gvk.Version == "v1" && gvk.Kind != "Scale" {
			continue // the hub of autoscaling is v2
		}
		hub := schema.GroupVersionKind{Group: gvk.Group, Version: runtime.APIVersionInternal, Kind: gvk.Kind}
		if !r.Scheme.Recognizes(hub) {
			r.Scheme.AddKnownTypeWithName(hub, reflect.New(t).Interface().(runtime.Object))
		}
	}
}

// addConversions joins the versions of a group through Kubernetes' internal type.
func (r *Rules) addConversions() error {
	autoscalingHub := schema.GroupVersion{Group: autoscaling.GroupName, Version: runtime.APIVersionInternal}
	coreHub := schema.GroupVersion{Version: runtime.APIVersionInternal}
	eventsHub := schema.GroupVersion{Group: events.GroupName, Version: runtime.APIVersionInternal}
	type side struct {
		object   runtime.Object
		internal schema.GroupVersion
	}
	pairs := [][2]side{
		{{&autoscalingv1.HorizontalPodAutoscaler{}, autoscalingHub}, {&autoscalingv2.HorizontalPodAutoscaler{}, autoscalingHub}},
		{{&autoscalingv1.HorizontalPodAutoscalerList{}, autoscalingHub}, {&autoscalingv2.HorizontalPodAutoscalerList{}, autoscalingHub}},
		{{&eventsv1.Event{}, eventsHub}, {&corev1.Event{}, coreHub}},
		{{&eventsv1.EventList{}, eventsHub}, {&corev1.EventList{}, coreHub}},
	}
	for _, p := range pairs {
		for _, d := range [][2]side{{p[0], p[1]}, {p[1], p[0]}} {
			internal := d[0].internal
			err := r.Scheme.AddConversionFunc(d[0].object, d[1].object, func(a, b any, _ conversion.Scope) error {
				mid, err := r.hub.UnsafeConvertToVersion(a.(runtime.Object).DeepCopyObject(), internal)
				if err != nil {
					return err
				}
				return r.hub.Convert(mid, b, nil)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// internal is a private copy of obj as Kubernetes' internal type.
func (r *Rules) internal(obj runtime.Object) (runtime.Object, schema.GroupVersion, error) {
	kinds, _, err := r.hub.ObjectKinds(obj)
	if err != nil {
		return nil, schema.GroupVersion{}, err
	}
	gv := kinds[0].GroupVersion()
	in, err := r.hub.UnsafeConvertToVersion(obj.DeepCopyObject(), schema.GroupVersion{Group: gv.Group, Version: runtime.APIVersionInternal})
	return in, gv, err
}

// Canonicalize rewrites obj the way a trip through Kubernetes' internal type
// does: stringData moves into data, deprecated aliases are filled in.
func (r *Rules) Canonicalize(obj runtime.Object) error {
	in, gv, err := r.internal(obj)
	if err != nil {
		return fmt.Errorf("canonicalize %T: %w", obj, err)
	}
	out, err := r.hub.UnsafeConvertToVersion(in, gv)
	if err != nil {
		return fmt.Errorf("canonicalize %T: %w", obj, err)
	}
	kind := obj.GetObjectKind().GroupVersionKind()
	reflect.ValueOf(obj).Elem().Set(reflect.ValueOf(out).Elem())
	obj.GetObjectKind().SetGroupVersionKind(kind)
	return nil
}
