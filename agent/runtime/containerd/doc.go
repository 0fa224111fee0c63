// Package containerd runs containerd inside this process: the runtime role. It
// serves CRI (and containerd's own API, for image archives) on a unix socket.
//
// It owns D/containerd/{root,state,runc} and the folder of the shims' sockets.
// It never talks to the control plane and holds no pod logic: killing this
// process leaves the containers running, and the next one adopts them. Only
// here and in agent/image/load may containerd be imported. Lines and exit codes
// of what ends meanwhile are kept by the shim (cmd/perch-shim), which writes the
// logs. One gap is left: killed within the few milliseconds between collecting
// an ended container from the shim and noting it, the runtime comes back with
// exit code 255 and reason Unknown for it.
//
// containerd registers its plugins globally, takes over logrus and looks for its
// shim on PATH, so there is one Server per process. Every path is derived from Config.Dir: several
// clusters share a machine. The one exception is the shims' sockets, which
// must have short names: they lie in SocketDir(D), /run/perch-<hash of D>.
//
//	s, err := containerd.New(containerd.Config{Dir: "/data", Helpers: h}, log)
//	err = s.Run(ctx)   // serves until ctx ends; containers live on
//
// Start reading at New in server.go, then config.go.
package containerd
