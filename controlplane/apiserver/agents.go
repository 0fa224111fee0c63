package apiserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
)

// agentPort is where an agent listens when its Node does not say.
const agentPort = 10250

// agents reaches the kubelet API of a node: address and port come from the Node
// object, identity from the TLS configuration.
type agents struct {
	nodes     *genericregistry.Store // set when nodes are installed
	transport http.RoundTripper
}

func newAgents(conf *tls.Config) *agents {
	if conf == nil {
		conf = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	conf = conf.Clone()
	conf.NextProtos = []string{"http/1.1"} // HTTP/2 cannot be upgraded to a stream
	return &agents{transport: &http.Transport{
		TLSClientConfig:     conf,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 8,
		IdleConnTimeout:     90 * time.Second,
	}}
}

// urlOf is the root of a node's kubelet API.
func (a *agents) urlOf(ctx context.Context, node string) (*url.URL, error) {
	o, err := a.nodes.Get(ctx, node, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	n := o.(*corev1.Node)
	host, err := addressOf(n)
	if err != nil {
		return nil, apierrors.NewServiceUnavailable(err.Error())
	}
	return &url.URL{Scheme: "https", Host: net.JoinHostPort(host, strconv.Itoa(portOf(n)))}, nil
}

func addressOf(n *corev1.Node) (string, error) {
	for _, kind := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeHostName, corev1.NodeExternalIP} {
		for _, a := range n.Status.Addresses {
			if a.Type == kind && a.Address != "" {
				return a.Address, nil
			}
		}
	}
	return "", fmt.Errorf("node %s has no address", n.Name)
}

func portOf(n *corev1.Node) int {
	if p := n.Status.DaemonEndpoints.KubeletEndpoint.Port; p > 0 {
		return int(p)
	}
	return agentPort
}

// podAt is the node's URL of a pod that runs there.
func (a *agents) podAt(ctx context.Context, p *corev1.Pod) (*url.URL, error) {
	if p.Spec.NodeName == "" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", p.Name))
	}
	return a.urlOf(ctx, p.Spec.NodeName)
}
