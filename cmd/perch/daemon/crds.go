package daemon

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

//go:embed crd_*.yaml
var shippedDefinitions embed.FS

// madeFrom is the annotation with the digest of the shipped definition.
const madeFrom = "perch.dev/made-from"

// operatorVersion is the annotation that prometheus-operator's own definitions
// carry: who installed these keeps them.
const operatorVersion = "operator.prometheus.io/version"

var crds = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// ensureCRDs keeps the definitions of the kinds that perch reads as this version
// of perch has them.
func ensureCRDs(ctx context.Context, c clients) error {
	files, err := fs.Glob(shippedDefinitions, "*.yaml")
	if err != nil {
		return fmt.Errorf("list shipped definitions: %w", err)
	}
	for _, name := range files {
		text, err := shippedDefinitions.ReadFile(name)
		if err != nil {
			return fmt.Errorf("read shipped definition: %w", err)
		}
		if err := ensureCRD(ctx, c, text); err != nil {
			return err
		}
	}
	return nil
}

func ensureCRD(ctx context.Context, c clients, text []byte) error {
	var want unstructured.Unstructured
	if err := yaml.Unmarshal(text, &want.Object); err != nil {
		return fmt.Errorf("read shipped definition: %w", err)
	}
	sum := sha256.Sum256(text)
	digest := hex.EncodeToString(sum[:])
	want.SetAnnotations(map[string]string{madeFrom: digest})
	api := c.dynamic.Resource(crds)
	_, err := api.Create(ctx, &want, metav1.CreateOptions{})
	if err == nil {
		return nil
	} else if !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create CustomResourceDefinition %s: %w", want.GetName(), err)
	}
	have, err := api.Get(ctx, want.GetName(), metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read CustomResourceDefinition %s: %w", want.GetName(), err)
	}
	if a := have.GetAnnotations(); a[madeFrom] == digest || a[operatorVersion] != "" {
		return nil
	}
	want.SetResourceVersion(have.GetResourceVersion())
	if _, err := api.Update(ctx, &want, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("update CustomResourceDefinition %s: %w", want.GetName(), err)
	}
	return nil
}
