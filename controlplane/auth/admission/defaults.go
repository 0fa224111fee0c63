package admission

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/informers"
	storagelisters "k8s.io/client-go/listers/storage/v1"
)

// defaultTolerationPlugin lets pods stay for five minutes on a node that is not
// ready or out of reach, unless they say otherwise.
type defaultTolerationPlugin struct{ *admission.Handler }

var _ admission.MutationInterface = (*defaultTolerationPlugin)(nil)

func newDefaultToleration() *defaultTolerationPlugin {
	return &defaultTolerationPlugin{admission.NewHandler(admission.Create, admission.Update)}
}

func (d *defaultTolerationPlugin) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if pod, ok := podOf(a); ok {
		tolerate(pod, corev1.TaintNodeNotReady)
		tolerate(pod, corev1.TaintNodeUnreachable)
	}
	return nil
}

func tolerate(pod *corev1.Pod, taint string) {
	for _, t := range pod.Spec.Tolerations {
		if (t.Key == taint || t.Key == "") && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == "") {
			return
		}
	}
	seconds := int64(300)
	pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{
		Key: taint, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds,
	})
}

// isDefaultClass marks the StorageClass for claims that name none.
const isDefaultClass = "storageclass.kubernetes.io/is-default-class"

// defaultClassPlugin gives claims that name no StorageClass the default one.
type defaultClassPlugin struct {
	*admission.Handler
	classes storagelisters.StorageClassLister
}

var _ admission.MutationInterface = (*defaultClassPlugin)(nil)

func newDefaultClass() *defaultClassPlugin {
	return &defaultClassPlugin{Handler: admission.NewHandler(admission.Create)}
}

func (d *defaultClassPlugin) SetExternalKubeInformerFactory(f informers.SharedInformerFactory) {
	i := f.Storage().V1().StorageClasses()
	d.classes = i.Lister()
	d.SetReadyFunc(i.Informer().HasSynced)
}

func (d *defaultClassPlugin) ValidateInitialization() error {
	if d.classes == nil {
		return errors.New("plugin DefaultStorageClass needs informers")
	}
	return nil
}

func (d *defaultClassPlugin) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	claim, ok := a.GetObject().(*corev1.PersistentVolumeClaim)
	if !ok || a.GetSubresource() != "" || claim.Spec.StorageClassName != nil {
		return nil
	}
	if _, ok := claim.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return nil
	}
	if !d.WaitForReady() {
		return admission.NewForbidden(a, errors.New("not yet ready to handle request"))
	}
	classes, err := d.classes.List(labels.Everything())
	if err != nil {
		return admission.NewForbidden(a, fmt.Errorf("list storage classes: %w", err))
	}
	if class := pickClass(classes); class != nil {
		name := class.Name
		claim.Spec.StorageClassName = &name
	}
	return nil
}

// pickClass is the youngest default class, by name if two are of one age.
func pickClass(classes []*storagev1.StorageClass) *storagev1.StorageClass {
	var found *storagev1.StorageClass
	for _, c := range classes {
		if c.Annotations[isDefaultClass] != "true" {
			continue
		}
		if found == nil || found.CreationTimestamp.Before(&c.CreationTimestamp) ||
			found.CreationTimestamp.Equal(&c.CreationTimestamp) && c.Name < found.Name {
			found = c
		}
	}
	return found
}
