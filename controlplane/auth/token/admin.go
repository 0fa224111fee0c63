package token

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// AdminAccount is the ServiceAccount in kube-system that `perch token` speaks
// for. auth/rbac binds it to cluster-admin.
const AdminAccount = "perch-admin"

// EnsureAdmin creates AdminAccount if it is missing. auth/rbac does it at start.
func EnsureAdmin(ctx context.Context, client kubernetes.Interface) error {
	accounts := client.CoreV1().ServiceAccounts(metav1.NamespaceSystem)
	_, err := accounts.Get(ctx, AdminAccount, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: AdminAccount, Namespace: metav1.NamespaceSystem}}
		_, err = accounts.Create(ctx, account, metav1.CreateOptions{})
	}
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create serviceaccount %s: %w", AdminAccount, err)
	}
	return nil
}

// Admin makes a bearer token with all rights, good for lifetime (at least ten
// minutes). client must be allowed to create tokens of AdminAccount.
func Admin(ctx context.Context, client kubernetes.Interface, lifetime time.Duration) (string, error) {
	seconds := int64(lifetime / time.Second)
	answer, err := client.CoreV1().ServiceAccounts(metav1.NamespaceSystem).CreateToken(ctx, AdminAccount, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("request token of serviceaccount %s: %w", AdminAccount, err)
	}
	return answer.Status.Token, nil
}
