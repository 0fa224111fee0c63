package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"perch/metrics/target"
)

const (
	valueLife   = 15 * time.Second // what is read of a Secret holds so long; while the API is away, on
	failureLife = 2 * time.Second
	valueWait   = 3 * time.Second // for one answer
)

// values reads the keys of Secrets and ConfigMaps that monitoring objects name.
// Of Secrets the telemetry role may read only those, see namedSecrets.
type values struct {
	client kubernetes.Interface
	again  func() // the right to read may come in a moment

	mu   sync.Mutex
	have map[string]valueSet
}

type valueSet struct {
	data map[string]string
	err  error
	till time.Time
}

// errNotYet is for a Secret for which namedSecrets has not given the right yet.
var errNotYet = errors.New("may not be read yet")

func newValues(client kubernetes.Interface, again func()) *values {
	return &values{client: client, again: again, have: map[string]valueSet{}}
}

// value is the text of one key.
func (v *values) value(ref target.Ref) (string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	kind := "Secret"
	if ref.ConfigMap {
		kind = "ConfigMap"
	}
	object := kind + " " + ref.Namespace + "/" + ref.Name
	set, known := v.have[object]
	if !known || now.After(set.till) {
		for k, s := range v.have { // what nobody asked for any more
			if now.Sub(s.till) > time.Minute {
				delete(v.have, k)
			}
		}
		before := set
		set = v.get(ref)
		set.till = now.Add(valueLife)
		if set.err != nil {
			set.till = now.Add(failureLife)
			if before.data != nil && !apierrors.IsForbidden(set.err) && !apierrors.IsNotFound(set.err) {
				set.data, set.err = before.data, nil // the API is away: targets are not to be lost for that
			}
		}
		v.have[object] = set
	}
	switch {
	case apierrors.IsForbidden(set.err):
		v.again()
		return "", fmt.Errorf("%s %w", object, errNotYet)
	case apierrors.IsNotFound(set.err):
		return "", fmt.Errorf("%s is not there", object)
	case set.err != nil:
		v.again()
		return "", fmt.Errorf("read %s: %w", object, set.err)
	}
	text, ok := set.data[ref.Key]
	if !ok {
		return "", fmt.Errorf("%s has no key %q", object, ref.Key)
	}
	return text, nil
}

func (v *values) get(ref target.Ref) valueSet {
	ctx, cancel := context.WithTimeout(context.Background(), valueWait)
	defer cancel()
	if ref.ConfigMap {
		m, err := v.client.CoreV1().ConfigMaps(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		if err != nil {
			return valueSet{err: err}
		}
		return valueSet{data: m.Data}
	}
	s, err := v.client.CoreV1().Secrets(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if err != nil {
		return valueSet{err: err}
	}
	out := valueSet{data: map[string]string{}}
	for k, text := range s.Data {
		out.data[k] = string(text)
	}
	return out
}
