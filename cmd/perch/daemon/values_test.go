package daemon

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"perch/metrics/target"
)

func TestASecretIsGoodWhileTheAPIIsAway(t *testing.T) {
	what := schema.GroupResource{Resource: "secrets"}
	for name, c := range map[string]struct {
		err  error
		want string // of the error; empty: the value before
	}{
		"nobody answers":           {errors.New("connection refused"), ""},
		"the API has no time":      {apierrors.NewServerTimeout(what, "get", 1), ""},
		"it was deleted":           {apierrors.NewNotFound(what, "s"), "is not there"},
		"the right was taken away": {apierrors.NewForbidden(what, "s", nil), "may not be read yet"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := fake.NewClientset(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "s"}, Data: map[string][]byte{"k": []byte("word")}})
				var fails error
				api.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) { return fails != nil, nil, fails })
				v := newValues(api, func() {})
				ref := target.Ref{Namespace: "red", Name: "s", Key: "k"}
				if got, err := v.value(ref); got != "word" || err != nil {
					t.Fatalf("%q %v", got, err)
				}
				fails = c.err
				for range 3 {
					time.Sleep(2 * valueLife) // the bubble's clock
					got, err := v.value(ref)
					switch {
					case c.want == "" && (got != "word" || err != nil):
						t.Errorf("%q %v", got, err)
					case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
						t.Errorf("%q %v, want %s", got, err, c.want)
					}
				}
			})
		})
	}
}
