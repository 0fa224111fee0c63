package api

import (
	"fmt"
	"strings"
)

// Key names an object within its kind. Namespace is empty for cluster-wide
// kinds. It is comparable and prints as "namespace/name".
type Key struct {
	Namespace, Name string
}

// Named is what every Kubernetes object is.
type Named interface {
	GetNamespace() string
	GetName() string
}

// KeyOf is the key of an object.
func KeyOf(o Named) Key { return Key{Namespace: o.GetNamespace(), Name: o.GetName()} }

// ParseKey reads "namespace/name" or "name".
func ParseKey(s string) (Key, error) {
	namespace, name, found := strings.Cut(s, "/")
	if !found {
		namespace, name = "", s
	}
	if name == "" || strings.Contains(name, "/") || found && namespace == "" {
		return Key{}, fmt.Errorf("parse key %q: want namespace/name or name", s)
	}
	return Key{Namespace: namespace, Name: name}, nil
}

func (k Key) String() string {
	if k.Namespace == "" {
		return k.Name
	}
	return k.Namespace + "/" + k.Name
}
