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
			return keeper{inner, newOutputs()}, err
		},
	})
}

// keeper keeps the exit code and the output of a container that ended while the
// runtime was away, until the next runtime has taken both.
type keeper struct {
	taskapi.TTRPCTaskService
	out *outputs
}

// RegisterTTRPC implements shim.TTRPCService.
func (k keeper) RegisterTTRPC(s *ttrpc.Server) error {
	taskapi.RegisterTTRPCTaskService(s, k)
	return nil
}

// Create makes a container.
func (k keeper) Create(ctx context.Context, req *taskapi.CreateTaskRequest) (*taskapi.CreateTaskResponse, error) {
	have, err := k.TTRPCTaskService.Create(ctx, req)
	if err == nil {
		k.out.hold(req.ID, req.Stdout, req.Stderr)
	}
	return have, err
}

// State tells what became of a container or of a command in it.
func (k keeper) State(ctx context.Context, req *taskapi.StateRequest) (*taskapi.StateResponse, error) {
	have, err := k.TTRPCTaskService.State(ctx, req)
	if err == nil && req.ExecID == "" && have.Status == task.Status_STOPPED {
		k.out.ended(req.ID)
	}
	return have, err
}

// Delete removes a container or a command in it.
func (k keeper) Delete(ctx context.Context, req *taskapi.DeleteRequest) (*taskapi.DeleteResponse, error) {
	if req.ExecID == "" {
		k.out.forget(req.ID)
	}
	return k.TTRPCTaskService.Delete(ctx, req)
}

// Pids lists a task's processes. A runtime that starts again takes a task
// without processes for a leak and deletes it; so the process that ended is
// named until the runtime has collected it.
func (k keeper) Pids(ctx context.Context, req *taskapi.PidsRequest) (*taskapi.PidsResponse, error) {
	have, err := k.TTRPCTaskService.Pids(ctx, req)
	if err != nil || len(have.Processes) > 0 {
		return have, err
	}
	state, err := k.TTRPCTaskService.State(ctx, &taskapi.StateRequest{ID: req.ID})
	if err == nil && state.Status == task.Status_STOPPED && state.Pid != 0 {
		have.Processes = append(have.Processes, &task.ProcessInfo{Pid: state.Pid})
	}
	return have, nil
}
