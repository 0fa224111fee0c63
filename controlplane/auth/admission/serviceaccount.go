package admission

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/storage/names"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
)

const (
	defaultAccount = "default"
	tokenMountPath = "/var/run/secrets/kubernetes.io/serviceaccount"
	tokenVolume    = "kube-api-access-"
	rootCAMap      = "kube-root-ca.crt"
	mirrorPod      = "kubernetes.io/config.mirror"

	// The account "default" is made by a controller a moment after its namespace;
	// a pod that comes in between waits for it.
	accountPatience = 2 * time.Second
	accountGlance   = 50 * time.Millisecond
)

// serviceAccountPlugin gives every pod an account, the account's token and its
// pull secrets.
type serviceAccountPlugin struct {
	*admission.Handler
	client   kubernetes.Interface
	accounts corelisters.ServiceAccountLister
}

var _ admission.MutationInterface = (*serviceAccountPlugin)(nil)
var _ admission.ValidationInterface = (*serviceAccountPlugin)(nil)

func newServiceAccount() *serviceAccountPlugin {
	return &serviceAccountPlugin{Handler: admission.NewHandler(admission.Create)}
}

func (s *serviceAccountPlugin) SetExternalKubeClientSet(c kubernetes.Interface) { s.client = c }

func (s *serviceAccountPlugin) SetExternalKubeInformerFactory(f informers.SharedInformerFactory) {
	i := f.Core().V1().ServiceAccounts()
	s.accounts = i.Lister()
	s.SetReadyFunc(i.Informer().HasSynced)
}

func (s *serviceAccountPlugin) ValidateInitialization() error {
	if s.client == nil || s.accounts == nil {
		return errors.New("plugin ServiceAccount needs a client and informers")
	}
	return nil
}

// podOf is the pod of a write to the resource pods itself.
func podOf(a admission.Attributes) (*corev1.Pod, bool) {
	if a.GetResource().GroupResource() != corev1.Resource("pods") || a.GetSubresource() != "" {
		return nil, false
	}
	pod, ok := a.GetObject().(*corev1.Pod)
	return pod, ok
}

func (s *serviceAccountPlugin) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod, ok := podOf(a)
	if !ok || pod.Annotations[mirrorPod] != "" {
		return nil
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = pod.Spec.DeprecatedServiceAccount
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = defaultAccount
	}
	pod.Spec.DeprecatedServiceAccount = pod.Spec.ServiceAccountName
	account, err := s.account(ctx, a.GetNamespace(), pod.Spec.ServiceAccountName)
	if err != nil {
		return admission.NewForbidden(a, fmt.Errorf("error looking up service account %s/%s: %w", a.GetNamespace(), pod.Spec.ServiceAccountName, err))
	}
	if wantsToken(pod, account) {
		mountToken(pod, names.SimpleNameGenerator.GenerateName)
	}
	if len(pod.Spec.ImagePullSecrets) == 0 {
		pod.Spec.ImagePullSecrets = append([]corev1.LocalObjectReference(nil), account.ImagePullSecrets...)
	}
	return nil
}

// Validate refuses a pod whose account does not exist, for pods that a webhook
// gave another account.
func (s *serviceAccountPlugin) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod, ok := podOf(a)
	if !ok {
		return nil
	}
	if pod.Annotations[mirrorPod] != "" {
		if pod.Spec.ServiceAccountName != "" {
			return admission.NewForbidden(a, errors.New("a mirror pod may not reference service accounts"))
		}
		return nil
	}
	if _, err := s.account(ctx, a.GetNamespace(), pod.Spec.ServiceAccountName); err != nil {
		return admission.NewForbidden(a, fmt.Errorf("error looking up service account %s/%s: %w", a.GetNamespace(), pod.Spec.ServiceAccountName, err))
	}
	return nil
}

// account asks the cache, then the server, and for "default" asks again for a while.
func (s *serviceAccountPlugin) account(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
	if !s.WaitForReady() {
		return nil, errors.New("not yet ready to handle request")
	}
	limit, tick := time.NewTimer(accountPatience), time.NewTicker(accountGlance)
	defer limit.Stop()
	defer tick.Stop()
	for {
		have, err := s.accounts.ServiceAccounts(namespace).Get(name)
		if err == nil {
			return have, nil
		}
		if have, err = s.client.CoreV1().ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{}); err == nil {
			return have, nil
		}
		if !apierrors.IsNotFound(err) || name != defaultAccount {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-limit.C:
			return nil, err
		case <-tick.C:
		}
	}
}

func wantsToken(pod *corev1.Pod, account *corev1.ServiceAccount) bool {
	if wish := pod.Spec.AutomountServiceAccountToken; wish != nil {
		return *wish
	}
	if wish := account.AutomountServiceAccountToken; wish != nil {
		return *wish
	}
	return true
}

// mountToken gives every container without a mount at the well-known path one
// of a volume with token, root CA and namespace, as Kubernetes writes it.
func mountToken(pod *corev1.Pod, generate func(prefix string) string) {
	volume, exists := "", false
	for _, v := range pod.Spec.Volumes {
		if strings.HasPrefix(v.Name, tokenVolume) {
			volume, exists = v.Name, true
			break
		}
	}
	if !exists {
		volume = generate(tokenVolume)
	}
	mount := corev1.VolumeMount{Name: volume, ReadOnly: true, MountPath: tokenMountPath}
	needed := false
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if !mounts(&list[i], tokenMountPath) {
				list[i].VolumeMounts = append(list[i].VolumeMounts, mount)
				needed = true
			}
		}
	}
	if needed && !exists {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: volume, VolumeSource: corev1.VolumeSource{Projected: tokenSource()}})
	}
}

func mounts(c *corev1.Container, path string) bool {
	for _, m := range c.VolumeMounts {
		if m.MountPath == path {
			return true
		}
	}
	return false
}

func tokenSource() *corev1.ProjectedVolumeSource {
	mode, seconds := int32(0o644), int64(3607)
	return &corev1.ProjectedVolumeSource{
		DefaultMode: &mode,
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: &seconds}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: rootCAMap},
				Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{
				Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"},
			}}}},
		},
	}
}
