package token

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"

	"perch/controlplane/auth/pki"
)

const (
	// BootstrapUserPrefix comes before the token's id in the user's name.
	BootstrapUserPrefix = "system:bootstrap:"
	// JoinGroup holds the users of join tokens.
	JoinGroup = "system:bootstrappers:perch"

	bootstrappersGroup = "system:bootstrappers"
	secretPrefix       = "bootstrap-token-"
	secretType         = corev1.SecretType("bootstrap.kubernetes.io/token")
)

// Bootstrap authenticates the credential of a join token. It asks for the
// Secret each time, so that a spent token ends at once.
type Bootstrap struct {
	secret func(ctx context.Context, name string) (*corev1.Secret, error)
	now    func() time.Time
	turn   chan struct{} // maxAsking
}

// maxAsking join tokens are looked up at once: anybody can make some up.
const maxAsking = 8

// NewBootstrap reads the Secrets of kube-system through client.
func NewBootstrap(client kubernetes.Interface) *Bootstrap {
	return &Bootstrap{
		secret: func(ctx context.Context, name string) (*corev1.Secret, error) {
			return found(client.CoreV1().Secrets(metav1.NamespaceSystem).Get(ctx, name, metav1.GetOptions{}))
		},
		now:  time.Now,
		turn: make(chan struct{}, maxAsking),
	}
}

// AuthenticateToken accepts "<id>.<secret>" while the token is neither expired
// nor spent. Anything else gets no opinion: who guesses learns nothing.
func (b *Bootstrap) AuthenticateToken(ctx context.Context, text string) (*authenticator.Response, bool, error) {
	groups, verdict, _, err := b.judge(ctx, text)
	if err != nil || verdict != good {
		return nil, false, err
	}
	id, _, _ := strings.Cut(text, ".")
	return &authenticator.Response{User: &user.DefaultInfo{Name: BootstrapUserPrefix + id, Groups: groups}}, true, nil
}

func (b *Bootstrap) judge(ctx context.Context, text string) ([]string, verdict, string, error) {
	id, presented, ok := strings.Cut(text, ".")
	if !ok || !pki.ValidBootstrap(id, presented) {
		return nil, unknown, "", nil
	}
	secret, err := absent(b.look(ctx, secretPrefix+id))
	if err != nil {
		return nil, unknown, "", fmt.Errorf("read join token %s: %w", id, err)
	}
	groups, v, reason := judge(b.now(), secret, id, presented)
	return groups, v, reason, nil
}

func (b *Bootstrap) look(ctx context.Context, name string) (*corev1.Secret, error) {
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
		return b.secret(ctx, name)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type verdict int

const (
	unknown verdict = iota // wrong form, wrong id, wrong secret: no word about why
	good
	refused // the right secret, but too late: the holder may know why
)

// judge decides about a presented credential. secret is nil when there is none.
func judge(now time.Time, secret *corev1.Secret, id, presented string) (groups []string, v verdict, reason string) {
	if secret == nil || secret.Type != secretType || secret.DeletionTimestamp != nil || string(secret.Data["token-id"]) != id {
		return nil, unknown, ""
	}
	if hash := secret.Data["spent-hash"]; len(hash) > 0 {
		if subtle.ConstantTimeCompare(hash, []byte(spentHash(presented))) != 1 {
			return nil, unknown, ""
		}
		return nil, refused, fmt.Sprintf("join token %s was used before, by node %s at %s; it is good for one node, make another with `perch node token`",
			id, secret.Annotations[annotationNode], secret.Annotations[annotationSpent])
	}
	want := secret.Data["token-secret"]
	if len(want) == 0 || subtle.ConstantTimeCompare(want, []byte(presented)) != 1 {
		return nil, unknown, ""
	}
	if string(secret.Data["usage-bootstrap-authentication"]) != "true" {
		return nil, refused, fmt.Sprintf("token %s is not meant for authentication", id)
	}
	if text := string(secret.Data["expiration"]); text != "" {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return nil, refused, fmt.Sprintf("token %s has an expiration that is not a time: %q", id, text)
		}
		if !now.Before(at) {
			return nil, refused, fmt.Sprintf("join token %s expired at %s; make another with `perch node token`", id, text)
		}
	}
	groups = []string{bootstrappersGroup}
	for _, g := range strings.Split(string(secret.Data["auth-extra-groups"]), ",") {
		// Only groups below ours: a Secret must not make its holder an admin.
		if g = strings.TrimSpace(g); strings.HasPrefix(g, bootstrappersGroup+":") && !slices.Contains(groups, g) {
			groups = append(groups, g)
		}
	}
	return groups, good, ""
}

func spentHash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// explainLimit is how long a request may wait for its reason: no limit of requests
// stands before Explain.
const explainLimit = 5 * time.Second

// Explain answers requests that carry a spent or expired join token with the
// reason, which the API server's plain "Unauthorized" would not give, and
// refuses a whole join token where a bearer token belongs. Everything else goes
// to next, which authenticates as always.
func (b *Bootstrap) Explain(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, text, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !strings.EqualFold(scheme, "bearer") {
			next.ServeHTTP(w, r)
			return
		}
		text = strings.TrimSpace(text)
		if _, err := pki.ParseJoin(text); err == nil {
			unauthorized(w, pki.CheckBearer(text).Error())
			return
		}
		if id, secret, ok := strings.Cut(text, "."); ok && pki.ValidBootstrap(id, secret) {
			ctx, cancel := context.WithTimeout(r.Context(), explainLimit)
			_, v, reason, err := b.judge(ctx, text)
			cancel()
			if err == nil && v == refused {
				unauthorized(w, reason)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

func unauthorized(w http.ResponseWriter, reason string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("WWW-Authenticate", `Bearer realm="perch"`)
	w.WriteHeader(http.StatusUnauthorized)
	_ = json.NewEncoder(w).Encode(metav1.Status{ // the reader may have gone away
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Reason: metav1.StatusReasonUnauthorized, Code: http.StatusUnauthorized, Message: reason,
	})
}
