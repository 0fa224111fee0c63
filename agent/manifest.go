package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// manifestFile in a pod's directory is the object as last seen, so that an agent
// that starts while the API is away knows what to keep running.
const manifestFile = "pod.json"

// saveManifest writes it whole or not at all. It may hold secrets of its env, so
// only root reads it.
func (a *Agent) saveManifest(p *corev1.Pod) error {
	dir := a.places.Dir(string(p.UID))
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	text, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode manifest of pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	file := filepath.Join(dir, manifestFile)
	if err := os.WriteFile(file+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// manifests reads what earlier agents knew. A directory without a readable
// manifest is a pod of which only the uid is known: it is cleaned once the API
// says that it does not have it.
func (a *Agent) manifests() ([]*corev1.Pod, error) {
	entries, err := os.ReadDir(a.places.Pods)
	if err != nil {
		return nil, fmt.Errorf("read directory of pods: %w", err)
	}
	var out []*corev1.Pod
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		p := &corev1.Pod{}
		text, err := os.ReadFile(filepath.Join(a.places.Pods, e.Name(), manifestFile))
		if err == nil {
			err = json.Unmarshal(text, p)
		}
		if err != nil || string(p.UID) != e.Name() {
			if !errors.Is(err, os.ErrNotExist) {
				a.log.Warn("manifest not read", "uid", e.Name(), "err", err)
			}
			p = stub(types.UID(e.Name()), "", "")
		}
		out = append(out, p)
	}
	return out, nil
}

// stub is a pod known only by name.
func stub(uid types.UID, namespace, name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid, Namespace: namespace, Name: name}}
}
