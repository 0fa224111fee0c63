package agent

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// objects keeps the config maps and secrets that pods of this node use. Each is
// watched by name, as the node authorizer allows, while a pod refers to it.
type objects struct {
	api     kubernetes.Interface
	log     *slog.Logger
	changed func([]types.UID)
	running sync.WaitGroup

	mu      sync.Mutex // guards all below
	ctx     context.Context
	watched map[objectKey]*watched
	refs    map[types.UID][]objectKey
}

type objectKey struct{ kind, namespace, name string }

type watched struct {
	pods map[types.UID]bool
	run  func(context.Context)
	wait func(context.Context) bool
	get  func(namespace, name string) (any, bool)
	stop context.CancelFunc
}

const (
	kindConfigMap = "configmap"
	kindSecret    = "secret"
)

func newObjects(api kubernetes.Interface, log *slog.Logger, changed func([]types.UID)) *objects {
	return &objects{api: api, log: log, changed: changed, watched: map[objectKey]*watched{}, refs: map[types.UID][]objectKey{}}
}

// run lets watches start and stops them when ctx ends.
func (o *objects) run(ctx context.Context) error {
	o.mu.Lock()
	o.ctx = ctx
	for _, w := range o.watched {
		o.start(w)
	}
	o.mu.Unlock()
	<-ctx.Done()
	o.mu.Lock()
	o.ctx = nil
	o.mu.Unlock()
	o.running.Wait()
	return nil
}

// start needs mu.
func (o *objects) start(w *watched) {
	if o.ctx == nil || o.ctx.Err() != nil || w.stop != nil {
		return
	}
	ctx, cancel := context.WithCancel(o.ctx)
	w.stop = cancel
	o.running.Go(func() { w.run(ctx) })
}

// watch keeps the objects that a pod refers to, and lets go of those it no
// longer does.
func (o *objects) watch(p *corev1.Pod) {
	keys := referenced(p)
	o.mu.Lock()
	defer o.mu.Unlock()
	old := o.refs[p.UID]
	o.refs[p.UID] = keys
	for _, k := range keys {
		w := o.watched[k]
		if w == nil {
			w = o.open(k)
			o.watched[k] = w
		}
		w.pods[p.UID] = true
		o.start(w)
	}
	o.drop(p.UID, old, keys)
}

// forget lets go of the objects of a pod.
func (o *objects) forget(uid types.UID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	old := o.refs[uid]
	delete(o.refs, uid)
	o.drop(uid, old, nil)
}

// drop needs mu.
func (o *objects) drop(uid types.UID, old, keep []objectKey) {
	kept := map[objectKey]bool{}
	for _, k := range keep {
		kept[k] = true
	}
	for _, k := range old {
		w := o.watched[k]
		if kept[k] || w == nil {
			continue
		}
		delete(w.pods, uid)
		if len(w.pods) == 0 {
			if w.stop != nil {
				w.stop()
			}
			delete(o.watched, k)
		}
	}
}

func (o *objects) open(k objectKey) *watched {
	w := &watched{pods: map[types.UID]bool{}}
	only := fields.OneTermEqualSelector(metav1.ObjectNameField, k.name).String()
	tell := func() {
		o.mu.Lock()
		var uids []types.UID
		for uid := range w.pods {
			uids = append(uids, uid)
		}
		o.mu.Unlock()
		o.changed(uids)
	}
	if k.kind == kindSecret {
		api := o.api.CoreV1().Secrets(k.namespace)
		src := source{func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) { return api.List(ctx, opts) }, api.Watch}
		m := newMirror(o.api, kindSecret, only, &corev1.Secret{}, src, func(*corev1.Secret, bool) { tell() })
		w.run, w.wait = m.run, m.wait
		w.get = func(namespace, name string) (any, bool) { return m.get(namespace, name) }
		return w
	}
	api := o.api.CoreV1().ConfigMaps(k.namespace)
	src := source{func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) { return api.List(ctx, opts) }, api.Watch}
	m := newMirror(o.api, kindConfigMap, only, &corev1.ConfigMap{}, src, func(*corev1.ConfigMap, bool) { tell() })
	w.run, w.wait = m.run, m.wait
	w.get = func(namespace, name string) (any, bool) { return m.get(namespace, name) }
	return w
}

// ConfigMap returns a config map of a pod's namespace, nil if there is none. It
// waits a little for an object not seen yet.
func (o *objects) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	got, err := o.get(ctx, objectKey{kindConfigMap, namespace, name})
	if got == nil || err != nil {
		return nil, err
	}
	return got.(*corev1.ConfigMap), nil
}

// Secret is ConfigMap for secrets.
func (o *objects) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	got, err := o.get(ctx, objectKey{kindSecret, namespace, name})
	if got == nil || err != nil {
		return nil, err
	}
	return got.(*corev1.Secret), nil
}

// patience is how long a container start waits for the API to answer about an
// object.
const patience = 5 * time.Second

func (o *objects) get(ctx context.Context, k objectKey) (any, error) {
	o.mu.Lock()
	w := o.watched[k]
	o.mu.Unlock()
	if w == nil {
		return nil, fmt.Errorf("read %s %s/%s: no pod refers to it", k.kind, k.namespace, k.name)
	}
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if !w.wait(limited) {
		return nil, fmt.Errorf("read %s %s/%s: the API server has not answered", k.kind, k.namespace, k.name)
	}
	if got, ok := w.get(k.namespace, k.name); ok {
		return got, nil
	}
	return nil, nil
}

// Token asks for a token of a pod's service account.
func (o *objects) Token(ctx context.Context, p *corev1.Pod, audience string, seconds int64) (string, time.Time, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &seconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: p.UID},
	}}
	if audience != "" {
		request.Spec.Audiences = []string{audience}
	}
	account := p.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	got, err := o.api.CoreV1().ServiceAccounts(p.Namespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		return "", time.Time{}, fmt.Errorf("create token of service account %s/%s: %w", p.Namespace, account, err)
	}
	return got.Status.Token, got.Status.ExpirationTimestamp.Time, nil
}

// referenced are the objects a pod names.
func referenced(p *corev1.Pod) []objectKey {
	seen := map[objectKey]bool{}
	var out []objectKey
	add := func(kind, name string) {
		if k := (objectKey{kind, p.Namespace, name}); name != "" && !seen[k] {
			seen[k] = true
			out = append(out, k)
		}
	}
	for _, s := range p.Spec.ImagePullSecrets {
		add(kindSecret, s.Name)
	}
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for _, c := range list {
			for _, e := range c.EnvFrom {
				if e.ConfigMapRef != nil {
					add(kindConfigMap, e.ConfigMapRef.Name)
				}
				if e.SecretRef != nil {
					add(kindSecret, e.SecretRef.Name)
				}
			}
			for _, e := range c.Env {
				if e.ValueFrom != nil && e.ValueFrom.ConfigMapKeyRef != nil {
					add(kindConfigMap, e.ValueFrom.ConfigMapKeyRef.Name)
				}
				if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
					add(kindSecret, e.ValueFrom.SecretKeyRef.Name)
				}
			}
		}
	}
	for _, v := range p.Spec.Volumes {
		switch {
		case v.ConfigMap != nil:
			add(kindConfigMap, v.ConfigMap.Name)
		case v.Secret != nil:
			add(kindSecret, v.Secret.SecretName)
		case v.Projected != nil:
			for _, s := range v.Projected.Sources {
				if s.ConfigMap != nil {
					add(kindConfigMap, s.ConfigMap.Name)
				}
				if s.Secret != nil {
					add(kindSecret, s.Secret.Name)
				}
			}
		}
	}
	return out
}
