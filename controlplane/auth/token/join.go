package token

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"perch/controlplane/auth/pki"
)

const (
	annotationNode  = "perch.io/join-node" // the node that claimed the token
	annotationKey   = "perch.io/join-key"  // SHA-256 of the public key it claimed it with
	annotationAt    = "perch.io/join-claimed-at"
	annotationSpent = "perch.io/join-spent-at"

	labelJoin = "perch.io/join-token"

	// fetchFor is how long a node may go on reading its certificate with a
	// claimed token. Nobody else gets a certificate with it in that time.
	fetchFor = time.Minute
	// keptFor is how long the reason for a refusal is remembered.
	keptFor = 24 * time.Hour
)

// ErrClaimed says that a join token already belongs to another node or key.
var ErrClaimed = errors.New("join token was used before")

// CreateJoin makes a join token for the cluster whose CA has that pin, good for
// one node within ttl.
func CreateJoin(ctx context.Context, client kubernetes.Interface, pin string, now time.Time, ttl time.Duration) (pki.Join, error) {
	j, err := pki.NewJoin(pin)
	if err != nil {
		return pki.Join{}, err
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: secretPrefix + j.ID, Namespace: metav1.NamespaceSystem, Labels: map[string]string{labelJoin: "true"}},
		Type:       secretType,
		Data: map[string][]byte{
			"token-id":                       []byte(j.ID),
			"token-secret":                   []byte(j.Secret),
			"usage-bootstrap-authentication": []byte("true"),
			"auth-extra-groups":              []byte(JoinGroup),
			"expiration":                     []byte(now.Add(ttl).UTC().Format(time.RFC3339)),
			"description":                    []byte("lets one machine join this cluster"),
		},
	}
	if _, err := client.CoreV1().Secrets(metav1.NamespaceSystem).Create(ctx, secret, metav1.CreateOptions{}); err != nil {
		return pki.Join{}, fmt.Errorf("create join token %s: %w", j.ID, err)
	}
	return j, nil
}

// DeleteJoin forgets a token; one that is gone already is no error.
func DeleteJoin(ctx context.Context, client kubernetes.Interface, id string) error {
	err := client.CoreV1().Secrets(metav1.NamespaceSystem).Delete(ctx, secretPrefix+id, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete join token %s: %w", id, err)
	}
	return nil
}

// ClaimJoin gives a token to one node and one public key, before the node's
// certificate is signed. The same node and key may claim it again. ErrClaimed
// is wrapped when another came first, or when there is no such token any more;
// the text says which. A write race is an API conflict: try again.
func ClaimJoin(ctx context.Context, client kubernetes.Interface, id, node, keyHash string, now time.Time) error {
	secret, err := client.CoreV1().Secrets(metav1.NamespaceSystem).Get(ctx, secretPrefix+id, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("claim join token %s for node %s: %w: it does not exist any more", id, node, ErrClaimed)
	}
	if err != nil {
		return fmt.Errorf("claim join token %s for node %s: %w", id, node, err)
	}
	if holder := secret.Annotations[annotationNode]; holder != "" {
		if holder == node && secret.Annotations[annotationKey] == keyHash {
			return nil
		}
		return fmt.Errorf("claim join token %s for node %s: %w: node %s has it", id, node, ErrClaimed, holder)
	}
	secret = secret.DeepCopy()
	metav1.SetMetaDataAnnotation(&secret.ObjectMeta, annotationNode, node)
	metav1.SetMetaDataAnnotation(&secret.ObjectMeta, annotationKey, keyHash)
	metav1.SetMetaDataAnnotation(&secret.ObjectMeta, annotationAt, now.UTC().Format(time.RFC3339))
	if _, err := client.CoreV1().Secrets(metav1.NamespaceSystem).Update(ctx, secret, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("claim join token %s for node %s: %w", id, node, err)
	}
	return nil
}

// Fresh says whether a token is there, claimed by no node, and good for at least
// that long.
func Fresh(ctx context.Context, client kubernetes.Interface, id string, now time.Time, left time.Duration) (bool, error) {
	secret, err := client.CoreV1().Secrets(metav1.NamespaceSystem).Get(ctx, secretPrefix+id, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at join token %s: %w", id, err)
	}
	ends, err := time.Parse(time.RFC3339, string(secret.Data["expiration"]))
	return err == nil && secret.Annotations[annotationNode] == "" && now.Add(left).Before(ends), nil
}

// Spent decides what to do with a token's Secret: spend it a minute after it
// was claimed, remove it a day after it expired, else leave it.
func Spent(now time.Time, secret *corev1.Secret) (spend, remove bool, reason string) {
	if secret.Type != secretType {
		return false, false, ""
	}
	if at, err := time.Parse(time.RFC3339, string(secret.Data["expiration"])); err == nil && now.After(at.Add(keptFor)) {
		return false, true, "it expired a day ago"
	}
	node := secret.Annotations[annotationNode]
	if node == "" || len(secret.Data["token-secret"]) == 0 {
		return false, false, ""
	}
	// A time that cannot be read counts as long ago.
	if at, err := time.Parse(time.RFC3339, secret.Annotations[annotationAt]); err == nil && now.Before(at.Add(fetchFor)) {
		return false, false, ""
	}
	return true, false, "node " + node + " joined with it"
}

// SpendJoin removes the credential and keeps its hash, so that a second use can
// be told why it is refused.
func SpendJoin(ctx context.Context, client kubernetes.Interface, now time.Time, have *corev1.Secret) error {
	secret := have.DeepCopy()
	secret.Data["spent-hash"] = []byte(spentHash(string(secret.Data["token-secret"])))
	delete(secret.Data, "token-secret")
	delete(secret.Data, "usage-bootstrap-authentication")
	metav1.SetMetaDataAnnotation(&secret.ObjectMeta, annotationSpent, now.UTC().Format(time.RFC3339))
	if _, err := client.CoreV1().Secrets(metav1.NamespaceSystem).Update(ctx, secret, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("spend join token %s: %w", secret.Name, err)
	}
	return nil
}

// Joins lists the Secrets of join tokens, the used and expired ones among them.
func Joins(ctx context.Context, client kubernetes.Interface) ([]corev1.Secret, error) {
	list, err := client.CoreV1().Secrets(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{LabelSelector: labelJoin})
	if err != nil {
		return nil, fmt.Errorf("list join tokens: %w", err)
	}
	return list.Items, nil
}
