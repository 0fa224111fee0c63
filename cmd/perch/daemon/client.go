package daemon

import (
	"fmt"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/transport"

	"perch/cmd/perch/daemon/config"
)

// clients are the ways one identity speaks to the API.
type clients struct {
	rest     *rest.Config
	kube     kubernetes.Interface
	dynamic  dynamic.Interface
	metadata metadata.Interface
}

// connect uses D/pki/<name>.kubeconfig. It does not wait for the API.
// Requests go through wraps.
func connect(cfg config.Config, name string, wraps ...transport.WrapperFunc) (clients, error) {
	rc, err := clientcmd.BuildConfigFromFlags("", cfg.Path("pki", name+".kubeconfig"))
	if err != nil {
		return clients{}, fmt.Errorf("read kubeconfig %s: %w", name, err)
	}
	rc.QPS, rc.Burst = 100, 200
	return clientsFor(rc, wraps...)
}

func clientsFor(rc *rest.Config, wraps ...transport.WrapperFunc) (clients, error) {
	for _, w := range wraps {
		rc.Wrap(w)
	}
	c := clients{rest: rc}
	binary := rest.CopyConfig(rc)
	binary.ContentType = "application/vnd.kubernetes.protobuf"
	binary.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	client, err := machineClient(rc)
	if err != nil {
		return c, err
	}
	if c.kube, err = kubernetes.NewForConfigAndClient(binary, client); err != nil {
		return c, fmt.Errorf("make API client: %w", err)
	}
	if c.dynamic, err = dynamic.NewForConfigAndClient(rc, client); err != nil {
		return c, fmt.Errorf("make API client: %w", err)
	}
	if c.metadata, err = metadata.NewForConfigAndClient(rc, client); err != nil {
		return c, fmt.Errorf("make API client: %w", err)
	}
	return c, nil
}
