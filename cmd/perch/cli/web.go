package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/pflag"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// access is how a command reaches the cluster; its flags are kubectl's.
type access struct {
	flags *genericclioptions.ConfigFlags
}

func newAccess(fs *pflag.FlagSet) access {
	a := access{genericclioptions.NewConfigFlags(true)}
	a.flags.AddFlags(fs)
	return a
}

func (a access) namespace() (string, error) {
	ns, _, err := a.flags.ToRawKubeConfigLoader().Namespace()
	return ns, err
}

func (a access) rest() (*rest.Config, error) {
	cfg, err := a.flags.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("find cluster: %w: set KUBECONFIG to the kubeconfig in the data directory", err)
	}
	return cfg, nil
}

// web is the web door as this user sees it.
type web struct {
	base   *url.URL
	client *http.Client
	api    kubernetes.Interface
}

func (a access) web(ctx context.Context) (*web, error) {
	cfg, err := a.rest()
	if err != nil {
		return nil, err
	}
	api, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("reach cluster: %w", err)
	}
	ask, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	info, err := api.CoreV1().ConfigMaps("kube-public").Get(ask, "perch-info", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("cluster at %s is not a perch cluster: it has no ConfigMap kube-public/perch-info", cfg.Host)
	} else if err != nil {
		return nil, fmt.Errorf("reach cluster at %s: %w", cfg.Host, err)
	}
	base, err := url.Parse(info.Data["web"])
	if err != nil || base.Host == "" {
		return nil, fmt.Errorf("ConfigMap kube-public/perch-info: data.web %q is not a URL", info.Data["web"])
	}
	transport, err := rest.TransportFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("reach web door: %w", err)
	}
	return &web{base, &http.Client{Transport: transport}, api}, nil
}

// get opens a stream; the caller closes it.
func (w *web) get(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	u := w.base.JoinPath(path)
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", u, err)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask web door: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, answerError(resp)
	}
	return resp.Body, nil
}

// problem is the error shape of all our doors: Prometheus' plus the position.
type problem struct {
	Error    string `json:"error"`
	Position *int   `json:"position"`
}

func answerError(resp *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	var p problem
	if json.Unmarshal(text, &p) == nil && p.Error != "" {
		if resp.StatusCode == http.StatusBadRequest {
			return Usage{errors.New(p.Error)}
		}
		return errors.New(p.Error)
	}
	return fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(text)))
}

func (w *web) json(ctx context.Context, path string, query url.Values, into any) error {
	body, err := w.get(ctx, path, query)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(into); err != nil {
		return fmt.Errorf("read answer of %s: %w", path, err)
	}
	return nil
}
