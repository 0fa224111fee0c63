// Package runtimetest says what a container runtime must do, and keeps one in
// memory that does it.
//
// Run is the contract: the embedded containerd and Fake both pass it. Fake runs
// "programs" (Go functions chosen by the image or by the command's name; a few
// words of a shell are built in), writes real CRI log files, sends events and
// exits with real exit codes, so that the agent and simulations of many nodes
// can be tested without root. It never makes a namespace, cgroup or process.
//
//	f := runtimetest.NewFake(runtimetest.FakeConfig{Images: []string{"docker.io/library/busybox:latest"}})
//	defer f.Close()
//	f.Program("docker.io/library/app:v1", func(p *runtimetest.Process) int { … })
//	f.OOMKill(id); f.Exit(id, 3); f.Fail("StartContainer", err); f.SetUsage(id, cpu, memory)
//
// Start reading at Run in contract.go, then fake.go.
package runtimetest
