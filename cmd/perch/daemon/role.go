package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"k8s.io/klog/v2"

	"perch/cmd/perch/daemon/config"
	"perch/cmd/perch/daemon/supervisor"
)

// role is what a builder of a role gets: everything parts are made from.
type role struct {
	cfg    config.Config
	group  *Group
	log    *slog.Logger
	reg    *prometheus.Registry
	notify supervisor.Notifier
	pulse  *supervisor.Pulse
}

// builders make the parts of each role and return once its doors are open.
var builders = map[string]func(context.Context, role) error{
	"runtime":   buildRuntime,
	"server":    buildServer,
	"telemetry": buildTelemetry,
	"agent":     buildAgent,
}

// partGrace is how long one part of a role may take to stop.
const partGrace = 8 * time.Second

// runRole is the main function of a role process.
func runRole(dir, name string) error {
	build, known := builders[name]
	if !known {
		return refused{fmt.Errorf("role %q: choose runtime, server, telemetry or agent", name)}
	}
	notify := supervisor.OpenNotifier()
	err := func() error {
		cfg, err := config.Load(dir)
		if err != nil {
			return refused{err}
		}
		if err := enterCgroup(cfg.CgroupRoot(), name, memoryOf(cfg, name)); err != nil {
			return err
		}
		log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("role", name, "node", cfg.NodeName)
		slog.SetDefault(log)
		klog.SetSlogLogger(log.With("part", "library"))
		reg := prometheus.NewRegistry()
		reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
		ctx, stop := untilSignal()
		defer stop()
		r := role{cfg, NewGroup(partGrace), log, reg, notify, supervisor.NewPulse(notify, supervisor.Beat)}
		r.group.Go("logfile", keepLog(cfg.Path("log", name+".log")))
		r.startPulse()
		if err := r.openDebug(name); err != nil {
			return err
		}
		if err := build(ctx, r); err != nil {
			if stopErr := r.group.Stop(); stopErr != nil {
				log.Warn("half-built role was stopped", "err", stopErr)
			}
			return err
		}
		notify.Ready()
		log.Info("role ready")
		return r.group.Wait(ctx)
	}()
	if err != nil {
		notify.Error(err)
	}
	return err
}

// part is the logger of one part.
func (r role) part(name string) *slog.Logger { return r.log.With("part", name) }
