package token

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
)

const (
	shortest = 10 * time.Minute // Kubernetes refuses less
	usual    = time.Hour
	longest  = 365 * 24 * time.Hour
)

// Issuer signs and checks ServiceAccount tokens. It is an authenticator.Token.
type Issuer struct {
	*Verifier
	keyID   string
	signer  jose.Signer
	objects Objects
}

// URL is the issuer's name for a cluster domain such as cluster.local.
func URL(domain string) string { return "https://kubernetes.default.svc." + domain }

// NewIssuer signs with key in the name of url.
func NewIssuer(url string, key *ecdsa.PrivateKey, objects Objects) (*Issuer, error) {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("encode token signing key: %w", err)
	}
	sum := sha256.Sum256(der)
	keyID := base64.RawURLEncoding.EncodeToString(sum[:])
	signer, err := jose.NewSigner(jose.SigningKey{
		Algorithm: jose.ES256, Key: jose.JSONWebKey{Algorithm: string(jose.ES256), Key: key, KeyID: keyID, Use: "sig"},
	}, nil)
	if err != nil {
		return nil, fmt.Errorf("open token signer: %w", err)
	}
	return &Issuer{Verifier: NewVerifier(url, &key.PublicKey), keyID: keyID, signer: signer, objects: objects}, nil
}

// Audiences are those of the API server itself: a token without a wish gets
// them, and only a token that has one of them opens the API.
func (i *Issuer) Audiences() authenticator.Audiences { return authenticator.Audiences{i.url} }

// Request answers a TokenRequest for a ServiceAccount. Its errors are API
// errors. The answer is a new object; its metadata and status are filled.
func (i *Issuer) Request(ctx context.Context, namespace, name string, want *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	out := want.DeepCopy()
	if len(out.Spec.Audiences) == 0 {
		out.Spec.Audiences = i.Audiences()
	}
	lifetime := usual
	if out.Spec.ExpirationSeconds != nil {
		lifetime = time.Duration(min(*out.Spec.ExpirationSeconds, int64(longest/time.Second))) * time.Second
	}
	if lifetime < shortest {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("spec.expirationSeconds: %d is too short, want at least %d", *out.Spec.ExpirationSeconds, int64(shortest/time.Second)))
	}
	seconds := int64(lifetime / time.Second)
	out.Spec.ExpirationSeconds = &seconds
	account, err := i.objects.ServiceAccount(ctx, namespace, name, "")
	if err != nil {
		return nil, err
	}
	g := grant{issuer: i.url, id: string(uuid.NewUUID()), audiences: out.Spec.Audiences, account: account, lifetime: lifetime}
	if bound := out.Spec.BoundObjectRef; bound != nil {
		if err := i.bind(ctx, &g, bound); err != nil {
			return nil, err
		}
	}
	now := i.now()
	out.Status.Token, err = i.sign(now, g)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	out.Name, out.Namespace = account.Name, account.Namespace
	out.CreationTimestamp = metav1.NewTime(now)
	out.Status.ExpirationTimestamp = metav1.NewTime(now.Add(lifetime))
	return out, nil
}

// bind looks up the object that the token shall die with.
func (i *Issuer) bind(ctx context.Context, g *grant, bound *authenticationv1.BoundObjectReference) error {
	var have metav1.Object
	var err error
	switch {
	case bound.Kind == "Pod" && bound.APIVersion == "v1":
		g.pod, err = i.objects.Pod(ctx, g.account.Namespace, bound.Name, bound.UID)
		if err != nil {
			return err
		}
		if g.pod.Spec.ServiceAccountName != g.account.Name {
			return apierrors.NewBadRequest(fmt.Sprintf("spec.boundObjectRef: pod %s runs as serviceaccount %q, a token of %q cannot be bound to it",
				bound.Name, g.pod.Spec.ServiceAccountName, g.account.Name))
		}
		have = g.pod
		if node := g.pod.Spec.NodeName; node != "" {
			if g.node, err = absent(i.objects.Node(ctx, node, "")); err != nil {
				return err
			}
			if g.node == nil { // the pod knows its node before the node has an object
				g.node = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}
			}
		}
	case bound.Kind == "Secret" && bound.APIVersion == "v1":
		if g.secret, err = i.objects.Secret(ctx, g.account.Namespace, bound.Name, bound.UID); err != nil {
			return err
		}
		have = g.secret
	case bound.Kind == "Node" && bound.APIVersion == "v1":
		if g.node, err = i.objects.Node(ctx, bound.Name, bound.UID); err != nil {
			return err
		}
		have = g.node
	default:
		return apierrors.NewBadRequest(fmt.Sprintf("spec.boundObjectRef: a token cannot be bound to %s %s, want a v1 Pod, Secret or Node", bound.APIVersion, bound.Kind))
	}
	if bound.UID != "" && bound.UID != have.GetUID() {
		return apierrors.NewConflict(schema.GroupResource{Resource: strings.ToLower(bound.Kind) + "s"}, bound.Name,
			fmt.Errorf("the object has uid %s, the reference wants %s; it may have been deleted and created again", have.GetUID(), bound.UID))
	}
	return nil
}

func (i *Issuer) sign(now time.Time, g grant) (string, error) {
	public, private := g.claims(now)
	text, err := jwt.Signed(i.signer).Claims(public).Claims(private).Serialize()
	if err != nil {
		return "", fmt.Errorf("sign token of serviceaccount %s/%s: %w", g.account.Namespace, g.account.Name, err)
	}
	return text, nil
}

// AuthenticateToken checks a bearer token. A text that is not one of ours gets
// no opinion; one of ours that is not good any more gets an error.
func (i *Issuer) AuthenticateToken(ctx context.Context, text string) (*authenticator.Response, bool, error) {
	now := i.now()
	public, private, ours, err := i.read(text, now)
	if !ours || err != nil {
		return nil, false, err
	}
	wanted, ok := authenticator.AudiencesFrom(ctx)
	if !ok {
		wanted = i.Audiences()
	}
	audiences := intersect(public.Audience, wanted)
	if len(audiences) == 0 {
		return nil, false, fmt.Errorf("check serviceaccount token of %s: it is meant for %q, not for %q", public.Subject, public.Audience, []string(wanted))
	}
	if err := i.stands(ctx, now, private.Kubernetes); err != nil {
		return nil, false, fmt.Errorf("check serviceaccount token of %s: %w", public.Subject, err)
	}
	k := private.Kubernetes
	info := serviceaccount.ServiceAccountInfo{Namespace: k.Namespace, Name: k.ServiceAccount.Name, UID: k.ServiceAccount.UID}
	if public.ID != "" {
		info.CredentialID = "JTI=" + public.ID
	}
	if k.Pod != nil {
		info.PodName, info.PodUID = k.Pod.Name, k.Pod.UID
	}
	if k.Node != nil {
		info.NodeName, info.NodeUID = k.Node.Name, k.Node.UID
	}
	if public.Subject != serviceaccount.MakeUsername(info.Namespace, info.Name) {
		return nil, false, fmt.Errorf("check serviceaccount token of %s: it names %s/%s inside", public.Subject, info.Namespace, info.Name)
	}
	return &authenticator.Response{User: info.UserInfo(), Audiences: audiences}, true, nil
}

// stands asks whether everything that the token names is still there.
func (i *Issuer) stands(ctx context.Context, now time.Time, k kubernetesClaims) error {
	account, err := absent(i.objects.ServiceAccount(ctx, k.Namespace, k.ServiceAccount.Name, types.UID(k.ServiceAccount.UID)))
	if err != nil {
		return err
	}
	if err := standing(now, "serviceaccount", k.ServiceAccount, object(account)); err != nil {
		return err
	}
	switch {
	case k.Pod != nil:
		pod, err := absent(i.objects.Pod(ctx, k.Namespace, k.Pod.Name, types.UID(k.Pod.UID)))
		if err != nil {
			return err
		}
		return standing(now, "pod", *k.Pod, object(pod))
	case k.Secret != nil:
		secret, err := absent(i.objects.Secret(ctx, k.Namespace, k.Secret.Name, types.UID(k.Secret.UID)))
		if err != nil {
			return err
		}
		return standing(now, "secret", *k.Secret, object(secret))
	case k.Node != nil:
		node, err := absent(i.objects.Node(ctx, k.Node.Name, types.UID(k.Node.UID)))
		if err != nil {
			return err
		}
		return standing(now, "node", *k.Node, object(node))
	}
	return nil
}

// object keeps a nil pointer from becoming a non-nil interface.
func object[T any, P interface {
	*T
	metav1.Object
}](p P) metav1.Object {
	if p == nil {
		return nil
	}
	return p
}
