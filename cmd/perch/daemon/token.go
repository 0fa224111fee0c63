package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"perch/cmd/perch/daemon/config"
	"perch/controlplane/auth/pki"
	"perch/controlplane/auth/token"
)

func tokenCommand(out io.Writer) *cobra.Command {
	var dir, into string
	var life time.Duration
	c := &cobra.Command{Use: "token", Short: "Print a bearer token of an administrator, or of who pushes lines", Args: noArguments}
	dataDirFlag(c, &dir)
	c.Flags().DurationVar(&life, "duration", time.Hour, "how long it is good")
	c.Flags().StringVar(&into, "push-into", "", "instead, a token that is good for nothing but pushing lines, which land in this namespace")
	c.RunE = func(c *cobra.Command, _ []string) error {
		_, client, err := adminClient(dir)
		if err != nil {
			return err
		}
		request := token.Admin
		if c.Flags().Changed("push-into") {
			request = pushToken(into)
		}
		text, err := request(c.Context(), client, life)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, text)
		return nil
	}
	return c
}

// pushAccount is the service account of a namespace that only pushes lines: no
// role is bound to it.
const pushAccount = "perch-push"

// pushToken makes tokens whose lines land in a namespace, and the account they
// are of.
func pushToken(namespace string) func(context.Context, kubernetes.Interface, time.Duration) (string, error) {
	return func(ctx context.Context, client kubernetes.Interface, life time.Duration) (string, error) {
		accounts := client.CoreV1().ServiceAccounts(namespace)
		_, err := accounts.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: pushAccount, Namespace: namespace}}, metav1.CreateOptions{})
		if apierrors.IsNotFound(err) {
			return "", refused{fmt.Errorf("--push-into %s: there is no such namespace", namespace)}
		} else if err != nil && !apierrors.IsAlreadyExists(err) {
			return "", fmt.Errorf("create serviceaccount %s/%s: %w", namespace, pushAccount, err)
		}
		seconds := int64(life / time.Second)
		got, err := accounts.CreateToken(ctx, pushAccount, &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}, metav1.CreateOptions{})
		if err != nil {
			return "", fmt.Errorf("request token of serviceaccount %s/%s: %w", namespace, pushAccount, err)
		}
		return got.Status.Token, nil
	}
}

func nodeCommand(out, errOut io.Writer) *cobra.Command {
	node := family("node", "Join and manage nodes")
	var dir string
	var life time.Duration
	c := &cobra.Command{Use: "token", Short: "Print a token with which one machine may join", Args: noArguments}
	dataDirFlag(c, &dir)
	c.Flags().DurationVar(&life, "duration", 15*time.Minute, "how long it is good")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if life <= 0 {
			return refused{fmt.Errorf("--duration %s: give more than nothing, for example 15m", life)}
		}
		cfg, client, err := adminClient(dir)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(cfg.Path("ca.crt"))
		if err != nil {
			return fmt.Errorf("read CA: %w", err)
		}
		ca, err := pki.ParseCertificate(text)
		if err != nil {
			return fmt.Errorf("read CA: %w", err)
		}
		j, err := token.CreateJoin(c.Context(), client, pki.Pin(ca), time.Now(), life)
		if err != nil {
			return err
		}
		fmt.Fprintf(errOut, "on the new machine: perch agent --server https://%s:%d --token …  (one use, good for %s)\n", cfg.AdvertiseAddress, cfg.APIPort, life)
		fmt.Fprintln(out, j)
		return nil
	}
	node.AddCommand(c)
	return node
}

// adminClient speaks to the API of the cluster in a data directory.
func adminClient(dir string) (config.Config, kubernetes.Interface, error) {
	cfg, err := config.Load(dir)
	if err != nil {
		return cfg, nil, err
	}
	if cfg.Kind != config.Server {
		return cfg, nil, refused{fmt.Errorf("%s is a worker: run this on a server", cfg.NodeName)}
	}
	rc, err := clientcmd.BuildConfigFromFlags("", cfg.Path("kubeconfig"))
	if err != nil {
		return cfg, nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	rc.Timeout = 10 * time.Second
	client, err := kubernetes.NewForConfig(rc)
	if err != nil {
		return cfg, nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	return cfg, client, nil
}

// loginLink asks the telemetry role for a one-time code.
func loginLink(ctx context.Context, cfg config.Config) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://telemetry/ui/api/v1/code", http.NoBody)
	if err != nil {
		return "", fmt.Errorf("ask for login code: %w", err)
	}
	resp, err := unixClient(cfg.Socket("telemetry")).Do(req)
	if err != nil {
		return "", fmt.Errorf("ask for login code: %w", err)
	}
	defer resp.Body.Close()
	var got struct{ Code string }
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || got.Code == "" {
		return "", fmt.Errorf("ask for login code: %s: %w", resp.Status, err)
	}
	return webURL(cfg) + "/#login=" + got.Code, nil
}

func webURL(cfg config.Config) string {
	return fmt.Sprintf("https://%s:%d", cfg.AdvertiseAddress, cfg.WebPort)
}

// hostOf is host:port of an API URL.
func hostOf(server string) (string, error) {
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" {
		return "", fmt.Errorf("--server %q: write it as https://10.0.0.11:6443", server)
	}
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), "6443"), nil
	}
	return u.Host, nil
}
