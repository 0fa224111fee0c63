package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"perch/cmd/perch/daemon/door"
)

// scrapeAccountName is the ServiceAccount in kube-system for which monitors with
// `bearerTokenFile: …/serviceaccount/token` scrape. Whoever may write monitors may
// have its token sent to a pod of theirs, so it may read /metrics and nothing
// else: at the API by its one role, at the web door by its name.
const scrapeAccountName = door.ScrapeAccount

const (
	scrapeTokenLife  = 24 * time.Hour
	scrapeTokenRetry = 5 * time.Second
)

// ensureScrapeAccount is for the server role.
func ensureScrapeAccount(ctx context.Context, c clients) error {
	meta := metav1.ObjectMeta{Name: scrapeAccountName, Namespace: metav1.NamespaceSystem}
	if _, err := c.kube.CoreV1().ServiceAccounts(meta.Namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta}, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create ServiceAccount %s: %w", scrapeAccountName, err)
	}
	bind := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: scrapeAccountName},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "system:monitoring"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: meta.Namespace, Name: meta.Name}}}
	if _, err := c.kube.RbacV1().ClusterRoleBindings().Create(ctx, bind, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create ClusterRoleBinding %s: %w", scrapeAccountName, err)
	}
	return nil
}

// scrapeAccount keeps a token of that account.
type scrapeAccount struct {
	client  kubernetes.Interface
	changed func()
	log     *slog.Logger
	token   atomic.Pointer[string]
}

func newScrapeAccount(client kubernetes.Interface, changed func(), log *slog.Logger) *scrapeAccount {
	return &scrapeAccount{client: client, changed: changed, log: log}
}

// now is the token, empty while there is none.
func (a *scrapeAccount) now() string {
	if t := a.token.Load(); t != nil {
		return *t
	}
	return ""
}

// Run renews the token at half its life until ctx ends.
func (a *scrapeAccount) Run(ctx context.Context) error {
	for {
		wait := scrapeTokenLife / 2
		seconds := int64(scrapeTokenLife / time.Second)
		got, err := a.client.CoreV1().ServiceAccounts(metav1.NamespaceSystem).CreateToken(ctx, scrapeAccountName,
			&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}, metav1.CreateOptions{})
		if err != nil {
			wait = scrapeTokenRetry
			a.log.Debug("token for scrapes was not made, it is tried again", "err", err) // at the first start the account comes in a moment
		} else {
			a.token.Store(&got.Status.Token)
			a.changed()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}
