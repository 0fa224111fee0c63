package daemon

import (
	"context"
	"path/filepath"

	"perch/agent/runtime"
	"perch/agent/runtime/bundle"
	"perch/agent/runtime/containerd"
)

// buildRuntime starts the embedded containerd. Nothing else lives in this
// process, so that replacing any other role never blocks a container's output.
func buildRuntime(ctx context.Context, r role) error {
	helpers, err := bundle.Open(r.cfg.Path("bin"), r.part("bundle"))
	if err != nil {
		return refused{err}
	}
	// Shims get a leaf of their own: what they use is not the runtime role's, and
	// they must not die with it.
	if _, err := makeCgroup(r.cfg.CgroupRoot(), "shims"); err != nil {
		return err
	}
	srv, err := containerd.New(containerd.Config{
		Dir:        r.cfg.DataDir,
		Helpers:    helpers,
		Socket:     r.cfg.Socket("runtime"),
		CNIConf:    r.cfg.Path("cni", "net.d"),
		CNIBin:     []string{filepath.Dir(helpers.CNI)},
		Certs:      r.cfg.Path("images", "certs.d"),
		ShimCgroup: filepath.Join(r.cfg.CgroupRoot(), "system", "shims"),
	}, r.part("containerd"))
	if err != nil {
		return err
	}
	r.group.Go("containerd", srv.Run)
	client, err := runtime.New(runtime.Config{Endpoint: r.cfg.Socket("runtime")}, r.part("cri"), r.reg)
	if err != nil {
		return err
	}
	r.group.OnStop("cri", func(context.Context) error { return client.Close() })
	r.check("containerd", func(ctx context.Context) error {
		_, err := client.Version(ctx)
		return err
	})
	return client.WaitReady(ctx)
}
