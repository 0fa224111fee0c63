package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/tools/clientcmd"
)

// FindKubeconfig points KUBECONFIG at the cluster of this machine when the
// user has not chosen one. Without any, commands say so (noCluster) instead of
// trying a port of this machine that an old convention names.
func FindKubeconfig(dataDir string) {
	if os.Getenv("KUBERNETES_MASTER") == "" {
		clientcmd.ClusterDefaults.Server = ""
	}
	if os.Getenv("KUBECONFIG") != "" {
		return
	}
	if home, err := os.UserHomeDir(); err == nil {
		if _, err := os.Stat(home + "/.kube/config"); err == nil {
			return
		}
	}
	if f, err := os.Open(dataDir + "/kubeconfig"); err == nil {
		f.Close()
		os.Setenv("KUBECONFIG", dataDir+"/kubeconfig")
	}
}

// noCluster is what a user without a usable kubeconfig reads.
func noCluster() error {
	if path := os.Getenv("KUBECONFIG"); path != "" {
		return fmt.Errorf("no cluster is known: KUBECONFIG is %s, which names none; set it to the kubeconfig in the data directory of a server, or start a cluster with `sudo perch up`", path)
	}
	return errors.New("no cluster is known: set KUBECONFIG to the kubeconfig in the data directory of a server (only root may read it), or start a cluster with `sudo perch up`")
}

// knowsNone tells whether an error means that no kubeconfig names a cluster.
func knowsNone(err error) bool {
	return errors.Is(err, genericclioptions.ErrEmptyConfig) || clientcmd.IsEmptyConfig(err)
}

// fatal is what an error of the embedded kubectl becomes, and its exit code.
func fatal(name, msg string, code int) (string, int) {
	switch {
	case strings.Contains(msg, clientcmd.ErrEmptyConfig.Error()), strings.Contains(msg, genericclioptions.ErrEmptyConfig.Error()):
		msg = name + ": " + noCluster().Error()
	case name != "kubectl" && (strings.HasPrefix(msg, "error: unknown command") || strings.HasPrefix(msg, "error: unknown flag")):
		code = 2
	}
	return msg, code
}
