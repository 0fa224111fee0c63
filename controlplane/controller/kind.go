package controller

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
)

// served is one kind the API server serves, built in or custom.
type served struct {
	GVR        schema.GroupVersionResource
	Kind       string
	Namespaced bool
	Verbs      metav1.Verbs
}

// servedKinds asks the API server for all kinds that support verbs, one version
// of each. Groups that do not answer are told in the error; the rest is returned.
func servedKinds(client discovery.DiscoveryInterface, verbs ...string) ([]served, error) {
	lists, err := discovery.ServerPreferredResources(client)
	if err != nil && len(lists) == 0 {
		return nil, fmt.Errorf("discover kinds: %w", err)
	}
	var out []served
	for _, list := range lists {
		gv, parseErr := schema.ParseGroupVersion(list.GroupVersion)
		if parseErr != nil {
			continue // nothing can be asked of such a group
		}
		for _, r := range list.APIResources {
			if slices.ContainsFunc(verbs, func(v string) bool { return !slices.Contains(r.Verbs, v) }) {
				continue
			}
			out = append(out, served{gv.WithResource(r.Name), r.Kind, r.Namespaced, r.Verbs})
		}
	}
	if err != nil {
		return out, fmt.Errorf("discover kinds: %w", err)
	}
	return out, nil
}
