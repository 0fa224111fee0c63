package main

import (
	"context"
	"fmt"
	"sync"

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
			return &keeper{TTRPCTaskService: inner, pipes: map[string]pipes{}}, err
		},
	})
}

// keeper makes containers independent of the runtime being there: it writes
// their logs, and keeps the exit code of one that ended while the runtime was
// away until the next runtime has taken it.
type keeper struct {
	taskapi.TTRPCTaskService

	mu    sync.Mutex
	pipes map[string]pipes // by container: what the runtime called its pipes
}

type pipes struct{ stdout, stderr string }

// RegisterTTRPC implements shim.TTRPCService.
func (k *keeper) RegisterTTRPC(s *ttrpc.Server) error {
	taskapi.RegisterTTRPCTaskService(s, k)
	return nil
}

// Create makes a container. If its log is ours, its streams go through us.
func (k *keeper) Create(ctx context.Context, req *taskapi.CreateTaskRequest) (*taskapi.CreateTaskResponse, error) {
	path, err := logPath(req.Bundle)
	if err != nil || path == "" || req.Stdout == "" && req.Stderr == "" {
		return k.TTRPCTaskService.Create(ctx, req) // it has better words for a broken bundle
	}
	log, err := openLog(path)
	if err != nil {
		return nil, fmt.Errorf("open log of container: %w", err)
	}
	var streams sync.WaitGroup
	var opened []func()
	asked := pipes{req.Stdout, req.Stderr}
	for stream, pipe := range map[string]*string{"stdout": &req.Stdout, "stderr": &req.Stderr} {
		if *pipe == "" {
			continue // a terminal has one stream
		}
		ours, done, err := capture(req.Bundle, stream, *pipe, log, &streams)
		if err != nil {
			for _, done := range opened {
				done()
			}
			return nil, err
		}
		*pipe, opened = ours, append(opened, done)
	}
	go func() {
		streams.Wait()
		log.close()
	}()
	k.mu.Lock()
	k.pipes[req.ID] = asked
	k.mu.Unlock()
	have, err := k.TTRPCTaskService.Create(ctx, req)
	for _, done := range opened {
		done()
	}
	if err != nil {
		k.forget(req.ID)
	}
	return have, err
}

// State tells what became of a container or of a command in it. A runtime that
// starts again learns from it where the streams are.
func (k *keeper) State(ctx context.Context, req *taskapi.StateRequest) (*taskapi.StateResponse, error) {
	have, err := k.TTRPCTaskService.State(ctx, req)
	if err != nil || req.ExecID != "" {
		return have, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if asked, ok := k.pipes[req.ID]; ok {
		have.Stdout, have.Stderr = asked.stdout, asked.stderr
	}
	return have, nil
}

// Delete removes a container or a command in it.
func (k *keeper) Delete(ctx context.Context, req *taskapi.DeleteRequest) (*taskapi.DeleteResponse, error) {
	have, err := k.TTRPCTaskService.Delete(ctx, req)
	if err == nil && req.ExecID == "" {
		k.forget(req.ID)
	}
	return have, err
}

func (k *keeper) forget(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.pipes, id)
}

// Pids lists a task's processes. A runtime that starts again takes a task
// without processes for a leak and deletes it; so the process that ended, or is
// just ending, is named until the runtime has collected it.
func (k *keeper) Pids(ctx context.Context, req *taskapi.PidsRequest) (*taskapi.PidsResponse, error) {
	have, err := k.TTRPCTaskService.Pids(ctx, req)
	if err != nil || len(have.Processes) > 0 {
		return have, err
	}
	state, err := k.TTRPCTaskService.State(ctx, &taskapi.StateRequest{ID: req.ID})
	if err == nil && state.Pid != 0 {
		have.Processes = append(have.Processes, &task.ProcessInfo{Pid: state.Pid})
	}
	return have, nil
}
