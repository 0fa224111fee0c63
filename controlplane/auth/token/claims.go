package token

import (
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// ref is an object as Kubernetes writes it into a token.
type ref struct {
	Name string `json:"name,omitempty"`
	UID  string `json:"uid,omitempty"`
}

// kubernetesClaims is the private part of a ServiceAccount token.
type kubernetesClaims struct {
	Namespace      string `json:"namespace,omitempty"`
	Node           *ref   `json:"node,omitempty"`
	Pod            *ref   `json:"pod,omitempty"`
	Secret         *ref   `json:"secret,omitempty"`
	ServiceAccount ref    `json:"serviceaccount,omitempty"`
}

type privateClaims struct {
	Kubernetes kubernetesClaims `json:"kubernetes.io,omitempty"`
}

// grant is what a token says: who, for whom it is meant, how long.
type grant struct {
	issuer    string
	id        string
	audiences []string
	account   *corev1.ServiceAccount
	pod       *corev1.Pod
	secret    *corev1.Secret
	node      *corev1.Node
	lifetime  time.Duration
}

// claims writes a grant down.
func (g grant) claims(now time.Time) (jwt.Claims, privateClaims) {
	public := jwt.Claims{
		ID:        g.id,
		Issuer:    g.issuer,
		Subject:   "system:serviceaccount:" + g.account.Namespace + ":" + g.account.Name,
		Audience:  jwt.Audience(g.audiences),
		IssuedAt:  jwt.NewNumericDate(now),
		NotBefore: jwt.NewNumericDate(now),
		Expiry:    jwt.NewNumericDate(now.Add(g.lifetime)),
	}
	private := privateClaims{kubernetesClaims{
		Namespace:      g.account.Namespace,
		ServiceAccount: ref{g.account.Name, string(g.account.UID)},
	}}
	if g.pod != nil {
		private.Kubernetes.Pod = &ref{g.pod.Name, string(g.pod.UID)}
	}
	if g.secret != nil {
		private.Kubernetes.Secret = &ref{g.secret.Name, string(g.secret.UID)}
	}
	if g.node != nil {
		private.Kubernetes.Node = &ref{g.node.Name, string(g.node.UID)}
	}
	return public, private
}

// goneAfter is how long an object's tokens outlive the start of its deletion,
// so that a pod can still say good-bye.
const goneAfter = time.Minute

// standing decides whether an object that a token names still stands behind it.
// have is nil when there is no such object.
func standing(now time.Time, kind string, want ref, have metav1.Object) error {
	if have == nil {
		return fmt.Errorf("%s %s does not exist any more", kind, want.Name)
	}
	if have.GetUID() != types.UID(want.UID) {
		return fmt.Errorf("%s %s was replaced by another of that name", kind, want.Name)
	}
	if at := have.GetDeletionTimestamp(); at != nil && now.After(at.Add(goneAfter)) {
		return fmt.Errorf("%s %s was deleted at %s", kind, want.Name, at.UTC().Format(time.RFC3339))
	}
	return nil
}

// intersect keeps the order of have.
func intersect(have, want []string) []string {
	return slices.DeleteFunc(slices.Clone(have), func(a string) bool { return !slices.Contains(want, a) })
}
