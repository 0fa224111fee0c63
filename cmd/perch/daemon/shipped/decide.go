package shipped

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Annotation of an object holds the hash of what perch wrote.
const Annotation = "perch.io/shipped"

// Action is what is to be done about one object.
type Action string

// Actions.
const (
	Leave  Action = "leave"
	Create Action = "create"
	Update Action = "update"
	Delete Action = "delete" // it is no longer shipped and nobody has touched it
)

// Decide tells what to do about one object and why. want is what this perch
// ships, nil when it does not any more; have is what is there, nil when nothing;
// recorded says that it was written before.
func Decide(want, have *unstructured.Unstructured, recorded bool) (Action, string) {
	switch {
	case want == nil && have != nil && AsShipped(have):
		return Delete, "this version does not have it"
	case want == nil:
		return Leave, "this version does not have it"
	case have == nil && recorded:
		return Leave, "it was deleted"
	case have == nil:
		return Create, "it is new"
	case hash(have) == hash(want):
		return Leave, "it is as shipped"
	case AsShipped(have):
		return Update, "this version has another, and nobody edited it"
	}
	return Leave, "it was edited"
}

// AsShipped answers whether an object is as some perch wrote it.
func AsShipped(o *unstructured.Unstructured) bool {
	return o.GetAnnotations()[Annotation] == hash(o)
}

// hash is of what people edit: the data of a ConfigMap, else the spec.
func hash(o *unstructured.Unstructured) string {
	part := "spec"
	if o.GetKind() == "ConfigMap" {
		part = "data"
	}
	text, err := json.Marshal(o.Object[part]) // sorts keys
	if err != nil {
		return "" // no JSON: nobody has written that
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}
