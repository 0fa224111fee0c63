// Command perch-shim is the small helper that starts beside every pod: the
// containerd runc-v2 shim, and, called as perch-cni, the CNI plugin. It is not
// part of the big binary because starting a container must not pay for starting
// that. It links nothing of Kubernetes.
package main

import (
	"context"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	"github.com/containerd/containerd/v2/pkg/shim"

	"perch/agent/network/cni"
)

func main() {
	if isCNI(os.Args, os.Getenv) {
		cni.Main()
		return
	}
	registerTasks()
	shim.RunShim(context.Background(), manager.NewShimManager("io.containerd.runc.v2"))
}

// isCNI tells whether the runtime calls us as a network plugin. The shim starts
// itself again by its path, so argv[0] alone says nothing about it; a network
// plugin gets no arguments and its order from the environment.
func isCNI(args []string, env func(string) string) bool {
	return filepath.Base(args[0]) == "perch-cni" || len(args) == 1 && env("CNI_COMMAND") != ""
}
