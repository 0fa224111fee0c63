package runtimetest

import (
	"errors"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"perch/agent/runtime"
)

func TestFakeKeepsTheContract(t *testing.T) {
	f := NewFake(FakeConfig{Images: []string{"docker.io/library/busybox:latest"}})
	t.Cleanup(f.Close)
	Run(t, func(t *testing.T) Subject {
		return Subject{Service: f, Image: "docker.io/library/busybox:latest", LogDir: t.TempDir()}
	})
}

func TestFakeIsScriptable(t *testing.T) {
	f := NewFake(FakeConfig{})
	t.Cleanup(f.Close)
	s := suite{Subject{Service: f, Image: "registry.example/app:v1", LogDir: t.TempDir()}}
	f.AddImage("registry.example/app:v1")
	f.Program("registry.example/app:v1", func(p *Process) int { <-p.Ctx.Done(); return 0 })
	id, _ := s.start(t, "app")
	f.OOMKill(id)
	if st := s.exited(t, id); st.ExitCode != 137 || st.Reason != "OOMKilled" {
		t.Errorf("have exit code %d, reason %q; want 137, OOMKilled", st.ExitCode, st.Reason)
	}
	f.Fail("StartContainer", runtime.ErrTimeout)
	if err := f.StartContainer(t.Context(), id); !errors.Is(err, runtime.ErrTimeout) {
		t.Errorf("have %v, want the scripted failure", err)
	}
	f.Away(true)
	if _, err := f.ListContainers(t.Context(), nil); !errors.Is(err, runtime.ErrUnavailable) {
		t.Errorf("have %v, want ErrUnavailable", err)
	}
	f.Away(false)
	if _, err := f.PullImage(t.Context(), &cri.ImageSpec{Image: "docker.io/library/none"}, nil, nil); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("have %v, want ErrNotFound", err)
	}
}
