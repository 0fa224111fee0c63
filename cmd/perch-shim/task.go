package main

import (
	"context"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/task"
	shimtask "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/containerd/ttrpc"
)

// registerTasks makes the shim serve tasks.
func registerTasks() {
	registry.Register(&plugin.Registration{
		Type: plugins.TTRPCPlugin, ID: "task",
		Requires: []plugin.Type{plugins.EventPlugin, plugins.InternalPlugin},
		InitFn: func(ic *plugin.InitContext) (any, error) {
			events, err := ic.GetByID(plugins.EventPlugin, "publisher")
			if err != nil {
				return nil, err
			}
			stop, err := ic.GetByID(plugins.InternalPlugin, "shutdown")
			if err != nil {
				return nil, err
			}
			inner, err := shimtask.NewTaskService(ic.Context, events.(shim.Publisher), stop.(shutdown.Service))
			return keeper{inner}, err
		},
	})
}

// keeper keeps a container that ended while the runtime was away. A runtime
// that starts again takes a task without processes for a leak and deletes it,
// with its exit code and the output it has not read. So Pids names the process
// that ended until the runtime has collected it.
type keeper struct{ taskapi.TTRPCTaskService }

// RegisterTTRPC implements shim.TTRPCService.
func (k keeper) RegisterTTRPC(s *ttrpc.Server) error {
	taskapi.RegisterTTRPCTaskService(s, k)
	return nil
}

// Pids lists a task's processes.
func (k keeper) Pids(ctx context.Context, req *taskapi.PidsRequest) (*taskapi.PidsResponse, error) {
	have, err := k.TTRPCTaskService.Pids(ctx, req)
	if err != nil || len(have.Processes) > 0 {
		return have, err
	}
	state, err := k.State(ctx, &taskapi.StateRequest{ID: req.ID})
	if err == nil && state.Status == task.Status_STOPPED && state.Pid != 0 {
		have.Processes = append(have.Processes, &task.ProcessInfo{Pid: state.Pid})
	}
	return have, nil
}
